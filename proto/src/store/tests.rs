use api::{
    Acl, AclEntry, AclId, CommandBody, Create, DeleteTree, Epoch, Expected, Identities, Identity, Level,
    MultiOp, NodeKind, OpError, Path, PathError, Permissions, Quota, RequestHash, Scheme, SessionId,
    StreamId, TokenHash, Write, WriteNumber, Zxid, quota::Bounds, record,
};
use prost::Message as _;

use super::parts::{to_entries, to_identities};
use super::*;
use crate::state as wire;

fn path(p: &str) -> Path {
    parts::path(p).unwrap()
}

fn who(scheme: Scheme, id: &str) -> Identity {
    Identity::new(scheme, id).unwrap()
}

/// Everybody, all schemes and all permissions are in it.
fn a_list() -> Acl {
    let entry = |bits, identity| AclEntry { identity, permissions: Permissions::from_bits(bits).unwrap() };
    Acl::new(vec![
        entry(1, Identity::anyone()),
        entry(2, who(Scheme::Digest, "ada:aGFzaA==")),
        entry(4, who(Scheme::Ip, "10.0.0.0/8")),
        entry(8, who(Scheme::X509, "CN=ada,O=x")),
        entry(16, who(Scheme::User, "ada")),
        entry(31, who(Scheme::Role, "ops")),
    ])
    .unwrap()
}

fn a_quota() -> Quota {
    let hard = Bounds { znodes: Some(u64::MAX), bytes: None };
    Quota { soft: Bounds { znodes: Some(0), bytes: Some(7) }, hard }
}

fn someone() -> Identities {
    Identities::new([who(Scheme::User, "ada"), who(Scheme::Ip, "10.0.0.1")]).unwrap()
}

fn commands() -> Vec<Command> {
    let create = Create {
        kind: NodeKind::Ephemeral,
        sequential: true,
        ..Create::new(path("/a/b"), Bytes::from_static(b"\0\xff"))
    };
    let other = |kind, data| Create { kind, data, ..create.clone() };
    let ttl = NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS };
    let bodies = [
        CommandBody::Write(Write::Create(Create::new(path("/p"), Bytes::new()))),
        CommandBody::Write(Write::Create(other(NodeKind::Container, None))),
        CommandBody::Write(Write::Create(Create { acl: a_list(), ..other(ttl, Some(Bytes::new())) })),
        CommandBody::Write(Write::Set { path: path("/null"), data: None, version: None }),
        CommandBody::Write(Write::Create(create.clone())),
        CommandBody::Write(Write::Set {
            path: Path::root(),
            data: Some(Bytes::new()),
            version: Some(0.into()),
        }),
        CommandBody::Write(Write::Delete { path: path("/ä"), version: None }),
        CommandBody::Write(Write::Multi(vec![
            MultiOp::Create(create),
            MultiOp::Set { path: path("/s"), data: Some(Bytes::from_static(b"x")), version: None },
            MultiOp::Delete { path: path("/d"), version: Some(3.into()) },
            MultiOp::Delete { path: path("/d"), version: Some(Zxid(4).into()) },
            MultiOp::CheckAbsent { path: path("/n") },
            MultiOp::Check { path: path("/c"), version: Some(Expected::Both { version: 0, czxid: Zxid(0) }) },
            MultiOp::SetAcl { path: path("/l"), acl: a_list(), aversion: Some(1.into()) },
        ])),
        CommandBody::Write(Write::SetAcl { path: path("/l"), acl: a_list(), aversion: None }),
        CommandBody::Write(Write::SetAcl { path: path("/l"), acl: Acl::default(), aversion: Some(2.into()) }),
        CommandBody::Write(Write::DeleteTree(DeleteTree {
            path: path("/t"),
            version: Some(Expected::Both { version: 1, czxid: Zxid(2) }),
            keep_root: true,
            max_znodes: 3,
        })),
        CommandBody::Write(Write::SetQuota { path: path("/q"), quota: Quota::default() }),
        CommandBody::Write(Write::SetQuota { path: path("/q"), quota: a_quota() }),
        CommandBody::Refuse { error: OpError::BadAcl("no".into()), request: RequestHash(0) },
        CommandBody::Refuse {
            error: OpError::Multi { index: 3, cause: Box::new(OpError::BadArguments("no".into())) },
            request: RequestHash(1 << 63),
        },
        CommandBody::Refuse { error: OpError::TooLarge { size: 9, limit: 8 }, request: RequestHash(0) },
        CommandBody::Refuse { error: OpError::DiskFull, request: RequestHash(0) },
        CommandBody::Refuse { error: OpError::Unsupported("no".into()), request: RequestHash(0) },
        CommandBody::Refuse { error: OpError::TimedOut(250), request: RequestHash(0) },
        CommandBody::OpenSession { token_hash: TokenHash([3; 32]), timeout_ms: 4000, sessions_max: 5 },
        CommandBody::ResumeSession { session: SessionId(77), stream: StreamId(u64::MAX) },
        CommandBody::CloseSession { session: SessionId(77), expired: Some(Epoch(3)) },
        CommandBody::CloseSession { session: SessionId(78), expired: None },
        CommandBody::Check { of: Zxid(5), digest: u64::MAX },
        CommandBody::Reap { path: path("/c"), czxid: Zxid(5), unused_ms: 7 },
    ];
    let faults = [
        PathError::Empty,
        PathError::NotAbsolute,
        PathError::TrailingSlash,
        PathError::EmptyElement(1),
        PathError::RelativeElement(2),
        PathError::BadCharacter { ch: '\u{1f600}', at: 3 },
        PathError::TooLong(9000),
        PathError::TooDeep(300),
    ];
    let refused =
        faults.map(|fault| CommandBody::Refuse { error: OpError::BadPath(fault), request: RequestHash(0) });
    let bodies = bodies.into_iter().chain(refused);
    let numbered = |body| Command {
        session: Some(SessionId(1)),
        stream: StreamId(7),
        number: Some(WriteNumber(2)),
        acked: WriteNumber(1),
        identities: someone(),
        body,
    };
    bodies.flat_map(|body| [numbered(body.clone()), Command::outside(body)]).collect()
}

fn records() -> Vec<Record> {
    let znode = record::Znode {
        path: path("/a"),
        data: Some(Bytes::from_static(b"value")),
        czxid: Zxid(1),
        mzxid: Zxid(2),
        pzxid: Zxid(3),
        ctime_ms: 4,
        mtime_ms: 5,
        version: 6,
        cversion: 7,
        aversion: 8,
        kind: NodeKind::Ephemeral,
        ephemeral_owner: Some(SessionId(9)),
        acl: AclId::OPEN,
        creates: 10,
        quota: Quota::default(),
    };
    let other = record::Znode { ephemeral_owner: None, data: Some(Bytes::new()), ..znode.clone() };
    let session = record::Session {
        id: SessionId(9),
        token_hash: TokenHash([1; 32]),
        owner: Identities::default(),
        timeout_ms: 1000,
        acked: WriteNumber(5),
        stream: StreamId(3),
    };
    vec![
        Record::Znode(record::Znode { kind: NodeKind::Persistent, ..other.clone() }),
        Record::Header(record::Header {
            applied: Zxid(1),
            digest: u64::MAX,
            znodes: 3,
            sessions: 4,
            time_ms: 5,
            level: Level(2),
        }),
        Record::Znode(znode.clone()),
        Record::Znode(record::Znode { kind: NodeKind::Container, quota: a_quota(), ..other.clone() }),
        Record::Znode(record::Znode {
            kind: NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS },
            data: None,
            acl: AclId(2),
            ..other
        }),
        Record::Acl(record::AccessList { id: AclId(2), acl: a_list() }),
        Record::Session(session.clone()),
        Record::Session(record::Session { owner: someone(), ..session }),
        Record::Result(record::KeptResult {
            session: SessionId(9),
            number: WriteNumber(6),
            zxid: Zxid(8),
            request: RequestHash(u64::MAX),
            outcome: Bytes::from_static(b"\x01\0"),
        }),
    ]
}

#[test]
fn commands_come_back_as_they_were() {
    for command in commands() {
        assert_eq!(decode_command(encode_command(command.clone())), Ok(command));
    }
}

#[test]
fn records_come_back_as_they_were_alone_and_in_streams_cut_anywhere() {
    let mut stream = BytesMut::new();
    for record in records() {
        let bytes = encode_record(record.clone());
        append_record(&mut stream, &bytes);
        assert_eq!(decode_record(bytes.into()), Ok(record));
    }
    for piece in [1, 7, 64, stream.len()] {
        let (mut decoder, mut read) = (RecordDecoder::default(), Vec::new());
        for piece in stream.chunks(piece) {
            decoder.push(piece);
            while let Some(record) = decoder.next_record().unwrap() {
                read.push(record);
            }
        }
        decoder.finish().unwrap();
        assert_eq!(read, records(), "in pieces of {piece}");
    }
}

#[test]
fn a_state_of_another_format_is_refused_by_name() {
    let header = wire::Header { applied: 1, format: 2, level: 1, ..Default::default() };
    let record = wire::Record { kind: Some(wire::record::Kind::Header(header)) };
    let refused = decode_record(record.encode_to_vec().into()).unwrap_err().to_string();
    assert!(refused.contains("format 2") && refused.contains("export"), "{refused}");
}

#[test]
fn commands_of_the_format_before_are_refused() {
    // A create of an empty persistent znode, a create of an ephemeral, a set, and an open session.
    for old in ["22040a022f65", "22060a022f611801", "2a080a022f6112026869", "42030a0103"] {
        let bytes: Vec<u8> =
            (0..old.len()).step_by(2).map(|i| u8::from_str_radix(&old[i..i + 2], 16).unwrap()).collect();
        assert!(decode_command(bytes.into()).is_err(), "{old}");
    }
}

#[test]
fn unknown_kinds_schemes_and_permissions_are_refused() {
    let refused = |create: wire::Create| {
        let body = Some(wire::command::Body::Create(create));
        let command = wire::Command { body, ..Default::default() };
        decode_command(command.encode_to_vec().into()).unwrap_err().to_string()
    };
    let create = || wire::Create::from(Create { acl: a_list(), ..Create::new(path("/a"), "") });
    for kind in [0, 5, -1, i32::MAX] {
        let refused = refused(wire::Create { kind, ..create() });
        assert!(refused.contains("not known to this version"), "kind {kind}: {refused}");
    }
    let changed = |change: &dyn Fn(&mut wire::AclEntry)| {
        let mut create = create();
        change(&mut create.acl[0]);
        refused(create)
    };
    for scheme in [0, 7, -1] {
        let refused = changed(&|entry| entry.identity.as_mut().unwrap().scheme = scheme);
        assert!(refused.contains("not known to this version"), "scheme {scheme}: {refused}");
    }
    let bits = changed(&|entry| entry.permissions = 32);
    assert!(bits.contains("not known to this version"), "{bits}");
    assert!(refused(wire::Create { ttl_ms: 1, ..create() }).contains("of another kind"));
    let open = to_entries(&Acl::default());
    assert!(refused(wire::Create { acl: open, ..create() }).contains("open access list"));
    assert!(changed(&|entry| entry.identity.as_mut().unwrap().id.clear()).contains("empty id"));
    let long = vec![create().acl[0].clone(); Acl::ENTRIES_MAX + 1];
    assert!(refused(wire::Create { acl: long, ..create() }).contains("65 entries"));
}

#[test]
fn identities_have_one_form() {
    let ada = to_identities(&someone());
    for wrong in [vec![ada[1].clone(), ada[0].clone()], vec![ada[0].clone(), ada[0].clone()]] {
        let bytes =
            wire::Command { identities: wrong, ..Command::outside(commands()[0].body.clone()).into() };
        let refused = decode_command(bytes.encode_to_vec().into()).unwrap_err().to_string();
        assert!(refused.contains("out of order"), "{refused}");
    }
}

#[test]
fn what_a_later_version_has_added_is_refused_and_not_left_out() {
    let bodies: Vec<Vec<u32>> = (4..=11).chain(13..=18).map(|tag| vec![tag]).collect();
    let parts = (1..=5).map(|tag| vec![7, 1, tag]).chain([vec![10, 1], vec![10, 1, 4], vec![10, 1, 4, 2]]);
    let acls = [vec![4, 8], vec![4, 8, 1], vec![16, 2], vec![16, 2, 1], vec![7, 1, 5, 2], vec![18, 2]];
    for path in bodies.into_iter().chain(parts).chain(acls).chain([vec![], vec![7, 1]]) {
        let all = commands().into_iter().filter_map(|c| extended(&encode_command(c), &path));
        let refused: Vec<_> = all.map(|bytes| decode_command(bytes.into()).unwrap_err()).collect();
        assert!(!refused.is_empty(), "no command has {path:?}");
        assert!(refused.iter().all(|e| e.0.contains("not known to this version")), "{refused:?}");
    }
    for path in [vec![], vec![1], vec![2], vec![3], vec![3, 7], vec![4], vec![5], vec![5, 2], vec![5, 2, 1]] {
        let all = records().into_iter().filter_map(|r| extended(&encode_record(r), &path));
        assert!(all.map(|bytes| decode_record(bytes.into())).all(|decoded| decoded.is_err()));
    }
    let later = wire::Command { number: 1, ..Default::default() };
    let refused = decode_command(later.encode_to_vec().into()).unwrap_err();
    assert!(refused.0.contains("not known to this version"), "a body of a later version: {refused}");
}

/// `message` with an unknown field in the message that is found by these fields; `None` if it has none there.
fn extended(message: &[u8], path: &[u32]) -> Option<Vec<u8>> {
    use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
    let Some((&wanted, path)) = path.split_first() else {
        return Some([message, &[0xc0, 0x3e, 1]].concat());
    };
    let mut rest = message;
    while !rest.is_empty() {
        let before = message.len() - rest.len();
        let (tag, kind) = decode_key(&mut rest).unwrap();
        match kind {
            WireType::Varint => drop(decode_varint(&mut rest).unwrap()),
            WireType::SixtyFourBit => drop(rest.split_off(..8)),
            _ => {
                let length = decode_varint(&mut rest).unwrap() as usize;
                let inner = rest.split_off(..length).unwrap();
                if tag == wanted {
                    let Some(inner) = extended(inner, path) else { continue };
                    let mut all = message[..before].to_vec();
                    encode_key(tag, kind, &mut all);
                    encode_varint(inner.len() as u64, &mut all);
                    return Some([all, inner, rest.to_vec()].concat());
                }
            }
        }
    }
    None
}

/// What is on disks must stay readable: a change here needs another format, and a way from the old one.
#[test]
fn the_bytes_of_commands_and_records_are_these() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let commands: Vec<String> = commands().into_iter().map(|c| hex(&encode_command(c))).collect();
    let records: Vec<String> = records().into_iter().map(|r| hex(&encode_record(r))).collect();
    let all = [commands, records].concat().join("\n") + "\n";
    assert_eq!(all, include_str!("golden.txt"), "the format has changed");
}

#[test]
fn damaged_bytes_are_refused_and_never_panic() {
    let mut decoder = RecordDecoder::default();
    decoder.push(&[200, 1, 0]);
    assert_eq!(decoder.next_record(), Ok(None));
    assert!(decoder.finish().is_err(), "cut off");
    for huge in [&[0xff; 11][..], &[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0]] {
        let mut decoder = RecordDecoder::default();
        decoder.push(huge);
        assert!(decoder.next_record().is_err(), "{huge:?}");
    }
    for command in commands() {
        let bytes = encode_command(command);
        (0..bytes.len()).for_each(|end| drop(decode_command(bytes.slice(..end))));
    }
    assert!(decode_command(Bytes::new()).is_err(), "a command without a body");
    assert!(decode_record(Bytes::from_static(b"\xff\xff")).is_err());
}
