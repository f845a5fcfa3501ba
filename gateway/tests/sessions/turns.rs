//! How much of a thread one connection takes at a time.

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use zk_jute::Request;

use crate::client::{Node, fresh};

/// A client that has sent all of it already, and reads everything. Counts what the node has taken.
struct Sent {
    bytes: BytesMut,
    taken: Arc<AtomicUsize>,
}

impl AsyncRead for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = into.remaining().min(self.bytes.len());
        if count == 0 {
            return Poll::Pending;
        }
        into.put_slice(&self.bytes.split_to(count));
        self.taken.fetch_add(count, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sent {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Eight connections with multis of a megabyte kept a thread for seconds at a time, and with it the pings of its other connections.
#[tokio::test]
async fn b08_a_connection_takes_one_large_frame_at_a_time() {
    let node = Node::start().await;
    let (mut bytes, mut frame) = (BytesMut::new(), BytesMut::new());
    fresh().encode(&mut bytes);
    let part = Request::Check { path: "/none".into(), version: -1 };
    Request::Multi(vec![part; 20_000]).encode(1, &mut frame);
    (0..16).for_each(|_| bytes.extend_from_slice(&frame));
    let (all, taken) = (bytes.len(), Arc::new(AtomicUsize::new(0)));
    let client = Sent { bytes, taken: taken.clone() };
    {
        let mut serving = pin!(node.gateway.serve(client, node.guest(), || {}));
        let mut most = 0;
        let done = poll_fn(|cx| {
            let before = taken.load(Relaxed);
            let ended = serving.as_mut().poll(cx).is_ready();
            most = most.max(taken.load(Relaxed) - before);
            if ended || taken.load(Relaxed) == all { Poll::Ready(ended) } else { Poll::Pending }
        });
        assert!(!timeout(Duration::from_secs(60), done).await.unwrap(), "the session goes on");
        assert!(most < 2 * frame.len(), "{most} bytes at once, of frames of {}", frame.len());
    }
    node.stop().await;
}
