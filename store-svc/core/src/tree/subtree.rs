//! Operations on a znode with all its descendants: the counts, the quotas, and the removal in one entry.
//!
//! Every parent counts its descendants, so a read of a count is constant time, and a quota check visits
//! only the path from the parent of a znode to the root. The counts are not part of the state: they
//! follow from the znodes, also when a state is loaded.

use api::{DeleteTree, OpError, Page, Path, Permissions, Quota, QuotaAt, ReadOutcome, Usage, quota::Bounds};

use super::{
    At, By, Tree,
    slab::{NodeId, ROOT},
};
use crate::kept;

/// Maximum number of quotas of an ensemble: a listing visits all of them.
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
        if self.quotas.is_empty() || (znodes, bytes) == (0, 0) {
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
        if !quota.is_none() && !self.quotas.contains(&id) && self.quotas.len() >= QUOTAS_MAX {
            return Err(kept::too_many_quotas());
        }
        self.before_change(id, path.as_str());
        let slot = &mut self.nodes[id];
        slot.set_quota(quota);
        match quota.is_none() {
            true => self.quotas.remove(&id),
            false => self.quotas.insert(id),
        };
        self.rehash(id, path.as_str());
        self.mark(id);
        Ok(QuotaAt { path: path.clone(), quota, used: self.nodes[id].below() })
    }

    /// The quotas at, above and below a znode that the caller may read, in order.
    pub(super) fn quotas_at(&self, path: &Path, page: &Page, by: By<'_>) -> ReadOutcome {
        let mut found: Vec<QuotaAt> = self
            .quotas
            .iter()
            .map(|&id| (id, self.path(id)))
            .filter(|(_, at)| at.as_str() > page.after.as_str() && (at.is_within(path) || path.is_within(at)))
            .filter(|(id, at)| self.permit(&self.nodes[*id], at, Permissions::READ, by.identities).is_ok())
            .map(|(id, path)| {
                let slot = &self.nodes[id];
                QuotaAt { path, quota: slot.quota().unwrap_or_default(), used: slot.below() }
            })
            .collect();
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut bytes = 0;
        let fits = |at: &QuotaAt| {
            bytes += at.path.as_str().len() + size_of::<QuotaAt>();
            bytes <= Page::BYTES_MAX
        };
        let most = found.iter().take(page.names_max()).map(fits).take_while(|fits| *fits).count().max(1);
        let more = found.len() > most;
        found.truncate(most);
        let next = found.last().filter(|_| more).map_or_else(String::new, |last| last.path.to_string());
        ReadOutcome::Quotas { quotas: found, next }
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
        let with_quota = self.nodes.iter().filter(|(_, slot)| slot.quota().is_some()).map(|(id, _)| id);
        self.nodes.iter().all(|(id, slot)| slot.below() == below.get(&id).copied().unwrap_or_default())
            && with_quota.collect::<std::collections::BTreeSet<_>>() == self.quotas
    }
}
