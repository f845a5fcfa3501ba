//! Counters and timings of the driver. They do not influence the core.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use api::session::{Item, Op, Response, Verb};
use store_core::Server;
use telemetry::{Phase, metrics};

/// Unanswered requests of one connection. They are answered in arrival order, so requests that arrived
/// together are stored and recorded together.
#[derive(Default)]
pub(crate) struct Timings {
    runs: VecDeque<Run>,
}

/// Requests of one kind from one message.
struct Run {
    verb: Verb,
    count: u64,
    received: Instant,
    /// When the driver accepted them.
    taken: Instant,
}

impl Timings {
    /// Adds requests that arrived at `received`, when the driver accepts them.
    pub(crate) fn take_up<'a>(&mut self, received: Instant, ops: impl IntoIterator<Item = &'a Op>) {
        let taken = Instant::now();
        let before = self.runs.len();
        for verb in ops.into_iter().map(Op::verb) {
            match self.runs.back_mut() {
                Some(run) if run.verb == verb && run.received == received && run.taken == taken => {
                    run.count += 1;
                }
                _ => self.runs.push_back(Run { verb, count: 1, received, taken }),
            }
        }
        for run in self.runs.range(before..) {
            let waited = run.taken.saturating_duration_since(run.received);
            metrics::REQUEST_PHASE_DURATION.at((run.verb, Phase::Queue)).record_n(waited, run.count);
        }
    }

    /// Records the durations of these answers.
    pub(crate) fn answered(&mut self, items: &[Item]) {
        let now = Instant::now();
        let mut count = 0;
        for item in items {
            let Item::Response(Response { result, .. }) = item else { continue };
            // An answer without a request would be a bug elsewhere; it is not measured.
            let Some(run) = self.runs.front() else { return };
            count += 1;
            if result.is_err() {
                metrics::REQUEST_ERRORS.at(run.verb).add(1);
            }
            if count == run.count {
                self.record(now, std::mem::take(&mut count));
            }
        }
        self.record(now, count);
    }

    /// Records `count` answers of the first group.
    fn record(&mut self, now: Instant, count: u64) {
        let Some(run) = self.runs.front_mut().filter(|_| count > 0) else { return };
        metrics::REQUEST_DURATION.at(run.verb).record_n(now.saturating_duration_since(run.received), count);
        metrics::REQUEST_PHASE_DURATION.at((run.verb, Phase::Serve)).record_n(now - run.taken, count);
        run.count -= count;
        if run.count == 0 {
            self.runs.pop_front();
        }
    }
}

/// The state of the store, after each turn of the driver.
pub(crate) fn publish(server: &Server, connections: usize) {
    let header = server.state().header();
    metrics::SESSIONS.set(header.sessions);
    metrics::ZNODES.set(header.znodes);
    metrics::DATA_SIZE.set(server.state().tree().bytes() as u64);
    metrics::CHECKPOINT_DIRTY.set(server.state().dirty_len() as u64);
    metrics::STORE_CONNECTIONS.set(connections as u64);
    metrics::STORE_READY.set(u64::from(server.ready()));
    let watches = server.watch_figures();
    metrics::WATCHES.set(watches.watches as u64);
    metrics::WATCH_PATHS.set(watches.paths as u64);
    metrics::WATCH_STREAMS.set(watches.streams as u64);
    metrics::WATCH_SIZE.set(watches.bytes as u64);
    metrics::WATCH_HISTORY.set(watches.history.0 as u64);
    metrics::WATCH_HISTORY_SIZE.set(watches.history.1 as u64);
    let age = watches.history_since_ms.map_or(0, |since| server.state().time_ms().saturating_sub(since));
    metrics::WATCH_HISTORY_AGE.set_time(Duration::from_millis(u64::try_from(age).unwrap_or(0)));
    metrics::WATCH_EVENTS.raise(watches.counted.events);
    metrics::WATCH_LAGS.raise(watches.counted.lags);
    metrics::WATCH_GONE.raise(watches.counted.gone);
    metrics::WATCH_REFUSED.raise(watches.counted.refused);
}

#[cfg(test)]
mod tests {
    use api::{OpError, Zxid, session::Outcome};

    use super::*;

    fn replies(n: usize) -> Vec<Item> {
        let reply = |xid| {
            Item::Response(Response {
                xid,
                zxid: Zxid::ZERO,
                result: if xid == 0 { Err(OpError::Internal("x".into())) } else { Ok(Outcome::Ping) },
                leaderless: false,
            })
        };
        (0..n as u64).map(reply).collect()
    }

    #[test]
    fn answers_are_counted_for_the_requests_that_they_answer_however_they_are_cut() {
        let mut timings = Timings::default();
        let (first, second) = (Instant::now(), Instant::now());
        timings.take_up(first, [&Op::Ping, &Op::Ping, &Op::Sync]);
        timings.take_up(second, [&Op::Sync]);
        let left = |timings: &Timings| timings.runs.iter().map(|r| (r.verb, r.count)).collect::<Vec<_>>();
        assert_eq!(left(&timings)[..2], [(Verb::Ping, 2), (Verb::Sync, 1)]);
        timings.answered(&replies(1));
        assert_eq!(left(&timings)[..2], [(Verb::Ping, 1), (Verb::Sync, 1)]);
        timings.answered(&replies(2));
        assert_eq!(left(&timings), [(Verb::Sync, 1)]);
        timings.answered(&replies(2));
        assert!(timings.runs.is_empty(), "one answer too many does no harm");
    }
}
