//! The possible next steps, and time.

use super::network::Down;
use super::*;

impl World {
    /// All possible steps.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (&id, node) in self.nodes.iter().filter(|(_, n)| n.core.is_some()) {
            if node.dials.iter().any(|to| !self.held.contains(&(id, to.0))) {
                steps.push(Step::Dial(id));
            }
            if !node.disk.held && !node.disk.queue.is_empty() {
                steps.push(Step::Disk(id));
            }
        }
        for (&conn, l) in &self.links {
            if !self.held.contains(&(l.learner, l.leader))
                && (!l.up.is_empty() || !l.learner_open || l.broken)
            {
                steps.push(Step::Up(conn));
            }
            if !self.held.contains(&(l.leader, l.learner))
                && (!l.down.is_empty() || !l.leader_open || l.broken)
            {
                steps.push(Step::Down(conn));
            }
        }
        steps
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Dial(id) => {
                let held = &self.held;
                let dials = &mut self.nodes.get_mut(&id).unwrap().dials;
                let i = dials.iter().position(|to| !held.contains(&(id, to.0))).unwrap();
                let leader = dials.remove(i).0;
                let way = !self.blocked.contains(&(id.min(leader), id.max(leader)));
                if !way || self.nodes.get(&leader).is_none_or(|n| n.core.is_none()) {
                    return self.input(id, Input::ConnectFailed { leader: PeerId(leader) });
                }
                self.conns += 1;
                let conn = Conn(self.conns);
                let (up, down) = (VecDeque::new(), VecDeque::new());
                let (learner_open, leader_open, broken) = (true, true, false);
                let link = Link { learner: id, leader, up, down, learner_open, leader_open, broken };
                self.links.insert(conn, link);
                self.input(leader, Input::LearnerConnected { conn, peer: PeerId(id) });
                self.input(id, Input::LeaderConnected { conn, leader: PeerId(leader) });
            }
            Step::Disk(id) => {
                let had = self.committed_on_disk(id);
                let node = self.nodes.get_mut(&id).unwrap();
                if let Some(input) = node.disk.step() {
                    if let Input::Purged { base } = input {
                        // No reader needs the purged entries.
                        node.base = node.base.max(base);
                        node.log.retain(|e| e.zxid > base);
                    }
                    assert!(self.committed_on_disk(id) >= had, "I11: server {id} lost what is committed");
                    self.input(id, input);
                }
            }
            Step::Up(conn) => {
                let link = self.links.get_mut(&conn).unwrap();
                let (to, open) = (link.leader, link.leader_open);
                match link.up.pop_front() {
                    Some(message) if open => self.input(to, Input::FromLearner { conn, message }),
                    Some(_) => {}
                    None => {
                        link.leader_open = false;
                        self.drop_closed(conn);
                        if open {
                            self.input(to, Input::Disconnected { conn });
                        }
                    }
                }
            }
            Step::Down(conn) => {
                let link = self.links.get_mut(&conn).unwrap();
                let (to, open) = (link.learner, link.learner_open);
                match link.down.pop_front() {
                    Some(Down::Message(message)) if open => {
                        self.input(to, Input::FromLeader { conn, message })
                    }
                    Some(Down::Snapshot(zxid, roster)) if open => {
                        self.input(to, Input::SnapshotProgress { conn });
                        // The snapshot is complete and durable; only then the core learns of it.
                        self.nodes.get_mut(&to).unwrap().disk.stored.snapshots.push(zxid);
                        let level = self.level_at(zxid);
                        let message = ToLearner::Snap { zxid, level, roster };
                        self.input(to, Input::FromLeader { conn, message });
                    }
                    Some(_) => {}
                    None => {
                        link.learner_open = false;
                        self.drop_closed(conn);
                        if open {
                            self.input(to, Input::Disconnected { conn });
                        }
                    }
                }
            }
        }
    }

    pub(super) fn drop_closed(&mut self, conn: Conn) {
        if self.links.get(&conn).is_some_and(|l| !l.learner_open && !l.leader_open) {
            self.links.remove(&conn);
        }
    }

    /// Carries out all steps that need no time.
    pub(crate) fn settle(&mut self) {
        let lazy = std::mem::take(&mut self.lazy);
        self.ids().into_iter().for_each(|id| self.poll(id));
        let mut steps = 0;
        while let Some(&step) = self.steps().first() {
            self.take(step);
            steps += 1;
            assert!(steps < 100_000, "the ensemble does not come to rest");
        }
        self.lazy = lazy;
    }

    /// Time passes, and all possible steps happen.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            match self.next_timeout().filter(|&at| at <= end) {
                Some(at) => self.pass_to(at),
                None => break,
            }
        }
        self.now = end;
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.nodes.values().filter_map(|n| n.core.as_ref()?.next_timeout()).min()
    }

    /// Moves the clock to `at` if that is later, and wakes every server whose time-out is due.
    pub(crate) fn pass_to(&mut self, at: Time) {
        self.now = self.now.max(at);
        for id in self.ids() {
            let due = |w: &World| w.nodes[&id].core.as_ref().and_then(Zab::next_timeout);
            if due(self).is_some_and(|t| t <= self.now) {
                self.input(id, Input::Timeout);
                self.poll(id);
                assert!(
                    due(self).is_none_or(|t| t > self.now),
                    "server {id} wants to be woken again and again"
                );
            }
        }
    }
}
