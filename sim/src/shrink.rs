//! Making a failing plan smaller.

use crate::plan::Plan;
use crate::world::run;

/// The smallest plan found that violates the same invariant, in at most `runs` runs.
#[must_use]
pub fn shrink(plan: &Plan, invariant: &str, runs: usize) -> Plan {
    let mut search = Search { best: plan.clone(), invariant, left: runs };
    search.cut_end();
    while search.left > 0 {
        let before = search.best.clone();
        search.drop_faults();
        search.drop_clients();
        search.calm();
        if search.best == before {
            break;
        }
    }
    search.best
}

struct Search<'a> {
    best: Plan,
    invariant: &'a str,
    left: usize,
}

impl Search<'_> {
    fn try_plan(&mut self, plan: Plan) -> bool {
        if self.left == 0 || plan == self.best {
            return false;
        }
        self.left -= 1;
        let fails = run(&plan, None).violation.is_some_and(|v| v.invariant == self.invariant);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Nothing after the violation matters.
    fn cut_end(&mut self) {
        let Some(violation) = run(&self.best, None).violation else { return };
        let mut plan = self.best.clone();
        plan.active_us = plan.active_us.min(violation.at + 1);
        plan.faults.retain(|f| f.at <= violation.at);
        self.try_plan(plan);
    }

    /// Halves, quarters, ... of the faults, as in delta debugging.
    fn drop_faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let mut plan = self.best.clone();
                let to = (from + size).min(plan.faults.len());
                plan.faults.drain(from..to);
                if !self.try_plan(plan) {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn drop_clients(&mut self) {
        while self.best.clients > 1 {
            let mut plan = self.best.clone();
            plan.clients -= 1;
            if !self.try_plan(plan) {
                return;
            }
        }
    }

    /// Takes away what makes a run harder to read.
    fn calm(&mut self) {
        let calmer: [fn(&mut Plan); 4] = [
            |p| p.members.iter_mut().for_each(|m| (m.drift_ppm, m.wall_ms) = (0, 0)),
            |p| p.network.spikes = 0,
            |p| (p.workload.depth, p.workload.closes) = (1, 0),
            |p| p.active_us = p.active_us * 3 / 4,
        ];
        for change in calmer {
            let mut plan = self.best.clone();
            change(&mut plan);
            self.try_plan(plan);
        }
    }
}
