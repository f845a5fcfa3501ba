//! The possible events of a state.

use api::ports::Role;

use super::bounds::Left;
use super::{Action, NET, Start, State, Zab};

impl Zab {
    /// Events of connections and disks, and commits that wait no longer.
    pub(super) fn deliveries(&self, state: &State, into: &mut Vec<Action>) {
        let net = self.nets.get(state[NET]);
        for link in &net.links {
            if link.leader_open && !link.up.is_empty() {
                into.push(Action::Up(link.conn));
            }
            if link.learner_open && !link.down.is_empty() {
                into.push(Action::Down(link.conn));
            }
            if link.leader_open && link.up_ended {
                into.push(Action::UpEnds(link.conn));
            }
            if link.learner_open && link.down_ended {
                into.push(Action::DownEnds(link.conn));
            }
        }
        for i in 0..self.count() {
            if !self.server(state, i).disk.queue.is_empty() {
                into.push(Action::Disk(i));
            }
            if self.facts(state, i).commit_waits {
                into.push(Action::CommitDue(i));
            }
        }
    }

    /// The servers that the election may make the leader, or followers of one. While no server has led,
    /// servers that start alike are interchangeable. So it is enough to visit runs in which server 1 is the
    /// first to lead and server 2 follows before server 3 does.
    pub(super) fn elections(&self, state: &State, left: &Left, into: &mut Vec<Action>) {
        let alike = matches!(self.setup.start, Start::Fresh | Start::Written) && self.setup.voters == 3;
        for i in (0..self.count()).filter(|&i| self.server(state, i).electing) {
            let voter = i < self.setup.voters;
            if voter && left.of.elections > 0 && (left.led || i == 0 || !alike) {
                into.push(Action::Lead(i));
            }
            if alike && i == 2 && !left.followed {
                continue;
            }
            for l in (0..self.count()).filter(|&l| l != i && l < self.setup.voters) {
                // It leads, or may be about to.
                if self.facts(state, l).role == Role::Leading
                    || (self.server(state, l).electing && left.of.elections > 0)
                {
                    into.push(Action::Follow(i, l));
                }
            }
        }
    }

    pub(super) fn faults(&self, state: &State, left: &Left, into: &mut Vec<Action>) {
        for i in 0..self.count() {
            let facts = self.facts(state, i);
            if left.of.crashes > 0 {
                into.extend((0..=facts.torn).map(|n| Action::Crash(i, n)));
            }
            if left.of.wipes > 0 {
                into.push(Action::Wipe(i));
            }
            if left.of.damages > 0 {
                let entries = self.server(state, i).disk.stored.entries.len();
                into.extend((0..entries).map(|kept| Action::Damage(i, kept)));
                into.extend((0..=entries).map(|kept| Action::PutBack(i, kept)));
            }
            if left.of.timeouts > 0 && facts.role == Role::Leading && facts.serving {
                into.push(Action::Leave(i));
            }
            if left.of.timeouts > 0 && facts.role != Role::Looking {
                into.push(Action::GiveUp(i));
            }
        }
        if left.of.cuts > 0 {
            let net = self.nets.get(state[NET]);
            let whole = net.links.iter().filter(|l| !l.up_ended && !l.down_ended);
            into.extend(whole.map(|l| Action::Cut(l.conn)));
        }
    }

    pub(super) fn requests(&self, state: &State, left: &Left, into: &mut Vec<Action>) {
        for i in 0..self.count() {
            let facts = self.facts(state, i);
            // A write to a server that does not serve waits until the server serves: the same as a later
            // submission.
            if facts.serving && left.of.writes > 0 {
                into.push(Action::Submit(i));
            }
            if facts.serving && left.of.barriers > 0 {
                into.push(Action::Barrier(i));
            }
            let server = self.server(state, i);
            if left.of.snapshots > 0 && Some(&server.applied) > server.disk.stored.snapshots.last() {
                into.push(Action::SaveSnapshot(i));
            }
        }
    }
}
