//! How many handshakes are under way on one port: the work of strangers is bounded before they have proven anything.
//!
//! A handshake that takes long gives way while others wait, and of those that wait, the address goes first whose handshakes have
//! taken the least time lately. So half-open handshakes keep nobody out, and neither does an address with many of them.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

/// Those of one port.
#[derive(Default)]
pub(crate) struct Handshakes {
    inner: Mutex<Inner>,
    /// Somebody waits now.
    waits: Notify,
}

#[derive(Default)]
struct Inner {
    under_way: usize,
    /// The same by address; only addresses with any.
    of: HashMap<IpAddr, usize>,
    /// In their order; only addresses with any.
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<UnderWay>>>,
    /// The addresses that wait, in the order in which they began to, or had their last turn.
    turns: VecDeque<IpAddr>,
    /// How long the handshakes of an address have taken together, since the last time that this was forgotten.
    taken: HashMap<IpAddr, Duration>,
    forgotten: Option<Instant>,
}

/// A place, until it is dropped.
pub(crate) struct UnderWay {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
    began: Instant,
}

impl Handshakes {
    /// Waits for a place. The time limit of the handshake bounds the wait, and the places of the port how many wait.
    pub(crate) async fn enter(self: &Arc<Handshakes>, address: IpAddr) -> UnderWay {
        let granted = {
            let mut inner = self.lock();
            if inner.has_room(address) {
                inner.begin(address);
                return self.place(address);
            }
            let (grant, granted) = oneshot::channel();
            let queue = inner.waiting.entry(address).or_default();
            queue.push_back(grant);
            if queue.len() == 1 {
                inner.turns.push_back(address);
            }
            granted
        };
        self.waits.notify_waiters();
        match granted.await {
            Ok(place) => place,
            // Whoever leaves hands its place on; the queue goes with the port.
            Err(_) => std::future::pending().await,
        }
    }

    fn place(self: &Arc<Handshakes>, address: IpAddr) -> UnderWay {
        UnderWay { handshakes: self.clone(), address, began: Instant::now() }
    }

    fn left(self: &Arc<Handshakes>, address: IpAddr, began: Instant) {
        let mut inner = self.lock();
        inner.note(address, began);
        inner.under_way -= 1;
        match inner.of.get_mut(&address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(inner.of.remove(&address)),
        }
        while let Some((address, grant)) = inner.next() {
            drop(inner);
            // If the other one has just given up, the drop of the place goes on from here.
            let _ = grant.send(self.place(address));
            inner = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_room(&self, address: IpAddr) -> bool {
        self.under_way < HANDSHAKES && self.of.get(&address).copied().unwrap_or_default() < PER_ADDRESS
    }

    fn note(&mut self, address: IpAddr, began: Instant) {
        let now = Instant::now();
        let old = self.forgotten.is_none_or(|at| now.duration_since(at) > FORGOTTEN);
        if old || self.taken.len() >= REMEMBERED {
            self.taken.clear();
            self.forgotten = Some(now);
        }
        *self.taken.entry(address).or_default() += now.duration_since(began);
    }

    fn begin(&mut self, address: IpAddr) {
        self.under_way += 1;
        *self.of.entry(address).or_default() += 1;
    }

    /// The next one that waits and may begin; its place is counted.
    fn next(&mut self) -> Option<(IpAddr, oneshot::Sender<UnderWay>)> {
        loop {
            let taken = |address: &IpAddr| self.taken.get(address).copied().unwrap_or_default();
            let may = self.turns.iter().enumerate().filter(|(_, address)| self.has_room(**address));
            let (index, _) = may.min_by_key(|(index, address)| (taken(address), *index))?;
            let address = self.turns.remove(index)?;
            let queue = self.waiting.entry(address).or_default();
            let grant = loop {
                match queue.pop_front() {
                    // Its time is over.
                    Some(grant) if grant.is_closed() => {}
                    other => break other,
                }
            };
            match queue.is_empty() {
                true => drop(self.waiting.remove(&address)),
                false => self.turns.push_back(address),
            }
            if let Some(grant) = grant {
                self.begin(address);
                return Some((address, grant));
            }
        }
    }
}

impl UnderWay {
    /// Returns once this handshake has had its time and somebody waits.
    pub(crate) async fn gives_way(&self) {
        sleep_until(self.began + OWN_TIME).await;
        loop {
            let mut waits = pin!(self.handshakes.waits.notified());
            waits.as_mut().enable();
            if !self.handshakes.lock().turns.is_empty() {
                return;
            }
            waits.await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.handshakes.left(self.address, self.began);
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes").finish_non_exhaustive()
    }
}

/// On one port, ...
const HANDSHAKES: usize = 64;
/// ... and of one address.
const PER_ADDRESS: usize = 16;
/// A handshake takes two journeys to the client and back, and some milliseconds of work. After this it gives way if others wait.
/// Those that wait hold connections of the port meanwhile, and an address with many of these loses some when the port is full.
const OWN_TIME: Duration = Duration::from_millis(500);
/// How long the past of an address counts.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// Addresses whose past counts.
const REMEMBERED: usize = 4096;
