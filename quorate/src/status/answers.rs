//! What the members of an ensemble answer about themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::PeerId;
use client_sdk::{NodeMember, NodeStatus, Tls, node_status};
use tokio::task::JoinSet;

use crate::{args::Nodes, exit::Failure};

/// The members of an ensemble, and what those that can be reached say.
pub(crate) struct Found {
    pub(super) answers: Answers,
    /// In the order of their ids. Of nodes with differing lists: the members of any of them.
    pub(crate) members: Vec<NodeMember>,
}

impl Found {
    /// Asks the endpoints, and all members that they know. `None` if no node answers.
    pub(crate) async fn ask(nodes: &Nodes) -> Result<Option<Found>, Failure> {
        let mut answers = Answers::default();
        let endpoints = nodes.endpoints.addresses();
        let secured = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let tls = nodes.tls.read()?.or(secured.then(Tls::new));
        answers.add(ask_all(&endpoints, nodes.timeout, tls.as_ref()).await);
        if answers.0.is_empty() {
            return Ok(None);
        }
        let ensembles: BTreeSet<&str> = answers.all().map(|s| s.ensemble.as_str()).collect();
        if ensembles.len() > 1 {
            let names: Vec<&str> = ensembles.into_iter().collect();
            return Err(Failure::usage(format!(
                "the endpoints belong to different ensembles ({}); name nodes of one",
                names.join(", ")
            )));
        }
        let mut members: BTreeMap<u32, NodeMember> = BTreeMap::new();
        for member in answers.all().flat_map(|status| &status.members) {
            members.entry(member.id.0).or_insert_with(|| member.clone());
        }
        let members: Vec<NodeMember> = members.into_values().collect();
        let missing: Vec<String> = members
            .iter()
            .filter(|m| answers.of(m.id).is_empty())
            .map(|m| m.client_address.clone())
            .collect();
        answers.add(ask_all(&missing, nodes.timeout, tls.as_ref()).await);
        Ok(Some(Found { answers, members }))
    }

    /// The answer of a member, if there is one; of several nodes with its id, the first.
    pub(crate) fn status(&self, id: PeerId) -> Option<&NodeStatus> {
        self.answers.all().find(|status| status.id == id)
    }

    /// All answers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &NodeStatus> {
        self.answers.all()
    }
}

/// What nodes have answered, each with the endpoint at which it did.
#[derive(Default)]
pub(super) struct Answers(pub(super) Vec<(String, NodeStatus)>);

impl Answers {
    /// One node that answers at several endpoints is taken in once.
    pub(super) fn add(&mut self, asked: BTreeMap<String, Option<NodeStatus>>) {
        for (endpoint, answer) in asked {
            if let Some(status) = answer
                && !self.all().any(|other| is_one_node(other, &status))
            {
                self.0.push((endpoint, status));
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &NodeStatus> {
        self.0.iter().map(|(_, status)| status)
    }

    pub(super) fn of(&self, id: PeerId) -> Vec<&(String, NodeStatus)> {
        self.0.iter().filter(|(_, status)| status.id == id).collect()
    }

    /// Ids that several nodes have, a sentence each.
    pub(super) fn doubles(&self) -> Vec<String> {
        let ids: BTreeSet<PeerId> = self.all().map(|status| status.id).collect();
        let several = ids.into_iter().map(|id| (id, self.of(id))).filter(|(_, of)| of.len() > 1);
        let sentence = |(id, of): (PeerId, Vec<&(String, NodeStatus)>)| {
            let at: Vec<&str> = of.iter().map(|(endpoint, _)| endpoint.as_str()).collect();
            format!(
                "several nodes are node {id}: those at {}. Name endpoints of one ensemble; if these are of one, stop the node that \
                 runs on a copy of the other's data directory. If node {id} was just started again, ask again",
                at.join(" and ")
            )
        };
        several.map(sentence).collect()
    }
}

/// Whether two answers, which came at about the same time, can be those of one process.
fn is_one_node(one: &NodeStatus, other: &NodeStatus) -> bool {
    let same = |s: &NodeStatus| (s.id, s.ensemble_id, s.members.clone());
    same(one) == same(other) && one.uptime.abs_diff(other.uptime) <= ONE_START
}

/// Answers of one process have uptimes that differ by no more.
const ONE_START: Duration = Duration::from_secs(10);

async fn ask_all(
    endpoints: &[String],
    timeout: Duration,
    tls: Option<&Tls>,
) -> BTreeMap<String, Option<NodeStatus>> {
    let mut asking = JoinSet::new();
    for endpoint in endpoints.iter().cloned() {
        let tls = tls.cloned();
        asking.spawn(async move {
            let answer = node_status(&endpoint, timeout, tls.as_ref()).await;
            if let Err(e) = &answer {
                tracing::info!(error = %e, "a node did not report its status");
            }
            (endpoint, answer.ok())
        });
    }
    asking.join_all().await.into_iter().collect()
}
