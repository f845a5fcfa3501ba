//! Who the other servers are, whether they can be reached, and which incarnation of its data directory each of them is. So a server
//! that stands on an older copy of its directory is told, by whoever has met it since the copy was made (`docs/protocol.md`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::peer::{Acquaintance, Damage, Incarnation};
use api::ports::PeerReport;
use api::{Greeting, PeerId};
use proto::peer::{self as wire, quorum_client::QuorumClient};
use proto::quorum::Hello;
use quorum_log::{IncarnationError, Incarnations};
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint};

use crate::driver::{Event, Links};
use crate::leader_link::blocking;
use crate::learner_link::{CONNECT_LIMIT, chain};

/// What [`Config::incarnation_every`](crate::Config::incarnation_every) usually is: a file is written so often, here and at each
/// other member.
pub const INCARNATION_EVERY: Duration = Duration::from_secs(600);
/// Before a server first looks for a leader it waits so long at most until it has met the others.
pub(crate) const FIRST: Duration = Duration::from_millis(200);
/// Between attempts to meet somebody, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// Whoever was met is met again after this, so that it is known who can be reached.
const AGAIN: Duration = Duration::from_secs(10);
/// A node without a quorum says so in its log after this, and then once in each of these.
const SILENT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];

/// What this server says of itself, as of now.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Own {
    pub(crate) greeting: Greeting,
    /// As in `quorum_core::Zab::damage`.
    pub(crate) damage: Damage,
    /// Whether it has a leader with a quorum.
    pub(crate) serving: bool,
    /// Raised when others say that this server has lost something.
    pub(crate) suspicion: u64,
}

/// What is known of each other server.
#[derive(Default)]
pub(crate) struct Board {
    peers: Mutex<BTreeMap<PeerId, Noted>>,
}

/// See [`PeerReport`].
struct Noted {
    fault: Option<String>,
    refused: bool,
    since: Instant,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Noted>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is new.
    fn note(&self, peer: PeerId, fault: Option<String>, refused: bool) -> bool {
        let mut peers = self.lock();
        let new = peers.get(&peer).is_none_or(|before| before.fault != fault);
        if new {
            peers.insert(peer, Noted { fault, refused, since: Instant::now() });
        }
        new
    }
}

/// What a server knows of others, and says of itself. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acquaintances {
    pub(crate) me: PeerId,
    pub(crate) own: Arc<watch::Sender<Own>>,
    pub(crate) board: Arc<Board>,
    pub(crate) addresses: Arc<BTreeMap<PeerId, String>>,
    pub(crate) links: Links,
    /// Held while the file is written, so never locked in a task.
    pub(crate) incarnations: Arc<Mutex<Incarnations>>,
    /// See [`Config::incarnation_every`](crate::Config::incarnation_every).
    pub(crate) every: Duration,
    /// Changes when the others have to be met again at once.
    pub(crate) again: Arc<watch::Sender<()>>,
}

impl Acquaintances {
    /// Blocks on the disk.
    fn with<T>(&self, f: impl FnOnce(&mut Incarnations) -> T) -> T {
        f(&mut self.incarnations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Within this both streams between a learner and its leader are open. That takes some six round trips and a write to each
    /// disk, so it follows the setting that says how far apart members are.
    pub(crate) fn open_limit(&self) -> Duration {
        self.own.borrow().greeting.sync_limit.max(CONNECT_LIMIT)
    }

    /// See [`Incarnations::outlive`]. Blocks on the disk.
    pub(crate) fn outlive(&self, met: Incarnation) -> Result<(), IncarnationError> {
        self.with(|incarnations| incarnations.outlive(met))?;
        self.again.send_replace(());
        Ok(())
    }

    /// All other servers, as this one sees them.
    pub(crate) fn peers(&self) -> Vec<PeerReport> {
        let known = self.board.lock();
        let others = self.addresses.iter().filter(|(id, _)| **id != self.me);
        let peer = |(&id, address): (&PeerId, &String)| {
            let (fault, refused, since) = match known.get(&id) {
                Some(noted) => (noted.fault.clone(), noted.refused, noted.since.elapsed()),
                None => (Some("not tried yet".to_owned()), false, Duration::ZERO),
            };
            PeerReport { id, address: address.clone(), fault, refused, since }
        };
        others.map(peer).collect()
    }

    /// The first message to `peer`, which has said this, or nothing yet.
    pub(crate) async fn hello(&self, peer: PeerId, said: Acquaintance) -> wire::Hello {
        let this = self.clone();
        let said = blocking(move || this.with(|incarnations| incarnations.acquaintance(peer, said))).await;
        let own = self.own.borrow();
        Hello::to_quorum(&own.greeting, said, own.damage)
    }

    /// Checks the first message of another server, before anything else in it is believed. `dialled`: whom this one dialled.
    ///
    /// # Errors
    /// Why the two have nothing to do with each other, which is logged once.
    pub(crate) fn check(&self, hello: wire::Hello, dialled: Option<PeerId>) -> Result<PeerId, String> {
        let peer = PeerId(hello.id);
        let checked = Hello::check(hello, &self.own.borrow().greeting, dialled);
        checked.map(|greeting| greeting.id).map_err(|e| {
            self.refused(dialled.unwrap_or(peer), &e.0);
            e.0
        })
    }

    /// This server and `peer` have nothing to do with each other until a person changes something.
    pub(crate) fn refused(&self, peer: PeerId, why: &str) {
        if self.links.is_member(peer) && peer != self.me && self.board.note(peer, Some(why.to_owned()), true)
        {
            tracing::error!(%peer, why, "refused a server");
        }
    }

    /// Takes in the first message of `peer`, which was checked. If this server turns out to stand on an older copy of its
    /// directory, the driver is told before anything else that comes over the connection.
    ///
    /// # Errors
    /// The disk, which ends the node.
    pub(crate) async fn greeted(&self, peer: PeerId, hello: &wire::Hello) -> Result<Acquaintance, String> {
        let said = Hello::acquaintance(hello);
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
        }
        Ok(said)
    }

    /// Meets the others for as long as the service runs. What is returned ends when each has been tried once.
    pub(crate) fn begin(self) -> mpsc::Receiver<()> {
        let (tried, first) = mpsc::channel(1);
        for (&peer, address) in self.addresses.iter().filter(|(peer, _)| **peer != self.me) {
            self.links.spawn(self.clone().keep_meeting(peer, address.clone(), tried.clone()));
        }
        self.links.clone().spawn(self.clone().grow());
        self.links.clone().spawn(self.complain());
        first
    }

    async fn grow(self) {
        loop {
            tokio::time::sleep(self.every).await;
            let this = self.clone();
            if let Err(error) = blocking(move || this.with(Incarnations::grow)).await {
                return self.links.fail(error.to_string());
            }
            self.again.send_replace(());
        }
    }

    /// Says in the log why there is no quorum, as long as there is none.
    async fn complain(self) {
        let mut own = self.own.subscribe();
        loop {
            if own.wait_for(|own| !own.serving).await.is_err() {
                return;
            }
            let mut pause = SILENT[0];
            while tokio::time::timeout(pause, own.wait_for(|own| own.serving)).await.is_err() {
                pause = SILENT[1];
                let mut faults = String::new();
                for peer in self.peers() {
                    let PeerReport { id, address, fault, since, .. } = peer;
                    let fault = fault.unwrap_or_else(|| "reached".to_owned());
                    // Writing to a string does not fail.
                    let _ = write!(faults, "{id} at {address}: {fault} ({} s); ", since.as_secs());
                }
                let peers = faults.trim_end_matches("; ");
                tracing::warn!(peers, "no quorum: this node has no leader");
            }
        }
    }

    async fn keep_meeting(self, peer: PeerId, address: String, tried: mpsc::Sender<()>) {
        let mut again = self.again.subscribe();
        let mut tried = Some(tried);
        let [mut pause, most] = RETRY;
        loop {
            let suspicion = self.own.borrow().suspicion;
            let met = tokio::time::timeout(2 * CONNECT_LIMIT, self.meet(peer, &address)).await;
            drop(tried.take());
            match met.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(()) => {
                    [pause, _] = RETRY;
                    self.board.note(peer, None, false);
                    if let Ok(Err(_)) = tokio::time::timeout(AGAIN, again.changed()).await {
                        return;
                    }
                }
                Err(why) => {
                    self.links.send(Event::Heard { peer, damage: None, suspicion }).await;
                    if self.board.note(peer, Some(why.clone()), false) {
                        tracing::debug!(%peer, address, why, "cannot meet");
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
            .map_err(|e| chain(&e))?;
        self.meet_over(peer, channel).await
    }

    /// Behind this the other server has met this one in its present incarnation, durably.
    ///
    /// # Errors
    /// As [`Acquaintances::greeted`], or the road to the other server.
    pub(crate) async fn meet_over(&self, peer: PeerId, channel: Channel) -> Result<(), String> {
        let mut client = QuorumClient::new(channel);
        let mut said = Acquaintance::default();
        // The second time it can be confirmed what the other one has met.
        for _ in 0..2 {
            let suspicion = self.own.borrow().suspicion;
            let hello = self.hello(peer, said).await;
            let theirs = client.meet(hello).await.map_err(|status| {
                if status.code() == tonic::Code::FailedPrecondition {
                    self.refused(peer, status.message());
                }
                status.message().to_owned()
            })?;
            let theirs = theirs.into_inner();
            let told = theirs.clone();
            self.check(theirs, Some(peer))?;
            let damage = Hello::damage(&told);
            self.links.send(Event::Heard { peer, damage: Some(damage), suspicion }).await;
            said = self.greeted(peer, &told).await?;
        }
        Ok(())
    }
}
