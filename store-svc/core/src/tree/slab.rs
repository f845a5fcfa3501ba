//! The storage of znodes: slots in chunks, named by numbers of 32 bits.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
};

use super::znode::Slot;

/// Number of a slot. It is stable while the znode exists; another znode may reuse it later. It does not
/// depend on the log alone, so nothing visible may depend on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct NodeId(u32);

/// The slot of the root: the first one, which is never freed.
pub(super) const ROOT: NodeId = NodeId(0);

/// Slots per chunk. The slab grows and shrinks by chunks.
const CHUNK: u32 = 1024;

/// All slots. A slot never moves.
#[derive(Default, Debug)]
pub(super) struct Slab {
    chunks: Vec<Chunk>,
    /// Chunks with a free slot. The first one is filled first, so that the last ones become empty.
    roomy: BTreeSet<u32>,
    len: usize,
}

#[derive(Default, Debug)]
struct Chunk {
    slots: Vec<Place>,
    /// The first free place.
    free: Option<u16>,
    used: u16,
}

#[derive(Debug)]
enum Place {
    Used(Slot),
    /// With the next free place.
    Free(Option<u16>),
}

impl Slab {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `None` if there is none now.
    pub(super) fn get(&self, id: NodeId) -> Option<&Slot> {
        let (chunk, place) = split(id);
        match self.chunks.get(chunk)?.slots.get(place)? {
            Place::Used(slot) => Some(slot),
            Place::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Slot> {
        let (chunk, place) = split(id);
        match self.chunks.get_mut(chunk)?.slots.get_mut(place)? {
            Place::Used(slot) => Some(slot),
            Place::Free(_) => None,
        }
    }

    pub(super) fn insert(&mut self, slot: Slot) -> NodeId {
        let n = self.roomy.first().copied().unwrap_or_else(|| {
            let n = self.chunks.len() as u32;
            // At this size the slots alone use 400 GiB.
            assert!(n < u32::MAX / CHUNK, "no more znodes can be numbered");
            self.chunks.push(Chunk::default());
            self.roomy.insert(n);
            n
        });
        let chunk = &mut self.chunks[n as usize];
        let place = match chunk.free {
            Some(place) => {
                let freed = std::mem::replace(&mut chunk.slots[usize::from(place)], Place::Used(slot));
                chunk.free = if let Place::Free(next) = freed { next } else { None };
                place
            }
            None => {
                // Allocated at once: the system provides the memory only slot by slot.
                chunk.slots.reserve_exact(CHUNK as usize - chunk.slots.len());
                chunk.slots.push(Place::Used(slot));
                chunk.slots.len() as u16 - 1
            }
        };
        chunk.used += 1;
        if u32::from(chunk.used) == CHUNK {
            self.roomy.remove(&n);
        }
        self.len += 1;
        NodeId(n * CHUNK + u32::from(place))
    }

    /// Frees the slot of an existing znode. A chunk is freed with its last slot.
    pub(super) fn remove(&mut self, id: NodeId) -> Slot {
        let (n, place) = split(id);
        let chunk = &mut self.chunks[n];
        let freed = std::mem::replace(&mut chunk.slots[place], Place::Free(chunk.free));
        let Place::Used(slot) = freed else { unreachable!("the tree points to the empty slot {id:?}") };
        chunk.free = Some(place as u16);
        chunk.used -= 1;
        self.len -= 1;
        self.roomy.insert(n as u32);
        if chunk.used == 0 {
            *chunk = Chunk::default();
        }
        slot
    }

    /// All slots, mutable.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> + '_ {
        self.chunks.iter_mut().flat_map(|chunk| &mut chunk.slots).filter_map(|place| match place {
            Place::Used(slot) => Some(slot),
            Place::Free(_) => None,
        })
    }

    /// All slots, in an unspecified order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Slot)> + '_ {
        self.chunks.iter().enumerate().flat_map(|(n, chunk)| {
            chunk.slots.iter().enumerate().filter_map(move |(place, slot)| match slot {
                Place::Used(slot) => Some((NodeId(n as u32 * CHUNK + place as u32), slot)),
                Place::Free(_) => None,
            })
        })
    }
}

/// Access by ids of existing znodes.
impl Index<NodeId> for Slab {
    type Output = Slot;

    fn index(&self, id: NodeId) -> &Slot {
        let Some(slot) = self.get(id) else { unreachable!("the tree points to the empty slot {id:?}") };
        slot
    }
}

impl IndexMut<NodeId> for Slab {
    fn index_mut(&mut self, id: NodeId) -> &mut Slot {
        let Some(slot) = self.get_mut(id) else { unreachable!("the tree points to the empty slot {id:?}") };
        slot
    }
}

fn split(id: NodeId) -> (usize, usize) {
    ((id.0 / CHUNK) as usize, (id.0 % CHUNK) as usize)
}

impl NodeId {
    /// The id in the form of the [index](super::index).
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The inverse.
    pub(super) fn of_number(number: u32) -> NodeId {
        NodeId(number)
    }
}

#[cfg(test)]
mod tests {
    use api::{AclId, Zxid};

    use super::*;
    use crate::{At, tree::Life};

    fn slot(n: u64) -> Slot {
        let at = At { zxid: Zxid(n), time_ms: 0 };
        Slot::new("name", Some(b"value"), at, Life::Persistent, AclId::OPEN, ROOT)
    }

    #[test]
    fn a_slot_has_96_bytes() {
        assert_eq!(size_of::<Place>(), 96);
    }

    #[test]
    fn slots_are_used_again_and_empty_chunks_are_given_back() {
        let mut slab = Slab::default();
        let ids: Vec<NodeId> = (0..3 * u64::from(CHUNK)).map(|n| slab.insert(slot(n))).collect();
        for (n, &id) in ids.iter().enumerate() {
            assert_eq!(slab[id].czxid, Zxid(n as u64));
        }
        // All slots of the second chunk, and some of the first.
        let (first, second) = (&ids[..10], &ids[CHUNK as usize..2 * CHUNK as usize]);
        for &id in first.iter().chain(second) {
            slab.remove(id);
            assert!(slab.get(id).is_none());
        }
        assert_eq!(slab.chunks[1].slots.capacity(), 0);
        assert_eq!((slab.len(), slab.iter().count()), (2038, 2038));
        let again: BTreeSet<NodeId> = (0..10).map(|n| slab.insert(slot(n))).collect();
        assert_eq!(again, first.iter().copied().collect());
        assert_eq!(slab.insert(slot(0)), second[0]);
    }
}
