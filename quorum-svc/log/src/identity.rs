use std::io;
use std::path::{Path, PathBuf};

use api::mutants::{Mutant, is_on};
use api::{Ensemble, PeerId};

use crate::checked_text::{self, BadText};
use crate::disk::{self, Disk, DiskError, DiskLock, Doing};

/// A data directory that is reserved for this process until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    is_new: bool,
    members: Ensemble,
    _lock: DiskLock,
}

/// The owner of a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Name of the ensemble.
    pub ensemble: String,
    /// The node.
    pub id: PeerId,
    /// All servers of the ensemble at its first start. They count as long as the log says nothing of members.
    pub members: Ensemble,
}

/// The reason why a node may not use a data directory.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The directory belongs to another node.
    #[error(
        "the data directory {} belongs to node {found_id} of ensemble {found_ensemble:?}; this is node {id} of ensemble \
         {ensemble:?}: point data_dir elsewhere or, to restore a copy of another node, put this node's own file identity there",
        dir.display()
    )]
    Mismatch {
        /// The directory.
        dir: PathBuf,
        /// The node of the directory.
        found_id: PeerId,
        /// The ensemble of the directory.
        found_ensemble: String,
        /// The node that claims it.
        id: PeerId,
        /// The ensemble of that node.
        ensemble: String,
    },
    /// The directory has no identity file.
    #[error("{} is no data directory of a node: it has no file {IDENTITY}. Name the `data_dir` of a node", dir.display())]
    NotThere {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is not empty and has no owner.
    #[error(
        "the directory {} is not empty (it has {found:?}) and has no identity file: it is no data directory of a node. \
         Point data_dir at an empty or a new directory",
        dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// Another process uses the directory.
    #[error(
        "the data directory {} is in use by another process, which holds a lock on {}: stop that one, or point data_dir \
         elsewhere",
        dir.display(), lock.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The locked file.
        lock: PathBuf,
    },
    /// The content of the identity file is not what was written.
    #[error("{} is damaged: restore it, or move the data directory aside and give the node an empty one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the program wrote the file.
    #[error("{} has format version {found}, but this program knows only version {}: start the version that wrote it, \
             or a newer one", path.display(), checked_text::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The name of the ensemble cannot be stored.
    #[error(
        "{ensemble:?} cannot be the name of an ensemble: use 1 to {MAX_NAME} bytes without control characters"
    )]
    BadName {
        /// The name.
        ensemble: String,
    },
}

impl DataDir {
    /// Claims the directory `dir` for node `id` of an ensemble with these members. It creates or
    /// initialises an empty directory. Otherwise it checks that the directory belongs to exactly this
    /// node; its members stay as they are in the directory.
    ///
    /// # Errors
    /// The directory belongs to another node, or another process uses it. Nothing changes then.
    pub fn claim(
        disk: &dyn Disk,
        dir: &Path,
        ensemble: &str,
        id: PeerId,
        members: &Ensemble,
    ) -> Result<DataDir, IdentityError> {
        if ensemble.is_empty() || ensemble.len() > MAX_NAME || ensemble.chars().any(char::is_control) {
            return Err(IdentityError::BadName { ensemble: ensemble.to_owned() });
        }
        disk::create_dirs(disk, dir)?;
        // Before the first change.
        refuse_foreign(disk, dir)?;
        let lock = lock(disk, dir)?;
        // Before the lock was taken, another process may have changed the directory.
        let is_new = refuse_foreign(disk, dir)?;
        let members = if is_new {
            write(disk, dir, &Owner { ensemble: ensemble.to_owned(), id, members: members.clone() })?;
            members.clone()
        } else {
            let found = check_identity(disk, dir, ensemble, id)?;
            disk.sync_dir(dir).doing("sync the directory", dir)?;
            if is_on(Mutant::OtherMembersTrusted) { members.clone() } else { found.members }
        };
        Ok(DataDir { path: dir.to_owned(), is_new, members, _lock: lock })
    }

    /// Claims a directory of any node for an operator's change. Returns its owner as well.
    ///
    /// # Errors
    /// There is no such directory, or another process uses it.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<(DataDir, Owner), IdentityError> {
        let is_there =
            |dir: &Path| Ok(disk.list(dir).doing("list", dir)?.iter().any(|name| name == IDENTITY));
        if !is_there(dir).map_err(|e: DiskError| IdentityError::Disk(e))? {
            return Err(IdentityError::NotThere { dir: dir.to_owned() });
        }
        let lock = lock(disk, dir)?;
        let owner = read(disk, dir)?;
        let members = owner.members.clone();
        Ok((DataDir { path: dir.to_owned(), is_new: false, members, _lock: lock }, owner))
    }

    /// Assigns the directory to this owner, durably.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn assign(mut self, disk: &dyn Disk, owner: Owner) -> Result<DataDir, IdentityError> {
        write(disk, &self.path, &owner)?;
        self.members = owner.members;
        Ok(self)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The members of the first start, as the directory has them.
    #[must_use]
    pub fn members(&self) -> &Ensemble {
        &self.members
    }

    /// Whether this node uses the directory for the first time.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// Returns true if this node may initialise the directory, false if it has an identity.
fn refuse_foreign(disk: &dyn Disk, dir: &Path) -> Result<bool, IdentityError> {
    let names = disk.list(dir).doing("list", dir)?;
    if names.iter().any(|name| name == IDENTITY) {
        return Ok(false);
    }
    match names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
        None => Ok(true),
        Some(found) => Err(IdentityError::NotOurs { dir: dir.to_owned(), found }),
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<DiskLock, IdentityError> {
    let lock_path = dir.join(LOCK);
    match disk.lock(&lock_path) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(IdentityError::InUse { dir: dir.to_owned(), lock: lock_path })
        }
        other => Ok(other.doing("lock", &lock_path)?),
    }
}

fn check_identity(disk: &dyn Disk, dir: &Path, ensemble: &str, id: PeerId) -> Result<Owner, IdentityError> {
    let found = read(disk, dir)?;
    let dir = dir.to_owned();
    if (found.ensemble.as_str(), found.id) != (ensemble, id) {
        let ensemble = ensemble.to_owned();
        return Err(IdentityError::Mismatch {
            dir,
            found_id: found.id,
            found_ensemble: found.ensemble,
            id,
            ensemble,
        });
    }
    Ok(found)
}

fn read(disk: &dyn Disk, dir: &Path) -> Result<Owner, IdentityError> {
    let path = dir.join(IDENTITY);
    let contents = disk::read_file(disk, &path)?;
    let damaged = || IdentityError::Damaged { path: path.clone() };
    let [ensemble, id, members] = checked_text::decode(IDENTITY, ["ensemble", "node", "members"], &contents)
        .map_err(|e| match e {
            BadText::Version(found) => IdentityError::Version { path: path.clone(), found },
            BadText::Damaged => damaged(),
        })?;
    let id = id.parse().map(PeerId).map_err(|_| damaged())?;
    Ok(Owner { ensemble, id, members: members.parse().map_err(|_| damaged())? })
}

fn write(disk: &dyn Disk, dir: &Path, owner: &Owner) -> Result<(), DiskError> {
    let (id, members) = (owner.id.to_string(), owner.members.to_string());
    let values = [("ensemble", owner.ensemble.as_str()), ("node", &id), ("members", &members)];
    let text = checked_text::encode(IDENTITY, &values);
    disk::write_atomically(disk, dir, IDENTITY, text.as_bytes())
}

pub(crate) const IDENTITY: &str = "identity";
const LOCK: &str = "lock";
/// Names that a directory may contain and still count as empty: the remains of a claim that a crash
/// ended, names that file systems put into their root, and the directory of a store in a process of its
/// own that started earlier.
const HARMLESS: [&str; 4] = [LOCK, "identity.tmp", "lost+found", "store"];
/// Maximum length of an ensemble's name, in bytes.
const MAX_NAME: usize = 255;
