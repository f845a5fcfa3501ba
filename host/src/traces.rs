//! Spans and log lines by OTLP/gRPC, through OpenTelemetry's SDK and exporter.
//!
//! The SDK's variables are honoured: `OTEL_EXPORTER_OTLP_*` (endpoint for traces and logs, headers, timeout, compression,
//! certificate), `OTEL_BSP_*` and `OTEL_BLRP_*` (batches), `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`. The sampler is
//! read by [`crate::config`]: it decides before a span is built.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use opentelemetry::global;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{
        BatchConfigBuilder as LogBatch, BatchLogProcessor, LogBatch as Lines, SdkLogger, SdkLoggerProvider,
    },
    trace::{BatchConfigBuilder as SpanBatch, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData},
};

use crate::collector::{self, BadCollector, Reached};

/// Exports the spans of this process, and its log lines if asked to.
#[derive(Debug)]
pub struct Traces {
    spans: SdkTracerProvider,
    lines: Option<SdkLoggerProvider>,
}

/// The layer of log lines of [`crate::logging`] exports to this, once there is a collector.
pub(crate) static LINES: OnceLock<OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>> = OnceLock::new();

impl Traces {
    /// Begins to export, for the whole process. `resource` identifies the process, as made by
    /// [`crate::otlp::resource`]; `lines`: log lines, too. While the collector at `endpoint` is away, spans
    /// and lines are dropped; the log reports its loss and its return once each. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// `endpoint` is not an address, or a variable of the SDK asks for what this build cannot do.
    pub fn start(
        endpoint: &str,
        resource: &[(&'static str, String)],
        lines: bool,
    ) -> Result<Traces, BadCollector> {
        collector::endpoint(endpoint)?;
        let resource = collector::resource(resource);
        let spans = span_provider(&of_signal("TRACES", endpoint), resource.clone())?;
        let lines = lines.then(|| line_provider(&of_signal("LOGS", endpoint), resource)).transpose()?;
        global::set_tracer_provider(spans.clone());
        spans::install();
        if let Some(provider) = &lines {
            LINES.get_or_init(|| OpenTelemetryTracingBridge::new(provider));
        }
        Ok(Traces { spans, lines })
    }

    /// Exports what is left, for one second at most: a collector that is away must not hold up the end.
    pub async fn end(self) {
        let end = tokio::task::spawn_blocking(move || {
            let lines = self.lines.map(|lines| lines.shutdown_with_timeout(LAST_EXPORT_WITHIN));
            [Some(self.spans.shutdown_with_timeout(LAST_EXPORT_WITHIN)), lines]
        });
        if let Ok(Ok(ended)) = tokio::time::timeout(LAST_EXPORT_WITHIN, end).await
            && ended.iter().flatten().all(Result::is_ok)
        {
            return;
        }
        tracing::debug!("the last spans may be lost");
    }
}

/// The endpoint of one signal, where the SDK's variable names another one.
fn of_signal(signal: &str, endpoint: &str) -> String {
    let named = std::env::var(format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    named.ok().filter(|named| !named.is_empty()).unwrap_or_else(|| endpoint.to_owned())
}

fn span_provider(endpoint: &str, resource: Resource) -> Result<SdkTracerProvider, BadCollector> {
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
    if let Some(tls) = collector::tls(endpoint)? {
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.build().map_err(|e| BadCollector::new(endpoint, e))?;
    let exporter = Reporting { exporter, reached: Reached::shared("spans", endpoint) };
    let mut batch = SpanBatch::default();
    if std::env::var_os("OTEL_BSP_MAX_QUEUE_SIZE").is_none() {
        batch = batch.with_max_queue_size(QUEUE);
    }
    if std::env::var_os("OTEL_BSP_SCHEDULE_DELAY").is_none() {
        batch = batch.with_scheduled_delay(DELAY);
    }
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
    // The decision to sample a request was made before its span is built; the SDK follows it.
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_resource(resource);
    Ok(provider.with_span_processor(processor).build())
}

fn line_provider(endpoint: &str, resource: Resource) -> Result<SdkLoggerProvider, BadCollector> {
    let mut exporter = LogExporter::builder().with_tonic().with_endpoint(endpoint);
    if let Some(tls) = collector::tls(endpoint)? {
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.build().map_err(|e| BadCollector::new(endpoint, e))?;
    let exporter = Reporting { exporter, reached: Reached::shared("log lines", endpoint) };
    let processor =
        BatchLogProcessor::builder(exporter).with_batch_config(LogBatch::default().build()).build();
    Ok(SdkLoggerProvider::builder().with_resource(resource).with_log_processor(processor).build())
}

/// An exporter that reports in the log when the collector goes and when it comes back.
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    reached: Arc<Mutex<Reached>>,
}

impl<E> Reporting<E> {
    fn note(&self, exported: OTelSdkResult) -> OTelSdkResult {
        let reason = exported.as_ref().map_err(ToString::to_string).copied();
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).note(reason);
        exported
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.note(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: opentelemetry_sdk::logs::LogExporter> opentelemetry_sdk::logs::LogExporter for Reporting<E> {
    async fn export(&self, batch: Lines<'_>) -> OTelSdkResult {
        self.note(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Maximum of waiting spans, by default of `OTEL_BSP_MAX_QUEUE_SIZE`; further ones are dropped. At 1 % of
/// full load a node makes some 10,000 spans a second.
const QUEUE: usize = 32_768;
/// Time between two exports, by default of `OTEL_BSP_SCHEDULE_DELAY`.
const DELAY: Duration = Duration::from_millis(500);
const LAST_EXPORT_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_that_is_not_an_address_is_refused() {
        for bad in ["", "127.0.0.1:4317", "collector", "http://", "http://a b", "ftp://127.0.0.1:4317"] {
            let error = Traces::start(bad, &[], false).unwrap_err().to_string();
            assert!(error.contains("expected an address such as http://127.0.0.1:4317"), "{bad}: {error}");
        }
    }
}
