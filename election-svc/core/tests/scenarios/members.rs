//! Servers that return, minorities, observers, weights (S5 to S9).

use api::PeerId;
use api::ports::Role;
use election_core::dials;

use crate::net::*;

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

    // One answer is not enough, even if it is the leader's own.
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
