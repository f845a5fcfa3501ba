//! The observer's knowledge: the votes that each server ever held, and the servers that ever led.

use election_core::Vote;

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ghost {
    /// Round and vote, and the voters that held it then, a bit each. Ascending.
    held: Vec<(u64, Vote, u8)>,
    /// Who led, by the round that elected it. Ascending.
    led: Vec<(u64, usize)>,
}

impl Ghost {
    pub(crate) fn holds(&mut self, round: u64, vote: Vote, who: usize) {
        let at = self.held.partition_point(|&(r, v, _)| (r, v) < (round, vote));
        match self.held.get_mut(at) {
            Some((r, v, holders)) if (*r, *v) == (round, vote) => *holders |= 1 << who,
            _ => self.held.insert(at, (round, vote, 1 << who)),
        }
    }

    pub(crate) fn holders(&self, round: u64, vote: Vote) -> impl Iterator<Item = usize> {
        let found = self.held.iter().find(|&&(r, v, _)| (r, v) == (round, vote));
        let holders = found.map_or(0, |&(_, _, holders)| holders);
        (0..8).filter(move |i| holders >> i & 1 == 1)
    }

    /// Notes a leader; another one of the same round, if there was one.
    pub(crate) fn leads(&mut self, round: u64, who: usize) -> Option<usize> {
        let other = self.led.iter().find(|&&(r, w)| r == round && w != who).map(|&(_, w)| w);
        if let Err(at) = self.led.binary_search(&(round, who)) {
            self.led.insert(at, (round, who));
        }
        other
    }

    pub(crate) fn led(&self, round: u64, who: usize) -> bool {
        self.led.contains(&(round, who))
    }
}
