//! Signs of life: the leader closes silent sessions, and confirms the signs that it has counted.

use super::*;

#[test]
fn the_leader_closes_a_silent_session_once_and_its_node_closes_the_connection() {
    let (mut leader, mut log, session) = with_session(Role::Leading);
    leader.pass(Duration::from_millis(3900));
    leader.ask(1, 1, vec![Op::Ping]);
    leader.pass(SILENCE - Duration::from_millis(100));
    assert!(leader.asks.is_empty(), "it pinged in time");
    leader.pass(Duration::from_millis(200));
    let [Ask::Barrier { ticket }] = leader.asks[..] else { panic!("no barrier but {:?}", leader.asks) };
    leader.asks.clear();
    leader.input(Input::Feed(Feed::Barrier(ticket)));
    assert!(matches!(&leader.asks[..], [Ask::Submit { command, .. }]
            if command.body == CommandBody::CloseSession { session, expired: Some(Epoch(1)) }));
    leader.pass(Duration::from_secs(9));
    assert_eq!(leader.asks.len(), 1, "once");
    log.round(&mut leader);
    assert_eq!(leader.closed, [(ConnId(1), Err(OpError::SessionExpired(session)))]);
}

#[test]
fn a_leader_that_cannot_reach_its_quorum_closes_no_session() {
    let (mut leader, _log, _) = with_session(Role::Leading);
    leader.pass(Duration::from_secs(60));
    assert!(matches!(leader.asks[..], [Ask::Barrier { .. }]), "waits for its barrier: {:?}", leader.asks);
    assert!(leader.closed.is_empty());
}

#[test]
fn a_leader_that_was_stopped_does_not_take_its_own_absence_for_silence() {
    let (mut leader, _log, _) = with_session(Role::Leading);
    leader.pass(Duration::from_secs(3));
    leader.now = leader.now + Duration::from_secs(3600);
    leader.input(Input::Tick);
    assert!(leader.asks.is_empty());
    leader.pass(SILENCE - Duration::from_millis(3100));
    assert!(leader.asks.is_empty());
    leader.pass(Duration::from_millis(200));
    assert_eq!(leader.asks.len(), 1, "the rest of its time");
}

#[test]
fn followers_tell_the_leader_whom_they_have_heard() {
    let (mut leader, mut follower, _log, _) = leader_and_follower();
    for _ in 0..20 {
        leader.pass(Duration::from_millis(1000));
        follower.pass(Duration::from_millis(1000));
        follower.ask(1, 1, vec![Op::Ping]);
        follower.pass(Duration::from_millis(400));
        leader.pass(Duration::from_millis(400));
        assert!(!follower.reports.is_empty());
        report(&mut follower, &mut leader);
        confirm(&mut leader, &mut follower);
    }
    assert!(leader.asks.is_empty(), "{:?}", leader.asks);
    leader.pass(SILENCE + Duration::from_millis(100));
    assert_eq!(leader.asks.len(), 1, "silent now");
}

/// A client counts its time-out from the time when it sent its last confirmed request. The leader must
/// not count from an earlier time, whatever is lost or late in between.
#[test]
fn b13_a_client_is_told_only_what_the_leader_has_counted() {
    let (mut leader, mut follower, _log, _) = leader_and_follower();
    assert_eq!(follower.confirmed(1), None, "there was no request yet");
    let step = Duration::from_millis(200);
    let pass = |leader: &mut Node, follower: &mut Node| {
        leader.pass(step);
        follower.pass(step);
    };
    follower.ask(1, 1, vec![Op::Ping, Op::Ping]);
    assert_eq!(follower.take_replies(1).len(), 2);
    for _ in 0..5 {
        pass(&mut leader, &mut follower);
        assert_eq!(follower.confirmed(1), None, "nobody has answered the report");
    }
    assert!(follower.reports.len() > 1, "sent again");
    report(&mut follower, &mut leader);
    let counted = leader.now;
    // The answers are in flight until the leader finds the session silent.
    leader.pass(SILENCE - step);
    assert!(leader.asks.is_empty(), "{:?}", leader.asks);
    leader.pass(2 * step);
    let [Ask::Barrier { ticket }] = leader.asks[..] else { panic!("no barrier but {:?}", leader.asks) };
    assert!(leader.now.since(counted) >= SILENCE);
    leader.asks.clear();
    leader.input(Input::Feed(Feed::Barrier(ticket)));
    assert!(matches!(leader.asks[..], [Ask::Submit { .. }]));
    confirm(&mut leader, &mut follower);
    assert_eq!(follower.confirmed(1), Some(1), "counted then");
    // Signs after the decision are not confirmed, however long the close takes.
    follower.ask(1, 1, vec![Op::Ping, Op::Ping, Op::Ping]);
    for _ in 0..5 {
        pass(&mut leader, &mut follower);
        report(&mut follower, &mut leader);
        confirm(&mut leader, &mut follower);
        assert_eq!(follower.confirmed(1), Some(1));
    }
}

/// The store of a leader can be a process of its own, and can restart while the quorum continues to
/// lead.
#[test]
fn b13_a_store_that_starts_again_under_its_leader_confirms_nothing_before_it_has_caught_up() {
    let (mut before, mut follower, mut log, session) = leader_and_follower();
    let copy = |node: &Node| State::load(node.server.state().records()).unwrap();
    let state = copy(&before);
    before.pass(SILENCE + Duration::from_millis(100));
    let [Ask::Barrier { ticket }] = before.asks[..] else { panic!("no barrier but {:?}", before.asks) };
    before.asks.clear();
    before.input(Input::Feed(Feed::Barrier(ticket)));
    // The close is in the log, and this store ends before its commit.
    log.accept(&mut before);
    let last = log.entries.last().unwrap().zxid;
    let leads = |last| {
        let status =
            QuorumStatus { role: Role::Leading, serving: true, epoch: Epoch(1), last, ..Default::default() };
        Input::Feed(Feed::Status(status))
    };
    for end in [state.applied(), last] {
        let mut leader = Node::new(1);
        leader.server.replace_state(Time(0), State::load(state.records()).unwrap());
        leader.input(leads(end));
        follower.reports.clear();
        follower.ask(1, 1, vec![Op::Ping, Op::Ping]);
        follower.pass(Duration::from_millis(400));
        report(&mut follower, &mut leader);
        assert_eq!(leader.confirms.is_empty(), end == last, "the close may be committed already");
        if end == last {
            log.feed(&mut leader);
            assert!(leader.server.state().session(session).is_none());
            follower.pass(Duration::from_millis(400));
            report(&mut follower, &mut leader);
            confirm(&mut leader, &mut follower);
            assert_eq!(follower.confirmed(1), None);
        }
    }
    // The same store, with a snapshot in place of its state.
    before.server.replace_state(before.now, state);
    follower.pass(Duration::from_millis(400));
    report(&mut follower, &mut before);
    confirm(&mut before, &mut follower);
    assert_eq!(follower.confirmed(1), None);
}

#[test]
fn b13_a_close_for_silence_does_nothing_in_a_later_reign() {
    let (mut leader, mut log, session) = with_session(Role::Leading);
    leader.pass(SILENCE + Duration::from_millis(100));
    let [Ask::Barrier { ticket }] = leader.asks[..] else { panic!("no barrier but {:?}", leader.asks) };
    leader.asks.clear();
    leader.input(Input::Feed(Feed::Barrier(ticket)));
    // The close waits for the next leader. That leader commits it, but has heard the session in the
    // meantime.
    let marker =
        Committed { zxid: Zxid::marker(Epoch(2)), time_ms: 0, origin: None, level: None, command: None };
    leader.input(Input::Feed(Feed::Committed(vec![marker])));
    assert!(log.accept(&mut leader).is_empty());
    let mut entry = log.entries.pop().unwrap();
    entry.zxid = Zxid::new(Epoch(2), 1);
    leader.input(Input::Feed(Feed::Committed(vec![entry])));
    assert!(leader.server.state().session(session).is_some() && leader.closed.is_empty());
}

#[test]
fn b13_what_was_reported_is_reported_again_to_the_next_leader() {
    let (mut leader, mut follower, _log, session) = leader_and_follower();
    follower.ask(1, 1, vec![Op::Ping, Op::Ping]);
    follower.pass(Duration::from_millis(200));
    let [lost] = &std::mem::take(&mut follower.reports)[..] else { panic!("no report") };
    follower.status(Role::Looking, false);
    follower.pass(Duration::from_secs(1));
    assert!(follower.reports.is_empty(), "nobody leads");
    follower.status(Role::Following, true);
    report(&mut follower, &mut leader);
    confirm(&mut leader, &mut follower);
    assert_eq!(follower.confirmed(1), Some(1));
    // The session moves to another connection, and an answer to the first report has no effect.
    follower.resume(2, session, 1, Zxid::ZERO);
    leader.input(Input::Sign(Sign::Report { from: PeerId(2), report: lost.clone() }));
    confirm(&mut leader, &mut follower);
    assert_eq!(follower.confirmed(2), None);
}
