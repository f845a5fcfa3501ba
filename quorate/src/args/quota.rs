//! `quorate count` and `quorate quota`.

use clap::{Args, Subcommand};

use super::{Connection, Output, connection::Query};

/// Count the znodes below a znode, and the bytes of their values.
///
/// Does not count the znode itself. Takes no longer for many znodes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate count /
  quorate count /app -o json                   {znodes, bytes}")]
pub(crate) struct CountArgs {
    /// Path of the znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) query: Query,
}

/// Show or replace the quota of a znode.
#[derive(Subcommand, Debug)]
pub(crate) enum Quota {
    /// Print the quotas at, above and below a znode, and their usage.
    ///
    /// A quota counts the znodes below its znode, without the znode itself. A `!` marks a quota beyond its soft bound, which refuses
    /// nothing.
    #[command(after_help = "\
Examples:
  quorate quota get                            all quotas
  quorate quota get /app/config
  quorate quota get /app -o json | jq '.[] | select(.soft_exceeded)'")]
    Get(QuotaGet),

    /// Replace the quota of a znode; without a bound, remove it.
    ///
    /// Beyond a hard bound, creates below the znode and values that grow are refused with QUOTA_EXCEEDED; existing znodes stay. Needs
    /// the permission admin. The quota is deleted with its znode.
    #[command(after_help = "\
Examples:
  quorate quota set /app --znodes 10000 --bytes 50000000
  quorate quota set /app --soft-znodes 8000 --znodes 10000
  quorate quota set /app                       removes the quota")]
    Set(QuotaSet),
}

#[derive(Args, Debug)]
pub(crate) struct QuotaGet {
    /// Path of the znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) query: Query,
}

#[derive(Args, Debug)]
pub(crate) struct QuotaSet {
    /// Path of the znode.
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
