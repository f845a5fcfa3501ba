//! The checkpoint of a store, as sled keeps it in production: records, written behind, exact at one entry.

use std::collections::BTreeMap;

use api::record::{Header, Record, Session, Znode};
use api::{Path, SessionId};
use bytes::{Bytes, BytesMut};
use proto::store::{append_record, encode_record};
use store_core::{Changes, LoadError, State};

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) header: Header,
    znodes: BTreeMap<Path, Znode>,
    sessions: BTreeMap<SessionId, Session>,
}

impl Table {
    /// With the empty state in it.
    pub(crate) fn new() -> Table {
        let mut table =
            Table { header: Header::default(), znodes: BTreeMap::new(), sessions: BTreeMap::new() };
        table.write(State::default().take_dirty());
        table
    }

    /// With a state that came as a snapshot.
    pub(crate) fn rewrite(records: impl IntoIterator<Item = Record>) -> Table {
        let mut table =
            Table { header: Header::default(), znodes: BTreeMap::new(), sessions: BTreeMap::new() };
        for record in records {
            match record {
                Record::Header(header) => table.header = header,
                Record::Znode(znode) => drop(table.znodes.insert(znode.path.clone(), znode)),
                Record::Session(session) => drop(table.sessions.insert(session.id, session)),
            }
        }
        table
    }

    pub(crate) fn write(&mut self, changes: Changes) {
        self.header = changes.header;
        for (path, znode) in changes.znodes {
            match znode {
                Some(znode) => drop(self.znodes.insert(path, znode)),
                None => drop(self.znodes.remove(&path)),
            }
        }
        for (id, session) in changes.sessions {
            match session {
                Some(session) => drop(self.sessions.insert(id, session)),
                None => drop(self.sessions.remove(&id)),
            }
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::once(Record::Header(self.header))
            .chain(self.znodes.values().cloned().map(Record::Znode))
            .chain(self.sessions.values().cloned().map(Record::Session))
    }

    pub(crate) fn load(&self) -> Result<State, LoadError> {
        State::load(self.records())
    }

    /// As the pieces of a snapshot.
    pub(crate) fn pieces(&self, size: usize) -> Vec<Bytes> {
        let mut stream = BytesMut::new();
        for record in self.records() {
            append_record(&mut stream, &encode_record(record));
        }
        let mut pieces = Vec::new();
        while !stream.is_empty() {
            pieces.push(stream.split_to(size.max(1).min(stream.len())).freeze());
        }
        pieces
    }
}
