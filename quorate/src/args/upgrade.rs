//! `quorate upgrade`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{
    Output,
    connection::{Endpoints, Nodes, TlsFiles},
    parse::limit,
};

/// Show or raise the feature level of the ensemble.
#[derive(Subcommand, Debug)]
pub(crate) enum Upgrade {
    /// Show the feature level, and the levels that the members know.
    ///
    /// Each version of Quorate knows a range of feature levels, and the ensemble is at one of them. The new features of a version
    /// are in use from its level on. Until the level is raised, each node can return to the previous version.
    #[command(after_help = "\
Examples:
  quorate upgrade status
  quorate upgrade status -o json | jq .level

With -o json: an object with level, max_level (the greatest that all members know) and members, an array of objects with id,
version, min_level and max_level. Unknown values are null.")]
    Status(UpgradeStatus),

    /// Raise the feature level, after all members run the new version.
    ///
    /// Refused unless every member, observers included, is connected and knows the level. Ends when the level is committed. There
    /// is no way back: a version that does not know the level does not start on the data of such an ensemble, and cannot join it.
    #[command(after_help = "\
Examples:
  quorate upgrade finalize                  to the greatest level that all members know
  quorate upgrade finalize --level 2")]
    Finalize(UpgradeFinalize),
}

#[derive(Args, Debug)]
pub(crate) struct UpgradeStatus {
    #[command(flatten)]
    pub(crate) nodes: Nodes,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct UpgradeFinalize {
    /// The new level [default: the greatest that all members know].
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) level: Option<u32>,
    #[command(flatten)]
    pub(crate) endpoints: Endpoints,
    /// Give up on a node after this time without an answer.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "10s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}
