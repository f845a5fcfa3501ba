//! Reads the settings of a node, one section after another.
//!
//! Each setting is written here once: its key, its meaning and its default. `quorate config show` prints them in this order.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ::tls::Mode;
use api::{PeerId, proof::Prover};

use super::{
    CLIENT_PORT, COLLECTOR, ELECTION_HTTP_KEY, ELECTION_PORT, HOST_KEY, HTTP_KEY, HTTP_PORT,
    INTERNAL_ELECTION_PORT, INTERNAL_QUORUM_PORT, Internal, LOGS_EXPORTER, Limits, Listen, Log, MemberConfig,
    NodeConfig, OptionalPort, QUORUM_HTTP_KEY, QUORUM_PORT, SAMPLER, SAMPLER_ARG, Services, SessionLimits,
    Size, Telemetry, Threads, Timing, Tls, ZOOKEEPER_KEY, ZOOKEEPER_PORT, ZooKeeper,
    layers::Layers,
    member, plaintext,
    value::{Count, Hidden, NodeId},
};

/// Key of the setting that other settings follow.
const MEMBERS: &str = "members";
const MEMORY: &str = "limits.memory";

impl NodeConfig {
    /// Reads all settings, and checks those of the right type. All faults are noted in `r`.
    pub(super) fn read(r: &mut Layers, host_name: &str) -> NodeConfig {
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
        let insecure = plaintext::insecure(r);
        let tls = Tls::read(r, id);
        let (listen, services) = listen(r, members.iter().find(|m| m.id == id), tls.members.mode);
        let zookeeper = words(r);
        let prover = prover(r);
        let timing = timing(r);
        let session = session(r);
        let memory = memory(r);
        let share = Size((memory.0 / 16).min(64 << 20));
        let limits = limits(r, memory, share);
        let log = log(r, share);
        let threads = threads(r);
        let telemetry = telemetry(r);
        let audit = super::audit::read(r, id.0);
        let config = NodeConfig {
            ensemble,
            id,
            data_dir,
            log_dir,
            pid_file,
            insecure,
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
            tls,
            audit,
        };
        config.check(r);
        config
    }
}

/// The addresses of this node, and those at which its own services find each other. `own` is the node among the members.
fn listen(r: &mut Layers, own: Option<&MemberConfig>, tls: Mode) -> (Listen, Services) {
    let host = host(r, own);
    let mut port = |key, meaning, default, of: fn(&MemberConfig) -> u16| {
        SocketAddr::new(host, r.get_following(key, meaning, own.map_or(default, of), MEMBERS))
    };
    let client = port("listen.client_port", "port of the client API; 0: any", CLIENT_PORT, |m| m.client_port);
    let quorum = port("listen.quorum_port", "port of quorum-svc; 0: any", QUORUM_PORT, |m| m.quorum_port);
    let election =
        port("listen.election_port", "port of election-svc; 0: any", ELECTION_PORT, |m| m.election_port);
    let internal_host = r.get(
        "listen.internal_host",
        "IP address where services that are processes of their own listen for those of their node",
        IpAddr::from([127, 0, 0, 1]),
    );
    let internal_dir = r.path(
        "listen.internal_dir",
        "directory of Unix sockets (quorum.sock, election.sock, store.sock) in place of the internal ports; empty for none",
    );
    let internal_quorum =
        r.get(INTERNAL_QUORUM_KEY, "port of quorum-svc for the store of its node", INTERNAL_QUORUM_PORT);
    let internal_election = r.get(
        INTERNAL_ELECTION_KEY,
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
    let at = |host: IpAddr, port: OptionalPort| port.0.map(|port| SocketAddr::new(host, port));
    let internal = |socket: &str, port: OptionalPort| match &internal_dir {
        Some(dir) => Some(Internal::Unix(dir.join(socket))),
        None => at(internal_host, port).map(Internal::Tcp),
    };
    let always = |socket: &str, port: u16| {
        internal(socket, OptionalPort(Some(port)))
            .unwrap_or(Internal::Tcp(SocketAddr::new(internal_host, port)))
    };
    let listen = Listen {
        client,
        quorum,
        election,
        internal_quorum: always("quorum.sock", internal_quorum),
        internal_election: always("election.sock", internal_election),
        internal_store: internal("store.sock", internal_store),
        zookeeper: at(host, zookeeper),
        http: at(host, http),
        quorum_http: at(host, quorum_http),
        election_http: at(host, election_http),
    };
    let services = services(r, &listen, tls);
    (listen, services)
}

const INTERNAL_QUORUM_KEY: &str = "listen.internal_quorum_port";
const INTERNAL_ELECTION_KEY: &str = "listen.internal_election_port";

/// The address that the ports listen on. The other members dial the host of this one, so it has to be reachable there.
fn host(r: &mut Layers, own: Option<&MemberConfig>) -> IpAddr {
    let own = own.and_then(|m| m.host.parse::<IpAddr>().ok());
    // All addresses of IPv6 are those of IPv4 as well.
    let every: IpAddr = match own {
        Some(IpAddr::V6(_)) => [0u16; 8].into(),
        _ => [0u8; 4].into(),
    };
    let host = r.get_following(HOST_KEY, "IP address to listen on", every, MEMBERS);
    let reached_at = |own: IpAddr| match host.is_unspecified() {
        true => host.is_ipv6() || own.is_ipv4(),
        false => host.is_ipv6() == own.is_ipv6() && host.is_loopback() == own.is_loopback(),
    };
    if let Some(own) = own.filter(|own| !reached_at(*own)) {
        r.refuse(
            HOST_KEY,
            &format!("one at which others reach {own}, the host of this member, or `::` for all"),
        );
    }
    host
}

fn services(r: &mut Layers, listen: &Listen, tls: Mode) -> Services {
    let dialled = |port: &Internal| match port {
        Internal::Unix(_) => port.to_string(),
        Internal::Tcp(address) => {
            let scheme = if port.is_open() && tls.dials() { "https" } else { "http" };
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip([127, 0, 0, 1].into());
            }
            format!("{scheme}://{address}")
        }
    };
    Services {
        election: r.get_following(
            "services.election",
            "where the quorum finds the election of its node, if that is another process; left out: at listen.internal_host",
            dialled(&listen.internal_election),
            INTERNAL_ELECTION_KEY,
        ),
        quorum: r.get_following(
            "services.quorum",
            "where the store finds the quorum of its node, if that is another process; left out: at listen.internal_host",
            dialled(&listen.internal_quorum),
            INTERNAL_QUORUM_KEY,
        ),
    }
}

/// What ZooKeeper's clients may request besides their protocol.
pub(super) fn words(r: &mut Layers) -> ZooKeeper {
    ZooKeeper {
        words: r.get(
            "zookeeper.words",
            "four letter words, and commands over HTTP, that are answered, with commas between them; *: all",
            "envi,isro,ruok,srvr".to_owned(),
        ),
    }
}

/// What proves the identities of clients.
pub(super) fn prover(r: &mut Layers) -> Prover {
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

fn timing(r: &mut Layers) -> Timing {
    Timing {
        tick: r.get("timing.tick", "pings between leader and learners", millis(200)),
        init_limit: r.get("timing.init_limit", "time to synchronise with a new leader", millis(10_000)),
        sync_limit: r.get("timing.sync_limit", "silence after which a peer counts as lost", millis(2_000)),
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
        drain: drain(r),
    }
}

/// A setting of nodes and gateways.
pub(super) fn drain(r: &mut Layers) -> Duration {
    r.get("timing.drain", "how long connections may take to end on shutdown", millis(5_000))
}

fn session(r: &mut Layers) -> SessionLimits {
    SessionLimits {
        timeout_min: r.get("session.timeout_min", "shortest session time-out a client gets", millis(1_000)),
        timeout_max: r.get("session.timeout_max", "longest session time-out a client gets", millis(60_000)),
        opens_per_second: r.get(
            "session.opens_per_second",
            "sessions that one address may open in a second; ten times as many at once",
            100,
        ),
    }
}

/// A setting of nodes and gateways.
pub(super) fn memory(r: &mut Layers) -> Size {
    r.get(
        MEMORY,
        "memory that this process should not exceed; bounds of connections and of clients' requests follow from it",
        Size::mib(1024),
    )
}

/// `share` is the part of the memory that one of several queues may use.
fn limits(r: &mut Layers, memory: Size, share: Size) -> Limits {
    Limits {
        memory,
        data: r.get("limits.data", "bytes of one value, and of all values of a multi", Size::mib(1)),
        in_flight: r.get("limits.in_flight", "writes of one node that wait for their commit", 16_384),
        in_flight_bytes: r.get_following("limits.in_flight_bytes", "the same in bytes", share, MEMORY),
        sessions: r.get(
            "limits.sessions",
            "open sessions of the whole ensemble; the same on all nodes",
            20_000,
        ),
    }
}

fn log(r: &mut Layers, share: Size) -> Log {
    let min_free = r.get(
        "log.min_free",
        "mark of free space below which writes that enlarge the state are refused; 0B: a tenth of the file system, 32MiB to 2GiB",
        Size(0),
    );
    Log {
        min_free: Some(min_free).filter(|size| *size > Size(0)),
        segment_size: r.get("log.segment_size", "bytes of one file of the transaction log", Size::mib(64)),
        recent_size: r.get_following(
            "log.recent_size",
            "bytes of the newest entries kept in memory; with what they pin it is up to twice as much",
            Size(share.0.min(8 << 20)),
            MEMORY,
        ),
        backlog_size: r.get_following("log.backlog_size", "bytes that may wait for the disk", share, MEMORY),
        snapshot_every: r.get("log.snapshot_every", "entries between two snapshots", 500_000),
        snapshot_bytes: r.get("log.snapshot_bytes", "bytes of entries between two snapshots", Size::mib(64)),
        keep_size: r.get(
            "log.keep_size",
            "bytes of log kept behind a snapshot, for members that were away",
            Size::mib(128),
        ),
        keep_entries: r.get("log.keep_entries", "entries of log kept behind a snapshot", 10_000),
    }
}

fn threads(r: &mut Layers) -> Threads {
    let Count(front) = r.get(
        "threads.front",
        "threads for connections of clients, besides the one that runs the services; auto: half as many as there are \
         cores, 1 to 8",
        Count(None),
    );
    Threads { front }
}

fn telemetry(r: &mut Layers) -> Telemetry {
    let otlp_endpoint = r.get_or_shared(
        "telemetry.otlp_endpoint",
        "OpenTelemetry collector to push metrics and spans to, by OTLP/gRPC; empty for none, whatever \
         OTEL_EXPORTER_OTLP_ENDPOINT says",
        COLLECTOR,
        |shared| shared.get(COLLECTOR).cloned(),
        String::new(),
    );
    Telemetry {
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
    }
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

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
