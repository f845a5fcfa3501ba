use std::{collections::VecDeque, time::Duration};

use api::{
    EnsembleId, ErrorCode, Fate, OpError, PeerId, ReadLevel, SessionId, SessionToken, Ticket, Time, Trace,
    WriteNumber, Zxid,
    mutants::{Mutant, is_on},
    session::{Item, Notice, Op, Open as OpenSession, Opened, Outcome, Purpose, Response},
};

use crate::{
    Batch, Config, Connection, Event, Failure, Input, Output, WatchNews,
    backoff::Backoff,
    queue::{Entry, Queue},
    watching::Watching,
};

/// The client's side of one session after another; see the crate's description.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    phase: Phase,
    /// From the first `Opened` to the session's end.
    session: Option<Session>,
    queue: Queue,
    watching: Watching,
    backoff: Backoff,
    /// Most requests to be sent without an answer now: halved by every `Overloaded`, one more with every answer.
    window: usize,
    /// What the window may be: as configured, and no more than what the present node takes.
    window_max: usize,
    /// Endpoints in a row that refused for good.
    refusals: usize,
    /// The greatest zxid seen, over all sessions: no session of this client goes back before it.
    last_zxid: Zxid,
    /// Of the first session: zxids of another ensemble mean nothing to this client, and its sessions are not there.
    ensemble: Option<EnsembleId>,
    last_connection: u64,
    /// Set by [`Input::Close`].
    closing_until: Option<Time>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Phase {
    /// Between attempts.
    Waiting { until: Time },
    /// A session was requested.
    Opening { connection: Connection, endpoint: usize, since: Time },
    /// Requests flow.
    Open(Open),
    /// For ever; later requests get this failure.
    Closed(Failure),
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    endpoint: usize,
    node: PeerId,
    /// Since when the node has no leader.
    leaderless: Option<Time>,
    heard_at: Time,
    /// A third of the time-out after the last message that was sent.
    ping_at: Time,
    /// Of messages that are not confirmed: their first request, and when they were sent. Messages that are sent soon after
    /// another one are left out, and count as sent with it.
    unconfirmed: VecDeque<(u64, Time)>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    token: SessionToken,
    timeout: Duration,
    /// For the next write that goes out for the first time.
    next_number: WriteNumber,
    /// The last write that was answered. Any answer, also a refusal, uses the number up.
    acked: WriteNumber,
    /// The ensemble heard from this client at this time or later: the time when the newest confirmed message
    /// was sent, or the request to open the session, which is carried out in its order like a write.
    alive_at: Time,
    suspended: bool,
}

impl Machine {
    /// A machine that starts with its first [`Input::Tick`]. The seed decides the first endpoint and the jitter.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Machine {
        Machine {
            backoff: Backoff::new(&config, seed),
            window: config.window_max.max(1),
            window_max: config.window_max.max(1),
            config,
            phase: Phase::Waiting { until: Time(0) },
            session: None,
            queue: Queue::default(),
            watching: Watching::default(),
            refusals: 0,
            last_zxid: Zxid::ZERO,
            ensemble: None,
            last_connection: 0,
            closing_until: None,
            outputs: VecDeque::new(),
        }
    }

    /// Whether a request would be taken now; if not, it ends at once with [`Failure::Full`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.held() < self.config.requests_max && self.queue.bytes() < self.config.bytes_max
    }

    /// Whether the end has come. Requests end at once with a failure.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Request { ticket, op, deadline, trace } => self.on_request(ticket, op, deadline, trace),
            Input::Watch { spec } if self.is_closed() => {
                self.outputs.push_back(Output::Watch { id: spec.id, news: WatchNews::Ended(None) });
            }
            Input::Watch { spec } => self.on_watching(|watching, open| watching.add(spec, open)),
            Input::Unwatch { id } => self.on_watching(|watching, open| watching.remove(id, open)),
            Input::Park { id } => self.on_watching(|watching, open| watching.park(id, open)),
            Input::Unpark { id } => self.on_watching(|watching, open| watching.unpark(id, open)),
            Input::Close { ticket } => self.on_close(now, ticket),
            Input::Items { connection, items } => self.on_items(now, connection, items),
            Input::Disconnected { connection, error } => {
                if self.connection() == Some(connection) {
                    self.on_disconnected(now, error);
                }
            }
            Input::Tick => self.on_tick(now),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Machine::poll_transmit`] has something.
    #[must_use]
    pub fn wants_to_transmit(&self) -> bool {
        matches!(self.phase, Phase::Open(_)) && self.queue.has_unsent() && self.queue.sent() < self.window
    }

    /// The next message for the open connection. Ask only when the connection takes one: what this returns counts
    /// as sent.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Batch> {
        let (Phase::Open(open), Some(session)) = (&mut self.phase, &mut self.session) else { return None };
        let room = self.window.saturating_sub(self.queue.sent());
        let requests = self.queue.take_batch(now, room, &mut session.next_number);
        if requests.is_empty() {
            return None;
        }
        open.ping_at = now + session.timeout / PING_SHARE;
        let fine = session.timeout / UNCONFIRMED_MAX;
        if open.unconfirmed.back().is_none_or(|&(_, at)| at + fine <= now)
            && let Some(first) = requests.first()
        {
            open.unconfirmed.push_back((first.xid, now));
        }
        Some(Batch { connection: open.connection, requests, acked: session.acked })
    }

    /// When to give [`Input::Tick`]; `None` once closed.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let phase = match &self.phase {
            Phase::Waiting { until } => *until,
            Phase::Opening { since, .. } => *since + self.config.attempt_timeout,
            Phase::Open(open) => {
                let leave = open.leaderless.filter(|_| self.config.endpoints > 1);
                let leave = leave.map(|since| since + self.config.leaderless_max);
                open.ping_at.min(open.heard_at + self.silence_max()).min(leave.unwrap_or(open.ping_at))
            }
            Phase::Closed(_) => return None,
        };
        let suspend = self.session.as_ref().filter(|s| !s.suspended).map(|s| s.alive_at + s.timeout);
        [Some(phase), suspend, self.closing_until, self.queue.earliest_deadline()].into_iter().flatten().min()
    }

    /// The time until which the session certainly lives; `None` without a session, and while it is suspended.
    #[must_use]
    pub fn alive_until(&self) -> Option<(SessionId, Time)> {
        self.session.as_ref().filter(|s| !s.suspended).map(|s| (s.id, s.alive_at + s.timeout))
    }

    // ---- the caller ----

    fn on_request(&mut self, ticket: Ticket, op: Op, deadline: Option<Time>, trace: Trace) {
        let failure = match &self.phase {
            Phase::Closed(failure) => failure.clone(),
            _ if self.closing_until.is_some() => Failure::Closed { fate: Fate::NotDone },
            _ if !self.has_room() => Failure::Full,
            _ => return self.queue.push(op, Some(ticket), deadline, trace),
        };
        self.unanswered(ticket, Err(failure));
    }

    fn on_close(&mut self, now: Time, ticket: Option<Ticket>) {
        let nothing_to_close = self.session.is_none() && self.queue.is_empty();
        if self.is_closed() || nothing_to_close {
            if let Some(ticket) = ticket {
                self.unanswered(ticket, Ok(Outcome::Close));
            }
            if !self.is_closed() {
                self.disconnect();
                self.finish(Failure::Closed { fate: Fate::NotDone }, |fate| Failure::Closed { fate });
            }
            return;
        }
        self.closing_until.get_or_insert(now + self.config.close_timeout);
        self.queue.push(Op::Close, ticket, None, None);
    }

    fn on_watching(&mut self, change: impl FnOnce(&mut Watching, bool) -> Option<Op>) {
        let open = matches!(self.phase, Phase::Open(_));
        if let Some(op) = change(&mut self.watching, open) {
            self.queue.push(op, None, None, None);
        }
    }

    // ---- the connection ----

    fn on_items(&mut self, now: Time, connection: Connection, items: Vec<Item>) {
        for item in items {
            // An earlier one of them may have ended the connection.
            if self.connection() != Some(connection) {
                return;
            }
            match (&mut self.phase, item) {
                (Phase::Opening { endpoint, since, .. }, Item::Opened(opened)) => {
                    let (endpoint, since) = (*endpoint, *since);
                    self.on_opened(now, connection, endpoint, since, opened);
                }
                (Phase::Open(open), Item::Response(response)) => {
                    open.heard_at = now;
                    self.on_response(now, response);
                }
                (Phase::Open(_), Item::Confirmed { xid }) => self.on_confirmed(now, xid),
                (Phase::Open(open), Item::Events(group)) => {
                    open.heard_at = now;
                    if !group.more {
                        self.last_zxid = self.last_zxid.max(group.zxid);
                    }
                    self.watching.on_events(group, &mut self.outputs);
                }
                (Phase::Open(open), Item::State(state)) => {
                    open.heard_at = now;
                    self.watching.on_state(state, &mut self.outputs);
                }
                (Phase::Open(_), Item::Ended(ended)) => {
                    for op in self.watching.on_ended(ended, &mut self.outputs) {
                        self.queue.push(op, None, None, None);
                    }
                }
                (Phase::Open(open), Item::Mark(mark)) => {
                    open.heard_at = now;
                    self.last_zxid = self.last_zxid.max(mark.zxid);
                    self.watching.on_passed(mark.zxid);
                }
                (Phase::Open(open), Item::Notice(Notice::Leader { lost })) => {
                    open.leaderless = lost.then(|| open.leaderless.unwrap_or(now));
                }
                (Phase::Opening { .. }, _) => {
                    let error = OpError::Internal("the node did not open a session first".to_owned());
                    self.lose_connection(now, error);
                }
                (Phase::Open(_), Item::Opened(_)) => {
                    let error = OpError::Internal("the node opened a second session".to_owned());
                    self.lose_connection(now, error);
                }
                (Phase::Waiting { .. } | Phase::Closed(_), _) => {}
            }
        }
    }

    fn on_opened(&mut self, now: Time, connection: Connection, endpoint: usize, since: Time, opened: Opened) {
        let Opened { session: id, token, timeout_ms, node, leaderless, ensemble, limits, .. } = opened;
        // The node may have learned its own only after it was asked.
        if let (Some(expected), Some(actual)) = (self.ensemble, ensemble)
            && expected != actual
        {
            return self.lose_connection(now, OpError::WrongEnsemble { expected, actual });
        }
        self.ensemble = self.ensemble.or(ensemble);
        let timeout = Duration::from_millis(timeout_ms.into()).max(TIMEOUT_MIN);
        // When a session is taken up, only the node knows of it.
        let ping_at = if self.session.is_some() { now } else { since + timeout / PING_SHARE };
        match &mut self.session {
            None => {
                let (next_number, acked) = (WriteNumber(1), WriteNumber(0));
                let (alive_at, suspended) = (since, false);
                self.session = Some(Session { id, token, timeout, next_number, acked, alive_at, suspended });
                self.outputs.push_back(Output::Event(Event::Connected { session: id, endpoint, node }));
            }
            Some(session) if session.id == id => {
                (session.token, session.timeout) = (token, timeout);
                if !session.suspended {
                    self.outputs.push_back(Output::Event(Event::Resumed { endpoint, node }));
                }
            }
            Some(session) => {
                let wanted = session.id;
                let error =
                    OpError::Internal(format!("asked for session {wanted}, the server opened session {id}"));
                return self.lose_connection(now, error);
            }
        }
        // 0: the node does not say.
        let told = [limits.requests, limits.unacked_writes].into_iter().filter(|limit| *limit > 0).min();
        let told = told.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        self.window_max = self.config.window_max.max(1).min(told);
        self.window = self.window.min(self.window_max);
        self.phase = Phase::Open(Open {
            connection,
            endpoint,
            node,
            leaderless: leaderless.then_some(now),
            heard_at: now,
            ping_at,
            unconfirmed: VecDeque::new(),
        });
        // Before everything else, so that what was missed comes before answers that show it.
        let ops = self.watching.on_opened();
        self.queue.push_first(ops);
    }

    fn on_confirmed(&mut self, now: Time, xid: u64) {
        let (Phase::Open(open), Some(session)) = (&mut self.phase, &mut self.session) else { return };
        while let Some((_, sent_at)) = open.unconfirmed.pop_front_if(|(first, _)| *first <= xid) {
            let at = if is_on(Mutant::CountedFromAnswer) { now } else { sent_at };
            session.alive_at = session.alive_at.max(at);
        }
        if session.suspended && now < session.alive_at + session.timeout {
            session.suspended = false;
            let (endpoint, node) = (open.endpoint, open.node);
            self.outputs.push_back(Output::Event(Event::Resumed { endpoint, node }));
        }
    }

    fn on_response(&mut self, now: Time, response: Response) {
        if self.queue.front_sent().is_none_or(|front| front.xid != response.xid) {
            let error = OpError::Internal(format!("an answer to request {}, out of order", response.xid));
            return self.lose_connection(now, error);
        }
        self.last_zxid = self.last_zxid.max(response.zxid);
        match response.result {
            // The node requests a retry, as when it ends the stream for such a reason. Passing this error to
            // the caller would leave the number of a write undecided, and later writes could not continue.
            Err(error) if asks_again(error.code()) && !self.is_too_far_ahead(&error) => {
                self.on_disconnected(now, error);
            }
            result => self.on_answered(response.zxid, result),
        }
    }

    /// Whether this answers a read whose wait for its zxid has timed out. The caller decides: the zxid may be of
    /// another ensemble, and would delay all later requests on one node after the other.
    fn is_too_far_ahead(&self, error: &OpError) -> bool {
        let read = self.queue.front_sent().map(|front| &front.op);
        error.code() == ErrorCode::Unavailable && matches!(read, Some(Op::Read(_, ReadLevel::AtLeast(_))))
    }

    fn on_answered(&mut self, zxid: Zxid, result: Result<Outcome, OpError>) {
        let Some(entry) = self.queue.pop_sent() else { return };
        // A node answers these to each client that comes, and may refuse what comes behind them: then the pauses have to grow.
        let formal = matches!(entry.op, Op::AddWatches(_) | Op::CancelWatches(_) | Op::Ping);
        if !formal || self.queue.is_empty() {
            self.backoff.succeeded();
            self.window = (self.window + 1).min(self.window_max);
        }
        match (&entry.op, &result) {
            (Op::AddWatches(add), Ok(Outcome::Watching(refused))) => {
                self.watching.on_added(&add.specs, zxid, Ok(refused.clone()), &mut self.outputs);
            }
            (Op::AddWatches(add), Err(error)) => {
                self.watching.on_added(&add.specs, zxid, Err(error.clone()), &mut self.outputs);
            }
            (Op::CancelWatches(ids), _) => self.watching.on_cancelled(ids),
            _ => {}
        }
        self.watching.on_passed(zxid);
        self.refusals = 0;
        if let (Some(session), Some(number)) = (&mut self.session, entry.number) {
            session.acked = number;
        }
        if let Some(ticket) = entry.ticket {
            let result = result.map_err(Failure::Refused);
            self.outputs.push_back(Output::Done { ticket, zxid: Some(zxid), result });
        }
        if entry.op == Op::Close {
            self.disconnect();
            self.finish(Failure::Closed { fate: Fate::NotDone }, |fate| Failure::Closed { fate });
        }
    }

    fn on_disconnected(&mut self, now: Time, error: OpError) {
        match (&error, error.code()) {
            (_, ErrorCode::SessionExpired) if self.session.is_some() => self.on_session_expired(now),
            // The request itself is at fault, and a retry would fail as well.
            (_, ErrorCode::BadArguments | ErrorCode::Unsupported | ErrorCode::TooLarge)
                if matches!(self.phase, Phase::Open(_)) =>
            {
                self.abandon_session(now, error);
            }
            // The ensemble lacks a write whose result it has sent: the client cannot resend that write.
            (&OpError::OutOfOrder { expected, .. }, _)
                if self.session.as_ref().is_some_and(|s| expected <= s.acked) =>
            {
                self.abandon_session(now, error);
            }
            _ => self.lose_connection(now, error),
        }
    }

    /// On to the next endpoint, with the same session.
    fn lose_connection(&mut self, now: Time, error: OpError) {
        if error.code() == ErrorCode::Overloaded {
            self.window = (self.window / 2).max(1);
        }
        self.disconnect();
        self.queue.unsend();
        self.watching.on_lost();
        match self.phase {
            Phase::Opening { endpoint, .. } => {
                let refused = matches!(
                    error.code(),
                    ErrorCode::BadArguments
                        | ErrorCode::Unsupported
                        | ErrorCode::TooLarge
                        | ErrorCode::WrongEnsemble
                );
                self.refusals = if refused { self.refusals + 1 } else { 0 };
                self.outputs.push_back(Output::AttemptFailed { endpoint, error: error.clone() });
                if self.refusals >= self.config.endpoints.max(1) {
                    let later = Failure::Rejected { error: error.clone(), fate: Fate::NotDone };
                    return self.finish(later, |fate| Failure::Rejected { error: error.clone(), fate });
                }
            }
            Phase::Open(Open { endpoint, .. }) => {
                self.outputs.push_back(Output::Event(Event::Disconnected { endpoint, error }));
            }
            Phase::Waiting { .. } | Phase::Closed(_) => return,
        }
        self.wait(now);
    }

    fn wait(&mut self, now: Time) {
        let pause = self.backoff.failed();
        self.phase = Phase::Waiting { until: now + pause };
        if pause.is_zero() {
            self.connect(now);
        }
    }

    fn connect(&mut self, now: Time) {
        self.last_connection += 1;
        let connection = Connection(self.last_connection);
        let endpoint = self.backoff.take_endpoint();
        self.phase = Phase::Opening { connection, endpoint, since: now };
        let open = OpenSession {
            resume: self.session.as_ref().map(|s| (s.id, s.token)),
            timeout_ms: u32::try_from(self.config.session_timeout.as_millis()).unwrap_or(u32::MAX),
            last_zxid: self.last_zxid,
            wait_ms: None,
            ensemble: self.ensemble,
            purpose: Purpose::Session,
        };
        self.outputs.push_back(Output::Connect { connection, endpoint, open });
    }

    fn connection(&self) -> Option<Connection> {
        match &self.phase {
            Phase::Opening { connection, .. } | Phase::Open(Open { connection, .. }) => Some(*connection),
            Phase::Waiting { .. } | Phase::Closed(_) => None,
        }
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection() {
            self.outputs.push_back(Output::Disconnect { connection });
        }
    }

    // ---- the end of a session ----

    fn on_session_expired(&mut self, now: Time) {
        let Some(session) = self.session.as_ref().map(|s| s.id) else { return };
        self.end_session(now, |fate| Failure::SessionLost { session, fate });
    }

    /// The session cannot be used any more, though the ensemble may not know.
    fn abandon_session(&mut self, now: Time, error: OpError) {
        self.end_session(now, |fate| Failure::Rejected { error: error.clone(), fate });
    }

    fn end_session(&mut self, now: Time, failure: impl Fn(Fate) -> Failure) {
        let endpoint = match self.phase {
            Phase::Opening { endpoint, .. } | Phase::Open(Open { endpoint, .. }) => Some(endpoint),
            Phase::Waiting { .. } | Phase::Closed(_) => None,
        };
        self.disconnect();
        if let Some(session) = self.session.take() {
            self.outputs.push_back(Output::Event(Event::SessionLost { session: session.id }));
        }
        if self.closing_until.is_some() {
            return self.finish(Failure::Closed { fate: Fate::NotDone }, failure);
        }
        if !self.config.reopen {
            return self.finish(failure(Fate::NotDone), failure);
        }
        self.fail_all(failure);
        self.watching.on_lost();
        // The node did nothing wrong, it had to tell.
        if let Some(endpoint) = endpoint {
            self.backoff.prefer(endpoint);
        }
        self.wait(now);
    }

    /// For good. Later requests get `later`, waiting requests get `failure`.
    fn finish(&mut self, later: Failure, failure: impl Fn(Fate) -> Failure) {
        self.fail_all(failure);
        self.watching.finish(&mut self.outputs);
        self.session = None;
        self.closing_until = None;
        self.phase = Phase::Closed(later);
    }

    fn fail_all(&mut self, failure: impl Fn(Fate) -> Failure) {
        for entry in self.queue.drain() {
            let Entry { op, ticket: Some(ticket), .. } = &entry else { continue };
            let result = match (op, failure(entry.fate())) {
                // The session is over, one way or the other: what closing wanted.
                (Op::Close, Failure::SessionLost { .. } | Failure::Closed { .. }) => Ok(Outcome::Close),
                (_, failure) => Err(failure),
            };
            self.unanswered(*ticket, result);
        }
    }

    // ---- time ----

    fn on_tick(&mut self, now: Time) {
        for (ticket, fate) in self.queue.expire(now) {
            self.unanswered(ticket, Err(Failure::TimedOut { fate }));
        }
        if self.closing_until.is_some_and(|t| t <= now) {
            self.disconnect();
            return self.finish(Failure::Closed { fate: Fate::NotDone }, |fate| Failure::TimedOut { fate });
        }
        if let Some(session) = &mut self.session
            && !session.suspended
            && session.alive_at + session.timeout <= now
        {
            session.suspended = true;
            self.outputs.push_back(Output::Event(Event::Suspended));
        }
        let silence_max = self.silence_max();
        match &mut self.phase {
            Phase::Waiting { until } if *until <= now => self.connect(now),
            Phase::Opening { since, .. } if *since + self.config.attempt_timeout <= now => {
                let waited = self.config.attempt_timeout;
                self.lose_connection(now, OpError::Unavailable(format!("no session within {waited:?}")));
            }
            Phase::Open(open) if open.heard_at + silence_max <= now => {
                self.lose_connection(now, OpError::Unavailable(format!("no answer for {silence_max:?}")));
            }
            Phase::Open(open)
                if self.config.endpoints > 1
                    && open.leaderless.is_some_and(|since| since + self.config.leaderless_max <= now) =>
            {
                let node = open.node;
                self.lose_connection(now, OpError::Unavailable(format!("node {node} has no leader")));
            }
            Phase::Open(open) if open.ping_at <= now => {
                // A request that is still to be sent replaces a ping.
                if !self.queue.has_unsent() {
                    self.queue.push(Op::Ping, None, None, None);
                }
                let timeout = self.session.as_ref().map_or(self.config.session_timeout, |s| s.timeout);
                open.ping_at = now + timeout / PING_SHARE;
            }
            _ => {}
        }
    }

    /// After two thirds of the time-out without an answer the connection is given up: the last third is for finding
    /// another node.
    fn silence_max(&self) -> Duration {
        self.session.as_ref().map_or(self.config.session_timeout, |s| s.timeout) * 2 / 3
    }

    fn unanswered(&mut self, ticket: Ticket, result: Result<Outcome, Failure>) {
        self.outputs.push_back(Output::Done { ticket, zxid: None, result });
    }
}

/// Whether a response with this error leaves the request and all later ones undone.
fn asks_again(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::Unknown
            | ErrorCode::OutOfOrder
            | ErrorCode::SessionExpired
            | ErrorCode::SessionMoved
    )
}

/// Pings come after this share of the time-out.
const PING_SHARE: u32 = 3;

/// Maximum of messages that wait for their confirmation; each is remembered with an error of this share of
/// the time-out.
const UNCONFIRMED_MAX: u32 = 64;

/// A server that grants less means nothing sensible by it, and pings would crowd out the rest.
const TIMEOUT_MIN: Duration = Duration::from_millis(30);

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
