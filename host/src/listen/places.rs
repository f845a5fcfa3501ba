//! Admission of connections to a port.
//!
//! A connection *waits* until its first request is complete, and over plain HTTP whenever its requests are
//! answered. An active connection always finds a place among the waiting ones: the one that has waited
//! longest gives way, of the address with the most of them, or of its own if that has all that it may
//! have. On a port of members a connection is a *stranger* until its service has identified the member;
//! strangers share a small pool, and members have places of their own.
//!
//! A connection that gives way loses its place at once, and its socket when its task runs next. New connections
//! wait while [`GIVING_WAY`] sockets are in between: otherwise a burst of connections takes more file descriptors than the
//! port has places.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    PeerId,
    mutants::{Mutant, is_on},
};
use telemetry::{Closed, Port, metrics};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many connections may be open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// In all; of a port of members: strangers.
    pub(crate) connections: usize,
    /// Whether an address has [a part](super::of_address) of them at most.
    pub(crate) by_address: bool,
    /// Part of the total for connections from this machine: probes and administration.
    pub(crate) kept_for_local: usize,
    /// Whether identified members count on their own.
    pub(crate) members: bool,
}

pub(crate) struct Places {
    limits: Limits,
    port: Port,
    inner: Mutex<Inner>,
    /// A socket that gave way is closed.
    closed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Each connection has a number, and each wait a turn.
    last: u64,
    open: HashMap<u64, Open>,
    /// Of the connections that count in `Limits::connections`, the waiting ones (on ports of members:
    /// strangers), in the order of their waits; only addresses with any.
    waiting: HashMap<IpAddr, BTreeMap<u64, u64>>,
    counted: usize,
    addresses: HashMap<IpAddr, usize>,
    members: BTreeMap<PeerId, BTreeSet<u64>>,
    /// The connections whose socket is open, with or without a place.
    sockets: HashSet<u64>,
    /// Those of them that gave way.
    giving_way: HashSet<u64>,
}

struct Open {
    address: IpAddr,
    member: Option<PeerId>,
    /// The turn in which it began to wait, if it does.
    waits: Option<u64>,
    close: CancellationToken,
}

/// The place of one connection, until it is dropped.
pub(crate) struct Place {
    id: u64,
    places: Arc<Places>,
    close: CancellationToken,
}

/// The socket of one connection, while it is open.
pub(crate) struct OpenSocket {
    id: u64,
    places: Arc<Places>,
}

impl Places {
    pub(crate) fn new(limits: Limits, port: Port) -> Arc<Places> {
        metrics::PORT_CONNECTIONS_LIMIT.at(port).set(limits.connections as u64);
        Arc::new(Places { limits, port, inner: Mutex::default(), closed: Notify::new() })
    }

    /// Waits until few enough sockets that gave way are still open.
    pub(crate) async fn settled(&self) {
        while self.lock().giving_way.len() >= GIVING_WAY {
            self.closed.notified().await;
        }
    }

    /// A place for a connection from `address`, taken from a waiting one if need be.
    pub(crate) fn enter(self: &Arc<Places>, address: IpAddr) -> Result<Place, Closed> {
        let address = address.to_canonical();
        let local = address.is_loopback();
        let mut inner = self.lock();
        let of_address = inner.addresses.get(&address).copied().unwrap_or_default();
        let kept = if local { 0 } else { self.limits.kept_for_local };
        let most = super::of_address(self.limits.connections, local);
        let gives_way = if self.limits.by_address && of_address >= most {
            Some(inner.waits_longest_of(address).ok_or(Closed::Address)?)
        } else if inner.counted >= self.limits.connections.saturating_sub(kept).max(1) {
            Some(inner.waits_longest().ok_or(Closed::Full)?)
        } else {
            None
        };
        if let Some(id) = gives_way {
            inner.close(id);
            super::closed(self.port, Closed::Silent);
        }
        let (id, close) = (inner.next(), CancellationToken::new());
        inner.open.insert(id, Open { address, member: None, waits: None, close: close.clone() });
        inner.wait(id);
        inner.counted += 1;
        *inner.addresses.entry(address).or_default() += 1;
        Ok(Place { id, places: self.clone(), close })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The connection that has waited longest, of the address that has most of them, so that one address cannot push out the
    /// connections of others while these are about to speak.
    fn waits_longest(&self) -> Option<u64> {
        let waiting = self.waiting.values();
        let most = waiting.max_by_key(|turns| (turns.len(), Reverse(turns.keys().next().copied())));
        most.and_then(|turns| turns.values().next().copied())
    }

    /// The connection of `address` that has waited longest.
    fn waits_longest_of(&self, address: IpAddr) -> Option<u64> {
        self.waiting.get(&address)?.values().next().copied()
    }

    fn wait(&mut self, id: u64) {
        let turn = self.next();
        let Some(open) = self.open.get_mut(&id) else { return };
        if open.member.is_none() && open.waits.is_none() {
            open.waits = Some(turn);
            self.waiting.entry(open.address).or_default().insert(turn, id);
        }
    }

    fn wait_no_longer(&mut self, id: u64) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let (address, Some(turn)) = (open.address, open.waits.take()) else { return };
        if let Some(turns) = self.waiting.get_mut(&address) {
            turns.remove(&turn);
            if turns.is_empty() {
                self.waiting.remove(&address);
            }
        }
    }

    /// Removes a connection and closes it.
    fn close(&mut self, id: u64) {
        if let Some(open) = self.open.get(&id) {
            open.close.cancel();
        }
        if self.sockets.contains(&id) {
            self.giving_way.insert(id);
        }
        self.remove(id);
    }

    fn remove(&mut self, id: u64) {
        self.wait_no_longer(id);
        let Some(Open { address, member, .. }) = self.open.remove(&id) else { return };
        match member {
            Some(member) => {
                if let Some(ids) = self.members.get_mut(&member) {
                    ids.remove(&id);
                }
            }
            None => self.counted -= 1,
        }
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

impl Place {
    /// To be held as long as the connection's socket is open.
    pub(crate) fn socket(&self) -> OpenSocket {
        self.places.lock().sockets.insert(self.id);
        OpenSocket { id: self.id, places: self.places.clone() }
    }

    /// A request has come whole.
    pub(crate) fn spoke(&self) {
        if self.places.limits.members {
            return;
        }
        self.places.lock().wait_no_longer(self.id);
    }

    /// Its requests are answered, and nothing is lost for its client if it has to connect again.
    pub(crate) fn answered(&self) {
        self.places.lock().wait(self.id);
    }

    /// It is this member's. A member that has many keeps the newest.
    pub(crate) fn is_of(&self, member: PeerId) {
        let mut inner = self.places.lock();
        let inner = &mut *inner;
        let Some(open) = inner.open.get_mut(&self.id) else { return };
        if open.member.replace(member).is_none() {
            inner.counted -= 1;
        }
        inner.wait_no_longer(self.id);
        let ids = inner.members.entry(member).or_default();
        ids.insert(self.id);
        if ids.len() > PER_MEMBER
            && let Some(oldest) = ids.pop_first()
        {
            inner.close(oldest);
        }
    }

    /// Ends when the connection has to give way.
    pub(crate) async fn taken_away(&self) {
        self.close.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if is_on(Mutant::PlacesKept) {
            return;
        }
        self.places.lock().remove(self.id);
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        inner.sockets.remove(&self.id);
        if inner.giving_way.remove(&self.id) {
            // One task accepts the connections of a port.
            self.places.closed.notify_one();
        }
    }
}

/// Sockets of a port that may be open without a place.
const GIVING_WAY: usize = 16;
/// Connections of one member to one port: a stream, a call beside it, and those of an earlier incarnation
/// that are not closed yet.
const PER_MEMBER: usize = 8;

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn there(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn b10_an_active_connection_finds_a_place_among_silent_ones() {
        let limits = Limits { connections: 6, by_address: true, kept_for_local: 2, members: false };
        let places = Places::new(limits, Port::Other);
        let silent: Vec<Place> = (0..4).map(|n| places.enter(there(n)).unwrap()).collect();
        let speaks = places.enter(there(9)).unwrap();
        speaks.spoke();
        assert!(silent[0].close.is_cancelled() && !silent[1].close.is_cancelled(), "the oldest gives way");
        silent.iter().for_each(Place::spoke);
        assert_eq!(places.enter(there(10)).err(), Some(Closed::Full));
        let local: Vec<Place> = (0..2).map(|_| places.enter(HERE).unwrap()).collect();
        local.iter().for_each(Place::spoke);
        assert_eq!(places.enter(HERE).err(), Some(Closed::Full));
        drop((silent, local));
        let two: Vec<Place> = (0..2).map(|_| places.enter(there(9)).unwrap()).collect();
        two.iter().for_each(Place::spoke);
        assert_eq!(places.enter(there(9)).err(), Some(Closed::Address));
        drop((speaks, two));
        assert!(places.lock().open.is_empty() && places.lock().addresses.is_empty());
        assert_eq!(places.lock().counted, 0);
    }

    #[tokio::test]
    async fn b10_new_connections_wait_while_many_that_gave_way_are_open() {
        let limits = Limits { connections: 4, by_address: false, kept_for_local: 0, members: false };
        let places = Places::new(limits, Port::Other);
        let open = |_| {
            let place = places.enter(HERE).unwrap();
            (place.socket(), place)
        };
        let mut held: Vec<_> = (0..4 + GIVING_WAY - 1).map(open).collect();
        places.settled().await;
        held.push(open(0));
        let mut waits = pin!(places.settled());
        let mut waits = || waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits().is_pending());
        // One that has a place does not count.
        drop(held.pop());
        assert!(waits().is_pending());
        drop(held.remove(0));
        assert!(waits().is_ready());
        drop(held);
        assert!(places.lock().sockets.is_empty() && places.lock().giving_way.is_empty());
    }

    #[test]
    fn b10_many_strangers_of_one_address_do_not_push_out_a_new_connection() {
        let limits = Limits { connections: 16, by_address: false, kept_for_local: 0, members: true };
        let places = Places::new(limits, Port::Other);
        let shakes_hands = places.enter(there(1)).unwrap();
        let strangers: Vec<Place> = (0..100).map(|_| places.enter(there(9)).unwrap()).collect();
        assert!(!shakes_hands.close.is_cancelled());
        shakes_hands.is_of(PeerId(1));
        let left = |places: &[Place]| places.iter().filter(|place| !place.close.is_cancelled()).count();
        assert_eq!(left(&strangers), 15);
        // The address with more of them gives way to another.
        let others: Vec<Place> = (0..8).map(|_| places.enter(there(8)).unwrap()).collect();
        assert_eq!((left(&strangers), left(&others)), (8, 8));
        drop((shakes_hands, strangers, others));
        assert!(places.lock().waiting.is_empty());
    }

    #[test]
    fn b10_a_probe_finds_a_place_on_a_port_full_of_answered_connections() {
        let limits = Limits { connections: 64, by_address: true, kept_for_local: 8, members: false };
        let places = Places::new(limits, Port::Other);
        let ask = |n: u8, count: usize| -> Vec<Place> {
            let asked = |_| {
                let place = places.enter(there(n)).unwrap();
                place.spoke();
                place.answered();
                place
            };
            (0..count).map(asked).collect()
        };
        let (most, others) = (ask(1, 32), ask(2, 24));
        // They ask again, all but one, which has rested longest then.
        for place in most.iter().filter(|place| place.id != most[5].id).chain(&others) {
            place.spoke();
            place.answered();
        }
        let probe = places.enter(there(3)).unwrap();
        assert!(most[5].close.is_cancelled(), "the one that has rested longest, of the address with most");
        probe.spoke();
        most[0].spoke();
        let next = places.enter(there(4)).unwrap();
        assert!(!probe.close.is_cancelled() && !most[0].close.is_cancelled(), "they are being answered");
        let gone = |places: &[Place]| places.iter().filter(|place| place.close.is_cancelled()).count();
        assert_eq!((gone(&most), gone(&others)), (2, 0));
        // An address that has all it may have gives way to itself.
        drop((probe, next));
        let more = ask(1, 3);
        assert_eq!((gone(&most), gone(&others), gone(&more)), (3, 0, 0));
        drop((most, others, more));
        assert!(places.lock().waiting.is_empty() && places.lock().open.is_empty());
        assert_eq!(places.lock().counted, 0);
    }

    #[test]
    fn b10_one_address_of_the_machine_does_not_take_all_places() {
        let limits = Limits { connections: 16, by_address: true, kept_for_local: 2, members: false };
        let places = Places::new(limits, Port::Other);
        let speak = |address: IpAddr, count: usize| -> Vec<Place> {
            let entered = (0..count).map(|_| places.enter(address).unwrap());
            entered.inspect(Place::spoke).collect()
        };
        let program = speak(IpAddr::from([127, 0, 0, 2]), 12);
        assert_eq!(places.enter(IpAddr::from([127, 0, 0, 2])).err(), Some(Closed::Address));
        let others = (speak(there(1), 2), speak(HERE, 2));
        assert_eq!(
            (places.enter(there(1)).err(), places.enter(HERE).err()),
            (Some(Closed::Full), Some(Closed::Full))
        );
        drop((program, others));
        assert!(places.lock().open.is_empty());
    }

    #[test]
    fn b10_a_member_finds_a_place_whatever_strangers_do() {
        let limits = Limits { connections: 4, by_address: false, kept_for_local: 0, members: true };
        let places = Places::new(limits, Port::Other);
        let member = places.enter(there(1)).unwrap();
        member.is_of(PeerId(1));
        let strangers: Vec<Place> = (0..20).map(|n| places.enter(there(100 + n % 10)).unwrap()).collect();
        strangers.iter().for_each(Place::spoke);
        assert_eq!(strangers.iter().filter(|place| !place.close.is_cancelled()).count(), 4);
        let again: Vec<Place> = (0..PER_MEMBER)
            .map(|_| {
                let place = places.enter(there(1)).unwrap();
                place.is_of(PeerId(1));
                place
            })
            .collect();
        assert!(member.close.is_cancelled(), "the oldest of the same member");
        assert!(again.iter().all(|place| !place.close.is_cancelled()));
    }
}
