//! What the driver is told, and by whom.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use api::peer::{Damage, Incarnation};
use api::ports::{QuorumStatus, Request, Sign};
use api::{Level, LevelRefusal, PeerId, Zxid};
use quorum_core::{Conn, Input};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::feed::FeedQueue;
use crate::leader_link::ToOneLearner;
use crate::learner_link::ToItsLeader;

/// What the driver is told by links, handle and tasks.
pub(crate) enum Event {
    Core(Input),
    /// Of this node's store, and when it asked.
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
    /// Of a store, and what it has applied.
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
    /// There is little room: a snapshot would make the log shorter.
    SnapshotWanted,
    /// See [`Task::Forsake`].
    Forsaken,
    /// See [`Input::RolledBack`].
    RolledBack {
        by: PeerId,
        met: Incarnation,
    },
    /// Another server says what it has lost, or does not answer, asked when this one was suspected for so many times.
    Heard {
        peer: PeerId,
        damage: Option<Damage>,
        suspicion: u64,
    },
    /// See [`Input::Leave`]; answered when it is done.
    Leave(oneshot::Sender<()>),
}

/// What links need of the driver. Cheap to clone.
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
    /// False when the driver is gone.
    pub(crate) async fn send(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// A number that no connection of this process had before.
    pub(crate) fn next_conn(&self) -> Conn {
        Conn(self.conns.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn is_member(&self, peer: PeerId) -> bool {
        self.peers.contains(&peer)
    }

    /// Runs a task until it ends or the service does.
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
        // One reason is enough.
        let _ = self.failures.try_send(why);
    }
}

/// Ends of the channels that only the driver reads.
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
