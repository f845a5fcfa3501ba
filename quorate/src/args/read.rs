//! The commands that read znodes: `get`, `tree`, `stat`, `ls`; and `sync`.

use api::ReadLevel;
use clap::Args;

use super::{
    Connection, Output,
    connection::{Freshness, Query},
};

/// Print the value of a znode.
///
/// Writes exactly the bytes of the value to standard output, without a newline behind them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate get /app/config
  quorate get /app/config --level linearizable      includes every write acknowledged before
  quorate get /app/config --at-least 0x100000007    not older than this zxid, as in `quorate stat`
  quorate get /app/config --level stale             the state of one node, even without a quorum
  quorate get /app/blob > picture.png
  quorate get /app/config -o json | jq .stat.version

With -o json: {path, value, stat}, where `value` is a text; a value that is not UTF-8 is given in Base64 as
`value_base64` instead. With --level stale also {as_of: {zxid, leaderless}}.")]
pub(crate) struct Get {
    /// Path of the znode.
    pub(crate) path: String,
    #[command(flatten)]
    freshness: Freshness,
    /// The same as --level linearizable.
    #[arg(long, conflicts_with_all = ["level", "at_least"])]
    sync: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Get {
    /// As [`Freshness::read_level`].
    pub(crate) fn read_level(&self) -> ReadLevel {
        if self.sync { ReadLevel::Linearizable } else { self.freshness.read_level() }
    }
}

/// Draw a znode and everything below it.
///
/// Like `ls -R`, it shows one state: all of it is of one zxid, however long the command takes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate tree /app
  quorate tree / --depth 2")]
pub(crate) struct TreeArgs {
    /// Path of the znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Maximum depth.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    pub(crate) depth: u32,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Show everything about a znode but its value.
///
/// A zxid is a position in the order of all writes: epoch and counter, in hexadecimal. Times are of the leader's clock.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate stat /app/config
  quorate stat /app/config --level linearizable
  quorate stat /app/config -o json | jq .version")]
pub(crate) struct StatArgs {
    /// Path of the znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) query: Query,
}

/// List the children of a znode.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate ls                 of the root
  quorate ls -l /app         with version, size, number of children and time
  quorate ls -R /app         everything below, by full paths
  quorate ls /app --level linearizable
  quorate ls /app -o json    an array of names; of objects with -l")]
pub(crate) struct Ls {
    /// Path of the znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Show version, size, number of children and time of each child.
    #[arg(long, short, visible_alias = "stat")]
    pub(crate) long: bool,
    /// List everything below, not only the children.
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) query: Query,
}

/// Wait until the connected node has caught up.
///
/// Later reads on that node include everything that was committed anywhere before. To read the newest value, use
/// `get --level linearizable`: two commands may connect to two nodes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate sync --endpoints 127.0.0.1:22188")]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
}
