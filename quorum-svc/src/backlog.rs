//! How much waits for the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use telemetry::metrics;
use tokio::sync::Notify;

/// Bytes handed to the log thread and not durable yet. A learner stops reading from its leader while there are too
/// many, so that a slow disk holds back the stream instead of filling the memory.
#[derive(Clone)]
pub(crate) struct Backlog(Arc<Inner>);

struct Inner {
    bytes: AtomicUsize,
    limit: usize,
    drained: Notify,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Backlog {
        Backlog(Arc::new(Inner { bytes: AtomicUsize::new(0), limit, drained: Notify::new() }))
    }

    pub(crate) fn add(&self, bytes: usize) {
        let before = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::LOG_BACKLOG.set((before + bytes) as u64);
    }

    pub(crate) fn remove(&self, bytes: usize) {
        let before = self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        metrics::LOG_BACKLOG.set(before.saturating_sub(bytes) as u64);
        if before >= self.0.limit {
            self.0.drained.notify_waiters();
        }
    }

    /// Waits until there is room.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.0.drained.notified();
            if self.0.bytes.load(Ordering::Relaxed) < self.0.limit {
                return;
            }
            drained.await;
        }
    }
}
