//! Reports a port as not ready when clients hold all its room and nothing moves.

use std::{
    future::ready,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api::budget::{Budget, Standing, Waits};
use tokio::time::Instant;

use super::{Bounds, CallPlaces};
use crate::health::{Health, Probe};

impl Bounds {
    /// Adds checks to `health`: the process is not ready while the amount that clients hold does not move, or
    /// while they have the maximum of calls under way.
    pub fn check_ready(&self, health: &Health) {
        for (name, budget) in [("receiving", &self.budget), ("requests", &self.held)] {
            let moves = Moves::of(budget.clone());
            health.check(Probe::Ready, name, move || ready(moves.look()));
        }
        let calls = self.calls.clone();
        health.check(Probe::Ready, "calls", move || ready(look(&calls)));
    }
}

/// Checks for progress in a budget with waiting takes.
struct Moves {
    budget: Budget,
    /// The number of takes when the present wait for room began, and the time of that.
    seen: Mutex<(u64, Instant)>,
}

impl Moves {
    fn of(budget: Budget) -> Moves {
        let seen = Mutex::new((budget.standing().taken, Instant::now()));
        Moves { budget, seen }
    }

    /// Only if small takes wait as well. A node that serves them must stay ready: otherwise a client with a
    /// few endless large messages could take all nodes away from the others.
    fn look(&self) -> Result<String, String> {
        let Standing { waits, taken } = self.budget.standing();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if waits < Waits::All || seen.0 != taken {
            *seen = (taken, Instant::now());
        }
        let stuck = seen.1.elapsed();
        let held = self.budget.used();
        match (stuck < STUCK, waits) {
            (true, Waits::Large) => {
                Ok(format!("clients hold {held} bytes, and large messages wait for room"))
            }
            (true, _) => Ok(format!("clients hold {held} bytes")),
            (false, _) => Err(format!(
                "clients hold {held} bytes, all that they may, and nothing has moved for {} s: others wait. \
                 Connections that take no answers, or do not end their requests, are closed",
                stuck.as_secs()
            )),
        }
    }
}

fn look(calls: &CallPlaces) -> Result<String, String> {
    let (under_way, most) = (calls.under_way(), calls.open_to_all());
    match under_way < most {
        true => Ok(format!("{under_way} of {most} are under way")),
        false => Err(format!(
            "{under_way} are under way, which is the limit; further calls are refused. Find the clients with the most calls, or raise \
             `limits.memory`"
        )),
    }
}

/// The held amount must move within this.
const STUCK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use api::budget::Charge;

    use super::*;
    use crate::listen::methods::Method;

    /// Takes all room for others.
    fn fill(budget: &Budget) -> Vec<Charge> {
        let mut held: Vec<_> = (0..3).map(|_| budget.share().try_take(1 << 20).unwrap()).collect();
        held.extend((0..8).map(|_| budget.share().try_take(budget.small()).unwrap()));
        held
    }

    /// A ping and a look each second.
    async fn look_for_a_while(moves: &Moves) -> Result<String, String> {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = moves.budget.share().try_take(0);
            let _ = moves.look();
        }
        moves.look()
    }

    #[tokio::test(start_paused = true)]
    async fn b06_pings_do_not_hide_that_nothing_moves() {
        let budget = Budget::new(4 << 20);
        let moves = Moves::of(budget.clone());
        let mut held = fill(&budget);
        let waits = tokio::spawn(budget.share().take(1000));
        assert!(look_for_a_while(&moves).await.is_err());
        held.pop();
        let got = waits.await.unwrap();
        assert!(look_for_a_while(&moves).await.is_ok(), "nothing waits");
        let gone = tokio::spawn(budget.share().take(budget.small()));
        assert!(look_for_a_while(&moves).await.is_err());
        gone.abort();
        assert!(
            look_for_a_while(&moves).await.is_ok(),
            "the waiting take is gone, and nothing was given back"
        );
        drop((held, got));
    }

    #[tokio::test(start_paused = true)]
    async fn b06_a_node_is_ready_while_only_large_messages_wait() {
        let budget = Budget::new(4 << 20);
        let moves = Moves::of(budget.clone());
        let held: Vec<_> = (0..3).map(|_| budget.share().try_take(1 << 20).unwrap()).collect();
        let waits = tokio::spawn(budget.share().take(1 << 20));
        let said = look_for_a_while(&moves).await.expect("others are served");
        assert!(said.contains("large messages wait"), "{said}");
        let small = budget.share().try_take(1000);
        assert!(small.is_some());
        waits.abort();
        drop((held, small));
    }

    #[test]
    fn b06_a_port_without_places_for_calls_is_not_ready() {
        let calls = CallPlaces::of_clients(8);
        let session = || calls.enter([127, 0, 0, 1].into(), Method { streamed: true, watching: false });
        let places: Vec<_> = (0..6).map(|_| session().unwrap()).collect();
        assert!(session().is_err());
        assert!(look(&calls).unwrap_err().starts_with("6 are under way"));
        drop(places);
        assert_eq!(look(&calls).unwrap(), "0 of 6 are under way");
    }
}
