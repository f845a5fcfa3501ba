//! The queue of outputs for the shell; consecutive items for one connection leave together.

use std::collections::VecDeque;

use api::{OpError, Zxid, session::Item};

use super::{ConnId, Output};

#[derive(Default, Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
    /// Number of outputs that have left, so that each position in the queue has a stable number.
    left: u64,
}

/// Position of the last output for a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Place(Option<u64>);

impl Outbox {
    pub(super) fn pop(&mut self) -> Option<Output> {
        let output = self.queue.pop_front()?;
        self.left += 1;
        Some(output)
    }

    /// Sends items; `place` is the position of the connection's last output, if it is still queued.
    pub(super) fn send(&mut self, conn: ConnId, place: &mut Place, item: Item) {
        let open = place
            .0
            .and_then(|at| at.checked_sub(self.left))
            .and_then(|i| self.queue.get_mut(usize::try_from(i).ok()?));
        if let Some(Output::Send { items, .. }) = open {
            items.push(item);
        } else {
            place.0 = Some(self.left + self.queue.len() as u64);
            self.queue.push_back(Output::Send { conn, items: vec![item] });
        }
    }

    pub(super) fn close(&mut self, conn: ConnId, why: Result<(), OpError>) {
        self.queue.push_back(Output::Close { conn, why });
    }

    pub(super) fn diverged(&mut self, at: Zxid, own: u64, leaders: u64) {
        self.queue.push_back(Output::Diverged { at, own, leaders });
    }

    pub(super) fn stop(&mut self, why: String) {
        self.queue.push_back(Output::Stop { why });
    }
}
