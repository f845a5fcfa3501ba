//! The logic of a quorum service between its core, its disk, its peers and its store. It turns outputs
//! of the core into tasks for the log and into messages. It reads log and snapshots for learners and
//! the store. It detects a data directory that is an older copy.
//!
//! `quorum-svc` and the simulator run this same code. They supply tasks, channels, threads, connections
//! and clocks.

mod failure;
mod feed;
mod incoming;
mod met;
mod outgoing;
mod read;
mod saving;
mod shell;
mod suspicion;
mod view;
mod worker;

pub use failure::Failure;
pub use feed::{Feed, Step, Tell};
pub use incoming::{Broken, Incoming, Part};
pub use met::Met;
pub use outgoing::{Command, Ended, Frame, Outgoing, Sent, ToSend};
pub use read::{Got, Read};
pub use saving::{Keep, Unsaved, saved, snap_before, unsaved};
pub use shell::{Effect, Said, Shell};
pub use view::LogView;
pub use worker::{Done, LogWorker, Task};

#[cfg(test)]
mod tests;
