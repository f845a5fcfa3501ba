//! A session stream: a task that reads it, and the stream of messages that the transport polls.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use api::{
    OpError, WriteNumber,
    budget::Slot,
    ports::{Coordination, Items, Requests},
    proof::Prover,
    session::Item,
};
use prost::Message as _;
use proto::{
    client::{self, OpenSession, Who, to_status},
    v1,
};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::caller;

/// Starts to read the stream of a client and returns the stream of its answers.
pub(super) fn start<C: Coordination>(
    store: &C,
    tasks: &TaskTracker,
    prover: &Prover,
    request: tonic::Request<impl Inbound>,
) -> Result<Answers<C::Items>, OpError> {
    let (caller, who) = caller(&request, prover)?;
    let decoded = caller.message.clone();
    let (requests, items) = store.stream(caller);
    let reader = Reader { requests, who, decoded, inbound: request.into_inner() };
    tasks.spawn(reader.run());
    Ok(Answers::new(items))
}

/// The messages of a client.
pub(super) trait Inbound:
    Stream<Item = Result<v1::SessionRequest, Status>> + Send + Unpin + 'static
{
}

impl<S: Stream<Item = Result<v1::SessionRequest, Status>> + Send + Unpin + 'static> Inbound for S {}

struct Reader<R, I> {
    requests: R,
    who: Who,
    /// The part of the connection's share that the last message holds.
    decoded: Slot,
    inbound: I,
}

impl<R: Requests, I: Inbound> Reader<R, I> {
    /// Reads until the stream ends, and sets the reason unless it is already set.
    async fn run(mut self) {
        let end = self.read().await;
        self.requests.end(end);
    }

    async fn read(&mut self) -> Result<(), OpError> {
        let Some(mut first) = self.first().await? else { return Ok(()) };
        let Some(open) = first.open.take() else {
            return Err(OpError::BadArguments(
                "the first message of a session stream has no `open`; open a session or resume one first"
                    .into(),
            ));
        };
        let OpenSession { open, credentials, client_name } = open.try_into()?;
        if !credentials.is_empty() {
            self.who.prove(credentials)?;
            self.requests.identify(self.who.identities().clone());
        }
        tracing::debug!(client = client_name, resumes = open.resume.is_some(), "a client opens a session");
        self.requests.open(open).await?;
        self.submit(first).await?;
        loop {
            let message = tokio::select! {
                message = self.inbound.next() => message.transpose(),
                () = self.requests.over() => return Ok(()),
            };
            match message {
                Ok(Some(message)) if message.open.is_none() => self.submit(message).await?,
                Ok(Some(_)) => {
                    return Err(OpError::BadArguments(
                        "a second `open` on a session stream; open another stream for it".into(),
                    ));
                }
                // The client has ended its half; it still gets its answers.
                Ok(None) => {
                    self.requests.settled().await;
                    return Ok(());
                }
                // The message is too large or malformed, or the connection is gone.
                Err(status) => return Err(client::from_status(&status)),
            }
        }
    }

    /// Returns `None` if the client is gone, or the stream has ended.
    async fn first(&mut self) -> Result<Option<v1::SessionRequest>, OpError> {
        let message = tokio::select! {
            message = timeout(OPEN_WITHIN, self.inbound.next()) => message,
            () = self.requests.over() => return Ok(None),
        };
        let late = |_| {
            OpError::BadArguments(format!(
                "no message with `open` came within {OPEN_WITHIN:?}; send it first on a session stream"
            ))
        };
        Ok(message.map_err(late)?.and_then(Result::ok))
    }

    /// Submits requests as capacity allows.
    async fn submit(&mut self, message: v1::SessionRequest) -> Result<(), OpError> {
        let v1::SessionRequest { requests, acked_write, .. } = message;
        let bytes = requests.iter().map(prost::Message::encoded_len).sum::<usize>();
        self.decoded.shrink_to(bytes + requests.len() * REQUEST);
        let requests = requests.into_iter().map(|wire| self.who.request(wire)).collect();
        self.requests.submit(WriteNumber(acked_write), requests).await
    }
}

/// The messages of a session stream: its items, as they come.
pub struct Answers<I> {
    items: I,
    /// Items taken from the lane and not sent.
    next: VecDeque<Item>,
    /// The first item that did not fit into the last message.
    held: Option<Encoded>,
    /// Answers in the last message, and their weight. The transport has sent it once it polls for the
    /// next message.
    taken: (usize, usize),
}

/// An item in wire format.
struct Encoded {
    item: v1::Item,
    /// Number of answers in this item: one or none.
    answers: usize,
    weight: usize,
}

impl<I> Answers<I> {
    pub(super) fn new(items: I) -> Answers<I> {
        Answers { items, next: VecDeque::new(), held: None, taken: (0, 0) }
    }
}

impl<I: Items> Stream for Answers<I> {
    type Item = Result<v1::SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.taken != (0, 0) {
            let (answers, weight) = std::mem::take(&mut this.taken);
            this.items.taken(answers, weight);
        }
        if this.held.is_none()
            && this.next.is_empty()
            && let Some(end) = ready!(this.items.poll_take(cx, AT_ONCE, &mut this.next))
        {
            return Poll::Ready(end.err().map(|e| Err(to_status(&e))));
        }
        let (mut message, mut size) = (v1::SessionResponse::default(), 0);
        loop {
            // The item that did not fit into the last message is the first of this one.
            let encoded = match this.held.take() {
                Some(held) => held,
                None => match this.next.pop_front() {
                    Some(Item::Confirmed { xid }) => {
                        message.confirmed_xid = xid;
                        continue;
                    }
                    Some(item) => match encode(item) {
                        Some(encoded) => encoded,
                        None => continue,
                    },
                    None => break,
                },
            };
            // This has to be exact, not an estimate: a message that is too large ends the stream.
            size += encoded.item.encoded_len() + FRAME;
            if size > MESSAGE_SIZE && !message.items.is_empty() {
                this.held = Some(encoded);
                break;
            }
            this.taken.0 += encoded.answers;
            this.taken.1 += encoded.weight;
            message.items.push(encoded.item);
        }
        Poll::Ready(Some(Ok(message)))
    }
}

/// Returns `None` for an item that has no place in a message.
fn encode(item: Item) -> Option<Encoded> {
    // A notice answers no request.
    let answers = usize::from(matches!(item, Item::Opened(_) | Item::Response(_)));
    let weight = item.weight();
    Some(Encoded { item: client::item_to_wire(item)?, answers, weight })
}

/// Timeout for the first message of a client.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Maximum number of items taken at once.
const AT_ONCE: usize = 512;

/// A message ends at about this many bytes; a single item may be larger.
const MESSAGE_SIZE: usize = 256 << 10;

/// Maximum overhead of an item in its message.
const FRAME: usize = 8;

/// Memory of a request besides its texts and values, in bytes.
const REQUEST: usize = 128;
