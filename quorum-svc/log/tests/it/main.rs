//! What a node keeps on disk, attacked: torn and lost writes, flipped bits, full and failing disks, and crashes at every
//! step. The numbers F1 to F12 name rows of the fault matrix in `docs/` that a test stands for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report of a test")]

mod common;
mod crash_steps;
mod damage;
mod fs;
mod log;
mod model;
mod reader;
mod small_files;
mod snapshots;
