//! `torture`: an ensemble of real processes under kill -9, SIGSTOP, partitions, slow links and slow disks, with clients
//! that record what they see; and at the end the question whether a correct ensemble can have answered so.
//!
//! See `docs/torture.md`.

mod args;
mod beliefs;
mod clients;
mod ensemble;
mod evidence;
mod faults;
#[cfg(feature = "mutants")]
mod hunt;
mod logs;
mod lookout;
mod operations;
mod ports;
mod raw;
mod recorder;
mod rude;
mod run;
mod slow_disk;
mod verdict;
mod wire;

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use clap::Parser as _;

/// The first argument of a process that is a node.
const NODE: &str = "node";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    if rest.first().is_some_and(|first| first == NODE) {
        return node(program, rest);
    }
    let args = args::Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("torture: cannot start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    // On this thread and not in a task: the kernel ends the nodes with the thread that started them.
    #[cfg(feature = "mutants")]
    let ended = runtime.block_on(async {
        match args.mutants {
            true => hunt::hunt(&args).await,
            false => run::run(&args).await,
        }
    });
    #[cfg(not(feature = "mutants"))]
    let ended = runtime.block_on(run::run(&args));
    runtime.shutdown_background();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("torture: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The variable that tells a node which bug is planted into it.
const MUTANT: &str = "TORTURE_MUTANT";

/// Is a node, or a service of one: `torture node SLOWNESS serve ...` is `quorate serve ...` over a disk that is as slow as the
/// file SLOWNESS says.
fn node(program: OsString, mut args: Vec<OsString>) -> ExitCode {
    if args.len() < 3 {
        eprintln!("torture: `{NODE}` is for torture itself");
        return ExitCode::from(2);
    }
    #[cfg(feature = "mutants")]
    std::env::var(MUTANT)
        .ok()
        .and_then(|name| api::mutants::Mutant::named(&name))
        .into_iter()
        .for_each(api::mutants::plant_everywhere);
    let slowness = args.remove(1);
    args.remove(0);
    let disk = slow_disk::SlowDisk::new(slowness.into());
    quorate::run(std::iter::once(program).chain(args), Arc::new(disk))
}
