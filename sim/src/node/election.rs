//! Elections: the core, and one link to each peer, as `election-svc` keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Ensemble, Greeting, PeerId};
use election_core::{Config, Election, Input, Notification, Output, dials};

use super::{Armed, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{End, Kind, LinkId, Packet};

/// Each side of a link speaks at least so often.
const HEARTBEAT: u64 = 500_000;
/// A peer that is silent for so long is taken for dead.
const SILENCE: u64 = 2_000_000;

struct Peer {
    link: LinkId,
    heard: u64,
    spoke: u64,
    last: Option<Notification>,
}

pub(crate) struct ElectionShell {
    core: Election,
    /// An answer is awaited.
    pub(super) asked: bool,
    /// The newest link to each.
    links: BTreeMap<PeerId, Peer>,
    /// Pause before the next attempt, by peer.
    pauses: BTreeMap<usize, u64>,
    pub(super) armed: Armed,
}

impl ElectionShell {
    pub(super) fn new(me: PeerId, ensemble: Ensemble, finalize_wait: Duration) -> ElectionShell {
        let config = Config { finalize_wait, ..Config::new(me, ensemble) };
        ElectionShell {
            core: Election::new(config),
            asked: false,
            links: BTreeMap::new(),
            pauses: BTreeMap::new(),
            armed: Armed::default(),
        }
    }
}

impl Node {
    pub(super) fn begin_elections(&mut self, cx: &mut Context) {
        let me = self.id;
        for peer in (0..cx.plan.members.len()).filter(|&p| dials(me, PeerId(p as u32 + 1))) {
            self.dial_election(cx, peer);
        }
        let at = cx.now + cx.rng.between(1, HEARTBEAT);
        self.schedule(cx, at, NodeEvent::Heartbeat);
    }

    pub(super) fn dial_election(&mut self, cx: &mut Context, peer: usize) {
        let other = PeerId(peer as u32 + 1);
        // There is one already if it was dialled twice.
        if self.up.as_ref().is_some_and(|p| p.election.links.contains_key(&other)) {
            return;
        }
        cx.dial(Kind::Election, self.end(), End::Node(peer));
    }

    fn redial(&mut self, cx: &mut Context, peer: usize) {
        let Some(process) = &mut self.up else { return };
        if !dials(self.id, PeerId(peer as u32 + 1)) {
            return;
        }
        let pause = process.election.pauses.entry(peer).or_insert(50_000);
        let at = cx.now + *pause + cx.rng.below(*pause / 2);
        *pause = (*pause * 2).min(1_000_000);
        self.schedule(cx, at, NodeEvent::DialElection { peer });
    }

    pub(super) fn election_link(&mut self, cx: &mut Context, link: LinkId, connected: bool) {
        let Some(index) = self.peer(cx, link) else { return };
        if !connected {
            cx.ended(link, self.end());
            return self.redial(cx, index);
        }
        let peer = PeerId(index as u32 + 1);
        let Some(process) = &mut self.up else { return };
        process.election.pauses.remove(&index);
        let newest = Peer { link, heard: cx.now, spoke: cx.now, last: None };
        if let Some(older) = process.election.links.insert(peer, newest) {
            cx.close(older.link, self.end(), None);
        }
        self.elect(cx, Input::Connected(peer));
    }

    pub(super) fn election_packet(
        &mut self,
        cx: &mut Context,
        link: LinkId,
        said: Option<Notification>,
        theirs: &Greeting,
    ) -> Result<(), Stop> {
        let Some(index) = self.peer(cx, link) else { return Ok(()) };
        if !self.lets_in(cx, index, theirs) {
            cx.close(link, self.end(), None);
            self.election_link_over(cx, link, index);
            return Ok(());
        }
        let Some(process) = &mut self.up else { return Ok(()) };
        let Some((&from, peer)) = process.election.links.iter_mut().find(|(_, p)| p.link == link) else {
            return Ok(());
        };
        peer.heard = cx.now;
        if let Some(notification) = said {
            self.elect(cx, Input::Received { from, notification });
        }
        Ok(())
    }

    pub(super) fn election_link_over(&mut self, cx: &mut Context, link: LinkId, index: usize) {
        let Some(process) = &mut self.up else { return };
        let peer = PeerId(index as u32 + 1);
        if process.election.links.get(&peer).is_some_and(|p| p.link == link) {
            process.election.links.remove(&peer);
            self.elect(cx, Input::Disconnected(peer));
        }
        self.redial(cx, index);
    }

    pub(super) fn on_heartbeat(&mut self, cx: &mut Context) {
        let at = cx.now + HEARTBEAT;
        self.schedule(cx, at, NodeEvent::Heartbeat);
        let me = self.end();
        let Some(greeting) = self.greeting(cx) else { return };
        let Some(process) = &mut self.up else { return };
        let mut silent = Vec::new();
        for (peer, p) in &mut process.election.links {
            if cx.now >= p.heard + SILENCE {
                silent.push((p.link, peer.0 as usize - 1));
            } else if cx.now >= p.spoke + HEARTBEAT / 2 {
                p.spoke = cx.now;
                cx.send(p.link, me, Packet::Election(p.last, greeting.clone()));
            }
        }
        for (link, index) in silent {
            cx.close(link, me, None);
            self.election_link_over(cx, link, index);
        }
    }

    pub(super) fn on_election_timer(&mut self, cx: &mut Context) {
        if self.up.as_mut().is_some_and(|p| p.election.armed.fired(cx.now)) {
            self.elect(cx, Input::Timeout);
        }
    }

    /// Gives the core one input and does what it wants.
    pub(super) fn elect(&mut self, cx: &mut Context, input: Input) {
        let (now, me, name) = (self.time(cx), self.end(), self.name());
        let Some(greeting) = self.greeting(cx) else { return };
        let Some(process) = &mut self.up else { return };
        let shell = &mut process.election;
        let due = shell.core.next_timeout().is_none_or(|at| at <= now);
        if input != Input::Timeout || due {
            shell.core.handle(now, input);
        }
        let mut elected = None;
        while let Some(output) = shell.core.poll_output() {
            match output {
                Output::Send { to, notification } => {
                    if let Some(peer) = shell.links.get_mut(&to) {
                        (peer.last, peer.spoke) = (Some(notification), cx.now);
                        cx.send(peer.link, me, Packet::Election(Some(notification), greeting.clone()));
                    }
                }
                Output::Elected { leader, round } => {
                    if std::mem::take(&mut shell.asked) {
                        cx.note(&name, || format!("elects {leader} in round {round}"));
                        elected = Some(leader);
                    }
                }
            }
        }
        if let Some(timeout) = shell.core.next_timeout() {
            let at = self.when(timeout);
            if self.up.as_mut().is_some_and(|p| p.election.armed.arm(at)) {
                self.schedule(cx, at, NodeEvent::ElectionTimer);
            }
        }
        if let Some(leader) = elected {
            self.tell_quorum(cx, quorum_core::Input::Elected { leader });
        }
    }
}
