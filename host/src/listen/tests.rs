use std::{cell::RefCell, collections::VecDeque};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
    time::Instant,
};
use tokio_stream::StreamExt as _;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;

/// More connections than any test opens.
const MANY: usize = 100;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

type Running = JoinHandle<Result<(), tonic::transport::Error>>;

async fn health_server(drain: Duration) -> (SocketAddr, CancellationToken, Running) {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let (address, shutdown) = (listener.address(), CancellationToken::new());
    let (_, health) = tonic_health::server::health_reporter();
    let serving = tokio::spawn(serve(listener, Routes::new(health), MANY, shutdown.clone(), drain));
    (address, shutdown, serving)
}

async fn health_client(address: SocketAddr) -> HealthClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn every_accepted_connection_has_nodelay() {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let mut incoming = Incoming::new(listener.inner, address, MANY, Port::Other);
    for _ in 0..3 {
        let _client = TcpStream::connect(address).await.unwrap();
        let accepted = incoming.next().await.unwrap().unwrap();
        assert!(accepted.stream().nodelay().unwrap());
    }
}

#[tokio::test]
async fn further_connections_wait_until_one_ends() {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let mut incoming = Incoming::new(listener.inner, address, 2, Port::Other);
    let mut clients = Vec::new();
    for _ in 0..3 {
        // The system completes the handshake of the third as well; it waits in the backlog.
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    let first = incoming.next().await.unwrap().unwrap();
    let _second = incoming.next().await.unwrap().unwrap();
    let early = tokio::time::timeout(Duration::from_millis(20), incoming.next()).await;
    assert!(early.is_err(), "no place is left");
    drop(first);
    let third = incoming.next().await.unwrap().unwrap();
    let peer = third.stream().peer_addr().unwrap();
    assert_eq!(peer, clients[2].local_addr().unwrap());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let first = Listener::bind("client", loopback()).await.unwrap();
    let text = Listener::bind("client", first.address()).await.unwrap_err().to_string();
    assert!(text.contains(&format!("client address {} is in use", first.address())), "{text}");
    assert!(text.contains(&format!("sport = :{}", first.address().port())), "{text}");
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let text = Listener::bind("quorum", foreign).await.unwrap_err().to_string();
    assert!(text.contains("not one of this machine's"), "{text}");
}

#[tokio::test]
async fn garbage_costs_its_own_connection_only() {
    let (address, shutdown, serving) = health_server(Duration::from_secs(5)).await;
    let mut good = health_client(address).await;
    good.check(HealthCheckRequest::default()).await.unwrap();
    for garbage in [
        &b"\0\xff\x17garbage\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        // The server hangs up; by then it has digested what was sent. A reset is as good an end as any.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    good.check(HealthCheckRequest::default()).await.unwrap();
    health_client(address).await.check(HealthCheckRequest::default()).await.unwrap();
    drop(good);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_closes_the_port_and_waits_only_so_long_for_open_streams() {
    let (address, shutdown, serving) = health_server(Duration::from_millis(50)).await;
    // A watch never ends by itself.
    let mut stream =
        health_client(address).await.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// Answers `accept` from a list, and with what a real listener accepts when the list is empty.
struct Scripted {
    faults: RefCell<VecDeque<io::Error>>,
    real: TcpListener,
}

impl Accept for Scripted {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match self.faults.borrow_mut().pop_front() {
            Some(fault) => Poll::Ready(Err(fault)),
            None => TcpListener::poll_accept(&self.real, cx),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn accepting_survives_faults_and_does_not_spin_when_out_of_descriptors() {
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let faults = [ECONNABORTED, EMFILE, EMFILE, ECONNABORTED].map(io::Error::from_raw_os_error);
    let acceptor = Scripted { faults: RefCell::new(faults.into()), real: listener.inner };
    let mut incoming = Incoming::new(acceptor, address, MANY, Port::Other);
    // Waits in the listener's backlog when the faults are through.
    let _client = std::net::TcpStream::connect(address).unwrap();
    let before = Instant::now();
    incoming.next().await.unwrap().unwrap();
    assert!(before.elapsed() >= 2 * PAUSE, "one pause for each EMFILE, {:?}", before.elapsed());
}
