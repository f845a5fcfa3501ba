//! The encoding of kept results: codes and numbers.
//!
//! A client that repeats a write sends its request again, and the write number is bound to that
//! request. So a kept result omits everything that the request contains, above all paths and texts. The
//! results of failed writes with long paths then need a few bytes each, and the size of every result
//! has a bound that is known before the write is applied ([`cost_max`]).
//!
//! The layout is part of the format of checkpoints and snapshots: a tag for each outcome or error, and
//! numbers as LEB128 (signed ones zigzag). A multi has one outcome for each part.

use api::{
    CommandBody, Create, MultiOp, MultiOutcome, NodeKind, OpError, Path, PathError, Permissions, QuotaAt,
    SessionId, Stat, Usage, Write, WriteOutcome, WriteResult, Zxid, data_len, quota::Counted,
};
use bytes::Bytes;

use crate::{
    digest::{kind_code, kind_of},
    tree::QUOTAS_MAX,
};

/// Cost of a kept result besides its outcome, for the bound [`crate::KEPT_BYTES_MAX`] and others. It
/// exceeds the encoded size of the key, the other fields and their frames, and is about their size in
/// memory.
pub(crate) const COST: usize = 64;

/// Maximum size of the outcome of one operation: twelve numbers of up to ten bytes and a tag.
const ONE: usize = 121;

/// Number of results of single writes that a session may keep.
pub const UNACKED_WRITES: usize = crate::KEPT_BYTES_MAX / (COST + ONE);

/// Maximum cost of a kept result of this request, in bytes.
pub(crate) fn cost_max(body: &CommandBody) -> usize {
    match body {
        CommandBody::Write(Write::Multi(parts)) => {
            let part = |part: &MultiOp| match part {
                MultiOp::Set { .. } | MultiOp::SetAcl { .. } => ONE,
                // A time and a number of ten digits.
                MultiOp::Create(_) => 16,
                MultiOp::Delete { .. } | MultiOp::Check { .. } | MultiOp::CheckAbsent { .. } => 1,
            };
            // A failed multi has an index and the error of that part.
            COST + ONE + parts.iter().map(part).sum::<usize>()
        }
        // A znode whose children the caller must not delete.
        CommandBody::Write(Write::DeleteTree(_)) => COST + ONE + Path::MAX_BYTES,
        _ => COST + ONE,
    }
}

/// Encodes the result of a write.
pub(crate) fn encode(body: &CommandBody, result: &WriteResult) -> Bytes {
    let mut out = Vec::new();
    match (body, result) {
        (CommandBody::Refuse { .. }, Err(OpError::TooLarge { size, limit })) => {
            put_all(&mut out, TOO_LARGE, [*size, *limit]);
        }
        (CommandBody::Refuse { .. }, Err(OpError::DiskFull)) => out.push(DISK_FULL),
        (CommandBody::Refuse { .. }, Err(OpError::TimedOut(ms))) => {
            put_all(&mut out, TIMED_OUT, [u64::from(*ms)]);
        }
        (CommandBody::Refuse { .. }, _) => out.push(REFUSED),
        (_, Ok(WriteOutcome::Multi(outcomes))) => {
            out.push(MULTI);
            outcomes.iter().for_each(|o| put_part(&mut out, o));
        }
        (_, Ok(WriteOutcome::Created { path, stat })) => put_created(&mut out, path, stat),
        (_, Ok(WriteOutcome::Set { stat })) => put_set(&mut out, stat),
        (_, Ok(WriteOutcome::AclSet { stat })) => put_acl_set(&mut out, stat),
        (_, Ok(WriteOutcome::TreeDeleted { znodes })) => put_all(&mut out, TREE_DELETED, [*znodes]),
        (_, Ok(WriteOutcome::QuotaSet(QuotaAt { used, .. }))) => {
            put_all(&mut out, QUOTA_SET, [used.znodes, used.bytes]);
        }
        (_, Ok(_)) => out.push(DONE),
        (CommandBody::Write(Write::DeleteTree(_)), Err(OpError::NoAuth { path, permission })) => {
            let path = path.as_str();
            put_all(&mut out, NO_AUTH_BELOW, [permission.bits().into(), path.len() as u64]);
            out.extend_from_slice(path.as_bytes());
        }
        (_, Err(error)) => put_error(&mut out, error),
    }
    out.into()
}

/// Decodes the result of the write that `body` repeats.
pub(crate) fn decode(session: SessionId, zxid: Zxid, body: &CommandBody, outcome: &[u8]) -> WriteResult {
    let mut input = Input { rest: outcome, session, zxid };
    input.result(body).unwrap_or_else(|| {
        // This happens only if the node of the client rejects a request that another node has accepted:
        // their limits differ, and the node has not applied the write yet.
        Err(OpError::Unknown(format!(
            "the write was carried out at {zxid}, but this node did not know that and refused it, so it cannot tell its \
             result; read it, or send the write again"
        )))
    })
}

fn put_part(out: &mut Vec<u8>, outcome: &MultiOutcome) {
    match outcome {
        MultiOutcome::Created { path, stat } => put_created(out, path, stat),
        MultiOutcome::Set { stat } => put_set(out, stat),
        MultiOutcome::AclSet { stat } => put_acl_set(out, stat),
        MultiOutcome::Deleted | MultiOutcome::Checked => out.push(DONE),
    }
}

/// A plain create keeps the number as well, although it has no use: only the request distinguishes the two.
fn put_created(out: &mut Vec<u8>, path: &Path, stat: &Stat) {
    let name = path.name();
    let digits = name.len().checked_sub(DIGITS).and_then(|at| name.get(at..));
    let number = digits.and_then(|digits| digits.parse().ok()).unwrap_or_default();
    put_all(out, CREATED, [zigzag(stat.ctime_ms), number]);
}

fn put_set(out: &mut Vec<u8>, s: &Stat) {
    let numbers = [
        s.czxid.0,
        s.pzxid.0,
        zigzag(s.ctime_ms),
        zigzag(s.mtime_ms),
        zigzag(s.version.into()),
        zigzag(s.cversion.into()),
        zigzag(s.aversion.into()),
        s.ephemeral_owner.map_or(0, |s| s.0),
        s.num_children.into(),
        kind_code(s.kind),
    ];
    put_all(out, SET, numbers);
}

fn put_acl_set(out: &mut Vec<u8>, s: &Stat) {
    let numbers = [
        s.czxid.0,
        s.mzxid.0,
        s.pzxid.0,
        zigzag(s.ctime_ms),
        zigzag(s.mtime_ms),
        zigzag(s.version.into()),
        zigzag(s.cversion.into()),
        zigzag(s.aversion.into()),
        s.ephemeral_owner.map_or(0, |s| s.0),
        s.num_children.into(),
        kind_code(s.kind),
        s.data_length.into(),
    ];
    put_all(out, ACL_SET, numbers);
}

fn put_error(out: &mut Vec<u8>, error: &OpError) {
    match error {
        OpError::NoNode(_) => out.push(NO_NODE),
        OpError::NodeExists(_) => out.push(NODE_EXISTS),
        OpError::NoChildrenForEphemerals(_) => out.push(NO_CHILDREN),
        OpError::NotEmpty { children, .. } => put_all(out, NOT_EMPTY, [u64::from(*children)]),
        OpError::BadVersion { expected, actual, .. } => {
            put_all(out, BAD_VERSION, [zigzag((*expected).into()), zigzag((*actual).into())]);
        }
        OpError::BadCzxid { expected, actual, .. } => put_all(out, BAD_CZXID, [expected.0, actual.0]),
        OpError::Present { actual, .. } => put_all(out, PRESENT, [actual.0]),
        OpError::QuotaExceeded { path, counted, limit, actual } => {
            // The actual value is above the requested limit.
            put_all(out, QUOTA_EXCEEDED, [path.as_str().len() as u64, *counted as u64, *limit, *actual]);
        }
        OpError::LimitExceeded { limit, actual, .. } => put_all(out, LIMIT_EXCEEDED, [*limit, *actual]),
        OpError::NoAuth { permission, .. } => put_all(out, NO_AUTH, [permission.bits().into()]),
        OpError::BadPath(PathError::TooLong(size)) => put_all(out, TOO_LONG, [*size as u64]),
        OpError::NoSequenceNumber { next, .. } => put_all(out, NO_SEQUENCE_NUMBER, [*next]),
        OpError::Multi { index, cause } => {
            put_all(out, MULTI_FAILED, [u64::from(*index)]);
            put_error(out, cause);
        }
        // The tree returns no other error.
        _ => out.push(REFUSED),
    }
}

struct Input<'a> {
    rest: &'a [u8],
    session: SessionId,
    zxid: Zxid,
}

/// One operation of a request.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Create(&'a Create),
    Set(&'a Path, u32),
    SetAcl(&'a Path),
    Delete(&'a Path),
    Check(&'a Path),
    DeleteTree(&'a Path),
    SetQuota(&'a Path),
}

impl Input<'_> {
    fn result(&mut self, body: &CommandBody) -> Option<WriteResult> {
        match (self.rest.first()?, body) {
            (&TOO_LARGE, _) => {
                let [size, limit] = self.numbers()?;
                Some(Err(OpError::TooLarge { size, limit }))
            }
            (&DISK_FULL, _) => Some(Err(OpError::DiskFull)),
            (&TIMED_OUT, _) => {
                let [ms] = self.numbers()?;
                Some(Err(OpError::TimedOut(u32::try_from(ms).ok()?)))
            }
            (&REFUSED, CommandBody::Refuse { error, .. }) => Some(Err(error.clone())),
            (&REFUSED, CommandBody::Write(Write::Multi(_))) => Some(Err(refused())),
            (&MULTI_FAILED, CommandBody::Write(Write::Multi(parts))) => {
                let [index] = self.numbers()?;
                let index = u32::try_from(index).ok()?;
                let cause = self.error(asked(parts.get(index as usize)?))?;
                Some(Err(OpError::Multi { index, cause: Box::new(cause) }))
            }
            (&MULTI, CommandBody::Write(Write::Multi(parts))) => {
                self.rest = &self.rest[1..];
                let outcomes = parts.iter().map(|part| self.part(part)).collect::<Option<_>>()?;
                Some(Ok(WriteOutcome::Multi(outcomes)))
            }
            (_, CommandBody::Write(write)) => Some(self.single(write)),
            _ => None,
        }
    }

    fn single(&mut self, write: &Write) -> WriteResult {
        let asked = match write {
            Write::Create(create) => Asked::Create(create),
            Write::Set { path, data, .. } => Asked::Set(path, data_len(data) as u32),
            Write::SetAcl { path, .. } => Asked::SetAcl(path),
            Write::Delete { path, .. } => Asked::Delete(path),
            Write::DeleteTree(tree) => {
                if let Some(outcome) = self.of_tree() {
                    return outcome;
                }
                Asked::DeleteTree(&tree.path)
            }
            Write::SetQuota { path, quota } => {
                if let Some(used) = self.quota_use() {
                    return Ok(WriteOutcome::QuotaSet(QuotaAt { path: path.clone(), quota: *quota, used }));
                }
                Asked::SetQuota(path)
            }
            Write::Multi(_) => return Err(damaged()),
        };
        match self.outcome(asked) {
            Some(MultiOutcome::Created { path, stat }) => Ok(WriteOutcome::Created { path, stat }),
            Some(MultiOutcome::Set { stat }) => Ok(WriteOutcome::Set { stat }),
            Some(MultiOutcome::AclSet { stat }) => Ok(WriteOutcome::AclSet { stat }),
            Some(MultiOutcome::Deleted | MultiOutcome::Checked) => Ok(WriteOutcome::Deleted),
            None => Err(self.error(asked).unwrap_or_else(damaged)),
        }
    }

    /// The result of a subtree removal; `None` for other results.
    fn of_tree(&mut self) -> Option<WriteResult> {
        match *self.rest.first()? {
            TREE_DELETED => {
                let [znodes] = self.numbers()?;
                Some(Ok(WriteOutcome::TreeDeleted { znodes }))
            }
            NO_AUTH_BELOW => {
                let [bits, len] = self.numbers()?;
                let permission = u32::try_from(bits).ok().and_then(Permissions::from_bits)?;
                let path = std::str::from_utf8(self.rest.get(..usize::try_from(len).ok()?)?).ok()?;
                Some(Err(OpError::NoAuth { path: Path::new(path).ok()?, permission }))
            }
            _ => None,
        }
    }

    /// The counts of a quota when it was set; `None` for other outcomes.
    fn quota_use(&mut self) -> Option<Usage> {
        if *self.rest.first()? != QUOTA_SET {
            return None;
        }
        let [znodes, bytes] = self.numbers()?;
        Some(Usage { znodes, bytes })
    }

    fn part(&mut self, part: &MultiOp) -> Option<MultiOutcome> {
        match (part, self.outcome(asked(part))?) {
            (MultiOp::Check { .. } | MultiOp::CheckAbsent { .. }, _) => Some(MultiOutcome::Checked),
            (_, outcome) => Some(outcome),
        }
    }

    /// Returns `None` if an error follows.
    fn outcome(&mut self, asked: Asked<'_>) -> Option<MultiOutcome> {
        let zxid = self.zxid;
        match (*self.rest.first()?, asked) {
            (CREATED, Asked::Create(create)) => {
                let [time, number] = self.numbers()?;
                let path = match create.sequential {
                    true => sequential(&create.path, number).ok()?,
                    false => create.path.clone(),
                };
                let stat = Stat {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime_ms: signed(time),
                    mtime_ms: signed(time),
                    kind: create.kind,
                    ephemeral_owner: (create.kind == NodeKind::Ephemeral).then_some(self.session),
                    data_length: create.data_len() as u32,
                    ..Stat::default()
                };
                Some(MultiOutcome::Created { path, stat })
            }
            (SET, Asked::Set(_, data_length)) => {
                let [czxid, pzxid, ctime, mtime, version, cversion, aversion, owner, children, kind] =
                    self.numbers()?;
                let stat = Stat {
                    czxid: Zxid(czxid),
                    mzxid: zxid,
                    pzxid: Zxid(pzxid),
                    ctime_ms: signed(ctime),
                    mtime_ms: signed(mtime),
                    version: signed(version) as i32,
                    cversion: signed(cversion) as i32,
                    aversion: signed(aversion) as i32,
                    kind: kind_of(kind),
                    ephemeral_owner: (owner != 0).then_some(SessionId(owner)),
                    data_length,
                    num_children: children as u32,
                };
                Some(MultiOutcome::Set { stat })
            }
            (ACL_SET, Asked::SetAcl(_)) => {
                let [
                    czxid,
                    mzxid,
                    pzxid,
                    ctime,
                    mtime,
                    version,
                    cversion,
                    aversion,
                    owner,
                    children,
                    kind,
                    length,
                ] = self.numbers()?;
                let stat = Stat {
                    czxid: Zxid(czxid),
                    mzxid: Zxid(mzxid),
                    pzxid: Zxid(pzxid),
                    ctime_ms: signed(ctime),
                    mtime_ms: signed(mtime),
                    version: signed(version) as i32,
                    cversion: signed(cversion) as i32,
                    aversion: signed(aversion) as i32,
                    kind: kind_of(kind),
                    ephemeral_owner: (owner != 0).then_some(SessionId(owner)),
                    data_length: length as u32,
                    num_children: children as u32,
                };
                Some(MultiOutcome::AclSet { stat })
            }
            (DONE, Asked::Delete(_) | Asked::Check(_)) => {
                self.rest = &self.rest[1..];
                Some(MultiOutcome::Deleted)
            }
            _ => None,
        }
    }

    fn error(&mut self, asked: Asked<'_>) -> Option<OpError> {
        let path = match asked {
            Asked::Create(create) => create.path.clone(),
            Asked::Set(path, _)
            | Asked::SetAcl(path)
            | Asked::Delete(path)
            | Asked::Check(path)
            | Asked::DeleteTree(path)
            | Asked::SetQuota(path) => path.clone(),
        };
        // A create fails because of its parent where other operations fail because of their own znode.
        let or_parent = || match asked {
            Asked::Create(create) => create.path.parent().unwrap_or_else(Path::root),
            _ => path.clone(),
        };
        let tag = *self.rest.first()?;
        Some(match tag {
            NO_AUTH => {
                let [bits] = self.numbers()?;
                let permission = u32::try_from(bits).ok().and_then(Permissions::from_bits)?;
                // Creates and deletes require a permission on the parent.
                let path = match asked {
                    Asked::Create(_) | Asked::Delete(_) => path.parent().unwrap_or_else(Path::root),
                    _ => path,
                };
                OpError::NoAuth { path, permission }
            }
            NO_NODE => OpError::NoNode(or_parent()),
            NO_CHILDREN => OpError::NoChildrenForEphemerals(or_parent()),
            NODE_EXISTS => OpError::NodeExists(path),
            NOT_EMPTY => {
                let [children] = self.numbers()?;
                OpError::NotEmpty { path, children: children as u32 }
            }
            BAD_VERSION => {
                let [expected, actual] = self.numbers()?;
                OpError::BadVersion { path, expected: signed(expected) as i32, actual: signed(actual) as i32 }
            }
            BAD_CZXID => {
                let [expected, actual] = self.numbers()?;
                OpError::BadCzxid { path, expected: Zxid(expected), actual: Zxid(actual) }
            }
            PRESENT => {
                let [actual] = self.numbers()?;
                OpError::Present { path, actual: Zxid(actual) }
            }
            QUOTA_EXCEEDED => {
                let [len, counted, limit, actual] = self.numbers()?;
                let path = Path::new(path.as_str().get(..usize::try_from(len).ok()?)?).ok()?;
                let counted = if counted == 0 { Counted::Znodes } else { Counted::Bytes };
                OpError::QuotaExceeded { path, counted, limit, actual }
            }
            LIMIT_EXCEEDED => {
                let [limit, actual] = self.numbers()?;
                match asked {
                    Asked::DeleteTree(_) => tree_too_large(limit, actual),
                    Asked::Create(_) if limit == Create::EPHEMERAL_PATHS_MAX as u64 => {
                        too_long_ephemerals(actual)
                    }
                    Asked::Create(_) => too_many_ephemerals(),
                    _ => too_many_quotas(),
                }
            }
            TOO_LONG => {
                let [size] = self.numbers()?;
                OpError::BadPath(PathError::TooLong(size as usize))
            }
            NO_SEQUENCE_NUMBER => {
                let [next] = self.numbers()?;
                OpError::NoSequenceNumber { path, next }
            }
            REFUSED if matches!(asked, Asked::Delete(path) | Asked::DeleteTree(path) if path.is_root()) => {
                root_stays()
            }
            REFUSED => refused(),
            _ => return None,
        })
    }

    /// The numbers after a tag.
    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut rest = self.rest.get(1..)?;
        let mut numbers = [0; N];
        for number in &mut numbers {
            for shift in (0..64).step_by(7) {
                let (&byte, behind) = rest.split_first()?;
                rest = behind;
                *number |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        self.rest = rest;
        Some(numbers)
    }
}

fn asked(part: &MultiOp) -> Asked<'_> {
    match part {
        MultiOp::Create(create) => Asked::Create(create),
        MultiOp::Set { path, data, .. } => Asked::Set(path, data_len(data) as u32),
        MultiOp::SetAcl { path, .. } => Asked::SetAcl(path),
        MultiOp::Delete { path, .. } => Asked::Delete(path),
        MultiOp::Check { path, .. } | MultiOp::CheckAbsent { path } => Asked::Check(path),
    }
}

/// The full name of a sequential znode.
pub(crate) fn sequential(prefix: &Path, number: u64) -> Result<Path, PathError> {
    prefix.with_suffix(&format!("{number:0DIGITS$}"))
}

/// The error for a delete of the root.
pub(crate) fn root_stays() -> OpError {
    OpError::BadArguments("the root / always exists and cannot be deleted".into())
}

/// The error for a removal of more znodes than one entry, or the request, allows.
pub(crate) fn tree_too_large(limit: u64, actual: u64) -> OpError {
    OpError::LimitExceeded {
        what: "znodes to delete in one entry of the log".to_owned(),
        limit,
        actual,
        remedy: "nothing was deleted; delete smaller parts of it one after another (`quorate delete -r --in-parts`)".to_owned(),
    }
}

/// The error for an ephemeral beyond the limit of a session.
pub(crate) fn too_many_ephemerals() -> OpError {
    OpError::LimitExceeded {
        what: "ephemerals of the session".to_owned(),
        limit: Create::EPHEMERALS_MAX as u64,
        actual: Create::EPHEMERALS_MAX as u64 + 1,
        remedy: "delete some, or create the others in another session".to_owned(),
    }
}

/// The error for an ephemeral whose path is too long for the rest of the limit of a session.
pub(crate) fn too_long_ephemerals(actual: u64) -> OpError {
    OpError::LimitExceeded {
        what: "bytes of paths of ephemerals of the session".to_owned(),
        limit: Create::EPHEMERAL_PATHS_MAX as u64,
        actual,
        remedy: "delete some, take shorter names, or create the others in another session".to_owned(),
    }
}

/// The error for a quota beyond the limit of the ensemble.
pub(crate) fn too_many_quotas() -> OpError {
    OpError::LimitExceeded {
        what: "quotas".to_owned(),
        limit: QUOTAS_MAX as u64,
        actual: QUOTAS_MAX as u64,
        remedy: "remove unused quotas, or set one on a parent".to_owned(),
    }
}

/// The error for a write that another node has rejected. Only that node knew the reason.
fn refused() -> OpError {
    OpError::BadArguments(
        "the node that took this write first refused it as malformed; correct it, and send it under the next number"
            .into(),
    )
}

fn damaged() -> OpError {
    OpError::Internal("a kept result is not what was written".into())
}

fn put_all<const N: usize>(out: &mut Vec<u8>, tag: u8, numbers: [u64; N]) {
    out.push(tag);
    for mut n in numbers {
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }
}

fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

fn signed(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

const DIGITS: usize = 10;

const CREATED: u8 = 1;
const SET: u8 = 2;
/// Deleted or checked.
const DONE: u8 = 3;
const NO_NODE: u8 = 4;
const NODE_EXISTS: u8 = 5;
const NOT_EMPTY: u8 = 6;
const BAD_VERSION: u8 = 7;
const NO_CHILDREN: u8 = 8;
const TOO_LONG: u8 = 9;
const NO_SEQUENCE_NUMBER: u8 = 10;
const MULTI_FAILED: u8 = 11;
const TOO_LARGE: u8 = 12;
/// Rejected by the node, or impossible to apply. The text is not kept.
const REFUSED: u8 = 13;
const MULTI: u8 = 14;
const DISK_FULL: u8 = 15;
const NO_AUTH: u8 = 16;
const ACL_SET: u8 = 17;
const BAD_CZXID: u8 = 18;
const PRESENT: u8 = 19;
const QUOTA_EXCEEDED: u8 = 20;
const LIMIT_EXCEEDED: u8 = 21;
const TIMED_OUT: u8 = 25;
const TREE_DELETED: u8 = 22;
const QUOTA_SET: u8 = 23;
/// With a path below a subtree that the request names.
const NO_AUTH_BELOW: u8 = 24;
