//! Whether the stores of all nodes have the same state.
//!
//! The leader's store has a check written into the log now and then. Each check says which digest the leader's state had behind
//! the check before it. Every store has noted its own one there, and compares the two when it applies the check: both are of
//! the same entry, however far a store is behind.

use std::time::Duration;

use api::mutants::{Mutant, is_on};
use api::{Time, Zxid};

/// It is also due after so many entries.
const ENTRIES: u64 = 100_000;

/// What a store remembers of checks.
#[derive(Default, Debug)]
pub(super) struct Checks {
    /// The last check that was applied, and the digest behind it.
    noted: Option<(Zxid, u64)>,
    /// The last check compared what is noted.
    compared: bool,
    /// The last check behind which this store's digest was found to be the leader's.
    agreed: Zxid,
    /// Other entries since.
    entries: u64,
    /// When the last check was applied, or asked for.
    since: Time,
    /// One is asked for.
    under_way: bool,
}

impl Checks {
    /// The last entry behind which both states were compared and equal.
    pub(super) fn agreed(&self) -> Zxid {
        self.agreed
    }

    /// The digest behind the last check.
    pub(super) fn noted(&self) -> Option<u64> {
        self.noted.map(|(_, digest)| digest)
    }

    /// An entry that is no check was applied.
    pub(super) fn entry(&mut self) {
        self.entries += 1;
    }

    /// The check at `zxid` was applied, with `own` digest; the leader had `digest` behind the check at `of`. False if this
    /// store had another one there.
    pub(super) fn check(&mut self, now: Time, zxid: Zxid, own: u64, of: Zxid, digest: u64) -> bool {
        let before = self.noted.filter(|(at, _)| *at == of);
        let compared = before == Some((of, own)) && self.entries == 0;
        let same = before.is_none_or(|(_, noted)| noted == digest) || is_on(Mutant::DigestUnchecked);
        let agreed = if before.is_some() && same { of } else { self.agreed };
        *self = Checks { noted: Some((zxid, own)), compared, agreed, since: now, ..Checks::default() };
        same
    }

    /// When the next check is due, `every` so often; `None` while there is nothing to compare.
    pub(super) fn next_timeout(&self, every: Duration) -> Option<Time> {
        let due = self.since + if self.entries >= ENTRIES { Duration::ZERO } else { every };
        (!self.under_way && (self.entries > 0 || !self.compared)).then_some(due)
    }

    /// What a check that is written now has to say, if one is due.
    pub(super) fn take_due(&mut self, now: Time, every: Duration) -> Option<(Zxid, u64)> {
        self.next_timeout(every).filter(|due| *due <= now)?;
        (self.since, self.under_way) = (now, true);
        Some(self.noted.unwrap_or_default())
    }

    /// The check that was asked for may never come.
    pub(super) fn retry(&mut self) {
        self.under_way = false;
    }
}
