//! The requests of a connection and their order.

use std::collections::VecDeque;

use api::{Acl, Create, Expected, Identities, Page, Path, data_len, ports::Room, walk::WalkAsk};
use bytes::Bytes;

use super::*;
use crate::{Tree, digest};
use outbox::Place;
use reading::{expected, has_turns, is_light, listed, read_all, work_of};
use watching::Sender;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) phase: Phase,
    /// The client's identities, proven by the edge.
    pub(super) identities: Identities,
    pub(super) place: Place,
    pub(super) stream: StreamId,
    /// Whether the state has reached the entry that opened or resumed the session for this connection.
    /// If a later entry resumes the session on another connection, this one ends.
    pub(super) in_charge: bool,
    acked: WriteNumber,
    /// The xid of the last request that has arrived; 0 if there is none.
    pub(super) last_xid: u64,
    /// The last request that was confirmed to the client as a sign of life.
    pub(super) confirmed: u64,
    /// The number of the first slot in the queue.
    first: u64,
    queue: VecDeque<Slot>,
    /// Number of slots at the front of the queue that can progress no further without an answer from
    /// the quorum.
    begun: usize,
    /// Started requests in the queue that [hold](Slot::holds) later ones.
    holding: usize,
    /// Requests in the queue that were sent to the quorum.
    asked: usize,
    /// Bytes of answers to reads that the shell has not sent yet.
    unsent: usize,
    /// `None`: the connection receives the events of each entry when it is applied. Otherwise it
    /// receives events from the history after this entry, see [`watching`].
    pub(super) cursor: Option<Zxid>,
    /// Weight of the next group, if it had no room; else 0.
    pub(super) next_group: usize,
    /// Items that wait while the connection is behind, each with the entry that it follows. Bounded by
    /// the requests, whose answers these are.
    pub(super) behind: VecDeque<(Zxid, Item)>,
    /// Their total weight.
    pub(super) behind_weight: usize,
    /// The client knows all events up to this entry, and since when.
    pub(super) told: (Zxid, Time),
    /// Expected bytes of answers to started reads in the queue.
    expected: usize,
    /// Whether it is among the [`Refusals`], with its first request that has not started.
    pub(super) waits_for_refusal: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for its session, or for the node to serve.
    Opening(opening::Opening),
    /// Acts for a session.
    Open(SessionId),
    /// Reads and watches without a session.
    Local {
        /// The client has asked to end it, and has the answer.
        closed: bool,
    },
    /// One request without a session.
    Unary,
}

/// One unanswered request in the queue.
#[derive(Debug)]
pub(super) struct Slot {
    xid: u64,
    number: Option<WriteNumber>,
    /// Later writes do not start before this request is answered: they could be applied while it waits,
    /// and it must not see them.
    holds: bool,
    /// Share of a started read in `Conn::expected`; 0 for other requests.
    expected: usize,
    step: Step,
    trace: Trace,
    /// If it has not begun by then, it fails: the time, and how long it is from the arrival.
    until: Option<(Time, u32)>,
    /// If the ensemble is below this feature level, it fails.
    min_level: Level,
}

impl Slot {
    /// The error of a request whose time has passed.
    fn timed_out(&self, now: Time) -> Option<OpError> {
        self.until.filter(|(until, _)| *until <= now).map(|(_, ms)| OpError::TimedOut(ms))
    }

    /// The error of a request that must not begin now.
    fn refused(&self, now: Time, level: Level) -> Option<OpError> {
        if self.min_level <= level {
            return self.timed_out(now);
        }
        Some(OpError::Unsupported(format!(
            "the request needs feature level {}, and the ensemble is at {level}: raise it with `quorate upgrade finalize` once \
             all nodes run a version that knows the level, or leave out what needs it",
            self.min_level
        )))
    }
}

#[derive(Debug)]
enum Step {
    /// Not started, or answered as soon as it is the first.
    Todo(Op),
    /// Sent to the quorum.
    Asked,
    /// Among the [`Waits`], until this time at most.
    Waiting { op: Op, until: Time },
    /// Answered as soon as it is the first.
    Done { zxid: Zxid, result: Result<Outcome, OpError> },
}

impl Conn {
    pub(super) fn new(phase: Phase, identities: Identities) -> Conn {
        Conn {
            phase,
            identities,
            place: Place::default(),
            stream: StreamId::FIRST,
            in_charge: false,
            acked: WriteNumber(0),
            last_xid: 0,
            confirmed: 0,
            first: 0,
            queue: VecDeque::new(),
            begun: 0,
            holding: 0,
            asked: 0,
            unsent: 0,
            cursor: None,
            next_group: 0,
            behind: VecDeque::new(),
            behind_weight: 0,
            told: (Zxid::ZERO, Time(0)),
            expected: 0,
            waits_for_refusal: false,
        }
    }

    pub(super) fn push(&mut self, request: Request, now: Time) {
        let Request { xid, number, op, trace, timeout_ms, min_level } = request;
        self.last_xid = self.last_xid.max(xid);
        let until = (timeout_ms != 0).then(|| (now + Duration::from_millis(timeout_ms.into()), timeout_ms));
        self.queue.push_back(Slot {
            xid,
            number,
            holds: false,
            expected: 0,
            step: Step::Todo(op),
            trace,
            until,
            min_level,
        });
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening(_))
    }

    /// Whether it only reads, without a session.
    fn is_local(&self) -> bool {
        matches!(self.phase, Phase::Local { .. })
    }

    /// The connection's unsent bytes in the shell; for a unary call, the shell itself counts them.
    pub(super) fn unsent(&self) -> usize {
        if matches!(self.phase, Phase::Unary) { 0 } else { self.unsent }
    }

    /// Counts bytes that are passed to the shell.
    pub(super) fn count_unsent(&mut self, weight: usize) {
        self.unsent += weight;
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        }
    }

    /// The trace context of the request in this slot.
    pub(super) fn trace(&self, slot: u64) -> Option<&TraceContext> {
        self.queue.get(usize::try_from(slot.checked_sub(self.first)?).ok()?)?.trace.as_deref()
    }

    /// The step of a walk that has to be answered next. It counts as sent until it is
    /// [complete](Server::complete).
    fn take_walk(&mut self) -> Option<WalkAsk> {
        let front = self.queue.front_mut().filter(|_| self.begun > 0)?;
        match std::mem::replace(&mut front.step, Step::Asked) {
            Step::Todo(Op::Walk(ask)) => {
                self.asked += 1;
                Some(ask)
            }
            other => {
                front.step = other;
                None
            }
        }
    }

    fn slot_mut(&mut self, slot: u64) -> Option<&mut Slot> {
        self.queue.get_mut(usize::try_from(slot.checked_sub(self.first)?).ok()?)
    }

    /// The error for the client when the connection ends. A session learns the outcome of its writes
    /// when it is resumed; without a session, a pending write may still be applied.
    pub(super) fn fate(&self, why: Result<(), OpError>) -> Result<(), OpError> {
        match why {
            Err(why) if matches!(self.phase, Phase::Unary) && self.asked > 0 => {
                Err(OpError::Unknown(format!(
                    "{why}; the write was under way and may still be carried out: read before you write again, or use a \
                 session"
                )))
            }
            why => why,
        }
    }

    /// Whether the next write must wait, so that no earlier read sees it. Reads between pending writes
    /// are answered at once when their turn comes, however many bytes are unsent. So writes do not
    /// overtake reads that can be answered first, and do not start while too many bytes are unsent or
    /// expected.
    fn holds_writes(&self, allowance: usize) -> bool {
        match self.asked {
            0 => self.begun > 0,
            _ => self.holding > 0 || self.unsent + self.expected >= allowance,
        }
    }

    /// The error for the request in this slot, if the time that its client gives it has passed.
    pub(super) fn timed_out(&self, slot: u64, now: Time) -> Option<OpError> {
        self.queue.get(usize::try_from(slot.checked_sub(self.first)?).ok()?)?.timed_out(now)
    }

    /// The entry that the request in this slot waits for, if any.
    pub(super) fn waits_for_entry(&self, slot: u64) -> Option<Zxid> {
        let slot = self.queue.get(usize::try_from(slot.checked_sub(self.first)?).ok()?)?;
        match slot.step {
            Step::Waiting { ref op, .. } => op.awaits(),
            _ => None,
        }
    }

    /// The waiting requests, and their deadlines.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, &Op, Time)> {
        let begun = if self.holding == 0 { 0 } else { self.begun };
        (self.first..).zip(&self.queue).take(begun).filter_map(|(place, slot)| match &slot.step {
            Step::Waiting { op, until } => Some((place, op, *until)),
            _ => None,
        })
    }
}

impl Server {
    pub(super) fn on_requests(&mut self, id: ConnId, acked: WriteNumber, requests: Vec<Request>) {
        let max = self.config.limits.requests_max;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.acked = conn.acked.max(acked);
        if conn.queue.len() + requests.len() > max {
            let why =
                format!("more than {max} requests without an answer on one connection; wait for replies");
            return self.close(id, Err(OpError::Overloaded(why)));
        }
        let now = self.now;
        requests.into_iter().for_each(|r| conn.push(r, now));
        match conn.phase {
            Phase::Open(session) => {
                self.touch(session, id);
                self.run(id);
            }
            Phase::Local { .. } => self.run(id),
            Phase::Opening(_) | Phase::Unary => {}
        }
    }

    pub(super) fn on_drained(&mut self, id: ConnId, bytes: usize) {
        let max = self.config.limits.unsent_max;
        if let Some(conn) = self.conns.get_mut(&id) {
            let held = conn.unsent >= max;
            self.answers.taken(bytes.min(conn.unsent));
            conn.unsent = conn.unsent.saturating_sub(bytes);
            if (held && conn.unsent < max) || conn.cursor.is_some() {
                self.run(id);
            }
        }
    }

    /// Continues with connections that have more answers, a few at a time.
    pub(super) fn answer_more(&mut self) {
        self.answers.begin_turn();
        for _ in 0..CONNECTIONS_AT_ONCE {
            let Some(id) = self.answers.next() else { return };
            self.run(id);
            if self.answers.is_spent(false) {
                return;
            }
        }
    }

    /// Continues with connections whose writes wait for their rejection.
    pub(super) fn refuse_more(&mut self) {
        while let Some(id) = self.refusals.next(self.now) {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.waits_for_refusal = false;
                self.run(id);
            }
        }
    }

    /// Stores the result of a request, and sends all answers that are now possible.
    pub(super) fn complete(&mut self, id: ConnId, slot: u64, zxid: Zxid, result: Result<Outcome, OpError>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(slot) = conn.slot_mut(slot).filter(|slot| matches!(slot.step, Step::Asked)) {
            slot.step = Step::Done { zxid, result };
            conn.asked -= 1;
        }
        self.run(id);
    }

    /// Ends the wait of a request: it is answered in its turn, or fails with this error.
    pub(super) fn end_wait(&mut self, id: ConnId, slot: u64, result: Result<(), OpError>) {
        let zxid = self.state.applied();
        let Some(waiting) = self.conns.get_mut(&id).and_then(|conn| conn.slot_mut(slot)) else { return };
        match std::mem::replace(&mut waiting.step, Step::Asked) {
            Step::Waiting { op, until } => {
                self.waits.end_request((id, slot), &op, until);
                waiting.step = match result {
                    Ok(()) => Step::Todo(op),
                    Err(error) => Step::Done { zxid, result: Err(error) },
                };
            }
            other => waiting.step = other,
        }
        self.run(id);
    }

    /// Advances a connection as far as possible: starts requests, and answers the front of its queue.
    pub(super) fn run(&mut self, id: ConnId) {
        let Server { conns, tickets, asks, waits, watches, outbox, state, config, now, status, .. } = self;
        let (answers, refusals) = (&mut self.answers, &mut self.refusals);
        let room = status.room;
        let Some(conn) = conns.get_mut(&id) else { return };
        let (applied, now, limits) = (state.applied(), *now, &config.limits);
        let leaderless = !status.serving;
        let state = &*state;
        let allowance = answers.allowance(limits);
        let mut means = Means {
            id,
            applied,
            now,
            limits,
            room,
            state,
            tickets,
            asks,
            waits,
            allowance,
            refusals,
            refused: false,
        };
        let mut turn = Turn { answers, watches, listed: 0 };
        loop {
            begin(conn, &mut means);
            if conn.cursor.is_some() {
                let mut sender = Sender { outbox, answers: turn.answers, limits, now };
                watching::catch_up(conn, id, turn.watches, state, &mut sender);
            }
            if !answer(conn, id, state, (limits, now), leaderless, outbox, &mut turn) {
                break;
            }
        }
        let step = conn.take_walk().map(|ask| (conn.first, ask, conn.identities.clone()));
        if matches!(conn.phase, Phase::Unary) && conn.queue.is_empty() {
            conns.remove(&id);
        } else if matches!(conn.phase, Phase::Local { closed: true }) {
            return self.close(id, Ok(()));
        }
        // It changes what the tree saves for walks, so it has a turn of its own.
        if let Some((slot, ask, caller)) = step {
            let (zxid, result) = self.walk(ask, &caller);
            self.complete(id, slot, zxid, result);
        }
    }
}

/// The parts of the server that are needed to start a request.
struct Means<'a> {
    id: ConnId,
    applied: Zxid,
    now: Time,
    limits: &'a Limits,
    room: Room,
    state: &'a State,
    tickets: &'a mut Tickets,
    asks: &'a mut Vec<Ask>,
    waits: &'a mut Waits,
    /// See [`Answers::allowance`].
    allowance: usize,
    refusals: &'a mut Refusals,
    /// Whether a rejection was logged in this turn.
    refused: bool,
}

impl Means<'_> {
    /// Whether a rejection for lack of disk space may be logged now.
    fn may_refuse(&mut self) -> bool {
        let may = self.refusals.take(self.now, self.refused);
        self.refused |= may;
        may
    }
}

/// The turn of one connection to be answered.
struct Turn<'a> {
    answers: &'a mut Answers,
    watches: &'a mut Watches,
    /// Names listed in this turn.
    listed: usize,
}

/// Starts requests up to the first that has to wait for an earlier one.
fn begin(conn: &mut Conn, means: &mut Means<'_>) {
    let (session, local) = (conn.session(), conn.is_local());
    loop {
        let hold = conn.holds_writes(means.allowance);
        let Some(slot) = conn.queue.get_mut(conn.begun) else { return };
        let Step::Todo(op) = &slot.step else {
            conn.begun += 1;
            continue;
        };
        // A write is refused in its turn, because its number has to be used up.
        let fault = slot.refused(means.now, means.state.level());
        let refused = match op {
            Op::Write(_) if local => Some(OpError::ReadOnly),
            Op::Invalid(error) if local => Some(error.clone()),
            Op::Write(_) | Op::Invalid(_) | Op::Close => fault.clone().filter(|_| slot.number.is_none()),
            _ => fault.clone(),
        };
        if let Some(error) = refused {
            slot.step = Step::Done { zxid: means.applied, result: Err(error) };
            conn.begun += 1;
            continue;
        }
        let trace = slot.trace.clone();
        let (number, place) = (slot.number, conn.first + conn.begun as u64);
        let body = match op {
            // Answered when they are first.
            Op::Read(_, ReadLevel::Stale | ReadLevel::Local)
            | Op::Ephemerals { .. }
            | Op::WhoAmI
            | Op::Ping => None,
            // Later requests use these identities, and earlier ones do not.
            Op::Authenticate(_) => {
                if !slot.holds {
                    slot.holds = true;
                    conn.holding += 1;
                }
                None
            }
            Op::Read(_, ReadLevel::AtLeast(zxid)) if *zxid <= means.applied => None,
            Op::MultiRead(reads, _) if reads.len() > means.limits.multi_ops_max => {
                let (most, parts) = (means.limits.multi_ops_max, reads.len());
                let why = format!("a read of {parts} parts, more than the {most} allowed; split it");
                slot.step = Step::Done { zxid: means.applied, result: Err(OpError::BadArguments(why)) };
                None
            }
            Op::MultiRead(_, ReadLevel::Stale | ReadLevel::Local)
            | Op::Walk(WalkAsk::Next(_) | WalkAsk::Begin(_, ReadLevel::Stale | ReadLevel::Local)) => None,
            Op::Walk(WalkAsk::Begin(_, ReadLevel::AtLeast(zxid))) if *zxid <= means.applied => None,
            Op::MultiRead(_, ReadLevel::AtLeast(zxid)) if *zxid <= means.applied => None,
            Op::CancelWatches(_) | Op::AddWatches(_)
                if op.awaits().is_none_or(|zxid| zxid <= means.applied) =>
            {
                // A request that may wait for room or for events delays later writes, so that it need
                // not wait for those as well.
                if !slot.holds && watching::may_wait(op) {
                    slot.holds = true;
                    conn.holding += 1;
                }
                None
            }
            Op::Invalid(_) if number.is_none() => None,
            Op::Write(_) | Op::Invalid(_) if hold => return,
            // An earlier write may be rejected, and its session may send it again.
            Op::Close if conn.begun > 0 => return,
            Op::Close if local => None,
            Op::Read(..)
            | Op::MultiRead(..)
            | Op::Walk(_)
            | Op::Sync
            | Op::AddWatches(_)
            | Op::CancelWatches(_) => {
                let op = op.clone();
                let wait = match op.awaits() {
                    Some(_) => waits::catch_up(means.limits, means.state, session),
                    None => means.limits.park,
                };
                let until = slot.until.map_or(means.now + wait, |(until, _)| until.min(means.now + wait));
                means.waits.for_request((means.id, place), &op, until);
                slot.step = Step::Waiting { op, until };
                slot.holds = true;
                conn.holding += 1;
                None
            }
            _ => match std::mem::replace(&mut slot.step, Step::Asked) {
                // Another node, with other limits, has accepted it.
                Step::Todo(Op::Write(write))
                    if session.zip(number).is_some_and(|(s, n)| means.state.has_written(s, n)) =>
                {
                    Some(CommandBody::Write(write))
                }
                Step::Todo(Op::Write(write)) => {
                    match (fault.map_or_else(|| admit(&write, means), Err), number) {
                        (Ok(()), _) => Some(CommandBody::Write(write)),
                        (Err(OpError::DiskFull), Some(_)) if !means.may_refuse() => {
                            slot.step = Step::Todo(Op::Write(write));
                            if !std::mem::replace(&mut conn.waits_for_refusal, true) {
                                means.refusals.wait(means.id);
                            }
                            return;
                        }
                        // Goes through the log, so that its number is consumed.
                        (Err(error), Some(_)) => {
                            Some(CommandBody::Refuse { error, request: digest::request_of(&write) })
                        }
                        (Err(error), None) => {
                            slot.step = Step::Done { zxid: means.applied, result: Err(error) };
                            None
                        }
                    }
                }
                Step::Todo(Op::Invalid(error)) => {
                    let request = digest::request_malformed(&error);
                    Some(CommandBody::Refuse { error, request })
                }
                _ => {
                    if session.is_none() {
                        let error =
                            OpError::BadArguments("a call without a session has none to close".into());
                        slot.step = Step::Done { zxid: means.applied, result: Err(error) };
                    }
                    session.map(|session| CommandBody::CloseSession { session, expired: None })
                }
            },
        };
        if let Some(body) = body {
            let close = matches!(body, CommandBody::CloseSession { .. });
            let command = Command {
                session,
                stream: conn.stream,
                number,
                acked: conn.acked,
                identities: conn.identities.clone(),
                body,
            };
            let (id, slot, pending) = (means.id, place, command.clone());
            let ticket = means.tickets.next(if close {
                Pending::Close { conn: id, slot, command: pending }
            } else {
                Pending::Write { conn: id, slot, command: pending }
            });
            means.asks.push(Ask::Submit { ticket, command, trace });
            conn.asked += 1;
        }
        if let Some(slot) = conn.queue.get_mut(conn.begun)
            && let Step::Todo(op) | Step::Waiting { op, .. } = &slot.step
        {
            slot.expected = expected(op, means.state);
            conn.expected += slot.expected;
        }
        conn.begun += 1;
    }
}

/// Answers requests from the front of the queue up to the first that still waits. Returns whether there
/// was any, because more requests may then start.
fn answer(
    conn: &mut Conn,
    id: ConnId,
    state: &State,
    (limits, now): (&Limits, Time),
    leaderless: bool,
    outbox: &mut Outbox,
    turn: &mut Turn<'_>,
) -> bool {
    let mut any = false;
    let unary = matches!(conn.phase, Phase::Unary);
    while conn.begun > 0 {
        let Some(slot) = conn.queue.front_mut() else { break };
        match &slot.step {
            Step::Asked | Step::Waiting { .. } | Step::Todo(Op::Walk(_)) => break,
            Step::Todo(Op::Read(..) | Op::MultiRead(..) | Op::Ephemerals { .. })
                if conn.asked == 0 && conn.unsent >= limits.unsent_max =>
            {
                break;
            }
            Step::Todo(op) if conn.asked == 0 && has_turns(op) && turn.answers.is_spent(is_light(op)) => {
                turn.answers.again_later(id);
                break;
            }
            Step::Todo(op @ (Op::Read(..) | Op::MultiRead(..) | Op::Ephemerals { .. })) if !unary => {
                // The size of a MultiRead is computed only once: this check repeats whenever others
                // take answers.
                let weight =
                    if matches!(op, Op::MultiRead(..)) { slot.expected } else { expected(op, state) };
                let fits = turn.answers.allows(limits, conn.unsent, weight);
                if !fits && conn.asked == 0 {
                    turn.answers.wait(id);
                    break;
                }
                if fits && conn.asked == 0 && turn.listed >= LISTED_AT_ONCE {
                    turn.answers.again_later(id);
                    break;
                }
                if !fits {
                    slot.step = Step::Done { zxid: state.applied(), result: Err(no_room()) };
                }
            }
            // Earlier answers promise that all watches have received everything up to their zxid.
            Step::Todo(Op::CancelWatches(_)) if conn.cursor.is_some() => break,
            Step::Todo(Op::AddWatches(add)) if conn.asked == 0 && watching::wants_state(add) => {
                let weight = Tree::STATE_BYTES.min(state.tree().bytes());
                if conn.unsent >= limits.unsent_max || !turn.answers.allows(limits, conn.unsent, weight) {
                    turn.answers.wait(id);
                    break;
                }
            }
            _ => {}
        }
        conn.holding -= usize::from(slot.holds);
        conn.expected -= slot.expected;
        let (xid, late) = (slot.xid, slot.timed_out(now));
        let step = match (std::mem::replace(&mut slot.step, Step::Asked), late) {
            // It has waited for its turn too long.
            (Step::Todo(op), Some(late)) if !matches!(op, Op::Invalid(_) | Op::Close) => {
                Step::Done { zxid: state.applied(), result: Err(late) }
            }
            (step, _) => step,
        };
        turn.answers.worked(if let Step::Todo(op) = &step { work_of(op) } else { 0 });
        let (zxid, result) = match step {
            Step::Done { zxid, result } => (zxid, result),
            Step::Todo(Op::Read(read, _)) => {
                (state.applied(), state.read_as(&read, &conn.identities).map(Outcome::Read))
            }
            Step::Todo(Op::MultiRead(reads, _)) => {
                (state.applied(), Ok(Outcome::MultiRead(read_all(&reads, state, &conn.identities))))
            }
            Step::Todo(Op::Invalid(error)) => (state.applied(), Err(error)),
            Step::Todo(Op::Ephemerals { prefix, after, size }) => {
                let session = conn.session();
                (state.applied(), Ok(ephemerals(state, session, (&prefix, &after), size)))
            }
            Step::Todo(Op::Sync) => (state.applied(), Ok(Outcome::Sync)),
            Step::Todo(Op::AddWatches(_) | Op::CancelWatches(_)) if unary => {
                let error =
                    OpError::BadArguments("a call without a session has no watches; open a session".into());
                (state.applied(), Err(error))
            }
            Step::Todo(Op::AddWatches(add)) => {
                let mut sender = Sender { outbox, answers: turn.answers, limits, now };
                let refused = watching::add(conn, id, turn.watches, state, &mut sender, add);
                (state.applied(), Ok(Outcome::Watching(refused)))
            }
            Step::Todo(Op::CancelWatches(mut ids)) => {
                ids.retain(|&watch| !turn.watches.cancel(id, watch));
                (state.applied(), Ok(Outcome::Cancelled(ids)))
            }
            Step::Todo(Op::Authenticate(more)) => {
                let all = conn.identities.with(&more);
                if let Ok(all) = &all {
                    conn.identities = all.clone();
                }
                (
                    state.applied(),
                    all.map(Outcome::Authenticated).map_err(|e| OpError::BadArguments(e.to_string())),
                )
            }
            Step::Todo(Op::WhoAmI) => (state.applied(), Ok(Outcome::WhoAmI(conn.identities.clone()))),
            Step::Todo(Op::Close) => {
                if let Phase::Local { closed } = &mut conn.phase {
                    *closed = true;
                }
                (state.applied(), Ok(Outcome::Close))
            }
            Step::Todo(_) | Step::Asked | Step::Waiting { .. } => (state.applied(), Ok(Outcome::Ping)),
        };
        conn.queue.pop_front();
        conn.first += 1;
        conn.begun -= 1;
        let names = result.as_ref().map_or(0, listed);
        turn.listed += names;
        let reply = Item::Response(Response { xid, zxid, result, leaderless });
        let weight = reply.weight();
        turn.answers.worked(names + weight / 256);
        if !unary {
            turn.answers.sent_to_shell(weight);
        }
        conn.answer(id, outbox, state.applied(), now, reply);
        any = true;
    }
    any
}

/// A page of the ephemerals of a session.
fn ephemerals(
    state: &State,
    session: Option<SessionId>,
    (prefix, after): (&str, &str),
    size: u32,
) -> Outcome {
    let page = Page { size, ..Page::default() };
    let found = session.map(|session| state.tree().ephemerals_page(session, (prefix, after), &page));
    let (paths, more) = found.unwrap_or_default();
    Outcome::Ephemerals { paths, more }
}

/// Whether a write may be submitted: it is within the limits, and there is disk space for it.
fn admit(write: &Write, means: &Means<'_>) -> Result<(), OpError> {
    validate(write, means.limits)?;
    if means.room > room_for(write, means.state) { Err(OpError::DiskFull) } else { Ok(()) }
}

/// The minimum disk space for a write. The check uses the current size of the tree. Other clients may
/// change it first, so this is no guarantee, but pending writes bound the error.
fn room_for(write: &Write, state: &State) -> Room {
    let old = |path: &Path| state.tree().stat(path).map_or(0, |stat| i64::from(stat.data_length));
    let created = |create: &Create| {
        (create.path.as_str().len() + create.data_len() + create.acl.weight()) as i64 + ZNODE
    };
    let set = |path: &Path, data: &Option<Bytes>| data_len(data) as i64 - old(path);
    let deleted = |path: &Path| -(path.as_str().len() as i64 + old(path) + ZNODE);
    let (growth, stores) = match write {
        Write::Create(create) => (created(create), true),
        Write::Set { path, data, .. } => (set(path, data), true),
        Write::Delete { .. } | Write::DeleteTree(_) => return Room::Short,
        Write::SetQuota { .. } => return Room::Low,
        Write::SetAcl { acl, .. } => (acl.weight() as i64, true),
        Write::Multi(parts) => parts.iter().fold((0, false), |(growth, stores), part| match part {
            MultiOp::Create(create) => (growth + created(create), true),
            MultiOp::Set { path, data, .. } => (growth + set(path, data), true),
            MultiOp::Delete { path, .. } => (growth + deleted(path), stores),
            MultiOp::SetAcl { acl, .. } => (growth + acl.weight() as i64, true),
            MultiOp::Check { .. } | MultiOp::CheckAbsent { .. } => (growth, stores),
        }),
    };
    match (growth > 0, stores) {
        (true, _) => Room::Ample,
        (false, true) => Room::Low,
        (false, false) => Room::Short,
    }
}

/// Approximate overhead of a znode besides its path and value, in bytes.
const ZNODE: i64 = 256;

fn no_room() -> OpError {
    OpError::Overloaded(
        "the node has no room for this answer between two writes that are under way; read the answers that have come, or ask \
         again"
            .into(),
    )
}

/// Whether a write is within the limits.
fn validate(write: &Write, limits: &Limits) -> Result<(), OpError> {
    let mut size = Size::default();
    match write {
        Write::Create(create) => size.add_create(create)?,
        Write::Set { path, data, version } => size.add(path, data_len(data), *version)?,
        Write::Delete { path, version } => size.add(path, 0, *version)?,
        Write::DeleteTree(tree) => size.add(&tree.path, 0, tree.version)?,
        Write::SetQuota { path, .. } => size.add(path, 0, None)?,
        Write::SetAcl { path, acl, aversion } => size.add_acl(path, acl, *aversion)?,
        Write::Multi(parts) => {
            if parts.len() > limits.multi_ops_max {
                return Err(OpError::BadArguments(format!(
                    "a multi of {} parts, more than the {} allowed; split it",
                    parts.len(),
                    limits.multi_ops_max
                )));
            }
            for (index, part) in parts.iter().enumerate() {
                let added = match part {
                    MultiOp::Create(create) => size.add_create(create),
                    MultiOp::Set { path, data, version } => size.add(path, data_len(data), *version),
                    MultiOp::SetAcl { path, acl, aversion } => size.add_acl(path, acl, *aversion),
                    MultiOp::Delete { path, version } | MultiOp::Check { path, version } => {
                        size.add(path, 0, *version)
                    }
                    MultiOp::CheckAbsent { path } => size.add(path, 0, None),
                };
                added.map_err(|cause| OpError::Multi { index: index as u32, cause: Box::new(cause) })?;
            }
        }
    }
    for (size, limit) in [(size.values, limits.data_max), (size.entry, ENTRY_MAX)] {
        if size > limit {
            return Err(OpError::TooLarge { size, limit });
        }
    }
    Ok(())
}

/// Size of a write, in bytes.
#[derive(Default)]
struct Size {
    values: u64,
    /// At least its size in an entry of the log, and the size of its answer in a message to the client.
    entry: u64,
}

impl Size {
    /// Adds a create, and checks its kind.
    fn add_create(&mut self, create: &Create) -> Result<(), OpError> {
        create.kind.check()?;
        self.entry += create.acl.weight() as u64;
        self.add(&create.path, create.data_len(), None)
    }

    /// Adds a change of an access list.
    fn add_acl(&mut self, path: &Path, acl: &Acl, aversion: Option<Expected>) -> Result<(), OpError> {
        self.entry += acl.weight() as u64;
        self.add(path, 0, aversion)
    }

    /// Adds a part, and checks its expected version.
    fn add(&mut self, path: &Path, data: usize, expected: Option<Expected>) -> Result<(), OpError> {
        self.values += data as u64;
        self.entry += (path.as_str().len() + data + PART) as u64;
        match expected.and_then(Expected::version) {
            Some(v) if v < 0 => Err(OpError::BadArguments(format!(
                "the version {v} is negative; give the version that the znode must have, or none"
            ))),
            _ => Ok(()),
        }
    }
}

/// Overhead of a part of a write besides its path and its value: some 64 bytes in an entry; in the
/// answer a `Stat` and the suffix of a sequential path. The constant exceeds both.
const PART: usize = 192;

/// Paths count as well as values: links between servers carry both, and answers to clients, which have
/// the same limit, carry the paths of created znodes. The rest of [`PAYLOAD_MAX`] exceeds the size of
/// the other fields of a command.
const ENTRY_MAX: u64 = (PAYLOAD_MAX - (64 << 10)) as u64;

/// Number of names that a connection lists before the turns of others: one page, or a few small ones.
pub(super) const LISTED_AT_ONCE: usize = 1_000;
/// Number of connections that continue in one turn: their pages take about a millisecond.
const CONNECTIONS_AT_ONCE: usize = 16;
