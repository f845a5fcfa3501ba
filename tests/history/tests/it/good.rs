use history::{check_linearizable, check_order};
use proptest::prelude::*;

use crate::run::{anything, good, plain};

pub(crate) const STEPS_MAX: u64 = 200_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_a_correct_ensemble_answers_is_accepted_by_both(steps in anything()) {
        let run = good(&steps);
        prop_assert_eq!(check_order(&run.history, None).map(|s| s.operations), Ok(run.history.operations.len()));
        let summary = check_order(&run.history, Some(&run.log));
        prop_assert!(summary.is_ok(), "{}", summary.unwrap_err());
        let summary = check_linearizable(&run.history, STEPS_MAX);
        prop_assert!(summary.is_ok(), "{}", summary.unwrap_err());
        prop_assert_eq!(summary.unwrap().undecided, 0);
    }

    #[test]
    fn histories_of_sets_and_reads_are_decided_almost_without_a_search(steps in plain()) {
        let run = good(&steps);
        let summary = check_linearizable(&run.history, STEPS_MAX);
        prop_assert!(summary.is_ok(), "{}", summary.unwrap_err());
        let summary = summary.unwrap();
        prop_assert!(summary.steps <= 2 * summary.operations as u64, "{summary:?}");
    }
}
