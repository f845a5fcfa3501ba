//! Whole trees, in and out: `import`, `export`.

use std::path::PathBuf;

use clap::Args;
use host::config::Size;

use super::{
    Connection,
    parse::{in_flight, size},
};

/// Write a directory tree into the ensemble.
///
/// Each file becomes a znode with the file's bytes as its value; each directory a znode with children. Characters that
/// no znode's name may have are written as %XX. `quorate export` gives the same tree back, byte for byte, with empty files and
/// empty directories; modes, owners and times are not kept. Symbolic links and special files cannot be represented: with
/// any of them, or with a file above --max-size, nothing is written, unless --skip-special or --skip-large leaves them
/// out.
///
/// A file `%value` in a directory is the value of the directory's znode. If DIR is a file, it is an archive of `quorate export
/// --archive`; then kinds, TTLs, access lists, quotas and the counters of sequential znodes are restored, too. Access lists hold during
/// the import: use the superuser where they would not let you create what is below.
///
/// The znode must not exist; missing parents are created. The import survives the loss of nodes, if a quorum returns
/// before the session expires.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate import ./conf /app/conf
  quorate import ~/.cargo/registry/src /sources --skip-special --skip-large")]
pub(crate) struct Import {
    /// Directory, or archive, to import.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Path of the znode to create.
    #[arg(value_name = "ZNODE")]
    pub(crate) path: String,
    /// Number of concurrent writes.
    #[arg(long, value_name = "N", default_value = "256", value_parser = in_flight())]
    pub(crate) in_flight: u32,
    /// Refuse larger files; the ensemble's own limit is the setting `limits.data`, 1MiB unless it was raised on all nodes.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) max_size: Size,
    /// Skip symbolic links and special files, with a warning for each.
    #[arg(long)]
    pub(crate) skip_special: bool,
    /// Skip files larger than --max-size, with a warning for each.
    #[arg(long)]
    pub(crate) skip_large: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Write a tree of znodes into a directory.
///
/// The reverse of `quorate import`. The directory must not exist, or must be empty. The export begins with a sync, and is no
/// snapshot of one moment: it may contain a part of the concurrent writes. A znode that has children and a value that import
/// did not write becomes a directory, with its value in the file `%value`.
///
/// With --archive, DIR is one file, which can hold any tree: names that no file can have or that import would change (most
/// with a percent sign), paths that are too long, containers, TTLs, access lists, quotas, absent values, and the numbers for
/// sequential znodes. Without it, a znode that a directory cannot hold is refused, and the numbers are not kept. Both omit
/// ephemerals, which belong to sessions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  quorate export /app/conf ./conf
  quorate export / ./everything
  quorate export --archive / everything.archive")]
pub(crate) struct Export {
    /// Path of the znode; everything below it is exported, too.
    #[arg(value_name = "ZNODE")]
    pub(crate) path: String,
    /// Directory, or archive, to write.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Write one file instead of a directory; it can hold any tree.
    #[arg(long)]
    pub(crate) archive: bool,
    /// Number of concurrent reads.
    #[arg(long, value_name = "N", default_value = "64", value_parser = in_flight())]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
}
