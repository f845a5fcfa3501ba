//! Who did what: the audit log of a process, JSON lines in a file of its own.
//!
//! Edges record what they have refused, and from the applied results what was done ([`Record`]). A thread of its own writes the
//! records ([`Log`]), so that a slow disk holds no request back unless the operator wants that ([`Full::Block`]). No record has
//! a value, a password, a token or the hash of a digest.
#![forbid(unsafe_code)]

mod file;
mod log;
mod record;

pub use file::{File, OpenError};
pub use log::{Full, Log, Settings};
pub use record::{Event, Record, Who};
