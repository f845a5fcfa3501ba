//! Translates the store's answers into ZooKeeper's replies.

use api::{
    ErrorCode, MultiOutcome, OpError, ReadOutcome, WriteOutcome,
    session::{Outcome, Response},
};
use zk_jute::{Body, Code, MultiResult, OpCode, Stat};

use crate::{
    acl,
    ledger::{Fixed, Wants},
};

/// A reply, or the end of the connection without a reply.
pub(crate) fn reply(wants: Wants, response: Response) -> Result<(i64, Code, Body), OpError> {
    let zxid = response.zxid.0.cast_signed();
    let (code, body) = match (wants, response.result) {
        (Wants::Fixed(Fixed { code, body, zxid: own, .. }), _) => {
            return Ok((own.unwrap_or(zxid), code, body));
        }
        (Wants::Multi(codes), Err(OpError::Multi { index, cause })) => {
            (Code::OK, failed_multi(codes.len(), index, code_of(&cause)?))
        }
        (Wants::Exists, Ok(Outcome::Read(ReadOutcome::Exists { stat: None }))) => {
            (Code::NO_NODE, Body::Nothing)
        }
        (Wants::SetAgain | Wants::Added, Ok(Outcome::Watching(refused))) if !refused.is_empty() => {
            (code_of(&refused[0].error)?, Body::Nothing)
        }
        (wants, Ok(outcome)) => match body(wants, outcome) {
            Some(body) => (Code::OK, body),
            None => return Err(OpError::Internal("an answer does not fit its request".into())),
        },
        (_, Err(e)) => (code_of(&e)?, Body::Nothing),
    };
    Ok((zxid, code, body))
}

fn body(wants: Wants, outcome: Outcome) -> Option<Body> {
    Some(match (wants, outcome) {
        (Wants::Created { stat: false }, Outcome::Write(WriteOutcome::Created { path, .. })) => {
            Body::Path(path.as_str().to_owned())
        }
        (Wants::Created { stat: true }, Outcome::Write(WriteOutcome::Created { path, stat })) => {
            Body::PathStat(path.as_str().to_owned(), stat_to_wire(&stat))
        }
        (Wants::Deleted, Outcome::Write(WriteOutcome::Deleted)) => Body::Nothing,
        (Wants::Set, Outcome::Write(WriteOutcome::Set { stat })) => Body::Stat(stat_to_wire(&stat)),
        (Wants::Multi(codes), Outcome::Write(WriteOutcome::Multi(outcomes))) => {
            let results = codes.into_iter().zip(outcomes);
            Body::Multi(results.map(|(code, outcome)| multi_result(code, outcome)).collect())
        }
        (Wants::Exists, Outcome::Read(ReadOutcome::Exists { stat: Some(stat) })) => {
            Body::Stat(stat_to_wire(&stat))
        }
        (Wants::Data, Outcome::Read(ReadOutcome::Data { data, stat })) => {
            Body::Data(data, stat_to_wire(&stat))
        }
        (Wants::Count, Outcome::Read(ReadOutcome::Counted(below))) => {
            Body::Number(i32::try_from(below.znodes).unwrap_or(i32::MAX))
        }
        (Wants::Acl, Outcome::Read(ReadOutcome::Acl { acl, stat })) => {
            Body::Acl(acl::to_wire(&acl), stat_to_wire(&stat))
        }
        (Wants::AclSet, Outcome::Write(WriteOutcome::AclSet { stat })) => Body::Stat(stat_to_wire(&stat)),
        (Wants::Sync(path), Outcome::Sync) => Body::Path(path),
        (Wants::Ping, Outcome::Ping) | (Wants::Close, Outcome::Close) => Body::Nothing,
        (Wants::SetAgain, Outcome::Watching(_)) => Body::Nothing,
        (Wants::Added, Outcome::Watching(_)) => Body::Number(0),
        _ => return None,
    })
}

/// The watches that the store has rejected, and the error.
pub(crate) fn refused(response: &Response) -> Vec<(u32, OpError)> {
    match &response.result {
        Ok(Outcome::Watching(refused)) => refused.iter().map(|r| (r.id, r.error.clone())).collect(),
        _ => Vec::new(),
    }
}

fn multi_result(code: OpCode, outcome: MultiOutcome) -> MultiResult {
    match outcome {
        MultiOutcome::Created { path, .. } if code == OpCode::CREATE => {
            MultiResult::Create(path.as_str().to_owned())
        }
        MultiOutcome::Created { path, stat } => {
            MultiResult::Create2(path.as_str().to_owned(), stat_to_wire(&stat))
        }
        MultiOutcome::Set { stat } | MultiOutcome::AclSet { stat } => {
            MultiResult::SetData(stat_to_wire(&stat))
        }
        MultiOutcome::Deleted => MultiResult::Delete,
        MultiOutcome::Checked => MultiResult::Check,
    }
}

/// Parts before the failed one report success; parts after it report that they were not executed.
pub(crate) fn failed_multi(parts: usize, index: u32, code: Code) -> Body {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let result = |i: usize| match i.cmp(&index) {
        std::cmp::Ordering::Less => Code::OK,
        std::cmp::Ordering::Equal => code,
        std::cmp::Ordering::Greater => Code::RUNTIME_INCONSISTENCY,
    };
    Body::Multi((0..parts).map(|i| MultiResult::Error(result(i))).collect())
}

/// The ZooKeeper code of an error.
///
/// # Errors
/// ZooKeeper has no code for it. The connection ends: the client does not know the outcome of the request, or has to
/// use another server.
pub(crate) fn code_of(e: &OpError) -> Result<Code, OpError> {
    Ok(match e.code() {
        ErrorCode::NoNode => Code::NO_NODE,
        ErrorCode::NodeExists => Code::NODE_EXISTS,
        ErrorCode::NotEmpty => Code::NOT_EMPTY,
        ErrorCode::BadVersion | ErrorCode::BadCzxid | ErrorCode::Present => Code::BAD_VERSION,
        ErrorCode::NoChildrenForEphemerals => Code::NO_CHILDREN_FOR_EPHEMERALS,
        ErrorCode::BadPath
        | ErrorCode::BadArguments
        | ErrorCode::Level
        | ErrorCode::LimitExceeded
        | ErrorCode::AnswerTooLarge => Code::BAD_ARGUMENTS,
        ErrorCode::TimedOut => Code::REQUEST_TIMEOUT,
        ErrorCode::ReadOnly => Code::NOT_READ_ONLY,
        ErrorCode::NoAuth => Code::NO_AUTH,
        ErrorCode::BadAcl => Code::INVALID_ACL,
        ErrorCode::Unsupported => Code::UNIMPLEMENTED,
        ErrorCode::Overloaded => Code::THROTTLED_OP,
        ErrorCode::DiskFull | ErrorCode::QuotaExceeded => Code::QUOTA_EXCEEDED,
        ErrorCode::NoSequenceNumber => Code::SYSTEM_ERROR,
        ErrorCode::TooLarge
        | ErrorCode::SessionExpired
        | ErrorCode::SessionMoved
        | ErrorCode::OutOfOrder
        | ErrorCode::NumberReused
        | ErrorCode::ResultForgotten
        | ErrorCode::Unavailable
        | ErrorCode::Gone
        | ErrorCode::WrongEnsemble
        | ErrorCode::Unknown
        | ErrorCode::Internal
        | ErrorCode::Other => return Err(e.clone()),
    })
}

pub(crate) fn stat_to_wire(stat: &api::Stat) -> Stat {
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    Stat {
        czxid: stat.czxid.0.cast_signed(),
        mzxid: stat.mzxid.0.cast_signed(),
        ctime: stat.ctime_ms,
        mtime: stat.mtime_ms,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: stat.ephemeral_owner.map_or(0, |session| session.0.cast_signed()),
        data_length: number(stat.data_length),
        num_children: number(stat.num_children),
        pzxid: stat.pzxid.0.cast_signed(),
    }
}
