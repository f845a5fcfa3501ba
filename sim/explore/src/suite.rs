//! The default configurations: see the table in `docs/model-checking.md`.

use explore::election::{self, Election};
use explore::zab::{self, Bounds, Start, Zab};
use explore::{Limits, Report};

use crate::run;

/// Explores everything; `None` for what cannot be explored.
pub(crate) fn run_all(limits: Limits) -> Vec<Option<Report>> {
    let mut reports = Vec::new();
    for (name, setup) in elections() {
        reports.push(run(&format!("election: {name}"), Election::new(setup), limits));
    }
    for (name, setup) in zabs() {
        reports.push(run(&format!("zab: {name}"), Zab::new(setup), limits));
    }
    reports
}

fn elections() -> Vec<(&'static str, election::Setup)> {
    let timely = election::Setup { zxids: vec![1, 0, 1], timely: true, ..election::Setup::of_voters(3) };
    vec![
        ("3 voters, timely", timely.clone()),
        ("3 voters, timely, 2 crashes", election::Setup { crashes: 2, queue: 1, ..timely.clone() }),
        (
            "3 voters, timely, 1 crash, 1 link breaks",
            election::Setup { crashes: 1, cuts: 1, queue: 1, ..timely.clone() },
        ),
        ("3 voters and an observer, timely", election::Setup { observers: 1, queue: 1, ..timely.clone() }),
        ("3 voters, any delays, 2 rounds", election::Setup { timely: false, rounds: 2, queue: 1, ..timely }),
    ]
}

fn zabs() -> Vec<(&'static str, zab::Setup)> {
    let three = zab::Setup::of_voters(3);
    let bounds = Bounds { elections: 2, crashes: 1, writes: 1, ..Bounds::NONE };
    vec![
        ("1 crash, 1 write", zab::Setup { bounds, ..three }),
        ("2 crashes, 1 write", zab::Setup { bounds: Bounds { crashes: 2, ..bounds }, ..three }),
        ("1 crash, 2 writes", zab::Setup { bounds: Bounds { writes: 2, ..bounds }, ..three }),
        (
            "1 election, 2 crashes, 2 writes",
            zab::Setup { bounds: Bounds { elections: 1, crashes: 2, writes: 2, ..bounds }, ..three },
        ),
        (
            "1 time-out, 1 write, 1 barrier",
            zab::Setup { bounds: Bounds { crashes: 0, timeouts: 1, barriers: 1, ..bounds }, ..three },
        ),
        ("server 3 behind, 1 crash, 1 write", zab::Setup { start: Start::Behind, bounds, ..three }),
        ("server 3 needs a snapshot, 1 crash, 1 write", zab::Setup { start: Start::Purged, bounds, ..three }),
        (
            "1 disk wiped, 1 write",
            zab::Setup { start: Start::Written, bounds: Bounds { crashes: 0, wipes: 1, ..bounds }, ..three },
        ),
        (
            "server 3 behind, 1 disk wiped, 1 write",
            zab::Setup { start: Start::Behind, bounds: Bounds { crashes: 0, wipes: 1, ..bounds }, ..three },
        ),
        (
            "nothing written yet, 1 disk wiped, 1 write",
            zab::Setup { start: Start::Blank, bounds: Bounds { crashes: 0, wipes: 1, ..bounds }, ..three },
        ),
        (
            "server 3 behind, 1 log damaged or put back, 1 write",
            zab::Setup { start: Start::Behind, bounds: Bounds { crashes: 0, damages: 1, ..bounds }, ..three },
        ),
        (
            "commits wait for proposals, 1 election, 1 crash, 2 writes",
            zab::Setup { late_commits: true, bounds: Bounds { elections: 1, writes: 2, ..bounds }, ..three },
        ),
        (
            "commits wait for proposals, 2 elections, 2 writes",
            zab::Setup { late_commits: true, bounds: Bounds { crashes: 0, writes: 2, ..bounds }, ..three },
        ),
        (
            "an observer, 1 election, 1 crash, 1 write",
            zab::Setup { observers: 1, bounds: Bounds { elections: 1, ..bounds }, ..three },
        ),
    ]
}
