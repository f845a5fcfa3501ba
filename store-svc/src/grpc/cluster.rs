//! `quorate.v1.Cluster`: the ensemble, as seen by any node.

use api::ports::Quorum;
use api::{ErrorCode, OpError, PeerId, proof::Prover};
use audit::{Event, Log, Record, Who};
use proto::{
    client::to_status,
    cluster::{Upgrade, refusal_to_status},
    quorum::level,
    v1::{self, cluster_server::Cluster},
};
use tonic::{Request, Response, Status};

use super::caller;

/// Answers for [`proto::v1::cluster_server::ClusterServer`].
pub struct ClusterService<Q> {
    pub(crate) me: PeerId,
    pub(crate) quorum: Q,
    pub(crate) audit: Log,
}

#[tonic::async_trait]
impl<Q: Quorum> Cluster for ClusterService<Q> {
    async fn get_upgrade(
        &self,
        _: Request<v1::GetUpgradeRequest>,
    ) -> Result<Response<v1::GetUpgradeResponse>, Status> {
        let known = self.quorum.surroundings().await.map_err(|e| to_status(&OpError::Unavailable(e.0)))?;
        let mut members = vec![(self.me, known.build)];
        members.extend(known.peers.into_iter().map(|peer| {
            // Information from before this node lost the peer is outdated.
            let build = peer.build.filter(|_| peer.fault.is_none());
            (peer.id, build)
        }));
        members.sort_unstable_by_key(|&(id, _)| id);
        Ok(Response::new(Upgrade { level: known.level, members }.into()))
    }

    async fn set_level(
        &self,
        request: Request<v1::SetLevelRequest>,
    ) -> Result<Response<v1::SetLevelResponse>, Status> {
        let asking = caller(&request, &Prover::default()).map(|(caller, _)| caller).unwrap_or_default();
        let v1::SetLevelRequest { expected_level, level: wanted } = request.into_inner();
        let malformed = |e: proto::Malformed| to_status(&OpError::BadArguments(e.0));
        let (expected, wanted) =
            (level(expected_level).map_err(malformed)?, level(wanted).map_err(malformed)?);
        let set = self.quorum.set_level(expected, wanted).await;
        let certificate = asking.certificate.map(|certificate| certificate.0);
        let who = Who::new(&asking.identities, asking.address, certificate);
        let error = set.as_ref().err().map(|_| ErrorCode::Level);
        let detail = Some(format!("from {expected} to {wanted}"));
        let record = Record { op: Some("set_level"), error, detail, ..Record::new(Event::Admin, &who) };
        self.audit.record(&record);
        let level = set.map_err(|e| refusal_to_status(&e))?;
        Ok(Response::new(v1::SetLevelResponse { level: level.0 }))
    }
}
