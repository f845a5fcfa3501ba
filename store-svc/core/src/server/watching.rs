//! Watches and the order of a connection: the position of each item relative to the log entries.
//!
//! A connection is *live* while it receives the events of each entry when the entry is applied, before
//! any answer that reflects the entry. A connection without room for events, or with a new watch in the
//! past, is *behind*: it has a cursor into the history. Answers and states for it wait in the meantime,
//! each with the entry that it follows. So a slow client costs a cursor and its pending requests. It
//! receives everything in the same order as a fast client, or an error with the position where its
//! events end.

use api::{
    mutants::{Mutant, is_on},
    watch::{
        AddWatches, StateRule, WatchEnded, WatchGroup, WatchMark, WatchRefused, WatchState, WatchedZnode,
    },
};

use super::{connection::Conn, *};
use crate::watch::{Added, Reached, TURN, Watches, event};

/// Approximate maximum size of a group or state, in bytes; larger ones are split. A part has at least
/// one event or znode.
const PART_BYTES: usize = 256 << 10;

/// A connection without events gets a mark after this time, plus up to half of it, so that not all get
/// one at once.
const MARK_AFTER: Duration = Duration::from_secs(4);
/// Interval of the checks for marks.
const MARK_SWEEP: Duration = Duration::from_millis(500);

/// Bytes of events that a connection may have in transit, independent of the load of others.
const EVENTS_LEAST: usize = 16 << 10;

/// The parts of the server that are needed to send to watchers.
pub(super) struct Sender<'a> {
    pub(super) outbox: &'a mut Outbox,
    pub(super) answers: &'a mut Answers,
    pub(super) limits: &'a Limits,
    pub(super) now: Time,
}

impl Sender<'_> {
    /// Whether a connection has room for events of this weight, in addition to others that will be sent
    /// first.
    fn has_room(&self, conn: &Conn, coming: usize, weight: usize) -> bool {
        let allowed = self.answers.allowance(self.limits).min(self.limits.events_max).max(EVENTS_LEAST);
        let unsent = conn.unsent().saturating_sub(conn.behind_weight) + coming;
        // A group that is larger than a share goes out alone.
        unsent + weight <= allowed || unsent == 0 && self.answers.allows(self.limits, 0, weight)
    }

    /// Sends an item that was not counted before.
    fn send(&mut self, id: ConnId, conn: &mut Conn, item: Item) {
        let weight = item.weight();
        conn.count_unsent(weight);
        self.answers.sent_to_shell(weight);
        self.outbox.send(id, &mut conn.place, item);
    }

    /// Sends a group, or another item, in parts.
    fn send_parts(&mut self, id: ConnId, conn: &mut Conn, item: Item) {
        match item {
            Item::Events(group) => {
                conn.told = (group.zxid, self.now);
                parts(group).into_iter().for_each(|part| self.send(id, conn, Item::Events(part)));
            }
            other => self.send(id, conn, other),
        }
    }

    /// Sends the items that wait for `reached` or an earlier entry.
    fn send_behind(&mut self, id: ConnId, conn: &mut Conn, reached: Zxid) {
        while let Some((_, item)) = conn.behind.pop_front_if(|(after, _)| *after <= reached) {
            conn.behind_weight -= item.weight();
            self.outbox.send(id, &mut conn.place, item);
        }
        if conn.behind.is_empty() {
            conn.behind = Default::default();
        }
    }
}

impl Conn {
    /// Sends an answer, or a part of one, after all events up to `applied`.
    pub(super) fn answer(&mut self, id: ConnId, outbox: &mut Outbox, applied: Zxid, now: Time, item: Item) {
        let weight = item.weight();
        self.count_unsent(weight);
        if self.cursor.is_some() {
            self.behind_weight += weight;
            self.behind.push_back((applied, item));
        } else {
            self.told = (applied, now);
            outbox.send(id, &mut self.place, item);
        }
    }
}

/// Advances a connection that is behind as far as there is room, and sends the items that follow its events.
pub(super) fn catch_up(
    conn: &mut Conn,
    id: ConnId,
    watches: &mut Watches,
    state: &State,
    sender: &mut Sender<'_>,
) {
    // To match a large entry again takes long, and it still has no room.
    if conn.next_group > 0 && !sender.has_room(conn, 0, conn.next_group) {
        return sender.answers.wait(id);
    }
    if conn.cursor.is_some() && sender.answers.is_spent(false) {
        return sender.answers.again_later(id);
    }
    let mut budget = TURN;
    while let Some(mut cursor) = conn.cursor {
        let bound = conn.behind.front().map_or(state.applied(), |(after, _)| *after);
        let mut sent = Vec::new();
        // Counted immediately: `room` must include earlier items.
        let (mut coming, mut next_group) = (0, 0);
        let room = |weight| {
            let fits = sender.has_room(conn, coming, weight);
            (coming, next_group) = if fits { (coming + weight, 0) } else { (coming, weight) };
            fits
        };
        let means = (bound, state.tree(), &conn.identities);
        let left = budget;
        let reached = watches.catch_up(id, &mut cursor, means, &mut budget, room, |item| sent.push(item));
        sender.answers.worked(16 * (left - budget));
        conn.next_group = next_group;
        sent.into_iter().for_each(|item| sender.send_parts(id, conn, item));
        conn.cursor = Some(cursor);
        match reached {
            Reached::Bound => {
                sender.send_behind(id, conn, cursor);
                if conn.behind.is_empty() && cursor >= state.applied() {
                    conn.cursor = None;
                }
            }
            Reached::Room => return sender.answers.wait(id),
            Reached::Turn => return sender.answers.again_later(id),
        }
    }
}

/// Adds watches, sends the items before the answer, and returns the answer.
pub(super) fn add(
    conn: &mut Conn,
    id: ConnId,
    watches: &mut Watches,
    state: &State,
    sender: &mut Sender<'_>,
    add: AddWatches,
) -> Vec<WatchRefused> {
    let AddWatches { specs, mut refused } = add;
    let (applied, tree) = (state.applied(), state.tree());
    let judged: Vec<_> =
        specs.into_iter().map(|spec| (watches.judge(&spec, applied, tree, &conn.identities), spec)).collect();
    let position = conn.cursor.unwrap_or(applied);
    let from = judged.iter().filter_map(|(added, _)| match added {
        Added::Behind(from) => Some(*from),
        _ => None,
    });
    if let Some(from) = from.min().filter(|from| *from < position) {
        watches.raise(id, position);
        conn.cursor = Some(from);
    }
    let (mut ended, mut fired, mut items) = (BTreeMap::<Zxid, Vec<u32>>::new(), Vec::new(), Vec::new());
    // For all watches of the request together.
    let mut room = (crate::tree::STATE_ZNODES, crate::Tree::STATE_BYTES);
    for (added, spec) in judged {
        if let Err(error) = watches.check(id, &spec, sender.limits) {
            refused.push(WatchRefused { id: spec.id, error });
            continue;
        }
        match added {
            Added::Behind(floor) => watches.add(id, &spec, floor),
            Added::Fires(change) => fired.push(event(spec.id, change)),
            Added::Gone => ended.entry(spec.from.unwrap_or_default()).or_default().push(spec.id),
            Added::State => {
                match tree.watched(&spec.path, spec.scope, spec.with_data, &conn.identities, &mut room) {
                    Ok(znodes) => {
                        items.extend(state_parts(spec.id, applied, znodes).into_iter().map(Item::State));
                        let late = is_on(Mutant::StateThenGap);
                        watches.add(id, &spec, if late { Zxid(applied.0 + 1) } else { applied });
                    }
                    Err(error) => refused.push(WatchRefused { id: spec.id, error }),
                }
            }
        }
    }
    watches.count_refused(refused.len(), ended.values().map(Vec::len).sum());
    let oldest = watches.floor();
    items.extend(
        ended.into_iter().map(|(last, ids)| {
            Item::Ended(WatchEnded { ids, error: OpError::Gone { oldest }, last, oldest })
        }),
    );
    if !fired.is_empty() {
        items.extend(
            parts(WatchGroup { zxid: applied, events: fired, more: false }).into_iter().map(Item::Events),
        );
    }
    for item in items {
        sender.answers.sent_to_shell(item.weight());
        conn.answer(id, sender.outbox, applied, sender.now, item);
    }
    refused
}

/// Whether a request with watches may have to wait at first: for room for a state, until its connection
/// is live, or for a turn.
pub(super) fn may_wait(op: &Op) -> bool {
    match op {
        Op::AddWatches(add) => add.specs.len() > FEW || wants_state(add),
        op => matches!(op, Op::CancelWatches(_)),
    }
}

pub(super) fn wants_state(add: &AddWatches) -> bool {
    add.specs.iter().any(|spec| spec.state != StateRule::Never)
}

/// Number of watches that a request adds without a turn of its own.
const FEW: usize = 64;

impl Server {
    /// Sends the events of the last applied entry, which follows `before`.
    pub(super) fn tell_watchers(&mut self, before: Zxid) {
        let changes = self.state.take_changes();
        if changes.is_empty() {
            return;
        }
        let Server { watches, conns, outbox, answers, config, now, state, .. } = self;
        let mut sender = Sender { outbox, answers, limits: &config.limits, now: *now };
        let (mut behind, mut later) = (Vec::new(), Vec::new());
        let conns = std::cell::RefCell::new(conns);
        let live = |id| {
            let conns = conns.borrow();
            conns.get(&id).filter(|conn| conn.cursor.is_none()).map(|conn| conn.identities.clone())
        };
        let send = |id, group: WatchGroup| {
            let mut conns = conns.borrow_mut();
            let Some(conn) = conns.get_mut(&id) else { return true };
            if sender.has_room(conn, 0, group.weight()) {
                sender.send_parts(id, conn, Item::Events(group));
                return true;
            }
            conn.cursor = Some(before);
            behind.push(id);
            false
        };
        let in_its_turn = |id| {
            if let Some(conn) = conns.borrow_mut().get_mut(&id) {
                conn.cursor = Some(before);
                later.push(id);
            }
        };
        let mark = watches.applied(state.applied(), state.time_ms(), &changes, live, send, in_its_turn);
        behind.into_iter().for_each(|id| sender.answers.wait(id));
        later.into_iter().for_each(|id| sender.answers.again_later(id));
        if mark {
            self.send_marks(|_, _| true);
        }
    }

    /// Sends a mark to connections that have received nothing for long.
    pub(super) fn sweep_marks(&mut self) {
        if self.marks_at.is_some_and(|at| self.now >= at) {
            let now = self.now;
            self.send_marks(|id, told_at| {
                now.since(told_at) >= MARK_AFTER + MARK_AFTER / 2 * (id.0 % 16) as u32 / 16
            });
            self.marks_at = None;
        }
        if self.marks_at.is_none() && self.watches.has_streams() {
            self.marks_at = Some(self.now + MARK_SWEEP);
        }
    }

    fn send_marks(&mut self, due: impl Fn(ConnId, Time) -> bool) {
        let mark = WatchMark { zxid: self.state.applied(), leaderless: !self.status.serving };
        let Server { watches, conns, outbox, answers, config, now, .. } = self;
        let mut sender = Sender { outbox, answers, limits: &config.limits, now: *now };
        for id in watches.conns() {
            let Some(conn) = conns.get_mut(&id) else { continue };
            if conn.cursor.is_none()
                && due(id, conn.told.1)
                && sender.has_room(conn, 0, Item::Mark(mark).weight())
            {
                conn.told = (mark.zxid, *now);
                sender.send(id, conn, Item::Mark(mark));
            }
        }
    }

    /// Handles a connection whose client has closed its session: pending requests are answered, and
    /// unsent events are dropped.
    pub(super) fn end_watching(&mut self, id: ConnId) {
        let Server { watches, conns, outbox, answers, config, now, .. } = self;
        let Some(conn) = conns.get_mut(&id) else { return };
        let Some(cursor) = conn.cursor.take() else { return };
        let mut sender = Sender { outbox, answers, limits: &config.limits, now: *now };
        let ids = watches.ids(id);
        if !ids.is_empty() {
            let oldest = watches.floor();
            let error = OpError::Unavailable("the session is closed; watch again in another one".to_owned());
            sender.send(id, conn, Item::Ended(WatchEnded { ids, error, last: cursor, oldest }));
        }
        sender.send_behind(id, conn, Zxid(u64::MAX));
    }

    /// Figures about watches.
    #[must_use]
    pub fn watch_figures(&self) -> crate::watch::WatchFigures {
        self.watches.figures()
    }
}

/// Splits a group.
fn parts(group: WatchGroup) -> Vec<WatchGroup> {
    let zxid = group.zxid;
    if group.events.len() <= 1 || group.weight() <= PART_BYTES {
        return vec![group];
    }
    let cut = cut(group.events, api::watch::WatchEvent::weight);
    let last = cut.len() - 1;
    let part = |(at, events)| WatchGroup { zxid, events, more: at < last };
    cut.into_iter().enumerate().map(part).collect()
}

/// A state, in parts.
fn state_parts(id: u32, zxid: Zxid, znodes: Vec<WatchedZnode>) -> Vec<WatchState> {
    let cut = cut(znodes, WatchedZnode::weight);
    let last = cut.len() - 1;
    let part = |(at, znodes)| WatchState { id, zxid, znodes, done: at == last };
    cut.into_iter().enumerate().map(part).collect()
}

/// At least one part, which may be empty.
fn cut<T>(all: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for one in all {
        let more = weight(&one);
        if bytes > 0 && bytes + more > PART_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(part) = parts.last_mut() {
            part.push(one);
        }
    }
    parts
}
