//! Inputs and outputs of the core: plain data.

use std::sync::Arc;
use std::time::Duration;

pub use api::peer::{Submission, ToLeader, ToLearner};
use api::{
    Ensemble, EnsembleId, Entry, Epoch, History, Level, LevelHistory, LevelRefusal, Levels, PeerId, Reconfig,
    ReconfigRefusal, Roster, RosterHistory, Stamp, Ticket, Zxid,
    peer::Damage,
    ports::{Candidate, FeedItem, Request, Room, Sign},
};

/// Default of [`Config::commit_delay`]. Clients of servers that did not submit a write see it at most
/// this much later.
pub const COMMIT_DELAY: Duration = Duration::from_millis(1);

/// Parameters of a core.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This server.
    pub me: PeerId,
    /// The members of the first start. They count as long as the log says nothing of members.
    pub ensemble: Ensemble,
    /// Random id for the ensemble. The server uses it if it leads the first epoch.
    pub draw: EnsembleId,
    /// Time limit for a leader to gather and synchronise a quorum. Also the longest time between signs
    /// of progress for a learner that is not yet synchronised (ZooKeeper's initLimit).
    pub init_limit: Duration,
    /// Leader and learner disconnect after this much silence (ZooKeeper's syncLimit).
    pub sync_limit: Duration,
    /// Interval of the leader's pings to its learners; a small part of `sync_limit`.
    pub ping_interval: Duration,
    /// Longest time that a commit waits for a proposal to carry it to a learner. A commit that contains
    /// a write of that learner does not wait. With zero no commit waits.
    pub commit_delay: Duration,
    /// Longest time that a request waits for a leader. After it the core refuses the request.
    pub park_limit: Duration,
    /// Maximum number of pending requests of this server's store; the core refuses more. A leader
    /// refuses writes of learners while twice this number of writes, its own included, are not
    /// committed.
    pub requests_max: usize,
    /// The same limit in bytes of pending payload. The check counts only earlier payloads, so one more
    /// may exceed the limit. No single payload may be larger.
    pub request_bytes_max: usize,
    /// The feature levels that this build knows.
    pub levels: Levels,
    /// Greatest counter of an epoch; the write after it opens a new epoch. `u32::MAX` except in tests
    /// of this limit.
    pub counter_max: u32,
}

/// State that the server found on its disk.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Durable {
    /// Greatest epoch that the server promised to a leader.
    pub accepted_epoch: Epoch,
    /// Epoch of the last leader that the server synchronised with.
    pub current_epoch: Epoch,
    /// Ensemble of the server; `None` before its first synchronisation.
    pub ensemble: Option<EnsembleId>,
    /// Content of its log.
    pub history: History,
    /// The feature levels along the log.
    pub levels: LevelHistory,
    /// The members along the log.
    pub rosters: RosterHistory,
    /// Last entry that the server knew to be committed when it last stored its epochs.
    pub committed: Zxid,
    /// The newest snapshot, if there is one.
    pub snapshot: Option<Zxid>,
    /// As in [`Input::SnapshotSaved`].
    pub snap_before: Zxid,
    /// Stamp of the last entry that the server ever had, in the log or below a snapshot.
    pub last_stamp: Stamp,
    /// Data that the server has lost and no leader has restored yet. With any damage the server does
    /// not stand for election, and its promise proves nothing.
    pub damage: Damage,
}

/// One connection between a learner and a leader. The shell numbers connections and never reuses a
/// number while the server runs. So the core can tell late messages of an older connection of the same
/// peer from current ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn(pub u64);

/// An event.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// [`Output::Elect`] found a leader.
    Elected {
        /// It may be this server.
        leader: PeerId,
    },
    /// Another server connected as a learner.
    LearnerConnected {
        /// The new connection.
        conn: Conn,
        /// A member of the ensemble, checked by the shell.
        peer: PeerId,
    },
    /// [`Output::Connect`] succeeded.
    LeaderConnected {
        /// The new connection.
        conn: Conn,
        /// The server at its other end. The core uses it to recognise the result of an earlier attempt.
        leader: PeerId,
    },
    /// [`Output::Connect`] failed.
    ConnectFailed {
        /// The server that was dialled, as in `LeaderConnected`.
        leader: PeerId,
    },
    /// A connection ended, on either side.
    Disconnected {
        /// The connection; the core ignores stale numbers.
        conn: Conn,
    },
    /// A learner sent a message.
    FromLearner {
        /// The connection.
        conn: Conn,
        /// The message.
        message: ToLeader,
    },
    /// The leader sent a message.
    FromLeader {
        /// The connection.
        conn: Conn,
        /// The message.
        message: ToLearner,
    },
    /// A piece of a snapshot or of a large message arrived from the leader, or was written to disk. A
    /// sign of progress.
    SnapshotProgress {
        /// The connection.
        conn: Conn,
    },
    /// The log is durable up to here.
    Persisted {
        /// Last durable entry.
        upto: Zxid,
    },
    /// [`Output::Truncate`] is done, durably.
    Truncated,
    /// [`Output::PersistEpochs`] is done, durably.
    EpochsPersisted,
    /// [`Output::InstallSnapshot`] is done, durably.
    SnapshotInstalled,
    /// The store's own snapshot at `zxid` is durable and verified. The log may begin behind `purge_to`.
    SnapshotSaved {
        /// The exact zxid of the state.
        zxid: Zxid,
        /// At most the zxid of the previous snapshot.
        purge_to: Option<Zxid>,
        /// The purge keeps entries behind this zxid while a learner that synchronises still needs them.
        /// It removes older entries in any case, so that a slow learner does not fill the disk. The
        /// leader then drops that learner, and the learner gets this snapshot.
        hold_from: Zxid,
        /// A learner whose log diverges from ours before this zxid gets the snapshot, because it costs
        /// less than the entries. `Zxid::ZERO`: the leader sends entries as long as the log has them.
        snap_before: Zxid,
    },
    /// The set of snapshots changed without a new snapshot: one is damaged.
    SnapshotsLeft {
        /// The newest sound snapshot.
        newest: Option<Zxid>,
    },
    /// The log is purged up to `base` after [`Output::Purge`]. The log removes whole segments, so
    /// `base` may be below the requested zxid.
    Purged {
        /// The zxid before the first remaining entry.
        base: Zxid,
    },
    /// Requests of the store.
    Requests(Vec<Request>),
    /// The store of this server attached with a state. A state contains only committed entries. So
    /// after a restart it protects these entries from truncation, for example by an ensemble that was
    /// started again without this server's data.
    StoreAttached {
        /// The last zxid in the state.
        applied: Zxid,
    },
    /// Other servers have met an incarnation of this server that its directory does not know. The
    /// directory is an older copy or a new one, so it lacks entries and promises. The server starts a
    /// new election as a [damaged](Durable::damage) server.
    RolledBack {
        /// Store the damage durably. If false, the server forgets it when the process ends.
        note: bool,
    },
    /// Free space on the disks of this server. `Ample` until the first such input.
    Disk(Room),
    /// This server is about to stop. It first hands leadership over to another server. Answered by
    /// [`Output::Left`].
    Leave,
    /// An operator requests another feature level. Answered by [`Output::LevelSet`].
    SetLevel {
        /// Number of the request; never reused while the server runs.
        ticket: Ticket,
        /// The present level of the ensemble, as the operator expects it.
        expected: Level,
        /// The requested level.
        level: Level,
    },
    /// An operator requests other members. Answered by [`Output::Reconfigured`].
    Reconfigure {
        /// Number of the request; never reused while the server runs.
        ticket: Ticket,
        /// The request.
        reconfig: Reconfig,
    },
    /// The time of [`Zab::next_timeout`](crate::Zab::next_timeout) has come.
    Timeout,
}

/// An action. The shell carries out actions in their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Find a leader. `None`: this server does not stand for election.
    Elect(Option<Candidate>),
    /// Report to the election that this server has settled.
    Settled {
        /// The leader that it follows, or itself.
        leader: PeerId,
        /// The epoch of that leader.
        epoch: Epoch,
    },
    /// Connect to the leader; answered by `LeaderConnected` or `ConnectFailed`.
    Connect {
        /// The server to dial.
        leader: PeerId,
    },
    /// End a connection. The core expects no `Disconnected` for it.
    Disconnect {
        /// The connection.
        conn: Conn,
        /// For the log of both sides.
        why: &'static str,
    },
    /// Send a message to the leader.
    ToLeader {
        /// The connection.
        conn: Conn,
        /// The message.
        message: ToLeader,
    },
    /// Send a message to a learner.
    ToLearner {
        /// The connection.
        conn: Conn,
        /// The message.
        message: ToLearner,
    },
    /// Send the entries with `after < zxid <= upto` to a learner in any number of
    /// [`ToLearner::Propose`] messages. The entries are in the log or in an earlier `Append`.
    Replicate {
        /// The connection.
        conn: Conn,
        /// The zxid before the first entry.
        after: Zxid,
        /// The last entry.
        upto: Zxid,
        /// Commit point for the first of the messages.
        commit: Option<Zxid>,
    },
    /// Send [`ToLearner::Snap`] and this snapshot to a learner.
    SendSnapshot {
        /// The connection.
        conn: Conn,
        /// An existing snapshot.
        zxid: Zxid,
        /// The members there.
        roster: Arc<Roster>,
    },
    /// Append to the log; `Persisted` follows once the entries are durable. One `Persisted` may answer
    /// several appends.
    Append(Vec<Entry>),
    /// Make all earlier appends durable, then store these values atomically.
    PersistEpochs {
        /// The promised epoch.
        accepted: Epoch,
        /// The synchronised epoch.
        current: Epoch,
        /// As [`Durable::damage`].
        damage: Damage,
        /// As [`Durable::ensemble`].
        ensemble: Option<EnsembleId>,
        /// As [`Durable::committed`].
        committed: Zxid,
        /// As [`Durable::last_stamp`]: a snapshot does not contain it.
        last_stamp: Stamp,
    },
    /// Remove all entries behind `to` from the log, durably.
    Truncate {
        /// The last remaining entry.
        to: Zxid,
    },
    /// Start the log again behind the received snapshot.
    InstallSnapshot {
        /// Zxid of the snapshot.
        zxid: Zxid,
        /// Feature level of the snapshot.
        level: Level,
        /// The members at the snapshot.
        roster: Arc<Roster>,
    },
    /// The log may remove entries up to here.
    Purge {
        /// A durable snapshot covers this zxid.
        upto: Zxid,
    },
    /// Entries up to here are committed and durable on this server. The store may read them.
    Committed {
        /// Last such entry.
        upto: Zxid,
    },
    /// Pass this item to the store behind all earlier items.
    Tell(FeedItem),
    /// Pass this sign to the store at once. Signs have no order with other items.
    Sign(Sign),
    /// Answer to [`Input::SetLevel`].
    LevelSet {
        /// From the request.
        ticket: Ticket,
        /// The level once it is committed, or the reason of the refusal.
        result: Result<Level, LevelRefusal>,
    },
    /// Answer to [`Input::Reconfigure`].
    Reconfigured {
        /// From the request.
        ticket: Ticket,
        /// The version of the new configuration once its end is committed, or the reason of the refusal.
        result: Result<Zxid, ReconfigRefusal>,
    },
    /// [`Input::Leave`] is done: no server depends on this one any more, or none can take over.
    Left,
    /// An invariant of this server or of the ensemble is broken: stop the node with this message.
    Fatal(String),
}
