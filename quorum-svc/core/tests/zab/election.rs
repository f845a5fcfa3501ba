//! Leaving and entering roles (S6, S7, S8, S10, S27), and agreement on an epoch.

use std::time::Duration;

use api::peer::{Damage, ToLeader, ToLearner};
use api::ports::{FeedItem, Role};
use api::{EnsembleId, Epoch, Levels, PeerId, Stamp, Zxid};
use quorum_core::{Conn, Input};

use crate::world::{INIT_LIMIT, PING, SYNC_LIMIT, World, z};

#[test]
fn a_server_looks_for_a_leader_at_once() {
    let w = World::new(3, 0);
    assert!(w.nodes.values().all(|n| n.candidate.is_some()));
}

#[test]
fn s6_a_leader_without_its_quorum_looks() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    assert_eq!((w.role(3), w.serving(3)), (Role::Leading, true));
    // Silence without the end of a connection: only the time-out reveals it.
    for follower in [1, 2] {
        w.hold(3, follower);
        w.hold(follower, 3);
    }
    w.run(SYNC_LIMIT * 2);
    assert!([1, 2, 3].iter().all(|&id| w.role(id) == Role::Looking));
    // All of them ask for a new leader without any other event.
    assert!(w.nodes.values().all(|n| n.candidate.is_some()));
}

#[test]
fn s6_barriers_of_the_leaders_own_store_do_not_keep_it_in_office() {
    let mut w = World::with_limit(3, 0, 1000);
    w.elect_all(3);
    for follower in [1, 2] {
        w.hold(3, follower);
        w.hold(follower, 3);
    }
    for _ in 0..30 {
        w.barrier(3);
        w.run(Duration::from_millis(50));
    }
    assert_eq!(w.role(3), Role::Looking);
}

#[test]
fn s6_a_follower_without_its_leader_looks_and_the_minority_gets_nowhere() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.block(1, 3);
    w.block(1, 2);
    w.settle();
    assert_eq!(w.role(1), Role::Looking);
    assert!(w.serving(3) && w.serving(2), "the majority goes on");
    // Even if an election names it the leader.
    w.elect(1, &[1]);
    w.run(INIT_LIMIT * 2);
    assert_eq!(w.role(1), Role::Looking);
    assert_eq!(w.status(1).epoch, Epoch(1));
}

#[test]
fn s7_observers_do_not_count() {
    let mut w = World::new(3, 2);
    w.crash(1);
    w.crash(2);
    w.elect(3, &[3, 4, 5]);
    w.settle();
    assert!(!w.serving(3), "one voter and two observers are no quorum");
    w.restart(1);
    w.elect(3, &[1]);
    w.settle();
    assert!(w.serving(3) && w.serving(1) && w.serving(4) && w.serving(5));
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    let ticket = w.submit(3, "a");
    w.settle();
    assert_eq!(w.answer(3, ticket), None, "observers' acks do not commit");
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    assert!(w.answer(3, ticket).is_some());
}

#[test]
fn a_voter_that_cannot_lead_cannot_depose_one_that_can() {
    let mut w = World::of(&[Some(1), Some(1), Some(1), Some(0)]);
    for id in 1..=3 {
        w.preload(id, Zxid::ZERO, &[(1, 2)]);
    }
    w.preload(4, Zxid::ZERO, &[(1, 9)]);
    w.block(1, 2);
    w.elect(3, &[4, 3]);
    w.settle();
    w.elect(3, &[1]);
    w.settle();
    assert!(w.serving(3) && w.serving(4));
    assert_eq!(w.log(4), w.log(3), "its tail is gone");
}

#[test]
fn s8_a_single_server_serves_alone() {
    let mut w = World::new(1, 0);
    w.elect_all(1);
    let ticket = w.submit(1, "a");
    let barrier = w.barrier(1);
    w.settle();
    assert!(w.serving(1) && w.answer(1, ticket).is_some() && w.barrier_told(1, barrier));
    w.run(INIT_LIMIT * 5);
    assert!(w.serving(1));
}

#[test]
fn s10_each_reign_raises_the_epoch_by_one_and_restarts_the_counter() {
    let mut w = World::new(3, 0);
    for (epoch, leader) in [(1, 3), (2, 1), (3, 2)] {
        w.elect_all(leader);
        assert_eq!(w.status(leader).epoch, Epoch(epoch));
        w.submit(leader, "a");
        w.settle();
        assert_eq!(w.ghost.last(), z(epoch, 1));
        w.break_links(1, 2);
        w.break_links(1, 3);
        w.break_links(2, 3);
        w.crash(leader);
        w.settle();
        w.restart(leader);
    }
}

#[test]
fn s10_learners_that_came_before_the_election_ended_raise_the_epoch_once() {
    let mut w = World::new(5, 0);
    // All followers learn of the leader first. They have sent their accepted epochs before the leader
    // learns of its election.
    w.elect(5, &[1, 2, 3, 4]);
    w.settle();
    w.elect_all(5);
    assert!((1..=5).all(|id| w.serving(id)));
    assert_eq!(w.status(5).epoch, Epoch(1));
}

#[test]
fn an_early_learner_with_a_greater_promise_is_heard() {
    let mut w = World::new(5, 0);
    w.promise(4, 7);
    w.elect(5, &[1, 2, 3, 4]);
    w.settle();
    w.elect_all(5);
    assert!((1..=5).all(|id| w.serving(id)));
    assert_eq!(w.status(5).epoch, Epoch(8));
}

#[test]
fn a_promise_that_got_lost_costs_one_election_not_the_init_limit() {
    let mut w = World::new(3, 0);
    w.crash(1);
    w.nodes.get_mut(&2).unwrap().disk.held = true;
    w.elect_all(3);
    // Server 2 makes its promise durable, and the connection breaks before the promise leaves.
    w.hold(2, 3);
    w.nodes.get_mut(&2).unwrap().disk.held = false;
    w.settle();
    w.break_links(2, 3);
    w.release(2, 3);
    w.elect_all(3);
    assert_eq!(w.role(3), Role::Looking);
    w.settle();
    w.elect_all(3);
    assert!(w.serving(3) && w.serving(2));
    assert_eq!(w.status(3).epoch, Epoch(2));
}

#[test]
fn two_leaders_that_propose_one_epoch_do_not_both_get_it() {
    let mut w = World::new(5, 0);
    // Server 5 proposes epoch 1 to 1 and 2; only 1 answers.
    w.nodes.get_mut(&2).unwrap().disk.held = true;
    w.crash(3);
    w.crash(4);
    w.elect_all(5);
    w.restart(3);
    w.restart(4);
    w.settle();
    w.break_links(2, 5);
    w.crash(2);
    w.restart(2);
    // Neither server 4 nor its quorum knows of that.
    w.elect(4, &[2, 3, 4]);
    w.settle();
    assert!(w.serving(4) && w.serving(2) && w.serving(3));
    assert_eq!((w.status(4).epoch, w.role(5)), (Epoch(1), Role::Leading));
    // A server that promised epoch 1 to server 4 does not promise it to server 5.
    w.break_links(2, 4);
    w.elect(5, &[2]);
    w.settle();
    assert!(!w.serving(5));
}

#[test]
fn a_promise_that_does_not_count_is_not_counted() {
    let mut w = World::new(3, 0);
    w.elect(3, &[3]);
    let conn = Conn(9999);
    w.input(3, Input::LearnerConnected { conn, peer: PeerId(1) });
    w.input(
        3,
        Input::FromLearner {
            conn,
            message: ToLeader::LearnerInfo { accepted_epoch: Epoch(0), levels: Levels::BUILD },
        },
    );
    w.settle();
    let (epoch, current_epoch, history) = (Epoch(1), Epoch(0), api::History::default());
    let message = ToLeader::AckEpoch {
        epoch,
        current_epoch,
        history,
        counts: false,
        damage: Damage::None,
        last_stamp: Stamp::default(),
        ensemble: None,
        committed: Zxid::ZERO,
        wall_ms: 1_000_000,
    };
    w.input(3, Input::FromLearner { conn, message });
    w.settle();
    assert_eq!(w.status(3).last, Zxid::ZERO, "it did not open the epoch");
}

#[test]
fn a_learner_whose_epochs_are_used_up_harms_only_itself() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    let conn = Conn(9999);
    w.input(3, Input::LearnerConnected { conn, peer: PeerId(1) });
    w.input(
        3,
        Input::FromLearner {
            conn,
            message: ToLeader::LearnerInfo { accepted_epoch: Epoch(u32::MAX), levels: Levels::BUILD },
        },
    );
    assert!(w.serving(3));
}

#[test]
fn no_server_learns_from_itself() {
    // Two servers have the same id by mistake: the acks of the second must not count twice.
    let mut w = World::new(3, 0);
    w.crash(2);
    w.elect_all(3);
    let conn = Conn(9999);
    w.input(3, Input::LearnerConnected { conn, peer: PeerId(3) });
    let messages = [
        ToLeader::LearnerInfo { accepted_epoch: Epoch(0), levels: Levels::BUILD },
        ToLeader::AckEpoch {
            epoch: Epoch(1),
            current_epoch: Epoch(0),
            history: api::History::default(),
            counts: true,
            damage: Damage::None,
            last_stamp: Stamp::default(),
            ensemble: None,
            committed: Zxid::ZERO,
            wall_ms: 1_000_000,
        },
    ];
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    let ticket = w.submit(3, "a");
    for message in messages {
        w.input(3, Input::FromLearner { conn, message });
    }
    w.input(3, Input::FromLearner { conn, message: ToLeader::Ack(w.status(3).last) });
    w.settle();
    assert_eq!(w.answer(3, ticket), None);
    assert!(w.serving(3));
}

#[test]
fn an_answer_to_an_older_attempt_to_connect_is_not_taken_for_the_new_leader() {
    let mut w = World::new(3, 0);
    w.hold(1, 3);
    w.elect(3, &[1]);
    w.settle();
    w.run(INIT_LIMIT);
    assert_eq!(w.role(1), Role::Looking);
    w.hold(1, 2);
    w.elect(2, &[1, 2, 3]);
    w.settle();
    // Server 3 answers at last, but server 1 already follows another leader.
    w.release(1, 3);
    w.settle();
    assert_eq!(w.status(1).leader, Some(PeerId(2)));
    w.release(1, 2);
    w.settle();
    assert!(w.serving(1) && w.serving(2) && w.serving(3));
}

#[test]
fn s27_a_log_that_ends_at_the_last_counter_goes_on_in_a_new_epoch() {
    let mut w = World::new(3, 0);
    // Reaching the limit takes four billion writes; the unit tests of `zab` cover the step itself.
    w.preload(1, z(5, 3), &[(5, 3)]);
    w.preload(2, z(5, 3), &[(5, 3)]);
    w.preload(3, z(5, 3), &[(5, 3)]);
    w.elect_all(3);
    w.submit(1, "a");
    w.settle();
    assert_eq!(w.log(2), [z(6, 0), z(6, 1)]);
}

#[test]
fn the_store_hears_of_every_change_of_role_once() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.run(Duration::from_secs(2));
    let roles: Vec<(Role, bool)> = w.nodes[&1]
        .told
        .iter()
        .filter_map(|item| match item {
            FeedItem::Status(s) => Some((s.role, s.serving)),
            _ => None,
        })
        .collect();
    let serving = (Role::Following, true);
    assert_eq!(roles.first(), Some(&(Role::Following, false)));
    assert_eq!(roles.last(), Some(&serving));
    assert_eq!(roles.iter().filter(|r| **r == serving).count(), 1);
}

fn times(w: &World) -> Vec<i64> {
    w.ghost.entries().iter().map(|e| e.time_ms).collect()
}

#[test]
fn the_logs_time_does_not_go_back_for_clocks_that_differ_a_little() {
    let mut w = World::new(3, 0);
    for id in [1, 3] {
        w.nodes.get_mut(&id).unwrap().wall_ms += 9_000;
    }
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    w.crash(3);
    w.settle();
    // One of these two clocks is nine seconds behind.
    w.elect_all(2);
    w.submit(2, "b");
    w.settle();
    assert!(times(&w).is_sorted() && w.ghost.entries().len() == 4, "{:?}", times(&w));
    // The order also holds after a restart.
    for id in [1, 2] {
        w.crash(id);
        w.restart(id);
    }
    w.elect_all(1);
    assert!(times(&w).is_sorted());
    assert_eq!(w.ghost.entries().len(), 5);
}

#[test]
fn b15_a_clock_that_is_wrong_alone_does_not_move_the_logs_time() {
    const CENTURY: i64 = 3_155_760_000_000;
    for wrong in [60_000, CENTURY, -CENTURY] {
        let mut w = World::new(3, 0);
        w.nodes.get_mut(&3).unwrap().wall_ms += wrong;
        w.elect_all(3);
        w.run(2 * PING);
        w.submit(3, "a");
        w.settle();
        assert_eq!(w.ghost.entries().len(), 2);
        // At the time of the marker the leader knows two clocks, and not which one is right.
        let [marker, entry] = times(&w)[..] else { panic!("{:?}", times(&w)) };
        assert!(marker <= entry && (1_000_000..1_010_000).contains(&entry), "{wrong}: {marker}, {entry}");
        let offset = w.core(3).clock_offset_ms().unwrap();
        assert!((offset - wrong).abs() < 10_000, "{offset}");
        assert!(w.core(1).clock_offset_ms().unwrap().abs() < 10_000);
    }
}

#[test]
fn b15_a_log_that_was_stamped_far_ahead_comes_back_to_the_clocks_of_a_quorum() {
    const CENTURY: i64 = 3_155_760_000_000;
    let shift = |w: &mut World, ids: &[u32], by: i64| {
        ids.iter().for_each(|id| w.nodes.get_mut(id).unwrap().wall_ms += by);
    };
    let last = |w: &World| *times(w).last().unwrap();
    // During the reign, and after a restart with the right time.
    for restart in [false, true] {
        let mut w = World::new(3, 0);
        shift(&mut w, &[1, 2, 3], CENTURY);
        w.elect_all(3);
        w.submit(3, "a");
        w.settle();
        assert!(last(&w) > CENTURY);
        shift(&mut w, &[1], -CENTURY);
        w.run(2 * PING);
        w.submit(3, "b");
        w.settle();
        assert!(last(&w) > CENTURY, "one alone has no say");
        shift(&mut w, &[2, 3], -CENTURY);
        if restart {
            for id in 1..=3 {
                w.crash(id);
                w.restart(id);
            }
            w.elect_all(2);
        }
        w.run(2 * PING);
        w.submit(2, "c");
        w.settle();
        assert!((1_000_000..1_060_000).contains(&last(&w)), "{restart}: {:?}", times(&w));
    }
}

#[test]
fn b15_times_of_older_entries_do_not_move_the_logs_time() {
    let hour = 3_600_000;
    let shift = |w: &mut World, by: i64| w.nodes.values_mut().for_each(|n| n.wall_ms += by);
    let mut w = World::new(3, 0);
    shift(&mut w, hour);
    w.elect_all(3);
    w.submit(3, "a");
    w.settle();
    // The entries of server 1 are from before the clocks were corrected.
    w.crash(1);
    shift(&mut w, -hour);
    w.run(2 * PING);
    w.submit(3, "b");
    w.settle();
    // The other clocks are slightly behind when server 1 returns and when it takes part in an election.
    for leader in [3, 2] {
        shift(&mut w, -500);
        if leader == 3 {
            w.restart(1);
            w.elect(3, &[1]);
        } else {
            w.crash(3);
            w.elect_all(2);
        }
        w.run(2 * PING);
        w.submit(2, "c");
        w.settle();
    }
    let times = times(&w);
    assert!(times[1] > times[2] + hour / 2 && times[2..].is_sorted(), "{times:?}");
}

#[test]
fn an_epoch_below_the_promised_one_is_refused() {
    let mut w = World::new(3, 0);
    w.promise(1, 5);
    w.hold(3, 1);
    w.elect(3, &[1]);
    w.settle();
    let conn = w.link(1, 3);
    w.input(
        1,
        Input::FromLeader {
            conn,
            message: ToLearner::LeaderInfo { epoch: Epoch(4), ensemble: EnsembleId(3), level: None },
        },
    );
    w.settle();
    assert_eq!(w.role(1), Role::Looking);
    assert_eq!(w.nodes[&1].disk.stored.accepted, Epoch(5));
}

#[test]
fn a_leader_that_has_stepped_down_rejects_late_learners() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.nodes.get_mut(&3).unwrap().disk.held = true;
    w.submit(3, "late");
    w.settle();
    for id in [1, 2] {
        w.break_links(3, id);
    }
    w.settle();
    w.run(SYNC_LIMIT * 2);
    assert_eq!(w.role(3), Role::Looking);
    assert!(
        w.nodes[&3].candidate.is_none(),
        "its disk comes to rest first, so its election does not know it yet"
    );
    w.elect(3, &[1, 2]);
    w.settle();
    for id in [1, 2] {
        assert_eq!(w.role(id), Role::Looking, "server {id} looks again, at once");
    }
    w.nodes.get_mut(&3).unwrap().disk.held = false;
    w.settle();
    w.fair_election();
    w.settle();
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}
