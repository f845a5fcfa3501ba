//! `quorate.v1.Coordination`: the unary calls and the entry point of session streams.

use api::{
    Level, OpError, PeerId, Trace,
    budget::{Held, Slot},
    ports::{Caller, Coordination},
    proof::Prover,
    session::{Op, Outcome, Request as Asked},
    walk::{WalkAsk, WalkPart},
};
use proto::{
    client::{MESSAGE_MAX, to_status, traceparent, walk, walk_part_to_wire},
    streams::{Messages, Method},
    v1::{self, coordination_server},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::{
    caller,
    session::{self, Answers, Inbound},
    watch::{self, Watching},
};

/// Implements [`proto::v1::coordination_server::CoordinationServer`] on the store behind `C`.
#[derive(Clone)]
pub struct CoordinationService<C> {
    store: C,
    node: PeerId,
    prover: Prover,
    /// Reads the streams.
    tasks: TaskTracker,
}

impl<C: Coordination> CoordinationService<C> {
    /// Serves the store of this node. A task of `tasks` reads each stream.
    pub fn new(store: C, node: PeerId, prover: Prover, tasks: TaskTracker) -> CoordinationService<C> {
        CoordinationService { store, node, prover, tasks }
    }

    fn begin_session(&self, request: Request<impl Inbound>) -> Result<Response<Answers<C::Items>>, Status> {
        let answers = session::start(&self.store, &self.tasks, &self.prover, request);
        answers.map(Response::new).map_err(|e| to_status(&e))
    }

    fn begin_watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Watching<C::Items>>, Status> {
        let stream = watch::start(&self.store, &self.tasks, &self.prover, request);
        stream.map(Response::new).map_err(|e| to_status(&e))
    }

    /// A call without a session.
    async fn call<R, W>(&self, request: Request<R>) -> Result<Response<W>, Status>
    where
        R: Into<v1::request::Op>,
        W: TryFrom<(Outcome, v1::AsOf), Error = OpError>,
    {
        let (answer, held) = self.answer(request).await.map_err(|e| to_status(&e))?;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(held);
        Ok(response)
    }

    /// A walk. Its first part is ready before the response begins; each further part is requested when
    /// the client has taken the last one.
    async fn walk_through(
        &self,
        request: Request<v1::WalkRequest>,
    ) -> Result<ReceiverStream<Result<v1::WalkResponse, Status>>, OpError> {
        let (trace, min_level) = (trace(&request), min_level(&request)?);
        let (caller, _) = caller(&request, &self.prover)?;
        let (asked, level) = walk(request.into_inner())?;
        let begin = Asked { trace, min_level, ..Asked::new(0, Op::Walk(WalkAsk::Begin(asked, level))) };
        let first = self.walk_step(caller.clone(), begin).await?;
        let (parts, stream) = mpsc::channel(1);
        let (service, caller) = (self.clone(), Caller { message: Slot::default(), ..caller });
        self.tasks.spawn(async move {
            let mut part = Ok(first);
            loop {
                let (next, answer) = match part {
                    Ok((part, held)) => {
                        let next = part.end.is_none().then_some(part.id);
                        (next.map(|id| (id, held)), Ok(walk_part_to_wire(part)))
                    }
                    Err(error) => (None, Err(to_status(&error))),
                };
                // The client is gone, or the walk has ended.
                let (Ok(()), Some((id, held))) = (parts.send(answer).await, next) else { return };
                part = service.walk_step(caller.clone(), Asked::new(0, Op::Walk(WalkAsk::Next(id)))).await;
                drop(held);
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn walk_step(&self, caller: Caller, step: Asked) -> Result<(WalkPart, Held), OpError> {
        let (response, held) = self.store.call(caller, step).await?;
        match response.result? {
            Outcome::Walked(part) => Ok((*part, held)),
            other => Err(OpError::Internal(format!("an answer of another kind: {other:?}"))),
        }
    }

    async fn answer<R, W>(&self, request: Request<R>) -> Result<(W, Held), OpError>
    where
        R: Into<v1::request::Op>,
        W: TryFrom<(Outcome, v1::AsOf), Error = OpError>,
    {
        let (trace, min_level) = (trace(&request), min_level(&request)?);
        let (caller, who) = caller(&request, &self.prover)?;
        let asked = Asked::new(0, who.op(request.into_inner())?);
        let (response, held) = self.store.call(caller, Asked { trace, min_level, ..asked }).await?;
        let as_of = v1::AsOf { zxid: response.zxid.0, leaderless: response.leaderless, node_id: self.node.0 };
        Ok(((response.result?, as_of).try_into()?, held))
    }
}

/// The session streams of a [`CoordinationService`], without memory between their messages.
pub struct Sessions<C>(pub CoordinationService<C>);

impl<C: Coordination> Method for Sessions<C> {
    const PATH: &'static str = "/quorate.v1.Coordination/Session";
    const REQUEST_MAX: usize = MESSAGE_MAX;
    const ANSWER_MAX: usize = MESSAGE_MAX;
    type Request = v1::SessionRequest;
    type Answer = v1::SessionResponse;
    type Answers = Answers<C::Items>;

    async fn begin(
        &self,
        request: Request<Messages<v1::SessionRequest>>,
    ) -> Result<Response<Self::Answers>, Status> {
        self.0.begin_session(request)
    }
}

/// The watches of a [`CoordinationService`] that need no session, without memory between their messages.
pub struct Watches<C>(pub CoordinationService<C>);

impl<C: Coordination> Method for Watches<C> {
    const PATH: &'static str = "/quorate.v1.Coordination/Watch";
    const REQUEST_MAX: usize = MESSAGE_MAX;
    const ANSWER_MAX: usize = MESSAGE_MAX;
    type Request = v1::WatchRequest;
    type Answer = v1::WatchResponse;
    type Answers = Watching<C::Items>;

    async fn begin(
        &self,
        request: Request<Messages<v1::WatchRequest>>,
    ) -> Result<Response<Self::Answers>, Status> {
        let (metadata, extensions, mut messages) = request.into_parts();
        let Some(asked) = messages.message().await? else {
            return Err(to_status(&OpError::BadArguments(
                "the call has no request; send one WatchRequest".into(),
            )));
        };
        self.0.begin_watch(Request::from_parts(metadata, extensions, asked))
    }
}

/// A unary call that maps to one operation and one response message.
macro_rules! calls {
    ($($verb:ident: $request:ident => $response:ident,)+) => {
        #[tonic::async_trait]
        impl<C: Coordination> coordination_server::Coordination for CoordinationService<C> {
            type SessionStream = Answers<C::Items>;
            type WatchStream = Watching<C::Items>;
            type WalkStream = ReceiverStream<Result<v1::WalkResponse, Status>>;

            // Nodes serve it with `Sessions` instead.
            async fn session(
                &self,
                request: Request<Streaming<v1::SessionRequest>>,
            ) -> Result<Response<Self::SessionStream>, Status> {
                self.begin_session(request)
            }

            // Nodes serve it with `Watches` instead.
            async fn watch(&self, r: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                self.begin_watch(r)
            }

            async fn walk(&self, r: Request<v1::WalkRequest>) -> Result<Response<Self::WalkStream>, Status> {
                self.walk_through(r).await.map(Response::new).map_err(|e| to_status(&e))
            }

            $(async fn $verb(&self, r: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                self.call(r).await
            })+
        }
    };
}

calls! {
    create: CreateRequest => CreateResponse,
    set: SetRequest => SetResponse,
    delete: DeleteRequest => DeleteResponse,
    delete_tree: DeleteTreeRequest => DeleteTreeResponse,
    multi: MultiRequest => MultiResponse,
    set_acl: SetAclRequest => SetAclResponse,
    set_quota: SetQuotaRequest => SetQuotaResponse,
    list_quotas: ListQuotasRequest => ListQuotasResponse,
    get: GetRequest => GetResponse,
    exists: ExistsRequest => ExistsResponse,
    children: ChildrenRequest => ChildrenResponse,
    count_tree: CountTreeRequest => CountTreeResponse,
    multi_read: MultiReadRequest => MultiReadResponse,
    get_acl: GetAclRequest => GetAclResponse,
    sync: SyncRequest => SyncResponse,
    who_am_i: WhoAmIRequest => WhoAmIResponse,
}

/// The trace context in the metadata of a call.
fn trace<R>(request: &Request<R>) -> Trace {
    traceparent(request.metadata().get("traceparent")?.to_str().ok()?)
}

/// The minimum feature level in the metadata of a call; the first without one.
pub(super) fn min_level<R>(request: &Request<R>) -> Result<Level, OpError> {
    let Some(text) = request.metadata().get("quorate-min-level") else { return Ok(Level::FIRST) };
    let number = text.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        OpError::BadArguments("the header quorate-min-level is no number; set a feature level".into())
    })?;
    Ok(Level::known(number).unwrap_or_default())
}
