//! Checks of zxids and times alone.

use std::collections::{BTreeSet, HashMap};

use api::{ReadLevel, SessionId, Zxid};

use super::Findings;
use crate::{Call, History, Operation, Outcome, Rule};

/// The greatest zxid in an answer, and its operation.
type Floor = Option<(Zxid, usize)>;

/// For every operation, what had been answered before it was called.
pub(super) struct Floors(Vec<Floor>);

impl Floors {
    /// Over the answers of all clients.
    pub(super) fn of(history: &History) -> Floors {
        let all: Vec<usize> = (0..history.operations.len()).collect();
        Floors::among(history, &all)
    }

    /// Among these operations only, in their order.
    fn among(history: &History, indexes: &[usize]) -> Floors {
        let operation = |place: usize| &history.operations[indexes[place]];
        let answer = |&i: &usize| {
            let operation = &history.operations[i];
            Some((operation.returned?, operation.outcome.zxid()?, i))
        };
        let mut answers: Vec<(u64, Zxid, usize)> = indexes.iter().filter_map(answer).collect();
        answers.sort_unstable();
        let mut by_call: Vec<usize> = (0..indexes.len()).collect();
        by_call.sort_unstable_by_key(|&place| operation(place).called);
        let mut floors = vec![None; indexes.len()];
        let mut answers = answers.into_iter().peekable();
        let mut floor = None;
        for place in by_call {
            let called = operation(place).called;
            while let Some((_, zxid, answered)) = answers.next_if(|(returned, ..)| *returned < called) {
                raise(&mut floor, zxid, answered);
            }
            floors[place] = floor;
        }
        Floors(floors)
    }

    /// An answer not before `zxid` that any client had when this was called.
    pub(super) fn above(&self, index: usize, zxid: Zxid) -> Floor {
        self.0[index].filter(|(floor, _)| zxid <= *floor)
    }

    /// Reports a write at `zxid` that stands before something that was answered before it was called.
    pub(super) fn check_write(&self, index: usize, zxid: Zxid, findings: &mut Findings<'_>) {
        if let Some((floor, seen)) = self.above(index, zxid) {
            findings.report(Rule::WriteOrder, index, || {
                format!(
                    "carried out at {zxid}, but called after operation {seen} had been answered with {floor}"
                )
            });
        }
    }
}

fn raise(floor: &mut Floor, zxid: Zxid, index: usize) {
    if floor.is_none_or(|(z, _)| zxid > z) {
        *floor = Some((zxid, index));
    }
}

/// Returns the number of reads that were overtaken by a write of their own session.
pub(super) fn check(history: &History, floors: &Floors, findings: &mut Findings<'_>) -> usize {
    for (index, operation) in history.operations.iter().enumerate() {
        check_against_all(index, operation, floors, findings);
    }
    check_clients(history, findings);
    check_sessions(history, findings)
}

/// C1 and C9.
fn check_against_all(index: usize, operation: &Operation, floors: &Floors, findings: &mut Findings<'_>) {
    let Some(zxid) = operation.outcome.zxid() else { return };
    match operation.call {
        Call::Write(_) => floors.check_write(index, zxid, findings),
        Call::Sync | Call::Read(_, ReadLevel::Linearizable) => {
            if let Some((floor, seen)) = floors.0[index].filter(|(floor, _)| zxid < *floor) {
                findings.report(Rule::Fresh, index, || {
                    format!("answered from the state at {zxid}, but called after operation {seen} had been answered with {floor}")
                });
            }
        }
        Call::Read(_, ReadLevel::AtLeast(least)) if zxid < least => {
            findings.report(Rule::Fresh, index, || {
                format!("answered from the state at {zxid}, though at least {least} was asked for")
            })
        }
        Call::Read(..) => {}
    }
}

/// C3 and C4 for operations one after another, whatever their sessions.
fn check_clients(history: &History, findings: &mut Findings<'_>) {
    let mut clients: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        clients.entry(operation.client).or_default().push(index);
    }
    for indexes in clients.into_values() {
        let floors = Floors::among(history, &indexes);
        for (index, floor) in indexes.into_iter().zip(floors.0) {
            let (Some(zxid), Some((floor, seen))) = (history.operations[index].outcome.zxid(), floor) else {
                continue;
            };
            if zxid < floor {
                let rule = monotone_or_own(&history.operations[seen]);
                findings.report(rule, index, || back_in_time(zxid, floor, seen));
            }
        }
    }
}

/// C2 to C4 for operations that overlap. Returns the number of reads that were overtaken.
fn check_sessions(history: &History, findings: &mut Findings<'_>) -> usize {
    let mut sessions: HashMap<(u32, SessionId), Session> = HashMap::new();
    let mut overtaken = BTreeSet::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if let (Some(session), Some(zxid)) = (operation.session, operation.outcome.zxid()) {
            let session = sessions.entry((operation.client, session)).or_default();
            overtaken.extend(session.take(history, index, zxid, findings));
        }
    }
    overtaken.len()
}

/// The answers of a session so far, in the order of the calls.
#[derive(Default)]
struct Session {
    seen: Floor,
    written: Floor,
    returned: Option<(u64, usize)>,
}

impl Session {
    /// Returns an earlier read that has seen this write.
    fn take(
        &mut self,
        history: &History,
        index: usize,
        zxid: Zxid,
        findings: &mut Findings<'_>,
    ) -> Option<usize> {
        let operation = &history.operations[index];
        let mut overtaken = None;
        if let Outcome::Written { .. } = operation.outcome {
            if let Some((floor, seen)) = self.written.filter(|(floor, _)| zxid <= *floor) {
                findings.report(Rule::SessionOrder, index, || {
                    format!("carried out at {zxid}, but operation {seen}, called before it in its session, at {floor}")
                });
            }
            // A read that had returned before is a matter of `check_clients`.
            overtaken = self.seen.filter(|(floor, _)| zxid <= *floor).map(|(_, read)| read);
            raise(&mut self.written, zxid, index);
        } else if let Some((floor, seen)) = self.seen.filter(|(floor, _)| zxid < *floor) {
            let rule = monotone_or_own(&history.operations[seen]);
            findings.report(rule, index, || back_in_time(zxid, floor, seen));
        }
        raise(&mut self.seen, zxid, index);
        if let Some(returned) = operation.returned {
            if let Some((_, before)) = self.returned.filter(|(at, _)| returned < *at) {
                findings.report(Rule::SessionOrder, index, || {
                    format!("answered before operation {before}, which was called before it in its session")
                });
            }
            self.returned = Some((returned, index));
        }
        overtaken
    }
}

fn monotone_or_own(seen: &Operation) -> Rule {
    if matches!(seen.outcome, Outcome::Written { .. }) { Rule::OwnWrites } else { Rule::Monotone }
}

fn back_in_time(zxid: Zxid, floor: Zxid, seen: usize) -> String {
    format!("answered with {zxid}, though the same client had {floor} from operation {seen} before")
}
