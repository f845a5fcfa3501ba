use std::sync::Arc;

use crate::Zxid;

use super::Roster;

/// The roster at each place of a log, as far as the log tells it.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct RosterHistory {
    /// At the base of the log; `None`: the list of the first start.
    base: Option<Arc<Roster>>,
    /// Those of the entries behind that, ascending.
    changes: Vec<Arc<Roster>>,
}

impl RosterHistory {
    /// Of a log that has nothing behind its base, where the roster is this.
    #[must_use]
    pub fn from_base(base: Option<Arc<Roster>>) -> RosterHistory {
        RosterHistory { base, changes: Vec::new() }
    }

    /// At the end of the log; `None`: the list of the first start.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<Roster>> {
        self.changes.last().or(self.base.as_ref())
    }

    /// Behind the entry `zxid`, which is in the log or is its base; `None`: the list of the first start.
    #[must_use]
    pub fn at(&self, zxid: Zxid) -> Option<&Arc<Roster>> {
        let passed = self.changes.partition_point(|roster| roster.since() <= zxid);
        passed.checked_sub(1).and_then(|i| self.changes.get(i)).or(self.base.as_ref())
    }

    /// All that are known, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Roster>> {
        self.base.iter().chain(&self.changes)
    }

    /// Adds the roster of an entry that was appended to the log.
    pub fn append(&mut self, roster: Arc<Roster>) {
        self.changes.push(roster);
    }

    /// The log was cut behind `zxid`: the roster before counts again.
    pub fn truncate(&mut self, zxid: Zxid) {
        self.changes.retain(|roster| roster.since() <= zxid);
    }

    /// The base of the log moved up to `zxid`.
    pub fn purge(&mut self, zxid: Zxid) {
        self.base = self.at(zxid).cloned();
        self.changes.retain(|roster| roster.since() > zxid);
    }
}
