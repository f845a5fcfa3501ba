//! Small requests of clients wait in the socket until the readers of their streams are there for them.
//!
//! h2 charges each DATA frame of less than 256 bytes that no reader has taken, and ends a connection with too many of them
//! (`too_many_data_frames`, since h2 0.4.16; hyper has no setting for it). Most clients send each request in a frame of its own, and
//! one read of the socket would hand h2 thousands of them before any reader has its turn. So frames are counted on their way to h2
//! and when a reader takes them, and the connection is not read while too many are between the two.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Small frames that h2 has and no reader has taken, of one connection.
pub(super) struct Untaken {
    frames: AtomicUsize,
    /// From this many on the connection is not read.
    most: usize,
    /// The task that waits to read on.
    reader: Mutex<Option<Waker>>,
}

impl Untaken {
    /// For a connection with this window. h2 allows half of it, where each frame counts as [`SMALL`] bytes less what it has.
    pub(super) fn new(window: u32) -> Untaken {
        let allowed = window as usize / 2 / SMALL;
        Untaken { frames: AtomicUsize::new(0), most: allowed - allowed / 5, reader: Mutex::default() }
    }

    /// A reader has taken a frame of this many bytes, or has given it up. `last`: it was the last one of its stream, which neither
    /// h2 nor the gate counts.
    pub(super) fn took(&self, bytes: usize, last: bool) {
        if is_small(bytes) && !last {
            self.change(|frames| frames.saturating_sub(1));
        }
    }

    /// Lets h2 decide about the frames that come next.
    fn forget(&self) {
        self.change(|_| 0);
    }

    fn change(&self, to: impl Fn(usize) -> usize) {
        let before = self.frames.fetch_update(SeqCst, SeqCst, |frames| Some(to(frames))).unwrap_or(0);
        if before >= self.most {
            let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            reader.into_iter().for_each(Waker::wake);
        }
    }

    fn is_full(&self) -> bool {
        self.frames.load(SeqCst) >= self.most
    }

    fn wait(&self, cx: &Context<'_>) -> bool {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // Some may have been taken before the waker was there.
        self.is_full()
    }
}

fn is_small(bytes: usize) -> bool {
    (1..SMALL).contains(&bytes)
}

/// The connection of a client, as h2 reads it.
pub(super) struct Gate<S> {
    stream: S,
    untaken: Arc<Untaken>,
    /// Was read and not handed on.
    held: BytesMut,
    at: At,
    /// Since no reader takes anything.
    stuck: Option<Pin<Box<Sleep>>>,
}

/// Where the next byte is.
enum At {
    /// In the header of a frame, of which this many bytes have arrived.
    Head([u8; 9], usize),
    /// In something of which this many bytes are to come: a payload, or the preface of a client.
    Within(usize),
}

impl<S> Gate<S> {
    pub(super) fn new(stream: S, untaken: Arc<Untaken>) -> Gate<S> {
        Gate { stream, untaken, held: BytesMut::new(), at: At::Within(PREFACE), stuck: None }
    }

    /// How many of the held bytes may pass, at most `most`.
    fn pass(&mut self, most: usize) -> usize {
        let mut passed = 0;
        while let Some(rest) =
            self.held.get(passed..most.min(self.held.len())).filter(|rest| !rest.is_empty())
        {
            match &mut self.at {
                At::Within(left) => {
                    let count = rest.len().min(*left);
                    *left -= count;
                    passed += count;
                    if *left == 0 {
                        self.at = At::Head([0; 9], 0);
                    }
                }
                At::Head(_, 0) if self.untaken.is_full() => break,
                At::Head(head, have) => {
                    let count = rest.len().min(9 - *have);
                    head[*have..*have + count].copy_from_slice(&rest[..count]);
                    *have += count;
                    passed += count;
                    if *have == 9 {
                        let [a, b, c, kind, flags, ..] = *head;
                        let length = u32::from_be_bytes([0, a, b, c]) as usize;
                        if kind == DATA && is_small(length) && flags & END_STREAM == 0 {
                            self.untaken.frames.fetch_add(1, SeqCst);
                        }
                        self.at = if length == 0 { At::Head([0; 9], 0) } else { At::Within(length) };
                    }
                }
            }
        }
        passed
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let passed = this.pass(into.remaining());
            if passed > 0 {
                this.stuck = None;
                into.put_slice(&this.held[..passed]);
                this.held.advance(passed);
                return Poll::Ready(Ok(()));
            }
            // Not by the count, which readers change meanwhile: the held bytes have to pass before anything is read after them.
            if !this.held.is_empty() {
                let stuck = this.stuck.get_or_insert_with(|| Box::pin(sleep(STUCK)));
                if stuck.as_mut().poll(cx).is_ready() {
                    // The frames behind these may be what the readers wait for. Some of those that are counted may have come for calls
                    // that had ended: no reader takes them, and h2 never forgets them either.
                    this.stuck = None;
                    this.untaken.forget();
                } else if this.untaken.wait(cx) {
                    return Poll::Pending;
                }
                continue;
            }
            if let At::Within(left) = &mut this.at
                && *left >= into.remaining()
            {
                // Most of a large payload takes no detour.
                let before = into.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
                *left -= into.filled().len() - before;
                if *left == 0 {
                    this.at = At::Head([0; 9], 0);
                }
                return Poll::Ready(Ok(()));
            }
            let mut buffer = [0; READ];
            let mut buffer = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            // What was handed on gives its memory back, as the connection may be silent from here on.
            this.held = BytesMut::from(buffer.filled());
        }
    }
}

tls::write_to_stream!(impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S>);

/// A frame with fewer bytes is small. As h2 has it (`DEFAULT_DATA_FRAME_OVERHEAD_THRESHOLD`).
const SMALL: usize = 256;
/// The time after which readers that take nothing count as stuck.
const STUCK: Duration = Duration::from_secs(5);
/// Bytes of the socket that are read at once.
const READ: usize = 8 << 10;
/// Bytes of what an HTTP/2 client says first.
const PREFACE: usize = 24;
/// A kind of frame, and a flag (RFC 9113, section 6).
const DATA: u8 = 0;
const END_STREAM: u8 = 1;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Readers on another thread take frames at any moment.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn b12_every_byte_passes_in_order_while_frames_are_taken_elsewhere() {
        const ROUNDS: usize = 20_000;
        let (client, server) = tokio::io::duplex(1 << 16);
        let untaken = Arc::new(Untaken::new(128 << 10));
        let mut gate = Gate::new(server, untaken.clone());
        let mut said = vec![b'P'; PREFACE];
        for n in 0..ROUNDS {
            // Small ones, empty ones, a window update, and now and then a large one.
            let (kind, length) = match n % 97 {
                0 => (DATA, 700),
                1 => (8, 4),
                2 => (DATA, 0),
                _ => (DATA, 1 + n % 200),
            };
            said.extend(&(length as u32).to_be_bytes()[1..]);
            said.extend([kind, 0, 0, 0, 0, 1]);
            said.extend((0..length).map(|i| (n + i) as u8));
        }
        let (mut to_gate, wanted) = (client, said.clone());
        tokio::spawn(async move { to_gate.write_all(&said).await.map(|()| to_gate) });
        let taker = untaken.clone();
        let taking = tokio::spawn(async move {
            loop {
                (0..7).for_each(|_| taker.took(1, false));
                tokio::task::yield_now().await;
            }
        });
        let mut got = vec![0; wanted.len()];
        gate.read_exact(&mut got).await.unwrap();
        assert!(got == wanted, "bytes are lost or changed");
        taking.abort();
    }
}
