//! Starts, stops and kills ensembles.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

/// How long anything may take that has to happen. Generous, because tests run side by side on small machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node as one process ...
const WHOLE: &[&str] = &["serve"];
/// ... and as three.
const SPLIT: &[&str] = &["election", "quorum", "store"];

/// The default processes of a node: three if `TEST_SPLIT` is set.
fn usual_parts() -> &'static [&'static str] {
    if std::env::var_os("TEST_SPLIT").is_some() { SPLIT } else { WHOLE }
}

/// An ensemble started by `quorate up`. Dropping it stops everything.
pub(crate) struct Ensemble {
    /// `None` after [`Ensemble::down`].
    up: Option<Child>,
    pub(crate) dir: PathBuf,
    pub(crate) endpoints: Vec<String>,
    /// Environment of the nodes.
    settings: Vec<(String, String)>,
    /// The same of single ones, when they are started by hand.
    own: BTreeMap<usize, Vec<(String, String)>>,
    /// The processes of each node, by the command that runs them.
    parts: &'static [&'static str],
    /// Processes that were started by hand.
    extra: BTreeMap<(usize, &'static str), Child>,
    _temp: Option<tempfile::TempDir>,
}

impl Ensemble {
    /// Three nodes in a fresh directory.
    pub(crate) fn start() -> Ensemble {
        let temp = tempfile::tempdir().unwrap();
        let mut ensemble = Ensemble::start_in(temp.path(), 3);
        ensemble._temp = Some(temp);
        ensemble
    }

    /// Three nodes in a fresh directory, each of three processes, with these settings.
    pub(crate) fn start_split(settings: &[(&str, &str)]) -> Ensemble {
        let temp = tempfile::tempdir().unwrap();
        let mut ensemble = Ensemble::start_as(temp.path(), SPLIT, 3, 0, settings);
        ensemble._temp = Some(temp);
        ensemble
    }

    /// The same in a directory that may have been used before, in either packaging.
    pub(crate) fn start_packaged_in(dir: &Path, split: bool) -> Ensemble {
        Ensemble::start_as(dir, if split { SPLIT } else { WHOLE }, 3, 0, &[])
    }

    /// Starts `nodes` nodes in a directory that may have been used before.
    pub(crate) fn start_in(dir: &Path, nodes: usize) -> Ensemble {
        Ensemble::start_as(dir, usual_parts(), nodes, 0, &[])
    }

    /// Starts `nodes` nodes, of which the last `observers` observe, with these settings (`QUORATE_*`), in a
    /// fresh directory.
    pub(crate) fn start_with(nodes: usize, observers: usize, settings: &[(&str, &str)]) -> Ensemble {
        let temp = tempfile::tempdir().unwrap();
        let mut ensemble = Ensemble::start_as(temp.path(), usual_parts(), nodes, observers, settings);
        ensemble._temp = Some(temp);
        ensemble
    }

    fn start_as(
        dir: &Path,
        parts: &'static [&'static str],
        nodes: usize,
        observers: usize,
        settings: &[(&str, &str)],
    ) -> Ensemble {
        let settings: Vec<(String, String)> =
            settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let known = dir.join("node-1/quorate.toml").exists();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = quorate();
            command.args(["up", "--nodes", &nodes.to_string(), "--data"]).arg(dir);
            if parts.len() > 1 {
                command.arg("--split");
            }
            if !known {
                command.args(["--base-port", &free_ports(nodes).to_string()]);
                command.args(["--observers", &observers.to_string()]);
            }
            let mut up = command
                .env_remove("QUORATE_ENDPOINTS")
                .envs(settings.clone())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
            let ready = lines
                .by_ref()
                .map_while(Result::ok)
                .find_map(|l| l.strip_prefix("ready: ").map(str::to_owned));
            if let Some(ready) = ready {
                std::thread::spawn(move || lines.for_each(drop));
                let mut stderr = up.stderr.take().unwrap();
                std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
                let endpoints = ready.split(',').map(str::to_owned).collect();
                let dir = dir.to_owned();
                let up = Some(up);
                let extra = BTreeMap::new();
                let own = BTreeMap::new();
                return Ensemble { up, dir, endpoints, settings, own, parts, extra, _temp: None };
            }
            let status = up.wait().unwrap();
            let mut text = String::new();
            up.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            // Another program may have taken a port between our look and the start.
            assert!(
                text.contains("in use") && !known && Instant::now() < deadline,
                "`quorate up` ended with {status} before it was ready:\n{text}"
            );
            for id in 1..=nodes {
                let _ = std::fs::remove_dir_all(dir.join(format!("node-{id}")));
            }
        }
    }

    /// An ensemble that has been started once and stopped: configured, and no node runs.
    pub(crate) fn down(nodes: usize) -> Ensemble {
        Ensemble::down_as(usual_parts(), nodes)
    }

    /// The same of three processes for each node.
    pub(crate) fn down_split(nodes: usize) -> Ensemble {
        Ensemble::down_as(SPLIT, nodes)
    }

    fn down_as(parts: &'static [&'static str], nodes: usize) -> Ensemble {
        let temp = tempfile::tempdir().unwrap();
        let mut ensemble = Ensemble::start_as(temp.path(), parts, nodes, 0, &[]);
        ensemble._temp = Some(temp);
        ensemble.stop_up();
        ensemble
    }

    /// All endpoints as `--endpoints` wants them.
    pub(crate) fn all(&self) -> String {
        self.endpoints.join(",")
    }

    /// The endpoint of node `id`, from 1.
    pub(crate) fn endpoint(&self, id: usize) -> &str {
        &self.endpoints[id - 1]
    }

    /// Where a process of a node answers plain HTTP; see `quorate up`.
    pub(crate) fn http(&self, id: usize, part: &str) -> String {
        let (host, port) = self.endpoint(id).rsplit_once(':').unwrap();
        let behind = match part {
            "quorum" => 6,
            "election" => 7,
            _ => 3,
        };
        format!("{host}:{}", port.parse::<u16>().unwrap() + behind)
    }

    /// The metrics of all processes of a node.
    pub(crate) fn metrics(&self, id: usize) -> String {
        let page = |part: &&str| {
            let (status, page) = http_get(&self.http(id, part), "/metrics");
            assert_eq!(status, 200);
            page
        };
        self.parts.iter().map(page).collect()
    }

    /// The configuration of a node.
    pub(crate) fn config(&self, id: usize) -> PathBuf {
        self.dir.join(format!("node-{id}/quorate.toml"))
    }

    /// Runs the command line tool against all nodes.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run_at(&self.all(), args)
    }

    /// Runs it and returns what it printed; it has to succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        succeed(&self.run(args), args)
    }

    /// The processes of a node.
    pub(crate) fn pids(&self, id: usize) -> Vec<u32> {
        self.parts.iter().map(|part| self.pid(id, part)).collect()
    }

    /// The processes of all nodes.
    pub(crate) fn all_pids(&self) -> Vec<u32> {
        (1..=self.endpoints.len()).flat_map(|id| self.pids(id)).collect()
    }

    /// One process of a node.
    pub(crate) fn pid(&self, id: usize, part: &str) -> u32 {
        let file = self.file(id, "pid", part);
        std::fs::read_to_string(&file).unwrap().trim().parse().unwrap()
    }

    /// The log of a node so far.
    pub(crate) fn log(&self, id: usize) -> String {
        let log = |part: &&str| std::fs::read(self.file(id, "log", part)).unwrap_or_default();
        self.parts.iter().map(|part| String::from_utf8_lossy(&log(part)).into_owned()).collect()
    }

    /// The checkpoint of a node's store.
    pub(crate) fn table(&self, id: usize) -> PathBuf {
        let table = if self.parts == SPLIT { "data/store/table" } else { "data/table" };
        self.dir.join(format!("node-{id}")).join(table)
    }

    fn file(&self, id: usize, name: &str, part: &str) -> PathBuf {
        let name = if part == "serve" { name.to_owned() } else { format!("{name}.{part}") };
        self.dir.join(format!("node-{id}")).join(name)
    }

    /// To all processes of a node.
    pub(crate) fn signal(&self, id: usize, name: &str) {
        self.pids(id).into_iter().for_each(|pid| signal(pid, name));
    }

    /// kill -9 of a node, and waits until it is dead.
    pub(crate) fn kill9(&mut self, id: usize) {
        self.signal(id, "KILL");
        for part in self.parts {
            self.kill9_part(id, part);
        }
    }

    /// kill -9 of one process of a node, and waits until it is dead.
    pub(crate) fn kill9_part(&mut self, id: usize, part: &'static str) {
        let pid = self.pid(id, part);
        signal(pid, "KILL");
        if let Some(mut child) = self.extra.remove(&(id, part)) {
            child.wait().unwrap();
        }
        eventually("a killed process is gone", || !alive(pid));
    }

    /// kill -9 of all nodes at once, and of `up`, as if the power went.
    pub(crate) fn kill9_all(&mut self) {
        let pids = self.all_pids();
        let mut all: Vec<String> = pids.iter().map(u32::to_string).collect();
        all.extend(self.up.as_ref().map(|up| up.id().to_string()));
        Command::new("kill").arg("-KILL").args(&all).status().unwrap();
        for mut child in self.up.take().into_iter().chain(std::mem::take(&mut self.extra).into_values()) {
            // One that has only begun has not written its pid yet, and the file may have that of another.
            let _ = child.kill();
            child.wait().unwrap();
        }
        eventually("killed processes are gone", || pids.iter().all(|&pid| !alive(pid)));
    }

    /// kill -9 of `up` alone.
    pub(crate) fn kill9_up(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// From its next start on, a node has this in its environment.
    pub(crate) fn set_env(&mut self, id: usize, key: &str, value: &str) {
        self.own.entry(id).or_default().push((key.to_owned(), value.to_owned()));
    }

    /// Starts a node again that was killed.
    pub(crate) fn start_node(&mut self, id: usize) {
        self.parts.iter().for_each(|part| self.start_part(id, part));
    }

    /// Starts one process of a node again.
    pub(crate) fn start_part(&mut self, id: usize, part: &'static str) {
        let file = self.file(id, "log", part);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        let child = quorate()
            .args([part, "--config"])
            .arg(self.config(id))
            .envs(self.settings.clone())
            .envs(self.own.get(&id).cloned().unwrap_or_default())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.extra.insert((id, part), child);
    }

    /// Waits until a process of a node that was started by hand has failed by itself, and kills what else there is of it.
    pub(crate) fn reap(&mut self, id: usize) {
        eventually("a process of the node ends", || {
            let mut mine = self.extra.iter_mut().filter(|(key, _)| key.0 == id);
            mine.any(|(_, child)| child.try_wait().unwrap().is_some_and(|status| !status.success()))
        });
        for (_, mut child) in self.extra.extract_if(.., |key, _| key.0 == id) {
            // The first one has ended already.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Whether these processes have ended; those of ours are reaped.
    pub(crate) fn gone(&mut self, pids: &[u32]) -> bool {
        self.extra.retain(|_, child| !pids.contains(&child.id()) || child.try_wait().unwrap().is_none());
        pids.iter().all(|&pid| !alive(pid))
    }

    /// The output of `status -o json`, one object per node.
    pub(crate) fn status(&self) -> Vec<serde_json::Value> {
        let output = self.run(&["status", "-o", "json"]);
        match serde_json::from_slice(&output.stdout) {
            Ok(serde_json::Value::Array(nodes)) => nodes,
            other => panic!("no array: {other:?}\n{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// The node that leads, once there is one.
    pub(crate) fn leader(&self) -> usize {
        let mut leader = None;
        eventually("there is a leader", || {
            leader = self.status().iter().find(|n| n["role"] == "leader").and_then(|n| n["id"].as_u64());
            leader.is_some()
        });
        usize::try_from(leader.unwrap()).unwrap()
    }

    /// Waits until all nodes serve.
    pub(crate) fn all_serve(&self) {
        eventually("all nodes serve", || self.status().iter().all(serves));
    }

    /// Waits until all nodes serve and have applied the same, and checks that they then have the same state.
    pub(crate) fn agree(&self) {
        let mut nodes = Vec::new();
        let agree = within(PATIENCE, || {
            nodes = self.status();
            nodes.iter().all(serves)
                && nodes.len() == self.endpoints.len()
                && nodes.iter().all(|n| n["applied"] == nodes[0]["applied"] && n["zxid"] == n["applied"])
        });
        assert!(agree, "the nodes do not come to apply the same: {nodes:#?}");
        let first = nodes[0]["digest"].clone();
        assert!(!first.is_null() && nodes.iter().all(|n| n["digest"] == first), "digests differ: {nodes:#?}");
    }

    /// SIGTERM to `up`; all nodes have to end by themselves.
    pub(crate) fn stop(mut self) {
        let pids = self.all_pids();
        self.extra.values().for_each(|child| signal(child.id(), "TERM"));
        for child in self.extra.values_mut() {
            child.wait().unwrap();
        }
        self.stop_up();
        assert!(pids.into_iter().all(|pid| !alive(pid)), "a node outlived `quorate up`");
    }
}

impl Ensemble {
    fn stop_up(&mut self) {
        let Some(mut up) = self.up.take() else { return };
        signal(up.id(), "TERM");
        let status = up.wait().unwrap();
        assert!(status.success(), "`quorate up` ended with {status}");
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in 1..=self.endpoints.len() {
                for part in self.parts {
                    let log = std::fs::read(self.file(id, "log", part)).unwrap_or_default();
                    let log = String::from_utf8_lossy(&log);
                    let lines: Vec<&str> = log.lines().collect();
                    eprintln!("== end of the log of node {id}, {part}");
                    lines[lines.len().saturating_sub(20)..].iter().for_each(|line| eprintln!("{line}"));
                }
            }
        }
        for child in self.extra.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(mut up) = self.up.take() {
            signal(up.id(), "TERM");
            let _ = up.wait();
        }
    }
}

fn serves(node: &serde_json::Value) -> bool {
    ["leader", "follower", "observer"].iter().any(|role| node["role"] == *role)
}

/// Does something with the ensemble that blocks.
pub(crate) async fn blocking(
    mut ensemble: Ensemble,
    f: impl FnOnce(&mut Ensemble) + Send + 'static,
) -> Ensemble {
    tokio::task::spawn_blocking(move || {
        f(&mut ensemble);
        ensemble
    })
    .await
    .unwrap()
}

/// Runs the command line tool against these endpoints.
pub(crate) fn run_at(endpoints: &str, args: &[&str]) -> Output {
    command_at(endpoints, args).output().unwrap()
}

/// The program, as from a shell: the process that runs this may ignore SIGHUP, as under nohup, and would hand that on.
fn quorate() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", QUORATE]);
    command
}

/// The same, to be started.
pub(crate) fn command_at(endpoints: &str, args: &[&str]) -> Command {
    let mut command = Command::new(QUORATE);
    command.args(args).env("QUORATE_ENDPOINTS", endpoints).stdin(Stdio::null());
    command
}

pub(crate) fn succeed(output: &Output, args: &[&str]) -> String {
    assert!(
        output.status.success(),
        "quorate {} ended with {}:\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Status and body of a page.
pub(crate) fn http_get(endpoint: &str, path: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(10);
    runtime.block_on(host::http::ask(endpoint, "GET", path, "", limit)).unwrap()
}

/// Waits until it is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    assert!(within(PATIENCE, &mut so), "not within {PATIENCE:?}: {what}");
}

/// Whether it is so, at the latest after `limit`.
pub(crate) fn within(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !so() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status =
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "no `kill` to be run");
}

/// Whether anything of a process is left that holds its sockets and files. One that is dead and not yet reaped holds
/// none, once its last thread has ended.
pub(crate) fn alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let dead = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !dead || threads > 1
}

/// A base for `--base-port` with free ports, below the range from which the system picks ports. The ports are
/// reserved until this process ends, also while no node runs, so that test processes can run side by side.
pub(crate) fn free_ports(nodes: usize) -> u16 {
    static OURS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let locks = std::env::temp_dir().join("quorate-test-ports");
    std::fs::create_dir_all(&locks).unwrap();
    let width = u16::try_from(20 * nodes).unwrap();
    assert!(width <= SLOT);
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    for base in (10_000..30_000).step_by(SLOT.into()) {
        let lock = File::create(locks.join(base.to_string())).unwrap();
        let free =
            || (base..base + width).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
        if lock.try_lock().is_ok() && free() {
            ours.push(lock);
            return base;
        }
    }
    panic!("no {width} free ports from 10000 to 30000");
}

/// Ports that go together.
const SLOT: u16 = 100;

/// With everything in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}
