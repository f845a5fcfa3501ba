//! What an attached store reads.

use std::collections::VecDeque;

use api::Zxid;
use api::mutants::{Mutant, is_on};
use api::ports::FeedItem;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};

use crate::{Failure, Got, LogView, Read};

/// What the store is told. Entries are not in here: they are read from the log when the store is ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tell {
    /// Up to here it may have the log.
    Committed {
        /// The last such entry.
        upto: Zxid,
    },
    /// All else.
    Item(FeedItem),
}

impl Tell {
    /// Lets the end of the queue take `new` in, so that the queue does not grow; gives it back if it cannot.
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

/// How far one store has come, and what it gets next.
pub struct Feed {
    /// Not carried out yet.
    tells: VecDeque<Tell>,
    /// Everything up to here was handed over.
    position: Zxid,
    /// A snapshot that is being handed over.
    snapshot: Option<SnapshotReader>,
}

/// What to do for the store.
pub enum Step {
    /// Nothing, until more is [told](Feed::told).
    Wait,
    /// Hand this over.
    Give(Vec<FeedItem>),
    /// Read this, and say [what came of it](Feed::got).
    Read(Read),
    /// No sound snapshot, and not even an empty state, connects to the log: [forsake](crate::Shell::forsake) it. The store gets nothing more.
    Forsake,
}

impl Feed {
    /// For a store that has everything up to there.
    #[must_use]
    pub fn new(after: Zxid) -> Feed {
        Feed { tells: VecDeque::new(), position: after, snapshot: None }
    }

    /// Everything up to here was handed over.
    #[must_use]
    pub fn position(&self) -> Zxid {
        self.position
    }

    /// More to tell, behind all else.
    pub fn told(&mut self, tell: Tell) {
        let left = Tell::merge(&mut self.tells, tell);
        self.tells.extend(left);
    }

    /// What comes next.
    pub fn poll(&mut self, view: &LogView, snapshots: &Snapshots) -> Step {
        if let Some(reader) = self.snapshot.take() {
            return Step::Read(Read::Piece(reader));
        }
        while let Some(&Tell::Committed { upto }) = self.tells.front() {
            if self.position < upto {
                return Step::Read(Read::Entries { after: self.position, upto });
            }
            // A store may be ahead of the commits known here since the start, but not of the log: then this node's log
            // was lost, and what the store has may not be what the ensemble has.
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

    /// What came of reading.
    ///
    /// # Errors
    /// The node has to stop, also if the store is another process: it would attach again and again.
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
            // It no longer counts, so the next look finds an older one.
            | Got::Opened(_, Err(SnapshotError::Damaged { .. } | SnapshotError::NotThere { .. }))
            | Got::Piece(_, Err(SnapshotError::Damaged { .. })) => Ok(self.start_over(view, snapshots)),
            Got::Opened(_, Err(error)) | Got::Piece(_, Err(error)) => Err(error.into()),
        }
    }

    /// The store's state does not connect to the log: it gets a whole one.
    fn start_over(&mut self, view: &LogView, snapshots: &Snapshots) -> Step {
        let zxid = snapshots.latest().unwrap_or(Zxid::ZERO);
        if !view.contains(zxid) {
            // One that the log stands on by now is about to count. Else nothing connects to the log, not even an empty state: an older
            // snapshot would be handed over again and again.
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
