//! The schemas in `proto/`, the code generated from them, and the only conversions between wire and domain.
//!
//! - [`v1`]: the API for applications and operators (`quorate.v1`).
//! - [`peer`]: between the servers of an ensemble (`quorate.peer.v1`), private to one version.
//! - [`internal`]: between the services of one node that run in processes of their own (`quorate.internal.v1`).
//! - [`state`]: payloads of the log and records of checkpoint and snapshot (`quorate.state.v1`), read for ever.
//!
//! [`remote`] has the clients that make a service in another process look like one in this process.
//!
//! Everything that comes off a wire is checked where it is converted: a domain value made here is a valid one.

pub mod client;
pub mod cluster;
pub mod codec;
pub mod edge;
pub mod election;
#[cfg(test)]
mod lint;
pub mod pieces;
pub mod ports;
pub mod quorum;
pub mod remote;
pub mod store;
pub mod streams;

// Nested as the packages are, because generated code refers to its neighbours by relative paths.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod quorate {
    pub mod v1 {
        tonic::include_proto!("quorate.v1");
    }
    pub mod internal {
        pub mod v1 {
            tonic::include_proto!("quorate.internal.v1");
        }
    }
    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("quorate.peer.v1");
        }
    }
    pub mod state {
        pub mod v1 {
            tonic::include_proto!("quorate.state.v1");
        }
    }
}

pub use quorate::{internal::v1 as internal, peer::v1 as peer, state::v1 as state, v1};

/// Descriptors of all schemas, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Paths of the methods that take a stream of messages. All others of ours take one.
pub const STREAMED: &[&str] = include!(concat!(env!("OUT_DIR"), "/streamed.rs"));

/// Largest gRPC message between servers, in bytes: a batch of entries, or one entry of the greatest size in its frame.
pub const PEER_MESSAGE_MAX: usize = api::ports::PAYLOAD_MAX + (64 << 10);

/// Version of what servers say to each other; sent in every `Hello`.
pub const PEER_PROTOCOL: u32 = 5;

/// Why something off the wire is no domain value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);
