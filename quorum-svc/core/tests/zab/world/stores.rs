//! The stores of the servers, and their elections.

use super::*;

impl World {
    pub(crate) fn submit(&mut self, id: u32, payload: &str) -> Ticket {
        self.submit_all(id, &[payload])[0]
    }

    /// Submits all payloads in one batch.
    pub(crate) fn submit_all(&mut self, id: u32, payloads: &[&str]) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        let mut requests = Vec::new();
        for payload in payloads {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let payload = Bytes::copy_from_slice(payload.as_bytes());
            self.ghost.submits(PeerId(id), ticket, payload.clone());
            requests.push(Request::Submit { ticket, payload, trace: None });
            tickets.push(ticket);
        }
        self.input(id, Input::Requests(requests));
        tickets
    }

    pub(crate) fn barrier(&mut self, id: u32) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.ghost.asks_barrier(PeerId(id), ticket);
        self.input(id, Input::Requests(vec![Request::Barrier { ticket }]));
        ticket
    }

    pub(crate) fn answer(&self, id: u32, ticket: Ticket) -> Option<Answer> {
        self.ghost.answer(PeerId(id), ticket)
    }

    pub(crate) fn barrier_told(&self, id: u32, ticket: Ticket) -> bool {
        self.nodes[&id].told.contains(&FeedItem::Barrier { ticket })
    }

    pub(crate) fn refused(&self, id: u32, ticket: Ticket) -> Option<Refusal> {
        self.nodes[&id].told.iter().find_map(|item| match item {
            FeedItem::Refused { ticket: t, why } if *t == ticket => Some(*why),
            _ => None,
        })
    }

    /// The store saves a snapshot of its state.
    pub(crate) fn save_snapshot(&mut self, id: u32) {
        let node = self.nodes.get_mut(&id).unwrap();
        let zxid = node.applied;
        let before = node.disk.stored.snapshots.iter().max().copied();
        if before.is_some_and(|s| s >= zxid) || zxid == Zxid::ZERO {
            return;
        }
        node.disk.stored.snapshots.push(zxid);
        let (hold_from, snap_before) = (Zxid::ZERO, Zxid::ZERO);
        self.input(id, Input::SnapshotSaved { zxid, purge_to: before, hold_from, snap_before });
    }

    /// Reports the elected `leader` to these servers, if they are in an election.
    pub(crate) fn elect(&mut self, leader: u32, who: &[u32]) {
        for &id in who {
            if self.up(id) && self.nodes[&id].candidate.is_some() {
                self.nodes.get_mut(&id).unwrap().candidate = None;
                self.input(id, Input::Elected { leader: PeerId(leader) });
            }
        }
    }

    /// All servers in an election elect this leader; then all possible steps happen.
    pub(crate) fn elect_all(&mut self, leader: u32) {
        self.elect(leader, &self.ids());
        self.settle();
    }

    /// A correct election: servers join an established leader, otherwise the best candidate of a quorum
    /// wins.
    pub(crate) fn fair_election(&mut self) {
        let up: Vec<u32> = self.ids().into_iter().filter(|&id| self.up(id)).collect();
        let leading = up.iter().copied().filter(|&id| self.role(id) == Role::Leading);
        let leader = leading.max_by_key(|&id| (self.serving(id), self.status(id).epoch));
        if let Some(leader) = leader {
            return self.elect(leader, &up);
        }
        let looking: BTreeSet<PeerId> =
            up.iter().filter(|&id| self.nodes[id].candidate.is_some()).map(|&id| PeerId(id)).collect();
        // The votes of a quorum as the winner counts it.
        if let Some(best) = self.best(&looking) {
            self.elect(best, &up);
        }
    }

    /// The best candidate among these servers, if any stands.
    pub(crate) fn best(&self, among: &BTreeSet<PeerId>) -> Option<u32> {
        let standing = |p: &&PeerId| {
            let roster = self.roster(p.0);
            roster.is_quorum(among) && self.nodes[&p.0].candidate.flatten().is_some()
        };
        among.iter().filter(standing).max_by_key(|p| (self.nodes[&p.0].candidate, p.0)).map(|p| p.0)
    }

    /// The store applies the committed entries.
    pub(super) fn apply(&mut self, id: u32, upto: Zxid) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(
            upto > node.applied && upto <= node.disk.stored.last(),
            "delivers {upto} before it is durable"
        );
        assert!(node.disk.stored.has(upto));
        let committed = self.nodes[&id].core.as_ref().unwrap().status().committed;
        self.extend_committed(id, committed);
        let node = self.nodes.get_mut(&id).unwrap();
        // The store starts from a snapshot.
        node.applied = node.applied.max(node.base.min(upto));
        assert!(self.ghost.has(node.applied), "I4");
        let fresh = node.log.iter().filter(|e| e.zxid > node.applied && e.zxid <= upto);
        for entry in fresh {
            assert!(self.ghost.has(entry.zxid), "I2: {} is applied, not committed", entry.zxid);
            if let Some(Origin { peer, ticket }) = entry.origin
                && peer == PeerId(id)
            {
                hold(self.ghost.answers_to(peer, ticket, Answer::Applied));
            }
        }
        node.applied = upto;
    }
}
