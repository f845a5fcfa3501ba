//! Servers and their messages, which a test delivers in its own order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use api::ports::{Candidate, Role};
use api::{Ensemble, Epoch, Member, Membership, PeerId, Time, Zxid};
use election_core::{Config, Election, Input, Notification, Output, Round, Vote};

pub(crate) fn at(epoch: u32, zxid: u64) -> Candidate {
    Candidate { epoch: Epoch(epoch), zxid: Zxid(zxid) }
}

pub(crate) fn vote(leader: u32, epoch: u32, zxid: u64) -> Vote {
    Vote { candidate: at(epoch, zxid), leader: PeerId(leader) }
}

pub(crate) fn looking(vote: Vote, round: u64) -> Notification {
    Notification { state: Role::Looking, vote: Some(vote), round: Round(round), members: Zxid::ZERO }
}

pub(crate) fn voter(id: u32, weight: u32) -> Member {
    Member { id: PeerId(id), membership: Membership::Voter { weight, group: 0 } }
}

pub(crate) fn observer(id: u32) -> Member {
    Member { id: PeerId(id), membership: Membership::Observer }
}

/// Servers, and wires on which messages wait until the script delivers them.
pub(crate) struct Net {
    ensemble: Ensemble,
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u32, Election>,
    pub(crate) wires: BTreeMap<(u32, u32), VecDeque<Notification>>,
    /// Each outcome as (server, leader), in order.
    pub(crate) elected: Vec<(u32, u32)>,
}

impl Net {
    pub(crate) fn new(members: impl IntoIterator<Item = Member>) -> Net {
        Net {
            ensemble: Ensemble::new(members).unwrap(),
            now: Time(0),
            nodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            elected: vec![],
        }
    }

    pub(crate) fn of_voters(n: u32) -> Net {
        Net::new((1..=n).map(|id| voter(id, 1)))
    }

    /// Starts a server, links it with all others that are up, and starts its election.
    pub(crate) fn start(&mut self, id: u32, candidate: Candidate) {
        self.start_idle(id);
        self.elect(id, candidate);
    }

    /// Starts a server and links it with all others that are up.
    pub(crate) fn start_idle(&mut self, id: u32) {
        let others: Vec<u32> = self.nodes.keys().copied().collect();
        self.nodes.insert(id, Election::new(Config::new(PeerId(id), self.ensemble.clone())));
        for other in others {
            self.link(id, other);
        }
    }

    pub(crate) fn stop(&mut self, id: u32) {
        self.nodes.remove(&id);
        let others: Vec<u32> = self.nodes.keys().copied().collect();
        for other in others {
            self.unlink(id, other);
        }
    }

    pub(crate) fn link(&mut self, a: u32, b: u32) {
        self.input(a, Input::Connected(PeerId(b)));
        self.input(b, Input::Connected(PeerId(a)));
    }

    pub(crate) fn unlink(&mut self, a: u32, b: u32) {
        self.wires.remove(&(a, b));
        self.wires.remove(&(b, a));
        for (me, peer) in [(a, b), (b, a)] {
            if self.nodes.contains_key(&me) {
                self.input(me, Input::Disconnected(PeerId(peer)));
            }
        }
    }

    pub(crate) fn elect(&mut self, id: u32, candidate: Candidate) {
        // Its quorum service knows whether it has a vote.
        let votes = self.ensemble.membership(PeerId(id)).is_none() || self.ensemble.weight(PeerId(id)) > 0;
        self.input(id, Input::Elect(votes.then_some(candidate)));
    }

    pub(crate) fn settled(&mut self, id: u32, leader: u32, epoch: u32) {
        self.input(id, Input::Settled { leader: PeerId(leader), epoch: Epoch(epoch) });
    }

    /// Passes an input to one server, and puts its outputs on the wires. No input may go to a server that is
    /// down.
    pub(crate) fn input(&mut self, id: u32, input: Input) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.handle(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).collect();
        for output in outputs {
            match output {
                Output::Send { to, notification } => {
                    assert!(self.nodes.contains_key(&to.0), "{id} speaks to {to}, which is down");
                    self.wires.entry((id, to.0)).or_default().push_back(notification);
                }
                Output::Elected { leader, .. } => self.elected.push((id, leader.0)),
            }
        }
    }

    /// Puts a message on a wire that its sender did not send.
    pub(crate) fn say(&mut self, from: u32, to: u32, notification: Notification) {
        self.wires.entry((from, to)).or_default().push_back(notification);
    }

    /// The waiting messages, oldest first.
    pub(crate) fn wire(&self, from: u32, to: u32) -> Vec<Notification> {
        self.wires.get(&(from, to)).into_iter().flatten().copied().collect()
    }

    pub(crate) fn discard_wires(&mut self) {
        self.wires.clear();
    }

    /// Delivers the oldest message of one wire.
    pub(crate) fn deliver(&mut self, from: u32, to: u32) -> Notification {
        let notification =
            self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("a message waits");
        self.input(to, Input::Received { from: PeerId(from), notification });
        notification
    }

    /// Lets `ms` pass on one server without deliveries.
    pub(crate) fn tick(&mut self, id: u32, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        if self.nodes[&id].next_timeout().is_some_and(|t| t <= self.now) {
            self.input(id, Input::Timeout);
        }
    }

    /// Delivers all messages in the order of the wires, then lets a millisecond pass, and repeats this
    /// for `ms`.
    pub(crate) fn run_ms(&mut self, ms: u64) {
        for elapsed in 0..=ms {
            loop {
                let full = self.wires.iter().find(|(_, wire)| !wire.is_empty()).map(|(&ends, _)| ends);
                let Some((from, to)) = full else { break };
                self.deliver(from, to);
            }
            if elapsed < ms {
                self.now = self.now + Duration::from_millis(1);
            }
            let due: Vec<u32> = self
                .nodes
                .iter()
                .filter(|(_, n)| n.next_timeout().is_some_and(|t| t <= self.now))
                .map(|(&id, _)| id)
                .collect();
            for id in due {
                self.input(id, Input::Timeout);
            }
        }
    }

    /// The role and vote of each server that is up.
    pub(crate) fn states(&self) -> Vec<(u32, Role, Option<u32>)> {
        let state = |(&id, node): (&u32, &Election)| {
            let n = node.notification().unwrap();
            (id, n.state, n.vote.map(|v| v.leader.0))
        };
        self.nodes.iter().map(state).collect()
    }

    /// The servers with a leader, and their leaders.
    pub(crate) fn leaders(&self) -> Vec<(u32, u32)> {
        let settled = self.states().into_iter().filter(|(_, role, _)| *role != Role::Looking);
        settled.map(|(id, _, leader)| (id, leader.unwrap())).collect()
    }

    pub(crate) fn round(&self, id: u32) -> u64 {
        self.nodes[&id].notification().unwrap().round.0
    }
}
