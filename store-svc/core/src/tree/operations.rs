//! The effects of writes, and the undo of a multi.

use api::mutants::{Mutant, is_on};
use api::{
    Acl, AclId, Create, Expected, MultiOp, MultiOutcome, OpError, Path, Permissions, SEQUENCE_END, Stat,
    Zxid, data_len, watch::ChangeKind,
};
use bytes::Bytes;

use super::{
    At, By, Tree,
    slab::{NodeId, ROOT, Slab},
    znode::{Dir, Life, Slot},
};
use crate::{digest, kept};

/// Maximum number of names that one sequential create skips.
const SKIPPED_MAX: u64 = 10_000;

/// The undo record of one part of a multi.
pub(super) enum Undo {
    Create { path: Path, parent: ParentBefore },
    Set { path: Path, data: Option<Bytes>, mzxid: Zxid, mtime_ms: i64, version: i32 },
    Delete { path: Path, slot: Box<Slot>, acl: Acl, parent: ParentBefore },
    SetAcl { path: Path, id: AclId, acl: Acl, aversion: i32 },
}

#[derive(Clone, Copy)]
pub(super) struct ParentBefore {
    pzxid: Zxid,
    cversion: i32,
    /// Increment of the number for sequential znodes.
    counted: u64,
}

/// The operations. `undo`, if present, receives the undo records of a multi.
impl Tree {
    pub(super) fn create(
        &mut self,
        at: At,
        by: By<'_>,
        create: &Create,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<(Path, Stat), OpError> {
        create.kind.check()?;
        let life = Life::new(create.kind, by.session).ok_or_else(|| {
            OpError::BadArguments(
                "an ephemeral lives with a session, and this request has none; open a session first".into(),
            )
        })?;
        // ZooKeeper's order of checks: parent, permission on it, full name, existence, kind of the parent.
        let parent_str = match create.path.parent_str() {
            Some(parent) => parent,
            None if create.sequential => "/",
            None => return Err(OpError::NodeExists(create.path.clone())),
        };
        let Some(parent) = self.find(parent_str) else { return Err(OpError::NoNode(Path::new(parent_str)?)) };
        let above = &self.nodes[parent];
        let parent_ephemeral = above.owner().is_some();
        if above.acl != AclId::OPEN {
            self.permit(above, &Path::new(parent_str)?, Permissions::CREATE, by.identities)?;
        }
        let path = if create.sequential && !parent_ephemeral {
            self.next_sequential(&create.path, parent, parent_str)?
        } else {
            create.path.clone()
        };
        let hash = self.index.hash(path.as_str());
        if self.find_by(hash, path.as_str()).is_some() {
            return Err(OpError::NodeExists(path));
        }
        if parent_ephemeral {
            return Err(OpError::NoChildrenForEphemerals(Path::new(parent_str)?));
        }
        self.admit(parent, 1, create.data_len())?;
        if let Some(owned) = life.owner().and_then(|owner| self.ephemerals.get(&owner)) {
            owned.admit(&path)?;
        }
        // Before the parent gets another child.
        self.before_change(parent, parent_str);
        let acl = self.acls.hold(&create.acl);
        let data = create.data.as_deref();
        let id = self.insert(hash, Slot::new(path.name(), data, at, life, acl, parent));
        self.count_in(id, &path);
        let before = self.change_parent(parent, parent_str, |parent| {
            parent.creates = SEQUENCE_END.min(parent.creates + 1);
            parent.cversion = next(parent.cversion);
            parent.pzxid = at.zxid;
        });
        self.note(ChangeKind::Created, id, &path);
        if let Some(undo) = undo {
            undo.push(Undo::Create { path: path.clone(), parent: before });
        }
        Ok((path, self.nodes[id].stat()))
    }

    pub(super) fn set(
        &mut self,
        at: At,
        by: By<'_>,
        path: &Path,
        data: &Option<Bytes>,
        version: Option<Expected>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<Stat, OpError> {
        let Some(id) = self.find(path.as_str()) else { return Err(OpError::NoNode(path.clone())) };
        self.permit(&self.nodes[id], path, Permissions::WRITE, by.identities)?;
        let node = &mut self.nodes[id];
        node.check_version(path, version)?;
        let grows = data_len(data).saturating_sub(node.data_len());
        let (parent, before) = (node.parent, node.data_len());
        if id != ROOT {
            self.admit(parent, 0, grows)?;
            self.count_below(parent, (0, 0), (before, data_len(data)));
        }
        let node = &mut self.nodes[id];
        if let Some(undo) = undo {
            let (mzxid, mtime_ms, version) = (node.mzxid, node.mtime_ms, node.version);
            undo.push(Undo::Set { path: path.clone(), data: node.data(), mzxid, mtime_ms, version });
        }
        self.bytes = self.bytes - node.data_len() + data_len(data);
        self.before_change(id, path.as_str());
        let node = &mut self.nodes[id];
        self.reapable.forget(id, node);
        node.set_data(data.as_deref());
        node.mzxid = at.zxid;
        node.mtime_ms = at.time_ms;
        node.version = next(node.version);
        self.reapable.note(id, node);
        let stat = node.stat();
        self.rehash(id, path.as_str());
        self.mark(id);
        self.note(ChangeKind::DataChanged, id, path);
        Ok(stat)
    }

    pub(super) fn delete(
        &mut self,
        at: At,
        by: By<'_>,
        path: &Path,
        version: Option<Expected>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<(), OpError> {
        let Some(parent) = path.parent() else { return Err(kept::root_stays()) };
        if let Some(above) = self.node(&parent) {
            self.permit(above, &parent, Permissions::DELETE, by.identities)?;
        }
        let Some(id) = self.find(path.as_str()) else { return Err(OpError::NoNode(path.clone())) };
        let node = &self.nodes[id];
        node.check_version(path, version)?;
        if node.num_children() > 0 {
            return Err(OpError::NotEmpty { path: path.clone(), children: node.num_children() });
        }
        self.delete_leaf(at, id, path, undo);
        Ok(())
    }

    /// Deletes a znode without children.
    pub(super) fn delete_leaf(&mut self, at: At, id: NodeId, path: &Path, undo: Option<&mut Vec<Undo>>) {
        let before = self.count_delete(at, id, path);
        let slot = self.remove(id, path);
        self.note_deleted(&slot, path);
        if let Some(owner) = slot.owner() {
            self.disown(owner, (id, slot.parent), path.as_str());
        }
        let acl = self.acls.get(slot.acl);
        self.acls.release(slot.acl);
        if let Some(undo) = undo {
            undo.push(Undo::Delete { path: path.clone(), slot: Box::new(slot), acl, parent: before });
        }
    }

    pub(super) fn set_acl(
        &mut self,
        by: By<'_>,
        path: &Path,
        acl: &Acl,
        aversion: Option<Expected>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<Stat, OpError> {
        let Some(id) = self.find(path.as_str()) else { return Err(OpError::NoNode(path.clone())) };
        let node = &self.nodes[id];
        self.permit(node, path, Permissions::ADMIN, by.identities)?;
        let before = node.aversion;
        aversion.map_or(Ok(()), |expected| expected.check(path, before, node.czxid))?;
        let new = self.acls.hold(acl);
        let old = self.put_acl(id, path, new, next(before));
        if let Some(undo) = undo {
            undo.push(Undo::SetAcl {
                path: path.clone(),
                id: old,
                acl: self.acls.get(old),
                aversion: before,
            });
        }
        self.acls.release(old);
        self.note(ChangeKind::AclChanged, id, path);
        Ok(self.nodes[id].stat())
    }

    /// Sets another access list, which already counts this znode. Returns the id of the previous list.
    fn put_acl(&mut self, id: NodeId, path: &Path, acl: AclId, aversion: i32) -> AclId {
        self.before_change(id, path.as_str());
        let node = &mut self.nodes[id];
        let old = std::mem::replace(&mut node.acl, acl);
        node.aversion = aversion;
        self.rehash(id, path.as_str());
        self.mark(id);
        old
    }

    fn check(&self, by: By<'_>, path: &Path, version: Option<Expected>) -> Result<(), OpError> {
        let Some(node) = self.node(path) else { return Err(OpError::NoNode(path.clone())) };
        self.permit(node, path, Permissions::READ, by.identities)?;
        node.check_version(path, version)
    }

    fn check_absent(&self, by: By<'_>, path: &Path) -> Result<(), OpError> {
        let Some(node) = self.node(path) else { return Ok(()) };
        self.permit(node, path, Permissions::READ, by.identities)?;
        Err(OpError::Present { path: path.clone(), actual: node.czxid })
    }

    pub(super) fn multi(
        &mut self,
        at: At,
        by: By<'_>,
        parts: &[MultiOp],
    ) -> Result<Vec<MultiOutcome>, OpError> {
        let (digest_before, skipped_before) = (self.digest(), self.skipped);
        let noted_before = self.changes.len();
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut undo = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let outcome = match part {
                MultiOp::Create(create) => self
                    .create(at, by, create, Some(&mut undo))
                    .map(|(path, stat)| MultiOutcome::Created { path, stat }),
                MultiOp::Set { path, data, version } => self
                    .set(at, by, path, data, *version, Some(&mut undo))
                    .map(|stat| MultiOutcome::Set { stat }),
                MultiOp::Delete { path, version } => {
                    self.delete(at, by, path, *version, Some(&mut undo)).map(|()| MultiOutcome::Deleted)
                }
                MultiOp::SetAcl { path, acl, aversion } => self
                    .set_acl(by, path, acl, *aversion, Some(&mut undo))
                    .map(|stat| MultiOutcome::AclSet { stat }),
                MultiOp::Check { path, version } => {
                    self.check(by, path, *version).map(|()| MultiOutcome::Checked)
                }
                MultiOp::CheckAbsent { path } => self.check_absent(by, path).map(|()| MultiOutcome::Checked),
            };
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(cause) => {
                    while let Some(step) = undo.pop() {
                        self.take_back(step);
                    }
                    self.changes.truncate(noted_before);
                    let left = self.digest() != digest_before && self.skipped == skipped_before;
                    assert!(!left, "a failed multi has left something behind");
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    return Err(OpError::Multi { index, cause: Box::new(cause) });
                }
            }
        }
        Ok(outcomes)
    }

    fn take_back(&mut self, step: Undo) {
        match step {
            Undo::Set { path, data, mzxid, mtime_ms, version } => {
                let Some(id) = self.find(path.as_str()) else { return };
                let node = &self.nodes[id];
                let (parent, now) = (node.parent, node.data_len());
                self.bytes = self.bytes - now + data_len(&data);
                if id != ROOT {
                    self.count_below(parent, (0, 0), (now, data_len(&data)));
                }
                self.before_change(id, path.as_str());
                let node = &mut self.nodes[id];
                self.reapable.forget(id, node);
                node.set_data(data.as_deref());
                node.mzxid = mzxid;
                node.mtime_ms = mtime_ms;
                node.version = version;
                self.reapable.note(id, node);
                self.rehash(id, path.as_str());
            }
            Undo::SetAcl { path, id: before, acl, aversion } => {
                let Some(id) = self.find(path.as_str()) else { return };
                // If the list was added again later, its id has been free since then.
                self.acls.hold_as(before, &acl);
                let new = self.put_acl(id, &path, before, aversion);
                self.acls.release(new);
            }
            Undo::Create { path, parent } => {
                let Some(id) = self.find(path.as_str()) else { return };
                self.restore_parent(id, &path, parent);
                let slot = self.remove(id, &path);
                if let Some(owner) = slot.owner() {
                    self.disown(owner, (id, slot.parent), path.as_str());
                }
                self.acls.release(slot.acl);
            }
            Undo::Delete { path, mut slot, acl, parent } => {
                // The parent may have returned in another slot.
                let Some(above) = path.parent_str().and_then(|above| self.find(above)) else { return };
                self.acls.hold_as(slot.acl, &acl);
                slot.parent = above;
                let id = self.insert(self.index.hash(path.as_str()), *slot);
                self.count_in(id, &path);
                self.restore_parent(id, &path, parent);
            }
        }
    }

    // ---- the parts they are made of ----

    /// The name for a sequential znode: the first free one from its parent's counter on. Occupied names
    /// are skipped for good, also if the create, or its multi, fails. So all creates together visit
    /// each name once, however many names a client occupies.
    fn next_sequential(&mut self, prefix: &Path, parent: NodeId, parent_str: &str) -> Result<Path, OpError> {
        // Names that are too long are rejected, whether numbers are left or not.
        kept::sequential(prefix, 0)?;
        let first = self.nodes[parent].creates();
        let last = SEQUENCE_END.min(first + SKIPPED_MAX);
        let (mut number, mut free) = (first, None);
        while free.is_none() && number < last {
            let path = kept::sequential(prefix, number)?;
            match self.find(path.as_str()) {
                Some(_) => number += 1,
                None => free = Some(path),
            }
        }
        if number > first {
            self.skipped += number - first;
            self.change_parent(parent, parent_str, |parent| parent.creates = number);
        }
        free.ok_or_else(|| OpError::NoSequenceNumber { path: prefix.clone(), next: number })
    }

    /// Inserts a znode, whose path has this hash, into the slab, the index and its parent's children.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot) -> NodeId {
        let parent = slot.parent;
        let id = self.nodes.insert(slot);
        self.index.insert(hash, id);
        self.reapable.note(id, &self.nodes[id]);
        self.change_dir(parent, |nodes, dir| dir.link(nodes, id));
        id
    }

    /// Adds an inserted znode to all counts, as a new one.
    fn count_in(&mut self, id: NodeId, path: &Path) {
        let node = &mut self.nodes[id];
        (node.hash, node.dirty, node.exported) = (0, false, self.exported);
        let (parent, len, has_quota) = (node.parent, node.data_len(), node.quota().is_some());
        if let Some(owner) = node.owner() {
            self.own(owner, id, path.as_str());
        }
        if has_quota {
            self.note_quota(id, path.as_str());
        }
        self.bytes += path.as_str().len() + len;
        self.count_below(parent, (0, 1), (0, len));
        self.rehash(id, path.as_str());
        self.mark(id);
    }

    /// Removes a znode from its place and all counts, except for the ephemerals and the access lists.
    pub(super) fn remove(&mut self, id: NodeId, path: &Path) -> Slot {
        self.before_change(id, path.as_str());
        let parent = self.nodes[id].parent;
        self.change_dir(parent, |nodes, dir| dir.unlink(nodes, id));
        self.index.remove(self.index.hash(path.as_str()), id);
        self.reapable.forget(id, &self.nodes[id]);
        let mut slot = self.nodes.remove(id);
        self.bytes -= path.as_str().len() + slot.data_len();
        self.count_below(parent, (1, 0), (slot.data_len(), 0));
        if slot.quota().is_some() {
            self.forget_quota((id, parent), path.as_str());
        }
        self.digest = self.digest.wrapping_sub(slot.hash);
        self.dirty.remove(path, &mut slot);
        slot
    }

    /// Counts the delete of a znode, which still exists, in its parent.
    pub(super) fn count_delete(&mut self, at: At, id: NodeId, path: &Path) -> ParentBefore {
        let parent = self.nodes[id].parent;
        self.change_parent(parent, path.parent_str().unwrap_or_default(), |parent| {
            parent.cversion = next(parent.cversion);
            parent.pzxid = at.zxid;
        })
    }

    fn restore_parent(&mut self, id: NodeId, path: &Path, before: ParentBefore) {
        let parent = self.nodes[id].parent;
        self.change_parent(parent, path.parent_str().unwrap_or_default(), |parent| {
            parent.pzxid = before.pzxid;
            parent.cversion = before.cversion;
            // Not restored to the old value: names that were skipped in between stay skipped.
            parent.creates -= before.counted;
        });
    }

    /// Changes the counters of a parent and returns the old ones.
    fn change_parent(&mut self, id: NodeId, path: &str, change: impl FnOnce(&mut Dir)) -> ParentBefore {
        self.before_change(id, path);
        let before = self.change_dir(id, |_, dir| {
            let (pzxid, cversion, creates) = (dir.pzxid, dir.cversion, dir.creates);
            change(dir);
            ParentBefore { pzxid, cversion, counted: dir.creates.saturating_sub(creates) }
        });
        self.rehash(id, path);
        self.mark(id);
        before
    }

    /// Changes the data of a parent, with access to all other znodes.
    fn change_dir<R>(&mut self, id: NodeId, change: impl FnOnce(&Slab, &mut Dir) -> R) -> R {
        self.reapable.forget(id, &self.nodes[id]);
        let mut dir = self.nodes[id].take_dir();
        let result = change(&self.nodes, &mut dir);
        self.nodes[id].put_dir(dir);
        if !is_on(Mutant::EmptiedUnnoticed) {
            self.reapable.note(id, &self.nodes[id]);
        }
        result
    }

    /// Updates the digest for a znode.
    pub(super) fn rehash(&mut self, id: NodeId, path: &str) {
        let node = &mut self.nodes[id];
        let hash = digest::znode(path, &node.view());
        let old = std::mem::replace(&mut node.hash, hash);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(hash);
    }

    pub(super) fn mark(&mut self, id: NodeId) {
        debug_assert!(self.nodes[id].exported == self.exported, "a change without a call of `before_change`");
        if self.dirty.tracks(&self.nodes[id]) {
            let len = self.path_len(id);
            self.dirty.mark(id, &mut self.nodes[id], len);
        }
    }
}

/// The next value of a counter. It wraps to 0 after the maximum, so that it is never negative: clients
/// name versions, and a negative version matches any.
fn next(counter: i32) -> i32 {
    counter.checked_add(1).unwrap_or(0)
}
