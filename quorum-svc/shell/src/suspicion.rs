//! Detects a data directory that is an older copy of itself, from reports of servers that have met this
//! node since the copy was made (`docs/protocol.md`).

use std::collections::{BTreeMap, BTreeSet};

use api::peer::Incarnation;
use api::{PeerId, Roster};

/// Reports of others about this node's directory.
#[derive(Default, Debug)]
pub(crate) struct Suspicion {
    /// Number of reported losses of this node. Reports of others about themselves count only if they
    /// were asked since the last one.
    pub(crate) number: u64,
    /// Incarnations of this node that others have met and its directory did not know.
    told: BTreeSet<Incarnation>,
    /// Those whose consequences are neither stored nor healed.
    unknown: Vec<Incarnation>,
    /// Those to add to the directory, because their consequences are stored or healed.
    to_outlive: Vec<Incarnation>,
    /// Other servers that were asked for their losses since the last report, and whether they have any.
    heard: BTreeMap<PeerId, bool>,
    /// The log already contains the message that this node waits for an operator.
    waits: bool,
}

impl Suspicion {
    /// Adds a report. Returns false for a repetition: peers may repeat it before this node announces
    /// that it knows.
    pub(crate) fn told(&mut self, met: Incarnation) -> bool {
        let new = self.told.insert(met);
        if new {
            self.unknown.push(met);
            self.heard.clear();
            self.number += 1;
        }
        new
    }

    /// Adds a report of another voter about its own loss; a voter without an answer counts as without
    /// loss. `suspicion` is the number that this node had when it asked. Returns whether the node may
    /// store that the directory is an older copy: all other voters were asked, and a quorum of them has
    /// no known loss. If two servers get reports at the same time, both announce that before they ask
    /// each other. So at least one of them does not rely on the other, and reports never cost the
    /// ensemble its quorum for good.
    pub(crate) fn heard(
        &mut self,
        me: PeerId,
        members: &Roster,
        peer: PeerId,
        lost: bool,
        suspicion: u64,
    ) -> bool {
        if self.unknown.is_empty() || suspicion != self.number {
            return false;
        }
        self.heard.insert(peer, lost);
        let others: BTreeSet<PeerId> = members.voters().filter(|&voter| voter != me).collect();
        if others.iter().any(|voter| !self.heard.contains_key(voter)) {
            return false;
        }
        let sound = others.into_iter().filter(|voter| self.heard.get(voter) == Some(&false)).collect();
        if members.is_quorum(&sound) {
            self.to_outlive.append(&mut self.unknown);
            return true;
        }
        if !std::mem::replace(&mut self.waits, true) {
            tracing::error!(
                "this node does not note that its data directory is an older copy, because without it no quorum is left that has \
                 lost nothing; it waits. Decide which data directories are to be the truth: `quorate recover --help`"
            );
        }
        false
    }

    /// The node has its lost data again. A leader may send it before the loss is stored.
    pub(crate) fn healed(&mut self) {
        if !self.unknown.is_empty() {
            self.to_outlive.append(&mut self.unknown);
            self.waits = false;
        }
    }

    /// Takes the incarnations to add to the directory.
    pub(crate) fn outlived(&mut self) -> Vec<Incarnation> {
        std::mem::take(&mut self.to_outlive)
    }
}
