//! A collector that counts spans: prints its address, and how many came when that has changed. For `bench/tracing`.

use std::{
    error::Error,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use host::listen::{self, Listener};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

static SPANS: AtomicU64 = AtomicU64::new(0);

struct Counter;

#[tonic::async_trait]
impl TraceService for Counter {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|spans| &spans.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        SPANS.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::bind("collector", SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("http://{}", listener.address());
    let routes = Routes::new(TraceServiceServer::new(Counter));
    tokio::spawn(listen::serve(listener, routes, 100, CancellationToken::new(), Duration::ZERO));
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = SPANS.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) != now {
            println!("{now} spans");
        }
    }
}
