//! Planted bugs. An explorer that does not find them proves nothing when it finds none.

/// The planted bug of the servers.
///
/// With any of them the checks of single promises (I9, I10) are off, which would see most of these at their first
/// step: found are their consequences.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The log thread reports entries durable when they are merely queued, so acks leave too early.
    AckBeforeDurable,
    /// A promised epoch is acknowledged but not on the disk until its synchronisation ends.
    PromiseForgotten,
    /// The epoch becomes durable before the log that belongs to it (ZOOKEEPER-4643).
    EpochBeforeLog,
    /// The epoch of the leader that a server synchronised with is never stored, nor is it taken from the log.
    EpochForgotten,
    /// The disk reports success, but does not cut the log back.
    TruncIgnored,
    /// The cores take the observer for a voter.
    ObserverCounts,
    /// A commit that a proposal takes along covers the proposal, too.
    CommitRidesAhead,
}

impl Fault {
    pub(crate) fn checks_promises(self) -> bool {
        self == Fault::None
    }
}
