//! `quorate completion`.

use clap::Args;
use clap_complete::Shell;

/// Print the completion script for a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(quorate completion bash)                                              in ~/.bashrc
  quorate completion zsh > \"${fpath[1]}/_quorate\"                                then start zsh again
  quorate completion fish > ~/.config/fish/completions/quorate.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell.
    pub(crate) shell: Shell,
}
