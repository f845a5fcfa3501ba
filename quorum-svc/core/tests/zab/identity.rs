//! Membership of an ensemble, and entries that are never cut off.

use api::ports::Role;
use api::{EnsembleId, Zxid};

use crate::world::{INIT_LIMIT, World, z};
use invariants::Answer;

/// Server 3 led the first epoch, gave the ensemble an id, and crashed before any other server had that
/// id.
fn half_started() -> World {
    let mut w = World::new(3, 0);
    w.preload(3, Zxid::ZERO, &[(1, 0)]);
    for id in [1, 2] {
        w.promise(id, 1);
    }
    w.crash(3);
    w.elect(2, &[1, 2]);
    w.settle();
    w
}

fn ensembles(w: &World) -> Vec<Option<EnsembleId>> {
    w.ids().into_iter().map(|id| w.nodes[&id].disk.stored.ensemble).collect()
}

#[test]
fn b01_the_first_leader_names_the_ensemble() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    assert_eq!(ensembles(&w), [Some(EnsembleId(3)); 3]);
    assert!(!w.core(1).standing().bound);
    w.submit(1, "a");
    w.settle();
    assert!(w.ids().into_iter().all(|id| w.core(id).standing().bound));
    w.elect_all(1);
    assert_eq!(ensembles(&w), [Some(EnsembleId(3)); 3]);
}

#[test]
fn b01_a_server_whose_first_start_came_to_nothing_takes_over_the_id_of_the_others() {
    let mut w = half_started();
    assert!(w.serving(1) && w.serving(2));
    let ticket = w.submit(2, "a");
    w.settle();
    w.restart(3);
    w.elect_all(2);
    assert_eq!(ensembles(&w), [Some(EnsembleId(2)); 3]);
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
    assert_eq!(w.answer(2, ticket), Some(Answer::Applied));
    // Now server 1 counts.
    w.crash(1);
    w.submit(2, "b");
    w.settle();
    assert_eq!(w.committed(), ["a", "b"]);
}

#[test]
fn b01_a_server_with_the_id_of_another_first_start_proves_nothing() {
    let mut w = half_started();
    w.submit(2, "a");
    w.settle();
    w.crash(1);
    w.crash(2);
    w.restart(3);
    w.restart(2);
    w.settle();
    w.elect(2, &[2, 3]);
    w.run(INIT_LIMIT / 2);
    assert!(!w.serving(2) && !w.serving(3), "only server 1 can vouch");
}

#[test]
fn b01_a_server_with_data_never_joins_another_ensemble() {
    for leader_is_bound in [true, false] {
        let mut w = World::new(3, 0);
        w.preload(1, Zxid::ZERO, &[(1, 3)]);
        w.preload(3, Zxid::ZERO, &[(5, if leader_is_bound { 4 } else { 0 })]);
        let mut stored = w.copy(3);
        stored.ensemble = Some(EnsembleId(7));
        w.start(3, stored, false);
        w.preload(2, Zxid::ZERO, &[]);
        let before = w.log(1);
        w.elect(3, &[1, 2, 3]);
        w.run(INIT_LIMIT / 2);
        assert!(!w.serving(1) && !w.serving(3));
        assert_eq!((w.log(1), w.nodes[&1].disk.stored.ensemble), (before, Some(EnsembleId(0))));
    }
}

#[test]
fn b02_a_server_without_the_committed_entries_does_not_lead() {
    let mut w = World::new(3, 0);
    w.preload(1, Zxid::ZERO, &[(1, 0), (5, 0)]);
    for id in [2, 3] {
        w.preload(id, Zxid::ZERO, &[(1, 3)]);
    }
    for id in [2, 3] {
        let mut stored = w.copy(id);
        stored.committed = z(1, 3);
        w.start(id, stored, false);
    }
    w.settle();
    assert!(w.core(2).status().committed == z(1, 3), "it is known after a restart");
    w.elect(1, &[1, 2, 3]);
    w.settle();
    assert_eq!(
        (w.role(1), w.nodes[&1].candidate),
        (Role::Looking, Some(None)),
        "it is the odd one, and knows it"
    );
    for _ in 0..3 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
    assert_eq!(w.log(1), w.log(2));
    assert!(w.log(1).contains(&z(1, 3)));
}

/// A stranger of the same name connected while the ensemble had no id. It reported older copies to all
/// servers but one.
#[test]
fn b01_servers_with_false_reports_before_the_first_write_begin_when_all_are_there() {
    let mut w = World::new(3, 0);
    w.elect_all(3);
    for id in [1, 2] {
        w.input(id, quorum_core::Input::RolledBack { note: false });
    }
    w.settle();
    assert!(w.ids().into_iter().all(|id| !w.nodes[&id].disk.stored.damage.is_some()), "it is not noted");
    for _ in 0..3 {
        w.fair_election();
        w.run(INIT_LIMIT);
    }
    assert!(w.ids().into_iter().all(|id| w.serving(id)));
}
