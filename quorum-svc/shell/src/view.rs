//! Access to the log while it is written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Entry, Zxid};
use quorum_log::LogReader;

/// The log for its readers. The newest entries come from memory, from the moment they go to the log
/// thread; older ones come from disk. So a proposal does not wait for the leader's own disk. Cheap to
/// clone.
#[derive(Clone)]
pub struct LogView {
    recent: Arc<Mutex<Recent>>,
    /// Reads entries from disk.
    pub reader: LogReader,
}

#[derive(Debug)]
struct Recent {
    entries: VecDeque<Entry>,
    /// The zxid before the first of them.
    prev: Zxid,
    bytes: usize,
    max_bytes: usize,
    /// Last durable entry. Later ones may not be readable from disk yet and have to stay.
    durable: Zxid,
}

impl LogView {
    /// Creates a view of a log that is durable up to its end `last`. It keeps at least the newest
    /// `max_bytes` in memory.
    #[must_use]
    pub fn new(reader: LogReader, last: Zxid, max_bytes: usize) -> LogView {
        let recent = Recent { entries: VecDeque::new(), prev: last, bytes: 0, max_bytes, durable: last };
        LogView { recent: Arc::new(Mutex::new(recent)), reader }
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Zxid {
        let recent = self.recent();
        recent.entries.back().map_or(recent.prev, |e| e.zxid)
    }

    pub(crate) fn push(&self, entries: &[Entry]) {
        let mut recent = self.recent();
        recent.bytes += entries.iter().map(Entry::weight).sum::<usize>();
        recent.entries.extend(entries.iter().cloned());
        recent.shrink();
    }

    pub(crate) fn set_durable(&self, upto: Zxid) {
        let mut recent = self.recent();
        recent.durable = recent.durable.max(upto);
        recent.shrink();
    }

    /// Cuts the log behind `last`.
    pub(crate) fn cut(&self, last: Zxid) {
        let mut recent = self.recent();
        recent.durable = recent.durable.min(last);
        while let Some(newest) = recent.entries.pop_back_if(|e| e.zxid > last) {
            recent.bytes -= newest.weight();
        }
        if recent.entries.is_empty() {
            recent.prev = last;
        }
    }

    /// Starts the log again behind a snapshot.
    pub(crate) fn reset(&self, base: Zxid) {
        let mut recent = self.recent();
        recent.entries.clear();
        (recent.bytes, recent.prev, recent.durable) = (0, base, base);
    }

    /// The entries with `after < zxid <= upto`, in order and without a gap: as many as fit into
    /// `max_bytes`, and at least one if one exists. `None` if they are not in memory.
    pub(crate) fn recent_after(&self, after: Zxid, upto: Zxid, max_bytes: usize) -> Option<Vec<Entry>> {
        let recent = self.recent();
        let from = match recent.entries.binary_search_by_key(&after, |e| e.zxid) {
            Ok(i) => i + 1,
            Err(_) if after == recent.prev => 0,
            Err(_) => return None,
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in recent.entries.range(from..).take_while(|e| e.zxid <= upto) {
            bytes += entry.weight();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// Whether the log contains this entry or begins with a snapshot at it.
    #[must_use]
    pub fn contains(&self, zxid: Zxid) -> bool {
        let recent = self.recent();
        if zxid > recent.prev {
            return recent.entries.binary_search_by_key(&zxid, |e| e.zxid).is_ok();
        }
        drop(recent);
        self.reader.history().contains(zxid)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn shrink(&mut self) {
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.entries.pop_front_if(|e| e.zxid <= self.durable)
        {
            self.bytes -= oldest.weight();
            self.prev = oldest.zxid;
        }
    }
}
