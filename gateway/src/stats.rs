//! Statistics of connections and requests for the four letter words.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use telemetry::metrics;

use crate::{watches::Watches, words::TRACE_MASK};

/// Statistics of the whole gateway.
pub(crate) struct Stats {
    pub(crate) started: Instant,
    pub(crate) all: Traffic,
    /// Of `gtmk` and `stmk`.
    pub(crate) trace_mask: AtomicI64,
    last: AtomicU64,
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// Statistics of the traffic.
#[derive(Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    /// Latency of answered requests, in microseconds.
    latency_total: AtomicU64,
    latency_min: AtomicU64,
    latency_max: AtomicU64,
    answered: AtomicU64,
}

/// Statistics of one connection.
pub(crate) struct Connection {
    pub(crate) address: SocketAddr,
    pub(crate) traffic: Traffic,
    pub(crate) established_ms: u64,
    pub(crate) session: AtomicI64,
    pub(crate) timeout_ms: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) last_xid: AtomicI64,
    pub(crate) last_zxid: AtomicI64,
    pub(crate) last_op: AtomicI64,
    pub(crate) last_answer_ms: AtomicU64,
    pub(crate) last_latency_ms: AtomicU64,
    pub(crate) watches: Watches,
}

/// The entry of a connection in the list, until it is dropped.
pub(crate) struct Listed<'a> {
    stats: &'a Stats,
    id: u64,
    pub(crate) connection: Arc<Connection>,
}

/// Milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Latency {
    pub(crate) min: u64,
    pub(crate) average: f64,
    pub(crate) max: u64,
}

impl Stats {
    pub(crate) fn new() -> Stats {
        Stats {
            started: Instant::now(),
            all: Traffic::default(),
            trace_mask: AtomicI64::new(TRACE_MASK),
            last: AtomicU64::new(0),
            connections: Mutex::default(),
        }
    }

    pub(crate) fn enter(&self, address: SocketAddr) -> Listed<'_> {
        let id = self.last.fetch_add(1, Relaxed);
        let connection = Arc::new(Connection {
            address,
            traffic: Traffic::default(),
            established_ms: now_ms(),
            session: AtomicI64::new(0),
            timeout_ms: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            last_xid: AtomicI64::new(0),
            last_zxid: AtomicI64::new(0),
            last_op: AtomicI64::new(0),
            last_answer_ms: AtomicU64::new(0),
            last_latency_ms: AtomicU64::new(0),
            watches: Watches::default(),
        });
        self.lock().insert(id, connection.clone());
        Listed { stats: self, id, connection }
    }

    /// In the order in which they connected.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.lock().values().cloned().collect()
    }

    /// The watched paths by session, for sessions of this gateway that have watches, and the number of watches.
    pub(crate) fn watched(&self) -> (BTreeMap<i64, BTreeSet<String>>, usize) {
        let (mut all, mut count) = (BTreeMap::new(), 0);
        for connection in self.connections() {
            let (paths, watches) = connection.watches.paths();
            count += watches;
            if watches > 0 {
                all.insert(connection.session.load(Relaxed), paths);
            }
        }
        (all, count)
    }

    /// The number of connections, and of their unanswered requests.
    pub(crate) fn alive(&self) -> (usize, u64) {
        let connections = self.lock();
        (connections.len(), connections.values().map(|c| c.queued.load(Relaxed)).sum())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        // No code under this lock panics half way.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed<'_> {
    /// Requests have arrived.
    pub(crate) fn received(&self, count: usize) {
        let count = count as u64;
        self.stats.all.received.fetch_add(count, Relaxed);
        self.connection.traffic.received.fetch_add(count, Relaxed);
        self.connection.queued.fetch_add(count, Relaxed);
        metrics::GATEWAY_REQUESTS.add(count);
    }

    /// A request that arrived at this time is answered.
    pub(crate) fn answered(&self, xid: i32, zxid: i64, op: i32, since: Instant) {
        let took = since.elapsed();
        let connection = &self.connection;
        self.stats.all.answered(took);
        connection.traffic.answered(took);
        connection.queued.fetch_sub(1, Relaxed);
        connection.last_xid.store(xid.into(), Relaxed);
        connection.last_zxid.store(zxid, Relaxed);
        connection.last_op.store(op.into(), Relaxed);
        connection.last_answer_ms.store(now_ms(), Relaxed);
        connection.last_latency_ms.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Relaxed);
        metrics::GATEWAY_REQUEST_DURATION.record(took);
    }

    /// Events were sent.
    pub(crate) fn told(&self, events: u64) {
        self.stats.all.sent.fetch_add(events, Relaxed);
        self.connection.traffic.sent.fetch_add(events, Relaxed);
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.stats.lock().remove(&self.id);
    }
}

impl Traffic {
    fn answered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sent.fetch_add(1, Relaxed);
        self.latency_total.fetch_add(micros, Relaxed);
        if self.answered.fetch_add(1, Relaxed) == 0 {
            self.latency_min.store(micros, Relaxed);
        }
        self.latency_min.fetch_min(micros, Relaxed);
        self.latency_max.fetch_max(micros, Relaxed);
    }

    pub(crate) fn latency(&self) -> Latency {
        let answered = self.answered.load(Relaxed);
        let total = self.latency_total.load(Relaxed) as f64 / 1000.0;
        Latency {
            min: self.latency_min.load(Relaxed) / 1000,
            average: if answered == 0 { 0.0 } else { total / answered as f64 },
            max: self.latency_max.load(Relaxed) / 1000,
        }
    }

    pub(crate) fn reset(&self) {
        for value in [
            &self.received,
            &self.sent,
            &self.latency_total,
            &self.latency_min,
            &self.latency_max,
            &self.answered,
        ] {
            value.store(0, Relaxed);
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
