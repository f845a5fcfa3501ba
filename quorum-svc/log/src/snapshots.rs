use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Level, Roster, Zxid};

use crate::disk::{self, Disk, DiskError, Doing, Space};
use crate::format::VERSION;
use crate::recovery::Base;
use crate::snapshot_file::{self, SnapshotEncoder, SnapshotReader};

/// An error of writing or reading a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed; the node has to stop.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The content of the snapshot is not what was written.
    #[error(
        "the snapshot {} is damaged at byte {offset}: {found}. An older one or the leader's state takes its place; check \
         the disk",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Position in the file.
        offset: u64,
        /// The found content.
        found: String,
    },
    /// A newer version of the program wrote the file.
    #[error("{} has format version {found}, but this program knows only version {VERSION}: start the version that \
             wrote it, or a newer one", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There is no snapshot at this zxid.
    #[error("there is no snapshot at {zxid}")]
    NotThere {
        /// The requested zxid.
        zxid: Zxid,
    },
    /// A new snapshot must not be older than the newest one.
    #[error("a snapshot at {zxid} is of no use: there is one at {latest}")]
    TooOld {
        /// Zxid of the snapshot to write.
        zxid: Zxid,
        /// Zxid of the newest snapshot.
        latest: Zxid,
    },
    /// A received snapshot was adopted during this write. The log no longer contains the entries of
    /// this state.
    #[error(
        "the snapshot at {zxid} is of no use: the one at {by}, from the leader, has taken the place of all newer states"
    )]
    Superseded {
        /// The zxid of the written snapshot.
        zxid: Zxid,
        /// Zxid of the adopted snapshot.
        by: Zxid,
    },
    /// Only one own snapshot is written at a time, and only one is received.
    #[error("a snapshot is being written already")]
    Busy,
}

impl SnapshotError {
    /// Whether only space was missing; the call may succeed once there is space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, SnapshotError::Disk(e) if e.is_full())
    }
}

/// The findings of opening the snapshots.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SnapshotReport {
    /// Files that were skipped; each deserves a warning.
    pub skipped: Vec<SkippedSnapshot>,
    /// Half-written files that were removed.
    pub removed: usize,
}

/// An unusable snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedSnapshot {
    /// The zxid in its name.
    pub zxid: Zxid,
    /// The fault, for people.
    pub why: String,
}

/// The snapshots of a node: opaque states, each exactly at one zxid. The two newest sound ones are
/// kept. Clones share the snapshots.
///
/// A received snapshot does not belong to the log until the log has been [reset](crate::Log::reset) to
/// it. Until then it is separate from the node's own: [`begin_received`](Snapshots::begin_received),
/// `finish`, reset of the log, [`adopt_received`](Snapshots::adopt_received). So a crash leaves two
/// distinguishable cases. After an interrupted synchronisation [`received`](Snapshots::received) names
/// the new base of the log. A log that has lost its end is older than a snapshot of the node's own.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

impl Snapshots {
    /// Opens the directory `dir`, or creates it. Reads and checks the newest files until two are sound.
    ///
    /// # Errors
    /// A failure of the disk, or a file of a newer version.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Snapshots, SnapshotReport), SnapshotError> {
        disk::create_dirs(disk.as_ref(), dir)?;
        // The previous process may have ended between a change of names and its sync.
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
                // The file is not skipped: an older one would count as the newest.
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
                // Two exist only if a crash came before the removal of the earlier one. Either is a
                // usable state.
                Ok(base) => received = received.or(Some(base)),
                Err(e @ SnapshotError::Damaged { .. }) => {
                    report.skipped.push(SkippedSnapshot { zxid, why: e.to_string() });
                }
                // The file is not skipped: it could be readable the next time, and would then count as
                // new when the log is far past it.
                Err(e) => return Err(e),
            }
        }
        let state = State {
            sound,
            received: received.clone(),
            writing: false,
            receiving: false,
            superseded_by: None,
        };
        let inner = Inner { disk, dir: dir.to_owned(), naming: Mutex::new(()), state: Mutex::new(state) };
        if let Some(received) = &received {
            inner.remove(RECEIVED, |zxid| zxid != received.zxid)?;
        }
        Ok((Snapshots(Arc::new(inner)), report))
    }

    /// The newest sound snapshot in the directory `dir`, for a node that cannot open its snapshots
    /// because the disk is full. `None` if there is none. Changes nothing.
    ///
    /// # Errors
    /// A failure of the disk, or a file of a newer version.
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

    /// The zxid of the newest snapshot.
    #[must_use]
    pub fn latest(&self) -> Option<Zxid> {
        self.0.state().sound.last().copied()
    }

    /// Drops the snapshots before `base` from the set: the log does not reach back to them.
    pub(crate) fn forget_before(&self, base: Zxid) {
        self.0.state().sound.retain(|&zxid| zxid >= base);
    }

    /// Size of the snapshot at `zxid`, in bytes.
    ///
    /// # Errors
    /// A failure of the disk, or no such snapshot.
    pub fn size(&self, zxid: Zxid) -> Result<u64, SnapshotError> {
        let path = self.0.dir.join(name(zxid, OWN));
        let file = self.0.disk.open(&path).doing("open", &path)?;
        Ok(file.len().doing("find the length of", &path)?)
    }

    /// The older of the two kept snapshots: the log may be purged up to it. `None` if there are fewer
    /// than two.
    #[must_use]
    pub fn older(&self) -> Option<Zxid> {
        match self.0.state().sound[..] {
            [.., older, _] => Some(older),
            _ => None,
        }
    }

    /// Removes all snapshots except the newest, durably, to make room.
    ///
    /// # Errors
    /// A failure of the disk.
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

    /// As [`Snapshots::begin_with`], in an ensemble that has the members of its first start.
    ///
    /// # Errors
    /// As there.
    pub fn begin(&self, zxid: Zxid, level: Level) -> Result<SnapshotWriter, SnapshotError> {
        self.begin_with(zxid, level, None)
    }

    /// Begins to write the state at `zxid` with feature level `level` and these members; `None`: those of the first start.
    /// It counts only once it is [finished](SnapshotWriter::finish).
    ///
    /// # Errors
    /// The state is older than the newest snapshot, another one is being written, or the disk fails.
    pub fn begin_with(
        &self,
        zxid: Zxid,
        level: Level,
        roster: Option<Arc<Roster>>,
    ) -> Result<SnapshotWriter, SnapshotError> {
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
        SnapshotWriter::create(self.0.clone(), Base { zxid, level: Some(level), roster }, level, Purpose::Own)
    }

    /// Begins to write a state at `zxid` and `level`, with these members, that a leader sends. It may be older than the
    /// newest one. Once [finished](SnapshotWriter::finish), it is the [received](Snapshots::received)
    /// one, replaces an earlier received one, and waits until it is
    /// [adopted](Snapshots::adopt_received).
    ///
    /// # Errors
    /// Another one is being received, or the disk fails.
    pub fn begin_received_with(
        &self,
        zxid: Zxid,
        level: Level,
        roster: Option<Arc<Roster>>,
    ) -> Result<SnapshotWriter, SnapshotError> {
        if std::mem::replace(&mut self.0.state().receiving, true) {
            return Err(SnapshotError::Busy);
        }
        let base = Base { zxid, level: Some(level), roster };
        SnapshotWriter::create(self.0.clone(), base, level, Purpose::Received)
    }

    /// As [`Snapshots::begin_received_with`], in an ensemble that has the members of its first start.
    ///
    /// # Errors
    /// As there.
    pub fn begin_received(&self, zxid: Zxid, level: Level) -> Result<SnapshotWriter, SnapshotError> {
        self.begin_received_with(zxid, level, None)
    }

    /// The received snapshot that is not adopted. It is durable and sound, but neither
    /// [`latest`](Snapshots::latest) nor [readable](Snapshots::read). It survives a restart; the log
    /// may or may not have been reset to it.
    #[must_use]
    pub fn received(&self) -> Option<Base> {
        self.0.state().received.clone()
    }

    /// Makes the received snapshot at `zxid` the newest, durably. All newer ones are removed, because
    /// the log has been reset and does not reach them. Of the older ones only the newest is kept. An
    /// own snapshot that is being written becomes [useless](SnapshotError::Superseded). After a crash
    /// all of this is done, or the snapshot is still [received](Snapshots::received).
    ///
    /// # Errors
    /// The received snapshot is another one, or the disk fails.
    pub fn adopt_received(&self, zxid: Zxid) -> Result<(), SnapshotError> {
        let inner = &self.0;
        let _naming = inner.naming();
        {
            let mut state = inner.state();
            if state.received.as_ref().is_none_or(|received| received.zxid != zxid) {
                return Err(SnapshotError::NotThere { zxid });
            }
            state.superseded_by = Some(zxid);
            state.sound.retain(|&other| other <= zxid);
        }
        // Newer ones go first: above this log they would look like those of a log that has lost its
        // end.
        inner.remove(OWN, |other| other > zxid)?;
        inner.rename(&name(zxid, RECEIVED), zxid, OWN)?;
        let kept = {
            let mut state = inner.state();
            state.received = None;
            state.add_newest(zxid)
        };
        inner.remove(OWN, |other| !kept.contains(&other))
    }

    /// Removes the received snapshot, durably, if there is one: the log was not reset to it and
    /// continues without it.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn discard_received(&self) -> Result<(), SnapshotError> {
        let _naming = self.0.naming();
        self.0.state().received = None;
        self.0.remove(RECEIVED, |_| true)
    }

    /// Opens the snapshot at `zxid` for reading. It stays readable to its end even if newer ones
    /// replace it.
    ///
    /// # Errors
    /// There is no such snapshot, it is damaged, or the disk fails. A damaged one no longer counts: an
    /// older one becomes the latest.
    pub fn read(&self, zxid: Zxid) -> Result<SnapshotReader, SnapshotError> {
        let opened = {
            // Under the lock, so that no removal comes between the check and the opening.
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

/// A snapshot that is being written. If it is dropped before it is finished, it leaves nothing.
pub struct SnapshotWriter {
    snapshots: Arc<Inner>,
    base: Base,
    level: Level,
    purpose: Purpose,
    /// `None` only before the file is created and once it is complete.
    encoder: Option<SnapshotEncoder>,
    /// Whether a file with the temporary name may exist.
    temporary_is_there: bool,
    /// Bytes that stay free on the file system.
    leave: u64,
}

impl SnapshotWriter {
    /// Creates a writer. The caller has marked the write as running; dropping the writer ends it.
    fn create(
        snapshots: Arc<Inner>,
        base: Base,
        level: Level,
        purpose: Purpose,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let (encoder, temporary_is_there, leave) = (None, true, 0);
        let mut writer =
            SnapshotWriter { snapshots, base, level, purpose, encoder, temporary_is_there, leave };
        let path = writer.snapshots.dir.join(writer.temporary());
        let (disk, Base { zxid, roster, .. }) = (writer.snapshots.disk.as_ref(), &writer.base);
        let encoder = SnapshotEncoder::create(disk, path, *zxid, level, roster.as_deref())?;
        writer.encoder = Some(encoder);
        Ok(writer)
    }

    /// The exact zxid of the state.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.base.zxid
    }

    /// The members at the state; `None`: those of the first start.
    #[must_use]
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        self.base.roster.as_ref()
    }

    /// The feature level of the state.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Makes the writer leave `leave` bytes of its file system free: a larger piece fails as on a full disk.
    /// This call fails in the same way if the snapshot of at least `at_least` bytes cannot fit.
    ///
    /// # Errors
    /// A failure of the disk.
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

    /// Writes the next piece. A piece of up to 16 MiB is one chunk; an empty piece is none.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn chunk(&mut self, data: &[u8]) -> Result<(), SnapshotError> {
        self.check_space(data.len() as u64)?;
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.chunk(data))
    }

    /// Makes the snapshot durable, reads it again to check it, and removes all except the newest two. A
    /// received snapshot stays separate, and replaces an earlier received one.
    ///
    /// # Errors
    /// A failure of the disk; damage, if the read content differs from the written one; or
    /// [`SnapshotError::Superseded`]. Older snapshots stay unchanged then.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        let (inner, zxid) = (self.snapshots.clone(), self.base.zxid);
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
                inner.state().received = Some(self.base.clone());
                // Only now: if the log was reset to the earlier one, a state must exist at any time.
                inner.remove(RECEIVED, |other| other != zxid)
            }
        }
    }

    fn temporary(&self) -> String {
        let kind = match self.purpose {
            Purpose::Own => OWN,
            Purpose::Received => RECEIVED,
        };
        format!("{}{TEMPORARY}", name(self.base.zxid, kind))
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.temporary_is_there {
            // If this fails, the next opening of the snapshots removes the file.
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
    /// Held while final names change. A thread never waits for it with the state locked. It is separate
    /// from the state, so readers of the state never wait for the disk.
    naming: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    /// Sound snapshots after a check, ascending; at most [`KEPT`].
    sound: Vec<Zxid>,
    /// The received snapshot that is not adopted; also sound.
    received: Option<Base>,
    /// Whether an own snapshot is being written.
    writing: bool,
    /// Whether a snapshot is being received.
    receiving: bool,
    /// The snapshot adopted since the node began to write its last own one.
    superseded_by: Option<Zxid>,
}

impl State {
    /// Adds the newest snapshot and returns the remaining ones.
    fn add_newest(&mut self, zxid: Zxid) -> Vec<Zxid> {
        self.sound.retain(|&other| other != zxid);
        self.sound.push(zxid);
        let surplus = self.sound.len().saturating_sub(KEPT);
        self.sound.drain(..surplus);
        self.sound.clone()
    }
}

impl Inner {
    /// Drops a damaged snapshot from the set.
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

    /// Removes all surplus snapshots of a kind, durably.
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

/// Number of kept snapshots: two, so that damage in one is no loss (ZOOKEEPER-3231: only sound ones
/// count).
const KEPT: usize = 2;
/// Snapshots of the log: written by this node, or received and adopted.
const OWN: &str = ".snap";
/// Received snapshots, to which the log will be reset.
const RECEIVED: &str = ".received";
const TEMPORARY: &str = ".tmp";
