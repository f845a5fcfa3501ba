//! One run: a whole ensemble with its clients, moved event by event.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use api::{Greeting, PeerId};
use history::{History, Operation};
use quorum_log::Crash;

use crate::client::Client;
use crate::context::{ClientEvent, Context, Event, NodeEvent, TraceSink};
use crate::faults::{NEWER, OlderCopy};
use crate::ghost::Ghost;
use crate::net::{End, LinkId, Packet};
use crate::node::{Node, Stop};
use crate::plan::Plan;
use crate::report::{Report, Violation};

/// How often the end is looked at.
const PROBE: u64 = 50_000;
/// What a search for a linearization may cost, in steps, for each group of znodes.
const SEARCH_STEPS: u64 = 10_000;

pub(crate) struct World {
    pub(crate) cx: Context,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    operations: Vec<Operation>,
    /// Older copies of directories that may be put back.
    pub(crate) copies: Vec<OlderCopy>,
    /// Connections of strangers that stand in for a node, and what they say of themselves.
    pub(crate) strangers: BTreeMap<LinkId, (usize, Rc<Greeting>)>,
    healed_at: Option<u64>,
    /// Of the operator's questions.
    pub(crate) tickets: u64,
    over: bool,
}

/// Runs a plan to its end, or to the first invariant that does not hold.
#[must_use]
pub fn run(plan: &Plan, trace: Option<TraceSink>) -> Report {
    let ensemble = match plan.ensemble() {
        Ok(ensemble) => ensemble,
        Err(e) => return failed("plan", e.to_string()),
    };
    let plan = Rc::new(plan.clone());
    let ghost = Ghost::new(ensemble, &plan);
    let mut cx = Context::new(plan.clone(), ghost, trace);
    let nodes: Vec<Node> = (0..plan.members.len()).map(|i| Node::new(i, &cx)).collect();
    for node in &nodes {
        cx.ghost.clock_set(node.id, node.wall_ms);
    }
    let clients = (0..plan.clients as usize).map(|i| Client::new(i, &mut cx)).collect();
    let mut world = World {
        cx,
        nodes,
        clients,
        operations: Vec::new(),
        copies: Vec::new(),
        strangers: BTreeMap::new(),
        healed_at: None,
        tickets: 0,
        over: false,
    };
    world.prepare();
    world.go();
    world.judge()
}

fn failed(invariant: &str, what: String) -> Report {
    let violation = Violation { invariant: invariant.into(), what, at: 0 };
    Report { violation: Some(violation), stats: Default::default(), history: History::default() }
}

impl World {
    fn prepare(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.cx.rng.below(300_000);
            self.cx.schedule(at, Event::Start { node, life: 0 });
        }
        let plan = self.cx.plan.clone();
        for (number, fault) in plan.faults.iter().enumerate() {
            self.cx.schedule(fault.at, Event::Fault(number));
        }
        self.cx.schedule(plan.active_us, Event::Heal);
    }

    fn go(&mut self) {
        while !self.over
            && self.cx.ghost.violation.is_none()
            && let Some(event) = self.cx.next()
        {
            self.cx.stats.steps += 1;
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step(event)));
            if let Err(panic) = stepped {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                    .unwrap_or_default();
                self.cx.ghost.fail("no panic", text);
            }
        }
        self.cx.ghost.run_over();
        self.cx.stats.count_more("znodes reaped", self.cx.ghost.reaped);
        self.cx.stats.runs = 1;
        self.cx.stats.simulated_us = self.cx.now;
        self.cx.stats.commits = self.cx.ghost.committed().len() as u64;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Node { node, life, what } => {
                if self.nodes[node].life == life {
                    self.at_node(node, what);
                }
            }
            Event::Client { client, what } => self.at_client(client, what),
            Event::Dialing { link } => self.on_dialing(link),
            Event::Dialed { link, connected } => {
                if let Some((node, greeting)) = self.strangers.get(&link).cloned() {
                    if connected {
                        self.stranger_speaks(link, node, greeting);
                    }
                    return;
                }
                if let Some(end) = self.end(link, 0) {
                    self.tell(end, What::Dialed { link, connected });
                }
            }
            Event::Arrival { link, side } => {
                for packet in self.cx.arrivals(link, side) {
                    if self.cx.net.takes(link, 1 - side, self.cx.now)
                        && let Some(end) = self.cx.net.links.get(&link).map(|l| l.ends[1 - side])
                    {
                        let open = self.cx.net.is_open(link, end);
                        if !open {
                            self.cx.stats.count("packets of connections that were ended");
                        }
                        self.tell(end, What::Packet { link, packet });
                    }
                }
            }
            Event::Forget { link } => self.cx.forget_if_over(link),
            Event::Broken { link, side } => {
                if let Some(end) = self.end(link, side) {
                    self.tell(end, What::Broken { link });
                }
            }
            Event::Start { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].up.is_none() {
                    self.start(node);
                }
            }
            Event::Resume { node } => self.resume(node),
            Event::ResumeClient { client } => {
                self.clients[client].resume(&mut self.cx, &mut self.operations);
            }
            Event::Fault(number) => self.inject(number),
            Event::Unblock { pairs } => {
                for &(from, to) in pairs.iter() {
                    self.cx.net.block(from, to, false);
                }
                self.cx.resume_links();
            }
            Event::SpeedUp { from, to } => self.cx.net.slow_down(from, to, 1),
            Event::Widen { from, to } => self.cx.widen(from, to),
            Event::PutBack { node, copy, down } => self.put_back(node, copy, down),
            Event::RightMembers { node } => self.right_members(node),
            Event::DiskRoom { node } => self.nodes[node].disk.set_capacity(u64::MAX),
            Event::Heal => self.heal(),
            Event::Probe => self.probe(),
        }
    }

    /// The process at an end of a connection, if it still has it.
    fn end(&self, link: LinkId, side: usize) -> Option<End> {
        self.cx.net.links.get(&link).filter(|l| l.open[side]).map(|l| l.ends[side])
    }

    fn tell(&mut self, end: End, what: What) {
        match end {
            End::Node(node) => self.at_node(node, what.for_node()),
            End::Client(client) => self.at_client(client, what.for_client()),
        }
    }

    fn on_dialing(&mut self, link: LinkId) {
        let Some(to) = self.cx.net.links.get(&link).map(|l| l.ends[1]) else { return };
        let End::Node(node) = to else { return };
        let target = &self.nodes[node];
        let listening = match &target.up {
            None => Some(false),
            Some(_) if target.paused_until > self.cx.now => None,
            Some(_) => Some(true),
        };
        if self.cx.on_dialing(link, listening) {
            self.at_node(node, NodeEvent::Accepted { link });
        }
    }

    fn at_client(&mut self, client: usize, event: ClientEvent) {
        self.clients[client].on(&mut self.cx, &mut self.operations, event);
    }

    pub(crate) fn at_node(&mut self, node: usize, event: NodeEvent) {
        let target = &mut self.nodes[node];
        if target.paused_until > self.cx.now {
            target.held.push(event);
            return;
        }
        let went = target.on(&mut self.cx, event);
        let leaves = target.up.as_ref().is_some_and(|p| p.leaving.is_some() && p.quorum.has_left());
        match went {
            _ if target.disk.is_off() => self.lose_power(node),
            Ok(()) if leaves => self.finish_leaving(node),
            Ok(()) => {}
            Err(stop @ (Stop::Disk(_) | Stop::Damage(_))) => {
                let (counted, why) = match stop {
                    Stop::Damage(why) => ("stopped by damage", why),
                    Stop::Disk(why) | Stop::Invariant(why) => ("stopped by a disk error", why),
                };
                self.cx.note(self.nodes[node].name(), || format!("stops: {why}"));
                self.cx.stats.count(counted);
                self.nodes[node].stop(&mut self.cx, false, Crash::ProcessOnly);
                let at = self.cx.now + self.cx.rng.scale(10_000, 3_000_000);
                self.restart_at(node, at);
            }
            Err(Stop::Invariant(why)) => {
                let text = format!("node {}: {why}", node + 1);
                self.cx.ghost.fail("no node finds a contradiction", text);
            }
        }
    }

    fn resume(&mut self, node: usize) {
        let target = &mut self.nodes[node];
        if target.paused_until > self.cx.now {
            return;
        }
        target.paused_until = 0;
        for event in std::mem::take(&mut target.held) {
            if self.nodes[node].up.is_none() {
                return;
            }
            let closed = matches!(event, NodeEvent::Packet { link, .. } | NodeEvent::Broken { link }
                if !self.cx.net.is_open(link, End::Node(node)));
            if !closed {
                self.at_node(node, event);
            }
        }
    }

    fn heal(&mut self) {
        self.cx.note("", || "all faults end");
        self.cx.healed = true;
        self.cx.cut_at_close = None;
        self.healed_at = Some(self.cx.now);
        for from in 0..self.nodes.len() {
            (0..self.nodes.len()).for_each(|to| self.cx.widen(End::Node(from), End::Node(to)));
        }
        self.cx.net.heal();
        self.cx.resume_links();
        let upgraded = self.nodes.iter().any(|node| node.levels == NEWER);
        for node in 0..self.nodes.len() {
            let target = &mut self.nodes[node];
            target.disk.set_capacity(u64::MAX);
            (target.slow_disk, target.crash_in_recovery, target.error_in_recovery) = ((0, 0), None, None);
            target.paused_until = target.paused_until.min(self.cx.now);
            self.resume(node);
            self.right_members(node);
            // An operator ends what he has begun.
            if upgraded && self.nodes[node].levels != NEWER {
                self.upgrade(node);
                self.nodes[node].stop(&mut self.cx, false, Crash::ProcessOnly);
            }
            if self.nodes[node].up.is_none() {
                let at = self.cx.now;
                self.restart_at(node, at);
            }
        }
        for client in &mut self.clients {
            client.wake(&mut self.cx, &mut self.operations);
        }
        let at = self.cx.now + PROBE;
        self.cx.schedule(at, Event::Probe);
    }

    /// How long it may take until the ensemble is at rest: broken links are noticed, an election fails once, a learner
    /// is synchronised, sessions that were lost are taken up or replaced, callers are answered.
    fn rest_limit(&self) -> u64 {
        let t = self.cx.plan.timing;
        let n = self.cx.plan.network;
        // Over thin links everything may have to be sent to all nodes again.
        let all = 2 * self.cx.ghost.proposed_bytes() * self.nodes.len() as u64 * 1_000_000;
        20_000_000
            + all.checked_div(n.bandwidth).unwrap_or_default()
            + (2 * t.init_limit + 2 * t.sync_limit + t.park + 2 * t.session) * 1_000
            + 50 * (n.max + n.spike)
    }

    fn probe(&mut self) {
        let since = self.cx.now - self.healed_at.unwrap_or_default();
        let last = self.cx.ghost.last();
        let wall_ms =
            self.nodes.iter().map(|n| n.wall_ms).min().unwrap_or_default() + (self.cx.now / 1_000) as i64;
        let unfinished = self.cx.ghost.roster().filter(|roster| roster.is_joint());
        let busy: Vec<String> = (self.nodes.iter())
            // A former member has nothing to wait for, nor has one that was never added.
            .filter(|n| !n.at_rest(last) && self.is_member(n.id))
            .map(|n| match &n.up {
                None => format!("{} is down", n.name()),
                Some(p) => {
                    let (status, applied) =
                        (p.quorum.shell.core().status(), p.store.shell.server.state().applied());
                    format!("{} has applied {applied} of {last}: {status:?}", n.name())
                }
            })
            .chain(
                (self.clients.iter().enumerate())
                    .filter(|(_, c)| !c.at_rest())
                    .map(|(i, c)| format!("client {i} waits for {} answers", c.unanswered())),
            )
            .chain(unfinished.map(|roster| format!("the change {roster} is unfinished")))
            .chain(self.cx.ghost.overdue(wall_ms).map(|path| format!("{path} is not reaped")))
            .collect();
        if busy.is_empty() {
            self.over = true;
            (self.cx.stats.settle_max_us, self.cx.stats.settle_max_seed) = (since, self.cx.plan.seed);
        } else if since > self.rest_limit() {
            self.cx.ghost.fail(
                "L1 liveness",
                format!("{} s after the last fault: {}", since / 1_000_000, busy.join("; ")),
            );
        } else {
            let at = self.cx.now + PROBE;
            self.cx.schedule(at, Event::Probe);
        }
    }

    fn is_member(&self, id: PeerId) -> bool {
        match self.cx.ghost.roster() {
            Some(roster) => roster.membership(id).is_some(),
            None => self.cx.ghost.ensemble().membership(id).is_some(),
        }
    }

    fn judge(self) -> Report {
        let World { mut cx, operations, .. } = self;
        let history = History { operations };
        let at = cx.now;
        let by_order = || history::check_order(&history, Some(cx.ghost.committed()));
        let mut judged = by_order().and_then(|_| history::check_linearizable(&history, SEARCH_STEPS));
        // The checker replays C with the tree of the stores, and a planted fault may be in there: then both agree.
        if cfg!(feature = "mutants") && judged.is_ok() {
            judged = api::mutants::without(by_order).and(judged);
        }
        let violation = match (cx.ghost.violation, judged) {
            (Some((invariant, what)), _) => Some(Violation { invariant, what, at }),
            (None, Err(v)) => {
                Some(Violation { invariant: v.rule.name().to_owned(), what: v.to_string(), at })
            }
            (None, Ok(search)) => {
                cx.stats.searched += search.objects as u64;
                cx.stats.undecided += search.undecided as u64;
                None
            }
        };
        Report { violation, stats: cx.stats, history }
    }
}

/// Something that happens at an end, node or client.
enum What {
    Dialed { link: LinkId, connected: bool },
    Packet { link: LinkId, packet: Packet },
    Broken { link: LinkId },
}

impl What {
    fn for_node(self) -> NodeEvent {
        match self {
            What::Dialed { link, connected } => NodeEvent::Dialed { link, connected },
            What::Packet { link, packet } => NodeEvent::Packet { link, packet },
            What::Broken { link } => NodeEvent::Broken { link },
        }
    }

    fn for_client(self) -> ClientEvent {
        match self {
            What::Dialed { link, connected } => ClientEvent::Dialed { link, connected },
            What::Packet { link, packet } => ClientEvent::Packet { link, packet },
            What::Broken { link } => ClientEvent::Broken { link },
        }
    }
}
