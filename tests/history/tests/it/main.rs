//! The checkers accept what a correct ensemble answers, and find every kind of wrong answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

mod anomalies;
mod corners;
mod good;
mod run;
