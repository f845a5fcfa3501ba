//! The observable state of a running node: probes, metrics, and the exporters to a collector.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use api::{
    Ensemble, PeerId,
    ports::{PeerReport, Quorum, QuorumStatus, Room},
};
use host::{
    config::NodeConfig,
    http::{self, Commands, Health, Pages, Probe},
    listen::Listener,
    otlp::{self, Collector},
    traces::Traces,
};
use proto::remote::RemoteElection;
use quorum_svc::{Late, LogHealth};
use telemetry::Group;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::exit::{Doing as _, Failure};

/// Runs from before recovery until the last service has ended.
pub(crate) struct Observed {
    pub(crate) health: Health,
    pub(crate) commands: Commands,
    /// Who did what; off unless it is configured.
    pub(crate) audit: audit::Log,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// If there is a collector.
    traces: Option<Traces>,
}

impl Observed {
    /// The port for probes and metrics, unless they are switched off.
    pub(crate) async fn bind(address: Option<SocketAddr>) -> Result<Option<Listener>, Failure> {
        let Some(address) = address else { return Ok(None) };
        let bound = Listener::bind("HTTP", address).await;
        bound.map(Some).or_usage()
    }

    /// Begins to answer on `listener` with `health`, if there is one, and to push, if there is a collector. `service` is what this
    /// process is called, `groups` are the metrics that it has.
    ///
    /// # Errors
    /// An address of the collector that is none.
    pub(crate) fn start(
        node: &NodeConfig,
        health: Health,
        listener: Option<Listener>,
        service: &str,
        groups: &[Group],
        shutdown: CancellationToken,
    ) -> Result<Observed, Failure> {
        if groups.iter().any(|group| matches!(group, Group::Quorum | Group::Store)) {
            telemetry::set_data_dir(node.data_dir.clone());
        }
        telemetry::refresh_process();
        let (id, version) = (node.id.to_string(), env!("CARGO_PKG_VERSION"));
        let resource = otlp::resource(service, &node.ensemble, &id, version);
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        let collector = node.telemetry.otlp_endpoint.clone();
        let traces = collector
            .as_deref()
            .map(|endpoint| Traces::start(endpoint, &resource, node.telemetry.otlp_logs))
            .transpose();
        let commands = Commands::default();
        let audit = match &node.audit {
            Some(settings) => audit::Log::open(of_process(settings, service)).or_usage()?,
            None => audit::Log::default(),
        };
        let traces = traces.or_usage()?;
        if let Some(listener) = listener {
            let (groups, resource) = (groups.to_vec(), resource.clone());
            let pages = Pages {
                health: health.clone(),
                groups,
                commands: commands.clone(),
                audit: audit.clone(),
                resource,
            };
            tasks.push(tokio::spawn(http::serve(listener, pages, stop.clone())));
        }
        if let Some(endpoint) = collector {
            let collector = Collector { endpoint, interval: node.telemetry.metrics_interval };
            tasks.push(tokio::spawn(otlp::push(collector, groups.to_vec(), resource, stop.clone())));
        }
        let (stopping, stopped) = (health.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => stopping.stopping(),
                () = stopped.cancelled() => {}
            }
        }));
        Ok(Observed { health, commands, audit, stop, tasks, traces })
    }

    /// Makes readiness that of the store: whether it serves clients.
    pub(crate) fn ready_with_store<Q: Quorum>(&self, store: watch::Receiver<bool>, quorum: Q) {
        self.health.check(Probe::Ready, "store", move || {
            let serves = *store.borrow();
            let quorum = quorum.clone();
            async move {
                let says = ask(&quorum).await;
                let says = format!("{says}; peers: {}", peers(&quorum).await);
                match serves {
                    true => Ok(format!("serves clients; the quorum is {says}")),
                    false => Err(format!("serves no clients; the quorum is {says}")),
                }
            }
        });
    }

    /// Shows how much room there is on the disks. A node without space is not ready; one with little serves on.
    pub(crate) fn ready_with_room(&self, quorum: Late) {
        self.health.check(Probe::Ready, "room", move || {
            let (waits, health) = (quorum.waits_for(), quorum.log_health());
            async move {
                if let Some(why) = waits {
                    return Err(format!("takes no part until there is space on its disk: {why}"));
                }
                let Some(LogHealth { room, free, mark, .. }) = health else {
                    return Ok("not looked at yet".to_owned());
                };
                let free = format!("{} MiB free, mark {} MiB", free >> 20, mark >> 20);
                Ok(match room {
                    Room::Ample => free,
                    Room::Low => format!("low, {free}: writes that grow may be refused; free or add space"),
                    Room::Short => format!("short, {free}: clients may only delete; free or add space"),
                })
            }
        });
    }

    /// Makes readiness that of a quorum in a process of its own: it serves its store, can take part in the next election,
    /// and its disk keeps up. `patience`: the silence after which a leader takes it for lost.
    pub(crate) fn ready_with_quorum(
        &self,
        quorum: quorum_svc::Handle,
        election: RemoteElection,
        patience: Duration,
    ) {
        let asked = quorum.clone();
        self.health.check(Probe::Ready, "quorum", move || {
            let quorum = asked.clone();
            async move {
                let status = quorum.status().await.map_err(|e| e.to_string())?;
                let says = format!("{}; peers: {}", describe(&status), peers(&quorum).await);
                if status.serving { Ok(says) } else { Err(format!("not served by a leader: {says}")) }
            }
        });
        self.health.check(Probe::Ready, "election", move || {
            let linked = election.is_linked();
            async move {
                match linked {
                    true => Ok("linked".to_owned()),
                    false => Err("cannot reach the election of this node: a leader continues, but this node takes no part \
                                  in the next election; start `quorate election`, or correct `services.election`"
                        .to_owned()),
                }
            }
        });
        self.health.check(Probe::Ready, "disk", move || {
            let LogHealth { files, bytes, stuck, .. } = quorum.log_health();
            async move {
                let log = format!("the log has {} MiB in {files} files", bytes >> 20);
                match stuck < patience {
                    true => Ok(log),
                    false => Err(format!("has not finished a write for {stuck:.1?}; {log}")),
                }
            }
        });
    }

    /// Makes readiness that of an election in a process of its own: it could choose a leader, and there is a quorum of this
    /// node that it would choose for.
    pub(crate) fn ready_with_election(
        &self,
        me: PeerId,
        ensemble: Ensemble,
        peers: watch::Receiver<BTreeSet<PeerId>>,
        quorum: watch::Receiver<bool>,
    ) {
        self.health.check(Probe::Ready, "peers", move || {
            let mut reached = peers.borrow().clone();
            let names: Vec<String> = reached.iter().map(PeerId::to_string).collect();
            let others = ensemble.members().count() - 1;
            let said = match names.as_slice() {
                [] => format!("linked to none of {others} other members"),
                _ => format!("linked to {} of {others} other members: {}", names.len(), names.join(", ")),
            };
            reached.insert(me);
            let enough = ensemble.is_quorum(&reached);
            async move { if enough { Ok(said) } else { Err(format!("{said}; too few to elect a leader")) } }
        });
        self.health.check(Probe::Ready, "quorum", move || {
            let linked = *quorum.borrow();
            async move {
                match linked {
                    true => Ok("linked".to_owned()),
                    false => {
                        Err("the quorum of this node is not linked: without it this election takes no part"
                            .to_owned())
                    }
                }
            }
        });
    }

    /// The end: pushes the last spans and numbers and closes the port. Not for long.
    pub(crate) async fn end(self) {
        const LIMIT: Duration = Duration::from_secs(1);
        if let Some(traces) = self.traces {
            traces.end().await;
        }
        self.stop.cancel();
        let ended = async {
            for task in self.tasks {
                // A panic there is in the log, and is no reason to fail now.
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(LIMIT, ended).await;
        self.audit.flush(LIMIT);
    }
}

/// Each process of a node has a file of its own, named after its service.
fn of_process(settings: &audit::Settings, service: &str) -> audit::Settings {
    let Some(part) = service.strip_prefix("quorate-") else { return settings.clone() };
    let mut file = settings.file.clone().into_os_string();
    file.push(format!(".{part}"));
    audit::Settings { file: file.into(), ..settings.clone() }
}

/// A remark beside what the store says, which alone decides: a quorum that does not answer is waited for only briefly.
async fn ask(quorum: &impl Quorum) -> String {
    const LIMIT: Duration = Duration::from_millis(500);
    match tokio::time::timeout(LIMIT, quorum.status()).await {
        Ok(Ok(status)) => describe(&status),
        Ok(Err(_)) | Err(_) => "not answering".to_owned(),
    }
}

/// Each other member, and whether this node knows it or why not.
async fn peers(quorum: &impl Quorum) -> String {
    const LIMIT: Duration = Duration::from_millis(400);
    let known = match tokio::time::timeout(LIMIT, quorum.surroundings()).await {
        Ok(Ok(known)) => known.peers,
        Ok(Err(_)) | Err(_) => return "not known".to_owned(),
    };
    let said = |p: &PeerReport| format!("{} {}", p.id, p.fault.as_deref().unwrap_or("reached"));
    match known.as_slice() {
        [] => "none".to_owned(),
        peers => peers.iter().map(said).collect::<Vec<_>>().join(", "),
    }
}

fn describe(status: &QuorumStatus) -> String {
    let leader = status.leader.map_or("no leader".to_owned(), |id| format!("leader {id}"));
    format!("{:?}, {leader}, epoch {}", status.role, status.epoch).to_lowercase()
}
