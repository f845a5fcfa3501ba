//! Opening and running the store of a node.

use std::{
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use api::{
    PeerId, Ticket, Time, Zxid,
    ports::{PortClosed, Quorum},
    proof::Prover,
};
use bytes::Bytes;
use proto::{
    PEER_MESSAGE_MAX,
    client::{MESSAGE_MAX, NodeMember},
    internal::store_port_server::StorePortServer,
    v1::{cluster_server::ClusterServer, coordination_server::CoordinationServer, node_server::NodeServer},
};
use store_core::{Server, State, server};
use store_shell::{Fault, Incoming, Shell};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    driver::{Aside, Driver, FromClient},
    grpc::{ClusterService, CoordinationService, NodeService, PortService},
    handle::Handle,
    hash_seed,
    table::{self, Checkpointer, Opened, TableError},
};

/// What the store of a node is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: PeerId,
    /// The name of the ensemble, for the status.
    pub ensemble: String,
    /// All members, for clients that ask.
    pub members: Vec<NodeMember>,
    /// The node's own directory; the store keeps `table/` in it.
    pub data_dir: PathBuf,
    /// What clients may do.
    pub limits: server::Limits,
    /// What may be under way.
    pub bounds: Bounds,
    /// A snapshot is made after so many entries, or as many as there are znodes if that is more, so that its cost per
    /// entry stays the same however large the tree is.
    pub snapshot_entries: u64,
    /// Or after so many bytes of log, or as many as the last snapshot had if that is more.
    pub snapshot_bytes: u64,
    /// Which part of the requests that come without a trace begin one, from 0 to 1.
    pub trace_ratio: f64,
    /// What its edges prove identities with.
    pub prover: Prover,
}

impl Config {
    /// A node with the default limits.
    #[must_use]
    pub fn new(me: PeerId, data_dir: PathBuf) -> Config {
        Config {
            me,
            ensemble: String::new(),
            members: Vec::new(),
            data_dir,
            limits: server::Limits::default(),
            bounds: Bounds::default(),
            snapshot_entries: 500_000,
            snapshot_bytes: 64 << 20,
            trace_ratio: 0.0,
            prover: Prover::default(),
        }
    }
}

/// What may be under way between clients and the store. When one is reached, the node stops reading from the client
/// until answers have left, so that the client's own flow control holds it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Unanswered requests of one stream. Lowered to `Limits::requests_max`.
    pub stream_requests: usize,
    /// Bytes of unanswered requests of one stream.
    pub stream_bytes: usize,
    /// Bytes of unanswered requests of all clients, where the listener does not say what their connections may hold.
    pub total_bytes: usize,
    /// Sessions that one address may open in a second; ten times as many at once.
    pub opens_per_second: u32,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            stream_requests: 4096,
            stream_bytes: 16 << 20,
            total_bytes: 128 << 20,
            opens_per_second: 100,
        }
    }
}

/// Why the store cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the checkpoint open.
    #[error("{source}; look at {dir}", dir = dir.display())]
    Table {
        /// In this directory.
        dir: PathBuf,
        /// Why.
        source: TableError,
    },
    /// No thread.
    #[error("cannot start the checkpoint thread: {0}; raise the limit of threads")]
    Thread(#[from] std::io::Error),
}

/// Why the store stopped by itself. The node exits with it.
#[derive(Debug, thiserror::Error)]
pub enum StopReason {
    /// The quorum of this node is gone.
    #[error("the store has lost its quorum: {0}")]
    Quorum(#[from] PortClosed),
    /// Something that cannot be true is.
    #[error("{0}")]
    Invariant(String),
}

impl From<Fault> for StopReason {
    fn from(Fault(why): Fault) -> StopReason {
        StopReason::Invariant(why)
    }
}

/// The store of a node, opened and ready to run.
pub struct StoreService<Q> {
    config: Config,
    quorum: Q,
    state: State,
    /// Of the snapshot that it came from, if it came from one.
    snapshot_bytes: u64,
    checkpointer: Checkpointer,
    shutdown: CancellationToken,
    started: Instant,
    handle: Handle,
    inputs: mpsc::Receiver<FromClient>,
    asides: mpsc::UnboundedReceiver<Aside>,
    ready: watch::Sender<bool>,
    tasks: TaskTracker,
}

impl<Q: Quorum> StoreService<Q> {
    /// Reads the checkpoint and prepares to run. A damaged one is moved aside; if there can be none for now, the node starts
    /// without. Blocks on the disk.
    ///
    /// # Errors
    /// If another process uses the directory.
    pub fn open(
        config: Config,
        quorum: Q,
        shutdown: CancellationToken,
    ) -> Result<StoreService<Q>, OpenError> {
        StoreService::open_or_read(
            config,
            quorum,
            shutdown,
            None::<(Zxid, std::iter::Empty<Result<_, PortClosed>>)>,
        )
    }

    /// The same, or reads this snapshot, in pieces as the quorum was given it, if that takes less time. Then the checkpoint stays
    /// unread, until a new one takes its place.
    ///
    /// # Errors
    /// As of [`StoreService::open`].
    #[tracing::instrument(name = "store.open", skip_all)]
    pub fn open_or_read<E: std::fmt::Display>(
        mut config: Config,
        quorum: Q,
        shutdown: CancellationToken,
        snapshot: Option<(Zxid, impl Iterator<Item = Result<Bytes, E>>)>,
    ) -> Result<StoreService<Q>, OpenError> {
        config.bounds.stream_requests = config.bounds.stream_requests.min(config.limits.requests_max).max(1);
        let failed = |source| OpenError::Table { dir: config.data_dir.clone(), source };
        let read = snapshot.filter(|&(zxid, _)| table::slower_than(&config.data_dir, zxid)).and_then(
            |(zxid, pieces)| match read_snapshot(zxid, pieces) {
                Ok(read) => Some(read),
                Err(why) => {
                    tracing::warn!(%zxid, "the snapshot is of no use for the start: {why}");
                    None
                }
            },
        );
        let (Opened { table, state }, snapshot_bytes) = match read {
            Some((state, bytes)) => (Opened { table: None, state }, bytes),
            None => (table::open(&config.data_dir).map_err(failed)?, 0),
        };
        let header = state.header();
        tracing::info!(
            node = %config.me, applied = %header.applied, znodes = header.znodes, sessions = header.sessions,
            "{} read", if snapshot_bytes > 0 { "snapshot" } else { "checkpoint" }
        );
        let dir = config.data_dir.clone();
        let checkpointer = Checkpointer::start(table, Box::new(move || table::anew(&dir)))?;
        let (to_driver, inputs) = mpsc::channel(INPUT_QUEUE);
        let (asides_to_driver, asides) = mpsc::unbounded_channel();
        let tasks = TaskTracker::new();
        let handle = Handle::new(config.me, config.bounds, config.trace_ratio, to_driver, asides_to_driver);
        let (ready, _) = watch::channel(false);
        let started = Instant::now();
        Ok(StoreService {
            config,
            quorum,
            state,
            snapshot_bytes,
            checkpointer,
            shutdown,
            started,
            handle,
            inputs,
            asides,
            ready,
            tasks,
        })
    }

    /// Whether there was anything in the checkpoint.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.state.applied() > Zxid::ZERO
    }

    /// Begins with the state of a snapshot at `zxid`, in pieces as the quorum was given it: where the checkpoint has none, and the
    /// quorum, from which it would come, is not open.
    ///
    /// # Errors
    /// It cannot be read. The state stays as it was.
    pub fn begin_with<E: std::fmt::Display>(
        &mut self,
        zxid: Zxid,
        pieces: impl Iterator<Item = Result<Bytes, E>>,
    ) -> Result<(), StopReason> {
        (self.state, self.snapshot_bytes) = read_snapshot(zxid, pieces)?;
        Ok(())
    }

    /// The port of the store, for edges in this process.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The API for applications, to be served on the client port.
    #[must_use]
    pub fn coordination(&self) -> CoordinationServer<CoordinationService<Handle>> {
        let (prover, tasks) = (self.config.prover.clone(), self.tasks.clone());
        let service = CoordinationService::new(self.handle.clone(), self.config.me, prover, tasks);
        CoordinationServer::new(service)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// The port of the store, for edges in other processes, to be served where nobody else can reach it.
    #[must_use]
    pub fn port(&self) -> StorePortServer<PortService<Handle>> {
        let service = PortService::new(self.handle.clone(), &self.config.ensemble, self.tasks.clone());
        StorePortServer::new(service)
            .max_decoding_message_size(PEER_MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// The API for operators, to be served on the client port.
    #[must_use]
    pub fn node(&self) -> NodeServer<NodeService<Q>> {
        NodeServer::new(self.about())
    }

    /// How this node is: what [`StoreService::node`] answers from.
    #[must_use]
    pub fn about(&self) -> NodeService<Q> {
        NodeService {
            handle: self.handle.clone(),
            quorum: self.quorum.clone(),
            ensemble: self.config.ensemble.clone(),
            members: self.config.members.clone(),
            started: self.started,
        }
    }

    /// What operators do with the ensemble, to be served on the client port.
    #[must_use]
    pub fn cluster(&self) -> ClusterServer<ClusterService<Q>> {
        ClusterServer::new(ClusterService { me: self.config.me, quorum: self.quorum.clone() })
    }

    /// Whether clients are served, as it changes: for health and readiness probes.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Runs until the shutdown that `open` was given: then clients are sent to other nodes and a last checkpoint is
    /// written. Serve the client API until this returns, so that they are told.
    ///
    /// # Errors
    /// Why it stopped by itself.
    pub async fn run(self) -> Result<(), StopReason> {
        let core =
            server::Config { me: self.config.me, first_ticket: first_ticket(), limits: self.config.limits };
        let mut shell = Shell::new(Server::new(Time(0), core, self.state));
        shell.since_snapshot.snapshot_bytes = self.snapshot_bytes;
        let driver = Driver {
            shell,
            origin: Instant::now(),
            quorum: self.quorum,
            inputs: self.inputs,
            asides: self.asides,
            checkpointer: self.checkpointer,
            data_dir: self.config.data_dir,
            snapshot_entries: self.config.snapshot_entries,
            snapshot_bytes: self.config.snapshot_bytes,
            ready: self.ready,
            shutdown: self.shutdown,
        };
        // The streams' tasks end by themselves when their inputs are closed.
        drop(self.handle);
        let result = driver.run().await;
        self.tasks.close();
        self.tasks.wait().await;
        result
    }
}

/// The state of a snapshot at `zxid`, and its size.
fn read_snapshot<E: std::fmt::Display>(
    zxid: Zxid,
    pieces: impl Iterator<Item = Result<Bytes, E>>,
) -> Result<(State, u64), StopReason> {
    let mut snapshot = Incoming::new(zxid, hash_seed());
    for piece in pieces {
        snapshot.piece(&piece.map_err(|e| StopReason::Invariant(e.to_string()))?)?;
    }
    Ok(snapshot.finish()?)
}

/// Tickets must not be those of an earlier run, which may stand in the log. Two to the 22 for each millisecond since 1970 leave room
/// for four billion submissions a second until the year 2109; where in that room is left to chance, for clocks that begin with
/// the same time whenever the machine does.
fn first_ticket() -> Ticket {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut chance = [0; 4];
    // Without it the time alone has to do, as it nearly always does.
    let _ = getrandom::fill(&mut chance);
    let within = u64::from(u32::from_be_bytes(chance)) & ((1 << 22) - 1);
    Ticket((u64::try_from(since.as_millis()).unwrap_or(0) << 22) + within)
}

/// Messages from clients to the driver; each client's own bounds keep them small.
const INPUT_QUEUE: usize = 1024;
