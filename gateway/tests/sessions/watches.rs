//! What watches tell, and when.

use std::time::Duration;

use zk_jute::{Body, Code, EventType, Request, SetWatches};

use crate::client::{Client, Node, create, delete, get, resume, set};

const CREATED: EventType = EventType::NODE_CREATED;
const DELETED: EventType = EventType::NODE_DELETED;
const DATA: EventType = EventType::NODE_DATA_CHANGED;
const CHILDREN: EventType = EventType::NODE_CHILDREN_CHANGED;

fn watch_data(path: &str) -> Request {
    Request::GetData { path: path.into(), watch: true }
}

fn watch_exists(path: &str) -> Request {
    Request::Exists { path: path.into(), watch: true }
}

fn watch_children(path: &str) -> Request {
    Request::GetChildren2 { path: path.into(), watch: true }
}

async fn ok(client: &mut Client, request: Request) -> Body {
    let answer = client.ask(request.clone()).await;
    answer.unwrap_or_else(|code| panic!("{request:?} is answered with {code:?}"))
}

/// These requests of one client, and what it gets for them: events and replies, in this order.
async fn pipelined(client: &mut Client, requests: &[Request], expected: &[Option<(EventType, &str)>]) {
    client.submit(requests).await;
    for expected in expected {
        match expected {
            Some((kind, path)) => {
                let (its, of, _) = client.event().await;
                assert_eq!((its, &of[..]), (*kind, *path));
            }
            None => assert_eq!(client.reply().await.0.err, 0),
        }
    }
}

#[tokio::test]
async fn an_event_comes_once_before_the_reply_of_the_write_that_caused_it() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    assert_eq!(client.ask(watch_exists("/a")).await, Err(Code::NO_NODE), "which leaves a watch");
    let requests = [
        create("/a", 0),
        watch_data("/a"),
        watch_children("/a"),
        set("/a", "1", -1),
        set("/a", "2", -1),
        create("/a/b", 0),
        create("/a/c", 0),
        watch_data("/a/b"),
        watch_children("/a/b"),
        delete("/a/b"),
    ];
    let expected = [
        Some((CREATED, "/a")),
        None,
        None,
        None,
        Some((DATA, "/a")),
        None,
        None,
        Some((CHILDREN, "/a")),
        None,
        None,
        None,
        None,
        // For both watches.
        Some((DELETED, "/a/b")),
        None,
    ];
    pipelined(&mut client, &requests, &expected).await;
    assert!(client.is_silent(Duration::from_millis(200)).await, "each fires once");
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn an_event_has_the_zxid_of_its_cause_and_comes_before_what_shows_it() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let (mut other, _) = node.client().await;
    ok(&mut other, create("/a", 0)).await;
    ok(&mut client, watch_data("/a")).await;
    other.submit(&[set("/a", "1", -1)]).await;
    let (header, _) = other.reply().await;
    let (kind, path, zxid) = client.event().await;
    assert_eq!((kind, &path[..], zxid), (DATA, "/a", header.zxid));
    for missing in [watch_data("/none"), watch_children("/none")] {
        assert_eq!(client.ask(missing).await, Err(Code::NO_NODE));
    }
    ok(&mut other, create("/none", 0)).await;
    assert!(client.is_silent(Duration::from_millis(200)).await, "a read that fails leaves no watch");
    client.hang_up().await;
    other.hang_up().await;
    node.stop().await;
}

/// Watches and reads race with the writes of another client: no change may fall between a value and the watch that came with it.
#[tokio::test]
async fn no_change_is_missed_between_a_read_and_its_watch() {
    let node = Node::start().await;
    let (mut reader, _) = node.client().await;
    let (mut writer, _) = node.client().await;
    ok(&mut writer, create("/n", 0)).await;
    const WRITES: i32 = 300;
    let writes = async {
        for n in 0..WRITES {
            ok(&mut writer, set("/n", "x", n)).await;
        }
    };
    let reads = async {
        let mut seen = -1;
        while seen < WRITES {
            let Body::Data(_, stat) = ok(&mut reader, watch_data("/n")).await else { panic!("no value") };
            assert!(stat.version >= seen);
            seen = stat.version;
            if seen < WRITES {
                // Without it the reader would wait here for ever.
                let (kind, path, _) = reader.event().await;
                assert_eq!((kind, &path[..]), (DATA, "/n"));
            }
        }
    };
    tokio::join!(writes, reads);
    reader.hang_up().await;
    writer.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn watches_are_set_again_behind_a_new_connection_and_tell_what_was_missed() {
    let node = Node::start().await;
    let (first, opened) = node.client().await;
    let (mut other, _) = node.client().await;
    for path in ["/changed", "/same", "/gone", "/parent"] {
        ok(&mut other, create(path, 0)).await;
    }
    other.submit(&[get("/same")]).await;
    let relative_zxid = other.reply().await.0.zxid;
    first.hang_up().await;
    for request in [set("/changed", "1", -1), delete("/gone"), create("/new", 0), create("/parent/child", 0)]
    {
        ok(&mut other, request).await;
    }
    let mut second = node.connect();
    second.open(&resume(&opened)).await.unwrap();
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<String>>();
    let watches = SetWatches {
        relative_zxid,
        data: list(&["/changed", "/same", "/gone"]),
        exist: list(&["/new", "/later"]),
        child: list(&["/parent", "/same"]),
    };
    second.submit(&[Request::SetWatches { watches }]).await;
    let mut missed = Vec::new();
    for _ in 0..4 {
        let (kind, path, _) = second.event().await;
        missed.push((kind, path));
    }
    missed.sort();
    let expected = [(CREATED, "/new"), (DELETED, "/gone"), (DATA, "/changed"), (CHILDREN, "/parent")];
    assert_eq!(missed, expected.map(|(kind, path)| (kind, path.to_owned())));
    assert_eq!(second.reply().await.0.err, 0);
    // Those that had missed nothing are there.
    for (request, event) in [
        (set("/same", "1", -1), (DATA, "/same")),
        (create("/later", 0), (CREATED, "/later")),
        (create("/same/child", 0), (CHILDREN, "/same")),
    ] {
        ok(&mut other, request).await;
        let (kind, path, _) = second.event().await;
        assert_eq!((kind, &path[..]), event);
    }
    second.hang_up().await;
    other.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn watches_that_stay_are_added_and_taken_away_one_kind_at_a_time() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let add = |path: &str, mode| Request::AddWatch { path: path.into(), mode };
    let check = |path: &str, kind| Request::CheckWatches { path: path.into(), kind };
    let remove = |path: &str, kind| Request::RemoveWatches { path: path.into(), kind };
    assert_eq!(client.ask(add("/p", 2)).await, Err(Code::MARSHALLING_ERROR));
    assert_eq!(client.ask(add("/p", 0)).await, Ok(Body::Number(0)));
    assert_eq!(client.ask(add("/r", 1)).await, Ok(Body::Number(0)));
    let requests = [
        create("/p", 0),
        create("/p/a", 0),
        create("/p/a/b", 0),
        set("/p", "1", -1),
        set("/p", "2", -1),
        create("/r", 0),
        create("/r/a", 0),
        create("/r/a/b", 0),
        delete("/r/a/b"),
    ];
    let expected = [
        Some((CREATED, "/p")),
        None,
        Some((CHILDREN, "/p")),
        None,
        None,
        Some((DATA, "/p")),
        None,
        Some((DATA, "/p")),
        None,
        Some((CREATED, "/r")),
        None,
        Some((CREATED, "/r/a")),
        None,
        Some((CREATED, "/r/a/b")),
        None,
        Some((DELETED, "/r/a/b")),
        None,
    ];
    pipelined(&mut client, &requests, &expected).await;
    ok(&mut client, watch_data("/p")).await;
    for (kind, answer) in [
        (1, Err(Code::NO_WATCHER)),
        (2, Ok(Body::Nothing)),
        (3, Ok(Body::Nothing)),
        (4, Ok(Body::Nothing)),
        (5, Err(Code::NO_WATCHER)),
        (9, Err(Code::MARSHALLING_ERROR)),
    ] {
        assert_eq!(client.ask(check("/p", kind)).await, answer, "kind {kind}");
    }
    assert_eq!(client.ask(remove("/p", 4)).await, Ok(Body::Nothing));
    assert_eq!(client.ask(remove("/p", 4)).await, Err(Code::NO_WATCHER));
    assert_eq!(client.ask(remove("/r", 3)).await, Ok(Body::Nothing));
    pipelined(
        &mut client,
        &[create("/r/c", 0), create("/p/c", 0), set("/p", "3", -1)],
        &[None, None, Some((DATA, "/p")), None],
    )
    .await;
    client.hang_up().await;
    node.stop().await;
}
