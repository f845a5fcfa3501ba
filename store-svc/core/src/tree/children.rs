//! The children of a znode in the order of their names: a B+ tree of node ids, which looks the names up
//! in their znodes.

use std::{cmp::Ordering, slice};

use super::slab::NodeId;

/// Maximum number of ids in a leaf.
const LEAF: usize = 256;
/// Maximum number of pages in an inner page.
const INNER: usize = 64;
/// Capacity increment of a leaf, beyond an eighth of its content.
const STEP: usize = 4;

/// Ids of children, in order. Calls that search for a name receive a function that compares it with the
/// name of any child.
#[derive(Debug)]
pub(super) struct Children {
    root: Page,
    len: u32,
}

#[derive(Debug)]
enum Page {
    Leaf(Vec<NodeId>),
    /// Each with its first id. No page is empty.
    Inner(Vec<(NodeId, Page)>),
}

impl Default for Children {
    fn default() -> Children {
        Children { root: Page::Leaf(Vec::new()), len: 0 }
    }
}

impl Children {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Inserts a child that is not present.
    pub(super) fn insert(&mut self, id: NodeId, order: impl Fn(NodeId) -> Ordering) {
        if let Some(right) = self.root.insert(id, &order, true) {
            let left = std::mem::replace(&mut self.root, Page::Inner(Vec::new()));
            self.root = Page::Inner([left, right].into_iter().filter_map(Page::keyed).collect());
        }
        self.len += 1;
    }

    /// Removes a child, if it is present. Its name, and those of all others, must still exist.
    pub(super) fn remove(&mut self, id: NodeId, order: impl Fn(NodeId) -> Ordering) {
        if !self.root.remove(id, &order) {
            return;
        }
        self.len -= 1;
        while let Page::Inner(pages) = &mut self.root
            && pages.len() <= 1
        {
            self.root = pages.pop().map_or(Page::Leaf(Vec::new()), |(_, page)| page);
        }
    }

    /// All children, in order.
    pub(super) fn iter(&self) -> Iter<'_> {
        self.after(|_| Ordering::Greater)
    }

    /// All children after a name, in order.
    pub(super) fn after(&self, order: impl Fn(NodeId) -> Ordering) -> Iter<'_> {
        let (mut above, mut page) = (Vec::new(), &self.root);
        loop {
            match page {
                Page::Leaf(ids) => {
                    let from = ids.partition_point(|&id| order(id) != Ordering::Greater);
                    return Iter { above, ids: ids[from..].iter() };
                }
                Page::Inner(pages) => {
                    let at = page_of(pages, &order);
                    above.push(pages[at + 1..].iter());
                    page = &pages[at].1;
                }
            }
        }
    }
}

/// See [`Children::iter`].
pub(super) struct Iter<'a> {
    /// The remaining pages of each level above.
    above: Vec<slice::Iter<'a, (NodeId, Page)>>,
    ids: slice::Iter<'a, NodeId>,
}

impl Iterator for Iter<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        loop {
            if let Some(&id) = self.ids.next() {
                return Some(id);
            }
            match self.above.last_mut()?.next() {
                None => drop(self.above.pop()),
                Some((_, Page::Leaf(ids))) => self.ids = ids.iter(),
                Some((_, Page::Inner(pages))) => self.above.push(pages.iter()),
            }
        }
    }
}

impl Page {
    /// Returns the right half, if that becomes a separate page. `last`: this page is the last one of
    /// its level.
    fn insert(&mut self, id: NodeId, order: &impl Fn(NodeId) -> Ordering, last: bool) -> Option<Page> {
        match self {
            Page::Leaf(ids) => {
                // Most names arrive in order.
                let at = match ids.last() {
                    Some(&end) if order(end) == Ordering::Greater => {
                        ids.partition_point(|&other| order(other) == Ordering::Less)
                    }
                    _ => ids.len(),
                };
                if ids.len() < LEAF {
                    put(ids, at, id);
                    return None;
                }
                if last && at == ids.len() {
                    // Names in order fill their pages.
                    return Some(Page::Leaf(vec![id]));
                }
                let mut right = ids.split_off(LEAF / 2);
                ids.shrink_to_fit();
                match at.checked_sub(LEAF / 2) {
                    Some(at) => put(&mut right, at, id),
                    None => put(ids, at, id),
                }
                Some(Page::Leaf(right))
            }
            Page::Inner(pages) => {
                let at = page_of(pages, order);
                let last_page = last && at + 1 == pages.len();
                let (first, page) = &mut pages[at];
                let new = page.insert(id, order, last_page).and_then(Page::keyed);
                *first = page.first().unwrap_or(*first);
                pages.insert(at + 1, new?);
                if pages.len() <= INNER {
                    return None;
                }
                let keep = if last_page { INNER } else { INNER / 2 };
                Some(Page::Inner(pages.split_off(keep)))
            }
        }
    }

    /// Returns whether the child was present.
    fn remove(&mut self, id: NodeId, order: &impl Fn(NodeId) -> Ordering) -> bool {
        match self {
            Page::Leaf(ids) => {
                let at = ids.partition_point(|&other| order(other) == Ordering::Less);
                if ids.get(at) != Some(&id) {
                    return false;
                }
                ids.remove(at);
                if ids.capacity() > 2 * ids.len() + 2 * STEP {
                    ids.shrink_to(ids.len() + STEP);
                }
                true
            }
            Page::Inner(pages) => {
                let at = page_of(pages, order);
                let (first, page) = &mut pages[at];
                if !page.remove(id, order) {
                    return false;
                }
                match page.first() {
                    None => drop(pages.remove(at)),
                    Some(now) => {
                        *first = now;
                        // Merges with the next page, or with the previous one.
                        if !join(pages, at) && at > 0 {
                            join(pages, at - 1);
                        }
                    }
                }
                true
            }
        }
    }

    /// Absorbs the next page, if both together are small.
    fn join(&mut self, next: &mut Page) -> bool {
        match (self, next) {
            (Page::Leaf(ids), Page::Leaf(more)) if ids.len() + more.len() <= LEAF / 2 => {
                ids.append(more);
                true
            }
            (Page::Inner(pages), Page::Inner(more)) if pages.len() + more.len() <= INNER / 2 => {
                pages.append(more);
                true
            }
            _ => false,
        }
    }

    /// `None` if it is empty.
    fn first(&self) -> Option<NodeId> {
        match self {
            Page::Leaf(ids) => ids.first().copied(),
            Page::Inner(pages) => pages.first().map(|&(first, _)| first),
        }
    }

    /// As an entry of an inner page; `None` if it is empty.
    fn keyed(self) -> Option<(NodeId, Page)> {
        Some((self.first()?, self))
    }
}

/// The page that contains the name, or would contain it.
fn page_of(pages: &[(NodeId, Page)], order: &impl Fn(NodeId) -> Ordering) -> usize {
    pages.partition_point(|&(first, _)| order(first) != Ordering::Greater).saturating_sub(1)
}

/// Merges a page with the next one, if there is one, and both together are small.
fn join(pages: &mut Vec<(NodeId, Page)>, at: usize) -> bool {
    let joined = match pages.get_mut(at..at + 2) {
        Some([(_, page), (_, next)]) => page.join(next),
        _ => false,
    };
    if joined {
        pages.remove(at + 1);
    }
    joined
}

fn put(ids: &mut Vec<NodeId>, at: usize, id: NodeId) {
    if ids.len() == ids.capacity() {
        ids.reserve_exact(STEP + ids.len() / 8);
    }
    ids.insert(at, id);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The "names" are the numbers themselves, turned around so that ids and names have different orders.
    fn name(id: NodeId) -> u32 {
        !id.number()
    }

    fn id(name: u32) -> NodeId {
        NodeId::of_number(!name)
    }

    fn order(of: u32) -> impl Fn(NodeId) -> Ordering {
        move |id| name(id).cmp(&of)
    }

    /// Checks that pages are neither empty nor too large, that all leaves are at one depth, and that
    /// each page is listed with its first id. Returns the depth.
    fn check(page: &Page, is_root: bool) -> usize {
        match page {
            Page::Leaf(ids) => {
                assert!(ids.len() <= LEAF && (is_root || !ids.is_empty()));
                1
            }
            Page::Inner(pages) => {
                assert!(pages.len() <= INNER && pages.len() > usize::from(is_root));
                let depths: BTreeSet<usize> = pages.iter().map(|(_, page)| check(page, false)).collect();
                assert!(pages.iter().all(|(first, page)| page.first() == Some(*first)));
                assert_eq!(depths.len(), 1);
                depths.first().unwrap() + 1
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Runs of names that are added and removed, ascending and descending, near and far apart.
        #[test]
        fn children_do_what_a_set_does(
            runs in prop::collection::vec((0..40_000u32, 1..2_000u32, 1..7u32, any::<bool>(), 0..5u8), 1..40),
            from in 0..50_000u32,
        ) {
            let (mut children, mut model) = (Children::default(), BTreeSet::new());
            for (first, count, step, down, kind) in runs {
                for n in 0..count {
                    let name = first + step * if down { count - n } else { n };
                    if kind < 3 {
                        if model.insert(name) {
                            children.insert(id(name), order(name));
                        }
                    } else {
                        model.remove(&name);
                        children.remove(id(name), order(name));
                    }
                }
                check(&children.root, true);
            }
            prop_assert_eq!(children.len() as usize, model.len());
            prop_assert!(children.iter().map(name).eq(model.iter().copied()));
            let behind = children.after(order(from)).map(name).take(100);
            prop_assert!(behind.eq(model.range(from + 1..).copied().take(100)));
        }
    }

    fn leaves(page: &Page) -> Vec<Vec<NodeId>> {
        match page {
            Page::Leaf(ids) => vec![ids.clone()],
            Page::Inner(pages) => pages.iter().flat_map(|(_, page)| leaves(page)).collect(),
        }
    }

    #[test]
    fn no_operation_touches_more_than_two_leaves() {
        let mut children = Children::default();
        let names = (40 * LEAF) as u32;
        (0..names).for_each(|n| children.insert(id(2 * n), order(2 * n)));
        // The order of changes splits pages first, then merges them.
        let near = 500..500 + LEAF as u32;
        let far = (0..names).step_by(97);
        for (name, insert) in near
            .clone()
            .chain(far)
            .map(|n| (2 * n + 1, true))
            .chain(near.clone().flat_map(|n| [(2 * n, false), (2 * n + 1, false)]))
        {
            let before: BTreeSet<Vec<NodeId>> = leaves(&children.root).into_iter().collect();
            match insert && !children.iter().any(|id| self::name(id) == name) {
                true => children.insert(id(name), order(name)),
                false => children.remove(id(name), order(name)),
            }
            let after = leaves(&children.root);
            assert!(after.iter().filter(|leaf| !before.contains(*leaf)).count() <= 2);
        }
        check(&children.root, true);
    }

    #[test]
    fn names_in_order_fill_their_pages_and_pages_become_few_again() {
        let names = (3 * LEAF * INNER) as u32;
        let mut children = Children::default();
        (0..names).for_each(|n| children.insert(id(n), order(n)));
        assert_eq!((leaves(&children.root).len(), check(&children.root, true)), (3 * INNER, 3));
        // Descending names at the end of a page that is not the last one: not one page for each.
        let mut gap = Children::default();
        (0..LEAF as u32).for_each(|n| gap.insert(id(n), order(n)));
        (1_000..3_000).rev().for_each(|n| gap.insert(id(n), order(n)));
        assert!(leaves(&gap.root).len() <= 2 + 4 * 2_000 / LEAF, "{}", leaves(&gap.root).len());
        (0..names).filter(|n| n % 50 > 0).for_each(|n| children.remove(id(n), order(n)));
        assert!(children.iter().map(name).eq((0..names).step_by(50)));
        let left = leaves(&children.root).len();
        assert!(left <= 2 + 4 * names as usize / 50 / LEAF, "{left}");
        (0..names).for_each(|n| children.remove(id(n), order(n)));
        assert!(matches!(&children.root, Page::Leaf(ids) if ids.is_empty()));
    }
}
