//! Watches of one connection: maps ZooKeeper's watches, which have a path and a kind, to the store's, which have a
//! number.
//!
//! A read that sets a watch is two requests to the store: the watch, then the read. Events between the two are sent
//! after the reply, because only then does the client know the watch.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    Path, Zxid,
    watch::{AddWatches, ChangeKind, WatchGroup, WatchScope, WatchSpec},
};
use zk_jute::{Code, Event, EventType, KeeperState, SetWatches, WatcherEvent};

use crate::translate::read_path;

/// The kind of a ZooKeeper watch: its events, and whether it persists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    /// Set by getData and exists: one change of the znode.
    Data,
    /// Set by getChildren: one change of its children.
    Child,
    /// Set by addWatch: changes of the znode ...
    Persistent,
    /// ... and of its children.
    PersistentChild,
    /// Set by addWatch: changes of the znode and its descendants.
    Recursive,
}

impl Kind {
    fn once(self) -> bool {
        matches!(self, Kind::Data | Kind::Child)
    }

    fn scope(self) -> WatchScope {
        match self {
            Kind::Data | Kind::Persistent => WatchScope::Node,
            Kind::Child | Kind::PersistentChild => WatchScope::Children,
            Kind::Recursive => WatchScope::Tree,
        }
    }

    /// The kinds that a client names by this number when it adds, checks or removes a watch.
    pub(crate) fn named(number: i32) -> Option<&'static [Kind]> {
        Some(match number {
            1 => &[Kind::Child],
            2 => &[Kind::Data],
            3 => &[Kind::Child, Kind::Data, Kind::Persistent, Kind::PersistentChild, Kind::Recursive],
            4 => &[Kind::Persistent, Kind::PersistentChild],
            5 => &[Kind::Recursive],
            _ => return None,
        })
    }
}

/// The watches of one connection. Clones share the same set.
#[derive(Clone, Default)]
pub(crate) struct Watches {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    last: u32,
    watches: HashMap<u32, Watch>,
    /// Watches that the client knows.
    armed: HashMap<(Kind, Path), u32>,
    /// Watches that are obsolete in the store; sent with the next request.
    cancels: Vec<u32>,
}

struct Watch {
    kind: Kind,
    /// Set again for a znode that the client knows. If the znode was created again since, ZooKeeper reports a change.
    known: bool,
    path: Path,
    state: State,
}

enum State {
    /// Its read is not answered; holds the events since then.
    Begun(Vec<Event>),
    Armed,
    /// The store has rejected it.
    Refused(Code),
}

impl Watches {
    /// Begins a watch for a read that is about to be submitted.
    pub(crate) fn begin(&self, kind: Kind, path: Path) -> (u32, AddWatches) {
        let mut inner = self.lock();
        let id = inner.insert(kind, path, State::Begun(Vec::new()));
        (id, AddWatches { specs: inner.spec(id, None).into_iter().collect(), refused: Vec::new() })
    }

    /// Its read is answered: on success the client knows the watch, otherwise the watch is dropped. Returns the events
    /// since its start.
    ///
    /// # Errors
    /// The store has rejected the watch.
    pub(crate) fn settle(&self, id: u32, keep: bool) -> Result<Vec<Event>, Code> {
        let mut inner = self.lock();
        let Some(Watch { kind, path, state, .. }) = inner.watches.remove(&id) else { return Ok(Vec::new()) };
        match state {
            State::Refused(code) => Err(code),
            _ if !keep => {
                inner.cancels.push(id);
                Ok(Vec::new())
            }
            // It has fired.
            State::Begun(seen) if kind.once() && !seen.is_empty() => Ok(seen),
            state => {
                let seen = if let State::Begun(seen) = state { seen } else { Vec::new() };
                inner.watches.insert(id, Watch { kind, known: false, path, state: State::Armed });
                inner.arm(id);
                Ok(seen)
            }
        }
    }

    /// The store has rejected these watches.
    pub(crate) fn refused(&self, ids: impl IntoIterator<Item = u32>, code: Code) {
        let mut inner = self.lock();
        for id in ids {
            let begun = |watch: &&mut Watch| matches!(watch.state, State::Begun(_));
            match inner.watches.get_mut(&id).filter(begun) {
                Some(watch) => watch.state = State::Refused(code),
                None => inner.forget(id),
            }
        }
    }

    /// Sets the watches that the client had on an earlier connection, including their missed events. Returns `None` if
    /// the client would have more than `most`.
    pub(crate) fn set_again(
        &self,
        sets: &SetWatches,
        persistent: &[String],
        recursive: &[String],
        most: usize,
    ) -> Option<AddWatches> {
        // Checked before anything is allocated.
        let once = sets.data.len() + sets.exist.len() + sets.child.len();
        if self.count() + once + 2 * persistent.len() + recursive.len() > most {
            return None;
        }
        let mut done = HashSet::new();
        let from = Some(Zxid(u64::try_from(sets.relative_zxid).unwrap_or(0)));
        let mut all = AddWatches::default();
        for (paths, (kinds, known), from) in [
            (&sets.data[..], (&[Kind::Data][..], true), from),
            (&sets.exist, (&[Kind::Data], false), from),
            (&sets.child, (&[Kind::Child], false), from),
            (persistent, (&[Kind::Persistent, Kind::PersistentChild], false), None),
            (recursive, (&[Kind::Recursive], false), None),
        ] {
            // An invalid path has no events.
            for path in paths.iter().filter_map(|path| read_path(path)) {
                if done.insert((kinds, path.clone())) {
                    all.specs.extend(self.add_known(kinds, &path, from, known));
                }
            }
        }
        Some(all)
    }

    /// Adds watches that the client knows from now on. Existing watches that cover the same events stay unchanged.
    pub(crate) fn add(&self, kinds: &[Kind], path: &Path, from: Option<Zxid>) -> Vec<WatchSpec> {
        self.add_known(kinds, path, from, false)
    }

    fn add_known(&self, kinds: &[Kind], path: &Path, from: Option<Zxid>, known: bool) -> Vec<WatchSpec> {
        let mut inner = self.lock();
        let mut specs = Vec::new();
        for &kind in kinds {
            if from.is_none() && inner.armed.contains_key(&(kind, path.clone())) {
                continue;
            }
            let id = inner.insert(kind, path.clone(), State::Armed);
            if let Some(watch) = inner.watches.get_mut(&id) {
                watch.known = known;
            }
            inner.arm(id);
            specs.extend(inner.spec(id, from));
        }
        specs
    }

    /// Whether the client has one of these.
    pub(crate) fn has(&self, kinds: &[Kind], path: &Path) -> bool {
        let inner = self.lock();
        kinds.iter().any(|&kind| inner.armed.contains_key(&(kind, path.clone())))
    }

    /// Removes these watches and returns their ids for the store.
    pub(crate) fn remove(&self, kinds: &[Kind], path: &Path) -> Vec<u32> {
        let mut inner = self.lock();
        let ids: Vec<u32> =
            kinds.iter().filter_map(|&kind| inner.armed.get(&(kind, path.clone())).copied()).collect();
        ids.iter().for_each(|id| inner.forget(*id));
        ids
    }

    /// Takes the ids of watches that the store has to cancel.
    pub(crate) fn take_cancels(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().cancels)
    }

    /// The paths of the watches that the client knows, and the number of these watches. An addWatch counts once.
    pub(crate) fn paths(&self) -> (BTreeSet<String>, usize) {
        let inner = self.lock();
        let known = inner.armed.keys().filter(|(kind, _)| *kind != Kind::PersistentChild);
        let paths: Vec<String> = known.map(|(_, path)| path.as_str().to_owned()).collect();
        let count = paths.len();
        (paths.into_iter().collect(), count)
    }

    /// Number of the client's watches.
    pub(crate) fn count(&self) -> usize {
        self.lock().watches.len()
    }

    /// The events of this group that the client has to receive now. Watches with the same event produce it once.
    pub(crate) fn tell(&self, group: &WatchGroup) -> Vec<Event> {
        let mut inner = self.lock();
        let mut all = Vec::new();
        for event in &group.events {
            let first = all.len();
            for id in &event.ids {
                let Some(watch) = inner.watches.get_mut(id) else { continue };
                let Some((kind, path)) = seen(watch, event.change.kind, &event.change.path) else { continue };
                let event = Event {
                    zxid: group.zxid.0.cast_signed(),
                    event: WatcherEvent {
                        kind: kind.0,
                        state: KeeperState::SYNC_CONNECTED.0,
                        path: path.as_str().to_owned(),
                    },
                };
                match &mut watch.state {
                    State::Begun(seen) => seen.push(event),
                    State::Armed => {
                        let once = watch.kind.once();
                        if !all.iter().skip(first).any(|told| *told == event) {
                            all.push(event);
                        }
                        if once {
                            inner.forget(*id);
                        }
                    }
                    State::Refused(_) => {}
                }
            }
            // ZooKeeper sends the event of the znode first, and then that of its parent's children.
            if let Some(told) = all.get_mut(first..) {
                told.sort_by_key(|told: &Event| told.event.kind == EventType::NODE_CHILDREN_CHANGED.0);
            }
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code under this lock panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, kind: Kind, path: Path, state: State) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.watches.contains_key(&self.last) {
                self.watches.insert(self.last, Watch { kind, known: false, path, state });
                return self.last;
            }
        }
    }

    /// The client knows the watch. It replaces an older one on the same znode.
    fn arm(&mut self, id: u32) {
        let Some(watch) = self.watches.get(&id) else { return };
        if let Some(older) = self.armed.insert((watch.kind, watch.path.clone()), id) {
            self.watches.remove(&older);
            self.cancels.push(older);
        }
    }

    fn forget(&mut self, id: u32) {
        let Some(watch) = self.watches.remove(&id) else { return };
        let key = (watch.kind, watch.path);
        if self.armed.get(&key) == Some(&id) {
            self.armed.remove(&key);
        }
    }

    fn spec(&self, id: u32, from: Option<Zxid>) -> Option<WatchSpec> {
        let watch = self.watches.get(&id)?;
        let spec = WatchSpec::new(id, watch.path.clone(), watch.kind.scope());
        Some(WatchSpec { once: watch.kind.once(), from, ..spec })
    }
}

/// The event of a change for a watch, and its path: for changes of children, the parent's.
fn seen<'a>(watch: &'a Watch, change: ChangeKind, path: &'a Path) -> Option<(EventType, &'a Path)> {
    let own = *path == watch.path;
    match watch.kind {
        Kind::Child | Kind::PersistentChild => match change {
            ChangeKind::Deleted if own => Some((EventType::NODE_DELETED, path)),
            ChangeKind::Touched => Some((EventType::NODE_CHILDREN_CHANGED, &watch.path)),
            ChangeKind::Created | ChangeKind::Deleted if !own => {
                Some((EventType::NODE_CHILDREN_CHANGED, &watch.path))
            }
            _ => None,
        },
        Kind::Data | Kind::Persistent | Kind::Recursive => match change {
            ChangeKind::Created if watch.known => Some((EventType::NODE_DATA_CHANGED, path)),
            ChangeKind::Created => Some((EventType::NODE_CREATED, path)),
            ChangeKind::Deleted => Some((EventType::NODE_DELETED, path)),
            ChangeKind::DataChanged | ChangeKind::Touched => Some((EventType::NODE_DATA_CHANGED, path)),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use api::{
        Stat,
        watch::{Change, WatchEvent},
    };

    use super::*;

    fn path(text: &str) -> Path {
        Path::new(text).unwrap()
    }

    fn group(ids: &[u32], kind: ChangeKind, of: &str) -> WatchGroup {
        let change = Arc::new(Change {
            kind,
            path: path(of),
            stat: Stat::default(),
            data: None,
            acl: Default::default(),
            above: Default::default(),
        });
        let event = WatchEvent { ids: ids.to_vec(), change, with_data: false };
        WatchGroup { zxid: Zxid(9), events: vec![event], more: false }
    }

    fn told(events: Vec<Event>) -> Vec<(EventType, String)> {
        events.into_iter().map(|e| (EventType(e.event.kind), e.event.path)).collect()
    }

    #[test]
    fn what_is_seen_before_the_reply_is_told_behind_it() {
        let watches = Watches::default();
        let (id, add) = watches.begin(Kind::Data, path("/a"));
        assert_eq!((add.specs[0].id, add.specs[0].once), (id, true));
        assert!(watches.tell(&group(&[id], ChangeKind::DataChanged, "/a")).is_empty());
        assert_eq!(told(watches.settle(id, true).unwrap()), [(EventType::NODE_DATA_CHANGED, "/a".into())]);
        assert_eq!(watches.count(), 0, "it has fired");
        let (id, _) = watches.begin(Kind::Data, path("/a"));
        assert!(watches.settle(id, false).unwrap().is_empty());
        assert_eq!((watches.take_cancels(), watches.count()), (vec![id], 0), "the read has failed");
        let (id, _) = watches.begin(Kind::Data, path("/a"));
        watches.refused([id], Code::BAD_ARGUMENTS);
        assert_eq!(watches.settle(id, true), Err(Code::BAD_ARGUMENTS));
    }

    #[test]
    fn a_change_is_told_once_and_a_second_watch_takes_the_place_of_the_first() {
        let watches = Watches::default();
        let armed = |kind| {
            let (id, _) = watches.begin(kind, path("/a"));
            watches.settle(id, true).unwrap();
            id
        };
        let (first, second, child) = (armed(Kind::Data), armed(Kind::Data), armed(Kind::Child));
        assert_eq!(watches.take_cancels(), [first]);
        let gone = watches.tell(&group(&[first, second, child], ChangeKind::Deleted, "/a"));
        assert_eq!(told(gone), [(EventType::NODE_DELETED, "/a".into())]);
        assert_eq!(watches.count(), 0);
    }

    #[test]
    fn children_are_told_by_their_parent_and_trees_by_what_changed() {
        let watches = Watches::default();
        let ids: Vec<u32> =
            watches.add(Kind::named(3).unwrap(), &path("/a"), None).iter().map(|spec| spec.id).collect();
        let created = told(watches.tell(&group(&ids, ChangeKind::Created, "/a/b")));
        // The store names only the watches that the change concerns; the others would receive an event of another
        // znode.
        assert!(created.contains(&(EventType::NODE_CHILDREN_CHANGED, "/a".into())));
        assert!(created.contains(&(EventType::NODE_CREATED, "/a/b".into())));
        assert!(watches.add(&[Kind::Recursive], &path("/a"), None).is_empty(), "it is there already");
        assert!(watches.has(&[Kind::Recursive], &path("/a")));
        assert_eq!(watches.remove(&[Kind::Recursive], &path("/a")).len(), 1);
        assert!(!watches.has(&[Kind::Recursive], &path("/a")));
    }

    #[test]
    fn a_change_is_told_of_the_znode_before_its_parent() {
        let watches = Watches::default();
        let ids: Vec<u32> = [("/a", Kind::Child), ("/a/b", Kind::Data)]
            .into_iter()
            .flat_map(|(of, kind)| watches.add(&[kind], &path(of), None))
            .map(|spec| spec.id)
            .collect();
        let told = watches.tell(&group(&ids, ChangeKind::Deleted, "/a/b"));
        let kinds: Vec<_> = told.iter().map(|told| EventType(told.event.kind)).collect();
        assert_eq!(kinds, [EventType::NODE_DELETED, EventType::NODE_CHILDREN_CHANGED]);
    }

    #[test]
    fn watches_are_set_again_behind_what_the_client_has_seen() {
        let watches = Watches::default();
        let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let sets = SetWatches {
            relative_zxid: 7,
            data: list(&["/a", "/a/"]),
            exist: list(&["/b", "/a"]),
            child: list(&["/a"]),
        };
        let add = watches.set_again(&sets, &list(&["/p"]), &list(&["/r"]), 9).unwrap();
        let specs: Vec<_> = add.specs.iter().map(|s| (s.path.as_str(), s.scope, s.once, s.from)).collect();
        use WatchScope::{Children, Node, Tree};
        let from = Some(Zxid(7));
        assert_eq!(
            specs,
            [
                ("/a", Node, true, from),
                ("/b", Node, true, from),
                ("/a", Children, true, from),
                ("/p", Node, false, None),
                ("/p", Children, false, None),
                ("/r", Tree, false, None),
            ],
            "each once"
        );
        assert!(watches.set_again(&sets, &[], &[], 10).is_none(), "6 there are, and 5 more");
        assert_eq!(watches.count(), 6);
    }
}
