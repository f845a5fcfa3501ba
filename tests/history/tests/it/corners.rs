//! Cases that random histories do not reach.

use api::{
    Command, CommandBody, Create, Epoch, MultiOp, NodeKind, OpError, Path, Read, ReadLevel, ReadOutcome,
    SessionId, Stat, TokenHash, Write, WriteNumber, WriteOutcome, Zxid,
};
use history::{
    Call, Committed, History, Operation, Outcome, Rule, check_linearizable, check_order, json_lines, page,
};
use store_core::State;

use crate::good::STEPS_MAX;

const SESSION: SessionId = SessionId(0x1_0000_0001);

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn path(s: &str) -> Path {
    Path::new(s).unwrap()
}

fn create(s: &str, ephemeral: bool) -> Write {
    let kind = if ephemeral { NodeKind::Ephemeral } else { NodeKind::Persistent };
    Write::Create(Create { kind, ..Create::new(path(s), s.to_owned()) })
}

fn set(s: &str, data: &str) -> Write {
    Write::Set { path: path(s), data: Some(data.to_owned().into()), version: None }
}

/// The entries of one epoch: its marker, the opening of a session, and these.
fn log(bodies: Vec<CommandBody>) -> Vec<Committed> {
    let opening =
        CommandBody::OpenSession { token_hash: TokenHash([0; 32]), timeout_ms: 1000, sessions_max: u32::MAX };
    let commands = std::iter::once(opening).chain(bodies).enumerate().map(|(i, body)| {
        let number = matches!(body, CommandBody::Write(_)).then_some(WriteNumber(i as u64));
        let session = (i > 0).then_some(SESSION);
        Some(Command { session, number, ..Command::outside(body) })
    });
    let entries = std::iter::once(None).chain(commands).enumerate();
    entries
        .map(|(i, command)| Committed { zxid: z(i as u32), time_ms: 0, origin: None, level: None, command })
        .collect()
}

fn writes(writes: &[Write]) -> Vec<Committed> {
    log(writes.iter().cloned().map(CommandBody::Write).collect())
}

/// At 10 * `at`, for 5.
fn operation(at: u64, call: Call, outcome: Outcome) -> Operation {
    let returned = (outcome != Outcome::Unknown).then_some(10 * at + 5);
    Operation {
        client: 1,
        session: Some(SESSION),
        unary: false,
        node: None,
        called: 10 * at,
        returned,
        call,
        outcome,
    }
}

/// The operations that asked for the writes of a log, answered as they should be.
fn asked(log: &[Committed]) -> History {
    let mut state = State::default();
    let mut operations = Vec::new();
    for entry in log {
        let Some(command) = &entry.command else {
            state.apply_marker(entry.zxid, 0);
            continue;
        };
        let applied = state.apply(entry.zxid, 0, command);
        if let CommandBody::Write(write) = &command.body {
            let outcome = Outcome::Written { zxid: applied.zxid, result: applied.result };
            operations.push(operation(operations.len() as u64, Call::Write(write.clone()), outcome));
        }
    }
    History { operations }
}

fn rule(checked: Result<history::Summary, history::Violation>) -> Option<Rule> {
    checked.err().map(|violation| violation.rule)
}

#[test]
fn a_log_with_a_hole_is_no_log() {
    let mut log = writes(&[create("/a", false), set("/a", "1"), set("/a", "2")]);
    let history = asked(&log);
    assert!(check_order(&history, Some(&log)).is_ok());
    log.remove(3);
    assert_eq!(rule(check_order(&history, Some(&log))), Some(Rule::Log));
}

#[test]
fn an_unknown_write_is_carried_out_once_or_never_but_not_twice() {
    let log = writes(&[create("/a", false), set("/a", "1"), set("/a", "1")]);
    let mut history = asked(&log);
    for unknown in [1, 2] {
        history.operations[unknown].outcome = Outcome::Unknown;
        history.operations[unknown].returned = None;
    }
    let summary = check_order(&history, Some(&log)).unwrap();
    assert_eq!(summary.unknown_found, 2);
    assert_eq!(check_order(&history, Some(&log[..4])).unwrap().unknown_found, 1);
    assert_eq!(check_order(&history, Some(&log[..3])).unwrap().unknown_found, 0);
    history.operations.pop();
    assert_eq!(rule(check_order(&history, Some(&log))), Some(Rule::AtMostOnce));
    history.operations.pop();
    assert_eq!(rule(check_order(&history, Some(&log))), Some(Rule::AtMostOnce), "it has no call");
}

#[test]
fn a_write_that_was_sent_again_has_one_place() {
    let mut log = writes(&[create("/a", false), set("/a", "1")]);
    let history = asked(&log);
    let mut again = log.last().unwrap().clone();
    again.zxid = z(4);
    log.push(again);
    assert!(check_order(&history, Some(&log)).is_ok(), "the session's record makes the second one harmless");
    let mut wrong = history.clone();
    let Outcome::Written { zxid, .. } = &mut wrong.operations[1].outcome else { panic!() };
    *zxid = z(4);
    assert_eq!(rule(check_order(&wrong, Some(&log))), Some(Rule::WriteResult));
}

#[test]
fn a_read_from_a_state_that_never_was_is_found() {
    let log = writes(&[create("/a", false)]);
    for zxid in [Zxid::new(Epoch(1), 9), Zxid::new(Epoch(0), 9)] {
        let mut history = History::default();
        let outcome = Outcome::Read { zxid, result: Err(OpError::NoNode(path("/a"))) };
        history.operations.push(operation(
            0,
            Call::Read(Read::Get { path: path("/a") }, ReadLevel::Local),
            outcome,
        ));
        assert_eq!(rule(check_order(&history, Some(&log))), Some(Rule::ReadResult));
        assert!(check_order(&history, None).is_ok());
    }
}

/// Found by seed 8, when clients of the simulator began to walk through the whole tree.
#[test]
fn the_root_is_there_without_a_create() {
    let outcome =
        Outcome::Read { zxid: z(1), result: Ok(ReadOutcome::Exists { stat: Some(Stat::default()) }) };
    let read = Call::Read(Read::Exists { path: Path::root() }, ReadLevel::Linearizable);
    let history = History { operations: vec![operation(0, read, outcome)] };
    assert_eq!(rule(check_linearizable(&history, STEPS_MAX)), None);
}

#[test]
fn a_read_at_least_as_new_as_asked_is() {
    let outcome = Outcome::Read { zxid: z(3), result: Err(OpError::NoNode(path("/a"))) };
    let read = |least| Call::Read(Read::Get { path: path("/a") }, ReadLevel::AtLeast(least));
    let history = |least| History { operations: vec![operation(0, read(least), outcome.clone())] };
    assert!(check_order(&history(z(3)), None).is_ok());
    assert_eq!(rule(check_order(&history(z(4)), None)), Some(Rule::Fresh));
}

#[test]
fn answers_of_a_session_come_in_order() {
    let mut history = asked(&writes(&[create("/a", false), set("/a", "1")]));
    history.operations[1].called = 1;
    history.operations[1].returned = Some(4);
    assert_eq!(rule(check_order(&history, None)), Some(Rule::SessionOrder));
}

/// A read and a write behind it lose their connection; the write had been carried out, the read is sent again.
#[test]
fn a_read_may_be_overtaken_only_by_a_write_that_overlaps_it() {
    let log = writes(&[create("/a", false), set("/a", "1")]);
    let mut history = asked(&log);
    let mut read =
        operation(0, Call::Read(Read::Get { path: path("/a") }, ReadLevel::Local), Outcome::Unknown);
    let stat = Stat { czxid: z(2), mzxid: z(3), pzxid: z(2), version: 1, data_length: 1, ..Stat::default() };
    read.outcome =
        Outcome::Read { zxid: z(3), result: Ok(ReadOutcome::Data { data: Some("1".into()), stat }) };
    (read.called, read.returned) = (7, Some(11));
    history.operations.insert(1, read);
    assert_eq!(check_order(&history, Some(&log)).unwrap().overtaken_reads, 1);
    assert!(check_linearizable(&history, STEPS_MAX).is_ok());
    history.operations[1].returned = Some(9);
    assert_eq!(rule(check_order(&history, Some(&log))), Some(Rule::WriteOrder));
    assert_eq!(rule(check_linearizable(&history, STEPS_MAX)), Some(Rule::Linearizable));
}

#[test]
fn a_record_that_contradicts_itself_is_named() {
    let answer = Outcome::Synced { zxid: z(1) };
    let history = History { operations: vec![operation(0, Call::Write(set("/a", "1")), answer)] };
    assert_eq!(rule(check_order(&history, None)), Some(Rule::Record));
}

#[test]
fn an_ephemeral_may_vanish_and_a_persistent_znode_may_not() {
    for ephemeral in [true, false] {
        let mut bodies = vec![CommandBody::Write(create("/a", ephemeral))];
        bodies.push(CommandBody::CloseSession { session: SESSION, expired: None });
        let log = log(bodies);
        let mut history = asked(&log);
        let outcome = Outcome::Read { zxid: z(3), result: Ok(ReadOutcome::Exists { stat: None }) };
        let read = Call::Read(Read::Exists { path: path("/a") }, ReadLevel::Linearizable);
        history.operations.push(operation(5, read, outcome));
        assert_eq!(check_order(&history, Some(&log)).is_ok(), ephemeral);
        assert_eq!(check_linearizable(&history, STEPS_MAX).is_ok(), ephemeral);
    }
}

#[test]
fn parents_and_multis_tie_znodes_together() {
    let multi = Write::Multi(vec![
        MultiOp::Check { path: path("/a"), version: Some(0.into()) },
        MultiOp::Delete { path: path("/a/b"), version: None },
        MultiOp::Delete { path: path("/a"), version: None },
    ]);
    let log = writes(&[create("/a", false), create("/a/b", false), create("/c", false), multi.clone()]);
    let history = asked(&log);
    let summary = check_linearizable(&history, STEPS_MAX).unwrap();
    assert_eq!((summary.objects, summary.undecided), (2, 0));
    let mut wrong = history.clone();
    wrong.operations.remove(1);
    assert_eq!(
        rule(check_linearizable(&wrong, STEPS_MAX)),
        Some(Rule::Linearizable),
        "there is no /a/b to delete"
    );
    let mut wrong = history;
    let Outcome::Written { result, .. } = &mut wrong.operations[3].outcome else { panic!() };
    *result = Err(OpError::Multi { index: 2, cause: Box::new(OpError::NoNode(path("/a"))) });
    assert_eq!(rule(check_linearizable(&wrong, STEPS_MAX)), Some(Rule::Linearizable), "/a was there");
}

/// As after a fail-over: no client got an answer, and everything was carried out, session by session in
/// order.
#[test]
fn many_unknown_writes_that_all_took_effect_are_explained() {
    const EACH: i32 = 12;
    let created =
        Ok(WriteOutcome::Created { path: path("/a"), stat: Stat { data_length: 2, ..Stat::default() } });
    let answer = Outcome::Written { zxid: z(2), result: created };
    let mut operations = vec![operation(0, Call::Write(create("/a", false)), answer)];
    for i in 0..EACH {
        for client in [2, 3, 4] {
            let mut unknown =
                operation(1, Call::Write(set("/a", &format!("{client}-{i}"))), Outcome::Unknown);
            (unknown.client, unknown.session) = (client, Some(SessionId(client.into())));
            operations.push(unknown);
        }
    }
    let stat = Stat { version: 3 * EACH - 2, data_length: 4, ..Stat::default() };
    let data = Some(format!("2-{}", EACH - 1).into());
    let outcome = Outcome::Read { zxid: z(3), result: Ok(ReadOutcome::Data { data, stat }) };
    operations.push(operation(
        9,
        Call::Read(Read::Get { path: path("/a") }, ReadLevel::Linearizable),
        outcome,
    ));
    let summary = check_linearizable(&History { operations }, STEPS_MAX).unwrap();
    assert_eq!(summary.undecided, 0, "{summary:?}");
}

#[test]
fn a_delete_that_failed_ties_the_children_to_their_parent() {
    let (whole, part) = (create("/a", false), create("/a/b", false));
    let delete = Write::Delete { path: path("/a"), version: None };
    let log = writes(&[whole, part, delete]);
    let history = asked(&log);
    let summary = check_linearizable(&history, STEPS_MAX).unwrap();
    assert_eq!((summary.objects, summary.undecided), (1, 0));
}

#[test]
fn what_a_multi_made_is_there_for_its_later_parts_although_it_fails() {
    let create = |name| api::Create::new(path(name), "x");
    let multi = Write::Multi(vec![
        MultiOp::Create(create("/a")),
        MultiOp::Create(create("/a/b")),
        MultiOp::Check { path: path("/c"), version: None },
    ]);
    let log = writes(&[multi]);
    let history = asked(&log);
    let failed =
        |o: &Outcome| matches!(o, Outcome::Written { result: Err(OpError::Multi { index: 2, .. }), .. });
    assert!(failed(&history.operations[0].outcome), "{:?}", history.operations[0].outcome);
    assert_eq!(check_linearizable(&history, STEPS_MAX).unwrap().undecided, 0);
}

#[test]
fn a_search_that_is_given_up_is_undecided_and_not_passed() {
    // The order of these is unknown, and none of them may have happened.
    let mut operations: Vec<Operation> = (0..30)
        .map(|i| {
            let mut unknown = operation(1, Call::Write(set("/a", &i.to_string())), Outcome::Unknown);
            unknown.session = None;
            unknown
        })
        .collect();
    let created =
        Ok(WriteOutcome::Created { path: path("/a"), stat: Stat { data_length: 2, ..Stat::default() } });
    operations.insert(
        0,
        operation(0, Call::Write(create("/a", false)), Outcome::Written { zxid: z(2), result: created }),
    );
    let stat = Stat { version: 20, data_length: 4, ..Stat::default() };
    let outcome =
        Outcome::Read { zxid: z(3), result: Ok(ReadOutcome::Data { data: Some("none".into()), stat }) };
    operations.push(operation(9, Call::Read(Read::Get { path: path("/a") }, ReadLevel::Local), outcome));
    let summary = check_linearizable(&History { operations }, 2000).unwrap();
    assert_eq!((summary.objects, summary.undecided), (1, 1));
    assert!(summary.steps <= 2000);
}

#[test]
fn sequential_creates_are_known_by_their_full_names() {
    let queue = Write::Create(Create { sequential: true, ..Create::new(path("/q"), "x") });
    let log = writes(&[queue.clone(), queue.clone()]);
    let mut history = asked(&log);
    assert!(check_order(&history, Some(&log)).is_ok());
    let summary = check_linearizable(&history, STEPS_MAX).unwrap();
    assert_eq!((summary.objects, summary.skipped), (2, 0));
    history.operations[1].outcome = Outcome::Unknown;
    let summary = check_linearizable(&history, STEPS_MAX).unwrap();
    assert_eq!((summary.objects, summary.undecided, summary.skipped), (1, 0, 1), "a name is given once");
    let outcome = Outcome::Read { zxid: z(3), result: Ok(ReadOutcome::Exists { stat: None }) };
    let read = Call::Read(Read::Exists { path: path("/q0000000001") }, ReadLevel::Local);
    history.operations.push(operation(9, read, outcome));
    let summary = check_linearizable(&history, STEPS_MAX).unwrap();
    assert_eq!((summary.objects, summary.undecided, summary.skipped), (2, 1, 1), "it may be this one");
}

#[test]
fn a_sequential_create_of_unknown_outcome_may_be_why_its_parent_cannot_be_deleted() {
    let child = Write::Create(Create { sequential: true, ..Create::new(path("/a/q"), "x") });
    let delete = Write::Delete { path: path("/a"), version: None };
    let log = writes(&[create("/a", false), child, delete]);
    let mut history = asked(&log);
    assert!(matches!(history.operations[2].outcome, Outcome::Written { result: Err(_), .. }));
    history.operations[1].outcome = Outcome::Unknown;
    let summary = check_linearizable(&history, STEPS_MAX).unwrap();
    assert_eq!((summary.objects, summary.undecided), (1, 1));
}

#[test]
fn calls_outside_of_sessions_have_no_order_but_that_of_time() {
    let bodies = [create("/a", false), set("/a", "1"), set("/a", "2")];
    let mut log = writes(&bodies);
    for entry in &mut log {
        if let Some(command) = &mut entry.command
            && let CommandBody::Write(_) = command.body
        {
            (command.session, command.number) = (None, None);
        }
    }
    let alone = |client, at, write: &Write| Operation {
        client,
        session: None,
        unary: true,
        ..operation(at, Call::Write(write.clone()), Outcome::Unknown)
    };
    // Called in another order than carried out, and without answers.
    let mut history = History {
        operations: vec![alone(3, 1, &bodies[2]), alone(2, 2, &bodies[1]), alone(1, 3, &bodies[0])],
    };
    assert_eq!(check_order(&history, Some(&log)).unwrap().unknown_found, 3);
    history.operations.pop();
    let violation = check_order(&history, Some(&log)).unwrap_err();
    assert_eq!(violation.rule, Rule::AtMostOnce, "{violation}");
    // A call in a session is none outside of it.
    history.operations.push(Operation { unary: false, ..alone(1, 3, &bodies[0]) });
    assert!(check_order(&history, Some(&log)).is_err());
}

#[test]
fn a_page_marks_the_impossible_operation_and_escapes_what_it_shows() {
    let history = asked(&writes(&[create("/a", false), set("/a", "<script>&\"")]));
    let violation =
        history::Violation { rule: Rule::Fresh, operation: Some(1), explanation: "a < b & \"c\"".to_owned() };
    let html = page(&history, Some(&violation));
    assert!(html.contains("a &lt; b &amp; ") && html.contains("id=\"bad\""));
    assert!(!html.contains("<script>&"));
    assert!(!page(&history, None).contains("id=\"bad\""));
}

#[test]
fn json_lines_have_one_object_for_each_operation() {
    let history = asked(&writes(&[create("/a", false), set("/a", "1")]));
    let text = json_lines(&history);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["call"], "set /a \"1\"");
    assert_eq!((&lines[1]["outcome"], &lines[1]["zxid"]), (&"written".into(), &"0x100000003".into()));
}

#[test]
fn a_session_without_answers_belongs_to_a_client_that_can_have_sent_its_calls() {
    // Two clients delete the same znode and hear nothing; the second never got an answer in its session.
    let delete = || Write::Delete { path: path("/a"), version: None };
    let mut log = writes(&[create("/a", false), delete(), create("/a", false)]);
    let mut history = asked(&log);
    let other = SessionId(z(5).0);
    let opening =
        CommandBody::OpenSession { token_hash: TokenHash([1; 32]), timeout_ms: 1000, sessions_max: u32::MAX };
    for (session, number, body) in
        [(None, None, opening), (Some(other), Some(WriteNumber(1)), CommandBody::Write(delete()))]
    {
        let command = Some(Command { session, number, ..Command::outside(body) });
        log.push(Committed { zxid: z(log.len() as u32), time_ms: 0, origin: None, level: None, command });
    }
    let unknown = operation(1, Call::Write(delete()), Outcome::Unknown);
    history.operations[1] = Operation { session: None, ..unknown.clone() };
    history.operations.push(Operation { session: None, client: 2, called: 40, ..unknown });
    assert_eq!(check_order(&history, Some(&log)).unwrap().unknown_found, 2);
    history.operations.pop();
    assert_eq!(rule(check_order(&history, Some(&log))), Some(Rule::AtMostOnce));
}

#[test]
fn a_session_without_answers_does_not_belong_to_a_client_that_called_too_late() {
    // The second client deletes and hears nothing. Long after, the first, which has seen what came of it, deletes too.
    let delete = || Write::Delete { path: path("/a"), version: None };
    let bodies = [
        (
            None,
            None,
            CommandBody::OpenSession {
                token_hash: TokenHash([1; 32]),
                timeout_ms: 1000,
                sessions_max: u32::MAX,
            },
        ),
        (Some(SessionId(z(3).0)), Some(WriteNumber(1)), CommandBody::Write(delete())),
        (Some(SESSION), Some(WriteNumber(2)), CommandBody::Write(create("/a", false))),
    ];
    let mut log = writes(&[create("/a", false)]);
    for (session, number, body) in bodies {
        let command = Some(Command { session, number, ..Command::outside(body) });
        log.push(Committed { zxid: z(log.len() as u32), time_ms: 0, origin: None, level: None, command });
    }
    let mut history = asked(&log);
    let unknown = Operation { session: None, ..operation(1, Call::Write(delete()), Outcome::Unknown) };
    history.operations[1] = Operation { client: 2, ..unknown.clone() };
    history.operations.push(Operation { called: 40, ..unknown });
    assert_eq!(check_order(&history, Some(&log)).unwrap().unknown_found, 1);
    history.operations.remove(1);
    assert_eq!(
        rule(check_order(&history, Some(&log))),
        Some(Rule::WriteOrder),
        "no other client can have called"
    );
}
