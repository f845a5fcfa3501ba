use std::path::PathBuf;

use api::{UnknownRecord, Zxid};

use crate::disk::DiskError;

/// An error of the log. [`LogError::NotChained`], [`LogError::NotInHistory`] and [`LogError::TooLarge`]
/// refuse a call and change nothing. After any other error the node has to stop.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Durable entries are unreadable, and no crash can have caused that.
    #[error(
        "{} is damaged at byte {offset}, after zxid {zxid_before}: {found}. Check the disk; a node that is started \
         again keeps the damaged part as `*.damaged` and heals from its leader",
        segment.display()
    )]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Position in the file, in bytes.
        offset: u64,
        /// The last entry before the damage.
        zxid_before: Zxid,
        /// The found content.
        found: String,
    },
    /// There is no log, and the options forbid to [create](crate::LogOptions::may_create) one. Nothing
    /// was changed.
    #[error(
        "there is no log in {}: it is gone, and with it entries that this node has promised to keep. Move the data \
         directory away; the node will be synchronised anew",
        dir.display()
    )]
    Missing {
        /// Expected place of the log.
        dir: PathBuf,
    },
    /// Another version of the program wrote the file.
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
        /// The version of this program.
        known: u32,
    },
    /// A later version of the program wrote a record. Nothing was changed.
    #[error("{}, byte {offset}: entry {zxid} is {unknown}", segment.display())]
    Unknown {
        /// The file.
        segment: PathBuf,
        /// Position in the file, in bytes.
        offset: u64,
        /// The zxid of the entry.
        zxid: Zxid,
        /// The unknown record.
        unknown: UnknownRecord,
    },
    /// The log is at a feature level that this build does not know. Nothing was changed.
    #[error("the log in {} cannot be used: {why}", dir.display())]
    Level {
        /// Directory of the log.
        dir: PathBuf,
        /// Both levels, and the remedy.
        why: String,
    },
    /// The entry to append does not directly follow the last one.
    #[error("entry {zxid} does not follow {last}, the last one in the log")]
    NotChained {
        /// The zxid of the entry.
        zxid: Zxid,
        /// The last entry of the log.
        last: Zxid,
    },
    /// The log does not contain the entry to truncate to.
    #[error("cannot truncate the log to {zxid}: it holds what is behind {base}, up to {last}, and not this")]
    NotInHistory {
        /// The entry.
        zxid: Zxid,
        /// Beginning of the log.
        base: Zxid,
        /// End of the log.
        last: Zxid,
    },
    /// An entry is larger than any record may be.
    #[error("entry {zxid} has {bytes} bytes of payload; a record of the log holds at most {max}")]
    TooLarge {
        /// The zxid of the entry.
        zxid: Zxid,
        /// Size of its payload.
        bytes: usize,
        /// Maximum size of a payload.
        max: usize,
    },
    /// The log has failed before. The content of the disk is unknown until the log is opened again.
    #[error("the log has failed before and does nothing more until the node is started again: {first}")]
    Poisoned {
        /// The first error.
        first: String,
    },
}

/// The reason why entries are unreadable.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log no longer has the entry directly after this zxid; only a snapshot helps.
    #[error("the entries behind {after} are purged: the log begins behind {base}")]
    Purged {
        /// The zxid before the requested entries.
        after: Zxid,
        /// Beginning of the log.
        base: Zxid,
    },
    /// The log does not contain this zxid.
    #[error("zxid {after} is not in this log, which ends with {last}")]
    NotThere {
        /// The zxid before the requested entries.
        after: Zxid,
        /// End of the log.
        last: Zxid,
    },
    /// The log is unreadable; the node has to stop.
    #[error(transparent)]
    Log(#[from] LogError),
}
