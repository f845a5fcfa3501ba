//! What store-svc keeps: the payloads of the log and the records of checkpoints and snapshots (`quorate.state.v1`).
//!
//! Written by one version and read by later ones, for ever. Decoding checks everything, because a disk or a peer may
//! have changed a byte.

use api::{
    Acl, AclEntry, AclId, Command, CommandBody, Create, DeleteTree, Epoch, Expected, Identities, Identity,
    MultiOp, NodeKind, OpError, Path, PathError, Permissions, Quota, RequestHash, Scheme, SessionId,
    StreamId, TokenHash, Write, WriteNumber, Zxid,
    quota::Bounds,
    record::{self, Record},
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::{Malformed, state as wire};

/// The payload of a log entry.
#[must_use]
pub fn encode_command(command: Command) -> Bytes {
    wire::Command::from(command).encode_to_vec().into()
}

/// Reads the payload of a log entry; values stay pieces of `payload`.
///
/// # Errors
/// If these are not the bytes of a command that this version knows.
pub fn decode_command(payload: Bytes) -> Result<Command, Malformed> {
    strictly::<wire::Command>(payload)?.try_into()
}

/// A record by itself.
#[must_use]
pub fn encode_record(record: Record) -> Vec<u8> {
    wire::Record::from(record).encode_to_vec()
}

/// Reads a record by itself.
///
/// # Errors
/// If these are not the bytes of a record that this version knows.
pub fn decode_record(bytes: Bytes) -> Result<Record, Malformed> {
    strictly::<wire::Record>(bytes)?.try_into()
}

/// Appends an encoded record to a stream of them, as a snapshot is: each with its length before it.
pub fn append_record(stream: &mut BytesMut, record: &[u8]) {
    // The framing of `prost::Message::encode_length_delimited`.
    prost::encoding::encode_varint(record.len() as u64, stream);
    stream.extend_from_slice(record);
}

/// Reads such a stream, which may be cut into pieces anywhere.
#[derive(Default, Debug)]
pub struct RecordDecoder {
    /// What came and is not read yet.
    rest: BytesMut,
}

impl RecordDecoder {
    /// Adds the next piece. Read all that is [there](RecordDecoder::next_record) before the next one.
    pub fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next record, `None` if it is not all there yet.
    ///
    /// # Errors
    /// If the bytes are no record; nothing behind them can be told apart then.
    pub fn next_record(&mut self) -> Result<Option<Record>, Malformed> {
        let Some((length, framing)) = length(&self.rest)? else { return Ok(None) };
        if self.rest.len() < framing + length {
            return Ok(None);
        }
        let _ = self.rest.split_to(framing);
        decode_record(self.rest.split_to(length).freeze()).map(Some)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// If it ends within a record.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(Malformed(format!("the last record is cut off, after {n} bytes"))),
        }
    }
}

/// The length that stands first in `bytes` and how many bytes it takes up; `None` if it is not all there.
fn length(mut bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    const VARINT_MAX: usize = 10;
    let before = bytes.len();
    if before < VARINT_MAX && bytes.iter().all(|b| b & 0x80 != 0) {
        return Ok(None);
    }
    let length = prost::encoding::decode_varint(&mut bytes).map_err(malformed)?;
    match usize::try_from(length) {
        Ok(length) if length <= RECORD_MAX => Ok(Some((length, before - bytes.len()))),
        _ => Err(Malformed(format!("a record of {length} bytes, more than the {RECORD_MAX} possible"))),
    }
}

/// No record is larger: znodes and kept results are made by one entry each, and entries have limits far below.
const RECORD_MAX: usize = 256 << 20;

/// Of the records. Raised whenever a state that one version has written means something else to another.
const FORMAT: u32 = 4;

/// Decodes a message in which this version knows everything. What `prost` does not know it leaves out: then the message that it
/// gives is shorter than what it was given.
fn strictly<M: prost::Message + Default>(bytes: Bytes) -> Result<M, Malformed> {
    let length = bytes.len();
    let message = M::decode(bytes).map_err(malformed)?;
    if message.encoded_len() == length { Ok(message) } else { Err(unknown()) }
}

/// Another version of the program has written it.
fn unknown() -> Malformed {
    Malformed(format!(
        "something in it is not known to this version of Quorate, {}: run the version that wrote it, or a later one, on \
         all nodes",
        env!("CARGO_PKG_VERSION")
    ))
}

fn malformed(e: prost::DecodeError) -> Malformed {
    Malformed(e.to_string())
}

// ---- commands ----

impl From<Command> for wire::Command {
    fn from(c: Command) -> wire::Command {
        use wire::command::Body as Wire;
        let body = match c.body {
            CommandBody::Write(Write::Create(create)) => Wire::Create(create.into()),
            CommandBody::Write(Write::Set { path, data, version }) => Wire::Set(to_set(&path, data, version)),
            CommandBody::Write(Write::Delete { path, version }) => Wire::Delete(to_delete(&path, version)),
            CommandBody::Write(Write::DeleteTree(DeleteTree { path, version, keep_root, max_znodes })) => {
                let (version, czxid) = to_expected(version);
                Wire::DeleteTree(wire::DeleteTree {
                    path: text(&path),
                    version,
                    czxid,
                    keep_root,
                    max_znodes,
                })
            }
            CommandBody::Write(Write::SetQuota { path, quota }) => {
                Wire::SetQuota(wire::SetQuota { path: text(&path), quota: to_quota(&quota) })
            }
            CommandBody::Write(Write::SetAcl { path, acl, aversion }) => {
                Wire::SetAcl(to_set_acl(&path, &acl, aversion))
            }
            CommandBody::Write(Write::Multi(parts)) => {
                Wire::Multi(wire::Multi { parts: parts.into_iter().map(Into::into).collect() })
            }
            CommandBody::Refuse { error, request } => {
                Wire::Refuse(wire::RefuseCommand { fault: Some(error.into()), request: request.0 })
            }
            CommandBody::OpenSession { token_hash, timeout_ms, sessions_max } => {
                let token_hash = Bytes::copy_from_slice(&token_hash.0);
                Wire::OpenSession(wire::OpenSessionCommand { token_hash, timeout_ms, sessions_max })
            }
            CommandBody::ResumeSession { session, stream } => {
                Wire::ResumeSession(wire::ResumeSessionCommand { session: session.0, stream: stream.0 })
            }
            CommandBody::CloseSession { session, expired } => {
                let expired_in_epoch = expired.map_or(0, |epoch| epoch.0);
                Wire::CloseSession(wire::CloseSessionCommand { session: session.0, expired_in_epoch })
            }
            CommandBody::Check { of, digest } => Wire::Check(wire::DigestCheck { of: of.0, digest }),
            CommandBody::Reap { path, czxid, unused_ms } => {
                Wire::Reap(wire::ReapCommand { path: text(&path), czxid: czxid.0, unused_ms })
            }
        };
        wire::Command {
            session: c.session.map_or(0, |s| s.0),
            stream: c.stream.0,
            number: c.number.map_or(0, |n| n.0),
            acked: c.acked.0,
            identities: to_identities(&c.identities),
            body: Some(body),
        }
    }
}

impl TryFrom<wire::Command> for Command {
    type Error = Malformed;

    fn try_from(c: wire::Command) -> Result<Command, Malformed> {
        use wire::command::Body as Wire;
        let body = match c.body {
            Some(Wire::Create(c)) => CommandBody::Write(Write::Create(c.try_into()?)),
            Some(Wire::Set(wire::Set { path: p, data, version, czxid })) => {
                CommandBody::Write(Write::Set { path: path(&p)?, data, version: expected(version, czxid) })
            }
            Some(Wire::Delete(wire::Delete { path: p, version, czxid })) => {
                CommandBody::Write(Write::Delete { path: path(&p)?, version: expected(version, czxid) })
            }
            Some(Wire::DeleteTree(t)) => CommandBody::Write(Write::DeleteTree(DeleteTree {
                path: path(&t.path)?,
                version: expected(t.version, t.czxid),
                keep_root: t.keep_root,
                max_znodes: t.max_znodes,
            })),
            Some(Wire::SetQuota(q)) => {
                CommandBody::Write(Write::SetQuota { path: path(&q.path)?, quota: quota(q.quota)? })
            }
            Some(Wire::SetAcl(wire::SetAcl { path: p, acl, aversion, czxid })) => {
                let aversion = expected(aversion, czxid);
                CommandBody::Write(Write::SetAcl { path: path(&p)?, acl: acl_or_open(acl)?, aversion })
            }
            Some(Wire::Multi(m)) => {
                let parts = m.parts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                CommandBody::Write(Write::Multi(parts))
            }
            Some(Wire::Refuse(r)) => CommandBody::Refuse {
                error: r.fault.ok_or_else(unknown)?.try_into()?,
                request: RequestHash(r.request),
            },
            Some(Wire::OpenSession(o)) => CommandBody::OpenSession {
                token_hash: token_hash(&o.token_hash)?,
                timeout_ms: o.timeout_ms,
                sessions_max: o.sessions_max,
            },
            Some(Wire::ResumeSession(r)) => {
                CommandBody::ResumeSession { session: SessionId(r.session), stream: StreamId(r.stream) }
            }
            Some(Wire::CloseSession(c)) => {
                let expired = (c.expired_in_epoch != 0).then_some(Epoch(c.expired_in_epoch));
                CommandBody::CloseSession { session: SessionId(c.session), expired }
            }
            Some(Wire::Check(c)) => CommandBody::Check { of: Zxid(c.of), digest: c.digest },
            Some(Wire::Reap(wire::ReapCommand { path: p, czxid, unused_ms })) => {
                CommandBody::Reap { path: path(&p)?, czxid: Zxid(czxid), unused_ms }
            }
            None => return Err(unknown()),
        };
        Ok(Command {
            session: (c.session != 0).then_some(SessionId(c.session)),
            stream: StreamId(c.stream),
            number: (c.number != 0).then_some(WriteNumber(c.number)),
            acked: WriteNumber(c.acked),
            identities: identities(c.identities)?,
            body,
        })
    }
}

impl From<Create> for wire::Create {
    fn from(Create { path, data, kind, sequential, acl }: Create) -> wire::Create {
        let (kind, ttl_ms) = to_kind(kind);
        let acl = to_entries_unless_open(&acl);
        wire::Create { path: text(&path), data, kind, ttl_ms, sequential, acl }
    }
}

impl TryFrom<wire::Create> for Create {
    type Error = Malformed;

    fn try_from(c: wire::Create) -> Result<Create, Malformed> {
        let path = if c.sequential {
            Path::prefix(&c.path).map_err(|e| Malformed(e.to_string()))?
        } else {
            path(&c.path)?
        };
        let acl = acl_or_open(c.acl)?;
        Ok(Create { path, data: c.data, kind: kind(c.kind, c.ttl_ms)?, sequential: c.sequential, acl })
    }
}

impl From<MultiOp> for wire::Part {
    fn from(part: MultiOp) -> wire::Part {
        use wire::part::Kind;
        let kind = match part {
            MultiOp::Create(create) => Kind::Create(create.into()),
            MultiOp::Set { path, data, version } => Kind::Set(to_set(&path, data, version)),
            MultiOp::Delete { path, version } => Kind::Delete(to_delete(&path, version)),
            MultiOp::SetAcl { path, acl, aversion } => Kind::SetAcl(to_set_acl(&path, &acl, aversion)),
            MultiOp::Check { path, version } => {
                let (version, czxid) = to_expected(version);
                Kind::Check(wire::Check { path: text(&path), version, czxid })
            }
            MultiOp::CheckAbsent { path } => Kind::CheckAbsent(wire::CheckAbsent { path: text(&path) }),
        };
        wire::Part { kind: Some(kind) }
    }
}

impl TryFrom<wire::Part> for MultiOp {
    type Error = Malformed;

    fn try_from(part: wire::Part) -> Result<MultiOp, Malformed> {
        use wire::part::Kind;
        Ok(match part.kind {
            Some(Kind::Create(c)) => MultiOp::Create(c.try_into()?),
            Some(Kind::Set(s)) => {
                MultiOp::Set { path: path(&s.path)?, data: s.data, version: expected(s.version, s.czxid) }
            }
            Some(Kind::Delete(d)) => {
                MultiOp::Delete { path: path(&d.path)?, version: expected(d.version, d.czxid) }
            }
            Some(Kind::SetAcl(s)) => {
                let aversion = expected(s.aversion, s.czxid);
                MultiOp::SetAcl { path: path(&s.path)?, acl: acl_or_open(s.acl)?, aversion }
            }
            Some(Kind::Check(c)) => {
                MultiOp::Check { path: path(&c.path)?, version: expected(c.version, c.czxid) }
            }
            Some(Kind::CheckAbsent(c)) => MultiOp::CheckAbsent { path: path(&c.path)? },
            None => return Err(unknown()),
        })
    }
}

impl From<OpError> for wire::Fault {
    fn from(error: OpError) -> wire::Fault {
        use wire::fault::Kind;
        let kind = match error {
            OpError::TooLarge { size, limit } => Kind::TooLarge(wire::TooLarge { size, limit }),
            OpError::DiskFull => Kind::DiskFull(wire::DiskFull {}),
            OpError::Multi { index, cause } => {
                Kind::Part(Box::new(wire::FaultyPart { index, fault: Some(Box::new((*cause).into())) }))
            }
            OpError::Unsupported(text) => Kind::Unsupported(text),
            OpError::BadPath(fault) => Kind::BadPath(fault.into()),
            OpError::BadAcl(text) => Kind::BadAcl(text),
            other => Kind::BadArguments(other.to_string()),
        };
        wire::Fault { kind: Some(kind) }
    }
}

impl TryFrom<wire::Fault> for OpError {
    type Error = Malformed;

    fn try_from(fault: wire::Fault) -> Result<OpError, Malformed> {
        use wire::fault::Kind;
        Ok(match fault.kind.ok_or_else(unknown)? {
            Kind::TooLarge(wire::TooLarge { size, limit }) => OpError::TooLarge { size, limit },
            Kind::DiskFull(wire::DiskFull {}) => OpError::DiskFull,
            Kind::Part(part) => {
                let cause = OpError::try_from(*part.fault.ok_or_else(unknown)?)?;
                OpError::Multi { index: part.index, cause: Box::new(cause) }
            }
            Kind::BadArguments(text) => OpError::BadArguments(text),
            Kind::Unsupported(text) => OpError::Unsupported(text),
            Kind::BadPath(fault) => OpError::BadPath(fault.try_into()?),
            Kind::BadAcl(text) => OpError::BadAcl(text),
        })
    }
}

impl From<PathError> for wire::BadPath {
    fn from(fault: PathError) -> wire::BadPath {
        use wire::PathRule as Rule;
        let (rule, at, character) = match fault {
            PathError::Empty => (Rule::Empty, 0, 0),
            PathError::NotAbsolute => (Rule::NotAbsolute, 0, 0),
            PathError::TrailingSlash => (Rule::TrailingSlash, 0, 0),
            PathError::EmptyElement(at) => (Rule::EmptyElement, at, 0),
            PathError::RelativeElement(at) => (Rule::RelativeElement, at, 0),
            PathError::BadCharacter { ch, at } => (Rule::BadCharacter, at, u32::from(ch)),
            PathError::TooLong(length) => (Rule::TooLong, length, 0),
        };
        wire::BadPath { rule: rule.into(), at: at as u64, character }
    }
}

impl TryFrom<wire::BadPath> for PathError {
    type Error = Malformed;

    fn try_from(fault: wire::BadPath) -> Result<PathError, Malformed> {
        use wire::PathRule as Rule;
        let at = usize::try_from(fault.at).map_err(|_| unknown())?;
        Ok(match Rule::try_from(fault.rule).map_err(|_| unknown())? {
            Rule::Unspecified => return Err(unknown()),
            Rule::Empty => PathError::Empty,
            Rule::NotAbsolute => PathError::NotAbsolute,
            Rule::TrailingSlash => PathError::TrailingSlash,
            Rule::EmptyElement => PathError::EmptyElement(at),
            Rule::RelativeElement => PathError::RelativeElement(at),
            Rule::BadCharacter => {
                PathError::BadCharacter { ch: char::from_u32(fault.character).ok_or_else(unknown)?, at }
            }
            Rule::TooLong => PathError::TooLong(at),
        })
    }
}

fn text(path: &Path) -> String {
    path.as_str().to_owned()
}

fn path(text: &str) -> Result<Path, Malformed> {
    Path::new(text).map_err(|e| Malformed(e.to_string()))
}

fn token_hash(bytes: &[u8]) -> Result<TokenHash, Malformed> {
    let hash = bytes
        .try_into()
        .map_err(|_| Malformed(format!("the hash of a session token has {} bytes, not 32", bytes.len())))?;
    Ok(TokenHash(hash))
}

/// A kind and its TTL, which is 0 of all others.
fn to_kind(kind: NodeKind) -> (i32, u64) {
    let (kind, ttl_ms) = match kind {
        NodeKind::Persistent => (wire::NodeKind::Persistent, 0),
        NodeKind::Ephemeral => (wire::NodeKind::Ephemeral, 0),
        NodeKind::Container => (wire::NodeKind::Container, 0),
        NodeKind::Ttl { ms } => (wire::NodeKind::Ttl, ms),
    };
    (kind.into(), ttl_ms)
}

/// Any TTL: which ones are possible, those decide who make and apply commands.
fn kind(kind: i32, ttl_ms: u64) -> Result<NodeKind, Malformed> {
    Ok(match (wire::NodeKind::try_from(kind).map_err(|_| unknown())?, ttl_ms) {
        (wire::NodeKind::Unspecified, _) => return Err(unknown()),
        (wire::NodeKind::Persistent, 0) => NodeKind::Persistent,
        (wire::NodeKind::Ephemeral, 0) => NodeKind::Ephemeral,
        (wire::NodeKind::Container, 0) => NodeKind::Container,
        (wire::NodeKind::Ttl, ms) => NodeKind::Ttl { ms },
        (_, ms) => return Err(Malformed(format!("a TTL of {ms} ms of a znode of another kind"))),
    })
}

fn to_set(path: &Path, data: Option<Bytes>, expected: Option<Expected>) -> wire::Set {
    let (version, czxid) = to_expected(expected);
    wire::Set { path: text(path), data, version, czxid }
}

fn to_delete(path: &Path, expected: Option<Expected>) -> wire::Delete {
    let (version, czxid) = to_expected(expected);
    wire::Delete { path: text(path), version, czxid }
}

fn to_set_acl(path: &Path, acl: &Acl, expected: Option<Expected>) -> wire::SetAcl {
    let (aversion, czxid) = to_expected(expected);
    wire::SetAcl { path: text(path), acl: to_entries_unless_open(acl), aversion, czxid }
}

fn to_expected(expected: Option<Expected>) -> (Option<i32>, Option<u64>) {
    (expected.and_then(Expected::version), expected.and_then(Expected::czxid).map(|czxid| czxid.0))
}

fn expected(version: Option<i32>, czxid: Option<u64>) -> Option<Expected> {
    Expected::new(version, czxid.map(Zxid))
}

/// `None` for none.
fn to_quota(quota: &Quota) -> Option<wire::Quota> {
    let Quota { soft, hard } = quota;
    (!quota.is_none()).then_some(wire::Quota {
        soft_znodes: soft.znodes,
        soft_bytes: soft.bytes,
        hard_znodes: hard.znodes,
        hard_bytes: hard.bytes,
    })
}

fn quota(wire: Option<wire::Quota>) -> Result<Quota, Malformed> {
    let Some(q) = wire else { return Ok(Quota::default()) };
    let soft = Bounds { znodes: q.soft_znodes, bytes: q.soft_bytes };
    let quota = Quota { soft, hard: Bounds { znodes: q.hard_znodes, bytes: q.hard_bytes } };
    if quota.is_none() { Err(Malformed("a quota without a bound".into())) } else { Ok(quota) }
}

fn to_entries_unless_open(acl: &Acl) -> Vec<wire::AclEntry> {
    if acl.is_open() { Vec::new() } else { to_entries(acl) }
}

fn acl_or_open(entries: Vec<wire::AclEntry>) -> Result<Acl, Malformed> {
    if entries.is_empty() { Ok(Acl::default()) } else { acl(entries) }
}

fn to_entries(acl: &Acl) -> Vec<wire::AclEntry> {
    let entry = |e: &AclEntry| wire::AclEntry {
        identity: Some(to_identity(&e.identity)),
        permissions: e.permissions.bits(),
    };
    acl.entries().iter().map(entry).collect()
}

/// A list that is not the open one.
fn acl(entries: Vec<wire::AclEntry>) -> Result<Acl, Malformed> {
    let entry = |e: wire::AclEntry| {
        let permissions = Permissions::from_bits(e.permissions).ok_or_else(unknown)?;
        Ok(AclEntry { identity: identity(e.identity.ok_or_else(unknown)?)?, permissions })
    };
    let entries = entries.into_iter().map(entry).collect::<Result<_, Malformed>>()?;
    match Acl::new(entries) {
        Ok(acl) if acl.is_open() => Err(Malformed("the open access list stands where it is left out".into())),
        Ok(acl) => Ok(acl),
        Err(e) => Err(Malformed(e.to_string())),
    }
}

fn to_identities(identities: &Identities) -> Vec<wire::Identity> {
    identities.as_slice().iter().map(to_identity).collect()
}

fn identities(wire: Vec<wire::Identity>) -> Result<Identities, Malformed> {
    let count = wire.len();
    let all = wire.into_iter().map(identity).collect::<Result<Vec<_>, _>>()?;
    let sorted = all.is_sorted();
    match Identities::new(all) {
        Ok(identities) if sorted && identities.as_slice().len() == count => Ok(identities),
        Ok(_) => Err(Malformed("identities out of order, or twice".into())),
        Err(e) => Err(Malformed(e.to_string())),
    }
}

fn to_identity(identity: &Identity) -> wire::Identity {
    let scheme = match identity.scheme() {
        Scheme::World => wire::Scheme::World,
        Scheme::Digest => wire::Scheme::Digest,
        Scheme::Ip => wire::Scheme::Ip,
        Scheme::X509 => wire::Scheme::X509,
        Scheme::User => wire::Scheme::User,
        Scheme::Role => wire::Scheme::Role,
    };
    wire::Identity { scheme: scheme.into(), id: identity.id().to_owned() }
}

fn identity(identity: wire::Identity) -> Result<Identity, Malformed> {
    let scheme = match wire::Scheme::try_from(identity.scheme).map_err(|_| unknown())? {
        wire::Scheme::Unspecified => return Err(unknown()),
        wire::Scheme::World => Scheme::World,
        wire::Scheme::Digest => Scheme::Digest,
        wire::Scheme::Ip => Scheme::Ip,
        wire::Scheme::X509 => Scheme::X509,
        wire::Scheme::User => Scheme::User,
        wire::Scheme::Role => Scheme::Role,
    };
    Identity::new(scheme, &identity.id).map_err(|e| Malformed(e.to_string()))
}

// ---- records ----

impl From<Record> for wire::Record {
    fn from(record: Record) -> wire::Record {
        use wire::record::Kind;
        let kind = match record {
            Record::Header(h) => Kind::Header(wire::Header {
                applied: h.applied.0,
                digest: h.digest,
                znodes: h.znodes,
                sessions: h.sessions,
                time_ms: h.time_ms,
                format: FORMAT,
                level: h.level.0,
            }),
            Record::Znode(z) => Kind::Znode({
                let (kind, ttl_ms) = to_kind(z.kind);
                wire::Znode {
                    path: text(&z.path),
                    data: z.data,
                    czxid: z.czxid.0,
                    mzxid: z.mzxid.0,
                    pzxid: z.pzxid.0,
                    ctime_ms: z.ctime_ms,
                    mtime_ms: z.mtime_ms,
                    version: z.version,
                    cversion: z.cversion,
                    aversion: z.aversion,
                    ephemeral_owner: z.ephemeral_owner.map_or(0, |s| s.0),
                    creates: z.creates,
                    kind,
                    ttl_ms,
                    acl: z.acl.0,
                    quota: to_quota(&z.quota),
                }
            }),
            Record::Acl(list) => {
                Kind::Acl(wire::AccessList { id: list.id.0, entries: to_entries(&list.acl) })
            }
            Record::Session(s) => Kind::Session(wire::Session {
                id: s.id.0,
                token_hash: Bytes::copy_from_slice(&s.token_hash.0),
                timeout_ms: s.timeout_ms,
                acked: s.acked.0,
                stream: s.stream.0,
                owner: to_identities(&s.owner),
            }),
            Record::Result(r) => Kind::Result(wire::KeptResult {
                session: r.session.0,
                number: r.number.0,
                zxid: r.zxid.0,
                request: r.request.0,
                outcome: r.outcome,
            }),
        };
        wire::Record { kind: Some(kind) }
    }
}

impl TryFrom<wire::Record> for Record {
    type Error = Malformed;

    fn try_from(record: wire::Record) -> Result<Record, Malformed> {
        use wire::record::Kind;
        Ok(match record.kind {
            Some(Kind::Header(h)) if h.format != FORMAT => {
                return Err(Malformed(format!(
                    "the state has the format {}, and this version of Quorate reads {FORMAT} only; let the version that wrote \
                     it export the tree, and import it into a new ensemble",
                    h.format
                )));
            }
            Some(Kind::Header(h)) => Record::Header(record::Header {
                applied: Zxid(h.applied),
                digest: h.digest,
                znodes: h.znodes,
                sessions: h.sessions,
                time_ms: h.time_ms,
                level: crate::quorum::level(h.level)?,
            }),
            Some(Kind::Znode(z)) => Record::Znode(record::Znode {
                path: path(&z.path)?,
                data: z.data,
                czxid: Zxid(z.czxid),
                mzxid: Zxid(z.mzxid),
                pzxid: Zxid(z.pzxid),
                ctime_ms: z.ctime_ms,
                mtime_ms: z.mtime_ms,
                version: z.version,
                cversion: z.cversion,
                aversion: z.aversion,
                ephemeral_owner: (z.ephemeral_owner != 0).then_some(SessionId(z.ephemeral_owner)),
                creates: z.creates,
                kind: kind(z.kind, z.ttl_ms)?,
                acl: AclId(z.acl),
                quota: quota(z.quota)?,
            }),
            Some(Kind::Acl(list)) => {
                Record::Acl(record::AccessList { id: AclId(list.id), acl: acl(list.entries)? })
            }
            Some(Kind::Session(s)) => Record::Session(record::Session {
                id: SessionId(s.id),
                token_hash: token_hash(&s.token_hash)?,
                owner: identities(s.owner)?,
                timeout_ms: s.timeout_ms,
                acked: WriteNumber(s.acked),
                stream: StreamId(s.stream),
            }),
            Some(Kind::Result(r)) => Record::Result(record::KeptResult {
                session: SessionId(r.session),
                number: WriteNumber(r.number),
                zxid: Zxid(r.zxid),
                request: RequestHash(r.request),
                outcome: r.outcome,
            }),
            None => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use api::Level;

    use super::*;

    fn path(p: &str) -> Path {
        super::path(p).unwrap()
    }

    fn who(scheme: Scheme, id: &str) -> Identity {
        Identity::new(scheme, id).unwrap()
    }

    /// Everybody, all schemes and all permissions are in it.
    fn a_list() -> Acl {
        let entry =
            |bits, identity| AclEntry { identity, permissions: Permissions::from_bits(bits).unwrap() };
        Acl::new(vec![
            entry(1, Identity::anyone()),
            entry(2, who(Scheme::Digest, "ada:aGFzaA==")),
            entry(4, who(Scheme::Ip, "10.0.0.0/8")),
            entry(8, who(Scheme::X509, "CN=ada,O=x")),
            entry(16, who(Scheme::User, "ada")),
            entry(31, who(Scheme::Role, "ops")),
        ])
        .unwrap()
    }

    fn a_quota() -> Quota {
        let hard = Bounds { znodes: Some(u64::MAX), bytes: None };
        Quota { soft: Bounds { znodes: Some(0), bytes: Some(7) }, hard }
    }

    fn someone() -> Identities {
        Identities::new([who(Scheme::User, "ada"), who(Scheme::Ip, "10.0.0.1")]).unwrap()
    }

    fn commands() -> Vec<Command> {
        let create = Create {
            kind: NodeKind::Ephemeral,
            sequential: true,
            ..Create::new(path("/a/b"), Bytes::from_static(b"\0\xff"))
        };
        let other = |kind, data| Create { kind, data, ..create.clone() };
        let ttl = NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS };
        let bodies = [
            CommandBody::Write(Write::Create(Create::new(path("/p"), Bytes::new()))),
            CommandBody::Write(Write::Create(other(NodeKind::Container, None))),
            CommandBody::Write(Write::Create(Create { acl: a_list(), ..other(ttl, Some(Bytes::new())) })),
            CommandBody::Write(Write::Set { path: path("/null"), data: None, version: None }),
            CommandBody::Write(Write::Create(create.clone())),
            CommandBody::Write(Write::Set {
                path: Path::root(),
                data: Some(Bytes::new()),
                version: Some(0.into()),
            }),
            CommandBody::Write(Write::Delete { path: path("/ä"), version: None }),
            CommandBody::Write(Write::Multi(vec![
                MultiOp::Create(create),
                MultiOp::Set { path: path("/s"), data: Some(Bytes::from_static(b"x")), version: None },
                MultiOp::Delete { path: path("/d"), version: Some(3.into()) },
                MultiOp::Delete { path: path("/d"), version: Some(Zxid(4).into()) },
                MultiOp::CheckAbsent { path: path("/n") },
                MultiOp::Check {
                    path: path("/c"),
                    version: Some(Expected::Both { version: 0, czxid: Zxid(0) }),
                },
                MultiOp::SetAcl { path: path("/l"), acl: a_list(), aversion: Some(1.into()) },
            ])),
            CommandBody::Write(Write::SetAcl { path: path("/l"), acl: a_list(), aversion: None }),
            CommandBody::Write(Write::SetAcl {
                path: path("/l"),
                acl: Acl::default(),
                aversion: Some(2.into()),
            }),
            CommandBody::Write(Write::DeleteTree(DeleteTree {
                path: path("/t"),
                version: Some(Expected::Both { version: 1, czxid: Zxid(2) }),
                keep_root: true,
                max_znodes: 3,
            })),
            CommandBody::Write(Write::SetQuota { path: path("/q"), quota: Quota::default() }),
            CommandBody::Write(Write::SetQuota { path: path("/q"), quota: a_quota() }),
            CommandBody::Refuse { error: OpError::BadAcl("no".into()), request: RequestHash(0) },
            CommandBody::Refuse {
                error: OpError::Multi { index: 3, cause: Box::new(OpError::BadArguments("no".into())) },
                request: RequestHash(1 << 63),
            },
            CommandBody::Refuse { error: OpError::TooLarge { size: 9, limit: 8 }, request: RequestHash(0) },
            CommandBody::Refuse { error: OpError::DiskFull, request: RequestHash(0) },
            CommandBody::Refuse { error: OpError::Unsupported("no".into()), request: RequestHash(0) },
            CommandBody::OpenSession { token_hash: TokenHash([3; 32]), timeout_ms: 4000, sessions_max: 5 },
            CommandBody::ResumeSession { session: SessionId(77), stream: StreamId(u64::MAX) },
            CommandBody::CloseSession { session: SessionId(77), expired: Some(Epoch(3)) },
            CommandBody::CloseSession { session: SessionId(78), expired: None },
            CommandBody::Check { of: Zxid(5), digest: u64::MAX },
            CommandBody::Reap { path: path("/c"), czxid: Zxid(5), unused_ms: 7 },
        ];
        let faults = [
            PathError::Empty,
            PathError::NotAbsolute,
            PathError::TrailingSlash,
            PathError::EmptyElement(1),
            PathError::RelativeElement(2),
            PathError::BadCharacter { ch: '\u{1f600}', at: 3 },
            PathError::TooLong(9000),
        ];
        let refused = faults
            .map(|fault| CommandBody::Refuse { error: OpError::BadPath(fault), request: RequestHash(0) });
        let bodies = bodies.into_iter().chain(refused);
        let numbered = |body| Command {
            session: Some(SessionId(1)),
            stream: StreamId(7),
            number: Some(WriteNumber(2)),
            acked: WriteNumber(1),
            identities: someone(),
            body,
        };
        bodies.flat_map(|body| [numbered(body.clone()), Command::outside(body)]).collect()
    }

    fn records() -> Vec<Record> {
        let znode = record::Znode {
            path: path("/a"),
            data: Some(Bytes::from_static(b"value")),
            czxid: Zxid(1),
            mzxid: Zxid(2),
            pzxid: Zxid(3),
            ctime_ms: 4,
            mtime_ms: 5,
            version: 6,
            cversion: 7,
            aversion: 8,
            kind: NodeKind::Ephemeral,
            ephemeral_owner: Some(SessionId(9)),
            acl: AclId::OPEN,
            creates: 10,
            quota: Quota::default(),
        };
        let other = record::Znode { ephemeral_owner: None, data: Some(Bytes::new()), ..znode.clone() };
        let session = record::Session {
            id: SessionId(9),
            token_hash: TokenHash([1; 32]),
            owner: Identities::default(),
            timeout_ms: 1000,
            acked: WriteNumber(5),
            stream: StreamId(3),
        };
        vec![
            Record::Znode(record::Znode { kind: NodeKind::Persistent, ..other.clone() }),
            Record::Header(record::Header {
                applied: Zxid(1),
                digest: u64::MAX,
                znodes: 3,
                sessions: 4,
                time_ms: 5,
                level: Level(2),
            }),
            Record::Znode(znode.clone()),
            Record::Znode(record::Znode { kind: NodeKind::Container, quota: a_quota(), ..other.clone() }),
            Record::Znode(record::Znode {
                kind: NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS },
                data: None,
                acl: AclId(2),
                ..other
            }),
            Record::Acl(record::AccessList { id: AclId(2), acl: a_list() }),
            Record::Session(session.clone()),
            Record::Session(record::Session { owner: someone(), ..session }),
            Record::Result(record::KeptResult {
                session: SessionId(9),
                number: WriteNumber(6),
                zxid: Zxid(8),
                request: RequestHash(u64::MAX),
                outcome: Bytes::from_static(b"\x01\0"),
            }),
        ]
    }

    #[test]
    fn commands_come_back_as_they_were() {
        for command in commands() {
            assert_eq!(decode_command(encode_command(command.clone())), Ok(command));
        }
    }

    #[test]
    fn records_come_back_as_they_were_alone_and_in_streams_cut_anywhere() {
        let mut stream = BytesMut::new();
        for record in records() {
            let bytes = encode_record(record.clone());
            append_record(&mut stream, &bytes);
            assert_eq!(decode_record(bytes.into()), Ok(record));
        }
        for piece in [1, 7, 64, stream.len()] {
            let (mut decoder, mut read) = (RecordDecoder::default(), Vec::new());
            for piece in stream.chunks(piece) {
                decoder.push(piece);
                while let Some(record) = decoder.next_record().unwrap() {
                    read.push(record);
                }
            }
            decoder.finish().unwrap();
            assert_eq!(read, records(), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_state_of_another_format_is_refused_by_name() {
        let header = wire::Header { applied: 1, format: 2, level: 1, ..Default::default() };
        let record = wire::Record { kind: Some(wire::record::Kind::Header(header)) };
        let refused = decode_record(record.encode_to_vec().into()).unwrap_err().to_string();
        assert!(refused.contains("format 2") && refused.contains("export"), "{refused}");
    }

    #[test]
    fn commands_of_the_format_before_are_refused() {
        // A create of an empty persistent znode, a create of an ephemeral, a set, and an open session.
        for old in ["22040a022f65", "22060a022f611801", "2a080a022f6112026869", "42030a0103"] {
            let bytes: Vec<u8> =
                (0..old.len()).step_by(2).map(|i| u8::from_str_radix(&old[i..i + 2], 16).unwrap()).collect();
            assert!(decode_command(bytes.into()).is_err(), "{old}");
        }
    }

    #[test]
    fn unknown_kinds_schemes_and_permissions_are_refused() {
        let refused = |create: wire::Create| {
            let body = Some(wire::command::Body::Create(create));
            let command = wire::Command { body, ..Default::default() };
            decode_command(command.encode_to_vec().into()).unwrap_err().to_string()
        };
        let create = || wire::Create::from(Create { acl: a_list(), ..Create::new(path("/a"), "") });
        for kind in [0, 5, -1, i32::MAX] {
            let refused = refused(wire::Create { kind, ..create() });
            assert!(refused.contains("not known to this version"), "kind {kind}: {refused}");
        }
        let changed = |change: &dyn Fn(&mut wire::AclEntry)| {
            let mut create = create();
            change(&mut create.acl[0]);
            refused(create)
        };
        for scheme in [0, 7, -1] {
            let refused = changed(&|entry| entry.identity.as_mut().unwrap().scheme = scheme);
            assert!(refused.contains("not known to this version"), "scheme {scheme}: {refused}");
        }
        let bits = changed(&|entry| entry.permissions = 32);
        assert!(bits.contains("not known to this version"), "{bits}");
        assert!(refused(wire::Create { ttl_ms: 1, ..create() }).contains("of another kind"));
        let open = to_entries(&Acl::default());
        assert!(refused(wire::Create { acl: open, ..create() }).contains("open access list"));
        assert!(changed(&|entry| entry.identity.as_mut().unwrap().id.clear()).contains("empty id"));
        let long = vec![create().acl[0].clone(); Acl::ENTRIES_MAX + 1];
        assert!(refused(wire::Create { acl: long, ..create() }).contains("65 entries"));
    }

    #[test]
    fn identities_have_one_form() {
        let ada = to_identities(&someone());
        for wrong in [vec![ada[1].clone(), ada[0].clone()], vec![ada[0].clone(), ada[0].clone()]] {
            let bytes =
                wire::Command { identities: wrong, ..Command::outside(commands()[0].body.clone()).into() };
            let refused = decode_command(bytes.encode_to_vec().into()).unwrap_err().to_string();
            assert!(refused.contains("out of order"), "{refused}");
        }
    }

    #[test]
    fn what_a_later_version_has_added_is_refused_and_not_left_out() {
        let bodies: Vec<Vec<u32>> = (4..=11).chain([13, 14, 15, 16]).map(|tag| vec![tag]).collect();
        let parts =
            (1..=5).map(|tag| vec![7, 1, tag]).chain([vec![10, 1], vec![10, 1, 4], vec![10, 1, 4, 2]]);
        let acls = [vec![4, 8], vec![4, 8, 1], vec![16, 2], vec![16, 2, 1], vec![7, 1, 5, 2]];
        for path in bodies.into_iter().chain(parts).chain(acls).chain([vec![], vec![7, 1]]) {
            let all = commands().into_iter().filter_map(|c| extended(&encode_command(c), &path));
            let refused: Vec<_> = all.map(|bytes| decode_command(bytes.into()).unwrap_err()).collect();
            assert!(!refused.is_empty(), "no command has {path:?}");
            assert!(refused.iter().all(|e| e.0.contains("not known to this version")), "{refused:?}");
        }
        for path in
            [vec![], vec![1], vec![2], vec![3], vec![3, 7], vec![4], vec![5], vec![5, 2], vec![5, 2, 1]]
        {
            let all = records().into_iter().filter_map(|r| extended(&encode_record(r), &path));
            assert!(all.map(|bytes| decode_record(bytes.into())).all(|decoded| decoded.is_err()));
        }
        let later = wire::Command { number: 1, ..Default::default() };
        let refused = decode_command(later.encode_to_vec().into()).unwrap_err();
        assert!(refused.0.contains("not known to this version"), "a body of a later version: {refused}");
    }

    /// `message` with an unknown field in the message that is found by these fields; `None` if it has none there.
    fn extended(message: &[u8], path: &[u32]) -> Option<Vec<u8>> {
        use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
        let Some((&wanted, path)) = path.split_first() else {
            return Some([message, &[0xc0, 0x3e, 1]].concat());
        };
        let mut rest = message;
        while !rest.is_empty() {
            let before = message.len() - rest.len();
            let (tag, kind) = decode_key(&mut rest).unwrap();
            match kind {
                WireType::Varint => drop(decode_varint(&mut rest).unwrap()),
                WireType::SixtyFourBit => drop(rest.split_off(..8)),
                _ => {
                    let length = decode_varint(&mut rest).unwrap() as usize;
                    let inner = rest.split_off(..length).unwrap();
                    if tag == wanted {
                        let Some(inner) = extended(inner, path) else { continue };
                        let mut all = message[..before].to_vec();
                        encode_key(tag, kind, &mut all);
                        encode_varint(inner.len() as u64, &mut all);
                        return Some([all, inner, rest.to_vec()].concat());
                    }
                }
            }
        }
        None
    }

    /// What is on disks must stay readable: a change here needs another format, and a way from the old one.
    #[test]
    fn the_bytes_of_commands_and_records_are_these() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let commands: Vec<String> = commands().into_iter().map(|c| hex(&encode_command(c))).collect();
        let records: Vec<String> = records().into_iter().map(|r| hex(&encode_record(r))).collect();
        let all = [commands, records].concat().join("\n") + "\n";
        assert_eq!(all, include_str!("store/golden.txt"), "the format has changed");
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let mut decoder = RecordDecoder::default();
        decoder.push(&[200, 1, 0]);
        assert_eq!(decoder.next_record(), Ok(None));
        assert!(decoder.finish().is_err(), "cut off");
        for huge in [&[0xff; 11][..], &[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0]] {
            let mut decoder = RecordDecoder::default();
            decoder.push(huge);
            assert!(decoder.next_record().is_err(), "{huge:?}");
        }
        for command in commands() {
            let bytes = encode_command(command);
            (0..bytes.len()).for_each(|end| drop(decode_command(bytes.slice(..end))));
        }
        assert!(decode_command(Bytes::new()).is_err(), "a command without a body");
        assert!(decode_record(Bytes::from_static(b"\xff\xff")).is_err());
    }
}
