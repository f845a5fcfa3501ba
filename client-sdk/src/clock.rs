//! The clock of a session: a lock must not outlive a night in which its holder's machine was suspended.

use std::time::Duration;

use api::Time;
use tokio::time::Instant;

/// Starts at zero. Unlike [`Instant`], it counts the time in which the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    suspended: fn() -> Duration,
    suspended_before: Duration,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock::with(suspended)
    }

    /// `suspended`: for how long the machine was suspended since it started.
    fn with(suspended: fn() -> Duration) -> Clock {
        Clock { origin: Instant::now(), suspended, suspended_before: suspended() }
    }

    pub(crate) fn now(&self) -> Time {
        Time::default() + self.origin.elapsed() + (self.suspended)().saturating_sub(self.suspended_before)
    }

    /// What it shows at `instant`, if the machine is not suspended before that.
    pub(crate) fn at(&self, instant: Instant) -> Time {
        self.now() + instant.saturating_duration_since(Instant::now())
    }

    /// When to look at it again for something that is due at `time`: a timer does not run while the machine is suspended, so
    /// no wait is longer than [`LOOK`].
    pub(crate) fn look_at(&self, time: Time) -> Instant {
        Instant::now() + time.since(self.now()).min(LOOK)
    }
}

/// After a suspension the client notices what is due within this.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |id| {
        let time = clock_gettime(id);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    // In this order, so that the difference is never too small.
    let monotonic = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(monotonic)
}

/// Elsewhere [`Instant`] counts it, or nothing tells.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn suspended() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn b15_a_suspension_counts() {
        static SUSPENDED: AtomicU64 = AtomicU64::new(7);
        let clock = Clock::with(|| Duration::from_secs(SUSPENDED.load(Ordering::Relaxed)));
        let passed = |clock: &Clock| clock.now().since(Time::default());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(passed(&clock), Duration::from_secs(2), "what was before it started does not count");
        SUSPENDED.store(37, Ordering::Relaxed);
        assert_eq!(passed(&clock), Duration::from_secs(32));
        let soon = clock.now() + Duration::from_millis(300);
        assert_eq!(clock.look_at(soon), Instant::now() + Duration::from_millis(300));
        assert_eq!(clock.look_at(soon + Duration::from_secs(9)), Instant::now() + LOOK);
        assert_eq!(clock.at(Instant::now() + Duration::from_millis(300)), soon);
    }

    #[test]
    fn the_system_tells_of_suspensions() {
        // Two readings of clocks that agree but for suspensions.
        let before = suspended();
        assert!(suspended().abs_diff(before) < Duration::from_secs(1));
    }
}
