//! Walks: subtrees as of one moment, in parts and in order while the tree changes.
//!
//! A walk visits its subtree in order. Before a znode that it has not visited changes or is removed,
//! the walk saves its old version. New znodes are not part of the walk. The saved versions are bounded:
//! if a reader is too slow for the writes in its subtree, the walk ends, and the client has to start
//! again.

use std::collections::BTreeMap;

use api::{
    Acl, Identities, OpError, Path, Permissions, Zxid,
    walk::{Walk, WalkEnd, WalkId, WalkPart},
    watch::WatchedZnode,
};

use super::{Tree, slab::NodeId, znode::Slot};

/// Maximum size of the saved versions of a walk, in bytes.
const ASIDE_MAX: usize = 8 << 20;

/// The running walks.
#[derive(Debug)]
pub(super) struct Walks {
    running: BTreeMap<WalkId, Walking>,
    /// Maximum size of the saved versions of all walks, in bytes.
    bytes_max: usize,
}

impl Default for Walks {
    fn default() -> Walks {
        Walks { running: BTreeMap::new(), bytes_max: usize::MAX }
    }
}

#[derive(Debug)]
struct Walking {
    walk: Walk,
    /// Zxid of the state.
    zxid: Zxid,
    identities: Identities,
    /// The walk has reached this path.
    at: Option<Path>,
    aside: BTreeMap<Place, Found>,
    /// Total size of the saved versions, in bytes.
    bytes: usize,
    /// The saved versions exceed the limit.
    lost: bool,
    /// The caller must not read this znode.
    hidden: Option<Path>,
    end: WalkEnd,
}

/// The old version of a znode.
#[derive(Debug)]
struct Found {
    znode: WatchedZnode,
    acl: Acl,
}

/// A path that sorts in the order of a walk: the slash sorts before all other characters, which are
/// greater than 0.
type Place = Vec<u8>;

fn place(path: &Path) -> Place {
    if path.is_root() {
        return Place::new();
    }
    path.as_str().bytes().map(|byte| if byte == b'/' { 0 } else { byte }).collect()
}

impl Walks {
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

impl Tree {
    /// Begins a walk through a subtree as of now, after the entry `zxid`.
    ///
    /// # Errors
    /// [`OpError::NoNode`], [`OpError::NoAuth`].
    pub(crate) fn begin_walk(
        &mut self,
        id: WalkId,
        zxid: Zxid,
        walk: Walk,
        identities: &Identities,
    ) -> Result<(), OpError> {
        let root = self.node(&walk.path).ok_or_else(|| OpError::NoNode(walk.path.clone()))?;
        self.permit(root, &walk.path, Permissions::READ, identities)?;
        let walking = Walking {
            walk,
            zxid,
            identities: identities.clone(),
            at: None,
            aside: BTreeMap::new(),
            bytes: 0,
            lost: false,
            hidden: None,
            end: WalkEnd::default(),
        };
        self.walks.running.insert(id, walking);
        Ok(())
    }

    /// Bounds what all walks together save, in bytes.
    pub(crate) fn limit_walks(&mut self, bytes: usize) {
        self.walks.bytes_max = bytes;
    }

    /// Ends this walk.
    pub(crate) fn end_walk(&mut self, id: WalkId) {
        self.walks.running.remove(&id);
    }

    /// The next znodes of a walk; `None` if the caller has no walk of this name. Visits at most `most`
    /// znodes, and stops when it has found `bytes`.
    ///
    /// # Errors
    /// [`OpError::Gone`] if the saved versions exceed the limit; the walk has then ended.
    pub(crate) fn walk_on(
        &mut self,
        id: WalkId,
        caller: &Identities,
        (most, bytes): (usize, usize),
    ) -> Option<Result<WalkPart, OpError>> {
        if self.walks.running.get(&id)?.identities != *caller {
            return None;
        }
        let mut walking = self.walks.running.remove(&id)?;
        let zxid = walking.zxid;
        if walking.lost {
            return Some(Err(OpError::Gone { oldest: zxid }));
        }
        let (mut znodes, mut looked_at, mut size) = (Vec::new(), 0, 0);
        let mut live = self.live(&walking).peekable();
        let over = loop {
            if looked_at >= most || size >= bytes {
                break false;
            }
            looked_at += 1;
            let next = live.peek().map(|(_, path, _)| place(path));
            let aside = walking.aside.first_key_value().map(|(place, _)| place);
            let (path, found) = match (aside, &next) {
                (None, None) => break true,
                (Some(aside), next) if next.as_ref().is_none_or(|next| aside <= next) => {
                    if next.as_ref() == Some(aside) {
                        live.next();
                    }
                    let Some((_, found)) = walking.aside.pop_first() else { break true };
                    walking.bytes -= found.weight();
                    (found.znode.path.clone(), Some(found))
                }
                _ => {
                    let Some((_, path, slot)) = live.next() else { break true };
                    let there = slot.czxid <= zxid && walking.includes(&path);
                    let found = there.then(|| walking.found(slot, &path, self.acls.get(slot.acl)));
                    (path, found)
                }
            };
            walking.at = Some(path);
            if let Some(znode) = found.and_then(|found| walking.shown(found)) {
                size += znode.weight();
                znodes.push(znode);
            }
        };
        drop(live);
        let end = over.then_some(walking.end);
        if !over {
            self.walks.running.insert(id, walking);
        }
        Some(Ok(WalkPart { id, zxid, znodes, end }))
    }

    /// The current znodes of a subtree, from the position of the walk on.
    fn live<'a>(&'a self, walking: &Walking) -> impl Iterator<Item = (NodeId, Path, &'a Slot)> + use<'a> {
        let top = walking.walk.path.clone();
        let first = match walking.at {
            None => self.find(top.as_str()).map(|id| (id, top.clone(), &self.nodes[id])),
            Some(_) => None,
        };
        let behind = self.walk_after(Some(walking.at.as_ref().unwrap_or(&top)));
        let within = move |(_, path, _): &(NodeId, Path, &Slot)| path.is_within(&top);
        first.into_iter().chain(behind.take_while(within))
    }

    /// Must be called before a znode changes or is removed, while walks are running.
    pub(super) fn set_aside(&mut self, id: NodeId, path: &str) {
        let path = super::path_of(path);
        let Tree { nodes, acls, walks, .. } = self;
        let slot = &nodes[id];
        let saved: usize = walks.running.values().map(|walking| walking.bytes).sum();
        let mut left = walks.bytes_max.saturating_sub(saved);
        for walking in walks.running.values_mut() {
            let before = walking.bytes;
            walking.set_aside(slot, &path, left, || acls.get(slot.acl));
            left = (left + before).saturating_sub(walking.bytes);
        }
    }
}

impl Walking {
    fn includes(&self, path: &Path) -> bool {
        let depth = |path: &Path| if path.is_root() { 0 } else { path.as_str().matches('/').count() };
        let Walk { path: top, max_depth, .. } = &self.walk;
        path.is_within(top) && (*max_depth == 0 || depth(path) - depth(top) <= *max_depth as usize)
    }

    fn found(&self, slot: &Slot, path: &Path, acl: Acl) -> Found {
        let data = if self.walk.with_data { slot.data() } else { None };
        Found { znode: WatchedZnode { path: path.clone(), stat: slot.stat(), data }, acl }
    }

    /// Saves the old version of a znode; with more than `left` bytes, or too many in all, the walk is lost.
    fn set_aside(&mut self, slot: &Slot, path: &Path, left: usize, acl: impl FnOnce() -> Acl) {
        if self.lost || slot.czxid > self.zxid || !self.includes(path) {
            return;
        }
        let place = place(path);
        let told = self.at.as_ref().is_some_and(|at| place <= self::place(at));
        if told || self.aside.contains_key(&place) {
            return;
        }
        let found = self.found(slot, path, acl());
        let weight = found.weight();
        self.bytes += weight;
        self.aside.insert(place, found);
        if self.bytes > ASIDE_MAX || weight > left {
            (self.aside, self.bytes, self.lost) = (BTreeMap::new(), 0, true);
        }
    }

    /// `None` for a znode that the caller must not read, and for its descendants.
    fn shown(&mut self, Found { znode, acl }: Found) -> Option<WatchedZnode> {
        if self.hidden.as_ref().is_some_and(|hidden| znode.path.is_within(hidden)) {
            return None;
        }
        if !acl.gives(Permissions::READ, &self.identities) {
            self.end.hidden += 1;
            self.hidden = Some(znode.path);
            return None;
        }
        self.end.znodes += 1;
        Some(znode)
    }
}

impl Found {
    fn weight(&self) -> usize {
        self.znode.weight() + self.acl.weight()
    }
}

#[cfg(test)]
mod tests {
    use api::{AclEntry, Create, DeleteTree, Identity, MultiOp, NodeKind, Scheme, SessionId, Write};
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{At, By};

    const ID: WalkId = WalkId(7);

    fn path(text: &str) -> Path {
        Path::new(text).unwrap()
    }

    /// A list that grants READ to `ada` only.
    fn private() -> Acl {
        let identity = Identity::new(Scheme::User, "ada").unwrap();
        let others = Permissions::from_bits(31 - 1).unwrap();
        let entry = |identity, permissions| AclEntry { identity, permissions };
        Acl::new(vec![entry(identity, Permissions::ALL), entry(Identity::anyone(), others)]).unwrap()
    }

    fn some_path() -> impl Strategy<Value = Path> {
        let names = || prop::sample::select(vec!["a", "b", "a-b", "c"]);
        prop::collection::vec(names(), 1..4).prop_map(|names| path(&format!("/{}", names.join("/"))))
    }

    fn part() -> impl Strategy<Value = MultiOp> {
        let create = (some_path(), 0..8u8).prop_map(|(path, kind)| {
            let acl = if kind == 0 { private() } else { Acl::default() };
            let kind = if kind == 1 { NodeKind::Ephemeral } else { NodeKind::Persistent };
            MultiOp::Create(Create { acl, kind, ..Create::new(path, "new") })
        });
        let set = (some_path(), any::<u8>()).prop_map(|(path, n)| MultiOp::Set {
            path,
            data: Some(Bytes::from(vec![n])),
            version: None,
        });
        let lock = (some_path(), any::<bool>()).prop_map(|(path, locked)| {
            let acl = if locked { private() } else { Acl::default() };
            MultiOp::SetAcl { path, acl, aversion: None }
        });
        prop_oneof![
            6 => create,
            3 => set,
            3 => some_path().prop_map(|path| MultiOp::Delete { path, version: None }),
            1 => lock,
        ]
    }

    fn write() -> impl Strategy<Value = Write> {
        let one = part().prop_map(|part| Write::Multi(vec![part]));
        let tree = (some_path(), any::<bool>()).prop_map(|(path, keep_root)| {
            Write::DeleteTree(DeleteTree { path, version: None, keep_root, max_znodes: 0 })
        });
        prop_oneof![6 => one, 2 => prop::collection::vec(part(), 2..5).prop_map(Write::Multi), 1 => tree]
    }

    /// The expected result of a walk, from a visit of all znodes.
    fn expected(tree: &Tree, walk: &Walk, caller: &Identities) -> (Vec<WatchedZnode>, u64) {
        let depth = |path: &Path| if path.is_root() { 0 } else { path.as_str().matches('/').count() };
        let (mut found, mut hidden) = (Vec::new(), Vec::<Path>::new());
        for (_, path, slot) in tree.walk() {
            let deep = walk.max_depth > 0 && depth(&path) > depth(&walk.path) + walk.max_depth as usize;
            if !path.is_within(&walk.path) || deep || hidden.iter().any(|top| path.is_within(top)) {
                continue;
            }
            if !tree.acls.get(slot.acl).gives(Permissions::READ, caller) {
                hidden.push(path);
                continue;
            }
            let data = if walk.with_data { slot.data() } else { None };
            found.push(WatchedZnode { path, stat: slot.stat(), data });
        }
        (found, hidden.len() as u64)
    }

    proptest! {
        /// With any writes in between and any cut into parts, the walk returns the state of its start.
        #[test]
        fn a_walk_tells_one_state_in_order_while_the_tree_goes_on(
            writes in prop::collection::vec(write(), 10..80), begin in 0..40usize, every in 1..6usize, most in 1..6usize,
            top in prop::option::of(some_path()), max_depth in 0..3u32, with_data in any::<bool>(), ada in any::<bool>(),
        ) {
            let mut tree = Tree::default();
            let caller = Identities::new(ada.then(|| Identity::new(Scheme::User, "ada").unwrap())).unwrap();
            let walk = Walk { path: top.unwrap_or_else(Path::root), max_depth, with_data };
            let (mut want, mut told, mut end) = (None, Vec::new(), None);
            let go_on = |tree: &mut Tree, told: &mut Vec<WatchedZnode>| {
                let part = tree.walk_on(ID, &caller, (most, 1 << 20)).unwrap().unwrap();
                assert!(part.znodes.len() <= most);
                told.extend(part.znodes);
                part.end
            };
            for (n, write) in (1..).zip(&writes) {
                if n > begin && want.is_none() {
                    let all = expected(&tree, &walk, &caller);
                    match tree.begin_walk(ID, Zxid(n as u64 - 1), walk.clone(), &caller) {
                        Ok(()) => want = Some(all),
                        Err(error) => {
                            prop_assert!(all.0.is_empty(), "{error}");
                            break;
                        }
                    }
                }
                if want.is_some() && end.is_none() && n % every == 0 {
                    end = go_on(&mut tree, &mut told);
                }
                let at = At { zxid: Zxid(n as u64), time_ms: n as i64 };
                let _ = tree.write(at, By::anonymous(Some(SessionId(1))), write);
                if n % 17 == 0 {
                    tree.remove_ephemerals(At { zxid: Zxid(n as u64), time_ms: 0 }, SessionId(1));
                }
            }
            let Some((znodes, hidden)) = want else { return Ok(()) };
            while end.is_none() {
                end = go_on(&mut tree, &mut told);
            }
            prop_assert_eq!(end, Some(WalkEnd { znodes: znodes.len() as u64, hidden }));
            prop_assert_eq!(told, znodes);
            prop_assert!(tree.walks.is_empty());
        }
    }

    #[test]
    fn a_walk_belongs_to_its_caller_and_one_that_sets_aside_too_much_is_over() {
        let mut tree = Tree::default();
        let mut zxid = 0;
        let mut write = |tree: &mut Tree, write: Write| {
            zxid += 1;
            tree.write(At { zxid: Zxid(zxid), time_ms: 0 }, By::anonymous(None), &write).unwrap();
        };
        let value = Bytes::from(vec![1; 1 << 20]);
        for n in 0..10 {
            write(&mut tree, Write::Create(Create::new(path(&format!("/{n}")), value.clone())));
        }
        let walk = Walk { path: Path::root(), max_depth: 0, with_data: true };
        tree.begin_walk(ID, Zxid(10), walk, &Identities::NONE).unwrap();
        let ada = Identities::new([Identity::new(Scheme::User, "ada").unwrap()]).unwrap();
        assert!(tree.walk_on(ID, &ada, (1, 1)).is_none());
        assert!(tree.walk_on(WalkId(8), &Identities::NONE, (1, 1)).is_none());
        assert_eq!(tree.walk_on(ID, &Identities::NONE, (1, 1)).unwrap().unwrap().znodes.len(), 1);
        for n in 0..7 {
            write(&mut tree, Write::Set { path: path(&format!("/{n}")), data: None, version: None });
        }
        assert_eq!(tree.walk_on(ID, &Identities::NONE, (1, 1)).unwrap().unwrap().znodes.len(), 1);
        for n in 7..10 {
            write(&mut tree, Write::Set { path: path(&format!("/{n}")), data: None, version: None });
        }
        let over = tree.walk_on(ID, &Identities::NONE, (1, 1)).unwrap();
        assert_eq!(over, Err(OpError::Gone { oldest: Zxid(10) }));
        assert!(tree.walk_on(ID, &Identities::NONE, (1, 1)).is_none());
    }
}
