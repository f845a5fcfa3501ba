//! What has to be read from the disk, apart from reading it: a node does that off its tasks.

use api::{Entry, Zxid};
use bytes::Bytes;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};

use crate::LogView;

/// What to read next.
pub enum Read {
    /// Of the log, towards `upto`.
    Entries {
        /// Behind this one.
        after: Zxid,
        /// Up to this one.
        upto: Zxid,
    },
    /// The snapshot at this zxid is to be opened.
    Open(Zxid),
    /// The next piece of a snapshot.
    Piece(SnapshotReader),
}

/// What came of it.
pub enum Got {
    /// Of the log.
    Entries {
        /// As was asked.
        after: Zxid,
        /// As was asked.
        upto: Zxid,
        /// In order and without a gap.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// A snapshot is open.
    Opened(Zxid, Result<SnapshotReader, SnapshotError>),
    /// `None` behind the last piece.
    Piece(SnapshotReader, Result<Option<Bytes>, SnapshotError>),
}

impl Read {
    /// What needs no disk; or the same again, which does. Of entries as many as fit into `max_bytes`, at least one.
    pub fn from_memory(self, view: &LogView, max_bytes: usize) -> Result<Got, Read> {
        match self {
            Read::Entries { after, upto } => match view.recent_after(after, upto, max_bytes) {
                Some(entries) => Ok(Got::Entries { after, upto, entries: Ok(entries) }),
                None => Err(self),
            },
            read => Err(read),
        }
    }

    /// Blocks on the disk.
    #[must_use]
    pub fn carry_out(self, view: &LogView, snapshots: &Snapshots, max_bytes: usize) -> Got {
        match self.from_memory(view, max_bytes) {
            Ok(got) => got,
            Err(Read::Entries { after, upto }) => {
                Got::Entries { after, upto, entries: view.reader.read_after(after, upto, max_bytes) }
            }
            Err(Read::Open(zxid)) => Got::Opened(zxid, snapshots.read(zxid)),
            Err(Read::Piece(mut reader)) => {
                let piece = reader.next_chunk();
                Got::Piece(reader, piece)
            }
        }
    }
}
