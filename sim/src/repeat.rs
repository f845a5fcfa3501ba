//! Whether a seed means the same run each time: what fails can only be had again if it does.

use std::cell::RefCell;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64;

use crate::plan::Plan;
use crate::report::{Report, Violation};
use crate::world::run;

/// The name of the invariant.
pub const SAME_TRACE: &str = "same seed, same trace";

/// A run with the hash of each line of its trace, and at the end that of what came of it.
#[must_use]
pub fn run_hashed(plan: &Plan) -> (Report, Vec<u64>) {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let sink = lines.clone();
    let report = run(plan, Some(Box::new(move |line| sink.borrow_mut().push(xxh3_64(line.as_bytes())))));
    let mut lines = lines.take();
    lines.push(xxh3_64(format!("{report:?}").as_bytes()));
    (report, lines)
}

/// Runs a plan twice, by `run`, and compares.
#[must_use]
pub fn run_twice(plan: &Plan, mut run: impl FnMut(&Plan) -> (Report, Vec<u64>)) -> Report {
    let ((mut report, first), (_, second)) = (run(plan), run(plan));
    report.stats.count("seeds run twice");
    if first != second {
        let same = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
        let (one, other) = (first.len(), second.len());
        let what = format!("of {one} and {other} lines only the first {same} are the same in two runs");
        let at = report.stats.simulated_us;
        report.violation = Some(Violation { invariant: SAME_TRACE.into(), what, at });
    }
    report
}
