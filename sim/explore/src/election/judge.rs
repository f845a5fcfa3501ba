//! The invariants of votes and decisions.

use api::PeerId;
use api::ports::Role;
use election_core::{Notification, Vote};

use super::{Election, World, peer, place};

impl Election {
    /// S4: no voter votes for less than itself.
    pub(super) fn judge_vote(&self, world: &mut World, i: usize, says: &Notification) -> Result<(), String> {
        let &Notification { state, vote: Some(vote), round, .. } = says else { return Ok(()) };
        if !self.ensemble.is_voter(peer(i)) {
            return Ok(());
        }
        let own = Vote { candidate: self.candidate(i), leader: peer(i) };
        if state == Role::Looking && vote < own {
            return Err(format!("S4: server {} votes for {vote:?}, which is less than itself", peer(i)));
        }
        world.ghost.holds(round.0, vote, peer(i));
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
        world.ghost.elected(peer(i), leader, round.0, vote, &self.quorums)?;
        if leader == peer(i) {
            let calm = self.setup.timely && self.setup.crashes == 0 && self.setup.cuts == 0;
            if let Some(other) = world.ghost.other_leader(round.0, leader).filter(|_| calm) {
                return Err(format!("round {round} has two leaders, {other} and {leader}"));
            }
            self.judge_best(world.ghost.holders(round.0, vote), vote)?;
        }
        Ok(())
    }

    /// S3: the log of a leader is at least as complete as that of every voter in the quorum that elected it.
    fn judge_best(&self, mut holders: impl Iterator<Item = PeerId>, vote: Vote) -> Result<(), String> {
        let truly = self.candidate(place(vote.leader));
        match holders.find(|&p| self.candidate(place(p)) > truly) {
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
