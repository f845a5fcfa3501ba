//! What a running node shows of itself: probes, metrics, and the way to a collector.

use std::time::Duration;

use api::ports::Quorum;
use host::{
    config::NodeConfig,
    http::{self, Health, Pages, Probe},
    listen::Listener,
    otlp::{self, Collector},
};
use telemetry::Group;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Runs from before recovery until the last service has ended.
pub(crate) struct Observed {
    pub(crate) health: Health,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Observed {
    /// Begins to answer on `listener` with `health`, if there is one, and to push, if there is a collector. `service` is what this
    /// process is called, `groups` are the metrics that it has.
    pub(crate) fn start(
        node: &NodeConfig,
        health: Health,
        listener: Option<Listener>,
        service: &str,
        groups: &[Group],
        shutdown: CancellationToken,
    ) -> Observed {
        telemetry::refresh_process();
        let (id, version) = (node.id.to_string(), env!("CARGO_PKG_VERSION"));
        let resource = otlp::resource(service, &node.ensemble, &id, version);
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        if let Some(listener) = listener {
            let pages = Pages { health: health.clone(), groups: groups.to_vec(), resource: resource.clone() };
            tasks.push(tokio::spawn(http::serve(listener, pages, stop.clone())));
        }
        if let Some(endpoint) = collector(node) {
            let collector = Collector { endpoint, interval: node.telemetry.metrics_interval };
            tasks.push(tokio::spawn(otlp::push(collector, groups.to_vec(), resource, stop.clone())));
        }
        let (told, stopped) = (health.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => told.stopping(),
                () = stopped.cancelled() => {}
            }
        }));
        Observed { health, stop, tasks }
    }

    /// Makes readiness that of the store: whether it serves clients.
    pub(crate) fn ready_with_store<Q: Quorum>(&self, store: watch::Receiver<bool>, quorum: Q) {
        self.health.check(Probe::Ready, "store", move || {
            let serves = *store.borrow();
            let quorum = quorum.clone();
            async move {
                let says = describe(&quorum).await;
                match serves {
                    true => Ok(format!("serves clients; the quorum is {says}")),
                    false => Err(format!("serves no clients; the quorum is {says}")),
                }
            }
        });
    }

    /// The end: pushes the last numbers and closes the port. Not for long.
    pub(crate) async fn end(self) {
        const LIMIT: Duration = Duration::from_secs(1);
        self.stop.cancel();
        let ended = async {
            for task in self.tasks {
                // A panic there is in the log, and is no reason to fail now.
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(LIMIT, ended).await;
    }
}

/// A remark beside what the store says, which alone decides: a quorum that does not answer is waited for only briefly.
async fn describe(quorum: &impl Quorum) -> String {
    const LIMIT: Duration = Duration::from_millis(500);
    match tokio::time::timeout(LIMIT, quorum.status()).await {
        Ok(Ok(status)) => {
            let leader = status.leader.map_or("no leader".to_owned(), |id| format!("leader {id}"));
            format!("{:?}, {leader}, epoch {}", status.role, status.epoch).to_lowercase()
        }
        Ok(Err(_)) | Err(_) => "not answering".to_owned(),
    }
}

/// From the configuration, or from the variable that every OpenTelemetry SDK knows.
fn collector(node: &NodeConfig) -> Option<String> {
    let standard = || std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|v| !v.is_empty());
    node.telemetry.otlp_endpoint.clone().or_else(standard)
}
