//! What happened last, for watches that begin in the past and for streams that are behind.

use std::{collections::VecDeque, sync::Arc};

use api::{Zxid, watch::Change};

/// The last changes, in a bounded part of the memory.
#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    /// Everything behind this is here.
    floor: Zxid,
    bytes: usize,
    /// Most entries and bytes.
    max: (usize, usize),
}

#[derive(Debug)]
struct Entry {
    zxid: Zxid,
    time_ms: i64,
    change: Arc<Change>,
}

impl History {
    /// Of what comes behind `floor`.
    pub(super) fn new(floor: Zxid, entries_max: usize, bytes_max: usize) -> History {
        History { entries: VecDeque::new(), floor, bytes: 0, max: (entries_max, bytes_max) }
    }

    /// Everything behind this is here.
    pub(super) fn floor(&self) -> Zxid {
        self.floor
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first of them happened, by the leader's clock.
    pub(super) fn since_ms(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.time_ms)
    }

    /// Starts anew behind this entry.
    pub(super) fn reset(&mut self, floor: Zxid) {
        *self = History::new(floor, self.max.0, self.max.1);
    }

    /// Takes in what an entry did. Whole entries leave in exchange.
    pub(super) fn push(&mut self, zxid: Zxid, time_ms: i64, changes: &[Arc<Change>]) {
        for change in changes {
            self.bytes += change.weight();
            self.entries.push_back(Entry { zxid, time_ms, change: change.clone() });
        }
        while self.entries.len() > self.max.0 || self.bytes > self.max.1 {
            let Some(oldest) = self.entries.front().map(|entry| entry.zxid) else { return };
            self.floor = oldest;
            while let Some(entry) = self.entries.pop_front_if(|entry| entry.zxid == oldest) {
                self.bytes -= entry.change.weight();
            }
        }
    }

    /// The first entry behind this one, and all that it did.
    pub(super) fn next_after(&self, zxid: Zxid) -> Option<(Zxid, impl Iterator<Item = &Arc<Change>>)> {
        let begin = self.entries.partition_point(|entry| entry.zxid <= zxid);
        let at = self.entries.get(begin)?.zxid;
        let changes = self.entries.range(begin..).take_while(move |entry| entry.zxid == at);
        Some((at, changes.map(|entry| &entry.change)))
    }
}
