//! Acts of operators, and faults of disks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client_sdk::{Client, CreateMode, Options};

use crate::harness::{Ensemble, PATIENCE, alive, blocking, copy_dir, eventually};

/// Writes one after the other until it gets the signal to stop; returns the number of writes, and the longest
/// time.
async fn count(client: Client, stop: tokio::sync::oneshot::Receiver<()>) -> (i32, Duration) {
    let (mut version, mut longest) = (0, Duration::ZERO);
    while stop.is_empty() {
        let begin = Instant::now();
        // Each expects the version that the one before left: a write that is lost or carried out twice is an error.
        client.set("/count", version.to_string(), Some(version.into())).await.unwrap();
        longest = longest.max(begin.elapsed());
        version += 1;
    }
    (version, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_a_stopping_leader_hands_over_and_its_clients_see_only_latency() {
    let mut ensemble = Ensemble::start();
    let client = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    client.create("/count", "", CreateMode::default()).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let counter = tokio::spawn(count(client.clone(), stopped));
    // One after the other, as in a rolling restart that begins with the leader.
    for _ in 0..3 {
        ensemble = blocking(ensemble, |e| {
            let leader = e.leader();
            let pids = e.pids(leader);
            e.signal(leader, "TERM");
            eventually("the old leader ends by itself", || e.gone(&pids));
            let text = e.log(leader);
            assert!(text.contains("this server is about to stop"), "it handed over");
            assert!(!text.contains("no other node took over"));
            assert_ne!(e.leader(), leader);
            e.start_node(leader);
            e.all_serve();
        })
        .await;
    }
    stop.send(()).unwrap();
    let (writes, longest) = tokio::time::timeout(PATIENCE, counter).await.expect("writes go on").unwrap();
    let (_, stat) = client.get("/count").await.unwrap();
    assert_eq!(stat.version, writes);
    println!("{writes} writes while three leaders handed over; the longest took {longest:?}");
    blocking(ensemble, |e| e.agree()).await;
}

/// The first segment of a node's log.
fn segment(ensemble: &Ensemble, id: usize) -> PathBuf {
    let dir = ensemble.dir.join(format!("node-{id}/data/log"));
    let files = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path());
    files.filter(|f| f.extension().is_some_and(|e| e == "log")).min().expect("a segment")
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn f9_a_record_that_the_disk_has_damaged_heals_from_the_leader() {
    let mut ensemble = Ensemble::start();
    for i in 0..20 {
        ensemble.ok(&["create", &format!("/z{i}"), "a value of some length, to be damaged later"]);
    }
    ensemble.agree();
    let victim = (1..=3).find(|&id| id != ensemble.leader()).unwrap();
    let log = segment(&ensemble, victim);
    ensemble.kill9(victim);
    flip(&log, 700);
    // The checkpoint knows what the log has lost. Without it, the node has nothing but the leader.
    std::fs::remove_dir_all(ensemble.table(victim)).unwrap();
    ensemble.ok(&["create", "/meanwhile", ""]);
    ensemble.start_node(victim);
    ensemble.agree();
    let text = ensemble.log(victim);
    assert!(text.contains("the log was damaged; this node does not vote until"), "it says what happened");
    let aside = log.with_extension("log.damaged");
    assert!(aside.exists(), "{} is kept", aside.display());
    assert_counts(&mut ensemble, victim);
}

/// There is no quorum without this one of three nodes while another is down; and it comes back like any other.
fn assert_counts(ensemble: &mut Ensemble, node: usize) {
    let other = (1..=3).find(|&id| id != ensemble.leader() && id != node).unwrap();
    ensemble.kill9(other);
    ensemble.ok(&["create", "/healed", ""]);
    ensemble.kill9(node);
    ensemble.start_node(node);
    ensemble.start_node(other);
    ensemble.agree();
}

#[test]
fn f9_of_two_damaged_logs_in_three_nothing_committed_is_lost() {
    let mut ensemble = Ensemble::start();
    for i in 0..20 {
        ensemble.ok(&["create", &format!("/z{i}"), "a value of some length, to be damaged later"]);
    }
    ensemble.agree();
    let leader = ensemble.leader();
    let victims: Vec<usize> = (1..=3).filter(|&id| id != leader).collect();
    ensemble.kill9_all();
    for &id in &victims {
        flip(&segment(&ensemble, id), 700);
    }
    // The two of them may not make a quorum of what is left to them.
    victims.iter().for_each(|&id| ensemble.start_node(id));
    std::thread::sleep(Duration::from_secs(3));
    assert!(ensemble.status().iter().all(|n| n["role"] != "leader"));
    // The third node cannot know either that it has everything: it logs it, and waits.
    ensemble.start_node(leader);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!ensemble.run(&["get", "/z0", "--timeout", "2s"]).status.success());
    let pids = ensemble.all_pids();
    drop(ensemble);
    assert!(pids.into_iter().all(|pid| !alive(pid)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_any_state_stops_with_an_error_and_heals_after_a_restart() {
    let settings = [
        ("QUORATE_LOG_SEGMENT_SIZE", "1MiB"),
        ("QUORATE_LOG_SNAPSHOT_EVERY", "20"),
        ("QUORATE_LOG_KEEP_SIZE", "0"),
        ("QUORATE_LOG_KEEP_ENTRIES", "0"),
    ];
    let ensemble = Ensemble::start_with(3, 0, &settings);
    let client = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    client.create("/z", "", CreateMode::default()).await.unwrap();
    // Fills several segments, so that the first ones are purged.
    for _ in 0..400 {
        client.set("/z", vec![7; 10_000], None).await.unwrap();
    }
    blocking(ensemble, lose_every_state).await;
}

fn lose_every_state(ensemble: &mut Ensemble) {
    let victim = (1..=3).find(|&id| id != ensemble.leader()).unwrap();
    let data = ensemble.dir.join(format!("node-{victim}/data"));
    eventually("the beginning of its log is purged", || {
        segment(ensemble, victim).file_name().unwrap() != "0000000000000001.log"
    });
    ensemble.kill9(victim);
    std::fs::remove_dir_all(ensemble.table(victim)).unwrap();
    for file in std::fs::read_dir(data.join("snapshots")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    ensemble.start_node(victim);
    let text = |e: &Ensemble| e.log(victim);
    eventually("it stops and says why", || text(ensemble).contains("no sound snapshot is left"));
    assert!(text(ensemble).contains("start the node again: it heals from its leader"));
    ensemble.reap(victim);
    ensemble.start_node(victim);
    ensemble.agree();
}

/// An operator restores a backup in the place of one node's directory, while the only other node with the
/// later writes is away.
#[test]
fn f15_an_older_copy_of_a_data_directory_is_found_out_and_heals_from_the_leader() {
    let mut ensemble = Ensemble::start();
    ensemble.ok(&["create", "/a", "before"]);
    ensemble.agree();
    let leader = ensemble.leader();
    let [victim, behind] = [1, 2].map(|n| (leader - 1 + n) % 3 + 1);
    let data = ensemble.dir.join(format!("node-{victim}/data"));
    let copy = ensemble.dir.join("copy");
    ensemble.kill9(victim);
    copy_dir(&data, &copy);
    ensemble.start_node(victim);
    ensemble.agree();

    ensemble.kill9(behind);
    ensemble.ok(&["create", "/b", "after"]);
    ensemble.kill9_all();
    std::fs::remove_dir_all(&data).unwrap();
    copy_dir(&copy, &data);
    ensemble.start_node(behind);
    ensemble.start_node(victim);
    // The two of them are a majority, and neither has /b.
    eventually("it gets the report", || ensemble.log(victim).contains("its data directory is an older copy"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!ensemble.run(&["create", "/c", "", "--timeout", "2s"]).status.success());

    ensemble.start_node(leader);
    ensemble.agree();
    assert_eq!(ensemble.ok(&["get", "/b"]).trim_end(), "after");
    assert_counts(&mut ensemble, victim);
    // No node takes it for an older copy any more.
    assert_eq!(ensemble.log(victim).matches("its data directory is an older copy").count(), 1);
}

/// All voters are restored together, as docs/operations.md describes: writes after the backup are gone, and
/// the voters begin from it, whatever incarnations they had met.
#[test]
fn a_backup_is_restored_to_all_voters() {
    let mut ensemble = Ensemble::start();
    ensemble.ok(&["create", "/a", "before"]);
    ensemble.agree();
    let copy = ensemble.dir.join("copy");
    let source = (1..=3).find(|&id| id != ensemble.leader()).unwrap();
    let pids = ensemble.pids(source);
    ensemble.signal(source, "TERM");
    eventually("it stops", || ensemble.gone(&pids));
    copy_dir(&ensemble.dir.join(format!("node-{source}/data")), &copy);
    ensemble.start_node(source);
    ensemble.agree();
    ensemble.ok(&["create", "/b", "after"]);
    ensemble.agree();
    ensemble.kill9_all();
    for left_out in ["lock", "incarnations", "table", "store", "identity"] {
        let path = copy.join(left_out);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path).or(Ok(())) }
            .unwrap();
    }
    for id in 1..=3 {
        let data = ensemble.dir.join(format!("node-{id}/data"));
        let former = ensemble.dir.join(format!("former-{id}"));
        std::fs::rename(&data, &former).unwrap();
        copy_dir(&copy, &data);
        std::fs::copy(former.join("identity"), data.join("identity")).unwrap();
        ensemble.start_node(id);
    }
    ensemble.agree();
    assert_eq!(ensemble.ok(&["get", "/a"]).trim_end(), "before");
    assert!(!ensemble.run(&["get", "/b"]).status.success());
}
