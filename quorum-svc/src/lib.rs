//! The quorum service of a node: ZAB over gRPC streams, with the transaction log on disk.
//!
//! Everything that decides is in [`quorum_core`]; everything on disk in [`quorum_log`]. This crate carries out what
//! the core says:
//!
//! - `driver`: one task, one loop, one `match` over the core's outputs. It never waits for anything but its inputs.
//! - `log_thread`: the one thread that writes to the disk, in order, with group commit.
//! - `view`: reading the log, from memory where possible.
//! - `learner_link`, `leader_link`: the two ends of the stream between a learner and its leader.
//! - `acquaintances`: which incarnation of its data directory each server is in, so that one on an older copy is told.
//! - `room`: how much space the disks have, and the reserve on them.
//! - `feed`, `handle`: what the store sees, the port [`api::ports::Quorum`];
//! - `port`: the same for a store in another process.

mod acquaintances;
mod backlog;
mod driver;
mod feed;
mod handle;
mod late;
mod leader_link;
mod learner_link;
mod log_thread;
mod measure;
mod outbox;
mod polled;
mod port;
mod room;
mod service;
mod trace;

pub use acquaintances::INCARNATION_EVERY;
pub use feed::LogFeed;
pub use handle::{Handle, Keep, LogHealth};
pub use late::{Late, Opening};
pub use leader_link::LearnService;
pub use port::PortService;
pub use service::{Config, OpenError, QuorumService, StopReason};
