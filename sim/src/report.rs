//! What came of a run, and the sum of many.

use std::collections::BTreeMap;
use std::fmt;

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// When, in simulated microseconds.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:06} s: {}", self.invariant, self.at / 1_000_000, self.at % 1_000_000, self.what)
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first thing that was wrong.
    pub violation: Option<Violation>,
    /// What was done.
    pub stats: Stats,
    /// What clients saw.
    pub history: history::History,
}

/// Counts.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Simulated time in microseconds, of whole ensembles.
    pub simulated_us: u64,
    /// Events.
    pub steps: u64,
    /// Reigns that began to serve.
    pub reigns: u64,
    /// Entries committed.
    pub commits: u64,
    /// From the end of all faults until the ensemble had come to rest, at most, in microseconds.
    pub settle_max_us: u64,
    /// The seed of the run that took so long.
    pub settle_max_seed: u64,
    /// Groups of znodes whose histories were searched for an order that trusts no zxid.
    pub searched: u64,
    /// Of these, given up because the search became too long.
    pub undecided: u64,
    /// Everything else, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// One more.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// `times` more.
    pub(crate) fn count_more(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// Adds another run, or another sum.
    pub fn add(&mut self, other: &Stats) {
        self.runs += other.runs;
        self.simulated_us += other.simulated_us;
        self.steps += other.steps;
        self.reigns += other.reigns;
        self.commits += other.commits;
        if other.settle_max_us > self.settle_max_us {
            (self.settle_max_us, self.settle_max_seed) = (other.settle_max_us, other.settle_max_seed);
        }
        self.searched += other.searched;
        self.undecided += other.undecided;
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3.6e9;
        writeln!(f, "runs              {}", self.runs)?;
        writeln!(f, "simulated hours   {hours:.2}")?;
        writeln!(f, "steps             {}", self.steps)?;
        writeln!(f, "reigns            {}", self.reigns)?;
        writeln!(f, "commits           {}", self.commits)?;
        let settle_max = self.settle_max_us as f64 / 1e6;
        writeln!(f, "at rest within    {settle_max:.1} s, seed {}", self.settle_max_seed)?;
        writeln!(f, "searched          {} groups of znodes, {} undecided", self.searched, self.undecided)?;
        let list = |map: &BTreeMap<&str, u64>| {
            map.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "faults            {}", list(&self.faults))?;
        write!(f, "counts            {}", list(&self.counts))
    }
}
