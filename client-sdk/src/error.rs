use std::{fmt, time::Duration};

use api::{ErrorCode, Fate, OpError, PathError};
use client_core::Failure;

/// Why a call did not do what it was asked. The messages name the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// A request failed: by the ensemble's answer, or without one.
    #[error("{0}")]
    Request(#[from] Failure),
    /// An endpoint is no address.
    #[error("the endpoint {endpoint:?} is no address ({why}); write host:port, as in 127.0.0.1:2188")]
    BadEndpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// No session could be opened.
    #[error(
        "no session after {waited:?}: {}; check that the ensemble runs and has a quorum, that these are its client ports, and that TLS \
         is on here if it is on there (Options::tls, --tls-ca)",
        listed(tried)
    )]
    NotConnected {
        /// The time waited, to the millisecond.
        waited: Duration,
        /// At these endpoints, in the order in which they were given.
        tried: Vec<Tried>,
    },
    /// A single node did not answer.
    #[error("{0}")]
    Node(Tried),
}

/// An endpoint that did not answer as it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// As given.
    pub endpoint: String,
    /// What happened there; `None` if nothing was heard of it.
    pub why: Option<OpError>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => write!(f, "{}: {why}", self.endpoint),
            None => write!(f, "{}: no answer", self.endpoint),
        }
    }
}

fn listed(tried: &[Tried]) -> String {
    tried.iter().map(Tried::to_string).collect::<Vec<_>>().join("; ")
}

impl ClientError {
    /// Its kind.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            ClientError::Request(Failure::Refused(error) | Failure::Rejected { error, .. }) => error.code(),
            ClientError::Request(Failure::SessionLost { .. }) => ErrorCode::SessionExpired,
            ClientError::Request(Failure::Full) => ErrorCode::Overloaded,
            ClientError::Request(Failure::TimedOut { fate } | Failure::Closed { fate }) => match fate {
                Fate::Unknown => ErrorCode::Unknown,
                Fate::NotDone | Fate::Done => ErrorCode::Unavailable,
            },
            ClientError::BadEndpoint { .. } => ErrorCode::BadArguments,
            ClientError::NotConnected { .. } => ErrorCode::Unavailable,
            ClientError::Node(tried) => tried.why.as_ref().map_or(ErrorCode::Unavailable, OpError::code),
        }
    }

    /// The ensemble's answer, if that is what the error is.
    #[must_use]
    pub fn refusal(&self) -> Option<&OpError> {
        match self {
            ClientError::Request(Failure::Refused(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the request may have been carried out all the same.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            ClientError::Request(failure) => failure.fate(),
            _ => Fate::NotDone,
        }
    }
}

impl From<OpError> for ClientError {
    fn from(error: OpError) -> ClientError {
        ClientError::Request(Failure::Refused(error))
    }
}

impl From<PathError> for ClientError {
    fn from(error: PathError) -> ClientError {
        OpError::BadPath(error).into()
    }
}
