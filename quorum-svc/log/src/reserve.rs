//! A file that holds space back, in a directory that has to take small writes also when the disk is full: promises, and the
//! log of what makes room again. Whoever finds no space removes it and tries once more.

use std::path::Path;

use crate::disk::{Disk, DiskError, Doing, Space};

/// Makes the reserve of `dir` so large, if there is none. Takes nothing if there would be less than `left` free bytes behind it,
/// or if others take the space meanwhile. Returns whether it is there.
///
/// # Errors
/// The disk.
pub fn keep(disk: &dyn Disk, dir: &Path, bytes: u64, left: u64) -> Result<bool, DiskError> {
    let path = dir.join(NAME);
    if disk.exists(&path).doing("look for", &path)? {
        return Ok(true);
    }
    let Space { free, .. } = disk.space(dir).doing("find the free space of", dir)?;
    if free < bytes.saturating_add(left) {
        return Ok(false);
    }
    let file = disk.create(&path).doing("create", &path)?;
    match file.allocate(bytes).doing("reserve space for", &path) {
        Ok(()) => Ok(true),
        Err(e) if e.is_full() => release(disk, dir).map(|_| false),
        Err(e) => Err(e),
    }
}

/// Gives the space of the reserve of `dir` free. False if there is none.
///
/// # Errors
/// The disk.
pub fn release(disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
    let path = dir.join(NAME);
    if !disk.exists(&path).doing("look for", &path)? {
        return Ok(false);
    }
    disk.remove(&path).doing("remove", &path)?;
    // Some file systems give the space free only with their next commit.
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    Ok(true)
}

/// Does this, and once more with the space of the reserve of `dir` if there was none.
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
