//! Connections: from an endpoint to an open stream.

use std::{error::Error as _, time::Duration};

use api::OpError;
use proto::{
    client as wire,
    v1::{self, coordination_client::CoordinationClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Error},
};

use crate::{ClientError, Tls};

/// Whether an endpoint asks for TLS.
pub(crate) fn is_secured(address: &str) -> bool {
    address.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Checks the address of an endpoint, `host:port`, `http://host:port` or `https://host:port`. The last one is TLS also without `tls`.
pub(crate) fn endpoint(
    address: &str,
    connect_timeout: Duration,
    tls: Option<&Tls>,
) -> Result<Endpoint, ClientError> {
    let bad = |why: &str| ClientError::BadEndpoint { endpoint: address.to_owned(), why: why.to_owned() };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let uri = if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
    let mut endpoint = Endpoint::from_shared(uri).map_err(|e| bad(&chain(&e)))?;
    match (endpoint.uri().scheme_str(), tls) {
        (Some("http"), None) => {}
        (Some("http"), Some(_)) => return Err(bad("it is http://, and TLS is on")),
        (Some("https"), tls) => {
            let config = tls.cloned().unwrap_or_default().config();
            endpoint = endpoint.tls_config(config).map_err(|e| bad(&format!("TLS: {}", chain(&e))))?;
        }
        _ => return Err(bad("only http:// and https:// are spoken")),
    }
    if endpoint.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad("it names a user, and there is none"));
    }
    if endpoint.uri().port_u16().is_none() {
        return Err(bad("the port is missing"));
    }
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEP_ALIVE))
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// Connects and sends `open`. Returns the stream, its first message, which answers `open`, and where to put what is to
/// be sent next.
pub(crate) async fn open(endpoint: Endpoint, open: v1::OpenSession) -> Result<Opened, OpError> {
    let channel = connect(&endpoint).await?;
    let mut client = CoordinationClient::new(channel)
        .max_decoding_message_size(wire::MESSAGE_MAX)
        .max_encoding_message_size(wire::MESSAGE_MAX);
    let (outgoing, requests) = mpsc::channel(OUTGOING_MAX);
    let first = v1::SessionRequest { open: Some(open), ..Default::default() };
    outgoing.try_send(first).map_err(|_| ended())?;
    let response = client.session(ReceiverStream::new(requests)).await.map_err(|s| lost(&s))?;
    let mut incoming = Box::new(response.into_inner());
    let first = incoming.message().await.map_err(|s| lost(&s))?.ok_or_else(ended)?;
    Ok(Opened { first, incoming, outgoing })
}

/// A stream whose session is open.
pub(crate) struct Opened {
    pub(crate) first: v1::SessionResponse,
    pub(crate) incoming: Box<Streaming<v1::SessionResponse>>,
    pub(crate) outgoing: mpsc::Sender<v1::SessionRequest>,
}

pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Channel, OpError> {
    endpoint.connect().await.map_err(|e: Error| OpError::Unavailable(chain(&e)))
}

/// Why a stream broke, as the node said or as the transport saw it.
pub(crate) fn lost(status: &Status) -> OpError {
    proto::client::details(status).unwrap_or_else(|| match status.source() {
        // Such a status was made on this side; the source says more than its code.
        Some(source) => proto::client::not_ours(Code::Unavailable, chain(source)),
        None => proto::client::from_status(status),
    })
}

/// The stream ended without saying why.
pub(crate) fn ended() -> OpError {
    OpError::Unavailable("the node ended the connection".to_owned())
}

/// An error with its causes, because the outer ones say little.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Messages between the session and HTTP/2. Few, so that requests wait where they are batched, and not here.
const OUTGOING_MAX: usize = 2;

/// More than the product of any sensible bandwidth and delay, so that flow control never idles the link.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Also for connections without an HTTP/2 call.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The session's pings find a dead node sooner; this is for connections without a session yet.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b24_an_address_has_a_scheme_in_any_case_and_no_user() {
        let checked = |address: &str| endpoint(address, Duration::from_secs(1), None).map(drop);
        for good in ["a:1", "http://a:1", "HTTP://a:1", "[::1]:1", "https://a:1"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["user@a:1", "http://user:word@a:1", "ftp://a:1", "a"] {
            assert!(matches!(checked(bad), Err(ClientError::BadEndpoint { .. })), "{bad}");
        }
        let plain = endpoint("http://a:1", Duration::from_secs(1), Some(&Tls::new())).map(drop);
        assert!(matches!(plain, Err(ClientError::BadEndpoint { .. })), "{plain:?}");
    }
}
