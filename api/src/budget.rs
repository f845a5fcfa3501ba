//! A number of bytes that many share.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

/// Bytes that the connections of a node may hold together. Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    total: usize,
    used: AtomicUsize,
    /// How often bytes were taken.
    taken: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

/// What one connection may hold of a [`Budget`]: a quarter. Clones are the same share.
#[derive(Clone)]
pub struct Share {
    budget: Budget,
    used: Arc<AtomicUsize>,
}

/// Bytes taken from a [`Share`], given back when this is dropped.
#[must_use]
pub struct Charge {
    share: Share,
    bytes: usize,
}

/// The [`Charge`] of the message that a decoder has at present. Whoever takes the message knows what it is in memory, and gives
/// the rest back. Clones are the same slot.
#[derive(Clone, Default, Debug)]
pub struct Slot {
    charge: Arc<Mutex<Option<Charge>>>,
}

impl Slot {
    /// Puts one in the place of the last.
    pub fn set(&self, charge: Option<Charge>) {
        let last =
            std::mem::replace(&mut *self.charge.lock().unwrap_or_else(PoisonError::into_inner), charge);
        drop(last);
    }

    /// See [`Charge::shrink_to`].
    pub fn shrink_to(&self, bytes: usize) {
        if let Some(charge) = &mut *self.charge.lock().unwrap_or_else(PoisonError::into_inner) {
            charge.shrink_to(bytes);
        }
    }
}

/// How a budget stands, to find out whether it is stuck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Somebody waits for bytes.
    pub waited_for: bool,
    /// How often bytes were taken. If somebody waits and this stays the same, nothing moves.
    pub taken: u64,
}

impl Budget {
    /// Takes above this many bytes leave the last quarter of a budget to those below.
    pub const SMALL: usize = 64 << 10;

    /// Of so many bytes.
    #[must_use]
    pub fn new(total: usize) -> Budget {
        let (used, taken, waiting) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
        Budget { inner: Arc::new(Inner { total, used, taken, waiting }) }
    }

    /// The share of a new connection.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), used: Arc::new(AtomicUsize::new(0)) }
    }

    /// Bytes held at present.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(SeqCst)
    }

    /// See [`Standing`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        let waited_for = !self.lock().is_empty();
        Standing { waited_for, taken: self.inner.taken.load(SeqCst) }
    }

    fn share_max(&self) -> usize {
        self.inner.total / 4
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        // Nothing in here panics half way.
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes `bytes` if the share and the budget have room for them. More than a whole share counts as a whole share.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Charge> {
        let Inner { total, used, taken, .. } = &*self.budget.inner;
        let share_max = self.budget.share_max();
        let bytes = bytes.min(share_max);
        let limit = if bytes > Budget::SMALL { total - total / 4 } else { *total };
        add(&self.used, bytes, share_max)?;
        if add(used, bytes, limit).is_none() {
            self.used.fetch_sub(bytes, SeqCst);
            return None;
        }
        taken.fetch_add(1, SeqCst);
        Some(Charge { share: self.clone(), bytes })
    }

    /// As [`Share::try_take`], but waits for room.
    pub fn poll_take(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<Charge> {
        if let Some(charge) = self.try_take(bytes) {
            return Poll::Ready(charge);
        }
        self.budget.lock().push(cx.waker().clone());
        // Bytes may have been given back before the waker was there.
        match self.try_take(bytes) {
            Some(charge) => Poll::Ready(charge),
            None => Poll::Pending,
        }
    }

    /// Takes `bytes` that are held already, whether there is room or not.
    pub fn take_anyway(&self, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, SeqCst);
        self.budget.inner.used.fetch_add(bytes, SeqCst);
        Charge { share: self.clone(), bytes }
    }

    /// Whether this connection holds as much as it may.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used.load(SeqCst) >= self.budget.share_max()
    }
}

impl Charge {
    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.share.give_back(surplus);
    }
}

impl Share {
    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, SeqCst);
        self.budget.inner.used.fetch_sub(bytes, SeqCst);
        let waiting = std::mem::take(&mut *self.budget.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {})", self.used(), self.inner.total)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {:?})", self.used.load(SeqCst), self.budget)
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

/// Adds, if the sum stays within `limit`.
fn add(to: &AtomicUsize, bytes: usize, limit: usize) -> Option<usize> {
    to.fetch_update(SeqCst, SeqCst, |used| used.checked_add(bytes).filter(|sum| bytes == 0 || *sum <= limit))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b07_one_connection_never_takes_all_and_large_takes_leave_room_for_small_ones() {
        let budget = Budget::new(4 << 20);
        let shares: Vec<Share> = (0..5).map(|_| budget.share()).collect();
        let whole = shares[0].try_take(1 << 30);
        assert!(whole.is_some() && shares[0].is_full(), "a whole share");
        assert!(shares[0].try_take(1).is_none());
        assert!(shares[0].try_take(0).is_some());
        let large: Vec<Option<Charge>> = shares[1..].iter().map(|s| s.try_take(1 << 20)).collect();
        assert_eq!(large.iter().flatten().count(), 2, "{budget:?}");
        assert!(shares[4].try_take(1000).is_some());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(shares[4].poll_take(&mut cx, 1 << 20).is_pending() && budget.standing().waited_for);
        drop(whole);
        assert!(!budget.standing().waited_for, "woken");
        assert!(shares[4].poll_take(&mut cx, 1 << 20).is_ready());
        drop(large);
        assert_eq!(budget.used(), 0);
    }
}
