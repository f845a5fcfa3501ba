//! The worked examples of elections by their numbers, with scripted message order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::ports::{Candidate, Role};
use api::{Ensemble, Epoch, Member, Membership, PeerId, Time, Zxid};
use election_core::{Config, Election, Input, Notification, Output, Round, Vote, dials};

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
    // The follower's election continues, but its quorum was away for a moment.
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
    // Server 2 has followed server 1. Then 1 looks again, and finds no server that could follow it.
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
        (3, looking(vote(4, 9, 9), 1)), // nor does an observer
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

#[test]
fn s5_a_returning_old_leader_takes_part_like_any_other() {
    let mut net = Net::of_voters(3);
    for id in 1..=3 {
        net.start(id, at(0, 0));
    }
    net.run_ms(0);
    assert_eq!(net.leaders(), [(1, 3), (2, 3), (3, 3)]);

    net.stop(3);
    net.elect(1, at(1, 5));
    net.elect(2, at(1, 5));
    net.run_ms(200);
    assert_eq!(net.leaders(), [(1, 2), (2, 2)]);
    net.start(3, at(1, 5));
    net.run_ms(0);
    assert_eq!(net.leaders(), [(1, 2), (2, 2), (3, 2)], "a leader exists");

    net.stop(2);
    net.elect(1, at(2, 7));
    net.elect(3, at(2, 7));
    net.run_ms(200);
    assert_eq!(net.leaders(), [(1, 3), (3, 3)], "it qualifies again");
}

#[test]
fn s6_the_minority_elects_no_leader() {
    let mut net = Net::of_voters(5);
    net.start(4, at(0, 0));
    net.start(5, at(0, 0));
    net.run_ms(60_000);
    assert_eq!(net.elected, []);
}

#[test]
fn s7_observers_never_count_and_learn_the_leader_from_a_quorum() {
    let mut net = Net::new([voter(1, 1), voter(2, 1), voter(3, 1), observer(4), observer(5), observer(6)]);
    for id in [1, 4, 5, 6] {
        net.start(id, at(9, 9));
    }
    net.run_ms(60_000);
    assert_eq!(net.elected, [], "one voter and three observers are no quorum of three voters");
    assert_eq!(net.states()[1], (4, Role::Looking, None), "an observer has no proposal");

    net.start(3, at(0, 0));
    net.run_ms(200);
    assert_eq!(net.leaders(), [(1, 1), (3, 1), (4, 1), (5, 1), (6, 1)]);
    assert_eq!(net.states()[2].1, Role::Observing);

    // One answer, even the leader's own, is not enough.
    net.unlink(4, 3);
    net.elect(4, at(0, 0));
    net.run_ms(10_000);
    assert_eq!(net.states()[2], (4, Role::Looking, None));
    net.link(4, 3);
    net.run_ms(0);
    assert_eq!(net.states()[2], (4, Role::Observing, Some(1)));
}

#[test]
fn s7_weights_count() {
    let mut net = Net::new([voter(1, 3), voter(2, 1), voter(3, 1), voter(4, 0)]);
    for id in 2..=4 {
        net.start(id, at(5, 5));
    }
    net.run_ms(10_000);
    assert_eq!(net.elected, [], "two of five");
    net.start(1, at(0, 0));
    net.run_ms(0);
    assert_eq!(net.leaders(), [(1, 3), (2, 3), (3, 3), (4, 3)], "the best, though 1 has the most weight");
    for id in 2..=4 {
        net.stop(id);
    }
    net.elect(1, at(6, 6));
    net.run_ms(200);
    assert_eq!(net.leaders(), [(1, 1)], "three of five");
}

#[test]
fn s8_a_single_server_decides_at_once() {
    let mut net = Net::new([voter(1, 1), observer(2)]);
    net.start(1, at(4, 4));
    assert_eq!(net.elected, [(1, 1)]);
    net.start(2, at(0, 0));
    net.run_ms(0);
    assert_eq!(net.leaders(), [(1, 1), (2, 1)]);
}

#[test]
fn s9_the_larger_id_dials() {
    for a in 1..5 {
        for b in 1..5 {
            let ends = [dials(PeerId(a), PeerId(b)), dials(PeerId(b), PeerId(a))];
            assert_eq!(ends.iter().filter(|&&d| d).count(), usize::from(a != b), "one connection per pair");
            assert_eq!(ends[0], a > b);
        }
    }
}

#[test]
fn followers_of_a_dead_leader_are_not_joined() {
    let mut net = Net::of_voters(5);
    for id in 1..=5 {
        net.start(id, at(0, 0));
    }
    net.run_ms(0);
    net.stop(5);
    // 1 has noticed; 2, 3 and 4, a quorum, still say that they follow 5.
    net.elect(1, at(1, 1));
    net.run_ms(60_000);
    assert_eq!(net.states()[0], (1, Role::Looking, Some(1)));
    // The others follow one by one, and elect.
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
    let following = |vote| Notification { state: Role::Following, vote: Some(vote), round: Round(1) };
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
    let says =
        |state, epoch, round| Notification { state, vote: Some(vote(4, epoch, 0)), round: Round(round) };
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
    net.elect(5, at(0, 0)); // round 2, so that the round of the reign is another
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
    // 3 is about to decide when 4 and 5 come, and has their votes only after it has.
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
    net.input(1, Input::Connected(PeerId(99)));
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

fn at(epoch: u32, zxid: u64) -> Candidate {
    Candidate { epoch: Epoch(epoch), zxid: Zxid(zxid) }
}

fn vote(leader: u32, epoch: u32, zxid: u64) -> Vote {
    Vote { candidate: at(epoch, zxid), leader: PeerId(leader) }
}

fn looking(vote: Vote, round: u64) -> Notification {
    Notification { state: Role::Looking, vote: Some(vote), round: Round(round) }
}

fn voter(id: u32, weight: u32) -> Member {
    Member { id: PeerId(id), membership: Membership::Voter { weight, group: 0 } }
}

fn observer(id: u32) -> Member {
    Member { id: PeerId(id), membership: Membership::Observer }
}

/// Servers and the wires between them, on which messages wait until the script delivers them.
struct Net {
    ensemble: Ensemble,
    now: Time,
    nodes: BTreeMap<u32, Election>,
    wires: BTreeMap<(u32, u32), VecDeque<Notification>>,
    /// Each outcome as (server, leader), in order.
    elected: Vec<(u32, u32)>,
}

impl Net {
    fn new(members: impl IntoIterator<Item = Member>) -> Net {
        Net {
            ensemble: Ensemble::new(members).unwrap(),
            now: Time(0),
            nodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            elected: vec![],
        }
    }

    fn of_voters(n: u32) -> Net {
        Net::new((1..=n).map(|id| voter(id, 1)))
    }

    /// Starts a server, links it with all others that are up, and lets it look.
    fn start(&mut self, id: u32, candidate: Candidate) {
        self.start_idle(id);
        self.elect(id, candidate);
    }

    /// Starts a server and links it with all others that are up.
    fn start_idle(&mut self, id: u32) {
        let others: Vec<u32> = self.nodes.keys().copied().collect();
        self.nodes.insert(id, Election::new(Config::new(PeerId(id), self.ensemble.clone())));
        for other in others {
            self.link(id, other);
        }
    }

    fn stop(&mut self, id: u32) {
        self.nodes.remove(&id);
        let others: Vec<u32> = self.nodes.keys().copied().collect();
        for other in others {
            self.unlink(id, other);
        }
    }

    fn link(&mut self, a: u32, b: u32) {
        self.input(a, Input::Connected(PeerId(b)));
        self.input(b, Input::Connected(PeerId(a)));
    }

    fn unlink(&mut self, a: u32, b: u32) {
        self.wires.remove(&(a, b));
        self.wires.remove(&(b, a));
        for (me, peer) in [(a, b), (b, a)] {
            if self.nodes.contains_key(&me) {
                self.input(me, Input::Disconnected(PeerId(peer)));
            }
        }
    }

    fn elect(&mut self, id: u32, candidate: Candidate) {
        self.input(id, Input::Elect(Some(candidate)));
    }

    fn settled(&mut self, id: u32, leader: u32, epoch: u32) {
        self.input(id, Input::Settled { leader: PeerId(leader), epoch: Epoch(epoch) });
    }

    /// Passes an input to one server, and puts its outputs on the wires. No input may go to a server that is
    /// down.
    fn input(&mut self, id: u32, input: Input) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.handle(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
        for output in outputs {
            match output {
                Output::Send { to, notification } => {
                    assert!(self.nodes.contains_key(&to.0), "{id} speaks to {to}, which is down");
                    self.wires.entry((id, to.0)).or_default().push_back(notification);
                }
                Output::Elected { leader, .. } => self.elected.push((id, leader.0)),
            }
        }
    }

    /// Puts a message on a wire that its sender never sent.
    fn say(&mut self, from: u32, to: u32, notification: Notification) {
        self.wires.entry((from, to)).or_default().push_back(notification);
    }

    /// The messages that wait, oldest first.
    fn wire(&self, from: u32, to: u32) -> Vec<Notification> {
        self.wires.get(&(from, to)).into_iter().flatten().copied().collect()
    }

    fn discard_wires(&mut self) {
        self.wires.clear();
    }

    /// Delivers the oldest message of one wire.
    fn deliver(&mut self, from: u32, to: u32) -> Notification {
        let notification =
            self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("a message waits");
        self.input(to, Input::Received { from: PeerId(from), notification });
        notification
    }

    /// Lets `ms` pass on one server, without delivering anything.
    fn tick(&mut self, id: u32, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        if self.nodes[&id].next_timeout().is_some_and(|t| t <= self.now) {
            self.input(id, Input::Timeout);
        }
    }

    /// Delivers everything, in order of the wires, until there is nothing more; then lets a millisecond pass; and so on
    /// for `ms`.
    fn run_ms(&mut self, ms: u64) {
        for elapsed in 0..=ms {
            loop {
                let full = self.wires.iter().find(|(_, wire)| !wire.is_empty()).map(|(&ends, _)| ends);
                let Some((from, to)) = full else { break };
                self.deliver(from, to);
            }
            if elapsed < ms {
                self.now = self.now + Duration::from_millis(1);
            }
            let due: Vec<u32> = self
                .nodes
                .iter()
                .filter(|(_, n)| n.next_timeout().is_some_and(|t| t <= self.now))
                .map(|(&id, _)| id)
                .collect();
            for id in due {
                self.input(id, Input::Timeout);
            }
        }
    }

    /// Of each server that is up: what it is, and its vote.
    fn states(&self) -> Vec<(u32, Role, Option<u32>)> {
        let state = |(&id, node): (&u32, &Election)| {
            let n = node.notification().unwrap();
            (id, n.state, n.vote.map(|v| v.leader.0))
        };
        self.nodes.iter().map(state).collect()
    }

    /// The servers that have a leader, with that leader.
    fn leaders(&self) -> Vec<(u32, u32)> {
        let settled = self.states().into_iter().filter(|(_, role, _)| *role != Role::Looking);
        settled.map(|(id, _, leader)| (id, leader.unwrap())).collect()
    }

    fn round(&self, id: u32) -> u64 {
        self.nodes[&id].notification().unwrap().round.0
    }
}
