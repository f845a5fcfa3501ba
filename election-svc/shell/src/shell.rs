use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use api::{PeerId, Roster, Standing, Time};
use election_core::{Config, Election, Input, Notification, Output, Round};

/// A core with its links and effects. `L` sends over a link.
#[derive(Debug)]
pub struct Shell<L> {
    core: Election,
    standing: Standing,
    links: BTreeMap<PeerId, Linked<L>>,
    /// Peers that opened a link while they had one; each is logged once.
    twins: BTreeSet<PeerId>,
    /// A caller waits for an outcome.
    asked: bool,
    effects: VecDeque<Effect<L>>,
}

#[derive(Debug)]
struct Linked<L> {
    number: u64,
    link: L,
    standing: Standing,
}

/// An event of a link to `peer`. The greater of two numbers belongs to the newer link.
#[derive(Debug)]
pub enum LinkEvent<L> {
    /// The link is up: both ends have introduced themselves.
    Up {
        /// The other end.
        peer: PeerId,
        /// Number of the link.
        number: u64,
        /// Sender of the link.
        link: L,
        /// Standing of the peer.
        standing: Standing,
    },
    /// A notification arrived from a checked member of this ensemble.
    Heard {
        /// The other end.
        peer: PeerId,
        /// Number of the link.
        number: u64,
        /// The notification.
        notification: Notification,
        /// Standing of the peer, sent with the notification.
        standing: Standing,
    },
    /// The link has ended.
    Down {
        /// The other end.
        peer: PeerId,
        /// Number of the link.
        number: u64,
    },
}

/// An action. The driver carries out actions in their order.
#[derive(Debug)]
pub enum Effect<L> {
    /// The set of [linked peers](Shell::links) has changed.
    Links,
    /// End this link: a newer one replaces it, or its peer is in another ensemble.
    Close(PeerId, L),
    /// Send over the [link](Shell::link_mut) to this peer. The notification replaces an older one that
    /// still waits there.
    Send(PeerId, Notification),
    /// Answer the caller of [`Input::Elect`].
    Elected {
        /// The leader, possibly this server.
        leader: PeerId,
        /// The round of the winning vote.
        round: Round,
    },
}

impl<L> Shell<L> {
    /// Creates a shell around a new core.
    #[must_use]
    pub fn new(config: Config) -> Shell<L> {
        Shell {
            core: Election::new(config),
            standing: Standing::default(),
            links: BTreeMap::new(),
            twins: BTreeSet::new(),
            asked: false,
            effects: VecDeque::new(),
        }
    }

    /// The present notification of this server; see [`Election::notification`].
    #[must_use]
    pub fn notification(&self) -> Option<Notification> {
        self.core.notification()
    }

    /// Time of the next [`Input::Timeout`], unless another event comes before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.core.next_timeout()
    }

    /// Whether a caller waits for an outcome.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// The newest link to each peer.
    pub fn links(&self) -> impl Iterator<Item = (PeerId, &L)> {
        self.links.iter().map(|(&peer, linked)| (peer, &linked.link))
    }

    /// The newest link to a peer.
    pub fn link_mut(&mut self, peer: PeerId) -> Option<&mut L> {
        self.links.get_mut(&peer).map(|linked| &mut linked.link)
    }

    /// Processes a request of this node's quorum, or a time-out. For events of links, call
    /// [`Shell::on_link`].
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Elect(_) => self.asked = true,
            Input::Withdraw => self.asked = false,
            _ => {}
        }
        self.core.handle(now, input);
    }

    /// Changes the standing of this server and the members that count for it. Removes the links, and so
    /// the votes, of peers that no longer belong to its ensemble.
    pub fn introduce(&mut self, now: Time, standing: Standing, roster: Arc<Roster>) {
        self.core.handle(now, Input::Members(roster));
        self.standing = standing;
        let strangers: Vec<PeerId> =
            self.links.iter().filter(|(_, l)| !standing.fits(&l.standing)).map(|(&peer, _)| peer).collect();
        for peer in strangers {
            if let Some(linked) = self.links.remove(&peer) {
                self.effects.extend([Effect::Links, Effect::Close(peer, linked.link)]);
                self.core.handle(now, Input::Disconnected(peer));
            }
        }
    }

    /// Processes an event of a link. Events of a replaced link have no effect.
    pub fn on_link(&mut self, now: Time, event: LinkEvent<L>) {
        match event {
            LinkEvent::Up { peer, number, link, standing } => {
                self.up(now, peer, Linked { number, link, standing })
            }
            LinkEvent::Heard { peer, number, notification, standing } => {
                if let Some(linked) = self.links.get_mut(&peer).filter(|l| l.number == number) {
                    linked.standing = standing;
                    self.core.handle(now, Input::Received { from: peer, notification });
                }
            }
            LinkEvent::Down { peer, number } => {
                if self.links.get(&peer).is_some_and(|l| l.number == number) {
                    self.links.remove(&peer);
                    self.effects.push_back(Effect::Links);
                    self.core.handle(now, Input::Disconnected(peer));
                }
            }
        }
    }

    fn up(&mut self, now: Time, peer: PeerId, new: Linked<L>) {
        let newer_exists = self.links.get(&peer).is_some_and(|l| l.number > new.number);
        if newer_exists || !self.standing.fits(&new.standing) {
            self.effects.push_back(Effect::Close(peer, new.link));
            return;
        }
        self.effects.push_back(Effect::Links);
        if let Some(older) = self.links.insert(peer, new) {
            self.effects.push_back(Effect::Close(peer, older.link));
            if self.twins.insert(peer) {
                tracing::warn!(
                    %peer,
                    "peer opened a second election stream; the newer one counts. If this repeats, two servers have \
                     its id: give every server an id of its own"
                );
            }
        }
        self.core.handle(now, Input::Connected(peer));
    }

    /// The next action; `None` if there is none at present.
    pub fn poll_effect(&mut self) -> Option<Effect<L>> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, notification } if self.links.contains_key(&to) => {
                    return Some(Effect::Send(to, notification));
                }
                Output::Elected { leader, round } if std::mem::take(&mut self.asked) => {
                    return Some(Effect::Elected { leader, round });
                }
                // The link ended before its message, or the caller is gone.
                Output::Send { .. } | Output::Elected { .. } => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
