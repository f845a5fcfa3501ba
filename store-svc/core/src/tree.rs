//! The tree of znodes, with ZooKeeper's rules for Stat, versions, sequence numbers and ephemerals.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
};

use api::{
    Acl, AclId, Create, MultiOp, MultiOutcome, NodeKind, OpError, Page, Path, Read, ReadOutcome,
    SEQUENCE_END, SessionId, Stat, Write, WriteOutcome, WriteResult, Zxid, data_len, record,
};
use bytes::Bytes;

use crate::{
    acls::Acls,
    digest, kept,
    state::{LoadError, RECORD},
};

/// Where in the log, and when by the leader's clock, a change takes place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct At {
    /// The entry.
    pub zxid: Zxid,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// All znodes. The root exists from the start and for ever.
#[derive(Debug)]
pub struct Tree {
    /// Only ever looked up; whoever needs an order walks the `children`.
    nodes: HashMap<Path, Znode>,
    ephemerals: BTreeMap<SessionId, BTreeSet<Path>>,
    acls: Acls,
    /// Of all znodes.
    digest: u64,
    /// Of all paths and values.
    bytes: usize,
    /// Paths changed since the last [`Tree::take_dirty`]. A path may be here twice after it was deleted.
    dirty: Vec<Path>,
    /// Everything counts as changed, and `dirty` stays empty: all znodes say that they are in it.
    untracked: bool,
    /// Names that sequential creates have skipped. Of this tree object, not of the state.
    skipped: u64,
}

#[derive(Debug)]
pub(crate) struct Znode {
    pub(crate) data: Option<Bytes>,
    pub(crate) data_hash: u64,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) pzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    pub(crate) cversion: i32,
    pub(crate) aversion: i32,
    /// Creates of children, and names that were skipped: the number of the next sequential one, and [`SEQUENCE_END`] if there
    /// are no more. ZooKeeper's internal cversion, which becomes negative instead.
    pub(crate) creates: u64,
    pub(crate) life: Life,
    pub(crate) acl: AclId,
    /// Full paths: they share their text with the keys of `Tree::nodes`, and sort as the names do.
    children: BTreeSet<Path>,
    /// What this znode adds to the digest at present.
    hash: u64,
    /// Whether it is in `Tree::dirty`.
    dirty: bool,
}

/// A kind, and what comes with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    Persistent,
    Ephemeral(SessionId),
    Container,
    /// In milliseconds.
    Ttl(u64),
}

impl Life {
    /// `None` if it is an ephemeral without an owner.
    fn new(kind: NodeKind, owner: Option<SessionId>) -> Option<Life> {
        Some(match kind {
            NodeKind::Persistent => Life::Persistent,
            NodeKind::Ephemeral => Life::Ephemeral(owner?),
            NodeKind::Container => Life::Container,
            NodeKind::Ttl { ms } => Life::Ttl(ms),
        })
    }

    pub(crate) fn kind(self) -> NodeKind {
        match self {
            Life::Persistent => NodeKind::Persistent,
            Life::Ephemeral(_) => NodeKind::Ephemeral,
            Life::Container => NodeKind::Container,
            Life::Ttl(ms) => NodeKind::Ttl { ms },
        }
    }

    pub(crate) fn owner(self) -> Option<SessionId> {
        match self {
            Life::Ephemeral(owner) => Some(owner),
            _ => None,
        }
    }
}

impl Default for Tree {
    fn default() -> Tree {
        let at = At { zxid: Zxid::ZERO, time_ms: 0 };
        let root = Znode::new(Some(Bytes::new()), at, Life::Persistent, AclId::OPEN);
        let mut tree = Tree::without_root();
        tree.insert(Path::root(), root);
        tree
    }
}

impl Tree {
    /// Carries out a write, or changes nothing. `session` owns the ephemerals that it makes.
    ///
    /// # Errors
    /// The first rule that it breaks; for a multi with the index of the part.
    pub fn write(&mut self, at: At, session: Option<SessionId>, write: &Write) -> WriteResult {
        match write {
            Write::Create(create) => self
                .create(at, session, create, None)
                .map(|(path, stat)| WriteOutcome::Created { path, stat }),
            Write::Set { path, data, version } => {
                self.set(at, path, data, *version, None).map(|stat| WriteOutcome::Set { stat })
            }
            Write::Delete { path, version } => {
                self.delete(at, path, *version, None).map(|()| WriteOutcome::Deleted)
            }
            Write::Multi(parts) => self.multi(at, session, parts).map(WriteOutcome::Multi),
        }
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`OpError::NoNode`], but for [`Read::Exists`].
    pub fn read(&self, read: &Read) -> Result<ReadOutcome, OpError> {
        let node = self.nodes.get(read.path());
        if matches!(read, Read::Exists { .. }) {
            return Ok(ReadOutcome::Exists { stat: node.map(Znode::stat) });
        }
        let node = node.ok_or_else(|| OpError::NoNode(read.path().clone()))?;
        Ok(match read {
            Read::Get { .. } => ReadOutcome::Data { data: node.data.clone(), stat: node.stat() },
            Read::Exists { .. } => ReadOutcome::Exists { stat: Some(node.stat()) },
            Read::Children { path, page } => node.page(path, page),
        })
    }

    /// About how many bytes the answer to a question has, without making it.
    pub(crate) fn weight_of(&self, read: &Read) -> usize {
        let Some(node) = self.nodes.get(read.path()) else { return 0 };
        match read {
            Read::Get { .. } => data_len(&node.data),
            Read::Exists { .. } => 0,
            Read::Children { page, .. } => {
                const NAME: usize = 64;
                (page.names_max().min(node.children.len()) * NAME).min(Page::BYTES_MAX)
            }
        }
    }

    /// Removes all ephemerals of a session that ends, and returns how many there were.
    pub fn remove_ephemerals(&mut self, at: At, session: SessionId) -> u32 {
        let paths = self.ephemerals.remove(&session).unwrap_or_default();
        for path in &paths {
            // Ephemerals have no children, so each one can go.
            if let Some(node) = self.remove(path) {
                self.digest = self.digest.wrapping_sub(node.hash);
                self.acls.release(node.acl);
                self.count_delete(at, path);
            }
        }
        paths.len() as u32
    }

    /// The ephemerals of a session, in order.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = &Path> + '_ {
        self.ephemerals.get(&session).into_iter().flatten()
    }

    /// How many znodes there are, the root among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the root is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Bytes of all paths and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The access list of a znode, `None` if there is no such znode.
    #[must_use]
    pub fn acl(&self, path: &Path) -> Option<Acl> {
        self.nodes.get(path).map(|node| self.acls.get(node.acl))
    }

    /// The sum of the hashes of all znodes and access lists.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.wrapping_add(self.acls.digest())
    }

    /// The same as [`Tree::digest`], computed from the values themselves.
    #[must_use]
    pub fn recompute_digest(&self) -> u64 {
        self.walk().fold(self.acls.recompute_digest(), |sum, (path, node)| {
            debug_assert_eq!(node.data_hash, digest::data(value(&node.data)));
            sum.wrapping_add(digest::znode(path.as_str(), node))
        })
    }

    /// All znodes as records, parents before children, children in order.
    pub fn records(&self) -> impl Iterator<Item = record::Znode> + '_ {
        self.walk().map(|(path, node)| node.record(path.clone()))
    }

    /// All access lists as records, in order.
    pub(crate) fn acls(&self) -> impl Iterator<Item = record::AccessList> + '_ {
        self.acls.records()
    }

    /// Access lists that came or went since the last call, `None` for those that are gone.
    pub(crate) fn take_dirty_acls(&mut self) -> Vec<(AclId, Option<record::AccessList>)> {
        self.acls.take_dirty()
    }

    /// Znodes changed since the last call, `None` where there is none any more. A path may come more than once with
    /// `None`.
    pub(crate) fn take_dirty(&mut self) -> Vec<(Path, Option<record::Znode>)> {
        if std::mem::take(&mut self.untracked) {
            self.set_dirty(false);
            return self.walk().map(|(path, node)| (path.clone(), Some(node.record(path.clone())))).collect();
        }
        let mut changes = Vec::with_capacity(self.dirty.len());
        for path in std::mem::take(&mut self.dirty) {
            match self.nodes.get_mut(&path) {
                None => changes.push((path, None)),
                Some(node) if node.dirty => {
                    node.dirty = false;
                    let record = node.record(path.clone());
                    changes.push((path, Some(record)));
                }
                // Here twice: its record is out already.
                Some(_) => {}
            }
        }
        changes
    }

    /// As if nothing of it were in a checkpoint.
    pub(crate) fn forget_checkpoint(&mut self) {
        self.untracked = true;
        self.acls.forget_checkpoint();
        self.dirty.clear();
        self.set_dirty(true);
    }

    /// Of all znodes.
    fn set_dirty(&mut self, dirty: bool) {
        let paths: Vec<Path> = self.walk().map(|(path, _)| path.clone()).collect();
        for path in &paths {
            if let Some(node) = self.nodes.get_mut(path) {
                node.dirty = dirty;
            }
        }
    }

    /// How many paths and access lists the next checkpoint would look at.
    pub(crate) fn dirty_len(&self) -> usize {
        self.acls.dirty_len() + if self.untracked { self.nodes.len() } else { self.dirty.len() }
    }

    /// About how many bytes the records have that [`Tree::take_dirty`] and [`Tree::take_dirty_acls`] would return. Counting them
    /// takes about as long as that does.
    pub(crate) fn dirty_bytes(&self) -> usize {
        if self.untracked {
            return self.record_bytes();
        }
        // A path is here once for each time that it was created, but has at most one value.
        let mut seen = HashSet::with_capacity(self.dirty.len());
        let record = |path| {
            let node = self.nodes.get::<Path>(path).filter(|_| seen.insert(path));
            RECORD + path.as_str().len() + node.map_or(0, |node| data_len(&node.data))
        };
        self.acls.dirty_bytes() + self.dirty.iter().map(record).sum::<usize>()
    }

    /// The same of all records.
    pub(crate) fn record_bytes(&self) -> usize {
        self.bytes + self.nodes.len() * RECORD + self.acls.record_bytes()
    }

    /// A tree that breaks the rule about the root, to be filled by [`Tree::load`] and finished by
    /// [`Tree::finish_load`].
    pub(crate) fn without_root() -> Tree {
        Tree {
            nodes: HashMap::new(),
            ephemerals: BTreeMap::new(),
            acls: Acls::default(),
            digest: 0,
            bytes: 0,
            dirty: Vec::new(),
            untracked: false,
            skipped: 0,
        }
    }

    /// Takes in one record of a complete state.
    ///
    /// # Errors
    /// If there is a znode of this name already, or its kind and its owner do not fit together.
    pub(crate) fn load(&mut self, z: record::Znode) -> Result<(), LoadError> {
        let life = Life::new(z.kind, z.ephemeral_owner).filter(|life| life.owner() == z.ephemeral_owner);
        let Some(life) = life else { return Err(LoadError::Owner(z.path)) };
        let node = Znode {
            data_hash: digest::data(value(&z.data)),
            data: own(&z.data),
            czxid: z.czxid,
            mzxid: z.mzxid,
            pzxid: z.pzxid,
            ctime_ms: z.ctime_ms,
            mtime_ms: z.mtime_ms,
            version: z.version,
            cversion: z.cversion,
            aversion: z.aversion,
            creates: z.creates,
            life,
            acl: z.acl,
            children: BTreeSet::new(),
            hash: 0,
            dirty: false,
        };
        if self.nodes.contains_key(&z.path) {
            return Err(LoadError::Twice(format!("znode {}", z.path)));
        }
        self.insert(z.path, node);
        Ok(())
    }

    /// The same for an access list.
    ///
    /// # Errors
    /// If its id or its content is here already.
    pub(crate) fn load_acl(&mut self, list: record::AccessList) -> Result<(), LoadError> {
        let id = list.id;
        if self.acls.load(list) { Ok(()) } else { Err(LoadError::Twice(format!("access list {}", id.0))) }
    }

    /// Joins parents and children, and znodes and access lists, after all records are in.
    ///
    /// # Errors
    /// If the parent of a znode is missing or is an ephemeral, if there is no root, or if znodes and access lists do not fit
    /// together.
    pub(crate) fn finish_load(&mut self) -> Result<(), LoadError> {
        if !self.nodes.contains_key("/") {
            return Err(LoadError::NoParent(Path::root()));
        }
        // `insert` has noted every path as changed, which is the list that is needed here.
        for path in std::mem::take(&mut self.dirty) {
            if let Some(node) = self.nodes.get_mut(&path) {
                node.dirty = false;
                if !self.acls.count(node.acl) {
                    return Err(LoadError::Acl(node.acl));
                }
            }
            let Some(parent) = path.parent_str() else { continue };
            match self.nodes.get_mut(parent) {
                Some(parent) if parent.life.owner().is_none() => parent.children.insert(path),
                _ => return Err(LoadError::NoParent(path)),
            };
        }
        self.acls.finish_load().map_err(LoadError::Acl)
    }

    /// Ends the loading, when the digest of what was loaded is known to be right.
    pub(crate) fn trust(&mut self) {
        self.acls.find_free();
    }

    /// Sessions that own ephemerals, in order.
    pub(crate) fn owners(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.ephemerals.keys().copied()
    }

    // ---- the operations; `undo`, where given, receives what a multi needs to take them back ----

    fn create(
        &mut self,
        at: At,
        session: Option<SessionId>,
        create: &Create,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<(Path, Stat), OpError> {
        create.kind.check()?;
        let life = Life::new(create.kind, session).ok_or_else(|| {
            OpError::BadArguments(
                "an ephemeral lives with a session, and this request has none; open a session first".into(),
            )
        })?;
        // The checks in ZooKeeper's order: parent, full name, existence, kind of the parent.
        let parent_str = match create.path.parent_str() {
            Some(parent) => parent,
            None if create.sequential => "/",
            None => return Err(OpError::NodeExists(create.path.clone())),
        };
        let Some(parent) = self.nodes.get_mut(parent_str) else {
            return Err(OpError::NoNode(Path::new(parent_str)?));
        };
        let parent_ephemeral = parent.life.owner().is_some();
        let path = if create.sequential && !parent_ephemeral {
            self.next_sequential(&create.path)?
        } else {
            create.path.clone()
        };
        if self.nodes.contains_key(&path) {
            return Err(OpError::NodeExists(path));
        }
        if parent_ephemeral {
            return Err(OpError::NoChildrenForEphemerals(Path::new(parent_str)?));
        }
        let before = self.change_parent(&path, |parent| {
            parent.creates = SEQUENCE_END.min(parent.creates + 1);
            parent.cversion = next(parent.cversion);
            parent.pzxid = at.zxid;
            parent.children.insert(path.clone());
        });
        let node = Znode::new(own(&create.data), at, life, self.acls.hold(&create.acl));
        let stat = node.stat();
        self.insert(path.clone(), node);
        if let (Some(undo), Some(parent)) = (undo, before) {
            undo.push(Undo::Create { path: path.clone(), parent });
        }
        Ok((path, stat))
    }

    fn set(
        &mut self,
        at: At,
        path: &Path,
        data: &Option<Bytes>,
        version: Option<i32>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<Stat, OpError> {
        let Some(node) = self.nodes.get_mut(path) else { return Err(OpError::NoNode(path.clone())) };
        node.check_version(path, version)?;
        let old = std::mem::replace(&mut node.data, own(data));
        self.bytes = self.bytes - data_len(&old) + data_len(data);
        if let Some(undo) = undo {
            let (mzxid, mtime_ms, version) = (node.mzxid, node.mtime_ms, node.version);
            undo.push(Undo::Set { path: path.clone(), data: old, mzxid, mtime_ms, version });
        }
        node.data_hash = digest::data(value(data));
        node.mzxid = at.zxid;
        node.mtime_ms = at.time_ms;
        node.version = next(node.version);
        node.rehash(path, &mut self.digest);
        node.mark(path, &mut self.dirty);
        Ok(node.stat())
    }

    fn delete(
        &mut self,
        at: At,
        path: &Path,
        version: Option<i32>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<(), OpError> {
        if path.is_root() {
            return Err(kept::root_stays());
        }
        let Some(node) = self.nodes.get(path) else { return Err(OpError::NoNode(path.clone())) };
        node.check_version(path, version)?;
        if !node.children.is_empty() {
            return Err(OpError::NotEmpty { path: path.clone(), children: node.num_children() });
        }
        let Some(node) = self.remove(path) else { return Err(OpError::NoNode(path.clone())) };
        self.digest = self.digest.wrapping_sub(node.hash);
        if let Some(owner) = node.life.owner() {
            self.disown(owner, path);
        }
        let acl = self.acls.get(node.acl);
        self.acls.release(node.acl);
        let before = self.count_delete(at, path);
        if let (Some(undo), Some(parent)) = (undo, before) {
            undo.push(Undo::Delete { path: path.clone(), node: Box::new(node), acl, parent });
        }
        Ok(())
    }

    fn check(&self, path: &Path, version: Option<i32>) -> Result<(), OpError> {
        let Some(node) = self.nodes.get(path) else { return Err(OpError::NoNode(path.clone())) };
        node.check_version(path, version)
    }

    fn multi(
        &mut self,
        at: At,
        session: Option<SessionId>,
        parts: &[MultiOp],
    ) -> Result<Vec<MultiOutcome>, OpError> {
        let (digest_before, skipped_before) = (self.digest(), self.skipped);
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut undo = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let outcome = match part {
                MultiOp::Create(create) => self
                    .create(at, session, create, Some(&mut undo))
                    .map(|(path, stat)| MultiOutcome::Created { path, stat }),
                MultiOp::Set { path, data, version } => {
                    self.set(at, path, data, *version, Some(&mut undo)).map(|stat| MultiOutcome::Set { stat })
                }
                MultiOp::Delete { path, version } => {
                    self.delete(at, path, *version, Some(&mut undo)).map(|()| MultiOutcome::Deleted)
                }
                MultiOp::Check { path, version } => {
                    self.check(path, *version).map(|()| MultiOutcome::Checked)
                }
            };
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(cause) => {
                    while let Some(step) = undo.pop() {
                        self.take_back(step);
                    }
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
                if let Some(node) = self.nodes.get_mut(&path) {
                    node.data_hash = digest::data(value(&data));
                    self.bytes = self.bytes - data_len(&node.data) + data_len(&data);
                    node.data = data;
                    node.mzxid = mzxid;
                    node.mtime_ms = mtime_ms;
                    node.version = version;
                    node.rehash(&path, &mut self.digest);
                }
            }
            Undo::Create { path, parent } => {
                if let Some(node) = self.remove(&path) {
                    self.digest = self.digest.wrapping_sub(node.hash);
                    self.acls.release(node.acl);
                    if let Some(owner) = node.life.owner() {
                        self.disown(owner, &path);
                    }
                }
                self.change_parent(&path, |p| {
                    p.children.remove(&path);
                    p.restore(parent);
                });
            }
            Undo::Delete { path, node, acl, parent } => {
                self.acls.hold_as(node.acl, &acl);
                self.change_parent(&path, |p| {
                    p.children.insert(path.clone());
                    p.restore(parent);
                });
                self.insert(path, *node);
            }
        }
    }

    // ---- the parts they are made of ----

    /// The name for a sequential znode: the first that is free from its parent's counter on. Names in the way are skipped for
    /// good, also if the create, or the multi that it is part of, fails: so all creates together look at each name once,
    /// however many somebody has put in their way.
    fn next_sequential(&mut self, prefix: &Path) -> Result<Path, OpError> {
        // The parent is found by any name below it.
        let below = kept::sequential(prefix, 0)?;
        let parent = below.parent_str().and_then(|parent| self.nodes.get(parent));
        let first = parent.map_or(SEQUENCE_END, |parent| parent.creates);
        let last = SEQUENCE_END.min(first + SKIPPED_MAX);
        let (mut number, mut free) = (first, None);
        while free.is_none() && number < last {
            let path = kept::sequential(prefix, number)?;
            match self.nodes.contains_key(&path) {
                true => number += 1,
                false => free = Some(path),
            }
        }
        if number > first {
            self.skipped += number - first;
            self.change_parent(&below, |parent| parent.creates = number);
        }
        free.ok_or_else(|| OpError::NoSequenceNumber { path: prefix.clone(), next: number })
    }

    /// Puts a znode in its place, in digest and indexes, but not among the children of its parent.
    fn insert(&mut self, path: Path, mut node: Znode) {
        node.hash = 0;
        node.dirty = self.untracked;
        node.rehash(&path, &mut self.digest);
        node.mark(&path, &mut self.dirty);
        if let Some(owner) = node.life.owner() {
            self.ephemerals.entry(owner).or_default().insert(path.clone());
        }
        self.bytes += path.as_str().len() + data_len(&node.data);
        self.nodes.insert(path, node);
    }

    /// Takes a znode out of the map; digest, indexes and parent are left to the caller.
    fn remove(&mut self, path: &Path) -> Option<Znode> {
        let node = self.nodes.remove(path)?;
        self.bytes -= path.as_str().len() + data_len(&node.data);
        if !node.dirty {
            self.dirty.push(path.clone());
        }
        Some(node)
    }

    fn disown(&mut self, owner: SessionId, path: &Path) {
        if let Some(paths) = self.ephemerals.get_mut(&owner) {
            paths.remove(path);
            if paths.is_empty() {
                self.ephemerals.remove(&owner);
            }
        }
    }

    fn count_delete(&mut self, at: At, path: &Path) -> Option<ParentBefore> {
        self.change_parent(path, |parent| {
            parent.cversion = next(parent.cversion);
            parent.pzxid = at.zxid;
            parent.children.remove(path);
        })
    }

    /// Changes the parent of `path` and returns what its counters were.
    fn change_parent(&mut self, path: &Path, change: impl FnOnce(&mut Znode)) -> Option<ParentBefore> {
        let parent_str = path.parent_str()?;
        let parent = self.nodes.get_mut(parent_str)?;
        let mut before =
            ParentBefore { pzxid: parent.pzxid, cversion: parent.cversion, counted: parent.creates };
        change(parent);
        before.counted = parent.creates.saturating_sub(before.counted);
        let old = parent.hash;
        parent.hash = digest::znode(parent_str, parent);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(parent.hash);
        if !parent.dirty {
            parent.dirty = true;
            // A path always has a parent path.
            self.dirty.extend(path.parent());
        }
        Some(before)
    }

    /// All znodes, parents before children, children in order.
    fn walk(&self) -> impl Iterator<Item = (&Path, &Znode)> + '_ {
        let mut next = self.nodes.get_key_value("/");
        // One iterator over the remaining siblings for each level above.
        let mut above: Vec<std::collections::btree_set::Iter<'_, Path>> = Vec::new();
        std::iter::from_fn(move || {
            let this = next.take()?;
            above.push(this.1.children.iter());
            while let Some(siblings) = above.last_mut() {
                match siblings.next() {
                    Some(path) => {
                        next = self.nodes.get_key_value(path);
                        break;
                    }
                    None => {
                        above.pop();
                    }
                }
            }
            Some(this)
        })
    }
}

/// The value of a counter behind this one. Behind the greatest it begins anew, so that it is never negative: clients name
/// versions, and a negative one means any.
fn next(counter: i32) -> i32 {
    counter.checked_add(1).unwrap_or(0)
}

/// The bytes of a value; none if there is none.
fn value(data: &Option<Bytes>) -> &[u8] {
    data.as_deref().unwrap_or_default()
}

/// A copy, because the value may be a piece of a much larger buffer.
fn own(data: &Option<Bytes>) -> Option<Bytes> {
    data.as_deref().map(Bytes::copy_from_slice)
}

/// Most names that one sequential create skips.
const SKIPPED_MAX: u64 = 10_000;

/// How to take one part of a multi back.
enum Undo {
    Create { path: Path, parent: ParentBefore },
    Set { path: Path, data: Option<Bytes>, mzxid: Zxid, mtime_ms: i64, version: i32 },
    Delete { path: Path, node: Box<Znode>, acl: Acl, parent: ParentBefore },
}

#[derive(Clone, Copy)]
struct ParentBefore {
    pzxid: Zxid,
    cversion: i32,
    /// By how much the number for sequential znodes has gone on.
    counted: u64,
}

impl Znode {
    pub(crate) fn new(data: Option<Bytes>, at: At, life: Life, acl: AclId) -> Znode {
        Znode {
            data_hash: digest::data(value(&data)),
            data,
            czxid: at.zxid,
            mzxid: at.zxid,
            pzxid: at.zxid,
            ctime_ms: at.time_ms,
            mtime_ms: at.time_ms,
            version: 0,
            cversion: 0,
            aversion: 0,
            creates: 0,
            life,
            acl,
            children: BTreeSet::new(),
            hash: 0,
            dirty: false,
        }
    }

    fn num_children(&self) -> u32 {
        self.children.len() as u32
    }

    fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.pzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.cversion,
            aversion: self.aversion,
            kind: self.life.kind(),
            ephemeral_owner: self.life.owner(),
            data_length: data_len(&self.data) as u32,
            num_children: self.num_children(),
        }
    }

    /// Costs what the page costs, however many children there are.
    fn page(&self, path: &Path, page: &Page) -> ReadOutcome {
        let separator = if path.is_root() { "" } else { "/" };
        let after = format!("{path}{separator}{}", page.after);
        let from = if page.after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after.as_str()) };
        let mut rest = self.children.range::<str, _>((from, Bound::Unbounded)).peekable();
        let (mut names, mut bytes) = (Vec::new(), 0);
        while names.len() < page.names_max()
            && let Some(child) = rest.next_if(|child| bytes + child.name().len() <= Page::BYTES_MAX)
        {
            bytes += child.name().len();
            names.push(child.name().to_owned());
        }
        let next = match (rest.peek(), names.last()) {
            (Some(_), Some(last)) => last.clone(),
            _ => String::new(),
        };
        ReadOutcome::Children { names, next, stat: self.stat() }
    }

    fn record(&self, path: Path) -> record::Znode {
        record::Znode {
            path,
            data: self.data.clone(),
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.pzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.cversion,
            aversion: self.aversion,
            kind: self.life.kind(),
            ephemeral_owner: self.life.owner(),
            acl: self.acl,
            creates: self.creates,
        }
    }

    fn check_version(&self, path: &Path, expected: Option<i32>) -> Result<(), OpError> {
        match expected {
            Some(expected) if expected != self.version => {
                Err(OpError::BadVersion { path: path.clone(), expected, actual: self.version })
            }
            _ => Ok(()),
        }
    }

    fn restore(&mut self, before: ParentBefore) {
        self.pzxid = before.pzxid;
        self.cversion = before.cversion;
        // Not back to what it was: names that were skipped meanwhile stay skipped.
        self.creates -= before.counted;
    }

    fn rehash(&mut self, path: &Path, digest: &mut u64) {
        let old = self.hash;
        self.hash = digest::znode(path.as_str(), self);
        *digest = digest.wrapping_sub(old).wrapping_add(self.hash);
    }

    fn mark(&mut self, path: &Path, dirty: &mut Vec<Path>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(path.clone());
        }
    }
}
