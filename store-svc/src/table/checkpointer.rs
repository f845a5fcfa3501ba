//! The thread that owns the table: the driver never waits for it.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::Instant,
};

use api::record::Record;
use bytes::{Bytes, BytesMut};
use proto::store::{RecordDecoder, append_record, encode_record};
use store_core::Changes;
use telemetry::metrics;
use tokio::sync::mpsc;

use super::{Table, TableError};

/// Size of the pieces in which a snapshot is handed over; [`api::ports::Chunks`] allows no larger ones.
const PIECE: usize = 1 << 20;

/// Something for the thread to do.
pub(crate) enum Job {
    /// Write these changes; then, if somebody wants it, hand over the whole table as the snapshot that it is now.
    Checkpoint {
        /// What changed since the last job.
        changes: Changes,
        /// Where the pieces go. Dropping the other end calls the rest off.
        export: Option<mpsc::Sender<Bytes>>,
    },
    /// The state came as a snapshot: its pieces take the place of everything.
    Rewrite(Vec<Bytes>),
}

/// The driver's end. Takes one job at a time.
pub(crate) struct Checkpointer {
    jobs: SyncSender<Job>,
    done: mpsc::UnboundedReceiver<Result<(), TableError>>,
    busy: bool,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has none left.
    pub(crate) fn start(table: Box<dyn Table>) -> io::Result<Checkpointer> {
        let (jobs, inbox) = sync_channel(1);
        // One message for each job, so it is as bounded as those are.
        let (report, done) = mpsc::unbounded_channel();
        let thread =
            thread::Builder::new().name("checkpoint".into()).spawn(move || run(table, &inbox, &report))?;
        Ok(Checkpointer { jobs, done, busy: false, thread })
    }

    /// Whether a job is under way.
    pub(crate) fn busy(&self) -> bool {
        self.busy
    }

    /// Begins a job. To be called only when not [busy](Checkpointer::busy); a job that comes at another time, or after
    /// the thread has failed, is dropped, which [`Checkpointer::done`] reports.
    pub(crate) fn begin(&mut self, job: Job) {
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => self.busy = true,
            Err(TrySendError::Full(_)) => tracing::error!("a checkpoint came while another was under way"),
        }
    }

    /// Waits for the end of the job that is under way; for ever if there is none. May be dropped and called again.
    ///
    /// # Errors
    /// If it failed. There is no use in going on.
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
    mut table: Box<dyn Table>,
    jobs: &Receiver<Job>,
    report: &mpsc::UnboundedSender<Result<(), TableError>>,
) {
    metrics::CHECKPOINT_SIZE.set(table.size());
    while let Ok(job) = jobs.recv() {
        let began = Instant::now();
        let result = match job {
            Job::Checkpoint { changes, export } => table.write(changes).and_then(|()| match export {
                Some(pieces) => self::export(table.as_mut(), &pieces),
                None => Ok(()),
            }),
            Job::Rewrite(pieces) => table.rewrite(&mut records(pieces)),
        };
        metrics::CHECKPOINT_DURATION.record(began.elapsed());
        metrics::CHECKPOINT_SIZE.set(table.size());
        let failed = result.is_err();
        if report.send(result).is_err() || failed {
            return;
        }
    }
}

/// Hands over the table, exact at the entry of its header: nothing is written meanwhile.
fn export(table: &mut dyn Table, pieces: &mpsc::Sender<Bytes>) -> Result<(), TableError> {
    let mut stream = BytesMut::new();
    let mut wanted = true;
    table.scan(&mut |record| {
        append_record(&mut stream, &record);
        while wanted && stream.len() >= PIECE {
            wanted = pieces.blocking_send(stream.split_to(PIECE).freeze()).is_ok();
        }
        Ok(wanted)
    })?;
    if wanted && !stream.is_empty() {
        // Nobody to take the last piece is no fault of the table.
        let _ = pieces.blocking_send(stream.freeze());
    }
    Ok(())
}

/// The encoded records in the pieces of a snapshot.
fn records(pieces: Vec<Bytes>) -> impl Iterator<Item = Result<Bytes, TableError>> {
    let mut pieces = pieces.into_iter();
    let mut decoder = RecordDecoder::default();
    std::iter::from_fn(move || {
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => return Some(Ok(encode(record))),
                Ok(None) => decoder.push(&pieces.next()?),
                Err(e) => return Some(Err(TableError::Damaged(e.to_string()))),
            }
        }
    })
}

fn encode(record: Record) -> Bytes {
    encode_record(record).into()
}
