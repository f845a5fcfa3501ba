//! Counters and timings of the driver. They do not influence the core.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use api::ports::{QuorumStatus, Request, Role};
use api::{Entry, History, PeerId, Ticket, Zxid};
use quorum_core::{Conn, Zab};
use telemetry::{RoleLabel, metrics};

use quorum_shell::LogView;

/// Maximum number of points in time for each purpose. Beyond it, the oldest ones are dropped or merged
/// with new ones: figures become coarser, and memory stays bounded.
const KEPT: usize = 4096;
/// Minimum interval for metrics that need a lock.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// See the [module](self).
pub(crate) struct Measure {
    me: PeerId,
    /// Writes of this node's store that are not in the log yet: last ticket of each batch.
    submitted: VecDeque<(Ticket, Instant)>,
    /// As a leader: batches that are not committed.
    appended: VecDeque<Batch>,
    learners: BTreeMap<Conn, Learner>,
    committed: Zxid,
    unserved_since: Option<Instant>,
    published: Instant,
}

/// Entries of one turn.
struct Batch {
    last: Zxid,
    count: u64,
    at: Instant,
}

struct Learner {
    peer: PeerId,
    /// Batches in transit or not acknowledged.
    sent: VecDeque<Batch>,
    acked: Zxid,
    /// When synchronisation ended. Earlier batches do not measure the latency of an ack.
    synced: Option<Instant>,
}

impl Measure {
    pub(crate) fn new(me: PeerId, history: &History) -> Measure {
        let now = Instant::now();
        metrics::QUORUM_ROLE.at(RoleLabel::Looking).set(1);
        Measure {
            me,
            submitted: VecDeque::new(),
            appended: VecDeque::new(),
            learners: BTreeMap::new(),
            committed: history.base(),
            unserved_since: Some(now),
            published: now,
        }
    }

    /// The store submitted requests at `at`.
    pub(crate) fn requests(&mut self, at: Instant, batch: &[Request]) {
        let last = batch.iter().rev().find_map(|request| match request {
            Request::Submit { ticket, .. } => Some(*ticket),
            Request::Barrier { .. } | Request::Report(_) | Request::Confirm { .. } => None,
        });
        if let Some(last) = last {
            if self.submitted.len() == KEPT {
                self.submitted.pop_front();
            }
            self.submitted.push_back((last, at));
        }
    }

    /// Entries are in this node's log.
    pub(crate) fn appended(&mut self, entries: &[Entry], leading: bool) {
        let now = Instant::now();
        let own = entries.iter().filter_map(|e| e.origin.filter(|o| o.peer == self.me));
        let mut count = 0;
        for ticket in own.map(|origin| origin.ticket) {
            // The rest of earlier batches was rejected.
            while self.submitted.front().is_some_and(|(last, _)| *last < ticket) {
                self.proposed(now, std::mem::take(&mut count));
                self.submitted.pop_front();
            }
            count += 1;
        }
        self.proposed(now, count);
        if let (true, Some(last)) = (leading, entries.last()) {
            push(&mut self.appended, Batch { last: last.zxid, count: entries.len() as u64, at: now });
        }
    }

    /// Records the first `count` writes of the oldest batch.
    fn proposed(&self, now: Instant, count: u64) {
        if let Some((_, since)) = self.submitted.front() {
            metrics::PROPOSAL_DURATION.record_n(now.saturating_duration_since(*since), count);
        }
    }

    pub(crate) fn committed(&mut self, upto: Zxid, history: &History) {
        metrics::QUORUM_COMMITTED.add(history.count_between(self.committed, upto));
        self.committed = upto;
        let now = Instant::now();
        while let Some(batch) = self.appended.pop_front_if(|batch| batch.last <= upto) {
            metrics::COMMIT_DURATION.record_n(now - batch.at, batch.count);
        }
    }

    pub(crate) fn learner_up(&mut self, conn: Conn, peer: PeerId) {
        let learner = Learner { peer, sent: VecDeque::new(), acked: Zxid::ZERO, synced: None };
        self.learners.insert(conn, learner);
    }

    pub(crate) fn learner_down(&mut self, conn: Conn) {
        self.learners.remove(&conn);
    }

    /// The learner starts to serve.
    pub(crate) fn learner_synced(&mut self, conn: Conn) {
        if let Some(learner) = self.learners.get_mut(&conn) {
            learner.synced = Some(Instant::now());
        }
    }

    pub(crate) fn replicated(&mut self, conn: Conn, after: Zxid, upto: Zxid, history: &History) {
        if let Some(learner) = self.learners.get_mut(&conn) {
            let batch = Batch { last: upto, count: history.count_between(after, upto), at: Instant::now() };
            push(&mut learner.sent, batch);
        }
    }

    pub(crate) fn acked(&mut self, conn: Conn, zxid: Zxid) {
        let Some(learner) = self.learners.get_mut(&conn) else { return };
        learner.acked = learner.acked.max(zxid);
        let now = Instant::now();
        while let Some(batch) = learner.sent.pop_front_if(|batch| batch.last <= zxid) {
            if learner.synced.is_some_and(|since| batch.at >= since) {
                metrics::ACK_DURATION.record_n(now - batch.at, batch.count);
            }
        }
    }

    /// The role of this node, or whether it serves, has changed.
    pub(crate) fn status(&mut self, status: &QuorumStatus) {
        metrics::QUORUM_ROLE.all().for_each(|gauge| gauge.set(0));
        metrics::QUORUM_ROLE.at(role(status.role)).set(1);
        metrics::QUORUM_SERVING.set(u64::from(status.serving));
        metrics::QUORUM_EPOCH.set(u64::from(status.epoch.0));
        match (status.serving, self.unserved_since) {
            (true, Some(since)) => {
                metrics::QUORUM_UNSERVED_DURATION.record(since.elapsed());
                self.unserved_since = None;
            }
            (false, None) => self.unserved_since = Some(Instant::now()),
            _ => {}
        }
        if status.role != Role::Leading {
            self.appended.clear();
        }
    }

    /// Publishes gauges at the end of each turn. `queue` returns the length of a learner's send queue.
    pub(crate) fn publish(&mut self, core: &Zab, view: &LogView, queue: impl Fn(Conn) -> usize) {
        let status = core.status();
        let (writes, bytes) = core.pending_writes();
        metrics::PENDING_WRITES.set(writes as u64);
        metrics::PENDING_WRITES_SIZE.set(bytes as u64);
        metrics::PARKED_WRITES.set(if status.serving { 0 } else { writes as u64 });
        metrics::QUORUM_UNCOMMITTED.set(core.history().count_between(status.committed, status.last));
        if self.published.elapsed() < PUBLISH_EVERY {
            // While there are learners, their pings trigger another turn.
            return;
        }
        self.published = Instant::now();
        let (files, bytes) = view.reader.size();
        metrics::LOG_SEGMENTS.set(files as u64);
        metrics::LOG_SIZE.set(bytes);
        self.publish_learners(core, queue);
    }

    fn publish_learners(&self, core: &Zab, queue: impl Fn(Conn) -> usize) {
        let leading = core.status().role == Role::Leading;
        let learners = || self.learners.iter().filter(|_| leading);
        let last = core.history().last();
        metrics::LEARNERS.set(learners().count() as u64);
        metrics::LEARNER_LAG
            .set_all(learners().map(|(_, l)| (l.peer.0, core.history().count_between(l.acked, last))));
        let waited = |l: &Learner| l.sent.front().map_or(Duration::ZERO, |batch| batch.at.elapsed());
        metrics::LEARNER_LAG_DURATION
            .set_all(learners().map(|(_, l)| (l.peer.0, waited(l).as_nanos() as u64)));
        metrics::LEARNER_QUEUE.set_all(learners().map(|(&conn, l)| (l.peer.0, queue(conn) as u64)));
    }
}

/// Adds a batch; if the queue is full, merges it into the last one.
fn push(batches: &mut VecDeque<Batch>, new: Batch) {
    let full = batches.len() >= KEPT;
    match batches.back_mut() {
        Some(last) if full => {
            last.last = new.last;
            last.count += new.count;
        }
        _ => batches.push_back(new),
    }
}

fn role(role: Role) -> RoleLabel {
    match role {
        Role::Looking => RoleLabel::Looking,
        Role::Following => RoleLabel::Follower,
        Role::Leading => RoleLabel::Leader,
        Role::Observing => RoleLabel::Observer,
    }
}
