//! What a leader sends instead of its log.

use api::peer::ToLearner;
use api::{Level, Zxid};
use bytes::Bytes;
use quorum_log::{SnapshotError, SnapshotWriter, Snapshots};

use crate::Failure;

/// Of a snapshot on a stream.
#[derive(Debug)]
pub enum Part {
    /// One at this zxid follows, at this level.
    Start(Zxid, Level),
    /// A piece of it.
    Chunk(Bytes),
    /// It is whole.
    End,
}

/// The stream cannot go on; if there is a failure, nor can the node.
#[derive(Debug)]
pub struct Broken {
    /// For the log.
    pub why: String,
    /// Of the disk.
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
    /// Blocks on the disk. What the core is to be told of a whole one; of a part, that it goes on.
    ///
    /// # Errors
    /// Why the stream is to end.
    pub fn take(&mut self, snapshots: &Snapshots, part: Part) -> Result<Option<ToLearner>, Broken> {
        match part {
            Part::Start(zxid, level) => {
                tracing::info!(%zxid, "receiving a snapshot");
                self.0 = Some(snapshots.begin_received(zxid, level)?);
                Ok(None)
            }
            Part::Chunk(chunk) => {
                self.0.as_mut().ok_or("a piece of a snapshot that did not begin")?.chunk(&chunk)?;
                Ok(None)
            }
            Part::End => {
                let writer = self.0.take().ok_or("the end of a snapshot that did not begin")?;
                let (zxid, level) = (writer.zxid(), writer.level());
                writer.finish()?;
                tracing::info!(%zxid, "snapshot received");
                Ok(Some(ToLearner::Snap { zxid, level }))
            }
        }
    }
}
