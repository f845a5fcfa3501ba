//! The log thread: the tasks of the core for the disk, one after the other, each in its time.

use quorum_shell::{Done, Task};

use super::{Node, Stop};
use crate::context::{Context, NodeEvent};

impl Node {
    pub(super) fn ask_disk(&mut self, cx: &mut Context, task: Task) -> Result<(), Stop> {
        if let Some(process) = &mut self.up {
            process.log.push(task);
        }
        self.begin_task(cx)
    }

    fn begin_task(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        if !process.log.begin()? {
            return Ok(());
        }
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
        let worker = &mut process.log;
        match worker.begun() {
            Some(Task::Truncate(to)) => {
                cx.ghost.truncates(index, *to, worker.log().history());
                // From here on, what is behind may be gone.
                let _ = cx.ghost.disks[index].history.truncate(*to);
            }
            Some(Task::Reset(_)) => cx.ghost.disks[index].reset(),
            Some(Task::Forsake { may_heal: true }) if !cx.ghost.disks[index].impaired => {
                cx.ghost.disks[index].impair();
            }
            _ => {}
        }
        match worker.finish()? {
            None => {}
            Some(Done::Outlived) => self.meet_all(cx),
            Some(Done::Told(input)) => {
                self.note_durable(cx);
                self.tell_quorum(cx, input);
            }
        }
        self.begin_task(cx)
    }

    fn note_durable(&self, cx: &mut Context) {
        let Some(process) = &self.up else { return };
        let (shadow, epochs) = (&mut cx.ghost.disks[self.index], process.log.epochs());
        shadow.history = process.log.log().history().clone();
        (shadow.accepted, shadow.current) = (epochs.accepted, epochs.current);
    }
}
