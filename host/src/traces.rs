//! Spans by OTLP/gRPC: the way from [`telemetry::trace`] to a collector.

use std::{mem, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status},
};
use telemetry::trace::{Attribute, Kind, Record, Recorder, Scope, Value};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::otlp::{CONNECT_WITHIN, Reached, attributes};

/// Pushes the spans of this process to a collector, in batches.
#[derive(Debug)]
pub struct Traces {
    stop: CancellationToken,
    pusher: JoinHandle<()>,
}

/// An address that spans cannot be pushed to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no spans can be pushed to {endpoint:?}: {why}; expected an address such as http://127.0.0.1:4317")]
pub struct BadCollector {
    /// As given.
    endpoint: String,
    /// What is wrong with it.
    why: String,
}

impl Traces {
    /// Begins, for the whole process. `resource` is what the process is, as [`crate::otlp::resource`] makes it. While there is
    /// no collector at `endpoint`, spans are dropped: that costs a line in the log when it goes and when it comes back.
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// An address that is none.
    pub fn start(endpoint: &str, resource: &[(&'static str, String)]) -> Result<Traces, BadCollector> {
        let bad = |why: String| BadCollector { endpoint: endpoint.to_owned(), why };
        let channel = Endpoint::from_shared(endpoint.to_owned()).map_err(|e| bad(e.to_string()))?;
        if channel.uri().host().is_none() || channel.uri().scheme().is_none() {
            return Err(bad("it names no host".to_owned()));
        }
        let channel = channel.connect_timeout(CONNECT_WITHIN).timeout(PUSH_WITHIN).connect_lazy();
        let stop = CancellationToken::new();
        let pusher = Pusher {
            client: TraceServiceClient::new(channel),
            recorder: Recorder::install(CAPACITY),
            resource: Resource { attributes: attributes(resource, true), ..Resource::default() },
            reached: Reached::new("spans", endpoint),
            dropped: 0,
            said_dropped: None,
        };
        Ok(Traces { pusher: tokio::spawn(pusher.run(stop.clone())), stop })
    }

    /// Pushes what is left, but does not wait for long.
    pub async fn end(self) {
        self.stop.cancel();
        if !matches!(tokio::time::timeout(LAST_PUSH_WITHIN, self.pusher).await, Ok(Ok(()))) {
            tracing::debug!("the last spans may not have arrived");
        }
    }
}

struct Pusher {
    client: TraceServiceClient<Channel>,
    recorder: &'static Recorder,
    resource: Resource,
    reached: Reached,
    /// Spans that had no room or did not arrive, not yet told of.
    dropped: u64,
    said_dropped: Option<Instant>,
}

impl Pusher {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(DELAY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let over = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            self.push().await;
            if over {
                return self.say_dropped();
            }
            if self.said_dropped.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                self.say_dropped();
            }
        }
    }

    fn say_dropped(&mut self) {
        let dropped = mem::take(&mut self.dropped);
        if dropped > 0 {
            self.said_dropped = Some(Instant::now());
            tracing::warn!(
                dropped,
                "spans were dropped: the collector is away or slow, or there are more than can be pushed; look at the \
                 collector, or trace a smaller part of the requests"
            );
        }
    }

    async fn push(&mut self) {
        let (records, dropped) = self.recorder.take();
        let mut records = records.into_iter();
        self.dropped += dropped;
        while records.len() > 0 {
            let spans = records.len().min(BATCH) as u64;
            let request = request(&self.resource, records.by_ref().take(BATCH));
            let pushed = self.client.export(request).await;
            let away = matches!(&pushed, Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled));
            if !self.reached.note(pushed) {
                self.dropped += spans;
            }
            if away {
                // Neither would the rest arrive.
                self.dropped += records.len() as u64;
                break;
            }
        }
    }
}

/// One message with all of them.
fn request(resource: &Resource, records: impl Iterator<Item = Record>) -> ExportTraceServiceRequest {
    let mut scopes: Vec<(Scope, Vec<Span>)> = Vec::new();
    for record in records {
        let scope = record.scope;
        let span = span(record);
        match scopes.iter_mut().find(|(of, _)| *of == scope) {
            Some((_, spans)) => spans.push(span),
            None => scopes.push((scope, vec![span])),
        }
    }
    let scope =
        |name: &str| InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() };
    let scope_spans = scopes.into_iter().map(|(of, spans)| ScopeSpans {
        scope: Some(scope(of.name())),
        spans,
        ..ScopeSpans::default()
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: scope_spans.collect(),
            ..ResourceSpans::default()
        }],
    }
}

fn span(record: Record) -> Span {
    let kind = match record.kind {
        Kind::Internal => span::SpanKind::Internal,
        Kind::Client => span::SpanKind::Client,
        Kind::Server => span::SpanKind::Server,
    };
    let events = record.events.into_iter().map(|event| span::Event {
        time_unix_nano: event.at,
        name: event.name.to_owned(),
        attributes: key_values(event.attributes),
        ..span::Event::default()
    });
    let failed = |why| Status { message: why, code: status::StatusCode::Error.into() };
    Span {
        trace_id: record.trace_id.into(),
        span_id: record.span_id.into(),
        parent_span_id: record.parent.map(Vec::from).unwrap_or_default(),
        name: record.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: record.start,
        end_time_unix_nano: record.end,
        attributes: key_values(record.attributes),
        events: events.collect(),
        status: record.error.map(|why| failed(shortened(&why))),
        flags: SAMPLED,
        dropped_events_count: record.dropped_events,
        ..Span::default()
    }
}

/// A message that names a long path must not make the whole push too large.
fn shortened(why: &str) -> String {
    match why.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}...", &why[..end]),
        None => why.to_owned(),
    }
}

fn key_values(attributes: Vec<Attribute>) -> Vec<KeyValue> {
    let key_value = |(key, value): Attribute| {
        let value = match value {
            Value::Number(number) => any_value::Value::IntValue(number),
            Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
            Value::Zxid(zxid) => any_value::Value::StringValue(zxid.to_string()),
        };
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    };
    attributes.into_iter().map(key_value).collect()
}

/// Spans that wait; further ones are dropped.
const CAPACITY: usize = 32_768;
/// Spans of one message. To encode it takes a worker of the runtime a fraction of a millisecond.
const BATCH: usize = 512;
/// Most characters of the message of an error.
const MESSAGE_MAX: usize = 256;
/// Between two pushes.
const DELAY: Duration = Duration::from_millis(500);
/// Between two lines about dropped spans.
const SAY_AGAIN: Duration = Duration::from_secs(60);
const PUSH_WITHIN: Duration = Duration::from_secs(5);
/// A collector that is not there must not hold up the end.
const LAST_PUSH_WITHIN: Duration = Duration::from_secs(1);
/// W3C trace flags.
const SAMPLED: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use api::Zxid;
    use telemetry::trace::Event;

    fn record(scope: Scope) -> Record {
        Record {
            scope,
            name: "store.set",
            kind: Kind::Server,
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: Some([3; 8]),
            start: 10,
            end: 20,
            attributes: vec![("quorate.zxid", Zxid(0x1_0000_0002).into()), ("n", 7.into())],
            dropped_events: 3,
            events: vec![Event { at: 15, name: "vote", attributes: vec![("to", "2".into())] }],
            error: Some("n".repeat(300).into()),
        }
    }

    #[test]
    fn a_span_says_all_that_its_record_does() {
        let got = span(record(Scope::Store));
        assert_eq!((&got.trace_id[..], &got.span_id[..]), (&[1; 16][..], &[2; 8][..]));
        assert_eq!(got.parent_span_id, [3; 8]);
        assert_eq!((got.name.as_str(), got.kind()), ("store.set", span::SpanKind::Server));
        assert_eq!((got.start_time_unix_nano, got.end_time_unix_nano), (10, 20));
        let text =
            |v: &KeyValue| format!("{} {:?}", v.key, v.value.as_ref().unwrap().value.as_ref().unwrap());
        let said: Vec<String> = got.attributes.iter().map(text).collect();
        assert_eq!(said, [r#"quorate.zxid StringValue("0x100000002")"#, "n IntValue(7)"]);
        assert_eq!(got.dropped_events_count, 3);
        let [event] = &got.events[..] else { panic!("{:?}", got.events) };
        assert_eq!((event.time_unix_nano, event.name.as_str()), (15, "vote"));
        assert_eq!(text(&event.attributes[0]), r#"to StringValue("2")"#);
        let status = got.status.unwrap();
        assert_eq!((status.code(), status.message), (status::StatusCode::Error, "n".repeat(256) + "..."));

        let root = Record { parent: None, error: None, ..record(Scope::Store) };
        let got = span(root);
        assert!(got.parent_span_id.is_empty() && got.status.is_none());
    }

    #[test]
    fn a_message_has_the_spans_by_scope() {
        let scopes = [Scope::Store, Scope::Quorum, Scope::Store];
        let request = request(&Resource::default(), scopes.map(record).into_iter());
        let [resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let said: Vec<_> = resource
            .scope_spans
            .iter()
            .map(|s| (s.scope.as_ref().unwrap().name.as_str(), s.spans.len()))
            .collect();
        assert_eq!(said, [("quorate.store", 2), ("quorate.quorum", 1)]);
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused() {
        for bad in ["", "127.0.0.1:4317", "collector", "http://", "http://a b"] {
            let error = Traces::start(bad, &[]).unwrap_err().to_string();
            assert!(error.contains("expected an address such as http://127.0.0.1:4317"), "{bad}: {error}");
        }
    }
}
