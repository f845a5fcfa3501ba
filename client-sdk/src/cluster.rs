use std::time::Duration;

use api::{Level, LevelRefusal, OpError};
use proto::{
    cluster::{Upgrade, refusal},
    v1::{GetUpgradeRequest, SetLevelRequest, cluster_client::ClusterClient},
};
use tokio::time::timeout;

use crate::{ClientError, Tls, Tried, transport};

/// Asks one node, at `host:port` or `http://host:port`, at which feature level its ensemble is, and which its members know.
///
/// # Errors
/// An endpoint that is no address; no answer within `limit`, or none that makes sense.
pub async fn upgrade_status(
    endpoint: &str,
    limit: Duration,
    tls: Option<&Tls>,
) -> Result<Upgrade, ClientError> {
    let checked = transport::endpoint(endpoint, limit, tls)?;
    let ask = async {
        let channel = transport::connect(&checked).await?;
        let upgrade = ClusterClient::new(channel).get_upgrade(GetUpgradeRequest {}).await;
        let upgrade = upgrade.map_err(|s| transport::lost(&s))?.into_inner();
        Upgrade::try_from(upgrade).map_err(|e| OpError::Internal(e.to_string()))
    };
    let answer = timeout(limit, ask).await.unwrap_or_else(|_| Err(OpError::Unavailable(late(limit))));
    answer.map_err(|why| ClientError::Node(Tried { endpoint: endpoint.to_owned(), why: Some(why) }))
}

/// Asks one node to have its ensemble raised from one feature level to another. May be asked again.
///
/// # Errors
/// Why it is not raised, or that this is not known.
pub async fn set_level(
    endpoint: &str,
    limit: Duration,
    tls: Option<&Tls>,
    expected: Level,
    level: Level,
) -> Result<Level, LevelRefusal> {
    let unavailable = |why: String| LevelRefusal::Unavailable(format!("{endpoint}: {why}"));
    let checked = transport::endpoint(endpoint, limit, tls).map_err(|e| unavailable(e.to_string()))?;
    let ask = async {
        let channel = transport::connect(&checked).await.map_err(|e| unavailable(e.to_string()))?;
        let request = SetLevelRequest { expected_level: expected.0, level: level.0 };
        let set = ClusterClient::new(channel).set_level(request).await.map_err(|s| refusal(&s))?;
        proto::quorum::level(set.into_inner().level).map_err(|e| unavailable(e.to_string()))
    };
    timeout(limit, ask).await.unwrap_or_else(|_| Err(unavailable(late(limit))))
}

fn late(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}
