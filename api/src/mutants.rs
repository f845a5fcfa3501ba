//! Faults that are planted on purpose: the simulator has to find each of [`Mutant::ALL`] (`docs/simulation.md`). Those of
//! [`Mutant::OF_PROCESSES`] are for torture, and have no switches yet.
//!
//! Without the feature `mutants`, [`is_on`] is the constant false, and the compiler leaves nothing of them. The feature
//! is for simulator and torture alone, and never part of a node.

macro_rules! mutants {
    (
        simulated { $($(#[doc = $doc:literal])+ $name:ident,)+ }
        of_processes { $($(#[doc = $process_doc:literal])+ $process:ident,)+ }
    ) => {
        /// A planted fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
            $($(#[doc = $process_doc])+ $process,)+
        }

        impl Mutant {
            /// Those of the cores, and of what the simulator runs around them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// Those of what only real processes have: connections, memory, files beside the log, pauses between attempts.
            pub const OF_PROCESSES: &[Mutant] = &[$(Mutant::$process,)+];

            /// The one of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Mutant> {
                let mut all = Mutant::ALL.iter().chain(Mutant::OF_PROCESSES);
                all.find(|mutant| mutant.name() == name).copied()
            }

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$name => stringify!($name),)+
                    $(Mutant::$process => stringify!($process),)+
                }
            }

            /// What it does wrong.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Mutant::$name => concat!($($doc),+),)+
                    $(Mutant::$process => concat!($($process_doc),+),)+
                }
            }
        }
    };
}

mutants! {
simulated {
    /// A learner acknowledges what it has written and not yet synced.
    AckBeforeFsync,
    /// A leader counts itself before its own disk has an entry.
    LeaderCountsUnsynced,
    /// fsync of the log is left out.
    FsyncSkipped,
    /// The directory is not synced behind a rename: what was replaced comes back after a power cut.
    DirSyncSkipped,
    /// A promise leaves before it is durable (ZOOKEEPER-335 is of this kind).
    PromiseBeforeDurable,
    /// The accepted epoch is not written: a server that restarts promises the same epoch to another leader.
    PromiseNotKept,
    /// NEWLEADER is acknowledged before the current epoch is durable (ZOOKEEPER-4643, -4646).
    AckBeforeEpoch,
    /// A leader proposes an epoch that was promised before, and with it zxids are used twice.
    EpochReused,
    /// UPTODATE is sent, and writes are taken, before a quorum has synchronised.
    UpToDateBeforeQuorum,
    /// A server leads although a follower's log is ahead of its own (ZOOKEEPER-2355 is of this kind).
    FollowerAheadIgnored,
    /// The promise of a server that has lost its disk counts as any other.
    WipedDiskTrusted,
    /// A server whose directory was restored from an older copy ignores the report of that.
    OlderCopyTrusted,
    /// Servers do not compare the ids of their ensembles.
    ForeignEnsembleTrusted,
    /// Servers do not compare their lists of members.
    OtherMembersTrusted,
    /// TRUNC is acknowledged, but the log is not cut (ZOOKEEPER-1489, -2872).
    TruncSkipped,
    /// A leader sends a learner that has more than itself no TRUNC but a DIFF.
    DiffForTrunc,
    /// The log is cut, and its readers still see what was cut off.
    CutLogStillRead,
    /// The log thread writes epochs before the entries that were to be written before them (ZOOKEEPER-4643 is of this kind).
    EpochsBeforeEntries,
    /// A store that lacks entries which are purged goes on behind them, without a snapshot.
    StoreSkipsPurged,
    /// Observers count towards a quorum.
    ObserverCounted,
    /// A store gets what is durable here but not committed.
    AppliedBeforeCommit,
    /// Two committed entries that come together are carried out in the other order.
    CommitOutOfOrder,
    /// A leader that has lost its quorum goes on.
    NoStepDown,
    /// A barrier is answered without a new round of pings: by a leader that may be deposed (ZOOKEEPER-1675, -2136).
    BarrierWithoutRound,
    /// A barrier is answered before the store has come that far.
    BarrierBeforeApplied,
    /// When the counter of an epoch is used up, the next zxid runs over into the epoch (ZOOKEEPER-1277).
    CounterRunsOver,
    /// After an election a server sends writes again that stand in its log already.
    ResentTwice,
    /// A write that a leader may have seen is refused when there is no leader for long.
    RefusedThoughSent,
    /// Elections are won by the largest id, whatever it has in its log.
    LargestIdWins,
    /// A session's write that is sent again is carried out again.
    ReplayedTwice,
    /// Ephemerals stay when their session is closed (ZOOKEEPER-1367, -2174).
    EphemeralsLeft,
    /// A session is closed after half of its time-out.
    ExpiredEarly,
    /// The clock of a client does not count the time for which its machine is suspended.
    SuspensionUncounted,
    /// A leader confirms signs of life without a new round of pings: also one that may be deposed.
    ConfirmedWithoutRound,
    /// A node confirms a sign of life to its client when it reports it, not when the leader has counted it.
    ConfirmedBeforeCounted,
    /// A leader counts, and confirms, a sign of life of a session that it is about to close.
    ConfirmedThoughClosing,
    /// An entry that closes a silent session is carried out in a later reign than that of the leader that found it silent.
    CloseOutlivesReign,
    /// A leader stamps entries with its own clock, however wrong it is.
    OwnClockStamped,
    /// A client counts its time-out from the moment when its sign of life is confirmed, not from when it sent it.
    CountedFromAnswer,
    /// A client that has seen more than a node is served by it all the same (ZOOKEEPER-2832 is of this kind).
    ClientAheadServed,
    /// What an older stream of a session has sent is carried out although the session was taken up on a newer one.
    MovedWriteApplied,
    /// A number that was used for another request is answered with the result of that.
    ReusedNumberAnswered,
    /// A leader raises the feature level without asking whether every member knows it.
    RaisedUnasked,
    /// A store does not compare its digest with the leader's.
    DigestUnchecked,
    /// A session is taken up with any token.
    TokenUnchecked,
    /// A session is taken up by a caller without the identities that opened it.
    OwnerUnchecked,
    /// A checkpoint leaves out that a session has acknowledged results.
    CheckpointIncomplete,
    /// A watch gets changes again that it got before (W3 and W7 of the design of watches).
    NoFloor,
    /// The history goes on over a snapshot, as if nothing had happened between the two.
    HistoryOverSnapshot,
    /// A client that did not take its events continues where the history begins, without a report of the missed events.
    LagForgotten,
    /// A watch may begin one entry before the history does.
    BoundaryForgotten,
    /// A write is answered before its event is sent.
    ReplyBeforeEvent,
    /// A watch with the state misses the first entry after the state.
    StateThenGap,
    /// A znode whose TTL had passed is removed although its value was changed before the entry that removes it.
    ReapedYoung,
    /// A read is answered whatever the access list of the znode says.
    ReadWithoutRight,
    /// A leader does not notice that the last child of a container is gone.
    EmptiedUnnoticed,
    /// Members count when the entry that says them is committed, not when it is in the log.
    MembersOnceCommitted,
    /// A leader takes a change of the members while another one is under way.
    ChangesOverlap,
    /// During a change only the old members count.
    JointCountsOld,
    /// A change is finished before its beginning is committed.
    FinalBeforeJoint,
    /// A leader that finds an unfinished change in its log does not finish it.
    ChangeLeftUnfinished,
    /// When the log is cut, the members stay as the part that is cut off said.
    MembersNotRestored,
    /// A server that is no member is taken in as a learner, and may depose the leader.
    RemovedServerTaken,
    /// The id of a former member is given to another server.
    RemovedIdReused,
}
of_processes {
    /// What the unanswered requests of a stream hold is not given back when the stream ends.
    RequestsKept,
    /// Sessions may have sixteen times as much of unsent answers as memory is reckoned for.
    AnswersUncounted,
    /// What is reserved for a message is not given back when the other half of it never comes.
    HalfMessagesKept,
    /// A connection keeps its place when it is gone.
    PlacesKept,
    /// A checkpoint does not wait for space on the disk, and one that fails ends the node.
    CheckpointEndsNode,
    /// A server that lost the link to another waits 40 s before it dials again.
    RedialsLate,
}
}

#[cfg(not(feature = "mutants"))]
/// Whether this fault is planted: never.
#[must_use]
#[inline(always)]
pub const fn is_on(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use planted::{is_on, plant, plant_everywhere, without};

#[cfg(not(feature = "mutants"))]
/// Runs this without a planted fault: there is none.
pub fn without<T>(run: impl FnOnce() -> T) -> T {
    run()
}

#[cfg(feature = "mutants")]
mod planted {
    use std::{cell::Cell, sync::OnceLock};

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    static EVERYWHERE: OnceLock<Mutant> = OnceLock::new();

    /// Whether this fault is planted in the present thread, or in the whole process.
    #[must_use]
    pub fn is_on(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant) || EVERYWHERE.get() == Some(&mutant)
    }

    /// Plants a fault in all threads of this process, for as long as it lives. Only the first call counts.
    pub fn plant_everywhere(mutant: Mutant) {
        EVERYWHERE.get_or_init(|| mutant);
    }

    /// Runs this without the fault that is planted in the present thread: for what judges the planted one.
    pub fn without<T>(run: impl FnOnce() -> T) -> T {
        let before = PLANTED.take();
        let done = run();
        plant(before);
        done
    }

    /// Plants a fault in the present thread in place of the one before; `None` for none.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.set(mutant);
    }
}
