//! Turns a state into a snapshot, part by part, while the state changes.

use api::record::Record;
use bytes::{Bytes, BytesMut};
use proto::store::{append_record, encode_record};
use store_core::Server;

/// An export of a state as of its start. If the parts end before the last one, the export was cancelled.
#[derive(Debug)]
pub struct Export {
    /// The records of the first part.
    first: Vec<Record>,
}

impl Export {
    /// See [`store_core::State::begin_export`].
    pub fn begin(server: &mut Server, checkpoint: bool) -> Export {
        Export { first: server.begin_export(checkpoint) }
    }

    /// The next part, and whether it is the last; `None` if another state has replaced this one. The
    /// part has at most `most` znodes, and ends when their values reach `bytes`; the first part also
    /// has all other records.
    pub fn part(&mut self, server: &mut Server, most: usize, bytes: usize) -> Option<(Vec<Record>, bool)> {
        let (znodes, more) = server.export(most, bytes)?;
        let mut records = std::mem::take(&mut self.first);
        records.extend(znodes.into_iter().map(Record::Znode));
        Some((records, !more))
    }
}

/// Records as the pieces of a snapshot.
#[derive(Debug)]
pub struct PieceEncoder {
    stream: BytesMut,
    size: usize,
}

impl PieceEncoder {
    /// Creates an encoder for pieces of this size.
    #[must_use]
    pub fn new(size: usize) -> PieceEncoder {
        let size = size.max(1);
        PieceEncoder { stream: BytesMut::with_capacity(size), size }
    }

    /// Appends a record.
    pub fn push(&mut self, record: Record) {
        append_record(&mut self.stream, &encode_record(record));
    }

    /// A full piece, if there is one.
    pub fn piece(&mut self) -> Option<Bytes> {
        if self.stream.len() < self.size {
            return None;
        }
        let piece = self.stream.split_to(self.size).freeze();
        self.stream.reserve(self.size);
        Some(piece)
    }

    /// The rest after the full pieces, if any.
    #[must_use]
    pub fn rest(self) -> Option<Bytes> {
        Some(self.stream.freeze()).filter(|rest| !rest.is_empty())
    }
}
