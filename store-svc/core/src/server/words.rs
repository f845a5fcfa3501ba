//! What goes into a [`Server`](super::Server) and what comes out of it: plain data.

use std::time::Duration;

use api::{
    Command, Epoch, Identities, Level, OpError, Origin, PeerId, SessionToken, StreamId, Ticket, Trace,
    WriteNumber, Zxid,
    ports::{QuorumStatus, Refusal, Sign},
    session::{self, Item, Op, Open, Request},
};
use bytes::Bytes;

/// Stands for one connection: chosen by the shell, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// What a [`Server`](super::Server) is told once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This node.
    pub me: PeerId,
    /// The first ticket to use; greater than any that an earlier run of this node has used.
    pub first_ticket: Ticket,
    /// What clients may do.
    pub limits: Limits,
}

/// What clients may do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Most bytes of values in one request; those of a multi are added up.
    pub data_max: u64,
    /// Most parts of a multi.
    pub multi_ops_max: usize,
    /// Shorter session time-outs are raised to this.
    pub session_timeout_min: Duration,
    /// Longer session time-outs are lowered to this.
    pub session_timeout_max: Duration,
    /// Most sessions of the whole ensemble with which one more is opened. Each open says what its node has here, so give all
    /// nodes the same.
    pub sessions_max: u32,
    /// So long a node without a serving quorum keeps its connections, and lets new ones wait. Then it sends all away.
    /// So long, too, a sync or a linearizable read waits for its barrier.
    pub park: Duration,
    /// So long a client that has seen more than this node, or a read that asks for more, waits for the node to catch up.
    /// A read of a session waits for a quarter of the session's time-out at most: answers keep the order of requests, so
    /// the client hears nothing meanwhile, and would go on to the next node, where the read would wait again.
    pub catch_up: Duration,
    /// Time between two checks whether all stores have the same state, if there is anything to compare.
    pub check_interval: Duration,
    /// So often the leader looks for znodes whose time is over.
    pub reap_interval: Duration,
    /// So long after its creation a container goes that has never had a child; zero: never.
    pub container_unused: Duration,
    /// Most unanswered requests of a connection. The shell stops reading before; a connection that has more is closed.
    pub requests_max: usize,
    /// Most connections, unary calls among them. More are refused.
    pub connections_max: usize,
    /// Once so many bytes of answers to reads wait to be sent on a connection, its further reads wait as well, and its
    /// writes behind them. Exceeded by one answer at most.
    pub unsent_max: usize,
    /// The same for all sessions together. A connection may have a sixteenth of what is free.
    pub unsent_total_max: usize,
    /// Most watches of a connection.
    pub watches_session: usize,
    /// Most watches of this node.
    pub watches_node: usize,
    /// Once so many bytes of events wait to be sent on a connection, it is told the rest from the history, when it has taken these.
    pub events_max: usize,
    /// Most changes in the history.
    pub history_entries: usize,
    /// Most bytes of them.
    pub history_bytes: usize,
}

impl Limits {
    /// What clients are told of them.
    pub(super) fn told(&self) -> session::Limits {
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        session::Limits {
            requests: number(self.requests_max),
            data_bytes: u32::try_from(self.data_max).unwrap_or(u32::MAX),
            multi_parts: number(self.multi_ops_max),
            watches: number(self.watches_session),
        }
    }

    /// How often a node tells the leader which sessions it has heard: so often that also the shortest time-out leaves most of
    /// itself to pings that are late.
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
            connections_max: 10_000,
            unsent_max: 4 << 20,
            unsent_total_max: 128 << 20,
            watches_session: 100_000,
            watches_node: 1_000_000,
            events_max: 1 << 20,
            history_entries: 1 << 20,
            history_bytes: 64 << 20,
        }
    }
}

/// What the shell draws at random for each connection that opens a session or takes one up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Drawn {
    /// The secret of a new session.
    pub token: SessionToken,
    /// This connection, to a session that is taken up.
    pub stream: StreamId,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// The quorum says.
    Feed(Feed),
    /// Another store says, or this one.
    Sign(Sign),
    /// A client has connected. It gets [`Item::Opened`], or [`Output::Close`].
    Open {
        /// The new connection.
        conn: ConnId,
        /// How it begins.
        open: Open,
        /// For it.
        drawn: Drawn,
        /// What the edge has proven of the client.
        identities: Identities,
    },
    /// A client asks. May come before the connection is open, and is carried out behind that.
    Requests {
        /// Who.
        conn: ConnId,
        /// The client has received the results of all writes up to this one.
        acked: WriteNumber,
        /// In order.
        requests: Vec<Request>,
    },
    /// A client without a session asks one thing. It gets one [`Item::Response`], or [`Output::Close`], and is
    /// forgotten. Any error but [`OpError::Unknown`] means that it changed nothing and never will.
    Unary {
        /// Stands for this call.
        conn: ConnId,
        /// What.
        op: Op,
        /// As in [`Request`].
        trace: Trace,
        /// What the edge has proven of the client.
        identities: Identities,
    },
    /// A client has gone. Unknown connections may be named: [`Output::Close`] may have crossed it.
    Closed {
        /// Who.
        conn: ConnId,
    },
    /// A client has taken answers off the shell's hands.
    Drained {
        /// Who.
        conn: ConnId,
        /// The [weights](Item::weight) of what it took.
        bytes: usize,
    },
    /// Time has passed: [`Server::next_timeout`](super::Server::next_timeout) is due.
    Tick,
}

/// What the quorum says: [`api::ports::FeedItem`] with its payloads decoded. Snapshots come as
/// [`Server::replace_state`](super::Server::replace_state).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Feed {
    /// Entries, each directly behind the one before it.
    Committed(Vec<Committed>),
    /// Where the quorum stands.
    Status(QuorumStatus),
    /// A barrier is reached.
    Barrier(Ticket),
    /// Not accepted, and certainly never carried out.
    Refused {
        /// What.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// The fate cannot be known.
    Lost(Ticket),
}

/// A committed entry with its payload decoded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Committed {
    /// Its place.
    pub zxid: Zxid,
    /// Leader's time.
    pub time_ms: i64,
    /// Who submitted it.
    pub origin: Option<Origin>,
    /// The feature level from here on, if this entry says it.
    pub level: Option<Level>,
    /// `None` for a marker.
    pub command: Option<Command>,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Ask the quorum, in this order.
    Ask(Vec<Ask>),
    /// Send to a client, in this order.
    Send {
        /// Whom.
        conn: ConnId,
        /// What.
        items: Vec<Item>,
    },
    /// End a connection. Nothing else comes for it.
    Close {
        /// Which one.
        conn: ConnId,
        /// `Ok` if the client closed its session.
        why: Result<(), OpError>,
    },
    /// The state of this node is not that of its leader. [Start over](super::Server::start_over), with a new feed.
    Diverged {
        /// Behind this entry.
        at: Zxid,
        /// The digest of this node's state there.
        own: u64,
        /// That of the leader's.
        leaders: u64,
    },
    /// An invariant is broken; going on could spread wrong data. Stop the node.
    Stop {
        /// What was found.
        why: String,
    },
}

/// Something for the quorum: [`api::ports::Request`] with its payload not yet encoded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ask {
    /// See [`api::ports::Request::Submit`].
    Submit {
        /// Comes back with the entry.
        ticket: Ticket,
        /// The payload.
        command: Command,
        /// The span that it is part of.
        trace: Trace,
    },
    /// See [`api::ports::Request::Barrier`].
    Barrier {
        /// Comes back.
        ticket: Ticket,
    },
    /// See [`api::ports::Request::Report`].
    Report(Bytes),
    /// See [`api::ports::Request::Confirm`].
    Confirm {
        /// Whose report it was.
        to: PeerId,
        /// In which this node counts.
        epoch: Epoch,
        /// The answer.
        report: Bytes,
    },
}
