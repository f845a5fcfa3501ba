//! `--level stale`: the state of one node, also without a quorum.

use api::{OpError, Read, ReadOutcome};
use client_sdk::{ClientError, Found, Options, read_stale};
use serde_json::{Value, json};

use crate::{
    args::Connection,
    exit::{Exit, Failure},
    output,
};

/// Asks the endpoints one after the other until a node answers. Says on standard error how old the answer may be, if that is
/// in question.
pub(crate) async fn ask(connection: &Connection, read: Read) -> Result<Found, Failure> {
    let limit = connection.timeout.min(Options::default().attempt_timeout);
    let tls = connection.tls.read()?;
    let credentials = connection.auth.credentials()?;
    let mut silent = Vec::new();
    for endpoint in &connection.endpoints.addresses() {
        match read_stale(endpoint, read.clone(), &credentials, limit, tls.as_ref()).await {
            Ok(found) => {
                note(endpoint, &found);
                return Ok(found);
            }
            Err(ClientError::Node(tried)) => silent.push(tried.to_string()),
            Err(e) => {
                // A refusal has no zxid; whether the znode exists is answered with one.
                if let Some(OpError::NoNode(path)) = e.refusal()
                    && let Ok(found) = read_stale(
                        endpoint,
                        Read::Exists { path: path.clone() },
                        &credentials,
                        limit,
                        tls.as_ref(),
                    )
                    .await
                {
                    note(endpoint, &found);
                }
                return Err(e.into());
            }
        }
    }
    Err(Failure::new(Exit::Unavailable, format!("no node answers: {}", silent.join("; "))))
}

fn note(endpoint: &str, found: &Found) {
    if found.leaderless {
        output::say(format_args!(
            "quorate: stale: the node at {endpoint} has no leader, this is its state of {}",
            found.zxid
        ));
    }
}

/// Suggests it when no other read is possible.
pub(crate) fn remedy(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unavailable => Failure::new(
            failure.exit,
            format!("{failure}; use --level stale to read the state of a node without a quorum"),
        ),
        _ => failure,
    }
}

/// Its zxid and whether there was a leader, for JSON.
pub(crate) fn as_of_json(found: &Found) -> Value {
    json!({"zxid": found.zxid.to_string(), "leaderless": found.leaderless})
}

/// The answer does not match the request; no node sends that.
pub(crate) fn foreign(outcome: &ReadOutcome) -> Failure {
    Failure::refused(format!("the answer of the node does not match the request: {outcome:?}"))
}
