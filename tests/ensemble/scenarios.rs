//! Scenarios of `docs/protocol.md` with slow, stopped and late nodes.

use std::time::{Duration, Instant};

use client_sdk::{Client, CreateMode, Options};

use crate::harness::{Ensemble, PATIENCE, QUORATE, blocking, eventually, run_at, succeed};

/// A small log that is purged at once, and snapshots all the time.
const SNAPSHOTS: &[(&str, &str)] = &[
    ("QUORATE_LOG_SEGMENT_SIZE", "1MiB"),
    ("QUORATE_LOG_SNAPSHOT_EVERY", "200"),
    ("QUORATE_LOG_KEEP_SIZE", "0"),
    ("QUORATE_LOG_KEEP_ENTRIES", "0"),
];

/// Short limits, so that a test need not wait long for them.
const IMPATIENT: &[(&str, &str)] = &[
    ("QUORATE_TIMING_SYNC_LIMIT", "1s"),
    ("QUORATE_TIMING_INIT_LIMIT", "2s"),
    ("QUORATE_TIMING_TICK", "100ms"),
];

async fn connect(ensemble: &Ensemble) -> Client {
    Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap()
}

fn role(ensemble: &Ensemble, id: usize) -> String {
    ensemble.status()[id - 1]["role"].as_str().unwrap_or_default().to_owned()
}

/// A node that does not lead.
fn follower(ensemble: &Ensemble) -> usize {
    let leader = ensemble.leader();
    (1..=3).find(|&id| id != leader).unwrap()
}

#[test]
fn s12_what_only_a_dead_leader_had_is_nowhere_afterwards() {
    let mut ensemble = Ensemble::start();
    ensemble.ok(&["create", "/agreed", ""]);
    let leader = ensemble.leader();
    let others: Vec<usize> = (1..=3).filter(|&id| id != leader).collect();
    let before = ensemble.status()[leader - 1]["zxid"].clone();
    others.iter().for_each(|&id| ensemble.signal(id, "STOP"));
    let mut client = std::process::Command::new(QUORATE)
        .args(["create", "/lone", ""])
        .env("QUORATE_ENDPOINTS", ensemble.endpoint(leader))
        .spawn()
        .unwrap();
    eventually("the leader has it in its own log", || {
        let status = run_at(ensemble.endpoint(leader), &["status", "-o", "json", "--timeout", "1s"]);
        let nodes: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        nodes[leader - 1]["zxid"].is_string() && nodes[leader - 1]["zxid"] != before
    });
    // It would send it again.
    client.kill().unwrap();
    client.wait().unwrap();
    // The others die without having read what waits in their sockets.
    ensemble.kill9(leader);
    others.iter().for_each(|&id| ensemble.kill9(id));
    others.iter().for_each(|&id| ensemble.start_node(id));
    let both = others.iter().map(|&id| ensemble.endpoint(id)).collect::<Vec<_>>().join(",");
    succeed(&run_at(&both, &["create", "/later", ""]), &["create"]);
    ensemble.start_node(leader);
    ensemble.agree();
    assert!(ensemble.log(leader).contains("truncating the log"));
    assert!(ensemble.run(&["get", "/later"]).status.success());
    for id in 1..=3 {
        assert!(!run_at(ensemble.endpoint(id), &["get", "/lone"]).status.success(), "it was never committed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_s17_a_node_that_was_away_for_long_gets_a_snapshot_while_writes_go_on() {
    let mut ensemble = Ensemble::start_with(3, 0, SNAPSHOTS);
    let client = connect(&ensemble).await;
    client.create("/big", "", CreateMode::default()).await.unwrap();
    let away = follower(&ensemble);
    ensemble = blocking(ensemble, move |e| e.kill9(away)).await;
    let write = async |count: usize| {
        let mut pending = Vec::new();
        for i in 0..count {
            let data = vec![u8::try_from(i % 251).unwrap(); 10_000];
            let write = client_sdk::Write::Set {
                path: client_sdk::Path::new("/big").unwrap(),
                data: Some(data.into()),
                version: None,
            };
            pending.push(client.submit(write).await);
        }
        for write in pending {
            write.await.unwrap();
        }
    };
    // Several segments, and several snapshots that let them go.
    write(1500).await;
    ensemble = blocking(ensemble, move |e| {
        let first = e.dir.join(format!("node-{}/data/log/0000000000000001.log", e.leader()));
        // The last of the snapshots may still be on its way.
        eventually("the first segment is purged", || !first.exists());
        e.start_node(away);
    })
    .await;
    write(500).await;
    blocking(ensemble, move |e| {
        e.agree();
        assert!(e.log(away).contains("the log starts anew behind the leader's snapshot"));
        succeed(&run_at(e.endpoint(away), &["get", "/big"]), &["get"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_s21_a_paused_node_delays_no_other_and_only_it_is_dropped() {
    let ensemble = Ensemble::start_with(3, 0, IMPATIENT);
    let client = connect(&ensemble).await;
    client.create("/z", "", CreateMode::default()).await.unwrap();
    let (leader, still) = (ensemble.leader(), follower(&ensemble));
    let client =
        Client::connect(vec![ensemble.endpoint(leader).to_owned()], Options::default()).await.unwrap();
    let mut longest = Duration::ZERO;
    ensemble.signal(still, "STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(4) {
        let begin = Instant::now();
        client.set("/z", "while one stands still", None).await.unwrap();
        longest = longest.max(begin.elapsed());
    }
    ensemble.signal(still, "CONT");
    // Far below the sync limit, after which the leader drops it: no write waited for it.
    assert!(longest < Duration::from_millis(700), "a write took {longest:?}");
    blocking(ensemble, move |e| {
        assert_eq!(e.leader(), leader, "no election");
        assert!(e.log(leader).contains("silent for longer than the limit"), "it was dropped");
        e.agree();
    })
    .await;
}

#[test]
fn s6_s18_a_leader_without_its_quorum_leaves_and_serves_no_writes() {
    let ensemble = Ensemble::start_with(3, 0, IMPATIENT);
    let leader = ensemble.leader();
    let others: Vec<usize> = (1..=3).filter(|&id| id != leader).collect();
    for &id in &others {
        ensemble.signal(id, "STOP");
    }
    eventually("it looks", || {
        let status = run_at(ensemble.endpoint(leader), &["status", "-o", "json", "--timeout", "1s"]);
        String::from_utf8_lossy(&status.stdout).contains("\"looking\"")
    });
    let at = ensemble.endpoint(leader);
    assert!(!run_at(at, &["create", "/no", "", "--timeout", "1s"]).status.success());
    for &id in &others {
        ensemble.signal(id, "CONT");
    }
    ensemble.agree();
    ensemble.ok(&["create", "/yes", ""]);
}

#[test]
fn s18_a_node_that_cannot_reach_its_leader_in_time_looks_again_and_disturbs_no_other() {
    let mut ensemble = Ensemble::start_with(3, 0, IMPATIENT);
    let (leader, late) = (ensemble.leader(), follower(&ensemble));
    ensemble.kill9(late);
    // Elections reach it; at the leader's address a listener accepts connections and sends nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = ensemble.dir.join(format!("node-{late}/quorate.toml"));
    let right = std::fs::read_to_string(&config).unwrap();
    let client_port: u16 = ensemble.endpoint(leader).rsplit(':').next().unwrap().parse().unwrap();
    let port = |port: u16| format!("quorum_port = {port}\n");
    let wrong = right.replace(&port(client_port + 1), &port(silent.local_addr().unwrap().port()));
    assert_ne!(wrong, right);
    std::fs::write(&config, wrong).unwrap();
    ensemble.start_node(late);
    eventually("it gives up and looks again, twice", || {
        ensemble.log(late).matches("looking for a leader").count() >= 4
    });
    assert_eq!(ensemble.leader(), leader, "no other node is disturbed");
    succeed(&run_at(ensemble.endpoint(leader), &["create", "/z", ""]), &["create"]);
    ensemble.kill9(late);
    std::fs::write(&config, right).unwrap();
    ensemble.start_node(late);
    ensemble.agree();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_writes_wait_in_an_election_sessions_live_on_and_nothing_is_done_twice() {
    let mut ensemble = Ensemble::start();
    // Shorter than the time without a leader.
    let options = Options { session_timeout: Duration::from_secs(2), ..Options::default() };
    let survivor = follower(&ensemble);
    let at = vec![ensemble.endpoint(survivor).to_owned()];
    let client = Client::connect(at, options).await.unwrap();
    let ephemeral = CreateMode::EPHEMERAL;
    client.create("/mine", "", ephemeral).await.unwrap();
    client.create("/count", "", CreateMode::default()).await.unwrap();
    let others: Vec<usize> = (1..=3).filter(|&id| id != survivor).collect();
    let killed = others.clone();
    ensemble = blocking(ensemble, move |e| killed.into_iter().for_each(|id| e.kill9(id))).await;
    let mut pending = Vec::new();
    for version in 0..100 {
        let (path, data) = (client_sdk::Path::new("/count").unwrap(), version.to_string().into());
        // Each expects the one before: out of order, twice or lost would be an error.
        let write = client_sdk::Write::Set { path, data: Some(data), version: Some(version.into()) };
        pending.push(client.submit(write).await);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensemble = blocking(ensemble, move |e| others.into_iter().for_each(|id| e.start_node(id))).await;
    for write in pending {
        tokio::time::timeout(PATIENCE, write).await.expect("an answer").expect("carried out, in order");
    }
    assert!(client.exists("/mine").await.unwrap().is_some(), "no session ends without a leader");
    assert_eq!(client.get("/count").await.unwrap().1.version, 100);
    blocking(ensemble, |e| e.agree()).await;
}

#[test]
fn s24_a_deposed_leader_that_does_not_know_it_answers_no_linearizable_read() {
    let mut ensemble = Ensemble::start_with(3, 0, IMPATIENT);
    ensemble.ok(&["create", "/s24", "old"]);
    ensemble.agree();
    for round in 0..3 {
        let leader = ensemble.leader();
        let at = ensemble.endpoint(leader).to_owned();
        ensemble.signal(leader, "STOP");
        let others: Vec<&str> = (1..=3).filter(|&id| id != leader).map(|id| ensemble.endpoint(id)).collect();
        let value = format!("new {round}");
        succeed(&run_at(&others.join(","), &["set", "/s24", &value]), &["set"]);
        // It wakes up and still believes that it leads; the questions are waiting for it already.
        let ask = |args: &'static [&'static str]| {
            let at = at.clone();
            std::thread::spawn(move || run_at(&at, args))
        };
        let asked = [
            ask(&["get", "/s24", "--level", "linearizable", "--timeout", "20s"]),
            ask(&["get", "/s24", "--sync", "--timeout", "20s"]),
        ];
        std::thread::sleep(Duration::from_millis(300));
        ensemble.signal(leader, "CONT");
        for asked in asked {
            let output = asked.join().unwrap();
            assert_eq!(succeed(&output, &["get"]).trim_end(), value);
        }
        ensemble.agree();
    }
    ensemble.kill9_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_s23_observers_learn_forward_and_never_count() {
    let mut ensemble = Ensemble::start_with(5, 2, &[]);
    let observer = Client::connect(vec![ensemble.endpoint(5).to_owned()], Options::default()).await.unwrap();
    observer.create("/from-observer", "x", CreateMode::default()).await.unwrap();
    assert_eq!(
        &observer.get("/from-observer").await.unwrap().0[..],
        b"x",
        "what it forwarded it has applied"
    );
    ensemble = blocking(ensemble, |e| {
        let roles: Vec<String> = (1..=5).map(|id| role(e, id)).collect();
        assert_eq!(roles[3..], ["observer", "observer"], "{roles:?}");
        assert_eq!(roles.iter().filter(|r| *r == "leader").count(), 1);
        e.agree();
        // One voter of three and two observers are no quorum.
        let leader = e.leader();
        (1..=3).filter(|&id| id != leader).for_each(|id| e.kill9(id));
        assert!(!e.run(&["create", "/no", "", "--timeout", "2s"]).status.success());
        (1..=3).filter(|&id| id != leader).for_each(|id| e.start_node(id));
        // An observer that was away catches up.
        e.kill9(4);
        e.ok(&["create", "/meanwhile", ""]);
        e.start_node(4);
        e.agree();
    })
    .await;
    drop(ensemble);
}
