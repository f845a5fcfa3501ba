//! HTTP/2 by hand, for clients that do with a connection what no library would.

use prost::Message;
use proto::v1::{OpenSession, Request, SessionRequest, request::Op};

/// A message as it stands in a stream, behind its length.
pub(crate) fn framed(message: &impl Message) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    framed.extend_from_slice(&message.encode_to_vec());
    framed
}

/// The first message of a session.
pub(crate) fn open_session(timeout_ms: u32) -> SessionRequest {
    let open = OpenSession { timeout_ms, ..OpenSession::default() };
    SessionRequest { open: Some(open), ..SessionRequest::default() }
}

/// A request of a session.
pub(crate) fn request(xid: u64, op: Op) -> Request {
    Request { xid, op: Some(op), ..Request::default() }
}

/// The first bytes of the client. `window`: bytes that the server may send on each stream before an update;
/// the window of the whole connection has the maximum.
pub(crate) fn hello(window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut settings = 4u16.to_be_bytes().to_vec();
    settings.extend_from_slice(&window.to_be_bytes());
    frame(&mut bytes, 4, 0, 0, &settings);
    frame(&mut bytes, 8, 0, 0, &(i32::MAX as u32 - 65_535).to_be_bytes());
    bytes
}

/// Begins a call of a method of ours.
pub(crate) fn call(stream: u32, method: &str) -> Vec<u8> {
    call_of(stream, &format!("/quorate.v1.Coordination/{method}"))
}

/// Begins a call of any method.
pub(crate) fn call_of(stream: u32, path: &str) -> Vec<u8> {
    // POST and http from the static table, the others as literals without indexing.
    let mut block = vec![0x83, 0x86, 0x04];
    literal(&mut block, path);
    block.push(0x01);
    literal(&mut block, "localhost");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.push(0x00);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    let mut bytes = Vec::new();
    frame(&mut bytes, 1, 4, stream, &block);
    bytes
}

/// Bytes of a call; `end` is the last of them.
pub(crate) fn data(stream: u32, contents: &[u8], end: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pieces = contents.chunks(FRAME_MAX).count();
    for (i, piece) in contents.chunks(FRAME_MAX).enumerate() {
        frame(&mut bytes, 0, u8::from(end && i + 1 == pieces), stream, piece);
    }
    bytes
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Texts here are short.
fn literal(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 127);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

const FRAME_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_contents_become_several_frames_of_which_the_last_ends() {
        let bytes = data(3, &[7; FRAME_MAX + 1], true);
        assert_eq!(bytes.len(), FRAME_MAX + 1 + 2 * 9);
        assert_eq!(bytes[..9], [0, 0x40, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(bytes[9 + FRAME_MAX..], [0, 0, 1, 0, 1, 0, 0, 0, 3, 7]);
    }
}
