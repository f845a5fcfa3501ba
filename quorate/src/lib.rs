//! The one binary of Quorate as a library: a node, a local ensemble, and the command line client.
//!
//! `main` does nothing but call [`run`]. So a test can be a node itself, over a disk of its own choice.

mod acl;
mod args;
mod bench;
mod certs;
mod completion;
mod config_show;
mod exit;
mod gateway;
mod health;
mod multi;
mod observe;
mod output;
mod quota;
mod recover;
mod secure;
mod serve;
mod services;
mod session;
mod shell;
mod split;
mod stale;
mod status;
mod threads;
mod top;
mod tree;
mod up;
mod upgrade;
mod verbs;
mod watch;
mod znode;
mod zookeeper;

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use clap::Parser as _;
use quorum_log::Disk;

use args::{Cli, Command, Config};
use exit::{Doing as _, Failure};

/// Does what the command line says, the name of the program first. A node keeps its log on `disk`, which is the file
/// system everywhere but in tests. Returns what the process shall end with.
///
/// To be called on the main thread: the nodes of `up` end with the thread that started them. Faults of the command line
/// itself, and `--help`, end the process.
pub fn run(args: impl IntoIterator<Item = OsString>, disk: Arc<dyn Disk>) -> ExitCode {
    let cli = Cli::parse_from(args);
    match carry_out(cli.command, disk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(format_args!("quorate: {failure}"));
            failure.exit.into()
        }
    }
}

fn carry_out(command: Command, disk: Arc<dyn Disk>) -> Result<(), Failure> {
    // Operators of a node read log lines; users of a client read its result.
    let is_node = runs_a_node(&command);
    let verbosity = if is_node { "info" } else { "warn" };
    host::logging::init(verbosity).or_usage()?;
    let runtime = threads::runtime(is_node && !matches!(command, Command::Gateway(_)))?;
    // On this thread and not in a task: the nodes of `up` end with the thread that started them.
    let result = runtime.block_on(dispatch(command, disk));
    // Does not wait for a thread that still reads a file or standard input.
    runtime.shutdown_background();
    result
}

fn runs_a_node(command: &Command) -> bool {
    use Command::{Election, Gateway, Quorum, Serve, Store};
    matches!(command, Serve(_) | Election(_) | Quorum(_) | Store(_) | Gateway(_))
}

async fn dispatch(command: Command, disk: Arc<dyn Disk>) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(&args).await,
        Command::Serve(args) => serve::run(&args, disk).await,
        Command::Election(args) => split::election(&args).await,
        Command::Quorum(args) => split::quorum(&args, disk).await,
        Command::Store(args) => split::store(&args).await,
        Command::Gateway(args) => crate::gateway::run(&args).await,
        Command::Create(args) => verbs::create(&args).await,
        Command::Get(args) => verbs::get(&args).await,
        Command::Set(args) => verbs::set(&args).await,
        Command::Delete(args) => verbs::delete(&args).await,
        Command::Multi(args) => multi::run(&args).await,
        Command::Stat(args) => verbs::stat(&args).await,
        Command::Ls(args) => verbs::ls(&args).await,
        Command::Watch(args) => watch::run(&args).await,
        Command::Acl(command) => acl::run(&command).await,
        Command::Tree(args) => verbs::tree(&args).await,
        Command::Count(args) => quota::count(&args).await,
        Command::Quota(command) => quota::run(&command).await,
        Command::Sync(args) => verbs::sync(&args).await,
        Command::Shell(args) => shell::run(&args).await,
        Command::Import(args) => tree::import::run(&args).await,
        Command::Export(args) => tree::export::run(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Top(args) => top::run(&args).await,
        Command::Upgrade(command) => upgrade::run(&command).await,
        Command::Health(args) => health::run(&args).await,
        Command::Certs(command) => certs::run(&command),
        Command::Loglevel(args) => health::loglevel(&args).await,
        Command::Recover(command) => recover::run(&command, disk),
        Command::Bench(command) => bench::run(&command).await,
        Command::Config(Config::Show(args)) => config_show::run(&args),
        Command::Completion(args) => completion::run(&args),
    }
}
