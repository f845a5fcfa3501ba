//! What goes into the core and what comes out of it: plain data.

use std::time::Duration;

pub use api::peer::{Submission, ToLeader, ToLearner};
use api::{
    Ensemble, EnsembleId, Entry, Epoch, History, Level, LevelHistory, LevelRefusal, Levels, PeerId, Stamp,
    Ticket, Zxid,
    peer::Damage,
    ports::{Candidate, FeedItem, Request, Room, Sign},
};

/// For [`Config::commit_delay`]: clients of other servers, which did not write this, see it no more than so much later.
pub const COMMIT_DELAY: Duration = Duration::from_millis(1);

/// What a core is made with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This server.
    pub me: PeerId,
    /// All servers.
    pub ensemble: Ensemble,
    /// The id that this server gives the ensemble if it leads its first epoch: random.
    pub draw: EnsembleId,
    /// A leader has this long to gather and synchronise a quorum, and a learner this long between signs of progress
    /// until it is synchronised (ZooKeeper's initLimit).
    pub init_limit: Duration,
    /// Leader and learner part after this long without a word (ZooKeeper's syncLimit).
    pub sync_limit: Duration,
    /// How often the leader asks its learners for a sign of life; a small part of `sync_limit`.
    pub ping_interval: Duration,
    /// How long a commit may wait for a proposal that takes it along to a learner, unless a write of that learner is in what is
    /// committed. Zero: it does not wait.
    pub commit_delay: Duration,
    /// How long a request waits for a leader before it is refused.
    pub park_limit: Duration,
    /// Requests of this server's store that may be under way; the store is refused what is beyond. On a leader, writes of
    /// learners are refused while twice as many, its own included, wait for their commit.
    pub requests_max: usize,
    /// The same in bytes of payload, of what waits already: one more payload may come on top. No payload may be larger.
    pub request_bytes_max: usize,
    /// The feature levels that this build knows.
    pub levels: Levels,
    /// The greatest counter of an epoch; the next write opens a new one. `u32::MAX`, but in tests of just that.
    pub counter_max: u32,
}

/// What the server found on its disk.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Durable {
    /// The greatest epoch that it promised to a leader.
    pub accepted_epoch: Epoch,
    /// The epoch of the leader that it last synchronised with.
    pub current_epoch: Epoch,
    /// The ensemble that it belongs to; `None` before its first synchronisation.
    pub ensemble: Option<EnsembleId>,
    /// What its log contains.
    pub history: History,
    /// The feature levels along the log.
    pub levels: LevelHistory,
    /// The last entry that it was told to be committed, as far as it has noted that.
    pub committed: Zxid,
    /// The newest snapshot, if there is one.
    pub snapshot: Option<Zxid>,
    /// As in [`Input::SnapshotSaved`].
    pub snap_before: Zxid,
    /// The time of the last entry that it has had, in the log or replaced by a snapshot.
    pub last_stamp: Stamp,
    /// What it has lost, if it has not synchronised since. With anything it does not stand for election and its promise proves
    /// nothing, until a leader has given it everything again.
    pub damage: Damage,
}

/// One connection between a learner and a leader, numbered by the shell; never used twice while the server runs. What
/// arrives from an older connection of the same peer is told apart by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn(pub u64);

/// What happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// [`Output::Elect`] found a leader.
    Elected {
        /// It may be this server.
        leader: PeerId,
    },
    /// Another server connected to learn from this one.
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
        /// The server at its other end: it tells the answer to an earlier attempt apart.
        leader: PeerId,
    },
    /// [`Output::Connect`] failed.
    ConnectFailed {
        /// The server that was dialled, as in `LeaderConnected`.
        leader: PeerId,
    },
    /// A connection ended, at whichever side.
    Disconnected {
        /// Which one; stale numbers are ignored.
        conn: Conn,
    },
    /// A learner said something.
    FromLearner {
        /// On which connection.
        conn: Conn,
        /// What.
        message: ToLeader,
    },
    /// The leader said something.
    FromLeader {
        /// On which connection.
        conn: Conn,
        /// What.
        message: ToLearner,
    },
    /// A piece of a snapshot, or of a large message, arrived from the leader, or it is written out (a sign of life).
    SnapshotProgress {
        /// On which connection.
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
    /// The store's own snapshot at `zxid` is durable and verified, and the log need not reach back behind `purge_to`.
    SnapshotSaved {
        /// The state is exactly this.
        zxid: Zxid,
        /// At most the snapshot before it.
        purge_to: Option<Zxid>,
        /// Behind this, more of the log stays for a learner that is being synchronised and still needs it. What is before goes all
        /// the same, so that a slow one does not fill the disk: it is cut off, and gets this snapshot.
        hold_from: Zxid,
        /// A learner whose log parts from ours before this is better served with the snapshot than with all entries up to
        /// it. `Zxid::ZERO`: never, while the log has the entries.
        snap_before: Zxid,
    },
    /// The snapshots changed by themselves: one was found damaged.
    SnapshotsLeft {
        /// The newest sound one.
        newest: Option<Zxid>,
    },
    /// Below `base` the log is gone, as [`Output::Purge`] asked; whole segments go, so it may be less than asked.
    Purged {
        /// The last zxid before what is left.
        base: Zxid,
    },
    /// The store asks.
    Requests(Vec<Request>),
    /// The store of this server has a state. Only what is committed gets into one, so it tells a server that was restarted
    /// what must not be cut off its log: by an ensemble that was started anew without this server's data, say.
    StoreAttached {
        /// The last zxid in the state.
        applied: Zxid,
    },
    /// Others have met this server in an incarnation that its directory does not know: that is an older copy, or a new one, so
    /// entries and promises are lost, and it did not know. It looks anew, as one that is [damaged](Durable::damage).
    RolledBack {
        /// Whether to note it durably. If not, it is forgotten when the process ends.
        note: bool,
    },
    /// How much room there is on the disks of this server. Until it is told, enough.
    Disk(Room),
    /// This server is about to stop: the servers that it leads shall have another leader first. Answered by [`Output::Left`].
    Leave,
    /// An operator asks for another feature level. Answered by [`Output::LevelSet`].
    SetLevel {
        /// The asker's number; never used twice while the server runs.
        ticket: Ticket,
        /// At which the ensemble has to be.
        expected: Level,
        /// To which it shall go.
        level: Level,
    },
    /// The time of [`Zab::next_timeout`](crate::Zab::next_timeout) has come.
    Timeout,
}

/// What to do, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Look for a leader; `None`: this server must not or does not want to lead.
    Elect(Option<Candidate>),
    /// Tell the election that this server has settled.
    Settled {
        /// The leader that it follows, or itself.
        leader: PeerId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// Connect to the leader; answered by `LeaderConnected` or `ConnectFailed`.
    Connect {
        /// The server to dial.
        leader: PeerId,
    },
    /// End a connection. No `Disconnected` is awaited.
    Disconnect {
        /// Which one.
        conn: Conn,
        /// For the log of both sides.
        why: &'static str,
    },
    /// Send to the leader.
    ToLeader {
        /// On this connection.
        conn: Conn,
        /// This.
        message: ToLeader,
    },
    /// Send to a learner.
    ToLearner {
        /// On this connection.
        conn: Conn,
        /// This.
        message: ToLearner,
    },
    /// Send the entries with `after < zxid <= upto` to a learner, as [`ToLearner::Propose`] in as many messages as is
    /// handy. They are in the log (or in an `Append` that came out before).
    Replicate {
        /// On this connection.
        conn: Conn,
        /// Behind this one.
        after: Zxid,
        /// Up to this one.
        upto: Zxid,
        /// To be said with the first of the messages.
        commit: Option<Zxid>,
    },
    /// Send [`ToLearner::Snap`] and this state to a learner.
    SendSnapshot {
        /// On this connection.
        conn: Conn,
        /// A snapshot that exists.
        zxid: Zxid,
    },
    /// Append to the log; `Persisted` follows once durable. Several may be made durable together.
    Append(Vec<Entry>),
    /// Make everything appended so far durable, then these, atomically.
    PersistEpochs {
        /// Promised.
        accepted: Epoch,
        /// Synchronised.
        current: Epoch,
        /// As [`Durable::damage`].
        damage: Damage,
        /// As [`Durable::ensemble`].
        ensemble: Option<EnsembleId>,
        /// As [`Durable::committed`].
        committed: Zxid,
        /// As [`Durable::last_stamp`]: a snapshot does not tell it.
        last_stamp: Stamp,
    },
    /// Remove all entries behind `to` from the log, durably.
    Truncate {
        /// The last one that stays.
        to: Zxid,
    },
    /// The log starts anew behind the snapshot that was received.
    InstallSnapshot {
        /// Of this zxid.
        zxid: Zxid,
        /// The feature level there.
        level: Level,
    },
    /// Entries up to here may be removed from the log.
    Purge {
        /// A durable snapshot covers it.
        upto: Zxid,
    },
    /// Entries up to here are committed and durable here: the store may have them.
    Committed {
        /// Last such entry.
        upto: Zxid,
    },
    /// Tell the store, behind everything that was said before.
    Tell(FeedItem),
    /// Tell the store, at once: this stands in no order with what else it is told.
    Sign(Sign),
    /// Answer to [`Input::SetLevel`].
    LevelSet {
        /// From the question.
        ticket: Ticket,
        /// The level, once that is committed.
        result: Result<Level, LevelRefusal>,
    },
    /// [`Input::Leave`] is done: no server depends on this one any more, or none could take over from it.
    Left,
    /// An invariant of ours or of the ensemble is broken: stop the node with this message.
    Fatal(String),
}
