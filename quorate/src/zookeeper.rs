//! The port for ZooKeeper's clients.

use std::sync::Arc;

use ::gateway::{About, Answer, Config, End, Facts, Gateway, Guest};
use api::ports::{Coordination, Quorum, Role};
use host::{
    config::NodeConfig,
    http::Commands,
    listen::{self, Bounds, Listener},
};
use store_svc::NodeService;
use telemetry::Closed;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

/// What four letter words may tell, and which are answered.
pub(crate) fn config(node: &NodeConfig) -> Result<Config, Failure> {
    let words = node.zookeeper.words.parse();
    let words = words.map_err(|e| Failure::usage(format!("`zookeeper.words`: {e}")))?;
    let mut settings = vec![
        ("dataDir".to_owned(), node.data_dir.display().to_string()),
        ("tickTime".to_owned(), node.timing.tick.as_millis().to_string()),
        ("minSessionTimeout".to_owned(), node.session.timeout_min.as_millis().to_string()),
        ("maxSessionTimeout".to_owned(), node.session.timeout_max.as_millis().to_string()),
        ("serverId".to_owned(), node.id.to_string()),
        ("quorumPort".to_owned(), node.listen.quorum.port().to_string()),
        ("electionPort".to_owned(), node.listen.election.port().to_string()),
    ];
    if let Some(address) = node.listen.zookeeper {
        settings.insert(0, ("clientPort".to_owned(), address.port().to_string()));
    }
    Ok(Config { words, settings, prover: node.prover.clone(), ..Config::default() })
}

/// What the node knows of itself.
pub(crate) fn about<Q: Quorum>(node: NodeService<Q>) -> About {
    Arc::new(move || {
        let node = node.clone();
        Box::pin(async move {
            let Ok(status) = node.look().await else { return Facts::default() };
            let alone = status.members.len() == 1;
            let mode = match status.role {
                Role::Leading if alone => Some("standalone"),
                Role::Leading => Some("leader"),
                Role::Following => Some("follower"),
                Role::Observing => Some("observer"),
                Role::Looking => None,
            };
            Facts {
                mode,
                serving: status.serving,
                zxid: status.applied.0,
                znodes: Some(status.znodes),
                sessions: Some(status.sessions),
                on_disk: None,
                digest: Some(status.digest),
                leader: status.leader.map(|leader| {
                    let address = status.members.iter().find(|member| member.id == leader);
                    (leader.0, address.map(|member| member.client_address.clone()).unwrap_or_default())
                }),
                more: Vec::new(),
            }
        })
    })
}

/// Answers `/commands/NAME` from it.
pub(crate) fn answer_commands<C: Coordination>(commands: &Commands, gateway: &Gateway<C>) {
    let gateway = gateway.clone();
    commands.answer_with(move |name| {
        let gateway = gateway.clone();
        async move {
            let Answer { status, text } = gateway.command(&name).await;
            (status, text)
        }
    });
}

/// Serves them until `shutdown`; without a listener, just waits for that.
pub(crate) async fn serve<C: Coordination>(
    listener: Option<Listener>,
    gateway: Gateway<C>,
    bounds: Bounds,
    shutdown: CancellationToken,
    drain: std::time::Duration,
) -> Result<(), std::convert::Infallible> {
    let Some(listener) = listener else {
        shutdown.cancelled().await;
        return Ok(());
    };
    let serve = move |connection: listen::Connection, visitor: listen::Visitor| {
        let gateway = gateway.clone();
        async move {
            let (address, held, traffic) = (connection.peer(), visitor.held.clone(), visitor.traffic.clone());
            let guest = Guest {
                address,
                identities: connection.proven(),
                certificate: connection.certificate(),
                held,
                traffic,
            };
            match gateway.serve(connection, guest, || visitor.spoke()).await {
                End::Closed | End::Gone => None,
                End::Silent => Some(Closed::Silent),
                End::Unfinished => Some(Closed::Unfinished),
                End::Broken => Some(Closed::Broken),
            }
        }
    };
    listen::serve_visitors(listener, bounds, shutdown, drain, serve).await
}
