//! Pending requests to the quorum.

use std::collections::VecDeque;

use api::{Command, SessionId, Ticket};

use super::ConnId;

/// The purpose of a ticket. Commands are kept, because a lost one may have to be submitted again.
#[derive(Debug)]
pub(super) enum Pending {
    /// A write of a connection.
    Write { conn: ConnId, slot: u64, command: Command },
    /// A client closes its session.
    Close { conn: ConnId, slot: u64, command: Command },
    /// A connection opens a session.
    Open { conn: ConnId, command: Command },
    /// A connection resumes a session.
    Resume { conn: ConnId },
    /// A barrier for all requests that wait for one.
    Round,
    /// A barrier before silent sessions are closed.
    ConfirmSilence,
    /// A silent session is closed.
    Expire { session: SessionId },
    /// A comparison of states.
    Check,
    /// A removal of an expired znode.
    Reap,
}

/// Tickets ascend by one, so a ring finds each in constant time.
#[derive(Debug)]
pub(super) struct Tickets {
    /// The ticket of the first position in the ring.
    first: u64,
    ring: VecDeque<Option<Pending>>,
}

impl Tickets {
    pub(super) fn new(first: Ticket) -> Tickets {
        Tickets { first: first.0, ring: VecDeque::new() }
    }

    pub(super) fn next(&mut self, pending: Pending) -> Ticket {
        let ticket = Ticket(self.first + self.ring.len() as u64);
        self.ring.push_back(Some(pending));
        ticket
    }

    /// A number that no request uses, in this run or another.
    pub(super) fn number(&mut self) -> Ticket {
        let ticket = Ticket(self.first + self.ring.len() as u64);
        self.ring.push_back(None);
        self.shrink();
        ticket
    }

    /// `None` for tickets of other runs, and for tickets that were already taken.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Pending> {
        let place = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        let pending = self.ring.get_mut(place)?.take();
        self.shrink();
        pending
    }

    fn shrink(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.first += 1;
        }
    }
}
