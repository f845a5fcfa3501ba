//! The worked examples of elections by their numbers, with scripted message order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod members;
mod net;
mod reigns;
mod votes;
