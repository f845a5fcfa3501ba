//! The call `Watch`, sessions that only read, and the times of requests, over a real socket.

use std::time::Duration;

use api::PeerId;
use proto::{
    client::from_status,
    v1::{self, ErrorCode, request::Op, watch_item::Item},
};
use store_svc::testing::MemoryQuorum;
use tonic::{Status, Streaming};

use crate::common::*;

/// A call and the items that have come and were not looked at yet.
struct Call {
    stream: Streaming<v1::WatchResponse>,
    items: std::collections::VecDeque<Item>,
}

impl Call {
    async fn start(node: &Node, request: v1::WatchRequest) -> Call {
        let stream = node.client().await.watch(request).await.unwrap().into_inner();
        Call { stream, items: Default::default() }
    }

    /// The next item; `None` at the end of the call.
    async fn next(&mut self) -> Result<Option<Item>, Status> {
        while self.items.is_empty() {
            let message = tokio::time::timeout(Duration::from_secs(20), self.stream.message()).await;
            let Some(message) = message.expect("an item, or the end")? else { return Ok(None) };
            self.items.extend(message.items.into_iter().filter_map(|item| item.item));
        }
        Ok(self.items.pop_front())
    }

    async fn started(&mut self) -> v1::AddWatchesResponse {
        match self.next().await {
            Ok(Some(Item::Started(started))) => started,
            other => panic!("not started but {other:?}"),
        }
    }

    /// The next events: zxid, and kind and path of each.
    async fn events(&mut self) -> (u64, Vec<(v1::ChangeKind, String)>) {
        loop {
            match self.next().await {
                Ok(Some(Item::Mark(_))) => {}
                Ok(Some(Item::Events(group))) => {
                    let change = |event: v1::Event| event.change.map(|c| (c.kind(), c.path));
                    return (group.zxid, group.events.into_iter().filter_map(change).collect());
                }
                other => panic!("no events but {other:?}"),
            }
        }
    }
}

fn spec(id: u32, path: &str) -> v1::WatchSpec {
    v1::WatchSpec { id, path: path.into(), scope: v1::WatchScope::Tree.into(), ..Default::default() }
}

fn watching(watches: Vec<v1::WatchSpec>) -> v1::WatchRequest {
    v1::WatchRequest { watches, read: None }
}

#[tokio::test]
async fn a_call_watches_resumes_and_ends_with_its_last_watch() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    let created = session.ask(vec![create("/a", "one"), create("/b", "x")]).await;

    let mut call = Call::start(&node, watching(vec![spec(1, "/a")])).await;
    assert_eq!(call.started().await.refused, []);
    session.ask(vec![set("/b", "y"), set("/a", "two"), create("/a/c", "")]).await;
    let (first, events) = call.events().await;
    assert_eq!(events, [(v1::ChangeKind::DataChanged, "/a".to_owned())]);
    let (second, events) = call.events().await;
    assert_eq!(events, [(v1::ChangeKind::Created, "/a/c".to_owned())]);
    assert!(second > first);
    drop(call);

    // Another call goes on behind what the first one had; the state comes first where that is asked for.
    let resumed = v1::WatchSpec { from_zxid: Some(first), once: true, ..spec(1, "/a") };
    let with_state = v1::WatchSpec { state: v1::StateRule::Always.into(), with_data: true, ..spec(2, "/b") };
    let read = fresh(v1::ReadLevel::AtLeast, created[1].zxid);
    let mut call =
        Call::start(&node, v1::WatchRequest { watches: vec![resumed.clone(), with_state], read }).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(call.next().await.unwrap().unwrap());
    }
    let state = seen.iter().find_map(|item| match item {
        Item::State(state) => Some(state),
        _ => None,
    });
    let state = state.unwrap_or_else(|| panic!("no state in {seen:?}"));
    assert!(state.done && state.znodes[0].data() == b"y" && state.id == 2, "{state:?}");
    assert!(seen.iter().any(|item| matches!(item, Item::Events(group) if group.zxid == second)), "{seen:?}");
    drop(call);

    let mut call = Call::start(&node, watching(vec![resumed])).await;
    let mut kinds = Vec::new();
    while let Some(item) = call.next().await.unwrap() {
        kinds.push(matches!(item, Item::Events(_)));
    }
    assert_eq!(kinds.iter().filter(|events| **events).count(), 1, "it fires once, and the call ends");
    node.stop().await;
}

#[tokio::test]
async fn a_call_that_cannot_watch_says_why() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    Session::open(&node).await;
    let mut client = node.client().await;
    for (request, code) in [
        (watching(Vec::new()), api::ErrorCode::BadArguments),
        (watching(vec![spec(1, "/a"), spec(1, "/b")]), api::ErrorCode::BadArguments),
        (
            v1::WatchRequest {
                watches: vec![spec(1, "/")],
                read: Some(v1::ReadOptions { level: 99, min_zxid: 0 }),
            },
            api::ErrorCode::Unsupported,
        ),
    ] {
        let refused = client.watch(request).await.map(|_| ()).unwrap_err();
        assert_eq!(from_status(&refused).code(), code, "{refused:?}");
    }
    let mut call =
        Call::start(&node, watching(vec![spec(1, "relative"), v1::WatchSpec { scope: 99, ..spec(2, "/a") }]))
            .await;
    let refused = call.started().await.refused;
    let codes: Vec<_> = refused.iter().map(|r| (r.id, r.error.as_ref().unwrap().code())).collect();
    assert_eq!(codes, [(1, ErrorCode::BadPath), (2, ErrorCode::Unsupported)]);
    assert!(call.next().await.unwrap().is_none(), "no watch is left");

    // A node that stops ends its calls with a reason.
    let mut call = Call::start(&node, watching(vec![spec(1, "/")])).await;
    call.started().await;
    node.stop().await;
    let end = loop {
        match call.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(from_status(&end.unwrap_err()).code(), api::ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_session_only_reads_where_there_is_no_quorum_and_ends_when_there_is_one() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    assert!(!session.opened.read_only);
    session.ask(vec![create("/a", "one")]).await;
    quorum.set_serving(false);
    let open = v1::OpenSession { wait_ms: Some(100), allow_read_only: true, ..Default::default() };
    let mut reads = Session::with(&node, open.clone()).await.unwrap();
    assert!(reads.opened.read_only && reads.opened.leaderless && reads.opened.session.is_none());
    let answers = reads.ask(vec![get("/a"), set("/a", "two"), Op::Ping(v1::PingRequest {})]).await;
    assert_eq!((data(&answers[0]), error(&answers[1])), (&b"one"[..], ErrorCode::ReadOnly));
    assert!(is_ok(&answers[2]));
    let refused = Session::with(&node, v1::OpenSession { allow_read_only: false, ..open }).await.map(|_| ());
    assert_eq!(from_status(&refused.unwrap_err()).code(), api::ErrorCode::Unavailable);
    quorum.set_serving(true);
    let end = reads.end().await.unwrap_err();
    assert!(from_status(&end).to_string().contains("has a quorum again"), "{end:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_request_with_a_time_fails_when_that_has_passed() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    quorum.set_serving(false);
    let read = Op::Get(v1::GetRequest { path: "/".into(), read: fresh(v1::ReadLevel::Linearizable, 0) });
    let request =
        |xid, timeout_ms, op: Op| v1::Request { xid, timeout_ms, op: Some(op), ..Default::default() };
    let requests = vec![request(1, 150, read), request(2, 0, get("/"))];
    session.out.send(v1::SessionRequest { open: None, requests, acked_write: 0 }).await.unwrap();
    let answers = session.receive(2).await;
    assert_eq!(error(&answers[0]), ErrorCode::TimedOut);
    assert!(is_ok(&answers[1]));
    node.stop().await;
}
