//! Several servers with their disks and links, moved step by step.

mod checks;
mod network;
mod outputs;
mod steps;
mod stores;
mod text;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::peer::Damage;
use api::ports::{Candidate, FeedItem, QuorumStatus, Refusal, Request, Role, Sign};
use api::{
    Body, Ensemble, EnsembleId, Entry, Epoch, Level, LevelRefusal, Levels, Member, Membership, Now, Origin,
    PeerId, Reconfig, ReconfigRefusal, Roster, Ticket, Time, Zxid,
};
use bytes::Bytes;
use quorum_core::{CLOCK_BOUND_MS, Config, Conn, Input, Output, ToLeader, ToLearner, Zab};

use invariants::{Answer, Broken, Ledger, Members, Proposals};

use crate::disk::{Disk, Stored};
use network::Link;
pub(crate) use network::Step;

pub(crate) const INIT_LIMIT: Duration = Duration::from_millis(1000);
pub(crate) const SYNC_LIMIT: Duration = Duration::from_millis(500);
pub(crate) const PING: Duration = Duration::from_millis(100);
pub(crate) const PARK_LIMIT: Duration = Duration::from_millis(3000);

/// Panics if an invariant does not hold.
#[track_caller]
pub(crate) fn hold<T>(verdict: Result<T, Broken>) -> T {
    verdict.unwrap_or_else(|broken| panic!("{broken}"))
}

pub(crate) fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

pub(crate) struct Node {
    /// `None` while it is down.
    pub(crate) core: Option<Zab>,
    pub(crate) disk: Disk,
    /// The log for its readers, durable or not.
    pub(crate) base: Zxid,
    pub(crate) log: Vec<Entry>,
    /// The last zxid that the store has.
    pub(crate) applied: Zxid,
    /// Set during an election; the inner option is empty if the server does not stand.
    pub(crate) candidate: Option<Option<Candidate>>,
    /// The server got the request to stop (`leaving`), and reported that it may (`left`).
    pub(crate) leaving: bool,
    pub(crate) left: bool,
    /// Attempts to connect; older ones may still get an answer.
    pub(crate) dials: Vec<PeerId>,
    pub(crate) told: Vec<FeedItem>,
    pub(crate) signs: Vec<Sign>,
    /// Answers to requests for another feature level.
    pub(crate) levels_set: BTreeMap<Ticket, Result<Level, LevelRefusal>>,
    /// Answers to requests for other members.
    pub(crate) reconfigured: BTreeMap<Ticket, Result<Zxid, ReconfigRefusal>>,
    pub(crate) wall_ms: i64,
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: Time,
    /// The feature levels of servers that differ from `config`.
    pub(crate) builds: BTreeMap<u32, Levels>,
    /// Servers that are not among the members of the first start.
    joiners: BTreeSet<u32>,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) links: BTreeMap<Conn, Link>,
    /// Pairs that cannot connect again; the smaller number first.
    pub(crate) blocked: BTreeSet<(u32, u32)>,
    /// Directions (from, to) in which all messages wait.
    pub(crate) held: BTreeSet<(u32, u32)>,
    pub(crate) ghost: Ledger,
    pub(crate) proposals: Proposals,
    pub(crate) members: Members,
    /// All sent messages in order: from, to, text.
    pub(crate) trace: Vec<(u32, u32, String)>,
    /// Number of entries in one PROPOSE.
    pub(crate) batch: usize,
    /// Inputs go in without collecting outputs: larger turns.
    pub(crate) lazy: bool,
    conns: u64,
    tickets: u64,
}

impl World {
    /// Voters 1 to `voters`, then observers; all are up, with empty disks.
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

    /// Sets the delay of commits that wait for proposals. Restarts all servers.
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
            members: Members::of(&config.ensemble),
            config,
            now: Time(1_000_000_000),
            builds: BTreeMap::new(),
            joiners: BTreeSet::new(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            held: BTreeSet::new(),
            ghost: Ledger::default(),
            proposals: Proposals::default(),
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

    /// The feature levels of a server's build.
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

    /// Starts further servers with empty disks that know the others and themselves as observers.
    pub(crate) fn add(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            self.joiners.insert(id);
            self.start(id, Stored::default(), false);
        }
    }

    /// The members that count for a server.
    pub(crate) fn roster(&self, id: u32) -> &Roster {
        self.core(id).roster()
    }

    /// Requests these voters and observers on this server, as an operator who knows its members. The answer is in
    /// `reconfigured`.
    pub(crate) fn reconfigure(&mut self, id: u32, voters: &[u32], observers: &[u32]) -> Ticket {
        let expected = self.roster(id).newest().version;
        self.reconfigure_from(id, expected, voters, observers, false)
    }

    pub(crate) fn reconfigure_from(
        &mut self,
        id: u32,
        expected: Zxid,
        voters: &[u32],
        observers: &[u32],
        force: bool,
    ) -> Ticket {
        let member = |membership| move |&id: &u32| Member { id: PeerId(id), membership };
        let voters = voters.iter().map(member(Membership::VOTER));
        let all = voters.chain(observers.iter().map(member(Membership::Observer)));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let (ensemble, contacts) = (Ensemble::new(all).unwrap(), BTreeMap::new());
        let reconfig = Reconfig { expected, ensemble, contacts, force };
        self.input(id, Input::Reconfigure { ticket, reconfig });
        ticket
    }

    /// The answer to a request for other members.
    pub(crate) fn reconfigured(&self, id: u32, ticket: Ticket) -> Option<Result<Zxid, ReconfigRefusal>> {
        self.nodes[&id].reconfigured.get(&ticket).cloned()
    }

    pub(crate) fn start(&mut self, id: u32, stored: Stored, trust_log: bool) {
        let levels = self.levels(id);
        let mut config =
            Config { me: PeerId(id), draw: EnsembleId(id.into()), levels, ..self.config.clone() };
        if self.joiners.contains(&id) {
            let all = config.ensemble.members().map(|(id, membership)| Member { id, membership });
            let me = Member { id: PeerId(id), membership: Membership::Observer };
            config.ensemble = Ensemble::new(all.chain([me])).unwrap();
        }
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
            reconfigured: BTreeMap::new(),
            wall_ms,
        };
        self.nodes.insert(id, node);
        self.poll(id);
    }

    /// Restarts a server with a log of these (epoch, last counter), as if synchronised with the last of
    /// these epochs. Entries up to `base` are committed, and exist only in a snapshot.
    pub(crate) fn preload(&mut self, id: u32, base: Zxid, spans: &[(u32, u32)]) {
        let mut stored = Stored { base, ensemble: Some(EnsembleId(0)), ..Stored::default() };
        stored.snapshots.extend((base != Zxid::ZERO).then_some(base));
        stored.level = (base != Zxid::ZERO).then_some(Level::FIRST);
        let mut prev = Zxid::ZERO;
        for &(epoch, last) in spans {
            for counter in 0..=last {
                let mut entry = Entry::marker(Epoch(epoch), Level::FIRST, 0);
                if counter > 0 {
                    entry.zxid = z(epoch, counter);
                    entry.body = Body::Store(Bytes::from(format!("{epoch}/{counter}")));
                }
                hold(self.proposals.appends(PeerId(id), prev, &entry));
                prev = entry.zxid;
                if entry.zxid > base {
                    stored.entries.push(entry);
                } else if entry.zxid > self.ghost.last() {
                    hold(self.ghost.append(entry, CLOCK_BOUND_MS));
                }
            }
        }
        stored.current = stored.last().epoch();
        stored.accepted = stored.current;
        self.start(id, stored, false);
    }

    /// Restarts a server as if it had promised this epoch.
    pub(crate) fn promise(&mut self, id: u32, epoch: u32) {
        let mut stored = self.nodes[&id].disk.stored.clone();
        stored.accepted = Epoch(epoch);
        self.start(id, stored, false);
    }

    pub(crate) fn crash(&mut self, id: u32) {
        self.crash_with(id, 0, 0);
    }

    /// Crashes a server. `ops` queued operations and `entries` of the next append survive.
    pub(crate) fn crash_with(&mut self, id: u32, ops: usize, entries: usize) {
        if self.up(id) {
            self.poll(id);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        node.core = None;
        node.disk.crash(ops, entries);
        node.candidate = None;
        node.dials.clear();
        self.ghost.died(PeerId(id));
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

    /// A server that is down loses everything after this zxid, and will know it. It continues from its
    /// newest snapshot if that is better.
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

    /// A copy of a server's present disk.
    pub(crate) fn copy(&self, id: u32) -> Stored {
        self.nodes[&id].disk.stored.clone()
    }

    /// A server that is down gets an earlier copy of its disk. The others report that when it starts.
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

    /// Whether the log of this server may be damaged. The others must be a quorum of servers without
    /// any loss, and its log must have more than the markers of a first start. A log of markers may
    /// come from a failed first start. Once damaged, it cannot be distinguished from another ensemble's
    /// log, and the operator has to empty the directory.
    pub(crate) fn can_spare(&self, id: u32) -> bool {
        let stored = &self.nodes[&id].disk.stored;
        if stored.ensemble.is_some() && stored.history().is_blank() {
            return false;
        }
        let sound = |&(&other, n): &(&u32, &Node)| {
            other != id && !n.disk.stored.damage.is_some() && n.disk.stored.current > Epoch(0)
        };
        let sound: BTreeSet<PeerId> = self.nodes.iter().filter(sound).map(|(&id, _)| PeerId(id)).collect();
        // By each list that any server may count by.
        let rosters = self.nodes.values().map(|n| n.disk.stored.rosters());
        rosters.into_iter().all(|known| known.all().all(|roster| roster.is_quorum(&sound)))
            && self.config.ensemble.is_quorum(&sound)
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

    /// Committed payloads in order.
    pub(crate) fn committed(&self) -> Vec<String> {
        let writes = self.ghost.entries().iter().filter_map(|e| e.payload());
        writes.map(|payload| String::from_utf8(payload.to_vec()).unwrap()).collect()
    }
}
