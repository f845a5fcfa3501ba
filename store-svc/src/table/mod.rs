//! The checkpoint: the state as of one entry, on disk, written behind.
//!
//! It saves replaying the log from a snapshot at every start, unless the snapshot of a large state gets there sooner. No promise
//! rests on it: whatever is wrong with it is found by its digest, and then it is moved aside and the state comes from the
//! quorum again. If it cannot be written, the node goes on without one and tries again later, from the whole state. Snapshots do
//! not need it.

mod checkpointer;
mod recovery;
mod redo;
mod sled_table;

use std::io::ErrorKind;

use bytes::Bytes;
use checkpointer::Parts;
use proto::store::decode_record;
use store_core::{Changes, LoadError, Loader, State};

use crate::hash_seed;
pub(crate) use checkpointer::{Checkpointer, Job, Part};
pub(crate) use recovery::{Opened, anew, give_up, open, size, slower_than};

/// What went wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Somebody has it open. That is no damage.
    #[error("{0} is in use by another process: stop that one")]
    InUse(String),
    /// There is no room. That is no damage either.
    #[error("no room for the checkpoint: {0}; free space, or raise the quota")]
    Full(std::io::Error),
    /// The disk, or sled about it.
    #[error("the checkpoint cannot be read or written: {0}")]
    Io(std::io::Error),
    /// sled panicked, which it does where it finds what it did not expect.
    #[error("the checkpoint is damaged: {0}")]
    Panic(String),
    /// What is there is not what was written.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// Nor does it add up.
    #[error("the checkpoint is damaged: {0}")]
    Load(#[from] LoadError),
}

impl From<std::io::Error> for TableError {
    fn from(e: std::io::Error) -> TableError {
        match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => TableError::Full(e),
            _ => TableError::Io(e),
        }
    }
}

/// A place that keeps records. One header makes them a state; without it there is none.
pub(crate) trait Table: Send {
    /// Calls `each` with every record, encoded, the header first. Calls it never if nothing was ever written.
    ///
    /// # Errors
    /// What the disk says, and what `each` says; also if records are not whole.
    fn scan(&mut self, each: &mut dyn FnMut(Bytes) -> Result<(), TableError>) -> Result<(), TableError>;

    /// Lays changes over what is there, all or nothing, and makes them durable. A whole state takes the place of everything;
    /// interrupted, it leaves nothing.
    ///
    /// # Errors
    /// What the disk says. Then the table is of no use any more.
    fn write(&mut self, changes: Changes) -> Result<(), TableError>;

    /// Writes a state, which comes in parts, in place of everything. Interrupted, or if the parts end before the last, it leaves
    /// nothing, and a whole state has to come next.
    ///
    /// # Errors
    /// As of [`Table::write`].
    fn write_whole(&mut self, parts: &mut Parts<'_>) -> Result<(), TableError>;

    /// Bytes that it takes on disk, or 0 if that cannot be known.
    fn size(&self) -> u64;
}

/// The state in a table, checked by its digest; `None` if nothing was ever written.
fn load(table: &mut dyn Table) -> Result<Option<State>, TableError> {
    let (mut loader, mut empty) = (Loader::seeded(hash_seed()), true);
    table.scan(&mut |bytes| {
        empty = false;
        let record = decode_record(bytes).map_err(|e| TableError::Damaged(e.to_string()))?;
        Ok(loader.take(record)?)
    })?;
    if empty { Ok(None) } else { Ok(Some(loader.finish()?)) }
}

#[cfg(test)]
mod tests;
