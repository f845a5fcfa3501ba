//! Between the driver and the quorum: payloads are decoded, encoded and waited for in tasks of their own.

use api::{
    Body, Entry, Zxid,
    ports::{Chunks, Feed as _, FeedItem, Quorum, Request, Sign, Signs as _},
};
use bytes::Bytes;
use proto::store::{RecordDecoder, decode_command, encode_command};
use spans::{Kind, Scope, Span};
use store_core::{
    Loader, State,
    server::{Ask, Committed, Feed},
};
use tokio::sync::{mpsc, oneshot};

use crate::StopReason;

/// Messages between the feed and the driver. Each is what the quorum gave at once; a slow driver holds the feed back.
pub(crate) const FEED_QUEUE: usize = 8;
/// Signs of life between the quorum and the driver.
pub(crate) const SIGN_QUEUE: usize = 64;
/// Batches between the driver and the quorum. When they are full, the driver reads no more from clients.
pub(crate) const ASK_QUEUE: usize = 4;

/// What the quorum says, decoded.
pub(crate) enum FromQuorum {
    /// In this order.
    Feed {
        /// What it says.
        items: Vec<Feed>,
        /// How much the entries among them weigh in the log, in bytes.
        log_bytes: u64,
        /// Of the entries that are traced; they end when all of this is applied.
        spans: Vec<Span>,
    },
    /// A snapshot is to be saved now.
    SnapshotWanted,
    /// A snapshot that takes the place of the state.
    State {
        /// Checked against its digest. The checkpoint knows nothing of it.
        state: Box<State>,
        /// The size of the snapshot.
        bytes: u64,
    },
}

/// Attaches behind `after` and passes on what comes, decoded, until the driver is gone.
pub(crate) async fn read_feed<Q: Quorum>(
    quorum: Q,
    after: Zxid,
    driver: mpsc::Sender<FromQuorum>,
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
    let mut snapshot: Option<Incoming> = None;
    loop {
        let (mut items, mut log_bytes, mut spans) = (Vec::new(), 0, Vec::new());
        for item in feed.next().await? {
            items.push(match item {
                FeedItem::Committed(entries) => {
                    spans.extend(entries.iter().filter_map(applying));
                    log_bytes += entries.iter().map(|e| e.weight() as u64).sum::<u64>();
                    Feed::Committed(entries.into_iter().map(decode).collect::<Result<_, _>>()?)
                }
                FeedItem::Status(status) => Feed::Status(status),
                FeedItem::Barrier { ticket } => Feed::Barrier(ticket),
                FeedItem::Refused { ticket, why } => Feed::Refused { ticket, why },
                FeedItem::Lost { ticket } => Feed::Lost(ticket),
                FeedItem::SnapshotWanted => {
                    if driver.send(FromQuorum::SnapshotWanted).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                FeedItem::SnapshotStart { zxid } => {
                    snapshot = Some(Incoming::new(zxid));
                    continue;
                }
                FeedItem::SnapshotChunk(piece) => {
                    snapshot.as_mut().ok_or_else(unexpected)?.piece(piece)?;
                    continue;
                }
                FeedItem::SnapshotEnd => {
                    let (state, bytes) = snapshot.take().ok_or_else(unexpected)?.finish()?;
                    if !items.is_empty() {
                        let items = std::mem::take(&mut items);
                        let spans = std::mem::take(&mut spans);
                        if driver.send(FromQuorum::Feed { items, log_bytes, spans }).await.is_err() {
                            return Ok(());
                        }
                        log_bytes = 0;
                    }
                    if driver.send(FromQuorum::State { state: Box::new(state), bytes }).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
            });
        }
        if !items.is_empty() && driver.send(FromQuorum::Feed { items, log_bytes, spans }).await.is_err() {
            return Ok(());
        }
    }
}

/// Passes on what the driver asks, encoded, until the driver is gone.
pub(crate) async fn write_asks<Q: Quorum>(
    quorum: Q,
    mut driver: mpsc::Receiver<Vec<Ask>>,
) -> Result<(), StopReason> {
    while let Some(asks) = driver.recv().await {
        let batch = asks.into_iter().map(|ask| match ask {
            Ask::Submit { ticket, command, trace } => {
                Request::Submit { ticket, payload: encode_command(command), trace }
            }
            Ask::Barrier { ticket } => Request::Barrier { ticket },
            Ask::Report(report) => Request::Report(report),
            Ask::Confirm { to, epoch, report } => Request::Confirm { to, epoch, report },
        });
        quorum.request(batch.collect()).await?;
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

/// The span of a traced entry, from when it came until it is applied.
fn applying(entry: &Entry) -> Option<Span> {
    let mut span = Span::below(entry.trace.as_deref()?, Scope::Store, "store.apply", Kind::Internal);
    span.set("quorate.zxid", entry.zxid.to_string());
    Some(span)
}

fn decode(entry: Entry) -> Result<Committed, StopReason> {
    let Entry { zxid, time_ms, origin, body, .. } = entry;
    let (level, command) = match body {
        Body::Marker(level) | Body::Level(level) => (Some(level), None),
        // To leave it out would be to have another state than nodes that can read it.
        Body::Store(payload) => {
            let command = decode_command(payload).map_err(|e| {
                StopReason::Invariant(format!(
                    "entry {zxid} cannot be read: {e}; if other nodes run a newer version, upgrade this one"
                ))
            })?;
            (None, Some(command))
        }
    };
    Ok(Committed { zxid, time_ms, origin, level, command })
}

fn unexpected() -> StopReason {
    StopReason::Invariant("a piece of a snapshot came outside of one".into())
}

/// A snapshot on its way in.
pub(crate) struct Incoming {
    zxid: Zxid,
    decoder: RecordDecoder,
    loader: Loader,
    bytes: u64,
}

impl Incoming {
    pub(crate) fn new(zxid: Zxid) -> Incoming {
        tracing::info!(%zxid, "the state comes as a snapshot");
        Incoming { zxid, decoder: RecordDecoder::default(), loader: Loader::default(), bytes: 0 }
    }

    pub(crate) fn piece(&mut self, piece: Bytes) -> Result<(), StopReason> {
        self.decoder.push(&piece);
        self.bytes += piece.len() as u64;
        while let Some(record) = self.decoder.next_record().map_err(|e| self.damaged(&e))? {
            self.loader.take(record).map_err(|e| self.damaged(&e))?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(State, u64), StopReason> {
        let zxid = self.zxid;
        if zxid == Zxid::ZERO && self.bytes == 0 {
            let mut state = State::default();
            state.forget_checkpoint();
            return Ok((state, 0));
        }
        let damaged = |e: &dyn std::fmt::Display| damaged(zxid, e);
        self.decoder.finish().map_err(|e| damaged(&e))?;
        let mut state = self.loader.finish().map_err(|e| damaged(&e))?;
        if state.applied() != zxid {
            return Err(damaged(&format!("it is the state at {}", state.applied())));
        }
        state.forget_checkpoint();
        Ok((state, self.bytes))
    }

    fn damaged(&self, why: &dyn std::fmt::Display) -> StopReason {
        damaged(self.zxid, why)
    }
}

fn damaged(zxid: Zxid, why: &dyn std::fmt::Display) -> StopReason {
    StopReason::Invariant(format!("the snapshot at {zxid} is damaged: {why}"))
}
