//! The table of access lists: it stores each list once for all znodes that have it.
//!
//! A new list gets the least free id, so ids are a function of the log, like the rest of the state. A
//! list is removed with the last znode that has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::{Acl, AclId, Identities, Permissions, record};

use crate::{digest, state::RECORD};

#[derive(Default, Debug)]
pub(crate) struct Acls {
    lists: BTreeMap<AclId, Shared>,
    /// Ids by the content of the list.
    ids: HashMap<Acl, AclId>,
    /// Unused ids below the greatest used one.
    free: BTreeSet<AclId>,
    digest: u64,
    /// Total weight of all lists.
    bytes: usize,
    /// Lists added or removed since the last checkpoint.
    dirty: BTreeSet<AclId>,
    /// Every list counts as changed, and `dirty` stays empty.
    untracked: bool,
}

#[derive(Debug)]
struct Shared {
    acl: Acl,
    /// Number of znodes with this list.
    znodes: usize,
}

impl Acls {
    /// Adds a znode with this list.
    pub(crate) fn hold(&mut self, acl: &Acl) -> AclId {
        if acl.is_open() {
            return AclId::OPEN;
        }
        let next = || AclId(self.lists.len() as u32 + 1);
        let id = self.ids.get(acl).or(self.free.first()).copied().unwrap_or_else(next);
        self.hold_as(id, acl);
        id
    }

    /// Adds a znode with this list under the id that the list had before.
    pub(crate) fn hold_as(&mut self, id: AclId, acl: &Acl) {
        if acl.is_open() {
            return;
        }
        match self.lists.get_mut(&id) {
            Some(shared) => shared.znodes += 1,
            None => {
                self.insert(id, acl.clone());
                self.count(id);
            }
        }
    }

    /// Removes a znode with this list.
    pub(crate) fn release(&mut self, id: AclId) {
        let Some(shared) = self.lists.get_mut(&id) else { return };
        shared.znodes -= 1;
        if shared.znodes > 0 {
            return;
        }
        if let Some(Shared { acl, .. }) = self.lists.remove(&id) {
            self.digest = self.digest.wrapping_sub(digest::access_list(id, &acl));
            self.bytes -= acl.weight();
            self.ids.remove(&acl);
            self.free.insert(id);
            self.mark(id);
        }
    }

    /// The list with this id; the open list if there is none.
    pub(crate) fn get(&self, id: AclId) -> Acl {
        self.lists.get(&id).map(|shared| shared.acl.clone()).unwrap_or_default()
    }

    /// Whether the list with this id grants a caller any of these permissions.
    pub(crate) fn gives(&self, id: AclId, any_of: Permissions, caller: &Identities) -> bool {
        self.lists.get(&id).is_none_or(|shared| shared.acl.gives(any_of, caller))
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn recompute_digest(&self) -> u64 {
        self.lists.iter().fold(0, |sum, (&id, s)| sum.wrapping_add(digest::access_list(id, &s.acl)))
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = record::AccessList> + '_ {
        self.lists.iter().map(|(&id, shared)| record::AccessList { id, acl: shared.acl.clone() })
    }

    /// Lists added or removed since the last call, `None` for removed ones.
    pub(crate) fn take_dirty(&mut self) -> Vec<(AclId, Option<record::AccessList>)> {
        if std::mem::take(&mut self.untracked) {
            return self.records().map(|list| (list.id, Some(list))).collect();
        }
        let record =
            |id| self.lists.get(&id).map(|shared| record::AccessList { id, acl: shared.acl.clone() });
        std::mem::take(&mut self.dirty).into_iter().map(|id| (id, record(id))).collect()
    }

    /// Marks all lists as missing from the checkpoint.
    pub(crate) fn forget_checkpoint(&mut self) {
        self.untracked = true;
        self.dirty.clear();
    }

    pub(crate) fn dirty_len(&self) -> usize {
        if self.untracked { self.lists.len() } else { self.dirty.len() }
    }

    pub(crate) fn dirty_bytes(&self) -> usize {
        if self.untracked {
            return self.record_bytes();
        }
        let weight = |id| self.lists.get(id).map_or(0, |shared| shared.acl.weight());
        self.dirty.iter().map(|id| RECORD + weight(id)).sum()
    }

    pub(crate) fn record_bytes(&self) -> usize {
        self.lists.len() * RECORD + self.bytes
    }

    /// Adds one record of a complete state. Returns false if its id or its list exists already, or is
    /// that of the open list.
    pub(crate) fn load(&mut self, record: record::AccessList) -> bool {
        let record::AccessList { id, acl } = record;
        let new = id != AclId::OPEN
            && !acl.is_open()
            && !self.lists.contains_key(&id)
            && !self.ids.contains_key(&acl);
        if new {
            self.insert(id, acl);
        }
        new
    }

    /// Adds a loaded znode with this list. Returns false if the list does not exist.
    pub(crate) fn count(&mut self, id: AclId) -> bool {
        let shared = self.lists.get_mut(&id);
        let known = shared.is_some() || id == AclId::OPEN;
        if let Some(shared) = shared {
            shared.znodes += 1;
        }
        known
    }

    /// Ends the loading, after all znodes are counted.
    ///
    /// # Errors
    /// A list that no znode has.
    pub(crate) fn finish_load(&mut self) -> Result<(), AclId> {
        self.dirty.clear();
        match self.lists.iter().find(|(_, shared)| shared.znodes == 0) {
            Some((&unused, _)) => Err(unused),
            None => Ok(()),
        }
    }

    /// Computes the free ids after a load. Call it only after the digest is verified: a damaged id
    /// could have any value, but a valid state has no more free ids than it once had lists.
    pub(crate) fn find_free(&mut self) {
        let last = self.lists.last_key_value().map_or(0, |(id, _)| id.0);
        self.free = (1..last).map(AclId).filter(|id| !self.lists.contains_key(id)).collect();
    }

    fn insert(&mut self, id: AclId, acl: Acl) {
        self.digest = self.digest.wrapping_add(digest::access_list(id, &acl));
        self.bytes += acl.weight();
        self.ids.insert(acl.clone(), id);
        self.lists.insert(id, Shared { acl, znodes: 0 });
        self.free.remove(&id);
        self.mark(id);
    }

    fn mark(&mut self, id: AclId) {
        if !self.untracked {
            self.dirty.insert(id);
        }
    }
}
