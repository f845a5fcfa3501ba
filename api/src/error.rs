use crate::{
    BadAccess, EnsembleId, Path, PathError, Permissions, SEQUENCE_END, SessionId, WriteNumber, Zxid,
    quota::Counted,
};

/// The kind of an [`OpError`], stable on the wire and in scripts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ErrorCode {
    /// No such znode.
    NoNode,
    /// There is one already.
    NodeExists,
    /// It has children.
    NotEmpty,
    /// Another version than expected.
    BadVersion,
    /// Another creation of the znode than expected.
    BadCzxid,
    /// A znode where none was expected.
    Present,
    /// An ephemeral cannot have children.
    NoChildrenForEphemerals,
    /// The text is no path.
    BadPath,
    /// The caller has not the right to do it.
    NoAuth,
    /// What was given is no access list.
    BadAcl,
    /// The request itself is wrong; sending it again will not help.
    BadArguments,
    /// The server has no such operation, option or value, or not at the present feature level.
    Unsupported,
    /// Larger than the configured limit.
    TooLarge,
    /// The session is unknown, closed or expired.
    SessionExpired,
    /// The session was taken up on a newer stream.
    SessionMoved,
    /// The write's number is not the next one of its session.
    OutOfOrder,
    /// The write's number is used up by another request.
    NumberReused,
    /// The write's result was acknowledged and is forgotten.
    ResultForgotten,
    /// No number is free for a sequential znode.
    NoSequenceNumber,
    /// No quorum, no leader, shutting down: try again, here or at another node.
    Unavailable,
    /// A bounded queue is full: slow down and try again.
    Overloaded,
    /// The disks are nearly full: what takes room is refused.
    DiskFull,
    /// A change of the feature level is refused.
    Level,
    /// The node belongs to another ensemble than the client expects.
    WrongEnsemble,
    /// More of something than is allowed: watches of a session or node, znodes of one state.
    LimitExceeded,
    /// A hard bound of a quota would be exceeded.
    QuotaExceeded,
    /// The answer would be larger than a message may be.
    AnswerTooLarge,
    /// The time of the request passed before it was begun.
    TimedOut,
    /// The session only reads.
    ReadOnly,
    /// The history does not reach back so far.
    Gone,
    /// It may or may not have been carried out.
    Unknown,
    /// A defect of ours.
    Internal,
    /// One that this version does not know.
    Other,
}

/// What became of a request that failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fate {
    /// It changed nothing and never will.
    NotDone,
    /// It was carried out; its result is not known any more.
    Done,
    /// It was carried out, or will be, or not. A session that lives sends it again under its number and gets the result.
    Unknown,
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fate::NotDone => "it changed nothing and may safely be sent again",
            Fate::Done => "it was carried out before",
            Fate::Unknown => "it may or may not have been carried out: read, then decide",
        })
    }
}

/// What helps after an error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Retry {
    /// Nothing: the same request fails again.
    Never,
    /// To read what is there, and to decide again.
    AfterRead,
    /// To send it again to the same node.
    SameNode,
    /// To send it to another node.
    OtherNode,
    /// To open a new session.
    NewSession,
    /// To send it with fresh credentials.
    Authenticate,
}

impl ErrorCode {
    /// The name on the wire (`google.rpc.ErrorInfo.reason`) and in `-o json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::NoNode => "NO_NODE",
            ErrorCode::NodeExists => "NODE_EXISTS",
            ErrorCode::NotEmpty => "NOT_EMPTY",
            ErrorCode::BadVersion => "BAD_VERSION",
            ErrorCode::BadCzxid => "BAD_CZXID",
            ErrorCode::Present => "PRESENT",
            ErrorCode::QuotaExceeded => "QUOTA_EXCEEDED",
            ErrorCode::AnswerTooLarge => "ANSWER_TOO_LARGE",
            ErrorCode::TimedOut => "TIMED_OUT",
            ErrorCode::ReadOnly => "READ_ONLY",
            ErrorCode::NoChildrenForEphemerals => "NO_CHILDREN_FOR_EPHEMERALS",
            ErrorCode::BadPath => "BAD_PATH",
            ErrorCode::NoAuth => "NO_AUTH",
            ErrorCode::BadAcl => "BAD_ACL",
            ErrorCode::BadArguments => "BAD_ARGUMENTS",
            ErrorCode::Unsupported => "UNSUPPORTED",
            ErrorCode::TooLarge => "TOO_LARGE",
            ErrorCode::SessionExpired => "SESSION_EXPIRED",
            ErrorCode::SessionMoved => "SESSION_MOVED",
            ErrorCode::OutOfOrder => "OUT_OF_ORDER",
            ErrorCode::NumberReused => "NUMBER_REUSED",
            ErrorCode::ResultForgotten => "RESULT_FORGOTTEN",
            ErrorCode::NoSequenceNumber => "NO_SEQUENCE_NUMBER",
            ErrorCode::Unavailable => "UNAVAILABLE",
            ErrorCode::Overloaded => "OVERLOADED",
            ErrorCode::DiskFull => "DISK_FULL",
            ErrorCode::Level => "LEVEL",
            ErrorCode::WrongEnsemble => "WRONG_ENSEMBLE",
            ErrorCode::LimitExceeded => "LIMIT_EXCEEDED",
            ErrorCode::Gone => "GONE",
            ErrorCode::Unknown => "UNKNOWN_OUTCOME",
            ErrorCode::Internal => "INTERNAL",
            ErrorCode::Other => "OTHER",
        }
    }
}

/// Why an operation did not do what it was asked. The messages name the remedy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum OpError {
    /// No such znode; for a create, the parent.
    #[error("no znode {0}; check the path, or create it first, parents before children")]
    NoNode(Path),
    /// There is one already.
    #[error("the znode {0} exists already; use set to change it")]
    NodeExists(Path),
    /// It has children.
    #[error("the znode {path} has {children} children; delete them first")]
    NotEmpty {
        /// Which znode.
        path: Path,
        /// How many.
        children: u32,
    },
    /// Another version than expected.
    #[error("the znode {path} has version {actual}, not {expected}; read it again and decide anew")]
    BadVersion {
        /// Which znode.
        path: Path,
        /// What the request expected.
        expected: i32,
        /// What it is.
        actual: i32,
    },
    /// Another creation of the znode than expected.
    #[error(
        "the znode {path} was created by {actual}, not by {expected}, so it is another one; read it and decide anew"
    )]
    BadCzxid {
        /// Which znode.
        path: Path,
        /// What the request expected.
        expected: Zxid,
        /// What it is.
        actual: Zxid,
    },
    /// There is a znode, and the request expected none.
    #[error("there is a znode {path}, created by {actual}; read it and decide anew")]
    Present {
        /// Which znode.
        path: Path,
        /// Its creation.
        actual: Zxid,
    },
    /// An ephemeral cannot have children.
    #[error("the znode {0} is ephemeral and cannot have children; create under a persistent one")]
    NoChildrenForEphemerals(Path),
    /// The string is no path.
    #[error("{0}")]
    BadPath(#[from] PathError),
    /// The access list of the znode does not give the caller this permission; for a create or a delete, the parent's.
    #[error(
        "the access list of {path} does not give you {permission}; connect with an identity that has it, or ask a client with \
         ADMIN to change the list"
    )]
    NoAuth {
        /// Whose list.
        path: Path,
        /// What it would take, or any of these.
        permission: Permissions,
    },
    /// What was given is no access list; the text says why.
    #[error("{0}")]
    BadAcl(String),
    /// The server has no such operation, option or value; the text says which and what to do.
    #[error("{0}")]
    Unsupported(String),
    /// Any other fault of the request; the text says which and what to do.
    #[error("{0}")]
    BadArguments(String),
    /// Larger than the configured limit.
    #[error(
        "{size} bytes are more than the limit of {limit}; split the request or store a reference instead. A value may have as much as \
         `limits.data` says, a request with all its values and paths 4 MiB"
    )]
    TooLarge {
        /// Of the request's values.
        size: u64,
        /// As configured.
        limit: u64,
    },
    /// The session is unknown, closed or expired.
    #[error("the session {0} is closed or expired; open a new one and create its ephemerals again")]
    SessionExpired(SessionId),
    /// The session was taken up on a newer stream, of this node or another. What came on the older one and was not carried out
    /// before that never will be, unless the newer one sends it again.
    #[error(
        "the session {0} was taken up on a newer stream, so this one is over; if no other client uses the session, take it up \
         again and send again what is unanswered"
    )]
    SessionMoved(SessionId),
    /// The write's number is not the next one of its session: an earlier one was lost on the way.
    #[error("write {got} of the session came before write {expected}; send again from {expected}", got = got.0, expected = expected.0)]
    OutOfOrder {
        /// The next number that is due.
        expected: WriteNumber,
        /// The number that came.
        got: WriteNumber,
    },
    /// The number was used for another request. Nothing was changed.
    #[error(
        "write {n} of the session was another request; give each write the next number, and use a number again only to send the \
         same unanswered write again", n = .0.0
    )]
    NumberReused(WriteNumber),
    /// The write was carried out, and the client has acknowledged its result, so the result is forgotten.
    #[error(
        "write {n} of the session was carried out and its result acknowledged, so the result is forgotten; do not send a write \
         again after `acked_write` has passed it", n = .0.0
    )]
    ResultForgotten(WriteNumber),
    /// A sequential create found no number. Behind the last one there are none; else the names in its way were skipped for
    /// good, and the same create continues after them.
    #[error("{}", no_sequence_number(path, *next))]
    NoSequenceNumber {
        /// The path without the number.
        path: Path,
        /// The number that is next under the parent; [`SEQUENCE_END`](crate::SEQUENCE_END) if there are no more.
        next: u64,
    },
    /// One part of a multi failed, so none was carried out.
    #[error("part {index} of the multi failed, nothing was changed: {cause}")]
    Multi {
        /// Which part, from 0.
        index: u32,
        /// Why.
        cause: Box<OpError>,
    },
    /// No quorum, no leader, shutting down.
    #[error("{0}")]
    Unavailable(String),
    /// A bounded queue is full.
    #[error("{0}")]
    Overloaded(String),
    /// The disk of the leader, or the disks of too many nodes, are nearly full: writes that need room are refused.
    #[error(
        "the disks of the ensemble are nearly full, so nothing is taken that needs room: delete znodes, or free or add space \
         on the nodes that `quorate status` names"
    )]
    DiskFull,
    /// A change of the feature level is refused; the text says why and what to do.
    #[error("{0}")]
    Level(String),
    /// The node belongs to another ensemble than the client expects. The session, if there is one, may be alive in the other.
    #[error(
        "this node belongs to the ensemble {actual}, not {expected}; correct the address, or open a new session without          `ensemble_id` if the ensemble was replaced on purpose"
    )]
    WrongEnsemble {
        /// As the client says.
        expected: EnsembleId,
        /// Of the node.
        actual: EnsembleId,
    },
    /// More of something than is allowed.
    #[error("there are {actual} {what}, and the limit is {limit}; {remedy}")]
    LimitExceeded {
        /// Of what, as a word of the text.
        what: String,
        /// How many may be.
        limit: u64,
        /// How many there would be.
        actual: u64,
        /// What to do.
        remedy: String,
    },
    /// A hard bound of a quota would be exceeded.
    #[error(
        "the quota of {path} allows {limit} {counted} below it, and this would make it {actual}; delete what is not needed there, or \
         ask a client with ADMIN to raise it (`quorate quota set`)"
    )]
    QuotaExceeded {
        /// Whose quota.
        path: Path,
        /// What it bounds.
        counted: Counted,
        /// The bound.
        limit: u64,
        /// What there would be.
        actual: u64,
    },
    /// The answer would be larger than a message may be.
    #[error(
        "the answer has {size} bytes, more than the {limit} that fit into one message; ask for less at once"
    )]
    AnswerTooLarge {
        /// Of the answer, as far as it was made.
        size: u64,
        /// What fits.
        limit: u64,
    },
    /// The time that the request gives passed before the quorum had the write, or before the read was answered. A write changed
    /// nothing, and never will.
    #[error("the {0} ms of the request passed before it was begun; give it more time, or ask another node")]
    TimedOut(u32),
    /// The session only reads, because the node has no quorum.
    #[error(
        "the session is read-only, because its node has lost the quorum; write on another node, or when there is a quorum again"
    )]
    ReadOnly,
    /// What is asked for happened before the history of the node begins.
    #[error(
        "the history of the node reaches back to zxid {oldest} and no further; read the present state, and watch from the zxid that          comes with it, or ask for the state together with the watch"
    )]
    Gone {
        /// The changes after this entry are still known.
        oldest: Zxid,
    },
    /// It may or may not have been carried out.
    #[error("{0}")]
    Unknown(String),
    /// A defect of ours.
    #[error("internal error, please report it: {0}")]
    Internal(String),
    /// What a server says and this version does not know, or knows only in part. Servers do not make it.
    #[error("{text}")]
    Other {
        /// Its kind, as far as this version knows it.
        code: ErrorCode,
        /// The server's message.
        text: String,
        /// What became of the request.
        fate: Fate,
        /// What helps.
        retry: Retry,
    },
}

impl From<BadAccess> for OpError {
    fn from(why: BadAccess) -> OpError {
        OpError::BadAcl(why.to_string())
    }
}

impl OpError {
    /// Its kind; that of the cause for a multi.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            OpError::NoNode(_) => ErrorCode::NoNode,
            OpError::NodeExists(_) => ErrorCode::NodeExists,
            OpError::NotEmpty { .. } => ErrorCode::NotEmpty,
            OpError::BadVersion { .. } => ErrorCode::BadVersion,
            OpError::BadCzxid { .. } => ErrorCode::BadCzxid,
            OpError::Present { .. } => ErrorCode::Present,
            OpError::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            OpError::AnswerTooLarge { .. } => ErrorCode::AnswerTooLarge,
            OpError::TimedOut(_) => ErrorCode::TimedOut,
            OpError::ReadOnly => ErrorCode::ReadOnly,
            OpError::NoChildrenForEphemerals(_) => ErrorCode::NoChildrenForEphemerals,
            OpError::BadPath(_) => ErrorCode::BadPath,
            OpError::NoAuth { .. } => ErrorCode::NoAuth,
            OpError::BadAcl(_) => ErrorCode::BadAcl,
            OpError::BadArguments(_) => ErrorCode::BadArguments,
            OpError::Unsupported(_) => ErrorCode::Unsupported,
            OpError::TooLarge { .. } => ErrorCode::TooLarge,
            OpError::SessionExpired(_) => ErrorCode::SessionExpired,
            OpError::SessionMoved(_) => ErrorCode::SessionMoved,
            OpError::OutOfOrder { .. } => ErrorCode::OutOfOrder,
            OpError::NumberReused(_) => ErrorCode::NumberReused,
            OpError::ResultForgotten(_) => ErrorCode::ResultForgotten,
            OpError::NoSequenceNumber { .. } => ErrorCode::NoSequenceNumber,
            OpError::Multi { cause, .. } => cause.code(),
            OpError::Unavailable(_) => ErrorCode::Unavailable,
            OpError::Overloaded(_) => ErrorCode::Overloaded,
            OpError::DiskFull => ErrorCode::DiskFull,
            OpError::Level(_) => ErrorCode::Level,
            OpError::WrongEnsemble { .. } => ErrorCode::WrongEnsemble,
            OpError::LimitExceeded { .. } => ErrorCode::LimitExceeded,
            OpError::Gone { .. } => ErrorCode::Gone,
            OpError::Unknown(_) => ErrorCode::Unknown,
            OpError::Internal(_) => ErrorCode::Internal,
            OpError::Other { code, .. } => *code,
        }
    }

    /// What became of the request that ended with this. Of an error that ends a stream, it says nothing about requests that are not
    /// answered.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            OpError::Multi { cause, .. } => cause.fate(),
            OpError::Other { fate, .. } => *fate,
            OpError::ResultForgotten(_) => Fate::Done,
            // A write that is sent again may have been carried out the first time.
            OpError::SessionExpired(_) | OpError::SessionMoved(_) => Fate::Unknown,
            OpError::Unknown(_) | OpError::Internal(_) => Fate::Unknown,
            _ => Fate::NotDone,
        }
    }

    /// What helps.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            OpError::NoNode(_)
            | OpError::NodeExists(_)
            | OpError::NotEmpty { .. }
            | OpError::BadVersion { .. }
            | OpError::BadCzxid { .. }
            | OpError::Present { .. }
            | OpError::NoChildrenForEphemerals(_)
            | OpError::Gone { .. }
            | OpError::Unknown(_) => Retry::AfterRead,
            OpError::BadPath(_)
            | OpError::NoAuth { .. }
            | OpError::BadAcl(_)
            | OpError::BadArguments(_)
            | OpError::Unsupported(_)
            | OpError::TooLarge { .. }
            | OpError::Level(_)
            | OpError::WrongEnsemble { .. }
            | OpError::SessionMoved(_)
            | OpError::NumberReused(_)
            | OpError::LimitExceeded { .. }
            | OpError::QuotaExceeded { .. }
            | OpError::AnswerTooLarge { .. }
            | OpError::ResultForgotten(_) => Retry::Never,
            OpError::SessionExpired(_) => Retry::NewSession,
            OpError::NoSequenceNumber { next, .. } if *next >= SEQUENCE_END => Retry::Never,
            OpError::NoSequenceNumber { .. }
            | OpError::OutOfOrder { .. }
            | OpError::Overloaded(_)
            | OpError::DiskFull => Retry::SameNode,
            OpError::Unavailable(_) | OpError::Internal(_) | OpError::TimedOut(_) | OpError::ReadOnly => {
                Retry::OtherNode
            }
            OpError::Multi { cause, .. } => cause.retry(),
            OpError::Other { retry, .. } => *retry,
        }
    }
}

fn no_sequence_number(path: &Path, next: u64) -> String {
    if next >= SEQUENCE_END {
        return format!(
            "the ten digits for sequential znodes like {path} are used up under their parent; create them under another one"
        );
    }
    format!(
        "too many names like {path} with the numbers before {next} exist already; send the create again, it continues there"
    )
}
