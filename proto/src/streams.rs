//! Streams of gRPC messages that hold no memory between messages.
//!
//! tonic's streams keep the room of their largest message, in each direction, until they end: a client with a thousand idle
//! session streams that each carried 4 MiB once would hold 4 GiB. A node serves its long streams with these instead:
//! every message has a buffer of its own, and small ones that leave together share one.

use std::{
    convert::Infallible,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes};
use http_body::{Body as _, Frame};
use prost::Message;
use tokio_stream::Stream;
use tonic::{
    Code, Request, Response, Status, body::Body, metadata::MetadataMap, server::NamedService,
    transport::Channel,
};
use tower::Service;

use crate::codec;

/// The messages that the other end sends, in their order.
pub struct Messages<M> {
    body: Body,
    /// Largest message in bytes.
    max: usize,
    /// Came, and belongs to the next message.
    rest: Bytes,
    head: [u8; HEAD],
    /// How much of `head` is there; [`HEAD`] while a payload is being received.
    have: usize,
    payload: Vec<u8>,
    /// Bytes of the payload that are missing.
    missing: usize,
    /// For a client: how the server ends the stream.
    answer: bool,
    trailers: Option<http::HeaderMap>,
    over: bool,
    kind: PhantomData<fn() -> M>,
}

impl<M: Message + Default + 'static> Messages<M> {
    fn new(body: Body, max: usize, answer: bool) -> Messages<M> {
        Messages {
            body,
            max,
            rest: Bytes::new(),
            head: [0; HEAD],
            have: 0,
            payload: Vec::new(),
            missing: 0,
            answer,
            trailers: None,
            over: false,
            kind: PhantomData,
        }
    }

    /// The next message; `None` at the end of the stream. May be cancelled: nothing is lost.
    ///
    /// # Errors
    /// The stream ended with an error, or what came is no message. The stream is over then.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if self.have < HEAD {
                let part = self.rest.split_to(self.rest.len().min(HEAD - self.have));
                self.head[self.have..self.have + part.len()].copy_from_slice(&part);
                self.have += part.len();
                if self.have == HEAD {
                    self.missing = self.length()?;
                    self.payload = Vec::with_capacity(self.missing);
                }
            }
            if self.have == HEAD {
                let part = self.rest.split_to(self.rest.len().min(self.missing));
                self.payload.extend_from_slice(&part);
                self.missing -= part.len();
                if self.missing == 0 {
                    self.have = 0;
                    return Poll::Ready(codec::decode(std::mem::take(&mut self.payload).into()).map(Some));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                // The client is gone.
                Some(Err(status)) if !self.answer && status.code() == Code::Cancelled => {
                    return Poll::Ready(Ok(None));
                }
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None => return Poll::Ready(self.end().map(|()| None)),
            }
        }
    }

    fn length(&self) -> Result<usize, Status> {
        let [compressed, length @ ..] = self.head;
        if compressed != 0 {
            return Err(Status::unimplemented("a compressed message; send messages without compression"));
        }
        match u32::from_be_bytes(length) as usize {
            length if length <= self.max => Ok(length),
            length => {
                Err(Status::out_of_range(format!("a message of {length} bytes; the limit is {}", self.max)))
            }
        }
    }

    fn end(&mut self) -> Result<(), Status> {
        let status = self.trailers.take().as_ref().and_then(Status::from_header_map);
        match status.filter(|_| self.answer) {
            Some(status) if status.code() != Code::Ok => Err(status),
            None if self.answer => Err(Status::unknown("the stream ended without a status")),
            _ if self.have > 0 => Err(Status::internal("the stream ended within a message")),
            _ => Ok(()),
        }
    }
}

impl<M: Message + Default + 'static> Stream for Messages<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<M, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let message = ready!(self.poll_message(cx)).transpose();
        self.over = !matches!(message, Some(Ok(_)));
        Poll::Ready(message)
    }
}

/// A body of the messages of a stream. It ends with the stream's error, or at its end.
struct Outgoing<S> {
    messages: S,
    max: usize,
    /// Encoded, and not passed on.
    ready: Vec<u8>,
    /// How the stream ended.
    end: Option<Status>,
    /// A server says in trailers how it ended.
    trailers: bool,
}

impl<S> Outgoing<S> {
    fn take(&mut self) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.ready).into()))))
    }
}

impl<M: Message, S: Stream<Item = Result<M, Status>> + Unpin> http_body::Body for Outgoing<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while this.end.is_none() {
            match Pin::new(&mut this.messages).poll_next(cx) {
                Poll::Pending if this.ready.is_empty() => return Poll::Pending,
                Poll::Pending => return this.take(),
                Poll::Ready(Some(Ok(message))) => match encode(&message, this.max, &mut this.ready) {
                    Ok(()) if this.ready.len() < AT_ONCE => {}
                    Ok(()) => return this.take(),
                    Err(status) => this.end = Some(status),
                },
                Poll::Ready(Some(Err(status))) => this.end = Some(status),
                Poll::Ready(None) => this.end = Some(Status::ok("")),
            }
        }
        if !this.ready.is_empty() {
            return this.take();
        }
        if !std::mem::take(&mut this.trailers) {
            return Poll::Ready(None);
        }
        let mut trailers = http::HeaderMap::new();
        let end = this.end.as_ref().map_or(Ok(()), |status| status.add_header(&mut trailers));
        Poll::Ready(Some(end.map(|()| Frame::trailers(trailers))))
    }
}

fn encode(message: &impl Message, max: usize, into: &mut Vec<u8>) -> Result<(), Status> {
    let length = message.encoded_len();
    let Some(fits) = u32::try_from(length).ok().filter(|_| length <= max) else {
        return Err(Status::out_of_range(format!(
            "a message of {length} bytes was to be sent; the limit is {max}"
        )));
    };
    // A large message takes no more than it needs.
    if HEAD + length >= AT_ONCE {
        into.reserve_exact(HEAD + length)
    } else {
        into.reserve(HEAD + length)
    }
    into.put_u8(0);
    into.put_u32(fits);
    // Never fails: there is room.
    message.encode(into).map_err(|e| Status::internal(e.to_string()))
}

/// A method with a stream in both directions, in a service of which tonic serves the rest.
pub trait Method: Send + Sync + 'static {
    /// Its path.
    const PATH: &'static str;
    /// Largest request in bytes.
    const REQUEST_MAX: usize;
    /// Largest answer in bytes.
    const ANSWER_MAX: usize;
    /// The messages of the client.
    type Request: Message + Default + 'static;
    /// The messages of the server.
    type Answer: Message;
    /// What [`Method::begin`] returns.
    type Answers: Stream<Item = Result<Self::Answer, Status>> + Send + Unpin + 'static;

    /// Takes a call; its answers may begin before its requests end.
    fn begin(
        &self,
        request: Request<Messages<Self::Request>>,
    ) -> impl Future<Output = Result<Response<Self::Answers>, Status>> + Send;
}

/// A service generated by tonic, of which one method is served as this module says.
#[derive(Debug)]
pub struct With<S, M> {
    rest: S,
    method: Arc<M>,
}

impl<S, M> With<S, M> {
    /// `method` in place of that of `rest` with the same path.
    #[must_use]
    pub fn new(rest: S, method: M) -> With<S, M> {
        With { rest, method: Arc::new(method) }
    }
}

impl<S: Clone, M> Clone for With<S, M> {
    fn clone(&self) -> With<S, M> {
        With { rest: self.rest.clone(), method: self.method.clone() }
    }
}

impl<S: NamedService, M> NamedService for With<S, M> {
    const NAME: &'static str = S::NAME;
}

impl<S, M> Service<http::Request<Body>> for With<S, M>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
    M: Method,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.rest.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != M::PATH {
            return Box::pin(self.rest.call(request));
        }
        let method = self.method.clone();
        Box::pin(async move { Ok(serve(&*method, request).await) })
    }
}

async fn serve<M: Method>(method: &M, request: http::Request<Body>) -> http::Response<Body> {
    let (parts, body) = request.into_parts();
    let messages = Messages::new(body, M::REQUEST_MAX, false);
    let request = Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, messages);
    let (metadata, messages, extensions) = match method.begin(request).await {
        Ok(response) => response.into_parts(),
        Err(status) => return status.into_http(),
    };
    let body = Outgoing { messages, max: M::ANSWER_MAX, ready: Vec::new(), end: None, trailers: true };
    let mut response = http::Response::new(Body::new(body));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    *response.extensions_mut() = extensions;
    response
}

/// Calls the method at `path` with a stream in both directions.
///
/// # Errors
/// The call could not be made, or the server refused it.
pub async fn call<Req, Res>(
    mut channel: Channel,
    path: &'static str,
    max: usize,
    requests: impl Stream<Item = Req> + Send + 'static,
) -> Result<Messages<Res>, Status>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    use tokio_stream::StreamExt as _;
    let messages = Box::pin(requests.map(Ok));
    let body = Outgoing { messages, max, ready: Vec::new(), end: None, trailers: false };
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    request.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|e| Status::from_error(e.into()))?;
    let response = channel.call(request).await.map_err(|e| Status::from_error(e.into()))?;
    if let Some(status) =
        Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(status);
    }
    if response.status() != http::StatusCode::OK {
        return Err(Status::unknown(format!(
            "the server answered {}; is it a port of Quorate?",
            response.status()
        )));
    }
    Ok(Messages::new(response.into_body(), max, true))
}

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Messages that are ready leave together, up to about this many bytes.
const AT_ONCE: usize = 32 << 10;
const GRPC: http::HeaderValue = http::HeaderValue::from_static("application/grpc");

#[cfg(test)]
mod tests;
