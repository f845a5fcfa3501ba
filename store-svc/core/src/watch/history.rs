//! The last changes, for watches that begin in the past and for streams that lag.

use std::{collections::VecDeque, sync::Arc};

use api::{Zxid, watch::Change};

/// The last changes, within bounded memory.
#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    /// The history contains all changes after this entry.
    floor: Zxid,
    bytes: usize,
    /// Maximum number of entries and bytes.
    max: (usize, usize),
}

#[derive(Debug)]
struct Entry {
    zxid: Zxid,
    time_ms: i64,
    change: Arc<Change>,
}

impl History {
    /// Starts empty, for changes after `floor`.
    pub(super) fn new(floor: Zxid, entries_max: usize, bytes_max: usize) -> History {
        History { entries: VecDeque::new(), floor, bytes: 0, max: (entries_max, bytes_max) }
    }

    /// The history contains all changes after this entry.
    pub(super) fn floor(&self) -> Zxid {
        self.floor
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Time of the first change, by the leader's clock.
    pub(super) fn since_ms(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.time_ms)
    }

    /// Starts again after this entry.
    pub(super) fn reset(&mut self, floor: Zxid) {
        *self = History::new(floor, self.max.0, self.max.1);
    }

    /// Adds the changes of an entry. Removes whole old entries to make room, but never this one: streams
    /// may be about to take it from here.
    pub(super) fn push(&mut self, zxid: Zxid, time_ms: i64, changes: &[Arc<Change>]) {
        for change in changes {
            self.bytes += change.weight();
            self.entries.push_back(Entry { zxid, time_ms, change: change.clone() });
        }
        while self.entries.len() > self.max.0 || self.bytes > self.max.1 {
            let oldest = self.entries.front().map(|entry| entry.zxid);
            let Some(oldest) = oldest.filter(|&oldest| oldest < zxid) else { return };
            self.floor = oldest;
            while let Some(entry) = self.entries.pop_front_if(|entry| entry.zxid == oldest) {
                self.bytes -= entry.change.weight();
            }
        }
    }

    /// The first entry after this one, with all its changes.
    pub(super) fn next_after(&self, zxid: Zxid) -> Option<(Zxid, impl Iterator<Item = &Arc<Change>>)> {
        let begin = self.entries.partition_point(|entry| entry.zxid <= zxid);
        let at = self.entries.get(begin)?.zxid;
        let changes = self.entries.range(begin..).take_while(move |entry| entry.zxid == at);
        Some((at, changes.map(|entry| &entry.change)))
    }
}
