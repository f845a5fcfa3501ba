//! The connection between the driver and the quorum: no task in between, the driver polls it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use api::{
    Entry, Zxid,
    ports::{Chunks, Feed, FeedItem, PortClosed, Quorum, Sign, Signs as _},
};
use bytes::Bytes;
use spans::{Kind, Scope, Span};
use store_core::server::Ask;
use store_shell::{Decoder, FromQuorum, encode};
use tokio::sync::{mpsc, oneshot};

use crate::{StopReason, hash_seed};

/// Queue length for signs of life between the quorum and the driver.
const SIGN_QUEUE: usize = 64;
/// Number of entries that take about 0.2 ms to apply.
const MANY: usize = 64;

/// A message from the quorum, and the spans of its traced entries, which end when all of it is applied.
pub(crate) type Said = (FromQuorum, Vec<Span>);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The feed of the quorum. It delivers on demand of the driver, so a slow driver throttles it.
pub(crate) struct Attached<F> {
    feed: Boxed<Result<Given<F>, StopReason>>,
    /// Remaining messages of the last batch.
    ready: VecDeque<Said>,
}

/// The result of one read of the feed.
struct Given<F> {
    feed: F,
    decoder: Decoder,
    said: Vec<FromQuorum>,
    spans: Vec<Span>,
    many: bool,
}

impl<F: Feed> Attached<F> {
    /// Attaches after this entry. Also returns the signs of life; their queue holds [`SIGN_QUEUE`].
    pub(crate) fn new<Q: Quorum<Feed = F>>(quorum: Q, after: Zxid) -> (Attached<F>, mpsc::Receiver<Sign>) {
        let (signs_to_driver, signs_in) = mpsc::channel(SIGN_QUEUE);
        let feed = Box::pin(async move {
            let (feed, mut signs) = quorum.attach(after).await?;
            // A separate task, because the driver may be busy with a large snapshot. It ends with the feed.
            tokio::spawn(async move {
                while let Some(sign) = signs.next().await {
                    if signs_to_driver.send(sign).await.is_err() {
                        return;
                    }
                }
            });
            look(feed, Decoder::new(hash_seed()), false).await
        });
        (Attached { feed, ready: VecDeque::new() }, signs_in)
    }

    /// The next message, decoded. The future may be dropped and called again, but not after an error.
    pub(crate) async fn next(&mut self) -> Result<Said, StopReason> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Ok(said);
            }
            let Given { feed, decoder, said, spans, many } = self.feed.as_mut().await?;
            self.feed = Box::pin(look(feed, decoder, many));
            self.ready.extend(said.into_iter().map(|said| (said, Vec::new())));
            if let Some((_, of_last)) = self.ready.back_mut() {
                *of_last = spans;
            }
        }
    }

    /// A feed that delivers these messages and then nothing.
    #[cfg(test)]
    pub(crate) fn giving(said: impl IntoIterator<Item = FromQuorum>) -> Attached<F> {
        let ready = said.into_iter().map(|said| (said, Vec::new())).collect();
        Attached { feed: Box::pin(std::future::pending()), ready }
    }
}

/// Reads the feed once. `many`: the last read was large, so other tasks, including the quorum itself,
/// have their turn first.
async fn look<F: Feed>(mut feed: F, mut decoder: Decoder, many: bool) -> Result<Given<F>, StopReason> {
    match many {
        true => tokio::task::yield_now().await,
        false => tokio::task::consume_budget().await,
    }
    let items = feed.next().await?;
    let many = items.iter().any(|item| match item {
        FeedItem::Committed(entries) => entries.len() >= MANY,
        FeedItem::SnapshotChunk(_) => true,
        _ => false,
    });
    let spans = items.iter().flat_map(applying).collect();
    // The start of one drops another that is incomplete.
    use FeedItem::{SnapshotChunk, SnapshotEnd, SnapshotStart};
    let snapshot =
        items.iter().any(|item| matches!(item, SnapshotStart { .. } | SnapshotChunk(_) | SnapshotEnd));
    let decode = move || {
        let said = decoder.decode(items);
        (decoder, said)
    };
    // A piece takes tens of milliseconds and the final checks of a large state a second. Other services
    // share this thread, and their heartbeats must not wait.
    let (decoder, said) = match snapshot {
        true => tokio::task::spawn_blocking(decode)
            .await
            .map_err(|e| StopReason::Invariant(format!("the task that reads a snapshot has died: {e}")))?,
        false => decode(),
    };
    Ok(Given { feed, decoder, said: said?, spans, many })
}

/// A batch that the quorum has not accepted yet.
pub(crate) struct Asking(Option<Boxed<Result<(), PortClosed>>>);

impl Asking {
    pub(crate) fn nothing() -> Asking {
        Asking(None)
    }

    /// Whether the last batch is still pending.
    pub(crate) fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// Sends a batch, when [nothing waits](Asking::waits).
    pub(crate) fn begin<Q: Quorum>(&mut self, quorum: &Q, asks: Vec<Ask>) {
        let (quorum, batch) = (quorum.clone(), encode(asks));
        let mut asking: Boxed<_> = Box::pin(async move { quorum.request(batch).await });
        // The quorum usually has room.
        match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(error) => self.0 = Some(Box::pin(std::future::ready(error))),
            Poll::Pending => self.0 = Some(asking),
        }
    }

    /// Resolves when the quorum has accepted the pending batch; never without one. May be dropped and
    /// called again.
    pub(crate) async fn taken(&mut self) -> Result<(), PortClosed> {
        let Some(asking) = &mut self.0 else { return std::future::pending().await };
        let taken = asking.await;
        self.0 = None;
        taken
    }
}

/// The pieces of a snapshot from the checkpoint thread.
pub(crate) struct Pieces {
    /// `None` after the last piece.
    rest: mpsc::Receiver<Option<Bytes>>,
    /// Bytes taken so far.
    bytes: u64,
    /// Receives the size of the whole snapshot.
    whole: Option<oneshot::Sender<u64>>,
    at_least: u64,
}

impl Pieces {
    /// Also returns a receiver for the size of the snapshot, which is known once all pieces are taken.
    pub(crate) fn new(
        rest: mpsc::Receiver<Option<Bytes>>,
        at_least: u64,
    ) -> (Pieces, oneshot::Receiver<u64>) {
        let (whole, size) = oneshot::channel();
        (Pieces { rest, bytes: 0, whole: Some(whole), at_least }, size)
    }
}

impl Chunks for Pieces {
    async fn next(&mut self) -> Option<Bytes> {
        // A stream without an end is not a valid snapshot and must not become one: the driver ends the task.
        let Some(piece) = self.rest.recv().await else { return std::future::pending().await };
        match (&piece, self.whole.take_if(|_| piece.is_none())) {
            (Some(piece), _) => self.bytes += piece.len() as u64,
            // The receiver may be gone.
            (None, Some(whole)) => drop(whole.send(self.bytes)),
            (None, None) => {}
        }
        piece
    }

    fn at_least(&self) -> u64 {
        self.at_least
    }
}

/// The spans of traced entries, from their arrival until they are applied.
fn applying(item: &FeedItem) -> Vec<Span> {
    let FeedItem::Committed(entries) = item else { return Vec::new() };
    let span = |entry: &Entry| {
        let mut span = Span::below(entry.trace.as_deref()?, Scope::Store, "store.apply", Kind::Internal);
        span.set("quorate.zxid", entry.zxid.to_string());
        Some(span)
    };
    entries.iter().filter_map(span).collect()
}
