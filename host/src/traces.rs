//! Spans by OTLP/gRPC: the way from [`telemetry::trace`] to a collector.

mod wire;

use std::{mem, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use telemetry::trace::{Record, Recorder};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};

use crate::{
    collector::{Link, Reached},
    otlp::attributes,
};

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
        let address = Endpoint::from_shared(endpoint.to_owned()).map_err(|e| bad(e.to_string()))?;
        if address.uri().host().is_none() || address.uri().scheme().is_none() {
            return Err(bad("it names no host".to_owned()));
        }
        if address.uri().scheme_str() != Some("http") {
            return Err(bad(
                "only http, without TLS, is spoken: for TLS run a collector beside this process".to_owned(),
            ));
        }
        let resource = Resource { attributes: attributes(resource, true), ..Resource::default() };
        let stop = CancellationToken::new();
        let pusher = Pusher {
            link: Link::new(address),
            recorder: Recorder::install(CAPACITY),
            resource: resource.encode_to_vec(),
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
    link: Link,
    recorder: &'static Recorder,
    /// Encoded.
    resource: Vec<u8>,
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
        self.dropped += dropped;
        if records.is_empty() {
            return;
        }
        let mut records = records.into_iter();
        let mut refused = None;
        while records.len() > 0 {
            let batch: Vec<Record> = records.by_ref().take(BATCH).collect();
            let request = wire::request(&self.resource, &batch);
            let Err(status) = self.link.push(|channel| export(channel, request)).await else { continue };
            self.dropped += batch.len() as u64;
            let away = AWAY.contains(&status.code());
            refused.get_or_insert(status);
            if away {
                // Neither would the rest arrive.
                self.dropped += records.len() as u64;
                break;
            }
        }
        self.reached.note(refused.map_or(Ok(()), Err));
    }
}

async fn export(channel: Channel, request: Bytes) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(wire::PATH);
    client.unary(Request::new(request), path, wire::Encoded).await.map(|_| ())
}

/// Spans that wait; further ones are dropped.
const CAPACITY: usize = 32_768;
/// Spans of one message. To encode it takes a worker of the runtime a fraction of a millisecond.
const BATCH: usize = 512;
/// What a push ends with if there is no collector. Anything else is about this one push.
const AWAY: [Code; 3] = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
/// Between two pushes.
const DELAY: Duration = Duration::from_millis(500);
/// Between two lines about dropped spans.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// A collector that is not there must not hold up the end.
const LAST_PUSH_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused() {
        for bad in ["", "127.0.0.1:4317", "collector", "http://", "http://a b", "https://127.0.0.1:4317"] {
            let error = Traces::start(bad, &[]).unwrap_err().to_string();
            assert!(error.contains("expected an address such as http://127.0.0.1:4317"), "{bad}: {error}");
        }
    }
}
