//! What a node says about itself.

use std::time::Duration;

use api::{
    EnsembleId, Epoch, Membership, PeerId, Zxid,
    ports::{PeerReport, Role, Room},
};

use crate::{
    quorum::{ensemble, ensemble_to_wire},
    v1,
};

/// One node about itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeStatus {
    /// Its number.
    pub id: PeerId,
    /// The name of its ensemble.
    pub ensemble: String,
    /// What it is in there.
    pub role: Role,
    /// Whether it serves clients: synchronised with an established leader, or leading.
    pub serving: bool,
    /// Its leader.
    pub leader: Option<PeerId>,
    /// Of the last leader that it synchronised with.
    pub epoch: Epoch,
    /// Last in its log.
    pub zxid: Zxid,
    /// Last that it knows to be committed.
    pub committed: Zxid,
    /// Last applied to its tree.
    pub applied: Zxid,
    /// Open sessions of the ensemble.
    pub sessions: u64,
    /// Znodes in its tree.
    pub znodes: u64,
    /// Of tree and sessions at `applied`: equal on all nodes that have applied the same entry.
    pub digest: u64,
    /// Since it started; to the millisecond on the wire.
    pub uptime: Duration,
    /// How much room there is on its disks.
    pub disk: Room,
    /// The version of its software.
    pub version: String,
    /// All members of the ensemble.
    pub members: Vec<NodeMember>,
    /// The id of the ensemble; `None` before the first synchronisation.
    pub ensemble_id: Option<EnsembleId>,
    /// All other servers, as this node sees them.
    pub peers: Vec<PeerReport>,
    /// How far its wall clock is ahead of those of a quorum, in milliseconds; `None` while that is not known.
    pub clock_offset_ms: Option<i64>,
    /// Its ports that accept plaintext from other machines, such as "client".
    pub plaintext_ports: Vec<String>,
    /// Of its clients.
    pub watches: u64,
    /// Session streams and calls that are under way.
    pub connections: u32,
    /// What it has answered since it started.
    pub load: Load,
}

/// The requests of clients that a node has answered since it started.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Load {
    /// With an error.
    pub errors: u64,
    /// How long reads, walks and syncs took.
    pub reads: Vec<LoadRange>,
    /// How long writes took.
    pub writes: Vec<LoadRange>,
}

/// How many requests took as long as this, and longer than the range before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LoadRange {
    /// `None`: any longer time.
    pub up_to: Option<Duration>,
    /// How many.
    pub requests: u64,
}

impl From<LoadRange> for v1::LoadRange {
    fn from(range: LoadRange) -> v1::LoadRange {
        let us = |up_to: Duration| u64::try_from(up_to.as_micros()).unwrap_or(u64::MAX);
        v1::LoadRange { up_to_us: range.up_to.map_or(0, us), requests: range.requests }
    }
}

impl From<v1::LoadRange> for LoadRange {
    fn from(range: v1::LoadRange) -> LoadRange {
        let up_to = (range.up_to_us != 0).then(|| Duration::from_micros(range.up_to_us));
        LoadRange { up_to, requests: range.requests }
    }
}

impl From<Load> for v1::Load {
    fn from(load: Load) -> v1::Load {
        let ranges = |all: Vec<LoadRange>| all.into_iter().map(Into::into).collect();
        v1::Load { errors: load.errors, reads: ranges(load.reads), writes: ranges(load.writes) }
    }
}

impl From<v1::Load> for Load {
    fn from(load: v1::Load) -> Load {
        let ranges = |all: Vec<v1::LoadRange>| all.into_iter().map(Into::into).collect();
        Load { errors: load.errors, reads: ranges(load.reads), writes: ranges(load.writes) }
    }
}

/// A member of an ensemble, as a client needs to know it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeMember {
    /// Its number.
    pub id: PeerId,
    /// host:port of its client API.
    pub client_address: String,
    /// How it takes part.
    pub membership: Membership,
}

impl From<NodeStatus> for v1::StatusResponse {
    fn from(s: NodeStatus) -> v1::StatusResponse {
        let role = match s.role {
            Role::Looking => v1::NodeRole::Looking,
            Role::Following => v1::NodeRole::Follower,
            Role::Leading => v1::NodeRole::Leader,
            Role::Observing => v1::NodeRole::Observer,
        };
        let member = |m: NodeMember| {
            let (role, weight, group) = match m.membership {
                Membership::Voter { weight, group } => (v1::MemberRole::Voter, Some(weight), group),
                Membership::Observer => (v1::MemberRole::Observer, None, 0),
            };
            let (id, client_address) = (m.id.0, m.client_address);
            v1::Member { id, client_address, role: role.into(), weight, group, ..v1::Member::default() }
        };
        let ensemble_id = ensemble_to_wire(s.ensemble_id);
        let config = v1::Config {
            version: 0,
            ensemble_id: ensemble_id.clone(),
            ensemble: s.ensemble.clone(),
            members: s.members.into_iter().map(member).collect(),
        };
        let peer = |peer: PeerReport| v1::Peer {
            id: peer.id.0,
            address: peer.address,
            fault: peer.fault.unwrap_or_default(),
            refused: peer.refused,
            since_ms: u64::try_from(peer.since.as_millis()).unwrap_or(u64::MAX),
            differs: peer.differs.unwrap_or_default(),
        };
        v1::StatusResponse {
            id: s.id.0,
            ensemble: s.ensemble,
            role: role.into(),
            serving: s.serving,
            leader: s.leader.map_or(0, |id| id.0),
            epoch: s.epoch.0,
            log_zxid: s.zxid.0,
            committed_zxid: s.committed.0,
            applied_zxid: s.applied.0,
            sessions: s.sessions,
            znodes: s.znodes,
            digest: s.digest,
            uptime_ms: u64::try_from(s.uptime.as_millis()).unwrap_or(u64::MAX),
            config: Some(config),
            version: s.version,
            disk: match s.disk {
                Room::Ample => v1::DiskRoom::Ample,
                Room::Low => v1::DiskRoom::Low,
                Room::Short => v1::DiskRoom::Short,
            }
            .into(),
            ensemble_id,
            peers: s.peers.into_iter().map(peer).collect(),
            clock_offset_ms: s.clock_offset_ms,
            plaintext_ports: s.plaintext_ports,
            watches: s.watches,
            connections: s.connections,
            load: Some(s.load.into()),
        }
    }
}

impl From<v1::StatusResponse> for NodeStatus {
    /// A role that this version does not know counts as looking: nothing can be expected of that node.
    fn from(s: v1::StatusResponse) -> NodeStatus {
        let role = match s.role() {
            v1::NodeRole::Unspecified | v1::NodeRole::Looking => Role::Looking,
            v1::NodeRole::Follower => Role::Following,
            v1::NodeRole::Leader => Role::Leading,
            v1::NodeRole::Observer => Role::Observing,
        };
        let disk = match s.disk() {
            v1::DiskRoom::Unspecified | v1::DiskRoom::Ample => Room::Ample,
            v1::DiskRoom::Low => Room::Low,
            v1::DiskRoom::Short => Room::Short,
        };
        let member = |m: v1::Member| {
            let membership = match m.role() {
                v1::MemberRole::Observer | v1::MemberRole::Joining => Membership::Observer,
                v1::MemberRole::Unspecified | v1::MemberRole::Voter => {
                    Membership::Voter { weight: m.weight.unwrap_or(1), group: m.group }
                }
            };
            NodeMember { id: PeerId(m.id), client_address: m.client_address, membership }
        };
        let peer = |peer: v1::Peer| PeerReport {
            id: PeerId(peer.id),
            address: peer.address,
            fault: Some(peer.fault).filter(|fault| !fault.is_empty()),
            refused: peer.refused,
            since: Duration::from_millis(peer.since_ms),
            // Told by `quorate.v1.Cluster`.
            build: None,
            differs: Some(peer.differs).filter(|differs| !differs.is_empty()),
        };
        NodeStatus {
            id: PeerId(s.id),
            role,
            serving: s.serving,
            leader: (s.leader != 0).then_some(PeerId(s.leader)),
            epoch: Epoch(s.epoch),
            zxid: Zxid(s.log_zxid),
            committed: Zxid(s.committed_zxid),
            applied: Zxid(s.applied_zxid),
            sessions: s.sessions,
            znodes: s.znodes,
            digest: s.digest,
            uptime: Duration::from_millis(s.uptime_ms),
            ensemble: s.ensemble,
            members: s.config.unwrap_or_default().members.into_iter().map(member).collect(),
            version: s.version,
            disk,
            ensemble_id: ensemble(&s.ensemble_id).ok().flatten(),
            peers: s.peers.into_iter().map(peer).collect(),
            clock_offset_ms: s.clock_offset_ms,
            plaintext_ports: s.plaintext_ports,
            watches: s.watches,
            connections: s.connections,
            load: s.load.unwrap_or_default().into(),
        }
    }
}
