//! What a store does between its core and its quorum: payloads are decoded and encoded, snapshots become states, and a state that
//! is not the leader's is built again.
//!
//! The driver of `store-svc` and the simulator run this same code. Tasks, channels and the checkpoint are theirs.

mod codec;
mod export;
mod shell;
mod snapshot;

pub use codec::{Decoder, FromQuorum, decode, encode};
pub use export::{Export, PieceEncoder};
pub use shell::{Effect, Shell, SinceSnapshot};
pub use snapshot::Incoming;

/// Something that cannot be true is, or what the quorum says cannot be read. Going on could spread wrong data: stop the node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);
