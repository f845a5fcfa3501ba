use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api::{Entry, History, Level, LevelHistory, Roster, RosterHistory, Zxid};

use crate::error::ReadError;
use crate::segment::{Records, Segment};

/// Reads a log while its writer continues. Clones read the same log.
#[derive(Clone)]
pub struct LogReader(pub(crate) Arc<Shared>);

impl LogReader {
    /// The entries after `after` up to `upto` (inclusive), in order and without a gap. They fit into
    /// `max_bytes` by [`Entry::weight`], but there is at least one if one exists. Empty if the log ends
    /// with `after`. The result may have fewer entries than fit.
    ///
    /// Entries are readable as soon as they are appended, before they are durable. The newest come from
    /// memory without a copy. Older ones come from disk, which blocks the thread.
    ///
    /// # Errors
    /// The log does not contain `after`, has purged the entries after it, or is unreadable.
    pub fn read_after(&self, after: Zxid, upto: Zxid, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        loop {
            let (records, upto, generation) = {
                let state = self.0.read();
                let history = &state.history;
                if !history.contains(after) {
                    let (base, last) = (history.base(), history.last());
                    return Err(if after < base {
                        ReadError::Purged { after, base }
                    } else {
                        ReadError::NotThere { after, last }
                    });
                }
                let upto = upto.min(history.last());
                if upto <= after {
                    return Ok(Vec::new());
                }
                if let Some(entries) = state.window.read_after(after, upto, max_bytes) {
                    return Ok(entries);
                }
                let segment = state.sealed.iter().find(|s| s.last > after).unwrap_or(&state.active);
                (segment.records(after), upto, state.generation)
            };
            let entries = read_records(records, after, upto, max_bytes);
            // During the read the end of the log may have been cut off and written again. Then the
            // result is worthless. Appends and purges do no harm, because they leave the read data in
            // place.
            if self.0.read().generation == generation {
                return entries;
            }
        }
    }

    /// A point in the log with at least `bytes` bytes of files, headers included, and at least
    /// `entries` entries between it and `upto`, and hardly more. The beginning of the log if the log is
    /// shorter.
    #[must_use]
    pub fn back_from(&self, upto: Zxid, bytes: u64, entries: u64) -> Zxid {
        let state = self.0.read();
        let mut begin = 0;
        let mut points = Vec::new();
        for segment in state.sealed.iter().chain([&state.active]) {
            // The entry at an offset is the first one after that point.
            let starts = segment.index.iter().map(|&(first, offset)| (first, begin + offset));
            points.extend(starts);
            begin += segment.end;
        }
        let end = points.iter().rev().find(|&&(first, _)| first <= upto).map_or(0, |&(_, at)| at);
        let far = |&&(first, at): &&(Zxid, u64)| {
            end.saturating_sub(at) >= bytes && state.history.count_between(first, upto) >= entries
        };
        points.iter().rev().find(far).map_or(state.history.base(), |&(first, _)| first)
    }

    /// Number of files of the log, and number of bytes written in them.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let state = self.0.read();
        let bytes = state.sealed.iter().chain([&state.active]).map(|segment| segment.end).sum();
        (state.sealed.len() + 1, bytes)
    }

    /// The feature level after the entry `zxid`, which is in the log or is its base; `None` in an empty log.
    #[must_use]
    pub fn level_at(&self, zxid: Zxid) -> Option<Level> {
        self.0.read().levels.at(zxid)
    }

    /// The members after the entry `zxid`, which is in the log or is its base; `None`: those of the first start.
    #[must_use]
    pub fn roster_at(&self, zxid: Zxid) -> Option<Arc<Roster>> {
        self.0.read().rosters.at(zxid).cloned()
    }

    /// The present content of the log.
    #[must_use]
    pub fn history(&self) -> History {
        self.0.read().history.clone()
    }
}

/// The shared state of the writer and the readers of a log. Only the writer changes it.
pub(crate) struct Shared(RwLock<State>);

impl Shared {
    pub(crate) fn new(state: State) -> Shared {
        Shared(RwLock::new(state))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct State {
    pub(crate) history: History,
    /// The levels in the entries.
    pub(crate) levels: LevelHistory,
    /// The members in the entries.
    pub(crate) rosters: RosterHistory,
    /// The segments before the active one: ascending, without a hole, complete and durable.
    pub(crate) sealed: Vec<Segment>,
    /// The segment that the writer writes to.
    pub(crate) active: Segment,
    pub(crate) window: Window,
    /// Raised before a change on disk that could affect a running read.
    pub(crate) generation: u64,
}

/// The newest entries, in memory.
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// The zxid before the first of them.
    prev: Zxid,
    /// Their weight, and its limit.
    bytes: usize,
    max_bytes: usize,
}

impl Window {
    /// An empty window of a log that ends with `last`.
    pub(crate) fn new(last: Zxid, max_bytes: usize) -> Window {
        Window { entries: VecDeque::new(), prev: last, bytes: 0, max_bytes }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry.weight();
        self.entries.push_back(entry);
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.weight();
            self.prev = oldest.zxid;
        }
    }

    /// Drops entries after `last`.
    pub(crate) fn truncate(&mut self, last: Zxid) {
        let kept = self.entries.partition_point(|e| e.zxid <= last);
        self.bytes -= self.entries.drain(kept..).map(|e| e.weight()).sum::<usize>();
        if self.entries.is_empty() {
            self.prev = last;
        }
    }

    /// Returns `None` if the window begins too late.
    fn read_after(&self, after: Zxid, upto: Zxid, max_bytes: usize) -> Option<Vec<Entry>> {
        if after < self.prev {
            return None;
        }
        let mut taken = Taken::new(max_bytes);
        let from = self.entries.partition_point(|e| e.zxid <= after);
        for entry in self.entries.range(from..).take_while(|e| e.zxid <= upto) {
            if !taken.take(entry.clone()) {
                break;
            }
        }
        Some(taken.entries)
    }
}

fn read_records(
    mut records: Records,
    after: Zxid,
    upto: Zxid,
    max_bytes: usize,
) -> Result<Vec<Entry>, ReadError> {
    let mut taken = Taken::new(max_bytes);
    while let Some((_, entry)) = records.next()? {
        if entry.zxid > upto || (entry.zxid > after && !taken.take(entry)) {
            break;
        }
    }
    Ok(taken.entries)
}

/// Entries up to a limit, but at least one.
struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    max_bytes: usize,
}

impl Taken {
    fn new(max_bytes: usize) -> Taken {
        Taken { entries: Vec::new(), bytes: 0, max_bytes }
    }

    /// Takes an entry. Returns false, without taking it, if there is no room.
    fn take(&mut self, entry: Entry) -> bool {
        let bytes = self.bytes + entry.weight();
        if bytes > self.max_bytes && !self.entries.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.entries.push(entry);
        true
    }
}
