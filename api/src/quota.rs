//! How much a subtree may have.

use std::fmt;

use crate::Path;

/// What is below a znode, without the znode itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Usage {
    /// How many znodes.
    pub znodes: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

/// Bounds of what is below a znode, without the znode itself. It belongs to this creation of the znode and goes with it. Quotas may
/// stand above one another; each one counts.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Quota {
    /// Beyond it the quota is reported, and nothing is refused.
    pub soft: Bounds,
    /// Beyond it creates are refused, and values that grow. What is beyond it already stays.
    pub hard: Bounds,
}

/// Two bounds, each of which may be absent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Bounds {
    /// Most znodes.
    pub znodes: Option<u64>,
    /// Most bytes of values.
    pub bytes: Option<u64>,
}

/// What a quota counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Counted {
    /// Znodes.
    Znodes,
    /// Bytes of their values.
    Bytes,
}

/// A quota, where it stands, and what it counts at present.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct QuotaAt {
    /// Of which znode.
    pub path: Path,
    /// The bounds.
    pub quota: Quota,
    /// What is below the znode.
    pub used: Usage,
}

impl Quota {
    /// Whether it has no bounds, as a znode without a quota.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Quota::default()
    }
}

impl Bounds {
    /// The first bound that this much is beyond, with the bound and what there is.
    #[must_use]
    pub fn exceeded(&self, used: Usage) -> Option<(Counted, u64, u64)> {
        let beyond = |counted, bound: Option<u64>, actual| {
            bound.filter(|bound| actual > *bound).map(|bound| (counted, bound, actual))
        };
        beyond(Counted::Znodes, self.znodes, used.znodes)
            .or_else(|| beyond(Counted::Bytes, self.bytes, used.bytes))
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Counted::Znodes => "znodes",
            Counted::Bytes => "bytes",
        })
    }
}

impl std::str::FromStr for Counted {
    type Err = ();

    fn from_str(text: &str) -> Result<Counted, ()> {
        [Counted::Znodes, Counted::Bytes].into_iter().find(|counted| counted.to_string() == text).ok_or(())
    }
}
