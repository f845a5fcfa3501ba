//! The order of a session's requests: writes, reads and syncs, with and without a leader.

use super::*;

#[test]
fn s22_a_write_is_answered_by_the_node_it_was_sent_to_after_that_node_applied_it() {
    let (mut leader, mut follower, mut log) =
        (Node::serving(1, Role::Leading), Node::serving(2, Role::Following), Log::default());
    follower.open(7);
    log.accept(&mut follower);
    log.feed(&mut leader);
    log.feed(&mut follower);
    follower.ask(7, 1, vec![create("/a")]);
    log.accept(&mut follower);
    log.feed(&mut leader);
    assert_eq!(leader.server.state().applied(), z(2));
    assert!(leader.sent.is_empty(), "the leader has applied it, but it is not its client");
    assert!(follower.take_replies(7).is_empty(), "committed, but not applied here yet");
    log.feed(&mut follower);
    assert!(matches!(follower.take_replies(7)[..], [(0, Ok(Outcome::Write(WriteOutcome::Created { .. })))]));
}

#[test]
fn s25_writes_that_come_while_there_is_no_leader_run_in_order_afterwards_and_once() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.status(Role::Looking, false);
    node.ask(1, 1, vec![create("/a"), set("/a", "1"), set("/a", "2")]);
    node.pass(Duration::from_secs(8));
    assert!(
        node.take_replies(1).is_empty() && node.closed.is_empty(),
        "parked, twice the time-out of the session"
    );
    node.status(Role::Leading, true);
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(replies.iter().all(|(_, r)| r.is_ok()));
    log.round(&mut node);
    assert!(node.take_replies(1).is_empty() && node.asks.is_empty());
}

#[test]
fn s25_session_clocks_stand_still_without_a_leader_and_start_anew_with_one() {
    let (mut node, mut log, session) = with_session(Role::Leading);
    node.pass(Duration::from_secs(3));
    node.status(Role::Looking, false);
    node.pass(Duration::from_secs(9));
    node.status(Role::Leading, true);
    node.pass(SILENCE - Duration::from_millis(100));
    assert!(node.asks.is_empty(), "the full time begins with the new reign: {:?}", node.asks);
    node.pass(Duration::from_millis(200));
    let [Ask::Barrier { ticket }] = node.asks[..] else { panic!("no barrier but {:?}", node.asks) };
    node.asks.clear();
    node.input(Input::Feed(Feed::Barrier(ticket)));
    log.round(&mut node);
    assert_eq!(node.closed, [(ConnId(1), Err(OpError::SessionExpired(session)))]);
}

#[test]
fn clients_are_told_whether_their_node_has_a_leader() {
    let (mut node, _, session) = with_session(Role::Following);
    let leaderless = |node: &mut Node| {
        node.ask(1, 1, vec![Op::Ping]);
        let said = node.sent.iter().rev().find_map(|(_, item)| match item {
            Item::Response(Response { leaderless, .. }) => Some(*leaderless),
            _ => None,
        });
        said.expect("a reply")
    };
    assert!(!leaderless(&mut node));
    node.status(Role::Looking, false);
    assert!(matches!(node.sent.last(), Some((ConnId(1), Item::Notice(Notice::Leader { lost: true })))));
    assert!(leaderless(&mut node));
    node.resume(2, session, 1, Zxid::ZERO);
    let (_, opened) = node.sent.last().unwrap();
    assert!(matches!(opened, Item::Opened(Opened { leaderless: true, .. })), "{opened:?}");
}

#[test]
fn a_session_whose_client_has_gone_before_it_was_open_is_closed_at_once() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    node.open(1);
    node.input(Input::Closed { conn: ConnId(1) });
    log.round(&mut node);
    assert_eq!(node.server.state().sessions().count(), 1);
    log.round(&mut node);
    assert_eq!(node.server.state().sessions().count(), 0);
}

#[test]
fn replies_come_in_the_order_of_the_requests_and_reads_see_exactly_what_is_before_them() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let ops = vec![create("/a"), set("/a", "1"), get("/a"), set("/a", "2"), get("/a"), Op::Ping];
    node.ask(1, 1, ops);
    assert!(node.take_replies(1).is_empty());
    assert_eq!(node.asks.len(), 3, "writes do not wait for reads");
    // All three entries arrive in one batch, but the first read sees only the first set.
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!((data(&replies[2].1), data(&replies[4].1)), (&b"1"[..], &b"2"[..]));
}

#[test]
fn reads_wait_for_no_other_session_and_not_for_a_leader() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.open(2);
    log.round(&mut node);
    node.ask(1, 1, vec![create("/a")]);
    node.status(Role::Looking, false);
    node.ask(2, 1, vec![get("/"), Op::Ping]);
    let replies = node.take_replies(2);
    assert_eq!(data(&replies[0].1), b"");
    assert_eq!(replies[1], (1, Ok(Outcome::Ping)));
}

#[test]
fn a_sync_holds_back_what_is_behind_it() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), Op::Sync, get("/a"), set("/a", "2"), get("/a")]);
    let rest = log.round(&mut node);
    let [Ask::Barrier { ticket }] = rest[..] else { panic!("no barrier but {rest:?}") };
    assert_eq!(node.take_replies(1).len(), 1, "the create only");
    assert!(node.asks.is_empty(), "the set must not overtake the read that waits for the barrier");
    node.input(Input::Feed(Feed::Barrier(ticket)));
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies[0], (1, Ok(Outcome::Sync)));
    assert_eq!((data(&replies[1].1), data(&replies[3].1)), (&b""[..], &b"2"[..]));
}

#[test]
fn what_is_wrong_with_a_write_is_answered_in_its_place_and_uses_up_its_number() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let big = Op::Write(Write::Set {
        path: path("/a"),
        data: Some(Bytes::from(vec![0; (1 << 20) + 1])),
        version: None,
    });
    let negative = Op::Write(Write::Delete { path: path("/a"), version: Some((-1).into()) });
    let malformed = Op::Invalid(OpError::BadPath(api::PathError::Empty));
    node.ask(1, 1, vec![create("/a"), big, negative, malformed, set("/a", "x")]);
    log.round(&mut node);
    let replies: Vec<_> = node.take_replies(1).into_iter().map(|(_, r)| r).collect();
    assert!(replies[0].is_ok() && replies[4].is_ok(), "{replies:?}");
    assert_eq!(replies[1], Err(OpError::TooLarge { size: (1 << 20) + 1, limit: 1 << 20 }));
    assert!(matches!(&replies[2], Err(OpError::BadArguments(m)) if m.contains("negative")));
    assert_eq!(replies[3], Err(OpError::BadPath(api::PathError::Empty)));
    // Requests without a number do not go through the log.
    node.input(Input::Requests {
        conn: ConnId(1),
        acked: WriteNumber(5),
        requests: vec![Request::new(9, Op::Invalid(OpError::BadPath(api::PathError::Empty)))],
    });
    assert_eq!(node.take_replies(1), [(9, Err(OpError::BadPath(api::PathError::Empty)))]);
    assert!(node.asks.is_empty());
}

/// 2,300 long paths without a value became an entry of 18.7 MB. A slow link could not carry it before
/// its leader was given up.
#[test]
fn b16_paths_count_in_the_size_of_a_request() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let part =
        |i: usize| MultiOp::Delete { path: path(&format!("/{i:06}{}", "x".repeat(8100))), version: None };
    let multi = |parts: usize| Op::Write(Write::Multi((0..parts).map(part).collect()));
    let (limit, each) = ((4 << 20) - (64 << 10), 8107 + 192);
    let most = limit as usize / each;
    node.ask(1, 1, vec![multi(2300), multi(most + 1), multi(most)]);
    log.round(&mut node);
    let replies: Vec<_> = node.take_replies(1).into_iter().map(|(_, r)| r).collect();
    assert_eq!(replies[0], Err(OpError::TooLarge { size: 2300 * each as u64, limit }));
    assert_eq!(replies[1], Err(OpError::TooLarge { size: (most + 1) as u64 * each as u64, limit }));
    assert!(matches!(replies[2], Err(OpError::Multi { .. })), "it fails in the tree: {:?}", replies[2]);
}

#[test]
fn multi_sizes_add_up() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let half = Bytes::from(vec![0; 600 << 10]);
    let part = || MultiOp::Set { path: Path::root(), data: Some(half.clone()), version: None };
    node.ask(1, 1, vec![Op::Write(Write::Multi(vec![part(), part()]))]);
    log.round(&mut node);
    assert_eq!(node.take_replies(1)[0].1, Err(OpError::TooLarge { size: 1200 << 10, limit: 1 << 20 }));
}
