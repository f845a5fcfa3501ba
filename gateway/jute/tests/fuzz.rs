//! Bytes that no honest peer sends. `cargo test` replays the corpus in `__fuzz__`; CONTRIBUTING.md has the commands for random
//! inputs.

#![allow(clippy::unwrap_used)]

use bolero::check;
use bytes::{Bytes, BytesMut};
use zk_jute::{
    Body, ConnectRequest, ConnectResponse, Event, Field as _, Frames, OpCode, Reader, ReplyHeader, Request,
    RequestHeader, Shape, WatcherEvent,
};

/// Largest frame. Small, so that lengths near it occur.
const LIMIT: usize = 4 << 10;

/// All operations of clients, and some that are none.
const KINDS: [i32; 36] = [
    -11, -10, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 100, 101,
    102, 103, 104, 105, 106, 107, 108, 255,
];

/// A whole connection, in pieces: the first byte is their length.
#[test]
fn bytes_of_a_client() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        let Some((piece, bytes)) = bytes.split_first() else { return };
        let mut frames = Frames::new(LIMIT);
        let mut first = true;
        for piece in bytes.chunks(usize::from(*piece).max(1)) {
            frames.buffer().extend_from_slice(piece);
            while let Ok(Some(frame)) = frames.next_frame() {
                assert!(frame.len() <= LIMIT);
                if std::mem::take(&mut first) {
                    handshake(frame);
                } else {
                    request(frame);
                }
            }
        }
    });
}

/// A record behind the header of each operation.
#[test]
fn records_of_a_client() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        let Some((kind, record)) = bytes.split_first() else { return };
        let kind = KINDS[usize::from(*kind) % KINDS.len()];
        let mut frame = BytesMut::new();
        RequestHeader { xid: 7, kind }.write(&mut frame);
        frame.extend_from_slice(record);
        request(frame.freeze());
    });
}

/// A record of a server, as the answer to each operation, and as an event.
#[test]
fn records_of_a_server() {
    check!().with_iterations(0).for_each(|bytes: &[u8]| {
        let Some((kind, record)) = bytes.split_first() else { return };
        let record = Bytes::copy_from_slice(record);
        if let Ok(answer) = ConnectResponse::decode(record.clone()) {
            let again = only_frame(|to| answer.encode(to));
            assert_eq!(ConnectResponse::decode(again), Ok(answer));
        }
        if let Ok(event) = Reader::new(record.clone()).take::<WatcherEvent>() {
            let event = Event { zxid: 7, event };
            let (header, mut from) = ReplyHeader::decode(only_frame(|to| event.encode(to))).unwrap();
            assert_eq!((header.zxid, from.take()), (7, Ok(event.event)));
        }
        let shape = Shape::of(OpCode(KINDS[usize::from(*kind) % KINDS.len()]));
        let header = ReplyHeader { xid: 7, zxid: 7, err: 0 };
        let Ok(body) = header.body(shape, Reader::new(record)) else { return };
        let (again, from) = ReplyHeader::decode(only_frame(|to| header.encode(&body, to))).unwrap();
        assert_eq!((again, again.body(shape, from)), (header, Ok::<Body, _>(body)));
    });
}

fn handshake(frame: Bytes) {
    if let Ok(hello) = ConnectRequest::decode(frame) {
        assert_eq!(ConnectRequest::decode(only_frame(|to| hello.encode(to))), Ok(hello));
    }
}

/// What is read is what is read of its encoding: odd strings become the same ones.
fn request(frame: Bytes) {
    let Some((header, Ok(request))) = decode(frame) else { return };
    let (again, same) = decode(only_frame(|to| request.encode(header.xid, to))).unwrap();
    assert_eq!((again, same), (header, Ok(request)));
}

fn decode(frame: Bytes) -> Option<(RequestHeader, Result<Request, zk_jute::Bad>)> {
    let mut from = Reader::new(frame);
    let header: RequestHeader = from.take().ok()?;
    Some((header, Request::decode(header, from)))
}

fn only_frame(fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut frames = Frames::new(usize::MAX);
    fill(frames.buffer());
    let frame = frames.next_frame().unwrap().unwrap();
    assert!(frames.rest().is_empty());
    frame
}
