//! The feature level: the rules for raising it, the rules for following at it, and its position in the
//! log.

use std::time::Duration;

use api::{Body, Level, LevelRefusal, Levels, Zxid};

use crate::world::{Step, World, z};

fn knowing(max: u32) -> Levels {
    Levels::new(Level(1), Level(max)).unwrap()
}

/// Three voters and an observer with these builds; server 3 leads.
fn ensemble(max: [u32; 4]) -> World {
    let mut w = World::new(3, 1);
    for (id, max) in (1..).zip(max) {
        w.builds.insert(id, knowing(max));
        w.crash(id);
        w.restart(id);
    }
    w.elect_all(3);
    w.settle();
    w
}

/// Restarts a server with a build that knows the levels up to `max`.
fn swap(w: &mut World, id: u32, max: u32) {
    if w.up(id) {
        w.crash(id);
    }
    w.builds.insert(id, knowing(max));
    w.restart(id);
}

fn level(w: &World, id: u32) -> u32 {
    Level::number(w.core(id).level())
}

/// The answer to the last SETLEVEL of a server.
fn answer(w: &World, id: u32) -> Result<Level, LevelRefusal> {
    w.nodes[&id].levels_set.values().last().cloned().expect("an answer")
}

fn refused(w: &World, id: u32) -> String {
    match answer(w, id) {
        Err(LevelRefusal::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_ensemble_begins_at_the_greatest_level_known_to_all_present_servers() {
    for (max, begins) in [([1, 1, 1, 1], 1), ([2, 2, 2, 2], 2), ([2, 3, 3, 3], 2), ([1, 4, 4, 4], 1)] {
        let w = ensemble(max);
        assert_eq!([1, 2, 3, 4].map(|id| level(&w, id)), [begins; 4], "{max:?}");
    }
    // Servers 1 and 3 start before server 2 connects.
    let w = ensemble([3, 2, 3, 3]);
    assert_eq!([1, 2, 3, 4].map(|id| level(&w, id)), [3, 0, 3, 3]);
}

#[test]
fn any_server_raises_the_level_and_answers_after_the_commit() {
    let mut w = ensemble([1, 2, 2, 2]);
    swap(&mut w, 1, 2);
    w.elect_all(3);
    w.settle();
    assert_eq!(level(&w, 1), 1);
    for id in [1, 3, 4] {
        w.set_level(id, 1, 2);
        w.settle();
        assert_eq!(answer(&w, id), Ok(Level(2)), "asked on {id}: to ask again is an answer like any other");
        assert_eq!([1, 2, 3, 4].map(|id| level(&w, id)), [2; 4]);
    }
    let raised = w.ghost.entries().iter().filter(|e| e.body == Body::Level(Level(2))).count();
    assert_eq!(raised, 1);
    w.set_level(2, 1, 3);
    w.settle();
    assert!(refused(&w, 2).contains("at feature level 2, not 1"));
    w.set_level(2, 2, 1);
    w.settle();
    assert!(refused(&w, 2).contains("cannot go back"));
}

#[test]
fn it_is_not_raised_while_a_member_is_away_or_too_old_be_it_an_observer() {
    let mut w = ensemble([1, 1, 1, 1]);
    for id in [1, 2, 3] {
        swap(&mut w, id, 2);
    }
    w.settle();
    w.elect_all(3);
    w.settle();
    w.set_level(1, 1, 2);
    w.settle();
    let why = refused(&w, 1);
    assert!(why.contains("member 4 knows level 1") && !why.contains("member 2"), "{why}");
    w.crash(4);
    w.settle();
    w.set_level(3, 1, 2);
    w.settle();
    let why = refused(&w, 3);
    assert!(why.contains("member 4 is not here"), "{why}");
    assert_eq!(level(&w, 3), 1);
    swap(&mut w, 4, 2);
    w.elect_all(3);
    w.settle();
    w.set_level(3, 1, 2);
    w.settle();
    assert_eq!(answer(&w, 3), Ok(Level(2)));
}

/// The request meets no leader, or the leader is lost before the answer. The client has to repeat it.
#[test]
fn raising_the_level_without_a_leader_asks_for_a_retry() {
    let mut w = World::new(3, 0);
    w.set_level(1, 1, 2);
    assert!(matches!(answer(&w, 1), Err(LevelRefusal::Unavailable(_))));
    w.elect_all(3);
    w.settle();
    w.hold(1, 3);
    w.set_level(1, 1, 2);
    w.crash(3);
    w.settle();
    assert!(matches!(answer(&w, 1), Err(LevelRefusal::Unavailable(_))));
}

/// An older binary has replaced the present one without the ensemble's knowledge.
#[test]
fn a_server_that_does_not_know_the_level_cannot_join_and_the_others_go_on() {
    let mut w = ensemble([2, 2, 2, 2]);
    assert_eq!(level(&w, 1), 2);
    swap(&mut w, 1, 1);
    w.elect_all(3);
    w.settle();
    assert!(!w.core(1).status().serving, "its shell would not even have started");
    w.submit(3, "goes on");
    w.settle();
    assert!(w.committed().contains(&"goes on".to_owned()));
    assert!(w.log(1).last() < w.log(3).last());
}

#[test]
fn an_uncommitted_level_is_cut_off_with_its_entry() {
    let mut w = ensemble([1, 1, 1, 1]);
    for id in [1, 2, 3, 4] {
        swap(&mut w, id, 2);
    }
    w.settle();
    w.elect_all(3);
    w.settle();
    // The entry gets no further than the leader's disk.
    for other in [1, 2, 4] {
        w.hold(3, other);
    }
    w.set_level(3, 1, 2);
    w.take(Step::Disk(3));
    assert_eq!((w.core(3).standing().level, level(&w, 3)), (Some(Level(2)), 1));
    for other in [1, 2, 4] {
        w.block(3, other);
        w.break_links(3, other);
    }
    w.run(Duration::from_secs(60));
    w.elect(2, &[1, 2, 4]);
    w.settle();
    for other in [1, 2, 4] {
        w.release(3, other);
        w.unblock(3, other);
    }
    w.elect_all(2);
    w.settle();
    assert_eq!(w.core(3).standing().level, Some(Level(1)));
    assert_eq!([1, 2, 3, 4].map(|id| level(&w, id)), [1; 4]);
}

#[test]
fn the_level_comes_with_a_snapshot_and_stays_through_purges_and_restarts() {
    let mut w = ensemble([2, 2, 2, 2]);
    w.crash(1);
    for n in 0..9 {
        w.submit(3, &format!("{n}"));
        w.settle();
    }
    for id in [2, 3, 4] {
        w.save_snapshot(id);
        w.submit(3, &format!("behind {id}"));
        w.settle();
        w.save_snapshot(id);
        w.settle();
    }
    assert!(w.core(3).history().base() > z(1, 0), "purged: the marker with the level is gone");
    assert_eq!(level(&w, 3), 2);
    w.restart(1);
    w.elect_all(3);
    w.settle();
    assert!(w.core(1).history().base() > Zxid::ZERO, "it got a snapshot");
    assert_eq!(level(&w, 1), 2);
    for id in [1, 2, 3, 4] {
        w.crash(id);
        w.restart(id);
        assert_eq!(w.core(id).standing().level, Some(Level(2)), "{id}");
    }
}
