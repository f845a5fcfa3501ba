//! `quorate top`.

use std::time::Duration;

use clap::Args;

use super::{connection::Nodes, parse::limit};

/// Show the nodes of the ensemble and their load, live.
///
/// Requests the status of every member at an interval. Rates and latencies are those since the last answer of the node. LAG is
/// the number of entries of the leader's log that the node has not applied yet; latencies are from the arrival of a request on
/// the node until its answer. Keys: q or Ctrl-C ends, Space pauses.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate top
  quorate top --interval 5s
  quorate top --once            one frame as text, after one interval

Columns: READ/S, WRITE/S (requests of clients of this node), ERR/S (answered with an error), READ P50, READ P99, WRITE P50, WRITE P99
(estimated within ranges that double, about), CONNS (session streams and calls), WATCHES, SESSIONS (of the ensemble). Exits with 3 if no
node answers at the start.")]
pub(crate) struct TopArgs {
    /// Print one frame and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Time between two frames.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "1s")]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}
