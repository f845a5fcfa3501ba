use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Level, Zxid};

use crate::disk::{self, Disk, DiskError, Doing, Space};
use crate::format::VERSION;
use crate::recovery::Base;
use crate::snapshot_file::{self, SnapshotEncoder, SnapshotReader};

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed; the node has to stop.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not as it was written.
    #[error(
        "the snapshot {} is damaged at byte {offset}: {found}. An older one or the leader's state takes its place; check \
         the disk",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The found content.
        found: String,
    },
    /// A newer version of the program wrote it.
    #[error("{} has format version {found}, but this program knows only version {VERSION}: start the version that \
             wrote it, or a newer one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There is none at this zxid.
    #[error("there is no snapshot at {zxid}")]
    NotThere {
        /// The requested zxid.
        zxid: Zxid,
    },
    /// States only go forward.
    #[error("a snapshot at {zxid} is of no use: there is one at {latest}")]
    TooOld {
        /// Of the one to be written.
        zxid: Zxid,
        /// The newest one.
        latest: Zxid,
    },
    /// A received one was adopted while this one was written; the log no longer contains what it is the state of.
    #[error(
        "the snapshot at {zxid} is of no use: the one at {by}, from the leader, has taken the place of all newer states"
    )]
    Superseded {
        /// The zxid of the written snapshot.
        zxid: Zxid,
        /// The newest one.
        by: Zxid,
    },
    /// One of the node's own is written at a time, and one is received.
    #[error("a snapshot is being written already")]
    Busy,
}

impl SnapshotError {
    /// There was no space; it may work once there is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, SnapshotError::Disk(e) if e.is_full())
    }
}

/// The findings of opening the snapshots.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SnapshotReport {
    /// Files that were left out; worth a warning each.
    pub skipped: Vec<SkippedSnapshot>,
    /// Half-written files that were removed.
    pub removed: usize,
}

/// A snapshot that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedSnapshot {
    /// The state that it should be.
    pub zxid: Zxid,
    /// The fault, for people.
    pub why: String,
}

/// The snapshots of a node: opaque states, each exactly at one zxid. The two newest sound ones are kept. Clones are the
/// same snapshots.
///
/// A received snapshot does not belong to the log until the log has been [reset](crate::Log::reset) to it.
/// Until then it is separate from the node's own: [`begin_received`](Snapshots::begin_received), `finish`,
/// reset of the log, [`adopt_received`](Snapshots::adopt_received). So after a crash an interrupted
/// synchronisation, where [`received`](Snapshots::received) names the new base of the log, is distinguishable
/// from a log that has lost its end, which is older than a snapshot of the node's own.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

impl Snapshots {
    /// Opens the directory `dir`, or creates it. The newest files are read and checked until two are found to be sound.
    ///
    /// # Errors
    /// The disk, or a file of a newer version.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Snapshots, SnapshotReport), SnapshotError> {
        disk::create_dirs(disk.as_ref(), dir)?;
        // The process before this one may have died between a change of names and its sync.
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        let names = disk.list(dir).doing("list", dir)?;
        let mut report = SnapshotReport::default();
        let mut sound = Vec::new();
        for zxid in names.iter().rev().filter_map(|n| parse_name(n, OWN)) {
            if sound.len() == KEPT {
                break;
            }
            match snapshot_file::verify(disk.as_ref(), dir.join(name(zxid, OWN)), zxid) {
                Ok(_) => sound.insert(0, zxid),
                Err(e @ SnapshotError::Damaged { .. }) => {
                    report.skipped.push(SkippedSnapshot { zxid, why: e.to_string() });
                }
                // Not left out: an older one would be taken for the newest.
                Err(e) => return Err(e),
            }
        }
        for name in names.iter().filter(|n| n.ends_with(TEMPORARY)) {
            let path = dir.join(name);
            disk.remove(&path).doing("remove", &path)?;
            report.removed += 1;
        }
        let mut received = None;
        for zxid in names.iter().rev().filter_map(|n| parse_name(n, RECEIVED)) {
            match snapshot_file::verify(disk.as_ref(), dir.join(name(zxid, RECEIVED)), zxid) {
                // Two are there only if a crash came before the earlier one was removed. Either is a state to begin with.
                Ok(level) => received = received.or(Some(Base { zxid, level: Some(level) })),
                Err(e @ SnapshotError::Damaged { .. }) => {
                    report.skipped.push(SkippedSnapshot { zxid, why: e.to_string() });
                }
                // It is not skipped: it could be readable the next time, and would then count as new when the
                // log is far past it.
                Err(e) => return Err(e),
            }
        }
        let state = State { sound, received, writing: false, receiving: false, superseded_by: None };
        let inner = Inner { disk, dir: dir.to_owned(), naming: Mutex::new(()), state: Mutex::new(state) };
        if let Some(received) = received {
            inner.remove(RECEIVED, |zxid| zxid != received.zxid)?;
        }
        Ok((Snapshots(Arc::new(inner)), report))
    }

    /// The newest sound one of the directory `dir`, for a node that cannot open its snapshots because the disk is full. Changes nothing.
    /// `None` if there is none.
    ///
    /// # Errors
    /// The disk, or a file of a newer version.
    pub fn newest_in(disk: &dyn Disk, dir: &Path) -> Result<Option<SnapshotReader>, SnapshotError> {
        let names = match disk.list(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            listed => listed.doing("list", dir)?,
        };
        for zxid in names.iter().rev().filter_map(|n| parse_name(n, OWN)) {
            let path = dir.join(name(zxid, OWN));
            match snapshot_file::verify(disk, path.clone(), zxid) {
                Ok(_) => return SnapshotReader::open(disk, path, zxid).map(Some),
                Err(SnapshotError::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The newest one.
    #[must_use]
    pub fn latest(&self) -> Option<Zxid> {
        self.0.state().sound.last().copied()
    }

    /// Those before `base` no longer count, for the log does not reach back to them.
    pub(crate) fn forget_before(&self, base: Zxid) {
        self.0.state().sound.retain(|&zxid| zxid >= base);
    }

    /// Bytes of the file of the one at `zxid`.
    ///
    /// # Errors
    /// The disk, or if there is none.
    pub fn size(&self, zxid: Zxid) -> Result<u64, SnapshotError> {
        let path = self.0.dir.join(name(zxid, OWN));
        let file = self.0.disk.open(&path).doing("open", &path)?;
        Ok(file.len().doing("find the length of", &path)?)
    }

    /// The older of the two that are kept: the log may be purged up to it. `None` if there are fewer than two.
    #[must_use]
    pub fn older(&self) -> Option<Zxid> {
        match self.0.state().sound[..] {
            [.., older, _] => Some(older),
            _ => None,
        }
    }

    /// Drops all but the newest, durably: to make room.
    ///
    /// # Errors
    /// The disk.
    pub fn drop_older(&self) -> Result<(), SnapshotError> {
        let _naming = self.0.naming();
        let newest = {
            let mut state = self.0.state();
            let surplus = state.sound.len().saturating_sub(1);
            state.sound.drain(..surplus);
            state.sound.last().copied()
        };
        // Without a sound snapshot the others are kept: they may still be useful.
        newest.map_or(Ok(()), |newest| self.0.remove(OWN, |other| other < newest))
    }

    /// Starts to write the state at `zxid`, where the feature level is `level`. It counts only when it is [finished](SnapshotWriter::finish).
    ///
    /// # Errors
    /// If it is older than the newest one, if another one is being written, or the disk.
    pub fn begin(&self, zxid: Zxid, level: Level) -> Result<SnapshotWriter, SnapshotError> {
        {
            let mut state = self.0.state();
            if state.writing {
                return Err(SnapshotError::Busy);
            }
            if let Some(&latest) = state.sound.last().filter(|&&latest| latest > zxid) {
                return Err(SnapshotError::TooOld { zxid, latest });
            }
            state.writing = true;
            state.superseded_by = None;
        }
        SnapshotWriter::create(self.0.clone(), zxid, level, Purpose::Own)
    }

    /// Starts to write the state at `zxid`, and `level`, that a leader sends, also if it is older than the newest one. When it is
    /// [finished](SnapshotWriter::finish) it is the [received](Snapshots::received) one, in place of an earlier one, and
    /// waits to be [adopted](Snapshots::adopt_received).
    ///
    /// # Errors
    /// If another one is being received, or the disk.
    pub fn begin_received(&self, zxid: Zxid, level: Level) -> Result<SnapshotWriter, SnapshotError> {
        if std::mem::replace(&mut self.0.state().receiving, true) {
            return Err(SnapshotError::Busy);
        }
        SnapshotWriter::create(self.0.clone(), zxid, level, Purpose::Received)
    }

    /// The received snapshot that is not adopted: durable and sound, but neither
    /// [`latest`](Snapshots::latest) nor to be [read](Snapshots::read). It is there after a restart, too; the
    /// log may or may not have been reset to it.
    #[must_use]
    pub fn received(&self) -> Option<Base> {
        self.0.state().received
    }

    /// Makes the received one at `zxid` the newest, durably: all that are newer are dropped, since the log, which has
    /// been reset to it, does not reach them; of the older ones only the newest is kept. A snapshot of the node's own
    /// that is being written meanwhile is [of no use](SnapshotError::Superseded). After a crash all of this is done, or
    /// it is still [received](Snapshots::received).
    ///
    /// # Errors
    /// If it is not the received one (another one may have taken its place), or the disk.
    pub fn adopt_received(&self, zxid: Zxid) -> Result<(), SnapshotError> {
        let inner = &self.0;
        let _naming = inner.naming();
        {
            let mut state = inner.state();
            if state.received.is_none_or(|received| received.zxid != zxid) {
                return Err(SnapshotError::NotThere { zxid });
            }
            state.superseded_by = Some(zxid);
            state.sound.retain(|&other| other <= zxid);
        }
        // Newer ones go first: above this log they would look like those of a log that has lost its end.
        inner.remove(OWN, |other| other > zxid)?;
        inner.rename(&name(zxid, RECEIVED), zxid, OWN)?;
        let kept = {
            let mut state = inner.state();
            state.received = None;
            state.add_newest(zxid)
        };
        inner.remove(OWN, |other| !kept.contains(&other))
    }

    /// Removes the received one, durably, if there is one: the log was not reset to it and continues without
    /// it.
    ///
    /// # Errors
    /// The disk.
    pub fn discard_received(&self) -> Result<(), SnapshotError> {
        let _naming = self.0.naming();
        self.0.state().received = None;
        self.0.remove(RECEIVED, |_| true)
    }

    /// Opens the one at `zxid` for reading. It can be read to its end even if it is dropped for newer ones meanwhile.
    ///
    /// # Errors
    /// If there is none, damage, or the disk. A damaged one no longer counts: an older one is the latest then.
    pub fn read(&self, zxid: Zxid) -> Result<SnapshotReader, SnapshotError> {
        let opened = {
            // Under the lock, so that it is not removed between the look and the opening.
            let state = self.0.state();
            if !state.sound.contains(&zxid) {
                return Err(SnapshotError::NotThere { zxid });
            }
            SnapshotReader::open(self.0.disk.as_ref(), self.0.dir.join(name(zxid, OWN)), zxid)
        };
        if let Err(SnapshotError::Damaged { .. }) = &opened {
            self.0.forget(zxid);
        }
        let mut reader = opened?;
        reader.owner = Some(self.0.clone());
        Ok(reader)
    }
}

/// A snapshot that is being written. Dropped before it is finished, it leaves nothing.
pub struct SnapshotWriter {
    snapshots: Arc<Inner>,
    zxid: Zxid,
    level: Level,
    purpose: Purpose,
    /// `None` only before the file is created and once it is complete.
    encoder: Option<SnapshotEncoder>,
    /// Whether there may be a file under the temporary name.
    temporary_is_there: bool,
    /// Bytes that it leaves free.
    leave: u64,
}

impl SnapshotWriter {
    /// Its drop ends the writing, which the caller has noted.
    fn create(
        snapshots: Arc<Inner>,
        zxid: Zxid,
        level: Level,
        purpose: Purpose,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let (encoder, temporary_is_there, leave) = (None, true, 0);
        let mut writer =
            SnapshotWriter { snapshots, zxid, level, purpose, encoder, temporary_is_there, leave };
        let path = writer.snapshots.dir.join(writer.temporary());
        writer.encoder = Some(SnapshotEncoder::create(writer.snapshots.disk.as_ref(), path, zxid, level)?);
        Ok(writer)
    }

    /// The state is exactly this.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The feature level there.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Makes the writer leave `leave` bytes of its file system free: a larger piece fails as on a full disk.
    /// This call fails in the same way if the snapshot of at least `at_least` bytes cannot fit.
    ///
    /// # Errors
    /// The disk.
    pub fn leaving(mut self, leave: u64, at_least: u64) -> Result<SnapshotWriter, SnapshotError> {
        self.leave = leave;
        self.check_space(at_least)?;
        Ok(self)
    }

    fn check_space(&self, bytes: u64) -> Result<(), SnapshotError> {
        if self.leave == 0 {
            return Ok(());
        }
        let dir = &self.snapshots.dir;
        let Space { free, .. } = self.snapshots.disk.space(dir).doing("find the free space of", dir)?;
        match free >= self.leave.saturating_add(bytes) {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::StorageFull)).doing("write a snapshot to", dir)?,
        }
    }

    /// Writes the next piece. A piece of up to 16 MiB is read back as one; an empty one is not.
    ///
    /// # Errors
    /// The disk.
    pub fn chunk(&mut self, data: &[u8]) -> Result<(), SnapshotError> {
        self.check_space(data.len() as u64)?;
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.chunk(data))
    }

    /// Makes it durable, reads it again to check it, and drops all but the newest two. A received one is kept
    /// apart instead, and replaces an earlier received one.
    ///
    /// # Errors
    /// The disk; damage, if what was written is not what is read; or [`SnapshotError::Superseded`]. Older snapshots are
    /// untouched then.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        let (inner, zxid) = (self.snapshots.clone(), self.zxid);
        let temporary = self.temporary();
        if let Some(encoder) = self.encoder.take() {
            encoder.end()?;
        }
        snapshot_file::verify(inner.disk.as_ref(), inner.dir.join(&temporary), zxid)?;
        let _naming = inner.naming();
        match self.purpose {
            Purpose::Own => {
                let superseded_by = inner.state().superseded_by;
                if let Some(by) = superseded_by {
                    return Err(SnapshotError::Superseded { zxid, by });
                }
                inner.rename(&temporary, zxid, OWN)?;
                self.temporary_is_there = false;
                let kept = inner.state().add_newest(zxid);
                inner.remove(OWN, |other| !kept.contains(&other))
            }
            Purpose::Received => {
                inner.rename(&temporary, zxid, RECEIVED)?;
                self.temporary_is_there = false;
                inner.state().received = Some(Base { zxid, level: Some(self.level) });
                // Only now: if the log has been reset to the earlier one, there must always be a state to begin with.
                inner.remove(RECEIVED, |other| other != zxid)
            }
        }
    }

    fn temporary(&self) -> String {
        let kind = match self.purpose {
            Purpose::Own => OWN,
            Purpose::Received => RECEIVED,
        };
        format!("{}{TEMPORARY}", name(self.zxid, kind))
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.temporary_is_there {
            // If this fails, the file is removed when the snapshots are opened the next time.
            let _ = self.snapshots.disk.remove(&self.snapshots.dir.join(self.temporary()));
        }
        let mut state = self.snapshots.state();
        match self.purpose {
            Purpose::Own => state.writing = false,
            Purpose::Received => state.receiving = false,
        }
    }
}

/// The purpose of a snapshot.
#[derive(Clone, Copy)]
enum Purpose {
    /// To purge the log: it is the node's own state.
    Own,
    /// To reset the log: it comes from a leader.
    Received,
}

pub(crate) struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held while final names change, and never waited for while the state is locked. It is separate from the
    /// state, so that readers of the state never wait for the disk.
    naming: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    /// Snapshots that were read and found sound, ascending; at most [`KEPT`].
    sound: Vec<Zxid>,
    /// The received snapshot that is not adopted; sound, too.
    received: Option<Base>,
    /// Whether one of the node's own is being written.
    writing: bool,
    /// Whether one is being received.
    receiving: bool,
    /// The snapshot adopted since the node began to write its last own one.
    superseded_by: Option<Zxid>,
}

impl State {
    /// Adds the newest one and returns the remaining ones.
    fn add_newest(&mut self, zxid: Zxid) -> Vec<Zxid> {
        self.sound.retain(|&other| other != zxid);
        self.sound.push(zxid);
        let surplus = self.sound.len().saturating_sub(KEPT);
        self.sound.drain(..surplus);
        self.sound.clone()
    }
}

impl Inner {
    /// No longer counts this one, which was found to be damaged.
    pub(crate) fn forget(&self, zxid: Zxid) {
        self.state().sound.retain(|&other| other != zxid);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a file its final name, durably.
    fn rename(&self, from: &str, zxid: Zxid, kind: &str) -> Result<(), SnapshotError> {
        let path = self.dir.join(name(zxid, kind));
        self.disk.rename(&self.dir.join(from), &path).doing("rename a new snapshot to", &path)?;
        self.disk.sync_dir(&self.dir).doing("sync the directory", &self.dir)?;
        Ok(())
    }

    /// Removes all of a kind that are surplus, durably.
    fn remove(&self, kind: &str, is_surplus: impl Fn(Zxid) -> bool) -> Result<(), SnapshotError> {
        let names = self.disk.list(&self.dir).doing("list", &self.dir)?;
        for zxid in names.iter().filter_map(|n| parse_name(n, kind)).filter(|&zxid| is_surplus(zxid)) {
            let path = self.dir.join(name(zxid, kind));
            self.disk.remove(&path).doing("remove", &path)?;
        }
        self.disk.sync_dir(&self.dir).doing("sync the directory", &self.dir)?;
        Ok(())
    }
}

fn name(zxid: Zxid, kind: &str) -> String {
    format!("{:016x}{kind}", zxid.0)
}

fn parse_name(file: &str, kind: &str) -> Option<Zxid> {
    let zxid = u64::from_str_radix(file.strip_suffix(kind)?, 16).ok().map(Zxid)?;
    (name(zxid, kind) == file).then_some(zxid)
}

/// Two, so that damage in one of them is no loss (ZOOKEEPER-3231: only sound ones count).
const KEPT: usize = 2;
/// Snapshots of the log: written by this node, or received and adopted.
const OWN: &str = ".snap";
/// Snapshots that the log is to be reset to.
const RECEIVED: &str = ".received";
const TEMPORARY: &str = ".tmp";
