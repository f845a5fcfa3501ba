//! The command line.

use std::ops::Range;
use std::path::PathBuf;

use clap::Parser;
use sim::{draw, draw_with_changes, plan::Plan};

/// Runs whole ensembles in simulated time under faults drawn from seeds, and checks that everything that was promised
/// holds.
///
/// Without options, a sweep over seeds 0 to 99. The exit code is 0 if everything holds, 1 if something does not, and 2
/// if the simulator itself could not do what was asked.
#[derive(Parser, Debug)]
#[command(name = "sim", max_term_width = 100)]
pub(crate) struct Args {
    /// Seeds to run, as FROM..TO, without TO
    #[arg(long, value_parser = range, default_value = "0..100")]
    pub(crate) seeds: Range<u64>,
    /// Run fresh random seeds for this many minutes; each failing one is printed
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "schedule"])]
    pub(crate) minutes: Option<u64>,
    /// Replay one seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Replay a schedule that was printed or written by hand
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    pub(crate) schedule: Option<PathBuf>,
    /// Change the members in a third of the seeds. Some of these do not come to rest yet: docs/simulation.md
    #[arg(long)]
    pub(crate) change_members: bool,
    /// Print what happens, one line for each event; with --seed or --schedule
    #[arg(long)]
    pub(crate) trace: bool,
    /// Print the schedule before it is run; with --seed or --schedule
    #[arg(long)]
    pub(crate) print_schedule: bool,
    /// Do not look for a smaller schedule when one fails
    #[arg(long)]
    pub(crate) no_shrink: bool,
    /// Runs that the search for a smaller schedule may take
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) shrink_runs: usize,
    /// Continue after failures, up to this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) failures: usize,
    /// Threads; default: one for each core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Where a page is written that shows the failing history on a time line
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,
    /// Measure how fast a quiet ensemble of three nodes is simulated, over this many simulated seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) quiet_bench: Option<u64>,
    /// Hunt every mutant, with at most --mutant-seeds seeds each
    #[cfg(feature = "mutants")]
    #[arg(long)]
    pub(crate) mutants: bool,
    /// Seeds for each mutant
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(crate) mutant_seeds: u64,
    /// Hunt, or run under, only the mutant of this name
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME")]
    pub(crate) mutant: Option<String>,
    /// Write the table of mutants into this file, between its markers
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "FILE")]
    pub(crate) write_docs: Option<PathBuf>,
}

impl Args {
    /// The plan of this seed.
    pub(crate) fn draw(&self, seed: u64) -> Plan {
        if self.change_members { draw_with_changes(seed) } else { draw(seed) }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.filter(|r: &Range<u64>| !r.is_empty()).ok_or_else(|| "write it as 0..1000".into())
}
