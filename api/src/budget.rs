//! A number of bytes that many share.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
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
    /// How often bytes were taken, but for takes of none.
    taken: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Bytes that the connections of an address hold.
    addresses: Mutex<HashMap<IpAddr, Weak<AtomicUsize>>>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    takes: BTreeMap<u64, Waiter>,
}

struct Waiter {
    /// `None` from when it was woken until it has looked.
    waker: Option<Waker>,
    full: Full,
    /// Bytes that it waits for.
    bytes: usize,
}

/// The bound that a take exceeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Full {
    /// The connection, or its address, holds its maximum.
    Share,
    /// All together do.
    Budget,
}

/// The part of a [`Budget`] that one connection may hold: a quarter, and as long as the connections of its address together hold
/// no more than half, or three quarters for takes of up to [`Budget::small`] bytes. Clones are the same share.
#[derive(Clone)]
pub struct Share {
    budget: Budget,
    used: Arc<AtomicUsize>,
    address: Option<Arc<AtomicUsize>>,
}

/// Bytes taken from a [`Share`], given back when this is dropped.
#[must_use]
pub struct Charge {
    share: Share,
    bytes: usize,
}

/// Charges that are held together until the last clone is dropped.
#[derive(Clone, Default, Debug)]
pub struct Held {
    /// Only dropped.
    _charges: Arc<Vec<Charge>>,
}

impl Held {
    /// These.
    #[must_use]
    pub fn new(charges: Vec<Charge>) -> Held {
        Held { _charges: Arc::new(charges) }
    }
}

/// A [`Charge`] that waits for room. Dropping it ends the wait.
#[must_use]
#[derive(Debug)]
pub struct Take {
    share: Share,
    bytes: usize,
    /// Where it waits.
    id: Option<u64>,
    /// What it waits for.
    full: Full,
}

/// The [`Charge`] of the message that a decoder has at present. The receiver of the message knows its size in
/// memory, and returns the rest. Clones are the same slot.
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
    /// Which takes wait although their connection holds less than its share.
    pub waits: Waits,
    /// Number of takes that succeeded. If a take waits and this number stays the same, nothing moves.
    pub taken: u64,
}

/// The takes that wait for a [`Budget`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Waits {
    /// None.
    Nothing,
    /// Takes above [`Budget::small`] alone: there is room for all others.
    Large,
    /// Smaller takes as well: there is no room left.
    All,
}

impl Budget {
    /// Makes a budget of `total` bytes.
    #[must_use]
    pub fn new(total: usize) -> Budget {
        let (used, taken, waiting) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::default());
        Budget { inner: Arc::new(Inner { total, used, taken, waiting, addresses: Mutex::default() }) }
    }

    /// Another budget of the same size.
    #[must_use]
    pub fn alike(&self) -> Budget {
        Budget::new(self.inner.total)
    }

    /// Takes above this many bytes leave the last quarter of the budget to others: 1 MiB of 32 MiB. A write of a few thousand
    /// bytes is below it, with all that its message may take in memory.
    #[must_use]
    pub fn small(&self) -> usize {
        self.inner.total / 32
    }

    /// The share of a new connection whose address has no part in the bounds.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), used: Arc::new(AtomicUsize::new(0)), address: None }
    }

    /// The share of a new connection from `address`.
    #[must_use]
    pub fn share_of(&self, address: IpAddr) -> Share {
        let address = address.to_canonical();
        let mut addresses = self.inner.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let known = addresses.get(&address).and_then(Weak::upgrade);
        let of_address = known.unwrap_or_else(|| {
            // Forget the addresses without connections before the map has to grow.
            if addresses.len() == addresses.capacity() {
                addresses.retain(|_, used| used.strong_count() > 0);
            }
            let used = Arc::new(AtomicUsize::new(0));
            addresses.insert(address, Arc::downgrade(&used));
            used
        });
        Share { address: Some(of_address), ..self.share() }
    }

    /// Bytes held at present.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(SeqCst)
    }

    /// See [`Standing`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        let waits = |waiter: &Waiter| match (waiter.full, waiter.bytes > self.small()) {
            (Full::Share, _) => Waits::Nothing,
            (Full::Budget, true) => Waits::Large,
            (Full::Budget, false) => Waits::All,
        };
        let waits = self.lock().takes.values().map(waits).max().unwrap_or(Waits::Nothing);
        Standing { waits, taken: self.inner.taken.load(SeqCst) }
    }

    /// Maximum number of bytes that one connection may hold.
    #[must_use]
    pub fn share_max(&self) -> usize {
        self.inner.total / 4
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half way.
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes `bytes` if the share and the budget have room for them. More than a whole share counts as a whole share.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Charge> {
        self.take_now(bytes).ok()
    }

    /// As [`Share::try_take`], but waits for room.
    pub fn take(&self, bytes: usize) -> Take {
        Take { share: self.clone(), bytes, id: None, full: Full::Share }
    }

    fn take_now(&self, bytes: usize) -> Result<Charge, Full> {
        let Inner { total, used, taken, .. } = &*self.budget.inner;
        let share_max = self.budget.share_max();
        let bytes = bytes.min(share_max);
        let large = bytes > self.budget.small();
        let (limit, of_address) =
            if large { (total - total / 4, total / 2) } else { (*total, total - total / 4) };
        add(&self.used, bytes, share_max).ok_or(Full::Share)?;
        if let Some(address) = &self.address
            && add(address, bytes, of_address).is_none()
        {
            self.used.fetch_sub(bytes, SeqCst);
            return Err(Full::Share);
        }
        if add(used, bytes, limit).is_none() {
            self.of_connection(|used| _ = used.fetch_sub(bytes, SeqCst));
            return Err(Full::Budget);
        }
        // A take of no bytes is no movement for waiting takes.
        if bytes > 0 {
            taken.fetch_add(1, SeqCst);
        }
        Ok(Charge { share: self.clone(), bytes })
    }

    /// Takes `bytes` that are held already, whether there is room or not.
    pub fn take_anyway(&self, bytes: usize) -> Charge {
        self.of_connection(|used| _ = used.fetch_add(bytes, SeqCst));
        self.budget.inner.used.fetch_add(bytes, SeqCst);
        Charge { share: self.clone(), bytes }
    }

    /// Whether this connection holds its maximum.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used.load(SeqCst) >= self.budget.share_max()
    }

    /// What the connection holds, and its address.
    fn of_connection(&self, each: impl Fn(&AtomicUsize)) {
        each(&self.used);
        self.address.as_deref().into_iter().for_each(each);
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
        self.of_connection(|used| _ = used.fetch_sub(bytes, SeqCst));
        self.budget.inner.used.fetch_sub(bytes, SeqCst);
        // Collected first: a waker may do anything, so not with the lock.
        let wakers: Vec<Waker> =
            self.budget.lock().takes.values_mut().filter_map(|waiter| waiter.waker.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Future for Take {
    type Output = Charge;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Charge> {
        let mut taken = self.share.take_now(self.bytes);
        if let Err(full) = taken {
            self.wait(cx, full);
            // Bytes may have been given back before the waker was there.
            taken = self.share.take_now(self.bytes);
        }
        self.full = taken.as_ref().err().copied().unwrap_or(self.full);
        match taken {
            Ok(charge) => {
                self.leave();
                Poll::Ready(charge)
            }
            Err(_) => Poll::Pending,
        }
    }
}

impl Take {
    /// Whether it waits for what others hold: neither its connection nor its address holds its maximum.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.full == Full::Budget
    }

    fn wait(&mut self, cx: &mut Context<'_>, full: Full) {
        let bytes = self.bytes;
        let mut waiting = self.share.budget.lock();
        let id = self.id.unwrap_or_else(|| {
            waiting.last += 1;
            waiting.last
        });
        waiting.takes.insert(id, Waiter { waker: Some(cx.waker().clone()), full, bytes });
        drop(waiting);
        self.id = Some(id);
    }

    fn leave(&mut self) {
        if let Some(id) = self.id.take() {
            self.share.budget.lock().takes.remove(&id);
        }
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        self.leave();
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
        let mut waits = shares[4].take(1 << 20);
        assert!(Pin::new(&mut waits).poll(&mut cx).is_pending() && waits.is_held_up());
        assert_eq!(budget.standing().waits, Waits::Large, "small takes have room");
        let mut small: Vec<_> = (0..).map_while(|_| shares[3].try_take(budget.small())).collect();
        small.extend((0..).map_while(|_| shares[4].try_take(1000)));
        let mut little = shares[4].take(1000);
        assert!(Pin::new(&mut little).poll(&mut cx).is_pending());
        assert_eq!(budget.standing().waits, Waits::All);
        drop((little, small));
        drop(whole);
        assert!(Pin::new(&mut waits).poll(&mut cx).is_ready());
        assert_eq!(budget.standing().waits, Waits::Nothing);
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn b07_one_address_never_takes_all_with_many_connections() {
        let budget = Budget::new(32 << 20);
        let there = |n: u8| IpAddr::from([192, 0, 2, n]);
        let take = |bytes: usize| budget.share_of(there(1)).try_take(bytes);
        let large: Vec<Charge> = (0..).map_while(|_| take(2 << 20)).collect();
        assert_eq!(large.len(), 8);
        let small: Vec<Charge> = (0..).map_while(|_| take(1 << 20)).collect();
        assert_eq!(small.len(), 8);
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = budget.share_of(there(1)).take(1);
        assert!(Pin::new(&mut waits).poll(&mut cx).is_pending());
        assert_eq!(budget.standing().waits, Waits::Nothing, "its own fault");
        assert!(!waits.is_held_up());
        assert!(budget.share_of(there(2)).try_take(1 << 20).is_some());
        drop((large, small, waits));
        assert_eq!(budget.used(), 0);
        assert_eq!(take(2 << 20).map(|charge| charge.bytes), Some(2 << 20));
        let _shares: Vec<Share> = (0..=255).map(|n| budget.share_of(there(n))).collect();
        for n in 0..100_000_u32 {
            let _gone = budget.share_of(IpAddr::from(n.to_be_bytes()));
        }
        assert!(
            budget.inner.addresses.lock().unwrap().capacity() < 2000,
            "addresses that are gone are forgotten"
        );
    }

    #[test]
    fn b06_a_connection_with_its_whole_share_does_not_count_as_waiting() {
        let budget = Budget::new(4 << 20);
        let mut cx = Context::from_waker(Waker::noop());
        let alone = budget.share();
        let whole = alone.try_take(1 << 20);
        let mut more = alone.take(1);
        assert!(Pin::new(&mut more).poll(&mut cx).is_pending());
        assert_eq!(budget.standing().waits, Waits::Nothing, "the connection holds its whole share");
        let others: Vec<Option<Charge>> = (0..2).map(|_| budget.share().try_take(1 << 20)).collect();
        let mut waits = budget.share().take(1 << 20);
        assert!(Pin::new(&mut waits).poll(&mut cx).is_pending());
        assert_eq!(budget.standing().waits, Waits::Large);
        let before = budget.standing();
        assert!(budget.share().try_take(0).is_some());
        assert_eq!(budget.standing(), before, "what needs no room is no movement");
        drop(waits);
        assert_eq!(budget.standing().waits, Waits::Nothing, "the take was dropped");
        drop((whole, others));
        assert!(Pin::new(&mut more).poll(&mut cx).is_ready());
    }
}
