//! The callers that wait for answers, by ticket, and the room that the unanswered requests take.

use std::{collections::VecDeque, sync::Arc};

use api::session::Outcome;
use api::{Ticket, Zxid};
use client_core::Failure;
use spans::Span;
use tokio::sync::{Semaphore, oneshot};

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// Of the answer, if there was one.
    pub(crate) zxid: Option<Zxid>,
    pub(crate) result: Result<Outcome, Failure>,
}

/// The callers, by ticket. Requests end nearly in the order in which they came, so this is a queue with rare holes.
#[derive(Debug)]
pub(crate) struct Waiters {
    first: u64,
    slots: VecDeque<Option<Waiter>>,
    room: Arc<Room>,
    /// Room that is free again, given back once per turn.
    freed: (usize, usize),
}

#[derive(Debug)]
struct Waiter {
    end: oneshot::Sender<End>,
    space: Option<Space>,
    span: Option<Span>,
}

impl Waiters {
    pub(crate) fn new(room: Arc<Room>) -> Waiters {
        Waiters { first: 0, slots: VecDeque::new(), room, freed: (0, 0) }
    }

    pub(crate) fn add(
        &mut self,
        end: oneshot::Sender<End>,
        space: Option<Space>,
        span: Option<Span>,
    ) -> Ticket {
        self.slots.push_back(Some(Waiter { end, space, span }));
        Ticket(self.first + self.slots.len() as u64 - 1)
    }

    pub(crate) fn end(&mut self, ticket: Ticket, end: End) {
        let index = ticket.0.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        let Some(waiter) = index.and_then(|i| self.slots.get_mut(i)?.take()) else { return };
        if let Some(space) = waiter.space {
            self.freed.0 += 1;
            self.freed.1 += space.bytes as usize;
        }
        if let Some(span) = waiter.span {
            close(span, &end);
        }
        // The receiver is gone if the caller dropped its `Pending`.
        let _ = waiter.end.send(end);
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Admits callers that wait for room.
    pub(crate) fn give_room_back(&mut self) {
        let (requests, bytes) = std::mem::take(&mut self.freed);
        if requests > 0 {
            self.room.requests.add_permits(requests);
            self.room.bytes.add_permits(bytes);
        }
    }
}

/// Ends the span of a request with its result.
fn close(mut span: Span, end: &End) {
    if let Some(zxid) = end.zxid {
        span.set("quorate.zxid", zxid.to_string());
    }
    if let Err(failure) = &end.result {
        let kind = match failure {
            Failure::Refused(error) => format!("{:?}", error.code()),
            _ => "NoAnswer".to_owned(),
        };
        span.set("error.type", kind);
        span.fail(failure.to_string());
    }
}

/// Room for unanswered requests, in number and bytes. First come, first served.
#[derive(Debug)]
pub(crate) struct Room {
    requests: Semaphore,
    bytes: Semaphore,
    bytes_max: u32,
}

/// The bytes that one request takes of the [`Room`], until its [`Waiter`] ends.
#[derive(Debug)]
pub(crate) struct Space {
    bytes: u32,
}

impl Room {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Room {
        let bytes_max = u32::try_from(bytes_max.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Room {
            requests: Semaphore::new(requests_max.clamp(1, Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(bytes_max as usize),
            bytes_max,
        }
    }

    /// Waits for room. A request larger than all room there is waits until it is alone.
    pub(crate) async fn take(&self, bytes: usize) -> Space {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        let first = self.requests.acquire().await;
        let second = self.bytes.acquire_many(bytes).await;
        // They are never closed. The permits come back through `Waiters`.
        first.into_iter().chain(second).for_each(tokio::sync::SemaphorePermit::forget);
        Space { bytes }
    }

    /// Takes room only if there is some at once.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Space> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        let first = self.requests.try_acquire().ok()?;
        let second = self.bytes.try_acquire_many(bytes).ok()?;
        first.forget();
        second.forget();
        Some(Space { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_may_end_in_any_order_and_give_their_room_back() {
        let room = Arc::new(Room::new(3, 100));
        let mut waiters = Waiters::new(Arc::clone(&room));
        let mut ends = Vec::new();
        let mut tickets = Vec::new();
        for bytes in [10, 1000, 5] {
            // The second one is clamped to all there is, so it waits for the first.
            let Some(space) = room.try_take(bytes) else { continue };
            let (end, ended) = oneshot::channel();
            tickets.push(waiters.add(end, Some(space), None));
            ends.push(ended);
        }
        assert_eq!(tickets, [Ticket(0), Ticket(1)]);
        let end = |result| End { zxid: None, result };
        waiters.end(Ticket(1), end(Ok(Outcome::Sync)));
        waiters.end(Ticket(1), end(Ok(Outcome::Ping)));
        assert_eq!(waiters.slots.len(), 2);
        waiters.end(Ticket(0), end(Err(Failure::Full)));
        assert_eq!((waiters.first, waiters.slots.len()), (2, 0));
        assert_eq!(ends[1].try_recv(), Ok(end(Ok(Outcome::Sync))));
        assert_eq!(ends[0].try_recv(), Ok(end(Err(Failure::Full))));
        assert!(room.try_take(100).is_none(), "not before it is given back");
        waiters.give_room_back();
        assert!(room.try_take(1000).is_some());
        assert!(room.try_take(1).is_none());
    }
}
