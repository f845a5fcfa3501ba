//! Nodes on a log that is written by hand: what a quorum would do is spelled out line by line.

use api::{Create, Epoch, Origin, Path, Read, ReadOutcome, SessionToken, WriteOutcome, ports::Room};
use bytes::Bytes;

use super::*;

mod openings;
mod random_reads;
mod reads;
mod reaping;
mod trees;
mod watch_oracle;
mod watches;

const SECOND: u64 = 1_000_000;

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn path(p: &str) -> Path {
    Path::new(p).unwrap()
}

/// After so long a session with a time-out of 4 s is closed: the clocks of two machines may differ.
const SILENCE: Duration = Duration::from_millis(4000 + 40);

fn create(p: &str) -> Op {
    Op::Write(Write::Create(Create::new(path(p), Bytes::new())))
}

fn set(p: &str, data: &'static str) -> Op {
    Op::Write(Write::Set { path: path(p), data: Some(Bytes::from_static(data.as_bytes())), version: None })
}

fn get(p: &str) -> Op {
    Op::Read(Read::Get { path: path(p) }, ReadLevel::Local)
}

/// One node, the time, and everything that it has put out.
struct Node {
    server: Server,
    now: Time,
    asks: Vec<Ask>,
    reports: Vec<Bytes>,
    /// Answers to reports of others.
    confirms: Vec<Bytes>,
    sent: Vec<(ConnId, Item)>,
    closed: Vec<(ConnId, Result<(), OpError>)>,
    diverged: Vec<(Zxid, u64, u64)>,
    /// Its checks get into the log; in most tests they would only be in the way.
    compares: bool,
    stopped: Vec<String>,
}

impl Node {
    fn new(id: u32) -> Node {
        let config = Config { me: PeerId(id), first_ticket: Ticket(1000), limits: Limits::default() };
        let server = Server::new(Time(0), config, State::default());
        Node {
            server,
            now: Time(0),
            asks: Vec::new(),
            reports: Vec::new(),
            confirms: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            diverged: Vec::new(),
            compares: false,
            stopped: Vec::new(),
        }
    }

    /// A node that has a leader.
    fn serving(id: u32, role: Role) -> Node {
        let mut node = Node::new(id);
        node.status(role, true);
        node
    }

    /// What a leader reports to itself is confirmed at once.
    fn input(&mut self, input: Input) {
        self.server.handle(self.now, input);
        let (me, leads) = (self.server.config.me, self.server.status.role == Role::Leading);
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Ask(asks) => {
                    for ask in asks {
                        match ask {
                            Ask::Report(report) if leads => {
                                let sign = Sign::Report { from: me, report };
                                self.server.handle(self.now, Input::Sign(sign));
                            }
                            Ask::Report(report) => self.reports.push(report),
                            Ask::Confirm { to, report, .. } if to == me => {
                                self.server.handle(self.now, Input::Sign(Sign::Confirmed(report)));
                            }
                            Ask::Confirm { report, .. } => self.confirms.push(report),
                            Ask::Submit { command, .. }
                                if !self.compares && matches!(command.body, CommandBody::Check { .. }) => {}
                            ask => self.asks.push(ask),
                        }
                    }
                }
                Output::Send { conn, items } => self.sent.extend(items.into_iter().map(|i| (conn, i))),
                Output::Close { conn, why } => self.closed.push((conn, why)),
                Output::Diverged { at, own, leaders } => self.diverged.push((at, own, leaders)),
                Output::Stop { why } => self.stopped.push(why),
            }
        }
    }

    fn status(&mut self, role: Role, serving: bool) {
        let status = QuorumStatus { role, serving, epoch: Epoch(1), ..QuorumStatus::default() };
        self.input(Input::Feed(Feed::Status(status)));
    }

    /// Lets time pass in steps, as a shell does.
    fn pass(&mut self, d: Duration) {
        let end = self.now + d;
        while self.now < end {
            let next = self.server.next_timeout().unwrap_or(end).max(self.now + Duration::from_millis(1));
            self.now = next.min(end);
            self.input(Input::Tick);
        }
    }

    fn open(&mut self, conn: u64) {
        self.open_with(conn, 4000);
    }

    fn open_with(&mut self, conn: u64, timeout_ms: u32) {
        let open = Open { resume: None, timeout_ms, last_zxid: Zxid::ZERO, wait_ms: None, ensemble: None };
        let drawn = Drawn { token: SessionToken([conn as u8; 16]), stream: StreamId(0) };
        self.input(Input::Open { conn: ConnId(conn), open, drawn, identities: api::Identities::default() });
    }

    fn resume(&mut self, conn: u64, session: SessionId, token: u8, last_zxid: Zxid) {
        let stream = StreamId(u64::from(self.server.me().0) << 32 | conn);
        let resume = Some((session, SessionToken([token; 16])));
        let open = Open { resume, timeout_ms: 0, last_zxid, wait_ms: None, ensemble: None };
        let drawn = Drawn { token: SessionToken([0; 16]), stream };
        self.input(Input::Open { conn: ConnId(conn), open, drawn, identities: api::Identities::default() });
    }

    /// Sends requests; the xid is the place in the list, writes are numbered from `first`.
    fn ask(&mut self, conn: u64, first: u64, ops: Vec<Op>) {
        let mut number = first;
        let requests = ops.into_iter().enumerate().map(|(xid, op)| {
            let write = matches!(op, Op::Write(_) | Op::Invalid(_));
            number += u64::from(write);
            let number = write.then_some(WriteNumber(number - 1));
            Request { xid: xid as u64, number, op, trace: None }
        });
        let requests = requests.collect();
        self.input(Input::Requests { conn: ConnId(conn), acked: WriteNumber(first - 1), requests });
    }

    /// Up to which request a connection was told that its session lives.
    fn confirmed(&self, conn: u64) -> Option<u64> {
        self.sent.iter().rev().find_map(|(c, item)| match item {
            Item::Confirmed { xid } if *c == ConnId(conn) => Some(*xid),
            _ => None,
        })
    }

    /// Answers to a connection so far: xids with what they got.
    fn take_replies(&mut self, conn: u64) -> Vec<(u64, Result<Outcome, OpError>)> {
        let mut replies = Vec::new();
        self.sent.retain(|(c, item)| match item {
            Item::Response(Response { xid, result, .. }) if *c == ConnId(conn) => {
                replies.push((*xid, result.clone()));
                false
            }
            _ => true,
        });
        replies
    }

    fn session_of(&self, conn: u64) -> Option<SessionId> {
        self.sent.iter().rev().find_map(|(c, item)| match item {
            Item::Opened(Opened { session, .. }) if *c == ConnId(conn) => Some(*session),
            _ => None,
        })
    }
}

/// The log of the ensemble.
#[derive(Default)]
struct Log {
    entries: Vec<Committed>,
    /// The leader stamps entries with this.
    time_ms: i64,
}

impl Log {
    /// Puts what a node has submitted into the log and leaves its barriers to the caller.
    fn accept(&mut self, node: &mut Node) -> Vec<Ask> {
        let mut rest = Vec::new();
        for ask in std::mem::take(&mut node.asks) {
            match ask {
                Ask::Submit { ticket, command, .. } => {
                    let zxid = z(self.entries.len() as u32 + 1);
                    let origin = Some(Origin { peer: node.server.config.me, ticket });
                    self.entries.push(Committed {
                        zxid,
                        time_ms: self.time_ms,
                        origin,
                        level: None,
                        command: Some(command),
                    });
                }
                ask => rest.push(ask),
            }
        }
        rest
    }

    /// Feeds a node what it does not have yet, in one batch.
    fn feed(&self, node: &mut Node) {
        let applied = node.server.state().applied().counter() as usize;
        if applied == 0 {
            let marker = Committed { zxid: z(0), time_ms: 0, origin: None, level: None, command: None };
            node.input(Input::Feed(Feed::Committed(vec![marker])));
        }
        node.input(Input::Feed(Feed::Committed(self.entries[applied..].to_vec())));
    }

    /// Both for one node, as if it were alone.
    fn round(&mut self, node: &mut Node) -> Vec<Ask> {
        let rest = self.accept(node);
        self.feed(node);
        rest
    }
}

/// A serving node with a session open on connection 1.
fn with_session(role: Role) -> (Node, Log, SessionId) {
    let (mut node, mut log) = (Node::serving(1, role), Log::default());
    node.open(1);
    log.round(&mut node);
    let session = node.session_of(1).expect("opened");
    (node, log, session)
}

fn call(conn: u64, op: Op) -> Input {
    Input::Unary { conn: ConnId(conn), op, trace: None, identities: api::Identities::default() }
}

fn data(result: &Result<Outcome, OpError>) -> &[u8] {
    match result {
        Ok(Outcome::Read(ReadOutcome::Data { data: Some(data), .. })) => data,
        other => panic!("no value but {other:?}"),
    }
}

#[test]
fn s22_a_write_is_answered_by_the_node_it_was_sent_to_after_that_node_applied_it() {
    let (mut leader, mut follower, mut log) =
        (Node::serving(1, Role::Leading), Node::serving(2, Role::Following), Log::default());
    follower.open(7);
    log.accept(&mut follower);
    log.feed(&mut leader);
    log.feed(&mut follower);
    follower.ask(7, 1, vec![create("/a")]);
    log.accept(&mut follower);
    log.feed(&mut leader);
    assert_eq!(leader.server.state().applied(), z(2));
    assert!(leader.sent.is_empty(), "the leader has applied it, but it is not its client");
    assert!(follower.take_replies(7).is_empty(), "committed, but not applied here yet");
    log.feed(&mut follower);
    assert!(matches!(follower.take_replies(7)[..], [(0, Ok(Outcome::Write(WriteOutcome::Created { .. })))]));
}

#[test]
fn s25_writes_that_come_while_there_is_no_leader_run_in_order_afterwards_and_once() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.status(Role::Looking, false);
    node.ask(1, 1, vec![create("/a"), set("/a", "1"), set("/a", "2")]);
    node.pass(Duration::from_secs(8));
    assert!(
        node.take_replies(1).is_empty() && node.closed.is_empty(),
        "parked, twice the time-out of the session"
    );
    node.status(Role::Leading, true);
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(replies.iter().all(|(_, r)| r.is_ok()));
    log.round(&mut node);
    assert!(node.take_replies(1).is_empty() && node.asks.is_empty());
}

#[test]
fn s25_session_clocks_stand_still_without_a_leader_and_start_anew_with_one() {
    let (mut node, mut log, session) = with_session(Role::Leading);
    node.pass(Duration::from_secs(3));
    node.status(Role::Looking, false);
    node.pass(Duration::from_secs(9));
    node.status(Role::Leading, true);
    node.pass(SILENCE - Duration::from_millis(100));
    assert!(node.asks.is_empty(), "the full time begins with the new reign: {:?}", node.asks);
    node.pass(Duration::from_millis(200));
    let [Ask::Barrier { ticket }] = node.asks[..] else { panic!("no barrier but {:?}", node.asks) };
    node.asks.clear();
    node.input(Input::Feed(Feed::Barrier(ticket)));
    log.round(&mut node);
    assert_eq!(node.closed, [(ConnId(1), Err(OpError::SessionExpired(session)))]);
}

#[test]
fn clients_are_told_whether_their_node_has_a_leader() {
    let (mut node, _, session) = with_session(Role::Following);
    let leaderless = |node: &mut Node| {
        node.ask(1, 1, vec![Op::Ping]);
        let said = node.sent.iter().rev().find_map(|(_, item)| match item {
            Item::Response(Response { leaderless, .. }) => Some(*leaderless),
            _ => None,
        });
        said.expect("a reply")
    };
    assert!(!leaderless(&mut node));
    node.status(Role::Looking, false);
    assert!(matches!(node.sent.last(), Some((ConnId(1), Item::Notice(Notice::Leader { lost: true })))));
    assert!(leaderless(&mut node));
    node.resume(2, session, 1, Zxid::ZERO);
    let (_, opened) = node.sent.last().unwrap();
    assert!(matches!(opened, Item::Opened(Opened { leaderless: true, .. })), "{opened:?}");
}

#[test]
fn a_session_whose_client_has_gone_before_it_was_open_is_closed_at_once() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    node.open(1);
    node.input(Input::Closed { conn: ConnId(1) });
    log.round(&mut node);
    assert_eq!(node.server.state().sessions().count(), 1);
    log.round(&mut node);
    assert_eq!(node.server.state().sessions().count(), 0);
}

#[test]
fn replies_come_in_the_order_of_the_requests_and_reads_see_exactly_what_is_before_them() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let ops = vec![create("/a"), set("/a", "1"), get("/a"), set("/a", "2"), get("/a"), Op::Ping];
    node.ask(1, 1, ops);
    assert!(node.take_replies(1).is_empty());
    assert_eq!(node.asks.len(), 3, "writes do not wait for reads");
    // All three come back in one batch, and yet the first read sees only the first set.
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!((data(&replies[2].1), data(&replies[4].1)), (&b"1"[..], &b"2"[..]));
}

#[test]
fn reads_wait_for_no_other_session_and_not_for_a_leader() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.open(2);
    log.round(&mut node);
    node.ask(1, 1, vec![create("/a")]);
    node.status(Role::Looking, false);
    node.ask(2, 1, vec![get("/"), Op::Ping]);
    let replies = node.take_replies(2);
    assert_eq!(data(&replies[0].1), b"");
    assert_eq!(replies[1], (1, Ok(Outcome::Ping)));
}

#[test]
fn a_sync_holds_back_what_is_behind_it() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), Op::Sync, get("/a"), set("/a", "2"), get("/a")]);
    let rest = log.round(&mut node);
    let [Ask::Barrier { ticket }] = rest[..] else { panic!("no barrier but {rest:?}") };
    assert_eq!(node.take_replies(1).len(), 1, "the create only");
    assert!(node.asks.is_empty(), "the set must not overtake the read that waits for the barrier");
    node.input(Input::Feed(Feed::Barrier(ticket)));
    log.round(&mut node);
    let replies = node.take_replies(1);
    assert_eq!(replies[0], (1, Ok(Outcome::Sync)));
    assert_eq!((data(&replies[1].1), data(&replies[3].1)), (&b""[..], &b"2"[..]));
}

#[test]
fn what_is_wrong_with_a_write_is_answered_in_its_place_and_uses_up_its_number() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let big = Op::Write(Write::Set {
        path: path("/a"),
        data: Some(Bytes::from(vec![0; (1 << 20) + 1])),
        version: None,
    });
    let negative = Op::Write(Write::Delete { path: path("/a"), version: Some((-1).into()) });
    let malformed = Op::Invalid(OpError::BadPath(api::PathError::Empty));
    node.ask(1, 1, vec![create("/a"), big, negative, malformed, set("/a", "x")]);
    log.round(&mut node);
    let replies: Vec<_> = node.take_replies(1).into_iter().map(|(_, r)| r).collect();
    assert!(replies[0].is_ok() && replies[4].is_ok(), "{replies:?}");
    assert_eq!(replies[1], Err(OpError::TooLarge { size: (1 << 20) + 1, limit: 1 << 20 }));
    assert!(matches!(&replies[2], Err(OpError::BadArguments(m)) if m.contains("negative")));
    assert_eq!(replies[3], Err(OpError::BadPath(api::PathError::Empty)));
    // Without a number nothing has to go through the log.
    node.input(Input::Requests {
        conn: ConnId(1),
        acked: WriteNumber(5),
        requests: vec![Request {
            xid: 9,
            number: None,
            op: Op::Invalid(OpError::BadPath(api::PathError::Empty)),
            trace: None,
        }],
    });
    assert_eq!(node.take_replies(1), [(9, Err(OpError::BadPath(api::PathError::Empty)))]);
    assert!(node.asks.is_empty());
}

/// 2,300 long paths without a value became an entry of 18.7 MB, which no slow link could carry before its leader was given up.
#[test]
fn b16_paths_count_in_the_size_of_a_request() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let part =
        |i: usize| MultiOp::Delete { path: path(&format!("/{i:06}{}", "x".repeat(8100))), version: None };
    let multi = |parts: usize| Op::Write(Write::Multi((0..parts).map(part).collect()));
    let (limit, each) = ((4 << 20) - (64 << 10), 8107 + 192);
    let most = limit as usize / each;
    node.ask(1, 1, vec![multi(2300), multi(most + 1), multi(most)]);
    log.round(&mut node);
    let replies: Vec<_> = node.take_replies(1).into_iter().map(|(_, r)| r).collect();
    assert_eq!(replies[0], Err(OpError::TooLarge { size: 2300 * each as u64, limit }));
    assert_eq!(replies[1], Err(OpError::TooLarge { size: (most + 1) as u64 * each as u64, limit }));
    assert!(matches!(replies[2], Err(OpError::Multi { .. })), "it fails in the tree: {:?}", replies[2]);
}

#[test]
fn multi_sizes_add_up() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let half = Bytes::from(vec![0; 600 << 10]);
    let part = || MultiOp::Set { path: Path::root(), data: Some(half.clone()), version: None };
    node.ask(1, 1, vec![Op::Write(Write::Multi(vec![part(), part()]))]);
    log.round(&mut node);
    assert_eq!(node.take_replies(1)[0].1, Err(OpError::TooLarge { size: 1200 << 10, limit: 1 << 20 }));
}

#[test]
fn a_session_goes_on_on_another_node_and_its_writes_are_carried_out_once() {
    let (mut a, mut b, mut log) =
        (Node::serving(1, Role::Following), Node::serving(2, Role::Following), Log::default());
    a.open(1);
    log.accept(&mut a);
    log.feed(&mut a);
    let session = a.session_of(1).unwrap();
    a.ask(1, 1, vec![create("/a"), set("/a", "1")]);
    log.accept(&mut a);
    // Node a dies before it could answer; the client sends both again to b, which has not even heard of the session.
    b.resume(5, session, 1, z(1));
    assert!(b.session_of(5).is_none(), "behind what the client has seen");
    log.feed(&mut b);
    assert_eq!(b.session_of(5), Some(session));
    b.ask(5, 1, vec![create("/a"), set("/a", "1"), get("/a")]);
    log.round(&mut b);
    let replies = b.take_replies(5);
    assert!(replies.iter().all(|(_, r)| r.is_ok()), "{replies:?}");
    let Ok(Outcome::Read(ReadOutcome::Data { stat, .. })) = &replies[2].1 else { panic!("no value") };
    assert_eq!(stat.version, 1, "set once");
    log.feed(&mut a);
    assert_eq!(a.server.state().digest(), b.server.state().digest());
}

/// A session opened on node 1, in charge there; node 2 knows of it.
fn two_nodes_and_a_session() -> (Node, Node, Log, SessionId) {
    let (a, mut log, session) = {
        let (mut a, mut log) = (Node::serving(1, Role::Following), Log::default());
        a.open(1);
        log.round(&mut a);
        let session = a.session_of(1).unwrap();
        (a, log, session)
    };
    let mut b = Node::serving(2, Role::Following);
    log.round(&mut b);
    (a, b, log, session)
}

#[test]
fn b14_the_older_stream_ends_as_moved_and_nothing_of_it_is_applied_behind_the_move() {
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    a.ask(1, 1, vec![create("/before")]);
    log.accept(&mut a);
    b.resume(5, session, 1, z(1));
    assert_eq!(b.session_of(5), Some(session), "at once: nobody waits for the entry");
    b.ask(5, 2, vec![create("/b")]);
    log.accept(&mut b);
    // Behind the move, though sent before its node knows of it.
    a.ask(1, 2, vec![create("/behind"), get("/")]);
    a.input(Input::Feed(Feed::Status(QuorumStatus {
        role: Role::Following,
        serving: true,
        ..Default::default()
    })));
    log.accept(&mut a);
    log.feed(&mut a);
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
    assert_eq!(a.take_replies(1).len(), 1, "the write before the move, and it alone");
    log.feed(&mut b);
    assert!(b.closed.is_empty() && b.take_replies(5)[0].1.is_ok());
    for node in [&a, &b] {
        let exists = |p| node.server.state().read(&Read::Get { path: path(p) }).is_ok();
        assert!(exists("/before") && exists("/b") && !exists("/behind"));
    }
}

#[test]
fn b14_the_stream_whose_move_stands_last_in_the_log_goes_on() {
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    // Both are asked at the same time; the log decides.
    b.resume(5, session, 1, z(1));
    a.resume(6, session, 1, z(1));
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
    a.closed.clear();
    log.accept(&mut a);
    log.accept(&mut b);
    log.feed(&mut a);
    log.feed(&mut b);
    assert_eq!(a.closed, [(ConnId(6), Err(OpError::SessionMoved(session)))]);
    assert!(b.closed.is_empty(), "its own entry was still to come when it saw the other's: {:?}", b.closed);
    // A client cannot end a session with what it sent on an older stream.
    let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
    b.resume(5, session, 1, z(1));
    log.accept(&mut b);
    a.ask(1, 1, vec![Op::Close]);
    log.accept(&mut a);
    log.feed(&mut b);
    log.feed(&mut a);
    assert!(b.closed.is_empty() && b.server.state().session(session).is_some());
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
}

#[test]
fn b14_a_move_that_a_snapshot_jumped_over_is_not_made_once_more() {
    for other_took_it in [false, true] {
        let (mut a, mut b, mut log, session) = two_nodes_and_a_session();
        b.resume(5, session, 1, z(1));
        let [Ask::Submit { ticket, .. }] = b.asks[..] else { panic!("{:?}", b.asks) };
        log.accept(&mut b);
        if other_took_it {
            a.resume(6, session, 1, z(1));
            log.accept(&mut a);
        }
        log.feed(&mut a);
        let snapshot = State::load(a.server.state().records()).unwrap();
        b.server.replace_state(b.now, snapshot);
        b.input(Input::Feed(Feed::Lost(ticket)));
        assert!(b.asks.is_empty(), "it could take the session from the newer one: {:?}", b.asks);
        // If no other had taken it, the snapshot says that this one is in charge.
        assert_eq!(b.closed.is_empty(), !other_took_it, "{:?}", b.closed);
        b.closed.clear();
        // The same snapshot tells one in charge that it is not any more.
        let (mut c, mut log, session) = with_session(Role::Following);
        c.resume(2, session, 1, Zxid::ZERO);
        log.round(&mut c);
        c.closed.clear();
        let mut newer = State::load(c.server.state().records()).unwrap();
        let moved = CommandBody::ResumeSession { session, stream: StreamId(9) };
        newer.apply(z(3), 0, &Command::outside(moved));
        c.server.replace_state(c.now, newer);
        c.input(Input::Tick);
        assert_eq!(c.closed, [(ConnId(2), Err(OpError::SessionMoved(session)))]);
    }
}

#[test]
fn b11_a_session_too_many_is_refused_and_its_connection_ends() {
    let mut node = Node::serving(1, Role::Following);
    node.server.config.limits.sessions_max = 1;
    let mut log = Log::default();
    for conn in [1, 2] {
        node.open(conn);
        log.round(&mut node);
    }
    assert!(node.session_of(1).is_some() && node.session_of(2).is_none());
    assert!(matches!(&node.closed[..], [(ConnId(2), Err(OpError::Overloaded(_)))]), "{:?}", node.closed);
}

#[test]
fn an_unknown_session_is_called_expired_only_behind_a_barrier_and_a_wrong_token_sounds_the_same() {
    let (mut node, mut log, session) = with_session(Role::Following);
    for (conn, id, token) in [(2, SessionId(0xdead), 1), (3, session, 99)] {
        node.resume(conn, id, token, Zxid::ZERO);
        assert!(node.closed.is_empty());
        let rest = log.round(&mut node);
        let [Ask::Barrier { ticket }] = rest[..] else { panic!("no barrier but {rest:?}") };
        node.input(Input::Feed(Feed::Barrier(ticket)));
        assert_eq!(node.closed, [(ConnId(conn), Err(OpError::SessionExpired(id)))]);
        node.closed.clear();
    }
    // The right token replaces the older connection.
    node.resume(4, session, 1, Zxid::ZERO);
    assert_eq!(node.session_of(4), Some(session));
    assert_eq!(node.closed, [(ConnId(1), Err(OpError::SessionMoved(session)))]);
}

#[test]
fn a_node_that_stays_behind_sends_the_client_away() {
    let (mut node, _log, session) = with_session(Role::Following);
    node.resume(2, session, 1, z(500));
    node.pass(Duration::from_millis(4900));
    assert!(node.closed.is_empty());
    node.pass(Duration::from_millis(200));
    assert!(matches!(&node.closed[..], [(ConnId(2), Err(OpError::Unavailable(m)))] if m.contains("behind")));
}

#[test]
fn without_a_quorum_for_too_long_everybody_is_sent_away_until_it_is_back() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.status(Role::Looking, false);
    node.pass(Duration::from_millis(9900));
    assert!(node.closed.is_empty() && node.server.ready());
    node.pass(Duration::from_millis(200));
    assert!(matches!(&node.closed[..], [(ConnId(1), Err(OpError::Unavailable(m)))] if m.contains("node 1")));
    assert!(!node.server.ready());
    node.closed.clear();
    node.open(2);
    node.input(call(3, get("/")));
    assert!(matches!(
        &node.closed[..],
        [(_, Err(OpError::Unavailable(_))), (_, Err(OpError::Unavailable(_)))]
    ));
    node.status(Role::Following, true);
    node.resume(4, session, 1, Zxid::ZERO);
    log.round(&mut node);
    assert_eq!(node.session_of(4), Some(session));
}

#[test]
fn a_node_to_which_nobody_is_connected_learns_in_time_that_it_is_not_ready() {
    let mut node = Node::serving(1, Role::Following);
    node.status(Role::Looking, false);
    assert!(node.server.ready());
    let park = node.now + Limits::default().park;
    assert_eq!(node.server.next_timeout(), Some(park), "nothing else would wake the shell");
    node.pass(Limits::default().park);
    assert!(!node.server.ready());
}

#[test]
fn before_a_node_serves_for_the_first_time_clients_wait() {
    let (mut node, mut log) = (Node::new(1), Log::default());
    node.open(1);
    node.input(call(2, get("/")));
    node.ask(1, 1, vec![create("/a")]);
    assert!(node.asks.is_empty() && node.sent.is_empty());
    node.status(Role::Following, true);
    assert_eq!(node.take_replies(2).len(), 1);
    log.round(&mut node);
    assert!(node.session_of(1).is_some());
    log.round(&mut node);
    assert_eq!(node.take_replies(1).len(), 1, "asked before it was open, carried out behind that");
}

#[test]
fn unary_calls_are_answered_once_and_forgotten() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    node.input(call(1, create("/a")));
    node.input(call(2, Op::Sync));
    let rest = log.round(&mut node);
    assert!(matches!(node.take_replies(1)[..], [(0, Ok(Outcome::Write(_)))]));
    let [Ask::Barrier { ticket }] = rest[..] else { panic!("no barrier but {rest:?}") };
    node.input(Input::Feed(Feed::Barrier(ticket)));
    assert_eq!(node.take_replies(2), [(0, Ok(Outcome::Sync))]);
    node.input(call(3, Op::Close));
    assert!(matches!(node.take_replies(3)[..], [(0, Err(OpError::BadArguments(_)))]));
    assert!(node.server.conns.is_empty());
}

#[test]
fn lost_writes_are_sent_again_if_they_are_numbered() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.input(call(9, create("/u")));
    node.ask(1, 1, vec![create("/a"), set("/a", "1")]);
    let lost: Vec<Ticket> = std::mem::take(&mut node.asks)
        .into_iter()
        .map(|ask| match ask {
            Ask::Submit { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    for ticket in lost {
        node.input(Input::Feed(Feed::Lost(ticket)));
    }
    assert!(matches!(node.take_replies(9)[..], [(0, Err(OpError::Unknown(_)))]));
    log.round(&mut node);
    assert!(node.take_replies(1).iter().all(|(_, r)| r.is_ok()));
    assert_eq!(log.entries.len(), 3);
}

#[test]
fn a_write_goes_to_the_quorum_with_its_trace_also_when_it_goes_again() {
    let (mut node, _, _) = with_session(Role::Following);
    let trace = api::TraceContext::new([1; 16], [2; 8], true).map(Box::new);
    let request = Request { xid: 1, number: Some(WriteNumber(1)), op: create("/a"), trace: trace.clone() };
    node.input(Input::Requests { conn: ConnId(1), acked: WriteNumber(0), requests: vec![request] });
    for _ in 0..2 {
        let Ask::Submit { ticket, trace: sent, .. } = node.asks.remove(0) else { panic!("no write") };
        assert_eq!(sent, trace);
        node.input(Input::Feed(Feed::Lost(ticket)));
    }
}

#[test]
fn a_refused_write_ends_the_connection_and_the_client_starts_over() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), set("/a", "1")]);
    let Ask::Submit { ticket, .. } = node.asks.remove(0) else { panic!("no write") };
    node.input(Input::Feed(Feed::Refused { ticket, why: Refusal::Full }));
    assert!(matches!(node.closed[..], [(ConnId(1), Err(OpError::Overloaded(_)))]));
    // The second one is in the log already; it comes out of order and does nothing.
    log.round(&mut node);
    assert!(node.take_replies(1).is_empty());
    node.resume(2, session, 1, z(1));
    node.ask(2, 1, vec![create("/a"), set("/a", "1")]);
    log.round(&mut node);
    assert!(node.take_replies(2).iter().all(|(_, r)| r.is_ok()));
}

#[test]
fn out_of_order_ends_the_connection_with_what_was_expected() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.ask(1, 5, vec![create("/a")]);
    log.round(&mut node);
    let expected = OpError::OutOfOrder { expected: WriteNumber(1), got: WriteNumber(5) };
    assert_eq!(node.closed, [(ConnId(1), Err(expected))]);
}

#[test]
fn a_client_ends_its_session_and_the_stream_ends_well() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), Op::Close]);
    log.round(&mut node);
    assert_eq!(node.take_replies(1).len(), 1, "first what is before it");
    log.round(&mut node);
    assert_eq!(node.take_replies(1), [(1, Ok(Outcome::Close))]);
    assert_eq!(node.closed, [(ConnId(1), Ok(()))]);
    assert!(node.server.state().session(session).is_none());
}

#[test]
fn a_session_is_not_closed_before_a_write_that_has_to_be_sent_again() {
    let (mut node, mut log, session) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), Op::Close]);
    let [Ask::Submit { ticket, .. }] = node.asks[..] else { panic!("the create alone, not {:?}", node.asks) };
    node.asks.clear();
    node.input(Input::Feed(Feed::Refused { ticket, why: Refusal::Full }));
    assert!(matches!(node.closed[..], [(ConnId(1), Err(OpError::Overloaded(_)))]));
    node.resume(2, session, 1, Zxid::ZERO);
    node.ask(2, 1, vec![create("/a"), Op::Close]);
    log.round(&mut node);
    log.round(&mut node);
    assert!(matches!(node.take_replies(2)[..], [(0, Ok(Outcome::Write(_))), (1, Ok(Outcome::Close))]));
}

#[test]
fn a_write_without_a_session_that_may_still_be_carried_out_does_not_end_as_refused() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    node.status(Role::Looking, false);
    for (conn, op) in [(1, create("/a")), (2, Op::Sync)] {
        node.input(call(conn, op));
    }
    node.pass(Duration::from_secs(11));
    // Parked for as long, a write of the same node would be refused by the quorum; this one it has not given up.
    assert!(
        matches!(
            &node.closed[..],
            [(ConnId(1), Err(OpError::Unknown(_))), (ConnId(2), Err(OpError::Unavailable(_)))]
        ),
        "{:?}",
        node.closed
    );
    node.status(Role::Following, true);
    log.round(&mut node);
    assert_eq!(node.server.state().tree().len(), 2, "carried out");
}

#[test]
fn the_leader_closes_a_silent_session_once_and_its_node_closes_the_connection() {
    let (mut leader, mut log, session) = with_session(Role::Leading);
    leader.pass(Duration::from_millis(3900));
    leader.ask(1, 1, vec![Op::Ping]);
    leader.pass(SILENCE - Duration::from_millis(100));
    assert!(leader.asks.is_empty(), "it pinged in time");
    leader.pass(Duration::from_millis(200));
    let [Ask::Barrier { ticket }] = leader.asks[..] else { panic!("no barrier but {:?}", leader.asks) };
    leader.asks.clear();
    leader.input(Input::Feed(Feed::Barrier(ticket)));
    assert!(matches!(&leader.asks[..], [Ask::Submit { command, .. }]
            if command.body == CommandBody::CloseSession { session, expired: Some(Epoch(1)) }));
    leader.pass(Duration::from_secs(9));
    assert_eq!(leader.asks.len(), 1, "once");
    log.round(&mut leader);
    assert_eq!(leader.closed, [(ConnId(1), Err(OpError::SessionExpired(session)))]);
}

#[test]
fn a_leader_that_cannot_reach_its_quorum_closes_no_session() {
    let (mut leader, _log, _) = with_session(Role::Leading);
    leader.pass(Duration::from_secs(60));
    assert!(matches!(leader.asks[..], [Ask::Barrier { .. }]), "waits for its barrier: {:?}", leader.asks);
    assert!(leader.closed.is_empty());
}

#[test]
fn a_leader_that_was_stopped_does_not_take_its_own_absence_for_silence() {
    let (mut leader, _log, _) = with_session(Role::Leading);
    leader.pass(Duration::from_secs(3));
    leader.now = leader.now + Duration::from_secs(3600);
    leader.input(Input::Tick);
    assert!(leader.asks.is_empty());
    leader.pass(SILENCE - Duration::from_millis(3100));
    assert!(leader.asks.is_empty());
    leader.pass(Duration::from_millis(200));
    assert_eq!(leader.asks.len(), 1, "the rest of its time");
}

/// A leader and a follower with a client on connection 1 of the follower.
fn leader_and_follower() -> (Node, Node, Log, SessionId) {
    let (mut leader, mut follower, mut log) =
        (Node::serving(1, Role::Leading), Node::serving(2, Role::Following), Log::default());
    follower.open(1);
    log.accept(&mut follower);
    log.feed(&mut leader);
    log.feed(&mut follower);
    let session = follower.session_of(1).unwrap();
    report(&mut follower, &mut leader);
    confirm(&mut leader, &mut follower);
    (leader, follower, log, session)
}

fn report(from: &mut Node, leader: &mut Node) {
    for report in std::mem::take(&mut from.reports) {
        leader.input(Input::Sign(Sign::Report { from: from.server.config.me, report }));
    }
}

fn confirm(leader: &mut Node, to: &mut Node) {
    for report in std::mem::take(&mut leader.confirms) {
        to.input(Input::Sign(Sign::Confirmed(report)));
    }
}

#[test]
fn followers_tell_the_leader_whom_they_have_heard() {
    let (mut leader, mut follower, _log, _) = leader_and_follower();
    for _ in 0..20 {
        leader.pass(Duration::from_millis(1000));
        follower.pass(Duration::from_millis(1000));
        follower.ask(1, 1, vec![Op::Ping]);
        follower.pass(Duration::from_millis(400));
        leader.pass(Duration::from_millis(400));
        assert!(!follower.reports.is_empty());
        report(&mut follower, &mut leader);
        confirm(&mut leader, &mut follower);
    }
    assert!(leader.asks.is_empty(), "{:?}", leader.asks);
    leader.pass(SILENCE + Duration::from_millis(100));
    assert_eq!(leader.asks.len(), 1, "silent now");
}

/// A client counts its time-out from when it sent the last request that was confirmed to it; the leader may count from no
/// earlier moment, whatever is lost or late on the way.
#[test]
fn b13_a_client_is_told_only_what_the_leader_has_counted() {
    let (mut leader, mut follower, _log, _) = leader_and_follower();
    assert_eq!(follower.confirmed(1), None, "there was no request yet");
    let step = Duration::from_millis(200);
    let pass = |leader: &mut Node, follower: &mut Node| {
        leader.pass(step);
        follower.pass(step);
    };
    follower.ask(1, 1, vec![Op::Ping, Op::Ping]);
    assert_eq!(follower.take_replies(1).len(), 2);
    for _ in 0..5 {
        pass(&mut leader, &mut follower);
        assert_eq!(follower.confirmed(1), None, "nobody has answered the report");
    }
    assert!(follower.reports.len() > 1, "sent again");
    report(&mut follower, &mut leader);
    let counted = leader.now;
    // The answers are under way until the leader has found the session silent.
    leader.pass(SILENCE - step);
    assert!(leader.asks.is_empty(), "{:?}", leader.asks);
    leader.pass(2 * step);
    let [Ask::Barrier { ticket }] = leader.asks[..] else { panic!("no barrier but {:?}", leader.asks) };
    assert!(leader.now.since(counted) >= SILENCE);
    leader.asks.clear();
    leader.input(Input::Feed(Feed::Barrier(ticket)));
    assert!(matches!(leader.asks[..], [Ask::Submit { .. }]));
    confirm(&mut leader, &mut follower);
    assert_eq!(follower.confirmed(1), Some(1), "counted then");
    // What comes behind the decision is not confirmed, however long the close takes.
    follower.ask(1, 1, vec![Op::Ping, Op::Ping, Op::Ping]);
    for _ in 0..5 {
        pass(&mut leader, &mut follower);
        report(&mut follower, &mut leader);
        confirm(&mut leader, &mut follower);
        assert_eq!(follower.confirmed(1), Some(1));
    }
}

/// The store of a leader can be a process of its own, and can be started again while the quorum goes on leading.
#[test]
fn b13_a_store_that_starts_again_under_its_leader_confirms_nothing_before_it_has_caught_up() {
    let (mut before, mut follower, mut log, session) = leader_and_follower();
    let copy = |node: &Node| State::load(node.server.state().records()).unwrap();
    let state = copy(&before);
    before.pass(SILENCE + Duration::from_millis(100));
    let [Ask::Barrier { ticket }] = before.asks[..] else { panic!("no barrier but {:?}", before.asks) };
    before.asks.clear();
    before.input(Input::Feed(Feed::Barrier(ticket)));
    // The close is in the log, and this store is gone before it is committed.
    log.accept(&mut before);
    let last = log.entries.last().unwrap().zxid;
    let leads = |last| {
        let status =
            QuorumStatus { role: Role::Leading, serving: true, epoch: Epoch(1), last, ..Default::default() };
        Input::Feed(Feed::Status(status))
    };
    for end in [state.applied(), last] {
        let mut leader = Node::new(1);
        leader.server.replace_state(Time(0), State::load(state.records()).unwrap());
        leader.input(leads(end));
        follower.reports.clear();
        follower.ask(1, 1, vec![Op::Ping, Op::Ping]);
        follower.pass(Duration::from_millis(400));
        report(&mut follower, &mut leader);
        assert_eq!(leader.confirms.is_empty(), end == last, "the close may be committed already");
        if end == last {
            log.feed(&mut leader);
            assert!(leader.server.state().session(session).is_none());
            follower.pass(Duration::from_millis(400));
            report(&mut follower, &mut leader);
            confirm(&mut leader, &mut follower);
            assert_eq!(follower.confirmed(1), None);
        }
    }
    // The same store, and a snapshot in place of its state.
    before.server.replace_state(before.now, state);
    follower.pass(Duration::from_millis(400));
    report(&mut follower, &mut before);
    confirm(&mut before, &mut follower);
    assert_eq!(follower.confirmed(1), None);
}

#[test]
fn b13_a_close_for_silence_does_nothing_in_a_later_reign() {
    let (mut leader, mut log, session) = with_session(Role::Leading);
    leader.pass(SILENCE + Duration::from_millis(100));
    let [Ask::Barrier { ticket }] = leader.asks[..] else { panic!("no barrier but {:?}", leader.asks) };
    leader.asks.clear();
    leader.input(Input::Feed(Feed::Barrier(ticket)));
    // It waits for the next leader, who takes it, and has heard the session meanwhile.
    let marker =
        Committed { zxid: Zxid::marker(Epoch(2)), time_ms: 0, origin: None, level: None, command: None };
    leader.input(Input::Feed(Feed::Committed(vec![marker])));
    assert!(log.accept(&mut leader).is_empty());
    let mut entry = log.entries.pop().unwrap();
    entry.zxid = Zxid::new(Epoch(2), 1);
    leader.input(Input::Feed(Feed::Committed(vec![entry])));
    assert!(leader.server.state().session(session).is_some() && leader.closed.is_empty());
}

#[test]
fn b13_what_was_reported_is_reported_again_to_the_next_leader() {
    let (mut leader, mut follower, _log, session) = leader_and_follower();
    follower.ask(1, 1, vec![Op::Ping, Op::Ping]);
    follower.pass(Duration::from_millis(200));
    let [lost] = &std::mem::take(&mut follower.reports)[..] else { panic!("no report") };
    follower.status(Role::Looking, false);
    follower.pass(Duration::from_secs(1));
    assert!(follower.reports.is_empty(), "nobody leads");
    follower.status(Role::Following, true);
    report(&mut follower, &mut leader);
    confirm(&mut leader, &mut follower);
    assert_eq!(follower.confirmed(1), Some(1));
    // The session moves on, and an answer to the first report changes nothing.
    follower.resume(2, session, 1, Zxid::ZERO);
    leader.input(Input::Sign(Sign::Report { from: PeerId(2), report: lost.clone() }));
    confirm(&mut leader, &mut follower);
    assert_eq!(follower.confirmed(2), None);
}

#[test]
fn stores_compare_their_states_and_one_that_differs_starts_over() {
    /// How many checks there are after so long.
    fn checks(log: &mut Log, leader: &mut Node, follower: &mut Node, passes: Duration) -> usize {
        leader.pass(passes);
        let before = log.entries.len();
        log.accept(leader);
        log.feed(leader);
        log.feed(follower);
        let is_check = |e: &&Committed| matches!(e.command.as_ref().unwrap().body, CommandBody::Check { .. });
        log.entries[before..].iter().filter(is_check).count()
    }
    let (mut leader, mut follower, mut log, _) = leader_and_follower();
    leader.compares = true;
    let period = Duration::from_secs(10);
    let short = Duration::from_millis(1);
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period - short), 0);
    assert_eq!(checks(&mut log, &mut leader, &mut follower, short), 1);
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period), 1, "compares what the first has noted");
    assert_eq!(checks(&mut log, &mut leader, &mut follower, 3 * period), 0, "nothing has changed");
    assert!(leader.diverged.is_empty() && follower.diverged.is_empty());
    let agreed = follower.server.agreed();
    assert!(agreed > Zxid::ZERO && agreed == leader.server.agreed());

    // The follower takes in something else than the leader.
    follower.ask(1, 1, vec![create("/a")]);
    log.accept(&mut follower);
    log.feed(&mut leader);
    let mut other = log.entries.last().unwrap().clone();
    other.command.as_mut().unwrap().body = match create("/b") {
        Op::Write(write) => CommandBody::Write(write),
        _ => unreachable!(),
    };
    follower.input(Input::Feed(Feed::Committed(vec![other])));
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period), 1);
    assert!(follower.diverged.is_empty(), "only noted");
    let noted = log.entries.last().unwrap().zxid;
    assert_eq!(checks(&mut log, &mut leader, &mut follower, period), 1);
    let digest = leader.server.state().digest();
    let [(at, own, leaders)] = follower.diverged[..] else { panic!("{:?}", follower.diverged) };
    assert!(at == noted && leaders == digest && own != digest && leader.diverged.is_empty());

    assert!(agreed < noted && follower.server.agreed() < noted);
    follower.server.start_over(follower.now);
    assert_eq!(follower.server.agreed(), Zxid::ZERO);
    follower.input(Input::Tick);
    assert!(!follower.server.ready());
    assert!(
        matches!(follower.closed[..], [(ConnId(1), Err(OpError::Unavailable(_)))]),
        "{:?}",
        follower.closed
    );
    log.feed(&mut follower);
    assert!(!follower.server.ready(), "its feed has not said yet that there is a leader");
    follower.status(Role::Following, true);
    assert!(follower.server.ready() && follower.server.state().digest() == digest);
    assert_eq!(follower.diverged.len(), 1);
    assert_eq!(follower.server.agreed(), noted, "what is built again agrees there");
}

#[test]
fn a_snapshot_takes_the_place_of_the_state_and_lost_writes_find_their_results() {
    let (mut a, mut log, session) = with_session(Role::Following);
    a.ask(1, 1, vec![create("/a")]);
    let Ask::Submit { ticket, .. } = a.asks[0].clone() else { panic!("no write") };
    log.accept(&mut a);
    let mut b = Node::serving(2, Role::Leading);
    log.feed(&mut b);
    let state = State::load(b.server.state().records()).unwrap();
    a.server.replace_state(a.now, state);
    a.input(Input::Feed(Feed::Lost(ticket)));
    assert!(a.closed.is_empty(), "the session is in the snapshot");
    log.round(&mut a);
    assert!(matches!(a.take_replies(1)[..], [(0, Ok(Outcome::Write(WriteOutcome::Created { .. })))]));
    // A snapshot without it, and further on: the session was closed meanwhile.
    b.ask(1, 1, vec![]);
    let mut c = State::default();
    c.apply_marker(z(900), 0);
    a.server.replace_state(a.now, c);
    a.input(Input::Tick);
    assert_eq!(a.closed, [(ConnId(1), Err(OpError::SessionExpired(session)))]);
}

#[test]
fn a_hole_in_the_feed_stops_the_node() {
    let mut node = Node::serving(1, Role::Following);
    let entry = |zxid| Committed { zxid, time_ms: 0, origin: None, level: None, command: None };
    node.input(Input::Feed(Feed::Committed(vec![entry(z(0)), entry(z(2))])));
    assert_eq!(node.stopped.len(), 1);
    assert_eq!(node.server.state().applied(), z(0));
}

#[test]
fn too_many_requests_or_connections_are_refused() {
    let (mut node, _log, _) = with_session(Role::Following);
    let max = node.server.config.limits.requests_max;
    node.ask(1, 1, vec![create("/a"); max]);
    assert!(node.closed.is_empty());
    node.ask(1, 1, vec![Op::Ping]);
    assert!(matches!(node.closed[..], [(ConnId(1), Err(OpError::Overloaded(_)))]));
    node.closed.clear();
    node.server.config.limits.connections_max = 0;
    node.open(2);
    assert!(matches!(node.closed[..], [(ConnId(2), Err(OpError::Overloaded(_)))]));
}

#[test]
fn time_outs_are_clamped() {
    let (mut node, mut log) = (Node::serving(1, Role::Following), Log::default());
    for (conn, wish, granted) in [(1, 0, 1000), (2, 5000, 5000), (3, u32::MAX, 60_000)] {
        node.open_with(conn, wish);
        log.round(&mut node);
        let opened = node.sent.iter().rev().find_map(|(_, item)| match item {
            Item::Opened(Opened { timeout_ms, .. }) => Some(*timeout_ms),
            _ => None,
        });
        assert_eq!(opened, Some(granted));
    }
    assert!(node.now.0 < SECOND);
}

#[test]
fn reads_wait_while_the_client_does_not_take_the_answers() {
    let (mut node, mut log, _) = with_session(Role::Following);
    let value = Bytes::from(vec![1; 1 << 20]);
    let set = Op::Write(Write::Set { path: path("/"), data: Some(value.clone()), version: None });
    node.ask(1, 1, vec![set]);
    log.round(&mut node);
    node.take_replies(1);
    node.ask(1, 2, vec![get("/"); 10]);
    assert_eq!(node.take_replies(1).len(), 4, "4 MiB are on their way");
    node.input(Input::Drained { conn: ConnId(1), bytes: 3 << 20 });
    assert_eq!(node.take_replies(1).iter().map(|(xid, _)| *xid).collect::<Vec<_>>(), [4, 5, 6]);
    node.input(Input::Drained { conn: ConnId(1), bytes: 4 << 20 });
    assert_eq!(node.take_replies(1).len(), 3);
}

#[test]
fn b18_without_room_what_grows_is_refused_and_deletes_reads_and_closes_go_on() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.ask(1, 1, vec![create("/a"), create("/b"), set("/a", "123")]);
    log.round(&mut node);
    node.take_replies(1);
    let room = |node: &mut Node, room| {
        let status = QuorumStatus { room, ..node.server.status() };
        node.input(Input::Feed(Feed::Status(status)));
    };
    let delete = |p: &str| Op::Write(Write::Delete { path: path(p), version: None });
    let get = || Op::Read(Read::Get { path: path("/a") }, ReadLevel::Local);
    let ok = |replies: Vec<(u64, Result<Outcome, OpError>)>| -> Vec<bool> {
        replies.iter().for_each(|(_, r)| assert!(matches!(r, Ok(_) | Err(OpError::DiskFull)), "{r:?}"));
        replies.iter().map(|(_, r)| r.is_ok()).collect()
    };
    let multi = |parts: Vec<MultiOp>| Op::Write(Write::Multi(parts));
    let part = |op: Op| match op {
        Op::Write(Write::Create(create)) => MultiOp::Create(create),
        Op::Write(Write::Delete { path, version }) => MultiOp::Delete { path, version },
        other => panic!("{other:?}"),
    };

    room(&mut node, Room::Low);
    let ops = vec![create("/c"), set("/a", "1234"), set("/a", "321"), get(), multi(vec![part(create("/d"))])];
    node.ask(1, 4, ops);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [false, false, true, true, false]);
    // What is made is less than what goes.
    node.ask(1, 8, vec![multi(vec![part(delete("/b")), part(create("/b"))])]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [true]);

    room(&mut node, Room::Short);
    node.ask(1, 9, vec![set("/a", "1"), get(), delete("/b"), multi(vec![part(delete("/a"))])]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [false, true, true, true]);
    // Without a session, too.
    node.input(call(7, create("/c")));
    assert_eq!(ok(node.take_replies(7)), [false]);
    // A client that comes now can delete, and a session ends.
    node.open(2);
    log.round(&mut node);
    assert!(node.session_of(2).is_some());
    node.ask(1, 12, vec![Op::Close]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(1)), [true]);

    room(&mut node, Room::Ample);
    node.ask(2, 1, vec![create("/c")]);
    log.round(&mut node);
    assert_eq!(ok(node.take_replies(2)), [true]);
}

#[test]
fn b18_refusals_for_want_of_space_do_not_fill_the_disk() {
    let (mut node, mut log, _) = with_session(Role::Following);
    node.open(2);
    node.ask(1, 1, vec![create("/a"), create("/b")]);
    log.round(&mut node);
    node.take_replies(1);
    let status = QuorumStatus { room: Room::Short, ..node.server.status() };
    node.input(Input::Feed(Feed::Status(status)));
    let delete = |p: &str| Op::Write(Write::Delete { path: path(p), version: None });

    // All that a connection may have under way, and one behind them that makes room.
    let flood = node.server.config.limits.requests_max - 1;
    node.ask(1, 3, vec![set("/a", "1"); flood].into_iter().chain([delete("/a")]).collect());
    assert_eq!(node.asks.len(), refusals::PER_PERIOD, "and no more in this moment");
    // Of others only what grows waits, and only for its turn.
    node.ask(2, 1, vec![delete("/b"), set("/a", "1")]);
    node.input(call(7, get("/a")));
    node.input(call(8, create("/c")));
    assert!(matches!(node.take_replies(7)[..], [(_, Ok(_))]));
    assert!(matches!(node.take_replies(8)[..], [(_, Err(OpError::DiskFull))]));
    log.round(&mut node);
    assert!(matches!(node.take_replies(2)[..], [(_, Ok(_))]));

    let (mut answers, mut rounds) = (node.take_replies(1), 0usize);
    while answers.len() <= flood {
        node.pass(refusals::PERIOD);
        assert!(node.asks.len() <= refusals::PER_PERIOD + 1, "the delete is none");
        log.round(&mut node);
        answers.append(&mut node.take_replies(1));
        if rounds == 0 {
            assert!(matches!(node.take_replies(2)[..], [(_, Err(OpError::DiskFull))]), "its turn came");
        }
        rounds += 1;
    }
    assert!(rounds.abs_diff(flood / refusals::PER_PERIOD) <= 1, "{rounds}");
    assert!(matches!(answers.pop(), Some((_, Ok(_)))));
    assert!(answers.iter().all(|(_, result)| *result == Err(OpError::DiskFull)));
    // Who goes leaves nothing behind.
    node.ask(2, 3, vec![set("/", "1"); refusals::PER_PERIOD + 1]);
    node.input(Input::Closed { conn: ConnId(2) });
    assert_eq!(node.server.refusals.next_timeout(), None);
}

#[test]
fn b14_a_refused_write_that_is_sent_again_to_a_node_with_other_limits_is_refused_again() {
    let (mut strict, mut log, session) = with_session(Role::Following);
    strict.server.config.limits.multi_ops_max = 1;
    let check = MultiOp::Check { path: path("/"), version: None };
    let multi = || Op::Write(Write::Multi(vec![check.clone(); 2]));
    strict.ask(1, 1, vec![multi()]);
    log.round(&mut strict);
    let first = strict.take_replies(1);
    assert!(matches!(&first[..], [(_, Err(OpError::BadArguments(_)))]), "{first:?}");
    // The answer got lost.
    let mut other = Node::serving(2, Role::Following);
    log.feed(&mut other);
    other.resume(1, session, 1, Zxid::ZERO);
    log.round(&mut other);
    other.ask(1, 1, vec![multi()]);
    log.round(&mut other);
    let again = other.take_replies(1);
    let [(_, Err(OpError::BadArguments(why)))] = &again[..] else { panic!("{again:?}") };
    assert!(why.contains("refused it as malformed"), "{why}");
}
