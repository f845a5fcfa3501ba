//! Whether a node is there for others: asked by clients that come fresh, and by its own probe.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use client_sdk::{Client, Options};
use history::History;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::operations::TOP;

/// A time in which nothing is wrong but that some clients are rude.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

impl Window {
    fn has(&self, from: Instant, to: Instant) -> bool {
        self.from <= from && to <= self.to
    }
}

/// One probe of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sample {
    node: u32,
    from: Instant,
    to: Instant,
    /// The answer of /readyz, with the reason if the node is not ready; `None` if it did not answer in time.
    ready: Option<Result<(), String>>,
    /// A fresh client was served in time.
    served: bool,
}

/// Looks at all nodes, until it is dropped.
pub(crate) struct Lookout {
    samples: Arc<Mutex<Vec<Sample>>>,
    _tasks: JoinSet<()>,
}

impl Lookout {
    /// By node: its client port and its port for probes.
    pub(crate) fn begin(nodes: impl IntoIterator<Item = (u32, String, String)>) -> Lookout {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let mut tasks = JoinSet::new();
        for (node, endpoint, http) in nodes {
            let samples = samples.clone();
            tasks.spawn(async move {
                loop {
                    let from = Instant::now();
                    let before = ready(&http).await;
                    let served = timeout(SERVED_WITHIN, serve(&endpoint)).await == Ok(true);
                    // In between it may have changed: then neither is wrong.
                    let after = ready(&http).await;
                    let same = before.as_ref().map(Result::is_ok) == after.as_ref().map(Result::is_ok);
                    if same {
                        let sample = Sample { node, from, to: Instant::now(), ready: after, served };
                        samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        Lookout { samples, _tasks: tasks }
    }

    /// The violations while only clients were rude, as a sentence each; and the number of probes in that
    /// time.
    pub(crate) fn judge(&self, windows: &[Window]) -> (Vec<String>, usize) {
        judge(&self.samples.lock().unwrap_or_else(PoisonError::into_inner), windows)
    }
}

async fn ready(http: &str) -> Option<Result<(), String>> {
    let answer = host::http::ask(http, "GET", "/readyz", "", SERVED_WITHIN).await;
    answer.ok().map(|(status, text)| if status == 200 { Ok(()) } else { Err(text.trim_end().to_owned()) })
}

async fn serve(endpoint: &str) -> bool {
    let options = Options { connect_timeout: SERVED_WITHIN, ..Options::default() };
    let Ok(client) = Client::connect([endpoint], options).await else { return false };
    let served = client.exists(TOP).await.is_ok();
    let _ = client.close().await;
    served
}

fn judge(samples: &[Sample], windows: &[Window]) -> (Vec<String>, usize) {
    let judged: Vec<&Sample> =
        samples.iter().filter(|s| windows.iter().any(|w| w.has(s.from, s.to))).collect();
    let problems = judged.iter().filter_map(|s| match (&s.ready, s.served) {
        (Some(Ok(())), true) | (Some(Err(_)), false) => None,
        (None, _) => Some(format!("node {}: /readyz does not answer within {SERVED_WITHIN:?}", s.node)),
        (Some(Ok(())), false) => Some(format!(
            "node {} says that it is ready, and serves no client within {SERVED_WITHIN:?}",
            s.node
        )),
        (Some(Err(why)), true) => {
            Some(format!("node {} serves, and says that it is not ready: {why}", s.node))
        }
    });
    (problems.collect(), judged.len())
}

/// The longest that a call took which was made while only clients were rude, in microseconds, and a sentence for each that took
/// too long. `start`: where the clock of the history begins.
pub(crate) fn others_go_on(history: &History, start: Instant, windows: &[Window]) -> (u64, Vec<String>) {
    let at = |us: u64| start + Duration::from_micros(us);
    let (mut longest, mut problems) = (0, Vec::new());
    for (i, operation) in history.operations.iter().enumerate() {
        let called = at(operation.called);
        // One that the window did not give enough time says nothing.
        let Some(window) = windows.iter().find(|w| w.has(called, called + SERVED_WITHIN)) else { continue };
        let took = operation.returned.map(|returned| returned - operation.called);
        longest = longest.max(took.unwrap_or_else(|| (window.to - called).as_micros() as u64));
        if took.is_none_or(|took| took > SERVED_WITHIN.as_micros() as u64) {
            problems.push(format!(
                "operation {i} is not answered within {SERVED_WITHIN:?} while others are rude"
            ));
        }
    }
    (longest, problems)
}

/// The longest time from the end of all faults to the next write that is carried out, in microseconds; `None`
/// if `calms` is empty. `calms`: the times without faults, and `writes`, the times of
/// answers, on the same clock.
pub(crate) fn slowest_recovery(calms: &[(u64, u64)], writes: &[u64]) -> Option<u64> {
    let mut writes = writes.to_vec();
    writes.sort_unstable();
    let recovery = |&(from, to): &(u64, u64)| {
        let next = writes.get(writes.partition_point(|&at| at < from)).copied();
        match next {
            Some(at) if at <= to => Some(at - from),
            // The next fault came first: this is a lower bound.
            _ => Some(to - from),
        }
    };
    calms.iter().filter_map(recovery).max()
}

/// Limit for a call of other clients while some are rude, on a machine that is busy with the rude ones as
/// well.
const SERVED_WITHIN: Duration = Duration::from_millis(1_500);

const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use history::{Call, Operation, Outcome};

    use super::*;

    #[test]
    fn readiness_that_lies_is_found_and_only_while_nothing_else_is_wrong() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let windows = [Window { from: at(10), to: at(20) }];
        let sample = |s, ready, served| Sample { node: 2, from: at(s), to: at(s + 1), ready, served };
        let found = |sample| judge(&[sample], &windows).0.len();
        assert_eq!(found(sample(12, Some(Ok(())), true)), 0);
        assert_eq!(found(sample(12, Some(Err("why".to_owned())), false)), 0, "its readiness agrees");
        assert_eq!(found(sample(12, Some(Ok(())), false)), 1);
        assert_eq!(found(sample(12, Some(Err("why".to_owned())), true)), 1);
        assert_eq!(found(sample(12, None, true)), 1);
        assert_eq!(found(sample(9, Some(Ok(())), false)), 0, "before");
        assert_eq!(found(sample(20, Some(Ok(())), false)), 0, "behind");
    }

    #[test]
    fn calls_that_wait_for_rude_clients_are_found() {
        let start = Instant::now();
        let windows = [Window { from: start + Duration::from_secs(10), to: start + Duration::from_secs(20) }];
        let found = |called: u64, took: Option<u64>| {
            let operation = Operation {
                client: 1,
                session: None,
                unary: false,
                node: None,
                called: called * 1_000,
                returned: took.map(|took| (called + took) * 1_000),
                call: Call::Sync,
                outcome: Outcome::Unknown,
            };
            others_go_on(&History { operations: vec![operation] }, start, &windows)
        };
        assert_eq!(found(12_000, Some(40)), (40_000, Vec::new()));
        assert_eq!(found(12_000, Some(1_600)).1.len(), 1);
        assert_eq!(found(12_000, None).1.len(), 1);
        assert_eq!(found(9_000, Some(5_000)).1.len(), 0, "before");
        assert_eq!(found(19_900, None).1.len(), 0, "the window says nothing of it");
    }

    #[test]
    fn recovery_counts_from_the_end_of_all_faults_to_the_next_write() {
        assert_eq!(slowest_recovery(&[], &[5]), None);
        assert_eq!(slowest_recovery(&[(10, 20), (30, 90)], &[5, 12, 40, 41]), Some(10));
        assert_eq!(slowest_recovery(&[(10, 20), (30, 90)], &[12]), Some(60), "no write at all");
    }
}
