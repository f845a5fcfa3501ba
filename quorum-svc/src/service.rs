//! Opening and running the service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ports::Election;
use api::{Build, Ensemble, Greeting, PeerId, Zxid};
use proto::internal::quorum_port_server::QuorumPortServer;
use proto::peer::quorum_server::QuorumServer;
use quorum_core::{Durable, Zab};
use quorum_log::{
    DataDir, Disk, DiskError, FsDisk, LogError, LogOptions, LogPlace, Salvaged, SnapshotReader, Storage,
    StorageError, StorageOptions, reserve,
};
use quorum_shell::{Failure, LogView, LogWorker, Met, Shell, snap_before};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acquaintances::{Acquaintances, Own};
use crate::backlog::Backlog;
use crate::driver::{self, Driver, Links, State};
use crate::handle::{Handle, Keep, SLACK};
use crate::leader_link::{Halves, LearnService};
use crate::learner_link::CONNECT_LIMIT;
use crate::learner_link::LearnerSide;
use crate::log_thread;
use crate::measure::Measure;
use crate::port::PortService;
use crate::room::{LEAST_FREE, RoomView, RoomWatch};
use crate::trace::Traces;

/// The configuration of the service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the ensemble; servers with another name are refused.
    pub ensemble: String,
    /// The version of this program, for display. `core` holds the feature levels that it knows.
    pub version: String,
    /// This server, all servers, timeouts and bounds.
    pub core: quorum_core::Config,
    /// See [`Greeting`]: the other members are told, and differences are reported.
    pub settings: BTreeMap<String, String>,
    /// `host:port` of each member's quorum service.
    pub addresses: BTreeMap<PeerId, String>,
    /// Connects to the other members.
    pub dialer: tls::Dialer,
    /// The data directory of the node.
    pub data_dir: PathBuf,
    /// The log directory, if it is not in the data directory.
    pub log_dir: Option<PathBuf>,
    /// Threshold of free bytes below which growing writes are rejected; `None` derives it from the size
    /// of the disk.
    pub min_free: Option<u64>,
    /// Size of one log segment file, in bytes.
    pub segment_bytes: u64,
    /// The part of the log that a purge keeps although snapshots cover it.
    pub keep: Keep,
    /// Size of the newest entries kept in memory for learners and the store, in bytes.
    pub recent_bytes: usize,
    /// Bytes that may wait for the disk before this node stops reading from its leader.
    pub backlog_bytes: usize,
    /// Interval at which a running node begins a new incarnation of its data directory. It allows other
    /// servers to detect older copies.
    pub incarnation_every: Duration,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files on the disk are unusable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is too little space to begin.
    #[error(
        "{} has only {free} bytes free, and to run this node needs {LEAST_FREE} at least: free space on this file system or \
         enlarge it", dir.display()
    )]
    NoSpace {
        /// On the file system of this directory.
        dir: PathBuf,
        /// The free bytes there.
        free: u64,
    },
    /// No random secret for the log.
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
    /// The system cannot create a thread.
    #[error("cannot start the log thread: {0}; raise the limit of threads")]
    Thread(#[from] std::io::Error),
}

impl OpenError {
    /// Whether a lack of space is the only problem: the same call may succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            OpenError::NoSpace { .. } => true,
            OpenError::Storage(e) => e.is_full(),
            OpenError::Random(_) | OpenError::Thread(_) => false,
        }
    }
}

/// Why the service stopped by itself. The node exits with this reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StopReason {
    /// The disk failed; the outcome of its last operations is unknown.
    #[error("{0}")]
    Disk(String),
    /// A broken invariant.
    #[error("{0}")]
    Invariant(String),
}

impl From<Failure> for StopReason {
    fn from(failure: Failure) -> StopReason {
        match failure {
            Failure::Invariant(why) => StopReason::Invariant(why),
            failure => StopReason::Disk(failure.to_string()),
        }
    }
}

/// The quorum service of a node, opened and ready to run.
pub struct QuorumService<E> {
    // Held for their locks.
    _data_dir: DataDir,
    _log_place: LogPlace,
    watch: RoomWatch,
    driver: Driver<E>,
    handle: Handle,
    links: Links,
    tasks: TaskTracker,
    stop_links: CancellationToken,
    ensemble: Arc<str>,
    me: PeerId,
}

impl<E: Election> QuorumService<E> {
    /// Claims the data directory, recovers log, epochs and snapshots, and prepares to run. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// See [`OpenError`]. The disk is then unchanged, except for the removal of an unfinished tail that
    /// was never acknowledged.
    pub fn open(
        config: Config,
        election: E,
        shutdown: CancellationToken,
    ) -> Result<QuorumService<E>, OpenError> {
        QuorumService::open_on(Arc::new(FsDisk), config, election, shutdown)
    }

    /// As [`QuorumService::open`], on another disk than the file system.
    ///
    /// # Errors
    /// As [`QuorumService::open`].
    #[tracing::instrument(name = "quorum.open", skip_all)]
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: Config,
        election: E,
        shutdown: CancellationToken,
    ) -> Result<QuorumService<E>, OpenError> {
        let me = config.core.me;
        let build = Build { version: config.version.clone(), levels: config.core.levels };
        let options = StorageOptions {
            ensemble: config.ensemble.clone(),
            id: me,
            log_dir: config.log_dir.clone(),
            members: config.core.ensemble.clone(),
            segment_bytes: config.segment_bytes,
            // The view holds the newest entries from before they are written.
            window_bytes: 0,
            index_interval_bytes: LogOptions::default().index_interval_bytes,
            may_heal: config.core.ensemble.voters().any(|voter| voter != me),
            secret: getrandom::u64().map_err(OpenError::Random)?,
            run: getrandom::u64().map_err(OpenError::Random)?,
            build: build.clone(),
        };
        let storage = Storage::open(&disk, &config.data_dir, &options)?;
        let mut config = config;
        let own_list = std::mem::replace(&mut config.core.ensemble, storage.data_dir.members().clone());
        warn_of_other_members(&storage, &own_list);
        let dirs = [config.data_dir.clone(), storage.log_dir().to_owned()];
        dirs.iter().try_for_each(|dir| room_to_begin(disk.as_ref(), dir))?;
        let Storage {
            data_dir,
            log_place,
            log,
            epochs,
            incarnations,
            snapshots,
            snapshot_report,
            salvaged,
            promises,
        } = storage;
        if let Some(why) = incarnations.made_anew() {
            tracing::warn!("the file `incarnations` was made anew: {why}");
        }
        for skipped in &snapshot_report.skipped {
            tracing::warn!(zxid = %skipped.zxid, "left out a snapshot: {}", skipped.why);
        }
        if let Some(Salvaged { found, aside, removed }) = salvaged {
            tracing::error!(
                ?aside,
                ?removed,
                "the log was damaged; this node does not vote until a leader has sent it what is lost. What was damaged \
                 is kept aside and may be deleted. Check the disk. Found: {found}"
            );
        }
        let durable = Durable {
            accepted_epoch: promises.accepted,
            current_epoch: promises.current,
            history: log.history().clone(),
            levels: log.levels(),
            rosters: log.rosters(),
            snapshot: snapshots.latest(),
            snap_before: snapshots
                .latest()
                .map_or(Zxid::ZERO, |zxid| snap_before(&log.reader(), &snapshots, zxid, SLACK)),
            last_stamp: promises.last_stamp,
            damage: promises.damage,
            ensemble: promises.ensemble,
            committed: promises.committed,
        };
        let base = durable.history.base();
        let recovery = log.recovery();
        tracing::info!(
            node = %me, last = %durable.history.last(), base = %durable.history.base(), epoch = %durable.current_epoch,
            entries = recovery.entries, segments = recovery.segments, cut_bytes = recovery.cut_bytes, "log recovered"
        );

        let silence = config.core.init_limit;
        let tasks = TaskTracker::new();
        let stop_links = shutdown.child_token();
        let peers: BTreeSet<PeerId> = config.core.ensemble.members().map(|(id, _)| id).collect();
        let (links, inbox) = driver::channels(peers, tasks.clone(), stop_links.clone());
        let view = LogView::new(log.reader(), log.history().last(), config.recent_bytes);
        let backlog = Backlog::new(config.backlog_bytes);
        let ensemble: Arc<str> = config.ensemble.into();
        let met = Met::new(incarnations);
        let sync_limit = config.core.sync_limit;
        let core = Zab::new(config.core, durable.clone());
        let shell = Shell::new(core, view.clone(), me, base);
        let said = shell.said();
        let name = ensemble.to_string();
        let roster = shell.core().roster().clone();
        let settings = config.settings;
        let greeting = Greeting { name, id: me, roster, standing: said.standing, build, settings };
        let own = Own { greeting, said };
        let others = config.addresses.keys().filter(|&&peer| peer != me);
        let acquaintances = Acquaintances {
            me,
            own: Arc::new(watch::Sender::new(own)),
            board: Arc::default(),
            addresses: Arc::new(config.addresses.clone()),
            dialer: config.dialer,
            open_limit: sync_limit.max(CONNECT_LIMIT),
            links: links.clone(),
            met: met.clone(),
            every: config.incarnation_every,
            again: Arc::new(others.map(|&peer| (peer, Notify::new())).collect()),
        };
        let room = RoomView::default();
        let watch = RoomWatch {
            disk,
            dirs,
            min_free: config.min_free,
            snapshots: snapshots.clone(),
            links: links.clone(),
            view: room.clone(),
            hollow: std::sync::Mutex::default(),
        };
        let worker = LogWorker::new(log, epochs, snapshots.clone(), met);
        let disk = log_thread::spawn(worker, acquaintances.clone(), backlog.clone())?;
        let (clock_in, clock) = watch::channel(None);
        let handle = Handle {
            links: links.clone(),
            view: view.clone(),
            snapshots: snapshots.clone(),
            saving: Arc::new(Mutex::new(())),
            keep: config.keep,
            backlog: backlog.clone(),
            room: room.clone(),
            acquaintances: acquaintances.clone(),
            clock,
        };
        let learner_side = LearnerSide {
            acquaintances: acquaintances.clone(),
            links: links.clone(),
            snapshots,
            backlog: backlog.clone(),
            silence,
        };
        let measure = Measure::new(me, &durable.history);
        let driver = Driver {
            shell,
            inbox,
            links: links.clone(),
            disk,
            backlog,
            room,
            clock: clock_in,
            election,
            learner_side,
            acquaintances,
            addresses: config.addresses,
            shutdown,
            state: State::default(),
            measure,
            traces: Traces::new(me),
        };
        Ok(QuorumService {
            _data_dir: data_dir,
            _log_place: log_place,
            watch,
            driver,
            handle,
            links,
            tasks,
            stop_links,
            ensemble,
            me,
        })
    }

    /// The port for the store of this process.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The newest valid snapshot, for a store that starts from it.
    #[must_use]
    pub fn newest_snapshot(&self) -> Option<SnapshotReader> {
        // An unreadable snapshot is useless; the start continues without it.
        self.handle.snapshots.read(self.handle.snapshots.latest()?).ok()
    }

    /// The gRPC service for the quorum port.
    #[must_use]
    pub fn learn_service(&self) -> QuorumServer<LearnService> {
        let service = LearnService {
            acquaintances: self.driver.acquaintances.clone(),
            links: self.links.clone(),
            view: self.handle.view.clone(),
            snapshots: self.handle.snapshots.clone(),
            halves: Halves::default(),
            silence: self.driver.learner_side.silence,
        };
        QuorumServer::new(service)
            .max_decoding_message_size(proto::PEER_MESSAGE_MAX)
            .max_encoding_message_size(proto::PEER_MESSAGE_MAX)
    }

    /// The gRPC service for this node's store in a separate process. No other process may reach it. It
    /// supports one store at a time, so serve it once.
    #[must_use]
    pub fn port_service(&self) -> QuorumPortServer<PortService> {
        let service = PortService {
            ensemble: self.ensemble.clone(),
            me: self.me,
            handle: self.handle.clone(),
            store: Mutex::default(),
        };
        QuorumPortServer::new(service)
            .max_decoding_message_size(proto::PEER_MESSAGE_MAX)
            .max_encoding_message_size(proto::PEER_MESSAGE_MAX)
    }

    /// Runs until the shutdown passed to `open`, or until a failure.
    ///
    /// # Errors
    /// Why it stopped by itself.
    pub async fn run(self) -> Result<(), StopReason> {
        self.links.spawn(self.watch.run());
        let result = self.driver.run().await;
        if let Err(reason) = &result {
            tracing::error!("the quorum service stops: {reason}");
        }
        // Links that wait for their peers do not delay the shutdown.
        self.stop_links.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        result
    }
}

/// Reports where `members` in the settings differs from what counts. It is for the first start only.
fn warn_of_other_members(storage: &Storage, settings: &Ensemble) {
    let rosters = storage.log.rosters();
    let here = rosters.last().map_or(storage.data_dir.members(), |roster| &roster.newest().ensemble);
    if here != settings {
        tracing::warn!(
            "`members` in the settings differs from the members of the ensemble, which count: {} (\"there\" are the settings, \
             \"here\" is the ensemble). Settings count for the first start only; change members with `quorate member`",
            settings.difference(here)
        );
    }
}

/// Releases the reserve of a directory if there is too little space to run.
fn room_to_begin(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let full = |source| {
        StorageError::from(LogError::from(DiskError {
            doing: "find the free space of",
            path: dir.to_owned(),
            source,
        }))
    };
    let free = || Ok::<u64, OpenError>(disk.space(dir).map_err(full)?.free);
    if free()? >= LEAST_FREE {
        return Ok(());
    }
    let released = reserve::release(disk, dir).map_err(|e| StorageError::from(LogError::from(e)))?;
    if released {
        tracing::warn!(dir = %dir.display(), "the disk is full: the reserve is given free");
    }
    match free()? {
        free if free < LEAST_FREE => Err(OpenError::NoSpace { dir: dir.to_owned(), free }),
        _ => Ok(()),
    }
}
