//! Messages as text.

use super::network::Down;
use super::*;

pub(super) fn up_text(message: &ToLeader) -> String {
    match message {
        ToLeader::LearnerInfo { accepted_epoch, .. } => format!("LEARNERINFO {accepted_epoch}"),
        ToLeader::AckEpoch { epoch, history, counts, .. } => {
            format!("ACKEPOCH {epoch} {}{}", history.last(), if *counts { "" } else { " again" })
        }
        ToLeader::Ack(zxid) => format!("ACK {zxid}"),
        ToLeader::Forward(batch) => format!("FORWARD {}", batch.len()),
        ToLeader::Pong { .. } => "PONG".into(),
        ToLeader::Barrier { .. } => "BARRIER".into(),
        ToLeader::Report(_) => "REPORT".into(),
        ToLeader::Disk(room) => format!("DISK {room:?}"),
        ToLeader::SetLevel { expected, level, .. } => format!("LEVEL {expected} to {level}"),
        ToLeader::Reconfigure { reconfig, .. } => format!("MEMBERS {}", reconfig.ensemble),
    }
}

pub(super) fn down_text(down: &Down) -> String {
    match down {
        Down::Snapshot(zxid, _) => format!("SNAP {zxid}"),
        Down::Message(message) => match message {
            ToLearner::LeaderInfo { epoch, .. } => format!("LEADERINFO {epoch}"),
            ToLearner::Diff { after } => format!("DIFF {after}"),
            ToLearner::Trunc { to } => format!("TRUNC {to}"),
            ToLearner::Snap { zxid, .. } => format!("SNAP {zxid}"),
            ToLearner::Propose { entries, commit, .. } => {
                let zxids: Vec<String> = entries.iter().map(|e| e.zxid.to_string()).collect();
                let commit = commit.map(|zxid| format!(", COMMIT {zxid}")).unwrap_or_default();
                format!("PROPOSE {}{commit}", zxids.join(" "))
            }
            ToLearner::NewLeader { target, .. } => format!("NEWLEADER {target}"),
            ToLearner::UpToDate { commit } => format!("UPTODATE {commit}"),
            ToLearner::Commit(zxid) => format!("COMMIT {zxid}"),
            ToLearner::Ping { .. } => "PING".into(),
            ToLearner::Barrier { zxid, .. } => format!("BARRIER {zxid}"),
            ToLearner::Refused { .. } => "REFUSED".into(),
            ToLearner::Room(room) => format!("ROOM {room:?}"),
            ToLearner::LevelSet { result, .. } => format!("LEVEL {result:?}"),
            ToLearner::Reconfigured { result, .. } => format!("MEMBERS {result:?}"),
            ToLearner::Confirm(_) => "CONFIRM".into(),
        },
    }
}
