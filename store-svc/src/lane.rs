//! What a client's stream shares between its reader, its writer and the driver: answers on their way, and how much
//! is under way in all.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use api::OpError;
use store_core::server::{ConnId, ToClient};
use tokio::sync::{Notify, Semaphore, mpsc};
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
    /// Bytes of requests that all streams may have under way.
    total: Arc<Semaphore>,
    /// Tells the driver. Unbounded, but there is one message for each [`DRAINED_STEP`] that was sent.
    asides: mpsc::UnboundedSender<Aside>,
}

struct Inner {
    out: VecDeque<ToClient>,
    /// What comes behind `out`.
    end: Option<Result<(), OpError>>,
    writer: Option<Waker>,
    /// Requests that were admitted together and are not all answered: how many are left, and their bytes.
    groups: VecDeque<(usize, usize)>,
    requests: usize,
    bytes: usize,
    /// Taken by the writer, and not yet told to the driver.
    drained: usize,
    /// When the writer last took something or had nothing to take.
    progress: Instant,
}

impl Lane {
    pub(crate) fn new(
        conn: ConnId,
        bounds: Bounds,
        total: Arc<Semaphore>,
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
            progress: Instant::now(),
        };
        let (inner, room, over) = (Mutex::new(inner), Notify::new(), CancellationToken::new());
        Lane { conn, bounds, inner, room, over, total, asides }
    }

    // ---- for the driver ----

    /// Sends to the client.
    pub(crate) fn send(&self, items: Vec<ToClient>) {
        let mut inner = self.lock();
        if inner.out.is_empty() {
            inner.progress = Instant::now();
        }
        inner.out.extend(items);
        wake(inner);
    }

    /// Ends the stream behind what was sent. The first end counts.
    pub(crate) fn end(&self, why: Result<(), OpError>) {
        let mut inner = self.lock();
        inner.end.get_or_insert(why);
        wake(inner);
        self.over.cancel();
    }

    // ---- for the reader ----

    /// Admits `count` more requests of `bytes` in all, if the stream and the node have room for them. They leave when
    /// their answers are taken.
    pub(crate) fn try_admit(&self, count: usize, bytes: usize) -> bool {
        let bytes = self.counted(bytes);
        match self.total.try_acquire_many(bytes) {
            Ok(permit) if self.enter(count, bytes as usize) => {
                permit.forget();
                true
            }
            _ => false,
        }
    }

    /// As [`Lane::try_admit`], but waits for room. Nothing is admitted if it is dropped before it ends.
    pub(crate) async fn admit(&self, count: usize, bytes: usize) {
        let bytes = self.counted(bytes);
        // Never closed, so there is always a permit in the end.
        let Ok(permit) = self.total.acquire_many(bytes).await else { return };
        loop {
            let room = self.room.notified();
            if self.enter(count, bytes as usize) {
                return permit.forget();
            }
            room.await;
        }
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

    /// Whether answers have waited for so long without the client taking any.
    pub(crate) fn stalled(&self, limit: Duration) -> bool {
        let inner = self.lock();
        !inner.out.is_empty() && inner.progress.elapsed() > limit
    }

    /// Gives up on a client that takes nothing: what waits for it is dropped.
    pub(crate) fn cut(&self, why: OpError) {
        let mut inner = self.lock();
        inner.out.clear();
        inner.end = Some(Err(why));
        wake(inner);
        self.over.cancel();
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
        inner.progress = Instant::now();
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
        let mut freed = 0;
        while let Some((count, bytes)) = inner.groups.front_mut() {
            let answered = replies.min(*count);
            *count -= answered;
            replies -= answered;
            if *count > 0 {
                break;
            }
            freed += *bytes;
            inner.groups.pop_front();
        }
        inner.bytes -= freed;
        inner.drained += weight;
        if inner.drained >= DRAINED_STEP {
            // Without a driver nobody needs to know.
            let bytes = std::mem::take(&mut inner.drained);
            let _ = self.asides.send(Aside::Drained { conn: self.conn, bytes });
        }
        drop(inner);
        self.total.add_permits(freed);
        // There is one reader; it may be about to wait, so the notice is kept for it.
        self.room.notify_one();
    }

    /// A request larger than the bound counts as much as the bound: it waits for all others to leave.
    fn counted(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bounds.stream_bytes).min(self.bounds.total_bytes)).unwrap_or(u32::MAX)
    }

    fn enter(&self, count: usize, bytes: usize) -> bool {
        let mut inner = self.lock();
        let room = inner.requests + count <= self.bounds.stream_requests
            && inner.bytes + bytes <= self.bounds.stream_bytes;
        if room && count > 0 {
            inner.requests += count;
            inner.bytes += bytes;
            inner.groups.push_back((count, bytes));
        }
        room
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let left = self.lock().bytes;
        self.total.add_permits(left);
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let writer = inner.writer.take();
    drop(inner);
    if let Some(writer) = writer {
        writer.wake();
    }
}
