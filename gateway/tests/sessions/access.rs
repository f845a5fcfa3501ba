//! Who a client is, and what access lists make of that.

use api::{Identities, proof::Prover};
use bytes::{Bytes, BytesMut};
use gateway::{Config, End};
use zk_jute::{Acl, Body, ClientInfo, Code, Id, Request};

use crate::client::{Client, Node, create, fresh, get, node, resume, set};

fn entry(perms: i32, scheme: &str, id: &str) -> Acl {
    Acl { perms, id: Id { scheme: scheme.into(), id: id.into() } }
}

fn set_acl(path: &str, entries: &[Acl]) -> Request {
    Request::SetAcl { path: path.into(), acl: Some(entries.to_vec()), version: -1 }
}

fn get_acl(path: &str) -> Request {
    Request::GetAcl { path: path.into() }
}

fn auth(scheme: &str, secret: &'static str) -> Request {
    let auth = Some(Bytes::from_static(secret.as_bytes()));
    Request::Auth { kind: 0, scheme: Some(scheme.into()), auth }
}

fn answer(code: i32) -> Vec<u8> {
    [&(-4i32).to_be_bytes()[..], &0i64.to_be_bytes(), &code.to_be_bytes()].concat()
}

async fn prove(client: &mut Client, scheme: &str, secret: &'static str, code: i32) {
    let mut out = BytesMut::new();
    auth(scheme, secret).encode(zk_jute::xid::AUTH, &mut out);
    client.send(&out).await;
    assert_eq!(client.frame().await.unwrap(), answer(code));
}

fn acl_of(body: Result<Body, Code>) -> Vec<Acl> {
    match body {
        Ok(Body::Acl(acl, _)) => acl,
        other => panic!("{other:?}"),
    }
}

/// Of ann:secret.
fn ann(perms: i32) -> Acl {
    entry(perms, "digest", api::proof::digest("ann:secret").unwrap().id())
}

#[tokio::test]
async fn access_lists_of_the_world_are_kept_told_and_enforced() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    let world = |perms| entry(perms, "world", "anyone");
    let set_acl =
        |perms, version| Request::SetAcl { path: "/a".into(), acl: Some(vec![world(perms)]), version };
    assert!(client.ask(create("/a", 0)).await.is_ok());
    assert_eq!(acl_of(client.ask(get_acl("/a")).await), [world(31)]);
    assert_eq!(client.ask(set_acl(17, 7)).await, Err(Code::BAD_VERSION));
    // READ and ADMIN.
    assert!(matches!(client.ask(set_acl(17, 0)).await, Ok(Body::Stat(stat)) if stat.aversion == 1));
    assert_eq!(acl_of(client.ask(get_acl("/a")).await), [world(17)]);
    assert_eq!(client.ask(create("/a/b", 0)).await, Err(Code::NO_AUTH));
    assert!(client.ask(set_acl(31, 1)).await.is_ok());
    assert!(client.ask(create("/a/b", 0)).await.is_ok());
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn digests_are_taken_other_schemes_are_not_and_a_client_can_ask_who_it_is() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    prove(&mut client, "digest", "ann:secret", 0).await;
    prove(&mut client, "ip", "", 0).await;
    let info = |scheme: &str, user: &str| ClientInfo { scheme: scheme.into(), user: user.into() };
    let infos = vec![info("digest", "ann"), info("ip", "192.0.2.1")];
    assert_eq!(client.ask(Request::WhoAmI).await, Ok(Body::Infos(infos)));
    prove(&mut client, "kerberos", "ann:secret", -115).await;
    assert_eq!(client.ended().await, End::Closed);
    node.stop().await;
}

#[tokio::test]
async fn a_list_for_a_digest_lets_in_who_proves_it_and_nobody_else() {
    let node = Node::start().await;
    let (mut owner, opened) = node.client().await;
    let (mut other, _) = node.client().await;
    assert!(owner.ask(create("/a", 0)).await.is_ok());
    assert_eq!(
        owner.ask(set_acl("/a", &[entry(31, "auth", "")])).await,
        Err(Code::INVALID_ACL),
        "nothing is proven"
    );
    prove(&mut owner, "digest", "ann:secret", 0).await;
    assert!(owner.ask(set_acl("/a", &[entry(31, "auth", "")])).await.is_ok());
    assert_eq!(acl_of(owner.ask(get_acl("/a")).await), [ann(31)]);
    assert!(owner.ask(set("/a", "mine", -1)).await.is_ok());
    for request in [get("/a"), set("/a", "", -1), create("/a/b", 0), get_acl("/a"), set_acl("/a", &[ann(31)])]
    {
        assert_eq!(other.ask(request.clone()).await, Err(Code::NO_AUTH), "{request:?}");
    }
    prove(&mut other, "digest", "ann:wrong", 0).await;
    assert_eq!(other.ask(get("/a")).await, Err(Code::NO_AUTH));
    // With READ alone the hash stays hidden.
    assert!(owner.ask(set_acl("/a", &[ann(31), entry(1, "world", "anyone")])).await.is_ok());
    assert_eq!(acl_of(other.ask(get_acl("/a")).await)[0].id.id, "ann:x");
    // Identities are of a connection; the session is the client's with its password alone.
    owner.hang_up().await;
    let mut again = node.connect();
    assert!(again.open(&resume(&opened)).await.is_some());
    assert_eq!(again.ask(set("/a", "", -1)).await, Err(Code::NO_AUTH));
    prove(&mut again, "digest", "ann:secret", 0).await;
    assert!(again.ask(set("/a", "", -1)).await.is_ok());
    again.hang_up().await;
    other.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn an_entry_for_auth_may_have_no_id() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    assert!(client.ask(create("/a", 0)).await.is_ok());
    prove(&mut client, "digest", "ann:secret", 0).await;
    let mut out = BytesMut::new();
    set_acl("/a", &[entry(31, "auth", "")]).encode(1, &mut out);
    // The last fields are the length of the id and the version: kazoo writes null for an empty text.
    let place = out.len() - 8;
    assert_eq!(out[place..place + 4], 0i32.to_be_bytes());
    out[place..place + 4].copy_from_slice(&(-1i32).to_be_bytes());
    client.send(&out).await;
    let (header, _) = zk_jute::ReplyHeader::decode(client.frame().await.unwrap()).unwrap();
    assert_eq!((header.xid, header.err), (1, 0));
    assert_eq!(acl_of(client.ask(get_acl("/a")).await), [ann(31)]);
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn an_identity_counts_for_what_comes_behind_it_on_the_wire() {
    let server = Node::start().await;
    let (mut client, _) = server.client().await;
    let create =
        Request::Create { create: zk_jute::Create { acl: Some(vec![ann(31)]), ..node("/a", "0", 0) } };
    assert!(client.ask(create).await.is_ok());
    for round in 0..20 {
        let mut out = BytesMut::new();
        let (before, behind) = (set("/a", "before", -1), set("/a", "behind", -1));
        let (first, second) = (get("/a"), get("/a"));
        before.encode(1, &mut out);
        first.encode(2, &mut out);
        auth("digest", "ann:secret").encode(zk_jute::xid::AUTH, &mut out);
        behind.encode(3, &mut out);
        second.encode(4, &mut out);
        let (mut client, _) = server.client().await;
        client.send(&out).await;
        let mut codes = Vec::new();
        for _ in 0..5 {
            let (header, _) = zk_jute::ReplyHeader::decode(client.frame().await.unwrap()).unwrap();
            codes.push((header.xid, Code(header.err)));
        }
        let expected = [(1, Code::NO_AUTH), (2, Code::NO_AUTH), (-4, Code::OK), (3, Code::OK), (4, Code::OK)];
        assert_eq!(codes, expected, "round {round}");
        client.hang_up().await;
    }
    client.hang_up().await;
    server.stop().await;
}

#[tokio::test]
async fn lists_of_addresses_and_networks_match_the_address_of_the_connection() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    for (id, may) in
        [("192.0.2.1", true), ("192.0.2.0/24", true), ("192.0.3.0/24", false), ("0.0.0.0/0", true)]
    {
        let path = format!("/{}", id.replace('/', "-"));
        assert!(client.ask(create(&path, 0)).await.is_ok());
        assert!(client.ask(set_acl(&path, &[entry(31, "ip", id)])).await.is_ok());
        assert_eq!(client.ask(get(&path)).await.is_ok(), may, "{id}");
    }
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn the_superuser_may_everything() {
    let prover = Prover::new(Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=")).unwrap();
    let node = Node::start_with(Config { prover, ..Config::default() }).await;
    let (mut client, _) = node.client().await;
    let nobody = entry(31, "digest", "nobody:hash");
    assert!(client.ask(create("/a", 0)).await.is_ok());
    assert!(client.ask(set_acl("/a", &[nobody])).await.is_ok());
    assert_eq!(client.ask(get("/a")).await, Err(Code::NO_AUTH));
    prove(&mut client, "digest", "super:test", 0).await;
    let info = |scheme: &str, user: &str| ClientInfo { scheme: scheme.into(), user: user.into() };
    let infos = vec![info("digest", "super"), info("ip", "192.0.2.1"), info("super", "")];
    assert_eq!(client.ask(Request::WhoAmI).await, Ok(Body::Infos(infos)));
    assert!(client.ask(set("/a", "", -1)).await.is_ok());
    assert!(client.ask(set_acl("/a", &[entry(31, "auth", "")])).await.is_ok());
    let own = api::proof::digest("super:test").unwrap();
    assert_eq!(
        acl_of(client.ask(get_acl("/a")).await),
        [entry(31, "digest", own.id())],
        "the digest, and no role"
    );
    client.hang_up().await;
    node.stop().await;
}

#[tokio::test]
async fn a_connection_has_a_bound_of_identities() {
    let node = Node::start().await;
    let (mut client, _) = node.client().await;
    // One of them is the address.
    for n in 1..Identities::MAX {
        let secret: &'static str = format!("user{n}:x").leak();
        prove(&mut client, "digest", secret, 0).await;
    }
    prove(&mut client, "digest", "user1:x", 0).await;
    prove(&mut client, "digest", "onemore:x", -115).await;
    assert_eq!(client.ended().await, End::Closed);
    node.stop().await;
}

#[tokio::test]
async fn znodes_below_a_znode_are_counted_by_those_who_may_read_it() {
    let server = Node::start().await;
    let (mut client, _) = server.client().await;
    for path in ["/a", "/a/b", "/a/b/c", "/ab"] {
        assert!(client.ask(create(path, 0)).await.is_ok());
    }
    let count = |path: &str| Request::GetAllChildrenNumber { path: path.to_owned() };
    for (path, below) in [("/", 4), ("/a", 2), ("/a/b", 1), ("/ab", 0)] {
        assert_eq!(client.ask(count(path)).await, Ok(Body::Number(below)), "{path}");
    }
    assert_eq!(client.ask(count("/none")).await, Err(Code::NO_NODE));
    server.stop().await;
}

#[tokio::test]
async fn ephemerals_of_the_session_are_listed_by_the_letters_of_their_paths() {
    let server = Node::start().await;
    let (mut client, _) = server.client().await;
    let (mut other, _) = server.client().await;
    assert!(client.ask(create("/a", 0)).await.is_ok());
    // More than a page.
    let made: Vec<String> = (0..1500).map(|n| format!("/a/e{n:04}")).collect();
    for chunk in made.chunks(100) {
        let requests: Vec<Request> = chunk.iter().map(|path| create(path, 1)).collect();
        client.submit(&requests).await;
        for _ in chunk {
            assert_eq!(client.reply().await.0.err, 0);
        }
    }
    assert!(client.ask(create("/ab", 1)).await.is_ok());
    assert!(other.ask(create("/a/other", 1)).await.is_ok());
    let list = |prefix: Option<&str>| Request::GetEphemerals { prefix: prefix.map(str::to_owned) };
    let all: Vec<String> = made.iter().cloned().chain(["/ab".to_owned()]).collect();
    for prefix in [None, Some(""), Some("/"), Some("/a")] {
        assert_eq!(client.ask(list(prefix)).await, Ok(Body::Ephemerals(all.clone())), "{prefix:?}");
    }
    assert_eq!(client.ask(list(Some("/a/"))).await, Ok(Body::Ephemerals(made)));
    assert_eq!(client.ask(list(Some("/none"))).await, Ok(Body::Ephemerals(vec![])));
    assert_eq!(other.ask(list(None)).await, Ok(Body::Ephemerals(vec!["/a/other".into()])));
    let mut fresh_client = server.connect();
    assert!(fresh_client.open(&fresh()).await.is_some());
    assert_eq!(fresh_client.ask(list(None)).await, Ok(Body::Ephemerals(vec![])));
    for client in [client, other, fresh_client] {
        client.hang_up().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn reads_that_ask_the_store_nothing_keep_their_place() {
    let server = Node::start().await;
    let (mut client, _) = server.client().await;
    for _ in 0..20 {
        let nothing = Request::MultiRead(vec![get("nonsense")]);
        client.submit(&[create("/none/a", 0), nothing, Request::MultiRead(vec![])]).await;
        // `reply` asserts the order.
        for code in [Code::NO_NODE, Code::OK, Code::OK] {
            let (header, _) = client.reply().await;
            assert!(header.err == code.0 && header.zxid > 0, "{header:?}");
        }
    }
    let nul = Request::Exists { path: "/a\0".into(), watch: false };
    assert_eq!(client.ask(nul).await, Err(Code::BAD_ARGUMENTS));
    assert_eq!(client.ask(create("/.", 2)).await, Ok(Body::Path("/.0000000000".into())));
    client.hang_up().await;
    server.stop().await;
}
