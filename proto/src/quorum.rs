//! ZAB's messages: `api::peer` <-> `quorate.peer.v1`.

use api::{
    Entry, Epoch, EpochSpan, History, Origin, PeerId, Ticket, Trace, TraceContext, Zxid,
    peer::{Damage, Incarnation, Lives, Submission, ToLeader, ToLearner},
    ports::{Refusal, Room},
};
use bytes::Bytes;

use crate::{Malformed, PEER_PROTOCOL, peer};

/// The first message of each side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Name of the sender's ensemble.
    pub ensemble: String,
    /// The sender.
    pub id: PeerId,
    /// What it speaks.
    pub protocol: u32,
}

impl Hello {
    /// For the first message of this version.
    #[must_use]
    pub fn to_wire(ensemble: &str, id: PeerId) -> peer::Hello {
        let ensemble = ensemble.to_owned();
        peer::Hello { ensemble, id: id.0, protocol: PEER_PROTOCOL, ..peer::Hello::default() }
    }

    /// The same between quorums.
    #[must_use]
    pub fn to_quorum(ensemble: &str, id: PeerId, lives: Lives) -> peer::Hello {
        let wire = |Incarnation { number, run }| peer::Incarnation { number, run };
        peer::Hello {
            incarnation: lives.own.map(wire),
            met: lives.met.map(wire),
            confirmed: lives.confirmed.map(wire),
            ..Hello::to_wire(ensemble, id)
        }
    }

    /// What a server says of lives.
    #[must_use]
    pub fn lives(hello: &peer::Hello) -> Lives {
        let known = |wire: Option<peer::Incarnation>| {
            wire.map(|peer::Incarnation { number, run }| Incarnation { number, run })
        };
        let [own, met, confirmed] = [hello.incarnation, hello.met, hello.confirmed].map(known);
        Lives { own, met, confirmed }
    }

    /// What is wrong with a peer that introduces itself so; `expected`: whom we dialled. The text names the remedy.
    ///
    /// # Errors
    /// Another ensemble, another protocol, another id than expected.
    pub fn check(hello: peer::Hello, ensemble: &str, expected: Option<PeerId>) -> Result<PeerId, Malformed> {
        let id = PeerId(hello.id);
        if hello.ensemble != ensemble {
            return Err(Malformed(format!(
                "server {id} belongs to ensemble {:?} and this one to {ensemble:?}: correct the address of the member, \
                 or `ensemble` in one of the two configurations",
                hello.ensemble
            )));
        }
        if hello.protocol != PEER_PROTOCOL {
            return Err(Malformed(format!(
                "server {id} speaks peer protocol {} and this one {PEER_PROTOCOL}: run versions of Quorate that are at \
                 most one release apart",
                hello.protocol
            )));
        }
        match expected {
            Some(expected) if expected != id => Err(Malformed(format!(
                "the server at this address says it is {id}, not {expected}: correct the addresses in `members`, or \
                 the `id` of that server"
            ))),
            _ => Ok(id),
        }
    }
}

/// What a leader's stream carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaderFrame {
    /// First.
    Hello(peer::Hello),
    /// For the core.
    Message(ToLearner),
    /// A snapshot of this zxid begins.
    SnapStart(Zxid),
    /// A piece of it.
    SnapChunk(Bytes),
    /// It is complete.
    SnapEnd,
}

/// What a learner's stream carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LearnerFrame {
    /// First.
    Hello(peer::Hello),
    /// For the core.
    Message(ToLeader),
}

impl From<LearnerFrame> for peer::LearnerMessage {
    fn from(frame: LearnerFrame) -> peer::LearnerMessage {
        use peer::learner_message::Kind;
        let kind = match frame {
            LearnerFrame::Hello(hello) => Kind::Hello(hello),
            LearnerFrame::Message(message) => match message {
                ToLeader::LearnerInfo { accepted_epoch } => {
                    Kind::LearnerInfo(peer::LearnerInfo { accepted_epoch: accepted_epoch.0 })
                }
                ToLeader::AckEpoch { epoch, current_epoch, history, counts, damage, last_time_ms } => {
                    Kind::AckEpoch(peer::AckEpoch {
                        epoch: epoch.0,
                        current_epoch: current_epoch.0,
                        history: Some(history_to_wire(&history)),
                        counts,
                        damage: damage_to_wire(damage).into(),
                        last_time_ms,
                    })
                }
                ToLeader::Ack(zxid) => Kind::Ack(peer::Ack { zxid: zxid.0 }),
                ToLeader::Forward(submissions) => Kind::Forward(peer::Forward {
                    submissions: submissions.into_iter().map(submission_to_wire).collect(),
                }),
                ToLeader::Pong { round } => Kind::Pong(peer::Pong { round }),
                ToLeader::Barrier { ticket } => Kind::Barrier(peer::BarrierRequest { ticket: ticket.0 }),
                ToLeader::Report(report) => Kind::Report(report),
                ToLeader::Disk(room) => Kind::Disk(room_to_wire(room).into()),
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
            Kind::LearnerInfo(m) => ToLeader::LearnerInfo { accepted_epoch: Epoch(m.accepted_epoch) },
            Kind::AckEpoch(m) => ToLeader::AckEpoch {
                epoch: Epoch(m.epoch),
                current_epoch: Epoch(m.current_epoch),
                damage: damage(m.damage()),
                history: history(m.history.ok_or_else(|| empty("AckEpoch.history"))?)?,
                counts: m.counts,
                last_time_ms: m.last_time_ms,
            },
            Kind::Ack(m) => ToLeader::Ack(Zxid(m.zxid)),
            Kind::Forward(m) => ToLeader::Forward(m.submissions.into_iter().map(submission).collect()),
            Kind::Pong(m) => ToLeader::Pong { round: m.round },
            Kind::Barrier(m) => ToLeader::Barrier { ticket: Ticket(m.ticket) },
            Kind::Report(report) => ToLeader::Report(report),
            Kind::Disk(disk) => ToLeader::Disk(room(disk)?),
        };
        Ok(LearnerFrame::Message(message))
    }
}

impl From<LeaderFrame> for peer::LeaderMessage {
    fn from(frame: LeaderFrame) -> peer::LeaderMessage {
        use peer::leader_message::Kind;
        let kind = match frame {
            LeaderFrame::Hello(hello) => Kind::Hello(hello),
            LeaderFrame::SnapStart(zxid) => Kind::Snap(zxid.0),
            LeaderFrame::SnapChunk(chunk) => Kind::SnapChunk(chunk),
            LeaderFrame::SnapEnd => Kind::SnapEnd(peer::SnapEnd {}),
            LeaderFrame::Message(message) => match message {
                ToLearner::LeaderInfo { epoch } => Kind::LeaderInfo(peer::LeaderInfo { epoch: epoch.0 }),
                ToLearner::Diff { after } => Kind::Diff(after.0),
                ToLearner::Trunc { to } => Kind::Trunc(to.0),
                ToLearner::Snap { zxid } => Kind::Snap(zxid.0),
                ToLearner::Propose { prev, entries } => Kind::Propose(peer::Propose {
                    prev: prev.0,
                    entries: entries.into_iter().map(entry_to_wire).collect(),
                }),
                ToLearner::NewLeader { epoch, target, last_time_ms } => {
                    Kind::NewLeader(peer::NewLeader { epoch: epoch.0, target: target.0, last_time_ms })
                }
                ToLearner::UpToDate { commit } => Kind::UpToDate(peer::UpToDate { commit: commit.0 }),
                ToLearner::Commit(zxid) => Kind::Commit(zxid.0),
                ToLearner::Ping { round } => Kind::Ping(peer::Ping { round }),
                ToLearner::Barrier { ticket, zxid } => {
                    Kind::Barrier(peer::BarrierReply { ticket: ticket.0, zxid: zxid.0 })
                }
                ToLearner::Refused { ticket, why } => Kind::Refused(refused_to_wire(ticket, why)),
                ToLearner::Room(room) => Kind::Room(room_to_wire(room).into()),
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
            Kind::Snap(zxid) => return Ok(LeaderFrame::SnapStart(Zxid(zxid))),
            Kind::SnapChunk(chunk) => return Ok(LeaderFrame::SnapChunk(chunk)),
            Kind::SnapEnd(_) => return Ok(LeaderFrame::SnapEnd),
            Kind::LeaderInfo(m) => ToLearner::LeaderInfo { epoch: Epoch(m.epoch) },
            Kind::Diff(after) => ToLearner::Diff { after: Zxid(after) },
            Kind::Trunc(to) => ToLearner::Trunc { to: Zxid(to) },
            Kind::Propose(m) => {
                ToLearner::Propose { prev: Zxid(m.prev), entries: m.entries.into_iter().map(entry).collect() }
            }
            Kind::NewLeader(m) => ToLearner::NewLeader {
                epoch: Epoch(m.epoch),
                target: Zxid(m.target),
                last_time_ms: m.last_time_ms,
            },
            Kind::UpToDate(m) => ToLearner::UpToDate { commit: Zxid(m.commit) },
            Kind::Commit(zxid) => ToLearner::Commit(Zxid(zxid)),
            Kind::Ping(m) => ToLearner::Ping { round: m.round },
            Kind::Barrier(m) => ToLearner::Barrier { ticket: Ticket(m.ticket), zxid: Zxid(m.zxid) },
            Kind::Refused(m) => {
                let (ticket, why) = refused(m)?;
                ToLearner::Refused { ticket, why }
            }
            Kind::Room(said) => ToLearner::Room(room(said)?),
        };
        Ok(LeaderFrame::Message(message))
    }
}

pub(crate) fn entry_to_wire(entry: Entry) -> peer::Entry {
    let (origin, ticket) = entry.origin.map_or((0, 0), |o| (o.peer.0, o.ticket.0));
    let trace = trace_to_wire(&entry.trace);
    peer::Entry { zxid: entry.zxid.0, time_ms: entry.time_ms, origin, ticket, payload: entry.payload, trace }
}

pub(crate) fn entry(entry: peer::Entry) -> Entry {
    let origin =
        (entry.origin != 0).then_some(Origin { peer: PeerId(entry.origin), ticket: Ticket(entry.ticket) });
    let trace = trace(entry.trace);
    Entry { zxid: Zxid(entry.zxid), time_ms: entry.time_ms, origin, payload: entry.payload, trace }
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
    use super::*;

    fn traced() -> Trace {
        TraceContext::new([7; 16], [9; 8], true).map(Box::new)
    }

    #[test]
    fn every_message_survives_the_wire() {
        let mut history = History::default();
        assert!(history.append(Zxid::new(Epoch(1), 0)) && history.append(Zxid::new(Epoch(1), 1)));
        let entries = vec![
            Entry::marker(Epoch(2), 5),
            Entry {
                zxid: Zxid::new(Epoch(2), 1),
                time_ms: 6,
                origin: Some(Origin { peer: PeerId(3), ticket: Ticket(9) }),
                payload: Bytes::from_static(b"abc"),
                trace: traced(),
            },
        ];
        for message in [
            ToLeader::LearnerInfo { accepted_epoch: Epoch(3) },
            ToLeader::AckEpoch {
                epoch: Epoch(4),
                current_epoch: Epoch(3),
                history,
                counts: true,
                damage: Damage::Log,
                last_time_ms: 9,
            },
            ToLeader::Ack(Zxid(7)),
            ToLeader::Forward(vec![Submission {
                ticket: Ticket(1),
                payload: Bytes::from_static(b"x"),
                trace: traced(),
            }]),
            ToLeader::Pong { round: 8 },
            ToLeader::Barrier { ticket: Ticket(2) },
            ToLeader::Report(Bytes::from_static(b"r")),
            ToLeader::Disk(Room::Low),
        ] {
            let frame = LearnerFrame::Message(message);
            assert_eq!(LearnerFrame::try_from(peer::LearnerMessage::from(frame.clone())), Ok(frame));
        }
        for message in [
            ToLearner::LeaderInfo { epoch: Epoch(3) },
            ToLearner::Diff { after: Zxid(1) },
            ToLearner::Trunc { to: Zxid(1) },
            ToLearner::Propose { prev: Zxid(1), entries },
            ToLearner::NewLeader { epoch: Epoch(1), target: Zxid(2), last_time_ms: 8 },
            ToLearner::UpToDate { commit: Zxid(4) },
            ToLearner::Commit(Zxid(5)),
            ToLearner::Ping { round: 1 },
            ToLearner::Barrier { ticket: Ticket(1), zxid: Zxid(2) },
            ToLearner::Refused { ticket: Ticket(1), why: Refusal::Full },
            ToLearner::Room(Room::Short),
        ] {
            let frame = LeaderFrame::Message(message);
            assert_eq!(LeaderFrame::try_from(peer::LeaderMessage::from(frame.clone())), Ok(frame));
        }
    }

    #[test]
    fn lives_survive_the_wire() {
        let [own, met, confirmed] =
            [(u64::MAX, 7), (1, 0), (2, 1)].map(|(number, run)| Some(Incarnation { number, run }));
        for lives in [Lives { own, met, confirmed }, Lives { own, ..Lives::default() }, Lives::default()] {
            assert_eq!(Hello::lives(&Hello::to_quorum("e", PeerId(1), lives)), lives);
        }
    }

    #[test]
    fn strangers_are_told_what_to_correct() {
        let hello =
            |ensemble: &str, id, protocol| peer::Hello { protocol, ..Hello::to_wire(ensemble, PeerId(id)) };
        assert_eq!(Hello::check(hello("a", 2, PEER_PROTOCOL), "a", Some(PeerId(2))), Ok(PeerId(2)));
        for (h, expected, word) in [
            (hello("b", 2, PEER_PROTOCOL), None, "ensemble"),
            (hello("a", 3, PEER_PROTOCOL), Some(PeerId(2)), "members"),
            (hello("a", 2, PEER_PROTOCOL + 1), None, "versions"),
        ] {
            assert!(Hello::check(h, "a", expected).unwrap_err().0.contains(word));
        }
    }
}
