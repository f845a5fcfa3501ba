//! Writes that are lost, refused or sent again, and the end of a session.

use super::*;

#[test]
fn unary_calls_are_answered_once_and_forgotten() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    node.input(call(1, create("/a")));
    node.input(call(2, Op::Sync));
    let rest = log.round(&mut node);
    assert!(matches!(node.take_replies(1)[..], [(0, Ok(Outcome::Write(_)))]));
    let [Ask::Barrier { ticket }] = rest[..] else { panic!("no barrier but {rest:?}") };
    node.input(Input::Feed(Feed::Barrier(ticket)));
    assert_eq!(node.take_replies(2), [(0, Ok(Outcome::Sync))]);
    node.input(call(3, Op::Close));
    assert!(matches!(node.take_replies(3)[..], [(0, Err(OpError::BadArguments(_)))]));
    assert!(node.server.conns.is_empty());
}

#[test]
fn lost_writes_are_sent_again_if_they_are_numbered() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.input(call(9, create("/u")));
    node.ask(1, 1, vec![create("/a"), set("/a", "1")]);
    let lost: Vec<Ticket> = std::mem::take(&mut node.asks)
        .into_iter()
        .map(|ask| match ask {
            Ask::Submit { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    for ticket in lost {
        node.input(Input::Feed(Feed::Lost(ticket)));
    }
    assert!(matches!(node.take_replies(9)[..], [(0, Err(OpError::Unknown(_)))]));
    log.round(&mut node);
    assert!(node.take_replies(1).iter().all(|(_, r)| r.is_ok()));
    assert_eq!(log.entries.len(), 3);
}

#[test]
fn a_write_goes_to_the_quorum_with_its_trace_also_when_it_goes_again() {
    let (mut node, _, _) = with_session(Role::Following);
    let trace = api::TraceContext::new([1; 16], [2; 8], true).map(Box::new);
    let number = Some(WriteNumber(1));
    let request = Request { number, trace: trace.clone(), ..Request::new(1, create("/a")) };
    node.input(Input::Requests { conn: ConnId(1), acked: WriteNumber(0), requests: vec![request] });
    for _ in 0..2 {
        let Ask::Submit { ticket, trace: sent, .. } = node.asks.remove(0) else { panic!("no write") };
        assert_eq!(sent, trace);
        node.input(Input::Feed(Feed::Lost(ticket)));
    }
}

#[test]
fn a_refused_write_ends_the_connection_and_the_client_starts_over() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), set("/a", "1")]);
    let Ask::Submit { ticket, .. } = node.asks.remove(0) else { panic!("no write") };
    node.input(Input::Feed(Feed::Refused { ticket, why: Refusal::Full }));
    assert!(matches!(node.closed[..], [(ConnId(1), Err(OpError::Overloaded(_)))]));
    // The second write is in the log already. It is out of order and has no effect.
    log.round(&mut node);
    assert!(node.take_replies(1).is_empty());
    node.resume(2, session, 1, z(1));
    node.ask(2, 1, vec![create("/a"), set("/a", "1")]);
    log.round(&mut node);
    assert!(node.take_replies(2).iter().all(|(_, r)| r.is_ok()));
}

#[test]
fn out_of_order_ends_the_connection_with_what_was_expected() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.ask(1, 5, vec![create("/a")]);
    log.round(&mut node);
    let expected = OpError::OutOfOrder { expected: WriteNumber(1), got: WriteNumber(5) };
    assert_eq!(node.closed, [(ConnId(1), Err(expected))]);
}

#[test]
fn a_client_ends_its_session_and_the_stream_ends_well() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), Op::Close]);
    log.round(&mut node);
    assert_eq!(node.take_replies(1).len(), 1, "first what is before it");
    log.round(&mut node);
    assert_eq!(node.take_replies(1), [(1, Ok(Outcome::Close))]);
    assert_eq!(node.closed, [(ConnId(1), Ok(()))]);
    assert!(node.server.state().session(session).is_none());
}

#[test]
fn a_session_is_not_closed_before_a_write_that_has_to_be_sent_again() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), Op::Close]);
    let [Ask::Submit { ticket, .. }] = node.asks[..] else { panic!("the create alone, not {:?}", node.asks) };
    node.asks.clear();
    node.input(Input::Feed(Feed::Refused { ticket, why: Refusal::Full }));
    assert!(matches!(node.closed[..], [(ConnId(1), Err(OpError::Overloaded(_)))]));
    node.resume(2, session, 1, Zxid::ZERO);
    node.ask(2, 1, vec![create("/a"), Op::Close]);
    log.round(&mut node);
    log.round(&mut node);
    assert!(matches!(node.take_replies(2)[..], [(0, Ok(Outcome::Write(_))), (1, Ok(Outcome::Close))]));
}

#[test]
fn a_write_without_a_session_that_may_still_be_carried_out_does_not_end_as_refused() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    node.status(Role::Looking, false);
    for (conn, op) in [(1, create("/a")), (2, Op::Sync)] {
        node.input(call(conn, op));
    }
    node.pass(Duration::from_secs(11));
    // After the same time the quorum would refuse a parked write of its own node. It has not given up
    // this one.
    assert!(
        matches!(
            &node.closed[..],
            [(ConnId(1), Err(OpError::Unknown(_))), (ConnId(2), Err(OpError::Unavailable(_)))]
        ),
        "{:?}",
        node.closed
    );
    node.status(Role::Following, true);
    log.round(&mut node);
    assert_eq!(node.server.state().tree().len(), 2, "carried out");
}
