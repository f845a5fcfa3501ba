//! The only task that touches the core.

mod export;
mod schedule;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    EnsembleId, Identities, OpError, Time, Zxid,
    ports::{Quorum, Sign},
    record,
    session::{Item, Open, Request, Response},
};
use store_core::server::{Ask, ConnId, Drawn, Input, Output};
use store_shell::{Effect, FromQuorum, Shell};
use telemetry::metrics;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    StopReason,
    lane::Lane,
    measure::{self, Timings},
    quorum_io::{Asking, Attached, Said},
    table::{Checkpointer, Job},
    trace::{Open as Spans, Traced},
};

use export::Exporting;
use schedule::{Schedule, are_many};

/// An input from a client, or from the task that represents it.
pub(crate) enum FromClient {
    /// A new stream.
    Open {
        /// Number of the stream.
        conn: ConnId,
        /// Parameters of the session.
        open: Open,
        /// Random values for the session.
        drawn: Drawn,
        /// See [`Input::Open`].
        identities: Identities,
        /// Receives the answers.
        lane: Arc<Lane>,
    },
    /// More requests of a stream.
    Requests {
        /// Number of the stream.
        conn: ConnId,
        /// See [`Input::Requests`].
        acked: api::WriteNumber,
        /// Requests in order.
        requests: Vec<Request>,
        /// Spans of the traced requests, with their index in `requests`.
        spans: Vec<(usize, Traced)>,
        /// Arrival time.
        received: Instant,
    },
    /// A unary call.
    Unary {
        /// Number of the call.
        conn: ConnId,
        /// What it asks.
        request: Request,
        /// See [`Input::Unary`].
        identities: Identities,
        /// Receives the answer.
        reply: oneshot::Sender<Result<Response, OpError>>,
        /// Arrival time of the call.
        received: Instant,
    },
    /// Asks for the current state of the store.
    Facts(oneshot::Sender<Facts>),
}

/// An input outside of [`FromClient`], because its sender cannot wait.
pub(crate) enum Aside {
    /// See [`Input::Drained`].
    Drained {
        /// The connection.
        conn: ConnId,
        /// Bytes sent.
        bytes: usize,
    },
    /// The client of a stream or of a call is gone. May arrive before the stream or call does.
    GivenUp {
        /// Number of the stream or call.
        conn: ConnId,
    },
}

/// The current state of the store.
pub(crate) struct Facts {
    /// Header of the state.
    pub(crate) state: record::Header,
    /// See [`store_core::Server::ready`].
    pub(crate) ready: bool,
}

/// Receiver of the answers for a connection.
enum Sink {
    Stream(Arc<Lane>, Timings, Spans),
    Unary { timings: Timings, reply: oneshot::Sender<Result<Response, OpError>> },
}

/// See the [module](self).
pub(crate) struct Driver<Q> {
    pub(crate) shell: Shell,
    /// Zero point of the core's time.
    pub(crate) origin: Instant,
    pub(crate) quorum: Q,
    pub(crate) inputs: mpsc::Receiver<FromClient>,
    pub(crate) asides: mpsc::UnboundedReceiver<Aside>,
    pub(crate) checkpointer: Checkpointer,
    /// Directory of the checkpoint.
    pub(crate) data_dir: PathBuf,
    /// See [`crate::Config`].
    pub(crate) snapshot_entries: u64,
    /// See [`crate::Config`].
    pub(crate) snapshot_bytes: u64,
    pub(crate) ready: watch::Sender<bool>,
    /// The id of the ensemble, as the quorum says.
    pub(crate) ensemble: watch::Sender<Option<EnsembleId>>,
    pub(crate) shutdown: CancellationToken,
}

impl<Q: Quorum> Driver<Q> {
    pub(crate) async fn run(self) -> Result<(), StopReason> {
        let now = Instant::now();
        let schedule = Schedule::new(now, self.shell.server.me());
        let (feed, signs) = Attached::new(self.quorum.clone(), self.shell.server.state().applied());
        let (sinks, asks, asking) = (HashMap::new(), Vec::new(), Asking::nothing());
        // Ends with this function, and its tasks with it.
        let tasks = JoinSet::new();
        let turn = Turn::new();
        Running { driver: self, sinks, feed, signs, asks, asking, tasks, schedule, exporting: None, turn }
            .run()
            .await
    }
}

struct Running<Q: Quorum> {
    driver: Driver<Q>,
    /// Only looked up, never iterated.
    sinks: HashMap<ConnId, Sink>,
    feed: Attached<Q::Feed>,
    /// Signs of life have priority: clients of other nodes wait for them.
    signs: mpsc::Receiver<Sign>,
    /// Requests queued after the batch that the quorum has not accepted yet. While there are any, the
    /// driver reads nothing from clients.
    asks: Vec<Ask>,
    asking: Asking,
    /// Tasks that save snapshots. Each returns the size of its snapshot; `None` if the quorum did not
    /// need all of it.
    tasks: JoinSet<Option<u64>>,
    schedule: Schedule,
    exporting: Option<Exporting>,
    turn: Turn,
}

/// The time that the driver has worked since it last let other tasks of the thread run.
struct Turn {
    /// Moves on by the times in which the driver waited.
    began: Instant,
    waits_since: Instant,
}

impl Turn {
    fn new() -> Turn {
        let now = Instant::now();
        Turn { began: now, waits_since: now }
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() > TURN
    }

    fn wait(&mut self) {
        self.waits_since = Instant::now();
    }

    /// The driver has something to do again.
    fn go_on(&mut self) {
        self.began += self.waits_since.elapsed();
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

    /// Runs until the shutdown, or a failure.
    async fn serve(&mut self) -> Result<(), StopReason> {
        let shutdown = self.driver.shutdown.clone();
        // False once every service that can accept clients is dropped.
        let mut clients = true;
        loop {
            if self.driver.shell.server.has_more() {
                self.handle(Input::Tick);
            }
            self.carry_out()?;
            self.keep();
            // Whichever branch has work without an end: the heartbeats of the quorum share the thread.
            if self.turn.is_over() {
                tokio::task::yield_now().await;
                self.turn = Turn::new();
            }
            self.turn.wait();
            let wake = self.wake_at();
            let asking = !self.asks.is_empty();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => match ended {
                    // The quorum has the snapshot, or a better one.
                    Ok(bytes) => {
                        self.schedule.saving = None;
                        if let Some(bytes) = bytes {
                            self.driver.shell.since_snapshot.snapshot_bytes = bytes;
                        }
                    }
                    // A cancelled snapshot.
                    Err(e) if e.is_cancelled() => {}
                    Err(e) => return Err(StopReason::Invariant(format!("a task of the store has died: {e}"))),
                },
                done = self.driver.checkpointer.done() => self.on_checkpoint(done),
                Some(sign) = self.signs.recv() => {
                    self.turn.go_on();
                    self.handle(Input::Sign(sign));
                }
                said = self.feed.next() => {
                    self.turn.go_on();
                    self.on_quorum(said?);
                    // If the quorum delivers entries faster than they can be applied, this branch
                    // always wins. Clients would then wait for its end, and sessions would expire
                    // although their pings are queued here.
                    self.export_if_time();
                    self.on_asides_waiting();
                    if !asking {
                        self.on_clients_waiting();
                    }
                }
                Some(aside) = self.driver.asides.recv() => {
                    self.turn.go_on();
                    self.on_aside(aside);
                    self.on_asides_waiting();
                }
                taken = self.asking.taken() => taken?,
                input = self.driver.inputs.recv(), if clients && !asking => {
                    self.turn.go_on();
                    clients = input.is_some();
                    input.into_iter().for_each(|input| self.on_client(input));
                    self.on_clients_waiting();
                }
                () = Exporting::turn(self.exporting.as_ref()) => {
                    self.turn.go_on();
                    self.export();
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    self.turn.go_on();
                    self.handle(Input::Tick);
                }
            }
        }
    }

    async fn send_all_away(&mut self, why: OpError) {
        self.driver.ready.send_replace(false);
        self.driver.shell.server.close_all(&why);
        // The core knows which calls have an unknown outcome. Its requests to the quorum come too late.
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
                // The caller may be gone.
                Sink::Unary { reply, .. } => drop(reply.send(Err(why.clone()))),
            }
        }
        // New clients find the channel closed. For unary calls, the end of their channel reports the same.
        self.driver.inputs.close();
        while let Some(input) = self.driver.inputs.recv().await {
            if let FromClient::Open { lane, .. } = input {
                lane.end(Err(why.clone()));
            }
        }
    }

    async fn last_checkpoint(mut self) {
        // Cancels running jobs, so that the thread is free.
        self.tasks.shutdown().await;
        self.give_up_export();
        if self.driver.checkpointer.busy() {
            let done = self.driver.checkpointer.done().await;
            self.on_checkpoint(done);
        }
        let state = self.driver.shell.server.state();
        if state.is_whole() && are_many(state) {
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
            // Cancelled in the queue.
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
            // Cancelled in the queue.
            FromClient::Unary { reply, .. } if reply.is_closed() => {}
            FromClient::Unary { conn, request, identities, reply, received } => {
                let mut timings = Timings::default();
                timings.take_up(received, [&request.op]);
                self.sinks.insert(conn, Sink::Unary { timings, reply });
                self.handle(Input::Unary { conn, request, identities });
            }
            FromClient::Facts(reply) => {
                let server = &self.driver.shell.server;
                // The caller may be gone.
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

    /// Processes inputs that clients have already sent, up to a bound, and as long as the turn lasts: at
    /// least one.
    fn on_clients_waiting(&mut self) {
        for n in 0..INPUTS_AT_ONCE {
            if n > 0 && self.turn.is_over() {
                return;
            }
            let Ok(input) = self.driver.inputs.try_recv() else { return };
            self.on_client(input);
        }
    }

    /// The same for the inputs that cannot wait.
    fn on_asides_waiting(&mut self) {
        for n in 0..INPUTS_AT_ONCE {
            if n > 0 && self.turn.is_over() {
                return;
            }
            let Ok(aside) = self.driver.asides.try_recv() else { return };
            self.on_aside(aside);
        }
    }

    /// Carries out the effects of the core.
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
        let replaced = self.driver.shell.take_replaced();
        if !replaced.is_empty() {
            // A million znodes take a second or more. Other services share this thread, and their
            // heartbeats must not wait.
            drop(tokio::task::spawn_blocking(move || drop(replaced)));
        }
        if !self.asks.is_empty() && !self.asking.waits() {
            self.asking.begin(&self.driver.quorum, std::mem::take(&mut self.asks));
        }
        let ready = self.driver.shell.server.ready();
        measure::publish(&self.driver.shell.server, self.sinks.len());
        self.driver.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
        let ensemble = self.driver.shell.server.ensemble();
        self.driver.ensemble.send_if_modified(|was| std::mem::replace(was, ensemble) != ensemble);
        Ok(())
    }

    /// The core discarded the state: the quorum provides another one.
    fn attach_anew(&mut self) {
        metrics::STORE_DIVERGED.add(1);
        if let Some(snapshot) = self.schedule.saving.take() {
            snapshot.abort();
        }
        (self.feed, self.signs) = Attached::new(self.driver.quorum.clone(), Zxid::ZERO);
    }

    fn end(&mut self, conn: ConnId, why: Result<(), OpError>) {
        match self.sinks.remove(&conn) {
            Some(Sink::Stream(lane, ..)) => lane.end(why),
            // The caller may be gone.
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
                    // The caller may be gone.
                    drop(reply.send(Ok(response)));
                }
            }
            None => {}
        }
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

/// After this time of work the driver lets the other tasks of the thread run, above all the heartbeats of
/// the quorum.
const TURN: Duration = Duration::from_millis(2);
/// Maximum number of client messages that are processed before their outputs are carried out, in one
/// batch to the quorum.
const INPUTS_AT_ONCE: usize = 256;
#[cfg(test)]
mod tests;
