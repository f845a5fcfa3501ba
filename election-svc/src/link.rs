use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Greeting, PeerId};
use election_core::Notification;
use election_shell::{HEARTBEAT, LinkEvent, SILENCE};
use proto::election::ElectionFrame;
use proto::peer::ElectionMessage;
use proto::quorum::Hello;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming};

use crate::complaints::Complaints;

/// The state shared by the driver, the server and the dialers.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: PeerId,
    /// The greeting of this server; changes when its quorum joins an ensemble.
    pub(crate) greeting: watch::Sender<Greeting>,
    pub(crate) events: mpsc::Sender<LinkEvent<Slot>>,
    pub(crate) last_link: AtomicU64,
    pub(crate) complaints: Complaints,
    pub(crate) dialer: tls::Dialer,
    /// All tasks of the service but the driver.
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// The one message that waits on a link: a newer one replaces it (as in ZooKeeper's
/// `QuorumCnxManager`). Dropping the slot ends the link.
pub(crate) type Slot = watch::Sender<Option<Notification>>;

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// This server is stopping, or has a newer link to the peer.
    Ours,
    /// The peer closed it.
    Closed,
    /// The peer sent nothing, not even a heartbeat.
    Silent,
    /// The link broke, or carried an invalid message.
    Broken(Status),
    /// The peer is in another ensemble, or has other members.
    Stranger(String),
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkEnd::Ours => write!(f, "replaced by a newer one, or stopping"),
            LinkEnd::Closed => write!(f, "closed by the peer"),
            LinkEnd::Silent => write!(f, "the peer was silent for {SILENCE:?}"),
            LinkEnd::Broken(status) => write!(f, "{}", status.message()),
            LinkEnd::Stranger(why) => f.write_str(why),
        }
    }
}

impl Shared {
    /// The first message of this server on every stream.
    pub(crate) fn hello(&self) -> ElectionMessage {
        ElectionFrame::Hello(Hello::to_peer(&self.greeting.borrow())).into()
    }

    /// Carries messages between the driver and a peer until either side ends the link. Both sides have
    /// introduced themselves before.
    pub(crate) async fn carry(
        &self,
        Greeting { id: peer, standing, .. }: Greeting,
        mut incoming: Streaming<ElectionMessage>,
        outgoing: mpsc::Sender<ElectionMessage>,
    ) -> LinkEnd {
        let number = self.last_link.fetch_add(1, Ordering::Relaxed);
        let (link, waiting) = watch::channel(None);
        self.complaints.settle(peer);
        self.tell(LinkEvent::Up { peer, number, link, standing }).await;
        let end = tokio::select! {
            end = self.read(peer, number, &mut incoming) => end,
            end = self.write(waiting, outgoing) => end,
            () = self.shutdown.cancelled() => LinkEnd::Ours,
        };
        match &end {
            LinkEnd::Stranger(why) if self.complaints.is_new(peer, why) => {
                tracing::warn!(%peer, reason = %why, "election link ended");
            }
            end => tracing::debug!(%peer, reason = %end, "election link ended"),
        }
        self.tell(LinkEvent::Down { peer, number }).await;
        end
    }

    async fn read(&self, peer: PeerId, number: u64, incoming: &mut Streaming<ElectionMessage>) -> LinkEnd {
        loop {
            let message = match timeout(SILENCE, incoming.message()).await {
                Err(_) => return LinkEnd::Silent,
                Ok(Err(status)) => return LinkEnd::Broken(status),
                Ok(Ok(None)) => return LinkEnd::Closed,
                Ok(Ok(Some(message))) => message,
            };
            match ElectionFrame::try_from(message) {
                Ok(ElectionFrame::Notification(notification, standing)) => {
                    let checked = self.greeting.borrow().check_standing(peer, &standing);
                    if let Err(why) = checked {
                        return LinkEnd::Stranger(why);
                    }
                    self.tell(LinkEvent::Heard { peer, number, notification, standing }).await;
                }
                Ok(ElectionFrame::Hello(hello)) => {
                    let checked = Hello::check(hello, &self.greeting.borrow(), Some(peer));
                    if let Err(why) = checked {
                        return LinkEnd::Stranger(why.0);
                    }
                }
                Err(malformed) => return LinkEnd::Broken(Status::invalid_argument(malformed.to_string())),
            }
        }
    }

    /// Sends new notifications at once, and repeats the last one. So the peer notices within seconds
    /// that this server or the path to it is dead, whichever side dialled and whatever state TCP is in.
    async fn write(
        &self,
        mut waiting: watch::Receiver<Option<Notification>>,
        outgoing: mpsc::Sender<ElectionMessage>,
    ) -> LinkEnd {
        loop {
            if let Ok(Err(_dropped)) = timeout(HEARTBEAT, waiting.changed()).await {
                return LinkEnd::Ours;
            }
            let latest = *waiting.borrow_and_update();
            let standing = self.greeting.borrow().standing;
            let message =
                latest.map_or_else(|| self.hello(), |n| ElectionFrame::Notification(n, standing).into());
            if outgoing.send(message).await.is_err() {
                return LinkEnd::Closed;
            }
        }
    }

    async fn tell(&self, event: LinkEvent<Slot>) {
        // The driver is gone only when the service is stopping.
        let _ = self.events.send(event).await;
    }
}

/// Time limit for the peer's first message, and for each step before it.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(1);

/// Messages between a link and its stream. Only one: the newest message should wait in the slot, where
/// a newer one can replace it, and not here behind older ones.
pub(crate) const OUTGOING: usize = 1;
/// Bytes in one message: all of ours are far smaller.
pub(crate) const MESSAGE_MAX: usize = 32 << 10;
