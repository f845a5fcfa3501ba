//! Limits: requests, connections, time-outs, answers that clients do not take, a full disk.

use super::{
    watches::{add, limited, watch},
    *,
};

#[test]
fn too_many_requests_or_connections_are_refused() {
    let (mut node, _log, _) = with_session(Role::Following);
    let max = node.server.config.limits.requests_max;
    node.ask(1, 1, vec![create("/a"); max]);
    assert!(node.closed.is_empty());
    node.ask(1, 1, vec![Op::Ping]);
    assert!(matches!(node.closed[..], [(ConnId(1), Err(OpError::Overloaded(_)))]));
    node.closed.clear();
    node.server.config.limits.connections_max = 0;
    node.open(2);
    assert!(matches!(node.closed[..], [(ConnId(2), Err(OpError::Overloaded(_)))]));
}

#[test]
fn time_outs_are_clamped() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    for (conn, wish, granted) in [(1, 0, 1000), (2, 5000, 5000), (3, u32::MAX, 60_000)] {
        node.open_with(conn, wish);
        log.round(&mut node);
        let opened = node.sent.iter().rev().find_map(|(_, item)| match item {
            Item::Opened(Opened { timeout_ms, .. }) => Some(*timeout_ms),
            _ => None,
        });
        assert_eq!(opened, Some(granted));
    }
    assert!(node.now.0 < SECOND);
}

#[test]
fn reads_wait_while_the_client_does_not_take_the_answers() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let value = Bytes::from(vec![1; 1 << 20]);
    let set = Op::Write(Write::Set { path: path("/"), data: Some(value.clone()), version: None });
    node.ask(1, 1, vec![set]);
    log.round(&mut node);
    node.take_replies(1);
    node.ask(1, 2, vec![get("/"); 10]);
    assert_eq!(node.take_replies(1).len(), 4, "4 MiB are on their way");
    node.input(Input::Drained { conn: ConnId(1), bytes: 3 << 20 });
    assert_eq!(node.take_replies(1).iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [4, 5, 6]);
    node.input(Input::Drained { conn: ConnId(1), bytes: 4 << 20 });
    assert_eq!(node.take_replies(1).len(), 3);
}

#[test]
fn b18_without_room_what_grows_is_refused_and_deletes_reads_and_closes_go_on() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), create("/b"), set("/a", "123")]);
    log.round(&mut node);
    node.take_replies(1);
    let room = |node: &mut Node, room| {
        let status = QuorumStatus { room, ..node.server.status() };
        node.input(Input::Feed(Feed::Status(status)));
    };
    let delete = |p: &str| Op::Write(Write::Delete { path: path(p), version: None });
    let get = || Op::Read(Read::Get { path: path("/a") }, ReadLevel::Local);
    let ok = |replies: Vec<(u64, Result<Outcome, OpError>)>| -> Vec<bool> {
        replies.iter().for_each(|(_, r)| assert!(matches!(r, Ok(_) | Err(OpError::DiskFull)), "{r:?}"));
        replies.iter().map(|(_, r)| r.is_ok()).collect()
    };
    let multi = |parts: Vec<MultiOp>| Op::Write(Write::Multi(parts));
    let part = |op: Op| match op {
        Op::Write(Write::Create(create)) => MultiOp::Create(create),
        Op::Write(Write::Delete { path, version }) => MultiOp::Delete { path, version },
        other => panic!("{other:?}"),
    };

    room(&mut node, Room::Low);
    let ops = vec![create("/c"), set("/a", "1234"), set("/a", "321"), get(), multi(vec![part(create("/d"))])];
    node.ask(1, 4, ops);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [false, false, true, true, false]);
    // The multi creates less than it deletes.
    node.ask(1, 8, vec![multi(vec![part(delete("/b")), part(create("/b"))])]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [true]);

    room(&mut node, Room::Short);
    node.ask(1, 9, vec![set("/a", "1"), get(), delete("/b"), multi(vec![part(delete("/a"))])]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [false, true, true, true]);
    // The same without a session.
    node.input(call(7, create("/c")));
    assert_eq!(ok(node.take_replies(7)), [false]);
    // A new client can delete, and a session can end.
    node.open(2);
    log.round(&mut node);
    assert!(node.session_of(2).is_some());
    node.ask(1, 12, vec![Op::Close]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [true]);

    room(&mut node, Room::Ample);
    node.ask(2, 1, vec![create("/c")]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(2)), [true]);
}

#[test]
fn b18_refusals_for_want_of_space_do_not_fill_the_disk() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.open(2);
    node.ask(1, 1, vec![create("/a"), create("/b")]);
    log.round(&mut node);
    node.take_replies(1);
    let status = QuorumStatus { room: Room::Short, ..node.server.status() };
    node.input(Input::Feed(Feed::Status(status)));
    let delete = |p: &str| Op::Write(Write::Delete { path: path(p), version: None });

    // As many requests as a connection may have, and a last one that frees space.
    let flood = node.server.config.limits.requests_max - 1;
    node.ask(1, 3, vec![set("/a", "1"); flood].into_iter().chain([delete("/a")]).collect());
    assert_eq!(node.asks.len(), refusals::PER_PERIOD, "and no more in this moment");
    // On other connections only growing writes wait, and only for their turn.
    node.ask(2, 1, vec![delete("/b"), set("/a", "1")]);
    node.input(call(7, get("/a")));
    node.input(call(8, create("/c")));
    assert!(matches!(node.take_replies(7)[..], [(_, Ok(_))]));
    assert!(matches!(node.take_replies(8)[..], [(_, Err(OpError::DiskFull))]));
    log.round(&mut node);
    assert!(matches!(node.take_replies(2)[..], [(_, Ok(_))]));

    let (mut answers, mut rounds) = (node.take_replies(1), 0usize);
    while answers.len() <= flood {
        node.pass(refusals::PERIOD);
        assert!(node.asks.len() <= refusals::PER_PERIOD + 1, "the delete is none");
        log.round(&mut node);
        answers.append(&mut node.take_replies(1));
        if rounds == 0 {
            assert!(matches!(node.take_replies(2)[..], [(_, Err(OpError::DiskFull))]), "its turn came");
        }
        rounds += 1;
    }
    assert!(rounds.abs_diff(flood / refusals::PER_PERIOD) <= 1, "{rounds}");
    assert!(matches!(answers.pop(), Some((_, Ok(_)))));
    assert!(answers.iter().all(|(_, result)| *result == Err(OpError::DiskFull)));
    // A closed connection leaves no entry behind.
    node.ask(2, 3, vec![set("/", "1"); refusals::PER_PERIOD + 1]);
    node.input(Input::Closed { conn: ConnId(2) });
    assert_eq!(node.server.refusals.next_timeout(), None);
}

#[test]
fn b14_a_refused_write_that_is_sent_again_to_a_node_with_other_limits_is_refused_again() {
    let (mut strict, mut log, session) = with_session(Role::Following);
    strict.server.config.limits.multi_ops_max = 1;
    let check = MultiOp::Check { path: path("/"), version: None };
    let multi = || Op::Write(Write::Multi(vec![check.clone(); 2]));
    strict.ask(1, 1, vec![multi()]);
    log.round(&mut strict);
    let first = strict.take_replies(1);
    assert!(matches!(&first[..], [(_, Err(OpError::BadArguments(_)))]), "{first:?}");
    // The answer was lost.
    let mut other = Node::serving(2, Role::Following);
    log.feed(&mut other);
    other.resume(1, session, 1, Zxid::ZERO);
    log.round(&mut other);
    other.ask(1, 1, vec![multi()]);
    log.round(&mut other);
    let again = other.take_replies(1);
    let [(_, Err(OpError::BadArguments(why)))] = &again[..] else { panic!("{again:?}") };
    assert!(why.contains("refused it as malformed"), "{why}");
}

#[test]
fn b07_the_paths_of_watches_have_a_bound_in_bytes_for_a_session_and_for_the_node() {
    let limits = Limits { watch_bytes_session: 40 << 10, watch_bytes_node: 100 << 10, ..Limits::default() };
    let (mut node, _) = limited(4, limits);
    let long = |n: u32| format!("/{n:06}-{}", "x".repeat(8_000));
    let refused = |node: &mut Node, conn: u64, id: u32, p: &str| {
        node.ask(conn, u64::from(id), vec![add([watch(id, p, api::watch::WatchScope::Node)])]);
        node.input(Input::Tick);
        let last = node.sent.pop();
        let Some((_, Item::Response(Response { result: Ok(Outcome::Watching(refused)), .. }))) = last else {
            panic!("{last:?}")
        };
        refused.into_iter().next().map(|refused| refused.error.to_string())
    };
    for n in 1..=5 {
        assert_eq!(refused(&mut node, 1, n, &long(n)), None);
    }
    // The same path counts again for the session, and not for the node.
    let error = refused(&mut node, 1, 6, &long(1)).unwrap();
    assert!(error.contains("bytes of paths that this session watches") && error.contains("cancel unused"));
    assert_eq!(refused(&mut node, 1, 7, "/short"), None, "what fits is taken");
    for n in 1..=5 {
        assert_eq!(refused(&mut node, 2, n, &long(n)), None);
    }
    let figures = node.server.watch_figures();
    assert_eq!((figures.paths, figures.bytes), (6, 5 * 8_008 + 6 + 6 * 160 + 11 * 40));
    for n in 1..=5 {
        assert_eq!(refused(&mut node, 3, n, &long(10 + n)), None);
    }
    let error = (1..=5).find_map(|n| refused(&mut node, 4, n, &long(20 + n))).unwrap();
    assert!(error.contains("bytes of watches of this node"), "{error}");
    node.ask(1, 99, vec![Op::CancelWatches((1..=5).collect())]);
    assert_eq!(refused(&mut node, 1, 100, &long(1)), None, "there is room again");
    (1..=4).for_each(|conn| node.input(Input::Closed { conn: ConnId(conn) }));
    let figures = node.server.watch_figures();
    assert_eq!((figures.watches, figures.paths, figures.bytes), (0, 0, 0));
}
