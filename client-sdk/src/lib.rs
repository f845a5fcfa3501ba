//! The async client of Quorate.
//!
//! A [`Client`] holds one session with an ensemble, over whichever of its nodes answers, and moves it to another node
//! when a connection breaks. Unanswered requests are sent again, and a write is carried out once, however often it is
//! sent. So the failure of a node delays requests, and fails none.
//!
//! ```no_run
//! # async fn example() -> Result<(), client_sdk::ClientError> {
//! use client_sdk::{Client, CreateMode, Options};
//!
//! let client = Client::connect(["127.0.0.1:12188", "127.0.0.1:22188"], Options::default()).await?;
//! let (path, _) = client.create("/greeting", "hello", CreateMode::default()).await?;
//! let (value, stat) = client.get(path.as_str()).await?;
//! assert_eq!((&value[..], stat.version), (&b"hello"[..], 0));
//! client.close().await
//! # }
//! ```
//!
//! The verbs wait for their answers one by one. To have many requests under way, [`Client::submit`] and
//! [`Client::read`] enqueue and return a [`Pending`] each, to be awaited later; the order of enqueueing is the order
//! of effect.
//!
//! A [`Watch`] gets the changes of znodes, each one once and in the order of the log, over all changes of nodes and
//! sessions:
//!
//! ```no_run
//! # async fn example(client: client_sdk::Client) -> Result<(), client_sdk::ClientError> {
//! use client_sdk::WatchEvent;
//!
//! let mut watch = client.watch("/workers").tree().with_state().values().await?;
//! while let Some(event) = watch.next().await {
//!     match event? {
//!         WatchEvent::State { znodes, .. } => println!("{} znodes", znodes.len()),
//!         WatchEvent::Changes { zxid, changes } => println!("{zxid}: {changes:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Cache`] keeps a copy of a znode, of its children or of a subtree by such a watch.

mod cache;
mod client;
mod clock;
mod cluster;
mod driver;
mod error;
mod listeners;
mod node;
mod options;
mod stale;
mod tls;
mod transport;
mod trees;
mod waiters;
mod walk;
mod watch;

#[cfg(test)]
mod tests;

pub use api::walk::WalkEnd;
pub use api::watch::{Change, ChangeKind, WatchScope, WatchedZnode};
pub use api::{Acl, AclEntry, BadAccess, Identities, Identity, Permissions, Scheme, proof::Credential};
pub use api::{
    Child, Create, DeleteTree, ErrorCode, Expected, Look, MultiOp, MultiOutcome, NodeKind, OpError, Page,
    Path, PeerId, Quota, QuotaAt, Read, ReadLevel, ReadOutcome, SessionId, Stat, Usage, Write, WriteOutcome,
    Zxid, quota::Bounds,
};
pub use api::{EnsembleId, Membership, ports::PeerReport};
pub use api::{Fate, Retry};
pub use cache::Cache;
pub use client::{Client, CreateMode, Pending, SessionEvent};
pub use client_core::Failure;
pub use cluster::{set_level, upgrade_status};
pub use error::{ClientError, Tried};
pub use node::node_status;
pub use options::Options;
pub use proto::client::{Load, LoadRange, NodeMember, NodeStatus};
pub use proto::cluster::Upgrade;
pub use stale::{Found, read_stale};
pub use tls::{Tls, TlsFileError};
pub use trees::DeleteTreeBuilder;
pub use walk::{WalkBuilder, Walked};
pub use watch::{Watch, WatchBuilder, WatchEvent};
