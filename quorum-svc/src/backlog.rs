//! The amount of data that waits for the disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use telemetry::metrics;
use tokio::sync::Notify;

/// Bytes handed to the log thread that are not durable yet. Above the limit, a learner stops reading
/// from its leader, so a slow disk throttles the stream instead of filling the memory.
#[derive(Clone)]
pub(crate) struct Backlog(Arc<Inner>);

struct Inner {
    bytes: AtomicUsize,
    limit: usize,
    drained: Notify,
    /// Last time that the disk was idle or finished a write.
    moved: Mutex<Instant>,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Backlog {
        let moved = Mutex::new(Instant::now());
        Backlog(Arc::new(Inner { bytes: AtomicUsize::new(0), limit, drained: Notify::new(), moved }))
    }

    pub(crate) fn add(&self, bytes: usize) {
        // Set before the bytes count; otherwise a concurrent reader takes the idle time for a stuck disk.
        if self.0.bytes.load(Ordering::Relaxed) == 0 {
            self.note();
        }
        let before = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::LOG_BACKLOG.set((before + bytes) as u64);
    }

    pub(crate) fn remove(&self, bytes: usize) {
        self.note();
        let before = self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        metrics::LOG_BACKLOG.set(before.saturating_sub(bytes) as u64);
        if before >= self.0.limit {
            self.0.drained.notify_waiters();
        }
    }

    /// Time for which entries have waited without any progress of the disk; zero while none wait.
    pub(crate) fn stuck(&self) -> Duration {
        match self.0.bytes.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => self.0.moved.lock().unwrap_or_else(PoisonError::into_inner).elapsed(),
        }
    }

    fn note(&self) {
        *self.0.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the backlog is below its limit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_stuck_since_it_last_did_something_and_only_while_something_waits() {
        const WHILE: Duration = Duration::from_millis(20);
        let backlog = Backlog::new(1000);
        std::thread::sleep(WHILE);
        let work = Instant::now();
        backlog.add(10);
        assert!(backlog.stuck() <= work.elapsed(), "it had nothing to do before");
        std::thread::sleep(WHILE);
        backlog.add(20);
        assert!(backlog.stuck() >= WHILE, "more work is no progress");
        let progress = Instant::now();
        backlog.remove(10);
        assert!(backlog.stuck() <= progress.elapsed(), "a part of it is");
        backlog.remove(20);
        std::thread::sleep(WHILE);
        assert_eq!(backlog.stuck(), Duration::ZERO, "nothing waits");
    }
}
