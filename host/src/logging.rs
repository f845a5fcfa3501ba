//! Log lines, on standard error: for people by default, as JSON with `QUORATE_LOG_FORMAT=json`. `QUORATE_LOG`
//! sets the filter: `warn`, `debug`, or by module as in `info,quorum_svc=debug`. [`set_filter`] changes it in
//! a running process. Warnings of the HTTP/2 library are left out unless the filter names it.

use std::sync::OnceLock;

use opentelemetry::{
    Context,
    global::{self, BoxedSpan},
    trace::{SpanBuilder, Tracer},
};
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::dynamic_filter_fn,
    fmt,
    layer::{self, SubscriberExt as _},
    reload,
    util::SubscriberInitExt as _,
};

use crate::traces;

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

/// The handle of this process's filter.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sets log lines up for the whole process, from the two variables. `default` is the filter without `QUORATE_LOG`.
///
/// # Errors
/// A variable that cannot be understood, or a second call.
pub fn init(default: &str) -> Result<(), LoggingError> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let filter = parse(&variable("QUORATE_LOG").unwrap_or_else(|| default.to_owned()))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match variable("QUORATE_LOG_FORMAT").as_deref() {
        None | Some("text") => {
            // Colours only on a terminal.
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(ansi).boxed()
        }
        Some("json") => lines.json().flatten_event(true).boxed(),
        Some(other) => return Err(LoggingError::Format(other.to_owned())),
    };
    let lines = lines.and_then(Exported).with_filter(filter);
    let set = tracing_subscriber::registry().with(lines).with(spans()).try_init();
    set.map_err(|_| LoggingError::Twice)?;
    FILTER.set(handle).map_err(|_| LoggingError::Twice)
}

/// Which lines are printed now; empty if they are not set up.
#[must_use]
pub fn filter() -> String {
    FILTER.get().and_then(|handle| handle.with_current(ToString::to_string).ok()).unwrap_or_default()
}

/// Changes the filter of the log lines.
///
/// # Errors
/// A filter that does not parse, and nothing changes; or log lines that are not set up.
pub fn set_filter(text: &str) -> Result<(), LoggingError> {
    let filter = parse(text)?;
    let handle = FILTER.get().ok_or(LoggingError::NotSetUp)?;
    let before = self::filter();
    handle.reload(filter).map_err(|_| LoggingError::NotSetUp)?;
    tracing::warn!(filter = %self::filter(), %before, "log filter changed");
    Ok(())
}

/// Exports log lines by OTLP, once [`traces`] has a collector that takes them.
struct Exported;

impl<S: Subscriber> Layer<S> for Exported
where
    S: for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, cx: layer::Context<'_, S>) {
        // Lines about the export would be exported in turn.
        const OF_THE_EXPORT: [&str; 5] = ["h2", "hyper", "tonic", "tower", "opentelemetry"];
        if let Some(bridge) = traces::LINES.get()
            && !OF_THE_EXPORT.iter().any(|target| event.metadata().target().starts_with(target))
        {
            bridge.on_event(event, cx);
        }
    }
}

/// Exports spans of `tracing` from INFO on, independent of the filter of log lines, once [`traces`] has a
/// collector.
fn spans<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn exported(metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target() != spans::LINES
    }
    let filter = dynamic_filter_fn(|metadata, _| exported(metadata) && spans::installed())
        .with_max_level_hint(LevelFilter::INFO)
        .with_callsite_filter(
            |metadata| if exported(metadata) { Interest::sometimes() } else { Interest::never() },
        );
    let layer = tracing_opentelemetry::layer().with_tracer(Global);
    layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_filter(filter)
}

/// The tracer of the global provider, which is set after log lines are.
struct Global;

impl Tracer for Global {
    type Span = BoxedSpan;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> BoxedSpan {
        global::tracer("quorate").build_with_context(builder, parent)
    }
}

fn parse(text: &str) -> Result<EnvFilter, LoggingError> {
    let unknown = |e: &dyn std::fmt::Display| LoggingError::Filter(text.to_owned(), e.to_string());
    if text.is_empty() {
        return Err(unknown(&"it is empty"));
    }
    // The library takes a single name that is no level for a module with all of its lines: a misspelt level
    // would silence the process.
    let is_word = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
    if let Some(word) =
        text.split(',').map(str::trim).filter(is_word).find(|w| w.parse::<LevelFilter>().is_err())
    {
        return Err(unknown(&format_args!("{word:?} is no level; for a module write {word}=trace")));
    }
    // Any client can make h2 warn once for each connection. `listen` counts these, and logs the count now and
    // then.
    let names_h2 = text.split(',').any(|part| part.starts_with("h2"));
    let quiet = if names_h2 { "" } else { "h2=error," };
    EnvFilter::try_new(format!("{quiet}{text}")).map_err(|e| unknown(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b12_what_strangers_make_the_http2_library_say_is_left_out_unless_it_is_named() {
        for (given, printed) in [
            ("info", "h2=error,info"),
            ("info,quorum_svc=trace", "quorum_svc=trace,h2=error,info"),
            ("h2=error,info", "h2=error,info"),
            ("info,h2=debug", "h2=debug,info"),
        ] {
            assert_eq!(parse(given).unwrap().to_string(), printed);
        }
    }

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
