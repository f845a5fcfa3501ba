//! `quorate health` and `quorate loglevel`: what the HTTP port of a node answers.

use host::{
    config::{self, OptionalPort, Setting as _},
    http,
};

use crate::{
    args::{Health, Http, Loglevel},
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
    let endpoint = match &http.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => own_endpoint()?,
    };
    let answer = http::ask(&endpoint, method, path, body, http.timeout).await;
    answer.map_err(|e| Failure::refused(e.to_string()))
}

/// In a container the node is configured by the same environment.
fn own_endpoint() -> Result<String, Failure> {
    let variable = config::variable("listen.http_port");
    let port = match std::env::var(&variable) {
        Err(_) => config::HTTP_PORT,
        Ok(text) => match OptionalPort::parse(&text) {
            Some(OptionalPort(Some(port @ 1..))) => port,
            _ => {
                return Err(Failure::usage(format!(
                    "{variable} is {text:?}, which names no port; say where the node is with --endpoint HOST:PORT"
                )));
            }
        },
    };
    Ok(format!("127.0.0.1:{port}"))
}
