use std::time::Duration;

use api::mutants::{Mutant, is_on};

/// Pauses between attempts to link to one peer: they double while attempts fail.
#[derive(Clone, Copy, Debug)]
pub struct Redial(Duration);

/// Pause after the first failure.
const MIN: Duration = Duration::from_millis(50);

/// The longest pause. A link that lasted longer than this resets the pause to the shortest.
const MAX: Duration = Duration::from_secs(1);

impl Default for Redial {
    fn default() -> Redial {
        Redial(MIN)
    }
}

impl Redial {
    /// Pause after a failed attempt, or after the end of a link that existed for `lasted`. `jitter`
    /// returns a time below its argument: servers that lost each other at one moment then do not dial
    /// at one moment.
    pub fn pause(&mut self, lasted: Duration, jitter: impl FnOnce(Duration) -> Duration) -> Duration {
        if lasted > MAX {
            if is_on(Mutant::RedialsLate) {
                return Duration::from_secs(40);
            }
            self.0 = MIN;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(MAX);
        pause + jitter(pause / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_a_link_that_lasted_resets_them() {
        let mut redial = Redial::default();
        let mut pause = |lasted| redial.pause(lasted, |most| most / 2).as_micros();
        let pauses: Vec<u128> = (0..7).map(|_| pause(MAX)).collect();
        assert_eq!(pauses, [62_500, 125_000, 250_000, 500_000, 1_000_000, 1_250_000, 1_250_000]);
        assert_eq!(pause(MAX + MIN), 62_500);
    }
}
