//! Opening and running the store of a node.

use std::{
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use api::{
    EnsembleId, PeerId, Ticket, Time, Zxid,
    budget::Budget,
    ports::{PortClosed, Quorum},
    proof::Prover,
};
use bytes::Bytes;
use proto::{
    PEER_MESSAGE_MAX,
    client::{MESSAGE_MAX, NodeMember},
    internal::store_port_server::StorePortServer,
    streams::With,
    v1::{cluster_server::ClusterServer, coordination_server::CoordinationServer, node_server::NodeServer},
};
use store_core::{Server, State, server};
use store_shell::{Fault, Incoming, Shell};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    driver::{Aside, Driver, FromClient},
    grpc::{ClusterService, CoordinationService, NodeService, PortService, PortSessions, Sessions, Watches},
    handle::Handle,
    hash_seed,
    table::{self, Checkpointer, Opened, TableError},
};

/// The configuration of the store of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Id of this node.
    pub me: PeerId,
    /// Name of the ensemble, for the status.
    pub ensemble: String,
    /// All members, for clients that ask for them.
    pub members: Vec<NodeMember>,
    /// The directory of the node; the store keeps `table/` in it.
    pub data_dir: PathBuf,
    /// Limits for clients.
    pub limits: server::Limits,
    /// Bounds on data in flight.
    pub bounds: Bounds,
    /// A snapshot is made after this many entries, or as many as there are znodes if that is more. So
    /// its cost per entry does not depend on the size of the tree.
    pub snapshot_entries: u64,
    /// A snapshot is also made after this many bytes of log, or the size of the last snapshot if that
    /// is more.
    pub snapshot_bytes: u64,
    /// Fraction of the requests without a trace that begin one, from 0 to 1.
    pub trace_ratio: f64,
    /// Settings with which its edges prove identities.
    pub prover: Prover,
    /// Ports of the node that accept plaintext from other machines, for the status.
    pub plaintext_ports: Vec<String>,
    /// Where what clients do is recorded.
    pub audit: audit::Log,
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
            plaintext_ports: Vec::new(),
            audit: audit::Log::default(),
        }
    }
}

/// Bounds on data in flight between clients and the store. When one is reached, the node stops reading
/// from the client until answers have left. The client's own flow control then slows the client down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Unanswered requests of one stream. `Limits::requests_max` caps it.
    pub stream_requests: usize,
    /// Bytes of unanswered requests of one stream.
    pub stream_bytes: usize,
    /// Bytes of unanswered requests of all clients, if the listener does not set bounds for their
    /// connections.
    pub total_bytes: usize,
    /// Sessions that one address may open per second; the burst is ten times as many.
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
        /// Directory of the checkpoint.
        dir: PathBuf,
        /// The cause.
        source: TableError,
    },
    /// The system cannot create a thread.
    #[error("cannot start the checkpoint thread: {0}; raise the limit of threads")]
    Thread(#[from] std::io::Error),
}

/// Why the store stopped by itself. The node exits with this reason.
#[derive(Debug, thiserror::Error)]
pub enum StopReason {
    /// The quorum of this node is gone.
    #[error("the store has lost its quorum: {0}")]
    Quorum(#[from] PortClosed),
    /// A broken invariant.
    #[error("{0}")]
    Invariant(String),
}

impl From<Fault> for StopReason {
    fn from(Fault(why): Fault) -> StopReason {
        StopReason::Invariant(why)
    }
}

/// The API for applications, of which session streams and watches hold no memory between their messages.
pub type ClientApi =
    With<With<CoordinationServer<CoordinationService<Handle>>, Sessions<Handle>>, Watches<Handle>>;

/// The store of a node, opened and ready to run.
pub struct StoreService<Q> {
    config: Config,
    quorum: Q,
    state: State,
    /// Size of the snapshot that it started from, if any.
    snapshot_bytes: u64,
    checkpointer: Checkpointer,
    shutdown: CancellationToken,
    started: Instant,
    handle: Handle,
    inputs: mpsc::Receiver<FromClient>,
    asides: mpsc::UnboundedReceiver<Aside>,
    ready: watch::Sender<bool>,
    ensemble: watch::Sender<Option<EnsembleId>>,
    tasks: TaskTracker,
}

impl<Q: Quorum> StoreService<Q> {
    /// Reads the checkpoint and prepares to run. A damaged checkpoint is moved away; if a new one
    /// cannot be made now, the node starts without one. Blocks on the disk.
    ///
    /// # Errors
    /// Another process uses the directory.
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

    /// As [`StoreService::open`], but reads this snapshot, in the pieces passed to the quorum, if that
    /// is faster. The checkpoint is then not read, and a new one replaces it later.
    ///
    /// # Errors
    /// As [`StoreService::open`].
    #[tracing::instrument(name = "store.open", skip_all)]
    pub fn open_or_read<E: std::fmt::Display>(
        mut config: Config,
        quorum: Q,
        shutdown: CancellationToken,
        snapshot: Option<(Zxid, impl Iterator<Item = Result<Bytes, E>>)>,
    ) -> Result<StoreService<Q>, OpenError> {
        config.bounds.stream_requests = config.bounds.stream_requests.min(config.limits.requests_max).max(1);
        // Clients are told what holds here.
        config.limits.requests_max = config.bounds.stream_requests;
        config.limits.request_bytes =
            config.bounds.stream_bytes.min(Budget::new(config.bounds.total_bytes).share_max());
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
        let handle = Handle::new(
            config.me,
            config.bounds,
            config.trace_ratio,
            config.audit.clone(),
            to_driver,
            asides_to_driver,
        );
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
            ensemble: watch::Sender::default(),
            tasks,
        })
    }

    /// Whether the checkpoint had any content.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.state.applied() > Zxid::ZERO
    }

    /// Loads the state of a snapshot at `zxid`, in the pieces passed to the quorum. For a start without
    /// a usable checkpoint while the quorum, which would provide the state, is not open.
    ///
    /// # Errors
    /// The snapshot is unreadable. The state is unchanged.
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

    /// The API for applications, for the client port.
    #[must_use]
    pub fn coordination(&self) -> ClientApi {
        let (prover, tasks) = (self.config.prover.clone(), self.tasks.clone());
        let service = CoordinationService::new(self.handle.clone(), self.config.me, prover, tasks);
        let calls = CoordinationServer::new(service.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        With::new(With::new(calls, Sessions(service.clone())), Watches(service))
    }

    /// The port of the store, for edges in other processes. Serve it where only those can reach it.
    #[must_use]
    pub fn port(&self) -> With<StorePortServer<PortService<Handle>>, PortSessions<Handle>> {
        let (name, ensemble) = (&self.config.ensemble, self.ensemble.subscribe());
        let service = PortService::new(self.handle.clone(), name, ensemble, self.tasks.clone());
        let calls = StorePortServer::new(service.clone())
            .max_decoding_message_size(PEER_MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        With::new(calls, PortSessions(service))
    }

    /// The API for operators about this node, for the client port.
    #[must_use]
    pub fn node(&self) -> NodeServer<NodeService<Q>> {
        NodeServer::new(self.about())
    }

    /// The state of this node, as [`StoreService::node`] reports it.
    #[must_use]
    pub fn about(&self) -> NodeService<Q> {
        NodeService {
            handle: self.handle.clone(),
            quorum: self.quorum.clone(),
            ensemble: self.config.ensemble.clone(),
            members: self.config.members.clone(),
            plaintext_ports: self.config.plaintext_ports.clone(),
            started: self.started,
        }
    }

    /// The API for operators about the ensemble, for the client port.
    #[must_use]
    pub fn cluster(&self) -> ClusterServer<ClusterService<Q>> {
        ClusterServer::new(ClusterService {
            me: self.config.me,
            quorum: self.quorum.clone(),
            audit: self.config.audit.clone(),
        })
    }

    /// Whether the store serves clients, as it changes: for health and readiness probes.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Runs until the shutdown passed to `open`. It then redirects clients to other nodes and writes a
    /// last checkpoint. Serve the client API until this returns, so that clients receive the redirect.
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
            ensemble: self.ensemble,
            shutdown: self.shutdown,
        };
        // The tasks of the streams end by themselves when their inputs are closed.
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

/// The first ticket. It must differ from the tickets of earlier runs, which may be in the log. 2^22
/// tickets for each millisecond since 1970 suffice for four billion submissions a second until the year
/// 2109. The offset within that range is random, for machines with a clock that starts at the same time
/// at each boot.
fn first_ticket() -> Ticket {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut chance = [0; 4];
    // Without random numbers, the time alone is nearly always sufficient.
    let _ = getrandom::fill(&mut chance);
    let within = u64::from(u32::from_be_bytes(chance)) & ((1 << 22) - 1);
    Ticket((u64::try_from(since.as_millis()).unwrap_or(0) << 22) + within)
}

/// Queue length of messages from clients to the driver; each client's own bounds keep them small.
const INPUT_QUEUE: usize = 1024;
