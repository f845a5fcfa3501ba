//! The stream of a leader to one learner.

use std::collections::VecDeque;
use std::sync::Arc;

use api::peer::ToLearner;
use api::{Level, Roster, Zxid};
use bytes::Bytes;
use quorum_core::Input;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, Snapshots};

use crate::{Failure, Got, Read};

/// An item for one learner. A slow learner costs only a few of these under any load: entries stay in
/// the log until its stream has room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A message.
    Message(ToLearner),
    /// A range of the log, in any number of messages.
    Entries {
        /// The zxid before the first entry.
        after: Zxid,
        /// The last entry.
        upto: Zxid,
        /// Commit point for the first message.
        commit: Option<Zxid>,
    },
    /// The snapshot at this zxid, where these are the members.
    Snapshot(Zxid, Arc<Roster>),
}

impl Command {
    /// Merges `new` into the last element, as [`Tell::merge`](crate::Tell::merge).
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

/// A frame of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A message of the protocol.
    Message(ToLearner),
    /// A snapshot at this zxid and level, with these members, follows.
    SnapStart(Zxid, Level, Arc<Roster>),
    /// A piece of the snapshot.
    SnapChunk(Bytes),
    /// The snapshot is complete.
    SnapEnd,
}

/// The next action for a learner.
pub enum ToSend {
    /// Wait for more commands.
    Wait,
    /// Send this frame.
    Frame(Frame),
    /// Read this, and return the result to [`Outgoing::got`].
    Read(Read),
}

/// The result of a read for a learner.
#[derive(Debug)]
pub struct Sent {
    /// The frame to send.
    pub frame: Result<Frame, Ended>,
    /// Input for the core, to be handled before the frame is sent.
    pub tell: Option<Input>,
}

/// The stream has to end. With a failure the node has to stop, too. The learner connects again, and
/// gets the then present data.
#[derive(Debug)]
pub struct Ended(pub Option<Failure>);

/// Turns commands into frames, as fast as a stream takes them.
#[derive(Default)]
pub struct Outgoing {
    commands: VecDeque<Command>,
    snapshot: Option<SnapshotReader>,
    /// The members at the snapshot that is being opened.
    roster: Option<Arc<Roster>>,
    /// Commit point for the entries that are being read.
    commit: Option<Zxid>,
}

impl Outgoing {
    /// Appends a command.
    pub fn push(&mut self, command: Command) {
        let left = Command::merge(&mut self.commands, command);
        self.commands.extend(left);
    }

    /// The next action.
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
            Some(Command::Snapshot(zxid, roster)) => {
                self.roster = Some(roster);
                ToSend::Read(Read::Open(zxid))
            }
        }
    }

    /// Processes the result of a read.
    ///
    /// A damaged snapshot costs the learner its connection; an older snapshot may serve it next time. A
    /// damaged log is the base of this node itself: the node stops, and heals at its next start. It
    /// also stops if the disk fails a read.
    pub fn got(&mut self, got: Got, snapshots: &Snapshots) -> Sent {
        let (zxid, frame) = match got {
            Got::Entries { after, upto, entries } => {
                return Sent { frame: self.entries(after, upto, entries), tell: None };
            }
            Got::Opened(_, Ok(reader)) => {
                let frame = match self.roster.take() {
                    Some(roster) => Ok(Frame::SnapStart(reader.zxid(), reader.level(), roster)),
                    None => Err(Ended(None)),
                };
                self.snapshot = Some(reader);
                return Sent { frame, tell: None };
            }
            Got::Piece(reader, Ok(Some(piece))) => {
                self.snapshot = Some(reader);
                return Sent { frame: Ok(Frame::SnapChunk(piece)), tell: None };
            }
            Got::Piece(reader, Ok(None)) => (reader.zxid(), Ok(Frame::SnapEnd)),
            Got::Piece(reader, Err(error)) => (reader.zxid(), Err(error)),
            Got::Opened(zxid, Err(error)) => (zxid, Err(error)),
        };
        // A damaged snapshot no longer counts; the next attempt uses the remaining ones.
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
            // If a purge overtook this learner, it connects again and gets a snapshot. With a damaged
            // log it would come back for ever.
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
