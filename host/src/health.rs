use std::{
    fmt::Write as _,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Which question a check belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Should this process be restarted?
    Live,
    /// Should it get clients?
    Ready,
    /// Has it come up?
    Startup,
}

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Probe::Live => "livez",
            Probe::Ready => "readyz",
            Probe::Startup => "startupz",
        }
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

#[derive(Clone)]
struct Check {
    probe: Probe,
    name: &'static str,
    ask: Arc<dyn Fn() -> Asking + Send + Sync>,
}

/// The checks of the probes of a process. Clones share them.
///
/// A starting node is live, and neither started nor ready until it reports so.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    checks: Vec<Check>,
    /// The present step of the start.
    starting: Option<String>,
    stopping: bool,
}

impl Health {
    /// Of a process that is doing this in order to come up.
    #[must_use]
    pub fn starting(doing: &str) -> Health {
        let shared = Shared { checks: Vec::new(), starting: Some(doing.to_owned()), stopping: false };
        Health { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The next thing it does for that.
    pub fn doing(&self, doing: &str) {
        self.lock().starting = Some(doing.to_owned());
    }

    /// It has come up.
    pub fn started(&self) {
        self.lock().starting = None;
    }

    /// The process is about to end: it is no longer ready, for any result of the checks.
    pub fn stopping(&self) {
        self.lock().stopping = true;
    }

    /// Adds a check: `Ok` with a remark, or the reason of the failure. A check without an answer within a
    /// second fails.
    pub fn check<F>(&self, probe: Probe, name: &'static str, ask: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.lock().checks.push(Check { probe, name, ask: Arc::new(move || Box::pin(ask())) });
    }

    /// Runs all checks of a probe. Returns the overall result, and the text of the answer.
    pub(crate) async fn report(&self, probe: Probe, verbose: bool) -> (bool, String) {
        let mut results = self.own_checks(probe);
        let checks: Vec<Check> = self.lock().checks.iter().filter(|c| c.probe == probe).cloned().collect();
        for check in checks {
            let answer = tokio::time::timeout(PATIENCE, (check.ask)()).await;
            let late = || Err(format!("no answer within {PATIENCE:?}"));
            results.push((check.name, answer.unwrap_or_else(|_| late())));
        }
        let well = results.iter().all(|(_, result)| result.is_ok());
        if well && !verbose {
            return (true, "ok\n".to_owned());
        }
        let mut text = String::new();
        for (name, result) in results {
            let (sign, said) = match &result {
                Ok(remark) => ("[+]", remark),
                Err(why) => ("[-]", why),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{sign}{name} {said}");
        }
        let verdict = if well { "passed" } else { "failed" };
        let _ = writeln!(text, "{} check {verdict}", probe.name());
        (well, text)
    }

    fn own_checks(&self, probe: Probe) -> Vec<(&'static str, Result<String, String>)> {
        let shared = self.lock();
        // It succeeds whenever it runs.
        let process = ("process", Ok(format!("ok, pid {}", std::process::id())));
        let startup = match &shared.starting {
            None => ("startup", Ok("ok".to_owned())),
            Some(doing) => ("startup", Err(doing.clone())),
        };
        let shutdown = match shared.stopping {
            false => ("shutdown", Ok("ok".to_owned())),
            true => ("shutdown", Err("the node is shutting down".to_owned())),
        };
        match probe {
            Probe::Live => vec![process],
            Probe::Startup => vec![startup],
            Probe::Ready => vec![startup, shutdown],
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With each check.
const PATIENCE: Duration = Duration::from_secs(1);
