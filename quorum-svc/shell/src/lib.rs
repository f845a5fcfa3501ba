//! What a quorum service does between its core, its disk, its peers and its store: what the core wants becomes tasks for the log and
//! messages, what is told and sent is read from log and snapshots, and a directory that is an older copy is found out.
//!
//! `quorum-svc` and the simulator run this same code. Tasks, channels, threads, connections and clocks are theirs.

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
