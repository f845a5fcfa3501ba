//! LEADING: [discovery], [synchronisation] of a quorum, then [broadcast].

mod broadcast;
mod discovery;
mod level;
mod members;
mod proof;
mod synchronisation;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use api::mutants::{Mutant, is_on};
use api::{
    Epoch, History, Level, Levels, Origin, PeerId, Roster, Ticket, Time, Zxid,
    ports::{Candidate, Refusal, Room, Sign},
};
use bytes::Bytes;

use crate::{
    Config, Conn, Output, ToLeader, ToLearner,
    leader::{
        discovery::Promise,
        members::{Asked, CommitMark},
    },
    zab::{Role, Zab},
};

/// The state of a leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leading {
    phase: Phase,
    /// Start of the leadership, or the last sign of progress from a voter that synchronises.
    since: Time,
    learners: BTreeMap<Conn, Learner>,
    /// Servers that promised the epoch to this leader. In phase `Promising` only those whose connection
    /// still exists.
    promised: BTreeSet<PeerId>,
    /// Servers whose promise proves little: they never synchronised with a leader, or lost all their
    /// data.
    fresh: BTreeSet<PeerId>,
    /// Servers with a committed entry that is not in this server's log.
    contradicting: BTreeSet<PeerId>,
    /// Servers that know of a loss: `damaged` ones have some data left, `emptied` ones have none.
    damaged: BTreeSet<PeerId>,
    emptied: BTreeSet<PeerId>,
    /// Time of the last message of each server, on any connection. A leader steps down if the recently
    /// heard servers are no quorum.
    heard: BTreeMap<PeerId, Time>,
    /// The wall clocks of voters, as differences from this server's monotonic clock, in milliseconds.
    clocks: BTreeMap<PeerId, i64>,
    /// Number of the last round of pings. A quorum of pongs proves that this server still led when the
    /// round began.
    round: u64,
    next_ping: Time,
    /// A round starts at the end of this turn, because a barrier or a confirmation needs it.
    round_wanted: bool,
    /// Statements that wait for a round of pings, in the order of their rounds.
    proofs: VecDeque<Proof>,
    /// Writes that are not committed, or not durable here. They bound the uncommitted writes of
    /// learners.
    outstanding: VecDeque<Outstanding>,
    outstanding_bytes: usize,
    /// The uncommitted change of the feature level.
    raise: Option<Raise>,
    /// The unfinished change of the members, if this leader was asked for it.
    asked: Option<Asked>,
    /// A change of the members may have a next step. In other times no ack has to look.
    changing: bool,
    /// A change is carried out after which this server has no vote. It hands over as if it was about to stop.
    retired: bool,
    /// The commit points of the last second, and the last one before that.
    commit_marks: VecDeque<CommitMark>,
}

/// A write that is not committed, or not durable on this server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Outstanding {
    zxid: Zxid,
    bytes: usize,
    /// The server whose store submitted it.
    from: PeerId,
}

/// An uncommitted change of the feature level, with its position in the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Raise {
    zxid: Zxid,
    level: Level,
    /// The learner that requested it; `None` for this server.
    conn: Option<Conn>,
    ticket: Ticket,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Waiting for a quorum of accepted epochs.
    Discovery,
    /// The new epoch is proposed once it is durable here. A quorum has to promise it.
    Promising { epoch: Epoch, durable: bool },
    /// A quorum has promised. The marker is in the log and has to reach a quorum. `durable`: the
    /// current epoch is durable here.
    Synchronising { epoch: Epoch, durable: bool },
    /// A quorum has the marker.
    Established { epoch: Epoch },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Learner {
    peer: PeerId,
    voter: bool,
    /// The feature levels that its build knows; `None` before LEARNERINFO.
    levels: Option<Levels>,
    stage: Stage,
    heard: Time,
    /// The last entry sent to the learner.
    sent: Zxid,
    /// The last entry that is durable on the learner.
    acked: Zxid,
    /// The last commit point sent to the learner.
    commit_told: Zxid,
    /// Deadline for the next commit message, unless a proposal carries the commit before.
    commit_due: Option<Time>,
    /// The last round that the learner answered.
    round: u64,
    /// Its barriers that wait for a round.
    barriers: usize,
    /// Free space on its disks, as it reports.
    disk: Room,
    /// The last room for client requests sent to the learner.
    room_told: Room,
    /// The learner has lost data, and perhaps a promise to a newer leader with it. The leader does not
    /// synchronise it before this round of pings, or a later one, proves that no quorum follows another
    /// leader.
    doubted_until: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Connected.
    New,
    /// The leader knows its accepted epoch.
    Known { accepted: Epoch },
    /// The leader has sent it the epoch.
    Asked,
    /// The learner has promised the epoch; synchronisation can begin. Its writes from older connections
    /// are in our log up to `log_end`, or nowhere.
    Promised { history: History, log_end: Zxid },
    /// The learner receives the entries behind `from`.
    Syncing { from: Zxid, target: Zxid },
    /// The learner has acknowledged the end of its synchronisation.
    Synced,
}

/// A statement that holds only while this server leads. It leaves once a quorum has confirmed the
/// leadership.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Proof {
    /// The first round that starts after the request.
    round: u64,
    of: Claim,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Claim {
    /// The commit point at the time of the barrier.
    Barrier {
        /// The learner that requested it; `None` for the leader's own store.
        conn: Option<Conn>,
        ticket: Ticket,
        zxid: Zxid,
    },
    /// The leader's store has counted the signs of life in a report.
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
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            raise: None,
            asked: None,
            changing: true,
            retired: false,
            commit_marks: VecDeque::new(),
        }
    }

    pub(crate) fn retired(&self) -> bool {
        self.retired
    }

    pub(crate) fn established(&self) -> bool {
        matches!(self.phase, Phase::Established { .. })
    }

    pub(crate) fn conns(&self) -> impl Iterator<Item = Conn> + '_ {
        self.learners.keys().copied()
    }

    /// Returns false for an unknown connection.
    pub(crate) fn remove(&mut self, conn: Conn) -> bool {
        self.proofs.retain(|p| !matches!(p.of, Claim::Barrier { conn: Some(c), .. } if c == conn));
        let Some(learner) = self.learners.remove(&conn) else { return false };
        if matches!(self.phase, Phase::Promising { .. }) {
            // The server may come back after it learned that its promises are worth nothing.
            self.promised.remove(&learner.peer);
            self.fresh.remove(&learner.peer);
        }
        true
    }

    pub(crate) fn next_timeout(&self, config: &Config) -> Time {
        match self.phase {
            Phase::Established { .. } => {
                self.learners.values().filter_map(|l| l.commit_due).fold(self.next_ping, Time::min)
            }
            _ => self.next_ping.min(self.since + config.init_limit),
        }
    }

    pub(crate) fn note_outstanding(&mut self, zxid: Zxid, from: PeerId, bytes: usize) {
        self.outstanding.push_back(Outstanding { zxid, bytes, from });
        self.outstanding_bytes += bytes;
    }

    /// Learners that synchronise still need the log behind this zxid; `None` if there are none.
    pub(crate) fn needed(&self) -> Option<Zxid> {
        let from = |l: &Learner| if let Stage::Syncing { from, .. } = l.stage { Some(from) } else { None };
        self.learners.values().filter_map(from).min()
    }

    fn settle_outstanding(&mut self, committed: Zxid) {
        while let Some(&Outstanding { zxid, bytes, .. }) = self.outstanding.front()
            && zxid <= committed
        {
            self.outstanding.pop_front();
            self.outstanding_bytes -= bytes;
        }
    }

    /// The greatest acknowledged zxid among the servers that could lead in place of this one; `None` if
    /// there are none.
    pub(crate) fn successor(&self, roster: &Roster) -> Option<Zxid> {
        let able = |l: &&Learner| l.stage == Stage::Synced && roster.can_lead(l.peer);
        self.learners.values().filter(able).map(|l| l.acked).max()
    }

    /// The servers whose learner satisfies `stage`, and this server.
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
        // Only after all of them are known, so that the epoch is above all their promises.
        self.propose_epoch();
    }

    pub(crate) fn add_learner(&mut self, conn: Conn, peer: PeerId) {
        let voter = self.roster().is_voter(peer);
        let now = self.now.mono;
        let Role::Leading(leading) = &mut self.role else { return };
        // All writes from an older connection of this peer are in the log, and the leader takes no more
        // from it. The peer relies on this when it decides which writes to send again.
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
                commit_told: Zxid::ZERO,
                commit_due: None,
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
            ToLeader::Forward(_)
                | ToLeader::Barrier { .. }
                | ToLeader::Report(_)
                | ToLeader::SetLevel { .. }
                | ToLeader::Reconfigure { .. }
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
            // The sender looks for the write in the log of the next leader, and sends it again.
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
                // A sign of progress. The learner sends these only while data arrives, so they end. The
                // leader therefore waits for a learner that it needs, however long the transfer takes,
                // and does not restart it again and again.
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
            ToLeader::Reconfigure { ticket, reconfig } => {
                self.leader_reconfigure(Some(conn), ticket, reconfig);
            }
        }
    }

    fn drop_learner(&mut self, conn: Conn, why: &'static str) {
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.remove(conn) {
            self.out.push_back(Output::Disconnect { conn, why });
        }
    }

    pub(crate) fn leader_flush(&mut self) {
        let room = self.leader_room();
        let Role::Leading(leading) = &mut self.role else { return };
        let conns: Vec<Conn> = leading.conns().collect();
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
            let syncing = matches!(learner.stage, Stage::Syncing { .. });
            self.tell_commit(conn, ping);
            if ping && (syncing || synced) {
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
        if leading.established() {
            leading.mark_commit(now, self.committed);
        }
        // S18: the leader drops a silent learner, and only that one.
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
            let fresh = fresh.chain([me]).collect();
            if !self.roster().is_quorum(&fresh) && !is_on(Mutant::NoStepDown) {
                self.look("lost the quorum");
                return;
            }
        }
        silent.into_iter().for_each(|conn| self.drop_learner(conn, "silent for longer than the limit"));
    }

    /// Bounds from the wall clocks of voters: the latest time that a quorum has reached, and the
    /// earliest time that a quorum has not passed. The second is not before the first. `None` while the
    /// clocks of no quorum are known.
    pub(crate) fn quorum_clocks(&self) -> Option<(i64, i64)> {
        let Role::Leading(leading) = &self.role else { return None };
        let mono = millis(self.now.mono);
        let others = leading.clocks.iter().map(|(&peer, since)| (peer, since.saturating_add(mono)));
        let clocks: Vec<_> = others.chain([(self.config.me, self.now.wall_ms)]).collect();
        let reached = self.roster().quorum_value(clocks.iter().copied())?;
        let passed = self.roster().quorum_value(clocks.iter().map(|&(peer, ms)| (peer, Reverse(ms))))?;
        Some((reached.min(passed.0), passed.0.max(reached)))
    }
}

fn millis(time: Time) -> i64 {
    i64::try_from(time.0 / 1000).unwrap_or(i64::MAX)
}
