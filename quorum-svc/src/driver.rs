//! The loop around the core: it feeds inputs to the core and carries out its outputs. It waits only for
//! inputs, so every output goes into a queue that merges items or is bounded elsewhere; the comment of
//! each queue says where.

mod election;
mod events;
mod observe;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use api::peer::ToLeader;
use api::ports::{Election, Role, Sign};
use api::{Epoch, Level, LevelRefusal, Now, PeerId, ReconfigRefusal, Ticket, Time, Zxid};
use quorum_core::{CLOCK_BOUND_MS, Conn, Input, Output, Zab};
use quorum_shell::{Command, Effect, Failure, Shell, Task};
use telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::acquaintances::{Acquaintances, FIRST};
use crate::backlog::Backlog;
use crate::feed::FeedQueue;
use crate::leader_link::ToOneLearner;
use crate::learner_link::{LearnerSide, ToItsLeader};
use crate::log_thread::LogThread;
use crate::measure::Measure;
use crate::outbox::{Lanes, Outbox};
use crate::room::RoomView;
use crate::service::StopReason;
use crate::trace::{Traces, appends};

use election::{Ask, ask_election};
pub(crate) use events::{Event, Inbox, Links, channels};
use observe::observe;

/// Minimum interval between two log lines about the clock.
const CLOCK_SAID: Duration = Duration::from_secs(60);
/// Maximum number of events in one turn. Their outputs leave in one batch.
const TURN: usize = 512;

pub(crate) struct Driver<E> {
    pub(crate) shell: Shell,
    pub(crate) inbox: Inbox,
    pub(crate) links: Links,
    pub(crate) disk: LogThread,
    pub(crate) backlog: Backlog,
    pub(crate) room: RoomView,
    /// Offset of this node's wall clock to the clocks of a quorum, in milliseconds; positive if it is ahead.
    pub(crate) clock: watch::Sender<Option<i64>>,
    pub(crate) election: E,
    pub(crate) learner_side: LearnerSide,
    pub(crate) acquaintances: Acquaintances,
    pub(crate) addresses: BTreeMap<PeerId, String>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) state: State,
    pub(crate) measure: Measure,
    pub(crate) traces: Traces,
}

/// The channels behind the numbers that the core uses.
#[derive(Default)]
pub(crate) struct State {
    learners: BTreeMap<Conn, ToOneLearner>,
    /// Normally one; attempts that succeeded too late may add more until the core closes them.
    leader: Vec<(Conn, ToItsLeader)>,
    feed: Option<FeedQueue>,
    /// Signs of life for the store that reads `feed`.
    signs: Option<mpsc::Sender<Sign>>,
    /// Pending requests for another feature level, by the ticket given to the core. The core bounds
    /// their number.
    level_asks: BTreeMap<Ticket, oneshot::Sender<Result<Level, LevelRefusal>>>,
    last_level_ask: Ticket,
    /// The same for other members.
    reconfig_asks: BTreeMap<Ticket, oneshot::Sender<Result<Zxid, ReconfigRefusal>>>,
    last_reconfig_ask: Ticket,
    /// Callers that wait until this node may stop.
    leaving: Vec<oneshot::Sender<()>>,
    /// Time of the last log line about a wrong clock.
    clock_said: Option<Instant>,
}

impl State {
    fn close(&mut self) {
        self.learners.values().for_each(Lanes::close);
        self.leader.iter().for_each(|(_, lanes)| lanes.close());
        self.feed.iter().for_each(Outbox::close);
    }
}

impl<E: Election> Driver<E> {
    /// Runs until shutdown or failure. In both cases it closes all streams, so neighbours notice at
    /// once and not by a timeout.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        let result = self.turns().await;
        self.state.close();
        drop(self.disk.tasks);
        // Entries that were appended still become durable.
        let thread = self.disk.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the log thread has died");
        }
        result
    }

    async fn turns(&mut self) -> Result<(), StopReason> {
        let origin = Instant::now();
        // Bounded by the number of elections during one pending answer; the task drops stale requests.
        let (asks, ask_queue) = mpsc::unbounded_channel();
        self.links.spawn(ask_election(self.election.clone(), ask_queue, self.links.clone()));
        self.carry_out(&asks)?;
        let mut first = self.acquaintances.clone().begin();
        if self.shell.core().status().epoch > Epoch(0) {
            // Other servers may report that this data directory is an older copy; this must happen
            // before the node votes.
            let _ = tokio::time::timeout(FIRST, first.recv()).await;
            while let Ok(event) = self.inbox.events.try_recv() {
                self.on_event(now(origin), event)?;
            }
        }
        self.shell.handle(now(origin), Input::Timeout);
        let mut events = Vec::with_capacity(TURN);
        let mut done = Vec::with_capacity(TURN);
        loop {
            self.carry_out(&asks)?;
            let core = self.shell.core();
            self.traces.committed(core.status().committed);
            let timeout = core.next_timeout().map_or(Duration::from_secs(3600), |at| at.since(time(origin)));
            let learners = &self.state.learners;
            self.measure.publish(core, self.shell.view(), |conn| {
                learners.get(&conn).map_or(0, |lanes| lanes.data.len())
            });
            self.watch_clock();
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                why = self.inbox.failures.recv() => return Err(StopReason::Disk(why.unwrap_or_default())),
                _ = self.inbox.events.recv_many(&mut events, TURN) => {}
                n = self.disk.done.recv_many(&mut done, TURN) => if n == 0 {
                    return Err(StopReason::Disk("the log thread has died; its message stands above".into()));
                },
                () = tokio::time::sleep(timeout) => self.shell.handle(now(origin), Input::Timeout),
            }
            // All other pending events join this turn, so batches grow with the load.
            while done.len() < TURN
                && let Ok(result) = self.disk.done.try_recv()
            {
                done.push(result);
            }
            while events.len() < TURN
                && let Ok(event) = self.inbox.events.try_recv()
            {
                events.push(event);
            }
            let now = now(origin);
            for result in done.drain(..) {
                self.shell.handle(now, result?);
            }
            for event in events.drain(..) {
                self.on_event(now, event)?;
            }
        }
    }

    /// Entries are stamped by the clocks of a quorum. A node with a wrong clock can hardly detect this
    /// by itself.
    fn watch_clock(&mut self) {
        // The offset that an old leader sent is no longer valid.
        let core = self.shell.core();
        let offset = core.clock_offset_ms().filter(|_| core.status().leader.is_some());
        self.clock.send_if_modified(|was| std::mem::replace(was, offset) != offset);
        let offset_ms = offset.unwrap_or_default();
        metrics::CLOCK_OFFSET.set(offset_ms.unsigned_abs().saturating_mul(1_000_000));
        let said = |at: Instant| at.elapsed() < CLOCK_SAID;
        if offset_ms.unsigned_abs() > CLOCK_BOUND_MS.unsigned_abs()
            && !self.state.clock_said.is_some_and(said)
        {
            self.state.clock_said = Some(Instant::now());
            tracing::error!(
                offset_ms,
                "the wall clock of this node differs from the clocks of a quorum; entries are stamped by those of the quorum. Set \
                 the clock, here or on the others, and keep it with NTP"
            );
        }
    }

    fn on_event(&mut self, now: Now, event: Event) -> Result<(), Failure> {
        match event {
            Event::Core(input) => {
                match &input {
                    Input::Disconnected { conn } => {
                        self.state.learners.remove(conn);
                        self.state.leader.retain(|(c, _)| c != conn);
                        self.measure.learner_down(*conn);
                    }
                    Input::FromLearner { conn, message: ToLeader::Ack(zxid) } => {
                        self.measure.acked(*conn, *zxid);
                    }
                    _ => {}
                }
                self.shell.handle(now, input);
            }
            Event::Requests { mut batch, at } => {
                self.measure.requests(at, &batch);
                self.traces.requests(&mut batch);
                self.shell.handle(now, Input::Requests(batch));
            }
            Event::LearnerLink { conn, peer, lanes } => {
                self.state.learners.insert(conn, lanes);
                self.measure.learner_up(conn, peer);
                self.shell.handle(now, Input::LearnerConnected { conn, peer });
            }
            Event::LeaderLink { conn, leader, lanes } => {
                // A cancelled attempt may still succeed late; the core then disconnects it by its number.
                self.state.leader.push((conn, lanes));
                self.shell.handle(now, Input::LeaderConnected { conn, leader });
            }
            Event::Attach { feed, signs, after } => {
                self.state.signs = Some(signs);
                self.shell.attach(now, after).into_iter().for_each(|tell| {
                    // A new feed has room.
                    let _ = feed.push(tell);
                });
                if let Some(older) = self.state.feed.replace(feed) {
                    older.close();
                }
            }
            Event::Status(reply) => {
                // The caller may be gone.
                let _ = reply.send(self.shell.core().status());
            }
            Event::SetLevel { expected, level, reply } => {
                let ticket = Ticket(self.state.last_level_ask.0 + 1);
                self.state.last_level_ask = ticket;
                self.state.level_asks.insert(ticket, reply);
                self.shell.handle(now, Input::SetLevel { ticket, expected, level });
            }
            Event::Reconfigure { reconfig, reply } => {
                let ticket = Ticket(self.state.last_reconfig_ask.0 + 1);
                self.state.last_reconfig_ask = ticket;
                self.state.reconfig_asks.insert(ticket, reply);
                self.shell.handle(now, Input::Reconfigure { ticket, reconfig });
            }
            Event::SnapshotWanted => self.shell.want_snapshot(),
            Event::RolledBack { by, met } => {
                self.shell.rolled_back(now, by, met)?;
            }
            Event::Heard { peer, damage, suspicion } => {
                self.shell.heard(now, peer, damage, suspicion);
            }
            Event::Forsaken => self.shell.forsake(),
            Event::Leave(reply) if self.shell.left() => {
                let _ = reply.send(());
            }
            Event::Leave(reply) => {
                self.state.leaving.push(reply);
                self.shell.handle(now, Input::Leave);
            }
        }
        Ok(())
    }

    /// Carries out all pending effects of the core.
    fn carry_out(&mut self, asks: &mpsc::UnboundedSender<Ask>) -> Result<(), Failure> {
        loop {
            let (measure, traces) = (&mut self.measure, &mut self.traces);
            let observe = |core: &Zab, output: &mut Output| observe(core, output, measure, traces);
            let Some(effect) = self.shell.poll_effect(observe)? else { return Ok(()) };
            match effect {
                Effect::Say(said) => self.acquaintances.own.send_modify(|own| {
                    (own.greeting.standing, own.said) = (said.standing, said);
                }),
                Effect::Members(roster) => {
                    self.acquaintances.own.send_modify(|own| own.greeting.roster = roster);
                }
                // The task ends with the service.
                Effect::Introduce(standing, roster) => drop(asks.send(Ask::Introduce(standing, roster))),
                Effect::Elect(candidate) => drop(asks.send(Ask::Elect(candidate))),
                Effect::Settled { leader, epoch } => drop(asks.send(Ask::Settled { leader, epoch })),
                Effect::Dial { leader, delay } => match self.addresses.get(&leader) {
                    Some(address) => {
                        self.links.spawn(self.learner_side.clone().connect(leader, address.clone(), delay));
                    }
                    None => tracing::error!(%leader, "the elected leader is not in `members`"),
                },
                Effect::Disconnect { conn } => {
                    if let Some(lanes) = self.state.learners.remove(&conn) {
                        lanes.close();
                    }
                    for (_, lanes) in self.state.leader.extract_if(.., |(c, _)| *c == conn) {
                        lanes.close();
                    }
                }
                Effect::ToLeader { conn, message } => {
                    if let Some((_, lanes)) = self.state.leader.iter().find(|(c, _)| *c == conn) {
                        let lane = if message.is_control() { &lanes.control } else { &lanes.data };
                        lane.push(message);
                    }
                }
                Effect::ToLearner { conn, command } => self.to_learner(conn, command),
                Effect::Disk(task) => self.to_disk(task),
                Effect::Tell(tell) => {
                    if self.state.feed.as_ref().is_some_and(|feed| !feed.push(tell)) {
                        self.state.feed = None;
                    }
                }
                Effect::Sign(sign) => drop(self.state.signs.as_ref().map(|signs| signs.try_send(sign))),
                Effect::LevelSet { ticket, result } => {
                    if let Some(reply) = self.state.level_asks.remove(&ticket) {
                        // The caller may be gone.
                        let _ = reply.send(result);
                    }
                }
                Effect::Reconfigured { ticket, result } => {
                    if let Some(reply) = self.state.reconfig_asks.remove(&ticket) {
                        // The caller may be gone.
                        let _ = reply.send(result);
                    }
                }
                Effect::Left => {
                    for reply in self.state.leaving.drain(..) {
                        // The caller may have timed out.
                        let _ = reply.send(());
                    }
                }
                Effect::MeetAgain => self.acquaintances.meet_again(),
                Effect::LostQuorum => self.acquaintances.lost_quorum(),
            }
        }
    }

    fn to_learner(&self, conn: Conn, command: Command) {
        let Some(lanes) = self.state.learners.get(&conn) else { return };
        let open = match command {
            Command::Message(message) if message.is_control() => lanes.control.push(message),
            command => lanes.data.push(command),
        };
        if !open {
            tracing::debug!(conn = conn.0, "a learner's stream has ended");
        }
    }

    fn to_disk(&self, task: Task) {
        let mut spans = Vec::new();
        if let Task::Append(entries) = &task {
            let bytes = entries.iter().map(api::Entry::weight).sum();
            self.backlog.add(bytes);
            self.room.wrote(bytes);
            spans = appends(entries, self.shell.core().status().role == Role::Leading);
        }
        // If the thread has ended, `done` has the reason.
        let _ = self.disk.tasks.send((task, spans));
    }
}

fn time(origin: Instant) -> Time {
    Time(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

fn now(origin: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { mono: time(origin), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
}
