//! The port of the quorum on one side, the inputs and outputs of the core on the other.

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

/// What the quorum says, decoded.
#[derive(Debug)]
pub enum FromQuorum {
    /// In this order.
    Feed {
        /// What it says.
        items: Vec<Feed>,
        /// So many entries are among them.
        entries: u64,
        /// How much these weigh in the log, in bytes.
        log_bytes: u64,
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

/// Decodes one feed.
#[derive(Debug)]
pub struct Decoder {
    seed: u64,
    /// On its way.
    snapshot: Option<Incoming>,
}

impl Decoder {
    /// The states that come as snapshots get this [seed](State::seeded).
    #[must_use]
    pub fn new(seed: u64) -> Decoder {
        Decoder { seed, snapshot: None }
    }

    /// Decodes what the feed has given at once: usually into one message.
    ///
    /// # Errors
    /// It cannot be read. To leave it out would be to have another state than nodes that can read it.
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
                // One that was not whole is of no use any more.
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
/// It cannot be read.
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

/// Encodes what the core asks of the quorum, in the same order.
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
