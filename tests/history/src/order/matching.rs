//! Which committed entry is which operation of unknown outcome.

use std::collections::{BTreeMap, HashMap, HashSet};

use api::SessionId;

use super::{Findings, replay::CarriedOut, times::Floors};
use crate::{Call, History, Operation, Outcome, Rule};

/// Finds for every write that was carried out the operation that asked for it. Returns how many of unknown outcome were
/// found.
///
/// Within a session the writes that were carried out are a subsequence of the called ones. Zxids identify
/// answered ones; of several equal ones of unknown outcome the earliest is taken, which leaves most room for
/// the rest and is the weakest demand on real time.
pub(super) fn check(
    history: &History,
    carried_out: &[CarriedOut<'_>],
    floors: &Floors,
    findings: &mut Findings<'_>,
) -> usize {
    let mut sessions: BTreeMap<SessionId, Vec<&CarriedOut<'_>>> = BTreeMap::new();
    let mut alone = Vec::new();
    for entry in carried_out {
        match entry.session {
            None => alone.push(entry),
            Some(session) => sessions.entry(session).or_default().push(entry),
        }
    }
    let mut clients: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut unary = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        match operation.call {
            Call::Write(_) if operation.unary => unary.push(index),
            Call::Write(_) => clients.entry(operation.client).or_default().push(index),
            _ => {}
        }
    }
    let owners = owners(history);
    let mut used = HashSet::new();
    // Outside of sessions there is no order: each looks at all calls.
    for entry in alone {
        let (session, calls, next) = (None, &unary[..], 0);
        Matching { history, session, calls, next, used: &mut used, floors, findings }.take(entry);
    }
    let known = |session: SessionId, entries: &[&CarriedOut<'_>]| {
        (owners.get(&session).copied())
            .or_else(|| entries.iter().find_map(|e| Some(history.operations[e.operation?].client)))
    };
    // A client that got an answer in a session owns it. Sessions without answers come last, when it is clear
    // which calls are left.
    let (owned, orphaned): (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|(session, entries)| known(*session, entries).is_some());
    for (session, entries) in owned.into_iter().chain(orphaned) {
        // Prefers a client whose calls came in time. If there is none, the walk reports it.
        let whose = |floors: Option<&Floors>| {
            let fits = |calls: &Vec<usize>| fits(history, Some(session), &entries, calls, &used, floors);
            clients.iter().find(|(_, calls)| fits(calls)).map(|(&client, _)| client)
        };
        let owner = known(session, &entries).or_else(|| whose(Some(floors))).or_else(|| whose(None));
        let calls = owner.and_then(|client| clients.get(&client)).map_or(&[][..], Vec::as_slice);
        let session = Some(session);
        let mut matching = Matching { history, session, calls, next: 0, used: &mut used, floors, findings };
        for entry in entries {
            matching.take(entry);
        }
    }
    used.len()
}

/// The known owners of the sessions.
fn owners(history: &History) -> HashMap<SessionId, u32> {
    history.operations.iter().filter_map(|o| Some((o.session?, o.client))).collect()
}

/// Whether all these entries can be calls of unknown outcome among `calls`, in this order, and with `floors` none of
/// them called too late for its entry.
fn fits(
    history: &History,
    session: Option<SessionId>,
    entries: &[&CarriedOut<'_>],
    calls: &[usize],
    used: &HashSet<usize>,
    floors: Option<&Floors>,
) -> bool {
    let mut rest = calls.iter();
    let in_time = |index, zxid| floors.is_none_or(|floors| floors.above(index, zxid).is_none());
    entries.iter().all(|entry| {
        rest.any(|&index| is_free(history, session, entry, index, used) && in_time(index, entry.zxid))
    })
}

fn is_free(
    history: &History,
    session: Option<SessionId>,
    entry: &CarriedOut<'_>,
    index: usize,
    used: &HashSet<usize>,
) -> bool {
    let operation = &history.operations[index];
    operation.outcome == Outcome::Unknown && same(operation, session, entry) && !used.contains(&index)
}

fn same(operation: &Operation, session: Option<SessionId>, entry: &CarriedOut<'_>) -> bool {
    (operation.session.is_none() || operation.session == session)
        && matches!(&operation.call, Call::Write(write) if write == entry.write)
}

/// Walks along the entries of one session and the calls of the client that owns it.
struct Matching<'a, 'f, 'h> {
    history: &'a History,
    session: Option<SessionId>,
    calls: &'a [usize],
    /// Index into `calls`: after the last match.
    next: usize,
    used: &'a mut HashSet<usize>,
    floors: &'a Floors,
    findings: &'f mut Findings<'h>,
}

impl Matching<'_, '_, '_> {
    fn take(&mut self, entry: &CarriedOut<'_>) {
        if let Some(index) = entry.operation {
            match self.calls.binary_search(&index) {
                Ok(place) if place >= self.next => self.next = place + 1,
                // Called by another client than the one that owns the session; the replay has compared the sessions.
                Err(_) => {}
                Ok(_) => self.findings.report(Rule::SessionOrder, index, || {
                    format!(
                        "carried out at {}, behind a write that was called after it in its session",
                        entry.zxid
                    )
                }),
            }
            return;
        }
        let free = |&index: &usize| is_free(self.history, self.session, entry, index, self.used);
        let rest = self.calls.get(self.next..).unwrap_or_default();
        match rest.iter().position(free) {
            Some(place) => {
                let index = rest[place];
                self.next += place + 1;
                self.used.insert(index);
                self.floors.check_write(index, entry.zxid, self.findings);
            }
            None => self.report_stranger(entry),
        }
    }

    /// An entry that no call is left for.
    fn report_stranger(&mut self, entry: &CarriedOut<'_>) {
        let zxid = entry.zxid;
        let alike =
            self.calls.iter().copied().rfind(|&i| same(&self.history.operations[i], self.session, entry));
        let Some(index) = alike else {
            let everybody = 0..self.history.operations.len();
            let index =
                everybody.rev().find(|&i| same(&self.history.operations[i], None, entry)).unwrap_or(0);
            return self.findings.report(Rule::AtMostOnce, index, || {
                format!("the entry {zxid}, {:?} of session {:?}, has no call", entry.write, self.session)
            });
        };
        let why = match &self.history.operations[index].outcome {
            Outcome::Refused(error) => format!("refused ({error}), and yet carried out at {zxid}"),
            Outcome::Written { zxid: first, .. } => {
                format!("carried out at {first}, and once more at {zxid}")
            }
            _ if self.used.contains(&index) => format!("carried out twice, the second time at {zxid}"),
            _ => format!("carried out at {zxid}, behind a write that was called after it in its session"),
        };
        let session = self.session.map_or("no session".to_owned(), |s| format!("session {s}"));
        self.findings.report(Rule::AtMostOnce, index, || format!("{why}, by {session}"));
    }
}
