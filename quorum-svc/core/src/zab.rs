//! State and behaviour of all roles, and the transitions between roles.

mod log;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::mutants::{Mutant, is_on};
use api::peer::Damage;
use api::{
    EnsembleId, Entry, Epoch, History, Level, LevelHistory, Levels, Now, PeerId, Roster, RosterHistory,
    Stamp, Standing, Ticket, Time, Zxid,
    ports::{QuorumStatus, Role as RoleName, Room},
};

use self::requests::{leaderless, unasked};
use crate::{
    Config, Conn, Durable, Input, Output, ToLeader, leader::Leading, learner::Following, pending::Pending,
};

/// Clock tolerance in milliseconds. The time of the log returns to the clocks of a quorum if it is
/// further ahead of them. A server's clock is reported as wrong if it differs more from those of a
/// quorum.
pub const CLOCK_BOUND_MS: i64 = 10_000;

/// Maximum number of pending feature-level changes on one server, and of pending changes of the members.
const OPERATOR_ASKS: usize = 16;

/// The quorum part of one server. See the [crate] documentation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Zab {
    pub(crate) config: Config,
    /// Promised and synchronised epochs, durable or being written: `current <= accepted`.
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// As [`Durable::damage`], durable or being written.
    pub(crate) damage: Damage,
    /// Other servers report that this server has lost data. It acts as damaged, but has not stored
    /// that.
    pub(crate) suspected: bool,
    /// As [`Durable::ensemble`], durable or being written.
    pub(crate) ensemble: Option<EnsembleId>,
    leaving: Leaving,
    /// Everything appended, durable or not.
    pub(crate) history: History,
    /// The feature levels along the log.
    pub(crate) levels: LevelHistory,
    /// Pending feature-level changes; at most [`OPERATOR_ASKS`].
    pub(crate) level_asks: Vec<Ticket>,
    /// The members of the first start.
    pub(crate) initial: Arc<Roster>,
    /// The members along the log.
    pub(crate) rosters: RosterHistory,
    /// Pending changes of the members; at most [`OPERATOR_ASKS`].
    pub(crate) reconfig_asks: Vec<Ticket>,
    /// Last durable entry; the server must not acknowledge later ones.
    pub(crate) durable: Zxid,
    /// Last entry known to be committed; `committed <= history.last()`.
    pub(crate) committed: Zxid,
    /// Last entry passed to the store; `delivered <= min(committed, durable)`.
    pub(crate) delivered: Zxid,
    /// Newest durable snapshot, for learners that are too far behind.
    pub(crate) snapshot: Option<Zxid>,
    /// Learners whose log ends before this zxid get the snapshot even if the log has their missing
    /// entries.
    pub(crate) snap_before: Zxid,
    /// Last durable entry and the time since when it has not moved, although later entries are
    /// committed by others.
    stuck: Option<(Zxid, Time)>,
    /// Value of the last [`Input::Disk`].
    pub(crate) disk: Room,
    /// Unfinished operations on the disk, without appends.
    pub(crate) disk_ops: u32,
    /// How many of `disk_ops` write epochs.
    epoch_writes: u32,
    pub(crate) pending: Pending,
    barriers: Barriers,
    pub(crate) role: Role,
    /// Learners that connected before this server knew that it leads, and their accepted epochs if
    /// these have arrived.
    pub(crate) early: BTreeMap<Conn, Early>,
    /// Entries appended in this turn; they leave as one output.
    pub(crate) append: Vec<Entry>,
    /// Stamp of the last entry, from the log or reported by others. A leader's stamps continue from it.
    pub(crate) last_stamp: Stamp,
    /// Lead of this server's wall clock over the clocks of a quorum; `None` while unknown.
    pub(crate) clock_offset_ms: Option<i64>,
    told: QuorumStatus,
    pub(crate) out: VecDeque<Output>,
    pub(crate) now: Now,
}

/// The role of a server, with the state of that role.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    /// No leader. `asked`: the election runs. It starts only when the disk is idle.
    Looking {
        asked: bool,
    },
    Leading(Box<Leading>),
    Following(Following),
}

/// Progress of [`Input::Leave`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Leaving {
    No,
    /// A leader accepts no more writes and waits until another server has the whole log.
    Asked,
    /// The server votes for its successor and then follows it.
    HandedOver,
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Early {
    pub(crate) peer: PeerId,
    /// The learner's accepted epoch and its known feature levels.
    pub(crate) said: Option<(Epoch, Levels)>,
}

/// Barriers of this server's store.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Barriers {
    /// Barriers without an answer of a leader, and when each began.
    unanswered: BTreeMap<Ticket, Time>,
    /// Answered barriers. Each is released once the store has everything up to its zxid.
    answered: Vec<(Zxid, Ticket)>,
}

impl Zab {
    /// Creates a server after a start. It starts an election at once.
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
            // A received snapshot that the log does not stand on yet is useless.
            snapshot: durable.snapshot.filter(|&s| durable.history.contains(s)),
            snap_before: durable.snap_before,
            history: durable.history,
            levels: durable.levels,
            level_asks: Vec::new(),
            initial: Arc::new(Roster::initial(config.ensemble.clone())),
            rosters: durable.rosters,
            reconfig_asks: Vec::new(),
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

    /// Processes one input. The caller may collect outputs after several inputs: more inputs give
    /// larger batches.
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
                // Only the last write contains all current values.
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
                    self.rosters.purge(base);
                }
            }
            Input::Requests(requests) => requests.into_iter().for_each(|r| self.on_request(r)),
            Input::StoreAttached { applied } => {
                // Lost entries of a damaged log are not in it. The leader sends them again.
                if self.history.contains(applied) && applied <= self.durable {
                    self.committed = self.committed.max(applied);
                }
            }
            Input::RolledBack { note } => self.on_rolled_back(note),
            Input::Disk(room) => self.disk = room,
            Input::SetLevel { ticket, expected, level } => self.on_set_level(ticket, expected, level),
            Input::Reconfigure { ticket, reconfig } => self.on_reconfigure(ticket, reconfig),
            Input::Leave => {
                if self.leaving == Leaving::No {
                    self.leaving = Leaving::Asked;
                }
            }
            Input::Timeout => {}
        }
        self.on_time();
    }

    /// Returns the next action, if any. After one or several inputs, call it until it returns `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.out.is_empty() {
            self.flush();
        }
        self.out.pop_front()
    }

    /// Time of the next [`Input::Timeout`], unless another input comes before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let role = match &self.role {
            Role::Looking { .. } => None,
            Role::Leading(leading) => Some(leading.next_timeout(&self.config)),
            Role::Following(following) => Some(following.next_timeout(&self.config)),
        };
        // A serving server has sent all requests, so none is parked.
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

    /// Status of this server.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        let role = match &self.role {
            Role::Looking { .. } => RoleName::Looking,
            Role::Leading(_) => RoleName::Leading,
            Role::Following(_) if self.roster().is_voter(self.config.me) => RoleName::Following,
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

    /// The room for client requests: a leader derives it from the disks of a quorum, others take the
    /// leader's value.
    fn room(&self) -> Room {
        match &self.role {
            Role::Looking { .. } => Room::Ample,
            Role::Leading(_) => self.leader_room(),
            Role::Following(following) => following.room(),
        }
    }

    /// Statement about this server's ensemble for other servers.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let known = Standing::new(self.ensemble, self.current, &self.history, self.damage.is_some());
        Standing { level: self.levels.last(), ..known }
    }

    /// The last feature level that this server knows to be committed; `None` before its first
    /// synchronisation.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.levels.at(self.committed)
    }

    /// The members that count for this server: the last ones in its log, committed or not.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
        Zab::last_roster(&self.rosters, &self.initial, self.committed)
    }

    /// As [`Zab::roster`], while another field is borrowed.
    pub(crate) fn last_roster<'a>(
        rosters: &'a RosterHistory,
        initial: &'a Arc<Roster>,
        committed: Zxid,
    ) -> &'a Arc<Roster> {
        let last = if is_on(Mutant::MembersOnceCommitted) { rosters.at(committed) } else { rosters.last() };
        last.unwrap_or(initial)
    }

    /// The last members that this server knows to be committed.
    #[must_use]
    pub fn committed_roster(&self) -> &Arc<Roster> {
        self.rosters.at(self.committed).unwrap_or(&self.initial)
    }

    /// Lost data of this server, as it knows or as others report.
    #[must_use]
    pub fn damage(&self) -> Damage {
        if self.suspected { Damage::Directory } else { self.damage }
    }

    /// Number and bytes of this store's writes that are not known to be committed. While the server
    /// does not serve, they wait for a leader.
    #[must_use]
    pub fn pending_writes(&self) -> (usize, usize) {
        (self.pending.len(), self.pending.bytes())
    }

    /// Lead of this server's wall clock over those of a quorum, in milliseconds; `None` while unknown.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock_offset_ms
    }

    /// Content of the log, including entries that are not durable yet.
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

    /// Leaves any role for LOOKING.
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
        for ticket in std::mem::take(&mut self.reconfig_asks) {
            self.out.push_back(Output::Reconfigured { ticket, result: Err(unasked()) });
        }
    }

    fn on_elected(&mut self, leader: PeerId) {
        if !matches!(self.role, Role::Looking { asked: true }) {
            return;
        }
        if leader == self.config.me && self.damage().is_some() {
            // It did not stand for election. The next election has another result.
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

    /// Invalidates all earlier promises and acks of this server.
    pub(crate) fn act_as_damaged(&mut self, why: &'static str) {
        self.look(why);
        // Also in LOOKING: the server withdraws its candidacy.
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
        // A server that was removed deposes nobody. The shell checks this as well, but here a quorum depends on it.
        let stranger = self.roster().membership(peer).is_none() && !is_on(Mutant::RemovedServerTaken);
        if peer == self.config.me || stranger {
            self.out.push_back(Output::Disconnect { conn, why: "not another member of the ensemble" });
            return;
        }
        match &self.role {
            Role::Leading(_) => self.add_learner(conn, peer),
            Role::Looking { asked } if !asked || !self.stands() => {
                // The peer follows an old statement about this server's last reign, not the running
                // election. If the connection stayed open, the peer would wait for another reign that
                // may not come, until its time limit.
                self.out.push_back(Output::Disconnect { conn, why: "this server leads no more" });
            }
            Role::Looking { .. } => {
                // Only the newest connection of a peer counts.
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

    /// Gives up the role if the disk hangs. Such a server is useless to its clients, and as a leader it
    /// would soon refuse all writes, because none of its own appends ends. `committed > durable` shows
    /// that other servers have faster disks. If all disks are slow, a new election would only make it
    /// worse.
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
}

fn limit_micros(config: &Config) -> u64 {
    u64::try_from(config.park_limit.as_micros()).unwrap_or(u64::MAX)
}
