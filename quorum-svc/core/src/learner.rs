//! FOLLOWING and OBSERVING: find the leader, copy its log, and stay in sync.

use api::mutants::{Mutant, is_on};
use api::peer::Damage;
use api::ports::{Room, Sign};
use api::{
    Body, EnsembleId, Entry, Epoch, Level, LevelHistory, PeerId, Reconfig, RosterHistory, Ticket, Time, Zxid,
};
use bytes::Bytes;

use crate::{
    Config, Conn, Output, Submission, ToLeader, ToLearner,
    zab::{Role, Zab},
};

/// Wait between two attempts to connect. A leader may learn of its election slightly later than its
/// learners.
const RECONNECT: std::time::Duration = std::time::Duration::from_millis(50);

/// Reason to leave a leader with an unknown level. The shell logs a more detailed message before this
/// happens.
const UNKNOWN_LEVEL: &str =
    "the leader is at a feature level that this build does not know; run a version here that does";

/// The state of a learner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Following {
    pub(crate) leader: PeerId,
    phase: Phase,
    /// Last sign of progress: a message from the leader, or the start.
    heard: Time,
    /// When this server last reported progress of the synchronisation to the leader.
    progress: Time,
    /// The leader's ensemble; `None` before LEADERINFO.
    ensemble: Option<EnsembleId>,
    /// The leader's last reported commit point. Entries that arrive up to it are committed at once.
    leader_commit: Zxid,
    /// The log's durable end grew in this turn.
    ack_due: bool,
    /// Writes for the leader, gathered in this turn.
    forward: Vec<Submission>,
    /// The last report to the leader about the disks of this server.
    disk_told: Room,
    /// The leader's last statement about the room for client requests.
    room: Room,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// No connection. `retry`: time of the next attempt; `None` while one is under way.
    Connecting { retry: Option<Time> },
    /// Connected, LEARNERINFO sent.
    Discovery { conn: Conn },
    /// The leader's epoch is being made durable.
    Promising { conn: Conn, epoch: Epoch, counts: bool },
    /// Promised; waiting for DIFF, TRUNC or SNAP.
    Promised { conn: Conn, epoch: Epoch },
    /// Receiving entries.
    Syncing { conn: Conn, epoch: Epoch },
    /// NEWLEADER received; log and epoch are being made durable.
    Settling { conn: Conn, epoch: Epoch },
    /// NEWLEADER acknowledged.
    Synced { conn: Conn, epoch: Epoch },
    /// UPTODATE received.
    Serving { conn: Conn },
}

impl Following {
    pub(crate) fn serving(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    pub(crate) fn conn(&self) -> Option<Conn> {
        match self.phase {
            Phase::Connecting { .. } => None,
            Phase::Discovery { conn }
            | Phase::Promising { conn, .. }
            | Phase::Promised { conn, .. }
            | Phase::Syncing { conn, .. }
            | Phase::Settling { conn, .. }
            | Phase::Synced { conn, .. }
            | Phase::Serving { conn } => Some(conn),
        }
    }

    pub(crate) fn next_timeout(&self, config: &Config) -> Time {
        let limit = self.heard + self.limit(config);
        match self.phase {
            Phase::Connecting { retry: Some(at) } => at.min(limit),
            _ => limit,
        }
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    fn limit(&self, config: &Config) -> std::time::Duration {
        if self.serving() { config.sync_limit } else { config.init_limit }
    }

    /// Whether the server may acknowledge the log's durable end. It must not before the epoch is
    /// durable as well: ZOOKEEPER-4643, -4685 describe the consequences.
    fn may_ack(&self) -> bool {
        matches!(self.phase, Phase::Synced { .. } | Phase::Serving { .. })
    }
}

impl Zab {
    pub(crate) fn become_learner(&mut self, leader: PeerId) {
        let now = self.now.mono;
        self.role = Role::Following(Following {
            leader,
            phase: Phase::Connecting { retry: None },
            heard: now,
            progress: now,
            ensemble: None,
            leader_commit: Zxid::ZERO,
            ack_due: false,
            forward: Vec::new(),
            disk_told: Room::Ample,
            room: Room::Ample,
        });
        self.out.push_back(Output::Connect { leader });
    }

    pub(crate) fn on_leader_connected(&mut self, conn: Conn, leader: PeerId) {
        let (accepted_epoch, levels) = (self.accepted, self.config.levels);
        match &mut self.role {
            Role::Following(f) if f.leader == leader && matches!(f.phase, Phase::Connecting { .. }) => {
                f.phase = Phase::Discovery { conn };
                let message = ToLeader::LearnerInfo { accepted_epoch, levels };
                self.out.push_back(Output::ToLeader { conn, message });
            }
            _ => self.out.push_back(Output::Disconnect { conn, why: "no longer wanted" }),
        }
    }

    pub(crate) fn on_connect_failed(&mut self, leader: PeerId) {
        let now = self.now.mono;
        if let Role::Following(f) = &mut self.role
            && f.leader == leader
            && let Phase::Connecting { retry: retry @ None } = &mut f.phase
        {
            *retry = Some(now + RECONNECT);
        }
    }

    pub(crate) fn learner_on_time(&mut self) {
        let now = self.now.mono;
        let Role::Following(f) = &mut self.role else { return };
        if now >= f.heard + f.limit(&self.config) {
            self.look("the leader is silent");
        } else if let Phase::Connecting { retry } = &mut f.phase
            && retry.is_some_and(|at| now >= at)
        {
            *retry = None;
            let leader = f.leader;
            self.out.push_back(Output::Connect { leader });
        }
    }

    /// A long transfer makes progress. The server reports that to the leader by a pong of round 0,
    /// which has no ping.
    pub(crate) fn on_progress(&mut self, conn: Conn) {
        let now = self.now.mono;
        let Role::Following(f) = &mut self.role else { return };
        if f.conn() != Some(conn) {
            return;
        }
        f.heard = now;
        if !f.serving()
            && now >= f.progress + self.config.ping_interval
            && !matches!(f.phase, Phase::Discovery { .. })
        {
            f.progress = now;
            self.out.push_back(Output::ToLeader {
                conn,
                message: ToLeader::Pong { round: 0, wall_ms: self.now.wall_ms },
            });
        }
    }

    pub(crate) fn on_leader_message(&mut self, conn: Conn, message: ToLearner) {
        match &mut self.role {
            Role::Following(f) if f.conn() == Some(conn) => f.heard = self.now.mono,
            _ => return,
        }
        if !matches!(message, ToLearner::Ping { .. }) {
            self.on_progress(conn);
        }
        if let Err(why) = self.learner_handle(conn, message) {
            self.look(why);
        }
    }

    /// Errors are faults of the leader or of the connection. They end the connection.
    fn learner_handle(&mut self, conn: Conn, message: ToLearner) -> Result<(), &'static str> {
        let Role::Following(f) = &mut self.role else { return Ok(()) };
        match (message, f.phase) {
            (ToLearner::LeaderInfo { epoch, ensemble, level }, Phase::Discovery { .. }) => {
                if level.is_some_and(|level| !self.config.levels.contains(level)) {
                    return Err(UNKNOWN_LEVEL);
                }
                if epoch < self.accepted {
                    return Err("the leader proposes an epoch below the one promised");
                }
                let damaged = self.suspected || self.damage.is_some();
                let counts = epoch > self.accepted && !damaged;
                f.ensemble = Some(ensemble);
                f.phase = Phase::Promising { conn, epoch, counts };
                // Even if it was promised before: then this only waits for the disk.
                self.persist_epochs(epoch, self.current);
                if is_on(Mutant::PromiseBeforeDurable) {
                    self.learner_epochs_persisted();
                }
            }
            (ToLearner::Diff { after }, Phase::Promised { epoch, .. }) => {
                if after != self.history.last() {
                    return Err("DIFF does not start at the end of the log");
                }
                f.phase = Phase::Syncing { conn, epoch };
                self.join_ensemble()?;
            }
            (ToLearner::Trunc { to }, Phase::Promised { epoch, .. }) => {
                if !self.history.contains(to) {
                    return Err("TRUNC to a point that is not in the log");
                }
                if to < self.committed {
                    // A quorum had this entry on disk, so no leader can lack it. But this leader has a
                    // quorum that lacks it.
                    let text = format!(
                        "the log of this node is cut back to {to} if it follows leader {}, but {} is committed here: what this \
                         node has is not what a quorum has, and either side may have lost acknowledged data. The others go \
                         on. Keep a copy of this data directory; to join them, start this node with an empty one",
                        f.leader, self.committed
                    );
                    self.out.push_back(Output::Fatal(text));
                    return Ok(());
                }
                f.phase = Phase::Syncing { conn, epoch };
                self.join_ensemble()?;
                assert!(self.history.truncate(to), "the log contains {to}");
                self.levels.truncate(to);
                if !is_on(Mutant::MembersNotRestored) {
                    self.rosters.truncate(to);
                }
                self.durable = self.durable.min(to);
                self.pending.truncated(to);
                if is_on(Mutant::TruncSkipped) {
                    return Ok(());
                }
                self.disk_ops += 1;
                self.out.push_back(Output::Truncate { to });
            }
            (ToLearner::Snap { zxid, level, roster }, Phase::Promised { epoch, .. }) => {
                if zxid < self.committed {
                    return Err("the snapshot is older than what was committed here");
                }
                if zxid.epoch() > epoch {
                    return Err("the snapshot is newer than the leader");
                }
                if !self.config.levels.contains(level) {
                    return Err(UNKNOWN_LEVEL);
                }
                if roster.since() > zxid {
                    return Err("the members of a snapshot are newer than the snapshot");
                }
                f.phase = Phase::Syncing { conn, epoch };
                self.join_ensemble()?;
                self.history = api::History::from_base(zxid);
                self.levels = LevelHistory::from_base(Some(level));
                self.rosters = RosterHistory::from_base(Some(roster.clone()));
                self.committed = zxid;
                // Nothing is durable until the log stands on the snapshot.
                self.durable = Zxid::ZERO;
                self.disk_ops += 1;
                self.out.push_back(Output::InstallSnapshot { zxid, level, roster });
                self.lose_pending();
            }
            (
                ToLearner::Propose { prev, entries, commit },
                Phase::Syncing { .. } | Phase::Settling { .. } | Phase::Synced { .. } | Phase::Serving { .. },
            ) => {
                if commit.is_some() && !f.may_ack() {
                    return Err("a commit before the end of the synchronisation");
                }
                self.on_propose(prev, entries, commit)?;
            }
            (ToLearner::NewLeader { epoch, target, last_stamp }, Phase::Syncing { epoch: promised, .. }) => {
                if epoch != promised || target != self.history.last() || target < Zxid::marker(epoch) {
                    return Err("NEWLEADER does not fit what was synchronised");
                }
                f.phase = Phase::Settling { conn, epoch };
                self.last_stamp = self.last_stamp.max(last_stamp);
                // The leader has restored everything that the log may have lost.
                self.damage = Damage::None;
                self.suspected = false;
                // The log first, then the epoch, then the ack: ZOOKEEPER-4643, -4646.
                self.persist_epochs(self.accepted, epoch);
                if is_on(Mutant::AckBeforeEpoch) {
                    self.learner_epochs_persisted();
                }
            }
            (ToLearner::UpToDate { commit }, Phase::Synced { epoch, .. }) => {
                f.phase = Phase::Serving { conn };
                let leader = f.leader;
                self.on_commit(commit);
                self.out.push_back(Output::Settled { leader, epoch });
                self.resume_requests();
            }
            // COMMIT may overtake UPTODATE.
            (ToLearner::Commit(zxid), Phase::Synced { .. } | Phase::Serving { .. }) => self.on_commit(zxid),
            (ToLearner::Ping { round, quorum_ms }, _) => {
                let wall_ms = self.now.wall_ms;
                self.clock_offset_ms = (quorum_ms != 0).then(|| wall_ms.saturating_sub(quorum_ms));
                self.out.push_back(Output::ToLeader { conn, message: ToLeader::Pong { round, wall_ms } });
            }
            (ToLearner::Barrier { ticket, zxid }, Phase::Serving { .. }) => {
                self.on_commit(zxid);
                self.answer_barrier(ticket, zxid);
            }
            (ToLearner::Confirm(report), Phase::Serving { .. }) => {
                self.out.push_back(Output::Sign(Sign::Confirmed(report)));
            }
            // The answer to a report over an older connection.
            (ToLearner::Confirm(_), Phase::Synced { .. }) => {}
            (ToLearner::Refused { ticket, why }, Phase::Serving { .. }) => {
                if self.pending.remove(ticket) {
                    self.refuse(ticket, why);
                }
            }
            (ToLearner::Room(room), Phase::Serving { .. }) => f.room = room,
            (ToLearner::LevelSet { ticket, result }, Phase::Serving { .. }) => self.level_set(ticket, result),
            (ToLearner::Reconfigured { ticket, result }, Phase::Serving { .. }) => {
                self.reconfigured(ticket, result);
            }
            _ => return Err("a message out of turn"),
        }
        Ok(())
    }

    /// Adopts the leader's ensemble, durably before any of its entries: a log with more than markers is
    /// bound to its ensemble for good.
    fn join_ensemble(&mut self) -> Result<(), &'static str> {
        let Role::Following(f) = &self.role else { return Ok(()) };
        if self.ensemble == f.ensemble || is_on(Mutant::ForeignEnsembleTrusted) && self.ensemble.is_some() {
            return Ok(());
        }
        if self.standing().bound {
            return Err("the leader belongs to another ensemble");
        }
        self.ensemble = f.ensemble;
        self.persist_epochs(self.accepted, self.current);
        Ok(())
    }

    fn on_propose(
        &mut self,
        prev: Zxid,
        entries: Vec<Entry>,
        commit: Option<Zxid>,
    ) -> Result<(), &'static str> {
        if prev != self.history.last() {
            return Err("a proposal does not stand behind the end of the log");
        }
        let me = self.config.me;
        let accepted = self.accepted;
        for entry in entries {
            if !entry.zxid.follows(self.history.last()) || entry.zxid.epoch() > accepted {
                return Err("a proposal leaves a gap");
            }
            self.check_body(&entry)?;
            if let Some(origin) = entry.origin.filter(|o| o.peer == me) {
                self.pending.logged(origin.ticket, entry.zxid);
            }
            self.push_entry(entry);
        }
        let Role::Following(f) = &self.role else { return Ok(()) };
        self.on_commit(commit.unwrap_or(f.leader_commit));
        Ok(())
    }

    /// Whether an entry fits behind the last one. An unknown level is an error: the server neither
    /// appends nor skips such an entry.
    fn check_body(&self, entry: &Entry) -> Result<(), &'static str> {
        let (before, marks) = (self.levels.last(), entry.zxid.counter() == 0);
        let fits = match &entry.body {
            Body::Store(_) => !marks,
            Body::Marker(level) => marks && before.is_none_or(|before| before == *level),
            Body::Level(level) => !marks && before.is_some_and(|before| before < *level),
            Body::Members(roster) => !marks && self.fits_roster(entry.zxid, roster),
        };
        match entry.body.level() {
            _ if !fits => Err("a proposal does not fit the level or the members of the log"),
            Some(level) if !self.config.levels.contains(level) => Err(UNKNOWN_LEVEL),
            _ => Ok(()),
        }
    }

    fn on_commit(&mut self, zxid: Zxid) {
        let Role::Following(f) = &mut self.role else { return };
        f.leader_commit = f.leader_commit.max(zxid);
        self.committed = self.committed.max(f.leader_commit.min(self.history.last()));
    }

    pub(crate) fn learner_epochs_persisted(&mut self) {
        let history = &self.history;
        let (current_epoch, damage, last_stamp) = (self.current, self.damage(), self.last_stamp);
        let (ensemble, committed, wall_ms) = (self.ensemble, self.committed, self.now.wall_ms);
        let Role::Following(f) = &mut self.role else { return };
        match f.phase {
            Phase::Promising { conn, epoch, counts } => {
                f.phase = Phase::Promised { conn, epoch };
                let history = history.clone();
                let message = ToLeader::AckEpoch {
                    epoch,
                    current_epoch,
                    history,
                    counts,
                    damage,
                    last_stamp,
                    ensemble,
                    committed,
                    wall_ms,
                };
                self.out.push_back(Output::ToLeader { conn, message });
            }
            Phase::Settling { conn, epoch } => {
                f.phase = Phase::Synced { conn, epoch };
                f.ack_due = true;
            }
            _ => {}
        }
    }

    pub(crate) fn learner_on_durable(&mut self) {
        if let Role::Following(f) = &mut self.role {
            f.ack_due = f.may_ack();
        }
    }

    pub(crate) fn learner_flush(&mut self) {
        let durable = if is_on(Mutant::AckBeforeFsync) { self.history.last() } else { self.durable };
        let Role::Following(f) = &mut self.role else { return };
        let Some(conn) = f.conn() else { return };
        if std::mem::take(&mut f.ack_due) {
            self.out.push_back(Output::ToLeader { conn, message: ToLeader::Ack(durable) });
        }
        if f.may_ack() && f.disk_told != self.disk {
            f.disk_told = self.disk;
            self.out.push_back(Output::ToLeader { conn, message: ToLeader::Disk(self.disk) });
        }
        if !f.forward.is_empty() {
            let message = ToLeader::Forward(std::mem::take(&mut f.forward));
            self.out.push_back(Output::ToLeader { conn, message });
        }
    }

    /// Sends a write to the leader at the end of this turn.
    pub(crate) fn forward(&mut self, submission: Submission) {
        if let Role::Following(f) = &mut self.role {
            f.forward.push(submission);
        }
    }

    pub(crate) fn learner_barrier(&mut self, ticket: Ticket) {
        if let Role::Following(f) = &self.role
            && let Phase::Serving { conn } = f.phase
        {
            self.out.push_back(Output::ToLeader { conn, message: ToLeader::Barrier { ticket } });
        }
    }

    /// Requests another feature level from the leader. The caller gets an error if the leader is lost
    /// before the answer.
    pub(crate) fn learner_set_level(&mut self, ticket: Ticket, expected: Level, level: Level) {
        if let Role::Following(f) = &self.role
            && let Phase::Serving { conn } = f.phase
        {
            let message = ToLeader::SetLevel { ticket, expected, level };
            self.out.push_back(Output::ToLeader { conn, message });
        }
    }

    /// As [`Zab::learner_set_level`], for other members.
    pub(crate) fn learner_reconfigure(&mut self, ticket: Ticket, reconfig: Reconfig) {
        if let Role::Following(f) = &self.role
            && let Phase::Serving { conn } = f.phase
        {
            self.out
                .push_back(Output::ToLeader { conn, message: ToLeader::Reconfigure { ticket, reconfig } });
        }
    }

    pub(crate) fn report(&mut self, report: Bytes) {
        if let Role::Following(f) = &self.role
            && let Phase::Serving { conn } = f.phase
        {
            self.out.push_back(Output::ToLeader { conn, message: ToLeader::Report(report) });
        }
    }
}
