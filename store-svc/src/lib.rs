//! The store of a node: the client API in front, the quorum behind, the tree in memory, sled as its
//! checkpoint.
//!
//! [`store_core`] makes all decisions, and [`store_shell`] contains everything that needs no task. This
//! crate carries out their outputs:
//!
//! - `driver`: one task, one loop; the only code that touches the core.
//! - `quorum_io`: the tasks between the driver and the quorum. They decode and encode in parallel to
//!   the driver.
//! - `handle`: the port of the store for edges in the same process; `lane`: the state that one stream
//!   shares with the driver.
//! - `grpc`: the edge for gRPC, which uses only the port of the store.
//! - `table`: the checkpoint on disk, its thread, and recovery from it. Losing it costs time, never data.
//!
//! Durability does not depend on this crate: every acknowledged write is in the log of a quorum.

mod audit;
mod driver;
mod grpc;
mod handle;
mod lane;
mod measure;
mod quorum_io;
mod rate;
mod service;
mod table;
#[doc(hidden)]
pub mod testing;
mod trace;

pub use grpc::{
    Answers, ClusterService, CoordinationService, NodeService, PortService, PortSessions, Sessions, Watches,
    Watching,
};
pub use handle::{Handle, LocalItems, LocalRequests};
pub use service::{Bounds, ClientApi, Config, OpenError, StopReason, StoreService};
pub use store_core::server::Limits;

/// A [seed](store_core::State::seeded) for the hashes of paths, taken from the standard library's hash
/// keys, which come from the operating system.
fn hash_seed() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(())
}

/// Removes the checkpoint in a node's directory if its space is worth it. No process may have it open.
/// Call it when the node cannot start for lack of space. No data is lost. Returns whether the
/// checkpoint was removed.
#[must_use]
pub fn give_up_checkpoint(data_dir: &std::path::Path) -> bool {
    table::give_up(data_dir)
}
