//! The bytes of a connection: every byte of a request counts from its first on, and every byte of an answer
//! until the socket has taken it.

use std::{
    collections::HashMap,
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use api::{
    OpError,
    budget::{Charge, Share, Slot, Take},
    mutants::{Mutant, is_on},
};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use telemetry::Closed;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::{Users, gate::Untaken, places::Place};

/// The bytes of one connection's calls that are under way.
pub(super) struct Traffic {
    share: Share,
    /// The answers on their way. They need no room: what they are made of has been admitted. So unread answers of one client do not keep
    /// requests of others waiting.
    sent: Share,
    /// Largest message that is taken.
    message_max: usize,
    users: Users,
    origin: Instant,
    /// Of the connection. Calls may outlive it.
    place: Weak<Place>,
    spoke: AtomicBool,
    /// Whether a service has identified the member of the connection.
    known: AtomicBool,
    inner: Mutex<Inner>,
    untaken: Arc<Untaken>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    calls: HashMap<u64, Arc<Call>>,
    /// When the last call ended, in milliseconds after the beginning.
    ended: u64,
}

/// One call.
pub(super) struct Call {
    /// Bytes of its answer that the socket has not taken.
    pub(super) unsent: AtomicUsize,
    /// By when the client has to take some of them, in milliseconds after the beginning. Each part that it takes moves this on,
    /// by the time that the part may take.
    pub(super) taken_due: AtomicU64,
    /// By when the message that is on its way has to be whole; `u64::MAX` if none is.
    pub(super) message_due: AtomicU64,
    /// The task that waits to send more.
    pub(super) sender: Mutex<Option<Waker>>,
}

/// The call on a connection, until it ends.
pub(super) struct CallGuard {
    id: u64,
    call: Arc<Call>,
    traffic: Arc<Traffic>,
}

impl Traffic {
    pub(super) fn new(
        share: Share,
        sent: Share,
        message_max: usize,
        users: Users,
        place: &Arc<Place>,
    ) -> Arc<Traffic> {
        let (spoke, known, place) = (AtomicBool::new(false), AtomicBool::new(false), Arc::downgrade(place));
        let untaken = Arc::new(Untaken::new(users.windows().connection));
        let (origin, inner) = (Instant::now(), Mutex::default());
        Arc::new(Traffic { share, sent, message_max, users, origin, place, spoke, known, inner, untaken })
    }

    /// Whether the client has to read answers before it may make another call.
    pub(super) fn is_full(&self) -> bool {
        self.sent.is_full()
    }

    /// What h2 has and no reader has taken.
    pub(super) fn untaken(&self) -> Arc<Untaken> {
        self.untaken.clone()
    }

    /// Whether a whole request has come.
    pub(super) fn spoke(&self) -> bool {
        self.spoke.load(SeqCst)
    }

    /// From now on the connection keeps its place, whether or not the request is answered: the stream of a session has a single answer, whose
    /// head comes before the first request.
    fn a_request_is_whole(&self) {
        if !self.spoke.swap(true, SeqCst)
            && let Some(place) = self.place.upgrade()
        {
            place.spoke();
        }
    }

    /// The connection is a member's.
    pub(super) fn is_known(&self) {
        self.known.store(true, SeqCst);
    }

    fn message_max(&self) -> usize {
        match self.users {
            Users::Members if !self.known.load(SeqCst) => self.message_max.min(STRANGERS_MESSAGE),
            _ => self.message_max,
        }
    }

    pub(super) fn begin(self: &Arc<Traffic>) -> CallGuard {
        let now = self.now();
        let call = Arc::new(Call {
            unsent: AtomicUsize::new(0),
            taken_due: AtomicU64::new(0),
            message_due: AtomicU64::new(due(now, 0)),
            sender: Mutex::new(None),
        });
        let mut inner = self.lock();
        inner.last += 1;
        let id = inner.last;
        inner.calls.insert(id, call.clone());
        CallGuard { id, call, traffic: self.clone() }
    }

    /// Why the connection has to be closed, if it has.
    pub(super) fn fault(&self) -> Option<Closed> {
        let now = self.now();
        let inner = self.lock();
        let greeted = match self.users {
            Users::Members => self.known.load(SeqCst),
            Users::Clients | Users::Neighbours => self.spoke(),
        };
        if !greeted && now >= millis(SPEAK_WITHIN) {
            return Some(Closed::Silent);
        }
        // Services bound what they have with each other themselves.
        if greeted && self.users != Users::Clients {
            return None;
        }
        inner.calls.values().find_map(|call| {
            if call.unsent.load(SeqCst) > 0 && now >= call.taken_due.load(SeqCst) {
                return Some(Closed::Unread);
            }
            (now >= call.message_due.load(SeqCst)).then_some(Closed::Unfinished)
        })
    }

    /// Whether the connection had no request for [`IDLE`], so that it may be closed.
    pub(super) fn is_idle(&self) -> bool {
        let inner = self.lock();
        self.users == Users::Clients && inner.calls.is_empty() && self.now() >= inner.ended + millis(IDLE)
    }

    fn now(&self) -> u64 {
        millis(self.origin.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallGuard {
    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let now = self.traffic.now();
        let mut inner = self.traffic.lock();
        inner.calls.remove(&self.id);
        inner.ended = now;
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// By when a message of this size is to be whole.
fn due(now: u64, bytes: usize) -> u64 {
    now + millis(MESSAGE_WITHIN) + (bytes / BYTES_PER_MILLI) as u64
}

/// The request body: gRPC messages, each in its frame of five bytes and a payload. The bytes of a message are
/// taken from the connection's share as soon as its length is known. They are given back when the decoder
/// requests the next one. A method that takes one message has it only after the client has ended the stream,
/// so the bytes stay taken, and the end is waited for, until the call has the request ([`Slot`]).
pub(super) struct Inbound<B: Body<Data = Bytes> + Unpin> {
    inner: B,
    streamed: bool,
    call: Arc<Call>,
    traffic: Arc<Traffic>,
    /// Came, and was not passed on.
    rest: Bytes,
    at: At,
    charge: Slot,
}

enum At {
    /// In a frame's first five bytes, with the number of bytes read.
    Head([u8; 5], usize),
    /// Waits for room for the frame's payload; for a limited time if others have it.
    Room([u8; 5], usize, Take, Option<Pin<Box<Sleep>>>),
    /// In a payload, with the number of missing bytes.
    Payload(usize),
    /// After the only message.
    End,
}

impl<B: Body<Data = Bytes> + Unpin> Inbound<B> {
    /// `streamed`: whether more than one message may come.
    pub(super) fn new(inner: B, streamed: bool, guard: &CallGuard) -> Inbound<B> {
        let (call, traffic) = (guard.call.clone(), guard.traffic.clone());
        let (at, charge) = (At::Head([0; 5], 0), Slot::default());
        Inbound { inner, streamed, call, traffic, rest: Bytes::new(), at, charge }
    }

    /// Where the charge of the present message is.
    pub(super) fn charge(&self) -> Slot {
        self.charge.clone()
    }

    fn whole(&mut self) {
        if self.streamed {
            self.at = At::Head([0; 5], 0);
            self.call.message_due.store(u64::MAX, SeqCst);
        } else {
            self.at = At::End;
            self.call.message_due.fetch_min(due(self.traffic.now(), 0), SeqCst);
        }
        self.traffic.a_request_is_whole();
    }
}

impl<B> Body for Inbound<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            match &mut this.at {
                At::Room(head, len, room, limit) => {
                    let (head, len) = (*head, *len);
                    // While we make it wait, the client is not to blame.
                    this.call.message_due.store(u64::MAX, SeqCst);
                    match Pin::new(&mut *room).poll(cx) {
                        Poll::Ready(charge) => this.charge.set(Some(charge)),
                        Poll::Pending if room.is_held_up() => {
                            let limit = limit.get_or_insert_with(|| Box::pin(sleep(ROOM_WITHIN)));
                            ready!(limit.as_mut().poll(cx));
                            return Poll::Ready(Some(Err(no_room(len))));
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                    this.call.message_due.store(due(this.traffic.now(), len), SeqCst);
                    match len {
                        0 => this.whole(),
                        _ => this.at = At::Payload(len),
                    }
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&head)))));
                }
                At::Payload(left) if !this.rest.is_empty() => {
                    let part = this.rest.split_to(this.rest.len().min(*left));
                    *left -= part.len();
                    if *left == 0 {
                        this.whole();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(part))));
                }
                At::Head(head, have) if !this.rest.is_empty() => {
                    // Everything before it has been decoded.
                    this.charge.set(None);
                    if *have == 0 {
                        this.call.message_due.store(due(this.traffic.now(), 0), SeqCst);
                    }
                    let count = this.rest.len().min(5 - *have);
                    this.rest.copy_to_slice(&mut head[*have..*have + count]);
                    *have += count;
                    if *have == 5 {
                        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                        let max = this.traffic.message_max();
                        if len > max {
                            return Poll::Ready(Some(Err(too_large(len, max))));
                        }
                        let room = this.traffic.share.take(decoded(len));
                        this.at = At::Room(*head, len, room, None);
                    }
                    continue;
                }
                At::End if !this.rest.is_empty() => {
                    return Poll::Ready(Some(Err(Status::internal(
                        "a second message; this method takes one",
                    ))));
                }
                At::Payload(_) | At::End => {}
                At::Head(..) => this.charge.set(None),
            }
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.traffic.untaken.took(data.len(), this.inner.is_end_stream());
                        this.rest = data;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(e)) => return Poll::Ready(Some(Err(Status::from_error(e.into())))),
                None => {
                    this.call.message_due.store(u64::MAX, SeqCst);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && matches!(self.at, At::Head(_, 0) | At::End) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Drop for Inbound<B> {
    fn drop(&mut self) {
        if is_on(Mutant::HalfMessagesKept) && matches!(self.at, At::Payload(_)) {
            std::mem::forget(self.charge.clone());
        }
        // h2 forgets the frames that the body still has; count them as taken. A client that continues to send gets no more turns here.
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..UNREAD_FRAMES {
            match Pin::new(&mut self.inner).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    self.traffic.untaken.took(bytes, self.inner.is_end_stream());
                }
                _ => break,
            }
        }
        // A server that answers without reading on ends the wait for the message.
        self.call.message_due.store(u64::MAX, SeqCst);
    }
}

fn no_room(size: usize) -> Status {
    proto::client::to_status(&OpError::Overloaded(format!(
        "no room for a message of {size} bytes within {ROOM_WITHIN:?}: clients hold all that they may; repeat it at another node, or raise \
         `limits.memory`"
    )))
}

fn too_large(size: usize, limit: usize) -> Status {
    proto::client::to_status(&OpError::TooLarge { size: size as u64, limit: limit as u64 })
}

/// The memory that a message may take: its bytes, and the size of its smallest parts after decoding. Small
/// messages are free, so that a client can ping, open and close independent of others: the bound of the calls
/// limits their number.
fn decoded(len: usize) -> usize {
    if len <= FREE { 0 } else { len + len.saturating_mul(GROWTH).min(GROWTH_MAX) }
}

/// The body of an answer. No more than one piece of it waits for the client at a time, besides small ones.
pub(super) struct Outbound<B> {
    inner: Pin<Box<B>>,
    guard: CallGuard,
}

impl<B> Outbound<B> {
    pub(super) fn new(inner: B, guard: CallGuard) -> Outbound<B> {
        Outbound { inner: Box::pin(inner), guard }
    }
}

impl<B: Body<Data = Bytes>> Body for Outbound<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = &mut *self;
        if this.guard.call.waits_for_client(cx) {
            return Poll::Pending;
        }
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame
                .map(|frame| frame.map_data(|bytes| Piece::new(bytes, &this.guard.call, &this.guard.traffic)))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Call {
    /// The client has taken `count` bytes. Its connection has `calls`, which may share the least rate.
    pub(super) fn took(&self, count: usize, calls: usize, latest: u64) {
        let more = (count * calls.max(1)).div_ceil(BYTES_PER_MILLI) as u64;
        self.taken_due.fetch_update(SeqCst, SeqCst, |due| Some((due + more).min(latest))).unwrap_or_default();
    }

    fn waits_for_client(&self, cx: &mut Context<'_>) -> bool {
        if self.unsent.load(SeqCst) < AHEAD {
            return false;
        }
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // It may have taken some before the waker was there.
        self.unsent.load(SeqCst) >= AHEAD
    }
}

/// Bytes on their way to the socket.
pub(super) struct Piece {
    bytes: Bytes,
    call: Arc<Call>,
    traffic: Arc<Traffic>,
    charge: Charge,
}

impl Piece {
    fn new(bytes: Bytes, call: &Arc<Call>, traffic: &Arc<Traffic>) -> Piece {
        if call.unsent.fetch_add(bytes.len(), SeqCst) == 0 {
            call.taken_due.store(traffic.now() + millis(TAKE_WITHIN), SeqCst);
        }
        let charge = traffic.sent.take_anyway(bytes.len());
        Piece { bytes, call: call.clone(), traffic: traffic.clone(), charge }
    }

    fn went(&mut self, count: usize) {
        let latest = self.traffic.now() + millis(TAKE_WITHIN);
        let calls = self.traffic.lock().calls.len();
        self.call.took(count, calls, latest);
        self.charge.shrink_to(self.bytes.len());
        if self.call.unsent.fetch_sub(count, SeqCst) - count < AHEAD {
            let sender = self.call.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            sender.into_iter().for_each(Waker::wake);
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(dst)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.went(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let left = self.bytes.len();
        if left > 0 {
            self.bytes.clear();
            self.went(left);
        }
    }
}

/// From the accepted connection to its first whole request.
const SPEAK_WITHIN: Duration = Duration::from_secs(10);
/// A client takes some of what waits for it within this. It may lag behind [`BYTES_PER_MILLI`] by no more.
const TAKE_WITHIN: Duration = Duration::from_secs(10);
/// A message is whole within this ...
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// ... and further bytes for each further millisecond. The least rate of a connection in each direction.
const BYTES_PER_MILLI: usize = 64;
/// How long a message waits for room that other clients have. Pings on its stream wait behind it, so this is below most session
/// time-outs.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// A connection without a request for this time is closed; a living client makes a new one when it needs it.
const IDLE: Duration = Duration::from_secs(300);
/// Maximum size of a stranger's message on a port of members, until its member is known.
const STRANGERS_MESSAGE: usize = 64 << 10;
/// Messages up to this need no room: pings, and what opens a session.
const FREE: usize = 512;
/// Frames of a body that its reader has given up, at most: all that a window has, unless most of them are small, which the gate bounds.
const UNREAD_FRAMES: usize = super::CLIENT_WINDOW as usize / 256;
/// How many times larger than on the wire the smallest requests are in memory ...
const GROWTH: usize = 32;
/// ... and how much all parts of a message are at most, because their number is bounded.
const GROWTH_MAX: usize = 3 << 20;
/// Maximum number of bytes of an answer that wait for the client before more of it is made.
const AHEAD: usize = 64 << 10;
