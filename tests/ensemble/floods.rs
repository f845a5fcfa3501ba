//! Floods of strangers on the port of clients, and what they cost a client.
//!
//! `FLOOD_STRANGERS=1000 cargo test -p quorate --test ensemble floods:: -- --nocapture` prints the figures of docs/security.md.
//! By default there are fewer strangers, for the sake of the tests beside it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use client_sdk::{Client, CreateMode, Options, Tls, node_status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::harness::{Ensemble, eventually};
use crate::tls::{certificates, secured, serving, set};

/// How long a flood is kept up.
const KEPT_UP: Duration = Duration::from_secs(3);
/// Before a stranger that was thrown out comes again.
const AGAIN: Duration = Duration::from_secs(1);
/// Strangers come from that many addresses, so that bounds for one address do not stop them.
const ADDRESSES: usize = 50;

/// Connections of each flood.
fn strangers() -> usize {
    std::env::var("FLOOD_STRANGERS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

/// S1: floods of silent connections, slow and half-open handshakes, complete handshakes, resets and cancelled calls. A
/// client with a session goes on, and new clients come in.
#[test]
fn s01_floods_leave_others_served() {
    let mut ensemble = Ensemble::down(1);
    let dir = certificates(&ensemble);
    set(&mut ensemble, &dir, 1, "require", "require");
    ensemble.start_node(1);
    eventually("the node serves", || serving(&secured(&ensemble, &dir, &["status", "-o", "json"])) == 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(all_floods(ensemble.endpoint(1), &dir));
}

async fn all_floods(endpoint: &str, dir: &Path) {
    let tls = Tls::read(Some(dir.join("ca.pem")), None).unwrap();
    // Time for a machine that also runs the strangers, and perhaps other tests.
    let session_timeout = Duration::from_secs(30);
    let options = Options { tls: Some(tls.clone()), session_timeout, ..Options::default() };
    let client = Client::connect([endpoint], options).await.unwrap();
    client.create("/flood", "0", CreateMode::default()).await.unwrap();
    let session = client.session();
    let hello: Arc<[u8]> = client_hello(&tls).await.into();
    let target: SocketAddr = endpoint.parse().unwrap();
    let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
    println!("{:<40} {:>8} {:>12} {:>14} {:>12}", "flood", "writes/s", "slowest", "new clients", "slowest");
    let none = served(&client, endpoint, &tls, std::future::pending()).await;
    none.print("none");
    let silent = served(&client, endpoint, &tls, keep(move |i| silent(target, i))).await;
    silent.print("silent connections");
    let message = hello.clone();
    let slow = keep(move |i| slow(target, i, message.clone()));
    let slow = served(&client, endpoint, &tls, slow).await;
    slow.print("handshakes of one byte at a time");
    let message = hello.clone();
    let half = keep(move |i| half_open(target, i, message.clone()));
    let half = served(&client, endpoint, &tls, half).await;
    half.print("half-open handshakes");
    let reset = keep(move |i| reset(target, i, hello.clone()));
    let reset = served(&client, endpoint, &tls, reset).await;
    reset.print("resets within the handshake");
    let (authority, idle_at) = (ca.clone(), endpoint.to_owned());
    let idle = keep(move |i| idle(idle_at.clone(), authority.clone(), i));
    let idle = served(&client, endpoint, &tls, idle).await;
    idle.print("complete handshakes without a request");
    let cancelled = cancelled(connect(endpoint, &ca, 0).await.unwrap());
    let cancelled = served(&client, endpoint, &tls, cancelled).await;
    cancelled.print("cancelled calls of one connection");
    for (what, figures) in [
        ("silent", &silent),
        ("slow", &slow),
        ("half-open", &half),
        ("resets", &reset),
        ("idle", &idle),
        ("cancelled", &cancelled),
    ] {
        assert!(figures.writes > 0, "{what}: no write of the session went through");
        // Strangers, node and clients share the cores of one machine, so some run out of time.
        assert!(figures.connected > 0, "{what}: no new client was served: {figures:?}");
    }
    assert_eq!(client.session(), session, "the session was lost");
}

/// What clients got while a flood was kept up.
#[derive(Debug)]
struct Figures {
    writes: usize,
    slowest_write: Duration,
    connected: usize,
    refused: usize,
    slowest_connect: Duration,
}

impl Figures {
    fn print(&self, what: &str) {
        let Figures { writes, slowest_write, connected, refused, slowest_connect } = self;
        let rate = *writes as f64 / KEPT_UP.as_secs_f64();
        let all = connected + refused;
        println!(
            "{what:<40} {rate:>8.0} {slowest_write:>12.0?} {connected:>7} of {all:>3} {slowest_connect:>12.0?}"
        );
    }
}

/// Writes, one after the other, in a session that was there before, and new clients, one every 100 ms.
async fn served(client: &Client, endpoint: &str, tls: &Tls, flood: impl Future<Output = ()>) -> Figures {
    let over = AtomicBool::new(false);
    let writes = async {
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while !over.load(SeqCst) {
            let began = Instant::now();
            client.set("/flood", "1", None).await.unwrap();
            (count, slowest) = (count + 1, slowest.max(began.elapsed()));
        }
        (count, slowest)
    };
    let came: Mutex<Vec<(bool, Duration)>> = Mutex::default();
    let clients = async {
        let mut asking = JoinSet::new();
        while !over.load(SeqCst) {
            let (endpoint, tls) = (endpoint.to_owned(), tls.clone());
            asking.spawn(async move {
                let began = Instant::now();
                let answer = node_status(&endpoint, Duration::from_secs(10), Some(&tls)).await;
                (answer.is_ok(), began.elapsed())
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while let Some(one) = asking.join_next().await {
            came.lock().unwrap().push(one.unwrap());
        }
    };
    let flood = async {
        let _ = tokio::time::timeout(KEPT_UP, flood).await;
        over.store(true, SeqCst);
    };
    let ((writes, slowest_write), (), ()) = tokio::join!(writes, clients, flood);
    let came = came.into_inner().unwrap();
    Figures {
        writes,
        slowest_write,
        connected: came.iter().filter(|(served, _)| *served).count(),
        refused: came.iter().filter(|(served, _)| !served).count(),
        slowest_connect: came.iter().map(|(_, took)| *took).max().unwrap_or_default(),
    }
}

/// Keeps [`strangers`] at it: whoever is thrown out comes again.
async fn keep<F>(stranger: impl Fn(usize) -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for i in 0..strangers() {
        let stranger = stranger.clone();
        all.spawn(async move {
            loop {
                // An error is the end of one attempt.
                let _ = stranger(i).await;
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
}

/// Another address of this machine than that of clients.
fn from(stranger: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(1 + stranger % ADDRESSES).unwrap())
}

async fn dial(target: SocketAddr, stranger: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from(stranger), 0)))?;
    socket.connect(target).await
}

async fn silent(target: SocketAddr, stranger: usize) -> io::Result<()> {
    let mut stream = dial(target, stranger).await?;
    stream.read(&mut [0]).await.map(drop)
}

async fn slow(target: SocketAddr, stranger: usize, hello: Arc<[u8]>) -> io::Result<()> {
    let mut stream = dial(target, stranger).await?;
    for byte in hello.iter() {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn half_open(target: SocketAddr, stranger: usize, hello: Arc<[u8]>) -> io::Result<()> {
    let mut stream = dial(target, stranger).await?;
    stream.write_all(&hello).await?;
    while stream.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}

async fn reset(target: SocketAddr, stranger: usize, hello: Arc<[u8]>) -> io::Result<()> {
    let mut stream = dial(target, stranger).await?;
    stream.set_zero_linger()?;
    stream.write_all(&hello).await
}

async fn idle(endpoint: String, ca: String, stranger: usize) -> io::Result<()> {
    let _channel = connect(&endpoint, &ca, stranger).await.map_err(io::Error::other)?;
    tokio::time::sleep(KEPT_UP).await;
    Ok(())
}

async fn connect(endpoint: &str, ca: &str, stranger: usize) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(format!("https://{endpoint}"))?.tls_config(tls)?;
    endpoint.local_address(Some(from(stranger).into())).connect().await
}

/// Calls that are given up before their answer, a hundred at a time.
async fn cancelled(channel: Channel) {
    use proto::v1::{StatusRequest, node_client::NodeClient};
    loop {
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let mut client = NodeClient::new(channel.clone());
            calls.spawn(async move { client.status(StatusRequest {}).await.map(drop) });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        calls.shutdown().await;
    }
}

/// The first message of a client.
async fn client_hello(tls: &Tls) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = tls.clone();
    let asking =
        tokio::spawn(async move { node_status(&address, Duration::from_secs(10), Some(&tls)).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut hello = vec![0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    // The header of a record ends with its length (RFC 8446, section 5.1).
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + length, 0);
    stream.read_exact(&mut hello[5..]).await.unwrap();
    asking.abort();
    hello
}
