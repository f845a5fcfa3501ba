//! What only the observer knows, and the invariants that it checks: names as in `docs/simulation.md`.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    Body, Command, CommandBody, Ensemble, Entry, Epoch, History, Levels, Membership, NodeKind, OpError,
    Origin, Path, PeerId, SessionId, Stat, StreamId, Ticket, WriteNumber, WriteResult, Zxid, record,
};
use proto::store::{decode_command, decode_record, encode_record};
use quorum_core::CLOCK_BOUND_MS;
use store_core::State;
use store_core::server::Committed;
use xxhash_rust::xxh3::xxh3_64;

use crate::plan::Plan;
use crate::watchers::Watchers;

/// So many commits between two times that the whole state is encoded and loaded.
const ENCODED_EVERY: usize = 64;

/// Of a node's disk, what is durable for certain.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shadow {
    pub(crate) history: History,
    pub(crate) accepted: Epoch,
    pub(crate) current: Epoch,
    /// It has lost what it promised to keep, by a fault that is allowed to do that, and was not given it back yet.
    pub(crate) impaired: bool,
    /// Something of it is damaged, and the process that runs on it may not know yet. So nothing gives it back.
    pub(crate) latent: bool,
    /// What it had acknowledged each time before it lost it, or before it began to put a snapshot in its place, and in
    /// which epoch. All of them: a leader that stood still may count an ack from before two losses.
    had: Vec<(History, Epoch)>,
}

impl Shadow {
    /// Whether an ack of this entry was true when it left.
    fn has_acknowledged(&self, zxid: Zxid) -> bool {
        let has = |history: &History, current: Epoch| {
            (history.contains(zxid) || history.base() >= zxid) && current >= zxid.epoch()
        };
        has(&self.history, self.current) || self.had.iter().any(|(h, current)| has(h, *current))
    }

    /// Something of it may be gone, by a fault that may do that.
    pub(crate) fn impair(&mut self) {
        self.had.push((self.history.clone(), self.current));
        self.impaired = true;
    }

    /// All of it is gone, by a fault that may do that.
    pub(crate) fn lose(&mut self) {
        self.impair();
        *self = Shadow { impaired: true, had: std::mem::take(&mut self.had), ..Shadow::default() };
    }

    /// It forgets its log, for the snapshot that it was given.
    pub(crate) fn reset(&mut self) {
        self.had.push((std::mem::take(&mut self.history), self.current));
    }
}

/// What a quorum is, counted from the members anew: the judge must not ask the accused.
#[derive(Debug)]
struct Quorums {
    /// Weight and group of each node; the groups that have any weight are numbered.
    votes: Vec<Option<(u64, usize)>>,
    /// The weight of each group.
    groups: Vec<u64>,
}

impl Quorums {
    fn of(ensemble: &Ensemble, nodes: usize) -> Quorums {
        let mut numbers = BTreeMap::new();
        let mut groups = Vec::new();
        let votes = (1..=nodes as u32)
            .map(|id| match ensemble.membership(PeerId(id))? {
                Membership::Voter { weight, group } if weight > 0 => {
                    let number = *numbers.entry(group).or_insert_with(|| {
                        groups.push(0);
                        groups.len() - 1
                    });
                    groups[number] += u64::from(weight);
                    Some((u64::from(weight), number))
                }
                _ => None,
            })
            .collect();
        Quorums { votes, groups }
    }

    /// More than half of the weight of more than half of the groups.
    fn has(&self, nodes: impl Fn(PeerId) -> bool) -> bool {
        let mut have = vec![0; self.groups.len()];
        for (id, vote) in (1..).zip(&self.votes) {
            if let Some((weight, group)) = vote
                && nodes(PeerId(id))
            {
                have[*group] += weight;
            }
        }
        let majorities = have.iter().zip(&self.groups).filter(|(have, all)| *have * 2 > **all).count();
        majorities * 2 > self.groups.len()
    }
}

/// An entry as it was first seen.
#[derive(Debug)]
struct Proposed {
    prev: Zxid,
    hash: u64,
    entry: Entry,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Ghost {
    ensemble: Ensemble,
    quorums: Quorums,
    pub(crate) disks: Vec<Shadow>,
    /// The feature levels that each node knows.
    pub(crate) builds: Vec<Levels>,
    proposed: BTreeMap<Zxid, Proposed>,
    /// Of all of them together.
    pub(crate) proposed_bytes: u64,
    /// C, the committed sequence: extended by whoever knows first.
    committed: Vec<Committed>,
    /// When the last of them was committed.
    committed_at: u64,
    /// How long a container may be there that never had a child; 0: for ever.
    container_unused_ms: u64,
    /// Znodes that went by themselves.
    pub(crate) reaped: u64,
    /// The state after each of them, as a digest.
    digests: Vec<u64>,
    /// Whose store has a bit in its memory that was flipped, and has not noticed it yet.
    pub(crate) flipped: BTreeSet<PeerId>,
    state: State,
    leaders: BTreeMap<Epoch, PeerId>,
    /// Who has ever promised an epoch to somebody.
    promised: BTreeMap<Epoch, BTreeSet<PeerId>>,
    origins: BTreeMap<Origin, Zxid>,
    refused: BTreeSet<Origin>,
    /// Open barriers, and what was committed when they were asked.
    barriers: BTreeMap<(PeerId, Ticket), Zxid>,
    /// Sessions that their clients believe in: connected or resumed, and neither suspended nor lost since.
    believed: BTreeSet<SessionId>,
    /// Sessions that were expired although their clients believed in them, and when each client has to know at the latest.
    mourned: BTreeMap<SessionId, u64>,
    /// Sessions that were expired: when each client has to know at the latest, and its allowance.
    expired: BTreeMap<SessionId, (u64, u64)>,
    /// By how much the wall clock of each node has been ahead of true time at most, in milliseconds. A leader may know that of a
    /// node that it has not heard since. `None` once a clock by which a node waits has jumped: with it a leader reckons on what
    /// it has heard.
    walls: Option<BTreeMap<PeerId, i64>>,
    /// True time in microseconds.
    pub(crate) now: u64,
    /// By how much the clocks of the nodes run wrong at most, in millionths, and what a node may need to learn that it is cut off,
    /// in microseconds: see [`Ghost::allowance`].
    clocks: (u64, u64),
    /// The streams on which sessions were taken up last.
    streams: BTreeMap<SessionId, StreamId>,
    /// What clients watch.
    pub(crate) watchers: Watchers,
    /// The first thing that was wrong.
    pub(crate) violation: Option<(String, String)>,
}

impl Ghost {
    pub(crate) fn new(ensemble: Ensemble, plan: &Plan) -> Ghost {
        let nodes = plan.members.len();
        let drift_ppm = plan.members.iter().map(|m| m.drift_ppm.unsigned_abs()).max().unwrap_or_default();
        Ghost {
            streams: BTreeMap::new(),
            believed: BTreeSet::new(),
            mourned: BTreeMap::new(),
            expired: BTreeMap::new(),
            walls: Some(BTreeMap::new()),
            now: 0,
            clocks: (drift_ppm, 2_000 * plan.timing.sync_limit),
            quorums: Quorums::of(&ensemble, nodes),
            ensemble,
            disks: vec![Shadow::default(); nodes],
            builds: vec![Levels::BUILD; nodes],
            proposed: BTreeMap::new(),
            proposed_bytes: 0,
            committed: Vec::new(),
            committed_at: 0,
            container_unused_ms: plan.container_unused_ms(),
            reaped: 0,
            digests: Vec::new(),
            flipped: BTreeSet::new(),
            state: State::default(),
            leaders: BTreeMap::new(),
            promised: BTreeMap::new(),
            origins: BTreeMap::new(),
            refused: BTreeSet::new(),
            barriers: BTreeMap::new(),
            watchers: Watchers::default(),
            violation: None,
        }
    }

    /// Notes that something is wrong, if it is the first.
    pub(crate) fn fail(&mut self, invariant: &str, what: String) {
        self.violation.get_or_insert((invariant.to_owned(), what));
    }

    /// What is wrong with what a watch was told, or was not told, if anything is (W1).
    pub(crate) fn watched(&mut self, said: Result<(), String>) {
        if let Err(what) = said {
            self.fail("W1 watches", what);
        }
    }

    fn check(&mut self, holds: bool, invariant: &str, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.fail(invariant, what());
        }
    }

    /// All servers.
    pub(crate) fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    /// Whether these are a quorum.
    pub(crate) fn is_quorum(&self, nodes: &BTreeSet<PeerId>) -> bool {
        self.quorums.has(|id| nodes.contains(&id))
    }

    /// The last entry of C.
    pub(crate) fn last(&self) -> Zxid {
        self.committed.last().map_or(Zxid::ZERO, |c| c.zxid)
    }

    pub(crate) fn committed(&self) -> &[Committed] {
        &self.committed
    }

    fn index(&self, zxid: Zxid) -> Option<usize> {
        self.committed.binary_search_by_key(&zxid, |c| c.zxid).ok()
    }

    fn has(&self, zxid: Zxid) -> bool {
        zxid == Zxid::ZERO || self.index(zxid).is_some()
    }

    /// Entries enter the log of a node behind `prev`, which `history` tells, them included (I13, I14).
    pub(crate) fn appended(&mut self, node: PeerId, mut prev: Zxid, entries: &[Entry], history: &History) {
        for entry in entries {
            if entry.is_marker() && entry.origin.is_none() && !self.proposed.contains_key(&entry.zxid) {
                self.begins(node, entry.zxid.epoch(), history);
            }
            self.check(entry.zxid.follows(prev), "I14 no holes", || {
                format!("node {node} appends {} behind {prev}", entry.zxid)
            });
            if let (Body::Level(level), false) = (&entry.body, self.proposed.contains_key(&entry.zxid)) {
                let knows = self.builds.iter().all(|levels| levels.contains(*level));
                self.check(knows, "I22 no level that a member does not know", || {
                    format!("node {node} raises the level to {level} at {}", entry.zxid)
                });
            }
            let mut bytes = entry.body.payload().to_vec();
            bytes.extend(entry.body.kind().to_be_bytes());
            bytes.extend(entry.time_ms.to_be_bytes());
            bytes.extend(entry.origin.map_or(0, |o| o.ticket.0 ^ (u64::from(o.peer.0) << 56)).to_be_bytes());
            let hash = xxh3_64(&bytes);
            if let Some(same) = self.proposed.get(&entry.zxid) {
                let holds = same.prev == prev && same.hash == hash;
                self.check(holds, "I13 zxid uniqueness", || {
                    format!("node {node} appends another entry {}", entry.zxid)
                });
            } else {
                self.proposed_bytes += entry.weight() as u64;
                self.proposed.insert(entry.zxid, Proposed { prev, hash, entry: entry.clone() });
            }
            prev = entry.zxid;
        }
    }

    /// A node stands for election with this (I12): votes are compared by it.
    pub(crate) fn stands(&mut self, node: usize, epoch: Epoch, zxid: Zxid) {
        let (current, last) = (self.disks[node].current, self.disks[node].history.last());
        self.check((epoch, zxid) == (current, last), "I12 candidates are true", || {
            format!(
                "node {} stands with {zxid} in epoch {epoch}, and has {last} in epoch {current}",
                node + 1
            )
        });
    }

    /// A node that was elected proposes an epoch (I9).
    pub(crate) fn proposes(&mut self, node: usize, epoch: Epoch) {
        let accepted = self.disks[node].accepted;
        self.check(epoch > accepted, "I9 a reign has a new epoch", || {
            format!("node {} wants to lead in epoch {epoch}, but promised {accepted} before", node + 1)
        });
    }

    /// A leader of a new epoch makes its log that of the epoch: the first thing that it does with the promises of a quorum
    /// (I12). Whoever has promised acknowledges nothing of older reigns, so that what they can ever commit is known here.
    fn begins(&mut self, node: PeerId, epoch: Epoch, history: &History) {
        let promised = self.promised.get(&epoch);
        let quorum = self.quorums.has(|id| id == node || promised.is_some_and(|p| p.contains(&id)));
        let who = || promised.map(|p| p.iter().copied().collect::<Vec<_>>()).unwrap_or_default();
        let what =
            (!quorum).then(|| format!("node {node} begins epoch {epoch} with the promises of {:?}", who()));
        self.check(quorum, "I12 promises of a quorum", || what.unwrap_or_default());
        let older = self.committed.partition_point(|c| c.zxid.epoch() < epoch);
        let last = older.checked_sub(1).map_or(Zxid::ZERO, |i| self.committed[i].zxid);
        let complete = history.contains(last) || history.base() >= last;
        self.check(complete, "I12 leader completeness", || {
            format!("node {node} begins epoch {epoch}, but its log lacks {last}")
        });
    }

    /// A leader has a learner begin here, with what stands behind it in the leader's log (I14).
    pub(crate) fn synchronises(&mut self, node: PeerId, from: Zxid, history: &History) {
        let known = history.contains(from) || from <= history.base();
        self.check(known, "I14 common point", || {
            format!("node {node} has a learner go on behind {from}, which is not in its own log")
        });
    }

    /// A node serves as a leader, and has heard of no others than these for longer than it may bear (S6).
    pub(crate) fn reigns(&mut self, node: PeerId, heard: &BTreeSet<PeerId>) {
        let quorum = self.quorums.has(|id| id == node || heard.contains(&id));
        self.check(quorum, "S6 a leader has its quorum", || {
            format!("node {node} still leads, but has heard only {heard:?} of late")
        });
    }

    /// A node begins to serve as the leader of an epoch (I7, I8, I12). With that all of its log up to its marker is committed.
    pub(crate) fn established(&mut self, node: PeerId, epoch: Epoch, history: &History, committed: Zxid) {
        let first = *self.leaders.entry(epoch).or_insert(node);
        self.check(first == node, "I8 one leader per epoch", || {
            format!("both {first} and {node} lead in epoch {epoch}")
        });
        // Newer reigns do not count: one that stood still after its marker had reached a quorum may learn of that when it is
        // deposed already. It can commit nothing more then; what it takes for committed has to be in C all the same.
        let older = self.committed.partition_point(|c| c.zxid.epoch() <= epoch);
        let last = older.checked_sub(1).map_or(Zxid::ZERO, |i| self.committed[i].zxid);
        let complete = history.contains(last) || history.base() >= last;
        self.check(complete, "I12 leader completeness", || {
            format!(
                "node {node} leads in epoch {epoch}, but its log ends with {} and lacks {last}",
                history.last()
            )
        });
        self.check(committed >= last, "I7 primary integrity", || {
            format!(
                "node {node} serves in epoch {epoch} and knows commits up to {committed}, not up to {last}"
            )
        });
        // Here, and not when the node has done all else that it does at this moment: it may not live to the end of it.
        self.knows_committed(node, committed, history);
    }

    /// A node says that everything up to `zxid` is committed (I2, I5, I6, I8, I11).
    pub(crate) fn knows_committed(&mut self, node: PeerId, zxid: Zxid, history: &History) {
        let last = self.last();
        if zxid <= last {
            let holds = self.has(zxid);
            return self.check(holds, "I2 committed prefix", || {
                format!("node {node} says that {zxid} is committed; it is not in C, which ends with {last}")
            });
        }
        let newest = self.leaders.keys().last().copied().unwrap_or_default();
        self.check(zxid.epoch() >= newest, "I8 no commit of an old reign", || {
            format!("node {node} commits {zxid} although epoch {newest} is established")
        });
        let fresh: Vec<Entry> = (self.proposed.range(last..=zxid))
            .filter(|(z, _)| **z > last && history.contains(**z))
            .map(|(_, p)| p.entry.clone())
            .collect();
        self.check_durable(zxid);
        for entry in fresh {
            self.commit(entry);
        }
        let holds = self.last() == zxid;
        self.check(holds, "I1 integrity", || format!("node {node} commits {zxid}, which nobody proposed"));
    }

    fn check_durable(&mut self, zxid: Zxid) {
        let holds = |id: PeerId| self.disks[id.0 as usize - 1].has_acknowledged(zxid);
        if !self.quorums.has(holds) {
            let holders: Vec<u32> = (1..=self.disks.len() as u32).filter(|&id| holds(PeerId(id))).collect();
            let text = format!("{zxid} is committed, but durable on {holders:?} only");
            self.fail("I11 committed log durability", text);
        }
    }

    fn commit(&mut self, entry: Entry) {
        let last = self.last();
        let zxid = entry.zxid;
        self.check(zxid.follows(last), "I5 primary order", || format!("{zxid} is committed behind {last}"));
        if let Some(origin) = entry.origin {
            let refused = self.refused.contains(&origin);
            self.check(!refused, "C10 refused means never", || format!("{zxid} was refused before"));
            let before = self.origins.insert(origin, zxid);
            self.check(before.is_none(), "C10 at most once", || {
                format!("one submission is committed at {before:?} and again at {zxid}")
            });
        }
        let level = entry.body.level();
        let command = match entry.payload().cloned().map(decode_command).transpose() {
            Ok(command) => command,
            Err(e) => return self.fail("I1 integrity", format!("{zxid} is no command: {e}")),
        };
        let before = self.committed.last().map_or(i64::MIN, |c| c.time_ms);
        let steps_back = entry.time_ms.saturating_add(CLOCK_BOUND_MS) < before;
        self.check(entry.time_ms >= before || steps_back, "I17 times", || {
            format!("{zxid} is stamped {} behind {before}", entry.time_ms)
        });
        let now_ms = (self.now / 1_000) as i64;
        let clocks = self.walls.iter().flatten().map(|(&id, ahead)| (id, ahead + now_ms));
        let reached = self.ensemble.quorum_value(clocks).unwrap_or(i64::MAX);
        self.check(
            entry.time_ms <= before || entry.time_ms <= reached.saturating_add(CLOCK_BOUND_MS),
            "I17 times",
            || {
                format!(
                    "{zxid} is stamped {}, but a quorum's clocks have only reached {reached}",
                    entry.time_ms
                )
            },
        );
        match &command {
            None => self.state.apply_level(zxid, entry.time_ms, level.unwrap_or_default()),
            Some(command) => {
                let before = match command.body {
                    CommandBody::CloseSession { session, expired: Some(_) } => self.state.session(session),
                    _ => None,
                };
                let reaped = match &command.body {
                    CommandBody::Reap { path, .. } => self.znode(path).map(|stat| (path, stat)),
                    _ => None,
                };
                let applied = self.state.apply(zxid, entry.time_ms, command);
                if let Some((path, stat)) = reaped
                    && self.znode(path).is_none()
                {
                    self.check_reaped(zxid, entry.time_ms, path, &stat);
                }
                self.check_stream(zxid, command, &applied.result);
                if self.committed.len().is_multiple_of(ENCODED_EVERY) {
                    self.check_encoding();
                }
                if let CommandBody::CloseSession { session, .. } = command.body
                    && self.state.session(session).is_none()
                {
                    before.into_iter().for_each(|info| self.expired(session, info.timeout_ms));
                    let left = self.state.tree().ephemerals(session).count();
                    self.check(left == 0, "I16 ephemerals", || {
                        format!("{left} ephemerals of session {session} are left after its close at {zxid}")
                    });
                }
            }
        }
        self.watchers.happened(zxid, self.state.take_changes());
        self.digests.push(self.state.digest());
        let Entry { time_ms, origin, .. } = entry;
        self.committed_at = self.now;
        self.committed.push(Committed { zxid, time_ms, origin, level, command });
    }

    fn znode(&self, path: &Path) -> Option<Stat> {
        self.state.tree().stat(path)
    }

    /// What goes by itself has no children, and its time is over (C14).
    fn check_reaped(&mut self, zxid: Zxid, time_ms: i64, path: &Path, stat: &Stat) {
        let unused_ms = self.container_unused_ms;
        let over = stat.num_children == 0
            && match stat.kind {
                NodeKind::Ttl { ms } => time_ms - stat.mtime_ms > ms as i64,
                // Children count twice: when they come and when they go.
                NodeKind::Container if stat.cversion > 1 => true,
                NodeKind::Container => unused_ms > 0 && time_ms - stat.ctime_ms > unused_ms as i64,
                NodeKind::Persistent | NodeKind::Ephemeral => false,
            };
        self.reaped += 1;
        self.check(over, "C14 reaped in time", || format!("{zxid} at {time_ms} ms removes {path}: {stat:?}"));
    }

    /// A znode that should be gone by itself, if there is one (C14). `wall_ms`: what the slowest clock of a node shows.
    pub(crate) fn overdue(&self, wall_ms: i64) -> Option<Path> {
        let last = self.committed.last()?;
        // The time of the log goes on between two entries, and faster clocks do not matter. It stands still while the leader's clock
        // is behind it, as after a jump back.
        let between = last.time_ms + (self.now.saturating_sub(self.committed_at) / 1_000) as i64;
        let time_ms = between.min(wall_ms).max(last.time_ms);
        let znodes: Vec<_> = self.state.tree().records().collect();
        let parents: BTreeSet<_> = znodes.iter().filter_map(|znode| znode.path.parent()).collect();
        let unused_ms = self.container_unused_ms as i64;
        let overdue = |znode: &record::Znode| match znode.kind {
            NodeKind::Ttl { ms } => time_ms - znode.mtime_ms > ms as i64,
            NodeKind::Container if znode.creates > 0 => true,
            NodeKind::Container => unused_ms > 0 && time_ms - znode.ctime_ms > unused_ms,
            NodeKind::Persistent | NodeKind::Ephemeral => false,
        };
        znodes.into_iter().filter(overdue).map(|znode| znode.path).find(|path| !parents.contains(path))
    }

    /// Behind the entry with which a session was taken up, nothing of its other streams is carried out (C12).
    fn check_stream(&mut self, zxid: Zxid, command: &Command, result: &WriteResult) {
        if let CommandBody::ResumeSession { session, stream } = command.body {
            self.streams.insert(session, stream);
        }
        let Some(session) = command.session else { return };
        let newest = self.streams.get(&session).copied().unwrap_or_default();
        let refused = matches!(result, Err(OpError::SessionMoved(_) | OpError::SessionExpired(_)));
        self.check(command.stream == newest || refused, "C12 one stream speaks for a session", || {
            format!(
                "{zxid} came on the stream {:?} of session {session}, which was taken up on {newest:?} before, and is \
                 carried out with {result:?}",
                command.stream
            )
        });
    }

    /// Whatever state there is can be kept, sent, and loaded again (I17).
    fn check_encoding(&mut self) {
        let records = self.state.records().map(|record| decode_record(encode_record(record).into()));
        let loaded = records.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string());
        let loaded = loaded.and_then(|records| State::load(records).map_err(|e| e.to_string()));
        let zxid = self.state.applied();
        let same = loaded.as_ref().is_ok_and(|state| state.records().eq(self.state.records()));
        self.check(same, "I17 every state can be kept", || {
            let why = loaded.err().unwrap_or_else(|| "it is another one".into());
            format!("the state at {zxid} does not come back from its records: {why}")
        });
    }

    /// Another user of a session has used a number of its client's for a request of its own, and was answered (C13).
    pub(crate) fn bound_to_its_request<T: std::fmt::Debug>(
        &mut self,
        number: WriteNumber,
        own: bool,
        answer: &T,
    ) {
        self.check(own, "C13 a number is bound to its request", || {
            format!(
                "a request with the number {} was answered with what came of another: {answer:?}",
                number.0
            )
        });
    }

    /// The store of a node has this state (I3, I4, I15).
    pub(crate) fn applied(&mut self, node: PeerId, state: &State) {
        let zxid = state.applied();
        if zxid == Zxid::ZERO {
            return;
        }
        match self.index(zxid) {
            None => self
                .fail("I4 agreement", format!("the store of node {node} has {zxid}, which is not committed")),
            Some(i) => {
                let (ours, theirs) = (self.digests[i], state.digest());
                let flipped = ours != theirs && self.flipped.contains(&node);
                self.check(ours == theirs || flipped, "I15 state determinism", || {
                    format!("at {zxid} the digest on node {node} is {theirs:#x}, not {ours:#x}")
                });
            }
        }
    }

    /// The store of a node has found that its state is not the leader's, and throws it away (I15).
    pub(crate) fn diverged(&mut self, node: PeerId, at: Zxid, own: u64, leaders: u64) {
        let flipped = self.flipped.remove(&node);
        self.check(flipped, "I15 state determinism", || {
            format!("behind {at} the digest of node {node} is {own:#x}, the leader's {leaders:#x}")
        });
    }

    /// An ack leaves a node (I10).
    pub(crate) fn acks(&mut self, node: usize, zxid: Zxid) {
        let disk = &self.disks[node];
        let (last, current) = (disk.history.last(), disk.current);
        self.check(last >= zxid, "I10 ack implies durable", || {
            format!("node {} acknowledges {zxid}, but only {last} is durable", node + 1)
        });
        self.check(current >= zxid.epoch(), "I10 epoch before ack", || {
            format!("node {} acknowledges {zxid}, but its durable epoch is {current}", node + 1)
        });
    }

    /// A promise leaves a node (I9).
    pub(crate) fn promises(&mut self, node: usize, epoch: Epoch) {
        self.promised.entry(epoch).or_default().insert(PeerId(node as u32 + 1));
        let accepted = self.disks[node].accepted;
        self.check(accepted >= epoch, "I9 promise is durable", || {
            format!("node {} promises epoch {epoch}, but the durable one is {accepted}", node + 1)
        });
    }

    /// The log of a node is cut back to `to` (I11).
    pub(crate) fn truncates(&mut self, node: usize, to: Zxid, history: &History) {
        let next = self.committed.partition_point(|c| c.zxid <= to);
        if let Some(lost) = self.committed.get(next).map(|c| c.zxid) {
            self.check(!history.contains(lost), "I11 nothing committed is truncated", || {
                format!("node {} cuts its log back to {to} and loses {lost}", node + 1)
            });
        }
    }

    /// A node has recovered this from its disk (I9, I10).
    pub(crate) fn recovered(&mut self, node: usize, history: &History, accepted: Epoch, current: Epoch) {
        let Shadow { history: before, accepted: a, current: c, impaired, latent, mut had } =
            std::mem::take(&mut self.disks[node]);
        if latent {
            // All of it was read now. What was acknowledged behind the damage was durable until it was found.
            had.push((before.clone(), c));
        }
        if !impaired {
            self.check(accepted >= a && current >= c, "I9 epochs never decrease", || {
                format!("node {} comes back with epochs {accepted}, {current} after {a}, {c}", node + 1)
            });
            let last = before.last();
            self.check(history.contains(last) || history.base() >= last, "I10 durable stays", || {
                format!(
                    "node {} comes back with a log to {}, but {last} was durable",
                    node + 1,
                    history.last()
                )
            });
        }
        self.check(current <= accepted, "I9 epochs", || {
            format!("node {}: current epoch {current}, accepted {accepted}", node + 1)
        });
        self.disks[node] =
            Shadow { history: history.clone(), accepted, current, impaired, latent: false, had };
    }

    pub(crate) fn barrier_asked(&mut self, node: PeerId, ticket: Ticket) {
        self.barriers.insert((node, ticket), self.last());
    }

    /// A store that has everything up to `position` takes the answer to its barrier (C9).
    pub(crate) fn barrier_answered(&mut self, node: PeerId, ticket: Ticket, position: Zxid) {
        if let Some(asked) = self.barriers.remove(&(node, ticket)) {
            self.check(position >= asked, "C9 barrier", || {
                format!("a barrier of node {node} is answered at {position}; {asked} was committed before it was asked")
            });
        }
    }

    /// In which the ensemble began.
    pub(crate) fn first_epoch(&self) -> Option<Epoch> {
        self.committed.first().map(|c| c.zxid.epoch())
    }

    /// The wall clock of this node is ahead by so much now.
    pub(crate) fn clock_set(&mut self, node: PeerId, ahead_ms: i64) {
        if let Some(walls) = &mut self.walls {
            let most = walls.entry(node).or_insert(ahead_ms);
            *most = ahead_ms.max(*most);
        }
    }

    /// A clock by which a node waits has jumped.
    pub(crate) fn clock_jumped(&mut self) {
        self.walls = None;
    }

    /// A submission is refused: it must never be carried out (C10).
    pub(crate) fn refused(&mut self, node: PeerId, ticket: Ticket) {
        let origin = Origin { peer: node, ticket };
        let committed = self.origins.get(&origin).copied();
        self.check(committed.is_none(), "C10 refused means never", || {
            format!("a submission of node {node} is refused, but committed at {committed:?}")
        });
        self.refused.insert(origin);
    }

    /// A client's machine says that its session is there (C11).
    pub(crate) fn believes(&mut self, session: SessionId) {
        self.believed.insert(session);
        // It may be told of its opening and of its end at once.
        if let Some((_, allowance)) = self.expired.get(&session) {
            self.mourned.insert(session, self.now + allowance);
        }
    }

    /// A client's machine wakes up and says, by its clock alone, that its session is there: the client may act on that before it
    /// hears anything (C11).
    pub(crate) fn still_believes(&mut self, session: SessionId) {
        let late = self.expired.get(&session).map_or(0, |(limit, _)| self.now.saturating_sub(*limit));
        if late > 0 {
            self.knows_late(format!(
                "session {session} is expired, and its client relies on it {late} us too late"
            ));
        }
        self.believes(session);
    }

    /// A client's machine says that its session may be gone, or its application no longer wants it (C11).
    pub(crate) fn doubts(&mut self, session: SessionId) {
        self.believed.remove(&session);
        if let Some(limit) = self.mourned.remove(&session) {
            let late = self.now.saturating_sub(limit);
            if late > 0 {
                self.knows_late(format!(
                    "session {session} is expired, and its client knows {late} us too late"
                ));
            }
        }
    }

    /// A session is expired by what is now committed: from here on others may have what was its own (C11).
    fn expired(&mut self, session: SessionId, timeout_ms: u32) {
        let timeout_us = u64::from(timeout_ms) * 1_000;
        let allowance = self.allowance(timeout_us);
        let limit = self.now + allowance;
        self.expired.insert(session, (limit, allowance));
        if self.believed.contains(&session) {
            self.mourned.insert(session, limit);
        }
    }

    /// How much too late a client may know, because clocks run wrong: clients' clocks are right. 0 if those of all nodes are.
    fn allowance(&self, timeout_us: u64) -> u64 {
        let (drift_ppm, cut_off_us) = self.clocks;
        2 * drift_ppm * (timeout_us + cut_off_us) / 1_000_000
    }

    /// The end of the run: who has not been told by now is not told any more (C11).
    pub(crate) fn run_over(&mut self) {
        for session in std::mem::take(&mut self.mourned).into_keys() {
            self.knows_late(format!("session {session} is expired, and its client never knows"));
        }
    }

    fn knows_late(&mut self, what: String) {
        self.fail("C11 the client knows first", what);
    }

    /// The store of a leader closes a silent session: `silent_us` is since it last heard it, or began to lead (C8).
    pub(crate) fn expires(&mut self, node: PeerId, session: SessionId, silent_us: u64, timeout_us: u64) {
        self.check(silent_us >= timeout_us, "C8 session time-out", || {
            format!("node {node} closes session {session} after {silent_us} of {timeout_us} us of silence")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_to(zxid: Zxid) -> History {
        let mut history = History::default();
        for counter in 0..=zxid.counter() {
            assert!(history.append(Zxid::new(zxid.epoch(), counter)));
        }
        history
    }

    #[test]
    fn the_judge_counts_quorums_as_the_ensemble_does() {
        let voter = |weight, group| Membership::Voter { weight, group };
        let observer = Membership::Observer;
        for members in [
            vec![voter(1, 0), voter(1, 0), voter(1, 0)],
            vec![voter(1, 0), observer, voter(1, 0), voter(1, 0), voter(1, 0)],
            vec![voter(3, 0), voter(0, 0), voter(2, 0), observer],
            vec![voter(1, 0), voter(1, 1), voter(1, 2), voter(1, 0), voter(2, 1), voter(0, 2)],
            vec![voter(1, 0), voter(0, 1), voter(1, 0)],
        ] {
            let nodes = members.len();
            let ensemble = Ensemble::new(
                (1..).zip(members).map(|(id, membership)| api::Member { id: PeerId(id), membership }),
            )
            .unwrap();
            let quorums = Quorums::of(&ensemble, nodes);
            for set in 0..1u32 << nodes {
                let chosen: BTreeSet<PeerId> =
                    (0..nodes as u32).filter(|i| set >> i & 1 == 1).map(|i| PeerId(i + 1)).collect();
                let ours = quorums.has(|id| chosen.contains(&id));
                assert_eq!(ours, ensemble.is_quorum(&chosen), "{chosen:?} of {ensemble:?}");
            }
        }
    }

    /// Found by seed 11774148293873389617: a leader that stood still counted an ack of a server that had lost its disk
    /// since then, and then a bit of the little it had got again.
    #[test]
    fn an_ack_was_true_however_often_its_server_lost_something_since() {
        let acked = Zxid::new(Epoch(9), 3);
        let mut disk = Shadow { history: log_to(acked), current: Epoch(9), ..Shadow::default() };
        disk.lose();
        disk.impair();
        disk.reset();
        assert!(disk.impaired);
        assert_eq!(disk.history, History::default());
        assert!(disk.has_acknowledged(acked));
        assert!(!disk.has_acknowledged(Zxid::new(Epoch(9), 4)));
        assert!(!disk.has_acknowledged(Zxid::new(Epoch(10), 0)));
    }
}
