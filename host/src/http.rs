//! Plain HTTP on a port of its own: what probes and monitoring ask for.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while the process works, independent of quorum and peers: restarting a node because others are gone makes it worse |
//! | `/readyz` | 200 while this node serves clients, 503 otherwise |
//! | `/startupz` | 503 until recovery is over |
//! | `/metrics` | Prometheus text, or OpenMetrics with exemplars if the client accepts it |
//! | `/loglevel` | GET: the filter of the log lines; PUT, from this machine only: changes it |
//!
//! | `/commands/NAME` | what ZooKeeper's AdminServer answers, where the process speaks ZooKeeper's protocol |
//!
//! The first three name each check and its reason with `?verbose`, and always when one fails.

mod ask;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use api::{ErrorCode, Identities};
use audit::{Event, Record, Who};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use telemetry::{
    Closed, Group, Port,
    text::{self, Format},
};
use tokio_util::sync::CancellationToken;

pub use ask::{AskError, ask};

pub use crate::health::{Health, Probe};
use crate::{
    listen::{Connection, Limits, Listener, Place, closed, distrusted, handshake_failed},
    logging,
};

/// The content of a process's HTTP answers.
#[derive(Clone)]
pub struct Pages {
    /// The checks of the probes.
    pub health: Health,
    /// Whose metrics it has.
    pub groups: Vec<Group>,
    /// Of ZooKeeper's AdminServer.
    pub commands: Commands,
    /// Who has changed the filter of log lines, and whose certificate was refused.
    pub audit: audit::Log,
    /// The identity of the process, for `target_info`; see [`crate::otlp::resource`].
    pub resource: Vec<(&'static str, String)>,
}

/// What answers `/commands/NAME`; nothing until it is set. Clones share it.
#[derive(Clone, Default)]
pub struct Commands(Arc<OnceLock<Answering>>);

/// From the name of a command, empty for the list of all, to the status and the body of the answer.
type Answering = Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = (u16, String)> + Send>> + Send + Sync>;

impl Commands {
    /// From now on this answers. Only the first counts.
    pub fn answer_with<F>(&self, answer: impl Fn(String) -> F + Send + Sync + 'static)
    where
        F: Future<Output = (u16, String)> + Send + 'static,
    {
        // An error: it is set already.
        let _ = self.0.set(Box::new(move |name| Box::pin(answer(name))));
    }
}

/// Serves `pages` until `stop` is cancelled. To be started before recovery and stopped last, so that probes get an answer
/// all the while.
pub async fn serve(listener: Listener, pages: Pages, stop: CancellationToken) {
    let mut incoming = listener.incoming(PLACES);
    let pages = Arc::new(pages);
    loop {
        let (connection, place) = tokio::select! {
            accepted = incoming.next() => accepted,
            () = stop.cancelled() => return,
        };
        tokio::spawn(serve_one(connection, place, pages.clone(), stop.clone()));
    }
}

async fn serve_one(connection: Connection, place: Place, pages: Arc<Pages>, stop: CancellationToken) {
    let peer = connection.peer();
    let place = &place;
    let secured = tokio::select! {
        secured = connection.secured() => secured,
        () = place.taken_away() => return,
        () = stop.cancelled() => return,
    };
    let connection = match secured {
        Ok(connection) => connection,
        Err(why) => return closed(Port::Http, handshake_failed(Port::Http, peer, &why, &pages.audit)),
    };
    let mut trust = connection.trust();
    let service = service_fn(|request| {
        let pages = pages.clone();
        place.spoke();
        async move {
            // hyper answers many pipelined requests in one turn of this task, on the thread that has the consensus as well.
            tokio::task::yield_now().await;
            let answer = pages.answer(request, peer).await;
            // From here on the connection may have to give way, also if its client does not read.
            place.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(connection), service);
    tokio::select! {
        served = serving => if let Err(e) = served {
            tracing::debug!(error = %e, "HTTP connection broke");
        },
        () = place.taken_away() => {}
        () = distrusted(&mut trust) => closed(Port::Http, Closed::Untrusted),
        () = stop.cancelled() => {}
    }
}

impl Pages {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let verbose = request.uri().query().is_some_and(|q| q.split('&').any(|p| p.starts_with("verbose")));
        let probe = match request.uri().path() {
            "/livez" => Some(Probe::Live),
            "/readyz" => Some(Probe::Ready),
            "/startupz" => Some(Probe::Startup),
            _ => None,
        };
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        let command = under_commands(request.uri().path());
        if let (true, Some(name), Some(answering)) = (reading, command, self.commands.0.get()) {
            return self::command(name, answering).await;
        }
        match (request.uri().path(), probe) {
            (_, Some(probe)) if reading => {
                let (well, text) = self.health.report(probe, verbose).await;
                plain(if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
            }
            ("/metrics", _) if reading => self.metrics(request.headers()),
            ("/loglevel", _) if reading => plain(StatusCode::OK, logging::filter() + "\n"),
            ("/loglevel", _) if *request.method() == Method::PUT => set_filter(request, peer, &self.audit).await,
            ("/loglevel", _) => not_allowed("GET, HEAD, PUT"),
            ("/metrics", _) | (_, Some(_)) => not_allowed("GET, HEAD"),
            _ => plain(
                StatusCode::NOT_FOUND,
                "not here; try /livez, /readyz, /startupz (each with ?verbose), /metrics, /loglevel, /commands\n".into(),
            ),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        let page = text::page(&self.resource, &telemetry::gather(&self.groups), format);
        let mut response = Response::new(Full::from(page));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        response
    }
}

async fn command(name: &str, answering: &Answering) -> Response<Full<Bytes>> {
    let (status, text) = answering(name.to_owned()).await;
    let mut response = plain(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text);
    let kind = if name.is_empty() { "text/html; charset=utf-8" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The name of a command; empty for the list of all.
fn under_commands(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/commands")?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// The body is the new filter. Allowed from this machine only: debug lines cost time and reveal much.
async fn set_filter(
    request: Request<Incoming>,
    peer: SocketAddr,
    audit: &audit::Log,
) -> Response<Full<Bytes>> {
    let who = Who::new(&Identities::NONE, Some(peer.ip().to_canonical()), None);
    let done = |error, detail| {
        audit.record(&Record { op: Some("loglevel"), error, detail, ..Record::new(Event::Admin, &who) });
    };
    if !peer.ip().to_canonical().is_loopback() {
        done(Some(ErrorCode::NoAuth), None);
        return plain(StatusCode::FORBIDDEN, "only from 127.0.0.1 or ::1\n".into());
    }
    let body = Limited::new(request.into_body(), FILTER_MAX).collect();
    let Ok(Ok(body)) = tokio::time::timeout(HEADERS_WITHIN, body).await else {
        return plain(StatusCode::BAD_REQUEST, "expected a filter such as info,quorum_svc=debug\n".into());
    };
    match logging::set_filter(String::from_utf8_lossy(&body.to_bytes()).trim()) {
        Ok(()) => {
            done(None, Some(logging::filter()));
            plain(StatusCode::OK, logging::filter() + "\n")
        }
        Err(e) => plain(StatusCode::BAD_REQUEST, format!("{e}\n")),
    }
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, format!("expected {allowed}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A connection is closed when no whole request comes within this, be it the first or another.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Probes and a few scrapers. Probes of Kubernetes come from anywhere, so no address has places of its own but this machine:
/// connections on which nothing is being answered give way.
const PLACES: Limits = Limits { connections: 64, by_address: true, kept_for_local: 8, members: false };
/// Bytes of requests that a connection holds at a time.
const BUFFER: usize = 16 << 10;
/// Bytes of a log filter.
const FILTER_MAX: usize = 4096;

#[cfg(test)]
mod tests;
