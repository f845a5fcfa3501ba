//! One server: the production core, its disk, and what its shell knows. A step of it is a function of the server and
//! the event alone, so it is computed once and then looked up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use api::ports::{FeedItem, Request, Role};
use api::{Entry, Epoch, Level, Now, PeerId, Roster, Ticket, Time, Zxid};
use bytes::Bytes;
use invariants::Answer;
use quorum_core::{Config, Conn, Input, Output, ToLeader, ToLearner, Zab};

use super::disk::{Disk, Op, Stored};
use super::fault::Fault;
use super::net::Message;
use crate::pool::Pool;

/// All clocks stand still here, so that the same situation is the same state whenever it comes about.
const STILL: Now = Now { mono: Time(0), wall_ms: 0 };
/// When a time-out is to fire, the clock shows this for one moment: later than every limit of the core.
const LATE: Now = Now { mono: Time(7_200_000_000), wall_ms: 0 };
/// How long a commit waits for a proposal, where it waits: shorter than every other limit.
pub(crate) const COMMIT_WAITS: Duration = Duration::from_secs(1);
/// When that is over, the clock shows this for one moment.
const COMMIT_DUE: Now = Now { mono: Time(1_000_000), wall_ms: 0 };
/// Shorter than [`LATE`].
pub(crate) const LIMIT: Duration = Duration::from_secs(3600);
/// Longer than [`LATE`]: requests are never refused for waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(86_400);
/// A connection that never is, to bring the core's clock back.
const NO_CONN: Conn = Conn(u64::MAX);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Server {
    pub(crate) core: Zab,
    pub(crate) disk: Disk,
    /// The election was asked and has not answered.
    pub(crate) electing: bool,
    /// The last zxid that the store has.
    pub(crate) applied: Zxid,
}

/// Every message that was ever sent.
pub(crate) struct Messages {
    pub(crate) up: Pool<ToLeader>,
    pub(crate) down: Pool<Down>,
}

/// The events of one server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    Lead,
    /// The election names this leader, and the connection is established at once.
    Follow(PeerId, Conn),
    Accept(Conn, PeerId),
    FromLearner(Conn, Message),
    FromLeader(Conn, Message),
    Closed(Conn),
    Disk,
    /// With this many entries of the append under way on disk.
    Crash(usize),
    Wipe,
    /// A crash, and after this number of entries its log is damaged.
    Damage(usize),
    /// A crash, and an older copy with this many entries takes the place of its disk.
    PutBack(usize),
    /// A leader is about to stop.
    Leave,
    /// It has waited for too long, for anything.
    GiveUp,
    /// As a leader it has waited for long enough to send a commit along with a proposal.
    CommitDue,
    Submit(Ticket),
    Barrier(Ticket),
    SaveSnapshot,
}

/// The messages from a leader to a learner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Down {
    Message(ToLearner),
    /// All of it; the learner's core hears of it when it is durable there.
    Snapshot(Zxid, Arc<Roster>),
}

/// The outputs of a step of one server.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Up(Conn, Message),
    Down(Conn, Message),
    Close(Conn),
    /// Both ends will hear of it.
    Break(Conn),
    Settled(PeerId, Epoch),
    /// As a leader this server put the marker of an epoch into its log.
    Opened(Epoch),
    Answer(Ticket, Answer),
    BarrierTold(Ticket, Zxid),
    Died,
}

impl Server {
    pub(crate) fn new(config: Config, stored: Stored, fault: Fault) -> Result<Server, String> {
        let durable = stored.recover(fault)?;
        let applied = stored.base;
        let core = Zab::new(config, durable);
        Ok(Server { core, disk: Disk { stored, ..Disk::default() }, electing: false, applied })
    }

    /// Whether a commit waits for a proposal to go along with.
    pub(crate) fn commit_waits(&self) -> bool {
        self.core.status().role == Role::Leading && self.core.next_timeout() == Some(COMMIT_DUE.mono)
    }
}

/// One step of one server.
pub(crate) struct Turn<'a> {
    config: &'a Config,
    fault: Fault,
    messages: &'a mut Messages,
    pub(crate) server: Server,
    pub(crate) effects: Vec<Effect>,
    dialled: Option<PeerId>,
    /// The planted bug's reports, due after the outputs.
    early: Vec<Input>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(
        config: &'a Config,
        fault: Fault,
        messages: &'a mut Messages,
        server: Server,
    ) -> Turn<'a> {
        Turn { config, fault, messages, server, effects: Vec::new(), dialled: None, early: Vec::new() }
    }

    /// Carries an event out. An error names the invariant that is broken.
    pub(crate) fn take(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Lead => {
                self.server.electing = false;
                self.input(Input::Elected { leader: self.config.me })
            }
            Event::Follow(leader, conn) => {
                self.server.electing = false;
                self.input(Input::Elected { leader: *leader })?;
                match self.dialled.take() {
                    Some(dialled) if dialled == *leader => {
                        self.input(Input::LeaderConnected { conn: *conn, leader: *leader })
                    }
                    _ => Err(format!("elected {leader}, but did not connect to it")),
                }
            }
            Event::Accept(conn, peer) => self.input(Input::LearnerConnected { conn: *conn, peer: *peer }),
            Event::FromLearner(conn, message) => {
                let message = self.messages.up.get(message.0).as_ref().clone();
                self.input(Input::FromLearner { conn: *conn, message })
            }
            Event::FromLeader(conn, down) => match self.messages.down.get(down.0).clone().as_ref() {
                Down::Message(message) => {
                    self.input(Input::FromLeader { conn: *conn, message: message.clone() })
                }
                Down::Snapshot(zxid, roster) => self.receive_snapshot(*conn, *zxid, roster.clone()),
            },
            Event::Closed(conn) => self.input(Input::Disconnected { conn: *conn }),
            Event::Disk => match self.server.disk.step(self.fault)? {
                Some(input) => self.input(input),
                None => Ok(()),
            },
            Event::Crash(entries) => {
                self.server.disk.crash(*entries, self.fault)?;
                self.restart()
            }
            Event::Wipe => {
                self.server.disk = Disk::default();
                self.restart()
            }
            Event::Damage(kept) => {
                self.server.disk.damage(*kept);
                self.restart()
            }
            Event::PutBack(kept) => {
                self.server.disk.put_back(*kept);
                self.restart()
            }
            Event::Leave => self.input(Input::Leave),
            Event::GiveUp => {
                self.input_at(LATE, Input::Timeout)?;
                self.input(Input::Disconnected { conn: NO_CONN })
            }
            Event::CommitDue => {
                self.input_at(COMMIT_DUE, Input::Timeout)?;
                self.input(Input::Disconnected { conn: NO_CONN })
            }
            Event::Submit(ticket) => {
                let payload = Bytes::new();
                self.input(Input::Requests(vec![Request::Submit { ticket: *ticket, payload, trace: None }]))
            }
            Event::Barrier(ticket) => self.input(Input::Requests(vec![Request::Barrier { ticket: *ticket }])),
            Event::SaveSnapshot => {
                let zxid = self.server.applied;
                let snapshots = &mut self.server.disk.stored.snapshots;
                let purge_to = snapshots.last().copied();
                snapshots.push(zxid);
                let (hold_from, snap_before) = (Zxid::ZERO, Zxid::ZERO);
                self.input(Input::SnapshotSaved { zxid, purge_to, hold_from, snap_before })
            }
        }
    }

    /// The server restarts at once: a running server without input is like a server that is down.
    fn restart(&mut self) -> Result<(), String> {
        self.effects.push(Effect::Died);
        let stored = std::mem::take(&mut self.server.disk).stored;
        self.server = Server::new(self.config.clone(), stored, self.fault)?;
        self.outputs()
    }

    fn receive_snapshot(&mut self, conn: Conn, zxid: Zxid, roster: Arc<Roster>) -> Result<(), String> {
        let snapshots = &mut self.server.disk.stored.snapshots;
        if !snapshots.contains(&zxid) {
            snapshots.push(zxid);
            snapshots.sort_unstable();
        }
        self.input(Input::FromLeader { conn, message: ToLearner::Snap { zxid, level: Level::FIRST, roster } })
    }

    fn input(&mut self, input: Input) -> Result<(), String> {
        self.input_at(STILL, input)
    }

    fn input_at(&mut self, now: Now, input: Input) -> Result<(), String> {
        let core = &mut self.server.core;
        caught(|| core.handle(now, input))?;
        self.outputs()?;
        match self.early.pop() {
            Some(input) => self.input_at(now, input),
            None => Ok(()),
        }
    }

    /// Carries out what the core wants.
    pub(crate) fn outputs(&mut self) -> Result<(), String> {
        loop {
            let core = &mut self.server.core;
            match caught(|| core.poll_output())? {
                Some(output) => self.carry_out(output)?,
                None => return Ok(()),
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), String> {
        let disk = &mut self.server.disk;
        match output {
            Output::Elect(candidate) => {
                let last = candidate.map(|c| c.zxid);
                if last.is_some_and(|z| z != disk.stored.last()) && self.fault.checks_promises() {
                    return Err(format!("2845: stands with {last:?}, durable is {}", disk.stored.last()));
                }
                if last.is_some() && disk.stored.damage.is_some() {
                    return Err("stands with a hole in its log".into());
                }
                self.server.electing = true;
            }
            Output::Settled { leader, epoch } => self.effects.push(Effect::Settled(leader, epoch)),
            Output::Connect { leader } => self.dialled = Some(leader),
            Output::Disconnect { conn, .. } => self.effects.push(Effect::Close(conn)),
            Output::ToLeader { conn, message } => {
                self.check_promise(&message)?;
                let message = Message(self.messages.up.number(message));
                self.effects.push(Effect::Up(conn, message));
            }
            Output::ToLearner { conn, message } => {
                if let ToLearner::LeaderInfo { epoch, .. } = message
                    && epoch > disk.stored.accepted
                    && self.fault.checks_promises()
                {
                    return Err(format!("I9: epoch {epoch} is proposed before it is durable"));
                }
                self.send_down(conn, Down::Message(message));
            }
            Output::Replicate { conn, after, upto, commit } => self.replicate(conn, after, upto, commit)?,
            Output::SendSnapshot { conn, zxid, roster } => {
                if !disk.stored.snapshots.contains(&zxid) {
                    return Err(format!("I15: sends a snapshot of {zxid}, which is not there"));
                }
                self.send_down(conn, Down::Snapshot(zxid, roster));
            }
            Output::Append(entries) => self.append(entries)?,
            Output::PersistEpochs { accepted, current, damage, ensemble, committed, .. } => {
                disk.queue.push_back(Op::Epochs { accepted, current, damage, ensemble, committed })
            }
            Output::Truncate { to } => disk.queue.push_back(Op::Truncate(to)),
            Output::InstallSnapshot { zxid, roster, .. } => disk.queue.push_back(Op::Install(zxid, roster)),
            Output::Purge { upto } => disk.queue.push_back(Op::Purge(upto)),
            Output::Committed { upto } => self.apply(upto)?,
            Output::Sign(_) => {}
            Output::Tell(item) => self.tell(item),
            Output::Left | Output::LevelSet { .. } | Output::Reconfigured { .. } => {}
            Output::Fatal(why) => return Err(format!("the server stops: {why}")),
        }
        Ok(())
    }

    /// I9, I10: a server's messages about its disk are true.
    fn check_promise(&self, message: &ToLeader) -> Result<(), String> {
        if !self.fault.checks_promises() {
            return Ok(());
        }
        let stored = &self.server.disk.stored;
        match message {
            ToLeader::AckEpoch { epoch, history, .. } => {
                if *epoch > stored.accepted {
                    return Err(format!("I9: epoch {epoch} is promised before it is durable"));
                }
                if history.last() != stored.last() {
                    return Err(format!("I9: tells of {}, durable is {}", history.last(), stored.last()));
                }
            }
            ToLeader::Ack(zxid) => {
                if *zxid > stored.last() {
                    return Err(format!("I10: acknowledges {zxid}, durable is {}", stored.last()));
                }
                if stored.current != stored.accepted {
                    return Err(format!("I10: acknowledges {zxid} before its epoch is durable"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn replicate(&mut self, conn: Conn, after: Zxid, upto: Zxid, commit: Option<Zxid>) -> Result<(), String> {
        let (base, view) = self.server.disk.view();
        if after < base {
            // The shell cannot read that range any more, and ends the connection.
            self.effects.push(Effect::Break(conn));
            return Ok(());
        }
        let entries: Vec<Entry> = view.into_iter().filter(|e| e.zxid > after && e.zxid <= upto).collect();
        if entries.last().map(|e| e.zxid) != Some(upto) {
            return Err(format!("I14: sends {upto}, which is not in the log"));
        }
        let commit = match self.fault {
            Fault::CommitRidesAhead => commit.map(|_| upto),
            _ => commit,
        };
        let message = ToLearner::Propose { prev: after, entries, commit };
        self.send_down(conn, Down::Message(message));
        Ok(())
    }

    fn send_down(&mut self, conn: Conn, down: Down) {
        let down = Message(self.messages.down.number(down));
        self.effects.push(Effect::Down(conn, down));
    }

    fn append(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        let (base, view) = self.server.disk.view();
        let mut last = view.last().map_or(base, |e| e.zxid);
        for e in &entries {
            if !e.zxid.follows(last) {
                return Err(format!("I14: {} behind {last}", e.zxid));
            }
            last = e.zxid;
            if e.is_marker() && self.server.core.status().role == Role::Leading {
                self.effects.push(Effect::Opened(e.zxid.epoch()));
            }
        }
        if self.fault == Fault::AckBeforeDurable {
            self.early.push(Input::Persisted { upto: last });
        }
        self.server.disk.queue.push_back(Op::Append(entries));
        Ok(())
    }

    /// The store takes what is committed and durable.
    fn apply(&mut self, upto: Zxid) -> Result<(), String> {
        let server = &mut self.server;
        if !server.disk.stored.has(upto) && self.fault.checks_promises() {
            return Err(format!("I10: {upto} is applied before it is durable"));
        }
        let me = self.config.me;
        let (base, view) = server.disk.view();
        let from = server.applied.max(base.min(upto));
        let mine = view.iter().filter(|e| e.zxid > from && e.zxid <= upto);
        let tickets = mine.filter_map(|e| e.origin.filter(|o| o.peer == me)).map(|o| o.ticket);
        self.effects.extend(tickets.map(|t| Effect::Answer(t, Answer::Applied)));
        server.applied = upto;
        Ok(())
    }

    fn tell(&mut self, item: FeedItem) {
        let effect = match item {
            FeedItem::Refused { ticket, .. } => Effect::Answer(ticket, Answer::Refused),
            FeedItem::Lost { ticket } => Effect::Answer(ticket, Answer::Lost),
            FeedItem::Barrier { ticket } => Effect::BarrierTold(ticket, self.server.applied),
            _ => return,
        };
        self.effects.push(effect);
    }
}

/// A failed assertion of the core is a violation like any other.
fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        format!("the core panicked: {}", text.unwrap_or_default())
    })
}
