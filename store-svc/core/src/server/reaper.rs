//! When znodes are removed whose time is over: by the leader's store, a few at a time, through the log.
//!
//! The state knows which they are. Their time is that of the log, as far as it can be told between two entries: what turns out too
//! early is refused where its entry stands, and asked for again later.

use std::time::Duration;

use api::Time;

/// Most entries of this kind under way, of those that are empty and of those that are too old.
const AT_ONCE: usize = 100;

/// Between two rounds while there is more to do, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// What the leader's store remembers of its rounds.
#[derive(Default, Debug)]
pub(super) struct Reaper {
    /// When it looks again.
    next: Time,
    /// Entries that it has asked for and that have not come.
    under_way: usize,
}

impl Reaper {
    /// Most of each sort that one round asks for.
    pub(super) fn at_once(&self) -> usize {
        AT_ONCE
    }

    /// When it looks again; `None` while a round is under way.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        (self.under_way == 0).then_some(self.next)
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next_timeout().is_some_and(|next| next <= now)
    }

    /// A round has asked for so many.
    pub(super) fn asked(&mut self, now: Time, asked: usize, interval: Duration) {
        self.under_way = asked;
        self.next = now + if asked >= AT_ONCE { PAUSE.min(interval) } else { interval };
    }

    /// One of them has come, or never will.
    pub(super) fn settled(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}
