//! `quorate watch`.

use api::Zxid;
use clap::Args;

use super::{Connection, Output, parse::zxid};

/// Print the changes of a znode, one line each.
///
/// Each change is printed once and in the order of the log, also across the loss of nodes. A line has the zxid, the event
/// (created, changed, deleted) and the path; with -o json it is an object. Ctrl-C ends the command. If it was disconnected
/// for too long for the nodes to know the missed changes, it fails, or prints the state again with --initial.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate watch /app/config --values
  quorate watch /workers --children
  quorate watch /app -R --initial -o json    the state, then all changes
  quorate watch /app -R --from 0x100000007   includes the changes after that zxid
  quorate watch /jobs/7 --once && echo done")]
pub(crate) struct WatchArgs {
    /// Path of the znode; it need not exist.
    pub(crate) path: String,
    /// Watch everything below it as well.
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
    /// Watch its children, and not its own value.
    #[arg(long, conflicts_with = "recursive")]
    pub(crate) children: bool,
    /// End with the first change.
    #[arg(long, conflicts_with = "initial")]
    pub(crate) once: bool,
    /// First print a line for each existing znode, at most 10,000.
    #[arg(long)]
    pub(crate) initial: bool,
    /// Print values as well.
    #[arg(long)]
    pub(crate) values: bool,
    /// Begin after this zxid, as an earlier line or `quorate stat` prints it.
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    pub(crate) from: Option<Zxid>,
    /// Do not print the first zxid on standard error.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}
