//! The schedule of checkpoints and snapshots.

use std::time::{Duration, Instant};

use api::{
    PeerId,
    mutants::{Mutant, is_on},
    ports::{Quorum, Role},
};
use tokio::task::AbortHandle;

use super::{Driver, Running};
use crate::table::{self, Job, TableError};

/// When the next checkpoint and the next snapshot are due.
pub(super) struct Schedule {
    /// Start of the last snapshot.
    pub(super) snapshot: Instant,
    /// Amount of log before the next snapshot, in percent of the usual amount.
    pub(super) percent: u64,
    /// Start of the last checkpoint.
    pub(super) checkpoint: Instant,
    /// Time of the last applied entry.
    pub(super) last_entry: Instant,
    /// Set if the last checkpoint failed: time of the retry, and its distance from the failure.
    pub(super) failed: Option<(Instant, Duration)>,
    /// The task that saves the current snapshot.
    pub(super) saving: Option<AbortHandle>,
    /// Set if a checkpoint lacked space: time of the next check.
    pub(super) no_space: Option<Instant>,
    /// Whether the job of the thread is a snapshot, which leaves the table unchanged.
    pub(super) is_snapshot: bool,
}

impl Schedule {
    pub(super) fn new(now: Instant, me: PeerId) -> Schedule {
        // All nodes count the same entries. A different first threshold keeps their snapshots apart
        // from then on. Multiples of the golden ratio are far from each other for any number of nodes.
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
    /// A checkpoint is complete or has failed. After a failure the node continues, and later tries to
    /// write the whole state.
    pub(super) fn on_checkpoint(&mut self, done: Result<(), TableError>) {
        if std::mem::take(&mut self.schedule.is_snapshot) && done.is_ok() {
            return self.give_up_export();
        }
        let pause = self.schedule.failed.map_or(RETRY_MIN, |(_, pause)| RETRY_MAX.min(2 * pause));
        self.schedule.failed = None;
        if let Err(error) = done {
            if is_on(Mutant::CheckpointEndsNode) {
                std::process::abort();
            }
            tracing::error!(
                %error, retry_in = ?pause,
                "the checkpoint cannot be written; the node continues without it"
            );
            self.schedule.failed = Some((Instant::now() + pause, pause));
            self.driver.shell.server.forget_checkpoint();
        }
        // A finished thread wants no more parts.
        self.give_up_export();
    }

    /// Begins a checkpoint or snapshot if one is due.
    pub(super) fn keep(&mut self) {
        let now = Instant::now();
        let state = self.driver.shell.server.state();
        if !state.is_whole() && are_many(state) {
            // Writing the whole state then costs less than tracking the changes.
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
        if !is_on(Mutant::CheckpointEndsNode) && !self.has_space() {
            return;
        }
        let server = &mut self.driver.shell.server;
        let job = match server.state().is_whole() && are_many(server.state()) {
            false => Job::Changes(server.take_dirty()),
            true => Job::Whole(self.begin_export(true)),
        };
        self.driver.checkpointer.begin(job);
    }

    /// Whether the log has grown enough for a snapshot. The leader has more to do than others, so its
    /// threshold is higher.
    pub(super) fn snapshot_due(&self) -> bool {
        let Driver { shell, snapshot_entries, snapshot_bytes, .. } = &self.driver;
        let znodes = shell.server.state().tree().len() as u64;
        let more = if self.leads() { LEADER_MORE } else { 0 };
        shell.since_snapshot.is_due(znodes, *snapshot_entries, *snapshot_bytes, self.schedule.percent + more)
    }

    pub(super) fn leads(&self) -> bool {
        self.driver.shell.server.status().role == Role::Leading
    }

    /// When a snapshot is due by time: in a quiet moment, because it then disturbs nothing and speeds
    /// up the next start; at the latest after a maximum time.
    pub(super) fn snapshot_due_at(&self) -> Option<Instant> {
        let since = &self.driver.shell.since_snapshot;
        let entries = SPARED_MIN.min(self.driver.snapshot_entries);
        if self.schedule.saving.is_some() || since.entries < entries {
            return None;
        }
        let quiet = if self.leads() { 2 * QUIET_LONG } else { QUIET_LONG };
        Some((self.schedule.last_entry + quiet).min(self.schedule.snapshot + SNAPSHOT_MAX))
    }

    /// Whether the next checkpoint fits on the disk. Otherwise it waits, so that it does not take space
    /// that the log needs.
    pub(super) fn has_space(&mut self) -> bool {
        let found = rustix::fs::statvfs(&self.driver.data_dir);
        // If the free space is unknown, the checkpoint fails in case of a lack.
        let (free, total) = found.map_or((u64::MAX, 0), |found| {
            (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize))
        });
        // A failed checkpoint leaves a table that is removed first.
        let free = match self.schedule.failed {
            Some(_) => free.saturating_add(table::size(&self.driver.data_dir)),
            None => free,
        };
        self.fits(free, total)
    }

    /// The same for a disk of `total` bytes with `free` bytes free.
    pub(super) fn fits(&mut self, free: u64, total: u64) -> bool {
        let needed_for = |bytes: usize| {
            // The checkpoint is written to free space before it replaces anything.
            let needs = 2 * bytes as u64;
            // A small checkpoint is always tried: it may be what frees space.
            needs + (total / 8).clamp(SPARE_MIN, SPARE_MAX).min(needs)
        };
        let server = &mut self.driver.shell.server;
        let (state, removal) = (server.state(), api::Path::MAX_BYTES + RECORD);
        let whole = state.record_bytes();
        // The changes need at most the whole state and a removal for each change; most disks have that
        // much space. An exact count visits up to a million changes, and no entry is applied in the
        // meantime.
        let mut needs = needed_for(whole + state.dirty_len() * removal);
        if free < needs {
            needs = needed_for(state.dirty_bytes());
        }
        let whole = needed_for(whole);
        if free < needs && whole < needs {
            // The changes exceed the state: the state needs less disk space, and the list of changes
            // needs memory.
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
                "the checkpoint waits for space on the disk, and a start takes longer meanwhile: delete znodes, or free or add space"
            ),
            (Some(_), false) => {
                tracing::info!(free_mib = free >> 20, "there is space for the checkpoint again")
            }
            _ => {}
        }
        free >= needs
    }

    /// When the next checkpoint is due, if there is anything to write: soon in quiet periods, rarely
    /// under load. Checkpoints of a whole large state are rarer, because there are also snapshots of
    /// it.
    pub(super) fn checkpoint_due(&self) -> Option<Instant> {
        let state = self.driver.shell.server.state();
        if state.dirty_len() == 0 {
            return None;
        }
        let Schedule { checkpoint, last_entry, failed, .. } = &self.schedule;
        if let Some((retry_at, _)) = failed {
            return Some(*retry_at);
        }
        let (checkpoint, last_entry) = (*checkpoint, *last_entry);
        let soonest = checkpoint + CHECKPOINT_MIN;
        let (quiet, latest) = match are_many(state) {
            true => (WHOLE_QUIET, WHOLE_MAX),
            false => (QUIET, CHECKPOINT_MAX),
        };
        Some((last_entry + quiet).max(soonest).min(checkpoint + latest))
    }
}

/// Whether the changes are too many to collect them at once.
pub(super) fn are_many(state: &store_core::State) -> bool {
    state.dirty_len() > DIRTY_MANY || state.dirty_path_bytes() > DIRTY_PATHS
}

/// Minimum interval between checkpoints.
const CHECKPOINT_MIN: Duration = Duration::from_secs(1);
/// Maximum interval between checkpoints under load: a crash replays this much of the log.
const CHECKPOINT_MAX: Duration = Duration::from_secs(30);
/// Time without an entry after which the node counts as quiet.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// Maximum number of changed records that are tracked and copied at once for the checkpoint. Beyond it,
/// the whole of a larger state is written again, in parts.
pub(super) const DIRTY_MANY: usize = 65_536;
/// The same for the bytes of their paths, which the tracking and the copy hold in memory.
pub(super) const DIRTY_PATHS: usize = 16 << 20;
/// When a large state is written again: after the first time without an entry, or after the second in
/// any case. sled's thread needs minutes for each ten million znodes.
const WHOLE_QUIET: Duration = Duration::from_secs(30);
const WHOLE_MAX: Duration = Duration::from_secs(600);
/// Time without an entry after which a snapshot is made, if it saves the next start at least
/// [`SPARED_MIN`] entries; the leader waits twice as long.
const QUIET_LONG: Duration = Duration::from_secs(1);
const SPARED_MIN: u64 = 50_000;
/// Maximum interval between such snapshots.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// Additional percentage of log before a leader makes a snapshot.
const LEADER_MORE: u64 = 25;
/// Pause after a failed checkpoint; it doubles with each failure up to the second value.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(5);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(300);
/// Approximate overhead of a record besides its path and value, in bytes.
const RECORD: usize = 128;
/// A checkpoint leaves an eighth of the disk to the log, which grows in the meantime, within these bounds.
const SPARE_MIN: u64 = 8 << 20;
const SPARE_MAX: u64 = 256 << 20;
