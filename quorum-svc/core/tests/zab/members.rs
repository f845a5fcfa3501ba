//! Changes of the members: who counts from which entry on, what a leader refuses, and what becomes of a change when its leader
//! is lost. `r` numbers are rules of the design notes, `s` numbers its scenarios.

use std::time::Duration;

use api::ports::Role;
use api::{PeerId, ROSTER_IDS_MAX, ReconfigRefusal, Zxid};
use invariants::Answer;

use crate::world::{INIT_LIMIT, PING, SYNC_LIMIT, Step, World};

/// Three voters under server 3, and joiners 4 to `last` that have been added as observers and are in sync.
fn grown(last: u32) -> World {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    let joiners: Vec<u32> = (4..=last).collect();
    let added = w.reconfigure(3, &[1, 2, 3], &joiners);
    w.settle();
    assert!(matches!(w.reconfigured(3, added), Some(Ok(_))));
    w.add(joiners.iter().copied());
    w.settle();
    w.elect_all(3);
    // So long that the leader knows what was committed a second ago.
    w.run(Duration::from_millis(1200));
    for id in joiners {
        assert!(w.serving(id) && w.role(id) == Role::Observing, "{id}");
    }
    w
}

fn refusal(w: &World, id: u32, ticket: api::Ticket) -> ReconfigRefusal {
    match w.reconfigured(id, ticket) {
        Some(Err(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn voters(w: &World, id: u32) -> Vec<u32> {
    w.roster(id).voters().map(|id| id.0).collect()
}

/// The server with most in its log that a quorum votes for leads, and all come to rest.
fn recover(w: &mut World) {
    let mut rests = 0;
    for _ in 0..60 {
        w.settle();
        w.fair_election();
        w.settle();
        w.run(Duration::from_millis(100));
        let end = w.ghost.last();
        let leads =
            |id: u32| w.up(id) && w.serving(id) && w.role(id) == Role::Leading && w.status(id).last == end;
        rests = if w.ids().into_iter().any(leads) { rests + 1 } else { 0 };
        if rests == 10 {
            return;
        }
    }
}

#[test]
fn s01_an_ensemble_grows_from_three_to_five_and_writes_go_on() {
    let mut w = grown(5);
    let before = w.submit(1, "before");
    let asked = w.reconfigure(1, &[1, 2, 3, 4, 5], &[]);
    let after = w.submit(2, "after");
    w.settle();
    assert!(matches!(w.reconfigured(1, asked), Some(Ok(_))), "any server takes the request");
    for id in 1..=5 {
        assert_eq!((voters(&w, id), w.roster(id).is_joint()), (vec![1, 2, 3, 4, 5], false), "{id}");
    }
    assert_eq!([w.answer(1, before), w.answer(2, after)], [Some(Answer::Applied); 2]);
    // Three of five have to be there.
    w.crash(1);
    w.crash(2);
    let with_three = w.submit(3, "three of five");
    w.settle();
    assert_eq!(w.answer(3, with_three), Some(Answer::Applied));
    w.crash(4);
    let with_two = w.submit(3, "two of five");
    w.settle();
    assert_eq!(w.answer(3, with_two), None);
}

#[test]
fn s02_an_ensemble_shrinks_and_the_removed_leader_hands_over() {
    let mut w = grown(5);
    w.reconfigure(3, &[1, 2, 3, 4, 5], &[]);
    w.settle();
    let asked = w.reconfigure(3, &[1, 2, 4], &[]);
    let own = w.submit(3, "own");
    w.settle();
    // It leads until the end of the change is committed, and then no longer.
    assert!(matches!(w.reconfigured(3, asked), Some(Ok(_))));
    assert_eq!(w.role(3), Role::Looking);
    recover(&mut w);
    let leader = [1, 2, 4].into_iter().find(|&id| w.role(id) == Role::Leading).expect("a leader");
    assert_eq!(voters(&w, leader), [1, 2, 4]);
    assert!(!w.serving(3) && !w.serving(5), "they are no members any more");
    assert!(w.committed().contains(&"own".to_owned()) || w.answer(3, own).is_none());
    for id in [3, 5] {
        w.crash(id);
    }
    let ticket = w.submit(leader, "without them");
    w.settle();
    assert_eq!(w.answer(leader, ticket), Some(Answer::Applied));
}

#[test]
fn s03_all_three_members_are_replaced_at_once() {
    let mut w = grown(6);
    let asked = w.reconfigure(3, &[4, 5, 6], &[]);
    w.settle();
    assert!(matches!(w.reconfigured(3, asked), Some(Ok(_))));
    for id in [1, 2, 3] {
        w.crash(id);
    }
    recover(&mut w);
    assert!([4, 5, 6].iter().all(|&id| w.serving(id) && voters(&w, id) == [4, 5, 6]));
}

#[test]
fn r03_one_change_at_a_time() {
    let mut w = grown(4);
    for id in [1, 2, 4] {
        w.hold(id, 3);
    }
    let first = w.reconfigure(3, &[1, 2, 3, 4], &[]);
    w.settle();
    let second = w.reconfigure(3, &[1, 2, 3], &[]);
    w.settle();
    match refusal(&w, 3, second) {
        ReconfigRefusal::InProgress { waits_for, .. } => {
            assert_eq!(waits_for, [1, 2, 4].map(PeerId), "the acks of these are missing");
        }
        other => panic!("{other:?}"),
    }
    for id in [1, 2, 4] {
        w.release(id, 3);
    }
    w.settle();
    assert!(matches!(w.reconfigured(3, first), Some(Ok(_))));
}

#[test]
fn r03_an_uncommitted_end_of_a_change_is_a_change_under_way() {
    let mut w = grown(4);
    let first = w.reconfigure(3, &[1, 2, 3, 4], &[]);
    // The beginning is committed, the end is in the leader's log.
    while w.roster(3).is_joint() || w.roster(3).since() <= w.status(3).committed {
        let step = *w.steps().first().expect("a step");
        w.take(step);
    }
    assert_eq!(w.reconfigured(3, first), None);
    let second = w.reconfigure(3, &[1, 2, 3], &[]);
    assert!(matches!(refusal(&w, 3, second), ReconfigRefusal::InProgress { .. }));
    w.settle();
    assert!(matches!(w.reconfigured(3, first), Some(Ok(_))));
}

#[test]
fn r04_nothing_changes_without_an_established_leader() {
    let mut w = World::new(3, 0);
    let asked = w.reconfigure(1, &[1, 2], &[]);
    assert!(matches!(refusal(&w, 1, asked), ReconfigRefusal::Unavailable(_)));
    // Elected, but without the marker on a quorum.
    for id in [1, 2] {
        w.nodes.get_mut(&id).unwrap().disk.held = true;
    }
    w.elect_all(3);
    let asked = w.reconfigure(3, &[1, 2], &[]);
    assert!(matches!(refusal(&w, 3, asked), ReconfigRefusal::Unavailable(_)));
    assert!(!w.roster(3).is_joint());
}

#[test]
fn s12_of_two_changes_with_one_expected_version_one_wins() {
    let mut w = grown(5);
    let version = w.roster(3).newest().version;
    let one = w.reconfigure_from(1, version, &[1, 2, 3, 4], &[5], false);
    w.settle();
    let other = w.reconfigure_from(2, version, &[1, 2, 3, 5], &[4], false);
    w.settle();
    let won = w.reconfigured(1, one).unwrap().unwrap();
    assert_eq!(refusal(&w, 2, other), ReconfigRefusal::VersionMoved { expected: version, actual: won });
    let again = w.reconfigure_from(2, version, &[1, 2, 3, 4], &[5], false);
    w.settle();
    assert_eq!(w.reconfigured(2, again), Some(Ok(won)), "a repeated request is no second change");
}

#[test]
fn r05_a_new_voter_learns_before_it_counts() {
    let mut w = grown(4);
    // It gets nothing any more, and is far behind after a second.
    w.hold(4, 3);
    for n in 0..20 {
        w.submit(3, &format!("{n}"));
        w.settle();
        w.run(PING);
    }
    if w.serving(3) && w.role(3) == Role::Leading {
        let asked = w.reconfigure(3, &[1, 2, 3, 4], &[]);
        w.settle();
        match refusal(&w, 3, asked) {
            ReconfigRefusal::NotSynced { members } => assert_eq!(members[0].0, PeerId(4)),
            other => panic!("{other:?}"),
        }
    } else {
        panic!("server 3 does not lead");
    }
    let mut w = grown(4);
    w.crash(4);
    w.settle();
    let asked = w.reconfigure(3, &[1, 2, 3, 4], &[]);
    assert_eq!(refusal(&w, 3, asked), ReconfigRefusal::NotSynced { members: vec![(PeerId(4), None)] });
}

#[test]
fn r05_right_after_its_establishment_a_leader_knows_of_no_member_that_is_in_sync() {
    let mut w = grown(4);
    w.crash(3);
    w.settle();
    w.elect(2, &[1, 2, 4]);
    w.settle();
    assert!(w.serving(2) && w.role(2) == Role::Leading && w.serving(4));
    let asked = w.reconfigure(2, &[1, 2, 4], &[]);
    assert!(matches!(refusal(&w, 2, asked), ReconfigRefusal::Unavailable(_)));
    assert!(!w.roster(2).is_joint());
    w.run(PING * 2);
    let again = w.reconfigure(2, &[1, 2, 3, 4], &[]);
    w.settle();
    assert!(matches!(w.reconfigured(2, again), Some(Ok(_))));
}

#[test]
fn r05_a_change_after_which_no_quorum_is_there_needs_force() {
    let mut w = grown(4);
    w.crash(1);
    w.settle();
    let asked = w.reconfigure(3, &[1, 3], &[4]);
    let refused = ReconfigRefusal::WouldLoseQuorum { live: vec![PeerId(3)], of: 2 };
    assert_eq!(refusal(&w, 3, asked), refused);
    let expected = w.roster(3).newest().version;
    w.reconfigure_from(3, expected, &[1, 3], &[4], true);
    w.settle();
    assert!(w.roster(3).is_joint());
    w.restart(1);
    w.elect_all(3);
    w.settle();
    assert_eq!(voters(&w, 3), [1, 3]);
}

#[test]
fn r06_from_its_beginning_on_a_change_needs_a_quorum_of_both_lists() {
    let mut w = grown(6);
    for id in [5, 6] {
        w.hold(id, 3);
    }
    let asked = w.reconfigure(3, &[4, 5, 6], &[]);
    let write = w.submit(3, "behind it");
    w.settle();
    assert!(w.roster(3).is_joint() && w.status(3).committed < w.roster(3).since());
    assert_eq!(w.answer(3, write), None, "the old members alone commit nothing");
    w.release(5, 3);
    w.settle();
    assert!(matches!(w.reconfigured(3, asked), Some(Ok(_))));
    assert!(w.committed().contains(&"behind it".to_owned()));
}

#[test]
fn r07_the_answer_comes_when_the_end_is_on_a_quorum_of_the_new_members() {
    let mut w = grown(6);
    let asked = w.reconfigure(3, &[4, 5, 6], &[]);
    let begun = w.roster(3).since();
    while w.status(3).committed < begun {
        assert_eq!(w.reconfigured(3, asked), None);
        let step = *w.steps().first().expect("a step");
        w.take(step);
    }
    assert!(!w.roster(3).is_joint(), "the end follows at once");
    w.settle();
    let end = w.nodes[&4].log.iter().rev().find_map(|e| e.body.roster().map(|_| e.zxid)).unwrap();
    let has = [4, 5, 6].into_iter().filter(|&id| w.nodes[&id].disk.stored.has(end)).count();
    assert!(has >= 2 && matches!(w.reconfigured(3, asked), Some(Ok(_))));
    // R10: the old servers are switched off right after the answer.
    for id in [1, 2, 3] {
        w.crash(id);
    }
    recover(&mut w);
    assert!([4, 5, 6].iter().filter(|&&id| w.serving(id)).count() >= 2);
}

#[test]
fn r08_a_leader_without_a_vote_in_the_new_list_does_not_count_itself_there() {
    let mut w = grown(4);
    // Of 1, 2 and 4 two are needed; the leader's own disk is no substitute.
    for id in [2, 4] {
        w.hold(id, 3);
    }
    w.reconfigure(3, &[1, 2, 4], &[]);
    w.settle();
    assert!(w.status(3).committed < w.roster(3).since());
    w.release(4, 3);
    w.settle();
    recover(&mut w);
    assert!(voters(&w, 1) == [1, 2, 4] && !w.serving(3));
}

/// The last member of the old list is the leader, and the end of the change is in its log alone.
#[test]
fn r09_a_leader_that_loses_its_vote_is_needed_until_the_end_is_committed() {
    let mut w = World::new(2, 0);
    w.elect_all(2);
    // Before, it does not know who is in sync.
    w.run(PING);
    w.reconfigure(2, &[1], &[]);
    while w.roster(2).is_joint() {
        let step = *w.steps().first().expect("a step");
        w.take(step);
    }
    w.crash_with(2, usize::MAX, usize::MAX);
    w.break_links(1, 2);
    w.settle();
    w.restart(2);
    assert!(!w.roster(2).is_joint() && w.roster(1).is_joint());
    recover(&mut w);
    assert_eq!((voters(&w, 1), w.serving(1), w.serving(2)), (vec![1], true, false));
}

#[test]
fn r10_promises_are_those_of_both_lists() {
    let mut w = grown(6);
    for id in [4, 5, 6] {
        w.hold(id, 3);
    }
    w.reconfigure(3, &[4, 5, 6], &[]);
    w.settle();
    assert!(w.roster(1).is_joint());
    for id in [3, 4, 5, 6] {
        w.crash(id);
    }
    w.settle();
    // Both have the beginning of the change in their logs, so the two of them are no quorum.
    w.elect(1, &[1, 2]);
    w.run(INIT_LIMIT * 2);
    assert!(!w.serving(1) && w.role(1) == Role::Looking);
    for id in [4, 5] {
        w.restart(id);
    }
    for id in [4, 5] {
        w.release(id, 3);
    }
    recover(&mut w);
    assert!(w.serving(5) && voters(&w, 5) == [4, 5, 6]);
}

#[test]
fn r10_a_leader_that_hears_only_the_old_members_steps_down() {
    let mut w = grown(6);
    for id in [4, 5, 6] {
        w.hold(id, 3);
    }
    w.reconfigure(3, &[4, 5, 6], &[]);
    w.settle();
    w.run(SYNC_LIMIT * 2);
    assert_eq!(w.role(3), Role::Looking);
}

#[test]
fn r11_the_next_leader_finishes_a_change() {
    let mut w = grown(5);
    for id in [1, 2, 4, 5] {
        w.hold(id, 3);
    }
    w.reconfigure(3, &[1, 2, 4, 5], &[]);
    w.settle();
    assert!(w.roster(1).is_joint());
    w.crash(3);
    for id in [1, 2, 4, 5] {
        w.release(id, 3);
    }
    w.settle();
    recover(&mut w);
    for id in [1, 2, 4, 5] {
        assert_eq!((voters(&w, id), w.roster(id).is_joint()), (vec![1, 2, 4, 5], false), "{id}");
    }
}

#[test]
fn r07_a_change_that_is_in_no_log_of_a_quorum_never_was() {
    let mut w = grown(4);
    let version = w.roster(3).newest().version;
    for id in [1, 2, 4] {
        w.hold(3, id);
    }
    w.reconfigure(3, &[1, 2, 3, 4], &[]);
    w.take(Step::Disk(3));
    assert!(w.roster(3).is_joint());
    w.crash(3);
    for id in [1, 2, 4] {
        w.break_links(3, id);
        w.release(3, id);
    }
    w.settle();
    w.elect(2, &[1, 2, 4]);
    w.settle();
    assert_eq!((w.roster(2).newest().version, voters(&w, 2)), (version, vec![1, 2, 3]));
    // R17: the log is cut behind the members before.
    w.restart(3);
    w.elect_all(2);
    w.settle();
    assert!(w.serving(3) && w.roster(3) == w.roster(2));
}

#[test]
fn r12_the_members_come_with_a_snapshot_also_while_a_change_is_under_way() {
    let mut w = grown(6);
    w.crash(6);
    for n in 0..9 {
        w.submit(3, &format!("{n}"));
        w.settle();
    }
    w.restart(6);
    w.elect_all(3);
    w.run(Duration::from_millis(1200));
    for id in [4, 5] {
        w.hold(3, id);
    }
    w.reconfigure(3, &[4, 5, 6], &[]);
    w.settle();
    for id in [1, 2, 3] {
        w.save_snapshot(id);
        w.submit(3, "more");
        w.settle();
    }
    w.crash(6);
    for id in [4, 5] {
        w.release(3, id);
    }
    w.settle();
    for id in [1, 2, 3, 4, 5] {
        if w.up(id) {
            w.save_snapshot(id);
        }
    }
    recover(&mut w);
    w.wipe(6);
    w.restart(6);
    recover(&mut w);
    assert!(w.serving(6) && voters(&w, 6) == [4, 5, 6], "{:?}", w.roster(6));
    for id in [4, 5, 6] {
        w.crash(id);
        w.restart(id);
        assert_eq!(voters(&w, id), [4, 5, 6], "{id} after a restart");
    }
}

#[test]
fn r13_a_member_that_missed_everything_follows_a_leader_that_it_does_not_know() {
    let mut w = grown(5);
    w.crash(1);
    w.settle();
    w.reconfigure(3, &[1, 4, 5], &[]);
    w.settle();
    recover(&mut w);
    for id in [2, 3] {
        w.crash(id);
    }
    recover(&mut w);
    w.restart(1);
    assert_eq!(voters(&w, 1), [1, 2, 3]);
    recover(&mut w);
    assert!(w.serving(1) && voters(&w, 1) == [1, 4, 5]);
}

#[test]
fn r14_a_removed_server_with_a_greater_epoch_deposes_nobody() {
    let mut w = grown(4);
    w.reconfigure(3, &[2, 3, 4], &[]);
    w.settle();
    let epoch = w.status(3).epoch;
    w.crash(1);
    w.promise(1, epoch.0 + 7);
    for _ in 0..60 {
        w.elect(3, &[1]);
        w.run(Duration::from_millis(1000));
        assert!(w.serving(3) && w.status(3).epoch == epoch);
    }
    assert!(!w.serving(1));
}

#[test]
fn r15_the_id_of_a_former_member_is_not_used_again() {
    let mut w = grown(4);
    w.reconfigure(3, &[1, 2, 3], &[]);
    w.settle();
    let asked = w.reconfigure(3, &[1, 2, 3], &[4]);
    w.settle();
    assert_eq!(refusal(&w, 3, asked), ReconfigRefusal::IdReused { ids: vec![PeerId(4)] });
}

#[test]
fn r15_no_change_is_proposed_that_no_server_could_read() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    let change = |w: &mut World, joiners: std::ops::Range<u32>| {
        let asked = w.reconfigure(3, &[1, 2, 3], &joiners.collect::<Vec<_>>());
        w.settle();
        w.reconfigured(3, asked).expect("an answer")
    };
    let max = ROSTER_IDS_MAX;
    // As many former members as there may be, and one more.
    for joiners in [10..910, 0..0, 910..10 + max + 1] {
        change(&mut w, joiners).unwrap();
    }
    change(&mut w, 10 + max..10 + max + 1).unwrap();
    assert_eq!(u32::try_from(w.roster(3).newest().removed.len()), Ok(max));
    assert!(w.roster(3).can_be_read());
    let before = w.roster(3).clone();
    assert!(matches!(change(&mut w, 0..0), Err(ReconfigRefusal::Invalid(why)) if why.contains("1025")));
    assert_eq!(w.roster(3), &before);
    for id in 1..=3 {
        let rosters: Vec<_> = w.nodes[&id].log.iter().filter_map(|e| e.body.roster()).collect();
        assert!(!rosters.is_empty() && rosters.iter().all(|r| r.can_be_read()), "{id}");
    }
}

#[test]
fn r16_observers_change_by_one_entry_whoever_is_away() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    w.crash(1);
    w.settle();
    let asked = w.reconfigure(3, &[1, 2, 3], &[4]);
    let since = w.roster(3).since();
    assert!(!w.roster(3).is_joint() && since > Zxid::ZERO);
    w.settle();
    assert_eq!(w.reconfigured(3, asked), Some(Ok(since)));
}

#[test]
fn s04_whenever_the_leader_crashes_a_change_ends_in_one_of_its_two_lists() {
    // After how many steps the leader is gone.
    for steps in 0..40 {
        for survives in [true, false] {
            let mut w = grown(5);
            w.reconfigure(3, &[1, 4, 5], &[]);
            for _ in 0..steps {
                let Some(&step) = w.steps().first() else { break };
                w.take(step);
            }
            w.crash(3);
            w.settle();
            if survives {
                w.restart(3);
            }
            recover(&mut w);
            let leader = (1..=5).find(|&id| w.up(id) && w.serving(id) && w.role(id) == Role::Leading);
            let leader = leader.unwrap_or_else(|| panic!("no leader after {steps} steps"));
            let list = voters(&w, leader);
            assert!(!w.roster(leader).is_joint() && (list == [1, 2, 3] || list == [1, 4, 5]), "{list:?}");
            let ticket = w.submit(leader, "goes on");
            w.settle();
            assert_eq!(w.answer(leader, ticket), Some(Answer::Applied));
        }
    }
}
