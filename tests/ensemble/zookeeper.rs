//! Clients of ZooKeeper, unchanged, against whole ensembles: kazoo from PyPI here, and in `alike` those that run the same script
//! against a real ZooKeeper.

mod alike;
mod real;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::harness::{Ensemble, QUORATE, eventually, free_ports, http_get, signal};
use crate::skipped::skipped;
use crate::tls;

#[test]
fn kazoo_works_unchanged() {
    let Some(python) = kazoo() else { return };
    let ensemble = Ensemble::start();
    tour(&python, &hosts(&ensemble));
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn kazoo_keeps_its_session_when_its_server_and_then_the_leader_is_killed() {
    let Some(python) = kazoo() else { return };
    let mut ensemble = Ensemble::start();
    let hosts = hosts(&ensemble);
    let killed = tour_with_kills(&python, &hosts, "failover", |kind, port| {
        let its = (1..=3).find(|id| port_of(&ensemble, *id).to_string() == port).unwrap();
        let id = if kind == "own" { its } else { ensemble.leader() };
        restart(&mut ensemble, id);
    });
    assert_eq!(killed, 2, "servers were killed");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn kazoo_loses_a_session_that_is_closed_while_the_leader_is_killed() {
    let Some(python) = kazoo() else { return };
    let mut ensemble = Ensemble::start();
    let hosts = hosts(&ensemble);
    let killed = tour_with_kills(&python, &hosts, "lost", |_, _| {
        let leader = ensemble.leader();
        restart(&mut ensemble, leader);
    });
    assert_eq!(killed, 1, "servers were killed");
    ensemble.agree();
    ensemble.stop();
}

/// With the client certificate of `quorate certs`, whose subject is the client's identity. Nodes that require one
/// take no client without.
#[test]
fn kazoo_works_over_tls_with_a_client_certificate() {
    let Some(python) = kazoo() else { return };
    let mut ensemble = Ensemble::down(3);
    let certificates = tls::certificates(&ensemble);
    for id in 1..=3 {
        tls::set(&mut ensemble, &certificates, id, "require", "require");
        ensemble.set_env(id, "QUORATE_TLS_CLIENTS_REQUIRE_CERTIFICATES", "true");
        ensemble.start_node(id);
    }
    let status = || tls::secured(&ensemble, &certificates, &["status", "-o", "json"]);
    eventually("all nodes serve", || tls::serving(&status()) == 3);
    let files = ["ca.pem", "client.pem", "client.key"].map(|name| certificates.join(name));
    let mut tour = Command::new(&python);
    tour.args([TOUR, &hosts(&ensemble), "secure"]).args(files);
    if let Err(e) = tried(&mut tour) {
        panic!("{e}");
    }
    ensemble.stop();
}

/// A gateway in a process of its own: clients know it alone, and the nodes behind it die.
#[test]
fn kazoo_works_through_a_gateway_while_the_nodes_behind_it_die() {
    let Some(python) = kazoo() else { return };
    let base = free_ports(1);
    let mut ensemble = Ensemble::down(3);
    for id in 1..=3 {
        let port = (base + u16::try_from(id).unwrap()).to_string();
        ensemble.set_env(id, "QUORATE_LISTEN_INTERNAL_STORE_PORT", &port);
        ensemble.start_node(id);
    }
    ensemble.all_serve();
    let gateway = Gateway::start(&ensemble, base);
    eventually("the gateway listens", || TcpStream::connect(gateway.http()).is_ok());
    eventually("the gateway is ready", || http_get(&gateway.http(), "/readyz").0 == 200);
    let hosts = format!("127.0.0.1:{base}");
    tour(&python, &hosts);
    let mut next = 0;
    let mut killed = 0;
    for part in ["failover", "lost"] {
        killed += tour_with_kills(&python, &hosts, part, |kind, _| {
            // Which node is behind a client, only the gateway knows: the others have their turn.
            next += 1;
            let id = if kind == "leader" { ensemble.leader() } else { next };
            restart(&mut ensemble, id);
        });
    }
    assert_eq!(killed, 3, "servers were killed");
    let (status, monitor) = http_get(&gateway.http(), "/commands/monitor");
    assert!(status == 200 && monitor.contains("\"num_alive_connections\""), "{monitor}");
    gateway.stop();
    ensemble.agree();
    ensemble.stop();
}

/// A process that is killed with its test.
struct Gateway {
    child: Child,
    base: u16,
}

impl Gateway {
    /// In front of stores at the ports behind `base`, which is its own.
    fn start(ensemble: &Ensemble, base: u16) -> Gateway {
        let text = std::fs::read_to_string(ensemble.config(1)).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("ensemble = ")).unwrap().trim_matches('"');
        let stores: Vec<String> = (1..=3).map(|id| format!("http://127.0.0.1:{}", base + id)).collect();
        let (own, http) = (format!("listen.zookeeper_port={base}"), format!("listen.http_port={}", base + 4));
        let set = [&format!("ensemble={name}"), "listen.host=127.0.0.1", "zookeeper.words=*", &own, &http];
        let child = Command::new(QUORATE)
            .args(["gateway", "--stores", &stores.join(",")])
            .args(set.into_iter().flat_map(|setting| ["--set", setting]))
            .spawn()
            .unwrap();
        Gateway { child, base }
    }

    fn http(&self) -> String {
        format!("127.0.0.1:{}", self.base + 4)
    }

    /// In order.
    fn stop(mut self) {
        signal(self.child.id(), "TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // An error: it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tour(python: &Path, hosts: &str) {
    let output = Command::new(python).args([TOUR, hosts]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// A part of the tour that wants servers to be killed; how many there were.
fn tour_with_kills(python: &Path, hosts: &str, part: &str, mut kill: impl FnMut(&str, &str)) -> usize {
    let mut tour = Command::new(python)
        .args([TOUR, hosts, part])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tour.stdin.take().unwrap();
    let mut killed = 0;
    for line in BufReader::new(tour.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["kill", kind, port] = words[..] else { continue };
        kill(kind, port);
        writeln!(stdin).unwrap();
        killed += 1;
    }
    assert!(tour.wait().unwrap().success(), "{part} fails");
    killed
}

fn restart(ensemble: &mut Ensemble, id: usize) {
    ensemble.kill9(id);
    ensemble.start_node(id);
    ensemble.all_serve();
}

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
