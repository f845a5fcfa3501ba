//! The guarantees of the port [`Election`], for an election in this process and in another: one suite
//! for both. Further tests for the remote port alone: either side may disappear and return.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ports::{Candidate, Election};
use api::{Build, Ensemble, EnsembleId, Epoch, PeerId, Roster, Standing, Zxid};
use election_svc::{Config, ElectionService, Handle};
use proto::remote::{Neighbour, RemoteElection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// How a test reaches the elections.
trait Packaging {
    type Port: Election;
    fn port(node: &Node) -> Self::Port;
}

struct Local;

impl Packaging for Local {
    type Port = Handle;
    fn port(node: &Node) -> Handle {
        node.handle.clone()
    }
}

struct Remote;

impl Packaging for Remote {
    type Port = RemoteElection;
    fn port(node: &Node) -> RemoteElection {
        remote(node.id, node.port)
    }
}

fn remote(id: u32, port: SocketAddr) -> RemoteElection {
    let neighbour = Neighbour::new("election", &format!("http://{port}"), "test", PeerId(id), None).unwrap();
    RemoteElection::new(neighbour)
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod local { $(#[tokio::test] async fn $test() { super::$test::<super::Local>().await; })* }
        mod remote { $(#[tokio::test] async fn $test() { super::$test::<super::Remote>().await; })* }
    };
}

suite! {
    all_find_the_same_leader
    a_server_without_a_candidate_does_not_lead
    a_newer_call_ends_an_older_one
    a_late_server_joins_the_leader_that_has_settled
    an_election_without_a_caller_does_not_answer_the_next_one
}

async fn all_find_the_same_leader<P: Packaging>() {
    let net = Net::<P>::start(3).await;
    assert_eq!(net.elect_all(&[(1, at(1, 9)), (2, at(1, 7)), (3, at(1, 8))]).await, [1, 1, 1]);
    assert_eq!(net.elect_all(&[(1, at(1, 9)), (2, at(2, 7)), (3, at(1, 8))]).await, [2, 2, 2], "and again");
}

async fn a_server_without_a_candidate_does_not_lead<P: Packaging>() {
    let net = Net::<P>::start(3).await;
    let [a, b, c] = [1, 2, 3].map(|id| net.ports[&id].clone());
    let found = soon(async { tokio::join!(a.elect(Some(at(1, 1))), b.elect(Some(at(1, 2))), c.elect(None)) });
    let (a, b, c) = found.await;
    assert_eq!(
        [a.unwrap(), b.unwrap(), c.unwrap()],
        [PeerId(2); 3],
        "3 has the largest id and does not stand"
    );
}

async fn a_newer_call_ends_an_older_one<P: Packaging>() {
    let net = Net::<P>::start(3).await;
    let port = net.ports[&1].clone();
    let mut older = Box::pin(port.elect(Some(at(5, 0))));
    assert!(timeout(Duration::from_millis(100), &mut older).await.is_err(), "a server alone finds no leader");
    let newer = tokio::spawn({
        let port = port.clone();
        async move { port.elect(Some(at(6, 0))).await }
    });
    assert!(soon(older).await.is_err());
    net.elect_all(&[(2, at(0, 0))]).await;
    assert_eq!(soon(newer).await.unwrap().unwrap(), PeerId(1));
}

async fn a_late_server_joins_the_leader_that_has_settled<P: Packaging>() {
    let net = Net::<P>::start(3).await;
    assert_eq!(net.elect_all(&[(1, at(0, 0)), (2, at(0, 0))]).await, [2, 2]);
    for id in [1, 2] {
        net.ports[&id].settled(PeerId(2), Epoch(1)).await.unwrap();
    }
    assert_eq!(net.elect_all(&[(3, at(9, 9))]).await, [2], "though it has the better candidate");
}

async fn an_election_without_a_caller_does_not_answer_the_next_one<P: Packaging>() {
    let net = Net::<P>::start(3).await;
    let port = net.ports[&3].clone();
    for _ in 0..20 {
        // The caller gives up at any point.
        let _ = timeout(Duration::from_micros(300), port.elect(Some(at(9, 9)))).await;
    }
    let all = net.elect_all(&[(1, at(1, 2)), (2, at(1, 1)), (3, at(1, 0))]).await;
    assert_eq!(all, [1, 1, 1], "what counts is the last candidate");
}

#[tokio::test]
async fn a_restarted_election_learns_the_present_reign() {
    let mut net = Net::<Remote>::start(3).await;
    assert_eq!(net.elect_all(&[(1, at(0, 0)), (2, at(0, 0))]).await, [2, 2]);
    for id in [1, 2] {
        net.ports[&id].settled(PeerId(2), Epoch(1)).await.unwrap();
    }
    for id in [1, 2] {
        net.restart(id).await;
    }
    assert_eq!(net.elect_all(&[(3, at(0, 0))]).await, [2], "the reign goes on, and 3 hears of it");
}

#[tokio::test]
async fn a_request_to_an_election_that_is_down_waits_and_is_repeated() {
    let mut net = Net::<Remote>::start(3).await;
    net.stop(3).await;
    let port = net.ports[&3].clone();
    let waiting = tokio::spawn(async move { port.elect(Some(at(2, 2))).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    net.serve(3).await;
    let candidates = [(1, at(1, 1)), (2, at(1, 1))];
    let (others, third) = tokio::join!(net.elect_all(&candidates), soon(waiting));
    assert_eq!((others, third.unwrap().unwrap()), (vec![3, 3], PeerId(3)));
}

#[tokio::test]
async fn without_its_quorum_a_leader_is_no_leader_and_the_next_quorum_asks_anew() {
    let mut net = Net::<Remote>::start(3).await;
    assert_eq!(net.elect_all(&[(1, at(0, 0)), (2, at(0, 0)), (3, at(0, 0))]).await, [3, 3, 3]);
    for id in [1, 2, 3] {
        net.ports[&id].settled(PeerId(3), Epoch(1)).await.unwrap();
    }
    // The quorum of node 3 ends; its election continues, and answers the others.
    net.ports.remove(&3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(net.elect_all(&[(1, at(1, 5)), (2, at(1, 4))]).await, [1, 1]);
    for id in [1, 2] {
        net.ports[&id].settled(PeerId(1), Epoch(2)).await.unwrap();
    }
    net.ports.insert(3, Remote::port(&net.nodes[&3]));
    assert_eq!(net.elect_all(&[(3, at(1, 5))]).await, [1]);
}

#[tokio::test]
async fn a_newer_quorum_takes_the_place_of_an_older_one() {
    let net = Net::<Remote>::start(1).await;
    let node = &net.nodes[&1];
    assert_eq!(soon(net.ports[&1].elect(Some(at(0, 0)))).await.unwrap(), PeerId(1));
    let newer = Remote::port(node);
    assert_eq!(soon(newer.elect(Some(at(0, 0)))).await.unwrap(), PeerId(1));
    // The older quorum does not return: two alternating quorums would elect no leader.
    soon(async { while net.ports[&1].settled(PeerId(1), Epoch(1)).await.is_ok() {} }).await;
}

#[tokio::test]
async fn the_error_for_the_quorum_of_another_node_names_the_remedy() {
    use proto::internal::{ElectionCall, election_port_client::ElectionPortClient};
    let net = Net::<Remote>::start(1).await;
    let mut client = ElectionPortClient::connect(format!("http://{}", net.nodes[&1].port)).await.unwrap();
    for (ensemble, id) in [("other", 1), ("test", 2)] {
        let hello = proto::quorum::Hello::to_wire(ensemble, PeerId(id), Standing::default());
        let call: ElectionCall = proto::ports::ElectionCall::Hello(hello).into();
        let status = soon(client.link(tokio_stream::once(call))).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains("services.election"), "{status}");
    }
    let status = soon(client.link(tokio_stream::once(ElectionCall { kind: None }))).await.unwrap_err();
    assert!(status.message().contains("introduce"), "{status}");
}

#[tokio::test]
async fn b01_a_quorum_of_another_ensemble_takes_nobodys_place() {
    use proto::internal::{ElectionCall, election_port_client::ElectionPortClient};
    let net = Net::<Remote>::start(1).await;
    let roster = Arc::new(Roster::initial(Ensemble::of_voters([1]).unwrap()));
    let of = |id| Standing { ensemble: Some(EnsembleId(id)), epoch: Epoch(3), bound: true, level: None };
    let own = &net.ports[&1];
    own.introduce(of(1), roster.clone()).await.unwrap();
    assert_eq!(soon(own.elect(Some(at(0, 0)))).await.unwrap(), PeerId(1));
    let stranger = Remote::port(&net.nodes[&1]);
    stranger.introduce(of(2), roster).await.unwrap();
    let asked = timeout(Duration::from_secs(1), stranger.elect(Some(at(9, 9)))).await;
    assert!(asked.is_err() && !stranger.is_linked(), "{asked:?}");
    assert_eq!(soon(own.elect(Some(at(0, 0)))).await.unwrap(), PeerId(1), "its link goes on");
    assert!(own.is_linked());

    let mut client = ElectionPortClient::connect(format!("http://{}", net.nodes[&1].port)).await.unwrap();
    let hello = proto::quorum::Hello::to_wire("test", PeerId(1), of(2));
    let call: ElectionCall = proto::ports::ElectionCall::Hello(hello).into();
    let why = soon(client.link(tokio_stream::once(call))).await.unwrap_err();
    let named = [1, 2].iter().all(|id| why.message().contains(&EnsembleId(*id).to_string()));
    assert!(named && why.message().contains("services.election"), "{why}");
}

fn at(epoch: u32, counter: u32) -> Candidate {
    Candidate { epoch: Epoch(epoch), zxid: Zxid::new(Epoch(epoch), counter) }
}

/// Far longer than any step of these tests takes.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), what).await.expect("this should happen soon")
}

/// Running elections and their ports.
struct Net<P: Packaging> {
    addresses: BTreeMap<PeerId, String>,
    nodes: BTreeMap<u32, Node>,
    ports: BTreeMap<u32, P::Port>,
}

struct Node {
    id: u32,
    handle: Handle,
    port: SocketAddr,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl<P: Packaging> Net<P> {
    async fn start(n: u32) -> Net<P> {
        let mut addresses = BTreeMap::new();
        let mut listeners = BTreeMap::new();
        for id in 1..=n {
            let peers = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.insert(PeerId(id), peers.local_addr().unwrap().to_string());
            listeners.insert(id, peers);
        }
        let mut net = Net { addresses, nodes: BTreeMap::new(), ports: BTreeMap::new() };
        for (id, peers) in listeners {
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let node = net.node(id, peers, port);
            net.ports.insert(id, P::port(&node));
            net.nodes.insert(id, node);
        }
        net
    }

    fn node(&self, id: u32, peers: TcpListener, port: TcpListener) -> Node {
        let ensemble = Ensemble::of_voters(self.addresses.keys().map(|id| id.0)).unwrap();
        let config = Config {
            ensemble_name: "test".into(),
            build: Build::this(),
            core: election_core::Config::new(PeerId(id), ensemble),
            addresses: self.addresses.clone(),
            dialer: tls::Dialer::plain(),
        };
        let shutdown = CancellationToken::new();
        let service = ElectionService::new(config, shutdown.clone()).unwrap();
        let address = port.local_addr().unwrap();
        let serve = |listener, routes| {
            let stop = shutdown.clone();
            let serving = Server::builder()
                .layer(tonic::service::InterceptorLayer::new(tls::Caller::on_plaintext))
                .add_routes(routes)
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
            // Connections end with the server, as those of a process do.
            tokio::spawn(async move { drop(stop.run_until_cancelled(serving).await) })
        };
        let tasks = vec![
            serve(peers, Routes::new(service.server)),
            serve(port, Routes::new(service.port)),
            tokio::spawn(service.driver.run()),
        ];
        Node { id, handle: service.handle, port: address, shutdown, tasks }
    }

    async fn elect_all(&self, candidates: &[(u32, Candidate)]) -> Vec<u32> {
        let calls: Vec<_> = candidates
            .iter()
            .map(|&(id, candidate)| {
                let port = self.ports[&id].clone();
                tokio::spawn(async move { port.elect(Some(candidate)).await })
            })
            .collect();
        let mut leaders = vec![];
        for call in calls {
            leaders.push(soon(call).await.unwrap().unwrap().0);
        }
        leaders
    }

    /// Ends an election, but not its peers.
    async fn stop(&mut self, id: u32) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.shutdown.cancel();
        for task in std::mem::take(&mut node.tasks) {
            soon(task).await.unwrap();
        }
    }

    /// Starts a stopped election at the same addresses.
    async fn serve(&mut self, id: u32) {
        let peers = TcpListener::bind(&self.addresses[&PeerId(id)]).await.unwrap();
        let port = TcpListener::bind(self.nodes[&id].port).await.unwrap();
        let node = self.node(id, peers, port);
        self.nodes.insert(id, node);
    }

    async fn restart(&mut self, id: u32) {
        self.stop(id).await;
        self.serve(id).await;
    }
}

impl<P: Packaging> Drop for Net<P> {
    fn drop(&mut self) {
        self.nodes.values().for_each(|node| node.shutdown.cancel());
    }
}
