use api::Zxid;
use quorum_log::{EpochError, IncarnationError, LogError, SnapshotError};

/// The node has to stop: what was asked of the disk last may or may not be on it (never try an fsync again), or something that cannot
/// be true is.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Of the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Of the epochs.
    #[error(transparent)]
    Epochs(#[from] EpochError),
    /// Of the snapshots.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// Of the incarnations.
    #[error(transparent)]
    Incarnations(#[from] IncarnationError),
    /// See [`Task::Forsake`](crate::Task::Forsake).
    #[error(
        "the store needs a state from before the beginning of the log, and no sound snapshot is left; {0}"
    )]
    Forsaken(&'static str),
    /// The directory is an older copy, and there is nothing to heal from.
    #[error("{0}")]
    OlderCopy(String),
    /// The log lacks what is committed.
    #[error("the log ends before {upto}, which is committed")]
    Short {
        /// What is committed.
        upto: Zxid,
    },
    /// The core says that an invariant is broken.
    #[error("{0}")]
    Invariant(String),
}
