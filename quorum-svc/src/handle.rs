//! The quorum of this process as a port for its store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ports::{Chunks, PortClosed, Quorum, QuorumStatus, Request, Room, Surroundings};
use api::{Level, LevelRefusal, Reconfig, ReconfigRefusal, Zxid};
use quorum_log::{SnapshotError, SnapshotWriter, Snapshots};
use quorum_shell::{self as shell, LogView, Unsaved, saved, unsaved};
use telemetry::metrics;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::acquaintances::Acquaintances;
use crate::backlog::Backlog;
use crate::driver::{Event, Links};
use crate::feed::{FEED_LIMIT, LogFeed, SIGNS_LIMIT, SignQueue};
use crate::leader_link::blocking;
use crate::outbox::Outbox;
use crate::room::RoomView;

/// The port [`Quorum`] to the quorum service of this process. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) links: Links,
    pub(crate) view: LogView,
    pub(crate) snapshots: Snapshots,
    /// Only one snapshot is written at a time.
    pub(crate) saving: Arc<Mutex<()>>,
    pub(crate) keep: Keep,
    pub(crate) backlog: Backlog,
    pub(crate) room: RoomView,
    pub(crate) acquaintances: Acquaintances,
    /// See [`Surroundings::clock_offset_ms`].
    pub(crate) clock: watch::Receiver<Option<i64>>,
}

/// The part of the log that a purge keeps although a snapshot covers it. A learner that returns after a
/// short absence then needs no snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// Minimum number of bytes of files ...
    pub bytes: u64,
    /// ... and minimum number of entries.
    pub entries: u64,
}

/// Maximum number of log bytes that a learner in synchronisation protects from the purge; or four times
/// [`Keep::bytes`], if that is more.
const HELD: u64 = 1 << 30;

/// The state of the log on disk. A disk that fails ends the process, so this reports only whether the
/// disk is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogHealth {
    /// Number of files.
    pub files: usize,
    /// Bytes written to them.
    pub bytes: u64,
    /// Time for which entries have waited without any progress of the disk; zero while none wait.
    pub stuck: Duration,
    /// State of the disk space.
    pub room: Room,
    /// Free bytes on the file system with the least space.
    pub free: u64,
    /// The threshold of low space on that file system.
    pub mark: u64,
}

/// Up to this many bytes, a learner gets the log instead of a snapshot: any network transfers them in a
/// moment.
pub(crate) const SLACK: u64 = 16 << 20;

fn stopped() -> PortClosed {
    PortClosed("the quorum service of this node has stopped".into())
}

impl Quorum for Handle {
    type Feed = LogFeed;
    type Signs = SignQueue;

    async fn attach(&self, after: Zxid) -> Result<(LogFeed, SignQueue), PortClosed> {
        let feed = Outbox::new(FEED_LIMIT);
        let (signs, queue) = mpsc::channel(SIGNS_LIMIT);
        if !self.links.send(Event::Attach { feed: feed.clone(), signs, after }).await {
            return Err(stopped());
        }
        let feed = LogFeed::new(feed, after, self.view.clone(), self.snapshots.clone(), self.links.clone());
        Ok((feed, SignQueue(queue)))
    }

    async fn request(&self, batch: Vec<Request>) -> Result<(), PortClosed> {
        match self.links.send(Event::Requests { batch, at: Instant::now() }).await {
            true => Ok(()),
            false => Err(stopped()),
        }
    }

    async fn save_snapshot(&self, zxid: Zxid, chunks: impl Chunks + 'static) -> Result<(), PortClosed> {
        let _one_at_a_time = self.saving.lock().await;
        if !self.view.contains(zxid) {
            // A leader's snapshot has replaced the state of the store.
            return Ok(());
        }
        let began = Instant::now();
        let low = self.room.room() != Room::Ample;
        if low {
            self.drop_older().await?;
        }
        // The log grows while the snapshot is written, and must not need its reserve for that.
        let leave = if low { self.room.spare() } else { 0 };
        match self.write(zxid, leave, chunks).await {
            Ok(()) => {
                metrics::SNAPSHOT_DURATION.record(began.elapsed());
                if let Ok(bytes) = self.snapshots.size(zxid) {
                    metrics::SNAPSHOT_SIZE.set(bytes);
                }
                if low {
                    self.drop_older().await?;
                }
                let Keep { bytes, entries } = self.keep;
                let keep = shell::Keep { bytes, entries, held: HELD.max(4 * bytes), slack: SLACK };
                let saved = saved(&self.view.reader, &self.snapshots, zxid, keep, low);
                self.links.send(Event::Core(saved)).await;
                Ok(())
            }
            Err(error) => match unsaved(&error) {
                Unsaved::Needless => Ok(()),
                Unsaved::NoSpace => {
                    tracing::warn!(%zxid, "there is no space for a snapshot, so the log is not purged: {error}");
                    Err(PortClosed(error.to_string()))
                }
                Unsaved::Stop => {
                    self.links.fail(error.to_string());
                    Err(PortClosed(error.to_string()))
                }
            },
        }
    }

    async fn surroundings(&self) -> Result<Surroundings, PortClosed> {
        let (ensemble, level, build, roster) = {
            let own = self.acquaintances.own.borrow();
            let greeting = &own.greeting;
            let (build, roster) = (Some(greeting.build.clone()), Some(greeting.roster.clone()));
            (greeting.standing.ensemble, own.said.level, build, roster)
        };
        let clock_offset_ms = *self.clock.borrow();
        let peers = self.acquaintances.peers();
        Ok(Surroundings { ensemble, level, build, peers, roster, clock_offset_ms })
    }

    async fn set_level(&self, expected: Level, level: Level) -> Result<Level, LevelRefusal> {
        let stopped = |_| LevelRefusal::Unavailable(stopped().0);
        let (reply, answer) = oneshot::channel();
        if !self.links.send(Event::SetLevel { expected, level, reply }).await {
            return Err(stopped(()));
        }
        answer.await.map_err(|_| stopped(()))?
    }

    async fn reconfigure(&self, reconfig: Reconfig) -> Result<Zxid, ReconfigRefusal> {
        let stopped = |_| ReconfigRefusal::Unavailable(stopped().0);
        let (reply, answer) = oneshot::channel();
        if !self.links.send(Event::Reconfigure { reconfig, reply }).await {
            return Err(stopped(()));
        }
        answer.await.map_err(|_| stopped(()))?
    }

    async fn status(&self) -> Result<QuorumStatus, PortClosed> {
        let (reply, answer) = oneshot::channel();
        if !self.links.send(Event::Status(reply)).await {
            return Err(stopped());
        }
        answer.await.map_err(|_| stopped())
    }
}

impl Handle {
    /// Prepares this node to stop. If it leads, it hands over to another server that has all entries
    /// and that all others accept. Returns when no server depends on this node any more, or none can
    /// take over. The node continues as a follower.
    ///
    /// # Errors
    /// The service has stopped already.
    pub async fn leave(&self) -> Result<(), PortClosed> {
        let (reply, answer) = oneshot::channel();
        if !self.links.send(Event::Leave(reply)).await {
            return Err(stopped());
        }
        answer.await.map_err(|_| stopped())
    }

    /// The state of this node's log, and whether its disk keeps up.
    #[must_use]
    pub fn log_health(&self) -> LogHealth {
        let (files, bytes) = self.view.reader.size();
        {
            let (free, mark) = self.room.space();
            LogHealth { files, bytes, stuck: self.backlog.stuck(), room: self.room.room(), free, mark }
        }
    }

    /// Removes all snapshots except the newest.
    async fn drop_older(&self) -> Result<(), PortClosed> {
        let snapshots = self.snapshots.clone();
        blocking(move || snapshots.drop_older()).await.map_err(|error| {
            self.links.fail(error.to_string());
            PortClosed(error.to_string())
        })
    }

    async fn write(&self, zxid: Zxid, leave: u64, mut chunks: impl Chunks) -> Result<(), SnapshotError> {
        let (snapshots, at_least) = (self.snapshots.clone(), chunks.at_least());
        // Every state has a level.
        let level = self.view.reader.level_at(zxid).unwrap_or(Level::FIRST);
        let roster = self.view.reader.roster_at(zxid);
        let mut writer: SnapshotWriter =
            blocking(move || snapshots.begin_with(zxid, level, roster)?.leaving(leave, at_least)).await?;
        while let Some(chunk) = chunks.next().await {
            writer = blocking(move || writer.chunk(&chunk).map(|()| writer)).await?;
        }
        blocking(move || writer.finish()).await
    }
}
