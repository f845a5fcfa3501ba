//! Metrics by OTLP/gRPC: the same that `/metrics` has, pushed to a collector.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, exemplar, metric, number_data_point,
    },
    resource::v1::Resource,
};
use telemetry::{Distribution, Group, Kind, Point, Reading, Value};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::collector::{self, BadCollector, Link, Reached, attribute_name, reason, with_headers};

/// Where to push, and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collector {
    /// As in `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// Between two pushes.
    pub interval: Duration,
}

/// The resource of a process, by the names that Prometheus's `target_info` has for OpenTelemetry's resource
/// attributes.
#[must_use]
pub fn resource(service: &str, ensemble: &str, node: &str, version: &str) -> Vec<(&'static str, String)> {
    vec![
        ("service_name", service.to_owned()),
        ("service_namespace", ensemble.to_owned()),
        ("service_instance_id", node.to_owned()),
        ("service_version", version.to_owned()),
    ]
}

/// Pushes the metrics of these groups until `stop` is cancelled, and once more then. A collector that is not there costs
/// a line in the log when it goes and when it comes back, and nothing else.
pub async fn push(
    collector: Collector,
    groups: Vec<Group>,
    resource: Vec<(&'static str, String)>,
    stop: CancellationToken,
) {
    let endpoint = match connectable(&collector.endpoint) {
        Ok(endpoint) => endpoint,
        Err(e) => return tracing::error!(error = %e, "cannot export metrics"),
    };
    let mut pusher = Pusher {
        link: Link::new(endpoint),
        groups,
        resource: resource_attributes(&collector::resource(&resource)),
        began: nanos_now(),
        reached: Reached::new("metrics", &collector.endpoint),
    };
    let mut ticks = tokio::time::interval(collector.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let over = tokio::select! {
            _ = ticks.tick() => false,
            () = stop.cancelled() => true,
        };
        pusher.push().await;
        if over {
            return;
        }
    }
}

struct Pusher {
    link: Link,
    groups: Vec<Group>,
    resource: Vec<KeyValue>,
    /// Since when counters count, in nanoseconds since 1970.
    began: u64,
    reached: Reached,
}

impl Pusher {
    async fn push(&mut self) {
        let readings = telemetry::gather(&self.groups);
        let request = request(&readings, &self.resource, self.began, nanos_now());
        let push = async |channel| MetricsServiceClient::new(channel).export(with_headers(request)).await;
        let pushed = self.link.push(push).await;
        self.reached.note(pushed.map(drop).map_err(|status| reason(&status)));
    }
}

fn connectable(address: &str) -> Result<Endpoint, BadCollector> {
    let endpoint = collector::endpoint(address)?;
    match collector::tls(address)? {
        Some(tls) => endpoint.tls_config(tls).map_err(|e| BadCollector::new(address, e)),
        None => Ok(endpoint),
    }
}

fn resource_attributes(resource: &opentelemetry_sdk::Resource) -> Vec<KeyValue> {
    resource.iter().map(|(key, value)| text(key.to_string(), value.to_string())).collect()
}

fn text(key: String, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key, value, ..KeyValue::default() }
}

/// One message with all of them.
fn request(readings: &[Reading], resource: &[KeyValue], began: u64, now: u64) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope { name: "quorate".into(), ..InstrumentationScope::default() };
    // A metric without a point at the moment has nothing to say.
    let said = readings.iter().filter(|reading| !reading.points.is_empty());
    let metrics = said.map(|reading| metric(reading, began, now)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource.to_vec(), ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    }
}

fn metric(reading: &Reading, began: u64, now: u64) -> Metric {
    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
    let points = &reading.points;
    let numbers = || points.iter().filter_map(|point| number(point, began, now)).collect();
    let data = match reading.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Kind::UpDown => metric::Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: false,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: points.iter().filter_map(|point| distribution(point, began, now)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    Metric {
        name: reading.definition.name.into(),
        description: reading.definition.help.into(),
        unit: reading.definition.unit.ucum().into(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn number(point: &Point, began: u64, now: u64) -> Option<NumberDataPoint> {
    let Value::Number(number) = point.value else { return None };
    Some(NumberDataPoint {
        attributes: attributes(&point.labels),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(number)),
        ..NumberDataPoint::default()
    })
}

fn distribution(point: &Point, began: u64, now: u64) -> Option<HistogramDataPoint> {
    let Value::Distribution(Distribution { bounds, counts, sum, exemplars }) = &point.value else {
        return None;
    };
    Some(HistogramDataPoint {
        attributes: attributes(&point.labels),
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: counts.iter().sum(),
        sum: Some(*sum),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.clone(),
        exemplars: exemplars.iter().map(exemplar).collect(),
        ..HistogramDataPoint::default()
    })
}

fn exemplar(exemplar: &telemetry::Exemplar) -> Exemplar {
    Exemplar {
        time_unix_nano: exemplar.at,
        span_id: exemplar.span.span_id().into(),
        trace_id: exemplar.span.trace_id().into(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..Exemplar::default()
    }
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(attribute_name(name, false), value.clone())).collect()
}

fn nanos_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
