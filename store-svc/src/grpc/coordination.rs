//! `quorate.v1.Coordination`: the unary calls, and where session streams come in.

use std::pin::Pin;

use api::{OpError, ReadOutcome, WriteOutcome};
use proto::{
    client::{sessionless, to_status},
    v1::{self, coordination_server::Coordination},
};
use store_core::server::{Answer, Op};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Front, session};

/// Answers for [`proto::v1::coordination_server::CoordinationServer`].
pub struct CoordinationService {
    front: Front,
}

impl CoordinationService {
    pub(crate) fn new(front: Front) -> CoordinationService {
        CoordinationService { front }
    }

    /// A write without a session.
    async fn write<R, W>(&self, request: Request<R>) -> Result<Response<W>, Status>
    where
        api::Write: TryFrom<R, Error = OpError>,
        W: TryFrom<WriteOutcome, Error = OpError>,
    {
        let outcome = async {
            match self.front.call(Op::Write(sessionless(request.into_inner().try_into()?)?)).await? {
                Answer::Write(outcome) => outcome.try_into(),
                other => Err(foreign(&other)),
            }
        };
        respond(outcome.await)
    }

    async fn read<R, W>(&self, request: Request<R>) -> Result<Response<W>, Status>
    where
        (api::Read, api::ReadLevel): TryFrom<R, Error = OpError>,
        W: TryFrom<ReadOutcome, Error = OpError>,
    {
        let outcome = async {
            let (read, level) = request.into_inner().try_into()?;
            match self.front.call(Op::Read(read, level)).await? {
                Answer::Read(outcome) => outcome.try_into(),
                other => Err(foreign(&other)),
            }
        };
        respond(outcome.await)
    }
}

#[tonic::async_trait]
impl Coordination for CoordinationService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let replies = session::start(self.front.clone(), request.into_inner());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn create(&self, r: Request<v1::CreateRequest>) -> Result<Response<v1::CreateResponse>, Status> {
        self.write(r).await
    }

    async fn get(&self, r: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        self.read(r).await
    }

    async fn set(&self, r: Request<v1::SetRequest>) -> Result<Response<v1::SetResponse>, Status> {
        self.write(r).await
    }

    async fn delete(&self, r: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        self.write(r).await
    }

    async fn exists(&self, r: Request<v1::ExistsRequest>) -> Result<Response<v1::ExistsResponse>, Status> {
        self.read(r).await
    }

    async fn children(
        &self,
        r: Request<v1::ChildrenRequest>,
    ) -> Result<Response<v1::ChildrenResponse>, Status> {
        self.read(r).await
    }

    async fn multi(&self, r: Request<v1::MultiRequest>) -> Result<Response<v1::MultiResponse>, Status> {
        self.write(r).await
    }

    async fn sync(&self, _: Request<v1::SyncRequest>) -> Result<Response<v1::SyncResponse>, Status> {
        respond(self.front.call(Op::Sync).await.map(|_| v1::SyncResponse {}))
    }
}

fn respond<W>(outcome: Result<W, OpError>) -> Result<Response<W>, Status> {
    outcome.map(Response::new).map_err(|e| to_status(&e))
}

fn foreign(answer: &Answer) -> OpError {
    OpError::Internal(format!("an answer of another kind: {answer:?}"))
}
