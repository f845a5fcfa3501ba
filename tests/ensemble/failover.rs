//! Elections as a client sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client_sdk::{Client, CreateMode, Options, SessionEvent};

use crate::harness::{Ensemble, PATIENCE, blocking, eventually, run_at, succeed};

fn roles(ensemble: &Ensemble) -> Vec<String> {
    ensemble.status().iter().map(|n| n["role"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn s1_nodes_started_one_after_another() {
    let mut ensemble = Ensemble::down(3);
    ensemble.start_node(1);
    eventually("node 1 answers, and looks", || roles(&ensemble) == ["looking", "unreachable", "unreachable"]);
    let alone = ensemble.run(&["status"]);
    assert!(!alone.status.success(), "the exit code reports the missing leader");
    ensemble.start_node(2);
    eventually("2 leads, by its larger id", || roles(&ensemble) == ["follower", "leader", "unreachable"]);
    ensemble.start_node(3);
    eventually("3 joins the leader that exists", || roles(&ensemble) == ["follower", "leader", "follower"]);
    ensemble.ok(&["create", "/s1", "works"]);
    ensemble.agree();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_s5_the_leader_dies_and_its_clients_see_only_latency() {
    let mut ensemble = Ensemble::start();
    let client = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    client.create("/count", "0", CreateMode::default()).await.unwrap();
    let mut events = client.events();

    let written = Arc::new(AtomicU64::new(0));
    let counter = tokio::spawn({
        let (client, written) = (client.clone(), written.clone());
        async move {
            // Each expects the version that the one before left: a write that is lost or carried out twice is an error.
            for version in 0..600 {
                client.set("/count", version.to_string(), Some(version.into())).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for _ in 0..2 {
        let before = written.load(Ordering::Relaxed);
        ensemble = tokio::task::spawn_blocking(move || {
            let leader = ensemble.leader();
            ensemble.kill9(leader);
            ensemble.start_node(leader);
            ensemble
        })
        .await
        .unwrap();
        let progress = async {
            while written.load(Ordering::Relaxed) < 600.min(before + 100) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, progress).await.expect("writes go on after the leader died");
    }
    tokio::time::timeout(PATIENCE, counter).await.expect("all writes end").unwrap();
    let (_, stat) = client.get("/count").await.unwrap();
    assert_eq!(stat.version, 600);
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, SessionEvent::SessionLost { .. }), "the session lives through elections");
    }
    tokio::task::spawn_blocking(move || ensemble.agree()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_five_nodes_go_on_with_two_down_and_wait_with_three_down() {
    let temp = tempfile::tempdir().unwrap();
    let mut ensemble = Ensemble::start_in(temp.path(), 5);
    let client = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    client.create("/s20", "0", CreateMode::default()).await.unwrap();
    ensemble = blocking(ensemble, |e| {
        e.kill9(1);
        e.kill9(2);
    })
    .await;
    client.set("/s20", "two down", None).await.unwrap();
    ensemble = blocking(ensemble, |e| e.kill9(3)).await;
    let parked = tokio::spawn({
        let client = client.clone();
        async move { client.set("/s20", "parked", None).await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!parked.is_finished(), "with three of five down no write is acknowledged");
    ensemble = blocking(ensemble, |e| e.start_node(3)).await;
    tokio::time::timeout(PATIENCE, parked).await.expect("it runs when the third returns").unwrap().unwrap();
    let (value, stat) = client.get("/s20").await.unwrap();
    assert_eq!((&value[..], stat.version), (&b"parked"[..], 2));
    blocking(ensemble, |e| {
        e.start_node(1);
        e.start_node(2);
        e.agree();
    })
    .await;
}

#[test]
fn s22_s24_every_node_takes_writes_and_shows_them_at_once() {
    let ensemble = Ensemble::start();
    for id in 1..=3 {
        let (path, value) = (format!("/from-{id}"), format!("value {id}"));
        let args = ["create", &path, &value];
        succeed(&run_at(ensemble.endpoint(id), &args), &args);
        let args = ["get", &path];
        let read = succeed(&run_at(ensemble.endpoint(id), &args), &args);
        assert_eq!(read.trim_end(), value, "the node that answered has applied it");
        for other in 1..=3 {
            let at = ensemble.endpoint(other);
            succeed(&run_at(at, &["sync"]), &["sync"]);
            assert_eq!(
                succeed(&run_at(at, &args), &args).trim_end(),
                value,
                "after sync node {other} has it too"
            );
        }
    }
    ensemble.agree();
    ensemble.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemerals_go_with_their_session_also_when_client_and_leader_die_together() {
    let mut ensemble = Ensemble::start();
    let options = Options { session_timeout: Duration::from_secs(2), ..Options::default() };
    let dying = Client::connect(ensemble.endpoints.clone(), options).await.unwrap();
    let watcher = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    let ephemeral = CreateMode::EPHEMERAL;
    dying.create("/here", "", ephemeral).await.unwrap();
    // On another node, which may not have come that far.
    watcher.sync().await.unwrap();
    assert!(watcher.exists("/here").await.unwrap().is_some());
    ensemble = blocking(ensemble, |e| {
        let leader = e.leader();
        e.kill9(leader);
    })
    .await;
    // The session lives on through the election, because its client does.
    tokio::time::sleep(Duration::from_secs(4)).await;
    watcher.sync().await.unwrap();
    assert!(watcher.exists("/here").await.unwrap().is_some(), "a live session keeps its ephemerals");
    drop(dying);
    let gone = async {
        while watcher.exists("/here").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("a silent session ends");
    drop(ensemble);
}
