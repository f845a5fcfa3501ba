//! What clients watch, and whether they are told of everything that they watch, once, in order and before they can see it.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use api::watch::{Change, ChangeKind, StateRule, WatchScope, WatchSpec};
use api::{Identities, Path, Zxid};
use client_core::WatchNews;

/// All watches of all clients, and what has happened.
#[derive(Default, Debug)]
pub(crate) struct Watchers {
    happened: BTreeMap<Zxid, Vec<Arc<Change>>>,
    /// By the number of the client and the id.
    watches: BTreeMap<(u32, u32), Watched>,
}

#[derive(Debug)]
struct Watched {
    spec: WatchSpec,
    /// It was told of everything up to here.
    known: Option<Zxid>,
    /// It has been told anything.
    stands: bool,
}

impl Watchers {
    /// An entry of C has done this.
    pub(crate) fn happened(&mut self, zxid: Zxid, changes: Vec<Arc<Change>>) {
        if !changes.is_empty() {
            self.happened.insert(zxid, changes);
        }
    }

    pub(crate) fn begins(&mut self, client: u32, spec: WatchSpec) {
        let known = spec.from;
        self.watches.insert((client, spec.id), Watched { spec, known, stands: false });
    }

    /// How many watches a client has.
    pub(crate) fn count(&self, client: u32) -> usize {
        self.watches.range((client, 0)..=(client, u32::MAX)).count()
    }

    /// A client's application is given news.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn told(&mut self, client: u32, id: u32, news: &WatchNews) -> Result<(), String> {
        let Watchers { happened, watches } = self;
        let Some(watched) = watches.get_mut(&(client, id)) else {
            return match news {
                WatchNews::Ended(_) => Ok(()),
                _ => Err(format!("client {client} is told of its watch {id}, which is over: {news:?}")),
            };
        };
        watched.stands = true;
        let spec = &watched.spec;
        match news {
            WatchNews::Stands { zxid } => watched.known = watched.known.max(Some(*zxid)),
            WatchNews::State { zxid, znodes } => {
                // And whether clients, which are anonymous here, may read it.
                let mut there: BTreeMap<&Path, bool> = BTreeMap::new();
                for change in happened.range(..=*zxid).flat_map(|(_, changes)| changes) {
                    match change.kind {
                        ChangeKind::Deleted => drop(there.remove(&change.path)),
                        _ => drop(there.insert(&change.path, change.shows(&Identities::NONE))),
                    }
                }
                let readable = |path: &Path| there.get(path).copied().unwrap_or(true);
                let in_sight = |path: &Path| match spec.scope {
                    // The names of children are for clients that may read their parent.
                    WatchScope::Children if *path != spec.path => readable(&spec.path),
                    _ => readable(path),
                };
                let begins = there.keys().filter(|path| begins_with(spec, path) && in_sight(path));
                let want: Vec<&Path> = begins.copied().collect();
                let mut got: Vec<&Path> =
                    znodes.iter().map(|z| &z.path).filter(|path| !path.is_root()).collect();
                got.sort_unstable();
                if got != want {
                    return Err(format!(
                        "client {client}, {spec:?}: the state at {zxid} has {got:?}, not {want:?}"
                    ));
                }
                watched.known = Some(*zxid);
            }
            WatchNews::Group { zxid, changes } => {
                let known = watched.known.unwrap_or_default();
                if *zxid <= known {
                    return Err(format!("client {client}, {spec:?}: told of {zxid} behind {known}"));
                }
                // What fires once may be found by comparing Stats, which tells less.
                if !spec.once {
                    if let Some(missed) = missed(happened, watched, Zxid(zxid.0 - 1)) {
                        return Err(format!(
                            "client {client}, {spec:?}: told of {zxid}, and not of {missed}"
                        ));
                    }
                    let all = happened.get(zxid).into_iter().flatten();
                    let all: Vec<_> = all.filter(|c| sees(spec, c)).collect();
                    let same = |(a, b): (&Arc<Change>, &&Arc<Change>)| (a.kind, &a.path) == (b.kind, &b.path);
                    if all.len() != changes.len() || !changes.iter().zip(&all).all(same) {
                        return Err(format!(
                            "client {client}: told at {zxid} of {changes:?}, not of {all:?}"
                        ));
                    }
                }
                watched.known = Some(*zxid);
            }
            WatchNews::Ended(_) => drop(watches.remove(&(client, id))),
        }
        Ok(())
    }

    /// A client's application gets an answer of this zxid: all that it can see in it, its watches have told before.
    ///
    /// # Errors
    /// What was not told.
    pub(crate) fn answered(&self, client: u32, zxid: Zxid) -> Result<(), String> {
        for watched in self.watches.range((client, 0)..=(client, u32::MAX)).map(|(_, watched)| watched) {
            // One with a state may just begin again.
            if !watched.stands || watched.spec.state != StateRule::Never {
                continue;
            }
            if let Some(missed) = missed(&self.happened, watched, zxid) {
                let spec = &watched.spec;
                return Err(format!(
                    "client {client}, {spec:?}: an answer at {zxid} comes before the event of {missed}"
                ));
            }
        }
        Ok(())
    }
}

/// What a watch sees behind what it knows, up to here.
fn missed(happened: &BTreeMap<Zxid, Vec<Arc<Change>>>, watched: &Watched, to: Zxid) -> Option<Zxid> {
    let known = watched.known?;
    let mut behind = happened.range((Bound::Excluded(known), Bound::Included(to.max(known))));
    behind.find(|(_, changes)| changes.iter().any(|c| sees(&watched.spec, c))).map(|(zxid, _)| *zxid)
}

fn sees(spec: &WatchSpec, change: &Change) -> bool {
    let own = change.path == spec.path;
    let of_parent = spec.scope == WatchScope::Children && !own;
    let may = if of_parent { change.names(&Identities::NONE) } else { change.shows(&Identities::NONE) };
    if change.kind == ChangeKind::AclChanged || !may {
        return false;
    }
    match spec.scope {
        WatchScope::Node => own,
        WatchScope::Tree => {
            own || spec.path.is_root() || change.path.as_str().starts_with(&format!("{}/", spec.path))
        }
        WatchScope::Children => {
            let child = change.path.parent_str() == Some(spec.path.as_str());
            (child && change.kind != ChangeKind::DataChanged) || (own && change.kind == ChangeKind::Deleted)
        }
    }
}

/// Whether a znode is in the state that a watch begins with.
fn begins_with(spec: &WatchSpec, path: &Path) -> bool {
    let own = *path == spec.path;
    match spec.scope {
        WatchScope::Node => own,
        WatchScope::Tree => {
            own || spec.path.is_root() || path.as_str().starts_with(&format!("{}/", spec.path))
        }
        WatchScope::Children => own || path.parent_str() == Some(spec.path.as_str()),
    }
}
