//! The one loop around the core: inputs in, outputs carried out. It waits for nothing but its inputs, so whatever it
//! hands out goes into a queue that merges or is bounded elsewhere; each queue says where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use api::peer::{Damage, Incarnation, ToLeader, ToLearner};
use api::ports::{Candidate, Election, FeedItem, QuorumStatus, Request, Role, Sign};
use api::{Epoch, Level, LevelRefusal, Now, PeerId, Standing, Ticket, Time, Zxid};
use quorum_core::{CLOCK_BOUND_MS, Conn, Input, Output, Zab};
use quorum_log::{Base, Epochs};
use spans::lines;
use telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acquaintances::{Acquaintances, FIRST};
use crate::backlog::Backlog;
use crate::feed::{FeedQueue, Tell};
use crate::leader_link::{Send, ToOneLearner};
use crate::learner_link::{LearnerSide, ToItsLeader};
use crate::log_thread::{DiskFailure, LogThread, Task};
use crate::measure::Measure;
use crate::outbox::{Lanes, Outbox};
use crate::room::RoomView;
use crate::service::StopReason;
use crate::trace::{Traces, appends};
use crate::view::LogView;

/// Between two complaints about the clock.
const CLOCK_SAID: Duration = Duration::from_secs(60);
/// Events that are handled in one turn at most, so that their outputs leave in one batch.
const TURN: usize = 512;

/// What the driver is told by links, handle and tasks.
pub(crate) enum Event {
    Core(Input),
    /// Of this node's store, and when it asked.
    Requests {
        batch: Vec<Request>,
        at: Instant,
    },
    LearnerLink {
        conn: Conn,
        peer: PeerId,
        lanes: ToOneLearner,
    },
    LeaderLink {
        conn: Conn,
        leader: PeerId,
        lanes: ToItsLeader,
    },
    /// Of a store, and what it has applied.
    Attach {
        feed: FeedQueue,
        signs: mpsc::Sender<Sign>,
        after: Zxid,
    },
    Status(oneshot::Sender<QuorumStatus>),
    /// See [`Input::SetLevel`].
    SetLevel {
        expected: Level,
        level: Level,
        reply: oneshot::Sender<Result<Level, LevelRefusal>>,
    },
    /// There is little room: a snapshot would make the log shorter.
    SnapshotWanted,
    /// See [`Task::Forsake`].
    Forsaken,
    /// See [`Input::RolledBack`].
    RolledBack {
        by: PeerId,
        met: Incarnation,
    },
    /// Another server says what it has lost, or does not answer, asked when this one was suspected for so many times.
    Heard {
        peer: PeerId,
        damage: Option<Damage>,
        suspicion: u64,
    },
    /// See [`Input::Leave`]; answered when it is done.
    Leave(oneshot::Sender<()>),
}

/// What links need of the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links {
    events: mpsc::Sender<Event>,
    conns: Arc<AtomicU64>,
    peers: Arc<BTreeSet<PeerId>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    failures: mpsc::Sender<String>,
}

impl Links {
    /// False when the driver is gone.
    pub(crate) async fn send(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// A number that no connection of this process had before.
    pub(crate) fn next_conn(&self) -> Conn {
        Conn(self.conns.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn is_member(&self, peer: PeerId) -> bool {
        self.peers.contains(&peer)
    }

    /// Runs a task until it ends or the service does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + std::marker::Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// Stops the node.
    pub(crate) fn fail(&self, why: String) {
        // One reason is enough.
        let _ = self.failures.try_send(why);
    }
}

/// Ends of the channels that only the driver reads.
pub(crate) struct Inbox {
    events: mpsc::Receiver<Event>,
    failures: mpsc::Receiver<String>,
}

pub(crate) fn channels(
    peers: BTreeSet<PeerId>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) -> (Links, Inbox) {
    let (events_in, events) = mpsc::channel(1024);
    let (failures_in, failures) = mpsc::channel(1);
    let conns = Arc::new(AtomicU64::new(1));
    let links =
        Links { events: events_in, conns, peers: Arc::new(peers), tasks, shutdown, failures: failures_in };
    (links, Inbox { events, failures })
}

pub(crate) struct Driver<E> {
    pub(crate) core: Zab,
    pub(crate) inbox: Inbox,
    pub(crate) links: Links,
    pub(crate) disk: LogThread,
    pub(crate) backlog: Backlog,
    pub(crate) room: RoomView,
    pub(crate) view: LogView,
    /// How far this node's wall clock is ahead of those of a quorum, in milliseconds, for whoever asks.
    pub(crate) clock: watch::Sender<Option<i64>>,
    pub(crate) election: E,
    pub(crate) learner_side: LearnerSide,
    pub(crate) acquaintances: Acquaintances,
    pub(crate) addresses: BTreeMap<PeerId, String>,
    pub(crate) shutdown: CancellationToken,
    /// There are others from whom this node can heal.
    pub(crate) may_heal: bool,
    pub(crate) state: State,
    pub(crate) measure: Measure,
    pub(crate) traces: Traces,
}

/// The other ends of what the core talks about by number.
#[derive(Default)]
pub(crate) struct State {
    learners: BTreeMap<Conn, ToOneLearner>,
    /// One, apart from attempts that came too late and are about to be closed.
    leader: Vec<(Conn, ToItsLeader)>,
    feed: Option<FeedQueue>,
    /// Of the same store.
    signs: Option<mpsc::Sender<Sign>>,
    committed: Zxid,
    status: QuorumStatus,
    /// Who has asked for another feature level, by the number that the core was given; it bounds them.
    level_asks: BTreeMap<Ticket, oneshot::Sender<Result<Level, LevelRefusal>>>,
    last_level_ask: Ticket,
    /// Who waits until this node may stop.
    leaving: Vec<oneshot::Sender<()>>,
    /// Whether it may.
    left: bool,
    /// Attempts to reach a leader since this node last served.
    dials: u32,
    /// Incarnations of this node that others have met and its directory did not know.
    told: BTreeSet<Incarnation>,
    /// Those of them of which it is not noted what they mean.
    unknown: Vec<Incarnation>,
    /// Those that it is to know from now on, because that is noted.
    to_outlive: Vec<Incarnation>,
    /// Others that were asked what they have lost since this node is suspected to stand on an older copy, and whether that is
    /// anything.
    heard: BTreeMap<PeerId, bool>,
    /// It was said in the log that this node waits for an operator.
    waits: bool,
    /// When it was last said that the clock is wrong.
    clock_said: Option<Instant>,
}

impl State {
    /// Of a node whose log stands on the snapshot at `base`, which is committed: also a store that has less is told so, if
    /// nothing is ever committed behind it.
    pub(crate) fn standing_on(base: Zxid) -> State {
        State { committed: base, ..State::default() }
    }

    fn close(&mut self) {
        self.learners.values().for_each(Lanes::close);
        self.leader.iter().for_each(|(_, lanes)| lanes.close());
        self.feed.iter().for_each(Outbox::close);
    }
}

/// The first attempt to reach a leader is made at once; while they lead nowhere they become rarer.
fn dial_delay(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => Duration::from_millis(25 << n.min(5)),
    }
}

/// What the task that talks to the election is asked.
enum Ask {
    Elect(Option<Candidate>),
    Settled { leader: PeerId, epoch: Epoch },
    Introduce(Standing),
}

impl<E: Election> Driver<E> {
    /// Runs until shutdown or failure. However it ends, neighbours are told at once and not by a time-out.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        let result = self.turns().await;
        self.state.close();
        drop(self.disk.tasks);
        // What was appended still becomes durable.
        let thread = self.disk.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the log thread has died");
        }
        result
    }

    async fn turns(&mut self) -> Result<(), StopReason> {
        let origin = Instant::now();
        // Bounded by the elections that happen while one answer is awaited; the task drops stale ones.
        let (asks, ask_queue) = mpsc::unbounded_channel();
        self.links.spawn(ask_election(self.election.clone(), ask_queue, self.links.clone()));
        let _ = asks.send(Ask::Introduce(self.core.standing()));
        let mut first = self.acquaintances.clone().begin();
        if self.core.status().epoch > Epoch(0) {
            // Whoever can tell this node that it stands on an older copy of its directory shall do so before it votes.
            let _ = tokio::time::timeout(FIRST, first.recv()).await;
            while let Ok(event) = self.inbox.events.try_recv() {
                self.on_event(now(origin), event);
            }
        }
        self.core.handle(now(origin), Input::Timeout);
        let mut events = Vec::with_capacity(TURN);
        let mut done = Vec::with_capacity(TURN);
        loop {
            while let Some(output) = self.core.poll_output() {
                if let Output::Fatal(why) = output {
                    return Err(StopReason::Invariant(why));
                }
                self.carry_out(output, &asks);
            }
            self.introduce(&asks);
            if !self.core.damage().is_some() && !self.state.unknown.is_empty() {
                // A leader has sent it what it lacked before it was noted.
                self.state.to_outlive.extend(std::mem::take(&mut self.state.unknown));
                self.state.waits = false;
            }
            // Behind the epochs, so that it is noted first what it means.
            for met in std::mem::take(&mut self.state.to_outlive) {
                self.to_disk(Task::Outlive(met));
            }
            self.traces.committed(self.core.status().committed);
            self.watch_clock();
            let learners = &self.state.learners;
            self.measure.publish(&self.core, &self.view, |conn| {
                learners.get(&conn).map_or(0, |lanes| lanes.data.len())
            });
            let timeout =
                self.core.next_timeout().map_or(Duration::from_secs(3600), |at| at.since(time(origin)));
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                why = self.inbox.failures.recv() => return Err(StopReason::Disk(why.unwrap_or_default())),
                _ = self.inbox.events.recv_many(&mut events, TURN) => {}
                n = self.disk.done.recv_many(&mut done, TURN) => if n == 0 {
                    return Err(StopReason::Disk("the log thread has died; its message stands above".into()));
                },
                () = tokio::time::sleep(timeout) => self.core.handle(now(origin), Input::Timeout),
            }
            // What else has come meanwhile joins this turn, so that batches grow with the load.
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
                self.on_disk(now, result)?;
            }
            for event in events.drain(..) {
                self.on_event(now, event);
            }
        }
    }

    /// Times of entries come from the clocks of a quorum. Whose clock is wrong can hardly find out by itself.
    fn watch_clock(&mut self) {
        // What an old leader said is not known any more.
        let offset = self.core.clock_offset_ms().filter(|_| self.core.status().leader.is_some());
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

    fn on_disk(&mut self, now: Now, result: Result<Input, DiskFailure>) -> Result<(), StopReason> {
        let input = result.map_err(|failure| StopReason::Disk(failure.to_string()))?;
        if let Input::Persisted { upto } = input {
            self.view.set_durable(upto);
        }
        self.core.handle(now, input);
        Ok(())
    }

    fn on_event(&mut self, now: Now, event: Event) {
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
                self.core.handle(now, input);
            }
            Event::Requests { mut batch, at } => {
                self.measure.requests(at, &batch);
                self.traces.requests(&mut batch);
                self.core.handle(now, Input::Requests(batch));
            }
            Event::LearnerLink { conn, peer, lanes } => {
                self.state.learners.insert(conn, lanes);
                self.measure.learner_up(conn, peer);
                self.core.handle(now, Input::LearnerConnected { conn, peer });
            }
            Event::LeaderLink { conn, leader, lanes } => {
                // An attempt that is no longer wanted may succeed late; the core then disconnects it by its number.
                self.state.leader.push((conn, lanes));
                self.core.handle(now, Input::LeaderConnected { conn, leader });
            }
            Event::Attach { feed, signs, after } => {
                self.state.signs = Some(signs);
                self.core.handle(now, Input::StoreAttached { applied: after });
                // First, so that a store that comes back does not serve before it has caught up.
                feed.push(Tell::Committed { upto: self.state.committed });
                // With the end of the log as it is now: a store that leads has to know the closes that are under way.
                feed.push(Tell::Item(FeedItem::Status(self.core.status())));
                if let Some(older) = self.state.feed.replace(feed) {
                    older.close();
                }
            }
            Event::Status(reply) => {
                // The asker may have gone.
                let _ = reply.send(self.core.status());
            }
            Event::SetLevel { expected, level, reply } => {
                let ticket = Ticket(self.state.last_level_ask.0 + 1);
                self.state.last_level_ask = ticket;
                self.state.level_asks.insert(ticket, reply);
                self.core.handle(now, Input::SetLevel { ticket, expected, level });
            }
            Event::SnapshotWanted => self.tell(Tell::Item(FeedItem::SnapshotWanted)),
            Event::RolledBack { by, met } => self.on_rolled_back(now, by, met),
            Event::Heard { peer, damage, suspicion } => self.on_heard(now, peer, damage, suspicion),
            Event::Forsaken => self.to_disk(Task::Forsake { may_heal: self.may_heal }),
            Event::Leave(reply) if self.state.left => {
                let _ = reply.send(());
            }
            Event::Leave(reply) => {
                self.state.leaving.push(reply);
                self.core.handle(now, Input::Leave);
            }
        }
    }

    /// Tells links and election what this node says of itself from now on.
    fn introduce(&self, asks: &mpsc::UnboundedSender<Ask>) {
        let (standing, damage, level) = (self.core.standing(), self.core.damage(), self.core.level());
        let QuorumStatus { serving, leader, .. } = self.core.status();
        let own = &self.acquaintances.own;
        let (before, served) = (own.borrow().greeting.standing, own.borrow().serving);
        own.send_if_modified(|own| {
            let said = (own.greeting.standing, own.damage, own.serving, own.leader, own.level);
            (own.greeting.standing, own.damage, own.serving, own.leader, own.level) =
                (standing, damage, serving, leader, level);
            said != (standing, damage, serving, leader, level)
        });
        if standing != before {
            let _ = asks.send(Ask::Introduce(standing));
        }
        if served && !serving {
            self.acquaintances.lost_quorum();
        }
    }

    /// Others have met this node in an incarnation that its directory does not know. It acts as damaged at once; it notes that
    /// only when it is known that the quorum does not depend on it.
    fn on_rolled_back(&mut self, now: Now, by: PeerId, met: Incarnation) {
        // It may be told once more before it can say that it knows.
        if !self.state.told.insert(met) {
            return;
        }
        self.state.unknown.push(met);
        if !self.may_heal {
            return self.links.fail(format!(
                "server {by} has met this node in an incarnation that its data directory does not know: that is an older copy, and \
                 there is no other voter to heal from. Put the newest copy back or, to go on from this one, use \
                 `quorate recover trust-directory`"
            ));
        }
        if self.core.status().epoch == Epoch(0) {
            tracing::warn!(
                %by,
                "other servers have met this node before, but its data directory is new: what it had is lost, and comes back from \
                 the leader. It does not vote until then. If the whole ensemble is to begin anew, stop all of it, and give each \
                 node an empty directory, observers too"
            );
        } else {
            tracing::error!(
                %by,
                "another server has met this node in an incarnation that its data directory does not know: its data directory is an \
                 older copy. It does not vote until a leader has sent it what it lacks. If no other voter is left that has \
                 more, decide which directory is to be the truth, and use `quorate recover trust-directory` there"
            );
        }
        self.core.handle(now, Input::RolledBack { note: false });
        self.state.heard.clear();
        // In this order: whoever is asked from now on may count on what this node says of itself.
        let damage = self.core.damage();
        self.acquaintances.own.send_modify(|own| {
            own.damage = damage;
            own.suspicion += 1;
        });
        self.acquaintances.meet_again();
    }

    /// Notes that this node stands on an older copy, once all other voters were asked and a quorum of them has lost nothing as far as
    /// is known. Two servers that are told at the same time both say so before they ask each other, so at least one of them does
    /// not count on the other: what others say never costs the ensemble its quorum for good.
    fn on_heard(&mut self, now: Now, peer: PeerId, damage: Option<Damage>, suspicion: u64) {
        let own = self.acquaintances.own.borrow();
        if self.state.unknown.is_empty() || suspicion != own.suspicion {
            return;
        }
        self.state.heard.insert(peer, damage.is_some_and(Damage::is_some));
        let members = &own.greeting.members;
        let others: BTreeSet<PeerId> = members.voters().filter(|&voter| voter != own.greeting.id).collect();
        if others.iter().any(|voter| !self.state.heard.contains_key(voter)) {
            return;
        }
        let sound = others.into_iter().filter(|voter| self.state.heard.get(voter) == Some(&false)).collect();
        if !members.is_quorum(&sound) {
            drop(own);
            if !std::mem::replace(&mut self.state.waits, true) {
                tracing::error!(
                    "this node does not note that its data directory is an older copy, because without it no quorum is left that has \
                     lost nothing; it waits. Decide which data directories are to be the truth: `quorate recover --help`"
                );
            }
            return;
        }
        drop(own);
        self.core.handle(now, Input::RolledBack { note: true });
        self.state.to_outlive.extend(std::mem::take(&mut self.state.unknown));
    }

    fn carry_out(&mut self, output: Output, asks: &mpsc::UnboundedSender<Ask>) {
        match output {
            Output::Elect(candidate) => {
                // The election has to know first who is a stranger.
                self.introduce(asks);
                self.traces.looking();
                let _lines = lines(self.traces.recovery()).entered();
                match candidate {
                    Some(c) => tracing::info!(epoch = %c.epoch, zxid = %c.zxid, "looking for a leader"),
                    None => tracing::info!("looking for a leader without standing for election"),
                }
                let _ = asks.send(Ask::Elect(candidate));
            }
            Output::Settled { leader, epoch } => {
                let _lines = lines(self.traces.recovery()).entered();
                tracing::info!(%leader, %epoch, "settled");
                let _ = asks.send(Ask::Settled { leader, epoch });
            }
            Output::Connect { leader } => match self.addresses.get(&leader) {
                Some(address) => {
                    let delay = dial_delay(self.state.dials);
                    self.state.dials += 1;
                    self.links.spawn(self.learner_side.clone().connect(leader, address.clone(), delay));
                }
                None => tracing::error!(%leader, "the elected leader is not in `members`"),
            },
            Output::Disconnect { conn, why } => {
                let _lines = lines(self.traces.recovery()).entered();
                tracing::info!(conn = conn.0, why, "disconnect");
                self.measure.learner_down(conn);
                if let Some(lanes) = self.state.learners.remove(&conn) {
                    lanes.close();
                }
                for (_, lanes) in self.state.leader.extract_if(.., |(c, _)| *c == conn) {
                    lanes.close();
                }
            }
            Output::ToLeader { conn, mut message } => {
                self.traces.sent_to_leader(&mut message);
                if let Some((_, lanes)) = self.state.leader.iter().find(|(c, _)| *c == conn) {
                    let lane = if message.is_control() { &lanes.control } else { &lanes.data };
                    lane.push(message);
                }
            }
            Output::ToLearner { conn, message } => {
                if matches!(message, ToLearner::UpToDate { .. }) {
                    self.measure.learner_synced(conn);
                }
                self.to_learner(conn, Send::Message(message));
            }
            Output::Replicate { conn, after, upto } => {
                self.measure.replicated(conn, after, upto, self.core.history());
                self.to_learner(conn, Send::Entries { after, upto });
            }
            Output::SendSnapshot { conn, zxid } => self.to_learner(conn, Send::Snapshot(zxid)),
            Output::Append(mut entries) => {
                let leading = self.core.status().role == Role::Leading;
                self.measure.appended(&entries, leading);
                self.traces.appended(&mut entries, leading);
                self.view.push(&entries);
                let bytes = entries.iter().map(api::Entry::weight).sum();
                self.backlog.add(bytes);
                self.room.wrote(bytes);
                let spans = appends(&entries, leading);
                self.to_disk(Task::Append { entries, spans });
            }
            Output::PersistEpochs { accepted, current, damage, ensemble, committed, last_stamp } => self
                .to_disk(Task::Epochs(Epochs { accepted, current, damage, ensemble, committed, last_stamp })),
            Output::Truncate { to } => {
                let _lines = lines(self.traces.recovery()).entered();
                tracing::info!(%to, "truncating the log");
                self.view.cut(to);
                self.traces.truncated(to);
                self.to_disk(Task::Truncate(to));
            }
            Output::InstallSnapshot { zxid, level } => {
                let _lines = lines(self.traces.recovery()).entered();
                tracing::info!(%zxid, "the log starts anew behind the leader's snapshot");
                self.view.reset(zxid);
                self.to_disk(Task::Reset(Base { zxid, level: Some(level) }));
            }
            Output::Purge { upto } => self.to_disk(Task::Purge(upto)),
            Output::Committed { upto } => {
                self.measure.committed(upto, self.core.history());
                self.state.committed = upto;
                self.tell(Tell::Committed { upto });
            }
            Output::Tell(item) => {
                let lines = lines(self.traces.recovery());
                self.traces.told(&item);
                let _lines = lines.entered();
                if let FeedItem::Status(status) = &item {
                    tracing::info!(role = ?status.role, serving = status.serving, leader = ?status.leader.map(|l| l.0),
                        epoch = %status.epoch, room = ?status.room, "status");
                    self.state.status = *status;
                    self.measure.status(status);
                    if status.serving {
                        self.state.dials = 0;
                    }
                }
                if let FeedItem::Refused { .. } = &item {
                    metrics::REFUSED_WRITES.add(1);
                }
                self.tell(Tell::Item(item));
            }
            // One for which there is no room is lost.
            Output::Sign(sign) => drop(self.state.signs.as_ref().map(|signs| signs.try_send(sign))),
            Output::LevelSet { ticket, result } => {
                let _lines = lines(self.traces.recovery()).entered();
                match &result {
                    Ok(level) => tracing::info!(%level, "the feature level that was asked for is committed"),
                    Err(why) => tracing::warn!(%why, "the feature level stays as it is"),
                }
                if let Some(reply) = self.state.level_asks.remove(&ticket) {
                    // The asker may have gone.
                    let _ = reply.send(result);
                }
            }
            Output::Left => {
                self.state.left = true;
                for reply in self.state.leaving.drain(..) {
                    // The asker may have lost patience.
                    let _ = reply.send(());
                }
            }
            // Handled by the loop.
            Output::Fatal(_) => {}
        }
    }

    fn to_learner(&self, conn: Conn, command: Send) {
        let Some(lanes) = self.state.learners.get(&conn) else { return };
        let open = match command {
            Send::Message(message) if message.is_control() => lanes.control.push(message),
            command => lanes.data.push(command),
        };
        if !open {
            tracing::debug!(conn = conn.0, "a learner's stream has ended");
        }
    }

    fn to_disk(&self, task: Task) {
        // If the thread is gone, its reason is in `done`.
        let _ = self.disk.tasks.send(task);
    }

    fn tell(&mut self, tell: Tell) {
        if let Some(feed) = &self.state.feed
            && !feed.push(tell)
        {
            self.state.feed = None;
        }
    }
}

/// Asks the election one thing at a time; a newer question takes the place of an unanswered one.
async fn ask_election<E: Election>(election: E, mut asks: mpsc::UnboundedReceiver<Ask>, links: Links) {
    let mut next = asks.recv().await;
    while let Some(ask) = next.take() {
        match ask {
            Ask::Elect(candidate) => {
                let mut answer = std::pin::pin!(election.elect(candidate));
                loop {
                    tokio::select! {
                        answer = &mut answer => {
                            if let Ok(leader) = answer {
                                links.send(Event::Core(Input::Elected { leader })).await;
                            }
                            next = asks.recv().await;
                            break;
                        }
                        newer = asks.recv() => match newer {
                            // The search goes on.
                            Some(Ask::Introduce(standing)) => drop(election.introduce(standing).await),
                            newer => {
                                next = newer;
                                break;
                            }
                        },
                    }
                }
            }
            // Errors mean that the election service is shutting down, and so is this one.
            Ask::Settled { leader, epoch } => {
                let _ = election.settled(leader, epoch).await;
                next = asks.recv().await;
            }
            Ask::Introduce(standing) => {
                let _ = election.introduce(standing).await;
                next = asks.recv().await;
            }
        }
    }
}

fn time(origin: Instant) -> Time {
    Time(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX))
}

fn now(origin: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { mono: time(origin), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
}
