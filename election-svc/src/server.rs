use std::pin::Pin;
use std::sync::Arc;

use api::{Greeting, PeerId};
use proto::election::ElectionFrame;
use proto::peer::{ElectionMessage, election_server::Election};
use proto::quorum::Hello;
use tls::Caller;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::link::{HANDSHAKE, OUTGOING, Shared};

/// The gRPC service of the election port. It accepts the streams that larger ids open.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Election for Server {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<ElectionMessage, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ElectionMessage>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let from = request.remote_addr();
        let caller = Caller::of(&request)?;
        let mut incoming = request.into_inner();
        if self.shared.shutdown.is_cancelled() {
            return Err(Status::unavailable("this server is stopping"));
        }
        let introduced = timeout(HANDSHAKE, incoming.message()).await.map_err(|_| {
            Status::deadline_exceeded("a stream between servers begins with a Hello; none came")
        })??;
        let greeting = self.admit(introduced, &caller).inspect_err(|refusal| {
            if self.shared.complaints.is_new(self.shared.me, refusal.message()) {
                let from = from.map(|address| address.to_string()).unwrap_or_default();
                tracing::warn!(from, reason = refusal.message(), "refused an election stream");
            }
        })?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        // The channel is empty, so there is room.
        let _ = outgoing.try_send(self.shared.hello());
        let shared = self.shared.clone();
        let peer = greeting.id;
        self.shared.tasks.spawn(async move { shared.carry(greeting, incoming, outgoing).await });
        let mut answer: Response<Self::ExchangeStream> =
            Response::new(Box::pin(ReceiverStream::new(messages).map(Ok)));
        // The listener reserves a connection slot for this peer.
        answer.extensions_mut().insert(peer);
        Ok(answer)
    }
}

impl Server {
    /// The greeting of the server that opened the stream, or the reason to refuse it. Its certificate
    /// has to name it.
    fn admit(&self, introduced: Option<ElectionMessage>, caller: &Caller) -> Result<Greeting, Status> {
        let Shared { me, greeting, .. } = &*self.shared;
        let hello = match introduced.map(ElectionFrame::try_from) {
            Some(Ok(ElectionFrame::Hello(hello))) => hello,
            _ => return Err(Status::invalid_argument("a stream between servers begins with a Hello")),
        };
        caller.check_member(PeerId(hello.id)).map_err(Status::failed_precondition)?;
        let theirs = Hello::check(hello, &greeting.borrow(), None);
        let theirs = theirs.map_err(|e| Status::failed_precondition(e.0))?;
        let peer = theirs.id;
        if !election_core::dials(peer, *me) {
            return Err(Status::failed_precondition(format!(
                "of two servers the one with the larger id dials: {me} dials {peer}, not the reverse"
            )));
        }
        Ok(theirs)
    }
}
