//! `quorate gateway`.

use std::path::PathBuf;

use clap::Args;
use host::config::INSECURE_KEY;

use super::parse::key_and_value;

/// Serve ZooKeeper's clients in a process of its own, in front of any nodes of an ensemble.
///
/// Stateless: when its gateway or node fails, a client reconnects to this gateway or another one and keeps its session. Each node
/// serves ZooKeeper's clients itself (`listen.zookeeper_port`); use a gateway where clients cannot or must not reach the nodes.
///
/// The nodes listen for it on `listen.internal_store_port`, at `listen.internal_host`, or at store.sock in `listen.internal_dir`. A
/// gateway can act for any client. Where other machines reach that port, it admits only certificates of gateways, if members have
/// TLS (gateway.pem of `quorate certs`). Probes, metrics and /commands are on `listen.http_port` (9467).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate gateway --config /etc/quorate/gateway.toml
  quorate gateway --stores unix:/run/quorate/store.sock --set ensemble=orders --set listen.host=127.0.0.1

A configuration:
  ensemble = \"orders\"
  [gateway]
  stores = \"https://q1:2189,https://q2:2189,https://q3:2189\"
  [listen]
  zookeeper_port = 2181
  [tls.stores]
  certificate = \"gateway.pem\"
  key = \"gateway.key\"
  authorities = \"ca.pem\"
  [tls.clients]
  mode = \"require\"
  certificate = \"server.pem\"
  key = \"server.key\"")]
pub(crate) struct GatewayArgs {
    /// Configuration file, TOML.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Internal ports of the stores, with commas between them; overrides `gateway.stores`.
    #[arg(long, value_name = "URL,...")]
    pub(crate) stores: Option<String>,

    /// Let ports outside the loopback interface accept plaintext; overrides `insecure`.
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Override any other setting; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,

    /// End when the process with this id, which has to be the parent, does.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) exit_with_parent: Option<u32>,
}

impl GatewayArgs {
    /// As pairs of key and value.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let stores = self.stores.iter().map(|stores| ("gateway.stores".to_owned(), stores.clone()));
        let insecure = self.insecure.then(|| (INSECURE_KEY.to_owned(), "true".to_owned()));
        self.set.iter().cloned().chain(stores).chain(insecure).collect()
    }
}
