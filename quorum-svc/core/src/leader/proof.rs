//! Statements that hold only while this server leads. A quorum confirms the leadership by a round of
//! pings before they leave.

use api::mutants::{Mutant, is_on};
use api::{PeerId, Ticket, ports::Sign};
use bytes::Bytes;

use super::{Claim, Learner, Proof, Stage};
use crate::{
    Conn, Output, ToLearner,
    zab::{Role, Zab},
};

impl Zab {
    /// Notes a barrier with the present commit point. The answer leaves once a quorum has confirmed
    /// this leadership in a round of pings that starts after this moment. ZooKeeper's `sync` lacks that
    /// round, so a deposed leader can answer it: ZOOKEEPER-1675, -2136.
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

    /// Sends the store's confirmation of a report once a quorum has confirmed that this server still
    /// leads. The next leader gives every session its full time-out from a later start. A confirmation
    /// of an older leader would be a false promise.
    pub(crate) fn leader_confirm(&mut self, to: PeerId, report: Bytes) {
        let max = 2 * self.config.requests_max;
        let Role::Leading(leading) = &mut self.role else { return };
        // The store sends an unconfirmed report again.
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

    pub(super) fn tell_proven(&mut self) {
        let me = self.config.me;
        loop {
            let Role::Leading(leading) = &mut self.role else { return };
            let Some(proof) = leading.proofs.front() else { return };
            let answered = leading.peers(me, |l| l.stage == Stage::Synced && l.round >= proof.round);
            let roster = Zab::last_roster(&self.rosters, &self.initial, self.committed);
            if leading.round < proof.round || !roster.is_quorum(&answered) {
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
                    // The answer reports the commit point, too.
                    learner.note_commit_told(zxid, self.committed);
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
