//! The requests of a connection and their order.

use std::collections::VecDeque;

use super::*;
use outbox::Place;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) phase: Phase,
    pub(super) place: Place,
    acked: WriteNumber,
    /// The number of the first slot in the queue.
    first: u64,
    queue: VecDeque<Slot>,
    /// How many slots at the front of the queue have gone as far as they can without an answer from the quorum.
    begun: usize,
    /// Barriers in the queue that were begun. While there is one, writes behind it are held.
    syncs: usize,
    /// Bytes of answers to reads that the shell has not sent yet.
    unsent: usize,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for its session, or for the node to serve.
    Opening(opening::Opening),
    /// Speaks for a session.
    Open(SessionId),
    /// One request without a session.
    Unary,
}

/// The place of one unanswered request.
#[derive(Debug)]
pub(super) struct Slot {
    xid: u64,
    number: Option<WriteNumber>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Not begun, or to be answered as soon as it is the first.
    Todo(Op),
    /// The quorum has it.
    Asked { sync: bool },
    /// Answered as soon as it is the first.
    Done { zxid: Zxid, result: Result<Answer, OpError>, sync: bool },
}

impl Conn {
    pub(super) fn new(phase: Phase) -> Conn {
        Conn {
            phase,
            place: Place::default(),
            acked: WriteNumber(0),
            first: 0,
            queue: VecDeque::new(),
            begun: 0,
            syncs: 0,
            unsent: 0,
        }
    }

    pub(super) fn push(&mut self, request: Request) {
        let Request { xid, number, op } = request;
        self.queue.push_back(Slot { xid, number, step: Step::Todo(op) });
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.queue.is_empty()
    }

    fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        }
    }

    fn fill(&mut self, slot: u64, zxid: Zxid, result: Result<Answer, OpError>) {
        let slot = slot.checked_sub(self.first).and_then(|i| self.queue.get_mut(usize::try_from(i).ok()?));
        if let Some(slot) = slot {
            let sync = matches!(slot.step, Step::Asked { sync: true });
            slot.step = Step::Done { zxid, result, sync };
        }
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
        requests.into_iter().for_each(|r| conn.push(r));
        if let Phase::Open(session) = conn.phase {
            self.touch(session);
            self.run(id);
        }
    }

    pub(super) fn on_drained(&mut self, id: ConnId, bytes: usize) {
        let max = self.config.limits.unsent_max;
        if let Some(conn) = self.conns.get_mut(&id) {
            let held = conn.unsent >= max;
            conn.unsent = conn.unsent.saturating_sub(bytes);
            if held && conn.unsent < max {
                self.run(id);
            }
        }
    }

    /// Fills in what came of a request, and answers what can be answered now.
    pub(super) fn complete(&mut self, id: ConnId, slot: u64, zxid: Zxid, result: Result<Answer, OpError>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.fill(slot, zxid, result);
            self.run(id);
        }
    }

    /// Takes a connection as far as it goes: begins what may begin, answers what is first in its queue.
    pub(super) fn run(&mut self, id: ConnId) {
        let Server { conns, tickets, asks, outbox, state, config, .. } = self;
        let Some(conn) = conns.get_mut(&id) else { return };
        loop {
            begin(conn, id, state.applied(), config, tickets, asks);
            if !answer(conn, id, state, config, outbox) {
                break;
            }
        }
        if matches!(conn.phase, Phase::Unary) && conn.queue.is_empty() {
            conns.remove(&id);
        }
    }
}

/// Begins requests up to the first that has to wait for a barrier.
fn begin(
    conn: &mut Conn,
    id: ConnId,
    applied: Zxid,
    config: &Config,
    tickets: &mut Tickets,
    asks: &mut Vec<Ask>,
) {
    let session = conn.session();
    while let Some(slot) = conn.queue.get_mut(conn.begun) {
        let Step::Todo(op) = &slot.step else {
            conn.begun += 1;
            continue;
        };
        let number = slot.number;
        let body = match op {
            // Answered when they are first.
            Op::Read(_) | Op::Ping => None,
            Op::Invalid(_) if number.is_none() => None,
            Op::Write(_) | Op::Close | Op::Invalid(_) if conn.syncs > 0 => return,
            Op::Sync => {
                let ticket = tickets.next(Pending::Sync { conn: id, slot: conn.first + conn.begun as u64 });
                asks.push(Ask::Barrier { ticket });
                slot.step = Step::Asked { sync: true };
                conn.syncs += 1;
                None
            }
            _ => match std::mem::replace(&mut slot.step, Step::Asked { sync: false }) {
                Step::Todo(Op::Write(write)) => match (validate(&write, &config.limits), number) {
                    (Ok(()), _) => Some(CommandBody::Write(write)),
                    // Goes through the log, so that its number is used up.
                    (Err(error), Some(_)) => Some(CommandBody::Refuse(error)),
                    (Err(error), None) => {
                        slot.step = Step::Done { zxid: applied, result: Err(error), sync: false };
                        None
                    }
                },
                Step::Todo(Op::Invalid(error)) => Some(CommandBody::Refuse(error)),
                _ => session.map(|session| CommandBody::CloseSession { session, expired: false }),
            },
        };
        if let Some(body) = body {
            let slot = conn.first + conn.begun as u64;
            let close = matches!(body, CommandBody::CloseSession { .. });
            let command = Command { session, number, acked: conn.acked, body };
            let pending = command.clone();
            let ticket = tickets.next(if close {
                Pending::Close { conn: id, slot, command: pending }
            } else {
                Pending::Write { conn: id, slot, command: pending }
            });
            asks.push(Ask::Submit { ticket, command });
        }
        conn.begun += 1;
    }
}

/// Answers from the front of the queue up to the first request that waits for the quorum. Returns whether a barrier
/// was answered, behind which more may begin now.
fn answer(conn: &mut Conn, id: ConnId, state: &State, config: &Config, outbox: &mut Outbox) -> bool {
    let mut barrier = false;
    while conn.begun > 0 {
        let Some(slot) = conn.queue.front_mut() else { break };
        match slot.step {
            Step::Asked { .. } => break,
            Step::Todo(Op::Read(_)) if conn.unsent >= config.limits.unsent_max => break,
            _ => {}
        }
        let (zxid, result) = match std::mem::replace(&mut slot.step, Step::Asked { sync: false }) {
            Step::Done { zxid, result, sync } => {
                if sync {
                    conn.syncs -= 1;
                    barrier = true;
                }
                (zxid, result)
            }
            Step::Todo(Op::Read(read)) => (state.applied(), state.read(&read).map(Answer::Read)),
            Step::Todo(Op::Invalid(error)) => (state.applied(), Err(error)),
            Step::Todo(_) | Step::Asked { .. } => (state.applied(), Ok(Answer::Pong)),
        };
        let xid = slot.xid;
        conn.queue.pop_front();
        conn.first += 1;
        conn.begun -= 1;
        let reply = ToClient::Reply { xid, zxid, result };
        conn.unsent += reply.weight();
        outbox.send(id, &mut conn.place, reply);
    }
    barrier
}

/// Whether a write keeps the limits.
fn validate(write: &Write, limits: &Limits) -> Result<(), OpError> {
    let version_ok = |version: &Option<i32>| match version {
        Some(v) if *v < 0 => Err(OpError::BadArguments(format!(
            "the version {v} is negative; give the version that the znode must have, or none"
        ))),
        _ => Ok(()),
    };
    let mut size = 0u64;
    match write {
        Write::Create(create) => size += create.data.len() as u64,
        Write::Set { data, version, .. } => {
            version_ok(version)?;
            size += data.len() as u64;
        }
        Write::Delete { version, .. } => version_ok(version)?,
        Write::Multi(parts) => {
            if parts.len() > limits.multi_ops_max {
                return Err(OpError::BadArguments(format!(
                    "a multi of {} parts, more than the {} allowed; split it",
                    parts.len(),
                    limits.multi_ops_max
                )));
            }
            for (index, part) in parts.iter().enumerate() {
                let checked = match part {
                    MultiOp::Create(create) => {
                        size += create.data.len() as u64;
                        Ok(())
                    }
                    MultiOp::Set { data, version, .. } => {
                        size += data.len() as u64;
                        version_ok(version)
                    }
                    MultiOp::Delete { version, .. } | MultiOp::Check { version, .. } => version_ok(version),
                };
                checked.map_err(|cause| OpError::Multi { index: index as u32, cause: Box::new(cause) })?;
            }
        }
    }
    if size > limits.data_max {
        return Err(OpError::TooLarge { size, limit: limits.data_max });
    }
    Ok(())
}
