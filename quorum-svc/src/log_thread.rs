//! The only thread that writes to the disk.

use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use api::Entry;
use quorum_core::Input;
use quorum_shell::{Done, Failure, LogWorker, Task};
use spans::Span;
use telemetry::metrics;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::acquaintances::Acquaintances;
use crate::backlog::Backlog;
use crate::trace::synced;

/// Maximum weight of the entries of one fsync. On a slow disk, a larger batch would delay acks beyond
/// the leader's timeout.
const BATCH_BYTES: usize = 4 << 20;

/// The driver's end. If `tasks` is dropped, the thread finishes its queue and ends.
pub(crate) struct LogThread {
    /// Unbounded, because the driver must not wait. The [`Backlog`] bounds the entries from a leader.
    /// The core's limits of requests bound the entries that this node proposes as a leader; they count
    /// until an entry is durable here too.
    pub(crate) tasks: UnboundedSender<Asked>,
    /// One completion per task; consecutive appends may share one.
    pub(crate) done: UnboundedReceiver<Result<Input, Failure>>,
    pub(crate) thread: JoinHandle<()>,
}

/// A task, and the spans of its traced entries, which end when the entries are durable.
pub(crate) type Asked = (Task, Vec<Span>);

pub(crate) fn spawn(
    mut worker: LogWorker,
    acquaintances: Acquaintances,
    backlog: Backlog,
) -> std::io::Result<LogThread> {
    let (tasks, task_queue) = unbounded_channel();
    let (done_queue, done) = unbounded_channel();
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
        if let Err(failure) = run(&mut worker, &acquaintances, &backlog, task_queue, &done_queue) {
            // The driver may have ended already.
            let _ = done_queue.send(Err(failure));
        }
    })?;
    Ok(LogThread { tasks, done, thread })
}

fn run(
    worker: &mut LogWorker,
    acquaintances: &Acquaintances,
    backlog: &Backlog,
    mut tasks: UnboundedReceiver<Asked>,
    done: &UnboundedSender<Result<Input, Failure>>,
) -> Result<(), Failure> {
    while let Some(first) = tasks.blocking_recv() {
        // The next fsync makes all tasks durable that arrived during the last one.
        let (mut next, mut bytes, mut spans) = (Some(first), 0, Vec::new());
        while let Some((task, more)) = next {
            let appends = match &task {
                Task::Append(entries) => {
                    bytes += entries.iter().map(Entry::weight).sum::<usize>();
                    true
                }
                _ => false,
            };
            worker.push(task);
            spans.extend(more);
            next = if appends && bytes < BATCH_BYTES { tasks.try_recv().ok() } else { None };
        }
        let mut began = Instant::now();
        while worker.begin()? {
            let (written, wall) = (Instant::now(), SystemTime::now());
            let batch = match worker.begun() {
                Some(Task::Append(entries)) => {
                    Some((entries.len(), entries.iter().map(Entry::weight).sum::<usize>()))
                }
                _ => None,
            };
            let finished = worker.finish()?;
            if let Some((entries, bytes)) = batch {
                metrics::LOG_FSYNC_DURATION.record(written.elapsed());
                metrics::LOG_APPEND_DURATION.record(written - began);
                metrics::LOG_BATCH.record_number(entries as u64);
                metrics::LOG_WRITTEN.add(bytes as u64);
                backlog.remove(bytes);
                synced(&mut spans, wall, entries);
            }
            match finished {
                Some(Done::Told(input)) => drop(done.send(Ok(input))),
                Some(Done::Outlived) => acquaintances.meet_again(),
                None => {}
            }
            began = Instant::now();
        }
    }
    Ok(())
}
