//! Numbers that look random and depend on nothing but a seed: the same in every run and on every machine.

use std::{ops::Range, time::Duration};

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): turns numbers of any pattern into numbers without a visible one, no two
/// into the same.
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The step of SplitMix64 from one number to the next: odd, and near the golden ratio of 2^64.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64: one word of state, enough for a few draws.
#[derive(Clone, Debug)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }
}

/// xoshiro256++ (Blackman, Vigna 2019), seeded by SplitMix64: for tests and simulations, which draw much.
#[derive(Clone, Debug)]
pub struct Chance([u64; 4]);

impl Chance {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        let mut words = SplitMix(seed);
        Chance(std::array::from_fn(|_| words.draw()))
    }

    /// One of the many sequences of a seed, which do not disturb each other. Stream 0 is [`Chance::new`].
    #[must_use]
    pub fn stream(seed: u64, stream: u64) -> Chance {
        Chance::new(seed ^ stream.wrapping_mul(0xa076_1d64_78bd_642f))
    }

    /// A sequence that is independent of the rest of this one.
    #[must_use]
    pub fn fork(&mut self) -> Chance {
        Chance::new(self.draw())
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        let s = &mut self.0;
        let drawn = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        drawn
    }

    /// Less than `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// An index into a list of this length; 0 if it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// From `low` to `high`, each order of magnitude as likely as any other.
    pub fn scale(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(low).max(1));
        let most = self.between(low.ilog2().into(), high.ilog2().into());
        self.between(low.max(1 << most), high.min((2 << most) - 1))
    }

    /// Of a range in milliseconds; its start if it is empty.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end.saturating_sub(range.start)))
    }

    /// True in this many of 1,000 cases.
    pub fn per_mille(&mut self, of: u64) -> bool {
        self.below(1000) < of
    }

    /// True in this many of 100 cases.
    pub fn percent(&mut self, of: u64) -> bool {
        self.below(100) < of
    }

    /// One of these; `None` of none.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.index(of.len())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds of the simulator keep their meaning, and so do the salts of segments on disk.
    #[test]
    fn the_sequences_are_those_of_the_published_algorithms() {
        // Published with the reference implementation of SplitMix64.
        let mut words = SplitMix(1_234_567);
        assert_eq!(
            [words.draw(), words.draw(), words.draw()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
        // Of the state 1, 2, 3, 4; published with implementations of xoshiro256++.
        let mut chance = Chance([1, 2, 3, 4]);
        assert_eq!(
            [chance.draw(), chance.draw(), chance.draw()],
            [41_943_041, 58_720_359, 3_588_806_011_781_223]
        );
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_them() {
        let mut chance = Chance::new(1);
        let drawn: std::collections::BTreeSet<u64> = (0..100).map(|_| chance.between(3, 5)).collect();
        assert_eq!(drawn, [3, 4, 5].into());
        assert!((0..1000).all(|_| (7..=900).contains(&chance.scale(7, 900))));
        let hits = (0..10_000).filter(|_| chance.per_mille(100)).count();
        assert!((800..1200).contains(&hits), "{hits}");
        assert_eq!((chance.below(0), chance.pick::<u8>(&[]), chance.pick(&[7])), (0, None, Some(7)));
        let streams: [u64; 3] = std::array::from_fn(|stream| Chance::stream(1, stream as u64).draw());
        assert!(streams[0] == Chance::new(1).draw() && streams[0] != streams[1] && streams[1] != streams[2]);
    }
}
