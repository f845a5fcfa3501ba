//! `quorate multi`, and the lines that it reads.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use super::{
    Connection, Entry, Output,
    parse::{limit, version},
    write::Condition,
};

/// Do several writes in one step, or none of them.
///
/// Reads one operation from each line. If one of them fails, nothing is changed, and the error names the line. Others never
/// see a part of the step. Words are separated and quoted as in a shell, without expansions; empty lines and comments (#) are
/// skipped.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate multi changes.txt
  quorate multi <<'END'
  check  /app/config --version 3
  set    /app/config 'x = 4'
  delete /app/lock --czxid 0x100000007
  END

Operations:
  create PATH [VALUE] [--container | --ttl DURATION] [--sequential]
  set    PATH VALUE [--version N] [--czxid ZXID]
  delete PATH [--version N] [--czxid ZXID]
  check  PATH [--version N] [--czxid ZXID]     fails unless the znode exists, and is this one
  check  PATH --absent                         fails if the znode exists
  acl    PATH ENTRY... [--version N]           as in `quorate acl set`

In the place of VALUE: --file FILE, the bytes of a file; --base64 TEXT, for values that are no text. A multi has at most 10,000 parts.

Prints a line for each operation. With -o json: {zxid, results}, where `results` has an object for each operation: op, path,
and, of a create, set and acl, stat.")]
pub(crate) struct MultiArgs {
    /// File with the operations; `-` reads standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A line of the input.
#[derive(Parser, Debug)]
#[command(name = "", no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) part: Part,
}

/// An operation of the input.
#[derive(Subcommand, Debug)]
pub(crate) enum Part {
    Create(CreatePart),
    Set(SetPart),
    Delete(DeletePart),
    Check(CheckPart),
    Acl(AclPart),
}

#[derive(Args, Debug)]
pub(crate) struct CreatePart {
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) value: PartValue,
    #[arg(long)]
    pub(crate) container: bool,
    #[arg(long, value_name = "DURATION", value_parser = limit, conflicts_with = "container")]
    pub(crate) ttl: Option<Duration>,
    #[arg(long, short)]
    pub(crate) sequential: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SetPart {
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) value: PartValue,
    #[command(flatten)]
    pub(crate) only_if: Condition,
}

#[derive(Args, Debug)]
pub(crate) struct DeletePart {
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) only_if: Condition,
}

#[derive(Args, Debug)]
pub(crate) struct CheckPart {
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) only_if: Condition,
    #[arg(long, conflicts_with_all = ["version", "czxid"])]
    pub(crate) absent: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AclPart {
    pub(crate) path: String,
    #[arg(required = true, value_name = "ENTRY")]
    pub(crate) entries: Vec<Entry>,
    #[arg(long, value_name = "N", value_parser = version())]
    pub(crate) version: Option<i32>,
}

/// The value of an operation, from one of three places.
#[derive(Args, Debug)]
pub(crate) struct PartValue {
    #[arg(value_name = "VALUE", conflicts_with_all = ["file", "base64"], allow_negative_numbers = true)]
    pub(crate) value: Option<String>,
    #[arg(long, value_name = "FILE", conflicts_with = "base64")]
    pub(crate) file: Option<PathBuf>,
    #[arg(long, value_name = "TEXT")]
    pub(crate) base64: Option<String>,
}
