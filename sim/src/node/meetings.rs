//! Which life of its directory each node is in: what `quorum-svc` does in `meetings.rs`, and who may begin a connection with it.

use std::collections::{BTreeMap, BTreeSet};

use api::PeerId;
use api::peer::{Incarnation, Lives};
use quorum_core::{Conn, Input};
use quorum_log::Incarnations;

use super::sender::Outgoing;
use super::{ByLink, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{CONNECT_LIMIT, End, Kind, LinkId, Packet};

/// A new life begins so often: far more often than in production, where nothing else is as quick either.
const LIFE: u64 = 5_000_000;
/// As in production.
const FIRST: u64 = 200_000;
const RETRY: [u64; 2] = [500_000, 30_000_000];

pub(crate) struct Meetings {
    pub(super) incarnations: Incarnations,
    /// Whoever was dialled and has not said enough yet, and how often it was spoken to.
    greeting: ByLink<(PeerId, u32)>,
    /// How long to wait before a peer that could not be met is dialled again.
    pauses: BTreeMap<usize, u64>,
    /// Who has to be tried before the quorum goes round for the first time.
    pub(super) first: Vec<usize>,
    /// As in the driver of `quorum-svc`.
    outlived: BTreeSet<Incarnation>,
    pub(super) to_outlive: Vec<Incarnation>,
}

impl Meetings {
    /// `waits`: the quorum begins when everybody was tried.
    pub(super) fn new(
        incarnations: Incarnations,
        peers: impl Iterator<Item = usize>,
        waits: bool,
    ) -> Meetings {
        let first = if waits { peers.collect() } else { Vec::new() };
        let (greeting, pauses) = (ByLink::new(), BTreeMap::new());
        let (outlived, to_outlive) = (BTreeSet::new(), Vec::new());
        Meetings { incarnations, greeting, pauses, first, outlived, to_outlive }
    }
}

impl Node {
    pub(super) fn begin_meetings(&mut self, cx: &mut Context) {
        for peer in (0..cx.plan.members.len()).filter(|&p| p != self.index) {
            cx.dial(Kind::Meeting, self.end(), End::Node(peer));
        }
        let at = cx.now + FIRST;
        self.schedule(cx, at, NodeEvent::FirstMeetings);
        let at = cx.now + LIFE;
        self.schedule(cx, at, NodeEvent::NewLife);
    }

    /// The quorum waits no longer.
    pub(super) fn first_meetings_over(&mut self, cx: &mut Context) {
        if let Some(process) = &mut self.up {
            process.meetings.first.clear();
            self.wake_quorum(cx);
        }
    }

    fn tried(&mut self, cx: &mut Context, peer: usize) {
        let Some(process) = &mut self.up else { return };
        let first = &mut process.meetings.first;
        if !first.is_empty() {
            first.retain(|&p| p != peer);
            if first.is_empty() {
                self.wake_quorum(cx);
            }
        }
    }

    pub(super) fn new_life(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        process.meetings.incarnations.grow()?;
        for peer in (0..cx.plan.members.len()).filter(|&p| p != self.index) {
            cx.dial(Kind::Meeting, self.end(), End::Node(peer));
        }
        let at = cx.now + LIFE;
        self.schedule(cx, at, NodeEvent::NewLife);
        Ok(())
    }

    /// A connection for a quorum or a meeting is there: this end says who it is.
    pub(super) fn greet(&mut self, cx: &mut Context, link: LinkId) {
        let Some(peer) = self.peer(cx, link).map(|i| PeerId(i as u32 + 1)) else { return };
        let Some(process) = &mut self.up else { return };
        process.meetings.greeting.insert(link, (peer, 1));
        self.say_hello(cx, link, peer, Lives::default());
        let at = cx.now + CONNECT_LIMIT;
        self.schedule(cx, at, NodeEvent::GreetLimit { link });
    }

    fn say_hello(&mut self, cx: &mut Context, link: LinkId, peer: PeerId, said: Lives) {
        let Some(process) = &self.up else { return };
        let lives = process.meetings.incarnations.lives(peer, said);
        cx.send(link, self.end(), Packet::Hello(lives));
    }

    /// Nothing came back from whoever was dialled. False if nothing was awaited.
    pub(super) fn not_greeted(&mut self, cx: &mut Context, link: LinkId, kind: Option<Kind>) -> bool {
        let Some(process) = &mut self.up else { return false };
        let Some((peer, _)) = process.meetings.greeting.remove(&link) else { return false };
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
        let pause = process.meetings.pauses.entry(peer).or_insert(RETRY[0]);
        let at = cx.now + *pause;
        *pause = (2 * *pause).min(RETRY[1]);
        self.schedule(cx, at, NodeEvent::Meet { peer });
    }

    pub(super) fn on_hello(&mut self, cx: &mut Context, link: LinkId, said: Lives) -> Result<(), Stop> {
        let (Some(kind), Some(index)) = (self.kind(cx, link), self.peer(cx, link)) else { return Ok(()) };
        let peer = PeerId(index as u32 + 1);
        let Some(process) = &mut self.up else { return Ok(()) };
        let dialled = process.meetings.greeting.remove(&link);
        if !self.greeted(cx, peer, said)? {
            cx.close(link, self.end(), None);
            match (kind, dialled) {
                (Kind::Meeting, Some(_)) => self.not_met(cx, index),
                (_, Some(_)) => self.tell_quorum(cx, Input::ConnectFailed { leader: peer }),
                (_, None) => {}
            }
            return Ok(());
        }
        let Some(process) = &mut self.up else { return Ok(()) };
        let conn = Conn(link);
        match (kind, dialled) {
            (Kind::Meeting, Some((_, 1))) => {
                // Now it can be confirmed what the other one has met.
                process.meetings.greeting.insert(link, (peer, 2));
                self.say_hello(cx, link, peer, said);
            }
            (Kind::Meeting, Some(_)) => {
                process.meetings.pauses.remove(&index);
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

    /// Whether there may be a connection with a peer that says this.
    fn greeted(&mut self, cx: &mut Context, peer: PeerId, said: Lives) -> Result<bool, Stop> {
        let name = self.name();
        let Some(process) = &mut self.up else { return Ok(false) };
        let meetings = &mut process.meetings;
        meetings.incarnations.meet(peer, said)?;
        let Some(met) = said.met.filter(|&met| !meetings.incarnations.knows(met)) else { return Ok(true) };
        if meetings.outlived.insert(met) {
            cx.stats.count("told of older copies");
            cx.note(name, || format!("is told that it stands on an older copy, by node {peer}"));
            meetings.to_outlive.push(met);
            self.tell_quorum(cx, Input::RolledBack);
        }
        Ok(false)
    }
}
