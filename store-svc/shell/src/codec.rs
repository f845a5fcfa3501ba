//! Translates between the port of the quorum and the inputs and outputs of the core.

use api::{
    Body, Entry,
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

    /// Decodes one batch of the feed, usually into one message.
    ///
    /// # Errors
    /// An item is unreadable. Skipping it would lead to another state than on nodes that can read it.
    pub fn decode(&mut self, said: Vec<FeedItem>) -> Result<Vec<FromQuorum>, Fault> {
        let mut out = Vec::new();
        let (mut items, mut entries, mut log_bytes) = (Vec::new(), 0, 0);
        for item in said {
            let whole = match item {
                FeedItem::Committed(committed) => {
                    entries += committed.len() as u64;
                    log_bytes += committed.iter().map(|e| e.weight() as u64).sum::<u64>();
                    let committed = committed.into_iter().map(decode).collect::<Result<_, _>>()?;
                    items.push(Feed::Committed(committed));
                    continue;
                }
                FeedItem::Status(status) => {
                    items.push(Feed::Status(status));
                    continue;
                }
                FeedItem::Barrier { ticket } => {
                    items.push(Feed::Barrier(ticket));
                    continue;
                }
                FeedItem::Refused { ticket, why } => {
                    items.push(Feed::Refused { ticket, why });
                    continue;
                }
                FeedItem::Lost { ticket } => {
                    items.push(Feed::Lost(ticket));
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
            if !items.is_empty() {
                let items = std::mem::take(&mut items);
                out.push(FromQuorum::Feed { items, entries, log_bytes });
                (entries, log_bytes) = (0, 0);
            }
            out.push(whole);
        }
        if !items.is_empty() {
            out.push(FromQuorum::Feed { items, entries, log_bytes });
        }
        Ok(out)
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
