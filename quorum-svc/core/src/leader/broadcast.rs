//! Broadcast: entries go to all learners, and an entry is committed once a quorum has it on disk.

use std::collections::BTreeSet;
use std::time::Duration;

use api::mutants::{Mutant, is_on};
use api::ports::Room;
use api::{PeerId, Time, Zxid};

use super::{Leading, Learner, Phase, Stage};
use crate::{
    Conn, Output, ToLearner,
    zab::{Role, Zab},
};

/// A proposal carries a commit only if the follower has everything committed and at most this many
/// bytes are uncommitted or not durable here. Then the commit arrives as early as a message of its own
/// would.
const RIDE_BYTES: usize = 64 << 10;

impl Learner {
    pub(super) fn note_commit_told(&mut self, told: Zxid, committed: Zxid) {
        self.commit_told = self.commit_told.max(told);
        if self.commit_told >= committed {
            self.commit_due = None;
        }
    }
}

impl Leading {
    /// The commit point has moved. A learner with own writes among the committed entries gets the
    /// commit in this turn, because its clients wait for it. The others get it within `delay`.
    fn commit_moved(&mut self, before: Zxid, committed: Zxid, now: Time, delay: Duration) {
        let first = self.outstanding.partition_point(|o| o.zxid <= before);
        let moved = self.outstanding.range(first..).take_while(|o| o.zxid <= committed);
        let waiting: BTreeSet<PeerId> = moved.map(|o| o.from).collect();
        for learner in self.learners.values_mut().filter(|l| l.stage == Stage::Synced) {
            let due = if waiting.contains(&learner.peer) { now } else { now + delay };
            learner.commit_due = Some(learner.commit_due.map_or(due, |earlier| earlier.min(due)));
        }
    }
}

impl Zab {
    /// Sends the missing entries to a learner.
    pub(super) fn replicate(&mut self, conn: Conn) {
        let committed = self.committed;
        let Role::Leading(leading) = &mut self.role else { return };
        let (established, little) = (leading.established(), leading.outstanding_bytes <= RIDE_BYTES);
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        let upto = if learner.voter { self.history.last() } else { committed };
        // An observer gets only committed entries.
        let rides = |l: &Learner| !l.voter || l.acked >= committed && little;
        let serves = |l: &Learner| established && l.stage == Stage::Synced;
        if matches!(learner.stage, Stage::Syncing { .. } | Stage::Synced) && learner.sent < upto {
            let commit =
                (serves(learner) && learner.commit_told < committed && rides(learner)).then_some(committed);
            self.out.push_back(Output::Replicate { conn, after: learner.sent, upto, commit });
            learner.sent = upto;
            if let Some(commit) = commit {
                learner.note_commit_told(commit, committed);
            }
        }
    }

    /// Sends the commit point to a learner if another message leaves anyway, or the commit is due: a
    /// client of the learner waits for it, or it has waited long enough for a proposal.
    pub(super) fn tell_commit(&mut self, conn: Conn, anyway: bool) {
        let (now, committed) = (self.now.mono, self.committed);
        let Role::Leading(leading) = &mut self.role else { return };
        if !leading.established() {
            return;
        }
        let Some(learner) = leading.learners.get_mut(&conn) else { return };
        let due = anyway || learner.commit_due.is_some_and(|at| at <= now);
        if learner.stage == Stage::Synced && learner.commit_told < committed && due {
            learner.note_commit_told(committed, committed);
            self.out.push_back(Output::ToLearner { conn, message: ToLearner::Commit(committed) });
        }
    }

    pub(crate) fn leader_on_durable(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        if leading.established() {
            self.advance_commit();
        } else {
            self.try_establish();
        }
    }

    /// Commits everything that a quorum has on disk (S19, S20). Only entries of this epoch are counted:
    /// the marker commits those of older epochs.
    pub(super) fn advance_commit(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Phase::Established { .. } = leading.phase else { return };
        let acks = leading.learners.values().filter(|l| l.stage == Stage::Synced).map(|l| (l.peer, l.acked));
        let mine = if is_on(Mutant::LeaderCountsUnsynced) { self.history.last() } else { self.durable };
        let roster = Zab::last_roster(&self.rosters, &self.initial, self.committed);
        let reached = roster.quorum_value(acks.chain([(self.config.me, mine)]));
        if let Some(zxid) = reached.filter(|&z| z > self.committed) {
            assert!(zxid <= self.history.last(), "committed what is not in the log");
            let before = std::mem::replace(&mut self.committed, zxid);
            leading.commit_moved(before, zxid, self.now.mono, self.config.commit_delay);
        }
        self.tell_raised();
        self.continue_change();
        let Role::Leading(leading) = &mut self.role else { return };
        // An entry that others have committed still takes memory while this disk writes it.
        leading.settle_outstanding(self.committed.min(self.durable));
    }

    /// The set of requests that the leader may order. It excludes requests that would fill the disk of
    /// this server, or so many disks that the servers with room are no quorum.
    pub(crate) fn leader_room(&self) -> Room {
        let me = self.config.me;
        let Role::Leading(leading) = &self.role else { return Room::Ample };
        let quorum_with = |least: Room| {
            let able = |l: &Learner| l.stage == Stage::Synced && l.disk <= least;
            self.roster().is_quorum(&leading.peers(me, able))
        };
        // Absent servers do not count: without a quorum the leader orders nothing.
        let of_quorum = match quorum_with(Room::Short) {
            true if !quorum_with(Room::Low) => Room::Short,
            true if !quorum_with(Room::Ample) => Room::Low,
            _ => Room::Ample,
        };
        of_quorum.max(self.disk)
    }
}
