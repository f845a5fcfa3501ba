//! Which life of its data directory each server is in, as far as the others know. So a server that stands on an older copy of its
//! directory is told, by whoever has met it since the copy was made (`docs/protocol.md`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::PeerId;
use api::peer::Incarnation;
use proto::peer::{self as wire, quorum_client::QuorumClient};
use proto::quorum::Hello;
use quorum_log::{IncarnationError, Incarnations};
use tokio::sync::{mpsc, watch};
use tonic::transport::Endpoint;

use crate::driver::{Event, Links};
use crate::leader_link::blocking;
use crate::learner_link::CONNECT_LIMIT;

/// While a server runs, copies of its directory that are older than this can be told from it.
const LIFE: Duration = Duration::from_secs(600);
/// Before a server first looks for a leader it waits so long at most until it has met the others.
pub(crate) const FIRST: Duration = Duration::from_millis(200);
/// Between attempts to meet somebody, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// What a server knows of lives, and says of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Meetings {
    pub(crate) ensemble: Arc<str>,
    pub(crate) me: PeerId,
    pub(crate) links: Links,
    /// Held while the file is written, so never locked in a task.
    pub(crate) incarnations: Arc<Mutex<Incarnations>>,
}

impl Meetings {
    /// Blocks on the disk.
    fn with<T>(&self, f: impl FnOnce(&mut Incarnations) -> T) -> T {
        f(&mut self.incarnations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`Incarnations::outlive`]. Blocks on the disk.
    pub(crate) fn outlive(&self, met: Incarnation) -> Result<(), IncarnationError> {
        self.with(|incarnations| incarnations.outlive(met))
    }

    /// The first message to `peer`.
    pub(crate) async fn hello(&self, peer: PeerId) -> wire::Hello {
        let this = self.clone();
        let (own, met) = blocking(move || this.with(|i| (i.own(), i.met(peer)))).await;
        Hello::to_quorum(&self.ensemble, self.me, own, met)
    }

    /// Takes in the first message of `peer`, which was checked.
    ///
    /// # Errors
    /// There must be no connection between the two, because one stands on an older copy of its directory. If it is this
    /// one, the driver has been told; if it is the other, our Hello tells it.
    pub(crate) async fn greeted(&self, peer: PeerId, hello: &wire::Hello) -> Result<(), String> {
        let (Some(theirs), met) = Hello::incarnations(hello) else { return Ok(()) };
        let this = self.clone();
        let (own, older) = blocking(move || this.with(|i| (i.own(), i.meet(peer, theirs)))).await;
        if let Some(met) = met.filter(|&met| own.is_behind(met)) {
            self.links.send(Event::RolledBack { by: peer, met }).await;
            return Err("this server stands on an older copy of its data directory".into());
        }
        match older {
            Ok(None) => Ok(()),
            Ok(Some(met)) => {
                let text = format!(
                    "server {peer} stands on an older copy of its data directory: it is in life {} of it, and life {} has \
                     been met here",
                    theirs.number, met.number
                );
                tracing::warn!(%peer, "{text}; it is told, and heals from the leader");
                Err(text)
            }
            Err(error) => {
                self.links.fail(error.to_string());
                Err(error.to_string())
            }
        }
    }

    /// Meets the others for as long as the service runs, each at `addresses`. What is returned ends when each has been
    /// tried once.
    pub(crate) fn begin(self, addresses: impl Iterator<Item = (PeerId, String)>) -> mpsc::Receiver<()> {
        let (tried, first) = mpsc::channel(1);
        let (lives, life) = watch::channel(());
        for (peer, address) in addresses.filter(|(peer, _)| *peer != self.me) {
            self.links.spawn(self.clone().keep_meeting(peer, address, tried.clone(), life.clone()));
        }
        self.links.clone().spawn(self.live(lives));
        first
    }

    async fn live(self, lives: watch::Sender<()>) {
        loop {
            tokio::time::sleep(LIFE).await;
            let this = self.clone();
            if let Err(error) = blocking(move || this.with(Incarnations::advance)).await {
                return self.links.fail(error.to_string());
            }
            lives.send_replace(());
        }
    }

    async fn keep_meeting(
        self,
        peer: PeerId,
        address: String,
        tried: mpsc::Sender<()>,
        mut life: watch::Receiver<()>,
    ) {
        let mut tried = Some(tried);
        let [mut pause, most] = RETRY;
        loop {
            let met = tokio::time::timeout(2 * CONNECT_LIMIT, self.meet(peer, &address)).await;
            drop(tried.take());
            match met {
                Ok(Ok(())) => {
                    [pause, _] = RETRY;
                    if life.changed().await.is_err() {
                        return;
                    }
                }
                not => {
                    if let Ok(Err(error)) = not {
                        tracing::debug!(%peer, address, error, "cannot meet");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(most);
                }
            }
        }
    }

    async fn meet(&self, peer: PeerId, address: &str) -> Result<(), String> {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| e.to_string())?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_LIMIT)
            .connect()
            .await
            .map_err(|e| e.to_string())?;
        let hello = self.hello(peer).await;
        let theirs = QuorumClient::new(channel).meet(hello).await.map_err(|s| s.to_string())?.into_inner();
        let told = theirs.clone();
        Hello::check(theirs, &self.ensemble, Some(peer)).map_err(|e| e.0)?;
        self.greeted(peer, &told).await
    }
}
