//! Watches through the port: events and answers leave in one sequence.

use api::watch::{AddWatches, ChangeKind, WatchRefused, WatchScope, WatchSpec};

use super::*;

fn tree(id: u32, path: &str, from: Option<Zxid>) -> Op {
    let spec =
        WatchSpec { from, with_data: true, ..WatchSpec::new(id, Path::new(path).unwrap(), WatchScope::Tree) };
    Op::AddWatches(AddWatches { specs: vec![spec], refused: Vec::new() })
}

/// All items up to the answers of `n` requests.
async fn items_of<I: Items>(items: &mut I, n: usize) -> Vec<Item> {
    let (mut all, mut answers, mut next) = (Vec::new(), 0, VecDeque::new());
    while answers < n {
        let end = soon(poll_fn(|cx| items.poll_take(cx, 64, &mut next))).await;
        assert_eq!(end, None, "the stream ends behind {all:?}");
        for item in next.drain(..) {
            let answer = usize::from(matches!(item, Item::Response(_)));
            items.taken(answer, item.weight());
            answers += answer;
            all.push(item);
        }
    }
    all
}

/// One word for each item.
fn words(items: &[Item]) -> Vec<String> {
    let word = |item: &Item| match item {
        Item::Events(group) => {
            let change = &group.events[0].change;
            let data = change.data.as_deref().unwrap_or_default();
            Some(
                format!("{:?} {} {}", change.kind, change.path, String::from_utf8_lossy(data))
                    .trim_end()
                    .to_owned(),
            )
        }
        Item::Response(response) => Some(format!("answer {}", response.xid)),
        _ => None,
    };
    items.iter().filter_map(word).collect()
}

pub(super) async fn events_come_before_the_answers_that_show_them<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let ops =
        vec![tree(1, "/a", None), create("/a", "1"), set("/a", "2"), get("/a"), Op::CancelWatches(vec![1])];
    let requests = (1..).zip(ops).map(|(xid, op)| request(xid, None, op)).collect();
    stream.requests.submit(WriteNumber(0), requests).await.unwrap();
    let all = items_of(&mut stream.items, 5).await;
    let expected =
        ["answer 1", "Created /a 1", "answer 2", "DataChanged /a 2", "answer 3", "answer 4", "answer 5"];
    assert_eq!(words(&all), expected);
    node.stop().await;
}

pub(super) async fn a_watch_goes_on_behind_a_zxid_on_another_stream<P: Packaging>() {
    let node = Node::start().await;
    let mut first = Stream::open::<P>(&node, None).await;
    let added = first.ask(vec![tree(1, "/a", None)]).await;
    let mut other = Stream::open::<P>(&node, None).await;
    other.ask(vec![create("/a", "1"), set("/a", "2"), create("/b", "")]).await;
    // The first stream ends before it reads any item.
    let mut second = Stream::open::<P>(&node, Some(&first.opened)).await;
    let requests = vec![request(1, None, tree(1, "/a", Some(added[0].zxid))), request(2, None, get("/a"))];
    second.requests.submit(WriteNumber(0), requests).await.unwrap();
    let all = items_of(&mut second.items, 2).await;
    assert_eq!(words(&all), ["Created /a 1", "DataChanged /a 2", "answer 1", "answer 2"]);
    node.stop().await;
}

pub(super) async fn a_client_that_takes_no_events_is_told_them_later_and_holds_up_nobody<P: Packaging>() {
    const WRITES: usize = 300;
    let node = Node::start().await;
    let mut slow = Stream::open::<P>(&node, None).await;
    let mut writer = Stream::open::<P>(&node, None).await;
    slow.ask(vec![tree(1, "/a", None)]).await;
    writer.ask(vec![create("/a", "")]).await;
    // More than can wait in transit.
    let value = |i: usize| {
        let data = Some(Bytes::from(vec![i as u8; 32 << 10]));
        Op::Write(Write::Set { path: Path::new("/a").unwrap(), data, version: None })
    };
    for i in 0..WRITES {
        assert!(writer.ask(vec![value(i)]).await[0].result.is_ok());
    }
    slow.requests.submit(WriteNumber(0), vec![request(9, None, Op::Ping)]).await.unwrap();
    let all = items_of(&mut slow.items, 1).await;
    let groups: Vec<_> =
        all.iter().filter_map(|i| if let Item::Events(group) = i { Some(group) } else { None }).collect();
    assert_eq!(groups.len(), WRITES + 1, "each once");
    assert!(groups.windows(2).all(|w| w[0].zxid < w[1].zxid), "in order");
    assert_eq!(groups[WRITES].events[0].change.kind, ChangeKind::DataChanged);
    assert_eq!(groups[WRITES].events[0].change.data.as_ref().map(|data| data[0]), Some((WRITES - 1) as u8));
    node.stop().await;
}

pub(super) async fn a_watch_that_cannot_be_read_is_refused_alone<P: Packaging>() {
    let node = Node::start().await;
    let mut stream = Stream::open::<P>(&node, None).await;
    let refused = WatchRefused { id: 7, error: OpError::BadArguments("it makes no sense".into()) };
    let Op::AddWatches(mut add) = tree(1, "/a", None) else { unreachable!() };
    add.refused.push(refused.clone());
    let answers = stream.ask(vec![Op::AddWatches(add), Op::CancelWatches(vec![1, 7])]).await;
    assert_eq!(answers[0].result, Ok(Outcome::Watching(vec![refused])));
    assert_eq!(answers[1].result, Ok(Outcome::Cancelled(vec![7])));
    let call = P::port(&node).call(Caller::default(), Request::new(0, tree(1, "/a", None))).await;
    assert!(matches!(call, Err(OpError::BadArguments(_))), "a call has no watches");
    node.stop().await;
}
