//! A state becomes a snapshot, part by part, while it goes on.

use api::record::Record;
use bytes::{Bytes, BytesMut};
use proto::store::{append_record, encode_record};
use store_core::Server;

/// A state on its way out, as it was when this began. Parts that end before the last one are those of an export that was given up.
#[derive(Debug)]
pub struct Export {
    /// Those that come first.
    first: Vec<Record>,
}

impl Export {
    /// See [`store_core::State::begin_export`].
    pub fn begin(server: &mut Server, checkpoint: bool) -> Export {
        Export { first: server.begin_export(checkpoint) }
    }

    /// The next part, and whether it is the last; `None` if there is none, because another state has taken the place of this one. Takes
    /// no more than `most` znodes, and goes no further when their values have `bytes`; the first part has all else besides.
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
    /// Of pieces of so many bytes.
    #[must_use]
    pub fn new(size: usize) -> PieceEncoder {
        let size = size.max(1);
        PieceEncoder { stream: BytesMut::with_capacity(size), size }
    }

    /// Behind all before.
    pub fn push(&mut self, record: Record) {
        append_record(&mut self.stream, &encode_record(record));
    }

    /// A whole piece, if there is one.
    pub fn piece(&mut self) -> Option<Bytes> {
        if self.stream.len() < self.size {
            return None;
        }
        let piece = self.stream.split_to(self.size).freeze();
        self.stream.reserve(self.size);
        Some(piece)
    }

    /// What is left behind the whole pieces, if there is something.
    #[must_use]
    pub fn rest(self) -> Option<Bytes> {
        Some(self.stream.freeze()).filter(|rest| !rest.is_empty())
    }
}
