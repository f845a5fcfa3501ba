//! Operations on a znode with all its descendants: the counts, the quotas, and the removal in one entry.
//!
//! Every parent counts its descendants, so a read of a count is constant time, and a quota check visits
//! only the path from the parent of a znode to the root. The counts are not part of the state: they
//! follow from the znodes, also when a state is loaded.

use api::{DeleteTree, OpError, Path, Permissions, Quota, QuotaAt, Usage, quota::Bounds};

use super::{
    At, By, Tree,
    slab::{NodeId, ROOT},
};
use crate::kept;

/// Maximum number of quotas of an ensemble.
pub(crate) const QUOTAS_MAX: usize = 10_000;

impl Tree {
    /// Subtracts and adds znodes and bytes in the counts of a znode and all its ancestors.
    pub(super) fn count_below(&mut self, parent: NodeId, znodes: (u64, u64), bytes: (usize, usize)) {
        let mut at = parent;
        loop {
            let slot = &mut self.nodes[at];
            let below = &mut slot.dir_mut().below;
            below.znodes = below.znodes + znodes.1 - znodes.0;
            below.bytes = below.bytes + bytes.1 as u64 - bytes.0 as u64;
            if at == ROOT {
                return;
            }
            at = slot.parent;
        }
    }

    /// Checks the hard limits of all quotas that count the children of a znode, for this much growth.
    ///
    /// # Errors
    /// [`OpError::QuotaExceeded`] for the nearest quota.
    pub(super) fn admit(&self, parent: NodeId, znodes: u64, bytes: usize) -> Result<(), OpError> {
        if self.quotas.len() == 0 || (znodes, bytes) == (0, 0) {
            return Ok(());
        }
        let mut at = parent;
        loop {
            let slot = &self.nodes[at];
            if let Some(quota) = slot.quota() {
                let used = slot.below();
                let used = Usage { znodes: used.znodes + znodes, bytes: used.bytes + bytes as u64 };
                // Growth in one dimension does not fail because of an exceeded limit of the other.
                let hard = Bounds {
                    znodes: quota.hard.znodes.filter(|_| znodes > 0),
                    bytes: quota.hard.bytes.filter(|_| bytes > 0),
                };
                if let Some((counted, limit, actual)) = hard.exceeded(used) {
                    return Err(OpError::QuotaExceeded { path: self.path(at), counted, limit, actual });
                }
            }
            if at == ROOT {
                return Ok(());
            }
            at = slot.parent;
        }
    }

    /// Replaces the quota of a znode; requires ADMIN. No watch fires: the Stat does not change.
    pub(super) fn set_quota(&mut self, by: By<'_>, path: &Path, quota: Quota) -> Result<QuotaAt, OpError> {
        let Some(id) = self.find(path.as_str()) else { return Err(OpError::NoNode(path.clone())) };
        self.permit(&self.nodes[id], path, Permissions::ADMIN, by.identities)?;
        let had = self.nodes[id].quota().is_some();
        if !quota.is_none() && !had && self.quotas.len() as usize >= QUOTAS_MAX {
            return Err(kept::too_many_quotas());
        }
        self.before_change(id, path.as_str());
        let slot = &mut self.nodes[id];
        slot.set_quota(quota);
        match (had, !quota.is_none()) {
            (true, false) => self.forget_quota((id, self.nodes[id].parent), path.as_str()),
            (false, true) => self.note_quota(id, path.as_str()),
            _ => {}
        }
        self.rehash(id, path.as_str());
        self.mark(id);
        Ok(QuotaAt { path: path.clone(), quota, used: self.nodes[id].below() })
    }

    /// Removes a znode and its descendants, or only the descendants. Children go before their parents,
    /// siblings in order.
    pub(super) fn delete_tree(&mut self, at: At, by: By<'_>, tree: &DeleteTree) -> Result<u64, OpError> {
        let DeleteTree { path, version, keep_root, .. } = tree;
        let above = path.parent().filter(|_| !keep_root);
        if path.is_root() && !keep_root {
            return Err(kept::root_stays());
        }
        if let Some((parent, above)) = above.and_then(|above| Some((self.find(above.as_str())?, above))) {
            self.permit(&self.nodes[parent], &above, Permissions::DELETE, by.identities)?;
        }
        let Some(root) = self.find(path.as_str()) else { return Err(OpError::NoNode(path.clone())) };
        if *keep_root {
            // Checked before the errors that reveal the znode.
            self.permit(&self.nodes[root], path, Permissions::DELETE, by.identities)?;
        }
        self.nodes[root].check_version(path, *version)?;
        let znodes = self.nodes[root].below().znodes + u64::from(!keep_root);
        let limit = u64::from(tree.znodes_max());
        if znodes > limit {
            return Err(kept::tree_too_large(limit, znodes));
        }
        let order = self.leaves_first(root, path, by)?;
        for (id, path) in order {
            if id != root || !keep_root {
                self.delete_leaf(at, id, &path, None);
            }
        }
        Ok(znodes)
    }

    /// The znodes of a subtree, children before their parents, if the caller may delete all children in it.
    fn leaves_first(&self, root: NodeId, path: &Path, by: By<'_>) -> Result<Vec<(NodeId, Path)>, OpError> {
        let (mut order, mut todo) = (Vec::new(), vec![(root, path.clone())]);
        while let Some((id, path)) = todo.pop() {
            let slot = &self.nodes[id];
            if slot.num_children() > 0 {
                self.permit(slot, &path, Permissions::DELETE, by.identities)?;
            }
            let children = slot.dir().map(|dir| dir.children.iter()).into_iter().flatten();
            for child in children {
                todo.push((child, path.child(&self.nodes[child].name_text())?));
            }
            order.push((id, path));
        }
        // A parent precedes its children here, and the last child precedes the first.
        order.reverse();
        Ok(order)
    }

    /// Whether the counts of all parents are correct. Visits every znode.
    #[must_use]
    pub fn counts_are_exact(&self) -> bool {
        let mut below = std::collections::BTreeMap::<NodeId, Usage>::new();
        for (_, slot) in self.nodes.iter().filter(|(id, _)| *id != ROOT) {
            let (mut at, bytes) = (slot.parent, slot.data_len() as u64);
            loop {
                let usage = below.entry(at).or_default();
                (usage.znodes, usage.bytes) = (usage.znodes + 1, usage.bytes + bytes);
                if at == ROOT {
                    break;
                }
                at = self.nodes[at].parent;
            }
        }
        let mut with_quota: Vec<_> = self.nodes.iter().filter(|(_, slot)| slot.quota().is_some()).collect();
        with_quota.sort_by_cached_key(|(id, _)| self.path(*id));
        self.nodes.iter().all(|(id, slot)| slot.below() == below.get(&id).copied().unwrap_or_default())
            && with_quota.into_iter().map(|(id, _)| id).eq(self.quotas.iter())
    }
}
