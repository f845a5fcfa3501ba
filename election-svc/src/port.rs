use std::pin::Pin;
use std::sync::Arc;

use api::PeerId;
use api::ports::{Election as _, PortClosed};
use proto::internal::{self, election_port_server::ElectionPort};
use proto::ports::{ElectionCall, check_neighbour};
use proto::quorum::Hello;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::Handle;
use crate::link::{HANDSHAKE, Shared};

/// The gRPC service for this node's quorum, if that runs in a process of its own.
#[derive(Clone, Debug)]
pub struct PortServer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Handle,
    /// The newest quorum.
    pub(crate) quorum: Arc<Mutex<Option<Linked>>>,
    /// Whether a quorum is linked.
    pub(crate) present: watch::Sender<bool>,
}

/// The stream of one quorum, and the task that serves it.
#[derive(Debug)]
pub(crate) struct Linked {
    replaced: CancellationToken,
    task: JoinHandle<()>,
}

#[tonic::async_trait]
impl ElectionPort for PortServer {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<internal::ElectionAnswer, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<internal::ElectionCall>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut calls = request.into_inner();
        let first = timeout(HANDSHAKE, calls.message()).await.map_err(|_| {
            Status::deadline_exceeded("a stream between services begins with a Hello; none came")
        })??;
        let hello = match first.map(ElectionCall::try_from) {
            Some(Ok(ElectionCall::Hello(hello))) => Some(hello),
            _ => None,
        };
        let me = self.shared.me;
        let (name, standing) = {
            let greeting = self.shared.greeting.borrow();
            (greeting.name.clone(), greeting.standing)
        };
        check_neighbour(hello, &name, me, &standing).map_err(|e| {
            tracing::warn!(reason = %e, "refused a quorum service");
            Status::failed_precondition(e.0)
        })?;
        let (answers, stream) = mpsc::channel(ANSWERS);
        let hello = internal::election_answer::Kind::Hello(Hello::to_wire(&name, me, standing));
        // The channel is empty, so there is room.
        let _ = answers.try_send(Ok(internal::ElectionAnswer { kind: Some(hello) }));

        let mut newest = self.quorum.lock().await;
        if let Some(older) = newest.take() {
            older.replaced.cancel();
            // This orders its last message before the first of the new stream. An error means that the
            // task has panicked and is gone.
            let _ = older.task.await;
        }
        let replaced = CancellationToken::new();
        let (handle, present) = (self.handle.clone(), self.present.clone());
        let quorum = QuorumLink { handle, calls, answers, replaced: replaced.clone(), present };
        let shutdown = self.shared.shutdown.clone();
        let task = self.shared.tasks.spawn(async move {
            shutdown.run_until_cancelled(quorum.run()).await;
        });
        *newest = Some(Linked { replaced, task });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// A quorum that has introduced itself.
struct QuorumLink {
    handle: Handle,
    calls: Streaming<internal::ElectionCall>,
    answers: mpsc::Sender<Result<internal::ElectionAnswer, Status>>,
    replaced: CancellationToken,
    present: watch::Sender<bool>,
}

impl QuorumLink {
    async fn run(self) {
        let QuorumLink { handle, calls, answers, replaced, present } = self;
        present.send_replace(true);
        let why = tokio::select! {
            why = serve(&handle, calls, &answers) => why,
            () = replaced.cancelled() => Status::aborted("another quorum has taken this one's place"),
        };
        tracing::info!(reason = why.message(), "link to the quorum service ended");
        // The receiver may be gone.
        let _ = answers.try_send(Err(why));
        if !replaced.is_cancelled() {
            // Without its quorum this server neither leads nor follows. If it still counted, others
            // could elect a leader with too few followers, which notices that only after `init_limit`.
            let _ = handle.withdraw().await;
            present.send_replace(false);
        }
    }
}

async fn serve(
    handle: &Handle,
    mut calls: Streaming<internal::ElectionCall>,
    answers: &mpsc::Sender<Result<internal::ElectionAnswer, Status>>,
) -> Status {
    let mut search: Option<Search> = None;
    loop {
        let elected = async {
            match &mut search {
                Some(search) => (search.number, search.elected.as_mut().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            call = calls.message() => match call.map(|call| call.map(ElectionCall::try_from)) {
                Ok(Some(Ok(ElectionCall::Elect { number, candidate }))) => {
                    let handle = handle.clone();
                    let elected = Box::pin(async move { handle.elect(candidate).await });
                    search = Some(Search { number, elected });
                }
                Ok(Some(Ok(ElectionCall::Settled { leader, epoch }))) => {
                    search = None;
                    if handle.settled(leader, epoch).await.is_err() {
                        return stopping();
                    }
                }
                Ok(Some(Ok(ElectionCall::Introduce(standing, roster)))) => {
                    if handle.introduce(standing, roster).await.is_err() {
                        return stopping();
                    }
                }
                Ok(Some(Ok(ElectionCall::Hello(_)))) => {}
                Ok(Some(Err(malformed))) => return Status::invalid_argument(malformed.to_string()),
                Ok(None) => return Status::cancelled("closed by the quorum"),
                Err(status) => return status,
            },
            (number, leader) = elected => {
                search = None;
                let Ok(leader) = leader else { return stopping() };
                let kind = internal::election_answer::Kind::Elected(internal::Elected { number, leader: leader.0 });
                if answers.send(Ok(internal::ElectionAnswer { kind: Some(kind) })).await.is_err() {
                    return Status::cancelled("closed by the quorum");
                }
            }
        }
    }
}

/// An undecided election.
struct Search {
    number: u64,
    elected: Pin<Box<dyn Future<Output = Result<PeerId, PortClosed>> + Send>>,
}

fn stopping() -> Status {
    Status::unavailable("the election service is stopping")
}

/// Answers between the link's task and its stream.
const ANSWERS: usize = 4;
