//! Log lines, on standard error: for people by default, as JSON with `QUORATE_LOG_FORMAT=json`. `QUORATE_LOG` says
//! which: `warn`, `debug`, or by module as in `info,quorum_svc=debug`.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// A telemetry setting that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("QUORATE_LOG is {0:?}; expected a level such as `info`, or `info,quorum_svc=debug` ({1})")]
    Filter(String, String),
    /// No such format.
    #[error("QUORATE_LOG_FORMAT is {0:?}; expected `text` or `json`")]
    Format(String),
    /// Log lines have a destination already.
    #[error("log lines were set up twice")]
    Twice,
}

/// Sets log lines up for the whole process, from the two variables. `default` is the filter without `QUORATE_LOG`.
///
/// # Errors
/// A variable that cannot be understood, or a second call.
pub fn init(default: &str) -> Result<(), TelemetryError> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let filter = variable("QUORATE_LOG").unwrap_or_else(|| default.to_owned());
    let filter =
        EnvFilter::try_new(&filter).map_err(|e| TelemetryError::Filter(filter.clone(), e.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let set = match variable("QUORATE_LOG_FORMAT").as_deref() {
        None | Some("text") => {
            // Colours only where somebody looks at them.
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(ansi)).try_init()
        }
        Some("json") => registry.with(lines.json().flatten_event(true)).try_init(),
        Some(other) => return Err(TelemetryError::Format(other.to_owned())),
    };
    set.map_err(|_| TelemetryError::Twice)
}
