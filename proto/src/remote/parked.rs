//! Requests that wait for a link.

use std::collections::VecDeque;

use api::ports::{FeedItem, Refusal, Request};
use tokio::time::Instant;

use super::Bounds;

/// Requests of the store while its quorum cannot be reached. They are kept for a while, as a quorum keeps
/// requests while it has no leader. No server has seen them, so they can be refused without a doubt.
#[derive(Debug)]
pub(super) struct Parked {
    bounds: Bounds,
    waiting: VecDeque<(Instant, Request)>,
    bytes: usize,
}

impl Parked {
    pub(super) fn new(bounds: Bounds) -> Parked {
        Parked { bounds, waiting: VecDeque::new(), bytes: 0 }
    }

    /// Keeps what there is room for, and returns a refusal for all else.
    pub(super) fn park(&mut self, batch: Vec<Request>) -> Vec<FeedItem> {
        let now = Instant::now();
        let mut refused = Vec::new();
        for request in batch {
            let weight = weight(&request);
            match request {
                // Old news by the time it could be delivered.
                Request::Report(_) | Request::Confirm { .. } => {}
                Request::Submit { ticket, .. } | Request::Barrier { ticket }
                    if self.waiting.len() >= self.bounds.requests
                        || self.bytes + weight > self.bounds.bytes =>
                {
                    refused.push(FeedItem::Refused { ticket, why: Refusal::Full });
                }
                request => {
                    self.bytes += weight;
                    self.waiting.push_back((now, request));
                }
            }
        }
        refused
    }

    /// When the first is given up; `None` if none waits.
    pub(super) fn until(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since + self.bounds.park)
    }

    /// Refuses what has waited for too long.
    pub(super) fn give_up(&mut self) -> Vec<FeedItem> {
        let now = Instant::now();
        let mut refused = Vec::new();
        while let Some((since, request)) = self.waiting.pop_front() {
            if now < since + self.bounds.park {
                self.waiting.push_front((since, request));
                break;
            }
            self.bytes -= weight(&request);
            if let Request::Submit { ticket, .. } | Request::Barrier { ticket } = request {
                refused.push(FeedItem::Refused { ticket, why: Refusal::NoLeader });
            }
        }
        refused
    }

    /// There is a link.
    pub(super) fn take(&mut self) -> Vec<Request> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|(_, request)| request).collect()
    }
}

/// Bytes of a request that count.
pub(super) fn weight(request: &Request) -> usize {
    match request {
        Request::Submit { payload, .. } => payload.len(),
        Request::Barrier { .. } => 0,
        Request::Report(report) | Request::Confirm { report, .. } => report.len(),
    }
}

/// Never, if nothing waits.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::Ticket;
    use bytes::Bytes;

    use super::*;

    const BOUNDS: Bounds = Bounds { requests: 3, bytes: 100, park: Duration::from_secs(10) };

    fn submit(ticket: u64, bytes: usize) -> Request {
        Request::Submit { ticket: Ticket(ticket), payload: Bytes::from(vec![0; bytes]), trace: None }
    }

    fn refused(ticket: u64, why: Refusal) -> FeedItem {
        FeedItem::Refused { ticket: Ticket(ticket), why }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_is_refused_and_what_waits_too_long() {
        let mut parked = Parked::new(BOUNDS);
        assert_eq!(parked.until(), None);
        assert_eq!(parked.park(vec![submit(1, 60), submit(2, 60)]), [refused(2, Refusal::Full)]);
        tokio::time::advance(Duration::from_secs(4)).await;
        let more = vec![Request::Report(Bytes::from_static(b"r")), submit(3, 40), submit(4, 0), submit(5, 0)];
        assert_eq!(parked.park(more), [refused(5, Refusal::Full)]);
        assert!(parked.give_up().is_empty());
        at(parked.until()).await;
        assert_eq!(parked.give_up(), [refused(1, Refusal::NoLeader)]);
        assert_eq!(parked.take(), [submit(3, 40), submit(4, 0)]);
        assert_eq!((parked.take(), parked.bytes), (vec![], 0));
    }
}
