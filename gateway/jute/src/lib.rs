//! The protocol between a ZooKeeper client and its server, as ZooKeeper 3.9 speaks it: frames, the handshake, requests, replies and
//! events, encoded and decoded for both sides. Pure: bytes in, values out.
//!
//! - [`Frames`] cuts what a connection has received into frames, within a limit.
//! - [`ConnectRequest`] and [`ConnectResponse`] are the first frame of each side.
//! - Then a client sends [`RequestHeader`]s with a [`Request`] behind each, and the server [`ReplyHeader`]s with a [`Body`], or an
//!   [`Event`], behind each.
//!
//! Nothing here trusts the other side: lengths and counts are held against the bytes that are there before anything is allocated,
//! records do not nest, and what is wrong is a [`Malformed`].
//!
//! Jute is big-endian. A string or buffer is its length and its bytes, a vector its count and its elements; -1 stands for null.
//! A record is its fields, one behind the other.

mod field;
mod frame;
mod handshake;
mod multi;
mod op;
mod records;
mod reply;
mod request;
mod text;

pub use field::{Field, Malformed, Reader};
pub use frame::{FRAME_MAX, FrameError, Frames, frame};
pub use handshake::{ConnectRequest, ConnectResponse, PASSWORD};
pub use multi::MultiResult;
pub use op::{Code, EventType, KeeperState, OpCode, xid};
pub use records::{Acl, ClientInfo, Create, Id, SetWatches, Stat, WatcherEvent};
pub use reply::{Body, Event, ReplyHeader, Shape};
pub use request::{Bad, Reconfig, Request, RequestHeader};
