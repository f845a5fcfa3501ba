//! The parts of a process that stand and fall together.

use std::{collections::BTreeMap, fmt::Display, fs, path::PathBuf, time::Duration};

use host::shutdown::drained;
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::exit::{Doing as _, Failure};

/// The services that run until `shutdown`. If one ends before, all others are shut down: half a node is of no use.
///
/// Spawn them from below, each after those that it depends on. Services that depend on a failed one soon fail as
/// well, and may report it earlier; so of several failures, that of the lowest service is the reason.
pub(crate) struct Services {
    running: JoinSet<(usize, Result<(), Failure>)>,
    shutdown: CancellationToken,
}

impl Services {
    pub(crate) fn new(shutdown: CancellationToken) -> Services {
        Services { running: JoinSet::new(), shutdown }
    }

    pub(crate) fn spawn<E: Display>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.spawn_on(&Handle::current(), name, work);
    }

    /// The same on the threads of another runtime.
    pub(crate) fn spawn_on<E: Display>(
        &mut self,
        runtime: &Handle,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (level, shutdown) = (self.running.len(), self.shutdown.clone());
        let work = async move {
            let failure = match work.await {
                // Also after the shutdown: the last writes to the disk may be lost.
                Err(e) => format!("{name} failed: {e}"),
                Ok(()) if shutdown.is_cancelled() => return (level, Ok(())),
                Ok(()) => format!("{name} ended by itself"),
            };
            tracing::error!(reason = failure, "a service ended; stopping the process");
            shutdown.cancel();
            (level, Err(Failure::refused(failure)))
        };
        self.running.spawn_on(work, runtime);
    }

    /// Waits for all, after `shutdown` not much longer than `drain`. Returns the reason if any has failed.
    pub(crate) async fn all_ended(mut self, drain: Duration) -> Result<(), Failure> {
        let shutdown = self.shutdown.clone();
        // By level. `None`, which is less than all, is a panic: a defect of ours, whatever else failed.
        let mut failures = BTreeMap::new();
        let ended = async {
            while let Some(ended) = self.running.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    Ok((level, Err(failure))) => drop(failures.insert(Some(level), failure)),
                    Err(e) => {
                        // A panic. The log has its message.
                        shutdown.cancel();
                        failures
                            .entry(None)
                            .or_insert(Failure::refused(format!("a service broke down: {e}")));
                    }
                }
            }
        };
        // Each port takes `drain` itself.
        if drained(ended, &shutdown, drain + Duration::from_secs(1)).await.is_none() {
            tracing::warn!("services did not end in time; cut off");
        }
        failures.pop_first().map_or(Ok(()), |(_, reason)| Err(reason))
    }
}

/// A file with the id of this process, while it runs.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    pub(crate) fn write(path: PathBuf) -> Result<PidFile, Failure> {
        fs::write(&path, format!("{}\n", std::process::id()))
            .doing(format_args!("write {}", path.display()))?;
        Ok(PidFile(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), error = %e, "cannot remove the pid file");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const DRAIN: Duration = Duration::from_secs(60);

    fn services() -> Services {
        Services::new(CancellationToken::new())
    }

    #[tokio::test]
    async fn the_lowest_failure_is_the_reason_though_others_were_quicker() {
        let mut services = services();
        let shutdown = services.shutdown.clone();
        services.spawn("the quorum", async move {
            // Shut down because the store has failed.
            shutdown.cancelled().await;
            Err("no space left")
        });
        services.spawn("the store", async { Err("lost its quorum") });
        let reason = services.all_ended(DRAIN).await.unwrap_err();
        assert_eq!(reason.to_string(), "the quorum failed: no space left");
    }

    #[tokio::test]
    async fn a_failure_after_the_shutdown_is_a_failure_and_an_orderly_end_is_none() {
        let mut failing = services();
        failing.shutdown.cancel();
        failing.spawn("the store", async { Err("no last checkpoint") });
        assert!(failing.all_ended(DRAIN).await.is_err());

        let mut orderly = services();
        orderly.shutdown.cancel();
        orderly.spawn("the store", async { Ok::<(), Infallible>(()) });
        assert!(orderly.all_ended(DRAIN).await.is_ok());

        let mut early = services();
        early.spawn("the store", async { Ok::<(), Infallible>(()) });
        assert!(early.all_ended(DRAIN).await.is_err(), "it ended without a shutdown");
    }
}
