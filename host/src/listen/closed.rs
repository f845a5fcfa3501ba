//! Reasons of closed connections: each is counted, and logged now and then.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use telemetry::{Closed, Port, metrics};
use tokio::time::Instant;

static SAID: Mutex<BTreeMap<(Port, Closed), Seldom>> = Mutex::new(BTreeMap::new());

/// An event that is logged once in a while, however often it happens.
#[derive(Default)]
pub(super) struct Seldom {
    said: Option<Instant>,
    /// How often it has happened since.
    count: u64,
}

impl Seldom {
    /// Counts the event. Returns the count since the last log line, if one is due.
    pub(super) fn happened(&mut self) -> Option<u64> {
        self.count += 1;
        if !self.is_due() {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }

    fn is_due(&self) -> bool {
        self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY)
    }
}

/// A connection was closed, or refused, for this.
pub(crate) fn closed(port: Port, why: Closed) {
    metrics::PORT_CONNECTIONS_CLOSED.at((port, why)).add(1);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let happened = said.entry((port, why)).or_default().happened();
    drop(said);
    let Some(count) = happened else { return };
    let (port, reason) = (port.name(), why.name());
    match why {
        // As when a client is killed.
        Closed::Broken => tracing::debug!(port, reason, count, "connections closed"),
        _ => tracing::warn!(port, reason, count, "connections closed"),
    }
}

/// Whether the next one of these is logged.
pub(super) fn is_due(port: Port, why: Closed) -> bool {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.get(&(port, why)).is_none_or(Seldom::is_due)
}

/// Strangers must not fill the log.
const SAID_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn b10_what_happens_often_is_said_once_a_minute_with_a_count() {
        let mut seldom = Seldom::default();
        let mut said = Vec::new();
        // Ten times a second, as a port does that finds no file descriptor.
        for _ in 0..1250 {
            said.extend(seldom.happened());
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(said, [1, 600, 600]);
    }
}
