//! From an elected leader to a quorum with one log: S11 to S18, and the lessons of ZooKeeper's tickets.

use std::time::Duration;

use api::ports::{FeedItem, Role};
use api::{Epoch, Zxid};
use quorum_core::Input;

use crate::world::{INIT_LIMIT, PING, SYNC_LIMIT, World, z};
use invariants::Answer;

/// The messages from `from` to `to`, without pings.
fn sent(w: &World, from: u32, to: u32) -> Vec<&str> {
    let between = w.trace.iter().filter(|(f, t, _)| (*f, *t) == (from, to)).map(|(_, _, text)| text.as_str());
    between.filter(|text| *text != "PING" && *text != "PONG").collect()
}

#[test]
fn s11_diff_in_exactly_this_order() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(5, 3)]);
    w.preload(2, Zxid::ZERO, &[(5, 5)]);
    w.preload(3, Zxid::ZERO, &[(5, 5)]);
    w.crash(2);
    w.batch = 1;
    w.elect_all(3);
    assert_eq!(
        sent(&w, 3, 1),
        [
            "LEADERINFO 6",
            "DIFF 0x500000003",
            "PROPOSE 0x500000004",
            "PROPOSE 0x500000005",
            "PROPOSE 0x600000000",
            "NEWLEADER 0x600000000",
            "UPTODATE 0x600000000",
        ]
    );
    assert_eq!(sent(&w, 1, 3), ["LEARNERINFO 5", "ACKEPOCH 6 0x500000003", "ACK 0x600000000"]);
    assert!(w.serving(1) && w.serving(3));
    assert_eq!(w.nodes[&1].applied, z(6, 0));
}

#[test]
fn s12_trunc_then_diff() {
    let (a, b, c) = (1, 2, 3);
    let mut w = World::new(3, 0);
    w.preload(a, Zxid::ZERO, &[(5, 2)]);
    w.preload(b, Zxid::ZERO, &[(5, 3)]);
    w.preload(c, Zxid::ZERO, &[(5, 2)]);
    w.crash(b);
    w.elect_all(c);
    w.submit(c, "x");
    w.submit(c, "y");
    w.settle();
    w.trace.clear();
    w.restart(b);
    w.elect_all(c);
    assert_eq!(
        sent(&w, c, b),
        [
            "LEADERINFO 6",
            "TRUNC 0x500000002",
            "PROPOSE 0x600000000 0x600000001 0x600000002",
            "NEWLEADER 0x600000002",
            "UPTODATE 0x600000002",
        ]
    );
    for id in [a, b, c] {
        assert!(!w.log(id).contains(&z(5, 3)), "0x500000003 is nowhere");
        assert!(!w.nodes[&id].disk.stored.has(z(5, 3)));
        assert_eq!(w.nodes[&id].applied, z(6, 2));
    }
}

#[test]
fn s12_a_crash_between_trunc_and_diff_harms_nothing() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(4, 2)]);
    w.preload(2, Zxid::ZERO, &[(4, 2), (5, 3)]);
    w.preload(3, Zxid::ZERO, &[(4, 2)]);
    w.promise(1, 5);
    w.crash(2);
    w.elect_all(3);
    w.restart(2);
    w.nodes.get_mut(&2).unwrap().disk.held = true;
    w.elect_all(3);
    // The promise becomes durable, and the log is cut. Then the power fails.
    for _ in 0..2 {
        w.nodes.get_mut(&2).unwrap().disk.held = false;
        let step = crate::world::Step::Disk(2);
        w.take(step);
        w.nodes.get_mut(&2).unwrap().disk.held = true;
        w.settle();
    }
    w.crash(2);
    let stored = &w.nodes[&2].disk.stored;
    assert_eq!((stored.last(), stored.current, stored.accepted), (z(4, 2), Epoch(5), Epoch(6)));
    w.restart(2);
    w.elect_all(3);
    assert!(w.serving(2));
    assert_eq!(w.log(2), w.log(3));
}

#[test]
fn s12_a_connection_that_breaks_between_trunc_and_diff_harms_nothing() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(5, 2)]);
    w.preload(2, Zxid::ZERO, &[(5, 3)]);
    w.preload(3, Zxid::ZERO, &[(5, 2)]);
    w.crash(2);
    w.elect_all(3);
    w.restart(2);
    w.elect(3, &[2]);
    while w.log(2).last() != Some(&z(5, 2)) {
        w.take(w.steps()[0]);
    }
    w.break_links(2, 3);
    w.settle();
    assert_eq!(w.nodes[&2].candidate.flatten().unwrap().zxid, z(5, 2));
    w.elect_all(3);
    assert!(w.serving(2));
    assert_eq!(w.log(2), w.log(3));
}

#[test]
fn s13_trunc_only() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(1, 2)]);
    w.preload(2, Zxid::ZERO, &[(1, 2)]);
    w.preload(3, Zxid::ZERO, &[(1, 7)]);
    w.elect_all(2);
    assert_eq!(
        sent(&w, 2, 3)[1..],
        ["TRUNC 0x100000002", "PROPOSE 0x200000000", "NEWLEADER 0x200000000", "UPTODATE 0x200000000"],
        "nothing but the marker of the epoch"
    );
    assert!(w.serving(3));
    assert_eq!(w.log(3), w.log(2));
}

#[test]
fn s14_snap_then_increments() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(5, 3)]);
    for id in [2, 3] {
        w.preload(id, z(6, 0x8731), &[(5, 3), (6, 0x8735)]);
    }
    w.crash(1);
    w.elect_all(3);
    w.restart(1);
    w.trace.clear();
    w.elect(3, &[1]);
    // Writes continue during the transfer of the state.
    w.hold(3, 1);
    w.settle();
    w.release(3, 1);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.settle();
    w.submit(2, "meanwhile");
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    w.submit(3, "later");
    w.settle();
    assert_eq!(
        sent(&w, 3, 1)[..4],
        [
            "LEADERINFO 7",
            "SNAP 0x600008731",
            "PROPOSE 0x600008732 0x600008733 0x600008734 0x600008735 0x700000000 0x700000001",
            "NEWLEADER 0x700000001",
        ]
    );
    assert!(w.serving(1));
    assert_eq!((w.nodes[&1].base, w.nodes[&1].applied), (z(6, 0x8731), z(7, 2)));
}

#[test]
fn s14_a_crash_in_the_middle_of_snap_leaves_the_old_state_or_the_new() {
    for ops in 0..4 {
        let mut w = World::new(3, 0);
        w.preload(1, Zxid::ZERO, &[(5, 3)]);
        for id in [2, 3] {
            w.preload(id, z(6, 9), &[(5, 3), (6, 12)]);
        }
        w.crash(1);
        w.elect_all(3);
        w.restart(1);
        w.elect_all(3);
        w.crash(1);
        w.preload(1, Zxid::ZERO, &[(5, 3)]);
        w.elect(3, &[1]);
        w.hold(1, 3);
        w.settle();
        w.release(1, 3);
        // All operations except the promise wait in the disk's queue.
        while !w.steps().is_empty() && w.nodes[&1].disk.queue.len() < 3 {
            let step =
                *w.steps().iter().find(|s| **s != crate::world::Step::Disk(1)).unwrap_or(&w.steps()[0]);
            w.take(step);
        }
        w.crash_with(1, ops, 1);
        w.restart(1);
        w.elect_all(3);
        assert!(w.serving(1), "after {ops} operations");
        assert_eq!(w.status(1).committed, w.status(3).committed);
    }
}

#[test]
fn a_snapshot_that_was_received_but_not_installed_is_not_offered_to_others() {
    let mut w = World::new(3, 0);
    for id in [2, 3] {
        w.preload(id, z(6, 9), &[(5, 3), (6, 12)]);
    }
    w.preload(1, Zxid::ZERO, &[(5, 3)]);
    w.crash(3);
    // The remains of a crash before the installation: a snapshot of another history.
    w.nodes.get_mut(&3).unwrap().disk.stored.snapshots.push(z(7, 5));
    w.restart(3);
    w.elect_all(3);
    assert!(!w.serving(1), "its own old snapshot is not known to the core, so it cannot help");
    assert!(w.serving(2) && w.serving(3));
    w.nodes.get_mut(&3).unwrap().disk.stored.snapshots.pop();
    w.save_snapshot(3);
    w.settle();
    w.elect_all(3);
    assert!(w.serving(1), "the next snapshot does");
}

#[test]
fn s15_equal_logs_get_an_empty_diff() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.break_links(1, 3);
    w.trace.clear();
    w.elect_all(3);
    assert_eq!(
        sent(&w, 3, 1),
        ["LEADERINFO 1", "DIFF 0x100000000", "NEWLEADER 0x100000000", "UPTODATE 0x100000000"]
    );
    assert_eq!(sent(&w, 1, 3)[1], "ACKEPOCH 1 0x100000000 again");
}

#[test]
fn s16_nothing_is_accepted_or_committed_before_a_quorum_has_synchronised() {
    let mut w = World::new(3, 0);
    w.preload(3, Zxid::ZERO, &[(1, 4)]);
    for id in [1, 2] {
        w.preload(id, Zxid::ZERO, &[(1, 0)]);
        w.nodes.get_mut(&id).unwrap().disk.held = true;
    }
    w.elect_all(3);
    let ticket = w.submit(3, "early");
    w.settle();
    for step in 0..2 {
        // The promises first, then log and epoch.
        assert_eq!((w.serving(3), w.status(3).committed), (false, Zxid::ZERO), "step {step}");
        assert!(w.log(3).iter().all(|z| z.epoch() == Epoch(1) || z.counter() == 0));
        w.take(crate::world::Step::Disk(1));
        w.settle();
    }
    assert_eq!(w.status(3).committed, Zxid::ZERO, "4643: the log is durable, the epoch is not");
    w.take(crate::world::Step::Disk(1));
    w.settle();
    assert!(w.serving(3) && w.serving(1) && !w.serving(2));
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    assert!(w.answer(3, ticket).is_some());
    assert_eq!(w.nodes[&3].applied, z(2, 1));
}

#[test]
fn s16_the_leaders_own_epoch_has_to_be_durable_as_well() {
    let mut w = World::new(3, 0);
    w.crash(1);
    w.nodes.get_mut(&3).unwrap().disk.held = true;
    w.elect_all(3);
    // The promise first, then the marker. By then the follower has everything.
    for _ in 0..2 {
        w.take(crate::world::Step::Disk(3));
        w.settle();
    }
    assert_eq!(w.nodes[&3].disk.stored.last(), z(1, 0));
    assert!(sent(&w, 2, 3).contains(&"ACK 0x100000000"));
    assert_eq!((w.serving(3), w.status(3).committed), (false, Zxid::ZERO));
    w.take(crate::world::Step::Disk(3));
    assert!(w.serving(3));
}

#[test]
fn s17_a_joiner_gets_every_write_once_while_writes_go_on() {
    let mut w = World::new(3, 1);
    w.crash(1);
    w.crash(4);
    w.elect_all(3);
    w.batch = 2;
    for i in 0..20 {
        w.submit(3, &format!("w{i}"));
        w.settle();
    }
    w.restart(1);
    w.restart(4);
    w.elect(3, &[1, 4]);
    // One packet, one write.
    for i in 0..200 {
        let steps = w.steps();
        if let Some(&step) = steps.get(i % steps.len().max(1)) {
            w.take(step);
        }
        if i % 4 == 0 {
            w.submit(if i % 8 == 0 { 2 } else { 3 }, &format!("m{i}"));
        }
    }
    w.settle();
    assert!(w.serving(1) && w.serving(4));
    assert_eq!(w.log(1), w.log(3));
    assert_eq!(w.log(4), w.log(3));
    assert_eq!(w.nodes[&4].applied, w.ghost.last());
}

#[test]
fn s18_a_follower_that_cannot_connect_gives_up_after_the_init_limit() {
    let mut w = World::new(3, 0);
    w.block(1, 3);
    w.elect(3, &[1]);
    w.run(INIT_LIMIT - Duration::from_millis(1));
    assert_eq!(w.role(1), Role::Following);
    w.run(Duration::from_millis(1));
    assert_eq!(w.role(1), Role::Looking);
}

#[test]
fn s18_a_leader_without_followers_gives_up_after_the_init_limit() {
    let mut w = World::new(3, 0);
    w.elect(3, &[3]);
    w.run(INIT_LIMIT - Duration::from_millis(1));
    assert_eq!(w.role(3), Role::Leading);
    w.run(Duration::from_millis(1));
    assert_eq!(w.role(3), Role::Looking);
    assert!(w.nodes[&3].candidate.is_some());
}

#[test]
fn s18_a_silent_learner_is_dropped_and_only_that_one() {
    let mut w = World::new(3, 1);
    w.elect_all(3);
    for silent in [1, 4] {
        w.hold(silent, 3);
    }
    // Barriers do not delay the check.
    for _ in 0..20 {
        w.barrier(3);
        w.run(Duration::from_millis(40));
    }
    w.release(1, 3);
    w.release(4, 3);
    w.settle();
    assert_eq!((w.role(1), w.role(4)), (Role::Looking, Role::Looking));
    assert!(w.serving(2) && w.serving(3));
}

#[test]
fn s18_a_long_synchronisation_that_makes_progress_is_waited_for() {
    let mut w = World::new(3, 0);
    w.crash(1);
    w.elect_all(3);
    for i in 0..30 {
        w.submit(3, &format!("w{i}"));
        w.settle();
    }
    w.restart(1);
    w.batch = 1;
    w.elect(3, &[1]);
    w.hold(3, 1);
    w.settle();
    // One packet in each tenth of the limit; three times the limit in total.
    for _ in 0..60 {
        w.release(3, 1);
        if let Some(&step) = w.steps().iter().find(|s| matches!(s, crate::world::Step::Down(_))) {
            w.take(step);
        }
        w.hold(3, 1);
        w.run(INIT_LIMIT / 20);
    }
    assert!(w.role(1) == Role::Following);
    w.release(3, 1);
    w.settle();
    assert!(w.serving(1));
}

#[test]
fn zk_3911_4646_newleader_is_not_acknowledged_before_the_log_is_durable() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(1, 0)]);
    w.preload(3, Zxid::ZERO, &[(1, 4)]);
    w.crash(2);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.elect_all(3);
    let acked = |w: &World| sent(w, 1, 3).iter().any(|text| text.starts_with("ACK 0x"));
    // The promise, then the log, then the epoch.
    for _ in 0..3 {
        assert!(!acked(&w) && !w.serving(3));
        w.take(crate::world::Step::Disk(1));
        w.settle();
    }
    assert!(acked(&w) && w.serving(3) && w.serving(1));
}

#[test]
fn zk_4685_acks_of_later_proposals_wait_for_the_epoch() {
    let mut w = World::new(3, 0);
    w.crash(1);
    w.elect_all(3);
    w.restart(1);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.elect_all(3);
    w.take(crate::world::Step::Disk(1));
    w.settle();
    // NEWLEADER has arrived, and its epoch waits for the disk. Proposals still flow.
    w.submit(3, "a");
    w.settle();
    w.take(crate::world::Step::Disk(1));
    assert!(!sent(&w, 1, 3).iter().any(|text| text.starts_with("ACK 0x")));
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    assert!(w.serving(1));
    assert_eq!(w.nodes[&1].applied, z(1, 1));
}

#[test]
fn zk_4394_a_commit_may_come_for_what_was_proposed_before_newleader_was_acknowledged() {
    let mut w = World::new(3, 0);
    w.crash(1);
    w.elect_all(3);
    w.restart(1);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.elect_all(3);
    w.take(crate::world::Step::Disk(1));
    w.settle();
    w.submit(3, "a");
    w.settle();
    assert_eq!(w.status(3).committed, z(1, 1));
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    assert!(sent(&w, 3, 1).contains(&"UPTODATE 0x100000001"));
    assert_eq!(w.nodes[&1].applied, z(1, 1));
}

#[test]
fn zk_1154_a_tail_between_two_epochs_of_the_leader_is_cut() {
    // Server A logged 74, the others continued with 81. 71 <= 74 <= 81 is no reason for a DIFF.
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(7, 1), (8, 0)]);
    w.preload(2, Zxid::ZERO, &[(7, 1), (8, 0)]);
    w.preload(3, Zxid::ZERO, &[(7, 4)]);
    w.elect_all(2);
    assert!(sent(&w, 2, 3).contains(&"TRUNC 0x700000001"));
    assert_eq!(w.log(3), w.log(2));
}

#[test]
fn zk_2845_what_was_logged_but_not_committed_stands_for_election() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.hold(3, 1);
    w.hold(3, 2);
    w.submit(3, "x");
    w.settle();
    w.run(SYNC_LIMIT * 3);
    assert_eq!(w.nodes[&3].candidate.flatten().unwrap().zxid, z(1, 1));
    w.release(3, 1);
    w.release(3, 2);
    w.settle();
    w.elect_all(3);
    assert_eq!(w.committed(), ["x"]);
}

#[test]
fn a_follower_that_has_more_makes_the_leader_give_way() {
    // The election had a wrong result; the protocol stays safe.
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(1, 4)]);
    w.preload(2, Zxid::ZERO, &[(1, 4)]);
    w.preload(3, Zxid::ZERO, &[(1, 2)]);
    w.elect_all(3);
    assert_eq!(w.role(3), Role::Looking);
    w.run(INIT_LIMIT);
    w.elect_all(2);
    assert_eq!(w.log(3).len(), 6);
    assert!(w.serving(3));
}

/// Server 2 lost its disk, with the only other copy of the entries that 1 and 2 had committed.
#[test]
fn a_server_without_data_does_not_help_to_elect_one_that_lacks_committed_entries() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(1, 9)]);
    w.preload(3, Zxid::ZERO, &[(1, 4)]);
    w.crash(1);
    w.elect(3, &[2, 3]);
    w.run(INIT_LIMIT * 2);
    assert!(!w.serving(3) && !w.serving(2), "the content of server 1 is unknown");
    w.restart(1);
    w.elect_all(1);
    // Wait for the round of pings that proves that no other server leads.
    w.run(PING * 2);
    assert!(w.serving(1) && w.serving(3) && w.serving(2));
    assert!(w.log(2).contains(&z(1, 9)) && w.log(3).contains(&z(1, 9)));
}

/// A leader that crashes after it wrote its first marker must not prevent the start of a new ensemble.
/// The third server may have later committed entries, so all servers must be connected once.
#[test]
fn servers_without_data_start_an_ensemble_also_after_a_first_attempt_that_failed() {
    let mut w = World::new(3, 0);
    w.preload(3, Zxid::ZERO, &[(1, 0)]);
    w.crash(2);
    w.elect(3, &[1, 3]);
    w.settle();
    assert!(!w.serving(3) && !w.serving(1));
    w.restart(2);
    w.settle();
    w.elect(3, &[2]);
    w.settle();
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}

/// Found by exhaustive search. The leader has only a marker, one promise comes from a wiped server, and
/// the third server, which has a committed write, promises slightly later.
#[test]
fn a_wiped_server_does_not_vouch_for_one_that_has_been_a_member_before() {
    let mut w = World::new(3, 0);
    w.elect_all(2);
    // Server 3 misses the first write.
    w.crash(3);
    let ticket = w.submit(2, "acknowledged");
    w.settle();
    assert_eq!(w.answer(2, ticket), Some(Answer::Applied));
    w.restart(3);
    w.settle();
    w.crash(1);
    w.crash(2);
    w.wipe(2);
    w.restart(2);
    w.settle();
    w.elect(3, &[2, 3]);
    w.settle();
    assert!(!w.serving(3), "server 1 may have more, and does");
    w.restart(1);
    w.settle();
    for _ in 0..3 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert_eq!(w.committed(), ["acknowledged"]);
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}

#[test]
fn s14_a_snapshot_is_sent_where_the_entries_would_be_much_more() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.crash(1);
    for payload in ["a", "b", "c", "d"] {
        w.submit(3, payload);
    }
    w.settle();
    w.save_snapshot(3);
    w.submit(3, "e");
    w.settle();
    let end = w.status(3).last;
    // The log has all entries, but those up to the third cost more than the snapshot.
    let (hold_from, snap_before) = (Zxid::ZERO, z(1, 2));
    w.input(3, Input::SnapshotSaved { zxid: z(1, 4), purge_to: None, hold_from, snap_before });
    w.restart(1);
    w.settle();
    w.elect(3, &[1]);
    w.settle();
    assert_eq!((w.nodes[&1].base, w.status(1).last), (z(1, 4), end));
    // A learner that is less far behind gets only the missing entries.
    w.crash(2);
    let submitted = w.submit(3, "f");
    w.settle();
    assert_eq!(w.answer(3, submitted), Some(Answer::Applied));
    w.restart(2);
    w.settle();
    w.elect(3, &[2]);
    w.settle();
    assert_eq!((w.nodes[&2].base, w.status(2).last), (Zxid::ZERO, w.status(3).last));
}

#[test]
fn a_leader_without_a_sound_snapshot_has_its_store_save_one() {
    let mut w = World::new(3, 0);
    w.preload(1, z(1, 4), &[(1, 6)]);
    w.preload(2, z(1, 4), &[(1, 6)]);
    w.crash(3);
    w.elect(2, &[1, 2]);
    w.settle();
    // Its only snapshot is found damaged, and nothing new is written.
    w.input(2, Input::SnapshotsLeft { newest: None });
    w.restart(3);
    w.settle();
    w.elect(2, &[3]);
    w.settle();
    assert!(!w.serving(3));
    assert!(w.nodes[&2].told.contains(&FeedItem::SnapshotWanted));
    w.save_snapshot(2);
    w.settle();
    w.elect(2, &[3]);
    w.settle();
    assert!(w.serving(3));
}

/// Two of three servers are up. The learner that the leader needs lacks so much that its
/// synchronisation takes longer than the limit.
#[test]
fn s18_a_leader_waits_for_the_only_voter_that_it_has_as_long_as_that_gets_on() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.submit(3, "first");
    w.settle();
    w.crash(1);
    for i in 0..30 {
        w.submit(3, &format!("w{i}"));
        w.settle();
    }
    w.crash(2);
    w.crash(3);
    w.restart(3);
    w.restart(1);
    w.batch = 1;
    w.settle();
    w.elect(3, &[1, 3]);
    w.ids().into_iter().filter(|&id| id != 2).for_each(|id| w.poll(id));
    let before = sent(&w, 3, 1).len();
    while !sent(&w, 3, 1)[before..].iter().any(|t| t.starts_with("DIFF")) {
        let step = w.steps()[0];
        w.take(step);
    }
    // One packet in each twentieth of the limit; more than the limit in total.
    for _ in 0..25 {
        w.release(3, 1);
        if let Some(&step) = w.steps().iter().find(|s| matches!(s, crate::world::Step::Down(_))) {
            w.take(step);
        }
        w.hold(3, 1);
        w.run(INIT_LIMIT / 20);
    }
    assert_eq!((w.role(3), w.role(1)), (Role::Leading, Role::Following));
    // The leader does not wait without progress.
    let mut stalled = Vec::new();
    for _ in 0..3 {
        w.run(INIT_LIMIT / 2);
        stalled.push(w.role(3));
    }
    assert_eq!(stalled.last(), Some(&Role::Looking), "{stalled:?}");
    w.release(3, 1);
    w.settle();
    w.elect(3, &[1, 3]);
    w.settle();
    assert!(w.serving(3) && w.serving(1));
}

#[test]
fn s21_a_slow_learner_holds_the_purge_back_but_not_for_ever() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.submit(3, "first");
    w.settle();
    w.crash(1);
    for i in 0..8 {
        w.submit(3, &format!("{i}"));
        w.settle();
    }
    let applied = w.nodes[&3].applied;
    w.restart(1);
    w.settle();
    w.batch = 1;
    let before = sent(&w, 3, 1).len();
    w.elect(3, &[1]);
    w.poll(1);
    while !sent(&w, 3, 1)[before..].iter().any(|t| t.starts_with("DIFF")) {
        let step = w.steps()[0];
        w.take(step);
    }
    w.hold(3, 1);
    w.nodes.get_mut(&3).unwrap().disk.stored.snapshots.push(applied);
    let saved = |hold_from| Input::SnapshotSaved {
        zxid: applied,
        purge_to: Some(applied),
        hold_from,
        snap_before: Zxid::ZERO,
    };
    for (hold_from, base) in [(Zxid::ZERO, z(1, 1)), (z(1, 5), z(1, 5)), (applied, applied)] {
        w.input(3, saved(hold_from));
        w.settle();
        assert_eq!(w.core(3).history().base(), base, "held from {hold_from}");
    }
}
