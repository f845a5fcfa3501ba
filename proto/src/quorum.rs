//! ZAB's messages: `api::peer` <-> `quorate.peer.v1`.

use std::time::Duration;

use api::{
    Body, Build, Ensemble, EnsembleId, Entry, Epoch, EpochSpan, Greeting, History, Level, LevelRefusal,
    Levels, Member, Membership, Origin, PeerId, Stamp, Standing, Ticket, Trace, TraceContext, Zxid,
    peer::{Acquaintance, Damage, Incarnation, Submission, ToLeader, ToLearner},
    ports::{Refusal, Room},
};
use bytes::Bytes;

use crate::{Malformed, PEER_PROTOCOL, peer};

/// The first message of each side, on every stream between servers and between services of one node.
pub struct Hello;

impl Hello {
    /// Between services of one node, which have no more to say.
    #[must_use]
    pub fn to_wire(ensemble: &str, id: PeerId) -> peer::Hello {
        let ensemble = ensemble.to_owned();
        peer::Hello { ensemble, id: id.0, protocol: PEER_PROTOCOL, ..peer::Hello::default() }
    }

    /// Between servers.
    #[must_use]
    pub fn to_peer(greeting: &Greeting) -> peer::Hello {
        let millis = |limit: Duration| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        peer::Hello {
            standing: Some(standing_to_wire(greeting.standing)),
            members: greeting.members.members().map(member_to_wire).collect(),
            sync_limit_ms: millis(greeting.sync_limit),
            tick_ms: millis(greeting.tick),
            build: Some(build_to_wire(&greeting.build)),
            ..Hello::to_wire(&greeting.name, greeting.id)
        }
    }

    /// Between quorums.
    #[must_use]
    pub fn to_quorum(greeting: &Greeting, said: Acquaintance, damage: Damage) -> peer::Hello {
        let wire = |Incarnation { number, run }| peer::Incarnation { number, run };
        peer::Hello {
            incarnation: said.own.map(wire),
            met: said.met.map(wire),
            confirmed: said.confirmed.map(wire),
            damage: damage_to_wire(damage).into(),
            ..Hello::to_peer(greeting)
        }
    }

    /// What a quorum says of incarnations.
    #[must_use]
    pub fn acquaintance(hello: &peer::Hello) -> Acquaintance {
        let known = |wire: Option<peer::Incarnation>| {
            wire.map(|peer::Incarnation { number, run }| Incarnation { number, run })
        };
        let [own, met, confirmed] = [hello.incarnation, hello.met, hello.confirmed].map(known);
        Acquaintance { own, met, confirmed }
    }

    /// What a server says that it runs, if that makes sense.
    #[must_use]
    pub fn build(hello: &peer::Hello) -> Option<Build> {
        build(hello.build.clone()?).ok()
    }

    /// What a quorum says that it has lost.
    #[must_use]
    pub fn damage(hello: &peer::Hello) -> Damage {
        damage(hello.damage())
    }

    /// What is wrong with a server that introduces itself so to this one; `expected`: whom this one dialled. The text names the
    /// remedy.
    ///
    /// # Errors
    /// As [`Greeting::check`]; another protocol; or it says what makes no sense.
    pub fn check(
        hello: peer::Hello,
        this: &Greeting,
        expected: Option<PeerId>,
    ) -> Result<Greeting, Malformed> {
        let id = PeerId(hello.id);
        if hello.protocol != PEER_PROTOCOL {
            return Err(Malformed(format!(
                "server {id} speaks peer protocol {} and this one {PEER_PROTOCOL}: run versions of Quorate that are at \
                 most one release apart",
                hello.protocol
            )));
        }
        if hello.members.len() > MEMBERS_MAX {
            return Err(Malformed(format!("server {id} has {} members", hello.members.len())));
        }
        let members = Ensemble::new(hello.members.iter().map(member))
            .map_err(|e| Malformed(format!("the members of server {id} are no ensemble: {e}")))?;
        let millis = |limit: u32| Duration::from_millis(limit.into());
        let theirs = Greeting {
            name: hello.ensemble,
            id,
            members,
            standing: standing(hello.standing.unwrap_or_default())?,
            build: build(hello.build.unwrap_or_default())?,
            sync_limit: millis(hello.sync_limit_ms),
            tick: millis(hello.tick_ms),
        };
        this.check(&theirs, expected).map_err(Malformed)?;
        Ok(theirs)
    }
}

/// Bytes of a version at most.
const VERSION_MAX: usize = 64;

/// Members of an ensemble at most, on the wire.
const MEMBERS_MAX: usize = 1024;

fn member_to_wire((id, membership): (PeerId, Membership)) -> peer::Member {
    match membership {
        Membership::Voter { weight, group } => peer::Member { id: id.0, observer: false, weight, group },
        Membership::Observer => peer::Member { id: id.0, observer: true, weight: 0, group: 0 },
    }
}

fn member(member: &peer::Member) -> Member {
    let membership = match member.observer {
        true => Membership::Observer,
        false => Membership::Voter { weight: member.weight, group: member.group },
    };
    Member { id: PeerId(member.id), membership }
}

pub(crate) fn build_to_wire(build: &Build) -> peer::Build {
    let Build { version, levels } = build;
    peer::Build { version: version.clone(), min_level: levels.min().0, max_level: levels.max().0 }
}

pub(crate) fn build(build: peer::Build) -> Result<Build, Malformed> {
    let peer::Build { mut version, min_level, max_level } = build;
    // For people, who need no more.
    version.truncate(version.floor_char_boundary(VERSION_MAX));
    Ok(Build { version, levels: levels(min_level, max_level)? })
}

fn levels(min: u32, max: u32) -> Result<Levels, Malformed> {
    let levels = Levels::new(Level(min), Level(max));
    levels.ok_or_else(|| Malformed(format!("feature levels from {min} to {max}")))
}

/// From the wire.
///
/// # Errors
/// 0 is none.
pub fn level(number: u32) -> Result<Level, Malformed> {
    Level::known(number).ok_or_else(|| Malformed("0 is no feature level; they count from 1".into()))
}

/// For the wire.
#[must_use]
pub fn standing_to_wire(standing: Standing) -> peer::Standing {
    let Standing { ensemble, epoch, bound, level } = standing;
    let (ensemble, level) = (ensemble_to_wire(ensemble), Level::number(level));
    peer::Standing { ensemble, epoch: epoch.0, bound, level }
}

/// From the wire.
///
/// # Errors
/// An id that is none.
pub fn standing(standing: peer::Standing) -> Result<Standing, Malformed> {
    let peer::Standing { ensemble: id, epoch, bound, level } = standing;
    Ok(Standing { ensemble: ensemble(&id)?, epoch: Epoch(epoch), bound, level: Level::known(level) })
}

pub(crate) fn ensemble_to_wire(ensemble: Option<EnsembleId>) -> Bytes {
    ensemble.map_or(Bytes::new(), |id| Bytes::copy_from_slice(&id.0.to_be_bytes()))
}

pub(crate) fn ensemble(bytes: &[u8]) -> Result<Option<EnsembleId>, Malformed> {
    match bytes.try_into() {
        _ if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(EnsembleId(u128::from_be_bytes(bytes)))),
        Err(_) => Err(Malformed(format!("the id of an ensemble has 16 bytes, not {}", bytes.len()))),
    }
}

/// What a leader's stream carries.
#[derive(Clone, PartialEq, Debug)]
pub enum LeaderFrame {
    /// First.
    Hello(peer::Hello),
    /// For the core.
    Message(ToLearner),
    /// A snapshot of this zxid, at this feature level, begins.
    SnapStart(Zxid, Level),
    /// A piece of it.
    SnapChunk(Bytes),
    /// It is complete.
    SnapEnd,
    /// Nothing, so that there are bytes.
    Idle,
}

/// What a learner's stream carries.
#[derive(Clone, PartialEq, Debug)]
pub enum LearnerFrame {
    /// First.
    Hello(peer::Hello),
    /// For the core.
    Message(ToLeader),
    /// Nothing, so that there are bytes.
    Idle,
}

impl From<LearnerFrame> for peer::LearnerMessage {
    fn from(frame: LearnerFrame) -> peer::LearnerMessage {
        use peer::learner_message::Kind;
        let kind = match frame {
            LearnerFrame::Hello(hello) => Kind::Hello(hello),
            LearnerFrame::Idle => Kind::Idle(peer::Idle {}),
            LearnerFrame::Message(message) => match message {
                ToLeader::LearnerInfo { accepted_epoch, levels } => Kind::LearnerInfo(peer::LearnerInfo {
                    accepted_epoch: accepted_epoch.0,
                    min_level: levels.min().0,
                    max_level: levels.max().0,
                }),
                ToLeader::AckEpoch {
                    epoch,
                    current_epoch,
                    history,
                    counts,
                    damage,
                    last_stamp,
                    ensemble,
                    committed,
                    wall_ms,
                } => Kind::AckEpoch(peer::AckEpoch {
                    epoch: epoch.0,
                    current_epoch: current_epoch.0,
                    history: Some(history_to_wire(&history)),
                    counts,
                    damage: damage_to_wire(damage).into(),
                    last_stamp: Some(stamp_to_wire(last_stamp)),
                    ensemble: ensemble_to_wire(ensemble),
                    committed: committed.0,
                    wall_ms,
                }),
                ToLeader::Ack(zxid) => Kind::Ack(peer::Ack { zxid: zxid.0 }),
                ToLeader::Forward(submissions) => Kind::Forward(peer::Forward {
                    submissions: submissions.into_iter().map(submission_to_wire).collect(),
                }),
                ToLeader::Pong { round, wall_ms } => Kind::Pong(peer::Pong { round, wall_ms }),
                ToLeader::Barrier { ticket } => Kind::Barrier(peer::BarrierRequest { ticket: ticket.0 }),
                ToLeader::Report(report) => Kind::Report(report),
                ToLeader::Disk(room) => Kind::Disk(room_to_wire(room).into()),
                ToLeader::SetLevel { ticket, expected, level } => {
                    Kind::SetLevel(peer::SetLevel { ticket: ticket.0, expected: expected.0, level: level.0 })
                }
            },
        };
        peer::LearnerMessage { kind: Some(kind) }
    }
}

impl TryFrom<peer::LearnerMessage> for LearnerFrame {
    type Error = Malformed;
    fn try_from(message: peer::LearnerMessage) -> Result<LearnerFrame, Malformed> {
        use peer::learner_message::Kind;
        let message = match message.kind.ok_or_else(|| empty("LearnerMessage"))? {
            Kind::Hello(hello) => return Ok(LearnerFrame::Hello(hello)),
            Kind::Idle(_) => return Ok(LearnerFrame::Idle),
            Kind::Piece(_) | Kind::LastPiece(_) => return Err(empty("a piece of a LearnerMessage")),
            Kind::LearnerInfo(m) => ToLeader::LearnerInfo {
                accepted_epoch: Epoch(m.accepted_epoch),
                levels: levels(m.min_level, m.max_level)?,
            },
            Kind::AckEpoch(m) => ToLeader::AckEpoch {
                epoch: Epoch(m.epoch),
                current_epoch: Epoch(m.current_epoch),
                damage: damage(m.damage()),
                history: history(m.history.ok_or_else(|| empty("AckEpoch.history"))?)?,
                counts: m.counts,
                last_stamp: stamp(m.last_stamp),
                ensemble: ensemble(&m.ensemble)?,
                committed: Zxid(m.committed),
                wall_ms: m.wall_ms,
            },
            Kind::Ack(m) => ToLeader::Ack(Zxid(m.zxid)),
            Kind::Forward(m) => ToLeader::Forward(m.submissions.into_iter().map(submission).collect()),
            Kind::Pong(m) => ToLeader::Pong { round: m.round, wall_ms: m.wall_ms },
            Kind::Barrier(m) => ToLeader::Barrier { ticket: Ticket(m.ticket) },
            Kind::Report(report) => ToLeader::Report(report),
            Kind::Disk(disk) => ToLeader::Disk(room(disk)?),
            Kind::SetLevel(m) => ToLeader::SetLevel {
                ticket: Ticket(m.ticket),
                expected: level(m.expected)?,
                level: level(m.level)?,
            },
        };
        Ok(LearnerFrame::Message(message))
    }
}

impl From<LeaderFrame> for peer::LeaderMessage {
    fn from(frame: LeaderFrame) -> peer::LeaderMessage {
        use peer::leader_message::Kind;
        let kind = match frame {
            LeaderFrame::Hello(hello) => Kind::Hello(hello),
            LeaderFrame::Idle => Kind::Idle(peer::Idle {}),
            LeaderFrame::SnapStart(zxid, level) => Kind::Snap(peer::Snap { zxid: zxid.0, level: level.0 }),
            LeaderFrame::SnapChunk(chunk) => Kind::SnapChunk(chunk),
            LeaderFrame::SnapEnd => Kind::SnapEnd(peer::SnapEnd {}),
            LeaderFrame::Message(message) => match message {
                ToLearner::LeaderInfo { epoch, ensemble, level } => Kind::LeaderInfo(peer::LeaderInfo {
                    epoch: epoch.0,
                    ensemble: ensemble_to_wire(Some(ensemble)),
                    level: Level::number(level),
                }),
                ToLearner::Diff { after } => Kind::Diff(after.0),
                ToLearner::Trunc { to } => Kind::Trunc(to.0),
                ToLearner::Snap { zxid, level } => Kind::Snap(peer::Snap { zxid: zxid.0, level: level.0 }),
                ToLearner::Propose { prev, entries, commit } => Kind::Propose(peer::Propose {
                    prev: prev.0,
                    entries: entries.into_iter().map(entry_to_wire).collect(),
                    commit: commit.map_or(0, |zxid| zxid.0),
                }),
                ToLearner::NewLeader { epoch, target, last_stamp } => Kind::NewLeader(peer::NewLeader {
                    epoch: epoch.0,
                    target: target.0,
                    last_stamp: Some(stamp_to_wire(last_stamp)),
                }),
                ToLearner::UpToDate { commit } => Kind::UpToDate(peer::UpToDate { commit: commit.0 }),
                ToLearner::Commit(zxid) => Kind::Commit(zxid.0),
                ToLearner::Ping { round, quorum_ms } => Kind::Ping(peer::Ping { round, quorum_ms }),
                ToLearner::Barrier { ticket, zxid } => {
                    Kind::Barrier(peer::BarrierReply { ticket: ticket.0, zxid: zxid.0 })
                }
                ToLearner::Confirm(report) => Kind::Confirm(report),
                ToLearner::Refused { ticket, why } => Kind::Refused(refused_to_wire(ticket, why)),
                ToLearner::Room(room) => Kind::Room(room_to_wire(room).into()),
                ToLearner::LevelSet { ticket, result } => Kind::LevelSet(level_set_to_wire(ticket, result)),
            },
        };
        peer::LeaderMessage { kind: Some(kind) }
    }
}

impl TryFrom<peer::LeaderMessage> for LeaderFrame {
    type Error = Malformed;
    fn try_from(message: peer::LeaderMessage) -> Result<LeaderFrame, Malformed> {
        use peer::leader_message::Kind;
        let message = match message.kind.ok_or_else(|| empty("LeaderMessage"))? {
            Kind::Hello(hello) => return Ok(LeaderFrame::Hello(hello)),
            Kind::Idle(_) => return Ok(LeaderFrame::Idle),
            Kind::Piece(_) | Kind::LastPiece(_) => return Err(empty("a piece of a LeaderMessage")),
            Kind::Snap(m) => return Ok(LeaderFrame::SnapStart(Zxid(m.zxid), level(m.level)?)),
            Kind::SnapChunk(chunk) => return Ok(LeaderFrame::SnapChunk(chunk)),
            Kind::SnapEnd(_) => return Ok(LeaderFrame::SnapEnd),
            Kind::LeaderInfo(m) => ToLearner::LeaderInfo {
                epoch: Epoch(m.epoch),
                ensemble: ensemble(&m.ensemble)?.ok_or_else(|| empty("LeaderInfo.ensemble"))?,
                level: Level::known(m.level),
            },
            Kind::Diff(after) => ToLearner::Diff { after: Zxid(after) },
            Kind::Trunc(to) => ToLearner::Trunc { to: Zxid(to) },
            Kind::Propose(m) => {
                let entries: Result<_, _> = m.entries.into_iter().map(entry).collect();
                let commit = (m.commit != 0).then_some(Zxid(m.commit));
                ToLearner::Propose { prev: Zxid(m.prev), entries: entries?, commit }
            }
            Kind::NewLeader(m) => ToLearner::NewLeader {
                epoch: Epoch(m.epoch),
                target: Zxid(m.target),
                last_stamp: stamp(m.last_stamp),
            },
            Kind::UpToDate(m) => ToLearner::UpToDate { commit: Zxid(m.commit) },
            Kind::Commit(zxid) => ToLearner::Commit(Zxid(zxid)),
            Kind::Ping(m) => ToLearner::Ping { round: m.round, quorum_ms: m.quorum_ms },
            Kind::Barrier(m) => ToLearner::Barrier { ticket: Ticket(m.ticket), zxid: Zxid(m.zxid) },
            Kind::Confirm(report) => ToLearner::Confirm(report),
            Kind::Refused(m) => {
                let (ticket, why) = refused(m)?;
                ToLearner::Refused { ticket, why }
            }
            Kind::Room(said) => ToLearner::Room(room(said)?),
            Kind::LevelSet(m) => {
                let (ticket, result) = level_set(m)?;
                ToLearner::LevelSet { ticket, result }
            }
        };
        Ok(LeaderFrame::Message(message))
    }
}

pub(crate) fn entry_to_wire(entry: Entry) -> peer::Entry {
    let (origin, ticket) = entry.origin.map_or((0, 0), |o| (o.peer.0, o.ticket.0));
    let trace = trace_to_wire(&entry.trace);
    let (kind, payload) = (entry.body.kind().into(), entry.body.payload());
    peer::Entry { zxid: entry.zxid.0, time_ms: entry.time_ms, origin, ticket, payload, trace, kind }
}

/// # Errors
/// One of a kind that this version does not know.
pub(crate) fn entry(entry: peer::Entry) -> Result<Entry, Malformed> {
    let origin =
        (entry.origin != 0).then_some(Origin { peer: PeerId(entry.origin), ticket: Ticket(entry.ticket) });
    let trace = trace(entry.trace);
    let zxid = Zxid(entry.zxid);
    // No kind has a number that a record on disk has no room for.
    let kind = u16::try_from(entry.kind).unwrap_or(u16::MAX);
    let body = Body::from_parts(kind, entry.payload);
    let body = body.map_err(|unknown| Malformed(format!("entry {zxid} is {unknown}")))?;
    Ok(Entry { zxid, time_ms: entry.time_ms, origin, body, trace })
}

/// For the wire.
#[must_use]
pub fn level_set_to_wire(ticket: Ticket, result: Result<Level, LevelRefusal>) -> peer::LevelSet {
    use peer::level_set::Result as Wire;
    let result = match result {
        Ok(level) => Wire::Level(level.0),
        Err(LevelRefusal::Refused(why)) => Wire::Refused(why),
        Err(LevelRefusal::Unavailable(why)) => Wire::Unavailable(why),
    };
    peer::LevelSet { ticket: ticket.0, result: Some(result) }
}

/// From the wire.
///
/// # Errors
/// If it says nothing that this version knows.
pub fn level_set(set: peer::LevelSet) -> Result<(Ticket, Result<Level, LevelRefusal>), Malformed> {
    use peer::level_set::Result as Wire;
    let result = match set.result.ok_or_else(|| empty("LevelSet"))? {
        Wire::Level(number) => Ok(level(number)?),
        Wire::Refused(why) => Err(LevelRefusal::Refused(why)),
        Wire::Unavailable(why) => Err(LevelRefusal::Unavailable(why)),
    };
    Ok((Ticket(set.ticket), result))
}

fn stamp_to_wire(stamp: Stamp) -> peer::Stamp {
    peer::Stamp { zxid: stamp.zxid.0, time_ms: stamp.time_ms }
}

fn stamp(stamp: Option<peer::Stamp>) -> Stamp {
    stamp.map(|s| Stamp { zxid: Zxid(s.zxid), time_ms: s.time_ms }).unwrap_or_default()
}

pub(crate) fn submission_to_wire(s: Submission) -> peer::Submission {
    peer::Submission { ticket: s.ticket.0, trace: trace_to_wire(&s.trace), payload: s.payload }
}

pub(crate) fn submission(s: peer::Submission) -> Submission {
    Submission { ticket: Ticket(s.ticket), payload: s.payload, trace: trace(s.trace) }
}

/// Only sampled contexts travel.
fn trace_to_wire(trace: &Trace) -> Option<peer::Trace> {
    let context = trace.as_ref().filter(|context| context.sampled())?;
    let id = u128::from_be_bytes(context.trace_id());
    let span = u64::from_be_bytes(context.span_id());
    Some(peer::Trace { trace_high: (id >> 64) as u64, trace_low: id as u64, span })
}

/// Ids that stand for none mean that there is no trace.
fn trace(trace: Option<peer::Trace>) -> Trace {
    let peer::Trace { trace_high, trace_low, span } = trace?;
    let id = u128::from(trace_high) << 64 | u128::from(trace_low);
    TraceContext::new(id.to_be_bytes(), span.to_be_bytes(), true).map(Box::new)
}

pub(crate) fn refused_to_wire(ticket: Ticket, why: Refusal) -> peer::Refused {
    use peer::refused::Reason;
    let reason = match why {
        Refusal::Full => Reason::Full,
        Refusal::NoLeader => Reason::NoLeader,
        Refusal::TooLarge => Reason::TooLarge,
    };
    peer::Refused { ticket: ticket.0, reason: reason.into() }
}

pub(crate) fn refused(refused: peer::Refused) -> Result<(Ticket, Refusal), Malformed> {
    use peer::refused::Reason;
    let why = match refused.reason() {
        Reason::Full => Refusal::Full,
        Reason::NoLeader => Refusal::NoLeader,
        Reason::TooLarge => Refusal::TooLarge,
        Reason::Unspecified => return Err(empty("Refused.reason")),
    };
    Ok((Ticket(refused.ticket), why))
}

pub(crate) fn room_to_wire(room: Room) -> peer::Room {
    match room {
        Room::Ample => peer::Room::Ample,
        Room::Low => peer::Room::Low,
        Room::Short => peer::Room::Short,
    }
}

pub(crate) fn room(room: i32) -> Result<Room, Malformed> {
    match peer::Room::try_from(room) {
        Ok(peer::Room::Ample) => Ok(Room::Ample),
        Ok(peer::Room::Low) => Ok(Room::Low),
        Ok(peer::Room::Short) => Ok(Room::Short),
        Ok(peer::Room::Unspecified) | Err(_) => Err(empty("Room")),
    }
}

fn damage_to_wire(damage: Damage) -> peer::Damage {
    match damage {
        Damage::None => peer::Damage::Unspecified,
        Damage::Log => peer::Damage::Log,
        Damage::Directory => peer::Damage::Directory,
    }
}

fn damage(damage: peer::Damage) -> Damage {
    match damage {
        peer::Damage::Unspecified => Damage::None,
        peer::Damage::Log => Damage::Log,
        peer::Damage::Directory => Damage::Directory,
    }
}

fn history_to_wire(history: &History) -> peer::History {
    let spans = history.spans().iter().map(|s| peer::EpochSpan { epoch: s.epoch.0, last: s.last }).collect();
    peer::History { base: history.base().0, spans }
}

fn history(history: peer::History) -> Result<History, Malformed> {
    let spans = history.spans.iter().map(|s| EpochSpan { epoch: Epoch(s.epoch), last: s.last }).collect();
    History::from_parts(Zxid(history.base), spans)
        .ok_or_else(|| Malformed("a history whose epochs do not ascend".into()))
}

pub(crate) fn empty(what: &str) -> Malformed {
    Malformed(format!("{what} says nothing that this version knows"))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn traced() -> Trace {
        TraceContext::new([7; 16], [9; 8], true).map(Box::new)
    }

    #[test]
    fn every_message_survives_the_wire() {
        let mut history = History::default();
        assert!(history.append(Zxid::new(Epoch(1), 0)) && history.append(Zxid::new(Epoch(1), 1)));
        let entries = vec![
            Entry::marker(Epoch(2), Level(3), 5),
            Entry {
                zxid: Zxid::new(Epoch(2), 1),
                time_ms: 6,
                origin: Some(Origin { peer: PeerId(3), ticket: Ticket(9) }),
                body: Body::Store(Bytes::from_static(b"abc")),
                trace: traced(),
            },
            Entry {
                zxid: Zxid::new(Epoch(2), 2),
                time_ms: 7,
                origin: None,
                body: Body::Level(Level(4)),
                trace: None,
            },
        ];
        for message in [
            ToLeader::LearnerInfo { accepted_epoch: Epoch(3), levels: levels(2, 3).unwrap() },
            ToLeader::AckEpoch {
                epoch: Epoch(4),
                current_epoch: Epoch(3),
                history,
                counts: true,
                damage: Damage::Log,
                last_stamp: Stamp { zxid: Zxid(2), time_ms: 9 },
                ensemble: Some(EnsembleId(u128::MAX)),
                committed: Zxid(4),
                wall_ms: 8,
            },
            ToLeader::Ack(Zxid(7)),
            ToLeader::Forward(vec![Submission {
                ticket: Ticket(1),
                payload: Bytes::from_static(b"x"),
                trace: traced(),
            }]),
            ToLeader::Pong { round: 8, wall_ms: 7 },
            ToLeader::Barrier { ticket: Ticket(2) },
            ToLeader::Report(Bytes::from_static(b"r")),
            ToLeader::Disk(Room::Low),
            ToLeader::SetLevel { ticket: Ticket(5), expected: Level(1), level: Level(2) },
        ] {
            let frame = LearnerFrame::Message(message);
            assert_eq!(LearnerFrame::try_from(peer::LearnerMessage::from(frame.clone())), Ok(frame));
        }
        for message in [
            ToLearner::LeaderInfo { epoch: Epoch(3), ensemble: EnsembleId(5), level: None },
            ToLearner::LeaderInfo { epoch: Epoch(3), ensemble: EnsembleId(5), level: Some(Level(2)) },
            ToLearner::Diff { after: Zxid(1) },
            ToLearner::Trunc { to: Zxid(1) },
            ToLearner::Propose { prev: Zxid(1), entries: entries.clone(), commit: None },
            ToLearner::Propose { prev: Zxid(1), entries, commit: Some(Zxid(1)) },
            ToLearner::NewLeader {
                epoch: Epoch(1),
                target: Zxid(2),
                last_stamp: Stamp { zxid: Zxid(2), time_ms: 8 },
            },
            ToLearner::UpToDate { commit: Zxid(4) },
            ToLearner::Commit(Zxid(5)),
            ToLearner::Ping { round: 1, quorum_ms: 2 },
            ToLearner::Barrier { ticket: Ticket(1), zxid: Zxid(2) },
            ToLearner::Confirm(Bytes::from_static(b"c")),
            ToLearner::Refused { ticket: Ticket(1), why: Refusal::Full },
            ToLearner::Room(Room::Short),
            ToLearner::LevelSet { ticket: Ticket(5), result: Ok(Level(2)) },
            ToLearner::LevelSet { ticket: Ticket(6), result: Err(LevelRefusal::Refused("no".into())) },
            ToLearner::LevelSet { ticket: Ticket(7), result: Err(LevelRefusal::Unavailable("away".into())) },
        ] {
            let frame = LeaderFrame::Message(message);
            assert_eq!(LeaderFrame::try_from(peer::LeaderMessage::from(frame.clone())), Ok(frame));
        }
    }

    /// Two versions that follow each other run in one ensemble: what is here may be added to, and never changes its meaning.
    #[test]
    fn the_bytes_of_entries_are_these_and_no_unknown_kind_is_left_out() {
        let entry = |zxid, origin, body| Entry { zxid, time_ms: 6, origin, body, trace: None };
        let origin = Some(Origin { peer: PeerId(3), ticket: Ticket(9) });
        for (one, bytes) in [
            (Entry::marker(Epoch(2), Level(3), 5), "0880808080201005 2a0403000000 3802"),
            (
                entry(Zxid::new(Epoch(2), 1), origin, Body::Store(Bytes::from_static(b"abc"))),
                "0881808080201006 1803 2009 2a03616263 3801",
            ),
            (
                entry(Zxid::new(Epoch(2), 2), None, Body::Level(Level(4))),
                "0882808080201006 2a0404000000 3804",
            ),
        ] {
            let wire = entry_to_wire(one.clone());
            let hex: String = wire.encode_to_vec().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, bytes.replace(' ', ""), "{one:?}");
            assert_eq!(super::entry(wire.clone()), Ok(one.clone()));
            for kind in [0, 3, 5, 1 << 16 | 1, u32::MAX] {
                let entries = vec![entry_to_wire(one.clone()), peer::Entry { kind, ..wire.clone() }];
                let propose =
                    peer::leader_message::Kind::Propose(peer::Propose { prev: 1, entries, commit: 0 });
                let refused = LeaderFrame::try_from(peer::LeaderMessage { kind: Some(propose) }).unwrap_err();
                let named = if kind > 5 { "kind 65535".into() } else { format!("kind {kind}") };
                assert!(refused.0.contains(&named) && refused.0.contains("run the version"), "{refused}");
            }
        }
        for payload in [&b""[..], b"\0\0\0\0", b"\x01\0\0"] {
            let short = peer::Entry { payload: Bytes::from_static(payload), kind: 4, ..Default::default() };
            assert!(super::entry(short).is_err());
        }
    }

    fn greeting(name: &str, id: u32) -> Greeting {
        let observer = Member { id: PeerId(4), membership: Membership::Observer };
        let voter =
            |id, weight, group| Member { id: PeerId(id), membership: Membership::Voter { weight, group } };
        Greeting {
            name: name.to_owned(),
            id: PeerId(id),
            members: Ensemble::new([voter(1, 1, 0), voter(2, 3, 1), voter(3, 1, 0), observer]).unwrap(),
            standing: Standing {
                ensemble: Some(EnsembleId(7)),
                epoch: Epoch(5),
                bound: true,
                level: Some(Level(2)),
            },
            build: Build { version: "1.2.3".into(), levels: levels(2, 3).unwrap() },
            sync_limit: Duration::from_secs(2),
            tick: Duration::from_millis(200),
        }
    }

    #[test]
    fn what_is_said_of_incarnations_survives_the_wire() {
        let [own, met, confirmed] =
            [(u64::MAX, 7), (1, 0), (2, 1)].map(|(number, run)| Some(Incarnation { number, run }));
        let none = Acquaintance::default();
        for said in [Acquaintance { own, met, confirmed }, Acquaintance { own, ..none }, none] {
            for damage in [Damage::None, Damage::Log, Damage::Directory] {
                let hello = Hello::to_quorum(&greeting("e", 1), said, damage);
                assert_eq!((Hello::acquaintance(&hello), Hello::damage(&hello)), (said, damage));
            }
        }
    }

    #[test]
    fn strangers_are_told_what_to_correct() {
        let this = greeting("a", 1);
        let hello = |name: &str, id| Hello::to_peer(&greeting(name, id));
        let two = Some(PeerId(2));
        assert_eq!(Hello::check(hello("a", 2), &this, two), Ok(greeting("a", 2)));
        let other =
            peer::Standing { ensemble: Bytes::from_static(&[1; 16]), epoch: 9, bound: true, level: 2 };
        let runs = |min_level, max_level| peer::Build { version: "9.9".into(), min_level, max_level };
        let fewer = hello("a", 2).members.split_off(1);
        for (h, word) in [
            (hello("b", 2), "ensemble"),
            (hello("a", 3), "members"),
            (peer::Hello { protocol: PEER_PROTOCOL + 1, ..hello("a", 2) }, "versions"),
            (peer::Hello { standing: Some(other), ..hello("a", 2) }, "another ensemble"),
            (peer::Hello { members: fewer, ..hello("a", 2) }, "other members"),
            (
                peer::Hello { build: Some(runs(1, 1)), ..hello("a", 2) },
                "9.9, which knows level 1: run a newer",
            ),
            (
                peer::Hello { build: Some(runs(3, 4)), ..hello("a", 2) },
                "9.9, which knows level 3 to 4: run an older",
            ),
            (peer::Hello { build: None, ..hello("a", 2) }, "feature levels from 0 to 0"),
            (peer::Hello { members: Vec::new(), ..hello("a", 2) }, "no ensemble"),
            (Hello::to_wire("a", PeerId(2)), "no ensemble"),
        ] {
            let why = Hello::check(h, &this, two).unwrap_err().0;
            assert!(why.contains(word), "{why}");
        }
    }
}
