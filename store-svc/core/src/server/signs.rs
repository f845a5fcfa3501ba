//! Signs of life: from the node that received them to the leader's store, and the confirmations back.
//!
//! A client measures its timeout from the time when it sent the last confirmed request. So a request is
//! confirmed only after the leader's store has counted it, and a quorum has then confirmed that the
//! store's node leads. So the leader's count never starts before the client's.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use api::{SessionId, Ticket, Time};
use bytes::Bytes;

use super::ConnId;

/// A report that is not confirmed within this time is sent again; the answer to the first one still counts.
const PATIENCE: Duration = Duration::from_millis(500);

/// Maximum number of reports whose answers still count.
const UNDER_WAY: usize = 4;

/// The last request that a session has sent, and its connection.
type Heard = BTreeMap<SessionId, (ConnId, u64)>;

#[derive(Default, Debug)]
pub(super) struct Signs {
    /// Not reported.
    heard: Heard,
    /// Reported, the oldest first.
    sent: VecDeque<Report>,
    /// When the next report may leave.
    next_at: Time,
}

#[derive(Debug)]
struct Report {
    ticket: Ticket,
    heard: Heard,
    /// When it is sent again; `None` if that has happened.
    again_at: Option<Time>,
}

impl Signs {
    pub(super) fn heard(&mut self, session: SessionId, conn: ConnId, xid: u64) {
        self.heard.insert(session, (conn, xid));
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.heard.remove(&session);
    }

    /// When a report is due, while there is a leader.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        let again = self.sent.iter().filter_map(|r| r.again_at).min();
        let first = (!self.heard.is_empty() && again.is_none()).then_some(self.next_at);
        first.into_iter().chain(again).min()
    }

    /// The next report, if one is due. It waits for the answer to the last one. `ticket` numbers it.
    pub(super) fn report(
        &mut self,
        now: Time,
        interval: Duration,
        ticket: impl FnOnce() -> Ticket,
    ) -> Option<Bytes> {
        for report in &mut self.sent {
            if report.again_at.is_some_and(|at| at <= now) {
                report.again_at = None;
                let heard = report.heard.iter().map(|(&session, &at)| (session, at));
                merge(&mut self.heard, heard);
            }
        }
        if self.heard.is_empty() || now < self.next_at || self.sent.iter().any(|r| r.again_at.is_some()) {
            return None;
        }
        self.next_at = now + interval;
        let (ticket, heard) = (ticket(), std::mem::take(&mut self.heard));
        let bytes = encode(ticket, heard.keys().copied());
        if self.sent.len() >= UNDER_WAY {
            self.sent.pop_front();
        }
        self.sent.push_back(Report { ticket, heard, again_at: Some(now + PATIENCE) });
        Some(bytes)
    }

    /// The answer of the leader's store: the counted sessions, each with its connection and request.
    /// Those of `refused` that are still `open` here are reported again: the leader may not have
    /// applied the entry that opens them.
    pub(super) fn confirmed(
        &mut self,
        ticket: Ticket,
        refused: impl Iterator<Item = SessionId>,
        open: impl Fn(SessionId) -> bool,
    ) -> Vec<(ConnId, u64)> {
        let Some(place) = self.sent.iter().position(|r| r.ticket == ticket) else { return Vec::new() };
        let Some(mut report) = self.sent.remove(place) else { return Vec::new() };
        for session in refused {
            let at = report.heard.remove(&session);
            merge(&mut self.heard, at.filter(|_| open(session)).map(|at| (session, at)));
        }
        report.heard.into_values().collect()
    }

    /// A new leader, or the same one again: everything unconfirmed is reported again.
    pub(super) fn restart(&mut self, now: Time) {
        for report in std::mem::take(&mut self.sent).into_iter().rev() {
            merge(&mut self.heard, report.heard);
        }
        self.next_at = now;
    }

    /// The sessions of the pending report, for a mutant.
    pub(super) fn reported(&self) -> Vec<(ConnId, u64)> {
        self.sent.back().map(|r| r.heard.values().copied().collect()).unwrap_or_default()
    }
}

/// Later signs of life remain.
fn merge(heard: &mut Heard, older: impl IntoIterator<Item = (SessionId, (ConnId, u64))>) {
    for (session, at) in older {
        heard.entry(session).or_insert(at);
    }
}

/// A report, or the answer to one, which names the sessions that were not counted.
pub(super) fn encode(ticket: Ticket, sessions: impl Iterator<Item = SessionId>) -> Bytes {
    std::iter::once(ticket.0).chain(sessions.map(|s| s.0)).flat_map(u64::to_be_bytes).collect()
}

/// Ignores bytes after the last whole number. `None` without a ticket.
pub(super) fn decode(bytes: &[u8]) -> Option<(Ticket, impl Iterator<Item = SessionId>)> {
    let (ticket, sessions) = bytes.as_chunks::<8>().0.split_first()?;
    let sessions = sessions.iter().map(|id| SessionId(u64::from_be_bytes(*id)));
    Some((Ticket(u64::from_be_bytes(*ticket)), sessions))
}
