//! The settings of a node: flag over environment (`QUORATE_*`) over file (TOML) over default.
//!
//! Each setting is written once, in `read.rs`: its key, its meaning and its default. The name of its environment
//! variable, the list of known keys, the hints for misspelt ones and `quorate config show` follow from that. All
//! faults are reported together, each with its key, its source and the expected value.
//!
//! This is a module and not a crate of its own: every `main` that has a configuration uses the rest of `host` as well.

mod audit;
mod check;
mod gateway;
mod layers;
mod member;
mod node;
mod plaintext;
mod problem;
mod read;
mod tls;
mod value;

use std::path::Path;

pub use gateway::{GatewayConfig, load_gateway};
use layers::Layers;
pub use layers::{Effective, Source};
pub use member::{MemberConfig, MemberRole};
pub use node::{
    Internal, Limits, Listen, Log, NodeConfig, Services, SessionLimits, Telemetry, Threads, Timing, ZooKeeper,
};
pub use plaintext::{INSECURE_KEY, PlaintextPort};
pub use problem::ConfigError;
pub use tls::{Secured, Tls};
pub use value::{OptionalPort, Setting, Size};

/// Default port of the client API.
pub const CLIENT_PORT: u16 = 2188;
/// Default port of quorum-svc.
pub const QUORUM_PORT: u16 = 2888;
/// Default port of election-svc.
pub const ELECTION_PORT: u16 = 3888;
/// Default port of plain HTTP, for probes and metrics. Those of a quorum and of an election in processes of their own are
/// the next ones: [`OptionalPort::quorum`], [`OptionalPort::election`].
pub const HTTP_PORT: u16 = 9464;

/// Key of the address that all ports but the internal ones listen on.
pub const HOST_KEY: &str = "listen.host";
/// Key of the port of probes and metrics of a node, or of its store.
pub const HTTP_KEY: &str = "listen.http_port";
/// The same of a quorum in a process of its own.
pub const QUORUM_HTTP_KEY: &str = "listen.quorum_http_port";
/// The same of an election in a process of its own.
pub const ELECTION_HTTP_KEY: &str = "listen.election_http_port";

/// Default port for ZooKeeper's clients, which is ZooKeeper's own.
pub const ZOOKEEPER_PORT: u16 = 2181;
/// Key of that port.
pub const ZOOKEEPER_KEY: &str = "listen.zookeeper_port";

/// Default port of quorum-svc for its own node's store, where that is another process.
pub const INTERNAL_QUORUM_PORT: u16 = 2889;
/// Default port of election-svc for its own node's quorum, where that is another process.
pub const INTERNAL_ELECTION_PORT: u16 = 3889;

/// Where every OpenTelemetry SDK looks for the address of a collector.
const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const LOGS_EXPORTER: &str = "OTEL_LOGS_EXPORTER";

/// Variables that begin with `QUORATE_` and are not settings of a node: those of the command line tools and of
/// [`crate::logging`].
pub const OTHER_VARIABLES: [&str; 7] = [
    "QUORATE_AUTH",
    "QUORATE_ENDPOINTS",
    "QUORATE_LOG",
    "QUORATE_LOG_FORMAT",
    "QUORATE_TLS_CA",
    "QUORATE_TLS_CERT",
    "QUORATE_TLS_KEY",
];

/// A configuration, and the source of each setting.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The settings.
    pub node: NodeConfig,
    /// The same as text, in the order of `read.rs`, for `quorate config show`.
    pub effective: Vec<Effective>,
}

/// Reads and checks the settings of a node.
///
/// `env` is the process's environment; variables other than `QUORATE_*` and some of OpenTelemetry are ignored. `flags` are
/// pairs of key and value from the command line. Relative paths in the file are relative to the folder of the file, so that a
/// node's folder can be moved; elsewhere they are relative to the working directory.
///
/// # Errors
/// All faults at once: an unreadable file, wrong keys, wrong values, settings that contradict each other.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    load_on(&member::host_name(), file, env, flags)
}

/// As [`load`], on a machine of this name.
fn load_on(
    host_name: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(file, env, flags)?;
    let node = NodeConfig::read(&mut layers, host_name);
    let effective = layers.finish()?;
    Ok(Loaded { node, effective })
}

/// The environment of this process, for [`load`].
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .filter(|(k, _)| {
            k.starts_with("QUORATE_")
                || [COLLECTOR, SAMPLER, SAMPLER_ARG, LOGS_EXPORTER].contains(&k.as_str())
        })
}

/// The environment variable of a setting: `timing.init_limit` is `QUORATE_TIMING_INIT_LIMIT`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("QUORATE_{}", key.replace('.', "_").to_uppercase())
}

/// The part of a URL after the scheme, if the URL has this scheme in any case.
#[must_use]
pub fn behind_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = url.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

#[cfg(test)]
mod tests;
