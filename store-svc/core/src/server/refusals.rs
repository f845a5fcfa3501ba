//! Limits the rejections for lack of disk space that a node logs per second.
//!
//! The rejection of a numbered write is an entry, because only the log can consume its number. So the
//! later writes of its session continue, and none is applied twice. But a client that repeats thousands
//! of writes would fill the rest of the disks with rejections. So this module limits their rate, and
//! the later requests of a connection wait with the write that waits for its rejection. Requests of all
//! other connections continue.

use std::{collections::VecDeque, time::Duration};

use api::Time;

use super::ConnId;

#[derive(Default, Debug)]
pub(super) struct Refusals {
    /// Number of further rejections ...
    left: usize,
    /// ... before this time.
    until: Time,
    /// Connections whose next write waits for its rejection, in order of their turns. A connection
    /// occurs once.
    waiting: VecDeque<ConnId>,
}

impl Refusals {
    /// Whether a connection may log a rejection now. If it has one `more` in its turn, others go first.
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

    /// The connection whose turn it is now.
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

/// An entry needs some 130 bytes on each node.
pub(super) const PER_PERIOD: usize = 50;
pub(super) const PERIOD: Duration = Duration::from_millis(100);
