//! Reads and submits the requests of a client.

use std::{
    future::poll_fn,
    mem::MaybeUninit,
    pin::Pin,
    task::ready,
    time::{Duration, Instant},
};

use api::{
    OpError, WriteNumber,
    budget::{Charge, Share},
    ports::Requests,
    session::{Limits, Op, Request, Response},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, ReadBuf},
    time::timeout,
};
use zk_jute::{Frames, OpCode, RequestHeader};

use crate::{
    connection::End,
    ledger::{Ledger, Pending, Reply, Wants},
    script::{Played, Script},
    stats::Listed,
    translate::{self, Plan, Who},
};

/// The half of a connection that reads.
pub(crate) struct Reader<'a, S, R> {
    pub(crate) stream: S,
    pub(crate) frames: Frames,
    pub(crate) requests: R,
    pub(crate) ledger: &'a Ledger,
    pub(crate) stats: &'a Listed<'a>,
    /// Bytes that are being received.
    pub(crate) share: Share,
    /// Held for the last large frame, until its content is in the store.
    pub(crate) charge: Option<Charge>,
    /// Limits of the node.
    pub(crate) limits: Limits,
    /// Maximum size of a reply to several reads at once.
    pub(crate) reply_max: usize,
    pub(crate) who: Who,
    /// The session's last write; `None` if it is not known, because the session was resumed: writes of an older
    /// connection may still be in transit. Writes then have no numbers.
    pub(crate) written: Option<WriteNumber>,
    /// The store's xid of the last request on this stream.
    pub(crate) xid: u64,
}

/// The result of a frame.
enum Next {
    /// Requests for the batch.
    Batch,
    /// Steps, after the batch.
    Script(RequestHeader, Script),
    /// The client sends nothing further that matters.
    Last,
}

impl<S: AsyncRead + Unpin, R: Requests> Reader<'_, S, R> {
    /// Reads until the connection ends.
    pub(crate) async fn run(&mut self) -> Result<End, OpError> {
        loop {
            let (mut batch, mut next) = (Vec::new(), Next::Batch);
            let at = Instant::now();
            while batch.len() < AT_ONCE && matches!(next, Next::Batch) {
                let Ok(frame) = self.frames.next_frame() else {
                    self.submit(batch).await?;
                    return Ok(End::Broken);
                };
                let Some(frame) = frame else { break };
                let mut from = zk_jute::Reader::new(frame);
                let Ok(header) = from.take::<RequestHeader>() else {
                    self.submit(batch).await?;
                    return Ok(End::Broken);
                };
                self.stats.received(1);
                let parts = self.limits.multi_parts as usize;
                let plan = match zk_jute::Request::decode_bounded(header, from, parts) {
                    Ok(request) => translate::plan(request, &mut self.who, &self.ledger.watches, self.limits),
                    Err(e) => translate::bad(e),
                };
                next = match plan {
                    Plan::Ask(op, wants) => {
                        let last =
                            matches!(op, Op::Close) || matches!(&wants, Wants::Fixed(fixed) if fixed.close);
                        batch.push(self.ask(header, op, wants, at));
                        if last { Next::Last } else { Next::Batch }
                    }
                    Plan::Watched(add, id, op, wants) => {
                        batch.push(self.quiet(Op::AddWatches(add)));
                        batch.push(self.ask_watched(header, op, wants, at, Some(id)));
                        Next::Batch
                    }
                    Plan::Script(script) => Next::Script(header, script),
                };
            }
            let more = !batch.is_empty();
            self.submit(batch).await?;
            match next {
                Next::Last => {
                    self.charge = None;
                    // The writer ends the connection.
                    self.requests.over().await;
                    return std::future::pending().await;
                }
                Next::Script(header, script) => {
                    // Boxed, so that connections without a script are small.
                    let Played { zxid, code, body, watch, room } = Box::pin(self.play(script)).await?;
                    let (xid, op) = (header.xid, OpCode(header.kind));
                    self.ledger.give_reply(Reply { xid, op, zxid, code, body, since: at, watch, room });
                }
                Next::Batch if more => {}
                Next::Batch => match self.receive().await {
                    Received::More => {}
                    Received::End(end) => return Ok(end),
                },
            }
        }
    }

    /// Submits one request and returns the store's answer. Only while nothing else is submitted.
    pub(crate) async fn step(&mut self, op: Op) -> Result<Response, OpError> {
        let header = RequestHeader { xid: 0, kind: 0 };
        let request = self.ask(header, op, Wants::Step, Instant::now());
        self.submit(vec![request]).await?;
        Ok(self.ledger.step().await)
    }

    /// A request without a reply.
    fn quiet(&mut self, op: Op) -> Request {
        self.ask(RequestHeader { xid: 0, kind: 0 }, op, Wants::Quiet, Instant::now())
    }

    fn ask(&mut self, header: RequestHeader, op: Op, wants: Wants, since: Instant) -> Request {
        self.ask_watched(header, op, wants, since, None)
    }

    /// Adds a request and records it in the ledger for the writer.
    fn ask_watched(
        &mut self,
        header: RequestHeader,
        op: Op,
        wants: Wants,
        since: Instant,
        watch: Option<u32>,
    ) -> Request {
        self.xid += 1;
        let number = self.written.filter(|_| matches!(op, Op::Write(_))).map(|last| WriteNumber(last.0 + 1));
        self.written = number.or(self.written);
        self.ledger.arrived(self.xid, since);
        self.ledger.push(Pending { xid: header.xid, op: OpCode(header.kind), wants, since, number, watch });
        Request { number, ..Request::new(self.xid, op) }
    }

    async fn submit(&mut self, mut batch: Vec<Request>) -> Result<(), OpError> {
        if batch.is_empty() {
            return Ok(());
        }
        let cancels = self.ledger.watches.take_cancels();
        if !cancels.is_empty() {
            batch.push(self.quiet(Op::CancelWatches(cancels)));
        }
        self.requests.submit(self.ledger.acked(), batch).await
    }

    async fn receive(&mut self) -> Received {
        // All received requests are submitted.
        if self.charge.take().is_some() {
            // A large frame is work enough for a turn: other connections have the same thread.
            tokio::task::yield_now().await;
        }
        self.frames.release();
        receive(&mut self.stream, &mut self.frames, &self.share, &mut self.charge).await
    }
}

/// The result of waiting for bytes.
pub(crate) enum Received {
    /// A whole frame is available, or the next frame cannot be accepted.
    More,
    /// No further bytes will arrive.
    End(End),
}

/// Receives until a whole frame is available. A started frame has to be complete in time. A large frame reserves its
/// place in the connection's share before it is received.
pub(crate) async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    frames: &mut Frames,
    share: &Share,
    charge: &mut Option<Charge>,
) -> Received {
    if frames.rest().is_empty() {
        match first_bytes(stream, frames.buffer()).await {
            Ok(1..) => {}
            Ok(0) => return Received::End(End::Gone),
            Err(_) => return Received::End(End::Broken),
        }
    }
    let whole = async {
        loop {
            // An invalid frame fails when it is decoded.
            let Ok(expected) = frames.expected() else { return Received::More };
            let have = frames.rest().len();
            let missing = match expected {
                Some(length) => (4 + length).saturating_sub(have),
                None => 4 - have,
            };
            if missing == 0 {
                return Received::More;
            }
            if missing > SMALL && charge.is_none() {
                *charge = Some(share.take(missing).await);
            }
            frames.buffer().reserve(missing);
            match stream.read_buf(frames.buffer()).await {
                Ok(1..) => {}
                Ok(0) => return Received::End(End::Gone),
                Err(_) => return Received::End(End::Broken),
            }
        }
    };
    timeout(WHOLE_WITHIN, whole).await.unwrap_or(Received::End(End::Unfinished))
}

/// Reads the next bytes into a new buffer: a connection without input has no buffer.
async fn first_bytes<S: AsyncRead + Unpin>(stream: &mut S, into: &mut BytesMut) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); SMALL];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        into.extend_from_slice(read.filled());
        Ok(read.filled().len()).into()
    })
    .await
}

/// Timeout for the completion of a started frame.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);

/// Bytes received at once. A frame up to this size is not charged.
const SMALL: usize = 16 << 10;

/// Maximum number of requests submitted at once.
const AT_ONCE: usize = 512;
