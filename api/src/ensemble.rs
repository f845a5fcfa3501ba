use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::PeerId;
use crate::mutants::{Mutant, is_on};

/// How a member takes part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Membership {
    /// Votes in elections and acknowledges proposals. `weight` counts towards the quorum; a voter of weight 0 follows
    /// but neither counts nor leads (ZooKeeper's `QuorumHierarchical` has the same rule).
    Voter {
        /// Share of the quorum of its group; 1 where nothing else is said.
        weight: u32,
        /// To which group of voters it belongs; 0 where nothing else is said.
        group: u32,
    },
    /// Learns every commit and serves reads, but never counts, in elections or acks (S7).
    Observer,
}

/// One server of the ensemble.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Its number.
    pub id: PeerId,
    /// How it takes part.
    pub membership: Membership,
}

/// Why a list of members is no ensemble.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnsembleError {
    /// Two members with one id.
    #[error("member id {0} appears twice: give every member an id of its own")]
    DuplicateId(PeerId),
    /// No member could ever lead.
    #[error("no voter with a weight above 0: at least one member must be able to lead")]
    NoVoter,
}

/// The members of the ensemble, and the definition of a quorum: in more than half of the groups, voters that hold more
/// than half of the group's weight (ZooKeeper's `QuorumHierarchical`). Groups without weight do not count. With one
/// group, as usual, that is more than half of all weight, and with equal weights `floor(n/2) + 1` of n voters (S7).
///
/// Two quorums always share a voter: their groups do, and within that group their voters do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ensemble {
    members: BTreeMap<PeerId, Membership>,
    /// The weight of each group that has any.
    groups: BTreeMap<u32, u64>,
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Membership::Observer => f.write_str("an observer"),
            Membership::Voter { weight: 1, group: 0 } => f.write_str("a voter"),
            Membership::Voter { weight, group: 0 } => write!(f, "a voter of weight {weight}"),
            Membership::Voter { weight, group } => write!(f, "a voter of weight {weight} in group {group}"),
        }
    }
}

impl Membership {
    /// A voter like any other: weight 1, in the one group.
    pub const VOTER: Membership = Membership::Voter { weight: 1, group: 0 };
}

impl Ensemble {
    /// Checks and builds.
    ///
    /// # Errors
    /// A duplicate id, or no member that could lead.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Ensemble, EnsembleError> {
        let mut map = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for m in members {
            if let Membership::Voter { weight: 1.., group } = m.membership {
                *groups.entry(group).or_insert(0) += u64::from(weight_of(m.membership));
            }
            if map.insert(m.id, m.membership).is_some() {
                return Err(EnsembleError::DuplicateId(m.id));
            }
        }
        if groups.is_empty() {
            return Err(EnsembleError::NoVoter);
        }
        Ok(Ensemble { members: map, groups })
    }

    /// An ensemble of voters of equal weight, for tests and for the usual case.
    ///
    /// # Errors
    /// As [`Ensemble::new`].
    pub fn of_voters(ids: impl IntoIterator<Item = u32>) -> Result<Ensemble, EnsembleError> {
        Ensemble::new(ids.into_iter().map(|id| Member { id: PeerId(id), membership: Membership::VOTER }))
    }

    /// All members in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = (PeerId, Membership)> + '_ {
        self.members.iter().map(|(&id, &m)| (id, m))
    }

    /// Where `here` differs from this list, member by member; empty if it does not.
    #[must_use]
    pub fn difference(&self, here: &Ensemble) -> String {
        let ids: BTreeSet<PeerId> = self.members.keys().chain(here.members.keys()).copied().collect();
        let differs = |id: &PeerId| match (self.membership(*id), here.membership(*id)) {
            (Some(there), Some(here)) if there == here => None,
            (Some(there), Some(here)) => Some(format!("member {id} is {there} there and {here} here")),
            (Some(there), None) => Some(format!("member {id} is {there} there and none here")),
            (None, Some(here)) => Some(format!("member {id} is {here} here and none there")),
            (None, None) => None,
        };
        ids.iter().filter_map(differs).collect::<Vec<_>>().join(", ")
    }

    /// All voters in order of their ids.
    pub fn voters(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members().filter(|(_, m)| matches!(m, Membership::Voter { .. })).map(|(id, _)| id)
    }

    /// How `id` takes part, or `None` for a stranger.
    #[must_use]
    pub fn membership(&self, id: PeerId) -> Option<Membership> {
        self.members.get(&id).copied()
    }

    /// Whether `id` votes.
    #[must_use]
    pub fn is_voter(&self, id: PeerId) -> bool {
        matches!(self.membership(id), Some(Membership::Voter { .. }))
    }

    /// The weight of `id` in quorums: 0 for observers and strangers.
    #[must_use]
    pub fn weight(&self, id: PeerId) -> u32 {
        self.membership(id).map_or(0, weight_of)
    }

    /// Whether these servers are a quorum. Observers and strangers among them count nothing.
    #[must_use]
    pub fn is_quorum(&self, ids: &BTreeSet<PeerId>) -> bool {
        let mut count = Count::default();
        ids.iter().any(|&id| count.add(self, id))
    }

    /// The highest value that a quorum of voters has reached, when each server in `reached` has reached its own value
    /// (and appears once); `None` while the servers in `reached` are no quorum.
    pub fn quorum_value<T: Copy + Ord>(&self, reached: impl IntoIterator<Item = (PeerId, T)>) -> Option<T> {
        let mut values: Vec<(PeerId, T)> = reached.into_iter().collect();
        values.sort_unstable_by_key(|&(_, value)| std::cmp::Reverse(value));
        let mut count = Count::default();
        values.into_iter().find(|&(id, _)| count.add(self, id)).map(|(_, value)| value)
    }
}

/// For files: each member as id, and weight and group or `observer`, as in `1:1:0 2:1:0 3:observer`.
impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (id, membership)) in self.members().enumerate() {
            let space = if i == 0 { "" } else { " " };
            match membership {
                Membership::Voter { weight, group } => write!(f, "{space}{id}:{weight}:{group}")?,
                Membership::Observer => write!(f, "{space}{id}:observer")?,
            }
        }
        Ok(())
    }
}

/// No list of members as [`Ensemble`] writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no list of members")]
pub struct BadMembers;

impl FromStr for Ensemble {
    type Err = BadMembers;
    fn from_str(text: &str) -> Result<Ensemble, BadMembers> {
        let member = |text: &str| {
            let (id, rest) = text.split_once(':')?;
            let membership = match rest.split_once(':') {
                Some((weight, group)) => {
                    Membership::Voter { weight: weight.parse().ok()?, group: group.parse().ok()? }
                }
                None => (rest == "observer").then_some(Membership::Observer)?,
            };
            Some(Member { id: PeerId(id.parse().ok()?), membership })
        };
        let members: Option<Vec<Member>> = text.split_whitespace().map(member).collect();
        Ensemble::new(members.ok_or(BadMembers)?).map_err(|_| BadMembers)
    }
}

fn weight_of(membership: Membership) -> u32 {
    match membership {
        Membership::Voter { weight, .. } => weight,
        Membership::Observer => 0,
    }
}

/// Counts servers until they are a quorum.
#[derive(Default)]
struct Count {
    /// The weight so far of each group that has no majority yet; `None`: it has one.
    groups: BTreeMap<u32, Option<u64>>,
    majorities: usize,
}

impl Count {
    /// Adds a server that was not added before. Whether they are a quorum now.
    fn add(&mut self, ensemble: &Ensemble, id: PeerId) -> bool {
        let membership = ensemble.membership(id);
        let membership =
            if is_on(Mutant::ObserverCounted) { membership.map(|_| Membership::VOTER) } else { membership };
        if let Some(Membership::Voter { weight, group }) = membership
            && let Some(&all) = ensemble.groups.get(&group)
            && let Some(have) = self.groups.entry(group).or_insert(Some(0))
        {
            *have += u64::from(weight);
            if *have * 2 > all {
                self.groups.insert(group, None);
                self.majorities += 1;
            }
        }
        self.majorities * 2 > ensemble.groups.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u32]) -> BTreeSet<PeerId> {
        ids.iter().map(|&i| PeerId(i)).collect()
    }

    #[test]
    fn a_list_survives_as_text_and_differences_are_named() {
        let voter =
            |id, weight, group| Member { id: PeerId(id), membership: Membership::Voter { weight, group } };
        let observer = |id| Member { id: PeerId(id), membership: Membership::Observer };
        let here = Ensemble::new([voter(1, 1, 0), voter(2, 3, 1), observer(3)]).unwrap();
        assert_eq!(here.to_string(), "1:1:0 2:3:1 3:observer");
        assert_eq!(here.to_string().parse(), Ok(here.clone()));
        for bad in ["", "1", "1:1", "1:x:0", "1:1:0 1:1:0", "3:observer"] {
            assert_eq!(bad.parse::<Ensemble>(), Err(BadMembers), "{bad}");
        }
        assert_eq!(here.difference(&here), "");
        let there = Ensemble::new([voter(1, 2, 0), voter(2, 3, 1), voter(4, 1, 0)]).unwrap();
        assert_eq!(
            there.difference(&here),
            "member 1 is a voter of weight 2 there and a voter here, member 3 is an observer here and none there, member 4 \
             is a voter there and none here"
        );
    }

    #[test]
    fn s7_majority_is_half_plus_one_of_the_voters() {
        for (n, need) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)] {
            let e = Ensemble::of_voters(1..=n).unwrap();
            let ids: Vec<u32> = (1..=n).collect();
            assert!(e.is_quorum(&set(&ids[..need])), "{need} of {n}");
            assert!(!e.is_quorum(&set(&ids[..need - 1])), "{} of {n}", need - 1);
        }
    }

    #[test]
    fn s7_observers_and_strangers_never_count() {
        let observers = (4..=9).map(|id| Member { id: PeerId(id), membership: Membership::Observer });
        let voters = (1..=3).map(|id| Member { id: PeerId(id), membership: Membership::VOTER });
        let e = Ensemble::new(voters.chain(observers)).unwrap();
        assert!(!e.is_quorum(&set(&[1, 4, 5, 6, 7, 8, 9, 77])));
        assert!(e.is_quorum(&set(&[1, 3])));
        assert_eq!(e.quorum_value([(PeerId(1), 9), (PeerId(4), 8), (PeerId(5), 8)]), None);
    }

    #[test]
    fn the_quorum_value_is_what_a_majority_has_reached() {
        let e = Ensemble::of_voters(1..=5).unwrap();
        let reached = [(1, 10), (2, 7), (3, 9), (4, 1), (5, 0)].map(|(i, v)| (PeerId(i), v));
        assert_eq!(e.quorum_value(reached), Some(7));
        assert_eq!(e.quorum_value(reached[..2].to_vec()), None);
    }

    #[test]
    fn weights_count_and_bad_lists_are_refused() {
        let v = |id, weight| Member { id: PeerId(id), membership: Membership::Voter { weight, group: 0 } };
        let e = Ensemble::new([v(1, 3), v(2, 1), v(3, 1), v(4, 0)]).unwrap();
        assert!(e.is_quorum(&set(&[1])));
        assert!(!e.is_quorum(&set(&[2, 3, 4])));
        assert_eq!(Ensemble::new([v(1, 1), v(1, 1)]), Err(EnsembleError::DuplicateId(PeerId(1))));
        assert_eq!(Ensemble::new([v(1, 0)]), Err(EnsembleError::NoVoter));
    }

    #[test]
    fn a_quorum_of_groups_is_a_majority_in_a_majority_of_them() {
        // Three places with three servers each, and one more that has no weight anywhere.
        let v =
            |id, weight, group| Member { id: PeerId(id), membership: Membership::Voter { weight, group } };
        let voters = (1..=9).map(|id| v(id, 1, (id - 1) / 3 + 1));
        let e = Ensemble::new(voters.chain([v(10, 0, 4)])).unwrap();
        assert!(e.is_quorum(&set(&[1, 2, 4, 5])), "two of three in two of three groups");
        assert!(!e.is_quorum(&set(&[1, 2, 3, 4, 7])), "five of nine, but a majority in one group only");
        assert!(!e.is_quorum(&set(&[1, 2, 10])), "a group without weight is no group");
        let reached = [(1, 9), (2, 8), (3, 1), (4, 7), (5, 3), (6, 2), (7, 9)].map(|(i, v)| (PeerId(i), v));
        assert_eq!(e.quorum_value(reached), Some(3));
        assert_eq!(e.quorum_value(reached[..4].to_vec()), None);
    }

    #[test]
    fn two_quorums_share_a_voter() {
        let v =
            |id, weight, group| Member { id: PeerId(id), membership: Membership::Voter { weight, group } };
        let e = Ensemble::new([
            v(1, 2, 1),
            v(2, 1, 1),
            v(3, 1, 2),
            v(4, 1, 2),
            v(5, 1, 3),
            v(6, 1, 3),
            v(7, 3, 3),
        ]);
        let e = e.unwrap();
        let subsets =
            || (0u32..128).map(|bits| (1..=7).filter(|i| bits >> (i - 1) & 1 == 1).map(PeerId).collect());
        let quorums: Vec<BTreeSet<PeerId>> = subsets().filter(|s| e.is_quorum(s)).collect();
        for a in &quorums {
            assert!(quorums.iter().all(|b| !a.is_disjoint(b)));
        }
        assert!(!quorums.is_empty());
    }
}
