//! What the servers of an ensemble say to each other to elect a leader.

use std::fmt;

use crate::{
    PeerId, Zxid,
    ports::{Candidate, Role},
};

/// For whom, and with what it stands. Votes are ordered by epoch, then zxid, then id (S4): the greater is the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vote {
    /// With what the proposed leader stood for election. From a server that has settled under its leader, the epoch
    /// is the one in which it serves.
    pub candidate: Candidate,
    /// The proposed leader.
    pub leader: PeerId,
}

impl Vote {
    /// Whether two servers that have settled under a leader have the same one. Zxid and round may differ between servers
    /// that joined a reign at different times, so only leader and epoch say it (ZOOKEEPER-1732, -1805).
    #[must_use]
    pub fn same_reign(&self, other: &Vote) -> bool {
        self.leader == other.leader && self.candidate.epoch == other.candidate.epoch
    }
}

/// The logical clock of elections: raised whenever a server begins to look again. It lives in memory only, so it starts
/// at 0 with each start of a server; a server that is behind takes over the round of the others.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Round(pub u64);

impl Round {
    /// The round after this one. Stays at the end of its range, which no election reaches by counting.
    #[must_use]
    pub fn next(self) -> Round {
        Round(self.0.saturating_add(1))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All that one server says to another: where it stands now. A newer one from the same server makes every older one
/// worthless, so a sender may drop what is not sent yet when there is something newer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Notification {
    /// What the sender is.
    pub state: Role,
    /// While looking, the sender's proposal; afterwards, its leader. `None` while looking without a proposal: from
    /// observers, and from voters of weight 0 that have not heard of a candidate yet.
    pub vote: Option<Vote>,
    /// The round in which the sender looks, or in which its leader was elected.
    pub round: Round,
    /// [`Roster::since`](crate::Roster::since) of the members that count for the sender.
    pub members: Zxid,
}
