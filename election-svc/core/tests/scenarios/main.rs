//! The worked examples of elections, by their numbers, with a scripted order of messages.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;
mod members;
mod net;
mod reigns;
mod votes;
