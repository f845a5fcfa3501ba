//! Inputs and outputs of the machine: plain data.

use std::sync::Arc;

use api::{
    Fate, OpError, PeerId, SessionId, Ticket, Time, Trace, WriteNumber, Zxid,
    session::{Item, Op, Open, Outcome, Request},
    watch::{Change, WatchSpec, WatchedZnode},
};

/// One connection to one endpoint, from the attempt to its end. Never used twice by a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Connection(pub u64);

/// Requests to be sent in one message.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Batch {
    /// Where to.
    pub connection: Connection,
    /// In the order in which they are to take effect; at least one.
    pub requests: Vec<Request>,
    /// The results of all writes up to this one have been received.
    pub acked: WriteNumber,
}

/// An input of the machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// The caller wants something. Ends with one [`Output::Done`].
    Request {
        /// The caller's number for it.
        ticket: Ticket,
        /// A write, a read or a sync.
        op: Op,
        /// When the caller stops waiting.
        deadline: Option<Time>,
        /// The span that it is part of; goes along whenever it is sent.
        trace: Trace,
    },
    /// The caller watches changes, from this place in the order of its requests on. Ends with one
    /// [`WatchNews::Ended`].
    Watch {
        /// What it wants. The id is the caller's name for the watch, and never used twice.
        spec: WatchSpec,
    },
    /// The caller wants no more of a watch. Nothing else comes of it.
    Unwatch {
        /// Which one.
        id: u32,
    },
    /// The caller takes no more news of a watch for a while. Nothing is kept of it, and nothing lost: the node tells it again.
    Park {
        /// Which one.
        id: u32,
    },
    /// The caller takes news again.
    Unpark {
        /// Of which watch.
        id: u32,
    },
    /// The caller wants no more: everything before this is still awaited, then the session is closed, all within
    /// [`Config::close_timeout`](crate::Config::close_timeout).
    Close {
        /// Ends with [`Output::Done`], if a caller waits for it.
        ticket: Option<Ticket>,
    },
    /// These came from the node, in this order.
    Items {
        /// On this connection.
        connection: Connection,
        /// The first item of a connection opens the session.
        items: Vec<Item>,
    },
    /// The connection could not be made, or has ended.
    Disconnected {
        /// Which one.
        connection: Connection,
        /// The reason. Its code shows the case: the end of the session, a refusal of the request, or any
        /// other error, which the next endpoint may not have.
        error: OpError,
    },
    /// Time has passed.
    Tick,
}

/// An output of the machine. Outputs are carried out in their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Make a connection and ask for a session in its first message.
    Connect {
        /// The name of the new connection.
        connection: Connection,
        /// Index of the endpoint.
        endpoint: usize,
        /// The first message of the stream.
        open: Open,
    },
    /// Drop this connection, if it is not gone already.
    Disconnect {
        /// Which one.
        connection: Connection,
    },
    /// An endpoint did not give a session; others will be tried.
    AttemptFailed {
        /// Index of the endpoint.
        endpoint: usize,
        /// Why.
        error: OpError,
    },
    /// A request has ended. Once for each.
    Done {
        /// From the request.
        ticket: Ticket,
        /// Of an answered write: its place in the order. Of an answered read or sync: how far the node had applied.
        /// `None` if it ended without an answer.
        zxid: Option<Zxid>,
        /// How.
        result: Result<Outcome, Failure>,
    },
    /// There is news of a watch.
    Watch {
        /// Which one.
        id: u32,
        /// What.
        news: WatchNews,
    },
    /// Something happened to the session.
    Event(Event),
}

/// The events of a watch, in the order of the log and each entry once, whatever happens to connections and sessions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum WatchNews {
    /// It is active: it reports every entry after this one, or after the one that it named. Omitted if other news came before.
    Stands {
        /// The entry.
        zxid: Zxid,
    },
    /// The state that it begins with, or begins again with because what happened in between is not known any more.
    State {
        /// Behind which entry.
        zxid: Zxid,
        /// Parents before their children.
        znodes: Vec<WatchedZnode>,
    },
    /// All that one entry did which the watch sees.
    Group {
        /// The entry.
        zxid: Zxid,
        /// In their order.
        changes: Vec<Arc<Change>>,
    },
    /// It is over: it has fired once, the client is closed, or for this reason.
    Ended(Option<OpError>),
}

/// The events of a session, for holders of locks and the like.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A new session is open.
    Connected {
        /// Which one.
        session: SessionId,
        /// Index of the endpoint.
        endpoint: usize,
        /// Which node answered there.
        node: PeerId,
    },
    /// The connection is lost. The session lives, and the client takes it up elsewhere.
    Disconnected {
        /// Index of the endpoint.
        endpoint: usize,
        /// Why.
        error: OpError,
    },
    /// The session's time-out has passed since the last confirmed message was sent. The session and its
    /// ephemerals may end soon, but not before this event. An application that depends on the session must
    /// stop acting now. [`Event::Resumed`] or [`Event::SessionLost`] follows.
    Suspended,
    /// The session continues.
    Resumed {
        /// Index of the endpoint.
        endpoint: usize,
        /// Which node answered there.
        node: PeerId,
    },
    /// The session is over and its ephemerals are gone, or will be.
    SessionLost {
        /// Which one.
        session: SessionId,
    },
}

/// Why a request did not end with an answer of success.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// The ensemble's answer.
    #[error("{0}")]
    Refused(OpError),
    /// The session ended before the answer came.
    #[error("the session {session} ended before this was answered; {fate}")]
    SessionLost {
        /// Which one.
        session: SessionId,
        /// Of the request.
        fate: Fate,
    },
    /// The deadline passed before the answer came.
    #[error("no answer in time; {fate}")]
    TimedOut {
        /// Of the request.
        fate: Fate,
    },
    /// The servers refuse the connection or a request on it, and would again.
    #[error("{error}; {fate}")]
    Rejected {
        /// The servers' error.
        error: OpError,
        /// Of the request.
        fate: Fate,
    },
    /// Too much is unanswered already.
    #[error("too many requests are unanswered; wait for some of them, and send this one again")]
    Full,
    /// The client is closed.
    #[error("the client is closed; {fate}")]
    Closed {
        /// Of the request.
        fate: Fate,
    },
}

impl Failure {
    /// The outcome of the request. An answer settles it, unless the answer says that the outcome is unknown.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Failure::Refused(error) => error.fate(),
            Failure::Full => Fate::NotDone,
            Failure::SessionLost { fate, .. }
            | Failure::TimedOut { fate }
            | Failure::Rejected { fate, .. }
            | Failure::Closed { fate } => *fate,
        }
    }
}
