//! Identities that an edge proves before and after a session opens.

use api::{Acl, AclEntry, Permissions, proof};

use super::*;

fn identities(names: &[&str]) -> Identities {
    Identities::new(names.iter().map(|name| Identity::new(Scheme::Digest, name).unwrap())).unwrap()
}

fn private(path: &str, owner: &str) -> Op {
    let identity = Identity::new(Scheme::Digest, owner).unwrap();
    let acl = Acl::new(vec![AclEntry { identity, permissions: Permissions::ALL }]).unwrap();
    Op::Write(Write::Create(Create { acl, ..Create::new(Path::new(path).unwrap(), "x") }))
}

pub(super) async fn an_identity_counts_for_what_comes_behind_it<P: Packaging>() {
    let node = Node::start().await;
    let ann = identities(&["ann:hash"]);
    let mut stream = Stream::open::<P>(&node, None).await;
    let prove = || Op::Authenticate(ann.clone());
    let answers = stream
        .ask(vec![
            private("/a", "ann:hash"),
            set("/a", "before"),
            get("/a"),
            Op::WhoAmI,
            prove(),
            set("/a", "behind"),
            get("/a"),
            Op::WhoAmI,
            prove(),
        ])
        .await;
    let code = |answer: &Response| answer.result.as_ref().err().map(OpError::code);
    let no_auth = Some(ErrorCode::NoAuth);
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert_eq!(codes, [None, no_auth, no_auth, None, None, None, None, None, None]);
    assert_eq!(answers[3].result, Ok(Outcome::WhoAmI(Identities::NONE)));
    assert_eq!(answers[4].result, Ok(Outcome::Authenticated(ann.clone())));
    assert_eq!(answers[7].result, Ok(Outcome::WhoAmI(ann.clone())));
    assert_eq!(answers[8].result, Ok(Outcome::Authenticated(ann.clone())), "once more changes nothing");
    let many: Vec<String> = (0..Identities::MAX).map(|n| format!("user{n}:hash")).collect();
    let many = identities(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = stream.ask(vec![Op::Authenticate(many), get("/a"), Op::WhoAmI]).await;
    assert_eq!(code(&refused[0]), Some(ErrorCode::BadArguments));
    assert!(refused[1].result.is_ok() && refused[2].result == Ok(Outcome::WhoAmI(ann)), "all or none");
    node.stop().await;
}

pub(super) async fn an_address_is_no_owner_and_what_is_proven_at_the_opening_is<P: Packaging>() {
    let node = Node::start().await;
    let place = |address: [u8; 4]| Identities::new([proof::address(address.into())]).unwrap();
    let first =
        Stream::open_as::<P>(&node, None, place([10, 0, 0, 1])).await.map_err(|e| format!("{e:?}")).unwrap();
    let elsewhere = Stream::open_as::<P>(&node, Some(&first.opened), place([10, 0, 0, 2])).await;
    assert!(elsewhere.is_ok_and(|stream| stream.opened.resumed), "clients move");
    // Proven by the opening message, and not by the connection.
    let open = async |resume: Option<&Opened>, more: Option<Identities>| {
        let (mut requests, mut items) = P::port(&node).stream(Caller::default());
        if let Some(more) = more {
            requests.identify(more);
        }
        let resume = resume.map(|opened| (opened.session, opened.token));
        let open = Open {
            resume,
            timeout_ms: 5000,
            last_zxid: Zxid::ZERO,
            wait_ms: None,
            ensemble: None,
            purpose: Default::default(),
        };
        requests.open(open).await.unwrap();
        let mut first = VecDeque::new();
        match soon(poll_fn(|cx| items.poll_take(cx, 1, &mut first))).await {
            Some(end) => Err(end),
            None => match first.pop_front() {
                Some(Item::Opened(opened)) => Ok(opened),
                other => panic!("{other:?}"),
            },
        }
    };
    let ann = || Some(identities(&["ann:hash"]));
    let opened = open(None, ann()).await.unwrap();
    assert_eq!(Some(&opened.identities), ann().as_ref());
    assert_eq!(open(Some(&opened), None).await, Err(Err(OpError::SessionExpired(opened.session))));
    assert!(open(Some(&opened), ann()).await.is_ok_and(|again| again.resumed));
    node.stop().await;
}

pub(super) async fn ephemerals_are_those_of_the_session_page_by_page<P: Packaging>() {
    let node = Node::start().await;
    let ephemeral = |path: &str| {
        let create = Create::new(Path::new(path).unwrap(), "");
        Op::Write(Write::Create(Create { kind: NodeKind::Ephemeral, ..create }))
    };
    let list =
        |prefix: &str, after: &str, size| Op::Ephemerals { prefix: prefix.into(), after: after.into(), size };
    let mut stream = Stream::open::<P>(&node, None).await;
    let mut other = Stream::open::<P>(&node, None).await;
    other.ask(vec![create("/d", ""), ephemeral("/d/other")]).await;
    stream.ask(["/d/c", "/d/a", "/d/b", "/da"].map(ephemeral).to_vec()).await;
    let answers = stream
        .ask(vec![
            list("", "", 0),
            list("/d/", "", 2),
            list("/d/", "/d/b", 2),
            list("/x", "", 0),
            list("/da", "", 0),
            list("/d", "", 0),
            list("foo//", "", 0),
        ])
        .await;
    let page = |paths: &[&str], more| {
        let paths = paths.iter().map(|path| Path::new(path).unwrap()).collect();
        Ok(Outcome::Ephemerals { paths, more })
    };
    assert_eq!(answers[0].result, page(&["/d/a", "/d/b", "/d/c", "/da"], false));
    assert_eq!(answers[1].result, page(&["/d/a", "/d/b"], true));
    assert_eq!(answers[2].result, page(&["/d/c"], false));
    assert_eq!(answers[3].result, page(&[], false));
    // ZooKeeper's prefixes match characters, not whole path elements.
    assert_eq!(answers[4].result, page(&["/da"], false));
    assert_eq!(answers[5].result, page(&["/d/a", "/d/b", "/d/c", "/da"], false));
    assert_eq!(answers[6].result, page(&[], false));
    let call = P::port(&node).call(Caller::default(), Request::new(0, list("", "", 0))).await;
    assert_eq!(call.map(|_| ()).map_err(|e| e.code()), Err(ErrorCode::BadArguments));
    node.stop().await;
}
