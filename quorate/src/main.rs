//! The one binary of Quorate: a node, a local ensemble, and the command line client. See [`args`] for what it can do.

mod args;
mod bench;
mod config_show;
mod exit;
mod health;
mod observe;
mod output;
mod serve;
mod session;
mod status;
mod tree;
mod up;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Bench, Cli, Command, Config};
use exit::{Doing as _, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quorate: {failure}");
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    // Log lines are for people who run a node; whoever runs a client wants its result.
    let verbosity = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    host::logging::init(verbosity).map_err(|e| Failure::usage(e.to_string()))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().doing("start the runtime")?;
    // On this thread and not in a task: the nodes of `up` end with the thread that started them.
    let result = runtime.block_on(dispatch(command));
    // Does not wait for a thread that still reads a file or standard input.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(&args).await,
        Command::Serve(args) => serve::run(&args).await,
        Command::Create(args) => verbs::create(&args).await,
        Command::Get(args) => verbs::get(&args).await,
        Command::Set(args) => verbs::set(&args).await,
        Command::Delete(args) => verbs::delete(&args).await,
        Command::Stat(args) => verbs::stat(&args).await,
        Command::Ls(args) => verbs::ls(&args).await,
        Command::Sync(args) => verbs::sync(&args).await,
        Command::Import(args) => tree::import::run(&args).await,
        Command::Export(args) => tree::export::run(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Health(args) => health::run(&args).await,
        Command::Loglevel(args) => health::loglevel(&args).await,
        Command::Bench(Bench::Write(args)) => bench::write(&args).await,
        Command::Config(Config::Show(args)) => config_show::run(&args),
    }
}
