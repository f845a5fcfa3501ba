//! The events of the driver, and the channels that carry them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use api::peer::{Damage, Incarnation};
use api::ports::{QuorumStatus, Request, Sign};
use api::{Level, LevelRefusal, PeerId, Reconfig, ReconfigRefusal, Zxid};
use quorum_core::{Conn, Input};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::feed::FeedQueue;
use crate::leader_link::ToOneLearner;
use crate::learner_link::ToItsLeader;

/// An event for the driver from links, the handle and tasks.
pub(crate) enum Event {
    Core(Input),
    /// Requests of this node's store, and their arrival time.
    Requests {
        batch: Vec<Request>,
        at: Instant,
    },
    LearnerLink {
        conn: Conn,
        peer: PeerId,
        lanes: ToOneLearner,
    },
    LeaderLink {
        conn: Conn,
        leader: PeerId,
        lanes: ToItsLeader,
    },
    /// A store attaches; `after` is the last entry that it has applied.
    Attach {
        feed: FeedQueue,
        signs: mpsc::Sender<Sign>,
        after: Zxid,
    },
    Status(oneshot::Sender<QuorumStatus>),
    /// See [`Input::SetLevel`].
    SetLevel {
        expected: Level,
        level: Level,
        reply: oneshot::Sender<Result<Level, LevelRefusal>>,
    },
    /// See [`Input::Reconfigure`].
    Reconfigure {
        reconfig: Reconfig,
        reply: oneshot::Sender<Result<Zxid, ReconfigRefusal>>,
    },
    /// Disk space is low: a snapshot allows the log to be purged.
    SnapshotWanted,
    /// See [`Task::Forsake`].
    Forsaken,
    /// See [`Input::RolledBack`].
    RolledBack {
        by: PeerId,
        met: Incarnation,
    },
    /// The answer of another server to the question whether it lost data, or that it did not answer.
    /// `suspicion` counts the suspicions against this server at the time of the question.
    Heard {
        peer: PeerId,
        damage: Option<Damage>,
        suspicion: u64,
    },
    /// See [`Input::Leave`]; the driver answers when it is done.
    Leave(oneshot::Sender<()>),
}

/// The driver's interface for links. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links {
    events: mpsc::Sender<Event>,
    conns: Arc<AtomicU64>,
    peers: Arc<BTreeSet<PeerId>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    failures: mpsc::Sender<String>,
}

impl Links {
    /// Returns false if the driver has ended.
    pub(crate) async fn send(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// A connection number that this process has not used before.
    pub(crate) fn next_conn(&self) -> Conn {
        Conn(self.conns.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn is_member(&self, peer: PeerId) -> bool {
        self.peers.contains(&peer)
    }

    /// Runs a task until it or the service ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// Stops the node.
    pub(crate) fn fail(&self, why: String) {
        // The first reason is enough.
        let _ = self.failures.try_send(why);
    }
}

/// The channel ends that only the driver reads.
pub(crate) struct Inbox {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) failures: mpsc::Receiver<String>,
}

pub(crate) fn channels(
    peers: BTreeSet<PeerId>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) -> (Links, Inbox) {
    let (events_in, events) = mpsc::channel(1024);
    let (failures_in, failures) = mpsc::channel(1);
    let conns = Arc::new(AtomicU64::new(1));
    let links =
        Links { events: events_in, conns, peers: Arc::new(peers), tasks, shutdown, failures: failures_in };
    (links, Inbox { events, failures })
}
