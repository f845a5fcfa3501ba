//! Tests of the core under scripts and under random events: several servers, modelled disks and links.
//! The invariants of ZAB are checked after every step. `S` numbers are scenarios of the design notes,
//! `I` numbers are its invariants.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod broadcast;
mod commits;
mod damage;
mod disk;
mod election;
mod fuzz;
mod identity;
mod leave;
mod levels;
mod members;
mod random;
mod requests;
mod synchronisation;
mod world;
