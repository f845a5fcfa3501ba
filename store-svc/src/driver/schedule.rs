//! When checkpoints and snapshots are made.

use std::time::{Duration, Instant};

use api::{
    PeerId,
    ports::{Quorum, Role},
};
use tokio::task::AbortHandle;

use super::{Driver, Running};
use crate::table::{self, Job, TableError};

/// When the next checkpoint and the next snapshot are due.
pub(super) struct Schedule {
    /// When the last snapshot began.
    pub(super) snapshot: Instant,
    /// How much of what is usual has to be logged before the next snapshot, in percent.
    pub(super) percent: u64,
    /// When the last checkpoint began.
    pub(super) checkpoint: Instant,
    /// When the last entry was applied.
    pub(super) last_entry: Instant,
    /// The last checkpoint could not be written: when it is tried again, and how long that is after the failure.
    pub(super) failed: Option<(Instant, Duration)>,
    /// The task of a snapshot that is on its way.
    pub(super) saving: Option<AbortHandle>,
    /// There was no space for a checkpoint: when to look again.
    pub(super) no_space: Option<Instant>,
    /// What the thread has to do is a snapshot, which says nothing of the table.
    pub(super) is_snapshot: bool,
}

impl Schedule {
    pub(super) fn new(now: Instant, me: PeerId) -> Schedule {
        // Nodes count the same entries: only the first time they count differently far, and stay apart from then on. Multiples of
        // the golden ratio are far from each other, however many nodes there are.
        let percent = 40 + u64::from(me.0) * 618 % 1000 * 60 / 1000;
        Schedule {
            snapshot: now,
            percent,
            checkpoint: now,
            last_entry: now,
            failed: None,
            saving: None,
            no_space: None,
            is_snapshot: false,
        }
    }
}

impl<Q: Quorum> Running<Q> {
    /// A checkpoint is written, or could not be: then the node goes on, and tries later to write the whole state.
    pub(super) fn on_checkpoint(&mut self, done: Result<(), TableError>) {
        if std::mem::take(&mut self.schedule.is_snapshot) && done.is_ok() {
            return self.give_up_export();
        }
        let pause = self.schedule.failed.map_or(RETRY_MIN, |(_, pause)| RETRY_MAX.min(2 * pause));
        self.schedule.failed = None;
        if let Err(error) = done {
            tracing::error!(
                %error, retry_in = ?pause,
                "the checkpoint cannot be written; the node goes on without"
            );
            self.schedule.failed = Some((Instant::now() + pause, pause));
            self.driver.shell.server.forget_checkpoint();
        }
        // A thread that is done wants no more parts.
        self.give_up_export();
    }

    /// Begins a checkpoint or snapshot if one is due.
    pub(super) fn keep(&mut self) {
        let now = Instant::now();
        let state = self.driver.shell.server.state();
        if !state.is_whole() && state.dirty_len() > DIRTY_MANY {
            // To write all of it then costs less than to remember what changes.
            self.driver.shell.server.forget_checkpoint();
        }
        if self.driver.checkpointer.busy() {
            return;
        }
        let quiet = || self.snapshot_due_at().is_some_and(|at| now >= at);
        if self.schedule.saving.is_none() && (self.snapshot_due() || quiet()) {
            return self.begin_snapshot();
        }
        let failed = self.schedule.failed.map(|(at, _)| at);
        if [failed, self.schedule.no_space].into_iter().flatten().any(|at| now < at) {
            return;
        }
        if self.checkpoint_due().is_none_or(|at| now < at) {
            return;
        }
        self.schedule.checkpoint = now;
        if !self.has_space() {
            return;
        }
        let server = &mut self.driver.shell.server;
        let job = match server.state().is_whole() && server.state().dirty_len() > DIRTY_MANY {
            false => Job::Changes(server.take_dirty()),
            true => Job::Whole(self.begin_export(true)),
        };
        self.driver.checkpointer.begin(job);
    }

    /// Whether so much has been logged that a snapshot is due. The leader has more to do than others, and waits longer.
    pub(super) fn snapshot_due(&self) -> bool {
        let Driver { shell, snapshot_entries, snapshot_bytes, .. } = &self.driver;
        let znodes = shell.server.state().tree().len() as u64;
        let more = if self.leads() { LEADER_MORE } else { 0 };
        shell.since_snapshot.is_due(znodes, *snapshot_entries, *snapshot_bytes, self.schedule.percent + more)
    }

    pub(super) fn leads(&self) -> bool {
        self.driver.shell.server.status().role == Role::Leading
    }

    /// When a snapshot is due, as far as that is a matter of time: when it is quiet, because it disturbs nothing then and the next
    /// start is quick, and in the end of any time.
    pub(super) fn snapshot_due_at(&self) -> Option<Instant> {
        let since = &self.driver.shell.since_snapshot;
        let entries = SPARED_MIN.min(self.driver.snapshot_entries);
        if self.schedule.saving.is_some() || since.entries < entries {
            return None;
        }
        let quiet = if self.leads() { 2 * QUIET_LONG } else { QUIET_LONG };
        Some((self.schedule.last_entry + quiet).min(self.schedule.snapshot + SNAPSHOT_MAX))
    }

    /// Whether the next checkpoint fits on the disk. Else it waits, so that it does not take what the log needs.
    pub(super) fn has_space(&mut self) -> bool {
        let found = rustix::fs::statvfs(&self.driver.data_dir);
        // Where that cannot be told, the checkpoint finds out.
        let (free, total) = found.map_or((u64::MAX, 0), |found| {
            (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize))
        });
        // One that failed has left a table that goes first.
        let free = match self.schedule.failed {
            Some(_) => free.saturating_add(table::size(&self.driver.data_dir)),
            None => free,
        };
        self.fits(free, total)
    }

    /// The same on a disk of `total` bytes of which so many are free.
    pub(super) fn fits(&mut self, free: u64, total: u64) -> bool {
        let needed_for = |bytes: usize| {
            // It is written to free space first, whatever it replaces.
            let needs = 2 * bytes as u64;
            // A small one is always tried: it may be what makes room.
            needs + (total / 8).clamp(SPARE_MIN, SPARE_MAX).min(needs)
        };
        let server = &mut self.driver.shell.server;
        let (state, removal) = (server.state(), api::Path::MAX_BYTES + RECORD);
        let whole = state.record_bytes();
        // The changes need no more than the whole state and a removal for each; most disks have that much. To count them looks
        // at each of up to a million, and nothing is applied meanwhile.
        let mut needs = needed_for(whole + state.dirty_len() * removal);
        if free < needs {
            needs = needed_for(state.dirty_bytes());
        }
        let whole = needed_for(whole);
        if free < needs && whole < needs {
            // More changes than state: the state takes less space on the disk, and the list of changes takes memory.
            server.forget_checkpoint();
            needs = whole;
        }
        let before = self.schedule.no_space.take();
        if free < needs {
            self.schedule.no_space = Some(Instant::now() + CHECKPOINT_MIN);
        }
        match (before, free < needs) {
            (None, true) => tracing::warn!(
                free_mib = free >> 20,
                needs_mib = needs >> 20,
                "the checkpoint waits for space on the disk, and the log is not purged meanwhile: delete znodes, or free or add space"
            ),
            (Some(_), false) => {
                tracing::info!(free_mib = free >> 20, "there is space for the checkpoint again")
            }
            _ => {}
        }
        free >= needs
    }

    /// When the next checkpoint is due, if there is anything to write: soon when it is quiet, rarely under load, and more rarely if it
    /// is all of a large state, of which there are snapshots.
    pub(super) fn checkpoint_due(&self) -> Option<Instant> {
        let dirty = self.driver.shell.server.state().dirty_len();
        if dirty == 0 {
            return None;
        }
        let Schedule { checkpoint, last_entry, failed, .. } = &self.schedule;
        if let Some((retry_at, _)) = failed {
            return Some(*retry_at);
        }
        let (checkpoint, last_entry) = (*checkpoint, *last_entry);
        let soonest = checkpoint + CHECKPOINT_MIN;
        let (quiet, latest) = match dirty > DIRTY_MANY {
            true => (WHOLE_QUIET, WHOLE_MAX),
            false => (QUIET, CHECKPOINT_MAX),
        };
        Some((last_entry + quiet).max(soonest).min(checkpoint + latest))
    }
}

/// At most one checkpoint in this time.
const CHECKPOINT_MIN: Duration = Duration::from_secs(1);
/// Under load, at least one checkpoint in this time: so much of the log is replayed after a crash.
const CHECKPOINT_MAX: Duration = Duration::from_secs(30);
/// No entry for so long means that it is quiet.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// No more changed records than these are remembered and copied at once for the checkpoint. Behind more, all of a larger state is
/// written anew, in parts.
pub(super) const DIRTY_MANY: usize = 65_536;
/// When a large state is written anew: after so long without an entry, or after so long in any case. It takes sled minutes of its
/// thread for each ten million znodes.
const WHOLE_QUIET: Duration = Duration::from_secs(30);
const WHOLE_MAX: Duration = Duration::from_secs(600);
/// After so long without an entry a snapshot is made, if it spares the next start as many entries as [`SPARED_MIN`]; the leader waits
/// twice as long.
const QUIET_LONG: Duration = Duration::from_secs(1);
const SPARED_MIN: u64 = 50_000;
/// And after so long in any case.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// By how many percent more has to be logged before a leader makes a snapshot.
const LEADER_MORE: u64 = 25;
/// After a checkpoint that could not be written, the next is tried; the pause doubles with each failure up to the second.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(5);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(300);
/// What a record takes besides its path and value, about, in bytes.
const RECORD: usize = 128;
/// A checkpoint leaves an eighth of the disk to the log, which grows meanwhile; not less and not more than these.
const SPARE_MIN: u64 = 8 << 20;
const SPARE_MAX: u64 = 256 << 20;
