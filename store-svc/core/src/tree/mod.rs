//! The tree of znodes, with ZooKeeper's rules for Stat, versions, sequence numbers and ephemerals.
//!
//! Each znode is a [slot](znode::Slot) in a [slab], named by a number of 32 bits, and refers to its
//! parent. Parents list their [children] in order; an [index] finds a znode by its path. All three grow
//! and shrink in small steps, so no write waits for the move of a large structure. No path is stored as
//! a whole: it is composed from the names up to the root.

mod changes;
mod dirty;
mod export;
mod index;
mod load;
mod operations;
mod order;
mod reap;
mod slab;
mod subtree;
mod walks;
mod znode;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use api::mutants::{Mutant, is_on};
use api::{
    Acl, AclId, Child, Identities, Listing, Look, OpError, Page, Path, Permissions, Read, ReadOutcome,
    SessionId, Stat, Write, WriteOutcome, WriteResult, Zxid, record, watch::Change,
};

use crate::{
    acls::Acls,
    digest,
    sorted::{self, Sorted},
    state::RECORD,
};
pub(crate) use changes::STATE_ZNODES;
use dirty::Dirty;
use export::Export;
use index::Index;
pub(crate) use load::Loading;
use order::Owned;
use reap::Reapable;
use slab::{NodeId, ROOT, Slab};
pub(crate) use subtree::QUOTAS_MAX;
#[cfg(test)]
pub(crate) use znode::Life;
use znode::Slot;
pub(crate) use znode::Znode;

/// The position of a change in the log, and its time by the leader's clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct At {
    /// The entry.
    pub zxid: Zxid,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// The caller of an operation.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// Owner of the ephemerals that it creates.
    pub session: Option<SessionId>,
    /// The proven identities of the caller.
    pub identities: &'a Identities,
}

impl By<'static> {
    /// An anonymous caller.
    #[must_use]
    pub fn anonymous(session: Option<SessionId>) -> By<'static> {
        static NOBODY: Identities = Identities::NONE;
        By { session, identities: &NOBODY }
    }
}

/// All znodes. The root always exists.
#[derive(Debug)]
pub struct Tree {
    nodes: Slab,
    /// Over the paths of all znodes.
    index: Index,
    ephemerals: BTreeMap<SessionId, Owned>,
    acls: Acls,
    /// Znodes with a quota, by path.
    quotas: Sorted<NodeId>,
    /// Znodes that are removed automatically.
    reapable: Reapable,
    /// The digest of all znodes.
    digest: u64,
    /// Total bytes of all paths and values.
    bytes: usize,
    dirty: Dirty,
    /// The running export of all znodes.
    export: Option<Box<Export>>,
    /// Walks through parts of the tree.
    walks: walks::Walks,
    /// The mark of znodes that no export has to visit.
    exported: bool,
    /// The changes of the last entry to znodes.
    changes: Vec<Arc<Change>>,
    /// Number of names that sequential creates have skipped. Belongs to this tree object, not to the state.
    skipped: u64,
    /// Number of znodes without a record of their own; 0 except during a load.
    missing: usize,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::seeded(0)
    }
}

impl Tree {
    /// The empty tree. A server draws a new `seed`: see [`State::seeded`](crate::State::seeded).
    #[must_use]
    pub fn seeded(seed: u64) -> Tree {
        let mut tree = Tree::without_root(seed);
        let root = &mut tree.nodes[ROOT];
        root.set_data(Some(&[]));
        root.missing = false;
        tree.missing = 0;
        tree.bytes = "/".len();
        tree.rehash(ROOT, "/");
        tree.mark(ROOT);
        tree
    }

    pub(crate) fn seed(&self) -> u64 {
        self.index.seed()
    }

    /// Applies a write, or changes nothing.
    ///
    /// # Errors
    /// The first rule that the write violates; for a multi with the index of the part.
    pub fn write(&mut self, at: At, by: By<'_>, write: &Write) -> WriteResult {
        self.forget_changes();
        match write {
            Write::Create(create) => {
                self.create(at, by, create, None).map(|(path, stat)| WriteOutcome::Created { path, stat })
            }
            Write::Set { path, data, version } => {
                self.set(at, by, path, data, *version, None).map(|stat| WriteOutcome::Set { stat })
            }
            Write::Delete { path, version } => {
                self.delete(at, by, path, *version, None).map(|()| WriteOutcome::Deleted)
            }
            Write::SetAcl { path, acl, aversion } => {
                self.set_acl(by, path, acl, *aversion, None).map(|stat| WriteOutcome::AclSet { stat })
            }
            Write::DeleteTree(tree) => {
                self.delete_tree(at, by, tree).map(|znodes| WriteOutcome::TreeDeleted { znodes })
            }
            Write::SetQuota { path, quota } => self.set_quota(by, path, *quota).map(WriteOutcome::QuotaSet),
            Write::Multi(parts) => self.multi(at, by, parts).map(WriteOutcome::Multi),
        }
    }

    /// Answers a read of this caller.
    ///
    /// # Errors
    /// [`OpError::NoNode`], except for [`Read::Exists`], and [`OpError::NoAuth`].
    pub fn read(&self, read: &Read, identities: &Identities) -> Result<ReadOutcome, OpError> {
        if let Read::Quotas { path, page } = read {
            return Ok(self.quotas_at(path, page, By { session: None, identities }));
        }
        let node = self.node(read.path());
        if matches!(read, Read::Exists { .. }) && node.is_none() {
            return Ok(ReadOutcome::Exists { stat: None });
        }
        let node = node.ok_or_else(|| OpError::NoNode(read.path().clone()))?;
        let right = match read {
            Read::Acl { .. } => Permissions::READ.or(Permissions::ADMIN),
            _ => Permissions::READ,
        };
        if !is_on(Mutant::ReadWithoutRight) {
            self.permit(node, read.path(), right, identities)?;
        }
        Ok(match read {
            Read::Get { .. } => ReadOutcome::Data { data: node.data(), stat: node.stat() },
            Read::Acl { .. } => {
                let acl = self.acls.get(node.acl);
                let owner = acl.gives(Permissions::ADMIN, identities);
                ReadOutcome::Acl { acl: if owner { acl } else { acl.masked() }, stat: node.stat() }
            }
            Read::Exists { .. } => ReadOutcome::Exists { stat: Some(node.stat()) },
            Read::Children { page, .. } => self.page(node, page, identities),
            Read::Count { .. } => ReadOutcome::Counted(node.below()),
            // Answered above, because the znode need not exist.
            Read::Quotas { .. } => ReadOutcome::Quotas { quotas: Vec::new(), next: String::new() },
        })
    }

    /// Approximate size of the answer to a read in bytes, without making the answer.
    pub(crate) fn weight_of(&self, read: &Read) -> usize {
        if let Read::Quotas { .. } = read {
            // Also if the znode does not exist, or if quotas exist above it.
            return (self.quotas.len() as usize * 128).min(Page::BYTES_MAX);
        }
        let Some(node) = self.node(read.path()) else { return 0 };
        match read {
            Read::Get { .. } => node.data_len(),
            Read::Exists { .. } => 0,
            Read::Acl { .. } => self.acls.get(node.acl).weight(),
            Read::Children { page, .. } => {
                const NAME: usize = 64;
                let each = if page.look == Look::Name { NAME } else { NAME + Child::SIZE };
                let all = page.names_max().min(node.num_children() as usize) * each;
                // The first one is included at any size.
                let first = match page.look {
                    Look::Data => {
                        self.after(node, page).next().map_or(0, |child| self.nodes[child].data_len())
                    }
                    Look::Name | Look::Stat => 0,
                };
                (all + if page.look == Look::Data { Page::BYTES_MAX } else { 0 })
                    .min(Page::BYTES_MAX)
                    .max(first)
            }
            Read::Count { .. } => 0,
            // Handled above.
            Read::Quotas { .. } => 0,
        }
    }

    /// Removes all ephemerals of a session that ends, and returns their number.
    pub fn remove_ephemerals(&mut self, at: At, session: SessionId) -> u32 {
        let ids = self.ephemerals.remove(&session).unwrap_or_default().ids;
        for id in ids.iter() {
            let path = self.path(id);
            // Ephemerals have no children, so each can be removed.
            self.count_delete(at, id, &path);
            let slot = self.remove(id, &path);
            self.note_deleted(&slot, &path);
            self.acls.release(slot.acl);
        }
        ids.len()
    }

    /// The ephemerals of a session, in order.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = Path> + '_ {
        let owned = self.ephemerals.get(&session);
        owned.into_iter().flat_map(|owned| owned.ids.iter()).map(|id| self.path(id))
    }

    /// Number of znodes, including the root.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Always false: the root always exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 0
    }

    /// Total bytes of all paths and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The Stat of a znode, without a permission check; `None` if the znode does not exist.
    #[must_use]
    pub fn stat(&self, path: &Path) -> Option<Stat> {
        self.node(path).map(Slot::stat)
    }

    /// Whether this caller has any of these permissions on a znode. False if the znode does not exist.
    #[must_use]
    pub fn may(&self, path: &Path, any_of: Permissions, identities: &Identities) -> bool {
        self.node(path).is_some_and(|node| self.permit(node, path, any_of, identities).is_ok())
    }

    /// The access list of a znode, `None` if the znode does not exist.
    #[must_use]
    pub fn acl(&self, path: &Path) -> Option<Acl> {
        self.node(path).map(|node| self.acls.get(node.acl))
    }

    /// The sum of the hashes of all znodes and access lists.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.wrapping_add(self.acls.digest())
    }

    /// The same as [`Tree::digest`], computed from the values themselves.
    #[must_use]
    pub fn recompute_digest(&self) -> u64 {
        self.walk().fold(self.acls.recompute_digest(), |sum, (_, path, node)| {
            let z = node.view();
            debug_assert_eq!(z.data_hash(), digest::data(z.data.unwrap_or_default()));
            sum.wrapping_add(digest::znode(path.as_str(), &z))
        })
    }

    /// All znodes as records, parents before children, children in order.
    pub fn records(&self) -> impl Iterator<Item = record::Znode> + '_ {
        self.walk().map(|(_, path, node)| node.record(path))
    }

    /// All access lists as records, in order.
    pub(crate) fn acls(&self) -> impl Iterator<Item = record::AccessList> + '_ {
        self.acls.records()
    }

    /// Access lists added or removed since the last call, `None` for removed ones.
    pub(crate) fn take_dirty_acls(&mut self) -> Vec<(AclId, Option<record::AccessList>)> {
        self.acls.take_dirty()
    }

    /// Znodes changed since the last call, `None` for removed ones. A removed path may occur more than once.
    pub(crate) fn take_dirty(&mut self) -> Vec<(Path, Option<record::Znode>)> {
        let (untracked, ids, mut removed) = self.dirty.take(&mut self.nodes);
        let change = |path: Path, node: &Slot| (path.clone(), Some(node.record(path)));
        if untracked {
            return self.walk().map(|(_, path, node)| change(path, node)).collect();
        }
        // A znode that exists again is among the ids.
        removed.retain(|path| self.find(path.as_str()).is_none());
        let changed = ids.into_iter().map(|id| change(self.path(id), &self.nodes[id]));
        changed.chain(removed.into_iter().map(|path| (path, None))).collect()
    }

    /// Marks all of it as present in the checkpoint.
    pub(crate) fn forget_dirty(&mut self) {
        self.dirty.take(&mut self.nodes);
        self.acls.take_dirty();
    }

    /// Marks all of it as missing from the checkpoint.
    pub(crate) fn forget_checkpoint(&mut self) {
        self.dirty.forget_checkpoint(&mut self.nodes);
        self.acls.forget_checkpoint();
    }

    /// Number of paths and access lists that the next checkpoint visits.
    pub(crate) fn dirty_len(&self) -> usize {
        self.acls.dirty_len() + if self.dirty.untracked() { self.nodes.len() } else { self.dirty.len() }
    }

    /// Total bytes of the paths that [`Tree::take_dirty`] would collect.
    pub(crate) fn dirty_path_bytes(&self) -> usize {
        match self.dirty.untracked() {
            true => self.bytes - self.nodes[ROOT].below().bytes as usize - self.nodes[ROOT].data_len(),
            false => self.dirty.path_bytes(),
        }
    }

    /// Approximate size of the records that [`Tree::take_dirty`] and [`Tree::take_dirty_acls`] would
    /// return. Computing it takes about as long as those calls.
    pub(crate) fn dirty_bytes(&self) -> usize {
        if self.dirty.untracked() {
            return self.record_bytes();
        }
        let mut seen = HashSet::new();
        let marked = self.dirty.marked(&self.nodes).filter(|id| seen.insert(id.number()));
        let changed = marked.map(|id| RECORD + self.path_len(id) + self.nodes[id].data_len());
        let removed = self.dirty.removed().iter().map(|path| RECORD + path.as_str().len());
        self.acls.dirty_bytes() + changed.chain(removed).sum::<usize>()
    }

    /// The same for all records.
    pub(crate) fn record_bytes(&self) -> usize {
        self.bytes + self.nodes.len() * RECORD + self.acls.record_bytes()
    }

    /// Sessions that own ephemerals, in order.
    pub(crate) fn owners(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.ephemerals.keys().copied()
    }

    // ---- finding ----

    fn find(&self, path: &str) -> Option<NodeId> {
        self.find_by(self.index.hash(path), path)
    }

    fn find_by(&self, hash: u32, path: &str) -> Option<NodeId> {
        self.index.find(hash, |id| self.is_path_of(path, id))
    }

    fn node(&self, path: &Path) -> Option<&Slot> {
        self.find(path.as_str()).map(|id| &self.nodes[id])
    }

    /// The only permission check, for all operations of a caller.
    fn permit(
        &self,
        node: &Slot,
        path: &Path,
        any_of: Permissions,
        identities: &Identities,
    ) -> Result<(), OpError> {
        if node.acl == AclId::OPEN || self.acls.gives(node.acl, any_of, identities) {
            return Ok(());
        }
        Err(OpError::NoAuth { path: path.clone(), permission: any_of })
    }

    fn is_path_of(&self, path: &str, mut id: NodeId) -> bool {
        if path == "/" {
            return id == ROOT;
        }
        let mut rest = path.as_bytes();
        while id != ROOT {
            let node = &self.nodes[id];
            let Some(above) = rest.strip_suffix(node.name()).and_then(|rest| rest.strip_suffix(b"/")) else {
                return false;
            };
            (rest, id) = (above, node.parent);
        }
        rest.is_empty()
    }

    fn path(&self, mut id: NodeId) -> Path {
        let mut names = Vec::new();
        while id != ROOT {
            let node = &self.nodes[id];
            names.push(node.name());
            id = node.parent;
        }
        let mut text = String::new();
        for name in names.into_iter().rev() {
            text.push('/');
            text.push_str(&String::from_utf8_lossy(name));
        }
        path_of(&text)
    }

    fn path_len(&self, mut id: NodeId) -> usize {
        let mut len = 0;
        while id != ROOT {
            let node = &self.nodes[id];
            len += 1 + node.name().len();
            id = node.parent;
        }
        len.max("/".len())
    }

    /// A page of the children. Its cost depends on the page, not on the number of children.
    fn page(&self, node: &Slot, page: &Page, identities: &Identities) -> ReadOutcome {
        let mut rest = self.after(node, page).map(|id| &self.nodes[id]).peekable();
        let (mut children, mut bytes) = (Vec::new(), 0);
        while children.len() < page.names_max()
            && let Some(child) = rest.peek()
        {
            let child = self.listed(child, page.look, identities);
            bytes += if page.look == Look::Name { child.name.len() } else { child.weight() };
            if bytes > Page::BYTES_MAX && !children.is_empty() {
                break;
            }
            children.push(child);
            rest.next();
        }
        let next = match (rest.peek(), children.last()) {
            (Some(_), Some(last)) => last.name.clone(),
            _ => String::new(),
        };
        let stat = node.stat();
        match page.look {
            Look::Name => ReadOutcome::Children {
                names: children.into_iter().map(|child| child.name).collect(),
                next,
                stat,
            },
            Look::Stat | Look::Data => ReadOutcome::Listed(Box::new(Listing { children, next, stat })),
        }
    }

    /// The children of a page and all after them.
    fn after(&self, node: &Slot, page: &Page) -> impl Iterator<Item = NodeId> {
        let after = page.after.as_bytes();
        let behind = node.dir().map(|dir| dir.children.after(|id| self.nodes[id].name().cmp(after)));
        behind.into_iter().flatten()
    }

    /// A child in a listing. READ on the parent reveals its name, READ on the child the rest.
    fn listed(&self, child: &Slot, look: Look, identities: &Identities) -> Child {
        let shown = look != Look::Name && self.acls.gives(child.acl, Permissions::READ, identities);
        let data = (shown && look == Look::Data).then(|| child.data()).flatten();
        Child { name: child.name_text(), stat: shown.then(|| child.stat()), data }
    }

    /// All znodes, parents before children, children in order.
    fn walk(&self) -> impl Iterator<Item = (NodeId, Path, &Slot)> + '_ {
        self.walk_after(None)
    }

    /// The same after a path, which may be gone, as may its ancestors; from the root without one.
    fn walk_after<'a>(
        &'a self,
        after: Option<&Path>,
    ) -> impl Iterator<Item = (NodeId, Path, &'a Slot)> + use<'a> {
        let mut text = String::new();
        // For each level above, the remaining siblings and the length of their parent's path.
        let mut above: Vec<(sorted::Iter<'_, NodeId>, usize)> = Vec::new();
        let mut at = after.map(|_| ROOT);
        let mut names =
            after.into_iter().flat_map(|path| path.as_str().split('/').filter(|name| !name.is_empty()));
        while let Some(node) = at.map(|id| &self.nodes[id]) {
            let name = names.next().unwrap_or_default();
            if let Some(dir) = node.dir() {
                above.push((dir.children.after(|id| self.nodes[id].name().cmp(name.as_bytes())), text.len()));
            }
            text.push('/');
            text.push_str(name);
            at = (!name.is_empty()).then(|| self.find(&text)).flatten();
        }
        let mut begin = after.is_none().then_some(ROOT);
        std::iter::from_fn(move || {
            let next = begin.take().or_else(|| {
                while let Some((siblings, len)) = above.last_mut() {
                    if let Some(next) = siblings.next() {
                        text.truncate(*len);
                        text.push('/');
                        text.push_str(&String::from_utf8_lossy(self.nodes[next].name()));
                        return Some(next);
                    }
                    above.pop();
                }
                None
            })?;
            let node = &self.nodes[next];
            if let Some(dir) = node.dir() {
                above.push((dir.children.iter(), text.len()));
            }
            Some((next, path_of(&text), node))
        })
    }
}

/// The path with this text, which is composed from names of znodes: it was validated as a whole before.
fn path_of(text: &str) -> Path {
    match Path::new(if text.is_empty() { "/" } else { text }) {
        Ok(path) => path,
        Err(error) => unreachable!("the names of znodes make up {text:?}: {error}"),
    }
}
