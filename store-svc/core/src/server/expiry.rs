//! Detection of silent sessions, on the leading node only and only while it serves.
//!
//! A session is closed in three steps. Its timeout passes without a sign of life. A barrier confirms
//! that this node still leads, so no other leader counted one in the meantime. Then the close is
//! submitted, once. From then on the node counts no sign of life of the session, so none is confirmed.
//! The entry closes the session in this epoch only: the next leader counts and confirms from the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::mutants::{Mutant, is_on};
use api::{SessionId, Ticket, Time};

use crate::SessionInfo;

/// The node reads the clock at half this interval while it tracks sessions. A longer step of the clock
/// means that the node was suspended.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Pause after a failed close.
const RETRY: Duration = Duration::from_millis(500);

/// The leader's clock may run faster than a client's by one part in this number.
const DRIFT: u32 = 100;

#[derive(Default, Debug)]
pub(super) struct Expiry {
    leading: Option<Leading>,
}

#[derive(Default, Debug)]
struct Leading {
    sessions: BTreeMap<SessionId, Tracked>,
    /// When to check a session again. May be too early, never too late: signs of life do not move it.
    due: BTreeSet<(Time, SessionId)>,
    /// Silent sessions whose barrier is not complete.
    suspects: Vec<SessionId>,
    /// The pending barrier.
    asked: Option<Ticket>,
}

#[derive(Debug)]
struct Tracked {
    /// Includes the drift.
    timeout: Duration,
    heard: Time,
    /// It was found silent, and its close is in progress.
    closing: bool,
}

impl Expiry {
    /// Starts to track these sessions: each counts as heard just now.
    pub(super) fn start(&mut self, now: Time, sessions: impl Iterator<Item = (SessionId, SessionInfo)>) {
        self.leading = Some(Leading::default());
        for (session, info) in sessions {
            self.track(session, info.timeout_ms, now);
        }
    }

    /// A later state replaces the current one. Pending closes remain pending.
    pub(super) fn reload(&mut self, now: Time, sessions: impl Iterator<Item = (SessionId, SessionInfo)>) {
        let before = self.leading.take().map(|l| l.sessions).unwrap_or_default();
        self.start(now, sessions);
        for (session, tracked) in self.leading.iter_mut().flat_map(|l| &mut l.sessions) {
            tracked.closing = before.get(session).is_some_and(|b| b.closing);
        }
    }

    pub(super) fn stop(&mut self) {
        self.leading = None;
    }

    pub(super) fn active(&self) -> bool {
        self.leading.is_some()
    }

    pub(super) fn track(&mut self, session: SessionId, timeout_ms: u32, now: Time) {
        if let Some(leading) = &mut self.leading {
            let timeout = Duration::from_millis(timeout_ms.into());
            let early = is_on(Mutant::ExpiredEarly);
            let timeout = if early { timeout / 2 } else { timeout + timeout / DRIFT };
            leading.sessions.insert(session, Tracked { timeout, heard: now, closing: false });
            leading.due.insert((now + timeout, session));
        }
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        if let Some(leading) = &mut self.leading {
            leading.sessions.remove(&session);
        }
    }

    /// Counts a sign of life. Returns false if it does not count: the session is unknown here, or is
    /// being closed.
    pub(super) fn heard(&mut self, session: SessionId, now: Time) -> bool {
        let Some(tracked) = self.leading.as_mut().and_then(|l| l.sessions.get_mut(&session)) else {
            return false;
        };
        if !tracked.closing {
            tracked.heard = now;
        }
        !tracked.closing || is_on(Mutant::ConfirmedThoughClosing)
    }

    /// Extends all deadlines by this time, in which the node was unable to receive anything.
    pub(super) fn stood_still(&mut self, gap: Duration) {
        for tracked in self.leading.iter_mut().flat_map(|l| l.sessions.values_mut()) {
            tracked.heard = tracked.heard + gap;
        }
    }

    /// Checks for silent sessions. Returns true if a barrier has to be [asked](Expiry::asked) for,
    /// after which they are [confirmed](Expiry::confirmed).
    pub(super) fn suspects(&mut self, now: Time) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        while let Some(&(at, session)) = leading.due.first().filter(|(at, _)| *at <= now) {
            leading.due.remove(&(at, session));
            let Some(tracked) = leading.sessions.get(&session) else { continue };
            let end = tracked.heard + tracked.timeout;
            if end > now {
                leading.due.insert((end, session));
            } else {
                leading.suspects.push(session);
            }
        }
        !leading.suspects.is_empty() && leading.asked.is_none()
    }

    /// Records the pending barrier.
    pub(super) fn asked(&mut self, ticket: Ticket) {
        if let Some(leading) = &mut self.leading {
            leading.asked = Some(ticket);
        }
    }

    /// The barrier is complete: the returned sessions are still silent and have to be closed.
    pub(super) fn confirmed(&mut self, barrier: Ticket, now: Time) -> Vec<SessionId> {
        // A barrier from an earlier term of leadership proves nothing about this one.
        let Some(leading) = self.leading.as_mut().filter(|l| l.asked == Some(barrier)) else {
            return Vec::new();
        };
        leading.asked = None;
        let mut silent = Vec::new();
        for session in std::mem::take(&mut leading.suspects) {
            let Some(tracked) = leading.sessions.get_mut(&session) else { continue };
            let end = tracked.heard + tracked.timeout;
            if end > now {
                leading.due.insert((end, session));
            } else {
                tracked.closing = true;
                silent.push(session);
            }
        }
        silent
    }

    /// Handles a barrier that was rejected or lost.
    pub(super) fn unconfirmed(&mut self, barrier: Ticket, now: Time) {
        if let Some(leading) = self.leading.as_mut().filter(|l| l.asked == Some(barrier)) {
            leading.asked = None;
            for session in std::mem::take(&mut leading.suspects) {
                leading.due.insert((now + RETRY, session));
            }
        }
    }

    /// The close of this session failed, or may have failed. It has to be repeated.
    pub(super) fn retry(&mut self, session: SessionId, now: Time) {
        if let Some(leading) = &mut self.leading {
            leading.due.insert((now + RETRY, session));
        }
    }

    pub(super) fn next_timeout(&self, now: Time) -> Option<Time> {
        let leading = self.leading.as_ref()?;
        let &(due, _) = leading.due.first()?;
        Some(due.min(now + PAUSE / 2))
    }
}
