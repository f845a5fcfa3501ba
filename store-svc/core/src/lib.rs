//! The heart of store-svc, pure: no task, socket, disk, clock or random number in here.
//!
//! - [`State`]: the znode tree and the sessions, a function of the log. Same entries, same state, same digest.
//! - `watch`: who is told of what, and the last changes, for those who come back.
//! - [`Server`]: a node's front: connections, the order of requests, and who waits for which entry of the log.

mod acls;
mod digest;
mod kept;
pub mod server;
mod sessions;
mod state;
mod tree;
mod watch;

pub use server::Server;
pub use sessions::{KEPT_BYTES_MAX, KEPT_POOL, KEPT_RESERVE, SessionInfo, hash_of};
pub use state::{Applied, Changes, LoadError, Loader, State};
pub use tree::{At, By, Tree};
pub use watch::{Counted, WatchFigures};
