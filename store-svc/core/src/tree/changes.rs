//! What an entry did to znodes, for those who watch them, and the state that a watch begins with.

use std::sync::Arc;

use api::{
    Identities, OpError, Path, Permissions, Stat,
    watch::{Change, ChangeKind, WatchScope, WatchedZnode},
};

use super::{Tree, slab::NodeId, znode::Slot};

/// Most znodes in the states that the watches of one request begin with: they are put together in one step, in which nobody else is
/// served.
pub(crate) const STATE_ZNODES: usize = 10_000;

impl Tree {
    /// As [`STATE_ZNODES`], in bytes.
    pub(crate) const STATE_BYTES: usize = 8 << 20;

    /// Notes what happened to a znode that is still there.
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

    /// Notes that a znode is gone.
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

    /// Forgets what the last entry did.
    pub(crate) fn forget_changes(&mut self) {
        self.changes.clear();
    }

    /// What the last entry did to znodes, in the order in which it did it; nothing if it failed.
    pub(crate) fn take_changes(&mut self) -> Vec<Arc<Change>> {
        std::mem::take(&mut self.changes)
    }

    /// What a watch of this scope begins with: the znode, and its children or all below it, parents before their children.
    /// Nothing if there is no such znode. What the caller may not read is left out; of a child of a znode that it may read, the
    /// name is there.
    ///
    /// # Errors
    /// [`OpError::LimitExceeded`] if it is more than `room`, in znodes and bytes, which it takes what it needs of.
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
                // Also of what is left out no more than that.
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
