//! The log: entries, epochs, and the actions that wait for their durability.

use api::mutants::{Mutant, is_on};
use api::{
    Entry, Epoch, Zxid,
    ports::{Candidate, FeedItem, QuorumStatus},
};

use super::{CLOCK_BOUND_MS, Leaving, Role, Zab};
use crate::Output;

impl Zab {
    /// Appends to the log at the end of this turn.
    pub(crate) fn push_entry(&mut self, entry: Entry) {
        assert!(
            self.history.append(entry.zxid),
            "entry {} does not follow {}",
            entry.zxid,
            self.history.last()
        );
        self.last_stamp = entry.stamp();
        if let Some(level) = entry.body.level() {
            self.levels.append(entry.zxid, level);
        }
        let roster = entry.body.roster().cloned();
        self.append.push(entry);
        if let Some(roster) = roster {
            self.rosters.append(roster);
            self.members_changed();
        }
    }

    /// The time for an entry, from the clocks of a quorum. The log's time does not go back, with one
    /// exception: if it is ahead of the clocks of a whole quorum by more than [`CLOCK_BOUND_MS`], some
    /// clocks were wrong at its last stamp, and it continues with the clocks of the quorum.
    pub(crate) fn stamp(&self) -> i64 {
        let last = self.last_stamp.time_ms;
        if is_on(Mutant::OwnClockStamped) {
            return last.max(self.now.wall_ms);
        }
        match self.quorum_clocks() {
            Some((_, latest)) if last > latest.saturating_add(CLOCK_BOUND_MS) => latest,
            Some((reached, _)) => last.max(reached),
            // A leader with the promises of a quorum knows its clocks.
            None => last,
        }
    }

    pub(crate) fn persist_epochs(&mut self, accepted: Epoch, current: Epoch) {
        assert!(
            self.accepted <= accepted && self.current <= current && current <= accepted,
            "epochs never decrease"
        );
        (self.accepted, self.current) = (accepted, current);
        self.flush_append();
        self.disk_ops += 1;
        self.epoch_writes += 1;
        let (damage, ensemble, last_stamp) = (self.damage, self.ensemble, self.last_stamp);
        let accepted = if is_on(Mutant::PromiseNotKept) { current } else { accepted };
        // A committed entry that is not durable here may be gone after a crash.
        let committed = self.committed.min(self.durable);
        self.out.push_back(Output::PersistEpochs {
            accepted,
            current,
            damage,
            ensemble,
            committed,
            last_stamp,
        });
    }

    pub(super) fn on_durable(&mut self) {
        match &self.role {
            Role::Leading(_) => self.leader_on_durable(),
            Role::Following(_) => self.learner_on_durable(),
            Role::Looking { .. } => {}
        }
    }

    pub(crate) fn flush_append(&mut self) {
        if !self.append.is_empty() {
            self.out.push_back(Output::Append(std::mem::take(&mut self.append)));
        }
    }

    /// Starts an election. The candidacy must describe the log after a crash, so the disk has to be
    /// idle first.
    pub(super) fn elect(&mut self) {
        if matches!(self.role, Role::Looking { asked: false })
            && self.disk_ops == 0
            && self.durable == self.history.last()
        {
            self.role = Role::Looking { asked: true };
            let stands = self.stands();
            let candidate = Candidate { epoch: self.current, zxid: self.durable };
            let candidate = if is_on(Mutant::LargestIdWins) { Candidate::default() } else { candidate };
            self.out.push_back(Output::Elect(stands.then_some(candidate)));
        }
    }

    /// Whether this server stands for election.
    pub(super) fn stands(&self) -> bool {
        !self.damage().is_some() && self.leaving == Leaving::No && self.may_lead()
    }

    /// Whether this server has a vote that counts, or had one before the last change of the members. Until the end of that
    /// change is committed, the others may need its log: it can have more than any server that votes.
    fn may_lead(&self) -> bool {
        let (me, last) = (self.config.me, self.roster());
        let before = || {
            let zxid = Zxid(last.since().0.saturating_sub(1));
            self.rosters.at(zxid).unwrap_or(&self.initial).can_lead(me)
        };
        last.can_lead(me) || last.since() > self.committed && before()
    }

    /// Ends a turn: the results of several inputs leave in as few outputs as possible.
    pub(super) fn flush(&mut self) {
        self.flush_append();
        self.leave();
        match &self.role {
            Role::Leading(_) => self.leader_flush(),
            Role::Following(_) => self.learner_flush(),
            Role::Looking { .. } => self.elect(),
        }
        let upto = self.committed.min(self.durable);
        let upto = if is_on(Mutant::AppliedBeforeCommit) { self.durable } else { upto };
        if upto > self.delivered {
            self.delivered = upto;
            self.pending.committed(upto);
            self.out.push_back(Output::Committed { upto });
        }
        self.release_barriers();
        let status = self.status();
        let told = QuorumStatus { last: status.last, committed: status.committed, ..self.told };
        if status != told {
            self.told = status;
            self.out.push_back(Output::Tell(FeedItem::Status(status)));
        }
    }

    /// Continues [`Input::Leave`]. A leader hands over once a server that can lead has the whole log.
    /// Then all others agree on the next leader at once, and the ensemble is without a leader only for
    /// a moment.
    pub(super) fn leave(&mut self) {
        match (self.leaving, &self.role) {
            (Leaving::No, Role::Leading(leading)) if leading.retired() => {
                let end = self.history.last();
                let successor = leading.successor(self.roster());
                if successor.is_none_or(|acked| acked >= end) && self.committed >= end {
                    self.look("this server has no vote in the new configuration");
                }
                return;
            }
            (Leaving::No | Leaving::Done, _) => return,
            (Leaving::Asked, Role::Leading(leading)) if leading.established() => {
                let end = self.history.last();
                match leading.successor(self.roster()) {
                    Some(acked) if acked < end || self.committed < end => return,
                    Some(_) => {
                        self.leaving = Leaving::HandedOver;
                        return self.look("this server is about to stop");
                    }
                    None => {}
                }
            }
            (Leaving::HandedOver, _) if !self.serving() => return,
            _ => {}
        }
        self.leaving = Leaving::Done;
        self.out.push_back(Output::Left);
    }

    /// Whether a leader accepts new entries. Before it hands over, its log has to come to rest.
    pub(crate) fn orders(&self) -> bool {
        let retired = matches!(&self.role, Role::Leading(leading) if leading.retired());
        self.leaving != Leaving::Asked && !retired
    }
}
