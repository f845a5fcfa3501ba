//! The one binary of Quorate.

use std::{process::ExitCode, sync::Arc};

use quorum_log::FsDisk;

fn main() -> ExitCode {
    quorate::run(std::env::args_os(), Arc::new(FsDisk))
}
