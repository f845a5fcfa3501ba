//! The one task that touches the core.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    Identities, OpError, PeerId, Time, Trace, Zxid,
    ports::{Quorum, Role, Sign},
    record::{self, Record},
    session::{Item, Op, Open, Request, Response},
};
use store_core::server::{Ask, ConnId, Drawn, Input, Output};
use store_shell::{Effect, FromQuorum, Shell};
use telemetry::metrics;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    StopReason,
    lane::Lane,
    measure::{self, Timings},
    quorum_io::{self, Pieces, Said},
    table::{self, Checkpointer, Job, Part, TableError},
    trace::{Open as Spans, Traced},
};

/// What a client, or the task that speaks for it, wants.
pub(crate) enum FromClient {
    /// A stream begins.
    Open {
        /// Its number.
        conn: ConnId,
        /// With what.
        open: Open,
        /// For it.
        drawn: Drawn,
        /// See [`Input::Open`].
        identities: Identities,
        /// Where answers go.
        lane: Arc<Lane>,
    },
    /// More of a stream.
    Requests {
        /// Which one.
        conn: ConnId,
        /// See [`Input::Requests`].
        acked: api::WriteNumber,
        /// In order.
        requests: Vec<Request>,
        /// Of those that are traced, by their index.
        spans: Vec<(usize, Traced)>,
        /// When they came in.
        received: Instant,
    },
    /// One call.
    Unary {
        /// Its number.
        conn: ConnId,
        /// What is asked.
        op: Op,
        /// The span that it is part of.
        trace: Trace,
        /// See [`Input::Unary`].
        identities: Identities,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Response, OpError>>,
        /// When the call came in.
        received: Instant,
    },
    /// How the store is now.
    Facts(oneshot::Sender<Facts>),
}

/// What comes outside of [`FromClient`], because whoever says it cannot wait.
pub(crate) enum Aside {
    /// See [`Input::Drained`].
    Drained {
        /// Who.
        conn: ConnId,
        /// How much.
        bytes: usize,
    },
    /// The client of a stream or of a call has gone. May come before the stream or call does.
    GivenUp {
        /// Which one.
        conn: ConnId,
    },
}

/// How the store is.
pub(crate) struct Facts {
    /// Of the state.
    pub(crate) state: record::Header,
    /// See [`store_core::Server::ready`].
    pub(crate) ready: bool,
}

/// Where answers for a connection go.
enum Sink {
    Stream(Arc<Lane>, Timings, Spans),
    Unary { timings: Timings, reply: oneshot::Sender<Result<Response, OpError>> },
}

/// See the [module](self).
pub(crate) struct Driver<Q> {
    pub(crate) shell: Shell,
    /// When the core's time began.
    pub(crate) origin: Instant,
    pub(crate) quorum: Q,
    pub(crate) inputs: mpsc::Receiver<FromClient>,
    pub(crate) asides: mpsc::UnboundedReceiver<Aside>,
    pub(crate) checkpointer: Checkpointer,
    /// Where the checkpoint is.
    pub(crate) data_dir: PathBuf,
    /// See [`crate::Config`].
    pub(crate) snapshot_entries: u64,
    /// See [`crate::Config`].
    pub(crate) snapshot_bytes: u64,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) shutdown: CancellationToken,
}

impl<Q: Quorum> Driver<Q> {
    pub(crate) async fn run(self) -> Result<(), StopReason> {
        let (to_quorum, asks) = mpsc::channel(quorum_io::ASK_QUEUE);
        // Ends with this function, and its tasks with it.
        let mut tasks = JoinSet::new();
        let attached = Attached::new(&self.quorum, self.shell.server.state().applied(), &mut tasks);
        let writer = self.quorum.clone();
        tasks.spawn(async move { quorum_io::write_asks(writer, asks).await.map(|()| Ended::Link) });
        let now = Instant::now();
        let schedule = Schedule::new(now, self.shell.server.me());
        let (sinks, asks) = (HashMap::new(), Vec::new());
        Running { driver: self, sinks, attached, to_quorum, asks, tasks, schedule, exporting: None }
            .run()
            .await
    }
}

struct Running<Q> {
    driver: Driver<Q>,
    /// Looked up only.
    sinks: HashMap<ConnId, Sink>,
    attached: Attached,
    to_quorum: mpsc::Sender<Vec<Ask>>,
    /// Not yet taken by `to_quorum`. While there are any, nothing is read from clients.
    asks: Vec<Ask>,
    tasks: JoinSet<Result<Ended, StopReason>>,
    schedule: Schedule,
    exporting: Option<Exporting>,
}

/// A state on its way to the checkpoint thread.
struct Exporting {
    /// Lets few parts wait, so a slow thread holds the export back and nothing else.
    parts: mpsc::Sender<Part>,
    /// Whether it becomes the checkpoint.
    checkpoint: bool,
    /// Those that come first.
    records: Vec<Record>,
    /// When the next part is to be made.
    next: Instant,
}

impl Exporting {
    /// Waits until it is time for the next part and there is room for it; for ever without an export.
    async fn turn(exporting: Option<&Exporting>) {
        let Some(Exporting { parts, next, .. }) = exporting else { return std::future::pending().await };
        if *next > Instant::now() {
            tokio::time::sleep_until((*next).into()).await;
        }
        // If the thread wants no more, that shows with the next part.
        drop(parts.reserve().await);
    }
}

/// What comes from the quorum.
struct Attached {
    feed: mpsc::Receiver<Said>,
    /// Signs of life are taken before all else: other nodes' clients wait for them.
    signs: mpsc::Receiver<Sign>,
    reader: AbortHandle,
}

impl Attached {
    /// Behind this entry.
    fn new<Q: Quorum>(quorum: &Q, after: Zxid, tasks: &mut JoinSet<Result<Ended, StopReason>>) -> Attached {
        let (to_driver, feed) = mpsc::channel(quorum_io::FEED_QUEUE);
        let (signs_to_driver, signs) = mpsc::channel(quorum_io::SIGN_QUEUE);
        let quorum = quorum.clone();
        let reader = tasks.spawn(async move {
            quorum_io::read_feed(quorum, after, to_driver, signs_to_driver).await.map(|()| Ended::Link)
        });
        Attached { feed, signs, reader }
    }
}

/// A task that has ended well.
enum Ended {
    /// To or from the quorum; only when the driver ends.
    Link,
    /// The quorum has the snapshot, or a better one.
    Snapshot {
        /// The size of it; `None` if the quorum did not want all of it.
        bytes: Option<u64>,
    },
}

/// When the next checkpoint and the next snapshot are due.
struct Schedule {
    /// When the last snapshot began.
    snapshot: Instant,
    /// How much of what is usual has to be logged before the next snapshot, in percent.
    percent: u64,
    /// When the last checkpoint began.
    checkpoint: Instant,
    /// When the last entry was applied.
    last_entry: Instant,
    /// The last checkpoint could not be written: when it is tried again, and how long that is after the failure.
    failed: Option<(Instant, Duration)>,
    /// The task of a snapshot that is on its way.
    saving: Option<AbortHandle>,
    /// There was no space for a checkpoint: when to look again.
    no_space: Option<Instant>,
    /// What the thread has to do is a snapshot, which says nothing of the table.
    is_snapshot: bool,
}

impl Schedule {
    fn new(now: Instant, me: PeerId) -> Schedule {
        // Nodes count the same entries: only the first time they count differently far, and stay apart from then on. Multiples of
        // the golden ratio are far from each other, however many nodes there are.
        let percent = 40 + u64::from(me.0) * 618 % 1000 * 60 / 1000;
        Schedule {
            snapshot: now,
            percent,
            checkpoint: now,
            last_entry: now,
            failed: None,
            saving: None,
            no_space: None,
            is_snapshot: false,
        }
    }
}

impl<Q: Quorum> Running<Q> {
    async fn run(mut self) -> Result<(), StopReason> {
        let result = self.serve().await;
        let me = self.driver.shell.server.me();
        let why = match &result {
            Ok(()) => format!("node {me} is shutting down; connect to another node"),
            Err(_) => format!("node {me} has a fault and stops; connect to another node"),
        };
        self.send_all_away(OpError::Unavailable(why)).await;
        result?;
        self.last_checkpoint().await;
        Ok(())
    }

    /// Until the shutdown, or a fault.
    async fn serve(&mut self) -> Result<(), StopReason> {
        let shutdown = self.driver.shutdown.clone();
        let to_quorum = self.to_quorum.clone();
        // Until every service that could let clients in is dropped.
        let mut clients = true;
        loop {
            if self.driver.shell.server.has_more() {
                self.handle(Input::Tick);
            }
            self.carry_out()?;
            self.keep();
            let wake = self.wake_at();
            let asking = !self.asks.is_empty();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(Ended::Link)) => {}
                    Ok(Ok(Ended::Snapshot { bytes })) => {
                        self.schedule.saving = None;
                        if let Some(bytes) = bytes {
                            self.driver.shell.since_snapshot.snapshot_bytes = bytes;
                        }
                    }
                    Ok(Err(reason)) => return Err(reason),
                    // A snapshot that was given up, or a feed that was replaced.
                    Err(e) if e.is_cancelled() => {}
                    Err(e) => return Err(StopReason::Invariant(format!("a task of the store has died: {e}"))),
                },
                done = self.driver.checkpointer.done() => self.on_checkpoint(done),
                Some(sign) = self.attached.signs.recv() => self.handle(Input::Sign(sign)),
                Some(said) = self.attached.feed.recv() => {
                    self.on_quorum(said);
                    // Where the quorum has more to say than can be applied, its turn never ends: clients would wait
                    // until then, and sessions expire whose pings are here.
                    self.export_if_time();
                    self.on_asides_waiting();
                    if !asking {
                        self.on_clients_waiting();
                    }
                }
                Some(aside) = self.driver.asides.recv() => self.on_aside(aside),
                permit = to_quorum.reserve(), if asking => match permit {
                    Ok(permit) => permit.send(std::mem::take(&mut self.asks)),
                    // Its task has ended, and says why.
                    Err(_) => tokio::task::yield_now().await,
                },
                input = self.driver.inputs.recv(), if clients && !asking => {
                    clients = input.is_some();
                    input.into_iter().for_each(|input| self.on_client(input));
                    self.on_clients_waiting();
                }
                () = Exporting::turn(self.exporting.as_ref()) => self.export(),
                () = tokio::time::sleep_until(wake.into()) => self.handle(Input::Tick),
            }
        }
    }

    async fn send_all_away(&mut self, why: OpError) {
        self.driver.ready.send_replace(false);
        self.driver.shell.server.close_all(&why);
        // It knows which calls have left a doubt. What it would ask of the quorum comes too late.
        while let Some(output) = self.driver.shell.server.poll_output() {
            match output {
                Output::Send { conn, items } => self.send(conn, items),
                Output::Close { conn, why } => self.end(conn, why),
                Output::Ask(_) | Output::Stop { .. } | Output::Diverged { .. } => {}
            }
        }
        for (_, sink) in self.sinks.drain() {
            match sink {
                Sink::Stream(lane, ..) => lane.end(Err(why.clone())),
                // Whoever asked may have gone.
                Sink::Unary { reply, .. } => drop(reply.send(Err(why.clone()))),
            }
        }
        // Whoever comes now finds the door closed. For unary calls, the end of their channel says the same.
        self.driver.inputs.close();
        while let Some(input) = self.driver.inputs.recv().await {
            if let FromClient::Open { lane, .. } = input {
                lane.end(Err(why.clone()));
            }
        }
    }

    async fn last_checkpoint(mut self) {
        // What is under way is given up, so that the thread is free.
        self.tasks.shutdown().await;
        self.give_up_export();
        if self.driver.checkpointer.busy() {
            let done = self.driver.checkpointer.done().await;
            self.on_checkpoint(done);
        }
        let state = self.driver.shell.server.state();
        if state.is_whole() && state.dirty_len() > DIRTY_MANY {
            tracing::info!(
                znodes = state.tree().len(),
                entries = self.driver.shell.since_snapshot.entries,
                "no last checkpoint of a large state: the next start reads the last snapshot and the entries behind it"
            );
        } else {
            let changes = self.driver.shell.server.take_dirty();
            self.driver.checkpointer.begin(Job::Changes(changes));
            let done = self.driver.checkpointer.done().await;
            self.on_checkpoint(done);
        }
        self.driver.checkpointer.stop().await;
    }

    /// A checkpoint is written, or could not be: then the node goes on, and tries later to write the whole state.
    fn on_checkpoint(&mut self, done: Result<(), TableError>) {
        if std::mem::take(&mut self.schedule.is_snapshot) && done.is_ok() {
            return self.give_up_export();
        }
        let pause = self.schedule.failed.map_or(RETRY_MIN, |(_, pause)| RETRY_MAX.min(2 * pause));
        self.schedule.failed = None;
        if let Err(error) = done {
            tracing::error!(
                %error, retry_in = ?pause,
                "the checkpoint cannot be written; the node goes on without"
            );
            self.schedule.failed = Some((Instant::now() + pause, pause));
            self.driver.shell.server.forget_checkpoint();
        }
        // A thread that is done wants no more parts.
        self.give_up_export();
    }

    /// Ends the export before its last part. What was to become of it comes to nothing.
    fn give_up_export(&mut self) {
        let Some(exporting) = self.exporting.take() else { return };
        self.driver.shell.server.end_export();
        if exporting.checkpoint {
            self.driver.shell.server.forget_checkpoint();
        } else if let Some(snapshot) = self.schedule.saving.take() {
            // Its end would never come.
            snapshot.abort();
        }
    }

    /// The same as the turn of the export in the loop, which may not come to it.
    fn export_if_time(&mut self) {
        let due = |exporting: &Exporting| exporting.next <= Instant::now() && exporting.parts.capacity() > 0;
        if self.exporting.as_ref().is_some_and(due) {
            self.export();
        }
    }

    /// Makes the next part of the export. There is room for it.
    fn export(&mut self) {
        let began = Instant::now();
        let Some(exporting) = &mut self.exporting else { return };
        let Some((znodes, more)) = self.driver.shell.server.export(PART, PART_BYTES) else {
            return self.give_up_export();
        };
        let mut records = std::mem::take(&mut exporting.records);
        records.extend(znodes.into_iter().map(Record::Znode));
        // So much of the time is left to others; when there is nothing else to do, all of it is for this.
        let busy = began.duration_since(self.schedule.last_entry) < QUIET;
        exporting.next = if busy {
            began + PACE * u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX)
        } else {
            began
        };
        let sent = exporting.parts.try_send(Part { records, last: !more });
        if sent.is_err() {
            self.give_up_export();
        } else if !more {
            self.exporting = None;
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.driver.shell.server.handle(now, input);
    }

    fn on_quorum(&mut self, (said, spans): Said) {
        if let FromQuorum::Feed { entries: entries @ 1.., .. } = &said {
            self.schedule.last_entry = Instant::now();
            metrics::STORE_APPLIED.add(*entries);
        }
        let now = self.now();
        self.driver.shell.on_quorum(now, said);
        drop(spans);
    }

    fn on_client(&mut self, input: FromClient) {
        match input {
            // Given up on the way here.
            FromClient::Open { lane, .. } if lane.is_over() => {}
            FromClient::Open { conn, open, drawn, identities, lane } => {
                self.sinks.insert(conn, Sink::Stream(lane, Timings::default(), Spans::default()));
                self.handle(Input::Open { conn, open, drawn, identities });
            }
            FromClient::Requests { conn, acked, requests, spans, received } => {
                if let Some(Sink::Stream(_, timings, open)) = self.sinks.get_mut(&conn) {
                    timings.take_up(received, requests.iter().map(|r| &r.op));
                    open.take_up(&requests, spans);
                }
                self.handle(Input::Requests { conn, acked, requests });
            }
            // Given up on the way here.
            FromClient::Unary { reply, .. } if reply.is_closed() => {}
            FromClient::Unary { conn, op, trace, identities, reply, received } => {
                let mut timings = Timings::default();
                timings.take_up(received, [&op]);
                self.sinks.insert(conn, Sink::Unary { timings, reply });
                self.handle(Input::Unary { conn, op, trace, identities });
            }
            FromClient::Facts(reply) => {
                let server = &self.driver.shell.server;
                // Whoever asked may have gone.
                drop(reply.send(Facts { state: server.state().header(), ready: server.ready() }));
            }
        }
    }

    fn on_aside(&mut self, aside: Aside) {
        match aside {
            Aside::Drained { conn, bytes } => self.handle(Input::Drained { conn, bytes }),
            Aside::GivenUp { conn } => self.on_closed(conn),
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        self.sinks.remove(&conn);
        self.handle(Input::Closed { conn });
    }

    /// Takes what clients have sent already, up to a bound.
    fn on_clients_waiting(&mut self) {
        for _ in 0..INPUTS_AT_ONCE {
            let Ok(input) = self.driver.inputs.try_recv() else { return };
            self.on_client(input);
        }
    }

    /// The same for asides.
    fn on_asides_waiting(&mut self) {
        for _ in 0..INPUTS_AT_ONCE {
            let Ok(aside) = self.driver.asides.try_recv() else { return };
            self.on_aside(aside);
        }
    }

    /// Does what the core says.
    fn carry_out(&mut self) -> Result<(), StopReason> {
        let now = self.now();
        while let Some(effect) = self.driver.shell.poll_effect(now)? {
            match effect {
                Effect::Ask(mut asks) if self.asks.is_empty() => std::mem::swap(&mut self.asks, &mut asks),
                Effect::Ask(asks) => self.asks.extend(asks),
                Effect::Send { conn, items } => self.send(conn, items),
                Effect::Close { conn, why } => self.end(conn, why),
                Effect::Attach { .. } => self.attach_anew(),
            }
        }
        if !self.asks.is_empty()
            && let Ok(permit) = self.to_quorum.try_reserve()
        {
            permit.send(std::mem::take(&mut self.asks));
        }
        let ready = self.driver.shell.server.ready();
        measure::publish(&self.driver.shell.server, self.sinks.len());
        self.driver.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
        Ok(())
    }

    /// The state was thrown away: the quorum gives another one.
    fn attach_anew(&mut self) {
        metrics::STORE_DIVERGED.add(1);
        self.attached.reader.abort();
        if let Some(snapshot) = self.schedule.saving.take() {
            snapshot.abort();
        }
        self.attached = Attached::new(&self.driver.quorum, Zxid::ZERO, &mut self.tasks);
    }

    fn end(&mut self, conn: ConnId, why: Result<(), OpError>) {
        match self.sinks.remove(&conn) {
            Some(Sink::Stream(lane, ..)) => lane.end(why),
            // Whoever asked may have gone.
            Some(Sink::Unary { reply, .. }) => drop(reply.send(why.and(Err(no_answer())))),
            None => {}
        }
    }

    fn send(&mut self, conn: ConnId, mut items: Vec<Item>) {
        match self.sinks.get_mut(&conn) {
            Some(Sink::Stream(lane, timings, open)) => {
                timings.answered(&items);
                open.answered(&items);
                lane.send(items);
            }
            Some(Sink::Unary { timings, .. }) => {
                timings.answered(&items);
                if let (Some(Sink::Unary { reply, .. }), Some(Item::Response(response))) =
                    (self.sinks.remove(&conn), items.pop())
                {
                    // Whoever asked may have gone.
                    drop(reply.send(Ok(response)));
                }
            }
            None => {}
        }
    }

    /// Begins a checkpoint or snapshot if one is due.
    fn keep(&mut self) {
        let now = Instant::now();
        let state = self.driver.shell.server.state();
        if !state.is_whole() && state.dirty_len() > DIRTY_MANY {
            // To write all of it then costs less than to remember what changes.
            self.driver.shell.server.forget_checkpoint();
        }
        if self.driver.checkpointer.busy() {
            return;
        }
        let quiet = || self.snapshot_due_at().is_some_and(|at| now >= at);
        if self.schedule.saving.is_none() && (self.snapshot_due() || quiet()) {
            return self.begin_snapshot();
        }
        let failed = self.schedule.failed.map(|(at, _)| at);
        if [failed, self.schedule.no_space].into_iter().flatten().any(|at| now < at) {
            return;
        }
        if self.checkpoint_due().is_none_or(|at| now < at) {
            return;
        }
        self.schedule.checkpoint = now;
        if !self.has_space() {
            return;
        }
        let server = &mut self.driver.shell.server;
        let job = match server.state().is_whole() && server.state().dirty_len() > DIRTY_MANY {
            false => Job::Changes(server.take_dirty()),
            true => Job::Whole(self.begin_export(true)),
        };
        self.driver.checkpointer.begin(job);
    }

    fn begin_snapshot(&mut self) {
        self.driver.shell.since_snapshot.begin();
        (self.schedule.snapshot, self.schedule.percent) = (Instant::now(), 100);
        let state = self.driver.shell.server.state();
        // In a snapshot all paths and values are as they are.
        let (zxid, at_least) = (state.applied(), state.tree().bytes() as u64);
        let parts = self.begin_export(false);
        let (pieces, rest) = mpsc::channel(PIECES_AHEAD);
        let quorum = self.driver.quorum.clone();
        let task = self.tasks.spawn(async move {
            let (pieces, mut whole) = Pieces::new(rest, at_least);
            if let Err(e) = quorum.save_snapshot(zxid, pieces).await {
                // Whether the quorum is gone for good, the feed says. If not, there will be another snapshot.
                tracing::warn!(%zxid, "the quorum has not taken the snapshot: {e}");
            }
            Ok(Ended::Snapshot { bytes: whole.try_recv().ok() })
        });
        (self.schedule.saving, self.schedule.is_snapshot) = (Some(task), true);
        self.driver.checkpointer.begin(Job::Snapshot { parts, pieces });
    }

    fn begin_export(&mut self, checkpoint: bool) -> mpsc::Receiver<Part> {
        let (parts, to_thread) = mpsc::channel(PARTS_AHEAD);
        let records = self.driver.shell.server.begin_export(checkpoint);
        self.exporting = Some(Exporting { parts, checkpoint, records, next: Instant::now() });
        to_thread
    }

    /// Whether so much has been logged that a snapshot is due. The leader has more to do than others, and waits longer.
    fn snapshot_due(&self) -> bool {
        let Driver { shell, snapshot_entries, snapshot_bytes, .. } = &self.driver;
        let znodes = shell.server.state().tree().len() as u64;
        let more = if self.leads() { LEADER_MORE } else { 0 };
        shell.since_snapshot.is_due(znodes, *snapshot_entries, *snapshot_bytes, self.schedule.percent + more)
    }

    fn leads(&self) -> bool {
        self.driver.shell.server.status().role == Role::Leading
    }

    /// When a snapshot is due, as far as that is a matter of time: when it is quiet, because it disturbs nothing then and the next
    /// start is quick, and in the end of any time.
    fn snapshot_due_at(&self) -> Option<Instant> {
        let since = &self.driver.shell.since_snapshot;
        let entries = SPARED_MIN.min(self.driver.snapshot_entries);
        if self.schedule.saving.is_some() || since.entries < entries {
            return None;
        }
        let quiet = if self.leads() { 2 * QUIET_LONG } else { QUIET_LONG };
        Some((self.schedule.last_entry + quiet).min(self.schedule.snapshot + SNAPSHOT_MAX))
    }

    /// Whether the next checkpoint fits on the disk. Else it waits, so that it does not take what the log needs.
    fn has_space(&mut self) -> bool {
        let found = rustix::fs::statvfs(&self.driver.data_dir);
        // Where that cannot be told, the checkpoint finds out.
        let (free, total) = found.map_or((u64::MAX, 0), |found| {
            (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize))
        });
        // One that failed has left a table that goes first.
        let free = match self.schedule.failed {
            Some(_) => free.saturating_add(table::size(&self.driver.data_dir)),
            None => free,
        };
        self.fits(free, total)
    }

    /// The same on a disk of `total` bytes of which so many are free.
    fn fits(&mut self, free: u64, total: u64) -> bool {
        let needed_for = |bytes: usize| {
            // It is written to free space first, whatever it replaces.
            let needs = 2 * bytes as u64;
            // A small one is always tried: it may be what makes room.
            needs + (total / 8).clamp(SPARE_MIN, SPARE_MAX).min(needs)
        };
        let server = &mut self.driver.shell.server;
        let (state, removal) = (server.state(), api::Path::MAX_BYTES + RECORD);
        let whole = state.record_bytes();
        // The changes need no more than the whole state and a removal for each; most disks have that much. To count them looks
        // at each of up to a million, and nothing is applied meanwhile.
        let mut needs = needed_for(whole + state.dirty_len() * removal);
        if free < needs {
            needs = needed_for(state.dirty_bytes());
        }
        let whole = needed_for(whole);
        if free < needs && whole < needs {
            // More changes than state: the state takes less space on the disk, and the list of changes takes memory.
            server.forget_checkpoint();
            needs = whole;
        }
        let before = self.schedule.no_space.take();
        if free < needs {
            self.schedule.no_space = Some(Instant::now() + CHECKPOINT_MIN);
        }
        match (before, free < needs) {
            (None, true) => tracing::warn!(
                free_mib = free >> 20,
                needs_mib = needs >> 20,
                "the checkpoint waits for space on the disk, and the log is not purged meanwhile: delete znodes, or free or add space"
            ),
            (Some(_), false) => {
                tracing::info!(free_mib = free >> 20, "there is space for the checkpoint again")
            }
            _ => {}
        }
        free >= needs
    }

    /// When the next checkpoint is due, if there is anything to write: soon when it is quiet, rarely under load, and more rarely if it
    /// is all of a large state, of which there are snapshots.
    fn checkpoint_due(&self) -> Option<Instant> {
        let dirty = self.driver.shell.server.state().dirty_len();
        if dirty == 0 {
            return None;
        }
        let Schedule { checkpoint, last_entry, failed, .. } = &self.schedule;
        if let Some((retry_at, _)) = failed {
            return Some(*retry_at);
        }
        let (checkpoint, last_entry) = (*checkpoint, *last_entry);
        let soonest = checkpoint + CHECKPOINT_MIN;
        let (quiet, latest) = match dirty > DIRTY_MANY {
            true => (WHOLE_QUIET, WHOLE_MAX),
            false => (QUIET, CHECKPOINT_MAX),
        };
        Some((last_entry + quiet).max(soonest).min(checkpoint + latest))
    }

    fn wake_at(&self) -> Instant {
        let core = self
            .driver
            .shell
            .server
            .next_timeout()
            .map(|at| self.driver.origin + Duration::from_micros(at.0));
        let busy = self.driver.checkpointer.busy();
        let [checkpoint, snapshot] =
            [self.checkpoint_due(), self.snapshot_due_at()].map(|due| due.filter(|_| !busy));
        let never = Instant::now() + Duration::from_secs(3600);
        [core, checkpoint, snapshot].into_iter().flatten().fold(never, Instant::min)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.driver.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

fn no_answer() -> OpError {
    OpError::Internal("the call ended without an answer".into())
}

/// Messages from clients that are handled before their outputs are carried out, in one batch to the quorum.
const INPUTS_AT_ONCE: usize = 256;
/// At most one checkpoint in this time.
const CHECKPOINT_MIN: Duration = Duration::from_secs(1);
/// Under load, at least one checkpoint in this time: so much of the log is replayed after a crash.
const CHECKPOINT_MAX: Duration = Duration::from_secs(30);
/// No entry for so long means that it is quiet.
const QUIET: Duration = Duration::from_millis(200);
/// No more changed records than these are remembered and copied at once for the checkpoint. Behind more, all of a larger state is
/// written anew, in parts.
const DIRTY_MANY: usize = 65_536;
/// When a large state is written anew: after so long without an entry, or after so long in any case. It takes sled minutes of its
/// thread for each ten million znodes.
const WHOLE_QUIET: Duration = Duration::from_secs(30);
const WHOLE_MAX: Duration = Duration::from_secs(600);
/// After so long without an entry a snapshot is made, if it spares the next start as many entries as [`SPARED_MIN`]; the leader waits
/// twice as long.
const QUIET_LONG: Duration = Duration::from_secs(1);
const SPARED_MIN: u64 = 50_000;
/// And after so long in any case.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// By how many percent more has to be logged before a leader makes a snapshot.
const LEADER_MORE: u64 = 25;
/// A part of an export: so many znodes, or so many bytes of values. It takes about 0.2 ms.
const PART: usize = 512;
const PART_BYTES: usize = 1 << 20;
/// Parts between the driver and the checkpoint thread.
const PARTS_AHEAD: usize = 2;
/// For each microsecond that a part takes there is none for so long, while there are entries.
const PACE: Duration = Duration::from_micros(5);
/// After a checkpoint that could not be written, the next is tried; the pause doubles with each failure up to the second.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// What a record takes besides its path and value, about, in bytes.
const RECORD: usize = 128;
/// A checkpoint leaves an eighth of the disk to the log, which grows meanwhile; not less and not more than these.
const SPARE_MIN: u64 = 8 << 20;
const SPARE_MAX: u64 = 256 << 20;
/// Pieces of a snapshot between the checkpoint thread and the quorum.
const PIECES_AHEAD: usize = 4;

#[cfg(test)]
mod tests;
