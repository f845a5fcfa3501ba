//! Watches on one node: the scenarios V1 to V25 of their design, as far as one node can show them.

use api::watch::{
    AddWatches, ChangeKind, StateRule, WatchEnded, WatchGroup, WatchRefused, WatchScope, WatchSpec,
    WatchState,
};

use super::*;

pub(super) fn delete(p: &str) -> Op {
    Op::Write(Write::Delete { path: path(p), version: None })
}

pub(super) fn watch(id: u32, p: &str, scope: WatchScope) -> WatchSpec {
    WatchSpec::new(id, path(p), scope)
}

pub(super) fn add(specs: impl IntoIterator<Item = WatchSpec>) -> Op {
    Op::AddWatches(AddWatches { specs: specs.into_iter().collect(), refused: Vec::new() })
}

fn once(spec: WatchSpec) -> WatchSpec {
    WatchSpec { once: true, ..spec }
}

fn from(zxid: Zxid, spec: WatchSpec) -> WatchSpec {
    WatchSpec { from: Some(zxid), ..spec }
}

/// A node with these limits, and sessions on connections 1 to `sessions`.
pub(super) fn limited(sessions: u64, limits: Limits) -> (Node, Log) {
    let config = Config { me: PeerId(1), first_ticket: Ticket(1000), limits };
    let server = Server::new(Time(0), config, State::default());
    let (mut node, mut log) = (Node { server, ..Node::new(1) }, Log::default());
    node.status(Role::Following, true);
    (1..=sessions).for_each(|conn| node.open(conn));
    log.round(&mut node);
    node.sent.clear();
    (node, log)
}

impl Node {
    /// Takes the items sent to a connection.
    pub(super) fn take(&mut self, conn: u64) -> Vec<Item> {
        let (mine, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(c, _)| *c == ConnId(conn));
        self.sent = rest;
        let items: Vec<Item> = mine.into_iter().map(|(_, item): (ConnId, Item)| item).collect();
        let bytes = items.iter().map(Item::weight).sum();
        self.input(Input::Drained { conn: ConnId(conn), bytes });
        items
    }

    /// The same until no more items follow.
    fn take_all(&mut self, conn: u64) -> Vec<Item> {
        let mut all = Vec::new();
        loop {
            self.input(Input::Tick);
            let items = self.take(conn);
            if items.is_empty() && !self.server.has_more() {
                return all;
            }
            all.extend(items);
        }
    }

    /// Adds watches, and checks that they are active.
    fn watch(&mut self, conn: u64, specs: impl IntoIterator<Item = WatchSpec>) {
        self.ask(conn, 1, vec![add(specs)]);
        let last = self.take_all(conn).pop();
        assert!(
            matches!(&last, Some(Item::Response(Response { result: Ok(Outcome::Watching(refused)), .. })) if refused.is_empty()),
            "{last:?}"
        );
    }

    /// Writes without a session.
    fn write(&mut self, log: &mut Log, ops: impl IntoIterator<Item = Op>) {
        ops.into_iter().for_each(|op| self.input(call(9999, op)));
        log.round(self);
        self.sent.retain(|(conn, _)| *conn != ConnId(9999));
    }
}

/// Groups in order: their zxids, and the kinds and paths of their changes.
fn told(items: &[Item]) -> Vec<(u32, Vec<(ChangeKind, String)>)> {
    let groups = items.iter().filter_map(|item| match item {
        Item::Events(group) => Some(group),
        _ => None,
    });
    let change = |e: &api::watch::WatchEvent| (e.change.kind, e.change.path.to_string());
    groups.map(|group| (group.zxid.counter(), group.events.iter().map(change).collect())).collect()
}

fn ended(items: &[Item]) -> Vec<&WatchEnded> {
    items.iter().filter_map(|item| if let Item::Ended(ended) = item { Some(ended) } else { None }).collect()
}

use ChangeKind::{Created, DataChanged, Deleted, Touched};

#[test]
fn v01_an_event_comes_before_the_answer_of_its_own_write_and_before_a_read_that_shows_it() {
    let (mut node, mut log) = limited(2, Limits::default());
    node.ask(1, 1, vec![add([watch(1, "/a", WatchScope::Node)]), create("/a"), get("/a")]);
    node.ask(2, 1, vec![add([watch(7, "/a", WatchScope::Node)]), Op::Sync, get("/a")]);
    let barriers = log.round(&mut node);
    for ask in barriers {
        let Ask::Barrier { ticket } = ask else { panic!("{ask:?}") };
        node.input(Input::Feed(Feed::Barrier(ticket)));
    }
    for conn in [1, 2] {
        let items = node.take(conn);
        let place = |what: fn(&Item) -> bool| items.iter().position(what).expect("sent");
        let event = place(|item| matches!(item, Item::Events(_)));
        let read =
            place(|item| matches!(item, Item::Response(Response { result: Ok(Outcome::Read(_)), .. })));
        assert!(event < read, "{items:?}");
        let write = items
            .iter()
            .position(|item| matches!(item, Item::Response(Response { result: Ok(Outcome::Write(_)), .. })));
        assert!(write.is_none_or(|write| event < write), "{items:?}");
    }
}

#[test]
fn v02_a_write_between_a_read_and_the_watch_from_it_is_one_event() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.write(&mut log, [create("/a")]);
    let seen = node.server.state().applied();
    node.write(&mut log, [set("/a", "1"), set("/b", "of a znode that is not there")]);
    node.ask(1, 1, vec![add([from(seen, watch(1, "/a", WatchScope::Node))]), get("/a")]);
    let items = node.take(1);
    assert_eq!(told(&items), [(seen.counter() + 1, vec![(DataChanged, "/a".into())])]);
    assert!(matches!(items[0], Item::Events(_)), "what was missed comes before the answer: {items:?}");
    node.write(&mut log, [set("/a", "2")]);
    assert_eq!(told(&node.take(1)).len(), 1);
}

#[test]
fn v03_a_watch_that_fires_once_fires_once_wherever_its_client_goes() {
    let limits = Limits { history_entries: 3, ..Limits::default() };
    for (foreign, kind) in [(0, Created), (9, Created)] {
        let (mut node, mut log) = limited(6, limits.clone());
        let mut seen = node.server.state().applied();
        for conn in 1..5 {
            let spec = from(seen, once(watch(1, "/a", WatchScope::Node)));
            node.watch(conn, [spec]);
            // While the client is between two nodes, others write more than the history holds.
            node.write(&mut log, [create(&format!("/other{conn}"))]);
            seen = node.server.state().applied();
            node.input(Input::Closed { conn: ConnId(conn) });
        }
        node.write(&mut log, [create("/a")]);
        let others = (0..foreign).map(|i| create(&format!("/more{i}")));
        node.write(&mut log, others);
        node.ask(5, 1, vec![add([from(seen, once(watch(1, "/a", WatchScope::Node)))])]);
        let fired = told(&node.take(5));
        assert_eq!(fired.len(), 1);
        assert_eq!(fired[0].1, [(kind, "/a".into())]);
        node.write(&mut log, [set("/a", "again")]);
        assert_eq!(told(&node.take(5)), [], "it is over");
        assert_eq!(node.server.watch_figures().watches, 0);
    }
}

#[test]
fn v04_a_watch_of_a_subtree_sees_all_below_by_their_own_paths_and_no_neighbours() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.write(&mut log, [create("/t"), create("/tx")]);
    node.watch(1, [watch(1, "/t", WatchScope::Tree)]);
    let writes = ["/t/a", "/t/a/b", "/tx/a", "/u"].map(create);
    node.write(&mut log, writes.into_iter().chain([set("/t/a/b", "x"), delete("/t/a/b"), set("/t", "y")]));
    let seen: Vec<_> = told(&node.take(1)).into_iter().flat_map(|(_, changes)| changes).collect();
    let t = |kind, path: &str| (kind, path.to_owned());
    let expected = [
        t(Created, "/t/a"),
        t(Created, "/t/a/b"),
        t(DataChanged, "/t/a/b"),
        t(Deleted, "/t/a/b"),
        t(DataChanged, "/t"),
    ];
    assert_eq!(seen, expected);
}

fn events(items: &[(ConnId, Item)]) -> usize {
    items.iter().filter(|(_, item)| matches!(item, Item::Events(_))).count()
}

#[test]
fn an_entry_that_changes_much_under_many_watches_reaches_each_stream_in_a_turn_of_its_own() {
    let (mut node, mut log) = limited(42, Limits::default());
    let znodes = 2_600;
    node.write(&mut log, [create("/t"), create("/other")]);
    node.write(&mut log, (0..znodes).map(|n| create(&format!("/t/{n}"))));
    (1..=40).for_each(|conn| node.watch(conn, [watch(1, "/t", WatchScope::Tree)]));
    node.watch(41, [watch(1, "/other", WatchScope::Node)]);
    node.write(&mut log, [super::trees::tree("/t"), set("/other", "x")]);
    assert_eq!(told(&node.take(41)).len(), 1, "a stream with other watches does not wait");
    assert_eq!(events(&node.sent), 0, "the entry itself sends nothing to so many");
    assert!(node.server.has_more());
    node.input(Input::Tick);
    let streams: std::collections::BTreeSet<ConnId> = node.sent.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(streams.len(), 1, "one stream in a turn");
    (1..=40).for_each(|conn| node.ask(conn, 2, vec![get("/t")]));
    for conn in 1..=40 {
        let items = node.take_all(conn);
        let changes: usize = told(&items).iter().map(|(_, changes)| changes.len()).sum();
        assert_eq!(changes, znodes + 1);
        let zxids: std::collections::BTreeSet<u32> = told(&items).iter().map(|(zxid, _)| *zxid).collect();
        assert_eq!(zxids.len(), 1, "one entry is one group, in parts");
        assert!(matches!(items.last(), Some(Item::Response(_))), "the answer comes last");
    }
    assert_eq!(node.server.watch_figures().counted.gone, 0);
}

#[test]
fn many_streams_with_one_watch_each_do_not_wait_for_an_entry_that_concerns_few_of_them() {
    let (mut node, mut log) = limited(2, Limits::default());
    node.watch(1, [watch(1, "/a", WatchScope::Node)]);
    let others = (2..=100_000).map(|id| watch(id, &format!("/w{id}"), WatchScope::Node));
    node.ask(2, 1, vec![add(others.take(99_000))]);
    node.take(2);
    let parts = (0..20).map(|n| MultiOp::Create(Create::new(path(&format!("/n{n}")), Bytes::new())));
    let a = MultiOp::Create(Create::new(path("/a"), Bytes::new()));
    node.write(&mut log, [Op::Write(Write::Multi(parts.chain([a]).collect()))]);
    assert_eq!(events(&node.sent), 1);
    assert!(!node.server.has_more());
}

#[test]
fn a_group_that_is_larger_than_the_history_reaches_its_streams_one_after_the_other() {
    let limits = Limits { history_entries: 100, unsent_total_max: 1 << 20, ..Limits::default() };
    let (mut node, mut log) = limited(45, limits);
    let znodes = 2_500;
    node.write(&mut log, [create("/t")]);
    node.write(&mut log, (0..znodes).map(|n| create(&format!("/t/{n}"))));
    (1..=45).for_each(|conn| node.watch(conn, [watch(1, "/t", WatchScope::Tree)]));
    node.write(&mut log, [super::trees::tree("/t")]);
    for _ in 0..1_000 {
        node.input(Input::Tick);
    }
    let sent: usize = node.sent.iter().map(|(_, item)| item.weight()).sum();
    assert!(sent <= 1 << 20, "{sent} bytes wait for clients");
    let mut missing: std::collections::BTreeSet<u64> = (1..=45).collect();
    for _ in 0..100 {
        for conn in missing.clone() {
            let changes: usize = told(&node.take_all(conn)).iter().map(|(_, changes)| changes.len()).sum();
            assert!(changes == 0 || changes == znodes + 1, "{changes}");
            if changes > 0 {
                missing.remove(&conn);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(node.server.watch_figures().counted.gone, 0);
}

#[test]
fn v05_what_a_multi_deletes_and_makes_again_is_one_group_of_two_events_in_order() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.write(&mut log, [create("/a")]);
    node.watch(1, [watch(1, "/a", WatchScope::Node), watch(2, "/", WatchScope::Children)]);
    let parts = vec![
        MultiOp::Delete { path: path("/a"), version: None },
        MultiOp::Create(Create::new(path("/a"), Bytes::new())),
    ];
    node.write(&mut log, [Op::Write(Write::Multi(parts))]);
    let items = node.take(1);
    assert_eq!(told(&items)[0].1, [(Deleted, "/a".into()), (Created, "/a".into())]);
    let Item::Events(group) = &items[0] else { panic!("{items:?}") };
    assert!(group.events.iter().all(|event| event.ids == [1, 2]), "one event for both watches: {group:?}");
    let failed = vec![
        MultiOp::Delete { path: path("/a"), version: None },
        MultiOp::Check { path: path("/missing"), version: None },
    ];
    node.write(&mut log, [Op::Write(Write::Multi(failed))]);
    assert_eq!(told(&node.take(1)), [], "a multi that fails changes nothing");
}

#[test]
fn v06_a_large_multi_is_one_group_in_parts() {
    let (mut node, mut log) = limited(1, Limits { data_max: 3 << 20, ..Limits::default() });
    node.watch(1, [WatchSpec { with_data: true, ..watch(1, "/", WatchScope::Tree) }]);
    let part = |i: usize| MultiOp::Create(Create::new(path(&format!("/{i}")), vec![0; 2000]));
    node.write(&mut log, [Op::Write(Write::Multi((0..1000).map(part).collect()))]);
    let items = node.take_all(1);
    let groups: Vec<&WatchGroup> = items
        .iter()
        .filter_map(|item| if let Item::Events(group) = item { Some(group) } else { None })
        .collect();
    assert!(groups.len() > 5 && groups.iter().all(|group| group.weight() <= 256 << 10), "{}", groups.len());
    let (last, before) = groups.split_last().unwrap();
    assert!(!last.more && before.iter().all(|group| group.more && group.zxid == last.zxid));
    assert_eq!(groups.iter().map(|group| group.events.len()).sum::<usize>(), 1000);
}

#[test]
fn v07_a_watch_may_begin_where_the_history_does_and_not_before() {
    let (mut node, mut log) = limited(4, Limits { history_entries: 4, ..Limits::default() });
    // The last entry before the history is a delete, which must not be lost at the boundary.
    node.write(
        &mut log,
        [create("/a"), delete("/a"), create("/a"), set("/a", "1"), delete("/a"), create("/a")],
    );
    let floor = node.server.watch_figures().history_floor;
    let last = node.server.state().applied();
    assert_eq!(last.counter() - floor.counter(), 4);
    for (conn, begin, expected) in
        [(1, floor.counter(), 4), (2, floor.counter() + 1, 3), (3, last.counter(), 0)]
    {
        node.watch(conn, []);
        node.ask(conn, 1, vec![add([from(z(begin), watch(1, "/a", WatchScope::Node))])]);
        let items = node.take(conn);
        assert_eq!(told(&items).len(), expected, "from {begin}: {items:?}");
        assert!(ended(&items).is_empty());
    }
    let early = z(floor.counter() - 1);
    let rule = |id, state| WatchSpec { state, ..from(early, watch(id, "/a", WatchScope::Node)) };
    node.ask(4, 1, vec![add([rule(1, StateRule::Never), rule(2, StateRule::IfGone)])]);
    let items = node.take(4);
    let [gone] = ended(&items)[..] else { panic!("{items:?}") };
    assert_eq!((&gone.ids[..], gone.last, gone.oldest), (&[1][..], early, floor));
    assert_eq!(gone.error, OpError::Gone { oldest: floor });
    assert!(
        items.iter().any(|item| matches!(item, Item::State(WatchState { id: 2, done: true, znodes, .. }) if znodes.len() == 1)),
        "{items:?}"
    );
    node.write(&mut log, [set("/a", "2")]);
    let Item::Events(group) = &node.take(4)[0] else { panic!("no event") };
    assert_eq!(group.events[0].ids, [2]);
}

#[test]
fn v08_a_watch_from_an_entry_that_the_node_does_not_have_waits_for_it() {
    let (mut node, mut log) = limited(1, Limits::default());
    let later = z(node.server.state().applied().counter() + 2);
    node.ask(1, 1, vec![add([from(later, watch(1, "/a", WatchScope::Node))]), get("/")]);
    assert!(node.take(1).is_empty());
    node.write(&mut log, [create("/a"), set("/a", "1")]);
    let items = node.take(1);
    assert_eq!(told(&items), [], "all of it was seen on another node: {items:?}");
    assert_eq!(items.len(), 2, "both are answered: {items:?}");
    node.write(&mut log, [set("/a", "2")]);
    assert_eq!(told(&node.take(1)).len(), 1);
}

#[test]
fn v10_a_snapshot_ends_streams_that_watch_and_no_others() {
    let (mut node, mut log) = limited(2, Limits::default());
    node.watch(1, [watch(1, "/a", WatchScope::Node)]);
    let mut other = Node::serving(2, Role::Following);
    log.feed(&mut other);
    other.write(&mut log, [create("/a"), set("/a", "1")]);
    let state = State::load(other.server.state().records()).unwrap();
    let applied = state.applied();
    node.server.replace_state(node.now, state);
    node.input(Input::Tick);
    assert!(
        matches!(&node.closed[..], [(ConnId(1), Err(OpError::Unavailable(why)))] if why.contains("another node")),
        "{:?}",
        node.closed
    );
    // V9: this node does not know the changes in between.
    assert_eq!(node.server.watch_figures().history_floor, applied);
    node.ask(2, 1, vec![add([from(z(applied.counter() - 1), watch(1, "/a", WatchScope::Node))])]);
    assert_eq!(ended(&node.take(2)).len(), 1);
    node.ask(2, 1, vec![add([from(applied, watch(1, "/a", WatchScope::Node))])]);
    assert!(ended(&node.take(2)).is_empty());
}

fn values(count: usize) -> impl Iterator<Item = Op> {
    (0..count).map(|i| {
        Op::Write(Write::Set { path: path("/a"), data: Some(vec![i as u8; 4000].into()), version: None })
    })
}

fn small() -> Limits {
    Limits { events_max: 64 << 10, ..Limits::default() }
}

#[test]
fn v12_a_slow_reader_goes_on_from_the_history_and_holds_up_nobody() {
    let (mut node, mut log) = limited(2, small());
    node.write(&mut log, [create("/a")]);
    let spec = || WatchSpec { with_data: true, ..watch(1, "/a", WatchScope::Node) };
    node.watch(1, [spec()]);
    node.watch(2, [spec()]);
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        node.write(&mut log, values(10));
        fast.extend(node.take_all(2));
    }
    assert_eq!(told(&fast).len(), 200, "each at once");
    // Answers come behind the events, in their order.
    node.ask(1, 1, vec![get("/a"), set("/a", "own")]);
    node.ask(1, 2, vec![get("/a")]);
    log.round(&mut node);
    let unsent: usize =
        node.sent.iter().filter(|(c, _)| *c == ConnId(1)).map(|(_, item)| item.weight()).sum();
    assert!(unsent <= 70 << 10, "{unsent} bytes wait for it");
    slow.extend(node.take_all(1));
    fast.extend(node.take_all(2));
    assert_eq!(told(&slow), told(&fast), "all of them, once, in the same order");
    let events_before = |xid: u64, nth: usize| {
        let mut answers = slow.iter().enumerate().filter(|(_, item)| {
            matches!(item, Item::Response(Response { xid: x, result: Ok(Outcome::Read(_)), .. }) if *x == xid)
        });
        told(&slow[..answers.nth(nth).expect("answered").0]).len()
    };
    assert_eq!((events_before(0, 0), events_before(0, 1)), (200, 201));
    assert_eq!(node.server.watch_figures().counted.lags, 1);
    node.write(&mut log, [set("/a", "later")]);
    assert_eq!(told(&node.take(1)).len(), 1, "it is live again");
}

#[test]
fn v13_a_slow_reader_that_the_history_leaves_behind_is_told_where() {
    let (mut node, mut log) = limited(2, Limits { history_entries: 30, ..small() });
    node.write(&mut log, [create("/a")]);
    let spec = |id| WatchSpec { with_data: true, ..watch(id, "/a", WatchScope::Node) };
    node.watch(1, [spec(1), once(watch(2, "/once", WatchScope::Node))]);
    node.write(&mut log, values(30));
    node.write(&mut log, [create("/once")]);
    node.write(&mut log, values(50));
    let items = node.take_all(1);
    let groups = told(&items);
    let [gone] = ended(&items)[..] else { panic!("{:?}", ended(&items)) };
    let sent: Vec<u32> =
        groups.iter().map(|group| group.0).filter(|&zxid| zxid <= gone.last.counter()).collect();
    assert!(!sent.is_empty() && sent.windows(2).all(|w| w[0] + 1 == w[1]), "a whole piece: {sent:?}");
    assert_eq!(Some(&gone.last.counter()), sent.last());
    assert_eq!((&gone.ids[..], gone.oldest), (&[1][..], node.server.watch_figures().history_floor));
    assert_eq!(groups.last().unwrap().1, [(Created, "/once".into())], "found by comparing: {groups:?}");
    assert_eq!(node.server.watch_figures().watches, 0);
    assert_eq!(node.server.watch_figures().counted.gone, 1);
}

#[test]
fn v14_marks_let_an_idle_client_come_back_after_any_number_of_foreign_writes() {
    let (mut node, mut log) = limited(2, Limits { history_entries: 50, ..Limits::default() });
    node.write(&mut log, [create("/mine"), create("/other")]);
    node.watch(1, [watch(1, "/mine", WatchScope::Node)]);
    let mut known = node.server.state().applied();
    for i in 0..10 {
        node.write(&mut log, (0..45).map(|_| set("/other", "x")));
        if i == 7 {
            node.write(&mut log, [set("/mine", "y")]);
        }
        for item in node.take(1) {
            match item {
                Item::Mark(mark) => known = mark.zxid,
                Item::Events(group) => known = group.zxid,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(known >= node.server.watch_figures().history_floor, "it can go on from {known}");
    // Without writes the client receives marks.
    node.take(1);
    node.pass(Duration::from_secs(7));
    let marks = node.take(1);
    let zxid = node.server.state().applied();
    assert!(matches!(&marks[..], [Item::Mark(mark)] if mark.zxid == zxid && !mark.leaderless), "{marks:?}");
}

#[test]
fn v15_no_mark_goes_ahead_of_an_event_that_was_not_sent() {
    let (mut node, mut log) = limited(1, Limits { history_entries: 1000, ..small() });
    node.write(&mut log, [create("/a")]);
    node.watch(1, [WatchSpec { with_data: true, ..watch(1, "/a", WatchScope::Node) }]);
    node.write(&mut log, values(100));
    node.pass(Duration::from_secs(20));
    let (mut last, items) = (0, node.take_all(1));
    for item in &items {
        match item {
            Item::Events(group) => {
                assert!(last == 0 || group.zxid.counter() == last + 1, "{last} {}", group.zxid);
                last = group.zxid.counter();
            }
            Item::Mark(mark) => assert!(mark.zxid.counter() <= last),
            _ => {}
        }
    }
    assert_eq!(last, node.server.state().applied().counter());
}

#[test]
fn v16_nothing_names_a_watch_behind_the_answer_to_its_cancel() {
    let (mut node, mut log) = limited(1, small());
    node.write(&mut log, [create("/a")]);
    node.watch(1, [WatchSpec { with_data: true, ..watch(1, "/a", WatchScope::Node) }]);
    node.write(&mut log, values(100));
    node.ask(1, 1, vec![Op::CancelWatches(vec![1, 5]), Op::Ping]);
    node.write(&mut log, values(3));
    let items = node.take_all(1);
    let place = items.iter().position(|item| {
        matches!(item, Item::Response(Response { result: Ok(Outcome::Cancelled(unknown)), .. }) if unknown[..] == [5])
    });
    let place = place.expect("answered");
    assert!(told(&items[place..]).is_empty() && !told(&items[..place]).is_empty());
    node.watch(1, [watch(1, "/a", WatchScope::Node)]);
}

#[test]
fn v17_a_hundred_thousand_watches_fire_each_once() {
    const COUNT: u32 = 100_000;
    let (mut node, mut log) = limited(1, Limits { requests_max: 1 << 20, ..Limits::default() });
    for first in (0..COUNT).step_by(5_000) {
        node.watch(
            1,
            (first..first + 5_000).map(|i| once(watch(i + 1, &format!("/{i:06}"), WatchScope::Node))),
        );
    }
    assert_eq!(node.server.watch_figures().paths, COUNT as usize);
    node.ask(1, 1, vec![add([watch(COUNT + 1, "/x", WatchScope::Node)])]);
    let items = node.take(1);
    assert!(
        matches!(&items[..], [Item::Response(Response { result: Ok(Outcome::Watching(refused)), .. })]
            if matches!(&refused[..], [WatchRefused { id: 100_001, error: OpError::LimitExceeded { limit: 100_000, actual: 100_001, .. } }])),
        "{items:?}"
    );
    let mut fired = 0;
    for first in (0..COUNT).step_by(5_000) {
        let part = |i| MultiOp::Create(Create::new(path(&format!("/{i:06}")), Bytes::new()));
        node.write(&mut log, [Op::Write(Write::Multi((first..first + 5_000).map(part).collect()))]);
        fired += told(&node.take_all(1)).iter().map(|(_, changes)| changes.len()).sum::<usize>();
    }
    assert_eq!((fired, node.server.watch_figures().watches), (COUNT as usize, 0));
}

#[test]
fn v19_what_has_ended_leaves_nothing_behind() {
    let (mut node, mut log) = limited(50, Limits::default());
    for conn in 1..=50 {
        let scopes = [WatchScope::Node, WatchScope::Children, WatchScope::Tree];
        node.watch(conn, (0..30).map(|i| watch(i + 1, &format!("/{}", i % 10), scopes[i as usize % 3])));
    }
    assert_eq!(node.server.watch_figures().watches, 1500);
    node.ask(1, 1, vec![Op::Close]);
    log.round(&mut node);
    for conn in 2..=50 {
        node.input(Input::Closed { conn: ConnId(conn) });
    }
    let figures = node.server.watch_figures();
    assert_eq!((figures.watches, figures.paths, figures.streams), (0, 0, 0));
}

#[test]
fn v22_ephemerals_of_a_session_go_in_the_order_of_their_paths() {
    let (mut node, mut log) = limited(2, Limits::default());
    let ephemeral = |p: &str| {
        Op::Write(Write::Create(Create {
            kind: api::NodeKind::Ephemeral,
            ..Create::new(path(p), Bytes::new())
        }))
    };
    node.ask(1, 1, vec![ephemeral("/c"), ephemeral("/a"), ephemeral("/b")]);
    log.round(&mut node);
    node.watch(2, [watch(1, "/", WatchScope::Children)]);
    node.ask(1, 4, vec![Op::Close]);
    log.round(&mut node);
    let gone = told(&node.take(2));
    assert_eq!(gone[0].1, ["/a", "/b", "/c"].map(|p| (Deleted, p.to_owned())));
}

#[test]
fn v23_watches_of_the_root_and_of_what_is_not_there() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.watch(
        1,
        [
            watch(1, "/", WatchScope::Tree),
            watch(2, "/a/b/c", WatchScope::Node),
            watch(3, "/a", WatchScope::Children),
            watch(4, "/", WatchScope::Node),
        ],
    );
    node.write(&mut log, [create("/a"), create("/a/b"), create("/a/b/c"), set("/", "x")]);
    node.write(&mut log, [delete("/a/b/c"), delete("/a/b"), delete("/a")]);
    let ids: Vec<Vec<u32>> = node
        .take(1)
        .into_iter()
        .filter_map(
            |item| if let Item::Events(group) = item { Some(group.events[0].ids.clone()) } else { None },
        )
        .collect();
    // The delete of the parent also ends a watch of children.
    assert_eq!(ids, [vec![1], vec![1, 3], vec![1, 2], vec![1, 4], vec![1, 2], vec![1, 3], vec![1, 3]]);
}

#[test]
fn a_watch_is_refused_alone() {
    let (mut node, _) = limited(1, Limits { watches_node: 3, ..Limits::default() });
    let always = WatchSpec { state: StateRule::Always, ..from(z(1), watch(4, "/a", WatchScope::Node)) };
    let specs = [
        watch(0, "/a", WatchScope::Node),
        watch(1, "/a", WatchScope::Node),
        watch(1, "/b", WatchScope::Node),
        always,
        watch(2, "/a", WatchScope::Node),
        watch(3, "/a", WatchScope::Node),
        watch(5, "/a", WatchScope::Node),
    ];
    node.ask(1, 1, vec![add(specs)]);
    let items = node.take(1);
    let [Item::Response(Response { result: Ok(Outcome::Watching(refused)), .. })] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!(refused.iter().map(|r| r.id).collect::<Vec<_>>(), [0, 1, 4, 5]);
    assert!(refused[3].error.to_string().contains("cancel unused watches"), "{}", refused[3].error);
    assert_eq!(node.server.watch_figures().watches, 3);
}

#[test]
fn the_state_and_what_comes_behind_it_meet_without_a_gap() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.write(&mut log, ["/t", "/t/a", "/t/a/b", "/u"].map(create).into_iter().chain([set("/t/a", "1")]));
    let spec = WatchSpec { state: StateRule::Always, with_data: true, ..watch(1, "/t", WatchScope::Tree) };
    // Behind a pending write of its own, and before one.
    node.ask(1, 1, vec![create("/t/c"), add([spec]), create("/t/d")]);
    log.round(&mut node);
    log.round(&mut node);
    let items = node.take(1);
    let Some(Item::State(state)) = items.iter().find(|item| matches!(item, Item::State(_))) else {
        panic!("{items:?}")
    };
    let paths: Vec<&str> = state.znodes.iter().map(|znode| znode.path.as_str()).collect();
    assert_eq!(paths, ["/t", "/t/a", "/t/c", "/t/a/b"], "parents before children");
    assert_eq!(state.znodes[1].data.as_deref(), Some(&b"1"[..]));
    assert!(state.done);
    assert_eq!(told(&items), [(state.zxid.counter() + 1, vec![(Created, "/t/d".into())])]);
}

#[test]
fn a_state_that_is_too_large_is_refused_with_what_to_do() {
    let (mut node, mut log) = limited(1, Limits::default());
    for first in (0..12_000).step_by(4_000) {
        let part = |i| MultiOp::Create(Create::new(path(&format!("/{i:06}")), Bytes::new()));
        node.write(&mut log, [Op::Write(Write::Multi((first..first + 4_000).map(part).collect()))]);
    }
    let spec = |id| WatchSpec { state: StateRule::Always, ..watch(id, "/", WatchScope::Tree) };
    node.ask(1, 1, vec![add([spec(1), watch(2, "/", WatchScope::Tree)])]);
    let items = node.take(1);
    let [Item::Response(Response { result: Ok(Outcome::Watching(refused)), .. })] = &items[..] else {
        panic!("{items:?}")
    };
    let [WatchRefused { id: 1, error }] = &refused[..] else { panic!("{refused:?}") };
    assert!(error.to_string().contains("smaller parts"), "{error}");
}

#[test]
fn a_session_that_is_closed_while_it_is_behind_is_answered() {
    let (mut node, mut log) = limited(1, small());
    node.write(&mut log, [create("/a")]);
    node.watch(1, [WatchSpec { with_data: true, ..watch(1, "/a", WatchScope::Node) }]);
    node.write(&mut log, values(100));
    node.ask(1, 1, vec![get("/a"), Op::Close]);
    log.round(&mut node);
    let items = node.take(1);
    assert_eq!(ended(&items).len(), 1);
    assert!(
        matches!(items.last(), Some(Item::Response(Response { result: Ok(Outcome::Close), .. }))),
        "{items:?}"
    );
}

#[test]
fn what_cannot_be_told_exactly_is_told_as_touched() {
    let (mut node, mut log) = limited(1, Limits { history_entries: 2, ..Limits::default() });
    node.write(&mut log, [create("/a"), create("/a/b"), create("/quiet"), create("/quiet/x")]);
    let seen = node.server.state().applied();
    node.write(&mut log, [delete("/a/b"), create("/1"), create("/2"), create("/3")]);
    let one = |id, p: &str, scope| from(seen, once(watch(id, p, scope)));
    node.ask(
        1,
        1,
        vec![add([
            one(1, "/a", WatchScope::Children),
            one(2, "/quiet", WatchScope::Children),
            one(3, "/quiet/y", WatchScope::Node),
            one(4, "/a/b", WatchScope::Node),
            one(5, "/a", WatchScope::Node),
        ])],
    );
    let items = node.take(1);
    assert_eq!(told(&items)[0].1, [(Touched, "/a".into()), (Deleted, "/a/b".into())]);
    assert_eq!(node.server.watch_figures().watches, 3, "nothing happened to the others");
}
