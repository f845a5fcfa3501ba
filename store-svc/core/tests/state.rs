//! Sessions, exactly-once, digest and records of the replicated state.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use api::{
    Acl, AclEntry, AclId, Command, CommandBody, Create, DeleteTree, Epoch, Expected, Identities, Identity,
    Level, MultiOp, NodeKind, OpError, Page, Path, Permissions, Quota, QuotaAt, Read, ReadOutcome,
    RequestHash, SEQUENCE_END, Scheme, SessionId, SessionToken, Stat, StreamId, TokenHash, Usage, Write,
    WriteNumber, WriteOutcome, Zxid,
    quota::{Bounds, Counted},
    record::{self, Record},
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store_core::{
    Applied, Changes, KEPT_BYTES_MAX, KEPT_POOL, KEPT_RESERVE, LoadError, State, UNACKED_WRITES, hash_of,
};

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// A state and the counter of the next entry.
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
        let token_hash = hash_of(&SessionToken([7; 16]));
        let body = CommandBody::OpenSession { token_hash, timeout_ms: 4000, sessions_max: u32::MAX };
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
            identities: someone(&["ada", "bob", "gone"]),
            ..Command::outside(CommandBody::Write(write))
        })
    }
}

fn create(path: &str, ephemeral: bool) -> Write {
    let kind = if ephemeral { NodeKind::Ephemeral } else { NodeKind::Persistent };
    Write::Create(Create { kind, ..Create::new(Path::new(path).unwrap(), "v") })
}

fn user(name: &str) -> Identity {
    Identity::new(Scheme::User, name).unwrap()
}

fn someone(names: &[&str]) -> Identities {
    Identities::new(names.iter().map(|name| user(name))).unwrap()
}

/// A list that grants all permissions to this user.
fn list(name: &str) -> Acl {
    Acl::new(vec![AclEntry { identity: user(name), permissions: Permissions::ALL }]).unwrap()
}

fn close(session: SessionId) -> Command {
    let body = CommandBody::CloseSession { session, expired: None };
    Command { session: Some(session), ..Command::outside(body) }
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
fn the_ephemerals_of_a_session_have_a_bound_since_its_end_is_one_entry() {
    let mut log = Log::new();
    let (s, other) = (log.open(), log.open());
    let all = Create::EPHEMERALS_MAX;
    let ephemeral = |n: usize| match create(&format!("/e{n:06}"), true) {
        Write::Create(create) => MultiOp::Create(create),
        other => panic!("{other:?}"),
    };
    for (number, first) in (1..).zip((0..all).step_by(10_000)) {
        let parts = (first..all.min(first + 10_000)).map(ephemeral).collect();
        assert!(log.write(s, number, number - 1, Write::Multi(parts)).result.is_ok());
    }
    let (number, limit) = (all.div_ceil(10_000) as u64 + 1, all as u64);
    let one_more = log.write(s, number, number - 1, create("/more", true));
    let Err(error @ OpError::LimitExceeded { .. }) = &one_more.result else { panic!("{one_more:?}") };
    assert_eq!(
        error.to_string(),
        format!(
            "there are {} ephemerals of the session, and the limit is {limit}; delete some, or create the others in another session",
            limit + 1
        )
    );
    assert_eq!(log.write(s, number, number - 1, create("/more", true)), one_more, "the result is kept");
    let swap = vec![
        MultiOp::Delete { path: Path::new("/e000000").unwrap(), version: None },
        ephemeral(all),
        ephemeral(all + 1),
    ];
    let refused = log.write(s, number + 1, number, Write::Multi(swap.clone())).result;
    assert_eq!(refused, Err(OpError::Multi { index: 2, cause: Box::new(error.clone()) }));
    assert_eq!(log.write(s, number + 2, number + 1, Write::Multi(swap[..2].to_vec())).result.err(), None);
    assert_eq!(log.write(s, number + 3, number + 2, create("/kept", false)).result.err(), None);
    assert_eq!(log.write(other, 1, 0, create("/more", true)).result.err(), None);
    let ended = log.apply(&close(s)).result;
    assert_eq!(ended, Ok(WriteOutcome::SessionClosed { ephemerals: all as u32 }));
    assert_eq!(log.state.digest(), log.state.recompute_digest());
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
    assert_eq!(log.write(s, 1, 0, create("/a", false)).result, Err(OpError::ResultForgotten(WriteNumber(1))));
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
        ..Command::outside(CommandBody::Refuse { error: error.clone(), request: RequestHash(5) })
    };
    assert_eq!(log.apply(&command).result, Err(error.clone()));
    assert_eq!(log.apply(&command).result, Err(error));
    assert!(log.write(s, 2, 0, create("/a", false)).result.is_ok());
}

#[test]
fn b04_a_client_that_acknowledges_nothing_is_stopped_and_can_go_on_when_it_does() {
    let mut log = Log::new();
    let s = log.open();
    // The input of the row: failed deletes of the longest possible path.
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
    // The refused number is still the next one, and later numbers are not.
    let order = OpError::OutOfOrder { expected: WriteNumber(n), got: WriteNumber(n + 1) };
    assert_eq!(log.write(s, n + 1, 0, delete()).result, Err(order));
    assert!(log.write(s, n, n - 1, create("/a", false)).result.is_ok());
    assert!(log.write(s, n + 1, n - 1, create("/b", false)).result.is_ok());
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn b04_clients_that_acknowledge_nothing_stop_no_other_and_all_together_are_bounded() {
    let mut log = Log::new();
    let set = || MultiOp::Set { path: Path::root(), data: Some(Bytes::new()), version: None };
    let multi = |parts: usize| Write::Multi((0..parts).map(|_| set()).collect());
    let victim = log.open();
    for _ in 0..KEPT_POOL / KEPT_BYTES_MAX + 2 {
        let s = log.open();
        // Smaller and smaller multis, so that the last space is used as well.
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
    // Clients that acknowledge results continue with results that fit into the reserve.
    for n in 1..100 {
        log.write(victim, n, n - 1, create(&format!("/v{n}"), false)).result.unwrap();
    }
    assert!(matches!(log.write(victim, 100, 99, multi(1000)).result, Err(OpError::Overloaded(_))));
    let loaded = State::load(log.state.records()).unwrap();
    assert_eq!(loaded.records().collect::<Vec<_>>(), log.state.records().collect::<Vec<_>>());
}

#[test]
fn b04_a_session_may_leave_as_many_results_as_clients_are_told() {
    let mut log = Log::new();
    let s = log.open();
    let set = || Write::Set { path: Path::root(), data: Some(Bytes::new()), version: None };
    let all = UNACKED_WRITES as u64;
    assert!((1..=all).all(|number| log.write(s, number, 0, set()).result.is_ok()));
    // The bound is one of bytes, and small results need less than the most.
    let mut number = all + 1;
    while log.write(s, number, 0, set()).result.is_ok() {
        number += 1;
    }
    assert!(matches!(log.write(s, number, 0, set()).result, Err(OpError::Overloaded(_))));
    assert!(number < 3 * all, "{number}");
    assert!(log.write(s, number, number - 1, set()).result.is_ok(), "it goes on once it acknowledges");
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
        Write::Create(Create::new(Path::new(path).unwrap(), data))
    };
    let delete = |path: &str| Write::Delete { path: Path::new(path).unwrap(), version: None };
    for n in 0..8 {
        write(&mut log, large(&format!("/{n}")));
    }
    let bytes = log.state.record_bytes();
    assert!((8 * MIB..9 * MIB).contains(&bytes) && log.state.dirty_bytes() <= bytes + 1024);
    log.state.take_dirty();
    // Deletes, a path that is created and deleted again, and results that were acknowledged long
    // before.
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
        ..Command::outside(body)
    };
    let write = |path: &str| CommandBody::Write(create(path, true));
    let (first, second, third) = (StreamId::FIRST, StreamId(70), StreamId(3));
    assert!(log.apply(&on(first, 1, write("/1"))).result.is_ok());
    let resume = |stream| Command::outside(CommandBody::ResumeSession { session: s, stream });
    assert_eq!(log.apply(&resume(second)).result, Ok(WriteOutcome::SessionResumed));
    let digest = log.state.digest();
    let moved = Err(OpError::SessionMoved(s));
    // This holds for the next write, a repeated one, an acknowledgement, and the end of the session.
    assert_eq!(log.apply(&on(first, 2, write("/late"))).result, moved);
    assert_eq!(log.apply(&on(first, 1, write("/1"))).result, moved);
    assert_eq!(log.apply(&Command { acked: WriteNumber(1), ..on(first, 2, write("/late")) }).result, moved);
    assert_eq!(log.apply(&close(s)).result, moved);
    assert_eq!(log.state.digest(), digest);
    assert!(log.apply(&on(second, 1, write("/1"))).result.is_ok(), "the result of the first time");
    assert!(log.apply(&on(second, 2, write("/2"))).result.is_ok());
    // Only the log orders streams.
    log.apply(&resume(third)).result.unwrap();
    assert_eq!(log.apply(&on(second, 3, write("/late"))).result, moved);
    assert!(log.apply(&on(third, 3, write("/3"))).result.is_ok());
    let loaded = State::load(log.state.records()).unwrap();
    assert_eq!(loaded.session(s).unwrap().stream, third);
    // The leader closes the session independent of its stream.
    let expire = CommandBody::CloseSession { session: s, expired: Some(Epoch(1)) };
    assert!(log.apply(&Command::outside(expire)).result.is_ok());
    assert_eq!(log.apply(&resume(second)).result, Err(OpError::SessionExpired(s)));
}

#[test]
fn b14_a_number_is_bound_to_its_request() {
    let mut log = Log::new();
    let s = log.open();
    let sequential =
        |path: &str| Create { sequential: true, ..Create::new(Path::prefix(path).unwrap(), "v") };
    let one = Write::Create(sequential("/one-"));
    let first = log.write(s, 1, 0, one.clone());
    let digest = log.state.digest();
    let other_data = Write::Create(Create { data: Some(Bytes::from_static(b"w")), ..sequential("/one-") });
    let null = Write::Create(Create { data: None, ..sequential("/one-") });
    let empty = Write::Create(Create { data: Some(Bytes::new()), ..sequential("/one-") });
    let plain = Write::Create(Create { sequential: false, ..sequential("/one-") });
    let of_kind = |kind| Write::Create(Create { kind, ..sequential("/one-") });
    let ttl = |ms| of_kind(NodeKind::Ttl { ms });
    let kinds = [of_kind(NodeKind::Ephemeral), of_kind(NodeKind::Container), ttl(1), ttl(2), ttl(u64::MAX)];
    let listed = Write::Create(Create { acl: list("ada"), ..sequential("/one-") });
    let parts = Write::Multi(vec![MultiOp::Create(sequential("/one-"))]);
    let others = [Write::Create(sequential("/two-")), other_data, null, empty, plain, listed, parts];
    for other in others.into_iter().chain(kinds) {
        assert_eq!(log.write(s, 1, 0, other).result, Err(OpError::NumberReused(WriteNumber(1))));
    }
    assert_eq!(log.state.digest(), digest);
    assert_eq!(log.write(s, 1, 0, one), first);
    // A node with a lower limit has refused it in the meantime, and does not know its result.
    let refused = |error, request| Command {
        session: Some(s),
        stream: StreamId::FIRST,
        number: Some(WriteNumber(1)),
        ..Command::outside(CommandBody::Refuse { error, request })
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
        let token_hash = TokenHash([7; 32]);
        Command::outside(CommandBody::OpenSession { token_hash, timeout_ms: 4000, sessions_max })
    };
    let first = log.apply(&open(2)).zxid;
    assert!(log.apply(&open(2)).result.is_ok());
    let Err(OpError::Overloaded(why)) = log.apply(&open(2)).result else { panic!("not refused") };
    assert!(why.contains("its limit is 2") && why.contains("limits.sessions"), "{why}");
    assert!(log.apply(&close(SessionId(first.0))).result.is_ok());
    assert!(log.apply(&open(2)).result.is_ok());
    assert_eq!(log.state.sessions().count(), 2);
}

/// One znode of each kind, with a null, an empty and another value, with and without a list; some share
/// a list.
fn of_all_kinds(log: &mut Log) {
    let s = log.open();
    let create = |path: &str, kind, data, acl| {
        Write::Create(Create { path: Path::new(path).unwrap(), data, kind, sequential: false, acl })
    };
    let value = Some(Bytes::from_static(b"v"));
    let long = NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS };
    let creates = [
        create("/p", NodeKind::Persistent, None, Acl::default()),
        create("/c", NodeKind::Container, Some(Bytes::new()), list("gone")),
        create("/e", NodeKind::Ephemeral, value.clone(), list("ada")),
        create("/c/t", long, None, list("bob")),
        create("/c/u", NodeKind::Ttl { ms: 1 }, value, list("ada")),
        Write::Delete { path: Path::new("/c/u").unwrap(), version: None },
        create("/p/c", NodeKind::Container, None, list("ada")),
    ];
    for (n, write) in creates.into_iter().enumerate() {
        log.write(s, n as u64 + 1, 0, write).result.unwrap();
    }
    // The list "gone" is removed with its last znode, and its id becomes free.
    let path = |p: &str| Path::new(p).unwrap();
    log.write(s, 8, 0, Write::Delete { path: path("/c/t"), version: None }).result.unwrap();
    log.write(s, 9, 0, Write::Delete { path: path("/c"), version: None }).result.unwrap();
    log.write(s, 10, 0, create("/t", long, None, list("bob"))).result.unwrap();
}

fn lists(state: &State) -> Vec<(u32, Acl)> {
    let lists = state.records().filter_map(|r| match r {
        Record::Acl(list) => Some((list.id.0, list.acl)),
        _ => None,
    });
    lists.collect()
}

#[test]
fn znodes_of_all_kinds_their_lists_and_their_sessions_survive_checkpoint_and_snapshot() {
    let mut log = Log::new();
    let mut checkpoint = Checkpoint::default();
    checkpoint.write(log.state.take_dirty());
    of_all_kinds(&mut log);
    let opening =
        CommandBody::OpenSession { token_hash: TokenHash([9; 32]), timeout_ms: 1000, sessions_max: u32::MAX };
    log.apply(&Command { identities: someone(&["ada", "bob"]), ..Command::outside(opening) });
    assert_eq!(log.state.digest(), log.state.recompute_digest());
    checkpoint.write(log.state.take_dirty());
    let encoded = |r: Record| proto::store::decode_record(proto::store::encode_record(r).into()).unwrap();
    let snapshot: Vec<Record> = log.state.records().map(encoded).collect();
    for records in [snapshot, checkpoint.records()] {
        let mut loaded = State::load(records).unwrap();
        assert_eq!(loaded.records().collect::<Vec<_>>(), log.state.records().collect::<Vec<_>>());
        for path in ["/p", "/e", "/t", "/p/c"].map(|p| Path::new(p).unwrap()) {
            assert_eq!(
                loaded.read(&Read::Get { path: path.clone() }),
                log.state.read(&Read::Get { path: path.clone() })
            );
            assert_eq!(loaded.tree().acl(&path), log.state.tree().acl(&path));
        }
        // Both states continue in the same way: the next list gets the same id.
        let next = Create { acl: list("carl"), ..Create::new(Path::new("/next").unwrap(), "") };
        let next = Command::outside(CommandBody::Write(Write::Create(next)));
        loaded.apply(z(99), 0, &next);
        let mut fresh = State::load(log.state.records()).unwrap();
        fresh.apply(z(99), 0, &next);
        assert_eq!((lists(&loaded), loaded.digest()), (lists(&fresh), fresh.digest()));
    }
}

#[test]
fn a_list_is_kept_once_and_as_long_as_a_znode_has_it() {
    let mut log = Log::new();
    of_all_kinds(&mut log);
    assert_eq!(lists(&log.state), [(1, list("bob")), (2, list("ada"))], "1 was free again");
    let path = |p: &str| Path::new(p).unwrap();
    let run = |log: &mut Log, write| log.apply(&Command::outside(CommandBody::Write(write))).result;
    let create = |p: &str, name| MultiOp::Create(Create { acl: list(name), ..Create::new(path(p), "") });
    let delete = |p: &str| MultiOp::Delete { path: path(p), version: None };
    let (before, digest) = (lists(&log.state), log.state.digest());
    // A failing multi adds and removes lists and reuses their ids; all of that is undone.
    let failing = vec![
        create("/1", "carl"),
        delete("/e"),
        delete("/p/c"),
        create("/2", "dora"),
        delete("/1"),
        delete("/t"),
        create("/3", "emil"),
        MultiOp::Check { path: path("/none"), version: None },
    ];
    assert!(run(&mut log, Write::Multi(failing)).is_err());
    assert_eq!((lists(&log.state), log.state.digest()), (before, digest));
    // The session's end removes its ephemeral, and with it the last use but one of the list.
    log.apply(&close(SessionId(z(1).0))).result.unwrap();
    assert_eq!(lists(&log.state).len(), 2);
    run(&mut log, Write::Delete { path: path("/p/c"), version: None }).unwrap();
    run(&mut log, Write::Delete { path: path("/t"), version: None }).unwrap();
    assert_eq!(lists(&log.state), []);
    assert_eq!(log.state.tree().acl(&path("/p")), Some(Acl::default()));
    assert_eq!(log.state.tree().acl(&path("/t")), None);
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn a_result_sent_again_has_the_kind_and_the_length_of_the_first() {
    let mut log = Log::new();
    let s = log.open();
    let path = |p: &str| Path::new(p).unwrap();
    let ttl = NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS };
    let mut number = 0;
    for (p, kind) in [("/e", NodeKind::Ephemeral), ("/c", NodeKind::Container), ("/t", ttl)] {
        let create = Create { data: None, kind, acl: list("ada"), ..Create::new(path(p), "") };
        let set = |data| MultiOp::Set { path: path(p), data, version: None };
        let multi = Write::Multi(vec![set(Some(Bytes::from_static(b"xy"))), set(None)]);
        let set = |data| Write::Set { path: path(p), data, version: None };
        let lock = |aversion| Write::SetAcl { path: path(p), acl: list("other"), aversion };
        let both = Write::Multi(vec![
            MultiOp::SetAcl { path: path(p), acl: list("bob"), aversion: Some(0.into()) },
            MultiOp::Check { path: path(p), version: None },
        ]);
        let child = Write::Create(Create::new(path(&format!("{p}/c")), ""));
        let child_gone = Write::Delete { path: path(&format!("{p}/c")), version: None };
        let no = |permission| Some(OpError::NoAuth { path: path(p), permission });
        let version = OpError::BadVersion { path: path(p), expected: 0, actual: 1 };
        for (write, error) in [
            (Write::Create(create), None),
            (set(None), None),
            (multi, None),
            (both, None),
            (lock(Some(0.into())), Some(version)),
            (lock(Some(1.into())), None),
            (lock(None), no(Permissions::ADMIN)),
            (set(None), no(Permissions::WRITE)),
            (child, no(Permissions::CREATE)),
            (child_gone, no(Permissions::DELETE)),
        ] {
            number += 1;
            let first = log.write(s, number, 0, write.clone());
            assert_eq!(first.result.clone().err(), error, "{write:?}");
            assert_eq!(log.write(s, number, 0, write), first);
        }
    }
}

#[test]
fn the_results_of_conditions_quotas_and_trees_are_kept_as_well() {
    let mut log = Log::new();
    let s = log.open();
    let path = |p: &str| Path::new(p).unwrap();
    let create = |p: &str, acl| Write::Create(Create { acl, ..Create::new(path(p), "") });
    let tree = |p: &str, keep_root, max_znodes| {
        Write::DeleteTree(DeleteTree { path: path(p), version: None, keep_root, max_znodes })
    };
    let hard = |znodes, bytes| Bounds { znodes, bytes };
    let quota = |p: &str, hard| Write::SetQuota { path: path(p), quota: Quota { hard, ..Quota::default() } };
    let part = |part| Write::Multi(vec![part]);
    let in_part = |cause| Some(OpError::Multi { index: 0, cause: Box::new(cause) });
    let first = z(2);
    let (other, version) = (Zxid(7), Some(Expected::Both { version: 3, czxid: first }));
    let bad_czxid = || OpError::BadCzxid { path: path("/a"), expected: other, actual: first };
    let limit = |limit, actual| {
        OpError::LimitExceeded {
        what: "znodes to delete in one entry of the log".to_owned(),
        limit,
        actual,
        remedy: "nothing was deleted; delete smaller parts of it one after another (`quorate delete -r --in-parts`)".to_owned(),
    }
    };
    let full =
        |counted, limit, actual| Some(OpError::QuotaExceeded { path: path("/a"), counted, limit, actual });
    let cases = [
        (create("/a", Acl::default()), None),
        (create("/a/b", Acl::default()), None),
        (create("/a/b/c", list("nobody")), None),
        (Write::Set { path: path("/a"), data: None, version: Some(other.into()) }, Some(bad_czxid())),
        (
            Write::Set { path: path("/a"), data: None, version },
            Some(OpError::BadVersion { path: path("/a"), expected: 3, actual: 0 }),
        ),
        (part(MultiOp::Check { path: path("/a"), version: Some(other.into()) }), in_part(bad_czxid())),
        (
            part(MultiOp::CheckAbsent { path: path("/a") }),
            in_part(OpError::Present { path: path("/a"), actual: first }),
        ),
        (part(MultiOp::CheckAbsent { path: path("/none") }), None),
        (quota("/a", hard(Some(2), Some(1))), None),
        (quota("/none", hard(Some(2), None)), Some(OpError::NoNode(path("/none")))),
        (
            quota("/a/b/c", hard(Some(2), None)),
            Some(OpError::NoAuth { path: path("/a/b/c"), permission: Permissions::ADMIN }),
        ),
        (create("/a/b/d", Acl::default()), full(Counted::Znodes, 2, 3)),
        (
            Write::Set { path: path("/a/b"), data: Some(Bytes::from_static(b"xy")), version: None },
            full(Counted::Bytes, 1, 2),
        ),
        (quota("/a", Bounds::default()), None),
        (tree("/a", false, 2), Some(limit(2, 3))),
        (
            tree("/", false, 0),
            Some(OpError::BadArguments("the root / always exists and cannot be deleted".into())),
        ),
        (
            create("/a/b/c/d", Acl::default()),
            Some(OpError::NoAuth { path: path("/a/b/c"), permission: Permissions::CREATE }),
        ),
        (tree("/none", true, 0), Some(OpError::NoNode(path("/none")))),
        (tree("/a", true, 0), None),
        (tree("/a", false, 0), None),
    ];
    for (number, (write, error)) in (1..).zip(cases) {
        let first = log.write(s, number, 0, write.clone());
        assert_eq!(first.result.clone().err(), error, "{write:?}");
        assert_eq!(log.write(s, number, 0, write), first);
    }
    assert_eq!((log.state.tree().len(), log.state.tree().counts_are_exact()), (1, true));
}

#[test]
fn a_tree_that_may_not_be_deleted_as_a_whole_stays_as_a_whole_and_the_list_in_the_way_is_named() {
    let mut log = Log::new();
    let s = log.open();
    let path = |p: &str| Path::new(p).unwrap();
    let create = |p: &str, acl| Write::Create(Create { acl, ..Create::new(path(p), "") });
    let open_to_all_but_delete = {
        let identity = Identity::anyone();
        let permissions = Permissions::from_bits(31 - 8).unwrap();
        Acl::new(vec![AclEntry { identity, permissions }]).unwrap()
    };
    let creates = [
        create("/t", Acl::default()),
        create("/t/a", Acl::default()),
        create("/t/kept", open_to_all_but_delete),
        create("/t/kept/x", Acl::default()),
        create("/t/z", list("nobody who asks")),
    ];
    for (number, write) in (1..).zip(creates) {
        log.write(s, number, 0, write).result.unwrap();
    }
    let digest = log.state.tree().digest();
    let tree =
        Write::DeleteTree(DeleteTree { path: path("/t"), version: None, keep_root: false, max_znodes: 0 });
    let refused = log.write(s, 6, 0, tree.clone());
    let why = OpError::NoAuth { path: path("/t/kept"), permission: Permissions::DELETE };
    assert_eq!(refused.result, Err(why));
    assert_eq!(log.write(s, 6, 0, tree.clone()), refused, "with the same path when it is sent again");
    assert_eq!(log.state.tree().digest(), digest);
    // The list of a leaf does not matter: a delete requires a permission on the parent.
    log.write(s, 7, 0, Write::Delete { path: path("/t/kept/x"), version: None }).result.unwrap_err();
    let below =
        Write::DeleteTree(DeleteTree { path: path("/t/z"), version: None, keep_root: false, max_znodes: 0 });
    assert_eq!(log.write(s, 8, 0, below).result, Ok(WriteOutcome::TreeDeleted { znodes: 1 }));
}

#[test]
fn a_quota_is_a_part_of_the_state_and_survives_checkpoint_and_snapshot() {
    let mut log = Log::new();
    let mut checkpoint = Checkpoint::default();
    checkpoint.write(log.state.take_dirty());
    let path = |p: &str| Path::new(p).unwrap();
    let run = |log: &mut Log, write| log.apply(&Command::outside(CommandBody::Write(write))).result;
    let create = |p: &str| Write::Create(Create::new(path(p), "four"));
    let bounds = |znodes, bytes| Bounds { znodes, bytes };
    for p in ["/q", "/q/a", "/other"] {
        run(&mut log, create(p)).unwrap();
    }
    let mut digests = vec![log.state.digest()];
    let quotas = [
        Quota { soft: bounds(Some(1), None), hard: bounds(Some(2), Some(9)) },
        Quota { soft: bounds(None, Some(1)), hard: bounds(Some(2), Some(9)) },
        Quota { soft: bounds(None, None), hard: bounds(Some(0), None) },
        Quota { soft: bounds(Some(0), None), hard: bounds(None, None) },
        Quota { soft: bounds(Some(1), None), hard: bounds(Some(2), Some(u64::MAX)) },
    ];
    for quota in quotas {
        run(&mut log, Write::SetQuota { path: path("/q"), quota }).unwrap();
        assert_eq!(log.state.digest(), log.state.recompute_digest());
        digests.push(log.state.digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 6, "each quota counts in the digest");
    checkpoint.write(log.state.take_dirty());
    let encoded = |r: Record| proto::store::decode_record(proto::store::encode_record(r).into()).unwrap();
    let snapshot: Vec<Record> = log.state.records().map(encoded).collect();
    for records in [snapshot, checkpoint.records()] {
        let mut loaded = State::load(records).unwrap();
        let at =
            |state: &State| state.read(&Read::Quotas { path: Path::root(), page: Page::default() }).unwrap();
        assert_eq!(at(&loaded), at(&log.state));
        let used = Usage { znodes: 1, bytes: 4 };
        let expected = QuotaAt { path: path("/q"), quota: quotas[4], used };
        assert_eq!(at(&loaded), ReadOutcome::Quotas { quotas: vec![expected], next: String::new() });
        assert_eq!(loaded.read(&Read::Count { path: path("/q") }), Ok(ReadOutcome::Counted(used)));
        // The loaded state continues to count and to refuse.
        let create = |p: &str| Command::outside(CommandBody::Write(create(p)));
        assert!(loaded.apply(z(50), 0, &create("/q/b")).result.is_ok());
        let full = loaded.apply(z(51), 0, &create("/q/b/c")).result.unwrap_err();
        let expected =
            OpError::QuotaExceeded { path: path("/q"), counted: Counted::Znodes, limit: 2, actual: 3 };
        assert_eq!(full, expected);
        assert!(loaded.apply(z(52), 0, &create("/other/c")).result.is_ok());
    }
    // The quota is removed with its znode.
    let tree =
        Write::DeleteTree(DeleteTree { path: path("/q"), version: None, keep_root: false, max_znodes: 0 });
    run(&mut log, tree).unwrap();
    run(&mut log, create("/q")).unwrap();
    let read = Read::Quotas { path: Path::root(), page: Page::default() };
    assert_eq!(log.state.read(&read), Ok(ReadOutcome::Quotas { quotas: vec![], next: String::new() }));
}

#[test]
fn a_session_is_taken_up_with_its_token_and_by_its_owner() {
    let mut log = Log::new();
    let (token, other) = (SessionToken([7; 16]), SessionToken([8; 16]));
    let opening = |names: &[&str]| Command {
        identities: someone(names),
        ..Command::outside(CommandBody::OpenSession {
            token_hash: hash_of(&token),
            timeout_ms: 4000,
            sessions_max: u32::MAX,
        })
    };
    let nobodys = SessionId(log.apply(&opening(&[])).zxid.0);
    let adas = SessionId(log.apply(&opening(&["ada", "ops"])).zxid.0);
    let admits =
        |state: &State, id, token, names: &[&str]| state.session(id).unwrap().admits(token, &someone(names));
    let loaded = State::load(log.state.records()).unwrap();
    for state in [&log.state, &loaded] {
        for names in [&[][..], &["ada"], &["ada", "ops"]] {
            assert!(admits(state, nobodys, &token, names), "nobody in particular has opened it");
            assert!(!admits(state, nobodys, &other, names));
            assert_eq!(admits(state, adas, &token, names), names.len() == 2, "{names:?}");
        }
        assert!(admits(state, adas, &token, &["ada", "more", "ops"]), "more may be proven");
        assert!(!admits(state, adas, &token, &["bob", "ops"]), "of somebody else");
        assert!(!admits(state, adas, &other, &["ada", "ops"]), "with another token");
    }
    // SHA-256 of sixteen bytes of value 7, from `sha256sum`.
    let hash: String = hash_of(&token).0.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, "d761d406af2a4a5a15f67c924378ed88d1f85c13f1a37fc7366f59789b3bcd65");
}

/// The state with changed records.
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
    let make = |p: &str, sequential| Create { sequential, ..Create::new(Path::prefix(p).unwrap(), "") };
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
    let set = |version| outside(Write::Set { path: path("/p"), data: Some(Bytes::new()), version });
    log.apply(&set(Some(i32::MAX.into()))).result.unwrap();
    assert_eq!(stat(&log, "/p").version, 0);
    log.apply(&set(Some(0.into()))).result.unwrap();
    let sequential = |log: &mut Log| match log.apply(&outside(Write::Create(make("/p/s-", true)))).result {
        Ok(WriteOutcome::Created { path, .. }) => Ok(path.to_string()),
        other => Err(other.unwrap_err()),
    };
    assert_eq!(sequential(&mut log).unwrap(), "/p/s-9999999998");
    assert_eq!(stat(&log, "/p").cversion, 0);
    let set_child = MultiOp::Set { path: path("/p/c"), data: Some(Bytes::new()), version: None };
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
        // Other creates and undos work as before, and the counter stays at its end.
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
    let names: Vec<String> = log.state.tree().ephemerals(a).map(|path| path.to_string()).collect();
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
    // The session is gone for good: no write, no second close, and its id is not reused.
    assert_eq!(log.write(a, 4, 0, create("/late", true)).result, Err(OpError::SessionExpired(a)));
    assert_eq!(log.apply(&close(a)).result, Err(OpError::SessionExpired(a)));
    assert!(log.open() > b);
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}

#[test]
fn equal_states_have_equal_digests_whatever_the_path() {
    // The same znodes and sessions from the same entries, but with a failed multi and a repetition on
    // one side.
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
        ..Command::outside(CommandBody::Write(multi))
    };
    assert!(matches!(two.apply(&unnumbered).result, Err(OpError::Multi { index: 1, .. })));
    two.write(s, 1, 0, create("/a", false)).result.unwrap();
    assert_eq!(one.state.digest(), two.state.digest());
    assert_ne!(one.state.digest(), State::default().digest());
}

#[test]
fn records_below_a_missing_znode_or_below_an_ephemeral_are_refused_in_any_order() {
    let mut log = Log::new();
    let s = log.open();
    for (n, path) in (1..).zip(["/a", "/a/b", "/a/b/c", "/a/b/c/d"]) {
        log.write(s, n, n - 1, create(path, false)).result.unwrap();
    }
    let records: Vec<Record> = log.state.records().collect();
    let no_parent = |path: &str| {
        let error = LoadError::NoParent(Path::new(path).unwrap());
        [error.clone(), error]
    };
    let is = |record: &Record, path: &str| matches!(record, Record::Znode(z) if z.path.as_str() == path);
    let both_ways = |records: Vec<Record>| {
        let backwards = State::load(records.iter().rev().cloned());
        [State::load(records), backwards].map(Result::unwrap_err)
    };
    for (gone, child) in [("/", "/"), ("/a", "/a/b"), ("/a/b", "/a/b/c"), ("/a/b/c", "/a/b/c/d")] {
        let rest = records.iter().filter(|record| !is(record, gone)).cloned().collect();
        assert_eq!(both_ways(rest), no_parent(child), "without {gone}");
    }
    let mut ephemeral = records;
    for record in &mut ephemeral {
        match record {
            Record::Znode(z) if z.path.as_str() == "/a/b" => {
                (z.kind, z.ephemeral_owner) = (NodeKind::Ephemeral, Some(s));
            }
            _ => {}
        }
    }
    assert_eq!(both_ways(ephemeral), no_parent("/a/b/c"));
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
    let mut log = Log::new();
    of_all_kinds(&mut log);
    let listed: Vec<Record> = log.state.records().collect();
    for (i, record) in listed.iter().enumerate() {
        let mut missing = listed.clone();
        missing.remove(i);
        let mut twice = listed.clone();
        twice.push(record.clone());
        let (missing, twice) = (State::load(missing).unwrap_err(), State::load(twice).unwrap_err());
        let list_missing = matches!(missing, LoadError::Acl(_));
        assert!(list_missing || !matches!(record, Record::Acl(_)), "without {record:?}: {missing}");
        assert!(matches!(twice, LoadError::Twice(_)), "twice {record:?}: {twice}");
    }
    let load = |record| State::load(listed.iter().cloned().chain([record])).unwrap_err();
    let unused = load(Record::Acl(record::AccessList { id: AclId(u32::MAX), acl: list("new") }));
    assert_eq!(unused, LoadError::Acl(AclId(u32::MAX)));
    for (id, acl) in [
        (AclId(7), list("ada")),
        (AclId(1), list("new")),
        (AclId(7), Acl::default()),
        (AclId::OPEN, list("new")),
    ] {
        assert!(matches!(load(Record::Acl(record::AccessList { id, acl })), LoadError::Twice(_)));
    }
    let owned = |kind, ephemeral_owner| {
        let root = log.state.tree().records().next().unwrap();
        load(Record::Znode(record::Znode { path: Path::new("/x").unwrap(), kind, ephemeral_owner, ..root }))
    };
    assert!(matches!(owned(NodeKind::Ephemeral, None), LoadError::Owner(_)));
    assert!(matches!(owned(NodeKind::Container, Some(SessionId(z(1).0))), LoadError::Owner(_)));
    let mut changed = records;
    for record in &mut changed {
        if let Record::Znode(z) = record
            && z.path.as_str() == "/a"
        {
            z.data = Some(Bytes::from_static(b"w"));
        }
    }
    assert!(matches!(State::load(changed), Err(LoadError::Mismatch { what: "the digest", .. })));
}

fn quota() -> impl Strategy<Value = Quota> {
    let bound = || prop::option::weighted(0.3, 0..5u64);
    let bounds = move || (bound(), bound()).prop_map(|(znodes, bytes)| Bounds { znodes, bytes });
    (bounds(), bounds()).prop_map(|(soft, hard)| Quota { soft, hard })
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Close(usize),
    Write { session: usize, number: i64, acked: u64, write: Write },
}

fn step() -> impl Strategy<Value = Step> {
    let list = || {
        prop::option::weighted(0.3, 0..3u8)
            .prop_map(|n| n.map_or_else(Acl::default, |n| list(&n.to_string())))
    };
    let kind = || {
        let ttl = (1..4u64).prop_map(|ms| NodeKind::Ttl { ms });
        let others = [NodeKind::Persistent, NodeKind::Ephemeral, NodeKind::Container];
        prop_oneof![3 => prop::sample::select(others.to_vec()), 1 => ttl]
    };
    let path = || {
        prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..3)
            .prop_map(|names| Path::new(&format!("/{}", names.join("/"))).unwrap())
    };
    let data = || prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..3).prop_map(Bytes::from));
    let create = move || {
        (path(), data(), kind(), any::<bool>(), list())
            .prop_map(|(path, data, kind, sequential, acl)| Create { path, data, kind, sequential, acl })
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
        (path(), any::<bool>(), 0..3u32).prop_map(|(path, keep_root, max_znodes)| {
            Write::DeleteTree(DeleteTree { path, version: None, keep_root, max_znodes })
        }),
        (prop::option::of(path()), quota())
            .prop_map(|(path, quota)| { Write::SetQuota { path: path.unwrap_or_else(Path::root), quota } }),
    ];
    prop_oneof![
        1 => Just(Step::Open),
        1 => (0..4usize).prop_map(Step::Close),
        // Mostly the next number, sometimes a repeated one or one that is too early.
        10 => (0..4usize, -2..3i64, 0..9u64, write)
            .prop_map(|(session, number, acked, write)| Step::Write { session, number, acked, write }),
    ]
}

fn commands(steps: &[Step]) -> Vec<Command> {
    let (mut sessions, mut commands) = (Vec::<(u64, i64)>::new(), Vec::new());
    for step in steps {
        commands.push(match step {
            Step::Open => {
                let n = sessions.len() as u8;
                let token_hash = TokenHash([n; 32]);
                sessions.push((z(commands.len() as u32 + 1).0, 0));
                let body = CommandBody::OpenSession { token_hash, timeout_ms: 1000, sessions_max: u32::MAX };
                let identities = someone(&["ada", "bob"][..usize::from(n % 3)]);
                Command { identities, ..Command::outside(body) }
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
                            ..Command::outside(body)
                        }
                    }
                    None => Command::outside(body),
                }
            }
        });
    }
    commands
}

/// The content of a checkpoint: successive changes.
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
        changes.acls.into_iter().for_each(|(id, list)| put(format!("{id:?}"), list.map(Record::Acl)));
        changes.sessions.into_iter().for_each(|(id, s)| put(id.to_string(), s.map(Record::Session)));
        for ((id, n), kept) in changes.results {
            put(format!("{id} {}", n.0), kept.map(Record::Result));
        }
    }

    /// A whole state.
    fn write_records(&mut self, records: Vec<Record>) {
        for record in records {
            let key = match &record {
                Record::Header(header) => {
                    self.header = *header;
                    continue;
                }
                Record::Znode(z) => z.path.to_string(),
                Record::Acl(list) => format!("{:?}", list.id),
                Record::Session(session) => session.id.to_string(),
                Record::Result(result) => format!("{} {}", result.session, result.number.0),
            };
            self.records.insert(key, record);
        }
    }

    fn records(&self) -> Vec<Record> {
        std::iter::once(Record::Header(self.header)).chain(self.records.values().cloned()).collect()
    }
}

/// Bytes of all records except the header.
fn encoded(changes: &Changes) -> usize {
    let Changes { znodes, acls, sessions, results, .. } = changes.clone();
    let acls = acls.into_iter().filter_map(|(_, list)| list.map(Record::Acl));
    let znodes = znodes.into_iter().filter_map(|(_, z)| z.map(Record::Znode));
    let sessions = sessions.into_iter().filter_map(|(_, s)| s.map(Record::Session));
    let results = results.into_iter().filter_map(|(_, r)| r.map(Record::Result));
    znodes
        .chain(acls)
        .chain(sessions)
        .chain(results)
        .map(|record| proto::store::encode_record(record).len())
        .sum()
}

proptest! {
    #[test]
    fn replay_digest_records_and_changes_agree(steps in prop::collection::vec(step(), 1..80), cut in 0..80usize) {
        let commands = commands(&steps);
        let (mut one, mut two) = (Log::new(), Log::new());
        // The content of a checkpoint: changes taken periodically and applied in order.
        let mut checkpoint = Checkpoint::default();
        for (n, command) in commands.iter().enumerate() {
            prop_assert_eq!(one.apply(command), two.apply(command), "the same entry does the same everywhere");
            prop_assert_eq!(one.state.digest(), one.state.recompute_digest());
            prop_assert!(one.state.tree().counts_are_exact(), "behind {:?}", command);
            if n == commands.len() - 1 || n == cut || n % 7 == 3 {
                if n % 3 == 1 {
                    one.state.forget_checkpoint();
                }
                let (len, counted) = (one.state.dirty_len(), one.state.dirty_bytes());
                let changes = one.state.take_dirty();
                let counted_all = changes.znodes.len() + changes.acls.len() + changes.sessions.len() + changes.results.len();
                prop_assert!(counted_all <= len);
                let bytes = encoded(&changes);
                prop_assert!(bytes <= counted, "{bytes} bytes, counted as {counted}");
                checkpoint.write(changes);
            }
            if n == cut {
                // A node that continues from a snapshot.
                two.state = State::load(two.state.records()).unwrap();
            }
        }
        prop_assert_eq!(one.state.digest(), two.state.digest());
        let records: Vec<Record> = one.state.records().collect();
        let loaded = State::load(records.iter().rev().cloned()).unwrap();
        prop_assert_eq!(loaded.records().collect::<Vec<_>>(), records.clone());
        let recovered = State::load(checkpoint.records()).unwrap();
        prop_assert_eq!(recovered.records().collect::<Vec<_>>(), records);
        for state in [&loaded, &recovered, &two.state] {
            prop_assert!(state.tree().counts_are_exact());
        }
    }
}

proptest! {
    /// With any changes in between, the export is the state of its start, and changes are tracked from
    /// there.
    #[test]
    fn an_export_is_exact_while_the_state_goes_on(
        steps in prop::collection::vec(step(), 20..120), begin in 0..60usize, most in 1..9usize, every in 1..5usize, given_up in any::<bool>()
    ) {
        let commands = commands(&steps);
        let mut log = Log::new();
        let mut checkpoint = Checkpoint::default();
        let mut exported: Vec<Record> = Vec::new();
        let mut expected: Vec<Record> = Vec::new();
        let mut more = false;
        let begin = begin.min(commands.len() - 1);
        for (n, command) in commands.iter().enumerate() {
            if given_up && n == begin / 2 {
                // An export that is never finished.
                log.state.begin_export(false);
                let _ = log.state.export(most, usize::MAX);
            }
            if n == begin {
                expected = log.state.records().collect();
                exported = log.state.begin_export(true);
                more = true;
            }
            if more && n % every == 0 {
                let (znodes, rest) = log.state.export(most, usize::MAX).unwrap();
                exported.extend(znodes.into_iter().map(Record::Znode));
                more = rest;
            }
            log.apply(command);
        }
        while more {
            let (znodes, rest) = log.state.export(most, 1).unwrap();
            prop_assert!(znodes.len() <= most);
            exported.extend(znodes.into_iter().map(Record::Znode));
            more = rest;
        }
        prop_assert_eq!(log.state.export(most, 1), None);
        let loaded = State::load(exported.clone()).unwrap();
        prop_assert_eq!(loaded.records().collect::<Vec<_>>(), expected);
        checkpoint.write_records(exported);
        let changes = log.state.take_dirty();
        prop_assert!(!changes.whole);
        checkpoint.write(changes);
        let recovered = State::load(checkpoint.records()).unwrap();
        prop_assert_eq!(recovered.records().collect::<Vec<_>>(), log.state.records().collect::<Vec<_>>());
        // The next export starts again.
        let mut again = log.state.begin_export(false);
        while let Some((znodes, _)) = log.state.export(most, usize::MAX) {
            again.extend(znodes.into_iter().map(Record::Znode));
        }
        prop_assert_eq!(State::load(again).unwrap().digest(), log.state.digest());
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
    // A replica without the entry differs.
    let mut other = State::default();
    other.apply_level(z(1, 0), 1, Level::FIRST);
    other.apply_marker(z(1, 1), 2);
    assert_ne!(other.digest(), raised);
    // Another level in the header does not match the digest.
    let records = state.records().map(|record| match record {
        Record::Header(header) => Record::Header(record::Header { level: Level(3), ..header }),
        other => other,
    });
    assert!(State::load(records).is_err());
}

#[test]
fn b07_the_paths_of_the_ephemerals_of_a_session_have_a_bound_and_so_have_those_of_changes() {
    let mut log = Log::new();
    let (s, other) = (log.open(), log.open());
    let long = |n: usize| format!("/{n:06}{}", "x".repeat(8_000));
    let fit = Create::EPHEMERAL_PATHS_MAX / long(0).len();
    let parts = |range: std::ops::Range<usize>| {
        let part = |n: usize| match create(&long(n), true) {
            Write::Create(create) => MultiOp::Create(create),
            other => panic!("{other:?}"),
        };
        Write::Multi(range.map(part).collect())
    };
    let mut number = 0;
    for first in (0..fit).step_by(500) {
        number += 1;
        assert!(log.write(s, number, number - 1, parts(first..fit.min(first + 500))).result.is_ok());
    }
    assert_eq!(log.state.dirty_path_bytes(), fit * long(0).len() + "/".len());
    let one_more = log.write(s, number + 1, number, create(&long(fit), true));
    let Err(error @ OpError::LimitExceeded { .. }) = &one_more.result else { panic!("{one_more:?}") };
    assert!(error.to_string().contains("bytes of paths of ephemerals of the session"), "{error}");
    assert_eq!(log.write(s, number + 1, number, create(&long(fit), true)), one_more, "the result is kept");
    assert!(log.write(s, number + 2, number + 1, create("/short", true)).result.is_ok(), "it fits");
    assert!(log.write(other, 1, 0, create(&long(fit), true)).result.is_ok());
    let delete = Write::Delete { path: Path::new(&long(0)).unwrap(), version: None };
    assert!(log.write(s, number + 3, number + 2, delete).result.is_ok());
    assert!(log.write(s, number + 4, number + 3, create(&long(fit + 1), true)).result.is_ok());
    let ended = log.apply(&close(s)).result;
    assert_eq!(ended, Ok(WriteOutcome::SessionClosed { ephemerals: fit as u32 + 1 }));
    // One created, all others removed.
    let removed = (fit + 1) * long(0).len() + "/short".len();
    assert_eq!(log.state.dirty_path_bytes(), removed + long(0).len() + "/".len());
    let changes = log.state.take_dirty();
    assert!(changes.znodes.len() >= fit && log.state.dirty_path_bytes() == 0);
    log.state.forget_checkpoint();
    assert_eq!(log.state.dirty_path_bytes(), long(0).len() + "/".len());
    assert_eq!(log.state.digest(), log.state.recompute_digest());
}
