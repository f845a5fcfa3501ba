//! The quorum's loop: inputs gather until its turn, then the core's outputs are carried out in their order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::peer::{ToLeader, ToLearner};
use api::ports::{FeedItem, QuorumStatus, Request, Role, Sign};
use api::{Entry, PeerId, Time, Zxid};
use quorum_core::{Conn, Input, Output, Zab};
use quorum_log::{Base, Epochs, LogReader, SnapshotError, SnapshotWriter, Snapshots};

use super::disk::Task;
use super::sender::{Command, Outgoing};
use super::view::View;
use super::{Armed, ByLink, Node, Process, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{End, Kind, LinkId, Packet};

/// What the driver tells the store. Entries are read from the log.
pub(crate) enum Tell {
    Committed(Zxid),
    Item(FeedItem),
}

pub(crate) struct QuorumShell {
    pub(crate) core: Zab,
    pub(super) view: View,
    inbox: Vec<Input>,
    turn: bool,
    pub(super) armed: Armed,
    pub(super) learners: ByLink<Outgoing>,
    /// Links to leaders: one, apart from attempts that came too late.
    pub(super) leaders: ByLink<Option<SnapshotWriter>>,
    dials: u32,
    /// It was elected and has not proposed an epoch since.
    elected: bool,
    /// For S6: who is at the other end of a learner's connection, when each was heard last, since when this node leads, and when
    /// to look next.
    peers: ByLink<PeerId>,
    heard: BTreeMap<PeerId, Time>,
    reigns_since: Option<Time>,
    look_at: Time,
    pub(super) tells: VecDeque<Tell>,
    /// The store may read up to here.
    committed: Zxid,
    /// For the store, beside all else that it is told.
    pub(super) signs: VecDeque<Sign>,
    /// As the store was told.
    status: QuorumStatus,
    /// [`Input::Leave`] is done.
    pub(crate) left: bool,
}

impl QuorumShell {
    pub(super) fn new(core: Zab, view: View) -> QuorumShell {
        let committed = core.status().committed;
        let tells = VecDeque::from([
            Tell::Item(FeedItem::Status(QuorumStatus::default())),
            Tell::Committed(committed),
        ]);
        QuorumShell {
            core,
            view,
            inbox: vec![Input::Timeout],
            turn: false,
            armed: Armed::default(),
            learners: ByLink::new(),
            leaders: ByLink::new(),
            dials: 0,
            elected: false,
            peers: ByLink::new(),
            heard: BTreeMap::new(),
            reigns_since: None,
            look_at: Time(0),
            tells,
            committed,
            signs: VecDeque::new(),
            status: QuorumStatus::default(),
            left: false,
        }
    }

    /// For a feed that begins anew, as the driver of `quorum-svc` begins one.
    pub(super) fn attach(&mut self) {
        self.signs.clear();
        let status = self.core.status();
        self.tells = VecDeque::from([Tell::Committed(self.committed), Tell::Item(FeedItem::Status(status))]);
    }

    fn tell(&mut self, tell: Tell) {
        match (&tell, self.tells.back_mut()) {
            (Tell::Committed(upto), Some(Tell::Committed(last))) => *last = *upto,
            _ => self.tells.push_back(tell),
        }
    }
}

/// As in `quorum-svc`, but that the allowance is drawn.
pub(super) fn snap_before(log: &LogReader, snapshots: &Snapshots, zxid: Zxid, slack: u64) -> Zxid {
    snapshots.size(zxid).map_or(Zxid::ZERO, |size| log.back_from(zxid, 2 * size + slack, 0))
}

impl Node {
    pub(crate) fn tell_quorum(&mut self, cx: &mut Context, input: Input) {
        if let Some(process) = &mut self.up {
            process.quorum.inbox.push(input);
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
        if process.quorum.core.next_timeout().is_some_and(|at| at <= now) {
            self.tell_quorum(cx, Input::Timeout);
        } else {
            self.arm_quorum(cx);
        }
    }

    fn arm_quorum(&mut self, cx: &mut Context) {
        let Some(timeout) = self.up.as_ref().and_then(|p| p.quorum.core.next_timeout()) else { return };
        let at = self.when(timeout);
        if self.up.as_mut().is_some_and(|p| p.quorum.armed.arm(at)) {
            self.schedule(cx, at, NodeEvent::QuorumTimer);
        }
    }

    pub(super) fn quorum_turn(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let now = self.now(cx);
        let Some(process) = &mut self.up else { return Ok(()) };
        let shell = &mut process.quorum;
        shell.turn = false;
        for input in std::mem::take(&mut shell.inbox) {
            match &input {
                Input::Requests(requests) => {
                    for request in requests {
                        if let Request::Barrier { ticket } = request {
                            cx.ghost.barrier_asked(self.id, *ticket);
                        }
                    }
                }
                Input::Elected { leader } => shell.elected = *leader == self.id,
                Input::LearnerConnected { conn, peer } => drop(shell.peers.insert(conn.0, *peer)),
                Input::Disconnected { conn } => drop(shell.peers.remove(&conn.0)),
                Input::FromLearner { conn, .. } => {
                    if let Some(peer) = shell.peers.get(&conn.0) {
                        shell.heard.insert(*peer, now.mono);
                    }
                }
                _ => {}
            }
            shell.core.handle(now, input);
        }
        while let Some(output) = self.up.as_mut().and_then(|p| p.quorum.core.poll_output()) {
            self.carry_out(cx, output)?;
        }
        if let Some(process) = &mut self.up
            && !process.quorum.core.damage().is_some()
        {
            process.acquaintances.healed();
        }
        // Behind the epochs, so that it is noted first what it means.
        for met in
            self.up.as_mut().map(|p| std::mem::take(&mut p.acquaintances.to_outlive)).unwrap_or_default()
        {
            self.ask_disk(cx, Task::Outlive(met))?;
        }
        if let Some(process) = &self.up {
            let status = process.quorum.core.status();
            cx.ghost.knows_committed(self.id, status.committed, process.quorum.core.history());
            self.check_reign(cx, now.mono);
        }
        if let Some(process) = &self.up {
            let status = process.quorum.core.status();
            let last = process.quorum.view.last();
            if last != status.last {
                let text = format!(
                    "node {}: the core's log ends with {}, the shell's with {last}",
                    self.id, status.last
                );
                cx.ghost.fail("I14 core and log", text);
            }
        }
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
        let status = shell.core.status();
        if !(status.serving && status.role == Role::Leading) {
            shell.reigns_since = None;
            return;
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
            cx.ghost.reigns(self.id, &heard);
        }
    }

    fn carry_out(&mut self, cx: &mut Context, output: Output) -> Result<(), Stop> {
        let (me, index, name) = (self.end(), self.index, self.name());
        let Some(process) = &mut self.up else { return Ok(()) };
        let shell = &mut process.quorum;
        match output {
            Output::Elect(candidate) => {
                cx.note(&name, || format!("looks for a leader, with {candidate:?}"));
                if let Some(candidate) = candidate {
                    cx.ghost.stands(index, candidate.epoch, candidate.zxid);
                }
                process.election.asked = true;
                self.elect(cx, election_core::Input::Elect(candidate));
            }
            Output::Settled { leader, epoch } => {
                if leader == self.id {
                    let status = shell.core.status();
                    cx.stats.reigns += 1;
                    cx.ghost.established(self.id, epoch, shell.core.history(), status.committed);
                }
                cx.note(&name, || format!("settles under {leader} in epoch {epoch}"));
                self.elect(cx, election_core::Input::Settled { leader, epoch });
            }
            Output::Connect { leader } => {
                let delay = if shell.dials == 0 { 0 } else { 25_000 << shell.dials.min(5) };
                shell.dials += 1;
                let at = cx.now + delay;
                self.schedule(cx, at, NodeEvent::DialLeader { leader: leader.0 as usize - 1 });
            }
            Output::Disconnect { conn, why } => {
                cx.note(&name, || format!("ends connection {}: {why}", conn.0));
                shell.learners.remove(&conn.0);
                shell.leaders.remove(&conn.0);
                cx.linger(conn.0, me);
                cx.close(conn.0, me, None);
            }
            Output::ToLeader { conn, message } => {
                if !shell.leaders.contains_key(&conn.0) {
                    return Ok(());
                }
                match &message {
                    ToLeader::Ack(zxid) => cx.ghost.acks(index, *zxid),
                    ToLeader::AckEpoch { epoch, .. } => cx.ghost.promises(index, *epoch),
                    _ => {}
                }
                cx.note(&name, || format!("to leader: {}", crate::text::to_leader(&message)));
                cx.send(conn.0, me, Packet::ToLeader(message));
            }
            Output::ToLearner { conn, message } => {
                if let ToLearner::Diff { after: from } | ToLearner::Trunc { to: from } = message {
                    cx.ghost.synchronises(self.id, from, shell.core.history());
                }
                self.tell_learner(cx, conn.0, Command::Message(message));
            }
            Output::Replicate { conn, after, upto } => {
                self.tell_learner(cx, conn.0, Command::Entries { after, upto });
            }
            Output::SendSnapshot { conn, zxid } => self.tell_learner(cx, conn.0, Command::Snapshot(zxid)),
            Output::Append(entries) => self.append(cx, entries)?,
            Output::PersistEpochs { accepted, current, damage, ensemble, committed, last_stamp } => {
                if shell.core.status().role == Role::Leading && std::mem::take(&mut shell.elected) {
                    cx.ghost.proposes(index, accepted);
                }
                if current > cx.ghost.disks[index].current && shell.view.last().epoch() < current {
                    cx.ghost
                        .fail("I9 log before epoch", format!("{name}: epoch {current} without its marker"));
                }
                let epochs = Epochs { accepted, current, damage, ensemble, committed, last_stamp };
                self.ask_disk(cx, Task::Epochs(epochs))?;
            }
            Output::Truncate { to } => {
                cx.stats.count("TRUNC");
                cx.note(&name, || format!("truncates its log to {to}"));
                shell.view.cut(to);
                self.ask_disk(cx, Task::Truncate(to))?;
            }
            Output::InstallSnapshot { zxid, level } => {
                cx.stats.count("SNAP");
                cx.note(&name, || format!("begins its log anew behind {zxid}"));
                shell.view.reset(zxid);
                self.ask_disk(cx, Task::Reset(Base { zxid, level: Some(level) }))?;
            }
            Output::Purge { upto } => {
                cx.stats.count("purges");
                self.ask_disk(cx, Task::Purge(upto))?;
            }
            Output::Committed { upto } => {
                shell.committed = upto;
                shell.tell(Tell::Committed(upto));
            }
            Output::Tell(item) => self.tell(cx, item),
            Output::Sign(sign) => shell.signs.push_back(sign),
            Output::LevelSet { result, .. } => {
                cx.note(&name, || format!("is told of the feature level: {result:?}"));
                cx.stats.count(match result {
                    Ok(_) => "feature levels raised",
                    Err(_) => "feature levels refused",
                });
            }
            Output::Left => shell.left = true,
            Output::Fatal(why) => return Err(Stop::Invariant(why)),
        }
        Ok(())
    }

    fn append(&mut self, cx: &mut Context, entries: Vec<Entry>) -> Result<(), Stop> {
        let name = self.name();
        let Some(process) = &mut self.up else { return Ok(()) };
        let prev = process.quorum.view.last();
        cx.ghost.appended(self.id, prev, &entries, process.quorum.core.history());
        cx.note(name, || format!("appends {}", crate::text::zxids(&entries)));
        process.quorum.view.push(&entries);
        self.ask_disk(cx, Task::Append(entries))
    }

    fn tell(&mut self, cx: &mut Context, item: FeedItem) {
        let (id, name) = (self.id, self.name());
        let Some(process) = &mut self.up else { return };
        let shell = &mut process.quorum;
        match &item {
            FeedItem::Status(status) => {
                cx.note(&name, || {
                    format!("{:?}, serving: {}, epoch {}", status.role, status.serving, status.epoch)
                });
                shell.status = *status;
                if status.serving {
                    shell.dials = 0;
                    let disk = &mut cx.ghost.disks[self.index];
                    // A leader has given it everything again.
                    disk.impaired &= status.role == Role::Looking || disk.latent;
                }
            }
            FeedItem::Refused { ticket, .. } => {
                cx.stats.count("refused by the quorum");
                cx.ghost.refused(id, *ticket);
            }
            _ => {}
        }
        shell.tell(Tell::Item(item));
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
            // Whoever dialled speaks first.
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
            Packet::Open(open, drawn) => {
                self.client_opens(cx, link, open, drawn);
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
        let Some(process) = &mut self.up else { return Ok(None) };
        let Some(slot) = process.quorum.leaders.get_mut(&link) else { return Ok(None) };
        match packet {
            Packet::SnapStart(zxid, level) => match process.snapshots.begin_received(zxid, level) {
                Ok(writer) => *slot = Some(writer),
                Err(SnapshotError::Busy) => return Ok(None),
                Err(e) => return Err(e.into()),
            },
            Packet::SnapChunk(chunk) => match slot {
                Some(writer) => writer.chunk(&chunk)?,
                None => return Ok(None),
            },
            _ => {
                let Some(writer) = slot.take() else { return Ok(None) };
                let message = ToLearner::Snap { zxid: writer.zxid(), level: writer.level() };
                writer.finish()?;
                return Ok(Some(Input::FromLeader { conn, message }));
            }
        }
        Ok(Some(Input::SnapshotProgress { conn }))
    }
}
