//! A model of disk and log thread: operations wait in a queue, and a crash loses the unfinished ones.

use std::collections::VecDeque;
use std::sync::Arc;

use api::peer::Damage;
use api::{EnsembleId, Entry, Epoch, History, Level, LevelHistory, Roster, RosterHistory, Stamp, Zxid};
use quorum_core::{Durable, Input};

/// The state that survives a crash.
#[derive(Clone, Default, Debug)]
pub(crate) struct Stored {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    pub(crate) base: Zxid,
    /// The feature level at `base`.
    pub(crate) level: Option<Level>,
    /// The members at `base`.
    pub(crate) roster: Option<Arc<Roster>>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshots: Vec<Zxid>,
    /// Lost data that no synchronisation has restored.
    pub(crate) damage: Damage,
    pub(crate) last_stamp: Stamp,
    pub(crate) ensemble: Option<EnsembleId>,
    pub(crate) committed: Zxid,
}

impl Stored {
    pub(crate) fn last(&self) -> Zxid {
        self.entries.last().map_or(self.base, |e| e.zxid)
    }

    pub(crate) fn has(&self, zxid: Zxid) -> bool {
        zxid <= self.base || self.entries.binary_search_by_key(&zxid, |e| e.zxid).is_ok()
    }

    pub(crate) fn history(&self) -> History {
        let mut history = History::from_base(self.base);
        for e in &self.entries {
            assert!(history.append(e.zxid), "I14: {} behind {} on disk", e.zxid, history.last());
        }
        history
    }

    pub(crate) fn levels(&self) -> LevelHistory {
        let mut levels = LevelHistory::from_base(self.level);
        for entry in &self.entries {
            if let Some(level) = entry.body.level() {
                levels.append(entry.zxid, level);
            }
        }
        levels
    }

    pub(crate) fn rosters(&self) -> RosterHistory {
        let mut rosters = RosterHistory::from_base(self.roster.clone());
        self.entries.iter().filter_map(|e| e.body.roster()).for_each(|roster| rosters.append(roster.clone()));
        rosters
    }

    /// `trust_log`: an entry of an epoch proves that the log has the whole start of that epoch. So a
    /// shell may take the current epoch from the log.
    pub(crate) fn durable(&self, trust_log: bool) -> Durable {
        let from_log = if trust_log { self.last().epoch() } else { Epoch(0) };
        Durable {
            accepted_epoch: self.accepted,
            current_epoch: self.current.max(from_log),
            history: self.history(),
            levels: self.levels(),
            rosters: self.rosters(),
            snapshot: self.snapshots.iter().max().copied(),
            snap_before: Zxid::ZERO,
            last_stamp: self.entries.last().map(Entry::stamp).unwrap_or_default().max(self.last_stamp),
            damage: self.damage,
            ensemble: self.ensemble,
            committed: self.committed,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append(Vec<Entry>),
    Epochs {
        accepted: Epoch,
        current: Epoch,
        damage: Damage,
        ensemble: Option<EnsembleId>,
        committed: Zxid,
        last_stamp: Stamp,
    },
    Truncate(Zxid),
    Install(Zxid, Level, Arc<Roster>),
    Purge(Zxid),
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) stored: Stored,
    pub(crate) queue: VecDeque<Op>,
    /// The disk carries out nothing while this is set.
    pub(crate) held: bool,
}

impl Disk {
    /// Carries out the next operation. An append takes all directly following appends along.
    pub(crate) fn step(&mut self) -> Option<Input> {
        let op = self.queue.pop_front()?;
        let append = matches!(op, Op::Append(_));
        let mut done = self.carry_out(op);
        while append && matches!(self.queue.front(), Some(Op::Append(_))) {
            done = self.carry_out(self.queue.front().cloned().unwrap());
            self.queue.pop_front();
        }
        Some(done)
    }

    fn carry_out(&mut self, op: Op) -> Input {
        let s = &mut self.stored;
        match op {
            Op::Append(entries) => {
                for e in entries {
                    assert!(e.zxid.follows(s.last()), "I14: {} appended behind {}", e.zxid, s.last());
                    s.entries.push(e);
                }
                // The log may be ahead of the current epoch during a synchronisation, but never ahead
                // of a promise.
                assert!(s.last().epoch() <= s.accepted, "I9: {} without a promise", s.last());
                Input::Persisted { upto: s.last() }
            }
            Op::Epochs { accepted, current, damage, ensemble, committed, last_stamp } => {
                assert!(accepted >= s.accepted && current >= s.current && current <= accepted, "I9");
                if current > s.current {
                    assert!(s.has(Zxid::marker(current)), "4643: epoch {current} before its log");
                }
                (s.accepted, s.current) = (accepted, current);
                let bound = s.ensemble.is_some() && s.entries.iter().any(|e| e.zxid.counter() > 0);
                assert!(!bound || s.ensemble == ensemble, "I20: a log with data goes to another ensemble");
                (s.damage, s.last_stamp) = (damage, last_stamp);
                (s.ensemble, s.committed) = (ensemble, committed);
                Input::EpochsPersisted
            }
            Op::Truncate(to) => {
                assert!(s.has(to) && to >= s.base, "truncated to {to}");
                s.entries.retain(|e| e.zxid <= to);
                Input::Truncated
            }
            Op::Install(zxid, level, roster) => {
                assert!(
                    s.snapshots.contains(&zxid),
                    "2872: the log stands on a snapshot that is not durable"
                );
                (s.base, s.level, s.roster) = (zxid, Some(level), Some(roster));
                s.entries.clear();
                Input::SnapshotInstalled
            }
            Op::Purge(upto) => {
                assert!(s.snapshots.iter().any(|&z| z >= upto && s.has(z)), "purged what no snapshot covers");
                // The purge removes whole segments: in this model they end with an odd counter.
                let base =
                    s.entries.iter().rev().map(|e| e.zxid).find(|z| *z <= upto && z.counter() % 2 == 1);
                let base = base.unwrap_or(s.base);
                s.roster = s.rosters().at(base).cloned();
                (s.level, s.base) = (s.levels().at(base), base);
                s.entries.retain(|e| e.zxid > base);
                Input::Purged { base }
            }
        }
    }

    /// Power fails after `ops` more operations and `entries` of the next append have reached the disk
    /// without a report.
    pub(crate) fn crash(&mut self, ops: usize, entries: usize) {
        for _ in 0..ops.min(self.queue.len()) {
            let op = self.queue.pop_front().unwrap();
            self.carry_out(op);
        }
        if let Some(Op::Append(mut batch)) = self.queue.pop_front() {
            batch.truncate(entries);
            self.carry_out(Op::Append(batch));
        }
        self.queue.clear();
        self.held = false;
    }
}
