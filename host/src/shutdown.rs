//! An orderly end: the first SIGINT or SIGTERM asks for it, a second one does not wait for it.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Listens for SIGINT and SIGTERM. The first cancels the token that is returned; a second ends the process at once,
/// with the exit code that shells give to a process ended by that signal (128 + its number).
///
/// # Errors
/// If the system refuses the signal handlers. To be called within a tokio runtime.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => ("SIGINT", 2),
                _ = terminate.recv() => ("SIGTERM", 15),
            }
        };
        let (name, _) = next().await;
        tracing::info!("{name}: shutting down; once more to stop at once");
        cancelled.cancel();
        let (name, number) = next().await;
        tracing::warn!("{name} again: stopped at once");
        std::process::exit(128 + number);
    });
    Ok(token)
}

/// Runs `work` until it ends, but after `token` is cancelled at most `bound` longer. `None` if it was cut off.
pub async fn drained<T>(
    work: impl Future<Output = T>,
    token: &CancellationToken,
    bound: Duration,
) -> Option<T> {
    let out_of_time = async {
        token.cancelled().await;
        tokio::time::sleep(bound).await;
    };
    tokio::select! {
        out = work => Some(out),
        () = out_of_time => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_when_the_work_ends_or_the_time_is_up() {
        let bound = Duration::from_secs(5);
        let token = CancellationToken::new();
        assert_eq!(drained(async { 7 }, &token, bound).await, Some(7));

        let slow = async {
            token.cancel();
            tokio::time::sleep(Duration::from_secs(4)).await;
        };
        assert_eq!(drained(slow, &token, bound).await, Some(()));
        assert_eq!(drained(std::future::pending::<()>(), &token, bound).await, None);
    }
}
