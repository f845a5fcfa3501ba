//! `quorate health` and `quorate loglevel`: what the HTTP port of a node answers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use host::{
    config::{self, OptionalPort, Setting as _},
    http,
};

use crate::{
    args::{Health, Http, Loglevel, Process},
    exit::Failure,
    output,
};

/// Asks a probe. A node that is not well is a failure.
pub(crate) async fn run(args: &Health) -> Result<(), Failure> {
    let probe = match (args.live, args.startup) {
        (true, _) => "/livez",
        (_, true) => "/startupz",
        _ => "/readyz",
    };
    let path = if args.verbose { format!("{probe}?verbose") } else { probe.to_owned() };
    let (status, text) = ask(&args.http, "GET", &path, "").await?;
    match status {
        200 => output::print(text.trim_end()),
        _ => Err(Failure::refused(text.trim_end().to_owned())),
    }
}

/// Asks for the filter of log lines, or sets it.
pub(crate) async fn loglevel(args: &Loglevel) -> Result<(), Failure> {
    let (method, body) = match &args.filter {
        None => ("GET", ""),
        Some(filter) => ("PUT", filter.as_str()),
    };
    let (status, text) = ask(&args.http, method, "/loglevel", body).await?;
    match status {
        200 => output::print(text.trim_end()),
        400 => Err(Failure::usage(text.trim_end().to_owned())),
        _ => Err(Failure::refused(text.trim_end().to_owned())),
    }
}

async fn ask(http: &Http, method: &str, path: &str, body: &str) -> Result<(u16, String), Failure> {
    let mut refused = None;
    for service in http.service.each() {
        let endpoint = match (&http.endpoint, &http.config) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, Some(file)) => configured_endpoint(file, service)?,
            (None, None) => own_endpoint(service)?,
        };
        match http::ask(&endpoint, method, path, body, http.timeout).await {
            Ok(answer) => return Ok(answer),
            Err(e) => refused = refused.or(Some((e, key(service)))),
        }
    }
    let why = refused.map_or_else(String::new, |(e, key)| {
        format!(
            "{e}; check that the process runs, and that this is its HTTP port (`{key}`): say which with --config, --service or \
             --endpoint"
        )
    });
    Err(Failure::refused(why))
}

impl Process {
    /// Those to be asked, in this order.
    fn each(self) -> Vec<Process> {
        match self {
            Process::Any => vec![Process::Node, Process::Quorum, Process::Election],
            one => vec![one],
        }
    }
}

/// The setting of its port.
fn key(service: Process) -> &'static str {
    match service {
        Process::Node | Process::Store | Process::Any => config::HTTP_KEY,
        Process::Quorum => config::QUORUM_HTTP_KEY,
        Process::Election => config::ELECTION_HTTP_KEY,
    }
}

/// Where a node with this configuration has it, on this machine.
fn configured_endpoint(file: &Path, service: Process) -> Result<String, Failure> {
    let listen = config::load(Some(file), config::process_env(), &[])?.node.listen;
    let address = match service {
        Process::Node | Process::Store | Process::Any => listen.http,
        Process::Quorum => listen.quorum_http,
        Process::Election => listen.election_http,
    };
    match address {
        Some(address) if address.port() != 0 => Ok(on_this_machine(address.ip(), address.port())),
        _ => Err(Failure::usage(format!(
            "`{}` in {} names no port; say where the node is with --endpoint HOST:PORT",
            key(service),
            file.display()
        ))),
    }
}

/// In a container the node is configured by the same environment.
fn own_endpoint(service: Process) -> Result<String, Failure> {
    let http = from_environment(config::HTTP_KEY, OptionalPort(Some(config::HTTP_PORT)))?;
    let port = match service {
        Process::Node | Process::Store | Process::Any => http,
        Process::Quorum => from_environment(config::QUORUM_HTTP_KEY, http.quorum())?,
        Process::Election => from_environment(config::ELECTION_HTTP_KEY, http.election())?,
    };
    // What it cannot be, the node itself complains about.
    let host = std::env::var(config::variable(config::HOST_KEY)).ok().and_then(|host| host.parse().ok());
    match port {
        OptionalPort(Some(port @ 1..)) => {
            Ok(on_this_machine(host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port))
        }
        off_or_any => Err(names_no_port(key(service), &off_or_any.to_toml())),
    }
}

/// Where that is reached which listens on this address.
fn on_this_machine(ip: IpAddr, port: u16) -> String {
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, port).to_string()
}

fn from_environment(key: &str, default: OptionalPort) -> Result<OptionalPort, Failure> {
    match std::env::var(config::variable(key)) {
        Err(_) => Ok(default),
        Ok(text) => OptionalPort::parse(&text).ok_or_else(|| names_no_port(key, &text)),
    }
}

fn names_no_port(key: &str, found: &str) -> Failure {
    Failure::usage(format!(
        "{} is {found}, which names no port; say where the node is with --endpoint HOST:PORT",
        config::variable(key)
    ))
}
