//! Which endpoint comes next, and when.

use std::time::Duration;

use api::chance::SplitMix;

use crate::Config;

/// Goes round the endpoints from a random one on: the first round without a pause, then with a pause before every
/// round that doubles. Jitter keeps the clients of a failed node from arriving at the next one together.
#[derive(Debug)]
pub(crate) struct Backoff {
    endpoints: usize,
    next: usize,
    /// Attempts in a row that brought nothing.
    failures: u32,
    min: Duration,
    max: Duration,
    random: SplitMix,
}

impl Backoff {
    pub(crate) fn new(config: &Config, seed: u64) -> Backoff {
        let endpoints = config.endpoints.max(1);
        let mut backoff = Backoff {
            endpoints,
            next: 0,
            failures: 0,
            min: config.backoff_min,
            max: config.backoff_max,
            random: SplitMix(seed),
        };
        backoff.next = (backoff.random.draw() % endpoints as u64) as usize;
        backoff
    }

    /// The endpoint to try now; the one after it will be next.
    pub(crate) fn take_endpoint(&mut self) -> usize {
        let endpoint = self.next;
        self.next = (endpoint + 1) % self.endpoints;
        endpoint
    }

    /// Try this one again before any other: it works.
    pub(crate) fn prefer(&mut self, endpoint: usize) {
        self.next = endpoint % self.endpoints;
    }

    /// An attempt or a connection ended; returns the pause before the next one.
    pub(crate) fn failed(&mut self) -> Duration {
        let round = self.failures / u32::try_from(self.endpoints).unwrap_or(u32::MAX);
        let starts_round = self.failures.is_multiple_of(u32::try_from(self.endpoints).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        if round == 0 || !starts_round {
            return Duration::ZERO;
        }
        let pause = self.min.saturating_mul(1 << (round - 1).min(20)).min(self.max);
        // Between a half and the whole of it.
        pause.mul_f64(0.5 + (self.random.draw() >> 11) as f64 / (1u64 << 54) as f64)
    }

    /// A request was answered: earlier failures no longer count. A mere connection does not reset the
    /// backoff, or the client would hammer a node that accepts sessions and nothing else.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn backoff(endpoints: usize, seed: u64) -> Backoff {
        Backoff::new(&Config { endpoints, ..Config::default() }, seed)
    }

    #[test]
    fn every_endpoint_has_its_turn_and_the_first_is_random() {
        let firsts: BTreeSet<usize> = (0..50).map(|seed| backoff(3, seed).take_endpoint()).collect();
        assert_eq!(firsts, BTreeSet::from([0, 1, 2]));
        let mut b = backoff(3, 7);
        let round: BTreeSet<usize> = (0..3).map(|_| b.take_endpoint()).collect();
        assert_eq!(round, BTreeSet::from([0, 1, 2]));
        b.prefer(2);
        assert_eq!(b.take_endpoint(), 2);
    }

    #[test]
    fn a_round_is_fast_and_pauses_double_up_to_the_limit() {
        let mut b = backoff(3, 1);
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        for round in 0..12 {
            let pause = ms(b.failed());
            let full = if round == 0 { 0.0 } else { f64::min(20.0 * f64::powi(2.0, round - 1), 1000.0) };
            assert!(pause >= full / 2.0 && pause <= full, "round {round}: {pause} ms");
            assert_eq!((b.failed(), b.failed()), (Duration::ZERO, Duration::ZERO));
        }
        b.succeeded();
        assert_eq!(b.failed(), Duration::ZERO);
    }
}
