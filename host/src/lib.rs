//! The shared parts of every `main` of Quorate, so that all of them behave alike:
//!
//! - [`config`]: the settings of a node from flags, environment and file, each with where it came from;
//! - [`descriptors`]: how many files and connections the process may have open;
//! - [`listen`]: the one way to bind a port and to serve gRPC on it;
//! - [`http`]: probes and metrics on a port of their own, and how to ask it;
//! - [`logging`]: log lines;
//! - [`otlp`]: metrics for a collector;
//! - [`traces`]: spans for the same;
//! - [`shutdown`]: signals, and a drain that ends.
//!
//! Nothing here knows what a service does.

mod collector;
pub mod config;
pub mod descriptors;
mod health;
pub mod http;
pub mod listen;
pub mod logging;
pub mod otlp;
pub mod shutdown;
pub mod traces;
