//! The invariants of elections and ZAB, as an observer of all servers checks them. The simulator, the explorer and the tests of the
//! cores use this same code; the names are those of `docs/simulation.md`.
//!
//! The observer does not ask the code that it judges: it counts quorums itself, and it knows of the protocol only what servers
//! submit, append, acknowledge and report as committed.

mod ledger;
mod members;
mod proposals;
mod quorums;
mod votes;

pub use ledger::{Answer, Ledger};
pub use members::Members;
pub use proposals::{Proposals, same};
pub use quorums::Quorums;
pub use votes::Votes;

/// An invariant does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Its name in `docs/simulation.md`.
    pub rule: &'static str,
    /// What contradicts it.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

impl From<Broken> for String {
    fn from(broken: Broken) -> String {
        broken.to_string()
    }
}

/// The result of a check.
pub type Verdict = Result<(), Broken>;

/// `Ok` if the invariant `rule` holds.
///
/// # Errors
/// If not, with `what` as the contradiction.
pub fn check(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Broken { rule, what: what() }) }
}
