//! Elections during changes of the members, and among servers that do not have the same ones in their logs.

use std::sync::Arc;

use api::ports::Role;
use api::{Configuration, Ensemble, Epoch, PeerId, Roster, Zxid};
use election_core::{Config, Election, Input};

use crate::net::*;

fn configuration(ids: &[u32]) -> Configuration {
    Configuration::initial(Ensemble::of_voters(ids.iter().copied()).unwrap())
}

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// Server `id` has this change in its log.
fn joint(net: &mut Net, id: u32, old: &[u32], new: &[u32]) {
    let roster = Roster::joint(z(5), configuration(old), configuration(new));
    net.input(id, Input::Members(Arc::new(roster)));
}

/// Server `id` has the end of a change in its log.
fn settled(net: &mut Net, id: u32, ids: &[u32]) {
    net.input(id, Input::Members(Arc::new(Roster::settled(z(6), configuration(ids)))));
}

#[test]
fn r09_during_a_change_a_winner_needs_a_quorum_of_each_list() {
    let mut net = Net::of_voters(3);
    for id in 1..=6 {
        net.start_idle(id);
        joint(&mut net, id, &[1, 2, 3], &[4, 5, 6]);
    }
    for id in 1..=3 {
        net.elect(id, at(1, 5));
    }
    net.run_ms(5_000);
    assert_eq!(net.elected, [], "the old members alone");
    for id in [4, 5] {
        net.elect(id, at(1, 5));
    }
    net.run_ms(5_000);
    assert!((1..=5).all(|id| net.elected.contains(&(id, 5))), "{:?}", net.elected);
}

#[test]
fn r09_an_old_member_stands_while_the_change_is_under_way() {
    let mut net = Net::of_voters(3);
    for id in 1..=5 {
        net.start_idle(id);
        joint(&mut net, id, &[1, 2, 3], &[3, 4, 5]);
    }
    // It has most.
    net.elect(1, at(1, 9));
    for id in 2..=5 {
        net.elect(id, at(1, 5));
    }
    net.run_ms(5_000);
    assert_eq!(net.leaders(), (1..=5).map(|id| (id, 1)).collect::<Vec<_>>());
}

#[test]
fn r09_a_server_without_a_vote_in_the_new_list_does_not_stand_after_the_change() {
    let mut net = Net::of_voters(3);
    for id in 1..=4 {
        net.start_idle(id);
        settled(&mut net, id, &[2, 3, 4]);
    }
    net.input(1, Input::Elect(None));
    for id in 2..=4 {
        net.elect(id, at(1, 6));
    }
    net.run_ms(5_000);
    assert!([2, 3, 4].iter().all(|&id| net.leaders().contains(&(id, 4))), "{:?}", net.leaders());
}

/// It was the leader, and the end of the change is in its log alone.
#[test]
fn r09_the_only_server_with_the_end_of_a_change_can_be_elected_though_it_takes_its_vote() {
    let mut net = Net::of_voters(2);
    for id in [1, 2] {
        net.start_idle(id);
    }
    joint(&mut net, 1, &[1, 2], &[1]);
    settled(&mut net, 2, &[1]);
    net.elect(1, at(1, 5));
    net.elect(2, at(1, 6));
    net.run_ms(5_000);
    assert_eq!(net.leaders(), [(1, 2), (2, 2)]);
}

#[test]
fn r13_a_member_that_missed_the_change_votes_for_a_server_that_it_does_not_know() {
    // Servers 1 and 2 were removed and are switched off; server 5 is down.
    let mut net = Net::of_voters(3);
    net.start_idle(3);
    net.start_idle(4);
    settled(&mut net, 4, &[3, 4, 5]);
    net.elect(3, at(1, 2));
    net.elect(4, at(1, 6));
    net.run_ms(5_000);
    assert_eq!(net.leaders(), [(3, 4), (4, 4)]);
}

#[test]
fn r13_a_member_that_missed_the_change_joins_a_leader_that_it_does_not_know() {
    let mut net = Net::of_voters(3);
    for id in [4, 5] {
        net.start_idle(id);
        settled(&mut net, id, &[3, 4, 5]);
        net.elect(id, at(1, 6));
    }
    net.run_ms(1_000);
    assert_eq!(net.leaders(), [(4, 5), (5, 5)]);
    net.start(3, at(1, 2));
    net.run_ms(1_000);
    assert_eq!(net.leaders(), [(3, 5), (4, 5), (5, 5)]);
}

/// Server 2 alone lacks the beginning of the change, and the leader, server 3, is gone. Servers 1, 4 and 5 need its vote.
#[test]
fn r13_a_member_does_not_count_on_the_votes_of_servers_that_know_of_a_later_change() {
    let mut net = Net::of_voters(3);
    for id in [1, 2, 4, 5] {
        net.start_idle(id);
    }
    for id in [1, 4, 5] {
        joint(&mut net, id, &[1, 2, 3], &[3, 4, 5]);
    }
    net.elect(2, at(1, 4));
    for id in [1, 4, 5] {
        net.elect(id, at(1, 5));
    }
    net.run_ms(5_000);
    assert_eq!(net.leaders(), [(1, 5), (2, 5), (4, 5), (5, 5)]);
}

/// Server 5 gets a vote by the change whose beginning it lacks, and its observers' list says that it has none. Servers 1, 2
/// and 4 need it.
#[test]
fn r13_a_new_voter_that_missed_its_promotion_votes() {
    let mut net = Net::new([voter(1, 1), voter(2, 1), voter(3, 1), observer(4), observer(5)]);
    for id in [1, 2, 4, 5] {
        net.start_idle(id);
    }
    for id in [1, 2, 4] {
        joint(&mut net, id, &[1, 2, 3], &[3, 4, 5]);
    }
    net.input(5, Input::Elect(None));
    for id in [1, 2, 4] {
        net.input(id, Input::Elect(Some(at(1, 5))));
    }
    net.run_ms(5_000);
    assert_eq!(net.leaders(), [(1, 4), (2, 4), (4, 4), (5, 4)]);
}

/// Server 5 is an observer before and after the change that it missed.
#[test]
fn r13_an_observer_that_missed_a_change_adds_no_vote() {
    let mut net = Net::new([voter(1, 1), voter(2, 1), voter(3, 1), voter(4, 1), observer(5)]);
    for id in [1, 2, 5] {
        net.start_idle(id);
    }
    for id in [1, 2] {
        joint(&mut net, id, &[1, 2, 3, 4], &[1, 2, 3]);
    }
    net.input(5, Input::Elect(None));
    for id in [1, 2] {
        net.input(id, Input::Elect(Some(at(1, 5))));
    }
    net.run_ms(5_000);
    assert_eq!(net.elected, [], "two of four voters and an observer");
}

/// Each server first hears the candidate that it does not know, and then those that can do without it.
#[test]
fn r07_a_vote_for_a_candidate_by_a_change_is_taken_back_once_the_known_members_can_elect() {
    let mut net = Net::of_voters(3);
    net.start_idle(4);
    joint(&mut net, 4, &[1, 2, 3], &[4, 5, 6]);
    net.elect(4, at(1, 5));
    for id in 1..=3 {
        net.nodes.insert(id, Election::new(Config::new(PeerId(id), Ensemble::of_voters(1..=3).unwrap())));
        net.link(id, 4);
        net.elect(id, at(1, 4));
    }
    net.run_ms(1_000);
    assert_eq!(net.states()[0], (1, Role::Looking, Some(4)));
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        net.link(a, b);
    }
    net.run_ms(5_000);
    assert!([1, 2, 3].iter().all(|&id| net.leaders().contains(&(id, 3))), "{:?}", net.states());
}

#[test]
fn r07_a_candidate_by_a_change_that_a_quorum_does_not_have_takes_no_votes_from_it() {
    let mut net = Net::of_voters(3);
    for id in 1..=4 {
        net.start_idle(id);
    }
    // Its log is the longest, but servers 5 and 6, which it needs, do not exist.
    joint(&mut net, 4, &[1, 2, 3], &[4, 5, 6]);
    for id in 1..=3 {
        net.elect(id, at(1, 4));
    }
    net.elect(4, at(1, 5));
    net.run_ms(5_000);
    assert!([1, 2, 3].iter().all(|&id| net.leaders().contains(&(id, 3))), "{:?}", net.leaders());
}

#[test]
fn r14_a_removed_server_that_looks_again_and_again_disturbs_nobody() {
    let mut net = Net::of_voters(3);
    for id in 1..=4 {
        net.start_idle(id);
    }
    for id in 2..=4 {
        settled(&mut net, id, &[2, 3, 4]);
        net.elect(id, at(1, 6));
    }
    net.run_ms(1_000);
    let round = net.round(4);
    for _ in 0..60 {
        net.elect(1, at(9, 9));
        net.run_ms(1_000);
    }
    assert_eq!(net.round(4), round);
    assert!(net.states().iter().filter(|(id, ..)| *id > 1).all(|(_, role, _)| *role != Role::Looking));
}
