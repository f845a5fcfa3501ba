//! Translates between the port of the quorum and the inputs and outputs of the core.

use api::{
    Body, CommandBody, Entry, Write,
    ports::{FeedItem, Request},
};
use proto::store::{decode_command, encode_command};
use store_core::{
    State,
    server::{Ask, Committed, Feed},
};

use crate::{Fault, Incoming};

/// A decoded message of the quorum.
#[derive(Debug)]
pub enum FromQuorum {
    /// Inputs for the core, in this order.
    Feed {
        /// The inputs.
        items: Vec<Feed>,
        /// Number of entries among them.
        entries: u64,
        /// Size of these entries in the log, in bytes.
        log_bytes: u64,
    },
    /// Save a snapshot now.
    SnapshotWanted,
    /// A snapshot that replaces the state.
    State {
        /// The state, verified by its digest. It is not in the checkpoint yet.
        state: Box<State>,
        /// The size of the snapshot.
        bytes: u64,
    },
}

/// Decodes one feed.
#[derive(Debug)]
pub struct Decoder {
    seed: u64,
    /// The snapshot that is being received.
    snapshot: Option<Incoming>,
}

impl Decoder {
    /// States that arrive as snapshots get this [seed](State::seeded).
    #[must_use]
    pub fn new(seed: u64) -> Decoder {
        Decoder { seed, snapshot: None }
    }

    /// Decodes one batch of the feed, usually into one message. A message ends after an entry that may
    /// take long to apply, so that other work of the node can come in between.
    ///
    /// # Errors
    /// An item is unreadable. Skipping it would lead to another state than on nodes that can read it.
    pub fn decode(&mut self, said: Vec<FeedItem>) -> Result<Vec<FromQuorum>, Fault> {
        let (mut out, mut next) = (Vec::new(), Batch::default());
        for item in said {
            let whole = match item {
                FeedItem::Committed(entries) => {
                    for entry in entries {
                        if next.push(entry)? {
                            out.extend(next.take());
                        }
                    }
                    continue;
                }
                FeedItem::Status(status) => {
                    next.push_item(Feed::Status(status));
                    continue;
                }
                FeedItem::Barrier { ticket } => {
                    next.push_item(Feed::Barrier(ticket));
                    continue;
                }
                FeedItem::Refused { ticket, why } => {
                    next.push_item(Feed::Refused { ticket, why });
                    continue;
                }
                FeedItem::Lost { ticket } => {
                    next.push_item(Feed::Lost(ticket));
                    continue;
                }
                // An incomplete snapshot is useless.
                FeedItem::SnapshotStart { zxid } => {
                    self.snapshot = Some(Incoming::new(zxid, self.seed));
                    continue;
                }
                FeedItem::SnapshotChunk(piece) => {
                    self.snapshot.as_mut().ok_or_else(unexpected)?.piece(&piece)?;
                    continue;
                }
                FeedItem::SnapshotWanted => FromQuorum::SnapshotWanted,
                FeedItem::SnapshotEnd => {
                    let (state, bytes) = self.snapshot.take().ok_or_else(unexpected)?.finish()?;
                    FromQuorum::State { state: Box::new(state), bytes }
                }
            };
            out.extend(next.take());
            out.push(whole);
        }
        out.extend(next.take());
        Ok(out)
    }
}

/// The next [`FromQuorum::Feed`].
#[derive(Default)]
struct Batch {
    items: Vec<Feed>,
    /// Entries after `items`.
    committed: Vec<Committed>,
    entries: u64,
    log_bytes: u64,
}

impl Batch {
    /// Adds an entry. Returns true if it may take long to apply.
    fn push(&mut self, entry: Entry) -> Result<bool, Fault> {
        self.entries += 1;
        self.log_bytes += entry.weight() as u64;
        let entry = decode(entry)?;
        let body = entry.command.as_ref().map(|command| &command.body);
        let long =
            matches!(body, Some(CommandBody::CloseSession { .. } | CommandBody::Write(Write::DeleteTree(_))));
        self.committed.push(entry);
        Ok(long)
    }

    fn push_item(&mut self, item: Feed) {
        self.end_entries();
        self.items.push(item);
    }

    fn end_entries(&mut self) {
        if !self.committed.is_empty() {
            self.items.push(Feed::Committed(std::mem::take(&mut self.committed)));
        }
    }

    /// The message so far, if there is any.
    fn take(&mut self) -> Option<FromQuorum> {
        self.end_entries();
        let Batch { items, entries, log_bytes, .. } = std::mem::take(self);
        (!items.is_empty()).then_some(FromQuorum::Feed { items, entries, log_bytes })
    }
}

/// Decodes an entry of the log.
///
/// # Errors
/// The entry is unreadable.
pub fn decode(entry: Entry) -> Result<Committed, Fault> {
    let Entry { zxid, time_ms, origin, body, .. } = entry;
    let (level, command) = match body {
        Body::Marker(level) | Body::Level(level) => (Some(level), None),
        // The quorum's own.
        Body::Members(_) => (None, None),
        Body::Store(payload) => {
            let command = decode_command(payload).map_err(|e| {
                Fault(format!(
                    "entry {zxid} cannot be read: {e}; if other nodes run a newer version, upgrade this one"
                ))
            })?;
            (None, Some(command))
        }
    };
    Ok(Committed { zxid, time_ms, origin, level, command })
}

/// Encodes the requests of the core to the quorum, in the same order.
#[must_use]
pub fn encode(asks: Vec<Ask>) -> Vec<Request> {
    let encode = |ask| match ask {
        Ask::Submit { ticket, command, trace } => {
            Request::Submit { ticket, payload: encode_command(command), trace }
        }
        Ask::Barrier { ticket } => Request::Barrier { ticket },
        Ask::Report(report) => Request::Report(report),
        Ask::Confirm { to, epoch, report } => Request::Confirm { to, epoch, report },
    };
    asks.into_iter().map(encode).collect()
}

fn unexpected() -> Fault {
    Fault("a piece of a snapshot came outside of one".into())
}
