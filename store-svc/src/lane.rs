//! What a client's stream shares between its reader, its writer and the driver: answers on their way, and how much
//! is under way in all.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use api::{
    OpError,
    budget::{Charge, Share},
};
use store_core::server::{ConnId, ToClient};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Bounds, driver::Aside};

/// The driver is told in steps of so many bytes how far a client has taken its answers; less than any useful
/// `Limits::unsent_max`.
const DRAINED_STEP: usize = 256 << 10;

/// One stream.
pub(crate) struct Lane {
    conn: ConnId,
    bounds: Bounds,
    inner: Mutex<Inner>,
    /// Answers were taken, so there may be room for requests.
    room: Notify,
    /// The client, or the driver, has ended the stream.
    over: CancellationToken,
    /// Bytes of requests that all streams of the connection may have under way.
    share: Share,
    /// Tells the driver. Unbounded, but there is one message for each [`DRAINED_STEP`] that was sent.
    asides: mpsc::UnboundedSender<Aside>,
}

struct Inner {
    out: VecDeque<ToClient>,
    /// What comes behind `out`.
    end: Option<Result<(), OpError>>,
    writer: Option<Waker>,
    /// Requests that were admitted together and are not all answered.
    groups: VecDeque<Group>,
    requests: usize,
    bytes: usize,
    /// Taken by the writer, and not yet told to the driver.
    drained: usize,
    /// For answers that wait although the driver has ended the stream, and knows no more of them.
    left_over: Option<Charge>,
}

struct Group {
    /// How many are not answered.
    left: usize,
    bytes: usize,
    _charge: Charge,
}

impl Lane {
    pub(crate) fn new(
        conn: ConnId,
        bounds: Bounds,
        share: Share,
        asides: mpsc::UnboundedSender<Aside>,
    ) -> Lane {
        let inner = Inner {
            out: VecDeque::new(),
            end: None,
            writer: None,
            groups: VecDeque::new(),
            requests: 0,
            bytes: 0,
            drained: 0,
            left_over: None,
        };
        let (inner, room, over) = (Mutex::new(inner), Notify::new(), CancellationToken::new());
        Lane { conn, bounds, inner, room, over, share, asides }
    }

    // ---- for the driver ----

    /// Sends to the client.
    pub(crate) fn send(&self, items: Vec<ToClient>) {
        let mut inner = self.lock();
        inner.out.extend(items);
        wake(inner);
    }

    /// Ends the stream behind what was sent. The first end counts. What is not answered will not be, and holds nothing.
    pub(crate) fn end(&self, why: Result<(), OpError>) {
        let mut inner = self.lock();
        if inner.end.is_none() {
            inner.end = Some(why);
            inner.left_over = Some(self.share.take_anyway(inner.out.iter().map(ToClient::weight).sum()));
        }
        inner.bytes = 0;
        let groups = std::mem::take(&mut inner.groups);
        wake(inner);
        drop(groups);
        self.over.cancel();
    }

    // ---- for the reader ----

    /// Admits `count` more requests of `bytes` in all, if the stream and the connection have room for them. They leave when
    /// their answers are taken. Needs no room for 0 bytes.
    pub(crate) fn try_admit(&self, count: usize, bytes: usize) -> bool {
        if !self.has_room(count, bytes) {
            return false;
        }
        match self.share.try_take(bytes) {
            Some(charge) => {
                self.enter(count, bytes, charge);
                true
            }
            None => false,
        }
    }

    /// As [`Lane::try_admit`], but waits for room. Nothing is admitted if it is dropped before it ends.
    pub(crate) async fn admit(&self, count: usize, bytes: usize) {
        loop {
            let room = self.room.notified();
            if self.has_room(count, bytes) {
                break;
            }
            room.await;
        }
        // There is one reader, so the room stays.
        let charge = self.share.take(bytes).await;
        self.enter(count, bytes, charge);
    }

    /// Waits until everything that was admitted is answered.
    pub(crate) async fn settled(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().requests == 0 {
                return;
            }
            room.await;
        }
    }

    /// Waits until the stream has an end.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    // ---- for the writer ----

    /// The next answers, at most `max`; `None` behind the last, with how the stream ends.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut VecDeque<ToClient>,
    ) -> Poll<Option<Result<(), OpError>>> {
        let mut inner = self.lock();
        if !inner.out.is_empty() {
            if inner.out.len() <= max && into.is_empty() {
                std::mem::swap(&mut inner.out, into);
            } else {
                let n = inner.out.len().min(max);
                into.extend(inner.out.drain(..n));
            }
            return Poll::Ready(None);
        }
        match &inner.end {
            Some(end) => Poll::Ready(Some(end.clone())),
            None => {
                inner.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The transport has taken so many answers of this [weight](ToClient::weight).
    pub(crate) fn took(&self, mut replies: usize, weight: usize) {
        let mut inner = self.lock();
        inner.requests = inner.requests.saturating_sub(replies);
        let mut freed = Vec::new();
        while let Some(group) = inner.groups.front_mut() {
            let answered = replies.min(group.left);
            group.left -= answered;
            replies -= answered;
            if group.left > 0 {
                break;
            }
            let bytes = group.bytes;
            inner.bytes -= bytes;
            freed.extend(inner.groups.pop_front());
        }
        inner.drained += weight;
        if inner.drained >= DRAINED_STEP {
            // Without a driver nobody needs to know.
            let bytes = std::mem::take(&mut inner.drained);
            let _ = self.asides.send(Aside::Drained { conn: self.conn, bytes });
        }
        drop(inner);
        drop(freed);
        // There is one reader; it may be about to wait, so the notice is kept for it.
        self.room.notify_one();
    }

    /// A request larger than the bound waits for all others to leave.
    fn has_room(&self, count: usize, bytes: usize) -> bool {
        let inner = self.lock();
        inner.requests + count <= self.bounds.stream_requests
            && (inner.bytes == 0 || inner.bytes + bytes <= self.bounds.stream_bytes)
    }

    fn enter(&self, count: usize, bytes: usize, charge: Charge) {
        let mut inner = self.lock();
        // Nobody answers on a stream that has ended.
        if count > 0 && inner.end.is_none() {
            inner.requests += count;
            inner.bytes += bytes;
            inner.groups.push_back(Group { left: count, bytes, _charge: charge });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let writer = inner.writer.take();
    drop(inner);
    if let Some(writer) = writer {
        writer.wake();
    }
}
