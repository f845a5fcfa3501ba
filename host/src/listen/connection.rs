//! One accepted connection.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use api::{Identities, ports::Fingerprint};
use socket2::{SockRef, TcpKeepalive};
use telemetry::{Port, metrics};
use tls::{Accepted, Acceptor, Caller, HandshakeError, Trust};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{bound::Stream, places::OpenSocket};

/// A stream that is counted while it is open, with or without TLS.
pub struct Connection {
    stream: Accepted<Socket>,
    peer: SocketAddr,
    caller: Caller,
    /// What secures it, or has.
    tls: Option<Acceptor>,
    counted: Counted,
    // The last field, so that the socket is closed when this is dropped.
    open: OpenSocket,
}

/// Breaks when the other end takes nothing of what is written. Below TLS, which takes more than the other end does.
#[derive(Debug)]
struct Socket {
    stream: Stream,
    /// Since the other end takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// In the number of open connections.
struct Counted(Port);

impl Connection {
    /// # Errors
    /// If the system refuses an option of the socket: the connection is gone.
    pub(super) fn new(
        stream: Stream,
        peer: SocketAddr,
        port: Port,
        tls: Option<Acceptor>,
        open: OpenSocket,
    ) -> io::Result<Connection> {
        if let Stream::Left(tcp) = &stream {
            tcp.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
            SockRef::from(tcp).set_tcp_keepalive(&keepalive)?;
        }
        metrics::PORT_CONNECTIONS.at(port).inc();
        let stream = Accepted::Left(Socket { stream, stalled: None });
        Ok(Connection { stream, peer, caller: Caller::plaintext(), tls, counted: Counted(port), open })
    }

    /// The same after its TLS handshake, if its port has TLS. To be called before anything is read.
    ///
    /// # Errors
    /// The handshake failed.
    pub(crate) async fn secured(self) -> Result<Connection, HandshakeError> {
        let Connection { stream, peer, caller, tls, counted, open } = self;
        let (stream, caller) = match (stream, &tls) {
            (Accepted::Left(stream), Some(tls)) => tls.accept(stream).await?,
            (stream, _) => (stream, caller),
        };
        Ok(Connection { stream, peer, caller, tls, counted, open })
    }

    /// The identities that the certificate of the other end proves.
    #[must_use]
    pub fn proven(&self) -> Identities {
        super::calls::proven(&self.caller)
    }

    /// What the audit log calls its certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<Fingerprint> {
        super::calls::certificate(&self.caller)
    }

    /// The other end, as far as its certificate identifies it.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether its certificate is good; `None` on a port without TLS.
    pub(crate) fn trust(&self) -> Option<Trust> {
        self.tls.as_ref().map(|tls| tls.trust(&self.caller))
    }

    /// Address of the peer.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        let socket = match &self.stream {
            Accepted::Left(socket) => socket,
            Accepted::Right(stream) => stream.get_ref().0,
        };
        tls::Socket::tcp(socket).unwrap()
    }
}

impl Socket {
    /// Passes on what a write has led to, or that it has led to nothing for too long.
    fn watched(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_WITHIN)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::PORT_CONNECTIONS.at(self.0).dec();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

tls::write_to_stream!(impl AsyncWrite for Connection);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl tls::Socket for Socket {
    fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Left(tcp) => Some(tcp),
            Stream::Right(_) => None,
        }
    }
}

/// The other end takes something of what is written within this.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// TCP sends a keep-alive on a silent connection after this ...
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
/// ... and again after this, until the system gives it up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
