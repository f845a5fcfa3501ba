//! ZAB, the atomic broadcast protocol of ZooKeeper, as a pure state machine.
//!
//! One [`Zab`] is the quorum part of one server. It is told what happened ([`Input`]) and says what to do
//! ([`Output`]); it knows no socket, disk, clock or task. The shell carries outputs out in the order in which they
//! come and reports results as inputs.
//!
//! A reign goes through three phases, named as in the paper (Junqueira, Reed, Serafini: *Zab: High-performance
//! broadcast for primary-backup systems*, DSN 2011) and in ZooKeeper:
//!
//! 1. **Discovery**: learners tell the prospective leader their accepted epoch, it proposes a greater one, a quorum
//!    makes that durable before it answers.
//! 2. **Synchronisation**: the leader opens the epoch with a *marker* entry and brings each learner's log to a copy of
//!    its own (DIFF, TRUNC or SNAP, then what follows). It serves once a quorum has the marker on disk.
//! 3. **Broadcast**: writes get a zxid, go to all learners in order, and are committed once a quorum has them on disk.
//!
//! What differs from ZooKeeper's code, and why it is simpler: the marker is a real entry of the log, so a log's
//! [`api::History`] alone decides how two logs relate; and the core never holds entries for learners: it says
//! "[replicate](Output::Replicate) the log from here to there" and the shell reads them from the log, so a slow learner
//! costs no memory and DIFF and live traffic are the same stream.

mod leader;
mod learner;
mod message;
mod pending;
mod zab;

pub use message::{COMMIT_DELAY, Config, Conn, Durable, Input, Output, Submission, ToLeader, ToLearner};
pub use zab::{CLOCK_BOUND_MS, Zab};
