//! gRPC calls on their way from a connection to a service: how long they take and how they end, and what bounds them.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{Identities, OpError, PeerId, budget::Share, ports::Fingerprint, proof};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use std::task::{Context, Poll, ready};
use telemetry::metrics;
use tls::Caller;
use tonic::{Code, Status, service::Routes, transport::server::TcpConnectInfo};
use tower::Service as _;

use super::{
    call_places::{CallPlace, CallPlaces},
    methods::Method,
    places::Place,
    traffic::{Inbound, Outbound, Piece, Traffic},
};

/// The calls of one connection.
pub(super) struct Calls {
    pub(super) routes: Routes,
    pub(super) peer: SocketAddr,
    pub(super) caller: Caller,
    pub(super) place: Arc<Place>,
    pub(super) traffic: Arc<Traffic>,
    /// The share for requests of the connection while they are under way; passed on to services.
    pub(super) held: Share,
    /// For the calls of all connections of the port.
    pub(super) places: CallPlaces,
}

impl Calls {
    /// Answers one call. Its extensions have the [`Share`] of its connection and the [`api::budget::Slot`]
    /// with the charge of the message that is being decoded; of a method that takes one message, until the
    /// last clone of the slot is dropped, the [`Caller`], the [`Identities`] that its certificate proves, and its [`Fingerprint`]. The extensions of the service's answer live while the answer is
    /// being sent; a [`PeerId`] there identifies the member of the connection.
    pub(super) fn answer(
        &self,
        request: Request<hyper::body::Incoming>,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<> {
        let method = Method::of(request.uri().path());
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let mut call = Call { method: path, began: Instant::now(), code: Code::Cancelled };
        let entered = match self.traffic.is_full() {
            true => Err(OpError::Overloaded(UNREAD.into())),
            false => self.places.enter(self.peer.ip(), method),
        };
        let guard = self.traffic.begin();
        let limit = time_limit(request.headers());
        let mut request = request.map(|body| Inbound::new(body, method.streamed, &guard));
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(self.peer) };
        let charge = request.body().charge();
        request.extensions_mut().insert(info);
        request.extensions_mut().insert(self.caller.clone());
        request.extensions_mut().insert(proven(&self.caller));
        if let Some(certificate) = certificate(&self.caller) {
            request.extensions_mut().insert(certificate);
        }
        request.extensions_mut().insert(charge);
        request.extensions_mut().insert(self.held.clone());
        let (mut routes, place) = (self.routes.clone(), self.place.clone());
        async move {
            let (answer, entered) = match entered {
                Err(refused) => {
                    drop(request);
                    (proto::client::to_status(&refused).into_http(), None)
                }
                Ok(entered) => {
                    let answer = routes.call(request);
                    let answer = match limit {
                        None => answer.await?,
                        Some(limit) => match tokio::time::timeout(limit, answer).await {
                            Ok(answer) => answer?,
                            Err(_) => late(limit).into_http(),
                        },
                    };
                    (answer, Some(entered))
                }
            };
            call.look_for_code(answer.headers());
            if let Some(member) = answer.extensions().get::<PeerId>() {
                guard.traffic().is_known();
                place.is_of(*member);
            }
            let (mut parts, body) = answer.into_parts();
            let held = std::mem::take(&mut parts.extensions);
            let inner = Outbound::new(body, guard);
            Ok(Response::from_parts(parts, Answer { inner, call, _held: held, _place: entered }))
        }
    }
}

/// What the transport proves of a caller: the subject of its certificate. One that can be no identity proves nothing.
pub(crate) fn proven(caller: &Caller) -> Identities {
    let subject = caller.subject().and_then(|subject| proof::certificate(subject).ok());
    Identities::new(subject).unwrap_or_default()
}

/// What the audit log calls the certificate of a caller.
pub(crate) fn certificate(caller: &Caller) -> Option<Fingerprint> {
    caller.fingerprint().cloned().map(Fingerprint)
}

const UNREAD: &str = "too many answers of this connection are not read; read them, then repeat the call";

/// The client's deadline has passed. Whether a write was carried out is not known.
fn late(limit: Duration) -> Status {
    let unknown = proto::client::to_status(&OpError::Unknown(format!(
        "no answer within {limit:?}, the deadline of the call; a write may have been carried out: read before you repeat it"
    )));
    let (details, metadata) = (bytes::Bytes::copy_from_slice(unknown.details()), unknown.metadata().clone());
    Status::with_details_and_metadata(Code::DeadlineExceeded, unknown.message(), details, metadata)
}

/// The client's deadline in the header `grpc-timeout`.
fn time_limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Recorded when it is dropped.
struct Call {
    method: String,
    began: Instant,
    /// Cancelled until the status is known.
    code: Code,
}

impl Call {
    fn look_for_code(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Code::from_bytes(code.as_bytes());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A client may invent any name for a method that does not exist.
        let method = if self.code == Code::Unimplemented { "_OTHER" } else { &self.method };
        metrics::RPC_SERVER_CALL_DURATION.record([method, code_name(self.code)], self.began.elapsed());
    }
}

/// The body of an answer, watched for its trailers.
pub(super) struct Answer {
    inner: Outbound<tonic::body::Body>,
    call: Call,
    /// See [`Calls::answer`].
    _held: http::Extensions,
    _place: Option<CallPlace>,
}

impl Body for Answer {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.look_for_code(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// As gRPC's documentation and the semantic conventions write it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_tells_that_a_write_may_have_been_carried_out() {
        let status = late(Duration::from_secs(2));
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let error = proto::client::details(&status).unwrap();
        assert_eq!((error.code(), error.fate()), (api::ErrorCode::Unknown, api::Fate::Unknown), "{error}");
        assert!(status.message().contains("read before you repeat it"), "{status}");
    }
}
