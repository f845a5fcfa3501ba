//! Where the znodes are: slots in chunks, named by numbers of 32 bits.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
};

use super::znode::Slot;

/// Which slot. It stays the same as long as the znode is there, and may be another's afterwards. It depends on more than the log:
/// nothing that can be seen may depend on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct NodeId(u32);

/// The slot of the root: the first one, which is never freed.
pub(super) const ROOT: NodeId = NodeId(0);

/// Slots in a chunk. A chunk is what the slab grows by, and what it gives back.
const CHUNK: u32 = 1024;

/// Slots. None ever moves.
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
    /// The first of the free places.
    free: Option<u16>,
    used: u16,
}

#[derive(Debug)]
enum Place {
    Used(Slot),
    /// With the next one.
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
            // 400 GiB of slots alone.
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
                // All at once: the memory is touched only slot by slot.
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

    /// Frees the slot of a znode that is there. A chunk goes with its last slot.
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

    /// All slots, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> + '_ {
        self.chunks.iter_mut().flat_map(|chunk| &mut chunk.slots).filter_map(|place| match place {
            Place::Used(slot) => Some(slot),
            Place::Free(_) => None,
        })
    }

    /// All slots, in no order that matters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Slot)> + '_ {
        self.chunks.iter().enumerate().flat_map(|(n, chunk)| {
            chunk.slots.iter().enumerate().filter_map(move |(place, slot)| match slot {
                Place::Used(slot) => Some((NodeId(n as u32 * CHUNK + place as u32), slot)),
                Place::Free(_) => None,
            })
        })
    }
}

/// For ids of znodes that are there.
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
    /// As the [index](super::index) keeps it.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The other way.
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
        // All of the second chunk, and some of the first.
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
