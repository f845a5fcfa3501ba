//! Clients of ZooKeeper, unchanged, against whole ensembles: kazoo from PyPI, and the command line of Debian's package zookeeper.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::harness::Ensemble;
use crate::skipped::skipped;

#[test]
fn kazoo_works_unchanged() {
    let Some(python) = kazoo() else { return };
    let ensemble = Ensemble::start();
    let output = Command::new(python).args([OsStr::new(TOUR), hosts(&ensemble).as_ref()]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn kazoo_keeps_its_session_when_its_server_and_then_the_leader_is_killed() {
    let Some(python) = kazoo() else { return };
    let mut ensemble = Ensemble::start();
    let mut tour = Command::new(python)
        .args([OsStr::new(TOUR), hosts(&ensemble).as_ref(), OsStr::new("failover")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tour.stdin.take().unwrap();
    let mut killed = 0;
    for line in BufReader::new(tour.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["kill", kind, port] = words[..] else { continue };
        let its = (1..=3).find(|id| port_of(&ensemble, *id).to_string() == port).unwrap();
        let id = if kind == "own" { its } else { ensemble.leader() };
        ensemble.kill9(id);
        writeln!(stdin).unwrap();
        ensemble.start_node(id);
        ensemble.all_serve();
        killed += 1;
    }
    assert!(tour.wait().unwrap().success() && killed == 2, "{killed} servers were killed");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn zookeepers_command_line_works_unchanged() {
    let program = Path::new("/usr/share/zookeeper/bin/zkCli.sh");
    if !program.exists() {
        return skipped(format!("no {} (Debian package zookeeper)", program.display()));
    }
    let ensemble = Ensemble::start();
    let mut cli = Command::new(program)
        .args(["-server", &hosts(&ensemble)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    cli.stdin.take().unwrap().write_all(COMMANDS.as_bytes()).unwrap();
    let output = cli.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in [
        "Created /cli",
        "hello",
        "[cli]",
        "world",
        "dataVersion = 1",
        "numChildren = 0",
        "Created /cli/e-0000000000",
        "[e-0000000000]",
        "Node not empty: /cli",
        "Node does not exist: /none",
        "version No is not valid : /cli",
        "Node already exists: /cli",
        "[]",
    ] {
        assert!(said.lines().any(|said| said == line), "{line:?} is missing:\n{said}");
    }
    ensemble.stop();
}

const COMMANDS: &str = "create /cli hello\nget /cli\nls /\nset /cli world\nget -s /cli\ncreate -e -s /cli/e- x\nls /cli\n\
    delete /cli\nget /none\nset -v 7 /cli x\ncreate /cli again\ndeleteall /cli\nls /\nquit\n";

const TOUR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ensemble/zookeeper/tour.py");

/// For clients of ZooKeeper.
fn hosts(ensemble: &Ensemble) -> String {
    let hosts: Vec<String> = (1..=3).map(|id| format!("127.0.0.1:{}", port_of(ensemble, id))).collect();
    hosts.join(",")
}

/// Behind the client port of a node; see `quorate up`.
fn port_of(ensemble: &Ensemble, id: usize) -> u16 {
    let port = ensemble.endpoint(id).rsplit_once(':').unwrap().1;
    port.parse::<u16>().unwrap() + 8
}

/// A Python that has kazoo, in a directory of the build. Made once, by the first who asks.
fn kazoo() -> Option<PathBuf> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kazoo");
        let python = dir.join("bin/python");
        let has = |python: &Path| tried(Command::new(python).args(["-c", "import kazoo"]));
        if has(&python).is_err() {
            tried(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
            tried(Command::new(&python).args(["-m", "pip", "install", "--quiet", "kazoo==2.11.0"]))?;
            has(&python)?;
        }
        Ok(python)
    });
    match made {
        Ok(python) => Some(python.clone()),
        Err(e) => {
            skipped(format!("no kazoo, which is installed from PyPI by python3 (Debian: python3-venv): {e}"));
            None
        }
    }
}

fn tried(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
