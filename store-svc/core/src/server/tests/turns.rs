//! Work of clients is done in turns (b08): no input costs more than a bounded amount of it.

use api::{Page, watch::WatchScope};

use super::{
    watches::{add, limited, watch},
    *,
};

fn watches(node: &Node) -> usize {
    node.server.watch_figures().watches
}

/// Ticks until all turns are over, and returns their number.
fn turns(node: &mut Node) -> usize {
    let mut turns = 0;
    while node.server.has_more() {
        node.input(Input::Tick);
        turns += 1;
    }
    turns
}

#[test]
fn b08_the_watches_of_an_ended_stream_are_removed_in_turns() {
    let (mut node, mut log) = limited(10, Limits::default());
    for conn in 1..=10 {
        node.ask(conn, 1, vec![add((1..=10_000).map(|id| watch(id, "/one", WatchScope::Node)))]);
    }
    turns(&mut node);
    assert_eq!(watches(&node), 100_000);
    for conn in 1..=9 {
        let before = watches(&node);
        node.input(Input::Closed { conn: ConnId(conn) });
        assert!(before - watches(&node) <= 1_000);
    }
    // Those of ended streams see nothing.
    node.sent.clear();
    node.input(call(99, create("/one")));
    log.round(&mut node);
    let told = node.sent.iter().filter(|(conn, item)| {
        assert!(*conn == ConnId(10) || *conn == ConnId(99));
        matches!(item, Item::Events(_))
    });
    assert!(told.count() > 0);
    let mut before = watches(&node);
    while node.server.has_more() {
        node.input(Input::Tick);
        assert!(before - watches(&node) <= 1_000);
        before = watches(&node);
    }
    assert_eq!((watches(&node), node.server.watch_figures().streams), (10_000, 1));
}

#[test]
fn b08_watches_are_added_and_cancelled_in_turns() {
    let (mut node, _) = limited(8, Limits::default());
    for conn in 1..=8 {
        node.ask(conn, 1, vec![add((1..=16_384).map(|id| watch(id, "/one", WatchScope::Node)))]);
    }
    assert_eq!(watches(&node), 16_384, "the first does all the work of a turn");
    assert_eq!(turns(&mut node), 7);
    for conn in 1..=8 {
        node.ask(conn, 2, vec![Op::CancelWatches((1..=16_384).collect())]);
    }
    assert!(watches(&node) >= 6 * 16_384);
    turns(&mut node);
    assert_eq!(watches(&node), 0);
}

#[test]
fn b08_single_calls_wait_for_their_turn_and_pings_do_not() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.input(call(2, create("/d")));
    log.round(&mut node);
    let children = (0..3_000).map(|n| MultiOp::Create(Create::new(path(&format!("/d/{n}")), Bytes::new())));
    node.input(call(3, Op::Write(Write::Multi(children.collect()))));
    log.round(&mut node);
    node.sent.clear();
    let list = || {
        let page = Page { size: 1_000, ..Page::default() };
        Op::Read(Read::Children { path: path("/d"), page }, ReadLevel::Local)
    };
    (100..3_100).for_each(|conn| node.input(call(conn, list())));
    assert!(node.sent.len() <= 20, "{} pages before the first turn", node.sent.len());
    // Others have their pings and small reads at once.
    let before = node.sent.len();
    node.ask(1, 1, vec![Op::Ping, get("/d")]);
    assert_eq!(node.sent.len(), before + 2);
    while node.server.has_more() {
        let before = node.sent.len();
        node.input(Input::Tick);
        assert!((1..=20).contains(&(node.sent.len() - before)));
    }
    assert_eq!(node.sent.len(), 3_002);
    assert!(node.closed.is_empty());
}

#[test]
fn b08_cancelled_calls_leave_the_queue_of_turns() {
    let (mut node, mut log) = limited(1, Limits::default());
    node.input(call(2, create("/d")));
    log.round(&mut node);
    let read = || Op::MultiRead(vec![Read::Get { path: path("/d") }; 1_000], ReadLevel::Local);
    (100..1_100).for_each(|conn| node.input(call(conn, read())));
    assert!(node.server.has_more());
    (100..1_100).for_each(|conn| node.input(Input::Closed { conn: ConnId(conn) }));
    assert!(!node.server.has_more());
}
