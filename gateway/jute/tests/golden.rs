//! Bytes as ZooKeeper 3.9 and its clients send them.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use zk_jute::{
    Acl, Body, Code, ConnectRequest, ConnectResponse, Create, Event, Field as _, Frames, Id, MultiResult,
    OpCode, ReplyHeader, Request, RequestHeader, SetWatches, Shape, Stat, WatcherEvent,
};

/// Hexadecimal digits, with spaces for the reader.
fn hex(text: &str) -> Bytes {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len(), text.chars().filter(|c| !c.is_whitespace()).count());
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

/// The only frame in there.
fn framed(fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut frames = Frames::new(1 << 20);
    fill(frames.buffer());
    let frame = frames.next_frame().unwrap().unwrap();
    assert!(frames.rest().is_empty());
    frame
}

fn request(bytes: &Bytes) -> (RequestHeader, Request) {
    let mut from = zk_jute::Reader::new(bytes.clone());
    let header = from.take().unwrap();
    (header, Request::decode(header, from).unwrap())
}

#[test]
fn a_handshake_with_and_without_the_read_only_byte() {
    let asks =
        hex("00000000 0000000100000002 00002710 0000000000000000 00000010 00000000000000000000000000000000");
    let mut request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0x1_0000_0002,
        timeout_ms: 10_000,
        session_id: 0,
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: None,
    };
    assert_eq!(ConnectRequest::decode(asks.clone()).unwrap(), request);
    assert_eq!(framed(|to| request.encode(to)), asks);
    request.read_only = Some(true);
    let newer = [&asks[..], &[1]].concat();
    assert_eq!(framed(|to| request.encode(to)), newer);
    assert_eq!(ConnectRequest::decode(newer.into()).unwrap(), request);

    let says = hex("00000000 00002710 0100000000000001 00000010 000102030405060708090a0b0c0d0e0f");
    let mut response = ConnectResponse {
        protocol_version: 0,
        timeout_ms: 10_000,
        session_id: 0x0100_0000_0000_0001,
        password: std::array::from_fn(|i| i as u8),
        read_only: None,
    };
    assert_eq!(says.len(), 36);
    assert_eq!(framed(|to| response.encode(to)), says);
    response.read_only = Some(false);
    assert_eq!(framed(|to| response.encode(to)), [&says[..], &[0]].concat());
    assert_eq!(ConnectResponse::decode(says).unwrap().read_only, None);

    let expired = framed(|to| ConnectResponse::expired(Some(true)).encode(to));
    assert_eq!(expired, [&[0; 16][..], &[0, 0, 0, 16], &[0; 17]].concat());
    assert_eq!(expired.len(), 37);
}

#[test]
fn a_create_and_its_answers() {
    let bytes = hex(
        "00000001 00000001 00000002 2f61 00000001 78 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000003",
    );
    let anyone = Acl { perms: 31, id: Id { scheme: "world".into(), id: "anyone".into() } };
    let create =
        Create { path: "/a".into(), data: Some(Bytes::from_static(b"x")), acl: Some(vec![anyone]), flags: 3 };
    let asked = Request::Create { create };
    assert_eq!(request(&bytes), (RequestHeader { xid: 1, kind: 1 }, asked.clone()));
    assert_eq!(framed(|to| asked.encode(1, to)), bytes);

    let header = ReplyHeader { xid: 1, zxid: 0x1_0000_0005, err: 0 };
    let made = hex("00000001 0000000100000005 00000000 00000002 2f61");
    assert_eq!(framed(|to| header.encode(&Body::Path("/a".into()), to)), made);
    let (read, from) = ReplyHeader::decode(made).unwrap();
    assert_eq!((read, read.body(Shape::of(OpCode::CREATE), from)), (header, Ok(Body::Path("/a".into()))));

    let exists = ReplyHeader { err: Code::NODE_EXISTS.0, ..header };
    let refused = framed(|to| exists.encode(&Body::Path("/a".into()), to));
    assert_eq!(refused, hex("00000001 0000000100000005 ffffff92"), "no body behind an error");
}

#[test]
fn a_stat_has_68_bytes_and_null_is_another_value_than_none() {
    let stat = Stat { czxid: 1, mzxid: 2, pzxid: 3, num_children: 4, ..Stat::default() };
    let mut bytes = BytesMut::new();
    stat.write(&mut bytes);
    assert_eq!(bytes.len(), 68);
    assert_eq!(bytes[60..], [0, 0, 0, 0, 0, 0, 0, 3], "pzxid is the last field");
    let header = ReplyHeader { xid: 7, zxid: 9, err: 0 };
    for (data, length) in [(None, "ffffffff"), (Some(Bytes::new()), "00000000")] {
        let body = Body::Data(data, stat);
        let frame = framed(|to| header.encode(&body, to));
        assert_eq!(frame[16..20], hex(length));
        let (read, from) = ReplyHeader::decode(frame).unwrap();
        assert_eq!(read.body(Shape::Data, from), Ok(body));
    }
}

#[test]
fn a_multi_and_one_that_failed() {
    let bytes = hex("00000005 0000000e \
         0000000d 00 ffffffff 00000002 2f61 00000001 \
         00000002 00 ffffffff 00000002 2f62 ffffffff \
         ffffffff 01 ffffffff");
    let ops = vec![
        Request::Check { path: "/a".into(), version: 1 },
        Request::Delete { path: "/b".into(), version: -1 },
    ];
    assert_eq!(request(&bytes).1, Request::Multi(ops.clone()));
    assert_eq!(framed(|to| Request::Multi(ops).encode(5, to)), bytes);

    // As observed on ZooKeeper 3.9.5: success in the header, an error in each result.
    let failed = [Code::OK, Code::NO_NODE, Code::RUNTIME_INCONSISTENCY].map(MultiResult::Error);
    let header = ReplyHeader { xid: 5, zxid: 6, err: 0 };
    let frame = framed(|to| header.encode(&Body::Multi(failed.to_vec()), to));
    let results =
        "ffffffff 00 00000000 00000000  ffffffff 00 ffffff9b ffffff9b  ffffffff 00 fffffffe fffffffe";
    assert_eq!(frame[16..], [hex(results), hex("ffffffff 01 ffffffff")].concat());
    let empty = framed(|to| header.encode(&Body::Multi(vec![]), to));
    assert_eq!(empty[16..], hex("ffffffff 01 ffffffff"));
}

#[test]
fn an_event_and_watches_that_are_set_again() {
    let event = WatcherEvent { kind: 3, state: 3, path: "/a".into() };
    let frame = framed(|to| Event { zxid: 8, event: event.clone() }.encode(to));
    assert_eq!(frame, hex("ffffffff 0000000000000008 00000000 00000003 00000003 00000002 2f61"));
    let (header, mut from) = ReplyHeader::decode(frame).unwrap();
    assert_eq!((header.xid, from.take()), (zk_jute::xid::EVENT, Ok(event)));

    let bytes = hex("fffffff8 00000065 0000000000000009 00000001 00000002 2f61 00000000 00000000");
    let watches = SetWatches { relative_zxid: 9, data: vec!["/a".into()], ..SetWatches::default() };
    assert_eq!(request(&bytes), (RequestHeader { xid: -8, kind: 101 }, Request::SetWatches { watches }));
}
