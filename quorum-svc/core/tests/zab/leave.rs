//! A server that is about to stop.

use api::Zxid;
use api::ports::Role;

use crate::world::{World, z};
use invariants::Answer;

#[test]
fn a_leader_that_leaves_hands_over_and_no_write_is_lost_or_refused() {
    let mut w = World::new(3, 1);
    w.elect_all(3);
    let before = w.submit(3, "before");
    w.leave(3);
    // Its log comes to rest first. New requests wait on the server that accepted them.
    let own = w.submit(3, "own");
    let forwarded = w.submit(1, "forwarded");
    let observed = w.submit(4, "observed");
    assert!(!w.nodes[&3].left);
    w.settle();
    assert_eq!(w.role(3), Role::Looking);
    assert!(w.nodes[&3].candidate.unwrap().is_none(), "it votes but does not stand");
    assert_eq!(w.committed(), ["before"]);

    w.fair_election();
    w.settle();
    assert_eq!((w.role(2), w.role(3)), (Role::Leading, Role::Following));
    assert!(w.nodes[&3].left, "it may stop now that it has a leader itself");
    for (id, ticket) in [(3, before), (3, own), (1, forwarded), (4, observed)] {
        assert_eq!(w.answer(id, ticket), Some(Answer::Applied), "of server {id}");
    }
    w.crash(3);
    let after = w.submit(1, "after");
    w.settle();
    assert_eq!(w.answer(1, after), Some(Answer::Applied));
}

#[test]
fn a_leader_that_has_handed_over_rejects_late_learners() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.leave(3);
    w.settle();
    assert_eq!((w.role(3), w.nodes[&3].left), (Role::Looking, false));
    // Their elections got this result from server 3, whose election did not yet know that its quorum
    // had stepped down.
    w.elect(3, &[1, 2]);
    w.settle();
    for id in [1, 2] {
        assert_eq!(w.role(id), Role::Looking, "server {id} looks again, at once");
    }
    w.fair_election();
    w.settle();
    assert_eq!(w.role(2), Role::Leading);
    assert!(w.nodes[&3].left);
}

#[test]
fn a_leader_waits_until_a_voter_that_can_lead_has_everything() {
    let mut w = World::new(5, 0);
    w.elect_all(5);
    for id in [1, 2, 3, 4] {
        w.hold(5, id);
    }
    w.submit(5, "late");
    w.leave(5);
    w.settle();
    assert_eq!((w.role(5), w.nodes[&5].left), (Role::Leading, false));
    // Only one other server has the entry, so it is not committed yet.
    w.release(5, 1);
    w.settle();
    assert_eq!((w.role(5), w.nodes[&5].left), (Role::Leading, false));
    w.release(5, 2);
    w.settle();
    assert_eq!(w.role(5), Role::Looking);
    for id in [3, 4] {
        w.break_links(5, id);
        w.release(5, id);
    }
    w.settle();
    w.fair_election();
    w.settle();
    assert_eq!(w.role(2), Role::Leading, "one of the two that have it");
}

#[test]
fn a_leader_without_a_possible_successor_leaves_at_once() {
    let mut alone = World::new(1, 0);
    alone.elect_all(1);
    alone.leave(1);
    assert!(alone.nodes[&1].left);

    let mut last = World::new(3, 1);
    last.elect_all(3);
    last.crash(1);
    last.crash(2);
    last.settle();
    last.leave(3);
    last.settle();
    assert!(last.nodes[&3].left, "an observer cannot lead");

    let mut looking = World::new(3, 0);
    looking.leave(1);
    assert!(looking.nodes[&1].left);
}

#[test]
fn followers_and_observers_leave_at_once_and_do_not_stand_afterwards() {
    let mut w = World::new(3, 1);
    w.elect_all(3);
    w.leave(2);
    w.leave(4);
    assert!(w.nodes[&2].left && w.nodes[&4].left);
    assert_eq!(w.role(3), Role::Leading);
    w.crash(3);
    w.settle();
    w.fair_election();
    w.settle();
    assert_eq!(w.role(1), Role::Leading, "server 2 is about to stop");
    assert_eq!(w.status(1).committed, Zxid::marker(z(2, 0).epoch()));
}
