//! The quorum's loop: inputs gather until its turn, then the core's outputs are carried out in their order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::peer::{Damage, Incarnation, ToLeader, ToLearner};
use api::ports::{FeedItem, Role, Sign};
use api::{PeerId, ReconfigRefusal, Time, Zxid};
use quorum_core::{Conn, Input, Output, Zab};
use quorum_shell::{Effect, Incoming, LogView, Part, Shell};

use super::sender::Learner;
use super::{Armed, ByLink, Node, Process, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{End, Kind, LinkId, Packet};

/// What waits for the quorum's turn.
pub(crate) enum Happened {
    Core(Input),
    Attach { applied: Zxid },
    RolledBack { by: PeerId, met: Incarnation },
    Heard { peer: PeerId, damage: Option<Damage>, suspicion: u64 },
    Forsaken,
}

pub(crate) struct QuorumShell {
    pub(crate) shell: Shell,
    inbox: Vec<Happened>,
    turn: bool,
    pub(super) armed: Armed,
    pub(super) learners: ByLink<Learner>,
    /// Links to leaders: one, apart from attempts that came too late.
    pub(super) leaders: ByLink<Incoming>,
    /// It was elected and has not proposed an epoch since.
    elected: bool,
    /// For S6: the server at the other end of a learner's connection, when each was heard last, since when this node leads, and when
    /// to look next.
    peers: ByLink<PeerId>,
    heard: BTreeMap<PeerId, Time>,
    reigns_since: Option<Time>,
    /// Since which entry the members are these.
    members: Zxid,
    look_at: Time,
    /// There is a store that is told everything.
    pub(super) attached: bool,
    /// For the store, beside all else that it is told.
    pub(super) signs: VecDeque<Sign>,
    /// It stops, even if others depend on it.
    pub(super) gave_up: bool,
}

impl QuorumShell {
    pub(super) fn new(shell: Shell) -> QuorumShell {
        QuorumShell {
            shell,
            inbox: vec![Happened::Core(Input::Timeout)],
            turn: false,
            armed: Armed::default(),
            learners: ByLink::new(),
            leaders: ByLink::new(),
            elected: false,
            peers: ByLink::new(),
            heard: BTreeMap::new(),
            reigns_since: None,
            members: Zxid::ZERO,
            look_at: Time(0),
            attached: false,
            signs: VecDeque::new(),
            gave_up: false,
        }
    }

    /// It was to leave, and may.
    pub(crate) fn has_left(&self) -> bool {
        self.gave_up || self.shell.left()
    }
}

impl Node {
    pub(crate) fn tell_quorum(&mut self, cx: &mut Context, input: Input) {
        self.happened(cx, Happened::Core(input));
    }

    pub(super) fn happened(&mut self, cx: &mut Context, what: Happened) {
        if let Some(process) = &mut self.up {
            process.quorum.inbox.push(what);
            self.wake_quorum(cx);
        }
    }

    pub(super) fn wake_quorum(&mut self, cx: &mut Context) {
        let free = |p: &mut Box<Process>| {
            p.acquaintances.first.is_empty() && !std::mem::replace(&mut p.quorum.turn, true)
        };
        if self.up.as_mut().is_some_and(free) {
            let at = self.turn_delay(cx);
            self.schedule(cx, at, NodeEvent::QuorumTurn);
        }
    }

    pub(super) fn on_quorum_timer(&mut self, cx: &mut Context) {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        if !process.quorum.armed.fired(cx.now) {
            return;
        }
        if process.quorum.shell.core().next_timeout().is_some_and(|at| at <= now) {
            self.tell_quorum(cx, Input::Timeout);
        } else {
            self.arm_quorum(cx);
        }
    }

    fn arm_quorum(&mut self, cx: &mut Context) {
        let Some(timeout) = self.up.as_ref().and_then(|p| p.quorum.shell.core().next_timeout()) else {
            return;
        };
        let at = self.when(timeout);
        if self.up.as_mut().is_some_and(|p| p.quorum.armed.arm(at)) {
            self.schedule(cx, at, NodeEvent::QuorumTimer);
        }
    }

    pub(super) fn quorum_turn(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let now = self.now(cx);
        let Some(process) = &mut self.up else { return Ok(()) };
        process.quorum.turn = false;
        for what in std::mem::take(&mut process.quorum.inbox) {
            let quorum = &mut process.quorum;
            match what {
                Happened::Core(input) => {
                    quorum.note(cx, self.id, now.mono, &input);
                    quorum.shell.handle(now, input);
                }
                Happened::Attach { applied } => {
                    let tells = quorum.shell.attach(now, applied);
                    quorum.attached = true;
                    tells.into_iter().for_each(|tell| process.store.feed.told(tell));
                }
                Happened::RolledBack { by, met } => {
                    if quorum.shell.rolled_back(now, by, met)? {
                        cx.stats.count("told of older copies");
                        cx.note(format!("node {}", self.id), || {
                            format!("is told that it stands on an older copy, by node {by}")
                        });
                    }
                }
                Happened::Heard { peer, damage, suspicion } => {
                    if quorum.shell.heard(now, peer, damage, suspicion) {
                        cx.stats.count("older copies noted");
                    }
                }
                Happened::Forsaken => quorum.shell.forsake(),
            }
        }
        self.carry_out_quorum(cx)?;
        if let Some(process) = &self.up {
            let core = process.quorum.shell.core();
            let (status, last) = (core.status(), process.quorum.shell.view().last());
            cx.ghost.knows_committed(self.id, status.committed, core.history());
            if last != status.last {
                let text = format!(
                    "node {}: the core's log ends with {}, the shell's with {last}",
                    self.id, status.last
                );
                cx.ghost.fail("I14 core and log", text);
            }
        }
        self.check_reign(cx, now.mono);
        self.arm_quorum(cx);
        self.wake_store(cx);
        Ok(())
    }

    /// Whether a leader has heard a quorum of late: it looks whenever it sends a round of pings, and one round may have been
    /// sent just before.
    fn check_reign(&mut self, cx: &mut Context, now: Time) {
        let timing = cx.plan.timing;
        let Some(process) = &mut self.up else { return };
        let shell = &mut process.quorum;
        let status = shell.shell.core().status();
        if !(status.serving && status.role == Role::Leading) {
            shell.reigns_since = None;
            return;
        }
        let members = shell.shell.core().roster().since();
        if std::mem::replace(&mut shell.members, members) != members {
            shell.reigns_since = None;
        }
        let since = *shell.reigns_since.get_or_insert(now);
        if now < shell.look_at {
            return;
        }
        let ping = Duration::from_millis(timing.ping);
        shell.look_at = now + ping;
        if now.since(since) > 2 * ping {
            let limit = Duration::from_millis(timing.sync_limit) + 2 * ping;
            let heard =
                shell.heard.iter().filter(|(_, t)| now.since(**t) <= limit).map(|(&p, _)| p).collect();
            cx.ghost.reigns(self.id, &heard, shell.shell.core().history());
        }
    }

    fn carry_out_quorum(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let (me, name) = (self.end(), self.name());
        while let Some(process) = &mut self.up {
            let QuorumShell { shell, elected, .. } = &mut process.quorum;
            let view = shell.view().clone();
            let mut observer = Observer { node: self.index, id: self.id, name: &name, view: &view, elected };
            let Some(effect) = shell.poll_effect(|core, output| observer.see(cx, core, output))? else {
                return Ok(());
            };
            let quorum = &mut process.quorum;
            match effect {
                // It is said whenever this node says anything.
                Effect::Say(_) => {}
                Effect::Introduce(standing, roster) => self.introduce(cx, standing, roster),
                // It is said whenever this node says anything.
                Effect::Members(_) => {}
                Effect::Elect(candidate) => self.elect(cx, election_core::Input::Elect(candidate)),
                Effect::Settled { leader, .. } if leader == self.id && !cx.ghost.may_flip(leader) => {
                    // Also if the state is right again: the digest that it noted may be of before.
                    return Err(Stop::Disk(
                        "the state of a leader, which is taken for the truth, is not that of C".into(),
                    ));
                }
                Effect::Settled { leader, epoch } => {
                    self.elect(cx, election_core::Input::Settled { leader, epoch });
                }
                Effect::Dial { leader, delay } => {
                    let at = cx.now + delay.as_micros() as u64;
                    self.schedule(cx, at, NodeEvent::DialLeader { leader: leader.0 as usize - 1 });
                }
                Effect::Disconnect { conn } => {
                    quorum.learners.remove(&conn.0);
                    quorum.leaders.remove(&conn.0);
                    cx.linger(conn.0, me);
                    cx.close(conn.0, me, None);
                }
                Effect::ToLeader { conn, message } => {
                    if quorum.leaders.contains_key(&conn.0) {
                        match &message {
                            ToLeader::Ack(zxid) => cx.ghost.acks(self.index, *zxid),
                            ToLeader::AckEpoch { epoch, .. } => cx.ghost.promises(self.index, *epoch),
                            _ => {}
                        }
                        cx.note(&name, || format!("to leader: {}", crate::text::to_leader(&message)));
                        cx.send(conn.0, me, Packet::ToLeader(message));
                    }
                }
                Effect::ToLearner { conn, command } => self.tell_learner(cx, conn.0, command),
                Effect::Disk(task) => self.ask_disk(cx, task)?,
                Effect::Tell(tell) => {
                    if quorum.attached {
                        process.store.feed.told(tell);
                    }
                }
                Effect::Sign(sign) => quorum.signs.push_back(sign),
                Effect::LevelSet { .. } | Effect::Reconfigured { .. } | Effect::Left => {}
                Effect::MeetAgain => self.meet_all(cx),
                // Operators alone see which servers can be reached.
                Effect::LostQuorum => {}
            }
        }
        Ok(())
    }

    pub(super) fn dial_leader(&mut self, cx: &mut Context, leader: usize) {
        cx.dial(Kind::Quorum, self.end(), End::Node(leader));
    }

    pub(super) fn on_dialed(&mut self, cx: &mut Context, link: LinkId, connected: bool) {
        match self.kind(cx, link) {
            Some(Kind::Election) => self.election_link(cx, link, connected),
            Some(Kind::Quorum) => {
                let Some(leader) = self.peer(cx, link).map(|i| api::PeerId(i as u32 + 1)) else { return };
                if connected {
                    self.greet(cx, link);
                } else {
                    cx.ended(link, self.end());
                    self.tell_quorum(cx, Input::ConnectFailed { leader });
                }
            }
            Some(Kind::Meeting) if connected => self.greet(cx, link),
            Some(Kind::Meeting) => {
                let peer = self.peer(cx, link);
                cx.ended(link, self.end());
                if let Some(peer) = peer {
                    self.not_met(cx, peer);
                }
            }
            Some(Kind::Client) | None => {}
        }
    }

    pub(super) fn on_accepted(&mut self, cx: &mut Context, link: LinkId) {
        match self.kind(cx, link) {
            Some(Kind::Election) => self.election_link(cx, link, true),
            // The end that dialled speaks first.
            Some(Kind::Quorum | Kind::Meeting | Kind::Client) | None => {}
        }
    }

    pub(super) fn on_link_over(&mut self, cx: &mut Context, link: LinkId) {
        let (kind, peer) = (self.kind(cx, link), self.peer(cx, link));
        if self.not_greeted(cx, link, kind) {
            return;
        }
        cx.ended(link, self.end());
        match (kind, peer) {
            (Some(Kind::Election), Some(peer)) => self.election_link_over(cx, link, peer),
            (Some(Kind::Quorum), _) => {
                if let Some(process) = &mut self.up {
                    process.quorum.learners.remove(&link);
                    process.quorum.leaders.remove(&link);
                }
                self.tell_quorum(cx, Input::Disconnected { conn: Conn(link) });
            }
            (Some(Kind::Client), _) => self.client_over(cx, link),
            _ => {}
        }
    }

    pub(super) fn on_packet(&mut self, cx: &mut Context, link: LinkId, packet: Packet) -> Result<(), Stop> {
        let conn = Conn(link);
        let input = match packet {
            Packet::Election(said, theirs) => return self.election_packet(cx, link, said, &theirs),
            Packet::Hello(hello) => return self.on_hello(cx, link, &hello),
            Packet::ToLeader(message) => Input::FromLearner { conn, message },
            Packet::ToLearner(message) => Input::FromLeader { conn, message },
            // Tells a learner that it gets on; to a leader it says nothing.
            Packet::Piece(_) => Input::SnapshotProgress { conn },
            Packet::SnapStart(..) | Packet::SnapChunk(_) | Packet::SnapEnd => {
                match self.receive_snapshot(link, packet)? {
                    Some(input) => input,
                    None => {
                        cx.close(link, self.end(), None);
                        self.on_link_over(cx, link);
                        if let Some(process) = &mut self.up {
                            process.quorum.leaders.remove(&link);
                        }
                        Input::Disconnected { conn }
                    }
                }
            }
            Packet::Open(open, drawn, identities) => {
                self.client_opens(cx, link, open, drawn, identities);
                return Ok(());
            }
            Packet::Requests { acked, requests } => {
                self.client_asks(cx, link, acked, requests);
                return Ok(());
            }
            Packet::Unary(op) => {
                self.client_calls(cx, link, op);
                return Ok(());
            }
            Packet::Items(_) => return Ok(()),
            Packet::Fin(_) => {
                self.on_link_over(cx, link);
                return Ok(());
            }
        };
        self.tell_quorum(cx, input);
        Ok(())
    }

    /// `None` if the connection cannot go on.
    fn receive_snapshot(&mut self, link: LinkId, packet: Packet) -> Result<Option<Input>, Stop> {
        let conn = Conn(link);
        let part = match packet {
            Packet::SnapStart(zxid, level, roster) => Part::Start(zxid, level, roster),
            Packet::SnapChunk(chunk) => Part::Chunk(chunk),
            _ => Part::End,
        };
        let Some(process) = &mut self.up else { return Ok(None) };
        let Some(incoming) = process.quorum.leaders.get_mut(&link) else { return Ok(None) };
        match incoming.take(&process.snapshots, part) {
            Ok(Some(message)) => Ok(Some(Input::FromLeader { conn, message })),
            Ok(None) => Ok(Some(Input::SnapshotProgress { conn })),
            Err(broken) => broken.failure.map_or(Ok(None), |failure| Err(failure.into())),
        }
    }
}

impl QuorumShell {
    /// For the checks: what the core is about to be told.
    fn note(&mut self, cx: &mut Context, id: PeerId, now: Time, input: &Input) {
        match input {
            Input::Requests(requests) => cx.ghost.requested(id, requests),
            Input::Elected { leader } => self.elected = *leader == id,
            Input::LearnerConnected { conn, peer } => drop(self.peers.insert(conn.0, *peer)),
            Input::Disconnected { conn } => drop(self.peers.remove(&conn.0)),
            Input::FromLearner { conn, .. } => {
                if let Some(peer) = self.peers.get(&conn.0) {
                    self.heard.insert(*peer, now);
                }
            }
            _ => {}
        }
    }
}

/// For the checks, statistics and traces: what the core wants, before it is carried out.
struct Observer<'a> {
    node: usize,
    id: PeerId,
    name: &'a str,
    view: &'a LogView,
    elected: &'a mut bool,
}

impl Observer<'_> {
    fn see(&mut self, cx: &mut Context, core: &Zab, output: &Output) {
        let Observer { node, id, name, view, .. } = *self;
        match output {
            Output::Elect(candidate) => {
                cx.note(name, || format!("looks for a leader, with {candidate:?}"));
                if let Some(candidate) = candidate {
                    cx.ghost.stands(node, candidate.epoch, candidate.zxid);
                }
            }
            Output::Settled { leader, epoch } => {
                if *leader == id {
                    cx.stats.reigns += 1;
                    cx.ghost.established(id, *epoch, core.history(), core.status().committed);
                }
                cx.note(name, || format!("settles under {leader} in epoch {epoch}"));
            }
            Output::Disconnect { conn, why } => {
                cx.note(name, || format!("ends connection {}: {why}", conn.0));
            }
            Output::ToLearner {
                message: ToLearner::Diff { after: from } | ToLearner::Trunc { to: from },
                ..
            } => cx.ghost.synchronises(id, *from, core.history()),
            Output::Append(entries) => {
                cx.ghost.appended(id, view.last(), entries, core.history());
                cx.note(name, || format!("appends {}", crate::text::zxids(entries)));
            }
            Output::PersistEpochs { accepted, current, .. } => {
                if core.status().role == Role::Leading && std::mem::take(self.elected) {
                    cx.ghost.proposes(node, *accepted);
                }
                if *current > cx.ghost.disks[node].current && view.last().epoch() < *current {
                    cx.ghost
                        .fail("I9 log before epoch", format!("{name}: epoch {current} without its marker"));
                }
            }
            Output::Truncate { to } => {
                cx.stats.count("TRUNC");
                cx.note(name, || format!("truncates its log to {to}"));
            }
            Output::InstallSnapshot { zxid, .. } => {
                cx.stats.count("SNAP");
                cx.note(name, || format!("begins its log anew behind {zxid}"));
            }
            Output::Purge { .. } => cx.stats.count("purges"),
            Output::Tell(FeedItem::Status(status)) => {
                cx.note(name, || {
                    format!("{:?}, serving: {}, epoch {}", status.role, status.serving, status.epoch)
                });
                if status.serving {
                    let disk = &mut cx.ghost.disks[node];
                    // A leader has given it everything again.
                    disk.impaired &= status.role == Role::Looking || disk.latent;
                }
            }
            Output::Tell(FeedItem::Refused { ticket, .. }) => {
                cx.stats.count("refused by the quorum");
                cx.ghost.refused(id, *ticket);
            }
            Output::Tell(FeedItem::Lost { ticket }) => cx.ghost.lost(id, *ticket),
            Output::Reconfigured { result, .. } => {
                cx.note(name, || format!("is told of the members: {result:?}"));
                cx.stats.count(match result {
                    Ok(_) => "members changed",
                    Err(ReconfigRefusal::Unavailable(_)) => "changes of the members without a leader",
                    Err(ReconfigRefusal::InProgress { .. }) => {
                        "changes of the members refused: one is under way"
                    }
                    Err(ReconfigRefusal::NotSynced { .. }) => {
                        "changes of the members refused: not synchronised"
                    }
                    Err(ReconfigRefusal::WouldLoseQuorum { .. }) => {
                        "changes of the members refused: no quorum left"
                    }
                    Err(_) => "changes of the members refused otherwise",
                });
            }
            Output::LevelSet { result, .. } => {
                cx.note(name, || format!("is told of the feature level: {result:?}"));
                cx.stats.count(match result {
                    Ok(_) => "feature levels raised",
                    Err(_) => "feature levels refused",
                });
            }
            _ => {}
        }
    }
}
