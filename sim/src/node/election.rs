//! Elections: the production shell, and one link to each peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Ensemble, Greeting, PeerId, Roster, Standing, Time};
use election_core::{Config, Input, Notification, dials};
use election_shell::{Effect, HEARTBEAT, LinkEvent, Redial, SILENCE, Shell};

use super::{Armed, ByLink, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{End, Kind, LinkId, Packet};

const EVERY: u64 = HEARTBEAT.as_micros() as u64;

/// The end of a link.
pub(crate) struct Slot {
    link: LinkId,
    heard: u64,
    spoke: u64,
    last: Option<Notification>,
}

pub(crate) struct ElectionShell {
    shell: Shell<Slot>,
    /// The links that came up, in their order, and when.
    numbers: ByLink<(u64, u64)>,
    last_number: u64,
    redials: BTreeMap<usize, Redial>,
    pub(super) armed: Armed,
}

impl ElectionShell {
    pub(super) fn new(me: PeerId, ensemble: Ensemble, finalize_wait: Duration) -> ElectionShell {
        ElectionShell {
            shell: Shell::new(Config { finalize_wait, ..Config::new(me, ensemble) }),
            numbers: ByLink::new(),
            last_number: 0,
            redials: BTreeMap::new(),
            armed: Armed::default(),
        }
    }

    /// The newest link to a peer, if it is this one.
    fn newest(&mut self, peer: PeerId, link: LinkId) -> Option<&mut Slot> {
        self.shell.link_mut(peer).filter(|slot| slot.link == link)
    }
}

impl Node {
    pub(super) fn begin_elections(&mut self, cx: &mut Context) {
        let me = self.id;
        for peer in (0..cx.plan.members.len()).filter(|&p| dials(me, PeerId(p as u32 + 1))) {
            self.dial_election(cx, peer);
        }
        let at = cx.now + cx.rng.between(1, EVERY);
        self.schedule(cx, at, NodeEvent::Heartbeat);
    }

    pub(super) fn dial_election(&mut self, cx: &mut Context, peer: usize) {
        // There is one already if it was dialled twice.
        if !self.is_linked(peer) {
            cx.dial(Kind::Election, self.end(), End::Node(peer));
        }
    }

    fn is_linked(&self, peer: usize) -> bool {
        let is_it = |(other, _): (PeerId, &Slot)| other.0 as usize == peer + 1;
        self.up.as_ref().is_some_and(|p| p.election.shell.links().any(is_it))
    }

    /// A link of this end is over, if it ever came up: this node dials again if that is its part.
    fn redial(&mut self, cx: &mut Context, link: LinkId, peer: usize) {
        let Some(process) = &mut self.up else { return };
        let up_at = process.election.numbers.remove(&link).map(|(_, at)| at);
        if !dials(self.id, PeerId(peer as u32 + 1)) {
            return;
        }
        let lasted = Duration::from_micros(up_at.map_or(0, |at| cx.now - at));
        let jitter = |most: Duration| Duration::from_micros(cx.rng.below(most.as_micros() as u64));
        let pause = process.election.redials.entry(peer).or_default().pause(lasted, jitter);
        let at = cx.now + pause.as_micros() as u64;
        self.schedule(cx, at, NodeEvent::DialElection { peer });
    }

    pub(super) fn election_link(&mut self, cx: &mut Context, link: LinkId, connected: bool) {
        let Some(index) = self.peer(cx, link) else { return };
        if !connected {
            cx.ended(link, self.end());
            return self.redial(cx, link, index);
        }
        let Some(process) = &mut self.up else { return };
        let election = &mut process.election;
        election.last_number += 1;
        let number = election.last_number;
        election.numbers.insert(link, (number, cx.now));
        let slot = Slot { link, heard: cx.now, spoke: cx.now, last: None };
        // The greeting comes with each packet.
        let (peer, standing) = (PeerId(index as u32 + 1), Standing::default());
        self.election_event(cx, LinkEvent::Up { peer, number, link: slot, standing });
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
        let peer = PeerId(index as u32 + 1);
        let Some(process) = &mut self.up else { return Ok(()) };
        if let Some(slot) = process.election.newest(peer, link) {
            slot.heard = cx.now;
        }
        let number = process.election.numbers.get(&link).map(|&(number, _)| number);
        if let (Some(number), Some(notification)) = (number, said) {
            let standing = theirs.standing;
            self.election_event(cx, LinkEvent::Heard { peer, number, notification, standing });
        }
        Ok(())
    }

    pub(super) fn election_link_over(&mut self, cx: &mut Context, link: LinkId, index: usize) {
        let Some(process) = &mut self.up else { return };
        let number = process.election.numbers.get(&link).map(|&(number, _)| number);
        self.redial(cx, link, index);
        if let Some(number) = number {
            self.election_event(cx, LinkEvent::Down { peer: PeerId(index as u32 + 1), number });
        }
    }

    pub(super) fn on_heartbeat(&mut self, cx: &mut Context) {
        let at = cx.now + EVERY;
        self.schedule(cx, at, NodeEvent::Heartbeat);
        let me = self.end();
        let Some(greeting) = self.greeting() else { return };
        let Some(process) = &mut self.up else { return };
        let shell = &mut process.election.shell;
        let peers: Vec<PeerId> = shell.links().map(|(peer, _)| peer).collect();
        let mut silent = Vec::new();
        for peer in peers {
            let Some(slot) = shell.link_mut(peer) else { continue };
            if cx.now >= slot.heard + SILENCE.as_micros() as u64 {
                silent.push((slot.link, peer.0 as usize - 1));
            } else if cx.now >= slot.spoke + EVERY / 2 {
                slot.spoke = cx.now;
                cx.send(slot.link, me, Packet::Election(slot.last, greeting.clone()));
            }
        }
        for (link, index) in silent {
            cx.close(link, me, None);
            self.election_link_over(cx, link, index);
        }
    }

    pub(super) fn on_election_timer(&mut self, cx: &mut Context) {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        if process.election.armed.fired(cx.now) {
            let due = process.election.shell.next_timeout().is_some_and(|at| at <= now);
            self.election_turn(cx, |shell, now| {
                if due {
                    shell.handle(now, Input::Timeout);
                }
            });
        }
    }

    /// The quorum asks for something.
    pub(super) fn elect(&mut self, cx: &mut Context, input: Input) {
        self.election_turn(cx, |shell, now| shell.handle(now, input));
    }

    /// The quorum tells what this node is from now on.
    pub(super) fn introduce(&mut self, cx: &mut Context, standing: Standing, roster: Arc<Roster>) {
        self.election_turn(cx, |shell, now| shell.introduce(now, standing, roster));
    }

    fn election_event(&mut self, cx: &mut Context, event: LinkEvent<Slot>) {
        self.election_turn(cx, |shell, now| shell.on_link(now, event));
    }

    /// Passes one event to the shell and carries out its effects.
    fn election_turn(&mut self, cx: &mut Context, event: impl FnOnce(&mut Shell<Slot>, Time)) {
        let (now, me, name) = (self.time(cx), self.end(), self.name());
        let Some(greeting) = self.greeting() else { return };
        let Some(process) = &mut self.up else { return };
        event(&mut process.election.shell, now);
        while let Some(process) = &mut self.up
            && let Some(effect) = process.election.shell.poll_effect()
        {
            match effect {
                Effect::Links => {}
                Effect::Close(peer, slot) => {
                    let index = peer.0 as usize - 1;
                    cx.close(slot.link, me, None);
                    if self.is_linked(index) {
                        if let Some(process) = &mut self.up {
                            process.election.numbers.remove(&slot.link);
                        }
                    } else {
                        self.redial(cx, slot.link, index);
                    }
                }
                Effect::Send(to, notification) => {
                    if let Some(slot) = process.election.shell.link_mut(to) {
                        (slot.last, slot.spoke) = (Some(notification), cx.now);
                        let packet = Packet::Election(Some(notification), greeting.clone());
                        cx.send(slot.link, me, packet);
                    }
                }
                Effect::Elected { leader, round } => {
                    cx.note(&name, || format!("elects {leader} in round {round}"));
                    self.tell_quorum(cx, quorum_core::Input::Elected { leader });
                }
            }
        }
        let timeout = self.up.as_ref().and_then(|process| process.election.shell.next_timeout());
        if let Some(timeout) = timeout {
            let at = self.when(timeout);
            if self.up.as_mut().is_some_and(|p| p.election.armed.arm(at)) {
                self.schedule(cx, at, NodeEvent::ElectionTimer);
            }
        }
    }
}
