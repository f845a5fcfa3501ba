//! The quorum of a node that may have to wait for disk space before it can be opened.

use api::ports::{Chunks, PortClosed, Quorum, QuorumStatus, Request, Room, Surroundings};
use api::{Level, LevelRefusal, Reconfig, ReconfigRefusal, Zxid};

use tokio::sync::watch;

use crate::feed::{LogFeed, SignQueue};
use crate::handle::{Handle, LogHealth};

/// The port [`Quorum`] to a quorum service that may not be open yet. Until it is open, calls wait, and
/// the status is that of a node without a leader. So the store runs in the meantime and answers stale
/// reads. Cheap to clone.
#[derive(Clone)]
pub struct Late(watch::Receiver<State>);

/// The other end of [`Late`]. If it is dropped before the service is open, waiting calls fail.
pub struct Opening(watch::Sender<State>);

enum State {
    Opening,
    /// Waits for space; this text is the reason.
    Waiting(String),
    Open(Box<Handle>),
}

impl Late {
    /// Creates both ends.
    #[must_use]
    pub fn new() -> (Opening, Late) {
        let (opening, late) = watch::channel(State::Opening);
        (Opening(opening), Late(late))
    }

    /// The reason why the service is not open, if it waits for space.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::Waiting(why) => Some(why.clone()),
            State::Opening | State::Open(_) => None,
        }
    }

    /// As [`Handle::log_health`]; `None` until the service is open.
    #[must_use]
    pub fn log_health(&self) -> Option<LogHealth> {
        self.get().map(|handle| handle.log_health())
    }

    fn get(&self) -> Option<Handle> {
        match &*self.0.borrow() {
            State::Open(handle) => Some(Handle::clone(handle)),
            State::Opening | State::Waiting(_) => None,
        }
    }

    async fn opened(&self) -> Result<Handle, PortClosed> {
        let mut late = self.0.clone();
        let open = late.wait_for(|state| matches!(state, State::Open(_))).await;
        match open.as_deref() {
            Ok(State::Open(handle)) => Ok(Handle::clone(handle)),
            _ => Err(PortClosed("the quorum service of this node has stopped before it was open".into())),
        }
    }
}

impl Opening {
    /// Reports that the service is open.
    pub fn opened(&self, handle: Handle) {
        self.0.send_replace(State::Open(Box::new(handle)));
    }

    /// Reports that the service waits for space.
    pub fn waits(&self, why: String) {
        self.0.send_replace(State::Waiting(why));
    }
}

impl Quorum for Late {
    type Feed = LogFeed;
    type Signs = SignQueue;

    async fn attach(&self, after: Zxid) -> Result<(LogFeed, SignQueue), PortClosed> {
        self.opened().await?.attach(after).await
    }

    async fn request(&self, batch: Vec<Request>) -> Result<(), PortClosed> {
        self.opened().await?.request(batch).await
    }

    async fn save_snapshot(&self, zxid: Zxid, chunks: impl Chunks + 'static) -> Result<(), PortClosed> {
        self.opened().await?.save_snapshot(zxid, chunks).await
    }

    async fn surroundings(&self) -> Result<Surroundings, PortClosed> {
        match self.get() {
            Some(handle) => handle.surroundings().await,
            None => Ok(Surroundings::default()),
        }
    }

    async fn set_level(&self, expected: Level, level: Level) -> Result<Level, LevelRefusal> {
        match self.get() {
            Some(handle) => handle.set_level(expected, level).await,
            None => Err(LevelRefusal::Unavailable("the quorum of this node is not open yet".into())),
        }
    }

    async fn reconfigure(&self, reconfig: Reconfig) -> Result<Zxid, ReconfigRefusal> {
        match self.get() {
            Some(handle) => handle.reconfigure(reconfig).await,
            None => Err(ReconfigRefusal::Unavailable("the quorum of this node is not open yet".into())),
        }
    }

    async fn status(&self) -> Result<QuorumStatus, PortClosed> {
        match self.get() {
            Some(handle) => handle.status().await,
            None => Ok(QuorumStatus { disk: Room::Short, ..QuorumStatus::default() }),
        }
    }
}
