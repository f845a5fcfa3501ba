//! `quorate completion`.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, CompletionArgs},
    exit::Failure,
    output,
};

pub(crate) fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorate", &mut script);
    output::print_bytes(&script)
}
