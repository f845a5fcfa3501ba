//! Histories of clients, and the question whether a correct ensemble can have given these answers.
//!
//! Two checkers look at the same [`History`] in different ways:
//!
//! - [`check_order`] is guided by the zxids in the answers. It replays the committed entries once and holds every answer
//!   against that replay and against real time, in O(n log n). It is exact, but it believes what nodes say about order.
//! - [`check_linearizable`] believes no zxid. It searches, znode by znode, for some order of the operations that a small
//!   model of its own would have answered in the same way. The search is bounded and says when it gave up.
//!
//! [`page`] draws a history for people, [`json_lines`] writes it for programs. Nothing here does any IO.

mod linear;
mod order;
mod page;
mod text;
mod types;

pub use linear::check_linearizable;
pub use order::{Summary, check_order};
pub use page::page;
pub use store_core::server::Committed;
pub use text::json_lines;
pub use types::{Call, History, Operation, Outcome, Rule, UNTOLD, Violation};
