//! A quorum of one with real sockets and disks, an election that the test decides, and a store that
//! only records its feed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ports::{Candidate, Election, Feed, FeedItem, PortClosed, Quorum, Request, Signs};
use api::{Ensemble, EnsembleId, Entry, Epoch, Levels, PeerId, Roster, Standing, Ticket, Zxid};
use bytes::Bytes;
use proto::remote::{Bounds, Kept, Neighbour, RemoteQuorum};
use quorum_svc::{Config, Handle, Keep, QuorumService, StopReason};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

/// Maximum number of requests that wait without a leader.
pub(crate) const REQUESTS_MAX: usize = 400;
/// Two ensembles of one name.
pub(crate) const OWN: EnsembleId = EnsembleId(1);
pub(crate) const OTHER: EnsembleId = EnsembleId(2);
/// Maximum time that they wait.
pub(crate) const PARK: Duration = Duration::from_secs(2);

/// Chooses node 1 once the test allows it.
#[derive(Clone)]
struct Named(watch::Receiver<bool>);

impl Election for Named {
    async fn elect(&self, _: Option<Candidate>) -> Result<PeerId, PortClosed> {
        let mut elect = self.0.clone();
        elect.wait_for(|elect| *elect).await.map_err(|e| PortClosed(e.to_string()))?;
        Ok(PeerId(1))
    }

    async fn introduce(&self, _: Standing, _: Arc<Roster>) -> Result<(), PortClosed> {
        Ok(())
    }

    async fn settled(&self, _: PeerId, _: Epoch) -> Result<(), PortClosed> {
        Ok(())
    }
}

pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) port: SocketAddr,
    dir: tempfile::TempDir,
    elect: watch::Sender<bool>,
    shutdown: CancellationToken,
    run: Option<JoinHandle<Result<(), StopReason>>>,
    server: Option<JoinHandle<()>>,
}

impl Node {
    /// `leads`: it leads as soon as it can.
    pub(crate) async fn start(leads: bool) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Node::start_in(dir, listener, watch::Sender::new(leads), OWN)
    }

    /// `draw`: the id of its ensemble, if that is new.
    fn start_in(
        dir: tempfile::TempDir,
        listener: TcpListener,
        elect: watch::Sender<bool>,
        draw: EnsembleId,
    ) -> Node {
        let core = quorum_core::Config {
            me: PeerId(1),
            ensemble: Ensemble::of_voters([1]).unwrap(),
            init_limit: Duration::from_secs(20),
            sync_limit: Duration::from_secs(10),
            ping_interval: Duration::from_millis(100),
            commit_delay: quorum_core::COMMIT_DELAY,
            park_limit: PARK,
            requests_max: REQUESTS_MAX,
            request_bytes_max: 64 << 20,
            draw,
            counter_max: u32::MAX,
            levels: Levels::BUILD,
        };
        let config = Config {
            ensemble: "test".into(),
            version: "test".into(),
            core,
            settings: BTreeMap::new(),
            addresses: BTreeMap::from([(PeerId(1), "127.0.0.1:1".to_owned())]),
            dialer: tls::Dialer::plain(),
            data_dir: dir.path().to_owned(),
            log_dir: None,
            min_free: Some(0),
            segment_bytes: 16 << 10,
            keep: Keep { bytes: 0, entries: 0 },
            recent_bytes: 4 << 10,
            backlog_bytes: 1 << 20,
            incarnation_every: Duration::from_secs(600),
        };
        let shutdown = CancellationToken::new();
        let service = QuorumService::open(config, Named(elect.subscribe()), shutdown.clone()).unwrap();
        let handle = service.handle();
        let port = listener.local_addr().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(service.port_service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        let stop = shutdown.clone();
        // Connections end with the server, as those of a process do.
        let server = tokio::spawn(async move { drop(stop.run_until_cancelled(serving).await) });
        let run = tokio::spawn(service.run());
        Node { handle, port, dir, elect, shutdown, run: Some(run), server: Some(server) }
    }

    /// Makes the node lead.
    pub(crate) fn elect(&self) {
        self.elect.send_replace(true);
    }

    pub(crate) fn remote(&self) -> RemoteQuorum {
        self.remote_of(None).0
    }

    /// For a store that has entries of this ensemble. Also returns the ids that it is told to keep.
    pub(crate) fn remote_of(
        &self,
        known: Option<EnsembleId>,
    ) -> (RemoteQuorum, std::sync::mpsc::Receiver<EnsembleId>) {
        let (told, ids) = std::sync::mpsc::channel();
        let keep = Box::new(move |id| told.send(id).or(Ok(())));
        let bounds = Bounds { requests: REQUESTS_MAX, bytes: 64 << 20, park: PARK };
        let url = format!("http://{}", self.port);
        let neighbour = Neighbour::new("quorum", &url, "test", PeerId(1), None).unwrap();
        (RemoteQuorum::new(neighbour, bounds, Kept { known, keep }), ids)
    }

    /// Stops the quorum, but not its clients. Runs `while_down` while it is down, then starts it again.
    pub(crate) async fn restart(mut self, while_down: impl Future<Output = ()>) -> Node {
        self.end().await;
        while_down.await;
        let listener = TcpListener::bind(self.port).await.unwrap();
        Node::start_in(self.dir, listener, self.elect, OWN)
    }

    /// Stops the quorum, and starts one of another ensemble at its address.
    pub(crate) async fn replace(mut self, leads: bool) -> Node {
        self.end().await;
        let listener = TcpListener::bind(self.port).await.unwrap();
        Node::start_in(tempfile::tempdir().unwrap(), listener, watch::Sender::new(leads), OTHER)
    }

    async fn end(&mut self) {
        self.shutdown.cancel();
        soon(self.run.take().unwrap()).await.unwrap().unwrap();
        soon(self.server.take().unwrap()).await.unwrap();
    }
}

/// A store that only records its feed.
pub(crate) struct Store<F, S> {
    pub(crate) feed: F,
    pub(crate) signs: S,
    pub(crate) entries: Vec<Entry>,
    pub(crate) snapshot: Option<(Zxid, Vec<u8>)>,
    /// The position of each barrier.
    pub(crate) barriers: BTreeMap<u64, Zxid>,
    after: Zxid,
}

impl<F: Feed, S: Signs> Store<F, S> {
    pub(crate) async fn attach<Q: Quorum<Feed = F, Signs = S>>(port: &Q, after: Zxid) -> Store<F, S> {
        let (feed, signs) = soon(port.attach(after)).await.unwrap();
        Store { feed, signs, entries: Vec::new(), snapshot: None, barriers: BTreeMap::new(), after }
    }

    /// Reads until `count` entries with a payload have arrived.
    pub(crate) async fn read(&mut self, count: usize) {
        soon(async {
            while self.tickets_of_all() < count {
                self.step().await;
            }
        })
        .await;
    }

    /// Reads until this barrier has arrived.
    pub(crate) async fn pass_barrier(&mut self, ticket: u64) {
        soon(async {
            while !self.barriers.contains_key(&ticket) {
                self.step().await;
            }
        })
        .await;
    }

    /// Reads until such an item arrives.
    pub(crate) async fn until(&mut self, mut wanted: impl FnMut(&FeedItem) -> bool) {
        soon(async { while !self.step().await.iter().any(&mut wanted) {} }).await;
    }

    pub(crate) async fn step(&mut self) -> Vec<FeedItem> {
        let items = self.feed.next().await.unwrap();
        assert!(!items.is_empty(), "a feed waits until it has something to say");
        for item in &items {
            match item {
                FeedItem::Committed(entries) => {
                    for entry in entries {
                        assert!(
                            entry.zxid.follows(self.last()),
                            "{} came behind {}",
                            entry.zxid,
                            self.last()
                        );
                        self.entries.push(entry.clone());
                    }
                }
                FeedItem::SnapshotStart { zxid } => {
                    self.entries.clear();
                    self.snapshot = Some((*zxid, Vec::new()));
                }
                FeedItem::Barrier { ticket } => {
                    assert_eq!(self.barriers.insert(ticket.0, self.last()), None, "a barrier comes once");
                }
                FeedItem::SnapshotChunk(chunk) => self.snapshot.as_mut().unwrap().1.extend_from_slice(chunk),
                _ => {}
            }
        }
        items
    }

    /// The last zxid that has arrived.
    pub(crate) fn last(&self) -> Zxid {
        let base = self.snapshot.as_ref().map_or(self.after, |(zxid, _)| *zxid);
        self.entries.last().map_or(base, |e| e.zxid)
    }

    /// Tickets of the entries that answer this store.
    pub(crate) fn tickets(&self) -> Vec<u64> {
        self.entries.iter().filter_map(|e| e.origin).map(|o| o.ticket.0).collect()
    }

    fn tickets_of_all(&self) -> usize {
        self.entries.iter().filter(|e| !e.is_marker()).count()
    }
}

pub(crate) fn submit(ticket: u64) -> Request {
    Request::Submit { ticket: Ticket(ticket), payload: payload(ticket), trace: None }
}

pub(crate) fn payload(ticket: u64) -> Bytes {
    Bytes::from(format!("{ticket}:{}", "x".repeat(200)))
}

pub(crate) fn barrier(ticket: u64) -> Request {
    Request::Barrier { ticket: Ticket(ticket) }
}

/// Far longer than any step of these tests takes.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("this should happen soon")
}
