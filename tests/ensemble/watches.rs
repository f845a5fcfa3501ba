//! Watches over the deaths of nodes: each change comes once, in order, whatever dies.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use client_sdk::{Cache, ChangeKind, Client, CreateMode, Options, ReadLevel, SessionEvent, WatchEvent};

use tokio::task::block_in_place;

use crate::harness::{Ensemble, PATIENCE, QUORATE, signal, within};

/// The watcher's node dies, then the leader, while another client counts; no number is missed, and none comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_missed_or_told_twice_when_the_watchers_node_and_the_leader_die() {
    let mut ensemble = block_in_place(Ensemble::start);
    let watcher = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    let writer = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    writer.create("/count", "0", CreateMode::default()).await.unwrap();
    // Its node may not have applied that yet.
    watcher.sync().await.unwrap();
    let mut watch = watcher.watch("/count").values().with_state().await.unwrap();
    let mut events = watcher.events();

    const LAST: u64 = 600;
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move {
            for n in 1..=LAST {
                writer.set("/count", n.to_string(), None).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let (mut seen, mut last, mut kills) = (Vec::new(), None, 0);
    let all = async {
        while seen.last() != Some(&LAST) {
            match watch.next().await.expect("it goes on").unwrap() {
                WatchEvent::State { zxid, znodes } => {
                    assert!(last.is_none(), "the nodes know all that has happened: {zxid}");
                    let value: u64 =
                        String::from_utf8_lossy(znodes[0].data.as_ref().unwrap()).parse().unwrap();
                    (last, seen) = (Some(zxid), vec![value]);
                }
                WatchEvent::Changes { zxid, changes } => {
                    assert!(Some(zxid) > last, "{zxid} behind {last:?}");
                    last = Some(zxid);
                    assert_eq!(changes.len(), 1);
                    assert_eq!(changes[0].kind, ChangeKind::DataChanged);
                    let value = changes[0].data.as_ref().expect("the value");
                    seen.push(String::from_utf8_lossy(value).parse().unwrap());
                }
            }
            // First the node that it talks to, later the leader.
            let due = [100, 300];
            if due.get(kills).is_some_and(|&at| seen.len() > at) {
                let victim = match kills {
                    0 => {
                        let endpoint = watcher.endpoint().expect("connected").to_owned();
                        ensemble.endpoints.iter().position(|e| *e == endpoint).unwrap() + 1
                    }
                    _ => block_in_place(|| ensemble.leader()),
                };
                kills += 1;
                block_in_place(|| {
                    ensemble.kill9(victim);
                    ensemble.start_node(victim);
                    ensemble.all_serve();
                });
            }
        }
    };
    tokio::time::timeout(4 * PATIENCE, all).await.expect("the watch has stopped");
    writing.await.unwrap();
    let first = seen[0];
    assert_eq!(seen, (first..=LAST).collect::<Vec<_>>(), "each number once, in order");
    assert_eq!(kills, 2);
    let moved = std::iter::from_fn(|| events.try_recv().ok());
    assert!(moved.filter(|e| matches!(e, SessionEvent::Disconnected { .. })).count() > 0, "it has moved");
    assert!(block_in_place(|| ensemble.metrics(1)).contains("quorate_watch_events"));
    block_in_place(|| ensemble.stop());
}

#[test]
fn the_command_line_watches_a_tree() {
    let ensemble = Ensemble::start();
    ensemble.ok(&["create", "/app", "one"]);
    let mut child = Command::new(QUORATE)
        .args(["watch", "/app", "-R", "--initial", "--values", "-o", "json", "--quiet"])
        .env("QUORATE_ENDPOINTS", ensemble.all())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let state = line();
    assert_eq!(
        (&state["event"], &state["path"], &state["value"]),
        (&"state".into(), &"/app".into(), &"one".into())
    );
    ensemble.ok(&["create", "/app/x", "two"]);
    ensemble.ok(&["create", "/other", ""]);
    ensemble.ok(&["set", "/app", "three"]);
    ensemble.ok(&["delete", "/app/x"]);
    let told = [line(), line(), line()];
    let short = |line: &serde_json::Value| {
        format!("{} {}", line["event"].as_str().unwrap(), line["path"].as_str().unwrap())
    };
    assert_eq!(
        told.iter().map(short).collect::<Vec<_>>(),
        ["created /app/x", "changed /app", "deleted /app/x"]
    );
    assert_eq!((&told[0]["value"], &told[1]["value"]), (&"two".into(), &"three".into()));
    signal(child.id(), "INT");
    assert!(within(PATIENCE, || child.try_wait().unwrap().is_some_and(|status| status.success())));

    // From an entry on: what has happened since, again.
    let from = told[0]["zxid"].as_str().unwrap();
    let output = ensemble.ok(&["watch", "/app", "--once", "--from", from]);
    assert!(output.contains("changed") && output.contains("/app"), "{output}");
    ensemble.stop();
}

/// Caches over the death of their node and of the leader: in the end each shows what there is, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn caches_show_what_there_is_after_their_node_and_the_leader_have_died() {
    let mut ensemble = block_in_place(Ensemble::start);
    block_in_place(|| ensemble.all_serve());
    let reader = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    let writer = Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap();
    for path in ["/c", "/c/0", "/c/1"] {
        writer.create(path, "0", CreateMode::default()).await.unwrap();
    }
    reader.sync().await.unwrap();
    let node = Cache::node(&reader, "/c").await.unwrap();
    let children = Cache::children(&reader, "/c").await.unwrap();
    let tree = Cache::tree(&reader, "/c").await.unwrap();
    assert!(!tree.is_stale() && tree.error().is_none());
    assert_eq!((node.iter().count(), children.iter().count(), tree.iter().count()), (1, 2, 3));
    let names: Vec<String> = children.iter().map(|znode| znode.path.to_string()).collect();
    assert_eq!(names, ["/c/0", "/c/1"]);

    let writing = tokio::spawn({
        let writer = writer.clone();
        async move {
            for n in 2..=300u32 {
                let path = format!("/c/{n}");
                writer.create(&path, n.to_string(), CreateMode::default()).await.unwrap();
                writer.set("/c/1", n.to_string(), None).await.unwrap();
                if n % 2 == 1 {
                    writer.delete(&format!("/c/{}", n - 1), None).await.unwrap();
                }
                writer.set("/c", n.to_string(), None).await.unwrap();
            }
        }
    });
    let own = reader.endpoint().unwrap().to_owned();
    let own = 1 + ensemble.endpoints.iter().position(|endpoint| *endpoint == own).unwrap();
    for victim in [own, block_in_place(|| ensemble.leader())] {
        block_in_place(|| {
            ensemble.kill9(victim);
            ensemble.start_node(victim);
            ensemble.all_serve();
        });
    }
    writing.await.unwrap();
    // No cache of children hears of a change of the parent's value, which is the last one.
    let last = [("/c", vec![&node, &tree]), ("/c/1", vec![&children])];
    for (path, caches) in last {
        let (_, stat) = writer.get(path).await.unwrap();
        let fresh = |cache: &&Cache| !cache.is_stale() && cache.as_of() >= stat.mzxid;
        let caught_up = block_in_place(|| within(PATIENCE, || caches.iter().all(fresh)));
        assert!(
            caught_up,
            "{path}: {stat:?}, {:?}",
            caches.iter().map(|cache| cache.as_of()).collect::<Vec<_>>()
        );
    }
    let mut walked = writer.walk("/c").with_data().level(ReadLevel::Linearizable).await.unwrap();
    let mut there = Vec::new();
    while let Some(znode) = walked.next().await.unwrap() {
        there.push((znode.path.to_string(), znode.data, znode.stat.czxid, znode.stat.version));
    }
    let shown = |cache: &Cache| -> Vec<_> {
        let one = |znode: std::sync::Arc<client_sdk::WatchedZnode>| {
            (znode.path.to_string(), znode.data.clone(), znode.stat.czxid, znode.stat.version)
        };
        cache.iter().map(one).collect()
    };
    there.sort();
    assert_eq!(shown(&tree), there);
    let (root, below) = there.split_first().unwrap();
    assert_eq!(shown(&node), std::slice::from_ref(root));
    assert_eq!(shown(&children), below);
    assert_eq!(tree.get("/c/1").unwrap().data, children.get("/c/1").unwrap().data);
    assert_eq!((tree.get("/d"), children.get("/c")), (None, None));

    reader.close().await.unwrap();
    assert!(block_in_place(|| within(PATIENCE, || tree.error().is_some() && tree.is_stale())));
    ensemble = crate::harness::blocking(ensemble, |ensemble| ensemble.agree()).await;
    block_in_place(|| ensemble.stop());
}
