//! How long gRPC calls take, and how they end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use telemetry::metrics;
use tonic::Code;
use tower::{Layer, Service};

/// Puts [`TimedCalls`] around a server.
#[derive(Clone, Copy)]
pub(super) struct CallTimes;

impl<S> Layer<S> for CallTimes {
    type Service = TimedCalls<S>;

    fn layer(&self, inner: S) -> TimedCalls<S> {
        TimedCalls { inner }
    }
}

/// Records each call when its last trailer has left, or when the client has given it up.
#[derive(Clone)]
pub(super) struct TimedCalls<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for TimedCalls<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<TimedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let mut call = Call { method, began: Instant::now(), code: Code::Cancelled };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            call.look_for_code(answer.headers());
            Ok(answer.map(|inner| TimedBody { inner: Box::pin(inner), call }))
        })
    }
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
        // Whoever asks for what there is not may invent any name.
        let method = if self.code == Code::Unimplemented { "_OTHER" } else { &self.method };
        metrics::RPC_SERVER_CALL_DURATION.record([method, code_name(self.code)], self.began.elapsed());
    }
}

/// The body of an answer, watched for its trailers.
pub(super) struct TimedBody<B> {
    inner: Pin<Box<B>>,
    call: Call,
}

impl<B: Body> Body for TimedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(self.inner.as_mut().poll_frame(cx));
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
