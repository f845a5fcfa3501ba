//! Between the driver and the quorum: what is said is decoded, encoded and waited for in tasks of their own.

use api::{
    Entry, Zxid,
    ports::{Chunks, Feed as _, FeedItem, Quorum, Sign, Signs as _},
};
use bytes::Bytes;
use spans::{Kind, Scope, Span};
use store_core::server::Ask;
use store_shell::{Decoder, FromQuorum, encode};
use tokio::sync::{mpsc, oneshot};

use crate::{StopReason, hash_seed};

/// Messages between the feed and the driver. Each is what the quorum gave at once; a slow driver holds the feed back.
pub(crate) const FEED_QUEUE: usize = 8;
/// Signs of life between the quorum and the driver.
pub(crate) const SIGN_QUEUE: usize = 64;
/// Batches between the driver and the quorum. When they are full, the driver reads no more from clients.
pub(crate) const ASK_QUEUE: usize = 4;

/// What the quorum says, and the spans of the traced entries in it, which end when all of it is applied.
pub(crate) type Said = (FromQuorum, Vec<Span>);

/// Attaches behind `after` and passes on what comes, decoded, until the driver is gone.
pub(crate) async fn read_feed<Q: Quorum>(
    quorum: Q,
    after: Zxid,
    driver: mpsc::Sender<Said>,
    signs_to_driver: mpsc::Sender<Sign>,
) -> Result<(), StopReason> {
    let (mut feed, mut signs) = quorum.attach(after).await?;
    // By itself, because this task may have a large snapshot to read. Ends with the feed.
    tokio::spawn(async move {
        while let Some(sign) = signs.next().await {
            if signs_to_driver.send(sign).await.is_err() {
                return;
            }
        }
    });
    let mut decoder = Decoder::new(hash_seed());
    loop {
        let items = feed.next().await?;
        let mut spans: Vec<Span> = items.iter().flat_map(applying).collect();
        let said = decoder.decode(items)?;
        let last = said.len().saturating_sub(1);
        for (i, said) in said.into_iter().enumerate() {
            let spans = if i == last { std::mem::take(&mut spans) } else { Vec::new() };
            if driver.send((said, spans)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Passes on what the driver asks, encoded, until the driver is gone.
pub(crate) async fn write_asks<Q: Quorum>(
    quorum: Q,
    mut driver: mpsc::Receiver<Vec<Ask>>,
) -> Result<(), StopReason> {
    while let Some(asks) = driver.recv().await {
        quorum.request(encode(asks)).await?;
    }
    Ok(())
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
