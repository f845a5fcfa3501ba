//! The command line: what can be said, and the help that teaches it.

use std::{path::PathBuf, time::Duration};

use api::{ReadLevel, Zxid};
use clap::{Args, Parser, Subcommand, ValueEnum};
use host::config::{Setting as _, Size, behind_scheme};

use crate::exit;

mod auth;
mod bench;
mod gateway;
mod tls;
mod trees;

pub(crate) use auth::Auth;
pub(crate) use bench::{Bench, BenchLoad, Operation};
pub(crate) use gateway::GatewayArgs;
pub(crate) use tls::{Certs, CertsInit, TlsFiles};
pub(crate) use trees::{Condition, CountArgs, Delete, Quota, QuotaGet, QuotaSet, TreeArgs};

/// A coordination service: a replicated tree of znodes that a small ensemble of nodes keeps in agreement.
///
/// `quorate up` starts an ensemble on this machine to try things with; `quorate serve` runs one node of a real one. All
/// other commands are clients: they talk to the nodes in --endpoints (or QUORATE_ENDPOINTS), and to another one when a
/// node fails.
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
  QUORATE_ENDPOINTS     nodes to talk to, as in --endpoints
  QUORATE_TLS_CA, QUORATE_TLS_CERT, QUORATE_TLS_KEY
                        certificates, as in --tls-ca, --tls-cert and --tls-key
  QUORATE_LOG           which log lines to print: warn, info, info,quorum_svc=debug ...
  QUORATE_LOG_FORMAT    text or json
  OTEL_EXPORTER_OTLP_ENDPOINT  collector for metrics and spans of a node, unless
                        telemetry.otlp_endpoint is set
  QUORATE_*             settings of a node; `quorate config show --explain --config FILE`
                        lists them";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start an ensemble on this machine.
    ///
    /// Every node is a process of its own, so that each can be killed by itself to see what happens. No node is started
    /// again by itself: when one ends, the end of its log and the command to start it again are printed. Ctrl-C stops
    /// all of them. DIR/node-N/ holds the configuration (quorate.toml), the process id (pid), the log lines (log) and the
    /// data of node N. Started again on the same DIR, the ensemble goes on with its data.
    ///
    /// Node N listens on 127.0.0.1, on port N*10000 + 2188 (clients), 2181 (clients of ZooKeeper), 2888 (quorum), 3888 (election)
    /// and 9464 (HTTP: probes and metrics). With --split its services find each other on N*10000 + 2889 and 3889, the probes and metrics of quorum and
    /// election are on N*10000 + 9465 and 9466, and pid and log are one file for each service: pid.store ...
    #[command(after_help = "\
Examples:
  quorate up                                      three nodes, data removed at the end
  quorate up --nodes 5 --data ./ensemble          five nodes, data kept
  quorate up --split                              each service a process of its own: three times three
  quorate up --tls                                with TLS; prints what clients need
  quorate up --base-port 7000                     on ports from 7000, 7020 and 7040")]
    Up(Up),

    /// Run one node.
    ///
    /// Election, quorum and store in one process, until SIGINT or SIGTERM. Settings come from flags, then from the
    /// environment (QUORATE_*), then from the file, then from defaults; see `quorate config show`.
    #[command(after_help = "\
Examples:
  quorate serve --config /etc/quorate/quorate.toml
  QUORATE_ID=2 quorate serve --config quorate.toml --set timing.sync_limit=5s

A configuration for the first of three nodes:
  ensemble = \"production\"
  id = 1
  data_dir = \"/var/lib/quorate\"
  [[members]]
  id = 1
  host = \"node-1.example\"
  [[members]]
  id = 2
  host = \"node-2.example\"
  [[members]]
  id = 3
  host = \"node-3.example\"")]
    Serve(Serve),

    /// Run the election of a node in a process of its own.
    ///
    /// Like `quorate serve`, but only the election; `quorate quorum` and `quorate store` run the rest of the node. All three
    /// take the same configuration. Each can be stopped and started alone: without its election a leader goes on leading.
    /// SIGTERM waits up to 3 s for the quorum of this node, which needs its election to hand leadership over.
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
    /// Like `quorate serve`, but only the quorum; see `quorate election --help`. Without its store a node goes on voting and
    /// logging. SIGTERM hands leadership over first.
    ///
    /// Listens for the quorums of other nodes (`listen.quorum_port`), and for the store of this node on the loopback
    /// interface (`listen.internal_host`, `listen.internal_quorum_port`): any process that reaches that port is taken for the store. Finds
    /// its election at `services.election`. Probes and metrics are on `listen.quorum_http_port` (9465).
    #[command(after_help = "\
Examples:
  quorate quorum --config /etc/quorate/quorate.toml
  quorate quorum --config quorate.toml --set services.election=http://election-1:3889")]
    Quorum(Serve),

    /// Run the store of a node in a process of its own: the tree, the sessions, and the API for clients.
    ///
    /// Like `quorate serve`, but only the store; see `quorate election --help`. Keeps its checkpoint in `store/` of the data
    /// directory. Finds its quorum at `services.quorum`; while that is away the store is not ready, answers reads with what
    /// it has, marked as without a leader, and keeps writes for `timing.park_limit`. Probes and metrics are on
    /// `listen.http_port` (9464).
    #[command(after_help = "\
Examples:
  quorate store --config /etc/quorate/quorate.toml
  quorate store --config quorate.toml --set services.quorum=http://quorum-1:2889")]
    Store(Serve),

    /// Serve ZooKeeper's clients in a process of its own, in front of any nodes of an ensemble.
    ///
    /// Stateless: a client whose gateway or node dies comes back, to this gateway or another, and has its session. Each node serves
    /// ZooKeeper's clients by itself (`listen.zookeeper_port`); a gateway is for where they cannot reach the nodes, or should not.
    ///
    /// The nodes have to listen for it (`listen.internal_store_port`, at `listen.internal_host`). Any process that reaches that port can speak
    /// for any client, so let only gateways in. Probes, metrics and /commands are on `listen.http_port` (9467).
    #[command(after_help = "\
Examples:
  quorate gateway --config /etc/quorate/gateway.toml
  quorate gateway --stores http://q1:2189,http://q2:2189,http://q3:2189 --set ensemble=orders

A configuration:
  ensemble = \"orders\"
  [gateway]
  stores = \"http://q1:2189,http://q2:2189,http://q3:2189\"
  [listen]
  zookeeper_port = 2181")]
    Gateway(GatewayArgs),

    /// Create a znode.
    ///
    /// Prints the path of the new znode, which differs from PATH for a sequential one. The parent must exist, unless
    /// --parents is given.
    #[command(after_help = "\
Examples:
  quorate create /app/config 'x = 1' --parents
  quorate create /app/blob --file picture.png
  date | quorate create /app/date -
  quorate create --sequential /queue/task-          prints /queue/task-0000000000, then ...1
  quorate create --sequential /queue/               prints /queue/0000000002: the digits alone are the name
  quorate create --ephemeral /members/me            there until Ctrl-C
  quorate create --container /locks/job             goes by itself after its last child
  quorate create --ttl 10m /cache/answer 42         removed after ten minutes without a set")]
    Create(Create),

    /// Print the value of a znode.
    ///
    /// Writes exactly the bytes of the value to standard output, without a newline behind them.
    #[command(after_help = "\
Examples:
  quorate get /app/config
  quorate get /app/config --level linearizable      with every write acknowledged before
  quorate get /app/config --at-least 0x100000007    not older than this zxid, as in `quorate stat`
  quorate get /app/config --level stale             what a node has, also without a quorum
  quorate get /app/blob > picture.png
  quorate get /app/config -o json | jq .stat.version

With -o json: {path, value, stat}, where `value` is a text; a value that is not UTF-8 is given in Base64 as
`value_base64` instead. With --level stale also {as_of: {zxid, leaderless}}.")]
    Get(Get),

    /// Replace the value of a znode.
    ///
    /// With --version only if nobody has changed it since: the version is in `quorate stat`, and counts the changes of
    /// the value from 0.
    #[command(after_help = "\
Examples:
  quorate set /app/config 'x = 2'
  quorate set /app/config 'x = 3' --version 1
  quorate set /app/blob --file picture.png
  date | quorate set /app/date -")]
    Set(Set),

    /// Delete a znode.
    ///
    /// One that has children is refused, unless --recursive is given: then it goes with all below it in one step, or not at all. No
    /// more than 10,000 znodes go in one step. More of them go one by one with --in-parts: others may see some of that, and a child
    /// created meanwhile makes it fail.
    #[command(after_help = "\
Examples:
  quorate delete /app/config
  quorate delete /app/config --version 3
  quorate delete /lock --czxid 0x100000007     only the one that was created there
  quorate delete -r /app
  quorate delete -r /app --keep-root           all below /app
  quorate delete -r /large --in-parts")]
    Delete(Delete),

    /// Draw a znode and what is below it.
    ///
    /// It is a walk through one state, as `ls -R` is: all of it is of one zxid, however long it takes.
    #[command(after_help = "\
Examples:
  quorate tree /app
  quorate tree / --depth 2")]
    Tree(TreeArgs),

    /// Count the znodes below a znode, and the bytes of their values.
    ///
    /// The znode itself is not counted. It takes no longer for many.
    #[command(after_help = "\
Examples:
  quorate count /
  quorate count /app -o json                   {znodes, bytes}")]
    Count(CountArgs),

    /// Bound what may be below a znode, and see how much there is.
    #[command(subcommand)]
    Quota(Quota),

    /// Show everything about a znode but its value.
    ///
    /// zxids are places in the order of all writes: epoch and counter, in hexadecimal. Times are of the leader's clock.
    #[command(after_help = "\
Examples:
  quorate stat /app/config
  quorate stat /app/config --level linearizable
  quorate stat /app/config -o json | jq .version")]
    Stat(StatArgs),

    /// List the children of a znode.
    #[command(after_help = "\
Examples:
  quorate ls                 of the root
  quorate ls -l /app         with version, size, number of children and time
  quorate ls -R /app         everything below, by full paths
  quorate ls /app --level linearizable
  quorate ls /app -o json    an array of names; of objects with -l")]
    Ls(Ls),

    /// Print what happens to a znode, one line for each change.
    ///
    /// Each change comes once and in the order of the log, also if nodes go and come meanwhile. A line has the zxid, what
    /// happened (created, changed, deleted) and the path; with -o json it is an object of its own. Ctrl-C ends the command. If
    /// it was away for too long for the nodes to know what it has missed, it fails, or prints the state again with --initial.
    #[command(after_help = "\
Examples:
  quorate watch /app/config --values
  quorate watch /workers --children
  quorate watch /app -R --initial -o json    the state, then all changes
  quorate watch /app -R --from 0x100000007   what happened behind that zxid, too
  quorate watch /jobs/7 --once && echo done")]
    Watch(WatchArgs),
    /// Look at the access list of a znode, and replace it.
    #[command(subcommand)]
    Acl(Acl),

    /// Wait until the node that is asked has caught up.
    ///
    /// After it, reads on that node see everything that was committed anywhere before. To see the newest value, use
    /// `get --level linearizable`: two commands may talk to two nodes.
    #[command(after_help = "\
Examples:
  quorate sync --endpoints 127.0.0.1:22188")]
    Sync(SyncArgs),

    /// Put a directory tree into the ensemble.
    ///
    /// Each file becomes a znode with the file's bytes as its value; each directory a znode with children. File names
    /// that no znode may have are written with %XX. `quorate export` gives the same tree back, byte for byte, empty
    /// files and empty directories included; modes, owners and times are not kept. Symbolic links and special files
    /// cannot be represented: with any of them, or with a file above --max-size, nothing is written, unless
    /// --skip-special or --skip-large leaves them out.
    ///
    /// A file `%value` in a directory is the value of the directory's znode. If DIR is a file, it is an archive of `quorate export
    /// --archive`: then the counters of sequential znodes come back, too, so that `create -s` goes on where it was.
    ///
    /// The znode must not exist yet, parents are made. The import goes on through the loss of nodes, as long as a quorum
    /// comes back before the session ends.
    #[command(after_help = "\
Examples:
  quorate import ./conf /app/conf
  quorate import ~/.cargo/registry/src /sources --skip-special --skip-large")]
    Import(Import),

    /// Write a tree of znodes into a directory.
    ///
    /// The reverse of `quorate import`. The directory must not exist yet, or be empty. The newest state is exported (a
    /// sync comes first), but not one moment's: writes that others make meanwhile may be seen in part. A znode that has
    /// children and a value that import did not put there is written as a directory, its value as `%value` in it.
    ///
    /// With --archive, DIR is one file, in which any tree has room: names that no file can have or that import would change (most
    /// with a percent sign), paths that are too long, and the numbers for sequential znodes, which a directory does not keep.
    /// What a directory cannot hold is refused. Ephemerals are left out of both, as they belong to sessions.
    #[command(after_help = "\
Examples:
  quorate export /app/conf ./conf
  quorate export / ./everything
  quorate export --archive / everything.archive")]
    Export(Export),

    /// Show all nodes of the ensemble.
    ///
    /// Asks every member, also those that --endpoints does not name. Lag is how many entries of the leader's log the node
    /// has not applied yet. The digest covers the tree and all sessions: nodes that have applied the same zxid have
    /// the same one. Ends with 4 if a node is missing or not yet serving, there is no leader, a disk fills up, or a clock is
    /// wrong; or if nodes contradict each other: two leaders, differing lists of members, differing ids of the ensemble,
    /// differing digests at one zxid, a node that refuses another one. Ends with 3 if no node answers.
    #[command(after_help = "\
Examples:
  quorate status
  quorate status -o json | jq -r '.[] | select(.role == \"leader\").endpoint'

With -o json: an array with one object for each member: id, endpoint, role (leader, follower, observer, looking,
unreachable), epoch, zxid (last in its log), applied, lag, sessions, znodes, digest, uptime (seconds), disk
(ample, low, short), clock_offset_ms (how far its wall clock is ahead of those of a quorum). zxid, applied and digest are
texts in hexadecimal with 0x. What is not known is null.")]
    Status(Status),

    /// Look at the feature level of the ensemble, and raise it.
    #[command(subcommand)]
    Upgrade(Upgrade),

    /// Ask whether a node is well; the exit code says so.
    ///
    /// For health checks of containers: needs no other tool and no client connection. Exits with 0 if the node serves
    /// clients (with --live: if its process works; with --startup: if recovery is over), and with 1 otherwise, also if
    /// nobody answers. A quorum in a process of its own is ready if it is synchronised with a leader and linked to its
    /// election, and its disk keeps up; an election, if it reaches enough members to elect a leader and has its quorum.
    #[command(after_help = "\
Examples:
  quorate health
  quorate health --service quorum
  quorate health --service election --config /etc/quorate/quorate.toml -v
  quorate health --live --endpoint 127.0.0.1:19464
  quorate health -v                   each check with its reason")]
    Health(Health),

    /// Make certificates for TLS.
    #[command(subcommand)]
    Certs(Certs),

    /// Show or change which log lines a running node prints.
    ///
    /// Until it is changed again or the node ends. Only from the machine that the node runs on.
    #[command(after_help = "\
Examples:
  quorate loglevel
  quorate loglevel info,quorum_svc=debug --endpoint 127.0.0.1:19464
  quorate loglevel debug --service election
  quorate loglevel info")]
    Loglevel(Loglevel),

    /// Decide about the data directory of a node that is down, when an ensemble cannot go on by itself.
    ///
    /// For emergencies: each of these can lose writes that were acknowledged, if it is used where it is not needed. Each asks for
    /// --yes, and says before what it is about to do.
    #[command(subcommand)]
    Recover(Recover),

    /// Measure an ensemble.
    ///
    /// Sessions work on znodes under a parent made for the run, each with a fixed number of operations in flight. The load runs
    /// for a tenth longer than --seconds (half a second at least): that warms up and is not counted. The run deletes
    /// everything it made. The longest gap is the longest time in which no session got an answer.
    #[command(
        subcommand,
        after_help = "\
With -o json: {operation, ops, seconds, ops_per_second, lowest_second, p50_us, p99_us, p999_us, max_us, longest_gap_us,
server_cpu_us (of all nodes on this machine, for each operation; null if there are none), sessions, in_flight, size, znodes}."
    )]
    Bench(Bench),

    /// Look at the configuration of a node.
    #[command(subcommand)]
    Config(Config),
}

/// The addresses of one --endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints(Vec<String>);

/// All addresses, in their order.
pub(crate) fn addresses(endpoints: &[Endpoints]) -> Vec<String> {
    endpoints.iter().flat_map(|given| given.0.iter().cloned()).collect()
}

/// How to reach the ensemble.
#[derive(Args, Debug, Clone)]
pub(crate) struct Connection {
    /// Nodes to talk to, host:port of the client API; one that answers is enough.
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_parser = endpoints,
        default_value = "127.0.0.1:12188,127.0.0.1:22188,127.0.0.1:32188",
        hide_env_values = true
    )]
    pub(crate) endpoints: Vec<Endpoints>,

    /// Give up after so long without an answer.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "10s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) auth: Auth,

    /// Record what becomes of the requests, and push the spans to this OpenTelemetry collector (OTLP over gRPC).
    #[arg(long, value_name = "URL", help_heading = "Tracing")]
    pub(crate) trace_to: Option<String>,

    /// Which part of the requests to trace, from 0 to 1.
    #[arg(long, value_name = "RATIO", value_parser = ratio, default_value = "1", requires = "trace_to", help_heading = "Tracing")]
    pub(crate) trace_ratio: f64,

    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// How fresh the answer has to be.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Freshness {
    /// What the answer must contain.
    #[arg(long, value_enum, default_value_t = Level::Local)]
    pub(crate) level: Level,

    /// Wait until the node that is asked has come to this zxid; it says so if that takes longer than some seconds.
    #[arg(long, value_name = "ZXID", value_parser = zxid, conflicts_with = "level")]
    pub(crate) at_least: Option<Zxid>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What the node that is asked has; may be older than what others have. Needs no leader, once the session is open.
    Local,
    /// What the first node that answers has, even if it has lost its quorum; a note says so then. Opens no session. To look
    /// at, not to decide by.
    Stale,
    /// Includes every write acknowledged before the read was issued. Needs a leader with its quorum.
    Linearizable,
}

impl Freshness {
    /// As the client says it.
    pub(crate) fn read_level(self) -> ReadLevel {
        match (self.at_least, self.level) {
            (Some(zxid), _) => ReadLevel::AtLeast(zxid),
            (None, Level::Local) => ReadLevel::Local,
            (None, Level::Stale) => ReadLevel::Stale,
            (None, Level::Linearizable) => ReadLevel::Linearizable,
        }
    }
}

/// How to print the result.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Output {
    /// For people, or for programs.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct Up {
    /// How many nodes, 1 to 9 [default: 3, or as many as DIR has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: Option<u8>,

    /// How many of them, the last ones, only observe: they serve clients like the others but neither vote nor count
    /// [default: 0, or as many as DIR has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) observers: Option<u8>,

    /// Where to keep the nodes' folders [default: a new temporary directory, removed at the end].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Run election, quorum and store of each node in processes of their own, so that each service can be killed by itself.
    /// The same DIR can be used with and without it.
    #[arg(long)]
    pub(crate) split: bool,

    /// Pack the ports: node 1 at N (client), N+1 (quorum), N+2 (election), N+3 (HTTP; with --split also N+6 and N+7), N+4 and N+5
    /// (between its services); node 2 at N+20 ..., so that several ensembles fit side by side.
    #[arg(long, value_name = "N")]
    pub(crate) base_port: Option<u16>,

    /// Secure all ports of members and clients by TLS, with certificates that are made in DIR/certs. A DIR keeps what it began with.
    #[arg(long)]
    pub(crate) tls: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) settings: Settings,

    /// End when the process with this id, which has to be the parent, does.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) exit_with_parent: Option<u32>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Recover {
    /// Begin a new ensemble, with the members of the configuration, from what this node has.
    ///
    /// When more than half of the voters are lost for good, or when members have to be added, removed or changed. Stop all nodes
    /// first, and use the directory with the newest data. It gets a new id of the ensemble, so nodes of the old ensemble have
    /// nothing to do with it any more, and no two quorums can act at the same time. Then, until more than half of the voters
    /// have the data: copy this directory to another node, and use `quorate recover copy` there. All other nodes start with
    /// empty directories.
    #[command(after_help = "\
Examples:
  quorate recover members --config quorate.toml             says what would be done
  quorate recover members --config quorate.toml --yes
  cp -a /from/node-1/data /var/lib/quorate && quorate recover copy --config quorate.toml --yes")]
    Members(Offline),

    /// Make a copy of another node's data directory the directory of this node.
    ///
    /// The second step of `quorate recover members`: the data directory of this node's configuration holds a copy of the one that
    /// the new ensemble began with, or of another node that is down.
    #[command(after_help = "\
Examples:
  quorate recover copy --config quorate.toml --yes")]
    Copy(Offline),

    /// Take back the note that the data directory of this node is an older copy.
    ///
    /// A node that others have met in an incarnation that its directory does not know does not vote until a leader has sent
    /// it what it lacks. If there is no such leader, because all have been put back to older copies, or if the note is
    /// wrong, an operator decides that this directory is to be the truth. What it lacks is lost.
    #[command(after_help = "\
Examples:
  quorate recover trust-directory --config quorate.toml --yes")]
    TrustDirectory(Offline),
}

/// About the directory of a node that is down.
#[derive(Args, Debug)]
pub(crate) struct Offline {
    #[command(flatten)]
    pub(crate) settings: Settings,

    /// Do it. Without this it is only said what would be done.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Where the settings of a node come from.
#[derive(Args, Debug)]
pub(crate) struct Settings {
    /// The configuration file, TOML.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Which member this node is, or `hostname` for the one whose host is this machine; overrides `id`.
    #[arg(long, value_name = "N")]
    pub(crate) id: Option<String>,

    /// Where everything durable lives; overrides `data_dir`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,

    /// Any other setting, by its key; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
}

impl Settings {
    /// As pairs of key and value.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let named = [("id", &self.id), ("data_dir", &self.data_dir)];
        let named = named.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v.clone()?)));
        self.set.iter().cloned().chain(named).collect()
    }
}

/// The value of a znode, from one of three places.
#[derive(Args, Debug)]
pub(crate) struct Value {
    /// The value; `-` reads it from standard input.
    #[arg(value_name = "VALUE", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) value: Option<String>,

    /// Read the value from a file.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Where; from the root, as in /app/config.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) value: Value,
    /// Remove it when this command ends: it waits for Ctrl-C.
    #[arg(long, short)]
    pub(crate) ephemeral: bool,
    /// Let the ensemble remove it some time after its last child is gone. One that never had a child stays.
    #[arg(long, conflicts_with = "ephemeral")]
    pub(crate) container: bool,
    /// Let the ensemble remove it some time after it has had no children and its value has not changed for longer than this.
    #[arg(long, value_name = "DURATION", value_parser = limit, conflicts_with_all = ["ephemeral", "container"])]
    pub(crate) ttl: Option<Duration>,
    /// Put the next number of the parent behind the name, ten digits wide.
    #[arg(long, short)]
    pub(crate) sequential: bool,
    /// Make missing parents, empty ones.
    #[arg(long, short)]
    pub(crate) parents: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Which znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    /// The same as --level linearizable.
    #[arg(long, conflicts_with_all = ["level", "at_least"])]
    pub(crate) sync: bool,
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

#[derive(Args, Debug)]
pub(crate) struct Set {
    /// Which znode.
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

#[derive(Args, Debug)]
pub(crate) struct StatArgs {
    /// Which znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// Which znode.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// More about each child.
    #[arg(long, short, visible_alias = "stat")]
    pub(crate) long: bool,
    /// Everything below, not only the children.
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Acl {
    /// Print the access list of a znode, an entry in a line.
    ///
    /// Hashes of digests are left out, unless you may change the list.
    #[command(after_help = "\
Examples:
  quorate acl get /app/config
  quorate acl get /app/config -o json      {acl: [{scheme, id, permissions}], aversion}")]
    Get(AclGet),

    /// Replace the access list of a znode.
    ///
    /// Each ENTRY is SCHEME:ID:PERMISSIONS. Schemes are world (the id is anyone), digest (user:hash), ip (an address or a network),
    /// x509, user and role; `auth::PERMISSIONS` stands for the identities that --auth proves. Permissions are letters of rwcda: read, write, create children, delete children, admin. Only a
    /// superuser can change a list without an entry that gives admin.
    #[command(after_help = "\
Examples:
  quorate acl set /app/config world:anyone:r ip:10.0.0.0/8:rwcda
  quorate acl set /app/config auth::rwcda --auth-file ~/.quorate-auth      you, and nobody else
  quorate acl set /app/config world:anyone:rwcda --version 3")]
    Set(AclSet),

    /// Print who the ensemble takes you for: your address, and the identities that --auth proves.
    Whoami(AclWhoAmI),
}

#[derive(Args, Debug)]
pub(crate) struct AclWhoAmI {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct AclGet {
    /// Which znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct AclSet {
    /// Which znode.
    pub(crate) path: String,
    /// The new list.
    #[arg(required = true, value_name = "ENTRY", value_parser = crate::acl::entry)]
    pub(crate) entries: Vec<crate::acl::Entry>,
    /// Only if the list was changed so many times (`aversion` in `quorate stat -o json`).
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<i32>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Which znode; it need not exist.
    pub(crate) path: String,
    /// All below it as well.
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
    /// Its children, and not its own value.
    #[arg(long, conflicts_with = "recursive")]
    pub(crate) children: bool,
    /// End with the first change.
    #[arg(long, conflicts_with = "initial")]
    pub(crate) once: bool,
    /// First a line for each znode that is there, of at most 10,000.
    #[arg(long)]
    pub(crate) initial: bool,
    /// Values as well.
    #[arg(long)]
    pub(crate) values: bool,
    /// Begin behind this zxid, as an earlier line or `quorate stat` prints it.
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    pub(crate) from: Option<Zxid>,
    /// Do not say on standard error where it begins.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// What to import.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The znode to make of it.
    #[arg(value_name = "ZNODE")]
    pub(crate) path: String,
    /// Writes under way at the same time.
    #[arg(long, value_name = "N", default_value = "256", value_parser = in_flight())]
    pub(crate) in_flight: u32,
    /// Refuse files larger than this; the ensemble's own limit is the setting `limits.data`, 1MiB unless it was raised on all
    /// nodes.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) max_size: Size,
    /// Leave symbolic links and special files out, with a warning for each.
    #[arg(long)]
    pub(crate) skip_special: bool,
    /// Leave files larger than --max-size out, with a warning for each.
    #[arg(long)]
    pub(crate) skip_large: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Which znode, with everything below it.
    #[arg(value_name = "ZNODE")]
    pub(crate) path: String,
    /// Where to write.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Write one file instead of a directory: for any tree, with what directories cannot hold.
    #[arg(long)]
    pub(crate) archive: bool,
    /// Reads under way at the same time.
    #[arg(long, value_name = "N", default_value = "64", value_parser = in_flight())]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Nodes to ask first, host:port of the client API; they name the other members.
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_parser = endpoints,
        default_value = "127.0.0.1:12188,127.0.0.1:22188,127.0.0.1:32188",
        hide_env_values = true
    )]
    pub(crate) endpoints: Vec<Endpoints>,
    /// A node that has not answered after this counts as unreachable.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "2s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Upgrade {
    /// Show the feature level, and which levels the members know.
    ///
    /// Each version of Quorate knows a range of feature levels, and the ensemble is at one of them. What is new in a version is
    /// used from its level on. As long as the level is not raised, each node can go back to the version before.
    #[command(after_help = "\
Examples:
  quorate upgrade status
  quorate upgrade status -o json | jq .level

With -o json: an object with level, max_level (the greatest that all members know) and members, an array of objects with id,
version, min_level and max_level. What is not known is null.")]
    Status(UpgradeStatus),

    /// Raise the feature level, after all members run the new version.
    ///
    /// Refused unless every member, observers too, is there and knows the level. Ends when the level is committed. There is no way
    /// back: a version that does not know the level does not start on the data of such an ensemble, and cannot join it.
    #[command(after_help = "\
Examples:
  quorate upgrade finalize                  to the greatest level that all members know
  quorate upgrade finalize --level 2")]
    Finalize(UpgradeFinalize),
}

#[derive(Args, Debug)]
pub(crate) struct UpgradeStatus {
    /// Nodes to ask, host:port of the client API, until one answers.
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_parser = endpoints,
        default_value = "127.0.0.1:12188,127.0.0.1:22188,127.0.0.1:32188",
        hide_env_values = true
    )]
    pub(crate) endpoints: Vec<Endpoints>,
    /// A node that has not answered after this counts as unreachable.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "2s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct UpgradeFinalize {
    /// To this level; left out: to the greatest that all members know.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) level: Option<u32>,
    /// Nodes to ask, host:port of the client API, until one answers.
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_parser = endpoints,
        default_value = "127.0.0.1:12188,127.0.0.1:22188,127.0.0.1:32188",
        hide_env_values = true
    )]
    pub(crate) endpoints: Vec<Endpoints>,
    /// A node that has not answered after this counts as unreachable.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "10s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

#[derive(Args, Debug)]
pub(crate) struct Health {
    /// Whether the process works, whatever its peers do: /livez instead of /readyz.
    #[arg(long, conflicts_with = "startup")]
    pub(crate) live: bool,
    /// Whether recovery is over: /startupz instead of /readyz.
    #[arg(long)]
    pub(crate) startup: bool,
    /// Name each check, also when all is well.
    #[arg(long, short)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) http: Http,
}

#[derive(Args, Debug)]
pub(crate) struct Loglevel {
    /// What to print from now on: warn, debug, info,quorum_svc=debug ... Left out: print what is set.
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
    /// Whichever of them runs here and answers first. For an image that runs any one of them.
    Any,
}

/// One process, by its HTTP port.
#[derive(Args, Debug)]
pub(crate) struct Http {
    /// The HTTP port of a process, host:port. Without it, that of --service on this machine.
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint, conflicts_with_all = ["service", "config"])]
    pub(crate) endpoint: Option<String>,
    /// Which process of the node, if each service is one. Its port is what QUORATE_LISTEN_HTTP_PORT,
    /// QUORATE_LISTEN_QUORUM_HTTP_PORT and QUORATE_LISTEN_ELECTION_HTTP_PORT say, else 9464 (node, store), 9465 (quorum), 9466
    /// (election), at QUORATE_LISTEN_HOST.
    #[arg(long, value_enum, default_value = "node", hide_default_value = true)]
    pub(crate) service: Process,
    /// Take the port from the configuration of the node that runs on this machine.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "2s")]
    pub(crate) timeout: Duration,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Print every setting in effect, and where it came from.
    ///
    /// What is printed is a valid configuration file.
    #[command(after_help = "\
Examples:
  quorate config show --config quorate.toml
  quorate config show --config quorate.toml --explain")]
    Show(ConfigShow),
}

#[derive(Args, Debug)]
pub(crate) struct ConfigShow {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Say what each setting means, and the name of its environment variable.
    #[arg(long)]
    pub(crate) explain: bool,
}

fn endpoints(text: &str) -> Result<Endpoints, String> {
    let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    let endpoints = Endpoints(texts.map(endpoint).collect::<Result<_, String>>()?);
    if endpoints.0.is_empty() { Err(EXPECTED_ENDPOINT.to_owned()) } else { Ok(endpoints) }
}

/// With or without `http://` or `https://`; the second one stays.
fn endpoint(text: &str) -> Result<String, String> {
    let secured = behind_scheme(text, "https://");
    let text = secured.or_else(|| behind_scheme(text, "http://")).unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if port != 0 && !host.is_empty() && !host.contains(['/', '@']) => {
            Ok(if secured.is_some() { format!("https://{text}") } else { text.to_owned() })
        }
        _ => Err(EXPECTED_ENDPOINT.to_owned()),
    }
}

const EXPECTED_ENDPOINT: &str = "expected host:port, as in 127.0.0.1:2188";

/// How long to wait at most; not at all makes no sense.
fn limit(text: &str) -> Result<Duration, String> {
    let limit = Duration::parse(text).filter(|limit| !limit.is_zero());
    limit.ok_or_else(|| format!("expected {}, above 0", Duration::EXPECTED))
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1, as in 0.01".to_owned())
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in timing.tick=100ms")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| format!("expected {}", Size::EXPECTED))
}

fn zxid(text: &str) -> Result<Zxid, String> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    hex.map(Zxid).ok_or_else(|| "expected a zxid as `quorate stat` prints it, as in 0x100000007".to_owned())
}

fn version() -> impl clap::builder::TypedValueParser<Value = i32> {
    clap::value_parser!(i32).range(0..)
}

fn in_flight() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=16_384)
}

#[cfg(test)]
mod tests;
