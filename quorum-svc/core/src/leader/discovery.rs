//! Discovery: accepted epochs of a quorum, the next epoch, the promises of a quorum, and the proof that
//! this server's log has everything committed.

use std::collections::BTreeSet;

use api::mutants::{Mutant, is_on};
use api::peer::Damage;
use api::{EnsembleId, Entry, Epoch, History, Levels, PeerId, Standing, Zxid, ports::Candidate};

use super::{Leading, Phase, Stage};
use crate::{
    Conn, Output, ToLearner,
    zab::{Role, Zab},
};

/// A learner's statement with its promise of an epoch.
pub(super) struct Promise {
    pub(super) history: History,
    pub(super) candidate: Candidate,
    /// This and the following fields: as in [`crate::ToLeader::AckEpoch`].
    pub(super) counts: bool,
    pub(super) damage: Damage,
    pub(super) ensemble: Option<EnsembleId>,
    pub(super) committed: Zxid,
}

impl Zab {
    /// The id of the ensemble under this leader.
    fn led_ensemble(&self) -> EnsembleId {
        self.ensemble.unwrap_or(self.config.draw)
    }

    /// Returns false if the learner was dropped.
    pub(super) fn note_learner_info(&mut self, conn: Conn, accepted: Epoch, levels: Levels) -> bool {
        let Role::Leading(leading) = &mut self.role else { return false };
        let Some(learner) = leading.learners.get_mut(&conn) else { return false };
        if learner.stage != Stage::New {
            self.drop_learner(conn, "LEARNERINFO twice");
            return false;
        }
        if accepted.next().is_none() {
            // No leader can ever propose a greater epoch. If this leader gave way, the others would
            // stop as well.
            self.drop_learner(conn, "the learner has used up the epochs");
            return false;
        }
        let at = self.levels.last();
        if !levels.overlaps(self.config.levels) || at.is_some_and(|level| !levels.contains(level)) {
            self.drop_learner(conn, "the learner does not know the feature level of the ensemble");
            return false;
        }
        (learner.stage, learner.levels) = (Stage::Known { accepted }, Some(levels));
        true
    }

    pub(super) fn on_learner_info(&mut self, conn: Conn, accepted: Epoch, levels: Levels) {
        if !self.note_learner_info(conn, accepted, levels) {
            return;
        }
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(peer) = leading.learners.get(&conn).map(|l| l.peer) else { return };
        match leading.phase {
            Phase::Discovery => self.propose_epoch(),
            Phase::Promising { epoch, .. }
                if accepted == epoch
                    && Zab::last_roster(&self.rosters, &self.initial, self.committed).can_lead(peer)
                    && !leading.promised.contains(&peer) =>
            {
                // The learner promised this epoch, but its answer was lost or went to another leader.
                // It can never count for this epoch. A new epoch is faster than the init limit.
                self.look("a learner's promise of the epoch was lost");
            }
            Phase::Promising { epoch, .. }
            | Phase::Synchronising { epoch, .. }
            | Phase::Established { epoch }
                if accepted > epoch =>
            {
                // The learner promised a later epoch to a server that never led, so it can never join
                // this one. ZooKeeper keeps it out until some later election; one short election now is
                // better.
                self.look("a learner has promised a greater epoch");
            }
            Phase::Promising { durable: false, .. } => {}
            Phase::Promising { .. } | Phase::Synchronising { .. } | Phase::Established { .. } => {
                self.send_leader_info();
            }
        }
    }

    /// Proposes the next epoch. The accepted epochs of a quorum make it greater than any established
    /// epoch.
    pub(super) fn propose_epoch(&mut self) {
        let accepted = self.accepted;
        let Role::Leading(leading) = &mut self.role else { return };
        let known = leading.peers(self.config.me, |l| matches!(l.stage, Stage::Known { .. }));
        if !Zab::last_roster(&self.rosters, &self.initial, self.committed).is_quorum(&known) {
            return;
        }
        let greatest = leading
            .learners
            .values()
            .filter_map(|l| if let Stage::Known { accepted } = l.stage { Some(accepted) } else { None })
            .fold(accepted, Epoch::max);
        let reused = Some(greatest).filter(|&e| is_on(Mutant::EpochReused) && e > Epoch(0));
        let Some(epoch) = reused.or(greatest.next()) else {
            self.out.push_back(Output::Fatal(
                "the epochs are used up: back the data up and start a new ensemble".into(),
            ));
            return;
        };
        leading.phase = Phase::Promising { epoch, durable: false };
        self.persist_epochs(epoch, self.current);
    }

    pub(crate) fn leader_epochs_persisted(&mut self) {
        let Role::Leading(leading) = &mut self.role else { return };
        match &mut leading.phase {
            Phase::Promising { durable, .. } => {
                *durable = true;
                self.send_leader_info();
                self.try_synchronise();
            }
            Phase::Synchronising { durable, .. } => {
                *durable = true;
                self.try_establish();
            }
            Phase::Discovery | Phase::Established { .. } => {}
        }
    }

    fn send_leader_info(&mut self) {
        let (ensemble, level) = (self.led_ensemble(), self.levels.last());
        let Role::Leading(leading) = &mut self.role else { return };
        let (Phase::Promising { epoch, .. }
        | Phase::Synchronising { epoch, .. }
        | Phase::Established { epoch }) = leading.phase
        else {
            return;
        };
        for (&conn, learner) in &mut leading.learners {
            if matches!(learner.stage, Stage::Known { .. }) {
                learner.stage = Stage::Asked;
                self.out.push_back(Output::ToLearner {
                    conn,
                    message: ToLearner::LeaderInfo { epoch, ensemble, level },
                });
            }
        }
    }

    /// Returns false if the learner was dropped.
    pub(super) fn on_ack_epoch(&mut self, conn: Conn, epoch: Epoch, promise: Promise) -> bool {
        let Promise { history, candidate, counts, damage, ensemble, committed } = promise;
        let led = self.led_ensemble();
        let mine = Candidate { epoch: self.current, zxid: self.history.last() };
        let base = self.history.base();
        let contradicts = committed > base && !self.history.contains(committed);
        let Role::Leading(leading) = &mut self.role else { return false };
        let Some(learner) = leading.learners.get_mut(&conn) else { return false };
        let asked = match leading.phase {
            Phase::Promising { epoch, .. }
            | Phase::Synchronising { epoch, .. }
            | Phase::Established { epoch } => Some(epoch),
            Phase::Discovery => None,
        };
        if learner.stage != Stage::Asked || asked != Some(epoch) {
            self.drop_learner(conn, "ACKEPOCH out of turn");
            return false;
        }
        let theirs = Standing::new(ensemble, candidate.epoch, &history, damage.is_some());
        let stranger = ensemble != Some(led) && !is_on(Mutant::ForeignEnsembleTrusted);
        if stranger && theirs.bound {
            self.drop_learner(conn, "the learner belongs to another ensemble");
            return false;
        }
        let blank = history.is_blank();
        learner.stage = Stage::Promised { history, log_end: mine.zxid };
        // A server that never synchronised has an empty log, or lost its log together with its
        // promises. Its later acks are real. A server with the id of another first start never
        // synchronised with this one.
        let fresh = candidate.epoch == Epoch(0) || stranger;
        if contradicts && candidate <= mine {
            // One of the two servers has lost acknowledged data. The learner does not count for the
            // proof of this log.
            leading.contradicting.insert(learner.peer);
        } else if damage.is_some() {
            // The learner may have learned of its damage after an earlier promise. That promise proves
            // nothing either.
            leading.promised.remove(&learner.peer);
            leading.fresh.remove(&learner.peer);
            let of = if fresh || blank { &mut leading.emptied } else { &mut leading.damaged };
            of.insert(learner.peer);
        } else if counts {
            let trusted = !fresh || is_on(Mutant::WipedDiskTrusted);
            let of = if trusted { &mut leading.promised } else { &mut leading.fresh };
            of.insert(learner.peer);
        }
        // A server with only a damaged log has kept its promises.
        if (fresh || damage == Damage::Directory) && learner.voter {
            learner.doubted_until = Some(leading.round + 1);
            leading.round_wanted = true;
            leading.heard.remove(&learner.peer);
        }
        let (peer, promising) = (learner.peer, matches!(leading.phase, Phase::Promising { .. }));
        // No doubt remains if no quorum is possible without this leader.
        self.end_doubts();
        if self.is_odd() {
            self.suspected = true;
            self.act_as_damaged(
                "so many others have committed what is not in the log of this server that it cannot lead",
            );
            return true;
        }
        if promising {
            // A server with a longer log must lead: its entries may be committed (waitForEpochAck,
            // "Follower is ahead"). A server that can never lead does not matter here.
            if self.roster().can_lead(peer)
                && !damage.is_some()
                && candidate > mine
                && !is_on(Mutant::FollowerAheadIgnored)
            {
                self.look("a follower is ahead of the leader");
            } else {
                self.try_synchronise();
            }
        }
        true
    }

    /// Whether every quorum contains a server with a committed entry that this server lacks. Then this
    /// server is the deviating one.
    fn is_odd(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let roster = self.roster();
        let others = roster.voters().filter(|v| !leading.contradicting.contains(v)).collect();
        !leading.contradicting.is_empty() && !roster.is_quorum(&others)
    }

    /// Whether the promises prove that this server's log has everything committed: they come from a
    /// quorum of servers that still have all acknowledged entries.
    fn is_proven(&self, leading: &Leading) -> bool {
        let proven = leading.promised.iter().copied().chain([self.config.me]).collect();
        self.roster().is_quorum(&proven)
    }

    /// Whether no committed entry can exist. A server that never synchronised has an empty log, or lost
    /// its log together with its promises. Its promise counts if this server also has only markers, and
    /// - this server never synchronised: the first start of an ensemble; or
    /// - every voter has promised, so that no server with more is left. Only in this case servers with
    ///   known loss count too.
    fn needs_no_proof(&self, leading: &Leading) -> bool {
        let roster = self.roster();
        let all: BTreeSet<PeerId> =
            leading.promised.union(&leading.fresh).copied().chain([self.config.me]).collect();
        let with_emptied = || -> BTreeSet<PeerId> { all.union(&leading.emptied).copied().collect() };
        let blank = self.history.is_blank();
        let first_start = self.current == Epoch(0) && roster.is_quorum(&all);
        let everybody = || {
            let there = with_emptied();
            roster.is_quorum(&there) && roster.voters().all(|v| !roster.can_lead(v) || there.contains(&v))
        };
        blank && (first_start || everybody())
    }

    /// Makes the log of this server the log of the epoch, once a quorum has promised.
    fn try_synchronise(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        let Phase::Promising { epoch, durable: true } = leading.phase else { return };
        let proven = self.is_proven(leading);
        if !proven && !self.needs_no_proof(leading) {
            return;
        }
        let Role::Leading(leading) = &mut self.role else { return };
        if !proven {
            // No server is left to which these learners could have promised a greater epoch.
            leading.learners.values_mut().for_each(|l| l.doubted_until = None);
        }
        leading.phase = Phase::Synchronising { epoch, durable: false };
        let (time_ms, level) = (self.stamp(), self.first_level());
        self.ensemble = Some(self.led_ensemble());
        self.push_entry(Entry::marker(epoch, level, time_ms));
        self.persist_epochs(epoch, epoch);
    }
}
