//! Outputs on their way to the shell; what goes to one connection in a row leaves as one.

use std::collections::VecDeque;

use api::{OpError, Zxid, session::Item};

use super::{ConnId, Output};

#[derive(Default, Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
    /// How many outputs have left, so that a place in the queue has a number that stays.
    left: u64,
}

/// Where the last output for a connection stands.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Place(Option<u64>);

impl Outbox {
    pub(super) fn pop(&mut self) -> Option<Output> {
        let output = self.queue.pop_front()?;
        self.left += 1;
        Some(output)
    }

    /// Sends; `place` is where the connection's last output stands, if it is still here.
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
