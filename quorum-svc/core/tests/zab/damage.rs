//! A server that knows that it lost a part of its log.

use api::ports::Role;

use crate::disk::Stored;
use crate::world::{INIT_LIMIT, World, z};
use invariants::Answer;

/// Servers 2 and 3 have committed an entry that server 1 lacks; then server 2 loses it.
fn damaged() -> World {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.crash(1);
    for payload in ["a", "b", "c"] {
        w.submit(3, payload);
    }
    w.settle();
    assert_eq!(w.committed().len(), 3);
    w.crash(2);
    w.damage(2, z(1, 1));
    w
}

#[test]
fn a_damaged_log_heals_from_the_leader_and_its_server_counts_again() {
    let mut w = damaged();
    w.restart(1);
    w.restart(2);
    w.settle();
    w.fair_election();
    w.settle();
    assert_eq!(w.log(2), w.log(3));
    assert!(w.serving(2) && !w.nodes[&2].disk.stored.damage.is_some());
    // Server 2 stands for election and counts: without it there is no quorum now.
    w.crash(1);
    let ticket = w.submit(3, "d");
    w.settle();
    assert_eq!(w.answer(3, ticket), Some(Answer::Applied));
    w.crash(3);
    w.settle();
    assert!(w.nodes[&2].candidate.unwrap().is_some());
}

/// A paused leader is deposed, and the others follow a new leader. A follower of the new leader loses
/// its disk, and its promise with it. Its ack must not let the deposed leader commit.
#[test]
fn a_server_that_lost_its_promise_is_of_no_use_to_a_deposed_leader() {
    deposed(|w, _| {
        w.wipe(1);
        w.restart(1);
    });
}

/// The same, but the server gets an older copy of its disk and not an empty one.
#[test]
fn f15_a_server_whose_promise_was_put_back_is_of_no_use_to_a_deposed_leader() {
    deposed(|w, before| {
        w.put_back(1, before);
        assert!(w.nodes[&1].disk.stored.damage.is_some() || !w.nodes[&1].disk.queue.is_empty());
    });
}

fn deposed(lose: impl FnOnce(&mut World, Stored)) {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    let before = w.copy(1);
    for other in [1, 2] {
        // No message arrives, and server 3 does not learn that the others have left it.
        w.hold(3, other);
        w.hold(other, 3);
        w.input(other, quorum_core::Input::Disconnected { conn: w.link(other, 3) });
    }
    w.settle();
    w.elect(2, &[1, 2]);
    w.settle();
    let kept = w.submit(2, "b");
    w.settle();
    assert_eq!(w.answer(2, kept), Some(Answer::Applied));

    w.crash(1);
    lose(&mut w, before);
    let lost = w.submit(3, "c");
    w.settle();
    w.release(3, 1);
    w.release(1, 3);
    w.elect(3, &[1]);
    w.settle();
    assert_ne!(w.answer(3, lost), Some(Answer::Applied), "two leaders have committed");
    assert!(!w.serving(1));

    w.release(3, 2);
    w.release(2, 3);
    w.run(INIT_LIMIT * 2);
    w.fair_election();
    w.run(INIT_LIMIT);
    assert_eq!(w.committed(), ["a", "b", "c"], "and everything goes on");
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}

/// If every quorum contains the leader, no other server has to confirm its leadership.
#[test]
fn a_server_that_lost_its_disk_comes_back_to_the_only_one_that_can_lead() {
    let mut w = World::of(&[Some(0), Some(0), Some(1)]);
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    for other in [1, 2] {
        w.crash(other);
        w.wipe(other);
        w.restart(other);
    }
    w.settle();
    w.elect_all(3);
    w.settle();
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}

#[test]
fn the_promise_of_a_server_with_a_hole_makes_no_quorum() {
    // Only server 3 has all committed entries. Servers 1 and 2 together could undo them.
    let mut w = damaged();
    w.crash(3);
    w.restart(1);
    w.restart(2);
    w.settle();
    assert!(w.nodes[&2].candidate.unwrap().is_none(), "it does not stand");
    w.elect(1, &[1, 2]);
    w.settle();
    w.run(INIT_LIMIT / 2);
    assert!(!w.serving(1) && !w.serving(2));
    assert_eq!(w.role(1), Role::Leading, "it waits for a server that can vouch");
    w.run(INIT_LIMIT * 2);
    assert!(!w.serving(1));

    w.restart(3);
    w.settle();
    for _ in 0..4 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
    assert_eq!(w.committed(), ["a", "b", "c"]);
}

#[test]
fn a_server_stays_damaged_over_restarts_until_it_has_synchronised() {
    let mut w = damaged();
    w.restart(2);
    // Server 2 promises a new epoch, which proves nothing, and its log stays unchanged.
    w.restart(1);
    w.settle();
    w.elect(1, &[1, 2]);
    w.crash(3);
    w.settle();
    assert!(w.nodes[&2].disk.stored.damage.is_some());
    w.crash(2);
    w.restart(2);
    w.settle();
    assert!(w.nodes[&2].candidate.unwrap().is_none());
}

#[test]
fn a_damaged_log_that_ends_later_than_the_leaders_deposes_no_leader() {
    // Server 3 alone has a tail of an old epoch, and has lost an earlier part. It can never lead.
    let mut w = World::new(3, 0);
    w.preload(1, z(0, 0), &[(1, 2)]);
    w.preload(2, z(0, 0), &[(1, 2)]);
    w.preload(3, z(0, 0), &[(1, 5)]);
    w.crash(3);
    w.damage(3, z(1, 4));
    w.restart(3);
    w.settle();
    w.elect(2, &[1, 2, 3]);
    w.settle();
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
    assert_eq!(w.log(3), w.log(2));
}

/// Servers 2 and 3 have committed an entry that server 1 lacks; then server 2 gets an older copy of its disk.
#[test]
fn f15_a_server_on_an_older_copy_of_its_disk_does_not_vote_what_was_committed_away() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    let before = w.copy(2);
    w.crash(1);
    w.submit(3, "b");
    w.settle();
    assert_eq!(w.committed(), ["a", "b"]);
    w.crash(2);
    w.crash(3);
    w.put_back(2, before);
    w.restart(1);
    w.settle();
    assert_eq!(w.nodes[&2].candidate, Some(None), "it does not stand");
    w.elect(1, &[1, 2]);
    w.run(INIT_LIMIT / 2);
    assert!(!w.serving(1) && !w.serving(2), "its promise proves nothing");
    w.run(INIT_LIMIT * 2);

    w.restart(3);
    w.settle();
    for _ in 0..4 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
    assert_eq!(w.committed(), ["a", "b"]);
    assert!(!w.nodes[&2].disk.stored.damage.is_some(), "it has everything again, and counts");
}

/// A late report makes the server leave any role.
#[test]
fn f15_a_leader_steps_down_when_it_learns_of_its_older_copy() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    for told in [3, 2] {
        w.input(told, quorum_core::Input::RolledBack { note: true });
        w.settle();
        assert!(w.nodes[&told].disk.stored.damage.is_some());
        assert_eq!((w.role(told), w.nodes[&told].candidate), (Role::Looking, Some(None)));
        for _ in 0..3 {
            w.fair_election();
            w.run(INIT_LIMIT);
        }
        assert!(w.ids().into_iter().all(|id| w.serving(id)) && w.role(told) == Role::Following);
        assert!(!w.nodes[&told].disk.stored.damage.is_some());
        w.elect_all(3);
    }
    // Again, during its synchronisation.
    w.crash(2);
    w.restart(2);
    w.settle();
    w.input(2, quorum_core::Input::RolledBack { note: true });
    w.input(2, quorum_core::Input::RolledBack { note: true });
    w.settle();
    for _ in 0..3 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.serving(2));
}

/// The server knows of its loss, so it counts only when no absent voter could have more.
#[test]
fn f14_an_empty_directory_that_others_have_met_counts_only_when_all_are_there() {
    let mut w = World::new(3, 0);
    w.crash(3);
    w.input(1, quorum_core::Input::RolledBack { note: true });
    w.settle();
    w.elect(2, &[1, 2]);
    w.run(INIT_LIMIT / 2);
    assert!(!w.serving(1) && !w.serving(2));
    w.restart(3);
    w.run(INIT_LIMIT * 2);
    for _ in 0..3 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}

/// The same with two voters, where no other start is possible.
#[test]
fn f14_an_ensemble_of_two_begins_anew_with_an_empty_directory_that_was_met() {
    let mut w = World::new(2, 0);
    w.input(1, quorum_core::Input::RolledBack { note: true });
    w.settle();
    for _ in 0..3 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.serving(1) && w.serving(2));
}

/// Five voters. "b" is on 1, 4 and 5. Server 1 is restored to an older copy without "b" and promises to
/// 2. Only then does it get the report. Its earlier promise must not complete the quorum.
#[test]
fn f15_a_promise_that_is_taken_back_does_not_count() {
    let mut w = World::new(5, 0);
    w.elect_all(5);
    w.submit(5, "a");
    w.settle();
    let before = w.copy(1);
    w.crash(2);
    w.crash(3);
    w.submit(5, "b");
    w.settle();
    assert_eq!(w.committed(), ["a", "b"]);
    for id in [1, 4, 5] {
        w.crash(id);
    }
    w.nodes.get_mut(&1).unwrap().disk.stored = before;
    for id in [1, 2, 3] {
        w.restart(id);
    }
    w.settle();
    w.hold(2, 3);
    w.elect(2, &[1, 2, 3]);
    w.settle();
    // Leader 2 has the promise of server 1, and waits for that of server 3.
    w.input(1, quorum_core::Input::RolledBack { note: true });
    w.settle();
    w.elect(2, &[1]);
    w.settle();
    w.release(2, 3);
    w.settle();
    w.run(INIT_LIMIT / 2);
    assert!(w.log(2).last().is_none_or(|z| z.epoch().0 < 2), "it has begun an epoch");
    w.restart(4);
    w.settle();
    for _ in 0..4 {
        w.run(INIT_LIMIT * 2);
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert_eq!(w.committed(), ["a", "b"]);
    assert!([1, 2, 3, 4].into_iter().all(|id| w.serving(id)));
}

/// One of three is down. Another finds its log damaged and is back while the leader still leads. It has
/// kept its promises, so the leader has no doubts about it.
#[test]
fn f9_a_damaged_log_heals_from_a_leader_without_other_learners() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    w.crash(2);
    w.submit(3, "b");
    w.settle();
    w.crash(1);
    w.damage(1, z(1, 1));
    w.restart(1);
    w.settle();
    w.elect(3, &[1]);
    w.settle();
    assert!(w.serving(3) && w.serving(1));
}
