//! Synchronisation: each learner gets the leader's log, until a quorum has it with the marker of the
//! new epoch.

use api::Zxid;
use api::mutants::{Mutant, is_on};
use api::ports::FeedItem;

use super::{Learner, Phase, Stage};
use crate::{
    Conn, Output, ToLearner,
    zab::{Role, Zab},
};

impl Zab {
    /// Sends a learner the point where its log diverges from ours, and the entries behind that point.
    /// Does nothing if it is too early.
    pub(super) fn begin_sync(&mut self, conn: Conn) {
        let Role::Leading(leading) = &mut self.role else { return };
        let established = leading.established();
        let (Phase::Synchronising { epoch, .. } | Phase::Established { epoch }) = leading.phase else {
            return;
        };
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        // An observer gets only committed entries, and none is committed before the epoch is
        // established.
        let target = if learner.voter { self.history.last() } else { self.committed };
        let Stage::Promised { history, log_end } = &learner.stage else { return };
        if learner.doubted_until.is_some() && !is_on(Mutant::WipedDiskTrusted) {
            return;
        }
        // At the end of its synchronisation a learner sends the writes again that are not in its log.
        // So an observer's synchronisation does not end before its earlier writes are committed.
        if !learner.voter && (!established || self.committed < *log_end) {
            return;
        }
        let roster_at = |zxid| self.rosters.at(zxid).unwrap_or(&self.initial).clone();
        let common = self.history.common_with(history).filter(|&c| c <= target);
        let snapshot = self.snapshot.filter(|&s| self.history.contains(s) && s <= target);
        let (sent, how) = match (common, snapshot) {
            // By cost: the entries are much larger than the state that they produce.
            (Some(common), Some(zxid)) if common < self.snap_before && common < zxid => {
                (zxid, Output::SendSnapshot { conn, zxid, roster: roster_at(zxid) })
            }
            (Some(after), _) if after == history.last() => {
                (after, Output::ToLearner { conn, message: ToLearner::Diff { after } })
            }
            (Some(_), _) if is_on(Mutant::DiffForTrunc) => {
                let after = history.last();
                (after, Output::ToLearner { conn, message: ToLearner::Diff { after } })
            }
            (Some(to), _) => (to, Output::ToLearner { conn, message: ToLearner::Trunc { to } }),
            (None, Some(zxid)) => (zxid, Output::SendSnapshot { conn, zxid, roster: roster_at(zxid) }),
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

    pub(super) fn on_ack(&mut self, conn: Conn, zxid: Zxid) {
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
                    learner.commit_told = commit;
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

    /// A server that lost its data may have promised a newer epoch to another leader with a quorum.
    /// Then its ack would commit an entry in two reigns. A ping that was sent after its return settles
    /// this: once so many others have answered it that the rest is no quorum, no such reign exists, and
    /// the leader may synchronise the server.
    pub(super) fn end_doubts(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(since) = leading.learners.values().filter_map(|l| l.doubted_until).max() else { return };
        let follows =
            |l: &Learner| matches!(l.stage, Stage::Syncing { .. } | Stage::Synced) && l.round >= since;
        let ours = leading.peers(self.config.me, follows);
        if !Zab::last_roster(&self.rosters, &self.initial, self.committed).leaves_no_quorum(&ours) {
            return;
        }
        leading.learners.values_mut().for_each(|l| l.doubted_until = None);
    }

    /// Begins to serve (S16): with the marker durable on a quorum, this server included, everything up
    /// to it is committed.
    pub(super) fn try_establish(&mut self) {
        let me = self.config.me;
        let Role::Leading(leading) = &mut self.role else { return };
        let Phase::Synchronising { epoch, durable: true } = leading.phase else { return };
        let synced = leading.peers(me, |l| l.stage == Stage::Synced);
        let roster = Zab::last_roster(&self.rosters, &self.initial, self.committed);
        let quorum = roster.is_quorum(&synced) || is_on(Mutant::UpToDateBeforeQuorum);
        if self.durable < Zxid::marker(epoch) || !quorum {
            return;
        }
        leading.phase = Phase::Established { epoch };
        let conns: Vec<Conn> = leading.conns().collect();
        self.committed = Zxid::marker(epoch);
        self.out.push_back(Output::Settled { leader: me, epoch });
        for conn in conns {
            let Role::Leading(leading) = &mut self.role else { return };
            if let Some(learner) = leading.learners.get_mut(&conn).filter(|l| l.stage == Stage::Synced) {
                learner.commit_told = self.committed;
                let message = ToLearner::UpToDate { commit: self.committed };
                self.out.push_back(Output::ToLearner { conn, message });
            }
        }
        self.continue_change();
        self.resume_requests();
    }
}
