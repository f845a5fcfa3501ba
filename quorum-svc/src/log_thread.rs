//! The one thread that writes to the disk.

use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use api::peer::{Damage, Incarnation};
use api::{Entry, Zxid};
use quorum_core::Input;
use quorum_log::{
    Base, EpochError, EpochFile, Epochs, IncarnationError, Log, LogError, SnapshotError, Snapshots,
};
use spans::Span;
use telemetry::metrics;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::acquaintances::Acquaintances;
use crate::backlog::Backlog;
use crate::trace::synced;

/// What one fsync makes durable at most, by weight: on a slow disk a larger batch would keep acks waiting for longer
/// than the leader is patient.
const BATCH_BYTES: usize = 4 << 20;

/// What the core wants done, in its order.
pub(crate) enum Task {
    Append {
        entries: Vec<Entry>,
        /// Of those that are traced; they end when the entries are durable.
        spans: Vec<Span>,
    },
    Epochs(Epochs),
    Truncate(Zxid),
    /// The log starts anew behind a snapshot.
    Reset(Base),
    Purge(Zxid),
    /// Behind the epochs, which say by now that the directory is an older copy. Has no answer.
    Outlive(Incarnation),
    /// The beginning of the log is purged and no sound snapshot is left, so nobody can tell the store what the state is.
    /// Notes that this node has lost what it promised to keep, so that it heals from its leader when it is started again,
    /// if there are others; then stops.
    Forsake {
        may_heal: bool,
    },
}

/// The disk failed. The node stops: what was asked for last may or may not be on it (never try an fsync again).
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskFailure {
    /// Of the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Of the epochs.
    #[error(transparent)]
    Epochs(#[from] EpochError),
    /// Of the snapshots.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// Of the incarnations.
    #[error(transparent)]
    Incarnations(#[from] IncarnationError),
    /// See [`Task::Forsake`].
    #[error(
        "the store needs a state from before the beginning of the log, and no sound snapshot is left; {0}"
    )]
    Forsaken(&'static str),
}

/// The driver's end. Dropping `tasks` ends the thread, once it has done what it was given.
pub(crate) struct LogThread {
    /// Unbounded, because the driver must not wait. What a leader sends is bounded by the [`Backlog`], and what this
    /// node orders as a leader by the core's limits of requests, which count until an entry is durable here too.
    pub(crate) tasks: UnboundedSender<Task>,
    /// One for each task, or fewer for appends.
    pub(crate) done: UnboundedReceiver<Result<Input, DiskFailure>>,
    pub(crate) thread: JoinHandle<()>,
}

pub(crate) fn spawn(
    log: Log,
    epochs: EpochFile,
    snapshots: Snapshots,
    acquaintances: Acquaintances,
    backlog: Backlog,
) -> std::io::Result<LogThread> {
    let (tasks, task_queue) = unbounded_channel();
    let (done_queue, done) = unbounded_channel();
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
        if let Err(failure) = run(log, epochs, &snapshots, &acquaintances, &backlog, task_queue, &done_queue)
        {
            // Nobody listens any more if the driver is gone already.
            let _ = done_queue.send(Err(failure));
        }
    })?;
    Ok(LogThread { tasks, done, thread })
}

fn run(
    mut log: Log,
    mut epochs: EpochFile,
    snapshots: &Snapshots,
    acquaintances: &Acquaintances,
    backlog: &Backlog,
    mut tasks: UnboundedReceiver<Task>,
    done: &UnboundedSender<Result<Input, DiskFailure>>,
) -> Result<(), DiskFailure> {
    let report = |input| {
        let _ = done.send(Ok(input));
    };
    while let Some(first) = tasks.blocking_recv() {
        // Group commit: whatever has come while the last fsync ran is made durable by the next one together.
        let mut batch: Vec<Entry> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(task) = next {
            if !matches!(task, Task::Append { .. }) {
                append(&mut log, &mut batch, &mut spans, backlog, &report)?;
            }
            match task {
                Task::Append { entries, spans: more } => {
                    spans.extend(more);
                    bytes += entries.iter().map(Entry::weight).sum::<usize>();
                    if batch.is_empty() { batch = entries } else { batch.extend(entries) }
                }
                Task::Epochs(e) => {
                    epochs.store(e)?;
                    report(Input::EpochsPersisted);
                }
                Task::Truncate(to) => {
                    log.truncate(to)?;
                    report(Input::Truncated);
                }
                Task::Reset(base) => {
                    log.reset(base)?;
                    match snapshots.adopt_received(base.zxid) {
                        // A newer one has come meanwhile, and its reset follows.
                        Ok(()) | Err(SnapshotError::NotThere { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                    report(Input::SnapshotInstalled);
                }
                Task::Forsake { may_heal: true } => {
                    let before = epochs.epochs();
                    epochs.store(Epochs { damage: before.damage.max(Damage::Log), ..before })?;
                    return Err(DiskFailure::Forsaken(
                        "check the disk, and start the node again: it heals from its leader",
                    ));
                }
                Task::Forsake { may_heal: false } => {
                    return Err(DiskFailure::Forsaken(
                        "there is no other voter to heal from: restore the data directory from a backup",
                    ));
                }
                Task::Outlive(met) => acquaintances.outlive(met)?,
                Task::Purge(upto) => {
                    log.purge(upto)?;
                    report(Input::Purged { base: log.history().base() });
                }
            }
            next = if bytes < BATCH_BYTES { tasks.try_recv().ok() } else { None };
        }
        append(&mut log, &mut batch, &mut spans, backlog, &report)?;
    }
    Ok(())
}

/// Writes and syncs a batch; the report is a promise that it is on the disk.
fn append(
    log: &mut Log,
    batch: &mut Vec<Entry>,
    spans: &mut Vec<Span>,
    backlog: &Backlog,
    report: &impl Fn(Input),
) -> Result<(), DiskFailure> {
    if batch.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    log.append(batch)?;
    let written = Instant::now();
    let wall = SystemTime::now();
    let upto = log.sync()?;
    metrics::LOG_FSYNC_DURATION.record(written.elapsed());
    metrics::LOG_APPEND_DURATION.record(written - began);
    metrics::LOG_BATCH.record_number(batch.len() as u64);
    let bytes = batch.iter().map(Entry::weight).sum();
    metrics::LOG_WRITTEN.add(bytes as u64);
    backlog.remove(bytes);
    synced(spans, wall, batch.len());
    batch.clear();
    report(Input::Persisted { upto });
    Ok(())
}
