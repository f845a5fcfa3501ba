//! Consequences of a saved snapshot.

use api::Zxid;
use quorum_core::Input;
use quorum_log::{LogReader, SnapshotError, Snapshots};

/// Amount of log that stays although a snapshot covers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Minimum size of the kept files, so that an absent learner needs no snapshot ...
    pub bytes: u64,
    /// ... and minimum number of kept entries.
    pub entries: u64,
    /// Number of bytes that a synchronising learner may hold back from the purge.
    pub held: u64,
    /// Up to this number of bytes a learner gets the log, however small the snapshot is.
    pub slack: u64,
}

/// The point of the log before which a learner gets the snapshot at `zxid`. From there to the snapshot
/// the log is larger than twice the snapshot plus the slack.
#[must_use]
pub fn snap_before(log: &LogReader, snapshots: &Snapshots, zxid: Zxid, slack: u64) -> Zxid {
    // If it cannot be opened, sending it reveals that.
    snapshots.size(zxid).map_or(Zxid::ZERO, |size| log.back_from(zxid, 2 * size + slack, 0))
}

/// The core's input for a new snapshot. `only`: it is the only remaining snapshot, for lack of space.
/// Then space matters more than a second state and than entries for absent members.
#[must_use]
pub fn saved(log: &LogReader, snapshots: &Snapshots, zxid: Zxid, keep: Keep, only: bool) -> Input {
    let Keep { bytes, entries, held, slack } = keep;
    let kept = log.back_from(zxid, bytes, entries);
    Input::SnapshotSaved {
        zxid,
        purge_to: if only { Some(zxid) } else { snapshots.older().map(|older| older.min(kept)) },
        hold_from: log.back_from(zxid, if only { 0 } else { held }, 0),
        snap_before: snap_before(log, snapshots, zxid, slack),
    }
}

/// The meaning of a snapshot that was not saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsaved {
    /// The leader's snapshot has arrived or is arriving, and serves as well.
    Needless,
    /// The log stays as it is. The next snapshot may be smaller or find more space.
    NoSpace,
    /// The node has to stop.
    Stop,
}

/// The meaning of this error for a snapshot of the store.
#[must_use]
pub fn unsaved(error: &SnapshotError) -> Unsaved {
    match error {
        SnapshotError::Busy | SnapshotError::TooOld { .. } | SnapshotError::Superseded { .. } => {
            Unsaved::Needless
        }
        error if error.is_full() => Unsaved::NoSpace,
        _ => Unsaved::Stop,
    }
}
