//! The processes of a local ensemble.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use host::config;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Command, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::plan::{Part, Planned};
use crate::exit::{Doing as _, Failure};

/// How a process of a node ended.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) id: u8,
    pub(super) part: Part,
    /// `Err` if the system would not tell.
    pub(super) status: std::io::Result<ExitStatus>,
}

/// The running children. Each is watched by a task of its own, which also ends it when asked to.
pub(super) struct Nodes {
    watched: JoinSet<Death>,
    stop: CancellationToken,
}

impl Nodes {
    pub(super) fn new() -> Nodes {
        Nodes { watched: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Starts one process of a node and returns its id.
    ///
    /// The kernel ends a child with the *thread* that started it (PR_SET_PDEATHSIG), so this is called on the main
    /// thread, which lives as long as the process.
    pub(super) fn start(&mut self, node: &Planned, part: Part) -> Result<u32, Failure> {
        let log = node.log(part);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .doing(format_args!("open {}", log.display()))?;
        let errors = log.try_clone().doing("share the log file")?;
        let program = std::env::current_exe().doing("find this program")?;
        let mut command = Command::new(program);
        command
            .args([part.command(), "--exit-with-parent", &std::process::id().to_string(), "--config"])
            .arg(node.config())
            .stdin(Stdio::null())
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            // Ctrl-C is ours to hand on, in order.
            .process_group(0)
            .kill_on_drop(true);
        // What makes a node this node comes from its file alone; other settings may come from the environment.
        for key in ["ensemble", "id", "data_dir", "pid_file", "members"].into_iter().chain([
            "listen.host",
            "listen.client_port",
            "listen.quorum_port",
            "listen.election_port",
            config::ZOOKEEPER_KEY,
            "listen.internal_host",
            "listen.internal_dir",
            "listen.internal_quorum_port",
            "listen.internal_election_port",
            "services.election",
            "services.quorum",
            config::HTTP_KEY,
            config::QUORUM_HTTP_KEY,
            config::ELECTION_HTTP_KEY,
        ]) {
            command.env_remove(config::variable(key));
        }
        if node.ports.zookeeper.is_none() {
            command.env(config::variable(config::ZOOKEEPER_KEY), "off");
        }
        let mut child =
            command.spawn().doing(format_args!("start {} of node {}", part.command(), node.id))?;
        let pid = child.id().unwrap_or_default();
        let (id, stop) = (node.id, self.stop.clone());
        self.watched.spawn(async move {
            tokio::select! {
                status = child.wait() => return Death { id, part, status },
                () = stop.cancelled() => {}
            }
            signal(pid, Signal::INT);
            let status = match tokio::time::timeout(PATIENCE, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    let _ = child.start_kill();
                    child.wait().await
                }
            };
            Death { id, part, status }
        });
        Ok(pid)
    }

    /// The next node that ends; never returns while all others run, or if none is left.
    pub(super) async fn next_death(&mut self) -> Death {
        loop {
            match self.watched.join_next().await {
                Some(Ok(death)) => return death,
                Some(Err(e)) => tracing::error!(error = %e, "cannot watch a node"),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops all nodes by SIGINT, which hands no leadership over: no node is left to take it. Kills nodes that still run after
    /// [`PATIENCE`]; returns when none is left.
    pub(super) async fn stop_all(mut self) {
        self.stop.cancel();
        while self.watched.join_next().await.is_some() {}
    }
}

/// Ends nodes that the user restarted by hand from the folders of this ensemble, so that no process is left behind.
pub(super) async fn stop_strays(nodes: &[Planned]) {
    let strays = || nodes.iter().flat_map(strays).collect::<Vec<u32>>();
    for pid in strays() {
        signal(pid, Signal::INT);
    }
    let all_gone = async {
        while !strays().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, all_gone).await.is_err() {
        for pid in strays() {
            signal(pid, Signal::KILL);
        }
    }
}

/// The last lines of a node's log.
pub(super) fn last_lines(log: &Path) -> Vec<String> {
    // Enough for the lines wanted, unless they are very long.
    const TAIL: u64 = 16 << 10;
    const LINES: usize = 10;
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&tail().unwrap_or_default()).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.into_iter().rev().take(LINES).rev().collect()
}

/// Processes of a node, in either packaging.
fn strays(node: &Planned) -> Vec<u32> {
    let parts = Part::all(false).iter().chain(Part::all(true));
    parts.filter_map(|&part| stray(node, part)).collect()
}

/// The process that the `pid` file names, if it lives and runs this part of that node's configuration. The number alone is
/// not trusted: it may have been given to another process since.
fn stray(node: &Planned, part: Part) -> Option<u32> {
    let pid: u32 = fs::read_to_string(node.pid_file(part)).ok()?.trim().parse().ok()?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let line = fs::read(process.join("cmdline")).ok()?;
    let args: Vec<&str> = line.split(|&b| b == 0).filter_map(|a| std::str::from_utf8(a).ok()).collect();
    let config = args.iter().enumerate().find_map(|(i, a)| match *a {
        "--config" | "-c" => args.get(i + 1).copied(),
        a => a.strip_prefix("--config="),
    })?;
    let folder = process.join("cwd").canonicalize().ok()?;
    let same = folder.join(config).canonicalize().ok()? == node.config().canonicalize().ok()?;
    (args.get(1) == Some(&part.command()) && same).then_some(pid)
}

fn signal(pid: u32, signal: Signal) {
    // A process that is gone already is what was wanted.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// How long a node may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_last_ten_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(last_lines(&log).is_empty());
        let text: String = (0..5_000).map(|i| format!("line {i}\n")).collect();
        fs::write(&log, text).unwrap();
        let lines = last_lines(&log);
        assert_eq!((lines.len(), lines[0].as_str(), lines[9].as_str()), (10, "line 4990", "line 4999"));
    }

    #[test]
    fn a_pid_file_is_believed_only_about_a_node_of_that_folder() {
        let dir = tempfile::tempdir().unwrap();
        let ports = super::super::plan::Ports {
            zookeeper: None,
            client: 1,
            quorum: 2,
            election: 3,
            http: None,
            quorum_http: None,
            election_http: None,
            internal_quorum: 4,
            internal_election: 5,
        };
        let role = host::config::MemberRole::Voter;
        let node = Planned { id: 1, folder: dir.path().to_owned(), ports, role };
        assert!(strays(&node).is_empty());
        fs::write(node.config(), "").unwrap();
        fs::write(node.pid_file(Part::Store), std::process::id().to_string()).unwrap();
        assert!(strays(&node).is_empty(), "this test is no node");
    }
}
