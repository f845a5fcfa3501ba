//! All durable data of a node, opened together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log_place::LogPlace;
use crate::recovery::check_level;
use api::{Build, Ensemble, Entry, Epoch, PeerId, Stamp, Zxid, peer::Damage};

use crate::{
    Base, DataDir, Disk, EpochError, EpochFile, Epochs, IdentityError, IncarnationError, Incarnations, Log,
    LogError, LogOptions, LogPlaceError, Owner, ReadError, SnapshotError, SnapshotReport, Snapshots,
};

/// The directory of the snapshots in the data directory.
pub const SNAPSHOTS: &str = "snapshots";

/// Log, epochs, incarnations and snapshots of a node, consistent with each other.
pub struct Storage {
    /// Held for its lock.
    pub data_dir: DataDir,
    /// The place of the log, held for its lock.
    pub log_place: LogPlace,
    /// The log; all of it is durable.
    pub log: Log,
    /// The stored epochs; [`Storage::promises`] combines them with the log.
    pub epochs: EpochFile,
    /// The incarnations; a new one has begun.
    pub incarnations: Incarnations,
    /// The snapshots. The newest is within the log, or is its base.
    pub snapshots: Snapshots,
    /// The findings of opening the snapshots.
    pub snapshot_report: SnapshotReport,
    /// The damage found in the log, if any, and the files that were put aside.
    pub salvaged: Option<Salvaged>,
    /// The promises of the node, and their losses.
    pub promises: Epochs,
}

/// A damaged log that is usable again.
#[derive(Debug)]
pub struct Salvaged {
    /// The damage.
    pub found: LogError,
    /// Files that are no longer part of the log; they may be deleted.
    pub aside: Vec<PathBuf>,
    /// Files put aside earlier that were removed because of their number or size.
    pub removed: Vec<PathBuf>,
}

/// The owner of the data, and the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageOptions {
    /// Name of the ensemble.
    pub ensemble: String,
    /// The node.
    pub id: PeerId,
    /// The directory of the log, if not in the data directory; an absolute path.
    pub log_dir: Option<PathBuf>,
    /// All servers, for the first start.
    pub members: Ensemble,
    /// As [`LogOptions::segment_bytes`].
    pub segment_bytes: u64,
    /// As [`LogOptions::window_bytes`].
    pub window_bytes: usize,
    /// As [`LogOptions::index_interval_bytes`].
    pub index_interval_bytes: u64,
    /// Whether other servers can heal a damaged log. If not, damage is an error.
    pub may_heal: bool,
    /// As [`LogOptions::secret`].
    pub secret: u64,
    /// As [`Incarnation::run`](api::peer::Incarnation::run).
    pub run: u64,
    /// As [`LogOptions::build`].
    pub build: Build,
}

/// The reason why the data of a node is unusable.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The data directory belongs to another node, or is in use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log is in another place.
    #[error(transparent)]
    Place(#[from] LogPlaceError),
    /// The log is damaged, and no other server can heal it.
    #[error(
        "{0}; but there is no other voter here that it could heal from. Nothing was changed: restore the data directory \
         from a backup, or move it away and import the data anew"
    )]
    Damaged(LogError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The epochs are damaged or unreadable.
    #[error(transparent)]
    Epochs(#[from] EpochError),
    /// The snapshots are unreadable.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The incarnations are unreadable or cannot be stored.
    #[error(transparent)]
    Incarnations(#[from] IncarnationError),
    /// Two facts on the disk contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl StorageError {
    /// Whether only space was missing: the call may succeed once there is space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            StorageError::Identity(IdentityError::Disk(e))
            | StorageError::Place(LogPlaceError::Disk(e))
            | StorageError::Log(LogError::Disk(e))
            | StorageError::Epochs(EpochError::Disk(e))
            | StorageError::Snapshots(SnapshotError::Disk(e))
            | StorageError::Incarnations(IncarnationError::Disk(e)) => e.is_full(),
            _ => false,
        }
    }
}

impl Storage {
    /// The directory of the log.
    #[must_use]
    pub fn log_dir(&self) -> &Path {
        &self.log_place.dir
    }

    /// Claims the data directory and recovers its content. It cuts a torn tail of the log, and
    /// completes or undoes a synchronisation that a crash interrupted. It puts the damaged part of a
    /// log aside after it has stored that this node has lost entries.
    ///
    /// # Errors
    /// See [`StorageError`]; no promise changes then.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path, options: &StorageOptions) -> Result<Storage, StorageError> {
        let data_dir = claim(disk, dir, options)?;
        let (snapshots, snapshot_report) = Snapshots::open(disk.clone(), &dir.join(SNAPSHOTS))?;
        let mut epochs = EpochFile::load(disk.clone(), dir)?;
        // Every node with a promise has a log.
        let is_new = !epochs.is_stored() && snapshots.latest().is_none() && snapshots.received().is_none();
        let log_place = LogPlace::find(disk.as_ref(), dir, options.log_dir.as_deref(), is_new, options.run)?;
        let log_options = LogOptions {
            segment_bytes: options.segment_bytes,
            window_bytes: options.window_bytes,
            index_interval_bytes: options.index_interval_bytes,
            may_create: is_new,
            secret: options.secret,
            build: options.build.clone(),
        };
        let log_dir = &log_place.dir;
        let mut salvaged = None;
        let mut log = match Log::open(disk.clone(), log_dir, log_options.clone()) {
            Err(found @ LogError::Damaged { .. }) if options.may_heal => {
                note_damage(&mut epochs)?;
                let base = newest(&snapshots)?.unwrap_or(Base::EMPTY);
                let aside = Log::salvage(disk.as_ref(), log_dir, &log_options, base)?;
                let removed = Log::bound_damaged(disk.as_ref(), log_dir, &aside)?;
                salvaged = Some(Salvaged { found, aside, removed });
                Log::open(disk.clone(), log_dir, log_options)?
            }
            Err(found @ LogError::Damaged { .. }) => return Err(StorageError::Damaged(found)),
            other => other?,
        };
        if let Some(received) = snapshots.received() {
            check_level(log_dir, received.level, &options.build)?;
            settle_received(&mut log, &snapshots, &mut epochs, received)?;
        }
        // Older ones stay beside a received one, in case that one is damaged.
        snapshots.forget_before(log.history().base());
        if epochs.epochs().damage.is_some() {
            match newest(&snapshots)? {
                Some(snapshot) if snapshot.zxid > log.history().last() => log.reset(snapshot)?,
                Some(_) => {}
                // Without a snapshot, a log without its beginning is worthless.
                None if log.history().base() > Zxid::ZERO => log.reset(Base::EMPTY)?,
                None => {}
            }
        }
        let promises = reconcile(&log, &epochs, &snapshots)?;
        let incarnations = Incarnations::begin(disk.clone(), dir, options.id, options.run)?;
        Ok(Storage {
            data_dir,
            log_place,
            log,
            epochs,
            incarnations,
            snapshots,
            snapshot_report,
            salvaged,
            promises,
        })
    }
}

/// Claims the directory. Members come from it, but may be corrected until the node has made its first promise.
fn claim(disk: &Arc<dyn Disk>, dir: &Path, options: &StorageOptions) -> Result<DataDir, StorageError> {
    let StorageOptions { ensemble, id, members, .. } = options;
    let data_dir = DataDir::claim(disk.as_ref(), dir, ensemble, *id, members)?;
    if data_dir.members() == members || EpochFile::load(disk.clone(), dir)?.is_stored() {
        return Ok(data_dir);
    }
    let owner = Owner { ensemble: ensemble.clone(), id: *id, members: members.clone() };
    Ok(data_dir.assign(disk.as_ref(), owner)?)
}

/// Stores that the log has lost entries, unless a greater loss is stored already.
fn note_damage(epochs: &mut EpochFile) -> Result<(), EpochError> {
    let before = epochs.epochs();
    epochs.store(Epochs { damage: before.damage.max(Damage::Log), ..before })
}

/// The newest snapshot as a base for a log.
fn newest(snapshots: &Snapshots) -> Result<Option<Base>, SnapshotError> {
    let Some(zxid) = snapshots.latest() else { return Ok(None) };
    let reader = snapshots.read(zxid)?;
    Ok(Some(Base { zxid, level: Some(reader.level()), roster: reader.roster().cloned() }))
}

/// Completes a step that a crash may have interrupted: a received snapshot, and the log that begins
/// again after it.
fn settle_received(
    log: &mut Log,
    snapshots: &Snapshots,
    epochs: &mut EpochFile,
    received: Base,
) -> Result<(), StorageError> {
    let zxid = received.zxid;
    let (base, last) = (log.history().base(), log.history().last());
    if base == zxid {
        snapshots.adopt_received(zxid)?;
    } else if base == Zxid::ZERO || snapshots.latest().is_some_and(|own| log.history().contains(own)) {
        // The log is usable without it. The leader sends one again if needed.
        snapshots.discard_received()?;
    } else if log.history().contains(zxid) {
        // The base of the log is damaged; this snapshot serves as well.
        snapshots.adopt_received(zxid)?;
    } else {
        if last > zxid {
            // The base of the log is damaged, and without it the log is worthless.
            note_damage(epochs)?;
        }
        log.reset(received)?;
        snapshots.adopt_received(zxid)?;
    }
    Ok(())
}

/// The promises from all parts on the disk, after a check that they agree.
fn reconcile(log: &Log, epochs: &EpochFile, snapshots: &Snapshots) -> Result<Epochs, StorageError> {
    let stored = epochs.epochs();
    let history = log.history();
    let last = history.last().epoch();
    if let Some(zxid) = snapshots.latest()
        && !history.contains(zxid)
    {
        return Err(StorageError::Contradiction(format!(
            "the log ends with {}, but there is a snapshot of {zxid}: the end of the log is lost. Move the data directory \
             away; the node will be synchronised anew",
            history.last()
        )));
    }
    if stored.accepted < last {
        return Err(StorageError::Contradiction(format!(
            "the log ends in epoch {last}, but the epochs file says that no epoch above {} was ever promised: the file \
             `epochs` was lost or comes from a backup. Move the data directory away; the node will be synchronised anew",
            stored.accepted
        )));
    }
    // A leader of a later epoch may have cut the log below the marker before its own marker arrived. It
    // had the promise of that epoch before.
    if stored.current > last && stored.accepted == stored.current && !stored.damage.is_some() {
        return Err(StorageError::Contradiction(format!(
            "the log ends with {}, but this node had synchronised with the leader of epoch {}: the end of the log is \
             lost. Move the data directory away; the node will be synchronised anew",
            history.last(),
            stored.current
        )));
    }
    // The marker of an epoch is durable before the epoch. A crash between the two is no contradiction.
    let current: Epoch = stored.current.max(last);
    let last_stamp = stored.last_stamp.max(last_stamp(log)?);
    Ok(Epochs { current, last_stamp, ..stored })
}

/// The stamp of the last entry, if there is one.
fn last_stamp(log: &Log) -> Result<Stamp, StorageError> {
    let history = log.history();
    let before = match history.spans() {
        [] => return Ok(Stamp::default()),
        [.., span] if span.last > 0 => Zxid(history.last().0 - 1),
        [.., before, _] => Zxid::new(before.epoch, before.last),
        [_] => history.base(),
    };
    // The base may be directly before the last entry.
    match log.reader().read_after(before.max(history.base()), history.last(), 1) {
        Ok(entries) => Ok(entries.last().map(Entry::stamp).unwrap_or_default()),
        Err(ReadError::Log(error)) => Err(error.into()),
        Err(ReadError::Purged { .. } | ReadError::NotThere { .. }) => Ok(Stamp::default()),
    }
}
