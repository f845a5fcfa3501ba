//! The checks at the end of a run.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use client_sdk::NodeStatus;
use history::{Committed, History, Outcome, Summary, Violation, check_linearizable, check_order};

use crate::{ensemble::Ensemble, logs};

/// So soon after the last client has gone, all nodes have to have the same state.
const AGREES_WITHIN: Duration = Duration::from_secs(30);

/// Steps for each group of znodes: a few seconds, and some hundred megabytes, at most.
const STEPS_MAX: u64 = 500_000;

/// Waits until all nodes serve and have applied the same, and compares their digests. Returns how long that took.
///
/// # Errors
/// A sentence for people.
pub(crate) async fn agrees(ensemble: &Ensemble) -> Result<Duration, String> {
    let start = Instant::now();
    loop {
        let status = ensemble.status().await;
        let nodes: Vec<&NodeStatus> =
            status.iter().flatten().filter(|s| s.serving && s.applied == s.zxid).collect();
        if let [first, rest @ ..] = nodes.as_slice()
            && nodes.len() == status.len()
            && rest.iter().all(|s| s.applied == first.applied)
        {
            return match rest.iter().find(|s| s.digest != first.digest) {
                None => Ok(start.elapsed()),
                Some(other) => Err(format!(
                    "nodes {} and {} have both applied {} and have different digests: {:#x} and {:#x}",
                    first.id, other.id, first.applied, first.digest, other.digest
                )),
            };
        }
        if start.elapsed() > AGREES_WITHIN {
            let nodes: Vec<String> = status.iter().map(brief).collect();
            return Err(format!(
                "{AGREES_WITHIN:?} after the end the nodes do not have the same: {}",
                nodes.join("; ")
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn brief(status: &Option<NodeStatus>) -> String {
    match status {
        Some(s) => format!(
            "node {} {:?}, serving: {}, last {}, committed {}, applied {}",
            s.id, s.role, s.serving, s.zxid, s.committed, s.applied
        ),
        None => "a node does not answer".to_owned(),
    }
}

/// The findings of the checkers.
pub(crate) struct Checked {
    pub(crate) log: Option<Vec<Committed>>,
    pub(crate) order: Option<Summary>,
    pub(crate) search: Option<Summary>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) problems: Vec<String>,
}

/// Reads the logs of the nodes, which must be stopped, and runs both checkers. `whole`: the log must be
/// complete.
pub(crate) fn check(history: &History, log_dirs: &[PathBuf], whole: bool) -> Checked {
    let mut checked =
        Checked { log: None, order: None, search: None, violations: Vec::new(), problems: Vec::new() };
    match logs::union(log_dirs) {
        Ok(Some(log)) => checked.log = Some(log),
        Ok(None) if !whole => {}
        Ok(None) => checked.problems.push("the beginning of the log is purged on all nodes".to_owned()),
        Err(e) => checked.problems.push(e),
    }
    match check_order(history, checked.log.as_deref()) {
        Ok(summary) => checked.order = Some(summary),
        Err(violation) => checked.violations.push(violation),
    }
    match check_linearizable(history, STEPS_MAX) {
        Ok(summary) => checked.search = Some(summary),
        Err(violation) => checked.violations.push(violation),
    }
    let written = history.operations.iter().filter(|o| matches!(o.outcome, Outcome::Written { .. })).count();
    if written < WRITTEN_MIN {
        checked.problems.push(format!("only {written} writes were carried out: that proves nothing"));
    }
    checked
}

/// Fewer writes than this are no test.
const WRITTEN_MIN: usize = 100;
