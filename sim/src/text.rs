//! How messages look in a trace.

use api::Entry;
use quorum_core::{ToLeader, ToLearner};

pub(crate) fn zxids(entries: &[Entry]) -> String {
    match entries {
        [] => "nothing".into(),
        [one] => one.zxid.to_string(),
        [first, .., last] => format!("{} to {}", first.zxid, last.zxid),
    }
}

pub(crate) fn to_leader(message: &ToLeader) -> String {
    match message {
        ToLeader::LearnerInfo { accepted_epoch, .. } => format!("LEARNERINFO {accepted_epoch}"),
        ToLeader::AckEpoch { epoch, history, counts, current_epoch, damage, .. } => format!(
            "ACKEPOCH {epoch}, has {} in {current_epoch}{}{}",
            history.last(),
            if *counts { "" } else { ", again" },
            if damage.is_some() { ", damaged" } else { "" }
        ),
        ToLeader::Ack(zxid) => format!("ACK {zxid}"),
        ToLeader::Forward(batch) => format!("FORWARD {} writes", batch.len()),
        ToLeader::Pong { round, .. } => format!("PONG {round}"),
        ToLeader::Barrier { ticket } => format!("BARRIER {}", ticket.0),
        ToLeader::Disk(room) => format!("DISK {room:?}"),
        ToLeader::SetLevel { expected, level, .. } => format!("LEVEL {expected} to {level}"),
        ToLeader::Reconfigure { reconfig, .. } => format!("MEMBERS {}", reconfig.ensemble),
        ToLeader::Report(report) => format!("REPORT {} sessions", report.len() / 8 - 1),
    }
}

pub(crate) fn to_learner(message: &ToLearner) -> String {
    match message {
        ToLearner::LeaderInfo { epoch, .. } => format!("LEADERINFO {epoch}"),
        ToLearner::Diff { after } => format!("DIFF {after}"),
        ToLearner::Trunc { to } => format!("TRUNC {to}"),
        ToLearner::Snap { zxid, .. } => format!("SNAP {zxid}"),
        ToLearner::Propose { entries, commit: None, .. } => format!("PROPOSE {}", zxids(entries)),
        ToLearner::Propose { entries, commit: Some(zxid), .. } => {
            format!("PROPOSE {}, COMMIT {zxid}", zxids(entries))
        }
        ToLearner::NewLeader { target, .. } => format!("NEWLEADER {target}"),
        ToLearner::UpToDate { commit } => format!("UPTODATE {commit}"),
        ToLearner::Commit(zxid) => format!("COMMIT {zxid}"),
        ToLearner::Ping { round, .. } => format!("PING {round}"),
        ToLearner::Barrier { ticket, zxid } => format!("BARRIER {} at {zxid}", ticket.0),
        ToLearner::Confirm(_) => "CONFIRM".into(),
        ToLearner::Refused { ticket, .. } => format!("REFUSED {}", ticket.0),
        ToLearner::Room(room) => format!("ROOM {room:?}"),
        ToLearner::LevelSet { result, .. } => format!("LEVEL {result:?}"),
        ToLearner::Reconfigured { result, .. } => format!("MEMBERS {result:?}"),
    }
}
