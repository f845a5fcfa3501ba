//! What a watch that fires once can be told where the history does not reach back: as ZooKeeper's setWatches, from the Stats.
//!
//! No change is missed, but some that cannot be told apart fire as well: the client reads and finds what it knew.

use api::{
    Acl, Identities, Path, Permissions, Read, ReadOutcome, Stat, Zxid,
    watch::{Change, ChangeKind, WatchScope, WatchSpec},
};

use crate::Tree;

/// What happened behind `from`, as far as it can be told; `None` if nothing did that the watch wants to know.
///
/// Nothing of a znode that the caller may not read.
pub(super) fn since(tree: &Tree, caller: &Identities, spec: &WatchSpec, from: Zxid) -> Option<Change> {
    let kinds = spec.effective_kinds();
    let change = |kind, stat, data| {
        Some(Change { kind, path: spec.path.clone(), stat, data, acl: Acl::default(), above: Acl::default() })
    };
    let touched = |stat| change(ChangeKind::Touched, stat, None);
    let Some(stat) = tree.stat(&spec.path) else {
        let could_be = kinds.contains(ChangeKind::Deleted) && changed_above(tree, caller, &spec.path, from);
        return could_be.then(|| change(ChangeKind::Deleted, Stat::default(), None)).flatten();
    };
    if !tree.may(&spec.path, Permissions::READ, caller) {
        // Whatever happened, so that it tells nothing. The client reads, and finds that it may not.
        return touched(Stat::default());
    }
    let data = || match tree.read(&Read::Get { path: spec.path.clone() }, caller) {
        Ok(ReadOutcome::Data { data, .. }) if spec.with_data => data,
        _ => None,
    };
    // No Stat tells when an access list was set.
    if kinds.contains(ChangeKind::AclChanged) {
        return touched(stat);
    }
    match spec.scope {
        WatchScope::Node if stat.czxid > from && kinds.contains(ChangeKind::Created) => {
            change(ChangeKind::Created, stat, data())
        }
        WatchScope::Node if stat.mzxid > from && kinds.contains(ChangeKind::DataChanged) => {
            change(ChangeKind::DataChanged, stat, data())
        }
        // Perhaps it was there before, and went and came.
        WatchScope::Node if stat.czxid > from && kinds.contains(ChangeKind::Deleted) => touched(stat),
        WatchScope::Node => None,
        // Which child it was, only the history knows; and what became of the children's values.
        WatchScope::Children if stat.pzxid > from || kinds.contains(ChangeKind::DataChanged) => touched(stat),
        WatchScope::Children => None,
        WatchScope::Tree => touched(stat),
    }
}

/// Whether a znode that is not there may have gone behind `from`: then a child of the nearest znode above has.
fn changed_above(tree: &Tree, caller: &Identities, path: &Path, from: Zxid) -> bool {
    let mut above = path.parent();
    while let Some(path) = above {
        if let Some(stat) = tree.stat(&path) {
            // Of one that may not be read nothing is told: it could be.
            if !tree.may(&path, Permissions::READ, caller) {
                return true;
            }
            return stat.pzxid > from;
        }
        above = path.parent();
    }
    true
}
