//! The thread that owns the table: the driver never waits for it.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use proto::store::append_record;
use store_core::Changes;
use telemetry::metrics;
use tokio::sync::mpsc;

use super::{Table, TableError};

/// Size of the pieces in which a snapshot is handed over; [`api::ports::Chunks`] allows no larger ones.
const PIECE: usize = 1 << 20;

/// Something for the thread to do: write these changes; then, if somebody wants it, hand over the whole table as the snapshot
/// that it is now.
pub(crate) struct Job {
    /// What changed since the last job; everything, if that failed.
    pub(crate) changes: Changes,
    /// Where the pieces go, and `None` behind the last. Dropping the other end calls the rest off.
    pub(crate) export: Option<mpsc::Sender<Option<Bytes>>>,
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
    metrics::CHECKPOINT_SIZE.set(table.as_ref().map_or(0, |table| table.size()));
    while let Ok(job) = jobs.recv() {
        let began = Instant::now();
        let _span = match job.export {
            None => tracing::info_span!("store.checkpoint"),
            Some(_) => tracing::info_span!("store.snapshot"),
        }
        .entered();
        let result = carry_out(&mut table, &mut anew, job);
        metrics::CHECKPOINT_DURATION.record(began.elapsed());
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
    let table = match table {
        Some(table) => table,
        None if job.changes.whole => table.insert(anew()?),
        None => return Err(TableError::Damaged("there is none to write a part of the state to".into())),
    };
    table.write(job.changes)?;
    match job.export {
        Some(pieces) => export(table.as_mut(), &pieces),
        None => Ok(()),
    }
}

/// Hands over the table, exact at the entry of its header: nothing is written meanwhile.
fn export(table: &mut dyn Table, pieces: &mpsc::Sender<Option<Bytes>>) -> Result<(), TableError> {
    let mut stream = BytesMut::new();
    let mut wanted = true;
    table.scan(&mut |record| {
        append_record(&mut stream, &record);
        while wanted && stream.len() >= PIECE {
            wanted = pieces.blocking_send(Some(stream.split_to(PIECE).freeze())).is_ok();
        }
        Ok(wanted)
    })?;
    let last = Some(stream.freeze()).filter(|last| !last.is_empty());
    for piece in last.map(Some).into_iter().chain([None]) {
        // Nobody to take it is no fault of the table.
        let _ = pieces.blocking_send(piece);
    }
    Ok(())
}
