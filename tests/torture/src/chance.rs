//! Numbers that look random and come from a seed.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    ops::Range,
    time::Duration,
};

/// A generator (splitmix64): small, good enough to choose faults with, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// One that is independent of this one.
    pub(crate) fn fork(&mut self) -> Chance {
        Chance(self.draw())
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Of a range that is not empty. Slightly uneven for huge ranges.
    pub(crate) fn number(&mut self, range: Range<u64>) -> u64 {
        range.start + self.draw() % (range.end - range.start).max(1)
    }

    /// True so many times of a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.number(0..100) < percent
    }

    /// Of a range in milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    /// One of these; `None` of none.
    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let len = u64::try_from(of.len()).ok().filter(|&len| len > 0)?;
        of.get(usize::try_from(self.number(0..len)).ok()?).cloned()
    }
}

/// A seed that nobody has chosen: the standard library seeds its hash maps from the system's generator.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000
}
