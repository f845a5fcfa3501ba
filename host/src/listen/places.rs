//! Who may be connected to a port.
//!
//! A connection is *silent* until its first request has come whole. One that speaks always finds a place among silent ones: the
//! oldest gives way of the address that has most of those. On a port of members a connection is a *stranger* until its service
//! has said whose it is; strangers share a small pool, and members have places of their own.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::PeerId;
use telemetry::{Closed, Port, metrics};
use tokio_util::sync::CancellationToken;

/// How many connections may be open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// In all; of a port of members: strangers.
    pub(crate) connections: usize,
    /// From one address, but for those of this machine; not of a port of members.
    pub(crate) per_address: usize,
    /// Of all, so many are only for connections from this machine: probes and administration.
    pub(crate) kept_for_local: usize,
    /// Whether those who say who they are count on their own.
    pub(crate) members: bool,
}

pub(crate) struct Places {
    limits: Limits,
    port: Port,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    open: HashMap<u64, Open>,
    /// Of those that count in `Limits::connections`, the ones that have not spoken (of members' ports: strangers), by age; no
    /// address without any.
    silent: HashMap<IpAddr, BTreeSet<u64>>,
    counted: usize,
    addresses: HashMap<IpAddr, usize>,
    members: BTreeMap<PeerId, BTreeSet<u64>>,
}

struct Open {
    address: IpAddr,
    member: Option<PeerId>,
    close: CancellationToken,
}

/// The place of one connection, until it is dropped.
pub(crate) struct Place {
    id: u64,
    places: Arc<Places>,
    close: CancellationToken,
}

impl Places {
    pub(crate) fn new(limits: Limits, port: Port) -> Arc<Places> {
        metrics::PORT_CONNECTIONS_LIMIT.at(port).set(limits.connections as u64);
        Arc::new(Places { limits, port, inner: Mutex::default() })
    }

    /// A place for a connection from `address`, if need be that of a silent one.
    pub(crate) fn enter(self: &Arc<Places>, address: IpAddr) -> Result<Place, Closed> {
        let address = address.to_canonical();
        let local = address.is_loopback();
        let mut inner = self.lock();
        let of_address = inner.addresses.get(&address).copied().unwrap_or_default();
        if !local && !self.limits.members && of_address >= self.limits.per_address {
            return Err(Closed::Address);
        }
        let kept = if local { 0 } else { self.limits.kept_for_local };
        if inner.counted >= self.limits.connections.saturating_sub(kept).max(1) {
            let gives_way = inner.gives_way().ok_or(Closed::Full)?;
            inner.close(gives_way);
            super::closed(self.port, Closed::Silent);
        }
        inner.last += 1;
        let (id, close) = (inner.last, CancellationToken::new());
        inner.open.insert(id, Open { address, member: None, close: close.clone() });
        inner.silent.entry(address).or_default().insert(id);
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
    /// The oldest silent connection of the address that has most of them, so that one address cannot push out the connections of
    /// others while these are about to speak.
    fn gives_way(&self) -> Option<u64> {
        let oldest = |ids: &BTreeSet<u64>| ids.first().copied();
        self.silent.values().max_by_key(|ids| (ids.len(), Reverse(oldest(ids)))).and_then(oldest)
    }

    fn not_silent(&mut self, id: u64, address: IpAddr) {
        if let Some(ids) = self.silent.get_mut(&address) {
            ids.remove(&id);
            if ids.is_empty() {
                self.silent.remove(&address);
            }
        }
    }

    /// Takes a connection out and tells it.
    fn close(&mut self, id: u64) {
        if let Some(open) = self.open.get(&id) {
            open.close.cancel();
        }
        self.remove(id);
    }

    fn remove(&mut self, id: u64) {
        let Some(Open { address, member, .. }) = self.open.remove(&id) else { return };
        self.not_silent(id, address);
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
    /// Its first request has come whole.
    pub(crate) fn spoke(&self) {
        if self.places.limits.members {
            return;
        }
        let mut inner = self.places.lock();
        if let Some(address) = inner.open.get(&self.id).map(|open| open.address) {
            inner.not_silent(self.id, address);
        }
    }

    /// It is this member's. A member that has many keeps the newest.
    pub(crate) fn is_of(&self, member: PeerId) {
        let mut inner = self.places.lock();
        let inner = &mut *inner;
        let Some(open) = inner.open.get_mut(&self.id) else { return };
        let address = open.address;
        if open.member.replace(member).is_none() {
            inner.counted -= 1;
        }
        inner.not_silent(self.id, address);
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
        self.places.lock().remove(self.id);
    }
}

/// Connections of one member to one port: a stream, a call beside it, and those of a former life that are not yet given up.
const PER_MEMBER: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn there(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn b10_who_speaks_finds_a_place_among_silent_ones() {
        let limits = Limits { connections: 6, per_address: 3, kept_for_local: 2, members: false };
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
        assert_eq!(places.enter(there(9)).err(), Some(Closed::Address));
        drop((speaks, two));
        assert!(places.lock().open.is_empty() && places.lock().addresses.is_empty());
        assert_eq!(places.lock().counted, 0);
    }

    #[test]
    fn b10_many_strangers_of_one_address_do_not_push_out_who_is_about_to_speak() {
        let limits = Limits { connections: 16, per_address: 16, kept_for_local: 0, members: true };
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
        assert!(places.lock().silent.is_empty());
    }

    #[test]
    fn b10_a_member_finds_a_place_whatever_strangers_do() {
        let limits = Limits { connections: 4, per_address: 4, kept_for_local: 0, members: true };
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
