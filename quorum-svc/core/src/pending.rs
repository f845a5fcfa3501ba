//! Writes of this server's store between submission and commit.

use std::collections::VecDeque;

use api::mutants::{Mutant, is_on};
use api::{Ticket, Time, Trace, Zxid};
use bytes::Bytes;

use crate::Submission;

/// Holds each write until it is known to be committed, so that an election neither loses nor repeats
/// one. After synchronisation with a new leader a write is either in the common log, and will be
/// committed, or in no log, and is sent again.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Pending {
    /// Ascending tickets. Items with `logged` come first, and their zxids ascend.
    items: VecDeque<Item>,
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Item {
    ticket: Ticket,
    payload: Bytes,
    trace: Trace,
    since: Time,
    /// A leader may have seen the write. Without a leader's answer, only a write that no leader saw can be
    /// refused.
    sent: bool,
    /// Position in this server's log.
    logged: Option<Zxid>,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns false if the ticket does not ascend: an error of the store.
    #[must_use]
    pub(crate) fn push(&mut self, submission: Submission, since: Time) -> bool {
        let Submission { ticket, payload, trace } = submission;
        if self.items.back().is_some_and(|last| last.ticket >= ticket) {
            return false;
        }
        self.bytes += payload.len();
        self.items.push_back(Item { ticket, payload, trace, since, sent: false, logged: None });
        true
    }

    /// Records the position of a write in the log.
    pub(crate) fn logged(&mut self, ticket: Ticket, zxid: Zxid) {
        if let Ok(i) = self.items.binary_search_by_key(&ticket, |item| item.ticket) {
            self.items[i].logged = Some(zxid);
            self.items[i].sent = true;
        }
    }

    /// Removes the writes up to `upto`: they are committed.
    pub(crate) fn committed(&mut self, upto: Zxid) {
        while self.items.front().is_some_and(|item| item.logged.is_some_and(|z| z <= upto)) {
            if let Some(item) = self.items.pop_front() {
                self.bytes -= item.payload.len();
            }
        }
    }

    /// Handles a log that was cut behind `to`.
    pub(crate) fn truncated(&mut self, to: Zxid) {
        for item in &mut self.items {
            if item.logged.is_some_and(|z| z > to) {
                item.logged = None;
            }
        }
    }

    /// Removes writes that are in no log although a later write is in the log. A leader orders the
    /// writes of a server by ticket. So it refused these, and its refusal was lost with the connection.
    /// If they were sent again, they would come behind later writes.
    pub(crate) fn take_overtaken(&mut self) -> Vec<Ticket> {
        let Some(last) = self.items.iter().rposition(|item| item.logged.is_some()) else { return Vec::new() };
        let overtaken: Vec<Ticket> =
            self.items.range(..last).filter(|item| item.logged.is_none()).map(|item| item.ticket).collect();
        for &ticket in &overtaken {
            self.remove(ticket);
        }
        overtaken
    }

    /// The writes to send to a leader, once the log's content is settled.
    pub(crate) fn unlogged(&mut self) -> Vec<Submission> {
        self.items
            .iter_mut()
            .filter(|item| item.logged.is_none() || is_on(Mutant::ResentTwice))
            .map(|item| {
                item.sent = true;
                Submission { ticket: item.ticket, payload: item.payload.clone(), trace: item.trace.clone() }
            })
            .collect()
    }

    /// Marks the last pushed write as sent.
    pub(crate) fn mark_last_sent(&mut self) {
        if let Some(item) = self.items.back_mut() {
            item.sent = true;
        }
    }

    /// Removes one write. Returns false if there was none.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> bool {
        let Ok(i) = self.items.binary_search_by_key(&ticket, |item| item.ticket) else { return false };
        if let Some(item) = self.items.remove(i) {
            self.bytes -= item.payload.len();
        }
        true
    }

    /// Removes the writes that no leader has seen and that have waited since `since` or longer.
    pub(crate) fn take_unsent(&mut self, since: Time) -> Vec<Ticket> {
        let (gone, kept): (VecDeque<Item>, VecDeque<Item>) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|item| (!item.sent || is_on(Mutant::RefusedThoughSent)) && item.since <= since);
        self.items = kept;
        self.bytes = self.items.iter().map(|item| item.payload.len()).sum();
        gone.into_iter().map(|item| item.ticket).collect()
    }

    /// Start of the longest wait among writes that no leader has seen.
    pub(crate) fn oldest_unsent(&self) -> Option<Time> {
        self.items.iter().find(|item| !item.sent).map(|item| item.since)
    }

    /// Removes all writes.
    pub(crate) fn take_all(&mut self) -> Vec<Ticket> {
        self.bytes = 0;
        std::mem::take(&mut self.items).into_iter().map(|item| item.ticket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Epoch;

    fn z(e: u32, c: u32) -> Zxid {
        Zxid::new(Epoch(e), c)
    }

    fn traced() -> Trace {
        api::TraceContext::new([1; 16], [2; 8], true).map(Box::new)
    }

    fn write(ticket: u64, payload: Bytes) -> Submission {
        Submission { ticket: Ticket(ticket), payload, trace: traced() }
    }

    #[test]
    fn a_write_is_sent_again_only_if_it_stands_in_no_log() {
        let mut p = Pending::default();
        for t in 1..=4 {
            assert!(p.push(write(t, Bytes::from_static(b"xy")), Time(t)));
        }
        assert!(!p.push(write(4, Bytes::new()), Time(9)), "tickets ascend");
        assert_eq!(p.unlogged().len(), 4);
        p.logged(Ticket(1), z(1, 1));
        p.logged(Ticket(2), z(1, 2));
        p.logged(Ticket(3), z(1, 3));
        p.truncated(z(1, 2));
        let again: Vec<u64> = p.unlogged().iter().map(|s| s.ticket.0).collect();
        assert_eq!(again, [3, 4]);
        assert!(p.unlogged().iter().all(|s| s.trace == traced()), "each time with its trace");
        p.committed(z(2, 0));
        assert_eq!((p.len(), p.bytes()), (2, 4));
    }

    #[test]
    fn only_a_write_that_no_leader_saw_can_be_refused() {
        let mut p = Pending::default();
        assert!(p.push(write(1, Bytes::new()), Time(1)));
        let _ = p.unlogged();
        assert!(p.push(write(2, Bytes::new()), Time(2)));
        assert!(p.push(write(3, Bytes::new()), Time(5)));
        assert_eq!(p.oldest_unsent(), Some(Time(2)));
        assert_eq!(p.take_unsent(Time(3)), [Ticket(2)]);
        assert_eq!(p.len(), 2);
    }
}
