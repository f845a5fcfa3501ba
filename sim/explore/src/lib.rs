//! Visits every state that the production cores can reach in small configurations, and checks the invariants in each.
//!
//! Two models are explored: [`zab`], the core of the quorum with its disks and connections under an election that may
//! say anything; and [`election`], the election alone. What is bounded, and what is left out, stands in
//! `docs/model-checking.md`.
//!
//! A state is a few words: servers, connections and what an onlooker knows are kept once each and go by number. A step of
//! one server depends on that server and the event only, so the core runs once for each such pair, and everything else
//! is looked up.
//!
//! ```
//! use explore::{Limits, Verdict, explore, zab};
//!
//! let bounds = zab::Bounds { elections: 1, writes: 1, ..zab::Bounds::NONE };
//! let mut model = zab::Zab::new(zab::Setup { bounds, ..zab::Setup::of_voters(3) })?;
//! let report = explore(&mut model, Limits::default());
//! assert_eq!(report.verdict, Verdict::Closed);
//! # Ok::<(), String>(())
//! ```

pub mod election;
mod engine;
mod hash;
mod pool;
pub mod zab;

pub use engine::{Limits, Model, Report, Verdict, explore};
