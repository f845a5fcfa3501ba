//! A program whose requests to Quorate belong to its own traces.
//!
//! ```text
//! quorate up                                                   # in one terminal
//! docker run --rm -p 16686:16686 -p 4317:4317 jaegertracing/jaeger
//! cargo run -p client-sdk --example traced -- 127.0.0.1:12188 http://127.0.0.1:4317
//! ```

use client_sdk::{Client, CreateMode, Options};
use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let node = args.next().unwrap_or_else(|| "127.0.0.1:12188".into());
    let collector = args.next().unwrap_or_else(|| "http://127.0.0.1:4317".into());

    let exporter = SpanExporter::builder().with_tonic().with_endpoint(collector).build()?;
    let resource = Resource::builder().with_service_name("traced").build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    // The client finds the provider here, and the current span of `tracing` by the layer.
    global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("traced"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;

    let client = Client::connect([node], Options::default()).await?;
    async {
        let mode = CreateMode { sequential: true, ..CreateMode::default() };
        let (path, _) = client.create("/traced-", "hello", mode).await?;
        client.get(path.as_str()).await
    }
    .instrument(tracing::info_span!("work"))
    .await?;
    client.close().await?;
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}
