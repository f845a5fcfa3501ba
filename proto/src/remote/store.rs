//! The store of a node, in another process than the edge.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use api::{
    Identities, OpError, WriteNumber,
    budget::Held,
    ports::{Caller, Coordination, Items, Requests},
    session::{Item, Op, Open, Request, Response},
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::{Neighbour, Own};
use crate::{
    client::{MESSAGE_MAX, from_status, identities_to_wire, items},
    edge::{answer, caller_to_wire, open_to_wire, request_to_wire},
    internal::{self, edge_message::Kind, store_port_client::StorePortClient},
    streams, v1,
};

/// The port [`Coordination`] to a store in another process. It dials when it is used, and again when the connection is lost: then
/// streams and calls end as they do when a node goes away.
#[derive(Clone, Debug)]
pub struct RemoteCoordination {
    /// For streams, which hold no memory between their messages.
    channel: Channel,
    client: StorePortClient<Channel>,
    own: Arc<Own>,
}

impl RemoteCoordination {
    /// Maximum number of streams that share a connection without waiting. The store takes no more at a time, and clients that
    /// read nothing do not use up the window of the others.
    pub const STREAMS: u32 = 128;

    /// The store of this neighbour. To be called within a tokio runtime.
    #[must_use]
    pub fn new(store: &Neighbour) -> RemoteCoordination {
        let endpoint = store.endpoint.clone();
        let endpoint = endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(super::CONNECTION_OF_STREAMS);
        let channel = store.lazy_channel(endpoint);
        let client = StorePortClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX + FRAME);
        RemoteCoordination { channel, client, own: store.own.clone() }
    }
}

impl Coordination for RemoteCoordination {
    type Requests = RemoteRequests;
    type Items = RemoteItems;

    fn stream(&self, caller: Caller) -> (RemoteRequests, RemoteItems) {
        let (outgoing, messages) = mpsc::channel(MESSAGES);
        let (ended, end) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let requests = RemoteRequests {
            outgoing,
            ended: Some(ended),
            own: self.own.clone(),
            caller: caller_to_wire(&caller),
            progress: progress.clone(),
        };
        let channel = self.channel.clone();
        // After all requests. Without an end, the edge is gone.
        let end = tokio_stream::once(end).then(|end| async { end.await.ok() }).filter_map(|end| end);
        let requests_of_edge = ReceiverStream::new(messages).chain(end);
        let dial = streams::call(channel, SESSION, MESSAGE_MAX + FRAME, requests_of_edge);
        let stream = Incoming::Dialing(Box::pin(dial));
        (requests, RemoteItems { stream, next: VecDeque::new(), progress, own: self.own.clone() })
    }

    async fn call(&self, caller: Caller, mut request: Request) -> Result<(Response, Held), OpError> {
        request.op = request.op.sessionless()?;
        let write = matches!(request.op, Op::Write(_));
        let request = request_to_wire(request);
        let call = internal::EdgeCall {
            hello: Some(self.own.hello()),
            caller: Some(caller_to_wire(&caller)),
            request: Some(request),
        };
        match self.client.clone().call(call).await {
            Ok(response) => {
                let response = answer(response.into_inner()).map_err(|e| OpError::Internal(e.to_string()))?;
                Ok((response, Held::default()))
            }
            Err(status) => Err(match crate::client::details(&status) {
                Some(error) => error,
                // The transport cannot tell how far it came.
                None if write => OpError::Unknown(format!(
                    "the link to the store broke while the write was under way ({}): read before you write again, or use a session",
                    status.message()
                )),
                None => from_status(&status),
            }),
        }
    }
}

/// The shared state of both halves of a stream.
#[derive(Default, Debug)]
struct Progress {
    over: CancellationToken,
    /// Requests, and the opening.
    asked: AtomicU64,
    /// Number of requests whose answers the client has.
    answered: AtomicU64,
    moved: Notify,
}

/// The requests of a client on one stream.
#[derive(Debug)]
pub struct RemoteRequests {
    outgoing: mpsc::Sender<internal::EdgeMessage>,
    ended: Option<oneshot::Sender<internal::EdgeMessage>>,
    own: Arc<Own>,
    caller: internal::Caller,
    progress: Arc<Progress>,
}

impl RemoteRequests {
    /// Sends once there is room for `requests` more requests. After the end of the stream nothing happens.
    async fn send(&self, kind: Kind, requests: usize) {
        self.progress.at_most(REQUESTS_MAX.saturating_sub(requests as u64)).await;
        self.progress.asked.fetch_add(requests as u64, Ordering::Relaxed);
        let message = internal::EdgeMessage { kind: Some(kind) };
        tokio::select! {
            // An error: the stream is over, and its other half has the reason.
            _ = self.outgoing.send(message) => {}
            () = self.progress.over.cancelled() => {}
        }
    }
}

impl Progress {
    /// Waits until at most `unanswered` requests are unanswered, or the stream is over.
    async fn at_most(&self, unanswered: u64) {
        let few = async {
            loop {
                let moved = self.moved.notified();
                let answered = self.answered.load(Ordering::Acquire);
                if self.asked.load(Ordering::Relaxed).saturating_sub(answered) <= unanswered {
                    return;
                }
                moved.await;
            }
        };
        tokio::select! {
            () = few => {}
            () = self.over.cancelled() => {}
        }
    }
}

impl Requests for RemoteRequests {
    async fn open(&mut self, open: Open) -> Result<(), OpError> {
        // The store may learn its own only after it has taken the introduction.
        let open = Open { ensemble: open.ensemble.or(self.own.standing().ensemble), ..open };
        let begin = internal::Begin {
            hello: Some(self.own.hello()),
            caller: Some(self.caller.clone()),
            open: Some(open_to_wire(open)),
        };
        self.send(Kind::Begin(begin), 1).await;
        Ok(())
    }

    fn identify(&mut self, identities: Identities) {
        self.caller.identities = identities_to_wire(&identities);
    }

    async fn submit(&mut self, acked: WriteNumber, requests: Vec<Request>) -> Result<(), OpError> {
        let (mut batch, mut bytes, mut rest) = (Vec::new(), 0, requests.into_iter().peekable());
        loop {
            let fits = |next: &Request| {
                batch.is_empty() || (batch.len() < BATCH_MAX && bytes + next.op.bytes() <= BATCH_BYTES)
            };
            let next = rest.next_if(fits);
            if let Some(request) = next {
                bytes += request.op.bytes();
                batch.push(request_to_wire(request));
                continue;
            }
            let count = batch.len();
            let requests = std::mem::take(&mut batch);
            let message = internal::EdgeRequests { requests, acked_write: acked.0 };
            self.send(Kind::Requests(message), count).await;
            bytes = 0;
            if rest.peek().is_none() {
                return Ok(());
            }
        }
    }

    async fn settled(&self) {
        self.progress.at_most(0).await;
    }

    async fn over(&self) {
        self.progress.over.cancelled().await;
    }

    fn end(mut self, why: Result<(), OpError>) {
        let end = internal::End { why: why.err().map(v1::Error::from) };
        if let Some(ended) = self.ended.take() {
            // An error: the stream is over.
            let _ = ended.send(internal::EdgeMessage { kind: Some(Kind::End(end)) });
        }
    }
}

/// The items from the store to one stream.
pub struct RemoteItems {
    stream: Incoming,
    /// Come, and not taken.
    next: VecDeque<Item>,
    progress: Arc<Progress>,
    own: Arc<Own>,
}

type Messages = streams::Messages<v1::SessionResponse>;

enum Incoming {
    Dialing(Pin<Box<dyn Future<Output = Result<Messages, Status>> + Send>>),
    Open(Box<Messages>),
    Over(Result<(), OpError>),
}

impl Incoming {
    /// The next message; an error, also of the best kind, is the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<v1::SessionResponse, Result<(), OpError>>> {
        loop {
            let end = match self {
                Incoming::Dialing(dial) => match ready!(dial.as_mut().poll(cx)) {
                    Ok(stream) => {
                        *self = Incoming::Open(Box::new(stream));
                        continue;
                    }
                    Err(status) => Err(from_status(&status)),
                },
                Incoming::Open(stream) => match ready!(Pin::new(&mut **stream).poll_next(cx)) {
                    Some(Ok(message)) => return Poll::Ready(Ok(message)),
                    Some(Err(status)) => Err(from_status(&status)),
                    None => Ok(()),
                },
                Incoming::Over(end) => return Poll::Ready(Err(end.clone())),
            };
            *self = Incoming::Over(end);
        }
    }
}

impl RemoteItems {
    fn admit(&self, item: &Item) -> Result<(), OpError> {
        if let Item::Opened(opened) = item { self.own.opened(opened) } else { Ok(()) }
    }
}

impl Items for RemoteItems {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut VecDeque<Item>,
    ) -> Poll<Option<Result<(), OpError>>> {
        while self.next.is_empty() {
            let end = match ready!(self.stream.poll_next(cx)) {
                Ok(message) => match items(message) {
                    Ok(items) => match items.iter().try_for_each(|item| self.admit(item)) {
                        Ok(()) => {
                            self.next.extend(items);
                            continue;
                        }
                        Err(e) => Err(e),
                    },
                    Err(e) => Err(OpError::Internal(format!("the store sent a {e}"))),
                },
                Err(end) => end,
            };
            self.stream = Incoming::Over(end.clone());
            self.progress.over.cancel();
            return Poll::Ready(Some(end));
        }
        let n = self.next.len().min(max);
        into.extend(self.next.drain(..n));
        Poll::Ready(None)
    }

    fn taken(&mut self, answers: usize, _weight: usize) {
        self.progress.answered.fetch_add(answers as u64, Ordering::Release);
        self.progress.moved.notify_waiters();
    }
}

impl Drop for RemoteItems {
    fn drop(&mut self) {
        self.progress.over.cancel();
    }
}

/// The method of session streams.
const SESSION: &str = "/quorate.internal.v1.StorePort/Session";

/// Bytes of a stream that are on their way and not taken.
const STREAM_WINDOW: u32 = 128 << 10;

/// Messages between an edge's task and the socket.
const MESSAGES: usize = 4;

/// Maximum of requests in one message; [`BATCH_BYTES`] bounds its size. A single request may be larger.
const BATCH_MAX: usize = 1024;
const BATCH_BYTES: usize = 256 << 10;

/// Unanswered requests of a stream. The store has a bound of its own, in bytes too.
const REQUESTS_MAX: u64 = 4096;

/// Bytes that the edge adds to a request of the greatest size.
const FRAME: usize = 64 << 10;
