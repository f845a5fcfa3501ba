//! The tasks of the core for the disk, one after the other.

use std::collections::VecDeque;

use api::mutants::{Mutant, is_on};
use api::peer::{Damage, Incarnation};
use api::{Entry, Zxid};
use quorum_core::Input;
use quorum_log::{Base, EpochFile, Epochs, Log, SnapshotError, Snapshots};

use crate::{Failure, Met};

/// Something to do on the disk.
#[derive(Debug)]
pub enum Task {
    /// Append to the log.
    Append(Vec<Entry>),
    /// Note these, behind everything that was appended before.
    Epochs(Epochs),
    /// Cut the log behind this entry.
    Truncate(Zxid),
    /// The log starts anew behind a snapshot.
    Reset(Base),
    /// The log may begin behind this entry.
    Purge(Zxid),
    /// Behind the epochs, which say by now that the directory is an older copy. Has no answer.
    Outlive(Incarnation),
    /// The beginning of the log is purged and no sound snapshot is left, so the store cannot get a state from this node.
    /// Notes that this node has lost what it promised to keep, so that it heals from its leader when it is started again,
    /// if there are others; then stops.
    Forsake {
        /// There are others.
        may_heal: bool,
    },
}

/// What is durable now.
#[derive(Debug)]
pub enum Done {
    /// The core is to be told.
    Told(Input),
    /// [`Task::Outlive`]: all others are to be met again at once.
    Outlived,
}

/// Owns log and epochs.
pub struct LogWorker {
    log: Log,
    epochs: EpochFile,
    snapshots: Snapshots,
    met: Met,
    tasks: VecDeque<Task>,
    /// Entries of an append are written, and not synced; of all else nothing is done yet.
    begun: Option<Task>,
}

impl LogWorker {
    /// On these.
    #[must_use]
    pub fn new(log: Log, epochs: EpochFile, snapshots: Snapshots, met: Met) -> LogWorker {
        LogWorker { log, epochs, snapshots, met, tasks: VecDeque::new(), begun: None }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// As they are durable.
    #[must_use]
    pub fn epochs(&self) -> Epochs {
        self.epochs.epochs()
    }

    /// Nothing is to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.begun.is_none() && self.tasks.is_empty()
    }

    /// What is under way: all entries that share an fsync, or one other task.
    #[must_use]
    pub fn begun(&self) -> Option<&Task> {
        self.begun.as_ref()
    }

    /// More to do, behind all else.
    pub fn push(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Begins what is next, if nothing is under way. Group commit: entries that wait in a row are written at once, and share an
    /// fsync. False if nothing is begun.
    ///
    /// # Errors
    /// The node has to stop.
    pub fn begin(&mut self) -> Result<bool, Failure> {
        if self.begun.is_some() {
            return Ok(false);
        }
        if is_on(Mutant::EpochsBeforeEntries)
            && let Some(at) = self.tasks.iter().position(|task| matches!(task, Task::Epochs(_)))
            && let Some(epochs) = self.tasks.remove(at)
        {
            self.tasks.push_front(epochs);
        }
        let Some(first) = self.tasks.pop_front() else { return Ok(false) };
        self.begun = Some(match first {
            Task::Append(mut batch) => {
                while let Some(Task::Append(more)) =
                    self.tasks.pop_front_if(|task| matches!(task, Task::Append(_)))
                {
                    batch.extend(more);
                }
                self.log.append(&batch)?;
                Task::Append(batch)
            }
            task => task,
        });
        Ok(true)
    }

    /// Makes durable what is under way; what is said then is a promise.
    ///
    /// # Errors
    /// The node has to stop.
    pub fn finish(&mut self) -> Result<Option<Done>, Failure> {
        let done = match self.begun.take() {
            None => return Ok(None),
            Some(Task::Append(_)) => Input::Persisted { upto: self.log.sync()? },
            Some(Task::Epochs(epochs)) => {
                self.epochs.store(epochs)?;
                Input::EpochsPersisted
            }
            Some(Task::Truncate(to)) => {
                self.log.truncate(to)?;
                Input::Truncated
            }
            Some(Task::Reset(base)) => {
                self.log.reset(base)?;
                match self.snapshots.adopt_received(base.zxid) {
                    // A newer one has come meanwhile, and its reset follows.
                    Ok(()) | Err(SnapshotError::NotThere { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                Input::SnapshotInstalled
            }
            Some(Task::Purge(upto)) => {
                self.log.purge(upto)?;
                Input::Purged { base: self.log.history().base() }
            }
            Some(Task::Outlive(met)) => {
                self.met.outlive(met)?;
                return Ok(Some(Done::Outlived));
            }
            Some(Task::Forsake { may_heal: true }) => {
                let before = self.epochs.epochs();
                self.epochs.store(Epochs { damage: before.damage.max(Damage::Log), ..before })?;
                return Err(Failure::Forsaken(
                    "check the disk, and start the node again: it heals from its leader",
                ));
            }
            Some(Task::Forsake { may_heal: false }) => {
                return Err(Failure::Forsaken(
                    "there is no other voter to heal from: restore the data directory from a backup",
                ));
            }
        };
        Ok(Some(Done::Told(done)))
    }
}
