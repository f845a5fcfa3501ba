//! A disk and its log thread as data: operations wait in their order, each step makes one of them durable,
//! and a crash forgets the waiting ones.

use std::collections::VecDeque;
use std::sync::Arc;

use api::peer::Damage;
use api::{EnsembleId, Entry, Epoch, History, Level, LevelHistory, Roster, RosterHistory, Stamp, Zxid};
use invariants::same;
use quorum_core::{Durable, Input};

use super::fault::Fault;

/// The state that survives a crash.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Stored {
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// The base of the log; earlier entries are only in a snapshot.
    pub(crate) base: Zxid,
    /// The members there.
    pub(crate) roster: Option<Arc<Roster>>,
    pub(crate) entries: Vec<Entry>,
    /// Ascending.
    pub(crate) snapshots: Vec<Zxid>,
    /// Entries that it had were lost, and it has not synchronised since.
    pub(crate) damage: Damage,
    pub(crate) ensemble: Option<EnsembleId>,
    /// As received and stored.
    pub(crate) committed: Zxid,
}

/// A requested operation that is not durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Op {
    Append(Vec<Entry>),
    Epochs { accepted: Epoch, current: Epoch, damage: Damage, ensemble: Option<EnsembleId>, committed: Zxid },
    Truncate(Zxid),
    Install(Zxid, Arc<Roster>),
    Purge(Zxid),
}

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Disk {
    pub(crate) stored: Stored,
    pub(crate) queue: VecDeque<Op>,
}

impl Stored {
    /// With the very same content.
    pub(crate) fn has_entry(&self, entry: &Entry) -> bool {
        entry.zxid <= self.base || self.entries.iter().any(|e| same(e, entry))
    }

    pub(crate) fn last(&self) -> Zxid {
        self.entries.last().map_or(self.base, |e| e.zxid)
    }

    pub(crate) fn has(&self, zxid: Zxid) -> bool {
        zxid <= self.base || self.entries.iter().any(|e| e.zxid == zxid)
    }

    /// The epoch with which the server would come up.
    pub(crate) fn recovered_epoch(&self) -> Epoch {
        self.current.max(self.last().epoch())
    }

    /// All is at the first level here, from the first marker on.
    fn levels(&self) -> LevelHistory {
        let mut levels = LevelHistory::from_base((self.base != Zxid::ZERO).then_some(Level::FIRST));
        for (entry, level) in self.entries.iter().filter_map(|e| Some((e, e.body.level()?))) {
            levels.append(entry.zxid, level);
        }
        levels
    }

    fn rosters(&self) -> RosterHistory {
        let mut rosters = RosterHistory::from_base(self.roster.clone());
        self.entries.iter().filter_map(|e| e.body.roster()).for_each(|roster| rosters.append(roster.clone()));
        rosters
    }

    fn history(&self) -> Result<History, String> {
        let mut history = History::from_base(self.base);
        match self.entries.iter().find(|e| !history.append(e.zxid)) {
            None => Ok(history),
            Some(e) => Err(format!("I14: {} does not follow in the log on disk", e.zxid)),
        }
    }

    /// The state that a starting server finds; the rules are those of `reconcile` in quorum-log.
    pub(crate) fn recover(&self, fault: Fault) -> Result<Durable, String> {
        let history = self.history()?;
        let last = self.last().epoch();
        let snapshot = self.snapshots.last().copied();
        if let Some(zxid) = snapshot.filter(|&z| self.base != Zxid::ZERO && z < self.base) {
            return Err(format!("I15: the log starts behind {}, the newest snapshot is {zxid}", self.base));
        }
        if self.accepted < last {
            return Err(format!("I9: the log ends in epoch {last}, promised is {}", self.accepted));
        }
        if self.current > last && self.accepted == self.current && !self.damage.is_some() {
            return Err(format!(
                "I9: the log ends with {}, synchronised is epoch {}",
                self.last(),
                self.current
            ));
        }
        Ok(Durable {
            accepted_epoch: self.accepted,
            // An entry of an epoch proves that the whole start of that epoch is there.
            current_epoch: match fault {
                Fault::EpochForgotten => self.current,
                _ => self.recovered_epoch(),
            },
            history,
            levels: self.levels(),
            rosters: self.rosters(),
            snapshot,
            snap_before: Zxid::ZERO,
            last_stamp: Stamp::default(),
            damage: self.damage,
            ensemble: self.ensemble,
            committed: self.committed,
        })
    }

    fn carry_out(&mut self, op: Op, fault: Fault) -> Result<Input, String> {
        match op {
            Op::Append(entries) => {
                for e in entries {
                    if !e.zxid.follows(self.last()) {
                        return Err(format!("I14: {} is written behind {}", e.zxid, self.last()));
                    }
                    self.entries.push(e);
                }
                if self.last().epoch() > self.accepted && fault.checks_promises() {
                    return Err(format!("I9: {} without a promise of its epoch", self.last()));
                }
                Ok(Input::Persisted { upto: self.last() })
            }
            Op::Epochs { accepted, current, damage, ensemble, committed } => {
                if accepted < self.accepted || current < self.current || current > accepted {
                    return Err(format!("I9: epochs go to {accepted}, {current}"));
                }
                if current > self.current && !self.has(Zxid::marker(current)) && fault.checks_promises() {
                    return Err(format!("I10: epoch {current} is durable before its marker"));
                }
                if fault != Fault::PromiseForgotten || current > self.current {
                    self.accepted = accepted;
                }
                if fault != Fault::EpochForgotten {
                    self.current = current;
                }
                if self.ensemble.is_some() && self.ensemble != ensemble && self.last().counter() > 0 {
                    return Err(format!("I20: a log with {} goes to another ensemble", self.last()));
                }
                (self.damage, self.ensemble, self.committed) = (damage, ensemble, committed);
                Ok(Input::EpochsPersisted)
            }
            Op::Truncate(to) => {
                if !self.has(to) || to < self.base {
                    return Err(format!("I14: cut back to {to}, which is not in the log"));
                }
                if fault != Fault::TruncIgnored {
                    self.entries.retain(|e| e.zxid <= to);
                }
                Ok(Input::Truncated)
            }
            Op::Install(zxid, roster) => {
                if !self.snapshots.contains(&zxid) {
                    return Err(format!("I15: the log stands on a snapshot of {zxid} that is not durable"));
                }
                (self.base, self.roster) = (zxid, Some(roster));
                self.entries.clear();
                Ok(Input::SnapshotInstalled)
            }
            Op::Purge(upto) => {
                if !self.snapshots.iter().any(|&z| z >= upto && self.has(z)) {
                    return Err(format!("I15: purged up to {upto}, which no snapshot covers"));
                }
                self.roster = self.rosters().at(upto).cloned();
                self.base = self.base.max(upto);
                let base = self.base;
                self.entries.retain(|e| e.zxid > base);
                Ok(Input::Purged { base })
            }
        }
    }
}

impl Disk {
    /// Makes the next operation durable. Returns the core's input for it.
    pub(crate) fn step(&mut self, fault: Fault) -> Result<Option<Input>, String> {
        let next = match fault {
            Fault::EpochBeforeLog => {
                self.queue.iter().position(|op| matches!(op, Op::Epochs { .. })).unwrap_or(0)
            }
            _ => 0,
        };
        let Some(op) = self.queue.remove(next) else { return Ok(None) };
        self.stored.carry_out(op, fault).map(Some)
    }

    /// Everything after the first `kept` entries is found damaged when the server starts; a newer snapshot
    /// takes the place of the log.
    pub(crate) fn damage(&mut self, kept: usize) {
        let stored = &mut self.stored;
        self.queue.clear();
        stored.entries.truncate(kept);
        stored.damage = stored.damage.max(Damage::Log);
        if let Some(&newest) = stored.snapshots.last().filter(|&&s| s > stored.last()) {
            stored.base = newest;
            stored.entries.clear();
        }
    }

    /// An older copy takes the place of the disk, of the time when the log had `kept` entries and its server
    /// had just synchronised with the leader of the last one. The server has got the report.
    pub(crate) fn put_back(&mut self, kept: usize) {
        let stored = &mut self.stored;
        self.queue.clear();
        stored.entries.truncate(kept);
        stored.snapshots.retain(|&s| s <= stored.entries.last().map_or(stored.base, |e| e.zxid));
        let epoch = stored.last().epoch();
        (stored.accepted, stored.current, stored.damage) = (epoch, epoch, Damage::Directory);
        stored.ensemble = stored.ensemble.filter(|_| epoch > Epoch(0));
        stored.committed = stored.committed.min(stored.last());
    }

    /// How many entries of the append that is under way may reach the disk without it being done.
    pub(crate) fn torn(&self) -> usize {
        match self.queue.front() {
            Some(Op::Append(entries)) => entries.len() - 1,
            _ => 0,
        }
    }

    /// Power is lost when the first `entries` of the append that is under way have reached the disk.
    pub(crate) fn crash(&mut self, entries: usize, fault: Fault) -> Result<(), String> {
        if let Some(Op::Append(mut batch)) = self.queue.pop_front()
            && entries > 0
        {
            batch.truncate(entries);
            self.stored.carry_out(Op::Append(batch), fault)?;
        }
        self.queue.clear();
        Ok(())
    }

    /// The log as its readers see it, durable or not: where it starts, and its entries.
    pub(crate) fn view(&self) -> (Zxid, Vec<Entry>) {
        let (mut base, mut entries) = (self.stored.base, self.stored.entries.clone());
        for op in &self.queue {
            match op {
                Op::Append(batch) => entries.extend(batch.iter().cloned()),
                Op::Truncate(to) => entries.retain(|e| e.zxid <= *to),
                Op::Install(zxid, _) => {
                    base = *zxid;
                    entries.clear();
                }
                Op::Epochs { .. } | Op::Purge(_) => {}
            }
        }
        (base, entries)
    }
}
