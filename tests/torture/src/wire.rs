//! Clients that speak ZooKeeper's protocol to the gateways of the nodes. They pipeline, take their session up on another
//! node when a connection breaks, and leave open whether a write without an answer was carried out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use api::{
    Create, Expected, MultiOp, MultiOutcome, NodeKind, OpError, Path, PeerId, Read, ReadLevel, ReadOutcome,
    SessionId, Stat, Write, WriteOutcome, Zxid,
};
use bytes::{Bytes, BytesMut};
use history::{Call, Operation, Outcome, UNTOLD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use zk_jute::{
    Body, Code, ConnectRequest, ConnectResponse, Frames, MultiResult, PASSWORD, ReplyHeader, Request, Shape,
    xid,
};

use crate::operations::{Board, Choice, Chooser};

/// The operations of one client.
pub(crate) type Operations = Arc<Mutex<Vec<Operation>>>;

pub(crate) struct Wire {
    pub(crate) number: u32,
    /// Where the nodes listen for clients of ZooKeeper.
    pub(crate) nodes: Vec<(u16, PeerId)>,
    /// Where the clock of all clients starts.
    pub(crate) start: Instant,
    pub(crate) operations: Operations,
    pub(crate) chooser: Chooser,
    pub(crate) board: Arc<Board>,
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) answered: Arc<AtomicU64>,
}

/// What lasts longer than a connection.
#[derive(Default)]
struct Session {
    id: i64,
    password: [u8; PASSWORD],
    /// The greatest zxid in an answer, of any session.
    seen: i64,
}

struct Connection {
    stream: TcpStream,
    frames: Frames,
    node: PeerId,
    xid: i32,
    /// What has no answer yet: its number and its place among the operations.
    asked: VecDeque<(i32, usize, Option<usize>)>,
}

impl Wire {
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut session = Session::default();
        let mut turn = usize::try_from(self.number).unwrap_or(0);
        while !*self.stopped.borrow() {
            turn += 1;
            let (port, node) = self.nodes[turn % self.nodes.len()];
            match connect(port, node, &mut session).await {
                Ok(mut connection) => {
                    // Whatever breaks it, the next one goes on.
                    let _ = self.converse(&mut connection, &mut session).await;
                    self.give_up(connection);
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        Ok(())
    }

    /// Asks and takes answers until the end of the run.
    async fn converse(&mut self, connection: &mut Connection, session: &mut Session) -> Result<()> {
        while !*self.stopped.borrow() {
            let mut out = BytesMut::new();
            for _ in 0..self.chooser.chance().between(1, WINDOW) {
                let Choice { calls, key } = self.chooser.next(&self.board)?;
                for call in calls.into_iter().flat_map(spoken) {
                    self.ask(call, key, connection, session, &mut out);
                }
            }
            timeout(ANSWERS_WITHIN, connection.stream.write_all(&out)).await??;
            // Sometimes the next burst overtakes the last answers of this one.
            let left = usize::try_from(self.chooser.chance().below(3)).unwrap_or(0);
            self.take_answers(connection, session, left).await?;
            let pause = self.chooser.chance().millis(0..60);
            sleep(pause).await;
        }
        self.take_answers(connection, session, 0).await?;
        let mut out = BytesMut::new();
        Request::CloseSession.encode(i32::MAX, &mut out);
        timeout(ANSWERS_WITHIN, connection.stream.write_all(&out)).await??;
        timeout(ANSWERS_WITHIN, connection.frame()).await??;
        Ok(())
    }

    fn ask(
        &self,
        call: Call,
        key: Option<usize>,
        connection: &mut Connection,
        session: &Session,
        out: &mut BytesMut,
    ) {
        connection.xid += 1;
        request(&call).encode(connection.xid, out);
        let operation = Operation {
            client: self.number,
            session: Some(SessionId(session.id.cast_unsigned())),
            unary: false,
            node: Some(connection.node),
            called: self.now(),
            returned: None,
            call,
            outcome: Outcome::Unknown,
        };
        let mut operations = self.operations();
        connection.asked.push_back((connection.xid, operations.len(), key));
        operations.push(operation);
    }

    /// Until only this many are left.
    async fn take_answers(
        &self,
        connection: &mut Connection,
        session: &mut Session,
        left: usize,
    ) -> Result<()> {
        while connection.asked.len() > left {
            let frame = timeout(ANSWERS_WITHIN, connection.frame()).await??;
            let (header, body) = ReplyHeader::decode(frame)?;
            if header.xid == xid::PING {
                continue;
            }
            let Some((xid, index, key)) = connection.asked.pop_front() else { bail!("an answer to nothing") };
            if header.xid != xid {
                bail!("an answer to {} where {xid} is next", header.xid);
            }
            session.seen = session.seen.max(header.zxid);
            let returned = self.now();
            let mut operations = self.operations();
            let Some(operation) = operations.get_mut(index) else { bail!("no such operation") };
            let shape = Shape::of(request(&operation.call).code());
            let body = header.body(shape, body)?;
            operation.returned = Some(returned);
            operation.outcome = outcome(&operation.call, header, body);
            let outcome = operation.outcome.clone();
            drop(operations);
            self.board.note(key, &outcome);
            self.answered.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// The connection is over: what it has not answered never will be.
    fn give_up(&self, connection: Connection) {
        let now = self.now();
        let mut operations = self.operations();
        for (_, index, _) in connection.asked {
            if let Some(operation) = operations.get_mut(index) {
                operation.returned = Some(now);
                if !matches!(operation.call, Call::Write(_)) {
                    operation.outcome = Outcome::Refused(OpError::Unavailable("the connection broke".into()));
                }
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the clients have asked so far.
pub(crate) fn take(operations: &Operations) -> Vec<Operation> {
    std::mem::take(&mut *operations.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn connect(port: u16, node: PeerId, session: &mut Session) -> Result<Connection> {
    let stream = timeout(CONNECTS_WITHIN, TcpStream::connect(("127.0.0.1", port))).await??;
    stream.set_nodelay(true)?;
    let frames = Frames::new(16 << 20);
    let mut connection = Connection { stream, frames, node, xid: 0, asked: VecDeque::new() };
    let mut hello = BytesMut::new();
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: session.seen,
        timeout_ms: TIMEOUT_MS,
        session_id: session.id,
        password: Some(Bytes::copy_from_slice(&session.password)),
        read_only: Some(false),
    }
    .encode(&mut hello);
    timeout(CONNECTS_WITHIN, connection.stream.write_all(&hello)).await??;
    let opened = timeout(ANSWERS_WITHIN, connection.frame()).await??;
    let opened = ConnectResponse::decode(opened)?;
    (session.id, session.password) = (opened.session_id, opened.password);
    if session.id == 0 {
        bail!("the session has expired");
    }
    Ok(connection)
}

impl Connection {
    async fn frame(&mut self) -> Result<Bytes> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(frame);
            }
            let n = self.stream.read_buf(self.frames.buffer()).await.context("the connection broke")?;
            if n == 0 {
                bail!("the node closed the connection");
            }
        }
    }
}

/// The same in ZooKeeper's protocol, which has no linearizable read but sync and a read, and no pages of children.
fn spoken(call: Call) -> Vec<Call> {
    match call {
        Call::Read(read, ReadLevel::Linearizable) => vec![Call::Sync, Call::Read(read, ReadLevel::Local)],
        Call::Read(Read::Children { path, .. }, level) => vec![Call::Read(Read::Exists { path }, level)],
        call => vec![call],
    }
}

fn request(call: &Call) -> Request {
    match call {
        Call::Write(Write::Create(create)) => Request::Create2 { create: create_to_wire(create) },
        Call::Write(Write::Set { path, data, version }) => {
            Request::SetData { path: text(path), data: data.clone(), version: version_of(*version) }
        }
        Call::Write(Write::Delete { path, version }) => {
            Request::Delete { path: text(path), version: version_of(*version) }
        }
        Call::Write(Write::Multi(parts)) => Request::Multi(parts.iter().map(part).collect()),
        Call::Read(Read::Exists { path }, _) => Request::Exists { path: text(path), watch: false },
        Call::Read(Read::Get { path }, _) => Request::GetData { path: text(path), watch: false },
        // The chooser makes no others.
        Call::Sync | Call::Write(_) | Call::Read(..) => Request::Sync { path: "/".to_owned() },
    }
}

fn part(part: &MultiOp) -> Request {
    match part {
        MultiOp::Create(create) => Request::Create2 { create: create_to_wire(create) },
        MultiOp::Set { path, data, version } => {
            Request::SetData { path: text(path), data: data.clone(), version: version_of(*version) }
        }
        MultiOp::Delete { path, version } => {
            Request::Delete { path: text(path), version: version_of(*version) }
        }
        MultiOp::Check { path, version } => {
            Request::Check { path: text(path), version: version_of(*version) }
        }
        // The chooser makes no others; such a request would be refused.
        MultiOp::SetAcl { .. } | MultiOp::CheckAbsent { .. } => Request::Ping,
    }
}

fn create_to_wire(create: &Create) -> zk_jute::Create {
    let flags = i32::from(create.kind == NodeKind::Ephemeral) | i32::from(create.sequential) << 1;
    let anyone = zk_jute::Id { scheme: "world".to_owned(), id: "anyone".to_owned() };
    let acl = Some(vec![zk_jute::Acl { perms: 31, id: anyone }]);
    zk_jute::Create { path: text(&create.path), data: create.data.clone(), acl, flags }
}

fn text(path: &Path) -> String {
    path.as_str().to_owned()
}

fn version_of(expected: Option<Expected>) -> i32 {
    match expected {
        Some(Expected::Version(version)) => version,
        _ => -1,
    }
}

/// What an answer means for its call.
fn outcome(call: &Call, header: ReplyHeader, body: Body) -> Outcome {
    let zxid = Zxid(header.zxid.cast_unsigned());
    let code = Code(header.err);
    match call {
        Call::Write(write) => match written(write, code, body) {
            Some(Ok(outcome)) => Outcome::Written { zxid, result: Ok(outcome) },
            Some(Err(error)) => Outcome::Written { zxid, result: Err(error) },
            // The node has decided this, not the tree.
            None if [Code::QUOTA_EXCEEDED, Code::THROTTLED_OP].contains(&code) => refused(code),
            None => Outcome::Unknown,
        },
        Call::Read(read, _) => match (read, code, body) {
            (Read::Get { .. }, Code::OK, Body::Data(data, stat)) => {
                Outcome::Read { zxid, result: Ok(ReadOutcome::Data { data, stat: stat_of(&stat) }) }
            }
            (Read::Exists { .. }, Code::OK, Body::Stat(stat)) => {
                Outcome::Read { zxid, result: Ok(ReadOutcome::Exists { stat: Some(stat_of(&stat)) }) }
            }
            (Read::Exists { .. }, Code::NO_NODE, _) => {
                Outcome::Read { zxid, result: Ok(ReadOutcome::Exists { stat: None }) }
            }
            (Read::Get { path }, Code::NO_NODE, _) => {
                Outcome::Read { zxid, result: Err(OpError::NoNode(path.clone())) }
            }
            _ => refused(code),
        },
        Call::Sync if code == Code::OK => Outcome::Synced { zxid },
        Call::Sync => refused(code),
    }
}

fn refused(code: Code) -> Outcome {
    Outcome::Refused(OpError::Unavailable(format!("the node answers {}", code.0)))
}

/// `None`: the tree has not decided this.
fn written(write: &Write, code: Code, body: Body) -> Option<Result<WriteOutcome, OpError>> {
    let created = |path: &str, stat: &zk_jute::Stat| Some((Path::new(path).ok()?, stat_of(stat)));
    Some(match (write, code, body) {
        (Write::Create(_), Code::OK, Body::PathStat(path, stat)) => {
            let (path, stat) = created(&path, &stat)?;
            Ok(WriteOutcome::Created { path, stat })
        }
        (Write::Set { .. }, Code::OK, Body::Stat(stat)) => Ok(WriteOutcome::Set { stat: stat_of(&stat) }),
        (Write::Delete { .. }, Code::OK, _) => Ok(WriteOutcome::Deleted),
        (Write::Multi(parts), Code::OK, Body::Multi(results)) => {
            let fault = |result: &MultiResult| match result {
                // Parts that would have been fine, or were not tried.
                MultiResult::Error(Code::OK | Code::RUNTIME_INCONSISTENCY) => None,
                MultiResult::Error(code) => Some(*code),
                _ => None,
            };
            if let Some(index) = results.iter().position(|result| fault(result).is_some()) {
                let cause = multi_error(parts.get(index)?, fault(&results[index])?)?;
                return Some(Err(OpError::Multi { index: u32::try_from(index).ok()?, cause: cause.into() }));
            }
            let outcomes = results.into_iter().map(|result| {
                Some(match result {
                    MultiResult::Create2(path, stat) => {
                        let (path, stat) = created(&path, &stat)?;
                        MultiOutcome::Created { path, stat }
                    }
                    MultiResult::SetData(stat) => MultiOutcome::Set { stat: stat_of(&stat) },
                    MultiResult::Delete => MultiOutcome::Deleted,
                    MultiResult::Check => MultiOutcome::Checked,
                    _ => return None,
                })
            });
            Ok(WriteOutcome::Multi(outcomes.collect::<Option<_>>()?))
        }
        (Write::Create(create), code, _) => Err(create_error(create, code)?),
        (Write::Set { path, version, .. } | Write::Delete { path, version }, code, _) => {
            Err(change_error(path, *version, code)?)
        }
        _ => return None,
    })
}

fn multi_error(part: &MultiOp, code: Code) -> Option<OpError> {
    match part {
        MultiOp::Create(create) => create_error(create, code),
        MultiOp::Set { path, version, .. }
        | MultiOp::Delete { path, version }
        | MultiOp::Check { path, version } => change_error(path, *version, code),
        MultiOp::SetAcl { .. } | MultiOp::CheckAbsent { .. } => None,
    }
}

fn create_error(create: &Create, code: Code) -> Option<OpError> {
    match code {
        Code::NO_NODE => Some(OpError::NoNode(create.path.parent()?)),
        Code::NODE_EXISTS => Some(OpError::NodeExists(create.path.clone())),
        _ => None,
    }
}

fn change_error(path: &Path, version: Option<Expected>, code: Code) -> Option<OpError> {
    let path = path.clone();
    match code {
        Code::NO_NODE => Some(OpError::NoNode(path)),
        Code::BAD_VERSION => {
            Some(OpError::BadVersion { path, expected: version_of(version), actual: UNTOLD })
        }
        _ => None,
    }
}

/// These clients make no other kinds of znodes.
fn stat_of(stat: &zk_jute::Stat) -> Stat {
    let zxid = |zxid: i64| Zxid(zxid.cast_unsigned());
    let number = |n: i32| u32::try_from(n).unwrap_or(u32::MAX);
    let owner = (stat.ephemeral_owner != 0).then(|| SessionId(stat.ephemeral_owner.cast_unsigned()));
    Stat {
        czxid: zxid(stat.czxid),
        mzxid: zxid(stat.mzxid),
        pzxid: zxid(stat.pzxid),
        ctime_ms: stat.ctime,
        mtime_ms: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        kind: if owner.is_some() { NodeKind::Ephemeral } else { NodeKind::Persistent },
        ephemeral_owner: owner,
        data_length: number(stat.data_length),
        num_children: number(stat.num_children),
    }
}

/// Calls of one burst.
const WINDOW: u64 = 16;

/// Of the session.
const TIMEOUT_MS: i32 = 4_000;

/// As ZooKeeper's own clients: after two thirds of the time-out without a word they try another server.
const ANSWERS_WITHIN: Duration = Duration::from_millis(2_667);

const CONNECTS_WITHIN: Duration = Duration::from_secs(1);
