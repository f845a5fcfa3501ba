//! The edge for gRPC: `quorate.v1`, in front of any [`Coordination`](api::ports::Coordination).

mod cluster;
mod coordination;
mod node;
mod port;
mod session;

use api::{Identities, ports::Caller};

pub use cluster::ClusterService;
pub use coordination::CoordinationService;
pub use node::NodeService;
pub use port::PortService;

/// What is known of the client that sent this. The listener puts the bounds of its connection into the extensions.
fn caller<R>(request: &tonic::Request<R>) -> Caller {
    let extensions = request.extensions();
    Caller {
        // None are proven yet.
        identities: Identities::default(),
        address: request.remote_addr().map(|address| address.ip()),
        share: extensions.get().cloned(),
        message: extensions.get().cloned().unwrap_or_default(),
    }
}
