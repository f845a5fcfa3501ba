//! Spans: what one traced request, election or synchronisation goes through.
//!
//! The decision to trace a request is made once, where the request begins ([`Span::of_client`], [`Span::of_server`]). Its
//! [`api::Trace`] then travels with it. Each hop that finds one opens a [`Span`] below it and hands that span's own context on.
//! A request that is not traced costs each hop one look at a null pointer.
//!
//! Spans are those of the crate `opentelemetry`. In a process of ours that has a collector, the crate `host` installs a tracer
//! provider and calls [`install`]. In an application that uses the client library, spans go to the provider of the
//! application. Where there is neither, nothing is recorded, and contexts from other processes are passed on.
//!
//! This facade exists because these spans begin in one task and end in another, with times of their own, and because their
//! recording must not depend on the log filter. Spans that live within one scope are those of `tracing`, exported by the layer
//! of `tracing-opentelemetry`.

mod ratio;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::SystemTime;

use api::{Trace, TraceContext};
use opentelemetry::{
    Context, ContextGuard, SpanId, TraceFlags, TraceId, Value, global,
    global::{BoxedSpan, BoxedTracer},
    trace::{Span as _, SpanBuilder, SpanContext, Status, TraceContextExt as _, TraceState, Tracer as _},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use opentelemetry::{KeyValue, trace::SpanKind as Kind};
pub use ratio::Ratio;

/// The part of Quorate that a span belongs to: the instrumentation scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The client library.
    Client,
    /// The store.
    Store,
    /// The quorum.
    Quorum,
    /// The election.
    Election,
}

impl Scope {
    const ALL: [Scope; 4] = [Scope::Client, Scope::Store, Scope::Quorum, Scope::Election];

    /// The name of the instrumentation scope.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Client => "quorate.client",
            Scope::Store => "quorate.store",
            Scope::Quorum => "quorate.quorum",
            Scope::Election => "quorate.election",
        }
    }
}

/// The tracers of this process, if it exports spans itself.
static TRACERS: OnceLock<[BoxedTracer; 4]> = OnceLock::new();

/// Declares that this process exports spans, to the tracer provider that is set globally now. The first call decides.
pub fn install() {
    TRACERS.get_or_init(|| Scope::ALL.map(|scope| global::tracer(scope.name())));
}

/// Whether this process exports spans.
#[must_use]
pub fn installed() -> bool {
    TRACERS.get().is_some()
}

/// An open span. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Inner);

#[derive(Debug)]
enum Inner {
    Recorded(BoxedSpan),
    /// This process exports nothing; further spans are children of the context that came.
    PassedOn(TraceContext),
}

impl Span {
    /// Opens a span for a step of a request, below the context that came with the request.
    #[must_use]
    pub fn below(parent: &TraceContext, scope: Scope, name: &'static str, kind: Kind) -> Span {
        Span::below_since(parent, scope, name, kind, SystemTime::now())
    }

    /// As [`Span::below`], with an earlier start.
    #[must_use]
    pub fn below_since(
        parent: &TraceContext,
        scope: Scope,
        name: &'static str,
        kind: Kind,
        since: SystemTime,
    ) -> Span {
        match TRACERS.get() {
            Some(tracers) => Span::own(tracers, scope, name, kind, Some(parent), since),
            None => Span(Inner::PassedOn(*parent)),
        }
    }

    /// Opens a span for something that happens by itself; `None` if this process exports no spans.
    #[must_use]
    pub fn root(scope: Scope, name: &'static str) -> Option<Span> {
        let tracers = TRACERS.get()?;
        Some(Span::own(tracers, scope, name, Kind::Internal, None, SystemTime::now()))
    }

    /// Opens a span for a request of this process. If the application has a current span, in OpenTelemetry or in `tracing`
    /// with the layer of `tracing-opentelemetry`, the new span is its child. Otherwise `ratio` decides whether the request
    /// begins a trace. Also returns the context to send along: servers learn from it that the application does not record
    /// its own trace.
    #[must_use]
    pub fn of_client(name: &'static str, ratio: &Ratio) -> (Option<Span>, Trace) {
        let parent = match application_context() {
            None if !ratio.hit() => return (None, None),
            None => None,
            Some(parent) if parent.sampled() => Some(parent),
            Some(parent) => return (None, Some(Box::new(parent))),
        };
        let cx = parent.as_ref().map_or_else(Context::new, below);
        let builder = SpanBuilder::from_name(name).with_kind(Kind::Client);
        let span = match TRACERS.get() {
            Some(tracers) => tracers[Scope::Client as usize].build_with_context(builder, &cx),
            None => global::tracer(Scope::Client.name()).build_with_context(builder, &cx),
        };
        let trace = context(span.span_context()).map(Box::new);
        (span.is_recording().then_some(Span(Inner::Recorded(span))), trace)
    }

    /// Opens a span for a request that came from a client. `asked` decides if it is there, otherwise `ratio`.
    #[must_use]
    pub fn of_server(
        asked: Option<&TraceContext>,
        scope: Scope,
        name: &'static str,
        ratio: &Ratio,
    ) -> Option<Span> {
        let traced = asked.map_or_else(|| ratio.hit(), TraceContext::sampled);
        match TRACERS.get() {
            _ if !traced => None,
            Some(tracers) => Some(Span::own(tracers, scope, name, Kind::Server, asked, SystemTime::now())),
            None => asked.map(|asked| Span(Inner::PassedOn(*asked))),
        }
    }

    fn own(
        tracers: &[BoxedTracer; 4],
        scope: Scope,
        name: &'static str,
        kind: Kind,
        parent: Option<&TraceContext>,
        since: SystemTime,
    ) -> Span {
        let cx = parent.map_or_else(Context::new, below);
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(since);
        Span(Inner::Recorded(tracers[scope as usize].build_with_context(builder, &cx)))
    }

    fn context(&self) -> Option<TraceContext> {
        match &self.0 {
            Inner::Recorded(span) => context(span.span_context()),
            Inner::PassedOn(context) => Some(*context),
        }
    }

    /// The context that travels on with the request, so that further spans are children of this one.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.context().filter(TraceContext::sampled).map(Box::new)
    }

    /// Sets an attribute. Keys and values are listed in `docs/tracing.md`; values of znodes are never among them.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Inner::Recorded(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Records an event of this moment.
    pub fn event<const N: usize>(&mut self, name: &'static str, attributes: [KeyValue; N]) {
        if let Inner::Recorded(span) = &mut self.0 {
            span.add_event(name, attributes.into());
        }
    }

    /// Marks the span as failed. At most [`MESSAGE_MAX`] characters of the message are kept.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Inner::Recorded(span) = &mut self.0 {
            span.set_status(Status::error(shortened(why.into())));
        }
    }

    /// Ends the span at a time other than now.
    pub fn end_at(self, at: SystemTime) {
        if let Inner::Recorded(mut span) = self.0 {
            span.end_with_timestamp(at);
        }
    }

    /// A scope whose log lines carry the ids of this trace and span, at every level.
    #[must_use]
    pub fn lines(&self) -> Lines {
        let Some(context) = self.context() else { return Lines::none() };
        let trace_id = format_args!("{:032x}", u128::from_be_bytes(context.trace_id()));
        let span_id = format_args!("{:016x}", u64::from_be_bytes(context.span_id()));
        let span = tracing::error_span!(target: LINES, "trace", %trace_id, %span_id);
        Lines { span, context: Some(below(&context)) }
    }
}

/// Log lines inside of it carry the ids of a span: as fields of a `tracing` span for text and JSON, and as the current
/// OpenTelemetry context for logs that are exported by OTLP.
#[derive(Debug)]
pub struct Lines {
    span: tracing::Span,
    context: Option<Context>,
}

/// Ends the scope of [`Lines`] when it is dropped.
#[derive(Debug)]
pub struct LinesGuard {
    _span: tracing::span::EnteredSpan,
    _context: Option<ContextGuard>,
}

impl Lines {
    fn none() -> Lines {
        Lines { span: tracing::Span::none(), context: None }
    }

    /// Begins the scope, on this thread.
    #[must_use]
    pub fn entered(self) -> LinesGuard {
        LinesGuard { _context: self.context.map(Context::attach), _span: self.span.entered() }
    }

    /// Runs `f` within the scope.
    pub fn in_scope<T>(self, f: impl FnOnce() -> T) -> T {
        let _guard = self.entered();
        f()
    }
}

/// [`Span::lines`] of an optional span.
#[must_use]
pub fn lines(span: Option<&Span>) -> Lines {
    span.map_or_else(Lines::none, Span::lines)
}

/// The target of the `tracing` spans of [`Lines`]: they are no spans of a trace and are not exported.
pub const LINES: &str = "spans::lines";

/// Most characters of the message of a failed span: it may name a path of 8 KiB, and many spans wait for their export.
pub const MESSAGE_MAX: usize = 256;

fn shortened(why: Cow<'static, str>) -> Cow<'static, str> {
    match why.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => why[..end].to_owned().into(),
        None => why,
    }
}

/// The current span of the application: that of OpenTelemetry, else that of `tracing`.
fn application_context() -> Option<TraceContext> {
    let current = Context::map_current(|current| {
        current.has_active_span().then(|| current.span().span_context().clone())
    });
    let current = current.or_else(|| {
        let span = tracing::Span::current();
        if span.is_none() {
            return None;
        }
        Some(span.context().span().span_context().clone())
    });
    current.as_ref().and_then(context)
}

fn below(parent: &TraceContext) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(parent.trace_id()),
        SpanId::from_bytes(parent.span_id()),
        TraceFlags::default().with_sampled(parent.sampled()),
        true,
        TraceState::default(),
    ))
}

fn context(context: &SpanContext) -> Option<TraceContext> {
    TraceContext::new(context.trace_id().to_bytes(), context.span_id().to_bytes(), context.is_sampled())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sampled: bool) -> TraceContext {
        TraceContext::new([1; 16], [2; 8], sampled).unwrap()
    }

    #[test]
    fn without_a_provider_nothing_is_recorded_and_contexts_are_passed_on() {
        assert!(Span::root(Scope::Quorum, "x").is_none());
        assert!(Span::of_server(None, Scope::Store, "x", &Ratio::new(1.0)).is_none());
        let (span, trace) = Span::of_client("x", &Ratio::new(1.0));
        assert!(span.is_none() && trace.is_none());
        let span = Span::of_server(Some(&asked(true)), Scope::Store, "x", &Ratio::new(0.0)).unwrap();
        assert_eq!(span.trace(), Some(Box::new(asked(true))));
    }

    #[test]
    fn a_client_continues_the_current_opentelemetry_span_of_its_application() {
        for sampled in [true, false] {
            let _current = below(&asked(sampled)).attach();
            let (_, trace) = Span::of_client("x", &Ratio::new(1.0));
            assert_eq!(trace, Some(Box::new(asked(sampled))), "an unsampled context is sent along as well");
        }
    }

    #[test]
    fn a_request_whose_client_does_not_sample_is_not_traced() {
        assert!(Span::of_server(Some(&asked(false)), Scope::Store, "x", &Ratio::new(1.0)).is_none());
    }

    #[test]
    fn of_a_long_error_only_the_beginning_is_kept() {
        let Cow::Owned(kept) = shortened("\u{e9}".repeat(8192).into()) else { panic!("a copy") };
        assert_eq!(kept, "\u{e9}".repeat(MESSAGE_MAX));
        assert!(kept.capacity() < 2 * kept.len());
        assert_eq!(shortened("short".into()), "short");
    }
}
