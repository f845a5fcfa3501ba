//! The client API: requests, items, errors and statuses of `quorate.v1`, to and from the words of [`api::session`].
//!
//! Requests are checked here and nowhere else: an [`Op`](api::session::Op) has valid paths, versions of at least 0 and a write
//! number where one is due. An option that this version does not have yet is refused and never ignored. Values are
//! [`bytes::Bytes`] on both sides and are never copied.

mod error;
mod items;
mod node;
mod requests;
mod walk;
mod watch;
mod who;

#[cfg(test)]
pub(crate) use error::CODES;
pub use error::{details, from_status, not_ours, to_status};
pub(crate) use items::{identities_off_wire, identities_to_wire, response, response_to_wire};
pub use items::{item_to_wire, items, read_outcome};
pub use node::{Load, LoadRange, NodeMember, NodeStatus};
pub(crate) use requests::min_level_to_wire;
pub use requests::{OpenSession, op, op_to_wire, request, request_to_wire, traceparent};
pub use walk::{walk, walk_part, walk_part_to_wire, walk_to_wire};
pub use watch::{WatchCall, watch_item_to_wire};
pub(crate) use watch::{refused, refused_to_wire};
pub use who::{Who, credential_to_wire};

/// Largest gRPC message between a client and a node, either way: what the libraries of other languages take by default.
pub const MESSAGE_MAX: usize = 4 << 20;

/// The greatest feature level that this version's API has.
pub const LEVEL: u32 = api::Levels::BUILD.max().0;

#[cfg(test)]
mod tests;
