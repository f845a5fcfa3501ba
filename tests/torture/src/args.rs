//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Torments an ensemble of real processes and checks what its clients saw.
///
/// Starts nodes on this machine, joined by a network of our own that can be cut, and clients that record
/// every call and answer. Faults come one after the other, some at the same time: kill -9, SIGSTOP,
/// partitions, one-way silence, slow links, slow disks; with --split the end of single services, too. After
/// that everything heals, the ensemble must serve again, all nodes must agree, and two checkers examine the
/// recorded history. Exits with 1, and keeps all evidence, if anything is wrong.
#[derive(Parser, Debug)]
#[command(
    name = "torture",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  cargo run --release -p torture -- --duration 60s
  cargo run --release -p torture -- --duration 10m --nodes 5 --keep ./torture
  cargo run --release -p torture -- --seed 7 --faults kill,pause
  cargo run --release -p torture -- --split --duration 60s

`torture node` is for torture itself: the nodes are processes of this program."
)]
pub(crate) struct Args {
    /// How long faults go on.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s", value_name = "TIME")]
    pub(crate) duration: Duration,

    /// How many nodes: 3 to 5.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=5), value_name = "N")]
    pub(crate) nodes: u32,

    /// Run election, quorum and store of each node in processes of their own, and torment these one by one as well.
    #[arg(long)]
    pub(crate) split: bool,

    /// Which faults, when, and what clients do. The same seed tries the same things; real processes never repeat exactly.
    /// Chosen and printed if left out.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// How many clients; every other one pipelines.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub(crate) clients: u32,

    /// How many more clients, which speak ZooKeeper's protocol, and pipeline.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64), value_name = "N")]
    pub(crate) zookeeper: u32,

    /// Only these faults, separated by commas; `none` for a quiet run. Clients that read nothing, send half a message, vanish or
    /// flood are `rude-clients`, and come only if they are named. So does `full-disk`, which needs --small-logs, and root, to
    /// mount small file systems in memory; what is on them is not kept.
    #[arg(long, value_delimiter = ',', value_name = "FAULT")]
    pub(crate) faults: Option<Vec<String>>,

    /// Small logs that are purged at once, and snapshots all the time: a node that was away for some seconds needs one. The
    /// answers are then not held against the log, which is not all there.
    #[arg(long)]
    pub(crate) small_logs: bool,

    /// No process of a node may take more memory than this, whatever clients do, in MiB.
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    pub(crate) memory_max: u64,

    /// Hunt every planted bug of processes, or the one of --mutant: run what finds it, and expect a violation. Needs root.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    pub(crate) mutants: bool,

    /// Plant this bug into all nodes.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME")]
    pub(crate) mutant: Option<String>,

    /// Keep data directories, logs and the history here, also if nothing is wrong.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

impl Args {
    /// The bug that is planted into the nodes.
    #[cfg(feature = "mutants")]
    pub(crate) fn planted(&self) -> Option<&str> {
        self.mutant.as_deref()
    }

    /// The bug that is planted into the nodes: none.
    #[cfg(not(feature = "mutants"))]
    pub(crate) fn planted(&self) -> Option<&str> {
        None
    }
}
