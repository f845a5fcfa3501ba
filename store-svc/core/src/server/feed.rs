//! The messages of the quorum, and the requests that wait for them.

use super::*;
use crate::digest;
use api::mutants::{Mutant, is_on};

impl Server {
    pub(super) fn on_feed(&mut self, item: Feed) {
        match item {
            Feed::Committed(mut entries) => {
                if let (true, [a, b, ..]) = (is_on(Mutant::CommitOutOfOrder), &mut entries[..]) {
                    std::mem::swap(&mut a.command, &mut b.command);
                }
                for entry in entries {
                    if !self.on_entry(entry) {
                        return;
                    }
                }
                self.keep_time();
                self.retry_behind();
            }
            Feed::Status(status) => self.on_status(status),
            Feed::Barrier(ticket) => self.on_barrier(ticket),
            Feed::Refused { ticket, why } => self.on_refused(ticket, why),
            Feed::Lost(ticket) => self.on_lost(ticket),
        }
    }

    /// Applies an entry and answers the requests that wait for it, before the next entry is applied. So
    /// a read between two writes of its session sees the first and not the second. Returns false if the
    /// entry does not fit.
    fn on_entry(&mut self, entry: Committed) -> bool {
        let Committed { zxid, time_ms, origin, level, command } = entry;
        if !zxid.follows(self.state.applied()) {
            let applied = self.state.applied();
            self.outbox
                .stop(format!("the feed has a hole: entry {zxid} came behind {applied}; please report this"));
            return false;
        }
        self.applied_at = self.now;
        let Some(command) = command else {
            match level {
                Some(level) => self.state.apply_level(zxid, time_ms, level),
                None => self.state.apply_marker(zxid, time_ms),
            }
            return true;
        };
        if let CommandBody::Check { of, digest } = command.body {
            self.state.apply_marker(zxid, time_ms);
            // Its ticket is no longer needed.
            let _ = origin.filter(|o| o.peer == self.config.me).and_then(|o| self.tickets.take(o.ticket));
            return self.on_check(zxid, of, digest);
        }
        self.checks.entry();
        let before = self.state.applied();
        let applied = self.state.apply(zxid, time_ms, &command);
        if !is_on(Mutant::ReplyBeforeEvent) {
            // Before any answer that reflects the entry, above all the answer to its own write.
            self.tell_watchers(before);
        }
        let done = applied.result.is_ok();
        if let CommandBody::OpenSession { timeout_ms, .. } = command.body
            && done
        {
            self.expiry.track(SessionId(zxid.0), timeout_ms, self.now);
        }
        let waiting = origin.filter(|o| o.peer == self.config.me).and_then(|o| self.tickets.take(o.ticket));
        if let Some(pending) = waiting {
            self.on_applied(pending, applied);
        }
        if is_on(Mutant::ReplyBeforeEvent) {
            self.tell_watchers(before);
        }
        if let CommandBody::ResumeSession { session, stream } = command.body
            && done
        {
            self.on_newest_stream(session, stream);
        }
        if let CommandBody::CloseSession { session, .. } = command.body
            && done
        {
            self.expiry.forget(session);
            self.signs.forget(session);
            if let Some(&conn) = self.sessions.get(&session) {
                self.close(conn, Err(OpError::SessionExpired(session)));
            }
        }
        true
    }

    /// Returns false if this node has to start over.
    fn on_check(&mut self, zxid: Zxid, of: Zxid, digest: u64) -> bool {
        let noted = self.checks.noted();
        let same = self.checks.check(self.now, zxid, self.state.digest(), of, digest);
        if let (false, Some(own)) = (same, noted) {
            self.outbox.diverged(of, own, digest);
        }
        same
    }

    fn on_applied(&mut self, pending: Pending, applied: crate::Applied) {
        match (pending, applied.result) {
            // Its number is not consumed, so all later writes would fail as well; the client starts over.
            (
                Pending::Write { conn, command, .. },
                Err(
                    why @ (OpError::OutOfOrder { .. }
                    | OpError::Overloaded(_)
                    | OpError::SessionExpired(_)
                    | OpError::SessionMoved(_)),
                ),
            ) if command.session.is_some() => {
                self.close(conn, Err(why));
            }
            (Pending::Write { conn, slot, .. }, result) => {
                self.complete(conn, slot, applied.zxid, result.map(Outcome::Write));
            }
            (Pending::Close { conn, slot, .. }, Ok(_) | Err(OpError::SessionExpired(_))) => {
                self.complete(conn, slot, applied.zxid, Ok(Outcome::Close));
                self.close(conn, Ok(()));
            }
            (Pending::Close { conn, .. }, Err(error)) => self.close(conn, Err(error)),
            (Pending::Open { conn, .. }, Err(error)) => self.close(conn, Err(error)),
            (Pending::Open { conn, command }, Ok(_)) => {
                let session = SessionId(applied.zxid.0);
                if !self.conns.get(&conn).is_some_and(Conn::is_opening) {
                    // The client has moved to another node, or reads without this session. It will never resume it.
                    let body = CommandBody::CloseSession { session, expired: None };
                    let command = Command::outside(body);
                    self.submit(Pending::Expire { session }, command);
                } else if let CommandBody::OpenSession { timeout_ms, .. } = command.body {
                    self.opened(conn, session, None, timeout_ms);
                }
            }
            // Handled in `on_entry`, for requests of any node.
            (Pending::Resume { .. }, _) => {}
            // The close itself, requested by any node, is handled in `on_entry`.
            (Pending::Expire { .. }, _) => {}
            (Pending::Reap, _) => self.reaper.settled(),
            // Barriers do not arrive as entries.
            (Pending::Round | Pending::ConfirmSilence | Pending::Check, _) => {
                self.outbox.stop("a barrier came back as an entry; please report this".into());
            }
        }
    }

    fn on_barrier(&mut self, ticket: Ticket) {
        match self.tickets.take(ticket) {
            Some(Pending::Round) => self.end_round(&Ok(())),
            Some(Pending::ConfirmSilence) => {
                for session in self.expiry.confirmed(ticket, self.now) {
                    let body = CommandBody::CloseSession { session, expired: Some(self.status.epoch) };
                    let command = Command::outside(body);
                    self.submit(Pending::Expire { session }, command);
                }
            }
            _ => {}
        }
    }

    fn on_status(&mut self, status: QuorumStatus) {
        let epoch_before = self.status.epoch;
        let changed = self.status.serving != status.serving;
        if changed || epoch_before != status.epoch {
            self.signs.restart(self.now);
        }
        self.status = status;
        if changed && self.served {
            self.tell_leader(!status.serving);
        }
        if status.serving {
            self.down_since = None;
            if !self.served {
                self.served = true;
                self.retry_all();
            }
            self.end_leaderless();
        } else {
            self.down_since.get_or_insert(self.now);
        }
        // Only the leader's store closes sessions. A new leader has not heard any session yet, so every
        // session gets its full timeout.
        let leads = status.serving && status.role == Role::Leading;
        let knows = self.expiry.active() || self.keeps_time_from.is_some();
        if !leads {
            self.expiry.stop();
            self.keeps_time_from = None;
        } else if !knows || status.epoch != epoch_before {
            self.expiry.stop();
            self.keeps_time_from = Some(status.last);
            self.keep_time();
        }
    }

    /// Starts to track sessions, if this node leads and has applied everything that its quorum had when
    /// it began to lead.
    pub(super) fn keep_time(&mut self) {
        if self.keeps_time_from.take_if(|from| *from <= self.state.applied()).is_some() {
            self.expiry.start(self.now, self.state.sessions());
        }
    }

    fn tell_leader(&mut self, lost: bool) {
        for (&id, conn) in &mut self.conns {
            if matches!(conn.phase, Phase::Open(_) | Phase::Local { .. }) {
                self.outbox.send(id, &mut conn.place, Item::Notice(Notice::Leader { lost }));
            }
        }
    }

    fn on_refused(&mut self, ticket: Ticket, why: Refusal) {
        let error = match why {
            Refusal::Full => OpError::Overloaded(format!(
                "too many requests wait at node {} already; slow down and try again",
                self.config.me
            )),
            Refusal::NoLeader => self.unavailable(),
            Refusal::TooLarge => OpError::BadArguments(
                "the request is larger than any message between the nodes may be; split it".into(),
            ),
        };
        match self.tickets.take(ticket) {
            Some(Pending::Write { conn, slot, mut command }) if command.number.is_some() => {
                if !self.conns.contains_key(&conn) {
                    // No request waits for it any more.
                } else if why == Refusal::TooLarge {
                    command.body = CommandBody::Refuse { error, request: digest::request(&command.body) };
                    self.submit_again(conn, slot, command);
                } else {
                    self.close(conn, Err(error));
                }
            }
            Some(Pending::Write { conn, slot, .. } | Pending::Close { conn, slot, .. }) => {
                self.complete(conn, slot, self.state.applied(), Err(error));
            }
            Some(Pending::Open { conn, .. } | Pending::Resume { conn }) => self.close(conn, Err(error)),
            Some(Pending::Round) if why == Refusal::NoLeader => self.end_round(&Err(self.unconfirmed())),
            Some(Pending::Round) => self.end_round(&Err(error)),
            Some(Pending::ConfirmSilence) => self.expiry.unconfirmed(ticket, self.now),
            Some(Pending::Expire { session, .. }) => self.expiry.retry(session, self.now),
            Some(Pending::Check) => self.checks.retry(),
            Some(Pending::Reap) => self.reaper.settled(),
            None => {}
        }
    }

    fn on_lost(&mut self, ticket: Ticket) {
        match self.tickets.take(ticket) {
            // The write number makes it exactly-once, whatever happened to the first attempt.
            Some(Pending::Write { conn, slot, command })
                if command.number.is_some() && self.conns.contains_key(&conn) =>
            {
                self.submit_again(conn, slot, command);
            }
            Some(Pending::Write { conn, slot, .. }) => {
                let why = "the node fell behind while the write was under way, so it cannot tell what became of it; \
                           read before you write again, or use a session";
                self.complete(conn, slot, self.state.applied(), Err(OpError::Unknown(why.into())));
            }
            Some(Pending::Close { conn, slot, command }) => {
                self.submit(Pending::Close { conn, slot, command: command.clone() }, command);
            }
            // If the first attempt succeeded, it opened a session that no client knows, and that
            // session expires.
            Some(Pending::Open { conn, command }) => {
                self.submit(Pending::Open { conn, command: command.clone() }, command);
            }
            // Resuming the session again could take it from a connection that has resumed it since.
            Some(Pending::Resume { conn }) if self.conns.get(&conn).is_some_and(|conn| !conn.in_charge) => {
                let why = "the node fell behind while the session was taken up on it; take it up again";
                self.close(conn, Err(OpError::Unavailable(why.into())));
            }
            Some(Pending::Expire { session, .. }) => self.expiry.retry(session, self.now),
            Some(Pending::ConfirmSilence) => self.expiry.unconfirmed(ticket, self.now),
            Some(Pending::Round) => {
                self.barrier(Pending::Round);
            }
            Some(Pending::Check) => self.checks.retry(),
            Some(Pending::Reap) => self.reaper.settled(),
            Some(Pending::Resume { .. }) | None => {}
        }
    }
}
