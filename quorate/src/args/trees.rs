//! Conditions of writes, and the commands that concern what is below a znode.

use api::{Expected, Zxid};
use clap::{Args, Subcommand};

use super::{Connection, Freshness, Output, version, zxid};

/// Of which znode a write speaks.
#[derive(Args, Debug)]
pub(crate) struct Condition {
    /// Only if the znode has this version.
    #[arg(long, value_parser = version())]
    version: Option<i32>,
    /// Only if the znode is the one that was created there (`czxid` in `quorate stat`), and not another one of its name.
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    czxid: Option<Zxid>,
}

impl Condition {
    /// As the store takes it.
    pub(crate) fn expected(&self) -> Option<Expected> {
        Expected::new(self.version, self.czxid)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Which znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) only_if: Condition,
    /// With everything below it, in one step.
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Leave the znode itself.
    #[arg(long, requires = "recursive")]
    pub(crate) keep_root: bool,
    /// One znode after another instead of all in one step, however many there are.
    #[arg(long, requires = "recursive", conflicts_with_all = ["keep_root", "version", "czxid"])]
    pub(crate) in_parts: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args, Debug)]
pub(crate) struct TreeArgs {
    /// Which znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// No further down than this.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    pub(crate) depth: u32,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args, Debug)]
pub(crate) struct CountArgs {
    /// Below which znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Quota {
    /// Print the quotas at, above and below a znode, and how much of them is used.
    ///
    /// A quota counts what is below its znode, without the znode itself. Beyond a soft bound it is marked with `!` here, and nothing
    /// is refused.
    #[command(after_help = "\
Examples:
  quorate quota get                            all of them
  quorate quota get /app/config
  quorate quota get /app -o json | jq '.[] | select(.soft_exceeded)'")]
    Get(QuotaGet),

    /// Replace the quota of a znode; without a bound, remove it.
    ///
    /// Beyond a hard bound, creates below the znode and values that grow are refused with QUOTA_EXCEEDED. What is beyond it already
    /// stays. It takes the permission admin. The quota goes with the znode.
    #[command(after_help = "\
Examples:
  quorate quota set /app --znodes 10000 --bytes 50000000
  quorate quota set /app --soft-znodes 8000 --znodes 10000
  quorate quota set /app                       no quota any more")]
    Set(QuotaSet),
}

#[derive(Args, Debug)]
pub(crate) struct QuotaGet {
    /// Which znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct QuotaSet {
    /// Which znode.
    pub(crate) path: String,
    /// Refuse more znodes below it.
    #[arg(long, value_name = "N")]
    pub(crate) znodes: Option<u64>,
    /// Refuse more bytes of values below it.
    #[arg(long, value_name = "N")]
    pub(crate) bytes: Option<u64>,
    /// Report more znodes below it.
    #[arg(long, value_name = "N")]
    pub(crate) soft_znodes: Option<u64>,
    /// Report more bytes of values below it.
    #[arg(long, value_name = "N")]
    pub(crate) soft_bytes: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}
