//! Nodes on a log that each test writes itself: the test plays the quorum, line by line.

use api::{Create, Epoch, Origin, Path, Read, ReadOutcome, SessionToken, WriteOutcome, ports::Room};
use bytes::Bytes;

use super::*;

mod levels;
mod limits;
mod local;
mod openings;
mod order;
mod random_reads;
mod reads;
mod reaping;
mod retries;
mod silence;
mod states;
mod streams;
mod trees;
mod turns;
mod watch_oracle;
mod watches;

const SECOND: u64 = 1_000_000;

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn path(p: &str) -> Path {
    Path::new(p).unwrap()
}

/// A session with a time-out of 4 s is closed after this time: the clocks of two machines may differ.
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

/// One node, the time, and all its outputs.
struct Node {
    server: Server,
    now: Time,
    asks: Vec<Ask>,
    reports: Vec<Bytes>,
    /// Answers to reports of other nodes.
    confirms: Vec<Bytes>,
    sent: Vec<(ConnId, Item)>,
    closed: Vec<(ConnId, Result<(), OpError>)>,
    diverged: Vec<(Zxid, u64, u64)>,
    /// Its checks get into the log. Most tests do not need them.
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

    /// A node with a leader.
    fn serving(id: u32, role: Role) -> Node {
        let mut node = Node::new(id);
        node.status(role, true);
        node
    }

    /// A leader confirms its own reports at once.
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
        let open = Open {
            resume: None,
            timeout_ms,
            last_zxid: Zxid::ZERO,
            wait_ms: None,
            ensemble: None,
            purpose: Default::default(),
        };
        let drawn = Drawn { token: SessionToken([conn as u8; 16]), stream: StreamId(0) };
        self.input(Input::Open { conn: ConnId(conn), open, drawn, identities: api::Identities::default() });
    }

    fn resume(&mut self, conn: u64, session: SessionId, token: u8, last_zxid: Zxid) {
        let stream = StreamId(u64::from(self.server.me().0) << 32 | conn);
        let resume = Some((session, SessionToken([token; 16])));
        let open = Open {
            resume,
            timeout_ms: 0,
            last_zxid,
            wait_ms: None,
            ensemble: None,
            purpose: Default::default(),
        };
        let drawn = Drawn { token: SessionToken([0; 16]), stream };
        self.input(Input::Open { conn: ConnId(conn), open, drawn, identities: api::Identities::default() });
    }

    /// Sends requests. The xid is the index in the list; writes are numbered from `first`.
    fn ask(&mut self, conn: u64, first: u64, ops: Vec<Op>) {
        let mut number = first;
        let requests = ops.into_iter().enumerate().map(|(xid, op)| {
            let write = matches!(op, Op::Write(_) | Op::Invalid(_));
            number += u64::from(write);
            let number = write.then_some(WriteNumber(number - 1));
            Request { number, ..Request::new(xid as u64, op) }
        });
        let requests = requests.collect();
        self.input(Input::Requests { conn: ConnId(conn), acked: WriteNumber(first - 1), requests });
    }

    /// The last request that was confirmed to a connection as a sign of life.
    fn confirmed(&self, conn: u64) -> Option<u64> {
        self.sent.iter().rev().find_map(|(c, item)| match item {
            Item::Confirmed { xid } if *c == ConnId(conn) => Some(*xid),
            _ => None,
        })
    }

    /// The new answers to a connection: xids and results.
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
    /// The leader's time for entries.
    time_ms: i64,
}

impl Log {
    /// Appends a node's submissions to the log, and returns its other requests.
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

    /// Feeds a node its missing entries in one batch.
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
    let request = Request::new(0, op);
    Input::Unary { conn: ConnId(conn), request, identities: api::Identities::default() }
}

fn data(result: &Result<Outcome, OpError>) -> &[u8] {
    match result {
        Ok(Outcome::Read(ReadOutcome::Data { data: Some(data), .. })) => data,
        other => panic!("no value but {other:?}"),
    }
}

/// A session opened on node 1, which acts for it; node 2 knows the session.
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
