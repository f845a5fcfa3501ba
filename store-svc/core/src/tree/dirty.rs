//! The changes since the last checkpoint.

use api::Path;

use super::{
    slab::{NodeId, Slab},
    znode::Slot,
};

#[derive(Default, Debug)]
pub(super) struct Dirty {
    /// Marked znodes. Some may be removed, and other znodes may have their slots: those are either
    /// marked as well, or not meant.
    ids: Vec<NodeId>,
    /// Number of existing marked znodes.
    marked: usize,
    /// Paths of removed znodes. Some may exist again, or occur twice.
    removed: Vec<Path>,
    /// Total bytes of the paths of all of these.
    path_bytes: usize,
    /// Everything counts as changed, and nothing is marked.
    untracked: bool,
}

impl Dirty {
    /// Records that a znode is new or changed.
    pub(super) fn mark(&mut self, id: NodeId, slot: &mut Slot, path_len: usize) {
        if self.tracks(slot) {
            slot.dirty = true;
            self.ids.push(id);
            self.marked += 1;
            self.path_bytes += path_len;
        }
    }

    /// Whether this znode has to be marked.
    pub(super) fn tracks(&self, slot: &Slot) -> bool {
        !self.untracked && !slot.dirty
    }

    /// Records that a znode was removed and is no longer in its slot.
    pub(super) fn remove(&mut self, path: &Path, slot: &mut Slot) {
        if std::mem::take(&mut slot.dirty) {
            self.marked -= 1;
            self.path_bytes -= path.as_str().len();
        }
        if !self.untracked {
            self.path_bytes += path.as_str().len();
            self.removed.push(path.clone());
        }
    }

    /// From now on everything counts as changed.
    pub(super) fn forget_checkpoint(&mut self, nodes: &mut Slab) {
        self.take(nodes);
        self.untracked = true;
    }

    /// Starts again. Returns whether everything counted as changed; if not, the changed znodes, each
    /// once, and the removed paths.
    pub(super) fn take(&mut self, nodes: &mut Slab) -> (bool, Vec<NodeId>, Vec<Path>) {
        let Dirty { mut ids, removed, untracked, .. } = std::mem::take(self);
        ids.retain(|&id| nodes.get_mut(id).is_some_and(|slot| std::mem::take(&mut slot.dirty)));
        (untracked, ids, removed)
    }

    pub(super) fn untracked(&self) -> bool {
        self.untracked
    }

    /// Total bytes of the paths of changed and removed znodes.
    pub(super) fn path_bytes(&self) -> usize {
        self.path_bytes
    }

    /// Number of marked znodes, and of removed ones.
    pub(super) fn len(&self) -> usize {
        self.marked + self.removed.len()
    }

    /// The marked znodes; one may occur twice.
    pub(super) fn marked(&self, nodes: &Slab) -> impl Iterator<Item = NodeId> {
        self.ids.iter().copied().filter(|&id| nodes.get(id).is_some_and(|slot| slot.dirty))
    }

    pub(super) fn removed(&self) -> &[Path] {
        &self.removed
    }
}
