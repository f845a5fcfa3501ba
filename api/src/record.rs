//! The state of a store as a list of records: what a checkpoint keeps, a snapshot carries and a backup holds.

use bytes::Bytes;

use crate::{
    Acl, AclId, Identities, Level, NodeKind, Path, Quota, RequestHash, SessionId, StreamId, TokenHash,
    WriteNumber, Zxid,
};

/// One record. A complete state is one header and all znodes (the root among them), access lists, sessions and kept results, each
/// once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// What the others add up to.
    Header(Header),
    /// A znode.
    Znode(Znode),
    /// An access list.
    Acl(AccessList),
    /// A session.
    Session(Session),
    /// A result that is kept for a session. There may be many, so each has a record of its own: a write then costs what it
    /// changes.
    Result(KeptResult),
}

/// Of which entry this is the state, and what a reader checks it against.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// The state is exactly the one after this entry.
    pub applied: Zxid,
    /// Of all znodes, access lists, sessions and kept results.
    pub digest: u64,
    /// How many znodes, the root among them.
    pub znodes: u64,
    /// How many sessions.
    pub sessions: u64,
    /// Leader's time of the last entry, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The feature level at which the state is.
    pub level: Level,
}

/// A znode; fields as in [`crate::Stat`] unless noted. Its children are known from their paths.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Znode {
    /// Its full name.
    pub path: Path,
    /// Its value, or none.
    pub data: Option<Bytes>,
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
    /// See [`crate::Stat::kind`].
    pub kind: NodeKind,
    /// See [`crate::Stat::ephemeral_owner`]: of an ephemeral, and only of that.
    pub ephemeral_owner: Option<SessionId>,
    /// Its access list, one of those that have a record, or the open one.
    pub acl: AclId,
    /// Creates of children so far, and names skipped on the way: the number of the next sequential one; at most
    /// [`crate::SEQUENCE_END`].
    pub creates: u64,
    /// Its quota; the default is none.
    pub quota: Quota,
}

/// An access list that znodes have.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AccessList {
    /// How znodes name it; never [`AclId::OPEN`].
    pub id: AclId,
    /// The list; not the open one.
    pub acl: Acl,
}

/// An open session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    /// The zxid of the entry that opened it.
    pub id: SessionId,
    /// Of its secret, which only the client keeps.
    pub token_hash: TokenHash,
    /// The identities that opened it: a client that resumes it must have all of them.
    pub owner: Identities,
    /// The silence after which the leader closes it.
    pub timeout_ms: u32,
    /// The stream on which it was taken up last.
    pub stream: StreamId,
    /// Results up to this write are forgotten, those behind it are kept.
    pub acked: WriteNumber,
}

/// The result of a numbered write, kept for the case that the write is sent again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeptResult {
    /// Whose.
    pub session: SessionId,
    /// Of which write.
    pub number: WriteNumber,
    /// Its place in the order.
    pub zxid: Zxid,
    /// Of the request that the number is bound to.
    pub request: RequestHash,
    /// What it did, as far as the request does not say it; as `store-core` encodes it.
    pub outcome: Bytes,
}
