//! A node in this process, and a client that says exactly what a test wants.

use std::{net::SocketAddr, path::Path, time::Duration};

use api::{Identities, PeerId, budget::Budget};
use bytes::{Bytes, BytesMut};
use gateway::{Config, End, Gateway, Guest};
use store_svc::{Handle, StoreService, testing::MemoryQuorum};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use zk_jute::{
    Acl, Body, Code, ConnectRequest, ConnectResponse, Create, EventType, Frames, Id, OpCode, ReplyHeader,
    Request, Shape, WatcherEvent,
};

pub(crate) struct Node {
    pub(crate) gateway: Gateway<Handle>,
    pub(crate) quorum: MemoryQuorum,
    pub(crate) budget: Budget,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start() -> Node {
        Node::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let quorum = MemoryQuorum::new(PeerId(1));
        let shutdown = CancellationToken::new();
        let store = store(dir.path());
        let store = StoreService::open(store, quorum.clone(), shutdown.clone()).unwrap();
        let gateway = Gateway::new(store.handle(), config, None);
        let running = tokio::spawn(async move { store.run().await.unwrap() });
        Node { gateway, quorum, budget: Budget::new(64 << 20), shutdown, running, _dir: dir }
    }

    pub(crate) fn guest(&self) -> Guest {
        Guest {
            identities: Identities::NONE,
            certificate: None,
            address: SocketAddr::from(([192, 0, 2, 1], 4000)),
            held: self.budget.share(),
            traffic: self.budget.share(),
        }
    }

    /// A connection on which nothing is said yet.
    pub(crate) fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let guest = self.guest();
        let gateway = self.gateway.clone();
        let serving = tokio::spawn(async move { gateway.serve(theirs, guest, || {}).await });
        Client { stream: ours, frames: Frames::new(16 << 20), serving, xid: 0, asked: Vec::new() }
    }

    /// Bytes of the task of a connection.
    pub(crate) fn task_size(&self) -> usize {
        let (_, theirs) = tokio::io::duplex(1);
        size_of_val(&self.gateway.serve(theirs, self.guest(), || {}))
    }

    /// With a session of its own.
    pub(crate) async fn client(&self) -> (Client, ConnectResponse) {
        let mut client = self.connect();
        let opened = client.open(&fresh()).await.expect("a session");
        (client, opened)
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        drop(self.gateway);
        self.running.await.unwrap();
        assert_eq!(self.budget.used(), 0, "nothing is held of connections that have ended");
    }
}

fn store(dir: &Path) -> store_svc::Config {
    store_svc::Config::new(PeerId(1), dir.to_owned())
}

pub(crate) fn fresh() -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: 3000,
        session_id: 0,
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(false),
    }
}

/// To take up the session of this answer.
pub(crate) fn resume(opened: &ConnectResponse) -> ConnectRequest {
    let password = Some(Bytes::copy_from_slice(&opened.password));
    ConnectRequest { session_id: opened.session_id, password, ..fresh() }
}

pub(crate) struct Client {
    stream: DuplexStream,
    frames: Frames,
    serving: JoinHandle<End>,
    xid: i32,
    /// What is not answered.
    asked: Vec<(i32, OpCode)>,
}

impl Client {
    /// `None` if the connection is closed without an answer.
    pub(crate) async fn open(&mut self, request: &ConnectRequest) -> Option<ConnectResponse> {
        let mut out = BytesMut::new();
        request.encode(&mut out);
        self.send(&out).await;
        Some(ConnectResponse::decode(self.frame().await?).unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Asks, without waiting.
    pub(crate) async fn submit(&mut self, requests: &[Request]) {
        let mut out = BytesMut::new();
        for request in requests {
            self.xid += 1;
            let xid = if *request == Request::Ping { zk_jute::xid::PING } else { self.xid };
            self.asked.push((xid, request.code()));
            request.encode(xid, &mut out);
        }
        self.send(&out).await;
    }

    /// The next frame; `None` if the connection is closed.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Some(frame);
            }
            if soon(self.stream.read_buf(self.frames.buffer())).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next reply, which is to the oldest request that is not answered.
    pub(crate) async fn reply(&mut self) -> (ReplyHeader, Body) {
        let frame = self.frame().await.expect("a reply");
        let (header, from) = ReplyHeader::decode(frame).unwrap();
        let place =
            self.asked.iter().position(|(xid, _)| *xid == header.xid).expect("the number of a request");
        let (_, op) = self.asked.remove(place);
        assert!(place == 0 || header.xid == zk_jute::xid::PING, "replies come in order");
        (header, header.body(Shape::of(op), from).unwrap())
    }

    /// The next frame, which is an event: its type and path, and the zxid.
    pub(crate) async fn event(&mut self) -> (EventType, String, i64) {
        let frame = self.frame().await.expect("an event");
        let (header, mut from) = ReplyHeader::decode(frame).unwrap();
        assert_eq!((header.xid, header.err), (zk_jute::xid::EVENT, 0), "an event");
        let event: WatcherEvent = from.take().unwrap();
        assert_eq!(event.state, 3);
        (EventType(event.kind), event.path, header.zxid)
    }

    pub(crate) async fn ask(&mut self, request: Request) -> Result<Body, Code> {
        self.submit(&[request]).await;
        match self.reply().await {
            (ReplyHeader { err: 0, .. }, body) => Ok(body),
            (header, _) => Err(Code(header.err)),
        }
    }

    /// Whether nothing comes for this time.
    pub(crate) async fn is_silent(&mut self, within: Duration) -> bool {
        let waits = timeout(within, self.stream.read_buf(self.frames.buffer())).await;
        waits.is_err() && self.frames.rest().is_empty()
    }

    pub(crate) async fn text(&mut self) -> String {
        let mut text = String::new();
        soon(self.stream.read_to_string(&mut text)).await.unwrap();
        text
    }

    /// Nothing else comes, and the gateway says why it is over.
    pub(crate) async fn ended(mut self) -> End {
        assert_eq!(self.frame().await, None);
        soon(self.serving).await.unwrap()
    }

    /// The client is gone, without a word.
    pub(crate) async fn hang_up(self) -> End {
        drop(self.stream);
        soon(self.serving).await.unwrap()
    }
}

pub(crate) fn open_acl() -> Option<Vec<Acl>> {
    Some(vec![Acl { perms: 31, id: Id { scheme: "world".into(), id: "anyone".into() } }])
}

pub(crate) fn node(path: &str, data: &'static str, flags: i32) -> Create {
    Create { path: path.into(), data: Some(Bytes::from_static(data.as_bytes())), acl: open_acl(), flags }
}

pub(crate) fn create(path: &str, flags: i32) -> Request {
    Request::Create { create: node(path, "", flags) }
}

pub(crate) fn get(path: &str) -> Request {
    Request::GetData { path: path.into(), watch: false }
}

pub(crate) fn exists(path: &str) -> Request {
    Request::Exists { path: path.into(), watch: false }
}

pub(crate) fn set(path: &str, data: &'static str, version: i32) -> Request {
    Request::SetData { path: path.into(), data: Some(Bytes::from_static(data.as_bytes())), version }
}

pub(crate) fn delete(path: &str) -> Request {
    Request::Delete { path: path.into(), version: -1 }
}

pub(crate) fn children(path: &str) -> Request {
    Request::GetChildren { path: path.into(), watch: false }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
