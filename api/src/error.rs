use crate::{Path, PathError, SessionId, WriteNumber};

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
    /// The write's number is not the next one of its session.
    OutOfOrder,
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
            ErrorCode::OutOfOrder => "OUT_OF_ORDER",
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
        "{size} bytes are more than the limit of {limit}; store a reference instead, or raise `limits.data`"
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
    /// The write's number is not the next one of its session: an earlier one was lost on the way.
    #[error("write {got} of the session came before write {expected}; send again from {expected}", got = got.0, expected = expected.0)]
    OutOfOrder {
        /// The next number that is due.
        expected: WriteNumber,
        /// The number that came.
        got: WriteNumber,
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
            OpError::OutOfOrder { .. } => ErrorCode::OutOfOrder,
            OpError::Multi { cause, .. } => cause.code(),
            OpError::Unavailable(_) => ErrorCode::Unavailable,
            OpError::Overloaded(_) => ErrorCode::Overloaded,
            OpError::DiskFull => ErrorCode::DiskFull,
            OpError::Unknown(_) => ErrorCode::Unknown,
            OpError::Internal(_) => ErrorCode::Internal,
        }
    }
}
