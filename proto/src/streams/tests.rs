use std::task::Waker;

use tokio_stream::{StreamExt as _, iter};

use super::*;
use crate::v1::{CreateRequest, PingRequest};

fn create(data: usize) -> CreateRequest {
    CreateRequest { path: "/a".into(), data: Some(vec![7; data].into()), ..Default::default() }
}

fn outgoing<S>(messages: S, max: usize, trailers: bool) -> Outgoing<S> {
    Outgoing { messages, max, ready: Vec::new(), end: None, trailers }
}

/// Everything that a body has, in pieces of `size` bytes, and its trailers.
async fn pieces(
    body: &mut (impl http_body::Body<Data = Bytes, Error = Status> + Unpin),
    size: usize,
) -> (Vec<Bytes>, Option<http::HeaderMap>) {
    let (mut all, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => all.extend(data.chunks(size).map(Bytes::copy_from_slice)),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (all, trailers)
}

fn body_of(pieces: Vec<Bytes>) -> Body {
    Body::new(http_body_util::StreamBody::new(iter(pieces).map(|piece| Ok::<_, Status>(Frame::data(piece)))))
}

#[tokio::test]
async fn messages_of_all_sizes_arrive_whatever_the_pieces() {
    let sent: Vec<_> = [0, 1, 100, 40_000, 3, 1_000_000, 0, 5].map(create).into();
    for size in [1, 4, 5, 6, 16_384, usize::MAX] {
        let mut out = outgoing(iter(sent.clone().into_iter().map(Ok)), 2 << 20, true);
        let (pieces, trailers) = pieces(&mut out, size).await;
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
        let mut messages = Messages::<CreateRequest>::new(body_of(pieces), 2 << 20, false);
        for wanted in &sent {
            assert_eq!(messages.message().await.unwrap().as_ref(), Some(wanted));
        }
        assert_eq!(messages.message().await.unwrap(), None);
        assert_eq!(messages.message().await.unwrap(), None, "it stays over");
    }
}

#[tokio::test]
async fn b07_a_stream_holds_nothing_of_messages_that_have_passed() {
    let (send, receive) = tokio::sync::mpsc::channel(4);
    let mut out = outgoing(tokio_stream::wrappers::ReceiverStream::new(receive), 2 << 20, true);
    send.send(Ok(create(1_000_000))).await.unwrap();
    let large = poll_fn(|cx| Pin::new(&mut out).poll_frame(cx)).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(out.ready.capacity(), 0);
    let frames = iter([Ok::<_, Status>(Frame::data(large))]).chain(tokio_stream::pending());
    let body = Body::new(http_body_util::StreamBody::new(frames));
    let mut messages = Messages::<CreateRequest>::new(body, 2 << 20, false);
    assert!(messages.message().await.unwrap().is_some());
    assert_eq!((messages.payload.capacity(), messages.rest.len()), (0, 0));
    assert!(Pin::new(&mut messages).poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(messages.payload.capacity(), 0);
}

#[tokio::test]
async fn small_messages_leave_together_and_a_large_one_takes_what_it_needs() {
    let ping = PingRequest {};
    let mut out = outgoing(iter((0..10).map(|_| Ok(ping))), 1 << 20, true);
    let together =
        poll_fn(|cx| Pin::new(&mut out).poll_frame(cx)).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(together.len(), 10 * HEAD);
    let mut buffer = Vec::new();
    encode(&create(1_000_000), 2 << 20, &mut buffer).unwrap();
    assert_eq!(buffer.capacity(), buffer.len());
}

#[tokio::test]
async fn what_is_no_message_ends_the_stream_with_the_reason() {
    let refused = async |bytes: &[u8]| {
        let mut messages =
            Messages::<CreateRequest>::new(body_of(vec![Bytes::copy_from_slice(bytes)]), 100, false);
        let status = messages.message().await.unwrap_err();
        assert!(messages.message().await.unwrap().is_none(), "it is over");
        (status.code(), status.message().to_owned())
    };
    assert_eq!(refused(&[0, 0, 0, 0, 101]).await.0, Code::OutOfRange);
    assert_eq!(refused(&[1, 0, 0, 0, 0]).await.0, Code::Unimplemented);
    assert_eq!(refused(&[0, 0, 0, 0, 1, 0xff]).await.0, Code::Internal);
    let (code, text) = refused(&[0, 0, 0, 0, 9, 1]).await;
    assert_eq!((code, &*text), (Code::Internal, "the stream ended within a message"));
    let many = [0x12, 0].repeat(codec::PARTS_MAX + 1);
    let mut message = vec![0];
    message.extend((many.len() as u32).to_be_bytes());
    message.extend(many);
    let mut messages =
        Messages::<crate::v1::SessionRequest>::new(body_of(vec![message.into()]), 1 << 20, false);
    assert!(messages.message().await.unwrap_err().message().contains("send several messages"));
}

#[tokio::test]
async fn an_error_of_the_stream_is_in_the_trailers_behind_what_was_sent() {
    let messages = vec![Ok(create(1)), Err(Status::aborted("gone")), Ok(create(2))];
    let mut out = outgoing(iter(messages), 1 << 20, true);
    let (pieces, trailers) = pieces(&mut out, usize::MAX).await;
    assert_eq!(pieces.len(), 1);
    let mut ends = Messages::<CreateRequest>::new(body_of(pieces), 1 << 20, true);
    ends.trailers = trailers;
    assert!(ends.message().await.unwrap().is_some());
    let status = ends.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "gone"));
    // One that is too large to be sent ends it, too.
    let mut out = outgoing(iter([Ok(create(200))]), 100, true);
    let (none, trailers) = self::pieces(&mut out, usize::MAX).await;
    assert!(none.is_empty());
    assert_eq!(trailers.unwrap()["grpc-status"], (Code::OutOfRange as i32).to_string());
}
