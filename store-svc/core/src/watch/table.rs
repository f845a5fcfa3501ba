//! Who watches what. A change costs one look for its znode, one for the parent and one for each ancestor at whose depth there is
//! a watch of a whole subtree; how many other watches there are does not matter.
//!
//! A watch takes 24 bytes here, 4 in the list of its path and 4 in that of its stream. A path takes some 150 bytes, however many
//! watch it.

use std::collections::{BTreeMap, HashMap};

use api::{
    Identities, Path, Zxid,
    watch::{Change, ChangeKind, ChangeKinds, WatchScope, WatchSpec},
};

use crate::server::ConnId;

/// Watches, by path and by stream.
#[derive(Default, Debug)]
pub(super) struct Table {
    watches: Slots<Watch>,
    paths: Slots<Watched>,
    by_path: HashMap<Path, u32>,
    streams: Slots<Stream>,
    by_conn: BTreeMap<ConnId, u32>,
    /// How many watches of subtrees there are of paths with so many elements.
    trees: Vec<u32>,
}

/// One watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    path: u32,
    stream: u32,
    pub(super) id: u32,
    kinds: ChangeKinds,
    scope: WatchScope,
    pub(super) once: bool,
    with_data: bool,
    /// It was told of everything up to here, and is told nothing of it again.
    pub(super) floor: Zxid,
}

/// A path that is watched.
#[derive(Debug)]
struct Watched {
    path: Path,
    watches: List,
}

/// Watches of one path, by stream.
#[derive(Debug)]
enum List {
    One(u32),
    Many(Vec<u32>),
}

/// The stream of one client that has watches.
#[derive(Debug)]
struct Stream {
    conn: ConnId,
    /// By their ids.
    watches: Vec<u32>,
}

/// A change as it concerns one stream: the ids, whether a watch wants the value, and those that are over with it.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) conn: ConnId,
    pub(super) ids: Vec<u32>,
    pub(super) with_data: bool,
    /// Whether the client may see more than the name.
    pub(super) shown: bool,
    pub(super) over: Vec<u32>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.watches.len
    }

    pub(super) fn streams(&self) -> usize {
        self.by_conn.len()
    }

    pub(super) fn paths(&self) -> usize {
        self.by_path.len()
    }

    /// The connections that have watches, in order.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.by_conn.keys().copied()
    }

    /// How many watches a connection has.
    pub(super) fn count(&self, conn: ConnId) -> usize {
        self.stream(conn).map_or(0, |(_, stream)| stream.watches.len())
    }

    pub(super) fn has(&self, conn: ConnId, id: u32) -> bool {
        self.find(conn, id).is_some()
    }

    /// Takes in a watch whose id the connection does not have. It is told of nothing up to `floor`.
    pub(super) fn insert(&mut self, conn: ConnId, spec: &WatchSpec, floor: Zxid) {
        let Table { by_conn, streams, .. } = self;
        let stream =
            *by_conn.entry(conn).or_insert_with(|| streams.insert(Stream { conn, watches: Vec::new() }));
        let Some(place) = self.streams.get(stream).map(|s| self.place(s, spec.id).unwrap_or_else(|at| at))
        else {
            return;
        };
        let known = self.by_path.get(&spec.path).copied();
        let path = known.unwrap_or_else(|| {
            let watches = List::Many(Vec::new());
            let path = self.paths.insert(Watched { path: spec.path.clone(), watches });
            self.by_path.insert(spec.path.clone(), path);
            path
        });
        let number = self.watches.insert(Watch {
            path,
            stream,
            id: spec.id,
            kinds: spec.effective_kinds(),
            scope: spec.scope,
            once: spec.once,
            with_data: spec.with_data,
            floor,
        });
        if spec.scope == WatchScope::Tree {
            let depth = depth(spec.path.as_str());
            if self.trees.len() <= depth {
                self.trees.resize(depth + 1, 0);
            }
            self.trees[depth] += 1;
        }
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.watches.insert(place, number);
        }
        let Table { watches, paths, .. } = self;
        if let Some(watched) = paths.get_mut(path) {
            watched.watches.insert(number, |other| key(watches, other).cmp(&(stream, number)));
        }
    }

    /// Takes a watch out. False if there is none of this id.
    pub(super) fn remove(&mut self, conn: ConnId, id: u32) -> bool {
        let Some((number, stream)) = self.stream(conn) else { return false };
        let Ok(place) = self.place(stream, id) else { return false };
        let Some(stream) = self.streams.get_mut(number) else { return false };
        let watch = stream.watches.remove(place);
        // A stream that watches nothing is none of ours.
        if stream.watches.is_empty() {
            self.streams.remove(number);
            self.by_conn.remove(&conn);
        }
        self.drop_watch(watch);
        true
    }

    /// Takes out all that a connection has.
    pub(super) fn close(&mut self, conn: ConnId) {
        let Some(stream) = self.by_conn.remove(&conn).and_then(|stream| self.streams.remove(stream)) else {
            return;
        };
        stream.watches.into_iter().for_each(|number| self.drop_watch(number));
    }

    /// The watches of a connection, by their ids.
    pub(super) fn of(&self, conn: ConnId) -> impl Iterator<Item = &Watch> + '_ {
        let numbers = self.stream(conn).map(|(_, stream)| &stream.watches[..]).unwrap_or_default();
        numbers.iter().filter_map(|&number| self.watches.get(number))
    }

    /// The watch as it was asked for.
    pub(super) fn spec(&self, watch: &Watch) -> Option<WatchSpec> {
        let path = self.paths.get(watch.path)?.path.clone();
        let Watch { id, kinds, scope, once, with_data, .. } = *watch;
        Some(WatchSpec { kinds, once, with_data, ..WatchSpec::new(id, path, scope) })
    }

    /// The watches of a connection were told of everything up to `floor`.
    pub(super) fn raise(&mut self, conn: ConnId, floor: Zxid) {
        let Some(stream) = self.by_conn.get(&conn).and_then(|&stream| self.streams.get(stream)) else {
            return;
        };
        for &number in &stream.watches {
            if let Some(watch) = self.watches.get_mut(number) {
                watch.floor = watch.floor.max(floor);
            }
        }
    }

    /// The same for one watch.
    pub(super) fn raise_one(&mut self, conn: ConnId, id: u32, floor: Zxid) {
        if let Some(watch) = self.find(conn, id).and_then(|number| self.watches.get_mut(number)) {
            watch.floor = watch.floor.max(floor);
        }
    }

    /// What a change means to all streams, or to that of `only` this connection. `caller` says who has a connection; `None` leaves
    /// it out. A watch of a znode, or of all below it, sees what its client may read; a watch of children their names, if its client may read
    /// the parent (as ZooKeeper's NodeChildrenChanged).
    pub(super) fn hits(
        &self,
        zxid: Zxid,
        change: &Change,
        only: Option<ConnId>,
        caller: &dyn Fn(ConnId) -> Option<Identities>,
    ) -> Vec<Hit> {
        if self.by_path.is_empty() {
            return Vec::new();
        }
        let only = match only.map(|conn| self.by_conn.get(&conn).copied()) {
            None => None,
            Some(Some(stream)) => Some(stream),
            Some(None) => return Vec::new(),
        };
        let mut found = Vec::new();
        let mut look = |path: &str, sees: &dyn Fn(&Watch) -> bool| {
            let Some(watched) = self.by_path.get(path).and_then(|&path| self.paths.get(path)) else { return };
            let list = watched.watches.as_slice();
            let list = match only {
                None => list,
                Some(stream) => {
                    let begin = list.partition_point(|&number| key(&self.watches, number).0 < stream);
                    let len = list[begin..].partition_point(|&number| key(&self.watches, number).0 == stream);
                    &list[begin..begin + len]
                }
            };
            let watches = list.iter().filter_map(|&number| Some((number, self.watches.get(number)?)));
            let sees = |watch: &Watch| watch.kinds.contains(change.kind) && zxid > watch.floor && sees(watch);
            found.extend(
                watches.filter(|(_, watch)| sees(watch)).map(|(number, watch)| (watch.stream, number)),
            );
        };
        let path = change.path.as_str();
        look(path, &|watch| match watch.scope {
            WatchScope::Node | WatchScope::Tree => true,
            WatchScope::Children => change.kind == ChangeKind::Deleted,
        });
        let (mut above, mut is_parent) = (parent(path), true);
        let mut depth = depth(path);
        while let Some(path) = above {
            depth -= 1;
            if is_parent || self.trees.get(depth).is_some_and(|&trees| trees > 0) {
                look(path, &|watch| match watch.scope {
                    WatchScope::Node => false,
                    WatchScope::Children => is_parent,
                    WatchScope::Tree => true,
                });
            }
            (above, is_parent) = (parent(path), false);
        }
        found.sort_unstable();
        let (mut hits, mut last, mut rights): (Vec<Hit>, _, _) = (Vec::new(), None, (false, false));
        for (stream, number) in found {
            let (Some(watch), Some(Stream { conn, .. })) =
                (self.watches.get(number), self.streams.get(stream))
            else {
                continue;
            };
            if last.replace(stream) != Some(stream) {
                rights = caller(*conn).map_or((false, false), |c| (change.shows(&c), change.names(&c)));
            }
            let (shown, named) = rights;
            let of_parent = watch.scope == WatchScope::Children
                && self.paths.get(watch.path).is_some_and(|watched| watched.path != change.path);
            if !(if of_parent { named } else { shown }) {
                continue;
            }
            if hits.last().is_none_or(|hit| hit.conn != *conn) {
                hits.push(Hit { conn: *conn, ids: Vec::new(), with_data: false, shown, over: Vec::new() });
            }
            if let Some(hit) = hits.last_mut() {
                hit.ids.push(watch.id);
                hit.with_data |= watch.with_data;
                if watch.once {
                    hit.over.push(watch.id);
                }
            }
        }
        hits
    }

    fn stream(&self, conn: ConnId) -> Option<(u32, &Stream)> {
        let number = *self.by_conn.get(&conn)?;
        Some((number, self.streams.get(number)?))
    }

    fn find(&self, conn: ConnId, id: u32) -> Option<u32> {
        let (_, stream) = self.stream(conn)?;
        stream.watches.get(self.place(stream, id).ok()?).copied()
    }

    /// Where the watch of this id is, or would be, in the list of its stream.
    fn place(&self, stream: &Stream, id: u32) -> Result<usize, usize> {
        let id_of = |&number: &u32| self.watches.get(number).map_or(0, |watch| watch.id);
        // Most clients count upwards.
        match stream.watches.last() {
            Some(last) if id_of(last) < id => Err(stream.watches.len()),
            _ => stream.watches.binary_search_by_key(&id, id_of),
        }
    }

    fn drop_watch(&mut self, number: u32) {
        let Table { watches, paths, .. } = self;
        let Some(&watch) = watches.get(number) else { return };
        let Some(watched) = paths.get_mut(watch.path) else { return };
        watched.watches.remove(|other| key(watches, other).cmp(&(watch.stream, number)));
        if watch.scope == WatchScope::Tree
            && let Some(trees) = self.trees.get_mut(depth(watched.path.as_str()))
        {
            *trees -= 1;
        }
        if watched.watches.as_slice().is_empty()
            && let Some(watched) = paths.remove(watch.path)
        {
            self.by_path.remove(&watched.path);
            if self.by_path.capacity() > 8 * self.by_path.len().max(64) {
                self.by_path.shrink_to(2 * self.by_path.len());
            }
        }
        watches.remove(number);
    }
}

fn key(watches: &Slots<Watch>, number: u32) -> (u32, u32) {
    (watches.get(number).map_or(0, |watch| watch.stream), number)
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) | None => Some("/"),
        Some(at) => Some(&path[..at]),
    }
}

/// How many elements a path has.
fn depth(path: &str) -> usize {
    if path == "/" { 0 } else { path.bytes().filter(|&b| b == b'/').count() }
}

impl List {
    fn as_slice(&self) -> &[u32] {
        match self {
            List::One(number) => std::slice::from_ref(number),
            List::Many(numbers) => numbers,
        }
    }

    fn insert(&mut self, number: u32, order: impl Fn(u32) -> std::cmp::Ordering) {
        match self {
            List::Many(numbers) if numbers.is_empty() => *self = List::One(number),
            List::Many(numbers) => {
                let at = numbers.binary_search_by(|&other| order(other)).unwrap_or_else(|at| at);
                numbers.insert(at, number);
            }
            List::One(other) => {
                let mut both = vec![*other, number];
                if order(*other).is_gt() {
                    both.reverse();
                }
                *self = List::Many(both);
            }
        }
    }

    fn remove(&mut self, order: impl Fn(u32) -> std::cmp::Ordering) {
        match self {
            List::One(_) => *self = List::Many(Vec::new()),
            List::Many(numbers) => {
                if let Ok(at) = numbers.binary_search_by(|&other| order(other)) {
                    numbers.remove(at);
                }
                match numbers[..] {
                    [last] => *self = List::One(last),
                    _ if numbers.capacity() > 4 * numbers.len() => numbers.shrink_to(2 * numbers.len()),
                    _ => {}
                }
            }
        }
    }
}

/// Values by numbers, which are used again.
#[derive(Debug)]
struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(value);
                number
            }
            None => {
                self.slots.push(Some(value));
                // Each one has taken memory: there are never so many.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.slots.get_mut(number as usize)?.take()?;
        self.len -= 1;
        self.free.push(number);
        if self.len == 0 {
            *self = Slots::default();
        }
        Some(value)
    }
}

const _: () = assert!(std::mem::size_of::<Option<Watch>>() == 24);
