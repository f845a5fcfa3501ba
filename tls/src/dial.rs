//! Connections to other members.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api::PeerId;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::Service as _;

use crate::{
    Certificates, Keeper, Mode, Trust, any_member::member_of, member_name, names::carries, trust::Side,
};

/// Connects to other members, by TLS if this node does.
#[derive(Clone, Default, Debug)]
pub struct Dialer(Option<Arc<Keeper>>);

impl Dialer {
    /// Without TLS.
    #[must_use]
    pub fn plain() -> Dialer {
        Dialer(None)
    }

    /// By TLS with these certificates, if `mode` says so.
    #[must_use]
    pub fn new(keeper: &Arc<Keeper>, mode: Mode) -> Dialer {
        Dialer(mode.dials().then(|| keeper.clone()))
    }

    /// Connects. The certificate of the other side has to name the member `to`, whatever the address is. The connection breaks when
    /// that certificate is good no more.
    ///
    /// # Errors
    /// As [`Endpoint::connect`]; a refused certificate is the innermost cause.
    pub async fn connect(&self, endpoint: &Endpoint, to: PeerId) -> Result<Channel, Error> {
        let Some(keeper) = &self.0 else { return endpoint.connect().await };
        let (keeper, limit) = (keeper.clone(), endpoint.get_connect_timeout());
        // Reconnecting uses the certificates of that time.
        let connect =
            tower::service_fn(move |address: Uri| secured(keeper.clone(), address, Some(to), limit));
        endpoint.connect_with_connector(connect).await
    }

    /// The same with the first call; `None`: to any member of the ensemble.
    #[must_use]
    pub fn connect_lazy(&self, endpoint: &Endpoint, to: Option<PeerId>) -> Channel {
        let Some(keeper) = &self.0 else { return endpoint.connect_lazy() };
        let (keeper, limit) = (keeper.clone(), endpoint.get_connect_timeout());
        let connect = tower::service_fn(move |address: Uri| secured(keeper.clone(), address, to, limit));
        endpoint.connect_with_connector_lazy(connect)
    }
}

async fn secured(
    keeper: Arc<Keeper>,
    address: Uri,
    to: Option<PeerId>,
    limit: Option<Duration>,
) -> io::Result<TokioIo<Dialled>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let (Certificates::Members { ensemble, .. } | Certificates::Stores { ensemble }) = keeper.certificates()
    else {
        return Err(bad("these certificates are for clients".into()));
    };
    // Where any member will do, the verifier looks for the name of one; this one is only asked for.
    let name = to.map_or_else(|| format!("member.{ensemble}.quorate"), |to| member_name(ensemble, to));
    let server = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(limit);
    let stream = connector.call(address).await.map_err(io::Error::other)?.into_inner();
    let (generation, current) = (keeper.generation(), keeper.current());
    let config = current.client.clone().ok_or_else(|| bad("these certificates are for clients".into()))?;
    let stream = TlsConnector::from(config).connect(server.clone(), stream).await?;
    let chain: Arc<[CertificateDer<'static>]> = stream
        .get_ref()
        .1
        .peer_certificates()
        .into_iter()
        .flatten()
        .map(|c| c.clone().into_owned())
        .collect();
    // As on the accepting side: the whole name, not a wildcard.
    let named = chain.first().and_then(|leaf| match to {
        Some(_) => carries(leaf, &name).then_some(server),
        None => member_of(leaf, ensemble),
    });
    let server =
        named.ok_or_else(|| bad(format!("the certificate of the other server does not name {name}")))?;
    let trust = Trust::new(&keeper, Some(chain), Side::Server(server), generation);
    Ok(TokioIo::new(Dialled { stream, trust }))
}

/// Breaks when the certificate of the other side is good no more. Members say something several times a second, so that is noticed.
struct Dialled {
    stream: TlsStream<TcpStream>,
    trust: Trust,
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.trust.holds() {
            let why = "the certificate of the other server is good no more";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

write_to_stream!(impl AsyncWrite for Dialled);
