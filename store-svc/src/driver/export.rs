//! Exports of the state to the checkpoint thread, part by part, so that no request waits for them.

use std::time::{Duration, Instant};

use api::ports::Quorum;
use store_shell::Export;
use tokio::sync::mpsc;

use super::{Running, schedule::QUIET};
use crate::{
    quorum_io::Pieces,
    table::{Job, Part},
};

/// A running export of the state to the checkpoint thread.
pub(super) struct Exporting {
    /// A short queue, so that a slow thread delays only the export.
    parts: mpsc::Sender<Part>,
    /// Whether the export becomes the checkpoint.
    checkpoint: bool,
    export: Export,
    /// Time of the next part.
    next: Instant,
}

impl Exporting {
    /// Waits until the next part is due and the queue has room for it; never resolves without an export.
    pub(super) async fn turn(exporting: Option<&Exporting>) {
        let Some(Exporting { parts, next, .. }) = exporting else { return std::future::pending().await };
        if *next > Instant::now() {
            tokio::time::sleep_until((*next).into()).await;
        }
        // If the thread wants no more parts, the next send fails.
        drop(parts.reserve().await);
    }
}

impl<Q: Quorum> Running<Q> {
    /// Cancels the export before its last part. Its checkpoint or snapshot is discarded.
    pub(super) fn give_up_export(&mut self) {
        let Some(exporting) = self.exporting.take() else { return };
        self.driver.shell.server.end_export();
        if exporting.checkpoint {
            self.driver.shell.server.forget_checkpoint();
        } else if let Some(snapshot) = self.schedule.saving.take() {
            // Its end would never arrive.
            snapshot.abort();
        }
    }

    /// Makes a part like the export branch of the loop, which may not get its turn.
    pub(super) fn export_if_time(&mut self) {
        let due = |exporting: &Exporting| exporting.next <= Instant::now() && exporting.parts.capacity() > 0;
        if self.exporting.as_ref().is_some_and(due) {
            self.export();
        }
    }

    /// Makes the next part of the export. The queue must have room for it.
    pub(super) fn export(&mut self) {
        let began = Instant::now();
        let Some(exporting) = &mut self.exporting else { return };
        let server = &mut self.driver.shell.server;
        let Some((records, last)) = exporting.export.part(server, PART, PART_BYTES) else {
            return self.give_up_export();
        };
        // Leaves the rest of the time to other work; an idle node uses all its time for the export.
        let busy = began.duration_since(self.schedule.last_entry) < QUIET;
        exporting.next = if busy {
            began + PACE * u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX)
        } else {
            began
        };
        let sent = exporting.parts.try_send(Part { records, last });
        if sent.is_err() {
            self.give_up_export();
        } else if last {
            self.exporting = None;
        }
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.driver.shell.since_snapshot.begin();
        (self.schedule.snapshot, self.schedule.percent) = (Instant::now(), 100);
        let state = self.driver.shell.server.state();
        // A snapshot contains all paths and values unchanged, so their size is a lower bound.
        let (zxid, at_least) = (state.applied(), state.tree().bytes() as u64);
        let parts = self.begin_export(false);
        let (pieces, rest) = mpsc::channel(PIECES_AHEAD);
        let quorum = self.driver.quorum.clone();
        let task = self.tasks.spawn(async move {
            let (pieces, mut whole) = Pieces::new(rest, at_least);
            if let Err(e) = quorum.save_snapshot(zxid, pieces).await {
                // The feed reports if the quorum is gone for good. Otherwise, there will be another snapshot.
                tracing::warn!(%zxid, "the quorum has not taken the snapshot: {e}");
            }
            whole.try_recv().ok()
        });
        (self.schedule.saving, self.schedule.is_snapshot) = (Some(task), true);
        self.driver.checkpointer.begin(Job::Snapshot { parts, pieces });
    }

    pub(super) fn begin_export(&mut self, checkpoint: bool) -> mpsc::Receiver<Part> {
        let (parts, to_thread) = mpsc::channel(PARTS_AHEAD);
        let export = Export::begin(&mut self.driver.shell.server, checkpoint);
        self.exporting = Some(Exporting { parts, checkpoint, export, next: Instant::now() });
        to_thread
    }
}

/// Limits of one part of an export, in znodes and in bytes of values. A part takes about 0.2 ms.
const PART: usize = 512;
const PART_BYTES: usize = 1 << 20;
/// Parts queued between the driver and the checkpoint thread.
const PARTS_AHEAD: usize = 2;
/// Interval between two parts for each microsecond that a part takes, while entries arrive.
const PACE: Duration = Duration::from_micros(5);
/// Pieces of a snapshot queued between the checkpoint thread and the quorum.
const PIECES_AHEAD: usize = 4;
