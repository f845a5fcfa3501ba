//! No acknowledged write is ever lost.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_sdk::{Client, CreateMode, Options, Path, Write};

use crate::harness::{Ensemble, command_at, copy_dir, eventually};

pub(crate) const ZNODES: usize = 40;

/// The checker's knowledge of each znode.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The greatest value that was acknowledged.
    acknowledged: BTreeMap<usize, u64>,
    /// Values that were sent and not acknowledged. A client without an answer continues to send them while
    /// its session lives, so they may come after values that other clients sent later.
    open: BTreeMap<usize, BTreeSet<u64>>,
}

impl Ledger {
    fn sent(&mut self, znode: usize, value: u64) {
        self.open.entry(znode).or_default().insert(value);
    }

    fn acknowledged(&mut self, znode: usize, value: u64) {
        let greatest = self.acknowledged.entry(znode).or_default();
        // A smaller one is of another client, and may have come before or after the greatest.
        if value > *greatest {
            *greatest = value;
            self.open.entry(znode).or_default().remove(&value);
        }
    }
}

pub(crate) fn path(znode: usize) -> Path {
    Path::new(&format!("/ledger/{znode}")).unwrap()
}

/// Writes growing numbers to every znode, many at a time, and records each acknowledgement, until it gets the
/// signal to stop.
pub(crate) async fn write(
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    next: Arc<Mutex<u64>>,
    stop: Arc<AtomicBool>,
) {
    let mut waiting = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        for znode in 0..ZNODES {
            let value = {
                let mut next = next.lock().unwrap();
                *next += 1;
                *next
            };
            ledger.lock().unwrap().sent(znode, value);
            let data = value.to_string().into();
            let pending =
                client.submit(Write::Set { path: path(znode), data: Some(data), version: None }).await;
            let ledger = ledger.clone();
            waiting.spawn(async move {
                if pending.await.is_ok() {
                    ledger.lock().unwrap().acknowledged(znode, value);
                }
            });
        }
        while waiting.len() > 400 {
            waiting.join_next().await;
        }
    }
    // The outcome of writes that are not acknowledged by now stays unknown.
    waiting.abort_all();
}

/// Kills all nodes at once, ten times, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_the_death_of_all_nodes_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let next = Arc::new(Mutex::new(0));
    let mut total = 0;
    for round in 0..10u64 {
        let mut ensemble = Ensemble::start_in(temp.path(), 3);
        let client = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
        if round == 0 {
            client.create("/ledger", "", CreateMode::default()).await.unwrap();
            for znode in 0..ZNODES {
                client.create(path(znode).as_str(), "0", CreateMode::default()).await.unwrap();
            }
        } else {
            check(&client, &ledger).await;
        }
        let before: u64 = *next.lock().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(client, ledger.clone(), next.clone(), stop.clone()));
        // The moment of death differs from round to round, and so does the node that the client talks to.
        tokio::time::sleep(Duration::from_millis(200 + 83 * round)).await;
        tokio::task::spawn_blocking(move || ensemble.kill9_all()).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(Duration::from_secs(1), writer).await.ok();
        total += *next.lock().unwrap() - before;
    }
    let ensemble = Ensemble::start_in(temp.path(), 3);
    let client = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    check(&client, &ledger).await;
    assert!(total > 1000, "only {total} writes: that proves little");
    tokio::task::spawn_blocking(move || {
        ensemble.agree();
        ensemble.stop();
    })
    .await
    .unwrap();
}

pub(crate) async fn check(client: &Client, ledger: &Mutex<Ledger>) {
    client.sync().await.unwrap();
    for znode in 0..ZNODES {
        let (data, _) = client.get(path(znode).as_str()).await.unwrap();
        let found: u64 = std::str::from_utf8(&data).unwrap().parse().unwrap();
        let mut ledger = ledger.lock().unwrap();
        let acknowledged = ledger.acknowledged.get(&znode).copied().unwrap_or(0);
        let open = ledger.open.get(&znode).is_some_and(|open| open.contains(&found));
        assert!(
            found == acknowledged || open,
            "znode {znode} has {found}, but {acknowledged} was acknowledged"
        );
        // Later rounds must not fall behind the present values.
        ledger.acknowledged.insert(znode, found);
    }
}

/// X is on nodes 1 and 2; node 2 loses its disk while node 1 is down. Nodes 2 and 3 are a majority without X.
#[test]
fn a_node_that_lost_its_disk_does_not_help_to_forget_what_it_had_acknowledged() {
    let mut ensemble = Ensemble::down(3);
    (1..=3).for_each(|id| ensemble.start_node(id));
    ensemble.ok(&["create", "/before", ""]);
    ensemble.agree();
    ensemble.kill9(3);
    ensemble.ok(&["create", "/x", "acknowledged"]);
    ensemble.kill9(1);
    ensemble.kill9(2);
    std::fs::remove_dir_all(ensemble.dir.join("node-2/data")).unwrap();
    ensemble.start_node(2);
    ensemble.start_node(3);
    eventually("both are up", || {
        ensemble.status().iter().filter(|n| n["role"] != "unreachable").count() == 2
    });
    let read = ensemble.run(&["get", "/x", "--timeout", "5s"]);
    assert!(!read.status.success(), "no node can serve without node 1");
    assert!(!String::from_utf8_lossy(&read.stderr).contains("no znode"), "/x was forgotten");
    ensemble.start_node(1);
    eventually("it serves again", || ensemble.run(&["status"]).status.success());
    assert_eq!(ensemble.ok(&["get", "/x"]).trim_end(), "acknowledged");
    ensemble.agree();
}

/// Of three nodes, all down, 2 and 3 have lost their disks.
fn down_with_all_but_node_1_wiped() -> Ensemble {
    let mut ensemble = Ensemble::down(3);
    (1..=3).for_each(|id| ensemble.start_node(id));
    ensemble.ok(&["create", "/keep", "acknowledged"]);
    ensemble.agree();
    ensemble.kill9_all();
    for id in [2, 3] {
        std::fs::remove_dir_all(ensemble.dir.join(format!("node-{id}/data"))).unwrap();
    }
    ensemble
}

/// They are started without node 1, which looks like a first start to them.
fn started_anew_without_node_1() -> Ensemble {
    let mut ensemble = down_with_all_but_node_1_wiped();
    [2, 3].into_iter().for_each(|id| ensemble.start_node(id));
    eventually("the two take it for a first start", || {
        ensemble.run(&["ls", "/", "--timeout", "5s"]).status.success()
    });
    ensemble
}

/// The returning node 1 belongs to another ensemble than the one that the other nodes have begun. Both sides
/// report it. The operator who wants to keep the older ensemble uses the directory of node 1.
#[test]
fn f14_two_nodes_that_have_lost_their_disks_and_began_anew_are_another_ensemble() {
    let mut ensemble = started_anew_without_node_1();
    ensemble.ok(&["create", "/anew", ""]);
    ensemble.start_node(1);
    for id in [1, 2, 3] {
        eventually("it refuses", || ensemble.log(id).contains("belongs to another ensemble of the name"));
    }
    let status = ensemble.run(&["status"]);
    assert_eq!(status.status.code(), Some(4));
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(said.contains("the nodes belong to ensembles with different ids"), "{said}");
    is_restored_from_node_1(&mut ensemble);
}

/// The same, but node 1 is there when they start, and is away for a while after that: they get its report,
/// and begin no ensemble.
#[test]
fn f14_two_wiped_nodes_that_a_third_has_met_begin_no_new_ensemble() {
    let mut ensemble = down_with_all_but_node_1_wiped();
    ensemble.start_node(1);
    eventually("it looks for a leader", || {
        ensemble.status().iter().any(|node| node["id"] == 1 && node["role"] == "looking")
    });
    [2, 3].into_iter().for_each(|id| ensemble.start_node(id));
    for id in [2, 3] {
        eventually("it gets the report", || ensemble.log(id).contains("its data directory is new"));
    }
    ensemble.kill9(1);
    std::thread::sleep(Duration::from_secs(3));
    ensemble.start_node(1);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!ensemble.run(&["create", "/lost", "", "--timeout", "2s"]).status.success());
    is_restored_from_node_1(&mut ensemble);
}

fn is_restored_from_node_1(ensemble: &mut Ensemble) {
    ensemble.kill9_all();
    for id in [2, 3] {
        let data = ensemble.dir.join(format!("node-{id}/data"));
        std::fs::remove_dir_all(&data).unwrap();
        copy_dir(&ensemble.dir.join("node-1/data"), &data);
        let config = ensemble.dir.join(format!("node-{id}/quorate.toml"));
        ensemble.ok(&["recover", "copy", "--config", config.to_str().unwrap(), "--yes"]);
    }
    (1..=3).for_each(|id| ensemble.start_node(id));
    ensemble.agree();
    assert_eq!(ensemble.ok(&["get", "/keep"]).trim_end(), "acknowledged");
}

/// Node 1 cannot report to them, and gets no report: its data stays as it is.
#[test]
fn nothing_is_cut_off_when_an_ensemble_was_started_anew_without_the_node_that_has_the_data() {
    let mut ensemble = started_anew_without_node_1();
    ensemble.ok(&["create", "/anew", ""]);
    std::fs::remove_file(ensemble.dir.join("node-1/data/incarnations")).unwrap();
    ensemble.start_node(1);
    eventually("it refuses", || ensemble.log(1).contains("belongs to another ensemble of the name"));
    ensemble.ok(&["create", "/goes-on", ""]);
    ensemble.kill9_all();
    let files = std::fs::read_dir(ensemble.dir.join("node-1/data/log")).unwrap();
    let kept = |file: &std::path::Path| {
        std::fs::read(file).unwrap().windows(12).any(|bytes| bytes == b"acknowledged")
    };
    assert!(files.map(|file| file.unwrap().path()).any(|file| kept(&file)), "node 1 has kept everything");
}

/// kill -9 of all while a checkpoint of thousands of changes is written down and carried out: the next start does the rest.
#[test]
fn a_crash_in_the_middle_of_a_large_checkpoint_costs_nothing() {
    let mut ensemble = Ensemble::down(3);
    (1..=3).for_each(|id| ensemble.start_node(id));
    ensemble.ok(&["create", "/before", "acknowledged"]);
    let noted = |ensemble: &Ensemble| (1..=3).filter(|&id| ensemble.table(id).join("redo").exists()).count();
    let mut interrupted = 0;
    for _ in 0..20 {
        let endpoints = ensemble.all();
        // Every znode changes several times a second.
        let args = ["bench", "write", "--znodes", "5000", "--size", "100", "--seconds", "60"];
        let mut load = command_at(&endpoints, &args).stdout(Stdio::null()).spawn().unwrap();
        while noted(&ensemble) == 0 {
            assert!(load.try_wait().unwrap().is_none(), "the load has ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        ensemble.kill9_all();
        load.kill().unwrap();
        load.wait().unwrap();
        interrupted += noted(&ensemble);
        (1..=3).for_each(|id| ensemble.start_node(id));
        ensemble.agree();
        if interrupted > 0 {
            break;
        }
    }
    assert!(interrupted > 0, "no crash has come in the middle");
    assert_eq!(ensemble.ok(&["get", "/before"]).trim_end(), "acknowledged");
    for id in 1..=3 {
        assert!(!ensemble.table(id).with_file_name("table.damaged-1").exists(), "{}", ensemble.log(id));
    }
}
