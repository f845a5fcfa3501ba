//! The guarantees of the port [`Coordination`], for a store in this process and in another: one suite
//! for both. Further tests for the remote port alone.

use std::{collections::VecDeque, future::poll_fn, net::SocketAddr, time::Duration};

use api::{
    Create, EnsembleId, ErrorCode, Fate, Identities, Identity, Level, NodeKind, OpError, Path, PeerId, Read,
    ReadLevel, ReadOutcome, Scheme, Write, WriteNumber, WriteOutcome, Zxid,
    ports::{Caller, Coordination, Items, Requests},
    session::{Item, Limits, Op, Open, Opened, Outcome, Request, Response},
};
use bytes::Bytes;
use host::listen::{self, Bounds, Listener};
use proto::remote::{Neighbour, RemoteCoordination};
use store_svc::{Config, Handle, StoreService, testing::MemoryQuorum};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// How a test reaches the store.
trait Packaging {
    type Port: Coordination;
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
    type Port = RemoteCoordination;
    fn port(node: &Node) -> RemoteCoordination {
        remote(node.address, "")
    }
}

fn remote(address: SocketAddr, ensemble: &str) -> RemoteCoordination {
    RemoteCoordination::new(
        &Neighbour::new("store", &format!("http://{address}"), ensemble, PeerId(1), None).unwrap(),
    )
}

mod identities;
mod trees;
mod watches;
use identities::*;
use trees::*;
use watches::*;

macro_rules! suite {
    ($($test:ident)*) => {
        mod local { $(#[tokio::test] async fn $test() { super::$test::<super::Local>().await; })* }
        mod remote { $(#[tokio::test] async fn $test() { super::$test::<super::Remote>().await; })* }
    };
}

suite! {
    a_session_opens_first_and_is_answered_in_order
    a_request_that_the_edge_could_not_read_fails_in_its_place
    a_session_is_taken_up_on_another_stream_and_a_numbered_write_is_carried_out_once
    an_unknown_session_ends_the_stream
    a_session_is_taken_up_only_by_its_owner
    an_identity_counts_for_what_comes_behind_it
    an_address_is_no_owner_and_what_is_proven_at_the_opening_is
    ephemerals_are_those_of_the_session_page_by_page
    a_client_of_another_ensemble_is_refused
    calls_need_no_session_and_make_no_ephemerals
    a_request_needs_the_level_of_the_ensemble
    what_a_node_takes_is_told
    znodes_go_by_themselves_when_their_time_is_over
    an_edge_ends_a_stream_with_its_own_reason
    a_stream_whose_requests_are_dropped_ends
    a_stream_whose_items_are_dropped_is_over
    settled_waits_until_the_client_has_all_answers
    a_client_that_takes_nothing_is_not_read_for_ever
    events_come_before_the_answers_that_show_them
    a_watch_goes_on_behind_a_zxid_on_another_stream
    a_client_that_takes_no_events_is_told_them_later_and_holds_up_nobody
    a_watch_that_cannot_be_read_is_refused_alone
    conditions_name_a_creation
    the_errors_of_many_reads_fit_into_a_message
    trees_are_counted_listed_and_deleted_in_one_step
    quotas_are_set_listed_and_kept
    a_walk_goes_on_in_parts_through_one_state
    a_store_that_stops_says_so
}

async fn a_session_opens_first_and_is_answered_in_order<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    assert!(!stream.opened.resumed && stream.opened.node == PeerId(1) && stream.opened.timeout_ms == 5000);
    assert_eq!(stream.opened.last_write, WriteNumber(0));
    let answers = stream
        .ask(vec![create("/a", "1"), get("/a"), set("/a", "2"), get("/a"), Op::Sync, Op::Ping, Op::Close])
        .await;
    let data = |answer: &Response| match &answer.result {
        Ok(Outcome::Read(ReadOutcome::Data { data: Some(data), .. })) => data.clone(),
        other => panic!("{other:?}"),
    };
    assert!(answers.windows(2).all(|w| w[0].zxid <= w[1].zxid), "zxids never go back");
    assert_eq!((&data(&answers[1])[..], &data(&answers[3])[..]), (&b"1"[..], &b"2"[..]));
    assert!(matches!(answers[0].result, Ok(Outcome::Write(WriteOutcome::Created { .. }))));
    assert_eq!(answers[4].result, Ok(Outcome::Sync));
    assert_eq!(answers[5].result, Ok(Outcome::Ping));
    assert_eq!(answers[6].result, Ok(Outcome::Close));
    assert_eq!(stream.ended().await, Ok(()), "a session that is closed ends its stream well");
    node.stop().await;
}

async fn a_request_that_the_edge_could_not_read_fails_in_its_place<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let bad = || OpError::BadArguments("it makes no sense".into());
    let answers = stream.ask(vec![create("/a", ""), Op::Invalid(bad()), get("/a")]).await;
    assert_eq!(answers[1].result, Err(bad()));
    assert!(answers[0].result.is_ok() && answers[2].result.is_ok());
    node.stop().await;
}

async fn a_session_is_taken_up_on_another_stream_and_a_numbered_write_is_carried_out_once<P: Packaging>() {
    let node = Node::start().await;
    let mut first = Stream::open::<P>(&node, None).await;
    let mut sequential = create("/q-", "");
    if let Op::Write(Write::Create(create)) = &mut sequential {
        create.sequential = true;
    }
    let before = first.ask_numbered(1, vec![sequential.clone()]).await;
    let mut second = Stream::open::<P>(&node, Some(&first.opened)).await;
    assert!(second.opened.resumed && second.opened.session == first.opened.session);
    assert_eq!(second.opened.last_write, WriteNumber(1));
    assert_eq!(second.ask_numbered(1, vec![sequential]).await, before, "with the same result and zxid");
    assert_eq!(first.ended().await, Err(OpError::SessionMoved(second.opened.session)));
    node.stop().await;
}

async fn an_unknown_session_ends_the_stream<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let strange = Opened { token: api::SessionToken([9; 16]), ..stream.opened.clone() };
    let refused = Stream::try_open::<P>(&node, Some(&strange)).await.err();
    assert_eq!(refused, Some(Err(OpError::SessionExpired(strange.session))));
    assert!(stream.ask(vec![Op::Ping]).await[0].result.is_ok(), "the session lives");
    node.stop().await;
}

async fn a_session_is_taken_up_only_by_its_owner<P: Packaging>() {
    let node = Node::start().await;
    let owner = || Identities::new([Identity::new(Scheme::Digest, "ann:hash").unwrap()]).unwrap();
    let first = Stream::open_as::<P>(&node, None, owner()).await.map_err(|end| format!("{end:?}")).unwrap();
    let stranger = Stream::try_open::<P>(&node, Some(&first.opened)).await.err();
    assert_eq!(stranger, Some(Err(OpError::SessionExpired(first.opened.session))), "with the token alone");
    assert_eq!(first.opened.identities, owner());
    let again = Stream::open_as::<P>(&node, Some(&first.opened), owner()).await;
    assert!(again.is_ok_and(|again| again.opened.resumed));
    node.stop().await;
}

async fn a_client_of_another_ensemble_is_refused<P: Packaging>() {
    let node = Node::start().await;
    let stream = Stream::open::<P>(&node, None).await;
    let actual = stream.opened.ensemble.unwrap();
    let expected = EnsembleId(actual.0 + 1);
    let strange = Opened { ensemble: Some(expected), ..stream.opened.clone() };
    let refused = Stream::try_open::<P>(&node, Some(&strange)).await.err();
    assert_eq!(refused, Some(Err(OpError::WrongEnsemble { expected, actual })));
    node.stop().await;
}

async fn calls_need_no_session_and_make_no_ephemerals<P: Packaging>() {
    let node = Node::start().await;
    let port = P::port(&node);
    let call = |op| port.call(Caller::default(), Request::new(0, op));
    let (made, _held) = call(create("/a", "x")).await.unwrap();
    assert!(made.result.is_ok() && made.zxid > Zxid::ZERO && made.xid == 0);
    let (found, _held) = call(get("/a")).await.unwrap();
    assert!(matches!(found.result, Ok(Outcome::Read(_))) && found.zxid >= made.zxid);
    let (missing, _held) = call(get("/b")).await.unwrap();
    assert!(matches!(missing.result, Err(OpError::NoNode(_))), "an error of the tree is an answer");
    let mut ephemeral = create("/e", "");
    if let Op::Write(Write::Create(create)) = &mut ephemeral {
        create.kind = NodeKind::Ephemeral;
    }
    assert_eq!(call(ephemeral).await.unwrap_err().code(), ErrorCode::BadArguments);
    node.stop().await;
}

async fn a_request_needs_the_level_of_the_ensemble<P: Packaging>() {
    let node = Node::start().await;
    let port = P::port(&node);
    let mut stream = Stream::open::<P>(&node, None).await;
    let level = stream.opened.level;
    for (min_level, served) in [(level, true), (Level(level.0 + 1), false)] {
        let request = Request { min_level, ..Request::new(0, get("/")) };
        let (answer, _held) = port.call(Caller::default(), request).await.unwrap();
        let code = answer.result.err().map(|error| error.code());
        assert_eq!(code, (!served).then_some(ErrorCode::Unsupported));
    }
    let request = Request { min_level: Level(level.0 + 1), ..Request::new(1, Op::Ping) };
    let answers = stream.answers(vec![request]).await;
    assert_eq!(answers[0].result.as_ref().unwrap_err().code(), ErrorCode::Unsupported);
    node.stop().await;
}

async fn what_a_node_takes_is_told<P: Packaging>() {
    let small = |config: &mut Config| {
        (config.bounds.stream_requests, config.bounds.stream_bytes) = (9, 5000);
    };
    let node = Node::start_with(small).await;
    let limits = Stream::open::<P>(&node, None).await.opened.limits;
    let unacked_writes = store_core::UNACKED_WRITES as u32;
    let told = Limits { requests: 9, request_bytes: 5000, unacked_writes, ..limits };
    assert_eq!(
        (limits, limits.data_bytes, limits.multi_parts > 0, limits.watches > 0),
        (told, 1 << 20, true, true)
    );
    node.stop().await;
    let narrow = |config: &mut Config| config.bounds.total_bytes = 4000;
    let node = Node::start_with(narrow).await;
    let limits = Stream::open::<P>(&node, None).await.opened.limits;
    assert_eq!(limits.request_bytes, 1000, "what one connection may hold of all");
    node.stop().await;
}

async fn znodes_go_by_themselves_when_their_time_is_over<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let of_kind = |path, kind| match create(path, "") {
        Op::Write(Write::Create(create)) => Op::Write(Write::Create(Create { kind, ..create })),
        other => other,
    };
    let delete = |path| Op::Write(Write::Delete { path: Path::new(path).unwrap(), version: None });
    let ttl = |ms| NodeKind::Ttl { ms };
    let made = stream
        .ask(vec![
            of_kind("/unused", NodeKind::Container),
            of_kind("/container", NodeKind::Container),
            of_kind("/container/member", NodeKind::Ephemeral),
            delete("/container/member"),
            of_kind("/short", ttl(1)),
            of_kind("/long", ttl(NodeKind::TTL_MAX_MS)),
            of_kind("/parent", ttl(1)),
            create("/parent/child", ""),
        ])
        .await;
    assert!(made.iter().all(|answer| answer.result.is_ok()), "{made:?}");
    let Ok(Outcome::Write(WriteOutcome::Created { stat, .. })) = &made[4].result else {
        panic!("{:?}", made[4])
    };
    assert_eq!(stat.kind, ttl(1));
    let gone = async {
        loop {
            let answers = stream.ask(vec![get("/container"), get("/short")]).await;
            if answers.iter().all(|answer| matches!(answer.result, Err(OpError::NoNode(_)))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(gone).await;
    let left = stream.ask(vec![get("/unused"), get("/long"), get("/parent/child")]).await;
    assert!(left.iter().all(|answer| answer.result.is_ok()), "{left:?}");
    node.stop().await;
}

async fn an_edge_ends_a_stream_with_its_own_reason<P: Packaging>() {
    let node = Node::start().await;
    let stream = Stream::open::<P>(&node, None).await;
    let why = OpError::BadArguments("the client speaks nonsense".into());
    let Stream { requests, mut items, .. } = stream;
    requests.end(Err(why.clone()));
    let mut taken = VecDeque::new();
    assert_eq!(end_of(&mut items, &mut taken).await, Err(why));
    node.stop().await;
}

async fn a_stream_whose_requests_are_dropped_ends<P: Packaging>() {
    let node = Node::start().await;
    let Stream { requests, mut items, .. } = Stream::open::<P>(&node, None).await;
    drop(requests);
    assert_eq!(end_of(&mut items, &mut VecDeque::new()).await, Ok(()));
    node.stop().await;
}

async fn a_stream_whose_items_are_dropped_is_over<P: Packaging>() {
    let node = Node::start().await;
    let Stream { mut requests, items, .. } = Stream::open::<P>(&node, None).await;
    drop(items);
    soon(requests.over()).await;
    // The call has no effect, and does not hang.
    soon(requests.submit(WriteNumber(0), vec![request(1, None, Op::Ping)])).await.unwrap();
    soon(requests.settled()).await;
    node.stop().await;
}

async fn settled_waits_until_the_client_has_all_answers<P: Packaging>() {
    let node = Node::start().await;
    let Stream { mut requests, mut items, .. } = Stream::open::<P>(&node, None).await;
    requests.submit(WriteNumber(0), (1..=5).map(|xid| request(xid, None, Op::Ping)).collect()).await.unwrap();
    let waits = timeout(Duration::from_millis(100), requests.settled()).await;
    assert!(waits.is_err(), "nobody has taken the answers");
    let answers = take(&mut items, 5).await;
    assert_eq!(answers.len(), 5);
    soon(requests.settled()).await;
    node.stop().await;
}

async fn a_client_that_takes_nothing_is_not_read_for_ever<P: Packaging>() {
    let node = Node::start().await;
    let Stream { mut requests, mut items, .. } = Stream::open::<P>(&node, None).await;
    let value = Bytes::from(vec![7; 64 << 10]);
    let (mut xid, mut asked) = (0, 0);
    let value = || Write::Set { path: Path::root(), data: Some(value.clone()), version: None };
    let stuck = loop {
        let batch: Vec<_> = (0..16).map(|i| request(xid + i + 1, None, Op::Write(value()))).collect();
        match timeout(Duration::from_secs(1), requests.submit(WriteNumber(0), batch)).await {
            Ok(submitted) => {
                submitted.unwrap();
                xid += 16;
                asked += 16;
            }
            // Some of the requests may be in flight.
            Err(_) => break true,
        }
        if asked > 100_000 {
            break false;
        }
    };
    assert!(stuck, "{asked} values of 64 KiB are under way");
    assert!(take(&mut items, asked).await.len() >= asked, "what was asked is answered when it is taken");
    node.stop().await;
}

async fn a_store_that_stops_says_so<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let port = P::port(&node);
    node.stop_store().await;
    let end = stream.ended().await.unwrap_err();
    assert_eq!(end.code(), ErrorCode::Unavailable, "{end}");
    let refused = soon(port.call(Caller::default(), Request::new(0, get("/")))).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable, "{refused}");
}

#[tokio::test]
async fn an_edge_of_another_ensemble_is_refused_with_a_remedy() {
    let node = Node::start().await;
    let port = remote(node.address, "other");
    let refused = port.call(Caller::default(), Request::new(0, get("/"))).await.unwrap_err();
    assert!(refused.to_string().contains("correct its `ensemble`"), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn an_edge_finds_a_store_again_that_was_restarted() {
    let node = Node::start().await;
    let (address, port) = (node.address, remote(node.address, ""));
    port.call(Caller::default(), Request::new(0, create("/a", ""))).await.unwrap();
    let (dir, quorum) = node.stop().await;
    let refused = port.call(Caller::default(), Request::new(0, create("/b", ""))).await.unwrap_err();
    assert_eq!(refused.fate(), Fate::Unknown, "the transport cannot tell how far it came: {refused}");
    let node = Node::start_at(address, dir, quorum).await;
    let found = async {
        while port.call(Caller::default(), Request::new(0, get("/a"))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(found).await;
    node.stop().await;
}

#[tokio::test]
async fn b01_an_edge_keeps_to_the_ensemble_of_its_first_session() {
    let [expected, actual] = [EnsembleId(1), EnsembleId(2)];
    let here = Node::start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let quorum = MemoryQuorum::new(PeerId(1)).of(actual);
    let there = Node::start_at(address, tempfile::tempdir().unwrap(), quorum).await;
    let to = |node: &Node| {
        Neighbour::new("store", &format!("http://{}", node.address), "", PeerId(0), None).unwrap()
    };
    let first = to(&here);
    let second = to(&there).with(&first);
    let [one, two] = [&first, &second].map(RemoteCoordination::new);
    let read = |port: &RemoteCoordination| {
        let port = port.clone();
        async move { port.call(Caller::default(), Request::new(0, get("/"))).await.map(drop) }
    };
    read(&two).await.unwrap();
    read(&one).await.unwrap();
    let opened =
        Stream::open_on(one.clone(), None, Identities::NONE).await.map_err(|end| format!("{end:?}")).unwrap();
    assert_eq!(opened.opened.ensemble, Some(expected));
    let wrong = OpError::WrongEnsemble { expected, actual };
    assert_eq!(read(&two).await, Err(wrong.clone()));
    let refused = Stream::open_on(two, None, Identities::NONE).await.err();
    assert_eq!(refused, Some(Err(wrong)));
    read(&one).await.unwrap();
    assert!(there.quorum.log().iter().all(|entry| entry.is_marker()), "not even a session");
    drop(opened);
    here.stop().await;
    there.stop().await;
}

// ---- a node and its streams ----

struct Node {
    handle: Handle,
    address: SocketAddr,
    dir: tempfile::TempDir,
    quorum: MemoryQuorum,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    closed: CancellationToken,
    serving: JoinHandle<()>,
}

impl Node {
    async fn start() -> Node {
        Node::start_with(|_| {}).await
    }

    async fn start_at(address: SocketAddr, dir: tempfile::TempDir, quorum: MemoryQuorum) -> Node {
        Node::start_as(address, dir, quorum, |_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Node {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Node::start_as(address, tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)), change).await
    }

    async fn start_as(
        address: SocketAddr,
        dir: tempfile::TempDir,
        quorum: MemoryQuorum,
        change: impl FnOnce(&mut Config),
    ) -> Node {
        let mut config = Config::new(PeerId(1), dir.path().to_owned());
        config.limits.reap_interval = Duration::from_millis(20);
        change(&mut config);
        let shutdown = CancellationToken::new();
        let store = StoreService::open(config, quorum.clone(), shutdown.clone()).unwrap();
        let listener = Listener::bind("test", address).await.unwrap();
        let address = listener.address();
        let (routes, bounds) = (Routes::new(store.port()), Bounds::neighbours());
        let closed = CancellationToken::new();
        let serving = listen::serve(listener, routes, bounds, closed.clone(), Duration::ZERO);
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        let handle = store.handle();
        let running = tokio::spawn(async move { store.run().await.unwrap() });
        Node { handle, address, dir, quorum, shutdown, running, closed, serving }
    }

    /// Stops the store; its port is still served.
    async fn stop_store(self) {
        self.shutdown.cancel();
        drop(self.handle);
        self.running.await.unwrap();
    }

    async fn stop(self) -> (tempfile::TempDir, MemoryQuorum) {
        self.shutdown.cancel();
        drop(self.handle);
        self.running.await.unwrap();
        self.closed.cancel();
        self.serving.await.unwrap();
        (self.dir, self.quorum)
    }
}

struct Stream<R, I> {
    requests: R,
    items: I,
    opened: Opened,
    xid: u64,
}

type StreamOf<P> = Stream<
    <<P as Packaging>::Port as Coordination>::Requests,
    <<P as Packaging>::Port as Coordination>::Items,
>;

impl Stream<(), ()> {
    async fn open<P: Packaging>(node: &Node, resume: Option<&Opened>) -> StreamOf<P> {
        Self::try_open::<P>(node, resume).await.map_err(|end| format!("{end:?}")).unwrap()
    }

    /// Opens a stream; the error is the reason of its end.
    async fn try_open<P: Packaging>(
        node: &Node,
        resume: Option<&Opened>,
    ) -> Result<StreamOf<P>, Result<(), OpError>> {
        Self::open_as::<P>(node, resume, Identities::default()).await
    }

    async fn open_as<P: Packaging>(
        node: &Node,
        resume: Option<&Opened>,
        identities: Identities,
    ) -> Result<StreamOf<P>, Result<(), OpError>> {
        Self::open_on(P::port(node), resume, identities).await
    }

    async fn open_on<C: Coordination>(
        port: C,
        resume: Option<&Opened>,
        identities: Identities,
    ) -> Result<Stream<C::Requests, C::Items>, Result<(), OpError>> {
        let (mut requests, mut items) = port.stream(Caller { identities, ..Caller::default() });
        let ensemble = resume.and_then(|opened| opened.ensemble);
        let resume = resume.map(|opened| (opened.session, opened.token));
        let open = Open {
            resume,
            timeout_ms: 5000,
            last_zxid: Zxid::ZERO,
            wait_ms: None,
            ensemble,
            purpose: Default::default(),
        };
        requests.open(open).await.unwrap();
        let mut first = VecDeque::new();
        if let Some(end) = soon(poll_fn(|cx| items.poll_take(cx, 1, &mut first))).await {
            return Err(end);
        }
        items.taken(1, 0);
        let Some(Item::Opened(opened)) = first.pop_front() else { panic!("{first:?}") };
        Ok(Stream { requests, items, opened, xid: 0 })
    }
}

impl<R: Requests, I: Items> Stream<R, I> {
    async fn ask(&mut self, ops: Vec<Op>) -> Vec<Response> {
        let first = self.xid + 1;
        self.xid += ops.len() as u64;
        let requests: Vec<_> = (first..).zip(ops).map(|(xid, op)| request(xid, None, op)).collect();
        self.answers(requests).await
    }

    async fn ask_numbered(&mut self, number: u64, ops: Vec<Op>) -> Vec<Response> {
        let numbered = |(i, op)| request(1 + i, Some(WriteNumber(number + i)), op);
        self.answers((0..).zip(ops).map(numbered).collect()).await
    }

    async fn answers(&mut self, requests: Vec<Request>) -> Vec<Response> {
        let xids: Vec<u64> = requests.iter().map(|r| r.xid).collect();
        self.requests.submit(WriteNumber(0), requests).await.unwrap();
        let answers = take(&mut self.items, xids.len()).await;
        assert_eq!(answers.iter().map(|a| a.xid).collect::<Vec<_>>(), xids);
        answers
    }

    async fn ended(&mut self) -> Result<(), OpError> {
        end_of(&mut self.items, &mut VecDeque::new()).await
    }
}

/// At least the next `n` responses; other items are dropped.
async fn take<I: Items>(items: &mut I, n: usize) -> Vec<Response> {
    let (mut answers, mut next) = (Vec::new(), VecDeque::new());
    while answers.len() < n {
        let end = soon(poll_fn(|cx| items.poll_take(cx, 64, &mut next))).await;
        assert_eq!(end, None, "the stream ends after {} answers", answers.len());
        for item in next.drain(..) {
            let weight = item.weight();
            if let Item::Response(response) = item {
                items.taken(1, weight);
                answers.push(response);
            }
        }
    }
    answers
}

async fn end_of<I: Items>(items: &mut I, next: &mut VecDeque<Item>) -> Result<(), OpError> {
    loop {
        if let Some(end) = soon(poll_fn(|cx| items.poll_take(cx, 64, next))).await {
            return end;
        }
        next.clear();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

fn request(xid: u64, number: Option<WriteNumber>, op: Op) -> Request {
    Request { number, ..Request::new(xid, op) }
}

fn create(path: &str, data: &'static str) -> Op {
    Op::Write(Write::Create(Create::new(Path::new(path).unwrap(), data)))
}

fn set(path: &str, data: &'static str) -> Op {
    let (path, data) = (Path::new(path).unwrap(), Bytes::from_static(data.as_bytes()));
    Op::Write(Write::Set { path, data: Some(data), version: None })
}

fn get(path: &str) -> Op {
    Op::Read(Read::Get { path: Path::new(path).unwrap() }, ReadLevel::Local)
}
