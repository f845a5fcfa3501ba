//! The command line of the explorer.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use explore::{Limits, Model, Report, Verdict, election, explore, zab};

mod suite;

/// Visits every state of a small ensemble and checks the invariants in each. Without `--model`: a suite of
/// configurations that takes some minutes and less than 4 GB.
#[derive(Parser)]
struct Args {
    /// The model
    #[arg(long, value_enum)]
    model: Option<Which>,
    /// Voters
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Observers besides
    #[arg(long, default_value_t = 0)]
    observers: usize,
    #[command(flatten)]
    bounds: zab::Bounds,
    /// ZAB: where the servers stand at first
    #[arg(long, value_enum, default_value_t)]
    start: zab::Start,
    /// ZAB: commits wait for a proposal to go along with
    #[arg(long)]
    late_commits: bool,
    /// ZAB: plant a bug
    #[arg(long, value_enum, default_value_t)]
    fault: zab::Fault,
    /// Election: the zxids with which the voters stand
    #[arg(long, value_delimiter = ',', default_value = "1,0,1")]
    zxids: Vec<u64>,
    /// Election: no time-out fires while a message is under way
    #[arg(long)]
    timely: bool,
    /// Election: the last round in which a server looks again
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Election: messages under way in one direction
    #[arg(long, default_value_t = 2)]
    queue: usize,
    /// Election: plant a bug
    #[arg(long, value_enum, default_value_t)]
    election_fault: election::Fault,
    /// Stop after this many states; 50 bytes each
    #[arg(long, default_value_t = 60_000_000)]
    max_states: usize,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 1800)]
    max_seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// ZAB under an election that may say anything
    Zab,
    /// The election alone
    Election,
}

impl Args {
    fn limits(&self) -> Limits {
        Limits {
            states: self.max_states,
            time: Duration::from_secs(self.max_seconds),
            progress: Duration::from_secs(10),
        }
    }

    fn zab(&self) -> zab::Setup {
        let &Args { servers: voters, observers, start, bounds, late_commits, fault, .. } = self;
        zab::Setup { voters, observers, start, bounds, late_commits, fault }
    }

    fn election(&self) -> election::Setup {
        election::Setup {
            voters: self.servers,
            observers: self.observers,
            zxids: self.zxids.clone(),
            timely: self.timely,
            crashes: self.bounds.crashes,
            cuts: self.bounds.cuts,
            rounds: self.rounds,
            queue: self.queue,
            fault: self.election_fault,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let reports = match args.model {
        Some(Which::Zab) => {
            vec![run(&format!("zab {:?}", args.zab()), zab::Zab::new(args.zab()), args.limits())]
        }
        Some(Which::Election) => {
            let setup = args.election();
            vec![run(&format!("election {setup:?}"), election::Election::new(setup), args.limits())]
        }
        None => suite::run_all(args.limits()),
    };
    let sound =
        |r: &Option<Report>| r.as_ref().is_some_and(|r| !matches!(r.verdict, Verdict::Violation { .. }));
    if reports.iter().all(sound) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores one model and prints what came of it; `None` if there is no such model.
fn run<M: Model>(name: &str, model: Result<M, String>, limits: Limits) -> Option<Report> {
    println!("{name}");
    match model {
        Ok(mut model) => {
            let report = explore(&mut model, limits);
            println!("  {}\n  {}\n", report.to_string().replace('\n', "\n  "), model.tables());
            Some(report)
        }
        Err(why) => {
            println!("  {why}");
            None
        }
    }
}
