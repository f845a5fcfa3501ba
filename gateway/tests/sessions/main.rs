//! What ZooKeeper's clients may rely on, against a store in this process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod client;
mod turns;
mod watches;

use std::time::Duration;

use api::budget::Budget;
use bytes::{BufMut as _, Bytes, BytesMut};
use client::{Node, children, create, delete, exists, fresh, get, node, resume, set};
use gateway::{Config, End};
use zk_jute::{Body, Code, ConnectRequest, ConnectResponse, MultiResult, Request};

#[tokio::test]
async fn a_session_is_opened_taken_up_and_closed() {
    let node = Node::start().await;
    let (mut first, opened) = node.client().await;
    assert!(opened.session_id != 0 && opened.timeout_ms == 3000 && opened.read_only == Some(false));
    assert!(first.ask(create("/e", 1)).await.is_ok());
    assert!(first.ask(create("/q-", 2)).await.is_ok());
    first.hang_up().await;

    // Its ephemerals are there, and its writes go on behind those of the first connection.
    let mut second = node.connect();
    let again = second.open(&resume(&opened)).await.unwrap();
    assert_eq!(again, opened);
    assert_eq!(second.ask(create("/q-", 2)).await, Ok(Body::Path("/q-0000000002".into())));
    let Ok(Body::Stat(stat)) = second.ask(exists("/e")).await else { panic!("no ephemeral") };
    assert_eq!(stat.ephemeral_owner, opened.session_id);

    // A third one takes it away from the second.
    let mut third = node.connect();
    assert_eq!(third.open(&resume(&opened)).await.unwrap(), opened);
    assert_eq!(second.ended().await, End::Closed);

    assert_eq!(third.ask(Request::CloseSession).await, Ok(Body::Nothing));
    assert_eq!(third.ended().await, End::Closed);
    let mut late = node.connect();
    let expired = late.open(&resume(&opened)).await.unwrap();
    assert_eq!(expired, ConnectResponse::expired(Some(false)));
    assert_eq!(late.ended().await, End::Closed);
    let (mut other, _) = node.client().await;
    assert_eq!(other.ask(exists("/e")).await, Err(Code::NO_NODE));
    other.hang_up().await;
    node.stop().await;
}

/// Its client would believe in the answer for two thirds of the time-out, behind a sign of life that is as old.
#[tokio::test]
async fn a_session_that_is_taken_up_too_late_is_closed_without_an_answer() {
    let node = Node::start().await;
    let (first, opened) = node.client().await;
    first.hang_up().await;
    node.quorum.set_serving(false);
    let mut second = node.connect();
    let mut request = BytesMut::new();
    // It waits for a leader longer than a third of the session's time-out.
    ConnectRequest { timeout_ms: 20_000, ..resume(&opened) }.encode(&mut request);
    second.send(&request).await;
    assert!(second.is_silent(Duration::from_millis(1300)).await);
    node.quorum.set_serving(true);
    assert_eq!(second.ended().await, End::Closed);
    let mut third = node.connect();
    assert_eq!(third.open(&resume(&opened)).await, Some(opened), "it is alive");
    third.hang_up().await;
    node.stop().await;
}

/// The node that takes the session up may not have applied yet what came on the older connection, so it does not know its number.
#[tokio::test]
async fn writes_of_an_older_connection_that_were_under_way_are_not_in_the_way_of_new_ones() {
    let node = Node::start().await;
    let (mut first, opened) = node.client().await;
    node.quorum.set_serving(false);
    first.submit(&[create("/under-way", 0)]).await;
    assert!(first.is_silent(Duration::from_millis(200)).await);
    first.hang_up().await;
    let mut second = node.connect();
    let mut request = BytesMut::new();
    resume(&opened).encode(&mut request);
    second.send(&request).await;
    assert!(second.is_silent(Duration::from_millis(200)).await);
    node.quorum.set_serving(true);
    assert_eq!(ConnectResponse::decode(second.frame().await.unwrap()).unwrap(), opened);
    assert_eq!(second.ask(create("/new", 0)).await, Ok(Body::Path("/new".into())));
    assert!(second.ask(exists("/under-way")).await.is_ok());
    second.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_answered_like_a_session_that_has_expired() {
    let node = Node::start().await;
    let (client, opened) = node.client().await;
    for password in [Some(Bytes::from_static(&[7; 16])), Some(Bytes::from_static(&[7; 3])), None] {
        let mut stranger = node.connect();
        let request = ConnectRequest { password, read_only: None, ..resume(&opened) };
        assert_eq!(stranger.open(&request).await.unwrap(), ConnectResponse::expired(None));
        assert_eq!(stranger.ended().await, End::Closed);
    }
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_has_seen_more_is_closed_without_an_answer() {
    let node = Node::start().await;
    let (client, opened) = node.client().await;
    for mut request in [fresh(), resume(&opened)] {
        request.last_zxid_seen = i64::MAX >> 8;
        let mut ahead = node.connect();
        assert_eq!(ahead.open(&request).await, None);
        assert_eq!(ahead.ended().await, End::Closed);
    }
    client.hang_up().await;
    node.stop().await;
}

/// As a ZooKeeper with default settings: there is no read-only mode, also for clients that would accept it.
#[tokio::test]
async fn a_node_without_a_leader_opens_no_session() {
    let node = Node::start().await;
    let (client, opened) = node.client().await;
    client.hang_up().await;
    node.quorum.set_serving(false);
    let reads = |request| ConnectRequest { read_only: Some(true), ..request };
    for request in [fresh(), reads(fresh()), reads(resume(&opened))] {
        let mut client = node.connect();
        assert_eq!(client.open(&request).await, None, "{request:?}");
        assert_eq!(client.ended().await, End::Closed);
    }
    node.quorum.set_serving(true);
    let mut client = node.connect();
    let says = client.open(&reads(resume(&opened))).await.unwrap();
    assert_eq!(says.read_only, Some(false), "this one writes");
    client.hang_up().await;
    node.stop().await;
}

/// A client has ten seconds for a handshake, and for a frame that it has begun.
#[tokio::test]
async fn silent_and_slow_clients_are_closed() {
    let node = Node::start().await;
    let silent = node.connect();
    let mut slow = node.connect();
    slow.send(&[0, 0, 0, 45, 0]).await;
    let mut unfinished = node.connect();
    // Its session does not expire before.
    unfinished.open(&ConnectRequest { timeout_ms: 30_000, ..fresh() }).await.unwrap();
    unfinished.send(&[0, 0, 0, 9, 0, 0]).await;
    let ends = async { (silent.ended().await, slow.ended().await, unfinished.ended().await) };
    let (silent, slow, unfinished) = tokio::time::timeout(Duration::from_secs(20), ends).await.unwrap();
    assert!(matches!(silent, End::Silent) && matches!(slow, End::Silent | End::Unfinished), "{slow:?}");
    assert_eq!(unfinished, End::Unfinished);
    node.stop().await;
}

#[tokio::test]
async fn errors_are_found_in_the_order_of_zookeepers_checks() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let with = |path: &str, flags, acl| Request::Create {
        create: zk_jute::Create { acl, ..self::node(path, "", flags) },
    };
    let unknown = zk_jute::Acl { perms: 31, id: zk_jute::Id { scheme: "nobody".into(), id: "x".into() } };
    let auth = zk_jute::Acl { perms: 31, id: zk_jute::Id { scheme: "auth".into(), id: "".into() } };
    assert!(client.ask(create("/a", 0)).await.is_ok());
    assert!(client.ask(create("/e", 1)).await.is_ok());
    let ttl = |ttl| Request::CreateTtl { create: self::node("/ttl", "", 5), ttl };
    for (request, code) in [
        (create("/none/a", 9), Code::BAD_ARGUMENTS),
        (create("/none/a", 5), Code::BAD_ARGUMENTS),
        (ttl(0), Code::BAD_ARGUMENTS),
        (ttl(-5), Code::BAD_ARGUMENTS),
        (ttl(1 << 40), Code::BAD_ARGUMENTS),
        (create("none", 0), Code::BAD_ARGUMENTS),
        (with("/none/a", 0, None), Code::INVALID_ACL),
        (with("/none/a", 0, Some(vec![])), Code::INVALID_ACL),
        (with("/none/a", 0, Some(vec![unknown])), Code::INVALID_ACL),
        (with("/none/a", 0, Some(vec![auth])), Code::INVALID_ACL),
        (create("/none/", 0), Code::NO_NODE),
        (create("/none/a", 0), Code::NO_NODE),
        (create("/a/", 0), Code::BAD_ARGUMENTS),
        (create("/a//b/c", 0), Code::NO_NODE),
        (create("/a/\u{1}", 0), Code::BAD_ARGUMENTS),
        (create("/a/..", 0), Code::BAD_ARGUMENTS),
        (create("/a/\u{1f600}", 0), Code::BAD_ARGUMENTS),
        (create("/a", 0), Code::NODE_EXISTS),
        (create("/e/a", 0), Code::NO_CHILDREN_FOR_EPHEMERALS),
        (delete("/"), Code::BAD_ARGUMENTS),
        (delete("none"), Code::BAD_ARGUMENTS),
        (delete("/a/"), Code::NO_NODE),
        (delete("/none"), Code::NO_NODE),
        (Request::Delete { path: "/a".into(), version: 3 }, Code::BAD_VERSION),
        (Request::Delete { path: "/a".into(), version: -3 }, Code::BAD_VERSION),
        (set("/a", "", 1), Code::BAD_VERSION),
        (set("/a", "", -2), Code::BAD_VERSION),
        (set("/none", "", -2), Code::NO_NODE),
        (set("/a/", "", -1), Code::BAD_ARGUMENTS),
        (get("/a/"), Code::NO_NODE),
        (exists("nonsense"), Code::NO_NODE),
        (children("/none"), Code::NO_NODE),
    ] {
        assert_eq!(client.ask(request.clone()).await, Err(code), "{request:?}");
    }
    assert_eq!(client.ask(create("/a/b", 0)).await, Ok(Body::Path("/a/b".into())));
    assert_eq!(client.ask(delete("/a")).await, Err(Code::NOT_EMPTY));
    assert!(matches!(client.ask(get("")).await, Ok(Body::Data(..))), "the empty path is the root");
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn values_and_stats_are_those_that_were_written() {
    let node = Node::start().await;
    let (mut client, opened) = node.client().await;
    let null = zk_jute::Create { data: None, ..self::node("/null", "", 0) };
    assert!(
        matches!(client.ask(Request::Create2 { create: null }).await, Ok(Body::PathStat(path, _)) if path == "/null")
    );
    let Ok(Body::Data(None, stat)) = client.ask(get("/null")).await else {
        panic!("a null value stays null")
    };
    assert_eq!((stat.version, stat.data_length, stat.pzxid), (0, 0, stat.czxid));
    let Ok(Body::Stat(stat)) = client.ask(set("/null", "12", 0)).await else { panic!("no Stat") };
    assert_eq!((stat.version, stat.data_length), (1, 2));
    assert!(client.ask(Request::Create { create: self::node("/null/e-", "x", 3) }).await.is_ok());
    let Ok(Body::ChildrenStat(names, stat)) =
        client.ask(Request::GetChildren2 { path: "/null".into(), watch: false }).await
    else {
        panic!("no children")
    };
    assert_eq!((names, stat.num_children, stat.cversion), (vec!["e-0000000000".to_owned()], 1, 1));
    let Ok(Body::Data(Some(data), stat)) = client.ask(get("/null/e-0000000000")).await else {
        panic!("no value")
    };
    assert_eq!((&data[..], stat.ephemeral_owner), (&b"x"[..], opened.session_id));
    assert_eq!(client.ask(Request::Sync { path: "/x".into() }).await, Ok(Body::Path("/x".into())));
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn a_multi_is_carried_out_as_a_whole_or_says_which_part_failed() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let check = |path: &str, version| Request::Check { path: path.into(), version };
    let parts = vec![
        create("/a", 0),
        Request::Create2 { create: self::node("/a/b", "", 2) },
        check("/a", 0),
        set("/a", "x", 0),
        delete("/a/b0000000000"),
    ];
    let Ok(Body::Multi(results)) = client.ask(Request::Multi(parts)).await else { panic!("it failed") };
    assert!(
        matches!(
            &results[..],
            [
                MultiResult::Create(a),
                MultiResult::Create2(b, _),
                MultiResult::Check,
                MultiResult::SetData(_),
                MultiResult::Delete
            ] if a == "/a" && b == "/a/b0000000000"
        ),
        "{results:?}"
    );
    for culprit in [check("/a", 7), create("/a/", 0), set("none", "", -1)] {
        let code =
            if matches!(culprit, Request::Check { .. }) { Code::BAD_VERSION } else { Code::BAD_ARGUMENTS };
        let failed = client.ask(Request::Multi(vec![create("/c", 0), culprit, delete("/a")])).await;
        let codes = [Code::OK, code, Code::RUNTIME_INCONSISTENCY].map(MultiResult::Error);
        assert_eq!(failed, Ok(Body::Multi(codes.to_vec())));
    }
    assert_eq!(client.ask(exists("/c")).await, Err(Code::NO_NODE));
    assert_eq!(client.ask(Request::Multi(vec![])).await, Ok(Body::Multi(vec![])));
    let reads = client.ask(Request::MultiRead(vec![get("/a"), get("/none"), children("/")])).await;
    let Ok(Body::Multi(reads)) = reads else { panic!("{reads:?}") };
    assert!(
        matches!(
            &reads[..],
            [MultiResult::GetData(Some(_), _), MultiResult::Error(Code::NO_NODE), MultiResult::GetChildren(names)]
                if names == &["a"]
        ),
        "{reads:?}"
    );
    client.hang_up().await;
    node.stop().await;
}

/// More than a page of names, with writes directly behind each listing.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_see_what_came_before_them() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    const MANY: usize = 2500;
    let creates: Vec<Request> = (0..MANY).map(|n| create(&format!("/n{n:05}"), 0)).collect();
    client.submit(&creates).await;
    for _ in 0..MANY {
        assert_eq!(client.reply().await.0.err, 0);
    }
    let mut mixed = Vec::new();
    for n in 0..20 {
        mixed.extend([
            children("/"),
            create(&format!("/x{n:02}"), 0),
            set("/n00000", "v", n),
            get("/n00000"),
        ]);
    }
    client.submit(&mixed).await;
    let mut last = 0;
    for n in 0..20 {
        let (header, Body::Children(names)) = client.reply().await else { panic!("no names") };
        assert_eq!(names.len(), MANY + n, "those that were created before, and none behind");
        for _ in 0..2 {
            assert_eq!(client.reply().await.0.err, 0);
        }
        let (after, Body::Data(_, stat)) = client.reply().await else { panic!("no value") };
        assert_eq!(stat.version, n as i32 + 1);
        assert!(last <= header.zxid && header.zxid < after.zxid, "zxids never go back");
        last = after.zxid;
    }
    client.hang_up().await;
    node.stop().await;
}

/// A client takes any reply for a sign of life. Without a leader it gets none once it could believe longer than the leader waits.
#[tokio::test]
async fn pings_are_answered_when_they_are_counted_and_nothing_is_said_without_a_leader_for_long() {
    let node = Node::start().await;
    let (mut client, opened) = node.client().await;
    assert!(client.ask(create("/a", 0)).await.is_ok());
    assert_eq!(client.ask(Request::Ping).await, Ok(Body::Nothing));
    node.quorum.set_serving(false);
    // A third of 3 s has not passed.
    assert!(client.ask(get("/a")).await.is_ok(), "reads need no leader");
    client.submit(&[Request::Ping]).await;
    assert!(client.is_silent(Duration::from_millis(1200)).await, "nobody has counted it");
    client.submit(&[get("/a")]).await;
    assert!(client.is_silent(Duration::from_millis(300)).await, "an answer would be a sign of life");
    let mut second = node.connect();
    let mut request = BytesMut::new();
    resume(&opened).encode(&mut request);
    second.send(&request).await;
    assert!(
        second.is_silent(Duration::from_millis(300)).await,
        "a session that is taken up is counted first"
    );
    second.hang_up().await;
    node.quorum.set_serving(true);
    node.stop().await;
}

#[tokio::test]
async fn an_election_within_the_time_out_costs_a_client_nothing() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    node.quorum.set_serving(false);
    client.submit(&[create("/a", 0), get("/a"), Request::Ping]).await;
    assert!(client.is_silent(Duration::from_millis(400)).await);
    node.quorum.set_serving(true);
    for _ in 0..3 {
        assert_eq!(client.reply().await.0.err, 0);
    }
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_operation_is_answered_and_ends_the_connection() {
    let node = Node::start().await;
    for kind in [0, 20, 13, -10, -1, 10, 999] {
        let (mut client, _) = node.client().await;
        let mut out = BytesMut::new();
        // With a record that a check alone has.
        zk_jute::frame(&mut out, |to| {
            to.put_i32(5);
            to.put_i32(kind);
            to.put_i32(2);
            to.put_slice(b"/a");
            to.put_i32(0);
        });
        client.send(&out).await;
        let refused = client.frame().await.unwrap();
        let expected = [&5i32.to_be_bytes()[..], &(-1i64).to_be_bytes(), &(-6i32).to_be_bytes()].concat();
        assert_eq!(refused, expected, "operation {kind}");
        assert_eq!(client.ended().await, End::Closed);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_fails_alone_and_a_frame_that_cannot_ends_the_connection() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let mut out = BytesMut::new();
    zk_jute::frame(&mut out, |to| to.put_slice(&[0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 99]));
    client.send(&out).await;
    assert_eq!(client.frame().await.unwrap()[12..], (-5i32).to_be_bytes());
    assert!(client.ask(get("/")).await.is_ok(), "it goes on");
    for wrong in [&(-1i32).to_be_bytes()[..], &i32::MAX.to_be_bytes(), &[0, 0, 0, 2, 0, 0]] {
        let (mut other, _) = node.client().await;
        other.send(wrong).await;
        assert_eq!(other.ended().await, End::Broken);
        let mut silent = node.connect();
        silent.send(&[wrong, &[0; 50]].concat()).await;
        assert_eq!(silent.ended().await, End::Broken, "as the first frame, too");
    }
    assert!(client.ask(get("/")).await.is_ok(), "others are not concerned");
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn large_values_pass_and_too_large_ones_end_the_connection() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let of = |size| zk_jute::Create { data: Some(Bytes::from(vec![7; size])), ..self::node("/big", "", 0) };
    assert!(client.ask(Request::Create { create: of(1 << 20) }).await.is_ok());
    let Ok(Body::Data(Some(data), _)) = client.ask(get("/big")).await else { panic!("no value") };
    assert!(data.len() == 1 << 20 && data.iter().all(|byte| *byte == 7));
    client.submit(&[Request::Create { create: of((1 << 20) + 1) }]).await;
    client.ended().await;
    node.stop().await;
}

#[tokio::test]
async fn a_multi_read_has_a_bound_of_parts_and_of_bytes() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let value = zk_jute::Create { data: Some(Bytes::from(vec![7; 1 << 20])), ..self::node("/big", "", 0) };
    assert!(client.ask(Request::Create { create: value }).await.is_ok());
    let parts = |count: usize, path| Request::MultiRead((0..count).map(|_| get(path)).collect());
    assert_eq!(client.ask(parts(10_001, "/none")).await, Err(Code::BAD_ARGUMENTS));
    assert!(matches!(client.ask(parts(1, "/big")).await, Ok(Body::Multi(results)) if results.len() == 1));
    client.submit(&[parts(2_000, "/big")]).await;
    assert_eq!(client.ended().await, End::Closed);
    node.stop().await;
}

/// What a connection may hold is a quarter of the budget, and less than this listing.
#[tokio::test]
async fn a_listing_beyond_the_share_of_its_connection_is_an_error_and_others_go_on() {
    let mut node = Node::start().await;
    let (mut fills, _) = node.client().await;
    let long = "x".repeat(100);
    let creates: Vec<Request> = (0..4000).map(|n| create(&format!("/{long}{n:05}"), 0)).collect();
    fills.submit(&creates).await;
    for _ in 0..creates.len() {
        assert_eq!(fills.reply().await.0.err, 0);
    }
    let value = zk_jute::Create { data: Some(Bytes::from(vec![7; 200 << 10])), ..self::node("/v", "", 0) };
    assert!(fills.ask(Request::Create { create: value }).await.is_ok());
    let enough = std::mem::replace(&mut node.budget, Budget::new(1 << 20));
    let (mut client, _) = node.client().await;
    for _ in 0..2 {
        assert_eq!(client.ask(children("/")).await, Err(Code::THROTTLED_OP));
        let reads = Request::MultiRead(vec![get("/v"), get("/v")]);
        assert_eq!(client.ask(reads).await, Err(Code::THROTTLED_OP));
        // Each of them takes most of the share.
        client.submit(&[get("/v"), get("/v"), get("/v")]).await;
        for _ in 0..3 {
            assert_eq!(client.reply().await.0.err, 0);
        }
    }
    client.hang_up().await;
    assert_eq!(node.budget.used(), 0);
    node.budget = enough;
    let (mut other, _) = node.client().await;
    assert!(matches!(other.ask(children("/")).await, Ok(Body::Children(names)) if names.len() == 4001));
    other.hang_up().await;
    fills.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn four_letter_words_are_answered_if_they_are_on_the_list() {
    let node =
        Node::start_with(Config { words: "ruok,srvr,mntr,cons,stat".parse().unwrap(), ..Config::default() })
            .await;
    let (mut client, opened) = node.client().await;
    assert!(client.ask(create("/a", 0)).await.is_ok());
    let said = async |word: &str| {
        let mut asks = node.connect();
        asks.send(word.as_bytes()).await;
        asks.text().await
    };
    assert_eq!(said("ruok").await, "imok");
    assert_eq!(said("conf").await, "conf is not executed because it is not in the whitelist.\n");
    let server = said("srvr").await;
    for field in
        ["Zookeeper version: 3.", "\nLatency min/avg/max: ", "\nConnections: 2\n", "\nZxid: 0x", "\nMode: "]
    {
        assert!(server.contains(field), "{field} in {server}");
    }
    let monitor = said("mntr").await;
    assert!(
        monitor.lines().all(|line| line.starts_with("zk_") && line.split('\t').count() == 2),
        "{monitor}"
    );
    assert!(monitor.contains("zk_num_alive_connections\t2\n"), "{monitor}");
    let connections = said("cons").await;
    assert!(
        connections.contains(&format!("recved=2,sent=2,sid=0x{:x},lop=CREA", opened.session_id)),
        "{connections}"
    );
    assert!(said("stat").await.contains("\nClients:\n /192.0.2.1:4000[1](queued=0,recved="));
    assert_eq!(said("stmk").await, "stmk is not executed because it is not in the whitelist.\n");
    // A length that looks like none of them.
    let mut nonsense = node.connect();
    nonsense.send(b"kill").await;
    assert_eq!(nonsense.ended().await, End::Broken);
    node.quorum.set_serving(false);
    client.hang_up().await;
    node.stop().await;
}

/// Quorate has no trace lines of ZooKeeper's kinds, but tools of operators may set the mask and read it back.
#[tokio::test]
async fn the_trace_mask_is_kept() {
    let node = Node::start_with(Config { words: "*".parse().unwrap(), ..Config::default() }).await;
    let said = async |parts: &[&[u8]]| {
        let mut asks = node.connect();
        for part in parts {
            asks.send(part).await;
            tokio::task::yield_now().await;
        }
        asks.text().await
    };
    assert_eq!(said(&[b"gtmk"]).await, "306");
    assert_eq!(said(&[b"stmk\0\0\0", b"\0\0\0\x01\x02"]).await, "258");
    assert_eq!(said(&[b"gtmk"]).await, "258");
    let command = node.gateway.command("get_trace_mask").await;
    assert!(command.status == 200 && command.text.contains("\"tracemask\": 258"), "{}", command.text);
    let mut silent = node.connect();
    silent.send(b"stmk\0").await;
    assert_eq!(silent.hang_up().await, End::Gone);
    node.stop().await;
}

/// Ten thousand of them have 8 KiB each at most, with buffers that exist only while something is on its way.
#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let node = Node::start().await;
    let size = node.task_size();
    assert!(size < 6 << 10, "{size} bytes");
    node.stop().await;
}

/// It waits for room where the client reads nothing, and holds nothing when it has gone.
#[tokio::test]
async fn a_client_that_reads_nothing_is_not_read_for_ever() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let value = zk_jute::Create { data: Some(Bytes::from(vec![7; 64 << 10])), ..self::node("/v", "", 0) };
    assert!(client.ask(Request::Create { create: value }).await.is_ok());
    let asks: Vec<Request> = (0..500).map(|_| get("/v")).collect();
    let mut asked = 0;
    let stuck = tokio::time::timeout(Duration::from_secs(3), async {
        while asked < 1_000_000 {
            client.submit(&asks).await;
            asked += asks.len();
        }
    });
    assert!(stuck.await.is_err(), "{asked} reads are under way");
    client.hang_up().await;
    node.stop().await;
}
