//! Every metric of Quorate. `docs/metrics.md` is made from this file.

use api::session::Verb;

use crate::define::{Definition, Group, Unit};
use crate::labels::{Closed, CpuMode, Label as _, Mode, Phase, Port, RoleLabel, TlsUse};
use crate::metric::{Metric, Source};
use crate::value::{By, ByName, ByPeer, Counter, Gauge, Histogram, UpDown};

/// Makes each metric a static of its own, and the list of all.
macro_rules! metrics {
    ($($group:ident { $($name:ident: $type:ty = $otel:literal [$unit:expr] $value:expr, $help:literal;)+ })+) => {
        $($(
            #[doc = $help]
            pub static $name: Metric<$type> = Metric::new(
                Definition { name: $otel, unit: $unit, help: $help, group: Group::$group },
                $value,
            );
        )+)+

        /// All of them, in the order of this file.
        pub(crate) fn all() -> &'static [&'static dyn Source] {
            static ALL: &[&dyn Source] = &[$($(&$name),+),+];
            ALL
        }
    };
}

use Unit::{Bytes, Count, Seconds};

const CLOSED_SLOTS: usize = <(Port, Closed)>::COUNT;
const REQUEST_SLOTS: usize = <(Verb, Phase)>::COUNT;

metrics! {
    Process {
        PROCESS_CPU_TIME: By<CpuMode, Counter, { CpuMode::COUNT }> = "process.cpu.time" [Seconds]
            By::new([const { Counter::new() }; CpuMode::COUNT]),
            "Processor time that this process has used.";
        PROCESS_MEMORY_USAGE: UpDown = "process.memory.usage" [Bytes] UpDown::new(),
            "Physical memory in use.";
        PROCESS_MEMORY_VIRTUAL: UpDown = "process.memory.virtual" [Bytes] UpDown::new(),
            "Address space in use.";
        PROCESS_THREAD_COUNT: UpDown = "process.thread.count" [Count("{thread}")] UpDown::new(),
            "Threads.";
        PROCESS_FD_COUNT: UpDown = "process.unix.file_descriptor.count" [Count("{file_descriptor}")] UpDown::new(),
            "Open files and connections.";
        PROCESS_FD_LIMIT: Gauge = "quorate.process.file_descriptor.limit" [Count("{file_descriptor}")] Gauge::new(),
            "Maximum number of open files and connections.";
        PROCESS_UPTIME: Gauge = "process.uptime" [Seconds] Gauge::new(),
            "Time since this process started.";
        DISK_AVAILABLE: Gauge = "quorate.disk.available" [Bytes] Gauge::new(),
            "Free space for this process on the file system of its data directory; 0 if it keeps nothing on disk.";
        DISK_CAPACITY: Gauge = "quorate.disk.capacity" [Bytes] Gauge::new(),
            "Size of that file system; 0 if this process keeps nothing on disk.";
        PORT_CONNECTIONS: By<Port, Gauge, { Port::COUNT }> = "quorate.port.connections" [Count("{connection}")]
            By::new([const { Gauge::new() }; Port::COUNT]),
            "Open connections of a port.";
        PORT_CONNECTIONS_LIMIT: By<Port, Gauge, { Port::COUNT }> = "quorate.port.connections.limit" [Count("{connection}")]
            By::new([const { Gauge::new() }; Port::COUNT]),
            "Maximum number of open connections of a port; of a port of members: connections whose member is not known. The node \
             closes further ones. 0 for a port that this process does not serve.";
        PORT_CONNECTIONS_CLOSED: By<(Port, Closed), Counter, CLOSED_SLOTS> = "quorate.port.connections.closed" [Count("{connection}")]
            By::new([const { Counter::new() }; CLOSED_SLOTS]),
            "Connections that the node closed or refused, by reason.";
        PORTS_PLAINTEXT: Gauge = "quorate.port.plaintext" [Count("{port}")] Gauge::new(),
            "Ports outside the loopback interface that accept plaintext, because of `insecure`.";
        TLS_CERTIFICATE_EXPIRES: By<TlsUse, Gauge, { TlsUse::COUNT }> = "quorate.tls.certificate.expires" [Seconds]
            By::new([const { Gauge::new() }; TlsUse::COUNT]),
            "When the certificate of these ports expires, as the time since 1970; 0 without TLS.";
        TLS_REVOCATIONS_EXPIRE: By<TlsUse, Gauge, { TlsUse::COUNT }> = "quorate.tls.revocations.expire" [Seconds]
            By::new([const { Gauge::new() }; TlsUse::COUNT]),
            "When the first revocation list of these ports expires, as the time since 1970; 0 without one.";
        TLS_RELOAD_FAILURES: Counter = "quorate.tls.reload.failures" [Count("{attempt}")] Counter::new(),
            "Attempts to use certificates, keys, authorities or revocation lists that have changed, and cannot be used.";
        AUDIT_RECORDS: Counter = "quorate.audit.records" [Count("{record}")] Counter::new(),
            "Records for the audit log.";
        AUDIT_LOST: Counter = "quorate.audit.lost" [Count("{record}")] Counter::new(),
            "Records that are not in the audit log, because the disk was too slow or gave errors.";
        AUDIT_STALLED: Counter = "quorate.audit.stalled" [Count("{attempt}")] Counter::new(),
            "Attempts to write the audit log that failed while clients waited (`audit.full` is \"block\").";
        RPC_SERVER_CALL_DURATION: ByName = "rpc.server.call.duration" [Seconds]
            ByName::new(("rpc_system_name", "grpc"), ["rpc_method", "rpc_response_status_code"]),
            "gRPC calls from their first header to their last trailer, so a stream counts when it ends. A call that the \
             client cancelled counts as CANCELLED.";
    }
    Election {
        ELECTION_STARTED: Counter = "quorate.election.started" [Count("{election}")] Counter::new(),
            "Elections that this node has begun, because it had no leader.";
        ELECTION_DURATION: Histogram = "quorate.election.duration" [Seconds] Histogram::times(),
            "Elections from their beginning on this node until it knew its leader; the count is the number of ended \
             elections.";
        ELECTION_LINKS: Gauge = "quorate.election.links" [Count("{peer}")] Gauge::new(),
            "Members with a connection to this node's election service.";
    }
    Quorum {
        QUORUM_ROLE: By<RoleLabel, Gauge, { RoleLabel::COUNT }> = "quorate.quorum.role" [Count("{role}")]
            By::new([const { Gauge::new() }; RoleLabel::COUNT]),
            "1 for the role of this node, 0 for the others.";
        QUORUM_SERVING: Gauge = "quorate.quorum.serving" [Count("{state}")] Gauge::new(),
            "1 while this node is synchronised with an established leader, or is one.";
        QUORUM_EPOCH: Gauge = "quorate.quorum.epoch" [Count("{epoch}")] Gauge::new(),
            "The epoch of the last leader that this node synchronised with.";
        QUORUM_UNSERVED_DURATION: Histogram = "quorate.quorum.unserved.duration" [Seconds] Histogram::times(),
            "Time that this node spent without a serving leader: election, discovery and synchronisation together.";
        QUORUM_UNCOMMITTED: Gauge = "quorate.quorum.uncommitted" [Count("{entry}")] Gauge::new(),
            "Entries at the end of this node's log that are not known to be committed.";
        QUORUM_COMMITTED: Counter = "quorate.quorum.committed" [Count("{entry}")] Counter::new(),
            "Entries that this node learned to be committed, without those of a received snapshot.";
        CLOCK_OFFSET: Gauge = "quorate.clock.offset" [Seconds] Gauge::new(),
            "Difference between this node's wall clock and the clocks of a quorum, ahead or behind. Above 10 s one of the two is \
             wrong. 0 while there is no leader.";
        QUORUM_STORES: Gauge = "quorate.quorum.stores" [Count("{store}")] Gauge::new(),
            "1 while this node's store is attached, 0 while it is away: the node then makes no snapshots, and its log grows \
             with every write.";
        PROPOSAL_DURATION: Histogram = "quorate.proposal.duration" [Seconds] Histogram::times(),
            "Writes of this node's store from their submission until they are in this node's log; on a learner this is the \
             round trip to the leader.";
        ACK_DURATION: Histogram = "quorate.ack.duration" [Seconds] Histogram::times(),
            "On the leader: entries from their proposal to a synchronised learner until it acknowledges that they are on \
             its disk. Each learner counts.";
        COMMIT_DURATION: Histogram = "quorate.commit.duration" [Seconds] Histogram::times(),
            "On the leader: entries from their append to its log until a quorum, and the leader itself, have them on disk.";
        PENDING_WRITES: Gauge = "quorate.writes.pending" [Count("{write}")] Gauge::new(),
            "Writes of this node's store that are not known to be committed.";
        PENDING_WRITES_SIZE: Gauge = "quorate.writes.pending.size" [Bytes] Gauge::new(),
            "Size of these writes.";
        PARKED_WRITES: Gauge = "quorate.writes.parked" [Count("{write}")] Gauge::new(),
            "Pending writes while this node has no leader, else 0. After `timing.park_limit` the node refuses those that no \
             leader has seen; only the next leader decides the outcome of the others.";
        REFUSED_WRITES: Counter = "quorate.writes.refused" [Count("{write}")] Counter::new(),
            "Writes that the quorum refused, because too many waited or there was no leader for too long.";
        LEARNERS: Gauge = "quorate.learners" [Count("{learner}")] Gauge::new(),
            "On the leader: connected learners.";
        LEARNER_LAG: ByPeer = "quorate.learner.lag" [Count("{entry}")] ByPeer::new(),
            "On the leader: entries that a learner has not acknowledged.";
        LEARNER_LAG_DURATION: ByPeer = "quorate.learner.lag.duration" [Seconds] ByPeer::new(),
            "On the leader: age of the oldest proposal that a learner has not acknowledged.";
        LEARNER_QUEUE: ByPeer = "quorate.learner.queue" [Count("{command}")] ByPeer::new(),
            "On the leader: commands that wait to be sent to a learner. They merge, so more than a few mean that the \
             learner does not read.";
        SYNC_STARTED: By<Mode, Counter, { Mode::COUNT }> = "quorate.sync.started" [Count("{synchronisation}")]
            By::new([const { Counter::new() }; Mode::COUNT]),
            "On the leader: synchronisations of learners that it began.";
        SYNC_DURATION: By<Mode, Histogram, { Mode::COUNT }> = "quorate.sync.duration" [Seconds]
            By::new([const { Histogram::times() }; Mode::COUNT]),
            "On the leader: from the beginning of a synchronisation until the stream has taken all of it.";
        SYNC_IO: By<Mode, Counter, { Mode::COUNT }> = "quorate.sync.io" [Bytes]
            By::new([const { Counter::new() }; Mode::COUNT]),
            "On the leader: entries, by weight, and pieces of snapshots handed to learners during synchronisations.";
        LOG_APPEND_DURATION: Histogram = "quorate.log.append.duration" [Seconds] Histogram::times(),
            "Writing a batch of entries to the log file.";
        LOG_FSYNC_DURATION: Histogram = "quorate.log.fsync.duration" [Seconds] Histogram::times(),
            "Making a batch durable (fdatasync). This is the floor of the latency of writes.";
        LOG_BATCH: Histogram = "quorate.log.batch" [Count("{entry}")] Histogram::numbers(),
            "Entries that one fdatasync made durable.";
        LOG_WRITTEN: Counter = "quorate.log.written" [Bytes] Counter::new(),
            "Entries written to the log, by weight.";
        LOG_BACKLOG: Gauge = "quorate.log.backlog" [Bytes] Gauge::new(),
            "Entries that wait to become durable, by weight.";
        DISK_ROOM: Gauge = "quorate.disk.room" [Count("{level}")] Gauge::new(),
            "0 while there is room on the disks of this node, 1 below the low-water mark `log.min_free`, 2 below half of it.";
        LOG_SIZE: Gauge = "quorate.log.size" [Bytes] Gauge::new(),
            "Written bytes in the files of the log.";
        LOG_SEGMENTS: Gauge = "quorate.log.segments" [Count("{file}")] Gauge::new(),
            "Files of the log.";
        SNAPSHOT_DURATION: Histogram = "quorate.snapshot.duration" [Seconds] Histogram::times(),
            "Making a snapshot file from the pieces of the store.";
        SNAPSHOT_SIZE: Gauge = "quorate.snapshot.size" [Bytes] Gauge::new(),
            "The newest snapshot of this run; 0 before the first.";
    }
    Store {
        REQUEST_DURATION: By<Verb, Histogram, { Verb::COUNT }> = "quorate.request.duration" [Seconds]
            By::new([const { Histogram::times() }; Verb::COUNT]),
            "Requests of clients from the socket until their answer is handed to the stream.";
        REQUEST_PHASE_DURATION: By<(Verb, Phase), Histogram, REQUEST_SLOTS> = "quorate.request.phase.duration" [Seconds]
            By::new([const { Histogram::times() }; REQUEST_SLOTS]),
            "Parts of the request duration: `queue` until the store begins with the request, `serve` from there to the \
             answer. For a write `serve` is the path through the quorum, which quorate.proposal.duration, \
             quorate.commit.duration and quorate.log.fsync.duration split further.";
        REQUEST_ERRORS: By<Verb, Counter, { Verb::COUNT }> = "quorate.request.errors" [Count("{request}")]
            By::new([const { Counter::new() }; Verb::COUNT]),
            "Requests that were answered with an error, including errors of the client such as a wrong version.";
        STORE_READY: Gauge = "quorate.store.ready" [Count("{state}")] Gauge::new(),
            "1 while this node serves clients.";
        STORE_CONNECTIONS: Gauge = "quorate.store.connections" [Count("{connection}")] Gauge::new(),
            "Session streams and calls that are under way.";
        STORE_APPLIED: Counter = "quorate.store.applied" [Count("{entry}")] Counter::new(),
            "Entries that were applied to the tree.";
        STORE_DIVERGED: Counter = "quorate.store.diverged" [Count("{state}")] Counter::new(),
            "States that the node discarded because their digest differed from the leader's: check memory and disk of the node.";
        WATCHES: Gauge = "quorate.watches" [Count("{watch}")] Gauge::new(),
            "Watches of the clients of this node.";
        WATCH_PATHS: Gauge = "quorate.watch.paths" [Count("{path}")] Gauge::new(),
            "Paths that they watch.";
        WATCH_SIZE: Gauge = "quorate.watch.size" [Bytes] Gauge::new(),
            "About what these watches and their paths take in memory. At its limit, a sixteenth of `limits.memory`, new watches are refused.";
        WATCH_STREAMS: Gauge = "quorate.watch.streams" [Count("{stream}")] Gauge::new(),
            "Session streams that have watches.";
        WATCH_EVENTS: Counter = "quorate.watch.events" [Count("{event}")] Counter::new(),
            "Events that were sent: one for each change and stream.";
        WATCH_LAGS: Counter = "quorate.watch.lags" [Count("{stream}")] Counter::new(),
            "How often a stream did not take its events as fast as they came, and was sent the rest from the history later.";
        WATCH_GONE: Counter = "quorate.watch.gone" [Count("{watch}")] Counter::new(),
            "Watches that ended because the history did not reach back to where they were: their clients read the state again.";
        WATCH_REFUSED: Counter = "quorate.watch.refused" [Count("{watch}")] Counter::new(),
            "Watches that were refused, by a limit or for a fault of the request.";
        WATCH_HISTORY: Gauge = "quorate.watch.history.changes" [Count("{change}")] Gauge::new(),
            "Changes in the history from which watches are resumed.";
        WATCH_HISTORY_SIZE: Gauge = "quorate.watch.history.size" [Bytes] Gauge::new(),
            "About what they take in memory.";
        WATCH_HISTORY_AGE: Gauge = "quorate.watch.history.age" [Seconds] Gauge::new(),
            "How far back the history reaches from the last entry, by the leader's clock. A client that comes back later than this \
             has to read the state again.";
        SESSIONS: Gauge = "quorate.sessions" [Count("{session}")] Gauge::new(),
            "Open sessions of the whole ensemble, as this node knows them.";
        ZNODES: Gauge = "quorate.znodes" [Count("{znode}")] Gauge::new(),
            "Znodes, the root among them.";
        DATA_SIZE: Gauge = "quorate.data.size" [Bytes] Gauge::new(),
            "Paths and values of all znodes.";
        CHECKPOINT_DURATION: Histogram = "quorate.checkpoint.duration" [Seconds] Histogram::times(),
            "Writing a checkpoint of the tree.";
        CHECKPOINT_FAILURES: Counter = "quorate.checkpoint.failures" [Count("{checkpoint}")] Counter::new(),
            "Checkpoints that could not be written. The node continues and retries later.";
        CHECKPOINT_SIZE: Gauge = "quorate.checkpoint.size" [Bytes] Gauge::new(),
            "The directory of the checkpoint on disk.";
        CHECKPOINT_DIRTY: Gauge = "quorate.checkpoint.dirty" [Count("{record}")] Gauge::new(),
            "Changed records that wait for the next checkpoint; all records while a whole state does.";
    }
    Gateway {
        GATEWAY_REQUESTS: Counter = "quorate.gateway.requests" [Count("{request}")] Counter::new(),
            "Requests of ZooKeeper's clients, with handshakes and pings.";
        GATEWAY_REQUEST_DURATION: Histogram = "quorate.gateway.request.duration" [Seconds] Histogram::times(),
            "The same from their last byte until the reply is encoded. A ping waits until the leader has counted it.";
        GATEWAY_WORDS: Counter = "quorate.gateway.words" [Count("{word}")] Counter::new(),
            "Four letter words that were answered or refused.";
    }
}
