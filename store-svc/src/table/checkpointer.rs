//! The thread that owns the table, so that the driver never waits for it.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::Instant,
};

use api::record::Record;
use bytes::Bytes;
use store_core::Changes;
use store_shell::PieceEncoder;
use telemetry::metrics;
use tokio::sync::mpsc;

use super::{Table, TableError};

/// Size of the pieces of a snapshot; [`api::ports::Chunks`] allows no larger ones.
const PIECE: usize = 1 << 20;

/// The `nice` value of the thread. It gets a tenth of the share of a normal thread, so it still makes
/// progress on a busy machine.
const NICE: i32 = 10;

/// A job of the thread.
pub(crate) enum Job {
    /// Write the changes since the last checkpoint; the whole state, if that checkpoint failed.
    Changes(Changes),
    /// Replace the content of the table with this state.
    Whole(mpsc::Receiver<Part>),
    /// Encode this state as a snapshot. The table is not involved.
    Snapshot {
        /// The state.
        parts: mpsc::Receiver<Part>,
        /// Receives the pieces, and `None` after the last. If the receiver is dropped, the job is cancelled.
        pieces: mpsc::Sender<Option<Bytes>>,
    },
}

/// A part of a state; the first one holds the header. If the parts end before the last one, the export
/// was cancelled.
pub(crate) struct Part {
    pub(crate) records: Vec<Record>,
    pub(crate) last: bool,
}

/// An iterator over the parts of a state until the last; it blocks the thread.
pub(crate) struct Parts<'a> {
    parts: &'a mut mpsc::Receiver<Part>,
    /// Whether the last part has arrived.
    pub(crate) whole: bool,
}

impl Iterator for Parts<'_> {
    type Item = Vec<Record>;

    fn next(&mut self) -> Option<Vec<Record>> {
        if self.whole {
            return None;
        }
        let Part { records, last } = self.parts.blocking_recv()?;
        self.whole = last;
        Some(records)
    }
}

/// The driver's end. Accepts one job at a time.
pub(crate) struct Checkpointer {
    jobs: SyncSender<Job>,
    done: mpsc::UnboundedReceiver<Result<(), TableError>>,
    busy: bool,
    thread: JoinHandle<()>,
}

/// Makes a new table, because there is none or the old one is unusable.
pub(crate) type Anew = Box<dyn FnMut() -> Result<Box<dyn Table>, TableError> + Send>;

impl Checkpointer {
    /// Starts the thread. A failed table is discarded, and the next job begins with a new one.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub(crate) fn start(table: Option<Box<dyn Table>>, anew: Anew) -> io::Result<Checkpointer> {
        let (jobs, inbox) = sync_channel(1);
        // One message for each job, and only one job runs at a time.
        let (report, done) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || run(table, anew, &inbox, &report))?;
        Ok(Checkpointer { jobs, done, busy: false, thread })
    }

    /// Whether a job is running.
    pub(crate) fn busy(&self) -> bool {
        self.busy
    }

    /// Starts a job. Call it only when not [busy](Checkpointer::busy). A job that is started at another
    /// time, or after the thread has ended, is dropped, and [`Checkpointer::done`] reports this.
    pub(crate) fn begin(&mut self, job: Job) {
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => self.busy = true,
            Err(TrySendError::Full(_)) => tracing::error!("a checkpoint came while another was under way"),
        }
    }

    /// Waits for the end of the running job; never resolves without one. The future may be dropped and
    /// called again.
    ///
    /// # Errors
    /// The job failed. The table may then be empty or incomplete: the next job has to write a whole state.
    pub(crate) async fn done(&mut self) -> Result<(), TableError> {
        if !self.busy {
            return std::future::pending().await;
        }
        let event = self.done.recv().await;
        self.busy = false;
        event.unwrap_or_else(|| Err(TableError::Panic("the checkpoint thread has ended".into())))
    }

    /// Ends the thread and closes the table.
    pub(crate) async fn stop(self) {
        drop(self.jobs);
        // Only joins; `done` has reported a panic of the thread.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

fn run(
    mut table: Option<Box<dyn Table>>,
    mut anew: Anew,
    jobs: &Receiver<Job>,
    report: &mpsc::UnboundedSender<Result<(), TableError>>,
) {
    // If the system rejects this, the thread runs at normal priority. sled starts its threads here, and
    // they inherit the priority.
    let _ = rustix::process::nice(NICE);
    metrics::CHECKPOINT_SIZE.set(table.as_ref().map_or(0, |table| table.size()));
    while let Ok(job) = jobs.recv() {
        let began = Instant::now();
        let snapshot = matches!(job, Job::Snapshot { .. });
        let _span = match snapshot {
            false => tracing::info_span!("store.checkpoint"),
            true => tracing::info_span!("store.snapshot"),
        }
        .entered();
        let result = carry_out(&mut table, &mut anew, job);
        if !snapshot {
            metrics::CHECKPOINT_DURATION.record(began.elapsed());
        }
        if result.is_err() {
            metrics::CHECKPOINT_FAILURES.add(1);
            // sled is unusable after an error, so errors during its shutdown must not matter.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(table.take())));
        }
        metrics::CHECKPOINT_SIZE.set(table.as_ref().map_or(0, |table| table.size()));
        if report.send(result).is_err() {
            return;
        }
    }
}

fn carry_out(table: &mut Option<Box<dyn Table>>, anew: &mut Anew, job: Job) -> Result<(), TableError> {
    match job {
        Job::Changes(changes) => place(table, anew, changes.whole)?.write(changes),
        Job::Whole(mut parts) => {
            place(table, anew, true)?.write_whole(&mut Parts { parts: &mut parts, whole: false })
        }
        Job::Snapshot { mut parts, pieces } => {
            encode(Parts { parts: &mut parts, whole: false }, &pieces);
            Ok(())
        }
    }
}

/// The table, or a new one for a whole state.
fn place<'a>(
    table: &'a mut Option<Box<dyn Table>>,
    anew: &mut Anew,
    whole: bool,
) -> Result<&'a mut dyn Table, TableError> {
    match table {
        Some(table) => Ok(table.as_mut()),
        None if whole => Ok(table.insert(anew()?).as_mut()),
        None => Err(TableError::Damaged("there is none to write a part of the state to".into())),
    }
}

/// Sends a state as the stream of its records while a receiver exists.
fn encode(mut parts: Parts<'_>, pieces: &mpsc::Sender<Option<Bytes>>) {
    let mut encoder = PieceEncoder::new(PIECE);
    for record in parts.by_ref().flatten() {
        encoder.push(record);
        while let Some(piece) = encoder.piece() {
            if pieces.blocking_send(Some(piece)).is_err() {
                return;
            }
        }
    }
    if !parts.whole {
        return;
    }
    for piece in encoder.rest().map(Some).into_iter().chain([None]) {
        // The receiver may be gone.
        let _ = pieces.blocking_send(piece);
    }
}
