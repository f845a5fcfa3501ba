//! Limits on the calls that are under way on a port.
//!
//! Each call of any method has a task and its state. One connection has at most [`STREAMS`](super::STREAMS)
//! calls. The bounds here apply to all connections together, so that one client cannot keep the others out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::OpError;

use super::methods::Method;

/// The calls of a port. Clones are the same.
#[derive(Clone, Debug)]
pub struct CallPlaces {
    limits: Limits,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    all: usize,
    /// Whether an address has [a part](super::of_address) of them at most, and of the watching ones.
    by_address: bool,
    /// Part of the total for unary calls from this machine: probes and administration.
    kept_for_local: usize,
    /// Part of the total for [watching](Method::watching) calls.
    watching: usize,
}

#[derive(Default, Debug)]
struct UnderWay {
    all: Count,
    addresses: HashMap<IpAddr, Count>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Count {
    calls: usize,
    watching: usize,
}

/// The place of one call, until it is dropped.
#[derive(Debug)]
pub(super) struct CallPlace {
    places: CallPlaces,
    address: IpAddr,
    watching: bool,
}

impl CallPlaces {
    /// Bounds of a port for clients in a process with `memory` bytes.
    #[must_use]
    pub fn sharing(memory: usize) -> CallPlaces {
        CallPlaces::of_clients((memory / 16 / CALL).clamp(1, CALLS))
    }

    pub(super) fn of_clients(all: usize) -> CallPlaces {
        CallPlaces::new(Limits {
            all,
            by_address: true,
            kept_for_local: KEPT_FOR_LOCAL.min(all / 4),
            watching: WATCHING.min((all / 4).max(1)),
        })
    }

    /// Of a port for other services.
    pub(super) fn of_services() -> CallPlaces {
        CallPlaces::new(Limits { all: CALLS, by_address: false, kept_for_local: 0, watching: WATCHING })
    }

    fn new(limits: Limits) -> CallPlaces {
        CallPlaces { limits, under_way: Arc::default() }
    }

    /// How many calls are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.lock().all.calls
    }

    /// How many may be, but for those from this machine.
    #[must_use]
    pub fn open_to_all(&self) -> usize {
        self.limits.all - self.limits.kept_for_local
    }

    /// A place for a call of `method` from `address`.
    ///
    /// # Errors
    /// If there is none: for the client.
    pub(super) fn enter(&self, address: IpAddr, method: Method) -> Result<CallPlace, OpError> {
        let address = address.to_canonical();
        let local = address.is_loopback();
        let Limits { all, watching, by_address, .. } = self.limits;
        let is_full = |of_address, all| by_address && of_address >= super::of_address(all, local);
        let open = if local && !method.streamed && !method.watching { all } else { self.open_to_all() };
        let mut under_way = self.lock();
        let of_address = under_way.addresses.get(&address).copied().unwrap_or_default();
        if under_way.all.calls >= open {
            return Err(full("too many calls are under way on this node"));
        }
        if is_full(of_address.calls, all) {
            return Err(full("too many calls of this address are under way"));
        }
        if method.watching && (under_way.all.watching >= watching || is_full(of_address.watching, watching)) {
            return Err(full("too many streams that watch this node, or ask what it offers, are open"));
        }
        under_way.all.add(method.watching);
        under_way.addresses.entry(address).or_default().add(method.watching);
        Ok(CallPlace { places: self.clone(), address, watching: method.watching })
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        // Nothing in here panics half way.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn add(&mut self, watching: bool) {
        self.calls += 1;
        self.watching += usize::from(watching);
    }

    fn remove(&mut self, watching: bool) {
        self.calls -= 1;
        self.watching -= usize::from(watching);
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        let mut under_way = self.places.lock();
        under_way.all.remove(self.watching);
        if let Some(count) = under_way.addresses.get_mut(&self.address) {
            count.remove(self.watching);
            if count.calls == 0 {
                under_way.addresses.remove(&self.address);
            }
        }
    }
}

fn full(why: &str) -> OpError {
    OpError::Overloaded(format!("{why}; end some, and ask again or at another node"))
}

/// Calls of a port at most ...
const CALLS: usize = 8_192;
/// ... and what the task and the state of each take, in bytes.
const CALL: usize = 10 << 10;
/// Calls that only this machine can have, and none of them for long.
const KEPT_FOR_LOCAL: usize = 64;
/// Calls that watch: libraries of clients do it once for a connection.
const WATCHING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ONCE: Method = Method { streamed: false, watching: false };
    const SESSION: Method = Method { streamed: true, watching: false };
    const WATCH: Method = Method { streamed: false, watching: true };

    fn there(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn enter(places: &CallPlaces, count: usize, address: IpAddr, method: Method) -> Vec<CallPlace> {
        (0..count).map_while(|_| places.enter(address, method).ok()).collect()
    }

    #[test]
    fn b10_one_address_leaves_calls_to_others_and_all_leave_some_to_the_machine() {
        let places = CallPlaces::of_clients(400);
        let one = enter(&places, 1000, there(1), SESSION);
        assert_eq!(one.len(), 200, "half of them");
        let two = enter(&places, 1000, there(2), ONCE);
        assert_eq!((two.len(), places.under_way()), (136, places.open_to_all()));
        assert!(places.enter(there(3), ONCE).is_err() && places.enter(HERE, SESSION).is_err());
        assert_eq!(enter(&places, 1000, HERE, ONCE).len(), 64);
        drop(one);
        assert_eq!(enter(&places, 1000, HERE, SESSION).len(), 200, "all but those that are kept");
        drop(two);
        let local = enter(&places, 1000, HERE, SESSION);
        assert_eq!((local.len(), enter(&places, 1000, there(1), SESSION).len()), (300, 36));
        drop(local);
        assert!(places.lock().addresses.is_empty() && places.under_way() == 0);
    }

    #[test]
    fn b06_streams_that_watch_are_few() {
        let places = CallPlaces::sharing(1 << 30);
        assert_eq!((places.limits.all, CallPlaces::sharing(8 << 30).limits.all), (6_553, CALLS));
        assert_eq!(enter(&places, 1000, there(1), WATCH).len(), WATCHING / 2);
        let local = enter(&places, 1000, HERE, WATCH);
        let rest = enter(&places, 1000, there(1), WATCH);
        assert_eq!((local.len(), rest.len()), (WATCHING / 4 * 3, WATCHING / 4));
        assert!(places.enter(there(2), WATCH).is_err() && places.enter(there(2), SESSION).is_ok());
    }
}
