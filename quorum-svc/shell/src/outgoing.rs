//! What a leader sends to one learner.

use std::collections::VecDeque;

use api::peer::ToLearner;
use api::{Level, Zxid};
use bytes::Bytes;
use quorum_core::Input;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};

use crate::{Failure, Got, Read};

/// What the leader sends to one learner. A slow learner costs a few of these under any load: entries stay in the log until
/// its stream has room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// This.
    Message(ToLearner),
    /// The log, in as many messages as is handy.
    Entries {
        /// Behind this one.
        after: Zxid,
        /// Up to this one.
        upto: Zxid,
        /// To be said with the first of them.
        commit: Option<Zxid>,
    },
    /// The snapshot at this zxid.
    Snapshot(Zxid),
}

impl Command {
    /// As [`Tell::merge`](crate::Tell::merge).
    pub fn merge(queue: &mut VecDeque<Command>, new: Command) -> Option<Command> {
        match (new, queue.back_mut()) {
            (
                Command::Entries { after, upto, commit },
                Some(Command::Entries { upto: end, commit: told, .. }),
            ) if *end == after => {
                *end = upto;
                *told = commit.or(*told);
                None
            }
            (new, _) => Some(new),
        }
    }
}

/// What goes over the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Of the protocol.
    Message(ToLearner),
    /// A snapshot at this zxid follows, at this level.
    SnapStart(Zxid, Level),
    /// A piece of it.
    SnapChunk(Bytes),
    /// It is whole.
    SnapEnd,
}

/// What to do next for a learner.
pub enum ToSend {
    /// Nothing, until there are more commands.
    Wait,
    /// Send this.
    Frame(Frame),
    /// Read this, and say [what came of it](Outgoing::got).
    Read(Read),
}

/// What came of reading for a learner.
#[derive(Debug)]
pub struct Sent {
    /// To be sent.
    pub frame: Result<Frame, Ended>,
    /// The core is to be told first.
    pub tell: Option<Input>,
}

/// The stream cannot go on; if there is a failure, nor can the node. The learner comes back, and gets what there is then.
#[derive(Debug)]
pub struct Ended(pub Option<Failure>);

/// Turns commands into frames, as fast as a stream takes them.
#[derive(Default)]
pub struct Outgoing {
    commands: VecDeque<Command>,
    snapshot: Option<SnapshotReader>,
    /// To be said with the entries that are being read.
    commit: Option<Zxid>,
}

impl Outgoing {
    /// More to send, behind all else.
    pub fn push(&mut self, command: Command) {
        let left = Command::merge(&mut self.commands, command);
        self.commands.extend(left);
    }

    /// What comes next.
    pub fn poll(&mut self) -> ToSend {
        if let Some(reader) = self.snapshot.take() {
            return ToSend::Read(Read::Piece(reader));
        }
        match self.commands.pop_front() {
            None => ToSend::Wait,
            Some(Command::Message(message)) => ToSend::Frame(Frame::Message(message)),
            Some(Command::Entries { after, upto, commit }) => {
                self.commit = commit;
                ToSend::Read(Read::Entries { after, upto })
            }
            Some(Command::Snapshot(zxid)) => ToSend::Read(Read::Open(zxid)),
        }
    }

    /// What came of reading.
    ///
    /// A snapshot that is damaged costs the learner its connection, and an older one may do. A log that is not what was written is
    /// what this node itself stands on: it stops, and heals when it is started again. So it does when the disk does not give what
    /// it has.
    pub fn got(&mut self, got: Got, snapshots: &Snapshots) -> Sent {
        let (zxid, frame) = match got {
            Got::Entries { after, upto, entries } => {
                return Sent { frame: self.entries(after, upto, entries), tell: None };
            }
            Got::Opened(_, Ok(reader)) => {
                let frame = Frame::SnapStart(reader.zxid(), reader.level());
                self.snapshot = Some(reader);
                return Sent { frame: Ok(frame), tell: None };
            }
            Got::Piece(reader, Ok(Some(piece))) => {
                self.snapshot = Some(reader);
                return Sent { frame: Ok(Frame::SnapChunk(piece)), tell: None };
            }
            Got::Piece(reader, Ok(None)) => (reader.zxid(), Ok(Frame::SnapEnd)),
            Got::Piece(reader, Err(error)) => (reader.zxid(), Err(error)),
            Got::Opened(zxid, Err(error)) => (zxid, Err(error)),
        };
        // A damaged one no longer counts; the next attempt is made with what is left.
        let newest = snapshots.latest();
        let tell = (newest != Some(zxid)).then_some(Input::SnapshotsLeft { newest });
        let ended = |error: SnapshotError| {
            tracing::warn!(%zxid, %error, "cannot read the snapshot for a learner; dropped it");
            Ended(matches!(error, SnapshotError::Disk(_)).then(|| error.into()))
        };
        Sent { frame: frame.map_err(ended), tell }
    }

    fn entries(
        &mut self,
        after: Zxid,
        upto: Zxid,
        entries: Result<Vec<api::Entry>, ReadError>,
    ) -> Result<Frame, Ended> {
        let entries = entries.map_err(|error| {
            // If a purge overtook this learner it will come back and get a snapshot. Damage would keep it coming back for ever.
            tracing::warn!(%error, "cannot read the log for a learner; dropped it");
            match error {
                ReadError::Log(error) => Ended(Some(error.into())),
                ReadError::Purged { .. } | ReadError::NotThere { .. } => Ended(None),
            }
        })?;
        let last = entries.last().ok_or(Ended(None))?.zxid;
        if last < upto {
            self.commands.push_front(Command::Entries { after: last, upto, commit: None });
        }
        Ok(Frame::Message(ToLearner::Propose { prev: after, entries, commit: self.commit.take() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_messages_keep_their_place() {
        let mut outgoing = Outgoing::default();
        for command in [
            Command::Entries { after: Zxid(0), upto: Zxid(1), commit: None },
            Command::Entries { after: Zxid(1), upto: Zxid(2), commit: None },
            Command::Message(ToLearner::UpToDate { commit: Zxid(1) }),
            Command::Entries { after: Zxid(2), upto: Zxid(3), commit: None },
            Command::Entries { after: Zxid(5), upto: Zxid(6), commit: None },
        ] {
            outgoing.push(command);
        }
        assert_eq!(outgoing.commands.len(), 4, "only what stands side by side is sent together");
    }
}
