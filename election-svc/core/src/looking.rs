//! The behaviour of a server without a leader.

use std::collections::BTreeSet;
use std::time::Duration;

use api::ports::{Candidate, Role};
use api::{PeerId, Time, Zxid};

use crate::election::State;
use crate::{Election, Notification, Round, Vote};

/// A search for a leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Looking {
    /// The vote for this server itself; `None` if it cannot or does not want to lead.
    own: Option<Vote>,
    /// The best vote of this round, which is this server's own vote as well. Observers have none, unless they
    /// [know less](Election::knows_less) than others.
    pub(crate) proposal: Option<Vote>,
    /// Deadline to decide for the proposal. Set while a quorum holds it.
    decide_at: Option<Time>,
    /// When to repeat the proposal, and the pause after that.
    resend_at: Time,
    resend_pause: Duration,
}

impl Looking {
    /// Whether this server can be elected.
    pub(crate) fn stands(&self) -> bool {
        self.own.is_some()
    }

    pub(crate) fn next_timeout(&self) -> Time {
        self.decide_at.map_or(self.resend_at, |t| t.min(self.resend_at))
    }
}

impl Election {
    pub(crate) fn on_elect(&mut self, now: Time, candidate: Option<Candidate>) {
        let me = self.config.me;
        // Other servers' notifications about a leader are older than this server's loss of its leader,
        // so they must repeat them. Otherwise this server would join a dead leader that others still
        // follow (liveness). Their proposals stay valid until they change them.
        for heard in self.links.values_mut() {
            heard.take_if(|n| n.state != Role::Looking);
        }
        self.state = State::Looking(Looking {
            own: candidate.map(|candidate| Vote { candidate, leader: me }),
            proposal: None,
            decide_at: None,
            resend_at: now,
            resend_pause: self.config.resend_min,
        });
        let latest = self.heard().map(|(_, n)| n.round).max().unwrap_or_default();
        let round = self.round.next();
        self.begin_round(now, if self.takes_part() { round.max(latest) } else { round });
    }

    /// Handles a sound notification of a voter; the links contain it already.
    pub(crate) fn on_heard(&mut self, now: Time, from: PeerId, notification: Notification) {
        if notification.state == Role::Looking && self.takes_part() {
            if notification.round > self.round {
                return self.begin_round(now, notification.round);
            }
            if self.votes_for_needless_stranger() {
                return self.renew(now);
            }
            if notification.round < self.round {
                self.tell(from);
            } else if self.adopt_best() {
                self.tell_all();
            }
        }
        self.evaluate(now);
    }

    /// Handles the loss of the link to `peer`, and of its notification.
    pub(crate) fn on_lost(&mut self, now: Time, peer: PeerId) {
        match &self.state {
            // The best candidate is unreachable, perhaps dead: choose among the others. ZooKeeper
            // elects the dead candidate and tries again after a time-out.
            State::Looking(looking) if looking.proposal.is_some_and(|vote| vote.leader == peer) => {
                self.begin_round(now, self.round.next());
            }
            State::Looking(_) => self.evaluate(now),
            State::Idle | State::Established { .. } => {}
        }
    }

    pub(crate) fn on_timeout(&mut self, now: Time) {
        let State::Looking(looking) = &mut self.state else { return };
        if let Some(vote) = looking.proposal
            && looking.decide_at.is_some_and(|t| t <= now)
        {
            self.establish(vote, self.round);
        } else if looking.resend_at <= now {
            looking.resend_at = now + looking.resend_pause;
            looking.resend_pause = (looking.resend_pause * 2).min(self.config.resend_max);
            self.tell_all();
        }
    }

    /// Begins a new count, in `round`.
    fn begin_round(&mut self, now: Time, round: Round) {
        let State::Looking(looking) = &mut self.state else { return };
        self.round = round;
        looking.proposal = looking.own;
        looking.decide_at = None;
        looking.resend_at = now + self.config.resend_min;
        looking.resend_pause = (self.config.resend_min * 2).min(self.config.resend_max);
        self.adopt_best();
        self.tell_all();
        self.evaluate(now);
    }

    /// Adopts the best received vote of this round if it is better than this server's proposal. Returns
    /// whether it was.
    fn adopt_best(&mut self) -> bool {
        let (among_us, may_vote) = (self.can_elect(), self.may_vote());
        let State::Looking(looking) = &mut self.state else { return false };
        let of_this_round = |n: &&Notification| n.state == Role::Looking && n.round == self.round;
        let votes = self.links.values().flatten().filter(of_this_round).filter_map(|n| n.vote);
        // A candidate that is no member here may stand by a change that never comes to pass. It gets this vote only where the
        // members that this server knows cannot elect one of their own.
        let best = votes.filter(|vote| !among_us || self.roster.can_lead(vote.leader)).max();
        if !may_vote || best <= looking.proposal {
            return false;
        }
        looking.proposal = best;
        looking.decide_at = None;
        true
    }

    /// Decides for a leader if one can be joined or elected.
    pub(crate) fn evaluate(&mut self, now: Time) {
        let State::Looking(looking) = &self.state else { return };
        if let Some(reign) = self.reign_to_join() {
            return self.establish(reign.vote, reign.round);
        }
        let Some(proposal) = looking.proposal else { return };
        let for_me = proposal.leader == self.config.me;
        let supporters = self.supporters(proposal);
        let wait = if !self.roster.is_quorum(&supporters) {
            None
        } else if !for_me {
            // The candidate itself decides after half of this time, and announces it. ZooKeeper
            // proceeds without the announcement, and may follow a candidate that has found a better one
            // or died. This server must proceed in the end, too: only the attempt reveals that a
            // recommended candidate is dead.
            Some(self.config.finalize_wait * 2)
        } else if self.roster.voters().all(|voter| supporters.contains(&voter)) {
            // No other server can send a better vote.
            return self.establish(proposal, self.round);
        } else {
            Some(self.config.finalize_wait)
        };
        let decide_at = wait.map(|wait| looking.decide_at.unwrap_or(now + wait));
        if let State::Looking(looking) = &mut self.state {
            looking.decide_at = decide_at;
        }
    }

    /// The voters that hold `proposal` in this round, and this server. They are looking voters; if the
    /// proposal is this server, also voters that counted faster and already follow it. Followers of
    /// another leader do not count: that leader must announce its leadership itself.
    fn supporters(&self, proposal: Vote) -> BTreeSet<PeerId> {
        let for_me = proposal.leader == self.config.me;
        self.heard()
            .filter(|(_, n)| n.round == self.round && n.vote == Some(proposal))
            .filter(|(_, n)| n.state == Role::Looking || for_me)
            .map(|(peer, _)| peer)
            .chain([self.config.me])
            .collect()
    }

    /// The reign of a leader that this server can join. The leader itself must announce that it leads,
    /// over an intact link (ZooKeeper's `checkLeader`), and one of these conditions must hold:
    /// - A quorum of servers reports that it follows or leads that reign: they name its leader, and its
    ///   epoch or the round of its election. A settled server names the epoch. A server that still
    ///   synchronises knows only the round, and counts too. Otherwise a leader with a slow
    ///   synchronisation would keep out the servers that it lacks.
    /// - The leader knows of a later change of the members, so the ones that this server knows say nothing of its quorum.
    /// - The leader was elected in the round in which this voter looks, so it has just counted a
    ///   quorum. ZooKeeper requires a quorum of answers here too, so votes of undecided servers can
    ///   elect another leader in the same round. A server tries this once: if the leader is unusable,
    ///   the next round is a later one.
    fn reign_to_join(&self) -> Option<Reign> {
        let mut reigns =
            self.heard().filter(|(_, n)| n.state == Role::Leading).filter_map(|(_, n)| Reign::of(n));
        reigns.find(|reign| {
            if reign.members > self.roster.since() {
                return true;
            }
            let same_round = self.votes() && reign.round == self.round;
            same_round || {
                let subjects =
                    self.heard().filter(|(_, n)| Reign::of(n).is_some_and(|other| other.is_same(reign)));
                self.roster.is_quorum(&subjects.map(|(peer, _)| peer).collect())
            }
        })
    }

    /// Whether the looking servers and this one can elect one of the members that count here. Servers that know of a later
    /// change do not count: they need a winner by that change.
    fn can_elect(&self) -> bool {
        let votes_like_us = |n: &Notification| n.state == Role::Looking && n.members <= self.roster.since();
        let others = self.heard().filter(|(_, n)| votes_like_us(n)).map(|(peer, _)| peer);
        self.roster.is_quorum(&others.chain([self.config.me]).collect())
    }

    /// Whether this voter's proposal is a server that it does not know, from the time before it heard enough of the members
    /// that can do without that one. Votes only get better within a round, so it takes another round to leave it.
    fn votes_for_needless_stranger(&self) -> bool {
        let State::Looking(looking) = &self.state else { return false };
        let stranger = |vote: Vote| vote.leader != self.config.me && !self.roster.can_lead(vote.leader);
        self.votes() && looking.proposal.is_some_and(stranger) && self.can_elect()
    }

    /// Begins again: the server that this one votes for cannot lead any more.
    pub(crate) fn renew(&mut self, now: Time) {
        self.begin_round(now, self.round.next());
    }

    /// Whether a looking server knows of a later change of the members. That may have given this server a vote without which
    /// no other server can win, so this one votes, and the candidate counts by its own list.
    fn knows_less(&self) -> bool {
        self.heard().any(|(_, n)| n.state == Role::Looking && n.members > self.roster.since())
    }

    /// Whether this server is a voter, for all that it knows.
    pub(crate) fn may_vote(&self) -> bool {
        self.votes() || self.knows_less()
    }

    /// Whether this server may vote, or stands without a vote.
    fn takes_part(&self) -> bool {
        self.may_vote() || matches!(&self.state, State::Looking(looking) if looking.stands())
    }

    /// The last notification of each linked voter.
    fn heard(&self) -> impl Iterator<Item = (PeerId, &Notification)> {
        self.links.iter().filter_map(|(&peer, heard)| heard.as_ref().map(|n| (peer, n)))
    }
}

/// A settled server's report about its leader.
struct Reign {
    vote: Vote,
    round: Round,
    /// As in [`Notification`].
    members: Zxid,
}

impl Reign {
    fn is_same(&self, other: &Reign) -> bool {
        self.vote.same_reign(&other.vote)
            || (self.vote.leader, self.round) == (other.vote.leader, other.round)
    }

    fn of(notification: &Notification) -> Option<Reign> {
        match notification.state {
            Role::Following | Role::Leading => {
                let Notification { vote, round, members, .. } = *notification;
                Some(Reign { vote: vote?, round, members })
            }
            Role::Looking | Role::Observing => None,
        }
    }
}
