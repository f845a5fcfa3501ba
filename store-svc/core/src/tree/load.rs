//! Loads a tree from its records, in any order. Each record is placed at once, below parents that may
//! still be missing.

use api::{Path, record};

use super::{
    Tree,
    dirty::Dirty,
    index::Index,
    reap::Reapable,
    slab::{NodeId, ROOT, Slab},
    znode::{Life, Slot},
};
use crate::{acls::Acls, state::LoadError};

/// The state of a load between records.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// The parent of the last znode: most siblings arrive together.
    parent: Option<(String, NodeId)>,
}

/// Maximum number of znodes for which the index is allocated in advance, whatever number the header
/// contains: some 30 MiB. Beyond it, the index grows as usual.
const EXPECTED_MAX: u64 = 1 << 24;

impl Tree {
    /// A tree without a valid root, to be filled by [`Tree::load`] and finished by [`Tree::finish_load`].
    pub(crate) fn without_root(seed: u64) -> Tree {
        let mut tree = Tree {
            nodes: Slab::default(),
            index: Index::new(seed),
            ephemerals: Default::default(),
            acls: Acls::default(),
            quotas: Default::default(),
            reapable: Reapable::default(),
            digest: 0,
            bytes: 0,
            dirty: Dirty::default(),
            export: None,
            walks: Default::default(),
            exported: false,
            changes: Vec::new(),
            skipped: 0,
            missing: 1,
        };
        let root = tree.nodes.insert(Slot::missing("", ROOT));
        tree.index.insert(tree.index.hash("/"), root);
        tree
    }

    /// Announces the number of records from a header.
    pub(crate) fn expect(&mut self, znodes: u64) {
        self.index.expect(znodes.min(EXPECTED_MAX) as usize);
    }

    /// Adds one record of a complete state.
    ///
    /// # Errors
    /// A znode of this name exists already, its parent is an ephemeral, or its kind and its owner do
    /// not fit together.
    pub(crate) fn load(&mut self, loading: &mut Loading, z: record::Znode) -> Result<(), LoadError> {
        let life = Life::new(z.kind, z.ephemeral_owner).filter(|life| life.owner() == z.ephemeral_owner);
        let Some(life) = life else { return Err(LoadError::Owner(z.path)) };
        let hash = self.index.hash(z.path.as_str());
        let id = match self.find_by(hash, z.path.as_str()) {
            Some(id) => {
                let node = &mut self.nodes[id];
                if !node.missing {
                    return Err(LoadError::Twice(format!("znode {}", z.path)));
                }
                let dir = node.dir().is_some().then(|| node.take_dir());
                *node = Slot::of_record(&z, life, node.parent, dir);
                self.reapable.note(id, node);
                self.missing -= 1;
                id
            }
            None => {
                let parent = z.path.parent_str().map_or(ROOT, |parent| self.parent_of(loading, parent));
                self.insert(hash, Slot::of_record(&z, life, parent, None))
            }
        };
        if let Some(owner) = life.owner() {
            if let Some(child) = self.nodes[id].dir().and_then(|dir| dir.children.iter().next()) {
                return Err(LoadError::NoParent(self.path(child)));
            }
            self.own(owner, id, z.path.as_str());
        }
        let parent = &self.nodes[self.nodes[id].parent];
        if !parent.missing && parent.owner().is_some() {
            return Err(LoadError::NoParent(z.path));
        }
        let (above, len) = (self.nodes[id].parent, self.nodes[id].data_len());
        self.bytes += z.path.as_str().len() + len;
        if id != ROOT {
            self.count_below(above, (0, 1), (0, len));
        }
        if !z.quota.is_none() {
            self.note_quota(id, z.path.as_str());
        }
        self.rehash(id, z.path.as_str());
        Ok(())
    }

    /// The same for an access list.
    ///
    /// # Errors
    /// Its id or its content exists already.
    pub(crate) fn load_acl(&mut self, list: record::AccessList) -> Result<(), LoadError> {
        let id = list.id;
        if self.acls.load(list) { Ok(()) } else { Err(LoadError::Twice(format!("access list {}", id.0))) }
    }

    /// Connects znodes and access lists, after all records are added.
    ///
    /// # Errors
    /// The parent of a znode or the root is missing, or znodes and access lists do not fit together.
    pub(crate) fn finish_load(&mut self) -> Result<(), LoadError> {
        if self.missing > 0 {
            return Err(LoadError::NoParent(self.without_parent()));
        }
        for (_, node) in self.nodes.iter() {
            if !self.acls.count(node.acl) {
                return Err(LoadError::Acl(node.acl));
            }
        }
        self.acls.finish_load().map_err(LoadError::Acl)
    }

    /// Ends the load, after the digest is verified.
    pub(crate) fn trust(&mut self) {
        self.acls.find_free();
    }

    /// A znode whose parent has no record; the root, if it has no record.
    fn without_parent(&self) -> Path {
        let orphan = |&(_, node): &(NodeId, &Slot)| !node.missing && self.nodes[node.parent].missing;
        match self.nodes.iter().find(orphan) {
            Some((id, _)) if !self.nodes[ROOT].missing => self.path(id),
            _ => Path::root(),
        }
    }

    fn parent_of(&mut self, loading: &mut Loading, path: &str) -> NodeId {
        match &mut loading.parent {
            Some((known, id)) if known == path => *id,
            _ => {
                let id = self.find_or_miss(path);
                loading.parent = Some((path.to_owned(), id));
                id
            }
        }
    }

    /// The znode of a path. If it is missing, creates one without a record, below parents that may have
    /// none either.
    fn find_or_miss(&mut self, path: &str) -> NodeId {
        // The lengths of the missing paths, and the existing ancestor above them.
        let (mut here, mut absent) = (ROOT, Vec::new());
        let mut len = path.len();
        while len > 0 {
            if let Some(id) = self.find(&path[..len]) {
                here = id;
                break;
            }
            absent.push(len);
            len = path[..len].rfind('/').unwrap_or(0);
        }
        for len in absent.into_iter().rev() {
            let path = &path[..len];
            let name = path.rsplit('/').next().unwrap_or_default();
            here = self.insert(self.index.hash(path), Slot::missing(name, here));
            self.missing += 1;
        }
        here
    }
}
