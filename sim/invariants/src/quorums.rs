use std::collections::BTreeMap;

use api::{Ensemble, Membership, PeerId};

/// The quorums of an ensemble, counted from its members alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorums {
    /// Weight, and number of the group, of each voter with a weight.
    votes: BTreeMap<PeerId, (u64, usize)>,
    /// The weight of each group.
    groups: Vec<u64>,
}

impl Quorums {
    /// Of these members.
    #[must_use]
    pub fn of(ensemble: &Ensemble) -> Quorums {
        let (mut numbers, mut groups, mut votes) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for (id, membership) in ensemble.members() {
            if let Membership::Voter { weight: weight @ 1.., group } = membership {
                let number = *numbers.entry(group).or_insert_with(|| {
                    groups.push(0);
                    groups.len() - 1
                });
                groups[number] += u64::from(weight);
                votes.insert(id, (u64::from(weight), number));
            }
        }
        Quorums { votes, groups }
    }

    /// Whether the servers that `counts` selects have more than half of the weight of more than half of the groups.
    pub fn has(&self, counts: impl Fn(PeerId) -> bool) -> bool {
        let mut have = vec![0; self.groups.len()];
        for (&id, &(weight, group)) in &self.votes {
            have[group] += if counts(id) { weight } else { 0 };
        }
        let majorities = have.iter().zip(&self.groups).filter(|(have, all)| *have * 2 > **all).count();
        majorities * 2 > self.groups.len()
    }
}
