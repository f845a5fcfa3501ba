//! Runs that have to hold with every build: a short sweep, and that a seed means the same run each time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

use std::cell::RefCell;
use std::rc::Rc;

use api::ReadLevel;
use history::{Call, Operation};
use sim::plan::{Fault, Plan, TimedFault};
use sim::shrink::shrink;
use sim::{draw, run};

fn trace(plan: &Plan) -> String {
    let text = Rc::new(RefCell::new(String::new()));
    let sink = text.clone();
    let report = run(
        plan,
        Some(Box::new(move |line| {
            sink.borrow_mut().push_str(line);
            sink.borrow_mut().push('\n');
        })),
    );
    assert_eq!(report.violation, None);
    text.take()
}

#[test]
fn the_same_seed_gives_the_same_trace_to_the_byte() {
    for seed in [1, 2, 6, 9] {
        let mut plan = draw(seed);
        plan.active_us = 6_000_000;
        let (first, second) = (trace(&plan), trace(&plan));
        assert!(first.lines().count() > 100, "seed {seed}: {}", first.lines().count());
        assert_eq!(first, second, "seed {seed}");
    }
    let (mut one, mut other) = (Plan::quiet(1, 3_000_000), Plan::quiet(2, 3_000_000));
    (one.workload.think, other.workload.think) = (50_000, 50_000);
    assert_ne!(trace(&one), trace(&other), "another seed is another run");
}

#[test]
fn a_short_sweep_holds() {
    for seed in 0..14 {
        let mut plan = draw(seed);
        plan.active_us = plan.active_us.min(8_000_000);
        let report = run(&plan, None);
        assert_eq!(report.violation, None, "seed {seed}: {}", serde_json::to_string(&plan).unwrap());
        assert!(report.stats.commits > 0, "seed {seed} committed nothing");
    }
}

/// What was wrong once, smaller than it was found: the simulator or the ensemble.
#[test]
fn schedules_that_failed_once_hold() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schedules");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(run(&plan, None).violation, None, "{}", file.display());
    }
}

#[test]
fn a_quiet_ensemble_elects_once_and_answers_everything() {
    let mut plan = Plan::quiet(7, 60_000_000);
    plan.workload.think = 100_000;
    let report = run(&plan, None);
    assert_eq!(report.violation, None);
    assert_eq!(report.stats.reigns, 1);
    assert!(report.history.operations.len() > 500, "{}", report.history.operations.len());
    // Now and then a client asks for more than anybody has seen.
    let may_fail = |o: &Operation| matches!(o.call, Call::Read(_, ReadLevel::AtLeast(_)));
    assert!(report.history.operations.iter().all(|o| o.outcome.zxid().is_some() || may_fail(o)));
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = draw(3);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

/// Two of three nodes that stay down for longer than anybody waits: the observer has to say so, and what does not matter
/// has to be left out of the smaller plan.
#[test]
fn what_fails_is_made_smaller() {
    let mut plan = Plan::quiet(1, 4_000_000);
    let fault = |at, fault| TimedFault { at, fault };
    plan.faults = vec![
        fault(1_000_000, Fault::Pause { node: 1, lasts: 10_000 }),
        fault(2_000_000, Fault::Kill { node: 2, down: 200_000_000 }),
        fault(2_500_000, Fault::WallJump { node: 1, ms: 5 }),
        fault(2_600_000, Fault::WallJump { node: 2, ms: 5 }),
    ];
    // Not even a broken ensemble: no voter has any weight.
    plan.members.iter_mut().for_each(|m| m.voter = Some((0, 0)));
    let violation = run(&plan, None).violation.unwrap();
    assert_eq!(violation.invariant, "plan");
    let small = shrink(&plan, &violation.invariant, 50);
    assert_eq!(small.faults, []);
}
