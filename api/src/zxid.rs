use std::fmt;

/// The number of a leader's reign. Raised by one with every election that completes; never decreases on a node.
///
/// On every node `current epoch <= accepted epoch`, and `epoch(last logged zxid) <= accepted epoch`. While a node is not
/// being synchronised, its current epoch is that of its last entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch after this one, or `None` when the 32 bits are used up (after four billion elections).
    #[must_use]
    pub fn next(self) -> Option<Epoch> {
        self.0.checked_add(1).map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an entry in the total order: the epoch in the upper 32 bits, a counter within the epoch in the
/// lower 32.
///
/// Counter 0 is the epoch's *marker*, the first entry that a leader commits; the first write has counter 1. Within
/// an epoch the counters of a log are contiguous. `Zxid::ZERO` means "before everything".
///
/// On every node `applied <= committed <= last logged`, and what is applied is also durable.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub u64);

impl Zxid {
    /// Before the first entry of any log.
    pub const ZERO: Zxid = Zxid(0);

    /// The zxid with this epoch and counter.
    #[must_use]
    pub const fn new(epoch: Epoch, counter: u32) -> Zxid {
        Zxid(((epoch.0 as u64) << 32) | counter as u64)
    }

    /// The marker of an epoch: the entry that a leader commits before anything else.
    #[must_use]
    pub const fn marker(epoch: Epoch) -> Zxid {
        Zxid::new(epoch, 0)
    }

    /// The upper 32 bits.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// The lower 32 bits.
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The next zxid of the same epoch, or `None` when the counter is used up and the leader has to hand over to a
    /// new epoch (ZOOKEEPER-1277 is what happens otherwise).
    #[must_use]
    pub fn next(self) -> Option<Zxid> {
        (self.counter() != u32::MAX).then_some(Zxid(self.0 + 1))
    }

    /// Whether an entry with this zxid may stand directly behind one with `prev`: the next counter of the same
    /// epoch, or the marker of a later epoch.
    #[must_use]
    pub fn follows(self, prev: Zxid) -> bool {
        if self.epoch() == prev.epoch() {
            prev.next() == Some(self) && prev != Zxid::ZERO
        } else {
            self.epoch() > prev.epoch() && self.counter() == 0
        }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a server in its ensemble, 1 to 2^32-1, unique and for life (ZooKeeper's `myid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zxid_is_epoch_then_counter() {
        let z = Zxid::new(Epoch(5), 3);
        assert_eq!(z.0, 0x5_0000_0003);
        assert_eq!((z.epoch(), z.counter()), (Epoch(5), 3));
        assert_eq!(z.to_string(), "0x500000003");
        assert!(Zxid::new(Epoch(5), u32::MAX) < Zxid::marker(Epoch(6)));
    }

    #[test]
    fn only_the_next_counter_or_a_later_marker_follows() {
        let z = |e, c| Zxid::new(Epoch(e), c);
        assert!(z(1, 0).follows(Zxid::ZERO));
        assert!(z(1, 1).follows(z(1, 0)));
        assert!(z(4, 0).follows(z(1, 7)));
        assert!(!z(1, 2).follows(z(1, 0)), "hole");
        assert!(!z(1, 1).follows(z(1, 1)), "again");
        assert!(!z(2, 1).follows(z(1, 1)), "an epoch starts with its marker");
        assert!(!z(1, 0).follows(z(2, 0)), "epochs never decrease");
        assert!(!Zxid(1).follows(Zxid::ZERO), "epoch 0 has no entries");
        assert_eq!(z(1, u32::MAX).next(), None);
    }
}
