//! Three quorum services with real sockets and disks, and an election that the test decides.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ports::{
    Candidate, Chunks, Election, Feed, FeedItem, PAYLOAD_MAX, PortClosed, Quorum, Request, Room,
};
use api::{
    Build, Ensemble, EnsembleId, Entry, Epoch, Greeting, Level, Levels, PeerId, Roster, Standing, Ticket,
    Zxid,
};
use bytes::Bytes;
use proxy::Proxy;
use quorum_svc::{Config, Handle, LogFeed, QuorumService, StopReason};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

/// Each node gets the leader that the test names.
#[derive(Clone)]
struct Named(watch::Receiver<Option<PeerId>>);

impl Election for Named {
    async fn elect(&self, _: Option<Candidate>) -> Result<PeerId, PortClosed> {
        let mut leader = self.0.clone();
        let leader = leader.wait_for(Option::is_some).await.map_err(|e| PortClosed(e.to_string()))?;
        leader.ok_or_else(|| PortClosed("nobody".into()))
    }

    async fn introduce(&self, _: Standing, _: Arc<Roster>) -> Result<(), PortClosed> {
        Ok(())
    }

    async fn settled(&self, _: PeerId, _: Epoch) -> Result<(), PortClosed> {
        Ok(())
    }
}

struct Node {
    handle: Handle,
    stop: CancellationToken,
    run: JoinHandle<Result<(), StopReason>>,
    server: JoinHandle<()>,
}

const SYNC_LIMIT: Duration = Duration::from_secs(60);

fn config(id: u32, dir: &Path, addresses: &BTreeMap<PeerId, String>) -> Config {
    let core = quorum_core::Config {
        me: PeerId(id),
        ensemble: Ensemble::of_voters(addresses.keys().map(|p| p.0)).unwrap(),
        init_limit: Duration::from_secs(20),
        // No test waits for it: links end for other reasons.
        sync_limit: SYNC_LIMIT,
        ping_interval: Duration::from_millis(100),
        commit_delay: quorum_core::COMMIT_DELAY,
        park_limit: Duration::from_secs(60),
        requests_max: 10_000,
        request_bytes_max: 64 << 20,
        draw: EnsembleId(u128::from(id)),
        counter_max: u32::MAX,
        levels: Levels::BUILD,
    };
    Config {
        ensemble: "test".into(),
        version: "test".into(),
        core,
        settings: BTreeMap::new(),
        addresses: addresses.clone(),
        dialer: tls::Dialer::plain(),
        data_dir: dir.join(id.to_string()),
        log_dir: None,
        min_free: Some(0),
        segment_bytes: 16 << 10,
        keep: quorum_svc::Keep { bytes: 0, entries: 0 },
        recent_bytes: 4 << 10,
        backlog_bytes: 1 << 20,
        incarnation_every: Duration::from_millis(200),
    }
}

impl Node {
    fn start(
        id: u32,
        dir: &Path,
        listener: TcpListener,
        addresses: &BTreeMap<PeerId, String>,
        election: Named,
    ) -> Node {
        Node::start_with(config(id, dir, addresses), listener, election)
    }

    fn start_with(config: Config, listener: TcpListener, election: Named) -> Node {
        let stop = CancellationToken::new();
        let service = QuorumService::open(config, election, stop.clone()).unwrap();
        let handle = service.handle();
        let learn = service.learn_service();
        let quit = stop.clone();
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .layer(tonic::service::InterceptorLayer::new(tls::Caller::on_plaintext))
                .add_service(learn)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), quit.cancelled_owned())
                .await
                .unwrap();
        });
        Node { handle, stop, run: tokio::spawn(service.run()), server }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.run.await.unwrap().unwrap();
        drop(self.handle);
        self.server.await.unwrap();
    }
}

struct Ensemble3 {
    dir: tempfile::TempDir,
    addresses: BTreeMap<PeerId, String>,
    leader: watch::Sender<Option<PeerId>>,
    nodes: BTreeMap<u32, Node>,
}

impl Ensemble3 {
    async fn start(leader: u32) -> Ensemble3 {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = BTreeMap::new();
        let mut listeners = Vec::new();
        for id in 1..=3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.insert(PeerId(id), listener.local_addr().unwrap().to_string());
            listeners.push((id, listener));
        }
        let leader = watch::Sender::new(Some(PeerId(leader)));
        let nodes = listeners
            .into_iter()
            .map(|(id, l)| (id, Node::start(id, dir.path(), l, &addresses, Named(leader.subscribe()))))
            .collect();
        Ensemble3 { dir, addresses, leader, nodes }
    }

    /// Nodes that contact each other again only because of events.
    async fn start_calm(leader: u32) -> Ensemble3 {
        let mut e = Ensemble3::start(leader).await;
        for id in 1..=3 {
            e.nodes.remove(&id).unwrap().stop().await;
            e.restart_calm(id).await;
        }
        e
    }

    async fn restart_calm(&mut self, id: u32) {
        let listener = TcpListener::bind(&self.addresses[&PeerId(id)]).await.unwrap();
        let every = quorum_svc::INCARNATION_EVERY;
        let config = Config { incarnation_every: every, ..config(id, self.dir.path(), &self.addresses) };
        self.nodes.insert(id, Node::start_with(config, listener, Named(self.leader.subscribe())));
    }

    /// Waits up to `limit` until the report of node `id` about `peer` satisfies `so`.
    async fn says(&self, id: u32, peer: u32, limit: Duration, so: impl Fn(Option<&str>) -> bool) {
        let mut last = None;
        let says = async {
            loop {
                let known = self.nodes[&id].handle.surroundings().await.unwrap();
                last = known.peers.into_iter().find(|p| p.id == PeerId(peer)).unwrap().fault;
                if so(last.as_deref()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let said = tokio::time::timeout(limit, says).await;
        assert!(said.is_ok(), "node {id} says of {peer}, for {limit:?}: {last:?}");
    }

    /// Waits until the clock offset that node `id` reports satisfies `so`.
    async fn tells_clock(&self, id: u32, so: impl Fn(Option<i64>) -> bool) {
        let tells = async {
            while !so(self.nodes[&id].handle.surroundings().await.unwrap().clock_offset_ms) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), tells).await.is_ok(), "node {id}");
    }

    async fn all_reached(&self) {
        for (id, peer) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
            self.says(id, peer, Duration::from_secs(20), |fault| fault.is_none()).await;
        }
    }

    async fn restart(&mut self, id: u32) {
        let addresses = self.addresses.clone();
        self.restart_with(id, &addresses).await;
    }

    /// Restarts a node with these addresses of the others.
    async fn restart_with(&mut self, id: u32, addresses: &BTreeMap<PeerId, String>) {
        let listener = TcpListener::bind(&self.addresses[&PeerId(id)]).await.unwrap();
        let node = Node::start(id, self.dir.path(), listener, addresses, Named(self.leader.subscribe()));
        self.nodes.insert(id, node);
    }

    async fn submit(&self, node: u32, tickets: std::ops::RangeInclusive<u64>) {
        let batch = tickets
            .map(|t| Request::Submit { ticket: Ticket(t), payload: payload(node, t), trace: None })
            .collect();
        self.nodes[&node].handle.request(batch).await.unwrap();
    }
}

fn payload(node: u32, ticket: u64) -> Bytes {
    Bytes::from(format!("{node}:{ticket}:{}", "x".repeat(200)))
}

/// A store that only records its feed.
struct Store {
    feed: LogFeed,
    entries: Vec<Entry>,
    snapshot: Option<(Zxid, Vec<u8>)>,
}

impl Store {
    async fn attach(node: &Node, after: Zxid) -> Store {
        Store { feed: node.handle.attach(after).await.unwrap().0, entries: Vec::new(), snapshot: None }
    }

    /// Reads until `count` entries with a payload have arrived.
    async fn read(&mut self, count: usize) {
        let done = async {
            while self.entries.iter().filter(|e| !e.is_marker()).count() < count {
                self.step().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("entries are missing");
    }

    async fn step(&mut self) -> Vec<FeedItem> {
        let items = self.feed.next().await.unwrap();
        for item in &items {
            match item {
                FeedItem::Committed(entries) => self.entries.extend(entries.iter().cloned()),
                FeedItem::SnapshotStart { zxid } => {
                    self.entries.clear();
                    self.snapshot = Some((*zxid, Vec::new()));
                }
                FeedItem::SnapshotChunk(chunk) => self.snapshot.as_mut().unwrap().1.extend_from_slice(chunk),
                _ => {}
            }
        }
        items
    }
}

struct Pieces(Vec<Bytes>);

impl Chunks for Pieces {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.pop()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b15_every_node_tells_how_far_its_clock_is_off_while_it_has_a_leader() {
    let mut e = Ensemble3::start(2).await;
    for id in 1..=3 {
        e.tells_clock(id, |offset| offset.is_some_and(|ms| ms.abs() < 10_000)).await;
    }
    e.leader.send_replace(None);
    e.nodes.remove(&2).unwrap().stop().await;
    e.tells_clock(1, |offset| offset.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s19_s22_writes_from_every_node_come_out_everywhere_in_one_order() {
    let e = Ensemble3::start(2).await;
    let mut stores = Vec::new();
    for node in e.nodes.values() {
        stores.push(Store::attach(node, Zxid::ZERO).await);
    }
    for (node, first) in [(1, 1), (2, 1), (3, 1), (1, 101), (2, 101), (3, 101)] {
        e.submit(node, first..=first + 99).await;
    }
    for store in &mut stores {
        store.read(600).await;
    }
    assert!(stores.windows(2).all(|w| w[0].entries == w[1].entries), "one order");
    assert!(stores[0].entries.windows(2).all(|w| w[1].zxid.follows(w[0].zxid)), "no gap");
    for node in 1..=3 {
        let tickets: Vec<u64> = stores[0]
            .entries
            .iter()
            .filter_map(|e| e.origin.filter(|o| o.peer == PeerId(node)).map(|o| o.ticket.0))
            .collect();
        assert_eq!(tickets, (1..=200).collect::<Vec<_>>(), "each once, in the order of node {node}");
    }
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_s20_a_node_that_was_away_for_long_gets_a_snapshot_and_what_came_after() {
    let mut e = Ensemble3::start(2).await;
    let mut leader = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 1..=10).await;
    leader.read(10).await;
    // The leader may have begun with the third alone. With the first, while that has no data, it is no quorum.
    Store::attach(&e.nodes[&1], Zxid::ZERO).await.read(10).await;
    e.nodes.remove(&3).unwrap().stop().await;

    // Two of three continue. Snapshots let the leader purge the entries that the third lacks.
    for round in 1..=3u64 {
        e.submit(1, round * 1000..=round * 1000 + 99).await;
        leader.read(10 + 100 * usize::try_from(round).unwrap()).await;
        let last = leader.entries.last().unwrap().zxid;
        let state = Pieces(vec![Bytes::from("tail"), Bytes::from(format!("state at {last}, "))]);
        e.nodes[&2].handle.save_snapshot(last, state).await.unwrap();
    }
    e.submit(1, 9001..=9020).await;
    leader.read(330).await;

    e.restart(3).await;
    let mut third = Store::attach(&e.nodes[&3], Zxid::ZERO).await;
    third.read(20).await;
    let (zxid, state) = third.snapshot.clone().expect("only a snapshot can help");
    assert_eq!(String::from_utf8(state).unwrap(), format!("state at {zxid}, tail"));
    let behind: Vec<Entry> = leader.entries.iter().filter(|e| e.zxid > zxid).cloned().collect();
    assert_eq!(third.entries, behind, "exactly what came after the snapshot");

    // The store of the third node is gone. Its next one connects to the log at the same position.
    drop(third);
    let mut third = Store::attach(&e.nodes[&3], zxid).await;
    third.read(20).await;
    assert!(third.snapshot.is_none());
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b18_with_little_room_a_snapshot_that_cannot_fit_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = BTreeMap::from([(PeerId(1), listener.local_addr().unwrap().to_string())]);
    let leader = watch::Sender::new(Some(PeerId(1)));
    // As if the disk were nearly full: no snapshot could leave this much space.
    let config = Config { min_free: Some(1 << 60), ..config(1, dir.path(), &addresses) };
    let node = Node::start_with(config, listener, Named(leader.subscribe()));
    let mut store = Store::attach(&node, Zxid::ZERO).await;
    let batch = (1..=10).map(|t| Request::Submit { ticket: Ticket(t), payload: payload(1, t), trace: None });
    node.handle.request(batch.collect()).await.unwrap();
    store.read(10).await;
    while node.handle.log_health().room != Room::Short {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let last = store.entries.last().unwrap().zxid;
    let refused = node.handle.save_snapshot(last, Pieces(vec![Bytes::from("state")])).await.unwrap_err();
    assert!(refused.0.contains("write a snapshot") && refused.0.contains("free space"), "{refused}");
    let snapshots = std::fs::read_dir(dir.path().join("1/snapshots")).unwrap();
    assert_eq!(snapshots.count(), 0);
    // The node continues.
    let batch = vec![Request::Submit { ticket: Ticket(11), payload: payload(1, 11), trace: None }];
    node.handle.request(batch).await.unwrap();
    store.read(11).await;
    node.stop().await;
}

/// The queue for a learner is a range of the log, so the kept log bounds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_a_learner_that_falls_behind_what_the_log_keeps_is_cut_off_and_resynchronised() {
    let mut e = Ensemble3::start(2).await;
    let proxy = Proxy::new();
    let leader_is_at = e.addresses[&PeerId(2)].parse().unwrap();
    let mut addresses = e.addresses.clone();
    addresses.insert(PeerId(2), proxy.link(3, 2, leader_is_at).await.unwrap().to_string());
    e.nodes.remove(&3).unwrap().stop().await;
    e.restart_with(3, &addresses).await;
    let mut leader = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    let mut third = Store::attach(&e.nodes[&3], Zxid::ZERO).await;
    e.submit(1, 1..=10).await;
    leader.read(10).await;
    third.read(10).await;

    // The link takes what the windows of the stream hold. The rest waits, and a purge overtakes it.
    let since = Instant::now();
    proxy.stall(2, 3);
    for round in 1..=4u64 {
        let large = |i| Request::Submit {
            ticket: Ticket(round * 1000 + i),
            payload: Bytes::from(vec![round as u8; 64 << 10]),
            trace: None,
        };
        e.nodes[&1].handle.request((0..128).map(large).collect()).await.unwrap();
        leader.read(10 + 128 * usize::try_from(round).unwrap()).await;
        let last = leader.entries.last().unwrap().zxid;
        let state = Pieces(vec![Bytes::from(format!("state at {last}"))]);
        e.nodes[&2].handle.save_snapshot(last, state).await.unwrap();
    }
    proxy.heal_all();
    let helped = async {
        while third.snapshot.is_none() {
            third.step().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), helped).await.expect("only a snapshot can help");
    e.submit(1, 9001..=9010).await;
    leader.read(532).await;
    third.read(10).await;
    assert!(since.elapsed() < SYNC_LIMIT, "it was not dropped for its silence");
    let (zxid, state) = third.snapshot.clone().unwrap();
    assert_eq!(String::from_utf8(state).unwrap(), format!("state at {zxid}"));
    let behind: Vec<Entry> = leader.entries.iter().filter(|e| e.zxid > zxid).cloned().collect();
    assert!(third.entries.ends_with(&behind) && behind.len() >= 10, "no gap behind the snapshot");
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b16_a_learner_joins_a_leader_that_is_far_away() {
    let mut e = Ensemble3::start(2).await;
    let proxy = Proxy::new();
    let leader_is_at = e.addresses[&PeerId(2)].parse().unwrap();
    let mut addresses = e.addresses.clone();
    addresses.insert(PeerId(2), proxy.link(3, 2, leader_is_at).await.unwrap().to_string());
    // A round trip takes 240 ms, so several of them take more than a second.
    proxy.delay(2, 3, Duration::from_millis(120));
    proxy.delay(3, 2, Duration::from_millis(120));
    e.nodes.remove(&3).unwrap().stop().await;
    e.restart_with(3, &addresses).await;
    let mut third = Store::attach(&e.nodes[&3], Zxid::ZERO).await;
    e.submit(1, 1..=10).await;
    tokio::time::timeout(Duration::from_secs(30), third.read(10)).await.expect("node 3 has a leader");
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_writes_wait_for_a_leader_and_a_barrier_comes_behind_them() {
    let e = Ensemble3::start(2).await;
    e.leader.send_replace(None);
    let mut store = Store::attach(&e.nodes[&1], Zxid::ZERO).await;
    e.submit(1, 1..=50).await;
    e.leader.send_replace(Some(PeerId(3)));
    store.read(50).await;
    e.nodes[&1].handle.request(vec![Request::Barrier { ticket: Ticket(51) }]).await.unwrap();
    let barrier = async { while !store.step().await.contains(&FeedItem::Barrier { ticket: Ticket(51) }) {} };
    tokio::time::timeout(Duration::from_secs(30), barrier).await.expect("the barrier comes");
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_payload_gets_from_a_follower_to_all_nodes() {
    let e = Ensemble3::start(2).await;
    let mut store = Store::attach(&e.nodes[&3], Zxid::ZERO).await;
    let submit = |ticket, size| Request::Submit {
        ticket: Ticket(ticket),
        payload: Bytes::from(vec![7; size]),
        trace: None,
    };
    let batch = vec![submit(1, 32 << 10), submit(2, PAYLOAD_MAX - (32 << 10)), submit(3, 1)];
    e.nodes[&1].handle.request(batch).await.unwrap();
    store.read(3).await;
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test]
async fn garbage_and_strangers_do_no_harm() {
    use tokio::io::AsyncWriteExt as _;
    let e = Ensemble3::start(1).await;
    let address = &e.addresses[&PeerId(1)];
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    // The peer may close the connection in the middle.
    let _ = socket.write_all(&[0xff; 4096]).await;
    drop(socket);

    let mut client =
        proto::peer::quorum_client::QuorumClient::connect(format!("http://{address}")).await.unwrap();
    for (ensemble, id, words) in
        [("other", 2, "ensemble"), ("test", 9, "members"), ("test", 1, "`id` of its own")]
    {
        let greeting = Greeting {
            name: ensemble.into(),
            id: PeerId(id),
            roster: Arc::new(Roster::initial(Ensemble::of_voters(1..=3).unwrap())),
            standing: Standing::default(),
            build: Build::this(),
            settings: BTreeMap::new(),
        };
        let hello = proto::quorum::LearnerFrame::Hello(proto::quorum::Hello::to_peer(&greeting));
        let status = client.learn(tokio_stream::once(hello.into())).await.unwrap_err();
        assert!(status.message().contains(words), "{status}");
    }
    let mut store = Store::attach(&e.nodes[&1], Zxid::ZERO).await;
    e.submit(2, 1..=3).await;
    store.read(3).await;
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b25_who_is_gone_is_not_called_reached() {
    let mut e = Ensemble3::start_calm(1).await;
    let mut store = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 1..=3).await;
    store.read(3).await;
    e.all_reached().await;
    // The leader loses a link.
    e.nodes.remove(&3).unwrap().stop().await;
    e.says(1, 3, Duration::from_secs(2), |fault| fault.is_some()).await;
    e.says(1, 2, Duration::from_secs(2), |fault| fault.is_none()).await;
    // The follower loses its leader, and contacts all others.
    e.nodes.remove(&1).unwrap().stop().await;
    for peer in [1, 3] {
        e.says(2, peer, Duration::from_secs(2), |fault| fault.is_some()).await;
    }
    e.nodes.remove(&2).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b25_who_is_heard_again_is_met_at_once() {
    let mut e = Ensemble3::start_calm(1).await;
    let mut store = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 1..=3).await;
    store.read(3).await;
    e.all_reached().await;
    e.nodes.remove(&3).unwrap().stop().await;
    e.says(1, 3, Duration::from_secs(15), |fault| fault.is_some()).await;
    // Without events node 1 tries again 0.5, 1.5, 3.5, 7.5 and 12.5 s later.
    tokio::time::sleep(Duration::from_secs(8)).await;
    e.restart_calm(3).await;
    e.says(1, 3, Duration::from_secs(2), |fault| fault.is_none()).await;
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_was_lost_refuses_to_run_however_often_it_is_started() {
    let e = Ensemble3::start(1).await;
    let mut store = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 1..=3).await;
    store.read(3).await;
    drop(store);
    for node in e.nodes.into_values() {
        node.stop().await;
    }
    let log = e.dir.path().join("2/log");
    std::fs::remove_dir_all(&log).unwrap();
    for attempt in 0..2 {
        let config = config(2, e.dir.path(), &e.addresses);
        let election = Named(e.leader.subscribe());
        let opened = QuorumService::open(config, election, CancellationToken::new());
        let error = opened.err().unwrap_or_else(|| panic!("attempt {attempt} went through")).to_string();
        assert!(error.contains("there is no log") && error.contains("data directory"), "{error}");
        assert!(!log.exists(), "and nothing was made in its place");
    }
}

/// A crash came right after a leader's snapshot replaced everything. The store's checkpoint was lost
/// with it, and nothing was committed since.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_state_gets_the_snapshot_on_which_an_empty_log_stands() {
    use quorum_log::{Base, DataDir, Disk, EpochFile, Epochs, FsDisk, Log, LogOptions, Snapshots};
    let temp = tempfile::tempdir().unwrap();
    let (base, dir) = (Zxid::new(api::Epoch(1), 7), temp.path().join("1"));
    {
        let disk: Arc<dyn Disk> = Arc::new(FsDisk);
        let members = Ensemble::of_voters(1..=3).unwrap();
        let _claimed = DataDir::claim(disk.as_ref(), &dir, "test", PeerId(1), &members).unwrap();
        let epoch = api::Epoch(1);
        let ensemble = Some(EnsembleId(1));
        let epochs = Epochs { accepted: epoch, current: epoch, ensemble, ..Epochs::default() };
        EpochFile::load(disk.clone(), &dir).unwrap().store(epochs).unwrap();
        let (snapshots, _) = Snapshots::open(disk.clone(), &dir.join("snapshots")).unwrap();
        let mut writer = snapshots.begin(base, Level::FIRST).unwrap();
        writer.chunk(b"state").unwrap();
        writer.finish().unwrap();
        Log::open(disk, &dir.join("log"), LogOptions::default())
            .unwrap()
            .reset(Base { zxid: base, level: Some(Level::FIRST), roster: None })
            .unwrap();
    }
    let addresses: BTreeMap<PeerId, String> = (1..=3).map(|id| (PeerId(id), "127.0.0.1:1".into())).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_leader, nobody) = watch::channel(None);
    let node = Node::start(1, temp.path(), listener, &addresses, Named(nobody));
    let (mut feed, _) = node.handle.attach(Zxid::ZERO).await.unwrap();
    let started = async {
        loop {
            if feed.next().await.unwrap().contains(&FeedItem::SnapshotStart { zxid: base }) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), started).await.expect("the snapshot");
    node.stop().await;
}

/// A block of an old segment goes bad while the leader runs, and an absent member needs it. It is
/// useless to refuse the member again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f9_a_leader_that_finds_its_log_damaged_stops_and_heals_from_the_others() {
    use std::os::unix::fs::FileExt as _;
    let mut e = Ensemble3::start(2).await;
    let mut leader = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 1..=10).await;
    leader.read(10).await;
    for id in [1, 3] {
        Store::attach(&e.nodes[&id], Zxid::ZERO).await.read(10).await;
    }
    e.nodes.remove(&3).unwrap().stop().await;
    e.submit(2, 11..=400).await;
    leader.read(400).await;

    let mut segments: Vec<_> =
        std::fs::read_dir(e.dir.path().join("2/log")).unwrap().map(|f| f.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    let file = std::fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
    file.write_at(b"rot", 5_000).unwrap();
    // From now on servers in an election wait. Only the returning one goes to this leader, once.
    let others = std::mem::replace(&mut e.leader, watch::Sender::new(Some(PeerId(2))));
    others.send_replace(None);
    e.restart(3).await;
    let elsewhere = std::mem::replace(&mut e.leader, others);
    let damaged = e.nodes.remove(&2).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(30), damaged.run).await.expect("it stops");
    let why = stopped.unwrap().unwrap_err();
    assert!(matches!(&why, StopReason::Disk(text) if text.contains("is damaged")), "{why}");
    damaged.stop.cancel();
    drop((damaged.handle, leader));
    damaged.server.await.unwrap();

    // The others have all entries, and the node heals from them.
    elsewhere.send_replace(Some(PeerId(1)));
    e.leader.send_replace(Some(PeerId(1)));
    let mut third = Store::attach(&e.nodes[&3], Zxid::ZERO).await;
    third.read(400).await;
    e.restart(2).await;
    let mut healed = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    healed.read(400).await;
    assert_eq!(healed.entries.iter().filter(|e| !e.is_marker()).count(), 400);
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}

/// The value behind this word in a file `incarnations`.
fn said(file: &Path, word: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().find_map(|line| line.strip_prefix(word)).unwrap().to_owned()
}

/// A copy of a running node's directory, as of a volume: no start of the node lies between the copy and
/// the loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_copy_of_a_running_nodes_directory_is_found_out() {
    let mut e = Ensemble3::start(1).await;
    let mut store = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 1..=3).await;
    store.read(3).await;
    // Node 2 loses data. Without another node that has it, the ensemble would rightly wait for an
    // operator.
    Store::attach(&e.nodes[&3], Zxid::ZERO).await.read(3).await;
    let [ours, theirs] = [2, 3].map(|id| e.dir.path().join(format!("{id}/incarnations")));
    let copy = std::fs::read(&ours).unwrap();
    let incarnation: u64 = said(&ours, "number ").parse().unwrap();
    // One server meets it later. (The others do so, too, but one is enough.)
    let met = |file: &Path| -> u64 {
        let met = said(file, "met ");
        let of_2 = met.split_whitespace().find_map(|known| known.strip_prefix("2:"));
        of_2.and_then(|known| known.split(':').next()?.parse().ok()).unwrap_or(0)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while met(&theirs) <= incarnation {
        assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(&theirs).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(store);
    e.nodes.remove(&2).unwrap().stop().await;
    std::fs::write(&ours, copy).unwrap();
    e.restart(2).await;
    // The node gets the report. Once it has stored that and has all data again, it continues behind the
    // loss.
    let mut store = Store::attach(&e.nodes[&2], Zxid::ZERO).await;
    e.submit(2, 4..=6).await;
    store.read(6).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while said(&ours, "outlived ") == "0" {
        assert!(Instant::now() < deadline, "nobody has told it: {}", std::fs::read_to_string(&ours).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in e.nodes.into_values() {
        node.stop().await;
    }
}
