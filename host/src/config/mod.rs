//! The settings of a node: flag over environment (`QUORATE_*`) over file (TOML) over default.
//!
//! Each setting is written once, in `NodeConfig::read`: its key, what it means and its default. The name of its
//! environment variable, the list of known keys, the hints for misspelt ones and `quorate config show` follow from
//! that. All faults are reported together, each with the key, where it stands and what would be right.

mod gateway;
mod layers;
mod member;
mod problem;
mod tls;
mod value;

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use api::{DATA_MAX, Ensemble, EnsembleError, PeerId, proof::Prover};

pub use gateway::{GatewayConfig, load_gateway};
use layers::Layers;
pub use layers::{Effective, Source};
pub use member::{MemberConfig, MemberRole};
pub use problem::ConfigError;
pub use tls::{Secured, Tls};
use value::{Count, Hidden, NodeId};
pub use value::{OptionalPort, Setting, Size};

/// Default port of the client API.
pub const CLIENT_PORT: u16 = 2188;
/// Default port of quorum-svc.
pub const QUORUM_PORT: u16 = 2888;
/// Default port of election-svc.
pub const ELECTION_PORT: u16 = 3888;
/// Default port of plain HTTP, for probes and metrics. Those of a quorum and of an election in processes of their own are
/// the next ones: [`OptionalPort::quorum`], [`OptionalPort::election`].
pub const HTTP_PORT: u16 = 9464;

/// Key of the address that all ports but the internal ones listen on.
pub const HOST_KEY: &str = "listen.host";
/// Key of the port of probes and metrics of a node, or of its store.
pub const HTTP_KEY: &str = "listen.http_port";
/// The same of a quorum in a process of its own.
pub const QUORUM_HTTP_KEY: &str = "listen.quorum_http_port";
/// The same of an election in a process of its own.
pub const ELECTION_HTTP_KEY: &str = "listen.election_http_port";

/// Default port for ZooKeeper's clients, which is ZooKeeper's own.
pub const ZOOKEEPER_PORT: u16 = 2181;
/// Key of that port.
pub const ZOOKEEPER_KEY: &str = "listen.zookeeper_port";

/// Default port of quorum-svc for its own node's store, where that is another process.
pub const INTERNAL_QUORUM_PORT: u16 = 2889;
/// Default port of election-svc for its own node's quorum, where that is another process.
pub const INTERNAL_ELECTION_PORT: u16 = 3889;

/// Where every OpenTelemetry SDK looks for the address of a collector.
const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const LOGS_EXPORTER: &str = "OTEL_LOGS_EXPORTER";

/// Variables that begin with `QUORATE_` and are not settings of a node: those of the command line tools and of
/// [`crate::logging`].
pub const OTHER_VARIABLES: [&str; 7] = [
    "QUORATE_AUTH",
    "QUORATE_ENDPOINTS",
    "QUORATE_LOG",
    "QUORATE_LOG_FORMAT",
    "QUORATE_TLS_CA",
    "QUORATE_TLS_CERT",
    "QUORATE_TLS_KEY",
];

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

/// Addresses to bind; port 0 lets the system choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Client API.
    pub client: SocketAddr,
    /// quorum-svc.
    pub quorum: SocketAddr,
    /// election-svc.
    pub election: SocketAddr,
    /// quorum-svc for the store of this node, if each service is a process of its own. It takes every caller
    /// for that store.
    pub internal_quorum: SocketAddr,
    /// election-svc for the quorum of this node, if each service is a process of its own.
    pub internal_election: SocketAddr,
    /// The store for gateways in processes of their own, which speak for any client; `None` for off.
    pub internal_store: Option<SocketAddr>,
    /// ZooKeeper's clients; `None` for off.
    pub zookeeper: Option<SocketAddr>,
    /// Probes and metrics of a node in one process, or of its store; `None` for off.
    pub http: Option<SocketAddr>,
    /// Those of quorum-svc, if each service is a process of its own.
    pub quorum_http: Option<SocketAddr>,
    /// Those of election-svc, if each service is a process of its own.
    pub election_http: Option<SocketAddr>,
}

/// Where the services of this node find each other if each is a process of its own, as `http://host:port`.
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

/// A configuration, and for each setting where it came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The settings.
    pub node: NodeConfig,
    /// The same as text, in the order of this file, for `quorate config show`.
    pub effective: Vec<Effective>,
}

/// Reads and checks the settings of a node.
///
/// `env` is the process's environment; variables other than `QUORATE_*` and some of OpenTelemetry are ignored. `flags` are
/// pairs of key and value from the command line. Relative paths in the file are relative to the folder of the file, so that a
/// node's folder can be moved; elsewhere they are relative to the working directory.
///
/// # Errors
/// All faults at once: an unreadable file, wrong keys, wrong values, settings that contradict each other.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    load_on(&member::host_name(), file, env, flags)
}

/// As [`load`], on a machine of this name.
fn load_on(
    host_name: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(file, env, flags)?;
    let node = NodeConfig::read(&mut layers, host_name);
    let effective = layers.finish()?;
    Ok(Loaded { node, effective })
}

/// What ZooKeeper's clients may ask besides their protocol.
fn words(r: &mut Layers) -> ZooKeeper {
    ZooKeeper {
        words: r.get(
            "zookeeper.words",
            "four letter words, and commands over HTTP, that are answered, with commas between them; *: all",
            "envi,isro,ruok,srvr".to_owned(),
        ),
    }
}

/// What clients prove their identities with.
fn prover(r: &mut Layers) -> Prover {
    const SUPER_DIGEST: &str = "access.super_digest";
    let super_digest = r.get(
        SUPER_DIGEST,
        "digest of the superuser: user:base64(sha1(user:password)), as in ZooKeeper; empty: there is none",
        Hidden(String::new()),
    );
    let super_digest = Some(super_digest.0).filter(|digest| !digest.is_empty());
    Prover::new(super_digest.as_deref()).unwrap_or_else(|_| {
        r.refuse(
            SUPER_DIGEST,
            "user:base64(sha1(user:password)), as in \"super:D/InIHSb7yEEbrWz8b9l71RjZJU=\"",
        );
        Prover::default()
    })
}

/// The environment of this process, for [`load`].
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .filter(|(k, _)| {
            k.starts_with("QUORATE_")
                || [COLLECTOR, SAMPLER, SAMPLER_ARG, LOGS_EXPORTER].contains(&k.as_str())
        })
}

/// The share of requests that OpenTelemetry's sampler variables set; out of range if they set something unknown. A node always
/// follows the sampling decision of a client's trace, as with `parentbased_`.
fn sampled(shared: &BTreeMap<String, String>) -> Option<f64> {
    let sampler = shared.get(SAMPLER)?;
    let ratio = || match shared.get(SAMPLER_ARG) {
        Some(arg) => arg.parse().unwrap_or(f64::NAN),
        None => 1.0,
    };
    Some(match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio(),
        _ => f64::NAN,
    })
}

/// The environment variable of a setting: `timing.init_limit` is `QUORATE_TIMING_INIT_LIMIT`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("QUORATE_{}", key.replace('.', "_").to_uppercase())
}

impl NodeConfig {
    /// This node among the members.
    #[must_use]
    pub fn own(&self) -> Option<&MemberConfig> {
        self.members.iter().find(|m| m.id == self.id)
    }

    /// The members as the cores see them.
    ///
    /// # Errors
    /// None for a configuration that came from [`load`], which has checked it.
    pub fn ensemble_of_members(&self) -> Result<Ensemble, EnsembleError> {
        Ensemble::new(self.members.iter().map(MemberConfig::member))
    }

    fn read(r: &mut Layers, host_name: &str) -> NodeConfig {
        let ensemble = r.require(
            "ensemble",
            "name of the ensemble, the same on all members, and no other ensemble's",
            String::new(),
            "a name that no other ensemble has, as in `ensemble = \"orders-production\"`,",
        );
        let id = r.require(
            "id",
            "id of this node among the members; \"hostname\": the member whose host is this machine",
            NodeId::Number(0),
            "`id = 1`",
        );
        let data_dir = r.path("data_dir", "directory of all durable data of this node");
        let data_dir = data_dir.unwrap_or_else(|| r.missing("data_dir", "`data_dir = \"/var/lib/quorate\"`"));
        let log_dir = r.path(
            "log_dir",
            "directory of the transaction log, such as a disk of its own; empty for log/ in data_dir",
        );
        let pid_file = r.path("pid_file", "where to write the process id; empty for nowhere");
        let members = r.members();
        let id = match id {
            NodeId::Number(id) => PeerId(id),
            NodeId::HostName => member::called(host_name, &members).unwrap_or_else(|expected| {
                r.refuse("id", &expected);
                PeerId(0)
            }),
        };

        let own = members.iter().find(|m| m.id == id);
        let port = |of: fn(&MemberConfig) -> u16, default| own.map_or(default, of);
        let client = port(|m| m.client_port, CLIENT_PORT);
        let quorum = port(|m| m.quorum_port, QUORUM_PORT);
        let election = port(|m| m.election_port, ELECTION_PORT);
        const MEMBER: &str = "members";
        // Others dial the host of this member. All addresses of IPv6 are those of IPv4 as well.
        let own_address = own.and_then(|m| m.host.parse::<IpAddr>().ok());
        let every: IpAddr = match own_address {
            Some(IpAddr::V6(_)) => [0u16; 8].into(),
            _ => [0u8; 4].into(),
        };
        let host = r.get_following(HOST_KEY, "IP address to listen on", every, MEMBER);
        let reached_at = |own: IpAddr| match host.is_unspecified() {
            true => host.is_ipv6() || own.is_ipv4(),
            false => host.is_ipv6() == own.is_ipv6() && host.is_loopback() == own.is_loopback(),
        };
        if let Some(own) = own_address.filter(|own| !reached_at(*own)) {
            r.refuse(
                HOST_KEY,
                &format!("one at which others reach {own}, the host of this member, or `::` for all"),
            );
        }
        let client = r.get_following("listen.client_port", "port of the client API; 0: any", client, MEMBER);
        let quorum = r.get_following("listen.quorum_port", "port of quorum-svc; 0: any", quorum, MEMBER);
        let election =
            r.get_following("listen.election_port", "port of election-svc; 0: any", election, MEMBER);
        let internal_host = r.get(
            "listen.internal_host",
            "IP address where services that are processes of their own listen for those of their node",
            IpAddr::from([127, 0, 0, 1]),
        );
        let internal_quorum = r.get(
            "listen.internal_quorum_port",
            "port of quorum-svc for the store of its node",
            INTERNAL_QUORUM_PORT,
        );
        let internal_election = r.get(
            "listen.internal_election_port",
            "port of election-svc for the quorum of its node",
            INTERNAL_ELECTION_PORT,
        );
        let internal_store = r.get(
            "listen.internal_store_port",
            "port of the store at listen.internal_host for `quorate gateway`; 0: any, off: none",
            OptionalPort(None),
        );
        let zookeeper = r.get(
            ZOOKEEPER_KEY,
            "port for ZooKeeper's clients; 0: any, off: none",
            OptionalPort(Some(ZOOKEEPER_PORT)),
        );
        let http = r.get(
            HTTP_KEY,
            "port of probes and metrics, of the whole node or of its store; 0: any, off: none",
            OptionalPort(Some(HTTP_PORT)),
        );
        let quorum_http = r.get_following(
            QUORUM_HTTP_KEY,
            "the same of a quorum in a process of its own; left out: the next after listen.http_port",
            http.quorum(),
            HTTP_KEY,
        );
        let election_http = r.get_following(
            ELECTION_HTTP_KEY,
            "the same of an election in a process of its own; left out: the second after listen.http_port",
            http.election(),
            HTTP_KEY,
        );
        let optional = |port: OptionalPort| port.0.map(|port| SocketAddr::new(host, port));
        let listen = Listen {
            client: SocketAddr::new(host, client),
            quorum: SocketAddr::new(host, quorum),
            election: SocketAddr::new(host, election),
            internal_quorum: SocketAddr::new(internal_host, internal_quorum),
            internal_election: SocketAddr::new(internal_host, internal_election),
            internal_store: internal_store.0.map(|port| SocketAddr::new(internal_host, port)),
            zookeeper: optional(zookeeper),
            http: optional(http),
            quorum_http: optional(quorum_http),
            election_http: optional(election_http),
        };
        let internal = match internal_host.is_unspecified() {
            true => IpAddr::from([127, 0, 0, 1]),
            false => internal_host,
        };
        let services = Services {
            election: r.get_following(
                "services.election",
                "where the quorum finds the election of its node, if that is another process; left out: at listen.internal_host",
                format!("http://{}", SocketAddr::new(internal, internal_election)),
                "listen.internal_election_port",
            ),
            quorum: r.get_following(
                "services.quorum",
                "where the store finds the quorum of its node, if that is another process; left out: at listen.internal_host",
                format!("http://{}", SocketAddr::new(internal, internal_quorum)),
                "listen.internal_quorum_port",
            ),
        };

        let zookeeper = words(r);
        let prover = prover(r);

        let millis = Duration::from_millis;
        let timing = Timing {
            tick: r.get("timing.tick", "pings between leader and learners", millis(200)),
            init_limit: r.get("timing.init_limit", "time to synchronise with a new leader", millis(10_000)),
            sync_limit: r.get(
                "timing.sync_limit",
                "silence after which a peer counts as lost",
                millis(2_000),
            ),
            finalize_wait: r.get(
                "timing.finalize_wait",
                "wait for a better vote once a quorum agrees",
                millis(200),
            ),
            park_limit: r.get("timing.park_limit", "how long writes wait for a leader", millis(10_000)),
            reap_interval: r.get(
                "timing.reap_interval",
                "how often the leader removes empty containers and znodes whose TTL has passed",
                millis(10_000),
            ),
            container_unused: r.get(
                "timing.container_unused",
                "how long a container may be there that never had a child; 0ms: for ever",
                millis(0),
            ),
            drain: r.get("timing.drain", "how long connections may take to end on shutdown", millis(5_000)),
        };
        let session = SessionLimits {
            timeout_min: r.get(
                "session.timeout_min",
                "shortest session time-out a client gets",
                millis(1_000),
            ),
            timeout_max: r.get(
                "session.timeout_max",
                "longest session time-out a client gets",
                millis(60_000),
            ),
            opens_per_second: r.get(
                "session.opens_per_second",
                "sessions that one address may open in a second; ten times as many at once",
                100,
            ),
        };
        const MEMORY: &str = "limits.memory";
        let memory = r.get(
            MEMORY,
            "memory that this process should not exceed; bounds of connections and of clients' requests follow from it",
            Size::mib(1024),
        );
        let share = Size((memory.0 / 16).min(64 << 20));
        let limits = Limits {
            memory,
            data: r.get("limits.data", "bytes of one value, and of all values of a multi", Size::mib(1)),
            in_flight: r.get("limits.in_flight", "writes of one node that wait for their commit", 16_384),
            in_flight_bytes: r.get_following("limits.in_flight_bytes", "the same in bytes", share, MEMORY),
            sessions: r.get(
                "limits.sessions",
                "open sessions of the whole ensemble; the same on all nodes",
                20_000,
            ),
        };
        let min_free = r.get(
            "log.min_free",
            "mark of free space below which writes that enlarge the state are refused; 0B: a tenth of the file system, 32MiB to 2GiB",
            Size(0),
        );
        let log = Log {
            min_free: Some(min_free).filter(|size| *size > Size(0)),
            segment_size: r.get(
                "log.segment_size",
                "bytes of one file of the transaction log",
                Size::mib(64),
            ),
            recent_size: r.get_following(
                "log.recent_size",
                "bytes of the newest entries kept in memory; with what they pin it is up to twice as much",
                Size(share.0.min(8 << 20)),
                MEMORY,
            ),
            backlog_size: r.get_following(
                "log.backlog_size",
                "bytes that may wait for the disk",
                share,
                MEMORY,
            ),
            snapshot_every: r.get("log.snapshot_every", "entries between two snapshots", 500_000),
            snapshot_bytes: r.get(
                "log.snapshot_bytes",
                "bytes of entries between two snapshots",
                Size::mib(64),
            ),
            keep_size: r.get(
                "log.keep_size",
                "bytes of log kept behind a snapshot, for members that were away",
                Size::mib(128),
            ),
            keep_entries: r.get("log.keep_entries", "entries of log kept behind a snapshot", 10_000),
        };
        let Count(front) = r.get(
            "threads.front",
            "threads for connections of clients, besides the one that runs the services; auto: half as many as there are \
             cores, 1 to 8",
            Count(None),
        );
        let threads = Threads { front };
        let otlp_endpoint = r.get_or_shared(
            "telemetry.otlp_endpoint",
            "OpenTelemetry collector to push metrics and spans to, by OTLP/gRPC; empty for none, whatever \
             OTEL_EXPORTER_OTLP_ENDPOINT says",
            COLLECTOR,
            |shared| shared.get(COLLECTOR).cloned(),
            String::new(),
        );
        let telemetry = Telemetry {
            otlp_endpoint: Some(otlp_endpoint).filter(|endpoint| !endpoint.is_empty()),
            metrics_interval: r.get(
                "telemetry.metrics_interval",
                "time between two pushes of metrics",
                millis(15_000),
            ),
            otlp_logs: r.get_or_shared(
                "telemetry.otlp_logs",
                "whether log lines go to the collector as well",
                LOGS_EXPORTER,
                |shared| shared.get(LOGS_EXPORTER).map(|exporter| exporter == "otlp"),
                false,
            ),
            trace_ratio: r.get_or_shared(
                "telemetry.trace_ratio",
                "share of the requests to trace, 0 to 1, that come without a trace of their client; needs a collector",
                SAMPLER,
                sampled,
                0.01,
            ),
        };
        let config = NodeConfig {
            ensemble,
            id,
            data_dir,
            log_dir,
            pid_file,
            listen,
            services,
            members,
            zookeeper,
            prover,
            timing,
            session,
            limits,
            log,
            threads,
            telemetry,
            tls: Tls::read(r),
        };
        config.check(r);
        config
    }

    /// Rules that more than one setting is part of, or that are narrower than the type.
    fn check(&self, r: &mut Layers) {
        if self.ensemble.len() > 64 {
            r.refuse("ensemble", "a name of 1 to 64 bytes");
        }
        self.check_members(r);
        if self.tls.members.mode != ::tls::Mode::Off
            && self.listen.internal_store.is_some_and(|address| !address.ip().is_loopback())
        {
            r.refuse(
                "listen.internal_store_port",
                "off, or with `listen.internal_host` on loopback: this port has no TLS, and any process that reaches it can claim any identity",
            );
        }
        let t = &self.timing;
        for (key, value) in [
            ("timing.tick", t.tick),
            ("timing.init_limit", t.init_limit),
            ("timing.sync_limit", t.sync_limit),
            ("timing.reap_interval", t.reap_interval),
            ("session.timeout_min", self.session.timeout_min),
        ] {
            if value < Duration::from_millis(1) {
                r.refuse(key, "a duration of at least 1ms");
            }
        }
        if t.sync_limit < 2 * t.tick {
            r.refuse(
                "timing.sync_limit",
                "at least twice `timing.tick`, or one late ping costs a leader its follower",
            );
        }
        if self.session.timeout_max < self.session.timeout_min {
            r.refuse("session.timeout_max", "at least `session.timeout_min`");
        }
        if self.session.opens_per_second == 0 {
            r.refuse("session.opens_per_second", "at least 1");
        }
        if self.session.timeout_max > Duration::from_millis(u64::from(u32::MAX)) {
            r.refuse("session.timeout_max", "less than 49 days");
        }
        for (key, url) in
            [("services.election", &self.services.election), ("services.quorum", &self.services.quorum)]
        {
            if !behind_scheme(url, "http://").is_some_and(|rest| rest.contains(':') && !rest.contains('@')) {
                r.refuse(key, "the address of a service such as \"http://127.0.0.1:2889\"");
            }
        }
        if self.limits.data > Size(DATA_MAX) || self.limits.data == Size(0) {
            r.refuse(
                "limits.data",
                "a size from 1B to 3MiB: with its path a value has to fit into one entry of the log, which is 4MiB at most",
            );
        }
        if self.limits.memory < Size::mib(256) {
            r.refuse("limits.memory", "at least 256MiB");
        }
        if self.limits.in_flight == 0 {
            r.refuse("limits.in_flight", "at least 1");
        }
        if self.limits.sessions == 0 {
            r.refuse("limits.sessions", "at least 1");
        }
        if self.limits.in_flight_bytes < self.limits.data {
            r.refuse(
                "limits.in_flight_bytes",
                "at least `limits.data`, or the largest write could never be taken",
            );
        }
        if self.log.segment_size < Size::mib(1) || self.log.segment_size > Size::mib(4096) {
            r.refuse("log.segment_size", "a size from 1MiB to 4GiB");
        }
        if self.telemetry.metrics_interval < Duration::from_millis(100) {
            r.refuse("telemetry.metrics_interval", "a duration of at least 100ms");
        }
        if !(0.0..=1.0).contains(&self.telemetry.trace_ratio) {
            r.refuse(
                "telemetry.trace_ratio",
                "a number from 0 to 1, as 0.01 for one request in a hundred (OTEL_TRACES_SAMPLER: always_on, always_off, \
                 traceidratio or parentbased_ and one of them, with the number in OTEL_TRACES_SAMPLER_ARG)",
            );
        }
        let is_url = |e: &String| {
            let rest = behind_scheme(e, "http://").or_else(|| behind_scheme(e, "https://"));
            // A user has no name there.
            rest.is_some_and(|rest| !rest.contains('@'))
        };
        if self.telemetry.otlp_endpoint.as_ref().is_some_and(|e| !is_url(e)) {
            r.refuse(
                "telemetry.otlp_endpoint",
                "an address such as \"http://127.0.0.1:4317\" or \"https://...\"",
            );
        }
        if self.log.snapshot_every == 0 {
            r.refuse("log.snapshot_every", "at least 1");
        }
        if self.log.snapshot_bytes < Size::mib(1) {
            r.refuse("log.snapshot_bytes", "at least 1MiB");
        }
    }

    fn check_members(&self, r: &mut Layers) {
        if self.members.is_empty() {
            r.problem(
                "no members: write a [[members]] section with id and host for each server, this one included; for a \
                 server alone: [[members]] id = 1, host = \"127.0.0.1\"",
            );
            return;
        }
        if self.own().is_none() && self.id != PeerId(0) {
            let ids: Vec<String> = self.members.iter().map(|m| m.id.to_string()).collect();
            r.refuse("id", &format!("the id of one of the members, which are {}", ids.join(", ")));
        }
        if let Err(e) = self.ensemble_of_members() {
            r.problem(&format!("members: {e}"));
        }
        let mut taken: BTreeMap<(&str, u16), String> = BTreeMap::new();
        for m in &self.members {
            for (what, port) in
                [("client", m.client_port), ("quorum", m.quorum_port), ("election", m.election_port)]
            {
                let who = format!("{what} of member {}", m.id);
                if let Some(other) = taken.get(&(m.host.as_str(), port)) {
                    r.problem(&format!(
                        "members: {other} and {who} both have the address {}:{port}; give one of them another port",
                        m.host
                    ));
                } else {
                    taken.insert((&m.host, port), who);
                }
            }
        }
    }
}

/// The part of a URL after the scheme, if the URL has this scheme in any case.
#[must_use]
pub fn behind_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = url.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

#[cfg(test)]
mod tests;
