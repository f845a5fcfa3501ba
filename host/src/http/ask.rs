//! A client for the HTTP port of a process, for health checks in images without any tool for it.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No process listens there, or the connection broke.
    #[error("cannot reach http://{0}: {1}")]
    Io(String, io::Error),
    /// The peer does not speak HTTP.
    #[error("{0} gave no HTTP answer")]
    NotHttp(String),
    /// Too slow.
    #[error("http://{0} did not answer within {1:?}")]
    TooSlow(String, Duration),
}

/// Sends one request to `endpoint` (host:port) and returns status and body, all within `limit`.
///
/// # Errors
/// If there is no answer. A negative answer is no error.
pub async fn ask(
    endpoint: &str,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> Result<(u16, String), AskError> {
    let exchanged = tokio::time::timeout(limit, exchange(endpoint, method, path, body)).await;
    let answer = exchanged
        .map_err(|_| AskError::TooSlow(endpoint.to_owned(), limit))?
        .map_err(|e| AskError::Io(endpoint.to_owned(), e))?;
    parse(&answer).ok_or_else(|| AskError::NotHttp(endpoint.to_owned()))
}

async fn exchange(endpoint: &str, method: &str, path: &str, body: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(endpoint).await?;
    // HTTP/1.0: the answer ends with the connection, and is never chunked.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {endpoint}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let answer = String::from_utf8_lossy(answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Maximum size of any answer.
const ANSWER_MAX: u64 = 16 << 20;
