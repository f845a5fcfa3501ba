//! Ports that accept plaintext from other machines, which takes a decision of the operator.

use std::net::SocketAddr;

use ::tls::Mode;

use super::{GatewayConfig, HOST_KEY, Internal, NodeConfig, layers::Layers};

/// Key of the decision.
pub const INSECURE_KEY: &str = "insecure";

/// What `insecure` means, in `quorate config show`.
const MEANING: &str = "whether ports outside the loopback interface may accept plaintext: whoever reaches them can read, write, and act \
                       as a member";

/// A port that accepts plaintext from other machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaintextPort {
    /// As in messages: "client", "quorum" ...
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

impl NodeConfig {
    /// The ports that accept plaintext from other machines; none unless `insecure` is set. The modes `accept` and `prefer` do.
    #[must_use]
    pub fn plaintext_ports(&self) -> Vec<PlaintextPort> {
        let (listen, tls) = (&self.listen, &self.tls);
        let internal = |port: &Internal| match port {
            Internal::Tcp(address) => Some(*address),
            Internal::Unix(_) => None,
        };
        let mut ports = vec![
            ("client", Some(listen.client), tls.clients.mode),
            ("ZooKeeper", listen.zookeeper, tls.clients.mode),
            ("quorum", Some(listen.quorum), tls.members.mode),
            ("election", Some(listen.election), tls.members.mode),
            ("internal quorum", internal(&listen.internal_quorum), tls.members.mode),
            ("internal election", internal(&listen.internal_election), tls.members.mode),
            ("internal store", listen.internal_store.as_ref().and_then(internal), tls.members.mode),
        ];
        ports.extend([("HTTP", listen.http, tls.http.mode)]);
        open(&ports)
    }

    pub(super) fn check_plaintext(&self, r: &mut Layers) {
        refuse(r, self.insecure, &self.plaintext_ports(), "[tls.members] and [tls.clients]");
    }
}

impl GatewayConfig {
    /// As of a node.
    #[must_use]
    pub fn plaintext_ports(&self) -> Vec<PlaintextPort> {
        open(&[
            ("ZooKeeper", Some(self.zookeeper), self.clients.mode),
            ("HTTP", self.http, self.http_tls.mode),
        ])
    }

    pub(super) fn check_plaintext(&self, r: &mut Layers) {
        refuse(r, self.insecure, &self.plaintext_ports(), "[tls.clients]");
    }
}

/// A setting of nodes and gateways.
pub(super) fn insecure(r: &mut Layers) -> bool {
    r.get(INSECURE_KEY, MEANING, false)
}

fn open(ports: &[(&'static str, Option<SocketAddr>, Mode)]) -> Vec<PlaintextPort> {
    let open = |&(name, address, mode): &(&'static str, Option<SocketAddr>, Mode)| {
        let address = address.filter(|address| !address.ip().to_canonical().is_loopback())?;
        (mode != Mode::Require).then_some(PlaintextPort { name, address })
    };
    ports.iter().filter_map(open).collect()
}

fn refuse(r: &mut Layers, insecure: bool, open: &[PlaintextPort], sections: &str) {
    if insecure || open.is_empty() {
        return;
    }
    let ports: Vec<String> = open.iter().map(|port| format!("{} {}", port.name, port.address)).collect();
    r.problem(&format!(
        "these ports would accept plaintext from other machines: {}. Set up TLS in {sections} with the mode \"require\" (`quorate certs \
         init` makes certificates), or set `insecure = true` (--insecure, QUORATE_INSECURE=true) if nobody but you reaches these ports, \
         or listen on this machine alone: `{HOST_KEY} = \"127.0.0.1\"`",
        ports.join(", ")
    ));
}
