//! Fast leader election as a pure state machine: which member of an [`api::Ensemble`] shall lead.
//!
//! Every looking voter proposes the best known candidate, at first itself, and sends a notification to all
//! others whenever its proposal changes. Once a quorum holds the same vote in the same round, and no better
//! vote arrives within a short waiting time, that candidate is elected. A looking server learns of an
//! existing leader from the others and joins it. The rules are those of ZooKeeper's `FastLeaderElection`;
//! where this crate differs, the doc of the function gives the reason.
//!
//! The election decides which leader to *try*: it makes a good choice likely and agreement quick. The
//! promises that a leader collects from a quorum before it reigns ensure later that an epoch has only one
//! leader.
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

/// Which end of a pair opens the one connection between them: the larger id (S9).
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
