//! The one binary of Quorate.

use std::{process::ExitCode, sync::Arc};

use quorum_log::FsDisk;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate::run(std::env::args_os(), Arc::new(FsDisk))
}
