//! `quorate.v1.Node`: the state of one node.

use std::time::Instant;

use api::{OpError, ports::Quorum, session::Verb};
use proto::{
    client::{Load, LoadRange, NodeMember, NodeStatus, to_status},
    v1::{self, node_server::Node},
};
use telemetry::{Counter, metrics};
use tonic::{Request, Response, Status};

use crate::{driver::Facts, handle::Handle};

/// The state of a node. Implements [`proto::v1::node_server::NodeServer`].
#[derive(Clone)]
pub struct NodeService<Q> {
    pub(crate) handle: Handle,
    pub(crate) quorum: Q,
    pub(crate) ensemble: String,
    pub(crate) members: Vec<NodeMember>,
    pub(crate) plaintext_ports: Vec<String>,
    pub(crate) started: Instant,
}

impl<Q: Quorum> NodeService<Q> {
    /// The current state.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn look(&self) -> Result<NodeStatus, OpError> {
        let stopping = || self.handle.stopping();
        let Facts { state, ready } = self.handle.facts().await?;
        // Read second, so that the applied zxid is never ahead of the committed one.
        let quorum = self.quorum.status().await.map_err(|_| stopping())?;
        let known = self.quorum.surroundings().await.map_err(|_| stopping())?;
        Ok(NodeStatus {
            id: self.handle.me(),
            ensemble: self.ensemble.clone(),
            role: quorum.role,
            // The marker of a new leader follows everything that older leaders have committed. Until
            // this node has applied it, its tree may be outdated.
            serving: quorum.serving && ready && state.applied.epoch() == quorum.epoch,
            leader: quorum.leader,
            epoch: quorum.epoch,
            zxid: quorum.last,
            committed: quorum.committed,
            applied: state.applied,
            sessions: state.sessions,
            znodes: state.znodes,
            digest: state.digest,
            uptime: self.started.elapsed(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            members: self.members.clone(),
            disk: quorum.disk,
            ensemble_id: known.ensemble,
            peers: known.peers,
            clock_offset_ms: known.clock_offset_ms,
            plaintext_ports: self.plaintext_ports.clone(),
            watches: metrics::WATCHES.get(),
            connections: u32::try_from(metrics::STORE_CONNECTIONS.get()).unwrap_or(u32::MAX),
            load: load(),
        })
    }
}

/// What this process has answered.
fn load() -> Load {
    let errors = metrics::REQUEST_ERRORS.all().map(Counter::get).sum();
    Load { errors, reads: ranges(&READS), writes: ranges(&WRITES) }
}

/// The times of several verbs together.
fn ranges(verbs: &[Verb]) -> Vec<LoadRange> {
    let mut sums: Vec<LoadRange> = Vec::new();
    for verb in verbs {
        for (index, (up_to, requests)) in metrics::REQUEST_DURATION.at(*verb).ranges().enumerate() {
            match sums.get_mut(index) {
                Some(sum) => sum.requests += requests,
                None => sums.push(LoadRange { up_to, requests }),
            }
        }
    }
    sums
}

const READS: [Verb; 10] = [
    Verb::Get,
    Verb::Exists,
    Verb::GetAcl,
    Verb::Children,
    Verb::CountTree,
    Verb::ListQuotas,
    Verb::MultiRead,
    Verb::Walk,
    Verb::Sync,
    Verb::Ephemerals,
];

const WRITES: [Verb; 7] =
    [Verb::Create, Verb::Set, Verb::Delete, Verb::SetAcl, Verb::DeleteTree, Verb::SetQuota, Verb::Multi];

#[tonic::async_trait]
impl<Q: Quorum> Node for NodeService<Q> {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let status = self.look().await.map_err(|e| to_status(&e))?;
        Ok(Response::new(status.into()))
    }
}
