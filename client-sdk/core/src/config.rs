use std::time::Duration;

/// How a [`Machine`](crate::Machine) behaves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// How many endpoints there are to try; they are known by their index. Taken as 1 if 0.
    pub endpoints: usize,
    /// The silence after which the ensemble closes the session; the server may clamp it. Default 10 s.
    pub session_timeout: Duration,
    /// Most requests kept without an answer. Default 8,192.
    pub requests_max: usize,
    /// Most bytes kept without an answer, by [`Op::weight`](api::session::Op::weight); the last request taken may exceed it.
    /// Default 64 MiB.
    pub bytes_max: usize,
    /// Maximum of unanswered requests on a connection; further ones wait at the client. A node that reports
    /// overload halves this for a while. Default 4,096, which equals the default limit of a node for one
    /// connection.
    pub window_max: usize,
    /// Whether to open a fresh session for later requests when one is lost. Default yes.
    pub reopen: bool,
    /// An endpoint must connect and open the session within this, or the next one is tried. Default 3 s: longer than
    /// an election, during which opening waits.
    pub attempt_timeout: Duration,
    /// How long to stay on a node without a leader while there are other endpoints. Default 2 s: longer than an election,
    /// so that only a node is left that is cut off from the others.
    pub leaderless_max: Duration,
    /// Pause after the first round of failed endpoints; doubles with every round. Default 20 ms.
    pub backoff_min: Duration,
    /// Longest pause between rounds. Default 1 s.
    pub backoff_max: Duration,
    /// How long closing waits for what is unanswered and for the end of the session. Default 5 s.
    pub close_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: 1,
            session_timeout: Duration::from_secs(10),
            requests_max: 8192,
            bytes_max: 64 << 20,
            window_max: 4096,
            reopen: true,
            attempt_timeout: Duration::from_secs(3),
            leaderless_max: Duration::from_secs(2),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            close_timeout: Duration::from_secs(5),
        }
    }
}
