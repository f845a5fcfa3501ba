//! The ports: how one service calls another, whether it lives in the same process or not.
//!
//! A service in another process is called through a client that finds it again after a restart; see
//! `proto::remote`. So [`PortClosed`] means in both cases that there is nothing more to wait for.
//!
//! Calls go one way, edge -> store -> quorum -> election. What flows back is *pulled* by the caller: the store attaches to the
//! quorum and reads its [`Feed`], an edge reads the [`Items`] of each of its streams.

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::budget::{Held, Share, Slot};
use crate::session::{self, Item, Open, Response};
use crate::{
    Build, EnsembleId, Entry, Epoch, Identities, Level, LevelRefusal, OpError, PeerId, Reconfig,
    ReconfigRefusal, Roster, Standing, Ticket, Trace, WriteNumber, Zxid,
};

/// The neighbour is shutting down, or another caller has taken its place: stop. From a call of its own, as to save
/// a snapshot: it did not succeed this time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PortClosed(pub String);

/// The candidacy of a server in an election; compared in this order, and by server id last (S4).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Candidate {
    /// Epoch of the last leader that it synchronised with.
    pub epoch: Epoch,
    /// The last zxid in its log, committed or not.
    pub zxid: Zxid,
}

/// Fast leader election, as the quorum sees it.
pub trait Election: Clone + Send + Sync + 'static {
    /// Starts looking for a leader and returns the one that was found. A newer call ends an older one. Without a
    /// candidate this server helps to choose but does not stand itself.
    fn elect(&self, candidate: Option<Candidate>) -> impl Future<Output = Result<PeerId, PortClosed>> + Send;

    /// The standing of this server from now on, and the members that count for it. It refuses servers of another ensemble.
    fn introduce(
        &self,
        standing: Standing,
        roster: Arc<Roster>,
    ) -> impl Future<Output = Result<(), PortClosed>> + Send;

    /// This server has synchronised with its leader in `epoch` and serves: from now on it answers the votes of others
    /// with this epoch (ZooKeeper's `updateElectionVote`), so that all answers agree.
    fn settled(&self, leader: PeerId, epoch: Epoch) -> impl Future<Output = Result<(), PortClosed>> + Send;
}

/// What a store asks of its quorum. Asked in batches; order is kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Replicate this. It comes back in the feed as an [`Entry`] whose origin is this node and ticket, exactly once,
    /// or as [`FeedItem::Refused`] or [`FeedItem::Lost`]. Tickets must ascend, also from one store to the one that
    /// attaches after it (start at random).
    Submit {
        /// The store's number for it.
        ticket: Ticket,
        /// Opaque.
        payload: Bytes,
        /// The span that it is part of; comes back with the entry, as far as the entry comes from memory.
        trace: Trace,
    },
    /// Comes back as [`FeedItem::Barrier`] behind everything that was committed anywhere before this was asked.
    Barrier {
        /// The store's number for it, from the same sequence as for submissions.
        ticket: Ticket,
    },
    /// Of signs of life: delivered to the store of the present leader as [`Sign::Report`], if there is one and nothing
    /// breaks.
    Report(Bytes),
    /// The answer of a leader's store to a report: delivered as [`Sign::Confirmed`] once a quorum has confirmed, after this
    /// was asked, that this server still leads in `epoch`. Dropped if it does not.
    Confirm {
        /// Whose report it was.
        to: PeerId,
        /// In which the store counts.
        epoch: Epoch,
        /// Opaque.
        report: Bytes,
    },
}

/// What a quorum tells its store, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum FeedItem {
    /// Committed entries, each directly behind the one before it, and durable on this node.
    Committed(Vec<Entry>),
    /// The store is too far behind for the log (or is ahead of what this node has): forget everything and take this
    /// state instead. Chunks follow, then the end, then the entries after `zxid`. `Zxid::ZERO` comes without chunks and
    /// means the empty state.
    SnapshotStart {
        /// The state is exactly this.
        zxid: Zxid,
    },
    /// A piece of the state, as the store once gave it.
    SnapshotChunk(Bytes),
    /// The state is complete.
    SnapshotEnd,
    /// The role of this node changed.
    Status(QuorumStatus),
    /// See [`Request::Barrier`].
    Barrier {
        /// From the request.
        ticket: Ticket,
    },
    /// Not accepted, and certainly never carried out.
    Refused {
        /// From the request.
        ticket: Ticket,
        /// The reason, for the client.
        why: Refusal,
    },
    /// The result of this request cannot be known from here: this node skipped entries by a snapshot, or the link to a
    /// quorum in another process broke. Submit it again if that is safe.
    Lost {
        /// From the request.
        ticket: Ticket,
    },
    /// Save a snapshot as soon as possible: a learner of this node needs one, and there is none that is sound.
    SnapshotWanted,
}

/// The messages between stores about signs of life. Comes beside the [`FeedItem`]s, so that it never waits behind entries or
/// snapshots, and in no order with them. May be lost.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Sign {
    /// A [`Request::Report`] of some store, delivered because this node leads.
    Report {
        /// Whose.
        from: PeerId,
        /// What it said.
        report: Bytes,
    },
    /// A [`Request::Confirm`] for this store.
    Confirmed(Bytes),
}

/// The largest payload of a request, in bytes, whatever the limits of a node say. A larger one would
/// delay all later messages on a slow link. An entry that cannot be sent to the other servers would be in the log of a leader alone,
/// and that leader would win every election.
pub const PAYLOAD_MAX: usize = 4 << 20;

/// Why a quorum does not take a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// Too many requests, or too many bytes, wait already.
    Full,
    /// There was no leader for longer than the parking limit.
    NoLeader,
    /// Larger than [`PAYLOAD_MAX`], or than all that may wait.
    TooLarge,
}

/// The room on the disks of log and state: of one node, or of so many nodes that the others are no quorum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Room {
    /// Enough.
    #[default]
    Ample,
    /// What makes the state larger is refused.
    Low,
    /// Only what makes it smaller is taken.
    Short,
}

/// What a node is in its ensemble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Role {
    /// Without a leader.
    #[default]
    Looking,
    /// Votes and follows.
    Following,
    /// Leads.
    Leading,
    /// Follows without a vote.
    Observing,
}

/// Where a node's quorum stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct QuorumStatus {
    /// What it is.
    pub role: Role,
    /// Whether it is synchronised with an established leader (or is one), so that writes make progress.
    pub serving: bool,
    /// Its leader.
    pub leader: Option<PeerId>,
    /// Of the last leader that it synchronised with.
    pub epoch: Epoch,
    /// Last in the log.
    pub last: Zxid,
    /// Last that is known to be committed.
    pub committed: Zxid,
    /// Of the disks of this node.
    pub disk: Room,
    /// What a node that serves may take from clients, as the leader says.
    pub room: Room,
    /// Which ensemble it is; `None` before the first synchronisation.
    pub ensemble: Option<EnsembleId>,
}

/// Another server, as a node sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerReport {
    /// Which one.
    pub id: PeerId,
    /// `host:port` of its quorum.
    pub address: String,
    /// Why it cannot be reached, or refuses this node; `None` if the two are connected.
    pub fault: Option<String>,
    /// Whether one of the two has refused the other, until a person changes something.
    pub refused: bool,
    /// What it runs, if it has answered since this node could not reach it last.
    pub build: Option<Build>,
    /// Its settings that differ from those of this node, with both values, if the two are connected.
    pub differs: Option<String>,
    /// How long that is so.
    pub since: Duration,
}

/// What a node knows of its ensemble.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Surroundings {
    /// The id of the ensemble; `None` before the first synchronisation.
    pub ensemble: Option<EnsembleId>,
    /// The feature level that is committed, as far as this node knows; `None` before the first synchronisation.
    pub level: Option<Level>,
    /// What this node runs; `None` if its quorum cannot be reached.
    pub build: Option<Build>,
    /// All other servers, in order of their ids.
    pub peers: Vec<PeerReport>,
    /// The members that count for this node: the last ones in its log; `None` if its quorum cannot be reached.
    pub roster: Option<Arc<Roster>>,
    /// How far its wall clock is ahead of those of a quorum, in milliseconds, as far as it knows.
    pub clock_offset_ms: Option<i64>,
}

/// Pieces of a snapshot on their way.
pub trait Chunks: Send {
    /// The next piece, `None` at the end. Pieces are at most 1 MiB.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;

    /// The least number of bytes of all pieces together.
    fn at_least(&self) -> u64 {
        0
    }
}

/// What an attached store reads. Dropping it detaches.
pub trait Feed: Send + 'static {
    /// The next items, at least one; waits for them. If it is not read, only this store falls behind.
    fn next(&mut self) -> impl Future<Output = Result<Vec<FeedItem>, PortClosed>> + Send;
}

/// What an attached store reads beside its [`Feed`].
pub trait Signs: Send + 'static {
    /// The next one; waits for it. `None` when the feed ends, too. A store that does not read loses some.
    fn next(&mut self) -> impl Future<Output = Option<Sign>> + Send;
}

/// The replicated log, as the store sees it.
pub trait Quorum: Clone + Send + Sync + 'static {
    /// What `attach` returns.
    type Feed: Feed;
    /// What `attach` returns.
    type Signs: Signs;

    /// Starts the feed behind `after`, the last zxid that the store has. One store at a time: a newer one ends an older.
    fn attach(
        &self,
        after: Zxid,
    ) -> impl Future<Output = Result<(Self::Feed, Self::Signs), PortClosed>> + Send;

    /// Asks, in order, as the store that is attached. Waits while the queue to the quorum is full.
    fn request(&self, batch: Vec<Request>) -> impl Future<Output = Result<(), PortClosed>> + Send;

    /// Hands over the state at exactly `zxid` (which the store got from its feed). Once it is durable and verified,
    /// the log below the snapshot before it may be purged. Returns when it is.
    fn save_snapshot(
        &self,
        zxid: Zxid,
        chunks: impl Chunks + 'static,
    ) -> impl Future<Output = Result<(), PortClosed>> + Send;

    /// What this node knows of its ensemble.
    fn surroundings(&self) -> impl Future<Output = Result<Surroundings, PortClosed>> + Send;

    /// Asks the leader to raise the feature level of the ensemble from `expected` to `level`. Returns the level when it is
    /// committed; at once, if the ensemble is at `level` already.
    fn set_level(
        &self,
        expected: Level,
        level: Level,
    ) -> impl Future<Output = Result<Level, LevelRefusal>> + Send;

    /// Asks the leader to change the members. Returns the version of the new configuration when its end is committed; at once,
    /// if the members are these already.
    fn reconfigure(&self, reconfig: Reconfig) -> impl Future<Output = Result<Zxid, ReconfigRefusal>> + Send;

    /// Where this node stands now.
    fn status(&self) -> impl Future<Output = Result<QuorumStatus, PortClosed>> + Send;
}

/// SHA-256 of a client's certificate, in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub Arc<str>);

/// The client behind a stream or call, as the edge has found it out.
#[derive(Clone, Default, Debug)]
pub struct Caller {
    /// What the edge has proven of it. It is stamped on everything that it asks.
    pub identities: Identities,
    /// Its address, if it is known. Bounds the rate at which one address opens sessions.
    pub address: Option<IpAddr>,
    /// Its certificate, for the audit log.
    pub certificate: Option<Fingerprint>,
    /// What its connection may hold in this process; without one, it shares what the store allows in all.
    pub share: Option<Share>,
    /// What the message that brought the request holds of the connection's share. The store gives it back once it has made room
    /// for the request itself.
    pub message: Slot,
}

/// The store of a node, as an edge sees it: what clients may ask. The edge decodes what its clients send, and encodes what they
/// get; order, bounds and sessions are the store's part.
pub trait Coordination: Clone + Send + Sync + 'static {
    /// What [`Coordination::stream`] returns.
    type Requests: Requests;
    /// What [`Coordination::stream`] returns.
    type Items: Items;

    /// A new stream of a client, on which [`Requests::open`] comes first.
    fn stream(&self, caller: Caller) -> (Self::Requests, Self::Items);

    /// One request without a session, whose xid and number mean nothing. What comes with the response is to be held until the
    /// client has it.
    ///
    /// # Errors
    /// Why there is no response. Anything but [`OpError::Unknown`] means that it changed nothing and never will.
    fn call(
        &self,
        caller: Caller,
        request: session::Request,
    ) -> impl Future<Output = Result<(Response, Held), OpError>> + Send;
}

/// What a client asks on one stream. Dropping it ends the stream.
pub trait Requests: Send + 'static {
    /// Opens a session, or takes one up: once, and first. The answer is the first of the [`Items`], or their end.
    ///
    /// # Errors
    /// It was not asked for; end the stream with this.
    fn open(&mut self, open: Open) -> impl Future<Output = Result<(), OpError>> + Send;

    /// All that the edge has proven of the client, instead of what its [`Caller`] said. Only before [`Requests::open`]; behind it,
    /// [`session::Op::Authenticate`] adds to them.
    fn identify(&mut self, identities: Identities);

    /// Asks, in this order, behind everything before. Waits while too much is under way for the stream, its connection or the
    /// node, so that the client's own flow control holds it back. `acked`: the client has received the results of all writes up to
    /// this one. On a stream that has ended, nothing happens.
    ///
    /// # Errors
    /// Nothing more can be asked; end the stream with this.
    fn submit(
        &mut self,
        acked: WriteNumber,
        requests: Vec<session::Request>,
    ) -> impl Future<Output = Result<(), OpError>> + Send;

    /// Waits until the client has taken all answers; for a client that asks no more.
    fn settled(&self) -> impl Future<Output = ()> + Send;

    /// Waits until the stream has ended.
    fn over(&self) -> impl Future<Output = ()> + Send;

    /// Ends the stream behind the items that wait, unless it has ended. What is not answered never will be.
    fn end(self, why: Result<(), OpError>);
}

/// What leaves the store for one stream, in order. Dropping it ends the stream: the client is gone.
pub trait Items: Send + Unpin + 'static {
    /// Moves the next items into `into`, at most `max` of them; `Some` behind the last, with how the stream ended: `Ok` if the
    /// client has closed its session or gone.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut VecDeque<Item>,
    ) -> Poll<Option<Result<(), OpError>>>;

    /// The transport has taken this many answers, [`Item::Opened`] included, of this [weight](Item::weight) together: there is
    /// room for more.
    fn taken(&mut self, answers: usize, weight: usize);
}
