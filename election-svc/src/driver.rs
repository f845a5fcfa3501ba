use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::ports::PortClosed;
use api::{PeerId, Standing, Time};
use election_core::{Election, Input, Notification, Output};
use spans::{KeyValue, Scope, Span, lines};
use telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::dialer::Dialer;
use crate::handle::Command;
use crate::link::{LinkEvent, LinkNumber, Shared, Slot};

/// Owns the core: one loop that gives it everything that happens, and does all it wants.
#[derive(Debug)]
pub struct Driver {
    core: Election,
    shared: Arc<Shared>,
    dialers: Vec<Dialer>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<LinkEvent>,
    /// The newest link to each peer, and the peer's ensemble.
    links: BTreeMap<PeerId, (LinkNumber, Slot, Standing)>,
    /// The linked peers, for the status of this election.
    peers: watch::Sender<BTreeSet<PeerId>>,
    /// Peers that opened a stream while they had one; each is mentioned once.
    twins: BTreeSet<PeerId>,
    asked: Option<Asked>,
    /// The core's time 0.
    origin: Instant,
}

/// An [`api::ports::Election::elect`] without an answer yet.
#[derive(Debug)]
struct Asked {
    since: Instant,
    span: Option<Span>,
    elected: oneshot::Sender<Result<PeerId, PortClosed>>,
}

impl Driver {
    pub(crate) fn new(
        core: election_core::Config,
        shared: Arc<Shared>,
        dialers: Vec<Dialer>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Receiver<LinkEvent>,
    ) -> Driver {
        Driver {
            core: Election::new(core),
            shared,
            dialers,
            commands,
            events,
            links: BTreeMap::new(),
            peers: watch::Sender::default(),
            twins: BTreeSet::new(),
            asked: None,
            origin: Instant::now(),
        }
    }

    pub(crate) fn peers(&self) -> watch::Receiver<BTreeSet<PeerId>> {
        self.peers.subscribe()
    }

    /// Takes part in elections until the service stops and all its tasks have ended.
    pub async fn run(mut self) {
        for dialer in std::mem::take(&mut self.dialers) {
            self.shared.tasks.spawn(dialer.run());
        }
        let shared = self.shared.clone();
        loop {
            let timeout = self.core.next_timeout();
            tokio::select! {
                () = shared.shutdown.cancelled() => break,
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(event) = self.events.recv() => self.on_link(event),
                () = at(self.origin, timeout) => self.input(Input::Timeout),
            }
        }
        // Links notice that their receiver is gone, and callers that their answer will not come.
        drop(self);
        shared.tasks.close();
        shared.tasks.wait().await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Elect { candidate, elected } => {
                metrics::ELECTION_STARTED.add(1);
                let span = Span::root(Scope::Election, "election");
                let asked = Asked { since: Instant::now(), span, elected };
                if let Some(older) = self.asked.replace(asked) {
                    let _ = older.elected.send(Err(PortClosed("a newer election replaces this one".into())));
                }
                self.input(Input::Elect(candidate));
            }
            Command::Settled { leader, epoch } => self.input(Input::Settled { leader, epoch }),
            Command::Introduce(standing) => self.introduce(standing),
            Command::Withdraw => {
                self.asked = None;
                self.input(Input::Withdraw);
            }
        }
    }

    /// Removes the links, and so the votes, of peers that no longer belong to this ensemble.
    fn introduce(&mut self, standing: Standing) {
        self.shared.greeting.send_modify(|greeting| greeting.standing = standing);
        let fits = |theirs: &Standing| standing.fits(theirs);
        let strangers: Vec<PeerId> =
            self.links.iter().filter(|(_, (_, _, theirs))| !fits(theirs)).map(|(&peer, _)| peer).collect();
        for peer in strangers {
            // The link ends with its slot.
            self.links.remove(&peer);
            self.input(Input::Disconnected(peer));
        }
        self.publish_links();
    }

    fn on_link(&mut self, event: LinkEvent) {
        let is_newest = |peer, link| self.links.get(&peer).is_some_and(|(newest, ..)| *newest == link);
        match event {
            LinkEvent::Up { peer, link, slot, standing } => {
                let fits = self.shared.greeting.borrow().standing.fits(&standing);
                if !fits || self.links.get(&peer).is_some_and(|(newest, ..)| *newest > link) {
                    return;
                }
                if self.links.insert(peer, (link, slot, standing)).is_some() && self.twins.insert(peer) {
                    tracing::warn!(
                        %peer,
                        "peer opened a second election stream; the newer one counts. If this repeats, two servers have \
                         its id: give every server an id of its own"
                    );
                }
                self.publish_links();
                self.input(Input::Connected(peer));
            }
            LinkEvent::Heard { peer, link, notification, standing } if is_newest(peer, link) => {
                if let Some((_, _, theirs)) = self.links.get_mut(&peer) {
                    *theirs = standing;
                }
                self.input(Input::Received { from: peer, notification });
            }
            LinkEvent::Down { peer, link } if is_newest(peer, link) => {
                self.links.remove(&peer);
                self.publish_links();
                self.input(Input::Disconnected(peer));
            }
            // Of a link that a newer one has replaced.
            LinkEvent::Heard { .. } | LinkEvent::Down { .. } => {}
        }
    }

    fn publish_links(&self) {
        metrics::ELECTION_LINKS.set(self.links.len() as u64);
        self.peers.send_replace(self.links.keys().copied().collect());
    }

    /// Adds an event to the election's span when this server changes its vote or its round.
    fn note_vote(&mut self, before: Option<Notification>) {
        let Some(span) = self.asked.as_mut().and_then(|asked| asked.span.as_mut()) else { return };
        let Some(now) = self.core.notification().filter(|now| Some(*now) != before) else { return };
        let Some(vote) = now.vote else { return };
        span.event(
            "vote",
            [
                KeyValue::new("quorate.leader", i64::from(vote.leader.0)),
                KeyValue::new("quorate.zxid", vote.candidate.zxid.to_string()),
                KeyValue::new("quorate.epoch", i64::from(vote.candidate.epoch.0)),
                KeyValue::new("quorate.election.round", now.round.0 as i64),
            ],
        );
    }

    /// Gives the core one input and does what it wants.
    fn input(&mut self, input: Input) {
        let now = Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX));
        let before = self.core.notification();
        self.core.handle(now, input);
        self.note_vote(before);
        let _lines = lines(self.asked.as_ref().and_then(|asked| asked.span.as_ref())).entered();
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, notification } => {
                    if let Some((_, slot, _)) = self.links.get(&to) {
                        slot.send_replace(Some(notification));
                    }
                }
                Output::Elected { leader, round } => {
                    let Some(mut asked) = self.asked.take() else { continue };
                    if let Some(span) = &mut asked.span {
                        span.set("quorate.leader", i64::from(leader.0));
                        span.set("quorate.election.round", round.0 as i64);
                    }
                    metrics::ELECTION_DURATION.record(asked.since.elapsed());
                    tracing::info!(%leader, %round, took = ?asked.since.elapsed(), "leader elected");
                    // The caller may be gone.
                    let _ = asked.elected.send(Ok(leader));
                }
            }
        }
    }
}

/// Waits until the core's `time`; for ever without one.
async fn at(origin: Instant, time: Option<Time>) {
    match time {
        Some(Time(micros)) => sleep_until(origin + Duration::from_micros(micros)).await,
        None => std::future::pending().await,
    }
}
