//! Events as text, for traces.

use std::rc::Rc;

use api::Entry;
use quorum_core::{Conn, ToLeader, ToLearner};

use super::Action;
use super::bounds::Left;
use super::disk::Op;
use super::net::{Link, Net, peer};
use super::server::{Down, Messages, Server};

pub(crate) fn event(
    action: Action,
    net: &Net,
    servers: &[Rc<Server>],
    messages: &Messages,
    left: &Left,
) -> String {
    let link = |conn: Conn| net.links.iter().find(move |l| l.conn == conn);
    let pair = |l: &Link| (peer(l.learner), peer(l.leader));
    match action {
        Action::Lead(i) => format!("the election tells {} to lead", peer(i)),
        Action::Follow(i, l) => format!("the election tells {} to follow {}, it connects", peer(i), peer(l)),
        Action::Up(conn) => match link(conn).and_then(|l| Some((pair(l), l.up.first()?))) {
            Some(((learner, leader), message)) => {
                format!("{learner} -> {leader}: {}", up(messages.up.get(message.0)))
            }
            None => "nothing".into(),
        },
        Action::Down(conn) => match link(conn).and_then(|l| Some((pair(l), l.down.first()?))) {
            Some(((learner, leader), message)) => {
                format!("{leader} -> {learner}: {}", down(messages.down.get(message.0)))
            }
            None => "nothing".into(),
        },
        Action::UpEnds(conn) | Action::DownEnds(conn) => match link(conn).map(pair) {
            Some((learner, leader)) => {
                let (at, other) =
                    if matches!(action, Action::UpEnds(_)) { (leader, learner) } else { (learner, leader) };
                format!("{at} notices that its connection with {other} has ended")
            }
            None => "nothing".into(),
        },
        Action::Disk(i) => {
            format!("disk of {}: {}", peer(i), servers[i].disk.queue.front().map_or("".into(), op))
        }
        Action::Crash(i, 0) => format!("{} crashes and starts anew", peer(i)),
        Action::Crash(i, n) => {
            format!("{} crashes with {n} entries of an append on disk, and starts anew", peer(i))
        }
        Action::Wipe(i) => format!("{} loses its disk and starts anew", peer(i)),
        Action::PutBack(i, kept) => {
            format!("{} starts anew from an older copy of its disk with {kept} entries", peer(i))
        }
        Action::Damage(i, kept) => {
            format!("{} starts anew and finds its log damaged behind {kept} entries", peer(i))
        }
        Action::Leave(i) => format!("{} is about to stop", peer(i)),
        Action::GiveUp(i) => format!("{} loses patience", peer(i)),
        Action::CommitDue(i) => format!("{} sends the commit that waits for a proposal", peer(i)),
        Action::Submit(i) => {
            format!("the store of {} submits a write ({} left)", peer(i), left.of.writes - 1)
        }
        Action::Barrier(i) => format!("the store of {} asks for a barrier", peer(i)),
        Action::SaveSnapshot(i) => {
            format!("the store of {} saves a snapshot of {}", peer(i), servers[i].applied)
        }
        Action::Cut(conn) => match link(conn).map(pair) {
            Some((learner, leader)) => format!("the connection of {learner} with {leader} breaks"),
            None => "nothing".into(),
        },
    }
}

fn zxids(entries: &[Entry]) -> String {
    entries.iter().map(|e| e.zxid.to_string()).collect::<Vec<_>>().join(" ")
}

fn op(op: &Op) -> String {
    match op {
        Op::Append(entries) => format!("{} appended", zxids(entries)),
        Op::Epochs { accepted, current, .. } => format!("epochs accepted {accepted}, current {current}"),
        Op::Truncate(to) => format!("cut back to {to}"),
        Op::Install(zxid, _) => format!("the log starts anew behind {zxid}"),
        Op::Purge(upto) => format!("purged up to {upto}"),
    }
}

fn up(message: &ToLeader) -> String {
    match message {
        ToLeader::LearnerInfo { accepted_epoch, .. } => format!("LEARNERINFO {accepted_epoch}"),
        ToLeader::AckEpoch { epoch, current_epoch, history, counts, damage, .. } => {
            let again = match (*counts, damage.is_some()) {
                (_, true) => ", damaged",
                (true, false) => "",
                (false, false) => ", promised before",
            };
            format!("ACKEPOCH {epoch} (log up to {}, epoch {current_epoch}{again})", history.last())
        }
        ToLeader::Ack(zxid) => format!("ACK {zxid}"),
        ToLeader::Forward(batch) => {
            let tickets: Vec<String> = batch.iter().map(|s| s.ticket.0.to_string()).collect();
            format!("FORWARD write {}", tickets.join(", "))
        }
        ToLeader::Pong { round, .. } => format!("PONG {round}"),
        ToLeader::Barrier { .. } => "BARRIER".into(),
        ToLeader::Report(_) => "REPORT".into(),
        ToLeader::Disk(room) => format!("DISK {room:?}"),
        ToLeader::SetLevel { expected, level, .. } => format!("LEVEL {expected} to {level}"),
        ToLeader::Reconfigure { reconfig, .. } => format!("MEMBERS {}", reconfig.ensemble),
    }
}

fn down(down: &Down) -> String {
    match down {
        Down::Snapshot(zxid, _) => format!("SNAP {zxid}"),
        Down::Message(message) => match message {
            ToLearner::LeaderInfo { epoch, .. } => format!("LEADERINFO {epoch}"),
            ToLearner::Diff { after } => format!("DIFF {after}"),
            ToLearner::Trunc { to } => format!("TRUNC {to}"),
            ToLearner::Snap { zxid, .. } => format!("SNAP {zxid}"),
            ToLearner::Propose { entries, commit: None, .. } => format!("PROPOSE {}", zxids(entries)),
            ToLearner::Propose { entries, commit: Some(zxid), .. } => {
                format!("PROPOSE {}, COMMIT {zxid}", zxids(entries))
            }
            ToLearner::NewLeader { epoch, target, .. } => format!("NEWLEADER {epoch} up to {target}"),
            ToLearner::UpToDate { commit } => format!("UPTODATE {commit}"),
            ToLearner::Commit(zxid) => format!("COMMIT {zxid}"),
            ToLearner::Ping { round, .. } => format!("PING {round}"),
            ToLearner::Barrier { zxid, .. } => format!("BARRIER {zxid}"),
            ToLearner::Refused { .. } => "REFUSED".into(),
            ToLearner::Room(room) => format!("ROOM {room:?}"),
            ToLearner::LevelSet { result, .. } => format!("LEVEL {result:?}"),
            ToLearner::Reconfigured { result, .. } => format!("MEMBERS {result:?}"),
            ToLearner::Confirm(_) => "CONFIRM".into(),
        },
    }
}
