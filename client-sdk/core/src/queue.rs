//! The requests that are not answered yet.

use std::collections::VecDeque;

use api::{
    Fate, Ticket, Time, Trace, WriteNumber,
    session::{Op, Request},
};

/// The requests in their order: first those that are sent on the present connection, then the others.
#[derive(Default, Debug)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// Number of the first requests that the present connection has carried.
    sent: usize,
    /// Of the caller's requests among them: how many, and their weight.
    held: usize,
    bytes: usize,
    last_xid: u64,
    /// No deadline is earlier. The queue is scanned only when this time has passed, so deadlines cost nothing
    /// while answers arrive.
    earliest_deadline: Option<Time>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// Of the last time that it was sent, 0 if never.
    pub(crate) xid: u64,
    pub(crate) op: Op,
    trace: Trace,
    /// The waiting caller; `None` after a deadline.
    pub(crate) ticket: Option<Ticket>,
    deadline: Option<Time>,
    /// Of a write that was sent at least once.
    pub(crate) number: Option<WriteNumber>,
    /// The time when it was last sent, on any connection.
    pub(crate) sent_at: Option<Time>,
}

impl Entry {
    pub(crate) fn fate(&self) -> Fate {
        match self.op {
            Op::Write(_) | Op::Close if self.sent_at.is_some() => Fate::Unknown,
            _ => Fate::NotDone,
        }
    }

    fn is_callers(&self) -> bool {
        !self.op.is_light() && !matches!(self.op, Op::AddWatches(_) | Op::CancelWatches(_))
    }
}

impl Queue {
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// How many are sent on the present connection.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn earliest_deadline(&self) -> Option<Time> {
        self.earliest_deadline
    }

    pub(crate) fn push(&mut self, op: Op, ticket: Option<Ticket>, deadline: Option<Time>, trace: Trace) {
        let entry = Entry { xid: 0, op, trace, ticket, deadline, number: None, sent_at: None };
        if entry.is_callers() {
            self.held += 1;
            self.bytes += entry.op.weight();
        }
        self.earliest_deadline = earlier(self.earliest_deadline, deadline);
        self.entries.push_back(entry);
    }

    /// Takes in requests that go out before all others. Nothing is sent yet on the present connection.
    pub(crate) fn push_first(&mut self, ops: Vec<Op>) {
        for op in ops.into_iter().rev() {
            let entry =
                Entry { xid: 0, op, trace: None, ticket: None, deadline: None, number: None, sent_at: None };
            self.entries.push_front(entry);
        }
    }

    /// The next requests to send, at most `max`, none if all are sent. Writes that go out for the first time get their
    /// number.
    pub(crate) fn take_batch(
        &mut self,
        now: Time,
        max: usize,
        next_number: &mut WriteNumber,
    ) -> Vec<Request> {
        let count = (self.entries.len() - self.sent).min(max).min(BATCH_REQUESTS_MAX);
        let mut batch = Vec::with_capacity(count);
        let mut bytes = 0;
        for entry in self.entries.range_mut(self.sent..self.sent + count) {
            bytes += entry.op.bytes();
            if !batch.is_empty() && bytes > BATCH_BYTES_MAX {
                break;
            }
            if matches!(entry.op, Op::Write(_)) && entry.number.is_none() {
                entry.number = Some(*next_number);
                next_number.0 += 1;
            }
            self.last_xid += 1;
            entry.xid = self.last_xid;
            entry.sent_at = Some(now);
            let (op, trace) = (entry.op.clone(), entry.trace.clone());
            batch.push(Request { number: entry.number, trace, ..Request::new(entry.xid, op) });
        }
        self.sent += batch.len();
        batch
    }

    /// The request that is to be answered next.
    pub(crate) fn front_sent(&self) -> Option<&Entry> {
        if self.sent == 0 { None } else { self.entries.front() }
    }

    /// Removes the request that is to be answered next.
    pub(crate) fn pop_sent(&mut self) -> Option<Entry> {
        self.sent = self.sent.checked_sub(1)?;
        let entry = self.entries.pop_front()?;
        self.let_go(&entry);
        Some(entry)
    }

    /// The connection is gone: all requests are to be sent again, except those without a waiting caller. A
    /// sent write stays in the queue even without a caller: without its number there would be a gap before
    /// later writes.
    pub(crate) fn unsend(&mut self) {
        self.sent = 0;
        self.retain(|_, entry| entry.ticket.is_some() || entry.number.is_some() || entry.op == Op::Close);
    }

    /// The requests whose callers stop waiting now. Unsent ones leave the queue.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<(Ticket, Fate)> {
        let mut expired = Vec::new();
        if self.earliest_deadline.is_none_or(|t| t > now) {
            return expired;
        }
        let mut earliest = None;
        let sent = self.sent;
        self.retain(|i, entry| {
            let Some(ticket) = entry.ticket.filter(|_| entry.deadline.is_some_and(|t| t <= now)) else {
                earliest = earlier(earliest, entry.deadline);
                return true;
            };
            expired.push((ticket, entry.fate()));
            entry.ticket = None;
            entry.deadline = None;
            i < sent || entry.number.is_some()
        });
        self.earliest_deadline = earliest;
        expired
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> VecDeque<Entry> {
        self.sent = 0;
        self.held = 0;
        self.bytes = 0;
        self.earliest_deadline = None;
        std::mem::take(&mut self.entries)
    }

    fn retain(&mut self, mut keep: impl FnMut(usize, &mut Entry) -> bool) {
        let (mut held, mut bytes, mut i) = (0, 0, 0);
        self.entries.retain_mut(|entry| {
            let kept = keep(i, entry);
            i += 1;
            if kept && entry.is_callers() {
                held += 1;
                bytes += entry.op.weight();
            }
            kept
        });
        (self.held, self.bytes) = (held, bytes);
    }

    fn let_go(&mut self, entry: &Entry) {
        if entry.is_callers() {
            self.held -= 1;
            self.bytes -= entry.op.weight();
        }
    }
}

fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// So that the server can start on the first requests while the last ones are still on their way.
const BATCH_REQUESTS_MAX: usize = 1024;

/// As above; one request alone may be larger.
const BATCH_BYTES_MAX: usize = 256 << 10;
