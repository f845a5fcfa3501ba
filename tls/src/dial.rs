//! Connections to other members.

use std::{io, sync::Arc};

use api::PeerId;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Error, Uri};

use crate::{Certificates, Keeper, Mode, member_name};

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

    /// Connects. The certificate of the other side has to name the member `to`, whatever the address is.
    ///
    /// # Errors
    /// As [`Endpoint::connect`]; a refused certificate is the innermost cause.
    pub async fn connect(&self, endpoint: &Endpoint, to: PeerId) -> Result<Channel, Error> {
        let Some(keeper) = &self.0 else { return endpoint.connect().await };
        let keeper = keeper.clone();
        // Reconnecting uses the certificates of that time.
        let connect = tower::service_fn(move |address: Uri| secured(keeper.clone(), address, to));
        endpoint.connect_with_connector(connect).await
    }
}

async fn secured(
    keeper: Arc<Keeper>,
    address: Uri,
    to: PeerId,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let Certificates::Members { ensemble, .. } = keeper.certificates() else {
        return Err(bad("these certificates are for clients"));
    };
    let config = keeper.current().client.clone().ok_or_else(|| bad("these certificates are for clients"))?;
    let name = ServerName::try_from(member_name(ensemble, to)).map_err(io::Error::other)?;
    let authority = address.authority().ok_or_else(|| bad("an address without a host"))?;
    let stream = TcpStream::connect(authority.as_str()).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
}
