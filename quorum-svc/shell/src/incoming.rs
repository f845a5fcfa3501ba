//! A snapshot that the leader sends in place of its log.

use std::sync::Arc;

use api::peer::ToLearner;
use api::{Level, Roster, Zxid};
use bytes::Bytes;
use quorum_log::{SnapshotError, SnapshotWriter, Snapshots};

use crate::Failure;

/// A part of a snapshot on a stream.
#[derive(Debug)]
pub enum Part {
    /// A snapshot at this zxid and level, with these members, follows.
    Start(Zxid, Level, Arc<Roster>),
    /// A piece of the snapshot.
    Chunk(Bytes),
    /// The snapshot is complete.
    End,
}

/// The stream has to end. With a `failure` the node has to stop, too.
#[derive(Debug)]
pub struct Broken {
    /// The reason, for the log.
    pub why: String,
    /// A failure of the disk.
    pub failure: Option<Failure>,
}

impl From<&str> for Broken {
    fn from(why: &str) -> Broken {
        Broken { why: why.to_owned(), failure: None }
    }
}

impl From<SnapshotError> for Broken {
    fn from(error: SnapshotError) -> Broken {
        let why = error.to_string();
        if error.is_full() {
            tracing::error!(
                "there is no space for the state that the leader sends; it is tried again: {why}"
            );
            return Broken { why, failure: None };
        }
        let stops = matches!(error, SnapshotError::Disk(_) | SnapshotError::Damaged { .. });
        Broken { why, failure: stops.then(|| error.into()) }
    }
}

/// A snapshot on its way from the leader to the disk.
#[derive(Default)]
pub struct Incoming(Option<SnapshotWriter>);

impl Incoming {
    /// Writes one part and blocks on the disk. Returns the message for the core once the snapshot is
    /// complete.
    ///
    /// # Errors
    /// The reason to end the stream.
    pub fn take(&mut self, snapshots: &Snapshots, part: Part) -> Result<Option<ToLearner>, Broken> {
        match part {
            Part::Start(zxid, level, roster) => {
                tracing::info!(%zxid, "receiving a snapshot");
                self.0 = Some(snapshots.begin_received_with(zxid, level, Some(roster))?);
                Ok(None)
            }
            Part::Chunk(chunk) => {
                self.0.as_mut().ok_or("a piece of a snapshot that did not begin")?.chunk(&chunk)?;
                Ok(None)
            }
            Part::End => {
                let writer = self.0.take().ok_or("the end of a snapshot that did not begin")?;
                let (zxid, level, roster) = (writer.zxid(), writer.level(), writer.roster().cloned());
                writer.finish()?;
                tracing::info!(%zxid, "snapshot received");
                let roster = roster.ok_or("a snapshot without members")?;
                Ok(Some(ToLearner::Snap { zxid, level, roster }))
            }
        }
    }
}
