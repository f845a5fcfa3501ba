//! The parts that messages share.

use api::{
    Body, Entry, Epoch, EpochSpan, History, Level, LevelRefusal, Origin, PeerId, Stamp, Ticket, Trace,
    TraceContext, Zxid,
    peer::{Damage, Submission},
    ports::{Refusal, Room},
};

use super::{empty, hello::level};
use crate::{Malformed, peer};

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

pub(super) fn stamp_to_wire(stamp: Stamp) -> peer::Stamp {
    peer::Stamp { zxid: stamp.zxid.0, time_ms: stamp.time_ms }
}

pub(super) fn stamp(stamp: Option<peer::Stamp>) -> Stamp {
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

/// Ids of zero mean that there is no trace.
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

pub(super) fn damage_to_wire(damage: Damage) -> peer::Damage {
    match damage {
        Damage::None => peer::Damage::Unspecified,
        Damage::Log => peer::Damage::Log,
        Damage::Directory => peer::Damage::Directory,
    }
}

pub(super) fn damage(damage: peer::Damage) -> Damage {
    match damage {
        peer::Damage::Unspecified => Damage::None,
        peer::Damage::Log => Damage::Log,
        peer::Damage::Directory => Damage::Directory,
    }
}

pub(super) fn history_to_wire(history: &History) -> peer::History {
    let spans = history.spans().iter().map(|s| peer::EpochSpan { epoch: s.epoch.0, last: s.last }).collect();
    peer::History { base: history.base().0, spans }
}

pub(super) fn history(history: peer::History) -> Result<History, Malformed> {
    let spans = history.spans.iter().map(|s| EpochSpan { epoch: Epoch(s.epoch), last: s.last }).collect();
    History::from_parts(Zxid(history.base), spans)
        .ok_or_else(|| Malformed("a history whose epochs do not ascend".into()))
}
