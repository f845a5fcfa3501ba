//! Decisions about the data directory of a stopped node that are reserved for an operator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::peer::Damage;
use api::{Body, Configuration, Ensemble, EnsembleId, Entry, PeerId, ROSTER_IDS_MAX, Roster};

use crate::disk::{Disk, Doing};
use crate::log_place::LogPlace;
use crate::{
    DataDir, EpochFile, Epochs, IdentityError, IncarnationError, Incarnations, Log, LogOptions, Owner,
    StorageError,
};

/// The data directory of a stopped node, for an operator.
pub struct Offline {
    disk: Arc<dyn Disk>,
    dir: DataDir,
    owner: Owner,
    epochs: EpochFile,
}

impl Offline {
    /// Claims the directory `dir`. Changes nothing yet.
    ///
    /// # Errors
    /// The directory is no data directory, is in use, is damaged, or never had any data.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Offline, StorageError> {
        let (dir, owner) = DataDir::open(disk.as_ref(), dir)?;
        let epochs = EpochFile::load(disk.clone(), dir.path())?;
        if epochs.epochs().ensemble.is_none() {
            return Err(StorageError::Contradiction(format!(
                "the data directory {} never had any data: there is nothing to recover from it. Name the one with the newest data, \
                 or start the ensemble with empty directories",
                dir.path().display()
            )));
        }
        Ok(Offline { disk, dir, owner, epochs })
    }

    /// The directory of its log, at `log_dir` or, with `None`, in the data directory. Without the log,
    /// the directory has little of the node's data.
    ///
    /// # Errors
    /// The log is missing, or is another one.
    pub fn find_log(&self, log_dir: Option<&Path>) -> Result<PathBuf, StorageError> {
        Ok(LogPlace::look(self.disk.as_ref(), self.dir.path(), log_dir)?)
    }

    /// The owner of the directory.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The promises and losses of the node.
    #[must_use]
    pub fn epochs(&self) -> Epochs {
        self.epochs.epochs()
    }

    /// Founds another ensemble with these members and this id from the data of the directory. Servers
    /// of the old ensemble, and their directories, no longer belong to it. `log` is the [directory of its
    /// log](Offline::find_log); if that names members, an entry with the new ones follows. `run` is random.
    ///
    /// # Errors
    /// A failure of the disk, a damaged log, or one without a place for the entry. The completed steps are safe: repeat the call.
    pub fn found(
        mut self,
        log: &Path,
        members: Ensemble,
        id: EnsembleId,
        run: u64,
    ) -> Result<(), StorageError> {
        let options = LogOptions { may_create: false, ..LogOptions::default() };
        let mut log = Log::open(self.disk.clone(), log, options)?;
        let entry = self.entry_with(&log, &members)?;
        // The id first: no server of the old ensemble accepts this node with the new id. A node with the new members in its log
        // and the old id could lead alone next to the old ensemble.
        let before = self.epochs();
        self.epochs.store(Epochs { ensemble: Some(id), damage: Damage::None, ..before })?;
        if let Some(entry) = entry {
            log.append(&[entry])?;
            log.sync()?;
        }
        drop(log);
        self.renew_incarnations(self.owner.id, run)?;
        let owner = Owner { members, ..self.owner.clone() };
        self.assign(owner)
    }

    /// Makes this copy of another node's directory the directory of node `id`. `run` is random.
    ///
    /// # Errors
    /// A failure of the disk. The completed steps are safe: repeat the call.
    pub fn hand_to(self, id: PeerId, run: u64) -> Result<(), StorageError> {
        self.renew_incarnations(id, run)?;
        let owner = Owner { id, ..self.owner.clone() };
        self.assign(owner)
    }

    /// Removes the note that this directory is an older copy. All its incarnations that others have met
    /// count as known. `run` is random.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn trust(mut self, run: u64) -> Result<(), StorageError> {
        let mut incarnations = Incarnations::begin(self.disk.clone(), self.dir.path(), self.owner.id, run)?;
        incarnations.trust()?;
        let before = self.epochs();
        Ok(self.epochs.store(Epochs { damage: Damage::None, ..before })?)
    }

    /// The entry that is needed so that these members count: those in the log count more than those of the directory. `None`
    /// if the log names none, or these. It becomes the last one of this log and of its copies; a leader of the new ensemble
    /// commits it with its marker.
    fn entry_with(&self, log: &Log, members: &Ensemble) -> Result<Option<Entry>, StorageError> {
        let Some(roster) = log.rosters().last().cloned() else { return Ok(None) };
        if !roster.is_joint() && roster.current().ensemble == *members {
            return Ok(None);
        }
        let last = log.history().last();
        let Some(zxid) = last.next() else {
            return Err(StorageError::Contradiction(format!(
                "the log ends with {last}, the last place of its epoch, so no entry with the new members can follow, and the old                  members would still count. Nothing was changed: recover from the directory of another node"
            )));
        };
        let contacts = roster.newest().contacts.clone();
        let current =
            Configuration { version: zxid, ..roster.newest().changed_to(members.clone(), contacts) };
        let former = current.removed.len();
        let roster = Roster::settled(zxid, current);
        if !roster.can_be_read() {
            return Err(StorageError::Contradiction(format!(
                "with {former} former members the new list has more than the {ROSTER_IDS_MAX} that an ensemble remembers, or \
                 something else that no server could read. Nothing was changed: keep some of the old members in the new list"
            )));
        }
        let body = Body::Members(Arc::new(roster));
        let time_ms = self.epochs().last_stamp.time_ms;
        Ok(Some(Entry { zxid, time_ms, origin: None, body, trace: None }))
    }

    /// Also assigns the directory of a store in a process of its own, which has an identity as well, and keeps the ensemble that its
    /// entries are of.
    fn assign(self, owner: Owner) -> Result<(), StorageError> {
        let store = self.dir.path().join("store");
        match DataDir::open(self.disk.as_ref(), &store) {
            Ok((claimed, _)) => {
                let mut kept = EpochFile::load(self.disk.clone(), &store)?;
                if kept.is_stored() {
                    kept.store(Epochs { ensemble: self.epochs().ensemble, ..kept.epochs() })?;
                }
                drop(claimed.assign(self.disk.as_ref(), owner.clone())?);
            }
            // There is no such directory.
            Err(IdentityError::NotThere { .. } | IdentityError::Disk(_)) => {}
            Err(other) => return Err(other.into()),
        }
        self.dir.assign(self.disk.as_ref(), owner)?;
        Ok(())
    }

    /// Makes the incarnations again. The node forgets the incarnations that it has met, and servers that
    /// have met node `id` before do not report it as an older copy.
    fn renew_incarnations(&self, id: PeerId, run: u64) -> Result<(), StorageError> {
        let path = self.dir.path().join(crate::incarnations::NAME);
        let removed = |path: &Path| -> Result<(), crate::DiskError> {
            if self.disk.exists(path).doing("look for", path)? {
                self.disk.remove(path).doing("remove", path)?;
                self.disk.sync_dir(self.dir.path()).doing("sync the directory", self.dir.path())?;
            }
            Ok(())
        };
        removed(&path).map_err(IncarnationError::Disk)?;
        Ok(Incarnations::begin(self.disk.clone(), self.dir.path(), id, run)?.trust()?)
    }
}
