//! What the services of one node say to each other: `api::ports` <-> `quorate.internal.v1`.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    Malformed, PEER_PROTOCOL, internal, peer,
    quorum::{
        build, build_to_wire, empty, ensemble, ensemble_to_wire, entry, entry_to_wire, refused,
        refused_to_wire, room, room_to_wire, roster, standing, standing_to_wire, submission,
        submission_to_wire,
    },
};
use api::{
    EnsembleId, Epoch, Level, PeerId, Roster, Standing, Ticket, Zxid,
    peer::Submission,
    ports::{Candidate, FeedItem, PeerReport, QuorumStatus, Request, Role, Sign, Surroundings},
};

/// What is wrong with a service that introduces itself so: it has to be of the same node as this one, of which this one knows `own`.
/// The text names the remedy. Returns what the other one knows.
///
/// # Errors
/// Another ensemble, another node, another version; or no word at all.
pub fn check_neighbour(
    hello: Option<peer::Hello>,
    ensemble: &str,
    me: PeerId,
    own: &Standing,
) -> Result<Standing, Malformed> {
    let Some(peer::Hello { ensemble: theirs, id, protocol, standing: known, .. }) = hello else {
        return Err(Malformed("the other service does not introduce itself".into()));
    };
    if (theirs.as_str(), id) != (ensemble, me.0) {
        return Err(Malformed(format!(
            "the other service is of node {id} of ensemble {theirs:?}, and this one of node {me} of {ensemble:?}: give \
             all services of a node the same configuration, and correct `services.election` and `services.quorum`"
        )));
    }
    if protocol != PEER_PROTOCOL {
        return Err(Malformed(format!(
            "the other service speaks protocol {protocol} and this one {PEER_PROTOCOL}: run the same version of Quorate \
             for all services of a node"
        )));
    }
    let theirs = standing(known.unwrap_or_default())?;
    match (theirs.ensemble, own.ensemble) {
        (Some(other), Some(this)) if !own.fits(&theirs) => Err(another_ensemble(ensemble, other, this)),
        _ => Ok(theirs),
    }
}

/// Two services of nodes with one id, of ensembles with one name.
pub(crate) fn another_ensemble(name: &str, theirs: EnsembleId, own: EnsembleId) -> Malformed {
    Malformed(format!(
        "the other service is of another ensemble of the name {name:?}: its id is {theirs}, and the id of this one {own}. Correct \
         `services.election` and `services.quorum`, and give each ensemble a name of its own. If the ensemble was replaced on \
         purpose, restart the election of this node, and remove the directory `store` in its data directory, which is only a cache"
    ))
}

/// What a quorum says to its election.
#[derive(Clone, PartialEq, Debug)]
pub enum ElectionCall {
    /// First.
    Hello(peer::Hello),
    /// See [`api::ports::Election::elect`].
    Elect {
        /// Comes back with the answer.
        number: u64,
        /// Who stands, if this server does.
        candidate: Option<Candidate>,
    },
    /// See [`api::ports::Election::settled`].
    Settled {
        /// Under whom.
        leader: PeerId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// See [`api::ports::Election::introduce`].
    Introduce(Standing, Arc<Roster>),
}

impl From<ElectionCall> for internal::ElectionCall {
    fn from(call: ElectionCall) -> internal::ElectionCall {
        use internal::election_call::Kind;
        let kind = match call {
            ElectionCall::Hello(hello) => Kind::Hello(hello),
            ElectionCall::Elect { number, candidate } => {
                let candidate = candidate.map(|c| internal::Candidate { epoch: c.epoch.0, zxid: c.zxid.0 });
                Kind::Elect(internal::Elect { number, candidate })
            }
            ElectionCall::Settled { leader, epoch } => {
                Kind::Settled(internal::Settled { leader: leader.0, epoch: epoch.0 })
            }
            ElectionCall::Introduce(standing, roster) => Kind::Introduce(internal::Introduce {
                standing: Some(standing_to_wire(standing)),
                members: roster.encode().into(),
            }),
        };
        internal::ElectionCall { kind: Some(kind) }
    }
}

impl TryFrom<internal::ElectionCall> for ElectionCall {
    type Error = Malformed;
    fn try_from(call: internal::ElectionCall) -> Result<ElectionCall, Malformed> {
        use internal::election_call::Kind;
        Ok(match call.kind.ok_or_else(|| empty("ElectionCall"))? {
            Kind::Hello(hello) => ElectionCall::Hello(hello),
            Kind::Elect(m) => {
                let candidate = m.candidate.map(|c| Candidate { epoch: Epoch(c.epoch), zxid: Zxid(c.zxid) });
                ElectionCall::Elect { number: m.number, candidate }
            }
            Kind::Settled(m) => ElectionCall::Settled { leader: PeerId(m.leader), epoch: Epoch(m.epoch) },
            Kind::Introduce(m) => {
                ElectionCall::Introduce(standing(m.standing.unwrap_or_default())?, roster(&m.members)?)
            }
        })
    }
}

/// For the wire.
#[must_use]
pub fn request_to_wire(request: Request) -> internal::Request {
    use internal::request::Kind;
    let kind = match request {
        Request::Submit { ticket, payload, trace } => {
            Kind::Submit(submission_to_wire(Submission { ticket, payload, trace }))
        }
        Request::Barrier { ticket } => Kind::Barrier(ticket.0),
        Request::Report(report) => Kind::Report(report),
        Request::Confirm { to, epoch, report } => {
            Kind::Confirm(internal::Confirm { to: to.0, epoch: epoch.0, report })
        }
    };
    internal::Request { kind: Some(kind) }
}

/// From the wire.
///
/// # Errors
/// If it says nothing that this version knows.
pub fn request(request: internal::Request) -> Result<Request, Malformed> {
    use internal::request::Kind;
    Ok(match request.kind.ok_or_else(|| empty("Request"))? {
        Kind::Submit(m) => {
            let Submission { ticket, payload, trace } = submission(m);
            Request::Submit { ticket, payload, trace }
        }
        Kind::Barrier(ticket) => Request::Barrier { ticket: Ticket(ticket) },
        Kind::Report(report) => Request::Report(report),
        Kind::Confirm(m) => Request::Confirm { to: PeerId(m.to), epoch: Epoch(m.epoch), report: m.report },
    })
}

/// For the wire.
#[must_use]
pub fn item_to_wire(item: FeedItem) -> internal::FeedItem {
    use internal::feed_item::Kind;
    let kind = match item {
        FeedItem::Committed(entries) => {
            Kind::Committed(internal::Committed { entries: entries.into_iter().map(entry_to_wire).collect() })
        }
        FeedItem::SnapshotStart { zxid } => Kind::SnapshotStart(zxid.0),
        FeedItem::SnapshotChunk(chunk) => Kind::SnapshotChunk(chunk),
        FeedItem::SnapshotEnd => Kind::SnapshotEnd(internal::SnapshotEnd {}),
        FeedItem::Status(status) => Kind::Status(status_to_wire(status)),
        FeedItem::Barrier { ticket } => Kind::Barrier(ticket.0),
        FeedItem::Refused { ticket, why } => Kind::Refused(refused_to_wire(ticket, why)),
        FeedItem::Lost { ticket } => Kind::Lost(ticket.0),
        FeedItem::SnapshotWanted => Kind::SnapshotWanted(internal::SnapshotWanted {}),
    };
    internal::FeedItem { kind: Some(kind) }
}

/// From the wire.
///
/// # Errors
/// If it says nothing that this version knows.
pub fn item(item: internal::FeedItem) -> Result<FeedItem, Malformed> {
    use internal::feed_item::Kind;
    Ok(match item.kind.ok_or_else(|| empty("FeedItem"))? {
        Kind::Committed(m) => {
            FeedItem::Committed(m.entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        Kind::SnapshotStart(zxid) => FeedItem::SnapshotStart { zxid: Zxid(zxid) },
        Kind::SnapshotChunk(chunk) => FeedItem::SnapshotChunk(chunk),
        Kind::SnapshotEnd(_) => FeedItem::SnapshotEnd,
        Kind::Status(m) => FeedItem::Status(status(m)?),
        Kind::Barrier(ticket) => FeedItem::Barrier { ticket: Ticket(ticket) },
        Kind::Refused(m) => {
            let (ticket, why) = refused(m)?;
            FeedItem::Refused { ticket, why }
        }
        Kind::Lost(ticket) => FeedItem::Lost { ticket: Ticket(ticket) },
        Kind::SnapshotWanted(_) => FeedItem::SnapshotWanted,
    })
}

/// For the wire.
#[must_use]
pub fn sign_to_wire(sign: Sign) -> internal::Sign {
    use internal::sign::Kind;
    let kind = match sign {
        Sign::Report { from, report } => Kind::Report(internal::StoreReport { from: from.0, report }),
        Sign::Confirmed(report) => Kind::Confirmed(report),
    };
    internal::Sign { kind: Some(kind) }
}

/// From the wire.
///
/// # Errors
/// If it says nothing that this version knows.
pub fn sign(sign: internal::Sign) -> Result<Sign, Malformed> {
    use internal::sign::Kind;
    Ok(match sign.kind.ok_or_else(|| empty("Sign"))? {
        Kind::Report(m) => Sign::Report { from: PeerId(m.from), report: m.report },
        Kind::Confirmed(report) => Sign::Confirmed(report),
    })
}

/// For the wire.
#[must_use]
pub fn status_to_wire(status: QuorumStatus) -> internal::QuorumStatus {
    let role = match status.role {
        Role::Looking => peer::ServerState::Looking,
        Role::Following => peer::ServerState::Following,
        Role::Leading => peer::ServerState::Leading,
        Role::Observing => peer::ServerState::Observing,
    };
    internal::QuorumStatus {
        role: role.into(),
        serving: status.serving,
        leader: status.leader.map_or(NO_LEADER, |leader| leader.0),
        epoch: status.epoch.0,
        last: status.last.0,
        committed: status.committed.0,
        disk: room_to_wire(status.disk).into(),
        room: room_to_wire(status.room).into(),
        ensemble_id: ensemble_to_wire(status.ensemble),
    }
}

/// From the wire.
///
/// # Errors
/// A role that this version does not know.
pub fn status(status: internal::QuorumStatus) -> Result<QuorumStatus, Malformed> {
    let role = match status.role() {
        peer::ServerState::Looking => Role::Looking,
        peer::ServerState::Following => Role::Following,
        peer::ServerState::Leading => Role::Leading,
        peer::ServerState::Observing => Role::Observing,
        peer::ServerState::Unspecified => return Err(empty("QuorumStatus.role")),
    };
    Ok(QuorumStatus {
        role,
        serving: status.serving,
        leader: (status.leader != NO_LEADER).then_some(PeerId(status.leader)),
        epoch: Epoch(status.epoch),
        last: Zxid(status.last),
        committed: Zxid(status.committed),
        disk: room(status.disk)?,
        room: room(status.room)?,
        ensemble: ensemble(&status.ensemble_id)?,
    })
}

/// For the wire: a reply that has nothing but what a node knows of its ensemble.
#[must_use]
pub fn surroundings_to_wire(known: Surroundings) -> internal::StatusReply {
    let peer = |peer: PeerReport| internal::Peer {
        id: peer.id.0,
        address: peer.address,
        fault: peer.fault.unwrap_or_default(),
        refused: peer.refused,
        since_ms: u64::try_from(peer.since.as_millis()).unwrap_or(u64::MAX),
        build: peer.build.as_ref().map(build_to_wire),
        differs: peer.differs.unwrap_or_default(),
    };
    internal::StatusReply {
        hello: None,
        status: None,
        ensemble: ensemble_to_wire(known.ensemble),
        level: Level::number(known.level),
        build: known.build.as_ref().map(build_to_wire),
        peers: known.peers.into_iter().map(peer).collect(),
        clock_offset_ms: known.clock_offset_ms,
        members: known.roster.map(|roster| roster.encode().into()).unwrap_or_default(),
    }
}

/// From the wire.
///
/// # Errors
/// An id or a build that is none.
pub fn surroundings(reply: internal::StatusReply) -> Result<Surroundings, Malformed> {
    let peer = |peer: internal::Peer| {
        Ok(PeerReport {
            id: PeerId(peer.id),
            address: peer.address,
            fault: Some(peer.fault).filter(|fault| !fault.is_empty()),
            refused: peer.refused,
            since: Duration::from_millis(peer.since_ms),
            build: peer.build.map(build).transpose()?,
            differs: Some(peer.differs).filter(|differs| !differs.is_empty()),
        })
    };
    Ok(Surroundings {
        ensemble: ensemble(&reply.ensemble)?,
        level: Level::known(reply.level),
        build: reply.build.map(build).transpose()?,
        peers: reply.peers.into_iter().map(peer).collect::<Result<_, Malformed>>()?,
        roster: match reply.members {
            none if none.is_empty() => None,
            members => Some(roster(&members)?),
        },
        clock_offset_ms: reply.clock_offset_ms,
    })
}

/// Ids of servers count from 1.
const NO_LEADER: u32 = 0;

#[cfg(test)]
mod tests {
    use api::{
        Body, Build, Ensemble, Entry, Levels, Origin,
        ports::{Refusal, Room},
    };
    use bytes::Bytes;

    use super::*;
    use crate::quorum::Hello;

    #[test]
    fn what_a_node_knows_of_its_ensemble_survives_the_wire() {
        let build = Build { version: "1.2".into(), levels: Levels::new(Level(2), Level(3)).unwrap() };
        let peer = PeerReport {
            id: PeerId(2),
            address: "h:3".into(),
            fault: Some("gone".into()),
            refused: true,
            since: Duration::from_millis(9),
            build: Some(build.clone()),
            differs: Some("`timing.tick` is 1s there and 2s here".into()),
        };
        let ensemble = Some(api::EnsembleId(7));
        for clock_offset_ms in [None, Some(0), Some(i64::MIN)] {
            let known = Surroundings {
                ensemble,
                level: ensemble.map(|_| Level(2)),
                build: ensemble.map(|_| build.clone()),
                peers: vec![peer.clone()],
                roster: ensemble.map(|_| Arc::new(Roster::initial(Ensemble::of_voters([1]).unwrap()))),
                clock_offset_ms,
            };
            assert_eq!(surroundings(surroundings_to_wire(known.clone())).unwrap(), known);
        }
    }

    #[test]
    fn every_message_survives_the_wire() {
        let candidate = Candidate { epoch: Epoch(3), zxid: Zxid::new(Epoch(3), 4) };
        for call in [
            ElectionCall::Hello(Hello::to_wire("a", PeerId(2), Standing::default())),
            ElectionCall::Elect { number: 7, candidate: Some(candidate) },
            ElectionCall::Elect { number: 8, candidate: None },
            ElectionCall::Settled { leader: PeerId(3), epoch: Epoch(4) },
            ElectionCall::Introduce(
                Standing::default(),
                Arc::new(Roster::initial(Ensemble::of_voters([1, 2]).unwrap())),
            ),
        ] {
            assert_eq!(ElectionCall::try_from(internal::ElectionCall::from(call.clone())), Ok(call));
        }
        for asked in [
            Request::Submit { ticket: Ticket(1), payload: Bytes::from_static(b"x"), trace: None },
            Request::Barrier { ticket: Ticket(2) },
            Request::Report(Bytes::from_static(b"r")),
            Request::Confirm { to: PeerId(3), epoch: Epoch(4), report: Bytes::from_static(b"c") },
        ] {
            assert_eq!(request(request_to_wire(asked.clone())), Ok(asked));
        }
        let entry = Entry {
            zxid: Zxid::new(Epoch(2), 1),
            time_ms: 6,
            origin: Some(Origin { peer: PeerId(3), ticket: Ticket(9) }),
            body: Body::Store(Bytes::from_static(b"abc")),
            trace: api::TraceContext::new([1; 16], [2; 8], true).map(Box::new),
        };
        let status = |role| QuorumStatus {
            role,
            serving: true,
            leader: Some(PeerId(1)),
            epoch: Epoch(2),
            last: Zxid(3),
            committed: Zxid(4),
            disk: Room::Short,
            room: Room::Low,
            ensemble: Some(api::EnsembleId(5)),
        };
        for told in [
            FeedItem::Committed(vec![Entry::marker(Epoch(2), Level(3), 5), entry]),
            FeedItem::SnapshotStart { zxid: Zxid::ZERO },
            FeedItem::SnapshotChunk(Bytes::from_static(b"c")),
            FeedItem::SnapshotEnd,
            FeedItem::SnapshotWanted,
            FeedItem::Status(status(Role::Leading)),
            FeedItem::Status(status(Role::Following)),
            FeedItem::Status(status(Role::Observing)),
            FeedItem::Status(QuorumStatus::default()),
            FeedItem::Barrier { ticket: Ticket(5) },
            FeedItem::Refused { ticket: Ticket(6), why: Refusal::TooLarge },
            FeedItem::Lost { ticket: Ticket(7) },
        ] {
            assert_eq!(item(item_to_wire(told.clone())), Ok(told));
        }
        for told in [
            Sign::Report { from: PeerId(2), report: Bytes::from_static(b"r") },
            Sign::Confirmed(Bytes::from_static(b"c")),
        ] {
            assert_eq!(sign(sign_to_wire(told.clone())), Ok(told));
        }
    }

    #[test]
    fn services_of_other_nodes_are_told_what_to_correct() {
        let hello = |ensemble: &str, id, protocol| peer::Hello {
            protocol,
            ..crate::quorum::Hello::to_wire(ensemble, PeerId(id), Standing::default())
        };
        let check = |hello| check_neighbour(hello, "a", PeerId(2), &Standing::default());
        assert_eq!(check(Some(hello("a", 2, PEER_PROTOCOL))), Ok(Standing::default()));
        for (hello, word) in [
            (Some(hello("b", 2, PEER_PROTOCOL)), "services.quorum"),
            (Some(hello("a", 3, PEER_PROTOCOL)), "services.quorum"),
            (Some(hello("a", 2, PEER_PROTOCOL + 1)), "version"),
            (None, "introduce"),
        ] {
            assert!(check(hello).unwrap_err().0.contains(word));
        }
    }

    #[test]
    fn b01_services_of_ensembles_with_other_ids_are_told_both_ids() {
        let of = |id: u128, epoch, bound| Standing {
            ensemble: Some(api::EnsembleId(id)),
            epoch: Epoch(epoch),
            bound,
            level: None,
        };
        let check =
            |theirs, own| check_neighbour(Some(Hello::to_wire("a", PeerId(2), theirs)), "a", PeerId(2), &own);
        let none = Standing::default();
        for (theirs, own, fits) in [
            (none, of(1, 3, true), true),
            (of(1, 3, true), none, true),
            (of(1, 0, true), of(1, 3, true), true),
            (of(2, 0, true), of(1, 3, true), false),
            (of(2, 3, true), of(1, 0, true), false),
            // A first start that came to nothing.
            (of(2, 4, true), of(1, 3, false), true),
        ] {
            match check(theirs, own) {
                Ok(told) => assert!(fits && told == theirs),
                Err(Malformed(why)) => {
                    assert!(!fits && why.contains("services.quorum"), "{why}");
                    assert!([1, 2].iter().all(|id| why.contains(&api::EnsembleId(*id).to_string())), "{why}");
                }
            }
        }
    }
}
