//! Breadth-first search over all states of a model: every state is visited once, and the first violation that is found
//! has a shortest trace.
//!
//! States are compared whole, not by a hash of them, so no state is ever taken for another.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::hash::Mix;

/// A system whose states can be explored.
pub trait Model {
    /// A state of the whole system; small, and equal exactly if it is the same.
    type State: Copy + Eq + Hash;
    /// Something that can happen.
    type Action: Copy;

    /// Where everything starts.
    fn start(&mut self) -> Self::State;

    /// The possible events of this state.
    fn actions(&mut self, state: &Self::State, into: &mut Vec<Self::Action>);

    /// The state after that, or which invariant it breaks.
    ///
    /// # Errors
    /// The invariant and how it is broken.
    fn next(&mut self, state: &Self::State, action: Self::Action) -> Result<Self::State, String>;

    /// Whether it is right that the system stops here; asked where nothing can happen but faults and time-outs.
    ///
    /// # Errors
    /// What is missing.
    fn at_rest(&mut self, state: &Self::State) -> Result<(), String>;

    /// One line for a reader of a trace.
    fn tell(&mut self, state: &Self::State, action: Self::Action) -> String;

    /// A summary of the tables behind the states.
    fn tables(&self) -> String;
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this many states.
    pub states: usize,
    /// After this long.
    pub time: Duration,
    /// Say where things stand on standard error, this often; never if zero.
    pub progress: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { states: 80_000_000, time: Duration::from_secs(3600), progress: Duration::ZERO }
    }
}

/// The result of an exploration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every state that can be reached was visited.
    Closed,
    /// A limit was reached first; all states with fewer steps than [`Report::depth`] were visited.
    Cut,
    /// An invariant is broken, after these events.
    Violation {
        /// Which, and how.
        what: String,
        /// From the start to there, one line each.
        trace: Vec<String>,
    },
}

/// The result of an exploration.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Different states.
    pub states: usize,
    /// Events that were carried out.
    pub transitions: u64,
    /// Steps from the start to the states that were visited last.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
}

/// Visits all states of a model.
pub fn explore<M: Model>(model: &mut M, limits: Limits) -> Report {
    let began = Instant::now();
    let mut spoke = began;
    let start = model.start();
    let mut seen = Seen::new();
    seen.add(start, 0);
    let mut report =
        Report { verdict: Verdict::Closed, states: 1, transitions: 0, depth: 0, took: Duration::ZERO };
    let mut actions = Vec::new();
    let mut layer_end = 1;
    let mut at = 0;
    while at < seen.states.len() {
        if at == layer_end {
            report.depth += 1;
            layer_end = seen.states.len();
        }
        let state = seen.states[at];
        actions.clear();
        model.actions(&state, &mut actions);
        for &action in &actions {
            report.transitions += 1;
            match model.next(&state, action) {
                Ok(next) => seen.add(next, at),
                Err(what) => {
                    let mut trace = trace(model, &seen, at);
                    trace.push(model.tell(&state, action));
                    report.verdict = Verdict::Violation { what, trace };
                    break;
                }
            }
        }
        if report.verdict == Verdict::Closed
            && let Err(what) = model.at_rest(&state)
        {
            report.verdict = Verdict::Violation { what, trace: trace(model, &seen, at) };
        }
        at += 1;
        if report.verdict != Verdict::Closed {
            break;
        }
        if at % 1024 == 0 {
            if at < seen.states.len()
                && (seen.states.len() >= limits.states || began.elapsed() >= limits.time)
            {
                report.verdict = Verdict::Cut;
                break;
            }
            if limits.progress > Duration::ZERO && spoke.elapsed() >= limits.progress {
                spoke = Instant::now();
                eprintln!(
                    "{:>4} s: {} states, {} to expand, depth {}, {}",
                    began.elapsed().as_secs(),
                    seen.states.len(),
                    seen.states.len() - at,
                    report.depth,
                    model.tables()
                );
            }
        }
    }
    report.states = seen.states.len();
    report.took = began.elapsed();
    report
}

/// The events from the start to a state, recomputed from the states between.
fn trace<M: Model>(model: &mut M, seen: &Seen<M::State>, to: usize) -> Vec<String> {
    let mut way = vec![to];
    let mut at = to;
    while at != 0 {
        at = seen.parents[at] as usize;
        way.push(at);
    }
    way.reverse();
    let mut actions = Vec::new();
    way.windows(2)
        .map(|pair| {
            let (from, to) = (seen.states[pair[0]], seen.states[pair[1]]);
            actions.clear();
            model.actions(&from, &mut actions);
            match actions.iter().find(|&&a| model.next(&from, a).as_ref() == Ok(&to)) {
                Some(&action) => model.tell(&from, action),
                None => "an event that cannot be repeated: the model is not deterministic".to_owned(),
            }
        })
        .collect()
}

/// The states in the order in which they were found, and an open table of their numbers.
struct Seen<S> {
    states: Vec<S>,
    /// By which state each was found.
    parents: Vec<u32>,
    /// A power of two long.
    slots: Vec<Slot>,
}

/// Number of a state plus one, 0 if the slot is free; and half of its hash, so that other states are rarely
/// compared.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u32,
    state: u32,
}

impl<S: Copy + Eq + Hash> Seen<S> {
    fn new() -> Seen<S> {
        Seen { states: Vec::new(), parents: Vec::new(), slots: vec![Slot::default(); 1 << 16] }
    }

    fn add(&mut self, state: S, parent: usize) {
        let (slot, tag) = self.slot_of(&state);
        if self.slots[slot].state != 0 {
            return;
        }
        self.states.push(state);
        self.parents.push(parent as u32);
        self.slots[slot] = Slot { tag, state: self.states.len() as u32 };
        if self.states.len() * 4 > self.slots.len() * 3 {
            self.grow();
        }
    }

    /// Where the state is, or where it would be; and its tag.
    fn slot_of(&self, state: &S) -> (usize, u32) {
        let mask = self.slots.len() - 1;
        let mut hash = Mix::default();
        state.hash(&mut hash);
        let hash = hash.finish();
        let tag = (hash >> 32) as u32;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.state == 0 || (slot.tag == tag && self.states[slot.state as usize - 1] == *state) {
                return (at, tag);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![Slot::default(); old.len() * 2];
        drop(old);
        for i in 0..self.states.len() {
            let (at, tag) = self.slot_of(&self.states[i]);
            self.slots[at] = Slot { tag, state: i as u32 + 1 };
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "{} states, {} transitions, depth {}, {seconds:.1} s, {:.0} states/s",
            self.states,
            self.transitions,
            self.depth,
            self.states as f64 / seconds.max(1e-9)
        )?;
        match &self.verdict {
            Verdict::Closed => {
                write!(f, "closed: every state within the bounds was visited, no invariant is broken")
            }
            Verdict::Cut => write!(
                f,
                "cut by the limit: every state within {} steps was visited, no invariant is broken",
                self.depth
            ),
            Verdict::Violation { what, trace } => {
                writeln!(f, "VIOLATION after {} events: {what}", trace.len())?;
                for (i, line) in trace.iter().enumerate() {
                    writeln!(f, "{:>4}  {line}", i + 1)?;
                }
                Ok(())
            }
        }
    }
}
