//! Opening the checkpoint, whatever is left of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use store_core::State;

use super::{Table, TableError, load, sled_table::SledTable};

/// Name of the table's directory in that of the node.
const NAME: &str = "table";

/// Opens the checkpoint in the node's directory and reads the state. A damaged one is moved to `table.damaged-<n>`,
/// where one is kept for whoever wants to know, and an empty state is returned: the quorum has the rest.
///
/// # Errors
/// If no table can be made either.
pub(crate) fn open(data_dir: &Path) -> Result<(Box<dyn Table>, State), TableError> {
    let dir = data_dir.join(NAME);
    if !dir.exists() {
        return Ok((create(&dir)?, State::default()));
    }
    match try_open(&dir) {
        Ok((table, state)) => Ok((table, state)),
        Err(e @ (TableError::InUse(_) | TableError::Full(_))) => Err(e),
        Err(damage) => {
            let aside = move_aside(&dir)?;
            tracing::warn!("{damage}; moved to {}, the state comes from log and snapshot", aside.display());
            Ok((create(&dir)?, State::default()))
        }
    }
}

/// Makes a table with the empty state in it, so that none at all is always a fault.
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
