//! Order of writes: S19 to S21, S23.

use api::ports::Role;
use api::{Entry, Zxid};

use crate::world::{PING, SYNC_LIMIT, Step, World, z};
use invariants::Answer;

fn established(voters: u32, observers: u32) -> World {
    let mut w = World::new(voters, observers);
    w.elect_all(voters);
    w.trace.clear();
    w
}

#[test]
fn s19_proposals_go_out_acks_come_in_and_commits_follow_in_order() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&2).unwrap().disk.held = true;
    for text in ["a", "b", "c"] {
        w.submit(3, text);
        w.settle();
    }
    let zxids = |to: u32, word: &str| -> Vec<String> {
        let sent = w.trace.iter().filter(|(from, t, _)| (*from, *t) == (3, to));
        let texts = sent.filter_map(|(_, _, text)| text.strip_prefix(word));
        texts.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let all = ["0x100000001", "0x100000002", "0x100000003"];
    assert_eq!(zxids(1, "PROPOSE "), all);
    assert_eq!(zxids(2, "PROPOSE "), all, "the slow one gets the same");
    assert_eq!(zxids(1, "COMMIT "), all);
    let acks = w.trace.iter().filter(|(from, _, text)| *from == 1 && text.starts_with("ACK"));
    assert!(acks.map(|(_, _, text)| text).is_sorted());
    assert_eq!(w.committed(), ["a", "b", "c"]);
}

#[test]
fn s19_what_is_ahead_commits_only_with_what_is_before_it() {
    let mut w = established(3, 0);
    // Each follower's link is a queue, so an ack of n includes n-1. Here the first entry has reached no
    // follower.
    w.hold(3, 1);
    w.hold(3, 2);
    w.submit(3, "a");
    w.submit(3, "b");
    w.settle();
    assert_eq!(w.status(3).committed, z(1, 0));
    w.release(3, 2);
    w.settle();
    assert_eq!((w.status(3).committed, w.committed()), (z(1, 2), vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn the_leaders_own_disk_may_be_the_slow_one() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&3).unwrap().disk.held = true;
    let ticket = w.submit(3, "a");
    w.settle();
    assert_eq!(w.status(3).committed, z(1, 1), "the others are a quorum");
    assert_eq!(w.answer(3, ticket), None, "its own store gets nothing that is not durable here");
    assert_eq!(w.nodes[&1].applied, z(1, 1));
    w.nodes.get_mut(&3).unwrap().disk.held = false;
    w.settle();
    assert_eq!(w.answer(3, ticket), Some(Answer::Applied));
}

#[test]
fn s20_two_of_five_down_writes_go_on() {
    let mut w = established(5, 0);
    w.crash(1);
    w.crash(2);
    let ticket = w.submit(4, "a");
    w.settle();
    assert_eq!(w.answer(4, ticket), Some(Answer::Applied));
}

#[test]
fn s20_three_of_five_down_nothing_is_acknowledged_nothing_lost() {
    let mut w = established(5, 0);
    for id in [1, 2, 3] {
        w.crash(id);
    }
    let before = w.submit_all(4, &["a", "b"]);
    w.settle();
    w.run(SYNC_LIMIT * 3);
    assert!(w.role(4) == Role::Looking && w.role(5) == Role::Looking);
    let parked = w.submit_all(4, &["c", "d"]);
    w.settle();
    assert_eq!(w.ghost.last(), z(1, 0));
    w.restart(2);
    w.settle();
    w.fair_election();
    w.settle();
    assert!(w.serving(2) && w.serving(4) && w.serving(5));
    assert_eq!(w.committed(), ["a", "b", "c", "d"]);
    for ticket in before.into_iter().chain(parked) {
        assert_eq!(w.answer(4, ticket), Some(Answer::Applied));
    }
}

#[test]
fn s21_a_slow_learner_delays_no_other_server() {
    let mut w = established(3, 1);
    // One follower does not read, another has a disk that hangs.
    w.hold(3, 1);
    w.nodes.get_mut(&4).unwrap().disk.held = true;
    for i in 0..50 {
        let ticket = w.submit(3, &format!("{i}"));
        w.settle();
        assert_eq!(w.answer(3, ticket), Some(Answer::Applied));
        assert_eq!(w.nodes[&2].applied, w.nodes[&3].applied);
    }
    assert_eq!(w.nodes[&1].applied, z(1, 0));
    w.release(3, 1);
    w.nodes.get_mut(&4).unwrap().disk.held = false;
    w.settle();
    assert!(w.nodes.values().all(|n| n.applied == z(1, 50)));
}

#[test]
fn s23_an_observer_gets_only_what_is_committed() {
    let mut w = established(3, 1);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.nodes.get_mut(&2).unwrap().disk.held = true;
    let ticket = w.submit(4, "forwarded");
    w.settle();
    assert_eq!(w.role(4), Role::Observing);
    assert_eq!(w.log(3).last(), Some(&z(1, 1)));
    assert_eq!(w.log(4).last(), Some(&z(1, 0)), "proposed, not committed: not for observers");
    w.take(Step::Disk(1));
    w.settle();
    assert_eq!(w.log(4).last(), Some(&z(1, 1)));
    assert_eq!(w.answer(4, ticket), Some(Answer::Applied));
}

#[test]
fn s23_an_observer_that_joins_under_load_has_no_gap() {
    let mut w = established(3, 1);
    w.crash(4);
    w.submit(3, "a");
    w.settle();
    for id in [1, 2] {
        w.nodes.get_mut(&id).unwrap().disk.held = true;
    }
    w.submit(3, "b");
    w.restart(4);
    w.elect_all(3);
    w.submit(3, "c");
    for id in [1, 2] {
        w.nodes.get_mut(&id).unwrap().disk.held = false;
    }
    w.settle();
    assert!(w.serving(4));
    assert_eq!((w.log(4), w.nodes[&4].applied), (w.log(3), z(1, 3)));
}

#[test]
fn many_inputs_make_few_outputs() {
    let mut w = established(3, 0);
    w.lazy = true;
    for i in 0..5 {
        w.submit(3, &format!("{i}"));
    }
    w.lazy = false;
    w.settle();
    let proposals: Vec<&String> =
        w.trace.iter().filter(|(_, to, t)| *to == 1 && t.starts_with("PROPOSE")).map(|(_, _, t)| t).collect();
    assert_eq!(proposals.len(), 1, "{proposals:?}");
    assert_eq!(w.trace.iter().filter(|(from, _, t)| *from == 1 && t.starts_with("ACK")).count(), 1);
}

#[test]
fn a_purge_does_not_disturb_the_broadcast() {
    let mut w = established(3, 0);
    for i in 0..9 {
        w.submit(3, &format!("{i}"));
        w.settle();
        w.save_snapshot(3);
        w.settle();
    }
    assert!(w.nodes[&3].base >= z(1, 7));
    assert_eq!(w.core(3).history().base(), w.nodes[&3].base);
    assert!(w.nodes.values().all(|n| n.applied == z(1, 9)));
    // The snapshot also helps a server without any data.
    w.preload(1, Zxid::ZERO, &[]);
    w.crash(1);
    w.restart(1);
    w.settle();
    w.elect_all(3);
    assert!(w.serving(1) && w.nodes[&1].applied == z(1, 9));
    let last: Option<&Entry> = w.nodes[&1].log.last();
    assert!(w.nodes[&1].base > Zxid::ZERO && last.is_none_or(|e| e.zxid == z(1, 9)));
}

/// The followers are healthy and commit without the leader.
#[test]
fn a_leader_whose_disk_hangs_makes_room_for_another_and_comes_back() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&3).unwrap().disk.held = true;
    let before = w.submit(1, "while it hangs");
    w.run(SYNC_LIMIT + 3 * PING);
    assert_eq!(w.role(3), Role::Looking, "it orders nothing that could come to an end");
    // It stands in no election before its disk is idle.
    assert!(w.nodes[&3].candidate.is_none());
    w.fair_election();
    w.settle();
    let after = w.submit(1, "with another leader");
    w.settle();
    assert!(w.serving(1) && w.serving(2) && w.role(2) == Role::Leading);
    assert!([before, after].iter().all(|&t| w.answer(1, t) == Some(Answer::Applied)));

    w.nodes.get_mut(&3).unwrap().disk.held = false;
    w.settle();
    w.fair_election();
    w.settle();
    assert!(w.serving(3) && w.log(3) == w.log(1));
}

/// A follower's clients go to another node and do not wait for its disk.
#[test]
fn a_follower_with_a_hanging_disk_stops_serving_and_delays_no_other_server() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.submit(2, "x");
    w.run(SYNC_LIMIT + 3 * PING);
    assert!(!w.serving(1) && w.serving(2) && w.serving(3));
}

/// If all disks are slow, another leader would be no better.
#[test]
fn where_all_disks_hang_the_leader_stays() {
    let mut w = established(3, 0);
    w.ids().into_iter().for_each(|id| w.nodes.get_mut(&id).unwrap().disk.held = true);
    let ticket = w.submit(1, "x");
    w.run(SYNC_LIMIT * 5);
    assert_eq!(w.role(3), Role::Leading);
    w.ids().into_iter().for_each(|id| w.nodes.get_mut(&id).unwrap().disk.held = false);
    w.settle();
    assert_eq!(w.answer(1, ticket), Some(Answer::Applied));
}
