//! Entries, reigns and commits.

use std::collections::BTreeSet;

use api::ports::Request;
use api::{Body, Entry, Epoch, History, PeerId, Ticket, Zxid};
use invariants::{Answer, Members};
use proto::store::decode_command;
use quorum_core::CLOCK_BOUND_MS;
use store_core::server::Committed;

use super::Ghost;

impl Ghost {
    /// Entries enter the log of a node behind `prev`, which `history` tells, them included (I13, I14).
    pub(crate) fn appended(&mut self, node: PeerId, mut prev: Zxid, entries: &[Entry], history: &History) {
        for entry in entries {
            let first = match self.proposals.appends(node, prev, entry) {
                Ok(first) => first,
                Err(broken) => return self.hold(Err(broken)),
            };
            if first && entry.is_marker() {
                self.begins(node, entry.zxid.epoch(), history);
            }
            if first {
                let mut members = std::mem::replace(&mut self.members, Members::of(&self.ensemble));
                let verdict = members.proposed(entry, |zxid| self.in_log(history, zxid));
                self.members = members;
                self.hold(verdict);
            }
            if first && let Body::Level(level) = entry.body {
                let roster = self.members.last(|zxid| zxid < entry.zxid && self.in_log(history, zxid));
                let member = |id| match roster {
                    Some(roster) => roster.membership(id).is_some(),
                    None => self.ensemble.membership(id).is_some(),
                };
                let knows =
                    (1..).map(PeerId).zip(&self.builds).all(|(id, l)| !member(id) || l.contains(level));
                self.check(knows, "I22 no level that a member does not know", || {
                    format!("node {node} raises the level to {level} at {}", entry.zxid)
                });
            }
            prev = entry.zxid;
        }
    }

    /// A leader of a new epoch makes its log the one of the epoch: the first thing that it does with the promises of a quorum
    /// (I8, I12). A server that has promised acknowledges nothing of older reigns, so that what they can ever commit is known here.
    fn begins(&mut self, node: PeerId, epoch: Epoch, history: &History) {
        let promised = self.promised.get(&epoch);
        let promises = |id| id == node || promised.is_some_and(|p| p.contains(&id));
        let quorum = self.members.has(|zxid| self.in_log(history, zxid), promises);
        let what =
            (!quorum).then(|| format!("node {node} begins epoch {epoch} with the promises of {promised:?}"));
        self.check(quorum, "I12 promises of a quorum", || what.unwrap_or_default());
        let complete = self.ledger.begins(node, epoch, |e| is_in(history, e.zxid));
        self.hold(complete);
        let opens = self.ledger.opens(epoch, node);
        self.hold(opens);
    }

    /// A leader has a learner begin here, with what stands behind it in the leader's log (I14).
    pub(crate) fn synchronises(&mut self, node: PeerId, from: Zxid, history: &History) {
        let known = history.contains(from) || from <= history.base();
        self.check(known, "I14 common point", || {
            format!("node {node} has a learner go on behind {from}, which is not in its own log")
        });
    }

    /// A node serves as a leader, and has heard of no others than these for longer than it may bear (S6).
    pub(crate) fn reigns(&mut self, node: PeerId, heard: &BTreeSet<PeerId>, history: &History) {
        let there = |id| id == node || heard.contains(&id);
        let quorum = self.members.has(|zxid| self.in_log(history, zxid), there);
        self.check(quorum, "S6 a leader has its quorum", || {
            format!("node {node} still leads, but has heard only {heard:?} of late")
        });
    }

    /// A node begins to serve as the leader of an epoch (I7, I8, I12). With that all of its log up to its marker is committed.
    pub(crate) fn established(&mut self, node: PeerId, epoch: Epoch, history: &History, committed: Zxid) {
        let verdict = self.ledger.established(node, epoch, |e| is_in(history, e.zxid));
        self.hold(verdict);
        let last = self.ledger.last_upto(epoch);
        self.check(committed >= last, "I7 primary integrity", || {
            format!(
                "node {node} serves in epoch {epoch} and knows commits up to {committed}, not up to {last}"
            )
        });
        // Here, and not when the node has done all else that it does at this moment: it may not live to the end of it.
        self.knows_committed(node, committed, history);
    }

    /// A node says that everything up to `zxid` is committed (I1, I2, I5, I8, I11).
    pub(crate) fn knows_committed(&mut self, node: PeerId, zxid: Zxid, history: &History) {
        let durable = if zxid > self.last() { self.on_quorum(zxid, history) } else { Ok(()) };
        let log = |known| {
            let proposed = self.proposals.range(known..=zxid);
            proposed.filter(|e| e.zxid > known && history.contains(e.zxid)).cloned().collect()
        };
        let verdict = self.ledger.commits(node, zxid, log, || durable, CLOCK_BOUND_MS);
        self.hold(verdict);
        while let Some(entry) = self.ledger.entries().get(self.committed.len()).cloned()
            && self.violation.is_none()
        {
            self.commit(entry);
        }
    }

    fn commit(&mut self, entry: Entry) {
        let zxid = entry.zxid;
        let level = entry.body.level();
        let command = match entry.payload().cloned().map(decode_command).transpose() {
            Ok(command) => command,
            Err(e) => return self.fail("I1 integrity", format!("{zxid} is no command: {e}")),
        };
        let before = self.committed.last().map_or(i64::MIN, |c| c.time_ms);
        let now_ms = (self.now / 1_000) as i64;
        let clocks = || self.walls.iter().flatten().map(|(&id, ahead)| (id, ahead + now_ms));
        let reached = self.members.lists().filter_map(|list| list.quorum_value(clocks())).max();
        let reached = reached.unwrap_or(i64::MAX);
        let in_time = entry.time_ms <= before || entry.time_ms <= reached.saturating_add(CLOCK_BOUND_MS);
        self.check(in_time, "I17 times", || {
            format!("{zxid} is stamped {}, but a quorum's clocks have only reached {reached}", entry.time_ms)
        });
        match &command {
            None => match level {
                Some(level) => self.state.apply_level(zxid, entry.time_ms, level),
                None => self.state.apply_marker(zxid, entry.time_ms),
            },
            Some(command) => self.apply(zxid, entry.time_ms, command),
        }
        self.watchers.happened(zxid, self.state.take_changes());
        self.digests.push(self.state.digest());
        let Entry { time_ms, origin, .. } = entry;
        self.committed_at = self.now;
        self.committed.push(Committed { zxid, time_ms, origin, level, command });
    }

    /// The store of a node asks its quorum for this (I1, C9, C10).
    pub(crate) fn requested(&mut self, node: PeerId, requests: &[Request]) {
        for request in requests {
            match request {
                Request::Submit { ticket, payload, .. } => {
                    self.ledger.submits(node, *ticket, payload.clone());
                }
                Request::Barrier { ticket } => self.ledger.asks_barrier(node, *ticket),
                _ => {}
            }
        }
    }

    /// A store that has everything up to `position` takes the answer to its barrier (C9).
    pub(crate) fn barrier_told(&mut self, node: PeerId, ticket: Ticket, position: Zxid) {
        let verdict = self.ledger.barrier_told(node, ticket, position);
        self.hold(verdict);
    }

    /// A submission or a barrier is refused: a submission must never be carried out (C10).
    pub(crate) fn refused(&mut self, node: PeerId, ticket: Ticket) {
        let verdict = self.ledger.refuses(node, ticket);
        self.hold(verdict);
    }

    /// The store of a node is told that the outcome of its submission is unknown (C10).
    pub(crate) fn lost(&mut self, node: PeerId, ticket: Ticket) {
        let verdict = self.ledger.answers_to(node, ticket, Answer::Lost);
        self.hold(verdict);
    }

    /// The process of a node is gone, and its store with it.
    pub(crate) fn died(&mut self, node: PeerId) {
        self.ledger.died(node);
        // Nothing was saved of a flipped state, so the next process has another one.
        self.flips.remove(&node);
    }
}

/// Whether a log has this entry, or stands on a snapshot that has it.
fn is_in(history: &History, zxid: Zxid) -> bool {
    history.contains(zxid) || history.base() >= zxid
}
