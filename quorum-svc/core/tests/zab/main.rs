//! The core under scripts and under chance: several servers, modelled disks and links, and the invariants of ZAB checked
//! after every step. `S` numbers are those of the scenarios in the design notes, `I` numbers its invariants.
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
mod random;
mod requests;
mod synchronisation;
mod world;
