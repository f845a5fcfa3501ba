//! One session stream: a task that reads it, and the stream of answers that the transport polls.

use std::{
    collections::VecDeque,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use api::{OpError, PeerId, SessionToken, StreamId, WriteNumber, budget::Slot};
use prost::Message as _;
use proto::{
    client::{self, OpenSession, Outcome, to_status},
    v1,
};
use store_core::server::{Answer, ConnId, Op, Open, Request, ToClient};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{Front, Origin, weight};
use crate::{
    driver::FromClient,
    lane::{Lane, Load},
    trace::{self, Traced},
};

/// Begins to read the stream of a client and returns that of its answers.
pub(super) fn start(front: Front, request: tonic::Request<Streaming<v1::SessionRequest>>) -> Answers {
    let conn = front.connect();
    let Origin { share, decoded } = front.origin(&request);
    let lane = front.lane(conn, share);
    let peer = request.remote_addr().map(|address| address.ip());
    let inbound = request.into_inner();
    let answers =
        Answers { lane: lane.clone(), me: front.me, next: VecDeque::new(), held: None, taken: (0, 0) };
    let tasks = front.tasks.clone();
    tasks.spawn(async move {
        let reader = Reader { front, conn, lane: lane.clone(), peer, decoded, inbound };
        let end = reader.run().await;
        lane.end(end);
    });
    answers
}

struct Reader {
    front: Front,
    conn: ConnId,
    lane: Arc<Lane>,
    /// Where the client is.
    peer: Option<IpAddr>,
    /// What the message that was read last holds of the connection's share.
    decoded: Slot,
    inbound: Streaming<v1::SessionRequest>,
}

impl Reader {
    /// Reads until the stream is over, and says how it ends if nobody else has.
    async fn run(mut self) -> Result<(), OpError> {
        let first = self.first().await?;
        let Some(first) = first else { return Ok(()) };
        let result = self.opened(first).await;
        // Fails if the driver has ended; then there is nothing to forget.
        let _ = self.front.tell(FromClient::Closed { conn: self.conn }).await;
        result
    }

    /// The first message, which opens the session. `None` if the client went away.
    async fn first(&mut self) -> Result<Option<v1::SessionRequest>, OpError> {
        let message = tokio::select! {
            message = timeout(OPEN_WITHIN, self.inbound.message()) => message,
            () = self.front.inputs.closed() => return Err(self.front.stopping()),
        };
        let Ok(message) = message else {
            return Err(OpError::BadArguments(format!(
                "no message with `open` came within {OPEN_WITHIN:?}; send it first on a session stream"
            )));
        };
        let Ok(Some(mut message)) = message else { return Ok(None) };
        let Some(open) = message.open.take() else {
            return Err(OpError::BadArguments(
                "the first message of a session stream has no `open`; open a session or resume one first"
                    .into(),
            ));
        };
        let open = match OpenSession::try_from(open)? {
            OpenSession { resume: Some((session, token)), last_zxid, .. } => {
                let stream = StreamId(u64::from_le_bytes(random()?));
                Open::Resume { session, token, last_zxid, stream }
            }
            OpenSession { resume: None, timeout_ms, .. } => {
                let peer = self.peer.unwrap_or(IpAddr::from([0, 0, 0, 0]));
                self.front.opens.take(peer, Instant::now())?;
                Open::New { token: SessionToken(random()?), timeout_ms }
            }
        };
        // Counts like a request: a client that has said all still learns what became of it.
        self.lane.admit(Load { requests: 1, ..Load::default() }).await;
        self.front.tell(FromClient::Open { conn: self.conn, open, lane: self.lane.clone() }).await?;
        Ok(Some(message))
    }

    async fn opened(&mut self, first: v1::SessionRequest) -> Result<(), OpError> {
        self.requests(first).await?;
        loop {
            let message = tokio::select! {
                message = self.inbound.message() => message,
                () = self.lane.over() => return Ok(()),
            };
            match message {
                Ok(Some(message)) if message.open.is_none() => self.requests(message).await?,
                Ok(Some(_)) => {
                    return Err(OpError::BadArguments(
                        "a second `open` on a session stream; open another stream for it".into(),
                    ));
                }
                // The client has said all; it still gets its answers.
                Ok(None) => {
                    tokio::select! {
                        () = self.lane.settled() => {}
                        () = self.lane.over() => {}
                    }
                    return Ok(());
                }
                // Too large, no protobuf, or the connection is gone.
                Err(status) => return Err(client::from_status(&status)),
            }
        }
    }

    /// Passes requests on, as there is room for them.
    async fn requests(&mut self, message: v1::SessionRequest) -> Result<(), OpError> {
        let received = Instant::now();
        let acked = WriteNumber(message.acked_write);
        let at_once = AT_ONCE.min(self.front.bounds.stream_requests);
        let mut rest = message.requests.into_iter();
        self.decoded.shrink_to(
            rest.as_slice().iter().map(prost::Message::encoded_len).sum::<usize>() + rest.len() * REQUEST,
        );
        loop {
            let mut requests: Vec<Request> = rest.by_ref().take(at_once).map(request).collect();
            let load = load(&requests);
            if !self.lane.try_admit(load) {
                tokio::select! {
                    () = self.lane.admit(load) => {}
                    () = self.lane.over() => return Ok(()),
                }
            }
            let spans = self.begin_spans(&mut requests, received);
            self.front
                .tell(FromClient::Requests { conn: self.conn, acked, requests, spans, received })
                .await?;
            if rest.len() == 0 {
                return Ok(());
            }
        }
    }

    /// The spans of those requests that are traced, by their index.
    fn begin_spans(&self, requests: &mut [Request], received: Instant) -> Vec<(usize, Traced)> {
        let begin = |r: &mut Request| trace::begin(&r.op, &mut r.trace, received, &self.front.ratio);
        requests.iter_mut().enumerate().filter_map(|(i, r)| Some((i, begin(r)?))).collect()
    }
}

/// What requests take that are under way.
fn load(requests: &[Request]) -> Load {
    let mut load = Load { requests: requests.len(), ..Load::default() };
    for request in requests {
        match weight(&request.op) {
            0 => load.light += 1,
            bytes => load.bytes += bytes,
        }
    }
    load
}

/// A request off the wire. What is wrong with it is answered in its place.
fn request(wire: v1::Request) -> Request {
    let (xid, number) = (wire.xid, wire.write_number);
    let number = (number != 0).then_some(WriteNumber(number));
    let (op, trace) = match client::Request::try_from(wire) {
        Ok(client::Request { op, trace, .. }) => {
            let op = match op {
                client::Op::Write { write, .. } => Op::Write(write),
                client::Op::Read(read, level) => Op::Read(read, level),
                client::Op::Sync => Op::Sync,
                client::Op::Ping => Op::Ping,
                client::Op::Close => Op::Close,
            };
            (op, trace)
        }
        Err(error) => (Op::Invalid(error), None),
    };
    Request { xid, number, op, trace }
}

fn random<const N: usize>() -> Result<[u8; N], OpError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| OpError::Internal(format!("the system has no random numbers: {e}")))?;
    Ok(bytes)
}

/// The answers of a stream, as messages.
pub(super) struct Answers {
    lane: Arc<Lane>,
    me: PeerId,
    /// Taken from the lane and not sent.
    next: VecDeque<ToClient>,
    /// The reply behind those of the last message, with its weight.
    held: Option<(v1::Response, usize)>,
    /// In the last message: replies, and their weight. Whoever asks for more has sent it.
    taken: (usize, usize),
}

impl Stream for Answers {
    type Item = Result<v1::SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.taken != (0, 0) {
            let (replies, weight) = std::mem::take(&mut this.taken);
            this.lane.took(replies, weight);
        }
        if this.held.is_none()
            && this.next.is_empty()
            && let Some(end) = ready!(this.lane.poll_take(cx, AT_ONCE, &mut this.next))
        {
            return Poll::Ready(end.err().map(|e| Err(to_status(&e))));
        }
        let (mut message, mut size, mut weight) = (v1::SessionResponse::default(), 0, 0);
        loop {
            // What was too much for the last message is the first of this one.
            let (response, bytes) = match this.held.take() {
                Some(held) => held,
                None => match this.next.pop_front() {
                    Some(ToClient::Opened { session, token, timeout_ms, leaderless }) => {
                        let node = this.me;
                        let opened = client::SessionOpened { session, token, timeout_ms, node, leaderless };
                        message.opened = Some(opened.into());
                        continue;
                    }
                    Some(ToClient::Confirmed { xid }) => {
                        message.confirmed_xid = xid;
                        continue;
                    }
                    Some(ToClient::Leader { lost }) => {
                        message.leader_lost = Some(lost);
                        continue;
                    }
                    Some(item @ ToClient::Reply { .. }) => {
                        let bytes = item.weight();
                        match response(item) {
                            Some(response) => (response, bytes),
                            None => continue,
                        }
                    }
                    None => break,
                },
            };
            // Not an estimate: a message that is too large ends the stream.
            size += response.encoded_len() + FRAME;
            if size > MESSAGE_SIZE && !message.responses.is_empty() {
                this.held = Some((response, bytes));
                break;
            }
            weight += bytes;
            message.responses.push(response);
        }
        // A notice answers nothing.
        this.taken = (message.responses.len() + usize::from(message.opened.is_some()), weight);
        Poll::Ready(Some(Ok(message)))
    }
}

/// `None` for what is no reply.
fn response(item: ToClient) -> Option<v1::Response> {
    let ToClient::Reply { xid, zxid, result, leaderless } = item else { return None };
    let result = result.map(|answer| match answer {
        Answer::Write(outcome) => Outcome::Write(outcome),
        Answer::Read(outcome) => Outcome::Read(outcome),
        Answer::Synced => Outcome::Sync,
        Answer::Pong => Outcome::Ping,
        Answer::Closed => Outcome::Close,
    });
    Some(client::Response { xid, zxid, result, leaderless }.into())
}

impl Drop for Answers {
    fn drop(&mut self) {
        // The client is gone, whatever its reader thinks.
        self.lane.end(Ok(()));
    }
}

/// A client has so long to say what it wants.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Requests passed on, and answers taken, in one go.
const AT_ONCE: usize = 512;

/// A message is ended when it has about so many bytes; a single answer may be larger.
const MESSAGE_SIZE: usize = 256 << 10;

/// What a reply takes in its message besides itself, at most.
const FRAME: usize = 8;

/// Bytes that a request has in memory besides its texts and values.
const REQUEST: usize = 128;
