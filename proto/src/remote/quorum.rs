//! The quorum of this node, in another process.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    EnsembleId, Level, LevelRefusal, Reconfig, ReconfigRefusal, Zxid,
    ports::{
        Chunks, Feed, FeedItem, PAYLOAD_MAX, PortClosed, Quorum, QuorumStatus, Refusal, Request, Role, Sign,
        Signs, Surroundings,
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Streaming, transport::Channel};

use super::{
    Neighbour, NoLink,
    parked::{Parked, at, weight},
    tickets::Tickets,
};
use crate::{
    PEER_MESSAGE_MAX,
    internal::{self, feed_message, quorum_port_client::QuorumPortClient, snapshot_message, store_message},
    ports::{item, request_to_wire, sign, status, surroundings},
    quorum::{level_set, reconfig_to_wire, reconfigured},
};

/// The port [`Quorum`] to a quorum in another process.
///
/// Without a link to the quorum, the store's feed reports no leader, and its requests wait, within
/// [`Bounds`]. With a new link the feed continues. The feed reports in-flight requests of a broken link as
/// [`FeedItem::Lost`]: they may or may not be in the log. [`Quorum::request`] waits until a store is
/// attached.
#[derive(Clone, Debug)]
pub struct RemoteQuorum {
    shared: Arc<Shared>,
}

/// Bounds of the requests that wait for a link, as in a quorum for a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Requests; further ones are refused.
    pub requests: usize,
    /// The same in bytes.
    pub bytes: usize,
    /// A request that has waited for longer is refused.
    pub park: Duration,
}

/// The ensemble whose entries the store has.
pub struct Kept {
    /// From an earlier run.
    pub known: Option<EnsembleId>,
    /// Keeps it, durably, before the first entry comes. An error says what is wrong and what to do.
    pub keep: Box<dyn Fn(EnsembleId) -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("known", &self.known).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    quorum: Neighbour,
    bounds: Bounds,
    kept: Kept,
    /// The last status of the quorum, or that it cannot be reached.
    status: watch::Sender<QuorumStatus>,
    /// Of the present link.
    channel: watch::Sender<Option<Channel>>,
    /// The newest store.
    store: watch::Sender<Option<Attached>>,
    /// One snapshot is sent at a time.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Attached {
    requests: mpsc::Sender<Vec<Request>>,
    over: CancellationToken,
}

impl RemoteQuorum {
    /// Dials when a store attaches.
    #[must_use]
    pub fn new(quorum: Neighbour, bounds: Bounds, kept: Kept) -> RemoteQuorum {
        kept.known.into_iter().for_each(|known| quorum.own.belong(known));
        let shared = Shared {
            quorum,
            bounds,
            kept,
            status: watch::Sender::default(),
            channel: watch::Sender::new(None),
            store: watch::Sender::new(None),
            saving: tokio::sync::Mutex::new(()),
        };
        RemoteQuorum { shared: Arc::new(shared) }
    }

    /// Whether the store is linked to its quorum.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.shared.channel.borrow().is_some()
    }

    /// Waits until the store is linked to its quorum, or is not any more.
    pub async fn linked(&self, linked: bool) {
        // Never an error: `self` holds the sender.
        let _ = self.shared.channel.subscribe().wait_for(|channel| channel.is_some() == linked).await;
    }
}

impl Quorum for RemoteQuorum {
    type Feed = RemoteFeed;
    type Signs = RemoteSigns;

    async fn attach(&self, after: Zxid) -> Result<(RemoteFeed, RemoteSigns), PortClosed> {
        let (to_link, requests) = mpsc::channel(REQUESTS);
        let (feed, items) = mpsc::channel(ITEMS);
        let (to_store, signs) = mpsc::channel(SIGNS);
        let over = CancellationToken::new();
        let attached = Attached { requests: to_link, over: over.clone() };
        if let Some(older) = self.shared.store.send_replace(Some(attached)) {
            older.over.cancel();
        }
        let tickets = Arc::new(Mutex::new(Tickets::new(self.shared.quorum.own.me)));
        let parked = Parked::new(self.shared.bounds);
        let shared = self.shared.clone();
        let link = Task { shared, requests, feed, signs: to_store, position: after, tickets, parked };
        let guard = over.clone().drop_guard();
        tokio::spawn(async move { over.run_until_cancelled(link.run()).await });
        Ok((RemoteFeed { items, _detach: guard }, RemoteSigns(signs)))
    }

    async fn request(&self, batch: Vec<Request>) -> Result<(), PortClosed> {
        let mut store = self.shared.store.subscribe();
        let requests = match store.wait_for(Option::is_some).await {
            Ok(attached) => attached.as_ref().map(|a| a.requests.clone()),
            Err(_) => None,
        };
        match requests {
            Some(requests) => requests.send(batch).await.map_err(|_| detached()),
            None => Err(detached()),
        }
    }

    async fn save_snapshot(&self, zxid: Zxid, chunks: impl Chunks + 'static) -> Result<(), PortClosed> {
        let _one_at_a_time = self.shared.saving.lock().await;
        let (pieces, stream) = mpsc::channel(PIECES);
        let mut client = self.shared.client().await?;
        let feeding = async {
            feed_pieces(self.shared.quorum.hello(), zxid, chunks, pieces).await;
            // Only the quorum can say that it has them.
            std::future::pending().await
        };
        tokio::select! {
            saved = client.save_snapshot(ReceiverStream::new(stream)) => match saved {
                Ok(_) => Ok(()),
                Err(status) => Err(PortClosed(status.message().to_owned())),
            },
            () = feeding => Err(detached()),
        }
    }

    async fn surroundings(&self) -> Result<Surroundings, PortClosed> {
        let known = tokio::time::timeout(STATUS_LIMIT, self.shared.ask_surroundings()).await;
        Ok(known.ok().and_then(Result::ok).unwrap_or_default())
    }

    async fn set_level(&self, expected: Level, level: Level) -> Result<Level, LevelRefusal> {
        let unavailable = |why: String| LevelRefusal::Unavailable(why);
        let hello = Some(self.shared.quorum.hello());
        let asked = internal::SetLevelRequest { hello, expected: expected.0, level: level.0 };
        let mut client = self.shared.client().await.map_err(|e| unavailable(e.0))?;
        let answer = client.set_level(asked).await.map_err(|e| unavailable(e.message().to_owned()))?;
        level_set(answer.into_inner()).map_err(|e| unavailable(e.to_string()))?.1
    }

    async fn reconfigure(&self, reconfig: Reconfig) -> Result<Zxid, ReconfigRefusal> {
        let unavailable = |why: String| ReconfigRefusal::Unavailable(why);
        let hello = Some(self.shared.quorum.hello());
        let asked = internal::ReconfigureRequest { hello, reconfig: Some(reconfig_to_wire(reconfig)) };
        let mut client = self.shared.client().await.map_err(|e| unavailable(e.0))?;
        let answer = client.reconfigure(asked).await.map_err(|e| unavailable(e.message().to_owned()))?;
        reconfigured(answer.into_inner()).map_err(|e| unavailable(e.to_string()))?.1
    }

    async fn status(&self) -> Result<QuorumStatus, PortClosed> {
        match tokio::time::timeout(STATUS_LIMIT, self.shared.ask_status()).await {
            Ok(Ok(status)) => Ok(status),
            // A node whose quorum is out of reach has no leader.
            Ok(Err(_)) | Err(_) => Ok(unreachable(*self.shared.status.borrow())),
        }
    }
}

impl Shared {
    async fn client(&self) -> Result<QuorumPortClient<Channel>, PortClosed> {
        let linked = self.channel.borrow().clone();
        let channel = match linked {
            Some(channel) => channel,
            None => self.quorum.channel().await.map_err(|e| PortClosed(e.to_string()))?,
        };
        Ok(client(channel))
    }

    /// The store is about to get entries of this ensemble. `binding`: some that are no markers.
    fn keep(&self, of: Option<EnsembleId>, binding: bool) -> Result<(), String> {
        self.quorum.check_ensemble(of)?;
        match (self.quorum.own.standing().ensemble, of) {
            // With the next link it does.
            (Some(_), None) => Err("it does not say yet of which ensemble its entries are".to_owned()),
            (None, Some(of)) if binding => {
                (self.kept.keep)(of)?;
                self.quorum.own.belong(of);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn ask(&self) -> Result<internal::StatusReply, PortClosed> {
        let reply = self.client().await?.status(internal::StatusRequest {}).await;
        let reply = reply.map_err(|e| PortClosed(e.message().to_owned()))?.into_inner();
        self.quorum.check(reply.hello.clone()).map_err(|e| PortClosed(e.to_string()))?;
        Ok(reply)
    }

    async fn ask_surroundings(&self) -> Result<Surroundings, PortClosed> {
        let reply = self.ask().await?;
        surroundings(reply).map_err(|e| PortClosed(e.0))
    }

    async fn ask_status(&self) -> Result<QuorumStatus, PortClosed> {
        let reply = self.ask().await?;
        status(reply.status.unwrap_or_default()).map_err(|e| PortClosed(e.0))
    }
}

/// The feed of an attached store. Dropping it detaches.
#[derive(Debug)]
pub struct RemoteFeed {
    items: mpsc::Receiver<Vec<FeedItem>>,
    _detach: DropGuard,
}

impl Feed for RemoteFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, PortClosed> {
        self.items.recv().await.ok_or_else(|| PortClosed("another store has attached".into()))
    }
}

/// Events for an attached store beside its feed.
#[derive(Debug)]
pub struct RemoteSigns(mpsc::Receiver<Sign>);

impl Signs for RemoteSigns {
    async fn next(&mut self) -> Option<Sign> {
        self.0.recv().await
    }
}

/// Keeps one store linked to its quorum.
struct Task {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Vec<Request>>,
    feed: mpsc::Sender<Vec<FeedItem>>,
    signs: mpsc::Sender<Sign>,
    /// Everything up to here is in `feed`.
    position: Zxid,
    tickets: Arc<Mutex<Tickets>>,
    parked: Parked,
}

impl Task {
    async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            if !self.tell_no_link().await {
                return;
            }
            let after = self.position;
            let link = tokio::select! {
                link = shared.quorum.keep_trying(|| Link::open(&shared.quorum, after)) => link,
                () = self.wait() => return,
            };
            // Revoked at the end of this link, in every case.
            let _linked = Linked::new(&shared, link.channel.clone());
            match self.carry(link).await {
                End::Broken(why) => tracing::warn!(reason = why, "link to the quorum service broke"),
                End::Over => return,
            }
        }
    }

    /// Sends the events of a missing link to the store. False if the store is gone.
    async fn tell_no_link(&mut self) -> bool {
        self.shared.status.send_modify(|status| *status = unreachable(*status));
        let status = *self.shared.status.borrow();
        let mut items = vec![FeedItem::Status(status)];
        items.extend(lock(&self.tickets).lose());
        self.feed.send(items).await.is_ok()
    }

    /// Takes requests while there is no link. Ends when all callers are gone. May be dropped at any time.
    async fn wait(&mut self) {
        loop {
            // First, so that nothing that was taken is lost with this future.
            let Ok(room) = self.feed.reserve().await else { return };
            let refused = tokio::select! {
                batch = self.requests.recv() => match batch {
                    Some(batch) => self.parked.park(batch),
                    None => return,
                },
                () = at(self.parked.until()) => self.parked.give_up(),
            };
            if !refused.is_empty() {
                room.send(refused);
            }
        }
    }

    /// Carries requests there and the feed back until the link ends.
    async fn carry(&mut self, link: Link) -> End {
        lock(&self.tickets).linked(link.last_ticket);
        let tickets = self.tickets.clone();
        let requests = Requests {
            parked: &mut self.parked,
            queue: &mut self.requests,
            feed: &self.feed,
            tickets: &tickets,
            to_quorum: link.to_quorum,
        };
        let reader = Reader {
            stream: link.stream,
            feed: &self.feed,
            tickets: &tickets,
            shared: &self.shared,
            ensemble: link.ensemble,
            position: &mut self.position,
            snapshot: None,
        };
        tokio::select! {
            end = reader.run() => end,
            end = requests.run() => end,
            end = pass_signs(link.signs, &self.signs) => end,
        }
    }
}

/// How a link ends.
enum End {
    /// There may be another one. With the reason.
    Broken(String),
    /// This store is gone, or another one has taken its place.
    Over,
}

impl End {
    fn broken(why: impl ToString) -> End {
        End::Broken(why.to_string())
    }
}

/// Sends the requests to the quorum.
struct Requests<'a> {
    /// Those that waited for the link.
    parked: &'a mut Parked,
    queue: &'a mut mpsc::Receiver<Vec<Request>>,
    feed: &'a mpsc::Sender<Vec<FeedItem>>,
    tickets: &'a Mutex<Tickets>,
    to_quorum: mpsc::Sender<internal::StoreMessage>,
}

impl Requests<'_> {
    /// May be dropped at any time: every taken request is in the tickets, or refused, before the next await.
    async fn run(self) -> End {
        loop {
            let Ok(room) = self.feed.reserve().await else { return End::Over };
            let mut batch = self.parked.take();
            if batch.is_empty() {
                match self.queue.recv().await {
                    Some(next) => batch = next,
                    None => return End::Over,
                }
            }
            let refused: Vec<FeedItem> =
                batch.extract_if(.., |r| weight(r) > PAYLOAD_MAX).filter_map(too_large).collect();
            if refused.is_empty() {
                drop(room)
            } else {
                room.send(refused)
            }
            {
                let mut tickets = lock(self.tickets);
                batch.iter_mut().for_each(|request| tickets.out(request));
            }
            for requests in pieces(batch) {
                let kind = store_message::Kind::Requests(internal::Requests { requests });
                if self.to_quorum.send(internal::StoreMessage { kind: Some(kind) }).await.is_err() {
                    return End::broken("it takes no more requests");
                }
            }
        }
    }
}

/// Reads the feed from the quorum.
struct Reader<'a> {
    stream: Streaming<internal::FeedMessage>,
    feed: &'a mpsc::Sender<Vec<FeedItem>>,
    tickets: &'a Mutex<Tickets>,
    shared: &'a Shared,
    /// What the quorum has said last of its ensemble.
    ensemble: Option<EnsembleId>,
    position: &'a mut Zxid,
    /// The snapshot in transfer.
    snapshot: Option<Zxid>,
}

impl Reader<'_> {
    /// May be dropped at any time: every item taken from the stream is in the feed before the next await.
    async fn run(mut self) -> End {
        loop {
            let Ok(room) = self.feed.reserve().await else { return End::Over };
            let message = match self.stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::broken("the quorum has stopped"),
                Err(status) if status.code() == Code::Aborted => {
                    tracing::error!(reason = status.message(), "the quorum service ended the link");
                    return End::Over;
                }
                Err(status) => return End::broken(status.message()),
            };
            let Some(feed_message::Kind::Items(items)) = message.kind else {
                return End::broken("it says what this version does not know");
            };
            match items.items.into_iter().map(item).collect::<Result<Vec<FeedItem>, _>>() {
                Ok(items) => {
                    if let Err(why) = self.admit(&items) {
                        return End::broken(why);
                    }
                    items.iter().for_each(|item| self.follow(item));
                    let mut tickets = lock(self.tickets);
                    room.send(items.into_iter().filter_map(|item| tickets.back(item)).collect());
                }
                Err(malformed) => return End::broken(malformed),
            }
        }
    }

    /// Nothing of another ensemble reaches the store, and its own is kept before the first entry.
    fn admit(&mut self, items: &[FeedItem]) -> Result<(), String> {
        for item in items {
            match item {
                FeedItem::Status(status) => {
                    self.shared.quorum.check_ensemble(status.ensemble)?;
                    self.ensemble = status.ensemble;
                }
                // The id of an ensemble that has only markers may change.
                FeedItem::Committed(entries) => {
                    self.shared.keep(self.ensemble, entries.iter().any(|entry| !entry.is_marker()))?;
                }
                FeedItem::SnapshotStart { .. } => self.shared.keep(self.ensemble, true)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn follow(&mut self, item: &FeedItem) {
        match item {
            FeedItem::Committed(entries) => {
                *self.position = entries.last().map_or(*self.position, |entry| entry.zxid);
            }
            FeedItem::SnapshotStart { zxid } => self.snapshot = Some(*zxid),
            FeedItem::SnapshotEnd => *self.position = self.snapshot.take().unwrap_or(*self.position),
            FeedItem::Status(status) => drop(self.shared.status.send_replace(*status)),
            _ => {}
        }
    }
}

/// Until the link ends.
async fn pass_signs(mut stream: Streaming<internal::Sign>, signs: &mpsc::Sender<Sign>) -> End {
    loop {
        match stream.message().await {
            // One for which there is no room is lost.
            Ok(Some(wire)) => match sign(wire) {
                Ok(sign) => drop(signs.try_send(sign)),
                Err(malformed) => return End::broken(malformed),
            },
            // The other stream of the link has the reason.
            Ok(None) => return std::future::pending().await,
            Err(status) => return End::broken(status.message()),
        }
    }
}

struct Link {
    channel: Channel,
    to_quorum: mpsc::Sender<internal::StoreMessage>,
    stream: Streaming<internal::FeedMessage>,
    signs: Streaming<internal::Sign>,
    last_ticket: u64,
    /// Of the quorum.
    ensemble: Option<EnsembleId>,
}

impl Link {
    async fn open(quorum: &Neighbour, after: Zxid) -> Result<Link, NoLink> {
        let channel = quorum.channel().await?;
        let (to_quorum, messages) = mpsc::channel(MESSAGES);
        let attach = internal::AttachRequest { hello: Some(quorum.hello()), after: after.0 };
        let kind = store_message::Kind::Attach(attach);
        // The queue is empty, so there is room.
        let _ = to_quorum.try_send(internal::StoreMessage { kind: Some(kind) });
        let mut stream = client(channel.clone()).attach(ReceiverStream::new(messages)).await?.into_inner();
        let attached = match stream.message().await?.and_then(|m| m.kind) {
            Some(feed_message::Kind::Attached(attached)) => attached,
            _ => internal::Attached::default(),
        };
        let ensemble = quorum.check(attached.hello)?.ensemble;
        let signs = internal::SignsRequest { hello: Some(quorum.hello()) };
        let signs = client(channel.clone()).signs(signs).await?.into_inner();
        Ok(Link { channel, to_quorum, stream, signs, last_ticket: attached.last_ticket, ensemble })
    }
}

/// While it lives, others may use the link's connection.
struct Linked<'a>(&'a Shared);

impl<'a> Linked<'a> {
    fn new(shared: &'a Shared, channel: Channel) -> Linked<'a> {
        shared.channel.send_replace(Some(channel));
        Linked(shared)
    }
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        self.0.channel.send_replace(None);
    }
}

fn client(channel: Channel) -> QuorumPortClient<Channel> {
    QuorumPortClient::new(channel)
        .max_decoding_message_size(PEER_MESSAGE_MAX)
        .max_encoding_message_size(PEER_MESSAGE_MAX)
}

/// Requests that go in one message, at least one each.
fn pieces(batch: Vec<Request>) -> impl Iterator<Item = Vec<internal::Request>> {
    let mut rest = batch.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut bytes = weight(&first);
        let mut piece = vec![request_to_wire(first)];
        while let Some(next) = rest.next_if(|next| bytes + weight(next) <= BATCH_BYTES) {
            bytes += weight(&next);
            piece.push(request_to_wire(next));
        }
        Some(piece)
    })
}

fn too_large(request: Request) -> Option<FeedItem> {
    match request {
        Request::Submit { ticket, .. } => Some(FeedItem::Refused { ticket, why: Refusal::TooLarge }),
        Request::Barrier { .. } | Request::Report(_) | Request::Confirm { .. } => None,
    }
}

async fn feed_pieces(
    hello: crate::peer::Hello,
    zxid: Zxid,
    mut chunks: impl Chunks,
    pieces: mpsc::Sender<internal::SnapshotMessage>,
) {
    use snapshot_message::Kind;
    let mut next = Some(Kind::Head(internal::SnapshotHead { hello: Some(hello), zxid: zxid.0 }));
    while let Some(kind) = next.take() {
        let more = !matches!(kind, Kind::End(_));
        // Without a receiver the call has ended with a reason.
        if pieces.send(internal::SnapshotMessage { kind: Some(kind) }).await.is_err() {
            return;
        }
        if more {
            next = Some(chunks.next().await.map_or(Kind::End(internal::SnapshotEnd {}), Kind::Chunk));
        }
    }
}

/// The known status of a quorum that cannot be reached.
fn unreachable(last: QuorumStatus) -> QuorumStatus {
    QuorumStatus { role: Role::Looking, serving: false, leader: None, ..last }
}

fn lock(tickets: &Mutex<Tickets>) -> MutexGuard<'_, Tickets> {
    // Nothing in there panics half way.
    tickets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn detached() -> PortClosed {
    PortClosed("no store is attached any more".into())
}

/// Batches of requests that wait for the link's task. When they are full, the store waits.
const REQUESTS: usize = 4;
/// Batches of the feed that the store has not read. When they are full, nothing more is read from the quorum.
const ITEMS: usize = 8;
/// Signs that the store has not read; more are lost.
const SIGNS: usize = 1024;
/// Messages between the link's task and the socket.
const MESSAGES: usize = 4;
/// Pieces of a snapshot between the store and the socket, each at most 1 MiB.
const PIECES: usize = 2;
/// Payload of one message with requests; one request may be larger.
const BATCH_BYTES: usize = 1 << 20;
/// Limit of the wait for the quorum's part of a node's status.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use api::Ticket;

    use super::*;

    /// Such a request had no answer and no fate: its client waited until its own time limit.
    #[tokio::test]
    async fn a_request_that_waited_for_a_link_waits_on_if_the_link_ends_at_once() {
        let bounds = Bounds { requests: 10, bytes: 10, park: Duration::from_secs(60) };
        let (mut parked, tickets) = (Parked::new(bounds), Mutex::new(Tickets::new(api::PeerId(1))));
        assert_eq!(parked.park(vec![Request::Barrier { ticket: Ticket(7) }]), []);
        let (_store, mut queue) = mpsc::channel(1);
        let (feed, mut items) = mpsc::channel(1);
        let (to_quorum, mut sent) = mpsc::channel(1);
        // The store has not read its feed.
        feed.send(Vec::new()).await.unwrap();
        for links in 0..2 {
            let (parked, queue, to_quorum) = (&mut parked, &mut queue, to_quorum.clone());
            let requests = Requests { parked, queue, feed: &feed, tickets: &tickets, to_quorum };
            let mut run = pin!(requests.run());
            assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(sent.try_recv().is_ok(), links == 1);
            let _ = items.try_recv();
        }
        assert_eq!(lock(&tickets).lose(), [FeedItem::Lost { ticket: Ticket(7) }]);
    }
}
