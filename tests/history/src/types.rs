//! Histories, and their possible violations.

use std::fmt;

use api::{OpError, PeerId, Read, ReadLevel, ReadOutcome, SessionId, Write, WriteResult, Zxid};

/// The calls and answers of all clients.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct History {
    /// Those of one client in the order in which it called them; clients may be mixed in any way.
    pub operations: Vec<Operation>,
}

/// One operation of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Operations of one client are called in the order of the list; they may overlap (pipelined).
    pub client: u32,
    /// The session in which it was asked, if known for certain.
    pub session: Option<SessionId>,
    /// Asked in a call of its own, outside of any session.
    pub unary: bool,
    /// Who answered, for display.
    pub node: Option<PeerId>,
    /// Microseconds on a clock common to all clients.
    pub called: u64,
    /// On the same clock, not before `called`. `None`: no answer by the end.
    pub returned: Option<u64>,
    /// The request.
    pub call: Call,
    /// The answer.
    pub outcome: Outcome,
}

/// A request of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// A change of the tree.
    Write(Write),
    /// A question to the tree.
    Read(Read, ReadLevel),
    /// A barrier: later reads of the session see every write that was answered to any client before it was
    /// called.
    Sync,
}

/// The outcome of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Carried out at this place in the order (a failed precondition is a result too).
    Written {
        /// The place.
        zxid: Zxid,
        /// The result.
        result: WriteResult,
    },
    /// Answered from the state at this zxid.
    Read {
        /// The last entry in that state.
        zxid: Zxid,
        /// The answer of the read.
        result: Result<ReadOutcome, OpError>,
    },
    /// The barrier was reached.
    Synced {
        /// The node had applied this when it answered.
        zxid: Zxid,
    },
    /// Certainly not carried out, now or later.
    Refused(OpError),
    /// May have been carried out, or may be yet.
    Unknown,
}

impl Outcome {
    /// Where in the order of all writes the answer stands; `None` if there was no answer.
    #[must_use]
    pub fn zxid(&self) -> Option<Zxid> {
        match self {
            Outcome::Written { zxid, .. } | Outcome::Read { zxid, .. } | Outcome::Synced { zxid } => {
                Some(*zxid)
            }
            Outcome::Refused(_) | Outcome::Unknown => None,
        }
    }
}

/// The `actual` version of [`OpError::BadVersion`] in an answer that does not tell it, as in ZooKeeper's protocol: a version that no
/// znode has.
pub const UNTOLD: i32 = i32::MIN;

/// The rules that a history can break. C1 to C10 are the guarantees to clients, by their usual names in this
/// repository.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// The history itself is well formed: outcomes fit their calls. A violation is a fault of the recorder.
    Record,
    /// The committed entries chain: no hole, no entry twice, epochs never decrease.
    Log,
    /// C1: writes are linearizable. If one returned before another was called, its zxid is less; nothing answered is
    /// lost.
    WriteOrder,
    /// C1: what a write did, its Stat among it, equals the replay of the committed entries.
    WriteResult,
    /// C2: operations of one session take effect, and are answered, in the order in which they were called.
    SessionOrder,
    /// C3: a client never goes back in time.
    Monotone,
    /// C4: a client sees its own writes.
    OwnWrites,
    /// The result of a read is in the state at its zxid.
    ReadResult,
    /// C9: a read at level linearizable, and a sync, are not older than any earlier answer to any client.
    Fresh,
    /// C10: an operation of unknown outcome is carried out at most once, a refused one never, and nothing is
    /// carried out without a call.
    AtMostOnce,
    /// A search found no order of the operations that explains all answers.
    Linearizable,
}

impl Rule {
    /// The short name: `C1` and so on, where there is one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rule::Record => "record",
            Rule::Log => "log",
            Rule::WriteOrder => "C1 write order",
            Rule::WriteResult => "C1 write result",
            Rule::SessionOrder => "C2 session order",
            Rule::Monotone => "C3 monotone",
            Rule::OwnWrites => "C4 own writes",
            Rule::ReadResult => "read result",
            Rule::Fresh => "C9 freshness",
            Rule::AtMostOnce => "C10 at most once",
            Rule::Linearizable => "linearizable",
        }
    }
}

/// Why no correct ensemble can have answered like this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The broken rule.
    pub rule: Rule,
    /// The first operation that is impossible, as index into [`History::operations`]; `None` if the fault lies in the
    /// committed entries alone.
    pub operation: Option<usize>,
    /// A sentence or two: the observation, and its contradiction.
    pub explanation: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule.name())?;
        if let Some(index) = self.operation {
            write!(f, "operation {index}: ")?;
        }
        f.write_str(&self.explanation)
    }
}

impl std::error::Error for Violation {}
