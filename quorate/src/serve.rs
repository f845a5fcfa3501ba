//! `quorate serve`: one node, all three services in one process.

use std::{collections::BTreeMap, convert::Infallible, path::Path, sync::Arc, time::Duration};

use ::gateway::Gateway;
use api::{
    Build, Ensemble, EnsembleId, Level, Levels, PeerId,
    budget::Budget,
    ports::{Election, Quorum},
};
use client_sdk::NodeMember;
use election_svc::ElectionService;
use host::{
    config::{self, MemberConfig, NodeConfig, ZOOKEEPER_KEY},
    descriptors::{self, Connections},
    http::Health,
    listen::{self, Bounds, CallPlaces, Listener},
    shutdown,
};
use quorum_log::{Disk, SNAPSHOTS, Snapshots};
use quorum_svc::{Late, OpenError, Opening, QuorumService};
use rustix::process::{Signal, set_parent_process_death_signal};
use store_svc::StoreService;
use telemetry::Group;
use tls::{Admitted, Dialer};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthProtocol, HealthServer},
};

use crate::{
    args::Serve,
    exit::{Doing as _, Failure},
    observe::Observed,
    secure::{self, Secure},
    services::{PidFile, Services},
    threads::Front,
    zookeeper,
};

/// Runs until a signal comes, or until a service stops by itself.
pub(crate) async fn run(args: &Serve, disk: Arc<dyn Disk>) -> Result<(), Failure> {
    let node = begin(args)?;
    let (quorum, opened) = oneshot::channel();
    let health = Health::starting("recovering the log");
    let leaving = health.clone();
    let leave = move || {
        // Sends clients to other nodes from now on.
        leaving.stopping();
        hand_over(opened)
    };
    let shutdown = shutdown::on_signals_after(leave).doing("listen for signals")?;
    // Ports before data: a start that finds a port taken has changed nothing.
    let secure = Secure::load(&node, secure::Ports::All, &shutdown)?;
    let mut ports = Ports::bind(&node, &secure).await?;
    let http = ports.http.take();
    let observed = Observed::start(&node, health, http, "quorate", &Group::ALL, shutdown.clone())?;
    let ports = ports.audited(&observed.audit);
    let ran = serve(&node, disk, (ports, secure.dialer()), quorum, &observed, shutdown).await;
    observed.end().await;
    if ran.is_ok() {
        tracing::info!(node_id = node.id.0, "node stopped");
    }
    ran
}

/// What every process of a node does first.
pub(crate) fn begin(args: &Serve) -> Result<NodeConfig, Failure> {
    if let Some(parent) = args.exit_with_parent {
        end_with(parent)?;
    }
    let settings = &args.settings;
    Ok(config::load(settings.config.as_deref(), config::process_env(), &settings.flags())?.node)
}

/// Lets another node lead before this one stops. Not for long: an ensemble elects a leader as fast without its help.
pub(crate) async fn hand_over(mut quorum: oneshot::Receiver<quorum_svc::Handle>) {
    const LIMIT: Duration = Duration::from_secs(2);
    // Before it is open it cannot lead.
    let Ok(quorum) = quorum.try_recv() else { return };
    match tokio::time::timeout(LIMIT, quorum.leave()).await {
        // An error means that it has stopped already.
        Ok(_) => {}
        Err(_) => tracing::warn!(
            limit_ms = LIMIT.as_millis() as u64,
            "no other node took over leadership in time; stopping"
        ),
    }
}

/// Opens the services from below, election, quorum, store, and runs them. Hands the quorum out when it is open.
async fn serve(
    node: &NodeConfig,
    disk: Arc<dyn Disk>,
    (ports, dialer): (Ports, Dialer),
    opened: oneshot::Sender<quorum_svc::Handle>,
    observed: &Observed,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let election =
        ElectionService::new(election_config(node, dialer.clone())?, shutdown.clone()).or_usage()?;
    let (config, handle, stop) = (quorum_config(node, dialer)?, election.handle.clone(), shutdown.clone());
    let quorums_disk = disk.clone();
    let open =
        move || QuorumService::open_on(quorums_disk.clone(), config.clone(), handle.clone(), stop.clone());
    let (opening, late) = Late::new();
    // Recovery blocks on the disk, and nothing else runs yet. If there is no space, the store answers stale reads meanwhile.
    let mut first = open();
    if matches!(&first, Err(e) if e.is_full()) && store_svc::give_up_checkpoint(&node.data_dir) {
        // Its space is enough to take part, and log and snapshot have all that was in it.
        first = open();
    }
    let quorum = first_attempt(first, &opening)?;
    // The data directory is ours from here on; before, the file could be that of the process that has it.
    let _pid_file = node.pid_file.clone().map(PidFile::write).transpose()?;
    observed.health.doing("reading the checkpoint");
    let snapshot = match &quorum {
        Some(quorum) => quorum.newest_snapshot(),
        // What is wrong with them, the quorum says when it opens.
        None => Snapshots::newest_in(disk.as_ref(), &node.data_dir.join(SNAPSHOTS)).ok().flatten(),
    };
    let snapshot = snapshot.map(|snapshot| (snapshot.zxid(), snapshot));
    let mut store = StoreService::open_or_read(
        store_config(node, &observed.audit),
        late.clone(),
        shutdown.clone(),
        snapshot,
    )
    .or_refused()?;
    if quorum.is_none() && !store.has_state() {
        begin_with_snapshot(&mut store, disk.as_ref(), &node.data_dir);
    }

    observed.ready_with_store(store.readiness(), late.clone());
    observed.ready_with_room(late);
    let client_routes = client_routes(&store, store.readiness()).await?;
    let store_port = Routes::new(store.port());
    let drain = node.timing.drain;
    let clients =
        client_bounds(node.limits.memory.bytes(), node.listen.zookeeper.is_some(), &observed.health);
    let gateway =
        Gateway::new(store.handle(), zookeeper::config(node)?, Some(zookeeper::about(store.about())));
    zookeeper::answer_commands(&observed.commands, &gateway);
    let gateway = zookeeper::serve(ports.zookeeper, gateway, clients.zookeeper, shutdown.clone(), drain);
    let port = |listener, routes, bounds| listen::serve(listener, routes, bounds, shutdown.clone(), drain);
    let front = Front::start(node.threads.front)?;
    let mut services = Services::new(shutdown.clone());
    let driver = election.driver;
    services.spawn("the election", async move {
        driver.run().await;
        Ok::<(), Infallible>(())
    });
    let quorum_port = (ports.quorum, shutdown.clone());
    services.spawn("the quorum", async move {
        let (listener, shutdown) = quorum_port;
        let Some(quorum) = next_attempts(quorum, open, opening, &shutdown).await? else {
            return Ok(());
        };
        // The receiver is gone if a signal came meanwhile.
        let _ = opened.send(quorum.handle());
        let learn = Routes::new(quorum.learn_service());
        let port = listen::serve(listener, learn, Bounds::members(), shutdown, drain);
        let run = async { quorum.run().await.map_err(|e| e.to_string()) };
        tokio::try_join!(run, async { port.await.map_err(|e| format!("its port: {e}")) }).map(|_| ())
    });
    services.spawn("the store", store.run());
    services
        .spawn("the election port", port(ports.election, Routes::new(election.server), Bounds::members()));
    let threads = front.handle();
    services.spawn_on(&threads, "the client port", port(ports.client, client_routes, clients.client));
    if let Some(listener) = ports.store {
        let store = port(listener, store_port, Bounds::neighbours());
        services.spawn_on(&threads, "the internal store port", store);
    }
    services.spawn_on(&threads, "the ZooKeeper port", gateway);
    observed.health.started();
    services.all_ended(drain).await
}

/// The opened quorum; `None` if the disk has no space for it now.
pub(crate) fn first_attempt<E: Election>(
    opened: Result<QuorumService<E>, OpenError>,
    opening: &Opening,
) -> Result<Option<QuorumService<E>>, Failure> {
    match opened {
        Ok(quorum) => {
            opening.opened(quorum.handle());
            Ok(Some(quorum))
        }
        Err(e) if e.is_full() => {
            tracing::error!(
                error = %e,
                "no space on the disk: this node takes no part, and answers stale reads only, until there is space"
            );
            opening.waits(e.to_string());
            Ok(None)
        }
        Err(e) => Err(Failure::refused(e.to_string())),
    }
}

/// Gives a store without a checkpoint the newest snapshot of the disk, because the closed quorum cannot. Without one, the store
/// refuses stale reads.
fn begin_with_snapshot<Q: Quorum>(store: &mut StoreService<Q>, disk: &dyn Disk, data_dir: &Path) {
    let begun = match Snapshots::newest_in(disk, &data_dir.join(SNAPSHOTS)) {
        Ok(Some(snapshot)) => store.begin_with(snapshot.zxid(), snapshot).map_err(|e| e.to_string()),
        Ok(None) => Err("there is none that is sound".to_owned()),
        Err(e) => Err(e.to_string()),
    };
    if let Err(why) = begun {
        tracing::warn!(
            reason = why,
            "no snapshot can be read: this node refuses stale reads, too, until there is space"
        );
    }
}

/// Retries to open the quorum until there is space, if the first attempt found none. `None` at the shutdown.
pub(crate) async fn next_attempts<E: Election>(
    first: Option<QuorumService<E>>,
    open: impl Fn() -> Result<QuorumService<E>, OpenError> + Clone + Send + 'static,
    opening: Opening,
    shutdown: &CancellationToken,
) -> Result<Option<QuorumService<E>>, String> {
    const PERIOD: Duration = Duration::from_secs(1);
    if first.is_some() {
        return Ok(first);
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(PERIOD) => {}
        }
        let open = open.clone();
        match tokio::task::spawn_blocking(open).await.map_err(|e| e.to_string())? {
            Ok(quorum) => {
                tracing::info!("disk has space again; taking part");
                opening.opened(quorum.handle());
                return Ok(Some(quorum));
            }
            Err(e) if e.is_full() => opening.waits(e.to_string()),
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// The services of the client port; `ready`: the answer to probes.
pub(crate) async fn client_routes<Q: Quorum>(
    store: &StoreService<Q>,
    ready: watch::Receiver<bool>,
) -> Result<Routes, Failure> {
    let mut routes = Routes::builder();
    routes
        .add_service(store.coordination())
        .add_service(store.node())
        .add_service(store.cluster())
        .add_service(health(ready).await)
        .add_service(reflection().build_v1().doing("describe the API")?)
        // What older tools and other languages' libraries still ask for.
        .add_service(reflection().build_v1alpha().doing("describe the API")?);
    Ok(routes.routes())
}

pub(crate) fn election_config(node: &NodeConfig, dialer: Dialer) -> Result<election_svc::Config, Failure> {
    let mut core = election_core::Config::new(node.id, ensemble(node)?);
    core.finalize_wait = node.timing.finalize_wait;
    Ok(election_svc::Config {
        ensemble_name: node.ensemble.clone(),
        build: build()?,
        core,
        addresses: addresses(node, MemberConfig::election_address),
        dialer,
    })
}

pub(crate) fn quorum_config(node: &NodeConfig, dialer: Dialer) -> Result<quorum_svc::Config, Failure> {
    let Build { version, levels } = build()?;
    let core = quorum_core::Config {
        levels,
        me: node.id,
        ensemble: ensemble(node)?,
        init_limit: node.timing.init_limit,
        sync_limit: node.timing.sync_limit,
        ping_interval: node.timing.tick,
        commit_delay: quorum_core::COMMIT_DELAY,
        park_limit: node.timing.park_limit,
        requests_max: node.limits.in_flight as usize,
        request_bytes_max: node.limits.in_flight_bytes.bytes(),
        draw: random_id()?,
        counter_max: u32::MAX,
    };
    Ok(quorum_svc::Config {
        ensemble: node.ensemble.clone(),
        version,
        core,
        settings: node.shared_settings(),
        addresses: addresses(node, MemberConfig::quorum_address),
        dialer,
        data_dir: node.data_dir.clone(),
        log_dir: node.log_dir.clone(),
        min_free: node.log.min_free.map(|size| size.0),
        segment_bytes: node.log.segment_size.0,
        keep: quorum_svc::Keep { bytes: node.log.keep_size.0, entries: node.log.keep_entries },
        recent_bytes: node.log.recent_size.bytes(),
        backlog_bytes: node.log.backlog_size.bytes(),
        incarnation_every: quorum_svc::INCARNATION_EVERY,
    })
}

/// Version and feature levels of this process. For tests of ensembles of several versions, `TEST_QUORATE_BUILD` makes it report
/// others: `VERSION:MIN:MAX`. That changes nothing else.
fn build() -> Result<Build, Failure> {
    let Some(pretended) = std::env::var_os(PRETENDED_BUILD) else { return Ok(Build::this()) };
    let pretended = pretended.to_string_lossy();
    let parsed = || {
        let mut parts = pretended.split(':');
        let version = parts.next()?.to_owned();
        let [min, max] = [parts.next()?.parse().ok()?, parts.next()?.parse().ok()?].map(Level);
        Some(Build { version, levels: Levels::new(min, max)? })
    };
    let build =
        parsed().ok_or_else(|| Failure::usage(format!("{PRETENDED_BUILD} is not VERSION:MIN:MAX")))?;
    tracing::warn!(
        version = build.version, levels = %build.levels,
        "this process reports another version, for tests only: do not use it with data of any value"
    );
    Ok(build)
}

/// See [`build`].
const PRETENDED_BUILD: &str = "TEST_QUORATE_BUILD";

/// An id that no other ensemble has.
pub(crate) fn random_id() -> Result<EnsembleId, Failure> {
    let half = || getrandom::u64().map(u128::from).doing("draw a random number");
    Ok(EnsembleId(half()? << 64 | half()?))
}

/// Of the ports that clients connect to. They share their budgets.
pub(crate) struct ClientBounds {
    pub(crate) client: Bounds,
    pub(crate) zookeeper: Bounds,
}

/// What clients may make this process hold. It is not ready while they hold all of it.
pub(crate) fn client_bounds(memory: usize, zookeeper: bool, health: &Health) -> ClientBounds {
    let connections = Connections::sharing(descriptors::raise_limit(), memory, zookeeper);
    let client = Bounds::clients(
        connections.client,
        CallPlaces::sharing(memory),
        Budget::new(memory / 16),
        Budget::new(memory / 16),
    );
    client.check_ready(health);
    ClientBounds { zookeeper: Bounds { connections: connections.zookeeper, ..client.clone() }, client }
}

pub(crate) fn store_config(node: &NodeConfig, audit: &audit::Log) -> store_svc::Config {
    let member = |m: &MemberConfig| NodeMember {
        id: m.id,
        client_address: m.client_address(),
        membership: m.member().membership,
    };
    let memory = node.limits.memory.bytes();
    store_svc::Config {
        ensemble: node.ensemble.clone(),
        members: node.members.iter().map(member).collect(),
        limits: store_svc::Limits {
            data_max: node.limits.data.0,
            sessions_max: node.limits.sessions,
            session_timeout_min: node.session.timeout_min,
            session_timeout_max: node.session.timeout_max,
            park: node.timing.park_limit,
            reap_interval: node.timing.reap_interval,
            container_unused: node.timing.container_unused,
            ..memory_limits(memory)
        },
        bounds: store_svc::Bounds {
            total_bytes: memory / 16,
            opens_per_second: node.session.opens_per_second,
            ..store_svc::Bounds::default()
        },
        snapshot_entries: node.log.snapshot_every,
        snapshot_bytes: node.log.snapshot_bytes.0,
        trace_ratio: node.telemetry.trace_ratio,
        prover: node.prover.clone(),
        plaintext_ports: node.plaintext_ports().iter().map(|port| port.name.to_owned()).collect(),
        audit: audit.clone(),
        ..store_svc::Config::new(node.id, node.data_dir.clone())
    }
}

/// The limits of a store that follow from the memory of its process.
fn memory_limits(memory: usize) -> store_svc::Limits {
    store_svc::Limits {
        unsent_total_max: memory / 16,
        watch_bytes_node: memory / 16,
        history_bytes: (memory / 32).min(64 << 20),
        walk_bytes: (memory / 32).min(128 << 20),
        ..store_svc::Limits::default()
    }
}

pub(crate) fn ensemble(node: &NodeConfig) -> Result<Ensemble, Failure> {
    node.ensemble_of_members().or_usage()
}

/// The standard health protocol: the node as a whole, and the API by its name, serve while the store does.
async fn health(mut ready: watch::Receiver<bool>) -> HealthServer<impl HealthProtocol> {
    let (reporter, server) = tonic_health::server::health_reporter();
    let report = async move |ready| {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        reporter.set_service_status("quorate.v1.Coordination", status).await;
    };
    report(false).await;
    tokio::spawn(async move {
        loop {
            let now = *ready.borrow_and_update();
            report(now).await;
            // Ends with the store.
            if ready.changed().await.is_err() {
                return report(false).await;
            }
        }
    });
    server
}

/// Lets grpcurl and the like list what the client port offers.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("quorate.v1.Coordination")
        .with_service_name("quorate.v1.Node")
        .with_service_name("quorate.v1.Cluster")
        .with_service_name("grpc.health.v1.Health")
}

/// The bound ports of a node.
struct Ports {
    client: Listener,
    quorum: Listener,
    election: Listener,
    /// Gateways in other processes, if they are served.
    store: Option<Listener>,
    /// ZooKeeper's clients, if they are served.
    zookeeper: Option<Listener>,
    /// Probes and metrics, if they are not switched off.
    http: Option<Listener>,
}

impl Ports {
    async fn bind(node: &NodeConfig, secure: &Secure) -> Result<Ports, Failure> {
        let ports = Ports {
            client: secure.client_port(Listener::bind("client", node.listen.client).await.or_usage()?),
            quorum: secure.member_port(Listener::bind("quorum", node.listen.quorum).await.or_usage()?),
            election: secure.member_port(Listener::bind("election", node.listen.election).await.or_usage()?),
            store: bind_store(node, secure).await?,
            zookeeper: secure.zookeeper_port(bind_zookeeper(node).await?),
            http: secure.http_port(Observed::bind(node.listen.http).await?),
        };
        tracing::info!(
            client = %ports.client.address(), quorum = %ports.quorum.address(), election = %ports.election.address(),
            zookeeper = ports.zookeeper.as_ref().map(|port| port.address().to_string()),
            http = ports.http.as_ref().map(|http| http.address().to_string()),
            node_id = node.id.0, ensemble = node.ensemble, "listening"
        );
        Ok(ports)
    }

    /// With a record of each connection that is refused for its certificate.
    fn audited(self, audit: &audit::Log) -> Ports {
        Ports {
            client: self.client.audited(audit),
            quorum: self.quorum.audited(audit),
            election: self.election.audited(audit),
            store: self.store.map(|port| port.audited(audit)),
            zookeeper: self.zookeeper.map(|port| port.audited(audit)),
            http: self.http,
        }
    }
}

/// The port of the store for gateways in other processes.
pub(crate) async fn bind_store(node: &NodeConfig, secure: &Secure) -> Result<Option<Listener>, Failure> {
    let Some(at) = &node.listen.internal_store else { return Ok(None) };
    let bound = secure.internal_port("internal store", at, Admitted::Gateways).await?;
    tracing::info!(address = bound.place(), "listening for gateways, which can act for any client");
    Ok(Some(bound))
}

/// The port for ZooKeeper's clients. If it is taken, it is most often by a ZooKeeper.
pub(crate) async fn bind_zookeeper(node: &NodeConfig) -> Result<Option<Listener>, Failure> {
    let Some(address) = node.listen.zookeeper else { return Ok(None) };
    let bound = Listener::bind("ZooKeeper", address).await;
    bound
        .map(Some)
        .map_err(|e| Failure::usage(format!("{e}; `{ZOOKEEPER_KEY}` names another one, or \"off\" for none")))
}

fn addresses(node: &NodeConfig, of: fn(&MemberConfig) -> String) -> BTreeMap<PeerId, String> {
    node.members.iter().map(|m| (m.id, of(m))).collect()
}

/// Lets the kernel kill this process when its parent ends, however that happens.
pub(crate) fn end_with(parent: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).doing("bind this process to its parent")?;
    // The parent may have ended before that.
    if std::os::unix::process::parent_id() != parent {
        return Err(Failure::refused(format!("the parent process {parent} is gone")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/operations.md, "Memory".
    #[test]
    fn b07_all_bounds_together_fit_into_the_memory_and_leave_room_for_the_tree() {
        for (mib, left_mib) in [(512, 24), (1024, 128)] {
            let memory: usize = mib << 20;
            let share = (memory / 16).min(64 << 20);
            let bounds = [
                // Messages and requests.
                2 * (memory / 16),
                // Connections, and calls with their pings.
                memory / 4,
                memory / 16,
                8 * 352 * (memory / 16 / (10 << 10)),
                // Writes, the newest entries with what they pin, the backlog of the disk.
                2 * share + (16 << 20),
                // Changes of a checkpoint.
                16 << 20,
                memory_limits(memory).memory(),
            ];
            let all: usize = bounds.iter().sum();
            assert!(all + (left_mib << 20) <= memory, "{mib} MiB: {} MiB", all >> 20);
            println!(
                "{mib} MiB: {} MiB, {} MiB of them for the store",
                all >> 20,
                memory_limits(memory).memory() >> 20
            );
        }
    }
}
