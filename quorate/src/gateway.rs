//! `quorate gateway`: ZooKeeper's protocol in a process of its own, in front of any nodes.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use ::gateway::{Config, Gateway};
use api::{
    ErrorCode, OpError, Path, PeerId, Read, ReadLevel,
    budget::Held,
    ports::{Caller, Coordination, Items},
    session::{Item, Op, Request, Response},
};
use host::{
    config::{self, GatewayConfig},
    http::{self, Commands, Health, Pages, Probe},
    listen::Listener,
    otlp, shutdown,
};
use proto::remote::{Neighbour, RemoteCoordination, RemoteItems, RemoteRequests};
use telemetry::Group;
use tokio_util::sync::CancellationToken;

use crate::{
    args::GatewayArgs,
    exit::{Doing as _, Failure},
    secure::SecureGateway,
    serve::{client_bounds, end_with},
    services::Services,
    zookeeper,
};

/// Runs until a signal comes.
pub(crate) async fn run(args: &GatewayArgs) -> Result<(), Failure> {
    if let Some(parent) = args.exit_with_parent {
        end_with(parent)?;
    }
    let (config, _) = config::load_gateway(args.config.as_deref(), config::process_env(), &args.flags())?;
    let shutdown = shutdown::on_signals().doing("listen for signals")?;
    let secure = SecureGateway::load(&config, &shutdown)?;
    let clients = secure.zookeeper_port(Listener::bind("ZooKeeper", config.zookeeper).await.or_usage()?);
    let http = match config.http {
        Some(address) => Some(secure.http_port(Listener::bind("HTTP", address).await.or_usage()?)),
        None => None,
    };
    tracing::info!(
        zookeeper = %clients.address(),
        http = http.as_ref().map(|http| http.address().to_string()),
        stores = config.stores.join(","),
        ensemble = config.ensemble,
        "listening"
    );
    let stores = Stores::new(&config, &secure)?;
    let (health, commands) = (Health::starting("starting"), Commands::default());
    check(&health, &stores);
    let gateway = Gateway::new(stores, about(&config)?, None);
    zookeeper::answer_commands(&commands, &gateway);
    let stop = CancellationToken::new();
    let pages = http.map(|listener| {
        telemetry::refresh_process();
        let id = std::process::id().to_string();
        let resource = otlp::resource("quorate-gateway", &config.ensemble, &id, env!("CARGO_PKG_VERSION"));
        let groups = vec![Group::Process, Group::Gateway];
        let pages =
            Pages { health: health.clone(), groups, commands, audit: audit::Log::default(), resource };
        tokio::spawn(http::serve(listener, pages, stop.clone()))
    });
    let bounds = client_bounds(config.memory.bytes(), true, &health).zookeeper;
    let mut services = Services::new(shutdown.clone());
    services.spawn(
        "the ZooKeeper port",
        zookeeper::serve(Some(clients), gateway, bounds, shutdown, config.drain),
    );
    health.started();
    let ended = services.all_ended(config.drain).await;
    stop.cancel();
    if let Some(pages) = pages {
        // A panic there is in the log, and is no reason to fail now.
        let _ = pages.await;
    }
    ended
}

/// What four letter words may tell, and which are answered.
fn about(config: &GatewayConfig) -> Result<Config, Failure> {
    let words = config.words.words.parse();
    let words = words.map_err(|e| Failure::usage(format!("`zookeeper.words`: {e}")))?;
    let settings = vec![("clientPort".to_owned(), config.zookeeper.port().to_string())];
    Ok(Config { words, settings, prover: config.prover.clone(), ..Config::default() })
}

/// A gateway is ready while a store answers.
fn check(health: &Health, stores: &Stores) {
    let stores = stores.clone();
    health.check(Probe::Ready, "stores", move || {
        let stores = stores.clone();
        async move {
            let read = Op::Read(Read::Exists { path: Path::root() }, ReadLevel::Stale);
            match stores.call(Caller::default(), Request::new(0, read)).await {
                Ok(_) => Ok("a store answers".to_owned()),
                Err(e) => Err(format!("no store answers: {e}")),
            }
        }
    });
}

/// The stores of several nodes as one: each stream and each call goes to one of them. A stream ends with its store; then its client
/// comes back, and its session is taken up at another. Clones are the same.
#[derive(Clone)]
struct Stores(Arc<[Store]>);

struct Store {
    neighbour: Neighbour,
    /// Connections, of which each carries some streams.
    links: Mutex<Vec<Link>>,
    /// When it was of no use last.
    failed: Mutex<Option<Instant>>,
    url: String,
    /// Whether it was last found to be of another ensemble.
    foreign: AtomicBool,
}

#[derive(Clone)]
struct Link {
    store: RemoteCoordination,
    streams: Arc<AtomicUsize>,
}

impl Stores {
    fn new(config: &GatewayConfig, secure: &SecureGateway) -> Result<Stores, Failure> {
        let mut stores: Vec<Store> = Vec::new();
        for url in &config.stores {
            // The id says nothing here: a gateway belongs to no node.
            let neighbour = Neighbour::new("store", url, &config.ensemble, PeerId(0), secure.dial_stores());
            let neighbour = neighbour.map_err(|e| Failure::usage(format!("`gateway.stores`: {e}")))?;
            // All of them are of one ensemble, that of the first session.
            let neighbour = match stores.first() {
                Some(first) => neighbour.with(&first.neighbour),
                None => neighbour,
            };
            let (links, failed, foreign) = (Mutex::default(), Mutex::default(), AtomicBool::default());
            stores.push(Store { neighbour, links, failed, url: url.clone(), foreign });
        }
        Ok(Stores(stores.into()))
    }

    /// The one with the fewest streams of those that have not failed a moment ago; of all, if all have.
    fn choose(&self) -> usize {
        let all = self.0.iter().enumerate();
        let best = all.min_by_key(|(_, store)| (store.has_failed(), store.streams()));
        best.map_or(0, |(index, _)| index)
    }
}

impl Store {
    fn link(&self) -> Link {
        let mut links = lock(&self.links);
        let room = RemoteCoordination::STREAMS as usize;
        if let Some(link) = links.iter().find(|link| link.streams.load(Relaxed) < room) {
            return link.clone();
        }
        let link = Link { store: RemoteCoordination::new(&self.neighbour), streams: Arc::default() };
        links.push(link.clone());
        link
    }

    fn streams(&self) -> usize {
        lock(&self.links).iter().map(|link| link.streams.load(Relaxed)).sum()
    }

    fn has_failed(&self) -> bool {
        lock(&self.failed).is_some_and(|at| at.elapsed() < AVOIDED)
    }

    /// Whether another store may do better.
    fn note(&self, error: &OpError) -> bool {
        let foreign = match error {
            OpError::WrongEnsemble { expected, actual } => Some((expected, actual)),
            _ => None,
        };
        if let Some((expected, actual)) = foreign
            && !self.foreign.swap(true, Relaxed)
        {
            tracing::error!(
                store = self.url, %actual, %expected,
                "the store is of another ensemble than the sessions of this gateway; correct `gateway.stores`, or restart the \
                 gateway if the ensemble was replaced on purpose"
            );
        }
        let failed = foreign.is_some() || error.code() == ErrorCode::Unavailable;
        if failed {
            *lock(&self.failed) = Some(Instant::now());
        }
        failed
    }
}

impl Coordination for Stores {
    type Requests = RemoteRequests;
    type Items = StoreItems;

    fn stream(&self, caller: Caller) -> (RemoteRequests, StoreItems) {
        let index = self.choose();
        let link = self.0[index].link();
        link.streams.fetch_add(1, Relaxed);
        let (requests, items) = link.store.stream(caller);
        (requests, StoreItems { items, stores: self.clone(), index, link })
    }

    async fn call(&self, caller: Caller, request: Request) -> Result<(Response, Held), OpError> {
        let mut last = OpError::Unavailable("there is no store".to_owned());
        for _ in 0..self.0.len() {
            let store = &self.0[self.choose()];
            match store.link().store.call(caller.clone(), request.clone()).await {
                Err(e) if store.note(&e) => last = e,
                answer => return answer,
            }
        }
        Err(last)
    }
}

/// The items of a stream; when it ends, the store is informed.
struct StoreItems {
    items: RemoteItems,
    stores: Stores,
    index: usize,
    link: Link,
}

impl Items for StoreItems {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut VecDeque<Item>,
    ) -> Poll<Option<Result<(), OpError>>> {
        let end = ready!(self.items.poll_take(cx, max, into));
        if let Some(Err(e)) = &end {
            self.stores.0[self.index].note(e);
        }
        Poll::Ready(end)
    }

    fn taken(&mut self, answers: usize, weight: usize) {
        self.items.taken(answers, weight);
    }
}

impl Drop for StoreItems {
    fn drop(&mut self) {
        self.link.streams.fetch_sub(1, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a store that failed is avoided, if there is another.
const AVOIDED: Duration = Duration::from_secs(2);
