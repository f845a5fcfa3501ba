use std::path::{Path, PathBuf};

use api::Zxid;

use crate::disk::{self, Disk, DiskError, DiskFile, Doing};
use crate::format::{self, Magic, Salt};

/// The file `durable` of a log: a zxid up to which the log was durable. It distinguishes a log with a
/// lost end from a shorter log; see [`crate::format`].
///
/// The rule: any content that a crash may leave in this file names only a durable zxid of the log. So
/// the file is [raised](DurableFile::raise) only after a sync of the log, and needs no sync of its own.
/// It is [lowered](DurableFile::store), durably, before the log is cut on purpose.
pub(crate) struct DurableFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

impl DurableFile {
    /// The zxid in the file. `None` if the file is missing or damaged: then it proves nothing.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Zxid>, DiskError> {
        let path = dir.join(NAME);
        if !disk.exists(&path).doing("look for", &path)? {
            return Ok(None);
        }
        let contents = disk::read_file(disk, &path)?;
        Ok(format::decode_header(Magic::Durable, &contents).ok().map(|header| header.zxid))
    }

    /// Opens or creates the file, and stores `durable` in it, durably.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, durable: Zxid) -> Result<DurableFile, DiskError> {
        let path = dir.join(NAME);
        let is_there = disk.exists(&path).doing("look for", &path)?;
        let file = if is_there {
            disk.open(&path).doing("open", &path)?
        } else {
            disk.create(&path).doing("create", &path)?
        };
        let this = DurableFile { file, path };
        this.store(durable)?;
        if !is_there {
            disk.sync_dir(dir).doing("sync the directory", dir)?;
        }
        Ok(this)
    }

    /// Stores that the log is durable up to `durable`; the caller has made sure of that. After a crash
    /// the file may or may not contain it.
    pub(crate) fn raise(&self, durable: Zxid) -> Result<(), DiskError> {
        // The write stays in place and within one sector, so a power cut leaves the new or the old
        // content.
        let contents = format::encode_header(Magic::Durable, durable, Salt::NONE, None);
        self.file.write_at(&contents, 0).doing("write to", &self.path)
    }

    /// Records `durable`, durably: the file never shows a later end after this.
    pub(crate) fn store(&self, durable: Zxid) -> Result<(), DiskError> {
        self.raise(durable)?;
        self.file.sync_data().doing("sync", &self.path)
    }
}

const NAME: &str = "durable";
