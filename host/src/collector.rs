//! The way to an OpenTelemetry collector, for all that is pushed there.

use std::{error::Error as _, time::Duration};

use tokio::time::Instant;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// A way to a collector that may be away, or slow, or behind something that has forgotten the connection.
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

/// Says when a collector goes and when it comes back.
#[derive(Debug)]
pub(crate) struct Reached {
    what: &'static str,
    endpoint: String,
    /// What was said last, and when.
    said: Option<(bool, Instant)>,
}

impl Reached {
    pub(crate) fn new(what: &'static str, endpoint: &str) -> Reached {
        Reached { what, endpoint: endpoint.to_owned(), said: None }
    }

    /// To be told of each push.
    pub(crate) fn note<T>(&mut self, pushed: Result<T, Status>) {
        if !self.is_news(pushed.is_ok()) {
            return;
        }
        let (what, endpoint) = (self.what, &self.endpoint);
        match pushed {
            Ok(_) => tracing::info!(endpoint, "pushing {what}"),
            Err(status) => tracing::warn!(
                endpoint,
                "cannot push {what}: {}; check the address, and that a collector takes OTLP/gRPC there. Goes on trying",
                reason(&status)
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

/// What a status says, with what is behind it, in few words.
fn reason(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut behind = status.source();
    while let Some(error) = behind {
        text += &format!(": {error}");
        behind = error.source();
    }
    match text.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => text[..end].to_owned() + "...",
        None => text,
    }
}

/// Characters of it.
const WORDS_MAX: usize = 256;
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
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut link = Link::new(Endpoint::from_shared(format!("http://{nobody}")).unwrap());
        let call = async |channel| {
            MetricsServiceClient::new(channel).export(ExportMetricsServiceRequest::default()).await
        };
        let said = reason(&link.push(call).await.unwrap_err());
        assert!(said.starts_with("Unavailable: ") && said.contains("refused"), "{said}");
        assert!(!said.contains('{') && !said.contains("ConnectError("), "{said}");
        assert_eq!(reason(&Status::internal("x".repeat(9_999))).chars().count(), WORDS_MAX + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn not_every_change_is_told() {
        let mut reached = Reached::new("x", "y");
        assert!(reached.is_news(false));
        assert!(!reached.is_news(false) && !reached.is_news(true), "just said");
        tokio::time::advance(SAY_AGAIN).await;
        assert!(!reached.is_news(false), "nothing has changed");
        assert!(reached.is_news(true) && !reached.is_news(false));
        tokio::time::advance(SAY_AGAIN).await;
        assert!(reached.is_news(false));
    }
}
