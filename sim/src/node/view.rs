//! The log as its readers see it while it is written, as `quorum-svc` keeps it: the newest entries from memory.

use std::collections::VecDeque;

use api::{Entry, Zxid};
use quorum_log::{LogReader, ReadError};

pub(crate) struct View {
    entries: VecDeque<Entry>,
    /// The zxid before the first of them.
    prev: Zxid,
    bytes: usize,
    bytes_max: usize,
    /// What is not durable may not be readable from disk and has to stay.
    durable: Zxid,
    pub(crate) reader: LogReader,
}

impl View {
    pub(crate) fn new(reader: LogReader, last: Zxid, bytes_max: usize) -> View {
        View { entries: VecDeque::new(), prev: last, bytes: 0, bytes_max, durable: last, reader }
    }

    pub(crate) fn last(&self) -> Zxid {
        self.entries.back().map_or(self.prev, |e| e.zxid)
    }

    pub(crate) fn push(&mut self, entries: &[Entry]) {
        self.bytes += entries.iter().map(Entry::weight).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
        self.shrink();
    }

    pub(crate) fn set_durable(&mut self, upto: Zxid) {
        self.durable = self.durable.max(upto);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.entries.pop_front_if(|e| e.zxid <= self.durable)
        {
            self.bytes -= oldest.weight();
            self.prev = oldest.zxid;
        }
    }

    pub(crate) fn cut(&mut self, last: Zxid) {
        self.durable = self.durable.min(last);
        while let Some(newest) = self.entries.pop_back_if(|e| e.zxid > last) {
            self.bytes -= newest.weight();
        }
        if self.entries.is_empty() {
            self.prev = last;
        }
    }

    pub(crate) fn reset(&mut self, base: Zxid) {
        self.entries.clear();
        (self.bytes, self.prev, self.durable) = (0, base, base);
    }

    pub(crate) fn contains(&self, zxid: Zxid) -> bool {
        if zxid > self.prev {
            return self.entries.binary_search_by_key(&zxid, |e| e.zxid).is_ok();
        }
        self.reader.history().contains(zxid)
    }

    pub(crate) fn read_after(
        &self,
        after: Zxid,
        upto: Zxid,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let from = match self.entries.binary_search_by_key(&after, |e| e.zxid) {
            Ok(i) => i + 1,
            Err(_) if after == self.prev => 0,
            Err(_) => return self.reader.read_after(after, upto, bytes_max),
        };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.range(from..).take_while(|e| e.zxid <= upto) {
            bytes += entry.weight();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}
