//! Sessions, exactly-once, digest and records of the replicated state.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use api::{
    Command, CommandBody, Create, CreateMode, Epoch, Level, MultiOp, OpError, Path, Read, ReadOutcome,
    RequestHash, SEQUENCE_END, SessionId, SessionToken, Stat, StreamId, Write, WriteNumber, WriteOutcome,
    Zxid,
    record::{self, Record},
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store_core::{Applied, Changes, KEPT_BYTES_MAX, KEPT_POOL, KEPT_RESERVE, LoadError, State};

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// A state and the next counter.
struct Log {
    state: State,
    next: u32,
}

impl Log {
    fn new() -> Log {
        Log { state: State::default(), next: 1 }
    }

    fn apply(&mut self, command: &Command) -> Applied {
        let zxid = z(self.next);
        self.next += 1;
        self.state.apply(zxid, i64::from(self.next) * 10, command)
    }

    fn open(&mut self) -> SessionId {
        let body = CommandBody::OpenSession {
            token: SessionToken([7; 16]),
            timeout_ms: 4000,
            sessions_max: u32::MAX,
        };
        let applied = self.apply(&Command::outside(body));
        assert_eq!(applied.result, Ok(WriteOutcome::SessionOpened));
        SessionId(applied.zxid.0)
    }

    fn write(&mut self, session: SessionId, number: u64, acked: u64, write: Write) -> Applied {
        self.apply(&Command {
            session: Some(session),
            stream: StreamId::FIRST,
            number: Some(WriteNumber(number)),
            acked: WriteNumber(acked),
            body: CommandBody::Write(write),
        })
    }
}

fn create(path: &str, ephemeral: bool) -> Write {
    let mode = CreateMode { ephemeral, sequential: false };
    Write::Create(Create { path: Path::new(path).unwrap(), data: Bytes::from_static(b"v"), mode })
}

fn close(session: SessionId) -> Command {
    let body = CommandBody::CloseSession { session, expired: None };
    Command { session: Some(session), stream: StreamId::FIRST, number: None, acked: WriteNumber(0), body }
}

fn exists(state: &State, path: &str) -> bool {
    let read = Read::Exists { path: Path::new(path).unwrap() };
    matches!(state.read(&read), Ok(ReadOutcome::Exists { stat: Some(_) }))
}

#[test]
fn a_write_sent_again_gives_the_first_result_and_changes_nothing() {
    let mut log = Log::new();
    let s = log.open();
    let first = log.write(s, 1, 0, create("/a", false));
    let failed = log.write(s, 2, 0, create("/a", false));
    assert_eq!(failed.result, Err(OpError::NodeExists(Path::new("/a").unwrap())));
    let digest = log.state.digest();
    assert_eq!(log.write(s, 1, 0, create("/a", false)), first, "with its original zxid");
    assert_eq!(log.write(s, 2, 0, create("/a", false)), failed, "errors are results as well");
    assert_eq!(log.state.digest(), digest);
    assert_eq!(log.state.applied(), z(5), "the repetition has used up zxids of its own");
}

#[test]
fn numbers_are_admitted_in_order_and_acknowledged_ones_are_forgotten() {
    let mut log = Log::new();
    let s = log.open();
    let out =
        |expected, got| Err(OpError::OutOfOrder { expected: WriteNumber(expected), got: WriteNumber(got) });
    assert_eq!(log.write(s, 2, 0, create("/a", false)).result, out(1, 2));
    assert!(log.write(s, 1, 0, create("/a", false)).result.is_ok());
    assert!(log.write(s, 2, 1, create("/b", false)).result.is_ok(), "forgets the result of 1");
    assert_eq!(log.write(s, 1, 0, create("/a", false)).result, Err(OpError::NumberReused(WriteNumber(1))));
    assert_eq!(
        log.write(s, 4, 99, create("/c", false)).result,
        out(3, 4),
        "an ack of what never was counts to 2"
    );
    assert!(log.write(s, 3, 0, create("/c", false)).result.is_ok());
    assert!(!exists(&log.state, "/d"));
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn a_refused_write_uses_up_its_number() {
    let mut log = Log::new();
    let s = log.open();
    let error = OpError::TooLarge { size: 9, limit: 8 };
    let command = Command {
        session: Some(s),
        stream: StreamId::FIRST,
        number: Some(WriteNumber(1)),
        acked: WriteNumber(0),
        body: CommandBody::Refuse { error: error.clone(), request: RequestHash(5) },
    };
    assert_eq!(log.apply(&command).result, Err(error.clone()));
    assert_eq!(log.apply(&command).result, Err(error));
    assert!(log.write(s, 2, 0, create("/a", false)).result.is_ok());
}

#[test]
fn b04_a_client_that_acknowledges_nothing_is_stopped_and_can_go_on_when_it_does() {
    let mut log = Log::new();
    let s = log.open();
    // The input of the row: failed deletes of the longest path there is.
    let path = Path::new(&format!("/{}", "x".repeat(Path::MAX_BYTES - 1))).unwrap();
    let delete = || Write::Delete { path: path.clone(), version: None };
    let mut n = 1;
    let refused = loop {
        match log.write(s, n, 0, delete()).result {
            Err(OpError::NoNode(missing)) => assert_eq!(missing, path),
            other => break other,
        }
        n += 1;
    };
    let Err(OpError::Overloaded(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("acked_write"), "{why}");
    assert!(n > 60_000, "a failed write with a long path costs as little as any other: {n}");
    let encoded = |r: Record| proto::store::encode_record(r).len();
    let kept: Vec<usize> = log.state.records().map(encoded).collect();
    assert!(kept.iter().sum::<usize>() < KEPT_BYTES_MAX, "what is counted is no less than what is encoded");
    assert!(kept.iter().all(|&size| size < 100), "each by itself is small");
    // The number that was refused is still due, and those behind it are not.
    let order = OpError::OutOfOrder { expected: WriteNumber(n), got: WriteNumber(n + 1) };
    assert_eq!(log.write(s, n + 1, 0, delete()).result, Err(order));
    assert!(log.write(s, n, n - 1, create("/a", false)).result.is_ok());
    assert!(log.write(s, n + 1, n - 1, create("/b", false)).result.is_ok());
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn b04_clients_that_acknowledge_nothing_stop_no_other_and_all_together_are_bounded() {
    let mut log = Log::new();
    let set = || MultiOp::Set { path: Path::root(), data: Bytes::new(), version: None };
    let multi = |parts: usize| Write::Multi((0..parts).map(|_| set()).collect());
    let victim = log.open();
    for _ in 0..KEPT_POOL / KEPT_BYTES_MAX + 2 {
        let s = log.open();
        // Less and less, so that the last room is taken as well.
        let mut n = 1;
        for parts in [10_000, 1_000, 100, 10] {
            while log.write(s, n, 0, multi(parts)).result.is_ok() {
                n += 1;
            }
        }
    }
    let kept: usize = log
        .state
        .records()
        .filter_map(|r| match r {
            Record::Result(r) => Some(64 + r.outcome.len()),
            _ => None,
        })
        .sum();
    assert!(kept > KEPT_POOL * 9 / 10, "the pool is nearly used up: {kept}");
    assert!(kept <= KEPT_POOL + 20 * KEPT_RESERVE, "{kept}");
    // Whoever acknowledges goes on, with what fits into the reserve.
    for n in 1..100 {
        log.write(victim, n, n - 1, create(&format!("/v{n}"), false)).result.unwrap();
    }
    assert!(matches!(log.write(victim, 100, 99, multi(1000)).result, Err(OpError::Overloaded(_))));
    let loaded = State::load(log.state.records()).unwrap();
    assert_eq!(loaded.records().collect::<Vec<_>>(), log.state.records().collect::<Vec<_>>());
}

#[test]
fn b18_what_the_next_checkpoint_writes_is_counted_by_what_it_is() {
    const MIB: usize = 1 << 20;
    let mut log = Log::new();
    let session = log.open();
    let mut number = 0;
    let mut write = |log: &mut Log, write: Write| {
        number += 1;
        assert!(log.write(session, number, number - 1, write).result.is_ok());
    };
    let large = |path: &str| {
        let data = Bytes::from(vec![7; MIB]);
        Write::Create(Create { path: Path::new(path).unwrap(), data, mode: CreateMode::default() })
    };
    let delete = |path: &str| Write::Delete { path: Path::new(path).unwrap(), version: None };
    for n in 0..8 {
        write(&mut log, large(&format!("/{n}")));
    }
    let bytes = log.state.record_bytes();
    assert!((8 * MIB..9 * MIB).contains(&bytes) && log.state.dirty_bytes() <= bytes + 1024);
    log.state.take_dirty();
    // Deletes, one path that comes and goes, and results that were acknowledged long ago.
    write(&mut log, delete("/0"));
    for _ in 0..100 {
        write(&mut log, create("/small", false));
        write(&mut log, delete("/small"));
    }
    let changes = ["/", "/0", "the session", "its last result before", "its last result"].len();
    assert_eq!(log.state.dirty_len(), 100 + changes);
    assert!(log.state.dirty_bytes() < MIB / 16, "{}", log.state.dirty_bytes());
    for _ in 0..3 {
        write(&mut log, large("/again"));
        write(&mut log, delete("/again"));
    }
    write(&mut log, large("/again"));
    assert!((MIB..2 * MIB).contains(&log.state.dirty_bytes()), "{}", log.state.dirty_bytes());
    log.state.forget_checkpoint();
    assert_eq!(log.state.dirty_bytes(), log.state.record_bytes());
}

#[test]
fn b14_behind_the_move_of_a_session_nothing_of_an_older_stream_is_applied() {
    let mut log = Log::new();
    let s = log.open();
    let on = |stream, number, body| Command {
        session: Some(s),
        stream,
        number: Some(WriteNumber(number)),
        acked: WriteNumber(0),
        body,
    };
    let write = |path: &str| CommandBody::Write(create(path, true));
    let (first, second, third) = (StreamId::FIRST, StreamId(70), StreamId(3));
    assert!(log.apply(&on(first, 1, write("/1"))).result.is_ok());
    let resume = |stream| Command::outside(CommandBody::ResumeSession { session: s, stream });
    assert_eq!(log.apply(&resume(second)).result, Ok(WriteOutcome::SessionResumed));
    let digest = log.state.digest();
    let moved = Err(OpError::SessionMoved(s));
    // Neither the next write, nor an old one once more, nor an acknowledgement, nor the end of the session.
    assert_eq!(log.apply(&on(first, 2, write("/late"))).result, moved);
    assert_eq!(log.apply(&on(first, 1, write("/1"))).result, moved);
    assert_eq!(log.apply(&Command { acked: WriteNumber(1), ..on(first, 2, write("/late")) }).result, moved);
    assert_eq!(log.apply(&close(s)).result, moved);
    assert_eq!(log.state.digest(), digest);
    assert!(log.apply(&on(second, 1, write("/1"))).result.is_ok(), "the result of the first time");
    assert!(log.apply(&on(second, 2, write("/2"))).result.is_ok());
    // Streams have no order but that of the log.
    log.apply(&resume(third)).result.unwrap();
    assert_eq!(log.apply(&on(second, 3, write("/late"))).result, moved);
    assert!(log.apply(&on(third, 3, write("/3"))).result.is_ok());
    let loaded = State::load(log.state.records()).unwrap();
    assert_eq!(loaded.session(s).unwrap().stream, third);
    // The leader closes it whatever its stream.
    let expire = CommandBody::CloseSession { session: s, expired: Some(Epoch(1)) };
    assert!(log.apply(&Command::outside(expire)).result.is_ok());
    assert_eq!(log.apply(&resume(second)).result, Err(OpError::SessionExpired(s)));
}

#[test]
fn b14_a_number_is_bound_to_its_request() {
    let mut log = Log::new();
    let s = log.open();
    let sequential = |path: &str| {
        let mode = CreateMode { ephemeral: false, sequential: true };
        Create { path: Path::prefix(path).unwrap(), data: Bytes::from_static(b"v"), mode }
    };
    let one = Write::Create(sequential("/one-"));
    let first = log.write(s, 1, 0, one.clone());
    let digest = log.state.digest();
    let other_data = Write::Create(Create { data: Bytes::from_static(b"w"), ..sequential("/one-") });
    let other_kind = Write::Create(Create { mode: CreateMode::default(), ..sequential("/one-") });
    let parts = Write::Multi(vec![MultiOp::Create(sequential("/one-"))]);
    for other in [Write::Create(sequential("/two-")), other_data, other_kind, parts] {
        assert_eq!(log.write(s, 1, 0, other).result, Err(OpError::NumberReused(WriteNumber(1))));
    }
    assert_eq!(log.state.digest(), digest);
    assert_eq!(log.write(s, 1, 0, one), first);
    // A node whose limit is lower has refused it meanwhile, and does not know what came of it.
    let refused = |error, request| Command {
        session: Some(s),
        stream: StreamId::FIRST,
        number: Some(WriteNumber(1)),
        acked: WriteNumber(0),
        body: CommandBody::Refuse { error, request },
    };
    let request = log.state.records().find_map(|r| match r {
        Record::Result(kept) => Some(kept.request),
        _ => None,
    });
    let too_large = OpError::TooLarge { size: 1, limit: 0 };
    let result = log.apply(&refused(too_large.clone(), request.unwrap())).result;
    assert!(matches!(result, Err(OpError::Unknown(_))), "{result:?}");
    let result = log.apply(&refused(too_large, RequestHash(1))).result;
    assert_eq!(result, Err(OpError::NumberReused(WriteNumber(1))));
}

#[test]
fn b11_a_session_too_many_is_refused() {
    let mut log = Log::new();
    let open = |sessions_max| {
        let token = SessionToken([7; 16]);
        Command::outside(CommandBody::OpenSession { token, timeout_ms: 4000, sessions_max })
    };
    let first = log.apply(&open(2)).zxid;
    assert!(log.apply(&open(2)).result.is_ok());
    let Err(OpError::Overloaded(why)) = log.apply(&open(2)).result else { panic!("not refused") };
    assert!(why.contains("its limit is 2") && why.contains("limits.sessions"), "{why}");
    assert!(log.apply(&close(SessionId(first.0))).result.is_ok());
    assert!(log.apply(&open(2)).result.is_ok());
    assert_eq!(log.state.sessions().count(), 2);
}

/// The state with other records in it.
fn changed(state: &State, change: impl Fn(&mut Record)) -> State {
    let load = |digest: u64| {
        let records = state.records().map(|mut record| {
            change(&mut record);
            if let Record::Header(header) = &mut record {
                header.digest = digest;
            }
            record
        });
        State::load(records)
    };
    match load(0) {
        Err(LoadError::Mismatch { what: "the digest", actual, .. }) => load(actual).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn b17_versions_begin_again_with_zero_and_sequence_numbers_end() {
    let mut log = Log::new();
    let path = |p: &str| Path::new(p).unwrap();
    let make = |p: &str, sequential| {
        let mode = CreateMode { ephemeral: false, sequential };
        Create { path: Path::prefix(p).unwrap(), data: Bytes::new(), mode }
    };
    let fail = MultiOp::Check { path: path("/none"), version: None };
    let outside = |write| Command::outside(CommandBody::Write(write));
    log.apply(&outside(Write::Create(make("/p", false)))).result.unwrap();
    log.apply(&outside(Write::Create(make("/p/c", false)))).result.unwrap();
    log.state = changed(&log.state, |record| {
        if let Record::Znode(z) = record {
            (z.version, z.cversion, z.aversion) = (i32::MAX, i32::MAX, i32::MAX);
            z.creates = SEQUENCE_END - 2;
        }
    });
    fn stat(log: &Log, p: &str) -> Stat {
        match log.state.read(&Read::Exists { path: Path::new(p).unwrap() }) {
            Ok(ReadOutcome::Exists { stat: Some(stat) }) => stat,
            other => panic!("{other:?}"),
        }
    }
    let set = |version| outside(Write::Set { path: path("/p"), data: Bytes::new(), version });
    log.apply(&set(Some(i32::MAX))).result.unwrap();
    assert_eq!(stat(&log, "/p").version, 0);
    log.apply(&set(Some(0))).result.unwrap();
    let sequential = |log: &mut Log| match log.apply(&outside(Write::Create(make("/p/s-", true)))).result {
        Ok(WriteOutcome::Created { path, .. }) => Ok(path.to_string()),
        other => Err(other.unwrap_err()),
    };
    assert_eq!(sequential(&mut log).unwrap(), "/p/s-9999999998");
    assert_eq!(stat(&log, "/p").cversion, 0);
    let set_child = MultiOp::Set { path: path("/p/c"), data: Bytes::new(), version: None };
    let failed = Write::Multi(vec![MultiOp::Create(make("/p/s-", true)), set_child, fail.clone()]);
    assert!(log.apply(&outside(failed)).result.is_err());
    assert_eq!(
        (stat(&log, "/p").cversion, stat(&log, "/p/c").version),
        (0, i32::MAX),
        "nothing is left of it"
    );
    assert_eq!(sequential(&mut log).unwrap(), "/p/s-9999999999");
    for _ in 0..2 {
        let used_up = sequential(&mut log).unwrap_err();
        assert_eq!(used_up, OpError::NoSequenceNumber { path: path("/p/s-"), next: SEQUENCE_END });
        assert!(used_up.to_string().contains("under another one"), "{used_up}");
        // Others are created, and taken back, as before, and the counter stays at its end.
        log.apply(&outside(Write::Create(make("/p/plain", false)))).result.unwrap();
        log.apply(&outside(Write::Delete { path: path("/p/plain"), version: None })).result.unwrap();
        let failed = Write::Multi(vec![MultiOp::Create(make("/p/plain", false)), fail.clone()]);
        assert!(log.apply(&outside(failed)).result.is_err());
    }
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn closing_a_session_takes_its_ephemerals_and_nothing_else() {
    let mut log = Log::new();
    let (a, b) = (log.open(), log.open());
    log.write(a, 1, 0, create("/p", false)).result.unwrap();
    log.write(a, 2, 0, create("/p/x", true)).result.unwrap();
    log.write(a, 3, 0, create("/e", true)).result.unwrap();
    log.write(b, 1, 0, create("/other", true)).result.unwrap();
    let names: Vec<String> = log.state.tree().ephemerals(a).map(Path::to_string).collect();
    assert_eq!(names, ["/e", "/p/x"]);
    let applied = log.apply(&close(a));
    assert_eq!(applied.result, Ok(WriteOutcome::SessionClosed { ephemerals: 2 }));
    assert!(!exists(&log.state, "/e") && !exists(&log.state, "/p/x"));
    assert!(exists(&log.state, "/p") && exists(&log.state, "/other"));
    let Ok(ReadOutcome::Exists { stat: Some(p) }) =
        log.state.read(&Read::Exists { path: Path::new("/p").unwrap() })
    else {
        panic!("/p is gone")
    };
    assert_eq!((p.pzxid, p.cversion), (applied.zxid, 2));
    // The session is gone for good: no write, no second close, and its number is not used again.
    assert_eq!(log.write(a, 4, 0, create("/late", true)).result, Err(OpError::SessionExpired(a)));
    assert_eq!(log.apply(&close(a)).result, Err(OpError::SessionExpired(a)));
    assert!(log.open() > b);
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn equal_states_have_equal_digests_whatever_the_path() {
    // The same znodes and sessions, created in the same entries, but with a failed multi and a repetition on one side.
    let mut one = Log::new();
    let s = one.open();
    one.write(s, 1, 0, create("/a", false)).result.unwrap();
    let mut two = Log::new();
    two.open();
    two.write(s, 1, 0, create("/a", false)).result.unwrap();
    let multi = Write::Multi(vec![
        MultiOp::Delete { path: Path::new("/a").unwrap(), version: None },
        MultiOp::Check { path: Path::new("/none").unwrap(), version: None },
    ]);
    let unnumbered = Command {
        session: Some(s),
        stream: StreamId::FIRST,
        number: None,
        acked: WriteNumber(0),
        body: CommandBody::Write(multi),
    };
    assert!(matches!(two.apply(&unnumbered).result, Err(OpError::Multi { index: 1, .. })));
    two.write(s, 1, 0, create("/a", false)).result.unwrap();
    assert_eq!(one.state.digest(), two.state.digest());
    assert_ne!(one.state.digest(), State::default().digest());
}

#[test]
fn damaged_records_are_refused() {
    let mut log = Log::new();
    let s = log.open();
    log.write(s, 1, 0, create("/a", false)).result.unwrap();
    log.write(s, 2, 0, create("/a/e", true)).result.unwrap();
    let records: Vec<Record> = log.state.records().collect();
    assert!(State::load(records.clone()).is_ok());
    for (i, record) in records.iter().enumerate() {
        let mut missing = records.clone();
        missing.remove(i);
        assert!(State::load(missing).is_err(), "without {record:?}");
        let mut twice = records.clone();
        twice.push(record.clone());
        assert!(matches!(State::load(twice), Err(LoadError::Twice(_))), "twice {record:?}");
    }
    let mut changed = records;
    for record in &mut changed {
        if let Record::Znode(z) = record
            && z.path.as_str() == "/a"
        {
            z.data = Bytes::from_static(b"w");
        }
    }
    assert!(matches!(State::load(changed), Err(LoadError::Mismatch { what: "the digest", .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Close(usize),
    Write { session: usize, number: i64, acked: u64, write: Write },
}

fn step() -> impl Strategy<Value = Step> {
    let path = || {
        prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..3)
            .prop_map(|names| Path::new(&format!("/{}", names.join("/"))).unwrap())
    };
    let data = || prop::collection::vec(any::<u8>(), 0..3).prop_map(Bytes::from);
    let create = move || {
        (path(), data(), any::<bool>(), any::<bool>()).prop_map(|(path, data, ephemeral, sequential)| {
            Create { path, data, mode: CreateMode { ephemeral, sequential } }
        })
    };
    let part = move || {
        prop_oneof![
            create().prop_map(MultiOp::Create),
            (path(), data()).prop_map(|(path, data)| MultiOp::Set { path, data, version: None }),
            path().prop_map(|path| MultiOp::Delete { path, version: None }),
        ]
    };
    let write = prop_oneof![
        create().prop_map(Write::Create),
        (path(), data()).prop_map(|(path, data)| Write::Set { path, data, version: None }),
        path().prop_map(|path| Write::Delete { path, version: None }),
        prop::collection::vec(part(), 0..4).prop_map(Write::Multi),
    ];
    prop_oneof![
        1 => Just(Step::Open),
        1 => (0..4usize).prop_map(Step::Close),
        // Mostly the next number, sometimes one sent again or too early.
        10 => (0..4usize, -2..3i64, 0..9u64, write)
            .prop_map(|(session, number, acked, write)| Step::Write { session, number, acked, write }),
    ]
}

fn commands(steps: &[Step]) -> Vec<Command> {
    let (mut sessions, mut commands) = (Vec::<(u64, i64)>::new(), Vec::new());
    for step in steps {
        commands.push(match step {
            Step::Open => {
                let token = SessionToken([sessions.len() as u8; 16]);
                sessions.push((z(commands.len() as u32 + 1).0, 0));
                let body = CommandBody::OpenSession { token, timeout_ms: 1000, sessions_max: u32::MAX };
                Command::outside(body)
            }
            Step::Close(i) => match sessions.get(*i) {
                Some((id, _)) => close(SessionId(*id)),
                None => close(SessionId(99)),
            },
            Step::Write { session, number, acked, write } => {
                let body = CommandBody::Write(write.clone());
                match sessions.get_mut(*session) {
                    Some((id, last)) => {
                        let number = (*last + 1 + number.min(&1)).max(0);
                        *last = (*last).max(number);
                        let number = Some(WriteNumber(number as u64));
                        Command {
                            session: Some(SessionId(*id)),
                            stream: StreamId::FIRST,
                            number,
                            acked: WriteNumber(*acked),
                            body,
                        }
                    }
                    None => Command::outside(body),
                }
            }
        });
    }
    commands
}

/// What a checkpoint holds: changes, laid over each other.
#[derive(Default)]
struct Checkpoint {
    header: record::Header,
    records: BTreeMap<String, Record>,
}

impl Checkpoint {
    fn write(&mut self, changes: Changes) {
        self.header = changes.header;
        if changes.whole {
            self.records.clear();
        }
        let mut put = |key: String, record: Option<Record>| match record {
            Some(record) => drop(self.records.insert(key, record)),
            None => drop(self.records.remove(&key)),
        };
        changes.znodes.into_iter().for_each(|(path, znode)| put(path.to_string(), znode.map(Record::Znode)));
        changes.sessions.into_iter().for_each(|(id, s)| put(id.to_string(), s.map(Record::Session)));
        for ((id, n), kept) in changes.results {
            put(format!("{id} {}", n.0), kept.map(Record::Result));
        }
    }

    fn records(&self) -> Vec<Record> {
        std::iter::once(Record::Header(self.header)).chain(self.records.values().cloned()).collect()
    }
}

/// Bytes of all records but the header.
fn encoded(changes: &Changes) -> usize {
    let Changes { znodes, sessions, results, .. } = changes.clone();
    let znodes = znodes.into_iter().filter_map(|(_, z)| z.map(Record::Znode));
    let sessions = sessions.into_iter().filter_map(|(_, s)| s.map(Record::Session));
    let results = results.into_iter().filter_map(|(_, r)| r.map(Record::Result));
    znodes.chain(sessions).chain(results).map(|record| proto::store::encode_record(record).len()).sum()
}

proptest! {
    #[test]
    fn replay_digest_records_and_changes_agree(steps in prop::collection::vec(step(), 1..80), cut in 0..80usize) {
        let commands = commands(&steps);
        let (mut one, mut two) = (Log::new(), Log::new());
        // What a checkpoint would hold: changes taken now and then, laid over each other.
        let mut checkpoint = Checkpoint::default();
        for (n, command) in commands.iter().enumerate() {
            prop_assert_eq!(one.apply(command), two.apply(command), "the same entry does the same everywhere");
            prop_assert_eq!(one.state.digest(), one.state.recompute_digest());
            if n == commands.len() - 1 || n == cut || n % 7 == 3 {
                if n % 3 == 1 {
                    one.state.forget_checkpoint();
                }
                let (len, counted) = (one.state.dirty_len(), one.state.dirty_bytes());
                let changes = one.state.take_dirty();
                prop_assert!(changes.znodes.len() + changes.sessions.len() + changes.results.len() <= len);
                let bytes = encoded(&changes);
                prop_assert!(bytes <= counted, "{bytes} bytes, counted as {counted}");
                checkpoint.write(changes);
            }
            if n == cut {
                // A node that goes on from a snapshot instead of the log.
                two.state = State::load(two.state.records()).unwrap();
            }
        }
        prop_assert_eq!(one.state.digest(), two.state.digest());
        let records: Vec<Record> = one.state.records().collect();
        let loaded = State::load(records.iter().rev().cloned()).unwrap();
        prop_assert_eq!(loaded.records().collect::<Vec<_>>(), records.clone());
        let recovered = State::load(checkpoint.records()).unwrap();
        prop_assert_eq!(recovered.records().collect::<Vec<_>>(), records);
    }
}

#[test]
fn the_feature_level_is_a_part_of_the_state() {
    let z = |epoch, counter| Zxid::new(Epoch(epoch), counter);
    let mut state = State::default();
    let before = state.digest();
    state.apply_level(z(1, 0), 1, Level::FIRST);
    assert_eq!((state.level(), state.digest()), (Level::FIRST, before), "the first level adds nothing");
    state.apply_level(z(1, 1), 2, Level(2));
    let raised = state.digest();
    assert_ne!(raised, before);
    assert_eq!(state.recompute_digest(), raised);
    let loaded = State::load(state.records()).unwrap();
    assert_eq!((loaded.level(), loaded.digest(), loaded.applied()), (Level(2), raised, z(1, 1)));
    // A replica that lacks the entry differs.
    let mut other = State::default();
    other.apply_level(z(1, 0), 1, Level::FIRST);
    other.apply_marker(z(1, 1), 2);
    assert_ne!(other.digest(), raised);
    // The level of another header does not fit the digest.
    let records = state.records().map(|record| match record {
        Record::Header(header) => Record::Header(record::Header { level: Level(3), ..header }),
        other => other,
    });
    assert!(State::load(records).is_err());
}
