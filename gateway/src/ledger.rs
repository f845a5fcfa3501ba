//! What the reader and the writer of a connection know of each other.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::{WriteNumber, budget::Charge, session::Response};
use tokio::sync::Notify;
use zk_jute::{Body, Code, OpCode};

use crate::watches::Watches;

/// Of one connection.
#[derive(Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    pub(crate) watches: Watches,
    /// There is something for the reader.
    pub(crate) for_reader: Notify,
    /// There is something for the writer.
    pub(crate) for_writer: Notify,
}

/// Of the requests that the store has; as many as it lets in.
#[derive(Default)]
struct Inner {
    /// In their order.
    pending: VecDeque<Pending>,
    /// The answer to a step, for the reader.
    step: Option<Response>,
    /// Replies that the reader has made of several answers.
    ready: VecDeque<Reply>,
    /// The results of all writes up to this one have come.
    acked: WriteNumber,
    /// Up to which request had come when. Each entry says a time at which the last of its requests had come, or an earlier one.
    arrivals: VecDeque<(u64, Instant)>,
    /// When the last request had come that is counted as a sign of life.
    counted: Option<Instant>,
}

/// A request that the store has.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The client's number.
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) wants: Wants,
    /// When it came.
    pub(crate) since: Instant,
    /// Of a write.
    pub(crate) number: Option<WriteNumber>,
    /// Of a read that leaves a watch.
    pub(crate) watch: Option<u32>,
}

/// What a reply is made of.
#[derive(Debug)]
pub(crate) enum Wants {
    /// A create, whose reply has the Stat or not.
    Created { stat: bool },
    /// A delete.
    Deleted,
    /// A set.
    Set,
    /// A multi of these.
    Multi(Vec<OpCode>),
    /// Exists.
    Exists,
    /// A value.
    Data,
    /// An access list.
    Acl,
    /// A replacement of an access list.
    AclSet,
    /// A sync of this path.
    Sync(String),
    /// A sign of life.
    Ping,
    /// The end of the session.
    Close,
    /// This, whatever the store says.
    Fixed(Fixed),
    /// The watches of a setWatches.
    SetAgain,
    /// The watches of an addWatch.
    Added,
    /// Nothing: watches that a read behind it leaves, or the end of some.
    Quiet,
    /// Not a reply by itself: the reader goes on with the answer.
    Step,
}

/// A reply that is known beforehand.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) code: Code,
    pub(crate) body: Body,
    /// If it is another than how far the node has come.
    pub(crate) zxid: Option<i64>,
    /// The connection ends behind it.
    pub(crate) close: bool,
}

impl Fixed {
    pub(crate) fn error(code: Code) -> Fixed {
        Fixed { code, body: Body::Nothing, zxid: None, close: false }
    }

    /// The connection ends behind it.
    pub(crate) fn last(code: Code) -> Fixed {
        Fixed { close: true, ..Fixed::error(code) }
    }
}

/// For the client.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) zxid: i64,
    pub(crate) code: Code,
    pub(crate) body: Body,
    pub(crate) since: Instant,
    /// Of a read that leaves a watch.
    pub(crate) watch: Option<u32>,
    /// For the body, until it is sent.
    pub(crate) room: Vec<Charge>,
}

/// Arrivals this close together are one.
const TOGETHER: Duration = Duration::from_millis(20);

impl Ledger {
    /// Of a connection with these watches.
    pub(crate) fn new(watches: Watches) -> Ledger {
        Ledger { watches, ..Ledger::default() }
    }

    pub(crate) fn push(&self, pending: Pending) {
        self.lock().pending.push_back(pending);
    }

    /// The request that is answered next.
    pub(crate) fn pop(&self) -> Option<Pending> {
        let mut inner = self.lock();
        let pending = inner.pending.pop_front();
        if let Some(number) = pending.as_ref().and_then(|pending| pending.number) {
            inner.acked = number;
        }
        pending
    }

    /// Whether the request that is answered next is a step.
    pub(crate) fn is_step_next(&self) -> bool {
        self.lock().pending.front().is_some_and(|pending| matches!(pending.wants, Wants::Step))
    }

    pub(crate) fn acked(&self) -> WriteNumber {
        self.lock().acked
    }

    /// The results of writes up to this one are of no use to the client.
    pub(crate) fn acknowledge(&self, number: WriteNumber) {
        self.lock().acked = number;
    }

    /// A request has come, and is the store's `xid`.
    pub(crate) fn arrived(&self, xid: u64, at: Instant) {
        let mut inner = self.lock();
        match inner.arrivals.back_mut() {
            Some((last, since)) if at.duration_since(*since) < TOGETHER => *last = xid,
            _ => inner.arrivals.push_back((xid, at)),
        }
    }

    /// The leader has counted requests up to this one.
    pub(crate) fn counted(&self, xid: u64) {
        let mut inner = self.lock();
        while let Some(&(last, at)) = inner.arrivals.front()
            && last <= xid
        {
            inner.counted = Some(at);
            inner.arrivals.pop_front();
        }
    }

    /// The opening of the session, which began at that time, is counted.
    pub(crate) fn opened(&self, at: Instant) {
        self.lock().counted = Some(at);
    }

    /// See [`Ledger::counted`].
    pub(crate) fn last_counted(&self) -> Option<Instant> {
        self.lock().counted
    }

    pub(crate) fn give_step(&self, response: Response) {
        self.lock().step = Some(response);
        self.for_reader.notify_one();
    }

    pub(crate) async fn step(&self) -> Response {
        loop {
            let told = self.for_reader.notified();
            if let Some(response) = self.lock().step.take() {
                return response;
            }
            told.await;
        }
    }

    pub(crate) fn give_reply(&self, reply: Reply) {
        self.lock().ready.push_back(reply);
        self.for_writer.notify_one();
    }

    pub(crate) fn take_replies(&self) -> VecDeque<Reply> {
        std::mem::take(&mut self.lock().ready)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
