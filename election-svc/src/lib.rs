//! Fast leader election between servers: the pure core of [`election_core`] with sockets and a clock.
//!
//! - the driver: one loop and one `match` that owns the core;
//! - the links: one gRPC stream for each pair of servers, dialled by the larger id (S9);
//! - the [`Handle`]: [`api::ports::Election`] for the quorum in this process;
//! - the [`PortServer`]: the same for a quorum in another process.
//!
//! Nothing is written to disk: an election keeps no state across restarts.

mod complaints;
mod dialer;
mod driver;
mod handle;
mod link;
mod port;
mod server;
mod service;

pub use driver::Driver;
pub use handle::Handle;
pub use port::PortServer;
pub use server::Server;
pub use service::{Config, ConfigError, ElectionService};
