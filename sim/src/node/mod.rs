//! A node: the production cores in a small synchronous shell that does what the services' shells do, in their order.

mod acquaintances;
mod disk;
mod election;
mod quorum;
mod sender;
mod store;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::chance::mix;
use api::{Build, Ensemble, EnsembleId, Epoch, Levels, Member, Membership, Now, PeerId, Ticket, Time, Zxid};
use quorum_core::{Durable, Zab};
use quorum_log::{Crash, Disk, MemDisk, SnapshotError, Snapshots, Storage, StorageError, StorageOptions};
use quorum_shell::{Failure, LogView, LogWorker, Met, Shell, snap_before};
use store_core::{Server, State, server};

use crate::context::{Context, Event, NodeEvent};
use crate::net::{End, Kind, LinkId};
use crate::plan::Plan;
use acquaintances::Acquaintances;
use election::ElectionShell;
use quorum::{Happened, QuorumShell};
use store::StoreShell;
use table::Table;

/// Where the wall clocks begin, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// Why a node stops by itself.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The disk failed. Restarted, it may work.
    Disk(String),
    /// What the node reads of its own log is not what it wrote. It heals when it is started again.
    Damage(String),
    /// Something that cannot be true is.
    Invariant(String),
}

impl From<quorum_log::LogError> for Stop {
    fn from(e: quorum_log::LogError) -> Stop {
        match e {
            quorum_log::LogError::NotChained { .. } | quorum_log::LogError::NotInHistory { .. } => {
                Stop::Invariant(e.to_string())
            }
            quorum_log::LogError::Damaged { .. } => Stop::Damage(e.to_string()),
            _ => Stop::Disk(e.to_string()),
        }
    }
}

impl From<quorum_log::EpochError> for Stop {
    fn from(e: quorum_log::EpochError) -> Stop {
        match e {
            quorum_log::EpochError::Disk(_) | quorum_log::EpochError::Poisoned { .. } => {
                Stop::Disk(e.to_string())
            }
            _ => Stop::Invariant(e.to_string()),
        }
    }
}

impl From<quorum_log::IncarnationError> for Stop {
    fn from(e: quorum_log::IncarnationError) -> Stop {
        Stop::Disk(e.to_string())
    }
}

impl From<SnapshotError> for Stop {
    fn from(e: SnapshotError) -> Stop {
        Stop::Disk(e.to_string())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        match failure {
            Failure::Log(e) => e.into(),
            Failure::Epochs(e) => e.into(),
            Failure::Snapshots(e) => e.into(),
            Failure::Incarnations(e) => e.into(),
            Failure::Forsaken(_) | Failure::OlderCopy(_) => Stop::Disk(failure.to_string()),
            Failure::Short { .. } | Failure::Invariant(_) => Stop::Invariant(failure.to_string()),
        }
    }
}

/// A node, up or down, with what survives its process.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) id: PeerId,
    pub(crate) disk: MemDisk,
    pub(crate) table: Option<Table>,
    /// Raised with each start and end of the process.
    pub(crate) life: u64,
    pub(crate) up: Option<Box<Process>>,
    pub(crate) paused_until: u64,
    /// What happened while the process stood still.
    pub(crate) held: Vec<NodeEvent>,
    pub(crate) wall_ms: i64,
    /// Until this time every fsync takes up to this much longer.
    pub(crate) slow_disk: (u64, u64),
    /// The next start crashes at this change of the disk.
    pub(crate) crash_in_recovery: Option<u64>,
    /// This call to the disk fails in the next start.
    pub(crate) error_in_recovery: Option<quorum_log::Fault>,
    /// How often in a row its data could not be used.
    pub(crate) refusals: u32,
    /// The members in its configuration, if these are not all.
    pub(crate) believes: Option<Ensemble>,
    /// What is installed there: the feature levels that it knows.
    pub(crate) levels: Levels,
    drift_ppm: i64,
}

/// What dies with the process.
pub(crate) struct Process {
    /// True time of the start.
    started: u64,
    /// How far its clock has jumped ahead since then.
    ahead: u64,
    pub(crate) election: ElectionShell,
    pub(crate) quorum: QuorumShell,
    pub(crate) log: LogWorker,
    acquaintances: Acquaintances,
    pub(crate) snapshots: Snapshots,
    pub(crate) store: StoreShell,
    /// When to stop in good order, if it is to.
    pub(crate) leaving: Option<u64>,
    _data_dir: quorum_log::DataDir,
}

impl Node {
    pub(crate) fn new(index: usize, cx: &Context) -> Node {
        let member = cx.plan.members[index];
        Node {
            index,
            id: PeerId(index as u32 + 1),
            disk: MemDisk::new(),
            table: Some(Table::new()),
            life: 0,
            up: None,
            paused_until: 0,
            held: Vec::new(),
            wall_ms: EPOCH_MS + member.wall_ms,
            slow_disk: (0, 0),
            crash_in_recovery: None,
            error_in_recovery: None,
            refusals: 0,
            believes: None,
            levels: Levels::BUILD,
            drift_ppm: member.drift_ppm,
        }
    }

    fn build(&self) -> Build {
        Build { version: "sim".to_owned(), levels: self.levels }
    }

    pub(crate) fn end(&self) -> End {
        End::Node(self.index)
    }

    fn local(&self, started: u64, now: u64) -> u64 {
        let passed = now.saturating_sub(started);
        passed.saturating_add_signed((i128::from(passed) * i128::from(self.drift_ppm) / 1_000_000) as i64)
    }

    /// The node's own clock.
    pub(crate) fn time(&self, cx: &Context) -> Time {
        Time(self.up.as_ref().map_or(0, |p| self.local(p.started, cx.now) + p.ahead))
    }

    /// The node's own clock jumps. What waits for it is due at once.
    pub(crate) fn jump_ahead(&mut self, cx: &mut Context, by: u64) {
        let Some(process) = &mut self.up else { return };
        process.ahead += by;
        let at_once = Armed(cx.now);
        (process.election.armed, process.quorum.armed, process.store.armed) = (at_once, at_once, at_once);
        for what in [NodeEvent::ElectionTimer, NodeEvent::QuorumTimer, NodeEvent::StoreTimer] {
            self.schedule(cx, cx.now, what);
        }
    }

    fn now(&self, cx: &Context) -> Now {
        Now { mono: self.time(cx), wall_ms: self.wall_ms + (cx.now / 1000) as i64 }
    }

    /// When the node's own clock shows `time`; a moment later rather than earlier.
    fn when(&self, time: Time) -> u64 {
        let (started, ahead) = self.up.as_ref().map_or((0, 0), |p| (p.started, p.ahead));
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        started.saturating_add(
            u64::try_from(i128::from(time.0.saturating_sub(ahead)) * 1_000_000 / rate)
                .unwrap_or(u64::MAX / 2)
                + 1,
        )
    }

    fn schedule(&self, cx: &mut Context, at: u64, what: NodeEvent) {
        cx.schedule(at, Event::Node { node: self.index, life: self.life, what });
    }

    /// The members in its settings. One that joins later knows the others, and does not count itself.
    pub(crate) fn first_members(&self, cx: &Context) -> Ensemble {
        let all = cx.ghost.ensemble();
        if !cx.plan.members[self.index].joins {
            return all.clone();
        }
        let others = all.members().map(|(id, membership)| Member { id, membership });
        let me = Member { id: self.id, membership: Membership::Observer };
        Ensemble::new(others.chain([me])).unwrap_or_else(|_| all.clone())
    }

    fn open_storage(&self, plan: &Plan, members: &Ensemble) -> Result<Storage, StorageError> {
        let options = StorageOptions {
            ensemble: "sim".into(),
            id: self.id,
            log_dir: None,
            members: members.clone(),
            segment_bytes: plan.sizes.segment,
            window_bytes: 0,
            index_interval_bytes: 256,
            may_heal: members.voters().any(|voter| voter != self.id),
            // Any number will do: no client of the simulator looks at the disk.
            secret: self.life << 32 | u64::from(self.id.0),
            // No life is counted twice, under any faults of the disk.
            run: self.life,
            build: self.build(),
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        Storage::open(&disk, &PathBuf::from("/node"), &options)
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, cx: &mut Context) -> Result<(), StorageError> {
        let sizes = cx.plan.sizes;
        let settings = self.believes.clone().unwrap_or_else(|| self.first_members(cx));
        if let Some(step) = self.crash_in_recovery.take() {
            self.disk.power_off_after(step);
        }
        if let Some(fault) = self.error_in_recovery.take() {
            self.disk.fail(fault);
        }
        let storage = self.open_storage(&cx.plan, &settings)?;
        let ensemble = storage.data_dir.members().clone();
        let Storage { data_dir, log, epochs, incarnations, snapshots, salvaged, promises, .. } = storage;
        if let Some(salvaged) = salvaged {
            cx.stats.count("damaged logs salvaged");
            cx.note(self.name(), || format!("healing its log: {}", salvaged.found));
            if !cx.ghost.disks[self.index].impaired {
                let text = format!("node {} takes its log for damaged: {}", self.id, salvaged.found);
                cx.ghost.fail("a crash is no damage", text);
            }
        }
        let history = log.history().clone();
        cx.ghost.recovered(self.index, &history, promises.accepted, promises.current);
        cx.note(self.name(), || {
            format!("starts: log to {}, epochs {}/{}", history.last(), promises.accepted, promises.current)
        });
        let snapshot = snapshots.latest();
        let durable = Durable {
            accepted_epoch: promises.accepted,
            current_epoch: promises.current,
            history,
            levels: log.levels(),
            rosters: log.rosters(),
            snapshot,
            snap_before: snapshot
                .map_or(Zxid::ZERO, |zxid| snap_before(&log.reader(), &snapshots, zxid, sizes.snap_slack)),
            last_stamp: promises.last_stamp,
            damage: promises.damage,
            ensemble: promises.ensemble,
            committed: promises.committed,
        };
        let timing = cx.plan.timing;
        let core = quorum_core::Config {
            me: self.id,
            ensemble: ensemble.clone(),
            draw: EnsembleId(u128::from(cx.rng.draw()) << 32 | u128::from(self.life)),
            init_limit: Duration::from_millis(timing.init_limit),
            sync_limit: Duration::from_millis(timing.sync_limit),
            ping_interval: Duration::from_millis(timing.ping),
            commit_delay: quorum_core::COMMIT_DELAY,
            park_limit: Duration::from_millis(timing.park),
            requests_max: sizes.requests,
            request_bytes_max: sizes.request_bytes,
            levels: self.levels,
            counter_max: sizes.counter_max,
        };
        let state = self.open_table(cx);
        let first_ticket = Ticket((self.wall_ms + (cx.now / 1000) as i64).unsigned_abs() << 22);
        let limits = server::Limits {
            session_timeout_min: Duration::from_millis(500),
            park: Duration::from_millis(timing.park),
            catch_up: Duration::from_millis(timing.park / 2),
            history_entries: cx.plan.history_entries(),
            check_interval: Duration::from_micros(cx.plan.check_interval_us()),
            reap_interval: Duration::from_millis(200),
            container_unused: Duration::from_millis(cx.plan.container_unused_ms()),
            ..server::Limits::default()
        };
        let config = server::Config { me: self.id, first_ticket, limits };
        let applied = state.applied();
        let view = LogView::new(log.reader(), log.history().last(), sizes.recent);
        self.life += 1;
        let peers = (0..cx.plan.members.len()).filter(|&p| p != self.index);
        let met = Met::new(incarnations);
        let acquaintances = Acquaintances::new(met.clone(), peers, promises.current > Epoch(0));
        let finalize_wait = Duration::from_millis(timing.finalize_wait);
        let base = durable.history.base();
        let shell = Shell::new(Zab::new(core, durable), view, self.id, base);
        self.up = Some(Box::new(Process {
            started: cx.now,
            ahead: 0,
            election: ElectionShell::new(self.id, ensemble, finalize_wait),
            quorum: QuorumShell::new(shell),
            log: LogWorker::new(log, epochs, snapshots.clone(), met),
            acquaintances,
            snapshots,
            store: StoreShell::new(Server::new(Time(0), config, state), applied),
            leaving: None,
            _data_dir: data_dir,
        }));
        self.refusals = 0;
        self.begin_elections(cx);
        self.begin_meetings(cx);
        self.happened(cx, Happened::Attach { applied });
        self.wake_store(cx);
        let at = cx.now + KEEP_EVERY;
        self.schedule(cx, at, NodeEvent::Keep);
        Ok(())
    }

    fn open_table(&mut self, cx: &mut Context) -> State {
        // Other hashes on each node and in each life: nothing that is compared may depend on them.
        let seed = mix(cx.plan.seed ^ u64::from(self.id.0) << 32 ^ self.life);
        match self.table.get_or_insert_with(Table::new).load(seed) {
            Ok(state) => state,
            Err(e) => {
                cx.ghost
                    .fail("I15 checkpoint", format!("the checkpoint of node {} is no state: {e}", self.id));
                State::seeded(seed)
            }
        }
    }

    /// For traces.
    pub(crate) fn name(&self) -> String {
        format!("node {}", self.id)
    }

    /// The process is gone. `silent`: its connections do not end in good order, as when the power fails.
    pub(crate) fn stop(&mut self, cx: &mut Context, silent: bool, crash: Crash) {
        self.up = None;
        cx.ghost.died(self.id);
        self.life += 1;
        self.held.clear();
        self.paused_until = 0;
        self.disk.crash(crash);
        for link in cx.net.links_of(self.end()) {
            cx.net.end_lingers(link, self.end());
            if silent {
                let within = cx.rng.scale(1_000, 10_000_000);
                cx.ended(link, self.end());
                cx.break_link(link, within);
            } else {
                cx.close(link, self.end(), None);
            }
        }
    }

    /// Takes in what happened.
    pub(crate) fn on(&mut self, cx: &mut Context, event: NodeEvent) -> Result<(), Stop> {
        if self.up.is_none() {
            return Ok(());
        }
        match event {
            NodeEvent::Accepted { link } => self.on_accepted(cx, link),
            NodeEvent::Dialed { link, connected } => self.on_dialed(cx, link, connected),
            NodeEvent::Packet { link, packet } => self.on_packet(cx, link, packet)?,
            NodeEvent::Broken { link } => self.on_link_over(cx, link),
            NodeEvent::ElectionTimer => self.on_election_timer(cx),
            NodeEvent::QuorumTimer => self.on_quorum_timer(cx),
            NodeEvent::StoreTimer => self.on_store_timer(cx),
            NodeEvent::Heartbeat => self.on_heartbeat(cx),
            NodeEvent::QuorumTurn => self.quorum_turn(cx)?,
            NodeEvent::StoreTurn => self.store_turn(cx)?,
            NodeEvent::DiskDone => self.on_disk_done(cx)?,
            NodeEvent::Send { link } => self.on_send(cx, link)?,
            NodeEvent::DialElection { peer } => self.dial_election(cx, peer),
            NodeEvent::GreetLimit { link } => {
                let kind = self.kind(cx, link);
                self.not_greeted(cx, link, kind);
            }
            NodeEvent::Meet { peer } => drop(cx.dial(Kind::Meeting, self.end(), End::Node(peer))),
            NodeEvent::FirstMeetings => self.first_meetings_over(cx),
            NodeEvent::NewIncarnation => self.new_incarnation(cx)?,
            NodeEvent::DialLeader { leader } => self.dial_leader(cx, leader),
            NodeEvent::Checkpointed => self.on_checkpointed(cx)?,
            NodeEvent::SnapshotWritten => self.on_snapshot_written(cx)?,
            NodeEvent::Keep => self.keep(cx),
            NodeEvent::LeaveLimit => {
                if let Some(process) = &mut self.up
                    && process.leaving.is_some()
                {
                    process.quorum.gave_up = true;
                }
            }
        }
        Ok(())
    }

    fn kind(&self, cx: &Context, link: LinkId) -> Option<Kind> {
        cx.net.links.get(&link).map(|l| l.kind)
    }

    fn peer(&self, cx: &Context, link: LinkId) -> Option<usize> {
        let side = cx.net.side(link, self.end())?;
        match cx.net.links.get(&link)?.ends[1 - side] {
            End::Node(i) => Some(i),
            End::Client(_) => None,
        }
    }

    /// A task gets its turn within this time.
    fn turn_delay(&self, cx: &mut Context) -> u64 {
        let most = cx.plan.network.turn;
        cx.now + cx.rng.between(1, most)
    }

    /// Whether it serves, and everything committed has reached its store.
    pub(crate) fn at_rest(&self, committed: Zxid) -> bool {
        self.up.as_ref().is_some_and(|p| {
            p.quorum.shell.core().status().serving
                && p.store.shell.server.state().applied() == committed
                && p.log.is_idle()
        })
    }

    pub(crate) fn leads(&self) -> bool {
        self.up.as_ref().is_some_and(|p| {
            let status = p.quorum.shell.core().status();
            status.serving && status.role == api::ports::Role::Leading
        })
    }
}

/// The earliest event of a timer that is in the event queue: later ones need not be put there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed(u64);

impl Default for Armed {
    fn default() -> Armed {
        Armed(u64::MAX)
    }
}

impl Armed {
    /// Whether an event at `at` has to be scheduled.
    pub(crate) fn arm(&mut self, at: u64) -> bool {
        let earlier = at < self.0;
        self.0 = self.0.min(at);
        earlier
    }

    /// An event has come. False if it was put in place of by an earlier one.
    pub(crate) fn fired(&mut self, now: u64) -> bool {
        let newest = now >= self.0;
        if newest {
            self.0 = u64::MAX;
        }
        newest
    }
}

/// How often the store looks whether a checkpoint is due.
const KEEP_EVERY: u64 = 250_000;

/// By link.
type ByLink<T> = BTreeMap<LinkId, T>;
