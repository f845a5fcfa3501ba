//! `quorate.internal.v1.StorePort`: the port of this store for edges in other processes.

use std::{sync::Arc, time::Duration};

use api::{
    EnsembleId, OpError, WriteNumber,
    ports::{Coordination, Requests},
};
use proto::{
    Malformed, PEER_MESSAGE_MAX,
    client::{MESSAGE_MAX, to_status},
    edge::{answer_to_wire, caller, check_edge, open, request},
    internal::{self, edge_message::Kind, store_port_server::StorePort},
    streams::{Messages, Method},
    v1,
};
use tokio::{sync::watch, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::session::Answers;

/// Implements [`proto::internal::store_port_server::StorePortServer`] on the store behind `C`.
#[derive(Clone)]
pub struct PortService<C> {
    store: C,
    /// The name of the ensemble.
    name: Arc<str>,
    /// Its id, as far as the store knows.
    ensemble: watch::Receiver<Option<EnsembleId>>,
    /// Reads the streams.
    tasks: TaskTracker,
}

impl<C: Coordination> PortService<C> {
    pub(crate) fn new(
        store: C,
        name: &str,
        ensemble: watch::Receiver<Option<EnsembleId>>,
        tasks: TaskTracker,
    ) -> PortService<C> {
        PortService { store, name: name.into(), ensemble, tasks }
    }

    fn admit(&self, hello: Option<proto::peer::Hello>) -> Result<(), Status> {
        let expected = check_edge(hello, &self.name).map_err(refused)?;
        match (expected, *self.ensemble.borrow()) {
            (Some(expected), Some(actual)) if expected != actual => {
                Err(to_status(&OpError::WrongEnsemble { expected, actual }))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl<C: Coordination> StorePort for PortService<C> {
    type SessionStream = Answers<C::Items>;

    // Nodes serve it with `PortSessions` instead.
    async fn session(
        &self,
        request: Request<Streaming<internal::EdgeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.begin_session(request.into_inner()).await
    }

    async fn call(
        &self,
        call: Request<internal::EdgeCall>,
    ) -> Result<Response<internal::EdgeAnswer>, Status> {
        let internal::EdgeCall { hello, caller: from, request: asked } = call.into_inner();
        self.admit(hello)?;
        let caller = caller(from).map_err(refused)?;
        let asked = request(asked.unwrap_or_default()).map_err(refused)?;
        let answered = self.store.call(caller, asked).await;
        let (answer, held) = answered.map_err(|e| to_status(&e))?;
        let mut response = Response::new(answer_to_wire(answer));
        response.extensions_mut().insert(held);
        Ok(response)
    }
}

impl<C: Coordination> PortService<C> {
    async fn begin_session(&self, mut inbound: impl Inbound) -> Result<Response<Answers<C::Items>>, Status> {
        let first = timeout(BEGIN_WITHIN, inbound.next()).await.map_err(|_| {
            Status::deadline_exceeded(format!(
                "an edge begins with a Begin, and none came within {BEGIN_WITHIN:?}"
            ))
        })?;
        let Some(Kind::Begin(begin)) = first.transpose()?.and_then(|message| message.kind) else {
            return Err(Status::invalid_argument("an edge begins with a Begin"));
        };
        self.admit(begin.hello)?;
        let caller = caller(begin.caller).map_err(refused)?;
        let open = open(begin.open.unwrap_or_default()).map_err(refused)?;
        let (requests, items) = self.store.stream(caller);
        self.tasks.spawn(read(requests, open, inbound));
        Ok(Response::new(Answers::new(items)))
    }
}

/// The messages of an edge.
trait Inbound: Stream<Item = Result<internal::EdgeMessage, Status>> + Send + Unpin + 'static {}

impl<S: Stream<Item = Result<internal::EdgeMessage, Status>> + Send + Unpin + 'static> Inbound for S {}

/// The session streams of a [`PortService`], without memory between their messages.
pub struct PortSessions<C>(pub PortService<C>);

impl<C: Coordination> Method for PortSessions<C> {
    const PATH: &'static str = "/quorate.internal.v1.StorePort/Session";
    const REQUEST_MAX: usize = PEER_MESSAGE_MAX;
    const ANSWER_MAX: usize = MESSAGE_MAX;
    type Request = internal::EdgeMessage;
    type Answer = v1::SessionResponse;
    type Answers = Answers<C::Items>;

    async fn begin(
        &self,
        request: Request<Messages<internal::EdgeMessage>>,
    ) -> Result<Response<Self::Answers>, Status> {
        self.0.begin_session(request.into_inner()).await
    }
}

/// Reads the requests of an edge until the stream ends.
async fn read<R: Requests>(mut requests: R, open: api::session::Open, mut inbound: impl Inbound) {
    let end = pass_on(&mut requests, open, &mut inbound).await;
    requests.end(end);
}

async fn pass_on<R: Requests>(
    requests: &mut R,
    open: api::session::Open,
    inbound: &mut impl Inbound,
) -> Result<(), OpError> {
    requests.open(open).await?;
    loop {
        let message = tokio::select! {
            message = inbound.next() => message,
            () = requests.over() => return Ok(()),
        };
        // The edge is gone, and its client with it.
        let Some(Ok(internal::EdgeMessage { kind: Some(kind) })) = message else { return Ok(()) };
        match kind {
            Kind::Requests(batch) => {
                let asked: Result<Vec<_>, _> = batch.requests.into_iter().map(request).collect();
                let asked = asked.map_err(|e| OpError::Internal(format!("the edge sent a {e}")))?;
                requests.submit(WriteNumber(batch.acked_write), asked).await?;
            }
            Kind::End(internal::End { why: None }) => return Ok(()),
            Kind::End(internal::End { why: Some(why) }) => return Err(why.into()),
            Kind::Begin(_) => return Err(OpError::Internal("the edge began twice".into())),
        }
    }
}

fn refused(Malformed(why): Malformed) -> Status {
    Status::failed_precondition(why)
}

/// Timeout for the first message of an edge.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
