//! The services of this node that run in other processes, as if they ran in this one.
//!
//! A service in the same process is lost for good, and the process ends with it. A service in another process
//! comes back, because it restarts alone. So these clients do more than a caller in the same process: they
//! dial until a server answers, dial again when the link breaks, and repeat the state that the other side
//! needs. Their callers see a slow service.

mod election;
mod parked;
mod quorum;
mod store;
mod tickets;

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{EnsembleId, OpError, PeerId, SessionId, Standing, session::Opened};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Malformed, peer,
    ports::{another_ensemble, check_neighbour},
    quorum::Hello,
};

pub use election::RemoteElection;
pub use quorum::{Bounds, Kept, RemoteFeed, RemoteQuorum};
pub use store::{RemoteCoordination, RemoteItems, RemoteRequests};

/// A service of this node that runs in a process of its own.
#[derive(Debug)]
pub struct Neighbour {
    name: &'static str,
    /// As it was given.
    address: String,
    endpoint: Endpoint,
    /// For an address with `https`.
    dial: Option<Dial>,
    own: Arc<Own>,
    /// The last logged error of a link, so that each is logged once.
    said: Mutex<Option<String>>,
}

/// How this service introduces itself.
#[derive(Debug)]
struct Own {
    /// Name of the ensemble.
    name: String,
    me: PeerId,
    /// What it knows of its ensemble.
    standing: Mutex<Standing>,
}

impl Own {
    fn hello(&self) -> peer::Hello {
        Hello::to_wire(&self.name, self.me, self.standing())
    }

    fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// From now on it belongs to this ensemble.
    fn belong(&self, ensemble: EnsembleId) {
        self.know(Standing { ensemble: Some(ensemble), bound: true, ..Standing::default() });
    }

    /// Takes the ensemble of the first session that a client has.
    ///
    /// # Errors
    /// A session of another ensemble.
    fn opened(&self, opened: &Opened) -> Result<(), OpError> {
        match (self.standing().ensemble, opened.ensemble) {
            (Some(expected), Some(actual)) if expected != actual => {
                Err(OpError::WrongEnsemble { expected, actual })
            }
            // Reads without a session do not count: before its first write an ensemble may get another id.
            (None, Some(ensemble)) if opened.session != SessionId(0) => {
                self.belong(ensemble);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Connects by TLS.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(Endpoint) -> Channel + Send + Sync>);

impl Dial {
    /// From the endpoint of a host and port to a channel that connects with its first call, and again when its connection breaks.
    pub fn new(dial: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Dial {
        Dial(Arc::new(dial))
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

/// Not an address of a neighbour.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no address of a service; expected one such as \"http://127.0.0.1:2889\" or \"unix:/run/quorate/quorum.sock\"; \
     \"https://\" needs certificates"
)]
pub struct BadAddress(pub String);

impl Neighbour {
    /// The service `name` ("election", "quorum"; for messages) at `address` of the node `me` of `ensemble`: `http://host:port`,
    /// `unix:/path`, or with a `dial` for it `https://host:port`. The name of the host is resolved at each dial.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(
        name: &'static str,
        address: &str,
        ensemble: &str,
        me: PeerId,
        dial: Option<Dial>,
    ) -> Result<Neighbour, BadAddress> {
        let bad = || BadAddress(address.to_owned());
        let (endpoint, dial) = match address.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => {
                (Endpoint::from_shared(address.to_owned()).map_err(|_| bad())?, None)
            }
            Some(_) => return Err(bad()),
            None => by_tcp(address, dial).ok_or_else(bad)?,
        };
        let endpoint = endpoint
            .tcp_nodelay(true)
            .connect_timeout(DIAL_LIMIT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let own = Own { name: ensemble.to_owned(), me, standing: Mutex::default() };
        let (address, own) = (address.to_owned(), Arc::new(own));
        Ok(Neighbour { name, address, endpoint, dial, own, said: Mutex::new(None) })
    }

    /// Of the same ensemble as `other`: what one of them learns of it counts for both.
    #[must_use]
    pub fn with(self, other: &Neighbour) -> Neighbour {
        Neighbour { own: other.own.clone(), ..self }
    }

    /// How this node introduces itself.
    fn hello(&self) -> peer::Hello {
        self.own.hello()
    }

    /// Whether the other side is what it should be. Returns what it knows of its ensemble.
    fn check(&self, hello: Option<peer::Hello>) -> Result<Standing, NoLink> {
        check_neighbour(hello, &self.own.name, self.own.me, &self.own.standing())
            .map_err(|Malformed(why)| NoLink::Refused(why))
    }

    /// Whether this service may believe what the other says of this ensemble.
    fn check_ensemble(&self, theirs: Option<EnsembleId>) -> Result<(), String> {
        match (theirs, self.own.standing().ensemble) {
            (Some(theirs), Some(own)) if theirs != own => {
                Err(another_ensemble(&self.own.name, theirs, own).0)
            }
            _ => Ok(()),
        }
    }

    async fn channel(&self) -> Result<Channel, NoLink> {
        match &self.dial {
            Some(_) => Ok(self.lazy_channel(self.endpoint.clone())),
            None => self.endpoint.connect().await.map_err(|e| NoLink::Unreachable(root_cause(&e))),
        }
    }

    /// Connects with the first call. `endpoint`: its own, with other settings.
    fn lazy_channel(&self, endpoint: Endpoint) -> Channel {
        match &self.dial {
            Some(Dial(dial)) => dial(endpoint),
            None => endpoint.connect_lazy(),
        }
    }

    /// Calls `open` until it succeeds, with pauses that grow.
    async fn keep_trying<L, F>(&self, open: impl Fn() -> F) -> L
    where
        F: Future<Output = Result<L, NoLink>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            let no_answer = |_| NoLink::Unreachable(format!("no answer within {HANDSHAKE_LIMIT:?}"));
            match tokio::time::timeout(HANDSHAKE_LIMIT, open()).await.map_err(no_answer).flatten() {
                Ok(link) => {
                    *self.said() = None;
                    tracing::info!(
                        service = self.name,
                        address = self.address,
                        "linked to a service of this node"
                    );
                    return link;
                }
                Err(why) => self.complain(&why),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn complain(&self, why: &NoLink) {
        let text = why.to_string();
        if self.said().replace(text.clone()) == Some(text) {
            return;
        }
        let (service, address) = (self.name, &self.address);
        match why {
            NoLink::Unreachable(text) => {
                tracing::info!(
                    service,
                    address,
                    reason = text,
                    "cannot reach a service of this node; retrying"
                );
            }
            NoLink::Refused(text) => {
                tracing::error!(service, address, reason = text, "a service of this node refuses the link");
            }
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint of an address with a host and a port, and how it is dialled if not in plaintext.
fn by_tcp(address: &str, dial: Option<Dial>) -> Option<(Endpoint, Option<Dial>)> {
    let given = Endpoint::from_shared(address.to_owned()).ok()?;
    let uri = given.uri();
    let authority = uri.authority()?.as_str();
    if authority.contains('@') || uri.port_u16().is_none() || uri.path() != "/" {
        return None;
    }
    match uri.scheme_str()? {
        "http" => Some((given, None)),
        // TLS is that of `dial`, of which the endpoint knows nothing.
        "https" => Some((Endpoint::from_shared(format!("http://{authority}")).ok()?, Some(dial?))),
        _ => None,
    }
}

/// Why there is no link.
#[derive(Debug)]
enum NoLink {
    /// No process answers, for now.
    Unreachable(String),
    /// The other side refuses this service until an operator changes the configuration.
    Refused(String),
}

impl fmt::Display for NoLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (NoLink::Unreachable(why) | NoLink::Refused(why)) = self;
        f.write_str(why)
    }
}

impl From<Status> for NoLink {
    fn from(status: Status) -> NoLink {
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
                NoLink::Refused(status.message().to_owned())
            }
            // If it could not connect, the cause is more than "transport error".
            _ => NoLink::Unreachable(status.source().map_or_else(|| status.message().to_owned(), root_cause)),
        }
    }
}

/// The system's error: tonic's own text is "transport error".
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// For the connection.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// For the connection, the stream, and the first messages of both sides.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);
/// A keep-alive goes over a link that is silent for this time; after the same time again the link counts as
/// dead. The end of a process is noticed at once; this is for a hanging process, or a lost host.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Pause after the first failure. Each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// HTTP/2 windows: several batches in flight.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all streams of the connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// The same for a connection with a stream for each client of an edge, in both directions. The windows of the streams bound what
/// is in flight. h2 ends a connection with more than one small frame that no reader has taken for each 512 bytes of this.
pub const CONNECTION_OF_STREAMS: u32 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_with_a_port_and_nothing_else() {
        let new = |url| Neighbour::new("quorum", url, "a", PeerId(1), None);
        for good in [
            "http://127.0.0.1:2889",
            "http://node-1.example:2889/",
            "http://[::1]:2889",
            "HTTP://a:1",
            "unix:/run/q.sock",
        ] {
            assert!(new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:2889",
            "http://127.0.0.1",
            "https://127.0.0.1:1",
            "http://a:1/b",
            "http://",
            "http://user@a:1",
            "unix:",
            "unix:q.sock",
        ] {
            assert_eq!(new(bad).unwrap_err(), BadAddress(bad.to_owned()));
        }
        let dial = Dial::new(|endpoint: Endpoint| endpoint.connect_lazy());
        assert!(Neighbour::new("quorum", "https://a:1", "a", PeerId(1), Some(dial)).is_ok());
    }
}
