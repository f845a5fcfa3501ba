//! The search for an order that explains all answers.

use std::collections::HashSet;

use api::chance::{STEP, mix};

use super::{
    calls::{Call, What},
    model::{Object, State},
};

/// The result of a search.
pub(super) struct Searched {
    pub(super) verdict: Verdict,
    pub(super) steps: u64,
}

pub(super) enum Verdict {
    /// There is an order.
    Explained,
    /// There is none.
    Impossible {
        /// Where the attempt that came furthest got stuck: of what was left, the one that returned first.
        call: usize,
        /// The state there.
        state: State,
    },
    /// Not known after all steps that were allowed.
    GivenUp,
}

/// What a search leaves out. Nearly always little of unknown outcome took effect between two things that are known; or
/// much, after a fail-over, and then in the order of its sessions without a gap. To try only this first saves the search
/// through all sets of unknown ones.
#[derive(Clone, Copy)]
struct Restriction {
    unknown_in_a_row: usize,
    /// An operation of unknown outcome takes effect only after all earlier ones of unknown outcome in its
    /// session.
    without_gaps: bool,
}

const RESTRICTIONS: [Restriction; 4] = [
    Restriction { unknown_in_a_row: 0, without_gaps: false },
    Restriction { unknown_in_a_row: 1, without_gaps: false },
    Restriction { unknown_in_a_row: usize::MAX, without_gaps: true },
    // None.
    Restriction { unknown_in_a_row: usize::MAX, without_gaps: false },
];

/// Looks for an order of all calls, which have to be sorted by [`Call::from`].
pub(super) fn search(object: &Object, calls: &[Call<'_>], steps_max: u64) -> Searched {
    let mut steps = 0;
    for (tries_left, restriction) in (0..RESTRICTIONS.len()).rev().zip(RESTRICTIONS) {
        // A try that leaves something out must not use up what the others need.
        let share = if tries_left == 0 { 1 } else { 2 };
        let mut search = Search::new(object, calls, restriction, (steps_max - steps) / share);
        let explained = search.run();
        steps += search.steps;
        let verdict = match explained {
            Some(true) => Verdict::Explained,
            Some(false) if search.left_something_out => continue,
            Some(false) => {
                let Stuck { call, state, .. } = search.stuck;
                Verdict::Impossible { call, state }
            }
            None if tries_left > 0 => continue,
            None => Verdict::GivenUp,
        };
        return Searched { verdict, steps };
    }
    Searched { verdict: Verdict::GivenUp, steps }
}

struct Search<'a> {
    object: &'a Object,
    calls: &'a [Call<'a>],
    restriction: Restriction,
    /// Whether the restriction kept anything from being tried.
    left_something_out: bool,
    steps_max: u64,
    steps: u64,

    state: State,
    /// Of each call, whether it takes the chance away from one of unknown outcome.
    rules_out: Vec<bool>,
    done: Vec<bool>,
    /// Of `done`: the sum of a random number for each call.
    mark: u128,
    /// Definite calls that are not done.
    left: usize,
    /// All calls before this are done, or are of unknown outcome.
    first: usize,
    tried: HashSet<(u128, usize, State)>,
    stuck: Stuck,
}

struct Stuck {
    left: usize,
    call: usize,
    state: State,
}

/// A place in the search where there is a choice.
struct Fork {
    /// Calls done since the fork before, and not by its choice.
    settled: Vec<usize>,
    choices: std::vec::IntoIter<Choice>,
    /// The call that the present choice has done.
    chosen: Option<usize>,
    /// Calls of unknown outcome in a row up to here.
    unknown: usize,
    first: usize,
}

struct Choice {
    /// `None` for a znode that goes by itself.
    call: Option<usize>,
    state: State,
}

impl<'a> Search<'a> {
    fn new(
        object: &'a Object,
        calls: &'a [Call<'a>],
        restriction: Restriction,
        steps_max: u64,
    ) -> Search<'a> {
        let state: State = vec![None; object.slots.len()];
        let left = calls.iter().filter(|c| c.definite()).count();
        let mut rules_out = vec![false; calls.len()];
        calls.iter().filter_map(|c| c.unless).for_each(|later| rules_out[later] = true);
        Search {
            object,
            calls,
            restriction,
            left_something_out: false,
            steps_max,
            steps: 0,
            stuck: Stuck { left: usize::MAX, call: 0, state: state.clone() },
            state,
            rules_out,
            done: vec![false; calls.len()],
            mark: 0,
            left,
            first: 0,
            tried: HashSet::new(),
        }
    }

    /// Whether there is an order; `None` if the steps did not suffice.
    fn run(&mut self) -> Option<bool> {
        let mut forks: Vec<Fork> = Vec::new();
        let mut unknown = 0;
        loop {
            let first = self.first;
            let settled = self.settle();
            if self.left == 0 {
                return Some(true);
            }
            if self.steps >= self.steps_max {
                return None;
            }
            self.steps += 1;
            // How many unknown ones may still follow matters only where that is limited.
            let in_a_row = if self.restriction.unknown_in_a_row == usize::MAX { 0 } else { unknown };
            let new = self.tried.insert((self.mark, in_a_row, self.state.clone()));
            let choices = if new { self.choices(unknown) } else { Vec::new() };
            forks.push(Fork { settled, choices: choices.into_iter(), chosen: None, unknown, first });
            // On with the next choice of the last fork that has one.
            loop {
                let Some(fork) = forks.last_mut() else { return Some(false) };
                if let Some(call) = fork.chosen.take() {
                    self.undo(call);
                }
                if let Some(choice) = fork.choices.next() {
                    fork.chosen = choice.call;
                    let definite = choice.call.is_none_or(|call| self.calls[call].definite());
                    unknown = if definite { 0 } else { fork.unknown + 1 };
                    self.state = choice.state;
                    if let Some(call) = choice.call {
                        self.mark_done(call);
                    }
                    break;
                }
                let Fork { settled, first, .. } = forks.pop()?;
                settled.into_iter().for_each(|call| self.undo(call));
                self.first = first;
            }
        }
    }

    fn mark_done(&mut self, call: usize) {
        self.done[call] = true;
        self.mark ^= random(call);
        self.left -= usize::from(self.calls[call].definite());
    }

    fn undo(&mut self, call: usize) {
        self.done[call] = false;
        self.mark ^= random(call);
        self.left += usize::from(self.calls[call].definite());
        self.first = self.first.min(call);
    }

    /// The calls that may be the next, in the order of [`Call::from`].
    fn candidates(&mut self) -> Vec<usize> {
        while self.first < self.calls.len() && self.done[self.first] {
            self.first += 1;
        }
        let mut candidates = Vec::new();
        let mut earliest_return = u64::MAX;
        for (i, call) in self.calls.iter().enumerate().skip(self.first) {
            if call.from > earliest_return {
                break;
            }
            if self.done[i] {
                continue;
            }
            earliest_return = earliest_return.min(call.to);
            let in_order = call.behind.iter().all(|&b| self.done[b]);
            if !in_order || call.unless.is_some_and(|later| self.done[later]) {
                continue;
            }
            if self.restriction.without_gaps && call.after_unknown.is_some_and(|earlier| !self.done[earlier])
            {
                self.left_something_out = true;
                continue;
            }
            candidates.push(i);
        }
        candidates
    }

    /// Does all that changes nothing, rules nothing out, and can be done now. To do it later could only be harder.
    fn settle(&mut self) -> Vec<usize> {
        let mut settled = Vec::new();
        loop {
            let before = settled.len();
            for call in self.candidates() {
                let idle = match &self.calls[call].what {
                    What::Read { path, outcome } => self.object.reads(&self.state, path, outcome),
                    What::Write { write, outcome: outcome @ Some(Err(_)) } if !self.rules_out[call] => {
                        self.object.write(&self.state, write, *outcome).is_some()
                    }
                    What::Write { .. } => false,
                };
                if idle {
                    self.mark_done(call);
                    settled.push(call);
                }
            }
            if settled.len() == before {
                return settled;
            }
        }
    }

    /// The next operations that change the state, or exclude something: known ones first.
    fn choices(&mut self, unknown: usize) -> Vec<Choice> {
        let candidates = self.candidates();
        self.note_stuck(&candidates);
        let mut definite = Vec::new();
        let mut maybe = Vec::new();
        for call in candidates {
            let What::Write { write, outcome } = &self.calls[call].what else { continue };
            let Some(state) = self.object.write(&self.state, write, *outcome) else { continue };
            if outcome.is_some() {
                definite.push(Choice { call: Some(call), state });
            // Where gaps are not allowed, what changes nothing may have to be done for the sake of what follows it.
            } else if state != self.state || self.restriction.without_gaps {
                maybe.push(Choice { call: Some(call), state });
            }
        }
        definite.sort_by_key(|c| c.call.map(|call| self.calls[call].to));
        if unknown < self.restriction.unknown_in_a_row {
            definite.append(&mut maybe);
        } else {
            self.left_something_out |= !maybe.is_empty();
        }
        definite.extend(self.object.vanishing(&self.state).map(|slot| {
            let mut state = self.state.clone();
            state[slot] = None;
            Choice { call: None, state }
        }));
        definite
    }

    fn note_stuck(&mut self, candidates: &[usize]) {
        if self.left < self.stuck.left {
            let next = candidates.iter().copied().filter(|&c| self.calls[c].definite());
            if let Some(call) = next.min_by_key(|&c| self.calls[c].to) {
                self.stuck = Stuck { left: self.left, call, state: self.state.clone() };
            }
        }
    }
}

/// A number for each call that looks random (SplitMix64, twice), the same in every run.
fn random(call: usize) -> u128 {
    let spread = |number: u64| u128::from(mix(number.wrapping_mul(STEP)));
    let call = call as u64 + 1;
    (spread(call) << 64) | spread(!call)
}
