//! The command line: one file for each family of commands, and the arguments that families share.

use clap::{Parser, Subcommand};

use crate::exit;

mod acl;
mod auth;
mod bench;
mod certs;
mod completion;
mod connection;
mod gateway;
mod multi;
mod node;
mod operate;
mod parse;
mod quota;
mod read;
mod shell;
mod top;
mod transfer;
mod upgrade;
mod watch;
mod write;

pub(crate) use acl::{Acl, AclGet, AclSet, AclWhoAmI, Entry, LETTERS, from_letters};
pub(crate) use bench::{Bench, BenchLoad, Operation};
pub(crate) use certs::{Certs, CertsInit};
pub(crate) use completion::CompletionArgs;
pub(crate) use connection::{Connection, Format, Nodes, Output};
pub(crate) use gateway::GatewayArgs;
pub(crate) use multi::{CreatePart, Line, MultiArgs, Part, PartValue};
pub(crate) use node::{Config, ConfigShow, Offline, Recover, Serve, Up};
pub(crate) use operate::{Health, Http, Loglevel, Process, Status};
pub(crate) use quota::{CountArgs, Quota, QuotaGet, QuotaSet};
pub(crate) use read::{Get, Ls, StatArgs, SyncArgs, TreeArgs};
pub(crate) use shell::{ShellArgs, ShellCommand, ShellCreate, ShellLine};
pub(crate) use top::TopArgs;
pub(crate) use transfer::{Export, Import};
pub(crate) use upgrade::{Upgrade, UpgradeFinalize, UpgradeStatus};
pub(crate) use watch::WatchArgs;
pub(crate) use write::{Create, Delete, Set, Value};

/// A coordination service: a replicated tree of znodes that a small ensemble of nodes keeps in agreement.
///
/// `quorate up` starts an ensemble on this machine for trials; `quorate serve` runs one node of a real one. Most other
/// commands are clients: they connect to a node in --endpoints (or QUORATE_ENDPOINTS), and to another one when that node
/// fails.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, max_term_width = 110, after_help = exit::HELP, after_long_help = format!("{AFTER}\n\n{}", exit::HELP))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Try it:
  quorate up                        in one terminal; and in another:
  quorate create /hello world
  quorate get /hello
  quorate status

Environment:
  QUORATE_ENDPOINTS     nodes to connect to, as in --endpoints
  QUORATE_AUTH          identity of the client, as in --auth
  QUORATE_TLS_CA, QUORATE_TLS_CERT, QUORATE_TLS_KEY
                        certificates, as in --tls-ca, --tls-cert and --tls-key
  QUORATE_LOG           log filter: warn, info, info,quorum_svc=debug ...
  QUORATE_LOG_FORMAT    text or json
  OTEL_EXPORTER_OTLP_ENDPOINT  collector for metrics and spans of a node, unless
                        telemetry.otlp_endpoint is set
  QUORATE_*             settings of a node; `quorate config show --explain --config FILE`
                        lists them";

// The help of a command is on its arguments, or here if several commands take the same ones.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Up(Up),

    /// Run one node.
    ///
    /// Runs election, quorum and store in one process, until SIGINT or SIGTERM. Flags override the environment (QUORATE_*),
    /// which overrides the file, which overrides the defaults; see `quorate config show`.
    #[command(after_help = node::SERVE_EXAMPLES)]
    Serve(Serve),

    /// Run the election of a node in a process of its own.
    ///
    /// `quorate quorum` and `quorate store` run the rest of the node. All three take the same configuration as `quorate serve`.
    /// Each can be stopped and started alone: without its election a leader continues to lead. SIGTERM waits up to 3 s for
    /// the quorum of this node, which needs its election to hand leadership over.
    ///
    /// Listens for the elections of other nodes (`listen.election_port`), and for the quorum of this node on the loopback
    /// interface (`listen.internal_host`, `listen.internal_election_port`). Probes and metrics are on
    /// `listen.election_http_port` (9466).
    #[command(after_help = "\
Examples:
  quorate election --config /etc/quorate/quorate.toml")]
    Election(Serve),

    /// Run the quorum of a node in a process of its own: the log, and the agreement on it.
    ///
    /// See `quorate election --help`. Without its store a node continues to vote and to log. SIGTERM hands leadership over
    /// first.
    ///
    /// Listens for the quorums of other nodes (`listen.quorum_port`), and for the store of this node on the loopback
    /// interface (`listen.internal_host`, `listen.internal_quorum_port`). It takes any process that reaches that port for the
    /// store. Connects to its election at `services.election`. Probes and metrics are on `listen.quorum_http_port` (9465).
    #[command(after_help = "\
Examples:
  quorate quorum --config /etc/quorate/quorate.toml
  quorate quorum --config quorate.toml --set services.election=http://election-1:3889")]
    Quorum(Serve),

    /// Run the store of a node in a process of its own: the tree, the sessions, and the API for clients.
    ///
    /// See `quorate election --help`. Keeps its checkpoint in `store/` of the data directory. Connects to its quorum at
    /// `services.quorum`. While the quorum is away the store is not ready, marks its answers as without a leader, and keeps
    /// writes for `timing.park_limit`. Probes and metrics are on `listen.http_port` (9464).
    #[command(after_help = "\
Examples:
  quorate store --config /etc/quorate/quorate.toml
  quorate store --config quorate.toml --set services.quorum=http://quorum-1:2889")]
    Store(Serve),

    Gateway(GatewayArgs),
    Create(Create),
    Get(Get),
    Set(Set),
    Delete(Delete),
    Multi(MultiArgs),
    Tree(TreeArgs),
    Count(CountArgs),
    #[command(subcommand)]
    Quota(Quota),
    Stat(StatArgs),
    Ls(Ls),
    Watch(WatchArgs),
    #[command(subcommand)]
    Acl(Acl),
    Sync(SyncArgs),
    Shell(ShellArgs),
    Import(Import),
    Export(Export),
    Status(Status),
    Top(TopArgs),
    #[command(subcommand)]
    Upgrade(Upgrade),
    Health(Health),
    #[command(subcommand)]
    Certs(Certs),
    Loglevel(Loglevel),
    #[command(subcommand)]
    Recover(Recover),
    #[command(subcommand)]
    Bench(Bench),
    #[command(subcommand)]
    Config(Config),
    Completion(CompletionArgs),
}

#[cfg(test)]
mod tests;
