//! TLS of a process's ports, by its configuration.

use std::sync::Arc;

use host::{
    config::{NodeConfig, Secured},
    listen::Listener,
};
use tls::{Acceptor, Certificates, Dialer, Keeper, Mode};
use tokio_util::sync::CancellationToken;

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
    members: (Mode, Option<Arc<Keeper>>),
    clients: (Mode, Option<Arc<Keeper>>),
}

impl Secure {
    /// Reads the certificates of these ports, and keeps looking at their files until `shutdown`. A process reads no keys but its own.
    pub(crate) fn load(
        node: &NodeConfig,
        ports: Ports,
        shutdown: &CancellationToken,
    ) -> Result<Secure, Failure> {
        let members = Certificates::Members { ensemble: node.ensemble.clone(), me: node.id };
        let clients = Certificates::Clients { required: node.tls.client_certificates };
        let kept = |set: &Secured, certificates, has: bool, ports: &str| -> Result<_, Failure> {
            if !has {
                return Ok((Mode::Off, None));
            }
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
        };
        let has_members = matches!(ports, Ports::All | Ports::Members);
        let has_clients = matches!(ports, Ports::All | Ports::Clients);
        Ok(Secure {
            members: kept(&node.tls.members, members, has_members, "members")?,
            clients: kept(&node.tls.clients, clients, has_clients, "clients")?,
        })
    }

    /// How this process connects to other members.
    pub(crate) fn dialer(&self) -> Dialer {
        let (mode, keeper) = &self.members;
        keeper.as_ref().map_or_else(Dialer::plain, |keeper| Dialer::new(keeper, *mode))
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
}

fn secured(port: Listener, (mode, keeper): &(Mode, Option<Arc<Keeper>>), http2: bool) -> Listener {
    port.secured(keeper.as_ref().and_then(|keeper| Acceptor::new(keeper, *mode, http2)))
}
