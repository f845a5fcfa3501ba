//! The file `members` of a log: the members at its base. [`crate::format`] describes it.

use std::path::Path;
use std::sync::Arc;

use api::{Roster, Zxid};

use crate::disk::{self, Disk, DiskError, Doing};
use crate::error::LogError;
use crate::format::{self, HEADER_LEN, Magic, Salt};
use crate::recovery::{bad_header, damaged};

/// The members at `base`, where the log begins; `None`: those of the first start.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, base: Zxid) -> Result<Option<Arc<Roster>>, LogError> {
    let path = dir.join(NAME);
    if !disk.exists(&path).doing("look for", &path)? {
        return Ok(None);
    }
    let contents = disk::read_file(disk, &path)?;
    format::decode_header(Magic::Members, &contents).map_err(|bad| bad_header(&path, bad))?;
    let (mut at, mut found) = (HEADER_LEN, None);
    while at < contents.len() {
        let (roster, len) = format::decode_members(&contents[at..])
            .map_err(|what| damaged(&path, at as u64, Zxid::ZERO, what))?;
        found = roster.filter(|roster| roster.since() <= base).or(found);
        at += len;
    }
    Ok(found)
}

/// Stores these members, the oldest first, for a log that is about to begin at `base`. Without any, and without the file,
/// there is nothing to store.
pub(crate) fn write<'a>(
    disk: &dyn Disk,
    dir: &Path,
    base: Zxid,
    rosters: impl Iterator<Item = &'a Arc<Roster>>,
) -> Result<(), DiskError> {
    let path = dir.join(NAME);
    let mut contents = format::encode_header(Magic::Members, base, Salt::NONE, None).to_vec();
    rosters.for_each(|roster| format::encode_members(&mut contents, Some(roster)));
    if contents.len() == HEADER_LEN && !disk.exists(&path).doing("look for", &path)? {
        return Ok(());
    }
    disk::write_atomically(disk, dir, NAME, &contents)
}

const NAME: &str = "members";
