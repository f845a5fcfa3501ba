//! The processes of the ensemble, and the network between them.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use client_sdk::NodeStatus;
use proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{NODE, ports::Ports};

/// The nodes, numbered from 1. Dropping it kills them all.
pub(crate) struct Ensemble {
    dir: PathBuf,
    ports: Ports,
    pub(crate) network: Proxy,
    nodes: Vec<Node>,
}

struct Node {
    id: u32,
    /// `None` while it is down.
    process: Option<Child>,
    started: Instant,
}

/// A node that ended without being asked to.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) id: u32,
    /// How, and the end of its log.
    pub(crate) report: String,
}

impl Ensemble {
    /// Writes the configurations of so many nodes, with these settings of the log, into `dir` and joins them by a network; none runs yet.
    pub(crate) async fn prepare(dir: &Path, nodes: u32, log: &str) -> Result<Ensemble> {
        let ports = Ports::reserve()?;
        let ids: Vec<u32> = (1..=nodes).collect();
        let nodes = ids.iter().map(|&id| Node { id, process: None, started: Instant::now() }).collect();
        let ensemble = Ensemble { dir: dir.to_owned(), ports, network: Proxy::new(), nodes };
        for &id in &ids {
            let folder = ensemble.folder(id);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let text = ensemble.configuration(id, &ids, log).await?;
            let file = ensemble.config(id);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(ensemble)
    }

    /// Each node knows the others by ports of the network that are made for this pair alone.
    async fn configuration(&self, id: u32, ids: &[u32], log: &str) -> Result<String> {
        let mut text = format!(
            "ensemble = \"torture\"\nid = {id}\ndata_dir = \"data\"\n\n[listen]\nhost = \"127.0.0.1\"\nhttp_port = \"off\"\n\n\
             [log]\n{log}"
        );
        for &other in ids {
            let [client, mut quorum, mut election] = self.ports.of(other);
            if other != id {
                for port in [&mut quorum, &mut election] {
                    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                    let link = self.network.link(id, other, target).await;
                    *port = link.context("cannot make a port for the network")?.port();
                }
            }
            let _ = write!(
                text,
                "\n[[members]]\nid = {other}\nhost = \"127.0.0.1\"\nclient_port = {client}\nquorum_port = {quorum}\n\
                 election_port = {election}\n"
            );
        }
        Ok(text)
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn folder(&self, id: u32) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    fn config(&self, id: u32) -> PathBuf {
        self.folder(id).join("quorate.toml")
    }

    /// What the node prints.
    fn output(&self, id: u32) -> PathBuf {
        self.folder(id).join("output")
    }

    fn slowness(&self, id: u32) -> PathBuf {
        self.folder(id).join("slowness")
    }

    /// Where it keeps its part of the log.
    pub(crate) fn log_dir(&self, id: u32) -> PathBuf {
        self.folder(id).join("data/log")
    }

    /// Of the client port.
    pub(crate) fn endpoint(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.ports.of(id)[0])
    }

    /// Of all nodes, in their order.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| self.endpoint(node.id)).collect()
    }

    /// Starts a node that is down. To be called on the main thread, with which the kernel ends the node.
    pub(crate) fn start(&mut self, id: u32) -> Result<()> {
        let (config, slowness, path) = (self.config(id), self.slowness(id), self.output(id));
        let Some(node) = self.nodes.iter_mut().find(|n| n.id == id && n.process.is_none()) else {
            return Ok(());
        };
        let output = fs::OpenOptions::new().create(true).append(true).open(&path);
        let output = output.with_context(|| format!("cannot open {}", path.display()))?;
        let errors = output.try_clone().context("cannot share a file")?;
        let child = Command::new(std::env::current_exe().context("cannot find this program")?)
            .arg(NODE)
            .arg(slowness)
            .args(["--exit-with-parent", &std::process::id().to_string(), "--config"])
            .arg(config)
            .env_remove("QUORATE_ENDPOINTS")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is ours to hand on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        node.process = Some(child.with_context(|| format!("cannot start node {id}"))?);
        node.started = Instant::now();
        Ok(())
    }

    /// Sends a signal to a node, if it runs.
    pub(crate) fn signal(&self, id: u32, signal: Signal) {
        let pid = self.nodes.iter().find(|n| n.id == id).and_then(|n| n.process.as_ref()?.id());
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // It may have ended just now: `deaths` will tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// kill -9, and waits until it is gone.
    pub(crate) async fn kill(&mut self, id: u32) {
        self.signal(id, Signal::KILL);
        self.gone(id).await;
    }

    /// SIGTERM, and after `patience` kill -9. Returns whether it ended in time and in order.
    pub(crate) async fn stop(&mut self, id: u32, patience: Duration) -> bool {
        self.signal(id, Signal::TERM);
        let Some(node) = self.nodes.iter_mut().find(|n| n.id == id) else { return true };
        // A process that has only begun does not listen for signals yet, and ends by them.
        let beginning = node.started.elapsed() < BEGINNING;
        let Some(process) = node.process.as_mut() else { return true };
        let ended = tokio::time::timeout(patience, process.wait()).await;
        let by_signal = |status: &ExitStatus| status.signal() == Some(Signal::TERM.as_raw());
        let orderly =
            matches!(&ended, Ok(Ok(status)) if status.success() || (beginning && by_signal(status)));
        if ended.is_err() {
            self.signal(id, Signal::KILL);
        }
        self.gone(id).await;
        orderly
    }

    async fn gone(&mut self, id: u32) {
        let Some(node) = self.nodes.iter_mut().find(|n| n.id == id) else { return };
        if let Some(mut process) = node.process.take() {
            let _ = process.wait().await;
        }
    }

    /// Nodes that have ended by themselves since the last time that this was asked.
    pub(crate) fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = Vec::new();
        for i in 0..self.nodes.len() {
            let node = &mut self.nodes[i];
            let ended = match node.process.as_mut().map(Child::try_wait) {
                None | Some(Ok(None)) => continue,
                Some(Ok(Some(status))) => status.to_string(),
                Some(Err(e)) => e.to_string(),
            };
            node.process = None;
            let id = node.id;
            deaths.push(Death { id, report: format!("{ended}\n{}", self.last_lines(id)) });
        }
        deaths
    }

    /// The end of what a node has printed.
    fn last_lines(&self, id: u32) -> String {
        let text = fs::read(self.output(id)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Lets every sync of the node's disk take so much longer.
    pub(crate) fn slow_down(&self, id: u32, millis: u64) -> Result<()> {
        let file = self.slowness(id);
        fs::write(&file, millis.to_string()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Lets it be as fast as it can.
    pub(crate) fn speed_up(&self, id: u32) {
        // It may not be there.
        let _ = fs::remove_file(self.slowness(id));
    }

    /// What every node says of itself, in their order; `None` if it does not answer soon.
    pub(crate) async fn status(&self) -> Vec<Option<NodeStatus>> {
        let mut status = Vec::new();
        for node in &self.nodes {
            status.push(client_sdk::node_status(&self.endpoint(node.id), STATUS_LIMIT).await.ok());
        }
        status
    }
}

/// A node listens for signals long before it is so old.
const BEGINNING: Duration = Duration::from_secs(2);

const STATUS_LIMIT: Duration = Duration::from_millis(500);
const LAST_LINES: usize = 15;
