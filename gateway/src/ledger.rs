//! The state that the reader and the writer of a connection share.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::{WriteNumber, budget::Charge, session::Response};
use tokio::sync::Notify;
use zk_jute::{Body, Code, OpCode};

use crate::watches::Watches;

/// The ledger of one connection.
#[derive(Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    pub(crate) watches: Watches,
    /// Notifies the reader.
    pub(crate) for_reader: Notify,
    /// Notifies the writer.
    pub(crate) for_writer: Notify,
}

/// Requests in the store; the store limits their number.
#[derive(Default)]
struct Inner {
    /// In request order.
    pending: VecDeque<Pending>,
    /// The answer to a step, for the reader.
    step: Option<Response>,
    /// Replies that the reader has assembled from several answers.
    ready: VecDeque<Reply>,
    /// The results of all writes up to this one have arrived.
    acked: WriteNumber,
    /// Arrival times of requests. Each entry has a request and a time at or before its arrival.
    arrivals: VecDeque<(u64, Instant)>,
    /// Arrival time of the last request that counts as a sign of life.
    counted: Option<Instant>,
}

/// A request in the store.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The client's xid.
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) wants: Wants,
    /// Arrival time.
    pub(crate) since: Instant,
    /// For a write.
    pub(crate) number: Option<WriteNumber>,
    /// For a read that sets a watch.
    pub(crate) watch: Option<u32>,
}

/// The form of a reply.
#[derive(Debug)]
pub(crate) enum Wants {
    /// A create; the reply contains the Stat or not.
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
    /// The number of znodes below a znode.
    Count,
    /// An access list.
    Acl,
    /// A replacement of an access list.
    AclSet,
    /// A sync of this path.
    Sync(String),
    /// A ping.
    Ping,
    /// The end of the session.
    Close,
    /// A fixed reply, independent of the store's answer.
    Fixed(Fixed),
    /// The watches of a setWatches.
    SetAgain,
    /// The watches of an addWatch.
    Added,
    /// No reply: watches for a following read, or cancelled watches.
    Quiet,
    /// No reply by itself: the reader continues with the answer.
    Step,
}

/// A reply that is known in advance.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) code: Code,
    pub(crate) body: Body,
    /// Set if it differs from the zxid of the node.
    pub(crate) zxid: Option<i64>,
    /// The connection ends after it.
    pub(crate) close: bool,
}

impl Fixed {
    pub(crate) fn error(code: Code) -> Fixed {
        Fixed { code, body: Body::Nothing, zxid: None, close: false }
    }

    /// The connection ends after it.
    pub(crate) fn last(code: Code) -> Fixed {
        Fixed { close: true, ..Fixed::error(code) }
    }
}

/// A reply or event for the client.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) zxid: i64,
    pub(crate) code: Code,
    pub(crate) body: Body,
    pub(crate) since: Instant,
    /// For a read that sets a watch.
    pub(crate) watch: Option<u32>,
    /// Held for the body until it is sent.
    pub(crate) room: Vec<Charge>,
}

/// Arrivals within this time count as one.
const TOGETHER: Duration = Duration::from_millis(20);

impl Ledger {
    /// For a connection with these watches.
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

    /// The client no longer needs the results of writes up to this one.
    pub(crate) fn acknowledge(&self, number: WriteNumber) {
        self.lock().acked = number;
    }

    /// A request has arrived, and has the store's `xid`.
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
        // No code under this lock panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
