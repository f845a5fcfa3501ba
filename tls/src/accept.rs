//! Securing accepted connections.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use api::PeerId;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tonic::{Request, Status};

use crate::{
    Certificates, Keeper, Mode,
    handshakes::Handshakes,
    keeper::HTTP2,
    names::{carries, fingerprint, gateway_name, member_name, members_named, subject},
    trust::{Side, Trust},
};

/// Secures the connections of one port.
#[derive(Clone, Debug)]
pub struct Acceptor {
    keeper: Arc<Keeper>,
    mode: Mode,
    http2: bool,
    /// On a port of members.
    admitted: Admitted,
    /// Whether plaintext from this machine is accepted in every mode.
    local_plaintext: bool,
    handshakes: Arc<Handshakes>,
}

/// Whose certificates open a port with the certificates of members.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Admitted {
    /// Every member's.
    #[default]
    Members,
    /// This member's own: those of other processes of the same node.
    Own,
    /// The same, and gateways'.
    Gateways,
}

/// A connection on the socket `S`: `Left` in plaintext, as the mode allows; `Right` after its handshake.
pub type Accepted<S> = Either<S, Box<TlsStream<S>>>;

/// What a connection stands on.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// To look at the first byte.
    /// `None` if it is no TCP connection; then it cannot have TLS.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Socket for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Who is at the other end of a connection, as far as its certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    chain: Option<Arc<[CertificateDer<'static>]>>,
    /// On a port of members with TLS: those for which the certificate speaks.
    members: Option<BTreeSet<PeerId>>,
    ensemble: String,
    subject: Option<String>,
    /// SHA-256 of its certificate, in hexadecimal.
    fingerprint: Option<Arc<str>>,
    /// Of our certificates, by which it was accepted.
    generation: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not ended in time.
    #[error("no TLS handshake within {HANDSHAKE_WITHIN:?}")]
    Slow,
    /// Too slow while others wait for their handshakes.
    #[error("no TLS handshake while others waited")]
    GaveWay,
    /// Plaintext where TLS is required, or a fault of either side.
    #[error("{0}")]
    Failed(String),
    /// A good certificate, but no member's.
    #[error("the certificate names no member of the ensemble {0:?}")]
    NoMember(String),
    /// A good certificate, but none that opens this internal port.
    #[error("the certificate does not have the DNS name {0}, which this port requires")]
    NoNeighbour(String),
}

impl Acceptor {
    /// For a port in this mode; `None` if it is off. `http2`: whether the other side has to say that it speaks HTTP/2.
    #[must_use]
    pub fn new(keeper: &Arc<Keeper>, mode: Mode, http2: bool) -> Option<Acceptor> {
        (mode != Mode::Off).then(|| Acceptor {
            keeper: keeper.clone(),
            mode,
            http2,
            admitted: Admitted::Members,
            local_plaintext: false,
            handshakes: Arc::default(),
        })
    }

    /// The same for fewer callers, on a port with the certificates of members.
    #[must_use]
    pub fn admitting(self, admitted: Admitted) -> Acceptor {
        Acceptor { admitted, ..self }
    }

    /// The same that also accepts plaintext from this machine.
    #[must_use]
    pub fn with_local_plaintext(self) -> Acceptor {
        Acceptor { local_plaintext: true, ..self }
    }

    /// Waits for the first byte, and for the handshake if it begins one.
    ///
    /// # Errors
    /// The connection is not to be used.
    pub async fn accept<S>(&self, stream: S) -> Result<(Accepted<S>, Caller), HandshakeError>
    where
        S: Socket,
    {
        let accepted = tokio::time::timeout(HANDSHAKE_WITHIN, self.handshake(stream)).await;
        accepted.map_err(|_| HandshakeError::Slow)?
    }

    /// Whether the other side would be taken now, and later.
    #[must_use]
    pub fn trust(&self, caller: &Caller) -> Trust {
        Trust::new(&self.keeper, caller.chain.clone(), Side::Client, caller.generation)
    }

    async fn handshake<S>(&self, stream: S) -> Result<(Accepted<S>, Caller), HandshakeError>
    where
        S: Socket,
    {
        let tcp = stream.tcp().ok_or_else(|| HandshakeError::Failed("no TCP connection".into()))?;
        let address = tcp.peer_addr().map_err(failed)?.ip().to_canonical();
        let plaintext = self.mode != Mode::Require || (self.local_plaintext && address.is_loopback());
        if plaintext && !begins_handshake(tcp).await? {
            return Ok((Either::Left(stream), Caller::plaintext()));
        }
        // A client that is slow with its first message costs no more than its place on the port.
        let begun =
            LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.map_err(failed)?;
        let place = self.handshakes.enter(address).await;
        // Before the certificates are read: a change meanwhile is looked at again.
        let (generation, current) = (self.keeper.generation(), self.keeper.current());
        let config = if self.http2 { &current.http2 } else { &current.any };
        let bound = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(UNSENT));
        let stream = tokio::select! {
            stream = begun.into_stream_with(config.clone(), bound) => stream.map_err(failed)?,
            () = place.gives_way() => return Err(HandshakeError::GaveWay),
        };
        drop(place);
        let connection = stream.get_ref().1;
        if self.http2 && connection.alpn_protocol() != Some(HTTP2) {
            return Err(HandshakeError::Failed(
                "the client does not say that it speaks HTTP/2 (ALPN h2)".into(),
            ));
        }
        let chain: Option<Arc<[_]>> = connection
            .peer_certificates()
            .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        let fingerprint = leaf.map(|leaf| fingerprint(leaf).into());
        let subject = leaf.and_then(subject);
        let mut caller = Caller { subject, fingerprint, generation, ..Caller::plaintext() };
        if let Certificates::Members { ensemble, me } = self.keeper.certificates() {
            let members = leaf.map(|leaf| members_named(leaf, ensemble)).unwrap_or_default();
            let own = members.contains(me);
            let gateway = || leaf.is_some_and(|leaf| carries(leaf, &gateway_name(ensemble)));
            match self.admitted {
                Admitted::Members if members.is_empty() => {
                    return Err(HandshakeError::NoMember(ensemble.clone()));
                }
                Admitted::Own if !own => {
                    return Err(HandshakeError::NoNeighbour(member_name(ensemble, *me)));
                }
                Admitted::Gateways if !own && !gateway() => {
                    return Err(HandshakeError::NoNeighbour(gateway_name(ensemble)));
                }
                _ => {}
            }
            (caller.members, caller.ensemble) = (Some(members), ensemble.clone());
        }
        caller.chain = chain;
        Ok((Either::Right(Box::new(stream)), caller))
    }
}

impl Caller {
    /// The other end of a connection without TLS.
    #[must_use]
    pub fn plaintext() -> Caller {
        Caller {
            chain: None,
            members: None,
            ensemble: String::new(),
            subject: None,
            fingerprint: None,
            generation: 0,
        }
    }

    /// An interceptor that says this, for a server without a listener of ours.
    ///
    /// # Errors
    /// None.
    pub fn on_plaintext(mut request: Request<()>) -> Result<Request<()>, Status> {
        request.extensions_mut().insert(Caller::plaintext());
        Ok(request)
    }

    /// What the listener has found out of the caller of `request`.
    ///
    /// # Errors
    /// If the listener has set nothing. That is a defect of ours; the caller is refused.
    pub fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
        let known = request.extensions().get::<Caller>().cloned();
        known.ok_or_else(|| Status::internal("the listener does not say who is calling"))
    }

    /// On a port of members with TLS, the member that the certificate names first.
    #[must_use]
    pub fn member(&self) -> Option<PeerId> {
        self.members.as_ref().and_then(|members| members.first().copied())
    }

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

    /// SHA-256 of its certificate, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Arc<str>> {
        self.fingerprint.as_ref()
    }

    /// The subject of its certificate, as RFC 2253 writes it.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
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
/// Bytes of a connection that wait for its socket, encrypted; those that wait before are counted as without TLS.
const UNSENT: usize = 16 << 10;
/// Type of a TLS record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
