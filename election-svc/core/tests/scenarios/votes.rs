//! The winning vote, and the time of the decision (S1 to S4).

use api::ports::Role;
use election_core::Input;

use crate::net::*;

#[test]
fn s1_start_one_after_another() {
    let mut net = Net::of_voters(3);
    net.start(1, at(0, 0));
    net.run_ms(10_000);
    assert_eq!(net.states(), [(1, Role::Looking, Some(1))]);

    net.start(2, at(0, 0));
    net.run_ms(1_000);
    assert_eq!(net.states(), [(1, Role::Following, Some(2)), (2, Role::Leading, Some(2))]);

    net.start(3, at(0, 0));
    net.run_ms(0);
    assert_eq!(
        net.states(),
        [(1, Role::Following, Some(2)), (2, Role::Leading, Some(2)), (3, Role::Following, Some(2))],
        "there is a leader, so 3 joins it, though its id is larger"
    );
    assert_eq!(net.elected, [(2, 2), (1, 2), (3, 2)]);
}

#[test]
fn an_election_that_begins_under_a_leader_takes_the_word_of_its_quorum() {
    let mut net = Net::of_voters(3);
    net.start(2, at(0, 0));
    net.start(1, at(0, 0));
    net.run_ms(1_000);
    net.settled(2, 2, 1);
    net.settled(1, 2, 1);

    // The election of the leader restarts alone; its quorum continues to lead.
    net.stop(2);
    net.start_idle(2);
    net.settled(2, 2, 1);
    // The follower's election continues, but its quorum was away for a short time.
    net.input(1, Input::Elect(None));
    net.settled(1, 2, 1);
    net.run_ms(0);
    assert_eq!(net.states(), [(1, Role::Following, Some(2)), (2, Role::Leading, Some(2))]);

    net.elected.clear();
    net.start(3, at(0, 0));
    net.run_ms(0);
    assert_eq!(net.elected, [(3, 2)], "the two agree in leader and epoch, so 3 joins them at once");
    net.elect(3, at(1, 1));
    net.settled(3, 1, 1);
    assert_eq!(
        net.states()[2],
        (3, Role::Looking, Some(3)),
        "a standing server accepts only the elected leader"
    );
}

#[test]
fn a_server_without_its_quorum_service_does_not_count() {
    let mut net = Net::of_voters(3);
    net.start(1, at(0, 9));
    net.start(2, at(0, 0));
    net.run_ms(1_000);
    net.elected.clear();
    // Server 2 has followed server 1. Then 1 starts an election, and finds no server that could follow
    // it.
    net.input(2, Input::Withdraw);
    net.elect(1, at(0, 9));
    net.run_ms(10_000);
    assert_eq!(net.elected, []);
    assert_eq!(net.nodes[&2].notification(), None);

    // A server withdraws while its vote is counted.
    net.elect(2, at(0, 0));
    net.run_ms(0);
    net.input(2, Input::Withdraw);
    net.run_ms(10_000);
    assert_eq!(net.elected, []);
    net.elect(2, at(0, 0));
    net.run_ms(1_000);
    assert_eq!(net.elected, [(1, 1), (2, 1)], "it is back");
}

#[test]
fn s2_start_together_message_by_message() {
    let mut net = Net::of_voters(3);
    for id in 1..=3 {
        net.start(id, at(0, 0));
    }
    net.discard_wires();
    for id in 1..=3 {
        net.elect(id, at(0, 0));
    }

    assert_eq!(net.deliver(2, 1).vote, Some(vote(2, 0, 0)));
    assert_eq!(
        net.wire(1, 2).last(),
        Some(&looking(vote(2, 0, 0), 2)),
        "1 changes its vote and sends it again"
    );
    assert_eq!(net.wire(1, 3).last(), Some(&looking(vote(2, 0, 0), 2)));

    let before = net.wire(2, 1);
    assert_eq!(net.deliver(1, 2).vote, Some(vote(1, 0, 0)));
    assert_eq!(net.wire(2, 1), before, "2 keeps its own");
    assert_eq!(net.deliver(1, 2).vote, Some(vote(2, 0, 0)));
    assert_eq!(net.elected, [], "more than half hold (2,0), but a better vote may come yet");

    assert_eq!(net.deliver(3, 2).vote, Some(vote(3, 0, 0)));
    assert_eq!(net.wire(2, 1).last(), Some(&looking(vote(3, 0, 0), 2)));
    net.run_ms(0);
    assert_eq!(net.leaders(), [(1, 3), (2, 3), (3, 3)], "all hold the same vote: nothing to wait for");
}

#[test]
fn s2_a_quorum_decides_after_the_waiting_time_and_no_earlier() {
    let mut net = Net::of_voters(3);
    net.start(1, at(0, 0));
    net.start(2, at(0, 0));
    net.run_ms(199);
    assert_eq!(net.elected, []);
    net.run_ms(1);
    assert_eq!(net.leaders(), [(1, 2), (2, 2)]);
}

#[test]
fn s2_a_better_vote_within_the_waiting_time_starts_it_again() {
    let mut net = Net::of_voters(5);
    for id in 1..=3 {
        net.start(id, at(0, 0));
    }
    net.run_ms(150);
    net.start(4, at(0, 0));
    net.run_ms(199);
    assert_eq!(net.elected, [], "the first waiting time is over, the second is not");
    net.run_ms(1);
    assert_eq!(net.leaders(), [(1, 4), (2, 4), (3, 4), (4, 4)]);
}

#[test]
fn s3_leader_crash() {
    let mut net = Net::of_voters(3);
    net.start(2, at(1, 120));
    net.start(1, at(1, 110));
    net.run_ms(200);
    net.start(3, at(1, 110));
    net.run_ms(0);
    assert_eq!(net.leaders(), [(1, 2), (2, 2), (3, 2)]);
    for id in 1..=3 {
        net.settled(id, 2, 2);
    }
    net.run_ms(0);

    net.stop(2);
    net.discard_wires();
    net.elect(1, at(2, 123));
    net.elect(3, at(2, 122));
    assert_eq!(net.wire(1, 3), [looking(vote(1, 2, 123), 2)]);
    assert_eq!(net.wire(3, 1), [looking(vote(3, 2, 122), 2)]);
    net.deliver(1, 3);
    assert_eq!(net.wire(3, 1).last(), Some(&looking(vote(1, 2, 123), 2)), "3 changes to the longer log");
    net.run_ms(200);
    assert_eq!(net.states(), [(1, Role::Leading, Some(1)), (3, Role::Following, Some(1))]);
}

#[test]
fn s4_epoch_before_zxid_before_id() {
    for (a, b, winner) in [
        (at(2, 10), at(1, 99), 1), // epoch
        (at(1, 11), at(1, 10), 1), // zxid
        (at(1, 10), at(1, 10), 2), // id
    ] {
        let mut net = Net::of_voters(2);
        net.start(1, a);
        net.start(2, b);
        net.run_ms(0);
        assert_eq!(net.leaders(), [(1, winner), (2, winner)], "{a:?} against {b:?}");
    }
}

#[test]
fn s4_a_vote_of_an_older_round_is_ignored_and_answered() {
    let mut net = Net::of_voters(3);
    net.start(1, at(0, 0));
    for _ in 0..4 {
        net.elect(1, at(0, 0));
    }
    assert_eq!(net.round(1), 5);
    net.start(2, at(9, 9));
    net.discard_wires();
    net.say(2, 1, looking(vote(2, 9, 9), 1));
    net.deliver(2, 1);
    assert_eq!(net.states()[0], (1, Role::Looking, Some(1)), "best of all, but of an older round");
    assert_eq!(net.wire(1, 2), [looking(vote(1, 0, 0), 5)]);
    // After the answer server 2 adopts the round, and its vote counts in it.
    net.run_ms(200);
    assert_eq!((net.round(1), net.round(2)), (5, 5));
    assert_eq!(net.leaders(), [(1, 2), (2, 2)]);
}

#[test]
fn s4_a_vote_of_a_newer_round_resets_the_count() {
    let mut net = Net::of_voters(5);
    for id in 1..=3 {
        net.start(id, at(0, 0));
    }
    net.discard_wires();
    let mut hear = |from, notification| {
        net.say(from, 1, notification);
        net.deliver(from, 1);
        net.states()[0]
    };
    assert_eq!(hear(3, looking(vote(3, 0, 0), 1)), (1, Role::Looking, Some(3)));
    assert_eq!(hear(2, looking(vote(3, 0, 0), 1)), (1, Role::Looking, Some(3)), "a quorum in round 1");
    assert_eq!(
        hear(2, looking(vote(2, 0, 0), 7)),
        (1, Role::Looking, Some(2)),
        "the 3 of round 1 is forgotten"
    );
    assert_eq!(hear(3, looking(vote(2, 0, 0), 6)), (1, Role::Looking, Some(2)));
    assert_eq!(net.round(1), 7);
    net.tick(1, 60_000);
    assert_eq!(net.elected, [], "1 and 2 are no quorum, and notifications of rounds 1 and 6 do not count");
    net.say(3, 1, looking(vote(2, 0, 0), 7));
    net.deliver(3, 1);
    net.tick(1, 399);
    assert_eq!(net.elected, [], "2 should say itself that it leads ...");
    net.tick(1, 1);
    assert_eq!(net.elected, [(1, 2)], "... but is tried at last if it does not");
}

#[test]
fn s4_only_voters_count_and_only_those_that_can_lead_are_voted_for() {
    let mut net = Net::new([voter(1, 1), voter(2, 1), voter(3, 0), observer(4), observer(5)]);
    for id in [1, 3, 4, 5] {
        net.start(id, at(0, 0));
    }
    net.discard_wires();
    for (from, notification) in [
        (3, looking(vote(3, 9, 9), 1)), // a server of weight 0 cannot lead
        (3, looking(vote(4, 9, 9), 1)), // an observer cannot lead
        (4, looking(vote(1, 0, 0), 1)), // an observer has no vote
        (5, looking(vote(1, 0, 0), 1)),
        (3, looking(vote(77, 9, 9), 1)), // a stranger
        (3, looking(vote(1, 0, 0), 1)),  // a vote, but of weight 0
    ] {
        net.say(from, 1, notification);
        net.deliver(from, 1);
        assert_eq!(net.states()[0], (1, Role::Looking, Some(1)));
    }
    net.run_ms(10_000);
    assert_eq!(net.elected, [], "1 has half of the weight, not more");
}
