//! Visits every state that the production cores can reach in small configurations, and checks the invariants in each.
//!
//! Two models are explored: [`zab`], the core of the quorum with its disks and connections under an election
//! with any outcome; and [`election`], the election alone. `docs/model-checking.md` lists the bounds and the
//! omissions.
//!
//! A state is a few words: servers, connections and the observer's knowledge are stored once each and
//! referred to by number. A step of one server depends only on that server and the event, so the core runs
//! once for each such pair, and tables give the rest.
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
