//! What changed since the last checkpoint.

use api::Path;

use super::{
    slab::{NodeId, Slab},
    znode::Slot,
};

#[derive(Default, Debug)]
pub(super) struct Dirty {
    /// Znodes that were marked. Some may be gone, and their slots may be others' by now: then those are marked, too, or not meant.
    ids: Vec<NodeId>,
    /// How many of them are there and marked.
    marked: usize,
    /// Paths of znodes that went. Some may be there again, or be here twice.
    removed: Vec<Path>,
    /// Everything counts as changed, and nothing is marked.
    untracked: bool,
}

impl Dirty {
    /// Notes that a znode is new, or is not what it was.
    pub(super) fn mark(&mut self, id: NodeId, slot: &mut Slot) {
        if !self.untracked && !slot.dirty {
            slot.dirty = true;
            self.ids.push(id);
            self.marked += 1;
        }
    }

    /// Notes that a znode went, which is no longer in its slot.
    pub(super) fn remove(&mut self, path: &Path, slot: &mut Slot) {
        if std::mem::take(&mut slot.dirty) {
            self.marked -= 1;
        }
        if !self.untracked {
            self.removed.push(path.clone());
        }
    }

    /// From now on everything counts as changed.
    pub(super) fn forget_checkpoint(&mut self, nodes: &mut Slab) {
        self.take(nodes);
        self.untracked = true;
    }

    /// Begins anew. Whether everything counted as changed; if not, the znodes that did, each once, and the paths that went.
    pub(super) fn take(&mut self, nodes: &mut Slab) -> (bool, Vec<NodeId>, Vec<Path>) {
        let Dirty { mut ids, removed, untracked, .. } = std::mem::take(self);
        ids.retain(|&id| nodes.get_mut(id).is_some_and(|slot| std::mem::take(&mut slot.dirty)));
        (untracked, ids, removed)
    }

    pub(super) fn untracked(&self) -> bool {
        self.untracked
    }

    /// How many znodes are marked, and how many went.
    pub(super) fn len(&self) -> usize {
        self.marked + self.removed.len()
    }

    /// Those that are marked; one may come twice.
    pub(super) fn marked(&self, nodes: &Slab) -> impl Iterator<Item = NodeId> {
        self.ids.iter().copied().filter(|&id| nodes.get(id).is_some_and(|slot| slot.dirty))
    }

    pub(super) fn removed(&self) -> &[Path] {
        &self.removed
    }
}
