//! The durable data of a node's quorum service.
//!
//! [`Storage`] opens all of it together:
//!
//! | file in the data directory | type | contents |
//! |---|---|---|
//! | `identity`, `lock` | [`DataDir`] | the owner of the directory, and the lock of its one process |
//! | `epochs` | [`EpochFile`] | accepted and current epoch, and the known losses |
//! | `incarnations` | [`Incarnations`] | the incarnations of the directory, and the last one met of each other server |
//! | `log/*.log` | [`Log`], [`LogReader`] | the replicated log, in segments |
//! | `log/owner`, `log-dir` | | the key that binds the data directory to a log outside of it |
//! | `reserve`, `log/reserve` | [`reserve`] | space for necessary writes on a full disk |
//! | `log/members` | [`Log`] | the members at the base of the log, once they were changed |
//! | `log/durable` | [`Log`] | the durable end, so that a lost end is noticed |
//! | `snapshots/*.snap` | [`Snapshots`] | the two newest states of the store, each exactly at one zxid |
//! | `snapshots/*.received` | [`Snapshots`] | a received state, until the log is emptied and continues after it |
//!
//! All input and output goes through the trait [`Disk`]: [`FsDisk`] is the real one, [`MemDisk`] a
//! simulated one with a volatile cache, crashes and faults.
//!
//! Three rules hold everywhere in this crate:
//! - *Fail-stop.* An error of the disk is final. A failed fsync is never retried, because the kernel may have
//!   dropped the data and call the next one a success (Rebello et al., "Can Applications Recover from fsync
//!   Failures?", ATC 2020).
//! - *A name means complete.* A file gets its final name by a rename after its contents are durable, so a
//!   fault under a final name is damage, not a crash.
//! - *Damage is never repaired silently.* Recovery cuts only data that was provably never reported as
//!   durable.

mod checked_text;
mod disk;
mod durable_file;
mod epochs;
mod error;
pub mod format;
mod fs_disk;
mod identity;
mod incarnations;
mod log;
mod log_place;
mod mem_disk;
mod members;
mod reader;
mod recover;
mod recovery;
pub mod reserve;
mod segment;
mod snapshot_file;
mod snapshots;
mod storage;

pub use disk::{Disk, DiskError, DiskFile, DiskLock, Space};
pub use epochs::{EpochError, EpochFile, Epochs};
pub use error::{LogError, ReadError};
pub use fs_disk::FsDisk;
pub use identity::{DataDir, IdentityError, Owner};
pub use incarnations::{IncarnationError, Incarnations};
pub use log::{Log, LogOptions};
pub use log_place::{LogPlace, LogPlaceError};
pub use mem_disk::{Crash, DiskOp, Fault, MemDisk};
pub use reader::LogReader;
pub use recover::Offline;
pub use recovery::{Base, Recovery};
pub use snapshot_file::SnapshotReader;
pub use snapshots::{SkippedSnapshot, SnapshotError, SnapshotReport, SnapshotWriter, Snapshots};
pub use storage::{SNAPSHOTS, Salvaged, Storage, StorageError, StorageOptions};
