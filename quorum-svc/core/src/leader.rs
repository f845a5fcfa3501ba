//! LEADING: [discovery], synchronisation of a quorum, then broadcast.

mod discovery;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use api::mutants::{Mutant, is_on};
use api::{
    Body, Ensemble, Entry, Epoch, History, Level, LevelRefusal, Levels, Origin, PeerId, Ticket, Time, Zxid,
    ports::{Candidate, FeedItem, Refusal, Room, Sign},
};
use bytes::Bytes;

use crate::{
    Config, Conn, Output, ToLeader, ToLearner,
    leader::discovery::Promise,
    zab::{Role, Zab},
};

/// The state of a leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leading {
    phase: Phase,
    /// When this server began to lead, or when a voter last told it that its synchronisation gets on.
    since: Time,
    learners: BTreeMap<Conn, Learner>,
    /// Who has promised the epoch to this leader; while it gathers promises, over the present connection.
    promised: BTreeSet<PeerId>,
    /// Of these the promise proves little: they have never synchronised with anybody, or have lost all their data.
    fresh: BTreeSet<PeerId>,
    /// Those who have committed what is not in this server's log.
    contradicting: BTreeSet<PeerId>,
    /// Those who know that they have lost something, and have something still; those who do not.
    damaged: BTreeSet<PeerId>,
    emptied: BTreeSet<PeerId>,
    /// When a voter was last heard, over whichever connection: a leader without a quorum of fresh ones steps down.
    heard: BTreeMap<PeerId, Time>,
    /// The wall clocks of voters, as differences from this server's monotonic clock, in milliseconds.
    clocks: BTreeMap<PeerId, i64>,
    /// Rounds of pings; a quorum of pongs to one proves that this was still the leader when it was sent.
    round: u64,
    next_ping: Time,
    /// A round has to start at the end of this turn, because somebody asked for a barrier.
    round_wanted: bool,
    /// What waits for a round, in the order of their rounds.
    proofs: VecDeque<Proof>,
    /// What learners were last told about the commit point.
    commit_told: Zxid,
    /// Entries that are not committed yet, with their sizes: the bound of what learners may have under way.
    outstanding: VecDeque<(Zxid, usize)>,
    outstanding_bytes: usize,
    /// The change of the feature level that is not committed yet.
    raise: Option<Raise>,
}

/// A new feature level, which has a place in the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Raise {
    zxid: Zxid,
    level: Level,
    /// The learner on which it was asked for; `None` for this server.
    conn: Option<Conn>,
    ticket: Ticket,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Waiting for a quorum of accepted epochs.
    Discovery,
    /// The new epoch is proposed, once durable here, and to be promised by a quorum.
    Promising { epoch: Epoch, durable: bool },
    /// A quorum has promised; the marker is in the log and has to get to a quorum. `durable`: the current epoch is, here.
    Synchronising { epoch: Epoch, durable: bool },
    /// A quorum has the marker.
    Established { epoch: Epoch },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Learner {
    peer: PeerId,
    voter: bool,
    /// The feature levels that its build knows, once it has said so.
    levels: Option<Levels>,
    stage: Stage,
    heard: Time,
    /// The last entry that was sent.
    sent: Zxid,
    /// The last entry that is durable there.
    acked: Zxid,
    /// The last round that it answered.
    round: u64,
    /// Its barriers that wait for a round.
    barriers: usize,
    /// How much room its disks have, as it says.
    disk: Room,
    /// What it was last told of the room that there is for all.
    room_told: Room,
    /// It has lost data, and with it perhaps a promise to a newer leader. It is not synchronised until a round of pings
    /// from this one on has shown that no quorum follows anybody else.
    doubted_until: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Connected.
    New,
    /// Has told its accepted epoch.
    Known { accepted: Epoch },
    /// Was told the epoch.
    Asked,
    /// Has promised the epoch; synchronisation can begin. Whatever it forwarded over an older connection stands in our
    /// log up to `log_end`, or nowhere.
    Promised { history: History, log_end: Zxid },
    /// Gets what it lacks: what stands behind `from`.
    Syncing { from: Zxid, target: Zxid },
    /// Has acknowledged the end of its synchronisation.
    Synced,
}

/// Something that is true only while this server leads, and is told once a quorum has confirmed that.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Proof {
    /// The first round that started after it was asked.
    round: u64,
    of: Claim,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Claim {
    /// So much was committed when the barrier was asked.
    Barrier {
        /// The learner that asked; `None` for the leader's own store.
        conn: Option<Conn>,
        ticket: Ticket,
        zxid: Zxid,
    },
    /// The leader's store has counted signs of life.
    Confirm { to: PeerId, report: Bytes },
}

impl Leading {
    fn new(now: Time) -> Leading {
        Leading {
            phase: Phase::Discovery,
            since: now,
            learners: BTreeMap::new(),
            promised: BTreeSet::new(),
            fresh: BTreeSet::new(),
            contradicting: BTreeSet::new(),
            damaged: BTreeSet::new(),
            emptied: BTreeSet::new(),
            heard: BTreeMap::new(),
            clocks: BTreeMap::new(),
            round: 0,
            next_ping: now,
            round_wanted: false,
            proofs: VecDeque::new(),
            commit_told: Zxid::ZERO,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            raise: None,
        }
    }

    pub(crate) fn established(&self) -> bool {
        matches!(self.phase, Phase::Established { .. })
    }

    pub(crate) fn conns(&self) -> impl Iterator<Item = Conn> + '_ {
        self.learners.keys().copied()
    }

    /// False if the connection was not known.
    pub(crate) fn remove(&mut self, conn: Conn) -> bool {
        self.proofs.retain(|p| !matches!(p.of, Claim::Barrier { conn: Some(c), .. } if c == conn));
        let Some(learner) = self.learners.remove(&conn) else { return false };
        if matches!(self.phase, Phase::Promising { .. }) {
            // It may come back and say that it was told meanwhile that its promises are worth nothing.
            self.promised.remove(&learner.peer);
            self.fresh.remove(&learner.peer);
        }
        true
    }

    pub(crate) fn next_timeout(&self, config: &Config) -> Time {
        match self.phase {
            Phase::Established { .. } => self.next_ping,
            _ => self.next_ping.min(self.since + config.init_limit),
        }
    }

    pub(crate) fn note_outstanding(&mut self, zxid: Zxid, bytes: usize) {
        self.outstanding.push_back((zxid, bytes));
        self.outstanding_bytes += bytes;
    }

    /// The log is still needed behind this by a learner that is being synchronised, if there is one.
    pub(crate) fn needed(&self) -> Option<Zxid> {
        let from = |l: &Learner| if let Stage::Syncing { from, .. } = l.stage { Some(from) } else { None };
        self.learners.values().filter_map(from).min()
    }

    fn settle_outstanding(&mut self, committed: Zxid) {
        while let Some(&(zxid, bytes)) = self.outstanding.front()
            && zxid <= committed
        {
            self.outstanding.pop_front();
            self.outstanding_bytes -= bytes;
        }
    }

    /// How far the best of those has come that could lead in place of this server; `None` if there is none.
    pub(crate) fn successor(&self, ensemble: &Ensemble) -> Option<Zxid> {
        let able = |l: &&Learner| l.stage == Stage::Synced && ensemble.weight(l.peer) > 0;
        self.learners.values().filter(able).map(|l| l.acked).max()
    }

    /// The servers that have got as far as `stage` says, this one included.
    fn peers(&self, me: PeerId, stage: impl Fn(&Learner) -> bool) -> BTreeSet<PeerId> {
        self.learners.values().filter(|l| stage(l)).map(|l| l.peer).chain([me]).collect()
    }
}

impl Zab {
    pub(crate) fn become_leader(&mut self) {
        self.role = Role::Leading(Box::new(Leading::new(self.now.mono)));
        let early = std::mem::take(&mut self.early);
        for (&conn, early) in &early {
            self.add_learner(conn, early.peer);
        }
        for (conn, (accepted, levels)) in early.into_iter().filter_map(|(conn, e)| Some((conn, e.said?))) {
            self.note_learner_info(conn, accepted, levels);
        }
        // Only now, so that the epoch is above what each of them has promised.
        self.propose_epoch();
    }

    pub(crate) fn add_learner(&mut self, conn: Conn, peer: PeerId) {
        let voter = self.config.ensemble.is_voter(peer);
        let now = self.now.mono;
        let Role::Leading(leading) = &mut self.role else { return };
        // Everything that came over an older connection of this peer is in the log by now and nothing more will be
        // taken from it: the peer relies on this when it decides which of its writes to send again.
        let older: Vec<Conn> =
            leading.learners.iter().filter(|(_, l)| l.peer == peer).map(|(&c, _)| c).collect();
        for conn in older {
            leading.remove(conn);
            self.out.push_back(Output::Disconnect { conn, why: "replaced by a newer connection" });
        }
        let (stage, sent, acked) = (Stage::New, Zxid::ZERO, Zxid::ZERO);
        leading.learners.insert(
            conn,
            Learner {
                peer,
                voter,
                levels: None,
                stage,
                heard: now,
                sent,
                acked,
                round: 0,
                barriers: 0,
                disk: Room::Ample,
                room_told: Room::Ample,
                doubted_until: None,
            },
        );
    }

    pub(crate) fn leader_on_message(&mut self, conn: Conn, message: ToLeader) {
        let now = self.now.mono;
        let orders = self.orders();
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        learner.heard = now;
        leading.heard.insert(learner.peer, now);
        let peer = learner.peer;
        let requests = matches!(
            message,
            ToLeader::Forward(_) | ToLeader::Barrier { .. } | ToLeader::Report(_) | ToLeader::SetLevel { .. }
        );
        if requests && (learner.stage != Stage::Synced || !matches!(leading.phase, Phase::Established { .. }))
        {
            self.drop_learner(conn, "requests before synchronisation");
            return;
        }
        match message {
            ToLeader::LearnerInfo { accepted_epoch, levels } => {
                self.on_learner_info(conn, accepted_epoch, levels);
            }
            ToLeader::AckEpoch {
                epoch,
                current_epoch,
                history,
                counts,
                damage,
                last_stamp,
                ensemble,
                committed,
                wall_ms,
            } => {
                leading.clocks.insert(peer, wall_ms.saturating_sub(millis(now)));
                let candidate = Candidate { epoch: current_epoch, zxid: history.last() };
                let promise = Promise { history, candidate, counts, damage, ensemble, committed };
                if self.on_ack_epoch(conn, epoch, promise) {
                    self.last_stamp = self.last_stamp.max(last_stamp);
                }
            }
            ToLeader::Ack(zxid) => self.on_ack(conn, zxid),
            // Whoever sent it looks for it in the log of the next leader, and sends it again.
            ToLeader::Forward(_) if !orders => {}
            ToLeader::Forward(submissions) => {
                for s in submissions {
                    let Role::Leading(leading) = &mut self.role else { return };
                    if leading.outstanding.len() >= self.config.requests_max * 2
                        || leading.outstanding_bytes >= self.config.request_bytes_max * 2
                    {
                        let message = ToLearner::Refused { ticket: s.ticket, why: Refusal::Full };
                        self.out.push_back(Output::ToLearner { conn, message });
                    } else {
                        self.order(Origin { peer, ticket: s.ticket }, s.payload, s.trace);
                    }
                }
            }
            ToLeader::Pong { round, .. } if round > leading.round => {
                self.drop_learner(conn, "an answer to a ping that was never sent");
            }
            ToLeader::Pong { round, wall_ms } => {
                leading.clocks.insert(peer, wall_ms.saturating_sub(millis(now)));
                // A sign of progress, which ends with what there is to send. So a leader waits for the one that it needs
                // however long that takes, and does not begin from the start again and again.
                if round == 0 && learner.voter && matches!(learner.stage, Stage::Syncing { .. }) {
                    leading.since = now;
                }
                learner.round = learner.round.max(round);
                self.end_doubts();
                self.tell_proven();
            }
            ToLeader::Barrier { .. } if learner.barriers >= self.config.requests_max => {
                self.drop_learner(conn, "more barriers than a learner may ask for");
            }
            ToLeader::Barrier { ticket } => {
                learner.barriers += 1;
                self.leader_barrier(Some(conn), ticket);
            }
            ToLeader::Report(report) => {
                self.out.push_back(Output::Sign(Sign::Report { from: peer, report }));
            }
            ToLeader::Disk(room) => learner.disk = room,
            ToLeader::SetLevel { ticket, expected, level } => {
                self.leader_set_level(Some(conn), ticket, expected, level);
            }
        }
    }

    fn drop_learner(&mut self, conn: Conn, why: &'static str) {
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.remove(conn) {
            self.out.push_back(Output::Disconnect { conn, why });
        }
    }

    // ---- synchronisation ----

    /// Tells a learner where its log parts from ours, and sends what is behind that point; nothing if it is too early.
    fn begin_sync(&mut self, conn: Conn) {
        let Role::Leading(leading) = &mut self.role else { return };
        let established = leading.established();
        let (Phase::Synchronising { epoch, .. } | Phase::Established { epoch }) = leading.phase else {
            return;
        };
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        // An observer gets only what is committed, and nothing is before the epoch is established.
        let target = if learner.voter { self.history.last() } else { self.committed };
        let Stage::Promised { history, log_end } = &learner.stage else { return };
        if learner.doubted_until.is_some() && !is_on(Mutant::WipedDiskTrusted) {
            return;
        }
        // At the end of its synchronisation a learner sends again what it does not find in its log. So an observer's
        // does not end before what it forwarded earlier is committed.
        if !learner.voter && (!established || self.committed < *log_end) {
            return;
        }
        let common = self.history.common_with(history).filter(|&c| c <= target);
        let snapshot = self.snapshot.filter(|&s| self.history.contains(s) && s <= target);
        let (sent, how) = match (common, snapshot) {
            // By cost: the entries would be much more than the state that they lead to.
            (Some(common), Some(zxid)) if common < self.snap_before && common < zxid => {
                (zxid, Output::SendSnapshot { conn, zxid })
            }
            (Some(after), _) if after == history.last() => {
                (after, Output::ToLearner { conn, message: ToLearner::Diff { after } })
            }
            (Some(_), _) if is_on(Mutant::DiffForTrunc) => {
                let after = history.last();
                (after, Output::ToLearner { conn, message: ToLearner::Diff { after } })
            }
            (Some(to), _) => (to, Output::ToLearner { conn, message: ToLearner::Trunc { to } }),
            (None, Some(zxid)) => (zxid, Output::SendSnapshot { conn, zxid }),
            (None, None) => {
                self.out.push_back(Output::Tell(FeedItem::SnapshotWanted));
                self.drop_learner(conn, "the learner's snapshot is not part of the leader's log");
                return;
            }
        };
        learner.stage = Stage::Syncing { from: sent, target };
        learner.sent = sent;
        self.out.push_back(how);
        self.replicate(conn);
        let message = ToLearner::NewLeader { epoch, target, last_stamp: self.last_stamp };
        self.out.push_back(Output::ToLearner { conn, message });
    }

    /// Sends what a learner has not got yet.
    fn replicate(&mut self, conn: Conn) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        let upto = if learner.voter { self.history.last() } else { self.committed };
        if matches!(learner.stage, Stage::Syncing { .. } | Stage::Synced) && learner.sent < upto {
            self.out.push_back(Output::Replicate { conn, after: learner.sent, upto });
            learner.sent = upto;
        }
    }

    fn on_ack(&mut self, conn: Conn, zxid: Zxid) {
        let Role::Leading(leading) = &mut self.role else { return };
        let established = leading.established();
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        if zxid > learner.sent {
            self.drop_learner(conn, "an ack for what was never sent");
            return;
        }
        learner.acked = learner.acked.max(zxid);
        match learner.stage {
            Stage::Syncing { target, .. } if zxid >= target => {
                learner.stage = Stage::Synced;
                if established {
                    let commit = self.committed;
                    self.out.push_back(Output::ToLearner { conn, message: ToLearner::UpToDate { commit } });
                    self.advance_commit();
                } else {
                    self.try_establish();
                }
            }
            Stage::Synced => self.advance_commit(),
            Stage::Syncing { .. } => {}
            Stage::New | Stage::Known { .. } | Stage::Asked | Stage::Promised { .. } => {
                self.drop_learner(conn, "an ack before synchronisation");
            }
        }
    }

    /// Whoever has lost its data may have promised a newer epoch before, to a leader that a quorum with it follows: then
    /// its ack would commit something in two reigns. Once so many others have answered a ping that was sent after it came
    /// back that no quorum is left without one of them, there is no such reign, and it may be synchronised.
    fn end_doubts(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(since) = leading.learners.values().filter_map(|l| l.doubted_until).max() else { return };
        let follows =
            |l: &Learner| matches!(l.stage, Stage::Syncing { .. } | Stage::Synced) && l.round >= since;
        let ours = leading.peers(self.config.me, follows);
        let others = self.config.ensemble.voters().filter(|v| !ours.contains(v)).collect();
        if self.config.ensemble.is_quorum(&others) {
            return;
        }
        leading.learners.values_mut().for_each(|l| l.doubted_until = None);
    }

    /// With the marker durable on a quorum, this one included, everything up to it is committed: serve (S16).
    fn try_establish(&mut self) {
        let me = self.config.me;
        let Role::Leading(leading) = &mut self.role else { return };
        let Phase::Synchronising { epoch, durable: true } = leading.phase else { return };
        let synced = leading.peers(me, |l| l.stage == Stage::Synced);
        let quorum = self.config.ensemble.is_quorum(&synced) || is_on(Mutant::UpToDateBeforeQuorum);
        if self.durable < Zxid::marker(epoch) || !quorum {
            return;
        }
        leading.phase = Phase::Established { epoch };
        leading.commit_told = Zxid::marker(epoch);
        let conns: Vec<Conn> = leading.conns().collect();
        self.committed = Zxid::marker(epoch);
        self.out.push_back(Output::Settled { leader: me, epoch });
        for conn in conns {
            let Role::Leading(leading) = &mut self.role else { return };
            if leading.learners.get(&conn).is_some_and(|l| l.stage == Stage::Synced) {
                let message = ToLearner::UpToDate { commit: self.committed };
                self.out.push_back(Output::ToLearner { conn, message });
            }
        }
        self.resume_requests();
    }

    // ---- broadcast ----

    pub(crate) fn leader_on_durable(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        if leading.established() {
            self.advance_commit();
        } else {
            self.try_establish();
        }
    }

    /// What a quorum has on disk is committed, and with it everything before (S19, S20). Only entries of this epoch are
    /// counted: those of older ones are committed with the marker.
    fn advance_commit(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Phase::Established { .. } = leading.phase else { return };
        let acks = leading.learners.values().filter(|l| l.stage == Stage::Synced).map(|l| (l.peer, l.acked));
        let mine = if is_on(Mutant::LeaderCountsUnsynced) { self.history.last() } else { self.durable };
        let reached = self.config.ensemble.quorum_value(acks.chain([(self.config.me, mine)]));
        if let Some(zxid) = reached.filter(|&z| z > self.committed) {
            assert!(zxid <= self.history.last(), "committed what is not in the log");
            self.committed = zxid;
        }
        self.tell_raised();
        let Role::Leading(leading) = &mut self.role else { return };
        // What is committed by others and waits for the disk here still takes memory here.
        leading.settle_outstanding(self.committed.min(self.durable));
    }

    /// What may be ordered: nothing that would fill the disk of this server, or the disks of so many that those with room
    /// are no quorum.
    pub(crate) fn leader_room(&self) -> Room {
        let me = self.config.me;
        let Role::Leading(leading) = &self.role else { return Room::Ample };
        let quorum_with = |least: Room| {
            let able = |l: &Learner| l.stage == Stage::Synced && l.disk <= least;
            self.config.ensemble.is_quorum(&leading.peers(me, able))
        };
        // Who is away decides nothing: without a quorum nothing is ordered anyway.
        let of_quorum = match quorum_with(Room::Short) {
            true if !quorum_with(Room::Low) => Room::Short,
            true if !quorum_with(Room::Ample) => Room::Low,
            _ => Room::Ample,
        };
        of_quorum.max(self.disk)
    }

    pub(crate) fn leader_flush(&mut self) {
        let room = self.leader_room();
        let Role::Leading(leading) = &mut self.role else { return };
        let conns: Vec<Conn> = leading.conns().collect();
        let commit =
            (self.committed > leading.commit_told && leading.established()).then_some(self.committed);
        leading.commit_told = commit.unwrap_or(leading.commit_told);
        let ping = std::mem::take(&mut leading.round_wanted);
        if ping {
            leading.round += 1;
        }
        let round = leading.round;
        let clocks = ping.then(|| self.quorum_clocks()).flatten();
        let quorum_ms = clocks.map_or(0, |(reached, _)| reached);
        if let Some((reached, latest)) = clocks {
            let wall_ms = self.now.wall_ms;
            self.clock_offset_ms = Some(wall_ms.saturating_sub(wall_ms.clamp(reached, latest)));
        }
        for conn in conns {
            self.begin_sync(conn);
            self.replicate(conn);
            let Role::Leading(leading) = &mut self.role else { return };
            let established = leading.established();
            let Some(learner) = leading.learners.get_mut(&conn) else { continue };
            let synced = learner.stage == Stage::Synced;
            if synced && established && learner.room_told != room {
                learner.room_told = room;
                self.out.push_back(Output::ToLearner { conn, message: ToLearner::Room(room) });
            }
            if let (Some(commit), true) = (commit, synced) {
                self.out.push_back(Output::ToLearner { conn, message: ToLearner::Commit(commit) });
            }
            if ping && matches!(learner.stage, Stage::Syncing { .. } | Stage::Synced) {
                self.out.push_back(Output::ToLearner { conn, message: ToLearner::Ping { round, quorum_ms } });
            }
        }
        if ping {
            self.tell_proven();
        }
    }

    pub(crate) fn leader_on_time(&mut self) {
        let now = self.now.mono;
        let me = self.config.me;
        let Role::Leading(leading) = &mut self.role else { return };
        if !leading.established() && now >= leading.since + self.config.init_limit {
            let lost = [&leading.fresh, &leading.damaged, &leading.emptied];
            let why = if lost.into_iter().any(|peers| !peers.is_empty()) {
                "no quorum within the init limit: a server without data, or with a damaged log, cannot vouch for the \
                 others; start one that has been a member before"
            } else {
                "no quorum within the init limit; see that enough members run and reach this one, and raise \
                 timing.init_limit if they need longer"
            };
            self.look(why);
            return;
        }
        if now < leading.next_ping {
            return;
        }
        leading.next_ping = now + self.config.ping_interval;
        leading.round_wanted = true;
        // S18: a silent learner is dropped, and only that one.
        let limit = |l: &Learner| match l.stage {
            Stage::Synced => self.config.sync_limit,
            _ => self.config.init_limit,
        };
        let silent: Vec<Conn> =
            leading.learners.iter().filter(|(_, l)| now.since(l.heard) > limit(l)).map(|(&c, _)| c).collect();
        // S6: a leader that has lost its quorum leaves LEADING.
        if leading.established() {
            let fresh = leading
                .heard
                .iter()
                .filter(|(_, t)| now.since(**t) <= self.config.sync_limit)
                .map(|(&p, _)| p);
            if !self.config.ensemble.is_quorum(&fresh.chain([me]).collect()) && !is_on(Mutant::NoStepDown) {
                self.look("lost the quorum");
                return;
            }
        }
        silent.into_iter().for_each(|conn| self.drop_learner(conn, "silent for longer than the limit"));
    }

    /// What the wall clocks of voters say: the latest time that a quorum has reached, and the earliest that a quorum has not
    /// passed, which is not before it. `None` while those of no quorum are known.
    pub(crate) fn quorum_clocks(&self) -> Option<(i64, i64)> {
        let Role::Leading(leading) = &self.role else { return None };
        let mono = millis(self.now.mono);
        let others = leading.clocks.iter().map(|(&peer, since)| (peer, since.saturating_add(mono)));
        let clocks: Vec<_> = others.chain([(self.config.me, self.now.wall_ms)]).collect();
        let reached = self.config.ensemble.quorum_value(clocks.iter().copied())?;
        let passed =
            self.config.ensemble.quorum_value(clocks.iter().map(|&(peer, ms)| (peer, Reverse(ms))))?;
        Some((reached.min(passed.0), passed.0.max(reached)))
    }

    // ---- the feature level ----

    /// Raises the feature level, if every member is here and knows it: one that is away may run anything.
    pub(crate) fn leader_set_level(
        &mut self,
        conn: Option<Conn>,
        ticket: Ticket,
        expected: Level,
        level: Level,
    ) {
        let result = match self.refuse_level(expected, level) {
            Err(refusal) => Err(refusal),
            // As it was asked for before.
            Ok(()) if self.levels.last() == Some(level) => Ok(level),
            Ok(()) => {
                let Some(zxid) = self.next_place() else { return };
                let time_ms = self.stamp();
                let Role::Leading(leading) = &mut self.role else { return };
                leading.raise = Some(Raise { zxid, level, conn, ticket });
                let body = Body::Level(level);
                return self.push_entry(Entry { zxid, time_ms, origin: None, body, trace: None });
            }
        };
        self.tell_level(conn, ticket, result);
    }

    fn refuse_level(&self, expected: Level, level: Level) -> Result<(), LevelRefusal> {
        let Role::Leading(leading) = &self.role else { return Ok(()) };
        let refuse = |why: String| Err(LevelRefusal::Refused(why));
        if leading.raise.is_some() || !self.orders() {
            let why = "a change of the feature level, or of the leader, is under way; ask again";
            return Err(LevelRefusal::Unavailable(why.into()));
        }
        let now = self.levels.last();
        if now == Some(level) {
            return Ok(());
        }
        if now != Some(expected) {
            let now = Level::number(now);
            return refuse(format!(
                "the ensemble is at feature level {now}, not {expected}: look at it again"
            ));
        }
        if level < expected {
            return refuse(format!("the feature level cannot go back from {expected} to {level}"));
        }
        let known = |peer: PeerId| match peer == self.config.me {
            true => Some(self.config.levels),
            false => {
                let here = |l: &&Learner| l.peer == peer && l.stage == Stage::Synced;
                leading.learners.values().find(here).and_then(|l| l.levels)
            }
        };
        let unable = |(peer, _)| match known(peer) {
            Some(levels) if levels.contains(level) => None,
            Some(levels) => Some(format!("member {peer} knows level {levels}")),
            None => Some(format!("member {peer} is not here, and may run anything")),
        };
        let unable: Vec<String> = self.config.ensemble.members().filter_map(unable).collect();
        if unable.is_empty() || is_on(Mutant::RaisedUnasked) {
            return Ok(());
        }
        refuse(format!(
            "not every member is known to be able to do feature level {level}: {}. Start a version that knows it on each, and \
             ask again",
            unable.join("; ")
        ))
    }

    /// Answers whoever has asked for the level that is committed now.
    fn tell_raised(&mut self) {
        let committed = self.committed;
        let Role::Leading(leading) = &mut self.role else { return };
        if let Some(Raise { level, conn, ticket, .. }) =
            leading.raise.take_if(|raise| raise.zxid <= committed)
        {
            self.tell_level(conn, ticket, Ok(level));
        }
    }

    fn tell_level(&mut self, conn: Option<Conn>, ticket: Ticket, result: Result<Level, LevelRefusal>) {
        let Role::Leading(leading) = &self.role else { return };
        match conn {
            None => self.level_set(ticket, result),
            Some(conn) if leading.learners.contains_key(&conn) => {
                let message = ToLearner::LevelSet { ticket, result };
                self.out.push_back(Output::ToLearner { conn, message });
            }
            // It has told its asker that it lost its leader.
            Some(_) => {}
        }
    }

    /// The level of the epoch that begins: that of the log. A new ensemble begins at the greatest that this server knows and those
    /// who are here.
    fn first_level(&self) -> Level {
        let Role::Leading(leading) = &self.role else { return self.config.levels.max() };
        let known = leading.learners.values().filter_map(|l| l.levels);
        let greatest = known.fold(self.config.levels.max(), |least, levels| least.min(levels.max()));
        self.levels.last().unwrap_or(greatest)
    }

    // ---- barriers ----

    /// Notes a barrier: what is committed now is told to the asker once a quorum has confirmed, in a round of pings that
    /// starts after this moment, that this is still the leader (ZooKeeper's `sync` lacks that round, and so can be
    /// answered by a deposed leader: ZOOKEEPER-1675, -2136).
    pub(crate) fn leader_barrier(&mut self, conn: Option<Conn>, ticket: Ticket) {
        let zxid = self.committed;
        let Role::Leading(leading) = &mut self.role else { return };
        if !leading.established() {
            return;
        }
        let round = if is_on(Mutant::BarrierWithoutRound) { 0 } else { leading.round + 1 };
        leading.round_wanted = true;
        leading.proofs.push_back(Proof { round, of: Claim::Barrier { conn, ticket, zxid } });
    }

    /// Passes the answer of this server's store to a report on, once a quorum has confirmed that this is still the leader:
    /// the next one gives every session its full time-out from later on, but from an older one it would be a false promise.
    pub(crate) fn leader_confirm(&mut self, to: PeerId, report: Bytes) {
        let max = 2 * self.config.requests_max;
        let Role::Leading(leading) = &mut self.role else { return };
        // A report that is not confirmed is sent again.
        if !leading.established() || leading.proofs.len() >= max {
            return;
        }
        leading.round_wanted = true;
        let (round, of) = (leading.round + 1, Claim::Confirm { to, report });
        if is_on(Mutant::ConfirmedWithoutRound) {
            self.tell_claim(of);
        } else {
            leading.proofs.push_back(Proof { round, of });
        }
    }

    fn tell_proven(&mut self) {
        let me = self.config.me;
        loop {
            let Role::Leading(leading) = &mut self.role else { return };
            let Some(proof) = leading.proofs.front() else { return };
            let answered = leading.peers(me, |l| l.stage == Stage::Synced && l.round >= proof.round);
            if leading.round < proof.round || !self.config.ensemble.is_quorum(&answered) {
                return;
            }
            let Some(Proof { of, .. }) = leading.proofs.pop_front() else { return };
            self.tell_claim(of);
        }
    }

    fn tell_claim(&mut self, claim: Claim) {
        let me = self.config.me;
        let Role::Leading(leading) = &mut self.role else { return };
        match claim {
            Claim::Barrier { conn: None, ticket, zxid } => self.answer_barrier(ticket, zxid),
            Claim::Barrier { conn: Some(conn), ticket, zxid } => {
                if let Some(learner) = leading.learners.get_mut(&conn) {
                    learner.barriers -= 1;
                    let message = ToLearner::Barrier { ticket, zxid };
                    self.out.push_back(Output::ToLearner { conn, message });
                }
            }
            Claim::Confirm { to, report } if to == me => {
                self.out.push_back(Output::Sign(Sign::Confirmed(report)));
            }
            Claim::Confirm { to, report } => {
                let serves = |(_, l): &(&Conn, &Learner)| l.peer == to && l.stage == Stage::Synced;
                if let Some((&conn, _)) = leading.learners.iter().find(serves) {
                    self.out.push_back(Output::ToLearner { conn, message: ToLearner::Confirm(report) });
                }
            }
        }
    }
}

fn millis(time: Time) -> i64 {
    i64::try_from(time.0 / 1000).unwrap_or(i64::MAX)
}
