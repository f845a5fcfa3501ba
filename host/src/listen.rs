//! The one way to bind a port, to accept its connections, and to serve gRPC on it.
//!
//! Everything that a client can make a node hold before a service sees it is bounded here: connections
//! (`places`), calls, bytes on their way in and out (`traffic`), and how long each may take. hyper is used without tonic's
//! server around it, which has no hand on single connections.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use api::budget::{Budget, Share};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use telemetry::{Closed, Port};
use tls::{Acceptor, HandshakeError};
use tokio::net::TcpSocket;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use crate::shutdown::drained;
use bound::{Accept, Bound, Socket};
pub use call_places::CallPlaces;
use calls::Calls;
use closed::Seldom;
pub(crate) use closed::closed;
pub use connection::Connection;
use gate::Gate;
use places::Places;
pub(crate) use places::{Limits, Place};
use traffic::Traffic;
pub(crate) use visitors::distrusted;
pub use visitors::{Visitor, serve_visitors};

/// A port could not be bound. The message names the address and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error(
        "the {what} address {address} is in use: stop the process that listens there (`ss -ltnp 'sport = :{port}'` \
         or `lsof -i :{port}` shows it), or choose another port",
        port = address.port()
    )]
    InUse {
        /// The service of the address.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// The address belongs to no interface of this machine.
    #[error(
        "the {what} address {address} is not one of this machine's; set `listen.host` to one that is, or 0.0.0.0"
    )]
    NotOurs {
        /// The service of the address.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Another process listens at this socket.
    #[error(
        "the {what} socket {path} is in use: stop the process that listens there, or choose another `listen.internal_dir`"
    )]
    SocketInUse {
        /// The service of the socket.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error(
        "cannot listen on the {what} socket {path}: {cause}; `listen.internal_dir` has to be a directory of this user"
    )]
    Socket {
        /// The service of the socket.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Anything else, as a port below 1024 without the right to it.
    #[error("cannot listen on the {what} address {address}: {cause}")]
    Other {
        /// The service of the address.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
}

/// A bound port. Its connections are accepted by [`serve`], and only there.
#[derive(Debug)]
pub struct Listener {
    what: &'static str,
    inner: Bound,
    address: SocketAddr,
    tls: Option<Acceptor>,
    audit: audit::Log,
}

impl Listener {
    /// Binds `address`; port 0 lets the system choose. `what` names the server in messages: "client", "quorum" ...
    ///
    /// # Errors
    /// With the remedy.
    pub async fn bind(what: &'static str, address: SocketAddr) -> Result<Listener, ListenError> {
        let bound = async {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            // A node that starts again finds connections of its last process in TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let inner = socket.listen(BACKLOG)?;
            let address = inner.local_addr()?;
            Ok(Listener { what, inner: Bound::Tcp(inner), address, tls: None, audit: audit::Log::default() })
        };
        bound.await.map_err(|cause: io::Error| match cause.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { what, address },
            io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { what, address },
            _ => ListenError::Other { what, address, cause },
        })
    }

    /// Binds a Unix socket for processes of this user; its directory is made if there is none.
    ///
    /// # Errors
    /// With the remedy.
    pub async fn bind_socket(what: &'static str, path: &Path) -> Result<Listener, ListenError> {
        let inner = Bound::Unix(Socket::bind(what, path).await?);
        // Where its callers are.
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Listener { what, inner, address, tls: None, audit: audit::Log::default() })
    }

    /// Its address as text.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.inner {
            Bound::Tcp(_) => self.address.to_string(),
            Bound::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }

    /// Its address, with the port that the system chose for port 0; of a Unix socket, 127.0.0.1:0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same with TLS.
    #[must_use]
    pub fn secured(self, tls: Option<Acceptor>) -> Listener {
        Listener { tls, ..self }
    }

    /// The same, with a record of each connection that is refused for its certificate.
    #[must_use]
    pub fn audited(self, audit: &audit::Log) -> Listener {
        Listener { audit: audit.clone(), ..self }
    }

    /// Its connections as they come, as far as `limits` have places for them.
    pub(crate) fn incoming(self, limits: Limits) -> Incoming<Bound> {
        Incoming { tls: self.tls, ..Incoming::new(self.inner, limits, Port::named(self.what)) }
    }
}

/// The bounds of a port's connections and their calls.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Maximum of open connections; on a port of members: of those whose member is not known yet.
    pub connections: usize,
    /// Calls under way on all connections together.
    pub calls: CallPlaces,
    /// Bytes of one message.
    pub message: usize,
    /// Bytes of messages that are being received. Every connection has a share, and one as large for answers that are being sent.
    pub budget: Budget,
    /// Bytes of requests under way. Every connection has a share, which its calls carry to their service.
    pub held: Budget,
    /// The users of the port.
    pub users: Users,
}

/// The users of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Users {
    /// Any client.
    Clients,
    /// Members of the ensemble. A service identifies the member of a connection with a [`api::PeerId`] in the
    /// extensions of its answer. Until then the connection is a stranger's, and bounded like one; afterwards
    /// it is trusted.
    Members,
    /// Other services of the same node.
    Neighbours,
}

/// How many of `all` one address may have: half, and three quarters for one of this machine, because a proxy may stand there for
/// many clients.
pub(crate) fn of_address(all: usize, local: bool) -> usize {
    all - all / if local { 4 } else { 2 }
}

/// What may be in flight to this node, in bytes.
#[derive(Clone, Copy)]
struct Windows {
    stream: u32,
    connection: u32,
    /// Largest HTTP/2 frame.
    frame: u32,
}

impl Users {
    fn windows(self) -> Windows {
        match self {
            Users::Clients => {
                Windows { stream: CLIENT_WINDOW, connection: CLIENT_WINDOW, frame: CLIENT_FRAME }
            }
            Users::Members => Windows { stream: PEER_WINDOW, connection: PEER_WINDOW, frame: PEER_FRAME },
            // The streams of many clients of an edge share a connection, so no stream may use up the window of the others. The
            // windows of the streams bound it.
            Users::Neighbours => Windows {
                stream: PEER_WINDOW / STREAMS,
                connection: proto::remote::CONNECTION_OF_STREAMS,
                frame: PEER_FRAME,
            },
        }
    }
}

impl Bounds {
    /// Of a port for clients.
    #[must_use]
    pub fn clients(connections: usize, calls: CallPlaces, budget: Budget, held: Budget) -> Bounds {
        let message = proto::client::MESSAGE_MAX;
        Bounds { connections, calls, message, budget, held, users: Users::Clients }
    }

    /// Of a port for the members of an ensemble: they have places of their own.
    #[must_use]
    pub fn members() -> Bounds {
        let (message, budget) = (proto::PEER_MESSAGE_MAX, Budget::new(TRUSTED));
        let held = budget.clone();
        let calls = CallPlaces::of_services();
        Bounds { connections: STRANGERS, calls, message, budget, held, users: Users::Members }
    }

    /// Of a port for the services of one node.
    #[must_use]
    pub fn neighbours() -> Bounds {
        Bounds { connections: NEIGHBOURS, users: Users::Neighbours, ..Bounds::members() }
    }

    /// The share of a connection. Only clients count by address: members and services bound what they have with each other.
    fn share(&self, budget: &Budget, peer: SocketAddr) -> Share {
        match self.users {
            Users::Clients => budget.share_of(peer.ip()),
            Users::Members | Users::Neighbours => budget.share(),
        }
    }

    fn places(&self) -> places::Limits {
        let connections = self.connections;
        places::Limits {
            connections,
            by_address: self.users != Users::Members,
            kept_for_local: if self.users == Users::Clients {
                KEPT_FOR_LOCAL.min(connections / 4)
            } else {
                0
            },
            members: self.users == Users::Members,
        }
    }
}

/// Serves `routes` until `shutdown` is cancelled. Then the port is closed at once, connections that have asked nothing yet
/// end, and requests and streams under way have `drain` to end; connections that do not end in time are cut off.
///
/// Bytes that are not HTTP/2 cost only their own connection. So does a client that sends no complete request,
/// or reads no answers, for ten seconds.
///
/// # Errors
/// Never: faults of single connections end with them.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    bounds: Bounds,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<(), Infallible> {
    let (address, what, audit) = (listener.address, listener.what, listener.audit.clone());
    let mut incoming = listener.incoming(bounds.places());
    let port = Port::named(what);
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let routes = routes.prepare();
    let sent = bounds.budget.alike();
    loop {
        let (connection, place) = tokio::select! {
            accepted = incoming.next() => accepted,
            () = shutdown.cancelled() => break,
        };
        let place = Arc::new(place);
        let (routes, bounds, shutdown, its_place) =
            (routes.clone(), bounds.clone(), shutdown.clone(), place.clone());
        let sent = sent.share();
        let audit = audit.clone();
        let one = async move {
            let peer = connection.peer();
            let secured = tokio::select! {
                secured = connection.secured() => secured,
                () = shutdown.cancelled() => return None,
            };
            let connection = match secured {
                Ok(connection) => connection,
                Err(why) => return Some(handshake_failed(port, peer, &why, &audit)),
            };
            let caller = connection.caller().clone();
            if let Some(member) = caller.member() {
                // Strangers do not come so far, so they cannot push it out.
                its_place.is_of(member);
            }
            let traffic = Traffic::new(
                bounds.share(&bounds.budget, peer),
                sent,
                bounds.message,
                bounds.users,
                &its_place,
            );
            let calls = Calls {
                routes,
                peer,
                caller,
                place: its_place,
                traffic,
                held: bounds.share(&bounds.held, peer),
                places: bounds.calls.clone(),
            };
            serve_one(connection, Arc::new(calls), bounds.users, shutdown).await
        };
        let cut_off = cut_off.clone();
        connections.spawn(async move {
            let why = tokio::select! {
                why = one => why,
                () = place.taken_away() => None,
                () = cut_off.cancelled() => None,
            };
            if let Some(why) = why {
                closed(port, why);
            }
        });
    }
    drop(incoming);
    end_connections(address, &connections, &shutdown, &cut_off, drain).await;
    Ok(())
}

/// Mostly a stranger, or a client without TLS. On a port of members an operator has to change a certificate.
pub(crate) fn handshake_failed(
    port: Port,
    peer: SocketAddr,
    why: &HandshakeError,
    audit: &audit::Log,
) -> Closed {
    let slow = matches!(why, HandshakeError::Slow | HandshakeError::GaveWay);
    if !slow {
        audit.record_stranger(port.name(), peer.ip().to_canonical(), why);
    }
    let members = matches!(port, Port::Quorum | Port::Election);
    if members && !slow && closed::is_due(port, Closed::Handshake) {
        tracing::warn!(port = port.name(), %peer, reason = %why, "TLS handshake failed");
    } else {
        tracing::debug!(port = port.name(), %peer, reason = %why, "TLS handshake failed");
    }
    Closed::Handshake
}

/// Waits for the connections of a port that takes no more, and closes those that do not end within `drain`.
async fn end_connections(
    address: SocketAddr,
    connections: &TaskTracker,
    shutdown: &CancellationToken,
    cut_off: &CancellationToken,
    drain: Duration,
) {
    connections.close();
    if drained(connections.wait(), shutdown, drain).await.is_none() {
        tracing::warn!(%address, connections = connections.len(), "connections did not end in time; closed");
        cut_off.cancel();
        connections.wait().await;
    }
}

/// Until the connection ends; `None` if that is nothing to count.
async fn serve_one(
    connection: Connection,
    calls: Arc<Calls>,
    users: Users,
    shutdown: CancellationToken,
) -> Option<Closed> {
    let traffic = calls.traffic.clone();
    let service = service_fn(move |request| calls.answer(request));
    let windows = users.windows();
    let mut trust = connection.trust();
    let connection = Gate::new(connection, traffic.untaken());
    let mut serving = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_frame_size(windows.frame)
            .max_header_list_size(HEADERS)
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(CANCELLED)
            .max_local_error_reset_streams(CANCELLED)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .serve_connection(TokioIo::new(connection), service)
    );
    let mut check = tokio::time::interval(CHECK);
    let mut leaving = false;
    loop {
        tokio::select! {
            served = &mut serving => {
                return served.is_err().then_some(Closed::Broken);
            }
            () = shutdown.cancelled(), if !leaving => {
                leaving = true;
                if !traffic.spoke() {
                    return None;
                }
                serving.as_mut().graceful_shutdown();
            }
            _ = check.tick() => {
                if let Some(fault) = traffic.fault() {
                    return Some(fault);
                }
                if trust.as_mut().is_some_and(|trust| !trust.holds()) {
                    return Some(Closed::Untrusted);
                }
                if !leaving && traffic.is_idle() {
                    leaving = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Accepted connections. Never fails: what goes wrong with one connection is that connection's end, and when the process or the
/// machine is out of something (file descriptors, memory), accepting pauses for [`PAUSE`] so that connections that end can
/// free it.
pub(crate) struct Incoming<A> {
    acceptor: A,
    tls: Option<Acceptor>,
    places: Arc<Places>,
    port: Port,
    /// Faults of this process or machine.
    faults: Seldom,
}

impl<A: Accept> Incoming<A> {
    fn new(acceptor: A, limits: Limits, port: Port) -> Incoming<A> {
        Incoming { acceptor, tls: None, places: Places::new(limits, port), port, faults: Seldom::default() }
    }

    /// The next connection and its place. One for which there is none is closed at once: its client can go elsewhere.
    pub(crate) async fn next(&mut self) -> (Connection, Place) {
        loop {
            self.places.settled().await;
            let fault = match poll_fn(|cx| self.acceptor.poll_accept(cx)).await {
                Ok((stream, peer)) => match self.places.enter(peer.ip()) {
                    Ok(place) => {
                        let (tls, open) = (self.tls.clone(), place.socket());
                        match Connection::new(stream, peer, self.port, tls, open) {
                            Ok(connection) => return (connection, place),
                            Err(e) => e,
                        }
                    }
                    Err(why) => {
                        closed(self.port, why);
                        continue;
                    }
                },
                Err(e) => e,
            };
            if is_of_one_connection(&fault) {
                tracing::debug!(%fault, "connection ended before it was accepted");
            } else {
                if let Some(count) = self.faults.happened() {
                    tracing::warn!(
                        port = self.port.name(),
                        count, %fault,
                        "cannot accept connections; if this repeats, raise the limit of open files (ulimit -n)"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether an error of `accept` speaks of the connection that was to be accepted (accept(2): these "should be treated
/// like EAGAIN by retrying") and not of this process or machine.
fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        e.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::Interrupted
            | K::InvalidInput
            | K::NetworkDown
            | K::NetworkUnreachable
            | K::HostUnreachable
            | K::NotConnected
            | K::TimedOut
    )
}

/// Connections that the system holds until they are accepted; it takes the lower of this and its own bound
/// (`net.core.somaxconn`). Beyond it a new client waits for a second or longer until it tries again.
const BACKLOG: u32 = 4096;
/// Bytes in flight from a client before it waits, in all streams of its connection. A connection can hold
/// them besides its share of the budget, so this times [`Bounds::connections`] must fit into memory. It
/// allows 100 MB/s at a distance of 1 ms.
pub(crate) const CLIENT_WINDOW: u32 = 128 << 10;
/// The same between the servers of an ensemble, which are few: several of the largest batches.
const PEER_WINDOW: u32 = 4 << 20;
/// Largest HTTP/2 frame of a client, which is held until it is whole.
const CLIENT_FRAME: u32 = 16 << 10;
/// Of a server: fewer, larger writes for batches and snapshots.
const PEER_FRAME: u32 = 1 << 20;
/// Bytes of request headers; ours are a few hundred.
const HEADERS: u32 = 8 << 10;
/// Requests under way on one connection, session streams among them; a client sends more when some have ended.
const STREAMS: u32 = 128;
/// Calls that a client may have cancelled before we have looked at them. Beyond that h2 takes it for an attack ("rapid reset")
/// and ends the connection, with the session that is on it. A client may well cancel all it has, and again at once.
const CANCELLED: usize = 8 * STREAMS as usize;
/// Places on a port of members for connections whose member is not known.
const STRANGERS: usize = 16;
/// Connections of the services of one node with each other.
const NEIGHBOURS: usize = 64;
/// Places on a client port that only this machine can have: for probes and administration.
const KEPT_FOR_LOCAL: usize = 8;
/// Servers of an ensemble bound what they have with each other themselves.
const TRUSTED: usize = usize::MAX / 4;
/// The node sends a keep-alive to a connection that is silent for this time, and closes it after the same
/// time again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How often a connection is looked at, whether it has to be closed.
const CHECK: Duration = Duration::from_secs(1);
/// Before accepting again when out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

mod bound;
mod call_places;
mod calls;
mod closed;
mod connection;
mod gate;
mod methods;
mod places;
mod ready;
mod traffic;
mod visitors;

#[cfg(test)]
mod tests;
