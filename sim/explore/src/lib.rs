//! Exhaustive exploration of the production cores in small configurations.
mod engine;
mod hash;
mod pool;
pub mod zab;
pub use engine::{Limits, Model, Report, Verdict, explore};
