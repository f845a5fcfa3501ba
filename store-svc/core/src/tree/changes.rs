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
    /// Nothing if there is no such znode. What the caller may not read is left out, with all below.
    ///
    /// # Errors
    /// [`OpError::LimitExceeded`] if it is more than `room` znodes, which it takes what it needs of.
    pub(crate) fn watched(
        &self,
        path: &Path,
        scope: WatchScope,
        with_data: bool,
        caller: &Identities,
        room: &mut usize,
    ) -> Result<Vec<WatchedZnode>, OpError> {
        let may = |id: NodeId| self.acls.gives(self.nodes[id].acl, Permissions::READ, caller);
        let Some(top) = self.find(path.as_str()).filter(|&top| may(top)) else { return Ok(Vec::new()) };
        let znode = |id: NodeId, path: Path, with_data: bool| {
            let node = &self.nodes[id];
            WatchedZnode { path, stat: node.stat(), data: with_data.then(|| node.data()).flatten() }
        };
        let first = znode(top, path.clone(), with_data && scope != WatchScope::Children);
        let (mut found, mut bytes) = (vec![first], 0);
        let mut todo = match scope {
            WatchScope::Node => Vec::new(),
            WatchScope::Children | WatchScope::Tree => vec![(top, 0)],
        };
        while let Some((parent, place)) = todo.pop() {
            let (children, above) =
                (self.nodes[parent].dir().map(|dir| &dir.children), found[place].path.clone());
            for id in children.into_iter().flat_map(|children| children.iter()).filter(|&id| may(id)) {
                let child = &self.nodes[id];
                if found.len() >= *room || bytes > Tree::STATE_BYTES {
                    return Err(too_much(path));
                }
                if scope == WatchScope::Tree && child.num_children() > 0 {
                    todo.push((id, found.len()));
                }
                let entry = znode(id, above.child(&child.name_text())?, with_data);
                bytes += entry.weight();
                found.push(entry);
            }
        }
        *room = room.saturating_sub(found.len());
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
