//! The port of this quorum for a store in another process.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::ports::{Chunks, Feed as _, Quorum as _, Request as Asked};
use api::{PeerId, Standing, Ticket, Zxid};
use bytes::Bytes;
use proto::internal::{self, feed_message, quorum_port_server::QuorumPort, snapshot_message, store_message};
use proto::peer::{LevelSet, Reconfigured};
use proto::ports::{
    check_neighbour, item_to_wire, request, sign_to_wire, status_to_wire, surroundings_to_wire,
};
use proto::quorum::{self, Hello};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::feed::{LogFeed, SignQueue};
use crate::handle::Handle;

/// Timeout for the first message of a store.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// Queue length between the link's task and the socket, in messages of about 1 MiB at most; a single
/// entry may be larger.
const SEND_QUEUE: usize = 4;
/// Maximum number of items in one message besides entries.
const ITEMS: usize = 4096;

/// The gRPC service `quorate.internal.v1.QuorumPort`, for the store of this node only.
pub struct PortService {
    pub(crate) ensemble: Arc<str>,
    pub(crate) me: PeerId,
    pub(crate) handle: Handle,
    /// The newest store.
    pub(crate) store: Mutex<Attached>,
}

/// The stream of the attached store, if there is one.
#[derive(Default)]
pub(crate) struct Attached {
    /// Present until the store requests them.
    signs: Option<SignQueue>,
    link: Option<(CancellationToken, oneshot::Receiver<u64>)>,
    /// The greatest ticket of all earlier stores.
    last_ticket: u64,
}

#[tonic::async_trait]
impl QuorumPort for PortService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<internal::FeedMessage, Status>> + Send>>;
    type SignsStream = Pin<Box<dyn Stream<Item = Result<internal::Sign, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<internal::StoreMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(HANDSHAKE, requests.message()).await.map_err(|_| {
            Status::deadline_exceeded("a stream between services begins with a Hello; none came")
        })??;
        let Some(store_message::Kind::Attach(attach)) = first.and_then(|m| m.kind) else {
            return Err(Status::invalid_argument("a store has to attach first"));
        };
        self.admit(attach.hello)?;

        let mut store = self.store.lock().await;
        if let Some((replaced, ended)) = store.link.take() {
            replaced.cancel();
            // This guarantees that the requests of the new store follow all requests of the old one. An
            // error means that the service is stopping.
            store.last_ticket = ended.await.unwrap_or(store.last_ticket);
        }
        let last_ticket = store.last_ticket;
        let after = Zxid(attach.after);
        let (feed, signs) = self.handle.attach(after).await.map_err(|e| Status::unavailable(e.0))?;
        store.signs = Some(signs);
        tracing::info!(%after, "the store has attached");
        let (messages, stream) = mpsc::channel(SEND_QUEUE);
        let hello = Some(Hello::to_wire(&self.ensemble, self.me, self.standing()));
        // The queue is empty, so there is room.
        let _ = messages
            .try_send(Ok(message(feed_message::Kind::Attached(internal::Attached { hello, last_ticket }))));
        let replaced = CancellationToken::new();
        let (tell_ended, ended) = oneshot::channel();
        let link = StoreLink { handle: self.handle.clone(), requests, last_ticket };
        self.handle.links.spawn(link.run(feed, messages, replaced.clone(), tell_ended));
        store.link = Some((replaced, ended));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn signs(
        &self,
        request: Request<internal::SignsRequest>,
    ) -> Result<Response<Self::SignsStream>, Status> {
        self.admit(request.into_inner().hello)?;
        let signs = self.store.lock().await.signs.take();
        let SignQueue(signs) = signs.ok_or_else(|| Status::failed_precondition("attach first"))?;
        let signs = ReceiverStream::new(signs).map(|sign| Ok(sign_to_wire(sign)));
        Ok(Response::new(Box::pin(signs)))
    }

    async fn save_snapshot(
        &self,
        request: Request<Streaming<internal::SnapshotMessage>>,
    ) -> Result<Response<internal::SnapshotSaved>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|m| m.kind);
        let Some(snapshot_message::Kind::Head(head)) = first else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        self.admit(head.hello)?;
        let (tell_broken, broken) = oneshot::channel();
        let pieces = Pieces { stream, broken: Some(tell_broken) };
        tokio::select! {
            saved = self.handle.save_snapshot(Zxid(head.zxid), pieces) => match saved {
                Ok(()) => Ok(Response::new(internal::SnapshotSaved {})),
                Err(e) => Err(Status::unavailable(e.0)),
            },
            // The other branch discards the pieces received so far.
            Ok(why) = broken => Err(why),
        }
    }

    async fn status(
        &self,
        _: Request<internal::StatusRequest>,
    ) -> Result<Response<internal::StatusReply>, Status> {
        let status = self.handle.status().await.map_err(|e| Status::unavailable(e.0))?;
        let hello = Some(Hello::to_wire(&self.ensemble, self.me, self.standing()));
        let known = self.handle.surroundings().await.map_err(|e| Status::unavailable(e.0))?;
        let status = Some(status_to_wire(status));
        Ok(Response::new(internal::StatusReply { hello, status, ..surroundings_to_wire(known) }))
    }

    async fn set_level(
        &self,
        request: Request<internal::SetLevelRequest>,
    ) -> Result<Response<LevelSet>, Status> {
        let internal::SetLevelRequest { hello, expected, level } = request.into_inner();
        self.admit(hello)?;
        let [expected, level] = [quorum::level(expected), quorum::level(level)];
        let malformed = |e: proto::Malformed| Status::invalid_argument(e.0);
        let result = self.handle.set_level(expected.map_err(malformed)?, level.map_err(malformed)?).await;
        Ok(Response::new(quorum::level_set_to_wire(Ticket(0), result)))
    }

    async fn reconfigure(
        &self,
        request: Request<internal::ReconfigureRequest>,
    ) -> Result<Response<Reconfigured>, Status> {
        let internal::ReconfigureRequest { hello, reconfig } = request.into_inner();
        self.admit(hello)?;
        let reconfig = quorum::reconfig(reconfig.unwrap_or_default());
        let result = self.handle.reconfigure(reconfig.map_err(|e| Status::invalid_argument(e.0))?).await;
        Ok(Response::new(quorum::reconfigured_to_wire(Ticket(0), result)))
    }
}

impl PortService {
    fn admit(&self, hello: Option<proto::peer::Hello>) -> Result<(), Status> {
        let own = self.standing();
        let theirs = check_neighbour(hello, &self.ensemble, self.me, &own).map_err(|e| {
            tracing::warn!("refused a store: {e}");
            Status::failed_precondition(e.0)
        })?;
        match (own.ensemble, theirs.ensemble) {
            // It might be another one, and would be told to start over.
            (None, Some(theirs)) => Err(Status::unavailable(format!(
                "this quorum has not joined an ensemble yet, and the store has entries of {theirs}; it has to wait"
            ))),
            _ => Ok(()),
        }
    }

    fn standing(&self) -> Standing {
        self.handle.acquaintances.own.borrow().greeting.standing
    }
}

/// An attached store.
struct StoreLink {
    handle: Handle,
    requests: Streaming<internal::StoreMessage>,
    /// The greatest ticket so far.
    last_ticket: u64,
}

type Messages = mpsc::Sender<Result<internal::FeedMessage, Status>>;

impl StoreLink {
    async fn run(
        mut self,
        feed: LogFeed,
        messages: Messages,
        replaced: CancellationToken,
        ended: oneshot::Sender<u64>,
    ) {
        let why = tokio::select! {
            why = self.pass_requests() => why,
            why = pass_feed(feed, &messages) => why,
            () = replaced.cancelled() => Status::aborted("another store has taken this one's place"),
        };
        tracing::info!("the link to the store ended: {}", why.message());
        // Both receivers may be gone.
        let _ = messages.try_send(Err(why));
        let _ = ended.send(self.last_ticket);
    }

    /// Runs until the stream ends; returns the reason.
    async fn pass_requests(&mut self) -> Status {
        loop {
            let message = match self.requests.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Status::cancelled("closed by the store"),
                Err(status) => return status,
            };
            let Some(store_message::Kind::Requests(batch)) = message.kind else {
                return Status::invalid_argument("a store that has attached sends nothing but requests");
            };
            let batch = batch.requests.into_iter().map(request).collect::<Result<Vec<Asked>, _>>();
            let batch = match batch {
                Ok(batch) => batch,
                Err(malformed) => return Status::invalid_argument(malformed.to_string()),
            };
            for asked in &batch {
                if let Asked::Submit { ticket, .. } | Asked::Barrier { ticket } = asked {
                    if ticket.0 <= self.last_ticket {
                        return Status::invalid_argument("the tickets of a store have to ascend");
                    }
                    self.last_ticket = ticket.0;
                }
            }
            if let Err(e) = self.handle.request(batch).await {
                return Status::unavailable(e.0);
            }
        }
    }
}

/// Runs until the feed ends, or its reader is gone; returns the reason.
async fn pass_feed(mut feed: LogFeed, messages: &Messages) -> Status {
    loop {
        let mut items = match feed.next().await {
            Ok(items) => items,
            Err(e) => return Status::unavailable(e.0),
        };
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(ITEMS));
            let items = std::mem::replace(&mut items, rest).into_iter().map(item_to_wire);
            let kind = feed_message::Kind::Items(internal::FeedItems { items: items.collect() });
            if messages.send(Ok(message(kind))).await.is_err() {
                return Status::cancelled("closed by the store");
            }
        }
    }
}

fn message(kind: feed_message::Kind) -> internal::FeedMessage {
    internal::FeedMessage { kind: Some(kind) }
}

/// The pieces of a snapshot from a stream. A stream that breaks yields no end: `broken` receives the
/// reason, and the next piece never comes.
struct Pieces {
    stream: Streaming<internal::SnapshotMessage>,
    broken: Option<oneshot::Sender<Status>>,
}

impl Chunks for Pieces {
    async fn next(&mut self) -> Option<Bytes> {
        let why = match self.stream.message().await.map(|m| m.and_then(|m| m.kind)) {
            Ok(Some(snapshot_message::Kind::Chunk(chunk))) => return Some(chunk),
            Ok(Some(snapshot_message::Kind::End(_))) => return None,
            Ok(_) => Status::invalid_argument("a snapshot ended before its end"),
            Err(status) => status,
        };
        if let Some(broken) = self.broken.take() {
            // The call may have ended.
            let _ = broken.send(why);
        }
        std::future::pending().await
    }
}
