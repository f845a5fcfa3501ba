//! Commands: the payloads of the log.

use api::{
    Command, CommandBody, Create, DeleteTree, Epoch, MultiOp, OpError, Path, PathError, RequestHash,
    SessionId, StreamId, Write, WriteNumber, Zxid,
};
use bytes::Bytes;

use super::parts::{
    acl_or_open, expected, identities, kind, path, quota, text, to_delete, to_entries_unless_open,
    to_expected, to_identities, to_kind, to_quota, to_set, to_set_acl, token_hash,
};
use super::unknown;
use crate::{Malformed, state as wire};

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
            OpError::TimedOut(ms) => Kind::TimedOutMs(ms),
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
            Kind::TimedOutMs(ms) => OpError::TimedOut(ms),
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
            PathError::TooDeep(elements) => (Rule::TooDeep, elements, 0),
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
            Rule::TooDeep => PathError::TooDeep(at),
        })
    }
}
