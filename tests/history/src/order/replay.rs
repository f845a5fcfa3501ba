//! The committed entries, carried out once, and every answer held against what came of it.

use std::collections::HashMap;

use api::{CommandBody, OpError, SessionId, Write, WriteResult, Zxid};
use store_core::{State, server::Committed};

use super::Findings;
use crate::{Call, History, Outcome, Rule, UNTOLD};

/// A write among the committed entries that was carried out there, and not refused by its session.
pub(super) struct CarriedOut<'a> {
    pub(super) zxid: Zxid,
    pub(super) session: Option<SessionId>,
    pub(super) write: &'a Write,
    /// The operation that was answered with this zxid.
    pub(super) operation: Option<usize>,
}

/// Everything up to the first entry that does not chain.
pub(super) fn check<'a>(
    history: &History,
    committed: &'a [Committed],
    findings: &mut Findings<'_>,
) -> Vec<CarriedOut<'a>> {
    let mut writes = writes(history, findings);
    let mut reads = Reads::of(history);
    let mut state = State::default();
    let mut carried_out = Vec::new();
    reads.check(history, &state, findings);
    for entry in committed {
        if !entry.zxid.follows(state.applied()) {
            findings.report_log(entry.zxid, state.applied());
            return carried_out;
        }
        let operation = writes.remove(&entry.zxid);
        carried_out.extend(apply(history, &mut state, entry, operation, findings));
        reads.check(history, &state, findings);
    }
    let last = state.applied();
    for (zxid, index) in writes {
        findings.report(Rule::WriteOrder, index, || {
            format!("carried out at {zxid}, but there is no such entry among the committed ones, which end with {last}: an answered write is lost")
        });
    }
    reads.check_rest(findings);
    carried_out
}

/// The answered writes by their places.
fn writes(history: &History, findings: &mut Findings<'_>) -> HashMap<Zxid, usize> {
    let mut writes = HashMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if let Outcome::Written { zxid, .. } = operation.outcome
            && let Some(other) = writes.insert(zxid, index)
        {
            findings.report(Rule::WriteOrder, index, || {
                format!("carried out at {zxid}, but so was operation {other}")
            });
        }
    }
    writes
}

fn apply<'a>(
    history: &History,
    state: &mut State,
    entry: &'a Committed,
    operation: Option<usize>,
    findings: &mut Findings<'_>,
) -> Option<CarriedOut<'a>> {
    let zxid = entry.zxid;
    let Some(command) = &entry.command else {
        match entry.level {
            Some(level) => state.apply_level(zxid, entry.time_ms, level),
            None => state.apply_marker(zxid, entry.time_ms),
        }
        if let Some(index) = operation {
            findings
                .report(Rule::WriteResult, index, || format!("the entry {zxid} is the marker of an epoch"));
        }
        return None;
    };
    let applied = state.apply(zxid, entry.time_ms, command);
    if let Some(index) = operation {
        let asked = &history.operations[index];
        let Outcome::Written { result, .. } = &asked.outcome else { return None };
        let same_request = match (&asked.call, &command.body) {
            (Call::Write(asked), CommandBody::Write(done)) => asked == done,
            (Call::Write(_), CommandBody::Refuse { .. }) => true,
            _ => false,
        };
        let session_fits = asked.session.is_none() || asked.session == command.session;
        if !same_request || !session_fits {
            findings.report(Rule::WriteResult, index, || {
                format!(
                    "the entry {zxid} is another request: {:?} of session {:?}",
                    command.body, command.session
                )
            });
        } else if applied.zxid != zxid {
            findings.report(Rule::WriteResult, index, || {
                format!(
                    "the entry {zxid} did nothing: the same write had been carried out at {}",
                    applied.zxid
                )
            });
        } else if !says(result, &applied.result) {
            findings.report(Rule::WriteResult, index, || {
                format!("answered {result:?}, but the entry {zxid} came to {:?}", applied.result)
            });
        }
    }
    let admitted = applied.zxid == zxid && !matches!(applied.result, Err(ref error) if not_admitted(error));
    match &command.body {
        CommandBody::Write(write) if admitted => {
            Some(CarriedOut { zxid, session: command.session, write, operation })
        }
        _ => None,
    }
}

/// Whether a client may be told `result` where the log came to `applied`.
fn says(result: &WriteResult, applied: &WriteResult) -> bool {
    fn same(told: &OpError, done: &OpError) -> bool {
        match (told, done) {
            (
                OpError::BadVersion { path, expected, actual: UNTOLD },
                OpError::BadVersion { path: its, expected: wanted, .. },
            ) => (path, expected) == (its, wanted),
            (OpError::Multi { index, cause }, OpError::Multi { index: place, cause: why }) => {
                index == place && same(cause, why)
            }
            (told, done) => told == done,
        }
    }
    match (result, applied) {
        (Err(told), Err(done)) => same(told, done),
        (told, done) => told == done,
    }
}

/// Whether the session did not let the write through to the tree, or it could not have changed anything there.
fn not_admitted(error: &OpError) -> bool {
    matches!(
        error,
        OpError::SessionExpired(_)
            | OpError::SessionMoved(_)
            | OpError::OutOfOrder { .. }
            | OpError::NumberReused(_)
            | OpError::ResultForgotten(_)
            | OpError::Overloaded(_)
            | OpError::BadArguments(_)
            | OpError::Unsupported(_)
    )
}

/// The answered reads, by the states that they were answered from.
struct Reads(std::iter::Peekable<std::vec::IntoIter<(Zxid, usize)>>);

impl Reads {
    fn of(history: &History) -> Reads {
        let mut reads: Vec<(Zxid, usize)> = history
            .operations
            .iter()
            .enumerate()
            .filter(|(_, o)| matches!(o.outcome, Outcome::Read { .. } | Outcome::Synced { .. }))
            .filter_map(|(i, o)| Some((o.outcome.zxid()?, i)))
            .collect();
        reads.sort_unstable();
        Reads(reads.into_iter().peekable())
    }

    /// Those of this state, and of states before it that there never were.
    fn check(&mut self, history: &History, state: &State, findings: &mut Findings<'_>) {
        while let Some((zxid, index)) = self.0.next_if(|(zxid, _)| *zxid <= state.applied()) {
            if zxid < state.applied() {
                missing(zxid, index, findings);
                continue;
            }
            let operation = &history.operations[index];
            if let (Call::Read(read, _), Outcome::Read { result, .. }) = (&operation.call, &operation.outcome)
            {
                let expected = state.read(read);
                if *result != expected {
                    findings.report(Rule::ReadResult, index, || {
                        format!("answered {result:?} from the state at {zxid}, but there it is {expected:?}")
                    });
                }
            }
        }
    }

    fn check_rest(self, findings: &mut Findings<'_>) {
        for (zxid, index) in self.0 {
            missing(zxid, index, findings);
        }
    }
}

fn missing(zxid: Zxid, index: usize, findings: &mut Findings<'_>) {
    findings.report(Rule::ReadResult, index, || {
        format!("answered from the state at {zxid}, but there is no such entry among the committed ones")
    });
}

#[cfg(test)]
mod tests {
    use api::Path;

    use super::*;

    #[test]
    fn an_answer_may_leave_out_the_version_that_is_there_but_nothing_else() {
        let bad = |path: &str, expected, actual| {
            Err(OpError::BadVersion { path: Path::new(path).unwrap(), expected, actual })
        };
        let done = bad("/a", 1, 2);
        assert!(says(&bad("/a", 1, 2), &done) && says(&bad("/a", 1, UNTOLD), &done));
        for told in [bad("/a", 1, 3), bad("/b", 1, UNTOLD), bad("/a", 2, UNTOLD)] {
            assert!(!says(&told, &done), "{told:?}");
        }
        let part = |index, cause: &WriteResult| {
            Err(OpError::Multi { index, cause: cause.clone().unwrap_err().into() })
        };
        assert!(says(&part(1, &bad("/a", 1, UNTOLD)), &part(1, &done)));
        assert!(!says(&part(0, &bad("/a", 1, UNTOLD)), &part(1, &done)));
    }
}
