//! A subtree as it is at one zxid, sent in parts.

use crate::{Path, ReadLevel, Zxid, watch::WatchedZnode};

/// The znodes of a walk, parents before their children, siblings in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Walk {
    /// The root of the subtree.
    pub path: Path,
    /// How far below the root; 0: all.
    pub max_depth: u32,
    /// With values.
    pub with_data: bool,
}

/// A walk in progress on a node. Only the session that began it may continue it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WalkId(pub u64);

/// One step of a walk. A walk ends when its next part is not requested for some seconds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum WalkAsk {
    /// The first part, of a state as fresh as this.
    Begin(Walk, ReadLevel),
    /// The next part.
    Next(WalkId),
}

/// A part of a walk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WalkPart {
    /// For the next part.
    pub id: WalkId,
    /// The entry behind which this is the state; the same for all parts.
    pub zxid: Zxid,
    /// The next znodes; there may be none.
    pub znodes: Vec<WatchedZnode>,
    /// In the last part, and only there.
    pub end: Option<WalkEnd>,
}

/// The totals of a walk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct WalkEnd {
    /// How many znodes.
    pub znodes: u64,
    /// Subtrees that were left out, because the caller may not read their roots.
    pub hidden: u64,
}

impl WalkPart {
    /// Bytes that it carries.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.znodes.iter().map(WatchedZnode::weight).sum()
    }
}
