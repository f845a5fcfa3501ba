//! What a leader and its learners say to each other (ZAB). Names as in ZooKeeper's `Leader.java`.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    EnsembleId, Entry, Epoch, History, Level, LevelRefusal, Levels, Reconfig, ReconfigRefusal, Roster, Stamp,
    Ticket, Trace, Zxid,
    ports::{Refusal, Room},
};

/// A write on its way to the leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Submission {
    /// The submitting store's number.
    pub ticket: Ticket,
    /// Opaque.
    pub payload: Bytes,
    /// The span that it is part of.
    pub trace: Trace,
}

/// A incarnation of a server's data directory: from a start of the server on, or from some time within a run of it. A directory knows all
/// incarnations that it has had. So a server that others have met in an incarnation which its directory does not know stands on an older
/// copy of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Incarnation {
    /// 1, 2, 3 ... along one history of the directory.
    pub number: u64,
    /// Drawn at random at each start.
    pub run: u64,
}

/// What a server says of incarnations to another one, with its first word.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Acquaintance {
    /// Its own.
    pub own: Option<Incarnation>,
    /// The last of the other's that it has met.
    pub met: Option<Incarnation>,
    /// What the other one says that it has met of it, if its directory knows that incarnation.
    pub confirmed: Option<Incarnation>,
}

/// What a server knows that it has lost, as long as no leader has given it back.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Damage {
    /// Nothing.
    #[default]
    None,
    /// Entries that it had acknowledged. It has kept what it promised to leaders.
    Log,
    /// Its directory was put back to an older copy, or is new although others have met it before: also promises are lost.
    Directory,
}

impl Damage {
    /// Whether there is any: then it does not stand for election, and its promise proves nothing.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Damage::None
    }
}

/// What a learner says to a leader. Names as in ZooKeeper's `Leader.java`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ToLeader {
    /// FOLLOWERINFO or OBSERVERINFO.
    LearnerInfo {
        /// The greatest epoch promised so far.
        accepted_epoch: Epoch,
        /// The feature levels that the learner's build knows.
        levels: Levels,
    },
    /// The proposed epoch is promised, durably.
    AckEpoch {
        /// That epoch.
        epoch: Epoch,
        /// Epoch of the leader last synchronised with.
        current_epoch: Epoch,
        /// What the learner's log contains.
        history: History,
        /// False if it was promised before: such an answer does not count towards the quorum.
        counts: bool,
        /// What the learner has lost. With anything its promise proves nothing.
        damage: Damage,
        /// The time of the last entry that it knows of, in or before its log.
        last_stamp: Stamp,
        /// The ensemble that it belongs to; `None` before its first synchronisation.
        ensemble: Option<EnsembleId>,
        /// The last entry that it knows to be committed: no leader can lack it.
        committed: Zxid,
        /// Its wall clock.
        wall_ms: i64,
    },
    /// Everything up to here is durable. The first one answers NEWLEADER.
    Ack(Zxid),
    /// Please order these, in this order.
    Forward(Vec<Submission>),
    /// Still here.
    Pong {
        /// Of the ping; 0 for progress that is reported without a ping.
        round: u64,
        /// Its wall clock.
        wall_ms: i64,
    },
    /// How far has a leader with a quorum committed?
    Barrier {
        /// The asker's number.
        ticket: Ticket,
    },
    /// From the learner's store to the leader's; see [`Request::Report`](crate::ports::Request::Report).
    Report(Bytes),
    /// The room on the learner's disks from now on. Before the first one: ample.
    Disk(Room),
    /// A request at the learner's node to change the feature level.
    SetLevel {
        /// The learner's number for it.
        ticket: Ticket,
        /// At which the ensemble has to be.
        expected: Level,
        /// To which it shall go.
        level: Level,
    },
    /// A request at the learner's node to change the members.
    Reconfigure {
        /// The learner's number for it.
        ticket: Ticket,
        /// The request.
        reconfig: Reconfig,
    },
}

impl ToLeader {
    /// Whether it goes beside the data between the two servers, which may be large, and in no order with that. What says that
    /// a server is there, or what others wait for, must not wait behind it.
    #[must_use]
    pub fn is_control(&self) -> bool {
        match self {
            ToLeader::Ack(_)
            | ToLeader::Pong { .. }
            | ToLeader::Barrier { .. }
            | ToLeader::Report(_)
            | ToLeader::Disk(_) => true,
            ToLeader::LearnerInfo { .. }
            | ToLeader::AckEpoch { .. }
            | ToLeader::Forward(_)
            | ToLeader::SetLevel { .. }
            | ToLeader::Reconfigure { .. } => false,
        }
    }
}

/// What a leader says to a learner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ToLearner {
    /// The proposed epoch.
    LeaderInfo {
        /// Greater than all that a quorum had accepted.
        epoch: Epoch,
        /// The ensemble that it belongs to, from this epoch on if not before.
        ensemble: EnsembleId,
        /// The feature level at the end of the leader's log; `None` if that is empty.
        level: Option<Level>,
    },
    /// Your log is a prefix of mine; the entries after `after` follow.
    Diff {
        /// The learner's last zxid.
        after: Zxid,
    },
    /// Cut off everything after `to`, then as DIFF.
    Trunc {
        /// The last zxid that both have.
        to: Zxid,
    },
    /// Forget everything; here is the state at `zxid`, then as DIFF. The core sees this when the whole state has
    /// arrived and is durable.
    Snap {
        /// The state is exactly this.
        zxid: Zxid,
        /// The feature level there.
        level: Level,
        /// The members there.
        roster: Arc<Roster>,
    },
    /// Entries, the first directly behind `prev`. quorum-core never makes one: it names a range of the log, and its shell reads the entries.
    Propose {
        /// What the learner's log has to end with.
        prev: Zxid,
        /// In order, without a gap.
        entries: Vec<Entry>,
        /// Everything up to here is committed, as in [`ToLearner::Commit`], which then does not come. Only behind the end of the
        /// synchronisation.
        commit: Option<Zxid>,
    },
    /// Synchronisation ends with `target`: acknowledge it once it is durable.
    NewLeader {
        /// The leader's epoch.
        epoch: Epoch,
        /// Last entry of the synchronisation; the marker of `epoch` or something behind it.
        target: Zxid,
        /// The time of the last entry up to there, or of one that a snapshot has replaced.
        last_stamp: Stamp,
    },
    /// A quorum has synchronised. Serve.
    UpToDate {
        /// What is committed.
        commit: Zxid,
    },
    /// Everything up to here is committed.
    Commit(Zxid),
    /// A sign of incarnation, please.
    Ping {
        /// To be sent back.
        round: u64,
        /// What the clocks of a quorum say; 0 while that is not known.
        quorum_ms: i64,
    },
    /// Answer to [`ToLeader::Barrier`].
    Barrier {
        /// From the question.
        ticket: Ticket,
        /// What was committed then. Says the same as [`ToLearner::Commit`], too.
        zxid: Zxid,
    },
    /// Answer of the leader's store to [`ToLeader::Report`].
    Confirm(Bytes),
    /// Answer to a [`Submission`] that the leader did not take.
    Refused {
        /// From the submission.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// From now on clients may ask for what this leaves. For everything, until it is said.
    Room(Room),
    /// Answer to [`ToLeader::SetLevel`].
    LevelSet {
        /// From the question.
        ticket: Ticket,
        /// The level, once that is committed.
        result: Result<Level, LevelRefusal>,
    },
    /// Answer to [`ToLeader::Reconfigure`].
    Reconfigured {
        /// From the question.
        ticket: Ticket,
        /// The version of the configuration, once its end is committed.
        result: Result<Zxid, ReconfigRefusal>,
    },
}

impl ToLearner {
    /// As [`ToLeader::is_control`].
    #[must_use]
    pub fn is_control(&self) -> bool {
        matches!(
            self,
            ToLearner::Commit(_) | ToLearner::Ping { .. } | ToLearner::Barrier { .. } | ToLearner::Confirm(_)
        )
    }
}
