//! The state of a store as a list of records: what a checkpoint keeps, a snapshot carries and a backup holds.

use bytes::Bytes;

use crate::{Path, SessionId, SessionToken, WriteNumber, WriteResult, Zxid};

/// One record. A complete state is one header and all znodes (the root among them) and sessions, each once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// What the others add up to.
    Header(Header),
    /// A znode.
    Znode(Znode),
    /// A session.
    Session(Session),
}

/// Of which entry this is the state, and what a reader checks it against.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// The state is exactly the one after this entry.
    pub applied: Zxid,
    /// Of all znodes and sessions.
    pub digest: u64,
    /// How many znodes, the root among them.
    pub znodes: u64,
    /// How many sessions.
    pub sessions: u64,
    /// Leader's time of the last entry, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// A znode; fields as in [`crate::Stat`] where not said otherwise. Its children are those whose paths say so.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Znode {
    /// Its full name.
    pub path: Path,
    /// Its value.
    pub data: Bytes,
    /// See [`crate::Stat::czxid`].
    pub czxid: Zxid,
    /// See [`crate::Stat::mzxid`].
    pub mzxid: Zxid,
    /// See [`crate::Stat::pzxid`].
    pub pzxid: Zxid,
    /// See [`crate::Stat::ctime_ms`].
    pub ctime_ms: i64,
    /// See [`crate::Stat::mtime_ms`].
    pub mtime_ms: i64,
    /// See [`crate::Stat::version`].
    pub version: i32,
    /// See [`crate::Stat::cversion`].
    pub cversion: i32,
    /// See [`crate::Stat::aversion`].
    pub aversion: i32,
    /// See [`crate::Stat::ephemeral_owner`].
    pub ephemeral_owner: Option<SessionId>,
    /// Creates of children so far: the number of the next sequential one.
    pub creates: u32,
}

/// An open session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    /// The zxid of the entry that opened it.
    pub id: SessionId,
    /// Its secret.
    pub token: SessionToken,
    /// After so much silence the leader closes it.
    pub timeout_ms: u32,
    /// Results up to this write are forgotten.
    pub acked: WriteNumber,
    /// Results of the writes behind `acked`, in order of their numbers.
    pub results: Vec<KeptResult>,
}

/// The result of a numbered write, kept for the case that the write is sent again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeptResult {
    /// Its place in the order.
    pub zxid: Zxid,
    /// What it did.
    pub result: WriteResult,
}
