//! Free space on the disks of this node, and the reserve kept there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::ports::Room;
use quorum_core::Input;
use quorum_log::{
    Disk, DiskError, Snapshots, Space,
    reserve::{self, Reserve},
};
use telemetry::metrics;
use tokio::sync::Notify;

use crate::driver::{Event, Links};
use crate::leader_link::blocking;

/// Interval between two checks, unless much is written in between.
const PERIOD: Duration = Duration::from_millis(500);
/// While space is low, the store is asked for a snapshot at this interval. A snapshot allows the log to
/// be purged.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(5);
/// A node with less free space is not opened: the first write could be its last.
pub(crate) const LEAST_FREE: u64 = 2 << 20;

/// The current state of the disk space for the rest of the service. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct RoomView(Arc<Inner>);

#[derive(Default)]
struct Inner {
    room: AtomicU8,
    /// Free bytes on the file system with the least space.
    free: AtomicU64,
    /// The threshold of low space on that file system.
    mark: AtomicU64,
    /// See [`RoomView::spare`].
    spare: AtomicU64,
    /// Bytes written since the last check.
    written: AtomicU64,
    much_written: Notify,
}

impl RoomView {
    /// Free bytes, and the threshold below which growing writes are rejected, of the file system with
    /// the least space.
    pub(crate) fn space(&self) -> (u64, u64) {
        (self.0.free.load(Ordering::Relaxed), self.0.mark.load(Ordering::Relaxed))
    }

    /// The threshold of free bytes in the data directory below which its reserve is released. A
    /// snapshot leaves this many bytes free.
    pub(crate) fn spare(&self) -> u64 {
        self.0.spare.load(Ordering::Relaxed)
    }

    pub(crate) fn room(&self) -> Room {
        ROOMS[usize::from(self.0.room.load(Ordering::Relaxed)).min(ROOMS.len() - 1)]
    }

    /// The log has grown. After a fraction of the threshold, the watch checks at once.
    pub(crate) fn wrote(&self, bytes: usize) {
        let written = self.0.written.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if written > self.0.mark.load(Ordering::Relaxed) / 16 {
            self.0.written.store(0, Ordering::Relaxed);
            self.0.much_written.notify_one();
        }
    }
}

const ROOMS: [Room; 3] = [Room::Ample, Room::Low, Room::Short];

/// Checks the disks, notifies the core, and maintains the reserve.
pub(crate) struct RoomWatch {
    pub(crate) disk: Arc<dyn Disk>,
    /// The data directory and the log directory.
    pub(crate) dirs: [PathBuf; 2],
    pub(crate) min_free: Option<u64>,
    pub(crate) snapshots: Snapshots,
    pub(crate) links: Links,
    pub(crate) view: RoomView,
    /// Directories on file systems that cannot reserve space, so that the node does not retry again and
    /// again.
    pub(crate) hollow: Mutex<BTreeSet<PathBuf>>,
}

/// The result of a check of one directory.
struct Look {
    dir: PathBuf,
    free: u64,
    mark: u64,
    /// The threshold of free bytes below which the reserve is released.
    spare: u64,
}

impl RoomWatch {
    pub(crate) async fn run(self) {
        let mut room = Room::Ample;
        let mut asked = Instant::now();
        let this = Arc::new(self);
        loop {
            let looking = this.clone();
            let tightest = match blocking(move || looking.look(room)).await {
                Ok(look) => look,
                Err(e) => return this.links.fail(e.to_string()),
            };
            let Look { dir, free, mark, .. } = &tightest;
            let inner = &this.view.0;
            inner.free.store(*free, Ordering::Relaxed);
            inner.mark.store(*mark, Ordering::Relaxed);
            let now = room_of(room, *free, *mark);
            let (free, mark) = (free >> 20, mark >> 20);
            match (room, now) {
                (before, now) if before == now => {}
                (Room::Low | Room::Short, Room::Ample) => {
                    tracing::info!(dir = %dir.display(), free_mib = free, mark_mib = mark, "the disk has room again");
                }
                (_, Room::Short) => tracing::error!(
                    dir = %dir.display(), free_mib = free, mark_mib = mark,
                    "the disk is nearly full: clients of this ensemble may only delete if this node leads, or if the others with \
                     room are no quorum. Delete znodes, or free or add space"
                ),
                _ => tracing::warn!(
                    dir = %dir.display(), free_mib = free, mark_mib = mark,
                    "the disk fills up: writes that grow are refused if this node leads, or if the others with room are no \
                     quorum. Delete znodes, or free or add space"
                ),
            }
            if now != room {
                room = now;
                metrics::DISK_ROOM.set(room as u64);
                inner.room.store(room as u8, Ordering::Relaxed);
                this.links.send(Event::Core(Input::Disk(room))).await;
                asked = Instant::now() - SNAPSHOT_PERIOD;
            }
            if room != Room::Ample && asked.elapsed() >= SNAPSHOT_PERIOD {
                asked = Instant::now();
                this.links.send(Event::SnapshotWanted).await;
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = inner.much_written.notified() => {}
            }
        }
    }

    /// The directory with the least space. Maintains the reserve, or releases it if needed.
    fn look(&self, before: Room) -> Result<Look, DiskError> {
        let snapshot = self.snapshots.latest().and_then(|zxid| self.snapshots.size(zxid).ok());
        let [data, log] = &self.dirs;
        // The next snapshot has to fit: without it the log can never be purged.
        let data = self.look_at(data, snapshot.unwrap_or(0), before)?;
        self.view.0.spare.store(data.spare, Ordering::Relaxed);
        let log = self.look_at(log, 0, before)?;
        // Compared by free space relative to the threshold.
        let left = |look: &Look| u128::from(look.free) * 1000 / u128::from(look.mark.max(1));
        Ok(if left(&log) < left(&data) { log } else { data })
    }

    fn look_at(&self, dir: &Path, next: u64, before: Room) -> Result<Look, DiskError> {
        let disk = self.disk.as_ref();
        let found = disk.space(dir);
        let Space { free, total } = found.map_err(|source| DiskError {
            doing: "find the free space of",
            path: dir.to_owned(),
            source,
        })?;
        let base = self.min_free.unwrap_or_else(|| mark(total));
        let spare = base / 8;
        let look = Look { dir: dir.to_owned(), free, mark: base + next, spare };
        let held = spare.min(RESERVE_MAX);
        if before == Room::Ample {
            self.keep_reserve(dir, held, look.mark + look.mark / 4)?;
        } else if free < spare && reserve::release(disk, dir)? {
            tracing::warn!(dir = %dir.display(), mib = held >> 20, "the reserve of the disk is given free");
        }
        Ok(look)
    }

    fn keep_reserve(&self, dir: &Path, bytes: u64, left: u64) -> Result<(), DiskError> {
        let mut hollow = self.hollow.lock().unwrap_or_else(PoisonError::into_inner);
        if hollow.contains(dir) {
            return Ok(());
        }
        if reserve::keep(self.disk.as_ref(), dir, bytes, left)? == Reserve::Hollow {
            tracing::warn!(
                dir = %dir.display(),
                "the file system takes no space for the reserve of the disk: if others fill it, there is none for deletes and for \
                 the next start"
            );
            hollow.insert(dir.to_owned());
        }
        Ok(())
    }
}

/// The threshold of low space on a file system of this size.
fn mark(total: u64) -> u64 {
    (total / 10).clamp(MARK_MIN.min(total / 4), MARK_MAX)
}

/// Space counts as ample again only a quarter above the threshold, so that the state does not flap.
fn room_of(before: Room, free: u64, mark: u64) -> Room {
    let short = mark / 2;
    let above = |mark: u64, below: bool| free >= if below { mark + mark / 4 } else { mark };
    if above(mark, before >= Room::Low) {
        Room::Ample
    } else if above(short, before == Room::Short) {
        Room::Low
    } else {
        Room::Short
    }
}

const MARK_MIN: u64 = 32 << 20;
const MARK_MAX: u64 = 2 << 30;
const RESERVE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b18_the_mark_fits_the_disk_and_room_comes_back_above_it() {
        const MIB: u64 = 1 << 20;
        assert_eq!([64, 300, 10_000, 1 << 20].map(|mib| mark(mib * MIB) / MIB), [16, 32, 1000, 2048]);
        let mut room = Room::Ample;
        let mut seen = Vec::new();
        for free in [100, 99, 60, 49, 60, 63, 110, 124, 125, 100] {
            room = room_of(room, free, 100);
            seen.push(room);
        }
        use Room::{Ample, Low, Short};
        assert_eq!(seen, [Ample, Low, Low, Short, Short, Low, Low, Low, Ample, Ample]);
    }
}
