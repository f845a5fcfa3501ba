//! The task that turns the core's commands for one learner into messages, as fast as the stream takes them.

use std::collections::VecDeque;

use api::Zxid;
use api::peer::ToLearner;
use quorum_core::Input;
use quorum_log::{ReadError, SnapshotError, SnapshotReader};

use super::{Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{LinkId, Packet};

#[derive(Debug)]
pub(crate) enum Command {
    Message(ToLearner),
    Entries { after: Zxid, upto: Zxid },
    Snapshot(Zxid),
}

#[derive(Default)]
pub(crate) struct Outgoing {
    commands: VecDeque<Command>,
    snapshot: Option<SnapshotReader>,
    turn: bool,
}

/// Messages between the task and the socket, and in the socket.
const SEND_QUEUE: usize = 8;

impl Outgoing {
    /// As in `quorum-svc`: what may be said together is.
    fn push(&mut self, new: Command) {
        match (&new, self.commands.back_mut()) {
            (Command::Entries { after, upto }, Some(Command::Entries { upto: end, .. })) if end == after => {
                *end = *upto
            }
            _ => self.commands.push_back(new),
        }
    }
}

impl Node {
    pub(super) fn tell_learner(&mut self, cx: &mut Context, link: LinkId, command: Command) {
        let (me, name) = (self.end(), self.name());
        let Some(process) = &mut self.up else { return };
        let Some(outgoing) = process.quorum.learners.get_mut(&link) else { return };
        // Beside the data, which may wait for the stream.
        let command = match command {
            Command::Message(message) if message.is_control() => {
                cx.note(&name, || format!("to learner {link}: {}", crate::text::to_learner(&message)));
                return cx.send(link, me, Packet::ToLearner(message));
            }
            command => command,
        };
        outgoing.push(command);
        if !std::mem::replace(&mut outgoing.turn, true) {
            let at = self.turn_delay(cx);
            self.schedule(cx, at, NodeEvent::Send { link });
        }
    }

    pub(super) fn on_send(&mut self, cx: &mut Context, link: LinkId) -> Result<(), Stop> {
        let me = self.end();
        loop {
            let Some(process) = &mut self.up else { return Ok(()) };
            let Some(outgoing) = process.quorum.learners.get_mut(&link) else { return Ok(()) };
            outgoing.turn = false;
            if outgoing.snapshot.is_none() && outgoing.commands.is_empty() {
                return Ok(());
            }
            if cx.net.in_flight(link, me) >= SEND_QUEUE {
                outgoing.turn = true;
                let at = cx.now + 2_000;
                self.schedule(cx, at, NodeEvent::Send { link });
                return Ok(());
            }
            if self.send_next(cx, link)?.is_none() {
                // It comes back and starts over.
                cx.close(link, me, None);
                self.on_link_over(cx, link);
                if let Some(process) = &mut self.up {
                    process.quorum.learners.remove(&link);
                }
                self.tell_quorum(cx, Input::Disconnected { conn: quorum_core::Conn(link) });
                return Ok(());
            }
        }
    }

    /// `None` if the stream cannot go on.
    ///
    /// A snapshot that is damaged costs the learner its connection, and an older one may do. A log that is not what was written is
    /// what this node itself stands on: it stops, and finds out when it starts again. So it does when the disk does not give
    /// what it has.
    fn send_next(&mut self, cx: &mut Context, link: LinkId) -> Result<Option<()>, Stop> {
        let (me, name) = (self.end(), self.name());
        let Some(process) = &mut self.up else { return Ok(None) };
        let Some(outgoing) = process.quorum.learners.get_mut(&link) else { return Ok(None) };
        if let Some(reader) = &mut outgoing.snapshot {
            let zxid = reader.zxid();
            let packet = match reader.next_chunk() {
                Ok(Some(chunk)) => Packet::SnapChunk(chunk),
                Ok(None) => {
                    outgoing.snapshot = None;
                    Packet::SnapEnd
                }
                Err(error) => {
                    outgoing.snapshot = None;
                    return self.snapshot_failed(cx, zxid, error).map(|()| None);
                }
            };
            cx.send(link, me, packet);
            return Ok(Some(()));
        }
        let Some(command) = outgoing.commands.pop_front() else { return Ok(None) };
        match command {
            Command::Message(message) => {
                if let ToLearner::Diff { .. } = message {
                    cx.stats.count("DIFF");
                }
                cx.note(&name, || format!("to learner {link}: {}", crate::text::to_learner(&message)));
                cx.send(link, me, Packet::ToLearner(message));
            }
            Command::Entries { after, upto } => {
                let entries = match process.quorum.view.read_after(after, upto, cx.plan.sizes.batch) {
                    Ok(entries) => entries,
                    // A purge overtook this learner.
                    Err(ReadError::Purged { .. } | ReadError::NotThere { .. }) => return Ok(None),
                    Err(ReadError::Log(error)) => return Err(error.into()),
                };
                let Some(last) = entries.last().map(|e| e.zxid) else { return Ok(None) };
                if last < upto {
                    outgoing.commands.push_front(Command::Entries { after: last, upto });
                }
                cx.note(&name, || format!("to learner {link}: PROPOSE {}", crate::text::zxids(&entries)));
                cx.send(link, me, Packet::ToLearner(ToLearner::Propose { prev: after, entries }));
            }
            Command::Snapshot(zxid) => match process.snapshots.read(zxid) {
                Ok(reader) => {
                    let level = reader.level();
                    outgoing.snapshot = Some(reader);
                    cx.note(&name, || format!("to learner {link}: SNAP {zxid}"));
                    cx.send(link, me, Packet::SnapStart(zxid, level));
                }
                Err(error) => return self.snapshot_failed(cx, zxid, error).map(|()| None),
            },
        }
        Ok(Some(()))
    }

    /// A damaged one no longer counts; the next attempt is made with what is left.
    fn snapshot_failed(&mut self, cx: &mut Context, zxid: Zxid, error: SnapshotError) -> Result<(), Stop> {
        cx.stats.count("snapshots unreadable for a learner");
        if let SnapshotError::Disk(_) = error {
            return Err(error.into());
        }
        let Some(process) = &self.up else { return Ok(()) };
        let newest = process.snapshots.latest();
        if newest != Some(zxid) {
            self.tell_quorum(cx, Input::SnapshotsLeft { newest });
        }
        Ok(())
    }
}
