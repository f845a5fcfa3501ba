//! How faults happen, and how nodes come back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use api::chance::Chance;
use api::peer::{Acquaintance, Damage, Incarnation};
use api::ports::{Candidate, Role};
use api::vote::{Notification, Round, Vote};
use api::{
    Configuration, Contact, Ensemble, EnsembleId, Epoch, Greeting, Level, Levels, Member, Membership, PeerId,
    Reconfig, Roster, Standing, Ticket, Zxid,
};
use quorum_core::Input;
use quorum_log::{Crash, DiskOp, Fault as DiskFault, IdentityError, MemDisk, StorageError};
use rustix::io::Errno;

use crate::context::{Event, NodeEvent};
use crate::net::{End, Hello, Kind, LinkId, Packet};
use crate::plan::{Fault, Target};
use crate::world::World;

/// How long an operator waits for a node that is to leave.
const LEAVE_LIMIT: u64 = 5_000_000;

/// What newer builds know.
pub(crate) const NEWER: Levels = Levels::BUILD.and_next();

/// The ensemble of strangers.
const STRANGERS: EnsembleId = EnsembleId(u128::MAX);

impl World {
    pub(crate) fn inject(&mut self, number: usize) {
        let plan = self.cx.plan.clone();
        let fault = &plan.faults[number].fault;
        self.cx.note("", || format!("fault {number}: {fault:?}"));
        *self.cx.stats.faults.entry(fault.name()).or_default() += 1;
        self.carry_out(fault);
    }

    /// From its next start on, a node runs the newer build.
    pub(crate) fn upgrade(&mut self, node: usize) {
        (self.nodes[node].levels, self.cx.ghost.builds[node]) = (NEWER, NEWER);
    }

    fn target(&self, target: Target) -> usize {
        let leader = self.nodes.iter().position(|n| n.leads()).unwrap_or(0);
        (target as usize).checked_sub(1).unwrap_or(leader).min(self.nodes.len() - 1)
    }

    fn carry_out(&mut self, fault: &Fault) {
        let now = self.cx.now;
        match *fault {
            Fault::Kill { node, down } => self.crash(self.target(node), false, Crash::ProcessOnly, down),
            Fault::PowerCut { node, down, table } => {
                let node = self.target(node);
                self.cut_power(node, down);
                if table {
                    self.nodes[node].table = None;
                }
            }
            Fault::PowerCutAll { down } => {
                for node in 0..self.nodes.len() {
                    let down = self.cx.rng.between(down / 2, down);
                    self.cut_power(node, down);
                }
            }
            Fault::PowerCutAtStep { node, step, .. } => {
                self.nodes[self.target(node)].disk.power_off_after(step)
            }
            Fault::CrashInRecovery { node, step, down } => {
                let node = self.target(node);
                self.nodes[node].crash_in_recovery = Some(step);
                self.crash(node, false, Crash::ProcessOnly, down);
            }
            Fault::Pause { node, lasts } => {
                let node = self.target(node);
                self.nodes[node].paused_until = now + lasts;
                self.cx.schedule(now + lasts, Event::Resume { node });
            }
            Fault::Suspend { client, lasts } => {
                let client = client as usize % self.clients.len().max(1);
                if let Some(client) = self.clients.get_mut(client) {
                    client.pause(&mut self.cx, lasts);
                }
            }
            Fault::ClockJump { node, by } => {
                let node = self.target(node);
                self.nodes[node].jump_ahead(&mut self.cx, by);
                self.cx.ghost.clock_jumped();
            }
            Fault::Partition { ref blocked, lasts } => {
                let pairs = blocked.iter().map(|&(a, b)| (self.member(a), self.member(b))).collect();
                self.cx.block(pairs, lasts);
            }
            Fault::IsolateLeader { lasts, hears } => self.cx.cut_off(self.target(0), hears, lasts),
            Fault::IsolateAtClose { lasts } => self.cx.cut_at_close = Some(lasts),
            Fault::Break { a, b } => {
                let (a, b) = (End::Node(self.target(a)), End::Node(self.target(b)));
                let links = if a == b { self.cx.net.links_of(a) } else { self.cx.net.links_between(a, b) };
                for link in links {
                    self.cx.break_link(link, 1_500_000);
                }
            }
            Fault::DialAgain { a, b } => {
                let (a, b) = (End::Node(self.target(a)), End::Node(self.target(b)));
                let links = if a == b { self.cx.net.links_of(a) } else { self.cx.net.links_between(a, b) };
                for link in links {
                    if let Some((kind, from, to)) = self.cx.net.dialled(link) {
                        self.cx.dial(kind, from, to);
                    }
                }
            }
            Fault::BlackHole { a, b } => {
                let (a, b) = (End::Node(self.target(a)), End::Node(self.target(b)));
                self.cx.swallow(a, b);
            }
            Fault::Slow { a, b, factor, lasts } => {
                let (from, to) = (End::Node(self.target(a)), End::Node(self.target(b)));
                if from != to {
                    self.cx.net.slow_down(from, to, factor);
                    self.cx.schedule(now + lasts, Event::SpeedUp { from, to });
                }
            }
            Fault::Thin { a, b, bandwidth, lasts } => {
                let (from, to) = (End::Node(self.target(a)), End::Node(self.target(b)));
                if from != to {
                    self.cx.net.make_thin(from, to, Some(bandwidth));
                    self.cx.schedule(now + lasts, Event::Widen { from, to });
                }
            }
            Fault::SlowDisk { node, delay, lasts } => {
                let node = self.target(node);
                self.nodes[node].slow_disk = (now + lasts, delay);
            }
            Fault::DiskError { node, op, skip, .. } => {
                let target = &self.nodes[self.target(node)];
                target.disk.fail(disk_fault(op, skip));
            }
            Fault::ErrorInRecovery { node, op, skip, down } => {
                let node = self.target(node);
                self.nodes[node].error_in_recovery = Some(disk_fault(op, skip));
                self.crash(node, false, Crash::ProcessOnly, down);
            }
            Fault::Upgrade { node, down } => {
                let node = self.target(node);
                self.upgrade(node);
                self.crash(node, false, Crash::ProcessOnly, down);
            }
            Fault::Raise { node } => {
                let node = self.target(node);
                self.tickets += 1;
                let (ticket, expected, level) = (Ticket(self.tickets), Level::FIRST, NEWER.max());
                self.nodes[node].tell_quorum(&mut self.cx, Input::SetLevel { ticket, expected, level });
            }
            Fault::Reconfigure { node, list } => {
                let node = self.target(node);
                self.reconfigure(node, list);
            }
            Fault::DiskFull { node, lasts } => {
                let node = self.target(node);
                let disk = &self.nodes[node].disk;
                let used: usize = disk.files().values().map(Vec::len).sum();
                disk.set_capacity(used as u64);
                self.cx.schedule(now + lasts, Event::DiskRoom { node });
            }
            Fault::BitFlip { node, file, place, down } => {
                let node = self.target(node);
                if self.may_lose(node) {
                    self.crash(node, false, Crash::ProcessOnly, down);
                    self.flip_bit(node, file, place, |_| true);
                }
            }
            Fault::BitFlipRunning { node, file, place } => {
                let node = self.target(node);
                if self.nodes[node].up.is_some() && self.may_lose(node) {
                    // Mostly the log, and of that mostly the newest segment: it is what the node goes on to read.
                    let dir = if file >> 62 == 0 { "/node/snapshots" } else { "/node/log" };
                    let segments: Vec<_> = (self.nodes[node].disk.files().into_keys())
                        .filter(|path| path.starts_with(dir) && path.extension().is_some_and(|e| e == "log"))
                        .collect();
                    let newest = if file >> 63 == 1 { segments.last() } else { None };
                    if self.flip_bit(node, file, place, |path| {
                        path.starts_with(dir) && newest.is_none_or(|newest| newest == path)
                    }) {
                        self.cx.stats.count("bits flipped under a process");
                        self.cx.ghost.disks[node].latent = true;
                    }
                }
            }
            Fault::StateFlip { node } => {
                let node = self.target(node);
                self.nodes[node].flip_state(&mut self.cx);
            }
            Fault::Wipe { node, down } => {
                let node = self.target(node);
                if self.may_lose(node) {
                    self.crash(node, false, Crash::ProcessOnly, down);
                    self.wipe(node);
                }
            }
            Fault::OlderCopy { node, later, down, table } => {
                let node = self.target(node);
                let disk = self.nodes[node].disk.copy();
                disk.crash(Crash::Random(self.cx.rng.draw()));
                self.copies.push(OlderCopy { disk, table });
                let copy = self.copies.len() - 1;
                self.cx.schedule(now + later, Event::PutBack { node, copy, down });
            }
            Fault::LoseTable { node, down } => {
                let node = self.target(node);
                if self.nodes[node].can_restore() {
                    self.crash(node, false, Crash::ProcessOnly, down);
                    self.nodes[node].table = None;
                }
            }
            Fault::WallJump { node, ms } => {
                let node = self.target(node);
                self.nodes[node].wall_ms += ms;
                self.cx.ghost.clock_set(PeerId(node as u32 + 1), self.nodes[node].wall_ms);
            }
            Fault::Leave { node, down } => self.leave(self.target(node), down),
            Fault::Stranger { node, members, lasts } => self.stranger(self.target(node), members, lasts),
            Fault::OtherMembers { node, list, lasts } => {
                let node = self.target(node);
                // Before its first promise that would be another ensemble, for good. Later its directory says who the members are.
                if self.cx.ghost.disks[node].accepted > Epoch(0) {
                    self.nodes[node].believes = Some(self.other_members(node, list));
                    self.crash(node, false, Crash::ProcessOnly, lasts / 10);
                    self.cx.schedule(now + lasts, Event::RightMembers { node });
                }
            }
        }
    }

    /// All members but one, the node alone, or one more than there are.
    fn other_members(&self, node: usize, list: u64) -> Ensemble {
        let me = PeerId(node as u32 + 1);
        let first = self.nodes[node].first_members(&self.cx);
        let all = || first.members().map(|(id, membership)| Member { id, membership });
        let voter = |id| Member { id, membership: Membership::VOTER };
        let more = || all().chain([voter(PeerId(all().count() as u32 + 1))]);
        let fewer = || all().filter(|m| m.id == me || u64::from(m.id.0) % 2 == list / 3 % 2);
        let other = match list % 3 {
            0 => Ensemble::new([voter(me)]),
            1 => Ensemble::new(more()),
            _ => Ensemble::new(fewer()),
        };
        match other {
            Ok(other) if other != first => other,
            _ => Ensemble::new(more()).unwrap_or_else(|_| first.clone()),
        }
    }

    /// An operator who looks at a node's members asks it for others: one more observer, one observer less or with a vote, one
    /// voter less, or any other list.
    fn reconfigure(&mut self, node: usize, list: u64) {
        let Some(process) = &self.nodes[node].up else { return };
        let newest = process.quorum.shell.core().roster().newest().clone();
        let mut rng = Chance::new(list);
        let mut members: BTreeMap<PeerId, Membership> = newest.ensemble.members().collect();
        let all = (1..=self.nodes.len() as u32).map(PeerId);
        // Now and then a former one, which has to be refused.
        let former = rng.per_mille(50);
        let able: Vec<PeerId> = all.filter(|id| former || !newest.removed.contains(id)).collect();
        let pick = |rng: &mut Chance, which: &dyn Fn(Option<Membership>) -> bool| {
            let found: Vec<PeerId> =
                able.iter().copied().filter(|id| which(members.get(id).copied())).collect();
            rng.pick(&found)
        };
        let mut contacts = newest.contacts.clone();
        match rng.below(10) {
            0..3 => {
                let id = pick(&mut rng, &|m| m.is_none());
                members.extend(id.map(|id| (id, Membership::Observer)));
            }
            3..6 => {
                let id = pick(&mut rng, &|m| m == Some(Membership::Observer));
                members.extend(id.map(|id| (id, Membership::VOTER)));
            }
            6 => {
                let id = pick(&mut rng, &|m| m.is_some());
                id.map(|id| members.remove(&id));
            }
            7 => {
                let id = pick(&mut rng, &|m| m.is_some());
                members.extend(id.map(|id| (id, Membership::Observer)));
            }
            8 => {
                let host = format!("h-{}", rng.below(100));
                let contact = Contact { host, client_port: 1, quorum_port: 2, election_port: 3 };
                contacts.extend(pick(&mut rng, &|m| m.is_some()).map(|id| (id, contact)));
            }
            _ => {
                let drawn: Vec<PeerId> = able.iter().copied().filter(|_| rng.per_mille(700)).collect();
                members = drawn.into_iter().map(|id| (id, Membership::VOTER)).collect();
            }
        }
        let members = members.into_iter().map(|(id, membership)| Member { id, membership });
        let Ok(ensemble) = Ensemble::new(members) else { return };
        let (expected, force) = (newest.version, rng.per_mille(30));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let reconfig = Reconfig { expected, ensemble, contacts, force };
        self.nodes[node].tell_quorum(&mut self.cx, Input::Reconfigure { ticket, reconfig });
    }

    pub(crate) fn right_members(&mut self, node: usize) {
        if self.nodes[node].believes.take().is_some() {
            self.crash(node, false, Crash::ProcessOnly, 1);
        }
    }

    fn stranger(&mut self, node: usize, members: bool, lasts: u64) {
        let own = self.nodes[node].greeting();
        self.crash(node, false, Crash::ProcessOnly, lasts);
        let Some(mut greeting) = own.map(|own| Greeting::clone(&own)) else { return };
        if members {
            let other = Configuration::initial(self.other_members(node, 1));
            greeting.roster = Arc::new(Roster::settled(greeting.roster.since(), other));
        } else {
            greeting.standing =
                Standing { ensemble: Some(STRANGERS), epoch: Epoch(1 << 20), bound: true, level: None };
        }
        let greeting = Rc::new(greeting);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            for kind in [Kind::Election, Kind::Quorum, Kind::Meeting] {
                let link = self.cx.dial(kind, End::Node(node), End::Node(other));
                self.strangers.insert(link, (node, greeting.clone()));
            }
        }
    }

    /// A stranger's connection is there: it says what could do most harm if it were believed.
    pub(crate) fn stranger_speaks(&mut self, link: LinkId, node: usize, greeting: Rc<Greeting>) {
        let Some((kind, _, End::Node(other))) = self.cx.net.dialled(link) else { return };
        // A server without data takes every server with its name and members for one of its ensemble: it may have lost its disk.
        let has_data = self.nodes[other].greeting().is_some_and(|own| own.standing.bound);
        if greeting.standing.ensemble == Some(STRANGERS) && !has_data {
            return;
        }
        let me = PeerId(node as u32 + 1);
        let candidate = Candidate { epoch: Epoch(1 << 20), zxid: Zxid::new(Epoch(1 << 20), 7) };
        let vote = Some(Vote { candidate, leader: me });
        let members = greeting.roster.since();
        let notification = Notification { state: Role::Looking, vote, round: Round(1 << 40), members };
        let met = Some(Incarnation { number: 1 << 40, run: u64::MAX });
        let said = Acquaintance { own: met, met, confirmed: met };
        let packet = match kind {
            Kind::Election => Packet::Election(Some(notification), greeting),
            _ => Packet::Hello(Hello { greeting, said, damage: Damage::None }),
        };
        self.cx.send(link, End::Node(node), packet);
    }

    /// A node or a client by its number in the plan.
    fn member(&self, number: u32) -> End {
        let (index, nodes) = ((number as usize).saturating_sub(1), self.nodes.len());
        let clients = self.cx.plan.clients as usize;
        match index.checked_sub(nodes) {
            Some(client) if clients > 0 => End::Client(client.min(clients - 1)),
            _ => End::Node(index.min(nodes - 1)),
        }
    }

    fn crash(&mut self, node: usize, silent: bool, crash: Crash, down: u64) {
        self.nodes[node].stop(&mut self.cx, silent, crash);
        let at = self.cx.now + down;
        self.restart_at(node, at);
    }

    fn cut_power(&mut self, node: usize, down: u64) {
        let crash = match self.cx.rng.below(3) {
            0 => Crash::LoseUnsynced,
            _ => Crash::Random(self.cx.rng.draw()),
        };
        self.crash(node, true, crash, down);
    }

    /// The power went at a step that was chosen before.
    pub(crate) fn lose_power(&mut self, node: usize) {
        self.cx.note(self.nodes[node].name(), || "loses its power");
        let down = self.cx.rng.scale(10_000, 3_000_000);
        self.cut_power(node, down);
    }

    pub(crate) fn restart_at(&mut self, node: usize, at: u64) {
        let life = self.nodes[node].life;
        self.cx.schedule(at, Event::Start { node, life });
    }

    pub(crate) fn start(&mut self, node: usize) {
        let gone: Vec<LinkId> =
            self.strangers.iter().filter(|(_, (of, _))| *of == node).map(|(&link, _)| link).collect();
        for link in gone {
            self.strangers.remove(&link);
            self.cx.close(link, End::Node(node), None);
        }
        let Err(error) = self.nodes[node].start(&mut self.cx) else { return };
        let target = &mut self.nodes[node];
        self.cx.note(target.name(), || format!("does not start: {error}"));
        if target.disk.is_off() {
            self.cx.stats.count("crashes in recovery");
            return self.lose_power(node);
        }
        target.disk.crash(Crash::ProcessOnly);
        target.refusals += 1;
        let of_the_disk = is_of_the_disk(&error);
        let impaired = self.cx.ghost.disks[node].impaired;
        if !of_the_disk && !impaired {
            let text = format!("node {} refuses its own data: {error}", node + 1);
            self.cx.ghost.fail("a crash is no damage", text);
        }
        if !of_the_disk && self.nodes[node].refusals >= 2 {
            self.cx.stats.count("wiped by hand");
            self.wipe(node);
        }
        let at = self.cx.now + if self.cx.healed { 200_000 } else { self.cx.rng.scale(100_000, 4_000_000) };
        self.restart_at(node, at);
    }

    fn wipe(&mut self, node: usize) {
        let target = &mut self.nodes[node];
        (target.disk, target.table, target.believes) = (MemDisk::new(), None, None);
        self.cx.ghost.disks[node].lose();
    }

    /// Puts an older copy in the place of a node's directory, if the ensemble can bear that: if all other voters have met an incarnation of
    /// the directory that began after the copy was made.
    pub(crate) fn put_back(&mut self, node: usize, copy: usize, down: u64) {
        if self.cx.healed || !self.may_lose(node) {
            return;
        }
        let OlderCopy { disk, table } = &self.copies[copy];
        let (disk, table) = (disk.copy(), *table);
        let id = self.nodes[node].id;
        let copied = lives(&disk);
        let known = (1..=self.nodes.len() as u32).map(PeerId).filter(|&other| other != id).all(|voter| {
            let met = lives(&self.nodes[voter.0 as usize - 1].disk).met.get(&id).copied();
            met.is_some_and(|life| !copied.knows(life))
        });
        if !known && !self.cx.plan.reckless {
            self.cx.stats.count("older copies that no node could tell");
            return;
        }
        self.cx.stats.count("older copies put back");
        self.cx.note(self.nodes[node].name(), || "gets an older copy of its directory");
        self.crash(node, false, Crash::ProcessOnly, down);
        let target = &mut self.nodes[node];
        (target.disk, target.believes) = (disk, None);
        if !table {
            target.table = None;
        }
        self.cx.ghost.disks[node].impair();
    }

    /// Whether the ensemble can bear the loss of this node's data: all other voters have theirs, and have been members
    /// before, so that they can vouch for what is committed; and they are a quorum without it.
    fn may_lose(&self, node: usize) -> bool {
        // One that has only seen a first start that came to nothing has the id of another ensemble, and is no member yet.
        let first = self.cx.ghost.first_epoch().unwrap_or(Epoch(u32::MAX));
        let vouches = |voter: &PeerId| {
            let disk = &self.cx.ghost.disks[voter.0 as usize - 1];
            !disk.impaired && disk.current >= first
        };
        // If it loses its log it cannot know that it never had data there, and waits for an operator.
        let current = self.cx.ghost.disks[node].current;
        let member = current == Epoch(0) || current >= first;
        // By each list that ever was one: servers that missed its end still count by it.
        let bears = |ensemble: &Ensemble| {
            let others: BTreeSet<PeerId> =
                ensemble.voters().filter(|voter| voter.0 as usize - 1 != node).collect();
            ensemble.is_quorum(&others) && others.iter().all(vouches)
        };
        self.cx.plan.reckless || member && api::mutants::without(|| self.cx.ghost.lists().all(bears))
    }

    /// Flips a bit of one of the files that `which` accepts. Whether there was one.
    fn flip_bit(&mut self, node: usize, file: u64, place: u64, which: impl Fn(&Path) -> bool) -> bool {
        let disk = self.nodes[node].disk.clone();
        let files: Vec<_> = (disk.files().into_iter())
            .filter(|(path, contents)| !contents.is_empty() && which(path))
            .collect();
        if files.is_empty() {
            return false;
        }
        let (path, contents) = &files[(file % files.len() as u64) as usize];
        // Where there is something: files are preallocated.
        let used = contents.iter().rposition(|&b| b != 0).map_or(1, |i| i + 1) as u64;
        // A bit that flips in the last record of a log cannot be told from a write that was torn, and costs that record. So
        // there has to be something behind it.
        let log = path.extension().is_some_and(|e| e == "log");
        let used = if log { (used / 2).max(1) } else { used };
        let flipped = disk.flip_bit(path, place % used, (place >> 32) as u8 % 8);
        if flipped {
            self.cx.note(self.nodes[node].name(), || format!("a bit of {} flips", path.display()));
            self.cx.ghost.disks[node].impair();
        }
        flipped
    }

    fn leave(&mut self, node: usize, down: u64) {
        let target = &mut self.nodes[node];
        let Some(process) = target.up.as_mut().filter(|p| p.leaving.is_none()) else { return };
        process.leaving = Some(down);
        let life = target.life;
        target.tell_quorum(&mut self.cx, Input::Leave);
        let at = self.cx.now + LEAVE_LIMIT;
        self.cx.schedule(at, Event::Node { node, life, what: NodeEvent::LeaveLimit });
    }

    pub(crate) fn finish_leaving(&mut self, node: usize) {
        let Some(down) = self.nodes[node].up.as_ref().and_then(|p| p.leaving) else { return };
        self.cx.note(self.nodes[node].name(), || "has left");
        self.crash(node, false, Crash::ProcessOnly, down);
    }
}

/// What is put back some time after it was made.
pub(crate) struct OlderCopy {
    disk: MemDisk,
    /// The checkpoint stays as it is.
    table: bool,
}

/// What the file `incarnations` on a disk says, with each life as number and run.
#[derive(Default)]
struct Known {
    number: u64,
    outlived: u64,
    runs: Vec<(u64, u64)>,
    met: BTreeMap<PeerId, (u64, u64)>,
}

impl Known {
    fn knows(&self, (number, run): (u64, u64)) -> bool {
        let run_of = |number| self.runs.iter().rfind(|(first, _)| *first <= number).map(|(_, run)| *run);
        number <= self.outlived || number <= self.number && run_of(number) == Some(run)
    }
}

fn lives(disk: &MemDisk) -> Known {
    let text = disk.contents(Path::new("/node/incarnations")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = |word| text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default();
    let life = |text: &str| {
        let (number, run) = text.split_once(':')?;
        Some((number.parse().ok()?, u64::from_str_radix(run, 16).ok()?))
    };
    let met = |text: &str| {
        let (peer, met) = text.split_once(':')?;
        Some((PeerId(peer.parse().ok()?), life(met)?))
    };
    Known {
        number: value("number ").parse().unwrap_or_default(),
        outlived: value("outlived ").parse().unwrap_or_default(),
        runs: value("runs ").split_whitespace().filter_map(life).collect(),
        met: value("met ").split_whitespace().filter_map(met).collect(),
    }
}

/// Which calls fail, and on which paths. Some are there twice because they are what is done most, or matter most.
pub(crate) const DISK_OPS: [(DiskOp, &str); 14] = [
    (DiskOp::Write, ""),
    (DiskOp::Sync, ""),
    (DiskOp::Sync, ""),
    (DiskOp::Create, ""),
    (DiskOp::Allocate, ""),
    (DiskOp::SetLen, ""),
    (DiskOp::Rename, ""),
    (DiskOp::Remove, ""),
    (DiskOp::SyncDir, ""),
    // Schedules that were written down count the ones above by their place.
    (DiskOp::Read, ""),
    (DiskOp::Read, "/log/"),
    (DiskOp::Read, "/log/"),
    (DiskOp::Read, "/snapshots/"),
    (DiskOp::Read, ".snap"),
];

/// The place of one that fails to read the log.
pub(crate) const READ_LOG: u8 = 10;

fn disk_fault(op: u8, skip: u32) -> DiskFault {
    let (op, path) = DISK_OPS[usize::from(op) % DISK_OPS.len()];
    DiskFault { op, path: path.into(), skip, errno: Errno::IO }
}

/// Whether it may go away when the node is started again.
fn is_of_the_disk(error: &StorageError) -> bool {
    use quorum_log::{EpochError, IncarnationError, LogError, SnapshotError};
    matches!(
        error,
        StorageError::Log(LogError::Disk(_))
            | StorageError::Epochs(EpochError::Disk(_))
            | StorageError::Snapshots(SnapshotError::Disk(_))
            | StorageError::Identity(IdentityError::Disk(_))
            | StorageError::Incarnations(IncarnationError::Disk(_))
    )
}
