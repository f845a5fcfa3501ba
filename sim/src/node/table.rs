//! The checkpoint of a store, as sled keeps it in production: records, written behind, exact at one entry.

use std::collections::BTreeMap;

use api::record::{AccessList, Header, KeptResult, Record, Session, Znode};
use api::{AclId, Path, SessionId, WriteNumber};
use store_core::{Changes, LoadError, Loader, State};

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) header: Header,
    znodes: BTreeMap<Path, Znode>,
    acls: BTreeMap<AclId, AccessList>,
    sessions: BTreeMap<SessionId, Session>,
    results: BTreeMap<(SessionId, WriteNumber), KeptResult>,
}

impl Table {
    /// With the empty state in it.
    pub(crate) fn new() -> Table {
        let mut table = Table {
            header: Header::default(),
            znodes: BTreeMap::new(),
            acls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        table.write(State::default().take_dirty());
        table
    }

    pub(crate) fn write(&mut self, changes: Changes) {
        if changes.whole {
            self.znodes.clear();
            self.acls.clear();
            self.sessions.clear();
            self.results.clear();
        }
        self.header = changes.header;
        for (key, kept) in changes.results {
            match kept {
                Some(kept) => drop(self.results.insert(key, kept)),
                None => drop(self.results.remove(&key)),
            }
        }
        for (path, znode) in changes.znodes {
            match znode {
                Some(znode) => drop(self.znodes.insert(path, znode)),
                None => drop(self.znodes.remove(&path)),
            }
        }
        for (id, list) in changes.acls {
            match list {
                Some(list) => drop(self.acls.insert(id, list)),
                None => drop(self.acls.remove(&id)),
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
            .chain(self.acls.values().cloned().map(Record::Acl))
            .chain(self.sessions.values().cloned().map(Record::Session))
            .chain(self.results.values().cloned().map(Record::Result))
    }

    /// The state, with this seed.
    pub(crate) fn load(&self, seed: u64) -> Result<State, LoadError> {
        let mut loader = Loader::seeded(seed);
        self.records().try_for_each(|record| loader.take(record))?;
        loader.finish()
    }
}
