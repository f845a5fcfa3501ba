//! The thread that owns the table: the driver never waits for it.

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

/// Size of the pieces in which a snapshot is handed over; [`api::ports::Chunks`] allows no larger ones.
const PIECE: usize = 1 << 20;

/// How much the thread gives way to others, as `nice` does: by a tenth of what one of them gets it still comes forward on a busy machine.
const NICE: i32 = 10;

/// Something for the thread to do.
pub(crate) enum Job {
    /// Write what changed since the last checkpoint; everything, if that failed.
    Changes(Changes),
    /// Write this state in place of all that is there.
    Whole(mpsc::Receiver<Part>),
    /// Encode this state as a snapshot. The table has no part in it.
    Snapshot {
        /// The state.
        parts: mpsc::Receiver<Part>,
        /// Where the pieces go, and `None` behind the last. Dropping the other end calls the rest off.
        pieces: mpsc::Sender<Option<Bytes>>,
    },
}

/// A part of a state, the header in the first one. Parts that end before the last one are those of an export that was given up.
pub(crate) struct Part {
    pub(crate) records: Vec<Record>,
    pub(crate) last: bool,
}

/// The parts of a state until the last, for the thread that waits for them.
pub(crate) struct Parts<'a> {
    parts: &'a mut mpsc::Receiver<Part>,
    /// Whether the last one has come.
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

/// The driver's end. Takes one job at a time.
pub(crate) struct Checkpointer {
    jobs: SyncSender<Job>,
    done: mpsc::UnboundedReceiver<Result<(), TableError>>,
    busy: bool,
    thread: JoinHandle<()>,
}

/// Makes a new table, because there is none or the one before was of no use.
pub(crate) type Anew = Box<dyn FnMut() -> Result<Box<dyn Table>, TableError> + Send>;

impl Checkpointer {
    /// Starts the thread. A table that fails is given up, and the next job begins with a new one.
    ///
    /// # Errors
    /// If the system has none left.
    pub(crate) fn start(table: Option<Box<dyn Table>>, anew: Anew) -> io::Result<Checkpointer> {
        let (jobs, inbox) = sync_channel(1);
        // One message for each job, so it is as bounded as those are.
        let (report, done) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || run(table, anew, &inbox, &report))?;
        Ok(Checkpointer { jobs, done, busy: false, thread })
    }

    /// Whether a job is under way.
    pub(crate) fn busy(&self) -> bool {
        self.busy
    }

    /// Begins a job. To be called only when not [busy](Checkpointer::busy); a job that comes at another time, or after
    /// the thread has ended, is dropped, which [`Checkpointer::done`] reports.
    pub(crate) fn begin(&mut self, job: Job) {
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => self.busy = true,
            Err(TrySendError::Full(_)) => tracing::error!("a checkpoint came while another was under way"),
        }
    }

    /// Waits for the end of the job that is under way; for ever if there is none. May be dropped and called again.
    ///
    /// # Errors
    /// If it failed. Then nothing of it may be in the table, nor anything else: the next job has to bring a whole state.
    pub(crate) async fn done(&mut self) -> Result<(), TableError> {
        if !self.busy {
            return std::future::pending().await;
        }
        let event = self.done.recv().await;
        self.busy = false;
        event.unwrap_or_else(|| Err(TableError::Panic("the checkpoint thread has ended".into())))
    }

    /// Ends the thread, and closes the table with it.
    pub(crate) async fn stop(self) {
        drop(self.jobs);
        // Only joins; a panic of the thread was reported by `done`.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

fn run(
    mut table: Option<Box<dyn Table>>,
    mut anew: Anew,
    jobs: &Receiver<Job>,
    report: &mpsc::UnboundedSender<Result<(), TableError>>,
) {
    // Where that is refused it takes its share like any other. sled's threads begin here, and do the same.
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
            // sled is done for after an error; what it does when it is closed must not matter.
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

/// Hands over a state as the stream of its records, as long as somebody takes it.
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
        // Whoever asked may have gone.
        let _ = pieces.blocking_send(piece);
    }
}
