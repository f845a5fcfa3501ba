//! Why connections were closed: counted each time, said now and then.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use telemetry::{Closed, Port, metrics};

/// When each was last said, and how often it has happened since.
static SAID: Mutex<BTreeMap<(Port, Closed), (Instant, u64)>> = Mutex::new(BTreeMap::new());

/// A connection was closed, or refused, for this.
pub(crate) fn closed(port: Port, why: Closed) {
    metrics::PORT_CONNECTIONS_CLOSED.at((port, why)).add(1);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, quiet) = match said.get_mut(&(port, why)) {
        Some((at, count)) => {
            *count += 1;
            (*count, at.elapsed() < SAID_EVERY)
        }
        None => (1, false),
    };
    if quiet {
        return;
    }
    said.insert((port, why), (Instant::now(), 0));
    drop(said);
    let (port, reason) = (port.name(), why.name());
    match why {
        // As when a client is killed.
        Closed::Broken => tracing::debug!(port, reason, count, "connections were closed"),
        _ => tracing::warn!(port, reason, count, "connections were closed"),
    }
}

/// Strangers must not fill the log.
const SAID_EVERY: Duration = Duration::from_secs(60);
