use std::cmp::Ordering;

use bytes::Bytes;

use crate::{Body, Epoch, Level, PeerId, Trace, Zxid};

/// Stands where a channel would: chosen by the caller, handed back with the answer.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Which node's store submitted an entry, and under which ticket, so that this store can answer its client when it
/// applies the entry. Meaningless to every other node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// The node that submitted.
    pub peer: PeerId,
    /// The submitter's own number for it; ascending in the order of submission.
    pub ticket: Ticket,
}

/// The time of an entry. The greater is that of the later entry, whatever its time: stamps go back where clocks were set right.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// The entry.
    pub zxid: Zxid,
    /// Its time, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// One record of the replicated log: its place, what the leader stamped on it, and what was submitted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Place in the total order.
    pub zxid: Zxid,
    /// When the leader ordered it, by the clocks of a quorum, in milliseconds since the Unix epoch. Along the log it never
    /// decreases, but where clocks were wrong and are set right.
    pub time_ms: i64,
    /// Which store submitted it; `None` for what the quorum itself has put there.
    pub origin: Option<Origin>,
    /// What it is.
    pub body: Body,
    /// The span that it is part of. Rides along in memory and between processes; it is no part of the log on disk, and what
    /// is read from there has none.
    pub trace: Trace,
}

impl Entry {
    /// Its time.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { zxid: self.zxid, time_ms: self.time_ms }
    }

    /// The marker that opens an epoch, at this level.
    #[must_use]
    pub fn marker(epoch: Epoch, level: Level, time_ms: i64) -> Entry {
        let body = Body::Marker(level);
        Entry { zxid: Zxid::marker(epoch), time_ms, origin: None, body, trace: None }
    }

    /// Whether this is the entry that opens an epoch.
    #[must_use]
    pub fn is_marker(&self) -> bool {
        matches!(self.body, Body::Marker(_))
    }

    /// The store's own part of it; `None` for what the quorum itself has put there.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        if let Body::Store(payload) = &self.body { Some(payload) } else { None }
    }

    /// Bytes that this entry costs in queues and limits: the payload and a fixed allowance for the header.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.body.len() + 48
    }
}

/// The entries of one epoch in a log: counters 0 to `last` without a gap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EpochSpan {
    /// The epoch.
    pub epoch: Epoch,
    /// The highest counter of that epoch in the log.
    pub last: u32,
}

/// What a log contains, without its contents: because counters within an epoch are contiguous, one number per epoch
/// says it all. Two logs that contain the same zxid agree on everything up to it, since an epoch has one leader and
/// every append is chained to the entry before it. So two histories are enough to find where two logs part.
///
/// `base` is the zxid of the snapshot below the log (`Zxid::ZERO` if none): it and everything before it is
/// part of the history, but not readable from the log.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct History {
    base: Zxid,
    /// Ascending epochs, all entries behind `base`. The first may be the rest of the epoch of `base`.
    spans: Vec<EpochSpan>,
}

impl History {
    /// The history of a snapshot at `base` without later entries.
    #[must_use]
    pub fn from_base(base: Zxid) -> History {
        History { base, spans: Vec::new() }
    }

    /// Rebuilds a history, as read from a peer. `None` unless epochs ascend and lie behind `base`.
    #[must_use]
    pub fn from_parts(base: Zxid, spans: Vec<EpochSpan>) -> Option<History> {
        let ascending = spans.windows(2).all(|w| w[0].epoch < w[1].epoch);
        let behind_base = spans.first().is_none_or(|s| Zxid::new(s.epoch, s.last) > base);
        (ascending && behind_base).then_some(History { base, spans })
    }

    /// The zxid of the snapshot below the log.
    #[must_use]
    pub fn base(&self) -> Zxid {
        self.base
    }

    /// Epochs behind the base, ascending.
    #[must_use]
    pub fn spans(&self) -> &[EpochSpan] {
        &self.spans
    }

    /// The last zxid; `base` if there are no entries.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.spans.last().map_or(self.base, |s| Zxid::new(s.epoch, s.last))
    }

    /// Whether there is nothing but markers: no write was ever in this log.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.base == Zxid::ZERO && self.spans.iter().all(|span| span.last == 0)
    }

    /// Notes an appended entry. False, and nothing noted, if it does not stand directly behind the last one.
    #[must_use]
    pub fn append(&mut self, zxid: Zxid) -> bool {
        if !zxid.follows(self.last()) {
            return false;
        }
        match self.spans.last_mut() {
            Some(s) if s.epoch == zxid.epoch() => s.last = zxid.counter(),
            _ => self.spans.push(EpochSpan { epoch: zxid.epoch(), last: zxid.counter() }),
        }
        true
    }

    /// Whether the log, or the snapshot below it, ends with or contains exactly this zxid and it can still
    /// be told apart: `base` itself, or an entry behind it.
    #[must_use]
    pub fn contains(&self, zxid: Zxid) -> bool {
        zxid == self.base
            || (zxid > self.base
                && self
                    .spans
                    .binary_search_by_key(&zxid.epoch(), |s| s.epoch)
                    .is_ok_and(|i| zxid.counter() <= self.spans[i].last))
    }

    /// The last zxid that both logs contain, if it is known from what both still have; `None` means that only a
    /// snapshot helps.
    #[must_use]
    pub fn common_with(&self, other: &History) -> Option<Zxid> {
        let mut candidates = Vec::with_capacity(self.spans.len() + 1);
        candidates.push(self.base);
        for span in &self.spans {
            let last = match other.spans.binary_search_by_key(&span.epoch, |s| s.epoch) {
                Ok(i) => span.last.min(other.spans[i].last),
                Err(_) if other.base.epoch() == span.epoch => span.last.min(other.base.counter()),
                Err(_) => continue,
            };
            candidates.push(Zxid::new(span.epoch, last));
        }
        candidates.into_iter().rev().find(|&z| self.contains(z) && other.contains(z))
    }

    /// The number of entries after `after`, up to `upto`; both are in the history.
    #[must_use]
    pub fn count_between(&self, after: Zxid, upto: Zxid) -> u64 {
        // Of each epoch, by the counters that are next.
        let passed = |z: Zxid, s: &EpochSpan| match z.epoch().cmp(&s.epoch) {
            Ordering::Less => 0,
            Ordering::Equal => u64::from(z.counter().min(s.last)) + 1,
            Ordering::Greater => u64::from(s.last) + 1,
        };
        self.spans.iter().map(|s| passed(upto, s).saturating_sub(passed(after, s))).sum()
    }

    /// Forgets everything behind `zxid`. False, and nothing forgotten, if the history does not contain it.
    #[must_use]
    pub fn truncate(&mut self, zxid: Zxid) -> bool {
        if !self.contains(zxid) {
            return false;
        }
        self.spans.retain(|s| s.epoch <= zxid.epoch());
        if zxid == self.base {
            self.spans.clear();
        } else if let Some(s) = self.spans.last_mut() {
            s.last = zxid.counter();
        }
        true
    }

    /// Moves the base up to `zxid`, as when the log below a snapshot is purged. False, and nothing moved, if the
    /// history does not contain it.
    #[must_use]
    pub fn purge(&mut self, zxid: Zxid) -> bool {
        if !self.contains(zxid) {
            return false;
        }
        self.spans.retain(|s| Zxid::new(s.epoch, s.last) > zxid);
        self.base = zxid;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(e: u32, c: u32) -> Zxid {
        Zxid::new(Epoch(e), c)
    }

    fn history(base: Zxid, spans: &[(u32, u32)]) -> History {
        let spans = spans.iter().map(|&(e, last)| EpochSpan { epoch: Epoch(e), last }).collect();
        History::from_parts(base, spans).unwrap()
    }

    #[test]
    fn appends_chain() {
        let mut h = History::default();
        assert!(h.append(z(1, 0)) && h.append(z(1, 1)) && h.append(z(3, 0)));
        assert!(!h.append(z(3, 2)), "a hole is refused");
        assert!(!h.append(z(2, 0)), "an older epoch is refused");
        assert_eq!(h.last(), z(3, 0));
        assert!(h.contains(z(1, 1)) && !h.contains(z(1, 2)) && !h.contains(z(2, 0)));
    }

    #[test]
    fn the_common_point_is_exact_even_where_both_have_a_private_tail() {
        // S12: B wrote 0x500000003 to itself only; C went on in epoch 6.
        let c = history(Zxid::ZERO, &[(5, 2), (6, 2)]);
        let b = history(Zxid::ZERO, &[(5, 3)]);
        assert_eq!(c.common_with(&b), Some(z(5, 2)));
        // ZooKeeper would truncate to 0x200000007 here, which the learner does not have.
        let leader = history(Zxid::ZERO, &[(1, 10), (2, 7), (4, 0)]);
        let learner = history(Zxid::ZERO, &[(1, 10), (3, 5)]);
        assert_eq!(leader.common_with(&learner), Some(z(1, 10)));
        assert_eq!(leader.common_with(&History::default()), Some(Zxid::ZERO));
    }

    #[test]
    fn across_bases() {
        let leader = history(z(5, 100), &[(5, 200), (6, 3)]);
        assert_eq!(
            leader.common_with(&history(Zxid::ZERO, &[(5, 99)])),
            None,
            "purged: only a snapshot helps"
        );
        assert_eq!(leader.common_with(&history(Zxid::ZERO, &[(5, 100)])), Some(z(5, 100)));
        assert_eq!(leader.common_with(&history(z(5, 150), &[])), Some(z(5, 150)));
        assert_eq!(leader.common_with(&history(z(5, 150), &[(5, 300)])), Some(z(5, 200)));
        assert_eq!(leader.common_with(&history(z(6, 1), &[(6, 9)])), Some(z(6, 3)));
        assert_eq!(leader.common_with(&history(z(6, 7), &[])), None);
    }

    #[test]
    fn truncate_and_purge() {
        let mut h = history(z(1, 4), &[(1, 9), (2, 3)]);
        assert!(!h.clone().truncate(z(1, 3)));
        assert!(h.purge(z(1, 6)));
        assert_eq!((h.base(), h.last()), (z(1, 6), z(2, 3)));
        assert!(h.truncate(z(1, 8)));
        assert_eq!(h.last(), z(1, 8));
        assert!(h.truncate(z(1, 6)));
        assert_eq!(h.last(), z(1, 6));
        assert!(h.append(z(1, 7)));
        assert!(h.purge(z(1, 7)) && h.spans().is_empty() && h.append(z(2, 0)));
    }

    #[test]
    fn entries_are_counted_across_epochs() {
        let h = history(z(1, 4), &[(1, 9), (2, 3), (5, 0)]);
        assert_eq!(h.count_between(z(1, 4), z(5, 0)), 5 + 4 + 1);
        assert_eq!(h.count_between(z(1, 9), z(2, 0)), 1);
        assert_eq!(h.count_between(z(2, 1), z(2, 1)), 0);
        assert_eq!(h.count_between(z(2, 3), z(5, 0)), 1);
    }
}
