//! The other servers: whether they are reachable, and the incarnation of each data directory. A server
//! on an older copy of its data directory learns this from any server that it has met since the copy
//! was made (`docs/protocol.md`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::peer::Acquaintance;
use api::ports::PeerReport;
use api::{Build, Greeting, PeerId};
use proto::peer::{self as wire, quorum_client::QuorumClient};
use proto::quorum::Hello;
use quorum_shell::{Met, Said};
use tls::Dialer;
use tokio::sync::{Notify, mpsc, watch};
use tonic::transport::{Channel, Endpoint};

use crate::driver::{Event, Links};
use crate::leader_link::blocking;
use crate::learner_link::{CONNECT_LIMIT, chain};

/// Default of [`Config::incarnation_every`](crate::Config::incarnation_every): the interval at which
/// this server and each other member write a file.
pub const INCARNATION_EVERY: Duration = Duration::from_secs(600);
/// Maximum time that a server waits to meet the others before it first looks for a leader.
pub(crate) const FIRST: Duration = Duration::from_millis(200);
/// Interval between attempts to meet a peer, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// Interval at which a reachable peer is met again to keep its reachability current: while this node
/// serves, and while it does not, when an operator may be looking for the reason.
const AGAIN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];
/// A node without a quorum logs the reason after the first interval, and then at the second.
const SILENT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];

/// The current identity and state of this server for its peers.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Own {
    pub(crate) greeting: Greeting,
    pub(crate) said: Said,
}

/// The known state of each other server.
#[derive(Default)]
pub(crate) struct Board {
    peers: Mutex<BTreeMap<PeerId, Noted>>,
}

/// See [`PeerReport`].
struct Noted {
    fault: Option<String>,
    /// Only without a fault.
    build: Option<Build>,
    /// Only without a fault: its settings that differ.
    differs: Option<String>,
    refused: bool,
    since: Instant,
    /// When this was last confirmed.
    found: Instant,
    /// Only without a fault: since when the peer has to be checked again.
    doubted: Option<Instant>,
}

impl Noted {
    /// The fault and its age. A peer in doubt counts as unreachable until it answers.
    fn fault(&self) -> (Option<String>, Duration) {
        match (&self.fault, self.doubted) {
            (None, Some(doubted)) => {
                let ago = self.found.elapsed().as_secs();
                (Some(format!("reached {ago} s ago, no answer since")), doubted.elapsed())
            }
            (fault, _) => (fault.clone(), self.since.elapsed()),
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Noted>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `build`: the build of a peer without a fault. Returns whether the fault, or its absence, is new.
    fn note(&self, peer: PeerId, fault: Option<String>, refused: bool, build: Option<Build>) -> bool {
        let (mut peers, now) = (self.lock(), Instant::now());
        match peers.get_mut(&peer).filter(|before| before.fault == fault) {
            Some(before) => {
                (before.found, before.doubted, before.build) = (now, None, build);
                false
            }
            None => {
                let (differs, doubted) = (None, None);
                peers.insert(peer, Noted { fault, refused, since: now, found: now, doubted, build, differs });
                true
            }
        }
    }

    /// Notes the settings of a peer without a fault that differ. Returns whether they are new.
    fn note_differences(&self, peer: PeerId, differs: &Option<String>) -> bool {
        let mut peers = self.lock();
        let Some(noted) = peers.get_mut(&peer).filter(|noted| noted.differs != *differs) else {
            return false;
        };
        noted.differs.clone_from(differs);
        true
    }

    /// Marks the peer as possibly gone.
    fn doubt(&self, peer: PeerId) {
        if let Some(noted) = self.lock().get_mut(&peer) {
            noted.doubted.get_or_insert_with(Instant::now);
        }
    }

    fn is_reached(&self, peer: PeerId) -> bool {
        self.lock().get(&peer).is_some_and(|noted| noted.fault.is_none() && noted.doubted.is_none())
    }
}

/// The knowledge of a server about the others, and its own identity. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acquaintances {
    pub(crate) me: PeerId,
    pub(crate) own: Arc<watch::Sender<Own>>,
    pub(crate) board: Arc<Board>,
    pub(crate) addresses: Arc<BTreeMap<PeerId, String>>,
    pub(crate) dialer: Dialer,
    /// Time limit to open both streams between a learner and its leader. That takes some six round
    /// trips and a write to each disk, so it follows the setting for the distance between members.
    pub(crate) open_limit: Duration,
    pub(crate) links: Links,
    /// Never used in a task: it is locked while the file is written.
    pub(crate) met: Met,
    /// See [`Config::incarnation_every`](crate::Config::incarnation_every).
    pub(crate) every: Duration,
    /// For each other server: notified when it has to be met again at once.
    pub(crate) again: Arc<BTreeMap<PeerId, Notify>>,
}

impl Acquaintances {
    /// Meets all others again at once.
    pub(crate) fn meet_again(&self) {
        self.again.values().for_each(Notify::notify_one);
    }

    /// This node has lost its leader or its quorum: peers count as unreachable until they answer.
    pub(crate) fn lost_quorum(&self) {
        self.again.keys().for_each(|&peer| self.lost(peer));
    }

    /// A link with `peer` broke or failed to open: the peer counts as unreachable until it answers.
    pub(crate) fn lost(&self, peer: PeerId) {
        self.board.doubt(peer);
        if let Some(again) = self.again.get(&peer) {
            again.notify_one();
        }
    }

    /// Handles a call from `peer`. If the peer counts as unreachable, this node dials it at once.
    /// Otherwise it does not, so that two servers do not wake each other for ever.
    pub(crate) fn heard(&self, peer: PeerId) {
        if !self.board.is_reached(peer)
            && let Some(again) = self.again.get(&peer)
        {
            again.notify_one();
        }
    }

    /// All other servers, as this one sees them.
    pub(crate) fn peers(&self) -> Vec<PeerReport> {
        let known = self.board.lock();
        let others = self.addresses.iter().filter(|(id, _)| **id != self.me);
        let peer = |(&id, address): (&PeerId, &String)| {
            let ((fault, since), refused, build, differs) = match known.get(&id) {
                Some(noted) => (noted.fault(), noted.refused, noted.build.clone(), noted.differs.clone()),
                None => ((Some("not tried yet".to_owned()), Duration::ZERO), false, None, None),
            };
            PeerReport { id, address: address.clone(), fault, refused, since, build, differs }
        };
        others.map(peer).collect()
    }

    /// The first message to `peer`. `said` is what the peer has sent so far, or the default.
    pub(crate) async fn hello(&self, peer: PeerId, said: Acquaintance) -> wire::Hello {
        let met = self.met.clone();
        let said = blocking(move || met.acquaintance(peer, said)).await;
        let own = self.own.borrow();
        Hello::to_quorum(&own.greeting, said, own.said.damage)
    }

    /// Validates the first message of another server before any of its content is used. `dialled`: the
    /// peer that this server dialled, if any.
    ///
    /// # Errors
    /// The reason to refuse the connection; logged once.
    pub(crate) fn check(&self, hello: wire::Hello, dialled: Option<PeerId>) -> Result<Greeting, String> {
        let peer = PeerId(hello.id);
        let checked = Hello::check(hello, &self.own.borrow().greeting, dialled);
        checked.map_err(|e| {
            self.refused(dialled.unwrap_or(peer), &e.0);
            e.0
        })
    }

    /// Records that this server and `peer` must not talk to each other until an operator changes
    /// something.
    pub(crate) fn refused(&self, peer: PeerId, why: &str) {
        if self.links.is_member(peer)
            && peer != self.me
            && self.board.note(peer, Some(why.to_owned()), true, None)
        {
            tracing::error!(%peer, why, "refused a server");
        }
    }

    /// Processes the validated first message of `peer`. If it shows that this server runs on an older
    /// copy of its data directory, the driver receives this before any other message of the connection.
    ///
    /// # Errors
    /// A failure of the disk, which ends the node.
    pub(crate) async fn greeted(&self, peer: PeerId, hello: &wire::Hello) -> Result<Acquaintance, String> {
        let said = Hello::acquaintance(hello);
        let met = self.met.clone();
        match blocking(move || met.take_in(peer, said)).await {
            Ok(Some(met)) => drop(self.links.send(Event::RolledBack { by: peer, met }).await),
            Ok(None) => {}
            Err(error) => {
                self.links.fail(error.to_string());
                return Err(error.to_string());
            }
        }
        Ok(said)
    }

    /// Meets the others while the service runs. The returned channel closes when each peer has been
    /// tried once.
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
            let met = self.met.clone();
            if let Err(error) = blocking(move || met.grow()).await {
                return self.links.fail(error.to_string());
            }
            self.meet_again();
        }
    }

    /// Logs why this node does not serve, while it does not.
    async fn complain(self) {
        let mut own = self.own.subscribe();
        loop {
            if own.wait_for(|own| !own.said.serving).await.is_err() {
                return;
            }
            let mut pause = SILENT[0];
            while tokio::time::timeout(pause, own.wait_for(|own| own.said.serving)).await.is_err() {
                pause = SILENT[1];
                let mut faults = String::new();
                for peer in self.peers() {
                    let PeerReport { id, address, fault, since, .. } = peer;
                    let fault = fault.unwrap_or_else(|| "reached".to_owned());
                    // Writing to a string does not fail.
                    let _ = write!(faults, "{id} at {address}: {fault} ({} s); ", since.as_secs());
                }
                let peers = faults.trim_end_matches("; ");
                let why = unserved(self.me, own.borrow().said.leader);
                tracing::warn!(peers, "{why}");
            }
        }
    }

    async fn keep_meeting(self, peer: PeerId, address: String, tried: mpsc::Sender<()>) {
        let Some(again) = self.again.get(&peer) else { return };
        let mut tried = Some(tried);
        let [least, most] = RETRY;
        let mut pause = least;
        loop {
            let suspicion = self.own.borrow().said.suspicion;
            let met = tokio::time::timeout(2 * CONNECT_LIMIT, self.meet(peer, &address)).await;
            drop(tried.take());
            match met.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(()) => {
                    pause = least;
                    let [while_serving, otherwise] = AGAIN;
                    let limit = if self.own.borrow().said.serving { while_serving } else { otherwise };
                    // A timeout and a notification are both a reason to meet it again.
                    let _ = tokio::time::timeout(limit, again.notified()).await;
                }
                Err(why) => {
                    self.links.send(Event::Heard { peer, damage: None, suspicion }).await;
                    if self.board.note(peer, Some(why.clone()), false, None) {
                        tracing::debug!(%peer, address, why, "cannot meet");
                    }
                    // Notifications do not lead to more attempts than this.
                    tokio::time::sleep(least).await;
                    pause = match tokio::time::timeout(pause - least, again.notified()).await {
                        Ok(()) => least,
                        Err(_) => (2 * pause).min(most),
                    };
                }
            }
        }
    }

    async fn meet(&self, peer: PeerId, address: &str) -> Result<(), String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| e.to_string())?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_LIMIT);
        let channel = self.dialer.connect(&endpoint, peer).await.map_err(|e| chain(&e))?;
        self.meet_over(peer, channel).await
    }

    /// On success, the other server has recorded the present incarnation of this one durably.
    ///
    /// # Errors
    /// As [`Acquaintances::greeted`], or the failure of the connection.
    pub(crate) async fn meet_over(&self, peer: PeerId, channel: Channel) -> Result<(), String> {
        let mut client = QuorumClient::new(channel);
        let mut said = Acquaintance::default();
        let (mut build, mut differs) = (None, None);
        // The second round confirms the incarnation that the other server has sent.
        for _ in 0..2 {
            let suspicion = self.own.borrow().said.suspicion;
            let hello = self.hello(peer, said).await;
            let theirs = client.meet(hello).await.map_err(|status| {
                if status.code() == tonic::Code::FailedPrecondition {
                    self.refused(peer, status.message());
                }
                status.message().to_owned()
            })?;
            let theirs = theirs.into_inner();
            let told = theirs.clone();
            let greeting = self.check(theirs, Some(peer))?;
            let damage = Hello::damage(&told);
            self.links.send(Event::Heard { peer, damage: Some(damage), suspicion }).await;
            build = Some(greeting.build.clone());
            differs = self.own.borrow().greeting.differences(&greeting);
            said = self.greeted(peer, &told).await?;
        }
        self.board.note(peer, None, false, build);
        if self.board.note_differences(peer, &differs)
            && let Some(settings) = differs
        {
            tracing::warn!(
                %peer, settings,
                "another member has other settings; give all members the same, and restart those that change"
            );
        }
        Ok(())
    }
}

/// Why a node does not serve, by its leader.
fn unserved(me: PeerId, leader: Option<PeerId>) -> String {
    match leader {
        None => "no quorum: this node has no leader".to_owned(),
        Some(leader) if leader == me => {
            "no quorum: this node is elected, but too few are synchronised with it so far".to_owned()
        }
        Some(leader) => format!("this node follows {leader}, but is not synchronised with it yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(2);

    fn fault(board: &Board) -> Option<String> {
        board.lock()[&PEER].fault().0
    }

    #[test]
    fn b25_a_peer_in_doubt_is_not_reached_until_it_answers() {
        let board = Board::default();
        assert!(!board.is_reached(PEER), "nobody has tried");
        board.note(PEER, None, false, None);
        assert!(board.is_reached(PEER));
        board.doubt(PEER);
        assert!(!board.is_reached(PEER));
        assert_eq!(fault(&board).as_deref(), Some("reached 0 s ago, no answer since"));
        assert!(!board.note(PEER, None, false, None), "it answers: that is no news");
        assert_eq!(fault(&board), None);
        board.note(PEER, Some("no answer".to_owned()), false, None);
        board.doubt(PEER);
        assert_eq!(fault(&board).as_deref(), Some("no answer"), "what is known is not replaced by a doubt");
        board.note(PEER, None, false, None);
        assert!(board.is_reached(PEER));
    }

    #[test]
    fn b25_a_node_that_follows_does_not_say_that_it_has_no_leader() {
        assert!(unserved(PeerId(1), None).contains("no leader"));
        assert!(unserved(PeerId(1), Some(PeerId(1))).contains("this node is elected"));
        assert!(unserved(PeerId(1), Some(PEER)).contains("follows 2"));
    }
}
