//! Who the other nodes are, and which incarnation of its directory each of them is: what `quorum-svc` does in `acquaintances.rs` and its
//! driver.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use api::peer::{Acquaintance, Damage, Incarnation};
use api::{Greeting, PeerId};
use quorum_core::{Conn, Input};
use quorum_log::Incarnations;

use super::sender::Outgoing;
use super::{ByLink, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{CONNECT_LIMIT, End, Hello, Kind, LinkId, Packet};

/// A new incarnation begins so often: far more often than in production, where nothing else is as quick either.
const INCARNATION_EVERY: u64 = 5_000_000;
/// As in production.
const FIRST: u64 = 200_000;
const RETRY: [u64; 2] = [500_000, 30_000_000];

pub(crate) struct Acquaintances {
    pub(super) incarnations: Incarnations,
    /// Whoever was dialled and has not said enough yet, how often it was spoken to, and how often this node was suspected by then.
    greeting: ByLink<(PeerId, u32, u64)>,
    /// How long to wait before a peer that could not be met is dialled again.
    pauses: BTreeMap<usize, u64>,
    /// Who has to be tried before the quorum goes round for the first time.
    pub(super) first: Vec<usize>,
    /// As in the driver of `quorum-svc`.
    told: BTreeSet<Incarnation>,
    unknown: Vec<Incarnation>,
    pub(super) to_outlive: Vec<Incarnation>,
    suspicion: u64,
    heard: BTreeMap<PeerId, bool>,
}

impl Acquaintances {
    /// `waits`: the quorum begins when everybody was tried.
    pub(super) fn new(
        incarnations: Incarnations,
        peers: impl Iterator<Item = usize>,
        waits: bool,
    ) -> Acquaintances {
        let first = if waits { peers.collect() } else { Vec::new() };
        let (greeting, pauses) = (ByLink::new(), BTreeMap::new());
        Acquaintances {
            incarnations,
            greeting,
            pauses,
            first,
            told: BTreeSet::new(),
            unknown: Vec::new(),
            to_outlive: Vec::new(),
            suspicion: 0,
            heard: BTreeMap::new(),
        }
    }

    /// A leader has sent what was lost before that was noted.
    pub(super) fn healed(&mut self) {
        self.to_outlive.extend(std::mem::take(&mut self.unknown));
    }
}

impl Node {
    pub(super) fn begin_meetings(&mut self, cx: &mut Context) {
        for peer in (0..cx.plan.members.len()).filter(|&p| p != self.index) {
            cx.dial(Kind::Meeting, self.end(), End::Node(peer));
        }
        let at = cx.now + FIRST;
        self.schedule(cx, at, NodeEvent::FirstMeetings);
        let at = cx.now + INCARNATION_EVERY;
        self.schedule(cx, at, NodeEvent::NewIncarnation);
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
        process.acquaintances.incarnations.grow()?;
        for peer in (0..cx.plan.members.len()).filter(|&p| p != self.index) {
            cx.dial(Kind::Meeting, self.end(), End::Node(peer));
        }
        let at = cx.now + INCARNATION_EVERY;
        self.schedule(cx, at, NodeEvent::NewIncarnation);
        Ok(())
    }

    /// What this node says of itself before anything else.
    pub(crate) fn greeting(&self, cx: &Context) -> Option<Rc<Greeting>> {
        let process = self.up.as_ref()?;
        Some(Rc::new(Greeting {
            name: "sim".to_owned(),
            id: self.id,
            members: process.members.clone(),
            standing: process.quorum.core.standing(),
            build: self.build(),
            sync_limit: Duration::from_millis(cx.plan.timing.sync_limit),
            tick: Duration::from_millis(cx.plan.timing.ping),
        }))
    }

    /// Whether there may be a connection with whoever says this.
    pub(super) fn lets_in(&self, cx: &mut Context, peer: usize, theirs: &Greeting) -> bool {
        let Some(own) = self.greeting(cx) else { return false };
        if let Err(why) = own.check(theirs, Some(PeerId(peer as u32 + 1))) {
            cx.stats.count("strangers refused");
            cx.note(self.name(), || format!("refuses node {}: {why}", peer + 1));
            return false;
        }
        let (ours, theirs) = ((own.standing, &own.members), (theirs.standing, &theirs.members));
        if ours.0.bound && theirs.0.bound && ours.0.ensemble != theirs.0.ensemble {
            let text = format!("node {} takes in the word of node {} of another ensemble", self.id, peer + 1);
            cx.ghost.fail("I20 strangers", text);
        }
        if ours.1 != theirs.1 {
            let text = format!("node {} takes in the word of node {} with other members", self.id, peer + 1);
            cx.ghost.fail("I21 one list of members", text);
        }
        true
    }

    /// A connection for a quorum or a meeting is there: this end says who it is.
    pub(super) fn greet(&mut self, cx: &mut Context, link: LinkId) {
        let Some(peer) = self.peer(cx, link).map(|i| PeerId(i as u32 + 1)) else { return };
        let Some(process) = &mut self.up else { return };
        let suspicion = process.acquaintances.suspicion;
        process.acquaintances.greeting.insert(link, (peer, 1, suspicion));
        self.say_hello(cx, link, peer, Acquaintance::default());
        let at = cx.now + CONNECT_LIMIT;
        self.schedule(cx, at, NodeEvent::GreetLimit { link });
    }

    fn say_hello(&mut self, cx: &mut Context, link: LinkId, peer: PeerId, said: Acquaintance) {
        let Some(greeting) = self.greeting(cx) else { return };
        let Some(process) = &self.up else { return };
        let known = &process.acquaintances;
        // What was told to the core a moment ago counts at once.
        let damage = if known.unknown.is_empty() { process.quorum.core.damage() } else { Damage::Directory };
        let said = known.incarnations.acquaintance(peer, said);
        cx.send(link, self.end(), Packet::Hello(Hello { greeting, said, damage }));
    }

    /// Nothing came back from whoever was dialled. False if nothing was awaited.
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
        let suspicion = process.acquaintances.suspicion;
        let pause = process.acquaintances.pauses.entry(peer).or_insert(RETRY[0]);
        let at = cx.now + *pause;
        *pause = (2 * *pause).min(RETRY[1]);
        self.schedule(cx, at, NodeEvent::Meet { peer });
        self.heard(cx, PeerId(peer as u32 + 1), false, suspicion);
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
            self.heard(cx, peer, hello.damage.is_some(), suspicion);
        }
        let said = hello.said;
        self.greeted(cx, peer, said)?;
        let Some(process) = &mut self.up else { return Ok(()) };
        let conn = Conn(link);
        match (kind, dialled) {
            (Kind::Meeting, Some((_, 1, _))) => {
                // Now it can be confirmed what the other one has met.
                let suspicion = process.acquaintances.suspicion;
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
                process.quorum.leaders.insert(link, None);
                self.tell_quorum(cx, Input::LeaderConnected { conn, leader: peer });
            }
            (_, None) => {
                process.quorum.learners.insert(link, Outgoing::default());
                self.say_hello(cx, link, peer, said);
                self.tell_quorum(cx, Input::LearnerConnected { conn, peer });
            }
        }
        Ok(())
    }

    /// Takes in what a peer says of incarnations. If this node turns out to stand on an older copy, its core is told first.
    fn greeted(&mut self, cx: &mut Context, peer: PeerId, said: Acquaintance) -> Result<(), Stop> {
        let (name, me) = (self.name(), self.end());
        let Some(process) = &mut self.up else { return Ok(()) };
        let known = &mut process.acquaintances;
        known.incarnations.meet(peer, said)?;
        let Some(met) = said.met.filter(|&met| !known.incarnations.knows(met)) else { return Ok(()) };
        if known.told.insert(met) {
            known.unknown.push(met);
            cx.stats.count("told of older copies");
            cx.note(name, || format!("is told that it stands on an older copy, by node {peer}"));
            known.suspicion += 1;
            known.heard.clear();
            self.tell_quorum(cx, Input::RolledBack { note: false });
            for other in (0..cx.plan.members.len()).filter(|&p| p != self.index) {
                cx.dial(Kind::Meeting, me, End::Node(other));
            }
        }
        Ok(())
    }

    /// As in the driver of `quorum-svc`.
    fn heard(&mut self, cx: &mut Context, peer: PeerId, damaged: bool, suspicion: u64) {
        let me = self.id;
        let Some(process) = &mut self.up else { return };
        let known = &mut process.acquaintances;
        if known.unknown.is_empty() || suspicion != known.suspicion {
            return;
        }
        known.heard.insert(peer, damaged);
        let others = || process.members.voters().filter(|&voter| voter != me);
        if others().any(|voter| !known.heard.contains_key(&voter)) {
            return;
        }
        let sound = others().filter(|voter| known.heard.get(voter) == Some(&false)).collect();
        if process.members.is_quorum(&sound) {
            known.to_outlive.extend(std::mem::take(&mut known.unknown));
            cx.stats.count("older copies noted");
            self.tell_quorum(cx, Input::RolledBack { note: true });
        }
    }
}
