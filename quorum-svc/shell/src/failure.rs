use api::Zxid;
use quorum_log::{EpochError, IncarnationError, LogError, SnapshotError};

/// A failure that stops the node. Either the last write may or may not be on the disk (an fsync is
/// never retried), or an invariant is broken.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A failure of the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A failure of the epochs.
    #[error(transparent)]
    Epochs(#[from] EpochError),
    /// A failure of the snapshots.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// A failure of the incarnations.
    #[error(transparent)]
    Incarnations(#[from] IncarnationError),
    /// See [`Task::Forsake`](crate::Task::Forsake).
    #[error(
        "the store needs a state from before the beginning of the log, and no sound snapshot is left; {0}"
    )]
    Forsaken(&'static str),
    /// The directory is an older copy, and no other voter can heal it.
    #[error("{0}")]
    OlderCopy(String),
    /// The log lacks committed entries.
    #[error("the log ends before {upto}, which is committed")]
    Short {
        /// The last committed entry.
        upto: Zxid,
    },
    /// The core reports a broken invariant.
    #[error("{0}")]
    Invariant(String),
}
