//! A tree from its records, which may come in any order. Each is put in its place at once, below parents that may still be missing.

use api::{Path, record};

use super::{
    Tree,
    dirty::Dirty,
    index::Index,
    slab::{NodeId, ROOT, Slab},
    znode::{Life, Slot},
};
use crate::{acls::Acls, state::LoadError};

impl Tree {
    /// A tree that breaks the rule about the root, to be filled by [`Tree::load`] and finished by
    /// [`Tree::finish_load`].
    pub(crate) fn without_root() -> Tree {
        let mut tree = Tree {
            nodes: Slab::default(),
            index: Index::default(),
            ephemerals: Default::default(),
            acls: Acls::default(),
            digest: 0,
            bytes: 0,
            dirty: Dirty::default(),
            skipped: 0,
            missing: 1,
        };
        let root = tree.nodes.insert(Slot::missing("", ROOT));
        tree.index.insert(tree.index.hash("/"), root);
        tree
    }

    /// Takes in one record of a complete state.
    ///
    /// # Errors
    /// If there is a znode of this name already, its parent is an ephemeral, or its kind and its owner do not fit together.
    pub(crate) fn load(&mut self, z: record::Znode) -> Result<(), LoadError> {
        let life = Life::new(z.kind, z.ephemeral_owner).filter(|life| life.owner() == z.ephemeral_owner);
        let Some(life) = life else { return Err(LoadError::Owner(z.path)) };
        let id = match self.find(z.path.as_str()) {
            Some(id) if !self.nodes[id].missing => {
                return Err(LoadError::Twice(format!("znode {}", z.path)));
            }
            Some(id) => id,
            None => self.make_missing(&z.path),
        };
        let node = &mut self.nodes[id];
        node.load(&z, life);
        self.missing -= 1;
        if let Some(owner) = life.owner() {
            if let Some(child) = node.dir().and_then(|dir| dir.children.iter().next()) {
                return Err(LoadError::NoParent(self.path(child)));
            }
            self.ephemerals.entry(owner).or_default().insert(id);
        }
        let parent = &self.nodes[self.nodes[id].parent];
        if !parent.missing && parent.owner().is_some() {
            return Err(LoadError::NoParent(z.path));
        }
        self.bytes += z.path.as_str().len() + self.nodes[id].data_len();
        self.rehash(id, z.path.as_str());
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

    /// Joins znodes and access lists, after all records are in.
    ///
    /// # Errors
    /// If the parent of a znode is missing, if there is no root, or if znodes and access lists do not fit together.
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

    /// Ends the loading, when the digest of what was loaded is known to be right.
    pub(crate) fn trust(&mut self) {
        self.acls.find_free();
    }

    /// A znode whose parent has no record; the root, if that has none.
    fn without_parent(&self) -> Path {
        let is_missing = |id: NodeId| self.nodes[id].missing;
        let orphan = |(id, node): (NodeId, &Slot)| !node.missing && is_missing(node.parent) && id != ROOT;
        let orphan = self.nodes.iter().find(|&(id, node)| orphan((id, node)));
        match orphan {
            Some((id, _)) if !is_missing(ROOT) => self.path(id),
            _ => Path::root(),
        }
    }

    /// The znode of a path that is not here, without a record, below parents that may have none either.
    fn make_missing(&mut self, path: &Path) -> NodeId {
        let text = path.as_str();
        // The paths that are not here, by their lengths, and the one above them all that is.
        let (mut parent, mut absent) = (ROOT, vec![text.len()]);
        let slashes = text.bytes().enumerate().rev().filter(|&(at, byte)| byte == b'/' && at > 0);
        for (at, _) in slashes {
            if let Some(id) = self.find(&text[..at]) {
                parent = id;
                break;
            }
            absent.push(at);
        }
        for len in absent.into_iter().rev() {
            let path = &text[..len];
            let name = path.rsplit('/').next().unwrap_or_default();
            parent = self.insert(path, Slot::missing(name, parent));
            self.missing += 1;
        }
        parent
    }
}
