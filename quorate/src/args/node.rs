//! The commands that run nodes, and those on the files of one node: `up`, `serve` and its parts, `recover`, `config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use host::config::INSECURE_KEY;

use super::parse::key_and_value;

/// Start an ensemble on this machine.
///
/// Each node is a process of its own, so you can kill it alone. A node that ends stays down; the end of its log and the
/// command that starts it again are printed. Ctrl-C stops all nodes. DIR/node-N/ holds the configuration (quorate.toml),
/// the process id (pid), the log lines (log) and the data of node N. Started again on the same DIR, the ensemble continues
/// with its data.
///
/// Node N listens on 127.0.0.1, on port N*10000 + 2188 (clients), 2181 (ZooKeeper's clients), 2888 (quorum), 3888
/// (election) and 9464 (HTTP: probes and metrics). With --split its services connect to each other on N*10000 + 2889 and
/// 3889, the probes and metrics of quorum and election are on N*10000 + 9465 and 9466, and each service has a pid and a log
/// file of its own: pid.store ...
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate up                                      three nodes, data removed at the end
  quorate up --nodes 5 --data ./ensemble          five nodes, data kept
  quorate up --split                              each service a process of its own: three times three
  quorate up --tls                                with TLS; prints what clients need
  quorate up --base-port 7000                     on ports from 7000, 7020 and 7040")]
pub(crate) struct Up {
    /// Number of nodes, 1 to 9 [default: 3, or as many as DIR has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: Option<u8>,

    /// Number of observers among them, the last ones: they serve clients, but neither vote nor count
    /// [default: 0, or as many as DIR has].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) observers: Option<u8>,

    /// Directory for the nodes' folders [default: a new temporary directory, removed at the end].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Run election, quorum and store of each node in processes of their own, so you can kill each service alone. The same DIR
    /// works with and without this option.
    #[arg(long)]
    pub(crate) split: bool,

    /// Pack the ports: node 1 at N (client), N+1 (quorum), N+2 (election), N+3 (HTTP; with --split also N+6 and N+7), N+4 and N+5
    /// (between its services); node 2 at N+20 ..., so that several ensembles fit side by side.
    #[arg(long, value_name = "N")]
    pub(crate) base_port: Option<u16>,

    /// Secure all ports of members and clients by TLS, with certificates that are made in DIR/certs. An existing DIR keeps its mode.
    #[arg(long)]
    pub(crate) tls: bool,
}

pub(super) const SERVE_EXAMPLES: &str = "\
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
  host = \"node-3.example\"";

#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) settings: Settings,

    /// End when the process with this id, which has to be the parent, does.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) exit_with_parent: Option<u32>,
}

/// Where the settings of a node come from.
#[derive(Args, Debug)]
pub(crate) struct Settings {
    /// Configuration file, TOML.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Id of this node among the members, or `hostname` for the member whose host is this machine; overrides `id`.
    #[arg(long, value_name = "N")]
    pub(crate) id: Option<String>,

    /// Directory of all durable data; overrides `data_dir`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,

    /// Let ports outside the loopback interface accept plaintext: whoever reaches them can read, write, and act as a member;
    /// overrides `insecure`.
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Override any other setting; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
}

impl Settings {
    /// As pairs of key and value.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let named = [("id", &self.id), ("data_dir", &self.data_dir)];
        let named = named.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v.clone()?)));
        let insecure = self.insecure.then(|| (INSECURE_KEY.to_owned(), "true".to_owned()));
        self.set.iter().cloned().chain(named).chain(insecure).collect()
    }
}

/// Repair the data directory of a stopped node, when an ensemble cannot continue without a decision.
///
/// For emergencies: used where it is not needed, each of these commands can lose acknowledged writes. Each prints what it
/// would do, and does it only with --yes.
#[derive(Subcommand, Debug)]
pub(crate) enum Recover {
    /// Begin a new ensemble from the data of this node, with the members of the configuration.
    ///
    /// Use it when more than half of the voters are lost for good, or to add, remove or change members. Stop all nodes
    /// first, and use the directory with the newest data. The ensemble gets a new id, so nodes of the old one cannot join
    /// it, and no two quorums can act at the same time. Then, until more than half of the voters have the data, copy this
    /// directory to another node and run `quorate recover copy` there. All other nodes start with empty directories.
    #[command(after_help = "\
Examples:
  quorate recover members --config quorate.toml             prints what it would do
  quorate recover members --config quorate.toml --yes
  cp -a /from/node-1/data /var/lib/quorate && quorate recover copy --config quorate.toml --yes")]
    Members(Offline),

    /// Turn a copy of another node's data directory into the directory of this node.
    ///
    /// The second step of `quorate recover members`: the data directory of this node's configuration holds a copy of the
    /// directory that the new ensemble began with, or of another stopped node.
    #[command(after_help = "\
Examples:
  quorate recover copy --config quorate.toml --yes")]
    Copy(Offline),

    /// Clear the note that the data directory of this node is an older copy.
    ///
    /// A node whose peers have met a newer incarnation than its directory knows does not vote until a leader has sent it the
    /// missing writes. If there is no such leader, because all directories were restored from older copies, or if the note is
    /// wrong, use this command. The missing writes are lost.
    #[command(after_help = "\
Examples:
  quorate recover trust-directory --config quorate.toml --yes")]
    TrustDirectory(Offline),
}

/// About the directory of a stopped node.
#[derive(Args, Debug)]
pub(crate) struct Offline {
    #[command(flatten)]
    pub(crate) settings: Settings,

    /// Do it. Without this option the command only prints what it would do.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Show the effective configuration.
#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Print every effective setting, and its source.
    ///
    /// The output is a valid configuration file.
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
    /// Print the meaning and the environment variable of each setting as well.
    #[arg(long)]
    pub(crate) explain: bool,
}
