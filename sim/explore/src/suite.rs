//! What is explored where nothing else is said: see the table in `docs/model-checking.md`.

use explore::{Limits, Report, election, zab};

use crate::run;

pub(crate) fn run_all(limits: Limits) -> Vec<Option<Report>> {
    let mut reports = Vec::new();
    for (name, setup) in elections() {
        reports.push(run(&format!("election: {name}"), election::Election::new(setup), limits));
    }
    for (name, setup) in zabs() {
        reports.push(run(&format!("zab: {name}"), zab::Zab::new(setup), limits));
    }
    reports
}

fn elections() -> Vec<(&'static str, election::Setup)> {
    Vec::new()
}

fn zabs() -> Vec<(&'static str, zab::Setup)> {
    Vec::new()
}
