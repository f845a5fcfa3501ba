//! The part of a store between its core and its quorum: it decodes and encodes payloads, turns
//! snapshots into states, and rebuilds a state that differs from the leader's.
//!
//! The driver of `store-svc` and the simulator run this same code. They provide tasks, channels and the
//! checkpoint.

mod codec;
mod export;
mod shell;
mod snapshot;

pub use codec::{Decoder, FromQuorum, decode, encode};
pub use export::{Export, PieceEncoder};
pub use shell::{Effect, Shell, SinceSnapshot};
pub use snapshot::Incoming;

/// A broken invariant, or unreadable data from the quorum. Continuing could spread wrong data: stop the node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);
