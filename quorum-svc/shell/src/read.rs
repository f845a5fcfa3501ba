//! Reads from log and snapshots, separate from their execution: a node executes them outside its tasks.

use api::{Entry, Zxid};
use bytes::Bytes;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};

use crate::LogView;

/// A read.
pub enum Read {
    /// Entries of the log, towards `upto`.
    Entries {
        /// The zxid before the first entry.
        after: Zxid,
        /// The last entry.
        upto: Zxid,
    },
    /// Open the snapshot at this zxid.
    Open(Zxid),
    /// Read the next piece of a snapshot.
    Piece(SnapshotReader),
}

/// The result of a read.
pub enum Got {
    /// Entries of the log.
    Entries {
        /// As in the read.
        after: Zxid,
        /// As in the read.
        upto: Zxid,
        /// The entries in order, without a gap.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// The opened snapshot.
    Opened(Zxid, Result<SnapshotReader, SnapshotError>),
    /// The next piece; `None` behind the last one.
    Piece(SnapshotReader, Result<Option<Bytes>, SnapshotError>),
}

impl Read {
    /// Executes a read that needs no disk. Returns the read itself if it needs the disk. Reads as many
    /// entries as fit into `max_bytes`, and at least one.
    pub fn from_memory(self, view: &LogView, max_bytes: usize) -> Result<Got, Read> {
        match self {
            Read::Entries { after, upto } => match view.recent_after(after, upto, max_bytes) {
                Some(entries) => Ok(Got::Entries { after, upto, entries: Ok(entries) }),
                None => Err(self),
            },
            read => Err(read),
        }
    }

    /// Executes the read. Blocks on the disk.
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
