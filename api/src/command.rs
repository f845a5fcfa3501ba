use std::fmt;

use crate::{Epoch, Identities, OpError, Path, Write, Zxid};

/// A client's session. Its number is the zxid of the entry that opened it, so it is never used twice. 0 is no session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// The secret that a client shows to take its session up again; random, made by the node that opened the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionToken(pub [u8; 16]);

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// The SHA-256 of a [`SessionToken`]: what is kept of it, in the log and on disk, opens no session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenHash(pub [u8; 32]);

/// A session numbers its writes 1, 2, 3 ... so that one that is sent again, to the same node or to another, is carried
/// out once (exactly-once, `docs/protocol.md`). 0 means "before the first".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteNumber(pub u64);

/// A stream of a session. The node that takes a session up for a client draws the id at random; ids have no order, the log
/// decides which stream is the newest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The stream that opened the session.
    pub const FIRST: StreamId = StreamId(0);
}

/// A hash of a request, which binds a write number to it: of what the client asked for, whatever a node made of that.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct RequestHash(pub u64);

/// What a store puts into the log: a request, to be carried out by every store in the same way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Command {
    /// Whose it is; `None` for one without a session, which cannot make ephemerals and is not protected from being
    /// carried out twice if its sender sends it twice.
    pub session: Option<SessionId>,
    /// The stream of the session that it came on. It changes nothing if the session was taken up on another one since.
    pub stream: StreamId,
    /// The session's number for this write; `None` for one that its session does not number.
    pub number: Option<WriteNumber>,
    /// The session has received the results of all its writes up to this one, so they need not be kept any longer.
    pub acked: WriteNumber,
    /// The identities of the caller, as the node that took the request has proven them.
    pub identities: Identities,
    /// What to do.
    pub body: CommandBody,
}

impl Command {
    /// One without a session and without identities.
    #[must_use]
    pub fn outside(body: CommandBody) -> Command {
        Command {
            session: None,
            stream: StreamId::FIRST,
            number: None,
            acked: WriteNumber(0),
            identities: Identities::default(),
            body,
        }
    }
}

/// What a [`Command`] does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CommandBody {
    /// Changes the tree.
    Write(Write),
    /// Changes nothing and fails with this error: a numbered write that the node refused (malformed, too large). It
    /// goes through the log all the same, because its number must be used up for the next one to be in order.
    Refuse {
        /// Why.
        error: OpError,
        /// Of what the node refused.
        request: RequestHash,
    },
    /// Opens a session; its id will be the zxid of the entry, its owner the identities of the command. Fails if the ensemble has
    /// too many.
    OpenSession {
        /// Of the secret.
        token_hash: TokenHash,
        /// The silence after which the leader closes the session.
        timeout_ms: u32,
        /// Most sessions that may be open with it, as configured on the node that was asked. It is part of the command, so
        /// that all stores decide alike.
        sessions_max: u32,
    },
    /// Takes a session up on a new stream: what comes behind this from any other stream of it changes nothing.
    ResumeSession {
        /// Which one.
        session: SessionId,
        /// The new stream.
        stream: StreamId,
    },
    /// Closes a session and removes its ephemerals, asked for by the client or by the leader after the time-out.
    CloseSession {
        /// Which one.
        session: SessionId,
        /// The epoch whose leader closes it because of silence. In any other epoch the entry closes nothing: the next
        /// leader counts the time-out again, and tells clients so. `None`: the client, or its node, asks for it.
        expired: Option<Epoch>,
    },
    /// Changes nothing. Says which digest the leader's state had behind the check before it, for stores to compare with
    /// their own.
    Check {
        /// The check before it; zero if its leader has seen none.
        of: Zxid,
        /// Of the state behind that entry.
        digest: u64,
    },
    /// Removes a znode whose kind says that its time is over. The leader's store asks for it; every store looks again, where the
    /// entry stands, whether that is still so, and changes nothing if it is not.
    Reap {
        /// Which znode.
        path: Path,
        /// Only this creation of it.
        czxid: Zxid,
        /// Milliseconds after its creation at which a container that has never had a child is removed; 0: never. As configured on
        /// the leader's node. It is part of the command, so that all stores decide alike.
        unused_ms: u64,
    },
}
