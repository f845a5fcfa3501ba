//! What nodes, clients and network share: time, what is to happen, chance, and what only the observer knows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Display;
use std::rc::Rc;

use api::Zxid;
use api::chance::Chance;

use crate::ghost::Ghost;
use crate::net::End;
use crate::net::{LinkId, Net};
use crate::plan::Plan;
use crate::report::Stats;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// At a node, if it is still in the same life.
    Node { node: usize, life: u64, what: NodeEvent },
    /// At a client.
    Client { client: usize, what: ClientEvent },
    /// A wish to connect arrives.
    Dialing { link: LinkId },
    /// The answer arrives.
    Dialed { link: LinkId, connected: bool },
    /// Packets arrive that were sent by end `side`.
    Arrival { link: LinkId, side: usize },
    /// No end takes in anything from this connection any more.
    Forget { link: LinkId },
    /// End `side` notices that the connection is broken.
    Broken { link: LinkId, side: usize },
    /// A process starts.
    Start { node: usize, life: u64 },
    /// A process goes on after a pause.
    Resume { node: usize },
    /// A client's machine goes on after it was suspended.
    ResumeClient { client: usize },
    /// The fault of this number in the plan.
    Fault(usize),
    /// A partition ends.
    Unblock { pairs: Rc<[(crate::net::End, crate::net::End)]> },
    /// A slow way is as fast as ever.
    SpeedUp { from: crate::net::End, to: crate::net::End },
    /// As many bytes pass as ever.
    Widen { from: crate::net::End, to: crate::net::End },
    /// A node gets the older copy of its directory of this number.
    PutBack { node: usize, copy: usize, down: u64 },
    /// The configuration of a node has the right members again.
    RightMembers { node: usize },
    /// The disk of a node has room again.
    DiskRoom { node: usize },
    /// All faults end.
    Heal,
    /// A look at whether the ensemble has come to rest.
    Probe,
}

/// Something that happens at a node.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    Accepted {
        link: LinkId,
    },
    Dialed {
        link: LinkId,
        connected: bool,
    },
    Packet {
        link: LinkId,
        packet: crate::net::Packet,
    },
    Broken {
        link: LinkId,
    },
    ElectionTimer,
    QuorumTimer,
    StoreTimer,
    /// Election links are kept alive and watched.
    Heartbeat,
    /// The quorum's loop goes round.
    QuorumTurn,
    /// The store's loop goes round.
    StoreTurn,
    /// The log thread has done what it began.
    DiskDone,
    /// The task that sends to a learner goes on.
    Send {
        link: LinkId,
    },
    /// Time to dial a peer's election port.
    DialElection {
        peer: usize,
    },
    /// Time to dial the leader.
    DialLeader {
        leader: usize,
    },
    /// The wait for the first message of a peer that was dialled is over.
    GreetLimit {
        link: LinkId,
    },
    /// Time to meet a peer.
    Meet {
        peer: usize,
    },
    /// The wait for peers that were not met by now is over.
    FirstMeetings,
    /// Time for a new incarnation of the directory.
    NewIncarnation,
    /// The checkpoint thread has done what it began.
    Checkpointed,
    /// The snapshot is written out.
    SnapshotWritten,
    /// Time to look whether a checkpoint is due.
    Keep,
    /// The operator loses patience with a node that is to leave.
    LeaveLimit,
}

/// Something that happens at a client.
#[derive(Debug)]
pub(crate) enum ClientEvent {
    Dialed {
        link: LinkId,
        connected: bool,
    },
    Packet {
        link: LinkId,
        packet: crate::net::Packet,
    },
    Broken {
        link: LinkId,
    },
    Timer,
    /// The application has an idea.
    Think,
    /// The application waits no longer for the answer of a call.
    GiveUp {
        link: LinkId,
    },
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Where the lines of a trace go.
pub type TraceSink = Box<dyn FnMut(&str)>;

/// See the [module](self).
pub(crate) struct Context {
    /// True time in microseconds.
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    numbers: u64,
    pub(crate) rng: Chance,
    pub(crate) plan: Rc<Plan>,
    pub(crate) net: Net,
    pub(crate) ghost: Ghost,
    pub(crate) stats: Stats,
    pub(crate) trace: Option<TraceSink>,
    /// Faults are over.
    pub(crate) healed: bool,
    /// See [`Fault::IsolateAtClose`](crate::plan::Fault::IsolateAtClose): for how long.
    pub(crate) cut_at_close: Option<u64>,
    /// The greatest zxid that any client has seen: what one client may tell another.
    pub(crate) seen: Zxid,
}

impl Context {
    pub(crate) fn new(plan: Rc<Plan>, ghost: Ghost, trace: Option<TraceSink>) -> Context {
        Context {
            now: 0,
            queue: BinaryHeap::new(),
            numbers: 0,
            rng: Chance::stream(plan.seed, 2),
            net: Net::new(plan.members.len(), plan.clients as usize),
            plan,
            ghost,
            stats: Stats::default(),
            trace,
            cut_at_close: None,
            healed: false,
            seen: Zxid::ZERO,
        }
    }

    /// Blocks these ways for a time.
    pub(crate) fn block(&mut self, pairs: Rc<[(End, End)]>, lasts: u64) {
        for &(from, to) in pairs.iter() {
            self.net.block(from, to, true);
        }
        let at = self.now + lasts;
        self.schedule(at, Event::Unblock { pairs });
    }

    /// This node and all others, or only what it says.
    pub(crate) fn cut_off(&mut self, node: usize, hears: bool, lasts: u64) {
        let node = End::Node(node);
        let others = (0..self.plan.members.len()).map(End::Node).filter(|&e| e != node);
        let both = |e| [(node, e)].into_iter().chain((!hears).then_some((e, node)));
        self.block(others.flat_map(both).collect(), lasts);
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.numbers += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), number: self.numbers, event }));
    }

    /// The next event; time moves on to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(Scheduled { at, event, .. }) = self.queue.pop()?;
        (self.now, self.ghost.now) = (at, at);
        Some(event)
    }

    /// Writes a line of the trace.
    pub(crate) fn note<T: Display>(&mut self, who: impl Display, what: impl FnOnce() -> T) {
        if let Some(sink) = &mut self.trace {
            let (s, us) = (self.now / 1_000_000, self.now % 1_000_000);
            sink(&format!("{s:>4}.{us:06} {who:<9} {}", what()));
        }
    }
}
