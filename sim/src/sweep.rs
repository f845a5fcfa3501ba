//! Many seeds on all cores.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use api::chance::Chance;
use sim::plan::Plan;
use sim::repeat::{SAME_TRACE, run_hashed, run_twice};
use sim::shrink::shrink;
use sim::{Report, Stats, run};

use crate::args::Args;

/// One seed of this number is run twice.
const TWICE: u64 = 100;

/// Which seeds, handed out one by one.
struct Seeds {
    next: AtomicU64,
    end: u64,
    until: Option<Instant>,
    /// Where fresh ones begin.
    base: Option<u64>,
}

impl Seeds {
    fn of(args: &Args) -> Seeds {
        let minutes = |m: u64| Instant::now() + Duration::from_secs(60 * m);
        match args.minutes {
            None => Seeds { next: args.seeds.start.into(), end: args.seeds.end, until: None, base: None },
            Some(m) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let base = Some(Chance::new(now.as_nanos() as u64).draw());
                Seeds { next: 0.into(), end: u64::MAX, until: Some(minutes(m)), base }
            }
        }
    }

    fn take(&self) -> Option<u64> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seed = self.base.map_or(number, |base| Chance::stream(base, number).draw());
        (number < self.end).then_some(seed)
    }
}

/// Runs the seeds. Whether everything held.
pub(crate) fn sweep(args: &Args) -> anyhow::Result<bool> {
    let began = Instant::now();
    let seeds = Seeds::of(args);
    if let Some(base) = seeds.base {
        println!("fresh seeds from {base:#x}");
    }
    let failures = AtomicUsize::new(0);
    let sum = Mutex::new(Stats::default());
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while failures.load(Ordering::Relaxed) < args.failures
                    && let Some(seed) = seeds.take()
                {
                    let report = match seed % TWICE {
                        0 => run_twice(&args.draw(seed), run_hashed),
                        _ => run(&args.draw(seed), None),
                    };
                    let failed = report.violation.is_some();
                    if failed {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.add(&report.stats);
                    progress(&sum, began);
                    if failed {
                        // Under the lock, so that two failures are not printed into each other.
                        tell_failure(args, &args.draw(seed), &report);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_default();
    let took = began.elapsed().as_secs_f64();
    println!("\r{sum}");
    let rate = sum.simulated_us as f64 / 1e6 / took;
    println!("took              {took:.1} s: {rate:.0} simulated cluster-seconds per second");
    let failed = failures.into_inner();
    println!("failures          {failed}");
    Ok(failed == 0)
}

fn progress(sum: &Stats, began: Instant) {
    let terminal = std::io::stderr().is_terminal();
    if sum.runs.is_multiple_of(if terminal { 10 } else { 500 }) {
        let hours = sum.simulated_us as f64 / 3.6e9;
        let seconds = began.elapsed().as_secs();
        let line =
            format!("{} runs, {hours:.2} simulated hours, {} commits, {seconds} s", sum.runs, sum.commits);
        if terminal {
            eprint!("\r{line} ")
        } else {
            eprintln!("{line}")
        }
        // Only for the eye.
        let _ = std::io::stderr().flush();
    }
}

/// A plan as people read it.
pub(crate) fn as_text(plan: &Plan) -> String {
    serde_json::to_string(plan).unwrap_or_else(|e| format!("cannot be written: {e}"))
}

/// Prints what is wrong, how to see it again, and a smaller schedule.
pub(crate) fn tell_failure(args: &Args, plan: &Plan, report: &Report) {
    let Some(violation) = &report.violation else { return };
    println!("\nseed {}: {violation}", plan.seed);
    let changes = if args.change_members { " --change-members" } else { "" };
    println!("  replay: cargo run --release -p sim -- --seed {}{changes} --trace", plan.seed);
    if let Some(file) = &args.page {
        match fs::write(file, history::page(&report.history, None)) {
            Ok(()) => println!("  history: {}", file.display()),
            Err(e) => println!("  the history cannot be written to {}: {e}", file.display()),
        }
    }
    // Smaller plans are tried once each, which says nothing of this.
    if args.no_shrink || violation.invariant == SAME_TRACE {
        return;
    }
    let small = shrink(plan, &violation.invariant, args.shrink_runs);
    println!(
        "  {} of {} faults suffice; schedule, for --schedule FILE:",
        small.faults.len(),
        plan.faults.len()
    );
    println!("{}", as_text(&small));
}
