//! TLS of a process's ports, by its configuration.

use std::sync::Arc;

use api::PeerId;
use host::{
    config::{GatewayConfig, Internal, NodeConfig, PlaintextPort, Secured},
    listen::Listener,
};
use proto::remote::Dial;
use telemetry::metrics;
use tls::{Acceptor, Admitted, Certificates, Dialer, Keeper, Mode};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::exit::{Doing as _, Failure};

/// Which ports a process has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ports {
    /// Those of a whole node.
    All,
    /// For other members.
    Members,
    /// For clients.
    Clients,
}

/// The certificates of a process.
pub(crate) struct Secure {
    me: PeerId,
    members: Kept,
    clients: Kept,
    http: Kept,
}

/// Those of one set of ports.
type Kept = (Mode, Option<Arc<Keeper>>);

impl Secure {
    /// Reads the certificates of these ports, and keeps looking at their files until `shutdown`. A process reads no keys but its own.
    pub(crate) fn load(
        node: &NodeConfig,
        ports: Ports,
        shutdown: &CancellationToken,
    ) -> Result<Secure, Failure> {
        report_plaintext(&node.plaintext_ports());
        let members = Certificates::Members { ensemble: node.ensemble.clone(), me: node.id };
        let clients = Certificates::Clients { required: node.tls.client_certificates };
        let kept = |set: &Secured, certificates, has: bool, ports: &str| match has {
            true => keep(set, certificates, ports, shutdown),
            false => Ok((Mode::Off, None)),
        };
        // A store dials its quorum, and takes gateways, as its member.
        let internal = [&node.listen.internal_quorum, &node.listen.internal_election]
            .into_iter()
            .chain(&node.listen.internal_store)
            .any(Internal::is_open);
        let has_members = ports != Ports::Clients || internal || node.services.quorum.starts_with("https:");
        let has_clients = ports != Ports::Members;
        Ok(Secure {
            me: node.id,
            members: kept(&node.tls.members, members, has_members, "members")?,
            clients: kept(&node.tls.clients, clients, has_clients, "clients")?,
            http: kept(&node.tls.http, Certificates::Readers, true, "HTTP")?,
        })
    }

    /// How this process connects to other members.
    pub(crate) fn dialer(&self) -> Dialer {
        dialer(&self.members)
    }

    /// How this process connects to other processes of its node by TLS; `None` if it does not.
    pub(crate) fn dial_own(&self) -> Option<Dial> {
        let (mode, _) = &self.members;
        let (dialer, me) = (self.dialer(), self.me);
        mode.dials().then(|| Dial::new(move |endpoint: Endpoint| dialer.connect_lazy(&endpoint, Some(me))))
    }

    /// A port for members.
    pub(crate) fn member_port(&self, port: Listener) -> Listener {
        secured(port, &self.members, true)
    }

    /// The port of the client API.
    pub(crate) fn client_port(&self, port: Listener) -> Listener {
        secured(port, &self.clients, true)
    }

    /// The port for ZooKeeper's clients, which know no ALPN.
    pub(crate) fn zookeeper_port(&self, port: Option<Listener>) -> Option<Listener> {
        port.map(|port| secured(port, &self.clients, false))
    }

    /// The port of probes and metrics.
    pub(crate) fn http_port(&self, port: Option<Listener>) -> Option<Listener> {
        port.map(|port| http_port(port, &self.http))
    }

    /// Binds a port for the other processes of this node, or for gateways. Only where other machines reach it, it has TLS.
    pub(crate) async fn internal_port(
        &self,
        what: &'static str,
        at: &Internal,
        admitted: Admitted,
    ) -> Result<Listener, Failure> {
        let address = match at {
            Internal::Unix(path) => return Listener::bind_socket(what, path).await.or_usage(),
            Internal::Tcp(address) => *address,
        };
        let port = Listener::bind(what, address).await.or_usage()?;
        let (mode, keeper) = &self.members;
        let keeper = keeper.as_ref().filter(|_| at.is_open());
        let acceptor = keeper.and_then(|keeper| Acceptor::new(keeper, *mode, true));
        Ok(port.secured(acceptor.map(|acceptor| acceptor.admitting(admitted))))
    }
}

/// The certificates of a gateway.
pub(crate) struct SecureGateway {
    clients: Kept,
    http: Kept,
    stores: Option<Arc<Keeper>>,
}

impl SecureGateway {
    /// As [`Secure::load`].
    pub(crate) fn load(
        config: &GatewayConfig,
        shutdown: &CancellationToken,
    ) -> Result<SecureGateway, Failure> {
        report_plaintext(&config.plaintext_ports());
        let clients = Certificates::Clients { required: config.client_certificates };
        let stores = Certificates::Stores { ensemble: config.ensemble.clone() };
        let mode = if config.store_files.is_some() { Mode::Require } else { Mode::Off };
        let stores_set = Secured { mode, files: config.store_files.clone() };
        Ok(SecureGateway {
            clients: keep(&config.clients, clients, "clients", shutdown)?,
            http: keep(&config.http_tls, Certificates::Readers, "HTTP", shutdown)?,
            stores: keep(&stores_set, stores, "stores", shutdown)?.1,
        })
    }

    /// The port for ZooKeeper's clients.
    pub(crate) fn zookeeper_port(&self, port: Listener) -> Listener {
        secured(port, &self.clients, false)
    }

    /// The port of probes, metrics and commands.
    pub(crate) fn http_port(&self, port: Listener) -> Listener {
        http_port(port, &self.http)
    }

    /// How the gateway connects to stores by TLS; `None` if it has no certificate for that.
    pub(crate) fn dial_stores(&self) -> Option<Dial> {
        let keeper = self.stores.as_ref()?;
        let dialer = Dialer::new(keeper, Mode::Require);
        Some(Dial::new(move |endpoint: Endpoint| dialer.connect_lazy(&endpoint, None)))
    }
}

/// Reads one set of certificates, and keeps looking at its files.
fn keep(
    set: &Secured,
    certificates: Certificates,
    ports: &str,
    shutdown: &CancellationToken,
) -> Result<Kept, Failure> {
    if matches!(set.mode, Mode::Accept | Mode::Prefer) {
        tracing::warn!(
            ports,
            "ports accept plaintext beside TLS, so strangers can connect; continue with the mode \"require\""
        );
    }
    let keeper = set.files.clone().map(|files| Keeper::load(files, certificates)).transpose();
    let keeper = keeper.or_usage()?;
    if let Some(keeper) = &keeper {
        tokio::spawn(keeper.clone().keep(shutdown.clone()));
    }
    Ok((set.mode, keeper))
}

/// Tells log and metrics which ports are open to other machines without TLS.
fn report_plaintext(ports: &[PlaintextPort]) {
    metrics::PORTS_PLAINTEXT.set(ports.len() as u64);
    if ports.is_empty() {
        return;
    }
    let names: Vec<String> = ports.iter().map(|port| format!("{} {}", port.name, port.address)).collect();
    tracing::warn!(
        ports = names.join(", "),
        "`insecure` is set: these ports accept plaintext from other machines, so whoever reaches them can read, write, and act as a \
         member"
    );
}

fn dialer((mode, keeper): &Kept) -> Dialer {
    keeper.as_ref().map_or_else(Dialer::plain, |keeper| Dialer::new(keeper, *mode))
}

fn secured(port: Listener, (mode, keeper): &Kept, http2: bool) -> Listener {
    port.secured(keeper.as_ref().and_then(|keeper| Acceptor::new(keeper, *mode, http2)))
}

/// Probes of this machine need no certificates, and see nothing that its users may not.
fn http_port(port: Listener, (mode, keeper): &Kept) -> Listener {
    let acceptor = keeper.as_ref().and_then(|keeper| Acceptor::new(keeper, *mode, false));
    port.secured(acceptor.map(Acceptor::with_local_plaintext))
}
