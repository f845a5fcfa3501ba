use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use api::{Greeting, PeerId};
use election_shell::Redial;
use proto::election::ElectionFrame;
use proto::peer::ElectionMessage;
use proto::peer::election_client::ElectionClient;
use proto::quorum::Hello;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::link::{HANDSHAKE, MESSAGE_MAX, OUTGOING, Shared};

/// Keeps a link to one peer of smaller id. Each peer has a dialer of its own, so a dead host delays no other.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: PeerId,
    pub(crate) endpoint: Endpoint,
}

/// The reason why there is no link.
enum DialError {
    /// No server answers at present.
    Unreachable(String),
    /// A server answers, and refuses this server until an operator changes the configuration.
    Refused(String),
}

impl Dialer {
    /// Dials, and dials again after each end of the link, until the service stops.
    pub(crate) async fn run(self) {
        let shutdown = self.shared.shutdown.clone();
        shutdown.run_until_cancelled(self.keep_linked()).await;
    }

    async fn keep_linked(&self) {
        let mut redial = Redial::default();
        loop {
            let began = Instant::now();
            match self.dial().await {
                Ok((greeting, incoming, outgoing)) => {
                    self.shared.carry(greeting, incoming, outgoing).await;
                }
                Err(error) => self.complain(error),
            }
            sleep(redial.pause(began.elapsed(), jitter)).await;
        }
    }

    /// Connects, opens the stream, and lets both sides introduce themselves.
    async fn dial(
        &self,
    ) -> Result<(Greeting, Streaming<ElectionMessage>, mpsc::Sender<ElectionMessage>), DialError> {
        let no_answer =
            |what| move |_| DialError::Unreachable(format!("no answer to {what} within {HANDSHAKE:?}"));
        let endpoint = self.endpoint.clone().tcp_nodelay(true);
        let channel = timeout(HANDSHAKE, self.shared.dialer.connect(&endpoint, self.peer))
            .await
            .map_err(no_answer("a connection"))?
            .map_err(|e| DialError::Unreachable(root_cause(&e)))?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        // The channel is empty, so there is room.
        let _ = outgoing.try_send(self.shared.hello());
        let mut client = ElectionClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let mut incoming = timeout(HANDSHAKE, client.exchange(ReceiverStream::new(messages)))
            .await
            .map_err(no_answer("a stream"))?
            .map_err(refused)?
            .into_inner();
        let introduced =
            timeout(HANDSHAKE, incoming.message()).await.map_err(no_answer("a Hello"))?.map_err(refused)?;
        let hello = match introduced.map(ElectionFrame::try_from) {
            Some(Ok(ElectionFrame::Hello(hello))) => hello,
            _ => return Err(DialError::Refused("the peer does not begin with a Hello".into())),
        };
        let checked = Hello::check(hello, &self.shared.greeting.borrow(), Some(self.peer));
        Ok((checked.map_err(|e| DialError::Refused(e.0))?, incoming, outgoing))
    }

    fn complain(&self, error: DialError) {
        let peer = self.peer;
        let address = self.endpoint.uri().authority().map(ToString::to_string).unwrap_or_default();
        match error {
            DialError::Refused(why) => {
                if self.shared.complaints.is_new(peer, &why) {
                    tracing::warn!(%peer, address, reason = why, "election link refused");
                }
            }
            DialError::Unreachable(why) => {
                if self.shared.complaints.is_new(peer, &format!("{peer} is unreachable")) {
                    tracing::info!(%peer, address, reason = why, "election peer unreachable; retrying");
                }
            }
        }
    }
}

fn refused(status: Status) -> DialError {
    match status.code() {
        Code::FailedPrecondition | Code::AlreadyExists | Code::InvalidArgument | Code::Unimplemented => {
            DialError::Refused(status.message().to_owned())
        }
        _ => DialError::Unreachable(status.message().to_owned()),
    }
}

/// The system's error: tonic's own text is "transport error".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A random time up to `most`, so that servers that lost each other at one moment do not dial at one
/// moment. The keys of the standard library's hash are the only random numbers needed here.
fn jitter(most: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1_000;
    most * u32::try_from(random).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_varies_within_its_bound() {
        let most = Duration::from_millis(500);
        let tries: std::collections::BTreeSet<Duration> = (0..100).map(|_| jitter(most)).collect();
        assert!(tries.len() > 10);
        assert!(tries.iter().all(|&j| j < most));
    }
}
