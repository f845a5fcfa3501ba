use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Ensemble, Entry, PeerId, Roster, Zxid};

use crate::{Quorums, Verdict, check};

/// All members that any log ever said, by the zxid of the entry, with their quorums.
#[derive(Clone, Debug)]
pub struct Members {
    /// Of the first start.
    ensemble: Ensemble,
    initial: Quorums,
    said: BTreeMap<Zxid, Said>,
}

#[derive(Clone, Debug)]
struct Said {
    roster: Arc<Roster>,
    /// Of the one list, or of the old and the new one.
    lists: Vec<Quorums>,
}

impl Members {
    /// Of an ensemble before the first change.
    #[must_use]
    pub fn of(ensemble: &Ensemble) -> Members {
        Members { ensemble: ensemble.clone(), initial: Quorums::of(ensemble), said: BTreeMap::new() }
    }

    /// An entry enters a log for the first time, behind what this log `has`.
    ///
    /// # Errors
    /// I23: it says members that may not follow the last ones of this log.
    pub fn proposed(&mut self, entry: &Entry, has: impl Fn(Zxid) -> bool) -> Verdict {
        let Some(roster) = entry.body.roster() else { return Ok(()) };
        let zxid = entry.zxid;
        let lists: Vec<Quorums> = roster.configurations().map(|c| Quorums::of(&c.ensemble)).collect();
        let earlier = || self.said.range(..zxid).filter(|(at, _)| has(**at)).map(|(_, said)| said);
        let before = earlier().next_back();
        let newest = before.map_or(&self.ensemble, |before| &before.roster.newest().ensemble);
        let joint_before = before.is_some_and(|before| before.roster.is_joint());
        let fits = match (joint_before, roster.is_joint()) {
            (true, true) => false,
            (true, false) | (false, true) => roster.current().ensemble == *newest,
            // One entry alone changes no vote.
            (false, false) => lists == [Quorums::of(newest)],
        };
        // Whoever was a member of this log, and is not one of the last members, never is one again.
        let ids = |roster: &Roster| -> Vec<PeerId> { roster.members().map(|(id, _)| id).collect() };
        let known: BTreeSet<PeerId> = earlier()
            .flat_map(|said| ids(&said.roster))
            .chain(self.ensemble.members().map(|(id, _)| id))
            .collect();
        let mut back = ids(roster);
        back.retain(|id| known.contains(id) && newest.membership(*id).is_none() && !joint_before);
        let last = newest.to_string();
        self.said.insert(zxid, Said { roster: roster.clone(), lists });
        check(fits, "I23 one change at a time", || format!("{zxid} says {roster} behind {last}"))?;
        check(back.is_empty(), "I24 no id is used again", || format!("{zxid} brings {back:?} back"))
    }

    /// Every list of members that ever was in a log.
    pub fn lists(&self) -> impl Iterator<Item = &Ensemble> {
        let said = self.said.values().flat_map(|said| said.roster.configurations().map(|c| &c.ensemble));
        [&self.ensemble].into_iter().chain(said)
    }

    /// The last members of a log that `has` these entries; `None`: those of the first start.
    pub fn last(&self, has: impl Fn(Zxid) -> bool) -> Option<&Arc<Roster>> {
        self.said.iter().rev().find(|(at, _)| has(**at)).map(|(_, said)| &said.roster)
    }

    /// Whether the servers that `counts` selects are a quorum for a server whose log `has` these entries: by the last members
    /// in it, and of both lists during a change.
    pub fn has(&self, has: impl Fn(Zxid) -> bool, counts: impl Fn(PeerId) -> bool) -> bool {
        match self.said.iter().rev().find(|(at, _)| has(**at)) {
            Some((_, said)) => said.lists.iter().all(|list| list.has(&counts)),
            None => self.initial.has(counts),
        }
    }

    /// Whether a server whose log `has` these entries may take everything up to `zxid` for committed: it is `durable` on a
    /// quorum of the members there. Members that follow in the log may take their place, if each change up to there is
    /// committed: `known` says so, or it is durable on a quorum of both of its lists.
    pub fn committed(
        &self,
        zxid: Zxid,
        has: impl Fn(Zxid) -> bool,
        known: impl Fn(Zxid) -> bool,
        durable: impl Fn(PeerId, Zxid) -> bool,
    ) -> bool {
        let on = |lists: &[Quorums], zxid| lists.iter().all(|list| list.has(|id| durable(id, zxid)));
        let here = self.said.range(..=zxid).rev().find(|(at, _)| has(**at));
        let by_these = match here {
            Some((_, said)) => on(&said.lists, zxid),
            None => self.initial.has(|id| durable(id, zxid)),
        };
        if by_these {
            return true;
        }
        let mut change = here.filter(|(_, said)| said.lists.len() > 1);
        for (at, said) in self.said.range(zxid..).filter(|(at, _)| **at > zxid && has(**at)) {
            if let Some((&began, before)) = change
                && !known(began)
                && !on(&before.lists, began)
            {
                return false;
            }
            if on(&said.lists, zxid) {
                return true;
            }
            change = (said.lists.len() > 1).then_some((at, said));
        }
        false
    }
}
