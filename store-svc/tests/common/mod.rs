//! A store on a quorum in memory, served on a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, missing_docs, unreachable_pub)]

use std::{net::SocketAddr, path::Path, time::Duration};

use api::{PeerId, budget::Budget};
use host::listen::{self, Bounds, CallPlaces, Listener};
use proto::v1::{
    self, coordination_client::CoordinationClient, item::Item, node_client::NodeClient, request::Op,
    response::Result as Answer,
};
use store_svc::{Config, StopReason, StoreService, testing::MemoryQuorum};
use tokio::{sync::mpsc, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, service::Routes, transport::Channel};

pub struct Node {
    pub address: SocketAddr,
    /// The budget of client data in flight.
    pub held: Budget,
    pub ready: watch::Receiver<bool>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), StopReason>>,
    serving: JoinHandle<()>,
}

impl Node {
    pub async fn start(dir: &Path, quorum: &MemoryQuorum) -> Node {
        Node::start_with(dir, quorum, |_| {}).await
    }

    pub async fn start_with(dir: &Path, quorum: &MemoryQuorum, change: impl FnOnce(&mut Config)) -> Node {
        let mut config = Config::new(PeerId(1), dir.to_owned());
        change(&mut config);
        let shutdown = CancellationToken::new();
        let store = StoreService::open(config, quorum.clone(), shutdown.clone()).unwrap();
        let listener = Listener::bind("test", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.address();
        let mut routes = Routes::builder();
        routes.add_service(store.coordination()).add_service(store.node());
        let held = Budget::new(64 << 20);
        let bounds = Bounds::clients(1000, CallPlaces::sharing(1 << 30), Budget::new(64 << 20), held.clone());
        let serving =
            listen::serve(listener, routes.routes(), bounds, CancellationToken::new(), Duration::ZERO);
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        let ready = store.readiness();
        let running = tokio::spawn(store.run());
        Node { address, held, ready, shutdown, running, serving }
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub async fn client(&self) -> CoordinationClient<Channel> {
        CoordinationClient::new(self.channel().await)
    }

    pub async fn status(&self) -> v1::StatusResponse {
        NodeClient::new(self.channel().await).status(v1::StatusRequest {}).await.unwrap().into_inner()
    }

    /// Stops the node in an orderly way.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        self.serving.abort();
    }

    /// Stops the node abruptly. A running job of the checkpoint thread continues.
    pub async fn kill(self) {
        self.running.abort();
        self.serving.abort();
        let _ = self.running.await;
    }

    /// Waits until the store stops by itself.
    pub async fn stopped(self) -> StopReason {
        let reason = self.running.await.unwrap().unwrap_err();
        self.serving.abort();
        reason
    }
}

/// A session stream driven message by message.
pub struct Session {
    pub out: mpsc::Sender<v1::SessionRequest>,
    pub answers: Streaming<v1::SessionResponse>,
    pub opened: v1::SessionOpened,
    early: Vec<v1::Response>,
    number: u64,
}

impl Session {
    pub async fn open(node: &Node) -> Session {
        Session::with(node, v1::OpenSession { timeout_ms: 5000, ..Default::default() }).await.unwrap()
    }

    pub async fn resume(&self, node: &Node) -> Result<Session, Status> {
        let open = v1::OpenSession { resume: self.opened.session.clone(), ..Default::default() };
        let mut session = Session::with(node, open).await?;
        session.number = self.number;
        Ok(session)
    }

    pub async fn with(node: &Node, open: v1::OpenSession) -> Result<Session, Status> {
        Session::over(node.channel().await, open).await
    }

    /// Opens a session over a channel. Several may share one connection.
    pub async fn over(channel: Channel, open: v1::OpenSession) -> Result<Session, Status> {
        let (out, requests) = mpsc::channel(64);
        let first = v1::SessionRequest { open: Some(open), ..Default::default() };
        out.send(first).await.unwrap();
        let mut client = CoordinationClient::new(channel);
        let mut answers = client.session(ReceiverStream::new(requests)).await?.into_inner();
        let message = answers.message().await?.expect("an answer to open");
        let opened = opened(&message).expect("opened first").clone();
        Ok(Session { out, answers, opened, early: responses(message.items).collect(), number: 1 })
    }

    /// Id of the session.
    pub fn id(&self) -> u64 {
        self.opened.session.as_ref().unwrap().session_id
    }

    /// The secret of the session.
    pub fn token(&self) -> bytes::Bytes {
        self.opened.session.as_ref().unwrap().token.clone()
    }

    /// Numbers the writes and sends all requests in one message. The xid is the index in the list.
    pub async fn send(&mut self, ops: Vec<Op>) {
        let mut requests = Vec::new();
        for (xid, op) in ops.into_iter().enumerate() {
            let write = matches!(op, Op::Create(_) | Op::Set(_) | Op::Delete(_) | Op::Multi(_));
            let write_number = if write { self.number } else { 0 };
            self.number += u64::from(write);
            requests.push(v1::Request { xid: xid as u64, write_number, op: Some(op), ..Default::default() });
        }
        let acked_write = 0;
        self.out.send(v1::SessionRequest { open: None, requests, acked_write }).await.unwrap();
    }

    pub fn next_number(&mut self, number: u64) {
        self.number = number;
    }

    /// The next `n` responses.
    pub async fn receive(&mut self, n: usize) -> Vec<v1::Response> {
        let mut all = std::mem::take(&mut self.early);
        while all.len() < n {
            let message = self.answers.message().await.unwrap().expect("more answers");
            all.extend(responses(message.items));
        }
        assert_eq!(all.len(), n);
        all
    }

    pub async fn ask(&mut self, ops: Vec<Op>) -> Vec<v1::Response> {
        let n = ops.len();
        self.send(ops).await;
        self.receive(n).await
    }

    /// Reads to the end of the stream and returns its result.
    pub async fn end(mut self) -> Result<(), Status> {
        loop {
            match self.answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }
}

/// The first item of a message, if it opens a session.
pub fn opened(message: &v1::SessionResponse) -> Option<&v1::SessionOpened> {
    match message.items.first()?.item.as_ref()? {
        Item::Opened(opened) => Some(opened),
        _ => None,
    }
}

/// The responses among these items.
pub fn responses(items: impl IntoIterator<Item = v1::Item>) -> impl Iterator<Item = v1::Response> {
    items.into_iter().filter_map(|item| match item.item {
        Some(Item::Response(response)) => Some(response),
        _ => None,
    })
}

pub fn create(path: &str, data: impl Into<bytes::Bytes>) -> Op {
    Op::Create(v1::CreateRequest { path: path.into(), data: Some(data.into()), ..Default::default() })
}

pub fn ephemeral(path: &str) -> Op {
    Op::Create(v1::CreateRequest {
        path: path.into(),
        kind: v1::NodeKind::Ephemeral.into(),
        ..Default::default()
    })
}

pub fn set(path: &str, data: impl Into<bytes::Bytes>) -> Op {
    Op::Set(v1::SetRequest { path: path.into(), data: Some(data.into()), ..Default::default() })
}

pub fn get(path: &str) -> Op {
    get_at(path, v1::ReadLevel::Unspecified, 0)
}

pub fn get_at(path: &str, level: v1::ReadLevel, min_zxid: u64) -> Op {
    Op::Get(v1::GetRequest { path: path.into(), read: fresh(level, min_zxid) })
}

pub fn fresh(level: v1::ReadLevel, min_zxid: u64) -> Option<v1::ReadOptions> {
    Some(v1::ReadOptions { level: level.into(), min_zxid })
}

/// The names of one page.
pub fn names(page: &v1::ChildrenResponse) -> Vec<&str> {
    page.children.iter().map(|child| child.name.as_str()).collect()
}

/// The value in an answer.
pub fn data(response: &v1::Response) -> &[u8] {
    match &response.result {
        Some(Answer::Get(get)) => get.data.as_deref().unwrap_or_default(),
        other => panic!("no value but {other:?}"),
    }
}

/// The code of the error in an answer.
pub fn error(response: &v1::Response) -> v1::ErrorCode {
    match &response.result {
        Some(Answer::Error(e)) => e.code(),
        other => panic!("no error but {other:?}"),
    }
}

pub fn is_ok(response: &v1::Response) -> bool {
    !matches!(&response.result, Some(Answer::Error(_)) | None)
}
