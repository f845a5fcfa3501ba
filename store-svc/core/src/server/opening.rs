//! The opening of connections.

use api::mutants::{Mutant, is_on};
use api::{Identities, SessionToken, ports::Room, session::Purpose};

use super::*;
use crate::hash_of;

/// A connection that is not open yet.
#[derive(Debug)]
pub(super) struct Opening {
    wish: Wish,
    stage: Stage,
    /// Its deadline.
    until: Time,
}

#[derive(Clone, Debug)]
enum Wish {
    Session(Open, Drawn),
    /// Reads and watches without a session.
    Watches(Open),
    Unary,
}

impl Wish {
    /// Its waiting time, at most `limit`.
    fn wait(&self, limit: Duration) -> Duration {
        match self {
            Wish::Session(Open { wait_ms: Some(wait), .. }, _)
            | Wish::Watches(Open { wait_ms: Some(wait), .. }) => {
                limit.min(Duration::from_millis((*wait).into()))
            }
            _ => limit,
        }
    }

    fn open(&self) -> Option<&Open> {
        match self {
            Wish::Session(open, _) | Wish::Watches(open) => Some(open),
            Wish::Unary => None,
        }
    }
}

/// The event that an [`Opening`] waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// This node serves for the first time: until then its state may be outdated.
    Serving,
    /// This node has applied everything that the client has seen elsewhere.
    CatchUp,
    /// A barrier: only after it, a session that is unknown here is certain not to exist.
    Verifying,
    /// Nothing: the barrier is complete.
    Verified,
    /// The entry that opens the session.
    Submitted,
}

impl Server {
    pub(super) fn on_open(&mut self, id: ConnId, open: Open, drawn: Drawn, identities: Identities) {
        let wish = match open.purpose {
            Purpose::Session | Purpose::SessionOrReads => Wish::Session(open, drawn),
            Purpose::Watches => Wish::Watches(open),
        };
        self.begin_opening(id, wish, identities);
    }

    pub(super) fn on_unary(&mut self, id: ConnId, request: Request, identities: Identities) {
        let is_stale = request.op.is_stale();
        if is_stale && self.state.applied() == Zxid::ZERO {
            // No entry has been applied, so a missing znode proves nothing about the ensemble.
            self.outbox.close(id, Err(self.stateless()));
            return;
        }
        if is_stale {
            // A stale read accepts any state. It is answered at once, so neither bounds nor a leader matter.
            self.conns.insert(id, Conn::new(Phase::Unary, identities));
        } else {
            self.begin_opening(id, Wish::Unary, identities);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.push(Request { number: None, ..request }, self.now);
            if matches!(conn.phase, Phase::Unary) {
                self.run(id);
            }
        }
    }

    /// The session `id` exists, opened by the connection itself or resumed on the given stream. From
    /// now on this connection alone acts for it.
    pub(super) fn opened(
        &mut self,
        id: ConnId,
        session: SessionId,
        taken_up: Option<StreamId>,
        timeout_ms: u32,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Phase::Opening(opening) = std::mem::replace(&mut conn.phase, Phase::Open(session)) else {
            return self.outbox.stop(format!("connection {} was opened twice; please report this", id.0));
        };
        let Wish::Session(Open { resume, .. }, Drawn { token: drawn, .. }) = opening.wish else {
            return self.outbox.stop(format!("call {} was opened as a session; please report this", id.0));
        };
        let token = resume.map_or(drawn, |(_, token)| token);
        self.unlist(id, &opening);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.stream = taken_up.unwrap_or(StreamId::FIRST);
        conn.in_charge = taken_up.is_none();
        let opened = Opened {
            session,
            token,
            timeout_ms,
            node: self.config.me,
            leaderless: !self.status.serving,
            resumed: taken_up.is_some(),
            zxid: self.state.applied(),
            last_write: self.state.session(session).map_or(WriteNumber(0), |info| info.last_write),
            level: self.state.level(),
            limits: self.config.limits.told(),
            identities: conn.identities.clone(),
            ensemble: self.status.ensemble,
            read_only: false,
        };
        let opened = Item::Opened(opened);
        self.outbox.send(id, &mut conn.place, opened);
        if let Some(older) = self.sessions.insert(session, id) {
            self.close(older, Err(OpError::SessionMoved(session)));
        }
        if let Some(stream) = taken_up {
            // No request waits for it: the requests of the connection follow it.
            let command = Command::outside(CommandBody::ResumeSession { session, stream });
            self.submit(Pending::Resume { conn: id }, command);
        }
        self.touch(session, id);
        self.run(id);
    }

    /// Serves reads and watches of a connection, without a session. `leaderless`: because there is no quorum, and until there is one.
    fn open_local(&mut self, id: ConnId, leaderless: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let local = Phase::Local { closed: false };
        let Phase::Opening(opening) = std::mem::replace(&mut conn.phase, local) else {
            return self.outbox.stop(format!("connection {} was opened twice; please report this", id.0));
        };
        self.unlist(id, &opening);
        let timeout_ms = self.clamp(opening.wish.open().map_or(0, |open| open.timeout_ms));
        if leaderless {
            self.leaderless.insert(id);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let opened = Opened {
            session: SessionId(0),
            token: SessionToken([0; 16]),
            timeout_ms,
            node: self.config.me,
            leaderless: !self.status.serving,
            resumed: false,
            zxid: self.state.applied(),
            last_write: WriteNumber(0),
            level: self.state.level(),
            limits: self.config.limits.told(),
            identities: conn.identities.clone(),
            ensemble: self.status.ensemble,
            read_only: true,
        };
        self.outbox.send(id, &mut conn.place, Item::Opened(opened));
        self.run(id);
    }

    /// Whether a connection that cannot have its session now is served without one: it accepts that, and this node is not behind
    /// what it has seen.
    fn may_only_read(&self, wish: &Wish) -> bool {
        let Wish::Session(open, _) = wish else { return false };
        let known = self.state.applied();
        let own = open.ensemble.is_none_or(|expected| self.status.ensemble.is_none_or(|own| own == expected));
        open.purpose == Purpose::SessionOrReads && known != Zxid::ZERO && open.last_zxid <= known && own
    }

    /// The quorum serves again: connections that only read because it did not get their sessions from another opening.
    pub(super) fn end_leaderless(&mut self) {
        for id in std::mem::take(&mut self.leaderless) {
            let why = format!("node {} has a quorum again; open the session now", self.config.me);
            self.close(id, Err(OpError::Unavailable(why)));
        }
    }

    /// Handles an entry that resumed this session.
    pub(super) fn on_newest_stream(&mut self, session: SessionId, newest: StreamId) {
        let Some(&id) = self.sessions.get(&session) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.stream == newest {
            conn.in_charge = true;
        } else if conn.in_charge {
            self.close(id, Err(OpError::SessionMoved(session)));
        }
        // Otherwise its own entry is still to come, after this one.
    }

    pub(super) fn on_verified(&mut self, id: ConnId) {
        if let Some(opening) = self.opening_mut(id) {
            opening.stage = Stage::Verified;
            self.try_open(id);
        }
    }

    /// This node serves for the first time.
    pub(super) fn retry_all(&mut self) {
        let all: Vec<ConnId> = self.opening.iter().map(|(_, id)| *id).collect();
        all.into_iter().for_each(|id| self.try_open(id));
    }

    pub(super) fn give_up_openings(&mut self) {
        while let Some((_, id)) = self.opening.first().copied().filter(|(until, _)| *until <= self.now) {
            self.opening.pop_first();
            let wish = self.opening_mut(id).map(|opening| opening.wish.clone());
            if wish.is_some_and(|wish| !self.status.serving && self.may_only_read(&wish)) {
                self.open_local(id, true);
                continue;
            }
            let behind = self.opening_mut(id).is_some_and(|o| o.stage == Stage::CatchUp);
            let why = if behind {
                OpError::Unavailable(format!(
                    "node {} is behind what this session has seen, at {}; connect to another node",
                    self.config.me,
                    self.state.applied()
                ))
            } else {
                self.unavailable()
            };
            self.close(id, Err(why));
        }
    }

    /// Removes a connection that is open or gone from the waiting lists.
    pub(super) fn unlist(&mut self, id: ConnId, opening: &Opening) {
        self.opening.remove(&(opening.until, id));
        match (opening.stage, &opening.wish) {
            (Stage::CatchUp, Wish::Session(open, _)) => {
                self.waits.end_entry(open.last_zxid, Waiter::Opening(id));
            }
            (Stage::Verifying, _) => self.waits.end_barrier(Waiter::Opening(id)),
            _ => {}
        }
    }

    fn begin_opening(&mut self, id: ConnId, wish: Wish, identities: Identities) {
        let only_reads = self.turning_away() && self.may_only_read(&wish);
        let why = if self.turning_away() && !only_reads {
            self.unavailable()
        } else if self.conns.len() >= self.config.limits.connections_max {
            OpError::Overloaded(format!(
                "node {} has {} connections, which is its limit; connect to another node",
                self.config.me,
                self.conns.len()
            ))
        } else {
            let until = self.now + wish.wait(self.config.limits.park);
            let opening = Opening { wish, stage: Stage::Serving, until };
            self.conns.insert(id, Conn::new(Phase::Opening(opening), identities));
            self.opening.insert((until, id));
            return if only_reads { self.open_local(id, true) } else { self.try_open(id) };
        };
        self.outbox.close(id, Err(why));
    }

    fn opening_mut(&mut self, id: ConnId) -> Option<&mut Opening> {
        match &mut self.conns.get_mut(&id)?.phase {
            Phase::Opening(opening) => Some(opening),
            _ => None,
        }
    }

    pub(super) fn try_open(&mut self, id: ConnId) {
        let (served, applied, now) = (self.served, self.state.applied(), self.now);
        let own = self.status.ensemble;
        let full = self.status.room > Room::Ample && self.state.sessions().count() >= SESSIONS_WITHOUT_ROOM;
        let catch_up = self.config.limits.catch_up;
        let Some(opening) = self.opening_mut(id) else { return };
        if !served || matches!(opening.stage, Stage::Submitted | Stage::Verifying) {
            return;
        }
        if let Some(&Open { ensemble: Some(expected), .. }) = opening.wish.open()
            && let Some(actual) = own.filter(|&own| own != expected)
        {
            return self.close(id, Err(OpError::WrongEnsemble { expected, actual }));
        }
        let Some(opening) = self.opening_mut(id) else { return };
        let stage = opening.stage;
        let identities = self.conns.get(&id).map(|conn| conn.identities.clone()).unwrap_or_default();
        let Some(opening) = self.opening_mut(id) else { return };
        match opening.wish.clone() {
            Wish::Unary => {
                let until = opening.until;
                self.opening.remove(&(until, id));
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.phase = Phase::Unary;
                }
                self.run_if_asked(id);
            }
            Wish::Watches(_) => self.open_local(id, false),
            Wish::Session(Open { resume: None, .. }, _) if full => self.close(id, Err(OpError::DiskFull)),
            Wish::Session(Open { resume: None, timeout_ms, .. }, Drawn { token, .. }) => {
                opening.stage = Stage::Submitted;
                let timeout_ms = self.clamp(timeout_ms);
                let sessions_max = self.config.limits.sessions_max;
                let token_hash = hash_of(&token);
                let body = CommandBody::OpenSession { token_hash, timeout_ms, sessions_max };
                let command = Command { identities: identities.owner(), ..Command::outside(body) };
                self.submit(Pending::Open { conn: id, command: command.clone() }, command);
            }
            Wish::Session(Open { last_zxid, .. }, _)
                if last_zxid > applied && !is_on(Mutant::ClientAheadServed) =>
            {
                if stage == Stage::Serving {
                    opening.stage = Stage::CatchUp;
                    let until = now + opening.wish.wait(catch_up);
                    let was = std::mem::replace(&mut opening.until, until);
                    self.opening.remove(&(was, id));
                    self.opening.insert((until, id));
                    self.waits.for_entry(last_zxid, Waiter::Opening(id));
                }
            }
            Wish::Session(Open { resume: Some((session, token)), .. }, Drawn { stream, .. }) => {
                match self.state.session(session) {
                    Some(info) if info.admits(&token, &identities) => {
                        self.opened(id, session, Some(stream), info.timeout_ms);
                    }
                    // The same error for a wrong token, a missing identity and an unknown session: it
                    // does not reveal the cause.
                    _ if stage == Stage::Verified => self.close(id, Err(OpError::SessionExpired(session))),
                    _ => {
                        if let Some(opening) = self.opening_mut(id) {
                            opening.stage = Stage::Verifying;
                        }
                        self.waits.for_barrier(Waiter::Opening(id));
                    }
                }
            }
        }
    }

    /// Runs the request of a unary call, which `on_unary` queues before this point.
    fn run_if_asked(&mut self, id: ConnId) {
        if self.conns.get(&id).is_some_and(Conn::has_requests) {
            self.run(id);
        }
    }

    fn clamp(&self, timeout_ms: u32) -> u32 {
        let ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        let limits = &self.config.limits;
        timeout_ms.min(ms(limits.session_timeout_max)).max(ms(limits.session_timeout_min))
    }
}

/// Maximum number of open sessions while growing writes are rejected: sessions need little space, and a
/// client needs one to delete.
const SESSIONS_WITHOUT_ROOM: usize = 1000;
