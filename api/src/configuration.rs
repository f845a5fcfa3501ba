//! The members of an ensemble as the log holds them: one [`Configuration`], or two while a change is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::mutants::{Mutant, is_on};
use crate::{Ensemble, Member, Membership, PeerId, Zxid};

mod codec;
mod history;
mod refusal;

pub use codec::{BadRoster, ROSTER_IDS_MAX};
pub use history::RosterHistory;
pub use refusal::ReconfigRefusal;

/// Where other servers and clients reach a member.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Contact {
    /// Name or IP address, resolved again at each dial. At most 255 bytes.
    pub host: String,
    /// Port of its client API.
    pub client_port: u16,
    /// Port of its quorum service.
    pub quorum_port: u16,
    /// Port of its election service.
    pub election_port: u16,
}

/// The members of an ensemble from some entry of its log on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Configuration {
    /// Zxid of the entry that proposed it; `Zxid::ZERO` for the list of the first start.
    pub version: Zxid,
    /// Ids and votes.
    pub ensemble: Ensemble,
    /// Addresses. The list of the first start has none: each server has those in its settings.
    pub contacts: BTreeMap<PeerId, Contact>,
    /// Ids of former members. No other server gets such an id, because a former one may come back with it.
    pub removed: BTreeSet<PeerId>,
}

impl Configuration {
    /// The list of the first start.
    #[must_use]
    pub fn initial(ensemble: Ensemble) -> Configuration {
        let (contacts, removed) = (BTreeMap::new(), BTreeSet::new());
        Configuration { version: Zxid::ZERO, ensemble, contacts, removed }
    }

    /// The configuration that follows this one with these members. Ids that are left out count as removed, and members do not:
    /// `recover members` may bring a former one back.
    #[must_use]
    pub fn changed_to(&self, ensemble: Ensemble, mut contacts: BTreeMap<PeerId, Contact>) -> Configuration {
        contacts.retain(|&id, _| ensemble.membership(id).is_some());
        let gone = self.ensemble.members().map(|(id, _)| id).filter(|&id| ensemble.membership(id).is_none());
        let former = self.removed.iter().copied().filter(|&id| ensemble.membership(id).is_none());
        let removed = former.chain(gone).collect();
        Configuration { version: self.version, ensemble, contacts, removed }
    }

    /// Whether members and addresses are the same, whatever the version.
    #[must_use]
    pub fn says_the_same(&self, other: &Configuration) -> bool {
        self.ensemble == other.ensemble && self.contacts == other.contacts
    }
}

/// The configuration that counts from one place of a log on. While a change is under way there are two, and a quorum
/// is one of each. Of all rosters in a server's log the last one counts, committed or not.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Roster {
    /// Zxid of the entry that says it; `Zxid::ZERO` for the list of the first start.
    since: Zxid,
    /// The configuration, or the old one of a change.
    current: Configuration,
    /// The new one of a change.
    next: Option<Configuration>,
}

impl Roster {
    /// Of a log that says nothing of members.
    #[must_use]
    pub fn initial(ensemble: Ensemble) -> Roster {
        Roster { since: Zxid::ZERO, current: Configuration::initial(ensemble), next: None }
    }

    /// The entry at `since` that begins the change to `next`: from here on a quorum is one of both.
    #[must_use]
    pub fn joint(since: Zxid, current: Configuration, next: Configuration) -> Roster {
        Roster { since, current, next: Some(Configuration { version: since, ..next }) }
    }

    /// The entry at `since` from which on only `current` counts.
    #[must_use]
    pub fn settled(since: Zxid, current: Configuration) -> Roster {
        Roster { since, current, next: None }
    }

    /// Zxid of the entry that says it; `Zxid::ZERO` for the list of the first start.
    #[must_use]
    pub fn since(&self) -> Zxid {
        self.since
    }

    /// Whether a change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.next.is_some()
    }

    /// The configuration, or the old one of a change.
    #[must_use]
    pub fn current(&self) -> &Configuration {
        &self.current
    }

    /// The newest configuration: during a change the new one.
    #[must_use]
    pub fn newest(&self) -> &Configuration {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// All configurations that count: one, or two during a change.
    pub fn configurations(&self) -> impl Iterator<Item = &Configuration> {
        [Some(&self.current), self.next.as_ref()].into_iter().flatten()
    }

    /// Whether these servers are a quorum: of each configuration. Observers and strangers among them count nothing.
    #[must_use]
    pub fn is_quorum(&self, ids: &BTreeSet<PeerId>) -> bool {
        let next = self.next.as_ref().filter(|_| !is_on(Mutant::JointCountsOld));
        self.current.ensemble.is_quorum(ids) && next.is_none_or(|next| next.ensemble.is_quorum(ids))
    }

    /// The highest value that a quorum has reached; see [`Ensemble::quorum_value`].
    pub fn quorum_value<T: Copy + Ord>(&self, reached: impl IntoIterator<Item = (PeerId, T)>) -> Option<T> {
        match self.next.as_ref().filter(|_| !is_on(Mutant::JointCountsOld)) {
            None => self.current.ensemble.quorum_value(reached),
            Some(next) => {
                let reached: Vec<(PeerId, T)> = reached.into_iter().collect();
                let current = self.current.ensemble.quorum_value(reached.iter().copied())?;
                Some(current.min(next.ensemble.quorum_value(reached)?))
            }
        }
    }

    /// Whether no quorum is possible without one of these servers, be it for a leader that knows of the change, or for one
    /// that does not.
    #[must_use]
    pub fn leaves_no_quorum(&self, ids: &BTreeSet<PeerId>) -> bool {
        self.configurations().all(|configuration| {
            let ensemble = &configuration.ensemble;
            !ensemble.is_quorum(&ensemble.voters().filter(|voter| !ids.contains(voter)).collect())
        })
    }

    /// How `id` takes part, or `None` for a stranger. During a change a server is a member if it is in either list, and
    /// votes if it does in either.
    #[must_use]
    pub fn membership(&self, id: PeerId) -> Option<Membership> {
        let of = |configuration: &Configuration| configuration.ensemble.membership(id);
        match (self.next.as_ref().and_then(of), of(&self.current)) {
            (Some(Membership::Observer) | None, Some(current)) => Some(current),
            (next, _) => next,
        }
    }

    /// Whether `id` votes.
    #[must_use]
    pub fn is_voter(&self, id: PeerId) -> bool {
        matches!(self.membership(id), Some(Membership::Voter { .. }))
    }

    /// Whether `id` counts in quorums and may lead.
    #[must_use]
    pub fn can_lead(&self, id: PeerId) -> bool {
        self.configurations().any(|configuration| configuration.ensemble.weight(id) > 0)
    }

    /// All members in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = (PeerId, Membership)> + '_ {
        let ids: BTreeSet<PeerId> =
            self.configurations().flat_map(|c| c.ensemble.members().map(|(id, _)| id)).collect();
        ids.into_iter().filter_map(|id| Some((id, self.membership(id)?)))
    }

    /// All voters in order of their ids.
    pub fn voters(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members().filter(|(_, m)| matches!(m, Membership::Voter { .. })).map(|(id, _)| id)
    }

    /// The addresses of a member: the newest ones.
    #[must_use]
    pub fn contact(&self, id: PeerId) -> Option<&Contact> {
        let of = |configuration: &'_ Configuration| configuration.contacts.contains_key(&id);
        let configuration = self.next.as_ref().filter(|next| of(next)).unwrap_or(&self.current);
        configuration.contacts.get(&id)
    }

    /// Whether this may follow `before` in a log, at this zxid: a change begins with both lists and ends with the new one. One
    /// entry alone leaves the votes as they are, or is the first one of an ensemble that was founded anew.
    #[must_use]
    pub fn follows(&self, before: &Roster, at: Zxid) -> bool {
        let fits = match (&before.next, &self.next) {
            (None, Some(next)) => self.current == before.current && next.version == at,
            (Some(next), None) => self.current == *next || self.current.version == at,
            (None, None) => self.current.version == at,
            (Some(_), Some(_)) => is_on(Mutant::ChangesOverlap),
        };
        self.since == at && at > before.since && fits
    }
}

/// Whether two lists have the same quorums: then no server can commit by one what another one does not see by the other.
#[must_use]
pub fn votes_alike(one: &Ensemble, other: &Ensemble) -> bool {
    let voters = |ensemble: &Ensemble| -> Vec<Member> {
        let voting = |&(_, m): &(PeerId, Membership)| matches!(m, Membership::Voter { weight: 1.., .. });
        ensemble.members().filter(voting).map(|(id, membership)| Member { id, membership }).collect()
    };
    voters(one) == voters(other)
}

/// For people: the members, and during a change what they become.
impl fmt::Display for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.current.ensemble)?;
        match &self.next {
            Some(next) => write!(f, " -> {}", next.ensemble),
            None => Ok(()),
        }
    }
}

/// A request to change the members.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reconfig {
    /// The version of the present configuration, as the operator knows it.
    pub expected: Zxid,
    /// All members afterwards.
    pub ensemble: Ensemble,
    /// The addresses of all members afterwards.
    pub contacts: BTreeMap<PeerId, Contact>,
    /// Also if the members that are there could not go on alone: see [`ReconfigRefusal::WouldLoseQuorum`].
    pub force: bool,
}

#[cfg(test)]
mod tests;
