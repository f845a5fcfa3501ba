//! Spans by OTLP/gRPC: the way from [`telemetry::trace`] to a collector.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter as Export,
    },
};

use crate::otlp::attribute_name;

/// Collects the spans of this process and pushes them, in batches, from a thread of its own.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

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
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_WITHIN)
            .build()
            .map_err(|e| BadCollector { endpoint: endpoint.to_owned(), why: e.to_string() })?;
        let exporter = Reporting { exporter, endpoint: endpoint.to_owned(), reached: AtomicU8::new(UNTRIED) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let attributes =
            resource.iter().map(|(name, value)| KeyValue::new(attribute_name(name, true), value.clone()));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(config).build())
            // Whether something is traced was decided where it began.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(Resource::builder_empty().with_attributes(attributes).build())
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Traces(provider))
    }

    /// Pushes what is left, but does not wait for long.
    pub async fn end(self) {
        // It waits for a thread; and that thread for this runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_PUSH_WITHIN));
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::debug!("the last spans may not have arrived");
        }
    }
}

/// Says when the collector goes and when it comes back.
#[derive(Debug)]
struct Reporting {
    exporter: SpanExporter,
    endpoint: String,
    reached: AtomicU8,
}

const UNTRIED: u8 = 0;
const REACHED: u8 = 1;
const AWAY: u8 = 2;

impl Export for Reporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let pushed = self.exporter.export(batch).await;
        let now = if pushed.is_ok() { REACHED } else { AWAY };
        let endpoint = &self.endpoint;
        if self.reached.swap(now, Ordering::Relaxed) != now {
            match &pushed {
                Ok(()) => tracing::info!(endpoint, "pushing spans"),
                Err(e) => tracing::warn!(endpoint, "cannot push spans; goes on trying: {e}"),
            }
        }
        pushed
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Spans that wait; further ones are dropped.
const QUEUE: usize = 8192;
/// Spans of one message.
const BATCH: usize = 512;
/// Spans are pushed after this, or when there are enough for a message.
const DELAY: Duration = Duration::from_secs(1);
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// A collector that is not there must not hold up the end.
const LAST_PUSH_WITHIN: Duration = Duration::from_secs(1);
