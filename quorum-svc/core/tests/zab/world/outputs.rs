//! The outputs of a core.

use super::network::Down;
use super::text::up_text;
use super::*;
use crate::disk::Op;

impl World {
    pub(crate) fn input(&mut self, id: u32, input: Input) {
        let now = Now { mono: self.now, wall_ms: self.nodes[&id].wall_ms };
        let node = self.nodes.get_mut(&id).unwrap();
        node.core.as_mut().expect("the server is up").handle(now, input);
        if !self.lazy {
            self.poll(id);
        }
    }

    /// Carries out the outputs of a server.
    pub(crate) fn poll(&mut self, id: u32) {
        if !self.up(id) {
            return;
        }
        while let Some(output) = self.nodes.get_mut(&id).unwrap().core.as_mut().unwrap().poll_output() {
            self.carry_out(id, output);
        }
        self.check(id);
    }

    fn carry_out(&mut self, id: u32, output: Output) {
        match output {
            Output::Elect(candidate) => self.on_elect(id, candidate),
            Output::Settled { leader, epoch } => self.on_settled(id, leader, epoch),
            Output::Connect { leader } => self.node(id).dials.push(leader),
            Output::Disconnect { conn, .. } => {
                if let Some(link) = self.links.get_mut(&conn) {
                    if link.learner == id {
                        link.learner_open = false;
                    } else {
                        link.leader_open = false;
                    }
                }
                self.drop_closed(conn);
            }
            Output::ToLeader { conn, message } => self.send_up(id, conn, message),
            Output::ToLearner { conn, message } => {
                if let ToLearner::LeaderInfo { epoch, .. } = message {
                    assert!(epoch <= self.node(id).disk.stored.accepted, "I9: proposed before it is durable");
                }
                self.send_down(id, conn, Down::Message(message));
            }
            Output::Replicate { conn, after, upto, commit } => {
                self.replicate(id, conn, (after, upto), commit);
            }
            Output::SendSnapshot { conn, zxid, roster } => {
                let sound = self.node(id).disk.stored.snapshots.contains(&zxid) && self.ghost.has(zxid);
                assert!(sound, "a snapshot of {zxid}");
                self.send_down(id, conn, Down::Snapshot(zxid, roster));
            }
            Output::Append(entries) => self.append(id, entries),
            Output::PersistEpochs { accepted, current, damage, ensemble, committed, last_stamp } => {
                let epochs = Op::Epochs { accepted, current, damage, ensemble, committed, last_stamp };
                self.node(id).disk.queue.push_back(epochs);
            }
            Output::Truncate { to } => {
                let node = self.node(id);
                node.log.retain(|e| e.zxid <= to);
                node.disk.queue.push_back(Op::Truncate(to));
            }
            Output::InstallSnapshot { zxid, level, roster } => {
                let node = self.node(id);
                node.log.clear();
                node.base = zxid;
                node.disk.queue.push_back(Op::Install(zxid, level, roster));
            }
            Output::Purge { upto } => self.node(id).disk.queue.push_back(Op::Purge(upto)),
            Output::Committed { upto } => self.apply(id, upto),
            Output::Sign(sign) => self.node(id).signs.push(sign),
            Output::Tell(item) => self.tell(id, item),
            Output::LevelSet { ticket, result } => {
                let again = self.node(id).levels_set.insert(ticket, result);
                assert_eq!(again, None, "{ticket:?} is answered twice");
            }
            Output::Reconfigured { ticket, result } => {
                let again = self.node(id).reconfigured.insert(ticket, result);
                assert_eq!(again, None, "{ticket:?} is answered twice");
            }
            Output::Left => self.node(id).left = true,
            Output::Fatal(why) => panic!("server {id}: {why}"),
        }
    }

    fn node(&mut self, id: u32) -> &mut Node {
        self.nodes.get_mut(&id).expect("a server")
    }

    fn on_elect(&mut self, id: u32, candidate: Option<Candidate>) {
        let node = self.node(id);
        let stored = &node.disk.stored;
        let idle = node.disk.queue.iter().all(|op| matches!(op, Op::Purge(_)));
        assert!(idle, "an election while the disk is busy");
        let zxid = candidate.map_or(stored.last(), |c| c.zxid);
        assert_eq!(zxid, stored.last(), "2845: stands with what is not durable");
        assert!(!stored.damage.is_some() || candidate.is_none(), "stands with a hole in its log");
        node.candidate = Some(candidate);
    }

    fn on_settled(&mut self, id: u32, leader: PeerId, epoch: Epoch) {
        hold(self.ghost.serves_under(leader, epoch));
        if leader == PeerId(id) {
            let history = self.core(id).history().clone();
            hold(
                self.ghost
                    .established(leader, epoch, |e| history.contains(e.zxid) || e.zxid <= history.base()),
            );
        }
    }

    fn send_up(&mut self, id: u32, conn: Conn, message: ToLeader) {
        let stored = &self.nodes[&id].disk.stored;
        match &message {
            ToLeader::AckEpoch { epoch, history, .. } => {
                assert!(*epoch <= stored.accepted, "I9: promised before it is durable");
                assert_eq!(history.last(), stored.last(), "reported a log that is not durable");
            }
            ToLeader::Ack(zxid) => {
                assert!(*zxid <= stored.last(), "I10: acknowledged {zxid}, durable {}", stored.last());
                assert_eq!(stored.current, stored.accepted, "4643: acknowledged before the epoch");
            }
            _ => {}
        }
        let link = self.links.get_mut(&conn).filter(|l| l.learner_open && l.learner == id && !l.broken);
        if let Some(link) = link {
            self.trace.push((id, link.leader, up_text(&message)));
            link.up.push_back(message);
        }
    }

    fn replicate(&mut self, id: u32, conn: Conn, (after, upto): (Zxid, Zxid), mut commit: Option<Zxid>) {
        let node = &self.nodes[&id];
        if after < node.base {
            // A purge was faster than its report. The shell cannot read that range, and ends the
            // connection.
            if let Some(link) = self.links.get_mut(&conn) {
                link.broken = true;
                link.up.clear();
                link.down.clear();
            }
            return;
        }
        let range: Vec<Entry> =
            node.log.iter().filter(|e| e.zxid > after && e.zxid <= upto).cloned().collect();
        assert_eq!(range.last().map(|e| e.zxid), Some(upto), "replicates what is not there");
        let mut prev = after;
        for chunk in range.chunks(self.batch) {
            let message = ToLearner::Propose { prev, entries: chunk.to_vec(), commit: commit.take() };
            prev = chunk.last().unwrap().zxid;
            self.send_down(id, conn, Down::Message(message));
        }
    }

    fn append(&mut self, id: u32, entries: Vec<Entry>) {
        assert!(!entries.is_empty());
        let builds: Vec<Levels> = self.ids().into_iter().map(|id| self.levels(id)).collect();
        for e in &entries {
            let node = &self.nodes[&id];
            let last = node.log.last().map_or(node.base, |e| e.zxid);
            let first = hold(self.proposals.appends(PeerId(id), last, e));
            if first && e.is_marker() {
                hold(self.ghost.opens(e.zxid.epoch(), PeerId(id)));
            }
            if first {
                let history = self.core(id).history().clone();
                hold(self.members.proposed(e, |zxid| zxid <= history.base() || history.contains(zxid)));
            }
            if let Body::Level(level) = e.body {
                assert!(builds.iter().all(|l| l.contains(level)), "I22: {level} is raised unasked");
            }
            assert!(e.body.roster().is_none_or(|roster| roster.can_be_read()), "{id} cannot read {}", e.zxid);
            self.node(id).log.push(e.clone());
        }
        self.node(id).disk.queue.push_back(Op::Append(entries));
    }

    fn tell(&mut self, id: u32, item: FeedItem) {
        let (peer, applied) = (PeerId(id), self.nodes[&id].applied);
        match &item {
            FeedItem::Refused { ticket, .. } => hold(self.ghost.refuses(peer, *ticket)),
            FeedItem::Lost { ticket } => hold(self.ghost.answers_to(peer, *ticket, Answer::Lost)),
            FeedItem::Barrier { ticket } => hold(self.ghost.barrier_told(peer, *ticket, applied)),
            _ => {}
        }
        self.node(id).told.push(item);
    }
}
