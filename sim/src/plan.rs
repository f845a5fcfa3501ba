//! A run as data: everything that was drawn from the seed, so that it can be written down, shortened and run again.

use api::{Ensemble, EnsembleError, Member, Membership, PeerId};
use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Plan {
    /// Decides what is not written down here: delays, what clients ask, where a torn write tears.
    pub seed: u64,
    /// The nodes; ids are 1, 2, 3 ... in this order.
    pub members: Vec<MemberPlan>,
    /// How many clients.
    pub clients: u32,
    /// How long clients work and faults happen, in microseconds; then everything is healed.
    pub active_us: u64,
    /// Time limits of all nodes.
    pub timing: Timing,
    /// Sizes and bounds, mostly far smaller than in production.
    pub sizes: Sizes,
    /// What messages take.
    pub network: Network,
    /// What an fsync takes, in microseconds.
    pub fsync_us: (u64, u64),
    /// What clients do.
    pub workload: Workload,
    /// What goes wrong, in order of time.
    pub faults: Vec<TimedFault>,
    /// Data is lost also where the ensemble cannot bear it. Then something has to break: to see that it is noticed.
    #[serde(default)]
    pub reckless: bool,
}

/// One node.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct MemberPlan {
    /// `None` for an observer, else weight and group.
    pub voter: Option<(u32, u32)>,
    /// How much faster its clock runs, in millionths; may be negative.
    pub drift_ppm: i64,
    /// What its wall clock shows at the beginning, as difference from the true time in milliseconds.
    pub wall_ms: i64,
    /// It is no member at the first start, and may be added later. All such nodes come behind the others.
    #[serde(default)]
    pub joins: bool,
}

/// Time limits, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Timing {
    /// See `election_core::Config`.
    pub finalize_wait: u64,
    /// See `quorum_core::Config`.
    pub init_limit: u64,
    /// See `quorum_core::Config`.
    pub sync_limit: u64,
    /// See `quorum_core::Config`.
    pub ping: u64,
    /// See `quorum_core::Config`.
    pub park: u64,
    /// Time-out of sessions.
    pub session: u64,
}

/// Sizes and bounds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Sizes {
    /// Of a log segment, in bytes.
    pub segment: u64,
    /// Newest entries in memory, in bytes.
    pub recent: usize,
    /// Entries of one message or feed item, in bytes.
    pub batch: usize,
    /// Requests of a store under way.
    pub requests: usize,
    /// The same in bytes.
    pub request_bytes: usize,
    /// Entries after which a snapshot is due.
    pub snapshot_entries: u64,
    /// Bytes of a piece of a snapshot.
    pub piece: usize,
    /// Entries of the log that stay although a snapshot covers them.
    pub keep_entries: u64,
    /// A learner that lacks more than twice a snapshot and this many bytes gets the snapshot.
    pub snap_slack: u64,
    /// Unanswered requests that a client sends.
    pub window: usize,
    /// The greatest counter of an epoch.
    pub counter_max: u32,
}

/// What messages take, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Network {
    /// At least.
    pub min: u64,
    /// Usually at most.
    pub max: u64,
    /// How many of 1,000 take up to `spike`.
    pub spikes: u64,
    /// See `spikes`.
    pub spike: u64,
    /// Longest time that a task waits for its turn.
    pub turn: u64,
    /// Bytes per second that pass in each direction of each connection between nodes; 0: all of them at once.
    #[serde(default)]
    pub bandwidth: u64,
}

/// What clients do.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Workload {
    /// Pause between two requests of a client, at most, in microseconds.
    pub think: u64,
    /// Most unanswered requests of a client.
    pub depth: usize,
    /// How many different znodes.
    pub znodes: u64,
    /// Bytes of a value, at most.
    pub data: u64,
    /// Share of writes, of 1,000 requests.
    pub writes: u64,
    /// Share of syncs and of reads that are more than local among the others, of 1,000.
    pub fresh: u64,
    /// Share of requests that are made in a call of their own, outside of the session, of 1,000.
    #[serde(default)]
    pub unary: u64,
    /// Share of requests that end a session, of 1,000.
    pub closes: u64,
    /// Share of requests before which another takes the session up and uses a number of the client's, of 1,000.
    #[serde(default)]
    pub doubles: u64,
    /// How long a caller waits, in milliseconds; 0: without a limit.
    pub deadline: u64,
    /// Share of values near the limit, of 1,000.
    #[serde(default)]
    pub large: u64,
    /// Share of paths near the limit, of 1,000.
    #[serde(default)]
    pub long: u64,
    /// Share of clients that acknowledge no result as long as there are faults, of 1,000.
    #[serde(default)]
    pub mute: u64,
    /// Share of requests with one of the newer verbs: subtrees, quotas, several reads at once, walks, conditions by creation, of 1,000.
    #[serde(default)]
    pub verbs: u64,
}

/// Something that goes wrong.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct TimedFault {
    /// When, in microseconds from the beginning.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// A node by its id; 0 is the leader at that moment, or node 1.
pub type Target = u32;

/// What goes wrong. `node`, `a` and `b` say where, `down` how long a process is away, `lasts` how long something stays
/// as it is, both in microseconds.
#[allow(missing_docs, reason = "the fields are described above, and where they mean more at their variant")]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Fault {
    /// A process dies.
    Kill { node: Target, down: u64 },
    /// A node loses its power: what was not synced survives in part. `table`: the checkpoint is lost with it.
    PowerCut { node: Target, down: u64, table: bool },
    /// All nodes lose their power at once.
    PowerCutAll { down: u64 },
    /// The power goes at the `step`th change of the disk from now on.
    PowerCutAtStep { node: Target, step: u64, down: u64 },
    /// A process dies, and dies again at the `step`th change that its recovery makes.
    CrashInRecovery { node: Target, step: u64, down: u64 },
    /// A process stands still.
    Pause { node: Target, lasts: u64 },
    /// The machine of a client is suspended, and the client with it.
    Suspend { client: u32, lasts: u64 },
    /// The clock by which a node waits jumps ahead, as when a virtual machine is moved.
    ClockJump { node: Target, by: u64 },
    /// Nothing gets from one node to another, for each pair; ids above those of the nodes are clients.
    Partition { blocked: Vec<(u32, u32)>, lasts: u64 },
    /// The leader is cut off from all others; `hears`: only what it says does not get to them.
    IsolateLeader {
        lasts: u64,
        #[serde(default)]
        hears: bool,
    },
    /// The next leader that closes a silent session is cut off from all others before it has told them.
    IsolateAtClose { lasts: u64 },
    /// All connections between two nodes break; each end notices at its own time.
    Break { a: Target, b: Target },
    /// The one of these two that has dialled the other dials once more, though the connection is whole.
    DialAgain { a: Target, b: Target },
    /// What is said from now on over the present connections from `a` to `b` vanishes.
    BlackHole { a: Target, b: Target },
    /// Messages from `a` to `b` take `factor` times as long.
    Slow { a: Target, b: Target, factor: u64, lasts: u64 },
    /// At most `bandwidth` bytes per second pass from `a` to `b`, on each connection.
    Thin { a: Target, b: Target, bandwidth: u64, lasts: u64 },
    /// Every fsync takes up to `delay` longer.
    SlowDisk { node: Target, delay: u64, lasts: u64 },
    /// A call to the disk fails: the node stops and is started again, or does without what it wanted to read.
    DiskError { node: Target, op: u8, skip: u32, down: u64 },
    /// A process dies, and a call to the disk fails while it recovers.
    ErrorInRecovery { node: Target, op: u8, skip: u32, down: u64 },
    /// The disk is full for this time.
    DiskFull { node: Target, lasts: u64 },
    /// A process dies, and one bit of a file flips while it is down. `file` and `place` choose which.
    BitFlip { node: Target, file: u64, place: u64, down: u64 },
    /// One bit of a file of the log, or of a snapshot, flips under a process that goes on and does not know.
    BitFlipRunning { node: Target, file: u64, place: u64 },
    /// A bit flips in the memory of a store that does not lead: in a session of its state.
    StateFlip { node: Target },
    /// A node loses its data directory.
    Wipe { node: Target, down: u64 },
    /// A copy is made of a node's directory, as of a volume while the node runs. Some time `later` its process dies, and the copy
    /// is put in the place of the directory. `table`: the checkpoint stays as it is, else it is lost.
    OlderCopy { node: Target, later: u64, down: u64, table: bool },
    /// A process dies and its checkpoint is lost.
    LoseTable { node: Target, down: u64 },
    /// The wall clock jumps.
    WallJump { node: Target, ms: i64 },
    /// A node is told to stop: it hands over first.
    Leave { node: Target, down: u64 },
    /// A process dies, and in its place a node with its id speaks to all others that is of another ensemble of the same name, or
    /// with `members` of this one with another list of members.
    Stranger { node: Target, members: bool, lasts: u64 },
    /// A process dies, and is started with another list of members; which, `list` says.
    OtherMembers { node: Target, list: u64, lasts: u64 },
    /// A process is stopped, and a newer build, which knows one feature level more, is started in its place.
    Upgrade { node: Target, down: u64 },
    /// An operator asks this node to raise the feature level.
    Raise { node: Target },
    /// An operator asks this node for other members; which, `list` says.
    Reconfigure { node: Target, list: u64 },
}

impl Fault {
    /// For counts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::PowerCut { .. } => "power cut",
            Fault::PowerCutAll { .. } => "power cut of all",
            Fault::PowerCutAtStep { .. } => "power cut at a step",
            Fault::CrashInRecovery { .. } => "crash in recovery",
            Fault::Pause { .. } => "pause",
            Fault::Suspend { .. } => "suspended client",
            Fault::ClockJump { .. } => "clock jump",
            Fault::Partition { .. } => "partition",
            Fault::IsolateLeader { .. } => "leader isolated",
            Fault::IsolateAtClose { .. } => "leader isolated as it closes a session",
            Fault::Break { .. } => "broken connections",
            Fault::DialAgain { .. } => "duplicate connection",
            Fault::BlackHole { .. } => "black hole",
            Fault::Slow { .. } => "slow link",
            Fault::Thin { .. } => "thin link",
            Fault::SlowDisk { .. } => "slow disk",
            Fault::DiskError { .. } => "disk error",
            Fault::ErrorInRecovery { .. } => "disk error in recovery",
            Fault::DiskFull { .. } => "disk full",
            Fault::BitFlip { .. } => "bit flip",
            Fault::BitFlipRunning { .. } => "bit flip under a process",
            Fault::StateFlip { .. } => "bit flip in a state",
            Fault::Wipe { .. } => "wiped disk",
            Fault::OlderCopy { .. } => "older copy",
            Fault::LoseTable { .. } => "lost checkpoint",
            Fault::WallJump { .. } => "wall clock jump",
            Fault::Leave { .. } => "hand-over",
            Fault::Stranger { .. } => "stranger",
            Fault::OtherMembers { .. } => "other members",
            Fault::Upgrade { .. } => "upgrade",
            Fault::Raise { .. } => "raise of the level",
            Fault::Reconfigure { .. } => "change of the members",
        }
    }
}

impl Plan {
    /// The members at the first start.
    ///
    /// # Errors
    /// If no member could lead.
    pub fn ensemble(&self) -> Result<Ensemble, EnsembleError> {
        Ensemble::new((1..).zip(&self.members).filter(|(_, m)| !m.joins).map(|(id, m)| Member {
            id: PeerId(id),
            membership: match m.voter {
                Some((weight, group)) => Membership::Voter { weight, group },
                None => Membership::Observer,
            },
        }))
    }

    /// How long a container may be there that never had a child, in milliseconds; 0: for ever.
    #[must_use]
    pub fn container_unused_ms(&self) -> u64 {
        (self.seed & 1) * 500
    }

    /// How many changes a node keeps for watches. In some runs so few that clients that come back find that they do not reach back to
    /// where they were, and in some of those hardly any.
    #[must_use]
    pub fn history_entries(&self) -> usize {
        match (self.seed.is_multiple_of(3), self.takes_slowly()) {
            (_, true) => 4,
            (true, _) => 48,
            _ => 1 << 20,
        }
    }

    /// Whether every other client takes what it is sent slowly, so that it falls behind its watches.
    #[must_use]
    pub fn takes_slowly(&self) -> bool {
        self.seed.is_multiple_of(6)
    }

    /// Time between two checks of the stores' states, in microseconds: as in production, or so short that they compare what has
    /// flipped before the run ends.
    #[must_use]
    pub fn check_interval_us(&self) -> u64 {
        let flips = self.faults.iter().any(|timed| matches!(timed.fault, Fault::StateFlip { .. }));
        if flips { 1_500_000 } else { 10_000_000 }
    }

    /// Three nodes without faults, with the time limits of production and one idle client: for measuring.
    #[must_use]
    pub fn quiet(seed: u64, active_us: u64) -> Plan {
        Plan {
            seed,
            members: vec![MemberPlan { voter: Some((1, 0)), drift_ppm: 0, wall_ms: 0, joins: false }; 3],
            clients: 1,
            active_us,
            timing: Timing {
                finalize_wait: 200,
                init_limit: 10_000,
                sync_limit: 1_000,
                ping: 200,
                park: 10_000,
                session: 10_000,
            },
            sizes: Sizes {
                segment: 1 << 20,
                recent: 1 << 20,
                batch: 256 << 10,
                requests: 4096,
                request_bytes: 16 << 20,
                snapshot_entries: 10_000,
                piece: 64 << 10,
                keep_entries: 1_000,
                snap_slack: 16 << 20,
                window: 4096,
                counter_max: u32::MAX,
            },
            network: Network { min: 100, max: 300, spikes: 0, spike: 0, turn: 20, bandwidth: 0 },
            fsync_us: (300, 1_500),
            workload: Workload {
                think: 2_000_000,
                depth: 1,
                znodes: 8,
                data: 100,
                writes: 500,
                fresh: 200,
                unary: 0,
                closes: 0,
                doubles: 0,
                deadline: 0,
                large: 0,
                long: 0,
                mute: 0,
                verbs: 0,
            },
            faults: Vec::new(),
            reckless: false,
        }
    }
}
