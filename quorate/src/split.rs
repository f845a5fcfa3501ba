//! `quorate election`, `quorate quorum`, `quorate store`: the services of a node, each in a process of its own.
//!
//! They are the same services as in `quorate serve`; the only difference is the implementation of the port that each is made with.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use election_svc::ElectionService;
use gateway::Gateway;
use host::{
    config::NodeConfig,
    descriptors,
    http::Health,
    listen::{self, Bounds as ListenBounds, Listener},
    shutdown,
};
use proto::remote::{Bounds, Kept, Neighbour, RemoteElection, RemoteQuorum};
use quorum_log::{DataDir, Disk, EpochFile, Epochs, FsDisk};
use quorum_svc::{Late, QuorumService};
use store_svc::StoreService;
use telemetry::Group;
use tls::Admitted;
use tokio::sync::{oneshot, watch};
use tonic::service::Routes;

use crate::{
    args::Serve,
    exit::{Doing as _, Failure},
    observe::Observed,
    secure::{Ports, Secure},
    serve::{
        begin, bind_store, bind_zookeeper, client_bounds, client_routes, election_config, ensemble,
        first_attempt, hand_over, next_attempts, quorum_config, store_config,
    },
    services::{PidFile, Services},
    threads::Front,
    zookeeper,
};

/// The election of a node.
pub(crate) async fn election(args: &Serve) -> Result<(), Failure> {
    let node = begin(args)?;
    let (opened, quorum) = oneshot::channel();
    let health = Health::starting("opening the ports");
    let leaving = health.clone();
    let leave = move || {
        leaving.stopping();
        quorum_gone(quorum)
    };
    let shutdown = shutdown::on_signals_after(leave).doing("listen for signals")?;
    let secure = Secure::load(&node, Ports::Members, &shutdown)?;
    let peers = secure.member_port(Listener::bind("election", node.listen.election).await.or_usage()?);
    let port =
        secure.internal_port("internal election", &node.listen.internal_election, Admitted::Own).await?;
    let http = secure.http_port(Observed::bind(node.listen.election_http).await?);
    let groups = [Group::Process, Group::Election];
    let observed = Observed::start(&node, health, http, "quorate-election", &groups, shutdown.clone())?;
    let _pid_file = pid_file(&node, "election")?;
    let election =
        ElectionService::new(election_config(&node, secure.dialer())?, shutdown.clone()).or_usage()?;
    // The receiver is gone if a signal came meanwhile.
    let _ = opened.send(election.quorum.clone());
    let (peers, port) = (peers.audited(&observed.audit), port.audited(&observed.audit));
    observed.ready_with_election(node.id, ensemble(&node)?, election.peers, election.quorum);
    log_ports(&node, "election", &[&peers, &port]);

    let drain = node.timing.drain;
    // Its own files may need many.
    let _ = descriptors::raise_limit();
    let serve = |listener, routes, bounds| listen::serve(listener, routes, bounds, shutdown.clone(), drain);
    let mut services = Services::new(shutdown.clone());
    let driver = election.driver;
    services.spawn("the election", async move {
        driver.run().await;
        Ok::<(), Infallible>(())
    });
    services.spawn("the election port", serve(peers, Routes::new(election.server), ListenBounds::members()));
    services.spawn(
        "the internal election port",
        serve(port, Routes::new(election.port), ListenBounds::neighbours()),
    );
    observed.health.started();
    let ended = services.all_ended(drain).await;
    observed.end().await;
    ended
}

/// When a whole node stops, its quorum hands over first, and needs its election for that. An election that is restarted
/// alone waits without need, but not for long, and delays no other service.
async fn quorum_gone(mut quorum: oneshot::Receiver<watch::Receiver<bool>>) {
    const LIMIT: Duration = Duration::from_secs(3);
    let Ok(mut linked) = quorum.try_recv() else { return };
    // In time or not, and an error means that the election has stopped already.
    let _ = tokio::time::timeout(LIMIT, linked.wait_for(|linked| !linked)).await;
}

/// The quorum of a node.
pub(crate) async fn quorum(args: &Serve, disk: Arc<dyn Disk>) -> Result<(), Failure> {
    let node = begin(args)?;
    let (opened, handle) = oneshot::channel();
    let health = Health::starting("recovering the log");
    let leaving = health.clone();
    let leave = move || {
        leaving.stopping();
        hand_over(handle)
    };
    let shutdown = shutdown::on_signals_after(leave).doing("listen for signals")?;
    let secure = Secure::load(&node, Ports::Members, &shutdown)?;
    let peers = secure.member_port(Listener::bind("quorum", node.listen.quorum).await.or_usage()?);
    let port = secure.internal_port("internal quorum", &node.listen.internal_quorum, Admitted::Own).await?;
    let http = secure.http_port(Observed::bind(node.listen.quorum_http).await?);
    let groups = [Group::Process, Group::Quorum];
    let observed = Observed::start(&node, health, http, "quorate-quorum", &groups, shutdown.clone())?;
    let (peers, port) = (peers.audited(&observed.audit), port.audited(&observed.audit));
    let election = RemoteElection::new(neighbour(&node, "election", &node.services.election, &secure)?);
    let (config, handle, stop) = (quorum_config(&node, secure.dialer())?, election.clone(), shutdown.clone());
    let open = move || QuorumService::open_on(disk.clone(), config.clone(), handle.clone(), stop.clone());
    let (opening, late) = Late::new();
    let first = first_attempt(open(), &opening)?;
    if first.is_none() {
        // It has come up as far as it can for now.
        observed.health.started();
    }
    observed.ready_with_room(late.clone());
    let attempts = next_attempts(first, open, opening, &shutdown);
    let Some(quorum) = attempts.await.map_err(Failure::refused)? else {
        observed.end().await;
        return Ok(());
    };
    // The receiver is gone if a signal came meanwhile.
    let _ = opened.send(quorum.handle());
    observed.ready_with_quorum(quorum.handle(), election, node.timing.sync_limit);
    let _pid_file = pid_file(&node, "quorum")?;
    log_ports(&node, "quorum", &[&peers, &port]);

    let drain = node.timing.drain;
    // Its own files may need many.
    let _ = descriptors::raise_limit();
    let serve = |listener, routes, bounds| listen::serve(listener, routes, bounds, shutdown.clone(), drain);
    let (learn, store) = (Routes::new(quorum.learn_service()), Routes::new(quorum.port_service()));
    let mut services = Services::new(shutdown.clone());
    services.spawn("the quorum", quorum.run());
    services.spawn("the quorum port", serve(peers, learn, ListenBounds::members()));
    services.spawn("the internal quorum port", serve(port, store, ListenBounds::neighbours()));
    observed.health.started();
    let ended = services.all_ended(drain).await;
    observed.end().await;
    ended
}

/// The store of a node.
pub(crate) async fn store(args: &Serve) -> Result<(), Failure> {
    let node = begin(args)?;
    let shutdown = shutdown::on_signals().doing("listen for signals")?;
    let secure = Secure::load(&node, Ports::Clients, &shutdown)?;
    let clients = secure.client_port(Listener::bind("client", node.listen.client).await.or_usage()?);
    let zookeepers = secure.zookeeper_port(bind_zookeeper(&node).await?);
    let internal = bind_store(&node, &secure).await?;
    let http = secure.http_port(Observed::bind(node.listen.http).await?);
    let groups = [Group::Process, Group::Store, Group::Gateway];
    let health = Health::starting("reading the checkpoint");
    let observed = Observed::start(&node, health, http, "quorate-store", &groups, shutdown.clone())?;
    let audited = |port: Listener| port.audited(&observed.audit);
    let (clients, zookeepers) = (audited(clients), zookeepers.map(audited));
    let internal = internal.map(audited);
    let bounds = Bounds {
        requests: node.limits.in_flight as usize,
        bytes: node.limits.in_flight_bytes.bytes(),
        park: node.timing.park_limit,
    };
    // A directory of its own, because the other one is the quorum's as long as that runs.
    let data_dir = node.data_dir.join("store");
    let _claimed =
        DataDir::claim(&FsDisk, &data_dir, &node.ensemble, node.id, &ensemble(&node)?).or_refused()?;
    let neighbour = neighbour(&node, "quorum", &node.services.quorum, &secure)?;
    let quorum = RemoteQuorum::new(neighbour, bounds, kept(&data_dir)?);
    let config = store_svc::Config { data_dir, ..store_config(&node, &observed.audit) };
    let store = StoreService::open(config, quorum.clone(), shutdown.clone()).or_refused()?;
    let _pid_file = pid_file(&node, "store")?;
    log_ports(&node, "store", &[&clients]);

    let drain = node.timing.drain;
    let clients_hold =
        client_bounds(node.limits.memory.bytes(), node.listen.zookeeper.is_some(), &observed.health);
    let ready = with_quorum(store.readiness(), quorum.clone());
    observed.ready_with_store(ready.clone(), quorum);
    let routes = client_routes(&store, ready).await?;
    let store_port = Routes::new(store.port());
    let gateway =
        Gateway::new(store.handle(), zookeeper::config(&node)?, Some(zookeeper::about(store.about())));
    zookeeper::answer_commands(&observed.commands, &gateway);
    let gateway = zookeeper::serve(zookeepers, gateway, clients_hold.zookeeper, shutdown.clone(), drain);
    let front = Front::start(node.threads.front)?;
    let threads = front.handle();
    let mut services = Services::new(shutdown.clone());
    services.spawn("the store", store.run());
    if let Some(internal) = internal {
        let serve = listen::serve(internal, store_port, ListenBounds::neighbours(), shutdown.clone(), drain);
        services.spawn_on(&threads, "the internal store port", serve);
    }
    let clients = listen::serve(clients, routes, clients_hold.client, shutdown, drain);
    services.spawn_on(&threads, "the client port", clients);
    services.spawn_on(&threads, "the ZooKeeper port", gateway);
    observed.health.started();
    let ended = services.all_ended(drain).await;
    observed.end().await;
    ended
}

/// The ensemble whose entries a store has, kept in its directory.
fn kept(dir: &Path) -> Result<Kept, Failure> {
    let only_a_cache = |e| {
        let dir = dir.display();
        Failure::refused(format!(
            "{e}; this one is the store's: remove the directory {dir}, which is only a cache"
        ))
    };
    let file = EpochFile::load(Arc::new(FsDisk), dir).map_err(only_a_cache)?;
    let known = file.epochs().ensemble;
    let file = Mutex::new(file);
    let keep = move |id| {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let epochs = Epochs { ensemble: Some(id), ..file.epochs() };
        file.store(epochs).map_err(|e| format!("cannot keep the id of the ensemble: {e}"))
    };
    Ok(Kept { known, keep: Box::new(keep) })
}

/// A store is ready while it has its quorum.
fn with_quorum(mut store: watch::Receiver<bool>, quorum: RemoteQuorum) -> watch::Receiver<bool> {
    let (both, ready) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let linked = quorum.is_linked();
            both.send_replace(linked && *store.borrow_and_update());
            tokio::select! {
                changed = store.changed() => if changed.is_err() { return },
                () = quorum.linked(!linked) => {}
            }
        }
    });
    ready
}

fn neighbour(
    node: &NodeConfig,
    name: &'static str,
    url: &str,
    secure: &Secure,
) -> Result<Neighbour, Failure> {
    Neighbour::new(name, url, &node.ensemble, node.id, secure.dial_own())
        .map_err(|e| Failure::usage(format!("`services.{name}`: {e}")))
}

fn log_ports(node: &NodeConfig, service: &str, listeners: &[&Listener]) {
    let addresses: Vec<String> = listeners.iter().map(|l| l.place()).collect();
    let addresses = addresses.join(", ");
    tracing::info!(service, addresses, node_id = node.id.0, ensemble = node.ensemble, "listening");
}

/// Each process has one of its own, named after its service.
fn pid_file(node: &NodeConfig, service: &str) -> Result<Option<PidFile>, Failure> {
    let named = |path: &PathBuf| {
        let mut path = path.clone().into_os_string();
        path.push(format!(".{service}"));
        PidFile::write(path.into())
    };
    node.pid_file.as_ref().map(named).transpose()
}
