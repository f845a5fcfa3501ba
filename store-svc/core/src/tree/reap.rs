//! Znodes that are removed automatically: containers without children, and znodes with an expired TTL.
//!
//! The rules are ZooKeeper's (`ContainerManager`). Every change updates the set, so no search is
//! needed; only znodes of these kinds have a cost.

use std::collections::BTreeSet;

use api::mutants::{Mutant, is_on};
use api::{OpError, Path, Zxid};

use super::{
    At, Tree,
    slab::{NodeId, ROOT},
    znode::Slot,
};

/// The event that a znode without children waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fate {
    /// None: a container that had children.
    Emptied,
    /// A first child: a container that never had one. With its creation time.
    Unused,
    /// The end of its TTL, with that time.
    Aging,
}

/// The candidates: znodes without children that are removed automatically.
#[derive(Default, Debug)]
pub(super) struct Reapable(BTreeSet<(Fate, i64, NodeId)>);

impl Reapable {
    /// Adds a znode that was inserted or has changed.
    pub(super) fn note(&mut self, id: NodeId, slot: &Slot) {
        if let Some((fate, time)) = slot.fate() {
            self.0.insert((fate, time, id));
        }
    }

    /// Removes a znode before it changes or is removed.
    pub(super) fn forget(&mut self, id: NodeId, slot: &Slot) {
        if let Some((fate, time)) = slot.fate() {
            self.0.remove(&(fate, time, id));
        }
    }

    /// Candidates of one kind with a time before this one, the oldest first.
    fn before(&self, fate: Fate, time_ms: i64) -> impl Iterator<Item = NodeId> + '_ {
        self.0.range((fate, i64::MIN, ROOT)..(fate, time_ms, ROOT)).map(|&(_, _, id)| id)
    }
}

impl Tree {
    /// Whether there are any candidates, now or later.
    pub(crate) fn may_reap(&self) -> bool {
        !self.reapable.0.is_empty()
    }

    /// Znodes that have expired by this time of the log: at most `max` empty containers, and as many
    /// that are too old. A container that never had a child is too old `unused_ms` after its creation;
    /// with 0 it never is.
    pub(crate) fn overdue(&self, time_ms: i64, unused_ms: u64, max: usize) -> Vec<(Path, Zxid)> {
        let emptied = self.reapable.before(Fate::Emptied, i64::MAX);
        let unused_before = match unused_ms {
            0 => i64::MIN,
            unused_ms => time_ms.saturating_sub_unsigned(unused_ms),
        };
        let unused = self.reapable.before(Fate::Unused, unused_before);
        let aged = self.reapable.before(Fate::Aging, time_ms);
        let ids = emptied.take(max).chain(unused.chain(aged).take(max));
        ids.map(|id| (self.path(id), self.nodes[id].czxid)).collect()
    }

    /// Removes an expired znode.
    ///
    /// # Errors
    /// It is gone, or is another znode, or is not expired (any more). Nothing is changed then.
    pub(crate) fn reap(&mut self, at: At, path: &Path, czxid: Zxid, unused_ms: u64) -> Result<(), OpError> {
        let gone = || OpError::NoNode(path.clone());
        let id = self.find(path.as_str()).filter(|&id| self.nodes[id].czxid == czxid).ok_or_else(gone)?;
        let node = &self.nodes[id];
        if node.num_children() > 0 {
            return Err(OpError::NotEmpty { path: path.clone(), children: node.num_children() });
        }
        let over = match node.fate() {
            Some((Fate::Emptied, _)) => true,
            Some((Fate::Unused, since)) => {
                unused_ms > 0 && since.saturating_add_unsigned(unused_ms) < at.time_ms
            }
            Some((Fate::Aging, until)) => until < at.time_ms || is_on(Mutant::ReapedYoung),
            None => false,
        };
        if path.is_root() || !over {
            return Err(OpError::BadArguments(format!("the znode {path} stays: its time is not over")));
        }
        self.delete_leaf(at, id, path, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use api::{Create, MultiOp, NodeKind, SessionId, Write};
    use proptest::prelude::*;

    use super::*;
    use crate::{By, tree::Loading};

    const AT: At = At { zxid: Zxid(1), time_ms: 0 };

    fn path(text: &str) -> Path {
        Path::new(text).unwrap()
    }

    fn create(text: &str, kind: NodeKind) -> Create {
        Create { kind, ..Create::new(path(text), "") }
    }

    fn write(tree: &mut Tree, zxid: u64, time_ms: i64, write: Write) -> Result<(), OpError> {
        tree.write(At { zxid: Zxid(zxid), time_ms }, By::anonymous(Some(SessionId(1))), &write).map(drop)
    }

    fn delete(text: &str) -> Write {
        Write::Delete { path: path(text), version: None }
    }

    /// Whether the set equals the result of a search through all znodes.
    fn is_exact(tree: &Tree) -> bool {
        let found = tree.nodes.iter().filter_map(|(id, slot)| slot.fate().map(|(fate, at)| (fate, at, id)));
        found.collect::<BTreeSet<_>>() == tree.reapable.0
    }

    fn overdue(tree: &Tree, time_ms: i64, unused_ms: u64) -> Vec<String> {
        tree.overdue(time_ms, unused_ms, 100).into_iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn a_container_goes_once_it_has_had_children_and_has_none() {
        let mut tree = Tree::default();
        write(&mut tree, 1, 10, Write::Create(create("/c", NodeKind::Container))).unwrap();
        assert!(overdue(&tree, i64::MAX, 0).is_empty(), "it never had a child");
        write(&mut tree, 2, 20, Write::Create(create("/c/a", NodeKind::Ephemeral))).unwrap();
        write(&mut tree, 3, 30, Write::Create(create("/c/b", NodeKind::Container))).unwrap();
        write(&mut tree, 4, 40, delete("/c/b")).unwrap();
        assert!(overdue(&tree, i64::MAX, 0).is_empty(), "it has a child");
        let early = tree.reap(AT, &path("/c"), Zxid(1), 0).unwrap_err();
        assert_eq!(early, OpError::NotEmpty { path: path("/c"), children: 1 });
        tree.remove_ephemerals(At { zxid: Zxid(5), time_ms: 50 }, SessionId(1));
        assert_eq!(overdue(&tree, 50, 0), ["/c"]);
        // A child that is created before the entry keeps the container. The entry does not apply to a
        // later creation of the path.
        write(&mut tree, 6, 60, Write::Create(create("/c/d", NodeKind::Persistent))).unwrap();
        assert!(matches!(tree.reap(AT, &path("/c"), Zxid(1), 0), Err(OpError::NotEmpty { .. })));
        write(&mut tree, 7, 70, delete("/c/d")).unwrap();
        assert_eq!(tree.reap(AT, &path("/c"), Zxid(2), 0), Err(OpError::NoNode(path("/c"))));
        let at = At { zxid: Zxid(8), time_ms: 80 };
        assert_eq!(tree.reap(at, &path("/c"), Zxid(1), 0), Ok(()));
        assert_eq!((tree.len(), tree.node(&Path::root()).unwrap().stat().pzxid), (1, Zxid(8)));
        assert!(!tree.may_reap());
    }

    #[test]
    fn a_container_without_use_goes_only_where_that_is_configured() {
        let mut tree = Tree::default();
        write(&mut tree, 1, 10, Write::Create(create("/c", NodeKind::Container))).unwrap();
        assert!(overdue(&tree, 15, 5).is_empty() && overdue(&tree, i64::MAX, 0).is_empty());
        assert_eq!(overdue(&tree, 16, 5), ["/c"]);
        let at = |time_ms| At { zxid: Zxid(2), time_ms };
        assert!(tree.reap(at(100), &path("/c"), Zxid(1), 0).is_err(), "with 0 it stays");
        assert!(tree.reap(at(15), &path("/c"), Zxid(1), 5).is_err());
        assert_eq!(tree.reap(at(16), &path("/c"), Zxid(1), 5), Ok(()));
    }

    #[test]
    fn a_znode_with_a_ttl_goes_when_it_has_no_child_and_is_older() {
        let mut tree = Tree::default();
        write(&mut tree, 1, 10, Write::Create(create("/t", NodeKind::Ttl { ms: 100 }))).unwrap();
        assert!(overdue(&tree, 110, 0).is_empty());
        assert_eq!(overdue(&tree, 111, 0), ["/t"]);
        // A new value restarts the TTL, even between the search and the entry.
        write(&mut tree, 2, 111, Write::Set { path: path("/t"), data: None, version: None }).unwrap();
        assert!(tree.reap(At { zxid: Zxid(3), time_ms: 112 }, &path("/t"), Zxid(1), 0).is_err());
        assert!(overdue(&tree, 211, 0).is_empty());
        // Children keep the znode, and do not change its time.
        write(&mut tree, 4, 200, Write::Create(create("/t/c", NodeKind::Persistent))).unwrap();
        assert!(overdue(&tree, i64::MAX, 0).is_empty());
        write(&mut tree, 5, 300, delete("/t/c")).unwrap();
        assert_eq!(overdue(&tree, 300, 0), ["/t"]);
        assert_eq!(tree.reap(At { zxid: Zxid(6), time_ms: 300 }, &path("/t"), Zxid(1), 0), Ok(()));
    }

    #[test]
    fn a_round_is_bounded_and_what_is_empty_does_not_crowd_out_what_is_old() {
        let mut tree = Tree::default();
        for n in 0..10 {
            let (c, t) = (format!("/c{n}"), format!("/t{n}"));
            write(&mut tree, 3 * n + 1, 0, Write::Create(create(&c, NodeKind::Container))).unwrap();
            let child = format!("{c}/x");
            write(&mut tree, 3 * n + 2, 0, Write::Create(create(&child, NodeKind::Persistent))).unwrap();
            write(&mut tree, 3 * n + 3, 0, delete(&child)).unwrap();
            write(&mut tree, 100 + n, 0, Write::Create(create(&t, NodeKind::Ttl { ms: 50 - n }))).unwrap();
        }
        let found: Vec<Path> = tree.overdue(60, 0, 2).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["/c0", "/c1", "/t9", "/t8"].map(path), "the oldest first");
    }

    #[test]
    fn nothing_else_is_ever_reaped() {
        let mut tree = Tree::default();
        write(&mut tree, 1, 0, Write::Create(create("/p", NodeKind::Persistent))).unwrap();
        write(&mut tree, 2, 0, Write::Create(create("/e", NodeKind::Ephemeral))).unwrap();
        assert!(!tree.may_reap());
        let at = At { zxid: Zxid(3), time_ms: i64::MAX };
        for (text, czxid) in [("/", 0), ("/p", 1), ("/e", 2)] {
            assert!(tree.reap(at, &path(text), Zxid(czxid), 1).is_err(), "{text}");
        }
    }

    fn a_write() -> impl Strategy<Value = (u8, u8, u8)> {
        (0..8u8, 0..6u8, 0..4u8)
    }

    fn made(action: u8, place: u8, kind: u8) -> MultiOp {
        let path = path(["/a", "/b", "/a/a", "/a/b", "/a/a/a", "/b/a"][usize::from(place)]);
        let kinds = [NodeKind::Persistent, NodeKind::Container, NodeKind::Ttl { ms: 3 }, NodeKind::Ephemeral];
        match action {
            0..4 => MultiOp::Create(Create { kind: kinds[usize::from(kind)], ..Create::new(path, "") }),
            4 | 5 => MultiOp::Set { path, data: None, version: None },
            _ => MultiOp::Delete { path, version: None },
        }
    }

    proptest! {
        #[test]
        fn the_set_is_exact_whatever_is_done_and_taken_back(
            steps in prop::collection::vec((prop::collection::vec(a_write(), 1..4), 0..4u8), 0..60),
        ) {
            let mut tree = Tree::default();
            for (n, (parts, other)) in (1..).zip(steps) {
                let parts: Vec<MultiOp> =
                    parts.iter().map(|&(action, place, kind)| made(action, place, kind)).collect();
                let at = At { zxid: Zxid(n), time_ms: n as i64 };
                match other {
                    0 => drop(tree.remove_ephemerals(at, SessionId(1))),
                    1 => {
                        for (path, czxid) in tree.overdue(at.time_ms, 5, 2) {
                            prop_assert_eq!(tree.reap(at, &path, czxid, 5), Ok(()));
                        }
                    }
                    _ => drop(tree.write(at, By::anonymous(Some(SessionId(1))), &Write::Multi(parts))),
                }
                prop_assert!(is_exact(&tree));
            }
            let (mut loaded, mut loading) = (Tree::without_root(1), Loading::default());
            for znode in tree.records().collect::<Vec<_>>().into_iter().rev() {
                loaded.load(&mut loading, znode).unwrap();
            }
            prop_assert!(is_exact(&loaded));
            let sorted = |tree: &Tree| overdue(tree, 1_000, 1).into_iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(sorted(&loaded), sorted(&tree));
        }
    }
}
