//! The feed that an attached store reads.

use std::collections::VecDeque;

use api::Zxid;
use api::ports::{Feed, FeedItem, PortClosed, Sign, Signs};
use quorum_log::Snapshots;
use quorum_shell::{Failure, LogView, Step, Tell};
use telemetry::metrics;
use tokio::sync::mpsc;

use crate::driver::{Event, Links};
use crate::leader_link::read;
use crate::outbox::{Item, Outbox};

/// Maximum weight of the entries in one batch.
const BATCH_BYTES: usize = 1 << 20;
/// Maximum number of queued items besides commits. A store that leaves so many unread has stopped, and
/// has to attach again.
pub(crate) const FEED_LIMIT: usize = 1 << 20;

pub(crate) type FeedQueue = Outbox<Tell>;

impl Item for Tell {
    fn merge(queue: &mut VecDeque<Tell>, new: Tell) -> Option<Tell> {
        Tell::merge(queue, new)
    }
}

/// Maximum number of signs of life that the store has not read. Further ones are dropped; the sender
/// repeats them when it gets no answer.
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
    feed: quorum_shell::Feed,
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
        LogFeed { queue, feed: quorum_shell::Feed::new(after), view, snapshots, links }
    }

    /// Stops the node.
    fn fail(&self, failure: &Failure) -> PortClosed {
        self.links.fail(failure.to_string());
        PortClosed(failure.to_string())
    }
}

impl Feed for LogFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, PortClosed> {
        let mut step = self.feed.poll(&self.view, &self.snapshots);
        loop {
            step = match step {
                Step::Give(items) => return Ok(items),
                Step::Read(what) => {
                    let got = read(what, &self.view, &self.snapshots, BATCH_BYTES).await;
                    self.feed.got(got, &self.view, &self.snapshots).map_err(|e| self.fail(&e))?
                }
                Step::Wait => {
                    let tells = self.queue.take().await.ok_or_else(|| {
                        PortClosed("the quorum service has stopped, or another store has attached".into())
                    })?;
                    tells.into_iter().for_each(|tell| self.feed.told(tell));
                    self.feed.poll(&self.view, &self.snapshots)
                }
                Step::Forsake => {
                    self.links.send(Event::Forsaken).await;
                    // The service stops after it has recorded this. A store that ends first would stop
                    // the node before the record is written.
                    while self.queue.take().await.is_some() {}
                    return Err(PortClosed("no snapshot is left from which the log could go on".into()));
                }
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
