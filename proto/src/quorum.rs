//! ZAB's messages: `api::peer` <-> `quorate.peer.v1`.

use std::sync::Arc;

use api::{
    Epoch, Level, Roster, Ticket, Zxid,
    peer::{ToLeader, ToLearner},
};
use bytes::Bytes;

use crate::{Malformed, peer};

mod hello;
mod parts;
mod reconfig;

use hello::levels;
pub use hello::{Hello, level, roster, standing, standing_to_wire};
pub(crate) use hello::{build, build_to_wire, ensemble, ensemble_to_wire};
use parts::{damage, damage_to_wire, history, history_to_wire, stamp, stamp_to_wire};
pub(crate) use parts::{
    entry, entry_to_wire, refused, refused_to_wire, room, room_to_wire, submission, submission_to_wire,
};
pub use parts::{level_set, level_set_to_wire};
pub use reconfig::{reconfig, reconfig_to_wire, reconfigured, reconfigured_to_wire};

/// What a leader's stream carries.
#[derive(Clone, PartialEq, Debug)]
pub enum LeaderFrame {
    /// First.
    Hello(peer::Hello),
    /// For the core.
    Message(ToLearner),
    /// A snapshot of this zxid, at this feature level, begins.
    SnapStart(Zxid, Level, Arc<Roster>),
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
                ToLeader::Reconfigure { ticket, reconfig } => Kind::Reconfigure(peer::Reconfigure {
                    ticket: ticket.0,
                    reconfig: Some(reconfig_to_wire(reconfig)),
                }),
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
            Kind::Reconfigure(m) => ToLeader::Reconfigure {
                ticket: Ticket(m.ticket),
                reconfig: reconfig(m.reconfig.unwrap_or_default())?,
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
            LeaderFrame::SnapStart(zxid, level, members) => snap_to_wire(zxid, level, &members),
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
                ToLearner::Snap { zxid, level, roster } => snap_to_wire(zxid, level, &roster),
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
                ToLearner::Reconfigured { ticket, result } => {
                    Kind::Reconfigured(reconfigured_to_wire(ticket, result))
                }
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
            Kind::Snap(m) => {
                return Ok(LeaderFrame::SnapStart(Zxid(m.zxid), level(m.level)?, roster(&m.members)?));
            }
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
            Kind::Reconfigured(m) => {
                let (ticket, result) = reconfigured(m)?;
                ToLearner::Reconfigured { ticket, result }
            }
        };
        Ok(LeaderFrame::Message(message))
    }
}

fn snap_to_wire(zxid: Zxid, level: Level, roster: &Roster) -> peer::leader_message::Kind {
    peer::leader_message::Kind::Snap(peer::Snap {
        zxid: zxid.0,
        level: level.0,
        members: roster.encode().into(),
    })
}

pub(crate) fn empty(what: &str) -> Malformed {
    Malformed(format!("{what} says nothing that this version knows"))
}

#[cfg(test)]
mod tests;
