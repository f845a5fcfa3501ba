//! A connection: its first bytes, its session, and then its two halves.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use api::{
    ErrorCode, Identities, OpError, SessionId, SessionToken, WriteNumber, Zxid,
    budget::Slot,
    ports::{Caller, Coordination, Items, Requests},
    proof,
    session::{Item, Op, Open, Opened, Request},
};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use zk_jute::{ConnectRequest, ConnectResponse, Frames};

use crate::{
    Gateway, Guest,
    ledger::Ledger,
    reader::{Reader, Received, receive},
    stats::Listed,
    translate::Who,
    words,
    writer::Writer,
};

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Orderly: by the client, with its session, or at the request of the node.
    Closed,
    /// The client closed the connection.
    Gone,
    /// No session was opened in time.
    Silent,
    /// A started frame was not completed in time.
    Unfinished,
    /// A protocol violation or a network error.
    Broken,
}

pub(crate) async fn serve<C, S>(
    gateway: &Gateway<C>,
    mut stream: S,
    guest: Guest,
    spoke: impl FnOnce() + Send,
) -> End
where
    C: Coordination,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let shared = &gateway.shared;
    let listed = shared.stats.enter(guest.address);
    // This bounds the work before a session: no more bytes are received.
    let mut frames = Frames::new(HANDSHAKE_MAX);
    let first = timeout(SPEAK_WITHIN, first_frame(&mut stream, &mut frames, &guest)).await;
    let request = match first {
        Err(_) => return End::Silent,
        Ok(Ok(First::Connect(request))) => request,
        Ok(Ok(First::Word(word))) => {
            let mask = match word.as_str() {
                "stmk" if shared.config.words.has("stmk") => {
                    match timeout(SPEAK_WITHIN, mask_behind_word(&mut stream, &mut frames)).await {
                        Ok(Ok(mask)) => Some(mask),
                        Ok(Err(end)) => return end,
                        Err(_) => return End::Silent,
                    }
                }
                _ => None,
            };
            let text = words::answer(gateway, &word, mask).await;
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            return End::Closed;
        }
        Ok(Err(end)) => return end,
    };
    let arrived = Instant::now();
    listed.received(1);
    let ledger = Ledger::new(listed.connection.watches.clone());
    let place = Identities::new([proof::address(guest.address.ip())]).unwrap_or_default();
    let place = place.with(&guest.identities).unwrap_or(place);
    let who = Who { prover: shared.config.prover.clone(), identities: place.clone() };
    let caller = Caller {
        identities: place,
        address: Some(guest.address.ip()),
        certificate: guest.certificate.clone(),
        share: Some(guest.held.clone()),
        message: Slot::default(),
    };
    let (mut requests, mut items) = gateway.store.stream(caller);
    let opened = match open(&mut requests, &mut items, &request, &ledger, arrived).await {
        Ok(opened) => opened,
        Err(e) => {
            tracing::debug!(client = %guest.address, "no session: {e}");
            // An expired session gets its error; any other error makes the client try another server.
            if e.code() == ErrorCode::SessionExpired {
                let mut out = BytesMut::new();
                ConnectResponse::expired(request.read_only).encode(&mut out);
                let _ = stream.write_all(&out).await;
                let _ = stream.shutdown().await;
            }
            return End::Closed;
        }
    };
    spoke();
    let timeout_ms = opened.timeout_ms;
    // The answer counts as a sign of life like any other, and has the same deadline; see `Writer::may_speak`.
    let third = Duration::from_millis(timeout_ms.into()) / 3;
    if ledger.last_counted().is_none_or(|at| at.elapsed() > third) {
        tracing::debug!(session = %opened.session, "opened too late for its time-out");
        return End::Closed;
    }
    let mut out = BytesMut::new();
    ConnectResponse {
        protocol_version: 0,
        timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
        session_id: opened.session.0.cast_signed(),
        password: opened.token.0,
        read_only: request.read_only.map(|_| false),
    }
    .encode(&mut out);
    listed.connection.session.store(opened.session.0.cast_signed(), Relaxed);
    listed.connection.timeout_ms.store(timeout_ms.into(), Relaxed);
    listed.answered(0, 0, -10, arrived);
    if stream.write_all(&out).await.is_err() {
        return End::Broken;
    }
    let frame_max = shared.config.frame_max.max(opened.limits.data_bytes as usize + FRAME_OVERHEAD);
    frames.set_limit(frame_max);
    let end =
        both(stream, (frames, frame_max), (requests, items), &opened, &ledger, &listed, (guest, who)).await;
    end.unwrap_or_else(|e| {
        tracing::debug!(session = %opened.session, "the connection ends: {e}");
        End::Closed
    })
}

/// The first bytes of a connection.
enum First {
    Connect(ConnectRequest),
    Word(String),
}

async fn first_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    frames: &mut Frames,
    guest: &Guest,
) -> Result<First, End> {
    loop {
        // A four letter word has no length prefix.
        if let Some(word) = frames.rest().first_chunk::<4>().filter(|word| words::is_word(**word)) {
            return Ok(First::Word(String::from_utf8_lossy(word).into_owned()));
        }
        if let Some(frame) = frames.next_frame().map_err(|_| End::Broken)? {
            return ConnectRequest::decode(frame).map(First::Connect).map_err(|_| End::Broken);
        }
        match receive(stream, frames, &guest.traffic, &mut None).await {
            Received::More => {}
            Received::End(end) => return Err(end),
        }
    }
}

/// The argument of `stmk`.
async fn mask_behind_word<S: AsyncRead + Unpin>(stream: &mut S, frames: &mut Frames) -> Result<i64, End> {
    loop {
        if let Some(mask) = frames.rest().get(4..).and_then(|rest| rest.first_chunk()) {
            return Ok(i64::from_be_bytes(*mask));
        }
        match stream.read_buf(frames.buffer()).await {
            Ok(1..) => {}
            Ok(0) => return Err(End::Gone),
            Err(_) => return Err(End::Broken),
        }
    }
}

/// Opens or resumes the session that the client requests. A resumed session is open once the leader has counted this as
/// a sign of life: the client relies on the session from the answer on.
async fn open<R: Requests, I: Items>(
    requests: &mut R,
    items: &mut I,
    request: &ConnectRequest,
    ledger: &Ledger,
    arrived: Instant,
) -> Result<Opened, OpError> {
    let resume = resume(request)?;
    let last_zxid = Zxid(u64::try_from(request.last_zxid_seen).unwrap_or(0));
    let timeout_ms = u32::try_from(request.timeout_ms).unwrap_or(0);
    let wait_ms = (timeout_ms / 4).clamp(WAIT_MIN_MS, WAIT_MAX_MS);
    let resumes = resume.is_some();
    requests
        .open(Open {
            resume,
            timeout_ms,
            last_zxid,
            wait_ms: Some(wait_ms),
            ensemble: None,
            purpose: Default::default(),
        })
        .await?;
    if resumes {
        let ping = Request::new(FIRST_PING, Op::Ping);
        ledger.arrived(FIRST_PING, arrived);
        requests.submit(WriteNumber(0), vec![ping]).await?;
    } else {
        ledger.opened(arrived);
    }
    let (mut next, mut opened) = (VecDeque::new(), None);
    loop {
        if let Some(end) = poll_fn(|cx| items.poll_take(cx, 1, &mut next)).await {
            end?;
            return Err(OpError::Unavailable("the stream ended before it began".into()));
        }
        for item in next.drain(..) {
            match item {
                Item::Opened(about) => {
                    items.taken(1, 0);
                    // ZooKeeper also rejects such a client: it must not see an older state than before.
                    if about.zxid < last_zxid {
                        return Err(OpError::Unavailable(format!(
                            "the client has seen {last_zxid}, and this node is at {}",
                            about.zxid
                        )));
                    }
                    opened = Some(about);
                }
                Item::Response(_) => items.taken(1, 0),
                Item::Confirmed { xid } => ledger.counted(xid),
                Item::Notice(_) | Item::Events(_) | Item::State(_) | Item::Ended(_) | Item::Mark(_) => {}
            }
        }
        if ledger.last_counted().is_some()
            && let Some(opened) = opened.take()
        {
            return Ok(opened);
        }
    }
}

fn resume(request: &ConnectRequest) -> Result<Option<(SessionId, SessionToken)>, OpError> {
    let session = SessionId(request.session_id.cast_unsigned());
    if session.0 == 0 {
        return Ok(None);
    }
    let password: Option<[u8; 16]> =
        request.password.as_ref().and_then(|p: &Bytes| p.as_ref().try_into().ok());
    match password {
        Some(password) => Ok(Some((session, SessionToken(password)))),
        None => Err(OpError::SessionExpired(session)),
    }
}

/// Reads and writes until one of the two halves ends.
async fn both<S, R: Requests, I: Items>(
    stream: S,
    (frames, frame_max): (Frames, usize),
    (requests, items): (R, I),
    opened: &Opened,
    ledger: &Ledger,
    stats: &Listed<'_>,
    (guest, who): (Guest, Who),
) -> Result<End, OpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // No client can ask for the results of writes of an earlier connection.
    ledger.acknowledge(opened.last_write);
    let (read, write) = tokio::io::split(stream);
    let mut writer = Writer {
        stream: write,
        items,
        ledger,
        stats,
        share: guest.traffic.clone(),
        third: Duration::from_millis(opened.timeout_ms.into()) / 3,
        next: VecDeque::new(),
        out: BytesMut::new(),
        taken: (0, 0),
        pings: VecDeque::new(),
        zxid: opened.zxid.0.cast_signed(),
        charges: Vec::new(),
        closed: false,
        last: false,
    };
    let mut reader = Reader {
        stream: read,
        frames,
        requests,
        ledger,
        stats,
        share: guest.traffic,
        charge: None,
        limits: opened.limits,
        reply_max: frame_max,
        who,
        written: (!opened.resumed).then_some(opened.last_write),
        xid: FIRST_PING,
    };
    tokio::select! {
        end = reader.run() => end,
        end = writer.run() => end,
    }
}

/// Timeout for the first frame.
const SPEAK_WITHIN: Duration = Duration::from_secs(10);

/// Maximum size of the first frame, in bytes; a client needs 45.
const HANDSHAKE_MAX: usize = 1 << 10;

/// Size of a frame besides the values of its request: paths, access lists, and the parts of a multi.
const FRAME_OVERHEAD: usize = 256 << 10;

/// Time that a node without a leader, or behind its client, has to recover before the client moves to another server: a
/// quarter of the timeout within these bounds, in milliseconds. Clients wait no longer than their timeout divided by
/// the number of servers.
const WAIT_MIN_MS: u32 = 500;
const WAIT_MAX_MS: u32 = 5_000;

/// The store's xid of the ping that resumes a session.
pub(crate) const FIRST_PING: u64 = 1;
