//! The feed of an attached store.

use std::collections::VecDeque;

use api::Zxid;
use api::mutants::{Mutant, is_on};
use api::ports::FeedItem;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};

use crate::{Failure, Got, LogView, Read};

/// A message to the store. It contains no entries: the feed reads them from the log when the store is
/// ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tell {
    /// The store may read the log up to here.
    Committed {
        /// The last such entry.
        upto: Zxid,
    },
    /// Any other item.
    Item(FeedItem),
}

impl Tell {
    /// Merges `new` into the last element, so that the queue does not grow. Returns `new` if that is
    /// impossible.
    pub fn merge(queue: &mut VecDeque<Tell>, new: Tell) -> Option<Tell> {
        match (new, queue.back_mut()) {
            (Tell::Committed { upto }, Some(Tell::Committed { upto: last })) => {
                *last = upto;
                None
            }
            (new, _) => Some(new),
        }
    }
}

/// The position of one store in the log, and its next items.
pub struct Feed {
    /// Messages that are not processed yet.
    tells: VecDeque<Tell>,
    /// The last zxid handed over to the store.
    position: Zxid,
    /// The snapshot that is being handed over.
    snapshot: Option<SnapshotReader>,
}

/// The next action for the store.
pub enum Step {
    /// Wait until [`Feed::told`] adds a message.
    Wait,
    /// Hand over these items.
    Give(Vec<FeedItem>),
    /// Read this, and return the result to [`Feed::got`].
    Read(Read),
    /// Neither a sound snapshot nor an empty state connects to the log:
    /// [forsake](crate::Shell::forsake) the store. It gets nothing more.
    Forsake,
}

impl Feed {
    /// Creates a feed for a store that has applied everything up to `after`.
    #[must_use]
    pub fn new(after: Zxid) -> Feed {
        Feed { tells: VecDeque::new(), position: after, snapshot: None }
    }

    /// The last zxid handed over to the store.
    #[must_use]
    pub fn position(&self) -> Zxid {
        self.position
    }

    /// Appends a message.
    pub fn told(&mut self, tell: Tell) {
        let left = Tell::merge(&mut self.tells, tell);
        self.tells.extend(left);
    }

    /// The next action.
    pub fn poll(&mut self, view: &LogView, snapshots: &Snapshots) -> Step {
        if let Some(reader) = self.snapshot.take() {
            return Step::Read(Read::Piece(reader));
        }
        while let Some(&Tell::Committed { upto }) = self.tells.front() {
            if self.position < upto {
                return Step::Read(Read::Entries { after: self.position, upto });
            }
            // A store may be ahead of the commits that this server knows since its start, but never
            // ahead of the log. If it is, this node's log was lost, and the store's state may differ
            // from that of the ensemble.
            if !view.contains(self.position) && self.position != upto {
                return self.start_over(view, snapshots);
            }
            self.tells.pop_front();
        }
        let mut items = Vec::new();
        while let Some(Tell::Item(_)) = self.tells.front()
            && let Some(Tell::Item(item)) = self.tells.pop_front()
        {
            items.push(item);
        }
        if items.is_empty() { Step::Wait } else { Step::Give(items) }
    }

    /// Processes the result of a read.
    ///
    /// # Errors
    /// The node has to stop, even if the store is another process: otherwise it would attach again and
    /// again.
    pub fn got(&mut self, got: Got, view: &LogView, snapshots: &Snapshots) -> Result<Step, Failure> {
        match got {
            Got::Entries { upto, entries: Ok(entries), .. } => {
                self.position = entries.last().ok_or(Failure::Short { upto })?.zxid;
                Ok(Step::Give(vec![FeedItem::Committed(entries)]))
            }
            Got::Entries { entries: Err(ReadError::Purged { base, .. }), .. } if is_on(Mutant::StoreSkipsPurged) => {
                self.position = base;
                Ok(self.poll(view, snapshots))
            }
            Got::Entries { entries: Err(ReadError::Log(error)), .. } => Err(error.into()),
            Got::Opened(zxid, Ok(reader)) => {
                (self.position, self.snapshot) = (zxid, Some(reader));
                Ok(Step::Give(vec![FeedItem::SnapshotStart { zxid }]))
            }
            Got::Piece(reader, Ok(Some(piece))) => {
                self.snapshot = Some(reader);
                Ok(Step::Give(vec![FeedItem::SnapshotChunk(piece)]))
            }
            Got::Piece(_, Ok(None)) => Ok(Step::Give(vec![FeedItem::SnapshotEnd])),
            Got::Entries { entries: Err(ReadError::Purged { .. } | ReadError::NotThere { .. }), .. }
            // The damaged snapshot no longer counts, so the next attempt finds an older one.
            | Got::Opened(_, Err(SnapshotError::Damaged { .. } | SnapshotError::NotThere { .. }))
            | Got::Piece(_, Err(SnapshotError::Damaged { .. })) => Ok(self.start_over(view, snapshots)),
            Got::Opened(_, Err(error)) | Got::Piece(_, Err(error)) => Err(error.into()),
        }
    }

    /// Restarts the store from a whole state, because its own does not connect to the log.
    fn start_over(&mut self, view: &LogView, snapshots: &Snapshots) -> Step {
        let zxid = snapshots.latest().unwrap_or(Zxid::ZERO);
        if !view.contains(zxid) {
            // If the log already stands on a received snapshot, that snapshot is about to count.
            // Otherwise nothing connects to the log, not even an empty state, and an older snapshot
            // would be handed over again and again.
            let awaited = snapshots.received().is_some_and(|received| view.contains(received.zxid));
            return if awaited { Step::Wait } else { Step::Forsake };
        }
        tracing::info!(store = %self.position, snapshot = %zxid, "the store starts over from a snapshot");
        if zxid != Zxid::ZERO {
            return Step::Read(Read::Open(zxid));
        }
        self.position = zxid;
        Step::Give(vec![FeedItem::SnapshotStart { zxid }, FeedItem::SnapshotEnd])
    }
}
