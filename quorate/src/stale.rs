//! `--level stale`: the state of one node, also without a quorum.

use api::{OpError, Read, ReadOutcome};
use client_sdk::{ClientError, Found, Options, read_stale};
use serde_json::{Value, json};

use crate::{
    args::{Connection, addresses},
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
    for endpoint in &addresses(&connection.endpoints) {
        match read_stale(endpoint, read.clone(), &credentials, limit, tls.as_ref()).await {
            Ok(found) => {
                note(endpoint, &found);
                return Ok(found);
            }
            Err(ClientError::Node(tried)) => silent.push(tried.to_string()),
            Err(e) => {
                // A refusal does not say of which state it is; whether there is such a znode, is said with it.
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

/// Names it to a user who could not read otherwise.
pub(crate) fn remedy(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unavailable => Failure::new(
            failure.exit,
            format!("{failure}; what a node without a quorum has is shown with --level stale"),
        ),
        _ => failure,
    }
}

/// What of it goes into JSON beside the answer.
pub(crate) fn as_of_json(found: &Found) -> Value {
    json!({"zxid": found.zxid.to_string(), "leaderless": found.leaderless})
}

/// The answer is of another kind than the question, which a node does not do.
pub(crate) fn foreign(outcome: &ReadOutcome) -> Failure {
    Failure::refused(format!("the node answered something else: {outcome:?}"))
}
