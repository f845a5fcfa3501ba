//! Spans: what one traced request, election or synchronisation went through.
//!
//! Whether a request is traced is decided once, where it begins ([`Span::of_client`], [`Span::of_server`]). After that its
//! [`api::Trace`] travels with it, and each hop that finds one makes a [`Span`] below it and hands on that span's own. So what
//! is not traced costs each hop one look at a null pointer.
//!
//! Where a [`Recorder`] is installed, as in every process of ours that has a collector, spans go there. In an application
//! that uses the client library they go to its own tracer provider, by the crate `opentelemetry`. Where there is neither,
//! nothing is recorded, but what comes from others is passed on.
//!
//! A [`Record`] of our own rather than a span of the OpenTelemetry SDK, which costs three times as much (`docs/performance.md`).

mod record;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::SystemTime;

use api::{Trace, TraceContext};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, global,
    global::BoxedSpan,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
    },
};

use record::Numbers;
pub(crate) use record::nanos;
pub use record::{Attribute, EVENTS_MAX, Event, Kind, MESSAGE_MAX, Record, Recorder, Value};

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
    /// As collectors see it.
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

/// An open span. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Inner);

#[derive(Debug)]
enum Inner {
    /// Recorded in this process.
    Own(Box<Record>),
    /// The application's tracer provider has it.
    Application(BoxedSpan),
    /// This process records nothing; further spans stand below the one that came.
    PassedOn(TraceContext),
    /// It has ended.
    Over,
}

impl Span {
    /// Something that belongs to a request, below the span that it came with.
    #[must_use]
    pub fn below(parent: &TraceContext, scope: Scope, name: &'static str) -> Span {
        Span::below_since(parent, scope, name, SystemTime::now())
    }

    /// As [`Span::below`], but it began earlier.
    #[must_use]
    pub fn below_since(parent: &TraceContext, scope: Scope, name: &'static str, since: SystemTime) -> Span {
        match Recorder::installed() {
            Some(_) => Span::own(scope, name, Kind::Internal, Some(parent), since),
            None => Span(Inner::PassedOn(*parent)),
        }
    }

    /// The same span on this side of a call to, or from, another process. For those that [`Span::below`] made.
    #[must_use]
    pub fn on_side(mut self, kind: Kind) -> Span {
        if let Inner::Own(record) = &mut self.0 {
            record.kind = kind;
        }
        self
    }

    /// Something that happens by itself; `None` if nobody records spans in this process.
    #[must_use]
    pub fn root(scope: Scope, name: &'static str) -> Option<Span> {
        Recorder::installed().map(|_| Span::own(scope, name, Kind::Internal, None, SystemTime::now()))
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
        if Recorder::installed().is_some() {
            let span = Span::own(Scope::Client, name, Kind::Client, parent.as_ref(), SystemTime::now());
            let trace = span.trace();
            return (Some(span), trace);
        }
        let cx = parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(remote(&parent)));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
        let span = global::tracer(Scope::Client.name()).build_with_context(builder, &cx);
        let trace = context(span.span_context()).map(Box::new);
        (span.is_recording().then(|| Span(Inner::Application(span))), trace)
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
        match Recorder::installed() {
            _ if !traced => None,
            Some(_) => Some(Span::own(scope, name, Kind::Server, asked, SystemTime::now())),
            None => asked.map(|asked| Span(Inner::PassedOn(*asked))),
        }
    }

    fn own(
        scope: Scope,
        name: &'static str,
        kind: Kind,
        parent: Option<&TraceContext>,
        since: SystemTime,
    ) -> Span {
        let trace_id = parent.map_or_else(new_trace_id, TraceContext::trace_id);
        Span(Inner::Own(Box::new(Record {
            scope,
            name,
            kind,
            trace_id,
            span_id: id(&SPAN_IDS).to_be_bytes(),
            parent: parent.map(TraceContext::span_id),
            start: nanos(since),
            // It has not ended.
            end: 0,
            attributes: Vec::new(),
            events: Vec::new(),
            dropped_events: 0,
            error: None,
        })))
    }

    fn context(&self) -> Option<TraceContext> {
        match &self.0 {
            Inner::Own(record) => TraceContext::new(record.trace_id, record.span_id, true),
            Inner::Application(span) => context(span.span_context()),
            Inner::PassedOn(context) => Some(*context),
            Inner::Over => None,
        }
    }

    /// What travels on with the request, so that further spans stand below this one.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.context().filter(TraceContext::sampled).map(Box::new)
    }

    /// Says more about it. Keys and values as in `docs/tracing.md`; never values of znodes.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        match &mut self.0 {
            Inner::Own(record) => record.attributes.push((key, value.into())),
            Inner::Application(span) => span.set_attribute(key_value(key, value.into())),
            Inner::PassedOn(_) | Inner::Over => {}
        }
    }

    /// Something has happened just now.
    pub fn event<const N: usize>(&mut self, name: &'static str, said: [Attribute; N]) {
        match &mut self.0 {
            Inner::Own(record) if record.events.len() >= EVENTS_MAX => record.dropped_events += 1,
            Inner::Own(record) => {
                let at = nanos(SystemTime::now());
                record.events.push(Event { at, name, attributes: said.into() });
            }
            Inner::Application(span) => {
                span.add_event(name, said.into_iter().map(|(key, value)| key_value(key, value)).collect());
            }
            Inner::PassedOn(_) | Inner::Over => {}
        }
    }

    /// It did not do what it was for.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        match &mut self.0 {
            Inner::Own(record) => record.error = Some(record::shortened(why.into())),
            Inner::Application(span) => span.set_status(Status::error(why)),
            Inner::PassedOn(_) | Inner::Over => {}
        }
    }

    /// Ends it at another time than now.
    pub fn end_at(mut self, at: SystemTime) {
        self.end(at);
    }

    fn end(&mut self, at: SystemTime) {
        match std::mem::replace(&mut self.0, Inner::Over) {
            Inner::Own(mut record) => {
                record.end = nanos(at);
                if let Some(recorder) = Recorder::installed() {
                    recorder.keep(*record);
                }
            }
            Inner::Application(mut span) => span.end_with_timestamp(at),
            Inner::PassedOn(_) | Inner::Over => {}
        }
    }

    /// Lines that are logged inside of this name the trace and the span, whatever the level.
    #[must_use]
    pub fn lines(&self) -> tracing::Span {
        let Some(context) = self.context() else { return tracing::Span::none() };
        let trace_id = format_args!("{:032x}", u128::from_be_bytes(context.trace_id()));
        let span_id = format_args!("{:016x}", u64::from_be_bytes(context.span_id()));
        tracing::error_span!("trace", %trace_id, %span_id)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !matches!(self.0, Inner::Over) {
            self.end(SystemTime::now());
        }
    }
}

static SPAN_IDS: LazyLock<Numbers> = LazyLock::new(Numbers::new);
static TRACE_IDS: LazyLock<Numbers> = LazyLock::new(Numbers::new);

/// Zero stands for none.
fn id(numbers: &Numbers) -> u64 {
    numbers.next().max(1)
}

fn new_trace_id() -> [u8; 16] {
    let (high, low) = (id(&TRACE_IDS), id(&SPAN_IDS));
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

fn key_value(key: &'static str, value: Value) -> KeyValue {
    match value {
        Value::Number(number) => KeyValue::new(key, number),
        Value::Text(Cow::Borrowed(text)) => KeyValue::new(key, text),
        Value::Text(Cow::Owned(text)) => KeyValue::new(key, text),
        Value::Zxid(zxid) => KeyValue::new(key, zxid.to_string()),
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
    numbers: Numbers,
}

impl Ratio {
    /// From 0 for none to 1 for all.
    #[must_use]
    pub fn new(ratio: f64) -> Ratio {
        // A cast from a float is clamped.
        let threshold = (ratio * 2f64.powi(64)) as u64;
        Ratio { threshold, always: ratio >= 1.0, numbers: Numbers::new() }
    }

    /// Decides for one request.
    fn hit(&self) -> bool {
        match self.threshold {
            _ if self.always => true,
            0 => false,
            threshold => self.numbers.next() < threshold,
        }
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
