use std::time::Duration;

use api::OpError;
use proto::{
    client::NodeStatus,
    v1::{StatusRequest, node_client::NodeClient},
};
use tokio::time::timeout;

use crate::{ClientError, Tls, Tried, transport};

/// Asks one node, at `host:port` or `http://host:port`, about itself. Needs no session and no quorum.
///
/// # Errors
/// An endpoint that is no address; no answer within `limit`, or none that makes sense.
pub async fn node_status(
    endpoint: &str,
    limit: Duration,
    tls: Option<&Tls>,
) -> Result<NodeStatus, ClientError> {
    let checked = transport::endpoint(endpoint, limit, tls)?;
    let ask = async {
        let channel = transport::connect(&checked).await?;
        let status = NodeClient::new(channel).status(StatusRequest {}).await;
        status.map(|s| s.into_inner().into()).map_err(|s| transport::lost(&s))
    };
    let answer = timeout(limit, ask)
        .await
        .unwrap_or_else(|_| Err(OpError::Unavailable(format!("no answer within {limit:?}"))));
    answer.map_err(|why| ClientError::Node(Tried { endpoint: endpoint.to_owned(), why: Some(why) }))
}
