//! `quorate.v1.Coordination`: the unary calls, and where session streams come in.

use std::pin::Pin;

use api::{OpError, ReadOutcome, Trace, WriteOutcome};
use proto::{
    client::{sessionless, to_status, traceparent},
    v1::{self, coordination_server::Coordination},
};
use store_core::server::{Answer, Op};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Front, Held, session};
use crate::driver::Answered;

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
        let (trace, from) = (trace(&request), self.front.origin(&request));
        let outcome = async {
            let op = Op::Write(sessionless(request.into_inner().try_into()?)?);
            let (answered, held) = self.front.call(op, trace, &from).await?;
            match answered.answer {
                Answer::Write(outcome) => Ok((outcome.try_into()?, held)),
                other => Err(foreign(&other)),
            }
        };
        respond(outcome.await)
    }

    /// A read without a session; `tell` puts into the answer of which state it is.
    async fn read<R, W>(
        &self,
        request: Request<R>,
        tell: impl FnOnce(&mut W, v1::AsOf),
    ) -> Result<Response<W>, Status>
    where
        (api::Read, api::ReadLevel): TryFrom<R, Error = OpError>,
        W: TryFrom<ReadOutcome, Error = OpError>,
    {
        let (trace, from) = (trace(&request), self.front.origin(&request));
        let outcome = async {
            let (read, level) = request.into_inner().try_into()?;
            let (answered, held) = self.front.call(Op::Read(read, level), trace, &from).await?;
            let Answered { answer, zxid, leaderless } = answered;
            match answer {
                Answer::Read(outcome) => {
                    let mut response = outcome.try_into()?;
                    tell(&mut response, v1::AsOf { zxid: zxid.0, leaderless });
                    Ok((response, held))
                }
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
        let replies = session::start(self.front.clone(), request);
        Ok(Response::new(Box::pin(replies)))
    }

    async fn create(&self, r: Request<v1::CreateRequest>) -> Result<Response<v1::CreateResponse>, Status> {
        self.write(r).await
    }

    async fn get(&self, r: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        self.read(r, |response: &mut v1::GetResponse, as_of| response.as_of = Some(as_of)).await
    }

    async fn set(&self, r: Request<v1::SetRequest>) -> Result<Response<v1::SetResponse>, Status> {
        self.write(r).await
    }

    async fn delete(&self, r: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        self.write(r).await
    }

    async fn exists(&self, r: Request<v1::ExistsRequest>) -> Result<Response<v1::ExistsResponse>, Status> {
        self.read(r, |response: &mut v1::ExistsResponse, as_of| response.as_of = Some(as_of)).await
    }

    async fn children(
        &self,
        r: Request<v1::ChildrenRequest>,
    ) -> Result<Response<v1::ChildrenResponse>, Status> {
        self.read(r, |response: &mut v1::ChildrenResponse, as_of| response.as_of = Some(as_of)).await
    }

    async fn multi(&self, r: Request<v1::MultiRequest>) -> Result<Response<v1::MultiResponse>, Status> {
        self.write(r).await
    }

    async fn sync(&self, r: Request<v1::SyncRequest>) -> Result<Response<v1::SyncResponse>, Status> {
        let from = self.front.origin(&r);
        respond(
            self.front.call(Op::Sync, trace(&r), &from).await.map(|(_, held)| (v1::SyncResponse {}, held)),
        )
    }
}

/// As the metadata of a call say it.
fn trace<R>(request: &Request<R>) -> Trace {
    traceparent(request.metadata().get("traceparent")?.to_str().ok()?)
}

fn respond<W>(outcome: Result<(W, Held), OpError>) -> Result<Response<W>, Status> {
    let (answer, held) = outcome.map_err(|e| to_status(&e))?;
    let mut response = Response::new(answer);
    response.extensions_mut().insert(held);
    Ok(response)
}

fn foreign(answer: &Answer) -> OpError {
    OpError::Internal(format!("an answer of another kind: {answer:?}"))
}
