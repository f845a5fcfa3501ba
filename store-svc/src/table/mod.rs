//! The checkpoint: the state as of one entry on disk, written in the background.
//!
//! It saves each start the replay of the log from a snapshot, unless the snapshot of a large state is
//! faster. Correctness does not depend on it: its digest detects any damage, the node moves a damaged
//! checkpoint away, and the quorum provides the state again. If it cannot be written, the node
//! continues without one and tries again later, with the whole state. Snapshots do not need it.

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

/// An error of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Another process has it open. The table is not damaged.
    #[error("{0} is in use by another process: stop that one")]
    InUse(String),
    /// The disk is full. The table is not damaged.
    #[error("no room for the checkpoint: {0}; free space, or raise the quota")]
    Full(std::io::Error),
    /// An error of the disk, or of sled on the disk.
    #[error("the checkpoint cannot be read or written: {0}")]
    Io(std::io::Error),
    /// sled panicked, as it does on unexpected content.
    #[error("the checkpoint is damaged: {0}")]
    Panic(String),
    /// The content is not what was written.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// The content does not match its digest.
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

/// A store for records. The header makes them a state; without it there is no state.
pub(crate) trait Table: Send {
    /// Calls `each` with every encoded record, the header first. Does not call it if nothing was ever
    /// written.
    ///
    /// # Errors
    /// Errors of the disk and of `each`; also incomplete records.
    fn scan(&mut self, each: &mut dyn FnMut(Bytes) -> Result<(), TableError>) -> Result<(), TableError>;

    /// Applies changes to the content, all or nothing, and makes them durable. A whole state replaces
    /// everything; an interrupted write leaves nothing.
    ///
    /// # Errors
    /// Errors of the disk. The table is then unusable.
    fn write(&mut self, changes: Changes) -> Result<(), TableError>;

    /// Replaces everything with a state that arrives in parts. If the write is interrupted, or the
    /// parts end before the last, the table is empty, and the next write has to be a whole state.
    ///
    /// # Errors
    /// As [`Table::write`].
    fn write_whole(&mut self, parts: &mut Parts<'_>) -> Result<(), TableError>;

    /// Size on disk in bytes, or 0 if it is unknown.
    fn size(&self) -> u64;
}

/// The state in a table, verified by its digest; `None` if nothing was ever written.
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
