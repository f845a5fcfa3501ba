//! The log thread: what the core wants done on the disk, one thing after the other, each in its time.

use std::collections::VecDeque;

use api::peer::{Damage, Incarnation};
use api::{Entry, Zxid};
use quorum_core::Input;
use quorum_log::{Base, EpochFile, Epochs, Log, SnapshotError};

use super::{Node, Stop};
use crate::context::{Context, NodeEvent};

pub(crate) enum Task {
    Append(Vec<Entry>),
    Epochs(Epochs),
    Truncate(Zxid),
    Reset(Base),
    Purge(Zxid),
    /// See the log thread of `quorum-svc`.
    Outlive(Incarnation),
    /// No sound snapshot is left, and the log has no beginning: see the log thread of `quorum-svc`.
    Forsake,
}

pub(crate) struct LogThread {
    pub(super) log: Log,
    epochs: EpochFile,
    tasks: VecDeque<Task>,
    /// Under way: `None` inside stands for entries that are written and wait for their fsync.
    busy: Option<Option<Task>>,
}

impl LogThread {
    pub(super) fn new(log: Log, epochs: EpochFile) -> LogThread {
        LogThread { log, epochs, tasks: VecDeque::new(), busy: None }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_none() && self.tasks.is_empty()
    }
}

impl Node {
    pub(super) fn ask_disk(&mut self, cx: &mut Context, task: Task) -> Result<(), Stop> {
        if let Some(process) = &mut self.up {
            process.log.tasks.push_back(task);
        }
        self.begin_task(cx)
    }

    /// Begins what is next. Entries that wait in a row are written at once and share an fsync.
    fn begin_task(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        let thread = &mut process.log;
        if thread.busy.is_some() {
            return Ok(());
        }
        let Some(first) = thread.tasks.pop_front() else { return Ok(()) };
        thread.busy = Some(match first {
            Task::Append(mut batch) => {
                while let Some(Task::Append(more)) =
                    thread.tasks.pop_front_if(|t| matches!(t, Task::Append(_)))
                {
                    batch.extend(more);
                }
                thread.log.append(&batch)?;
                None
            }
            task => Some(task),
        });
        let (low, high) = cx.plan.fsync_us;
        let mut takes = cx.rng.between(low, high);
        if cx.now < self.slow_disk.0 {
            takes += cx.rng.below(self.slow_disk.1 + 1);
        }
        let at = cx.now + takes;
        self.schedule(cx, at, NodeEvent::DiskDone);
        Ok(())
    }

    pub(super) fn on_disk_done(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let index = self.index;
        let Some(process) = &mut self.up else { return Ok(()) };
        let thread = &mut process.log;
        let Some(task) = thread.busy.take() else { return Ok(()) };
        let done = match task {
            None | Some(Task::Append(_)) => Input::Persisted { upto: thread.log.sync()? },
            Some(Task::Epochs(epochs)) => {
                thread.epochs.store(epochs)?;
                Input::EpochsPersisted
            }
            Some(Task::Truncate(to)) => {
                cx.ghost.truncates(index, to, thread.log.history());
                // From here on, what is behind may be gone.
                let _ = cx.ghost.disks[index].history.truncate(to);
                thread.log.truncate(to)?;
                Input::Truncated
            }
            Some(Task::Reset(base)) => {
                cx.ghost.disks[index].reset();
                thread.log.reset(base)?;
                match process.snapshots.adopt_received(base.zxid) {
                    // A newer one has come meanwhile, and its reset follows.
                    Ok(()) | Err(SnapshotError::NotThere { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                Input::SnapshotInstalled
            }
            Some(Task::Forsake) => {
                if !cx.ghost.ensemble().voters().any(|voter| voter != self.id) {
                    return Err(Stop::Disk("no sound snapshot is left, and no voter to heal from".into()));
                }
                let shadow = &mut cx.ghost.disks[index];
                if !shadow.impaired {
                    shadow.impair();
                }
                let before = thread.epochs.epochs();
                thread.epochs.store(Epochs { damage: before.damage.max(Damage::Log), ..before })?;
                return Err(Stop::Disk("no sound snapshot is left".into()));
            }
            Some(Task::Outlive(met)) => {
                process.acquaintances.incarnations.outlive(met)?;
                return self.begin_task(cx);
            }
            Some(Task::Purge(upto)) => {
                thread.log.purge(upto)?;
                Input::Purged { base: thread.log.history().base() }
            }
        };
        let shadow = &mut cx.ghost.disks[index];
        shadow.history = thread.log.history().clone();
        let epochs = thread.epochs.epochs();
        (shadow.accepted, shadow.current) = (epochs.accepted, epochs.current);
        if let Input::Persisted { upto } = done {
            process.quorum.view.set_durable(upto);
        }
        self.tell_quorum(cx, done);
        self.begin_task(cx)
    }
}
