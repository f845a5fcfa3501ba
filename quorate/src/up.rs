//! `quorate up`: a whole ensemble on this machine, a process for each node, or for each service.

mod nodes;
mod plan;

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use api::ports::Role;
use client_sdk::{Tls, node_status};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{
    nodes::{Death, Nodes},
    plan::{Part, Plan, Planned, Wanted},
};
use crate::{
    args::Up,
    exit::{Doing as _, Failure},
    output, status,
};

/// Runs until a signal comes, or until a node dies before all serve.
///
/// Runs on the main thread: see [`Nodes::start`].
pub(crate) async fn run(args: &Up) -> Result<(), Failure> {
    let shutdown = host::shutdown::on_signals().doing("listen for signals")?;
    stop_with_terminal(shutdown.clone()).doing("listen for signals")?;
    let folder = match &args.data {
        Some(dir) => Folder { path: dir.clone(), temporary: false },
        None => Folder::temporary()?,
    };
    let wanted =
        Wanted { nodes: args.nodes, observers: args.observers, base_port: args.base_port, tls: args.tls };
    let plan = Plan::prepare(&folder.path, wanted)?;
    // Once more for one that is continued; for a new one this was done before anything was written.
    plan.ports_must_be_free()?;
    announce(&plan, &folder)?;

    let mut nodes = Nodes::new();
    let lived = live(&plan, Part::all(args.split), &mut nodes, &shutdown).await;
    nodes.stop_all().await;
    nodes::stop_strays(&plan.nodes).await;
    let stopped = output::print("all nodes have stopped");
    lived.and(stopped)
}

/// To close the terminal is a way to stop, too, unless the starter has switched it off (`nohup`).
fn stop_with_terminal(shutdown: CancellationToken) -> std::io::Result<()> {
    const HANGUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if ignored.is_none_or(|mask| mask & HANGUP == 0) {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            hangup.recv().await;
            shutdown.cancel();
        });
    }
    Ok(())
}

async fn live(
    plan: &Plan,
    parts: &[Part],
    nodes: &mut Nodes,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let mut start = |node| parts.iter().map(|&part| nodes.start(node, part)).collect();
    let pids = plan.nodes.iter().map(&mut start).collect::<Result<Vec<Vec<u32>>, Failure>>()?;
    let roles = tokio::select! {
        roles = all_serve(plan, parts) => roles,
        death = nodes.next_death() => {
            let node = node(plan, death.id);
            return Err(Failure::refused(format!("{}; all others are stopped", obituary(node, &death))));
        }
        () = shutdown.cancelled() => return Ok(()),
    };
    welcome(plan, parts, &roles, &pids)?;
    loop {
        tokio::select! {
            death = nodes.next_death() => {
                let node = node(plan, death.id);
                output::say(format_args!("{} {}\n{}", output::clock(), obituary(node, &death), revival(node, death.part)));
            }
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Waits until every node serves clients, and returns their roles in order. Now and then it prints which nodes are missing.
async fn all_serve(plan: &Plan, parts: &[Part]) -> Vec<Role> {
    let mut roles = Vec::new();
    let tls = plan.certificates.as_deref().and_then(trusting);
    for node in &plan.nodes {
        let mut said = Instant::now();
        roles.push(loop {
            match node_status(&node.endpoint(), Duration::from_secs(1), tls.as_ref()).await {
                Ok(status) if status::serves(&status) => break status.role,
                _ if said.elapsed() > Duration::from_secs(5) => {
                    said = Instant::now();
                    let logs: Vec<String> =
                        parts.iter().map(|&part| node.log(part).display().to_string()).collect();
                    output::say(format_args!(
                        "still waiting for node {}; its log is {}",
                        node.id,
                        logs.join(", ")
                    ));
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        });
    }
    roles
}

/// TLS to the nodes of an ensemble with these certificates. `None` if there is no such file: then no node will answer.
fn trusting(certificates: &Path) -> Option<Tls> {
    Tls::read(Some(certificates.join("ca.pem")), None).ok()
}

fn announce(plan: &Plan, folder: &Folder) -> Result<(), Failure> {
    let path = folder.path.display();
    let doing = if plan.continued { "continuing" } else { "starting" };
    let kept = if folder.temporary { " (removed at the end; --data DIR keeps it)" } else { "" };
    let nodes = match plan.nodes.len() {
        1 => "one node".to_owned(),
        n => format!("{n} nodes"),
    };
    output::print(&format!("{doing} {nodes} in {path}{kept}"))
}

fn welcome(plan: &Plan, parts: &[Part], roles: &[Role], pids: &[Vec<u32>]) -> Result<(), Failure> {
    let rows = plan.nodes.iter().zip(roles).zip(pids).map(|((node, &role), pids)| {
        let mut row = vec![node.id.to_string(), status::role_name(role).to_owned()];
        row.extend(pids.iter().map(u32::to_string));
        row.push(node.endpoint());
        row
    });
    let split = parts.len() > 1;
    let table = if split {
        output::table(&["NODE", "ROLE", "ELECTION", "QUORUM", "STORE", "CLIENT"], rows, &[0, 2, 3, 4])
    } else {
        output::table(&["NODE", "ROLE", "PID", "CLIENT"], rows, &[0, 2])
    };
    let endpoints: Vec<String> = plan.nodes.iter().map(Planned::endpoint).collect();
    let endpoints = endpoints.join(",");
    let me = program();
    let trust = plan.certificates.as_ref().map_or(String::new(), |certificates| {
        format!("  export QUORATE_TLS_CA={}\n", certificates.join("ca.pem").display())
    });
    // It is the quorum that leads.
    let leads = parts.iter().position(|&part| part == Part::Quorum).unwrap_or(0);
    let others = roles.iter().filter(|&&r| r == Role::Following).count() > 0;
    let leader = roles.iter().position(|&r| r == Role::Leading).filter(|_| others);
    let leader = leader.and_then(|i| pids.get(i)?.get(leads));
    let kill = leader.map_or(String::new(), |pid| {
        format!("  kill -9 {pid}    # the leader: the others elect a new one\n")
    });
    output::print(&format!(
        "\n{table}\n\n\
         ready: {endpoints}\n\n\
         Try, in another terminal:\n  \
           export QUORATE_ENDPOINTS={endpoints}\n\
         {trust}  \
           {me} create /hello world\n  \
           {me} get /hello\n  \
           {me} status\n\
         {kill}\
         Ctrl-C stops all nodes."
    ))
}

/// How a node ended, and its last log lines.
fn obituary(node: &Planned, death: &Death) -> String {
    let how = match &death.status {
        Ok(status) => describe(*status),
        Err(e) => format!("ended, with an unknown status: {e}"),
    };
    let part = match death.part {
        Part::Whole => format!("node {}", node.id),
        part => format!("the {} of node {}", part.command(), node.id),
    };
    let mut text = format!("{part} {how}");
    let log = node.log(death.part);
    let lines = nodes::last_lines(&log);
    if !lines.is_empty() {
        text += &format!("; the end of {}:\n  | {}\n", log.display(), lines.join("\n  | "));
    }
    text.trim_end().to_owned()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(9)) => "was killed (SIGKILL)".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

fn revival(node: &Planned, part: Part) -> String {
    format!("to start it again:  {} {} --config {}", program(), part.command(), node.config().display())
}

fn node(plan: &Plan, id: u8) -> &Planned {
    &plan.nodes[usize::from(id) - 1]
}

/// How to call this program from here: by its name if that is what the user did, else by its path.
fn program() -> String {
    match std::env::args_os().next() {
        Some(name) if !name.to_string_lossy().contains('/') => name.to_string_lossy().into_owned(),
        _ => {
            let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("quorate"));
            let here = std::env::current_dir().unwrap_or_default();
            path.strip_prefix(&here).unwrap_or(&path).display().to_string()
        }
    }
}

/// Where the nodes' folders are. A temporary one is removed when this is dropped.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn temporary() -> Result<Folder, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let parent = std::env::temp_dir();
        let pid = std::process::id();
        for attempt in 0u32.. {
            let path = parent.join(format!("quorate-{pid}-{attempt}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Folder { path, temporary: true }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).doing(format_args!("make the directory {}", path.display())),
            }
        }
        Err(Failure::refused(format!("no name is free for a directory in {}", parent.display())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(e) = remove(&self.path)
        {
            output::say(format_args!("cannot remove {}: {e}", self.path.display()));
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
