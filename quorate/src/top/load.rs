//! Rates and latencies from two answers of a node.

use std::time::Duration;

use client_sdk::{Load, LoadRange, NodeStatus};

/// What a node did between two answers.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Activity {
    pub(super) reads: Times,
    pub(super) writes: Times,
    /// Errors per second.
    pub(super) errors: f64,
}

/// Requests of one kind.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Times {
    /// Per second.
    pub(super) rate: f64,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
}

/// What a node did in the time between two of its answers; `None` if it was started again in between.
pub(super) fn activity(before: &NodeStatus, now: &NodeStatus, elapsed: Duration) -> Option<Activity> {
    if now.uptime < before.uptime || elapsed.is_zero() {
        return None;
    }
    let (Load { errors, reads, writes }, new) = (&before.load, &now.load);
    let seconds = elapsed.as_secs_f64();
    Some(Activity {
        reads: times(reads, &new.reads, seconds)?,
        writes: times(writes, &new.writes, seconds)?,
        errors: new.errors.checked_sub(*errors)? as f64 / seconds,
    })
}

fn times(before: &[LoadRange], now: &[LoadRange], seconds: f64) -> Option<Times> {
    let counts = now.iter().enumerate().map(|(index, range)| {
        let earlier = before.get(index).map_or(0, |range| range.requests);
        range.requests.checked_sub(earlier).map(|requests| LoadRange { requests, ..*range })
    });
    let counts = counts.collect::<Option<Vec<LoadRange>>>()?;
    let requests: u64 = counts.iter().map(|range| range.requests).sum();
    Some(Times {
        rate: requests as f64 / seconds,
        p50: quantile(&counts, requests, 0.5),
        p99: quantile(&counts, requests, 0.99),
    })
}

/// The time that this share of the requests did not exceed, as if those of a range were spread evenly over it.
fn quantile(ranges: &[LoadRange], requests: u64, share: f64) -> Option<Duration> {
    if requests == 0 {
        return None;
    }
    let rank = requests as f64 * share;
    let (mut below, mut from) = (0.0, Duration::ZERO);
    for range in ranges {
        let Some(up_to) = range.up_to else { break };
        let count = range.requests as f64;
        if count > 0.0 && below + count >= rank {
            return Some(from + up_to.saturating_sub(from).mul_f64(((rank - below) / count).clamp(0.0, 1.0)));
        }
        below += count;
        from = up_to;
    }
    // Longer than any range has an end.
    Some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(counts: [u64; 4]) -> Vec<LoadRange> {
        let ends = [1, 2, 4].map(|ms| Some(Duration::from_millis(ms))).into_iter().chain([None]);
        ends.zip(counts).map(|(up_to, requests)| LoadRange { up_to, requests }).collect()
    }

    #[test]
    fn rates_and_latencies_are_of_the_time_between_two_answers() {
        let found = times(&ranges([100, 0, 0, 0]), &ranges([150, 40, 10, 0]), 2.0).unwrap();
        assert_eq!(found.rate, 50.0);
        assert_eq!(found.p50, Some(Duration::from_millis(1)));
        assert_eq!(found.p99, Some(Duration::from_micros(3_800)));
        let idle = times(&ranges([1; 4]), &ranges([1; 4]), 1.0).unwrap();
        assert_eq!((idle.rate, idle.p50), (0.0, None));
        let long = times(&[], &ranges([0, 0, 0, 5]), 1.0).unwrap();
        assert_eq!(long.p50, Some(Duration::from_millis(4)));
        assert_eq!(times(&ranges([1; 4]), &ranges([0; 4]), 1.0), None, "another start of the node");
    }
}
