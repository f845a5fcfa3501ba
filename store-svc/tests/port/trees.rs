//! Conditional writes, subtrees, reads of several znodes, and quotas through the port.

use api::{
    Child, DeleteTree, Expected, Look, MultiOp, Page, Quota, QuotaAt, Usage,
    quota::{Bounds, Counted},
    walk::{Walk, WalkAsk, WalkEnd, WalkPart},
};

use super::*;

fn path(p: &str) -> Path {
    Path::new(p).unwrap()
}

fn write(write: Write) -> Op {
    Op::Write(write)
}

fn read(read: Read) -> Op {
    Op::Read(read, ReadLevel::Local)
}

fn error(answer: &Response) -> OpError {
    answer.result.clone().unwrap_err()
}

pub(super) async fn conditions_name_a_creation<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let made = stream.ask(vec![create("/a", "1"), create("/b", "")]).await;
    let (a, b) = (made[0].zxid, made[1].zxid);
    let set =
        |expected: Expected| write(Write::Set { path: path("/a"), data: None, version: Some(expected) });
    let part = |part| write(Write::Multi(vec![part]));
    let answers = stream
        .ask(vec![
            set(b.into()),
            set(Expected::Both { version: 1, czxid: a }),
            set(Expected::Both { version: 0, czxid: a }),
            part(MultiOp::Check { path: path("/a"), version: Some(b.into()) }),
            part(MultiOp::CheckAbsent { path: path("/a") }),
            part(MultiOp::CheckAbsent { path: path("/none") }),
            write(Write::Delete { path: path("/a"), version: Some(b.into()) }),
            write(Write::Delete { path: path("/a"), version: Some(a.into()) }),
        ])
        .await;
    let bad = OpError::BadCzxid { path: path("/a"), expected: b, actual: a };
    let in_part = |cause| OpError::Multi { index: 0, cause: Box::new(cause) };
    assert_eq!(error(&answers[0]), bad);
    assert_eq!(error(&answers[1]), OpError::BadVersion { path: path("/a"), expected: 1, actual: 0 });
    assert!(answers[2].result.is_ok());
    assert_eq!(error(&answers[3]), in_part(bad.clone()));
    assert_eq!(error(&answers[4]), in_part(OpError::Present { path: path("/a"), actual: a }));
    assert!(answers[5].result.is_ok());
    assert_eq!(error(&answers[6]), bad);
    assert!(answers[7].result.is_ok());
    node.stop().await;
}

pub(super) async fn trees_are_counted_listed_and_deleted_in_one_step<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let made = stream
        .ask(vec![create("/t", "root"), create("/t/a", "12"), create("/t/a/x", "345"), create("/t/b", "")])
        .await;
    assert!(made.iter().all(|answer| answer.result.is_ok()));
    let page = |look| read(Read::Children { path: path("/t"), page: Page { look, ..Page::default() } });
    let tree = |keep_root, max_znodes| {
        write(Write::DeleteTree(DeleteTree { path: path("/t"), version: None, keep_root, max_znodes }))
    };
    let count = || read(Read::Count { path: path("/t") });
    let several = Op::MultiRead(
        vec![Read::Get { path: path("/t/b") }, Read::Get { path: path("/t/c") }],
        ReadLevel::Linearizable,
    );
    let answers = stream
        .ask(vec![count(), page(Look::Data), several, tree(true, 2), tree(true, 3), count(), tree(false, 0)])
        .await;
    let counted = |znodes, bytes| Ok(Outcome::Read(ReadOutcome::Counted(Usage { znodes, bytes })));
    assert_eq!(answers[0].result, counted(3, 5));
    let Ok(Outcome::Read(ReadOutcome::Listed(listing))) = &answers[1].result else {
        panic!("{:?}", answers[1])
    };
    let found = |child: &Child| (child.name.clone(), child.stat.unwrap().num_children, child.data.clone());
    let expected = [("a".to_owned(), 1, Some("12".into())), ("b".to_owned(), 0, Some(Bytes::new()))];
    assert_eq!(listing.children.iter().map(found).collect::<Vec<_>>(), expected);
    let Ok(Outcome::MultiRead(results)) = &answers[2].result else { panic!("{:?}", answers[2]) };
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(OpError::NoNode(path("/t/c"))));
    assert!(matches!(error(&answers[3]), OpError::LimitExceeded { limit: 2, actual: 3, .. }));
    let deleted = |znodes| Ok(Outcome::Write(WriteOutcome::TreeDeleted { znodes }));
    assert_eq!(answers[4].result, deleted(3));
    assert_eq!(answers[5].result, counted(0, 0));
    assert_eq!(answers[6].result, deleted(1));
    node.stop().await;
}

pub(super) async fn quotas_are_set_listed_and_kept<P: Packaging>() {
    let node = Node::start().await;
    let port = P::port(&node);
    let call = async |op| port.call(Caller::default(), Request::new(0, op)).await.unwrap().0;
    assert!(call(create("/q", "root")).await.result.is_ok());
    let bounds = |znodes, bytes| Bounds { znodes, bytes };
    let quota = Quota { soft: bounds(Some(0), None), hard: bounds(Some(1), Some(4)) };
    let set_quota = |quota| write(Write::SetQuota { path: path("/q"), quota });
    let at = |znodes, bytes| QuotaAt { path: path("/q"), quota, used: Usage { znodes, bytes } };
    assert_eq!(call(set_quota(quota)).await.result, Ok(Outcome::Write(WriteOutcome::QuotaSet(at(0, 0)))));
    assert!(call(create("/q/a", "four")).await.result.is_ok());
    let full = |counted, limit, actual| OpError::QuotaExceeded { path: path("/q"), counted, limit, actual };
    assert_eq!(error(&call(create("/q/b", "")).await), full(Counted::Znodes, 1, 2));
    assert_eq!(error(&call(set("/q/a", "five!")).await), full(Counted::Bytes, 4, 5));
    assert!(call(set("/q/a", "less")).await.result.is_ok());
    let list = |p: &str| read(Read::Quotas { path: path(p), page: Page::default() });
    for p in ["/", "/q", "/q/a/x"] {
        let quotas = ReadOutcome::Quotas { quotas: vec![at(1, 4)], next: String::new() };
        assert_eq!(call(list(p)).await.result, Ok(Outcome::Read(quotas)), "{p}");
    }
    let none = ReadOutcome::Quotas { quotas: Vec::new(), next: String::new() };
    assert_eq!(call(list("/other")).await.result, Ok(Outcome::Read(none.clone())));
    assert!(call(set_quota(Quota::default())).await.result.is_ok());
    assert_eq!(call(list("/")).await.result, Ok(Outcome::Read(none)));
    assert!(call(create("/q/b", "any length")).await.result.is_ok());
    node.stop().await;
}

fn part_of(answer: Response) -> WalkPart {
    match answer.result {
        Ok(Outcome::Walked(part)) => *part,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_walk_goes_on_in_parts_through_one_state<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let many = (0..2500).map(|n| MultiOp::Create(Create::new(path(&format!("/w/{n:04}")), "v")));
    let root = MultiOp::Create(Create::new(path("/w"), "root"));
    stream.ask(vec![write(Write::Multi(std::iter::once(root).chain(many).collect()))]).await;
    let port = P::port(&node);
    let call = async |ask| port.call(Caller::default(), Request::new(0, Op::Walk(ask))).await.unwrap().0;
    let walk = |path| Walk { path, max_depth: 0, with_data: true };
    let mut part = part_of(call(WalkAsk::Begin(walk(path("/w")), ReadLevel::Linearizable)).await);
    let (id, zxid, mut told) = (part.id, part.zxid, part.znodes);
    // The walk reports no later change.
    let tree = DeleteTree { path: path("/w"), version: None, keep_root: false, max_znodes: 0 };
    stream.ask(vec![write(Write::DeleteTree(tree)), create("/w", "another")]).await;
    while part.end.is_none() {
        part = part_of(call(WalkAsk::Next(id)).await);
        assert_eq!((part.id, part.zxid), (id, zxid));
        told.append(&mut part.znodes);
    }
    assert_eq!(part.end, Some(WalkEnd { znodes: 2501, hidden: 0 }));
    assert_eq!((told.len(), told[0].path.as_str(), told[2500].path.as_str()), (2501, "/w", "/w/2499"));
    assert!(
        told[0].data.as_deref() == Some(b"root") && told[1..].iter().all(|z| z.data.as_deref() == Some(b"v"))
    );
    let over = call(WalkAsk::Next(id)).await.result.unwrap_err();
    assert!(over.code() == ErrorCode::Unavailable && over.to_string().contains("begin it again"), "{over}");
    let missing = call(WalkAsk::Begin(walk(path("/none")), ReadLevel::Local)).await;
    assert_eq!(error(&missing), OpError::NoNode(path("/none")));
    node.stop().await;
}

/// Each part fails with an error that names its path. All of them must fit into a message, or the
/// stream would end.
pub(super) async fn the_errors_of_many_reads_fit_into_a_message<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    stream.ask(vec![create("/v", "")]).await;
    let value = Some(bytes::Bytes::from(vec![b'x'; 64 << 10]));
    stream.ask(vec![write(Write::Set { path: path("/v"), data: value, version: None })]).await;
    let missing = |i: usize| Read::Get { path: path(&format!("/{i:0>159}")) };
    let large = |_| Read::Get { path: path("/v") };
    for reads in [(0..10_000).map(missing).collect::<Vec<_>>(), (0..10_000).map(large).collect()] {
        let answers = stream.ask(vec![Op::MultiRead(reads, ReadLevel::Local)]).await;
        let Ok(Outcome::MultiRead(parts)) = &answers[0].result else {
            panic!("{:?}", answers[0].result.as_ref().err())
        };
        assert_eq!(parts.len(), 10_000);
        let wire = proto::client::item_to_wire(Item::Response(answers[0].clone())).unwrap();
        let size = prost::Message::encoded_len(&wire);
        assert!(size < proto::client::MESSAGE_MAX - 1024, "{size}");
    }
    node.stop().await;
}
