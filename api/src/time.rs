use std::{fmt, ops, time::Duration};

/// A moment on a node's monotonic clock: microseconds since an origin of the node's own choosing.
///
/// Never compared between nodes and never stored. Cores get it as an argument.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What a core may know about time: the monotonic clock for time-outs, and the wall clock for the one thing that
/// needs it, the `ctime` and `mtime` that a leader stamps on entries.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Now {
    /// For every time-out and limit.
    pub mono: Time,
    /// Milliseconds since the Unix epoch. May jump; nothing but Stat times depends on it.
    pub wall_ms: i64,
}
