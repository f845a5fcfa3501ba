use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Zxid;

use crate::disk::{self, Disk, DiskError, Doing};
use crate::format::VERSION;
use crate::snapshot_file::{self, SnapshotEncoder, SnapshotReader};

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed. While reading, another snapshot may help; while writing, the node has to stop.
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
        /// What is there.
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
        /// At which one was asked for.
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
    /// One is written at a time.
    #[error("a snapshot is being written already")]
    Busy,
}

/// What opening the snapshots found.
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
    /// What is wrong, for people.
    pub why: String,
}

/// The snapshots of a node: opaque states, each exactly at one zxid. The two newest sound ones are kept. Clones are the
/// same snapshots.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

impl Snapshots {
    /// Opens the directory `dir`, or creates it. The newest files are read and checked until two are found to be sound.
    ///
    /// # Errors
    /// The disk, or a file of a newer version.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Snapshots, SnapshotReport), SnapshotError> {
        disk::create_dirs(disk.as_ref(), dir)?;
        let names = disk.list(dir).doing("list", dir)?;
        let mut report = SnapshotReport::default();
        let mut sound = Vec::new();
        for zxid in names.iter().rev().filter_map(|n| parse_name(n)) {
            if sound.len() == KEPT {
                break;
            }
            match snapshot_file::verify(disk.as_ref(), dir.join(name(zxid)), zxid) {
                Ok(()) => sound.insert(0, zxid),
                Err(e @ SnapshotError::Version { .. }) => return Err(e),
                Err(e) => report.skipped.push(SkippedSnapshot { zxid, why: e.to_string() }),
            }
        }
        for name in names.iter().filter(|n| n.ends_with(TEMPORARY)) {
            let path = dir.join(name);
            disk.remove(&path).doing("remove", &path)?;
            report.removed += 1;
        }
        // The process before this one may have died between a change of names and its sync.
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        let state = Mutex::new(State { sound, writing: false });
        Ok((Snapshots(Arc::new(Inner { disk, dir: dir.to_owned(), state })), report))
    }

    /// The newest one.
    #[must_use]
    pub fn latest(&self) -> Option<Zxid> {
        self.0.state().sound.last().copied()
    }

    /// The older of the two that are kept: the log may be purged up to it. `None` if there are fewer than two.
    #[must_use]
    pub fn older(&self) -> Option<Zxid> {
        match self.0.state().sound[..] {
            [.., older, _] => Some(older),
            _ => None,
        }
    }

    /// Starts to write the state at `zxid`. It counts only when it is [finished](SnapshotWriter::finish).
    ///
    /// # Errors
    /// If it is older than the newest one, if another one is being written, or the disk.
    pub fn begin(&self, zxid: Zxid) -> Result<SnapshotWriter, SnapshotError> {
        {
            let mut state = self.0.state();
            if state.writing {
                return Err(SnapshotError::Busy);
            }
            if let Some(&latest) = state.sound.last().filter(|&&latest| latest > zxid) {
                return Err(SnapshotError::TooOld { zxid, latest });
            }
            state.writing = true;
        }
        // From here on its drop ends the writing.
        let mut writer = SnapshotWriter { snapshots: self.0.clone(), zxid, encoder: None };
        writer.encoder = Some(SnapshotEncoder::create(self.0.disk.as_ref(), writer.temporary(), zxid)?);
        Ok(writer)
    }

    /// Opens the one at `zxid` for reading. It can be read to its end even if it is dropped for newer ones meanwhile.
    ///
    /// # Errors
    /// If there is none, damage, or the disk.
    pub fn read(&self, zxid: Zxid) -> Result<SnapshotReader, SnapshotError> {
        // Under the lock, so that it is not removed between the look and the opening.
        let state = self.0.state();
        if !state.sound.contains(&zxid) {
            return Err(SnapshotError::NotThere { zxid });
        }
        SnapshotReader::open(self.0.disk.as_ref(), self.0.dir.join(name(zxid)), zxid)
    }
}

/// A snapshot that is being written. Dropped before it is finished, it leaves nothing.
pub struct SnapshotWriter {
    snapshots: Arc<Inner>,
    zxid: Zxid,
    /// `None` only before the file is created and once it is finished.
    encoder: Option<SnapshotEncoder>,
}

impl SnapshotWriter {
    /// The state is exactly this.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Writes the next piece. A piece of up to 16 MiB is read back as one; an empty one is not.
    ///
    /// # Errors
    /// The disk.
    pub fn chunk(&mut self, data: &[u8]) -> Result<(), SnapshotError> {
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.chunk(data))
    }

    /// Makes it durable, reads it again to see whether it is sound, and drops all but the newest two.
    ///
    /// # Errors
    /// The disk; or damage, if what was written is not what is read. Older snapshots are untouched then.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        let (inner, zxid) = (self.snapshots.clone(), self.zxid);
        let (disk, dir) = (inner.disk.as_ref(), inner.dir.as_path());
        let temporary = self.temporary();
        let path = dir.join(name(zxid));
        if let Some(encoder) = self.encoder.take() {
            encoder.end()?;
        }
        disk.rename(&temporary, &path).doing("rename a new snapshot to", &path)?;
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        snapshot_file::verify(disk, path, zxid)?;
        let kept = {
            let mut state = inner.state();
            state.sound.retain(|&other| other != zxid);
            state.sound.push(zxid);
            let surplus = state.sound.len().saturating_sub(KEPT);
            state.sound.drain(..surplus);
            state.sound.clone()
        };
        inner.remove_all_but(&kept)
    }

    fn temporary(&self) -> PathBuf {
        self.snapshots.dir.join(format!("{}{TEMPORARY}", name(self.zxid)))
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.encoder.take().is_some() {
            // If this fails, the file is removed when the snapshots are opened the next time.
            let _ = self.snapshots.disk.remove(&self.temporary());
        }
        self.snapshots.state().writing = false;
    }
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Those that were read and found to be sound, ascending; at most [`KEPT`].
    sound: Vec<Zxid>,
    writing: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_all_but(&self, kept: &[Zxid]) -> Result<(), SnapshotError> {
        let names = self.disk.list(&self.dir).doing("list", &self.dir)?;
        for zxid in names.iter().filter_map(|n| parse_name(n)).filter(|zxid| !kept.contains(zxid)) {
            let path = self.dir.join(name(zxid));
            self.disk.remove(&path).doing("remove", &path)?;
        }
        self.disk.sync_dir(&self.dir).doing("sync the directory", &self.dir)?;
        Ok(())
    }
}

fn name(zxid: Zxid) -> String {
    format!("{:016x}{SUFFIX}", zxid.0)
}

fn parse_name(file: &str) -> Option<Zxid> {
    let zxid = u64::from_str_radix(file.strip_suffix(SUFFIX)?, 16).ok().map(Zxid)?;
    (name(zxid) == file).then_some(zxid)
}

/// Two, so that damage in one of them is no loss (ZOOKEEPER-3231: only sound ones count).
const KEPT: usize = 2;
const SUFFIX: &str = ".snap";
const TEMPORARY: &str = ".tmp";
