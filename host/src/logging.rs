//! Log lines, on standard error: for people by default, as JSON with `QUORATE_LOG_FORMAT=json`. `QUORATE_LOG` says
//! which: `warn`, `debug`, or by module as in `info,quorum_svc=debug`. A running process prints others after
//! [`set_filter`].

use std::sync::OnceLock;

use tracing_subscriber::{
    EnvFilter, Registry, filter::LevelFilter, fmt, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// A setting of log lines that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error("the log filter is {0:?}; expected a level such as `info`, or `info,quorum_svc=debug` ({1})")]
    Filter(String, String),
    /// No such format.
    #[error("QUORATE_LOG_FORMAT is {0:?}; expected `text` or `json`")]
    Format(String),
    /// Log lines have a destination already.
    #[error("log lines were set up twice")]
    Twice,
    /// They have none.
    #[error("log lines are not set up in this process")]
    NotSetUp,
}

/// The way to the filter of this process.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sets log lines up for the whole process, from the two variables. `default` is the filter without `QUORATE_LOG`.
///
/// # Errors
/// A variable that cannot be understood, or a second call.
pub fn init(default: &str) -> Result<(), LoggingError> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let filter = parse(&variable("QUORATE_LOG").unwrap_or_else(|| default.to_owned()))?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let set = match variable("QUORATE_LOG_FORMAT").as_deref() {
        None | Some("text") => {
            // Colours only where somebody looks at them.
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(ansi)).try_init()
        }
        Some("json") => registry.with(lines.json().flatten_event(true)).try_init(),
        Some(other) => return Err(LoggingError::Format(other.to_owned())),
    };
    set.map_err(|_| LoggingError::Twice)?;
    FILTER.set(handle).map_err(|_| LoggingError::Twice)
}

/// Which lines are printed now; empty if they are not set up.
#[must_use]
pub fn filter() -> String {
    FILTER.get().and_then(|handle| handle.with_current(ToString::to_string).ok()).unwrap_or_default()
}

/// Prints these lines from now on.
///
/// # Errors
/// A filter that does not parse, and nothing changes; or log lines that are not set up.
pub fn set_filter(text: &str) -> Result<(), LoggingError> {
    let filter = parse(text)?;
    let handle = FILTER.get().ok_or(LoggingError::NotSetUp)?;
    let before = self::filter();
    handle.reload(filter).map_err(|_| LoggingError::NotSetUp)?;
    tracing::warn!("log lines are {} from now on, were {before}", self::filter());
    Ok(())
}

fn parse(text: &str) -> Result<EnvFilter, LoggingError> {
    let unknown = |e: &dyn std::fmt::Display| LoggingError::Filter(text.to_owned(), e.to_string());
    if text.is_empty() {
        return Err(unknown(&"it is empty"));
    }
    // A word alone is a level or, to the library, a module with all of its lines: a misspelt level would silence the process.
    let is_word = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
    if let Some(word) =
        text.split(',').map(str::trim).filter(is_word).find(|w| w.parse::<LevelFilter>().is_err())
    {
        return Err(unknown(&format_args!("{word:?} is no level; for a module write {word}=trace")));
    }
    EnvFilter::try_new(text).map_err(|e| unknown(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_and_does_not_silence() {
        for good in
            ["info", "OFF", "warn,quorum_svc=debug", "store_svc::driver=trace, error", "[x{a=1}]=debug"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, names) in [
            ("inof", "\"inof\" is no level"),
            ("warn,debgu", "debgu=trace"),
            ("x=inof", "inof"),
            ("", "empty"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(names), "{bad}: {error}");
        }
    }
}
