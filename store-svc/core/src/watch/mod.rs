//! Watches: the events for each client. Pure: the server passes entries in and sends the resulting events.
//!
//! - [`table`]: the registered watches. They belong to their connection and are not part of the
//!   replicated state.
//! - [`history`]: the last changes. It provides the events after a zxid for a new watch, and the unsent
//!   events for a slow client.
//! - [`compare`]: the event of a one-shot watch that is older than the history.
//!
//! A connection receives events in log order, each entry as one group, and no watch receives an entry
//! twice: each watch has a floor, and the last step drops events at or below it.

mod compare;
mod history;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use api::{
    Identities, OpError, Zxid,
    mutants::{Mutant, is_on},
    session::Item,
    watch::{Change, StateRule, WatchEnded, WatchEvent, WatchGroup, WatchSpec},
};

use crate::{
    Tree,
    server::{ConnId, Limits},
};
use history::History;
use table::{Hit, Table};

/// Maximum number of history entries sent to one connection in one turn: about a millisecond of work.
pub(crate) const TURN: usize = 1_000;

/// A stream may have many watches of one path: this many take as long as one history entry.
const IDS: usize = 16;

/// Approximate maximum number of events that are sent when their entry is applied: some 20 ms of work.
const AT_ONCE: usize = 100_000;

/// Maximum number of watches of ended connections that are removed in one step: about a millisecond.
const SWEPT: usize = 1_000;

/// All watches of a node, and the history.
#[derive(Debug)]
pub(crate) struct Watches {
    table: Table,
    history: History,
    counted: Counted,
    /// All connections know that there are no further events up to this entry.
    marked: Zxid,
}

/// Figures about watches, for metrics.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WatchFigures {
    /// Number of watches.
    pub watches: usize,
    /// Number of watched paths.
    pub paths: usize,
    /// Approximate size of these watches and paths in memory.
    pub bytes: usize,
    /// Number of connections with watches.
    pub streams: usize,
    /// Number of changes in the history, and their bytes.
    pub history: (usize, usize),
    /// Time of the first of them, in milliseconds by the leader's clock.
    pub history_since_ms: Option<i64>,
    /// The history contains all changes after this entry.
    pub history_floor: Zxid,
    /// Counters since the start.
    pub counted: Counted,
}

/// Counters of watches.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Events sent, one for each change and connection.
    pub events: u64,
    /// Number of times that a connection lagged and resumed from the history later.
    pub lags: u64,
    /// Watches that ended because the history no longer contained their position.
    pub gone: u64,
    /// Rejected watches.
    pub refused: u64,
}

/// Why a lagging connection stopped at its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached {
    /// It reached its target.
    Bound,
    /// It has no more room.
    Room,
    /// Its turn ended.
    Turn,
}

/// The result of adding a watch.
pub(crate) enum Added {
    /// It receives events after this entry.
    Behind(Zxid),
    /// It fires at once, and is removed.
    Fires(Change),
    /// It begins with the current state.
    State,
    /// The history does not contain its start.
    Gone,
}

impl Watches {
    /// Creates an empty set of watches, and a history that starts after `applied`.
    pub(crate) fn new(applied: Zxid, limits: &Limits) -> Watches {
        Watches {
            table: Table::default(),
            history: History::new(applied, limits.history_entries, limits.history_bytes),
            counted: Counted::default(),
            marked: applied,
        }
    }

    pub(crate) fn figures(&self) -> WatchFigures {
        WatchFigures {
            watches: self.table.len(),
            paths: self.table.paths(),
            bytes: self.table.bytes(),
            streams: self.table.streams(),
            history: (self.history.len(), self.history.bytes()),
            history_since_ms: self.history.since_ms(),
            history_floor: self.history.floor(),
            counted: self.counted,
        }
    }

    /// Events after this entry are available.
    pub(crate) fn floor(&self) -> Zxid {
        self.history.floor()
    }

    /// Resets the history after another state has replaced this one, because the changes in between are
    /// unknown. There must be no watches.
    pub(crate) fn reset(&mut self, applied: Zxid) {
        if !is_on(Mutant::HistoryOverSnapshot) {
            self.history.reset(applied);
        }
        self.marked = applied;
    }

    pub(crate) fn has_streams(&self) -> bool {
        self.table.streams() > 0
    }

    /// The connections with watches, in order.
    pub(crate) fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.table.conns()
    }

    pub(crate) fn watches(&self, conn: ConnId) -> bool {
        self.table.count(conn) > 0
    }

    /// Handles an applied entry. `live` returns the identities of a connection that has received all
    /// events before it; `send` sends a group to a connection, and returns whether that was possible. If
    /// the entry has too many events to send them at once, `later` is called instead for each live
    /// connection that may get some: it takes them from the history, in a turn of its own. Returns true
    /// if all connections need a mark, because the history will soon drop entries that some do not know
    /// to have passed.
    pub(crate) fn applied(
        &mut self,
        zxid: Zxid,
        time_ms: i64,
        changes: &[Arc<Change>],
        live: impl Fn(ConnId) -> Option<Identities>,
        mut send: impl FnMut(ConnId, WatchGroup) -> bool,
        later: impl FnMut(ConnId),
    ) -> bool {
        self.history.push(zxid, time_ms, changes);
        let mut groups = BTreeMap::new();
        if let Some(conns) = self.table.audience(changes, AT_ONCE) {
            conns.into_iter().filter(|&conn| live(conn).is_some()).for_each(later);
        } else {
            for change in changes {
                for hit in self.table.hits(zxid, change, None, &live) {
                    enter(groups.entry(hit.conn).or_default(), change, hit);
                }
            }
        }
        for (conn, Told { events, over }) in groups {
            let count = events.len() as u64;
            if send(conn, WatchGroup { zxid, events, more: false }) {
                self.counted.events += count;
                self.end_all(conn, &over);
            } else {
                self.counted.lags += 1;
            }
        }
        let turned = self.history.floor() > self.marked;
        if turned {
            self.marked = zxid;
        }
        turned
    }

    /// Sends a connection the missing events after `cursor`, up to `bound`. `room` returns whether
    /// there is room for this many bytes. Each change that is matched takes one of `budget`, and more if
    /// many watches see it; an entry is matched as a whole.
    pub(crate) fn catch_up(
        &mut self,
        conn: ConnId,
        cursor: &mut Zxid,
        (bound, tree, caller): (Zxid, &Tree, &Identities),
        budget: &mut usize,
        mut room: impl FnMut(usize) -> bool,
        mut send: impl FnMut(Item),
    ) -> Reached {
        if *cursor < bound && *cursor < self.history.floor() {
            self.give_up(conn, *cursor, bound, (tree, caller), &mut send);
            *cursor = self.history.floor().min(bound);
        }
        while *cursor < bound && self.table.count(conn) > 0 {
            if *budget == 0 {
                return Reached::Turn;
            }
            let Watches { history, table, .. } = &*self;
            let next = history.next_after(*cursor).filter(|(zxid, _)| *zxid <= bound);
            let Some((zxid, told)) = next.map(|(zxid, changes)| {
                let mut told = Told::default();
                for change in changes {
                    *budget = budget.saturating_sub(1);
                    for hit in table.hits(zxid, change, Some(conn), &|_| Some(caller.clone())) {
                        *budget = budget.saturating_sub(hit.ids.len() / IDS);
                        enter(&mut told, change, hit);
                    }
                }
                (zxid, told)
            }) else {
                break;
            };
            let Told { events, over } = told;
            if !events.is_empty() {
                let count = events.len() as u64;
                let group = WatchGroup { zxid, events, more: false };
                if !room(group.weight()) {
                    return Reached::Room;
                }
                send(Item::Events(group));
                self.counted.events += count;
                self.end_all(conn, &over);
            }
            *cursor = zxid;
        }
        *cursor = bound.max(*cursor);
        Reached::Bound
    }

    /// Whether a watch may be added.
    pub(crate) fn check(&self, conn: ConnId, spec: &WatchSpec, limits: &Limits) -> Result<(), OpError> {
        let bad = |what: &str| Err(OpError::BadArguments(format!("WatchSpec.{what}")));
        let (of_conn, of_node) = (self.table.count(conn), self.table.len());
        let limit = |of: &str, limit: usize, actual: usize| OpError::LimitExceeded {
            what: of.to_owned(),
            limit: limit as u64,
            actual: actual as u64,
            remedy: "cancel unused watches, or watch a subtree with one watch instead of each znode"
                .to_owned(),
        };
        match spec {
            WatchSpec { id: 0, .. } => bad("id is 0; give each watch of a stream another number from 1 on"),
            WatchSpec { state: StateRule::Always, from: Some(_), .. } => bad(
                "from_zxid says where to go on, and STATE_RULE_ALWAYS says to begin anew; leave one of them out",
            ),
            WatchSpec { state: StateRule::Always | StateRule::IfGone, once: true, .. } => bad(
                "state: a watch that fires once reports only the next change; read the znode before it, or leave `once` out",
            ),
            WatchSpec { id, .. } if self.table.has(conn, *id) => bad(&format!(
                "id: the stream has a watch {id} already; cancel it first, or take another number"
            )),
            _ if of_conn >= limits.watches_session => {
                Err(limit("watches of this session", limits.watches_session, of_conn + 1))
            }
            _ if of_node >= limits.watches_node => {
                Err(limit("watches of this node", limits.watches_node, of_node + 1))
            }
            WatchSpec { path, .. } => {
                let (conn, node) = self.table.bytes_with(conn, path);
                let (of_conn, of_node) = (limits.watch_bytes_session, limits.watch_bytes_node);
                match (conn > of_conn, node > of_node) {
                    (true, _) => Err(limit("bytes of paths that this session watches", of_conn, conn)),
                    (_, true) => Err(limit("bytes of watches of this node", of_node, node)),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The result of adding a valid watch when the state is at `applied`.
    pub(crate) fn judge(&self, spec: &WatchSpec, applied: Zxid, tree: &Tree, caller: &Identities) -> Added {
        let Some(from) = spec.from else {
            return if spec.state == StateRule::Never { Added::Behind(applied) } else { Added::State };
        };
        let floor = match is_on(Mutant::BoundaryForgotten) {
            true => Zxid(self.history.floor().0.saturating_sub(1)),
            false => self.history.floor(),
        };
        match spec {
            _ if from >= floor => Added::Behind(from.min(applied)),
            WatchSpec { once: true, .. } => match compare::since(tree, caller, spec, from) {
                Some(change) => Added::Fires(change),
                None => Added::Behind(applied),
            },
            WatchSpec { state: StateRule::IfGone, .. } => Added::State,
            _ => Added::Gone,
        }
    }

    /// Adds a watch that was [checked](Watches::check).
    pub(crate) fn add(&mut self, conn: ConnId, spec: &WatchSpec, floor: Zxid) {
        self.table.insert(conn, spec, if is_on(Mutant::NoFloor) { Zxid::ZERO } else { floor });
    }

    /// Raises the floor of all watches of a connection, which have received their events up to this
    /// entry.
    pub(crate) fn raise(&mut self, conn: ConnId, floor: Zxid) {
        if !is_on(Mutant::NoFloor) {
            self.table.raise(conn, floor);
        }
    }

    /// Cancels a watch. Returns false if there is none.
    pub(crate) fn cancel(&mut self, conn: ConnId, id: u32) -> bool {
        self.table.remove(conn, id)
    }

    /// Ends the watches of a connection that has ended. If it had many, [`Watches::sweep`] removes the
    /// rest; until then they count, but see nothing.
    pub(crate) fn close(&mut self, conn: ConnId) {
        self.table.close(conn);
        self.sweep();
    }

    /// Removes some watches of connections that have ended.
    pub(crate) fn sweep(&mut self) {
        self.table.sweep(SWEPT);
    }

    /// Whether there is more to [sweep](Watches::sweep).
    pub(crate) fn is_sweeping(&self) -> bool {
        self.table.is_sweeping()
    }

    /// The ids of all watches of a connection.
    pub(crate) fn ids(&self, conn: ConnId) -> Vec<u32> {
        self.table.of(conn).map(|watch| watch.id).collect()
    }

    pub(crate) fn count_refused(&mut self, refused: usize, gone: usize) {
        self.counted.refused += refused as u64;
        self.counted.gone += gone as u64;
    }

    /// Handles a connection whose next events the history has dropped.
    fn give_up(
        &mut self,
        conn: ConnId,
        cursor: Zxid,
        bound: Zxid,
        (tree, caller): (&Tree, &Identities),
        send: &mut impl FnMut(Item),
    ) {
        let oldest = self.history.floor();
        if is_on(Mutant::LagForgotten) {
            return;
        }
        let (mut ended, mut events, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for watch in self.table.of(conn).filter(|watch| watch.floor.max(cursor) < oldest) {
            if !watch.once {
                ended.push(watch.id);
            } else if let Some(spec) = self.table.spec(watch) {
                match compare::since(tree, caller, &spec, watch.floor.max(cursor)) {
                    Some(change) => events.push(event(watch.id, change)),
                    None => seen.push(watch.id),
                }
            }
        }
        // The comparison used the state after `bound`.
        seen.iter().for_each(|&id| self.table.raise_one(conn, id, bound));
        self.end_all(conn, &ended);
        self.counted.gone += ended.len() as u64;
        if !ended.is_empty() {
            let error = OpError::Gone { oldest };
            send(Item::Ended(WatchEnded { ids: ended, error, last: cursor, oldest }));
        }
        let fired: Vec<u32> = events.iter().flat_map(|event: &WatchEvent| event.ids.clone()).collect();
        self.end_all(conn, &fired);
        if !events.is_empty() {
            self.counted.events += events.len() as u64;
            send(Item::Events(WatchGroup { zxid: oldest, events, more: false }));
        }
    }

    fn end_all(&mut self, conn: ConnId, ids: &[u32]) {
        for &id in ids {
            self.table.remove(conn, id);
        }
    }
}

/// The events of an entry for one connection.
#[derive(Default)]
struct Told {
    events: Vec<WatchEvent>,
    /// Watches that end with this entry.
    over: Vec<u32>,
}

fn enter(told: &mut Told, change: &Arc<Change>, hit: Hit) {
    told.over.extend(hit.over);
    let change = if hit.shown { change.clone() } else { Arc::new(change.without_content()) };
    told.events.push(WatchEvent { ids: hit.ids, with_data: hit.with_data && hit.shown, change });
}

/// A change for this watch only.
pub(crate) fn event(id: u32, change: Change) -> WatchEvent {
    let with_data = change.data.is_some();
    WatchEvent { ids: vec![id], change: Arc::new(change), with_data }
}

#[cfg(test)]
mod tests;
