//! The changes of an entry to znodes, for watches, and the initial state of a watch.

use std::sync::Arc;

use api::{
    Identities, OpError, Path, Permissions, Stat,
    watch::{Change, ChangeKind, WatchScope, WatchedZnode},
};

use super::{Tree, slab::NodeId, znode::Slot};

/// Maximum number of znodes in the initial states of the watches of one request. The states are
/// collected in one step, which blocks all other requests.
pub(crate) const STATE_ZNODES: usize = 10_000;

impl Tree {
    /// As [`STATE_ZNODES`], in bytes.
    pub(crate) const STATE_BYTES: usize = 8 << 20;

    /// Records a change of a znode that still exists.
    pub(super) fn note(&mut self, kind: ChangeKind, id: NodeId, path: &Path) {
        let node = &self.nodes[id];
        let change = Change {
            kind,
            path: path.clone(),
            stat: node.stat(),
            data: node.data(),
            acl: self.acls.get(node.acl),
            above: self.acls.get(self.nodes[node.parent].acl),
        };
        self.changes.push(Arc::new(change));
    }

    /// Records the removal of a znode.
    pub(super) fn note_deleted(&mut self, slot: &Slot, path: &Path) {
        let stat = Stat { czxid: slot.czxid, ..Stat::default() };
        self.changes.push(Arc::new(Change {
            kind: ChangeKind::Deleted,
            path: path.clone(),
            stat,
            data: None,
            acl: self.acls.get(slot.acl),
            above: self.acls.get(self.nodes[slot.parent].acl),
        }));
    }

    /// Clears the changes of the last entry.
    pub(crate) fn forget_changes(&mut self) {
        self.changes.clear();
    }

    /// The changes of the last entry to znodes, in order; none if the entry failed.
    pub(crate) fn take_changes(&mut self) -> Vec<Arc<Change>> {
        std::mem::take(&mut self.changes)
    }

    /// The initial state of a watch of this scope: the znode, and its children or descendants, parents
    /// before their children. Empty if the znode does not exist. Znodes that the caller must not read
    /// are omitted, but a child of a readable znode is listed with its name.
    ///
    /// # Errors
    /// [`OpError::LimitExceeded`] if the state exceeds `room`, in znodes and bytes. The size of the
    /// state is subtracted from `room`.
    pub(crate) fn watched(
        &self,
        path: &Path,
        scope: WatchScope,
        with_data: bool,
        caller: &Identities,
        room: &mut (usize, usize),
    ) -> Result<Vec<WatchedZnode>, OpError> {
        let may = |id: NodeId| self.acls.gives(self.nodes[id].acl, Permissions::READ, caller);
        let Some(top) = self.find(path.as_str()) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut enter = |id: NodeId, path: &Path, with_data: bool| {
            let (node, shown) = (&self.nodes[id], may(id));
            let stat = if shown { node.stat() } else { Stat::default() };
            let data = (with_data && shown).then(|| node.data()).flatten();
            let entry = WatchedZnode { path: path.clone(), stat, data };
            let left = room.0.checked_sub(1).zip(room.1.checked_sub(entry.weight()));
            *room = left.ok_or_else(|| too_much(path))?;
            found.push(entry);
            Ok::<(), OpError>(())
        };
        if may(top) {
            enter(top, path, with_data && scope != WatchScope::Children)?;
        }
        let mut todo = match scope {
            WatchScope::Node => Vec::new(),
            WatchScope::Children if !may(top) => Vec::new(),
            WatchScope::Children | WatchScope::Tree => vec![(top, path.clone())],
        };
        let mut looked_at = 0;
        while let Some((parent, above)) = todo.pop() {
            let children = self.nodes[parent].dir().map(|dir| &dir.children);
            for id in children.into_iter().flat_map(|children| children.iter()) {
                let child = &self.nodes[id];
                let path = above.child(&child.name_text())?;
                // Omitted znodes count against this limit as well.
                looked_at += 1;
                if looked_at > STATE_ZNODES {
                    return Err(too_much(&path));
                }
                if scope == WatchScope::Children || may(id) {
                    enter(id, &path, with_data)?;
                }
                if scope == WatchScope::Tree && child.num_children() > 0 {
                    todo.push((id, path));
                }
            }
        }
        Ok(found)
    }
}

fn too_much(path: &Path) -> OpError {
    OpError::LimitExceeded {
        what: format!("or more znodes, or bytes of them, to tell of {path} before the first event"),
        limit: STATE_ZNODES as u64,
        actual: STATE_ZNODES as u64,
        remedy:
            "watch smaller parts, or read the znodes page by page and watch from the zxid of the first page"
                .to_owned(),
    }
}
