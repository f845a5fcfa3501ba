//! The front of a node, pure: connections, the order of a session's requests, the requests that wait
//! for log entries, and the detection of silent sessions.
//!
//! The shell feeds [`Input`]s and carries out [`Output`]s in their order. Rules:
//!
//! - Requests of one session take effect and are answered in arrival order. A read waits only for
//!   earlier writes and barriers of its own session. If there are none, it is answered at once, also
//!   without a leader.
//! - Writes are pipelined: they go to the quorum as they arrive. A write waits only behind an
//!   unanswered sync, or behind a read that waits for a later state or for room, so that the read
//!   cannot see it. A close waits until all earlier requests are answered.
//! - A sync and a linearizable read are answered after a barrier that was requested after their
//!   arrival. One barrier is pending at a time and serves all requests that arrived before it was sent;
//!   later requests wait for the next.
//! - One connection of the ensemble acts for a session. A connection that resumes the session first
//!   writes an entry into the log. Later entries of another connection have no effect, and such a
//!   connection ends when it learns of it.
//! - One connection lists a bounded number of names in a row and then waits for the turns of others. All
//!   connections together, sessions and unary calls, do a bounded amount of work before the next
//!   [`Input::Tick`]; what exceeds it waits in order. So inputs cost little, and a ping of another session
//!   never waits for more than a few pages. Reads between pending writes are the exception: they are
//!   answered when their turn comes. The limit of pending reads makes their
//!   answers fit into the connection's share of unsent bytes; a read that still does not fit is
//!   rejected on its own.
//! - The number of numbered writes that are rejected per second for lack of disk space is bounded,
//!   because each rejection is an entry. On the same connection, requests after a write that waits for
//!   its rejection wait as well.
//! - If a numbered write does not get its place in the log (rejected, or out of order), its connection
//!   ends: the client sends all unanswered requests again, in order, on a new one. No write is applied
//!   twice: the state keeps the results by number.

mod answers;
mod checks;
mod connection;
mod expiry;
mod feed;
mod opening;
mod outbox;
mod reading;
mod reaper;
mod refusals;
mod signs;
mod tickets;
mod waits;
mod walking;
mod watching;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::mutants::{Mutant, is_on};
use api::{
    Command, CommandBody, Level, MultiOp, OpError, PeerId, ReadLevel, SessionId, StreamId, Ticket, Time,
    Trace, TraceContext, Write, WriteNumber, Zxid,
    ports::{PAYLOAD_MAX, QuorumStatus, Refusal, Role, Sign},
    session::{Item, Notice, Op, Open, Opened, Outcome, Request, Response},
};

use crate::{State, watch::Watches};
use answers::Answers;
use checks::Checks;
use connection::{Conn, Phase};
use expiry::Expiry;
use outbox::Outbox;
use reaper::Reaper;
use refusals::Refusals;
use signs::Signs;
use tickets::{Pending, Tickets};
use waits::{Waiter, Waits};

pub use words::{Ask, Committed, Config, ConnId, Drawn, Feed, Input, Limits, Output};

/// The front of one node, and its state.
#[derive(Debug)]
pub struct Server {
    config: Config,
    state: State,
    now: Time,
    status: QuorumStatus,
    /// Since when the quorum does not serve.
    down_since: Option<Time>,
    /// Whether the quorum has served in this run; before that, the state may be outdated.
    served: bool,
    conns: BTreeMap<ConnId, Conn>,
    /// The connection that acts for each session.
    sessions: BTreeMap<SessionId, ConnId>,
    /// Connections that are not open yet, by their deadline.
    opening: BTreeSet<(Time, ConnId)>,
    /// Connections that only read, until there is a quorum.
    leaderless: BTreeSet<ConnId>,
    waits: Waits,
    walks: walking::Walks,
    watches: Watches,
    /// Time of the next check for connections that need a mark.
    marks_at: Option<Time>,
    tickets: Tickets,
    signs: Signs,
    expiry: Expiry,
    checks: Checks,
    reaper: Reaper,
    /// Time of the last applied entry.
    applied_at: Time,
    /// Set while this node leads but its state is behind the log of the quorum: it tracks sessions from
    /// this entry on. Before that, it does not know the pending closes that an earlier process of this
    /// store decided.
    keeps_time_from: Option<Zxid>,
    asks: Vec<Ask>,
    outbox: Outbox,
    answers: Answers,
    refusals: Refusals,
}

impl Server {
    /// A node with this state from its checkpoint, before any message of its quorum.
    #[must_use]
    pub fn new(now: Time, config: Config, state: State) -> Server {
        Server {
            tickets: Tickets::new(config.first_ticket),
            expiry: Expiry::default(),
            checks: Checks::default(),
            reaper: Reaper::default(),
            applied_at: now,
            keeps_time_from: None,
            signs: Signs::default(),
            watches: Watches::new(state.applied(), &config.limits),
            marks_at: None,
            config,
            state,
            now,
            status: QuorumStatus::default(),
            down_since: Some(now),
            served: false,
            conns: BTreeMap::new(),
            sessions: BTreeMap::new(),
            opening: BTreeSet::new(),
            leaderless: BTreeSet::new(),
            waits: Waits::default(),
            walks: walking::Walks::default(),
            asks: Vec::new(),
            outbox: Outbox::default(),
            answers: Answers::default(),
            refusals: Refusals::default(),
        }
    }

    /// Processes an input. `now` never decreases.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.advance_time(now);
        match input {
            Input::Feed(item) => self.on_feed(item),
            Input::Sign(sign) => self.on_sign(sign),
            Input::Open { conn, open, drawn, identities } => self.on_open(conn, open, drawn, identities),
            Input::Requests { conn, acked, requests } => self.on_requests(conn, acked, requests),
            Input::Unary { conn, request, identities } => self.on_unary(conn, request, identities),
            Input::Closed { conn } => self.forget(conn),
            Input::Drained { conn, bytes } => self.on_drained(conn, bytes),
            Input::Tick => {
                self.watches.sweep();
                self.answer_more();
            }
        }
        self.on_time();
    }

    /// The next output, in this order; `None` if there is none now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.begin_round();
        if !self.asks.is_empty() {
            return Some(Output::Ask(std::mem::take(&mut self.asks)));
        }
        self.outbox.pop()
    }

    /// When [`Input::Tick`] is due without other inputs.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        if self.has_more() {
            return Some(self.now);
        }
        let opening = self.opening.first().map(|(at, _)| *at);
        let report = self.signs.next_timeout().filter(|_| self.status.serving);
        // Also without connections: probes ask whether this node is ready.
        let park = self.park_deadline().filter(|&at| at > self.now);
        let expiry = self.expiry.next_timeout(self.now);
        let check =
            self.checks.next_timeout(self.config.limits.check_interval).filter(|_| self.expiry.active());
        let reaps = self.expiry.active() && self.state.tree().may_reap();
        let reap = self.reaper.next_timeout().filter(|_| reaps);
        let (waits, refusals) = (self.waits.next_timeout(), self.refusals.next_timeout());
        [
            park,
            opening,
            waits,
            report,
            expiry,
            refusals,
            check,
            reap,
            self.marks_at,
            self.walks.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Replaces the state by a snapshot from the quorum, because the entries in between are no longer
    /// available. Returns the old state: to drop a large one takes long.
    pub fn replace_state(&mut self, now: Time, state: State) -> State {
        self.advance_time(now);
        let back = state.applied() < self.state.applied();
        let old = std::mem::replace(&mut self.state, state);
        self.applied_at = self.now;
        let connected: Vec<(SessionId, ConnId)> = self.sessions.iter().map(|(&s, &c)| (s, c)).collect();
        for (session, conn) in connected {
            match self.state.session(session) {
                // Its client may have seen more than this node has now; it moves to another node, or
                // waits on a new connection.
                _ if back => {
                    let why = format!(
                        "node {} starts again from an older state; connect to another node",
                        self.config.me
                    );
                    self.close(conn, Err(OpError::Unavailable(why)));
                }
                None => self.close(conn, Err(OpError::SessionExpired(session))),
                // This node cannot send the events in between; another node may.
                _ if self.watches.watches(conn) => {
                    let why = format!(
                        "node {} has taken its state from a snapshot, and cannot tell what your watches have missed; connect to another node",
                        self.config.me
                    );
                    self.close(conn, Err(OpError::Unavailable(why)));
                }
                Some(info) => self.on_newest_stream(session, info.stream),
            }
        }
        let local = |(id, conn): (&ConnId, &Conn)| matches!(conn.phase, Phase::Local { .. }).then_some(*id);
        let locals: Vec<ConnId> = self.conns.iter().filter_map(local).collect();
        for id in locals {
            if !back && !self.watches.watches(id) {
                continue;
            }
            let why = format!(
                "node {} has taken another state from a snapshot; connect to another node",
                self.config.me
            );
            self.close(id, Err(OpError::Unavailable(why)));
        }
        self.watches.reset(self.state.applied());
        self.walks.forget();
        if self.expiry.active() {
            self.expiry.reload(now, self.state.sessions());
        }
        self.keep_time();
        self.retry_behind();
        self.on_time();
        old
    }

    /// Discards the state, which differs from the leader's, and stops serving until a new feed has
    /// provided another one. Ends all connections. Returns the old state, like
    /// [`Server::replace_state`].
    pub fn start_over(&mut self, now: Time) -> State {
        let mut state = State::seeded(self.state.seed());
        state.forget_checkpoint();
        let old = self.replace_state(now, state);
        (self.served, self.status) = (false, QuorumStatus::default());
        self.down_since.get_or_insert(self.now);
        self.expiry.stop();
        self.keeps_time_from = None;
        self.checks = Checks::default();
        self.reaper = Reaper::default();
        old
    }

    /// The last entry after which this state was compared with the leader's and equal, since the server
    /// [started over](Server::start_over); zero if there is none.
    #[must_use]
    pub fn agreed(&self) -> Zxid {
        self.checks.agreed()
    }

    /// The id of the ensemble, as the quorum has said last.
    #[must_use]
    pub fn ensemble(&self) -> Option<api::EnsembleId> {
        self.status.ensemble
    }

    /// Id of this node.
    #[must_use]
    pub fn me(&self) -> PeerId {
        self.config.me
    }

    /// The replicated state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The changes for the next checkpoint.
    pub fn take_dirty(&mut self) -> crate::Changes {
        self.state.take_dirty()
    }

    /// See [`State::begin_export`].
    pub fn begin_export(&mut self, checkpoint: bool) -> Vec<api::record::Record> {
        self.state.begin_export(checkpoint)
    }

    /// See [`State::export`].
    pub fn export(&mut self, most: usize, bytes: usize) -> Option<(Vec<api::record::Znode>, bool)> {
        self.state.export(most, bytes)
    }

    /// See [`State::end_export`].
    pub fn end_export(&mut self) {
        self.state.end_export();
    }

    /// The last checkpoint is unusable: the next changes are the whole state.
    pub fn forget_checkpoint(&mut self) {
        self.state.forget_checkpoint();
    }

    /// The last status of the quorum.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        self.status
    }

    /// Whether this node serves clients: the quorum serves, or its outage is short enough.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.served && !self.turning_away()
    }

    /// Whether connections wait for another turn, or watches of ended ones for their removal: an
    /// [`Input::Tick`] continues with them.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.answers.has_more() || self.watches.is_sweeping()
    }

    /// Ends all connections, before the node stops.
    pub fn close_all(&mut self, why: &OpError) {
        let all: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in all {
            self.close(conn, Err(why.clone()));
        }
    }
}

// ---- what the parts share ----

impl Server {
    fn advance_time(&mut self, now: Time) {
        // A node that was suspended (by a debugger, a hypervisor, SIGSTOP) received nothing, so the
        // sessions were not necessarily silent.
        let gap = now.since(self.now);
        if gap > expiry::PAUSE {
            self.expiry.stood_still(gap);
        }
        self.now = self.now.max(now);
    }

    fn on_time(&mut self) {
        if self.turning_away() && self.conns.len() > self.leaderless.len() {
            let why = self.unavailable();
            let all: Vec<ConnId> =
                self.conns.keys().copied().filter(|id| !self.leaderless.contains(id)).collect();
            for conn in all {
                self.close(conn, Err(why.clone()));
            }
        }
        self.give_up_openings();
        self.give_up_waits();
        self.refuse_more();
        self.end_idle_walks();
        self.sweep_marks();
        let Server { signs, tickets, config, .. } = self;
        if self.status.serving
            && let Some(report) = signs.report(self.now, config.limits.report_interval(), || tickets.number())
        {
            self.asks.push(Ask::Report(report));
            if is_on(Mutant::ConfirmedBeforeCounted) {
                self.tell_confirmed(self.signs.reported());
            }
        }
        if self.expiry.suspects(self.now) {
            let ticket = self.barrier(Pending::ConfirmSilence);
            self.expiry.asked(ticket);
        }
        if self.expiry.active()
            && let Some((of, digest)) = self.checks.take_due(self.now, self.config.limits.check_interval)
        {
            self.submit(Pending::Check, Command::outside(CommandBody::Check { of, digest }));
        }
        if self.expiry.active() && self.reaper.is_due(self.now) {
            self.reap();
        }
    }

    /// Requests the removal of expired znodes, by the current time of the log.
    fn reap(&mut self) {
        let since = i64::try_from(self.now.since(self.applied_at).as_millis()).unwrap_or(i64::MAX);
        let time_ms = self.state.time_ms().saturating_add(since);
        let unused = self.config.limits.container_unused.as_millis();
        let unused_ms = u64::try_from(unused).unwrap_or(u64::MAX);
        let overdue = self.state.tree().overdue(time_ms, unused_ms, self.reaper.at_once());
        self.reaper.asked(self.now, overdue.len(), self.config.limits.reap_interval);
        for (path, czxid) in overdue {
            self.submit(Pending::Reap, Command::outside(CommandBody::Reap { path, czxid, unused_ms }));
        }
    }

    fn park_deadline(&self) -> Option<Time> {
        self.down_since.map(|since| since + self.config.limits.park)
    }

    fn turning_away(&self) -> bool {
        self.park_deadline().is_some_and(|at| self.now >= at)
    }

    fn stateless(&self) -> OpError {
        OpError::Unavailable(format!(
            "node {} has no state yet, not even an old one: its checkpoint has none, and its quorum has not given it one. Read at \
             another node; what this one waits for, such as space on its disk, is in its log and in /readyz?verbose",
            self.config.me
        ))
    }

    fn unavailable(&self) -> OpError {
        OpError::Unavailable(format!(
            "node {} has had no serving quorum for {:?} or more; connect to another node, and look at `quorate status`",
            self.config.me, self.config.limits.park
        ))
    }

    fn submit(&mut self, pending: Pending, command: Command) {
        let ticket = self.tickets.next(pending);
        self.asks.push(Ask::Submit { ticket, command, trace: None });
    }

    /// Submits a write of a connection again.
    fn submit_again(&mut self, conn: ConnId, slot: u64, command: Command) {
        let trace = self.conns.get(&conn).and_then(|conn| conn.trace(slot)).cloned();
        let ticket = self.tickets.next(Pending::Write { conn, slot, command: command.clone() });
        self.asks.push(Ask::Submit { ticket, command, trace: trace.map(Box::new) });
    }

    fn barrier(&mut self, pending: Pending) -> Ticket {
        let ticket = self.tickets.next(pending);
        self.asks.push(Ask::Barrier { ticket });
        ticket
    }

    fn close(&mut self, id: ConnId, why: Result<(), OpError>) {
        if let Some(conn) = self.conns.get(&id) {
            let why = conn.fate(why);
            if why.is_ok() {
                self.end_watching(id);
            }
            self.forget(id);
            self.outbox.close(id, why);
        }
    }

    fn forget(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.watches.close(id);
        self.leaderless.remove(&id);
        self.answers.forget(id);
        self.answers.taken(conn.unsent());
        if conn.waits_for_refusal {
            self.refusals.forget(id);
        }
        for (slot, op, until) in conn.waiting() {
            self.waits.end_request((id, slot), op, until);
        }
        match conn.phase {
            Phase::Open(session) if self.sessions.get(&session) == Some(&id) => {
                self.sessions.remove(&session);
            }
            Phase::Opening(opening) => self.unlist(id, &opening),
            _ => {}
        }
    }

    /// A sign of life of a session, up to the last request of its connection.
    fn touch(&mut self, session: SessionId, id: ConnId) {
        if let Some(conn) = self.conns.get(&id) {
            self.signs.heard(session, id, conn.last_xid);
        }
    }

    fn on_sign(&mut self, sign: Sign) {
        match sign {
            Sign::Report { from, report } if self.expiry.active() => {
                let Some((ticket, sessions)) = signs::decode(&report) else { return };
                let refused = sessions.filter(|&session| !self.expiry.heard(session, self.now));
                let report = signs::encode(ticket, refused);
                self.asks.push(Ask::Confirm { to: from, epoch: self.status.epoch, report });
            }
            // This node does not know yet that it leads. The report will be repeated.
            Sign::Report { .. } => {}
            Sign::Confirmed(report) => {
                let Some((ticket, refused)) = signs::decode(&report) else { return };
                let open = |session| self.sessions.contains_key(&session);
                let counted = self.signs.confirmed(ticket, refused, open);
                self.tell_confirmed(counted);
            }
        }
    }

    fn tell_confirmed(&mut self, counted: Vec<(ConnId, u64)>) {
        for (id, xid) in counted {
            if let Some(conn) = self.conns.get_mut(&id).filter(|c| c.session().is_some() && c.confirmed < xid)
            {
                conn.confirmed = xid;
                self.outbox.send(id, &mut conn.place, Item::Confirmed { xid });
            }
        }
    }
}

#[cfg(test)]
mod tests;
