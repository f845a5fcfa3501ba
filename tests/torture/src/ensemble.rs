//! The processes of the ensemble, and the network between them.

use std::{
    fmt::{self, Write as _},
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use client_sdk::NodeStatus;
use proxy::Proxy;
use rustix::{
    fs::FallocateFlags,
    process::{Pid, Signal, kill_process},
};
use tokio::process::{Child, Command};

use crate::{MUTANT, NODE, ports::Ports};

/// The nodes, numbered from 1. Dropping it kills them all.
pub(crate) struct Ensemble {
    dir: PathBuf,
    ports: Ports,
    pub(crate) network: Proxy,
    nodes: u32,
    parts: &'static [Part],
    /// The bug that is planted into all of them.
    mutant: Option<String>,
    /// Of all nodes, in their order.
    processes: Vec<Process>,
    /// Dropped behind the processes that use them.
    disks: Disks,
}

/// The services of one process of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Whole,
    Election,
    Quorum,
    Store,
}

impl Part {
    /// The processes of a node, in the order in which they are started.
    pub(crate) fn of_node(split: bool) -> &'static [Part] {
        if split { &[Part::Election, Part::Quorum, Part::Store] } else { &[Part::Whole] }
    }

    fn command(self) -> &'static str {
        match self {
            Part::Whole => "serve",
            Part::Election => "election",
            Part::Quorum => "quorum",
            Part::Store => "store",
        }
    }

    /// "node 2", "the store of node 2".
    fn name(self, id: u32) -> String {
        match self {
            Part::Whole => format!("node {id}"),
            part => format!("the {} of node {id}", part.command()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command())
    }
}

struct Process {
    id: u32,
    part: Part,
    /// `None` while it is down.
    child: Option<Child>,
    started: Instant,
}

/// A process that ended without being asked to.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) who: String,
    /// How, and the end of its log.
    pub(crate) report: String,
}

impl Ensemble {
    /// Writes the configurations of the nodes, with these settings of the log, into `dir` and joins them by a
    /// network; none runs yet. Each node will be these processes.
    pub(crate) async fn prepare(
        dir: &Path,
        nodes: u32,
        parts: &'static [Part],
        log: &str,
        small_disks: bool,
    ) -> Result<Ensemble> {
        let ports = Ports::reserve()?;
        let process = |id, part| Process { id, part, child: None, started: Instant::now() };
        let processes = (1..=nodes).flat_map(|id| parts.iter().map(move |&part| process(id, part))).collect();
        let (dir, network, disks) = (dir.to_owned(), Proxy::new(), Disks::default());
        let mut ensemble = Ensemble { dir, ports, network, nodes, parts, mutant: None, processes, disks };
        for id in ensemble.ids() {
            let folder = ensemble.folder(id);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            if small_disks {
                let data = ensemble.data(id);
                ensemble.disks.mount(data)?;
            }
            let text = ensemble.configuration(id, log).await?;
            let file = ensemble.config(id);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(ensemble)
    }

    /// Each node knows the others by ports of the network that are made for this pair alone, and its services each other, too.
    async fn configuration(&self, id: u32, log: &str) -> Result<String> {
        let [.., internal_quorum, internal_election, http] = self.ports.of(id);
        let zookeeper = self.zookeeper_port(id);
        let election = self.link(id, service(Part::Election, id), internal_election).await?;
        let quorum = self.link(service(Part::Store, id), id, internal_quorum).await?;
        let mut text = format!(
            "ensemble = \"torture\"\nid = {id}\ndata_dir = \"data\"\n\n[listen]\nhost = \"127.0.0.1\"\nzookeeper_port = {zookeeper}\nhttp_port = {http}\n\
             internal_quorum_port = {internal_quorum}\ninternal_election_port = {internal_election}\n\n\
             [services]\nelection = \"http://127.0.0.1:{election}\"\nquorum = \"http://127.0.0.1:{quorum}\"\n\n\
             [log]\n{log}"
        );
        for other in self.ids() {
            let [client, mut quorum, mut election, ..] = self.ports.of(other);
            if other != id {
                for port in [&mut quorum, &mut election] {
                    *port = self.link(id, other, *port).await?;
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

    /// A port of the network that leads to another.
    async fn link(&self, from: u32, to: u32, port: u16) -> Result<u16> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let link = self.network.link(from, to, target).await;
        Ok(link.context("cannot make a port for the network")?.port())
    }

    /// Plants this bug into all processes that are started from now on.
    pub(crate) fn plant(&mut self, mutant: &str) {
        self.mutant = Some(mutant.to_owned());
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        (1..=self.nodes).collect()
    }

    /// The processes of a node.
    pub(crate) fn parts(&self) -> &'static [Part] {
        self.parts
    }

    fn folder(&self, id: u32) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    fn config(&self, id: u32) -> PathBuf {
        self.folder(id).join("quorate.toml")
    }

    /// The file with the output of a process.
    fn output(&self, id: u32, part: Part) -> PathBuf {
        self.folder(id).join(match part {
            Part::Whole => "output".to_owned(),
            part => format!("output.{part}"),
        })
    }

    fn slowness(&self, id: u32) -> PathBuf {
        self.folder(id).join("slowness")
    }

    fn data(&self, id: u32) -> PathBuf {
        self.folder(id).join("data")
    }

    /// The foreign file that takes its space.
    fn ballast(&self, id: u32) -> PathBuf {
        self.data(id).join("ballast")
    }

    /// Where it keeps its part of the log.
    pub(crate) fn log_dir(&self, id: u32) -> PathBuf {
        self.data(id).join("log")
    }

    /// Of the client port.
    pub(crate) fn endpoint(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.ports.of(id)[0])
    }

    /// Of the port for probes.
    pub(crate) fn http(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.ports.of(id)[5])
    }

    /// The port for clients of ZooKeeper.
    pub(crate) fn zookeeper_port(&self, id: u32) -> u16 {
        self.ports.zookeeper(id)
    }

    /// The port for clients.
    pub(crate) fn client_port(&self, id: u32) -> u16 {
        self.ports.of(id)[0]
    }

    /// The processes that run, by name, and the most memory that each has had since it was started, in bytes.
    pub(crate) fn memory(&self) -> Vec<(String, u64)> {
        let running =
            self.processes.iter().filter_map(|p| Some((p.part.name(p.id), p.child.as_ref()?.id()?)));
        running.filter_map(|(name, pid)| Some((name, peak_memory(pid)?))).collect()
    }

    /// Of all nodes, in their order.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.ids().into_iter().map(|id| self.endpoint(id)).collect()
    }

    /// Starts every process that is down.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        self.ids().into_iter().try_for_each(|id| self.start(id, self.parts))
    }

    /// Starts those of these processes of a node that are down. To be called on the main thread, with which the kernel ends
    /// them.
    pub(crate) fn start(&mut self, id: u32, parts: &[Part]) -> Result<()> {
        parts.iter().try_for_each(|&part| self.start_one(id, part))
    }

    fn start_one(&mut self, id: u32, part: Part) -> Result<()> {
        let (config, slowness, path) = (self.config(id), self.slowness(id), self.output(id, part));
        let mutant = self.mutant.clone();
        let Some(process) = self.process(id, part).filter(|process| process.child.is_none()) else {
            return Ok(());
        };
        let output = fs::OpenOptions::new().create(true).append(true).open(&path);
        let output = output.with_context(|| format!("cannot open {}", path.display()))?;
        let errors = output.try_clone().context("cannot share a file")?;
        let child = Command::new(std::env::current_exe().context("cannot find this program")?)
            .arg(NODE)
            .arg(slowness)
            .args([part.command(), "--exit-with-parent", &std::process::id().to_string(), "--config"])
            .arg(config)
            .env_remove("QUORATE_ENDPOINTS")
            .env_remove(MUTANT)
            .envs(mutant.map(|name| (MUTANT, name)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is ours to hand on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        process.child = Some(child.with_context(|| format!("cannot start {}", part.name(id)))?);
        process.started = Instant::now();
        Ok(())
    }

    fn process(&mut self, id: u32, part: Part) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.id == id && process.part == part)
    }

    /// Sends a signal to those of these processes of a node that run.
    pub(crate) fn signal(&self, id: u32, parts: &[Part], signal: Signal) {
        let mine = self.processes.iter().filter(|process| process.id == id && parts.contains(&process.part));
        for pid in mine.filter_map(|process| process.child.as_ref()?.id()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended just now: `deaths` will tell.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// kill -9, and waits until they are gone.
    pub(crate) async fn kill(&mut self, id: u32, parts: &[Part]) {
        self.signal(id, parts, Signal::KILL);
        for &part in parts {
            self.gone(id, part).await;
        }
    }

    /// SIGTERM to all of these at once, and after `patience` kill -9. Returns whether they ended in time and in order.
    pub(crate) async fn stop(&mut self, id: u32, parts: &[Part], patience: Duration) -> bool {
        self.signal(id, parts, Signal::TERM);
        let until = Instant::now() + patience;
        let mut orderly = true;
        for &part in parts {
            orderly &= self.stopped(id, part, until).await;
        }
        orderly
    }

    async fn stopped(&mut self, id: u32, part: Part, until: Instant) -> bool {
        let Some(process) = self.process(id, part) else { return true };
        // A process that has only begun does not listen for signals yet, and ends by them.
        let beginning = process.started.elapsed() < BEGINNING;
        let Some(child) = process.child.as_mut() else { return true };
        let ended = tokio::time::timeout_at(until.into(), child.wait()).await;
        let by_signal = |status: &ExitStatus| status.signal() == Some(Signal::TERM.as_raw());
        let orderly =
            matches!(&ended, Ok(Ok(status)) if status.success() || (beginning && by_signal(status)));
        if ended.is_err() {
            self.signal(id, &[part], Signal::KILL);
        }
        self.gone(id, part).await;
        orderly
    }

    async fn gone(&mut self, id: u32, part: Part) {
        if let Some(mut child) = self.process(id, part).and_then(|process| process.child.take()) {
            let _ = child.wait().await;
        }
    }

    /// Processes that have ended by themselves since the last time that this was asked.
    pub(crate) fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = Vec::new();
        for i in 0..self.processes.len() {
            let process = &mut self.processes[i];
            let ended = match process.child.as_mut().map(Child::try_wait) {
                None | Some(Ok(None)) => continue,
                Some(Ok(Some(status))) => status.to_string(),
                Some(Err(e)) => e.to_string(),
            };
            process.child = None;
            let (id, part) = (process.id, process.part);
            let report = format!("{ended}\n{}", self.last_lines(id, part));
            deaths.push(Death { who: part.name(id), report });
        }
        deaths
    }

    /// Breaks the connections between a service of a node and the one that calls it, and refuses new ones, or holds what
    /// they say to each other.
    pub(crate) fn unlink(&self, id: u32, called: Part, silently: bool) {
        let Some((from, to)) = caller_and_called(id, called) else { return };
        if silently {
            self.network.stall(from, to);
            self.network.stall(to, from);
        } else {
            self.network.cut(from, to);
        }
    }

    /// The end of [`Ensemble::unlink`].
    pub(crate) fn relink(&self, id: u32, called: Part) {
        if let Some((from, to)) = caller_and_called(id, called) {
            self.network.heal(from, to);
            self.network.heal(to, from);
        }
    }

    /// The end of what a process has printed.
    fn last_lines(&self, id: u32, part: Part) -> String {
        let text = fs::read(self.output(id, part)).unwrap_or_default();
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

    /// Takes the space of the node's disk except `left` bytes.
    pub(crate) fn fill(&self, id: u32, left: u64) -> Result<()> {
        let path = self.ballast(id);
        let found = rustix::fs::statvfs(self.data(id)).context("cannot tell how much space there is")?;
        let takes = found.f_bavail.saturating_mul(found.f_frsize).saturating_sub(left);
        let file = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        // The node may have taken some of it meanwhile.
        for takes in [takes, takes.saturating_sub(SLACK)] {
            if takes == 0 || rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, takes).is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn empty(&self, id: u32) {
        // It may not be there.
        let _ = fs::remove_file(self.ballast(id));
    }

    /// The status of every node, in their order; `None` if it does not answer soon.
    pub(crate) async fn status(&self) -> Vec<Option<NodeStatus>> {
        let mut status = Vec::new();
        for endpoint in self.endpoints() {
            status.push(client_sdk::node_status(&endpoint, STATUS_LIMIT, None).await.ok());
        }
        status
    }
}

/// Small file systems in memory, one for each node. They go when this is dropped.
#[derive(Default)]
struct Disks(Vec<PathBuf>);

impl Disks {
    fn mount(&mut self, place: PathBuf) -> Result<()> {
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK_SIZE, "tmpfs"]).arg(&place);
        let output = mount.output().context("cannot run mount")?;
        if !output.status.success() {
            bail!(
                "full-disk needs file systems of its own, and none can be mounted: {}; be root, or leave it out",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        self.0.push(place);
        Ok(())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for place in &self.0 {
            // Also where something still has it open.
            let _ = std::process::Command::new("umount").arg("-l").arg(place).status();
        }
    }
}

/// Where the store and the election of a node are in the network: its quorum is where other nodes see it.
fn service(part: Part, id: u32) -> u32 {
    match part {
        Part::Whole | Part::Quorum => id,
        Part::Election => 1_000 + id,
        Part::Store => 2_000 + id,
    }
}

/// The peak memory of a process so far, in bytes.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn caller_and_called(id: u32, called: Part) -> Option<(u32, u32)> {
    let caller = match called {
        Part::Election => Part::Quorum,
        Part::Quorum => Part::Store,
        Part::Whole | Part::Store => return None,
    };
    Some((service(caller, id), service(called, id)))
}

/// A process listens for signals long before it is so old.
const BEGINNING: Duration = Duration::from_secs(2);

/// Room for the logs, checkpoints and snapshots of a run.
const DISK_SIZE: &str = "size=256m";

/// Bytes that a node may take while its disk is filled.
const SLACK: u64 = 4 << 20;

const STATUS_LIMIT: Duration = Duration::from_millis(500);
const LAST_LINES: usize = 15;
