//! A fake ensemble: several gRPC servers over one tree in memory, each in a runtime of its own so that it can be
//! killed with all its connections.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use api::{
    ErrorCode, Expected, MultiOp, MultiOutcome, OpError, Path, PeerId, Read, ReadLevel, ReadOutcome,
    SessionId, SessionToken, Stat, Write, WriteNumber, WriteOutcome, Zxid,
    ports::Role,
    session::{self, Item, Op, Opened, Outcome},
};
use bytes::Bytes;
use proto::{
    client::{self as wire, NodeStatus, to_status},
    v1::{
        self,
        coordination_server::{Coordination, CoordinationServer},
        node_server::{Node, NodeServer},
    },
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

/// What the servers share.
pub(super) struct World {
    state: Mutex<State>,
    /// While true, servers carry requests out but keep the answers to themselves.
    pub(super) silent: watch::Sender<bool>,
    /// How many writes have been carried out.
    pub(super) written: watch::Sender<usize>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) sessions: BTreeMap<SessionId, Session>,
    tree: BTreeMap<Path, Bytes>,
    /// Values of the sets, in order.
    pub(super) sets: Vec<Bytes>,
    /// Of the reads, in order.
    pub(super) levels: Vec<ReadLevel>,
    zxid: u64,
}

#[derive(Default)]
pub(super) struct Session {
    results: Vec<session::Response>,
    pub(super) acked: u64,
}

impl World {
    pub(super) fn new() -> Arc<World> {
        Arc::new(World {
            state: Mutex::default(),
            silent: watch::channel(false).0,
            written: watch::channel(0).0,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn open(&self, open: session::Open, node: PeerId) -> Result<Opened, OpError> {
        let mut state = self.state();
        let session = match open.resume {
            Some((id, token)) if state.sessions.contains_key(&id) => {
                assert_eq!(token, token_of(id));
                id
            }
            Some((id, _)) => return Err(OpError::SessionExpired(id)),
            None => {
                state.zxid += 1;
                let id = SessionId(state.zxid);
                state.sessions.insert(id, Session::default());
                id
            }
        };
        Ok(Opened {
            session,
            token: token_of(session),
            timeout_ms: open.timeout_ms,
            node,
            leaderless: false,
            resumed: open.resume.is_some(),
            zxid: Zxid(state.zxid),
            last_write: WriteNumber(state.sessions[&session].results.len() as u64),
            level: api::Level::FIRST,
            limits: Default::default(),
            identities: Default::default(),
            ensemble: None,
            read_only: false,
        })
    }

    fn respond(&self, id: SessionId, request: session::Request) -> Result<session::Response, OpError> {
        let mut state = self.state();
        let xid = request.xid;
        let zxid = Zxid(state.zxid);
        let answer = |result| session::Response { xid, zxid, result, leaderless: false };
        if !state.sessions.contains_key(&id) {
            return Err(OpError::SessionExpired(id));
        }
        Ok(match request.op {
            Op::Write(write) => {
                let number = request.number.unwrap();
                return self.write(&mut state, id, xid, number, write);
            }
            Op::Read(read, level) => {
                state.levels.push(level);
                answer(state.read(&read).map(Outcome::Read))
            }
            Op::MultiRead(reads, _) => {
                answer(Ok(Outcome::MultiRead(reads.iter().map(|read| state.read(read)).collect())))
            }
            Op::Walk(_) => panic!("walks are calls"),
            Op::Sync => answer(Ok(Outcome::Sync)),
            Op::AddWatches(_) => answer(Ok(Outcome::Watching(Vec::new()))),
            Op::CancelWatches(_) => answer(Ok(Outcome::Cancelled(Vec::new()))),
            Op::Ephemerals { .. } => answer(Ok(Outcome::Ephemerals { paths: Vec::new(), more: false })),
            Op::Authenticate(all) => answer(Ok(Outcome::Authenticated(all))),
            Op::WhoAmI => answer(Ok(Outcome::WhoAmI(Default::default()))),
            Op::Ping => answer(Ok(Outcome::Ping)),
            Op::Close => {
                state.sessions.remove(&id);
                answer(Ok(Outcome::Close))
            }
            Op::Invalid(error) => return Err(error),
        })
    }

    fn write(
        &self,
        state: &mut State,
        id: SessionId,
        xid: u64,
        number: WriteNumber,
        write: Write,
    ) -> Result<session::Response, OpError> {
        let due = state.sessions[&id].results.len() as u64 + 1;
        if number.0 > due {
            return Err(OpError::OutOfOrder { expected: WriteNumber(due), got: number });
        }
        if number.0 == due {
            state.zxid += 1;
            let result = state.apply(write).map(Outcome::Write);
            let response = session::Response { xid, zxid: Zxid(state.zxid), result, leaderless: false };
            state.sessions.get_mut(&id).unwrap().results.push(response);
            self.written.send_modify(|n| *n += 1);
        }
        let kept = &state.sessions[&id].results[number.0 as usize - 1];
        Ok(session::Response { xid, ..kept.clone() })
    }
}

impl State {
    fn apply(&mut self, write: Write) -> Result<WriteOutcome, OpError> {
        match write {
            Write::Create(create) if create.data_len() > DATA_MAX => {
                Err(OpError::TooLarge { size: create.data_len() as u64, limit: DATA_MAX as u64 })
            }
            Write::Create(create) => {
                let mut path = create.path;
                if create.sequential {
                    path = path.with_suffix(&format!("{:010}", self.tree.len())).unwrap();
                }
                if self.tree.contains_key(&path) {
                    return Err(OpError::NodeExists(path));
                }
                self.tree.insert(path.clone(), create.data.unwrap());
                let stat = self.stat(&path)?;
                Ok(WriteOutcome::Created { path, stat })
            }
            Write::Set { path, data, version } => {
                if let Some(expected) = version.and_then(Expected::version) {
                    return Err(OpError::BadVersion { path, expected, actual: 0 });
                }
                self.stat(&path)?;
                let data = data.unwrap();
                self.tree.insert(path.clone(), data.clone());
                self.sets.push(data);
                Ok(WriteOutcome::Set { stat: self.stat(&path)? })
            }
            Write::Delete { path, .. } => {
                self.tree.remove(&path).map(|_| WriteOutcome::Deleted).ok_or(OpError::NoNode(path))
            }
            Write::SetAcl { .. } | Write::DeleteTree(_) | Write::SetQuota { .. } => {
                panic!("{write:?} is beyond this fake")
            }
            Write::Multi(ops) => {
                let part = |(index, op)| match op {
                    MultiOp::Check { path, .. } => match self.stat(&path) {
                        Ok(_) => Ok(MultiOutcome::Checked),
                        Err(cause) => Err(OpError::Multi { index: index as u32, cause: Box::new(cause) }),
                    },
                    other => panic!("{other:?} is beyond this fake"),
                };
                ops.into_iter().enumerate().map(part).collect::<Result<_, _>>().map(WriteOutcome::Multi)
            }
        }
    }

    fn read(&self, read: &Read) -> Result<ReadOutcome, OpError> {
        let path = read.path();
        Ok(match read {
            Read::Exists { .. } => ReadOutcome::Exists { stat: self.stat(path).ok() },
            Read::Get { .. } => {
                ReadOutcome::Data { stat: self.stat(path)?, data: Some(self.tree[path].clone()) }
            }
            Read::Acl { .. } | Read::Count { .. } | Read::Quotas { .. } => {
                panic!("{read:?} is beyond this fake")
            }
            Read::Children { page, .. } => {
                let children = self.tree.keys().filter(|child| child.parent().as_ref() == Some(path));
                let names = children.map(|child| child.name().to_owned());
                let mut names: Vec<String> = names.filter(|name| *name > page.after).collect();
                let next = names.get(page.names_max()..).filter(|rest| !rest.is_empty());
                let next = next.and_then(|_| names.get(page.names_max() - 1)).cloned().unwrap_or_default();
                names.truncate(page.names_max());
                ReadOutcome::Children { names, next, stat: Stat::default() }
            }
        })
    }

    fn stat(&self, path: &Path) -> Result<Stat, OpError> {
        let data = self.tree.get(path).ok_or_else(|| OpError::NoNode(path.clone()))?;
        Ok(Stat { data_length: data.len() as u32, ..Stat::default() })
    }
}

fn token_of(id: SessionId) -> SessionToken {
    SessionToken([id.0 as u8; 16])
}

/// One server. Killed when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    pub(super) fn start(world: &Arc<World>, node: u32) -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Fake { world: Arc::clone(world), node: PeerId(node) };
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .add_service(CoordinationServer::new(fake.clone()))
                .add_service(NodeServer::new(fake))
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
                .await
                .unwrap();
        });
        Server { address, runtime: Some(runtime) }
    }

    pub(super) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Tears all connections, as kill -9 does.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Clone)]
struct Fake {
    world: Arc<World>,
    node: PeerId,
}

impl Fake {
    /// Serves one stream to its end; returns why it ended.
    async fn serve(
        &self,
        mut requests: Streaming<v1::SessionRequest>,
        responses: mpsc::Sender<Result<v1::SessionResponse, Status>>,
    ) -> Result<(), OpError> {
        let mut session = None;
        while let Ok(Some(message)) = requests.message().await {
            let mut response = v1::SessionResponse::default();
            if let Some(open) = message.open {
                let open = wire::OpenSession::try_from(open)?.open;
                let opened = self.world.open(open, self.node)?;
                session = Some(opened.session);
                response.items.extend(wire::item_to_wire(Item::Opened(opened)));
            }
            let Some(session) = session else { panic!("a message before the session was open") };
            if let Some(session) = self.world.state().sessions.get_mut(&session) {
                session.acked = session.acked.max(message.acked_write);
            }
            for request in message.requests {
                response.confirmed_xid = request.xid;
                let answer = self.world.respond(session, wire::request(request))?;
                response.items.extend(wire::item_to_wire(Item::Response(answer)));
            }
            let _ = self.world.silent.subscribe().wait_for(|silent| !silent).await;
            if responses.send(Ok(response)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The client uses the stream only.
macro_rules! unused {
    ($($verb:ident: $request:ident => $response:ident,)+) => {
        #[tonic::async_trait]
        impl Coordination for Fake {
            type SessionStream = ReceiverStream<Result<v1::SessionResponse, Status>>;
            type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;
            type WalkStream = ReceiverStream<Result<v1::WalkResponse, Status>>;

            async fn session(
                &self,
                request: Request<Streaming<v1::SessionRequest>>,
            ) -> Result<Response<Self::SessionStream>, Status> {
                let (responses, stream) = mpsc::channel(16);
                let fake = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = fake.serve(request.into_inner(), responses.clone()).await {
                        let _ = responses.send(Err(to_status(&error))).await;
                    }
                });
                Ok(Response::new(ReceiverStream::new(stream)))
            }

            async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                Err(unused())
            }

            async fn walk(&self, _: Request<v1::WalkRequest>) -> Result<Response<Self::WalkStream>, Status> {
                Err(unused())
            }

            $(async fn $verb(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(unused())
            })+
        }
    };
}

unused! {
    create: CreateRequest => CreateResponse,
    set: SetRequest => SetResponse,
    delete: DeleteRequest => DeleteResponse,
    delete_tree: DeleteTreeRequest => DeleteTreeResponse,
    multi: MultiRequest => MultiResponse,
    set_acl: SetAclRequest => SetAclResponse,
    set_quota: SetQuotaRequest => SetQuotaResponse,
    list_quotas: ListQuotasRequest => ListQuotasResponse,
    get: GetRequest => GetResponse,
    exists: ExistsRequest => ExistsResponse,
    children: ChildrenRequest => ChildrenResponse,
    count_tree: CountTreeRequest => CountTreeResponse,
    multi_read: MultiReadRequest => MultiReadResponse,
    get_acl: GetAclRequest => GetAclResponse,
    sync: SyncRequest => SyncResponse,
    who_am_i: WhoAmIRequest => WhoAmIResponse,
}

#[tonic::async_trait]
impl Node for Fake {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(node_status(self.node).into()))
    }
}

/// A node's status without the client API.
pub(super) fn node_service(world: &Arc<World>) -> NodeServer<impl Node> {
    NodeServer::new(Fake { world: Arc::clone(world), node: PeerId(1) })
}

pub(super) fn node_status(id: PeerId) -> NodeStatus {
    NodeStatus {
        id,
        ensemble: "fake".into(),
        role: Role::Leading,
        serving: true,
        leader: Some(id),
        epoch: api::Epoch(1),
        zxid: Zxid(3),
        committed: Zxid(2),
        applied: Zxid(1),
        sessions: 4,
        znodes: 5,
        digest: 6,
        uptime: Duration::from_millis(7),
        version: "1".into(),
        members: Vec::new(),
        disk: api::ports::Room::Ample,
        ensemble_id: None,
        peers: Vec::new(),
        clock_offset_ms: None,
        plaintext_ports: Vec::new(),
        watches: 0,
        connections: 0,
        load: Default::default(),
    }
}

fn unused() -> Status {
    Status::unimplemented(ErrorCode::Internal.as_str())
}

pub(super) const DATA_MAX: usize = 1 << 20;
