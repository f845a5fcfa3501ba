//! What a test says when the machine lacks what it needs.

use std::fmt::Display;
use std::io::Write;

/// Writes to standard error itself: the test harness suppresses the output of `eprintln!` while a test
/// passes, and a skipped test passes.
pub(crate) fn skipped(why: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
