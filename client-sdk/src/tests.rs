//! The client against fake nodes, over real sockets.

mod fake;

use std::{net::TcpListener, sync::Arc, time::Duration};

use bytes::Bytes;
use fake::{DATA_MAX, Server, World};

use super::*;

async fn connect(servers: &[Server]) -> Client {
    connect_with(servers, Options::default()).await
}

async fn connect_with(servers: &[Server], options: Options) -> Client {
    Client::connect(servers.iter().map(Server::endpoint), options).await.unwrap()
}

fn one() -> (Arc<World>, [Server; 1]) {
    let world = World::new();
    let server = Server::start(&world, 1);
    (world, [server])
}

fn path(s: &str) -> Path {
    Path::new(s).unwrap()
}

fn set(value: u32) -> Write {
    Write::Set { path: path("/n"), data: Some(Bytes::copy_from_slice(&value.to_be_bytes())), version: None }
}

fn mode(sequential: bool) -> CreateMode {
    CreateMode { sequential, ..CreateMode::default() }
}

#[tokio::test]
async fn b09_a_listing_of_several_pages_comes_whole() {
    let (_world, servers) = one();
    let client = connect(&servers).await;
    client.create("/many", "", mode(false)).await.unwrap();
    let names: Vec<String> = (0..2 * Page::NAMES_MAX + 7).map(|i| format!("{i:05}")).collect();
    let mut made = Vec::new();
    for name in &names {
        let path = path(&format!("/many/{name}"));
        let create = Create::new(path, Bytes::new());
        made.push(client.submit(Write::Create(create)).await);
    }
    for made in made {
        made.await.unwrap();
    }
    assert_eq!(client.children("/many").await.unwrap().0, names);
}

#[tokio::test]
async fn b09_a_request_above_the_message_limit_fails_alone() {
    let (_world, servers) = one();
    let client = connect(&servers).await;
    let session = client.session();
    client.create("/n", "", mode(false)).await.unwrap();
    let too_large = client.set("/n", vec![0; 5 << 20], None).await.unwrap_err();
    assert_eq!((too_large.code(), too_large.fate()), (ErrorCode::TooLarge, Fate::NotDone), "{too_large}");
    let part = || MultiOp::Set { path: path("/n"), data: Some(vec![0; 1 << 20].into()), version: None };
    let too_large = client.multi(vec![part(), part(), part(), part()]).await.unwrap_err();
    assert_eq!(too_large.code(), ErrorCode::TooLarge);
    client.set("/n", "small", None).await.unwrap();
    assert_eq!(client.session(), session);
}

#[tokio::test]
async fn every_verb_works() {
    let (world, servers) = one();
    let client = connect(&servers).await;
    assert_eq!(client.create("/a", "one", mode(false)).await.unwrap().0, path("/a"));
    assert_eq!(client.create("/a/s-", "", mode(true)).await.unwrap().0, path("/a/s-0000000001"));
    assert_eq!(client.get("/a").await.unwrap().0, "one");
    assert_eq!(client.set("/a", "three", None).await.unwrap().data_length, 5);
    assert_eq!(client.exists("/a").await.unwrap().unwrap().data_length, 5);
    assert_eq!(client.exists("/b").await.unwrap(), None);
    assert_eq!(client.children("/a").await.unwrap().0, ["s-0000000001"]);
    let check = |p| MultiOp::Check { path: path(p), version: None };
    assert_eq!(client.multi(vec![check("/a")]).await.unwrap(), [MultiOutcome::Checked]);
    client.sync().await.unwrap();
    let levels = [ReadLevel::Linearizable, ReadLevel::AtLeast(Zxid(1)), ReadLevel::Local];
    for level in levels {
        assert_eq!(client.get_with("/a", level).await.unwrap().0, "three");
        assert!(client.exists_with("/a", level).await.unwrap().is_some());
        assert_eq!(client.children_with("/a", level).await.unwrap().0, ["s-0000000001"]);
    }
    assert!(world.state().levels.ends_with(&levels.map(|level| [level; 3]).concat()), "as they were asked");
    client.delete("/a/s-0000000001", None).await.unwrap();

    let large = vec![7; DATA_MAX];
    client.create("/large", large.clone(), mode(false)).await.unwrap();
    assert_eq!(client.get("/large").await.unwrap().0, large);

    let refusal = |e: ClientError| e.refusal().cloned().unwrap();
    assert_eq!(refusal(client.get("/b").await.unwrap_err()), OpError::NoNode(path("/b")));
    let exists = client.create("/a", "", mode(false)).await.unwrap_err();
    assert_eq!((exists.code(), exists.fate()), (ErrorCode::NodeExists, Fate::NotDone));
    let version = client.set("/a", "", Some(3.into())).await.unwrap_err();
    assert_eq!(refusal(version), OpError::BadVersion { path: path("/a"), expected: 3, actual: 0 });
    let multi = refusal(client.multi(vec![check("/a"), check("/b")]).await.unwrap_err());
    assert_eq!(multi, OpError::Multi { index: 1, cause: Box::new(OpError::NoNode(path("/b"))) });
    let too_large = client.create("/larger", vec![0; DATA_MAX + 1], mode(false)).await.unwrap_err();
    assert_eq!(too_large.code(), ErrorCode::TooLarge);
    assert!(client.get("a").await.unwrap_err().to_string().contains("does not start with /"));

    let session = client.session().unwrap();
    assert!(world.state().sessions.contains_key(&session));
    client.close().await.unwrap();
    assert!(!world.state().sessions.contains_key(&session), "closed, not left to expire");
    assert_eq!(client.session(), None);
    let closed = client.get("/a").await.unwrap_err();
    assert_eq!(closed, Failure::Closed { fate: Fate::NotDone }.into());
    client.close().await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_session() {
    let (world, servers) = one();
    let client = connect(&servers).await;
    let other = client.clone();
    let mut progress = client.events();
    drop(client);
    other.create("/a", "", mode(false)).await.unwrap();
    drop(other);
    // The task owns the last sender of events.
    while progress.recv().await.is_ok() {}
    assert!(world.state().sessions.is_empty());
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_pipeline_loses_and_repeats_nothing() {
    const WRITES: u32 = 5000;
    let world = World::new();
    let mut servers = [Server::start(&world, 1), Server::start(&world, 2)];
    let client = connect(&servers).await;
    let session = client.session().unwrap();
    let mut events = client.events();
    client.create("/n", "", mode(false)).await.unwrap();

    // Some are answered, then many are carried out without an answer, then that node dies.
    let mut pending = Vec::new();
    for value in 0..WRITES / 2 {
        pending.push(client.submit(set(value)).await);
    }
    (&mut pending[1000]).await.unwrap();
    world.silent.send_replace(true);
    let already = *world.written.borrow();
    for value in WRITES / 2..WRITES {
        pending.push(client.submit(set(value)).await);
    }
    // At least one more message is carried out, if not all was before.
    let more = (already + 1).min(WRITES as usize + 1);
    world.written.subscribe().wait_for(|&n| n >= more).await.unwrap();
    let first = servers.iter().position(|s| Some(s.endpoint().as_str()) == client.endpoint()).unwrap();
    servers[first].kill();
    world.silent.send_replace(false);

    for (value, pending) in pending.into_iter().enumerate().filter(|(i, _)| *i != 1000) {
        pending.await.unwrap_or_else(|e| panic!("write {value}: {e}"));
    }
    let all: Vec<Bytes> = (0..WRITES).map(|v| Bytes::copy_from_slice(&v.to_be_bytes())).collect();
    assert!(world.state().sets == all, "once each, in order");
    assert_eq!(client.session(), Some(session), "the session continues");
    assert!(matches!(events.recv().await, Ok(SessionEvent::Disconnected { .. })));
    assert!(matches!(events.recv().await, Ok(SessionEvent::Resumed { .. })));
    client.sync().await.unwrap();
    assert_eq!(world.state().sessions[&session].acked, u64::from(WRITES) + 1, "results are acknowledged");
}

#[tokio::test]
async fn an_expired_session_is_told_and_followed_by_a_fresh_one() {
    let (world, servers) = one();
    let client = connect(&servers).await;
    client.create("/n", "", mode(false)).await.unwrap();
    let mut events = client.events();
    let old = client.session().unwrap();
    world.state().sessions.clear();
    let error = client.submit(set(1)).await.await.unwrap_err();
    assert_eq!(error, Failure::SessionLost { session: old, fate: Fate::Unknown }.into());
    assert_eq!(error.code(), ErrorCode::SessionExpired);
    assert_eq!(events.recv().await, Ok(SessionEvent::SessionLost { session: old }));
    client.submit(set(2)).await.await.unwrap();
    assert!(matches!(events.recv().await, Ok(SessionEvent::Connected { session, .. }) if session != old));
}

#[tokio::test]
async fn without_reopen_everybody_is_told_that_the_session_is_lost() {
    let (world, servers) = one();
    let options = Options { reopen: false, requests_max: 1, ..Options::default() };
    let client = connect_with(&servers, options).await;
    let session = client.session().unwrap();
    world.state().sessions.clear();
    // The first has all the room; the others wait for it, or come when all is over.
    let lost = |fate| Some(ClientError::from(Failure::SessionLost { session, fate }));
    let (first, second) = tokio::join!(client.set("/n", "", None), client.get("/n"));
    assert_eq!((first.err(), second.err()), (lost(Fate::Unknown), lost(Fate::NotDone)));
    assert_eq!(client.sync().await.err(), lost(Fate::NotDone));
    client.close().await.unwrap();
}

#[tokio::test]
async fn requests_wait_for_room_and_for_their_time() {
    let (world, servers) = one();
    let options =
        Options { requests_max: 2, op_timeout: Some(Duration::from_millis(50)), ..Options::default() };
    let client = connect_with(&servers, options).await;
    client.create("/n", "", mode(false)).await.unwrap();
    world.silent.send_replace(true);
    let (a, b) = (client.submit(set(1)).await, client.submit(set(2)).await);
    let mut third = Box::pin(client.submit(set(3)));
    tokio::select! {
        biased;
        _ = &mut third => panic!("there is no room"),
        () = std::future::ready(()) => {}
    }
    let timed_out = client.get("/n").await.unwrap_err();
    assert_eq!(timed_out, Failure::TimedOut { fate: Fate::NotDone }.into(), "no room in time");
    world.silent.send_replace(false);
    a.await.unwrap();
    b.await.unwrap();
    third.await.await.unwrap();
    assert_eq!(client.get("/n").await.unwrap().0, &3u32.to_be_bytes()[..]);

    world.silent.send_replace(true);
    let timed_out = client.get("/n").await.unwrap_err();
    assert_eq!(timed_out, Failure::TimedOut { fate: Fate::NotDone }.into(), "no answer in time");
    world.silent.send_replace(false);
}

#[tokio::test]
async fn a_write_with_a_time_limit_ends_in_doubt() {
    let (world, servers) = one();
    let options = Options { write_timeout: Some(Duration::from_millis(50)), ..Options::default() };
    let client = connect_with(&servers, options).await;
    client.create("/n", "", mode(false)).await.unwrap();
    world.silent.send_replace(true);
    let pending = client.submit(set(1)).await;
    world.written.subscribe().wait_for(|&n| n == 2).await.unwrap();
    let error = pending.await.unwrap_err();
    assert_eq!((error.fate(), error.code()), (Fate::Unknown, ErrorCode::Unknown));
    world.silent.send_replace(false);
    client.submit(set(2)).await.await.unwrap();
}

#[tokio::test]
async fn a_failure_to_connect_names_every_endpoint_and_the_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // Accepts connections (the kernel does) and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [closed.clone(), mute.local_addr().unwrap().to_string()];
    let options = Options {
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let error = Client::connect(endpoints.clone(), options.clone()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("{closed}: ")) && text.contains("refused"), "{text}");
    assert!(text.contains(&format!("{}: no session within 100ms", endpoints[1])), "{text}");
    assert_eq!(error.code(), ErrorCode::Unavailable);

    for (endpoint, why) in [
        ("", "no address"),
        ("localhost", "port is missing"),
        ("ftp://localhost:1", "only http:// and https://"),
        ("a b:1", "no address"),
    ] {
        let error = Client::connect([endpoint], options.clone()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadArguments);
        assert!(error.to_string().contains(why), "{error}");
    }
    let none = Client::connect(Vec::<String>::new(), options).await.unwrap_err();
    assert!(none.to_string().contains("none was given"), "{none}");
}

#[tokio::test]
async fn a_server_of_another_kind_is_recognised_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (world, _) = one();
    let node_only = tonic::transport::Server::builder().add_service(fake::node_service(&world));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let serving = tokio::spawn(node_only.serve_with_incoming(incoming));
    let error = Client::connect([endpoint], Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("check host and port"), "{error}");
    serving.abort();
}

#[tokio::test]
async fn a_node_tells_about_itself() {
    let (_world, servers) = one();
    let limit = Duration::from_secs(10);
    assert_eq!(node_status(&servers[0].endpoint(), limit, None).await, Ok(fake::node_status(PeerId(1))));
    let mute = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = node_status(&mute, limit, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().starts_with(&mute), "{error}");
}
