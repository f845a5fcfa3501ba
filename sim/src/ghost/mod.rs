//! What only the observer knows, and the invariants that it checks: names as in `docs/simulation.md`.

mod disks;
mod log;
mod sessions;
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Ensemble, Epoch, History, Levels, PeerId, Roster, SessionId, StreamId, Zxid};
use invariants::{Ledger, Members, Proposals, Verdict};
use store_core::State;
use store_core::server::Committed;

pub(crate) use self::disks::Shadow;
use self::states::{Checks, Flip};
use crate::plan::Plan;
use crate::watchers::Watchers;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Ghost {
    ensemble: Ensemble,
    /// All members that any log ever said.
    members: Members,
    pub(crate) disks: Vec<Shadow>,
    /// The feature levels that each node knows.
    pub(crate) builds: Vec<Levels>,
    proposals: Proposals,
    /// C, the reigns, and the requests of stores.
    ledger: Ledger,
    /// C, decoded.
    committed: Vec<Committed>,
    /// When the last of them was committed.
    committed_at: u64,
    /// How long a container may be there that never had a child; 0: for ever.
    container_unused_ms: u64,
    /// Znodes that went by themselves.
    pub(crate) reaped: u64,
    /// The state after each of them, as a digest.
    digests: Vec<u64>,
    checks: Checks,
    flips: BTreeMap<PeerId, Flip>,
    state: State,
    /// The servers that ever promised an epoch.
    promised: BTreeMap<Epoch, BTreeSet<PeerId>>,
    /// Sessions that their clients believe in: connected or resumed, and neither suspended nor lost since.
    believed: BTreeSet<SessionId>,
    /// Sessions that were expired although their clients believed in them, and when each client has to know at the latest.
    mourned: BTreeMap<SessionId, u64>,
    /// Sessions that were expired: when each client has to know at the latest, and its allowance.
    expired: BTreeMap<SessionId, (u64, u64)>,
    /// By how much the wall clock of each node has been ahead of true time at most, in milliseconds. A leader may know that of a
    /// node that it has not heard since. `None` once a clock by which a node waits has jumped: with it a leader reckons on what
    /// it has heard.
    walls: Option<BTreeMap<PeerId, i64>>,
    /// True time in microseconds.
    pub(crate) now: u64,
    /// By how much the clocks of the nodes run wrong at most, in millionths, and what a node may need to learn that it is cut off,
    /// in microseconds: see [`Ghost::allowance`].
    clocks: (u64, u64),
    /// The streams on which sessions were taken up last.
    streams: BTreeMap<SessionId, StreamId>,
    /// What clients watch.
    pub(crate) watchers: Watchers,
    /// The first thing that was wrong.
    pub(crate) violation: Option<(String, String)>,
}

impl Ghost {
    pub(crate) fn new(ensemble: Ensemble, plan: &Plan) -> Ghost {
        let nodes = plan.members.len();
        let drift_ppm = plan.members.iter().map(|m| m.drift_ppm.unsigned_abs()).max().unwrap_or_default();
        Ghost {
            streams: BTreeMap::new(),
            believed: BTreeSet::new(),
            mourned: BTreeMap::new(),
            expired: BTreeMap::new(),
            walls: Some(BTreeMap::new()),
            now: 0,
            clocks: (drift_ppm, 2_000 * plan.timing.sync_limit),
            members: Members::of(&ensemble),
            ensemble,
            disks: vec![Shadow::default(); nodes],
            builds: vec![Levels::BUILD; nodes],
            proposals: Proposals::default(),
            ledger: Ledger::default(),
            committed: Vec::new(),
            committed_at: 0,
            container_unused_ms: plan.container_unused_ms(),
            reaped: 0,
            digests: Vec::new(),
            checks: Checks::default(),
            flips: BTreeMap::new(),
            state: State::default(),
            promised: BTreeMap::new(),
            watchers: Watchers::default(),
            violation: None,
        }
    }

    /// Notes that something is wrong, if it is the first.
    pub(crate) fn fail(&mut self, invariant: &str, what: String) {
        self.violation.get_or_insert((invariant.to_owned(), what));
    }

    /// What is wrong with what a watch was told, or was not told, if anything is (W1).
    pub(crate) fn watched(&mut self, said: Result<(), String>) {
        if let Err(what) = said {
            self.fail("W1 watches", what);
        }
    }

    fn check(&mut self, holds: bool, invariant: &str, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.fail(invariant, what());
        }
    }

    /// The members at the first start.
    pub(crate) fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    /// Every list of members that ever was in a log.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &Ensemble> {
        self.members.lists()
    }

    /// The last committed members; `None`: those of the first start.
    pub(crate) fn roster(&self) -> Option<&Arc<Roster>> {
        self.members.last(|zxid| self.ledger.has(zxid))
    }

    /// Whether a log has this entry, or stands on a snapshot that has it.
    fn in_log(&self, history: &History, zxid: Zxid) -> bool {
        history.contains(zxid) || zxid <= history.base() && self.ledger.has(zxid)
    }

    /// The last entry of C.
    pub(crate) fn last(&self) -> Zxid {
        self.ledger.last()
    }

    pub(crate) fn committed(&self) -> &[Committed] {
        &self.committed
    }

    /// The bytes of all entries that were ever proposed.
    pub(crate) fn proposed_bytes(&self) -> u64 {
        self.proposals.bytes()
    }

    fn hold(&mut self, verdict: Verdict) {
        if let Err(broken) = verdict {
            self.fail(broken.rule, broken.what);
        }
    }

    /// In which the ensemble began.
    pub(crate) fn first_epoch(&self) -> Option<Epoch> {
        self.committed.first().map(|c| c.zxid.epoch())
    }

    /// The wall clock of this node is ahead by `ahead_ms` now.
    pub(crate) fn clock_set(&mut self, node: PeerId, ahead_ms: i64) {
        if let Some(walls) = &mut self.walls {
            let most = walls.entry(node).or_insert(ahead_ms);
            *most = ahead_ms.max(*most);
        }
    }

    /// A clock by which a node waits has jumped.
    pub(crate) fn clock_jumped(&mut self) {
        self.walls = None;
    }
}
