//! The removal of expired znodes: by the leader's store, a few at a time, through the log.
//!
//! The state knows the candidates. Expiry uses the time of the log, which is only approximately known
//! between two entries. If a removal turns out to be early, it is rejected when its entry is applied,
//! and requested again later.

use std::time::Duration;

use api::Time;

/// Maximum number of pending entries for empty containers, and for znodes that are too old.
const AT_ONCE: usize = 100;

/// Minimum interval between two rounds while there is more to do.
const PAUSE: Duration = Duration::from_secs(1);

/// The state of the leader's store about its rounds.
#[derive(Default, Debug)]
pub(super) struct Reaper {
    /// Time of the next check.
    next: Time,
    /// Pending entries that it has requested.
    under_way: usize,
}

impl Reaper {
    /// Maximum of each sort in one round.
    pub(super) fn at_once(&self) -> usize {
        AT_ONCE
    }

    /// Time of the next check; `None` during a round.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        (self.under_way == 0).then_some(self.next)
    }

    /// Whether a check is due.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next_timeout().is_some_and(|next| next <= now)
    }

    /// Records a round that has requested this many entries.
    pub(super) fn asked(&mut self, now: Time, asked: usize, interval: Duration) {
        self.under_way = asked;
        self.next = now + if asked >= AT_ONCE { PAUSE.min(interval) } else { interval };
    }

    /// Records that one of the entries has arrived, or never will.
    pub(super) fn settled(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}
