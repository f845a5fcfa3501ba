//! Fast leader election as a pure state machine. It chooses the leader among the members of an
//! [`api::Ensemble`].
//!
//! Every looking voter proposes the best known candidate, at first itself, and sends a notification to all
//! others whenever its proposal changes. Once a quorum holds the same vote in the same round, and no better
//! vote arrives within a short waiting time, that candidate is elected. A looking server learns of an
//! existing leader from the others and joins it. The rules are those of ZooKeeper's `FastLeaderElection`;
//! where this crate differs, the doc of the function gives the reason.
//!
//! The election decides which leader to *try*. It makes a good choice likely and agreement quick.
//! Uniqueness comes later: before a leader reigns, it collects the promises of a quorum, so an epoch
//! has only one leader.
//!
//! ```
//! use api::{Ensemble, PeerId, Time, ports::Candidate};
//! use election_core::{Config, Election, Input, Output, Round};
//!
//! // A single server decides at once (S8).
//! let alone = Ensemble::of_voters([1])?;
//! let mut election = Election::new(Config::new(PeerId(1), alone));
//! election.handle(Time(0), Input::Elect(Some(Candidate::default())));
//! assert_eq!(election.poll_output(), Some(Output::Elected { leader: PeerId(1), round: Round(1) }));
//! # Ok::<(), api::EnsembleError>(())
//! ```

mod election;
mod looking;

pub use api::vote::{Notification, Round, Vote};
pub use election::{Config, Election, Input, Output};

use api::PeerId;

/// Whether this server opens the one connection to `peer`: the larger id does (S9).
///
/// ```
/// use api::PeerId;
/// assert!(election_core::dials(PeerId(2), PeerId(1)));
/// assert!(!election_core::dials(PeerId(1), PeerId(2)));
/// ```
#[must_use]
pub fn dials(me: PeerId, peer: PeerId) -> bool {
    me > peer
}
