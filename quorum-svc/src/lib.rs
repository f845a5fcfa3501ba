//! The quorum service of a node: ZAB over gRPC streams, with the transaction log on disk.
//!
//! [`quorum_core`] makes all decisions, and [`quorum_log`] owns everything on disk. This crate carries
//! out the outputs of the core:
//!
//! - `driver`: one task, one loop, one `match` over the core's outputs. It waits only for its inputs.
//! - `log_thread`: the only thread that writes to the disk, in order, with group commit.
//! - `view`: reads of the log, from memory where possible.
//! - `learner_link`, `leader_link`: the two ends of the stream between a learner and its leader.
//! - `acquaintances`: the known incarnation of each server's data directory, to detect a server on an
//!   older copy.
//! - `room`: the free space on the disks, and the reserve.
//! - `feed`, `handle`: the store's view of the quorum, the port [`api::ports::Quorum`];
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
