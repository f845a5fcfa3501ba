//! Random schedules of three lagging nodes, and sessions that write one znode and read it at all
//! levels. In any order of events, a linearizable read sees every write that was acknowledged before
//! the read. A session sees its own earlier writes and no later ones, and it never goes back.

use api::chance::Chance;

use super::*;

const NODES: u64 = 3;
/// Number of sessions of each node.
const SESSIONS: u64 = 3;

/// The requests of a session in order.
struct Asked {
    op: Op,
    /// The newest write that was acknowledged to any session before this request.
    told: Zxid,
    /// The node's applied zxid at the time of the answer, and the zxid of the seen write, or of the
    /// write itself.
    answer: Option<(Zxid, Zxid)>,
}

#[derive(Default)]
struct Client {
    asked: Vec<Asked>,
    writes: u64,
}

/// A barrier in the quorum, and the commit point of its confirmation.
struct Barrier {
    ticket: Ticket,
    confirmed: Option<Zxid>,
}

struct World {
    chance: Chance,
    nodes: Vec<Node>,
    log: Log,
    barriers: Vec<Vec<Barrier>>,
    clients: BTreeMap<(usize, u64), Client>,
    told: Zxid,
    barriers_asked: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut nodes: Vec<Node> = (1..=NODES).map(|id| Node::serving(id as u32, Role::Following)).collect();
        let mut log = Log::default();
        nodes[0].input(call(99, create("/r")));
        log.round(&mut nodes[0]);
        let mut clients = BTreeMap::new();
        for (i, node) in nodes.iter_mut().enumerate() {
            log.feed(node);
            for conn in 1..=SESSIONS {
                node.open(conn);
                log.round(node);
                clients.insert((i, conn), Client::default());
            }
            node.sent.clear();
        }
        let barriers = nodes.iter().map(|_| Vec::new()).collect();
        World {
            chance: Chance::new(seed),
            nodes,
            log,
            barriers,
            clients,
            told: Zxid::ZERO,
            barriers_asked: 0,
        }
    }

    fn committed(&self) -> Zxid {
        z(self.log.entries.len() as u32)
    }

    fn step(&mut self) {
        let node = self.chance.below(NODES) as usize;
        match self.chance.below(10) {
            0..4 => self.ask(node),
            4..6 => self.commit(node),
            6 => self.confirm(node),
            _ => self.feed(node),
        }
    }

    /// A client sends a few requests in one message.
    fn ask(&mut self, node: usize) {
        let conn = 1 + self.chance.below(SESSIONS);
        let ops: Vec<Op> = (0..=self.chance.below(4)).map(|_| self.op()).collect();
        let Some(client) = self.clients.get_mut(&(node, conn)) else { panic!("no such client") };
        let first = client.writes + 1;
        client.writes += ops.iter().filter(|op| matches!(op, Op::Write(_))).count() as u64;
        let told = self.told;
        client.asked.extend(ops.iter().map(|op| Asked { op: op.clone(), told, answer: None }));
        self.nodes[node].ask(conn, first, ops);
        self.took(node);
    }

    fn op(&mut self) -> Op {
        let read = |level| Op::Read(Read::Get { path: path("/r") }, level);
        match self.chance.below(6) {
            0 | 1 => set("/r", "x"),
            2 => read(ReadLevel::Local),
            3 => read(ReadLevel::AtLeast(z(self.chance.below(self.log.entries.len() as u64 + 1) as u32))),
            4 => Op::Sync,
            _ => read(ReadLevel::Linearizable),
        }
    }

    /// The quorum accepts a node's first request.
    fn commit(&mut self, node: usize) {
        if self.nodes[node].asks.is_empty() {
            return;
        }
        match self.nodes[node].asks.remove(0) {
            Ask::Submit { ticket, command, .. } => {
                let origin = Some(Origin { peer: self.nodes[node].server.config.me, ticket });
                let zxid = self.committed().next().unwrap();
                self.log.entries.push(Committed {
                    zxid,
                    time_ms: 0,
                    origin,
                    level: None,
                    command: Some(command),
                });
            }
            Ask::Barrier { ticket } => {
                self.barriers_asked += 1;
                self.barriers[node].push(Barrier { ticket, confirmed: None });
                assert_eq!(self.barriers[node].len(), 1, "one under way at a time");
            }
            Ask::Report(_) | Ask::Confirm { .. } => {}
        }
    }

    fn confirm(&mut self, node: usize) {
        let committed = self.committed();
        for barrier in &mut self.barriers[node] {
            barrier.confirmed.get_or_insert(committed);
        }
    }

    /// A node receives some of its missing entries, and then the barriers behind them.
    fn feed(&mut self, node: usize) {
        let applied = self.nodes[node].server.state().applied();
        let more = 1 + self.chance.below(3) as usize;
        let entries: Vec<_> =
            self.log.entries.iter().skip(applied.counter() as usize).take(more).cloned().collect();
        self.nodes[node].input(Input::Feed(Feed::Committed(entries)));
        let applied = self.nodes[node].server.state().applied();
        let reached: Vec<Ticket> = self.barriers[node]
            .extract_if(.., |b| b.confirmed.is_some_and(|zxid| zxid <= applied))
            .map(|b| b.ticket)
            .collect();
        for ticket in reached {
            self.nodes[node].input(Input::Feed(Feed::Barrier(ticket)));
        }
        self.took(node);
    }

    /// Clients take their answers.
    fn took(&mut self, node: usize) {
        assert!(self.nodes[node].closed.is_empty() && self.nodes[node].stopped.is_empty());
        for (ConnId(conn), item) in std::mem::take(&mut self.nodes[node].sent) {
            let Item::Response(Response { zxid, result, .. }) = item else { continue };
            let Some(client) = self.clients.get_mut(&(node, conn)) else { panic!("no such client") };
            let asked = client.asked.iter_mut().find(|a| a.answer.is_none()).unwrap();
            let seen = match result {
                Ok(Outcome::Write(WriteOutcome::Set { stat })) => {
                    assert_eq!(zxid, stat.mzxid);
                    self.told = self.told.max(zxid);
                    stat.mzxid
                }
                Ok(Outcome::Read(ReadOutcome::Data { stat, .. })) => stat.mzxid,
                Ok(Outcome::Sync) => zxid,
                other => panic!("{:?} got {other:?}", asked.op),
            };
            asked.answer = Some((zxid, seen));
        }
    }

    /// Delivers everything in flight.
    fn settle(&mut self) {
        for _ in 0..2000 {
            for node in 0..self.nodes.len() {
                self.commit(node);
                self.confirm(node);
                self.feed(node);
            }
        }
    }

    fn check(&self) {
        for client in self.clients.values() {
            let mut last = Zxid::ZERO;
            for (i, asked) in client.asked.iter().enumerate() {
                let Some((zxid, seen)) = asked.answer else { panic!("{:?} was never answered", asked.op) };
                // A write's answer names its own zxid, which may be behind the applied entries of
                // others.
                let Op::Read(_, level) = &asked.op else { continue };
                assert!(zxid >= last, "the session went back from {last} to {zxid}");
                last = zxid;
                match level {
                    ReadLevel::Stale | ReadLevel::Local => {}
                    ReadLevel::AtLeast(least) => assert!(zxid >= *least),
                    ReadLevel::Linearizable => {
                        assert!(
                            seen >= asked.told,
                            "read {seen}, but {} was acknowledged before",
                            asked.told
                        );
                    }
                }
                let is_write = |a: &&Asked| matches!(a.op, Op::Write(_));
                let place = |a: &Asked| a.answer.map(|(zxid, _)| zxid).unwrap_or_default();
                let (before, behind) = client.asked.split_at(i);
                assert!(before.iter().filter(is_write).all(|w| place(w) <= seen), "its own earlier write");
                assert!(behind.iter().filter(is_write).all(|w| place(w) > seen), "its own later write");
            }
        }
    }
}

#[test]
fn reads_keep_their_level_and_their_order_on_random_schedules() {
    let (mut waited, mut asked) = (0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.settle();
        world.check();
        let needs = |a: &&Asked| matches!(a.op, Op::Sync | Op::Read(_, ReadLevel::Linearizable));
        waited += world.clients.values().map(|c| c.asked.iter().filter(needs).count()).sum::<usize>();
        asked += world.barriers_asked;
    }
    assert!(waited > 20_000 && asked < waited / 2, "{waited} waited for {asked} barriers");
}
