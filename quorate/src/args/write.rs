//! The commands that write one znode: `create`, `set`, `delete`.

use std::{path::PathBuf, time::Duration};

use api::{Expected, Zxid};
use clap::Args;

use super::{
    Connection, Output,
    parse::{limit, version, zxid},
};

/// The value of a znode, from one of three places.
#[derive(Args, Debug)]
pub(crate) struct Value {
    /// Value of the znode; `-` reads it from standard input.
    #[arg(value_name = "VALUE", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,

    /// Read the value from a file.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Create a znode.
///
/// Prints the path of the new znode, which differs from PATH for a sequential one. The parent must exist, unless
/// --parents is given.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate create /app/config 'x = 1' --parents
  quorate create /app/blob --file picture.png
  date | quorate create /app/date -
  quorate create --sequential /queue/task-          prints /queue/task-0000000000, then ...1
  quorate create --sequential /queue/               prints /queue/0000000002: the digits alone are the name
  quorate create --ephemeral /members/me            exists until Ctrl-C
  quorate create --container /locks/job             is removed after its last child
  quorate create --ttl 10m /cache/answer 42         is removed after ten minutes without a set")]
pub(crate) struct Create {
    /// Path from the root, as in /app/config.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) value: Value,
    /// Create an ephemeral: it exists until this command ends, with Ctrl-C.
    #[arg(long, short)]
    pub(crate) ephemeral: bool,
    /// Create a container: the ensemble removes it some time after its last child is gone. One that never had a child stays.
    #[arg(long, conflicts_with = "ephemeral")]
    pub(crate) container: bool,
    /// Let the ensemble remove it some time after it has had no children and an unchanged value for longer than this.
    #[arg(long, value_name = "DURATION", value_parser = limit, conflicts_with_all = ["ephemeral", "container"])]
    pub(crate) ttl: Option<Duration>,
    /// Append the next number of the parent to the name, ten digits wide.
    #[arg(long, short)]
    pub(crate) sequential: bool,
    /// Create missing parents, with empty values.
    #[arg(long, short)]
    pub(crate) parents: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Replace the value of a znode.
///
/// With --version, the write fails if the value has changed since. `quorate stat` prints the version, which counts the
/// changes of the value from 0.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate set /app/config 'x = 2'
  quorate set /app/config 'x = 3' --version 1
  quorate set /app/blob --file picture.png
  date | quorate set /app/date -")]
pub(crate) struct Set {
    /// Path of the znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) value: Value,
    #[command(flatten)]
    pub(crate) only_if: Condition,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Delete a znode.
///
/// Refuses a znode with children, unless --recursive is given: then the znode and all below it are deleted in one step, or
/// nothing is. One step deletes at most 10,000 znodes. For more, --in-parts deletes one after another: others may see an
/// intermediate state, and a child that is created meanwhile makes the command fail.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate delete /app/config
  quorate delete /app/config --version 3
  quorate delete /lock --czxid 0x100000007     only the znode that was created by this write
  quorate delete -r /app
  quorate delete -r /app --keep-root           all below /app
  quorate delete -r /large --in-parts")]
pub(crate) struct Delete {
    /// Path of the znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) only_if: Condition,
    /// Delete everything below it as well, in one step.
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Keep the znode itself.
    #[arg(long, requires = "recursive")]
    pub(crate) keep_root: bool,
    /// Delete any number of znodes, one after another instead of in one step.
    #[arg(long, requires = "recursive", conflicts_with_all = ["keep_root", "version", "czxid"])]
    pub(crate) in_parts: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// The condition of a write.
#[derive(Args, Debug)]
pub(crate) struct Condition {
    /// Only if the znode has this version.
    #[arg(long, value_parser = version())]
    version: Option<i32>,
    /// Only if the znode was created by the write with this zxid (`czxid` in `quorate stat`), and is not another one of its name.
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    czxid: Option<Zxid>,
}

impl Condition {
    /// As the store takes it.
    pub(crate) fn expected(&self) -> Option<Expected> {
        Expected::new(self.version, self.czxid)
    }
}
