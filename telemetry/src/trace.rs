//! Spans: what one traced request, election or synchronisation went through.
//!
//! Whether a request is traced is decided once, where it begins ([`Span::of_client`], [`Span::of_server`]). After that its
//! [`api::Trace`] travels with it, and each hop that finds one makes a [`Span`] below it and hands on that span's own. So what
//! is not traced costs each hop one look at a null pointer.
//!
//! Spans go to the tracer provider of the process. Where none is installed nothing is recorded, but what comes from
//! others is passed on.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use api::{Trace, TraceContext};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, Value, global,
    global::BoxedSpan,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
    },
};

/// Which part of Quorate a span is of: the instrumentation scope.
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
    fn name(self) -> &'static str {
        match self {
            Scope::Client => "quorate.client",
            Scope::Store => "quorate.store",
            Scope::Quorum => "quorate.quorum",
            Scope::Election => "quorate.election",
        }
    }
}

/// An open span. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(BoxedSpan);

impl Span {
    /// Something that belongs to a request, below the span that it came with.
    #[must_use]
    pub fn below(parent: &TraceContext, scope: Scope, name: &'static str) -> Span {
        Span::start(scope, SpanBuilder::from_name(name), Some(parent))
    }

    /// As [`Span::below`], but it began earlier.
    #[must_use]
    pub fn below_since(parent: &TraceContext, scope: Scope, name: &'static str, since: SystemTime) -> Span {
        Span::start(scope, SpanBuilder::from_name(name).with_start_time(since), Some(parent))
    }

    /// Something that happens by itself; `None` if nobody records spans in this process.
    #[must_use]
    pub fn root(scope: Scope, name: &'static str) -> Option<Span> {
        let span = Span::start(scope, SpanBuilder::from_name(name), None);
        span.0.is_recording().then_some(span)
    }

    /// A request of this process, which may be one of an application that traces: below its current span if there is one,
    /// and else, for such a part of them, a trace of its own. Also returns what is to be sent along: that the
    /// application does not record its own trace, the servers are told.
    #[must_use]
    pub fn of_client(name: &'static str, ratio: &Ratio) -> (Option<Span>, Trace) {
        let current = Context::map_current(|current| {
            current.has_active_span().then(|| current.span().span_context().clone())
        });
        let parent = match &current {
            None if !ratio.hit() => return (None, None),
            None => None,
            Some(current) => match context(current) {
                Some(parent) if parent.sampled() => Some(parent),
                other => return (None, other.map(Box::new)),
            },
        };
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
        let span = Span::start(Scope::Client, builder, parent.as_ref());
        let trace = context(span.0.span_context()).map(Box::new);
        (span.0.is_recording().then_some(span), trace)
    }

    /// A request that came from a client with `asked`; one that came without is traced for such a part of them.
    #[must_use]
    pub fn of_server(
        asked: Option<&TraceContext>,
        scope: Scope,
        name: &'static str,
        ratio: &Ratio,
    ) -> Option<Span> {
        let traced = match asked {
            Some(asked) => asked.sampled(),
            None => ratio.hit(),
        };
        if !traced {
            return None;
        }
        let span = Span::start(scope, SpanBuilder::from_name(name).with_kind(SpanKind::Server), asked);
        span.0.span_context().is_sampled().then_some(span)
    }

    fn start(scope: Scope, builder: SpanBuilder, parent: Option<&TraceContext>) -> Span {
        let cx = parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(remote(parent)));
        Span(global::tracer(scope.name()).build_with_context(builder, &cx))
    }

    /// What travels on with the request, so that further spans stand below this one.
    #[must_use]
    pub fn trace(&self) -> Trace {
        context(self.0.span_context()).filter(TraceContext::sampled).map(Box::new)
    }

    /// Says more about it. Keys and values as in `docs/tracing.md`; never values of znodes.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// Something has happened just now.
    pub fn event<const N: usize>(&mut self, name: &'static str, said: [(&'static str, Value); N]) {
        self.0.add_event(name, said.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect());
    }

    /// It did not do what it was for.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.0.set_status(Status::error(why));
    }

    /// Ends it at another time than now.
    pub fn end_at(mut self, at: SystemTime) {
        self.0.end_with_timestamp(at);
    }

    /// Lines that are logged inside of this name the trace and the span, whatever the level.
    #[must_use]
    pub fn lines(&self) -> tracing::Span {
        let context = self.0.span_context();
        tracing::error_span!("trace", trace_id = %context.trace_id(), span_id = %context.span_id())
    }
}

/// [`Span::lines`] of a span that there may be.
#[must_use]
pub fn lines(span: Option<&Span>) -> tracing::Span {
    span.map_or_else(tracing::Span::none, Span::lines)
}

fn remote(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        TraceFlags::default().with_sampled(context.sampled()),
        true,
        TraceState::default(),
    )
}

fn context(context: &SpanContext) -> Option<TraceContext> {
    TraceContext::new(context.trace_id().to_bytes(), context.span_id().to_bytes(), context.is_sampled())
}

/// Which part of the requests that come without a trace begin one.
#[derive(Debug)]
pub struct Ratio {
    /// Of 2^64 equally likely numbers, those below it hit.
    threshold: u64,
    always: bool,
    state: AtomicU64,
}

impl Ratio {
    /// From 0 for none to 1 for all.
    #[must_use]
    pub fn new(ratio: f64) -> Ratio {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        // A cast from a float is clamped.
        Ratio { threshold: (ratio * 2f64.powi(64)) as u64, always: ratio >= 1.0, state: AtomicU64::new(seed) }
    }

    /// Decides for one request. Evenly spread rather than secret: SplitMix64 (Steele, Lea, Flood 2014).
    fn hit(&self) -> bool {
        if self.threshold == 0 || self.always {
            return self.always;
        }
        let mut z = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sampled: bool) -> TraceContext {
        TraceContext::new([1; 16], [2; 8], sampled).unwrap()
    }

    #[test]
    fn a_ratio_hits_as_often_as_it_says() {
        let hits = |ratio| {
            let ratio = Ratio::new(ratio);
            (0..100_000).filter(|_| ratio.hit()).count()
        };
        assert_eq!((hits(0.0), hits(-1.0), hits(1.0), hits(2.0)), (0, 0, 100_000, 100_000));
        let one_percent = hits(0.01);
        assert!((800..1200).contains(&one_percent), "{one_percent}");
    }

    #[test]
    fn without_a_provider_nothing_is_recorded_and_what_comes_is_passed_on() {
        assert!(Span::root(Scope::Quorum, "x").is_none());
        assert!(Span::of_server(None, Scope::Store, "x", &Ratio::new(1.0)).is_none());
        let (span, trace) = Span::of_client("x", &Ratio::new(1.0));
        assert!(span.is_none() && trace.is_none());
        let span = Span::of_server(Some(&asked(true)), Scope::Store, "x", &Ratio::new(0.0)).unwrap();
        assert_eq!(span.trace(), Some(Box::new(asked(true))));
    }

    #[test]
    fn a_client_within_a_span_of_its_application_belongs_to_that_trace() {
        for sampled in [true, false] {
            let application = Context::new().with_remote_span_context(remote(&asked(sampled)));
            let _current = application.attach();
            let (_, trace) = Span::of_client("x", &Ratio::new(1.0));
            assert_eq!(trace, Some(Box::new(asked(sampled))), "also that it is not sampled is said");
        }
    }

    #[test]
    fn whoever_says_that_it_does_not_trace_is_not_traced() {
        assert!(Span::of_server(Some(&asked(false)), Scope::Store, "x", &Ratio::new(1.0)).is_none());
    }
}
