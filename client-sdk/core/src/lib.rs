//! The client's side of a session, without any IO.
//!
//! [`Machine`] numbers the writes of a session, keeps every request until its answer, and carries the session
//! to another node when a connection breaks. It shows the session's token and resends all unanswered requests
//! in the same order and under the same numbers. The ensemble answers those that it has carried out already
//! from its record. So in any network a caller sees each request end once, and each write happen once, while
//! the session lives.
//!
//! ```text
//!             Connect              Opened
//!   waiting ----------> opening ----------> open
//!      ^                   |                  |
//!      +-------------------+------------------+     connection lost, refused or silent: the next endpoint
//!
//!   closed: by `Close`, by a refusal of every endpoint, or by the end of the session without `reopen`
//! ```
//!
//! Watches are carried along: on each new connection the machine asks for what happened behind the last whole group that it has
//! given out, so their owner gets each change once.
//!
//! Drive it like this: after every [`Machine::handle`], carry out [`Machine::poll_output`] until there is none; send
//! [`Machine::poll_transmit`] whenever the connection takes a message; give [`Input::Tick`] at
//! [`Machine::next_timeout`].

mod backoff;
mod config;
mod machine;
mod queue;
mod watching;
mod words;

pub use config::Config;
pub use machine::Machine;
pub use words::{Batch, Connection, Event, Failure, Input, Output, WatchNews};
