//! Opens the checkpoint in any condition.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use api::Zxid;
use store_core::State;

use super::{
    Table, TableError, load,
    sled_table::{self, SledTable},
};
use crate::hash_seed;

/// Directory of the table in the node's directory.
const NAME: &str = "table";

/// The result of opening a checkpoint.
pub(crate) struct Opened {
    /// `None` if there is no table for now, for example because the disk is full. It can be made
    /// [again](again) later.
    pub(crate) table: Option<Box<dyn Table>>,
    /// The state in the table.
    pub(crate) state: State,
}

/// Opens the checkpoint in the node's directory and reads the state. A damaged one is moved to
/// `table.damaged-<n>`; one of them is kept for analysis. Without a table, and with a new one, the
/// state is empty: the quorum has it.
///
/// # Errors
/// Another process has it open.
pub(crate) fn open(data_dir: &Path) -> Result<Opened, TableError> {
    let dir = data_dir.join(NAME);
    let found = match dir.exists() {
        true => try_open(&dir),
        false => create(&dir).map(|table| (table, empty())),
    };
    let failed = match found {
        Ok((table, state)) => return Ok(Opened { table: Some(table), state }),
        Err(e @ TableError::InUse(_)) => return Err(e),
        Err(e @ TableError::Full(_)) => e,
        Err(damage) => match move_aside(&dir).map_err(TableError::from).and_then(|aside| {
            tracing::warn!("{damage}; moved to {}, the state comes from log and snapshot", aside.display());
            create(&dir)
        }) {
            Ok(table) => return Ok(Opened { table: Some(table), state: empty() }),
            Err(e) => e,
        },
    };
    tracing::error!(error = %failed, "the node starts without a checkpoint: its state comes from snapshot and log, once its quorum has opened them");
    let mut state = empty();
    state.forget_checkpoint();
    Ok(Opened { table: None, state })
}

/// Whether reading a snapshot at `zxid` and the log after it is faster than reading the table and the
/// log after that. Cost estimates: sled needs some 5 us for a znode, a snapshot 2 us, the log 6 us for
/// an entry.
pub(crate) fn slower_than(data_dir: &Path, zxid: Zxid) -> bool {
    /// This many znodes or entries take too little time for a decision and a new table.
    const FEW: u64 = 50_000;
    let dir = data_dir.join(NAME);
    let Some((applied, znodes)) = sled_table::noted(&dir) else {
        // There is no table, or it is incomplete.
        return true;
    };
    // The number of entries in the epochs in between is unknown.
    let between = |early: Zxid, late: Zxid| match late.epoch() == early.epoch() {
        true => u64::from(late.counter().saturating_sub(early.counter())),
        false => u64::from(late.counter()),
    };
    if applied < zxid {
        // A large state reaches the table only after a while.
        return znodes > FEW || zxid.epoch() > applied.epoch() || between(applied, zxid) > FEW;
    }
    znodes > FEW && between(zxid, applied) < znodes / 2
}

/// Replaces an unusable table with a new one.
pub(crate) fn anew(data_dir: &Path) -> Result<Box<dyn Table>, TableError> {
    let dir = data_dir.join(NAME);
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => create(&dir),
    }
}

/// Size of the files of the table, in bytes.
pub(crate) fn size(data_dir: &Path) -> u64 {
    let Ok(files) = fs::read_dir(data_dir.join(NAME)) else { return 0 };
    files.flatten().filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
}

/// Removes the table if that frees much space; it must not be open. The state then comes from snapshot
/// and log.
pub(crate) fn give_up(data_dir: &Path) -> bool {
    const MUCH: u64 = 8 << 20;
    let bytes = size(data_dir);
    if bytes < MUCH {
        return false;
    }
    match fs::remove_dir_all(data_dir.join(NAME)) {
        Ok(()) => {
            tracing::warn!(
                mib = bytes >> 20,
                "the disk is full: the checkpoint is removed, the state comes from snapshot and log"
            );
            true
        }
        Err(e) => {
            tracing::warn!("the disk is full, and the checkpoint cannot be removed: {e}");
            false
        }
    }
}

fn empty() -> State {
    State::seeded(hash_seed())
}

/// Makes a table with the empty state, so that a missing header always indicates damage.
fn create(dir: &Path) -> Result<Box<dyn Table>, TableError> {
    fs::create_dir_all(dir)?;
    let mut table: Box<dyn Table> = Box::new(SledTable::open(dir)?);
    table.write(State::default().take_dirty())?;
    Ok(table)
}

fn try_open(dir: &Path) -> Result<(Box<dyn Table>, State), TableError> {
    let mut table: Box<dyn Table> = Box::new(SledTable::open(dir)?);
    let nothing = || TableError::Damaged("there is no state in it: lost, or not written to its end".into());
    let state = load(table.as_mut())?.ok_or_else(nothing)?;
    Ok((table, state))
}

fn move_aside(dir: &Path) -> io::Result<PathBuf> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let prefix = format!("{NAME}.damaged-");
    let mut last = 0u32;
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(n) = name.to_str().and_then(|n| n.strip_prefix(&prefix)).and_then(|n| n.parse().ok()) {
            last = last.max(n);
            fs::remove_dir_all(entry.path())?;
        }
    }
    let aside = parent.join(format!("{prefix}{}", last + 1));
    fs::rename(dir, &aside)?;
    Ok(aside)
}
