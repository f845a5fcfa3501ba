use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{EnsembleId, Epoch, Stamp, Zxid, peer::Damage};

use crate::checked_text::{self, BadText};
use crate::disk::{self, Disk, DiskError, Doing};

/// The two promises of a server, and other facts about itself that the log does not contain. `current
/// <= accepted`, and neither ever decreases.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epochs {
    /// Greatest epoch that this server promised to a leader (ZooKeeper's acceptedEpoch).
    pub accepted: Epoch,
    /// Epoch of the last leader that it synchronised with (ZooKeeper's currentEpoch).
    pub current: Epoch,
    /// Losses of this server that no synchronisation has restored.
    pub damage: Damage,
    /// Ensemble of the server; `None` before its first synchronisation.
    pub ensemble: Option<EnsembleId>,
    /// Last entry that the server had and knew to be committed when this was stored. It is never cut
    /// off the log.
    pub committed: Zxid,
    /// Stamp of the last entry when this was stored. A log without entries after its snapshot does not
    /// contain it.
    pub last_stamp: Stamp,
}

/// An error of loading or storing epochs. The node has to stop.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The content of the file is not what was written.
    #[error(
        "{} is damaged: its checksum or form is wrong. Without its epochs this node could vote twice: move its data \
         directory aside, check the disk, and give the node an empty one; the others will send it the state",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the program wrote it.
    #[error("{} has format version {found}, but this program knows only version {}: start the version that wrote it, \
             or a newer one", path.display(), checked_text::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The current epoch is above the accepted epoch.
    #[error("{}: the current epoch {} is above the accepted epoch {}, which cannot be: was the file edited? Restore \
             it, or give the node an empty data directory", path.display(), epochs.current, epochs.accepted)]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The content of the file.
        epochs: Box<Epochs>,
    },
    /// An epoch would decrease.
    #[error("the epochs cannot go back from {from:?} to {to:?}")]
    Backwards {
        /// The stored epochs.
        from: Box<Epochs>,
        /// The epochs to store.
        to: Box<Epochs>,
    },
    /// An earlier store failed. The content of the disk is unknown until the file is loaded again.
    #[error("{}: storing epochs has failed before; start the node again", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

/// The file `epochs` of a data directory.
pub struct EpochFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    epochs: Option<Epochs>,
    poisoned: bool,
}

impl EpochFile {
    /// Reads the file in the data directory `dir`, which exists.
    ///
    /// # Errors
    /// Damage, another version, or a failure of the disk.
    pub fn load(disk: Arc<dyn Disk>, dir: &Path) -> Result<EpochFile, EpochError> {
        let path = dir.join(NAME);
        // The previous process may have ended between the rename and its sync.
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        let epochs = if disk.exists(&path).doing("look for", &path)? {
            Some(parse(&path, &disk::read_file(disk.as_ref(), &path)?)?)
        } else {
            None
        };
        Ok(EpochFile { disk, dir: dir.to_owned(), epochs, poisoned: false })
    }

    /// The stored epochs; both 0 if there are none.
    #[must_use]
    pub fn epochs(&self) -> Epochs {
        self.epochs.unwrap_or_default()
    }

    /// Whether epochs were ever stored here. If a node has a log or a snapshot but no epochs, it has
    /// lost them, and its promises with them.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.epochs.is_some()
    }

    /// Replaces the epochs, durably. After a crash the old or the new ones are stored.
    ///
    /// # Errors
    /// A decreasing epoch, or a current epoch above the accepted one: nothing changes. Otherwise a
    /// failure of the disk, after which no further store is possible.
    pub fn store(&mut self, epochs: Epochs) -> Result<(), EpochError> {
        let path = self.dir.join(NAME);
        if self.poisoned {
            return Err(EpochError::Poisoned { path });
        }
        if epochs.current > epochs.accepted {
            return Err(EpochError::Inconsistent { path, epochs: Box::new(epochs) });
        }
        let from = self.epochs();
        if epochs.accepted < from.accepted || epochs.current < from.current {
            return Err(EpochError::Backwards { from: Box::new(from), to: Box::new(epochs) });
        }
        if self.epochs == Some(epochs) {
            return Ok(());
        }
        let text = encode(epochs);
        self.poisoned = true;
        disk::write_atomically(self.disk.as_ref(), &self.dir, NAME, text.as_bytes())?;
        self.poisoned = false;
        self.epochs = Some(epochs);
        Ok(())
    }
}

fn encode(epochs: Epochs) -> String {
    let Epochs { accepted, current, damage, ensemble, committed, last_stamp } = epochs;
    let ensemble = ensemble.map_or(NONE.to_owned(), |id| id.to_string());
    let numbers =
        [accepted.to_string(), current.to_string(), last_stamp.time_ms.to_string(), committed.to_string()];
    let [accepted, current, time, committed] = numbers.each_ref().map(String::as_str);
    let stamped = last_stamp.zxid.to_string();
    let damage = match damage {
        Damage::None => "none",
        Damage::Log => "log",
        Damage::Directory => "directory",
    };
    let values = [
        (ACCEPTED, accepted),
        (CURRENT, current),
        (DAMAGE, damage),
        (ENSEMBLE, &ensemble),
        (COMMITTED, committed),
        (STAMPED, &stamped),
        (TIME, time),
    ];
    checked_text::encode(NAME, &values)
}

fn parse(path: &Path, contents: &[u8]) -> Result<Epochs, EpochError> {
    let damaged = || EpochError::Damaged { path: path.to_owned() };
    let words = [ACCEPTED, CURRENT, DAMAGE, ENSEMBLE, COMMITTED, STAMPED, TIME];
    let [accepted, current, lost, ensemble, committed, stamped, time] =
        checked_text::decode(NAME, words, contents).map_err(|e| match e {
            BadText::Version(found) => EpochError::Version { path: path.to_owned(), found },
            BadText::Damaged => damaged(),
        })?;
    let epoch = |text: &str| text.parse().map(Epoch).map_err(|_| damaged());
    let epochs = Epochs {
        accepted: epoch(&accepted)?,
        current: epoch(&current)?,
        damage: match lost.as_str() {
            "none" => Damage::None,
            "log" => Damage::Log,
            "directory" => Damage::Directory,
            _ => return Err(damaged()),
        },
        ensemble: match ensemble.as_str() {
            NONE => None,
            id => Some(id.parse().map_err(|_| damaged())?),
        },
        committed: zxid(&committed).ok_or_else(damaged)?,
        last_stamp: Stamp {
            zxid: zxid(&stamped).ok_or_else(damaged)?,
            time_ms: time.parse().map_err(|_| damaged())?,
        },
    };
    if epochs.current > epochs.accepted {
        return Err(EpochError::Inconsistent { path: path.to_owned(), epochs: Box::new(epochs) });
    }
    Ok(epochs)
}

/// Parses the written form.
fn zxid(text: &str) -> Option<Zxid> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(Zxid)
}

const NAME: &str = "epochs";
const ACCEPTED: &str = "accepted";
const CURRENT: &str = "current";
const DAMAGE: &str = "damage";
const ENSEMBLE: &str = "ensemble";
const COMMITTED: &str = "committed";
/// Written in place of an id.
const NONE: &str = "none";
const STAMPED: &str = "last-stamped";
const TIME: &str = "last-time-ms";
