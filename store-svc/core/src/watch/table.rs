//! The registered watches. A change costs one lookup for its znode, one for the parent, and one for
//! each ancestor at a depth where a subtree watch exists; the number of other watches does not matter.
//! To add or remove a watch costs a logarithm of the watches of its path and of its stream, because one
//! client may have all of its watches on one path. The watches of an ended stream are removed in parts.
//!
//! A watch uses 24 bytes here, and 4 to 5 each in the list of its path and in that of its stream. A path
//! uses some 150 bytes, independent of its number of watches.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use api::{
    Identities, Path, Zxid,
    watch::{Change, ChangeKind, ChangeKinds, WatchScope, WatchSpec},
};

use crate::{server::ConnId, sorted::Sorted};

/// Approximate size of a watch, and of a path besides its text, in bytes.
const WATCH: usize = 40;
const PATH: usize = 160;

/// Watches, by path and by stream.
#[derive(Default, Debug)]
pub(super) struct Table {
    watches: Slots<Watch>,
    paths: Slots<Watched>,
    by_path: HashMap<Path, u32>,
    streams: Slots<Stream>,
    by_conn: BTreeMap<ConnId, u32>,
    /// Number of subtree watches by the number of path elements.
    trees: Vec<u32>,
    /// Approximate bytes of the watched paths in memory; each counts once.
    path_bytes: usize,
    /// Ended streams, and their watches that are not removed yet. No connection leads to them.
    ending: VecDeque<(u32, Vec<u32>)>,
}

/// A watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    path: u32,
    stream: u32,
    pub(super) id: u32,
    kinds: ChangeKinds,
    scope: WatchScope,
    pub(super) once: bool,
    with_data: bool,
    /// It has received all events up to this entry, and receives none of them again.
    pub(super) floor: Zxid,
}

/// A watched path.
#[derive(Debug)]
struct Watched {
    path: Path,
    watches: List,
    /// Number of subtree watches among them.
    trees: u32,
}

/// Watches of one path, by stream.
#[derive(Debug)]
enum List {
    Empty,
    One(u32),
    Many(Box<Sorted<u32>>),
}

/// A client's stream with watches.
#[derive(Debug)]
struct Stream {
    conn: ConnId,
    /// By id.
    watches: Sorted<u32>,
    /// Total bytes of their paths; a path counts for each of its watches.
    bytes: usize,
}

/// The part of a change for one stream: the watch ids, whether a watch wants the value, and the ids
/// that end with it.
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

    /// Approximate size of all watches and their paths in memory.
    pub(super) fn bytes(&self) -> usize {
        self.path_bytes + WATCH * self.len()
    }

    /// With one more watch of a connection: the bytes of the paths of its watches, and those of the node
    /// for [all watches](Table::bytes).
    pub(super) fn bytes_with(&self, conn: ConnId, path: &Path) -> (usize, usize) {
        let (len, known) = (path.as_str().len(), self.by_path.contains_key(path));
        let of_conn = self.stream(conn).map_or(0, |(_, stream)| stream.bytes);
        (of_conn + len, self.bytes() + WATCH + if known { 0 } else { PATH + len })
    }

    /// The connections with watches, in order.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.by_conn.keys().copied()
    }

    /// Number of watches of a connection.
    pub(super) fn count(&self, conn: ConnId) -> usize {
        self.stream(conn).map_or(0, |(_, stream)| stream.watches.len() as usize)
    }

    pub(super) fn has(&self, conn: ConnId, id: u32) -> bool {
        self.find(conn, id).is_some()
    }

    /// Adds a watch with an id that is new for the connection. It receives nothing up to `floor`.
    pub(super) fn insert(&mut self, conn: ConnId, spec: &WatchSpec, floor: Zxid) {
        let Table { by_conn, streams, .. } = self;
        let new = || streams.insert(Stream { conn, watches: Sorted::default(), bytes: 0 });
        let stream = *by_conn.entry(conn).or_insert_with(new);
        let known = self.by_path.get(&spec.path).copied();
        let path = known.unwrap_or_else(|| {
            let watches = List::Empty;
            let path = self.paths.insert(Watched { path: spec.path.clone(), watches, trees: 0 });
            self.by_path.insert(spec.path.clone(), path);
            self.path_bytes += PATH + spec.path.as_str().len();
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
        let Table { watches, paths, streams, .. } = self;
        if let Some(stream) = streams.get_mut(stream) {
            stream.watches.insert(number, |other| id_of(watches, other).cmp(&spec.id));
            stream.bytes += spec.path.as_str().len();
        }
        if let Some(watched) = paths.get_mut(path) {
            watched.watches.insert(number, |other| key(watches, other).cmp(&(stream, number)));
            watched.trees += u32::from(spec.scope == WatchScope::Tree);
        }
    }

    /// Removes a watch. Returns false if this id does not exist.
    pub(super) fn remove(&mut self, conn: ConnId, id: u32) -> bool {
        let Some(watch) = self.find(conn, id) else { return false };
        let Table { watches, streams, by_conn, paths, .. } = self;
        let Some(&number) = by_conn.get(&conn) else { return false };
        let Some(stream) = streams.get_mut(number) else { return false };
        let path = watches.get(watch).and_then(|watch| paths.get(watch.path));
        stream.bytes -= path.map_or(0, |watched| watched.path.as_str().len());
        stream.watches.remove(watch, |other| id_of(watches, other).cmp(&id));
        // A stream without watches is not stored.
        if stream.watches.len() == 0 {
            by_conn.remove(&conn);
            streams.remove(number);
        }
        self.drop_watch(watch);
        true
    }

    /// Ends a connection: it has no watches from now on. [`Table::sweep`] removes them.
    pub(super) fn close(&mut self, conn: ConnId) {
        let Some(number) = self.by_conn.remove(&conn) else { return };
        let Some(stream) = self.streams.get_mut(number) else { return };
        self.ending.push_back((number, std::mem::take(&mut stream.watches).iter().collect()));
    }

    /// Whether ended streams have watches that are not removed yet.
    pub(super) fn is_sweeping(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Removes at most this many watches of ended streams.
    pub(super) fn sweep(&mut self, most: usize) {
        for _ in 0..most {
            let Some((stream, watches)) = self.ending.front_mut() else { return };
            match watches.pop() {
                Some(watch) => self.drop_watch(watch),
                None => {
                    self.streams.remove(*stream);
                    self.ending.pop_front();
                }
            }
        }
    }

    /// The watches of a connection, by id.
    pub(super) fn of(&self, conn: ConnId) -> impl Iterator<Item = &Watch> + '_ {
        let numbers = self.stream(conn).map(|(_, stream)| stream.watches.iter());
        numbers.into_iter().flatten().filter_map(|number| self.watches.get(number))
    }

    /// The watch as the client requested it.
    pub(super) fn spec(&self, watch: &Watch) -> Option<WatchSpec> {
        let path = self.paths.get(watch.path)?.path.clone();
        let Watch { id, kinds, scope, once, with_data, .. } = *watch;
        Some(WatchSpec { kinds, once, with_data, ..WatchSpec::new(id, path, scope) })
    }

    /// Raises the floor of all watches of a connection, which have received everything up to `floor`.
    pub(super) fn raise(&mut self, conn: ConnId, floor: Zxid) {
        let Table { watches, streams, by_conn, .. } = self;
        let Some(stream) = by_conn.get(&conn).and_then(|&stream| streams.get(stream)) else { return };
        for number in stream.watches.iter() {
            if let Some(watch) = watches.get_mut(number) {
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

    /// The events of a change for all streams, or `only` for this connection. `caller` returns the
    /// identities of a connection; `None` skips it. A watch of a znode or its subtree sees what its
    /// client may read. A watch of children sees their names, if its client may read the parent (as
    /// with ZooKeeper's NodeChildrenChanged).
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
        for (above, _, watched) in self.concerned(change.path.as_str()) {
            let list = watched.watches.from(|number| match only {
                Some(stream) => from_stream(&self.watches, number, stream),
                None => Ordering::Greater,
            });
            let sees = |watch: &Watch| {
                watch.kinds.contains(change.kind)
                    && zxid > watch.floor
                    && match watch.scope {
                        WatchScope::Node => above == 0,
                        WatchScope::Children => {
                            above == 1 || above == 0 && change.kind == ChangeKind::Deleted
                        }
                        WatchScope::Tree => true,
                    }
            };
            let watches = list.filter_map(|number| Some((number, self.watches.get(number)?)));
            let watches = watches.take_while(|(_, watch)| only.is_none_or(|stream| watch.stream == stream));
            found.extend(
                watches.filter(|(_, watch)| sees(watch)).map(|(number, watch)| (watch.stream, number)),
            );
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

    /// If the changes of an entry have more than about `most` events: the connections that may get some
    /// of them.
    pub(super) fn audience(&self, changes: &[Arc<Change>], most: usize) -> Option<BTreeSet<ConnId>> {
        let concerned = || changes.iter().flat_map(|change| self.concerned(change.path.as_str()));
        let events = |(above, _, watched): (usize, u32, &Watched)| match above {
            0 | 1 => watched.watches.len(),
            _ => watched.trees as usize,
        };
        let mut sum = 0;
        if concerned().map(events).all(|events| {
            sum += events;
            sum <= most
        }) {
            return None;
        }
        let (mut seen, mut conns) = (HashSet::new(), BTreeSet::new());
        for (above, path, watched) in concerned() {
            // Changes of siblings concern the same watches above them.
            if !seen.insert((above.min(2), path)) {
                continue;
            }
            let numbers = watched.watches.from(|_| Ordering::Greater);
            let watches = numbers.filter_map(|number| self.watches.get(number));
            let watches = watches.filter(|watch| above < 2 || watch.scope == WatchScope::Tree);
            conns.extend(watches.filter_map(|watch| Some(self.streams.get(watch.stream)?.conn)));
        }
        Some(conns)
    }

    /// The watched paths whose watches may see a change of this znode: its own (0), its parent's (1), and
    /// those further above with subtree watches. Also returns the number of the path.
    fn concerned<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (usize, u32, &'a Watched)> + 'a {
        let up = std::iter::successors(Some((path, depth(path))), |&(path, depth)| {
            parent(path).map(|parent| (parent, depth - 1))
        });
        up.enumerate()
            .filter(|&(above, (_, depth))| above < 2 || self.trees.get(depth).is_some_and(|&trees| trees > 0))
            .filter_map(|(above, (path, _))| {
                let &number = self.by_path.get(path)?;
                Some((above, number, self.paths.get(number)?))
            })
    }

    fn stream(&self, conn: ConnId) -> Option<(u32, &Stream)> {
        let number = *self.by_conn.get(&conn)?;
        Some((number, self.streams.get(number)?))
    }

    fn find(&self, conn: ConnId, id: u32) -> Option<u32> {
        let (_, stream) = self.stream(conn)?;
        stream.watches.find(|number| id_of(&self.watches, number).cmp(&id))
    }

    fn drop_watch(&mut self, number: u32) {
        let Table { watches, paths, .. } = self;
        let Some(&watch) = watches.get(number) else { return };
        let Some(watched) = paths.get_mut(watch.path) else { return };
        watched.watches.remove(number, |other| key(watches, other).cmp(&(watch.stream, number)));
        if watch.scope == WatchScope::Tree {
            watched.trees -= 1;
            if let Some(trees) = self.trees.get_mut(depth(watched.path.as_str())) {
                *trees -= 1;
            }
        }
        if matches!(watched.watches, List::Empty)
            && let Some(watched) = paths.remove(watch.path)
        {
            self.by_path.remove(&watched.path);
            self.path_bytes -= PATH + watched.path.as_str().len();
            if self.by_path.capacity() > 8 * self.by_path.len().max(64) {
                self.by_path.shrink_to(2 * self.by_path.len());
            }
        }
        watches.remove(number);
    }
}

/// The order of the watches of a path.
fn key(watches: &Slots<Watch>, number: u32) -> (u32, u32) {
    (watches.get(number).map_or(0, |watch| watch.stream), number)
}

/// Finds the first watch of a stream among those of a path.
fn from_stream(watches: &Slots<Watch>, number: u32, stream: u32) -> Ordering {
    if key(watches, number).0 < stream { Ordering::Less } else { Ordering::Greater }
}

/// The order of the watches of a stream.
fn id_of(watches: &Slots<Watch>, number: u32) -> u32 {
    watches.get(number).map_or(0, |watch| watch.id)
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) | None => Some("/"),
        Some(at) => Some(&path[..at]),
    }
}

/// Number of path elements.
fn depth(path: &str) -> usize {
    if path == "/" { 0 } else { path.bytes().filter(|&b| b == b'/').count() }
}

impl List {
    fn len(&self) -> usize {
        match self {
            List::Empty => 0,
            List::One(_) => 1,
            List::Many(numbers) => numbers.len() as usize,
        }
    }

    /// All watches from a position on; a single one is not searched for.
    fn from(&self, order: impl Fn(u32) -> Ordering) -> impl Iterator<Item = u32> + '_ {
        let (one, many) = match self {
            List::Empty => (None, None),
            List::One(number) => (Some(*number), None),
            List::Many(numbers) => (None, Some(numbers.after(order))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, number: u32, order: impl Fn(u32) -> Ordering) {
        match self {
            List::Empty => *self = List::One(number),
            List::Many(numbers) => numbers.insert(number, order),
            List::One(other) => {
                let mut both = Box::new(Sorted::default());
                both.insert(*other, |_| Ordering::Equal);
                both.insert(number, order);
                *self = List::Many(both);
            }
        }
    }

    fn remove(&mut self, number: u32, order: impl Fn(u32) -> Ordering) {
        match self {
            List::Empty => {}
            List::One(_) => *self = List::Empty,
            List::Many(numbers) => {
                numbers.remove(number, order);
                if numbers.len() == 1
                    && let Some(last) = numbers.iter().next()
                {
                    *self = List::One(last);
                }
            }
        }
    }
}

/// Values by numbers; free numbers are reused.
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
                // Each value uses memory, so the number cannot overflow.
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
