use std::time::Duration;

use api::{OpError, Read, ReadLevel, ReadOutcome, Zxid, proof::Credential, session};
use client_core::Failure;
use proto::{
    client::{MESSAGE_MAX, op_to_wire, read_outcome},
    v1::{self, coordination_client::CoordinationClient, request::Op, response::Result as Wire},
};
use tokio::time::timeout;
use tonic::{Extensions, Request, Status, metadata::MetadataMap};

use crate::{ClientError, Tls, Tried, transport};

/// What one node has, however old.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The answer.
    pub outcome: ReadOutcome,
    /// How far the node had applied.
    pub zxid: Zxid,
    /// The node had no leader: others may have gone on without it.
    pub leaderless: bool,
}

/// Reads what one node has, at `host:port` or `http://host:port`: [`ReadLevel::Stale`]. Needs no session and no quorum, so
/// there is an answer where [`Client`](crate::Client) has none; it can be older than what this or another client has seen.
///
/// # Errors
/// [`ClientError::refusal`] if the node answers that there is no such znode, or that its access list does not allow it; an endpoint that is no address; no answer
/// within `limit`, or none that makes sense.
pub async fn read_stale(
    endpoint: &str,
    read: Read,
    credentials: &[Credential],
    limit: Duration,
    tls: Option<&Tls>,
) -> Result<Found, ClientError> {
    let checked = transport::endpoint(endpoint, limit, tls)?;
    let failed = |why| ClientError::Node(Tried { endpoint: endpoint.to_owned(), why: Some(why) });
    let headers = headers(credentials)?;
    let ask = async {
        let channel = transport::connect(&checked).await?;
        let client = CoordinationClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        match call(client, read, &headers).await {
            Ok((result, as_of)) => found(result, as_of).map(Ok),
            // What the node itself says of the znode; all else is about the node.
            Err(status) => match transport::lost(&status) {
                refused @ (OpError::NoNode(_) | OpError::NoAuth { .. }) => Ok(Err(refused)),
                lost => Err(lost),
            },
        }
    };
    let late = |_| OpError::Unavailable(format!("no answer within {limit:?}"));
    let answer = timeout(limit, ask).await.map_err(late).flatten().map_err(failed)?;
    answer.map_err(|refused| Failure::Refused(refused).into())
}

/// How a call shows credentials.
fn headers(credentials: &[Credential]) -> Result<MetadataMap, ClientError> {
    let mut headers = MetadataMap::new();
    for Credential::Digest(secret) in credentials {
        let value = format!("digest {secret}").parse().map_err(|_| {
            OpError::BadArguments(
                "a user or password has other characters than those of ASCII: read with a session".into(),
            )
        })?;
        headers.append("authorization", value);
    }
    Ok(headers)
}

async fn call(
    mut client: CoordinationClient<tonic::transport::Channel>,
    read: Read,
    headers: &MetadataMap,
) -> Result<(Wire, Option<v1::AsOf>), Status> {
    match op_to_wire(session::Op::Read(read, ReadLevel::Stale)) {
        Some(Op::Get(request)) => {
            let response = client.get(with(request, headers)).await?.into_inner();
            let as_of = response.as_of;
            Ok((Wire::Get(response), as_of))
        }
        Some(Op::Exists(request)) => {
            let response = client.exists(with(request, headers)).await?.into_inner();
            let as_of = response.as_of;
            Ok((Wire::Exists(response), as_of))
        }
        Some(Op::Children(request)) => {
            let response = client.children(with(request, headers)).await?.into_inner();
            let as_of = response.as_of;
            Ok((Wire::Children(response), as_of))
        }
        other => Err(Status::internal(format!("a read became {other:?}"))),
    }
}

fn with<T>(message: T, headers: &MetadataMap) -> Request<T> {
    Request::from_parts(headers.clone(), Extensions::default(), message)
}

fn found(result: Wire, as_of: Option<v1::AsOf>) -> Result<Found, OpError> {
    let internal = |what: &str| OpError::Internal(what.to_owned());
    let v1::AsOf { zxid, leaderless, .. } =
        as_of.ok_or_else(|| internal("the node does not say of which state its answer is"))?;
    let outcome = read_outcome(result).map_err(|malformed| OpError::Internal(malformed.to_string()))?;
    Ok(Found { outcome, zxid: Zxid(zxid), leaderless })
}
