//! What clients ask.

use api::{
    Acl, AclEntry, Create, DeleteTree, Expected, Identities, Identity, Level, Look, MultiOp, NodeKind,
    OpError, Page, Path, Permissions, Quota, Read, ReadLevel, SessionId, SessionToken, Trace, Usage, Write,
    WriteNumber, Zxid,
    quota::Bounds,
    session::{Op, Open, Purpose, Request},
};
use bytes::Bytes;

use super::{LEVEL, watch};
use crate::{
    quorum::{ensemble, ensemble_to_wire},
    v1,
};

// ---- off the wire ----

/// A request. A fault of it is its operation, [`Op::Invalid`], so that it is answered in its place.
#[must_use]
pub fn request(wire: v1::Request) -> Request {
    let v1::Request { xid, write_number, op: wire_op, traceparent: text, timeout_ms, min_level } = wire;
    let number = (write_number != 0).then_some(WriteNumber(write_number));
    let op = (wire_op.ok_or_else(|| unknown("Request.op")).and_then(op))
        .and_then(|op| numbered(op, number))
        .unwrap_or_else(Op::Invalid);
    let min_level = Level::known(min_level).unwrap_or_default();
    Request { xid, number, op, trace: traceparent(&text), timeout_ms, min_level }
}

/// A number on anything but a write would leave a hole in front of the next write, to be found out only there.
fn numbered(op: Op, number: Option<WriteNumber>) -> Result<Op, OpError> {
    match (&op, number) {
        (Op::Write(_), None) => Err(bad(
            "Request.write_number is missing; number the writes of a session 1, 2, 3 ... without a gap",
        )),
        (
            Op::Read(..)
            | Op::MultiRead(..)
            | Op::Walk(_)
            | Op::Sync
            | Op::AddWatches(_)
            | Op::CancelWatches(_)
            | Op::Ephemerals { .. }
            | Op::Authenticate(_)
            | Op::WhoAmI
            | Op::Ping
            | Op::Close,
            Some(_),
        ) => Err(bad("Request.write_number is set, but this is no write; number writes only")),
        _ => Ok(op),
    }
}

/// The span that a client says its request is part of. What is malformed counts as not said, as W3C wants it.
#[must_use]
pub fn traceparent(text: &str) -> Trace {
    if text.is_empty() { None } else { text.parse().ok().map(Box::new) }
}

/// The operation of a request, of a session or of a call of its own.
///
/// # Errors
/// What is wrong with it.
pub fn op(wire: impl Into<v1::request::Op>) -> Result<Op, OpError> {
    use v1::request::Op as Wire;
    Ok(match wire.into() {
        Wire::Create(r) => Op::Write(Write::Create(create(r)?)),
        Wire::Set(r) => {
            let (path, data, version) = set(r)?;
            Op::Write(Write::Set { path, data, version })
        }
        Wire::Delete(r) => {
            let (path, version) = delete(r)?;
            Op::Write(Write::Delete { path, version })
        }
        Wire::Multi(r) => Op::Write(multi(r)?),
        Wire::Get(r) => Op::Read(Read::Get { path: Path::new(&r.path)? }, read_level(r.read)?),
        Wire::Exists(r) => Op::Read(Read::Exists { path: Path::new(&r.path)? }, read_level(r.read)?),
        Wire::Children(r) => {
            let level = read_level(r.read)?;
            Op::Read(children(r)?, level)
        }
        Wire::Sync(_) => Op::Sync,
        Wire::Ping(_) => Op::Ping,
        Wire::Close(_) => Op::Close,
        Wire::DeleteTree(v1::DeleteTreeRequest { path, version: v, czxid, keep_root, max_znodes }) => {
            let (path, version) = (Path::new(&path)?, expected(v, czxid)?);
            Op::Write(Write::DeleteTree(DeleteTree { path, version, keep_root, max_znodes }))
        }
        Wire::SetQuota(r) => Op::Write(set_quota(r)?),
        Wire::SetAcl(r) => {
            let (path, acl, aversion) = set_acl(r)?;
            Op::Write(Write::SetAcl { path, acl, aversion })
        }
        Wire::GetAcl(r) => Op::Read(Read::Acl { path: Path::new(&r.path)? }, read_level(r.read)?),
        Wire::CountTree(r) => Op::Read(Read::Count { path: Path::new(&r.path)? }, read_level(r.read)?),
        Wire::ListQuotas(r) => {
            let page = page(r.page_size, r.page_token, Look::Name)?;
            Op::Read(Read::Quotas { path: Path::new(&r.path)?, page }, read_level(r.read)?)
        }
        Wire::MultiRead(r) => {
            let reads = r.ops.into_iter().map(read_op).collect::<Result<_, OpError>>()?;
            Op::MultiRead(reads, read_level(r.read)?)
        }
        Wire::ListEphemerals(r) => ephemerals(r)?,
        Wire::AddWatches(r) => watch::add(r),
        Wire::CancelWatches(r) => Op::CancelWatches(r.ids),
        // An edge proves the credentials first, see `Who`.
        Wire::Authenticate(_) => Op::Authenticate(Identities::NONE),
        Wire::WhoAmI(_) => Op::WhoAmI,
    })
}

macro_rules! ops {
    ($($request:ident => $variant:ident,)+) => {
        $(impl From<v1::$request> for v1::request::Op {
            fn from(request: v1::$request) -> v1::request::Op {
                v1::request::Op::$variant(request)
            }
        })+
    };
}

ops! {
    AuthenticateRequest => Authenticate,
    CreateRequest => Create,
    SetRequest => Set,
    DeleteRequest => Delete,
    MultiRequest => Multi,
    GetRequest => Get,
    ExistsRequest => Exists,
    ChildrenRequest => Children,
    SyncRequest => Sync,
    DeleteTreeRequest => DeleteTree,
    SetAclRequest => SetAcl,
    GetAclRequest => GetAcl,
    CountTreeRequest => CountTree,
    MultiReadRequest => MultiRead,
    SetQuotaRequest => SetQuota,
    ListQuotasRequest => ListQuotas,
    WhoAmIRequest => WhoAmI,
}

fn create(r: v1::CreateRequest) -> Result<Create, OpError> {
    let v1::CreateRequest { path, data, kind, sequential, ttl_ms, acl, parents, keep_existing } = r;
    let kind = match v1::NodeKind::try_from(kind) {
        Ok(v1::NodeKind::Unspecified | v1::NodeKind::Persistent) => NodeKind::Persistent,
        Ok(v1::NodeKind::Ephemeral) => NodeKind::Ephemeral,
        Ok(v1::NodeKind::Container) => NodeKind::Container,
        Ok(v1::NodeKind::Ttl) => NodeKind::Ttl { ms: ttl_ms },
        Err(_) => return Err(unknown("CreateRequest.kind")),
    };
    kind.check()?;
    if ttl_ms != 0 && !matches!(kind, NodeKind::Ttl { .. }) {
        return Err(bad("CreateRequest.ttl_ms is set, but the kind is another; use NODE_KIND_TTL with it"));
    }
    let acl = acl.map(self::acl).transpose()?.unwrap_or_default();
    supported(parents == 0, "CreateRequest.parents")?;
    supported(!keep_existing, "CreateRequest.keep_existing")?;
    let path = if sequential { Path::prefix(&path)? } else { Path::new(&path)? };
    Ok(Create { path, data, kind, sequential, acl })
}

fn set(r: v1::SetRequest) -> Result<(Path, Option<Bytes>, Option<Expected>), OpError> {
    Ok((Path::new(&r.path)?, r.data, expected(r.version, r.czxid)?))
}

fn delete(r: v1::DeleteRequest) -> Result<(Path, Option<Expected>), OpError> {
    Ok((Path::new(&r.path)?, expected(r.version, r.czxid)?))
}

fn set_acl(r: v1::SetAclRequest) -> Result<(Path, Acl, Option<Expected>), OpError> {
    let missing = || OpError::BadAcl("SetAclRequest.acl is missing; give it 1 to 64 entries".to_owned());
    Ok((Path::new(&r.path)?, acl(r.acl.ok_or_else(missing)?)?, expected(r.aversion, r.czxid)?))
}

fn set_quota(r: v1::SetQuotaRequest) -> Result<Write, OpError> {
    let missing = || bad("SetQuotaRequest.quota is missing; give it a path, and the bounds that shall hold");
    let quota = r.quota.ok_or_else(missing)?;
    Ok(Write::SetQuota { path: Path::new(&quota.path)?, quota: self::quota(&quota) })
}

pub(super) fn quota(wire: &v1::Quota) -> Quota {
    let soft = Bounds { znodes: wire.soft_znodes, bytes: wire.soft_bytes };
    Quota { soft, hard: Bounds { znodes: wire.hard_znodes, bytes: wire.hard_bytes } }
}

/// One part of a read of several.
fn read_op(op: v1::ReadOp) -> Result<Read, OpError> {
    use v1::read_op::Op as Wire;
    let (read, level) = match op.op.ok_or_else(|| unknown("ReadOp.op"))? {
        Wire::Get(r) => (Read::Get { path: Path::new(&r.path)? }, r.read),
        Wire::Exists(r) => (Read::Exists { path: Path::new(&r.path)? }, r.read),
        Wire::Children(r) => {
            let level = r.read;
            (children(r)?, level)
        }
    };
    match level {
        None => Ok(read),
        Some(_) => Err(bad("`read` is set in a part of a MultiReadRequest; set it in the request itself")),
    }
}

/// An access list off the wire.
///
/// # Errors
/// [`OpError::BadAcl`]. Where the caller has proven something, its edge has put that in for the scheme `auth`, see
/// [`Who`](super::Who).
pub(super) fn acl(wire: v1::Acl) -> Result<Acl, OpError> {
    let entry = |e: v1::AclEntry| {
        let v1::Identity { scheme, id } = e.identity.unwrap_or_default();
        if scheme == "auth" {
            return Err(OpError::BadAcl(
                "the scheme auth stands for your identities, and you have proven none; prove one, or name an identity"
                    .to_owned(),
            ));
        }
        let bit = |&wire: &i32| {
            let known = v1::Permission::try_from(wire).ok().filter(|p| *p != v1::Permission::Unspecified);
            known
                .map(|permission| 1 << (permission as u32 - 1))
                .ok_or_else(|| unknown("AclEntry.permissions"))
        };
        let bits = e.permissions.iter().map(bit).try_fold(0, |all, bit| Ok::<u32, OpError>(all | bit?))?;
        let permissions = Permissions::from_bits(bits).ok_or_else(|| unknown("AclEntry.permissions"))?;
        Ok(AclEntry { identity: Identity::new(scheme.parse()?, &id)?, permissions })
    };
    Ok(Acl::new(wire.entries.into_iter().map(entry).collect::<Result<_, OpError>>()?)?)
}

/// A fault of one part is [`OpError::Multi`] with its index.
fn multi(r: v1::MultiRequest) -> Result<Write, OpError> {
    let part = |(index, op)| {
        multi_op(op).map_err(|cause| OpError::Multi {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            cause: Box::new(cause),
        })
    };
    r.ops.into_iter().enumerate().map(part).collect::<Result<_, _>>().map(Write::Multi)
}

fn multi_op(op: v1::MultiOp) -> Result<MultiOp, OpError> {
    use v1::multi_op::Op as Wire;
    Ok(match op.op.ok_or_else(|| unknown("MultiOp.op"))? {
        Wire::Create(r) => MultiOp::Create(create(r)?),
        Wire::Set(r) => {
            let (path, data, version) = set(r)?;
            MultiOp::Set { path, data, version }
        }
        Wire::Delete(r) => {
            let (path, version) = delete(r)?;
            MultiOp::Delete { path, version }
        }
        Wire::Check(v1::CheckRequest { path, version: None, czxid: None, absent: true }) => {
            MultiOp::CheckAbsent { path: Path::new(&path)? }
        }
        Wire::Check(r) if r.absent => {
            return Err(bad("CheckRequest.absent is set together with version or czxid; leave those out"));
        }
        Wire::Check(r) => {
            MultiOp::Check { path: Path::new(&r.path)?, version: expected(r.version, r.czxid)? }
        }
        Wire::SetAcl(r) => {
            let (path, acl, aversion) = set_acl(r)?;
            MultiOp::SetAcl { path, acl, aversion }
        }
    })
}

fn children(r: v1::ChildrenRequest) -> Result<Read, OpError> {
    let look = match (r.with_stat, r.with_data) {
        (_, true) => Look::Data,
        (true, false) => Look::Stat,
        (false, false) => Look::Name,
    };
    Ok(Read::Children { path: Path::new(&r.path)?, page: page(r.page_size, r.page_token, look)? })
}

fn page(size: i32, after: String, look: Look) -> Result<Page, OpError> {
    let size = u32::try_from(size)
        .map_err(|_| bad("page_size is negative; set 0, or the number of names that you want"))?;
    Ok(Page { after, size, look })
}

fn ephemerals(r: v1::ListEphemeralsRequest) -> Result<Op, OpError> {
    supported(read_level(r.read)? == ReadLevel::Local, "ListEphemeralsRequest.read")?;
    let size = u32::try_from(r.page_size)
        .map_err(|_| bad("page_size is negative; set 0, or the number of paths that you want"))?;
    let below = if r.path.is_empty() { Path::root() } else { Path::new(&r.path)? };
    let prefix = if below == Path::root() { "/".to_owned() } else { format!("{below}/") };
    Ok(Op::Ephemerals { prefix, after: r.page_token, size })
}

/// A level that this version does not know is refused: to answer with less than was asked for would be worse.
pub(super) fn read_level(read: Option<v1::ReadOptions>) -> Result<ReadLevel, OpError> {
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
        (Err(_), _) => Err(unknown("ReadOptions.level")),
    }
}

fn expected(version: Option<i32>, czxid: Option<u64>) -> Result<Option<Expected>, OpError> {
    match version {
        Some(v) if v < 0 => Err(OpError::BadArguments(format!(
            "the version {v} is negative; leave it out to match any version"
        ))),
        v => Ok(Expected::new(v, czxid.map(Zxid))),
    }
}

fn expected_to_wire(expected: Option<Expected>) -> (Option<i32>, Option<u64>) {
    (expected.and_then(Expected::version), expected.and_then(Expected::czxid).map(|czxid| czxid.0))
}

fn bad(what: &str) -> OpError {
    OpError::BadArguments(what.to_owned())
}

/// Of an operation or value that is missing, or of a later version.
pub(super) fn unknown(field: &str) -> OpError {
    OpError::Unsupported(format!(
        "{field} is missing, or has a value that this server does not have; set one that the API of feature level {LEVEL} has, or \
         upgrade the server"
    ))
}

fn supported(unset: bool, option: &str) -> Result<(), OpError> {
    if unset {
        return Ok(());
    }
    Err(OpError::Unsupported(format!(
        "this server does not have the option {option} yet; leave it out, or upgrade the server"
    )))
}

/// The request to open a session, off the wire.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenSession {
    /// The request to the store.
    pub open: Open,
    /// For its edge to prove.
    pub credentials: Vec<v1::Credential>,
    /// The client's name for itself.
    pub client_name: String,
}

impl TryFrom<v1::OpenSession> for OpenSession {
    type Error = OpError;

    fn try_from(wire: v1::OpenSession) -> Result<OpenSession, OpError> {
        let v1::OpenSession {
            resume,
            timeout_ms,
            last_zxid,
            wait_ms,
            credentials,
            allow_read_only,
            client_name,
            ensemble_id,
        } = wire;
        let resume = match resume {
            None => None,
            Some(v1::SessionRef { session_id: 0, .. }) => {
                return Err(bad("SessionRef.session_id is 0; leave `resume` out for a new session"));
            }
            Some(v1::SessionRef { session_id, token }) => {
                let token = <[u8; 16]>::try_from(&token[..]).map_err(|_| {
                    bad("SessionRef.token does not have 16 bytes; send what SessionOpened.session had")
                })?;
                Some((SessionId(session_id), SessionToken(token)))
            }
        };
        let ensemble = ensemble(&ensemble_id).map_err(|_| {
            bad("OpenSession.ensemble_id does not have 16 bytes; send what SessionOpened.ensemble_id had")
        })?;
        if client_name.len() > CLIENT_NAME_MAX {
            return Err(bad("OpenSession.client_name has more than 128 bytes; choose a shorter one"));
        }
        let timeout_ms = if timeout_ms == 0 { TIMEOUT_MS } else { timeout_ms };
        let purpose = if allow_read_only { Purpose::SessionOrReads } else { Purpose::Session };
        let open = Open { resume, timeout_ms, last_zxid: Zxid(last_zxid), wait_ms, ensemble, purpose };
        Ok(OpenSession { open, credentials, client_name })
    }
}

/// Of a session whose client does not say.
const TIMEOUT_MS: u32 = 10_000;

const CLIENT_NAME_MAX: usize = 128;

// ---- onto the wire ----

/// `None` for [`Op::Invalid`], which no client has.
#[must_use]
pub fn request_to_wire(r: Request) -> Option<v1::Request> {
    Some(v1::Request {
        xid: r.xid,
        write_number: r.number.map_or(0, |number| number.0),
        op: Some(op_to_wire(r.op)?),
        traceparent: r.trace.map(|context| context.to_string()).unwrap_or_default(),
        timeout_ms: r.timeout_ms,
        min_level: min_level_to_wire(r.min_level),
    })
}

/// 0 for the first, which every ensemble has.
pub(crate) fn min_level_to_wire(level: Level) -> u32 {
    Level::number(Some(level).filter(|level| *level > Level::FIRST))
}

/// `None` for [`Op::Invalid`], which no client has, and for [`Op::MultiRead`] with parts that the wire does not have.
#[must_use]
pub fn op_to_wire(op: Op) -> Option<v1::request::Op> {
    use v1::request::Op as Wire;
    Some(match op {
        Op::Write(Write::Create(create)) => Wire::Create(create_to_wire(create)),
        Op::Write(Write::Set { path, data, version }) => Wire::Set(set_to_wire(&path, data, version)),
        Op::Write(Write::Delete { path, version }) => Wire::Delete(delete_to_wire(&path, version)),
        Op::Write(Write::SetAcl { path, acl, aversion }) => {
            Wire::SetAcl(set_acl_to_wire(&path, &acl, aversion))
        }
        Op::Write(Write::DeleteTree(DeleteTree { path, version, keep_root, max_znodes })) => {
            let ((version, czxid), path) = (expected_to_wire(version), text(&path));
            Wire::DeleteTree(v1::DeleteTreeRequest { path, version, czxid, keep_root, max_znodes })
        }
        Op::Write(Write::SetQuota { path, quota }) => {
            let quota = Some(quota_to_wire(&path, &quota, Usage::default()));
            Wire::SetQuota(v1::SetQuotaRequest { quota })
        }
        Op::Write(Write::Multi(ops)) => {
            Wire::Multi(v1::MultiRequest { ops: ops.into_iter().map(multi_op_to_wire).collect() })
        }
        Op::Read(read, level) => read_to_wire(read, level),
        Op::MultiRead(reads, level) => Wire::MultiRead(v1::MultiReadRequest {
            ops: reads.into_iter().map(read_op_to_wire).collect::<Option<_>>()?,
            read: options(level),
        }),
        Op::Sync => Wire::Sync(v1::SyncRequest {}),
        Op::Ephemerals { prefix, after, size } => Wire::ListEphemerals(v1::ListEphemeralsRequest {
            path: prefix.strip_suffix('/').unwrap_or(&prefix).to_owned(),
            read: None,
            page_size: i32::try_from(size).unwrap_or(i32::MAX),
            page_token: after,
        }),
        Op::AddWatches(add) => Wire::AddWatches(watch::add_to_wire(add)),
        Op::CancelWatches(ids) => Wire::CancelWatches(v1::CancelWatchesRequest { ids }),
        // Only an edge has one, and says apart what it has proven.
        Op::Authenticate(_) => Wire::Authenticate(v1::AuthenticateRequest::default()),
        Op::WhoAmI => Wire::WhoAmI(v1::WhoAmIRequest {}),
        Op::Ping => Wire::Ping(v1::PingRequest {}),
        Op::Close => Wire::Close(v1::CloseSessionRequest {}),
        // Walks are calls of their own.
        Op::Invalid(_) | Op::Walk(_) => return None,
    })
}

fn create_to_wire(create: Create) -> v1::CreateRequest {
    let (kind, ttl_ms) = match create.kind {
        // What is not there takes no room.
        NodeKind::Persistent => (v1::NodeKind::Unspecified, 0),
        NodeKind::Ephemeral => (v1::NodeKind::Ephemeral, 0),
        NodeKind::Container => (v1::NodeKind::Container, 0),
        NodeKind::Ttl { ms } => (v1::NodeKind::Ttl, ms),
    };
    v1::CreateRequest {
        path: text(&create.path),
        data: create.data,
        kind: kind.into(),
        sequential: create.sequential,
        ttl_ms,
        acl: (!create.acl.is_open()).then(|| acl_to_wire(&create.acl)),
        ..v1::CreateRequest::default()
    }
}

fn set_to_wire(path: &Path, data: Option<Bytes>, expected: Option<Expected>) -> v1::SetRequest {
    let (version, czxid) = expected_to_wire(expected);
    v1::SetRequest { path: text(path), data, version, czxid }
}

fn delete_to_wire(path: &Path, expected: Option<Expected>) -> v1::DeleteRequest {
    let (version, czxid) = expected_to_wire(expected);
    v1::DeleteRequest { path: text(path), version, czxid }
}

fn set_acl_to_wire(path: &Path, acl: &Acl, expected: Option<Expected>) -> v1::SetAclRequest {
    let (aversion, czxid) = expected_to_wire(expected);
    v1::SetAclRequest { path: text(path), acl: Some(acl_to_wire(acl)), aversion, czxid }
}

fn multi_op_to_wire(op: MultiOp) -> v1::MultiOp {
    use v1::multi_op::Op as Wire;
    let op = match op {
        MultiOp::Create(create) => Wire::Create(create_to_wire(create)),
        MultiOp::Set { path, data, version } => Wire::Set(set_to_wire(&path, data, version)),
        MultiOp::Delete { path, version } => Wire::Delete(delete_to_wire(&path, version)),
        MultiOp::SetAcl { path, acl, aversion } => Wire::SetAcl(set_acl_to_wire(&path, &acl, aversion)),
        MultiOp::Check { path, version } => {
            let (version, czxid) = expected_to_wire(version);
            Wire::Check(v1::CheckRequest { path: text(&path), version, czxid, absent: false })
        }
        MultiOp::CheckAbsent { path } => {
            let path = text(&path);
            Wire::Check(v1::CheckRequest { path, absent: true, ..v1::CheckRequest::default() })
        }
    };
    v1::MultiOp { op: Some(op) }
}

pub(super) fn options(level: ReadLevel) -> Option<v1::ReadOptions> {
    let (level, min_zxid) = match level {
        // What is not there takes no room; and everything is behind zero.
        ReadLevel::Local | ReadLevel::AtLeast(Zxid::ZERO) => return None,
        ReadLevel::AtLeast(zxid) => (v1::ReadLevel::AtLeast, zxid.0),
        ReadLevel::Linearizable => (v1::ReadLevel::Linearizable, 0),
        ReadLevel::Stale => (v1::ReadLevel::Stale, 0),
    };
    Some(v1::ReadOptions { level: level.into(), min_zxid })
}

fn read_to_wire(read: Read, level: ReadLevel) -> v1::request::Op {
    use v1::request::Op as Wire;
    let (path, read_options) = (text(read.path()), options(level));
    match read {
        Read::Get { .. } => Wire::Get(v1::GetRequest { path, read: read_options }),
        Read::Exists { .. } => Wire::Exists(v1::ExistsRequest { path, read: read_options }),
        Read::Acl { .. } => Wire::GetAcl(v1::GetAclRequest { path, read: read_options }),
        Read::Children { page, .. } => Wire::Children(children_to_wire(path, page, read_options)),
        Read::Count { .. } => Wire::CountTree(v1::CountTreeRequest { path, read: read_options }),
        Read::Quotas { page, .. } => Wire::ListQuotas(v1::ListQuotasRequest {
            path,
            read: read_options,
            page_size: i32::try_from(page.size).unwrap_or(i32::MAX),
            page_token: page.after,
        }),
    }
}

fn children_to_wire(path: String, page: Page, read: Option<v1::ReadOptions>) -> v1::ChildrenRequest {
    v1::ChildrenRequest {
        path,
        read,
        page_size: i32::try_from(page.size).unwrap_or(i32::MAX),
        page_token: page.after,
        with_stat: page.look == Look::Stat,
        with_data: page.look == Look::Data,
    }
}

/// `None` for what no part of a read of several can be.
fn read_op_to_wire(read: Read) -> Option<v1::ReadOp> {
    use v1::read_op::Op as Wire;
    let path = text(read.path());
    let op = match read {
        Read::Get { .. } => Wire::Get(v1::GetRequest { path, read: None }),
        Read::Exists { .. } => Wire::Exists(v1::ExistsRequest { path, read: None }),
        Read::Children { page, .. } => Wire::Children(children_to_wire(path, page, None)),
        Read::Acl { .. } | Read::Count { .. } | Read::Quotas { .. } => return None,
    };
    Some(v1::ReadOp { op: Some(op) })
}

pub(super) fn quota_to_wire(path: &Path, quota: &Quota, used: Usage) -> v1::Quota {
    let Quota { soft, hard } = quota;
    v1::Quota {
        path: text(path),
        soft_znodes: soft.znodes,
        soft_bytes: soft.bytes,
        hard_znodes: hard.znodes,
        hard_bytes: hard.bytes,
        used_znodes: used.znodes,
        used_bytes: used.bytes,
    }
}

impl From<Open> for v1::OpenSession {
    fn from(open: Open) -> v1::OpenSession {
        let resume = open
            .resume
            .map(|(id, token)| v1::SessionRef { session_id: id.0, token: Bytes::copy_from_slice(&token.0) });
        v1::OpenSession {
            resume,
            timeout_ms: open.timeout_ms,
            last_zxid: open.last_zxid.0,
            wait_ms: open.wait_ms,
            ensemble_id: ensemble_to_wire(open.ensemble),
            allow_read_only: open.purpose == Purpose::SessionOrReads,
            ..v1::OpenSession::default()
        }
    }
}

pub(super) fn acl_to_wire(acl: &Acl) -> v1::Acl {
    let bits = |entry: &AclEntry| {
        (0..5).filter(|bit| entry.permissions.bits() & (1 << bit) != 0).collect::<Vec<i32>>()
    };
    let entry = |entry: &AclEntry| v1::AclEntry {
        identity: Some(v1::Identity {
            scheme: entry.identity.scheme().as_str().to_owned(),
            id: entry.identity.id().to_owned(),
        }),
        permissions: bits(entry).into_iter().map(|bit| bit + 1).collect(),
    };
    v1::Acl { entries: acl.entries().iter().map(entry).collect() }
}

fn text(path: &Path) -> String {
    path.as_str().to_owned()
}
