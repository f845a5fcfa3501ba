use std::io;
use std::path::{Path, PathBuf};

use crate::checked_text::{self, BadText};
use crate::disk::{self, Disk, DiskError, DiskLock, Doing};
use crate::{identity, recovery};

/// The reason why a directory is not usable for the log of a node.
#[derive(Debug, thiserror::Error)]
pub enum LogPlaceError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log is in the data directory, and the setting names another directory.
    #[error(
        "the log of this node is in {}, but `log_dir` is {}: leave `log_dir` out or, to move the log, stop the node and move \
         the whole of the former to the latter", found.display(), named.display()
    )]
    InDataDir {
        /// Present place of the log.
        found: PathBuf,
        /// The configured place.
        named: PathBuf,
    },
    /// The log is outside of the data directory, and no setting names its place.
    #[error(
        "the log of this node is in {}: set `log_dir` to it or, to move the log into the data directory, stop the node, move \
         the whole of it to {}, and remove {}", found.display(), inside.display(), note.display()
    )]
    Outside {
        /// Its last place.
        found: PathBuf,
        /// Its place inside the data directory.
        inside: PathBuf,
        /// The file that names the place.
        note: PathBuf,
    },
    /// Another version of the program wrote the file that binds log and data directory.
    #[error("{} has format version {found}, but this program knows only version {}: start the version that wrote it, \
             or a newer one", path.display(), checked_text::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The named directory does not have the log of this node.
    #[error(
        "`log_dir`, {}, does not have the log of this node, which was in {} last: is the file system mounted? Mount it, or name \
         the directory that the log is in now", named.display(), found.display()
    )]
    NotThere {
        /// The configured place.
        named: PathBuf,
        /// Its last place.
        found: PathBuf,
    },
    /// The named directory has a log already, and the data directory is new or has another log.
    #[error(
        "`log_dir`, {}, has the log of another node or of another data directory: name an empty or a new directory",
        named.display()
    )]
    Foreign {
        /// The configured place.
        named: PathBuf,
    },
    /// The path cannot be a directory of files.
    #[error("`log_dir`, {}, cannot hold the log of a node: {why}. Name a directory on a disk", named.display())]
    NoDirectory {
        /// The configured place.
        named: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The named directory is a data directory, this node's or another's.
    #[error(
        "`log_dir`, {}, is the data directory of a node: name another directory, or leave `log_dir` out, then the log is in log/ \
         in the data directory", named.display()
    )]
    IsDataDir {
        /// The configured place.
        named: PathBuf,
    },
    /// The node had a log, and it is gone.
    #[error(
        "the log of this node is not in {}, where it was last: bring it back there, or name the directory that it is in now with \
         `log_dir`", dir.display()
    )]
    Lost {
        /// Expected place of the log.
        dir: PathBuf,
    },
    /// Another process uses the log.
    #[error("the log in {} is in use by another process: stop that one, or set `log_dir` to another directory", named.display())]
    InUse {
        /// The configured place.
        named: PathBuf,
    },
    /// The content of a note is not what was written.
    #[error("{} is damaged: restore it, or give the node an empty data directory and an empty `log_dir`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The place of a node's log. A log outside of the data directory is locked for this process, and notes
/// in both directories bind them to each other. So a node does not use a data directory with another
/// log, for example one from a file system that is not mounted.
pub struct LogPlace {
    pub(crate) dir: PathBuf,
    _lock: Option<DiskLock>,
}

impl LogPlace {
    /// Finds the log of `data_dir`, at the configured place `named` or inside the data directory.
    /// `is_new`: the node has promised nothing yet. `key` is random.
    pub(crate) fn find(
        disk: &dyn Disk,
        data_dir: &Path,
        named: Option<&Path>,
        is_new: bool,
        key: u64,
    ) -> Result<LogPlace, LogPlaceError> {
        let Some(named) = named else { return Ok(LogPlace { dir: inside(disk, data_dir)?, _lock: None }) };
        let found = noted_key(disk, data_dir, named, is_new)?;
        let key = found.unwrap_or_else(|| format!("{key:016x}"));
        // Only after the check: a refusal must not leave an empty directory in place of a file system
        // that is not mounted.
        disk::create_dirs(disk, named).map_err(|e| of_named(named, e))?;
        let lock = named.join("lock");
        let lock = match disk.lock(&lock) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(LogPlaceError::InUse { named: named.to_owned() });
            }
            other => other.doing("lock", &lock).map_err(|e| of_named(named, e))?,
        };
        // The note first: the next start would treat an owner file without a note in its data directory
        // as foreign.
        store(disk, data_dir, NOTE, &[(PATH, &named.to_string_lossy()), (KEY, &key)])?;
        store(disk, named, OWNER, &[(KEY, &key)])?;
        Ok(LogPlace { dir: named.to_owned(), _lock: Some(lock) })
    }

    /// Finds the log of an existing `data_dir`. Changes nothing.
    pub(crate) fn look(
        disk: &dyn Disk,
        data_dir: &Path,
        named: Option<&Path>,
    ) -> Result<PathBuf, LogPlaceError> {
        let dir = match named {
            None => inside(disk, data_dir)?,
            Some(named) => {
                noted_key(disk, data_dir, named, false)?;
                named.to_owned()
            }
        };
        match recovery::is_log(disk, &dir)? {
            true => Ok(dir),
            false => Err(LogPlaceError::Lost { dir }),
        }
    }
}

/// The place of the log inside the data directory. Fails if the note names an outside place.
fn inside(disk: &dyn Disk, data_dir: &Path) -> Result<PathBuf, LogPlaceError> {
    let (inside, note) = (data_dir.join("log"), data_dir.join(NOTE));
    match read(disk, &note, [PATH, KEY])? {
        None => Ok(inside),
        Some([found, _]) => Err(LogPlaceError::Outside { found: found.into(), inside, note }),
    }
}

/// The common key of `data_dir` and its log directory `named`; `None` if they have none yet.
fn noted_key(
    disk: &dyn Disk,
    data_dir: &Path,
    named: &Path,
    is_new: bool,
) -> Result<Option<String>, LogPlaceError> {
    let inside = data_dir.join("log");
    let noted = read(disk, &data_dir.join(NOTE), [PATH, KEY])?.map(|[path, key]| (PathBuf::from(path), key));
    let identity = named.join(identity::IDENTITY);
    if disk.exists(&identity).doing("look for", &identity).map_err(|e| of_named(named, e))? {
        return Err(LogPlaceError::IsDataDir { named: named.to_owned() });
    }
    let owner = read(disk, &named.join(OWNER), [KEY])?.map(|[key]| key);
    let has_log = recovery::is_log(disk, named)?;
    match (noted, owner) {
        (Some((_, noted)), Some(owner)) if noted == owner => Ok(Some(noted)),
        // A crash ended the claim, or an operator made the directory again by hand.
        (Some((found, noted)), None) if found == named && (is_new || has_log) => Ok(Some(noted)),
        (Some((found, _)), _) => Err(LogPlaceError::NotThere { named: named.to_owned(), found }),
        (None, Some(_)) => Err(LogPlaceError::Foreign { named: named.to_owned() }),
        (None, None) if recovery::is_log(disk, &inside)? => {
            Err(LogPlaceError::InDataDir { found: inside, named: named.to_owned() })
        }
        (None, None) if has_log && is_new => Err(LogPlaceError::Foreign { named: named.to_owned() }),
        (None, None) => Ok(None),
    }
}

/// Maps a fault of the named directory, which is not a fault of the data directory.
fn of_named(named: &Path, e: DiskError) -> LogPlaceError {
    use io::ErrorKind as K;
    match e.source.kind() {
        K::NotFound | K::NotADirectory | K::AlreadyExists => {
            LogPlaceError::NoDirectory { named: named.to_owned(), why: e.source }
        }
        _ => e.into(),
    }
}

fn store(disk: &dyn Disk, dir: &Path, name: &str, values: &[(&str, &str)]) -> Result<(), DiskError> {
    let text = checked_text::encode(name, values);
    let path = dir.join(name);
    if disk.exists(&path).doing("look for", &path)? && disk::read_file(disk, &path)? == text.as_bytes() {
        // The previous process may have ended between the rename and its sync.
        return disk.sync_dir(dir).doing("sync the directory", dir);
    }
    disk::write_atomically(disk, dir, name, text.as_bytes())
}

fn read<const N: usize>(
    disk: &dyn Disk,
    path: &Path,
    words: [&str; N],
) -> Result<Option<[String; N]>, LogPlaceError> {
    if !disk.exists(path).doing("look for", path)? {
        return Ok(None);
    }
    let kind = path.file_name().unwrap_or_default().to_string_lossy();
    match checked_text::decode(&kind, words, &disk::read_file(disk, path)?) {
        Ok(values) => Ok(Some(values)),
        Err(BadText::Damaged) => Err(LogPlaceError::Damaged { path: path.to_owned() }),
        Err(BadText::Version(found)) => Err(LogPlaceError::Version { path: path.to_owned(), found }),
    }
}

/// File in the data directory: place and key of the log.
const NOTE: &str = "log-dir";
/// File in the log directory: its key.
const OWNER: &str = "owner";
const PATH: &str = "path";
const KEY: &str = "key";
