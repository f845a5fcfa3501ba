//! The checked settings of a node.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use api::{Ensemble, EnsembleError, PeerId, proof::Prover};

use super::{MemberConfig, Size, Tls};

/// The checked configuration of one node.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeConfig {
    /// Name of the ensemble; servers of differently named ensembles refuse each other.
    pub ensemble: String,
    /// Id of this node among the members.
    pub id: PeerId,
    /// Directory of all durable data of this node.
    pub data_dir: PathBuf,
    /// Directory of the transaction log, if it is not in `data_dir`.
    pub log_dir: Option<PathBuf>,
    /// File for the process id, if any.
    pub pid_file: Option<PathBuf>,
    /// Whether ports outside the loopback interface may accept plaintext.
    pub insecure: bool,
    /// Where to listen.
    pub listen: Listen,
    /// Where the services of this node find each other if each is a process of its own.
    pub services: Services,
    /// All members in the order of their ids, this node among them.
    pub members: Vec<MemberConfig>,
    /// What ZooKeeper's clients may ask besides their protocol.
    pub zookeeper: ZooKeeper,
    /// What clients prove their identities with.
    pub prover: Prover,
    /// Periods and waits.
    pub timing: Timing,
    /// Bounds of session time-outs.
    pub session: SessionLimits,
    /// Bounds of requests and queues.
    pub limits: Limits,
    /// The transaction log and its snapshots.
    pub log: Log,
    /// Threads of a node.
    pub threads: Threads,
    /// Export of metrics, spans and log lines.
    pub telemetry: Telemetry,
    /// Certificates.
    pub tls: Tls,
    /// The audit log, if there is one.
    pub audit: Option<audit::Settings>,
}

/// Export of metrics, spans and log lines.
#[derive(Clone, PartialEq, Debug)]
pub struct Telemetry {
    /// An OpenTelemetry collector that takes OTLP over gRPC, as in `http://127.0.0.1:4317`; `None` for none.
    pub otlp_endpoint: Option<String>,
    /// Time between two pushes of metrics.
    pub metrics_interval: Duration,
    /// Whether log lines go to the collector as well.
    pub otlp_logs: bool,
    /// Share of the requests without a client's trace that begin one, from 0 to 1.
    pub trace_ratio: f64,
}

/// Where a service listens for those of its own node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Internal {
    /// At an address: with TLS, if other machines reach it and members have TLS.
    Tcp(SocketAddr),
    /// At a Unix socket, for processes of the same user.
    Unix(PathBuf),
}

impl Internal {
    /// Its TCP port, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Internal::Tcp(address) => Some(address.port()),
            Internal::Unix(_) => None,
        }
    }

    /// Whether other machines reach it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Internal::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for Internal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Internal::Tcp(address) => address.fmt(f),
            Internal::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Addresses to bind; port 0 lets the system choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Client API.
    pub client: SocketAddr,
    /// quorum-svc.
    pub quorum: SocketAddr,
    /// election-svc.
    pub election: SocketAddr,
    /// quorum-svc for the store of this node, if each service is a process of its own. It takes every caller
    /// for that store.
    pub internal_quorum: Internal,
    /// election-svc for the quorum of this node, if each service is a process of its own.
    pub internal_election: Internal,
    /// The store for gateways in processes of their own, which speak for any client; `None` for off.
    pub internal_store: Option<Internal>,
    /// ZooKeeper's clients; `None` for off.
    pub zookeeper: Option<SocketAddr>,
    /// Probes and metrics of a node in one process, or of its store; `None` for off.
    pub http: Option<SocketAddr>,
    /// Those of quorum-svc, if each service is a process of its own.
    pub quorum_http: Option<SocketAddr>,
    /// Those of election-svc, if each service is a process of its own.
    pub election_http: Option<SocketAddr>,
}

/// Where the services of this node find each other if each is a process of its own, as `http://host:port`,
/// `https://host:port` or `unix:/path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Services {
    /// The quorum dials this.
    pub election: String,
    /// The store dials this.
    pub quorum: String,
}

/// What ZooKeeper's clients may ask besides their protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZooKeeper {
    /// Four letter words that are answered, with commas between them; `*` for all.
    pub words: String,
}

/// Periods and waits of the protocols between servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Pings between leader and learners.
    pub tick: Duration,
    /// A learner that has not synchronised with its leader after this goes back to looking (S18).
    pub init_limit: Duration,
    /// A peer that is silent for this long counts as lost (S18).
    pub sync_limit: Duration,
    /// Wait for a better vote after a quorum agrees on one (S2).
    pub finalize_wait: Duration,
    /// How long writes wait for a leader before they are refused (S25).
    pub park_limit: Duration,
    /// How often the leader looks for containers without children, and for znodes whose TTL has passed.
    pub reap_interval: Duration,
    /// How long after its creation a container goes that has never had a child; zero: it stays.
    pub container_unused: Duration,
    /// How long connections and streams may take to end on shutdown.
    pub drain: Duration,
}

/// Bounds of the session time-out. A client's request is clamped to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// The shortest.
    pub timeout_min: Duration,
    /// The longest.
    pub timeout_max: Duration,
    /// Sessions that one address may open in a second; ten times as many at once.
    pub opens_per_second: u32,
}

/// Bounds of requests and queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Memory that this process should not exceed. The bounds of clients' requests follow from it.
    pub memory: Size,
    /// Bytes of one value, and of all values of one multi.
    pub data: Size,
    /// Writes of one node that wait for their commit; beyond it clients are held back.
    pub in_flight: u32,
    /// Bytes of these writes.
    pub in_flight_bytes: Size,
    /// Maximum of open sessions of the whole ensemble. The receiving node decides, so set the same on all nodes.
    pub sessions: u32,
}

/// The transaction log and its snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// Mark of free bytes on the file systems of the data and of the log. Below it, writes that enlarge the
    /// state are refused; `None`: derived from the size of the file system.
    pub min_free: Option<Size>,
    /// Bytes of one segment file.
    pub segment_size: Size,
    /// Newest entries kept in memory, for learners and the store.
    pub recent_size: Size,
    /// Bytes that may wait for the disk before a learner stops reading from its leader.
    pub backlog_size: Size,
    /// Number of entries between two snapshots; the first of this and `snapshot_bytes` counts.
    pub snapshot_every: u64,
    /// Bytes of entries between two snapshots.
    pub snapshot_bytes: Size,
    /// Bytes of the newest log that stay although snapshots cover them.
    pub keep_size: Size,
    /// Entries of the newest log that stay although snapshots cover them.
    pub keep_entries: u64,
}

/// Threads of a node. One runs its services, one the log, one checkpoints and snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threads {
    /// For connections of clients; 0: the one of the services; `None`: as suits the machine.
    pub front: Option<u32>,
}

impl NodeConfig {
    /// This node among the members.
    #[must_use]
    pub fn own(&self) -> Option<&MemberConfig> {
        self.members.iter().find(|m| m.id == self.id)
    }

    /// The settings that should be the same on all members, by their keys, because what one of them does by its own concerns the
    /// others: links that end by the smaller limit, what the present leader removes, what clients get depending on their node.
    #[must_use]
    pub fn shared_settings(&self) -> BTreeMap<String, String> {
        let (t, session, limits) = (&self.timing, &self.session, &self.limits);
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let all = [
            ("timing.tick", time(t.tick)),
            ("timing.init_limit", time(t.init_limit)),
            ("timing.sync_limit", time(t.sync_limit)),
            ("timing.container_unused", time(t.container_unused)),
            ("session.timeout_min", time(session.timeout_min)),
            ("session.timeout_max", time(session.timeout_max)),
            ("limits.data", limits.data.to_string()),
            ("limits.sessions", limits.sessions.to_string()),
        ];
        all.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// The members as the cores see them.
    ///
    /// # Errors
    /// None for a configuration that came from [`load`](super::load), which has checked it.
    pub fn ensemble_of_members(&self) -> Result<Ensemble, EnsembleError> {
        Ensemble::new(self.members.iter().map(MemberConfig::member))
    }
}
