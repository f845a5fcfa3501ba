//! ZAB, the atomic broadcast protocol of ZooKeeper, as a pure state machine.
//!
//! One [`Zab`] is the quorum part of one server. It takes events ([`Input`]) and returns actions
//! ([`Output`]). It knows no socket, disk, clock or task. The shell carries out the outputs in their
//! order and reports the results as inputs.
//!
//! A reign goes through three phases, named as in the paper (Junqueira, Reed, Serafini: *Zab:
//! High-performance broadcast for primary-backup systems*, DSN 2011) and in ZooKeeper:
//!
//! 1. **Discovery**: learners report their accepted epochs to the prospective leader. It proposes a
//!    greater epoch. A quorum makes this epoch durable before it answers.
//! 2. **Synchronisation**: the leader opens the epoch with a *marker* entry and makes each learner's
//!    log a copy of its own: DIFF, TRUNC or SNAP, then the entries behind it. It serves once a quorum
//!    has the marker on disk.
//! 3. **Broadcast**: each write gets a zxid and goes to all learners in order. It is committed once a
//!    quorum has it on disk.
//!
//! Differences from ZooKeeper's code:
//! - The marker is a real entry of the log. So a log's [`api::History`] alone decides how two logs
//!   relate.
//! - The core never holds entries for learners. It requests "[replicate](Output::Replicate) the log
//!   from here to there", and the shell reads these entries from the log. So a slow learner costs no
//!   memory, and DIFF and live traffic are one stream.

mod leader;
mod learner;
mod message;
mod pending;
mod zab;

pub use message::{COMMIT_DELAY, Config, Conn, Durable, Input, Output, Submission, ToLeader, ToLearner};
pub use zab::{CLOCK_BOUND_MS, Zab};
