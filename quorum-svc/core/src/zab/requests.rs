//! Requests of the store and of operators.

use api::mutants::{Mutant, is_on};
use api::{
    Body, Entry, Level, LevelRefusal, Origin, Reconfig, ReconfigRefusal, Roster, Ticket, Time, Trace, Zxid,
    ports::{FeedItem, PAYLOAD_MAX, Refusal, Request, Sign},
};
use bytes::Bytes;

use super::{OPERATOR_ASKS, Role, Zab, limit_micros};
use crate::{Output, Submission};

impl Zab {
    pub(super) fn on_set_level(&mut self, ticket: Ticket, expected: Level, level: Level) {
        let refusal = match self.serving() {
            false => Some(leaderless()),
            true => (self.level_asks.len() >= OPERATOR_ASKS).then(|| {
                LevelRefusal::Unavailable("too many ask for a feature level at once; ask again".into())
            }),
        };
        if let Some(refusal) = refusal {
            self.out.push_back(Output::LevelSet { ticket, result: Err(refusal) });
            return;
        }
        self.level_asks.push(ticket);
        match &self.role {
            Role::Leading(_) => self.leader_set_level(None, ticket, expected, level),
            _ => self.learner_set_level(ticket, expected, level),
        }
    }

    /// Answers a request for another level on this server, once.
    pub(crate) fn level_set(&mut self, ticket: Ticket, result: Result<Level, LevelRefusal>) {
        if let Some(i) = self.level_asks.iter().position(|&asked| asked == ticket) {
            self.level_asks.swap_remove(i);
            self.out.push_back(Output::LevelSet { ticket, result });
        }
    }

    pub(super) fn on_reconfigure(&mut self, ticket: Ticket, reconfig: Reconfig) {
        let refusal = match self.serving() {
            false => Some(unasked()),
            true => (self.reconfig_asks.len() >= OPERATOR_ASKS).then(|| {
                ReconfigRefusal::Unavailable("too many ask for other members at once; ask again".into())
            }),
        };
        if let Some(refusal) = refusal {
            self.out.push_back(Output::Reconfigured { ticket, result: Err(refusal) });
            return;
        }
        self.reconfig_asks.push(ticket);
        match &self.role {
            Role::Leading(_) => self.leader_reconfigure(None, ticket, reconfig),
            _ => self.learner_reconfigure(ticket, reconfig),
        }
    }

    /// Answers a request for other members on this server, once.
    pub(crate) fn reconfigured(&mut self, ticket: Ticket, result: Result<Zxid, ReconfigRefusal>) {
        if let Some(i) = self.reconfig_asks.iter().position(|&asked| asked == ticket) {
            self.reconfig_asks.swap_remove(i);
            self.out.push_back(Output::Reconfigured { ticket, result });
        }
    }

    /// Whether an entry of the leader may say these members. The first ones in a log may follow any: a server that joins has
    /// another list in its settings than those that were there at the first start.
    pub(crate) fn fits_roster(&self, at: Zxid, roster: &Roster) -> bool {
        match self.rosters.last() {
            Some(before) => roster.follows(before, at),
            None => roster.since() == at && roster.newest().version == at,
        }
    }

    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Submit { ticket, payload, trace } => {
                if payload.len() > self.config.request_bytes_max.min(PAYLOAD_MAX) {
                    self.refuse(ticket, Refusal::TooLarge);
                    return;
                }
                // Only earlier writes count. So small writes do not keep out a large one that fits
                // alone, however often they come.
                if self.pending.len() >= self.config.requests_max
                    || self.pending.bytes() >= self.config.request_bytes_max
                {
                    self.refuse(ticket, Refusal::Full);
                    return;
                }
                let submission = Submission { ticket, payload, trace };
                if !self.pending.push(submission.clone(), self.now.mono) {
                    self.out
                        .push_back(Output::Fatal(format!("the store's ticket {} does not ascend", ticket.0)));
                    return;
                }
                if self.serving() && (self.orders() || !matches!(self.role, Role::Leading(_))) {
                    self.pending.mark_last_sent();
                    match &self.role {
                        Role::Leading(_) => self.order_own(submission),
                        _ => self.forward(submission),
                    }
                }
            }
            Request::Barrier { ticket } => {
                if self.barriers.unanswered.len() + self.barriers.answered.len() >= self.config.requests_max {
                    self.refuse(ticket, Refusal::Full);
                    return;
                }
                self.barriers.unanswered.insert(ticket, self.now.mono);
                self.ask_barrier(ticket);
            }
            Request::Report(report) => match &self.role {
                Role::Leading(leading) if leading.established() => {
                    let from = self.config.me;
                    self.out.push_back(Output::Sign(Sign::Report { from, report }));
                }
                _ => self.report(report),
            },
            Request::Confirm { to, epoch, report } => {
                // A report of an earlier reign was counted with that reign's knowledge.
                if epoch == self.current {
                    self.leader_confirm(to, report);
                }
            }
        }
    }

    pub(super) fn ask_barrier(&mut self, ticket: Ticket) {
        match &self.role {
            Role::Leading(_) => self.leader_barrier(None, ticket),
            Role::Following(_) => self.learner_barrier(ticket),
            Role::Looking { .. } => {}
        }
    }

    /// Sends the parked requests in their order: from now on writes make progress.
    pub(crate) fn resume_requests(&mut self) {
        for ticket in self.pending.take_overtaken() {
            self.refuse(ticket, Refusal::Full);
        }
        self.pending.committed(self.committed);
        for s in self.pending.unlogged() {
            match &self.role {
                Role::Leading(_) => self.order_own(s),
                _ => self.forward(s),
            }
        }
        let tickets: Vec<Ticket> = self.barriers.unanswered.keys().copied().collect();
        tickets.into_iter().for_each(|ticket| self.ask_barrier(ticket));
    }

    /// Answers a barrier. The leader had committed everything up to `zxid`, and has confirmed its
    /// quorum since the request.
    pub(crate) fn answer_barrier(&mut self, ticket: Ticket, zxid: Zxid) {
        if self.barriers.unanswered.remove(&ticket).is_some() {
            self.barriers.answered.push((zxid, ticket));
        }
    }

    pub(super) fn release_barriers(&mut self) {
        if self.barriers.answered.is_empty() {
            return;
        }
        let delivered = self.delivered;
        let out = &mut self.out;
        self.barriers.answered.retain(|&(zxid, ticket)| {
            let open = zxid > delivered && !is_on(Mutant::BarrierBeforeApplied);
            if !open {
                out.push_back(Output::Tell(FeedItem::Barrier { ticket }));
            }
            open
        });
    }

    pub(super) fn refuse_parked(&mut self) {
        let Some(since) = self.now.mono.0.checked_sub(limit_micros(&self.config)) else { return };
        if self.pending.oldest_unsent().is_some_and(|t| t.0 <= since) {
            for ticket in self.pending.take_unsent(Time(since)) {
                self.refuse(ticket, Refusal::NoLeader);
            }
        }
        let late: Vec<Ticket> =
            self.barriers.unanswered.iter().filter(|&(_, t)| t.0 <= since).map(|(&t, _)| t).collect();
        for ticket in late {
            self.barriers.unanswered.remove(&ticket);
            self.refuse(ticket, Refusal::NoLeader);
        }
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, why: Refusal) {
        self.out.push_back(Output::Tell(FeedItem::Refused { ticket, why }));
    }

    /// Reports the pending writes as lost: a snapshot replaced entries that may have contained them.
    pub(crate) fn lose_pending(&mut self) {
        let lost = self.pending.take_all();
        self.out.extend(lost.into_iter().map(|ticket| Output::Tell(FeedItem::Lost { ticket })));
    }

    pub(super) fn order_own(&mut self, s: Submission) {
        self.order(Origin { peer: self.config.me, ticket: s.ticket }, s.payload, s.trace);
    }

    /// Appends a write to the order. Only the leader of an established epoch calls it.
    pub(crate) fn order(&mut self, origin: Origin, payload: Bytes, trace: Trace) {
        let Some(zxid) = self.next_place() else { return };
        let time_ms = self.stamp();
        let Role::Leading(leading) = &mut self.role else { return };
        leading.note_outstanding(zxid, origin.peer, payload.len());
        if origin.peer == self.config.me {
            self.pending.logged(origin.ticket, zxid);
        }
        self.push_entry(Entry { zxid, time_ms, origin: Some(origin), body: Body::Store(payload), trace });
    }

    /// The next position in the log. Without one left in the epoch, this server gives up leadership and
    /// returns `None`.
    pub(crate) fn next_place(&mut self) -> Option<Zxid> {
        let last = self.history.last();
        let next = last.next().filter(|zxid| zxid.counter() <= self.config.counter_max);
        let over = last.epoch().next().filter(|_| is_on(Mutant::CounterRunsOver)).map(Zxid::marker);
        let place = next.or(over);
        if place.is_none() {
            // S27: the next epoch has positions again. The write waits for it as for any election.
            self.look("the epoch's counter is used up");
        }
        place
    }
}

pub(super) fn unasked() -> ReconfigRefusal {
    let why = "there is no leader, or it was lost meanwhile: look at the members, and ask again if they have not changed";
    ReconfigRefusal::Unavailable(why.into())
}

pub(super) fn leaderless() -> LevelRefusal {
    LevelRefusal::Unavailable("there is no leader, or it was lost meanwhile; ask again".into())
}
