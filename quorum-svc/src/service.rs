//! Opening and running the service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use api::ports::Election;
use api::{PeerId, Zxid};
use proto::peer::quorum_server::QuorumServer;
use quorum_core::{Durable, Zab};
use quorum_log::{
    DataDir, Disk, EpochError, EpochFile, FsDisk, IdentityError, Log, LogError, LogOptions, ReadError,
};
use quorum_log::{SnapshotError, Snapshots};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backlog::Backlog;
use crate::driver::{self, Driver, Links, State};
use crate::handle::Handle;
use crate::leader_link::LearnService;
use crate::learner_link::LearnerSide;
use crate::log_thread;
use crate::view::LogView;

/// What the service is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the ensemble; servers of another name are refused.
    pub ensemble: String,
    /// This server, all servers, time limits and bounds.
    pub core: quorum_core::Config,
    /// `host:port` of each member's quorum service.
    pub addresses: BTreeMap<PeerId, String>,
    /// The node's own directory.
    pub data_dir: PathBuf,
    /// Of one log segment file, in bytes.
    pub segment_bytes: u64,
    /// Newest entries kept in memory for learners and the store, in bytes.
    pub recent_bytes: usize,
    /// Bytes that may wait for the disk before this node stops reading from its leader.
    pub backlog_bytes: usize,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory is not ours, or in use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log is damaged or cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The epochs are damaged or cannot be read.
    #[error(transparent)]
    Epochs(#[from] EpochError),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// Two facts on the disk exclude each other.
    #[error("{0}")]
    Contradiction(String),
    /// No thread.
    #[error("cannot start the log thread: {0}; raise the limit of threads")]
    Thread(#[from] std::io::Error),
}

/// Why the service stopped by itself. The node exits with it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StopReason {
    /// The disk failed; what was asked of it last may or may not be there.
    #[error("{0}")]
    Disk(String),
    /// Something that cannot be true is.
    #[error("{0}")]
    Invariant(String),
}

/// The quorum service of a node, opened and ready to run.
pub struct QuorumService<E> {
    // Held for its lock.
    _data_dir: DataDir,
    driver: Driver<E>,
    handle: Handle,
    links: Links,
    tasks: TaskTracker,
    stop_links: CancellationToken,
    ensemble: Arc<str>,
    me: PeerId,
}

impl<E: Election> QuorumService<E> {
    /// Claims the data directory, recovers log, epochs and snapshots, and prepares to run. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed on the disk then, apart from an unfinished tail that was never promised.
    pub fn open(
        config: Config,
        election: E,
        shutdown: CancellationToken,
    ) -> Result<QuorumService<E>, OpenError> {
        QuorumService::open_on(Arc::new(FsDisk), config, election, shutdown)
    }

    /// As [`QuorumService::open`], over another disk than the file system.
    ///
    /// # Errors
    /// As [`QuorumService::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: Config,
        election: E,
        shutdown: CancellationToken,
    ) -> Result<QuorumService<E>, OpenError> {
        let me = config.core.me;
        let data_dir = DataDir::claim(disk.as_ref(), &config.data_dir, &config.ensemble, me)?;
        let (snapshots, report) = Snapshots::open(disk.clone(), &config.data_dir.join("snapshots"))?;
        for skipped in &report.skipped {
            tracing::warn!(zxid = %skipped.zxid, "left out a snapshot: {}", skipped.why);
        }
        let epochs = EpochFile::load(disk.clone(), &config.data_dir)?;
        let options = LogOptions {
            segment_bytes: config.segment_bytes,
            // The newest entries are kept by the view, from before they are written.
            window_bytes: 0,
            // A node that has promised anything has a log.
            may_create: !epochs.is_stored() && snapshots.latest().is_none() && snapshots.received().is_none(),
            ..LogOptions::default()
        };
        let mut log = Log::open(disk, &config.data_dir.join("log"), options)?;
        let recovery = log.recovery().clone();
        settle_received(&mut log, &snapshots)?;
        let durable = reconcile(&log, &epochs, &snapshots)?;
        tracing::info!(
            node = %me, last = %durable.history.last(), base = %durable.history.base(), epoch = %durable.current_epoch,
            entries = recovery.entries, segments = recovery.segments, cut_bytes = recovery.cut_bytes, "log recovered"
        );

        let tasks = TaskTracker::new();
        let stop_links = shutdown.child_token();
        let peers: BTreeSet<PeerId> = config.core.ensemble.members().map(|(id, _)| id).collect();
        let (links, inbox) = driver::channels(peers, tasks.clone(), stop_links.clone());
        let view = LogView::new(log.reader(), log.history().last(), config.recent_bytes);
        let backlog = Backlog::new(config.backlog_bytes);
        let ensemble: Arc<str> = config.ensemble.into();
        let disk = log_thread::spawn(log, epochs, snapshots.clone(), backlog.clone())?;
        let handle = Handle {
            links: links.clone(),
            view: view.clone(),
            snapshots: snapshots.clone(),
            saving: Arc::new(Mutex::new(())),
        };
        let learner_side = LearnerSide {
            ensemble: ensemble.clone(),
            me,
            links: links.clone(),
            snapshots,
            backlog: backlog.clone(),
        };
        let driver = Driver {
            core: Zab::new(config.core, durable),
            inbox,
            links: links.clone(),
            disk,
            backlog,
            view,
            election,
            learner_side,
            addresses: config.addresses,
            shutdown,
            state: State::default(),
        };
        Ok(QuorumService { _data_dir: data_dir, driver, handle, links, tasks, stop_links, ensemble, me })
    }

    /// For the store of this process.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// To be served on the quorum port.
    #[must_use]
    pub fn learn_service(&self) -> QuorumServer<LearnService> {
        let service = LearnService {
            ensemble: self.ensemble.clone(),
            me: self.me,
            links: self.links.clone(),
            view: self.handle.view.clone(),
            snapshots: self.handle.snapshots.clone(),
        };
        QuorumServer::new(service)
            .max_decoding_message_size(proto::PEER_MESSAGE_MAX)
            .max_encoding_message_size(proto::PEER_MESSAGE_MAX)
    }

    /// Runs until the shutdown that `open` was given, or until something makes it stop.
    ///
    /// # Errors
    /// Why it stopped by itself.
    pub async fn run(self) -> Result<(), StopReason> {
        let result = self.driver.run().await;
        if let Err(reason) = &result {
            tracing::error!("the quorum service stops: {reason}");
        }
        // Links that wait for their peers need not be waited for.
        self.stop_links.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        result
    }
}

/// Ends what a crash may have left half done: a snapshot received from a leader, and the log begun anew behind it.
fn settle_received(log: &mut Log, snapshots: &Snapshots) -> Result<(), OpenError> {
    let Some(zxid) = snapshots.received() else { return Ok(()) };
    let base = log.history().base();
    if base == zxid {
        snapshots.adopt_received(zxid)?;
    } else if base == Zxid::ZERO || snapshots.latest().is_some_and(|own| log.history().contains(own)) {
        // The log stands without it; the leader will send one again if it must.
        snapshots.discard_received()?;
    } else {
        tracing::info!(%zxid, log = %log.history().last(), "the log starts anew behind a snapshot that was received");
        log.reset(zxid)?;
        snapshots.adopt_received(zxid)?;
    }
    Ok(())
}

/// What the core is told of the disk, once its parts agree.
fn reconcile(log: &Log, epochs: &EpochFile, snapshots: &Snapshots) -> Result<Durable, OpenError> {
    let stored = epochs.epochs();
    let history = log.history().clone();
    let last = history.last().epoch();
    if let Some(zxid) = snapshots.latest()
        && !history.contains(zxid)
    {
        return Err(OpenError::Contradiction(format!(
            "the log ends with {}, but there is a snapshot of {zxid}: the end of the log is lost. Move the data directory \
             away; the node will be synchronised anew",
            history.last()
        )));
    }
    if stored.accepted < last {
        return Err(OpenError::Contradiction(format!(
            "the log ends in epoch {last}, but the epochs file says that no epoch above {} was ever promised: the file \
             `epochs` was lost or comes from a backup. Move the data directory away; the node will be synchronised anew",
            stored.accepted
        )));
    }
    // A leader of a later epoch may have had the log cut back below the marker, before its own marker came; it had the
    // promise of that epoch before.
    if stored.current > last && stored.accepted == stored.current {
        return Err(OpenError::Contradiction(format!(
            "the log ends with {}, but this node had synchronised with the leader of epoch {}: the end of the log is \
             lost. Move the data directory away; the node will be synchronised anew",
            history.last(),
            stored.current
        )));
    }
    // The marker of an epoch is durable before the epoch is; a crash between the two is no contradiction.
    let current_epoch = stored.current.max(last);
    let (accepted_epoch, snapshot) = (stored.accepted, snapshots.latest());
    let last_time_ms = last_time_ms(log)?;
    Ok(Durable { accepted_epoch, current_epoch, history, snapshot, last_time_ms })
}

/// The time in the last entry; 0 if there is none.
fn last_time_ms(log: &Log) -> Result<i64, OpenError> {
    let history = log.history();
    let before = match history.spans() {
        [] => return Ok(0),
        [.., span] if span.last > 0 => Zxid(history.last().0 - 1),
        [.., before, _] => Zxid::new(before.epoch, before.last),
        [_] => history.base(),
    };
    // The base may be what stands directly before the last entry.
    match log.reader().read_after(before.max(history.base()), history.last(), 1) {
        Ok(entries) => Ok(entries.last().map_or(0, |e| e.time_ms)),
        Err(ReadError::Log(error)) => Err(error.into()),
        Err(ReadError::Purged { .. } | ReadError::NotThere { .. }) => Ok(0),
    }
}
