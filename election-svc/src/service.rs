use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use api::{Build, Greeting, PeerId, Roster, Standing};
use proto::internal::election_port_server::ElectionPortServer;
use proto::peer::election_server::ElectionServer;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Endpoint;

use crate::complaints::Complaints;
use crate::dialer::Dialer;
use crate::link::{MESSAGE_MAX, Shared};
use crate::{Driver, Handle, PortServer, Server};

/// Configuration of the election service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the ensemble; servers with another name are refused.
    pub ensemble_name: String,
    /// See [`Greeting`].
    pub build: Build,
    /// This server, all members, and the waiting times.
    pub core: election_core::Config,
    /// `host:port` of each other member's election port; names are resolved at each dial. Only smaller
    /// ids are dialled.
    pub addresses: BTreeMap<PeerId, String>,
    /// Connects to the other members.
    pub dialer: tls::Dialer,
}

/// The reason why a [`Config`] is unusable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// This server is not among the members.
    #[error("this server, {0}, is not a member of its ensemble: add it to the members, or correct its id")]
    NotAMember(PeerId),
    /// A member has no address.
    #[error("member {0} has no election address: give its host and port")]
    NoAddress(PeerId),
    /// Not `host:port`.
    #[error("the election address {1:?} of member {0} is not of the form host:port")]
    BadAddress(PeerId, String),
}

/// An election in parts for its owner: call the handle, serve the server, spawn the driver.
#[derive(Debug)]
pub struct ElectionService {
    /// The port for callers in this process.
    pub handle: Handle,
    /// The gRPC service of the election port. Serve it with TCP_NODELAY.
    pub server: ElectionServer<Server>,
    /// The port for this node's quorum in a process of its own; no other process may reach it.
    pub port: ElectionPortServer<PortServer>,
    /// Whether a quorum is linked to that port.
    pub quorum: watch::Receiver<bool>,
    /// The other members that this election is connected to.
    pub peers: watch::Receiver<BTreeSet<PeerId>>,
    /// Runs everything else: spawn [`Driver::run`]. It returns once `shutdown` is cancelled and all
    /// tasks of this service have ended.
    pub driver: Driver,
}

impl ElectionService {
    /// Checks `config`. Nothing happens before the driver runs.
    ///
    /// # Errors
    /// Members and addresses do not fit together.
    pub fn new(config: Config, shutdown: CancellationToken) -> Result<ElectionService, ConfigError> {
        let me = config.core.me;
        if config.core.ensemble.membership(me).is_none() {
            return Err(ConfigError::NotAMember(me));
        }
        let (events, received_events) = mpsc::channel(QUEUE);
        let (commands, received_commands) = mpsc::channel(QUEUE);
        let greeting = Greeting {
            name: config.ensemble_name,
            id: me,
            roster: Arc::new(Roster::initial(config.core.ensemble.clone())),
            standing: Standing::default(),
            build: config.build,
            // Of which the quorums tell each other.
            settings: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            me,
            greeting: watch::Sender::new(greeting),
            events,
            last_link: AtomicU64::new(0),
            complaints: Complaints::default(),
            dialer: config.dialer,
            tasks: TaskTracker::new(),
            shutdown,
        });
        let mut dialers = Vec::new();
        for (peer, _) in config.core.ensemble.members().filter(|&(peer, _)| election_core::dials(me, peer)) {
            let address = config.addresses.get(&peer).ok_or(ConfigError::NoAddress(peer))?;
            let bad = || ConfigError::BadAddress(peer, address.clone());
            let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(bad());
            }
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
            if endpoint.uri().authority().is_none_or(|authority| authority.as_str() != address) {
                return Err(bad());
            }
            dialers.push(Dialer { shared: shared.clone(), peer, endpoint });
        }
        let handle = Handle::new(commands);
        let (present, quorum) = watch::channel(false);
        let newest = Arc::new(Mutex::new(None));
        let port = PortServer { shared: shared.clone(), handle: handle.clone(), quorum: newest, present };
        let driver = Driver::new(config.core, shared.clone(), dialers, received_commands, received_events);
        Ok(ElectionService {
            handle,
            port: ElectionPortServer::new(port).max_decoding_message_size(MESSAGE_MAX),
            quorum,
            peers: driver.peers(),
            server: ElectionServer::new(Server { shared }).max_decoding_message_size(MESSAGE_MAX),
            driver,
        })
    }
}

/// Maximum number of commands, and of events of links, that wait for the driver. When the queue is
/// full, callers wait, and links stop reading.
const QUEUE: usize = 64;
