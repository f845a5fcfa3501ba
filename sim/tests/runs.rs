//! Runs that have to hold with every build: a short sweep, and that a seed means the same run each time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

use std::cell::RefCell;
use std::rc::Rc;

use api::ReadLevel;
use history::{Call, Operation};
use sim::plan::{Fault, Plan, TimedFault};
use sim::repeat::{SAME_TRACE, run_hashed, run_twice};
use sim::shrink::shrink;
use sim::{Stats, draw, run};

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

/// A simulator that is not repeatable is found out by the sweep itself.
#[test]
fn a_run_that_is_another_one_the_second_time_is_a_violation() {
    let mut plan = draw(4);
    plan.active_us = 3_000_000;
    assert_eq!(run_twice(&plan, run_hashed).violation, None);
    let mut other = plan.clone();
    other.seed += 1;
    let mut runs = 0;
    let report = run_twice(&plan, |plan| {
        runs += 1;
        run_hashed(if runs == 1 { plan } else { &other })
    });
    assert_eq!(report.violation.unwrap().invariant, SAME_TRACE);
}

/// A learner is away for some seconds, and what its leader would read for it is damaged a moment before it is back: `n` is 3 to 5, and
/// the greater the later. It finds the others within two seconds, by pauses of its election's links.
fn reads_damage(seed: u64, behind: u32, change: fn(&mut Plan), file: u64, n: u64) -> Stats {
    let (place, at) = (u64::MAX / 7 * n, 8_950_000 + (n - 3) * 800_000);
    let mut plan = Plan::quiet(seed, 12_000_000);
    (plan.workload.think, plan.workload.writes, plan.workload.deadline) = (20_000, 1_000, 1_000);
    // Nothing of the log is in memory.
    plan.sizes.recent = 0;
    change(&mut plan);
    let blocked = (1..=3).filter(|&n| n != behind).flat_map(|n| [(behind, n), (n, behind)]).collect();
    plan.faults = vec![
        TimedFault { at: 3_000_000, fault: Fault::Partition { blocked, lasts: 6_000_000 } },
        TimedFault { at, fault: Fault::BitFlipRunning { node: 0, file, place } },
    ];
    let report = run(&plan, None);
    assert_eq!(report.violation, None, "seed {seed}, behind {behind}, {place}");
    report.stats
}

fn sum_of(counts: &[Stats], name: &str) -> u64 {
    counts.iter().filter_map(|stats| stats.counts.get(name)).sum()
}

/// Seed, the node that is behind, and where a bit flips. There are several, because small changes decide whether the damaged place is read.
fn cases() -> impl Iterator<Item = (u64, u32, u64)> {
    (5..9).flat_map(|seed| (1..=3).flat_map(move |behind| (3..=5).map(move |n| (seed, behind, n))))
}

/// If a leader that finds its log damaged only let the learner go, the learner would come back for ever. It stops, and heals
/// when it is started again.
#[test]
fn a_leader_that_finds_its_own_log_damaged_stops_and_heals() {
    // No snapshot takes the place of the log. The newest file.
    let no_snapshots: fn(&mut Plan) = |plan| plan.sizes.snapshot_entries = 1_000_000;
    let run = |(seed, behind, n)| reads_damage(seed, behind, no_snapshots, u64::MAX, n);
    let counts: Vec<Stats> = cases().map(run).collect();
    assert!(sum_of(&counts, "stopped by damage") >= 3, "{counts:?}");
}

/// A snapshot is not what a node stands on: there is an older one, and it can make another.
#[test]
fn a_leader_that_finds_a_snapshot_damaged_goes_on_without_it() {
    let purged: fn(&mut Plan) = |plan| {
        (plan.sizes.segment, plan.sizes.snapshot_entries, plan.sizes.keep_entries) = (1_000, 200, 0);
    };
    let run = |(seed, behind, n)| reads_damage(seed, behind, purged, n, n);
    let counts: Vec<Stats> = cases().map(run).collect();
    assert!(sum_of(&counts, "snapshots unreadable for a learner") >= 2, "{counts:?}");
    assert_eq!(sum_of(&counts, "stopped by damage"), 0, "{counts:?}");
}

/// The stores compare their states through the log. One that is not the leader's is thrown away and built again, from a snapshot
/// where the log does not reach back to the start. No other node notices: the checks of the run hold.
#[test]
fn a_state_that_is_not_the_leaders_is_found_and_built_again() {
    let run = |seed, flipped, snapshot_entries| {
        let mut plan = Plan::quiet(seed, 40_000_000);
        (plan.workload.think, plan.timing.session) = (50_000, 20_000);
        (plan.sizes.snapshot_entries, plan.sizes.keep_entries, plan.sizes.segment) =
            (snapshot_entries, 0, 1_000);
        plan.faults = vec![TimedFault { at: 5_000_000, fault: Fault::StateFlip { node: flipped } }];
        let report = run(&plan, None);
        assert_eq!(report.violation, None, "seed {seed}, node {flipped}");
        report.stats
    };
    for snapshot_entries in [1_000_000, 100] {
        // In a quiet ensemble node 3 leads.
        let counts: Vec<Stats> = (1..=2).map(|node| run(3, node, snapshot_entries)).collect();
        assert_eq!(sum_of(&counts, "states flipped"), 2, "{counts:?}");
        assert_eq!(sum_of(&counts, "states built again"), 2, "{counts:?}");
    }
}

/// A client that only pings is cut off from the others together with its node, at any moment between two pings.
fn cut_off_with_its_node(seed: u64, node: u32, at: u64) -> Stats {
    let mut plan = Plan::quiet(seed, 15_000_000);
    // Longer than any silence that a leader bears.
    (plan.timing.session, plan.workload.think) = (6_000, 60_000_000);
    let (client, others) = (4, (1..=3).filter(|&n| n != node));
    let blocked = others.flat_map(|n| [node, client].map(|cut| [(cut, n), (n, cut)])).flatten().collect();
    plan.faults = vec![TimedFault { at, fault: Fault::Partition { blocked, lasts: 10_000_000 } }];
    let report = run(&plan, None);
    assert_eq!(report.violation, None, "seed {seed}, node {node}, {at}");
    report.stats
}

/// 16 clients were told too late while a leader took a report of signs of life for as old as its arrival.
#[test]
fn b13_a_client_that_is_cut_off_with_its_node_knows_before_its_session_is_expired() {
    let cases = (0..3).flat_map(|seed| (1..=3).flat_map(move |node| (0..20).map(move |n| (seed, node, n))));
    let counts: Vec<Stats> =
        cases.map(|(seed, node, n)| cut_off_with_its_node(seed, node, 3_000_000 + 100_000 * n)).collect();
    assert!(sum_of(&counts, "sessions expired") >= 30, "{counts:?}");
}

/// Two of three nodes lose their disks at about the same time, which no ensemble can bear: the third cannot know alone what
/// was committed. The observer has to say so, and the smaller plan has to be left with what it takes: both losses, and
/// nothing else.
#[test]
fn what_fails_is_made_smaller() {
    let mut plan = Plan::quiet(1, 6_000_000);
    plan.workload.think = 50_000;
    plan.reckless = true;
    let fault = |at, fault| TimedFault { at, fault };
    let losses = [
        fault(2_000_000, Fault::Wipe { node: 2, down: 900_000 }),
        fault(2_100_000, Fault::Wipe { node: 3, down: 900_000 }),
    ];
    plan.faults = vec![
        fault(1_000_000, Fault::Pause { node: 1, lasts: 10_000 }),
        losses[0].clone(),
        fault(2_050_000, Fault::WallJump { node: 1, ms: 5 }),
        losses[1].clone(),
        fault(2_500_000, Fault::Break { a: 1, b: 2 }),
        fault(4_000_000, Fault::Kill { node: 2, down: 50_000 }),
        fault(5_000_000, Fault::SlowDisk { node: 1, delay: 10_000, lasts: 100_000 }),
    ];
    let violation = run(&plan, None).violation.unwrap();
    assert_eq!(violation.invariant, "L1 liveness", "{}", violation.what);
    for one in &losses {
        let borne = Plan { faults: vec![one.clone()], ..plan.clone() };
        assert_eq!(run(&borne, None).violation, None, "one of them alone can be borne");
    }
    let small = shrink(&plan, &violation.invariant, 60);
    assert_eq!(small.faults, losses);
    assert_eq!(run(&small, None).violation.unwrap().invariant, violation.invariant);
}
