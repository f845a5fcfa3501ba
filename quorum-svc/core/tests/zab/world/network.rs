//! The links between servers, and the possible next steps.

use super::text::down_text;
use super::*;

/// A packet from a leader to a learner.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Message(ToLearner),
    Snapshot(Zxid, Arc<Roster>),
}

/// A connection; both ends use the same number for it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) learner: u32,
    pub(crate) leader: u32,
    pub(super) up: VecDeque<ToLeader>,
    pub(super) down: VecDeque<Down>,
    pub(super) learner_open: bool,
    pub(super) leader_open: bool,
    /// Neither end can send any more; each end will learn of it.
    pub(super) broken: bool,
}

/// A possible next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Dial(u32),
    Disk(u32),
    Up(Conn),
    Down(Conn),
}

impl World {
    pub(crate) fn block(&mut self, a: u32, b: u32) {
        self.blocked.insert((a.min(b), a.max(b)));
        self.break_links(a, b);
    }

    pub(crate) fn unblock(&mut self, a: u32, b: u32) {
        self.blocked.remove(&(a.min(b), a.max(b)));
    }

    /// Breaks the connections between two servers; messages in flight are lost.
    pub(crate) fn break_links(&mut self, a: u32, b: u32) {
        let between: Vec<Conn> = self
            .links
            .iter()
            .filter(|(_, l)| (l.learner, l.leader) == (a, b) || (l.learner, l.leader) == (b, a))
            .map(|(&conn, _)| conn)
            .collect();
        between.into_iter().for_each(|conn| self.break_link(conn));
    }

    pub(crate) fn break_link(&mut self, conn: Conn) {
        // The end of one connection may have ended another.
        let Some(link) = self.links.remove(&conn) else { return };
        for (open, id) in [(link.learner_open, link.learner), (link.leader_open, link.leader)] {
            if open && self.up(id) {
                self.input(id, Input::Disconnected { conn });
            }
        }
    }

    /// Holds all messages in one direction.
    pub(crate) fn hold(&mut self, from: u32, to: u32) {
        self.held.insert((from, to));
    }

    pub(crate) fn release(&mut self, from: u32, to: u32) {
        self.held.remove(&(from, to));
    }

    pub(crate) fn link(&self, learner: u32, leader: u32) -> Conn {
        let mut found = self.links.iter().rev().filter(|(_, l)| (l.learner, l.leader) == (learner, leader));
        *found.next().expect("a link").0
    }

    pub(super) fn send_down(&mut self, id: u32, conn: Conn, down: Down) {
        if let Some(link) = self.links.get_mut(&conn).filter(|l| l.leader_open && l.leader == id && !l.broken)
        {
            self.trace.push((id, link.learner, down_text(&down)));
            link.down.push_back(down);
        }
    }
}
