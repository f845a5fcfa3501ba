//! How a command ends, decided in one place.

use std::{fmt, process::ExitCode};

/// What the process returns. Stable: scripts rely on it. 0 is success, and 2 is also what clap returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// The ensemble or the machine said no: no such znode, another version, a file that cannot be read ...
    Refused = 1,
    /// The command line, the configuration or the input is wrong; nothing was done.
    Usage = 2,
    /// No node answered, or there is no quorum, within the time-out. Nothing is known to be wrong with the request.
    Unavailable = 3,
    /// `status` only: it works, but a node is missing or not yet serving, or there is no leader.
    Degraded = 4,
    /// A write may or may not have been carried out.
    Unknown = 5,
}

/// The text of `--help` about them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  refused: no such znode, exists already, another version, an unreadable file ...
  2  wrong usage, configuration or input; nothing was done
  3  no node answered, or the ensemble had no quorum, within --timeout; try again
  4  status: a node is missing or not yet serving, or there is no leader
  5  a write may or may not have been carried out; look, then decide
  130, 143  ended by a second SIGINT or SIGTERM";

/// Why a command failed, and the remedy.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<host::config::ConfigError> for Failure {
    fn from(e: host::config::ConfigError) -> Failure {
        Failure::usage(e.to_string())
    }
}

/// An error as the failure of the command.
pub(crate) trait Doing<T> {
    /// An error of the operating system; `what` completes "cannot ...".
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;

    /// As [`Exit::Refused`]. The error names the remedy.
    fn or_refused(self) -> Result<T, Failure>;

    /// As [`Exit::Usage`]. The error names the remedy.
    fn or_usage(self) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| Failure::refused(format!("cannot {what}: {e}")))
    }

    fn or_refused(self) -> Result<T, Failure> {
        self.map_err(|e| Failure::refused(e.to_string()))
    }

    fn or_usage(self) -> Result<T, Failure> {
        self.map_err(|e| Failure::usage(e.to_string()))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
