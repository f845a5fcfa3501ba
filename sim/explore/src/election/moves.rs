//! Events that happen by themselves, sooner or later.

use std::time::Duration;

use api::ports::Role;
use election_core::Notification;

use super::node::FINALIZE_WAIT;
use super::{Action, Election, State, WIRES, peer, place};

impl Election {
    /// No message is under way.
    fn quiet(&self, state: &State) -> bool {
        self.wires.get(state[WIRES]).quiet()
    }

    fn follows(&self, state: &State, i: usize, leader: usize) -> bool {
        let linked = i == leader || self.wires.get(state[WIRES]).linked(i, leader);
        let says = self.says(state, i).filter(|n| n.state != Role::Looking);
        linked && says.and_then(|n| n.vote).is_some_and(|v| v.leader == peer(leader))
    }

    /// Has decided, but there is no reign: its leader does not lead or cannot be reached, or too few follow it.
    fn in_vain(&self, state: &State, i: usize) -> bool {
        let Some(Notification { state: role, vote: Some(vote), .. }) = self.says(state, i) else {
            return false;
        };
        let leader = place(vote.leader);
        match role {
            Role::Looking => false,
            Role::Leading => {
                let subjects = (0..self.count()).filter(|&j| self.follows(state, j, i)).map(peer).collect();
                !self.ensemble.is_quorum(&subjects)
            }
            Role::Following | Role::Observing => {
                !(self.follows(state, i, leader) && self.follows(state, leader, leader))
            }
        }
    }

    /// Events that happen by themselves, sooner or later.
    pub(super) fn progress(&self, state: &State, into: &mut Vec<Action>) {
        let wires = self.wires.get(state[WIRES]);
        let up = |i: usize| self.node(state, i).up();
        for i in 0..self.count() {
            if !up(i) {
                into.push(Action::Start(i));
                continue;
            }
            for j in (0..self.count()).filter(|&j| j != i) {
                if wires.waiting(i, j) {
                    into.push(Action::Deliver(i, j));
                }
                if wires.unnoticed(i, j) {
                    into.push(Action::Notice(i, j));
                }
                if i < j && self.talk(i, j) && up(j) && !wires.linked(i, j) {
                    into.push(Action::Connect(i, j));
                }
            }
        }
        self.time_outs(state, into);
    }

    fn time_outs(&self, state: &State, into: &mut Vec<Action>) {
        let quiet = self.quiet(state);
        let waits: Vec<Option<Duration>> = (0..self.count()).map(|i| self.node(state, i).waits()).collect();
        let candidate_waits = waits.contains(&Some(FINALIZE_WAIT));
        for (i, &wait) in waits.iter().enumerate() {
            // The candidate waits for half of its followers' time.
            let its_turn = wait == Some(FINALIZE_WAIT) || !candidate_waits;
            if wait.is_some() && (!self.setup.timely || (quiet && its_turn)) {
                into.push(Action::Decide(i));
            }
            let round = self.says(state, i).map_or(0, |n| n.round.0);
            // Patience lasts much longer than any message takes.
            if quiet && round < self.setup.rounds && self.in_vain(state, i) {
                into.push(Action::Relook(i));
            }
        }
    }
}
