//! Clients of ZooKeeper run one script against Debian's ZooKeeper and against Quorate, and print the same.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{hosts, real::ZooKeeper, restart, tried};
use crate::harness::Ensemble;
use crate::skipped::skipped;

/// Servers under test.
trait Servers {
    fn hosts(&self) -> String;

    fn kill_leader(&mut self);
}

impl Servers for ZooKeeper {
    fn hosts(&self) -> String {
        self.hosts()
    }

    fn kill_leader(&mut self) {
        self.kill_leader();
    }
}

impl Servers for Ensemble {
    fn hosts(&self) -> String {
        hosts(self)
    }

    fn kill_leader(&mut self) {
        let leader = self.leader();
        restart(self, leader);
    }
}

#[test]
fn curator_works_alike() {
    let Some(classes) = curator() else { return };
    alike(|servers| {
        let mut tour = Command::new("java");
        let path = std::env::join_paths(classes.iter().map(PathBuf::as_path)).unwrap();
        tour.args(["-Xmx256m", "-cp"]).arg(path).arg(source("Tour.java")).arg(servers.hosts());
        tour_with_kills(&mut tour, servers)
    });
}

/// The class path of Debian's packages.
fn curator() -> Option<Vec<PathBuf>> {
    let jars = ["slf4j-nop", "curator-recipes", "curator-framework", "curator-client", "guava", "zookeeper"];
    let jars = jars.map(|name| Path::new("/usr/share/java").join(name).with_extension("jar"));
    if let Some(jar) = jars.iter().find(|jar| !jar.exists()) {
        let package = "Debian packages libcurator-recipes-java and zookeeper";
        skipped(format!("no {} ({package})", jar.display()));
        return None;
    }
    if let Err(e) = tried(Command::new("javac").arg("-version")) {
        skipped(format!("no JDK (Debian package default-jdk-headless): {e}"));
        return None;
    }
    has_zookeeper().then(|| jars.to_vec())
}

#[test]
fn the_c_client_works_alike() {
    let header = Path::new("/usr/include/zookeeper/zookeeper.h");
    if !header.exists() {
        return skipped(format!("no {} (Debian package libzookeeper-mt-dev)", header.display()));
    }
    if !has_zookeeper() {
        return;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zookeeper-c-tour");
    let mut cc = Command::new("cc");
    cc.args(["-DTHREADED", "-Wall", "-o"]).arg(&program).arg(source("tour.c"));
    if let Err(e) = tried(cc.args(["-lzookeeper_mt", "-lpthread"])) {
        return skipped(format!("no C compiler that works (Debian package gcc): {e}"));
    }
    alike(|servers| tour_with_kills(Command::new(&program).arg(servers.hosts()), servers));
}

/// Its dependencies come from the registry. They are no part of the workspace, and never of Quorate.
#[test]
fn zookeeper_client_works_alike() {
    if !has_zookeeper() {
        return;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zookeeper-rust-tour");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(source("rust/Cargo.toml"));
    if let Err(e) = tried(cargo.arg("--target-dir").arg(&target)) {
        return skipped(format!("no crate zookeeper-client, which cargo gets from crates.io: {e}"));
    }
    let program = target.join("debug/tour");
    alike(|servers| tour_with_kills(Command::new(&program).arg(servers.hosts()), servers));
}

#[test]
fn zookeepers_command_line_works_alike() {
    let program = Path::new("/usr/share/zookeeper/bin/zkCli.sh");
    if !program.exists() {
        return skipped(format!("no {} (Debian package zookeeper)", program.display()));
    }
    if !has_zookeeper() {
        return;
    }
    alike(|servers| {
        let mut cli = Command::new(program);
        cli.args(["-server", &servers.hosts()]);
        without_numbers(&session(cli, COMMANDS))
    });
}

#[test]
fn the_command_line_of_the_c_client_works_alike() {
    let program = Path::new("/usr/lib/zookeeper/bin/cli_mt");
    if !program.exists() {
        return skipped(format!("no {} (Debian package zookeeper-bin)", program.display()));
    }
    if !has_zookeeper() {
        return;
    }
    alike(|servers| {
        let mut cli = Command::new(program);
        cli.args(["-h", &servers.hosts()]);
        let mut said = without_numbers(&session(cli, C_COMMANDS));
        // Its threads print side by side.
        said.sort_unstable();
        said
    });
}

fn has_zookeeper() -> bool {
    let missing = ZooKeeper::missing();
    if let Some(missing) = &missing {
        skipped(format!("no ZooKeeper to compare with: no {missing}"));
    }
    missing.is_none()
}

fn source(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ensemble/zookeeper")).join(name)
}

/// What `script` prints is the same for both.
fn alike(mut script: impl FnMut(&mut dyn Servers) -> Vec<String>) {
    let mut zookeeper = ZooKeeper::start();
    let expected = script(&mut zookeeper);
    drop(zookeeper);
    let mut ensemble = Ensemble::start();
    let printed = script(&mut ensemble);
    ensemble.agree();
    ensemble.stop();
    assert!(expected.len() > 30, "the script prints too little to compare: {expected:#?}");
    let same = expected.iter().zip(&printed).take_while(|(a, b)| a == b).count();
    assert!(
        expected == printed,
        "after {same} lines that are the same, up to {:#?}\nZooKeeper: {:#?}\nQuorate:   {:#?}",
        &expected[same.saturating_sub(3)..same],
        &expected[same..expected.len().min(same + 10)],
        &printed[same..printed.len().min(same + 10)]
    );
}

/// The lines of a script, which says when the leader is to be killed.
fn tour_with_kills(tour: &mut Command, servers: &mut dyn Servers) -> Vec<String> {
    let mut tour = tour.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = tour.stdin.take().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(tour.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if line == "kill leader" {
            servers.kill_leader();
            writeln!(stdin).unwrap();
        }
        lines.push(line);
    }
    let status = tour.wait().unwrap();
    assert!(status.success(), "the script ends with {status} after\n{}", lines.join("\n"));
    let kills = lines.iter().filter(|line| *line == "kill leader").count();
    assert_eq!(kills, 2, "times that the leader was killed");
    lines
}

/// What an interpreter of commands prints, and its errors, in the order in which they come.
fn session(mut program: Command, commands: &str) -> Vec<String> {
    let (reader, writer) = std::io::pipe().unwrap();
    program.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = program.spawn().unwrap();
    // It holds an end of the pipe, which then would never end.
    drop(program);
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let said: Vec<String> = BufReader::new(reader).lines().map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    assert!(status.success(), "it ends with {status} after\n{}", said.join("\n"));
    said
}

/// Without logs, and without what differs from one ensemble to the next. Events come at any time, so they stand at the
/// end.
fn without_numbers(said: &[String]) -> Vec<String> {
    let noise =
        ["Connecting to", "JLine", "SLF4J", "WATCHER", "time = ", "Creating [", "Got a new session id"];
    let counts = |line: &&String| {
        let log = noise.iter().any(|noise| line.starts_with(noise));
        !line.is_empty() && !log && !line.contains("type:None") && !line.contains("SESSION_EVENT")
    };
    let one = |line: &String| {
        let (name, value) = line.split_once(" = ").or_else(|| line.split_once('=')).unwrap_or((line, ""));
        match name.trim_start() {
            "cZxid" | "mZxid" | "pZxid" | "ctime" | "mtime" => format!("{name} = #"),
            "ephemeralOwner" if !["0", "0x0"].contains(&value) => format!("{name} = #"),
            _ if line.contains("czxid=") || line.contains("mzxid=") => "times and zxids".to_owned(),
            _ => line.clone(),
        }
    };
    let (events, lines): (Vec<String>, Vec<String>) =
        said.iter().filter(counts).map(one).partition(|line| line.starts_with("WatchedEvent"));
    lines.into_iter().chain(events).collect()
}

const COMMANDS: &str = "\
create /cli hello
create /cli again
create /none/a x
get /cli
get -s /cli
get /none
set /cli world
set -s /cli again
set -v 7 /cli x
ls /cli
create -s /cli/s- one
create -e -s /cli/e- x
create -c /cli/container
create -t 600000 /cli/ttl x
create -e /cli/e
create /cli/e/below x
ls -s /cli
ls -R /cli
stat /cli
stat /none
get -w /cli
ls -w /cli
set /cli watched
create /cli/new
addWatch -m PERSISTENT_RECURSIVE /cli
set /cli/new x
removewatches /cli
getAcl /cli
addauth digest ann:x
setAcl /cli/new auth::cdrwa
getAcl -s /cli/new
setAcl -v 7 /cli/new world:anyone:r
setAcl /cli/new wrong
whoami
sync /cli
getEphemerals /cli/e-
getAllChildrenNumber /cli
delete -v 7 /cli/new
delete /cli
delete /none
deleteall /cli
stat /cli
nonsense
whoami
quit
";

/// All but `exists` are asynchronous, so that one waits for the others before the end.
const C_COMMANDS: &str = "\
create /cc
create /cc
create /none/a
get /cc
set /cc value
get /cc
get /none
create +s /cc/s-
create +e /cc/e
create2 +es /cc/t-
create /cc/e/below
ls /cc
ls2 /cc
wexists /later
create /later
set /later x
sync /cc
delete /cc
delete /none
delete /later
delete /cc/e
nonsense
exists /none
exists /cc
quit
";
