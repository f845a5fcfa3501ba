//! What a snapshot of the store changes.

use api::Zxid;
use quorum_core::Input;
use quorum_log::{LogReader, SnapshotError, Snapshots};

/// How much of the log stays although a snapshot covers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// At least so many bytes of files, so that a learner that was away needs no snapshot ...
    pub bytes: u64,
    /// ... and at least so many entries.
    pub entries: u64,
    /// A learner that is being synchronised holds back so many bytes from the purge.
    pub held: u64,
    /// A learner gets the log, however small a snapshot is, up to so many bytes of it.
    pub slack: u64,
}

/// The point of the log before which a learner had better get the snapshot at `zxid`: from there to the snapshot it would be more
/// than twice as much, and more than the slack.
#[must_use]
pub fn snap_before(log: &LogReader, snapshots: &Snapshots, zxid: Zxid, slack: u64) -> Zxid {
    // One that cannot be opened is found out when it is sent.
    snapshots.size(zxid).map_or(Zxid::ZERO, |size| log.back_from(zxid, 2 * size + slack, 0))
}

/// There is a new snapshot: what the core is to be told. `only`: for lack of room it is the only one that is left, and room matters
/// more now than a second state, and than what members that were away may need.
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

/// What it means that a snapshot of the store was not saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsaved {
    /// The leader's snapshot is on its way, or has come: as good.
    Needless,
    /// The log stays as it is, and the next snapshot may be smaller, or find more room.
    NoSpace,
    /// The node has to stop.
    Stop,
}

/// What this error means for a snapshot of the store.
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
