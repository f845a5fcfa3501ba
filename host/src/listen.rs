//! The one way to bind a port and to serve gRPC on it.
//!
//! tonic's own `serve_with_incoming` drops TCP_NODELAY, which costs 40 ms on every small answer (Nagle against delayed
//! acknowledgements), and spins when the process is out of file descriptors. So every server goes through [`serve`].
//! It also bounds the connections of each port, so that clients cannot take the descriptors that the files need:
//! [`crate::descriptors`] says how many there may be.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use telemetry::{Port, metrics};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, PollSemaphore};
use tonic::{service::Routes, transport::Server};

use crate::shutdown::drained;
use calls::CallTimes;
pub(crate) use connection::Connection;

/// A port could not be bound. The message names the address and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "the {what} address {address} is in use: stop the process that listens there (`ss -ltnp 'sport = :{port}'` \
         or `lsof -i :{port}` shows it), or choose another port",
        port = address.port()
    )]
    InUse {
        /// What was to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// The address belongs to no interface of this machine.
    #[error(
        "the {what} address {address} is not one of this machine's; set `listen.host` to one that is, or 0.0.0.0"
    )]
    NotOurs {
        /// What was to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Anything else, as a port below 1024 without the right to it.
    #[error("cannot listen on the {what} address {address}: {cause}")]
    Other {
        /// What was to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// As the system says.
        cause: io::Error,
    },
}

/// A bound port. Its connections are accepted by [`serve`], and only there.
#[derive(Debug)]
pub struct Listener {
    what: &'static str,
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`; port 0 lets the system choose. `what` names the server in messages: "client", "quorum" ...
    ///
    /// # Errors
    /// With the remedy.
    pub async fn bind(what: &'static str, address: SocketAddr) -> Result<Listener, ListenError> {
        let bound = async {
            let inner = TcpListener::bind(address).await?;
            let address = inner.local_addr()?;
            Ok(Listener { what, inner, address })
        };
        bound.await.map_err(|cause: io::Error| match cause.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { what, address },
            io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { what, address },
            _ => ListenError::Other { what, address, cause },
        })
    }

    /// Where it listens, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections as they come, of which so many may be open at a time.
    pub(crate) fn incoming(
        self,
        connections_max: usize,
    ) -> impl Stream<Item = io::Result<Connection>> + Unpin {
        let port = Port::named(self.what);
        metrics::PORT_CONNECTIONS_LIMIT.at(port).set(connections_max as u64);
        Incoming::new(self.inner, self.address, connections_max, port)
    }
}

/// Serves `routes` until `shutdown` is cancelled. Then the port is closed at once, and requests and streams under way
/// have `drain` to end; connections that do not end in time are left to the end of the process.
///
/// At most `connections_max` connections are open at a time. Further ones wait in the backlog of the port until one
/// ends, and the log says so. Whatever comes in on the port that is not HTTP/2 costs its own connection, nothing else.
///
/// # Errors
/// None in normal operation: faults of single connections end with them.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    connections_max: usize,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<(), tonic::transport::Error> {
    let address = listener.address;
    let incoming = listener.incoming(connections_max);
    let serving = Server::builder()
        .layer(CallTimes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    match drained(serving, &shutdown, drain).await {
        Some(result) => result,
        None => {
            tracing::warn!(%address, "connections did not end within {drain:?}; cut off");
            Ok(())
        }
    }
}

/// Where connections come from; a trait so that tests can script faults.
trait Accept: Unpin {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>;
}

impl Accept for TcpListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        TcpListener::poll_accept(self, cx)
    }
}

/// Accepted connections, TCP_NODELAY set. Never ends and never fails: what goes wrong with one connection is that
/// connection's end, and when the process or the machine is out of something (file descriptors, memory), accepting
/// pauses for [`PAUSE`] so that connections that end can free it.
struct Incoming<A> {
    acceptor: A,
    /// For messages.
    address: SocketAddr,
    pause: Option<Pin<Box<Sleep>>>,
    /// One for each connection that may be open.
    places: PollSemaphore,
    /// The place of the next connection.
    place: Option<OwnedSemaphorePermit>,
    /// When the log last said that there is none.
    said_full: Option<Instant>,
    /// For the count of open connections.
    port: Port,
}

impl<A: Accept> Incoming<A> {
    fn new(acceptor: A, address: SocketAddr, connections_max: usize, port: Port) -> Incoming<A> {
        let places = Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS)));
        let places = PollSemaphore::new(places);
        Incoming { acceptor, address, pause: None, places, place: None, said_full: None, port }
    }

    /// Waits until one more connection may be open.
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.place.is_some() {
            return Poll::Ready(());
        }
        match self.places.poll_acquire(cx) {
            // Never `None`: nobody closes the semaphore.
            Poll::Ready(place) => {
                self.place = place;
                Poll::Ready(())
            }
            Poll::Pending => {
                if self.said_full.is_none_or(|at| at.elapsed() >= FULL_SAID_EVERY) {
                    self.said_full = Some(Instant::now());
                    tracing::warn!(
                        address = %self.address,
                        "as many connections are open as may be; others wait until one ends. Close connections that \
                         are not in use, or raise the limit of open files (ulimit -n) and restart the node"
                    );
                }
                Poll::Pending
            }
        }
    }
}

impl<A: Accept> Stream for Incoming<A> {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            ready!(self.poll_place(cx));
            let fault = match ready!(self.acceptor.poll_accept(cx)) {
                Ok((stream, _)) => match stream.set_nodelay(true) {
                    Ok(()) => {
                        return Poll::Ready(Some(Ok(Connection::new(stream, self.place.take(), self.port))));
                    }
                    Err(e) => e,
                },
                Err(e) => e,
            };
            if is_of_one_connection(&fault) {
                tracing::debug!("a connection ended before it began: {fault}");
            } else {
                tracing::warn!(
                    "cannot accept connections for the moment: {fault}; if this stays, raise the limit of open files \
                     (ulimit -n)"
                );
                self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
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

/// Bytes on the way to us in one stream before its sender waits: several of the largest batches.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest HTTP/2 frame: fewer, larger writes for batches and snapshots.
const FRAME: u32 = 1 << 20;
/// Bytes of request headers; ours are a few hundred.
const HEADERS: u32 = 16 << 10;
/// Requests under way on one connection, session streams among them; a client sends more when some have ended.
const STREAMS: u32 = 256;
/// A connection that is silent for so long is asked for a sign of life, and cut after as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Before accepting again when out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// While connections have to wait, the log says so at most once in this time.
const FULL_SAID_EVERY: Duration = Duration::from_secs(60);

mod calls;
mod connection;

#[cfg(test)]
mod tests;
