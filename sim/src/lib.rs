//! Whole ensembles in one thread: the production cores, the real log code and the real store core over a simulated
//! network, disk and clock, with clients that write down what they see. See `docs/simulation.md`.
//!
//! A [`Plan`] is a run as data, [`draw`] makes one from a seed, [`run`] carries it out. The same plan gives the same
//! run, event by event.

mod asked;
mod calls;
mod client;
mod context;
mod double;
mod faults;
mod ghost;
mod net;
mod node;
pub mod plan;
pub mod repeat;
mod report;
pub mod shrink;
mod swarm;
mod text;
mod watchers;
mod world;

pub use context::TraceSink;
pub use plan::Plan;
pub use report::{Report, Stats, Violation};
pub use swarm::{draw, draw_with_changes};
pub use world::run;
