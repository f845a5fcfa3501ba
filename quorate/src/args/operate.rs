//! The commands of operators on running nodes: `status`, `health`, `loglevel`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    Output,
    connection::Nodes,
    parse::{endpoint, limit},
};

/// Show all nodes of the ensemble.
///
/// Requests the status of every member, also of those that --endpoints does not name. LAG is the number of entries of the
/// leader's log that the node has not applied yet. The digest covers the tree and all sessions: nodes that have applied the
/// same zxid have the same digest. Exits with 4 if a node is missing or not yet serving, there is no leader, a disk fills up,
/// or a clock is wrong; or if nodes contradict each other: two leaders, different lists of members, different ids of the
/// ensemble, different digests at one zxid, a node that refuses another one. Exits with 3 if no node answers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate status
  quorate status -o json | jq -r '.[] | select(.role == \"leader\").endpoint'

With -o json: an array with one object for each member: id, endpoint, role (leader, follower, observer, looking,
unreachable), epoch, zxid (last in its log), applied, lag, sessions, znodes, digest, uptime (seconds), disk
(ample, low, short), clock_offset_ms (how far its wall clock is ahead of those of a quorum), plaintext_ports (that accept plaintext from other
machines). zxid, applied and digest are texts in hexadecimal with 0x. Unknown values are null.")]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) nodes: Nodes,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Check node health; sets the exit code.
///
/// For health checks of containers: needs no other tool and no client connection. Exits with 0 if the node serves
/// clients (with --live: if its process works; with --startup: if recovery is over), and with 1 otherwise, also without
/// an answer. A quorum in a process of its own is ready if it is synchronised with a leader and linked to its election,
/// and its disk keeps up; an election, if it reaches enough members to elect a leader and has its quorum.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate health
  quorate health --service quorum
  quorate health --service election --config /etc/quorate/quorate.toml -v
  quorate health --live --endpoint 127.0.0.1:19464
  quorate health -v                   each check with its reason")]
pub(crate) struct Health {
    /// Check the process alone, whatever its peers do: /livez instead of /readyz.
    #[arg(long, conflicts_with = "startup")]
    pub(crate) live: bool,
    /// Check whether recovery is over: /startupz instead of /readyz.
    #[arg(long)]
    pub(crate) startup: bool,
    /// Print each check, also when all pass.
    #[arg(long, short)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) http: Http,
}

/// Show or change the log filter of a running node.
///
/// The filter stays until it is changed again or the node ends. Works only on the machine of the node.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate loglevel
  quorate loglevel info,quorum_svc=debug --endpoint 127.0.0.1:19464
  quorate loglevel debug --service election
  quorate loglevel info")]
pub(crate) struct Loglevel {
    /// The new filter: warn, debug, info,quorum_svc=debug ... Without it, print the current one.
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) http: Http,
}

/// What a process of a node runs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Process {
    /// All three services, in one process.
    Node,
    /// The store.
    Store,
    /// The quorum.
    Quorum,
    /// The election.
    Election,
    /// The first of them that answers. For an image that runs any one of them.
    Any,
}

/// One process, by its HTTP port.
#[derive(Args, Debug)]
pub(crate) struct Http {
    /// HTTP port of a process, host:port. Without it, that of --service on this machine.
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint, conflicts_with_all = ["service", "config"])]
    pub(crate) endpoint: Option<String>,
    /// Process of the node, if each service is one. Its port is the value of QUORATE_LISTEN_HTTP_PORT,
    /// QUORATE_LISTEN_QUORUM_HTTP_PORT and QUORATE_LISTEN_ELECTION_HTTP_PORT, else 9464 (node, store), 9465 (quorum), 9466
    /// (election), at QUORATE_LISTEN_HOST.
    #[arg(long, value_enum, default_value = "node", hide_default_value = true)]
    pub(crate) service: Process,
    /// Take the port from the configuration of the node on this machine.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Maximum wait for the answer.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "2s")]
    pub(crate) timeout: Duration,
}
