//! Tests of `deploy/`: the image and the Compose files on a Docker engine under faults, the Kubernetes
//! manifests against the schemas of Kubernetes and against our own configuration.
//!
//! A line that begins with `skipped: ` names each tool that is missing or unreachable.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

mod compose;
mod docker;
mod kubernetes;
#[path = "../skipped.rs"]
mod skipped;
mod writers;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that has to happen. Generous, because tests run side by side on small machines.
const PATIENCE: Duration = Duration::from_secs(90);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The output of a command, which must succeed.
fn output(command: &mut Command) -> String {
    tried(command).unwrap_or_else(|e| panic!("{e}"))
}

/// The output of a command, or its error.
fn tried(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let said = [text(&output.stdout), text(&output.stderr)].join("\n");
            Err(format!("{command:?}: {}\n{said}", output.status))
        }
    }
}

/// Waits until it is so.
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
