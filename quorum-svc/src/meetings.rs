//! Which life of its data directory each server is in, as far as the others know. So a server that stands on an older copy of its
//! directory is told, by whoever has met it since the copy was made (`docs/protocol.md`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::PeerId;
use api::peer::{Incarnation, Lives};
use proto::peer::{self as wire, quorum_client::QuorumClient};
use proto::quorum::Hello;
use quorum_log::{IncarnationError, Incarnations};
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint};

use crate::driver::{Event, Links};
use crate::leader_link::blocking;
use crate::learner_link::CONNECT_LIMIT;

/// What [`Config::life`](crate::Config::life) usually is: a file is written so often, here and at each other member.
pub const LIFE: Duration = Duration::from_secs(600);
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
    /// See [`Config::life`](crate::Config::life).
    pub(crate) life: Duration,
    /// Changes with each life, so that the others are told.
    pub(crate) lives: Arc<watch::Sender<()>>,
}

impl Meetings {
    /// Blocks on the disk.
    fn with<T>(&self, f: impl FnOnce(&mut Incarnations) -> T) -> T {
        f(&mut self.incarnations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`Incarnations::outlive`]. Blocks on the disk.
    pub(crate) fn outlive(&self, met: Incarnation) -> Result<(), IncarnationError> {
        self.with(|incarnations| incarnations.outlive(met))?;
        self.lives.send_replace(());
        Ok(())
    }

    /// The first message to `peer`, which has said this, or nothing yet.
    pub(crate) async fn hello(&self, peer: PeerId, said: Lives) -> wire::Hello {
        let this = self.clone();
        let lives = blocking(move || this.with(|incarnations| incarnations.lives(peer, said))).await;
        Hello::to_quorum(&self.ensemble, self.me, lives)
    }

    /// Takes in the first message of `peer`, which was checked.
    ///
    /// # Errors
    /// This server stands on an older copy of its directory, so there must be no connection. The driver has been told.
    pub(crate) async fn greeted(&self, peer: PeerId, hello: &wire::Hello) -> Result<Lives, String> {
        let said = Hello::lives(hello);
        let this = self.clone();
        let (remembered, unknown) =
            blocking(move || this.with(|i| (i.meet(peer, said), said.met.filter(|&met| !i.knows(met)))))
                .await;
        if let Err(error) = remembered {
            self.links.fail(error.to_string());
            return Err(error.to_string());
        }
        if let Some(met) = unknown {
            self.links.send(Event::RolledBack { by: peer, met }).await;
            return Err("this server stands on an older copy of its data directory".into());
        }
        Ok(said)
    }

    /// Meets the others for as long as the service runs, each at `addresses`. What is returned ends when each has been
    /// tried once.
    pub(crate) fn begin(self, addresses: impl Iterator<Item = (PeerId, String)>) -> mpsc::Receiver<()> {
        let (tried, first) = mpsc::channel(1);
        for (peer, address) in addresses.filter(|(peer, _)| *peer != self.me) {
            self.links.spawn(self.clone().keep_meeting(peer, address, tried.clone()));
        }
        self.links.clone().spawn(self.live());
        first
    }

    async fn live(self) {
        loop {
            tokio::time::sleep(self.life).await;
            let this = self.clone();
            if let Err(error) = blocking(move || this.with(Incarnations::grow)).await {
                return self.links.fail(error.to_string());
            }
            self.lives.send_replace(());
        }
    }

    async fn keep_meeting(self, peer: PeerId, address: String, tried: mpsc::Sender<()>) {
        let mut life = self.lives.subscribe();
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
        self.meet_over(peer, channel).await
    }

    /// Behind this the other server has met this one in its present life, durably.
    ///
    /// # Errors
    /// As [`Meetings::greeted`], or the road to the other server.
    pub(crate) async fn meet_over(&self, peer: PeerId, channel: Channel) -> Result<(), String> {
        let mut client = QuorumClient::new(channel);
        let mut said = Lives::default();
        // The second time it can be confirmed what the other one has met.
        for _ in 0..2 {
            let hello = self.hello(peer, said).await;
            let theirs = client.meet(hello).await.map_err(|s| s.to_string())?.into_inner();
            let told = theirs.clone();
            Hello::check(theirs, &self.ensemble, Some(peer)).map_err(|e| e.0)?;
            said = self.greeted(peer, &told).await?;
        }
        Ok(())
    }
}
