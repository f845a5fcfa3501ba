//! What is durable on each node for certain, and what a node says of it.

use api::{Epoch, History, PeerId, Zxid};

use super::Ghost;

/// Of a node's disk, what is durable for certain.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shadow {
    pub(crate) history: History,
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// It has lost what it promised to keep, by a fault that is allowed to do that, and was not given it back yet.
    pub(crate) impaired: bool,
    /// Something of it is damaged, and the process that runs on it may not know yet. So nothing gives it back.
    pub(crate) latent: bool,
    /// What it had acknowledged each time before it lost it, or before it began to put a snapshot in its place, and in
    /// which epoch. All of them: a leader that stood still may count an ack from before two losses.
    had: Vec<(History, Epoch)>,
}

impl Shadow {
    /// Whether an ack of this entry was true when it left.
    pub(super) fn has_acknowledged(&self, zxid: Zxid) -> bool {
        let has = |history: &History, current: Epoch| {
            (history.contains(zxid) || history.base() >= zxid) && current >= zxid.epoch()
        };
        has(&self.history, self.current) || self.had.iter().any(|(h, current)| has(h, *current))
    }

    /// Something of it may be gone, by a fault that may do that.
    pub(crate) fn impair(&mut self) {
        self.had.push((self.history.clone(), self.current));
        self.impaired = true;
    }

    /// All of it is gone, by a fault that may do that.
    pub(crate) fn lose(&mut self) {
        self.impair();
        *self = Shadow { impaired: true, had: std::mem::take(&mut self.had), ..Shadow::default() };
    }

    /// It forgets its log, for the snapshot that it was given.
    pub(crate) fn reset(&mut self) {
        self.had.push((std::mem::take(&mut self.history), self.current));
    }
}

impl Ghost {
    /// A node stands for election with this (I12): votes are compared by it.
    pub(crate) fn stands(&mut self, node: usize, epoch: Epoch, zxid: Zxid) {
        let (current, last) = (self.disks[node].current, self.disks[node].history.last());
        self.check((epoch, zxid) == (current, last), "I12 candidates are true", || {
            format!(
                "node {} stands with {zxid} in epoch {epoch}, and has {last} in epoch {current}",
                node + 1
            )
        });
    }

    /// A node that was elected proposes an epoch (I9).
    pub(crate) fn proposes(&mut self, node: usize, epoch: Epoch) {
        let accepted = self.disks[node].accepted;
        self.check(epoch > accepted, "I9 a reign has a new epoch", || {
            format!("node {} wants to lead in epoch {epoch}, but promised {accepted} before", node + 1)
        });
    }

    /// An ack leaves a node (I10).
    pub(crate) fn acks(&mut self, node: usize, zxid: Zxid) {
        let disk = &self.disks[node];
        let (last, current) = (disk.history.last(), disk.current);
        self.check(last >= zxid, "I10 ack implies durable", || {
            format!("node {} acknowledges {zxid}, but only {last} is durable", node + 1)
        });
        self.check(current >= zxid.epoch(), "I10 epoch before ack", || {
            format!("node {} acknowledges {zxid}, but its durable epoch is {current}", node + 1)
        });
    }

    /// A promise leaves a node (I9).
    pub(crate) fn promises(&mut self, node: usize, epoch: Epoch) {
        self.promised.entry(epoch).or_default().insert(PeerId(node as u32 + 1));
        let accepted = self.disks[node].accepted;
        self.check(accepted >= epoch, "I9 promise is durable", || {
            format!("node {} promises epoch {epoch}, but the durable one is {accepted}", node + 1)
        });
    }

    /// The log of a node is cut back to `to` (I11).
    pub(crate) fn truncates(&mut self, node: usize, to: Zxid, history: &History) {
        let verdict = self.ledger.truncates(PeerId(node as u32 + 1), to, |zxid| history.contains(zxid));
        self.hold(verdict);
    }

    /// A node has recovered this from its disk (I9, I10).
    pub(crate) fn recovered(&mut self, node: usize, history: &History, accepted: Epoch, current: Epoch) {
        let Shadow { history: before, accepted: a, current: c, impaired, latent, mut had } =
            std::mem::take(&mut self.disks[node]);
        if latent {
            // All of it was read now. What was acknowledged behind the damage was durable until it was found.
            had.push((before.clone(), c));
        }
        if !impaired {
            self.check(accepted >= a && current >= c, "I9 epochs never decrease", || {
                format!("node {} comes back with epochs {accepted}, {current} after {a}, {c}", node + 1)
            });
            let last = before.last();
            self.check(history.contains(last) || history.base() >= last, "I10 durable stays", || {
                format!(
                    "node {} comes back with a log to {}, but {last} was durable",
                    node + 1,
                    history.last()
                )
            });
        }
        self.check(current <= accepted, "I9 epochs", || {
            format!("node {}: current epoch {current}, accepted {accepted}", node + 1)
        });
        self.disks[node] =
            Shadow { history: history.clone(), accepted, current, impaired, latent: false, had };
    }

    /// Whether a quorum has acknowledged this, as a node with this log counts; if not, the nodes that have.
    pub(super) fn on_quorum(&self, zxid: Zxid, history: &History) -> Result<(), String> {
        let holds = |id: PeerId, zxid: Zxid| {
            let disk = (id.0 as usize).checked_sub(1).and_then(|i| self.disks.get(i));
            disk.is_some_and(|disk| disk.has_acknowledged(zxid))
        };
        let has = |zxid| self.in_log(history, zxid);
        if self.members.committed(zxid, has, |zxid| self.ledger.has(zxid), holds) {
            return Ok(());
        }
        let holders: Vec<u32> = (1..=self.disks.len() as u32).filter(|&id| holds(PeerId(id), zxid)).collect();
        Err(format!("{holders:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_to(zxid: Zxid) -> History {
        let mut history = History::default();
        for counter in 0..=zxid.counter() {
            assert!(history.append(Zxid::new(zxid.epoch(), counter)));
        }
        history
    }

    /// Found by seed 11774148293873389617: a leader that stood still counted an ack of a server that had lost its disk
    /// since then, and then a bit of the little it had got again.
    #[test]
    fn an_ack_was_true_however_often_its_server_lost_something_since() {
        let acked = Zxid::new(Epoch(9), 3);
        let mut disk = Shadow { history: log_to(acked), current: Epoch(9), ..Shadow::default() };
        disk.lose();
        disk.impair();
        disk.reset();
        assert!(disk.impaired);
        assert_eq!(disk.history, History::default());
        assert!(disk.has_acknowledged(acked));
        assert!(!disk.has_acknowledged(Zxid::new(Epoch(9), 4)));
        assert!(!disk.has_acknowledged(Zxid::new(Epoch(10), 0)));
    }
}
