//! The arguments that many commands share.

use std::{path::PathBuf, time::Duration};

use api::{ReadLevel, Zxid};
use clap::{Args, ValueEnum};
use client_sdk::Tls;
use serde_json::Value;

use super::{
    auth::Auth,
    parse::{EXPECTED_ENDPOINT, endpoint, limit, ratio, zxid},
};
use crate::{
    exit::{Doing as _, Failure},
    output,
};

/// The nodes of an ensemble.
#[derive(Args, Debug, Clone)]
pub(crate) struct Endpoints {
    /// Nodes to connect to, host:port of the client API; one that answers is enough.
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_parser = list,
        default_value = "127.0.0.1:12188,127.0.0.1:22188,127.0.0.1:32188",
        hide_env_values = true
    )]
    endpoints: Vec<List>,
}

/// The addresses of one --endpoints.
#[derive(Debug, Clone)]
struct List(Vec<String>);

fn list(text: &str) -> Result<List, String> {
    let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    let list = List(texts.map(endpoint).collect::<Result<_, String>>()?);
    if list.0.is_empty() { Err(EXPECTED_ENDPOINT.to_owned()) } else { Ok(list) }
}

impl Endpoints {
    /// All addresses, in their order.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.endpoints.iter().flat_map(|list| list.0.iter().cloned()).collect()
    }
}

/// How a session is opened.
#[derive(Args, Debug, Clone)]
pub(crate) struct Connection {
    #[command(flatten)]
    pub(crate) endpoints: Endpoints,

    /// Give up after this time without an answer.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "10s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) auth: Auth,

    /// Trace the requests, and push the spans to this OpenTelemetry collector (OTLP over gRPC).
    #[arg(long, value_name = "URL", help_heading = "Tracing")]
    pub(crate) trace_to: Option<String>,

    /// Share of the requests to trace, from 0 to 1.
    #[arg(long, value_name = "RATIO", value_parser = ratio, default_value = "1", requires = "trace_to", help_heading = "Tracing")]
    pub(crate) trace_ratio: f64,

    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// The nodes that report on themselves, without a session.
#[derive(Args, Debug)]
pub(crate) struct Nodes {
    #[command(flatten)]
    pub(crate) endpoints: Endpoints,
    /// Report a node as unreachable after this time without an answer.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "2s")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// The client's certificate, and the authorities that it trusts.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct TlsFiles {
    /// Connect by TLS and trust the authorities in this PEM file. Without it, an endpoint https://host:port trusts the authorities
    /// that browsers trust.
    #[arg(long, env = "QUORATE_TLS_CA", value_name = "FILE", hide_env_values = true, help_heading = "TLS")]
    tls_ca: Option<PathBuf>,
    /// The client's certificate, PEM.
    #[arg(
        long,
        env = "QUORATE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        hide_env_values = true,
        help_heading = "TLS"
    )]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        env = "QUORATE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        hide_env_values = true,
        help_heading = "TLS"
    )]
    tls_key: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads them, if there are any.
    pub(crate) fn read(&self) -> Result<Option<Tls>, Failure> {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        if self.tls_ca.is_none() && identity.is_none() {
            return Ok(None);
        }
        Tls::read(self.tls_ca.clone(), identity).map(Some).or_usage()
    }
}

/// The consistency of a read.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Freshness {
    /// Consistency level of the read.
    #[arg(long, value_enum, default_value_t = Level::Local)]
    level: Level,

    /// Wait until the node has applied this zxid; fail if that takes longer than a few seconds.
    #[arg(long, value_name = "ZXID", value_parser = zxid, conflicts_with = "level")]
    at_least: Option<Zxid>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The state of the connected node, which may lag behind others. Needs no leader once the session is open.
    Local,
    /// The state of the first node that answers, even without a quorum; a note on standard error says if it has none. Opens no
    /// session. For diagnosis only.
    Stale,
    /// Includes every write acknowledged before the read was issued. Needs a leader with a quorum.
    Linearizable,
}

impl Freshness {
    /// The level that the client requests.
    pub(crate) fn read_level(self) -> ReadLevel {
        match (self.at_least, self.level) {
            (Some(zxid), _) => ReadLevel::AtLeast(zxid),
            (None, Level::Local) => ReadLevel::Local,
            (None, Level::Stale) => ReadLevel::Stale,
            (None, Level::Linearizable) => ReadLevel::Linearizable,
        }
    }
}

/// How a read is made and printed.
#[derive(Args, Debug)]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) freshness: Freshness,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The form of the result.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

impl Output {
    /// Prints the result in the requested format.
    pub(crate) fn print(
        self,
        table: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<(), Failure> {
        match self.output {
            Format::Table => output::print(&table()),
            Format::Json => output::print_json(&json()),
        }
    }
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}
