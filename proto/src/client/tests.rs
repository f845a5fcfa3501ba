use std::time::Duration;

use api::{
    Acl, AclEntry, Child, Create, DeleteTree, EnsembleId, Epoch, ErrorCode, Expected, Fate, Identities,
    Identity, Level, Listing, Look, MultiOp, MultiOutcome, NodeKind, OpError, Page, Path, PathError, PeerId,
    Permissions, Quota, QuotaAt, Read, ReadLevel, ReadOutcome, Retry, Scheme, SessionId, SessionToken, Stat,
    Usage, Write, WriteNumber, WriteOutcome, Zxid,
    ports::Role,
    quota::{Bounds, Counted},
    session::{Item, Limits, Notice, Op, Open, Opened, Outcome, Request, Response},
};
use bytes::Bytes;
use tonic::{Code, Status};

use super::*;
use crate::v1;

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
        kind: NodeKind::Ephemeral,
    }
}

fn writes() -> Vec<Write> {
    let data = Bytes::from_static(b"value");
    let create = |ephemeral, sequential| Create {
        kind: if ephemeral { NodeKind::Ephemeral } else { NodeKind::Persistent },
        sequential,
        ..Create::new(path("/a/b"), data.clone())
    };
    vec![
        Write::Create(create(false, false)),
        Write::Create(create(true, false)),
        Write::Create(create(false, true)),
        Write::Set { path: path("/a"), data: Some(data.clone()), version: None },
        Write::Set { path: path("/a"), data: Some(Bytes::new()), version: Some(0.into()) },
        Write::Set { path: path("/a"), data: None, version: None },
        Write::Create(Create { data: None, ..create(false, false) }),
        Write::Delete { path: path("/"), version: None },
        Write::Delete { path: path("/a"), version: Some(i32::MAX.into()) },
        Write::Multi(vec![]),
        Write::Multi(vec![
            MultiOp::Create(create(true, true)),
            MultiOp::Set { path: path("/a"), data: Some(data.clone()), version: Some(Zxid(3).into()) },
            MultiOp::Delete { path: path("/a/c"), version: None },
            MultiOp::Check { path: path("/x"), version: None },
            MultiOp::Check { path: path("/x"), version: Some(0.into()) },
            MultiOp::Check { path: path("/x"), version: Some(Expected::Both { version: 1, czxid: Zxid(2) }) },
            MultiOp::CheckAbsent { path: path("/x") },
            MultiOp::SetAcl { path: path("/x"), acl: an_acl(), aversion: Some(0.into()) },
        ]),
        Write::Create(Create { acl: an_acl(), ..Create::new(path("/l"), "") }),
        Write::SetAcl { path: path("/l"), acl: an_acl(), aversion: None },
        Write::SetAcl { path: path("/l"), acl: Acl::default(), aversion: Some(3.into()) },
        Write::DeleteTree(DeleteTree {
            path: path("/t"),
            version: Some(Zxid(9).into()),
            keep_root: true,
            max_znodes: 7,
        }),
        Write::SetQuota { path: path("/q"), quota: a_quota().quota },
        Write::SetQuota { path: path("/q"), quota: Quota::default() },
    ]
}

fn a_quota() -> QuotaAt {
    let hard = Bounds { znodes: Some(3), bytes: None };
    let quota = Quota { soft: Bounds { znodes: None, bytes: Some(0) }, hard };
    QuotaAt { path: path("/q"), quota, used: Usage { znodes: 1, bytes: 2 } }
}

/// With an entry of each scheme, and each permission.
fn an_acl() -> Acl {
    let entry = |(bit, (scheme, id))| AclEntry {
        identity: Identity::new(scheme, id).unwrap(),
        permissions: Permissions::from_bits(1u32 << bit).unwrap(),
    };
    let all = [
        (Scheme::World, "anyone"),
        (Scheme::Digest, "ada:hash"),
        (Scheme::Ip, "10.0.0.0/8"),
        (Scheme::X509, "CN=ada,O=x"),
        (Scheme::User, "ada"),
    ];
    let role =
        AclEntry { identity: Identity::new(Scheme::Role, "ops").unwrap(), permissions: Permissions::ALL };
    Acl::new((0..).zip(all).map(entry).chain([role]).collect()).unwrap()
}

fn errors() -> Vec<OpError> {
    let text = || "what happened; what to do".to_owned();
    let mut all = vec![
        OpError::NoNode(path("/a")),
        OpError::NodeExists(path("/a b/ä")),
        OpError::NotEmpty { path: path("/a"), children: 3 },
        OpError::BadVersion { path: path("/a"), expected: 0, actual: -7 },
        OpError::BadCzxid { path: path("/a"), expected: Zxid(0), actual: Zxid(7) },
        OpError::Present { path: path("/a"), actual: Zxid(7) },
        OpError::QuotaExceeded { path: path("/"), counted: Counted::Znodes, limit: 0, actual: 1 },
        OpError::QuotaExceeded { path: path("/a"), counted: Counted::Bytes, limit: 4, actual: 5 },
        OpError::AnswerTooLarge { size: 9, limit: 8 },
        OpError::TimedOut(250),
        OpError::ReadOnly,
        OpError::NoChildrenForEphemerals(path("/a")),
        OpError::Gone { oldest: Zxid(77) },
        OpError::LimitExceeded { what: "watches".into(), limit: 5, actual: 6, remedy: "cancel some".into() },
        OpError::BadPath(PathError::Empty),
        OpError::BadPath(PathError::NotAbsolute),
        OpError::BadPath(PathError::TrailingSlash),
        OpError::BadPath(PathError::EmptyElement(4)),
        OpError::BadPath(PathError::RelativeElement(5)),
        OpError::BadPath(PathError::BadCharacter { ch: '\0', at: 2 }),
        OpError::BadPath(PathError::BadCharacter { ch: '\u{1f600}', at: 2 }),
        OpError::BadPath(PathError::TooLong(9000)),
        OpError::BadPath(PathError::TooDeep(300)),
        OpError::NoAuth { path: path("/a"), permission: Permissions::READ.or(Permissions::ADMIN) },
        OpError::BadAcl(text()),
        OpError::BadArguments(text()),
        OpError::BadArguments(String::new()),
        OpError::TooLarge { size: u64::MAX, limit: 1 << 20 },
        OpError::SessionExpired(SessionId(u64::MAX)),
        OpError::OutOfOrder { expected: WriteNumber(3), got: WriteNumber(5) },
        OpError::SessionMoved(SessionId(7)),
        OpError::NumberReused(WriteNumber(4)),
        OpError::ResultForgotten(WriteNumber(4)),
        OpError::Unsupported(text()),
        OpError::NoSequenceNumber { path: Path::prefix("/q/").unwrap(), next: 5 },
        OpError::Unavailable(text()),
        OpError::Overloaded(text()),
        OpError::Unknown(text()),
        OpError::Internal(text()),
        OpError::DiskFull,
        OpError::Level(text()),
        OpError::WrongEnsemble { expected: EnsembleId(1), actual: EnsembleId(u128::MAX) },
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
        Read::Acl { path: path("/a") },
        Read::Children { path: path("/b"), page: Page::default() },
        Read::Children { path: path("/b"), page: Page { after: "a".into(), size: 7, look: Look::Data } },
        Read::Children { path: path("/b"), page: Page { look: Look::Stat, ..Page::default() } },
        Read::Count { path: path("/a") },
        Read::Quotas { path: path("/"), page: Page { after: "/a".into(), size: 3, ..Page::default() } },
    ];
    let levels = [ReadLevel::Local, ReadLevel::AtLeast(Zxid(u64::MAX)), ReadLevel::Linearizable];
    let ops = (writes().into_iter().map(Op::Write))
        .chain(reads.into_iter().flat_map(|read| levels.map(|level| Op::Read(read.clone(), level))))
        .chain(levels.map(|level| Op::MultiRead(reads_of_several(), level)))
        .chain([
            Op::Ephemerals { prefix: "/".into(), after: String::new(), size: 0 },
            Op::Ephemerals { prefix: "/a/".into(), after: "/a/b".into(), size: 7 },
        ])
        .chain([Op::Sync, Op::WhoAmI, Op::Ping, Op::Close]);
    for op in ops {
        let number = matches!(op, Op::Write(_)).then_some(WriteNumber(7));
        let sent = Request {
            xid: 42,
            number,
            op,
            trace: traceparent(TRACEPARENT),
            timeout_ms: 9,
            min_level: Level(7),
        };
        assert_eq!(request(reencode(&request_to_wire(sent.clone()).unwrap())), sent);
    }
    assert_eq!(op_to_wire(Op::Invalid(OpError::DiskFull)), None, "of servers alone");
    let count = vec![Read::Count { path: path("/a") }];
    assert_eq!(op_to_wire(Op::MultiRead(count, ReadLevel::Local)), None, "the wire has no such part");
}

fn reads_of_several() -> Vec<Read> {
    let page = Page { after: "a".into(), size: 7, look: Look::Stat };
    vec![
        Read::Get { path: path("/a") },
        Read::Exists { path: path("/b") },
        Read::Children { path: path("/"), page },
    ]
}

#[test]
fn conditions_that_contradict_each_other_and_levels_of_parts_are_refused() {
    use v1::request::Op as Wire;
    let check = |r: v1::CheckRequest| {
        let op = v1::MultiOp { op: Some(v1::multi_op::Op::Check(r)) };
        op_of(Wire::Multi(v1::MultiRequest { ops: vec![op] }))
    };
    for (version, czxid) in [(Some(0), None), (None, Some(0)), (Some(1), Some(2))] {
        let why = check(v1::CheckRequest { path: "/a".into(), version, czxid, absent: true }).unwrap_err();
        assert!(why.code() == ErrorCode::BadArguments && why.to_string().contains("absent"), "{why}");
    }
    let read = Some(v1::ReadOptions::default());
    let get = v1::ReadOp { op: Some(v1::read_op::Op::Get(v1::GetRequest { path: "/a".into(), read })) };
    let why = op_of(Wire::MultiRead(v1::MultiReadRequest { ops: vec![get], read: None })).unwrap_err();
    assert!(why.to_string().contains("set it in the request itself"), "{why}");
    let nothing = v1::MultiReadRequest { ops: vec![v1::ReadOp { op: None }], read: None };
    assert_eq!(op_of(Wire::MultiRead(nothing)).unwrap_err().code(), ErrorCode::Unsupported);
    let why = op_of(Wire::SetQuota(v1::SetQuotaRequest { quota: None })).unwrap_err();
    assert!(why.to_string().contains("quota is missing"), "{why}");
}

fn op_of(wire: v1::request::Op) -> Result<Op, OpError> {
    op(wire)
}

#[test]
fn a_read_without_a_level_is_local_and_one_that_cannot_be_kept_is_refused() {
    let read = |level: i32, min_zxid| {
        let get = v1::GetRequest { path: "/a".into(), read: Some(v1::ReadOptions { level, min_zxid }) };
        op(get).map(|op| if let Op::Read(_, level) = op { level } else { panic!("{op:?}") })
    };
    let wire = |level: v1::ReadLevel| i32::from(level);
    assert_eq!(read(0, 0), Ok(ReadLevel::Local), "as clients write it that know nothing of levels");
    assert_eq!(read(wire(v1::ReadLevel::Local), 0), Ok(ReadLevel::Local));
    for (level, min_zxid, code, words) in [
        (wire(v1::ReadLevel::AtLeast), 0, ErrorCode::BadArguments, "min_zxid is missing"),
        (wire(v1::ReadLevel::Unspecified), 5, ErrorCode::BadArguments, "READ_LEVEL_AT_LEAST"),
        (wire(v1::ReadLevel::Linearizable), 5, ErrorCode::BadArguments, "READ_LEVEL_AT_LEAST"),
        (99, 0, ErrorCode::Unsupported, "ReadOptions.level"),
    ] {
        let error = read(level, min_zxid).unwrap_err();
        assert!(error.code() == code && error.to_string().contains(words), "{error}");
    }
    // Nothing is before the first entry: not an error, and nothing to wait for.
    let zero = Op::Read(Read::Get { path: path("/a") }, ReadLevel::AtLeast(Zxid::ZERO));
    let back = op(op_to_wire(zero).unwrap()).unwrap();
    assert_eq!(back, Op::Read(Read::Get { path: path("/a") }, ReadLevel::Local));
}

#[test]
fn values_are_not_copied() {
    let data = Bytes::from(vec![7; 100]);
    let write = Op::Write(Write::Set { path: path("/a"), data: Some(data.clone()), version: None });
    let back = op(op_to_wire(write).unwrap()).unwrap();
    let Op::Write(Write::Set { data: Some(back), .. }) = back else { panic!("{back:?}") };
    assert_eq!(back.as_ptr(), data.as_ptr());
}

/// Through the bytes of a message.
fn over_the_wire(item: Item) -> Vec<Item> {
    let confirmed_xid = if let Item::Confirmed { xid } = item { xid } else { 0 };
    let items = item_to_wire(item).into_iter().collect();
    super::items(reencode(&v1::SessionResponse { items, confirmed_xid })).unwrap()
}

#[test]
fn responses_survive_the_wire() {
    let multi = vec![
        MultiOutcome::Created { path: path("/a0000000001"), stat: a_stat() },
        MultiOutcome::Set { stat: a_stat() },
        MultiOutcome::Deleted,
        MultiOutcome::Checked,
        MultiOutcome::AclSet { stat: a_stat() },
    ];
    let identities = Identities::new([Identity::superuser()]).unwrap();
    let outcomes = [
        Outcome::Write(WriteOutcome::AclSet { stat: a_stat() }),
        Outcome::Read(ReadOutcome::Acl { acl: an_acl(), stat: a_stat() }),
        Outcome::Read(ReadOutcome::Acl { acl: Acl::default(), stat: a_stat() }),
        Outcome::Write(WriteOutcome::Created { path: path("/a"), stat: a_stat() }),
        Outcome::Write(WriteOutcome::Set { stat: a_stat() }),
        Outcome::Write(WriteOutcome::Deleted),
        Outcome::Write(WriteOutcome::Multi(multi)),
        Outcome::Read(ReadOutcome::Data { data: Some(Bytes::from_static(b"v")), stat: a_stat() }),
        Outcome::Read(ReadOutcome::Data { data: Some(Bytes::new()), stat: a_stat() }),
        Outcome::Read(ReadOutcome::Data { data: None, stat: a_stat() }),
        Outcome::Read(ReadOutcome::Exists { stat: Some(Stat { kind: NodeKind::Ttl { ms: 7 }, ..a_stat() }) }),
        Outcome::Read(ReadOutcome::Exists { stat: Some(a_stat()) }),
        Outcome::Read(ReadOutcome::Exists { stat: Some(Stat::default()) }),
        Outcome::Read(ReadOutcome::Exists { stat: None }),
        Outcome::Read(ReadOutcome::Children {
            names: vec!["a".into(), "b".into()],
            next: "b".into(),
            stat: a_stat(),
        }),
        Outcome::Read(listed(Some(a_stat()))),
        Outcome::Read(ReadOutcome::Counted(Usage { znodes: 3, bytes: 4 })),
        Outcome::Read(ReadOutcome::Quotas { quotas: vec![a_quota(), a_quota()], next: "/q".into() }),
        Outcome::Write(WriteOutcome::TreeDeleted { znodes: 5 }),
        Outcome::Write(WriteOutcome::QuotaSet(a_quota())),
        Outcome::MultiRead(vec![
            Err(OpError::NoNode(path("/a"))),
            Ok(ReadOutcome::Exists { stat: None }),
            Ok(ReadOutcome::Data { data: None, stat: a_stat() }),
            Ok(listed(Some(a_stat()))),
        ]),
        Outcome::Sync,
        Outcome::Ephemerals { paths: vec![path("/a"), path("/a/b")], more: true },
        Outcome::Ephemerals { paths: vec![], more: false },
        Outcome::Authenticated(identities.clone()),
        Outcome::WhoAmI(identities),
        Outcome::Ping,
        Outcome::Close,
    ];
    for result in outcomes.map(Ok).into_iter().chain(errors().into_iter().map(Err)) {
        let response =
            Item::Response(Response { xid: 3, zxid: Zxid(0x2_0000_0005), result, leaderless: true });
        assert_eq!(over_the_wire(response.clone()), [response]);
    }
}

fn listed(stat: Option<Stat>) -> ReadOutcome {
    let child = |name: &str, stat, data| Child { name: name.into(), stat, data };
    let children =
        vec![child("a", None, None), child("b", stat, Some(Bytes::new())), child("c", Some(a_stat()), None)];
    ReadOutcome::Listed(Box::new(Listing { children, next: "c".into(), stat: a_stat() }))
}

#[test]
fn items_keep_their_order_and_strange_ones_are_left_out() {
    let pong =
        |xid| Item::Response(Response { xid, zxid: Zxid(1), result: Ok(Outcome::Ping), leaderless: false });
    let notice = Item::Notice(Notice::Leader { lost: true });
    let wire = |item: &Item| item_to_wire(item.clone()).unwrap();
    let strange = v1::Notice { notice: Some(v1::notice::Notice::Drain(v1::DrainNotice::default())) };
    let strange = v1::Item { item: Some(v1::item::Item::Notice(strange)) };
    let items = vec![wire(&pong(1)), strange, v1::Item { item: None }, wire(&notice), wire(&pong(2))];
    let message = v1::SessionResponse { items, confirmed_xid: 9 };
    let got = super::items(reencode(&message)).unwrap();
    assert_eq!(got, [pong(1), notice, pong(2), Item::Confirmed { xid: 9 }]);
}

#[test]
fn sessions_open_over_the_wire() {
    let token = SessionToken(*b"0123456789abcdef");
    for resume in [None, Some((SessionId(5), token))] {
        for wait_ms in [None, Some(0), Some(7)] {
            let ensemble = wait_ms.map(|_| EnsembleId(8));
            let purpose = if wait_ms.is_some() {
                api::session::Purpose::SessionOrReads
            } else {
                api::session::Purpose::Session
            };
            let open = Open { resume, timeout_ms: 4_000, last_zxid: Zxid(77), wait_ms, ensemble, purpose };
            let wire = v1::OpenSession { client_name: "a".into(), ..open.clone().into() };
            let back = OpenSession::try_from(reencode(&wire)).unwrap();
            assert_eq!((back.open, back.client_name), (open, "a".to_owned()));
        }
    }
    let session = Opened {
        session: SessionId(5),
        token,
        timeout_ms: 4000,
        node: PeerId(2),
        leaderless: true,
        resumed: true,
        zxid: Zxid(9),
        last_write: WriteNumber(3),
        level: api::Level(3),
        limits: Limits {
            requests: 1,
            request_bytes: u64::MAX,
            data_bytes: 2,
            multi_parts: 3,
            watches: 4,
            unacked_writes: 5,
        },
        identities: Identities::new([Identity::new(Scheme::Ip, "1.2.3.4").unwrap()]).unwrap(),
        ensemble: Some(EnsembleId(8)),
        read_only: false,
    };
    let local =
        Opened { session: SessionId(0), token: SessionToken([0; 16]), read_only: true, ..session.clone() };
    for opened in [session, local].map(Item::Opened) {
        assert_eq!(over_the_wire(opened.clone()), [opened]);
    }

    let open = |wire: v1::OpenSession| OpenSession::try_from(wire);
    let resume = |session_id, token| v1::OpenSession {
        resume: Some(v1::SessionRef { session_id, token: Bytes::from_static(token) }),
        ..Default::default()
    };
    assert!(open(resume(5, b"short")).unwrap_err().to_string().contains("16 bytes"));
    assert!(open(resume(0, b"0123456789abcdef")).unwrap_err().to_string().contains("session_id is 0"));
    assert_eq!(
        open(v1::OpenSession::default()).unwrap().open.timeout_ms,
        10_000,
        "of a client that does not say"
    );
    let name = |length| v1::OpenSession { client_name: "n".repeat(length), ..Default::default() };
    assert!(open(name(128)).is_ok() && open(name(129)).is_err());
    let opened = v1::Item { item: Some(v1::item::Item::Opened(v1::SessionOpened::default())) };
    assert!(super::items(v1::SessionResponse { items: vec![opened], confirmed_xid: 0 }).is_err());
}

/// What the API has and this server does not: it is refused, and never left out in silence.
#[test]
fn options_that_are_not_there_yet_are_unsupported() {
    use v1::request::Op as Wire;
    let create = |f: fn(&mut v1::CreateRequest)| {
        let mut request = v1::CreateRequest { path: "/a".into(), ..Default::default() };
        f(&mut request);
        Wire::Create(request)
    };
    let ops = [
        create(|r| r.kind = 99),
        create(|r| r.parents = v1::Parents::Persistent.into()),
        create(|r| r.keep_existing = true),
    ];
    let unsupported = |op: Op| matches!(op, Op::Invalid(error) if error.code() == ErrorCode::Unsupported);
    for wire in ops {
        let write = matches!(wire, Wire::Create(_));
        let wire =
            v1::Request { xid: 1, write_number: u64::from(write), op: Some(wire), ..Default::default() };
        assert!(unsupported(request(wire.clone()).op), "{wire:?}");
    }
    let ping = v1::Request { op: Some(Wire::Ping(v1::PingRequest {})), ..Default::default() };
    for (wire, level) in [(0, 1), (1, 1), (2, 2), (u32::MAX, u32::MAX)] {
        let asked = request(v1::Request { min_level: wire, ..ping.clone() });
        assert_eq!(
            (asked.op, asked.min_level),
            (Op::Ping, Level(level)),
            "the store knows the ensemble's level"
        );
    }
    assert_eq!(request(v1::Request { timeout_ms: 7, ..ping }).timeout_ms, 7);
    let short = v1::OpenSession { ensemble_id: Bytes::from_static(&[7; 15]), ..Default::default() };
    assert_eq!(OpenSession::try_from(short).err().map(|e| e.code()), Some(ErrorCode::BadArguments));
}

#[test]
fn every_error_survives_as_a_status() {
    for error in errors() {
        let status = to_status(&error);
        // As HTTP/2 carries it: below the 8 KiB of headers that some clients take by default.
        let headers = status.clone().into_http::<()>().into_parts().0.headers;
        let size: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 32).sum();
        assert!(size < 7 << 10, "{size} bytes of headers for {error:?}");
        let back = from_status(&Status::from_header_map(&headers).unwrap());
        assert_eq!((back.code(), back.fate(), back.retry()), (error.code(), error.fate(), error.retry()));
        let long = error.to_string().len() > 512;
        assert!(back == error || long, "{back:?} and {error:?}");
        assert_eq!(details(&status), Some(back));
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
        (ErrorCode::BadPath, Code::InvalidArgument),
        (ErrorCode::NoAuth, Code::PermissionDenied),
        (ErrorCode::BadAcl, Code::InvalidArgument),
        (ErrorCode::BadArguments, Code::InvalidArgument),
        (ErrorCode::Unsupported, Code::Unimplemented),
        (ErrorCode::TooLarge, Code::InvalidArgument),
        (ErrorCode::SessionExpired, Code::FailedPrecondition),
        (ErrorCode::OutOfOrder, Code::Aborted),
        (ErrorCode::SessionMoved, Code::Aborted),
        (ErrorCode::NumberReused, Code::Aborted),
        (ErrorCode::ResultForgotten, Code::FailedPrecondition),
        (ErrorCode::NoSequenceNumber, Code::FailedPrecondition),
        (ErrorCode::Unavailable, Code::Unavailable),
        (ErrorCode::Overloaded, Code::ResourceExhausted),
        (ErrorCode::Unknown, Code::Unknown),
        (ErrorCode::Internal, Code::Internal),
        (ErrorCode::DiskFull, Code::ResourceExhausted),
        (ErrorCode::Level, Code::FailedPrecondition),
        (ErrorCode::WrongEnsemble, Code::FailedPrecondition),
        (ErrorCode::LimitExceeded, Code::ResourceExhausted),
        (ErrorCode::Gone, Code::OutOfRange),
        (ErrorCode::BadCzxid, Code::Aborted),
        (ErrorCode::Present, Code::Aborted),
        (ErrorCode::QuotaExceeded, Code::ResourceExhausted),
        (ErrorCode::AnswerTooLarge, Code::OutOfRange),
        (ErrorCode::TimedOut, Code::DeadlineExceeded),
        (ErrorCode::ReadOnly, Code::FailedPrecondition),
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
fn statuses_of_strangers_become_the_nearest_error_and_never_say_that_nothing_was_done() {
    let from = |code| from_status(&Status::new(code, "no idea"));
    for code in (1..=16).map(Code::from) {
        let error = from(code);
        assert_eq!(error.fate(), Fate::Unknown, "a proxy may send {code:?} behind the write");
        assert_eq!(from_status(&to_status(&error)), error, "the fate is kept when the error is passed on");
    }
    let nearest =
        [Code::Unavailable, Code::ResourceExhausted, Code::PermissionDenied].map(|c| from(c).code());
    assert_eq!(nearest, [ErrorCode::Unavailable, ErrorCode::Overloaded, ErrorCode::BadArguments]);
    assert_eq!(from(Code::Unavailable).retry(), Retry::OtherNode);
    assert!(matches!(from(Code::Cancelled), OpError::Unknown(_)));
    assert!(matches!(from(Code::DeadlineExceeded), OpError::Unknown(_)));
    assert!(matches!(from(Code::NotFound), OpError::Unknown(_)), "whatever was not found, it was no znode");
    assert!(from(Code::Unimplemented).to_string().contains("check host and port"));
    assert_eq!(details(&Status::not_found("no idea")), None);
}

#[test]
fn an_error_from_the_future_is_shown_and_not_guessed_at() {
    let (fate, retry) = (v1::Fate::NotDone.into(), v1::Retry::SameNode.into());
    let new = v1::Error { code: 99, message: "new".into(), fate, retry, ..Default::default() };
    let error = OpError::from(reencode(&new));
    let told = (error.code(), error.fate(), error.retry());
    assert_eq!(told, (ErrorCode::Other, Fate::NotDone, Retry::SameNode));
    assert_eq!(error.to_string(), "new");
    let strange = OpError::from(v1::Error { fate: 99, retry: 99, ..new.clone() });
    assert_eq!((strange.fate(), strange.retry()), (Fate::Unknown, Retry::Never));
    let without_its_path = OpError::from(v1::Error { code: v1::ErrorCode::NoNode.into(), ..new });
    assert_eq!(without_its_path.code(), ErrorCode::NoNode);
}

#[test]
fn malformed_requests_are_refused_with_a_remedy() {
    use v1::request::Op as Wire;
    let request = |write_number, op| {
        let wire =
            v1::Request { xid: 1, write_number, op, traceparent: "malformed".into(), ..Default::default() };
        let request = request(wire);
        assert_eq!(request.trace, None);
        if let Op::Invalid(error) = request.op { Err(error) } else { Ok(request.op) }
    };
    let set = |path: &str, version| v1::SetRequest { path: path.into(), version, ..Default::default() };
    let get = |path: &str| Wire::Get(v1::GetRequest { path: path.into(), ..Default::default() });
    let delete = v1::DeleteRequest { path: "/a".into(), version: Some(-2), ..Default::default() };
    let listed = |scheme: &str, id: &str, permission| v1::AclEntry {
        identity: Some(v1::Identity { scheme: scheme.into(), id: id.into() }),
        permissions: vec![permission],
    };
    let list = |entries| {
        let (path, acl) = ("/a".into(), Some(v1::Acl { entries }));
        Wire::SetAcl(v1::SetAclRequest { path, acl, ..Default::default() })
    };
    let no_list = v1::SetAclRequest { path: "/a".into(), ..Default::default() };
    let of_kind = |kind: v1::NodeKind, ttl_ms| {
        let (path, kind) = ("/a".into(), kind.into());
        Wire::Create(v1::CreateRequest { path, kind, ttl_ms, ..Default::default() })
    };

    for (result, code, words) in [
        (request(0, None), ErrorCode::Unsupported, "Request.op is missing"),
        (request(0, Some(Wire::Set(set("/a", None)))), ErrorCode::BadArguments, "write_number is missing"),
        (request(1, Some(Wire::Ping(v1::PingRequest {}))), ErrorCode::BadArguments, "number writes only"),
        (request(1, Some(Wire::Set(set("/a", Some(-1))))), ErrorCode::BadArguments, "leave it out"),
        (request(1, Some(Wire::Delete(delete))), ErrorCode::BadArguments, "negative"),
        (request(1, Some(list(vec![]))), ErrorCode::BadAcl, "0 entries"),
        (
            request(1, Some(list(vec![listed("auth", "", 1)]))),
            ErrorCode::BadAcl,
            "stands for your identities",
        ),
        (request(1, Some(list(vec![listed("what", "x", 1)]))), ErrorCode::BadAcl, "\"what\" is unknown"),
        (request(1, Some(list(vec![listed("ip", "host", 1)]))), ErrorCode::BadAcl, "an address or a network"),
        (
            request(1, Some(list(vec![listed("user", "x", 0)]))),
            ErrorCode::Unsupported,
            "AclEntry.permissions",
        ),
        (
            request(1, Some(list(vec![listed("user", "x", 6)]))),
            ErrorCode::Unsupported,
            "AclEntry.permissions",
        ),
        (request(1, Some(Wire::SetAcl(no_list))), ErrorCode::BadAcl, "SetAclRequest.acl is missing"),
        (request(1, Some(of_kind(v1::NodeKind::Ttl, 0))), ErrorCode::BadArguments, "a TTL of 0 ms"),
        (request(1, Some(of_kind(v1::NodeKind::Container, 1))), ErrorCode::BadArguments, "use NODE_KIND_TTL"),
    ] {
        let error = result.unwrap_err();
        assert!(error.code() == code && error.to_string().contains(words), "{error}");
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
    let created = |path: &str, stat| v1::CreateResponse { path: path.into(), stat, ..Default::default() };
    for result in [
        None,
        Some(Wire::Set(v1::SetResponse::default())),
        Some(Wire::Create(created("/a", None))),
        Some(Wire::Create(created("a", stat))),
        Some(Wire::Multi(v1::MultiResponse { results: vec![v1::MultiResult { result: None }], as_of: None })),
        Some(Wire::SetQuota(v1::SetQuotaResponse::default())),
    ] {
        let response = v1::Response { xid: 1, zxid: 1, result, leaderless: false };
        let items = vec![v1::Item { item: Some(v1::item::Item::Response(response)) }];
        assert!(super::items(v1::SessionResponse { items, confirmed_xid: 0 }).is_err());
    }
}

#[test]
fn calls_without_a_session_make_no_ephemerals_and_are_answered_in_kind() {
    for write in writes() {
        let ephemeral = format!("{write:?}").contains("kind: Ephemeral");
        assert_eq!(Op::Write(write.clone()).sessionless().is_err(), ephemeral, "{write:?}");
    }
    let as_of = v1::AsOf { zxid: 7, leaderless: true, node_id: 2 };
    let set = Outcome::Write(WriteOutcome::Set { stat: a_stat() });
    let response = v1::SetResponse { stat: Some(a_stat().into()), as_of: Some(as_of) };
    assert_eq!(v1::SetResponse::try_from((set.clone(), as_of)), Ok(response));
    assert_eq!(v1::DeleteResponse::try_from((set, as_of)).unwrap_err().code(), ErrorCode::Internal);
    let exists = v1::ExistsResponse::try_from((Outcome::Read(ReadOutcome::Exists { stat: None }), as_of));
    assert_eq!(exists, Ok(v1::ExistsResponse { stat: None, as_of: Some(as_of) }));
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
            version: "1.2.3".into(),
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
                differs: leader.map(|_| "`timing.tick` is 1s there and 2s here".into()),
            }],
            disk: api::ports::Room::Low,
            clock_offset_ms: leader.map(|_| -7),
            plaintext_ports: vec!["client".to_owned()],
            watches: 8,
            connections: 9,
            load: Load {
                errors: 10,
                reads: vec![
                    LoadRange { up_to: Some(Duration::from_micros(250)), requests: 11 },
                    LoadRange { up_to: None, requests: 12 },
                ],
                writes: Vec::new(),
            },
        };
        assert_eq!(NodeStatus::from(reencode(&v1::StatusResponse::from(status.clone()))), status);
    }
}

#[test]
fn the_token_of_a_session_is_in_no_log_line() {
    let token = Bytes::from_static(&[0xab; 16]);
    let resume = v1::SessionRef { session_id: 7, token: token.clone() };
    let open = v1::OpenSession { resume: Some(resume), ..Default::default() };
    let text = format!("{:?}", v1::SessionRequest { open: Some(open), ..Default::default() });
    assert!(text.contains("session_id: 7") && !text.contains(&format!("{token:?}")), "{text}");
    assert!(!text.contains("token") && !text.contains("\\xab"), "{text}");
}
