//! `sim`: sweeps over seeds, replays and shrinks what fails.

mod args;
#[cfg(feature = "mutants")]
mod hunt;
mod sweep;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use sim::plan::Plan;
use sim::{Report, TraceSink, run};

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    // What a core asserts is caught and reported with its seed.
    if !args.trace {
        std::panic::set_hook(Box::new(|_| {}));
    }
    match carry_out(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything holds.
fn carry_out(args: &Args) -> anyhow::Result<bool> {
    #[cfg(feature = "mutants")]
    if let Some(name) = args.mutant.as_deref().filter(|_| !args.mutants) {
        let named = api::mutants::Mutant::named(name);
        anyhow::ensure!(named.is_some(), "there is no mutant {name}; --mutants lists them");
        api::mutants::plant(named);
    }
    if let Some(seconds) = args.quiet_bench {
        return Ok(quiet_bench(seconds));
    }
    #[cfg(feature = "mutants")]
    if args.mutants {
        return hunt::hunt(args);
    }
    if let Some(file) = &args.schedule {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let plan: Plan =
            serde_json::from_str(&text).with_context(|| format!("{} is no schedule", file.display()))?;
        return Ok(one(args, &plan));
    }
    if let Some(seed) = args.seed {
        return Ok(one(args, &args.draw(seed)));
    }
    sweep::sweep(args)
}

/// Runs one plan; says what came of it.
fn one(args: &Args, plan: &Plan) -> bool {
    if args.print_schedule {
        println!("{}", sweep::as_text(plan));
    }
    let sink: Option<TraceSink> = args.trace.then(|| Box::new(|line: &str| println!("{line}")) as TraceSink);
    let report = run(plan, sink);
    let Report { violation: None, stats, .. } = &report else {
        sweep::tell_failure(args, plan, &report);
        return false;
    };
    println!("{stats}");
    true
}

/// How fast simulated time passes on one core when nothing goes wrong.
fn quiet_bench(seconds: u64) -> bool {
    let began = Instant::now();
    let report = run(&Plan::quiet(1, seconds * 1_000_000), None);
    let (simulated, took) = (report.stats.simulated_us as f64 / 1e6, began.elapsed().as_secs_f64());
    println!("{}", report.stats);
    println!("{:.0} simulated cluster-seconds per second, on one core", simulated / took);
    if let Some(violation) = &report.violation {
        println!("{violation}");
    }
    report.violation.is_none()
}
