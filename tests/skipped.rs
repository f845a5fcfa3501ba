//! The message of a test on a machine without the necessary tools.

use std::fmt::Display;
use std::io::Write;

/// Writes to standard error itself: the test harness suppresses the output of `eprintln!` while a test
/// passes, and a skipped test passes.
pub(crate) fn skipped(why: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
