//! The guarantees of the port [`Quorum`], for a quorum in this process and in another: one suite for
//! both. Further tests for the remote port alone: either side may disappear and return.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

mod fixture;
mod remote;

use std::collections::BTreeSet;
use std::time::Duration;

use api::ports::{Chunks, Feed, FeedItem, Quorum, Refusal, Request, Role, Sign, Signs};
use api::{Level, LevelRefusal, Levels, PeerId, Ticket, Zxid};
use bytes::Bytes;
use quorum_svc::Handle;

use fixture::{Node, REQUESTS_MAX, Store, barrier, soon, submit};

/// How a test reaches the quorum.
trait Packaging {
    type Port: Quorum;
    fn port(node: &Node) -> Self::Port;
}

struct Local;

impl Packaging for Local {
    type Port = Handle;
    fn port(node: &Node) -> Handle {
        node.handle.clone()
    }
}

struct Remote;

impl Packaging for Remote {
    type Port = proto::remote::RemoteQuorum;
    fn port(node: &Node) -> Self::Port {
        node.remote()
    }
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod local { $(#[tokio::test] async fn $test() { super::$test::<super::Local>().await; })* }
        mod over_the_wire { $(#[tokio::test] async fn $test() { super::$test::<super::Remote>().await; })* }
    };
}

suite! {
    what_is_submitted_comes_back_once_and_in_order
    a_feed_goes_on_behind_what_the_store_has
    a_newer_store_ends_an_older_one_and_goes_on_with_greater_tickets
    a_barrier_comes_behind_what_was_submitted_before_it
    without_a_leader_requests_wait_and_the_store_is_told
    what_waits_for_too_long_or_is_too_much_is_refused
    a_report_reaches_the_store_of_the_leader
    a_snapshot_takes_the_place_of_the_log_below_it
    large_values_and_large_batches_pass
    the_status_is_that_of_the_node
    the_feature_level_is_told_and_asked_for
}

async fn the_feature_level_is_told_and_asked_for<P: Packaging>() {
    let node = Node::start(false).await;
    let port = P::port(&node);
    let [one, two] = [1, 2].map(Level);
    let leaderless = port.set_level(one, two).await;
    assert!(matches!(leaderless, Err(LevelRefusal::Unavailable(_))), "{leaderless:?}");
    assert_eq!(port.surroundings().await.unwrap().level, None);
    node.elect();
    soon(async {
        while port.surroundings().await.unwrap().level != Some(one) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let build = port.surroundings().await.unwrap().build.unwrap();
    assert_eq!((build.version.as_str(), build.levels), ("test", Levels::BUILD));
    assert_eq!(port.set_level(one, one).await, Ok(one));
    for (expected, level, word) in
        [(one, two, "member 1 knows level 1"), (two, two, "at feature level 1, not 2")]
    {
        match port.set_level(expected, level).await {
            Err(LevelRefusal::Refused(why)) => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

async fn what_is_submitted_comes_back_once_and_in_order<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    for batch in 0..10 {
        port.request((1..=20).map(|i| submit(batch * 20 + i)).collect()).await.unwrap();
    }
    store.read(200).await;
    assert_eq!(store.tickets(), (1..=200).collect::<Vec<u64>>());
    assert!(store.entries.windows(2).all(|w| w[1].zxid.follows(w[0].zxid)), "no gap");
    assert!(store.entries.iter().all(|e| e.origin.is_none_or(|o| o.peer == PeerId(1))));
    port.request(vec![barrier(201)]).await.unwrap();
    store.pass_barrier(201).await;
    assert_eq!(store.tickets().len(), 200, "none comes twice");
}

async fn a_feed_goes_on_behind_what_the_store_has<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request((1..=50).map(submit).collect()).await.unwrap();
    store.read(50).await;
    let place = store.entries[20].zxid;
    let behind: Vec<Zxid> = store.entries[21..].iter().map(|e| e.zxid).collect();
    drop(store);
    let mut store = Store::attach(&port, place).await;
    store.read(behind.len()).await;
    assert_eq!(store.entries.iter().map(|e| e.zxid).collect::<Vec<_>>(), behind);
    assert_eq!(store.snapshot, None);
}

async fn a_newer_store_ends_an_older_one_and_goes_on_with_greater_tickets<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut older = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![submit(1)]).await.unwrap();
    older.read(1).await;
    let place = older.last();
    let other_port = P::port(&node);
    let mut newer = Store::attach(&port, place).await;
    soon(async { while older.feed.next().await.is_ok() {} }).await;
    port.request(vec![submit(1_000_000)]).await.unwrap();
    newer.read(1).await;
    assert_eq!(newer.tickets(), [1_000_000]);
    // Another client of the same quorum, like a restarted store.
    let mut newest = Store::attach(&other_port, place).await;
    other_port.request(vec![submit(2_000_000)]).await.unwrap();
    newest.read(2).await;
    assert_eq!(newest.tickets().last(), Some(&2_000_000));
}

async fn a_barrier_comes_behind_what_was_submitted_before_it<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![submit(1), submit(2), barrier(3)]).await.unwrap();
    store.read(2).await;
    store.pass_barrier(3).await;
    let last = store.last();
    // A barrier reports the commit point of its request, so both writes come before it.
    port.request(vec![barrier(4)]).await.unwrap();
    store.pass_barrier(4).await;
    assert_eq!((store.tickets(), store.barriers[&4]), (vec![1, 2], last));
    drop(store);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![barrier(5)]).await.unwrap();
    store.pass_barrier(5).await;
    assert!(store.barriers[&5] >= last, "not before what is committed, though the store begins from nothing");
}

async fn without_a_leader_requests_wait_and_the_store_is_told<P: Packaging>() {
    let node = Node::start(false).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![submit(1), barrier(2), submit(3)]).await.unwrap();
    store.until(|item| matches!(item, FeedItem::Status(s) if !s.serving && s.role == Role::Looking)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(store.entries.is_empty());
    node.elect();
    store.until(|item| matches!(item, FeedItem::Status(s) if s.serving && s.role == Role::Leading)).await;
    store.read(2).await;
    assert_eq!(store.tickets(), [1, 3]);
}

async fn what_waits_for_too_long_or_is_too_much_is_refused<P: Packaging>() {
    let node = Node::start(false).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    let max = REQUESTS_MAX as u64;
    port.request((1..=max + 5).map(submit).collect()).await.unwrap();
    let mut full = BTreeSet::new();
    let mut late = BTreeSet::new();
    soon(async {
        while full.len() + late.len() < REQUESTS_MAX + 5 {
            for item in store.step().await {
                match item {
                    FeedItem::Refused { ticket, why: Refusal::Full } => assert!(full.insert(ticket.0)),
                    FeedItem::Refused { ticket, why: Refusal::NoLeader } => assert!(late.insert(ticket.0)),
                    _ => {}
                }
            }
        }
    })
    .await;
    assert_eq!(full, (max + 1..=max + 5).collect());
    assert_eq!(late, (1..=max).collect());
    node.elect();
    port.request(vec![submit(max + 6)]).await.unwrap();
    store.read(1).await;
    assert_eq!(store.tickets(), [max + 6], "what was refused is never carried out");
}

async fn a_report_reaches_the_store_of_the_leader<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    store.until(|item| matches!(item, FeedItem::Status(s) if s.serving)).await;
    let report = Bytes::from_static(b"heard 7");
    port.request(vec![Request::Report(report.clone())]).await.unwrap();
    // The test does not read the feed.
    assert_eq!(
        soon(store.signs.next()).await,
        Some(Sign::Report { from: PeerId(1), report: report.clone() })
    );
    let epoch = port.status().await.unwrap().epoch;
    port.request(vec![Request::Confirm { to: PeerId(1), epoch, report: report.clone() }]).await.unwrap();
    assert_eq!(soon(store.signs.next()).await, Some(Sign::Confirmed(report)));
}

struct Pieces(Vec<Bytes>);

impl Chunks for Pieces {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.pop()
    }
}

async fn a_snapshot_takes_the_place_of_the_log_below_it<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    for round in 1..=4u64 {
        port.request((1..=100).map(|i| submit(round * 100 + i)).collect()).await.unwrap();
        store.read(100 * usize::try_from(round).unwrap()).await;
        let zxid = store.last();
        let state = vec![Bytes::from(vec![7; 1 << 20]), Bytes::from(format!("state at {zxid}"))];
        soon(port.save_snapshot(zxid, Pieces(state))).await.unwrap();
    }
    port.request(vec![submit(1000)]).await.unwrap();
    store.read(401).await;
    let all = store.entries.clone();
    let last = store.last();
    drop(store);

    let mut store = Store::attach(&port, Zxid::ZERO).await;
    soon(async {
        while store.last() < last {
            store.step().await;
        }
    })
    .await;
    let (zxid, state) = store.snapshot.clone().expect("the log no longer begins at the beginning");
    assert_eq!(state.len(), (1 << 20) + format!("state at {zxid}").len());
    assert!(state.starts_with(format!("state at {zxid}").as_bytes()));
    let behind: Vec<Zxid> = all.iter().map(|e| e.zxid).filter(|&z| z > zxid).collect();
    assert_eq!(store.entries.iter().map(|e| e.zxid).collect::<Vec<_>>(), behind);
}

async fn large_values_and_large_batches_pass<P: Packaging>() {
    let node = Node::start(true).await;
    let port = P::port(&node);
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    let large = |ticket, bytes| Request::Submit {
        ticket: Ticket(ticket),
        payload: Bytes::from(vec![1; bytes]),
        trace: None,
    };
    let mut batch = vec![large(1, 3 << 20), large(2, 0)];
    batch.extend((3..=40).map(|ticket| large(ticket, 100 << 10)));
    port.request(batch).await.unwrap();
    store.read(40).await;
    assert_eq!(store.tickets(), (1..=40).collect::<Vec<u64>>());
    let sizes: Vec<usize> =
        store.entries.iter().filter_map(|e| e.payload()).map(|payload| payload.len()).collect();
    assert_eq!((sizes[0], sizes[1], sizes[39]), (3 << 20, 0, 100 << 10));
    // Larger than any message between nodes may be.
    port.request(vec![large(41, 65 << 20), submit(42)]).await.unwrap();
    let too_large = FeedItem::Refused { ticket: Ticket(41), why: Refusal::TooLarge };
    store.until(|item| *item == too_large).await;
    store.read(41).await;
}

async fn the_status_is_that_of_the_node<P: Packaging>() {
    let node = Node::start(false).await;
    let port = P::port(&node);
    assert!(!soon(port.status()).await.unwrap().serving);
    node.elect();
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![submit(1)]).await.unwrap();
    store.read(1).await;
    let status = soon(port.status()).await.unwrap();
    assert_eq!((status.role, status.serving, status.leader), (Role::Leading, true, Some(PeerId(1))));
    assert_eq!((status.last, status.committed), (store.last(), store.last()));
}
