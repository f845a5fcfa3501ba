//! Small configurations close without a violation, and planted bugs are found: an explorer that finds none of them
//! proves nothing when it finds none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

use explore::election::{self, Election};
use explore::zab::{self, Bounds, Start, Zab};
use explore::{Limits, Report, Verdict, explore};

fn zab(setup: zab::Setup) -> Report {
    explore(&mut Zab::new(setup).unwrap(), Limits::default())
}

fn elect(setup: election::Setup) -> Report {
    explore(&mut Election::new(setup).unwrap(), Limits::default())
}

/// All states were visited, and they are many enough to have been more than a standstill.
fn assert_closed(report: &Report, at_least: usize) {
    assert_eq!(report.verdict, Verdict::Closed, "{report}");
    assert!(report.states >= at_least, "{report}");
}

fn violation(report: Report) -> (String, Vec<String>) {
    match report.verdict {
        Verdict::Violation { what, trace } => (what, trace),
        other => panic!("{other:?}: the planted bug was not found"),
    }
}

const SMALL: Bounds = Bounds { elections: 1, crashes: 1, writes: 1, ..Bounds::NONE };
/// Enough for the consequences of each planted bug.
const TWO_REIGNS: Bounds = Bounds { elections: 2, ..SMALL };

fn of_three(bounds: Bounds, fault: zab::Fault) -> zab::Setup {
    zab::Setup { bounds, fault, ..zab::Setup::of_voters(3) }
}

#[test]
fn zab_with_a_crash_and_a_write_closes() {
    assert_closed(&zab(of_three(SMALL, zab::Fault::None)), 50_000);
}

#[test]
fn a_search_that_reaches_its_bound_reports_it() {
    let limits = Limits { states: 5_000, ..Limits::default() };
    let mut model = Zab::new(of_three(SMALL, zab::Fault::None)).unwrap();
    let report = explore(&mut model, limits);
    assert_eq!(report.verdict, Verdict::Cut);
}

#[test]
fn the_same_search_finds_the_same_states() {
    let setup = of_three(Bounds { crashes: 0, ..SMALL }, zab::Fault::None);
    let (a, b) = (zab(setup), zab(setup));
    assert_eq!((a.states, a.transitions, a.depth), (b.states, b.transitions, b.depth));
}

#[test]
fn elections_on_a_timely_network_close() {
    let three = election::Setup { zxids: vec![1, 0, 1], timely: true, ..election::Setup::of_voters(3) };
    assert_closed(&elect(three), 1_000);
    let two = election::Setup { observers: 1, queue: 1, timely: true, ..election::Setup::of_voters(2) };
    assert_closed(&elect(two), 300);
}

#[test]
fn an_ack_before_the_disk_is_found() {
    let (what, trace) = violation(zab(of_three(SMALL, zab::Fault::AckBeforeDurable)));
    assert!(what.contains("I11"), "{what}");
    assert!(trace.last().unwrap().contains("ACK"), "{trace:#?}");
}

#[test]
fn a_promise_that_a_crash_forgets_is_found() {
    let (what, trace) = violation(zab(of_three(TWO_REIGNS, zab::Fault::PromiseForgotten)));
    assert!(what.contains("I9") || what.contains("I8"), "{what}");
    assert!(trace.iter().any(|line| line.contains("crashes")), "{trace:#?}");
}

#[test]
fn an_epoch_that_is_durable_before_its_log_is_found() {
    let (what, trace) = violation(zab(of_three(TWO_REIGNS, zab::Fault::EpochBeforeLog)));
    assert!(what.contains("I9"), "{what}");
    assert!(trace.iter().any(|line| line.contains("crashes")), "{trace:#?}");
}

#[test]
fn a_current_epoch_that_is_not_stored_is_found() {
    // A server that never had an epoch is not believed anyway.
    let setup = of_three(TWO_REIGNS, zab::Fault::EpochForgotten);
    let (what, trace) = violation(zab(zab::Setup { start: Start::Written, ..setup }));
    assert!(what.contains("I11"), "{what}");
    assert!(trace.last().unwrap().contains("cut back"), "{trace:#?}");
}

#[test]
fn a_truncation_that_the_disk_ignores_is_found() {
    let (what, trace) = violation(zab(of_three(TWO_REIGNS, zab::Fault::TruncIgnored)));
    assert!(what.contains("I2") || what.contains("I14"), "{what}");
    assert!(trace.iter().any(|line| line.contains("TRUNC")), "{trace:#?}");
}

/// A commit that waits leaves with the next proposal, or when it has waited for long enough.
#[test]
fn commits_that_wait_for_proposals_close() {
    let bounds = Bounds { crashes: 0, writes: 2, ..SMALL };
    let late = zab::Setup { late_commits: true, ..of_three(bounds, zab::Fault::None) };
    let (report, at_once) = (zab(late), zab(zab::Setup { late_commits: false, ..late }));
    assert_closed(&report, 10_000);
    assert_ne!(report.states, at_once.states, "no commit waited");
    let (what, trace) = violation(zab(zab::Setup { fault: zab::Fault::CommitRidesAhead, ..late }));
    assert!(what.contains("I11"), "{what}");
    assert!(trace.iter().any(|line| line.contains(", COMMIT")), "{trace:#?}");
}

#[test]
fn an_observer_that_counts_is_found() {
    // Beside two voters: of three, an observer more would not make a quorum of its own.
    let bounds = Bounds { crashes: 0, ..SMALL };
    let fault = zab::Fault::ObserverCounts;
    let setup = zab::Setup { observers: 1, bounds, fault, ..zab::Setup::of_voters(2) };
    assert!(violation(zab(setup)).0.contains("I11"));
    let fault = election::Fault::ObserverVotes;
    let setup = election::Setup { observers: 1, queue: 1, fault, ..election::Setup::of_voters(2) };
    assert!(violation(elect(setup)).0.contains("S7"));
}

#[test]
fn votes_of_other_rounds_that_count_are_found() {
    let fault = election::Fault::AnyRoundCounts;
    let (what, _) = violation(elect(election::Setup { fault, ..election::Setup::of_voters(3) }));
    assert!(what.contains("never elected") || what.contains("S7"), "{what}");
}

/// See "What was found" in `docs/model-checking.md`: a wiped server once vouched for one that has nothing but a marker.
#[test]
fn a_wiped_disk_makes_no_ensemble_start_over() {
    let run = |start, elections| {
        let bounds = Bounds { elections, wipes: 1, ..Bounds::NONE };
        zab(zab::Setup { start, bounds, ..zab::Setup::of_voters(3) })
    };
    assert_closed(&run(Start::Blank, 2), 100);
    let bounds = Bounds { elections: 1, damages: 1, ..Bounds::NONE };
    assert_closed(&zab(zab::Setup { start: Start::Behind, bounds, ..zab::Setup::of_voters(3) }), 100);
    assert_closed(&run(Start::Written, 2), 10_000);
}
