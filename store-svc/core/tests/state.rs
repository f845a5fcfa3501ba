//! Sessions, exactly-once, digest and records of the replicated state.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use api::{
    Command, CommandBody, Create, CreateMode, Epoch, MultiOp, OpError, Path, Read, ReadOutcome, SessionId,
    SessionToken, Write, WriteNumber, WriteOutcome, Zxid, record::Record,
};
use bytes::Bytes;
use proptest::prelude::*;
use store_core::{Applied, KEPT_RESULTS_MAX, LoadError, State};

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
        let body = CommandBody::OpenSession { token: SessionToken([7; 16]), timeout_ms: 4000 };
        let applied = self.apply(&Command { session: None, number: None, acked: WriteNumber(0), body });
        assert_eq!(applied.result, Ok(WriteOutcome::SessionOpened));
        SessionId(applied.zxid.0)
    }

    fn write(&mut self, session: SessionId, number: u64, acked: u64, write: Write) -> Applied {
        self.apply(&Command {
            session: Some(session),
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
    let body = CommandBody::CloseSession { session, expired: false };
    Command { session: Some(session), number: None, acked: WriteNumber(0), body }
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
    let again = log.write(s, 1, 0, create("/a", false)).result;
    assert!(
        matches!(&again, Err(OpError::BadArguments(m)) if m.contains("already acknowledged")),
        "{again:?}"
    );
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
        number: Some(WriteNumber(1)),
        acked: WriteNumber(0),
        body: CommandBody::Refuse(error.clone()),
    };
    assert_eq!(log.apply(&command).result, Err(error));
    assert!(log.write(s, 2, 0, create("/a", false)).result.is_ok());
}

#[test]
fn a_client_that_acknowledges_nothing_is_stopped_and_can_go_on_when_it_does() {
    let mut log = Log::new();
    let s = log.open();
    let set = || Write::Set { path: Path::root(), data: Bytes::new(), version: None };
    for n in 1..=KEPT_RESULTS_MAX as u64 {
        assert!(log.write(s, n, 0, set()).result.is_ok());
    }
    let n = KEPT_RESULTS_MAX as u64 + 1;
    assert!(matches!(log.write(s, n, 0, set()).result, Err(OpError::Overloaded(_))));
    assert!(log.write(s, n, n - 1, set()).result.is_ok());
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
    let unnumbered =
        Command { session: Some(s), number: None, acked: WriteNumber(0), body: CommandBody::Write(multi) };
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
        let none = WriteNumber(0);
        commands.push(match step {
            Step::Open => {
                let token = SessionToken([sessions.len() as u8; 16]);
                sessions.push((z(commands.len() as u32 + 1).0, 0));
                let body = CommandBody::OpenSession { token, timeout_ms: 1000 };
                Command { session: None, number: None, acked: none, body }
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
                        Command { session: Some(SessionId(*id)), number, acked: WriteNumber(*acked), body }
                    }
                    None => Command { session: None, number: None, acked: none, body },
                }
            }
        });
    }
    commands
}

proptest! {
    #[test]
    fn replay_digest_records_and_changes_agree(steps in prop::collection::vec(step(), 1..80), cut in 0..80usize) {
        let commands = commands(&steps);
        let (mut one, mut two) = (Log::new(), Log::new());
        // What a checkpoint would hold: changes taken now and then, laid over each other.
        let (mut znodes, mut sessions) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        let mut header = one.state.header();
        for (n, command) in commands.iter().enumerate() {
            prop_assert_eq!(one.apply(command), two.apply(command), "the same entry does the same everywhere");
            prop_assert_eq!(one.state.digest(), one.state.recompute_digest());
            if n == commands.len() - 1 || n == cut || n % 7 == 3 {
                let changes = one.state.take_dirty();
                header = changes.header;
                for (path, znode) in changes.znodes {
                    match znode { Some(znode) => znodes.insert(path, znode), None => znodes.remove(&path) };
                }
                for (id, session) in changes.sessions {
                    match session { Some(session) => sessions.insert(id, session), None => sessions.remove(&id) };
                }
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
        let checkpoint: Vec<Record> = std::iter::once(Record::Header(header))
            .chain(znodes.into_values().map(Record::Znode))
            .chain(sessions.into_values().map(Record::Session))
            .collect();
        let recovered = State::load(checkpoint).unwrap();
        prop_assert_eq!(recovered.records().collect::<Vec<_>>(), records);
    }
}
