//! The logic of an election service between its core and its links. The newest link to a peer counts,
//! servers of other ensembles have no vote, and an outcome goes to the waiting caller.
//!
//! The driver of `election-svc` and the simulator run this same code. They supply streams, tasks and
//! clocks.

mod redial;
mod shell;

pub use redial::Redial;
pub use shell::{Effect, LinkEvent, Shell};

use std::time::Duration;

/// Each end of a link sends something within this time: its last notification again if there is no other.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A peer that is silent for this time counts as dead: four heartbeats.
pub const SILENCE: Duration = Duration::from_secs(2);
