//! `quorate bench`.

use api::ReadLevel;
use clap::{Args, Subcommand};
use host::config::Size;

use super::{
    Connection, Output,
    parse::{in_flight, size},
};

/// Measure an ensemble.
///
/// Sessions work on znodes under a parent created for the run, each with a fixed number of operations in flight. The load runs
/// for a tenth longer than --seconds (half a second at least); this warm-up is not measured. The run deletes everything it
/// created. The longest gap is the longest time in which no session got an answer.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
With -o json: {operation, ops, seconds, ops_per_second, lowest_second, p50_us, p99_us, p999_us, max_us, longest_gap_us,
server_cpu_us (of all nodes on this machine, for each operation; null if there are none), sessions, in_flight, size, znodes}.")]
pub(crate) enum Bench {
    /// Replace the values of znodes.
    #[command(
        visible_alias = "write",
        after_help = "\
Examples:
  quorate bench set                                     one session, 1,024 writes in flight
  quorate bench set --in-flight 1                       one write at a time
  quorate bench set --sessions 16 --in-flight 64 --seconds 10 -o json"
    )]
    Set(BenchLoad),
    /// Read the values of znodes.
    #[command(after_help = "\
Examples:
  quorate bench get --sessions 16 --in-flight 64
  quorate bench get --linearizable")]
    Get {
        /// Each read includes every write acknowledged before the read was issued.
        #[arg(long)]
        linearizable: bool,
        #[command(flatten)]
        load: BenchLoad,
    },
    /// Read and replace the values of znodes.
    #[command(after_help = "\
Examples:
  quorate bench mix --reads 90 --sessions 16 --in-flight 64")]
    Mix {
        /// Percentage of reads.
        #[arg(long, value_name = "PERCENT", default_value = "90", value_parser = clap::value_parser!(u32).range(0..=100))]
        reads: u32,
        /// Each read includes every write acknowledged before the read was issued.
        #[arg(long)]
        linearizable: bool,
        #[command(flatten)]
        load: BenchLoad,
    },
    /// Create znodes.
    ///
    /// Every znode stays until the end: ten seconds at 50,000 creates per second leave half a million of them. Their deletion
    /// takes about as long again.
    #[command(after_help = "\
Examples:
  quorate bench create --seconds 2")]
    Create(BenchLoad),
}

/// The operations of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Set,
    Create,
    /// A percentage of the operations are reads of this level; the others are sets.
    Mix(u32, ReadLevel),
}

impl Bench {
    pub(crate) fn parts(&self) -> (&'static str, Operation, &BenchLoad) {
        let level =
            |linearizable: bool| if linearizable { ReadLevel::Linearizable } else { ReadLevel::Local };
        match self {
            Bench::Set(load) => ("set", Operation::Set, load),
            Bench::Create(load) => ("create", Operation::Create, load),
            Bench::Get { linearizable, load } => ("get", Operation::Mix(100, level(*linearizable)), load),
            Bench::Mix { reads, linearizable, load } => {
                ("mix", Operation::Mix(*reads, level(*linearizable)), load)
            }
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct BenchLoad {
    /// Number of sessions, each on a connection of its own.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) sessions: u32,
    /// Operations in flight on each session.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = in_flight())]
    pub(crate) in_flight: u32,
    /// Size of each value.
    #[arg(long, value_name = "BYTES", default_value = "100B", value_parser = size)]
    pub(crate) size: Size,
    /// Seconds to measure.
    #[arg(long, value_name = "S", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Number of znodes that reads and sets go to, in turns.
    #[arg(long, value_name = "K", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) znodes: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}
