//! States that are compared, replaced by a snapshot, or incomplete.

use super::*;

#[test]
fn stores_compare_their_states_and_one_that_differs_starts_over() {
    /// Number of checks within this time.
    fn checks(log: &mut Log, leader: &mut Node, follower: &mut Node, passes: Duration) -> usize {
        leader.pass(passes);
        let before = log.entries.len();
        log.accept(leader);
        log.feed(leader);
        log.feed(follower);
        let is_check = |e: &&Committed| matches!(e.command.as_ref().unwrap().body, CommandBody::Check { .. });
        log.entries[before..].iter().filter(is_check).count()
    }
    let (mut leader, mut follower, mut log, _) = leader_and_follower();
    leader.compares = true;
    let period = Duration::from_secs(10);
    let short = Duration::from_millis(1);
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period - short), 0);
    assert_eq!(checks(&mut log, &mut leader, &mut follower, short), 1);
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period), 1, "compares what the first has noted");
    assert_eq!(checks(&mut log, &mut leader, &mut follower, 3 * period), 0, "nothing has changed");
    assert!(leader.diverged.is_empty() && follower.diverged.is_empty());
    let agreed = follower.server.agreed();
    assert!(agreed > Zxid::ZERO && agreed == leader.server.agreed());

    // The follower applies another entry than the leader.
    follower.ask(1, 1, vec![create("/a")]);
    log.accept(&mut follower);
    log.feed(&mut leader);
    let mut other = log.entries.last().unwrap().clone();
    other.command.as_mut().unwrap().body = match create("/b") {
        Op::Write(write) => CommandBody::Write(write),
        _ => unreachable!(),
    };
    follower.input(Input::Feed(Feed::Committed(vec![other])));
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period), 1);
    assert!(follower.diverged.is_empty(), "only noted");
    let noted = log.entries.last().unwrap().zxid;
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period), 1);
    let digest = leader.server.state().digest();
    let [(at, own, leaders)] = follower.diverged[..] else { panic!("{:?}", follower.diverged) };
    assert!(at == noted && leaders == digest && own != digest && leader.diverged.is_empty());

    assert!(agreed < noted && follower.server.agreed() < noted);
    follower.server.start_over(follower.now);
    assert_eq!(follower.server.agreed(), Zxid::ZERO);
    follower.input(Input::Tick);
    assert!(!follower.server.ready());
    assert!(
        matches!(follower.closed[..], [(ConnId(1), Err(OpError::Unavailable(_)))]),
        "{:?}",
        follower.closed
    );
    log.feed(&mut follower);
    assert!(!follower.server.ready(), "its feed has not said yet that there is a leader");
    follower.status(Role::Following, true);
    assert!(follower.server.ready() && follower.server.state().digest() == digest);
    assert_eq!(follower.diverged.len(), 1);
    assert_eq!(follower.server.agreed(), noted, "what is built again agrees there");
}

#[test]
fn a_snapshot_takes_the_place_of_the_state_and_lost_writes_find_their_results() {
    let (mut a, mut log, session) = with_session(Role::Following);
    a.ask(1, 1, vec![create("/a")]);
    let Ask::Submit { ticket, .. } = a.asks[0].clone() else { panic!("no write") };
    log.accept(&mut a);
    let mut b = Node::serving(2, Role::Leading);
    log.feed(&mut b);
    let state = State::load(b.server.state().records()).unwrap();
    a.server.replace_state(a.now, state);
    a.input(Input::Feed(Feed::Lost(ticket)));
    assert!(a.closed.is_empty(), "the session is in the snapshot");
    log.round(&mut a);
    assert!(matches!(a.take_replies(1)[..], [(0, Ok(Outcome::Write(WriteOutcome::Created { .. })))]));
    // A later snapshot without the session: it was closed in between.
    b.ask(1, 1, vec![]);
    let mut c = State::default();
    c.apply_marker(z(900), 0);
    a.server.replace_state(a.now, c);
    a.input(Input::Tick);
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionExpired(session)))]);
}

#[test]
fn a_hole_in_the_feed_stops_the_node() {
    let mut node = Node::serving(1, Role::Following);
    let entry = |zxid| Committed { zxid, time_ms: 0, origin: None, level: None, command: None };
    node.input(Input::Feed(Feed::Committed(vec![entry(z(0)), entry(z(2))])));
    assert_eq!(node.stopped.len(), 1);
    assert_eq!(node.server.state().applied(), z(0));
}
