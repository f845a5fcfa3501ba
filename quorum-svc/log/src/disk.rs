use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};

use api::mutants::{Mutant, is_on};

use crate::reserve;

/// A disk with files and directories. This crate reaches the outside world only through it.
///
/// Written data survives a crash only after [`DiskFile::sync_data`] or [`DiskFile::sync_all`]. A
/// created, renamed or removed name survives only after [`Disk::sync_dir`] of its directory. Without
/// these calls each change may survive or not, in any order.
pub trait Disk: Send + Sync + 'static {
    /// Creates one directory whose parent exists; no error if it exists already.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes all names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, ascending.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Creates an empty file, or empties the existing one, and opens it for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same directory, atomically replacing any file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles can still read it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The space of the file system of an existing file or directory.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Takes the exclusive advisory lock of a file without waiting, and creates the file if needed. The
    /// error has the kind [`io::ErrorKind::WouldBlock`] if another process holds the lock.
    fn lock(&self, path: &Path) -> io::Result<DiskLock>;
}

/// Space of a file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

/// An open file. Positions and lengths are in bytes.
pub trait DiskFile: Send + Sync {
    /// Reads at a position into `buf` and returns the number of bytes; it is smaller than the buffer only at
    /// the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `data` at a position. After an error any part of it may be written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes contents durable, and the metadata needed to read them (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes contents and length durable (fsync).
    fn sync_all(&self) -> io::Result<()>;

    /// Lengthens the file to `len`, never shortens it. The new part reads as zeros. Writes into it
    /// cannot fail for lack of space, if the file system can promise that.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Shortens or lengthens the file. A part that is cut off and added again reads as zeros, even
    /// after a crash.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length of the file.
    fn len(&self) -> io::Result<u64>;

    /// Bytes of the disk that the file occupies, as the file system reports them: fewer than its length
    /// if it has holes.
    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }

    /// Whether the file has no contents.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// An exclusive lock of a file; dropping it gives the lock back.
pub struct DiskLock(#[allow(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>);

impl DiskLock {
    /// Wraps a guard that releases the lock when it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> DiskLock {
        DiskLock(Box::new(guard))
    }
}

impl std::fmt::Debug for DiskLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskLock")
    }
}

/// A failed operation of the disk. It is final: the node has to stop.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}; {}", path.display(), remedy(source))]
pub struct DiskError {
    /// The failed operation, as a verb: "write to", "sync".
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl DiskError {
    /// Whether only space was missing. The disk is sound: the operation may succeed once there is
    /// space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Turns an [`io::Error`] into a [`DiskError`] with the operation and the file.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { doing, path: path.to_owned(), source })
    }
}

/// Creates a directory and its missing parents, durably.
pub(crate) fn create_dirs(disk: &dyn Disk, dir: &Path) -> Result<(), DiskError> {
    if disk.exists(dir).doing("look for", dir)? {
        return Ok(());
    }
    let parent = match dir.parent() {
        None => return Ok(()),
        Some(p) if p.as_os_str().is_empty() => Path::new("."),
        Some(p) => p,
    };
    if parent != Path::new(".") {
        create_dirs(disk, parent)?;
    }
    disk.create_dir(dir).doing("create the directory", dir)?;
    disk.sync_dir(parent).doing("sync the directory", parent)
}

/// Replaces the content of the file `dir/name`. A crash leaves the old or the new content. On a full
/// disk the write uses the [`reserve`] of the directory.
pub(crate) fn write_atomically(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    data: &[u8],
) -> Result<(), DiskError> {
    reserve::with(disk, dir, || write_once(disk, dir, name, data))
}

fn write_once(disk: &dyn Disk, dir: &Path, name: &str, data: &[u8]) -> Result<(), DiskError> {
    let temporary = dir.join(format!("{name}.tmp"));
    let path = dir.join(name);
    let file = disk.create(&temporary).doing("create", &temporary)?;
    file.write_at(data, 0).doing("write to", &temporary)?;
    file.sync_all().doing("sync", &temporary)?;
    disk.rename(&temporary, &path).doing("rename a new version to", &path)?;
    if is_on(Mutant::DirSyncSkipped) {
        return Ok(());
    }
    disk.sync_dir(dir).doing("sync the directory", dir)
}

/// The whole contents of a file.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path).doing("open", path)?;
    read_whole(file.as_ref(), path)
}

/// The whole contents of an open file.
pub(crate) fn read_whole(file: &dyn DiskFile, path: &Path) -> Result<Vec<u8>, DiskError> {
    let len = file.len().doing("find the length of", path)?;
    let len = usize::try_from(len).map_err(io::Error::other).doing("read", path)?;
    let mut contents = vec![0; len];
    let read = file.read_at(&mut contents, 0).doing("read", path)?;
    contents.truncate(read);
    Ok(contents)
}

/// The operator's remedy for an error of the disk.
fn remedy(e: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match e.kind() {
        K::StorageFull | K::QuotaExceeded => {
            "free space on this file system or enlarge it, then start the node again"
        }
        K::PermissionDenied => "let the user that runs the node write here, then start the node again",
        K::ReadOnlyFilesystem => {
            "the file system is mounted read-only, which is what the kernel does after an error of the disk: see its log, check \
             the disk, mount it for writing, then start the node again"
        }
        K::NotFound | K::NotADirectory => {
            "check that `data_dir` names a directory that only this node touches, then start the node again"
        }
        _ if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            "the disk is failing: replace it; the node will heal from the others"
        }
        _ => "check the file system and the kernel's log, then start the node again",
    }
}
