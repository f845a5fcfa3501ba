//! What is encoded is decoded, and nonsense never takes more memory than it has bytes for.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};
use zk_jute::{
    Acl, Bad, Body, ClientInfo, Code, ConnectRequest, ConnectResponse, Create, Frames, Id, Malformed,
    MultiResult, OpCode, Reader, Reconfig, ReplyHeader, Request, RequestHeader, SetWatches, Shape, Stat,
};

fn text() -> impl Strategy<Value = String> {
    "[/a-zä\u{10000}-\u{10010}]{0,8}"
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..20).prop_map(Bytes::from))
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    let one = (any::<i32>(), text(), text());
    vec(one.prop_map(|(perms, scheme, id)| Acl { perms, id: Id { scheme, id } }), 0..3)
}

fn create() -> impl Strategy<Value = Create> {
    (text(), data(), option::of(acl()), any::<i32>()).prop_map(|(path, data, acl, flags)| Create {
        path,
        data,
        acl,
        flags,
    })
}

fn set_watches() -> impl Strategy<Value = SetWatches> {
    let list = || vec(text(), 0..3);
    (any::<i64>(), list(), list(), list()).prop_map(|(relative_zxid, data, exist, child)| SetWatches {
        relative_zxid,
        data,
        exist,
        child,
    })
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(longs, ints)| {
        let [czxid, mzxid, ctime, mtime, ephemeral_owner, pzxid] = longs;
        let [version, cversion, aversion, data_length, num_children] = ints;
        Stat {
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            cversion,
            aversion,
            ephemeral_owner,
            data_length,
            num_children,
            pzxid,
        }
    })
}

fn write() -> impl Strategy<Value = Request> {
    prop_oneof![
        create().prop_map(|create| Request::Create { create }),
        create().prop_map(|create| Request::Create2 { create }),
        create().prop_map(|create| Request::CreateContainer { create }),
        (create(), any::<i64>()).prop_map(|(create, ttl)| Request::CreateTtl { create, ttl }),
        (text(), any::<i32>()).prop_map(|(path, version)| Request::Delete { path, version }),
        (text(), data(), any::<i32>()).prop_map(|(path, data, version)| Request::SetData {
            path,
            data,
            version
        }),
        (text(), any::<i32>()).prop_map(|(path, version)| Request::Check { path, version }),
    ]
}

fn read() -> impl Strategy<Value = Request> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(path, watch)| Request::GetData { path, watch }),
        (text(), any::<bool>()).prop_map(|(path, watch)| Request::GetChildren { path, watch }),
    ]
}

fn reconfig() -> impl Strategy<Value = Reconfig> {
    let servers = || option::of(text());
    (servers(), servers(), servers(), any::<i64>())
        .prop_map(|(joining, leaving, members, version)| Reconfig { joining, leaving, members, version })
}

fn request() -> impl Strategy<Value = Request> {
    let path = |make: fn(String) -> Request| text().prop_map(make);
    let number = |make: fn(String, i32) -> Request| (text(), any::<i32>()).prop_map(move |(p, n)| make(p, n));
    prop_oneof![
        write(),
        read(),
        vec(write(), 0..4).prop_map(Request::Multi),
        vec(read(), 0..4).prop_map(Request::MultiRead),
        (text(), any::<bool>()).prop_map(|(path, watch)| Request::Exists { path, watch }),
        (text(), any::<bool>()).prop_map(|(path, watch)| Request::GetChildren2 { path, watch }),
        path(|path| Request::GetAcl { path }),
        path(|path| Request::Sync { path }),
        path(|path| Request::GetAllChildrenNumber { path }),
        number(|path, kind| Request::CheckWatches { path, kind }),
        number(|path, kind| Request::RemoveWatches { path, kind }),
        number(|path, mode| Request::AddWatch { path, mode }),
        (text(), option::of(acl()), any::<i32>()).prop_map(|(path, acl, version)| Request::SetAcl {
            path,
            acl,
            version
        }),
        (any::<i32>(), option::of(text()), data()).prop_map(|(kind, scheme, auth)| Request::Auth {
            kind,
            scheme,
            auth
        }),
        set_watches().prop_map(|watches| Request::SetWatches { watches }),
        (set_watches(), vec(text(), 0..3), vec(text(), 0..3)).prop_map(|(watches, persistent, recursive)| {
            Request::SetWatches2 { watches, persistent, recursive }
        }),
        data().prop_map(|token| Request::Sasl { token }),
        option::of(text()).prop_map(|prefix| Request::GetEphemerals { prefix }),
        reconfig().prop_map(|reconfig| Request::Reconfig { reconfig }),
        Just(Request::Ping),
        Just(Request::WhoAmI),
        Just(Request::CloseSession),
    ]
}

fn result() -> impl Strategy<Value = MultiResult> {
    prop_oneof![
        text().prop_map(MultiResult::Create),
        (text(), stat()).prop_map(|(path, stat)| MultiResult::Create2(path, stat)),
        Just(MultiResult::Delete),
        stat().prop_map(MultiResult::SetData),
        Just(MultiResult::Check),
        (data(), stat()).prop_map(|(data, stat)| MultiResult::GetData(data, stat)),
        vec(text(), 0..3).prop_map(MultiResult::GetChildren),
        any::<i32>().prop_map(|code| MultiResult::Error(Code(code))),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let names = || vec(text(), 0..4);
    prop_oneof![
        Just(Body::Nothing),
        text().prop_map(Body::Path),
        (text(), stat()).prop_map(|(path, stat)| Body::PathStat(path, stat)),
        stat().prop_map(Body::Stat),
        (data(), stat()).prop_map(|(data, stat)| Body::Data(data, stat)),
        names().prop_map(Body::Children),
        (names(), stat()).prop_map(|(names, stat)| Body::ChildrenStat(names, stat)),
        (acl(), stat()).prop_map(|(acl, stat)| Body::Acl(acl, stat)),
        names().prop_map(Body::Ephemerals),
        any::<i32>().prop_map(Body::Number),
        vec((text(), text()).prop_map(|(scheme, user)| ClientInfo { scheme, user }), 0..3)
            .prop_map(Body::Infos),
        data().prop_map(Body::Token),
        vec(result(), 0..4).prop_map(Body::Multi),
    ]
}

fn only_frame(fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut frames = Frames::new(1 << 20);
    fill(frames.buffer());
    frames.next_frame().unwrap().unwrap()
}

fn decode(frame: Bytes) -> Result<(RequestHeader, Request), Option<Bad>> {
    let mut from = Reader::new(frame);
    let header: RequestHeader = from.take().map_err(|_| None)?;
    Ok((header, Request::decode(header, from)?))
}

proptest! {
    #[test]
    fn requests_come_back(request in request(), xid: i32) {
        let frame = only_frame(|to| request.encode(xid, to));
        let (header, read) = decode(frame.clone()).unwrap();
        prop_assert_eq!((header.xid, OpCode(header.kind)), (xid, request.code()));
        prop_assert_eq!(&read, &request);
        // A record that lacks its end is none, but for those without fields.
        if frame.len() > 8 {
            let short = decode(frame.slice(..frame.len() - 1));
            prop_assert_eq!(short, Err(Some(Bad::Malformed(header.kind, Malformed::Short))));
        }
    }

    #[test]
    fn replies_come_back(body in body(), xid: i32, zxid: i64) {
        let header = ReplyHeader { xid, zxid, err: 0 };
        let (read, from) = ReplyHeader::decode(only_frame(|to| header.encode(&body, to))).unwrap();
        prop_assert_eq!(read, header);
        prop_assert_eq!(read.body(body.shape(), from), Ok(body));
    }

    #[test]
    fn handshakes_come_back(
        longs: [i64; 2], timeout_ms: i32, version: i32, password in data(), own: [u8; 16], read_only: Option<bool>,
    ) {
        let [last_zxid_seen, session_id] = longs;
        let asks =
            ConnectRequest { protocol_version: version, last_zxid_seen, timeout_ms, session_id, password, read_only };
        prop_assert_eq!(ConnectRequest::decode(only_frame(|to| asks.encode(to))), Ok(asks));
        let says = ConnectResponse { protocol_version: version, timeout_ms, session_id, password: own, read_only };
        prop_assert_eq!(ConnectResponse::decode(only_frame(|to| says.encode(to))), Ok(says));
    }

    #[test]
    fn nonsense_is_refused_and_never_panics(kind in -12..110i32, rest in vec(any::<u8>(), 0..200)) {
        let header = RequestHeader { xid: 1, kind };
        let rest = Bytes::from(rest);
        let _ = Request::decode(header, Reader::new(rest.clone()));
        let _ = ConnectRequest::decode(rest.clone());
        let _ = ConnectResponse::decode(rest.clone());
        let reply = ReplyHeader { xid: 1, zxid: 1, err: 0 };
        let _ = reply.body(Shape::of(OpCode(kind)), Reader::new(rest));
    }

    #[test]
    fn a_record_with_one_wrong_byte_never_panics(request in request(), at: prop::sample::Index, byte: u8) {
        let mut frame = only_frame(|to| request.encode(1, to)).to_vec();
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = decode(frame.into());
    }
}

/// Counts and lengths that promise more than there is.
#[test]
fn a_count_is_held_against_the_bytes_that_are_there() {
    let header = |kind| RequestHeader { xid: 1, kind };
    let lying = |count: i32| {
        let mut bytes = vec![0; 8];
        bytes.extend(count.to_be_bytes());
        bytes.extend([0; 16]);
        Reader::new(bytes.into())
    };
    for (count, fault) in [
        (i32::MAX, Malformed::Short),
        (5, Malformed::Short),
        (-2, Malformed::Length(-2)),
        (-1, Malformed::Null),
    ] {
        assert_eq!(
            Request::decode(header(101), lying(count)),
            Err(Bad::Malformed(101, fault)),
            "a count of {count}"
        );
    }
    // A multi in a multi, reads among writes, and operations that are internal to servers.
    for (kind, part) in [(14, 14), (14, 4), (22, 1), (22, 22), (14, 20), (14, -10)] {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&i32::to_be_bytes(part));
        bytes.extend_from_slice(&[0; 64]);
        let refused = Request::decode(header(kind), Reader::new(bytes.freeze()));
        assert_eq!(refused, Err(Bad::Malformed(kind, Malformed::Part(part))));
    }
    for kind in [0, 20, -10, -1, 10, 108, i32::MIN] {
        assert_eq!(Request::decode(header(kind), lying(0)), Err(Bad::Unknown(kind)));
    }
}

#[test]
fn b07_parts_of_a_multi_beyond_the_bound_are_not_decoded() {
    let mut frame = BytesMut::new();
    let part = Request::Check { path: "/a".into(), version: -1 };
    Request::Multi(vec![part; 3]).encode(1, &mut frame);
    // The third part is cut.
    let cut = Bytes::copy_from_slice(&frame[4 + 8..frame.len() - 16]);
    let decode =
        |most| Request::decode_bounded(RequestHeader { xid: 1, kind: 14 }, Reader::new(cut.clone()), most);
    assert_eq!(decode(2), Err(Bad::TooMany(2)));
    assert!(matches!(decode(3), Err(Bad::Malformed(..))));
}
