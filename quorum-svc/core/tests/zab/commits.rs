//! When learners hear of a commit: at once if they wait for it, else with the next proposal or after a
//! short delay.

use std::time::Duration;

use quorum_core::COMMIT_DELAY;

use crate::world::{World, z};
use invariants::Answer;

fn established(voters: u32, observers: u32) -> World {
    let mut w = World::new(voters, observers);
    w.delay_commits(COMMIT_DELAY);
    w.elect_all(3);
    w.trace.clear();
    w
}

/// The messages of the leader to one server that begin with `word`.
fn sent(w: &World, to: u32, word: &str) -> Vec<String> {
    let sent = w.trace.iter().filter(|(from, t, text)| (*from, *t) == (3, to) && text.starts_with(word));
    sent.map(|(_, _, text)| text.clone()).collect()
}

#[test]
fn a_commit_rides_on_the_next_proposal() {
    let mut w = established(3, 0);
    let ticket = w.submit(3, "a");
    w.settle();
    assert_eq!(w.answer(3, ticket), Some(Answer::Applied), "the leader needs no message");
    assert_eq!((w.nodes[&1].applied, w.nodes[&2].applied), (z(1, 0), z(1, 0)));
    w.submit(3, "b");
    w.settle();
    assert_eq!((w.nodes[&1].applied, w.nodes[&2].applied), (z(1, 1), z(1, 1)));
    assert_eq!(sent(&w, 1, "PROPOSE").last().unwrap(), "PROPOSE 0x100000002, COMMIT 0x100000001");
    assert!(sent(&w, 1, "COMMIT").is_empty() && sent(&w, 2, "COMMIT").is_empty());
}

#[test]
fn without_a_proposal_it_comes_by_itself_after_a_moment() {
    let mut w = established(3, 0);
    w.submit(3, "a");
    w.run(COMMIT_DELAY - Duration::from_micros(1));
    assert_eq!(w.nodes[&1].applied, z(1, 0));
    w.run(Duration::from_micros(1));
    assert_eq!((w.nodes[&1].applied, w.nodes[&2].applied), (z(1, 1), z(1, 1)));
    assert_eq!(sent(&w, 1, "COMMIT"), ["COMMIT 0x100000001"]);
    w.run(COMMIT_DELAY * 5);
    assert_eq!(sent(&w, 1, "COMMIT").len(), 1, "once");
}

#[test]
fn a_learner_whose_write_it_is_hears_of_it_at_once() {
    let mut w = established(3, 0);
    let ticket = w.submit(1, "a");
    w.settle();
    assert_eq!(w.answer(1, ticket), Some(Answer::Applied));
    assert_eq!(w.nodes[&2].applied, z(1, 0), "it does not wait for it");
    // Also if the learner's write is not the last one.
    w.lazy = true;
    let tickets = [w.submit(1, "b"), w.submit(2, "c"), w.submit(3, "d")];
    w.lazy = false;
    w.settle();
    for (id, ticket) in [1, 2, 3].into_iter().zip(tickets) {
        assert_eq!(w.answer(id, ticket), Some(Answer::Applied), "{id}");
    }
}

#[test]
fn a_barrier_says_what_is_committed() {
    let mut w = established(3, 0);
    w.submit(3, "a");
    w.settle();
    let ticket = w.barrier(2);
    w.settle();
    assert!(w.barrier_told(2, ticket));
    assert_eq!(w.nodes[&2].applied, z(1, 1));
}

#[test]
fn a_proposal_to_a_learner_that_is_behind_takes_no_commit_along() {
    let mut w = established(3, 0);
    w.nodes.get_mut(&1).unwrap().disk.held = true;
    w.submit(3, "a");
    w.settle();
    w.submit(3, "b");
    w.settle();
    assert_eq!(sent(&w, 1, "PROPOSE"), ["PROPOSE 0x100000001", "PROPOSE 0x100000002"]);
    assert_eq!(w.nodes[&2].applied, z(1, 1));
    w.run(COMMIT_DELAY);
    assert_eq!(sent(&w, 1, "COMMIT").last().unwrap(), "COMMIT 0x100000002");
}

#[test]
fn a_large_proposal_takes_no_commit_along_which_would_wait_for_its_bytes() {
    let mut w = World::new(3, 0);
    w.config.request_bytes_max = 1 << 20;
    w.delay_commits(COMMIT_DELAY);
    w.elect_all(3);
    w.trace.clear();
    w.submit(3, "a");
    w.settle();
    w.hold(1, 3);
    w.hold(2, 3);
    w.submit(3, &"b".repeat(100_000));
    w.settle();
    assert_eq!(sent(&w, 1, "PROPOSE").last().unwrap(), "PROPOSE 0x100000002");
    w.run(COMMIT_DELAY);
    assert_eq!(sent(&w, 1, "COMMIT"), ["COMMIT 0x100000001"]);
}

#[test]
fn an_observer_is_told_with_what_it_is_sent() {
    let mut w = established(3, 1);
    w.submit(3, "a");
    w.settle();
    assert_eq!(w.nodes[&4].applied, z(1, 1));
    let ticket = w.submit(4, "b");
    w.settle();
    assert_eq!(w.answer(4, ticket), Some(Answer::Applied));
    assert!(sent(&w, 4, "COMMIT").is_empty());
}

#[test]
fn what_was_committed_and_not_told_is_committed_under_the_next_leader() {
    let mut w = established(3, 0);
    let ticket = w.submit(3, "a");
    w.settle();
    assert_eq!(w.answer(3, ticket), Some(Answer::Applied));
    w.crash(3);
    w.run(w.config.sync_limit * 3);
    w.fair_election();
    w.settle();
    assert_eq!(w.committed(), ["a"]);
    assert!([1, 2].into_iter().all(|id| w.serving(id) && w.nodes[&id].applied >= z(1, 1)));
}
