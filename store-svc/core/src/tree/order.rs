//! Sets of znodes in the order of their paths, without the paths: they are compared by the names up to
//! the root. Pages of them cost what the page costs.

use std::cmp::Ordering;

use api::{Create, OpError, Page, Path, Permissions, QuotaAt, ReadOutcome, SessionId};

use super::{
    By, Tree,
    slab::{NodeId, ROOT},
};
use crate::{
    kept,
    sorted::{Iter, Sorted},
};

/// The ephemerals of a session.
#[derive(Default, Debug)]
pub(super) struct Owned {
    pub(super) ids: Sorted<NodeId>,
    /// Total bytes of their paths.
    pub(super) bytes: usize,
}

impl Owned {
    /// Whether the session may own another ephemeral.
    ///
    /// # Errors
    /// [`OpError::LimitExceeded`]
    pub(super) fn admit(&self, path: &Path) -> Result<(), OpError> {
        if self.ids.len() as usize >= Create::EPHEMERALS_MAX {
            return Err(kept::too_many_ephemerals());
        }
        let bytes = self.bytes + path.as_str().len();
        if bytes > Create::EPHEMERAL_PATHS_MAX {
            return Err(kept::too_long_ephemerals(bytes as u64));
        }
        Ok(())
    }
}

impl Tree {
    /// Adds an existing znode to the ephemerals of a session.
    pub(super) fn own(&mut self, owner: SessionId, id: NodeId, path: &str) {
        let mut owned = self.ephemerals.remove(&owner).unwrap_or_default();
        owned.ids.insert(id, self.order_of(id, self.nodes[id].parent, path));
        owned.bytes += path.len();
        self.ephemerals.insert(owner, owned);
    }

    /// Removes a znode, which need not exist any more, from the ephemerals of a session.
    pub(super) fn disown(&mut self, owner: SessionId, (id, parent): (NodeId, NodeId), path: &str) {
        let Some(mut owned) = self.ephemerals.remove(&owner) else { return };
        owned.ids.remove(id, self.order_of(id, parent, path));
        owned.bytes -= path.len();
        if owned.ids.len() > 0 {
            self.ephemerals.insert(owner, owned);
        }
    }

    /// Adds an existing znode to those with a quota.
    pub(super) fn note_quota(&mut self, id: NodeId, path: &str) {
        let mut quotas = std::mem::take(&mut self.quotas);
        quotas.insert(id, self.order_of(id, self.nodes[id].parent, path));
        self.quotas = quotas;
    }

    /// Removes a znode, which need not exist any more, from those with a quota.
    pub(super) fn forget_quota(&mut self, (id, parent): (NodeId, NodeId), path: &str) {
        let mut quotas = std::mem::take(&mut self.quotas);
        quotas.remove(id, self.order_of(id, parent, path));
        self.quotas = quotas;
    }

    /// A page of the ephemerals of a session whose paths begin with `prefix`, after a path, and whether
    /// more follow.
    pub(crate) fn ephemerals_page(
        &self,
        session: SessionId,
        (prefix, after): (&str, &str),
        page: &Page,
    ) -> (Vec<Path>, bool) {
        let Some(owned) = self.ephemerals.get(&session) else { return (Vec::new(), false) };
        // All that begin with the prefix follow one another.
        let from = match after < prefix {
            true => owned.ids.after(|id| self.compare(id, prefix).then(Ordering::Greater)),
            false => owned.ids.after(|id| self.compare(id, after)),
        };
        let mut rest =
            from.map(|id| self.path(id)).take_while(|path| path.as_str().starts_with(prefix)).peekable();
        let (mut paths, mut bytes) = (Vec::new(), 0);
        while paths.len() < page.names_max()
            && let Some(path) =
                rest.next_if(|next: &Path| paths.is_empty() || bytes + next.as_str().len() <= Page::BYTES_MAX)
        {
            bytes += path.as_str().len();
            paths.push(path);
        }
        (paths, rest.peek().is_some())
    }

    /// A page of the quotas at, above and below a znode, which need not exist, that the caller may read, in
    /// order.
    pub(super) fn quotas_at(&self, path: &Path, page: &Page, by: By<'_>) -> ReadOutcome {
        let (after, text) = (page.after.as_str(), path.as_str());
        let below = if path.is_root() { "/".to_owned() } else { format!("{text}/") };
        let from = |first: &str| -> Iter<'_, NodeId> {
            match after < first {
                true => self.quotas.after(|id| self.compare(id, first).then(Ordering::Greater)),
                false => self.quotas.after(|id| self.compare(id, after)),
            }
        };
        let above = self.line_to(text).into_iter().filter(|&(id, len)| {
            self.nodes[id].quota().is_some() && text.get(..len).is_some_and(|at| at.max("/") > after)
        });
        let below = from(&below)
            .map(|id| (id, self.path(id)))
            .take_while(|(_, at)| at.is_within(path))
            .filter(|(_, at)| at != path);
        let mut rest = above
            .map(|(id, _)| (id, self.path(id)))
            .chain(below)
            .filter(|(id, at)| self.permit(&self.nodes[*id], at, Permissions::READ, by.identities).is_ok())
            .peekable();
        let (mut found, mut bytes) = (Vec::<QuotaAt>::new(), 0);
        while found.len() < page.names_max()
            && let Some((id, path)) = rest.next_if(|(_, at)| {
                bytes += at.as_str().len() + size_of::<QuotaAt>();
                found.is_empty() || bytes <= Page::BYTES_MAX
            })
        {
            let slot = &self.nodes[id];
            found.push(QuotaAt { path, quota: slot.quota().unwrap_or_default(), used: slot.below() });
        }
        let more = rest.peek().is_some();
        let next = found.last().filter(|_| more).map_or_else(String::new, |last| last.path.to_string());
        ReadOutcome::Quotas { quotas: found, next }
    }

    /// The existing znodes from the root down to a path, with the length of their paths in it.
    fn line_to(&self, path: &str) -> Vec<(NodeId, usize)> {
        let mut line = vec![(ROOT, 0)];
        let ends = path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]);
        for len in ends.filter(|&len| len > 1) {
            let Some(id) = self.find(&path[..len]) else { break };
            line.push((id, len));
        }
        line
    }

    /// The order of znodes relative to one with this parent and path.
    fn order_of<'a>(
        &'a self,
        id: NodeId,
        parent: NodeId,
        path: &'a str,
    ) -> impl Fn(NodeId) -> Ordering + use<'a> {
        let name = path.rsplit('/').next().unwrap_or_default().as_bytes();
        move |other| {
            if other == id {
                return Ordering::Equal;
            }
            let slot = &self.nodes[other];
            // Siblings, as most of them are, differ in their names only.
            if other != ROOT && slot.parent == parent {
                slot.name().cmp(name)
            } else {
                self.compare(other, path)
            }
        }
    }

    /// Compares the path of a znode with a text.
    fn compare(&self, mut id: NodeId, text: &str) -> Ordering {
        if id == ROOT {
            return "/".cmp(text);
        }
        let mut names = Vec::new();
        while id != ROOT {
            let slot = &self.nodes[id];
            names.push(slot.name());
            id = slot.parent;
        }
        let mut rest = text.as_bytes();
        for name in names.into_iter().rev() {
            for part in [b"/", name] {
                let len = part.len().min(rest.len());
                match part[..len].cmp(&rest[..len]) {
                    Ordering::Equal if len < part.len() => return Ordering::Greater,
                    Ordering::Equal => rest = &rest[len..],
                    differs => return differs,
                }
            }
        }
        if rest.is_empty() { Ordering::Equal } else { Ordering::Less }
    }
}

#[cfg(test)]
mod tests {
    use api::{Identities, NodeKind, Quota, Read, Write, Zxid, quota::Bounds};

    use super::*;
    use crate::tree::At;

    const AT: At = At { zxid: Zxid(1), time_ms: 0 };

    fn path(text: &str) -> Path {
        Path::new(text).unwrap()
    }

    /// Paths whose order differs from that of their znodes in the tree: `-` and `.` precede `/`.
    fn paths() -> Vec<Path> {
        let names = ["a", "a-", "a.b", "ab", "a0", "\u{e4}"];
        let mut paths: Vec<Path> = names.map(|name| path(&format!("/{name}"))).to_vec();
        for depth in 1..3 {
            let above: Vec<Path> =
                paths.iter().filter(|p| p.as_str().matches('/').count() == depth).cloned().collect();
            paths.extend(above.iter().flat_map(|above| names.map(|name| above.child(name).unwrap())));
        }
        paths
    }

    fn pages<T>(size: u32, path_of: impl Fn(&T) -> String, page: impl Fn(Page) -> (Vec<T>, bool)) -> Vec<T> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let after = all.last().map(&path_of).unwrap_or_default();
            let (some, more) = page(Page { size, after, ..Page::default() });
            assert!(some.len() <= size as usize && (!more || !some.is_empty()));
            all.extend(some);
            if !more {
                return all;
            }
        }
    }

    #[test]
    fn b08_pages_of_ephemerals_and_quotas_are_those_of_a_sorted_list() {
        let (mut tree, session) = (Tree::default(), SessionId(7));
        let by = By::anonymous(Some(session));
        let mut owned = Vec::new();
        for (n, path) in paths().into_iter().enumerate() {
            let parent = path.as_str().matches('/').count() < 3;
            let kind = if parent { NodeKind::Persistent } else { NodeKind::Ephemeral };
            tree.write(AT, by, &Write::Create(Create { kind, ..Create::new(path.clone(), "") })).unwrap();
            if n % 3 == 0 {
                let quota = Quota { hard: Bounds { znodes: Some(1 << 20), bytes: None }, ..Quota::default() };
                tree.write(AT, by, &Write::SetQuota { path: path.clone(), quota }).unwrap();
            }
            if !parent {
                owned.push((path, n % 3 == 0));
            }
        }
        // Each seventh goes.
        for (path, _) in owned.iter().step_by(7) {
            tree.write(AT, by, &Write::Delete { path: path.clone(), version: None }).unwrap();
        }
        owned = owned.into_iter().enumerate().filter(|(n, _)| n % 7 > 0).map(|(_, path)| path).collect();
        owned.sort();
        assert!(tree.ephemerals(session).eq(owned.iter().map(|(path, _)| path.clone())));
        for prefix in ["", "/", "/a", "/a/", "/a/a-", "/a.b/a/", "/b", "\u{e4}"] {
            let expected: Vec<Path> =
                owned.iter().map(|(p, _)| p.clone()).filter(|p| p.as_str().starts_with(prefix)).collect();
            for size in [1, 2, 7, 1_000] {
                let found = pages(size, Path::to_string, |page| {
                    tree.ephemerals_page(session, (prefix, &page.after), &page)
                });
                assert_eq!(found, expected, "{prefix} {size}");
            }
        }
        let mut with_quota: Vec<Path> = tree.quotas.iter().map(|id| tree.path(id)).collect();
        assert!(with_quota.is_sorted() && with_quota.len() > 50 && tree.counts_are_exact());
        let root = Write::SetQuota {
            path: Path::root(),
            quota: Quota { hard: Bounds { znodes: Some(1 << 20), bytes: None }, ..Quota::default() },
        };
        tree.write(AT, by, &root).unwrap();
        with_quota.insert(0, Path::root());
        for top in ["/", "/a", "/a/a.b", "/a/a", "/a0/missing/x", "/missing", "/\u{e4}/\u{e4}"] {
            let top = path(top);
            let expected: Vec<&Path> =
                with_quota.iter().filter(|p| p.is_within(&top) || top.is_within(p)).collect();
            for size in [1, 2, 7, 1_000] {
                let read = |page| Read::Quotas { path: top.clone(), page };
                let found = pages(
                    size,
                    |at: &QuotaAt| at.path.to_string(),
                    |page| match tree.read(&read(page), &Identities::NONE) {
                        Ok(ReadOutcome::Quotas { quotas, next }) => (quotas, !next.is_empty()),
                        other => panic!("{other:?}"),
                    },
                );
                assert!(found.iter().map(|at| &at.path).eq(expected.iter().copied()), "{top} {size}");
            }
        }
        let left = tree.remove_ephemerals(AT, session);
        assert_eq!(left as usize, owned.len());
        assert!(tree.ephemerals.is_empty() && tree.counts_are_exact());
        assert_eq!(tree.digest(), tree.recompute_digest());
    }
}
