use std::path::PathBuf;

use api::{UnknownRecord, Zxid};

use crate::disk::DiskError;

/// Why the log does not do what it was asked. Apart from [`LogError::NotChained`], [`LogError::NotInHistory`] and
/// [`LogError::TooLarge`], which refuse a call and change nothing, the node has to stop.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something is wrong that no crash can have caused: entries that were durable cannot be read.
    #[error(
        "{} is damaged at byte {offset}, behind zxid {zxid_before}: {found}. Check the disk; a node that is started \
         again puts the damaged part aside and heals from its leader",
        segment.display()
    )]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// The last entry before the damage.
        zxid_before: Zxid,
        /// The found content.
        found: String,
    },
    /// There is no log, and none may be [created](crate::LogOptions::may_create). Nothing was changed.
    #[error(
        "there is no log in {}: it is gone, and with it entries that this node has promised to keep. Move the data \
         directory away; the node will be synchronised anew",
        dir.display()
    )]
    Missing {
        /// Where it should be.
        dir: PathBuf,
    },
    /// Another version of the program wrote this.
    #[error(
        "{} has format version {found}, but this program knows only version {known}: start the version that wrote it, \
         or a newer one",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A later version of the program wrote one of the records. Nothing was changed.
    #[error("{}, byte {offset}: entry {zxid} is {unknown}", segment.display())]
    Unknown {
        /// The file.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// Of the entry.
        zxid: Zxid,
        /// The unknown record.
        unknown: UnknownRecord,
    },
    /// The log is at a feature level that this build does not know. Nothing was changed.
    #[error("the log in {} cannot be used: {why}", dir.display())]
    Level {
        /// Where it is.
        dir: PathBuf,
        /// Both levels, and what to do.
        why: String,
    },
    /// The entry to append does not directly follow the last one.
    #[error("entry {zxid} does not follow {last}, the last one in the log")]
    NotChained {
        /// Of the entry.
        zxid: Zxid,
        /// The entry before it.
        last: Zxid,
    },
    /// The log was to be truncated to an entry that it does not have.
    #[error("cannot truncate the log to {zxid}: it holds what is behind {base}, up to {last}, and not this")]
    NotInHistory {
        /// The entry.
        zxid: Zxid,
        /// Begin of the log.
        base: Zxid,
        /// End of the log.
        last: Zxid,
    },
    /// An entry is larger than any record may be.
    #[error("entry {zxid} has {bytes} bytes of payload; a record of the log holds at most {max}")]
    TooLarge {
        /// Of the entry.
        zxid: Zxid,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// The log failed before, and what is on the disk is unknown until it is opened again.
    #[error("the log has failed before and does nothing more until the node is started again: {first}")]
    Poisoned {
        /// The first error.
        first: String,
    },
}

/// Why entries cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log no longer has the entry directly after this zxid; only a snapshot helps.
    #[error("the entries behind {after} are purged: the log begins behind {base}")]
    Purged {
        /// The zxid before the requested entries.
        after: Zxid,
        /// Where the log begins.
        base: Zxid,
    },
    /// The log does not contain this zxid.
    #[error("zxid {after} is not in this log, which ends with {last}")]
    NotThere {
        /// The zxid before the requested entries.
        after: Zxid,
        /// Where the log ends.
        last: Zxid,
    },
    /// The log cannot be read; the node has to stop.
    #[error(transparent)]
    Log(#[from] LogError),
}
