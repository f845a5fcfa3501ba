//! Several servers with their disks and the links between them, moved step by step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use api::peer::Damage;
use api::ports::{Candidate, FeedItem, QuorumStatus, Refusal, Request, Role, Sign};
use api::{
    Body, Ensemble, EnsembleId, Entry, Epoch, Level, LevelRefusal, Levels, Member, Membership, Now, Origin,
    PeerId, Ticket, Time, Zxid,
};
use bytes::Bytes;
use quorum_core::{Config, Conn, Input, Output, ToLeader, ToLearner, Zab};

use crate::disk::{Disk, Op, Stored};
use crate::ghost::{Answer, Ghost, Write};

pub(crate) const INIT_LIMIT: Duration = Duration::from_millis(1000);
pub(crate) const SYNC_LIMIT: Duration = Duration::from_millis(500);
pub(crate) const PING: Duration = Duration::from_millis(100);
pub(crate) const PARK_LIMIT: Duration = Duration::from_millis(3000);

pub(crate) fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

pub(crate) struct Node {
    /// `None` while it is down.
    pub(crate) core: Option<Zab>,
    pub(crate) disk: Disk,
    /// The log as its readers see it, durable or not.
    pub(crate) base: Zxid,
    pub(crate) log: Vec<Entry>,
    /// The last zxid that the store has.
    pub(crate) applied: Zxid,
    /// Set while an election is on; empty if it does not stand.
    pub(crate) candidate: Option<Option<Candidate>>,
    /// It got the request to stop, and has reported that it may.
    pub(crate) leaving: bool,
    pub(crate) left: bool,
    /// Attempts to connect; older ones may still be answered.
    pub(crate) dials: Vec<PeerId>,
    pub(crate) told: Vec<FeedItem>,
    pub(crate) signs: Vec<Sign>,
    /// Answers to requests for another feature level.
    pub(crate) levels_set: BTreeMap<Ticket, Result<Level, LevelRefusal>>,
    pub(crate) wall_ms: i64,
}

/// A way of packets from a leader to a learner.
#[derive(Clone, Debug)]
enum Down {
    Message(ToLearner),
    Snapshot(Zxid),
}

/// A connection; both ends know it by the same number.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) learner: u32,
    pub(crate) leader: u32,
    up: VecDeque<ToLeader>,
    down: VecDeque<Down>,
    learner_open: bool,
    leader_open: bool,
    /// Neither end can say anything more; each will hear of it.
    broken: bool,
}

/// Something that can happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Dial(u32),
    Disk(u32),
    Up(Conn),
    Down(Conn),
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: Time,
    /// The feature levels that servers know, where they are not those of `config`.
    pub(crate) builds: BTreeMap<u32, Levels>,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) links: BTreeMap<Conn, Link>,
    /// Pairs between which no new connection can be made; smaller number first.
    pub(crate) blocked: BTreeSet<(u32, u32)>,
    /// Directions (from, to) in which everything waits.
    pub(crate) held: BTreeSet<(u32, u32)>,
    pub(crate) ghost: Ghost,
    /// Everything that servers sent, in order: from, to, what.
    pub(crate) trace: Vec<(u32, u32, String)>,
    /// Entries in one PROPOSE.
    pub(crate) batch: usize,
    /// Inputs are handed in without taking outputs: larger turns.
    pub(crate) lazy: bool,
    conns: u64,
    tickets: u64,
}

impl World {
    /// Voters 1 to `voters`, then observers; all up, with empty disks.
    pub(crate) fn new(voters: u32, observers: u32) -> World {
        World::with_limit(voters, observers, 8)
    }

    pub(crate) fn with_limit(voters: u32, observers: u32, requests_max: usize) -> World {
        let weights: Vec<Option<u32>> = (0..voters + observers).map(|i| (i < voters).then_some(1)).collect();
        World::build(&weights, requests_max)
    }

    /// Members 1, 2, ... with these weights; `None` is an observer.
    pub(crate) fn of(weights: &[Option<u32>]) -> World {
        World::build(weights, 8)
    }

    /// From now on commits may wait for proposals for so long. Starts all servers anew.
    pub(crate) fn delay_commits(&mut self, delay: Duration) {
        self.config.commit_delay = delay;
        for id in self.ids() {
            self.crash(id);
            self.restart(id);
        }
    }

    fn build(weights: &[Option<u32>], requests_max: usize) -> World {
        let ids = 1..=u32::try_from(weights.len()).unwrap();
        let members = ids.clone().zip(weights).map(|(id, weight)| {
            let membership =
                weight.map_or(Membership::Observer, |weight| Membership::Voter { weight, group: 0 });
            Member { id: PeerId(id), membership }
        });
        let config = Config {
            me: PeerId(0),
            ensemble: Ensemble::new(members).unwrap(),
            draw: EnsembleId(0),
            init_limit: INIT_LIMIT,
            sync_limit: SYNC_LIMIT,
            ping_interval: PING,
            commit_delay: Duration::ZERO,
            park_limit: PARK_LIMIT,
            requests_max,
            request_bytes_max: 1000,
            levels: Levels::BUILD,
            counter_max: u32::MAX,
        };
        let mut world = World {
            config,
            now: Time(1_000_000_000),
            builds: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            held: BTreeSet::new(),
            ghost: Ghost::default(),
            trace: Vec::new(),
            batch: 100,
            lazy: false,
            conns: 0,
            tickets: 0,
        };
        for id in ids {
            world.start(id, Stored::default(), false);
        }
        world
    }

    // ---- servers ----

    /// The levels that the build of a server knows.
    pub(crate) fn levels(&self, id: u32) -> Levels {
        self.builds.get(&id).copied().unwrap_or(self.config.levels)
    }

    /// Requests another feature level on this server. The answer is in `levels_set`.
    pub(crate) fn set_level(&mut self, id: u32, expected: u32, level: u32) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.input(id, Input::SetLevel { ticket, expected: Level(expected), level: Level(level) });
        ticket
    }

    pub(crate) fn start(&mut self, id: u32, stored: Stored, trust_log: bool) {
        let levels = self.levels(id);
        let config = Config { me: PeerId(id), draw: EnsembleId(id.into()), levels, ..self.config.clone() };
        let core = Zab::new(config, stored.durable(trust_log));
        let wall_ms = self.nodes.get(&id).map_or(1_000_000, |n| n.wall_ms);
        let node = Node {
            core: Some(core),
            base: stored.base,
            log: stored.entries.clone(),
            applied: stored.base,
            disk: Disk { stored, ..Disk::default() },
            candidate: None,
            leaving: false,
            left: false,
            dials: Vec::new(),
            told: Vec::new(),
            signs: Vec::new(),
            levels_set: BTreeMap::new(),
            wall_ms,
        };
        self.nodes.insert(id, node);
        self.poll(id);
    }

    /// Starts a server anew with a log of these (epoch, last counter), as if synchronised with the last of these epochs.
    /// Up to `base` it is committed, and in a snapshot only.
    pub(crate) fn preload(&mut self, id: u32, base: Zxid, spans: &[(u32, u32)]) {
        let mut stored = Stored { base, ensemble: Some(EnsembleId(0)), ..Stored::default() };
        stored.snapshots.extend((base != Zxid::ZERO).then_some(base));
        stored.level = (base != Zxid::ZERO).then_some(Level::FIRST);
        for &(epoch, last) in spans {
            for counter in 0..=last {
                let mut entry = Entry::marker(Epoch(epoch), Level::FIRST, 0);
                if counter > 0 {
                    entry.zxid = z(epoch, counter);
                    entry.body = Body::Store(Bytes::from(format!("{epoch}/{counter}")));
                }
                self.ghost.propose(&entry);
                if entry.zxid > base {
                    stored.entries.push(entry);
                } else if entry.zxid > self.ghost.last() {
                    self.ghost.commit(&entry);
                }
            }
        }
        stored.current = stored.last().epoch();
        stored.accepted = stored.current;
        self.start(id, stored, false);
    }

    /// Starts a server anew as if it had promised this epoch.
    pub(crate) fn promise(&mut self, id: u32, epoch: u32) {
        let mut stored = self.nodes[&id].disk.stored.clone();
        stored.accepted = Epoch(epoch);
        self.start(id, stored, false);
    }

    pub(crate) fn crash(&mut self, id: u32) {
        self.crash_with(id, 0, 0);
    }

    /// A crash that `ops` queued operations and `entries` of the next append survive.
    pub(crate) fn crash_with(&mut self, id: u32, ops: usize, entries: usize) {
        if self.up(id) {
            self.poll(id);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        node.core = None;
        node.disk.crash(ops, entries);
        node.candidate = None;
        node.dials.clear();
        self.ghost.died(id);
        for link in self.links.values_mut() {
            link.learner_open &= link.learner != id;
            link.leader_open &= link.leader != id;
        }
    }

    pub(crate) fn restart(&mut self, id: u32) {
        self.restart_with(id, false);
    }

    pub(crate) fn restart_with(&mut self, id: u32, trust_log: bool) {
        assert!(!self.up(id));
        let stored = self.nodes[&id].disk.stored.clone();
        self.start(id, stored, trust_log);
    }

    pub(crate) fn leave(&mut self, id: u32) {
        self.nodes.get_mut(&id).unwrap().leaving = true;
        self.input(id, Input::Leave);
    }

    /// A server that is down loses everything after this zxid, and will know it. It continues from its newest
    /// snapshot if that is better.
    pub(crate) fn damage(&mut self, id: u32, keep: Zxid) {
        assert!(!self.up(id));
        let stored = &mut self.nodes.get_mut(&id).unwrap().disk.stored;
        stored.entries.retain(|e| e.zxid <= keep);
        stored.damage = stored.damage.max(Damage::Log);
        let newest = stored.snapshots.iter().copied().filter(|&s| self.ghost.has(s)).max();
        if let Some(newest) = newest.filter(|&s| s > stored.last()) {
            stored.base = newest;
            stored.entries.clear();
        }
    }

    /// The disk of a server as it is now.
    pub(crate) fn copy(&self, id: u32) -> Stored {
        self.nodes[&id].disk.stored.clone()
    }

    /// A server that is down gets a copy of its disk back that was made before; the others tell it when it starts.
    pub(crate) fn put_back(&mut self, id: u32, copy: Stored) {
        assert!(!self.up(id));
        self.nodes.get_mut(&id).unwrap().disk.stored = copy;
        self.restart(id);
        self.input(id, Input::RolledBack { note: true });
    }

    /// A server that is down gets an empty disk.
    pub(crate) fn wipe(&mut self, id: u32) {
        assert!(!self.up(id));
        self.nodes.get_mut(&id).unwrap().disk.stored = Stored::default();
    }

    /// Whether the log of this server can be damaged: the others, without it, are a quorum of servers that
    /// have never lost anything, and its log has more than the markers of a first start. Such a log may come
    /// from a failed first start; once damaged, it cannot be distinguished from another ensemble's, and the
    /// operator has to empty the directory.
    pub(crate) fn can_spare(&self, id: u32) -> bool {
        let stored = &self.nodes[&id].disk.stored;
        if stored.ensemble.is_some() && stored.history().is_blank() {
            return false;
        }
        let sound = |&(&other, n): &(&u32, &Node)| {
            other != id && !n.disk.stored.damage.is_some() && n.disk.stored.current > Epoch(0)
        };
        self.config.ensemble.is_quorum(&self.nodes.iter().filter(sound).map(|(&id, _)| PeerId(id)).collect())
    }

    pub(crate) fn up(&self, id: u32) -> bool {
        self.nodes[&id].core.is_some()
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn core(&self, id: u32) -> &Zab {
        self.nodes[&id].core.as_ref().expect("the server is up")
    }

    pub(crate) fn status(&self, id: u32) -> QuorumStatus {
        self.core(id).status()
    }

    pub(crate) fn serving(&self, id: u32) -> bool {
        self.up(id) && self.status(id).serving
    }

    pub(crate) fn role(&self, id: u32) -> Role {
        self.status(id).role
    }

    /// All zxids in the log of a server, after its base.
    pub(crate) fn log(&self, id: u32) -> Vec<Zxid> {
        self.nodes[&id].log.iter().map(|e| e.zxid).collect()
    }

    /// Payloads that are committed, in order.
    pub(crate) fn committed(&self) -> Vec<String> {
        let writes = self.ghost.committed.iter().filter_map(|e| e.payload());
        writes.map(|payload| String::from_utf8(payload.to_vec()).unwrap()).collect()
    }

    // ---- the store's side ----

    pub(crate) fn submit(&mut self, id: u32, payload: &str) -> Ticket {
        self.submit_all(id, &[payload])[0]
    }

    /// In one batch.
    pub(crate) fn submit_all(&mut self, id: u32, payloads: &[&str]) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        let mut requests = Vec::new();
        for payload in payloads {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let write =
                Write { payload: payload.as_bytes().to_vec(), committed: None, answer: None, gone: false };
            self.ghost.writes.insert((PeerId(id), ticket), write);
            requests.push(Request::Submit {
                ticket,
                payload: Bytes::copy_from_slice(payload.as_bytes()),
                trace: None,
            });
            tickets.push(ticket);
        }
        self.input(id, Input::Requests(requests));
        tickets
    }

    pub(crate) fn barrier(&mut self, id: u32) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.ghost.barriers.insert((id, ticket), self.ghost.last());
        self.input(id, Input::Requests(vec![Request::Barrier { ticket }]));
        ticket
    }

    pub(crate) fn answer(&self, id: u32, ticket: Ticket) -> Option<Answer> {
        self.ghost.writes[&(PeerId(id), ticket)].answer
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

    /// The store saves a snapshot of what it has.
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

    // ---- elections ----

    /// These servers hear that `leader` was elected, if they are in an election.
    pub(crate) fn elect(&mut self, leader: u32, who: &[u32]) {
        for &id in who {
            if self.up(id) && self.nodes[&id].candidate.is_some() {
                self.nodes.get_mut(&id).unwrap().candidate = None;
                self.input(id, Input::Elected { leader: PeerId(leader) });
            }
        }
    }

    /// Every looking server elects this leader; then all possible steps happen.
    pub(crate) fn elect_all(&mut self, leader: u32) {
        self.elect(leader, &self.ids());
        self.settle();
    }

    /// An election as it should go: an established leader is joined, otherwise the best of a quorum wins.
    pub(crate) fn fair_election(&mut self) {
        let up: Vec<u32> = self.ids().into_iter().filter(|&id| self.up(id)).collect();
        let leading = up.iter().copied().filter(|&id| self.role(id) == Role::Leading);
        let leader = leading.max_by_key(|&id| (self.serving(id), self.status(id).epoch));
        if let Some(leader) = leader {
            return self.elect(leader, &up);
        }
        let looking: BTreeSet<PeerId> =
            up.iter().filter(|&id| self.nodes[id].candidate.is_some()).map(|&id| PeerId(id)).collect();
        if self.config.ensemble.is_quorum(&looking)
            && let Some(best) = self.best(&looking)
        {
            self.elect(best, &up);
        }
    }

    /// The best candidate among these, if any stands.
    pub(crate) fn best(&self, among: &BTreeSet<PeerId>) -> Option<u32> {
        let standing = |p: &&PeerId| {
            self.config.ensemble.weight(**p) > 0 && self.nodes[&p.0].candidate.flatten().is_some()
        };
        among.iter().filter(standing).max_by_key(|p| (self.nodes[&p.0].candidate, p.0)).map(|p| p.0)
    }

    // ---- links ----

    pub(crate) fn block(&mut self, a: u32, b: u32) {
        self.blocked.insert((a.min(b), a.max(b)));
        self.break_links(a, b);
    }

    pub(crate) fn unblock(&mut self, a: u32, b: u32) {
        self.blocked.remove(&(a.min(b), a.max(b)));
    }

    /// Breaks the connections of two servers; messages under way are lost.
    pub(crate) fn break_links(&mut self, a: u32, b: u32) {
        let between: Vec<Conn> = self
            .links
            .iter()
            .filter(|(_, l)| (l.learner, l.leader) == (a, b) || (l.learner, l.leader) == (b, a))
            .map(|(&conn, _)| conn)
            .collect();
        between.into_iter().for_each(|conn| self.break_link(conn));
    }

    pub(crate) fn break_link(&mut self, conn: Conn) {
        // The end of one connection may have ended another.
        let Some(link) = self.links.remove(&conn) else { return };
        for (open, id) in [(link.learner_open, link.learner), (link.leader_open, link.leader)] {
            if open && self.up(id) {
                self.input(id, Input::Disconnected { conn });
            }
        }
    }

    /// Holds all messages from one to the other.
    pub(crate) fn hold(&mut self, from: u32, to: u32) {
        self.held.insert((from, to));
    }

    pub(crate) fn release(&mut self, from: u32, to: u32) {
        self.held.remove(&(from, to));
    }

    pub(crate) fn link(&self, learner: u32, leader: u32) -> Conn {
        let mut found = self.links.iter().rev().filter(|(_, l)| (l.learner, l.leader) == (learner, leader));
        *found.next().expect("a link").0
    }

    // ---- steps ----

    /// Everything that could happen now.
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
                        // Nothing of it is read any more.
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
                    Some(Down::Snapshot(zxid)) if open => {
                        self.input(to, Input::SnapshotProgress { conn });
                        // Complete and durable; only then the core hears of it.
                        self.nodes.get_mut(&to).unwrap().disk.stored.snapshots.push(zxid);
                        let level = self.ghost.level_at(zxid);
                        let message = ToLearner::Snap { zxid, level };
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

    fn drop_closed(&mut self, conn: Conn) {
        if self.links.get(&conn).is_some_and(|l| !l.learner_open && !l.leader_open) {
            self.links.remove(&conn);
        }
    }

    /// Everything that can happen without time passing happens.
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

    /// Sets the clock to `at`, if it is later, and wakes every server whose time-out is due.
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

    // ---- a server ----

    pub(crate) fn input(&mut self, id: u32, input: Input) {
        let now = Now { mono: self.now, wall_ms: self.nodes[&id].wall_ms };
        let node = self.nodes.get_mut(&id).unwrap();
        node.core.as_mut().expect("the server is up").handle(now, input);
        if !self.lazy {
            self.poll(id);
        }
    }

    /// Carries out what a server wants done.
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
        let members: Vec<Levels> = self.ids().into_iter().map(|id| self.levels(id)).collect();
        let node = self.nodes.get_mut(&id).unwrap();
        let stored = &node.disk.stored;
        match output {
            Output::Elect(candidate) => {
                let idle = node.disk.queue.iter().all(|op| matches!(op, Op::Purge(_)));
                assert!(idle, "an election while the disk is busy");
                let zxid = candidate.map_or(stored.last(), |c| c.zxid);
                assert_eq!(zxid, stored.last(), "2845: stands with what is not durable");
                assert!(!stored.damage.is_some() || candidate.is_none(), "stands with a hole in its log");
                node.candidate = Some(candidate);
            }
            Output::Settled { leader, epoch } => {
                self.ghost.settled(epoch, leader.0);
                if leader == PeerId(id) {
                    let last = self.ghost.last();
                    assert!(self.core(id).history().contains(last), "I12: leader {id} lacks {last}");
                }
            }
            Output::Connect { leader } => node.dials.push(leader),
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
            Output::ToLeader { conn, message } => {
                match &message {
                    ToLeader::AckEpoch { epoch, history, .. } => {
                        assert!(*epoch <= stored.accepted, "I9: promised before it is durable");
                        assert_eq!(history.last(), stored.last(), "reported a log that is not durable");
                    }
                    ToLeader::Ack(zxid) => {
                        assert!(
                            *zxid <= stored.last(),
                            "I10: acknowledged {zxid}, durable {}",
                            stored.last()
                        );
                        assert_eq!(stored.current, stored.accepted, "4643: acknowledged before the epoch");
                    }
                    _ => {}
                }
                let link =
                    self.links.get_mut(&conn).filter(|l| l.learner_open && l.learner == id && !l.broken);
                if let Some(link) = link {
                    self.trace.push((id, link.leader, up_text(&message)));
                    link.up.push_back(message);
                }
            }
            Output::ToLearner { conn, message } => {
                if let ToLearner::LeaderInfo { epoch, .. } = message {
                    assert!(epoch <= stored.accepted, "I9: proposed before it is durable");
                }
                self.send_down(id, conn, Down::Message(message));
            }
            Output::Replicate { conn, after, upto, mut commit } => {
                if after < node.base {
                    // A purge was faster than its report. The shell cannot read that range any more, and ends
                    // the connection.
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
            Output::SendSnapshot { conn, zxid } => {
                assert!(stored.snapshots.contains(&zxid) && self.ghost.has(zxid), "a snapshot of {zxid}");
                self.send_down(id, conn, Down::Snapshot(zxid));
            }
            Output::Append(entries) => {
                assert!(!entries.is_empty());
                for e in &entries {
                    let last = node.log.last().map_or(node.base, |e| e.zxid);
                    assert!(e.zxid.follows(last), "I14: {} behind {last} on server {id}", e.zxid);
                    self.ghost.propose(e);
                    if let Body::Level(level) = e.body {
                        assert!(members.iter().all(|l| l.contains(level)), "I22: {level} is raised unasked");
                    }
                    node.log.push(e.clone());
                }
                node.disk.queue.push_back(Op::Append(entries));
            }
            Output::PersistEpochs { accepted, current, damage, ensemble, committed, last_stamp } => {
                let epochs = Op::Epochs { accepted, current, damage, ensemble, committed, last_stamp };
                node.disk.queue.push_back(epochs);
            }
            Output::Truncate { to } => {
                node.log.retain(|e| e.zxid <= to);
                node.disk.queue.push_back(Op::Truncate(to));
            }
            Output::InstallSnapshot { zxid, level } => {
                node.log.clear();
                node.base = zxid;
                node.disk.queue.push_back(Op::Install(zxid, level));
            }
            Output::Purge { upto } => node.disk.queue.push_back(Op::Purge(upto)),
            Output::Committed { upto } => self.apply(id, upto),
            Output::Sign(sign) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.signs.push(sign);
                }
            }
            Output::Tell(item) => {
                match &item {
                    FeedItem::Refused { ticket, why } => {
                        let answer = Answer::Refused(*why);
                        match self.ghost.barriers.remove(&(id, *ticket)) {
                            Some(_) => {}
                            None => self.ghost.answer(PeerId(id), *ticket, answer),
                        }
                    }
                    FeedItem::Lost { ticket } => self.ghost.answer(PeerId(id), *ticket, Answer::Lost),
                    FeedItem::Barrier { ticket } => {
                        let asked = self.ghost.barriers.remove(&(id, *ticket)).expect("an open barrier");
                        assert!(node.applied >= asked, "C9: barrier at {}, committed {asked}", node.applied);
                    }
                    _ => {}
                }
                self.nodes.get_mut(&id).unwrap().told.push(item);
            }
            Output::LevelSet { ticket, result } => {
                let again = node.levels_set.insert(ticket, result);
                assert_eq!(again, None, "{ticket:?} is answered twice");
            }
            Output::Left => node.left = true,
            Output::Fatal(why) => panic!("server {id}: {why}"),
        }
    }

    fn send_down(&mut self, id: u32, conn: Conn, down: Down) {
        if let Some(link) = self.links.get_mut(&conn).filter(|l| l.leader_open && l.leader == id && !l.broken)
        {
            self.trace.push((id, link.learner, down_text(&down)));
            link.down.push_back(down);
        }
    }

    /// The store takes what is committed.
    fn apply(&mut self, id: u32, upto: Zxid) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(
            upto > node.applied && upto <= node.disk.stored.last(),
            "delivers {upto} before it is durable"
        );
        assert!(node.disk.stored.has(upto));
        let committed = self.nodes[&id].core.as_ref().unwrap().status().committed;
        self.extend_committed(id, committed);
        let node = self.nodes.get_mut(&id).unwrap();
        // After a snapshot the store starts from it.
        node.applied = node.applied.max(node.base.min(upto));
        assert!(self.ghost.has(node.applied), "I4");
        let fresh = node.log.iter().filter(|e| e.zxid > node.applied && e.zxid <= upto);
        for entry in fresh {
            assert!(self.ghost.has(entry.zxid), "I2: {} is applied, not committed", entry.zxid);
            if let Some(Origin { peer, ticket }) = entry.origin
                && peer == PeerId(id)
                && !self.ghost.writes[&(peer, ticket)].gone
            {
                self.ghost.answer(peer, ticket, Answer::Applied);
            }
        }
        node.applied = upto;
    }

    // ---- invariants ----

    fn check(&mut self, id: u32) {
        let node = &self.nodes[&id];
        let core = node.core.as_ref().unwrap();
        let last = node.log.last().map_or(node.base, |e| e.zxid);
        assert_eq!(core.history().last(), last, "core and log of server {id} part");
        let status = core.status();
        assert!(node.applied <= status.committed && status.committed <= last, "applied <= committed <= last");
        self.extend_committed(id, status.committed);
    }

    /// The first server that knows of a commit adds it to C.
    fn extend_committed(&mut self, id: u32, committed: Zxid) {
        let known = self.ghost.last();
        if committed <= known {
            assert!(self.ghost.has(committed), "I2: {committed} on server {id} is not in C");
            return;
        }
        let node = &self.nodes[&id];
        let epoch = self.ghost.leaders.keys().last().copied().unwrap_or_default();
        assert!(committed.epoch() >= epoch, "I8: {committed} is committed in the reign of epoch {epoch}");
        assert!(known >= node.base, "server {id} has purged entries that no server knew to be committed");
        let fresh: Vec<Entry> =
            node.log.iter().filter(|e| e.zxid > known && e.zxid <= committed).cloned().collect();
        let holders: BTreeSet<PeerId> = self
            .nodes
            .iter()
            .map(|(id, n)| (id, &n.disk.stored))
            // With the entry, but without the epoch, it might lose an election to a server that lacks the
            // entry.
            .filter(|(_, s)| s.has(committed) && s.current >= committed.epoch() && !s.damage.is_some())
            .map(|(&id, _)| PeerId(id))
            .collect();
        assert!(self.config.ensemble.is_quorum(&holders), "I11: only {holders:?} have {committed}");
        for entry in fresh {
            self.ghost.commit(&entry);
        }
        assert_eq!(self.ghost.last(), committed, "server {id} reports it, its log does not have it");
    }

    /// How much of C a disk has.
    fn committed_on_disk(&self, id: u32) -> usize {
        let stored = &self.nodes[&id].disk.stored;
        self.ghost.committed.partition_point(|e| stored.has(e.zxid))
    }
}

fn up_text(message: &ToLeader) -> String {
    match message {
        ToLeader::LearnerInfo { accepted_epoch, .. } => format!("LEARNERINFO {accepted_epoch}"),
        ToLeader::AckEpoch { epoch, history, counts, .. } => {
            format!("ACKEPOCH {epoch} {}{}", history.last(), if *counts { "" } else { " again" })
        }
        ToLeader::Ack(zxid) => format!("ACK {zxid}"),
        ToLeader::Forward(batch) => format!("FORWARD {}", batch.len()),
        ToLeader::Pong { .. } => "PONG".into(),
        ToLeader::Barrier { .. } => "BARRIER".into(),
        ToLeader::Report(_) => "REPORT".into(),
        ToLeader::Disk(room) => format!("DISK {room:?}"),
        ToLeader::SetLevel { expected, level, .. } => format!("LEVEL {expected} to {level}"),
    }
}

fn down_text(down: &Down) -> String {
    match down {
        Down::Snapshot(zxid) => format!("SNAP {zxid}"),
        Down::Message(message) => match message {
            ToLearner::LeaderInfo { epoch, .. } => format!("LEADERINFO {epoch}"),
            ToLearner::Diff { after } => format!("DIFF {after}"),
            ToLearner::Trunc { to } => format!("TRUNC {to}"),
            ToLearner::Snap { zxid, .. } => format!("SNAP {zxid}"),
            ToLearner::Propose { entries, commit, .. } => {
                let zxids: Vec<String> = entries.iter().map(|e| e.zxid.to_string()).collect();
                let commit = commit.map(|zxid| format!(", COMMIT {zxid}")).unwrap_or_default();
                format!("PROPOSE {}{commit}", zxids.join(" "))
            }
            ToLearner::NewLeader { target, .. } => format!("NEWLEADER {target}"),
            ToLearner::UpToDate { commit } => format!("UPTODATE {commit}"),
            ToLearner::Commit(zxid) => format!("COMMIT {zxid}"),
            ToLearner::Ping { .. } => "PING".into(),
            ToLearner::Barrier { zxid, .. } => format!("BARRIER {zxid}"),
            ToLearner::Refused { .. } => "REFUSED".into(),
            ToLearner::Room(room) => format!("ROOM {room:?}"),
            ToLearner::LevelSet { result, .. } => format!("LEVEL {result:?}"),
            ToLearner::Confirm(_) => "CONFIRM".into(),
        },
    }
}
