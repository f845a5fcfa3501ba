//! `quorate bench`.

use api::ReadLevel;
use clap::{Args, Subcommand};
use host::config::Size;

use super::{Connection, Output, in_flight, size};

#[derive(Subcommand, Debug)]
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
        /// How many of 100 operations are reads.
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
    /// Every znode stays until the end: ten seconds at 50,000 creates per second leave half a million of them, whose removal
    /// takes about as long again.
    #[command(after_help = "\
Examples:
  quorate bench create --seconds 2")]
    Create(BenchLoad),
}

/// What a run does, besides the size of the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Set,
    Create,
    /// So many of 100 operations are reads of this level; the others are sets.
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
    /// Sessions, each on a connection of its own.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) sessions: u32,
    /// Operations in flight on each session.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = in_flight())]
    pub(crate) in_flight: u32,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value = "100B", value_parser = size)]
    pub(crate) size: Size,
    /// How long to measure.
    #[arg(long, value_name = "S", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Znodes that reads and sets go to, in turns.
    #[arg(long, value_name = "K", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) znodes: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}
