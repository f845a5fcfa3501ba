//! Between the driver and the quorum: no task stands there, the driver polls what it waits for.

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

/// Signs of life between the quorum and the driver.
const SIGN_QUEUE: usize = 64;
/// So many entries take about 0.2 ms to apply.
const MANY: usize = 64;

/// What the quorum says, and the spans of the traced entries in it, which end when all of it is applied.
pub(crate) type Said = (FromQuorum, Vec<Span>);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the quorum gives a store. It gives more when the driver asks, so a slow driver holds it back.
pub(crate) struct Attached<F> {
    feed: Boxed<Result<Given<F>, StopReason>>,
    /// Of what was given at once.
    ready: VecDeque<Said>,
}

/// What one look at the feed has given.
struct Given<F> {
    feed: F,
    decoder: Decoder,
    said: Vec<FromQuorum>,
    spans: Vec<Span>,
    many: bool,
}

impl<F: Feed> Attached<F> {
    /// Behind this entry; and the signs of life, of which as many wait as [`SIGN_QUEUE`] says.
    pub(crate) fn new<Q: Quorum<Feed = F>>(quorum: Q, after: Zxid) -> (Attached<F>, mpsc::Receiver<Sign>) {
        let (signs_to_driver, signs_in) = mpsc::channel(SIGN_QUEUE);
        let feed = Box::pin(async move {
            let (feed, mut signs) = quorum.attach(after).await?;
            // By itself, because the driver may have a large snapshot to take. Ends with the feed.
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

    /// What comes next, decoded. May be dropped and called again, but not behind an error.
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

    /// One whose feed gives this, and then nothing.
    #[cfg(test)]
    pub(crate) fn giving(said: impl IntoIterator<Item = FromQuorum>) -> Attached<F> {
        let ready = said.into_iter().map(|said| (said, Vec::new())).collect();
        Attached { feed: Box::pin(std::future::pending()), ready }
    }
}

/// `many`: the last look gave so much that others shall have their turn first, the quorum itself among them.
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
    let said = decoder.decode(items)?;
    Ok(Given { feed, decoder, said, spans, many })
}

/// A batch on its way to the quorum, if it does not take it at once.
pub(crate) struct Asking(Option<Boxed<Result<(), PortClosed>>>);

impl Asking {
    pub(crate) fn nothing() -> Asking {
        Asking(None)
    }

    /// Whether the quorum has still to take what was asked last.
    pub(crate) fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// Asks, when [nothing waits](Asking::waits).
    pub(crate) fn begin<Q: Quorum>(&mut self, quorum: &Q, asks: Vec<Ask>) {
        let (quorum, batch) = (quorum.clone(), encode(asks));
        let mut asking: Boxed<_> = Box::pin(async move { quorum.request(batch).await });
        // Most often it has room.
        match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(error) => self.0 = Some(Box::pin(std::future::ready(error))),
            Poll::Pending => self.0 = Some(asking),
        }
    }

    /// Resolves when the quorum has taken what waits; never if nothing does. May be dropped and called again.
    pub(crate) async fn taken(&mut self) -> Result<(), PortClosed> {
        let Some(asking) = &mut self.0 else { return std::future::pending().await };
        let taken = asking.await;
        self.0 = None;
        taken
    }
}

/// The pieces of a snapshot as they come from the checkpoint thread.
pub(crate) struct Pieces {
    /// `None` behind the last.
    rest: mpsc::Receiver<Option<Bytes>>,
    /// Of those that were taken.
    bytes: u64,
    /// For whoever wants to know the size of the whole.
    whole: Option<oneshot::Sender<u64>>,
    at_least: u64,
}

impl Pieces {
    /// Also says how large the snapshot was, once all pieces are taken.
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
        // Without an end it is no snapshot, and must not be taken for one: the driver ends the task.
        let Some(piece) = self.rest.recv().await else { return std::future::pending().await };
        match (&piece, self.whole.take_if(|_| piece.is_none())) {
            (Some(piece), _) => self.bytes += piece.len() as u64,
            // Whoever asked may have gone.
            (None, Some(whole)) => drop(whole.send(self.bytes)),
            (None, None) => {}
        }
        piece
    }

    fn at_least(&self) -> u64 {
        self.at_least
    }
}

/// The spans of traced entries, from when they came until they are applied.
fn applying(item: &FeedItem) -> Vec<Span> {
    let FeedItem::Committed(entries) = item else { return Vec::new() };
    let span = |entry: &Entry| {
        let mut span = Span::below(entry.trace.as_deref()?, Scope::Store, "store.apply", Kind::Internal);
        span.set("quorate.zxid", entry.zxid.to_string());
        Some(span)
    };
    entries.iter().filter_map(span).collect()
}
