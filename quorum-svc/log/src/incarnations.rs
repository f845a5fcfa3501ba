use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::PeerId;
use api::peer::Incarnation;

use crate::checked_text::{self, BadText};
use crate::disk::{self, Disk, DiskError, Doing};

/// Why incarnations cannot be loaded or stored. The node has to stop.
#[derive(Debug, thiserror::Error)]
pub enum IncarnationError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A newer version of the program wrote it.
    #[error("{} has format version {found}, but this program knows only version {}: start the version that wrote it, \
             or a newer one", path.display(), checked_text::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// Storing failed before, and what is on the disk is unknown until it is loaded again.
    #[error("{}: storing incarnations has failed before; start the node again", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

/// The file `incarnations` of a data directory: which one this is of the node's own, and the newest that it has met of each
/// other server. By this servers find out for each other when one stands on an older copy of its directory.
///
/// Whoever loses the file begins anew with 1. Then those who have met it take its directory for an older copy, and what it
/// knew of others is known to them alone.
pub struct Incarnations {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    id: PeerId,
    own: Incarnation,
    met: BTreeMap<PeerId, Incarnation>,
    made_anew: Option<&'static str>,
    poisoned: bool,
}

impl Incarnations {
    /// Begins the next incarnation of node `id`, whose data directory `dir` exists, durably. `run` is random.
    ///
    /// # Errors
    /// Another version of the file, or the disk.
    pub fn begin(
        disk: Arc<dyn Disk>,
        dir: &Path,
        id: PeerId,
        run: u64,
    ) -> Result<Incarnations, IncarnationError> {
        let path = dir.join(NAME);
        // The process before this one may have died between the rename and its sync.
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        let (before, made_anew) = if disk.exists(&path).doing("look for", &path)? {
            match parse(&disk::read_file(disk.as_ref(), &path)?) {
                Ok(before) if before.id == id => (Some(before), None),
                Ok(_) => (None, Some("it was another node's")),
                Err(BadText::Damaged) => (None, Some("it was damaged")),
                Err(BadText::Version(found)) => return Err(IncarnationError::Version { path, found }),
            }
        } else {
            (None, None)
        };
        let before = before.unwrap_or(Stored { id, number: 0, met: BTreeMap::new() });
        let own = Incarnation { number: before.number, run };
        let met = before.met;
        let mut incarnations =
            Incarnations { disk, dir: dir.to_owned(), id, own, met, made_anew, poisoned: false };
        incarnations.advance()?;
        Ok(incarnations)
    }

    /// The present one of this node.
    #[must_use]
    pub fn own(&self) -> Incarnation {
        self.own
    }

    /// The newest one of another server that this node has met.
    #[must_use]
    pub fn met(&self, peer: PeerId) -> Option<Incarnation> {
        self.met.get(&peer).copied()
    }

    /// Why the file was of no use, if it was there.
    #[must_use]
    pub fn made_anew(&self) -> Option<&'static str> {
        self.made_anew
    }

    /// Begins the next one, durably, within the same run: copies of the directory as it was until now can be told from it
    /// by whoever meets it from now on.
    ///
    /// # Errors
    /// The disk.
    pub fn advance(&mut self) -> Result<(), IncarnationError> {
        self.own.number = self.own.number.saturating_add(1);
        self.store()
    }

    /// Goes on behind an incarnation of this node that somebody has met and that is not part of its history, durably. To be
    /// called when it is durable elsewhere that the directory is an older copy: nobody takes it for one any more.
    ///
    /// # Errors
    /// The disk.
    pub fn outlive(&mut self, met: Incarnation) -> Result<(), IncarnationError> {
        if !self.own.is_behind(met) {
            return Ok(());
        }
        self.own.number = met.number;
        self.advance()
    }

    /// A server says which incarnation of it this is. Durable when this returns. If it stands on an older copy of its
    /// directory, returns the newer one that was met.
    ///
    /// # Errors
    /// The disk.
    pub fn meet(&mut self, peer: PeerId, told: Incarnation) -> Result<Option<Incarnation>, IncarnationError> {
        let before = self.met(peer);
        if let Some(met) = before.filter(|&met| told.is_behind(met)) {
            return Ok(Some(met));
        }
        if before != Some(told) {
            self.met.insert(peer, told);
            self.store()?;
        }
        Ok(None)
    }

    fn store(&mut self) -> Result<(), IncarnationError> {
        if self.poisoned {
            return Err(IncarnationError::Poisoned { path: self.dir.join(NAME) });
        }
        let mut met = String::new();
        for (peer, Incarnation { number, run }) in &self.met {
            let _ = write!(met, "{peer}:{number}:{run:016x} ");
        }
        let (id, number) = (self.id.to_string(), self.own.number.to_string());
        let text = checked_text::encode(NAME, &[(NODE, &id), (NUMBER, &number), (MET, met.trim_end())]);
        self.poisoned = true;
        disk::write_atomically(self.disk.as_ref(), &self.dir, NAME, text.as_bytes())?;
        self.poisoned = false;
        Ok(())
    }
}

/// What the file says.
struct Stored {
    id: PeerId,
    number: u64,
    met: BTreeMap<PeerId, Incarnation>,
}

fn parse(contents: &[u8]) -> Result<Stored, BadText> {
    let [id, number, met] = checked_text::decode(NAME, [NODE, NUMBER, MET], contents)?;
    let one = |text: &str| {
        let mut parts = text.split(':');
        let peer = parts.next()?.parse().ok().map(PeerId)?;
        let number = parts.next()?.parse().ok()?;
        let run = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some((peer, Incarnation { number, run }))
    };
    let id = id.parse().ok().map(PeerId).ok_or(BadText::Damaged)?;
    let number = number.parse().ok().ok_or(BadText::Damaged)?;
    let met = met.split_whitespace().map(one).collect::<Option<_>>().ok_or(BadText::Damaged)?;
    Ok(Stored { id, number, met })
}

const NAME: &str = "incarnations";
const NODE: &str = "node";
const NUMBER: &str = "number";
const MET: &str = "met";
