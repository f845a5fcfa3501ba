//! An orderly end. The first SIGINT, SIGTERM or SIGHUP requests it; a second one ends the process at once.
//! SIGTERM and SIGHUP leave time for a hand-over; SIGINT, from a terminal, does not. SIGUSR1 and SIGUSR2 do
//! nothing. SIGHUP does nothing in a process that was started with it ignored, as by nohup.

use std::{future, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Listens for SIGINT, SIGTERM and SIGHUP. The first cancels the token that is returned; a second (not the same within 100 ms) ends the
/// process at once, with the exit code that shells give to a process ended by that signal (128 + its number).
///
/// # Errors
/// If the system refuses the signal handlers. To be called within a tokio runtime.
pub fn on_signals() -> io::Result<CancellationToken> {
    on_signals_after(|| async {})
}

/// As [`on_signals`], but after a SIGTERM or SIGHUP that came first, `hand_over` is awaited before the token is cancelled. Another
/// signal does not wait for that.
///
/// # Errors
/// As [`on_signals`].
pub fn on_signals_after<F>(hand_over: impl FnOnce() -> F + Send + 'static) -> io::Result<CancellationToken>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // An operator may send SIGHUP to reload the configuration, or close the terminal. Neither may take the
    // leader away from the other nodes.
    let mut hang_up = match starts_ignored(HANG_UP) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let [mut user_1, mut user_2] =
        [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = user_1.recv() => "SIGUSR1",
                _ = user_2.recv() => "SIGUSR2",
            };
            tracing::info!(signal = name, "signal ignored");
        }
    });
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => ("SIGINT", INTERRUPT),
                _ = terminate.recv() => ("SIGTERM", TERMINATE),
                () = received(hang_up.as_mut()) => ("SIGHUP", HANG_UP),
            }
        };
        let (name, number) = next().await;
        tracing::info!(signal = name, "shutting down; a second signal stops at once");
        let first = Instant::now();
        // Some supervisors send one signal twice: to the process, and to the group that it is in.
        let mut next = async || {
            loop {
                let again = next().await;
                if again.1 != number || first.elapsed() >= ECHO {
                    return again;
                }
            }
        };
        if number != INTERRUPT {
            let again = tokio::select! {
                () = hand_over() => None,
                again = next() => Some(again),
            };
            if let Some((name, number)) = again {
                at_once(name, number);
            }
        }
        cancelled.cancel();
        let (name, number) = next().await;
        at_once(name, number);
    });
    Ok(token)
}

/// Waits for a signal; for ever if it is not listened for.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => future::pending().await,
    }
}

/// Whether this process was started with a signal ignored: nohup does that, and means that it stays so. To be asked before the
/// process listens for the signal. Systems without /proc do not say.
fn starts_ignored(number: i32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_ignored(&status, number))
}

fn is_ignored(status: &str, number: i32) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> (number - 1) & 1 == 1)
}

fn at_once(name: &str, number: i32) -> ! {
    tracing::warn!(signal = name, "second signal; stopping at once");
    std::process::exit(128 + number)
}

/// The same signal within this is not a second one.
const ECHO: Duration = Duration::from_millis(100);
const HANG_UP: i32 = 1;
const INTERRUPT: i32 = 2;
const TERMINATE: i32 = 15;

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
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_is_sent_twice_at_once_is_one() {
        let token = on_signals_after(|| tokio::time::sleep(Duration::from_millis(300))).unwrap();
        for signal in [Signal::USR1, Signal::USR2] {
            kill_process(getpid(), signal).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!token.is_cancelled(), "b25: these do nothing");
        for _ in 0..2 {
            kill_process(getpid(), Signal::TERM).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A second one would have ended this process.
        token.cancelled().await;
    }

    #[test]
    fn b25_a_signal_that_was_ignored_at_the_start_is_known() {
        let status =
            |set: &str| format!("Name:\tquorate\nSigBlk:\tffffffffffffffff\nSigIgn:\t{set}\nSigCgt:\t0\n");
        for (set, hang_up, terminate) in [
            ("0000000000001001", true, false),
            ("0000000000004000", false, true),
            ("0000000000001000", false, false),
            ("what", false, false),
        ] {
            let status = status(set);
            assert_eq!((is_ignored(&status, HANG_UP), is_ignored(&status, TERMINATE)), (hang_up, terminate));
        }
        assert!(!is_ignored("", HANG_UP));
    }

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
