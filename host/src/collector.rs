//! The connection to an OpenTelemetry collector, which all exporters share.

use std::{
    env,
    error::Error as _,
    fmt::Display,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::EnvResourceDetector};
use tokio::time::Instant;
use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// A collector that nothing can be exported to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "nothing can be exported to {endpoint:?}: {why}; expected an address such as http://127.0.0.1:4317, or https://..."
)]
pub struct BadCollector {
    /// As given.
    endpoint: String,
    why: String,
}

impl BadCollector {
    pub(crate) fn new(endpoint: &str, why: impl Display) -> BadCollector {
        BadCollector { endpoint: endpoint.to_owned(), why: why.to_string() }
    }
}

/// Checks an address, and that this build supports the protocol of `OTEL_EXPORTER_OTLP_PROTOCOL`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, BadCollector> {
    let bad = |why: String| BadCollector::new(address, why);
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|e| bad(e.to_string()))?;
    if endpoint.uri().host().is_none() || !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
        return Err(bad("it is not the address of a host".to_owned()));
    }
    match env::var(PROTOCOL) {
        Ok(other) if !other.is_empty() && other != "grpc" => Err(bad(format!(
            "{PROTOCOL} is {other:?}, and this program exports by grpc only; unset it, and name the collector's port for \
             OTLP/gRPC (usually 4317)"
        ))),
        _ => Ok(endpoint),
    }
}

/// TLS for an `https` address: trusts the certificate authorities in the file that `OTEL_EXPORTER_OTLP_CERTIFICATE` names, and
/// those of Mozilla's list without it.
pub(crate) fn tls(address: &str) -> Result<Option<ClientTlsConfig>, BadCollector> {
    if !address.starts_with("https://") {
        return Ok(None);
    }
    let tls = ClientTlsConfig::new();
    let Some(file) = env::var_os(CERTIFICATE).filter(|file| !file.is_empty()) else {
        return Ok(Some(tls.with_webpki_roots()));
    };
    let pem = std::fs::read(&file).map_err(|e| {
        BadCollector::new(address, format!("{CERTIFICATE} names {file:?}, which cannot be read: {e}"))
    })?;
    Ok(Some(tls.ca_certificate(Certificate::from_pem(pem))))
}

/// Labels have underscores, as Prometheus wants them; where the conventions have dots, so does OTLP.
pub(crate) fn attribute_name(label: &str, all_dots: bool) -> String {
    match label {
        "service_instance_id" => "service.instance.id".to_owned(),
        "cpu_mode" => "cpu.mode".to_owned(),
        "rpc_system_name" => "rpc.system.name".to_owned(),
        "rpc_method" => "rpc.method".to_owned(),
        "rpc_response_status_code" => "rpc.response.status_code".to_owned(),
        label if all_dots => label.replace('_', "."),
        label => label.to_owned(),
    }
}

/// The resource of this process for OTLP: that of [`crate::otlp::resource`], overridden by
/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
pub(crate) fn resource(ours: &[(&'static str, String)]) -> Resource {
    let ours = ours.iter().map(|(name, value)| KeyValue::new(attribute_name(name, true), value.clone()));
    let builder = Resource::builder_empty().with_attributes(ours);
    let builder = builder.with_detector(Box::new(EnvResourceDetector::new()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => builder.with_service_name(name).build(),
        _ => builder.build(),
    }
}

/// Adds the headers of `OTEL_EXPORTER_OTLP_HEADERS` (`name=value,name=value`, values percent-encoded) to a request.
pub(crate) fn with_headers<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    for header in env::var(HEADERS).unwrap_or_default().split(',') {
        let Some((name, value)) = header.split_once('=') else { continue };
        let decoded = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy();
        // A malformed header is left out, as in the SDK.
        let name = MetadataKey::from_bytes(name.trim().as_bytes());
        if let (Ok(name), Ok(value)) = (name, MetadataValue::try_from(decoded.as_ref())) {
            request.metadata_mut().insert(name, value);
        }
    }
    request
}

const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// The connection to a collector, which may be away, slow, or behind a proxy that has forgotten the
/// connection.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    channel: Channel,
    limit: Duration,
}

impl Link {
    /// It connects when there is something to push. Within a tokio runtime.
    pub(crate) fn new(endpoint: Endpoint) -> Link {
        let endpoint = endpoint.connect_timeout(CONNECT_WITHIN);
        Link { channel: endpoint.connect_lazy(), endpoint, limit: PUSH_WITHIN }
    }

    /// Pushes once. The time counts until all of the answer is there; that of an [`Endpoint`] would end with its headers.
    /// After a push that took too long the next one takes a connection of its own, for TCP may need a quarter of an hour to
    /// find out that the other end has gone.
    pub(crate) async fn push<T, F>(&mut self, push: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        if let Ok(pushed) = tokio::time::timeout(self.limit, push(self.channel.clone())).await {
            return pushed;
        }
        self.channel = self.endpoint.connect_lazy();
        Err(Status::deadline_exceeded(format!("no answer within {:?}", self.limit)))
    }
}

/// Reports in the log when a collector goes and when it comes back.
#[derive(Debug)]
pub(crate) struct Reached {
    what: &'static str,
    endpoint: String,
    /// The last report, and when.
    said: Option<(bool, Instant)>,
}

impl Reached {
    pub(crate) fn new(what: &'static str, endpoint: &str) -> Reached {
        Reached { what, endpoint: endpoint.to_owned(), said: None }
    }

    /// For an exporter that is shared with the SDK's thread.
    pub(crate) fn shared(what: &'static str, endpoint: &str) -> Arc<Mutex<Reached>> {
        Arc::new(Mutex::new(Reached::new(what, endpoint)))
    }

    /// Takes note of each export: `Err` has the reason why it failed.
    pub(crate) fn note(&mut self, exported: Result<(), String>) {
        if !self.is_news(exported.is_ok()) {
            return;
        }
        let (what, endpoint) = (self.what, &self.endpoint);
        match exported {
            Ok(()) => tracing::info!(endpoint, what, "exporting to the collector"),
            Err(reason) => tracing::warn!(
                endpoint,
                what,
                reason = shortened(reason),
                "cannot export to the collector; check its address, and that it takes OTLP/gRPC there; retrying"
            ),
        }
    }

    /// Of a collector that takes one push and refuses the next, not every change is.
    fn is_news(&mut self, reached: bool) -> bool {
        let news = self.said.is_none_or(|(said, at)| said != reached && at.elapsed() >= SAY_AGAIN);
        if news {
            self.said = Some((reached, Instant::now()));
        }
        news
    }
}

/// The message of a status and of its causes.
pub(crate) fn reason(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut behind = status.source();
    while let Some(error) = behind {
        text += &format!(": {error}");
        behind = error.source();
    }
    text
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(REASON_MAX) {
        Some((end, _)) => text[..end].to_owned() + "...",
        None => text,
    }
}

/// Most characters of a reason in the log.
const REASON_MAX: usize = 256;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const PUSH_WITHIN: Duration = Duration::from_secs(5);
/// Between two lines.
const SAY_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
    };
    use tokio::net::TcpListener;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_push_without_an_answer_ends_and_the_next_one_connects_anew() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", silent.local_addr().unwrap())).unwrap();
        let mut link = Link { limit: Duration::from_millis(100), ..Link::new(endpoint) };
        let call = async |channel| {
            MetricsServiceClient::new(channel).export(ExportMetricsServiceRequest::default()).await
        };
        let mut held = Vec::new();
        for _ in 0..2 {
            let (pushed, accepted) = tokio::join!(link.push(call), silent.accept());
            assert_eq!(pushed.unwrap_err().code(), Code::DeadlineExceeded);
            held.push(accepted.unwrap());
        }
    }

    #[tokio::test]
    async fn a_reason_is_in_words_and_not_in_many() {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut link = Link::new(Endpoint::from_shared(format!("http://{unused}")).unwrap());
        let call = async |channel| {
            MetricsServiceClient::new(channel).export(ExportMetricsServiceRequest::default()).await
        };
        let said = reason(&link.push(call).await.unwrap_err());
        assert!(said.starts_with("Unavailable: ") && said.contains("refused"), "{said}");
        assert!(!said.contains('{') && !said.contains("ConnectError("), "{said}");
        assert_eq!(shortened("x".repeat(9_999)).chars().count(), REASON_MAX + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_reported_at_a_bounded_rate() {
        let mut reached = Reached::new("x", "y");
        assert!(reached.is_news(false));
        assert!(!reached.is_news(false) && !reached.is_news(true), "just reported");
        tokio::time::advance(SAY_AGAIN).await;
        assert!(!reached.is_news(false), "nothing has changed");
        assert!(reached.is_news(true) && !reached.is_news(false));
        tokio::time::advance(SAY_AGAIN).await;
        assert!(reached.is_news(false));
    }
}
