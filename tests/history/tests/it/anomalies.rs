//! One wrong thing in a history that is right otherwise.

use history::{Rule, check_linearizable, check_order};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use crate::{
    good::STEPS_MAX,
    run::{Anomaly, anything, bad, plain},
};

/// Not every history has a place for every anomaly.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 100,
        max_global_rejects: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Injects it into many histories, each with its log, and returns the rules under which it was found.
fn by_order(anomaly: Anomaly) -> Vec<Rule> {
    let mut found = Vec::new();
    let mut runner = TestRunner::new(config());
    let result = runner.run(&(anything(), any::<usize>()), |(steps, pick)| {
        let run = bad(&steps, anomaly, pick);
        prop_assume!(run.is_some());
        let run = run.unwrap();
        let checked = check_order(&run.history, Some(&run.log));
        prop_assert!(checked.is_err(), "not found: {run:?}");
        Ok(())
    });
    result.unwrap();
    let mut runner = TestRunner::deterministic();
    let all = (anything(), any::<usize>());
    for _ in 0..100 {
        let (steps, pick) = all.new_tree(&mut runner).unwrap().current();
        if let Some(run) = bad(&steps, anomaly, pick) {
            found.push(check_order(&run.history, Some(&run.log)).unwrap_err().rule);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The same without a log, on histories that leave no doubt about the order.
fn by_search(anomaly: Anomaly) {
    let mut runner = TestRunner::new(config());
    let result = runner.run(&(plain(), any::<usize>()), |(steps, pick)| {
        let run = bad(&steps, anomaly, pick);
        prop_assume!(run.is_some());
        let checked = check_linearizable(&run.unwrap().history, STEPS_MAX);
        prop_assert!(checked.is_err(), "not found: {:?}", checked);
        prop_assert_eq!(checked.unwrap_err().rule, Rule::Linearizable);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_lost_write_is_found() {
    let rules = by_order(Anomaly::LostWrite);
    assert!(rules.contains(&Rule::WriteOrder) || rules.contains(&Rule::WriteResult), "{rules:?}");
    by_search(Anomaly::LostWrite);
}

#[test]
fn a_stale_linearizable_read_is_found() {
    assert!(by_order(Anomaly::StaleRead).contains(&Rule::Fresh));
    by_search(Anomaly::StaleRead);
}

#[test]
fn a_stale_sync_is_found() {
    // The search knows nothing of syncs.
    assert!(by_order(Anomaly::StaleSync).contains(&Rule::Fresh));
}

#[test]
fn a_write_that_is_carried_out_twice_is_found() {
    assert!(by_order(Anomaly::AppliedTwice).contains(&Rule::AtMostOnce));
    by_search(Anomaly::AppliedTwice);
}

#[test]
fn a_reordered_session_is_found() {
    assert!(by_order(Anomaly::ReorderedSession).contains(&Rule::SessionOrder));
    by_search(Anomaly::ReorderedSession);
}

#[test]
fn a_wrong_result_is_found() {
    assert_eq!(by_order(Anomaly::WrongResult), [Rule::WriteResult]);
    by_search(Anomaly::WrongResult);
}

#[test]
fn a_wrong_value_is_found() {
    assert_eq!(by_order(Anomaly::WrongValue), [Rule::ReadResult]);
    by_search(Anomaly::WrongValue);
}

#[test]
fn a_client_that_goes_back_in_time_is_found() {
    let rules = by_order(Anomaly::BackInTime);
    assert!(rules.contains(&Rule::OwnWrites) && rules.contains(&Rule::Monotone), "{rules:?}");
    by_search(Anomaly::BackInTime);
}

#[test]
fn a_refused_write_that_is_carried_out_is_found() {
    assert_eq!(by_order(Anomaly::RefusedButApplied), [Rule::AtMostOnce]);
    by_search(Anomaly::RefusedButApplied);
}

#[test]
fn writes_against_real_time_are_found() {
    assert!(by_order(Anomaly::WrongOrder).contains(&Rule::WriteOrder));
    by_search(Anomaly::WrongOrder);
}
