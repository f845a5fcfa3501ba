//! The task that sends a learner what the core wants, as fast as the stream takes it.

use api::peer::ToLearner;
use quorum_core::{Conn, Input};
use quorum_shell::{Command, Ended, Frame, Outgoing, Read, Sent, ToSend};

use super::{Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{LinkId, Packet};

#[derive(Default)]
pub(crate) struct Learner {
    outgoing: Outgoing,
    turn: bool,
}

/// Messages between the task and the socket, and in the socket.
const SEND_QUEUE: usize = 8;

impl Node {
    pub(super) fn tell_learner(&mut self, cx: &mut Context, link: LinkId, command: Command) {
        let Some(process) = &mut self.up else { return };
        let Some(learner) = process.quorum.learners.get_mut(&link) else { return };
        // Beside the data, which may wait for the stream.
        let command = match command {
            Command::Message(message) if message.is_control() => {
                return self.send_frame(cx, link, Frame::Message(message));
            }
            command => command,
        };
        learner.outgoing.push(command);
        if !std::mem::replace(&mut learner.turn, true) {
            let at = self.turn_delay(cx);
            self.schedule(cx, at, NodeEvent::Send { link });
        }
    }

    pub(super) fn on_send(&mut self, cx: &mut Context, link: LinkId) -> Result<(), Stop> {
        let me = self.end();
        loop {
            let Some(process) = &mut self.up else { return Ok(()) };
            let Some(learner) = process.quorum.learners.get_mut(&link) else { return Ok(()) };
            learner.turn = false;
            if cx.net.in_flight(link, me) >= SEND_QUEUE {
                learner.turn = true;
                let at = cx.now + 2_000;
                self.schedule(cx, at, NodeEvent::Send { link });
                return Ok(());
            }
            let frame = match learner.outgoing.poll() {
                ToSend::Wait => return Ok(()),
                ToSend::Frame(frame) => Ok(frame),
                ToSend::Read(what) => {
                    let of_snapshot = !matches!(what, Read::Entries { .. });
                    let got =
                        what.carry_out(process.quorum.shell.view(), &process.snapshots, cx.plan.sizes.batch);
                    let Sent { frame, tell } = learner.outgoing.got(got, &process.snapshots);
                    if of_snapshot && frame.is_err() {
                        cx.stats.count("snapshots unreadable for a learner");
                    }
                    if let Some(input) = tell {
                        self.tell_quorum(cx, input);
                    }
                    frame
                }
            };
            match frame {
                Ok(frame) => self.send_frame(cx, link, frame),
                Err(Ended(failure)) => {
                    if let Some(failure) = failure {
                        return Err(failure.into());
                    }
                    // It comes back and starts over.
                    cx.close(link, me, None);
                    self.on_link_over(cx, link);
                    self.tell_quorum(cx, Input::Disconnected { conn: Conn(link) });
                    return Ok(());
                }
            }
        }
    }

    fn send_frame(&self, cx: &mut Context, link: LinkId, frame: Frame) {
        let packet = match frame {
            Frame::Message(message) => {
                if let ToLearner::Diff { .. } = message {
                    cx.stats.count("DIFF");
                }
                cx.note(self.name(), || format!("to learner {link}: {}", crate::text::to_learner(&message)));
                Packet::ToLearner(message)
            }
            Frame::SnapStart(zxid, level, roster) => {
                cx.note(self.name(), || format!("to learner {link}: SNAP {zxid}"));
                Packet::SnapStart(zxid, level, roster)
            }
            Frame::SnapChunk(chunk) => Packet::SnapChunk(chunk),
            Frame::SnapEnd => Packet::SnapEnd,
        };
        cx.send(link, self.end(), packet);
    }
}
