//! Requests that need a feature level.

use super::*;

fn needs(level: u32, xid: u64, number: Option<u64>, op: Op) -> Request {
    Request { number: number.map(WriteNumber), min_level: Level(level), ..Request::new(xid, op) }
}

/// The codes of the answers; `None` for what was carried out.
fn codes(replies: Vec<(u64, Result<Outcome, OpError>)>) -> Vec<Option<api::ErrorCode>> {
    replies.into_iter().map(|(_, result)| result.err().map(|error| error.code())).collect()
}

#[test]
fn a_request_needs_the_level_of_the_ensemble_whatever_the_build_knows() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    let unsupported = Some(api::ErrorCode::Unsupported);
    let ask = |node: &mut Node, acked, requests| {
        node.input(Input::Requests { conn: ConnId(1), acked: WriteNumber(acked), requests });
    };
    let requests = vec![
        needs(2, 1, None, get("/")),
        needs(2, 2, Some(1), create("/a")),
        needs(1, 3, Some(2), create("/b")),
        needs(2, 4, None, get("/b")),
        needs(1, 5, None, get("/b")),
    ];
    ask(&mut node, 0, requests);
    log.round(&mut node);
    let replies = node.take_replies(1);
    let why = replies[0].1.clone().unwrap_err().to_string();
    assert!(
        why.contains("needs feature level 2") && why.contains("is at 1") && why.contains("finalize"),
        "{why}"
    );
    assert_eq!(codes(replies), [unsupported, unsupported, None, unsupported, None], "in their places");

    let zxid = z(log.entries.len() as u32 + 1);
    log.entries.push(Committed { zxid, time_ms: 0, origin: None, level: Some(Level(2)), command: None });
    log.feed(&mut node);
    ask(
        &mut node,
        2,
        vec![needs(2, 6, None, get("/b")), needs(2, 7, Some(3), create("/a")), needs(3, 8, None, get("/"))],
    );
    log.round(&mut node);
    assert_eq!(codes(node.take_replies(1)), [None, None, unsupported]);
    for (conn, level, code) in [(7, 2, None), (8, 3, unsupported)] {
        let request = needs(level, 0, None, Op::Read(Read::Get { path: path("/a") }, ReadLevel::Stale));
        let identities = api::Identities::default();
        node.input(Input::Unary { conn: ConnId(conn), request, identities });
        assert_eq!(codes(node.take_replies(conn)), [code], "of a call, too");
    }
}

#[test]
fn a_write_that_is_refused_for_its_level_has_used_its_number_up() {
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    let ask = |node: &mut Node, conn, request| {
        let requests = vec![request];
        node.input(Input::Requests { conn: ConnId(conn), acked: WriteNumber(0), requests });
    };
    // Refused at the old level; the client does not hear of it, and sends it again when the level is there.
    ask(&mut a, 1, needs(2, 1, Some(1), create("/a")));
    log.accept(&mut a);
    let zxid = z(log.entries.len() as u32 + 1);
    log.entries.push(Committed { zxid, time_ms: 0, origin: None, level: Some(Level(2)), command: None });
    log.feed(&mut b);
    b.resume(1, session, 1, Zxid::ZERO);
    log.round(&mut b);
    ask(&mut b, 1, needs(2, 1, Some(1), create("/a")));
    log.round(&mut b);
    assert!(b.take_replies(1)[0].1.is_err(), "the refusal has used the number up");
    assert!(b.server.state().tree().stat(&path("/a")).is_none());
}
