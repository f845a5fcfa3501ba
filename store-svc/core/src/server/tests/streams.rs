//! Sessions that are resumed on another stream, and nodes that cannot serve.

use super::*;

#[test]
fn a_session_goes_on_on_another_node_and_its_writes_are_carried_out_once() {
    let (mut a, mut b, mut log) =
        (Node::serving(1, Role::Following), Node::serving(2, Role::Following), Log::default());
    a.open(1);
    log.accept(&mut a);
    log.feed(&mut a);
    let session = a.session_of(1).unwrap();
    a.ask(1, 1, vec![create("/a"), set("/a", "1")]);
    log.accept(&mut a);
    // Node a ends before its answer. The client sends both requests again to b, which does not know the
    // session yet.
    b.resume(5, session, 1, z(1));
    assert!(b.session_of(5).is_none(), "behind what the client has seen");
    log.feed(&mut b);
    assert_eq!(b.session_of(5), Some(session));
    b.ask(5, 1, vec![create("/a"), set("/a", "1"), get("/a")]);
    log.round(&mut b);
    let replies = b.take_replies(5);
    assert!(replies.iter().all(|(_, r)| r.is_ok()), "{replies:?}");
    let Ok(Outcome::Read(ReadOutcome::Data { stat, .. })) = &replies[2].1 else { panic!("no value") };
    assert_eq!(stat.version, 1, "set once");
    log.feed(&mut a);
    assert_eq!(a.server.state().digest(), b.server.state().digest());
}

#[test]
fn b14_the_older_stream_ends_as_moved_and_nothing_of_it_is_applied_behind_the_move() {
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    a.ask(1, 1, vec![create("/before")]);
    log.accept(&mut a);
    b.resume(5, session, 1, z(1));
    assert_eq!(b.session_of(5), Some(session), "at once: nobody waits for the entry");
    b.ask(5, 2, vec![create("/b")]);
    log.accept(&mut b);
    // In the log behind the move, although sent before its node knows of the move.
    a.ask(1, 2, vec![create("/behind"), get("/")]);
    a.input(Input::Feed(Feed::Status(QuorumStatus {
        role: Role::Following,
        serving: true,
        ..Default::default()
    })));
    log.accept(&mut a);
    log.feed(&mut a);
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
    assert_eq!(a.take_replies(1).len(), 1, "the write before the move, and it alone");
    log.feed(&mut b);
    assert!(b.closed.is_empty() && b.take_replies(5)[0].1.is_ok());
    for node in [&a, &b] {
        let exists = |p| node.server.state().read(&Read::Get { path: path(p) }).is_ok();
        assert!(exists("/before") && exists("/b") && !exists("/behind"));
    }
}

#[test]
fn b14_the_stream_whose_move_stands_last_in_the_log_goes_on() {
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    // Both resume requests are pending at the same time; the log decides.
    b.resume(5, session, 1, z(1));
    a.resume(6, session, 1, z(1));
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
    a.closed.clear();
    log.accept(&mut a);
    log.accept(&mut b);
    log.feed(&mut a);
    log.feed(&mut b);
    assert_eq!(a.closed, [(ConnId(6), Err(OpError::SessionMoved(session)))]);
    assert!(b.closed.is_empty(), "its own entry was still to come when it saw the other's: {:?}", b.closed);
    // A client cannot end a session by a request on an older stream.
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    b.resume(5, session, 1, z(1));
    log.accept(&mut b);
    a.ask(1, 1, vec![Op::Close]);
    log.accept(&mut a);
    log.feed(&mut b);
    log.feed(&mut a);
    assert!(b.closed.is_empty() && b.server.state().session(session).is_some());
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
}

#[test]
fn b14_a_move_that_a_snapshot_jumped_over_is_not_made_once_more() {
    for other_took_it in [false, true] {
        let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
        b.resume(5, session, 1, z(1));
        let [Ask::Submit { ticket, .. }] = b.asks[..] else { panic!("{:?}", b.asks) };
        log.accept(&mut b);
        if other_took_it {
            a.resume(6, session, 1, z(1));
            log.accept(&mut a);
        }
        log.feed(&mut a);
        let snapshot = State::load(a.server.state().records()).unwrap();
        b.server.replace_state(b.now, snapshot);
        b.input(Input::Feed(Feed::Lost(ticket)));
        assert!(b.asks.is_empty(), "it could take the session from the newer one: {:?}", b.asks);
        // If no other stream has resumed it, the snapshot shows that this stream acts for the session.
        assert_eq!(b.closed.is_empty(), !other_took_it, "{:?}", b.closed);
        b.closed.clear();
        // The same snapshot shows another stream that it no longer acts for its session.
        let (mut c, mut log, session) = with_session(Role::Following);
        c.resume(2, session, 1, Zxid::ZERO);
        log.round(&mut c);
        c.closed.clear();
        let mut newer = State::load(c.server.state().records()).unwrap();
        let moved = CommandBody::ResumeSession { session, stream: StreamId(9) };
        newer.apply(z(3), 0, &Command::outside(moved));
        c.server.replace_state(c.now, newer);
        c.input(Input::Tick);
        assert_eq!(c.closed, [(ConnId(2), Err(OpError::SessionMoved(session)))]);
    }
}

#[test]
fn b11_a_session_too_many_is_refused_and_its_connection_ends() {
    let mut node = Node::serving(1, Role::Following);
    node.server.config.limits.sessions_max = 1;
    let mut log = Log::default();
    for conn in [1, 2] {
        node.open(conn);
        log.round(&mut node);
    }
    assert!(node.session_of(1).is_some() && node.session_of(2).is_none());
    assert!(matches!(&node.closed[..], [(ConnId(2), Err(OpError::Overloaded(_)))]), "{:?}", node.closed);
}

#[test]
fn an_unknown_session_is_called_expired_only_behind_a_barrier_and_a_wrong_token_sounds_the_same() {
    let (mut node, mut log, session) = with_session(Role::Following);
    for (conn, id, token) in [(2, SessionId(0xdead), 1), (3, session, 99)] {
        node.resume(conn, id, token, Zxid::ZERO);
        assert!(node.closed.is_empty());
        let rest = log.round(&mut node);
        let [Ask::Barrier { ticket }] = rest[..] else { panic!("no barrier but {rest:?}") };
        node.input(Input::Feed(Feed::Barrier(ticket)));
        assert_eq!(node.closed, [(ConnId(conn), Err(OpError::SessionExpired(id)))]);
        node.closed.clear();
    }
    // The right token replaces the older connection.
    node.resume(4, session, 1, Zxid::ZERO);
    assert_eq!(node.session_of(4), Some(session));
    assert_eq!(node.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
}

#[test]
fn a_node_that_stays_behind_sends_the_client_away() {
    let (mut node, _log, session) = with_session(Role::Following);
    node.resume(2, session, 1, z(500));
    node.pass(Duration::from_millis(4900));
    assert!(node.closed.is_empty());
    node.pass(Duration::from_millis(200));
    assert!(matches!(&node.closed[..], [(ConnId(2), Err(OpError::Unavailable(m)))] if m.contains("behind")));
}

#[test]
fn without_a_quorum_for_too_long_everybody_is_sent_away_until_it_is_back() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.status(Role::Looking, false);
    node.pass(Duration::from_millis(9900));
    assert!(node.closed.is_empty() && node.server.ready());
    node.pass(Duration::from_millis(200));
    assert!(matches!(&node.closed[..], [(ConnId(1), Err(OpError::Unavailable(m)))] if m.contains("node 1")));
    assert!(!node.server.ready());
    node.closed.clear();
    node.open(2);
    node.input(call(3, get("/")));
    assert!(matches!(
        &node.closed[..],
        [(_, Err(OpError::Unavailable(_))), (_, Err(OpError::Unavailable(_)))]
    ));
    node.status(Role::Following, true);
    node.resume(4, session, 1, Zxid::ZERO);
    log.round(&mut node);
    assert_eq!(node.session_of(4), Some(session));
}

#[test]
fn a_node_to_which_nobody_is_connected_learns_in_time_that_it_is_not_ready() {
    let mut node = Node::serving(1, Role::Following);
    node.status(Role::Looking, false);
    assert!(node.server.ready());
    let park = node.now + Limits::default().park;
    assert_eq!(node.server.next_timeout(), Some(park), "nothing else would wake the shell");
    node.pass(Limits::default().park);
    assert!(!node.server.ready());
}

#[test]
fn before_a_node_serves_for_the_first_time_clients_wait() {
    let (mut node, mut log) = (Node::new(1), Log::default());
    node.open(1);
    node.input(call(2, get("/")));
    node.ask(1, 1, vec![create("/a")]);
    assert!(node.asks.is_empty() && node.sent.is_empty());
    node.status(Role::Following, true);
    assert_eq!(node.take_replies(2).len(), 1);
    log.round(&mut node);
    assert!(node.session_of(1).is_some());
    log.round(&mut node);
    assert_eq!(node.take_replies(1).len(), 1, "asked before it was open, carried out behind that");
}
