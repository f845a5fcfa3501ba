//! What an attached store reads.

use std::collections::VecDeque;

use api::Zxid;
use api::ports::{Feed, FeedItem, PortClosed, Sign, Signs};
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};
use telemetry::metrics;
use tokio::sync::mpsc;

use crate::driver::{Event, Links};
use crate::leader_link::blocking;
use crate::outbox::{Item, Outbox};
use crate::view::LogView;

/// Entries handed over at once, by weight.
const BATCH_BYTES: usize = 1 << 20;
/// Things told besides commits; a store that lets so many lie has stopped, and has to attach again.
pub(crate) const FEED_LIMIT: usize = 1 << 20;

/// What the driver tells the store. Entries are not in here: the store reads them from the log when it is ready.
pub(crate) enum Tell {
    Committed { upto: Zxid },
    Item(FeedItem),
}

pub(crate) type FeedQueue = Outbox<Tell>;

impl Item for Tell {
    fn merge(queue: &mut VecDeque<Tell>, new: Tell) -> Option<Tell> {
        match (new, queue.back_mut()) {
            (Tell::Committed { upto }, Some(Tell::Committed { upto: last })) => {
                *last = upto;
                None
            }
            (new, _) => Some(new),
        }
    }
}

/// Signs that the store has not read. What comes when they are full is lost, and told again by whoever misses the answer.
pub(crate) const SIGNS_LIMIT: usize = 1024;

/// The signs of life for one store; see [`api::ports::Quorum::attach`].
pub struct SignQueue(pub(crate) mpsc::Receiver<Sign>);

impl Signs for SignQueue {
    async fn next(&mut self) -> Option<Sign> {
        self.0.recv().await
    }
}

/// The feed of one store; see [`api::ports::Quorum::attach`].
pub struct LogFeed {
    queue: FeedQueue,
    /// Taken out of the queue and not carried out yet.
    tells: VecDeque<Tell>,
    /// Everything up to here was handed over.
    position: Zxid,
    /// A snapshot that is being handed over.
    snapshot: Option<SnapshotReader>,
    view: LogView,
    snapshots: Snapshots,
    links: Links,
}

impl LogFeed {
    pub(crate) fn new(
        queue: FeedQueue,
        after: Zxid,
        view: LogView,
        snapshots: Snapshots,
        links: Links,
    ) -> LogFeed {
        metrics::QUORUM_STORES.inc();
        LogFeed { queue, tells: VecDeque::new(), position: after, snapshot: None, view, snapshots, links }
    }

    /// Reads towards `upto`; empty when it is reached.
    async fn entries(&mut self, upto: Zxid) -> Result<Vec<FeedItem>, PortClosed> {
        if self.position >= upto {
            // A store may be ahead of the commits known here since the start, but not of the log: then this node's log
            // was lost, and what the store has may not be what the ensemble has.
            if self.view.contains(self.position) || self.position == upto {
                return Ok(Vec::new());
            }
            return self.start_over().await;
        }
        match self.view.read_after(self.position, upto, BATCH_BYTES).await {
            Ok(entries) => {
                let Some(last) = entries.last() else {
                    return Err(PortClosed(format!("the log ends before {upto}, which is committed")));
                };
                self.position = last.zxid;
                Ok(vec![FeedItem::Committed(entries)])
            }
            Err(ReadError::Purged { .. } | ReadError::NotThere { .. }) => self.start_over().await,
            Err(ReadError::Log(error)) => Err(self.fail(&error)),
        }
    }

    /// Stops the node, also if the store is another process: it would attach again and again.
    fn fail(&self, error: &dyn std::error::Error) -> PortClosed {
        self.links.fail(error.to_string());
        PortClosed(error.to_string())
    }

    /// The store's state does not connect to the log: it gets a whole one.
    async fn start_over(&mut self) -> Result<Vec<FeedItem>, PortClosed> {
        loop {
            let zxid = self.snapshots.latest().unwrap_or(Zxid::ZERO);
            tracing::info!(store = %self.position, snapshot = %zxid, "the store starts over from a snapshot");
            if zxid == Zxid::ZERO && !self.view.contains(zxid) {
                // Not even an empty state connects to the log.
                self.links.send(Event::Forsaken).await;
                // It stops when it has noted that; a store that went first would end the node before.
                while self.queue.take().await.is_some() {}
                return Err(PortClosed("no snapshot is left from which the log could go on".into()));
            }
            if zxid == Zxid::ZERO {
                self.position = zxid;
                return Ok(vec![FeedItem::SnapshotStart { zxid }, FeedItem::SnapshotEnd]);
            }
            let snapshots = self.snapshots.clone();
            match blocking(move || snapshots.read(zxid)).await {
                Ok(reader) => {
                    self.position = zxid;
                    self.snapshot = Some(reader);
                    return Ok(vec![FeedItem::SnapshotStart { zxid }]);
                }
                // It no longer counts, so the next look finds an older one.
                Err(SnapshotError::Damaged { .. } | SnapshotError::NotThere { .. }) => {}
                Err(error) => return Err(self.fail(&error)),
            }
        }
    }

    async fn snapshot_piece(&mut self, mut reader: SnapshotReader) -> Result<Vec<FeedItem>, PortClosed> {
        let (reader, chunk) = blocking(move || {
            let chunk = reader.next_chunk();
            (reader, chunk)
        })
        .await;
        match chunk {
            Ok(Some(chunk)) => {
                self.snapshot = Some(reader);
                Ok(vec![FeedItem::SnapshotChunk(chunk)])
            }
            Ok(None) => Ok(vec![FeedItem::SnapshotEnd]),
            Err(SnapshotError::Damaged { .. }) => self.start_over().await,
            Err(error) => Err(self.fail(&error)),
        }
    }
}

impl Feed for LogFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, PortClosed> {
        loop {
            if let Some(reader) = self.snapshot.take() {
                return self.snapshot_piece(reader).await;
            }
            if self.tells.is_empty() {
                self.tells = self.queue.take().await.ok_or_else(|| {
                    PortClosed("the quorum service has stopped, or another store has attached".into())
                })?;
            }
            if let Some(&Tell::Committed { upto }) = self.tells.front() {
                let items = self.entries(upto).await?;
                if !items.is_empty() {
                    return Ok(items);
                }
                self.tells.pop_front();
            }
            let mut items = Vec::new();
            while let Some(Tell::Item(_)) = self.tells.front()
                && let Some(Tell::Item(item)) = self.tells.pop_front()
            {
                items.push(item);
            }
            if !items.is_empty() {
                return Ok(items);
            }
        }
    }
}

impl Drop for LogFeed {
    fn drop(&mut self) {
        metrics::QUORUM_STORES.dec();
        self.queue.close();
    }
}
