//! Scripts: what goes in, and exactly what comes out.

use std::time::Duration;

use api::session::Request;
use api::{Path, PeerId, Read, ReadLevel, ReadOutcome, Stat, Write, WriteOutcome};
use bytes::Bytes;

use super::*;

const TOKEN: SessionToken = SessionToken([7; 16]);
const ID: SessionId = SessionId(0x1_0000_0001);

/// A machine with its clock, and short names for the steps of a test.
struct Script {
    machine: Machine,
    now: Time,
}

impl Script {
    /// Three endpoints, a session time-out of 9 s.
    fn new() -> Script {
        Script::with(Config { endpoints: 3, session_timeout: Duration::from_secs(9), ..Config::default() })
    }

    fn with(config: Config) -> Script {
        Script { machine: Machine::new(config, 1), now: Time(1_000_000) }
    }

    /// With an open session on connection 1.
    fn opened() -> Script {
        let mut s = Script::new();
        s.give(Input::Tick);
        s.open();
        s
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    fn connection(&self) -> Connection {
        self.machine.connection().unwrap()
    }

    fn item(&mut self, item: Item) -> Vec<Output> {
        self.item_on(self.connection(), item)
    }

    fn item_on(&mut self, connection: Connection, item: Item) -> Vec<Output> {
        self.give(Input::Items { connection, items: vec![item] })
    }

    fn open(&mut self) -> Vec<Output> {
        self.item(Item::Opened(opened(9_000)))
    }

    fn write(&mut self, ticket: u64) -> Vec<Output> {
        self.request(ticket, set(ticket), None)
    }

    fn read(&mut self, ticket: u64) -> Vec<Output> {
        self.request(ticket, Op::Read(Read::Get { path: path() }, ReadLevel::Local), None)
    }

    fn request(&mut self, ticket: u64, op: Op, deadline: Option<Time>) -> Vec<Output> {
        self.give(Input::Request { ticket: Ticket(ticket), op, deadline, trace: None })
    }

    fn transmit(&mut self) -> Option<Batch> {
        let wants = self.machine.wants_to_transmit();
        let batch = self.machine.poll_transmit(self.now);
        assert_eq!(wants, batch.is_some());
        batch
    }

    /// The requests transmitted now, as (xid, number).
    fn sent(&mut self) -> Vec<(u64, Option<u64>)> {
        let batch = self.transmit().unwrap();
        batch.requests.iter().map(|r| (r.xid, r.number.map(|n| n.0))).collect()
    }

    /// Checks that what ends by this answer ends with its zxid, which is then left out.
    fn answer(&mut self, xid: u64, result: Result<Outcome, OpError>) -> Vec<Output> {
        let answered = Zxid(0x1_0000_0000 + xid);
        let response = Response { xid, zxid: answered, result, leaderless: false };
        let mut outputs = self.item(Item::Response(response));
        for output in &mut outputs {
            if let Output::Done { zxid, result: Ok(_) | Err(Failure::Refused(_)), .. } = output {
                assert_eq!(zxid.take(), Some(answered));
            }
        }
        outputs
    }

    /// Pings when it is time to, and has that answered and confirmed.
    fn stay_alive(&mut self) -> usize {
        let Some(batch) = self.transmit() else { return 0 };
        for request in &batch.requests {
            self.answer(request.xid, Ok(Outcome::Ping));
        }
        let xid = batch.requests.last().map_or(0, |r| r.xid);
        self.item_on(batch.connection, Item::Confirmed { xid });
        batch.requests.len()
    }

    fn disconnect(&mut self, error: OpError) -> Vec<Output> {
        self.give(Input::Disconnected { connection: self.connection(), error })
    }

    /// Ticks at each time-out until `after` has passed; returns what came out, with the time since the start.
    fn wait(&mut self, after: Duration) -> Vec<(Duration, Output)> {
        let (start, end) = (self.now, self.now + after);
        let mut all = Vec::new();
        while let Some(t) = self.machine.next_timeout().filter(|&t| t <= end) {
            self.now = t.max(self.now);
            let outputs = self.give(Input::Tick);
            assert!(
                !outputs.is_empty()
                    || self.machine.next_timeout() != Some(t)
                    || self.machine.wants_to_transmit()
            );
            all.extend(outputs.into_iter().map(|o| (self.now.since(start), o)));
        }
        self.now = end;
        all
    }
}

fn path() -> Path {
    Path::new("/a").unwrap()
}

fn set(value: u64) -> Op {
    let data = Bytes::copy_from_slice(&value.to_be_bytes());
    Op::Write(Write::Set { path: path(), data: Some(data), version: None })
}

fn ok() -> Result<Outcome, OpError> {
    Ok(Outcome::Write(WriteOutcome::Set { stat: Stat::default() }))
}

fn down() -> OpError {
    OpError::Unavailable("connection reset".into())
}

fn done(ticket: u64, result: Result<Outcome, Failure>) -> Output {
    Output::Done { ticket: Ticket(ticket), zxid: None, result }
}

fn connect(connection: u64, endpoint: usize, resume: bool, last_zxid: u64) -> Output {
    Output::Connect {
        connection: Connection(connection),
        endpoint,
        open: OpenSession {
            resume: resume.then_some((ID, TOKEN)),
            timeout_ms: 9_000,
            last_zxid: Zxid(last_zxid),
            wait_ms: None,
            ensemble: None,
            purpose: Default::default(),
        },
    }
}

fn opened(timeout_ms: u32) -> Opened {
    Opened {
        session: ID,
        token: TOKEN,
        timeout_ms,
        node: PeerId(1),
        leaderless: false,
        resumed: false,
        zxid: Zxid::ZERO,
        last_write: WriteNumber(0),
        level: api::Level::FIRST,
        limits: Default::default(),
        identities: Default::default(),
        ensemble: None,
        read_only: false,
    }
}

fn first_endpoint() -> usize {
    Backoff::new(&Config { endpoints: 3, ..Config::default() }, 1).take_endpoint()
}

#[test]
fn a_session_opens_and_requests_flow() {
    let mut s = Script::new();
    let first = first_endpoint();
    assert_eq!(s.machine.next_timeout(), Some(Time(0)));
    assert_eq!(s.give(Input::Tick), [connect(1, first, false, 0)]);
    assert_eq!(s.write(10), [], "kept until there is a session");
    assert_eq!(s.transmit(), None);
    let connected = Event::Connected { session: ID, endpoint: first, node: PeerId(1) };
    assert_eq!(s.open(), [Output::Event(connected)]);
    s.read(11);
    s.write(12);
    let batch = s.transmit().unwrap();
    let numbered =
        |xid, number: Option<u64>, op| Request { number: number.map(WriteNumber), ..Request::new(xid, op) };
    let read = Op::Read(Read::Get { path: path() }, ReadLevel::Local);
    let requests =
        vec![numbered(1, Some(1), set(10)), numbered(2, None, read), numbered(3, Some(2), set(12))];
    assert_eq!(batch, Batch { connection: Connection(1), requests, acked: WriteNumber(0) });
    assert_eq!(s.transmit(), None, "once");

    assert_eq!(s.answer(1, ok()), [done(10, Ok(ok().unwrap()))]);
    let data = Outcome::Read(ReadOutcome::Data { data: None, stat: Stat::default() });
    assert_eq!(s.answer(2, Ok(data.clone())), [done(11, Ok(data))]);
    let error = OpError::NoNode(path());
    assert_eq!(s.answer(3, Err(error.clone())), [done(12, Err(Failure::Refused(error)))]);
}

#[test]
fn a_read_keeps_its_level_when_it_is_sent_again() {
    let mut s = Script::opened();
    let levels = [ReadLevel::Linearizable, ReadLevel::AtLeast(Zxid(9)), ReadLevel::Local];
    let ops = levels.map(|level| Op::Read(Read::Get { path: path() }, level));
    for (ticket, op) in (1..).zip(&ops) {
        s.request(ticket, op.clone(), None);
    }
    let sent = |s: &mut Script| s.transmit().unwrap().requests.into_iter().map(|r| r.op).collect::<Vec<_>>();
    assert_eq!(sent(&mut s), ops);
    s.disconnect(down());
    s.open();
    assert_eq!(sent(&mut s), ops);
    // No quorum confirms to this node: perhaps it does to the next.
    let unconfirmed = OpError::Unavailable("no quorum".into());
    let outputs = s.answer(4, Err(unconfirmed));
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::Connect { open: OpenSession { resume: Some(_), .. }, .. })),
        "{outputs:?}"
    );
    s.open();
    assert_eq!(sent(&mut s), ops);
}

#[test]
fn a_read_of_a_zxid_that_does_not_come_fails_alone() {
    let mut s = Script::opened();
    s.request(1, Op::Read(Read::Get { path: path() }, ReadLevel::AtLeast(Zxid(u64::MAX))), None);
    s.write(2);
    s.transmit().unwrap();
    let behind = OpError::Unavailable("the node did not come so far".into());
    assert_eq!(s.answer(1, Err(behind.clone())), [done(1, Err(Failure::Refused(behind)))]);
    assert_eq!(s.answer(2, ok()), [done(2, Ok(ok().unwrap()))], "on the same connection");
}

#[test]
fn results_are_acknowledged_with_the_next_message() {
    let mut s = Script::opened();
    for ticket in 1..=3 {
        s.write(ticket);
    }
    assert_eq!(s.transmit().unwrap().acked, WriteNumber(0));
    s.answer(1, ok());
    s.answer(2, Err(OpError::NoNode(path())));
    s.read(4);
    assert_eq!(s.transmit().unwrap().acked, WriteNumber(2), "a refusal is a result as well");
    s.answer(3, ok());
    s.wait(Duration::from_secs(3));
    assert_eq!(s.transmit().unwrap().acked, WriteNumber(3), "a ping carries it if nothing else does");
}

#[test]
fn a_fail_over_sends_everything_unanswered_again_in_order_under_the_same_numbers() {
    let mut s = Script::opened();
    let first = first_endpoint();
    s.write(1);
    s.write(2);
    s.read(3);
    s.write(4);
    assert_eq!(s.sent(), [(1, Some(1)), (2, Some(2)), (3, None), (4, Some(3))]);
    s.answer(1, ok());
    s.write(5);
    let next = (first + 1) % 3;
    assert_eq!(
        s.disconnect(down()),
        [
            Output::Disconnect { connection: Connection(1) },
            Output::Event(Event::Disconnected { endpoint: first, error: down() }),
            connect(2, next, true, 0x1_0000_0001),
        ],
        "at once, with what is needed to take the session up again"
    );
    s.write(6);
    assert_eq!(s.transmit(), None);
    assert_eq!(s.open(), [Output::Event(Event::Resumed { endpoint: next, node: PeerId(1) })]);
    let again = s.transmit().unwrap();
    assert_eq!(again.acked, WriteNumber(1));
    let again: Vec<_> = again.requests.iter().map(|r| (r.xid, r.number.map(|n| n.0))).collect();
    assert_eq!(again, [(5, Some(2)), (6, None), (7, Some(3)), (8, Some(4)), (9, Some(5))]);
    for (xid, ticket) in [(5, 2), (6, 3), (7, 4), (8, 5), (9, 6)] {
        assert_eq!(s.answer(xid, ok()), [done(ticket, Ok(ok().unwrap()))]);
    }
}

#[test]
fn what_an_old_connection_says_counts_no_more() {
    let mut s = Script::opened();
    s.write(1);
    s.sent();
    s.disconnect(down());
    s.open();
    s.sent();
    let response = Response { xid: 1, zxid: Zxid(9), result: ok(), leaderless: false };
    assert_eq!(s.item_on(Connection(1), Item::Response(response)), []);
    assert_eq!(s.give(Input::Disconnected { connection: Connection(1), error: down() }), []);
    assert_eq!(s.answer(2, ok()), [done(1, Ok(ok().unwrap()))]);
}

#[test]
fn a_request_for_a_retry_is_no_answer() {
    for error in [down(), OpError::Overloaded("full".into()), OpError::Unknown("lost".into())] {
        let mut s = Script::opened();
        s.write(1);
        s.write(2);
        s.sent();
        let outputs = s.answer(1, Err(error));
        assert!(matches!(outputs[..], [Output::Disconnect { .. }, Output::Event(_), Output::Connect { .. }]));
        s.open();
        assert_eq!(s.sent(), [(3, Some(1)), (4, Some(2))]);
    }
}

#[test]
fn answers_out_of_order_end_the_connection_and_not_the_requests() {
    let mut s = Script::opened();
    s.write(1);
    s.write(2);
    s.sent();
    assert!(matches!(s.answer(2, ok())[..], [Output::Disconnect { .. }, ..]));
    s.open();
    assert_eq!(s.sent(), [(3, Some(1)), (4, Some(2))]);
    let mut s = Script::opened();
    assert!(matches!(s.answer(77, ok())[..], [Output::Disconnect { .. }, ..]), "an answer to nothing");
}

#[test]
fn a_hole_in_front_of_a_write_is_filled_by_sending_again() {
    let mut s = Script::opened();
    s.write(1);
    s.write(2);
    s.sent();
    let order = OpError::OutOfOrder { expected: WriteNumber(1), got: WriteNumber(2) };
    assert!(matches!(s.disconnect(order)[..], [Output::Disconnect { .. }, _, Output::Connect { .. }]));
    s.open();
    assert_eq!(s.sent(), [(3, Some(1)), (4, Some(2))]);
}

#[test]
fn b14_a_session_that_was_taken_up_elsewhere_is_taken_up_again_and_its_writes_are_sent_under_their_numbers() {
    let mut s = Script::opened();
    s.write(1);
    s.write(2);
    s.sent();
    assert!(matches!(
        s.disconnect(OpError::SessionMoved(ID))[..],
        [
            Output::Disconnect { .. },
            _,
            Output::Connect { open: OpenSession { resume: Some((ID, _)), .. }, .. }
        ]
    ));
    s.open();
    assert_eq!(s.sent(), [(3, Some(1)), (4, Some(2))]);
    // Another user of the session has used the second number: only that write fails, and it changed nothing.
    let reused = OpError::NumberReused(WriteNumber(2));
    s.answer(3, ok());
    let outputs = s.answer(4, Err(reused.clone()));
    assert!(outputs.contains(&done(2, Err(Failure::Refused(reused)))), "{outputs:?}");
    s.write(3);
    assert_eq!(s.sent(), [(5, Some(3))]);
}

#[test]
fn a_number_that_cannot_be_due_ends_the_session_instead_of_a_loop() {
    let mut s = Script::opened();
    s.write(1);
    s.write(2);
    s.sent();
    s.answer(1, ok());
    let error = OpError::OutOfOrder { expected: WriteNumber(1), got: WriteNumber(2) };
    let outputs = s.answer(2, Err(error.clone()));
    assert!(outputs.contains(&done(2, Err(Failure::Rejected { error, fate: Fate::Unknown }))), "{outputs:?}");
    assert!(outputs.contains(&Output::Event(Event::SessionLost { session: ID })));
    assert!(matches!(outputs.last(), Some(Output::Connect { open: OpenSession { resume: None, .. }, .. })));
}

#[test]
fn an_expired_session_ends_what_waits_and_a_fresh_one_starts_from_1() {
    let mut s = Script::opened();
    s.write(1);
    s.write(2);
    s.read(3);
    s.sent();
    s.answer(1, ok());
    s.disconnect(down());
    s.write(4);
    let connection = s.connection();
    let Phase::Opening { endpoint, .. } = s.machine.phase else { panic!() };
    let lost = |fate| Err(Failure::SessionLost { session: ID, fate });
    assert_eq!(
        s.disconnect(OpError::SessionExpired(ID)),
        [
            Output::Disconnect { connection },
            Output::Event(Event::SessionLost { session: ID }),
            done(2, lost(Fate::Unknown)),
            done(3, lost(Fate::NotDone)),
            done(4, lost(Fate::NotDone)),
            connect(3, endpoint, false, 0x1_0000_0001),
        ],
        "only sent writes have an unknown outcome"
    );
    s.open();
    s.write(5);
    let batch = s.transmit().unwrap();
    assert_eq!((batch.acked, batch.requests[0].number), (WriteNumber(0), Some(WriteNumber(1))));
}

#[test]
fn the_answer_that_the_session_expired_works_on_an_open_stream_as_well() {
    let mut s = Script::opened();
    s.write(1);
    s.sent();
    let outputs = s.answer(1, Err(OpError::SessionExpired(ID)));
    assert!(outputs.contains(&done(1, Err(Failure::SessionLost { session: ID, fate: Fate::Unknown }))));
    assert!(!s.machine.is_closed());
}

#[test]
fn without_reopen_the_end_of_the_session_is_the_end() {
    let mut s = Script::with(Config { reopen: false, ..Config::default() });
    s.give(Input::Tick);
    s.open();
    s.disconnect(OpError::SessionExpired(ID));
    assert!(s.machine.is_closed());
    assert_eq!(s.machine.next_timeout(), None);
    assert_eq!(s.write(1), [done(1, Err(Failure::SessionLost { session: ID, fate: Fate::NotDone }))]);
}

#[test]
fn pings_after_a_third_of_silence_and_fails_over_after_two() {
    let mut s = Script::opened();
    assert_eq!(s.wait(Duration::from_millis(2999)), []);
    assert_eq!(s.transmit(), None);
    s.wait(Duration::from_millis(1));
    let batch = s.transmit().unwrap();
    assert_eq!(batch.requests, [Request::new(1, Op::Ping)]);
    assert_eq!(s.answer(1, Ok(Outcome::Ping)), [], "no caller waits for it");
    s.item_on(batch.connection, Item::Confirmed { xid: 1 });

    // Idle but alive for a minute: a ping each 3 s.
    let mut pings = 0;
    for _ in 0..20 {
        assert_eq!(s.wait(Duration::from_secs(3)), []);
        pings += s.stay_alive();
    }
    assert_eq!(pings, 20);

    // Dead: 6 s after the last answer.
    let mut heard = Vec::new();
    for _ in 0..6 {
        heard.extend(s.wait(Duration::from_secs(1)));
        s.transmit();
    }
    assert!(matches!(heard[0], (_, Output::Disconnect { .. })), "{heard:?}");
    assert!(matches!(heard[2], (_, Output::Connect { .. })), "{heard:?}");
    s.open();
    assert_eq!(s.transmit(), None, "pings are not sent again");
    s.wait(Duration::ZERO);
    assert_eq!(s.transmit().map(|batch| batch.requests.len()), Some(1), "but a new one, for this connection");
}

#[test]
fn an_unconfirmed_session_is_suspended_but_not_given_up() {
    let mut s = Script::opened();
    s.disconnect(down());
    let log = s.wait(Duration::from_secs(60));
    let suspended: Vec<_> = log.iter().filter(|(_, o)| *o == Output::Event(Event::Suspended)).collect();
    assert_eq!(
        suspended,
        [&(Duration::from_secs(9), Output::Event(Event::Suspended))],
        "once, at the time-out"
    );
    let attempts = log
        .iter()
        .filter(|(_, o)| matches!(o, Output::Connect { open: OpenSession { resume: Some(_), .. }, .. }))
        .count();
    assert!(attempts >= 60 / 4, "{attempts} attempts of at most 3 s and a pause of at most 1 s");
    while s.machine.connection().is_none() {
        s.wait(Duration::from_millis(100));
    }
    assert_eq!(s.open(), [], "only the node knows");
    s.wait(Duration::ZERO);
    let xid = s.transmit().unwrap().requests[0].xid;
    let outputs = s.item_on(s.connection(), Item::Confirmed { xid });
    assert!(matches!(outputs[..], [Output::Event(Event::Resumed { .. })]));
}

/// Only the confirmation counts, from the time when the request was sent: any other node that has heard from
/// the session may be cut off from the ensemble.
#[test]
fn b13_only_what_is_confirmed_keeps_a_session_alive_and_from_when_it_was_sent() {
    let mut s = Script::opened();
    let opened = s.machine.alive_until().unwrap().1;
    let mut sent = Vec::new();
    for _ in 0..2 {
        s.wait(Duration::from_secs(3));
        let Some(batch) = s.transmit() else { panic!("no ping") };
        sent.push((batch.requests[0].xid, s.now));
        s.answer(batch.requests[0].xid, Ok(Outcome::Ping));
        assert_eq!(s.machine.alive_until().unwrap().1, opened, "an answer does not extend the time-out");
    }
    s.wait(Duration::from_millis(1500));
    let connection = s.connection();
    s.item_on(Connection(99), Item::Confirmed { xid: sent[1].0 });
    assert_eq!(s.machine.alive_until().unwrap().1, opened, "of another connection");
    s.item_on(connection, Item::Confirmed { xid: sent[0].0 });
    assert_eq!(s.machine.alive_until(), Some((ID, sent[0].1 + Duration::from_secs(9))));
    let log = s.wait(Duration::from_secs(20));
    let suspended = |(_, o): &&(Duration, Output)| *o == Output::Event(Event::Suspended);
    let at = log.iter().find(suspended).map(|(at, _)| *at);
    assert_eq!(at, Some(Duration::from_millis(9000 - 4500)), "9 s after the first ping was sent: {log:?}");
}

#[test]
fn b13_a_confirmation_that_comes_too_late_resumes_nothing() {
    let mut s = Script::opened();
    s.wait(Duration::from_secs(3));
    let xid = s.transmit().unwrap().requests[0].xid;
    s.answer(xid, Ok(Outcome::Ping));
    let connection = s.connection();
    let mut suspended = false;
    for _ in 0..10 {
        suspended |=
            s.wait(Duration::from_secs(1)).iter().any(|(_, o)| *o == Output::Event(Event::Suspended));
        while let Some(batch) = s.transmit() {
            batch.requests.iter().for_each(|r| drop(s.answer(r.xid, Ok(Outcome::Ping))));
        }
    }
    assert!(suspended && s.machine.alive_until().is_none());
    assert!(
        s.item_on(connection, Item::Confirmed { xid }).is_empty(),
        "sent 10 s ago, and the time-out is 9 s"
    );
    let outputs = s.item_on(connection, Item::Confirmed { xid: xid + 2 });
    assert!(matches!(outputs[..], [Output::Event(Event::Resumed { .. })]), "{outputs:?}");
}

#[test]
fn a_node_that_stays_without_a_leader_is_left_for_another() {
    let mut s = Script::opened();
    let connection = s.connection();
    s.item_on(connection, Item::Notice(Notice::Leader { lost: true }));
    assert!(s.wait(Duration::from_millis(1900)).is_empty(), "an election takes less");
    s.item_on(connection, Item::Notice(Notice::Leader { lost: false }));
    s.item_on(connection, Item::Notice(Notice::Leader { lost: true }));
    assert!(s.wait(Duration::from_millis(500)).is_empty(), "it had one in between");
    let log = s.wait(Duration::from_secs(2));
    let left = log
        .iter()
        .any(|(_, o)| matches!(o, Output::Connect { open: OpenSession { resume: Some(_), .. }, .. }));
    assert!(left, "{log:?}");
}

#[test]
fn an_attempt_that_hangs_is_given_up() {
    let mut s = Script::new();
    s.give(Input::Tick);
    let log = s.wait(Duration::from_secs(3));
    let [(t, Output::Disconnect { .. }), (_, Output::AttemptFailed { .. }), (_, Output::Connect { .. })] =
        &log[..]
    else {
        panic!("{log:?}")
    };
    assert_eq!(*t, Duration::from_secs(3));
}

#[test]
fn too_much_is_refused_by_count_and_by_bytes() {
    let mut s = Script::with(Config { requests_max: 2, ..Config::default() });
    s.write(1);
    assert!(s.machine.has_room());
    s.write(2);
    assert!(!s.machine.has_room());
    assert_eq!(s.write(3), [done(3, Err(Failure::Full))]);

    let bytes_max = set(0).weight() + 1;
    let mut s = Script::with(Config { bytes_max, ..Config::default() });
    s.give(Input::Tick);
    s.open();
    s.write(1);
    s.write(2);
    assert_eq!(s.write(3), [done(3, Err(Failure::Full))]);
    s.sent();
    s.answer(1, ok());
    assert_eq!(s.write(4), [], "answers make room");
}

#[test]
fn messages_are_bounded() {
    let mut s = Script::opened();
    for ticket in 0..1500 {
        s.write(ticket);
    }
    assert_eq!((s.sent().len(), s.sent().len()), (1024, 476));
    let large =
        || Op::Write(Write::Set { path: path(), data: Some(vec![0; 200 << 10].into()), version: None });
    for ticket in 2000..2003 {
        s.request(ticket, large(), None);
    }
    assert_eq!((s.sent().len(), s.sent().len(), s.sent().len()), (1, 1, 1));
}

#[test]
fn an_overloaded_node_gets_fewer_requests_at_a_time() {
    let mut s = Script::with(Config { window_max: 10, ..Config::default() });
    s.give(Input::Tick);
    s.open();
    for ticket in 0..20 {
        s.write(ticket);
    }
    assert_eq!(s.sent().len(), 10);
    assert_eq!(s.transmit(), None, "the others wait");
    s.disconnect(OpError::Overloaded("too many requests without an answer".into()));
    s.open();
    assert_eq!(s.sent(), (11..16).map(|xid| (xid, Some(xid - 10))).collect::<Vec<_>>());
    s.answer(11, ok());
    assert_eq!(s.sent(), [(16, Some(6)), (17, Some(7))], "one for the answer, and one more");
}

#[test]
fn a_node_that_takes_little_gets_no_more() {
    let mut s = Script::with(Config { window_max: 10, ..Config::default() });
    s.give(Input::Tick);
    let told = |requests, unacked_writes| {
        let limits = api::session::Limits { requests, unacked_writes, ..Default::default() };
        Item::Opened(Opened { limits, ..opened(9_000) })
    };
    s.item(told(5, 3));
    (0..20).for_each(|ticket| drop(s.write(ticket)));
    assert_eq!(s.sent().len(), 3);
    s.answer(1, ok());
    assert_eq!(s.sent(), [(4, Some(4))], "and no more when it has answered");
    s.disconnect(down());
    s.item(told(0, 0));
    assert_eq!(s.sent().len(), 3, "another one says nothing, and is asked for more as it answers");
    s.answer(5, ok());
    assert_eq!(s.sent().len(), 2);
}

#[test]
fn deadlines_tell_what_became_of_the_request() {
    let mut s = Script::opened();
    let deadline = Some(s.now + Duration::from_secs(1));
    s.request(1, set(1), deadline);
    s.read(2);
    s.sent();
    s.request(3, set(3), deadline);
    s.request(4, set(4), Some(s.now + Duration::from_secs(2)));
    let log = s.wait(Duration::from_millis(1500));
    let timed_out = |ticket, fate| (Duration::from_secs(1), done(ticket, Err(Failure::TimedOut { fate })));
    assert_eq!(log, [timed_out(1, Fate::Unknown), timed_out(3, Fate::NotDone)]);

    // The write in doubt is settled all the same: its number must not be missing in front of the next.
    s.disconnect(down());
    s.open();
    assert_eq!(s.sent(), [(3, Some(1)), (4, None), (5, Some(2))]);
    assert_eq!(s.answer(3, ok()), [], "no caller waits any more");
    assert_eq!(s.answer(4, ok()).len(), 1);
    assert_eq!(s.answer(5, ok()).len(), 1);
    assert_eq!((s.machine.queue.held(), s.machine.queue.bytes()), (0, 0));
}

#[test]
fn closing_waits_for_earlier_requests() {
    let mut s = Script::opened();
    s.write(1);
    s.give(Input::Close { ticket: Some(Ticket(2)) });
    assert_eq!(s.write(3), [done(3, Err(Failure::Closed { fate: Fate::NotDone }))]);
    let batch = s.transmit().unwrap();
    assert_eq!(batch.requests[1].op, Op::Close);
    s.answer(1, ok());
    let outputs = s.answer(2, Ok(Outcome::Close));
    assert_eq!(outputs, [done(2, Ok(Outcome::Close)), Output::Disconnect { connection: Connection(1) }]);
    assert!(s.machine.is_closed());
    assert_eq!(
        s.give(Input::Close { ticket: Some(Ticket(4)) }),
        [done(4, Ok(Outcome::Close))],
        "again is fine"
    );
}

#[test]
fn closing_survives_a_fail_over_and_is_bounded() {
    let mut s = Script::opened();
    s.give(Input::Close { ticket: Some(Ticket(1)) });
    s.sent();
    s.disconnect(down());
    // The answer got lost and the session is gone, as the caller requested.
    assert!(s.disconnect(OpError::SessionExpired(ID)).contains(&done(1, Ok(Outcome::Close))));
    assert!(s.machine.is_closed());

    let mut s = Script::opened();
    s.write(1);
    s.give(Input::Close { ticket: Some(Ticket(2)) });
    s.sent();
    let log = s.wait(Duration::from_secs(5));
    let timed_out =
        |ticket| (Duration::from_secs(5), done(ticket, Err(Failure::TimedOut { fate: Fate::Unknown })));
    assert!(log.contains(&timed_out(1)) && log.contains(&timed_out(2)), "{log:?}");
    assert!(s.machine.is_closed());

    let mut s = Script::new();
    s.give(Input::Tick);
    let outputs = s.give(Input::Close { ticket: Some(Ticket(1)) });
    assert_eq!(outputs[0], done(1, Ok(Outcome::Close)), "nothing to close yet");
    assert!(s.machine.is_closed());
}

#[test]
fn a_refusal_by_every_endpoint_is_final_and_reported() {
    let mut s = Script::new();
    s.give(Input::Tick);
    s.write(1);
    let error = OpError::BadArguments("no such service".into());
    s.disconnect(error.clone());
    s.disconnect(down());
    s.disconnect(error.clone());
    s.disconnect(error.clone());
    assert!(!s.machine.is_closed(), "one of them may still come up");
    s.wait(Duration::from_millis(50));
    let outputs = s.disconnect(error.clone());
    assert_eq!(outputs.last(), Some(&done(1, Err(Failure::Rejected { error, fate: Fate::NotDone }))));
    assert!(s.machine.is_closed());
}

#[test]
fn a_stream_that_ends_because_of_what_was_sent_is_not_repeated() {
    let mut s = Script::opened();
    s.write(1);
    s.sent();
    s.write(2);
    let error = OpError::BadArguments("message too large".into());
    let outputs = s.disconnect(error.clone());
    let rejected = |fate| Err(Failure::Rejected { error: error.clone(), fate });
    assert!(outputs.contains(&done(1, rejected(Fate::Unknown))));
    assert!(outputs.contains(&done(2, rejected(Fate::NotDone))));
    assert!(
        matches!(outputs.last(), Some(Output::Connect { open: OpenSession { resume: None, .. }, .. })),
        "{outputs:?}"
    );
}

#[test]
fn a_node_of_another_ensemble_is_passed_by_and_the_session_goes_on_elsewhere() {
    let mut s = Script::new();
    s.give(Input::Tick);
    let (own, other) = (EnsembleId(1), EnsembleId(2));
    s.item(Item::Opened(Opened { ensemble: Some(own), ..opened(9_000) }));
    let outputs = s.disconnect(down());
    let asked = |outputs: &[Output]| match outputs.last() {
        Some(Output::Connect { open: OpenSession { resume, ensemble, .. }, .. }) => {
            Some((*resume, *ensemble))
        }
        _ => None,
    };
    let resumes = Some((Some((ID, TOKEN)), Some(own)));
    assert_eq!(asked(&outputs), resumes, "{outputs:?}");
    let outputs = s.disconnect(OpError::WrongEnsemble { expected: own, actual: other });
    assert_eq!(asked(&outputs), resumes, "{outputs:?}");
    let outputs = s.item(Item::Opened(Opened { ensemble: Some(own), ..opened(9_000) }));
    assert!(matches!(outputs[..], [Output::Event(Event::Resumed { .. })]), "{outputs:?}");
}

#[test]
fn b01_a_node_that_opens_a_session_and_then_names_another_ensemble_is_passed_by() {
    for lost in [false, true] {
        let mut s = Script::new();
        s.give(Input::Tick);
        let (own, other) = (EnsembleId(1), EnsembleId(2));
        s.item(Item::Opened(Opened { ensemble: Some(own), ..opened(9_000) }));
        // The session goes on, or a new one takes its place.
        s.disconnect(if lost { OpError::SessionExpired(ID) } else { down() });
        let outputs = s.item(Item::Opened(Opened { ensemble: Some(other), ..opened(9_000) }));
        let passed = outputs.iter().any(|output| {
            matches!(output, Output::AttemptFailed { error: OpError::WrongEnsemble { expected, actual }, .. }
                if (*expected, *actual) == (own, other))
        });
        assert!(passed, "{lost} {outputs:?}");
        let resumed = |output: &Output| {
            matches!(output, Output::Event(Event::Resumed { .. } | Event::Connected { .. }))
        };
        assert!(!outputs.iter().any(resumed), "{lost} {outputs:?}");
    }
}

/// Each node takes the watches up again and then has no room for the write.
#[test]
fn pauses_grow_although_nodes_answer_the_watches_of_a_client() {
    let mut s = Script::opened();
    let spec = api::watch::WatchSpec::new(1, path(), api::watch::WatchScope::Node);
    s.give(Input::Watch { spec });
    s.write(1);
    for round in 0..10 {
        let batch = s.transmit().unwrap();
        let first = &batch.requests[0];
        assert!(matches!(first.op, Op::AddWatches(_)), "round {round}: {first:?}");
        s.answer(first.xid, Ok(Outcome::Watching(Vec::new())));
        let outputs = s.disconnect(OpError::Overloaded("too many wait".into()));
        if !outputs.iter().any(|output| matches!(output, Output::Connect { .. })) {
            // Three nodes at once, and then not before a pause.
            return assert!(round >= 2 && s.machine.next_timeout() > Some(s.now));
        }
        s.open();
    }
    panic!("a client hammers nodes without a pause");
}

#[test]
fn a_session_other_than_the_requested_one_is_refused() {
    let mut s = Script::opened();
    s.disconnect(down());
    let outputs = s.item(Item::Opened(Opened { session: SessionId(5), ..opened(9_000) }));
    assert!(
        matches!(outputs[..], [Output::Disconnect { .. }, Output::AttemptFailed { .. }, ..]),
        "{outputs:?}"
    );
}
