//! The invariants of votes and decisions.

use std::collections::BTreeSet;

use api::PeerId;
use api::ports::Role;
use election_core::{Notification, Vote};

use super::{Election, World, peer, place};

impl Election {
    /// S4: no voter votes for less than itself.
    pub(super) fn judge_vote(&self, world: &mut World, i: usize, says: &Notification) -> Result<(), String> {
        let &Notification { state, vote: Some(vote), round } = says else { return Ok(()) };
        if !self.ensemble.is_voter(peer(i)) {
            return Ok(());
        }
        let own = Vote { candidate: self.candidate(i), leader: peer(i) };
        if state == Role::Looking && vote < own {
            return Err(format!("S4: server {} votes for {vote:?}, which is less than itself", peer(i)));
        }
        world.ghost.holds(round.0, vote, i);
        Ok(())
    }

    /// A leader has the votes of a quorum in its round; the leader of a follower has them too, or was
    /// elected.
    pub(super) fn judge_elected(&self, world: &mut World, i: usize, leader: PeerId) -> Result<(), String> {
        let Some(Notification { vote: Some(vote), round, .. }) = self.says(&world.state, i) else {
            return Err(format!("server {} elects {leader} without a vote for it", peer(i)));
        };
        if vote.leader != leader || !self.ensemble.is_voter(leader) {
            return Err(format!("S7: server {} elects {leader}, its vote is {vote:?}", peer(i)));
        }
        let holders: BTreeSet<PeerId> = world.ghost.holders(round.0, vote).map(peer).collect();
        let backed = self.ensemble.is_quorum(&holders);
        if leader == peer(i) {
            if !backed {
                return Err(format!("S7: {leader} leads in round {round}, elected by {holders:?} only"));
            }
            let other = world.ghost.leads(round.0, i);
            let calm = self.setup.timely && self.setup.crashes == 0 && self.setup.cuts == 0;
            if let Some(other) = other.filter(|_| calm) {
                return Err(format!("round {round} has two leaders, {} and {leader}", peer(other)));
            }
            self.judge_best(&holders, vote)?;
        } else if !backed && !world.ghost.led(round.0, place(leader)) {
            return Err(format!(
                "server {} follows {leader}, which was never elected in round {round}",
                peer(i)
            ));
        }
        Ok(())
    }

    /// S3: the log of a leader is at least as complete as that of every voter in the quorum that elected it.
    fn judge_best(&self, holders: &BTreeSet<PeerId>, vote: Vote) -> Result<(), String> {
        let truly = self.candidate(place(vote.leader));
        match holders.iter().find(|&&p| self.candidate(place(p)) > truly) {
            Some(better) => Err(format!("S3: {} was elected by {better}, which has more", vote.leader)),
            None => Ok(()),
        }
    }

    /// On a timely network without faults every decision leads to a reign.
    pub(super) fn judge_in_vain(&self, i: usize) -> Result<(), String> {
        if self.setup.timely && self.setup.crashes == 0 && self.setup.cuts == 0 {
            return Err(format!("server {} decided in vain", peer(i)));
        }
        Ok(())
    }
}
