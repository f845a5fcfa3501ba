//! Requests of stores: S22, S24, S25; bounds; one answer for each request.

use std::time::Duration;

use api::peer::{ToLeader, ToLearner};
use api::ports::{Refusal, Request, Role, Room, Sign};
use api::{PeerId, Ticket, Zxid};
use bytes::Bytes;
use quorum_core::Input;

use crate::world::{PARK_LIMIT, PING, SYNC_LIMIT, Step, World, z};
use invariants::Answer;

const DONE: Option<Answer> = Some(Answer::Applied);

fn established(voters: u32, observers: u32) -> World {
    let mut w = World::new(voters, observers);
    w.elect_all(voters);
    w
}

#[test]
fn s22_a_write_at_any_server_is_answered_there_once() {
    let mut w = established(3, 1);
    let tickets: Vec<(u32, Ticket)> = (1..=4).map(|id| (id, w.submit(id, &format!("from {id}")))).collect();
    w.settle();
    for (id, ticket) in tickets {
        assert_eq!(w.answer(id, ticket), DONE);
    }
    let mut committed = w.committed();
    committed.sort();
    assert_eq!(committed, ["from 1", "from 2", "from 3", "from 4"]);
}

#[test]
fn s24_after_a_barrier_everything_that_was_committed_is_there() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.submit(3, "a");
    w.settle();
    let barrier = w.barrier(1);
    w.settle();
    assert_eq!(w.ghost.last(), z(1, 1));
    assert!(!w.barrier_told(1, barrier), "the store does not have it yet");
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    assert!(w.barrier_told(1, barrier));
}

#[test]
fn s24_a_deposed_leader_that_does_not_know_answers_no_barrier() {
    let mut deposed = established(3, 0);
    // The leader is cut off in both directions; the others continue without it.
    for id in [1, 2] {
        deposed.hold(3, id);
        deposed.hold(id, 3);
    }
    // The followers' clocks are ahead, so they leave first.
    let ahead = deposed.now + SYNC_LIMIT + PING;
    let before = std::mem::replace(&mut deposed.now, ahead);
    deposed.input(1, Input::Timeout);
    deposed.input(2, Input::Timeout);
    deposed.elect(2, &[1, 2]);
    deposed.settle();
    assert!(deposed.serving(2) && deposed.serving(1));
    deposed.submit(2, "new");
    deposed.settle();
    deposed.now = before;
    assert!(deposed.serving(3), "it has not noticed");
    let barrier = deposed.barrier(3);
    deposed.settle();
    assert!(!deposed.barrier_told(3, barrier));
    // Messages in flight do not help: they left before the barrier's request, or after the others had
    // left.
    deposed.release(1, 3);
    deposed.release(2, 3);
    deposed.settle();
    assert!(!deposed.barrier_told(3, barrier));
    deposed.release(3, 1);
    deposed.release(3, 2);
    deposed.settle();
    deposed.now = ahead;
    deposed.run(SYNC_LIMIT * 2);
    deposed.fair_election();
    deposed.settle();
    assert!(deposed.barrier_told(3, barrier), "its next leader does");
    assert_eq!(deposed.nodes[&3].applied, deposed.ghost.last());
}

#[test]
fn s24_pongs_to_earlier_pings_do_not_answer_a_barrier() {
    let mut w = established(3, 0);
    w.hold(1, 3);
    w.hold(2, 3);
    w.run(PING * 2);
    // Both followers have answered pings, and the answers are in flight.
    let barrier = w.barrier(3);
    w.hold(3, 1);
    w.hold(3, 2);
    w.release(1, 3);
    w.release(2, 3);
    w.settle();
    assert!(!w.barrier_told(3, barrier));
    w.release(3, 1);
    w.settle();
    assert!(w.barrier_told(3, barrier));
}

#[test]
fn s25_parked_writes_run_in_their_order_once() {
    let mut w = World::new(3, 1);
    let mut expected = Vec::new();
    for id in 1..=4 {
        for i in 0..3 {
            w.submit(id, &format!("{id}.{i}"));
            expected.push(format!("{id}.{i}"));
        }
    }
    w.settle();
    assert!(w.ghost.entries().is_empty());
    w.run(PARK_LIMIT / 2);
    w.elect_all(3);
    let mut committed = w.committed();
    committed.sort();
    assert_eq!(committed, expected, "each once, and in order within each origin (checked by the ledger)");
    assert!(w.ghost.unanswered().is_empty());
}

#[test]
fn s25_a_forwarding_follower_changes_its_leader() {
    // `reach`: the write is nowhere on the old leader, only in its own log, or in the logs of a quorum.
    for reach in 0..3 {
        let mut w = established(5, 0);
        let first = w.submit(1, "a");
        w.settle();
        match reach {
            0 => w.hold(1, 5),
            1 => [1, 2, 3, 4].iter().for_each(|&id| w.hold(5, id)),
            _ => {
                w.hold(5, 1);
                [1, 2, 3, 4].iter().for_each(|&id| w.hold(id, 5));
                w.release(1, 5);
            }
        }
        let tickets = w.submit_all(1, &["b", "c"]);
        w.settle();
        w.crash(5);
        w.held.clear();
        [1, 2, 3, 4].iter().for_each(|&id| w.break_links(id, 5));
        w.settle();
        w.fair_election();
        w.settle();
        assert_eq!(w.committed(), ["a", "b", "c"], "reach {reach}");
        for ticket in [&[first], &tickets[..]].concat() {
            assert_eq!(w.answer(1, ticket), DONE);
        }
        w.restart(5);
        w.fair_election();
        w.settle();
        assert_eq!(w.log(5), w.log(1));
    }
}

#[test]
fn s25_a_follower_reconnects_to_the_same_leader_in_the_same_epoch() {
    for (origin, arrived) in [(1, false), (1, true), (4, false), (4, true)] {
        let mut w = established(3, 1);
        let epoch = w.status(3).epoch;
        // Nothing commits in the meantime.
        for id in [1, 2] {
            w.nodes.get_mut(&id).unwrap().disk.held = true;
        }
        if !arrived {
            w.hold(origin, 3);
        }
        w.submit_all(origin, &["a", "b"]);
        w.settle();
        assert_eq!(w.status(3).last.counter(), if arrived { 2 } else { 0 });
        let old = w.link(origin, 3);
        if arrived {
            w.break_link(old);
        } else {
            // Only the follower notices; its messages are still in flight to the leader.
            w.input(origin, Input::Disconnected { conn: old });
            w.release(origin, 3);
            w.nodes.get_mut(&origin).unwrap().disk.held = false;
            w.elect(3, &[origin]);
            // First all messages of the new connection, then the late ones of the old connection.
            while let Some(&step) = w.steps().iter().find(|s| **s != Step::Up(old)) {
                w.take(step);
            }
            assert!(w.serving(origin));
        }
        w.settle();
        w.elect_all(3);
        w.submit(origin, "c");
        for id in [1, 2] {
            w.nodes.get_mut(&id).unwrap().disk.held = false;
        }
        w.settle();
        // A busy disk has delayed its election.
        w.elect_all(3);
        assert_eq!(w.status(origin).epoch, epoch);
        assert_eq!(w.committed(), ["a", "b", "c"], "origin {origin}, arrived {arrived}");
        assert!(w.ghost.unanswered().is_empty());
    }
}

#[test]
fn s25_a_follower_with_writes_under_way_becomes_the_leader() {
    for arrived in [false, true] {
        let mut w = established(3, 0);
        if !arrived {
            w.hold(2, 3);
        }
        let tickets = w.submit_all(2, &["a", "b"]);
        w.settle();
        w.crash(3);
        w.held.clear();
        w.settle();
        let late = w.submit(2, "c");
        w.elect_all(2);
        assert_eq!(w.committed(), ["a", "b", "c"]);
        for ticket in [&tickets[..], &[late]].concat() {
            assert_eq!(w.answer(2, ticket), DONE);
        }
    }
}

#[test]
fn s25_a_leader_with_writes_of_its_own_becomes_a_follower() {
    let mut w = established(3, 0);
    w.hold(3, 1);
    w.hold(3, 2);
    let tickets = w.submit_all(3, &["a", "b"]);
    w.settle();
    w.run(SYNC_LIMIT * 3);
    // The others elect without it. Its logged writes are cut off, and sent again.
    w.elect(2, &[1, 2]);
    w.settle();
    assert!(w.serving(2));
    w.held.clear();
    w.settle();
    w.elect_all(2);
    assert_eq!(w.log(3).first(), Some(&z(1, 0)));
    assert!(!w.log(3).contains(&z(1, 1)), "cut");
    assert_eq!(w.committed(), ["a", "b"]);
    for ticket in tickets {
        assert_eq!(w.answer(3, ticket), DONE);
    }
}

#[test]
fn s25_what_waits_longer_than_the_limit_is_refused_and_never_runs() {
    let mut w = World::new(3, 0);
    let early = w.submit(1, "early");
    let barrier = w.barrier(1);
    w.run(PARK_LIMIT - Duration::from_millis(1));
    let late = w.submit(1, "late");
    assert_eq!((w.refused(1, early), w.refused(1, barrier)), (None, None));
    w.run(Duration::from_millis(1));
    assert_eq!(w.refused(1, early), Some(Refusal::NoLeader));
    assert_eq!(w.refused(1, barrier), Some(Refusal::NoLeader));
    w.elect_all(3);
    assert_eq!(w.committed(), ["late"]);
    assert_eq!(w.answer(1, late), DONE);
}

#[test]
fn s25_what_a_leader_may_have_seen_is_not_refused() {
    let mut w = established(3, 0);
    w.hold(1, 3);
    let ticket = w.submit(1, "a");
    w.settle();
    w.break_links(1, 3);
    w.run(PARK_LIMIT * 2);
    assert_eq!(w.answer(1, ticket), None);
    w.held.clear();
    w.settle();
    w.elect_all(3);
    assert_eq!(w.answer(1, ticket), DONE);
}

#[test]
fn beyond_the_bound_requests_are_refused() {
    let mut w = World::new(3, 0);
    let max = w.config.requests_max;
    let tickets: Vec<Ticket> = (0..=max).map(|_| w.submit(1, "a")).collect();
    assert_eq!(w.refused(1, tickets[max]), Some(Refusal::Full));
    assert_eq!(w.refused(1, tickets[max - 1]), None);
    let large = "x".repeat(w.config.request_bytes_max + 1);
    let ticket = w.submit(2, &large);
    assert_eq!(w.refused(2, ticket), Some(Refusal::TooLarge));
    let barriers: Vec<Ticket> = (0..=max).map(|_| w.barrier(2)).collect();
    assert_eq!(w.refused(2, barriers[max]), Some(Refusal::Full));
    assert_eq!(w.refused(2, barriers[max - 1]), None);
}

/// A resumed session sends a small entry before its first write. On each server that the client tried,
/// that entry blocked the write.
#[test]
fn a_write_that_fits_alone_is_taken_while_a_small_one_waits() {
    let mut w = World::new(3, 0);
    w.settle();
    w.fair_election();
    w.settle();
    let large = "x".repeat(w.config.request_bytes_max);
    let follower = w.ids().into_iter().find(|&id| w.role(id) == Role::Following).unwrap();
    let tickets = w.submit_all(follower, &["small", &large, "late"]);
    assert_eq!(w.refused(follower, tickets[2]), Some(Refusal::Full));
    w.settle();
    assert_eq!([0, 1].map(|i| w.answer(follower, tickets[i])), [DONE, DONE]);
}

#[test]
fn barriers_that_wait_for_the_disk_count_towards_the_bound() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.submit(3, "a");
    w.settle();
    for _ in 0..w.config.requests_max * 3 {
        w.barrier(1);
        w.settle();
    }
    assert_eq!(w.ghost.open_barriers(), w.config.requests_max);
}

#[test]
fn the_leader_bounds_what_learners_have_under_way() {
    let mut w = established(4, 0);
    for id in [1, 2, 3] {
        w.nodes.get_mut(&id).unwrap().disk.held = true;
    }
    let max = w.config.requests_max;
    let tickets: Vec<(u32, Ticket)> = [1, 2, 3]
        .iter()
        .flat_map(|&id| (0..max).map(move |_| id))
        .map(|id| (id, w.submit(id, "a")))
        .collect();
    w.settle();
    let refused = tickets.iter().filter(|(id, t)| w.refused(*id, *t).is_some()).count();
    assert_eq!(refused, max, "two shares of three");
    for id in [1, 2, 3] {
        w.nodes.get_mut(&id).unwrap().disk.held = false;
    }
    w.settle();
    assert_eq!(w.committed().len(), max * 2);
    assert!(w.ghost.unanswered().is_empty());
}

#[test]
fn a_refusal_that_is_lost_does_not_let_a_write_be_overtaken() {
    let mut w = established(4, 0);
    let max = w.config.requests_max;
    for id in [1, 2, 3] {
        w.nodes.get_mut(&id).unwrap().disk.held = true;
    }
    // The leader is full when the first write of server 1 arrives, and has room for the second.
    for id in [2, 3] {
        for _ in 0..max {
            w.submit(id, "load");
        }
    }
    w.settle();
    w.hold(4, 1);
    let first = w.submit(1, "first");
    w.settle();
    for id in [2, 3] {
        w.nodes.get_mut(&id).unwrap().disk.held = false;
    }
    w.settle();
    let second = w.submit(1, "second");
    w.settle();
    assert_eq!(w.committed().last().unwrap(), "second");
    // The refusal is lost.
    w.break_links(1, 4);
    w.held.clear();
    w.nodes.get_mut(&1).unwrap().disk.held = false;
    w.settle();
    w.elect_all(4);
    assert_eq!(w.committed().last().unwrap(), "second");
    assert_eq!((w.refused(1, first), w.answer(1, second)), (Some(Refusal::Full), DONE));
}

#[test]
fn a_snapshot_in_place_of_entries_leaves_the_fate_of_writes_unknown() {
    let mut w = established(3, 0);
    w.hold(3, 1);
    let ticket = w.submit(1, "a");
    w.settle();
    assert_eq!(w.committed(), ["a"]);
    for i in 0..6 {
        w.submit(3, &format!("{i}"));
        w.settle();
        w.save_snapshot(3);
        w.settle();
    }
    w.break_links(1, 3);
    w.held.clear();
    w.settle();
    w.elect_all(3);
    assert!(w.trace.iter().any(|(_, to, text)| *to == 1 && text.starts_with("SNAP")));
    assert_eq!(w.answer(1, ticket), Some(Answer::Lost));
    assert_eq!(w.nodes[&1].applied, w.ghost.last());
}

fn reports(w: &World, id: u32) -> Vec<u32> {
    let told = w.nodes[&id].signs.iter();
    told.filter_map(|sign| if let Sign::Report { from, .. } = sign { Some(from.0) } else { None }).collect()
}

fn confirmed(w: &World, id: u32) -> usize {
    w.nodes[&id].signs.iter().filter(|sign| matches!(sign, Sign::Confirmed(_))).count()
}

#[test]
fn reports_reach_the_store_of_the_leader_only() {
    let mut w = established(3, 1);
    let report = Bytes::from_static(b"alive");
    for id in 1..=4 {
        w.input(id, Input::Requests(vec![Request::Report(report.clone())]));
    }
    w.settle();
    assert_eq!(reports(&w, 3), [3, 1, 2, 4]);
    assert!(reports(&w, 1).is_empty());
    // Without a leader the reports are dropped.
    let mut w = World::new(3, 0);
    w.elect(3, &[3]);
    w.input(3, Input::Requests(vec![Request::Report(report)]));
    w.settle();
    assert!(reports(&w, 3).is_empty());
}

/// A confirmation from a reign that may be over would be a promise unknown to the next leader.
#[test]
fn b13_reports_are_confirmed_by_a_leader_that_has_its_quorum() {
    let mut w = established(3, 1);
    let confirm = |to: u32, epoch| {
        let report = Bytes::from_static(b"counted");
        Input::Requests(vec![Request::Confirm { to: PeerId(to), epoch, report }])
    };
    let epoch = w.core(3).status().epoch;
    for to in 1..=4 {
        w.input(3, confirm(to, epoch));
        w.input(3, confirm(to, epoch.next().unwrap()));
        w.input(1, confirm(to, epoch));
    }
    w.settle();
    for id in 1..=4 {
        assert_eq!(
            confirmed(&w, id),
            1,
            "once at {id}: not of another reign, nor by a server that does not lead"
        );
    }
    // The leader is cut off from its quorum but not from the observer, and does not know it yet.
    w.hold(1, 3);
    w.hold(2, 3);
    w.input(3, confirm(4, epoch));
    w.input(3, confirm(3, epoch));
    w.settle();
    assert_eq!((confirmed(&w, 3), confirmed(&w, 4)), (1, 1), "no quorum has confirmed that it still leads");
}

#[test]
fn a_learner_that_floods_the_leader_with_barriers_is_dropped() {
    let mut w = established(3, 0);
    let conn = w.link(1, 3);
    w.hold(2, 3);
    w.hold(1, 3);
    for i in 0..100 {
        let message = ToLeader::Barrier { ticket: Ticket(i) };
        w.input(3, Input::FromLearner { conn, message });
    }
    w.held.clear();
    w.settle();
    assert_eq!((w.role(1), w.serving(3)), (Role::Looking, true));
}

#[test]
fn a_pong_to_a_ping_that_was_never_sent_proves_nothing() {
    let mut w = established(3, 0);
    let conn = w.link(1, 3);
    w.input(3, Input::FromLearner { conn, message: ToLeader::Pong { round: u64::MAX, wall_ms: 0 } });
    w.hold(3, 1);
    w.hold(3, 2);
    let barrier = w.barrier(3);
    w.settle();
    assert!(!w.barrier_told(3, barrier));
}

#[test]
fn stragglers_of_an_ended_connection_are_ignored() {
    let mut w = established(3, 0);
    let conn = w.link(1, 3);
    w.break_links(1, 3);
    let before = (w.core(1).clone(), w.core(3).clone());
    w.input(1, Input::FromLeader { conn, message: ToLearner::Commit(z(9, 9)) });
    w.input(1, Input::Disconnected { conn });
    w.input(3, Input::FromLearner { conn, message: ToLeader::Ack(Zxid(u64::MAX)) });
    w.input(3, Input::Disconnected { conn });
    assert_eq!(before, (w.core(1).clone(), w.core(3).clone()));
}

#[test]
fn b18_no_write_is_taken_that_leaves_no_quorum_with_room_on_its_disks() {
    use Room::{Ample, Low, Short};
    let mut w = established(3, 1);
    let mut say = |disks: &[(u32, Room)], expected: Room| {
        for &(id, room) in disks {
            w.input(id, Input::Disk(room));
        }
        w.settle();
        for id in 1..=4 {
            assert_eq!(w.status(id).room, expected, "on {id} behind {disks:?}");
        }
        for &(id, room) in disks {
            assert_eq!(w.status(id).disk, room);
        }
    };
    say(&[], Ample);
    // One of three voters does not count, nor does an observer.
    say(&[(1, Short), (4, Short)], Ample);
    say(&[(2, Low)], Low);
    say(&[(2, Short)], Short);
    say(&[(1, Low)], Low);
    say(&[(1, Ample), (2, Ample)], Ample);
    // The leader's own room counts alone.
    say(&[(3, Low)], Low);
    say(&[(3, Short)], Short);
    say(&[(3, Ample)], Ample);
    // The same after an election, and over a new connection.
    say(&[(1, Low), (2, Low)], Low);
    w.break_links(1, 3);
    w.settle();
    w.elect(3, &[1]);
    w.settle();
    assert_eq!([1, 2, 3].map(|id| w.status(id).room), [Low; 3]);
    w.crash(3);
    w.settle();
    w.elect_all(2);
    assert_eq!([1, 2].map(|id| w.status(id).room), [Low; 2]);
    // An absent server does not count.
    w.input(1, Input::Disk(Ample));
    w.input(2, Input::Disk(Ample));
    w.settle();
    assert_eq!([1, 2].map(|id| w.status(id).room), [Ample; 2]);
}
