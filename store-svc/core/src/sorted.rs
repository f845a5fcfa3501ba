//! A sorted set of small ids whose order lies elsewhere: a B+ tree that looks the keys up. It serves the
//! children of a znode, the ephemerals of a session, the quotas, and the watches of a path or a stream.

use std::{cmp::Ordering, slice};

/// Maximum number of ids in a leaf.
const LEAF: usize = 256;
/// Maximum number of pages in an inner page.
const INNER: usize = 64;
/// Capacity increment of a leaf, beyond an eighth of its content.
const STEP: usize = 4;

/// Ids, in order. Calls that search for a key receive a function that compares the key of any id with
/// it.
#[derive(Debug)]
pub(crate) struct Sorted<T> {
    root: Page<T>,
    len: u32,
}

#[derive(Debug)]
enum Page<T> {
    Leaf(Vec<T>),
    /// Each with its first id. No page is empty.
    Inner(Vec<(T, Page<T>)>),
}

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted { root: Page::Leaf(Vec::new()), len: 0 }
    }
}

impl<T: Copy + PartialEq> Sorted<T> {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Inserts an id that is not present.
    pub(crate) fn insert(&mut self, id: T, order: impl Fn(T) -> Ordering) {
        if let Some(right) = self.root.insert(id, &order, true) {
            let left = std::mem::replace(&mut self.root, Page::Inner(Vec::new()));
            self.root = Page::Inner([left, right].into_iter().filter_map(Page::keyed).collect());
        }
        self.len += 1;
    }

    /// Removes an id, if it is present. Its key, and those of all others, must still exist.
    pub(crate) fn remove(&mut self, id: T, order: impl Fn(T) -> Ordering) {
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

    /// The id with this key.
    pub(crate) fn find(&self, order: impl Fn(T) -> Ordering) -> Option<T> {
        let mut page = &self.root;
        loop {
            match page {
                Page::Leaf(ids) => {
                    let at = ids.binary_search_by(|&id| order(id)).ok()?;
                    return ids.get(at).copied();
                }
                Page::Inner(pages) => page = &pages.get(page_of(pages, &order))?.1,
            }
        }
    }

    /// All ids, in order.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        self.after(|_| Ordering::Greater)
    }

    /// All ids after a key, in order.
    pub(crate) fn after(&self, order: impl Fn(T) -> Ordering) -> Iter<'_, T> {
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

/// See [`Sorted::iter`].
pub(crate) struct Iter<'a, T> {
    /// The remaining pages of each level above.
    above: Vec<slice::Iter<'a, (T, Page<T>)>>,
    ids: slice::Iter<'a, T>,
}

impl<T: Copy> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
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

impl<T: Copy + PartialEq> Page<T> {
    /// Returns the right half, if that becomes a separate page. `last`: this page is the last one of
    /// its level.
    fn insert(&mut self, id: T, order: &impl Fn(T) -> Ordering, last: bool) -> Option<Page<T>> {
        match self {
            Page::Leaf(ids) => {
                // Most keys arrive in order.
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
                    // Keys in order fill their pages.
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

    /// Returns whether the id was present.
    fn remove(&mut self, id: T, order: &impl Fn(T) -> Ordering) -> bool {
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
    fn join(&mut self, next: &mut Page<T>) -> bool {
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
    fn first(&self) -> Option<T> {
        match self {
            Page::Leaf(ids) => ids.first().copied(),
            Page::Inner(pages) => pages.first().map(|&(first, _)| first),
        }
    }

    /// As an entry of an inner page; `None` if it is empty.
    fn keyed(self) -> Option<(T, Page<T>)> {
        Some((self.first()?, self))
    }
}

/// The page that contains the key, or would contain it.
fn page_of<T: Copy>(pages: &[(T, Page<T>)], order: &impl Fn(T) -> Ordering) -> usize {
    pages.partition_point(|&(first, _)| order(first) != Ordering::Greater).saturating_sub(1)
}

/// Merges a page with the next one, if there is one, and both together are small.
fn join<T: Copy + PartialEq>(pages: &mut Vec<(T, Page<T>)>, at: usize) -> bool {
    let joined = match pages.get_mut(at..at + 2) {
        Some([(_, page), (_, next)]) => page.join(next),
        _ => false,
    };
    if joined {
        pages.remove(at + 1);
    }
    joined
}

fn put<T>(ids: &mut Vec<T>, at: usize, id: T) {
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
    fn name(id: u32) -> u32 {
        !id
    }

    fn id(name: u32) -> u32 {
        !name
    }

    fn order(of: u32) -> impl Fn(u32) -> Ordering {
        move |id| name(id).cmp(&of)
    }

    /// Checks that pages are neither empty nor too large, that all leaves are at one depth, and that
    /// each page is listed with its first id. Returns the depth.
    fn check(page: &Page<u32>, is_root: bool) -> usize {
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
            let (mut children, mut model) = (Sorted::default(), BTreeSet::new());
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
            let there = children.find(order(from)).map(name);
            prop_assert_eq!(there, model.contains(&from).then_some(from));
            let behind = children.after(order(from)).map(name).take(100);
            prop_assert!(behind.eq(model.range(from + 1..).copied().take(100)));
        }
    }

    fn leaves(page: &Page<u32>) -> Vec<Vec<u32>> {
        match page {
            Page::Leaf(ids) => vec![ids.clone()],
            Page::Inner(pages) => pages.iter().flat_map(|(_, page)| leaves(page)).collect(),
        }
    }

    #[test]
    fn no_operation_touches_more_than_two_leaves() {
        let mut children = Sorted::default();
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
            let before: BTreeSet<Vec<u32>> = leaves(&children.root).into_iter().collect();
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
        let mut children = Sorted::default();
        (0..names).for_each(|n| children.insert(id(n), order(n)));
        assert_eq!((leaves(&children.root).len(), check(&children.root, true)), (3 * INNER, 3));
        // Descending names at the end of a page that is not the last one: not one page for each.
        let mut gap = Sorted::default();
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
