//! A file that reserves space in a directory that must accept small writes even on a full disk:
//! promises, and log entries that free space. A writer that finds no space removes the file and retries
//! once.

use std::io;
use std::path::Path;

use crate::disk::{Disk, DiskError, DiskFile, Doing, Space};

/// The state of a reserve after [`keep`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserve {
    /// It holds the space.
    Kept,
    /// There is no reserve, or a smaller one, because space is short.
    NoSpace,
    /// The reserve exists and holds nothing: this file system promises no space, and stores zeros as
    /// holes.
    Hollow,
}

/// Makes a reserve of `bytes` bytes in `dir`, if it does not hold that space already. Takes nothing if
/// less than `left` bytes would stay free, or if others take the space in the meantime.
///
/// # Errors
/// A failure of the disk.
pub fn keep(disk: &dyn Disk, dir: &Path, bytes: u64, left: u64) -> Result<Reserve, DiskError> {
    let path = dir.join(NAME);
    let mut held = 0;
    if disk.exists(&path).doing("look for", &path)? {
        let file = disk.open(&path).doing("open", &path)?;
        held = held_by(file.as_ref(), &path)?;
        if held >= bytes {
            return Ok(Reserve::Kept);
        }
    }
    let Space { free, .. } = disk.space(dir).doing("find the free space of", dir)?;
    if free.saturating_add(held) < bytes.saturating_add(left) {
        return Ok(Reserve::NoSpace);
    }
    // A process that was killed during the creation left a smaller one.
    release(disk, dir)?;
    let file = disk.create(&path).doing("create", &path)?;
    match fill(file.as_ref(), bytes).doing("reserve space for", &path) {
        Ok(()) if held_by(file.as_ref(), &path)? >= bytes => Ok(Reserve::Kept),
        Ok(()) => Ok(Reserve::Hollow),
        Err(e) if e.is_full() => release(disk, dir).map(|_| Reserve::NoSpace),
        Err(e) => Err(e),
    }
}

/// Space that becomes free if the file is removed.
fn held_by(file: &dyn DiskFile, path: &Path) -> Result<u64, DiskError> {
    let len = file.len().doing("find the length of", path)?;
    Ok(len.min(file.allocated().doing("find the space of", path)?))
}

fn fill(file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    file.allocate(bytes)?;
    if file.allocated()? >= bytes {
        return Ok(());
    }
    // The file system cannot promise space, so this occupies it.
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let piece = &zeros[..zeros.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX))];
        file.write_at(piece, at)?;
        at += piece.len() as u64;
    }
    // Some file systems know the occupied space only after this.
    file.sync_all()
}

/// Releases the reserve of `dir`. Returns false if there is none.
///
/// # Errors
/// A failure of the disk.
pub fn release(disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
    let path = dir.join(NAME);
    if !disk.exists(&path).doing("look for", &path)? {
        return Ok(false);
    }
    disk.remove(&path).doing("remove", &path)?;
    // Some file systems free the space only with their next commit.
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    Ok(true)
}

/// Runs `change`. If space is missing, releases the reserve of `dir` and runs it once more.
pub(crate) fn with<T>(
    disk: &dyn Disk,
    dir: &Path,
    mut change: impl FnMut() -> Result<T, DiskError>,
) -> Result<T, DiskError> {
    match change() {
        Err(e) if e.is_full() && release(disk, dir)? => change(),
        other => other,
    }
}

const NAME: &str = "reserve";
