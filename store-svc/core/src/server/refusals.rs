//! How many refusals for want of disk space a node logs in a second.
//!
//! The refusal of a numbered write is an entry, because only the log can use its number up: so the later writes of its session go
//! on, and nothing is carried out twice. But a client that sends thousands of writes again and again would fill the rest of the
//! disks with its refusals. So they come no faster than this, and the later requests of a connection wait with the write that
//! waits for its refusal. Requests of all other connections go on.

use std::{collections::VecDeque, time::Duration};

use api::Time;

use super::ConnId;

#[derive(Default, Debug)]
pub(super) struct Refusals {
    /// So many more may be logged ...
    left: usize,
    /// ... before this.
    until: Time,
    /// Connections whose next write waits for its refusal, in turn. A connection is here once.
    waiting: VecDeque<ConnId>,
}

impl Refusals {
    /// Whether a connection may log one now. With one `more` in its turn it lets others go first.
    pub(super) fn take(&mut self, now: Time, more: bool) -> bool {
        if now >= self.until {
            (self.left, self.until) = (PER_PERIOD, now + PERIOD);
        }
        let may = self.left > 0 && (!more || self.waiting.is_empty());
        self.left -= usize::from(may);
        may
    }

    pub(super) fn wait(&mut self, id: ConnId) {
        self.waiting.push_back(id);
    }

    /// Whose turn it is now.
    pub(super) fn next(&mut self, now: Time) -> Option<ConnId> {
        let due = self.left > 0 || now >= self.until;
        self.waiting.pop_front_if(|_| due)
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.until)
    }

    pub(super) fn forget(&mut self, id: ConnId) {
        self.waiting.retain(|other| *other != id);
    }
}

/// An entry takes some 130 bytes on each node.
pub(super) const PER_PERIOD: usize = 50;
pub(super) const PERIOD: Duration = Duration::from_millis(100);
