//! The vocabulary of a session: what a client asks on its stream, and the one ordered sequence of items that leaves the node for
//! it. Edges, the store and the client's session machine all use these words; see [`Coordination`](crate::ports::Coordination).

use crate::{
    Child, Create, DeleteTree, EnsembleId, Identities, Level, MultiOp, NodeKind, OpError, Path, PeerId,
    QuotaAt, Read, ReadLevel, ReadOutcome, SessionId, SessionToken, Trace, Write, WriteNumber, WriteOutcome,
    Zxid, data_len,
    walk::{WalkAsk, WalkPart},
    watch::{AddWatches, WatchEnded, WatchGroup, WatchMark, WatchRefused, WatchState},
};

/// Opens a session, or takes one up on a new stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Open {
    /// The session to take up, with its secret; `None` opens a new one.
    pub resume: Option<(SessionId, SessionToken)>,
    /// The ensemble closes the session after this much silence, in milliseconds. The node clamps it to its limits. A session that
    /// is taken up keeps the one it has.
    pub timeout_ms: u32,
    /// The greatest zxid that the client has seen. The node serves a session that is taken up only once it has applied this.
    pub last_zxid: Zxid,
    /// How long the node may wait, for that or for a leader, before it refuses with [`OpError::Unavailable`]; at most what its own
    /// limits say, which `None` stands for.
    pub wait_ms: Option<u32>,
    /// A node of another ensemble refuses with [`OpError::WrongEnsemble`]; `None` opens in any.
    pub ensemble: Option<EnsembleId>,
    /// What the stream is for.
    pub purpose: Purpose,
}

/// What a stream is for.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// A session.
    #[default]
    Session,
    /// A session; and where the node has no quorum, reads and watches without one, see [`Opened::read_only`]. Writes then fail with
    /// [`OpError::ReadOnly`]. Such a stream ends as soon as the node has a quorum.
    SessionOrReads,
    /// Reads and watches without a session.
    Watches,
}

/// What one request asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A change of the tree.
    Write(Write),
    /// A question to the tree of this node, and how fresh the answer has to be.
    Read(Read, ReadLevel),
    /// Several questions at one zxid, and how fresh the answers have to be: [`Read::Get`], [`Read::Exists`], [`Read::Children`].
    MultiRead(Vec<Read>, ReadLevel),
    /// A step of a walk through a subtree.
    Walk(WalkAsk),
    /// A barrier: later reads see everything that was committed anywhere before it.
    Sync,
    /// A page of the ephemerals of the session, in order of their paths, as this node has them.
    Ephemerals {
        /// Those whose path begins with this.
        prefix: String,
        /// Those behind this path.
        after: String,
        /// Maximum number; 0, and any number above [`Page::NAMES_MAX`](crate::Page::NAMES_MAX), mean that.
        size: u32,
    },
    /// Watches, from this place in the order on.
    AddWatches(AddWatches),
    /// The end of the watches with these ids.
    CancelWatches(Vec<u32>),
    /// Identities that the edge has proven: the client has them from this place in the order on.
    Authenticate(Identities),
    /// Asks for the identities of the client.
    WhoAmI,
    /// A sign of life.
    Ping,
    /// The end of the session.
    Close,
    /// A request that the edge could not read, or does not pass on. It fails with this error, in its place in the order.
    Invalid(OpError),
}

/// The kind of a request, for metrics, spans and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// [`Write::Create`].
    Create,
    /// [`Write::Set`].
    Set,
    /// [`Write::Delete`].
    Delete,
    /// [`Write::SetAcl`].
    SetAcl,
    /// [`Write::DeleteTree`].
    DeleteTree,
    /// [`Write::SetQuota`].
    SetQuota,
    /// [`Write::Multi`].
    Multi,
    /// [`Read::Get`].
    Get,
    /// [`Read::Exists`].
    Exists,
    /// [`Read::Acl`].
    GetAcl,
    /// [`Read::Children`].
    Children,
    /// [`Read::Count`].
    CountTree,
    /// [`Read::Quotas`].
    ListQuotas,
    /// [`Op::MultiRead`].
    MultiRead,
    /// [`Op::Walk`].
    Walk,
    /// [`Op::Sync`].
    Sync,
    /// [`Op::Ephemerals`].
    Ephemerals,
    /// [`Op::AddWatches`].
    AddWatches,
    /// [`Op::CancelWatches`].
    CancelWatches,
    /// [`Op::Authenticate`].
    Authenticate,
    /// [`Op::WhoAmI`].
    WhoAmI,
    /// [`Op::Ping`].
    Ping,
    /// [`Op::Close`].
    Close,
    /// [`Op::Invalid`].
    Invalid,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    /// The client's number for it, ascending along the stream; comes back with the response.
    pub xid: u64,
    /// Of writes, and only of them: the session's number, 1, 2, 3 ... without a gap; the same when the write is sent again.
    pub number: Option<WriteNumber>,
    /// What is asked.
    pub op: Op,
    /// The span that it is part of.
    pub trace: Trace,
    /// If this time, in milliseconds from its arrival at the store, passes before it is begun, it fails with
    /// [`OpError::TimedOut`]. 0: no such time.
    pub timeout_ms: u32,
    /// If the ensemble is below this feature level, it fails with [`OpError::Unsupported`].
    pub min_level: Level,
}

/// What came of a request, if not an error. Each variant answers the variant of [`Op`] with its name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Of [`Op::Write`].
    Write(WriteOutcome),
    /// Of [`Op::Read`].
    Read(ReadOutcome),
    /// Of [`Op::MultiRead`], in the order of the questions.
    MultiRead(Vec<Result<ReadOutcome, OpError>>),
    /// Of [`Op::Walk`].
    Walked(Box<WalkPart>),
    /// Of [`Op::Sync`].
    Sync,
    /// Of [`Op::Ephemerals`].
    Ephemerals {
        /// Sorted.
        paths: Vec<Path>,
        /// There are more behind the last of them.
        more: bool,
    },
    /// Of [`Op::AddWatches`]: all but these stand, from the zxid of the response on.
    Watching(Vec<WatchRefused>),
    /// Of [`Op::CancelWatches`]: no item behind it names the ids. These named no watch.
    Cancelled(Vec<u32>),
    /// Of [`Op::Authenticate`]: all identities of the client.
    Authenticated(Identities),
    /// Of [`Op::WhoAmI`].
    WhoAmI(Identities),
    /// Of [`Op::Ping`].
    Ping,
    /// Of [`Op::Close`].
    Close,
}

/// The answer to one request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Response {
    /// From the request; 0 for a call without a session.
    pub xid: u64,
    /// Of a write: its place in the order. Of anything else: how far the node had applied.
    pub zxid: Zxid,
    /// What came of it.
    pub result: Result<Outcome, OpError>,
    /// The node has no leader at the moment: no other node has heard from the session.
    pub leaderless: bool,
}

/// A session is open on a stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Opened {
    /// Which one.
    pub session: SessionId,
    /// Its secret.
    pub token: SessionToken,
    /// The time-out in force, in milliseconds.
    pub timeout_ms: u32,
    /// The node that answers.
    pub node: PeerId,
    /// The node has no leader at the moment: no other node has heard from the session.
    pub leaderless: bool,
    /// The session existed before.
    pub resumed: bool,
    /// How far the node has applied.
    pub zxid: Zxid,
    /// The session's last write that was carried out, as far as the node has applied.
    pub last_write: WriteNumber,
    /// The feature level of the ensemble, as far as the node has applied.
    pub level: Level,
    /// What the node takes.
    pub limits: Limits,
    /// The identities of the client, as the node sees them.
    pub identities: Identities,
    /// The ensemble of the node.
    pub ensemble: Option<EnsembleId>,
    /// There is no session: the stream only reads, and no other node knows of it. `session` and `token` are zero.
    pub read_only: bool,
}

/// What a node takes from a client.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Unanswered requests of a stream; it reads no more until there are fewer.
    pub requests: u32,
    /// Their [weight](Op::weight).
    pub request_bytes: u64,
    /// Bytes of the values of one request.
    pub data_bytes: u32,
    /// Parts of a multi.
    pub multi_parts: u32,
    /// Watches of a stream.
    pub watches: u32,
    /// Results of single writes that a session may leave unacknowledged; a multi counts as its parts.
    pub unacked_writes: u32,
}

/// News of the node without a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Notice {
    /// The node has lost its leader, or has one again. A client may do better on another node.
    Leader {
        /// Whether there is none now.
        lost: bool,
    },
}

/// One element of the sequence that leaves a node for a session. [`Item::Opened`] comes first, responses come in the order of
/// their requests.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Item {
    /// The session is open.
    Opened(Opened),
    /// The answer to a request.
    Response(Response),
    /// The leader has counted the requests up to this one as signs of life: the session lives for its time-out at least, from
    /// when the client sent the request.
    Confirmed {
        /// Of the last of them.
        xid: u64,
    },
    /// What an entry changed. It comes before the response to that entry, and before anything with a greater zxid.
    Events(WatchGroup),
    /// A part of the state that a watch begins with.
    State(WatchState),
    /// Watches have ended.
    Ended(WatchEnded),
    /// Nothing else has happened so far.
    Mark(WatchMark),
    /// News of the node.
    Notice(Notice),
}

impl Op {
    /// Its kind.
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Op::Write(Write::Create(_)) => Verb::Create,
            Op::Write(Write::Set { .. }) => Verb::Set,
            Op::Write(Write::Delete { .. }) => Verb::Delete,
            Op::Write(Write::SetAcl { .. }) => Verb::SetAcl,
            Op::Write(Write::DeleteTree(_)) => Verb::DeleteTree,
            Op::Write(Write::SetQuota { .. }) => Verb::SetQuota,
            Op::Write(Write::Multi(_)) => Verb::Multi,
            Op::Read(Read::Get { .. }, _) => Verb::Get,
            Op::Read(Read::Exists { .. }, _) => Verb::Exists,
            Op::Read(Read::Acl { .. }, _) => Verb::GetAcl,
            Op::Read(Read::Children { .. }, _) => Verb::Children,
            Op::Read(Read::Count { .. }, _) => Verb::CountTree,
            Op::Read(Read::Quotas { .. }, _) => Verb::ListQuotas,
            Op::MultiRead(..) => Verb::MultiRead,
            Op::Walk(_) => Verb::Walk,
            Op::Sync => Verb::Sync,
            Op::Ephemerals { .. } => Verb::Ephemerals,
            Op::AddWatches(_) => Verb::AddWatches,
            Op::CancelWatches(_) => Verb::CancelWatches,
            Op::Authenticate(_) => Verb::Authenticate,
            Op::WhoAmI => Verb::WhoAmI,
            Op::Ping => Verb::Ping,
            Op::Close => Verb::Close,
            Op::Invalid(_) => Verb::Invalid,
        }
    }

    /// Bytes of its paths, names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Op::Write(Write::Create(create)) => create_bytes(create),
            Op::Write(Write::Set { path, data, .. }) => path.as_str().len() + data_len(data),
            Op::Write(Write::Delete { path, .. }) => path.as_str().len(),
            Op::Write(Write::SetAcl { path, acl, .. }) => path.as_str().len() + acl.weight(),
            Op::Write(Write::DeleteTree(DeleteTree { path, .. }) | Write::SetQuota { path, .. }) => {
                path.as_str().len()
            }
            Op::Write(Write::Multi(parts)) => parts.iter().map(part_bytes).sum(),
            Op::Read(read, _) => read_bytes(read),
            Op::MultiRead(reads, _) => reads.iter().map(read_bytes).sum(),
            Op::Walk(WalkAsk::Begin(walk, _)) => walk.path.as_str().len(),
            Op::Walk(WalkAsk::Next(_)) => 0,
            Op::AddWatches(watches) => watches.bytes(),
            Op::CancelWatches(ids) => std::mem::size_of_val(&ids[..]),
            Op::Ephemerals { prefix, after, .. } => prefix.len() + after.len(),
            Op::Authenticate(identities) => identities.weight(),
            Op::Sync | Op::WhoAmI | Op::Ping | Op::Close | Op::Invalid(_) => 0,
        }
    }

    /// Bytes that it holds in memory while it is under way, the place of its answer included. It never takes more in a message.
    #[must_use]
    pub fn weight(&self) -> usize {
        let parts = match self {
            Op::Write(Write::Multi(parts)) => parts.len(),
            Op::MultiRead(reads, _) => reads.len(),
            Op::AddWatches(watches) => watches.specs.len() + watches.refused.len(),
            _ => 0,
        };
        self.bytes() + (1 + parts) * Request::WEIGHT
    }

    /// The entry that a node must have applied before it answers.
    #[must_use]
    pub fn awaits(&self) -> Option<Zxid> {
        match self {
            Op::Read(_, ReadLevel::AtLeast(zxid))
            | Op::MultiRead(_, ReadLevel::AtLeast(zxid))
            | Op::Walk(WalkAsk::Begin(_, ReadLevel::AtLeast(zxid))) => Some(*zxid),
            Op::AddWatches(watches) => watches.awaits(),
            _ => None,
        }
    }

    /// Whether any state will do, however old: see [`ReadLevel::Stale`].
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(
            self,
            Op::Read(_, ReadLevel::Stale)
                | Op::MultiRead(_, ReadLevel::Stale)
                | Op::Walk(WalkAsk::Begin(_, ReadLevel::Stale) | WalkAsk::Next(_))
        )
    }

    /// Whether it keeps or ends a session and nothing else. A few of these are served whatever room there is.
    #[must_use]
    pub fn is_light(&self) -> bool {
        matches!(self, Op::Ping | Op::Close)
    }

    /// Refuses what only a session can ask for, as calls without one must.
    ///
    /// # Errors
    /// [`OpError::BadArguments`] if it makes or lists ephemerals, or adds watches or identities.
    pub fn sessionless(self) -> Result<Op, OpError> {
        if matches!(self, Op::AddWatches(_) | Op::CancelWatches(_)) {
            return Err(OpError::BadArguments(
                "a unary call has no watches; use the Session stream".to_owned(),
            ));
        }
        if matches!(self, Op::Ephemerals { .. }) {
            return Err(OpError::BadArguments(
                "a unary call has no ephemerals; use the Session stream".to_owned(),
            ));
        }
        if matches!(self, Op::Authenticate(_)) {
            return Err(OpError::BadArguments(
                "a unary call has no identities to add to; send `authorization` with it, or use the Session stream".to_owned(),
            ));
        }
        let ephemeral = match &self {
            Op::Write(Write::Create(create)) => create.kind == NodeKind::Ephemeral,
            Op::Write(Write::Multi(parts)) => {
                parts.iter().any(|part| matches!(part, MultiOp::Create(c) if c.kind == NodeKind::Ephemeral))
            }
            _ => false,
        };
        if ephemeral {
            return Err(OpError::BadArguments(
                "an ephemeral lives with a session and a unary call has none; use the Session stream"
                    .to_owned(),
            ));
        }
        Ok(self)
    }
}

fn create_bytes(create: &Create) -> usize {
    create.path.as_str().len() + create.data_len() + create.acl.weight()
}

fn read_bytes(read: &Read) -> usize {
    let token = match read {
        Read::Children { page, .. } | Read::Quotas { page, .. } => page.after.len(),
        _ => 0,
    };
    read.path().as_str().len() + token
}

fn part_bytes(part: &MultiOp) -> usize {
    match part {
        MultiOp::Create(create) => create_bytes(create),
        MultiOp::Set { path, data, .. } => path.as_str().len() + data_len(data),
        MultiOp::SetAcl { path, acl, .. } => path.as_str().len() + acl.weight(),
        MultiOp::Delete { path, .. } | MultiOp::Check { path, .. } | MultiOp::CheckAbsent { path } => {
            path.as_str().len()
        }
    }
}

impl Request {
    /// A request without a number, a span, a time and a level.
    #[must_use]
    pub fn new(xid: u64, op: Op) -> Request {
        Request { xid, number: None, op, trace: None, timeout_ms: 0, min_level: Level::FIRST }
    }

    /// The least that a request, or a part of a multi, holds while it is under way, in bytes: its place in the order of its
    /// session, and then its answer.
    pub const WEIGHT: usize = 2 * Item::SIZE;
}

impl Verb {
    /// All of them, each at the index of its number.
    pub const ALL: [Verb; 24] = [
        Verb::Create,
        Verb::Set,
        Verb::Delete,
        Verb::SetAcl,
        Verb::DeleteTree,
        Verb::SetQuota,
        Verb::Multi,
        Verb::Get,
        Verb::Exists,
        Verb::GetAcl,
        Verb::Children,
        Verb::CountTree,
        Verb::ListQuotas,
        Verb::MultiRead,
        Verb::Walk,
        Verb::Sync,
        Verb::Ephemerals,
        Verb::AddWatches,
        Verb::CancelWatches,
        Verb::Authenticate,
        Verb::WhoAmI,
        Verb::Ping,
        Verb::Close,
        Verb::Invalid,
    ];

    /// The name in metrics, spans and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Set => "set",
            Verb::Delete => "delete",
            Verb::SetAcl => "set_acl",
            Verb::DeleteTree => "delete_tree",
            Verb::SetQuota => "set_quota",
            Verb::Multi => "multi",
            Verb::Get => "get",
            Verb::Exists => "exists",
            Verb::GetAcl => "get_acl",
            Verb::Children => "children",
            Verb::CountTree => "count_tree",
            Verb::ListQuotas => "list_quotas",
            Verb::MultiRead => "multi_read",
            Verb::Walk => "walk",
            Verb::Sync => "sync",
            Verb::Ephemerals => "ephemerals",
            Verb::AddWatches => "add_watches",
            Verb::CancelWatches => "cancel_watches",
            Verb::Authenticate => "authenticate",
            Verb::WhoAmI => "who_am_i",
            Verb::Ping => "ping",
            Verb::Close => "close",
            Verb::Invalid => "invalid",
        }
    }
}

impl Outcome {
    /// Bytes that it carries: of a read what was read, else nothing, because the number of requests bounds it already.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Outcome::Read(read) => read.weight(),
            Outcome::MultiRead(reads) => reads
                .iter()
                .map(|read| Request::WEIGHT / 2 + read.as_ref().map_or(0, ReadOutcome::weight))
                .sum(),
            Outcome::Walked(part) => part.weight(),
            Outcome::Ephemerals { paths, .. } => {
                paths.iter().map(|path| path.as_str().len() + std::mem::size_of::<Path>()).sum()
            }
            Outcome::Authenticated(identities) | Outcome::WhoAmI(identities) => identities.weight(),
            _ => 0,
        }
    }
}

impl ReadOutcome {
    /// Bytes that it carries.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            ReadOutcome::Data { data, .. } => data_len(data),
            ReadOutcome::Acl { acl, .. } => acl.weight(),
            ReadOutcome::Children { names, .. } => {
                names.iter().map(|name| name.len() + std::mem::size_of::<String>()).sum()
            }
            ReadOutcome::Listed(listing) => listing.children.iter().map(Child::weight).sum(),
            ReadOutcome::Quotas { quotas, .. } => {
                quotas.iter().map(|at| at.path.as_str().len() + std::mem::size_of::<QuotaAt>()).sum()
            }
            ReadOutcome::Exists { .. } | ReadOutcome::Counted(_) => 0,
        }
    }
}

impl Item {
    /// What an item takes in memory besides what it carries, in bytes.
    pub const SIZE: usize = 176;

    /// Bytes that it carries; see [`Outcome::weight`]. Of what no request bounds, its place is among them.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Item::Response(Response { result: Ok(outcome), .. }) => outcome.weight(),
            Item::Events(group) => Item::SIZE + group.weight(),
            Item::State(state) => Item::SIZE + state.weight(),
            Item::Ended(ended) => Item::SIZE + std::mem::size_of_val(&ended.ids[..]),
            Item::Mark(_) => Item::SIZE,
            _ => 0,
        }
    }
}

const _: () = assert!(std::mem::size_of::<Item>() <= Item::SIZE);
