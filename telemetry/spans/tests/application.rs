//! A client within an application that traces with `tracing`. A process of its own, because the tracer provider is global.

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use spans::{Ratio, Span};
use tracing_subscriber::layer::SubscriberExt as _;

#[test]
fn a_client_continues_the_current_tracing_span_of_its_application() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("application"));
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let trace = tracing::info_span!("work").in_scope(|| {
        let (span, trace) = Span::of_client("client.get", &Ratio::new(0.0));
        drop(span.expect("the application samples everything"));
        trace.expect("servers are to continue the trace")
    });
    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
    let (work, get) = (named("work"), named("client.get"));
    assert_eq!(get.parent_span_id, work.span_context.span_id());
    assert_eq!(get.span_context.trace_id(), work.span_context.trace_id());
    assert_eq!(trace.trace_id(), work.span_context.trace_id().to_bytes());

    let (outside, _) = Span::of_client("client.get", &Ratio::new(0.0));
    assert!(outside.is_none(), "without a current span the ratio decides");
}
