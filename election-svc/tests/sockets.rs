//! Elections over real sockets on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ports::{Candidate, Election as _, PortClosed};
use api::{Build, Ensemble, EnsembleId, Epoch, Greeting, Member, Membership, PeerId, Roster, Standing, Zxid};
use election_svc::{Config, ConfigError, ElectionService, Handle};
use proto::peer::election_client::ElectionClient;
use proto::peer::election_message::Kind;
use proto::peer::{ElectionMessage, Hello, Notification, ServerState};
use proto::quorum::Hello as Introduction;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status, Streaming};

#[tokio::test]
async fn s2_three_nodes_elect_the_greatest_id() {
    let mut net = Net::of_voters(3).await;
    for id in 1..=3 {
        net.start(id);
    }
    assert_eq!(net.elect_all(&[(1, at(0, 0)), (2, at(0, 0)), (3, at(0, 0))]).await, [3, 3, 3]);
    net.stop_all().await;
}

#[tokio::test]
async fn s1_and_s3_and_s5_a_leader_stops_and_returns() {
    let mut net = Net::of_voters(3).await;
    net.start(1);
    net.start(2);
    assert_eq!(net.elect_all(&[(1, at(0, 0)), (2, at(0, 0))]).await, [2, 2]);
    net.start(3);
    assert_eq!(net.elect_all(&[(3, at(0, 0))]).await, [2], "a leader exists");
    for id in 1..=3 {
        net.handle(id).settled(PeerId(2), Epoch(1)).await.unwrap();
    }

    net.stop(2).await;
    assert_eq!(
        net.elect_all(&[(1, at(1, 123)), (3, at(1, 122))]).await,
        [1, 1],
        "the longer log, not the larger id"
    );

    net.start(2);
    assert_eq!(net.elect_all(&[(2, at(1, 121))]).await, [1]);
    net.stop(1).await;
    assert_eq!(net.elect_all(&[(2, at(2, 130)), (3, at(2, 130))]).await, [3, 3]);
    net.stop_all().await;
}

#[tokio::test]
async fn s7_an_observer_learns_the_leader_and_a_single_voter_leads_alone() {
    let voter = Member { id: PeerId(2), membership: Membership::VOTER };
    let observers = [1, 3].map(|id| Member { id: PeerId(id), membership: Membership::Observer });
    let mut net = Net::new(observers.into_iter().chain([voter])).await;
    net.start(2);
    assert_eq!(net.elect_all(&[(2, at(0, 0))]).await, [2]);
    net.start(1);
    net.start(3);
    assert_eq!(net.elect_all(&[(1, at(9, 9)), (3, at(9, 9))]).await, [2, 2]);
    net.stop_all().await;
}

#[tokio::test]
async fn a_newer_call_ends_an_older_one() {
    let mut net = Net::of_voters(3).await;
    net.start(1);
    let handle = net.handle(1);
    let older = tokio::spawn(async move { handle.elect(Some(at(0, 0))).await });
    let mut newer = Box::pin(net.nodes[&1].handle.elect(Some(at(0, 1))));
    // Whichever call reaches the driver first, exactly one of the two ends the other.
    tokio::select! {
        older = older => assert!(older.unwrap().is_err()),
        newer = &mut newer => assert!(newer.is_err()),
    }
    drop(newer);
    net.stop_all().await;
}

#[tokio::test]
async fn a_host_that_accepts_and_never_answers_delays_no_other_peer() {
    let mut net = Net::of_voters(3).await;
    // Server 1 never accepts a connection, although the system completes them.
    net.start(2);
    net.start(3);
    assert_eq!(net.elect_all(&[(2, at(0, 0)), (3, at(0, 0))]).await, [3, 3]);
    net.stop_all().await;
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    let mut net = Net::of_voters(2).await;
    net.start(1);
    let address = net.addresses[&1];
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(garbage).await;
        let _ = socket.shutdown().await;
        // The server closes the connection after any answer.
        let mut answer = vec![];
        let _ = soon(socket.read_to_end(&mut answer)).await;
    }
    // Well-formed gRPC with invalid messages.
    for (first, code) in [
        (ElectionMessage { kind: None }, Code::InvalidArgument),
        (notification(ServerState::Leading, 0), Code::InvalidArgument),
    ] {
        assert_eq!(open(address, first).await.unwrap_err().code(), code);
    }
    let (to_node, mut from_node) = open(address, hello_of("test", 2, 2)).await.unwrap();
    to_node.send(notification(ServerState::Unspecified, 2)).await.unwrap();
    while let Ok(Some(_)) = soon(from_node.message()).await {}

    net.start(2);
    assert_eq!(net.elect_all(&[(1, at(0, 0)), (2, at(0, 0))]).await, [2, 2]);
    net.stop_all().await;
}

#[tokio::test]
async fn s9_strangers_and_the_smaller_id_are_refused_with_the_remedy() {
    let mut net = Net::of_voters(3).await;
    net.start(2);
    let of_protocol_9 = ElectionMessage {
        kind: Some(Kind::Hello(Hello { ensemble: "test".into(), id: 3, protocol: 9, ..Hello::default() })),
    };
    for (first, code, remedy) in [
        (hello("other", 3), Code::FailedPrecondition, "correct the address of the member"),
        (of_protocol_9, Code::FailedPrecondition, "run versions of Quorate"),
        (hello("test", 9), Code::FailedPrecondition, "correct its `id`"),
        (hello_of("test", 3, 5), Code::FailedPrecondition, "member 4 is a voter there and none here"),
        (hello("test", 2), Code::FailedPrecondition, "an `id` of its own"),
        (hello("test", 1), Code::FailedPrecondition, "2 dials 1"),
    ] {
        let status = open(net.addresses[&2], first.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{first:?}: {status}");
        assert!(status.message().contains(remedy), "{status}");
    }
    assert!(open(net.addresses[&2], hello("test", 3)).await.is_ok());
    net.stop_all().await;
}

#[tokio::test]
async fn b01_a_server_of_another_ensemble_of_the_same_name_has_no_say() {
    let mut net = Net::of_voters(3).await;
    net.start(2);
    let standing = |id, epoch| Standing {
        ensemble: Some(EnsembleId(id)),
        epoch: Epoch(epoch),
        bound: true,
        level: None,
    };
    let stranger = introduced("test", 3, 3, standing(2, 9));
    // First while the node does not know its ensemble, then after it does.
    let (_to_node, mut from_node) = open(net.addresses[&2], stranger.clone()).await.unwrap();
    let roster = Arc::new(Roster::initial(Ensemble::of_voters(1..=3).unwrap()));
    net.handle(2).introduce(standing(1, 3), roster).await.unwrap();
    while let Ok(Some(_)) = soon(from_node.message()).await {}
    let status = open(net.addresses[&2], stranger).await.unwrap_err();
    assert!(status.message().contains("another ensemble of the name"), "{status}");
    assert!(open(net.addresses[&2], introduced("test", 3, 3, standing(1, 4))).await.is_ok());
    net.stop_all().await;
}

#[tokio::test]
async fn servers_of_two_ensembles_do_not_elect_together() {
    let mut net = Net::of_voters(2).await;
    net.start(1);
    net.ensemble_name = "other".into();
    net.start(2);
    let mut alone = net.handles([1, 2]).map(|h| Box::pin(async move { h.elect(Some(at(0, 0))).await }));
    let [one, two] = &mut alone;
    let both = async { tokio::join!(one, two) };
    assert!(timeout(Duration::from_secs(1), both).await.is_err(), "no leader is elected");
    net.stop_all().await;
}

#[tokio::test]
async fn a_newer_stream_replaces_the_older() {
    let mut net = Net::of_voters(3).await;
    net.start(1);
    let _looks = net.look(1);
    let (_to_older, mut older) = open(net.addresses[&1], hello("test", 3)).await.unwrap();
    assert!(hears_vote(&mut older).await);
    let (_to_newer, mut newer) = open(net.addresses[&1], hello("test", 3)).await.unwrap();
    assert!(hears_vote(&mut newer).await);
    // The older stream ends although its client keeps it open.
    while let Ok(Some(_)) = soon(older.message()).await {}
    net.stop_all().await;
}

#[tokio::test]
async fn a_silent_peer_is_hung_up_on_and_one_that_repeats_itself_is_not() {
    let mut net = Net::of_voters(3).await;
    net.start(1);
    let _looks = net.look(1);
    let (_to_silent, mut silent) = open(net.addresses[&1], hello("test", 2)).await.unwrap();
    let (to_alive, mut alive) = open(net.addresses[&1], hello("test", 3)).await.unwrap();
    let repeats = tokio::spawn(async move {
        while to_alive.send(hello("test", 3)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    while let Ok(Some(_)) = soon(silent.message()).await {}
    assert!(hears_vote(&mut alive).await);
    assert!(soon(alive.message()).await.unwrap().is_some());
    net.stop_all().await;
    drop(alive);
    soon(repeats).await.unwrap();
}

#[tokio::test]
async fn after_shutdown_nothing_is_left() {
    let mut net = Net::of_voters(3).await;
    for id in 1..=3 {
        net.start(id);
    }
    net.elect_all(&[(1, at(0, 0)), (2, at(0, 0)), (3, at(0, 0))]).await;
    let handle = net.handle(2);
    let waits = tokio::spawn({
        let lonely = net.handle(1);
        net.stop(3).await;
        net.stop(2).await;
        async move { lonely.elect(Some(at(1, 1))).await }
    });
    // `stop` waits for the driver, and the driver for every task of its service.
    net.stop(1).await;
    assert!(matches!(soon(waits).await.unwrap(), Err(PortClosed(_))));
    assert!(matches!(handle.elect(Some(at(0, 0))).await, Err(PortClosed(_))));
    assert!(matches!(handle.settled(PeerId(3), Epoch(1)).await, Err(PortClosed(_))));
}

#[test]
fn a_config_that_does_not_fit_is_refused() {
    let new = |me, address: &str| {
        let core = election_core::Config::new(PeerId(me), Ensemble::of_voters([1, 2]).unwrap());
        let addresses = if address.is_empty() { vec![] } else { vec![(PeerId(1), address.to_owned())] };
        let config = Config {
            ensemble_name: "test".into(),
            build: Build::this(),
            core,
            addresses: addresses.into_iter().collect(),
            dialer: tls::Dialer::plain(),
        };
        ElectionService::new(config, CancellationToken::new()).map(|_| ())
    };
    assert_eq!(new(3, "h:1"), Err(ConfigError::NotAMember(PeerId(3))));
    assert_eq!(new(2, ""), Err(ConfigError::NoAddress(PeerId(1))));
    for bad in ["h", "h:", ":1", "h:70000", "h h:1", "http://h:1", "h:1/x"] {
        assert_eq!(new(2, bad), Err(ConfigError::BadAddress(PeerId(1), bad.into())));
    }
    for good in ["h:1", "127.0.0.1:3888", "[::1]:3888", "node-1.quorate.svc:3888"] {
        assert_eq!(new(2, good), Ok(()), "{good}");
    }
    assert_eq!(new(1, ""), Ok(()), "no peer to dial");
}

fn at(epoch: u32, zxid: u64) -> Candidate {
    Candidate { epoch: Epoch(epoch), zxid: Zxid(zxid) }
}

/// The first message of a server of an ensemble of three.
fn hello(name: &str, id: u32) -> ElectionMessage {
    hello_of(name, id, 3)
}

fn hello_of(name: &str, id: u32, voters: u32) -> ElectionMessage {
    introduced(name, id, voters, Standing::default())
}

fn introduced(name: &str, id: u32, voters: u32, standing: Standing) -> ElectionMessage {
    let greeting = Greeting {
        name: name.into(),
        id: PeerId(id),
        roster: Arc::new(Roster::initial(Ensemble::of_voters(1..=voters).unwrap())),
        standing,
        settings: Default::default(),
        build: Build::this(),
    };
    ElectionMessage { kind: Some(Kind::Hello(Introduction::to_peer(&greeting))) }
}

fn notification(state: ServerState, leader: u32) -> ElectionMessage {
    let kind =
        Notification { state: state.into(), leader, zxid: 0, epoch: 0, round: 1, members: 0, standing: None };
    ElectionMessage { kind: Some(Kind::Notification(kind)) }
}

/// Opens a stream as a server that sends `first`; `Ok` once the other side has introduced itself.
async fn open(
    address: SocketAddr,
    first: ElectionMessage,
) -> Result<(mpsc::Sender<ElectionMessage>, Streaming<ElectionMessage>), Status> {
    let mut client = ElectionClient::connect(format!("http://{address}")).await.unwrap();
    let (outgoing, messages) = mpsc::channel(8);
    outgoing.send(first).await.unwrap();
    let mut incoming = soon(client.exchange(ReceiverStream::new(messages))).await?.into_inner();
    let introduced = soon(incoming.message()).await?.unwrap();
    assert!(matches!(introduced.kind, Some(Kind::Hello(_))));
    Ok((outgoing, incoming))
}

/// Whether a notification arrives.
async fn hears_vote(incoming: &mut Streaming<ElectionMessage>) -> bool {
    while let Ok(Some(message)) = soon(incoming.message()).await {
        if matches!(message.kind, Some(Kind::Notification(_))) {
            return true;
        }
    }
    false
}

/// Far longer than any step of these tests takes, so that a stuck test fails and does not hang.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), what).await.expect("this should happen soon")
}

struct Net {
    ensemble_name: String,
    ensemble: Ensemble,
    addresses: BTreeMap<u32, SocketAddr>,
    /// Bound, but not served yet.
    listeners: BTreeMap<u32, TcpListener>,
    nodes: BTreeMap<u32, Node>,
}

struct Node {
    handle: Handle,
    shutdown: CancellationToken,
    driver: JoinHandle<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Net {
    async fn new(members: impl IntoIterator<Item = Member>) -> Net {
        let ensemble = Ensemble::new(members).unwrap();
        let mut listeners = BTreeMap::new();
        for (id, _) in ensemble.members() {
            listeners.insert(id.0, TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses = listeners.iter().map(|(&id, l)| (id, l.local_addr().unwrap())).collect();
        Net { ensemble_name: "test".into(), ensemble, addresses, listeners, nodes: BTreeMap::new() }
    }

    async fn of_voters(n: u32) -> Net {
        Net::new((1..=n).map(|id| Member { id: PeerId(id), membership: Membership::VOTER })).await
    }

    fn start(&mut self, id: u32) {
        let config = Config {
            ensemble_name: self.ensemble_name.clone(),
            build: Build::this(),
            core: election_core::Config::new(PeerId(id), self.ensemble.clone()),
            addresses: self.addresses.iter().map(|(&id, a)| (PeerId(id), a.to_string())).collect(),
            dialer: tls::Dialer::plain(),
        };
        let shutdown = CancellationToken::new();
        let service = ElectionService::new(config, shutdown.clone()).unwrap();
        let listener = self.listeners.remove(&id).unwrap();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = Server::builder()
            .layer(tonic::service::InterceptorLayer::new(tls::Caller::on_plaintext))
            .add_service(service.server)
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        let node = Node {
            handle: service.handle,
            shutdown,
            driver: tokio::spawn(service.driver.run()),
            server: tokio::spawn(serving),
        };
        self.nodes.insert(id, node);
    }

    /// Stops a node and waits for its end; its next incarnation binds the port again.
    async fn stop(&mut self, id: u32) {
        let node = self.nodes.remove(&id).unwrap();
        node.shutdown.cancel();
        soon(node.driver).await.unwrap();
        node.server.abort();
        let _ = node.server.await;
        self.listeners.insert(id, TcpListener::bind(self.addresses[&id]).await.unwrap());
    }

    async fn stop_all(mut self) {
        while let Some(&id) = self.nodes.keys().next() {
            self.stop(id).await;
        }
    }

    fn handle(&self, id: u32) -> Handle {
        self.nodes[&id].handle.clone()
    }

    fn handles<const N: usize>(&self, ids: [u32; N]) -> [Handle; N] {
        ids.map(|id| self.handle(id))
    }

    /// Lets a node search for a leader until it is stopped.
    fn look(&self, id: u32) -> JoinHandle<Result<PeerId, PortClosed>> {
        let handle = self.handle(id);
        tokio::spawn(async move { handle.elect(Some(at(0, 0))).await })
    }

    /// Starts the elections of these nodes at one time, and returns the leader of each.
    async fn elect_all(&self, candidates: &[(u32, Candidate)]) -> Vec<u32> {
        let calls: Vec<_> = candidates
            .iter()
            .map(|&(id, candidate)| {
                let handle = self.handle(id);
                tokio::spawn(async move { handle.elect(Some(candidate)).await })
            })
            .collect();
        let mut leaders = vec![];
        for call in calls {
            leaders.push(soon(call).await.unwrap().unwrap().0);
        }
        leaders
    }
}
