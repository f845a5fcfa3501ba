//! What clients may believe of their sessions.

use api::{PeerId, SessionId};

use super::Ghost;

impl Ghost {
    /// A client's machine says that its session is there (C11).
    pub(crate) fn believes(&mut self, session: SessionId) {
        self.believed.insert(session);
        // It may be told of its opening and of its end at once.
        if let Some((_, allowance)) = self.expired.get(&session) {
            self.mourned.insert(session, self.now + allowance);
        }
    }

    /// A client's machine wakes up and says, by its clock alone, that its session is there: the client may act on that before it
    /// hears anything (C11).
    pub(crate) fn still_believes(&mut self, session: SessionId) {
        let late = self.expired.get(&session).map_or(0, |(limit, _)| self.now.saturating_sub(*limit));
        if late > 0 {
            self.knows_late(format!(
                "session {session} is expired, and its client relies on it {late} us too late"
            ));
        }
        self.believes(session);
    }

    /// A client's machine says that its session may be gone, or its application no longer wants it (C11).
    pub(crate) fn doubts(&mut self, session: SessionId) {
        self.believed.remove(&session);
        if let Some(limit) = self.mourned.remove(&session) {
            let late = self.now.saturating_sub(limit);
            if late > 0 {
                self.knows_late(format!(
                    "session {session} is expired, and its client knows {late} us too late"
                ));
            }
        }
    }

    /// A session is expired by what is now committed: from here on others may have what was its own (C11).
    pub(super) fn expired(&mut self, session: SessionId, timeout_ms: u32) {
        let timeout_us = u64::from(timeout_ms) * 1_000;
        let allowance = self.allowance(timeout_us);
        let limit = self.now + allowance;
        self.expired.insert(session, (limit, allowance));
        if self.believed.contains(&session) {
            self.mourned.insert(session, limit);
        }
    }

    /// How much too late a client may know, because clocks run wrong: clients' clocks are right. 0 if those of all nodes are.
    fn allowance(&self, timeout_us: u64) -> u64 {
        let (drift_ppm, cut_off_us) = self.clocks;
        2 * drift_ppm * (timeout_us + cut_off_us) / 1_000_000
    }

    /// The end of the run: clients that do not know by now will not know any more (C11).
    pub(crate) fn run_over(&mut self) {
        for session in std::mem::take(&mut self.mourned).into_keys() {
            self.knows_late(format!("session {session} is expired, and its client never knows"));
        }
    }

    fn knows_late(&mut self, what: String) {
        self.fail("C11 the client knows first", what);
    }

    /// The store of a leader closes a silent session: `silent_us` is since it last heard it, or began to lead (C8).
    pub(crate) fn expires(&mut self, node: PeerId, session: SessionId, silent_us: u64, timeout_us: u64) {
        self.check(silent_us >= timeout_us, "C8 session time-out", || {
            format!("node {node} closes session {session} after {silent_us} of {timeout_us} us of silence")
        });
    }

    /// A session was taken up by a caller without its token or its identities (C15).
    pub(crate) fn taken_over(&mut self, session: SessionId, why: &str) {
        self.fail("C15 only its owner takes a session up", format!("session {session} is taken up {why}"));
    }
}
