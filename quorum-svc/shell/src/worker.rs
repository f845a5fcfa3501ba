//! Executes the core's tasks for the disk one after the other.

use std::collections::VecDeque;

use api::mutants::{Mutant, is_on};
use api::peer::{Damage, Incarnation};
use api::{Entry, Zxid};
use quorum_core::Input;
use quorum_log::{Base, EpochFile, Epochs, Log, SnapshotError, Snapshots};

use crate::{Failure, Met};

/// A task for the disk.
#[derive(Debug)]
pub enum Task {
    /// Append these entries to the log.
    Append(Vec<Entry>),
    /// Store these epochs behind all earlier appends.
    Epochs(Epochs),
    /// Cut the log behind this entry.
    Truncate(Zxid),
    /// Start the log again behind a snapshot.
    Reset(Base),
    /// Purge the log up to this entry.
    Purge(Zxid),
    /// Add this incarnation to the directory, behind the epochs that already store the damage. The core
    /// gets no answer.
    Outlive(Incarnation),
    /// Give up on the store. The beginning of the log is purged and no sound snapshot is left, so the
    /// store cannot get a state from this node. Stores the loss if other voters exist, so that the node
    /// heals from its leader at its next start. Then stops the node.
    Forsake {
        /// Whether other voters exist.
        may_heal: bool,
    },
}

/// The result of a task.
#[derive(Debug)]
pub enum Done {
    /// An input for the core.
    Told(Input),
    /// [`Task::Outlive`] is done: exchange acquaintances with all others at once.
    Outlived,
}

/// Owner of log and epochs.
pub struct LogWorker {
    log: Log,
    epochs: EpochFile,
    snapshots: Snapshots,
    met: Met,
    tasks: VecDeque<Task>,
    /// The running task. The entries of an append are written but not synced; other tasks have not
    /// begun.
    begun: Option<Task>,
}

impl LogWorker {
    /// Creates a worker for these files.
    #[must_use]
    pub fn new(log: Log, epochs: EpochFile, snapshots: Snapshots, met: Met) -> LogWorker {
        LogWorker { log, epochs, snapshots, met, tasks: VecDeque::new(), begun: None }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The durable epochs.
    #[must_use]
    pub fn epochs(&self) -> Epochs {
        self.epochs.epochs()
    }

    /// Whether no task waits or runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.begun.is_none() && self.tasks.is_empty()
    }

    /// The running task: all entries that share an fsync, or one other task.
    #[must_use]
    pub fn begun(&self) -> Option<&Task> {
        self.begun.as_ref()
    }

    /// Appends a task.
    pub fn push(&mut self, task: Task) {
        self.tasks.push_back(task);
    }

    /// Begins the next task unless one is running. Group commit: it writes all directly following
    /// appends at once, and they share an fsync. Returns false if nothing has begun.
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

    /// Makes the running task durable. Its result is then a promise.
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
                let zxid = base.zxid;
                self.log.reset(base)?;
                match self.snapshots.adopt_received(zxid) {
                    // A newer snapshot has arrived in the meantime; its reset follows.
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
