//! Whether the data directory is an older copy of itself, as other servers say that have met this node since the copy was made
//! (`docs/protocol.md`).

use std::collections::{BTreeMap, BTreeSet};

use api::peer::Incarnation;
use api::{Ensemble, PeerId};

/// What others say of this node's directory.
#[derive(Default, Debug)]
pub(crate) struct Suspicion {
    /// Raised when others say that this node has lost something. What others say of themselves counts if they were asked since.
    pub(crate) number: u64,
    /// Incarnations of this node that others have met and its directory did not know.
    told: BTreeSet<Incarnation>,
    /// Those of them of which it is not noted what they mean.
    unknown: Vec<Incarnation>,
    /// Those that it is to know from now on, because that is noted.
    to_outlive: Vec<Incarnation>,
    /// Others that were asked what they have lost since this node is suspected to stand on an older copy, and whether that is
    /// anything.
    heard: BTreeMap<PeerId, bool>,
    /// It was said in the log that this node waits for an operator.
    waits: bool,
}

impl Suspicion {
    /// False if this was told before: it may be told once more before this node can say that it knows.
    pub(crate) fn told(&mut self, met: Incarnation) -> bool {
        let new = self.told.insert(met);
        if new {
            self.unknown.push(met);
            self.heard.clear();
            self.number += 1;
        }
        new
    }

    /// Another voter says whether it has lost something, or does not answer, asked when this node was suspected for so many times.
    /// Whether it can be noted now that the directory is an older copy: once all other voters were asked and a quorum of them has
    /// lost nothing as far as is known. Two servers that are told at the same time both say so before they ask each other, so at
    /// least one of them does not count on the other: what others say never costs the ensemble its quorum for good.
    pub(crate) fn heard(
        &mut self,
        me: PeerId,
        members: &Ensemble,
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

    /// The node has what it lacked: a leader may have sent it before that was noted.
    pub(crate) fn healed(&mut self) {
        if !self.unknown.is_empty() {
            self.to_outlive.append(&mut self.unknown);
            self.waits = false;
        }
    }

    /// What the directory is to know from now on.
    pub(crate) fn outlived(&mut self) -> Vec<Incarnation> {
        std::mem::take(&mut self.to_outlive)
    }
}
