//! The state that a client's stream shares between its reader, its writer and the driver: pending
//! answers, and the amount of data in flight.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use api::{
    OpError,
    budget::{Charge, Share},
    mutants::{Mutant, is_on},
    session::{Item, Request},
};
use store_core::server::ConnId;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Bounds, driver::Aside};

/// The lane reports to the driver in steps of this many bytes how far a client has taken its answers.
/// It is less than any useful `Limits::unsent_max`.
const DRAINED_STEP: usize = 256 << 10;

/// With an empty queue it reports earlier: unreported bytes count against the total of all streams.
const DRAINED_LAST: usize = 8 << 10;

/// Number of pings and closes of a stream that need no capacity: more than a client has in flight while
/// it waits for answers.
const FREE: usize = 8;

/// A stream.
pub(crate) struct Lane {
    conn: ConnId,
    bounds: Bounds,
    inner: Mutex<Inner>,
    /// Notified when answers were taken, so that there may be capacity for requests.
    room: Notify,
    /// Cancelled when the client or the driver has ended the stream.
    over: CancellationToken,
    /// Bytes of requests that all streams of the connection may have in flight.
    share: Share,
    /// Reports to the driver. Unbounded, but each message stands for at least [`DRAINED_LAST`] sent bytes.
    asides: mpsc::UnboundedSender<Aside>,
}

struct Inner {
    out: VecDeque<Item>,
    /// The end of the stream, after `out`.
    end: Option<Result<(), OpError>>,
    writer: Option<Waker>,
    /// Requests that were admitted together and are not all answered.
    groups: VecDeque<Group>,
    requests: usize,
    /// The light ones of `requests`: see [`Load::light`].
    light: usize,
    bytes: usize,
    /// Weight of the answers that the writer took last.
    taken: usize,
    /// Taken by the writer, and not yet reported to the driver.
    drained: usize,
    /// Charge for queued answers after the driver has ended the stream and no longer accounts for them.
    left_over: Option<Charge>,
}

struct Group {
    /// Number of unanswered requests.
    left: usize,
    light: usize,
    bytes: usize,
    _charge: Charge,
}

/// Requests that are admitted together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    /// Number of pings and closes. [`FREE`] of them need no capacity, each further one [`Request::WEIGHT`].
    pub(crate) light: usize,
    /// Bytes of the other requests.
    pub(crate) bytes: usize,
}

impl Load {
    pub(crate) fn of(requests: &[Request]) -> Load {
        let mut load = Load { requests: requests.len(), ..Load::default() };
        for Request { op, .. } in requests {
            match op.is_light() {
                true => load.light += 1,
                false => load.bytes += op.weight(),
            }
        }
        load
    }
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
            light: 0,
            bytes: 0,
            taken: 0,
            drained: 0,
            left_over: None,
        };
        let (inner, room, over) = (Mutex::new(inner), Notify::new(), CancellationToken::new());
        Lane { conn, bounds, inner, room, over, share, asides }
    }

    // ---- for the driver ----

    /// Queues items for the client.
    pub(crate) fn send(&self, items: Vec<Item>) {
        let mut inner = self.lock();
        inner.out.extend(items);
        wake(inner);
    }

    /// Ends the stream after the queued items. Only the first call counts. Unanswered requests will not
    /// be answered, and hold nothing.
    pub(crate) fn end(&self, why: Result<(), OpError>) {
        let mut inner = self.lock();
        if inner.end.is_none() {
            inner.end = Some(why);
            inner.left_over = Some(self.share.take_anyway(inner.taken + cost(&inner.out)));
        }
        (inner.light, inner.bytes) = (0, 0);
        let groups = std::mem::take(&mut inner.groups);
        wake(inner);
        if is_on(Mutant::RequestsKept) {
            groups.into_iter().for_each(std::mem::forget);
        } else {
            drop(groups);
        }
        self.over.cancel();
    }

    // ---- for the reader ----

    /// Admits more requests, if the stream and the connection have capacity for them. They release it
    /// when their answers are taken.
    pub(crate) fn try_admit(&self, load: Load) -> bool {
        let Some(bytes) = self.room_for(load) else { return false };
        match self.share.try_take(bytes) {
            Some(charge) => {
                self.enter(load, bytes, charge);
                true
            }
            None => false,
        }
    }

    /// As [`Lane::try_admit`], but waits for capacity. If the future is dropped early, nothing is admitted.
    pub(crate) async fn admit(&self, load: Load) {
        let bytes = loop {
            let room = self.room.notified();
            if let Some(bytes) = self.room_for(load) {
                break bytes;
            }
            room.await;
        };
        // There is one reader, so the capacity remains.
        let charge = self.share.take(bytes).await;
        self.enter(load, bytes, charge);
    }

    /// Waits until all admitted requests are answered.
    pub(crate) async fn settled(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().requests == 0 {
                return;
            }
            room.await;
        }
    }

    /// Waits until the stream has ended.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether the stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    // ---- for the writer ----

    /// The next answers, at most `max`; `None` after the last, with the reason of the end.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut VecDeque<Item>,
    ) -> Poll<Option<Result<(), OpError>>> {
        let mut inner = self.lock();
        if !inner.out.is_empty() {
            if inner.out.len() <= max && into.is_empty() {
                std::mem::swap(&mut inner.out, into);
            } else {
                let n = inner.out.len().min(max);
                into.extend(inner.out.drain(..n));
            }
            inner.taken = cost(into);
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

    /// The transport has taken this many answers of this [weight](Item::weight).
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
            let (light, bytes) = (group.light, group.bytes);
            inner.light -= light;
            inner.bytes -= bytes;
            freed.extend(inner.groups.pop_front());
        }
        inner.drained += weight;
        let step = if inner.out.is_empty() { DRAINED_LAST } else { DRAINED_STEP };
        if inner.drained >= step {
            // Without a driver, the report is not needed.
            let bytes = std::mem::take(&mut inner.drained);
            let _ = self.asides.send(Aside::Drained { conn: self.conn, bytes });
        }
        drop(inner);
        drop(freed);
        // There is one reader; it may be about to wait, so the notification is stored for it.
        self.room.notify_one();
    }

    /// The bytes to take from the share, if the stream has capacity. A request larger than the bound
    /// waits until all others have left.
    fn room_for(&self, load: Load) -> Option<usize> {
        let Load { requests, light, bytes } = load;
        let inner = self.lock();
        let free = FREE.saturating_sub(inner.light);
        let bytes = bytes + light.saturating_sub(free) * Request::WEIGHT;
        let room = inner.requests + requests <= self.bounds.stream_requests
            && (inner.bytes == 0 || inner.bytes + bytes <= self.bounds.stream_bytes);
        room.then_some(bytes)
    }

    fn enter(&self, load: Load, bytes: usize, charge: Charge) {
        let Load { requests, light, .. } = load;
        let mut inner = self.lock();
        // A stream that has ended gets no answers.
        if requests > 0 && inner.end.is_none() {
            inner.requests += requests;
            inner.light += light;
            inner.bytes += bytes;
            inner.groups.push_back(Group { left: requests, light, bytes, _charge: charge });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code under this lock panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Weight of these answers.
fn cost(answers: &VecDeque<Item>) -> usize {
    answers.iter().map(|answer| Item::SIZE + answer.weight()).sum()
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let writer = inner.writer.take();
    drop(inner);
    if let Some(writer) = writer {
        writer.wake();
    }
}

#[cfg(test)]
mod tests {
    use api::{
        Zxid,
        budget::Budget,
        session::{Outcome, Response},
    };

    use super::*;

    fn pings(count: usize) -> Load {
        Load { requests: count, light: count, bytes: 0 }
    }

    fn pongs(count: usize) -> Vec<Item> {
        let pong =
            Item::Response(Response { xid: 1, zxid: Zxid(1), result: Ok(Outcome::Ping), leaderless: false });
        vec![pong; count]
    }

    /// A thousand streams kept a whole node's capacity for answers. Each client had taken all answers
    /// except slightly less than one reporting step.
    #[test]
    fn what_a_client_has_taken_whole_is_told_soon() {
        let (held, (asides, mut told)) = (Budget::new(8 << 20), mpsc::unbounded_channel());
        let lane = Lane::new(ConnId(1), Bounds::default(), held.share(), asides);
        lane.send(pongs(2));
        let mut taken = VecDeque::new();
        assert!(lane.poll_take(&mut Context::from_waker(Waker::noop()), 1, &mut taken).is_ready());
        lane.took(1, 100 << 10);
        assert!(told.try_recv().is_err(), "more is to be sent");
        assert!(lane.poll_take(&mut Context::from_waker(Waker::noop()), 100, &mut taken).is_ready());
        lane.took(1, 1 << 10);
        assert!(matches!(told.try_recv(), Ok(Aside::Drained { bytes, .. }) if bytes == 101 << 10));
    }

    #[test]
    fn b07_answers_to_pings_are_counted_but_for_a_few() {
        let (held, (asides, _told)) = (Budget::new(8 << 20), mpsc::unbounded_channel());
        let lane = Lane::new(ConnId(1), Bounds::default(), held.share(), asides);
        // Small parts cannot use the last quarter.
        let mut all: Vec<_> = (0..3).filter_map(|_| held.share().try_take(2 << 20)).collect();
        all.extend((0..32).filter_map({
            let share = held.share();
            let small = held.small();
            move |_| share.try_take(small)
        }));
        assert_eq!(held.used(), 8 << 20);
        assert!(lane.try_admit(pings(FREE)), "these need no room");
        assert!(!lane.try_admit(pings(1)));
        drop(all);
        assert!(lane.try_admit(pings(1000)));
        assert_eq!(held.used(), 1000 * Request::WEIGHT);
        lane.took(FREE, 0);
        assert!(lane.try_admit(pings(1)));
        assert_eq!(
            held.used(),
            1001 * Request::WEIGHT,
            "more than a few are under way as long as the thousand wait"
        );
        lane.took(1001, 0);
        assert_eq!(held.used(), 0);
        lane.send(pongs(500));
        let mut taken = VecDeque::new();
        assert!(lane.poll_take(&mut Context::from_waker(Waker::noop()), 100, &mut taken).is_ready());
        lane.end(Ok(()));
        assert_eq!(held.used(), 500 * Item::SIZE, "what waits when the stream ends, as long as it is there");
        drop(lane);
        assert_eq!(held.used(), 0);
    }
}
