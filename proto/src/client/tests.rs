use std::time::Duration;

use api::{Epoch, ErrorCode, PathError, ports::Role};
use bytes::Bytes;
use tonic::{Code, Status};

use super::*;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn path(s: &str) -> Path {
    Path::new(s).unwrap()
}

fn a_stat() -> Stat {
    Stat {
        czxid: Zxid(0x1_0000_0001),
        mzxid: Zxid(0x1_0000_0002),
        pzxid: Zxid(0x1_0000_0003),
        ctime_ms: -4,
        mtime_ms: 5,
        version: 6,
        cversion: 7,
        aversion: 8,
        ephemeral_owner: Some(SessionId(9)),
        data_length: 10,
        num_children: 11,
    }
}

fn writes() -> Vec<Write> {
    let data = Bytes::from_static(b"value");
    let create = |ephemeral, sequential| Create {
        path: path("/a/b"),
        data: data.clone(),
        mode: CreateMode { ephemeral, sequential },
    };
    vec![
        Write::Create(create(false, false)),
        Write::Create(create(true, false)),
        Write::Create(create(false, true)),
        Write::Set { path: path("/a"), data: data.clone(), version: None },
        Write::Set { path: path("/a"), data: Bytes::new(), version: Some(0) },
        Write::Delete { path: path("/"), version: None },
        Write::Delete { path: path("/a"), version: Some(i32::MAX) },
        Write::Multi(vec![]),
        Write::Multi(vec![
            MultiOp::Create(create(true, true)),
            MultiOp::Set { path: path("/a"), data: data.clone(), version: Some(3) },
            MultiOp::Delete { path: path("/a/c"), version: None },
            MultiOp::Check { path: path("/x"), version: None },
            MultiOp::Check { path: path("/x"), version: Some(0) },
        ]),
    ]
}

fn errors() -> Vec<OpError> {
    let text = || "what happened; what to do".to_owned();
    let mut all = vec![
        OpError::NoNode(path("/a")),
        OpError::NodeExists(path("/a b/ä")),
        OpError::NotEmpty { path: path("/a"), children: 3 },
        OpError::BadVersion { path: path("/a"), expected: 0, actual: -7 },
        OpError::NoChildrenForEphemerals(path("/a")),
        OpError::BadPath(PathError::Empty),
        OpError::BadPath(PathError::NotAbsolute),
        OpError::BadPath(PathError::TrailingSlash),
        OpError::BadPath(PathError::EmptyElement(4)),
        OpError::BadPath(PathError::RelativeElement(5)),
        OpError::BadPath(PathError::BadCharacter { ch: '\0', at: 2 }),
        OpError::BadPath(PathError::BadCharacter { ch: '\u{1f600}', at: 2 }),
        OpError::BadPath(PathError::TooLong(9000)),
        OpError::BadArguments(text()),
        OpError::BadArguments(String::new()),
        OpError::TooLarge { size: u64::MAX, limit: 1 << 20 },
        OpError::SessionExpired(SessionId(u64::MAX)),
        OpError::OutOfOrder { expected: WriteNumber(3), got: WriteNumber(5) },
        OpError::SessionMoved(SessionId(7)),
        OpError::NumberReused(WriteNumber(4)),
        OpError::NoSequenceNumber { path: Path::prefix("/q/").unwrap(), next: 5 },
        OpError::Unavailable(text()),
        OpError::Overloaded(text()),
        OpError::Unknown(text()),
        OpError::Internal(text()),
        OpError::DiskFull,
        // At the limits of what fits into the headers of a status.
        OpError::NoNode(path(&format!("/{}", "x".repeat(Path::MAX_BYTES - 1)))),
        OpError::Unavailable("ü".repeat(4096)),
    ];
    for cause in all.clone() {
        all.push(OpError::Multi { index: 2, cause: Box::new(cause) });
    }
    all
}

/// Through the bytes, as on a real stream.
fn reencode<M: prost::Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

#[test]
fn requests_survive_the_wire() {
    let reads = [
        Read::Get { path: path("/a") },
        Read::Exists { path: path("/") },
        Read::Children { path: path("/b"), page: Page::default() },
        Read::Children { path: path("/b"), page: Page { after: "a".into(), size: 7 } },
    ];
    let levels = [ReadLevel::Local, ReadLevel::AtLeast(Zxid(u64::MAX)), ReadLevel::Linearizable];
    let ops = writes()
        .into_iter()
        .map(|write| Op::Write { number: WriteNumber(7), write })
        .chain(reads.into_iter().flat_map(|read| levels.map(|level| Op::Read(read.clone(), level))))
        .chain([Op::Sync, Op::Ping, Op::Close]);
    for op in ops {
        let request = Request { xid: 42, op, trace: traceparent(TRACEPARENT) };
        assert_eq!(Request::try_from(reencode(&v1::Request::from(request.clone()))), Ok(request));
    }
}

#[test]
fn a_read_without_a_level_is_local_and_one_that_cannot_be_kept_is_refused() {
    let read = |level: i32, min_zxid| {
        let get = v1::GetRequest { path: "/a".into(), read: Some(v1::ReadOptions { level, min_zxid }) };
        <(Read, ReadLevel)>::try_from(get).map(|(_, level)| level)
    };
    let wire = |level: v1::ReadLevel| i32::from(level);
    assert_eq!(read(0, 0), Ok(ReadLevel::Local), "as clients write it that know nothing of levels");
    assert_eq!(read(wire(v1::ReadLevel::Local), 0), Ok(ReadLevel::Local));
    for (level, min_zxid, words) in [
        (wire(v1::ReadLevel::AtLeast), 0, "min_zxid is missing"),
        (wire(v1::ReadLevel::Unspecified), 5, "READ_LEVEL_AT_LEAST"),
        (wire(v1::ReadLevel::Linearizable), 5, "READ_LEVEL_AT_LEAST"),
        (99, 0, "newer than this server"),
    ] {
        let error = read(level, min_zxid).unwrap_err();
        assert!(error.code() == ErrorCode::BadArguments && error.to_string().contains(words), "{error}");
    }
    // Nothing is before the first entry: not an error, and nothing to wait for.
    let zero = Op::Read(Read::Get { path: path("/a") }, ReadLevel::AtLeast(Zxid::ZERO));
    let back = Request::try_from(v1::Request::from(Request { xid: 1, op: zero, trace: None })).unwrap();
    assert_eq!(back.op, Op::Read(Read::Get { path: path("/a") }, ReadLevel::Local));
}

#[test]
fn values_are_not_copied() {
    let data = Bytes::from(vec![7; 100]);
    let write = Write::Set { path: path("/a"), data: data.clone(), version: None };
    let request = Request { xid: 1, op: Op::Write { number: WriteNumber(1), write }, trace: None };
    let back = Request::try_from(v1::Request::from(request)).unwrap();
    let Op::Write { write: Write::Set { data: back, .. }, .. } = back.op else { panic!("{back:?}") };
    assert_eq!(back.as_ptr(), data.as_ptr());
}

#[test]
fn responses_survive_the_wire() {
    let multi = vec![
        MultiOutcome::Created { path: path("/a0000000001"), stat: a_stat() },
        MultiOutcome::Set { stat: a_stat() },
        MultiOutcome::Deleted,
        MultiOutcome::Checked,
    ];
    let outcomes = [
        Outcome::Write(WriteOutcome::Created { path: path("/a"), stat: a_stat() }),
        Outcome::Write(WriteOutcome::Set { stat: a_stat() }),
        Outcome::Write(WriteOutcome::Deleted),
        Outcome::Write(WriteOutcome::Multi(multi)),
        Outcome::Read(ReadOutcome::Data { data: Bytes::from_static(b"v"), stat: a_stat() }),
        Outcome::Read(ReadOutcome::Exists { stat: Some(a_stat()) }),
        Outcome::Read(ReadOutcome::Exists { stat: Some(Stat::default()) }),
        Outcome::Read(ReadOutcome::Exists { stat: None }),
        Outcome::Read(ReadOutcome::Children {
            names: vec!["a".into(), "b".into()],
            next: "b".into(),
            stat: a_stat(),
        }),
        Outcome::Sync,
        Outcome::Ping,
        Outcome::Close,
    ];
    for result in outcomes.map(Ok).into_iter().chain(errors().into_iter().map(Err)) {
        let response = Response { xid: 3, zxid: Zxid(0x2_0000_0005), result, leaderless: true };
        assert_eq!(Response::try_from(reencode(&v1::Response::from(response.clone()))), Ok(response));
    }
}

#[test]
fn sessions_open_over_the_wire() {
    let token = SessionToken(*b"0123456789abcdef");
    for resume in [None, Some((SessionId(5), token))] {
        let open = OpenSession { resume, timeout_ms: 10_000, last_zxid: Zxid(77) };
        assert_eq!(OpenSession::try_from(reencode(&v1::OpenSession::from(open))), Ok(open));
    }
    let opened =
        SessionOpened { session: SessionId(5), token, timeout_ms: 4000, node: PeerId(2), leaderless: true };
    assert_eq!(SessionOpened::try_from(reencode(&v1::SessionOpened::from(opened))), Ok(opened));

    let wire = v1::OpenSession { session_id: 5, token: Bytes::from_static(b"short"), ..Default::default() };
    assert!(OpenSession::try_from(wire.clone()).unwrap_err().to_string().contains("16 bytes"));
    assert!(OpenSession::try_from(v1::OpenSession { session_id: 0, ..wire }).is_err());
    assert!(SessionOpened::try_from(v1::SessionOpened::default()).is_err());
}

#[test]
fn every_error_survives_as_a_status() {
    for error in errors() {
        let status = to_status(&error);
        assert_eq!(from_status(&status), error);
        assert_eq!(details(&status), Some(error.clone()));

        // As HTTP/2 carries it: below the 16 KiB of headers that hyper takes by default.
        let headers = status.into_http::<()>().into_parts().0.headers;
        let size: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 32).sum();
        assert!(size < 15 << 10, "{size} bytes of headers for {error:?}");
        assert_eq!(from_status(&Status::from_header_map(&headers).unwrap()), error);
    }
}

#[test]
fn statuses_have_the_code_that_the_grpc_rules_ask_for() {
    let code = |error: OpError| (error.code().as_str(), to_status(&error).code());
    let got: std::collections::BTreeMap<_, _> = errors().into_iter().map(code).collect();
    let want = [
        (ErrorCode::NoNode, Code::NotFound),
        (ErrorCode::NodeExists, Code::AlreadyExists),
        (ErrorCode::NotEmpty, Code::FailedPrecondition),
        (ErrorCode::BadVersion, Code::Aborted),
        (ErrorCode::NoChildrenForEphemerals, Code::FailedPrecondition),
        (ErrorCode::BadArguments, Code::InvalidArgument),
        (ErrorCode::TooLarge, Code::InvalidArgument),
        (ErrorCode::SessionExpired, Code::FailedPrecondition),
        (ErrorCode::OutOfOrder, Code::Aborted),
        (ErrorCode::SessionMoved, Code::Aborted),
        (ErrorCode::NumberReused, Code::InvalidArgument),
        (ErrorCode::NoSequenceNumber, Code::FailedPrecondition),
        (ErrorCode::Unavailable, Code::Unavailable),
        (ErrorCode::Overloaded, Code::ResourceExhausted),
        (ErrorCode::Unknown, Code::Unknown),
        (ErrorCode::Internal, Code::Internal),
        (ErrorCode::DiskFull, Code::ResourceExhausted),
    ];
    assert_eq!(got, want.map(|(ours, grpc)| (ours.as_str(), grpc)).into());
}

#[test]
fn the_names_of_codes_are_the_same_everywhere() {
    for error in errors() {
        let wire = v1::Error::from(error.clone());
        assert_eq!(wire.code().as_str_name(), format!("ERROR_CODE_{}", error.code().as_str()));
    }
}

#[test]
fn statuses_of_strangers_become_the_nearest_error() {
    let from = |code| from_status(&Status::new(code, "no idea"));
    assert!(matches!(from(Code::Unavailable), OpError::Unavailable(_)));
    assert!(matches!(from(Code::Cancelled), OpError::Unknown(_)));
    assert!(matches!(from(Code::DeadlineExceeded), OpError::Unknown(_)));
    assert!(matches!(from(Code::NotFound), OpError::Unknown(_)), "whatever was not found, it was no znode");
    assert!(from(Code::Unimplemented).to_string().contains("check host and port"));
    assert_eq!(details(&Status::not_found("no idea")), None);
}

#[test]
fn an_error_from_the_future_is_shown_and_not_guessed_at() {
    for wire in [
        v1::Error { code: 99, message: "new".into(), ..Default::default() },
        v1::Error { code: v1::ErrorCode::NoNode.into(), message: "new".into(), ..Default::default() },
    ] {
        let error = OpError::from(wire);
        assert_eq!(error.code(), ErrorCode::Internal);
        assert!(error.to_string().contains("new"), "{error}");
    }
}

#[test]
fn malformed_requests_are_refused_with_a_remedy() {
    use v1::request::Op as Wire;
    let request = |write_number, op| {
        Request::try_from(v1::Request { xid: 1, write_number, op, traceparent: "malformed".into() })
    };
    let set = |path: &str, version| v1::SetRequest { path: path.into(), data: Bytes::new(), version };
    let get = |path: &str| Wire::Get(v1::GetRequest { path: path.into(), ..Default::default() });

    for (result, words) in [
        (request(0, None), "Request.op is missing"),
        (request(0, Some(Wire::Set(set("/a", None)))), "write_number is missing"),
        (request(1, Some(Wire::Ping(v1::Ping {}))), "number writes only"),
        (request(1, Some(Wire::Set(set("/a", Some(-1))))), "leave it out"),
        (
            request(1, Some(Wire::Delete(v1::DeleteRequest { path: "/a".into(), version: Some(-2) }))),
            "negative",
        ),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadArguments);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(request(0, Some(get("a"))), Err(OpError::BadPath(PathError::NotAbsolute)));

    let ops = vec![
        v1::MultiOp { op: Some(v1::multi_op::Op::Set(set("/a", None))) },
        v1::MultiOp { op: Some(v1::multi_op::Op::Set(set("/a/", None))) },
    ];
    let error = request(1, Some(Wire::Multi(v1::MultiRequest { ops }))).unwrap_err();
    assert_eq!(
        error,
        OpError::Multi { index: 1, cause: Box::new(OpError::BadPath(PathError::TrailingSlash)) }
    );
    let ops = vec![v1::MultiOp { op: None }];
    let error = request(1, Some(Wire::Multi(v1::MultiRequest { ops }))).unwrap_err();
    assert!(error.to_string().contains("MultiOp.op is missing"), "{error}");
}

#[test]
fn malformed_responses_are_refused() {
    use v1::response::Result as Wire;
    let stat = Some(v1::Stat::default());
    for result in [
        None,
        Some(Wire::Set(v1::SetResponse { stat: None })),
        Some(Wire::Create(v1::CreateResponse { path: "/a".into(), stat: None })),
        Some(Wire::Create(v1::CreateResponse { path: "a".into(), stat })),
        Some(Wire::Multi(v1::MultiResponse { results: vec![v1::MultiResult { result: None }] })),
    ] {
        assert!(Response::try_from(v1::Response { xid: 1, zxid: 1, result, leaderless: false }).is_err());
    }
}

#[test]
fn unary_calls_make_no_ephemerals_and_answer_in_kind() {
    for write in writes() {
        let ephemeral = format!("{write:?}").contains("ephemeral: true");
        assert_eq!(sessionless(write.clone()).is_err(), ephemeral, "{write:?}");
    }
    let set = WriteOutcome::Set { stat: a_stat() };
    assert_eq!(v1::SetResponse::try_from(set.clone()), Ok(v1::SetResponse { stat: Some(a_stat().into()) }));
    assert_eq!(v1::DeleteResponse::try_from(set).unwrap_err().code(), ErrorCode::Internal);
    let exists = v1::ExistsResponse::try_from(ReadOutcome::Exists { stat: None });
    assert_eq!(exists, Ok(v1::ExistsResponse { stat: None, as_of: None }));
}

#[test]
fn a_node_status_survives_the_wire() {
    for (role, leader) in [
        (Role::Looking, None),
        (Role::Following, Some(PeerId(2))),
        (Role::Leading, Some(PeerId(1))),
        (Role::Observing, Some(PeerId(2))),
    ] {
        let status = NodeStatus {
            id: PeerId(1),
            ensemble: "e".into(),
            role,
            serving: leader.is_some(),
            leader,
            epoch: Epoch(3),
            zxid: Zxid(30),
            committed: Zxid(20),
            applied: Zxid(10),
            sessions: 4,
            znodes: 5,
            digest: u64::MAX,
            uptime: Duration::from_millis(1234),
            members: vec![
                NodeMember {
                    id: PeerId(1),
                    client_address: "h:1".into(),
                    membership: api::Membership::Observer,
                },
                NodeMember {
                    id: PeerId(2),
                    client_address: "h:2".into(),
                    membership: api::Membership::VOTER,
                },
            ],
            ensemble_id: leader.map(|id| api::EnsembleId(u128::from(id.0))),
            peers: vec![api::ports::PeerReport {
                id: PeerId(2),
                address: "h:3".into(),
                fault: leader.map(|_| "gone".into()),
                refused: leader.is_none(),
                since: Duration::from_millis(9),
                build: None,
            }],
            disk: api::ports::Room::Low,
            clock_offset_ms: leader.map(|_| -7),
        };
        assert_eq!(NodeStatus::from(reencode(&v1::StatusResponse::from(status.clone()))), status);
    }
}
