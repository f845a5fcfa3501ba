//! The client API: requests, responses, errors and statuses of `quorate.v1`, to and from the words of `api`.
//!
//! Requests are checked here and nowhere else: an [`Op`] has valid paths, versions of at least 0 and a write number
//! where one is due. Values are [`bytes::Bytes`] on both sides and are never copied.

mod error;
mod node;

use api::{
    Create, MultiOp, MultiOutcome, NodeKind, OpError, Page, Path, PeerId, Read, ReadLevel, ReadOutcome,
    SessionId, SessionToken, Stat, Trace, Write, WriteNumber, WriteOutcome, Zxid,
};

pub use error::{details, from_status, to_status};
pub use node::{NodeMember, NodeStatus};

use crate::{Malformed, v1};

/// Largest gRPC message between a client and a node, either way: what the libraries of other languages take by default.
pub const MESSAGE_MAX: usize = 4 << 20;

/// What one request on a session stream asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A change, with the session's number for it, at least 1.
    Write {
        /// The same whenever the write is sent again.
        number: WriteNumber,
        /// What to change.
        write: Write,
    },
    /// A question to the node that is asked, and how fresh the answer has to be.
    Read(Read, ReadLevel),
    /// A barrier for later reads.
    Sync,
    /// A sign of life.
    Ping,
    /// The end of the session.
    Close,
}

/// One request on a session stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// The client's number for it; comes back with the response.
    pub xid: u64,
    /// What is asked.
    pub op: Op,
    /// The span of the client that it is part of, sampled or not.
    pub trace: Trace,
}

/// What a request on a session stream led to, if not to an error.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Of [`Op::Write`].
    Write(WriteOutcome),
    /// Of [`Op::Read`].
    Read(ReadOutcome),
    /// Of [`Op::Sync`].
    Sync,
    /// Of [`Op::Ping`].
    Ping,
    /// Of [`Op::Close`].
    Close,
}

/// The answer to one request on a session stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Response {
    /// From the request.
    pub xid: u64,
    /// Of a write: its place in the order. Of a read: how far the node had applied.
    pub zxid: Zxid,
    /// What came of it.
    pub result: Result<Outcome, OpError>,
    /// The node has no leader at the moment: nobody but it has heard from the session.
    pub leaderless: bool,
}

/// The wish to open a session, or to take one up again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpenSession {
    /// `None` for a new one.
    pub resume: Option<(SessionId, SessionToken)>,
    /// After so much silence the ensemble is to close it; not clamped yet.
    pub timeout_ms: u32,
    /// The greatest zxid that the client has seen.
    pub last_zxid: Zxid,
}

/// A session is open on this stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionOpened {
    /// Which one.
    pub session: SessionId,
    /// The secret for taking it up again.
    pub token: SessionToken,
    /// The time-out in force.
    pub timeout_ms: u32,
    /// The node that answers.
    pub node: PeerId,
    /// The node has no leader at the moment: nobody but it has heard from the session.
    pub leaderless: bool,
}

/// Refuses what only a session can ask for, as unary calls must: ephemerals.
///
/// # Errors
/// [`OpError::BadArguments`] if the write makes an ephemeral.
pub fn sessionless(write: Write) -> Result<Write, OpError> {
    let ephemeral = match &write {
        Write::Create(create) => create.kind == NodeKind::Ephemeral,
        Write::Multi(ops) => {
            ops.iter().any(|op| matches!(op, MultiOp::Create(c) if c.kind == NodeKind::Ephemeral))
        }
        Write::Set { .. } | Write::Delete { .. } => false,
    };
    if ephemeral {
        return Err(bad(
            "an ephemeral lives with a session and a unary call has none; use the Session stream",
        ));
    }
    Ok(write)
}

// ---- requests off the wire ----

impl TryFrom<v1::Request> for Request {
    type Error = OpError;

    fn try_from(wire: v1::Request) -> Result<Request, OpError> {
        use v1::request::Op as Wire;
        let op = match wire.op {
            Some(Wire::Create(r)) => numbered(wire.write_number, r.try_into()?)?,
            Some(Wire::Set(r)) => numbered(wire.write_number, r.try_into()?)?,
            Some(Wire::Delete(r)) => numbered(wire.write_number, r.try_into()?)?,
            Some(Wire::Multi(r)) => numbered(wire.write_number, r.try_into()?)?,
            Some(Wire::Get(r)) => read(r)?,
            Some(Wire::Exists(r)) => read(r)?,
            Some(Wire::Children(r)) => read(r)?,
            Some(Wire::Sync(_)) => Op::Sync,
            Some(Wire::Ping(_)) => Op::Ping,
            Some(Wire::Close(_)) => Op::Close,
            None => {
                return Err(bad(
                    "Request.op is missing, or newer than this server; set create, set, delete, multi, get, exists, \
                     children, sync, ping or close",
                ));
            }
        };
        // A number on anything else would leave a hole in front of the next write, to be found out only there.
        if wire.write_number != 0 && !matches!(op, Op::Write { .. }) {
            return Err(bad("Request.write_number is set, but this is no write; number writes only"));
        }
        Ok(Request { xid: wire.xid, op, trace: traceparent(&wire.traceparent) })
    }
}

/// The span that a client says its request is part of. What is malformed counts as not said, as W3C wants it.
#[must_use]
pub fn traceparent(text: &str) -> Trace {
    if text.is_empty() { None } else { text.parse().ok().map(Box::new) }
}

fn numbered(number: u64, write: Write) -> Result<Op, OpError> {
    if number == 0 {
        return Err(bad(
            "Request.write_number is missing; number the writes of a session 1, 2, 3 ... without a gap",
        ));
    }
    Ok(Op::Write { number: WriteNumber(number), write })
}

fn read(r: impl TryInto<(Read, ReadLevel), Error = OpError>) -> Result<Op, OpError> {
    r.try_into().map(|(read, level)| Op::Read(read, level))
}

impl TryFrom<v1::CreateRequest> for Create {
    type Error = OpError;

    fn try_from(r: v1::CreateRequest) -> Result<Create, OpError> {
        let kind = if r.ephemeral { NodeKind::Ephemeral } else { NodeKind::Persistent };
        let path = if r.sequential { Path::prefix(&r.path)? } else { Path::new(&r.path)? };
        Ok(Create { kind, sequential: r.sequential, ..Create::new(path, r.data) })
    }
}

impl TryFrom<v1::CreateRequest> for Write {
    type Error = OpError;

    fn try_from(r: v1::CreateRequest) -> Result<Write, OpError> {
        r.try_into().map(Write::Create)
    }
}

impl TryFrom<v1::SetRequest> for Write {
    type Error = OpError;

    fn try_from(r: v1::SetRequest) -> Result<Write, OpError> {
        Ok(Write::Set { path: Path::new(&r.path)?, version: version(r.version)?, data: Some(r.data) })
    }
}

impl TryFrom<v1::DeleteRequest> for Write {
    type Error = OpError;

    fn try_from(r: v1::DeleteRequest) -> Result<Write, OpError> {
        Ok(Write::Delete { path: Path::new(&r.path)?, version: version(r.version)? })
    }
}

impl TryFrom<v1::MultiRequest> for Write {
    type Error = OpError;

    /// A fault of one part is [`OpError::Multi`] with its index.
    fn try_from(r: v1::MultiRequest) -> Result<Write, OpError> {
        let part = |(index, op)| {
            MultiOp::try_from(op).map_err(|cause| OpError::Multi {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                cause: Box::new(cause),
            })
        };
        r.ops.into_iter().enumerate().map(part).collect::<Result<_, _>>().map(Write::Multi)
    }
}

impl TryFrom<v1::MultiOp> for MultiOp {
    type Error = OpError;

    fn try_from(op: v1::MultiOp) -> Result<MultiOp, OpError> {
        use v1::multi_op::Op as Wire;
        Ok(match op.op {
            Some(Wire::Create(r)) => MultiOp::Create(r.try_into()?),
            Some(Wire::Set(r)) => {
                MultiOp::Set { path: Path::new(&r.path)?, version: version(r.version)?, data: Some(r.data) }
            }
            Some(Wire::Delete(r)) => {
                MultiOp::Delete { path: Path::new(&r.path)?, version: version(r.version)? }
            }
            Some(Wire::Check(r)) => {
                MultiOp::Check { path: Path::new(&r.path)?, version: version(r.version)? }
            }
            None => {
                return Err(bad(
                    "MultiOp.op is missing, or newer than this server; set create, set, delete or check",
                ));
            }
        })
    }
}

impl TryFrom<v1::GetRequest> for (Read, ReadLevel) {
    type Error = OpError;

    fn try_from(r: v1::GetRequest) -> Result<(Read, ReadLevel), OpError> {
        Ok((Read::Get { path: Path::new(&r.path)? }, level(r.read)?))
    }
}

impl TryFrom<v1::ExistsRequest> for (Read, ReadLevel) {
    type Error = OpError;

    fn try_from(r: v1::ExistsRequest) -> Result<(Read, ReadLevel), OpError> {
        Ok((Read::Exists { path: Path::new(&r.path)? }, level(r.read)?))
    }
}

impl TryFrom<v1::ChildrenRequest> for (Read, ReadLevel) {
    type Error = OpError;

    fn try_from(r: v1::ChildrenRequest) -> Result<(Read, ReadLevel), OpError> {
        let size = u32::try_from(r.page_size)
            .map_err(|_| bad("page_size is negative; set 0, or the number of names that you want"))?;
        let page = Page { after: r.page_token, size };
        Ok((Read::Children { path: Path::new(&r.path)?, page }, level(r.read)?))
    }
}

impl TryFrom<v1::OpenSession> for OpenSession {
    type Error = OpError;

    fn try_from(open: v1::OpenSession) -> Result<OpenSession, OpError> {
        let resume = match (open.session_id, <[u8; 16]>::try_from(&open.token[..])) {
            (0, _) if open.token.is_empty() => None,
            (0, _) => {
                return Err(bad(
                    "OpenSession.token without session_id; send both, or neither for a new session",
                ));
            }
            (id, Ok(token)) => Some((SessionId(id), SessionToken(token))),
            (_, Err(_)) => {
                return Err(bad(
                    "OpenSession.token does not have 16 bytes; send the token from SessionOpened",
                ));
            }
        };
        Ok(OpenSession { resume, timeout_ms: open.timeout_ms, last_zxid: Zxid(open.last_zxid) })
    }
}

/// A level that this version does not know is refused: to answer with less than was asked for would be worse.
fn level(read: Option<v1::ReadOptions>) -> Result<ReadLevel, OpError> {
    use v1::ReadLevel as Wire;
    let v1::ReadOptions { level, min_zxid } = read.unwrap_or_default();
    match (Wire::try_from(level), min_zxid) {
        (Ok(Wire::AtLeast), 0) => {
            Err(bad("min_zxid is missing; READ_LEVEL_AT_LEAST needs the zxid that the read has to see"))
        }
        (Ok(Wire::AtLeast), zxid) => Ok(ReadLevel::AtLeast(Zxid(zxid))),
        (Ok(Wire::Unspecified | Wire::Local), 0) => Ok(ReadLevel::Local),
        (Ok(Wire::Linearizable), 0) => Ok(ReadLevel::Linearizable),
        (Ok(Wire::Stale), 0) => Ok(ReadLevel::Stale),
        (Ok(_), _) => Err(bad("min_zxid is set, but the level is another; use READ_LEVEL_AT_LEAST with it")),
        (Err(_), _) => {
            Err(bad("the read level is newer than this server; set READ_LEVEL_LOCAL, READ_LEVEL_AT_LEAST, \
             READ_LEVEL_LINEARIZABLE or READ_LEVEL_STALE"))
        }
    }
}

fn version(version: Option<i32>) -> Result<Option<i32>, OpError> {
    match version {
        Some(v) if v < 0 => Err(OpError::BadArguments(format!(
            "the version {v} is negative; leave it out to match any version"
        ))),
        v => Ok(v),
    }
}

fn bad(what: &str) -> OpError {
    OpError::BadArguments(what.to_owned())
}

// ---- requests onto the wire ----

impl From<Request> for v1::Request {
    fn from(r: Request) -> v1::Request {
        use v1::request::Op as Wire;
        let (write_number, op) = match r.op {
            Op::Write { number, write } => (number.0, write.into()),
            Op::Read(read, level) => (0, (read, level).into()),
            Op::Sync => (0, Wire::Sync(v1::SyncRequest {})),
            Op::Ping => (0, Wire::Ping(v1::Ping {})),
            Op::Close => (0, Wire::Close(v1::CloseSession {})),
        };
        let traceparent = r.trace.map(|context| context.to_string()).unwrap_or_default();
        v1::Request { xid: r.xid, write_number, op: Some(op), traceparent }
    }
}

impl From<Write> for v1::request::Op {
    fn from(write: Write) -> v1::request::Op {
        use v1::request::Op as Wire;
        match write {
            Write::Create(create) => Wire::Create(create.into()),
            Write::Set { path, data, version } => {
                Wire::Set(v1::SetRequest { path: text(&path), data: data.unwrap_or_default(), version })
            }
            Write::Delete { path, version } => Wire::Delete(v1::DeleteRequest { path: text(&path), version }),
            Write::Multi(ops) => {
                Wire::Multi(v1::MultiRequest { ops: ops.into_iter().map(v1::MultiOp::from).collect() })
            }
        }
    }
}

impl From<(Read, ReadLevel)> for v1::request::Op {
    fn from((read, level): (Read, ReadLevel)) -> v1::request::Op {
        use v1::request::Op as Wire;
        let (level, min_zxid) = match level {
            // What is not there takes no room; and everything is behind zero.
            ReadLevel::Local | ReadLevel::AtLeast(Zxid::ZERO) => (v1::ReadLevel::Unspecified, 0),
            ReadLevel::AtLeast(zxid) => (v1::ReadLevel::AtLeast, zxid.0),
            ReadLevel::Linearizable => (v1::ReadLevel::Linearizable, 0),
            ReadLevel::Stale => (v1::ReadLevel::Stale, 0),
        };
        let path = text(read.path());
        let options = v1::ReadOptions { level: level.into(), min_zxid };
        let read_options = (options != v1::ReadOptions::default()).then_some(options);
        match read {
            Read::Get { .. } => Wire::Get(v1::GetRequest { path, read: read_options }),
            Read::Exists { .. } => Wire::Exists(v1::ExistsRequest { path, read: read_options }),
            Read::Children { page, .. } => Wire::Children(v1::ChildrenRequest {
                path,
                read: read_options,
                page_size: i32::try_from(page.size).unwrap_or(i32::MAX),
                page_token: page.after,
            }),
        }
    }
}

impl From<Create> for v1::CreateRequest {
    fn from(create: Create) -> v1::CreateRequest {
        v1::CreateRequest {
            path: text(&create.path),
            data: create.data.unwrap_or_default(),
            ephemeral: create.kind == NodeKind::Ephemeral,
            sequential: create.sequential,
        }
    }
}

impl From<MultiOp> for v1::MultiOp {
    fn from(op: MultiOp) -> v1::MultiOp {
        use v1::multi_op::Op as Wire;
        let op = match op {
            MultiOp::Create(create) => Wire::Create(create.into()),
            MultiOp::Set { path, data, version } => {
                Wire::Set(v1::SetRequest { path: text(&path), data: data.unwrap_or_default(), version })
            }
            MultiOp::Delete { path, version } => {
                Wire::Delete(v1::DeleteRequest { path: text(&path), version })
            }
            MultiOp::Check { path, version } => Wire::Check(v1::CheckRequest { path: text(&path), version }),
        };
        v1::MultiOp { op: Some(op) }
    }
}

impl From<OpenSession> for v1::OpenSession {
    fn from(open: OpenSession) -> v1::OpenSession {
        let (session_id, token) = open
            .resume
            .map(|(id, token)| (id.0, bytes::Bytes::copy_from_slice(&token.0)))
            .unwrap_or_default();
        v1::OpenSession { session_id, token, timeout_ms: open.timeout_ms, last_zxid: open.last_zxid.0 }
    }
}

fn text(path: &Path) -> String {
    path.as_str().to_owned()
}

// ---- responses onto the wire ----

impl From<Response> for v1::Response {
    fn from(r: Response) -> v1::Response {
        use v1::response::Result as Wire;
        let result = match r.result {
            Ok(Outcome::Write(outcome)) => outcome.into(),
            Ok(Outcome::Read(outcome)) => outcome.into(),
            Ok(Outcome::Sync) => Wire::Sync(v1::SyncResponse {}),
            Ok(Outcome::Ping) => Wire::Ping(v1::Ping {}),
            Ok(Outcome::Close) => Wire::Close(v1::CloseSession {}),
            Err(e) => Wire::Error(e.into()),
        };
        v1::Response { xid: r.xid, zxid: r.zxid.0, result: Some(result), leaderless: r.leaderless }
    }
}

impl From<WriteOutcome> for v1::response::Result {
    fn from(outcome: WriteOutcome) -> v1::response::Result {
        use v1::response::Result as Wire;
        match outcome {
            WriteOutcome::Created { path, stat } => Wire::Create(created(&path, stat)),
            WriteOutcome::Set { stat } => Wire::Set(v1::SetResponse { stat: Some(stat.into()) }),
            WriteOutcome::Deleted => Wire::Delete(v1::DeleteResponse {}),
            WriteOutcome::Multi(outcomes) => Wire::Multi(multi(outcomes)),
            WriteOutcome::SessionClosed { .. } => Wire::Close(v1::CloseSession {}),
            // Answered by `SessionResponse.opened`, never by a response.
            WriteOutcome::SessionOpened | WriteOutcome::SessionResumed | WriteOutcome::Checked => {
                Wire::Error(foreign("SessionOpened").into())
            }
        }
    }
}

impl From<ReadOutcome> for v1::response::Result {
    fn from(outcome: ReadOutcome) -> v1::response::Result {
        use v1::response::Result as Wire;
        match outcome {
            ReadOutcome::Data { data, stat } => {
                let data = data.unwrap_or_default();
                Wire::Get(v1::GetResponse { data, stat: Some(stat.into()), as_of: None })
            }
            ReadOutcome::Exists { stat } => {
                Wire::Exists(v1::ExistsResponse { stat: stat.map(v1::Stat::from), as_of: None })
            }
            ReadOutcome::Children { names, next, stat } => Wire::Children(v1::ChildrenResponse {
                children: names.into_iter().map(|name| v1::Child { name }).collect(),
                next_page_token: next,
                stat: Some(stat.into()),
                as_of: None,
            }),
        }
    }
}

/// For unary calls: the one outcome that fits, or [`OpError::Internal`] for any other.
macro_rules! unary_response {
    ($outcome:ty => $response:ty, $variant:ident) => {
        impl TryFrom<$outcome> for $response {
            type Error = OpError;

            fn try_from(outcome: $outcome) -> Result<$response, OpError> {
                match outcome.into() {
                    v1::response::Result::$variant(response) => Ok(response),
                    v1::response::Result::Error(e) => Err(e.into()),
                    _ => Err(foreign(stringify!($variant))),
                }
            }
        }
    };
}

unary_response!(WriteOutcome => v1::CreateResponse, Create);
unary_response!(WriteOutcome => v1::SetResponse, Set);
unary_response!(WriteOutcome => v1::DeleteResponse, Delete);
unary_response!(WriteOutcome => v1::MultiResponse, Multi);
unary_response!(ReadOutcome => v1::GetResponse, Get);
unary_response!(ReadOutcome => v1::ExistsResponse, Exists);
unary_response!(ReadOutcome => v1::ChildrenResponse, Children);

impl From<Stat> for v1::Stat {
    fn from(s: Stat) -> v1::Stat {
        v1::Stat {
            czxid: s.czxid.0,
            mzxid: s.mzxid.0,
            pzxid: s.pzxid.0,
            ctime_ms: s.ctime_ms,
            mtime_ms: s.mtime_ms,
            version: s.version,
            cversion: s.cversion,
            aversion: s.aversion,
            ephemeral_owner: s.ephemeral_owner.map_or(0, |id| id.0),
            data_length: s.data_length,
            num_children: s.num_children,
        }
    }
}

impl From<SessionOpened> for v1::SessionOpened {
    fn from(o: SessionOpened) -> v1::SessionOpened {
        v1::SessionOpened {
            session_id: o.session.0,
            token: bytes::Bytes::copy_from_slice(&o.token.0),
            timeout_ms: o.timeout_ms,
            node_id: o.node.0,
            leaderless: o.leaderless,
        }
    }
}

fn created(path: &Path, stat: Stat) -> v1::CreateResponse {
    v1::CreateResponse { path: text(path), stat: Some(stat.into()) }
}

fn multi(outcomes: Vec<MultiOutcome>) -> v1::MultiResponse {
    use v1::multi_result::Result as Wire;
    let part = |outcome| v1::MultiResult {
        result: Some(match outcome {
            MultiOutcome::Created { path, stat } => Wire::Create(created(&path, stat)),
            MultiOutcome::Set { stat } => Wire::Set(v1::SetResponse { stat: Some(stat.into()) }),
            MultiOutcome::Deleted => Wire::Delete(v1::DeleteResponse {}),
            MultiOutcome::Checked => Wire::Check(v1::CheckResponse {}),
        }),
    };
    v1::MultiResponse { results: outcomes.into_iter().map(part).collect() }
}

fn foreign(what: &str) -> OpError {
    OpError::Internal(format!("an outcome of another kind, where {what} was at stake"))
}

// ---- responses off the wire ----

impl TryFrom<v1::Response> for Response {
    type Error = Malformed;

    fn try_from(r: v1::Response) -> Result<Response, Malformed> {
        use v1::response::Result as Wire;
        let outcome = match r.result {
            Some(Wire::Error(e)) => Err(e.into()),
            Some(Wire::Create(c)) => {
                let (path, stat) = created_off_wire(c)?;
                Ok(Outcome::Write(WriteOutcome::Created { path, stat }))
            }
            Some(Wire::Set(s)) => Ok(Outcome::Write(WriteOutcome::Set { stat: stat(s.stat)? })),
            Some(Wire::Delete(_)) => Ok(Outcome::Write(WriteOutcome::Deleted)),
            Some(Wire::Multi(m)) => {
                let outcomes = m.results.into_iter().map(MultiOutcome::try_from).collect::<Result<_, _>>()?;
                Ok(Outcome::Write(WriteOutcome::Multi(outcomes)))
            }
            Some(Wire::Get(g)) => {
                Ok(Outcome::Read(ReadOutcome::Data { stat: stat(g.stat)?, data: Some(g.data) }))
            }
            Some(Wire::Exists(e)) => Ok(Outcome::Read(ReadOutcome::Exists { stat: e.stat.map(Stat::from) })),
            Some(Wire::Children(c)) => {
                let names = c.children.into_iter().map(|child| child.name).collect();
                let next = c.next_page_token;
                Ok(Outcome::Read(ReadOutcome::Children { names, next, stat: stat(c.stat)? }))
            }
            Some(Wire::Sync(_)) => Ok(Outcome::Sync),
            Some(Wire::Ping(_)) => Ok(Outcome::Ping),
            Some(Wire::Close(_)) => Ok(Outcome::Close),
            None => {
                return Err(Malformed("Response.result is missing, or newer than this client".to_owned()));
            }
        };
        Ok(Response { xid: r.xid, zxid: Zxid(r.zxid), result: outcome, leaderless: r.leaderless })
    }
}

impl TryFrom<v1::MultiResult> for MultiOutcome {
    type Error = Malformed;

    fn try_from(r: v1::MultiResult) -> Result<MultiOutcome, Malformed> {
        use v1::multi_result::Result as Wire;
        Ok(match r.result {
            Some(Wire::Create(c)) => {
                let (path, stat) = created_off_wire(c)?;
                MultiOutcome::Created { path, stat }
            }
            Some(Wire::Set(s)) => MultiOutcome::Set { stat: stat(s.stat)? },
            Some(Wire::Delete(_)) => MultiOutcome::Deleted,
            Some(Wire::Check(_)) => MultiOutcome::Checked,
            None => {
                return Err(Malformed("MultiResult.result is missing, or newer than this client".to_owned()));
            }
        })
    }
}

impl From<v1::Stat> for Stat {
    fn from(s: v1::Stat) -> Stat {
        Stat {
            czxid: Zxid(s.czxid),
            mzxid: Zxid(s.mzxid),
            pzxid: Zxid(s.pzxid),
            ctime_ms: s.ctime_ms,
            mtime_ms: s.mtime_ms,
            version: s.version,
            cversion: s.cversion,
            aversion: s.aversion,
            kind: if s.ephemeral_owner == 0 { NodeKind::Persistent } else { NodeKind::Ephemeral },
            ephemeral_owner: (s.ephemeral_owner != 0).then_some(SessionId(s.ephemeral_owner)),
            data_length: s.data_length,
            num_children: s.num_children,
        }
    }
}

impl TryFrom<v1::SessionOpened> for SessionOpened {
    type Error = Malformed;

    fn try_from(o: v1::SessionOpened) -> Result<SessionOpened, Malformed> {
        let token = <[u8; 16]>::try_from(&o.token[..])
            .map_err(|_| Malformed("SessionOpened.token does not have 16 bytes".to_owned()))?;
        if o.session_id == 0 {
            return Err(Malformed("SessionOpened.session_id is missing".to_owned()));
        }
        Ok(SessionOpened {
            session: SessionId(o.session_id),
            token: SessionToken(token),
            timeout_ms: o.timeout_ms,
            node: PeerId(o.node_id),
            leaderless: o.leaderless,
        })
    }
}

fn created_off_wire(c: v1::CreateResponse) -> Result<(Path, Stat), Malformed> {
    let path = Path::new(&c.path).map_err(|e| Malformed(format!("CreateResponse.path: {e}")))?;
    Ok((path, stat(c.stat)?))
}

fn stat(stat: Option<v1::Stat>) -> Result<Stat, Malformed> {
    stat.map(Stat::from).ok_or_else(|| Malformed("a response without its Stat".to_owned()))
}

#[cfg(test)]
mod tests;
