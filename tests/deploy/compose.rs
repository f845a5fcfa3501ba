//! The Compose files, under faults that only containers have.

use std::collections::BTreeMap;
use std::time::Duration;

use api::ports::Role;
use client_sdk::{NodeStatus, node_status};
use tokio::runtime::Runtime;

use crate::docker::{self, Project, docker};
use crate::skipped::skipped;
use crate::writers::{self, Writers};
use crate::{eventually, output, repository};

/// The names of a node's parts in a Compose file.
struct Layout {
    file: &'static str,
    nodes: u32,
    /// The service that serves clients, without the number of the node, and its network.
    store: (&'static str, &'static str),
    /// The same of the one that has the log.
    quorum: (&'static str, &'static str),
}

#[test]
fn three_nodes_survive_kill_disconnect_and_pause() {
    let node = ("quorate", "ensemble");
    survive("three", &Layout { file: "three.yaml", nodes: 3, store: node, quorum: node });
}

#[test]
fn split_services_survive_kill_disconnect_and_pause() {
    let (store, quorum) = (("store", "clients"), ("quorum", "quorums"));
    survive("split", &Layout { file: "split.yaml", nodes: 4, store, quorum });
}

#[test]
fn the_file_with_the_tools_is_valid() {
    let Some(mut compose) = docker::compose() else {
        return skipped("neither `docker compose` nor `docker-compose`");
    };
    for file in ["three.yaml", "observability.yaml"] {
        compose.arg("--file").arg(repository().join("deploy/compose").join(file));
    }
    let shown = output(compose.arg("config"));
    for service in ["collector", "jaeger", "prometheus", "grafana", "quorate-3"] {
        assert!(shown.contains(&format!("\n  {service}:\n")), "no {service} in\n{shown}");
    }
}

fn survive(what: &str, layout: &Layout) {
    if !docker::there() {
        return;
    }
    let runtime = Runtime::new().unwrap();
    let running = Running::start(what, layout, &runtime);
    let writers = runtime.block_on(Writers::start(&running.endpoints()));
    let quorum_of = |id: u32| running.container(layout.quorum.0, id);
    let goes_on = |after: &str| {
        let before = writers.acknowledged();
        eventually(&format!("writes are acknowledged after {after}"), || {
            writers.acknowledged() >= before + 50
        });
    };
    goes_on("the start");

    let leader = running.leader();
    docker(&["kill", &quorum_of(leader)]);
    goes_on("the loss of the leader");
    docker(&["start", &quorum_of(leader)]);
    running.all_serve();

    let network = running.project.network(layout.quorum.1);
    let follower = running.follower(&[]);
    docker(&["network", "disconnect", &network, &quorum_of(follower)]);
    goes_on("a follower lost its network");
    // With one of three voters away and another one stopped there is no quorum; writes wait, and none fails.
    let other = running.follower(&[follower]);
    docker(&["pause", &quorum_of(other)]);
    std::thread::sleep(Duration::from_secs(4));
    docker(&["unpause", &quorum_of(other)]);
    goes_on("another one stood still");
    let alias = format!("quorate-{follower}");
    docker(&["network", "connect", "--alias", &alias, &network, &quorum_of(follower)]);
    running.all_serve();
    goes_on("all are back");

    let acknowledged = runtime.block_on(writers.finish());
    running.agree();
    for endpoint in running.endpoints() {
        runtime.block_on(writers::check(&endpoint, &acknowledged));
    }
    running.stop();
    println!("{what}: {} acknowledged writes are there, once each", acknowledged.iter().sum::<u64>());
}

/// An ensemble in containers.
struct Running<'a> {
    layout: &'a Layout,
    project: Project,
    runtime: &'a Runtime,
}

impl<'a> Running<'a> {
    fn start(what: &str, layout: &'a Layout, runtime: &'a Runtime) -> Running<'a> {
        let project = Project::new(what, layout.file);
        project.compose(&["up", "--detach", "--no-build"]);
        let running = Running { layout, project, runtime };
        for container in running.project.compose(&["ps", "--quiet"]).lines() {
            // The one that makes certificates ends, and has no health check.
            let state = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}} {{.State.ExitCode}}{{end}}";
            eventually("the health check says that the service is ready", || {
                let state = docker(&["inspect", "--format", state, container]);
                state == "healthy" || state == "exited 0"
            });
        }
        // As README says.
        let service = format!("{}-1", layout.store.0);
        let status = running.project.compose(&["exec", "-T", &service, "quorate", "status"]);
        assert!(status.contains("quorate-3:2188") && status.contains("leader"), "{status}");
        running
    }

    fn container(&self, service: &str, id: u32) -> String {
        self.project.container(&format!("{service}-{id}"))
    }

    /// Where clients find the nodes; changes when a container comes back to its network.
    fn endpoints(&self) -> Vec<String> {
        let (service, network) = self.layout.store;
        let network = self.project.network(network);
        let format =
            format!("{{{{with index .NetworkSettings.Networks {network:?}}}}}{{{{.IPAddress}}}}{{{{end}}}}");
        let address = |id| docker(&["inspect", "--format", &format, &self.container(service, id)]);
        (1..=self.layout.nodes).map(|id| format!("{}:2188", address(id))).collect()
    }

    /// The status of each node that answers.
    fn status(&self) -> BTreeMap<u32, NodeStatus> {
        let endpoints = self.endpoints();
        let ask = async |endpoint: &str| node_status(endpoint, Duration::from_secs(2), None).await.ok();
        let mut nodes = BTreeMap::new();
        for (id, endpoint) in (1..).zip(&endpoints) {
            nodes.extend(self.runtime.block_on(ask(endpoint)).map(|status| (id, status)));
        }
        nodes
    }

    fn leader(&self) -> u32 {
        let mut leader = None;
        eventually("there is a leader", || {
            leader = self.status().into_iter().find(|(_, s)| s.role == Role::Leading && s.serving);
            leader.is_some()
        });
        leader.unwrap().0
    }

    /// One that follows, and is none of these.
    fn follower(&self, not: &[u32]) -> u32 {
        let mut follower = None;
        eventually("another node follows", || {
            let follows =
                |(id, s): &(u32, NodeStatus)| s.role == Role::Following && s.serving && !not.contains(id);
            follower = self.status().into_iter().find(follows);
            follower.is_some()
        });
        follower.unwrap().0
    }

    fn all_serve(&self) {
        eventually("all nodes serve", || {
            let nodes = self.status();
            nodes.len() == self.layout.nodes as usize && nodes.values().all(|s| s.serving)
        });
    }

    /// Waits until all have applied the same; then they have the same state.
    fn agree(&self) {
        let mut nodes = BTreeMap::new();
        eventually("all nodes have applied the same", || {
            nodes = self.status();
            let mut applied = nodes.values().map(|s| (s.serving, s.applied, s.zxid));
            let first = applied.next();
            nodes.len() == self.layout.nodes as usize
                && first.is_some_and(|(serving, applied, zxid)| serving && applied == zxid)
                && applied.all(|one| Some(one) == first)
        });
        let digests: Vec<u64> = nodes.values().map(|s| s.digest).collect();
        assert!(digests.iter().all(|d| *d == digests[0]), "digests differ: {nodes:#?}");
    }

    /// SIGTERM reaches the processes, and they end in order.
    fn stop(self) {
        let containers = self.project.compose(&["ps", "--quiet"]);
        self.project.compose(&["stop"]);
        for container in containers.lines() {
            let state = docker(&["inspect", "--format", "{{.Name}} {{.State.ExitCode}}", container]);
            assert!(state.ends_with(" 0"), "{state}");
        }
    }
}
