//! The check that is guided by zxids.

mod matching;
mod replay;
mod times;

use api::Zxid;
use store_core::server::Committed;

use crate::{Call, History, Outcome, Rule, Violation};

/// The number of checked operations. A check of none is suspicious, too.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Summary {
    /// In the history.
    pub operations: usize,
    /// Carried out, and the answer says where in the order.
    pub written: usize,
    /// Reads and syncs that were answered.
    pub read: usize,
    /// Certainly not carried out.
    pub refused: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// Of those, the writes that are among the committed entries; 0 where these are not known.
    pub unknown_found: usize,
    /// Reads that saw a later, overlapping write of their own session: they were sent again after a fail-over, and by
    /// then the write behind them had been carried out already.
    pub overtaken_reads: usize,
    /// Operations that the checker did not look at, because it cannot.
    pub skipped: usize,
    /// Groups of znodes that were searched independently of each other.
    pub objects: usize,
    /// Groups on which the search was given up.
    pub undecided: usize,
    /// Steps of the searches.
    pub steps: u64,
}

impl Summary {
    /// Counts the operations by their outcomes. Nothing is checked.
    #[must_use]
    pub fn of(history: &History) -> Summary {
        let mut summary = Summary { operations: history.operations.len(), ..Summary::default() };
        for operation in &history.operations {
            *match operation.outcome {
                Outcome::Written { .. } => &mut summary.written,
                Outcome::Read { .. } | Outcome::Synced { .. } => &mut summary.read,
                Outcome::Refused(_) => &mut summary.refused,
                Outcome::Unknown => &mut summary.unknown,
            } += 1;
        }
        summary
    }
}

/// Holds every answer against real time, against the order within sessions and, if `committed` is given, against the
/// replay of the committed entries. These have to be complete from the first entry of the first epoch on; use the
/// zxids in the answers alone where they are not to be had.
///
/// In O(n log n) but for writes of unknown outcome, each of which may cost O(n).
///
/// # Errors
/// The violation whose operation returned first.
pub fn check_order(history: &History, committed: Option<&[Committed]>) -> Result<Summary, Violation> {
    if let Some(index) = malformed(history) {
        let explanation =
            "the outcome does not fit the call, or it returned before it was called: the record is wrong";
        return Err(Violation {
            rule: Rule::Record,
            operation: Some(index),
            explanation: explanation.into(),
        });
    }
    let mut findings = Findings { history, first: None };
    let mut summary = Summary::of(history);
    let floors = times::Floors::of(history);
    summary.overtaken_reads = times::check(history, &floors, &mut findings);
    if let Some(committed) = committed {
        let carried_out = replay::check(history, committed, &mut findings);
        summary.unknown_found = matching::check(history, &carried_out, &floors, &mut findings);
    }
    match findings.first {
        None => Ok(summary),
        Some((_, violation)) => Err(violation),
    }
}

/// The first operation whose parts do not fit together.
fn malformed(history: &History) -> Option<usize> {
    history.operations.iter().position(|o| {
        let fits = matches!(
            (&o.call, &o.outcome),
            (Call::Write(_), Outcome::Written { .. })
                | (Call::Read(..), Outcome::Read { .. })
                | (Call::Sync, Outcome::Synced { .. })
                | (_, Outcome::Refused(_) | Outcome::Unknown)
        );
        let answered = o.outcome.zxid().is_none() || o.returned.is_some();
        !fits || !answered || o.returned.is_some_and(|returned| returned < o.called)
    })
}

/// The violation found so far whose operation returned first.
pub(crate) struct Findings<'a> {
    history: &'a History,
    first: Option<(u64, Violation)>,
}

impl Findings<'_> {
    fn report(&mut self, rule: Rule, operation: usize, explanation: impl FnOnce() -> String) {
        let returned = self.history.operations.get(operation).and_then(|o| o.returned).unwrap_or(u64::MAX);
        if self.first.as_ref().is_none_or(|(at, _)| returned < *at) {
            let violation = Violation { rule, operation: Some(operation), explanation: explanation() };
            self.first = Some((returned, violation));
        }
    }

    /// A fault of the committed entries, which makes everything else doubtful.
    fn report_log(&mut self, zxid: Zxid, prev: Zxid) {
        let explanation = format!("entry {zxid} stands behind {prev}, which it cannot follow");
        self.first = Some((0, Violation { rule: Rule::Log, operation: None, explanation }));
    }
}
