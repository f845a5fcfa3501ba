//! Limits on the unsent answers to reads, and the order in which connections continue.
//!
//! All sessions share [`Limits::unsent_total_max`]. A connection may use a sixteenth of the free part
//! (dynamic thresholds, as in shared switch buffers). So many connections that read nothing leave
//! enough for those that do. A single large answer may use more, down to the last quarter.

use std::collections::{BTreeSet, VecDeque};

use api::mutants::{Mutant, is_on};

use super::{ConnId, Limits};

/// Work of all connections in one turn: about a millisecond.
const WORK: usize = 16_000;

#[derive(Default, Debug)]
pub(super) struct Answers {
    /// Weight of all answers that the shell has not sent yet.
    unsent: usize,
    /// Connections whose first read waits until others have taken their answers.
    waiting: BTreeSet<ConnId>,
    /// Connections with further answers, which wait for their turn. A connection occurs once.
    later: VecDeque<ConnId>,
    queued: BTreeSet<ConnId>,
    /// Work done since the last turn began, about as many times 60 ns.
    work: usize,
}

impl Answers {
    /// The current limit of a connection's unsent bytes.
    pub(super) fn allowance(&self, limits: &Limits) -> usize {
        let more = if is_on(Mutant::AnswersUncounted) { 16 } else { 1 };
        (self.free(limits) / 16).min(more * limits.unsent_max)
    }

    /// Whether a connection with this many unsent bytes may get an answer of this weight.
    pub(super) fn allows(&self, limits: &Limits, unsent: usize, weight: usize) -> bool {
        weight == 0
            // Allowed at any size: otherwise it would wait for ever.
            || self.unsent == 0
            || unsent + weight <= self.allowance(limits)
            || (unsent == 0 && weight + limits.unsent_total_max / 4 <= self.free(limits))
    }

    pub(super) fn sent_to_shell(&mut self, weight: usize) {
        self.unsent += weight;
    }

    /// The shell has sent or dropped this many bytes: waiting connections may try again.
    pub(super) fn taken(&mut self, weight: usize) {
        self.unsent = self.unsent.saturating_sub(weight);
        if weight > 0 {
            for id in std::mem::take(&mut self.waiting) {
                self.again_later(id);
            }
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.work = 0;
    }

    pub(super) fn worked(&mut self, work: usize) {
        self.work += work;
    }

    /// Whether the work of this turn is done. A light request may follow some more.
    pub(super) fn is_spent(&self, light: bool) -> bool {
        self.work >= if light { 4 * WORK } else { WORK }
    }

    pub(super) fn wait(&mut self, id: ConnId) {
        self.waiting.insert(id);
    }

    pub(super) fn again_later(&mut self, id: ConnId) {
        if self.queued.insert(id) {
            self.later.push_back(id);
        }
    }

    pub(super) fn next(&mut self) -> Option<ConnId> {
        loop {
            let id = self.later.pop_front()?;
            // Connections that ended are only removed here.
            if self.queued.remove(&id) {
                return Some(id);
            }
        }
    }

    pub(super) fn has_more(&self) -> bool {
        !self.queued.is_empty()
    }

    pub(super) fn forget(&mut self, id: ConnId) {
        self.waiting.remove(&id);
        self.queued.remove(&id);
    }

    fn free(&self, limits: &Limits) -> usize {
        let more = if is_on(Mutant::AnswersUncounted) { 16 } else { 1 };
        (more * limits.unsent_total_max).saturating_sub(self.unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b06_many_connections_that_read_nothing_leave_room_for_others() {
        let limits = Limits { unsent_max: 4 << 20, unsent_total_max: 64 << 20, ..Limits::default() };
        let mut answers = Answers::default();
        for weight in [1 << 20, 16 << 10] {
            let mut unsent = vec![0; 1000];
            for held in &mut unsent {
                while answers.allows(&limits, *held, weight) {
                    *held += weight;
                    answers.sent_to_shell(weight);
                }
            }
        }
        assert!(answers.allows(&limits, 0, 4 << 10), "a small answer fits: {answers:?}");
        assert!(answers.unsent <= limits.unsent_total_max);
    }
}
