//! Which requests begin a trace.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use api::chance::{STEP, mix};

/// The share of requests without a client's trace that begin one. A sampler of the SDK decides when a span is
/// built; this decides before, so that an unsampled request builds none.
#[derive(Debug)]
pub struct Ratio {
    /// Of 2^64 equally likely numbers, those below it hit.
    threshold: u64,
    always: bool,
    state: AtomicU64,
}

impl Ratio {
    /// From 0 for none to 1 for all.
    #[must_use]
    pub fn new(ratio: f64) -> Ratio {
        // A cast from a float is clamped.
        let threshold = (ratio * 2f64.powi(64)) as u64;
        // Randomness of the standard library, which it uses for its hash tables.
        let state = AtomicU64::new(RandomState::new().hash_one(0));
        Ratio { threshold, always: ratio >= 1.0, state }
    }

    /// Decides for one request.
    pub(crate) fn hit(&self) -> bool {
        match self.threshold {
            _ if self.always => true,
            0 => false,
            threshold => self.next() < threshold,
        }
    }

    /// SplitMix64 on an atomic: numbers without a visible pattern, at the price of one atomic addition.
    fn next(&self) -> u64 {
        mix(self.state.fetch_add(STEP, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_hits_as_often_as_it_says() {
        let hits = |ratio| {
            let ratio = Ratio::new(ratio);
            (0..100_000).filter(|_| ratio.hit()).count()
        };
        assert_eq!((hits(0.0), hits(-1.0), hits(1.0), hits(2.0)), (0, 0, 100_000, 100_000));
        let one_percent = hits(0.01);
        assert!((800..1200).contains(&one_percent), "{one_percent}");
    }
}
