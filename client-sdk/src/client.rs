use std::{
    future::{self, Future},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use api::{
    Acl, Create, Expected, Fate, Identities, MultiOp, MultiOutcome, NodeKind, OpError, Path, PeerId, Read,
    ReadLevel, ReadOutcome, SessionId, Stat, Write, WriteNumber, WriteOutcome, Zxid,
    session::{Op, Outcome, Request, Verb},
};
use bytes::Bytes;
use client_core::{Failure, Machine};
use proto::client::{self as wire, MESSAGE_MAX};
use spans::{Ratio, Span};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tonic::transport::Endpoint;

use crate::{
    ClientError, Options, Tls, Tried, WatchBuilder,
    clock::Clock,
    driver::{Command, Driver, Progress},
    transport,
    waiters::{End, Room, Waiters},
};

/// One session with an ensemble. Cheap to clone; all clones share the session, which closes when the last one is
/// dropped. Needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    /// Bounded by `room`, which a request has to get first.
    commands: mpsc::UnboundedSender<Command>,
    endpoints: Arc<[(String, Endpoint)]>,
    room: Arc<Room>,
    events: broadcast::Sender<SessionEvent>,
    progress: watch::Receiver<Progress>,
    op_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    ratio: Arc<Ratio>,
    /// The last id of a watch.
    watches: Arc<AtomicU32>,
}

/// What kind of znode [`Client::create`] makes.
///
/// ```
/// use std::time::Duration;
/// use client_sdk::CreateMode;
///
/// let member = CreateMode::EPHEMERAL.sequential();
/// let queue = CreateMode::CONTAINER;
/// let cached = CreateMode::ttl(Duration::from_secs(60));
/// # assert!(member.sequential && !queue.sequential && cached != queue);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct CreateMode {
    /// How it is removed; see [`NodeKind`]. The default is a persistent one, which stays until it is deleted.
    pub kind: NodeKind,
    /// The parent's counter of creates is put behind the name, ten digits wide.
    pub sequential: bool,
}

impl CreateMode {
    /// Removed with the session that created it; has no children.
    pub const EPHEMERAL: CreateMode = CreateMode { kind: NodeKind::Ephemeral, sequential: false };

    /// Removed some time after its last child. One that never had a child stays.
    pub const CONTAINER: CreateMode = CreateMode { kind: NodeKind::Container, sequential: false };

    /// Removed some time after it has had no children and its value has not changed for longer than this, in whole milliseconds.
    /// Servers refuse less than one, and more than [`NodeKind::TTL_MAX_MS`].
    #[must_use]
    pub fn ttl(ttl: Duration) -> CreateMode {
        let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        CreateMode { kind: NodeKind::Ttl { ms }, sequential: false }
    }

    /// The same with a number behind its name.
    #[must_use]
    pub fn sequential(self) -> CreateMode {
        CreateMode { sequential: true, ..self }
    }
}

/// The events of a client's session, for holders of locks and the like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionEvent {
    /// A new session is open.
    Connected {
        /// Which one.
        session: SessionId,
        /// Where, as given to [`Client::connect`].
        endpoint: String,
        /// Which node answered there.
        node: PeerId,
    },
    /// The connection is lost. The session lives, and is being taken up elsewhere.
    Disconnected {
        /// Where.
        endpoint: String,
        /// Why.
        error: OpError,
    },
    /// For as long as the session's time-out no node has confirmed the session: it may be gone, with its ephemerals.
    /// A program that must not act without the session has to stop now. [`SessionEvent::Resumed`] or [`SessionEvent::SessionLost`]
    /// follows.
    Suspended,
    /// The session continues.
    Resumed {
        /// Where.
        endpoint: String,
        /// Which node answered there.
        node: PeerId,
    },
    /// The session is over; its ephemerals are gone, or will be.
    SessionLost {
        /// Which one.
        session: SessionId,
    },
}

impl Client {
    /// Opens a session with the ensemble that these are nodes of: `host:port` or `http://host:port`, one or more, to
    /// be tried from a random one on.
    ///
    /// # Errors
    /// An endpoint that is no address; no session within [`Options::connect_timeout`], with the reason for each
    /// endpoint.
    pub async fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        options: Options,
    ) -> Result<Client, ClientError> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        // The token of a session never goes over plaintext once it went over TLS.
        let secured = endpoints.iter().any(|name| transport::is_secured(name));
        let options = Options { tls: options.tls.or(secured.then(Tls::new)), ..options };
        let endpoints: Arc<[(String, Endpoint)]> = endpoints
            .into_iter()
            .map(|name| {
                transport::endpoint(&name, options.attempt_timeout, options.tls.as_ref())
                    .map(|endpoint| (name, endpoint))
            })
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            let why = "none was given".to_owned();
            return Err(ClientError::BadEndpoint { endpoint: String::new(), why });
        }
        let room = Arc::new(Room::new(options.requests_max, options.bytes_max));
        let (commands, from_clients) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (progress, watched) =
            watch::channel(Progress { failures: vec![None; endpoints.len()], ..Progress::default() });
        let driver = Driver {
            machine: Machine::new(options.core(endpoints.len()), seed()),
            waiters: Waiters::new(Arc::clone(&room)),
            listeners: Default::default(),
            endpoints: Arc::clone(&endpoints),
            credentials: options.credentials.iter().map(wire::credential_to_wire).collect(),
            commands: from_clients,
            events: events.clone(),
            progress,
            clock: Clock::start(),
        };
        tokio::spawn(driver.run());
        let client = Client {
            commands,
            endpoints,
            room,
            events,
            progress: watched,
            op_timeout: options.op_timeout,
            write_timeout: options.write_timeout,
            ratio: Arc::new(Ratio::new(options.trace_ratio)),
            watches: Arc::default(),
        };
        client.opened(options.connect_timeout).await?;
        Ok(client)
    }

    /// Makes a znode. Returns its name, with the digits if `mode` says sequential; then `path` may end with a slash, and the
    /// digits alone are the name.
    ///
    /// # Errors
    /// [`ClientError::refusal`] tells what the ensemble said: `NodeExists`, `NoNode` for a missing parent,
    /// `NoChildrenForEphemerals`, `TooLarge`. This holds for all verbs, each with its own reasons; whatever is no
    /// refusal has a [`ClientError::fate`].
    pub async fn create(
        &self,
        path: &str,
        data: impl Into<Bytes>,
        mode: CreateMode,
    ) -> Result<(Path, Stat), ClientError> {
        let path = if mode.sequential { Path::prefix(path)? } else { Path::new(path)? };
        let create = Create { kind: mode.kind, sequential: mode.sequential, ..Create::new(path, data) };
        match self.submit(Write::Create(create)).await.await? {
            WriteOutcome::Created { path, stat } => Ok((path, stat)),
            other => Err(mismatch(&other)),
        }
    }

    /// The value and Stat of a znode, as the node that is asked has them ([`ReadLevel::Local`]).
    ///
    /// # Errors
    /// `NoNode`; else as [`Client::create`].
    pub async fn get(&self, path: &str) -> Result<(Bytes, Stat), ClientError> {
        self.get_with(path, ReadLevel::Local).await
    }

    /// The value and Stat of a znode, as fresh as `level` says.
    ///
    /// # Errors
    /// `NoNode`; `Unavailable` if the node does not reach the zxid of [`ReadLevel::AtLeast`] within some seconds. A
    /// [linearizable](ReadLevel::Linearizable) read goes from node to node until a quorum confirms it or
    /// [`Options::op_timeout`] has passed. Else as [`Client::create`].
    pub async fn get_with(&self, path: &str, level: ReadLevel) -> Result<(Bytes, Stat), ClientError> {
        match self.read_with(Read::Get { path: Path::new(path)? }, level).await.await? {
            ReadOutcome::Data { data, stat } => Ok((data.unwrap_or_default(), stat)),
            other => Err(mismatch(&other)),
        }
    }

    /// Replaces the value, if `version` is none or what the znode is: a version, a creation or both, see [`Expected`].
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `BadCzxid`, `TooLarge`, `QuotaExceeded`; else as [`Client::create`].
    pub async fn set(
        &self,
        path: &str,
        data: impl Into<Bytes>,
        version: Option<Expected>,
    ) -> Result<Stat, ClientError> {
        match self
            .submit(Write::Set { path: Path::new(path)?, data: Some(data.into()), version })
            .await
            .await?
        {
            WriteOutcome::Set { stat } => Ok(stat),
            other => Err(mismatch(&other)),
        }
    }

    /// Removes a znode without children, if `version` is none or what it is, as in [`Client::set`]. One with children is removed
    /// by [`Client::delete_tree`].
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `BadCzxid`, `NotEmpty`; else as [`Client::create`].
    pub async fn delete(&self, path: &str, version: Option<Expected>) -> Result<(), ClientError> {
        match self.submit(Write::Delete { path: Path::new(path)?, version }).await.await? {
            WriteOutcome::Deleted => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    /// The access list of a znode, and its Stat, as the node that is asked has them. Without ADMIN the hashes of digests are left
    /// out.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth` without READ and ADMIN; else as [`Client::create`].
    pub async fn acl(&self, path: &str) -> Result<(Acl, Stat), ClientError> {
        match self.read(Read::Acl { path: Path::new(path)? }).await.await? {
            ReadOutcome::Acl { acl, stat } => Ok((acl, stat)),
            other => Err(mismatch(&other)),
        }
    }

    /// Replaces the access list of a znode, if `aversion` is none or what it is; its version is that of the list.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth` without ADMIN, `BadVersion`, `BadCzxid`; else as [`Client::create`].
    pub async fn set_acl(
        &self,
        path: &str,
        acl: Acl,
        aversion: Option<Expected>,
    ) -> Result<Stat, ClientError> {
        let write = Write::SetAcl { path: Path::new(path)?, acl, aversion };
        match self.submit(write).await.await? {
            WriteOutcome::AclSet { stat } => Ok(stat),
            other => Err(mismatch(&other)),
        }
    }

    /// The identities of this client, as the node of its session sees them: its address, and what its
    /// [credentials](Options::credentials) prove.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn who_am_i(&self) -> Result<Identities, ClientError> {
        let identities = |outcome| match outcome {
            Outcome::WhoAmI(identities) => Ok(identities),
            other => Err(Box::new(other)),
        };
        self.enqueue(Op::WhoAmI, self.op_timeout, identities).await.await
    }

    /// The Stat of a znode, `None` where there is none, as the node that is asked has it.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn exists(&self, path: &str) -> Result<Option<Stat>, ClientError> {
        self.exists_with(path, ReadLevel::Local).await
    }

    /// As [`Client::exists`], as fresh as `level` says.
    ///
    /// # Errors
    /// As [`Client::get_with`], without `NoNode`.
    pub async fn exists_with(&self, path: &str, level: ReadLevel) -> Result<Option<Stat>, ClientError> {
        match self.read_with(Read::Exists { path: Path::new(path)? }, level).await.await? {
            ReadOutcome::Exists { stat } => Ok(stat),
            other => Err(mismatch(&other)),
        }
    }

    /// Does all of these in order, or none.
    ///
    /// # Errors
    /// [`OpError::Multi`] with the part that failed; else as [`Client::create`].
    pub async fn multi(&self, ops: Vec<MultiOp>) -> Result<Vec<MultiOutcome>, ClientError> {
        match self.submit(Write::Multi(ops)).await.await? {
            WriteOutcome::Multi(outcomes) => Ok(outcomes),
            other => Err(mismatch(&other)),
        }
    }

    /// A barrier: reads of this client after it see everything that was committed anywhere before the call. For a single
    /// read, [`ReadLevel::Linearizable`] says the same in one request.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn sync(&self) -> Result<(), ClientError> {
        self.submit_sync().await.await
    }

    /// Enqueues a write: later requests of this client take effect behind it, whether it is awaited or not. Returns
    /// once it is enqueued; waits before that only while [`Options::requests_max`] or [`Options::bytes_max`] is
    /// reached.
    pub async fn submit(&self, write: Write) -> Pending<WriteOutcome> {
        let outcome = |outcome| match outcome {
            Outcome::Write(outcome) => Ok(outcome),
            other => Err(Box::new(other)),
        };
        self.enqueue(Op::Write(write), self.write_timeout, outcome).await
    }

    /// Enqueues a read, as [`Client::submit`] does a write. It sees all writes enqueued before it.
    pub async fn read(&self, read: Read) -> Pending<ReadOutcome> {
        self.read_with(read, ReadLevel::Local).await
    }

    /// Enqueues a [`Client::sync`], as [`Client::submit`] does a write.
    pub async fn submit_sync(&self) -> Pending<()> {
        let done = |outcome| match outcome {
            Outcome::Sync => Ok(()),
            other => Err(Box::new(other)),
        };
        self.enqueue(Op::Sync, self.op_timeout, done).await
    }

    /// Enqueues a read whose answer is as fresh as `level` says. It sees all writes enqueued before it and none that
    /// come behind; if it has to wait, so do they. The one exception: if the connection breaks while it is under way, it is
    /// asked again on another node, and may see writes that came behind it and were carried out before the break.
    pub async fn read_with(&self, read: Read, level: ReadLevel) -> Pending<ReadOutcome> {
        let outcome = |outcome| match outcome {
            Outcome::Read(outcome) => Ok(outcome),
            other => Err(Box::new(other)),
        };
        self.enqueue(Op::Read(read, level), self.op_timeout, outcome).await
    }

    /// Enqueues several reads that are answered at one zxid, as [`Client::read_with`] does one.
    pub(crate) async fn enqueue_reads(
        &self,
        reads: Vec<Read>,
        level: ReadLevel,
    ) -> Pending<Vec<Result<ReadOutcome, OpError>>> {
        let outcome = |outcome| match outcome {
            Outcome::MultiRead(results) => Ok(results),
            other => Err(Box::new(other)),
        };
        self.enqueue(Op::MultiRead(reads, level), self.op_timeout, outcome).await
    }

    /// Watches a znode from this place in the order of the requests on: awaited, it gives a [`Watch`](crate::Watch), which gets each change
    /// once, in the order of the log. The znode need not exist.
    ///
    /// # Errors
    /// [`OpError::LimitExceeded`] if the session or the node has too many watches, or a state that is asked for is too
    /// large; [`OpError::Gone`] if what happened behind [`WatchBuilder::from`] is not known any more and no state is asked for.
    pub fn watch(&self, path: &str) -> WatchBuilder<'_> {
        WatchBuilder::new(self, path)
    }

    /// All endpoints, that of the session first.
    pub(crate) fn endpoints_from_here(&self) -> Vec<Endpoint> {
        let first = self.progress.borrow().endpoint.unwrap_or_default();
        let (before, from) = self.endpoints.split_at(first.min(self.endpoints.len()));
        from.iter().chain(before).map(|(_, endpoint)| endpoint.clone()).collect()
    }

    pub(crate) fn watch_id(&self) -> u32 {
        self.watches.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The channel to the task, and how long a watch may take to become active.
    pub(crate) fn watching(&self) -> (mpsc::UnboundedSender<Command>, Option<Duration>) {
        (self.commands.clone(), self.op_timeout)
    }

    /// The session, if one is open; it may be without a connection at the moment.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.progress.borrow().session
    }

    /// The endpoint that carries the session, as given to [`Client::connect`]; `None` while there is no connection.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        let index = self.progress.borrow().endpoint?;
        self.endpoints.get(index).map(|(name, _)| name.as_str())
    }

    /// What happens to the session from now on. A receiver that falls behind by more than 64 events misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.events.subscribe()
    }

    /// Waits for all requests that are enqueued, then closes the session, which removes its ephemerals. Ends the
    /// session for all clones.
    ///
    /// # Errors
    /// Not done within [`Options::close_timeout`]: the session then ends by its own time-out.
    pub async fn close(&self) -> Result<(), ClientError> {
        let (end, ended) = oneshot::channel();
        // Without the task, which only the end of the runtime stops early, there is nothing left to close.
        let _ = self.commands.send(Command::Close { end });
        match ended.await {
            Ok(End { result: Ok(_), .. }) | Err(_) => Ok(()),
            Ok(End { result: Err(failure), .. }) => Err(failure.into()),
        }
    }

    async fn opened(&self, limit: Duration) -> Result<(), ClientError> {
        let mut progress = self.progress.clone();
        let start = Instant::now();
        let settled = timeout(limit, progress.wait_for(|p| p.session.is_some() || p.closed)).await;
        if matches!(&settled, Ok(Ok(p)) if p.session.is_some()) {
            return Ok(());
        }
        drop(settled);
        let waited = Duration::from_millis(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let failures = progress.borrow().failures.clone();
        let names = self.endpoints.iter().map(|(name, _)| name.clone());
        let tried = names.zip(failures).map(|(endpoint, why)| Tried { endpoint, why }).collect();
        Err(ClientError::NotConnected { waited, tried })
    }

    async fn enqueue<T>(&self, op: Op, limit: Option<Duration>, convert: Convert<T>) -> Pending<T> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let (span, trace) = Span::of_client(span_name(op.verb()), &self.ratio);
        let bytes = op.weight();
        if let Err(too_large) = fits(&op, bytes) {
            return Pending::failed(Failure::Refused(too_large), convert);
        }
        let space = match (self.room.try_take(bytes), deadline) {
            (Some(space), _) => space,
            (None, None) => self.room.take(bytes).await,
            (None, Some(deadline)) => match timeout_at(deadline, self.room.take(bytes)).await {
                Ok(space) => space,
                Err(_) => return Pending::failed(Failure::TimedOut { fate: Fate::NotDone }, convert),
            },
        };
        let (end, ended) = oneshot::channel();
        match self.commands.send(Command::Request { op, deadline, trace, space, end, span }) {
            Ok(()) => Pending { state: State::Waiting(ended), convert },
            Err(_) => Pending::failed(Failure::Closed { fate: Fate::NotDone }, convert),
        }
    }
}

/// The answer to an enqueued request, to be awaited. Dropping it does not take the request back.
#[must_use = "the request is under way, but only awaiting this tells whether it succeeds"]
#[derive(Debug)]
pub struct Pending<T> {
    state: State,
    convert: Convert<T>,
}

#[derive(Debug)]
enum State {
    Failed(Failure),
    Waiting(oneshot::Receiver<End>),
}

/// Picks what fits the request out of an outcome, or gives it back.
type Convert<T> = fn(Outcome) -> Result<T, Box<Outcome>>;

impl<T> Pending<T> {
    fn failed(failure: Failure, convert: Convert<T>) -> Pending<T> {
        Pending { state: State::Failed(failure), convert }
    }

    /// The answer together with its zxid: of a write its place in the order, also if it was refused there; of a read or
    /// a sync how far the node had applied. `None` if the request ended without an answer. What was answered at a zxid can
    /// be seen by every client that reads at [`ReadLevel::AtLeast`] it.
    pub async fn with_zxid(mut self) -> (Option<Zxid>, Result<T, ClientError>) {
        future::poll_fn(|cx| self.poll_end(cx)).await
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<(Option<Zxid>, Result<T, ClientError>)> {
        let End { zxid, result } = match &mut self.state {
            State::Failed(failure) => End { zxid: None, result: Err(failure.clone()) },
            // The task outlives its clients and ends every request, unless the runtime is shutting down.
            State::Waiting(ended) => ready!(pin!(ended).poll(cx))
                .unwrap_or(End { zxid: None, result: Err(Failure::Closed { fate: Fate::Unknown }) }),
        };
        let result = match result {
            Ok(outcome) => (self.convert)(outcome).map_err(|other| mismatch(&*other)),
            Err(failure) => Err(failure.into()),
        };
        Poll::Ready((zxid, result))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_end(cx).map(|(_, result)| result)
    }
}

fn span_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "client.create",
        Verb::Set => "client.set",
        Verb::Delete => "client.delete",
        Verb::SetAcl => "client.set_acl",
        Verb::DeleteTree => "client.delete_tree",
        Verb::SetQuota => "client.set_quota",
        Verb::GetAcl => "client.get_acl",
        Verb::Multi => "client.multi",
        Verb::Get => "client.get",
        Verb::Exists => "client.exists",
        Verb::Children => "client.children",
        Verb::CountTree => "client.count_tree",
        Verb::ListQuotas => "client.list_quotas",
        Verb::MultiRead => "client.multi_read",
        Verb::Walk => "client.walk",
        Verb::Sync => "client.sync",
        Verb::Ephemerals => "client.ephemerals",
        Verb::AddWatches | Verb::CancelWatches => "client.watch",
        Verb::Authenticate | Verb::WhoAmI | Verb::Ping | Verb::Close | Verb::Invalid => "client.session",
    }
}

/// Whether a request fits into a message. One that does not fails here, alone: on the stream it would end the connection of all.
fn fits(op: &Op, weight: usize) -> Result<(), OpError> {
    let limit = MESSAGE_MAX - FRAME;
    // The weight is more than the size on the wire, which takes longer to tell.
    if weight <= limit || !matches!(op, Op::Write(_) | Op::MultiRead(..)) {
        return Ok(());
    }
    let number = Some(WriteNumber(u64::MAX));
    let request = Request { number, ..Request::new(u64::MAX, op.clone()) };
    match wire::request_to_wire(request).map_or(0, |request| prost::Message::encoded_len(&request)) {
        size if size <= limit => Ok(()),
        size => Err(OpError::TooLarge { size: size as u64, limit: limit as u64 }),
    }
}

/// The node answered something else than it was asked.
pub(crate) fn mismatch(outcome: &impl std::fmt::Debug) -> ClientError {
    OpError::Internal(format!("the answer does not fit the request: {outcome:?}")).into()
}

/// Different in every process and every call: the standard library seeds its hash maps from the system's generator.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What a message has besides its one large request: its own frame, and a trace.
const FRAME: usize = 256;

/// Session events are rare: a listener that reads at all does not fall this far behind.
const EVENTS_MAX: usize = 64;
