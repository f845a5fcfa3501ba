//! LEADING: [discovery], [synchronisation] of a quorum, then [broadcast].

mod broadcast;
mod discovery;
mod level;
mod proof;
mod synchronisation;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use api::mutants::{Mutant, is_on};
use api::{
    Ensemble, Epoch, History, Level, Levels, Origin, PeerId, Ticket, Time, Zxid,
    ports::{Candidate, Refusal, Room, Sign},
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
    /// Writes that are not committed yet: the bound of what learners may have under way.
    outstanding: VecDeque<Outstanding>,
    outstanding_bytes: usize,
    /// The change of the feature level that is not committed yet.
    raise: Option<Raise>,
}

/// A write that is not committed, or not durable here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Outstanding {
    zxid: Zxid,
    bytes: usize,
    /// The server whose store submitted it.
    from: PeerId,
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
    /// What it was last told about the commit point.
    commit_told: Zxid,
    /// When it has to be told more, unless a proposal takes it along before.
    commit_due: Option<Time>,
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

    /// The log is still needed behind this by a learner that is being synchronised, if there is one.
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
            // The server that sent it looks for it in the log of the next leader, and sends it again.
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
}

fn millis(time: Time) -> i64 {
    i64::try_from(time.0 / 1000).unwrap_or(i64::MAX)
}
