use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::ports::{Candidate, Role};
use api::{Ensemble, Epoch, Membership, PeerId, Roster, Time, Zxid};

use crate::looking::Looking;
use crate::{Notification, Round, Vote};

/// Members and waiting times of an election.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This server. A server that is no voter takes part as an observer.
    pub me: PeerId,
    /// The members of the first start. They count until the quorum service names others.
    pub ensemble: Ensemble,
    /// Time that a candidate waits for a better vote once a quorum holds the vote for it. If it is longer
    /// than twice the time of a notification between any two servers, no round elects two leaders, and no
    /// follower waits for a server that does not lead.
    pub finalize_wait: Duration,
    /// First pause before a looking server repeats itself. Each further pause is twice as long.
    pub resend_min: Duration,
    /// Longest pause before a looking server repeats itself.
    pub resend_max: Duration,
}

impl Config {
    /// The usual waiting times: 200 ms for a better vote, repetition after 200 ms and at least every 2
    /// s. ZooKeeper repeats at least every 60 s, so an unlucky election can last that long.
    #[must_use]
    pub fn new(me: PeerId, ensemble: Ensemble) -> Config {
        Config {
            me,
            ensemble,
            finalize_wait: Duration::from_millis(200),
            resend_min: Duration::from_millis(200),
            resend_max: Duration::from_secs(2),
        }
    }
}

/// An input of an election.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// This server has no leader: start an election with this candidate. With `None` the server does
    /// not stand, and votes for the best other candidate. A server without a vote stands only if its quorum service knows that
    /// the others may need it: a change of the members that takes its vote is not committed. A server that already looks begins again.
    Elect(Option<Candidate>),
    /// The quorum service is gone and would neither lead nor follow, so no other server may count this
    /// one. The election withdraws its notification, and sends none before the next [`Input::Elect`] or
    /// [`Input::Settled`].
    Withdraw,
    /// These members count from now on: the last ones in the log of this server.
    Members(Arc<Roster>),
    /// A new link to this peer is up; an older one, if any, is gone.
    Connected(PeerId),
    /// The link to this peer is gone.
    Disconnected(PeerId),
    /// A notification arrived over the present link to `from`.
    Received {
        /// Its sender.
        from: PeerId,
        /// Its notification.
        notification: Notification,
    },
    /// This server serves in `epoch` under the elected leader (ZooKeeper's `updateElectionVote`). The
    /// election takes this as its outcome if `leader` is still the elected one, or if it knows no leader
    /// because it began after the election or because the quorum service was away. It ignores the input
    /// otherwise.
    Settled {
        /// The leader.
        leader: PeerId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The time of [`Election::next_timeout`] has come.
    Timeout,
}

/// An output of an election. The shell carries out outputs in their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Send this notification to a linked peer. It replaces any notification that still waits for this
    /// peer.
    Send {
        /// The receiver.
        to: PeerId,
        /// The notification to send.
        notification: Notification,
    },
    /// The answer to the last [`Input::Elect`].
    Elected {
        /// The leader to follow, or this server itself.
        leader: PeerId,
        /// The round that elected it.
        round: Round,
    },
}

/// The election as one server sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Election {
    pub(crate) config: Config,
    /// The members that count for this server.
    pub(crate) roster: Arc<Roster>,
    pub(crate) round: Round,
    pub(crate) state: State,
    /// The reachable peers, each with its last notification over its present link. A notification from before
    /// the link broke does not count: the peer may be dead.
    pub(crate) links: BTreeMap<PeerId, Option<Notification>>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum State {
    /// No election was requested yet, or the last request was withdrawn.
    Idle,
    Looking(Looking),
    /// This server has a leader, or leads. `role` is never `Looking`.
    Established {
        role: Role,
        vote: Vote,
    },
}

impl Election {
    /// An election before the first request. It sends nothing before the first [`Input::Elect`].
    #[must_use]
    pub fn new(config: Config) -> Election {
        Election {
            roster: Arc::new(Roster::initial(config.ensemble.clone())),
            config,
            round: Round(0),
            state: State::Idle,
            links: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Processes `input`. Poll the outputs afterwards.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Elect(candidate) => self.on_elect(now, candidate),
            Input::Withdraw => self.on_withdraw(),
            Input::Members(roster) => self.on_members(now, roster),
            Input::Connected(peer) => self.on_connected(now, peer),
            Input::Disconnected(peer) => self.on_disconnected(now, peer),
            Input::Received { from, notification } => self.on_received(now, from, notification),
            Input::Settled { leader, epoch } => self.on_settled(leader, epoch),
            Input::Timeout => self.on_timeout(now),
        }
    }

    /// The next output, or `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Latest time for the next [`Input::Timeout`]; `None` if there is none.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Looking(looking) => Some(looking.next_timeout()),
            State::Idle | State::Established { .. } => None,
        }
    }

    /// The present notification of this server: `None` before the first [`Input::Elect`], and after
    /// [`Input::Withdraw`].
    #[must_use]
    pub fn notification(&self) -> Option<Notification> {
        let (state, vote) = match &self.state {
            State::Idle => return None,
            State::Looking(looking) => (Role::Looking, looking.proposal),
            State::Established { role, vote } => (*role, Some(*vote)),
        };
        Some(Notification { state, vote, round: self.round, members: self.roster.since() })
    }

    fn on_withdraw(&mut self) {
        if !matches!(self.state, State::Idle) {
            self.state = State::Idle;
            let members = self.roster.since();
            let no_vote = Notification { state: Role::Looking, vote: None, round: self.round, members };
            let peers = self.links.keys();
            self.outputs.extend(peers.map(|&to| Output::Send { to, notification: no_vote }));
        }
    }

    /// Other members count. A looking server counts again: its candidate may have no vote any more.
    fn on_members(&mut self, now: Time, roster: Arc<Roster>) {
        if roster == self.roster {
            return;
        }
        self.roster = roster;
        match &self.state {
            State::Looking(looking) => {
                let lost = |id| id != self.config.me && !self.roster.can_lead(id);
                if looking.proposal.is_some_and(|vote| lost(vote.leader)) {
                    self.renew(now);
                } else {
                    self.tell_all();
                    self.evaluate(now);
                }
            }
            State::Established { vote, .. } => {
                let (vote, role) = (*vote, self.role_under(vote.leader));
                self.state = State::Established { role, vote };
                self.tell_all();
            }
            State::Idle => {}
        }
    }

    /// Links with servers that are no members stay: one of them may know of a later change.
    fn on_connected(&mut self, now: Time, peer: PeerId) {
        if peer == self.config.me {
            return;
        }
        self.links.insert(peer, None);
        self.tell(peer);
        self.evaluate(now);
    }

    fn on_disconnected(&mut self, now: Time, peer: PeerId) {
        self.links.remove(&peer);
        self.on_lost(now, peer);
    }

    fn on_received(&mut self, now: Time, from: PeerId, mut notification: Notification) {
        if !self.links.contains_key(&from) {
            return;
        }
        let asks = notification.state == Role::Looking;
        let knows_more = notification.members > self.roster.since();
        if !self.roster.is_voter(from) && !knows_more {
            // Observers and former members get answers but have no vote.
            if asks {
                self.tell(from);
            }
            return;
        }
        if asks && notification.vote.is_some_and(|vote| !self.may_lead(vote.leader, knows_more)) {
            // The sender looks, and its earlier vote counts no longer; this one counts nothing here.
            notification.vote = None;
        }
        if !self.is_sound(from, &notification) {
            return;
        }
        self.links.insert(from, Some(notification));
        match self.state {
            State::Idle => {}
            State::Looking(_) => self.on_heard(now, from, notification),
            State::Established { .. } if asks => self.tell(from),
            State::Established { .. } => {}
        }
    }

    /// Whether a voter may name `id`. A sender that knows of a later change of the members may name one of the new ones.
    fn may_lead(&self, id: PeerId, knows_more: bool) -> bool {
        knows_more || self.roster.can_lead(id) || self.is_offered(id)
    }

    /// Whether a voter may send this: a vote must name a server that [may lead](Self::may_lead), and only the leader itself
    /// leads.
    fn is_sound(&self, from: PeerId, notification: &Notification) -> bool {
        let knows_more = notification.members > self.roster.since();
        let can_lead = |id| self.may_lead(id, knows_more);
        match (notification.state, notification.vote) {
            (Role::Looking, None) => true,
            (Role::Looking, Some(vote)) => can_lead(vote.leader),
            (Role::Following, Some(vote)) => vote.leader != from && can_lead(vote.leader),
            (Role::Leading, Some(vote)) => vote.leader == from && can_lead(from),
            (Role::Following | Role::Leading, None) | (Role::Observing, _) => false,
        }
    }

    /// Whether `id` is this server, which stands or leads: perhaps without a vote.
    fn is_offered(&self, id: PeerId) -> bool {
        id == self.config.me
            && match &self.state {
                State::Idle => false,
                State::Looking(looking) => looking.stands(),
                State::Established { vote, .. } => vote.leader == id,
            }
    }

    fn on_settled(&mut self, leader: PeerId, epoch: Epoch) {
        match &mut self.state {
            State::Established { vote, .. } if vote.leader == leader && vote.candidate.epoch != epoch => {
                vote.candidate.epoch = epoch;
            }
            State::Established { .. } => return,
            State::Looking(looking) if looking.stands() => return,
            State::Idle | State::Looking(_) => {
                let vote = Vote { candidate: Candidate { epoch, zxid: Zxid::marker(epoch) }, leader };
                self.state = State::Established { role: self.role_under(leader), vote };
            }
        }
        self.tell_all();
    }

    /// Ends the election on this server. It notifies all others at once. ZooKeeper only answers
    /// requests, so there a looking server has to wait until it repeats itself.
    pub(crate) fn establish(&mut self, vote: Vote, round: Round) {
        let role = self.role_under(vote.leader);
        self.round = round;
        self.state = State::Established { role, vote };
        self.outputs.push_back(Output::Elected { leader: vote.leader, round });
        self.tell_all();
    }

    fn role_under(&self, leader: PeerId) -> Role {
        // A leader may have lost its vote by a change of the members that it has not finished.
        if leader == self.config.me {
            Role::Leading
        } else if !self.votes() {
            Role::Observing
        } else {
            Role::Following
        }
    }

    /// Whether this server is a voter.
    pub(crate) fn votes(&self) -> bool {
        self.roster.is_voter(self.config.me)
    }

    /// Sends the state of this server to `peer`. Observers send nothing to each other, unless one may have a vote by a change
    /// that it does not know.
    pub(crate) fn tell(&mut self, peer: PeerId) {
        if (self.may_vote() || self.roster.membership(peer) != Some(Membership::Observer))
            && let Some(notification) = self.notification()
        {
            self.outputs.push_back(Output::Send { to: peer, notification });
        }
    }

    /// Sends the state of this server to every linked peer.
    pub(crate) fn tell_all(&mut self) {
        let peers: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in peers {
            self.tell(peer);
        }
    }
}
