//! The words that every part of Quorate shares.
//!
//! Nothing here does anything to the outside world: newtypes for the numbers of the protocol ([`Zxid`],
//! [`Epoch`], [`PeerId`] ...), the operations of the tree ([`Write`], [`Read`]), their results and errors, what servers say
//! to each other ([`peer`], [`vote`]), the messages between clients and nodes ([`session`]), watches ([`watch`]), the records of a store ([`record`]), numbers from a seed ([`chance`]), and the *ports* ([`ports`]) through which one
//! service calls another. A service knows its neighbour only as a port, so it
//! cannot tell whether the neighbour lives in the same process.

mod access;
mod body;
pub mod budget;
pub mod chance;
mod command;
mod configuration;
mod ensemble;
mod entry;
mod error;
mod expected;
mod identity;
mod level;
pub mod mutants;
mod op;
mod path;
pub mod peer;
pub mod ports;
pub mod proof;
pub mod quota;
pub mod record;
pub mod session;
mod time;
mod trace;
pub mod vote;
pub mod walk;
pub mod watch;
mod zxid;

pub use access::{Acl, AclEntry, AclId, BadAccess, Identities, Identity, Permissions, Scheme};
pub use body::{Body, UnknownRecord};
pub use command::{
    Command, CommandBody, RequestHash, SessionId, SessionToken, StreamId, TokenHash, WriteNumber,
};
pub use configuration::{
    BadRoster, Configuration, Contact, ROSTER_IDS_MAX, Reconfig, ReconfigRefusal, Roster, RosterHistory,
    votes_alike,
};
pub use ensemble::{BadMembers, Ensemble, EnsembleError, Member, Membership};
pub use entry::{Entry, EpochSpan, History, Origin, Stamp, Ticket};
pub use error::{ErrorCode, Fate, OpError, Retry};
pub use expected::Expected;
pub use identity::{BadEnsembleId, EnsembleId, Greeting, Standing};
pub use level::{Build, Level, LevelHistory, LevelRefusal, Levels};
pub use op::{
    Child, Create, DATA_MAX, DeleteTree, Listing, Look, MultiOp, MultiOutcome, NodeKind, Page, Read,
    ReadLevel, ReadOutcome, SEQUENCE_END, Stat, Write, WriteOutcome, WriteResult, data_len,
};
pub use path::{Path, PathError};
pub use quota::{Quota, QuotaAt, Usage};
pub use time::{Now, Time};
pub use trace::{BadTraceparent, Trace, TraceContext};
pub use zxid::{Epoch, PeerId, Zxid};
