//! Securing accepted connections.

//!
//! The number of handshakes under way needs no bound of its own: a connection that has not spoken gives way to newer ones (see the
//! places of `host::listen`).

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use api::PeerId;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    Certificates, Keeper, Mode,
    keeper::HTTP2,
    names::{member_name, members_named, subject},
};

/// Secures the connections of one port.
#[derive(Clone, Debug)]
pub struct Acceptor {
    keeper: Arc<Keeper>,
    mode: Mode,
    http2: bool,
}

/// A connection after its handshake, or without one.
#[derive(Debug)]
pub enum Accepted {
    /// Plaintext, as the mode allows.
    Plain(TcpStream),
    /// Secured.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end of a connection, as far as its certificate says.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Caller {
    chain: Option<Arc<[CertificateDer<'static>]>>,
    /// On a port of members: those for which the certificate speaks. `None`: plaintext.
    members: Option<BTreeSet<PeerId>>,
    ensemble: String,
    subject: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not ended in time.
    #[error("no TLS handshake within {HANDSHAKE_WITHIN:?}")]
    Slow,
    /// Plaintext where TLS is required, or a fault of either side.
    #[error("{0}")]
    Failed(String),
    /// A good certificate, but no member's.
    #[error("the certificate names no member of the ensemble {0:?}")]
    NoMember(String),
}

impl Acceptor {
    /// For a port in this mode; `None` if it is off. `http2`: whether the other side has to say that it speaks HTTP/2.
    #[must_use]
    pub fn new(keeper: &Arc<Keeper>, mode: Mode, http2: bool) -> Option<Acceptor> {
        (mode != Mode::Off).then(|| Acceptor { keeper: keeper.clone(), mode, http2 })
    }

    /// Waits for the first byte, and for the handshake if it begins one.
    ///
    /// # Errors
    /// The connection is not to be used.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Accepted, Caller), HandshakeError> {
        let accepted = tokio::time::timeout(HANDSHAKE_WITHIN, self.handshake(stream)).await;
        accepted.map_err(|_| HandshakeError::Slow)?
    }

    /// Whether the other side would be taken now, and later.
    #[must_use]
    pub fn trust(&self, caller: &Caller) -> Trust {
        let checked = (self.keeper.generation(), Instant::now());
        Trust { of: caller.chain.clone().map(|chain| (self.keeper.clone(), chain)), checked }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<(Accepted, Caller), HandshakeError> {
        if self.mode != Mode::Require && !begins_handshake(&stream).await? {
            return Ok((Accepted::Plain(stream), Caller::default()));
        }
        let acceptor = TlsAcceptor::from(self.keeper.current().server.clone());
        let stream = acceptor.accept(stream).await.map_err(failed)?;
        let connection = stream.get_ref().1;
        if self.http2 && connection.alpn_protocol() != Some(HTTP2) {
            return Err(HandshakeError::Failed(
                "the client does not say that it speaks HTTP/2 (ALPN h2)".into(),
            ));
        }
        let chain: Option<Arc<[_]>> = connection
            .peer_certificates()
            .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
        let subject = chain.as_ref().and_then(|chain| chain.first()).and_then(subject);
        let mut caller = Caller { chain, subject, ..Caller::default() };
        if let Certificates::Members { ensemble, .. } = self.keeper.certificates() {
            let leaf = caller.chain.as_ref().and_then(|chain| chain.first());
            let members = leaf.map(|leaf| members_named(leaf, ensemble)).unwrap_or_default();
            if members.is_empty() {
                return Err(HandshakeError::NoMember(ensemble.clone()));
            }
            (caller.members, caller.ensemble) = (Some(members), ensemble.clone());
        }
        Ok((Accepted::Tls(Box::new(stream)), caller))
    }
}

/// Whether a connection's certificate is still good: it may have expired or been revoked, or its authority may have been replaced.
pub struct Trust {
    of: Option<(Arc<Keeper>, Arc<[CertificateDer<'static>]>)>,
    /// With which certificates of ours it was checked, and when.
    checked: (u64, Instant),
}

impl Trust {
    /// Looks closely if our files have changed, and otherwise once a minute.
    pub fn holds(&mut self) -> bool {
        let Some((keeper, chain)) = &self.of else { return true };
        let (generation, now) = (keeper.generation(), Instant::now());
        if generation == self.checked.0 && now.duration_since(self.checked.1) < LOOK_AGAIN {
            return true;
        }
        self.checked = (generation, now);
        keeper.trusts(chain)
    }
}

impl Caller {
    /// Whether the certificate, if there has to be one, speaks for this member.
    ///
    /// # Errors
    /// Why not, with the remedy.
    pub fn check_member(&self, id: PeerId) -> Result<(), String> {
        match &self.members {
            Some(members) if !members.contains(&id) => {
                let named: Vec<String> = members.iter().map(ToString::to_string).collect();
                Err(format!(
                    "the other server says that it is member {id}, and its certificate names member {}: give it a \
                     certificate with the DNS name {}",
                    named.join(", "),
                    member_name(&self.ensemble, id)
                ))
            }
            _ => Ok(()),
        }
    }

    /// The subject of its certificate, as RFC 2253 writes it.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }
}

/// `$accepted` as the stream that it is, in `$run`.
macro_rules! either {
    ($accepted:expr, $stream:ident => $run:expr) => {
        match &mut *$accepted {
            Accepted::Plain($stream) => $run,
            Accepted::Tls($stream) => $run,
        }
    };
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, into))
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, from))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, from))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Accepted::Plain(stream) => stream.is_write_vectored(),
            Accepted::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Whether the first byte is that of a TLS record with a handshake. Neither HTTP/2 nor ZooKeeper's protocol begins with it.
async fn begins_handshake(stream: &TcpStream) -> Result<bool, HandshakeError> {
    let mut first = [0];
    let count = stream.peek(&mut first).await.map_err(failed)?;
    Ok(count == 1 && first[0] == HANDSHAKE)
}

fn failed(e: io::Error) -> HandshakeError {
    HandshakeError::Failed(e.to_string())
}

/// From accepting a connection to the end of its handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Between two checks whether a certificate has expired.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Type of a TLS record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
