//! The freshness of answers to reads, and the order of waiting.

use super::*;

fn read(p: &str, level: ReadLevel) -> Op {
    Op::Read(Read::Get { path: path(p) }, level)
}

fn linearizable(p: &str) -> Op {
    read(p, ReadLevel::Linearizable)
}

fn at_least(p: &str, zxid: Zxid) -> Op {
    read(p, ReadLevel::AtLeast(zxid))
}

/// The barriers that a node has requested since the last call. Leaves its writes.
fn barriers(node: &mut Node) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    node.asks.retain(|ask| match ask {
        Ask::Barrier { ticket } => {
            tickets.push(*ticket);
            false
        }
        _ => true,
    });
    tickets
}

fn confirm(node: &mut Node, ticket: Ticket) {
    node.input(Input::Feed(Feed::Barrier(ticket)));
}

/// There is no waiter, and no state of earlier ones.
fn assert_idle(node: &Node) {
    assert_eq!(format!("{:?}", node.server.waits), format!("{:?}", Waits::default()));
}

/// A node with a session on connection 1 and the znode /a, whose value is empty.
fn with_znode(role: Role) -> (Node, Log) {
    let (mut node, mut log, _) = with_session(role);
    node.ask(1, 1, vec![create("/a")]);
    log.round(&mut node);
    assert!(node.take_replies(1)[0].1.is_ok());
    (node, log)
}

#[test]
fn s24_a_deposed_leader_that_does_not_know_it_answers_no_linearizable_read_from_its_old_state() {
    let (mut old, mut log) = with_znode(Role::Leading);
    let mut new = Node::serving(2, Role::Leading);
    log.feed(&mut new);
    new.input(call(1, set("/a", "new")));
    log.round(&mut new);
    assert!(new.take_replies(1)[0].1.is_ok(), "acknowledged to somebody");

    for (conn, level) in [(2, ReadLevel::Linearizable), (3, ReadLevel::Local)] {
        old.input(call(conn, read("/a", level)));
    }
    assert_eq!(data(&old.take_replies(3)[0].1), b"", "a local read may be old");
    let [ticket] = barriers(&mut old)[..] else { panic!("one barrier") };
    old.pass(Duration::from_millis(9900));
    assert!(old.take_replies(2).is_empty(), "no quorum confirms to it");
    old.pass(Duration::from_millis(200));
    let replies = old.take_replies(2);
    assert!(
        matches!(&replies[0].1, Err(OpError::Unavailable(m)) if m.contains("ask another node")),
        "{replies:?}"
    );

    // The node finds the new leader, which answers the barrier with its own later commit point.
    old.input(call(4, linearizable("/a")));
    log.feed(&mut old);
    assert!(old.take_replies(4).is_empty(), "the barrier that was under way is older than this read");
    assert_eq!(barriers(&mut old).len(), 1, "to close the silent session, from before");
    confirm(&mut old, ticket);
    assert!(old.take_replies(4).is_empty());
    let [ticket] = barriers(&mut old)[..] else { panic!("a barrier of its own") };
    confirm(&mut old, ticket);
    assert_eq!(data(&old.take_replies(4)[0].1), b"new");
    assert_idle(&old);
}

#[test]
fn many_reads_and_syncs_share_a_barrier_and_those_that_come_later_share_the_next() {
    let (mut node, _log) = with_znode(Role::Following);
    let unary = |node: &mut Node, conns: std::ops::Range<u64>| {
        for conn in conns {
            let op = if conn % 5 == 0 { Op::Sync } else { linearizable("/a") };
            node.input(call(conn, op));
        }
    };
    let answered = |node: &mut Node, conns: std::ops::Range<u64>| {
        conns.map(|conn| node.take_replies(conn)).filter(|r| matches!(r[..], [(0, Ok(_))])).count()
    };
    node.ask(1, 2, vec![linearizable("/a"), linearizable("/a"), Op::Sync]);
    let [first] = barriers(&mut node)[..] else { panic!("one barrier") };
    unary(&mut node, 100..200);
    assert!(barriers(&mut node).is_empty(), "one under way at a time");
    confirm(&mut node, first);
    assert_eq!(node.take_replies(1).len(), 3);
    assert_eq!(answered(&mut node, 100..200), 0, "they came when the first had left");
    let [second] = barriers(&mut node)[..] else { panic!("one barrier for all of them") };
    assert!(second > first);
    confirm(&mut node, first);
    assert_eq!(answered(&mut node, 100..200), 0, "a barrier says something once");
    confirm(&mut node, second);
    assert_eq!(answered(&mut node, 100..200), 100);
    assert!(barriers(&mut node).is_empty());
    assert_idle(&node);
}

#[test]
fn those_who_come_before_the_barrier_leaves_are_served_by_it() {
    let (mut node, _log) = with_znode(Role::Following);
    let now = node.now;
    for conn in 10..20 {
        node.server.handle(now, call(conn, linearizable("/a")));
    }
    node.input(Input::Tick);
    let [ticket] = barriers(&mut node)[..] else { panic!("one barrier") };
    confirm(&mut node, ticket);
    assert!((10..20).all(|conn| node.take_replies(conn).len() == 1));
}

#[test]
fn a_linearizable_read_keeps_the_order_of_its_session() {
    let (mut node, mut log) = with_znode(Role::Following);
    node.ask(1, 2, vec![set("/a", "1"), linearizable("/a"), get("/a"), set("/a", "2"), get("/a")]);
    let [ticket] = barriers(&mut node)[..] else { panic!("one barrier") };
    assert_eq!(node.asks.len(), 1, "the second set is held: the read must not see it");
    confirm(&mut node, ticket);
    assert!(node.take_replies(1).is_empty(), "the first set is before it");
    assert_eq!(node.asks.len(), 1, "still held: the read is not answered yet");
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((data(&replies[1].1), data(&replies[2].1)), (&b"1"[..], &b"1"[..]));
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(data(&replies[1].1), b"2");
    assert_idle(&node);
}

#[test]
fn a_linearizable_read_sees_what_others_wrote_and_a_local_read_behind_it_no_less() {
    let (mut node, mut log) = with_znode(Role::Following);
    let mut other = Node::serving(2, Role::Leading);
    log.feed(&mut other);
    other.input(call(1, set("/a", "theirs")));
    log.accept(&mut other);
    node.ask(1, 2, vec![get("/a"), linearizable("/a"), get("/a")]);
    let first = node.take_replies(1);
    assert_eq!((first.len(), data(&first[0].1)), (1, &b""[..]), "a read before it waits for nothing");
    let [ticket] = barriers(&mut node)[..] else { panic!("one barrier") };
    log.feed(&mut node);
    confirm(&mut node, ticket);
    let rest = node.take_replies(1);
    assert_eq!((data(&rest[0].1), data(&rest[1].1)), (&b"theirs"[..], &b"theirs"[..]));
}

#[test]
fn without_a_leader_local_reads_are_answered_and_linearizable_ones_wait_and_fail() {
    let (mut node, _log) = with_znode(Role::Following);
    node.status(Role::Looking, false);
    node.pass(Duration::from_secs(5));
    node.ask(1, 2, vec![get("/a"), linearizable("/a")]);
    node.input(call(2, linearizable("/a")));
    assert_eq!(node.take_replies(1).len(), 1);
    node.pass(Duration::from_millis(4900));
    assert!(
        node.closed.is_empty()
            && node.sent.iter().all(|(_, item)| !matches!(item, Item::Response(Response { .. })))
    );
    node.pass(Duration::from_millis(200));
    assert_eq!(node.closed.len(), 2, "the node has been without a leader for too long");
    assert!(node.closed.iter().all(|(_, why)| matches!(why, Err(OpError::Unavailable(_)))));
    // The pending barrier is the only remainder, and its end finds no waiter.
    let [ticket] = barriers(&mut node)[..] else { panic!("one barrier") };
    confirm(&mut node, ticket);
    assert_idle(&node);
}

#[test]
fn when_a_barrier_is_refused_those_who_waited_for_it_are_told_and_the_others_get_theirs() {
    for (why, code) in
        [(Refusal::NoLeader, api::ErrorCode::Unavailable), (Refusal::Full, api::ErrorCode::Overloaded)]
    {
        let (mut node, _log) = with_znode(Role::Following);
        node.input(call(2, linearizable("/a")));
        let [ticket] = barriers(&mut node)[..] else { panic!("one barrier") };
        node.input(call(3, linearizable("/a")));
        node.input(Input::Feed(Feed::Refused { ticket, why }));
        assert_eq!(node.take_replies(2)[0].1.as_ref().map_err(OpError::code), Err(code));
        assert!(node.take_replies(3).is_empty());
        let [ticket] = barriers(&mut node)[..] else { panic!("the next barrier") };
        node.input(Input::Feed(Feed::Lost(ticket)));
        assert!(node.take_replies(3).is_empty());
        let [again] = barriers(&mut node)[..] else { panic!("asked again") };
        confirm(&mut node, again);
        assert_eq!(data(&node.take_replies(3)[0].1), b"");
        assert_idle(&node);
    }
}

#[test]
fn whoever_goes_waits_no_more() {
    let (mut node, _log) = with_znode(Role::Following);
    for conn in 10..1000 {
        let op = if conn % 2 == 0 { linearizable("/a") } else { at_least("/a", z(99)) };
        node.input(call(conn, op));
        node.input(Input::Closed { conn: ConnId(conn) });
    }
    let [ticket] = barriers(&mut node)[..] else { panic!("one barrier, for the first of them") };
    confirm(&mut node, ticket);
    assert_idle(&node);
    assert!(barriers(&mut node).is_empty());
}

#[test]
fn clients_that_take_up_unknown_sessions_share_a_barrier() {
    let (mut node, _log, _) = with_session(Role::Following);
    for conn in 10..20 {
        node.resume(conn, SessionId(0xdead), 1, Zxid::ZERO);
    }
    let [first] = barriers(&mut node)[..] else { panic!("one barrier") };
    confirm(&mut node, first);
    assert_eq!(node.closed.len(), 1, "the others came when it had left");
    let [second] = barriers(&mut node)[..] else { panic!("one barrier for the others") };
    confirm(&mut node, second);
    assert_eq!(node.closed.len(), 10);
    assert_idle(&node);
}

#[test]
fn a_read_at_least_of_a_zxid_waits_for_it_and_for_no_leader() {
    let (mut node, mut log) = with_znode(Role::Following);
    let mut other = Node::serving(2, Role::Leading);
    log.feed(&mut other);
    other.input(call(1, set("/a", "theirs")));
    log.round(&mut other);
    let zxid = other.server.state().applied();
    node.status(Role::Looking, false);
    node.ask(1, 2, vec![at_least("/a", z(1)), at_least("/a", zxid), set("/a", "mine"), get("/a")]);
    let first = node.take_replies(1);
    assert_eq!((first.len(), data(&first[0].1)), (1, &b""[..]), "this node has come that far");
    assert!(node.asks.is_empty(), "no barrier, and the set is held: the read must not see it");
    log.feed(&mut node);
    let second = node.take_replies(1);
    assert_eq!((second.len(), data(&second[0].1)), (1, &b"theirs"[..]));
    log.round(&mut node);
    assert_eq!(data(&node.take_replies(1)[1].1), b"mine");
    assert_idle(&node);
}

/// The read fails early enough for its client. The client would treat a longer silence as the end of
/// the node and move to the next one, where the read would wait again for ever (found by the
/// simulator).
#[test]
fn a_read_at_least_of_a_zxid_that_does_not_come_fails_in_its_place() {
    let (mut node, mut log) = with_znode(Role::Following);
    node.ask(1, 2, vec![at_least("/a", Zxid(u64::MAX)), set("/a", "1"), get("/a")]);
    node.pass(Duration::from_millis(900));
    assert!(node.take_replies(1).is_empty());
    node.pass(Duration::from_millis(200));
    let replies = node.take_replies(1);
    assert!(
        matches!(&replies[..], [(0, Err(OpError::Unavailable(m)))] if m.contains("0xffffffffffffffff")),
        "{replies:?}"
    );
    log.round(&mut node);
    assert_eq!(data(&node.take_replies(1)[1].1), b"1", "the session goes on");
    assert!(node.closed.is_empty());
    assert_idle(&node);
}

#[test]
fn outside_of_sessions_a_read_waits_for_its_zxid_for_longer() {
    let (mut node, _) = with_znode(Role::Following);
    node.input(call(2, at_least("/a", Zxid(u64::MAX))));
    node.pass(Duration::from_millis(4900));
    assert!(node.take_replies(2).is_empty());
    node.pass(Duration::from_millis(200));
    let replies = node.take_replies(2);
    assert!(
        matches!(&replies[..], [(0, Err(OpError::Unavailable(m)))] if m.contains("within 5s")),
        "{replies:?}"
    );
}

#[test]
fn a_snapshot_brings_what_a_read_waits_for() {
    let (mut node, mut log) = with_znode(Role::Following);
    let mut other = Node::serving(2, Role::Leading);
    log.feed(&mut other);
    other.input(call(1, set("/a", "theirs")));
    log.round(&mut other);
    node.input(call(2, at_least("/a", other.server.state().applied())));
    assert!(node.take_replies(2).is_empty());
    node.server.replace_state(node.now, State::load(other.server.state().records()).unwrap());
    node.input(Input::Tick);
    assert_eq!(data(&node.take_replies(2)[0].1), b"theirs");
}

#[test]
fn reads_that_wait_because_much_is_unsent_do_not_see_the_writes_behind_them() {
    let (mut node, mut log) = with_znode(Role::Following);
    let big = Op::Write(Write::Set { path: path("/"), data: Some(vec![1; 1 << 20].into()), version: None });
    node.ask(1, 2, vec![big]);
    log.round(&mut node);
    node.take_replies(1);
    let mut ops = vec![get("/"); 5];
    ops.extend([get("/a"), set("/a", "1"), get("/"), get("/a"), set("/a", "2")]);
    node.ask(1, 3, ops);
    log.round(&mut node);
    assert_eq!(node.take_replies(1).len(), 4, "4 MiB are on their way");
    let mut rest = Vec::new();
    while rest.len() < 6 {
        node.input(Input::Drained { conn: ConnId(1), bytes: 4 << 20 });
        log.round(&mut node);
        rest.extend(node.take_replies(1));
    }
    assert_eq!(rest.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    assert_eq!((data(&rest[1].1), data(&rest[4].1)), (&b""[..], &b"1"[..]));

    // Between two pending writes a read cannot wait, so only as many reads are accepted as fit.
    node.input(Input::Drained { conn: ConnId(1), bytes: 64 << 20 });
    let mut ops = vec![set("/a", "3")];
    ops.extend(vec![get("/"); 5]);
    ops.extend([get("/a"), set("/a", "4"), get("/a")]);
    node.ask(1, 5, ops);
    assert_eq!(node.asks.len(), 1, "the second write waits");
    let mut replies = Vec::new();
    while replies.len() < 9 {
        log.round(&mut node);
        node.input(Input::Drained { conn: ConnId(1), bytes: 64 << 20 });
        replies.extend(node.take_replies(1));
    }
    assert_eq!((data(&replies[6].1), data(&replies[8].1)), (&b"3"[..], &b"4"[..]));

    let small = [set("/a", "5"), get("/a"), set("/a", "6"), get("/a")];
    node.ask(1, 7, small.into());
    assert_eq!(node.asks.len(), 2, "pipelined");
}

#[test]
fn b07_reads_between_writes_under_way_are_bounded_and_fail_alone() {
    let (mut node, mut log) = with_znode(Role::Following);
    node.ask(1, 2, vec![set("/a", "small")]);
    log.round(&mut node);
    node.take_replies(1);
    // The cost of the reads is not predictable: an earlier write makes the value large.
    let mut ops =
        vec![Op::Write(Write::Set { path: path("/a"), data: Some(vec![1; 1 << 20].into()), version: None })];
    for _ in 0..1000 {
        ops.extend([get("/a"), set("/", "")]);
    }
    node.ask(1, 3, ops);
    log.round(&mut node);
    let replies = node.take_replies(1);
    let sent: usize = replies.iter().filter(|(_, result)| matches!(result, Ok(Outcome::Read(_)))).count();
    let refused = replies.iter().filter(|(_, result)| matches!(result, Err(OpError::Overloaded(_)))).count();
    assert_eq!((sent <= 8, sent + refused, replies.len()), (true, 1000, 2001), "{sent} sent");
    assert!(node.closed.is_empty());
}

#[test]
fn b08_a_ping_does_not_stand_behind_the_lists_of_others() {
    let (mut node, mut log) = with_znode(Role::Following);
    let create = |i| {
        let create = Create::new(path(&format!("/a/{i:05}")), Bytes::new());
        MultiOp::Create(create)
    };
    node.ask(1, 2, vec![Op::Write(Write::Multi((0..5000).map(create).collect()))]);
    log.round(&mut node);
    node.take_replies(1);
    let list = |after: usize| {
        let page = api::Page { after: format!("{after:05}"), ..api::Page::default() };
        Op::Read(Read::Children { path: path("/a"), page }, ReadLevel::Local)
    };
    node.ask(1, 3, (0..100).map(list).collect());
    let first = node.take_replies(1).len();
    assert!((1..=2).contains(&first), "{first} pages in one turn");
    assert_eq!(node.server.next_timeout(), Some(node.now), "there is more");
    let mut listed = first;
    for _ in 0..200 {
        node.input(Input::Tick);
        node.input(Input::Drained { conn: ConnId(1), bytes: 1 << 20 });
        listed += node.take_replies(1).len();
    }
    assert_eq!(listed, 100);
}

#[test]
fn a_stale_read_is_answered_whatever_the_quorum_does_and_says_what_it_is() {
    let stale = |node: &mut Node, conn| {
        node.sent.clear();
        node.input(call(conn, read("/a", ReadLevel::Stale)));
        let answers = std::mem::take(&mut node.sent);
        let [(_, Item::Response(Response { zxid, result, leaderless, .. }))] = &answers[..] else {
            panic!("{answers:?}")
        };
        (*zxid, result.clone(), *leaderless)
    };
    let (mut node, _) = with_znode(Role::Following);
    let (at, result, leaderless) = stale(&mut node, 2);
    assert!(data(&result).is_empty() && !leaderless);
    node.status(Role::Looking, false);
    node.pass(Limits::default().park);
    assert!(!node.server.ready());
    node.closed.clear();
    let (zxid, result, leaderless) = stale(&mut node, 3);
    assert!(data(&result).is_empty() && leaderless);
    assert_eq!(zxid, at, "it has not gone on");
    node.input(call(4, read("/a", ReadLevel::Local)));
    assert!(matches!(&node.closed[..], [(ConnId(4), Err(OpError::Unavailable(_)))]), "only who asks for it");
    assert!(node.server.conns.is_empty());
}

#[test]
fn b18_a_node_that_has_no_state_refuses_stale_reads() {
    let mut fresh = Node::new(2);
    for (conn, path) in [(1, "/a"), (2, "/")] {
        fresh.closed.clear();
        fresh.input(call(conn, read(path, ReadLevel::Stale)));
        let [(ConnId(closed), Err(OpError::Unavailable(why)))] = &fresh.closed[..] else {
            panic!("{:?}", fresh.closed)
        };
        assert!(*closed == conn && why.contains("no state") && why.contains("another node"), "{why}");
    }
    assert!(fresh.sent.is_empty() && fresh.server.conns.is_empty());
    // The same holds for a node that has discarded its state.
    let (mut node, _) = with_znode(Role::Following);
    node.server.start_over(node.server.now);
    node.sent.clear();
    node.closed.clear();
    node.input(call(3, read("/a", ReadLevel::Stale)));
    assert!(matches!(node.closed.last(), Some((ConnId(3), Err(OpError::Unavailable(_))))), "{:?}", node.sent);
}
