//! Requests between a store and its quorum.

use std::collections::BTreeMap;

use api::{
    Origin, PeerId, Ticket,
    ports::{FeedItem, Request},
};

/// Requests that were sent over the present link and are not answered.
///
/// On the wire tickets ascend over all stores that ever attach to a quorum. A store's own tickets follow its
/// clock, which may have gone back since the store before it; the client raises them in requests, and
/// lowers them again in the feed.
#[derive(Debug)]
pub(super) struct Tickets {
    me: PeerId,
    /// The greatest on the wire so far.
    last: u64,
    /// By what they are called on the wire.
    sent: BTreeMap<u64, Ticket>,
}

impl Tickets {
    pub(super) fn new(me: PeerId) -> Tickets {
        Tickets { me, last: 0, sent: BTreeMap::new() }
    }

    /// There is a new link, to a quorum that has seen tickets up to `last`.
    pub(super) fn linked(&mut self, last: u64) {
        self.last = last;
    }

    /// Calls a request as the wire does, and remembers it.
    pub(super) fn out(&mut self, request: &mut Request) {
        if let Request::Submit { ticket, .. } | Request::Barrier { ticket } = request {
            self.last = ticket.0.max(self.last.saturating_add(1));
            self.sent.insert(self.last, *ticket);
            *ticket = Ticket(self.last);
        }
    }

    /// Calls an item as the store does. `None` for an answer to something that this store has not asked over this link.
    pub(super) fn back(&mut self, mut item: FeedItem) -> Option<FeedItem> {
        match &mut item {
            FeedItem::Committed(entries) => {
                for entry in entries.iter_mut() {
                    if let Some(Origin { peer, ticket }) = entry.origin
                        && peer == self.me
                    {
                        // No caller waits for a ticket of an earlier store, or of an earlier link.
                        let ticket = self.sent.remove(&ticket.0);
                        entry.origin = ticket.map(|ticket| Origin { peer, ticket });
                    }
                }
            }
            FeedItem::Barrier { ticket } | FeedItem::Refused { ticket, .. } | FeedItem::Lost { ticket } => {
                *ticket = self.sent.remove(&ticket.0)?;
            }
            _ => {}
        }
        Some(item)
    }

    /// The link is gone: what becomes of these, the store cannot know. In their order.
    pub(super) fn lose(&mut self) -> Vec<FeedItem> {
        std::mem::take(&mut self.sent).into_values().map(|ticket| FeedItem::Lost { ticket }).collect()
    }
}

#[cfg(test)]
mod tests {
    use api::{Body, Entry, Epoch, Zxid, ports::Refusal};
    use bytes::Bytes;

    use super::*;

    const ME: PeerId = PeerId(1);

    fn out(tickets: &mut Tickets, ticket: u64) -> u64 {
        let mut request = Request::Submit { ticket: Ticket(ticket), payload: Bytes::new(), trace: None };
        tickets.out(&mut request);
        let Request::Submit { ticket, .. } = request else { unreachable!() };
        ticket.0
    }

    fn committed(peer: PeerId, ticket: u64) -> FeedItem {
        let origin = Some(Origin { peer, ticket: Ticket(ticket) });
        FeedItem::Committed(vec![Entry {
            zxid: Zxid::new(Epoch(1), 1),
            time_ms: 0,
            origin,
            body: Body::Store(Bytes::new()),
            trace: None,
        }])
    }

    fn origin(item: Option<FeedItem>) -> Option<u64> {
        let Some(FeedItem::Committed(entries)) = item else { panic!("{item:?}") };
        entries[0].origin.map(|o| o.ticket.0)
    }

    #[test]
    fn answers_come_back_under_the_stores_own_tickets() {
        let mut tickets = Tickets::new(ME);
        tickets.linked(0);
        assert_eq!((out(&mut tickets, 10), out(&mut tickets, 11)), (10, 11));
        assert_eq!(origin(tickets.back(committed(ME, 10))), Some(10));
        assert_eq!(origin(tickets.back(committed(PeerId(2), 11))), Some(11), "another node's is left alone");
        let refused = FeedItem::Refused { ticket: Ticket(11), why: Refusal::Full };
        assert_eq!(tickets.back(refused.clone()), Some(refused.clone()));
        assert_eq!(tickets.back(refused), None, "once is enough");
        assert!(tickets.lose().is_empty());
    }

    #[test]
    fn a_store_whose_clock_went_back_is_not_taken_for_the_one_before_it() {
        let mut tickets = Tickets::new(ME);
        tickets.linked(1000);
        assert_eq!(
            (out(&mut tickets, 10), out(&mut tickets, 11), out(&mut tickets, 5000)),
            (1001, 1002, 5000)
        );
        assert_eq!(origin(tickets.back(committed(ME, 10))), None, "an entry of an earlier store");
        assert_eq!(origin(tickets.back(committed(ME, 1001))), Some(10));
        assert_eq!(
            tickets.lose(),
            [FeedItem::Lost { ticket: Ticket(11) }, FeedItem::Lost { ticket: Ticket(5000) }]
        );
        assert_eq!(tickets.back(FeedItem::Barrier { ticket: Ticket(1002) }), None, "it was given up");
    }
}
