//! What holds in every role: log, commit point, requests of the store, and the way from one role to the next.

use std::collections::{BTreeMap, VecDeque};

use api::mutants::{Mutant, is_on};
use api::peer::Damage;
use api::{
    Body, EnsembleId, Entry, Epoch, History, Level, LevelHistory, LevelRefusal, Levels, Now, Origin, PeerId,
    Stamp, Standing, Ticket, Time, Trace, Zxid,
    ports::{Candidate, FeedItem, PAYLOAD_MAX, QuorumStatus, Refusal, Request, Role as RoleName, Room, Sign},
};
use bytes::Bytes;

use crate::{
    Config, Conn, Durable, Input, Output, Submission, ToLeader, leader::Leading, learner::Following,
    pending::Pending,
};

/// So far the time of the log may be ahead of the clocks of a quorum before it steps back to them, and a server's clock beside
/// those of a quorum before it is called wrong, in milliseconds.
pub const CLOCK_BOUND_MS: i64 = 10_000;

/// So many may wait for a change of the feature level on one server.
const LEVEL_ASKS: usize = 16;

/// The quorum part of one server. See the [crate] documentation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Zab {
    pub(crate) config: Config,
    /// Promised and synchronised epochs, as durable or about to be: `current <= accepted`.
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// As [`Durable::damage`], or about to be.
    pub(crate) damage: Damage,
    /// Others say that this server has lost something. It acts so, but has not noted it.
    pub(crate) suspected: bool,
    /// As [`Durable::ensemble`], or about to be.
    pub(crate) ensemble: Option<EnsembleId>,
    leaving: Leaving,
    /// Everything appended, durable or not.
    pub(crate) history: History,
    /// The feature levels along it.
    pub(crate) levels: LevelHistory,
    /// Who has asked for another level and has no answer; at most [`LEVEL_ASKS`].
    pub(crate) level_asks: Vec<Ticket>,
    /// Last durable entry; what is behind it must not be acknowledged.
    pub(crate) durable: Zxid,
    /// Last entry known to be committed; `committed <= history.last()`.
    pub(crate) committed: Zxid,
    /// What the store was told; `delivered <= min(committed, durable)`.
    pub(crate) delivered: Zxid,
    /// Newest durable snapshot, for learners that are too far behind.
    pub(crate) snapshot: Option<Zxid>,
    /// Learners that end before this get it although the log has what they lack.
    pub(crate) snap_before: Zxid,
    /// Since when the disk has stood still here, at which entry, although others have made durable and committed what is
    /// behind it.
    stuck: Option<(Zxid, Time)>,
    /// As [`Input::Disk`] said last.
    pub(crate) disk: Room,
    /// Operations on the disk that have not been reported done, besides appends.
    pub(crate) disk_ops: u32,
    /// Those of them that write epochs.
    epoch_writes: u32,
    pub(crate) pending: Pending,
    barriers: Barriers,
    pub(crate) role: Role,
    /// Learners that connected before this server knew that it leads: who, and the accepted epoch if it came already.
    pub(crate) early: BTreeMap<Conn, Early>,
    /// Appended in this turn; leaves as one output.
    pub(crate) append: Vec<Entry>,
    /// Of the last entry, known from the log or by hearsay; the stamps of a leader continue from here.
    pub(crate) last_stamp: Stamp,
    /// How far this server's wall clock is ahead of those of a quorum, as far as known.
    pub(crate) clock_offset_ms: Option<i64>,
    told: QuorumStatus,
    pub(crate) out: VecDeque<Output>,
    pub(crate) now: Now,
}

/// The part a server plays, with the state that exists only in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    /// Without a leader. `asked`: the election is on (it has to wait until the disk is idle).
    Looking {
        asked: bool,
    },
    Leading(Box<Leading>),
    Following(Following),
}

/// How far this server is with [`Input::Leave`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Leaving {
    No,
    /// A leader takes no more writes and waits until another server has everything.
    Asked,
    /// It votes for its successor and then follows it.
    HandedOver,
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Early {
    pub(crate) peer: PeerId,
    /// Its accepted epoch, and the feature levels that it knows.
    pub(crate) said: Option<(Epoch, Levels)>,
}

/// Barriers of this server's store.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Barriers {
    /// No leader has answered yet; by ticket, since when.
    unanswered: BTreeMap<Ticket, Time>,
    /// To be told once the store has everything up to the zxid.
    answered: Vec<(Zxid, Ticket)>,
}

impl Zab {
    /// A server as it comes up. It begins to look for a leader at once.
    #[must_use]
    pub fn new(config: Config, durable: Durable) -> Zab {
        let base = durable.history.base();
        let noted = Some(durable.committed).filter(|&noted| durable.history.contains(noted));
        // A snapshot holds committed state only, and the log is purged only below one.
        let committed = noted.map_or(base, |noted| noted.max(base));
        Zab {
            accepted: durable.accepted_epoch,
            current: durable.current_epoch,
            damage: durable.damage,
            suspected: false,
            ensemble: durable.ensemble,
            leaving: Leaving::No,
            durable: durable.history.last(),
            committed,
            delivered: base,
            // One that was received, while the log was not yet put on it, is of no use to anybody.
            snapshot: durable.snapshot.filter(|&s| durable.history.contains(s)),
            snap_before: durable.snap_before,
            history: durable.history,
            levels: durable.levels,
            level_asks: Vec::new(),
            stuck: None,
            disk: Room::Ample,
            disk_ops: 0,
            epoch_writes: 0,
            pending: Pending::default(),
            barriers: Barriers::default(),
            role: Role::Looking { asked: false },
            early: BTreeMap::new(),
            append: Vec::new(),
            last_stamp: durable.last_stamp,
            clock_offset_ms: None,
            told: QuorumStatus::default(),
            out: VecDeque::new(),
            now: Now::default(),
            config,
        }
    }

    /// Takes in what happened. Outputs may be left until several inputs are in: the more inputs, the larger the
    /// batches that come out.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Elected { leader } => self.on_elected(leader),
            Input::LearnerConnected { conn, peer } => self.on_learner_connected(conn, peer),
            Input::LeaderConnected { conn, leader } => self.on_leader_connected(conn, leader),
            Input::ConnectFailed { leader } => self.on_connect_failed(leader),
            Input::Disconnected { conn } => self.on_disconnected(conn),
            Input::FromLearner { conn, message } => self.on_learner_message(conn, message),
            Input::FromLeader { conn, message } => self.on_leader_message(conn, message),
            Input::SnapshotProgress { conn } => self.on_progress(conn),
            Input::Persisted { upto } => {
                self.durable = self.durable.max(upto);
                self.on_durable();
            }
            Input::Truncated => self.disk_ops -= 1,
            Input::EpochsPersisted => {
                self.disk_ops -= 1;
                self.epoch_writes -= 1;
                // Only the last one says all that was to be written.
                match &self.role {
                    _ if self.epoch_writes > 0 => {}
                    Role::Leading(_) => self.leader_epochs_persisted(),
                    Role::Following(_) => self.learner_epochs_persisted(),
                    Role::Looking { .. } => {}
                }
            }
            Input::SnapshotInstalled => {
                self.disk_ops -= 1;
                self.durable = self.history.base();
                self.snapshot = Some(self.durable);
                self.on_durable();
            }
            Input::SnapshotSaved { zxid, purge_to, hold_from, snap_before } => {
                self.snap_before = snap_before;
                self.snapshot = self.snapshot.max(Some(zxid));
                let needed = if let Role::Leading(leading) = &self.role { leading.needed() } else { None };
                if let Some(upto) =
                    purge_to.map(|upto| needed.map_or(upto, |needed| needed.max(hold_from).min(upto)))
                    && upto > self.history.base()
                {
                    self.out.push_back(Output::Purge { upto });
                }
            }
            Input::SnapshotsLeft { newest } => (self.snapshot, self.snap_before) = (newest, Zxid::ZERO),
            Input::Purged { base } => {
                // An installed snapshot may have moved the base further in the meantime.
                if self.history.purge(base) {
                    self.levels.purge(base);
                }
            }
            Input::Requests(requests) => requests.into_iter().for_each(|r| self.on_request(r)),
            Input::StoreAttached { applied } => {
                // What a damaged log has lost is not in it, and comes back from the leader.
                if self.history.contains(applied) && applied <= self.durable {
                    self.committed = self.committed.max(applied);
                }
            }
            Input::RolledBack { note } => self.on_rolled_back(note),
            Input::Disk(room) => self.disk = room,
            Input::SetLevel { ticket, expected, level } => self.on_set_level(ticket, expected, level),
            Input::Leave => {
                if self.leaving == Leaving::No {
                    self.leaving = Leaving::Asked;
                }
            }
            Input::Timeout => {}
        }
        self.on_time();
    }

    /// What to do next, if anything. To be called until `None` after one or several inputs, before waiting.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.out.is_empty() {
            self.flush();
        }
        self.out.pop_front()
    }

    /// When to send [`Input::Timeout`], unless something else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let role = match &self.role {
            Role::Looking { .. } => None,
            Role::Leading(leading) => Some(leading.next_timeout(&self.config)),
            Role::Following(following) => Some(following.next_timeout(&self.config)),
        };
        // While the server serves, nothing is parked: everything has been sent.
        let parked = match self.serving() {
            true => None,
            false => self
                .pending
                .oldest_unsent()
                .into_iter()
                .chain(self.barriers.unanswered.values().copied())
                .min()
                .map(|since| since + self.config.park_limit),
        };
        role.into_iter().chain(parked).min()
    }

    /// Where this server stands.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        let role = match &self.role {
            Role::Looking { .. } => RoleName::Looking,
            Role::Leading(_) => RoleName::Leading,
            Role::Following(_) if self.config.ensemble.is_voter(self.config.me) => RoleName::Following,
            Role::Following(_) => RoleName::Observing,
        };
        let leader = match &self.role {
            Role::Looking { .. } => None,
            Role::Leading(_) => Some(self.config.me),
            Role::Following(following) => Some(following.leader),
        };
        QuorumStatus {
            role,
            serving: self.serving(),
            leader,
            epoch: self.current,
            last: self.history.last(),
            committed: self.committed,
            disk: self.disk,
            room: self.room(),
            ensemble: self.ensemble,
        }
    }

    /// What clients may ask for: on a leader by the disks of a quorum, else as the leader has said.
    fn room(&self) -> Room {
        match &self.role {
            Role::Looking { .. } => Room::Ample,
            Role::Leading(_) => self.leader_room(),
            Role::Following(following) => following.room(),
        }
    }

    /// What this server says to others of the ensemble that it belongs to.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let known = Standing::new(self.ensemble, self.current, &self.history, self.damage.is_some());
        Standing { level: self.levels.last(), ..known }
    }

    /// The feature level that is committed, as far as this server knows; `None` before its first synchronisation.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.levels.at(self.committed)
    }

    /// What this server has lost, as far as it knows or others say.
    #[must_use]
    pub fn damage(&self) -> Damage {
        if self.suspected { Damage::Directory } else { self.damage }
    }

    /// Writes of this server's own store that are not known to be committed, and their bytes. While the server does not
    /// serve they wait for a leader.
    #[must_use]
    pub fn pending_writes(&self) -> (usize, usize) {
        (self.pending.len(), self.pending.bytes())
    }

    /// How far this server's wall clock is ahead of those of a quorum, in milliseconds; `None` while that is not known.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock_offset_ms
    }

    /// What the log contains, including what is not durable yet.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    // ---- roles ----

    pub(crate) fn serving(&self) -> bool {
        match &self.role {
            Role::Looking { .. } => false,
            Role::Leading(leading) => leading.established(),
            Role::Following(following) => following.serving(),
        }
    }

    /// Leaves whatever role for LOOKING.
    pub(crate) fn look(&mut self, why: &'static str) {
        match std::mem::replace(&mut self.role, Role::Looking { asked: false }) {
            Role::Looking { asked } => self.role = Role::Looking { asked },
            Role::Leading(leading) => {
                self.out.extend(leading.conns().map(|conn| Output::Disconnect { conn, why }));
            }
            Role::Following(following) => {
                self.out.extend(following.conn().map(|conn| Output::Disconnect { conn, why }));
            }
        }
        for ticket in std::mem::take(&mut self.level_asks) {
            self.out.push_back(Output::LevelSet { ticket, result: Err(leaderless()) });
        }
    }

    fn on_elected(&mut self, leader: PeerId) {
        if !matches!(self.role, Role::Looking { asked: true }) {
            return;
        }
        if leader == self.config.me && self.damage().is_some() {
            // It did not stand. Whoever asks again gets another answer.
            self.role = Role::Looking { asked: false };
        } else if leader == self.config.me {
            self.become_leader();
        } else {
            let why = "this server follows another leader";
            self.out.extend(
                std::mem::take(&mut self.early).into_keys().map(|conn| Output::Disconnect { conn, why }),
            );
            self.become_learner(leader);
        }
    }

    fn on_rolled_back(&mut self, note: bool) {
        let empty = self.current == Epoch(0);
        let trusted = is_on(Mutant::OlderCopyTrusted) || empty && is_on(Mutant::WipedDiskTrusted);
        if self.damage == Damage::Directory || trusted {
            return;
        }
        let new = !self.suspected;
        self.suspected = !note;
        if note {
            self.damage = Damage::Directory;
            self.persist_epochs(self.accepted, self.current);
        }
        if new {
            self.act_as_damaged("this server stands on an older copy of its data directory");
        }
    }

    /// Whatever this server promised or counted for so far is worth nothing.
    pub(crate) fn act_as_damaged(&mut self, why: &'static str) {
        self.look(why);
        // Also if it looks already: it stands no more.
        self.role = Role::Looking { asked: false };
        let early = std::mem::take(&mut self.early).into_keys();
        self.out.extend(early.map(|conn| Output::Disconnect { conn, why }));
    }

    fn on_disconnected(&mut self, conn: Conn) {
        self.early.remove(&conn);
        match &mut self.role {
            Role::Looking { .. } => {}
            Role::Leading(leading) => {
                leading.remove(conn);
            }
            Role::Following(following) if following.conn() == Some(conn) => {
                self.look("the connection to the leader broke")
            }
            Role::Following(_) => {}
        }
    }

    fn on_learner_connected(&mut self, conn: Conn, peer: PeerId) {
        if peer == self.config.me || self.config.ensemble.membership(peer).is_none() {
            // The shell checks this as well; here a quorum depends on it.
            self.out.push_back(Output::Disconnect { conn, why: "not another member of the ensemble" });
            return;
        }
        match &self.role {
            Role::Leading(_) => self.add_learner(conn, peer),
            Role::Looking { asked } if !asked || !self.stands() => {
                // Not elected in the search that is on, but by what was still said of this server's last reign. To let it wait
                // for another one, which may not come, would keep it from looking for a leader until its time is up.
                self.out.push_back(Output::Disconnect { conn, why: "this server leads no more" });
            }
            Role::Looking { .. } => {
                // The newest connection of a peer is the one that counts.
                let older: Vec<Conn> =
                    self.early.iter().filter(|(_, e)| e.peer == peer).map(|(&conn, _)| conn).collect();
                for conn in older {
                    self.early.remove(&conn);
                    self.out.push_back(Output::Disconnect { conn, why: "replaced by a newer connection" });
                }
                self.early.insert(conn, Early { peer, said: None });
            }
            Role::Following(_) => {
                self.out.push_back(Output::Disconnect { conn, why: "this server follows another leader" });
            }
        }
    }

    fn on_learner_message(&mut self, conn: Conn, message: ToLeader) {
        match &self.role {
            Role::Leading(_) => self.leader_on_message(conn, message),
            Role::Looking { .. } => {
                if let (Some(early), ToLeader::LearnerInfo { accepted_epoch, levels }) =
                    (self.early.get_mut(&conn), message)
                {
                    early.said = Some((accepted_epoch, levels));
                }
            }
            Role::Following(_) => {}
        }
    }

    fn on_time(&mut self) {
        self.watch_disk();
        match &self.role {
            Role::Looking { .. } => {}
            Role::Leading(_) => self.leader_on_time(),
            Role::Following(_) => self.learner_on_time(),
        }
        if !self.serving() {
            self.refuse_parked();
        }
    }

    /// A server whose disk hangs is of no use to its clients, and as a leader it would soon refuse all writes: nothing that
    /// it orders comes to an end. Others have faster disks, or nothing could be committed that is not durable here; where
    /// all are slow, to look for another leader would only make it worse.
    fn watch_disk(&mut self) {
        let now = self.now.mono;
        self.stuck = match self.stuck {
            _ if self.committed <= self.durable => None,
            Some((at, since)) if at == self.durable => Some((at, since)),
            _ => Some((self.durable, now)),
        };
        if self.serving() && self.stuck.is_some_and(|(_, since)| now.since(since) > self.config.sync_limit) {
            self.look("the disk of this server does not keep up");
        }
    }

    // ---- log ----

    /// Appends to the log, at the end of this turn.
    pub(crate) fn push_entry(&mut self, entry: Entry) {
        assert!(
            self.history.append(entry.zxid),
            "entry {} does not follow {}",
            entry.zxid,
            self.history.last()
        );
        self.last_stamp = entry.stamp();
        if let Some(level) = entry.body.level() {
            self.levels.append(entry.zxid, level);
        }
        self.append.push(entry);
    }

    /// The time for an entry: what a quorum's clocks have reached. The log's time does not go back, with one exception: if it
    /// is ahead of the clocks of a whole quorum by more than [`CLOCK_BOUND_MS`], some clocks were wrong when it was stamped, and
    /// it goes on with those of the quorum.
    pub(crate) fn stamp(&self) -> i64 {
        let last = self.last_stamp.time_ms;
        if is_on(Mutant::OwnClockStamped) {
            return last.max(self.now.wall_ms);
        }
        match self.quorum_clocks() {
            Some((_, latest)) if last > latest.saturating_add(CLOCK_BOUND_MS) => latest,
            Some((reached, _)) => last.max(reached),
            // A leader that has the promises of a quorum knows its clocks.
            None => last,
        }
    }

    pub(crate) fn persist_epochs(&mut self, accepted: Epoch, current: Epoch) {
        assert!(
            self.accepted <= accepted && self.current <= current && current <= accepted,
            "epochs never decrease"
        );
        (self.accepted, self.current) = (accepted, current);
        self.flush_append();
        self.disk_ops += 1;
        self.epoch_writes += 1;
        let (damage, ensemble, last_stamp) = (self.damage, self.ensemble, self.last_stamp);
        let accepted = if is_on(Mutant::PromiseNotKept) { current } else { accepted };
        // What is not durable here may be gone after a crash, though it is committed.
        let committed = self.committed.min(self.durable);
        self.out.push_back(Output::PersistEpochs {
            accepted,
            current,
            damage,
            ensemble,
            committed,
            last_stamp,
        });
    }

    fn on_durable(&mut self) {
        match &self.role {
            Role::Leading(_) => self.leader_on_durable(),
            Role::Following(_) => self.learner_on_durable(),
            Role::Looking { .. } => {}
        }
    }

    pub(crate) fn flush_append(&mut self) {
        if !self.append.is_empty() {
            self.out.push_back(Output::Append(std::mem::take(&mut self.append)));
        }
    }

    /// Asks for a leader. An election is about the log as it will be after a crash, so the disk comes to rest first.
    fn elect(&mut self) {
        if matches!(self.role, Role::Looking { asked: false })
            && self.disk_ops == 0
            && self.durable == self.history.last()
        {
            self.role = Role::Looking { asked: true };
            let stands = self.stands();
            let candidate = Candidate { epoch: self.current, zxid: self.durable };
            let candidate = if is_on(Mutant::LargestIdWins) { Candidate::default() } else { candidate };
            self.out.push_back(Output::Elect(stands.then_some(candidate)));
        }
    }

    /// Whether this server lets itself be elected.
    fn stands(&self) -> bool {
        !self.damage().is_some() && self.leaving == Leaving::No
    }

    /// Ends a turn: whatever was gathered from several inputs leaves in as few outputs as possible.
    fn flush(&mut self) {
        self.flush_append();
        self.leave();
        match &self.role {
            Role::Leading(_) => self.leader_flush(),
            Role::Following(_) => self.learner_flush(),
            Role::Looking { .. } => self.elect(),
        }
        let upto = self.committed.min(self.durable);
        let upto = if is_on(Mutant::AppliedBeforeCommit) { self.durable } else { upto };
        if upto > self.delivered {
            self.delivered = upto;
            self.pending.committed(upto);
            self.out.push_back(Output::Committed { upto });
        }
        self.release_barriers();
        let status = self.status();
        let told = QuorumStatus { last: status.last, committed: status.committed, ..self.told };
        if status != told {
            self.told = status;
            self.out.push_back(Output::Tell(FeedItem::Status(status)));
        }
    }

    /// Goes on with [`Input::Leave`]. A leader hands over when a server that can lead has the whole log: then all others
    /// agree on the next leader at once, and nothing but a moment is lost.
    fn leave(&mut self) {
        match (self.leaving, &self.role) {
            (Leaving::No | Leaving::Done, _) => return,
            (Leaving::Asked, Role::Leading(leading)) if leading.established() => {
                let end = self.history.last();
                match leading.successor(&self.config.ensemble) {
                    Some(acked) if acked < end || self.committed < end => return,
                    Some(_) => {
                        self.leaving = Leaving::HandedOver;
                        return self.look("this server is about to stop");
                    }
                    None => {}
                }
            }
            (Leaving::HandedOver, _) if !self.serving() => return,
            _ => {}
        }
        self.leaving = Leaving::Done;
        self.out.push_back(Output::Left);
    }

    /// Whether a leader gives new entries a place. Before it hands over its log has to come to rest.
    pub(crate) fn orders(&self) -> bool {
        self.leaving != Leaving::Asked
    }

    // ---- the feature level ----

    fn on_set_level(&mut self, ticket: Ticket, expected: Level, level: Level) {
        let refusal = match self.serving() {
            false => Some(leaderless()),
            true => (self.level_asks.len() >= LEVEL_ASKS).then(|| {
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

    /// Answers whoever has asked on this server; once.
    pub(crate) fn level_set(&mut self, ticket: Ticket, result: Result<Level, LevelRefusal>) {
        if let Some(i) = self.level_asks.iter().position(|&asked| asked == ticket) {
            self.level_asks.swap_remove(i);
            self.out.push_back(Output::LevelSet { ticket, result });
        }
    }

    // ---- requests of the store ----

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Submit { ticket, payload, trace } => {
                if payload.len() > self.config.request_bytes_max.min(PAYLOAD_MAX) {
                    self.refuse(ticket, Refusal::TooLarge);
                    return;
                }
                // By what waits already: a write that fits alone is not kept out by small ones, however often it comes again.
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
                // One of an earlier reign was counted by what that reign knew.
                if epoch == self.current {
                    self.leader_confirm(to, report);
                }
            }
        }
    }

    fn ask_barrier(&mut self, ticket: Ticket) {
        match &self.role {
            Role::Leading(_) => self.leader_barrier(None, ticket),
            Role::Following(_) => self.learner_barrier(ticket),
            Role::Looking { .. } => {}
        }
    }

    /// From now on writes make progress: sends what had to wait, in its order.
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

    /// A leader that still had its quorum after the barrier was asked had committed up to `zxid`.
    pub(crate) fn answer_barrier(&mut self, ticket: Ticket, zxid: Zxid) {
        if self.barriers.unanswered.remove(&ticket).is_some() {
            self.barriers.answered.push((zxid, ticket));
        }
    }

    fn release_barriers(&mut self) {
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

    fn refuse_parked(&mut self) {
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

    /// A snapshot took the place of entries that may have contained our writes.
    pub(crate) fn lose_pending(&mut self) {
        let lost = self.pending.take_all();
        self.out.extend(lost.into_iter().map(|ticket| Output::Tell(FeedItem::Lost { ticket })));
    }

    fn order_own(&mut self, s: Submission) {
        self.order(Origin { peer: self.config.me, ticket: s.ticket }, s.payload, s.trace);
    }

    /// Gives a write its place in the order. The leader of an established epoch only.
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

    /// The place behind the last entry. `None` if the epoch has none left: then this server leads no more.
    pub(crate) fn next_place(&mut self) -> Option<Zxid> {
        let last = self.history.last();
        let next = last.next().filter(|zxid| zxid.counter() <= self.config.counter_max);
        let over = last.epoch().next().filter(|_| is_on(Mutant::CounterRunsOver)).map(Zxid::marker);
        let place = next.or(over);
        if place.is_none() {
            // S27: the next epoch has room again; the write waits for it like any other in an election.
            self.look("the epoch's counter is used up");
        }
        place
    }
}

fn leaderless() -> LevelRefusal {
    LevelRefusal::Unavailable("there is no leader, or it was lost meanwhile; ask again".into())
}

fn limit_micros(config: &Config) -> u64 {
    u64::try_from(config.park_limit.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use api::peer::ToLearner;
    use api::{Ensemble, EpochSpan};
    use std::time::Duration;

    use super::*;

    /// Carries out what a single server wants done: its disk is perfect, and it elects itself.
    fn turn(core: &mut Zab) -> Vec<Output> {
        let mut all = Vec::new();
        while let Some(output) = core.poll_output() {
            let done = match &output {
                Output::Append(entries) => Input::Persisted { upto: entries.last().unwrap().zxid },
                Output::PersistEpochs { .. } => Input::EpochsPersisted,
                Output::Elect(_) => Input::Elected { leader: core.config.me },
                _ => Input::Timeout,
            };
            core.handle(Now::default(), done);
            all.push(output);
        }
        all
    }

    fn config(voters: impl IntoIterator<Item = u32>) -> Config {
        let second = Duration::from_secs(1);
        Config {
            me: PeerId(1),
            ensemble: Ensemble::of_voters(voters).unwrap(),
            draw: EnsembleId(1),
            init_limit: second,
            sync_limit: second,
            ping_interval: second,
            commit_delay: Duration::ZERO,
            park_limit: second,
            requests_max: 100,
            request_bytes_max: 100,
            levels: api::Levels::BUILD,
            counter_max: u32::MAX,
        }
    }

    /// Two voters lost everything and started anew before the third was there. Its log would be cut back to the marker, which
    /// both reigns have.
    #[test]
    fn b02_what_the_store_has_or_was_told_is_not_cut_off_the_log_for_an_ensemble_that_was_started_anew() {
        let z = |counter| Zxid::new(Epoch(1), counter);
        let spans = vec![EpochSpan { epoch: Epoch(1), last: 9 }];
        let history = History::from_parts(Zxid::ZERO, spans).unwrap();
        let (accepted_epoch, current_epoch) = (Epoch(1), Epoch(1));
        let ensemble = Some(EnsembleId(1));
        let durable = Durable { accepted_epoch, current_epoch, ensemble, history, ..Durable::default() };
        let (leader, conn) = (PeerId(3), Conn(1));
        for (applied, noted, to, refused) in [
            (z(4), Zxid::ZERO, z(0), true),
            (Zxid::ZERO, z(4), z(0), true),
            (z(4), Zxid::ZERO, z(4), false),
            (Zxid::ZERO, z(4), z(4), false),
            (Zxid::ZERO, Zxid::ZERO, z(0), false),
        ] {
            let mut core = Zab::new(config(1..=3), Durable { committed: noted, ..durable.clone() });
            let mut outputs = Vec::new();
            for input in [
                Input::StoreAttached { applied },
                Input::Elected { leader },
                Input::LeaderConnected { conn, leader },
                Input::FromLeader {
                    conn,
                    message: ToLearner::LeaderInfo { epoch: Epoch(1), ensemble: EnsembleId(1), level: None },
                },
                Input::FromLeader { conn, message: ToLearner::Trunc { to } },
            ] {
                core.handle(Now::default(), input);
                while let Some(output) = core.poll_output() {
                    if let Output::PersistEpochs { .. } = output {
                        core.handle(Now::default(), Input::EpochsPersisted);
                    }
                    outputs.push(output);
                }
            }
            let fatal =
                |o: &Output| matches!(o, Output::Fatal(why) if why.contains("0x100000004 is committed"));
            assert_eq!(outputs.iter().any(fatal), refused, "{applied}, {noted}, {to}: {outputs:?}");
            assert_eq!(outputs.contains(&Output::Truncate { to }), !refused);
        }
    }

    #[test]
    fn what_could_not_be_sent_to_others_is_refused_whatever_the_limits_say() {
        let mut core = Zab::new(Config { request_bytes_max: usize::MAX, ..config([1]) }, Durable::default());
        let _ = turn(&mut core);
        for (ticket, size, refused) in [(1, PAYLOAD_MAX, false), (2, PAYLOAD_MAX + 1, true)] {
            let payload = Bytes::from(vec![0; size]);
            let submit = Request::Submit { ticket: Ticket(ticket), payload, trace: None };
            core.handle(Now::default(), Input::Requests(vec![submit]));
            let told = FeedItem::Refused { ticket: Ticket(ticket), why: Refusal::TooLarge };
            assert_eq!(turn(&mut core).contains(&Output::Tell(told)), refused, "{size}");
        }
    }

    #[test]
    fn s27_when_the_counter_is_used_up_the_writes_go_on_in_a_new_epoch() {
        let mut core = Zab::new(config([1]), Durable::default());
        let _ = turn(&mut core);
        // Four billion writes later: room for two more.
        let epoch = core.current;
        let spans = vec![EpochSpan { epoch, last: u32::MAX - 2 }];
        core.history = History::from_parts(Zxid::ZERO, spans).unwrap();
        (core.durable, core.committed, core.delivered) =
            (core.history.last(), core.history.last(), core.history.last());

        let submit =
            |t| Request::Submit { ticket: Ticket(t), payload: Bytes::from_static(b"w"), trace: None };
        core.handle(Now::default(), Input::Requests((1..=4).map(submit).collect()));
        let outputs = turn(&mut core);
        let entries: Vec<(Zxid, Option<u64>)> = outputs
            .iter()
            .filter_map(|o| if let Output::Append(entries) = o { Some(entries) } else { None })
            .flatten()
            .map(|e| (e.zxid, e.origin.map(|o| o.ticket.0)))
            .collect();
        let next = epoch.next().unwrap();
        let expected = [
            (Zxid::new(epoch, u32::MAX - 1), Some(1)),
            (Zxid::new(epoch, u32::MAX), Some(2)),
            (Zxid::marker(next), None),
            (Zxid::new(next, 1), Some(3)),
            (Zxid::new(next, 2), Some(4)),
        ];
        assert_eq!(entries, expected);
        assert_eq!(core.status().committed, Zxid::new(next, 2));
        assert_eq!(core.pending.len(), 0);
    }
}
