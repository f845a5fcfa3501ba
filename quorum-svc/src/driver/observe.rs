//! Metrics, spans and log lines for the outputs of the core.

use api::peer::ToLearner;
use api::ports::{FeedItem, Role};
use quorum_core::{Output, Zab};
use spans::lines;
use telemetry::metrics;

use crate::measure::Measure;
use crate::trace::Traces;

/// Measures, traces and logs an output of the core.
pub(super) fn observe(core: &Zab, output: &mut Output, measure: &mut Measure, traces: &mut Traces) {
    if let Output::Elect(_) = output {
        traces.looking();
    }
    let recovery = lines(traces.recovery());
    let lines = recovery.entered();
    match output {
        Output::Elect(Some(c)) => tracing::info!(epoch = %c.epoch, zxid = %c.zxid, "looking for a leader"),
        Output::Elect(None) => tracing::info!("looking for a leader without standing for election"),
        Output::Settled { leader, epoch } => tracing::info!(%leader, %epoch, "settled"),
        Output::Disconnect { conn, why } => {
            tracing::info!(conn = conn.0, why, "disconnect");
            measure.learner_down(*conn);
        }
        Output::ToLeader { message, .. } => traces.sent_to_leader(message),
        Output::ToLearner { conn, message: ToLearner::UpToDate { .. } } => measure.learner_synced(*conn),
        Output::Replicate { conn, after, upto, .. } => {
            measure.replicated(*conn, *after, *upto, core.history())
        }
        Output::Append(entries) => {
            let leading = core.status().role == Role::Leading;
            measure.appended(entries, leading);
            traces.appended(entries, leading);
        }
        Output::Truncate { to } => {
            tracing::info!(%to, "truncating the log");
            traces.truncated(*to);
        }
        Output::InstallSnapshot { zxid, .. } => {
            tracing::info!(%zxid, "the log starts anew behind the leader's snapshot");
        }
        Output::Committed { upto } => measure.committed(*upto, core.history()),
        Output::Tell(item) => {
            if let FeedItem::Status(status) = &item {
                tracing::info!(role = ?status.role, serving = status.serving, leader = ?status.leader.map(|l| l.0),
                    epoch = %status.epoch, room = ?status.room, "status");
                measure.status(status);
            }
            if let FeedItem::Refused { .. } = &item {
                metrics::REFUSED_WRITES.add(1);
            }
            drop(lines);
            traces.told(item);
        }
        Output::LevelSet { result: Ok(level), .. } => {
            tracing::info!(%level, "the feature level that was asked for is committed");
        }
        Output::Reconfigured { result: Ok(version), .. } => {
            tracing::info!(%version, "the change of the members that was asked for is done");
        }
        Output::Reconfigured { result: Err(why), .. } => {
            tracing::warn!(%why, "the members stay as they are");
        }
        Output::LevelSet { result: Err(why), .. } => {
            tracing::warn!(%why, "the feature level stays as it is");
        }
        _ => {}
    }
}
