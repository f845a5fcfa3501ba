use std::fmt::Debug;

use api::PeerId;

use crate::{Quorums, Verdict, check};

/// The votes that each voter ever held, and the servers that ever led, by their rounds. Small, because the explorer keeps millions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Votes<V> {
    /// Round and vote, and the voters that held it then, a bit each. Ascending.
    held: Vec<(u64, V, u64)>,
    /// Round and leader. Ascending.
    led: Vec<(u64, PeerId)>,
}

impl<V> Default for Votes<V> {
    fn default() -> Votes<V> {
        Votes { held: Vec::new(), led: Vec::new() }
    }
}

impl<V: Ord + Copy + Debug> Votes<V> {
    /// A voter holds this vote. Its id is below 64.
    pub fn holds(&mut self, round: u64, vote: V, voter: PeerId) {
        let at = self.held.partition_point(|&(r, v, _)| (r, v) < (round, vote));
        match self.held.get_mut(at) {
            Some((r, v, holders)) if (*r, *v) == (round, vote) => *holders |= 1 << voter.0,
            _ => self.held.insert(at, (round, vote, 1 << voter.0)),
        }
    }

    /// The voters that ever held this vote.
    pub fn holders(&self, round: u64, vote: V) -> impl Iterator<Item = PeerId> + use<V> {
        let found = self.held.iter().find(|&&(r, v, _)| (r, v) == (round, vote));
        let holders = found.map_or(0, |&(_, _, holders)| holders);
        (0..u64::BITS).filter(move |id| holders >> id & 1 == 1).map(PeerId)
    }

    /// Another server that was elected in this round.
    #[must_use]
    pub fn other_leader(&self, round: u64, than: PeerId) -> Option<PeerId> {
        self.led.iter().find(|&&(r, leader)| r == round && leader != than).map(|&(_, leader)| leader)
    }

    /// A server ends its election with this vote, which is for `leader`.
    ///
    /// # Errors
    /// S7: a leader lacks the votes of a quorum of its round, or a server follows one that lacks them and was never elected in it.
    pub fn elected(
        &mut self,
        server: PeerId,
        leader: PeerId,
        round: u64,
        vote: V,
        quorums: &Quorums,
    ) -> Verdict {
        let backed = quorums.has(|id| self.holders(round, vote).any(|holder| holder == id));
        let place = self.led.binary_search(&(round, leader));
        let known = leader != server && place.is_ok();
        check(backed || known, "S7 elected by a quorum", || {
            let holders: Vec<PeerId> = self.holders(round, vote).collect();
            format!("server {server} elects {leader} in round {round}, for which only {holders:?} voted")
        })?;
        if let Err(at) = place
            && leader == server
        {
            self.led.insert(at, (round, leader));
        }
        Ok(())
    }
}
