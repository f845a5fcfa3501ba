//! The call `Watch`: watches without a session. A stream of the store of its own carries them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    task::{Context, Poll, ready},
};

use api::{
    OpError, WriteNumber, Zxid,
    ports::{Coordination, Items, Requests},
    proof::Prover,
    session::{Item, Open, Outcome, Purpose, Response},
};
use prost::Message as _;
use proto::{
    client::{WatchCall, to_status, watch_item_to_wire},
    v1,
};
use tokio_stream::Stream;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::{caller, coordination::min_level};

/// Adds the watches of a call, and returns the stream of what they get. It ends with the last watch, or with its client.
pub(super) fn start<C: Coordination>(
    store: &C,
    tasks: &TaskTracker,
    prover: &Prover,
    request: tonic::Request<v1::WatchRequest>,
) -> Result<Watching<C::Items>, OpError> {
    let (caller, _) = caller(&request, prover)?;
    let level = min_level(&request)?;
    let WatchCall { requests, ids } = WatchCall::new(request.into_inner(), level)?;
    let (mut asks, items) = store.stream(caller);
    tasks.spawn(async move {
        let open = Open {
            resume: None,
            timeout_ms: 0,
            last_zxid: Zxid::ZERO,
            wait_ms: None,
            ensemble: None,
            purpose: Purpose::Watches,
        };
        let asked = match asks.open(open).await {
            Ok(()) => asks.submit(WriteNumber(0), requests).await,
            refused => refused,
        };
        if asked.is_ok() {
            // The client says no more; its stream is over when it reads no more.
            asks.over().await;
        }
        asks.end(asked);
    });
    Ok(Watching {
        items,
        ids,
        fired: BTreeSet::new(),
        next: VecDeque::new(),
        held: None,
        taken: (0, 0),
        over: None,
    })
}

/// Encodes items as messages of the call.
pub struct Watching<I> {
    items: I,
    /// The watches that stand, and whether each ends with its first group.
    ids: BTreeMap<u32, bool>,
    /// The watches that the present group concerns, as far as its parts have come.
    fired: BTreeSet<u32>,
    /// Items taken from the store and not sent.
    next: VecDeque<Item>,
    /// The first item that did not fit into the last message: with the number of answers in it, and its weight.
    held: Option<(v1::WatchItem, usize, usize)>,
    /// Answers in the last message, and their weight. The transport has sent it once it polls for the next one.
    taken: (usize, usize),
    /// How the call ends, behind the last message.
    over: Option<Result<(), OpError>>,
}

impl<I> Watching<I> {
    /// Drops the watches that end with this item.
    fn note(&mut self, item: &Item) {
        match item {
            Item::Response(Response { result: Ok(Outcome::Watching(refused)), .. }) => {
                self.ids.retain(|id, _| !refused.iter().any(|refused| refused.id == *id));
            }
            Item::Events(group) => {
                self.fired.extend(group.events.iter().flat_map(|event| &event.ids));
                if !group.more {
                    let fired = std::mem::take(&mut self.fired);
                    self.ids.retain(|id, once| !(*once && fired.contains(id)));
                }
            }
            Item::Ended(ended) => self.ids.retain(|id, _| !ended.ids.contains(id)),
            _ => {}
        }
    }
}

impl<I: Items> Stream for Watching<I> {
    type Item = Result<v1::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let (mut message, mut size) = (v1::WatchResponse::default(), 0);
        loop {
            if this.taken != (0, 0) {
                let (answers, weight) = std::mem::take(&mut this.taken);
                this.items.taken(answers, weight);
            }
            if this.held.is_none() && this.next.is_empty() {
                if let Some(over) = &this.over {
                    return Poll::Ready(over.clone().err().map(|e| Err(to_status(&e))));
                }
                if let Some(end) = ready!(this.items.poll_take(cx, AT_ONCE, &mut this.next)) {
                    return Poll::Ready(end.err().map(|e| Err(to_status(&e))));
                }
            }
            loop {
                let (item, answers, weight) = match this.held.take() {
                    Some(held) => held,
                    None => {
                        let Some(item) = this.next.pop_front() else { break };
                        this.note(&item);
                        let answers = usize::from(matches!(item, Item::Opened(_) | Item::Response(_)));
                        let weight = item.weight();
                        match watch_item_to_wire(item) {
                            Ok(Some(item)) => (item, answers, weight),
                            Ok(None) => {
                                this.taken.0 += answers;
                                this.taken.1 += weight;
                                continue;
                            }
                            Err(error) => {
                                this.over = Some(Err(error));
                                this.next.clear();
                                break;
                            }
                        }
                    }
                };
                size += item.encoded_len() + FRAME;
                if size > MESSAGE_SIZE && !message.items.is_empty() {
                    this.held = Some((item, answers, weight));
                    break;
                }
                this.taken.0 += answers;
                this.taken.1 += weight;
                message.items.push(item);
            }
            if this.ids.is_empty() && this.next.is_empty() && this.over.is_none() {
                this.over = Some(Ok(()));
            }
            if !message.items.is_empty() {
                return Poll::Ready(Some(Ok(message)));
            }
        }
    }
}

/// Maximum number of items taken at once.
const AT_ONCE: usize = 512;

/// A message ends at about this many bytes; a single item may be larger.
const MESSAGE_SIZE: usize = 256 << 10;

/// Maximum overhead of an item in its message.
const FRAME: usize = 8;
