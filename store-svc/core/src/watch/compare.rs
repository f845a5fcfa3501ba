//! The missed event of a one-shot watch older than the history, derived from Stats as ZooKeeper's
//! setWatches does.
//!
//! No change is missed, but some indistinguishable cases fire as well: the client then reads the znode
//! and finds it unchanged.

use api::{
    Acl, Identities, Path, Permissions, Read, ReadOutcome, Stat, Zxid,
    watch::{Change, ChangeKind, WatchScope, WatchSpec},
};

use crate::Tree;

/// The change after `from`, as far as it can be determined; `None` if there is none that the watch covers.
///
/// Reveals nothing about a znode that the caller must not read.
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
        // Fires in any case, so that it reveals nothing. The client reads, and gets an error of permission.
        return touched(Stat::default());
    }
    let data = || match tree.read(&Read::Get { path: spec.path.clone() }, caller) {
        Ok(ReadOutcome::Data { data, .. }) if spec.with_data => data,
        _ => None,
    };
    // A Stat has no time of the last access list change.
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
        // The znode may have existed before, and may have been deleted and created again.
        WatchScope::Node if stat.czxid > from && kinds.contains(ChangeKind::Deleted) => touched(stat),
        WatchScope::Node => None,
        // Only the history knows which child it was, and the changes to values of children.
        WatchScope::Children if stat.pzxid > from || kinds.contains(ChangeKind::DataChanged) => touched(stat),
        WatchScope::Children => None,
        WatchScope::Tree => touched(stat),
    }
}

/// Whether a missing znode may have been deleted after `from`: then a child of its nearest existing
/// ancestor was.
fn changed_above(tree: &Tree, caller: &Identities, path: &Path, from: Zxid) -> bool {
    let mut above = path.parent();
    while let Some(path) = above {
        if let Some(stat) = tree.stat(&path) {
            // A znode that must not be read reveals nothing, so it counts as possibly deleted.
            if !tree.may(&path, Permissions::READ, caller) {
                return true;
            }
            return stat.pzxid > from;
        }
        above = path.parent();
    }
    true
}
