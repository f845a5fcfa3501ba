//! The core of store-svc. It is pure: no task, socket, disk, clock or random number.
//!
//! - [`State`]: the znode tree and the sessions, a function of the log. The same entries give the same
//!   state and digest.
//! - `watch`: the watches, and a history of the last changes for clients that resume.
//! - [`Server`]: the front of a node: connections, the order of requests, and the requests that wait
//!   for log entries.

mod acls;
mod digest;
mod kept;
pub mod server;
mod sessions;
mod sorted;
mod state;
mod tree;
mod watch;

pub use kept::UNACKED_WRITES;
pub use server::Server;
pub use sessions::{KEPT_BYTES_MAX, KEPT_POOL, KEPT_RESERVE, SessionInfo, hash_of};
pub use state::{Applied, Changes, LoadError, Loader, State};
pub use tree::{At, By, Tree};
pub use watch::{Counted, WatchFigures};
