//! Reads of several znodes, and writes to a whole subtree.

use api::{
    DeleteTree, Look, Page, Quota,
    quota::Bounds,
    walk::{Walk, WalkAsk, WalkEnd, WalkPart},
    watch::{AddWatches, ChangeKind, WatchScope, WatchSpec},
};

use super::*;

fn reads(reads: Vec<Read>) -> Op {
    Op::MultiRead(reads, ReadLevel::Local)
}

fn children(p: &str, look: Look) -> Read {
    Read::Children { path: path(p), page: Page { look, ..Page::default() } }
}

pub(super) fn tree(p: &str) -> Op {
    Op::Write(Write::DeleteTree(DeleteTree { path: path(p), version: None, keep_root: false, max_znodes: 0 }))
}

fn one(node: &mut Node) -> Result<Outcome, OpError> {
    let mut replies = node.take_replies(1);
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0).1
}

fn several(node: &mut Node) -> Vec<Result<ReadOutcome, OpError>> {
    match one(node) {
        Ok(Outcome::MultiRead(results)) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_reads_are_of_one_moment_and_each_fails_alone() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.ask(1, 1, vec![create("/a"), set("/a", "1"), create("/a/b")]);
    log.round(&mut node);
    node.take_replies(1);
    // The reads are between two writes, and see only the first.
    let get = |p: &str| Read::Get { path: path(p) };
    let exists = |p: &str| Read::Exists { path: path(p) };
    let asked = reads(vec![get("/a"), get("/none"), exists("/none"), children("/a", Look::Stat)]);
    node.ask(1, 4, vec![set("/a", "2"), asked, set("/a", "3")]);
    log.round(&mut node);
    let replies = node.take_replies(1);
    let Ok(Outcome::MultiRead(results)) = &replies[1].1 else { panic!("{replies:?}") };
    assert!(matches!(&results[0], Ok(ReadOutcome::Data { data: Some(data), .. }) if data == "2"));
    assert_eq!(results[1], Err(OpError::NoNode(path("/none"))));
    assert_eq!(results[2], Ok(ReadOutcome::Exists { stat: None }));
    assert!(matches!(&results[3], Ok(ReadOutcome::Listed(listing)) if listing.children[0].stat.is_some()));
    // The same as a call without a session.
    node.sent.clear();
    node.input(call(9, reads(vec![get("/a")])));
    assert!(matches!(
        &node.sent[..],
        [(ConnId(9), Item::Response(Response { result: Ok(Outcome::MultiRead(_)), .. }))]
    ));
}

#[test]
fn several_reads_are_bounded_in_parts_in_bytes_and_in_names() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    let large = Bytes::from(vec![7; 1 << 20]);
    let big = Op::Write(Write::Create(Create::new(path("/big"), large)));
    let many = (0..3000).map(|n| MultiOp::Create(Create::new(path(&format!("/many/{n:04}")), Bytes::new())));
    let mut parts = vec![MultiOp::Create(Create::new(path("/many"), Bytes::new()))];
    parts.extend(many);
    node.ask(1, 1, vec![big, Op::Write(Write::Multi(parts))]);
    log.round(&mut node);
    node.take_replies(1);
    let get = || Read::Get { path: path("/big") };
    node.ask(1, 3, vec![reads(vec![get(), get(), get(), get(), Read::Exists { path: path("/") }])]);
    let results = several(&mut node);
    assert!(results[..3].iter().all(Result::is_ok));
    let Err(OpError::AnswerTooLarge { size, limit }) = results[3] else { panic!("{:?}", results[3]) };
    assert!(size > limit && limit < 4 << 20, "{size} {limit}");
    assert!(results[4].is_ok(), "a small one behind it fits");
    node.input(Input::Drained { conn: ConnId(1), bytes: 16 << 20 });
    // Three pages of a thousand names exceed the limit. The third gets the rest, and at least one name.
    node.ask(1, 3, vec![reads(vec![children("/many", Look::Name); 4])]);
    let names = |result: &Result<ReadOutcome, OpError>| match result {
        Ok(ReadOutcome::Children { names, next, .. }) => (names.len(), next.is_empty()),
        other => panic!("{other:?}"),
    };
    let listed: Vec<_> = several(&mut node).iter().map(names).collect();
    assert_eq!(listed, [(1000, false), (1000, false), (1, false), (1, false)]);
    node.input(Input::Drained { conn: ConnId(1), bytes: 16 << 20 });
    let most = Limits::default().multi_ops_max;
    node.ask(1, 3, vec![reads(vec![Read::Exists { path: path("/") }; most])]);
    assert_eq!(several(&mut node).len(), most);
    node.input(Input::Drained { conn: ConnId(1), bytes: 16 << 20 });
    node.ask(1, 3, vec![reads(vec![Read::Exists { path: path("/") }; most + 1])]);
    let why = one(&mut node).unwrap_err();
    assert!(why.code() == api::ErrorCode::BadArguments && why.to_string().contains("split it"), "{why}");
}

#[test]
fn those_who_watch_a_tree_that_goes_are_told_of_each_znode_children_first_in_one_group() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    let watch = WatchSpec::new(1, path("/t"), WatchScope::Tree);
    let watch = Op::AddWatches(AddWatches { specs: vec![watch], refused: Vec::new() });
    let made = ["/t", "/t/b", "/t/a", "/t/a/x", "/t/a-b", "/other"].map(create);
    node.ask(1, 1, made.into_iter().chain([watch, tree("/t")]).collect());
    log.round(&mut node);
    let groups: Vec<_> = (node.sent.iter())
        .filter_map(|(_, item)| if let Item::Events(group) = item { Some(group.clone()) } else { None })
        .collect();
    let told = |group: &api::watch::WatchGroup| -> Vec<(ChangeKind, String)> {
        group.events.iter().map(|event| (event.change.kind, event.change.path.to_string())).collect()
    };
    let order = ["/t/a/x", "/t/a", "/t/a-b", "/t/b", "/t"].map(|p| (ChangeKind::Deleted, p.to_owned()));
    assert_eq!(groups.iter().map(told).collect::<Vec<_>>().last().unwrap(), &order);
    let replies = node.take_replies(1);
    let deleted = WriteOutcome::TreeDeleted { znodes: 5 };
    assert_eq!(replies.last().unwrap().1, Ok(Outcome::Write(deleted)));
    assert!(node.server.state().tree().stat(&path("/other")).is_some());
}

#[test]
fn trees_go_and_quotas_are_set_according_to_the_room_on_the_disks() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.ask(1, 1, vec![create("/a"), create("/a/b")]);
    log.round(&mut node);
    node.take_replies(1);
    let room = |room| QuorumStatus {
        role: Role::Leading,
        serving: true,
        epoch: Epoch(1),
        room,
        ..QuorumStatus::default()
    };
    let quota = || {
        Op::Write(Write::SetQuota {
            path: path("/a"),
            quota: Quota { hard: Bounds { znodes: Some(1), bytes: None }, ..Quota::default() },
        })
    };
    node.input(Input::Feed(Feed::Status(room(Room::Short))));
    node.ask(1, 3, vec![quota(), tree("/a/b")]);
    node.pass(Duration::from_secs(1));
    log.round(&mut node);
    let results: Vec<_> = node.take_replies(1).into_iter().map(|(_, result)| result.map(drop)).collect();
    assert_eq!(results, [Err(OpError::DiskFull), Ok(())]);
    node.input(Input::Feed(Feed::Status(room(Room::Low))));
    node.ask(1, 5, vec![quota()]);
    log.round(&mut node);
    assert!(one(&mut node).is_ok());
}

fn begin(p: &str) -> Op {
    let walk = Walk { path: path(p), max_depth: 0, with_data: false };
    Op::Walk(WalkAsk::Begin(walk, ReadLevel::Local))
}

/// The answer to a unary call.
fn called(node: &mut Node, conn: u64, op: Op) -> Result<Outcome, OpError> {
    node.sent.clear();
    node.input(call(conn, op));
    match node.sent.pop() {
        Some((ConnId(to), Item::Response(Response { result, .. }))) if to == conn => result,
        other => panic!("{other:?}"),
    }
}

fn part(result: Result<Outcome, OpError>) -> WalkPart {
    match result {
        Ok(Outcome::Walked(part)) => *part,
        other => panic!("{other:?}"),
    }
}

#[test]
fn walks_are_bounded_in_number_and_end_when_nobody_goes_on_with_them() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    let many = (0..1500).map(|n| MultiOp::Create(Create::new(path(&format!("/{n:04}")), Bytes::new())));
    node.ask(1, 1, vec![Op::Write(Write::Multi(many.collect()))]);
    log.round(&mut node);
    let first = part(called(&mut node, 10, begin("/")));
    assert!(first.end.is_none() && first.znodes.len() == 1000);
    for conn in 11..26 {
        assert!(part(called(&mut node, conn, begin("/"))).end.is_none());
    }
    let why = called(&mut node, 30, begin("/")).unwrap_err();
    assert!(matches!(why, OpError::LimitExceeded { limit: 16, .. }), "{why}");
    // Small walks count as well while they exist.
    node.pass(Duration::from_secs(6));
    node.ask(1, 2, vec![Op::Ping]);
    let next = part(called(&mut node, 31, Op::Walk(WalkAsk::Next(first.id))));
    assert_eq!(next.end, Some(WalkEnd { znodes: 1501, hidden: 0 }));
    assert!(part(called(&mut node, 32, begin("/"))).end.is_none(), "there is room for one");
    node.pass(Duration::from_secs(5));
    // The last walk still exists; fifteen have ended.
    for conn in 40..55 {
        assert!(part(called(&mut node, conn, begin("/"))).end.is_none());
    }
    assert!(part(called(&mut node, 56, begin("/"))).end.is_none(), "the idle one gives way");
    assert!(called(&mut node, 57, begin("/")).is_err(), "the others are not idle");
    node.pass(Duration::from_millis(1_100));
    assert!(part(called(&mut node, 58, begin("/"))).end.is_none(), "places cannot be kept by waiting");
    assert!(node.server.conns.len() == 1, "calls leave nothing behind");
}

#[test]
fn a_walk_is_over_when_the_node_takes_another_state() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    let many = (0..1500).map(|n| MultiOp::Create(Create::new(path(&format!("/{n:04}")), Bytes::new())));
    node.ask(1, 1, vec![Op::Write(Write::Multi(many.collect()))]);
    log.round(&mut node);
    let first = part(called(&mut node, 10, begin("/")));
    let state = State::load(node.server.state().records()).unwrap();
    node.server.replace_state(node.now, state);
    let why = called(&mut node, 11, Op::Walk(WalkAsk::Next(first.id))).unwrap_err();
    assert!(why.code() == api::ErrorCode::Unavailable && why.to_string().contains("begin it again"), "{why}");
}
