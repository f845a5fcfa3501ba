//! The identity of other nodes: connections are greeted and others met, as `quorum-svc` does in `acquaintances.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use api::peer::{Acquaintance, Damage};
use api::{Greeting, PeerId};
use quorum_core::{Conn, Input};
use quorum_shell::{Incoming, Met};

use super::quorum::Happened;
use super::sender::Learner;
use super::{ByLink, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{CONNECT_LIMIT, End, Hello, Kind, LinkId, Packet};

/// How often a new incarnation begins: far more often than in production, where nothing else is as quick either.
const INCARNATION_EVERY: u64 = 5_000_000;
/// As in production.
const FIRST: u64 = 200_000;
const RETRY: [u64; 2] = [500_000, 30_000_000];

pub(crate) struct Acquaintances {
    met: Met,
    /// Peers that were dialled and have not said enough yet: how often this node spoke, and how often it was suspected by then.
    greeting: ByLink<(PeerId, u32, u64)>,
    /// How long to wait before a peer that could not be met is dialled again.
    pauses: BTreeMap<usize, u64>,
    /// The peers to try before the first turn of the quorum.
    pub(super) first: Vec<usize>,
}

impl Acquaintances {
    /// `waits`: the quorum begins when all peers were tried.
    pub(super) fn new(met: Met, peers: impl Iterator<Item = usize>, waits: bool) -> Acquaintances {
        let first = if waits { peers.collect() } else { Vec::new() };
        Acquaintances { met, greeting: ByLink::new(), pauses: BTreeMap::new(), first }
    }
}

impl Node {
    pub(super) fn begin_meetings(&mut self, cx: &mut Context) {
        self.meet_all(cx);
        let at = cx.now + FIRST;
        self.schedule(cx, at, NodeEvent::FirstMeetings);
        let at = cx.now + INCARNATION_EVERY;
        self.schedule(cx, at, NodeEvent::NewIncarnation);
    }

    /// All others are met at once.
    pub(super) fn meet_all(&mut self, cx: &mut Context) {
        for peer in (0..cx.plan.members.len()).filter(|&p| p != self.index) {
            cx.dial(Kind::Meeting, self.end(), End::Node(peer));
        }
    }

    /// The quorum waits no longer.
    pub(super) fn first_meetings_over(&mut self, cx: &mut Context) {
        if let Some(process) = &mut self.up {
            process.acquaintances.first.clear();
            self.wake_quorum(cx);
        }
    }

    fn tried(&mut self, cx: &mut Context, peer: usize) {
        let Some(process) = &mut self.up else { return };
        let first = &mut process.acquaintances.first;
        if !first.is_empty() {
            first.retain(|&p| p != peer);
            if first.is_empty() {
                self.wake_quorum(cx);
            }
        }
    }

    pub(super) fn new_incarnation(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        process.acquaintances.met.grow()?;
        self.meet_all(cx);
        let at = cx.now + INCARNATION_EVERY;
        self.schedule(cx, at, NodeEvent::NewIncarnation);
        Ok(())
    }

    /// What this node says of itself before anything else.
    pub(crate) fn greeting(&self) -> Option<Rc<Greeting>> {
        let process = self.up.as_ref()?;
        Some(Rc::new(Greeting {
            name: "sim".to_owned(),
            id: self.id,
            roster: process.quorum.shell.core().roster().clone(),
            standing: process.quorum.shell.said().standing,
            build: self.build(),
            settings: Default::default(),
        }))
    }

    /// Whether there may be a connection with a peer that says this.
    pub(super) fn lets_in(&self, cx: &mut Context, peer: usize, theirs: &Greeting) -> bool {
        let Some(own) = self.greeting() else { return false };
        if let Err(why) = own.check(theirs, Some(PeerId(peer as u32 + 1))) {
            cx.stats.count("strangers refused");
            cx.note(self.name(), || format!("refuses node {}: {why}", peer + 1));
            return false;
        }
        let (ours, theirs) = ((own.standing, &own.roster), (theirs.standing, &theirs.roster));
        if ours.0.bound && theirs.0.bound && ours.0.ensemble != theirs.0.ensemble {
            let text = format!("node {} takes in the word of node {} of another ensemble", self.id, peer + 1);
            cx.ghost.fail("I20 strangers", text);
        }
        if ours.1.since() == theirs.1.since() && ours.1 != theirs.1 {
            let text = format!("node {} takes in the word of node {} with other members", self.id, peer + 1);
            cx.ghost.fail("I21 one list of members", text);
        }
        let id = PeerId(peer as u32 + 1);
        if ours.1.membership(id).is_none() && theirs.1.since() <= ours.1.since() {
            let text = format!("node {} takes in the word of node {id}, which is no member", self.id);
            cx.ghost.fail("I25 no former member", text);
        }
        true
    }

    /// A connection for a quorum or a meeting is there: this end introduces itself.
    pub(super) fn greet(&mut self, cx: &mut Context, link: LinkId) {
        let Some(peer) = self.peer(cx, link).map(|i| PeerId(i as u32 + 1)) else { return };
        let Some(process) = &mut self.up else { return };
        let suspicion = process.quorum.shell.said().suspicion;
        process.acquaintances.greeting.insert(link, (peer, 1, suspicion));
        self.say_hello(cx, link, peer, Acquaintance::default());
        let at = cx.now + CONNECT_LIMIT;
        self.schedule(cx, at, NodeEvent::GreetLimit { link });
    }

    fn say_hello(&mut self, cx: &mut Context, link: LinkId, peer: PeerId, said: Acquaintance) {
        let Some(greeting) = self.greeting() else { return };
        let Some(process) = &self.up else { return };
        let damage = process.quorum.shell.said().damage;
        let said = process.acquaintances.met.acquaintance(peer, said);
        cx.send(link, self.end(), Packet::Hello(Hello { greeting, said, damage }));
    }

    /// Nothing came back from a peer that was dialled. False if nothing was awaited.
    pub(super) fn not_greeted(&mut self, cx: &mut Context, link: LinkId, kind: Option<Kind>) -> bool {
        let Some(process) = &mut self.up else { return false };
        let Some((peer, _, _)) = process.acquaintances.greeting.remove(&link) else { return false };
        cx.close(link, self.end(), None);
        cx.ended(link, self.end());
        match kind {
            Some(Kind::Quorum) => self.tell_quorum(cx, Input::ConnectFailed { leader: peer }),
            _ => self.not_met(cx, peer.0 as usize - 1),
        }
        true
    }

    pub(super) fn not_met(&mut self, cx: &mut Context, peer: usize) {
        self.tried(cx, peer);
        let Some(process) = &mut self.up else { return };
        let suspicion = process.quorum.shell.said().suspicion;
        let pause = process.acquaintances.pauses.entry(peer).or_insert(RETRY[0]);
        let at = cx.now + *pause;
        *pause = (2 * *pause).min(RETRY[1]);
        self.schedule(cx, at, NodeEvent::Meet { peer });
        let peer = PeerId(peer as u32 + 1);
        self.happened(cx, Happened::Heard { peer, damage: None, suspicion });
    }

    pub(super) fn on_hello(&mut self, cx: &mut Context, link: LinkId, hello: &Hello) -> Result<(), Stop> {
        let (Some(kind), Some(index)) = (self.kind(cx, link), self.peer(cx, link)) else { return Ok(()) };
        let peer = PeerId(index as u32 + 1);
        let Some(process) = &mut self.up else { return Ok(()) };
        let dialled = process.acquaintances.greeting.remove(&link);
        if !self.lets_in(cx, index, &hello.greeting) {
            cx.close(link, self.end(), None);
            match (kind, dialled) {
                (Kind::Meeting, Some(_)) => self.not_met(cx, index),
                (_, Some(_)) => self.tell_quorum(cx, Input::ConnectFailed { leader: peer }),
                (_, None) => {}
            }
            return Ok(());
        }
        if let Some((_, _, suspicion)) = dialled {
            let damage: Option<Damage> = Some(hello.damage);
            self.happened(cx, Happened::Heard { peer, damage, suspicion });
        }
        let said = hello.said;
        let Some(process) = &mut self.up else { return Ok(()) };
        if let Some(met) = process.acquaintances.met.take_in(peer, said)? {
            self.happened(cx, Happened::RolledBack { by: peer, met });
        }
        let Some(process) = &mut self.up else { return Ok(()) };
        let conn = Conn(link);
        match (kind, dialled) {
            (Kind::Meeting, Some((_, 1, _))) => {
                // Now it can be confirmed what the other one has met.
                let suspicion = process.quorum.shell.said().suspicion;
                process.acquaintances.greeting.insert(link, (peer, 2, suspicion));
                self.say_hello(cx, link, peer, said);
            }
            (Kind::Meeting, Some(_)) => {
                process.acquaintances.pauses.remove(&index);
                cx.close(link, self.end(), None);
                self.tried(cx, index);
            }
            (Kind::Meeting, None) => self.say_hello(cx, link, peer, said),
            (_, Some(_)) => {
                process.quorum.leaders.insert(link, Incoming::default());
                self.tell_quorum(cx, Input::LeaderConnected { conn, leader: peer });
            }
            (_, None) => {
                process.quorum.learners.insert(link, Learner::default());
                self.say_hello(cx, link, peer, said);
                self.tell_quorum(cx, Input::LearnerConnected { conn, peer });
            }
        }
        Ok(())
    }
}
