//! Requests that wait for knowledge of this node: for a barrier, which many of them share, or for an
//! applied entry.

use std::collections::BTreeSet;

use super::*;

/// A waiting connection or request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Waiter {
    /// A connection that resumes a session.
    Opening(ConnId),
    /// A request, by its position on its connection.
    Request(ConnId, u64),
}

/// All waiters. Bounded by the requests that connections may have, because a waiter that leaves is removed.
#[derive(Default, Debug)]
pub(super) struct Waits {
    /// Waiters of the pending barrier. `None` if none is pending.
    round: Option<BTreeSet<Waiter>>,
    /// Waiters that arrived after the pending barrier was sent. It proves nothing about commits between
    /// its start and their arrival, so they wait for the next one.
    next: BTreeSet<Waiter>,
    /// Waiters for an applied entry.
    behind: BTreeSet<(Zxid, Waiter)>,
    /// Deadlines of requests.
    until: BTreeSet<(Time, ConnId, u64)>,
}

impl Waits {
    /// Waits for a barrier that is sent after this moment.
    pub(super) fn for_barrier(&mut self, waiter: Waiter) {
        self.next.insert(waiter);
    }

    /// Waits for an entry.
    pub(super) fn for_entry(&mut self, zxid: Zxid, waiter: Waiter) {
        self.behind.insert((zxid, waiter));
    }

    /// A request waits for its condition, and fails at `until`.
    pub(super) fn for_request(&mut self, at: (ConnId, u64), op: &Op, until: Time) {
        let waiter = Waiter::Request(at.0, at.1);
        match op.awaits() {
            Some(zxid) => self.for_entry(zxid, waiter),
            None => self.for_barrier(waiter),
        }
        self.until.insert((until, at.0, at.1));
    }

    /// Removes a waiting request.
    pub(super) fn end_request(&mut self, at: (ConnId, u64), op: &Op, until: Time) {
        let waiter = Waiter::Request(at.0, at.1);
        match op.awaits() {
            Some(zxid) => self.end_entry(zxid, waiter),
            None => self.end_barrier(waiter),
        }
        self.until.remove(&(until, at.0, at.1));
    }

    pub(super) fn end_barrier(&mut self, waiter: Waiter) {
        self.next.remove(&waiter);
        if let Some(round) = &mut self.round {
            round.remove(&waiter);
        }
    }

    pub(super) fn end_entry(&mut self, zxid: Zxid, waiter: Waiter) {
        self.behind.remove(&(zxid, waiter));
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.until.first().map(|(at, ..)| *at)
    }
}

impl Server {
    /// Requests a barrier if there are waiters and none is pending. Call it when the requests leave: it
    /// serves all waiters that have arrived by then.
    pub(super) fn begin_round(&mut self) {
        if self.waits.round.is_none() && !self.waits.next.is_empty() {
            self.waits.round = Some(std::mem::take(&mut self.waits.next));
            self.barrier(Pending::Round);
        }
    }

    /// Ends the pending barrier, which is complete or has failed.
    pub(super) fn end_round(&mut self, result: &Result<(), OpError>) {
        for waiter in self.waits.round.take().unwrap_or_default() {
            match (waiter, result) {
                (Waiter::Opening(conn), Ok(())) => self.on_verified(conn),
                (Waiter::Opening(conn), Err(error)) => self.close(conn, Err(error.clone())),
                (Waiter::Request(conn, slot), _) => self.end_wait(conn, slot, result.clone()),
            }
        }
    }

    /// Retries the waiters for entries after the state has advanced.
    pub(super) fn retry_behind(&mut self) {
        let applied = self.state.applied();
        while let Some((zxid, waiter)) = self.waits.behind.first().copied().filter(|(z, _)| *z <= applied) {
            self.waits.end_entry(zxid, waiter);
            match waiter {
                Waiter::Opening(conn) => self.try_open(conn),
                Waiter::Request(conn, slot) => self.end_wait(conn, slot, Ok(())),
            }
        }
    }

    pub(super) fn give_up_waits(&mut self) {
        while let Some((at, conn, slot)) =
            self.waits.until.first().copied().filter(|(at, ..)| *at <= self.now)
        {
            self.waits.until.remove(&(at, conn, slot));
            let late = self.conns.get(&conn).and_then(|c| c.timed_out(slot, self.now));
            if let Some(late) = late {
                self.end_wait(conn, slot, Err(late));
                continue;
            }
            let waiting = self.conns.get(&conn).and_then(|c| Some((c.waits_for_entry(slot)?, c.session())));
            let error = match waiting {
                Some((zxid, session)) => OpError::Unavailable(format!(
                    "node {} has applied {} and did not come to {zxid} within {:?}; ask another node, and make sure \
                     that this zxid is of this ensemble",
                    self.config.me,
                    self.state.applied(),
                    catch_up(&self.config.limits, &self.state, session)
                )),
                None => self.unconfirmed(),
            };
            self.end_wait(conn, slot, Err(error));
        }
    }

    /// The error for waiters of a barrier that fails.
    pub(super) fn unconfirmed(&self) -> OpError {
        OpError::Unavailable(format!(
            "no quorum has confirmed to node {} within {:?} that its state is the newest; ask another node, look at \
             `quorate status`, or read at the level `local` if an older state will do",
            self.config.me, self.config.limits.park
        ))
    }
}

/// See [`Limits::catch_up`].
pub(super) fn catch_up(limits: &Limits, state: &State, session: Option<SessionId>) -> Duration {
    let timeout =
        session.and_then(|id| state.session(id)).map(|s| Duration::from_millis(s.timeout_ms.into()));
    timeout.map_or(limits.catch_up, |timeout| limits.catch_up.min(timeout / 4))
}
