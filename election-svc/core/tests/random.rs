//! Whole ensembles under random schedules. Each run is a function of its seed, and a failure names the
//! seed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::chance::Chance;
use api::ports::{Candidate, Role};
use api::{Ensemble, Epoch, Member, Membership, PeerId, Time, Zxid};
use election_core::{Config, Election, Input, Notification, Output, Round, Vote};
use invariants::{Quorums, Votes};

/// Servers start at different moments; messages take less than half of the waiting time; nothing breaks.
#[test]
fn on_a_timely_network_every_round_elects_at_most_one_leader_and_no_decision_is_in_vain() {
    for seed in 0..1_000 {
        let mut sim = Sim::new(seed, Network { delay_max_ms: 90, loss_percent: 0 });
        for id in sim.ids() {
            let at = sim.rng.below(1_000);
            sim.schedule(at, Event::Start(id));
        }
        sim.run_ms(4_000);
        sim.assert_agreed();
        let leaders: BTreeSet<(Round, PeerId)> = sim.elected.iter().map(|e| (e.round, e.leader)).collect();
        assert_eq!(leaders.len(), 1, "seed {seed}: {:?}", sim.elected);
    }
}

/// Servers crash and restart, links break and heal, messages are late or lost. Then the faults stop.
#[test]
fn after_any_faults_all_agree_soon() {
    for seed in 0..400 {
        let mut sim = Sim::new(seed, Network { delay_max_ms: 300, loss_percent: 10 });
        for id in sim.ids() {
            sim.schedule(0, Event::Start(id));
        }
        for _ in 0..30 {
            let at = sim.rng.below(15_000);
            let fault = sim.random_fault();
            sim.schedule(at, fault);
        }
        sim.run_ms(15_000);

        sim.network = Network { delay_max_ms: 20, loss_percent: 0 };
        for id in sim.ids() {
            sim.schedule(0, Event::Start(id));
            for other in sim.ids() {
                sim.schedule(0, Event::Heal(id, other));
            }
        }
        sim.run_ms(10_000);
        sim.assert_agreed();
        let elections = sim.elected.len();
        sim.run_ms(10_000);
        assert_eq!(sim.elected.len(), elections, "seed {seed}: agreements are final");
    }
}

/// Maximum delay of a message that arrives, and the share of lost messages.
#[derive(Clone, Copy)]
struct Network {
    delay_max_ms: u64,
    loss_percent: u64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Starts the server if it is down.
    Start(PeerId),
    Crash(PeerId),
    /// Breaks the link between two servers until `Heal`.
    Cut(PeerId, PeerId),
    Heal(PeerId, PeerId),
    /// One end notices that the link with this number is broken.
    Noticed {
        at: PeerId,
        peer: PeerId,
        link: u64,
    },
    Arrives {
        from: PeerId,
        to: PeerId,
        link: u64,
        notification: Notification,
    },
    Timeout(PeerId),
    /// The role of a quorum service: it checks periodically whether its reign is alive, and requests an
    /// election if not.
    Check {
        at: PeerId,
        start: u64,
    },
}

struct Node {
    election: Election,
    /// Distinguishes one incarnation of the server from the next.
    start: u64,
    /// The link to each peer, as known to this server.
    links: BTreeMap<PeerId, u64>,
    /// Checks in a row that found no reign.
    doubts: u32,
    /// The epoch in which this server leads, once a quorum follows it.
    leads: Option<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Elected {
    #[expect(dead_code, reason = "printed when a test fails")]
    node: PeerId,
    leader: PeerId,
    round: Round,
}

struct Sim {
    seed: u64,
    rng: Chance,
    network: Network,
    ensemble: Ensemble,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    /// Numbers events, links and starts.
    last_number: u64,
    nodes: BTreeMap<PeerId, Node>,
    /// The candidate of each server; it survives crashes.
    logs: BTreeMap<PeerId, Candidate>,
    /// The links that carry messages, by their smaller and larger end.
    links: BTreeMap<(PeerId, PeerId), u64>,
    cut: BTreeSet<(PeerId, PeerId)>,
    /// The latest arrival on each link and direction: messages do not overtake each other.
    arrivals: BTreeMap<(u64, PeerId), Time>,
    elected: Vec<Elected>,
    votes: Votes<Vote>,
}

impl Sim {
    fn new(seed: u64, network: Network) -> Sim {
        let mut rng = Chance::new(seed);
        let voters = 1 + rng.below(7) as u32;
        let observers = rng.below(3) as u32;
        let weighted = rng.below(3) == 0;
        let mut members = vec![];
        for id in 1..=voters {
            // The first server can always lead, so a leader is possible.
            let weight = if weighted && id > 1 { rng.below(4) as u32 } else { 1 };
            members.push(Member { id: PeerId(id), membership: Membership::Voter { weight, group: 0 } });
        }
        for id in voters + 1..=voters + observers {
            members.push(Member { id: PeerId(id), membership: Membership::Observer });
        }
        let log =
            |rng: &mut Chance| Candidate { epoch: Epoch(rng.below(2) as u32), zxid: Zxid(rng.below(3)) };
        let logs = members.iter().map(|m| (m.id, log(&mut rng))).collect();
        Sim {
            seed,
            rng,
            network,
            ensemble: Ensemble::new(members).unwrap(),
            now: Time(0),
            events: BTreeMap::new(),
            last_number: 0,
            nodes: BTreeMap::new(),
            logs,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            elected: vec![],
            votes: Votes::default(),
        }
    }

    fn ids(&self) -> Vec<PeerId> {
        self.ensemble.members().map(|(id, _)| id).collect()
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn schedule(&mut self, in_ms: u64, event: Event) {
        self.schedule_at(self.now + Duration::from_millis(in_ms), event);
    }

    fn schedule_at(&mut self, at: Time, event: Event) {
        let number = self.number();
        self.events.insert((at, number), event);
    }

    fn random_fault(&mut self) -> Event {
        let ids = self.ids();
        let mut any = || ids[self.rng.below(ids.len() as u64) as usize];
        let (a, b) = (any(), any());
        match self.rng.below(5) {
            0 => Event::Crash(a),
            1 | 2 => Event::Start(a),
            3 => Event::Cut(a, b),
            _ => Event::Heal(a, b),
        }
    }

    fn run_ms(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.step(event);
        }
        self.now = end;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Start(id) if !self.nodes.contains_key(&id) => self.start(id),
            Event::Crash(id) if self.nodes.remove(&id).is_some() => {
                for peer in self.ids() {
                    self.unlink(id, peer);
                }
            }
            Event::Cut(a, b) if a != b => {
                self.cut.insert(ends(a, b));
                self.unlink(a, b);
            }
            Event::Heal(a, b) => {
                if self.cut.remove(&ends(a, b)) && self.nodes.contains_key(&a) && self.nodes.contains_key(&b)
                {
                    self.link(a, b);
                }
            }
            Event::Noticed { at, peer, link } => {
                if self.nodes.get(&at).is_some_and(|n| n.links.get(&peer) == Some(&link)) {
                    self.nodes.get_mut(&at).unwrap().links.remove(&peer);
                    self.input(at, Input::Disconnected(peer));
                }
            }
            Event::Arrives { from, to, link, notification } => {
                if self.nodes.get(&to).is_some_and(|n| n.links.get(&from) == Some(&link))
                    && self.links.get(&ends(from, to)) == Some(&link)
                {
                    self.input(to, Input::Received { from, notification });
                }
            }
            Event::Timeout(id) => {
                if self.nodes.get(&id).and_then(|n| n.election.next_timeout()).is_some_and(|t| t <= self.now)
                {
                    self.input(id, Input::Timeout);
                }
            }
            Event::Check { at, start } => self.check(at, start),
            Event::Start(_) | Event::Crash(_) | Event::Cut(..) => {}
        }
    }

    fn start(&mut self, id: PeerId) {
        let start = self.number();
        let election = Election::new(Config::new(id, self.ensemble.clone()));
        self.nodes.insert(id, Node { election, start, links: BTreeMap::new(), doubts: 0, leads: None });
        for peer in self.ids() {
            if peer != id && self.nodes.contains_key(&peer) && !self.cut.contains(&ends(id, peer)) {
                self.link(id, peer);
            }
        }
        let votes = self.ensemble.weight(id) > 0;
        self.input(id, Input::Elect(votes.then_some(self.logs[&id])));
        self.schedule(100, Event::Check { at: id, start });
    }

    fn link(&mut self, a: PeerId, b: PeerId) {
        let link = self.number();
        self.links.insert(ends(a, b), link);
        for (me, peer) in [(a, b), (b, a)] {
            self.nodes.get_mut(&me).unwrap().links.insert(peer, link);
        }
        // Both ends know the link before either sends over it.
        self.input(a, Input::Connected(b));
        self.input(b, Input::Connected(a));
    }

    /// Each end notices at its own time; a new link may come first.
    fn unlink(&mut self, a: PeerId, b: PeerId) {
        if let Some(link) = self.links.remove(&ends(a, b)) {
            for (at, peer) in [(a, b), (b, a)] {
                let delay = self.rng.below(500);
                self.schedule(delay, Event::Noticed { at, peer, link });
            }
        }
    }

    fn input(&mut self, id: PeerId, input: Input) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.election.handle(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| node.election.poll_output()).collect();
        if let Some(Notification { vote: Some(vote), round, .. }) = node.election.notification()
            && self.ensemble.is_voter(id)
        {
            self.votes.holds(round.0, vote, id);
        }
        for output in outputs {
            match output {
                Output::Send { to, notification } => self.send(id, to, notification),
                Output::Elected { leader, round } => self.on_elected(Elected { node: id, leader, round }, id),
            }
        }
        if let Some(at) = self.nodes[&id].election.next_timeout() {
            self.schedule_at(at.max(self.now), Event::Timeout(id));
        }
    }

    fn send(&mut self, from: PeerId, to: PeerId, notification: Notification) {
        let link = *self.nodes[&from].links.get(&to).expect("the election speaks over links only");
        if self.rng.below(100) < self.network.loss_percent {
            return;
        }
        let delay = Duration::from_micros(1 + self.rng.below(self.network.delay_max_ms * 1_000));
        let arrival = self.arrivals.entry((link, to)).or_default();
        *arrival = (*arrival).max(self.now + delay);
        let at = *arrival;
        self.schedule_at(at, Event::Arrives { from, to, link, notification });
    }

    /// A leader has the votes of a quorum in one round. The leader of a follower has them too, or has led in
    /// that round.
    fn on_elected(&mut self, elected: Elected, node: PeerId) {
        let vote = self.nodes[&node].election.notification().unwrap().vote.unwrap();
        assert_eq!(vote.leader, elected.leader);
        assert!(self.ensemble.weight(elected.leader) > 0);
        let quorums = Quorums::of(&self.ensemble);
        let verdict = self.votes.elected(node, elected.leader, elected.round.0, vote, &quorums);
        assert_eq!(verdict, Ok(()), "seed {}", self.seed);
        self.elected.push(elected);
    }

    /// Within five checks a leader needs a quorum of followers, and a follower needs a leader that
    /// leads. A leader with a quorum raises the epoch for all of them.
    fn check(&mut self, at: PeerId, start: u64) {
        if self.nodes.get(&at).is_none_or(|n| n.start != start) {
            return;
        }
        self.schedule(100, Event::Check { at, start });
        let said = self.nodes[&at].election.notification();
        let Some(Notification { state, vote: Some(vote), .. }) = said else { return };
        let subjects: BTreeSet<PeerId> = self.ids().into_iter().filter(|&id| self.follows(id, at)).collect();
        let alive = match state {
            Role::Looking => return,
            Role::Leading => self.ensemble.is_quorum(&subjects),
            Role::Following | Role::Observing => {
                self.follows(at, vote.leader) && self.follows(vote.leader, vote.leader)
            }
        };
        let node = self.nodes.get_mut(&at).unwrap();
        node.doubts = if alive { 0 } else { node.doubts + 1 };
        if node.doubts == 5 {
            node.doubts = 0;
            node.leads = None;
            let log = self.logs.get_mut(&at).unwrap();
            log.zxid.0 += self.rng.below(3);
            let candidate = *log;
            let votes = self.ensemble.weight(at) > 0;
            return self.input(at, Input::Elect(votes.then_some(candidate)));
        }
        if alive && state == Role::Leading {
            self.settle(at, &subjects);
        }
    }

    fn follows(&self, id: PeerId, leader: PeerId) -> bool {
        let reachable = id == leader || self.links.contains_key(&ends(id, leader));
        let vote =
            |n: &Node| n.election.notification().filter(|n| n.state != Role::Looking).and_then(|n| n.vote);
        reachable && self.nodes.get(&id).and_then(vote).is_some_and(|v| v.leader == leader)
    }

    /// The first check of a reign opens its epoch, later ones bring late followers into it.
    fn settle(&mut self, leader: PeerId, subjects: &BTreeSet<PeerId>) {
        let next = self.logs.values().map(|c| c.epoch).max().and_then(Epoch::next).unwrap();
        let leads = &mut self.nodes.get_mut(&leader).unwrap().leads;
        let epoch = *leads.get_or_insert(next);
        for &id in subjects {
            self.logs.insert(id, Candidate { epoch, zxid: Zxid::marker(epoch) });
            self.input(id, Input::Settled { leader, epoch });
        }
    }

    /// All servers are up and have the same leader, and that server leads.
    fn assert_agreed(&self) {
        let notifications: BTreeMap<PeerId, Notification> =
            self.nodes.iter().filter_map(|(&id, n)| n.election.notification().map(|n| (id, n))).collect();
        let leaders: BTreeSet<Option<PeerId>> = notifications
            .values()
            .map(|n| n.vote.filter(|_| n.state != Role::Looking).map(|v| v.leader))
            .collect();
        let agreed = notifications.len() == self.ids().len()
            && leaders.len() == 1
            && leaders.first().unwrap().is_some_and(|leader| notifications[&leader].state == Role::Leading);
        assert!(agreed, "seed {}: {notifications:#?}", self.seed);
    }
}

fn ends(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}
