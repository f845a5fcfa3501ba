//! Whole ensembles of real processes, on real disks and sockets, under real faults. Test names carry the number of the
//! scenario in `docs/protocol.md` that they play.
//!
//! Nodes are one process each, or three if `TEST_SPLIT` is set; what only three can show is in `split`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod audit;
mod bad_input;
mod cli;
mod dashboards;
mod disks;
mod durability;
mod failover;
mod floods;
mod harness;
mod identity;
mod kinds;
mod levels;
mod maintenance;
mod observability;
mod python;
mod scenarios;
#[path = "../skipped.rs"]
mod skipped;
mod split;
mod terminal;
mod tls;
mod traces;
mod trees;
mod watches;
mod zookeeper;
