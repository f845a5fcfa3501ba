//! Streams without a session: watches, and reads where there is no quorum. And the times that requests are given.

use api::{
    session::Purpose,
    watch::{AddWatches, WatchScope, WatchSpec},
};

use super::*;

impl Node {
    fn open_for(&mut self, conn: u64, purpose: Purpose, last_zxid: Zxid, wait_ms: Option<u32>) {
        let open = Open { resume: None, timeout_ms: 4000, last_zxid, wait_ms, ensemble: None, purpose };
        let drawn = Drawn { token: SessionToken([conn as u8; 16]), stream: StreamId(0) };
        self.input(Input::Open { conn: ConnId(conn), open, drawn, identities: api::Identities::default() });
    }

    /// How the opening of a connection was answered.
    fn opened_of(&self, conn: u64) -> Option<&Opened> {
        self.sent.iter().find_map(|(c, item)| match item {
            Item::Opened(opened) if *c == ConnId(conn) => Some(opened),
            _ => None,
        })
    }

    /// Requests with a time, without numbers for writes but those that are given.
    fn ask_within(&mut self, conn: u64, timeout_ms: u32, asked: Vec<(Op, Option<u64>)>) {
        let request = |(xid, (op, number)): (usize, (Op, Option<u64>))| Request {
            number: number.map(WriteNumber),
            timeout_ms,
            ..Request::new(xid as u64, op)
        };
        let requests = asked.into_iter().enumerate().map(request).collect();
        self.input(Input::Requests { conn: ConnId(conn), acked: WriteNumber(0), requests });
    }

    fn why_closed(&self, conn: u64) -> String {
        let closed = self.closed.iter().find(|(c, _)| *c == ConnId(conn));
        match closed {
            Some((_, Err(error))) => error.to_string(),
            other => panic!("connection {conn}: {other:?}"),
        }
    }
}

fn watch(path: &str) -> Op {
    let specs = vec![WatchSpec::new(7, Path::new(path).unwrap(), WatchScope::Tree)];
    Op::AddWatches(AddWatches { specs, refused: Vec::new() })
}

#[test]
fn watches_need_no_session() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.open_for(2, Purpose::Watches, Zxid::ZERO, None);
    let opened = node.opened_of(2).expect("at once");
    assert!(opened.read_only && !opened.leaderless && opened.session == SessionId(0), "{opened:?}");
    node.ask(2, 1, vec![watch("/a"), Op::Ping]);
    node.ask(1, 1, vec![create("/a"), set("/a", "x"), create("/b")]);
    log.round(&mut node);
    let events = node.sent.iter().filter(|(c, item)| *c == ConnId(2) && matches!(item, Item::Events(_)));
    assert_eq!(events.count(), 2);
    let answers = node.take_replies(2);
    assert!(matches!(&answers[..], [(0, Ok(Outcome::Watching(_))), (1, Ok(Outcome::Ping))]), "{answers:?}");

    node.ask(2, 1, vec![create("/c"), get("/a"), Op::Invalid(OpError::DiskFull), Op::Close]);
    let answers = node.take_replies(2);
    assert_eq!((&answers[0].1, data(&answers[1].1)), (&Err(OpError::ReadOnly), &b"x"[..]));
    assert_eq!((&answers[2].1, &answers[3].1), (&Err(OpError::DiskFull), &Ok(Outcome::Close)));
    assert!(node.asks.is_empty(), "nothing of it goes into the log: {:?}", node.asks);
    assert_eq!(node.closed, [(ConnId(2), Ok(()))]);

    // Without a quorum for long, its client has to move, as one with a session.
    node.open_for(3, Purpose::Watches, Zxid::ZERO, None);
    node.status(Role::Looking, false);
    node.pass(Duration::from_secs(11));
    assert!(node.why_closed(3).contains("no serving quorum"));
    node.open_for(4, Purpose::Watches, Zxid::ZERO, None);
    assert!(node.why_closed(4).contains("no serving quorum"));
    assert!(node.stopped.is_empty(), "{:?}", node.stopped);
}

#[test]
fn a_client_that_accepts_it_reads_without_a_quorum_until_there_is_one() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![set("/", "x")]);
    log.round(&mut node);
    node.status(Role::Looking, false);
    node.pass(Duration::from_secs(11));
    assert!(node.closed.iter().any(|(conn, _)| *conn == ConnId(1)));
    let ahead = Zxid(node.server.state().applied().0 + 1);
    node.open_for(2, Purpose::SessionOrReads, Zxid::ZERO, None);
    node.open_for(3, Purpose::Session, Zxid::ZERO, None);
    node.open_for(4, Purpose::SessionOrReads, ahead, None);
    let opened = node.opened_of(2).expect("at once, because the quorum is lost for long");
    assert!(opened.read_only && opened.leaderless && opened.session != session, "{opened:?}");
    assert!(
        node.why_closed(3).contains("no serving quorum") && node.why_closed(4).contains("no serving quorum")
    );

    let linearizable = Op::Read(Read::Get { path: Path::root() }, ReadLevel::Linearizable);
    node.ask(2, 1, vec![get("/"), set("/", "y"), watch("/"), linearizable]);
    node.pass(Duration::from_secs(60));
    let answers = node.take_replies(2);
    assert_eq!((data(&answers[0].1), &answers[1].1), (&b"x"[..], &Err(OpError::ReadOnly)));
    assert!(matches!(&answers[2].1, Ok(Outcome::Watching(refused)) if refused.is_empty()), "{answers:?}");
    assert!(matches!(&answers[3].1, Err(OpError::Unavailable(_))), "nobody confirms it: {answers:?}");
    node.ask(2, 1, vec![get("/")]);
    assert_eq!(node.take_replies(2).len(), 1, "it outlives what ends the others");

    node.status(Role::Following, true);
    assert!(node.why_closed(2).contains("has a quorum again; open the session"));
    assert!(node.stopped.is_empty(), "{:?}", node.stopped);
}

#[test]
fn an_opening_that_waits_too_long_for_its_session_reads_and_leaves_no_session() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.open_for(2, Purpose::SessionOrReads, Zxid::ZERO, Some(1000));
    node.status(Role::Looking, false);
    node.open_for(3, Purpose::Session, Zxid::ZERO, Some(1000));
    node.pass(Duration::from_millis(900));
    assert!(node.opened_of(2).is_none());
    node.pass(Duration::from_millis(200));
    assert!(node.opened_of(2).is_some_and(|opened| opened.read_only));
    assert!(node.why_closed(3).contains("no serving quorum"));
    // What was asked for the session is carried out after all.
    log.round(&mut node);
    let closes = |ask: &Ask| matches!(ask, Ask::Submit { command, .. } if matches!(command.body, CommandBody::CloseSession { .. }));
    assert_eq!(node.asks.iter().filter(|ask| closes(ask)).count(), 2, "{:?}", node.asks);
    assert!(node.stopped.is_empty(), "{:?}", node.stopped);
}

#[test]
fn a_request_fails_if_its_time_passes_before_it_is_begun() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let linearizable = Op::Read(Read::Get { path: Path::root() }, ReadLevel::Linearizable);
    let later = Op::Read(Read::Get { path: Path::root() }, ReadLevel::AtLeast(z(50)));
    node.ask_within(1, 500, vec![(linearizable, None), (later, None), (get("/"), None)]);
    node.pass(Duration::from_millis(499));
    assert!(node.take_replies(1).is_empty());
    node.pass(Duration::from_millis(2));
    let answers = node.take_replies(1);
    let late = Err(OpError::TimedOut(500));
    assert_eq!(answers, [(0, late.clone()), (1, late.clone()), (2, late)], "one after the other");
    let barriers = log.round(&mut node);

    // A write that the quorum has is answered, however late; one that waited for its turn uses up its number.
    node.ask_within(
        1,
        100,
        vec![(set("/", "a"), Some(1)), (get("/"), None), (Op::Sync, None), (set("/", "b"), Some(2))],
    );
    node.pass(Duration::from_millis(200));
    let mut rest = log.round(&mut node);
    rest.extend(barriers);
    let answers = node.take_replies(1);
    assert!(matches!(answers[0].1, Ok(Outcome::Write(WriteOutcome::Set { .. }))), "{answers:?}");
    assert_eq!(answers[1].1, Err(OpError::TimedOut(100)));
    assert_eq!(answers[2].1, Err(OpError::TimedOut(100)), "the sync");
    log.round(&mut node);
    assert_eq!(node.take_replies(1), [(3, Err(OpError::TimedOut(100)))]);
    // Its answer is kept: sent again, on whichever node, it fails again.
    node.ask_within(1, 0, vec![(set("/", "b"), Some(2)), (set("/", "c"), Some(3)), (get("/"), None)]);
    log.round(&mut node);
    let answers = node.take_replies(1);
    assert_eq!((&answers[0].1, data(&answers[2].1)), (&Err(OpError::TimedOut(100)), &b"c"[..]));
}
