//! [`OpError`] to and from `quorate.v1.Error`, and to and from a gRPC status.

use std::collections::HashMap;

use api::{ErrorCode, Fate, OpError, Path, PathError, Retry, SessionId, WriteNumber, Zxid};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::v1;

/// The status that says what the error says, with a `google.rpc.ErrorInfo`: domain `quorate`, reason
/// [`ErrorCode::as_str`], metadata as in `quorate.v1.Error`. [`from_status`] makes the same error of it again.
///
/// The gRPC code is for callers that know nothing of Quorate, after the rules of `google.rpc.Code`: `ABORTED` where a
/// test-and-set or sequence check failed and the caller has to start over from reading (`BAD_VERSION`,
/// `OUT_OF_ORDER`, `SESSION_MOVED`), `FAILED_PRECONDITION` where something else must be done first, `INVALID_ARGUMENT` where the
/// request can never succeed (also when it is too large).
#[must_use]
pub fn to_status(error: &OpError) -> Status {
    let code = match error.code() {
        ErrorCode::NoNode => Code::NotFound,
        ErrorCode::NodeExists => Code::AlreadyExists,
        ErrorCode::NotEmpty
        | ErrorCode::NoChildrenForEphemerals
        | ErrorCode::SessionExpired
        | ErrorCode::ResultForgotten
        | ErrorCode::Level
        | ErrorCode::WrongEnsemble
        | ErrorCode::ReadOnly
        | ErrorCode::NoSequenceNumber => Code::FailedPrecondition,
        ErrorCode::BadVersion
        | ErrorCode::BadCzxid
        | ErrorCode::Present
        | ErrorCode::OutOfOrder
        | ErrorCode::SessionMoved
        | ErrorCode::NumberReused => Code::Aborted,
        ErrorCode::BadPath | ErrorCode::BadArguments | ErrorCode::BadAcl | ErrorCode::TooLarge => {
            Code::InvalidArgument
        }
        ErrorCode::NoAuth => Code::PermissionDenied,
        ErrorCode::Unsupported => Code::Unimplemented,
        ErrorCode::Overloaded | ErrorCode::DiskFull | ErrorCode::LimitExceeded | ErrorCode::QuotaExceeded => {
            Code::ResourceExhausted
        }
        ErrorCode::Gone | ErrorCode::AnswerTooLarge => Code::OutOfRange,
        ErrorCode::TimedOut => Code::DeadlineExceeded,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::Unknown | ErrorCode::Other => Code::Unknown,
        ErrorCode::Internal => Code::Internal,
    };
    let mut message = error.to_string();
    clip(&mut message, STATUS_MESSAGE_MAX);
    let mut metadata = metadata(error, &message);
    // The caller knows its path. Headers have no room for a long one.
    metadata.retain(|key, value| key != "path" || value.len() <= STATUS_PATH_MAX);
    if let Some(detail) = metadata.get_mut("detail") {
        clip(detail, STATUS_PATH_MAX);
    }
    metadata.insert(FATE.to_owned(), fate_to_wire(error.fate()).as_str_name().replace("FATE_", ""));
    metadata.insert(RETRY.to_owned(), retry_to_wire(error.retry()).as_str_name().replace("RETRY_", ""));
    let info = ErrorDetails::with_error_info(error.code().as_str(), DOMAIN, metadata);
    Status::with_error_details(code, message, info)
}

/// The error of a status. Exact if [`to_status`] made it; else [`not_ours`].
#[must_use]
pub fn from_status(status: &Status) -> OpError {
    details(status).unwrap_or_else(|| {
        let text = match status.message() {
            "" => format!("{:?}", status.code()),
            message => format!("{:?}: {message}", status.code()),
        };
        not_ours(status.code(), text)
    })
}

/// The nearest error of a status that Quorate did not make: the transport or a proxy did, perhaps after the node
/// had carried the request out. So its fate is unknown, whatever the code.
#[must_use]
pub fn not_ours(code: Code, text: String) -> OpError {
    let nearest = match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unauthenticated | Code::PermissionDenied => {
            OpError::BadArguments(text)
        }
        Code::Unimplemented => OpError::BadArguments(format!(
            "{text}; nothing of Quorate's client API answers there, check host and port"
        )),
        Code::Unavailable => OpError::Unavailable(text),
        Code::ResourceExhausted => OpError::Overloaded(text),
        Code::Internal | Code::DataLoss => return OpError::Internal(text),
        _ => return OpError::Unknown(text),
    };
    let (code, retry) = (nearest.code(), nearest.retry());
    OpError::Other { code, text: nearest.to_string(), fate: Fate::Unknown, retry }
}

/// The error in a status that Quorate itself made; `None` for any other status.
#[must_use]
pub fn details(status: &Status) -> Option<OpError> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    let code = CODES.iter().find(|(code, _)| code.as_str() == info.reason).map(|&(_, wire)| wire);
    let named =
        |key: &str, prefix: &str| format!("{prefix}{}", info.metadata.get(key).map_or("", String::as_str));
    let fate = v1::Fate::from_str_name(&named(FATE, "FATE_")).unwrap_or_default();
    let retry = v1::Retry::from_str_name(&named(RETRY, "RETRY_")).unwrap_or_default();
    let code = code.unwrap_or_default();
    Some(decode(code, status.message().to_owned(), &info.metadata, fate, retry))
}

impl From<OpError> for v1::Error {
    fn from(error: OpError) -> v1::Error {
        let message = error.to_string();
        let metadata = metadata(&error, &message);
        v1::Error {
            code: wire_code(error.code()).into(),
            message,
            metadata,
            fate: fate_to_wire(error.fate()).into(),
            retry: retry_to_wire(error.retry()).into(),
            retry_after_ms: 0,
        }
    }
}

impl From<v1::Error> for OpError {
    /// Never fails: an error that this version does not know, that lacks its metadata, or that has another fate than its code
    /// usually has, is [`OpError::Other`].
    fn from(error: v1::Error) -> OpError {
        let (code, fate, retry) = (error.code(), error.fate(), error.retry());
        decode(code, error.message, &error.metadata, fate, retry)
    }
}

/// What `message` alone does not tell a program.
fn metadata(error: &OpError, message: &str) -> HashMap<String, String> {
    let (part, cause) = part_and_cause(error);
    let mut map = HashMap::new();
    let mut put = |key: &str, value: String| {
        map.insert(key.to_owned(), value);
    };
    if let Some(index) = part {
        put("index", index.to_string());
    }
    match cause {
        OpError::NoNode(path) | OpError::NodeExists(path) | OpError::NoChildrenForEphemerals(path) => {
            put("path", path.to_string());
        }
        OpError::NotEmpty { path, children } => {
            put("path", path.to_string());
            put("children", children.to_string());
        }
        OpError::BadVersion { path, expected, actual } => {
            put("path", path.to_string());
            put("expected", expected.to_string());
            put("actual", actual.to_string());
        }
        OpError::BadCzxid { path, expected, actual } => {
            put("path", path.to_string());
            put("expected", expected.0.to_string());
            put("actual", actual.0.to_string());
        }
        OpError::Present { path, actual } => {
            put("path", path.to_string());
            put("actual", actual.0.to_string());
        }
        OpError::QuotaExceeded { path, counted, limit, actual } => {
            put("path", path.to_string());
            put("limitName", counted.to_string());
            put("limit", limit.to_string());
            put("actual", actual.to_string());
        }
        OpError::TimedOut(ms) => put("timeoutMs", ms.to_string()),
        OpError::BadPath(fault) => {
            put("rule", rule(*fault).to_owned());
            match *fault {
                PathError::Empty | PathError::NotAbsolute | PathError::TrailingSlash => {}
                PathError::EmptyElement(at) | PathError::RelativeElement(at) => put("at", at.to_string()),
                PathError::BadCharacter { ch, at } => {
                    put("at", at.to_string());
                    put("character", ch.to_string());
                }
                PathError::TooLong(size) => put("size", size.to_string()),
                PathError::TooDeep(elements) => put("elements", elements.to_string()),
            }
        }
        OpError::NoAuth { path, permission } => {
            put("path", path.to_string());
            put("permission", permission.to_string());
        }
        OpError::TooLarge { size, limit } | OpError::AnswerTooLarge { size, limit } => {
            put("size", size.to_string());
            put("limit", limit.to_string());
        }
        OpError::SessionExpired(session) | OpError::SessionMoved(session) => {
            put("session", session.0.to_string());
        }
        OpError::NumberReused(number) | OpError::ResultForgotten(number) => {
            put("number", number.0.to_string());
        }
        OpError::NoSequenceNumber { path, next } => {
            put("path", path.to_string());
            put("next", next.to_string());
        }
        OpError::OutOfOrder { expected, got } => {
            put("expected", expected.0.to_string());
            put("got", got.0.to_string());
        }
        // Free text; the message says it all unless something stands around it or it is clipped.
        OpError::BadArguments(text)
        | OpError::BadAcl(text)
        | OpError::Unsupported(text)
        | OpError::Unavailable(text)
        | OpError::Overloaded(text)
        | OpError::Level(text)
        | OpError::Unknown(text)
        | OpError::Internal(text) => {
            if text != message {
                let mut text = text.clone();
                clip(&mut text, DETAIL_MAX);
                put("detail", text);
            }
        }
        OpError::WrongEnsemble { expected, actual } => {
            put("expected", expected.to_string());
            put("actual", actual.to_string());
        }
        OpError::LimitExceeded { what, limit, actual, remedy } => {
            put("limitName", what.clone());
            put("limit", limit.to_string());
            put("actual", actual.to_string());
            put("remedy", remedy.clone());
        }
        OpError::Gone { oldest } => put("oldestZxid", oldest.0.to_string()),
        OpError::DiskFull | OpError::ReadOnly | OpError::Other { .. } => {}
        // `part_and_cause` goes through these.
        OpError::Multi { .. } => {}
    }
    map
}

/// The index of the failed part, and the error of its own. Multis do not nest; if they did, the outer index would be
/// the one that the caller knows.
fn part_and_cause(error: &OpError) -> (Option<u32>, &OpError) {
    let OpError::Multi { index, cause } = error else { return (None, error) };
    let mut cause = &**cause;
    while let OpError::Multi { cause: inner, .. } = cause {
        cause = inner;
    }
    (Some(*index), cause)
}

fn decode(
    code: v1::ErrorCode,
    message: String,
    metadata: &HashMap<String, String>,
    fate: v1::Fate,
    retry: v1::Retry,
) -> OpError {
    let fate = match fate {
        v1::Fate::NotDone => Fate::NotDone,
        v1::Fate::Done => Fate::Done,
        v1::Fate::Unknown | v1::Fate::Unspecified => Fate::Unknown,
    };
    // A code alone does not decide what became of the request.
    let known = decode_cause(code, &message, metadata).filter(|known| known.fate() == fate);
    let cause = known.unwrap_or_else(|| OpError::Other {
        code: CODES.iter().find(|(_, wire)| *wire == code).map_or(ErrorCode::Other, |&(ours, _)| ours),
        text: message,
        fate,
        retry: match retry {
            v1::Retry::AfterRead => Retry::AfterRead,
            v1::Retry::SameNode => Retry::SameNode,
            v1::Retry::OtherNode => Retry::OtherNode,
            v1::Retry::NewSession => Retry::NewSession,
            v1::Retry::Authenticate => Retry::Authenticate,
            v1::Retry::Never | v1::Retry::Unspecified => Retry::Never,
        },
    });
    match number(metadata, "index") {
        Some(index) => OpError::Multi { index, cause: Box::new(cause) },
        None => cause,
    }
}

/// `None` if the code is unknown or lacks what it needs.
fn decode_cause(code: v1::ErrorCode, message: &str, metadata: &HashMap<String, String>) -> Option<OpError> {
    let path = || metadata.get("path").and_then(|p| Path::new(p).ok());
    let text = || metadata.get("detail").map_or(message, String::as_str).to_owned();
    Some(match code {
        v1::ErrorCode::NoNode => OpError::NoNode(path()?),
        v1::ErrorCode::NodeExists => OpError::NodeExists(path()?),
        v1::ErrorCode::NotEmpty => {
            OpError::NotEmpty { path: path()?, children: number(metadata, "children")? }
        }
        v1::ErrorCode::BadVersion => OpError::BadVersion {
            path: path()?,
            expected: number(metadata, "expected")?,
            actual: number(metadata, "actual")?,
        },
        v1::ErrorCode::BadCzxid => OpError::BadCzxid {
            path: path()?,
            expected: Zxid(number(metadata, "expected")?),
            actual: Zxid(number(metadata, "actual")?),
        },
        v1::ErrorCode::Present => {
            OpError::Present { path: path()?, actual: Zxid(number(metadata, "actual")?) }
        }
        v1::ErrorCode::QuotaExceeded => OpError::QuotaExceeded {
            path: path()?,
            counted: metadata.get("limitName")?.parse().ok()?,
            limit: number(metadata, "limit")?,
            actual: number(metadata, "actual")?,
        },
        v1::ErrorCode::AnswerTooLarge => {
            OpError::AnswerTooLarge { size: number(metadata, "size")?, limit: number(metadata, "limit")? }
        }
        v1::ErrorCode::TimedOut => OpError::TimedOut(number(metadata, "timeoutMs")?),
        v1::ErrorCode::ReadOnly => OpError::ReadOnly,
        v1::ErrorCode::NoChildrenForEphemerals => OpError::NoChildrenForEphemerals(path()?),
        v1::ErrorCode::BadPath => OpError::BadPath(path_fault(metadata)?),
        v1::ErrorCode::NoAuth => {
            OpError::NoAuth { path: path()?, permission: metadata.get("permission")?.parse().ok()? }
        }
        v1::ErrorCode::BadAcl => OpError::BadAcl(text()),
        v1::ErrorCode::BadArguments => OpError::BadArguments(text()),
        v1::ErrorCode::Unsupported => OpError::Unsupported(text()),
        v1::ErrorCode::TooLarge => {
            OpError::TooLarge { size: number(metadata, "size")?, limit: number(metadata, "limit")? }
        }
        v1::ErrorCode::SessionExpired => OpError::SessionExpired(SessionId(number(metadata, "session")?)),
        v1::ErrorCode::SessionMoved => OpError::SessionMoved(SessionId(number(metadata, "session")?)),
        v1::ErrorCode::NumberReused => OpError::NumberReused(WriteNumber(number(metadata, "number")?)),
        v1::ErrorCode::ResultForgotten => OpError::ResultForgotten(WriteNumber(number(metadata, "number")?)),
        v1::ErrorCode::NoSequenceNumber => OpError::NoSequenceNumber {
            path: Path::prefix(metadata.get("path")?).ok()?,
            next: number(metadata, "next")?,
        },
        v1::ErrorCode::OutOfOrder => OpError::OutOfOrder {
            expected: WriteNumber(number(metadata, "expected")?),
            got: WriteNumber(number(metadata, "got")?),
        },
        v1::ErrorCode::Unavailable => OpError::Unavailable(text()),
        v1::ErrorCode::Overloaded => OpError::Overloaded(text()),
        v1::ErrorCode::UnknownOutcome => OpError::Unknown(text()),
        v1::ErrorCode::Internal => OpError::Internal(text()),
        v1::ErrorCode::DiskFull => OpError::DiskFull,
        v1::ErrorCode::Level => OpError::Level(text()),
        v1::ErrorCode::WrongEnsemble => OpError::WrongEnsemble {
            expected: number(metadata, "expected")?,
            actual: number(metadata, "actual")?,
        },
        v1::ErrorCode::LimitExceeded => OpError::LimitExceeded {
            what: metadata.get("limitName")?.clone(),
            limit: number(metadata, "limit")?,
            actual: number(metadata, "actual")?,
            remedy: metadata.get("remedy")?.clone(),
        },
        v1::ErrorCode::Gone => OpError::Gone { oldest: Zxid(number(metadata, "oldestZxid")?) },
        // Of parts of the API that this version does not have.
        _ => return None,
    })
}

fn path_fault(metadata: &HashMap<String, String>) -> Option<PathError> {
    let name = metadata.get("rule")?;
    let at = || number(metadata, "at");
    Some(match name.as_str() {
        "EMPTY" => PathError::Empty,
        "NOT_ABSOLUTE" => PathError::NotAbsolute,
        "TRAILING_SLASH" => PathError::TrailingSlash,
        "EMPTY_ELEMENT" => PathError::EmptyElement(at()?),
        "RELATIVE_ELEMENT" => PathError::RelativeElement(at()?),
        "BAD_CHARACTER" => PathError::BadCharacter { ch: number(metadata, "character")?, at: at()? },
        "TOO_LONG" => PathError::TooLong(number(metadata, "size")?),
        "TOO_DEEP" => PathError::TooDeep(number(metadata, "elements")?),
        _ => return None,
    })
}

fn rule(fault: PathError) -> &'static str {
    match fault {
        PathError::Empty => "EMPTY",
        PathError::NotAbsolute => "NOT_ABSOLUTE",
        PathError::TrailingSlash => "TRAILING_SLASH",
        PathError::EmptyElement(_) => "EMPTY_ELEMENT",
        PathError::RelativeElement(_) => "RELATIVE_ELEMENT",
        PathError::BadCharacter { .. } => "BAD_CHARACTER",
        PathError::TooLong(_) => "TOO_LONG",
        PathError::TooDeep(_) => "TOO_DEEP",
    }
}

fn number<T: std::str::FromStr>(metadata: &HashMap<String, String>, key: &str) -> Option<T> {
    metadata.get(key)?.parse().ok()
}

fn fate_to_wire(fate: Fate) -> v1::Fate {
    match fate {
        Fate::NotDone => v1::Fate::NotDone,
        Fate::Done => v1::Fate::Done,
        Fate::Unknown => v1::Fate::Unknown,
    }
}

fn retry_to_wire(retry: Retry) -> v1::Retry {
    match retry {
        Retry::Never => v1::Retry::Never,
        Retry::AfterRead => v1::Retry::AfterRead,
        Retry::SameNode => v1::Retry::SameNode,
        Retry::OtherNode => v1::Retry::OtherNode,
        Retry::NewSession => v1::Retry::NewSession,
        Retry::Authenticate => v1::Retry::Authenticate,
    }
}

fn wire_code(code: ErrorCode) -> v1::ErrorCode {
    CODES.iter().find(|(ours, _)| *ours == code).map(|&(_, wire)| wire).unwrap_or_default()
}

/// Cuts to at most `max` bytes, at the end of a character.
fn clip(text: &mut String, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|&i| text.is_char_boundary(i));
    text.truncate(end.unwrap_or(0));
}

const DOMAIN: &str = "quorate";

/// Keys of the metadata of a status.
const FATE: &str = "fate";
const RETRY: &str = "retry";

/// A status travels in HTTP/2 headers, of which common peers take no more than 8 KiB in all. The message is in there twice, once
/// percent-encoded (up to three bytes for one) and once in base64; the metadata once, in base64.
const STATUS_MESSAGE_MAX: usize = 512;
const STATUS_PATH_MAX: usize = 1024;

/// As long as the longest path.
const DETAIL_MAX: usize = Path::MAX_BYTES;

pub(crate) const CODES: [(ErrorCode, v1::ErrorCode); 32] = [
    (ErrorCode::NoNode, v1::ErrorCode::NoNode),
    (ErrorCode::NodeExists, v1::ErrorCode::NodeExists),
    (ErrorCode::NotEmpty, v1::ErrorCode::NotEmpty),
    (ErrorCode::BadVersion, v1::ErrorCode::BadVersion),
    (ErrorCode::NoChildrenForEphemerals, v1::ErrorCode::NoChildrenForEphemerals),
    (ErrorCode::BadPath, v1::ErrorCode::BadPath),
    (ErrorCode::NoAuth, v1::ErrorCode::NoAuth),
    (ErrorCode::BadAcl, v1::ErrorCode::BadAcl),
    (ErrorCode::BadArguments, v1::ErrorCode::BadArguments),
    (ErrorCode::Unsupported, v1::ErrorCode::Unsupported),
    (ErrorCode::TooLarge, v1::ErrorCode::TooLarge),
    (ErrorCode::SessionExpired, v1::ErrorCode::SessionExpired),
    (ErrorCode::SessionMoved, v1::ErrorCode::SessionMoved),
    (ErrorCode::OutOfOrder, v1::ErrorCode::OutOfOrder),
    (ErrorCode::NumberReused, v1::ErrorCode::NumberReused),
    (ErrorCode::ResultForgotten, v1::ErrorCode::ResultForgotten),
    (ErrorCode::NoSequenceNumber, v1::ErrorCode::NoSequenceNumber),
    (ErrorCode::Unavailable, v1::ErrorCode::Unavailable),
    (ErrorCode::Overloaded, v1::ErrorCode::Overloaded),
    (ErrorCode::Unknown, v1::ErrorCode::UnknownOutcome),
    (ErrorCode::Internal, v1::ErrorCode::Internal),
    (ErrorCode::DiskFull, v1::ErrorCode::DiskFull),
    (ErrorCode::Level, v1::ErrorCode::Level),
    (ErrorCode::WrongEnsemble, v1::ErrorCode::WrongEnsemble),
    (ErrorCode::LimitExceeded, v1::ErrorCode::LimitExceeded),
    (ErrorCode::Gone, v1::ErrorCode::Gone),
    (ErrorCode::BadCzxid, v1::ErrorCode::BadCzxid),
    (ErrorCode::Present, v1::ErrorCode::Present),
    (ErrorCode::QuotaExceeded, v1::ErrorCode::QuotaExceeded),
    (ErrorCode::AnswerTooLarge, v1::ErrorCode::AnswerTooLarge),
    (ErrorCode::TimedOut, v1::ErrorCode::TimedOut),
    (ErrorCode::ReadOnly, v1::ErrorCode::ReadOnly),
];
