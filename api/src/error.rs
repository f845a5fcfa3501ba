use crate::{Path, PathError, SEQUENCE_END, SessionId, WriteNumber};

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
    /// An ephemeral cannot have children.
    NoChildrenForEphemerals,
    /// The request itself is wrong; sending it again will not help.
    BadArguments,
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
    /// No number is free for a sequential znode.
    NoSequenceNumber,
    /// No quorum, no leader, shutting down: try again, here or at another node.
    Unavailable,
    /// A bounded queue is full: slow down and try again.
    Overloaded,
    /// The disks are nearly full: what takes room is refused.
    DiskFull,
    /// It may or may not have been carried out.
    Unknown,
    /// A defect of ours.
    Internal,
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
            ErrorCode::NoChildrenForEphemerals => "NO_CHILDREN_FOR_EPHEMERALS",
            ErrorCode::BadArguments => "BAD_ARGUMENTS",
            ErrorCode::TooLarge => "TOO_LARGE",
            ErrorCode::SessionExpired => "SESSION_EXPIRED",
            ErrorCode::SessionMoved => "SESSION_MOVED",
            ErrorCode::OutOfOrder => "OUT_OF_ORDER",
            ErrorCode::NumberReused => "NUMBER_REUSED",
            ErrorCode::NoSequenceNumber => "NO_SEQUENCE_NUMBER",
            ErrorCode::Unavailable => "UNAVAILABLE",
            ErrorCode::Overloaded => "OVERLOADED",
            ErrorCode::DiskFull => "DISK_FULL",
            ErrorCode::Unknown => "UNKNOWN_OUTCOME",
            ErrorCode::Internal => "INTERNAL",
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
    /// An ephemeral cannot have children.
    #[error("the znode {0} is ephemeral and cannot have children; create under a persistent one")]
    NoChildrenForEphemerals(Path),
    /// The string is no path.
    #[error("{0}")]
    BadPath(#[from] PathError),
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
    /// The number was used for another request, or its result was acknowledged and is forgotten. Nothing was changed.
    #[error(
        "write {n} of the session was another request, or its result was acknowledged already; give each write the next \
         number, and use a number again only to send the same unanswered write again", n = .0.0
    )]
    NumberReused(WriteNumber),
    /// A sequential create found no number. Behind the last one there are none; else the names in its way were skipped for
    /// good, and the same create goes on behind them.
    #[error("{}", no_sequence_number(path, *next))]
    NoSequenceNumber {
        /// What the number was to stand behind.
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
    /// The disks of so many nodes, or that of the leader, are nearly full that nothing is taken which needs room.
    #[error(
        "the disks of the ensemble are nearly full, so nothing is taken that needs room: delete znodes, or free or add space \
         on the nodes that `quorate status` names"
    )]
    DiskFull,
    /// It may or may not have been carried out.
    #[error("{0}")]
    Unknown(String),
    /// A defect of ours.
    #[error("internal error, please report it: {0}")]
    Internal(String),
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
            OpError::NoChildrenForEphemerals(_) => ErrorCode::NoChildrenForEphemerals,
            OpError::BadPath(_) | OpError::BadArguments(_) => ErrorCode::BadArguments,
            OpError::TooLarge { .. } => ErrorCode::TooLarge,
            OpError::SessionExpired(_) => ErrorCode::SessionExpired,
            OpError::SessionMoved(_) => ErrorCode::SessionMoved,
            OpError::OutOfOrder { .. } => ErrorCode::OutOfOrder,
            OpError::NumberReused(_) => ErrorCode::NumberReused,
            OpError::NoSequenceNumber { .. } => ErrorCode::NoSequenceNumber,
            OpError::Multi { cause, .. } => cause.code(),
            OpError::Unavailable(_) => ErrorCode::Unavailable,
            OpError::Overloaded(_) => ErrorCode::Overloaded,
            OpError::DiskFull => ErrorCode::DiskFull,
            OpError::Unknown(_) => ErrorCode::Unknown,
            OpError::Internal(_) => ErrorCode::Internal,
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
        "too many names like {path} with the numbers before {next} exist already; send the create again, it goes on there"
    )
}
