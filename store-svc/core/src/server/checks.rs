//! Checks that the stores of all nodes have the same state.
//!
//! The leader's store periodically writes a check into the log. Each check contains the digest of the
//! leader's state after the previous check. Every store has recorded its own digest there, and compares
//! the two when it applies the check. Both belong to the same entry, even if a store lags.

use std::time::Duration;

use api::mutants::{Mutant, is_on};
use api::{Time, Zxid};

/// A check is also due after this many entries.
const ENTRIES: u64 = 100_000;

/// The state of a store about checks.
#[derive(Default, Debug)]
pub(super) struct Checks {
    /// The last applied check, and the digest after it.
    noted: Option<(Zxid, u64)>,
    /// The last check verified the recorded digest.
    compared: bool,
    /// The last check after which this store's digest equalled the leader's.
    agreed: Zxid,
    /// Number of other entries since.
    entries: u64,
    /// When the last check was applied or requested.
    since: Time,
    /// A check is requested.
    under_way: bool,
}

impl Checks {
    /// The last entry after which both states were compared and equal.
    pub(super) fn agreed(&self) -> Zxid {
        self.agreed
    }

    /// The recorded digest after the last check.
    pub(super) fn noted(&self) -> Option<u64> {
        self.noted.map(|(_, digest)| digest)
    }

    /// Handles an applied entry that is not a check.
    pub(super) fn entry(&mut self) {
        self.entries += 1;
    }

    /// Handles the applied check at `zxid`, where the own digest is `own`; the leader had `digest`
    /// after the check at `of`. Returns false if this store had another digest there.
    pub(super) fn check(&mut self, now: Time, zxid: Zxid, own: u64, of: Zxid, digest: u64) -> bool {
        let before = self.noted.filter(|(at, _)| *at == of);
        let compared = before == Some((of, own)) && self.entries == 0;
        let same = before.is_none_or(|(_, noted)| noted == digest) || is_on(Mutant::DigestUnchecked);
        let agreed = if before.is_some() && same { of } else { self.agreed };
        *self = Checks { noted: Some((zxid, own)), compared, agreed, since: now, ..Checks::default() };
        same
    }

    /// When the next check is due at the interval `every`; `None` while there is nothing to compare.
    pub(super) fn next_timeout(&self, every: Duration) -> Option<Time> {
        let due = self.since + if self.entries >= ENTRIES { Duration::ZERO } else { every };
        (!self.under_way && (self.entries > 0 || !self.compared)).then_some(due)
    }

    /// The content of a check written now, if one is due.
    pub(super) fn take_due(&mut self, now: Time, every: Duration) -> Option<(Zxid, u64)> {
        self.next_timeout(every).filter(|due| *due <= now)?;
        (self.since, self.under_way) = (now, true);
        Some(self.noted.unwrap_or_default())
    }

    /// Allows the next request, because the requested check may never arrive.
    pub(super) fn retry(&mut self) {
        self.under_way = false;
    }
}
