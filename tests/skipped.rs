//! What a test says when the machine lacks what it needs.

use std::fmt::Display;
use std::io::Write;

/// Says so on standard error itself: what `eprintln!` writes is kept back by the test harness while a test passes, and a test
/// that has tried nothing passes.
pub(crate) fn skipped(why: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
