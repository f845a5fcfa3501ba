//! The store of a node: the client API in front, the quorum behind, the tree in memory, sled as its checkpoint.
//!
//! Everything that decides is in [`store_core`], and what needs no task is in [`store_shell`]; this crate carries out what they say:
//!
//! - `driver`: one task, one loop; the only one that touches the core.
//! - `quorum_io`: the tasks between the driver and the quorum. Decoding and encoding happen there, beside the driver.
//! - `handle`: the port of the store for edges in the same process; and `lane`, what one stream shares with the driver.
//! - `grpc`: the edge for gRPC, which knows the store by its port alone.
//! - `table`: the checkpoint on disk, its thread, and recovery from it. Losing it costs time, never data.
//!
//! What is absent: no durability rests on this crate. Whatever a client was told is in the log of a quorum.

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

pub use grpc::{ClusterService, CoordinationService, NodeService, PortService};
pub use handle::{Handle, LocalItems, LocalRequests};
pub use service::{Bounds, Config, OpenError, StopReason, StoreService};
pub use store_core::server::Limits;

/// A [seed](store_core::State::seeded) for the hashes of paths, from the operating system, which keys the standard library's hashes.
fn hash_seed() -> u64 {
    use std::hash::BuildHasher as _;
    std::hash::RandomState::new().hash_one(())
}

/// Removes the checkpoint in a node's directory, which nobody has open, if its space is worth it: to be called where the node cannot
/// start without space. Nothing is lost by it. Returns whether it was removed.
#[must_use]
pub fn give_up_checkpoint(data_dir: &std::path::Path) -> bool {
    table::give_up(data_dir)
}
