//! `quorate shell`, and the commands that it reads.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::{Connection, parse::limit, write::Condition};

/// Work on the tree with one session: commands are read from the terminal, line by line.
///
/// Paths may be relative to the current znode (`cd`), and Tab completes them. Words are separated and quoted as in a shell,
/// without expansions. Ephemerals live as long as this session. Ctrl-C drops a line or a command that takes too long, Ctrl-D
/// ends the session. If standard input is no terminal, there is no prompt, and the first command that fails ends the session,
/// with its exit code.
///
/// Lines are kept in $XDG_STATE_HOME/quorate/history (else ~/.local/state/quorate/history), except those that begin with a
/// space.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate shell
  quorate shell /app                    begins there
  echo 'ls -l' | quorate shell /app
  In the shell: help, and help ls")]
pub(crate) struct ShellArgs {
    /// Znode to begin with.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Neither read nor write the history of lines.
    #[arg(long)]
    pub(crate) no_history: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// A line in the shell.
#[derive(Parser, Debug)]
#[command(name = "", no_binary_name = true, disable_help_flag = true)]
pub(crate) struct ShellLine {
    #[command(subcommand)]
    pub(crate) command: ShellCommand,
}

/// A command of the shell.
#[derive(Subcommand, Debug)]
#[command(help_template = "{subcommands}\n")]
pub(crate) enum ShellCommand {
    /// Change the current znode; without a path, to the root.
    Cd {
        #[arg(default_value = "/")]
        path: String,
    },
    /// Print the current znode.
    Pwd,
    /// List the children of a znode.
    Ls {
        #[arg(default_value = ".")]
        path: String,
        /// Show version, size, number of children and time of each child.
        #[arg(long, short)]
        long: bool,
    },
    /// Draw a znode and everything below it.
    Tree {
        #[arg(default_value = ".")]
        path: String,
        /// Maximum depth.
        #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
        depth: u32,
    },
    /// Print the value of a znode; what is no text is printed with escapes.
    Get { path: String },
    /// Show everything about a znode but its value.
    Stat {
        #[arg(default_value = ".")]
        path: String,
    },
    /// Create a znode.
    Create(ShellCreate),
    /// Replace the value of a znode.
    Set {
        path: String,
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        only_if: Condition,
    },
    /// Delete a znode.
    Delete {
        path: String,
        /// Delete everything below it as well, in one step.
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        only_if: Condition,
    },
    /// Print the access list of a znode.
    Acl {
        #[arg(default_value = ".")]
        path: String,
    },
    /// Print the identities of this session.
    Whoami,
    /// Wait until the connected node has caught up.
    Sync,
    /// End the session.
    #[command(visible_alias = "quit")]
    Exit,
}

#[derive(Args, Debug)]
pub(crate) struct ShellCreate {
    pub(crate) path: String,
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
    /// It lives as long as this session.
    #[arg(long, short)]
    pub(crate) ephemeral: bool,
    /// It is removed after its last child.
    #[arg(long, conflicts_with = "ephemeral")]
    pub(crate) container: bool,
    /// It is removed after this time without children and with an unchanged value.
    #[arg(long, value_name = "DURATION", value_parser = limit, conflicts_with_all = ["ephemeral", "container"])]
    pub(crate) ttl: Option<Duration>,
    /// Append the next number of the parent to the name.
    #[arg(long, short)]
    pub(crate) sequential: bool,
    /// Create missing parents, with empty values.
    #[arg(long, short)]
    pub(crate) parents: bool,
}
