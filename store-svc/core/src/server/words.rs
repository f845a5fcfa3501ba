//! The inputs and outputs of a [`Server`](super::Server): plain data.

use std::time::Duration;

use api::{
    Command, Epoch, Identities, Level, OpError, Origin, PeerId, SessionToken, StreamId, Ticket, Trace,
    WriteNumber, Zxid,
    ports::{QuorumStatus, Refusal, Sign},
    session::{self, Item, Open, Request},
};
use bytes::Bytes;

/// Identifies one connection. The shell chooses it and never reuses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// The configuration of a [`Server`](super::Server).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// Id of this node.
    pub me: PeerId,
    /// The first ticket to use; greater than all tickets of earlier runs of this node.
    pub first_ticket: Ticket,
    /// Limits for clients.
    pub limits: Limits,
}

/// Limits for clients.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Maximum size of the values in one request, in bytes; the values of a multi are added up.
    pub data_max: u64,
    /// Maximum number of parts of a multi.
    pub multi_ops_max: usize,
    /// Shorter session timeouts are raised to this.
    pub session_timeout_min: Duration,
    /// Longer session timeouts are lowered to this.
    pub session_timeout_max: Duration,
    /// Maximum number of open sessions in the whole ensemble when another one is opened. Each open
    /// carries the setting of its node, so use the same value on all nodes.
    pub sessions_max: u32,
    /// Time for which a node without a serving quorum keeps its connections and lets new ones wait.
    /// After that it ends all of them. This is also the timeout of a sync or a linearizable read that
    /// waits for its barrier.
    pub park: Duration,
    /// Time for which a client that has seen more than this node, or a read that asks for a later
    /// state, waits for the node to catch up. A read of a session waits at most a quarter of the
    /// session timeout: answers keep the order of requests, so the client receives nothing in the
    /// meantime. It would move to the next node, where the read would wait again.
    pub catch_up: Duration,
    /// Interval of the checks that all stores have the same state, if there is anything to compare.
    pub check_interval: Duration,
    /// Interval at which the leader looks for expired znodes.
    pub reap_interval: Duration,
    /// Time after its creation at which a container without any child so far is removed; zero: never.
    pub container_unused: Duration,
    /// Maximum number of unanswered requests of a connection. The shell stops reading before; a
    /// connection that exceeds it is closed.
    pub requests_max: usize,
    /// Limit of the weight of these requests. The shell stops reading at it.
    pub request_bytes: usize,
    /// Maximum number of connections, including unary calls. Further ones are rejected.
    pub connections_max: usize,
    /// Limit of the unsent bytes of answers to reads on a connection. Above it, further reads wait, and
    /// the writes after them. One answer may exceed it.
    pub unsent_max: usize,
    /// The same for all sessions together. A connection may use a sixteenth of the free part.
    pub unsent_total_max: usize,
    /// Maximum number of watches of a connection.
    pub watches_session: usize,
    /// Maximum number of watches of this node.
    pub watches_node: usize,
    /// Maximum bytes of the paths that a connection watches; a path counts for each of its watches.
    pub watch_bytes_session: usize,
    /// Maximum size of all watches of this node in memory, with their paths, in bytes.
    pub watch_bytes_node: usize,
    /// Limit of the unsent bytes of events on a connection. Above it, the connection receives further
    /// events from the history after it has taken these.
    pub events_max: usize,
    /// Maximum number of changes in the history.
    pub history_entries: usize,
    /// Maximum size of the history, in bytes.
    pub history_bytes: usize,
    /// Maximum size of the old versions that all walks together save, in bytes. A walk that exceeds it ends.
    pub walk_bytes: usize,
}

impl Limits {
    /// The limits as clients receive them.
    pub(super) fn told(&self) -> session::Limits {
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        session::Limits {
            requests: number(self.requests_max),
            request_bytes: self.request_bytes as u64,
            data_bytes: u32::try_from(self.data_max).unwrap_or(u32::MAX),
            multi_parts: number(self.multi_ops_max),
            watches: number(self.watches_session),
            unacked_writes: number(crate::UNACKED_WRITES),
        }
    }

    /// Maximum memory that clients can make a store hold under these limits, besides its tree, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let kept = crate::KEPT_POOL + crate::KEPT_RESERVE * self.sessions_max as usize;
        self.unsent_total_max + self.watch_bytes_node + self.history_bytes + self.walk_bytes + kept
    }

    /// Interval of a node's reports of signs of life to the leader. It leaves most of the shortest
    /// timeout to late pings.
    pub(super) fn report_interval(&self) -> Duration {
        (self.session_timeout_min / 10).min(Duration::from_millis(200))
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            data_max: 1 << 20,
            multi_ops_max: 10_000,
            // Three pings fit, and an election of a few hundred milliseconds.
            session_timeout_min: Duration::from_secs(1),
            session_timeout_max: Duration::from_secs(60),
            sessions_max: 20_000,
            park: Duration::from_secs(10),
            catch_up: Duration::from_secs(5),
            check_interval: Duration::from_secs(10),
            reap_interval: Duration::from_secs(10),
            container_unused: Duration::ZERO,
            requests_max: 4096,
            request_bytes: 16 << 20,
            connections_max: 10_000,
            unsent_max: 4 << 20,
            unsent_total_max: 128 << 20,
            watches_session: 100_000,
            watches_node: 1_000_000,
            watch_bytes_session: 16 << 20,
            watch_bytes_node: 64 << 20,
            events_max: 1 << 20,
            history_entries: 1 << 20,
            history_bytes: 64 << 20,
            walk_bytes: 64 << 20,
        }
    }
}

/// Random values from the shell for each connection that opens or resumes a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Drawn {
    /// The secret of a new session.
    pub token: SessionToken,
    /// Identifies this connection for a resumed session.
    pub stream: StreamId,
}

/// An input.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// A message of the quorum.
    Feed(Feed),
    /// A message of another store, or of this one.
    Sign(Sign),
    /// A client has connected. It gets [`Item::Opened`], or [`Output::Close`].
    Open {
        /// The new connection.
        conn: ConnId,
        /// The parameters of the opening.
        open: Open,
        /// Random values for it.
        drawn: Drawn,
        /// The client's identities, proven by the edge.
        identities: Identities,
    },
    /// Requests of a client. They may arrive before the connection is open, and are then executed after
    /// the opening.
    Requests {
        /// The connection.
        conn: ConnId,
        /// The client has received the results of all writes up to this one.
        acked: WriteNumber,
        /// The requests, in order.
        requests: Vec<Request>,
    },
    /// A single request of a client without a session. It gets one [`Item::Response`] or
    /// [`Output::Close`], and is removed. Any error except [`OpError::Unknown`] means that it changed
    /// nothing and never will.
    Unary {
        /// Identifies this call.
        conn: ConnId,
        /// What it asks; its number does not count.
        request: Request,
        /// The client's identities, proven by the edge.
        identities: Identities,
    },
    /// A client is gone. The connection may be unknown: [`Output::Close`] may have crossed this input.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A client has taken answers from the shell.
    Drained {
        /// The connection.
        conn: ConnId,
        /// The [weights](Item::weight) of these answers.
        bytes: usize,
    },
    /// Time has passed: [`Server::next_timeout`](super::Server::next_timeout) is due.
    Tick,
}

/// A message of the quorum: [`api::ports::FeedItem`] with its payloads decoded. Snapshots arrive through
/// [`Server::replace_state`](super::Server::replace_state).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Feed {
    /// Entries, each directly after the previous one.
    Committed(Vec<Committed>),
    /// The status of the quorum.
    Status(QuorumStatus),
    /// A barrier is complete.
    Barrier(Ticket),
    /// A request was rejected, and will certainly never be applied.
    Refused {
        /// The ticket of the request.
        ticket: Ticket,
        /// The reason.
        why: Refusal,
    },
    /// The outcome of a request cannot be determined.
    Lost(Ticket),
}

/// A committed entry with its payload decoded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Committed {
    /// Its zxid.
    pub zxid: Zxid,
    /// The leader's time.
    pub time_ms: i64,
    /// The origin of the entry.
    pub origin: Option<Origin>,
    /// The new feature level, if this entry sets it.
    pub level: Option<Level>,
    /// `None` for a marker.
    pub command: Option<Command>,
}

/// An output to carry out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Send to the quorum, in this order.
    Ask(Vec<Ask>),
    /// Send to a client, in this order.
    Send {
        /// The connection.
        conn: ConnId,
        /// The items.
        items: Vec<Item>,
    },
    /// End a connection. Nothing else follows for it.
    Close {
        /// The connection.
        conn: ConnId,
        /// `Ok` if the client closed its session.
        why: Result<(), OpError>,
    },
    /// The state of this node differs from its leader's. [Start over](super::Server::start_over), with
    /// a new feed.
    Diverged {
        /// The entry after which they differ.
        at: Zxid,
        /// The digest of this node's state there.
        own: u64,
        /// The digest of the leader's state there.
        leaders: u64,
    },
    /// A broken invariant; continuing could spread wrong data. Stop the node.
    Stop {
        /// The reason.
        why: String,
    },
}

/// A request to the quorum: [`api::ports::Request`] with its payload not yet encoded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ask {
    /// See [`api::ports::Request::Submit`].
    Submit {
        /// Returned with the entry.
        ticket: Ticket,
        /// The payload.
        command: Command,
        /// The parent span.
        trace: Trace,
    },
    /// See [`api::ports::Request::Barrier`].
    Barrier {
        /// Returned with the completion.
        ticket: Ticket,
    },
    /// See [`api::ports::Request::Report`].
    Report(Bytes),
    /// See [`api::ports::Request::Confirm`].
    Confirm {
        /// The node that sent the report.
        to: PeerId,
        /// The epoch in which this node counts.
        epoch: Epoch,
        /// The answer.
        report: Bytes,
    },
}
