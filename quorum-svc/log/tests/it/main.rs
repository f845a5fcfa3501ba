//! The durable data of a node under faults. A test for a fault of this list begins with its number:
//!
//! | | fault |
//! |---|---|
//! | F1 | a crash before or after each step that changes the disk |
//! | F2 | another crash while recovering from the first |
//! | F3 | a power cut: any sectors of what is not synced are lost |
//! | F5 | no space left |
//! | F6, F7 | an error at a write; at an fsync, after which the next one succeeds |
//! | F8 | a torn last record |
//! | F9, F10 | a flipped bit, a zeroed block in old records |
//! | F11 | a damaged or half-written snapshot |
//! | F12 | a misdirected or lost write |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report of a test")]

mod common;
mod crash_steps;
mod damage;
mod first_start;
mod fs;
mod full;
mod levels;
mod log;
mod members;
mod model;
mod reader;
mod recover;
mod salvage;
mod small_files;
mod snapshots;
mod torn_cost;
