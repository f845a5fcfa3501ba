//! Leaders that are present, joined, or gone.

use api::ports::Role;
use api::{Epoch, PeerId, Zxid};
use election_core::{Input, Notification, Round};

use crate::net::*;

#[test]
fn followers_of_a_dead_leader_are_not_joined() {
    let mut net = Net::of_voters(5);
    for id in 1..=5 {
        net.start(id, at(0, 0));
    }
    net.run_ms(0);
    net.stop(5);
    // Server 1 has noticed. Servers 2, 3 and 4, a quorum, still report that they follow 5.
    net.elect(1, at(1, 1));
    net.run_ms(60_000);
    assert_eq!(net.states()[0], (1, Role::Looking, Some(1)));
    // The others notice one by one, and elect.
    for id in 2..=4 {
        net.elect(id, at(1, 1));
        net.run_ms(300);
    }
    assert_eq!(net.leaders(), [(1, 3), (2, 3), (3, 3), (4, 3)]);
}

#[test]
fn what_was_said_of_a_leader_before_it_was_lost_does_not_count() {
    let mut net = Net::of_voters(3);
    for id in 1..=3 {
        net.start(id, at(0, 0));
    }
    net.run_ms(0);
    net.elect(1, at(1, 1));
    assert_eq!(net.states()[0], (1, Role::Looking, Some(1)));
    net.run_ms(0);
    assert_eq!(net.states()[0], (1, Role::Following, Some(3)), "but a repeated notification counts");
}

#[test]
fn a_candidate_counts_those_that_follow_it_already() {
    let mut net = Net::of_voters(3);
    net.start(1, at(0, 0));
    net.start(2, at(0, 0));
    net.discard_wires();
    let following = |vote| Notification {
        state: Role::Following,
        vote: Some(vote),
        round: Round(1),
        members: Zxid::ZERO,
    };
    net.say(1, 2, following(vote(2, 7, 7)));
    net.deliver(1, 2);
    net.tick(2, 1_000);
    assert_eq!(net.elected, [], "not those of an earlier incarnation of the candidate");
    net.say(1, 2, following(vote(2, 0, 0)));
    net.deliver(1, 2);
    net.tick(2, 200);
    assert_eq!(net.elected, [(2, 2)]);
}

#[test]
fn a_server_joins_a_reign_only_when_a_quorum_agrees_on_its_epoch_or_round() {
    let mut net = Net::of_voters(5);
    (1..=4).for_each(|id| net.start_idle(id));
    net.start(5, at(0, 0));
    let says = |state, epoch, round| {
        let (vote, round, members) = (Some(vote(4, epoch, 0)), Round(round), Zxid::ZERO);
        Notification { state, vote, round, members }
    };
    net.say(4, 5, says(Role::Leading, 2, 3));
    net.say(1, 5, says(Role::Following, 2, 9));
    net.say(2, 5, says(Role::Following, 1, 2));
    net.say(3, 5, says(Role::Following, 1, 1));
    net.run_ms(10_000);
    assert_eq!(net.elected, [], "2 and 3 follow earlier reigns of 4");
    net.say(2, 5, says(Role::Following, 2, 9));
    net.run_ms(0);
    assert_eq!(net.elected, [(5, 4)], "notified at once, not at its next notification");
    assert_eq!(net.round(5), 3, "it takes over the round of the reign");
}

#[test]
fn a_server_joins_a_leader_that_others_elected_and_have_not_settled_under() {
    let mut net = Net::of_voters(5);
    for id in 1..=4 {
        net.start(id, at(0, 0));
    }
    net.run_ms(200);
    assert_eq!(net.leaders(), [(1, 4), (2, 4), (3, 4), (4, 4)]);
    net.settled(4, 4, 1);
    net.settled(1, 4, 1);
    net.run_ms(0);
    net.start(5, at(0, 0));
    net.elect(5, at(0, 0)); // round 2, so it differs from the round of the reign
    net.run_ms(0);
    assert_eq!(net.states()[4], (5, Role::Following, Some(4)), "2 and 3 are still being synchronised");
}

#[test]
fn a_late_voter_of_the_same_round_joins_the_leader_of_that_round() {
    let mut net = Net::of_voters(5);
    for id in 1..=3 {
        net.start(id, at(0, 0));
    }
    net.run_ms(199);
    // Server 3 is about to decide when 4 and 5 start, and gets their votes only after its decision.
    net.start(4, at(0, 0));
    net.start(5, at(0, 0));
    net.deliver(5, 1);
    net.deliver(5, 2);
    net.tick(3, 1);
    assert_eq!(net.elected, [(3, 3)]);
    net.run_ms(1_000);
    assert_eq!(net.leaders(), [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3)], "no second leader in round 1");
}

#[test]
fn the_best_candidate_dies_while_all_look() {
    let mut net = Net::of_voters(5);
    for id in 1..=4 {
        net.start(id, at(0, 0));
    }
    net.run_ms(100);
    assert_eq!(net.states()[0], (1, Role::Looking, Some(4)));
    net.stop(4);
    net.run_ms(200);
    assert_eq!(net.leaders(), [(1, 3), (2, 3), (3, 3)]);
    assert!(net.elected.iter().all(|&(_, leader)| leader == 3), "the dead one was never elected");
}

#[test]
fn lost_messages_are_repeated_with_growing_pauses_of_at_most_two_seconds() {
    let mut net = Net::of_voters(3);
    net.start(2, at(0, 0));
    net.start(1, at(0, 0));
    net.discard_wires();
    let mut sent_at = vec![];
    for ms in 1..=10_000 {
        net.tick(1, 1);
        if !net.wire(1, 2).is_empty() {
            sent_at.push(ms);
        }
        net.discard_wires();
    }
    assert_eq!(
        sent_at,
        [200, 600, 1_400, 3_000, 5_000, 7_000, 9_000],
        "pauses of 200, 400, 800, 1,600, 2,000 ..."
    );
}

#[test]
fn without_a_link_nothing_is_heard() {
    let mut net = Net::of_voters(2);
    net.start(1, at(0, 0));
    net.input(1, Input::Received { from: PeerId(2), notification: looking(vote(2, 0, 0), 1) });
    net.input(1, Input::Connected(PeerId(1)));
    assert_eq!(net.states(), [(1, Role::Looking, Some(1))]);
    assert!(net.wires.is_empty());
}

#[test]
fn settling_under_another_leader_is_ignored() {
    let mut net = Net::of_voters(1);
    net.start(1, at(3, 3));
    let before = net.nodes[&1].notification();
    net.settled(1, 2, 9);
    assert_eq!(net.nodes[&1].notification(), before);
    net.settled(1, 1, 4);
    assert_eq!(net.nodes[&1].notification().unwrap().vote.unwrap().candidate.epoch, Epoch(4));
}
