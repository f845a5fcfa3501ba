use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};
use telemetry::metrics;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, service::Routes};

use super::*;
use crate::listen::{self, Bounds, Listener};

/// A collector that hands on what it gets.
struct Receiver(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Serves a collector on this port, 0 for any.
async fn collector(
    port: u16,
) -> (SocketAddr, mpsc::UnboundedReceiver<ExportMetricsServiceRequest>, CancellationToken) {
    let (sender, received) = mpsc::unbounded_channel();
    let listener = Listener::bind("test", SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let routes = Routes::new(MetricsServiceServer::new(Receiver(sender)));
    tokio::spawn(listen::serve(listener, routes, Bounds::neighbours(), stop.clone(), Duration::ZERO));
    (address, received, stop)
}

fn find<'a>(request: &'a ExportMetricsServiceRequest, name: &str) -> &'a Metric {
    let scope = &request.resource_metrics[0].scope_metrics[0];
    scope.metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test]
async fn what_prometheus_would_scrape_is_pushed_and_once_more_at_the_end() {
    let (address, mut received, _stop) = collector(0).await;
    metrics::SYNC_IO.at(telemetry::Mode::Snap).add(77);
    metrics::SNAPSHOT_DURATION.record_n(Duration::from_millis(20), 3);
    let to = Collector { endpoint: format!("http://{address}"), interval: Duration::from_secs(3600) };
    let stop = CancellationToken::new();
    let resource = resource("quorate", "orders", "2", "1.0");
    let pushing = tokio::spawn(push(to, vec![Group::Quorum, Group::Process], resource, stop.clone()));

    let request = received.recv().await.unwrap();
    let about = &request.resource_metrics[0].resource.as_ref().unwrap().attributes;
    let mut about: Vec<&str> = about.iter().map(|attribute| attribute.key.as_str()).collect();
    about.sort_unstable();
    assert_eq!(about, ["service.instance.id", "service.name", "service.namespace", "service.version"]);

    let io = find(&request, "quorate.sync.io");
    assert_eq!(io.unit, "By");
    let Some(metric::Data::Sum(sum)) = &io.data else { panic!("{io:?}") };
    assert!(sum.is_monotonic);
    let values: Vec<_> = sum.data_points.iter().map(|p| p.value.unwrap()).collect();
    assert_eq!(values[2], number_data_point::Value::AsDouble(77.0));

    let duration = find(&request, "quorate.snapshot.duration");
    let Some(metric::Data::Histogram(histogram)) = &duration.data else { panic!("{duration:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.bucket_counts.len()), (3, point.explicit_bounds.len() + 1));
    assert!((point.sum.unwrap() - 0.06).abs() < 1e-9);

    let cpu = find(&request, "process.cpu.time");
    let Some(metric::Data::Sum(sum)) = &cpu.data else { panic!("{cpu:?}") };
    assert_eq!(sum.data_points[0].attributes[0].key, "cpu.mode");
    let memory = find(&request, "process.memory.usage");
    let Some(metric::Data::Sum(sum)) = &memory.data else { panic!("an UpDownCounter: {memory:?}") };
    assert!(!sum.is_monotonic);
    let uptime = find(&request, "process.uptime");
    assert!(matches!(&uptime.data, Some(metric::Data::Gauge(_))), "{uptime:?}");
    let named =
        |name: &str| request.resource_metrics[0].scope_metrics[0].metrics.iter().any(|m| m.name == name);
    assert!(!named("quorate.znodes"), "of a group that this process does not have");

    stop.cancel();
    pushing.await.unwrap();
    assert!(received.recv().await.is_some(), "the last numbers");
}

#[tokio::test]
async fn a_collector_that_comes_late_gets_what_comes_later() {
    let (address, _, gone) = collector(0).await;
    gone.cancel();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let to = Collector { endpoint: format!("http://{address}"), interval: Duration::from_millis(100) };
    let stop = CancellationToken::new();
    tokio::spawn(push(to, vec![Group::Process], Vec::new(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(250)).await;
    let (_, mut received, _stop) = collector(address.port()).await;
    let arrived = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
    assert!(arrived.unwrap().is_some());
    stop.cancel();
}
