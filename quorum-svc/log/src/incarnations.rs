use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::PeerId;
use api::peer::{Acquaintance, Incarnation};

use crate::checked_text::{self, BadText};
use crate::disk::{self, Disk, DiskError, Doing};

/// An error of loading or storing incarnations. The node has to stop.
#[derive(Debug, thiserror::Error)]
pub enum IncarnationError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A newer version of the program wrote the file.
    #[error("{} has format version {found}, but this program knows only version {}: start the version that wrote it, \
             or a newer one", path.display(), checked_text::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// An earlier store failed. The content of the disk is unknown until the file is loaded again.
    #[error("{}: storing incarnations has failed before; start the node again", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

/// The file `incarnations` of a data directory: all incarnations of the directory, and the last one met
/// of each other server. It lets servers recognise older copies of each other's directories.
///
/// A node that loses the file makes it again. Servers that have met the node then treat its directory as
/// an older copy, and its own records of other servers are lost.
pub struct Incarnations {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    id: PeerId,
    /// Each run of this directory: the number of its first incarnation, and the run. The present run is
    /// the last.
    runs: Vec<(u64, u64)>,
    own: Incarnation,
    /// All incarnations up to this number count as known, including those of other histories of this
    /// directory, because the loss of their promises is stored.
    outlived: u64,
    met: BTreeMap<PeerId, Incarnation>,
    made_anew: Option<&'static str>,
    poisoned: bool,
}

impl Incarnations {
    /// Begins the next run of node `id`, durably. The data directory `dir` exists, and `run` is random.
    ///
    /// # Errors
    /// Another version of the file, or a failure of the disk.
    pub fn begin(
        disk: Arc<dyn Disk>,
        dir: &Path,
        id: PeerId,
        run: u64,
    ) -> Result<Incarnations, IncarnationError> {
        let path = dir.join(NAME);
        // The previous process may have ended between the rename and its sync.
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
        let none = Stored { id, runs: Vec::new(), number: 0, outlived: 0, met: BTreeMap::new() };
        let Stored { mut runs, number, outlived, met, .. } = before.unwrap_or(none);
        let own = Incarnation { number: number + 1, run };
        // A server that was away for longer treats this directory as an older copy. That costs a
        // synchronisation and is safe.
        runs.drain(..runs.len().saturating_sub(RUNS_MAX - 1));
        runs.push((own.number, run));
        let dir = dir.to_owned();
        let mut begun = Incarnations { disk, dir, id, runs, own, outlived, met, made_anew, poisoned: false };
        begun.store(own, outlived, None)?;
        Ok(begun)
    }

    /// The present incarnation of this node.
    #[must_use]
    pub fn own(&self) -> Incarnation {
        self.own
    }

    /// The last incarnation of another server that this node has met.
    #[must_use]
    pub fn met(&self, peer: PeerId) -> Option<Incarnation> {
        self.met.get(&peer).copied()
    }

    /// Whether the directory has had this incarnation, or a later one.
    #[must_use]
    pub fn knows(&self, incarnation: Incarnation) -> bool {
        let run_of = |number| self.runs.iter().rfind(|(first, _)| *first <= number).map(|(_, run)| *run);
        let had =
            incarnation.number <= self.own.number && run_of(incarnation.number) == Some(incarnation.run);
        // An impossible number counts as known.
        had || incarnation.number <= self.outlived || incarnation.number >= NUMBER_MAX
    }

    /// The reason why the existing file was unusable; `None` if it was usable or missing.
    #[must_use]
    pub fn made_anew(&self) -> Option<&'static str> {
        self.made_anew
    }

    /// Begins the next incarnation within the same run, durably. Every server that meets this incarnation can
    /// distinguish earlier copies of the directory from it.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn grow(&mut self) -> Result<(), IncarnationError> {
        let own = Incarnation { number: self.own.number + 1, ..self.own };
        self.store(own, self.outlived, None)
    }

    /// Continues after an incarnation of this node that another server has met and that the directory
    /// did not know, durably. Call it only once the damage is durable elsewhere: after the call no
    /// server recognises the older copy any more.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn outlive(&mut self, met: Incarnation) -> Result<(), IncarnationError> {
        if self.knows(met) {
            return Ok(());
        }
        let outlived = self.own.number.max(met.number) + LEAP;
        self.store(Incarnation { number: outlived + 1, ..self.own }, outlived, None)
    }

    /// Continues after every incarnation of this node that others may have met, durably. An operator
    /// has decided that the directory is not an older copy, or that it is the truth anyway.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn trust(&mut self) -> Result<(), IncarnationError> {
        let outlived = self.own.number.max(self.outlived) + TRUST;
        self.store(Incarnation { number: outlived + 1, ..self.own }, outlived, None)
    }

    /// The next message to a server that has sent `said`, or nothing yet.
    #[must_use]
    pub fn acquaintance(&self, peer: PeerId, said: Acquaintance) -> Acquaintance {
        let confirmed = said.met.filter(|&met| self.knows(met));
        Acquaintance { own: Some(self.own()), met: self.met(peer), confirmed }
    }

    /// Stores the present incarnation of a server, durably. It ignores an incarnation that may be
    /// earlier than the last one met: the server must know that one.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn meet(&mut self, peer: PeerId, said: Acquaintance) -> Result<(), IncarnationError> {
        let before = self.met(peer);
        match said.own {
            Some(own) if own.number >= NUMBER_MAX => Ok(()),
            Some(own) if before != Some(own) && (before.is_none() || before == said.confirmed) => {
                self.store(self.own, self.outlived, Some((peer, own)))
            }
            _ => Ok(()),
        }
    }

    /// Writes the file before it changes this value, so every incarnation that leaves is durable.
    fn store(
        &mut self,
        own: Incarnation,
        outlived: u64,
        met: Option<(PeerId, Incarnation)>,
    ) -> Result<(), IncarnationError> {
        if self.poisoned {
            return Err(IncarnationError::Poisoned { path: self.dir.join(NAME) });
        }
        let run = |(number, run): &(u64, u64)| format!("{number}:{run:016x}");
        let meeting =
            |(peer, met): (&PeerId, &Incarnation)| format!("{peer}:{}", run(&(met.number, met.run)));
        let mut all = self.met.clone();
        all.extend(met);
        let runs: Vec<String> = self.runs.iter().map(run).collect();
        let acquaintances: Vec<String> = all.iter().map(meeting).collect();
        let numbers = [u64::from(self.id.0), own.number, outlived].map(|n| n.to_string());
        let values = [
            (NODE, &*numbers[0]),
            (NUMBER, &numbers[1]),
            (OUTLIVED, &numbers[2]),
            (RUNS, &runs.join(" ")),
            (MET, &acquaintances.join(" ")),
        ];
        let text = checked_text::encode(NAME, &values);
        self.poisoned = true;
        disk::write_atomically(self.disk.as_ref(), &self.dir, NAME, text.as_bytes())?;
        self.poisoned = false;
        (self.own, self.outlived, self.met) = (own, outlived, all);
        Ok(())
    }
}

/// The content of the file.
struct Stored {
    id: PeerId,
    number: u64,
    outlived: u64,
    runs: Vec<(u64, u64)>,
    met: BTreeMap<PeerId, Incarnation>,
}

fn parse(contents: &[u8]) -> Result<Stored, BadText> {
    let [id, number, outlived, runs, met] =
        checked_text::decode(NAME, [NODE, NUMBER, OUTLIVED, RUNS, MET], contents)?;
    // Leaves numbers free for later incarnations.
    let count = |text: &str| text.parse().ok().filter(|&n: &u64| n < 2 * NUMBER_MAX);
    let peer = |text: &str| text.parse().ok().map(PeerId);
    let run = |text: &str| {
        let (number, run) = text.split_once(':')?;
        Some((count(number)?, u64::from_str_radix(run, 16).ok()?))
    };
    let meeting = |text: &str| {
        let (id, incarnation) = text.split_once(':')?;
        let (number, run) = run(incarnation)?;
        Some((peer(id)?, Incarnation { number, run }))
    };
    let stored = || {
        Some(Stored {
            id: peer(&id)?,
            number: count(&number)?,
            outlived: count(&outlived)?,
            runs: runs.split_whitespace().map(run).collect::<Option<_>>()?,
            met: met.split_whitespace().map(meeting).collect::<Option<_>>()?,
        })
    };
    let ascending = |s: &Stored| {
        s.runs.is_sorted_by(|a, b| a.0 < b.0) && s.runs.iter().all(|r| (1..=s.number).contains(&r.0))
    };
    stored().filter(ascending).ok_or(BadText::Damaged)
}

/// No number is this great, so there is always a next one.
const NUMBER_MAX: u64 = 1 << 62;
/// Distance that [`Incarnations::outlive`] leaves for lost incarnations that the reporting servers have
/// not met because they were away.
const LEAP: u64 = 1000;
/// Far more incarnations than a directory ever has, and far fewer than [`NUMBER_MAX`].
const TRUST: u64 = 1 << 40;
/// The number of runs whose incarnations the file keeps.
const RUNS_MAX: usize = 1000;

pub(crate) const NAME: &str = "incarnations";
const NODE: &str = "node";
const NUMBER: &str = "number";
const OUTLIVED: &str = "outlived";
const RUNS: &str = "runs";
const MET: &str = "met";
