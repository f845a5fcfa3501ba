use std::time::Duration;

use api::proof::Credential;

use crate::Tls;

/// How a [`Client`](crate::Client) behaves. The defaults suit most programs.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// The silence after which the ensemble closes the session and removes its ephemerals; the server may clamp it.
    /// Default 10 s.
    pub session_timeout: Duration,
    /// How long [`Client::connect`](crate::Client::connect) waits for the first session. Default 10 s.
    pub connect_timeout: Duration,
    /// How long one endpoint may take to connect and open the session before the next one is tried. Default 3 s.
    pub attempt_timeout: Duration,
    /// How long a read or a sync may take, with all fail-overs. `None` for ever. Default 30 s.
    pub op_timeout: Option<Duration>,
    /// How long a write may take, with all fail-overs. `None`, the default, for as long as the session lives: a write
    /// that is given up after it was sent leaves the caller in doubt about it ([`Fate::Unknown`](crate::Fate)).
    pub write_timeout: Option<Duration>,
    /// Most requests without an answer; more of them wait until there is room. At least 1. Default 8,192.
    pub requests_max: usize,
    /// Most bytes of requests without an answer; more of them wait. A larger request waits until it is alone.
    /// Default 64 MiB.
    pub bytes_max: usize,
    /// Whether to open a fresh session for later requests when one is lost. Default yes.
    pub reopen: bool,
    /// Share of the requests that begin a trace of their own, from 0, the default, to 1. Those that are made within a span of the
    /// application belong to its trace, sampled or not, whatever this says. Spans go to the tracer provider that the
    /// application has installed with the crate `opentelemetry`; without one there are none.
    pub trace_ratio: f64,
    /// Identities of the client: shown to each node on which the session is opened or taken up, in plain text while ports have no TLS. A
    /// session that was opened with one is taken up with it only. Default none.
    pub credentials: Vec<Credential>,
    /// How long [`Client::close`](crate::Client::close) waits for what is unanswered and for the end of the session.
    /// Default 5 s.
    pub close_timeout: Duration,
    /// TLS to the nodes; `None`, the default, for plaintext.
    pub tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Options {
        let core = client_core::Config::default();
        Options {
            session_timeout: core.session_timeout,
            connect_timeout: Duration::from_secs(10),
            attempt_timeout: core.attempt_timeout,
            op_timeout: Some(Duration::from_secs(30)),
            write_timeout: None,
            requests_max: core.requests_max,
            bytes_max: core.bytes_max,
            reopen: core.reopen,
            trace_ratio: 0.0,
            credentials: Vec::new(),
            close_timeout: core.close_timeout,
            tls: None,
        }
    }
}

impl Options {
    pub(crate) fn core(&self, endpoints: usize) -> client_core::Config {
        client_core::Config {
            endpoints,
            session_timeout: self.session_timeout,
            requests_max: self.requests_max,
            bytes_max: self.bytes_max,
            reopen: self.reopen,
            attempt_timeout: self.attempt_timeout,
            close_timeout: self.close_timeout,
            ..client_core::Config::default()
        }
    }
}
