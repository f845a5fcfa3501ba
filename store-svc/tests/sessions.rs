//! Session streams and unary calls over a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod local;
mod port;

use std::time::Duration;

use api::PeerId;
use common::*;
use proto::{
    client::from_status,
    v1::{self, ErrorCode, coordination_client::CoordinationClient, request::Op, response::Result as Answer},
};
use store_svc::testing::MemoryQuorum;
use tonic::{Code, transport::Channel};

#[tokio::test]
async fn a_session_from_end_to_end() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    assert_eq!((session.opened.node_id, session.opened.timeout_ms), (1, 5000));
    let answers = session
        .ask(vec![
            create("/a", "one"),
            get("/a"),
            set("/a", "two"),
            get("/a"),
            ephemeral("/e"),
            Op::Children(v1::ChildrenRequest { path: "/".into(), ..Default::default() }),
            Op::Sync(v1::SyncRequest {}),
            Op::Exists(v1::ExistsRequest { path: "/nowhere".into(), ..Default::default() }),
            Op::Ping(v1::PingRequest {}),
            Op::Multi(v1::MultiRequest { ops: vec![] }),
            get("/nowhere"),
        ])
        .await;
    assert_eq!(answers.iter().map(|a| a.xid).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
    assert!(answers.windows(2).all(|w| w[0].zxid <= w[1].zxid), "zxids never go back");
    assert_eq!((data(&answers[1]), data(&answers[3])), (&b"one"[..], &b"two"[..]));
    let Some(Answer::Children(children)) = &answers[5].result else { panic!("{:?}", answers[5]) };
    assert_eq!(names(children), ["a", "e"]);
    assert_eq!(answers[7].result, Some(Answer::Exists(v1::ExistsResponse { stat: None, as_of: None })));
    assert_eq!(error(&answers[10]), ErrorCode::NoNode);

    let status = node.status().await;
    assert_eq!((status.sessions, status.znodes, status.id), (1, 3, 1));
    assert!(status.serving && status.applied_zxid == status.log_zxid && status.digest != 0);

    let closed = session.ask(vec![Op::Close(v1::CloseSessionRequest {})]).await;
    assert!(is_ok(&closed[0]));
    assert_eq!(session.end().await.map_err(|s| s.to_string()), Ok(()), "the stream ends well");
    let status = node.status().await;
    assert_eq!((status.sessions, status.znodes), (0, 2), "the ephemeral went with its session");
    node.stop().await;
}

#[tokio::test]
async fn ten_thousand_pipelined_requests_are_answered_in_order() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    session.ask(vec![create("/n", "")]).await;
    let out = session.out.clone();
    // More than may be in flight at once: the node stops reading, and each request gets exactly one
    // answer.
    let sender = tokio::spawn(async move {
        for batch in 0..100u64 {
            let requests = (0..100)
                .map(|i| {
                    let n = batch * 100 + i;
                    let (op, write_number) = match n % 2 {
                        0 => (set("/n", (n / 2).to_string()), n / 2 + 2),
                        _ => (get("/n"), 0),
                    };
                    v1::Request { xid: n, write_number, op: Some(op), ..Default::default() }
                })
                .collect();
            let acked_write = (batch * 50).saturating_sub(3000);
            out.send(v1::SessionRequest { open: None, requests, acked_write }).await.unwrap();
        }
    });
    let answers = session.receive(10_000).await;
    sender.await.unwrap();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.xid, n as u64);
        if n % 2 == 1 {
            assert_eq!(
                data(answer),
                (n / 2).to_string().as_bytes(),
                "a read sees the write before it and no later one"
            );
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_session_is_taken_up_again_and_a_write_sent_twice_is_carried_out_once() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut first = Session::open(&node).await;
    let before = first.ask(vec![create("/a", ""), set("/a", "x")]).await;
    let mut second = first.resume(&node).await.unwrap();
    assert_eq!(second.id(), first.id());
    let session = api::SessionId(first.id());
    let end = first.end().await.unwrap_err();
    assert_eq!(from_status(&end), api::OpError::SessionMoved(session));
    second.next_number(1);
    let again = second.ask(vec![create("/a", ""), set("/a", "x")]).await;
    assert_eq!(again, before, "with the same results and zxids");
    node.stop().await;
}

#[tokio::test]
async fn unknown_sessions_and_wrong_tokens_are_refused_alike() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let known = Session::open(&node).await;
    let id = known.id();
    for (session_id, token) in [(id, vec![0; 16]), (0xdead, known.token().to_vec())] {
        let resume = Some(v1::SessionRef { session_id, token: token.into() });
        let open = v1::OpenSession { resume, ..Default::default() };
        let status = Session::with(&node, open).await.err().expect("refused");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(from_status(&status), api::OpError::SessionExpired(api::SessionId(session_id)));
    }
    // A missing token is an invalid token.
    let resume = Some(v1::SessionRef { session_id: id, ..Default::default() });
    let open = v1::OpenSession { resume, ..Default::default() };
    assert_eq!(Session::with(&node, open).await.err().unwrap().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn bad_requests_are_answered_in_their_place_and_harm_nothing() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    let answers = session
        .ask(vec![
            create("/a", vec![1; (1 << 20) + 1]),
            create("no-slash", ""),
            create("/a/", ""),
            create("/a//b", ""),
            create("/a/../b", ""),
            create("/a\0", ""),
            set("/", ""),
            Op::Set(v1::SetRequest {
                path: "/".into(),
                data: Some("x".into()),
                version: Some(-1),
                ..Default::default()
            }),
            Op::Set(v1::SetRequest {
                path: "/".into(),
                data: Some("x".into()),
                version: Some(7),
                ..Default::default()
            }),
            Op::Delete(v1::DeleteRequest { path: "/".into(), ..Default::default() }),
            get("x"),
            create("/fine", "y"),
        ])
        .await;
    let codes: Vec<ErrorCode> = answers.iter().filter(|a| !is_ok(a)).map(error).collect();
    let bad = ErrorCode::BadArguments;
    let path = ErrorCode::BadPath;
    let expected = [ErrorCode::TooLarge, path, path, path, path, path, bad, ErrorCode::BadVersion, bad, path];
    assert_eq!(codes, expected);
    assert!(is_ok(&answers[6]) && is_ok(&answers[11]), "the numbers of the bad ones are used up");
    // A request without a known operation, as from a newer client.
    let empty = v1::Request { xid: 5, ..Default::default() };
    session.out.send(v1::SessionRequest { open: None, requests: vec![empty], acked_write: 0 }).await.unwrap();
    assert_eq!(error(&session.receive(1).await[0]), ErrorCode::Unsupported);
    node.stop().await;
}

#[tokio::test]
async fn b09_a_multi_whose_answer_would_be_too_large_is_refused_alone() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    let parent = format!("/{}", "p".repeat(300));
    session.ask(vec![create(&parent, "")]).await;
    let part = |path: &str| {
        let create = v1::CreateRequest { path: path.into(), sequential: true, ..Default::default() };
        v1::MultiOp { op: Some(v1::multi_op::Op::Create(create)) }
    };
    let multi = |parts: usize| {
        let ops = (0..parts).map(|_| part(&format!("{parent}/"))).collect();
        Op::Multi(v1::MultiRequest { ops })
    };
    // The request is smaller than the message limit, and its answer would be larger.
    let answers = session.ask(vec![multi(10_000), get("/")]).await;
    assert_eq!((error(&answers[0]), is_ok(&answers[1])), (ErrorCode::TooLarge, true));
    let answers = session.ask(vec![multi(8_000)]).await;
    let results = |answer: &v1::Response| match &answer.result {
        Some(Answer::Multi(multi)) => multi.results.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(results(&answers[0]), 8_000);
    // Answers do not share a message that would be too large.
    let long = format!("/{}/", "q".repeat(2_030));
    session.ask(vec![create(long.trim_end_matches('/'), "")]).await;
    let parts = || (0..100).map(|_| part(&long)).collect();
    let answers = session.ask((0..20).map(|_| Op::Multi(v1::MultiRequest { ops: parts() })).collect()).await;
    assert_eq!(answers.iter().map(results).sum::<usize>(), 2_000);
    node.stop().await;
}

/// An error contains its path twice: 400 of them exceed a message.
#[tokio::test]
async fn b09_errors_with_long_paths_are_answered() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    let path = format!("/{}", "x".repeat(8_100));
    let delete = || Op::Delete(v1::DeleteRequest { path: path.clone(), ..Default::default() });
    session.send((0..400).map(|_| delete()).collect()).await;
    // All answers are ready before the client takes the first.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answers = session.receive(400).await;
    assert!(answers.iter().all(|answer| error(answer) == ErrorCode::NoNode));
    session.next_number(401);
    assert!(is_ok(&session.ask(vec![create("/a", "")]).await[0]), "the session goes on");
    node.stop().await;
}

#[tokio::test]
async fn streams_that_break_the_rules_end_with_a_status_that_says_which() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut client = node.client().await;
    let first = v1::SessionRequest::default();
    let mut answers = client.session(tokio_stream::iter([first])).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("open"), "{status:?}");

    let session = Session::open(&node).await;
    let open = v1::SessionRequest { open: Some(v1::OpenSession::default()), ..Default::default() };
    session.out.send(open).await.unwrap();
    assert_eq!(session.end().await.unwrap_err().code(), Code::InvalidArgument);

    let mut session = Session::open(&node).await;
    session.next_number(9);
    session.send(vec![create("/a", "")]).await;
    let status = session.end().await.unwrap_err();
    let expected = api::OpError::OutOfOrder { expected: api::WriteNumber(1), got: api::WriteNumber(9) };
    assert_eq!(from_status(&status), expected);

    // Larger than the message limit.
    let mut session = Session::open(&node).await;
    session.send(vec![create("/a", vec![0; 20 << 20])]).await;
    let status = session.end().await.unwrap_err();
    assert!(status.code() != Code::Ok && status.code() != Code::Internal, "{status:?}");
    let mut session = Session::open(&node).await;
    assert!(is_ok(&session.ask(vec![create("/a", "")]).await[0]), "others go on");
    node.stop().await;
}

#[tokio::test]
async fn unary_calls_do_every_verb_and_fail_with_details() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut c: CoordinationClient<_> = node.client().await;
    let path = || "/u".to_owned();
    let create = v1::CreateRequest { path: path(), data: Some("1".into()), ..Default::default() };
    let created = c.create(create.clone()).await.unwrap().into_inner();
    assert_eq!((created.path.as_str(), created.stat.unwrap().version), ("/u", 0));
    let exists = c.create(create.clone()).await.unwrap_err();
    assert_eq!(exists.code(), Code::AlreadyExists);
    assert_eq!(from_status(&exists), api::OpError::NodeExists(api::Path::new("/u").unwrap()));
    let set = v1::SetRequest { path: path(), data: Some("2".into()), version: Some(0), ..Default::default() };
    assert_eq!(c.set(set.clone()).await.unwrap().into_inner().stat.unwrap().version, 1);
    assert_eq!(c.set(set).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(
        c.get(v1::GetRequest { path: path(), ..Default::default() }).await.unwrap().into_inner().data(),
        b"2"
    );
    assert!(
        c.exists(v1::ExistsRequest { path: path(), ..Default::default() })
            .await
            .unwrap()
            .into_inner()
            .stat
            .is_some()
    );
    c.sync(v1::SyncRequest {}).await.unwrap();
    let children = c.children(v1::ChildrenRequest { path: "/".into(), ..Default::default() }).await.unwrap();
    assert_eq!(names(&children.into_inner()), ["u"]);
    let check = v1::CheckRequest { path: path(), version: Some(1), ..Default::default() };
    let ops = vec![
        v1::MultiOp { op: Some(v1::multi_op::Op::Check(check)) },
        v1::MultiOp {
            op: Some(v1::multi_op::Op::Delete(v1::DeleteRequest { path: path(), ..Default::default() })),
        },
    ];
    assert_eq!(c.multi(v1::MultiRequest { ops: ops.clone() }).await.unwrap().into_inner().results.len(), 2);
    assert_eq!(c.multi(v1::MultiRequest { ops }).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        c.delete(v1::DeleteRequest { path: path(), ..Default::default() }).await.unwrap_err().code(),
        Code::NotFound
    );
    let ephemeral = v1::CreateRequest { kind: v1::NodeKind::Ephemeral.into(), ..create };
    assert_eq!(c.create(ephemeral).await.unwrap_err().code(), Code::InvalidArgument);
    let big =
        v1::CreateRequest { path: path(), data: Some(vec![0; (1 << 20) + 1].into()), ..Default::default() };
    assert_eq!(c.create(big).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn reads_are_as_fresh_as_they_ask_to_be() {
    use v1::ReadLevel::{AtLeast, Linearizable, Unspecified};
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let catch_up = Duration::from_millis(50);
    let node = Node::start_with(dir.path(), &quorum, |c| c.limits.catch_up = catch_up).await;
    let mut session = Session::open(&node).await;
    let created = session.ask(vec![create("/a", "1"), get_at("/a", Linearizable, 0), set("/a", "2")]).await;
    assert_eq!(data(&created[1]), b"1", "behind the create and not behind the set");
    let (here, never) = (created[2].zxid, created[2].zxid + 1000);
    let answers = session
        .ask(vec![
            get_at("/a", AtLeast, here),
            get_at("/a", AtLeast, never),
            get_at("/a", AtLeast, 0),
            get_at("/a", Linearizable, here),
            get("/a"),
        ])
        .await;
    assert_eq!((data(&answers[0]), data(&answers[4])), (&b"2"[..], &b"2"[..]));
    assert_eq!(error(&answers[1]), ErrorCode::Unavailable);
    assert_eq!((error(&answers[2]), error(&answers[3])), (ErrorCode::BadArguments, ErrorCode::BadArguments));

    let mut c = node.client().await;
    let request = |level, min_zxid| v1::GetRequest { path: "/a".into(), read: fresh(level, min_zxid) };
    assert_eq!(c.get(request(Linearizable, 0)).await.unwrap().into_inner().data(), b"2");
    assert_eq!(c.get(request(AtLeast, here)).await.unwrap().into_inner().data(), b"2");
    let behind = c.get(request(AtLeast, never)).await.unwrap_err();
    assert!(behind.code() == Code::Unavailable && behind.message().contains("another node"), "{behind:?}");
    assert_eq!(c.get(request(Unspecified, here)).await.unwrap_err().code(), Code::InvalidArgument);

    // Without a leader only the linearizable read waits, and gets its answer once there is a leader
    // again.
    quorum.set_serving(false);
    let mut waiting = node.client().await;
    let waiting = tokio::spawn(async move { waiting.get(request(Linearizable, 0)).await });
    session.send(vec![get("/a"), get_at("/a", Linearizable, 0), get("/a")]).await;
    assert_eq!(data(&session.receive(1).await[0]), b"2");
    assert_eq!(c.get(request(Unspecified, 0)).await.unwrap().into_inner().data(), b"2");
    assert!(!waiting.is_finished());
    quorum.set_serving(true);
    assert!(session.receive(2).await.iter().all(is_ok));
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().data(), b"2");
    node.stop().await;
}

#[tokio::test]
async fn s25_writes_are_parked_without_a_leader_and_run_afterwards() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    let mut other = Session::open(&node).await;
    quorum.set_serving(false);
    session.send((0..50).map(|i| create(&format!("/{i}"), "")).collect()).await;
    assert_eq!(data(&other.ask(vec![get("/")]).await[0]), b"", "reads go on");
    assert!(quorum.log().len() <= 3, "nothing was carried out");
    quorum.set_serving(true);
    assert!(session.receive(50).await.iter().all(is_ok));
    node.stop().await;
}

#[tokio::test]
async fn a_call_that_is_under_way_when_its_node_stops_ends_in_doubt_and_a_read_does_not() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut first = node.client().await;
    first.sync(v1::SyncRequest {}).await.unwrap();
    quorum.set_serving(false);
    let (mut writer, mut reader) = (first.clone(), first.clone());
    let create = v1::CreateRequest { path: "/a".into(), ..Default::default() };
    let write = tokio::spawn(async move { writer.create(create).await });
    let get = v1::GetRequest { path: "/".into(), read: fresh(v1::ReadLevel::Linearizable, 0) };
    let read = tokio::spawn(async move { reader.get(get).await });
    while quorum.parked() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.stop().await;
    let write = write.await.unwrap().unwrap_err();
    assert!(write.code() == Code::Unknown && write.message().contains("may still"), "{write:?}");
    assert_eq!(read.await.unwrap().unwrap_err().code(), Code::Unavailable);
    quorum.set_serving(true);
    assert_eq!(quorum.log().len(), 2, "the marker and the create: it was carried out");
}

#[tokio::test]
async fn without_a_leader_for_too_long_clients_are_sent_away_and_the_node_is_not_ready() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start_with(dir.path(), &quorum, |c| c.limits.park = Duration::from_millis(50)).await;
    let mut ready = node.ready.clone();
    ready.wait_for(|ready| *ready).await.unwrap();
    let session = Session::open(&node).await;
    quorum.set_serving(false);
    let status = session.end().await.unwrap_err();
    assert!(status.code() == Code::Unavailable && status.message().contains("node 1"), "{status:?}");
    ready.wait_for(|ready| !*ready).await.unwrap();
    let mut client = node.client().await;
    let refused = client.get(v1::GetRequest { path: "/".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    quorum.set_serving(true);
    ready.wait_for(|ready| *ready).await.unwrap();
    client.get(v1::GetRequest { path: "/".into(), ..Default::default() }).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn a_silent_session_expires_and_its_stream_is_told() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    // Raised to the minimum of the limits, one second.
    let open = v1::OpenSession { timeout_ms: 1, ..Default::default() };
    let mut session = Session::with(&node, open).await.unwrap();
    session.ask(vec![ephemeral("/e")]).await;
    let id = session.id();
    let status = session.end().await.unwrap_err();
    assert_eq!(from_status(&status), api::OpError::SessionExpired(api::SessionId(id)));
    assert_eq!(node.status().await.znodes, 1);
    node.stop().await;
}

#[tokio::test]
async fn b06_a_client_that_takes_no_answers_keeps_nothing_from_others() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut busy = Session::open(&node).await;
    busy.ask(vec![create("/big", vec![7; 1 << 20])]).await;
    // On one connection, with far more unread answers than its flow control allows, and more requests
    // than it may have.
    let channel = node.channel().await;
    let mut lazy = Vec::new();
    for _ in 0..24 {
        let open = v1::OpenSession { timeout_ms: 60_000, ..Default::default() };
        lazy.push(Session::over(channel.clone(), open).await.unwrap());
    }
    for session in &mut lazy {
        session.send(vec![get("/big"); 1000]).await;
        session.send(vec![create("/big", vec![7; 1 << 20]), create("/big", vec![7; 1 << 20])]).await;
    }
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        let answers = busy.ask(vec![get("/"), set("/big", vec![1; 100 << 10]), get("/big")]).await;
        assert!(answers.iter().all(is_ok), "{answers:?}");
    }
    drop(lazy);
    node.stop().await;
}

#[tokio::test]
async fn b07_pings_whose_answers_nobody_takes_are_counted() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    // No answer fits into the window.
    let endpoint = Channel::from_shared(format!("http://{}", node.address)).unwrap();
    let channel = endpoint.initial_stream_window_size(0).connect().await.unwrap();
    let open = Some(v1::OpenSession { timeout_ms: 60_000, ..Default::default() });
    let ping = |xid| v1::Request { xid, op: Some(Op::Ping(v1::PingRequest {})), ..Default::default() };
    let first = v1::SessionRequest { open, requests: (1..=4000).map(ping).collect(), acked_write: 0 };
    let endless = tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
    let _answers = CoordinationClient::new(channel).session(endless).await.unwrap();
    let counted = async {
        // The transport takes some of them anyway.
        while node.held.used() < 2000 * 320 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), counted).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn a_half_closed_stream_gets_all_its_answers() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    session.send((0..500).map(|i| create(&format!("/{i}"), "")).collect()).await;
    let Session { out, mut answers, .. } = session;
    drop(out);
    let mut n = 0;
    while let Some(message) = answers.message().await.unwrap() {
        n += responses(message.items).count();
    }
    assert_eq!(n, 500);
    assert_eq!(node.status().await.sessions, 1, "the session lives on and can be taken up again");
    node.stop().await;
}

/// Clients generated from the schema may send all their messages before they read.
#[tokio::test]
async fn a_half_closed_stream_also_learns_what_became_of_its_opening() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut client = node.client().await;
    let first = |open| v1::SessionRequest { open: Some(open), ..Default::default() };
    let open = v1::OpenSession { timeout_ms: 5000, ..Default::default() };
    let mut answers = client.session(tokio_stream::once(first(open))).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some_and(|m| opened(&m).is_some()));
    let resume = Some(v1::SessionRef { session_id: 0xdead, token: vec![0; 16].into() });
    let open = v1::OpenSession { resume, ..Default::default() };
    let mut answers = client.session(tokio_stream::once(first(open))).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!(from_status(&status), api::OpError::SessionExpired(api::SessionId(0xdead)));
    node.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = Session::open(&node).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff",
    ] {
        let mut socket = tokio::net::TcpStream::connect(node.address).await.unwrap();
        // The peer may close the connection at any time.
        let _ = socket.write_all(garbage).await;
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    assert!(is_ok(&session.ask(vec![create("/a", "")]).await[0]));
    node.stop().await;
}

fn digest(secret: &str) -> v1::Credential {
    v1::Credential { credential: Some(v1::credential::Credential::Digest(secret.into())) }
}

fn for_its_owner(path: &str) -> Op {
    let entry = v1::AclEntry {
        identity: Some(v1::Identity { scheme: "auth".into(), id: String::new() }),
        permissions: (1..=5).collect(),
    };
    let acl = Some(v1::Acl { entries: vec![entry] });
    Op::Create(v1::CreateRequest { path: path.into(), acl, ..Default::default() })
}

#[tokio::test]
async fn clients_prove_who_they_are_as_they_open_while_they_live_and_with_a_call() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let open =
        v1::OpenSession { credentials: vec![digest("ann:secret")], timeout_ms: 5000, ..Default::default() };
    let mut ann = Session::with(&node, open.clone()).await.unwrap();
    let ids = |identities: &[v1::Identity]| {
        identities.iter().map(|i| format!("{}:{}", i.scheme, i.id)).collect::<Vec<_>>()
    };
    let hash = api::proof::digest("ann:secret").unwrap().id().to_owned();
    let own = vec![format!("digest:{hash}"), "ip:127.0.0.1".to_owned()];
    assert_eq!(ids(&ann.opened.identities), own);
    assert!(is_ok(&ann.ask(vec![for_its_owner("/ann")]).await[0]));
    // The session belongs to her: its token alone opens it for no other client.
    let taken = v1::OpenSession { resume: ann.opened.session.clone(), ..Default::default() };
    let refused = Session::with(&node, taken.clone()).await.map(|_| ()).unwrap_err();
    assert_eq!(from_status(&refused).code(), api::ErrorCode::SessionExpired);
    let with_secret = v1::OpenSession { credentials: open.credentials, ..taken };
    assert!(Session::with(&node, with_secret).await.is_ok());

    let mut session = Session::open(&node).await;
    let prove =
        |secret: &str| Op::Authenticate(v1::AuthenticateRequest { credentials: vec![digest(secret)] });
    let answers = session
        .ask(vec![
            for_its_owner("/none"),
            get("/ann"),
            prove("ann:secret"),
            get("/ann"),
            Op::WhoAmI(v1::WhoAmIRequest {}),
        ])
        .await;
    assert_eq!((error(&answers[0]), error(&answers[1])), (ErrorCode::BadAcl, ErrorCode::NoAuth));
    assert!(is_ok(&answers[3]));
    let Some(Answer::WhoAmI(who)) = &answers[4].result else { panic!("{:?}", answers[4]) };
    assert_eq!((ids(&who.identities), who.address.as_str()), (own.clone(), "127.0.0.1"));

    let mut client = node.client().await;
    let read = || v1::GetRequest { path: "/ann".into(), ..Default::default() };
    assert_eq!(from_status(&client.get(read()).await.unwrap_err()).code(), api::ErrorCode::NoAuth);
    let mut call = tonic::Request::new(read());
    call.metadata_mut().insert("authorization", "Digest ann:secret".parse().unwrap());
    assert!(client.get(call).await.is_ok());
    let mut call = tonic::Request::new(v1::WhoAmIRequest {});
    call.metadata_mut().insert("authorization", "digest ann:secret".parse().unwrap());
    assert_eq!(ids(&client.who_am_i(call).await.unwrap().into_inner().identities), own);
    let mut call = tonic::Request::new(read());
    call.metadata_mut().insert("authorization", "Bearer hidden".parse().unwrap());
    let refused = client.get(call).await.unwrap_err();
    assert_eq!(from_status(&refused).code(), api::ErrorCode::Unsupported);
    assert!(!format!("{refused:?}").contains("hidden"), "{refused:?}");
    node.stop().await;
}
